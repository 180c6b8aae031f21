/* Elements in another place, or under another name. */
#include "exe.h"

/* The result is the first input's memory: nothing writes to it after the node that made it. */
int lower_alias(struct build *b, const struct node *n)
{
    if (n->n_post > 0)
        return build_fail(b, -ENOTSUP, "a post step behind a renaming");
    for (uint32_t i = 1; i < n->n_out; i++)
        if (n->out[i] != VALUE_NONE)
            return build_fail(b, -ENOTSUP, "a second result is not in the cuda backend yet");
    return build_same(b, n->in[0], n->out[0]);
}

/* Elements of x at stride[0] from `from` become those of y at stride[1] from `to`. */
static int copy_step(struct build *b, const struct tensor *t, struct ref x, struct ref y,
                     uint32_t rank, const int64_t *dims, int64_t (*stride)[MAX_RANK], int64_t from,
                     int64_t to)
{
    struct copy_args a = {
        .n = 1, .from = from, .to = to, .size = (int32_t)dtype_size(data_type(b, t))};

    if (!a.size)
        return build_no_type(b, t->dtype);
    for (uint32_t i = 0; i < rank; i++)
        a.n *= dims[i];
    data_walk(b, &a.walk, rank, dims, 2, stride);
    return STEP(b, copy, a, HOLE(copy, x, x), HOLE(copy, y, y));
}

/* y, dense, from x at stride[0]. */
static int copy_whole(struct build *b, const struct node *n, int64_t (*stride)[MAX_RANK],
                      int64_t from)
{
    const struct tensor *y = value_of(b, n->out[0]);
    struct ref rx, ry;
    int r = data_in(b, n->in[0], &rx);

    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    data_strides(b, y, stride[1]);
    return r < 0 ? r : copy_step(b, y, rx, ry, y->rank, y->dims, stride, from, 0);
}

int lower_transpose(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    const struct tensor *y = value_of(b, n->out[0]);
    int64_t own[MAX_RANK], stride[2][MAX_RANK];
    uint32_t have;
    const int64_t *perm = node_ints(n, "perm", &have);
    struct ref rx, ry;
    int r = data_any(b, n->in[0], &rx, own);
    bool moves = n->n_post > 0;

    data_strides(b, y, stride[1]);
    for (uint32_t i = 0; i < x->rank; i++) {
        stride[0][i] = own[have == x->rank ? (uint32_t)perm[i] : x->rank - 1 - i];
        moves |= y->dims[i] != 1 && stride[0][i] != stride[1][i];
    }
    if (r == 0 && !moves) {
        data_name(b, n->out[0], rx);
        return 0;
    }
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : copy_step(b, y, rx, ry, y->rank, y->dims, stride, 0, 0);
}

int lower_expand(struct build *b, const struct node *n)
{
    int64_t stride[2][MAX_RANK];

    data_broadcast(b, in_of(b, n, 0), value_of(b, n->out[0]), stride[0]);
    return copy_whole(b, n, stride, 0);
}

int lower_slice(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    int64_t starts[MAX_RANK * 2], axes[MAX_RANK * 2], steps[MAX_RANK * 2], stride[2][MAX_RANK];
    uint32_t count, n_axes, n_steps, axis;
    int64_t from = 0;
    int r = build_ints(b, n, 1, "starts", starts, &count);

    if (r == 0)
        r = build_ints(b, n, 3, "axes", axes, &n_axes);
    if (r == 0)
        r = build_ints(b, n, 4, "", steps, &n_steps);
    data_strides(b, x, stride[0]);
    for (uint32_t i = 0; i < count && r == 0; i++) {
        r = build_axis(b, i < n_axes ? axes[i] : (int64_t)i, x->rank, &axis);
        if (r < 0)
            return r;
        int64_t step = i < n_steps ? steps[i] : 1, dim = x->dims[axis];
        int64_t start = starts[i] < 0 ? starts[i] + dim : starts[i];
        start = MIN(MAX(start, 0), step < 0 ? dim - 1 : dim);
        from += y->dims[axis] > 0 ? start * stride[0][axis] : 0;
        stride[0][axis] *= step;
    }
    return r < 0 ? r : copy_whole(b, n, stride, from);
}

/* Each dimension becomes two: which repetition, and where in it. */
int lower_tile(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    int64_t own[MAX_RANK], out[MAX_RANK], dims[MAX_RANK], stride[2][MAX_RANK];
    uint32_t rank = 0;
    struct ref rx, ry;

    data_strides(b, x, own);
    data_strides(b, y, out);
    for (uint32_t i = 0; i < x->rank; i++) {
        int64_t times = x->dims[i] ? y->dims[i] / x->dims[i] : 0;
        if (rank + 2 > MAX_RANK)
            return build_fail(b, -ENOTSUP,
                              "more than 4 dimensions are not in the cuda backend yet");
        dims[rank] = times;
        stride[0][rank] = 0;
        stride[1][rank++] = x->dims[i] * out[i];
        dims[rank] = x->dims[i];
        stride[0][rank] = own[i];
        stride[1][rank++] = out[i];
    }
    int r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : copy_step(b, y, rx, ry, rank, dims, stride, 0, 0);
}

int lower_concat(struct build *b, const struct node *n)
{
    const struct tensor *y = value_of(b, n->out[0]);
    int64_t stride[2][MAX_RANK], at = 0;
    struct ref rx, ry;
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", 1), y->rank, &axis);

    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    for (uint32_t i = 0; i < n->n_in && r == 0; i++) {
        const struct tensor *x = in_of(b, n, i);
        data_strides(b, x, stride[0]);
        data_strides(b, y, stride[1]);
        r = data_in(b, n->in[i], &rx);
        if (r == 0)
            r = copy_step(b, y, rx, ry, y->rank, x->dims, stride, 0, at * stride[1][axis]);
        at += x->dims[axis];
    }
    return r;
}

int lower_split(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    int64_t stride[2][MAX_RANK], at = 0;
    struct ref rx, ry;
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", 0), x->rank, &axis);

    if (r == 0)
        r = data_in(b, n->in[0], &rx);
    for (uint32_t i = 0; i < n->n_out && r == 0; i++) {
        const struct tensor *y = value_of(b, n->out[i]);
        if (!y)
            return build_fail(b, -ENOTSUP, "an omitted part is not in the cuda backend yet");
        data_strides(b, x, stride[0]);
        data_strides(b, y, stride[1]);
        r = data_out(b, n->out[i], &ry);
        if (r == 0)
            r = copy_step(b, x, rx, ry, x->rank, y->dims, stride, at * stride[0][axis], 0);
        at += y->dims[axis];
    }
    return r;
}

/* The lowest bytes of `bits`, everywhere. */
static int fill_step(struct build *b, const struct tensor *y, struct ref ry, const void *value)
{
    struct fill_args a = {.n = count_of(y), .size = (int32_t)dtype_size(data_type(b, y))};

    if (!a.size)
        return build_no_type(b, y->dtype);
    if (value)
        memcpy(&a.bits, value, (size_t)a.size);
    return STEP(b, fill, a, HOLE(fill, y, ry));
}

int lower_fill(struct build *b, const struct node *n)
{
    const struct attr *value = node_attr(n, "value");
    const struct tensor *y = value_of(b, n->out[0]);
    struct ref ry;
    int r = data_out(b, n->out[0], &ry);

    return r < 0 ? r : fill_step(b, y, ry, value ? value->t->data : NULL);
}

/* The value that padding has, in x's type. */
static int pad_value(struct build *b, const struct node *n, uint64_t *ret)
{
    const struct tensor *v = in_of(b, n, 2);
    float old = node_float(n, "value", 0);

    *ret = 0;
    if (v && !v->data)
        return build_fail(b, -ENOTSUP, "a value that is computed while the model runs");
    if (v && v->dtype == DT_FP32)
        memcpy(&old, v->data, sizeof(old));
    if (v && v->dtype != DT_FP32)
        memcpy(ret, v->data, dtype_size(v->dtype));
    else if (v || n->opset < 11)
        data_bits(b, old, ret);
    return 0;
}

/* Constant padding: the result is filled, then what is kept of x copied into it. */
int lower_pad(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    int64_t pads[MAX_RANK * 2], axes[MAX_RANK * 2], dims[MAX_RANK], stride[2][MAX_RANK];
    int64_t begin[MAX_RANK] = {0};
    uint32_t n_pads, n_axes, axis;
    int64_t from = 0, to = 0;
    struct ref rx, ry;
    uint64_t bits;
    int r = build_ints(b, n, 1, "pads", pads, &n_pads);

    if (r == 0)
        r = build_ints(b, n, 3, "", axes, &n_axes);
    if (r == 0)
        r = pad_value(b, n, &bits);
    if (r < 0)
        return r;
    data_strides(b, x, stride[0]);
    data_strides(b, y, stride[1]);
    memcpy(dims, x->dims, sizeof(dims));
    for (uint32_t i = 0; i < n_pads / 2; i++) {
        r = build_axis(b, i < n_axes ? axes[i] : (int64_t)i, x->rank, &axis);
        if (r < 0)
            return r;
        int64_t before = pads[i], after = pads[n_pads / 2 + i]; /* negative: cut off */
        from += MAX(-before, 0) * stride[0][axis];
        to += MAX(before, 0) * stride[1][axis];
        begin[axis] = before;
        dims[axis] = MAX(dims[axis] - MAX(-before, 0) - MAX(-after, 0), 0);
    }
    if (!STREQ(node_str(n, "mode", "constant"), "constant"))
        return lower_pad_mode(b, n, begin);
    r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    if (r == 0)
        r = fill_step(b, y, ry, &bits);
    return r < 0 ? r : copy_step(b, x, rx, ry, x->rank, dims, stride, from, to);
}

int lower_gather(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *index = in_of(b, n, 1), *y = value_of(b, n->out[0]);
    struct gather_args a = {.n = count_of(y),
                            .n_index = count_of(index),
                            .size = (int32_t)dtype_size(data_type(b, x)),
                            .index_type = (int32_t)index->dtype};
    struct ref rx, ri, ry, status = {.kind = REF_BUF, .buf = BUF_STATUS};
    uint32_t axis;
    int r = build_axis(b, node_int(n, "axis", 0), x->rank, &axis);

    if (r < 0)
        return r;
    if (!a.size)
        return build_no_type(b, x->dtype);
    a.axis = x->dims[axis];
    a.inner = span(x, axis + 1, x->rank);
    if (a.axis == 0 && a.n > 0)
        return build_fail(b, -EINVAL, "there is nothing to gather from");
    r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_in(b, n->in[1], &ri);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, gather, a, HOLE(gather, x, rx), HOLE(gather, index, ri),
                        HOLE(gather, y, ry), HOLE(gather, bad, status));
}

/* DepthToSpace and SpaceToDepth: six dimensions in another order. */
int lower_shuffle(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    bool to_space = n->op == OP_DepthToSpace;
    const struct tensor *deep = to_space ? x : y, *wide = to_space ? y : x;
    int64_t k = node_int(n, "blocksize", 0), of_deep[MAX_RANK], of_wide[MAX_RANK];
    int64_t stride[2][MAX_RANK], each = k * k > 0 ? deep->dims[1] / (k * k) : 0;
    bool crd = to_space && STREQ(node_str(n, "mode", "DCR"), "CRD");
    struct ref rx, ry;

    data_strides(b, deep, of_deep);
    data_strides(b, wide, of_wide);
    /* n, c, which row and column of the block, row and column of the depth */
    const int64_t dims[6] = {deep->dims[0], each, k, k, deep->dims[2], deep->dims[3]};
    const int64_t d[6] = {of_deep[0],
                          of_deep[1] * (crd ? k * k : 1),
                          of_deep[1] * (crd ? k : k * each),
                          of_deep[1] * (crd ? 1 : each),
                          of_deep[2],
                          of_deep[3]};
    const int64_t w[6] = {of_wide[0], of_wide[1],     of_wide[2],
                          of_wide[3], of_wide[2] * k, of_wide[3] * k};
    memcpy(stride[to_space ? 0 : 1], d, sizeof(d));
    memcpy(stride[to_space ? 1 : 0], w, sizeof(w));
    int r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : copy_step(b, x, rx, ry, 6, dims, stride, 0, 0);
}
