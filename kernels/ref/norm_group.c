/* Normalisations over groups of channels, trailing axes, named axes and vectors. */
#include "kit.h"
#include <math.h>

#define MVN_EPSILON 1e-9

static int same_type_and_size(const struct node *n, const struct tensor *x, const struct tensor *y,
                              struct err *err)
{
    return y->dtype == x->dtype && ref_count(x) == ref_count(y)
               ? 0
               : ref_fail(n, err, -EINVAL, "input and output differ in type or size");
}

/* Scale and bias: one for each group before opset 21, one for each channel from then on. */
REF_FN(ref_group_norm)
{
    const struct tensor *x = in[0];
    double eps = (double)node_float(n, "epsilon", 1e-5f);
    int64_t groups = node_int(n, "num_groups", 0);
    int r = ref_floats(n, in, 3, err);

    if (r < 0 || (r = same_type_and_size(n, x, out[0], err)) < 0)
        return r;
    if (x->rank < 2 || groups < 1 || groups > INT32_MAX || x->dims[1] % groups != 0)
        return ref_fail(n, err, -EINVAL, "num_groups does not divide the channels");
    int64_t channels = x->dims[1], plane = ref_span(x, 2, x->rank);
    int64_t each = channels / groups * plane, params = n->opset < 21 ? groups : channels;
    if (ref_count(in[1]) != params || ref_count(in[2]) != params)
        return ref_fail(n, err, -EINVAL, "scale or bias have a wrong number of elements");
    for (int64_t from = 0; each > 0 && from < ref_count(x); from += each) {
        double sum = 0, squares = 0;
        for (int64_t i = from; i < from + each; i++)
            sum += num_get(x, i).f;
        double mean = sum / (double)each;
        for (int64_t i = from; i < from + each; i++)
            squares += (num_get(x, i).f - mean) * (num_get(x, i).f - mean);
        double inv = 1 / sqrt(squares / (double)each + eps);
        for (int64_t i = from; i < from + each; i++) {
            int64_t c = i / plane % channels, p = n->opset < 21 ? c / (channels / groups) : c;
            double v = (num_get(x, i).f - mean) * inv * num_get(in[1], p).f;
            num_put(out[0], i, (union num){.f = v + num_get(in[2], p).f});
        }
    }
    return 0;
}

REF_FN(ref_rms_norm)
{
    const struct tensor *x = in[0], *scale = in[1];
    double eps = (double)node_float(n, "epsilon", 1e-5f);
    uint32_t axis;
    struct walk w;
    int r = ref_axis(n, node_int(n, "axis", -1), x->rank, &axis, err);

    if (r < 0 || (r = ref_floats(n, (const struct tensor *[]){x, scale, out[0]}, 3, err)) < 0)
        return r;
    walk_init(&w, x);
    if (ref_count(out[0]) != w.n || walk_broadcast(&w, 0, scale) < 0)
        return ref_fail(n, err, -EINVAL, "scale or output do not fit the input");
    int64_t each = ref_span(x, axis, x->rank);
    for (int64_t from = 0; each > 0 && from < w.n; from += each) {
        double squares = 0;
        for (int64_t i = from; i < from + each; i++)
            squares += num_get(x, i).f * num_get(x, i).f;
        double inv = 1 / sqrt(squares / (double)each + eps);
        for (int64_t i = from; i < from + each; i++, walk_next(&w))
            num_put(out[0], i,
                    (union num){.f = num_get(x, i).f * inv * num_get(scale, w.off[0]).f});
    }
    return 0;
}

/* A walk over the axes that are not `gone`, off[0] at the first element of each slice, and one
 * over those that are, off[0] relative to it. */
static void two_walks(const struct tensor *x, const bool gone[MAX_RANK], struct walk *outer,
                      struct walk *inner)
{
    int64_t stride[MAX_RANK];
    struct tensor keep = *x, over = *x;

    dense_strides(x, stride);
    for (uint32_t d = 0; d < x->rank; d++) {
        if (gone[d])
            keep.dims[d] = 1;
        else
            over.dims[d] = 1;
    }
    walk_init(outer, &keep);
    walk_init(inner, &over);
    memcpy(outer->stride[0], stride, sizeof(stride));
    memcpy(inner->stride[0], stride, sizeof(stride));
}

/* walk_next() has brought it back to its start when all elements are done. */
REF_FN(ref_mvn)
{
    const struct tensor *x = in[0];
    int64_t axes[MAX_RANK] = {0, 2, 3};
    uint32_t n_axes, d;
    bool given, gone[MAX_RANK] = {0};
    struct walk outer, inner;
    int r = ref_ints(n, in, UINT32_MAX, "axes", axes, MAX_RANK, &n_axes, &given, err);

    if (r < 0 || (r = ref_floats(n, in, 1, err)) < 0 ||
        (r = same_type_and_size(n, x, out[0], err)) < 0)
        return r;
    for (uint32_t i = 0; i < (given ? n_axes : 3); i++) {
        if ((r = ref_axis(n, axes[i], x->rank, &d, err)) < 0)
            return r;
        gone[d] = true;
    }
    two_walks(x, gone, &outer, &inner);
    for (int64_t o = 0; o < outer.n && inner.n > 0; o++, walk_next(&outer)) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < inner.n; i++, walk_next(&inner))
            sum += num_get(x, outer.off[0] + inner.off[0]).f;
        double mean = sum / (double)inner.n;
        for (int64_t i = 0; i < inner.n; i++, walk_next(&inner)) {
            double v = num_get(x, outer.off[0] + inner.off[0]).f - mean;
            squares += v * v;
        }
        double sigma = sqrt(squares / (double)inner.n) + MVN_EPSILON;
        for (int64_t i = 0; i < inner.n; i++, walk_next(&inner)) {
            int64_t at = outer.off[0] + inner.off[0];
            num_put(out[0], at, (union num){.f = (num_get(x, at).f - mean) / sigma});
        }
    }
    return 0;
}

/* A vector of zeros stays one. */
REF_FN(ref_lp_norm)
{
    const struct tensor *x = in[0];
    int64_t p = node_int(n, "p", 2);
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", -1), x->rank, &axis, err);

    if (r < 0 || (r = ref_floats(n, in, 1, err)) < 0 ||
        (r = same_type_and_size(n, x, out[0], err)) < 0)
        return r;
    if (p != 1 && p != 2)
        return ref_fail(n, err, -EINVAL, "p is neither 1 nor 2");
    int64_t each = x->dims[axis], step = ref_span(x, axis + 1, x->rank);
    for (int64_t o = 0; each > 0 && o < ref_count(x) / each; o++) {
        int64_t from = o / step * step * each + o % step;
        double sum = 0;
        for (int64_t i = 0; i < each; i++) {
            double v = num_get(x, from + i * step).f;
            sum += p == 1 ? fabs(v) : v * v;
        }
        double norm = p == 1 ? sum : sqrt(sum);
        for (int64_t i = 0; i < each; i++) {
            double v = num_get(x, from + i * step).f;
            num_put(out[0], from + i * step, (union num){.f = norm == 0 ? 0 : v / norm});
        }
    }
    return 0;
}
