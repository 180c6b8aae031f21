/* Reductions over any axes, and the position of an extreme.
 *
 * The tensor is seen as [outer, reduced, inner] wherever the axes lie together; otherwise the
 * reduced elements of each result are walked one by one. */
#include "kit.h"

enum fold { FOLD_SUM, FOLD_ABS, FOLD_SQUARE, FOLD_PROD, FOLD_MAX, FOLD_MIN };

struct reduce {
    struct walk kept, gone; /* operand 0: input; of kept, operand 1: result */
    enum dtype type;
    enum fold fold;
    bool root, log;
    double scale;
    int64_t n_gone;
    uint32_t out;
};

#define FOLD_LOOP(T, A, x, n, s, acc)                                                              \
    switch (p->fold) {                                                                             \
    case FOLD_SUM:                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                            \
            acc += (A)x[i * s];                                                                    \
        break;                                                                                     \
    case FOLD_ABS:                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                            \
            acc += x[i * s] < (T)1 && x[i * s] < 0 ? (A)0 - (A)x[i * s] : (A)x[i * s];             \
        break;                                                                                     \
    case FOLD_SQUARE:                                                                              \
        for (int64_t i = 0; i < n; i++)                                                            \
            acc += (A)x[i * s] * (A)x[i * s];                                                      \
        break;                                                                                     \
    case FOLD_PROD:                                                                                \
        for (int64_t i = 0; i < n; i++)                                                            \
            acc *= (A)x[i * s];                                                                    \
        break;                                                                                     \
    case FOLD_MAX:                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                            \
            acc = x[i * s] != x[i * s] || (T)acc < x[i * s] ? (A)x[i * s] : acc;                   \
        break;                                                                                     \
    case FOLD_MIN:                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                            \
            acc = x[i * s] != x[i * s] || (T)acc > x[i * s] ? (A)x[i * s] : acc;                   \
        break;                                                                                     \
    }

/* Extremes begin with the first element, the others with their neutral one. */
#define REDUCE(D, T, A)                                                                            \
    static void reduce_##D(const struct reduce *p, const T *x, T *y)                               \
    {                                                                                              \
        bool extreme = p->fold == FOLD_MAX || p->fold == FOLD_MIN;                                 \
        uint32_t in = p->gone.rank - 1, last = p->kept.rank - 1;                                   \
        WALK_ROWS(&p->kept, at, {                                                                  \
            for (int64_t k = 0; k < p->kept.dims[last]; k++) {                                     \
                const T *from = x + at[0] + k * p->kept.stride[0][last];                           \
                A acc = p->fold == FOLD_PROD ? 1 : 0;                                              \
                if (extreme && p->n_gone)                                                          \
                    acc = (A)from[0];                                                              \
                WALK_ROWS(&p->gone, off, {                                                         \
                    const T *row = from + off[0];                                                  \
                    FOLD_LOOP(T, A, row, p->gone.dims[in], p->gone.stride[0][in], acc)             \
                });                                                                                \
                REDUCE_END(A)                                                                      \
                y[at[1] + k * p->kept.stride[1][last]] = (T)acc;                                   \
            }                                                                                      \
        });                                                                                        \
    }
#define REDUCE_END(A)                                                                              \
    if (p->scale != 1)                                                                             \
        acc = (A)((double)acc * p->scale);                                                         \
    if (p->root)                                                                                   \
        acc = (A)sqrt((double)acc);                                                                \
    if (p->log)                                                                                    \
        acc = (A)log((double)acc);
REDUCE(DT_FP32, float, double)
REDUCE(DT_FP64, double, double)
#undef REDUCE_END
/* A mean of integers divides. */
#define REDUCE_END(A)                                                                              \
    if (p->scale != 1 && p->n_gone)                                                                \
        acc = (A)((int64_t)acc / p->n_gone);                                                       \
    if (p->root)                                                                                   \
        acc = (A)sqrt((double)(int64_t)acc);                                                       \
    if (p->log)                                                                                    \
        acc = (A)(int64_t)log((double)(int64_t)acc);
REDUCE(DT_INT8, int8_t, uint64_t)
REDUCE(DT_UINT8, uint8_t, uint64_t)
REDUCE(DT_INT32, int32_t, uint64_t)
REDUCE(DT_UINT32, uint32_t, uint64_t)
REDUCE(DT_INT64, int64_t, uint64_t)
REDUCE(DT_UINT64, uint64_t, uint64_t)

/* Rows that lie together: many sums at once, in float. */
VECTOR(sum_rows, (int64_t n, int64_t gone, const float *x, float scale, float *y),
       (n, gone, x, scale, y))
{
    memset(y, 0, (size_t)n * sizeof(*y));
    for (int64_t g = 0; g < gone; g++) {
        SIMD for (int64_t i = 0; i < n; i++) y[i] += x[g * n + i];
    }
    SIMD for (int64_t i = 0; i < n; i++) y[i] *= scale;
}

VECTOR(sum_row, (int64_t n, const float *x, float scale, float *y), (n, x, scale, y))
{
    float sum = 0;

    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    *y = sum * scale;
}

struct sums {
    int64_t outer, gone, inner;
    float scale;
    uint32_t out;
    void (*rows)(int64_t, int64_t, const float *, float, float *);
    void (*row)(int64_t, const float *, float, float *);
};

static int run_sums(const void *params, void *const *ptr)
{
    const struct sums *p = params;
    const float *x = ptr[0];
    float *y = ptr[p->out];

    for (int64_t o = 0; o < p->outer; o++, x += p->gone * p->inner, y += p->inner)
        if (p->inner == 1)
            p->row(p->gone, x, p->scale, y);
        else
            p->rows(p->inner, p->gone, x, p->scale, y);
    return 0;
}

#define RUN_CASE(D)                                                                                \
    case D:                                                                                        \
        reduce_##D(p, ptr[0], ptr[p->out]);                                                        \
        break;

static int run_reduce(const void *params, void *const *ptr)
{
    const struct reduce *p = params;

    switch (p->type) {
        RUN_CASE(DT_FP32)
        RUN_CASE(DT_FP64)
        RUN_CASE(DT_INT8)
        RUN_CASE(DT_UINT8)
        RUN_CASE(DT_INT32)
        RUN_CASE(DT_UINT32)
        RUN_CASE(DT_INT64)
        RUN_CASE(DT_UINT64)
    default:
        return -EINVAL;
    }
    return 0;
}

static const struct {
    enum op_id op;
    enum fold fold;
    bool mean, root;
} folds[] = {
    {OP_ReduceSum, FOLD_SUM, false, false},    {OP_ReduceMean, FOLD_SUM, true, false},
    {OP_ReduceMax, FOLD_MAX, false, false},    {OP_ReduceMin, FOLD_MIN, false, false},
    {OP_ReduceProd, FOLD_PROD, false, false},  {OP_ReduceSumSquare, FOLD_SQUARE, false, false},
    {OP_ReduceL2, FOLD_SQUARE, false, true},   {OP_ReduceL1, FOLD_ABS, false, false},
    {OP_ReduceLogSum, FOLD_SUM, false, false},
};

static int reduce_axes(const struct cpu_args *a, bool *gone, struct err *err)
{
    const struct tensor *x = a->in[0];
    int64_t axes[MAX_RANK];
    uint32_t n, axis;
    int r = arg_ints(a, 1, "axes", axes, MAX_RANK, &n, err);

    if (r < 0)
        return r;
    bool all = n == 0 && !node_int(a->node, "noop_with_empty_axes", 0);
    for (uint32_t i = 0; i < x->rank; i++)
        gone[i] = all;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = arg_axis(a, axes[i], x->rank, &axis, err);
        if (r == 0)
            gone[axis] = true;
    }
    return r;
}

/* [outer, gone, inner]: at most one run of reduced axes. */
static bool one_run(const struct tensor *x, const bool *gone, struct sums *s)
{
    uint32_t from = 0, to;

    while (from < x->rank && !gone[from])
        from++;
    for (to = from; to < x->rank && gone[to];)
        to++;
    for (uint32_t i = to; i < x->rank; i++)
        if (gone[i])
            return false;
    s->outer = span(x, 0, from);
    s->gone = span(x, from, to);
    s->inner = span(x, to, x->rank);
    return from < to;
}

static void reduce_walks(const struct tensor *x, const bool *gone, struct reduce *p)
{
    int64_t own[MAX_RANK], kept[MAX_RANK], lost[MAX_RANK], to[MAX_RANK];
    int64_t strides[2][OPERANDS_MAX][MAX_RANK];
    uint32_t n_kept = 0, n_lost = 0;

    strides_rows(x->rank, x->dims, own);
    for (uint32_t i = 0; i < x->rank; i++)
        if (gone[i]) {
            strides[1][0][n_lost] = own[i];
            lost[n_lost++] = x->dims[i];
        } else {
            strides[0][0][n_kept] = own[i];
            kept[n_kept++] = x->dims[i];
        }
    strides_rows(n_kept, kept, to);
    memcpy(strides[0][1], to, n_kept * sizeof(to[0]));
    walk_make(&p->kept, n_kept, kept, 2, (const int64_t(*)[MAX_RANK])strides[0]);
    walk_make(&p->gone, n_lost, lost, 1, (const int64_t(*)[MAX_RANK])strides[1]);
    p->n_gone = 1;
    for (uint32_t i = 0; i < n_lost; i++)
        p->n_gone *= lost[i];
}

/* ---- log(sum(exp(x))), the largest x taken out first */

VECTOR(log_sum_exp, (int64_t n, int64_t s, const float *x, float *y), (n, s, x, y))
{
    float top = -INFINITY, sum = 0;

    for (int64_t i = 0; i < n; i++)
        top = x[i * s] > top || x[i * s] != x[i * s] ? x[i * s] : top;
    float less = top - top == 0 ? top : 0; /* infinite: its power says it all */
    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++)
        sum += fast_exp(x[i * s] - less);
    *y = logf(sum) + less;
}

static int run_log_sum_exp(const void *params, void *const *ptr)
{
    const struct sums *p = params;
    const float *x = ptr[0];
    float *y = ptr[p->out];

    for (int64_t o = 0; o < p->outer; o++, x += p->gone * p->inner, y += p->inner)
        for (int64_t i = 0; i < p->inner; i++)
            PICK(log_sum_exp)(p->gone, p->inner, x + i, y + i);
    return 0;
}

static int plan_log_sum_exp(const struct cpu_args *a, const bool *gone, struct cpu_call *ret,
                            struct err *err)
{
    struct sums s = {.out = a->node->n_in};

    if (a->in[0]->dtype != DT_FP32 || !one_run(a->in[0], gone, &s))
        return plan_type(a, a->in[0]->dtype, err);
    return plan_done(a, run_log_sum_exp, &s, sizeof(s), ret, err);
}

int plan_reduce(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    struct reduce p = {.type = x->dtype, .scale = 1, .out = a->node->n_in};
    struct sums s = {.out = a->node->n_in, .rows = PICK(sum_rows), .row = PICK(sum_row)};
    bool gone[MAX_RANK] = {false}, mean = false;
    int r = reduce_axes(a, gone, err);

    if (r < 0)
        return r;
    if (p.type == DT_INT16 || p.type == DT_UINT16 || p.type == DT_FP16 || p.type == DT_BF16 ||
        p.type == DT_BOOL || p.type == DT_STRING)
        return plan_type(a, p.type, err);
    for (size_t i = 0; i < ARRAY_SIZE(folds); i++)
        if (folds[i].op == a->node->op) {
            p.fold = folds[i].fold;
            p.root = folds[i].root;
            mean = folds[i].mean;
        }
    if (a->node->op == OP_ReduceLogSumExp)
        return plan_log_sum_exp(a, gone, ret, err);
    p.log = a->node->op == OP_ReduceLogSum;
    reduce_walks(x, gone, &p);
    if (p.n_gone == 0 && (p.fold == FOLD_MAX || p.fold == FOLD_MIN))
        return plan_fail(a, -ENOTSUP, "an extreme of nothing", err); /* plain loops know it */
    if (mean)
        p.scale = 1 / (double)p.n_gone;
    if (p.fold == FOLD_SUM && !p.log && p.type == DT_FP32 && x->bytes && one_run(x, gone, &s)) {
        s.scale = (float)p.scale;
        return plan_done(a, run_sums, &s, sizeof(s), ret, err);
    }
    return plan_done(a, run_reduce, &p, sizeof(p), ret, err);
}

/* ---- ArgMax, ArgMin */

struct arg {
    int64_t outer, n, inner;
    enum dtype type;
    bool max, last; /* of equals, the last */
};

#define ARG_CASE(D, T, U)                                                                          \
    case D: {                                                                                      \
        const T *x = (const T *)ptr[0] + o * p->n * p->inner + i;                                  \
        T best = x[0];                                                                             \
        for (int64_t k = 1; k < p->n; k++) {                                                       \
            T v = x[k * p->inner];                                                                 \
            if ((p->max ? v > best : v < best) || (p->last && v == best)) {                        \
                best = v;                                                                          \
                at = k;                                                                            \
            }                                                                                      \
        }                                                                                          \
        break;                                                                                     \
    }

static int run_arg(const void *params, void *const *ptr)
{
    const struct arg *p = params;
    int64_t *y = ptr[1];

    for (int64_t o = 0; o < p->outer; o++)
        for (int64_t i = 0; i < p->inner; i++) {
            int64_t at = 0;
            switch (p->type) {
                CPU_NUMBERS(ARG_CASE)
            default:
                return -EINVAL;
            }
            *y++ = at;
        }
    return 0;
}

int plan_arg(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", 0), x->rank, &axis, err);

    if (r < 0)
        return r;
    struct arg p = {.outer = span(x, 0, axis),
                    .n = x->dims[axis],
                    .inner = span(x, axis + 1, x->rank),
                    .type = x->dtype,
                    .max = a->node->op == OP_ArgMax,
                    .last = node_int(a->node, "select_last_index", 0) != 0};
#define ARG_TYPE(D, T, U) || p.type == D
    if (!(false CPU_NUMBERS(ARG_TYPE)))
        return plan_type(a, p.type, err);
    if (p.n == 0)
        return plan_fail(a, -EINVAL, "the extreme of nothing", err);
    return plan_done(a, run_arg, &p, sizeof(p), ret, err);
}
