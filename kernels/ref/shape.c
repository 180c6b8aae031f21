/* Shapes as values, and operators that only give a tensor another shape. */
#include "kit.h"

REF_FN(ref_shape)
{
    int64_t rank = in[0]->rank;
    int64_t from = n->opset >= 15 ? node_int(n, "start", 0) : 0;
    int64_t to = n->opset >= 15 ? node_int(n, "end", rank) : rank;

    from = MAX(0, MIN(rank, from < 0 ? from + rank : from));
    to = MAX(0, MIN(rank, to < 0 ? to + rank : to));
    if (out[0]->dtype != DT_INT64 || ref_count(out[0]) != MAX(0, to - from))
        return ref_fail(n, err, -EINVAL, "the output is not one INT64 for each dimension");
    for (int64_t i = from; i < to; i++)
        num_put(out[0], i - from, (union num){.i = in[0]->dims[i]});
    return 0;
}

REF_FN(ref_size)
{
    if (out[0]->dtype != DT_INT64 || ref_count(out[0]) != 1)
        return ref_fail(n, err, -EINVAL, "the output is not one INT64");
    num_put(out[0], 0, (union num){.i = ref_count(in[0])});
    return 0;
}

/* Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout: the output's shape says it all. */
REF_FN(ref_same_bytes)
{
    if (in[0]->dtype != out[0]->dtype || ref_count(in[0]) != ref_count(out[0]))
        return ref_fail(n, err, -EINVAL, "input and output differ in type or size");
    ref_copy(out[0]->data, in[0]->data, out[0]->bytes);
    return 0;
}

REF_FN(ref_expand)
{
    size_t size = dtype_size(in[0]->dtype);
    struct walk w;

    walk_init(&w, out[0]);
    if (in[0]->dtype != out[0]->dtype || walk_broadcast(&w, 0, in[0]) < 0)
        return ref_fail(n, err, -EINVAL, "the input does not broadcast to the output");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        memcpy((char *)out[0]->data + (size_t)i * size,
               (const char *)in[0]->data + (size_t)w.off[0] * size, size);
    return 0;
}

REF_FN(ref_tile)
{
    size_t size = dtype_size(in[0]->dtype);
    int64_t stride[MAX_RANK];
    struct walk w;

    if (in[0]->dtype != out[0]->dtype || in[0]->rank != out[0]->rank)
        return ref_fail(n, err, -EINVAL, "input and output differ in type or rank");
    walk_init(&w, out[0]);
    dense_strides(in[0], stride);
    for (uint32_t d = 0; d < w.rank; d++)
        if (in[0]->dims[d] ? w.dims[d] % in[0]->dims[d] != 0 : w.dims[d] != 0)
            return ref_fail(n, err, -EINVAL, "the output is not a multiple of the input");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        int64_t off = 0;
        for (uint32_t d = 0; d < w.rank; d++)
            off += w.at[d] % in[0]->dims[d] * stride[d];
        memcpy((char *)out[0]->data + (size_t)i * size,
               (const char *)in[0]->data + (size_t)off * size, size);
    }
    return 0;
}

REF_FN(ref_range)
{
    enum kind k = ref_kind(out[0]->dtype);
    int64_t count = ref_count(out[0]);

    for (unsigned i = 0; i < 3; i++)
        if (in[i]->dtype != out[0]->dtype || ref_count(in[i]) != 1)
            return ref_fail(n, err, -EINVAL, "an input is not one value of the output's type");
    if (k != KIND_FLOAT && k != KIND_INT)
        return ref_no_type(n, out[0]->dtype, err);
    union num start = num_get(in[0], 0), step = num_get(in[2], 0), v;
    for (int64_t i = 0; i < count; i++) {
        if (k == KIND_FLOAT)
            v.f = start.f + (double)i * step.f;
        else
            v.u = start.u + (uint64_t)i * step.u;
        num_put(out[0], i, v);
    }
    return 0;
}

/* Constant: the reader keeps these as constants; here for completeness of the table. */
REF_FN(ref_constant)
{
    const struct attr *a = n->n_attr ? &n->attr[0] : NULL;
    const void *data = !a                       ? NULL
                       : a->type == ATTR_TENSOR ? a->t->data
                       : a->type == ATTR_INTS   ? (const void *)a->ints
                       : a->type == ATTR_FLOATS ? (const void *)a->floats
                       : a->type == ATTR_INT    ? (const void *)&a->i
                       : a->type == ATTR_FLOAT  ? (const void *)&a->f
                                                : NULL;
    size_t bytes = !a                       ? 0
                   : a->type == ATTR_TENSOR ? a->t->bytes
                   : a->type == ATTR_INTS   ? a->n * sizeof(int64_t)
                   : a->type == ATTR_FLOATS ? a->n * sizeof(float)
                   : a->type == ATTR_INT    ? sizeof(int64_t)
                                            : sizeof(float);

    (void)in;
    if (!data && bytes)
        return ref_fail(n, err, -ENOTSUP, "this form of value is not supported");
    if (bytes != out[0]->bytes)
        return ref_fail(n, err, -EINVAL, "value and output differ in size");
    ref_copy(out[0]->data, data, bytes);
    return 0;
}

REF_FN(ref_constant_of_shape)
{
    static const float zero;
    const struct attr *a = node_attr(n, "value");
    const struct tensor fp32 = {.dtype = DT_FP32, .bytes = sizeof(zero), .data = (void *)&zero};
    const struct tensor *v = a && a->type == ATTR_TENSOR ? a->t : &fp32;
    int64_t count = ref_count(out[0]);
    size_t size = dtype_size(v->dtype);

    (void)in;
    if (v->dtype != out[0]->dtype || v->bytes != size)
        return ref_fail(n, err, -EINVAL, "value is not one element of the output's type");
    for (int64_t i = 0; i < count; i++)
        memcpy((char *)out[0]->data + (size_t)i * size, v->data, size);
    return 0;
}
