/* GroupNormalization, RMSNormalization, MeanVarianceNormalization and LpNormalization, FP32. */
#include "kit.h"

#define MVN_EPSILON 1e-9f

static int fp32_only(const struct cpu_args *a, struct err *err)
{
    for (uint32_t i = 0; i < a->node->n_in; i++)
        if (a->in[i] && a->in[i]->dtype != DT_FP32)
            return plan_type(a, a->in[i]->dtype, err);
    return 0;
}

/* Sums over n elements: of x, and of the squares around `mean`. */
struct sums {
    float x, squares;
};
VECTOR(row_sum, (int64_t n, const float *x, float mean, struct sums *ret), (n, x, mean, ret))
{
    float sum = 0, squares = 0;

    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    SIMD_SUM(squares)
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    *ret = (struct sums){sum, squares};
}

/* y = (x - mean) k + term */
VECTOR(row_scale, (int64_t n, const float *x, float mean, float k, float term, float *y),
       (n, x, mean, k, term, y))
{
    SIMD for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * k + term;
}

/* ---- planes of channels: (N, C, plane) */
struct planes {
    int64_t n, channels, groups, plane;
    float epsilon;
    bool by_group;     /* scale and bias */
    bool across_batch; /* MeanVarianceNormalization over N, too */
    void (*sum)(int64_t n, const float *x, float mean, struct sums *ret);
    void (*scale)(int64_t n, const float *x, float mean, float k, float term, float *y);
};

static int run_group_norm(const void *params, void *const *ptr)
{
    const struct planes *p = params;
    const float *x = ptr[0], *scale = ptr[1], *bias = ptr[2];
    float *y = ptr[3];
    int64_t each = p->channels / p->groups, n = each * p->plane;
    struct sums s;

    for (int64_t g = 0; g < p->n * p->groups; g++) {
        p->sum(n, x, 0, &s);
        float mean = s.x / (float)n;
        p->sum(n, x, mean, &s);
        float inv = 1 / sqrtf(s.squares / (float)n + p->epsilon);
        for (int64_t c = 0; c < each; c++, x += p->plane, y += p->plane) {
            int64_t at = p->by_group ? g % p->groups : g % p->groups * each + c;
            p->scale(p->plane, x, mean, inv * scale[at], bias[at], y);
        }
    }
    return 0;
}

int plan_group_norm(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    int r = fp32_only(a, err);

    if (r < 0)
        return r;
    struct planes p = {.n = x->dims[0],
                       .channels = x->dims[1],
                       .groups = node_int(a->node, "num_groups", 1),
                       .plane = span(x, 2, x->rank),
                       .epsilon = node_float(a->node, "epsilon", 1e-5f),
                       .by_group = a->node->opset < 21,
                       .sum = PICK(row_sum),
                       .scale = PICK(row_scale)};
    return plan_done(a, run_group_norm, &p, sizeof(p), ret, err);
}

/* Planes of one channel lie apart when they are of all rows of the batch. */
static int run_mvn(const void *params, void *const *ptr)
{
    const struct planes *p = params;
    int64_t rows = p->across_batch ? p->n : 1, step = p->channels * p->plane;
    int64_t starts = p->across_batch ? p->channels : p->n * p->channels;
    float count = (float)(rows * p->plane);
    struct sums s;

    for (int64_t c = 0; c < starts; c++) {
        const float *x = (const float *)ptr[0] + c * p->plane;
        float *y = (float *)ptr[1] + c * p->plane, sum = 0, squares = 0;
        for (int64_t i = 0; i < rows; i++) {
            p->sum(p->plane, x + i * step, 0, &s);
            sum += s.x;
        }
        float mean = sum / count;
        for (int64_t i = 0; i < rows; i++) {
            p->sum(p->plane, x + i * step, mean, &s);
            squares += s.squares;
        }
        float k = 1 / (sqrtf(squares / count) + MVN_EPSILON);
        for (int64_t i = 0; i < rows; i++)
            p->scale(p->plane, x + i * step, mean, k, 0, y + i * step);
    }
    return 0;
}

/* Over all axes but the channels, or all behind them. */
int plan_mvn(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    static const int64_t usual[] = {0, 2, 3};
    const struct tensor *x = a->in[0];
    bool gone[MAX_RANK] = {0};
    uint32_t n, axis;
    const int64_t *axes = node_ints(a->node, "axes", &n);
    int r = fp32_only(a, err);

    if (!axes) {
        axes = usual;
        n = ARRAY_SIZE(usual);
    }
    for (uint32_t i = 0; r == 0 && i < n; i++)
        if ((r = arg_axis(a, axes[i], x->rank, &axis, err)) == 0)
            gone[axis] = true;
    if (r < 0)
        return r;
    bool fits = x->rank > 2 && !gone[1];
    for (uint32_t d = 2; d < x->rank; d++)
        fits &= gone[d];
    if (!fits)
        return plan_fail(a, -ENOTSUP, "these axes have no fast kernel", err);
    struct planes p = {.n = x->dims[0],
                       .channels = x->dims[1],
                       .plane = span(x, 2, x->rank),
                       .across_batch = gone[0],
                       .sum = PICK(row_sum),
                       .scale = PICK(row_scale)};
    return plan_done(a, run_mvn, &p, sizeof(p), ret, err);
}

/* ---- rows of n */
struct rms {
    int64_t rows, n;
    float epsilon;
    void (*row)(int64_t n, float epsilon, const float *x, const float *scale, float *y);
};

VECTOR(rms_row, (int64_t n, float epsilon, const float *x, const float *scale, float *y),
       (n, epsilon, x, scale, y))
{
    float squares = 0;

    SIMD_SUM(squares)
    for (int64_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    float inv = 1 / sqrtf(squares / (float)n + epsilon);
    SIMD for (int64_t i = 0; i < n; i++) y[i] = x[i] * inv * scale[i];
}

static int run_rms(const void *params, void *const *ptr)
{
    const struct rms *p = params;

    for (int64_t i = 0; i < p->rows; i++)
        p->row(p->n, p->epsilon, (const float *)ptr[0] + i * p->n, ptr[1],
               (float *)ptr[2] + i * p->n);
    return 0;
}

int plan_rms_norm(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", -1), x->rank, &axis, err);

    if (r < 0 || (r = fp32_only(a, err)) < 0)
        return r;
    struct rms p = {.rows = span(x, 0, axis),
                    .n = span(x, axis, x->rank),
                    .epsilon = node_float(a->node, "epsilon", 1e-5f),
                    .row = PICK(rms_row)};
    if (count_of(a->in[1]) != p.n)
        return plan_fail(a, -ENOTSUP, "a scale of another shape than the rows", err);
    return plan_done(a, run_rms, &p, sizeof(p), ret, err);
}

/* ---- vectors of n elements, `inner` apart */
struct lp {
    int64_t outer, n, inner;
    bool absolute; /* p = 1 */
};

static int run_lp(const void *params, void *const *ptr)
{
    const struct lp *p = params;
    const float *x = ptr[0];
    float *y = ptr[1];

    for (int64_t o = 0; o < p->outer; o++, x += p->n * p->inner, y += p->n * p->inner)
        for (int64_t i = 0; i < p->inner; i++) {
            double sum = 0;
            for (int64_t k = i; k < p->n * p->inner; k += p->inner)
                sum += p->absolute ? fabs((double)x[k]) : (double)x[k] * (double)x[k];
            float norm = (float)(p->absolute ? sum : sqrt(sum)), inv = norm == 0 ? 0 : 1 / norm;
            for (int64_t k = i; k < p->n * p->inner; k += p->inner)
                y[k] = x[k] * inv;
        }
    return 0;
}

int plan_lp_norm(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", -1), x->rank, &axis, err);

    if (r < 0 || (r = fp32_only(a, err)) < 0)
        return r;
    struct lp p = {.outer = span(x, 0, axis),
                   .n = x->dims[axis],
                   .inner = span(x, axis + 1, x->rank),
                   .absolute = node_int(a->node, "p", 2) == 1};
    return plan_done(a, run_lp, &p, sizeof(p), ret, err);
}
