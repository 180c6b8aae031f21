/* Operators that read and write elements by index: the Gather and Scatter families, OneHot,
 * EyeLike, TensorScatter. */
#include "kit.h"

/* Index k of `at` into a dimension of size `limit`. */
static int index_get(const struct node *n, const struct tensor *at, int64_t k, int64_t limit,
                     int64_t *ret, struct err *err)
{
    int64_t v = num_get(at, k).i;

    if (v < -limit || v >= limit)
        return err_set(err, -EINVAL,
                       "node '%s' (%s): index %lld is outside of a dimension of size %lld", n->name,
                       op_name(n->op), (long long)v, (long long)limit);
    *ret = v < 0 ? v + limit : v;
    return 0;
}

static int is_index(const struct node *n, const struct tensor *at, struct err *err)
{
    bool good = at->dtype == DT_INT64 || at->dtype == DT_INT32;

    return good ? 0 : ref_no_type(n, at->dtype, err);
}

/* ---- one index for each element */

/* off[0] of a walk over the indices follows x but for the axis, which stands still. */
static int walk_beside(struct walk *w, const struct node *n, const struct tensor *x,
                       const struct tensor *at, uint32_t *axis, int64_t *step, struct err *err)
{
    int64_t stride[MAX_RANK];
    int r = ref_axis(n, node_int(n, "axis", 0), x->rank, axis, err);

    if (r < 0 || (r = is_index(n, at, err)) < 0)
        return r;
    if (at->rank != x->rank)
        return ref_fail(n, err, -EINVAL, "indices and data differ in rank");
    walk_init(w, at);
    dense_strides(x, stride);
    for (uint32_t d = 0; d < x->rank; d++) {
        if (d != *axis && at->dims[d] > x->dims[d])
            return ref_fail(n, err, -EINVAL, "the indices are larger than the data");
        w->stride[0][d] = d == *axis ? 0 : stride[d];
    }
    *step = stride[*axis];
    return 0;
}

REF_FN(ref_gather_elements)
{
    uint32_t axis;
    int64_t step, index;
    struct walk w;
    int r = walk_beside(&w, n, in[0], in[1], &axis, &step, err);

    if (r == 0 && (in[0]->dtype != out[0]->dtype || ref_count(out[0]) != w.n))
        return ref_fail(n, err, -EINVAL, "the output's type or shape is not that of the indices");
    for (int64_t i = 0; i < w.n && r == 0; i++, walk_next(&w)) {
        r = index_get(n, in[1], i, in[0]->dims[axis], &index, err);
        if (r == 0)
            ref_put(out[0], i, in[0], w.off[0] + index * step, 1);
    }
    return r;
}

/* ---- what a scattered value does to the one that is there */
enum mix { MIX_NONE, MIX_ADD, MIX_MUL, MIX_MIN, MIX_MAX, MIX_BAD };

static enum mix mix_of(const struct node *n)
{
    static const char *const names[] = {"none", "add", "mul", "min", "max"};
    const char *s = n->opset < 16 ? "none" : node_str(n, "reduction", "none");
    unsigned i = 0;

    while (i < ARRAY_SIZE(names) && !STREQ(names[i], s))
        i++;
    return (enum mix)i;
}

static bool less(enum kind k, union num a, union num b)
{
    return k == KIND_FLOAT ? a.f < b.f : k == KIND_INT ? a.i < b.i : a.u < b.u;
}

static void mix(enum mix m, const struct tensor *y, int64_t at, const struct tensor *up,
                int64_t up_at)
{
    enum kind k = ref_kind(y->dtype);
    union num a = num_get(y, at), b = num_get(up, up_at);

    if (m == MIX_ADD)
        a = k == KIND_FLOAT  ? (union num){.f = a.f + b.f}
            : k == KIND_BOOL ? (union num){.u = a.u | b.u}
                             : (union num){.u = a.u + b.u};
    else if (m == MIX_MUL)
        a = k == KIND_FLOAT ? (union num){.f = a.f * b.f} : (union num){.u = a.u * b.u};
    else if (m == MIX_MIN)
        a = less(k, b, a) ? b : a;
    else
        a = less(k, a, b) ? b : a;
    num_put(y, at, a);
}

static int scatter_start(const struct node *n, const struct tensor *const *in,
                         struct tensor *const *out, enum mix *m, struct err *err)
{
    *m = mix_of(n);
    if (*m == MIX_BAD)
        return ref_fail(n, err, -ENOTSUP, "this reduction is not supported");
    if (in[0]->dtype != in[2]->dtype)
        return ref_fail(n, err, -EINVAL, "data and updates differ in type");
    return ref_same_bytes(n, in, out, err);
}

REF_FN(ref_scatter_elements)
{
    uint32_t axis;
    int64_t step, index;
    struct walk w;
    enum mix m;
    int r = walk_beside(&w, n, in[0], in[1], &axis, &step, err);

    if (r < 0 || (r = scatter_start(n, in, out, &m, err)) < 0)
        return r;
    if (ref_count(in[2]) != w.n)
        return ref_fail(n, err, -EINVAL, "updates and indices differ in size");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        if ((r = index_get(n, in[1], i, in[0]->dims[axis], &index, err)) < 0)
            return r;
        if (m == MIX_NONE)
            ref_put(out[0], w.off[0] + index * step, in[2], i, 1);
        else
            mix(m, out[0], w.off[0] + index * step, in[2], i);
    }
    return 0;
}

/* ---- several indices name a block */

/* Where index tuple k begins, in elements from the start of its batch entry. */
static int block_at(const struct node *n, const struct tensor *x, const struct tensor *at,
                    uint32_t batch, int64_t k, int64_t *ret, struct err *err)
{
    int64_t named = at->dims[at->rank - 1], stride[MAX_RANK], index;

    dense_strides(x, stride);
    *ret = 0;
    for (int64_t j = 0; j < named; j++) {
        int r = index_get(n, at, k * named + j, x->dims[batch + j], &index, err);
        if (r < 0)
            return r;
        *ret += index * stride[batch + j];
    }
    return 0;
}

static int check_nd(const struct node *n, const struct tensor *x, const struct tensor *at,
                    int64_t batch, struct err *err)
{
    if (x->rank < 1 || at->rank < 1 || batch < 0 || batch >= (int64_t)MIN(x->rank, at->rank) ||
        at->dims[at->rank - 1] < 1 || batch + at->dims[at->rank - 1] > x->rank)
        return ref_fail(n, err, -EINVAL, "data, indices and batch_dims do not go together");
    for (uint32_t d = 0; d < batch; d++)
        if (x->dims[d] != at->dims[d])
            return ref_fail(n, err, -EINVAL, "data and indices differ in their batch");
    return is_index(n, at, err);
}

REF_FN(ref_gather_nd)
{
    const struct tensor *x = in[0], *at = in[1];
    int64_t batch = n->opset < 12 ? 0 : node_int(n, "batch_dims", 0), from;
    int r = check_nd(n, x, at, batch, err);

    if (r < 0)
        return r;
    int64_t block = ref_span(x, (uint32_t)(batch + at->dims[at->rank - 1]), x->rank);
    int64_t batches = ref_span(x, 0, (uint32_t)batch), all = ref_span(at, 0, at->rank - 1);
    int64_t whole = ref_span(x, (uint32_t)batch, x->rank), each = batches ? all / batches : 0;
    if (x->dtype != out[0]->dtype || ref_count(out[0]) != all * block)
        return ref_fail(n, err, -EINVAL, "the output's type or shape is not that of the gather");
    for (int64_t k = 0; k < all; k++) {
        if ((r = block_at(n, x, at, (uint32_t)batch, k, &from, err)) < 0)
            return r;
        ref_put(out[0], k * block, x, k / each * whole + from, block);
    }
    return 0;
}

REF_FN(ref_scatter_nd)
{
    const struct tensor *x = in[0], *at = in[1];
    int64_t to;
    enum mix m;
    int r = check_nd(n, x, at, 0, err);

    if (r < 0 || (r = scatter_start(n, in, out, &m, err)) < 0)
        return r;
    int64_t block = ref_span(x, (uint32_t)at->dims[at->rank - 1], x->rank);
    int64_t all = ref_span(at, 0, at->rank - 1);
    if (ref_count(in[2]) != all * block)
        return ref_fail(n, err, -EINVAL, "the updates have not the shape that the indices name");
    for (int64_t k = 0; k < all; k++) {
        if ((r = block_at(n, x, at, 0, k, &to, err)) < 0)
            return r;
        if (m == MIX_NONE)
            ref_put(out[0], to, in[2], k * block, block);
        for (int64_t j = 0; m != MIX_NONE && j < block; j++)
            mix(m, out[0], to + j, in[2], k * block + j);
    }
    return 0;
}

/* A cache that each row writes from a position of its own; circular: past the end it begins at
 * the front again. */
REF_FN(ref_tensor_scatter)
{
    const struct tensor *past = in[0], *up = in[1], *at = ref_in(n, in, 2);
    bool circular = STREQ(node_str(n, "mode", "linear"), "circular");
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", -2), past->rank, &axis, err);

    if (r < 0 || (r = ref_same_bytes(n, in, out, err)) < 0)
        return r;
    if (axis == 0 || up->rank != past->rank || up->dtype != past->dtype ||
        up->dims[axis] > past->dims[axis] || ref_span(up, 0, axis) != ref_span(past, 0, axis) ||
        up->dims[0] != past->dims[0] ||
        (at && (at->dtype != DT_INT64 || ref_count(at) != past->dims[0])))
        return ref_fail(n, err, -EINVAL, "cache, update and indices do not go together");
    int64_t inner = ref_span(past, axis + 1, past->rank), size = past->dims[axis];
    int64_t each = ref_span(past, 1, axis), n_new = up->dims[axis];
    if (inner != ref_span(up, axis + 1, up->rank))
        return ref_fail(n, err, -EINVAL, "cache and update differ in shape");
    for (int64_t o = 0; o < past->dims[0] * each; o++) {
        int64_t first = at ? num_get(at, o / each).i : 0;
        if (first < 0 || (circular ? first >= MAX(size, 1) : first > size - n_new))
            return err_set(err, -EINVAL, "node '%s' (%s): write index %lld in a cache of %lld",
                           n->name, op_name(n->op), (long long)first, (long long)size);
        for (int64_t i = 0; i < n_new; i++)
            ref_put(out[0], (o * size + (first + i) % size) * inner, up, (o * n_new + i) * inner,
                    inner);
    }
    return 0;
}

/* ---- made from indices */

REF_FN(ref_one_hot)
{
    enum kind k = ref_kind(in[0]->dtype);
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", -1), in[0]->rank + 1, &axis, err);

    if (r < 0)
        return r;
    if (ref_count(in[2]) != 2 || in[2]->dtype != out[0]->dtype || out[0]->rank != in[0]->rank + 1)
        return ref_fail(n, err, -EINVAL, "values or output do not fit");
    int64_t depth = out[0]->dims[axis], inner = ref_span(in[0], axis, in[0]->rank);
    int64_t outer = ref_span(in[0], 0, axis);
    if (ref_count(out[0]) != outer * depth * inner)
        return ref_fail(n, err, -EINVAL, "the output's shape is not that of the indices");
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t at = num_cast(num_get(in[0], o * inner + i), k, KIND_INT).i;
            at += at < 0 ? depth : 0; /* what is outside of the depth is cold everywhere */
            for (int64_t d = 0; d < depth; d++)
                ref_put(out[0], (o * depth + d) * inner + i, in[2], d == at, 1);
        }
    return 0;
}

REF_FN(ref_eye_like)
{
    const struct tensor *y = out[0];
    enum kind k = ref_kind(y->dtype);
    int64_t shift = node_int(n, "k", 0);

    if (y->rank != 2 || k == KIND_NONE || in[0]->rank != 2 || ref_count(in[0]) != ref_count(y))
        return ref_fail(n, err, -EINVAL, "input and output must be matrices of one shape");
    if (shift > INT32_MAX || shift < INT32_MIN)
        return ref_fail(n, err, -EINVAL, "k is out of range");
    for (int64_t i = 0; i < y->dims[0]; i++)
        for (int64_t j = 0; j < y->dims[1]; j++)
            num_put(y, i * y->dims[1] + j,
                    num_cast((union num){.u = j - i == shift}, KIND_BOOL, k));
    return 0;
}
