/* The Gather and Scatter families, and what else goes by index. */
#include "exe.h"

static const struct ref status = {.kind = REF_BUF, .buf = BUF_STATUS};

static int is_index(struct build *b, const struct tensor *t)
{
    return t->dtype == DT_INT32 || t->dtype == DT_INT64 ? 0 : build_no_type(b, t->dtype);
}

/* All of an input, as the first part of an output that more is written to. */
static int copy_first(struct build *b, const struct node *n, struct ref x, struct ref y)
{
    const struct tensor *t = in_of(b, n, 0);
    struct copy_args a = {.n = count_of(t), .size = (int32_t)dtype_size(t->dtype)};
    int64_t dims[1] = {a.n}, stride[2][MAX_RANK] = {{1}, {1}};

    if (!a.size)
        return build_no_type(b, t->dtype);
    walk_make(&a.walk, 1, dims, 2, stride);
    return STEP(b, copy, a, HOLE(copy, x, x), HOLE(copy, y, y));
}

/* ---- an index for each element */

/* The walk over the indices but for the axis, in the strides of x; its own place in *ret_axis. */
static int beside(struct build *b, const struct node *n, int64_t in_x[MAX_RANK], uint32_t *ret_axis)
{
    const struct tensor *x = in_of(b, n, 0), *index = in_of(b, n, 1);
    int r = build_axis(b, node_int(n, "axis", 0), x->rank, ret_axis);

    if (r == 0)
        r = is_index(b, index);
    if (r < 0)
        return r;
    if (!dtype_size(x->dtype))
        return build_no_type(b, x->dtype);
    if (index->rank != x->rank)
        return build_fail(b, -EINVAL, "indices and data differ in rank");
    for (uint32_t d = 0; d < x->rank; d++)
        if (d != *ret_axis && index->dims[d] > x->dims[d])
            return build_fail(b, -EINVAL, "the indices are larger than the data");
    strides_of(x, in_x);
    return 0;
}

int lower_gather_elements(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *index = in_of(b, n, 1);
    int64_t stride[1][MAX_RANK];
    struct ref in[2], ry;
    uint32_t axis;
    int r = beside(b, n, stride[0], &axis);

    if (r < 0)
        return r;
    struct gather_elements_args a = {.n = count_of(index),
                                     .axis = x->dims[axis],
                                     .step = stride[0][axis],
                                     .size = (int32_t)dtype_size(x->dtype),
                                     .index_type = (int32_t)index->dtype};
    if (a.n > 0 && count_of(x) == 0)
        return build_fail(b, -EINVAL, "there is nothing to gather from");
    stride[0][axis] = 0;
    walk_make(&a.walk, index->rank, index->dims, 1, stride);
    r = build_inputs(b, n, 2, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, gather_elements, a, HOLE(gather_elements, x, in[0]),
                        HOLE(gather_elements, index, in[1]), HOLE(gather_elements, y, ry),
                        HOLE(gather_elements, bad, status));
}

/* What happens to the value that is there, and to which types it can. */
static int mix_of(struct build *b, const struct node *n, int32_t *ret)
{
    static const char *const names[] = {"none", "add", "mul", "min", "max"};
    const char *s = n->opset < 16 ? "none" : node_str(n, "reduction", "none");
    enum dtype t = in_of(b, n, 0)->dtype;
    size_t i = 0;

    while (i < ARRAY_SIZE(names) && !STREQ(names[i], s))
        i++;
    if (i == ARRAY_SIZE(names))
        return build_fail(b, -ENOTSUP, "this reduction is not known");
    if (t != in_of(b, n, 2)->dtype)
        return build_fail(b, -EINVAL, "data and updates differ in type");
    if (!dtype_size(t) || (i > 0 && t != DT_FP32 && t != DT_INT32 && t != DT_INT64))
        return build_no_type(b, t);
    *ret = (int32_t)i;
    return 0;
}

int lower_scatter_elements(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *index = in_of(b, n, 1);
    int64_t stride[2][MAX_RANK], dims[MAX_RANK];
    struct ref in[3], ry;
    uint32_t axis;
    int32_t mix;
    int r = beside(b, n, stride[1], &axis);

    if (r == 0)
        r = mix_of(b, n, &mix);
    if (r == 0 && count_of(in_of(b, n, 2)) != count_of(index))
        r = build_fail(b, -EINVAL, "updates and indices differ in size");
    if (r < 0)
        return r;
    struct scatter_elements_args a = {.count = index->dims[axis],
                                      .axis = x->dims[axis],
                                      .step = stride[1][axis],
                                      .size = (int32_t)dtype_size(x->dtype),
                                      .index_type = (int32_t)index->dtype,
                                      .type = (int32_t)x->dtype,
                                      .mix = mix};
    strides_of(index, stride[0]);
    a.index_step = stride[0][axis];
    memcpy(dims, index->dims, sizeof(dims));
    dims[axis] = 1;
    a.n = a.count > 0 ? count_of(index) / a.count : 0;
    walk_make(&a.walk, index->rank, dims, 2, stride);
    r = build_inputs(b, n, 3, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    if (r == 0)
        r = copy_first(b, n, in[0], ry);
    return r < 0 ? r
                 : STEP(b, scatter_elements, a, HOLE(scatter_elements, index, in[1]),
                        HOLE(scatter_elements, updates, in[2]), HOLE(scatter_elements, y, ry),
                        HOLE(scatter_elements, bad, status));
}

/* ---- several indices name a block */
static int nd_args(struct build *b, const struct node *n, int64_t batch, struct index_nd_args *ret)
{
    const struct tensor *x = in_of(b, n, 0), *index = in_of(b, n, 1);
    int64_t stride[MAX_RANK], named = index->rank ? index->dims[index->rank - 1] : 0;
    int r = is_index(b, index);

    if (r < 0)
        return r;
    if (!dtype_size(x->dtype))
        return build_no_type(b, x->dtype);
    if (x->rank < 1 || index->rank < 1 || batch < 0 ||
        batch >= (int64_t)MIN(x->rank, index->rank) || named < 1 || batch + named > x->rank)
        return build_fail(b, -EINVAL, "data, indices and batch_dims do not go together");
    for (uint32_t d = 0; d < batch; d++)
        if (x->dims[d] != index->dims[d])
            return build_fail(b, -EINVAL, "data and indices differ in their batch");
    int64_t batches = span(x, 0, (uint32_t)batch);
    *ret = (struct index_nd_args){.block = span(x, (uint32_t)(batch + named), x->rank),
                                  .named = named,
                                  .whole = span(x, (uint32_t)batch, x->rank),
                                  .all = span(index, 0, index->rank - 1),
                                  .size = (int32_t)dtype_size(x->dtype),
                                  .index_type = (int32_t)index->dtype,
                                  .type = (int32_t)x->dtype};
    ret->each = batches ? MAX(ret->all / batches, 1) : 1;
    ret->n = ret->all * ret->block;
    strides_of(x, stride);
    memcpy(ret->dims, x->dims + batch, (size_t)named * sizeof(*stride));
    memcpy(ret->stride, stride + batch, (size_t)named * sizeof(*stride));
    return 0;
}

int lower_gather_nd(struct build *b, const struct node *n)
{
    int64_t batch = n->opset < 12 ? 0 : node_int(n, "batch_dims", 0);
    struct index_nd_args a;
    struct ref in[2], ry;
    int r = nd_args(b, n, batch, &a);

    if (r == 0 && a.n > 0 && count_of(in_of(b, n, 0)) == 0)
        r = build_fail(b, -EINVAL, "there is nothing to gather from");
    if (r == 0)
        r = build_inputs(b, n, 2, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, index_nd, a, HOLE(index_nd, x, in[0]), HOLE(index_nd, index, in[1]),
                        HOLE(index_nd, y, ry), HOLE(index_nd, bad, status));
}

int lower_scatter_nd(struct build *b, const struct node *n)
{
    struct index_nd_args a;
    struct ref in[3], ry;
    int32_t mix = 0;
    int r = nd_args(b, n, 0, &a);

    if (r == 0)
        r = mix_of(b, n, &mix);
    if (r == 0 && count_of(in_of(b, n, 2)) != a.n)
        r = build_fail(b, -EINVAL, "the updates have not the shape that the indices name");
    a.mix = mix;
    a.scatter = true;
    a.each = MAX(a.all, 1); /* there is no batch */
    a.in_order = mix != GPU_MIX_none;
    a.n = a.in_order && a.all > 0 ? a.block : a.n;
    if (r == 0)
        r = build_inputs(b, n, 3, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    if (r == 0)
        r = copy_first(b, n, in[0], ry);
    return r < 0 ? r
                 : STEP(b, index_nd, a, HOLE(index_nd, x, in[2]), HOLE(index_nd, index, in[1]),
                        HOLE(index_nd, y, ry), HOLE(index_nd, bad, status));
}

int lower_tensor_scatter(struct build *b, const struct node *n)
{
    const struct tensor *past = in_of(b, n, 0), *up = in_of(b, n, 1), *at = in_of(b, n, 2);
    struct ref in[3], ry;
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", -2), past->rank, &axis);

    if (r == 0 && at && at->dtype != DT_INT64)
        r = build_no_type(b, at->dtype);
    if (r == 0 && (axis == 0 || up->rank != past->rank || up->dims[axis] > past->dims[axis] ||
                   span(up, 0, axis) != span(past, 0, axis) ||
                   span(up, axis + 1, up->rank) != span(past, axis + 1, past->rank) ||
                   up->dtype != past->dtype || (at && count_of(at) != past->dims[0])))
        r = build_fail(b, -EINVAL, "cache, update and indices do not go together");
    if (r < 0)
        return r;
    struct tensor_scatter_args a = {.n = count_of(up),
                                    .count = up->dims[axis],
                                    .times = past->dims[axis],
                                    .inner = span(past, axis + 1, past->rank),
                                    .each = MAX(span(past, 1, axis), 1),
                                    .circular = STREQ(node_str(n, "mode", "linear"), "circular"),
                                    .size = (int32_t)dtype_size(past->dtype)};
    r = build_inputs(b, n, 3, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    if (r == 0)
        r = copy_first(b, n, in[0], ry);
    return r < 0 ? r
                 : STEP(b, tensor_scatter, a, HOLE(tensor_scatter, x, in[1]),
                        HOLE(tensor_scatter, at, in[2]), HOLE(tensor_scatter, y, ry),
                        HOLE(tensor_scatter, bad, status));
}

/* ---- made from indices */
int lower_one_hot(struct build *b, const struct node *n)
{
    const struct tensor *index = in_of(b, n, 0), *values = in_of(b, n, 2),
                        *y = value_of(b, n->out[0]);
    struct ref in[3], ry;
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", -1), index->rank + 1, &axis);

    if (r < 0)
        return r;
    switch (index->dtype) {
    case DT_FP32:
    case DT_INT8:
    case DT_UINT8:
    case DT_INT32:
    case DT_INT64:
        break;
    default:
        return build_no_type(b, index->dtype);
    }
    if (count_of(values) != 2 || values->dtype != y->dtype || !dtype_size(y->dtype))
        return build_fail(b, -EINVAL, "values are not two of the output's type");
    struct one_hot_args a = {.n = count_of(y),
                             .depth = y->dims[axis],
                             .inner = span(index, axis, index->rank),
                             .size = (int32_t)dtype_size(y->dtype),
                             .index_type = (int32_t)index->dtype};
    r = build_in(b, n->in[0], &in[0]);
    if (r == 0)
        r = build_in(b, n->in[2], &in[2]);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, one_hot, a, HOLE(one_hot, index, in[0]), HOLE(one_hot, values, in[2]),
                        HOLE(one_hot, y, ry));
}

int lower_eye(struct build *b, const struct node *n)
{
    const struct tensor *y = value_of(b, n->out[0]);
    struct eye_args a = {.n = count_of(y),
                         .cols = y->rank == 2 ? y->dims[1] : 0,
                         .k = node_int(n, "k", 0),
                         .size = (int32_t)dtype_size(y->dtype)};
    float one = 1;
    struct ref ry;

    if (y->rank != 2 || a.k > INT32_MAX || a.k < INT32_MIN)
        return build_fail(b, -EINVAL, "the input is no matrix, or k is out of range");
    if (y->dtype == DT_FP32)
        memcpy(&a.one, &one, sizeof(one));
    else if (y->dtype == DT_FP16 || y->dtype == DT_BF16 || y->dtype == DT_FP64 || !a.size)
        return build_no_type(b, y->dtype);
    else
        a.one = 1;
    int r = build_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, eye, a, HOLE(eye, y, ry));
}

int lower_trilu(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    int64_t k[MAX_RANK * 2] = {0};
    uint32_t n_k;
    struct ref rx, ry;
    int r = build_ints(b, n, 1, "", k, &n_k);

    if (r < 0)
        return r;
    if (x->rank < 2 || n_k > 1)
        return build_fail(b, -EINVAL, "needs a matrix, and one k");
    struct trilu_args a = {.n = count_of(x),
                           .rows = x->dims[x->rank - 2],
                           .cols = x->dims[x->rank - 1],
                           .k = n_k ? MIN(MAX(k[0], INT32_MIN), INT32_MAX) : 0,
                           .upper = node_int(n, "upper", 1) != 0,
                           .size = (int32_t)dtype_size(x->dtype)};
    if (!a.size)
        return build_no_type(b, x->dtype);
    r = build_in(b, n->in[0], &rx);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, trilu, a, HOLE(trilu, x, rx), HOLE(trilu, y, ry));
}

/* ---- order */
int lower_reverse_sequence(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *lens = in_of(b, n, 1);
    int64_t batch = node_int(n, "batch_axis", 1), time = node_int(n, "time_axis", 0);
    struct ref in[2], ry;

    if (lens->dtype != DT_INT64 || !dtype_size(x->dtype))
        return build_no_type(b, lens->dtype);
    if (x->rank < 2 || (batch != 0 && batch != 1) || time != 1 - batch ||
        count_of(lens) != x->dims[batch])
        return build_fail(b, -EINVAL, "axes and sequence_lens do not fit the input");
    struct reverse_sequence_args a = {.n = count_of(x),
                                      .times = x->dims[time],
                                      .batch = x->dims[batch],
                                      .inner = span(x, 2, x->rank),
                                      .batch_first = batch == 0,
                                      .size = (int32_t)dtype_size(x->dtype)};
    int r = build_inputs(b, n, 2, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, reverse_sequence, a, HOLE(reverse_sequence, x, in[0]),
                        HOLE(reverse_sequence, lens, in[1]), HOLE(reverse_sequence, y, ry),
                        HOLE(reverse_sequence, bad, status));
}

int lower_top_k(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    bool indices = n->n_out > 1 && n->out[1] != VALUE_NONE;
    struct ref rx, ry, ri = {0};
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", -1), x->rank, &axis);

    if (r < 0)
        return r;
    switch (x->dtype) {
    case DT_FP32:
    case DT_INT8:
    case DT_UINT8:
    case DT_INT32:
    case DT_INT64:
        break;
    default:
        return build_no_type(b, x->dtype);
    }
    if (!y || y->dims[axis] > x->dims[axis])
        return build_fail(b, -EINVAL, "more are wanted than there are");
    struct top_k_args a = {.count = x->dims[axis],
                           .step = span(x, axis + 1, x->rank),
                           .want = y->dims[axis],
                           .smallest = n->opset >= 11 && !node_int(n, "largest", 1),
                           .type = (int32_t)x->dtype};
    a.n = a.want > 0 ? count_of(x) : 0;
    r = build_in(b, n->in[0], &rx);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    if (r == 0 && indices)
        r = build_out(b, n->out[1], &ri);
    return r < 0
               ? r
               : STEP(b, top_k, a, HOLE(top_k, x, rx), HOLE(top_k, y, ry), HOLE(top_k, index, ri));
}

/* Pad in another mode than constant, with how much comes before each dimension. */
int lower_pad_mode(struct build *b, const struct node *n, const int64_t begin[MAX_RANK])
{
    static const char *const names[] = {"edge", "reflect", "wrap"};
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    const char *mode = node_str(n, "mode", "constant");
    struct pad_args a = {
        .n = count_of(y), .rank = (int32_t)x->rank, .size = (int32_t)dtype_size(x->dtype)};
    struct ref rx, ry;

    while (a.mode < (int32_t)ARRAY_SIZE(names) && !STREQ(names[a.mode], mode))
        a.mode++;
    if (a.mode == (int32_t)ARRAY_SIZE(names))
        return build_fail(b, -ENOTSUP, "this mode is not known");
    if (a.n > 0 && count_of(x) == 0)
        return build_fail(b, -EINVAL, "there is nothing to repeat");
    for (uint32_t d = 0; d < x->rank; d++) {
        a.out[d] = y->dims[d];
        a.in[d] = x->dims[d];
        a.begin[d] = begin[d];
    }
    int r = build_in(b, n->in[0], &rx);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, pad, a, HOLE(pad, x, rx), HOLE(pad, y, ry));
}
