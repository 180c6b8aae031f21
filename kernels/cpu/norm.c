/* Normalisations and softmax, FP32. */
#include "kit.h"

/* Floats that a node reads and writes; anything else is refused. */
static int floats_only(const struct cpu_args *a, struct err *err)
{
    for (uint32_t i = 0; i < a->node->n_in; i++)
        if (a->in[i] && a->in[i]->dtype != DT_FP32)
            return plan_type(a, a->in[i]->dtype, err);
    return 0;
}

/* ---- layer normalisation: rows of n, whose scale and bias are walked alike */

struct layer_norm {
    int64_t rows, n;
    float epsilon;
    uint32_t n_in;
    bool bias;
    void (*row)(int64_t n, float epsilon, const float *x, const float *scale, const float *bias,
                float *y, float *moments);
};

/* Variance around the mean in a second pass: the one-pass form loses what matters. */
VECTOR_WIDEST(norm_row,
              (int64_t n, float epsilon, const float *x, const float *scale, const float *bias,
               float *y, float *moments),
              (n, epsilon, x, scale, bias, y, moments))
{
    float sum = 0, squares = 0;

    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    float mean = sum / (float)n;
    SIMD_SUM(squares)
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    float inv = 1 / sqrtf(squares / (float)n + epsilon);
    if (bias) {
        SIMD for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inv * scale[i] + bias[i];
    } else {
        SIMD for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inv * scale[i];
    }
    moments[0] = mean;
    moments[1] = inv;
}

static int layer_norm_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct layer_norm *p = params;
    const float *x = ptr[0], *bias = p->bias ? ptr[2] : NULL;
    float *y = ptr[p->n_in], *mean = ptr[p->n_in + 1], *inv = ptr[p->n_in + 2];

    for (int64_t i = piece_from(p->rows, part, n_parts); i < piece_from(p->rows, part + 1, n_parts);
         i++) {
        float moments[2];
        p->row(p->n, p->epsilon, x + i * p->n, ptr[1], bias, y + i * p->n, moments);
        if (mean)
            mean[i] = moments[0];
        if (inv)
            inv[i] = moments[1];
    }
    return 0;
}

PIECES(layer_norm)

/* ptr has as many entries as the node has inputs and outputs: the optional ones may be missing. */
static int one_norm_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct layer_norm *p = params;
    void *all[6] = {ptr[0], ptr[1], p->bias ? ptr[2] : NULL};

    all[p->n_in] = ptr[p->n_in];
    return layer_norm_piece(params, all, part, n_parts);
}
PIECES(one_norm)

int plan_layer_norm(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *bias = arg_in(a, 2);
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", -1), x->rank, &axis, err);

    if (r == 0)
        r = floats_only(a, err);
    if (r < 0)
        return r;
    struct layer_norm p = {.rows = span(x, 0, axis),
                           .n = span(x, axis, x->rank),
                           .epsilon = node_float(a->node, "epsilon", 1e-5f),
                           .n_in = a->node->n_in,
                           .bias = bias != NULL,
                           .row = PICK_WIDEST(norm_row)};
    if (count_of(a->in[1]) != p.n || (bias && count_of(bias) != p.n))
        return plan_fail(a, -ENOTSUP, "scale and bias of another shape than the rows", err);
    return a->node->n_out == 3 ? PLAN_PIECES(a, layer_norm, &p, ret, err)
                               : PLAN_PIECES(a, one_norm, &p, ret, err);
}

/* ---- batch and instance normalisation: a factor and a term for each channel */

struct channel_norm {
    int64_t n, channels, each;
    float epsilon;
    bool own_moments; /* of each plane, instead of the inputs' */
};

static void plane_moments(int64_t n, const float *x, float *mean, float *var)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    *mean = (float)(sum / (double)n);
    for (int64_t i = 0; i < n; i++)
        squares += ((double)x[i] - sum / (double)n) * ((double)x[i] - sum / (double)n);
    *var = (float)(squares / (double)n);
}

static int run_channel_norm(const void *params, void *const *ptr)
{
    const struct channel_norm *p = params;
    const float *x = ptr[0], *scale = ptr[1], *bias = ptr[2];
    float *y = ptr[p->own_moments ? 3 : 5];

    for (int64_t i = 0; i < p->n * p->channels; i++, x += p->each, y += p->each) {
        int64_t c = i % p->channels;
        float mean, var;
        if (p->own_moments) {
            plane_moments(p->each, x, &mean, &var);
        } else {
            mean = ((const float *)ptr[3])[c];
            var = ((const float *)ptr[4])[c];
        }
        float k = scale[c] / sqrtf(var + p->epsilon);
        for (int64_t e = 0; e < p->each; e++)
            y[e] = (x[e] - mean) * k + bias[c];
    }
    return 0;
}

static int plan_channel_norm(const struct cpu_args *a, bool own, struct cpu_call *ret,
                             struct err *err)
{
    const struct tensor *x = a->in[0];
    int r = floats_only(a, err);

    if (r < 0)
        return r;
    struct channel_norm p = {.n = x->rank ? x->dims[0] : 1,
                             .channels = x->rank > 1 ? x->dims[1] : 1,
                             .each = x->rank > 2 ? span(x, 2, x->rank) : 1,
                             .epsilon = node_float(a->node, "epsilon", 1e-5f),
                             .own_moments = own};
    if (!own && a->node->opset < 9 && !node_int(a->node, "spatial", 1)) {
        p.channels *= p.each; /* each element has numbers of its own */
        p.each = 1;
    }
    return plan_done(a, run_channel_norm, &p, sizeof(p), ret, err);
}

int plan_batch_norm(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;

    for (uint32_t i = 1; i < n->n_out; i++)
        if (a->out[i])
            return plan_fail(a, -ENOTSUP, "the outputs of training are not supported", err);
    if (node_int(n, "training_mode", 0) || (n->opset < 7 && !node_int(n, "is_test", 0)))
        return plan_fail(a, -ENOTSUP, "training is not supported", err);
    return plan_channel_norm(a, false, ret, err);
}

int plan_instance_norm(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    return plan_channel_norm(a, true, ret, err);
}

/* ---- local response normalisation */

struct lrn {
    int64_t n, channels, each, before, after;
    float alpha, beta, bias;
};

static int run_lrn(const void *params, void *const *ptr)
{
    const struct lrn *p = params;
    const float *x = ptr[0];
    float *y = ptr[1];

    for (int64_t i = 0; i < p->n * p->channels; i++) {
        int64_t c = i % p->channels;
        int64_t from = MAX(c - p->before, 0), to = MIN(c + p->after, p->channels - 1);
        for (int64_t e = 0; e < p->each; e++) {
            const float *at = x + i * p->each + e;
            float sum = 0;
            for (int64_t k = from - c; k <= to - c; k++)
                sum += at[k * p->each] * at[k * p->each];
            y[i * p->each + e] = *at / powf(p->bias + p->alpha * sum, p->beta);
        }
    }
    return 0;
}

int plan_lrn(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    int64_t size = node_int(a->node, "size", 0);
    int r = floats_only(a, err);

    if (r < 0)
        return r;
    if (size < 1 || x->rank < 2)
        return plan_fail(a, -EINVAL, "size is below 1, or there are no channels", err);
    struct lrn p = {.n = x->dims[0],
                    .channels = x->dims[1],
                    .each = span(x, 2, x->rank),
                    .before = (size - 1) / 2,
                    .after = size / 2,
                    .alpha = node_float(a->node, "alpha", 1e-4f) / (float)size,
                    .beta = node_float(a->node, "beta", 0.75f),
                    .bias = node_float(a->node, "bias", 1)};
    return plan_done(a, run_lrn, &p, sizeof(p), ret, err);
}

/* ---- softmax over [outer, n, inner] */

struct softmax {
    int64_t outer, n, inner;
    bool log;
    void (*row)(int64_t n, const float *x, float *y, bool log);
};

VECTOR_WIDEST(softmax_row, (int64_t n, const float *x, float *y, bool log), (n, x, y, log))
{
    float top = -INFINITY, sum = 0;

    SIMD_MAX(top)
    for (int64_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    if (log) {
        SIMD_SUM(sum)
        for (int64_t i = 0; i < n; i++)
            sum += fast_exp(x[i] - top);
        float less = top + logf(sum);
        SIMD for (int64_t i = 0; i < n; i++) y[i] = x[i] - less;
        return;
    }
    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++) {
        float e = fast_exp(x[i] - top);
        y[i] = e;
        sum += e;
    }
    float k = 1 / sum;
    SIMD for (int64_t i = 0; i < n; i++) y[i] *= k;
}

static void softmax_column(const struct softmax *p, const float *x, float *y)
{
    float top = -INFINITY, sum = 0;

    for (int64_t i = 0; i < p->n; i++)
        top = x[i * p->inner] > top ? x[i * p->inner] : top;
    for (int64_t i = 0; i < p->n; i++)
        sum += expf(x[i * p->inner] - top);
    float less = logf(sum) + top;
    for (int64_t i = 0; i < p->n; i++)
        y[i * p->inner] = p->log ? x[i * p->inner] - less : expf(x[i * p->inner] - top) / sum;
}

static int softmax_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct softmax *p = params;
    int64_t o = piece_from(p->outer, part, n_parts), each = p->n * p->inner;
    const float *x = (const float *)ptr[0] + o * each;
    float *y = (float *)ptr[1] + o * each;

    for (; o < piece_from(p->outer, part + 1, n_parts); o++, x += each, y += each) {
        if (p->inner == 1)
            p->row(p->n, x, y, p->log);
        else
            for (int64_t i = 0; i < p->inner; i++)
                softmax_column(p, x + i, y + i);
    }
    return 0;
}
PIECES(softmax)

/* Before opset 13 everything from the axis on is one row. */
int plan_softmax(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    bool old = a->node->opset < 13;
    int64_t given = node_int(a->node, "axis", old ? 1 : -1);
    uint32_t axis = 0;
    int r = floats_only(a, err);

    /* Such an axis may lie at the end of the shape, but -1 is the last one. */
    if (r == 0 && x->rank)
        r = arg_axis(a, given, x->rank + (old && given >= 0), &axis, err);
    if (r < 0)
        return r;
    struct softmax p = {.outer = span(x, 0, axis),
                        .n = old       ? span(x, axis, x->rank)
                             : x->rank ? x->dims[axis]
                                       : 1,
                        .inner = old || !x->rank ? 1 : span(x, axis + 1, x->rank),
                        .log = a->node->op == OP_LogSoftmax,
                        .row = PICK_WIDEST(softmax_row)};
    return PLAN_PIECES(a, softmax, &p, ret, err);
}
