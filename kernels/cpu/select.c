/* Along an axis, on [outer, n, inner]: CumSum and TopK. */
#include "kit.h"

#define IS_NUMBER(D, T, U) || t == D
static bool is_number(enum dtype t)
{
    return false CPU_NUMBERS(IS_NUMBER);
}

/* ---- CumSum */

struct cum_sum {
    int64_t outer, n, inner;
    enum dtype type;
    bool exclusive, reverse;
};

/* Whole rows of `inner` are added at once. */
#define CUM_SUM(D, T, U)                                                                           \
    VECTOR(rows_##D, (const struct cum_sum *p, const void *x_, void *y_), (p, x_, y_))             \
    {                                                                                              \
        int64_t step = p->reverse ? -p->inner : p->inner;                                          \
        const T *x = (const T *)x_ + (p->reverse ? (p->n - 1) * p->inner : 0);                     \
        T *y = (T *)y_ + (p->reverse ? (p->n - 1) * p->inner : 0);                                 \
        for (int64_t k = 0; k < p->n; k++, x += step, y += step) {                                 \
            const T *add = p->exclusive ? x - step : x, *sum = y - step;                           \
            bool first = k == 0;                                                                   \
            for (int64_t i = 0; i < p->inner; i++)                                                 \
                y[i] = first ? (p->exclusive ? 0 : x[i]) : (T)((U)sum[i] + (U)add[i]);             \
        }                                                                                          \
    }
CPU_INTS(CUM_SUM)
CUM_SUM(DT_FP64, double, double)
CUM_SUM(DT_FP32, float, float)

/* One column of floats: a sum in double loses nothing that matters. */
static void column(const struct cum_sum *p, const float *x, float *y)
{
    double sum = 0;

    for (int64_t k = 0; k < p->n; k++) {
        int64_t i = p->reverse ? p->n - 1 - k : k;
        double before = sum;
        sum += (double)x[i];
        y[i] = (float)(p->exclusive ? before : sum);
    }
}

#define CUM_CASE(D, T, U)                                                                          \
    case D:                                                                                        \
        PICK(rows_##D)(p, (const T *)ptr[0] + at, (T *)ptr[2] + at);                               \
        break;

static int run_cum_sum(const void *params, void *const *ptr)
{
    const struct cum_sum *p = params;

    for (int64_t o = 0; o < p->outer; o++) {
        int64_t at = o * p->n * p->inner;
        if (p->type == DT_FP32 && p->inner == 1) {
            column(p, (const float *)ptr[0] + at, (float *)ptr[2] + at);
            continue;
        }
        switch (p->type) {
            CPU_NUMBERS(CUM_CASE)
        default:
            return -EINVAL;
        }
    }
    return 0;
}

int plan_cum_sum(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    uint32_t axis, n;
    int64_t at;
    int r = arg_ints(a, 1, "", &at, 1, &n, err);

    if (r < 0 || (r = arg_axis(a, n ? at : 0, x->rank, &axis, err)) < 0)
        return r;
    struct cum_sum p = {.outer = span(x, 0, axis),
                        .n = x->dims[axis],
                        .inner = span(x, axis + 1, x->rank),
                        .type = x->dtype,
                        .exclusive = node_int(a->node, "exclusive", 0) != 0,
                        .reverse = node_int(a->node, "reverse", 0) != 0};
    return is_number(x->dtype) ? plan_done(a, run_cum_sum, &p, sizeof(p), ret, err)
                               : plan_type(a, x->dtype, err);
}

/* ---- TopK: a heap of the k best so far, in the results' own memory, the worst on top; then it is
 * taken apart from the worst to the best.  Of equal values the lower index is the better one.  NaN
 * is above all numbers. */

struct top_k {
    int64_t outer, n, k, inner;
    enum dtype type;
    bool largest;
    uint32_t out;
};

#define TOP_K(D, T, U)                                                                             \
    static inline bool better_##D(bool largest, T a, T b)                                          \
    {                                                                                              \
        return largest ? a > b || (a != a && b == b) : a < b || (b != b && a == a);                \
    }                                                                                              \
    static void sift_##D(const struct top_k *p, T *v, int64_t *at, int64_t i, int64_t n)           \
    {                                                                                              \
        int64_t s = p->inner;                                                                      \
        for (;;) {                                                                                 \
            int64_t worst = i;                                                                     \
            for (int64_t c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++) {                            \
                T a = v[c * s], b = v[worst * s];                                                  \
                if (better_##D(p->largest, b, a) ||                                                \
                    (!better_##D(p->largest, a, b) && at[c * s] > at[worst * s]))                  \
                    worst = c;                                                                     \
            }                                                                                      \
            if (worst == i)                                                                        \
                return;                                                                            \
            swap_##D(v, at, i *s, worst *s);                                                       \
            i = worst;                                                                             \
        }                                                                                          \
    }                                                                                              \
    static void top_##D(const struct top_k *p, const T *x, T *v, int64_t *at)                      \
    {                                                                                              \
        int64_t s = p->inner;                                                                      \
        for (int64_t i = 0; i < p->k; i++) {                                                       \
            v[i * s] = x[i * s];                                                                   \
            at[i * s] = i;                                                                         \
        }                                                                                          \
        for (int64_t i = p->k / 2; i-- > 0;)                                                       \
            sift_##D(p, v, at, i, p->k);                                                           \
        for (int64_t i = p->k; i < p->n && p->k; i++)                                              \
            if (better_##D(p->largest, x[i * s], v[0])) {                                          \
                v[0] = x[i * s];                                                                   \
                at[0] = i;                                                                         \
                sift_##D(p, v, at, 0, p->k);                                                       \
            }                                                                                      \
        for (int64_t i = p->k; i-- > 1;) {                                                         \
            swap_##D(v, at, 0, i *s);                                                              \
            sift_##D(p, v, at, 0, i);                                                              \
        }                                                                                          \
    }
#define SWAP(D, T, U)                                                                              \
    static inline void swap_##D(T *v, int64_t *at, int64_t i, int64_t j)                           \
    {                                                                                              \
        T value = v[i];                                                                            \
        int64_t index = at[i];                                                                     \
        v[i] = v[j];                                                                               \
        at[i] = at[j];                                                                             \
        v[j] = value;                                                                              \
        at[j] = index;                                                                             \
    }
CPU_NUMBERS(SWAP)
CPU_NUMBERS(TOP_K)

#define TOP_CASE(D, T, U)                                                                          \
    case D:                                                                                        \
        top_##D(p, (const T *)ptr[0] + from, (T *)ptr[p->out] + to,                                \
                (int64_t *)ptr[p->out + 1] + to);                                                  \
        break;

static int run_top_k(const void *params, void *const *ptr)
{
    const struct top_k *p = params;

    for (int64_t row = 0; row < p->outer * p->inner; row++) {
        int64_t o = row / p->inner, i = row % p->inner;
        int64_t from = o * p->n * p->inner + i, to = o * p->k * p->inner + i;
        switch (p->type) {
            CPU_NUMBERS(TOP_CASE)
        default:
            return -EINVAL;
        }
    }
    return 0;
}

int plan_top_k(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", -1), x->rank, &axis, err);

    if (r < 0)
        return r;
    if (!arg_out(a, 0) || !arg_out(a, 1))
        return plan_fail(a, -ENOTSUP, "an output that is omitted", err);
    struct top_k p = {.outer = span(x, 0, axis),
                      .n = x->dims[axis],
                      .k = a->out[0]->dims[axis],
                      .inner = span(x, axis + 1, x->rank),
                      .type = x->dtype,
                      .largest = node_int(a->node, "largest", 1) != 0,
                      .out = a->node->n_in};
    return is_number(x->dtype) ? plan_done(a, run_top_k, &p, sizeof(p), ret, err)
                               : plan_type(a, x->dtype, err);
}
