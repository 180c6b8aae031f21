/* Shape rules of operators that move, cut and join: the result's shape comes from numbers in an
 * attribute or, in newer opsets, in an input. */
#include "infer.h"
#include <stdio.h>

int infer_shape(struct infer *c)
{
    int64_t rank = c->in[0]->rank;
    int64_t from = node_int(c->n, "start", 0), to = node_int(c->n, "end", rank);

    from = MAX(from < 0 ? from + rank : from, 0);
    to = MIN(to < 0 ? to + rank : to, rank);
    int64_t n = MAX(to - MIN(from, rank), 0);
    return infer_out(c, 0, DT_INT64, 1, &n);
}

int infer_size(struct infer *c)
{
    return infer_out(c, 0, DT_INT64, 0, NULL);
}

/* The product of dims[from, to). */
static int span(struct infer *c, const int64_t *dims, uint32_t from, uint32_t to, int64_t *ret)
{
    struct tensor t = {.rank = to - from};

    memcpy(t.dims, dims + from, (to - from) * sizeof(*dims));
    if (tensor_count(&t, ret) < 0)
        return err_set(c->err, -EINVAL, "too many elements");
    return 0;
}

static int reshape_rest(struct infer *c, const struct tensor *x, uint32_t rank, int64_t *dims,
                        int64_t rest)
{
    int64_t have, known = 1;
    char px[80], pd[80];
    int rc = span(c, x->dims, 0, x->rank, &have);

    if (rc < 0)
        return rc;
    if (rest >= 0)
        dims[rest] = 1;
    if ((rc = span(c, dims, 0, rank, &known)) < 0)
        return rc;
    if (rest >= 0) {
        dims[rest] = known ? have / known : 0;
        known *= dims[rest];
    }
    if (known == have)
        return infer_out(c, 0, x->dtype, rank, dims);
    return err_set(c->err, -EINVAL, "shape %s cannot become %s",
                   dims_print(x->rank, x->dims, px, sizeof(px)),
                   dims_print(rank, dims, pd, sizeof(pd)));
}

int infer_reshape(struct infer *c)
{
    const struct tensor *x = c->in[0];
    bool allow_zero = node_int(c->n, "allowzero", 0) != 0;
    int64_t dims[MAX_RANK], rest = -1;
    uint32_t rank;
    bool given;
    int rc = infer_list(c, 5, 1, "shape", dims, MAX_RANK, &rank, &given);

    if (rc == 0 && !given)
        return err_set(c->err, -EINVAL, "it has no shape");
    for (uint32_t i = 0; rc == 0 && i < rank; i++) {
        if (dims[i] == 0 && !allow_zero) {
            if (i >= x->rank)
                return err_set(c->err, -EINVAL, "shape keeps dimension %u of rank %u", i, x->rank);
            dims[i] = x->dims[i];
        } else if (dims[i] == -1 && rest == -1) {
            rest = i;
        } else if (dims[i] < 0) {
            return err_set(c->err, -EINVAL, "shape has %lld at %u", (long long)dims[i], i);
        }
    }
    return rc < 0 ? rc : reshape_rest(c, x, rank, dims, rest);
}

int infer_flatten(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", 1), dims[2];
    int rc;

    if (axis != x->rank && (rc = infer_axis(c, &axis, x->rank)) < 0)
        return rc;
    if ((rc = span(c, x->dims, 0, (uint32_t)axis, &dims[0])) < 0 ||
        (rc = span(c, x->dims, (uint32_t)axis, x->rank, &dims[1])) < 0)
        return rc;
    return infer_out(c, 0, x->dtype, 2, dims);
}

int infer_transpose(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t dims[MAX_RANK];
    bool seen[MAX_RANK] = {0};
    uint32_t n;
    const int64_t *perm = node_ints(c->n, "perm", &n);

    if (perm && n != x->rank)
        return err_set(c->err, -EINVAL, "perm has %u numbers for rank %u", n, x->rank);
    for (uint32_t i = 0; i < x->rank; i++) {
        int64_t from = perm ? perm[i] : (int64_t)x->rank - 1 - i;
        int rc = infer_axis(c, &from, x->rank);
        if (rc < 0)
            return rc;
        if (seen[from])
            return err_set(c->err, -EINVAL, "perm has %lld twice", (long long)from);
        seen[from] = true;
        dims[i] = x->dims[from];
    }
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

int infer_trilu(struct infer *c)
{
    if (c->in[0]->rank < 2)
        return err_set(c->err, -EINVAL, "input has rank %u (at least 2)", c->in[0]->rank);
    return infer_same(c);
}

int infer_concat(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", 1), dims[MAX_RANK];
    char pa[80], pb[80];
    int rc = infer_axis(c, &axis, x->rank);

    if (rc < 0)
        return rc;
    memcpy(dims, x->dims, sizeof(dims));
    for (uint32_t i = 1; i < c->n->n_in; i++) {
        const struct tensor *t = c->in[i];
        bool fits = t && t->rank == x->rank;
        for (uint32_t d = 0; fits && d < x->rank; d++)
            fits = d == axis || t->dims[d] == x->dims[d];
        if (!fits || __builtin_add_overflow(dims[axis], t->dims[axis], &dims[axis]))
            return err_set(
                c->err, -EINVAL, "inputs of shape %s and %s cannot be joined at axis %lld",
                dims_print(x->rank, x->dims, pa, sizeof(pa)),
                t ? dims_print(t->rank, t->dims, pb, sizeof(pb)) : "(none)", (long long)axis);
    }
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

int infer_constant_of_shape(struct infer *c)
{
    const struct attr *value = node_attr(c->n, "value");
    enum dtype dtype = value && value->type == ATTR_TENSOR ? value->t->dtype : DT_FP32;
    int64_t dims[MAX_RANK];
    uint32_t rank;
    int rc = infer_ints(c, 0, "shape", dims, MAX_RANK, &rank);

    return rc < 0 ? rc : infer_out(c, 0, dtype, rank, dims);
}

int infer_expand(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t want[MAX_RANK], dims[MAX_RANK];
    uint32_t n, rank;
    int rc = infer_ints(c, 1, "shape", want, MAX_RANK, &n);

    if (rc < 0 || (rc = infer_broadcast(c, x->rank, x->dims, n, want, &rank, dims)) < 0)
        return rc;
    return infer_out(c, 0, x->dtype, rank, dims);
}

int infer_gather(struct infer *c)
{
    const struct tensor *x = c->in[0], *at = c->in[1];
    int64_t axis = node_int(c->n, "axis", 0), dims[2 * MAX_RANK];
    uint32_t rank = 0;
    int rc = infer_axis(c, &axis, x->rank);

    if (rc < 0)
        return rc;
    if (at->dtype != DT_INT64 && at->dtype != DT_INT32)
        return err_set(c->err, -EINVAL, "indices of type %s", dtype_name(at->dtype));
    for (uint32_t i = 0; i < axis; i++)
        dims[rank++] = x->dims[i];
    for (uint32_t i = 0; i < at->rank; i++)
        dims[rank++] = at->dims[i];
    for (uint32_t i = (uint32_t)axis + 1; i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return infer_out(c, 0, x->dtype, rank, dims);
}

/* Before opset 6: how often, and along which axis, as repeats for each dimension. */
static int tile_axis(struct infer *c, int64_t *times, uint32_t *n)
{
    int64_t number[2];
    uint32_t n_times, n_axis;
    int rc;

    if (!infer_in(c, 2))
        return err_set(c->err, -EINVAL, "input 2 is missing");
    if ((rc = infer_ints(c, 1, "tiles", &number[0], 1, &n_times)) < 0 ||
        (rc = infer_ints(c, 2, "axis", &number[1], 1, &n_axis)) < 0)
        return rc;
    if (n_times != 1 || n_axis != 1)
        return err_set(c->err, -EINVAL, "tiles and axis must be one number each");
    if ((rc = infer_axis(c, &number[1], c->in[0]->rank)) < 0)
        return rc;
    *n = c->in[0]->rank;
    for (uint32_t i = 0; i < *n; i++)
        times[i] = i == number[1] ? number[0] : 1;
    return 0;
}

int infer_tile(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t times[MAX_RANK], dims[MAX_RANK];
    uint32_t n;
    int rc = c->n->opset < 6 ? tile_axis(c, times, &n)
                             : infer_ints(c, 1, "repeats", times, MAX_RANK, &n);

    if (rc < 0)
        return rc;
    if (n != x->rank)
        return err_set(c->err, -EINVAL, "repeats has %u numbers for rank %u", n, x->rank);
    for (uint32_t i = 0; i < n; i++)
        if (times[i] < 0 || __builtin_mul_overflow(times[i], x->dims[i], &dims[i]))
            return err_set(c->err, -EINVAL, "repeats has %lld at %u", (long long)times[i], i);
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

/* ---- axes that come or go */

int infer_squeeze(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axes[MAX_RANK], dims[MAX_RANK];
    bool given, gone[MAX_RANK] = {0};
    uint32_t n, rank = 0;
    int rc = infer_list(c, 13, 1, "axes", axes, MAX_RANK, &n, &given);

    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        if ((rc = infer_axis(c, &axes[i], x->rank)) < 0)
            return rc;
        gone[axes[i]] = true;
    }
    for (uint32_t i = 0; rc == 0 && i < x->rank; i++) {
        if (gone[i] && x->dims[i] != 1)
            return err_set(c->err, -EINVAL, "axis %u is %lld, not 1", i, (long long)x->dims[i]);
        if (given ? !gone[i] : x->dims[i] != 1)
            dims[rank++] = x->dims[i];
    }
    return rc < 0 ? rc : infer_out(c, 0, x->dtype, rank, dims);
}

int infer_unsqueeze(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axes[MAX_RANK], dims[MAX_RANK];
    bool given, is_new[MAX_RANK] = {0};
    uint32_t n, from = 0;
    int rc = infer_list(c, 13, 1, "axes", axes, MAX_RANK, &n, &given);

    if (rc < 0)
        return rc;
    if (!given || x->rank + n > MAX_RANK)
        return err_set(c->err, given ? -ENOTSUP : -EINVAL, "%u axes for rank %u (at most %d)", n,
                       x->rank, MAX_RANK);
    for (uint32_t i = 0; i < n; i++) {
        if ((rc = infer_axis(c, &axes[i], x->rank + n)) < 0)
            return rc;
        if (is_new[axes[i]])
            return err_set(c->err, -EINVAL, "axis %lld twice", (long long)axes[i]);
        is_new[axes[i]] = true;
    }
    for (uint32_t i = 0; i < x->rank + n; i++)
        dims[i] = is_new[i] ? 1 : x->dims[from++];
    return infer_out(c, 0, x->dtype, x->rank + n, dims);
}

/* ---- Slice, Split, Pad, Range */

struct slice {
    uint32_t n, n_axes, n_steps;
    int64_t start[MAX_RANK], end[MAX_RANK], axis[MAX_RANK], step[MAX_RANK];
};

static int slice_read(struct infer *c, struct slice *s)
{
    uint32_t n_end;
    bool given, has_axes, has_steps = false;
    int rc;

    if ((rc = infer_list(c, 10, 1, "starts", s->start, MAX_RANK, &s->n, &given)) < 0 ||
        (rc = infer_list(c, 10, 2, "ends", s->end, MAX_RANK, &n_end, &given)) < 0 ||
        (rc = infer_list(c, 10, 3, "axes", s->axis, MAX_RANK, &s->n_axes, &has_axes)) < 0)
        return rc;
    if (c->n->opset >= 10 &&
        (rc = infer_list(c, 10, 4, "steps", s->step, MAX_RANK, &s->n_steps, &has_steps)) < 0)
        return rc;
    if (n_end != s->n || (has_axes && s->n_axes != s->n) || (has_steps && s->n_steps != s->n) ||
        s->n > c->in[0]->rank)
        return err_set(c->err, -EINVAL,
                       "%u starts, %u ends, %u axes and %u steps for a tensor of rank %u", s->n,
                       n_end, s->n_axes, s->n_steps, c->in[0]->rank);
    for (uint32_t i = 0; i < s->n; i++) {
        s->axis[i] = has_axes ? s->axis[i] : i;
        s->step[i] = has_steps ? s->step[i] : 1;
    }
    return 0;
}

static int64_t clamp(int64_t v, int64_t min, int64_t max)
{
    return v < min ? min : v > max ? max : v;
}

/* Elements of [start, end) by step in a dimension of d, with ONNX's clamping. */
static int64_t slice_count(int64_t start, int64_t end, int64_t step, int64_t d)
{
    bool back = step < 0;
    uint64_t stride = back ? -(uint64_t)step : (uint64_t)step;

    start = clamp(start < 0 ? start + d : start, 0, back ? d - 1 : d);
    end = clamp(end < 0 ? end + d : end, back ? -1 : 0, d);
    int64_t way = back ? start - end : end - start;
    return d == 0 || way <= 0 ? 0 : (int64_t)(((uint64_t)way - 1) / stride + 1);
}

int infer_slice(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t dims[MAX_RANK];
    bool seen[MAX_RANK] = {0};
    struct slice s = {0};
    int rc = slice_read(c, &s);

    if (rc < 0)
        return rc;
    memcpy(dims, x->dims, sizeof(dims));
    for (uint32_t i = 0; i < s.n; i++) {
        if ((rc = infer_axis(c, &s.axis[i], x->rank)) < 0)
            return rc;
        int64_t a = s.axis[i];
        if (seen[a] || s.step[i] == 0)
            return err_set(c->err, -EINVAL, seen[a] ? "axis %lld twice" : "axis %lld by step 0",
                           (long long)a);
        seen[a] = true;
        dims[a] = slice_count(s.start[i], s.end[i], s.step[i], x->dims[a]);
    }
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

/* The sizes of the parts; from 18 on, num_outputs may make the last one smaller. */
static int split_sizes(struct infer *c, int64_t whole, int64_t *part)
{
    uint32_t n, n_out = c->n->n_out;
    bool given;
    int64_t sum = 0;
    uint32_t since = c->n->opset == 1 && infer_in(c, 1) ? 1 : 13; /* either way in opset 1 */
    int rc = infer_list(c, since, 1, "split", part, MAX_SHAPE_NUMBERS, &n, &given);

    if (rc < 0)
        return rc;
    if (!given && c->n->opset < 18 && whole % n_out != 0)
        return err_set(c->err, -EINVAL, "%lld elements in %u equal parts", (long long)whole, n_out);
    if (!given && node_int(c->n, "num_outputs", n_out) != n_out)
        return err_set(c->err, -EINVAL, "num_outputs is %lld, but there are %u outputs",
                       (long long)node_int(c->n, "num_outputs", n_out), n_out);
    int64_t each = (whole + n_out - 1) / n_out;
    for (uint32_t i = 0; !given && i < n_out; i++)
        part[i] = clamp(whole - i * each, 0, each);
    for (uint32_t i = 0; i < (given ? n : n_out); i++)
        if (part[i] < 0 || __builtin_add_overflow(sum, part[i], &sum))
            return err_set(c->err, -EINVAL, "split has %lld at %u", (long long)part[i], i);
    if ((given && n != n_out) || sum != whole)
        return err_set(c->err, -EINVAL, "split into %u parts of %lld together; %u and %lld needed",
                       given ? n : n_out, (long long)sum, n_out, (long long)whole);
    return 0;
}

int infer_split(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", 0), dims[MAX_RANK], part[MAX_SHAPE_NUMBERS];
    int rc = infer_axis(c, &axis, x->rank);

    if (rc == 0 && c->n->n_out > MAX_SHAPE_NUMBERS)
        return err_set(c->err, -EINVAL, "%u outputs (at most %d)", c->n->n_out, MAX_SHAPE_NUMBERS);
    if (rc < 0 || (rc = split_sizes(c, x->dims[axis], part)) < 0)
        return rc;
    memcpy(dims, x->dims, sizeof(dims));
    for (uint32_t i = 0; rc == 0 && i < c->n->n_out; i++) {
        dims[axis] = part[i];
        rc = infer_out(c, i, x->dtype, x->rank, dims);
    }
    return rc;
}

int infer_pad(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t pads[2 * MAX_RANK], axes[MAX_RANK], dims[MAX_RANK];
    uint32_t n, n_axes = 0;
    bool given, has_axes = false;
    const char *name = node_attr(c->n, "paddings") ? "paddings" : "pads"; /* opset 1 */
    int rc = infer_list(c, 11, 1, name, pads, 2 * MAX_RANK, &n, &given);

    if (rc == 0 && c->n->opset >= 18)
        rc = infer_list(c, 18, 3, "axes", axes, MAX_RANK, &n_axes, &has_axes);
    if (rc < 0)
        return rc;
    if (!has_axes)
        for (n_axes = 0; n_axes < x->rank; n_axes++)
            axes[n_axes] = n_axes;
    if (n != 2 * n_axes)
        return err_set(c->err, -EINVAL, "pads has %u numbers for %u axes", n, n_axes);
    memcpy(dims, x->dims, sizeof(dims));
    for (uint32_t i = 0; i < n_axes; i++) {
        if ((rc = infer_axis(c, &axes[i], x->rank)) < 0)
            return rc;
        int64_t *d = &dims[axes[i]], before = pads[i], after = pads[n_axes + i];
        if (__builtin_add_overflow(*d, before, d) || __builtin_add_overflow(*d, after, d) || *d < 0)
            return err_set(c->err, -EINVAL, "pads %lld and %lld at axis %lld", (long long)before,
                           (long long)after, (long long)axes[i]);
    }
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

/* A scalar of Range as a double and as an integer. */
static int range_number(struct infer *c, uint32_t i, double *d, int64_t *n)
{
    const struct tensor *t = c->in[i];
    int16_t s;
    int32_t w;
    float f;

    if (!t->data)
        return infer_unknown(c, i == 0 ? "start" : i == 1 ? "limit" : "delta");
    if (t->bytes != dtype_size(t->dtype))
        return err_set(c->err, -EINVAL, "input %u is not one number", i);
    *n = 0;
    *d = 0;
    if (t->dtype == DT_INT64)
        memcpy(n, t->data, sizeof(*n));
    else if (t->dtype == DT_INT32)
        *n = (memcpy(&w, t->data, sizeof(w)), w);
    else if (t->dtype == DT_INT16)
        *n = (memcpy(&s, t->data, sizeof(s)), s);
    else if (t->dtype == DT_FP32)
        *d = (double)(memcpy(&f, t->data, sizeof(f)), f);
    else if (t->dtype == DT_FP64)
        memcpy(d, t->data, sizeof(*d));
    else
        return err_set(c->err, -ENOTSUP, "type %s is not supported", dtype_name(t->dtype));
    return 0;
}

/* ceil((limit - start) / delta), or 0; integers without a detour over doubles. */
int infer_range(struct infer *c)
{
    enum dtype dtype = c->in[0]->dtype;
    double d[3];
    int64_t n[3], count = 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < 3; i++)
        rc = range_number(c, i, &d[i], &n[i]);
    if (rc < 0)
        return rc;
    if (dtype == DT_FP32 || dtype == DT_FP64) {
        double exact = (d[1] - d[0]) / d[2];
        if (!(exact < 9e15) || d[2] == 0) /* also not a number */
            return err_set(c->err, -EINVAL, "%g to %g by %g", d[0], d[1], d[2]);
        count = exact > 0 ? (int64_t)exact + ((double)(int64_t)exact < exact) : 0;
    } else {
        uint64_t way = n[2] > 0 ? (uint64_t)n[1] - (uint64_t)n[0] : (uint64_t)n[0] - (uint64_t)n[1];
        uint64_t step = n[2] > 0 ? (uint64_t)n[2] : -(uint64_t)n[2];
        bool any = n[2] > 0 ? n[1] > n[0] : n[1] < n[0];
        if (step == 0 || (any && way / step >= INT64_MAX))
            return err_set(c->err, -EINVAL, "%lld to %lld by %lld", (long long)n[0],
                           (long long)n[1], (long long)n[2]);
        count = any ? (int64_t)((way - 1) / step + 1) : 0;
    }
    return infer_out(c, 0, dtype, 1, &count);
}
