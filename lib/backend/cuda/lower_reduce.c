/* Reductions, softmax and normalisations. */
#include "exe.h"

/* ---- reductions */
static const struct reduce_row {
    enum op_id op;
    enum gpu_reduce gpu;
    bool ints;
} reduces[] = {
    {OP_ReduceSum, GPU_R_sum, true},         {OP_ReduceMean, GPU_R_mean, false},
    {OP_ReduceMax, GPU_R_max, true},         {OP_ReduceMin, GPU_R_min, true},
    {OP_ReduceProd, GPU_R_prod, true},       {OP_ReduceL1, GPU_R_l1, false},
    {OP_ReduceL2, GPU_R_l2, false},          {OP_ReduceSumSquare, GPU_R_sum_square, false},
    {OP_ReduceLogSum, GPU_R_log_sum, false}, {OP_ReduceLogSumExp, GPU_R_log_sum_exp, false},
};

/* The axes as a bit mask: attribute, or input (ReduceSum since opset 13, the others since 18). */
static int reduce_axes(struct build *b, const struct node *n, uint32_t rank, uint32_t *ret)
{
    uint32_t since = n->op == OP_ReduceSum ? 13 : 18, count, axis;
    int64_t axes[MAX_RANK * 2];
    int r = build_ints(b, n, n->opset >= since ? 1 : UINT32_MAX, "axes", axes, &count);

    *ret = count == 0 && !node_int(n, "noop_with_empty_axes", 0) ? (1u << rank) - 1 : 0;
    for (uint32_t i = 0; i < count && r == 0; i++) {
        r = build_axis(b, axes[i], rank, &axis);
        if (r == 0)
            *ret |= 1u << axis;
    }
    return r;
}

/* The dimensions inside the mask, and the others, each as a walk over x. */
static void reduce_walks(const struct tensor *x, const int64_t own[MAX_RANK], uint32_t axes,
                         struct reduce_args *a)
{
    int64_t dims[2][MAX_RANK], stride[2][1][MAX_RANK];
    uint32_t rank[2] = {0, 0};

    a->n_inner = 1;
    for (uint32_t i = 0; i < x->rank; i++) {
        unsigned inner = axes >> i & 1;
        dims[inner][rank[inner]] = x->dims[i];
        stride[inner][0][rank[inner]++] = own[i];
        a->n_inner *= inner ? x->dims[i] : 1;
    }
    walk_make(&a->outer, rank[0], dims[0], 1, stride[0]);
    walk_make(&a->inner, rank[1], dims[1], 1, stride[1]);
}

int lower_reduce(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    const struct reduce_row *row = reduces;
    struct reduce_args a = {.n = count_of(value_of(b, n->out[0])),
                            .type = (int32_t)data_type(b, x)};
    int64_t own[MAX_RANK];
    struct ref rx, ry;
    uint32_t axes = 0;
    int r = reduce_axes(b, n, x->rank, &axes);

    while (row->op != n->op)
        row++;
    a.op = row->gpu;
    if (r < 0)
        return r;
    if (!is_f32(x) && !(row->ints && (x->dtype == DT_INT32 || x->dtype == DT_INT64)))
        return build_no_type(b, x->dtype);
    r = data_any(b, n->in[0], &rx, own);
    if (r < 0)
        return r;
    reduce_walks(x, own, axes, &a);
    if (a.n_inner == 0 && !is_f32(x))
        return build_fail(b, -ENOTSUP, "integers over nothing are not in the cuda backend yet");
    r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, reduce, a, HOLE(reduce, x, rx), HOLE(reduce, y, ry));
}

int lower_arg(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct arg_reduce_args a = {.n = count_of(value_of(b, n->out[0])),
                                .smallest = n->op == OP_ArgMin,
                                .last = n->opset >= 12 && node_int(n, "select_last_index", 0) != 0};
    struct ref rx, ry;
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", 0), x->rank, &axis);

    if (r < 0)
        return r;
    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    a.count = x->dims[axis];
    a.step = span(x, axis + 1, x->rank);
    r = build_in(b, n->in[0], &rx);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, arg_reduce, a, HOLE(arg_reduce, x, rx), HOLE(arg_reduce, y, ry));
}

/* Of 16 bits 8 numbers at once, of FP32 4, where all rows begin as aligned. */
static int32_t row_vector(int32_t type, int64_t count)
{
    int32_t most = type == DT_FP32 ? 4 : 8;

    return count % most == 0 ? most : 1;
}

/* Rows that lie behind each other, with what is fused in front of them. */
static int softmax_rows(struct build *b, const struct node *n, const struct softmax_args *a)
{
    const struct fused *f = &b->fused[b->node];
    const struct tensor *y = value_of(b, n->out[0]);
    struct softmax_rows_args s = {.n = a->n,
                                  .count = a->count,
                                  .scale = f->scale,
                                  .log_of = a->log_of,
                                  .type = a->type,
                                  .vector = row_vector(a->type, a->count)};
    int64_t stride[1][MAX_RANK];
    struct ref x, mask = {0}, ry;
    int r = data_in(b, f->x, &x);

    if (r == 0 && f->add != VALUE_NONE) {
        strides_broadcast(value_of(b, f->add), y, stride[0]);
        walk_make(&s.of_mask, y->rank - 1, y->dims, 1, stride);
        r = data_in(b, f->add, &mask);
    }
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : ROWS_STEP(b, softmax, s, HOLE(softmax_rows, x, x),
                             HOLE(softmax_rows, mask, mask), HOLE(softmax_rows, y, ry));
}

/* Over one axis since opset 13, over all from `axis` on before. */
int lower_softmax(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    bool one = n->opset >= 13;
    int64_t given = node_int(n, "axis", one ? -1 : 1), at = given < 0 ? given + x->rank : given;
    struct softmax_args a = {.log_of = n->op == OP_LogSoftmax, .type = (int32_t)data_type(b, x)};
    struct ref rx, ry;

    if (at < 0 || at > (int64_t)x->rank - (one || given < 0))
        return build_fail(b, -EINVAL, "an axis is out of range");
    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    uint32_t axis = (uint32_t)at;
    a.count = one ? x->dims[axis] : span(x, axis, x->rank);
    a.step = one ? span(x, axis + 1, x->rank) : 1;
    a.n = a.count ? span(x, 0, axis) * a.step : 0;
    if (a.step == 1)
        return softmax_rows(b, n, &a);
    int r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, softmax, a, HOLE(softmax, x, rx), HOLE(softmax, y, ry));
}

/* ---- normalisations */

/* Rows with a scale for each of their numbers, and a sum in front of them. */
static int norm_rows(struct build *b, const struct norm_args *a, const struct ref ref[6])
{
    const struct fused *f = &b->fused[b->node];
    struct norm_rows_args s = {.n = a->n,
                               .count = a->count,
                               .eps = a->eps,
                               .rms = a->rms,
                               .type = a->type,
                               .vector = row_vector(a->type, a->count)};
    struct ref add = {0}, sum = {0};
    int r = f->add == VALUE_NONE ? 0 : data_in(b, f->add, &add);

    if (r == 0 && f->sum != VALUE_NONE)
        r = data_out(b, f->sum, &sum);
    return r < 0 ? r
                 : ROWS_STEP(b, norm, s, HOLE(norm_rows, x, ref[0]), HOLE(norm_rows, add, add),
                             HOLE(norm_rows, scale, ref[1]), HOLE(norm_rows, bias, ref[2]),
                             HOLE(norm_rows, y, ref[3]), HOLE(norm_rows, sum, sum),
                             HOLE(norm_rows, ret_mean, ref[4]), HOLE(norm_rows, ret_inv, ref[5]));
}

static int norm_step(struct build *b, const struct node *n, struct norm_args a)
{
    struct ref ref[6] = {{0}}; /* x, scale, bias, y, mean, inverse deviation */

    for (uint32_t i = 0; i < n->n_in && i < 3; i++)
        if (!is_f32(in_of(b, n, i)))
            return build_no_type(b, in_of(b, n, i)->dtype);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (!is_f32(value_of(b, n->out[i])))
            return build_no_type(b, value_of(b, n->out[i])->dtype);
    if (a.count == 0)
        a.n = 0;
    a.type = (int32_t)data_type(b, in_of(b, n, 0));
    int r = data_in(b, b->fused[b->node].x, &ref[0]);
    if (r == 0)
        r = build_in(b, n->in[1], &ref[1]);
    if (r == 0)
        r = build_optional(b, n, 2, &ref[2]);
    if (r == 0)
        r = data_out(b, n->out[0], &ref[3]);
    for (uint32_t i = 1; i < 3 && r == 0; i++)
        if (n->n_out > i && n->out[i] != VALUE_NONE)
            r = build_out(b, n->out[i], &ref[3 + i]);
    if (r < 0)
        return r;
    if (a.div == 1 && a.mod == a.count)
        return norm_rows(b, &a, ref);
    return STEP(b, norm, a, HOLE(norm, x, ref[0]), HOLE(norm, scale, ref[1]),
                HOLE(norm, bias, ref[2]), HOLE(norm, y, ref[3]), HOLE(norm, ret_mean, ref[4]),
                HOLE(norm, ret_inv, ref[5]));
}

/* LayerNormalization and RMSNormalization: rows from `axis` on. */
int lower_layer_norm(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *scale = in_of(b, n, 1), *bias = in_of(b, n, 2);
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", -1), x->rank, &axis);

    if (r < 0)
        return r;
    struct norm_args a = {.n = span(x, 0, axis),
                          .count = span(x, axis, x->rank),
                          .div = 1,
                          .eps = node_float(n, "epsilon", 1e-5f),
                          .rms = n->op == OP_RMSNormalization};
    a.mod = MAX(count_of(scale), 1);
    if ((a.mod != 1 && a.mod != a.count) || (bias && count_of(bias) != a.mod))
        return build_fail(b, -ENOTSUP,
                          "a scale or bias that is broadcast is not in the cuda backend yet");
    return norm_step(b, n, a);
}

int lower_instance_norm(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct norm_args a = {.n = x->dims[0] * x->dims[1],
                          .count = span(x, 2, x->rank),
                          .mod = x->dims[1],
                          .eps = node_float(n, "epsilon", 1e-5f)};

    a.div = MAX(a.count, 1);
    return norm_step(b, n, a);
}

/* One scale for each group (opset 18) or each channel (21). */
int lower_group_norm(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    int64_t groups = node_int(n, "num_groups", 0), scales = count_of(in_of(b, n, 1));

    if (groups < 1 || x->dims[1] % groups || scales < 1 || x->dims[1] % scales)
        return build_fail(b, -EINVAL, "num_groups does not divide the channels");
    struct norm_args a = {.n = x->dims[0] * groups,
                          .count = span(x, 1, x->rank) / groups,
                          .div = MAX(span(x, 1, x->rank) / scales, 1),
                          .mod = scales,
                          .eps = node_float(n, "epsilon", 1e-5f)};
    return norm_step(b, n, a);
}

int lower_batch_norm(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct ref ref[5], y;
    int r = 0;

    if (node_int(n, "training_mode", 0) || (n->opset < 7 && !node_int(n, "is_test", 0)) ||
        (n->n_out > 1 && n->out[1] != VALUE_NONE))
        return build_fail(b, -ENOTSUP, "training is not in the cuda backend");
    /* One scale for each channel, or (before opset 9) for each element of a row. */
    struct batch_norm_args a = {.n = count_of(x),
                                .channels = count_of(in_of(b, n, 1)),
                                .eps = node_float(n, "epsilon", 1e-5f)};
    a.each = a.channels ? MAX(span(x, 1, x->rank) / a.channels, 1) : 1;
    a.type = (int32_t)data_type(b, x);
    b->last = b->last && a.channels == x->dims[1];
    a.each = b->last ? 1 : a.each;
    for (uint32_t i = 0; i < 5 && r == 0; i++)
        r = !is_f32(in_of(b, n, i)) ? build_no_type(b, in_of(b, n, i)->dtype)
            : i == 0                ? data_in(b, n->in[i], &ref[i])
                                    : build_in(b, n->in[i], &ref[i]);
    if (r == 0)
        r = data_out(b, n->out[0], &y);
    return r < 0 ? r
                 : STEP(b, batch_norm, a, HOLE(batch_norm, x, ref[0]),
                        HOLE(batch_norm, scale, ref[1]), HOLE(batch_norm, bias, ref[2]),
                        HOLE(batch_norm, mean, ref[3]), HOLE(batch_norm, variance, ref[4]),
                        HOLE(batch_norm, y, y));
}
