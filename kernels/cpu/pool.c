/* Pooling on row-major tensors: what the library has no form for, or no input in its layout. */
#include "kit.h"

#define SPATIAL 3

struct pool {
    enum dtype type;
    bool max, count_pads, global, column_major;
    int64_t planes;
    /* leading dimensions of 1 where there are fewer than three */
    int64_t in[SPATIAL], out[SPATIAL], kernel[SPATIAL], stride[SPATIAL], dilate[SPATIAL],
        lo[SPATIAL], hi[SPATIAL];
    bool indices;
    uint32_t n_in;
    void (*mean)(int64_t n, const float *x, float *y);
};

/* The window at `out` along one dimension: first and last kernel element inside the input. */
struct reach {
    int64_t from, to, at; /* at: input index of kernel element 0, may be negative */
};

static struct reach reach_of(const struct pool *p, uint32_t d, int64_t out)
{
    struct reach r = {.at = out * p->stride[d] - p->lo[d]};
    int64_t last = p->in[d] - 1 - r.at;

    r.from = r.at < 0 ? (-r.at + p->dilate[d] - 1) / p->dilate[d] : 0;
    r.to = last < 0 ? -1 : MIN(p->kernel[d] - 1, last / p->dilate[d]);
    return r;
}

/* Elements of the window that lie in the input or its declared padding. */
static int64_t counted(const struct pool *p, uint32_t d, const struct reach *r)
{
    int64_t n = 0;

    for (int64_t k = 0; k < p->kernel[d]; k++)
        n += r->at + k * p->dilate[d] < p->in[d] + p->hi[d];
    return n;
}

#define WINDOW_LOOP(body)                                                                          \
    for (int64_t i = r[0].from; i <= r[0].to; i++)                                                 \
        for (int64_t j = r[1].from; j <= r[1].to; j++)                                             \
            for (int64_t k = r[2].from; k <= r[2].to; k++) {                                       \
                int64_t at =                                                                       \
                    ((r[0].at + i * p->dilate[0]) * p->in[1] + r[1].at + j * p->dilate[1]) *       \
                        p->in[2] +                                                                 \
                    r[2].at + k * p->dilate[2];                                                    \
                body                                                                               \
            }

/* ONNX numbers indices over the whole tensor; storage_order 1 counts columns first. */
static int64_t index_of(const struct pool *p, int64_t plane, int64_t at)
{
    int64_t each = p->in[0] * p->in[1] * p->in[2];

    if (p->column_major) {
        int64_t w = at % p->in[2], h = at / p->in[2] % p->in[1], d = at / p->in[2] / p->in[1];
        at = (w * p->in[1] + h) * p->in[0] + d;
    }
    return plane * each + at;
}

#define POOL(D, T, A)                                                                              \
    static void pool_##D(const struct pool *p, const struct reach *r, int64_t plane, const T *x,   \
                         T *y, int64_t *index)                                                     \
    {                                                                                              \
        if (p->max) {                                                                              \
            int64_t best = -1;                                                                     \
            WINDOW_LOOP(if (best < 0 || x[at] > x[best]) best = at;)                               \
            *y = best < 0 ? (T)-INFINITY_OF_##D : x[best];                                         \
            if (index)                                                                             \
                *index = index_of(p, plane, MAX(best, 0));                                         \
            return;                                                                                \
        }                                                                                          \
        A sum = 0;                                                                                 \
        int64_t n = 0;                                                                             \
        WINDOW_LOOP(sum += (A)x[at]; n++;)                                                         \
        if (p->count_pads)                                                                         \
            n = counted(p, 0, &r[0]) * counted(p, 1, &r[1]) * counted(p, 2, &r[2]);                \
        *y = (T)(sum / (A)n);                                                                      \
    }
#define INFINITY_OF_DT_FP32 INFINITY
#define INFINITY_OF_DT_FP64 INFINITY
#define INFINITY_OF_DT_INT8 128
#define INFINITY_OF_DT_UINT8 0
POOL(DT_FP32, float, float)
POOL(DT_FP64, double, double)
POOL(DT_INT8, int8_t, int)
POOL(DT_UINT8, uint8_t, int)

#define POOL_CASE(D, T)                                                                            \
    case D:                                                                                        \
        pool_##D(p, r, plane, (const T *)x + plane * each, (T *)y + to,                            \
                 index ? index + to : NULL);                                                       \
        break;

static void pool_one(const struct pool *p, const struct reach *r, int64_t plane, int64_t to,
                     const void *x, void *y, int64_t *index)
{
    int64_t each = p->in[0] * p->in[1] * p->in[2];

    switch (p->type) {
        POOL_CASE(DT_FP32, float)
        POOL_CASE(DT_FP64, double)
        POOL_CASE(DT_INT8, int8_t)
        POOL_CASE(DT_UINT8, uint8_t)
    default:
        break;
    }
}

static int run_pool(const void *params, void *const *ptr)
{
    const struct pool *p = params;
    int64_t *index = p->indices ? ptr[p->n_in + 1] : NULL;
    int64_t to = 0;

    for (int64_t plane = 0; plane < p->planes; plane++)
        for (int64_t i = 0; i < p->out[0]; i++)
            for (int64_t j = 0; j < p->out[1]; j++)
                for (int64_t k = 0; k < p->out[2]; k++) {
                    struct reach r[SPATIAL] = {reach_of(p, 0, i), reach_of(p, 1, j),
                                               reach_of(p, 2, k)};
                    pool_one(p, r, plane, to++, ptr[0], ptr[p->n_in], index);
                }
    return 0;
}

VECTOR(mean_row, (int64_t n, const float *x, float *y), (n, x, y))
{
    float sum = 0;

    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    *y = sum / (float)n;
}

static int run_global_mean(const void *params, void *const *ptr)
{
    const struct pool *p = params;
    int64_t each = p->in[0] * p->in[1] * p->in[2];

    for (int64_t i = 0; i < p->planes; i++)
        p->mean(each, (const float *)ptr[0] + i * each, (float *)ptr[1] + i);
    return 0;
}

static void spread(const struct node *n, const char *name, uint32_t from, uint32_t count,
                   int64_t absent, int64_t *ret)
{
    uint32_t have;
    const int64_t *v = node_ints(n, name, &have);

    for (uint32_t i = 0; i < SPATIAL; i++)
        ret[i] = absent;
    for (uint32_t i = 0; i < count && from + i < have; i++)
        ret[SPATIAL - count + i] = v[from + i];
}

static void pool_pads(const struct node *n, uint32_t count, struct pool *p)
{
    const char *automatic = node_str(n, "auto_pad", "NOTSET");
    bool valid = STREQ(automatic, "VALID");

    spread(n, "pads", 0, valid ? 0 : count, 0, p->lo);
    spread(n, "pads", count, valid ? 0 : count, 0, p->hi);
    if (STREQ(automatic, "NOTSET") || valid)
        return;
    for (uint32_t i = SPATIAL - count; i < SPATIAL; i++) {
        int64_t need = (p->out[i] - 1) * p->stride[i] + (p->kernel[i] - 1) * p->dilate[i] + 1;
        int64_t pad = MAX(need - p->in[i], 0);
        p->lo[i] = STREQ(automatic, "SAME_LOWER") ? pad - pad / 2 : pad / 2;
        p->hi[i] = pad - p->lo[i];
    }
}

int plan_pool(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    const struct tensor *x = a->in[0], *y = a->out[0];
    struct pool p = {.type = x->dtype,
                     .max = n->op == OP_MaxPool || n->op == OP_GlobalMaxPool,
                     .global = n->op == OP_GlobalAveragePool || n->op == OP_GlobalMaxPool,
                     .count_pads = node_int(n, "count_include_pad", 0) != 0,
                     .column_major = node_int(n, "storage_order", 0) != 0,
                     .indices = arg_out(a, 1) != NULL,
                     .n_in = n->n_in};

    if (x->rank < 3 || x->rank > 2 + SPATIAL)
        return plan_fail(a, -ENOTSUP, "more than three or no spatial dimensions", err);
    if (p.type != DT_FP32 && p.type != DT_FP64 &&
        !(p.max && (p.type == DT_INT8 || p.type == DT_UINT8)))
        return plan_type(a, p.type, err);
    uint32_t count = x->rank - 2;
    p.planes = x->dims[0] * x->dims[1];
    for (uint32_t i = 0; i < SPATIAL; i++) {
        bool there = i + count >= SPATIAL;
        p.in[i] = there ? x->dims[i + x->rank - SPATIAL] : 1;
        p.out[i] = there ? y->dims[i + x->rank - SPATIAL] : 1;
    }
    spread(n, "kernel_shape", 0, count, 1, p.kernel);
    if (p.global)
        memcpy(p.kernel, p.in, sizeof(p.in));
    spread(n, "strides", 0, count, 1, p.stride);
    spread(n, "dilations", 0, count, 1, p.dilate);
    pool_pads(n, count, &p);
    p.mean = PICK(mean_row);
    bool mean = n->op == OP_GlobalAveragePool && p.type == DT_FP32;
    return plan_done(a, mean ? run_global_mean : run_pool, &p, sizeof(p), ret, err);
}
