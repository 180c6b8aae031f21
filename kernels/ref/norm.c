/* Normalisations. */
#include "kit.h"
#include <math.h>

/* One number for each channel. */
static int per_channel(const struct node *n, const struct tensor *const *in, uint32_t from,
                       uint32_t to, int64_t channels, struct err *err)
{
    int r = ref_floats(n, in, to, err);

    for (uint32_t i = from; i < to && r == 0; i++)
        if (ref_count(in[i]) != channels)
            r = ref_fail(n, err, -EINVAL, "an input is not one value for each channel");
    return r;
}

static int same_shape(const struct node *n, const struct tensor *x, const struct tensor *y,
                      struct err *err)
{
    return ref_kind(y->dtype) == KIND_FLOAT && ref_count(x) == ref_count(y)
               ? 0
               : ref_fail(n, err, -EINVAL, "input and output differ in type or size");
}

/* Before opset 7 inference had to be asked for, before 9 each element could have its own numbers.
 */
static const char *batch_norm_refusal(const struct node *n, struct tensor *const *out)
{
    if (node_int(n, "training_mode", 0) || (n->opset < 7 && !node_int(n, "is_test", 0)))
        return "training is not supported";
    for (uint32_t i = 1; i < n->n_out; i++)
        if (out[i])
            return "outputs of training are not supported";
    return NULL;
}

REF_FN(ref_batch_norm)
{
    const struct tensor *x = in[0], *y = out[0];
    double eps = (double)node_float(n, "epsilon", 1e-5f);
    int64_t each = ref_span(x, 2, x->rank), channels = x->rank > 1 ? x->dims[1] : 1;
    const char *why = batch_norm_refusal(n, out);
    int r = same_shape(n, x, y, err);

    if (n->opset < 9 && !node_int(n, "spatial", 1)) {
        channels = ref_span(x, MIN(1, x->rank), x->rank);
        each = 1;
    }
    if (r < 0 || (r = per_channel(n, in, 1, 5, channels, err)) < 0)
        return r;
    if (why)
        return ref_fail(n, err, -ENOTSUP, why);
    for (int64_t i = 0; i < ref_count(x); i++) {
        int64_t c = i / each % channels;
        double scale = num_get(in[1], c).f / sqrt(num_get(in[4], c).f + eps);
        double v = (num_get(x, i).f - num_get(in[3], c).f) * scale + num_get(in[2], c).f;
        num_put(y, i, (union num){.f = v});
    }
    return 0;
}

/* Mean and 1 / standard deviation of n elements from `from`. */
static void moments(const struct tensor *x, int64_t from, int64_t n, double eps, double *ret_mean,
                    double *ret_inv)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++)
        sum += num_get(x, from + i).f;
    *ret_mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = num_get(x, from + i).f - *ret_mean;
        squares += d * d;
    }
    *ret_inv = 1 / sqrt(squares / (double)n + eps);
}

REF_FN(ref_layer_norm)
{
    const struct tensor *x = in[0], *scale = in[1], *bias = ref_in(n, in, 2);
    const struct tensor *const all[] = {
        x, scale, bias, out[0], ref_out(n, out, 1), ref_out(n, out, 2)};
    double eps = (double)node_float(n, "epsilon", 1e-5f), mean, inv;
    uint32_t axis;
    struct walk w;
    int r = ref_axis(n, node_int(n, "axis", -1), x->rank, &axis, err);

    if (r < 0 || (r = ref_floats(n, all, ARRAY_SIZE(all), err)) < 0 ||
        (r = same_shape(n, x, out[0], err)) < 0)
        return r;
    walk_init(&w, x);
    if (walk_broadcast(&w, 0, scale) < 0 || (bias && walk_broadcast(&w, 1, bias) < 0))
        return ref_fail(n, err, -EINVAL, "scale or bias do not broadcast to the input");
    int64_t rows = ref_span(x, 0, axis), each = ref_span(x, axis, x->rank);
    for (unsigned k = 4; k < ARRAY_SIZE(all); k++)
        if (all[k] && ref_count(all[k]) != rows)
            return ref_fail(n, err, -EINVAL, "Mean or InvStdDev is not one value for each row");
    for (int64_t row = 0; row < rows && each > 0; row++) {
        moments(x, row * each, each, eps, &mean, &inv);
        if (all[4])
            num_put(all[4], row, (union num){.f = mean});
        if (all[5])
            num_put(all[5], row, (union num){.f = inv});
        for (int64_t i = row * each; i < (row + 1) * each; i++, walk_next(&w)) {
            double v = (num_get(x, i).f - mean) * inv * num_get(scale, w.off[0]).f;
            num_put(out[0], i, (union num){.f = v + (bias ? num_get(bias, w.off[1]).f : 0)});
        }
    }
    return 0;
}

REF_FN(ref_instance_norm)
{
    const struct tensor *x = in[0], *y = out[0];
    double eps = (double)node_float(n, "epsilon", 1e-5f), mean, inv;
    int r = same_shape(n, x, y, err);

    if (r == 0 && x->rank < 3)
        r = ref_fail(n, err, -EINVAL, "the input has fewer than three dimensions");
    if (r < 0 || (r = per_channel(n, in, 1, 3, x->dims[1], err)) < 0)
        return r;
    int64_t planes = x->dims[0] * x->dims[1], each = ref_span(x, 2, x->rank);
    for (int64_t p = 0; p < planes && each > 0; p++) {
        int64_t c = p % x->dims[1];
        moments(x, p * each, each, eps, &mean, &inv);
        for (int64_t i = p * each; i < (p + 1) * each; i++) {
            double v = (num_get(x, i).f - mean) * inv * num_get(in[1], c).f;
            num_put(y, i, (union num){.f = v + num_get(in[2], c).f});
        }
    }
    return 0;
}

REF_FN(ref_lrn)
{
    const struct tensor *x = in[0], *y = out[0];
    double alpha = (double)node_float(n, "alpha", 1e-4f),
           beta = (double)node_float(n, "beta", 0.75f);
    double bias = (double)node_float(n, "bias", 1);
    int64_t size = node_int(n, "size", 0);
    int r = ref_floats(n, in, 1, err);

    if (r < 0 || (r = same_shape(n, x, y, err)) < 0)
        return r;
    if (size < 1 || size > INT32_MAX || x->rank < 2)
        return ref_fail(n, err, -EINVAL, "size is out of range, or there are no channels");
    int64_t channels = x->dims[1], each = ref_span(x, 2, x->rank);
    for (int64_t i = 0; i < ref_count(x); i++) {
        int64_t c = i / each % channels, lo = c - (size - 1) / 2, hi = c + size / 2;
        double sum = 0;
        for (int64_t k = MAX(lo, 0); k <= MIN(hi, channels - 1); k++) {
            double v = num_get(x, i + (k - c) * each).f;
            sum += v * v;
        }
        double v = num_get(x, i).f / pow(bias + alpha / (double)size * sum, beta);
        num_put(y, i, (union num){.f = v});
    }
    return 0;
}
