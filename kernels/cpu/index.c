/* Reading and writing by index: GatherElements, GatherND, ScatterElements, ScatterND, OneHot.
 * Indices come with the request: each is checked, and one out of range ends the run. */
#include "kit.h"

/* Index k, counted from the front; -1 when it is out of range. */
static inline int64_t index_at(const void *at, bool wide, int64_t k, int64_t limit)
{
    int64_t i = wide ? ((const int64_t *)at)[k] : ((const int32_t *)at)[k];

    i = i < 0 ? i + limit : i;
    return i < 0 || i >= limit ? -1 : i;
}

/* What a written value does to the one that is there. */
enum mix { MIX_NONE, MIX_ADD, MIX_MUL, MIX_MIN, MIX_MAX, MIX_BAD };

static enum mix mix_of(const struct node *n)
{
    static const char *const names[] = {"none", "add", "mul", "min", "max"};
    const char *s = node_str(n, "reduction", "none");
    unsigned i = 0;

    while (i < ARRAY_SIZE(names) && !STREQ(names[i], s))
        i++;
    return (enum mix)i;
}

#define MIX_LOOP(T, n, y, s, u, expr)                                                              \
    for (int64_t i_ = 0; i_ < n; i_++) {                                                           \
        T a = ((T *)y)[i_ * (s)], b = ((const T *)u)[i_];                                          \
        ((T *)y)[i_ * (s)] = (T)(expr);                                                            \
    }
#define MIX_CASE(D, T, U)                                                                          \
    case D:                                                                                        \
        if (m == MIX_ADD)                                                                          \
            MIX_LOOP(T, n, y, 1, u, (U)a + (U)b)                                                   \
        else if (m == MIX_MUL)                                                                     \
            MIX_LOOP(T, n, y, 1, u, (U)a *(U)b)                                                    \
        else if (m == MIX_MIN)                                                                     \
            MIX_LOOP(T, n, y, 1, u, b < a ? b : a)                                                 \
        else                                                                                       \
            MIX_LOOP(T, n, y, 1, u, a < b ? b : a)                                                 \
        break;

static void mix(enum mix m, enum dtype t, size_t size, int64_t n, char *y, const char *u)
{
    if (m == MIX_NONE) {
        memcpy(y, u, (size_t)n * size);
        return;
    }
    switch (t) {
        CPU_NUMBERS(MIX_CASE)
    default:
        break;
    }
}

#define IS_NUMBER(D, T, U) || t == D
static bool mixes(enum mix m, enum dtype t)
{
    return m == MIX_NONE || (m != MIX_BAD && (false CPU_NUMBERS(IS_NUMBER)));
}

/* ---- one index for each element: along the axis it says where, along the others it stands
 * beside its element */

struct beside {
    struct walk walk; /* operand 0: indices, 1: data with the axis standing still */
    int64_t limit, step;
    enum dtype type;
    enum mix mix;
    size_t size, bytes;
    bool wide;
};

static int beside_init(const struct cpu_args *a, struct beside *p, struct err *err)
{
    const struct tensor *x = a->in[0], *at = a->in[1];
    int64_t stride[OPERANDS_MAX][MAX_RANK];
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", 0), x->rank, &axis, err);

    if (r < 0)
        return r;
    strides_rows(at->rank, at->dims, stride[0]);
    strides_rows(x->rank, x->dims, stride[1]);
    *p = (struct beside){.limit = x->dims[axis],
                         .step = stride[1][axis],
                         .type = x->dtype,
                         .size = dtype_size(x->dtype),
                         .bytes = x->bytes,
                         .wide = at->dtype == DT_INT64};
    stride[1][axis] = 0;
    walk_make(&p->walk, at->rank, at->dims, 2, (const int64_t(*)[MAX_RANK])stride);
    return 0;
}

#define GATHER_CASE(size_, T)                                                                      \
    case size_:                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                          \
            int64_t k = index_at(at, p->wide, off[0] + i, p->limit);                               \
            if (k < 0)                                                                             \
                return -EINVAL;                                                                    \
            ((T *)y)[off[0] + i] = ((const T *)x)[off[1] + i * s + k * p->step];                   \
        }                                                                                          \
        break;

static int gather_row(const struct beside *p, const int64_t *off, const void *x, const void *at,
                      void *y)
{
    uint32_t in = p->walk.rank - 1;
    int64_t n = p->walk.dims[in], s = p->walk.stride[1][in];

    switch (p->size) {
        GATHER_CASE(1, uint8_t)
        GATHER_CASE(2, uint16_t)
        GATHER_CASE(4, uint32_t)
        GATHER_CASE(8, uint64_t)
    default:
        break;
    }
    return 0;
}

static int run_gather_elements(const void *params, void *const *ptr)
{
    const struct beside *p = params;

    WALK_ROWS(&p->walk, off, {
        if (gather_row(p, off, ptr[0], ptr[1], ptr[2]) < 0)
            return -EINVAL;
    });
    return 0;
}

int plan_gather_elements(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct beside p;
    int r = beside_init(a, &p, err);

    if (r < 0)
        return r;
    return p.size ? plan_done(a, run_gather_elements, &p, sizeof(p), ret, err)
                  : plan_type(a, p.type, err);
}

static int run_scatter_elements(const void *params, void *const *ptr)
{
    const struct beside *p = params;
    uint32_t in = p->walk.rank - 1;
    int64_t n = p->walk.dims[in], s = p->walk.stride[1][in];
    const char *up = ptr[2];
    char *y = ptr[3];

    memcpy(y, ptr[0], p->bytes);
    WALK_ROWS(&p->walk, off, {
        for (int64_t i = 0; i < n; i++) {
            int64_t k = index_at(ptr[1], p->wide, off[0] + i, p->limit);
            if (k < 0)
                return -EINVAL;
            mix(p->mix, p->type, p->size, 1, y + (size_t)(off[1] + i * s + k * p->step) * p->size,
                up + (size_t)(off[0] + i) * p->size);
        }
    });
    return 0;
}

int plan_scatter_elements(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct beside p;
    int r = beside_init(a, &p, err);

    if (r < 0)
        return r;
    p.mix = mix_of(a->node);
    return mixes(p.mix, p.type) && p.size
               ? plan_done(a, run_scatter_elements, &p, sizeof(p), ret, err)
               : plan_type(a, p.type, err);
}

/* ---- several indices name a block */

struct blocks {
    int64_t n, each, named, whole; /* tuples; tuples of a batch entry; indices in one; elements */
    int64_t limit[MAX_RANK], stride[MAX_RANK], block; /* in elements */
    size_t size, bytes;
    enum dtype type;
    enum mix mix;
    bool wide;
};

static int blocks_init(const struct cpu_args *a, uint32_t batch, struct blocks *p, struct err *err)
{
    const struct tensor *x = a->in[0], *at = a->in[1];
    int64_t stride[MAX_RANK];

    *p = (struct blocks){.n = span(at, 0, at->rank - 1),
                         .named = at->dims[at->rank - 1],
                         .whole = span(x, batch, x->rank),
                         .size = dtype_size(x->dtype),
                         .bytes = x->bytes,
                         .type = x->dtype,
                         .mix = mix_of(a->node),
                         .wide = at->dtype == DT_INT64};
    if (!p->size || !mixes(p->mix, p->type))
        return plan_type(a, x->dtype, err);
    strides_rows(x->rank, x->dims, stride);
    for (int64_t i = 0; i < p->named; i++) {
        p->limit[i] = x->dims[batch + i];
        p->stride[i] = stride[batch + i];
    }
    p->block = span(x, batch + (uint32_t)p->named, x->rank);
    p->each = p->n / MAX(span(x, 0, batch), 1);
    return 0;
}

/* Where tuple k begins in its batch entry, or -1. */
static int64_t block_at(const struct blocks *p, const void *at, int64_t k)
{
    int64_t from = 0;

    for (int64_t i = 0; i < p->named; i++) {
        int64_t v = index_at(at, p->wide, k * p->named + i, p->limit[i]);
        if (v < 0)
            return -1;
        from += v * p->stride[i];
    }
    return from;
}

static int run_gather_nd(const void *params, void *const *ptr)
{
    const struct blocks *p = params;
    size_t bytes = (size_t)p->block * p->size;
    const char *x = ptr[0];
    char *y = ptr[2];

    for (int64_t k = 0; k < p->n; k++, y += bytes) {
        int64_t from = block_at(p, ptr[1], k);
        if (from < 0)
            return -EINVAL;
        memcpy(y, x + (size_t)(k / p->each * p->whole + from) * p->size, bytes);
    }
    return 0;
}

int plan_gather_nd(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct blocks p;
    int r = blocks_init(a, (uint32_t)node_int(a->node, "batch_dims", 0), &p, err);

    return r < 0 ? r : plan_done(a, run_gather_nd, &p, sizeof(p), ret, err);
}

static int run_scatter_nd(const void *params, void *const *ptr)
{
    const struct blocks *p = params;
    const char *up = ptr[2];
    char *y = ptr[3];

    memcpy(y, ptr[0], p->bytes);
    for (int64_t k = 0; k < p->n; k++) {
        int64_t to = block_at(p, ptr[1], k);
        if (to < 0)
            return -EINVAL;
        mix(p->mix, p->type, p->size, p->block, y + (size_t)to * p->size,
            up + (size_t)(k * p->block) * p->size);
    }
    return 0;
}

int plan_scatter_nd(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct blocks p;
    int r = blocks_init(a, 0, &p, err);

    return r < 0 ? r : plan_done(a, run_scatter_nd, &p, sizeof(p), ret, err);
}

/* ---- OneHot: [outer, inner] indices become [outer, depth, inner] */

struct one_hot {
    int64_t outer, depth, inner;
    enum dtype index;
    size_t size;
};

#define INDEX_CASE(D, T, U)                                                                        \
    case D:                                                                                        \
        return (int64_t)((const T *)at)[k];
static int64_t number_at(enum dtype t, const void *at, int64_t k)
{
    switch (t) {
        CPU_NUMBERS(INDEX_CASE)
    default:
        return -1;
    }
}

static int run_one_hot(const void *params, void *const *ptr)
{
    const struct one_hot *p = params;
    const char *off = ptr[2], *on = off + p->size;
    char *y = ptr[3];

    for (int64_t i = 0; i < p->outer * p->depth * p->inner; i++)
        memcpy(y + (size_t)i * p->size, off, p->size);
    for (int64_t k = 0; k < p->outer * p->inner; k++) {
        int64_t at = number_at(p->index, ptr[0], k), o = k / p->inner, i = k % p->inner;
        at = at < 0 ? at + p->depth : at;
        if (at >= 0 && at < p->depth) /* all cold otherwise: no error, says ONNX */
            memcpy(y + (size_t)((o * p->depth + at) * p->inner + i) * p->size, on, p->size);
    }
    return 0;
}

int plan_one_hot(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *at = a->in[0], *y = a->out[0];
    enum dtype t = at->dtype;
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", -1), y->rank, &axis, err);

    if (r < 0)
        return r;
    if (!(false CPU_NUMBERS(IS_NUMBER)))
        return plan_type(a, t, err);
    struct one_hot p = {.outer = span(y, 0, axis),
                        .depth = y->dims[axis],
                        .inner = span(y, axis + 1, y->rank),
                        .index = t,
                        .size = dtype_size(y->dtype)};
    return plan_done(a, run_one_hot, &p, sizeof(p), ret, err);
}
