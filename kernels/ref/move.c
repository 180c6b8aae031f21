/* Operators that only move elements, by element size, whatever their type. */
#include "kit.h"

static void put(const struct tensor *to, int64_t at, const struct tensor *from, int64_t from_at)
{
    size_t size = dtype_size(to->dtype);

    memcpy((char *)to->data + (size_t)at * size, (const char *)from->data + (size_t)from_at * size,
           size);
}

static int same_type(const struct node *n, const struct tensor *a, const struct tensor *b,
                     struct err *err)
{
    return a->dtype == b->dtype ? 0 : ref_fail(n, err, -EINVAL, "the types differ");
}

REF_FN(ref_transpose)
{
    uint32_t n_perm, rank = in[0]->rank, seen = 0;
    const int64_t *perm = node_ints(n, "perm", &n_perm);
    int64_t stride[MAX_RANK];
    struct walk w;

    if (in[0]->dtype != out[0]->dtype || rank != out[0]->rank || (perm && n_perm != rank))
        return ref_fail(n, err, -EINVAL, "input, output and perm do not go together");
    walk_init(&w, out[0]);
    dense_strides(in[0], stride);
    for (uint32_t d = 0; d < rank; d++) {
        int64_t from = perm ? perm[d] : rank - 1 - d;
        if (from < 0 || from >= rank || seen & 1u << from || in[0]->dims[from] != w.dims[d])
            return ref_fail(n, err, -EINVAL, "perm is not a permutation to the output's shape");
        seen |= 1u << from;
        w.stride[0][d] = stride[from];
    }
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        put(out[0], i, in[0], w.off[0]);
    return 0;
}

/* Concat and Split copy blocks of `span` elements between a part and the whole. */
struct blocks {
    int64_t outer, part, whole, at; /* counts and offset, in elements */
};

static int blocks_init(struct blocks *b, const struct node *n, const struct tensor *part,
                       const struct tensor *whole, uint32_t axis, struct err *err)
{
    bool fits = part->dtype == whole->dtype && part->rank == whole->rank;

    for (uint32_t d = 0; fits && d < whole->rank; d++)
        fits = d == axis || part->dims[d] == whole->dims[d];
    if (!fits)
        return ref_fail(n, err, -EINVAL, "a part differs from the whole in type or shape");
    b->outer = ref_span(whole, 0, axis);
    b->part = ref_span(part, axis, part->rank);
    b->whole = ref_span(whole, axis, whole->rank);
    if (b->at + b->part > b->whole)
        return ref_fail(n, err, -EINVAL, "the parts are larger than the whole");
    return 0;
}

REF_FN(ref_concat)
{
    struct blocks b = {.at = 0};
    size_t size = dtype_size(out[0]->dtype);
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", 1), out[0]->rank, &axis, err);

    for (uint32_t k = 0; k < n->n_in && r == 0; k++, b.at += b.part) {
        if (!in[k])
            return ref_fail(n, err, -EINVAL, "an input is missing");
        if ((r = blocks_init(&b, n, in[k], out[0], axis, err)) < 0)
            return r;
        for (int64_t o = 0; o < b.outer; o++)
            ref_copy((char *)out[0]->data + (size_t)(o * b.whole + b.at) * size,
                     (const char *)in[k]->data + (size_t)(o * b.part) * size,
                     (size_t)b.part * size);
    }
    if (r == 0 && b.at != b.whole)
        return ref_fail(n, err, -EINVAL, "the parts are smaller than the whole");
    return r;
}

/* Sizes along the axis: named, or equal with the last one smaller. */
static int split_sizes(const struct node *n, const struct tensor *const *in, int64_t whole,
                       int64_t *ret, struct err *err)
{
    uint32_t n_sizes;
    bool given;
    bool inputs = n->opset >= 13 || n->opset == 1;
    int r = ref_ints(n, in, inputs ? 1 : UINT32_MAX, "split", ret, n->n_out, &n_sizes, &given, err);

    if (r < 0)
        return r;
    if (given && n_sizes == n->n_out)
        return 0;
    if (given)
        return ref_fail(n, err, -EINVAL, "split does not name a size for each output");
    int64_t each = (whole + n->n_out - 1) / n->n_out;
    for (uint32_t k = 0; k < n->n_out; k++)
        ret[k] = MAX(0, MIN(each, whole - k * each));
    return 0;
}

REF_FN(ref_split)
{
    struct blocks b = {.at = 0};
    size_t size = dtype_size(in[0]->dtype);
    uint32_t axis;
    AUTO(ref_drop) int64_t *sizes = ref_scratch(n->n_out, sizeof(*sizes));
    int r = ref_axis(n, node_int(n, "axis", 0), in[0]->rank, &axis, err);

    if (!sizes)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    if (r < 0 || (r = split_sizes(n, in, in[0]->dims[axis], sizes, err)) < 0)
        return r;
    int64_t inner = ref_span(in[0], axis + 1, in[0]->rank);
    for (uint32_t k = 0; k < n->n_out; b.at += sizes[k++] * inner) {
        if (!out[k])
            continue;
        if (out[k]->rank != in[0]->rank || out[k]->dims[axis] != sizes[k])
            return ref_fail(n, err, -EINVAL, "an output has not the size of its part");
        if ((r = blocks_init(&b, n, out[k], in[0], axis, err)) < 0)
            return r;
        for (int64_t o = 0; o < b.outer; o++)
            ref_copy((char *)out[k]->data + (size_t)(o * b.part) * size,
                     (const char *)in[0]->data + (size_t)(o * b.whole + b.at) * size,
                     (size_t)b.part * size);
    }
    return 0;
}

/* ---- Slice */
static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static int slice_axis(struct walk *w, const struct node *n, const struct tensor *x, uint32_t d,
                      const int64_t range[3], int64_t stride, struct err *err)
{
    int64_t size = x->dims[d], step = range[2], start = range[0], end = range[1];

    if (step == 0 || step == INT64_MIN)
        return ref_fail(n, err, -EINVAL, "a step of 0");
    start = clamp(start < 0 ? start + size : start, 0, step > 0 ? size : size - 1);
    end = clamp(end < 0 ? end + size : end, step > 0 ? 0 : -1, size);
    int64_t span = step > 0 ? end - start : start - end, by = step > 0 ? step : -step;
    int64_t count = span > 0 ? (span - 1) / by + 1 : 0;
    if (count != w->dims[d])
        return ref_fail(n, err, -EINVAL, "the output's shape is not that of the slice");
    w->off[0] += start * stride;
    w->stride[0][d] = count > 1 ? step * stride : 0; /* a huge step must not overflow */
    return 0;
}

REF_FN(ref_slice)
{
    int64_t range[3][MAX_RANK], axes[MAX_RANK], stride[MAX_RANK]; /* starts, ends, steps */
    uint32_t n_starts, n_ends, n_axes, n_steps, seen = 0, d;
    bool has, has_axes, has_steps = false, inputs = n->opset >= 10;
    struct walk w;
    int r;

    if (in[0]->dtype != out[0]->dtype || in[0]->rank != out[0]->rank)
        return ref_fail(n, err, -EINVAL, "input and output differ in type or rank");
    if ((r = ref_ints(n, in, inputs ? 1 : UINT32_MAX, "starts", range[0], MAX_RANK, &n_starts, &has,
                      err)) < 0 ||
        (r = ref_ints(n, in, inputs ? 2 : UINT32_MAX, "ends", range[1], MAX_RANK, &n_ends, &has,
                      err)) < 0 ||
        (r = ref_ints(n, in, inputs ? 3 : UINT32_MAX, "axes", axes, MAX_RANK, &n_axes, &has_axes,
                      err)) < 0 ||
        (inputs &&
         (r = ref_ints(n, in, 4, "steps", range[2], MAX_RANK, &n_steps, &has_steps, err)) < 0))
        return r;
    if (n_starts != n_ends || (has_axes && n_axes != n_starts) ||
        (has_steps && n_steps != n_starts) || n_starts > in[0]->rank)
        return ref_fail(n, err, -EINVAL, "starts, ends, axes and steps differ in length");
    walk_init(&w, out[0]);
    dense_strides(in[0], w.stride[0]);
    dense_strides(in[0], stride);
    for (uint32_t i = 0; i < n_starts; i++) {
        const int64_t one[3] = {range[0][i], range[1][i], has_steps ? range[2][i] : 1};
        if ((r = ref_axis(n, has_axes ? axes[i] : i, w.rank, &d, err)) < 0 ||
            (r = slice_axis(&w, n, in[0], d, one, stride[d], err)) < 0)
            return r;
        if (seen & 1u << d)
            return ref_fail(n, err, -EINVAL, "an axis is named twice");
        seen |= 1u << d;
    }
    for (d = 0; d < w.rank; d++)
        if (!(seen & 1u << d) && w.dims[d] != in[0]->dims[d])
            return ref_fail(n, err, -EINVAL, "the output's shape is not that of the slice");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        put(out[0], i, in[0], w.off[0]);
    return 0;
}

REF_FN(ref_gather)
{
    size_t size = dtype_size(in[0]->dtype);
    int64_t n_index = ref_count(in[1]);
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", 0), in[0]->rank, &axis, err);

    if (r < 0 || (r = same_type(n, in[0], out[0], err)) < 0)
        return r;
    if (in[1]->dtype != DT_INT64 && in[1]->dtype != DT_INT32)
        return ref_no_type(n, in[1]->dtype, err);
    int64_t limit = in[0]->dims[axis], outer = ref_span(in[0], 0, axis);
    size_t inner = (size_t)ref_span(in[0], axis + 1, in[0]->rank) * size;
    if ((size_t)outer * (size_t)n_index * inner != out[0]->bytes)
        return ref_fail(n, err, -EINVAL, "the output's shape is not that of the gather");
    for (int64_t k = 0; k < n_index; k++) {
        int64_t index = num_get(in[1], k).i;
        if (index < -limit || index >= limit)
            return err_set(err, -EINVAL,
                           "node '%s' (Gather): index %lld is outside of dimension %u of size %lld",
                           n->name, (long long)index, axis, (long long)limit);
        index += index < 0 ? limit : 0;
        for (int64_t o = 0; o < outer; o++)
            ref_copy((char *)out[0]->data + (size_t)(o * n_index + k) * inner,
                     (const char *)in[0]->data + (size_t)(o * limit + index) * inner, inner);
    }
    return 0;
}

/* ---- Pad */
/* Where position i of a padded dimension comes from; -1 for the fill value, -2 when there is
 * nothing to reflect or repeat. */
static int64_t pad_source(int64_t i, int64_t size, const char *mode)
{
    if (i >= 0 && i < size)
        return i;
    if (STREQ(mode, "constant"))
        return -1;
    if (size == 0)
        return -2;
    if (STREQ(mode, "edge"))
        return i < 0 ? 0 : size - 1;
    int64_t period = STREQ(mode, "wrap") ? size : MAX(1, 2 * (size - 1));
    int64_t at = (i % period + period) % period;
    return at < size ? at : period - at;
}

static int pad_value(const struct node *n, const struct tensor *const *in, char ret[8],
                     struct err *err)
{
    const struct tensor *v = n->opset >= 11 ? ref_in(n, in, 2) : NULL;
    struct tensor one = {.dtype = in[0]->dtype, .data = ret};

    memset(ret, 0, 8);
    if (v && ref_count(v) > 0) {
        if (v->dtype != in[0]->dtype || ref_count(v) != 1)
            return ref_fail(n, err, -EINVAL, "constant_value is not one of the input's type");
        memcpy(ret, v->data, dtype_size(v->dtype));
    } else if (n->opset < 11 && ref_kind(one.dtype) == KIND_FLOAT) {
        num_put(&one, 0, (union num){.f = (double)node_float(n, "value", 0)});
    }
    return 0;
}

/* The first padding of each dimension into begin[]; checks the output's shape. */
static int pad_begin(const struct node *n, const struct tensor *const *in, const struct tensor *out,
                     int64_t begin[MAX_RANK], struct err *err)
{
    int64_t pads[2 * MAX_RANK], axes[MAX_RANK], sum[MAX_RANK] = {0};
    uint32_t n_pads, n_axes = 0, d, rank = in[0]->rank;
    bool has, has_axes = false;
    const char *name = node_attr(n, "paddings") ? "paddings" : "pads"; /* opset 1 */
    int r = ref_ints(n, in, n->opset >= 11 ? 1 : UINT32_MAX, name, pads, 2 * MAX_RANK, &n_pads,
                     &has, err);

    if (r == 0 && n->opset >= 18)
        r = ref_ints(n, in, 3, "axes", axes, MAX_RANK, &n_axes, &has_axes, err);
    if (r < 0)
        return r;
    if (!has_axes)
        n_axes = rank;
    if (n_pads != 2 * n_axes || out->rank != rank || out->dtype != in[0]->dtype)
        return ref_fail(n, err, -EINVAL, "pads, axes, input and output do not go together");
    memset(begin, 0, MAX_RANK * sizeof(*begin));
    for (uint32_t i = 0; i < n_axes; i++) {
        if ((r = ref_axis(n, has_axes ? axes[i] : i, rank, &d, err)) < 0)
            return r;
        begin[d] = pads[i];
        if (llabs(pads[i]) > INT32_MAX || llabs(pads[n_axes + i]) > INT32_MAX)
            return ref_fail(n, err, -EINVAL, "a pad is out of range");
        sum[d] = pads[i] + pads[n_axes + i];
    }
    for (d = 0; d < rank; d++)
        if (in[0]->dims[d] + sum[d] != out->dims[d])
            return ref_fail(n, err, -EINVAL, "the output's shape is not that of the padding");
    return 0;
}

REF_FN(ref_pad)
{
    const char *mode = node_str(n, "mode", "constant");
    int64_t begin[MAX_RANK], stride[MAX_RANK];
    char value[8];
    const struct tensor fill = {.data = value};
    struct walk w;
    int r = pad_begin(n, in, out[0], begin, err);

    if (r < 0 || (r = pad_value(n, in, value, err)) < 0)
        return r;
    if (!STREQ(mode, "constant") && !STREQ(mode, "reflect") && !STREQ(mode, "edge") &&
        !STREQ(mode, "wrap"))
        return ref_fail(n, err, -ENOTSUP, "this mode is not supported");
    walk_init(&w, out[0]);
    dense_strides(in[0], stride);
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        int64_t off = 0;
        for (uint32_t d = 0; d < w.rank && off >= 0; d++) {
            int64_t at = pad_source(w.at[d] - begin[d], in[0]->dims[d], mode);
            if (at == -2)
                return ref_fail(n, err, -EINVAL, "there is nothing to repeat in dimension of 0");
            off = at < 0 ? -1 : off + at * stride[d];
        }
        put(out[0], i, off < 0 ? &fill : in[0], off < 0 ? 0 : off);
    }
    return 0;
}

REF_FN(ref_where)
{
    struct walk w;

    walk_init(&w, out[0]);
    if (in[0]->dtype != DT_BOOL || in[1]->dtype != out[0]->dtype || in[2]->dtype != out[0]->dtype)
        return ref_fail(n, err, -EINVAL, "the types do not go together");
    for (unsigned k = 0; k < 3; k++)
        if (walk_broadcast(&w, k, in[k]) < 0)
            return ref_fail(n, err, -EINVAL, "the inputs do not broadcast to the output");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        unsigned pick = num_get(in[0], w.off[0]).u ? 1 : 2;
        put(out[0], i, in[pick], w.off[pick]);
    }
    return 0;
}

REF_FN(ref_trilu)
{
    static const uint64_t zero;
    const struct tensor none = {.data = (void *)&zero};
    const struct tensor *shift = ref_in(n, in, 1);
    bool upper = node_int(n, "upper", 1) != 0;
    int r = ref_same_bytes(n, in, out, err);
    struct walk w;

    if (r < 0)
        return r;
    if (in[0]->rank < 2 || (shift && (shift->dtype != DT_INT64 || ref_count(shift) != 1)))
        return ref_fail(n, err, -EINVAL, "needs a matrix, and k as one INT64");
    int64_t k = shift ? clamp(num_get(shift, 0).i, INT32_MIN, INT32_MAX) : 0;
    walk_init(&w, in[0]);
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        int64_t diagonal = w.at[w.rank - 1] - w.at[w.rank - 2];
        if (upper ? diagonal < k : diagonal > k)
            put(out[0], i, &none, 0);
    }
    return 0;
}
