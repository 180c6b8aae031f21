/* Lines of elements: CumSum, CumProd, Hardmax, LpNormalization, LRN, MeanVarianceNormalization; and
 * the operators on bits. */
#include "exe.h"

static int one_to_one(struct build *b, const struct node *n, struct ref *rx, struct ref *ry)
{
    int r = build_in(b, n->in[0], rx);

    return r < 0 ? r : build_out(b, n->out[0], ry);
}

int lower_cumulate(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    int64_t given[MAX_RANK * 2];
    struct ref rx, ry;
    uint32_t have, axis;
    int r = build_ints(b, n, 1, "", given, &have);

    if (r == 0 && have != 1)
        r = build_fail(b, -EINVAL, "its axis is not one integer");
    if (r == 0)
        r = build_axis(b, given[0], x->rank, &axis);
    if (r < 0)
        return r;
    if (x->dtype != DT_FP32 && x->dtype != DT_INT32 && x->dtype != DT_INT64)
        return build_no_type(b, x->dtype);
    struct cumulate_args a = {.count = x->dims[axis],
                              .step = span(x, axis + 1, x->rank),
                              .exclusive = node_int(n, "exclusive", 0) != 0,
                              .reverse = node_int(n, "reverse", 0) != 0,
                              .product = n->op == OP_CumProd,
                              .type = (int32_t)x->dtype};
    a.n = a.count ? span(x, 0, axis) * a.step : 0;
    r = one_to_one(b, n, &rx, &ry);
    return r < 0 ? r : STEP(b, cumulate, a, HOLE(cumulate, x, rx), HOLE(cumulate, y, ry));
}

int lower_hardmax(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    bool one = n->opset >= 13; /* over one axis; before: over all from `axis` on */
    int64_t given = node_int(n, "axis", one ? -1 : 1), at = given < 0 ? given + x->rank : given;
    struct hardmax_args a = {0};
    struct ref rx, ry;

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    if (at < 0 || at > (int64_t)x->rank - (one || given < 0))
        return build_fail(b, -EINVAL, "an axis is out of range");
    uint32_t axis = (uint32_t)at;
    a.count = one ? x->dims[axis] : span(x, axis, x->rank);
    a.step = one ? span(x, axis + 1, x->rank) : 1;
    a.n = a.count ? span(x, 0, axis) * a.step : 0;
    int r = one_to_one(b, n, &rx, &ry);
    return r < 0 ? r : STEP(b, hardmax, a, HOLE(hardmax, x, rx), HOLE(hardmax, y, ry));
}

int lower_lp_norm(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct lp_norm_args a = {.p = (int32_t)node_int(n, "p", 2)};
    struct ref rx, ry;
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", -1), x->rank, &axis);

    if (r < 0)
        return r;
    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    if (a.p != 1 && a.p != 2)
        return build_fail(b, -EINVAL, "p is neither 1 nor 2");
    a.count = x->dims[axis];
    a.step = span(x, axis + 1, x->rank);
    a.n = a.count ? span(x, 0, axis) * a.step : 0;
    r = one_to_one(b, n, &rx, &ry);
    return r < 0 ? r : STEP(b, lp_norm, a, HOLE(lp_norm, x, rx), HOLE(lp_norm, y, ry));
}

int lower_lrn(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct lrn_args a = {.n = count_of(x),
                         .size = node_int(n, "size", 0),
                         .alpha = node_float(n, "alpha", 1e-4f),
                         .beta = node_float(n, "beta", 0.75f),
                         .bias = node_float(n, "bias", 1)};
    struct ref rx, ry;

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    if (a.size < 1 || a.size > INT32_MAX || x->rank < 2)
        return build_fail(b, -EINVAL, "size is out of range, or there are no channels");
    a.each = span(x, 2, x->rank);
    a.channels = x->dims[1];
    int r = one_to_one(b, n, &rx, &ry);
    return r < 0 ? r : STEP(b, lrn, a, HOLE(lrn, x, rx), HOLE(lrn, y, ry));
}

int lower_mvn(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    int64_t axes[MAX_RANK * 2], own[MAX_RANK], dims[2][MAX_RANK], stride[2][1][MAX_RANK];
    uint32_t n_axes, axis, gone = 0, rank[2] = {0, 0};
    struct mvn_args a = {.n = 1, .n_inner = 1};
    struct ref rx, ry;
    int r = build_ints(b, n, UINT32_MAX, "axes", axes, &n_axes);

    if (n_axes == 0) {
        memcpy(axes, ((const int64_t[]){0, 2, 3}), 3 * sizeof(*axes));
        n_axes = 3;
    }
    for (uint32_t i = 0; i < n_axes && r == 0; i++) {
        r = build_axis(b, axes[i], x->rank, &axis);
        gone |= r == 0 ? 1u << axis : 0;
    }
    if (r < 0)
        return r;
    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    strides_of(x, own);
    for (uint32_t d = 0; d < x->rank; d++) {
        unsigned inner = gone >> d & 1;
        dims[inner][rank[inner]] = x->dims[d];
        stride[inner][0][rank[inner]++] = own[d];
        *(inner ? &a.n_inner : &a.n) *= x->dims[d];
    }
    walk_make(&a.outer, rank[0], dims[0], 1, stride[0]);
    walk_make(&a.inner, rank[1], dims[1], 1, stride[1]);
    a.n = a.n_inner ? a.n : 0;
    r = one_to_one(b, n, &rx, &ry);
    return r < 0 ? r : STEP(b, mvn, a, HOLE(mvn, x, rx), HOLE(mvn, y, ry));
}

int lower_classify(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    bool inf = n->op == OP_IsInf;
    struct classify_args a = {.n = count_of(x),
                              .nan = !inf,
                              .above = inf && node_int(n, "detect_positive", 1) != 0,
                              .below = inf && node_int(n, "detect_negative", 1) != 0};
    struct ref rx, ry;

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    int r = one_to_one(b, n, &rx, &ry);
    return r < 0 ? r : STEP(b, classify, a, HOLE(classify, x, rx), HOLE(classify, y, ry));
}

int lower_bits(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *second = in_of(b, n, 1), *y = value_of(b, n->out[0]);
    bool right = STREQ(node_str(n, "direction", ""), "RIGHT");
    struct bits_args a = {.n = count_of(y), .size = (int32_t)dtype_size(x->dtype)};
    int64_t stride[2][MAX_RANK] = {{0}};
    struct ref in[2] = {{0}}, ry;

    switch (x->dtype) {
    case DT_INT8:
    case DT_INT16:
    case DT_INT32:
    case DT_INT64:
        if (n->op == OP_BitShift)
            return build_no_type(b, x->dtype);
        break;
    case DT_UINT8:
    case DT_UINT16:
    case DT_UINT32:
    case DT_UINT64:
        break;
    default:
        return build_no_type(b, x->dtype);
    }
    if (n->op == OP_BitShift && !right && !STREQ(node_str(n, "direction", ""), "LEFT"))
        return build_fail(b, -EINVAL, "its direction is neither LEFT nor RIGHT");
    a.op = n->op == OP_BitwiseAnd   ? GPU_BITS_and
           : n->op == OP_BitwiseOr  ? GPU_BITS_or
           : n->op == OP_BitwiseXor ? GPU_BITS_xor
           : n->op == OP_BitwiseNot ? GPU_BITS_not
           : right                  ? GPU_BITS_right
                                    : GPU_BITS_left;
    strides_broadcast(x, y, stride[0]);
    if (second)
        strides_broadcast(second, y, stride[1]);
    walk_make(&a.walk, y->rank, y->dims, 2, stride);
    int r = build_inputs(b, n, second ? 2 : 1, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, bits, a, HOLE(bits, a, in[0]), HOLE(bits, b, in[1]), HOLE(bits, y, ry));
}
