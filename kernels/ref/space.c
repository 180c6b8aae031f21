/* Operators that rearrange along space or time, or go along an axis: DepthToSpace, SpaceToDepth,
 * ReverseSequence, CumSum, CumProd, Hardmax. */
#include "kit.h"
#include <math.h>

static int check_blocks(const struct node *n, const struct tensor *deep, const struct tensor *wide,
                        int64_t *ret, struct err *err)
{
    int64_t b = node_int(n, "blocksize", 0);

    if (b < 1 || b > INT32_MAX || deep->rank != 4 || wide->rank != 4 ||
        deep->dtype != wide->dtype || deep->dims[0] != wide->dims[0] ||
        deep->dims[1] != wide->dims[1] * b * b || deep->dims[2] * b != wide->dims[2] ||
        deep->dims[3] * b != wide->dims[3])
        return ref_fail(n, err, -EINVAL, "input, output and blocksize do not go together");
    *ret = b;
    return 0;
}

/* Element [i, c, y, x] of the wide tensor [N, C, H*b, W*b] in the deep one [N, C*b*b, H, W]:
 * its channel is [b, b, C] as a rule, [C, b, b] in mode CRD. */
static int64_t deep_at(const struct tensor *wide, const int64_t at[4], int64_t b, bool crd)
{
    int64_t channels = wide->dims[1], h = wide->dims[2] / b, w = wide->dims[3] / b;
    int64_t in_block = at[2] % b * b + at[3] % b;
    int64_t c = crd ? at[1] * b * b + in_block : in_block * channels + at[1];

    return ((at[0] * channels * b * b + c) * h + at[2] / b) * w + at[3] / b;
}

REF_FN(ref_depth_to_space)
{
    bool crd = n->opset >= 11 && STREQ(node_str(n, "mode", "DCR"), "CRD");
    struct walk w;
    int64_t b;
    int r = check_blocks(n, in[0], out[0], &b, err);

    if (r < 0)
        return r;
    walk_init(&w, out[0]);
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        ref_put(out[0], i, in[0], deep_at(out[0], w.at, b, crd), 1);
    return 0;
}

REF_FN(ref_space_to_depth)
{
    struct walk w;
    int64_t b;
    int r = check_blocks(n, out[0], in[0], &b, err);

    if (r < 0)
        return r;
    walk_init(&w, in[0]);
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        ref_put(out[0], deep_at(in[0], w.at, b, false), in[0], i, 1);
    return 0;
}

REF_FN(ref_reverse_sequence)
{
    const struct tensor *x = in[0], *len = in[1];
    int64_t batch = node_int(n, "batch_axis", 1), time = node_int(n, "time_axis", 0);
    int r = ref_same_bytes(n, in, out, err);
    struct walk w;

    if (r < 0)
        return r;
    if (x->rank < 2 || (batch != 0 && batch != 1) || time != 1 - batch || len->dtype != DT_INT64 ||
        ref_count(len) != x->dims[batch])
        return ref_fail(n, err, -EINVAL, "axes and sequence_lens do not fit the input");
    for (int64_t i = 0; i < ref_count(len); i++)
        if (num_get(len, i).i < 0 || num_get(len, i).i > x->dims[time])
            return err_set(err, -EINVAL, "node '%s' (%s): sequence_lens has %lld (0 to %lld)",
                           n->name, op_name(n->op), (long long)num_get(len, i).i,
                           (long long)x->dims[time]);
    int64_t stride = ref_span(x, (uint32_t)time + 1, x->rank);
    walk_init(&w, x);
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        int64_t t = w.at[time], l = num_get(len, w.at[batch]).i;
        if (t < l)
            ref_put(out[0], i, x, i + (l - 1 - t - t) * stride, 1);
    }
    return 0;
}

static union num joined(bool product, enum kind k, union num a, union num b)
{
    if (k == KIND_FLOAT)
        return (union num){.f = product ? a.f * b.f : a.f + b.f};
    return (union num){.u = product ? a.u * b.u : a.u + b.u};
}

/* CumSum and CumProd. */
REF_FN(ref_cumulate)
{
    bool product = n->op == OP_CumProd;
    const struct tensor *x = in[0], *y = out[0];
    bool exclusive = node_int(n, "exclusive", 0), reverse = node_int(n, "reverse", 0);
    enum kind k = ref_kind(x->dtype);
    uint32_t axis;

    if (ref_count(in[1]) != 1 || (in[1]->dtype != DT_INT64 && in[1]->dtype != DT_INT32))
        return ref_fail(n, err, -EINVAL, "its axis is not one integer");
    if (k == KIND_BOOL)
        return ref_no_type(n, x->dtype, err);
    int r = ref_axis(n, num_get(in[1], 0).i, x->rank, &axis, err);
    if (r < 0)
        return r;
    if (x->dtype != y->dtype || ref_count(x) != ref_count(y))
        return ref_fail(n, err, -EINVAL, "input and output differ in type or size");
    int64_t size = x->dims[axis], inner = ref_span(x, axis + 1, x->rank);
    for (int64_t row = 0; row < ref_span(x, 0, axis) * inner; row++) {
        union num all = k == KIND_FLOAT ? (union num){.f = product} : (union num){.u = product};
        for (int64_t s = 0; s < size; s++) {
            int64_t i =
                row / inner * size * inner + row % inner + (reverse ? size - 1 - s : s) * inner;
            union num before = all;
            all = joined(product, k, all, num_get(x, i));
            num_put(y, i, exclusive ? before : all);
        }
    }
    return 0;
}

/* 1 for the first of the largest elements, 0 for all others: along one axis since opset 13, over
 * all from `axis` on before. */
REF_FN(ref_hardmax)
{
    const struct tensor *x = in[0], *y = out[0];
    bool one_axis = n->opset >= 13;
    uint32_t axis, rank = x->rank;
    int64_t given = node_int(n, "axis", one_axis ? -1 : 1);
    int r = ref_axis(n, given, rank + (!one_axis && given >= 0), &axis, err);

    if (r < 0 || (r = ref_floats(n, in, 1, err)) < 0)
        return r;
    if (y->dtype != x->dtype || ref_count(y) != ref_count(x))
        return ref_fail(n, err, -EINVAL, "input and output differ in type or size");
    int64_t size = one_axis ? x->dims[axis] : ref_span(x, axis, rank);
    int64_t inner = one_axis ? ref_span(x, axis + 1, rank) : 1;
    for (int64_t row = 0; row < ref_span(x, 0, axis) * inner; row++) {
        int64_t from = row / inner * size * inner + row % inner, best = 0;
        for (int64_t i = 1; i < size; i++)
            if (num_get(x, from + i * inner).f > num_get(x, from + best * inner).f)
                best = i;
        for (int64_t i = 0; i < size; i++)
            num_put(y, from + i * inner, (union num){.f = i == best});
    }
    return 0;
}
