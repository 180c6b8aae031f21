/* Operators that keep, count or order elements: Compress, NonZero, Unique, TopK.  The outputs of
 * the first three may be larger than what is found, and are then made smaller. */
#include "kit.h"
#include <math.h>

/* Dimension d of t becomes smaller; what is in its data lies packed already. */
static void shrink(struct tensor *t, uint32_t d, int64_t n)
{
    assert(n <= t->dims[d]);
    t->dims[d] = n;
    t->bytes = (size_t)ref_count(t) * dtype_size(t->dtype);
}

REF_FN(ref_compress)
{
    const struct tensor *x = in[0], *keep = in[1];
    bool flat = !node_attr(n, "axis");
    int64_t n_keep = ref_count(keep), kept = 0, at = 0;
    uint32_t axis = 0;
    int r = flat ? 0 : ref_axis(n, node_int(n, "axis", 0), x->rank, &axis, err);

    if (r < 0)
        return r;
    int64_t size = flat ? ref_count(x) : x->dims[axis];
    int64_t outer = flat ? 1 : ref_span(x, 0, axis);
    int64_t inner = flat ? 1 : ref_span(x, axis + 1, x->rank), limit = MIN(size, n_keep);
    if (keep->dtype != DT_BOOL || out[0]->dtype != x->dtype || out[0]->rank <= axis)
        return ref_fail(n, err, -EINVAL, "condition, input and output do not go together");
    for (int64_t i = 0; i < limit; i++)
        kept += num_get(keep, i).u != 0;
    if (kept > out[0]->dims[axis] || ref_span(out[0], 0, axis) != outer ||
        ref_span(out[0], axis + 1, out[0]->rank) != inner)
        return ref_fail(n, err, -EINVAL, "the output is too small");
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < limit; i++)
            if (num_get(keep, i).u) {
                ref_put(out[0], at, x, (o * size + i) * inner, inner);
                at += inner;
            }
    shrink(out[0], axis, kept);
    return 0;
}

static bool is_zero(const struct tensor *x, int64_t i)
{
    union num v = num_get(x, i);

    return ref_kind(x->dtype) == KIND_FLOAT ? v.f == 0 : v.u == 0;
}

REF_FN(ref_non_zero)
{
    const struct tensor *x = in[0];
    int64_t found = 0, count = ref_count(x), k = 0;
    struct walk w;

    for (int64_t i = 0; i < count; i++)
        found += !is_zero(x, i);
    if (out[0]->dtype != DT_INT64 || out[0]->rank != 2 || out[0]->dims[0] != x->rank ||
        out[0]->dims[1] < found)
        return ref_fail(n, err, -EINVAL, "the output is too small");
    walk_init(&w, x);
    for (int64_t i = 0; i < count; i++, walk_next(&w)) {
        if (is_zero(x, i))
            continue;
        for (uint32_t d = 0; d < x->rank; d++)
            num_put(out[0], d * found + k, (union num){.i = w.at[d]});
        k++;
    }
    shrink(out[0], 1, found);
    return 0;
}

/* ---- ordering */

/* a < b, with NaN above all. */
static int compare(enum kind k, union num a, union num b)
{
    if (k == KIND_FLOAT && (isnan(a.f) || isnan(b.f)))
        return (isnan(a.f) != 0) - (isnan(b.f) != 0);
    if (k == KIND_FLOAT)
        return (a.f > b.f) - (a.f < b.f);
    return k == KIND_INT ? (a.i > b.i) - (a.i < b.i) : (a.u > b.u) - (a.u < b.u);
}

/* A tensor seen as slices along an axis, and an order of them. */
struct slices {
    const struct tensor *x;
    int64_t n, outer, inner; /* slices, and the elements of one: outer x inner */
    int64_t *order;
};

static int64_t slice_at(const struct slices *s, int64_t slice, int64_t e)
{
    return (e / s->inner * s->n + slice) * s->inner + e % s->inner;
}

static int slice_compare(const struct slices *s, int64_t a, int64_t b)
{
    enum kind k = ref_kind(s->x->dtype);
    int c = 0;

    for (int64_t e = 0; e < s->outer * s->inner && c == 0; e++)
        c = compare(k, num_get(s->x, slice_at(s, a, e)), num_get(s->x, slice_at(s, b, e)));
    return c;
}

static int order_compare(const void *a, const void *b, void *slices)
{
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    int c = slice_compare(slices, i, j);

    return c ? c : (i > j) - (i < j);
}

/* The distinct slices by value: in `order`, one index of each, its first; which of them each
 * slice is in `which`, how often it is there in `times`.  Returns how many. */
static int64_t distinct(struct slices *s, int64_t *which, int64_t *times)
{
    int64_t found = 0;

    for (int64_t i = 0; i < s->n; i++)
        s->order[i] = i;
    qsort_r(s->order, (size_t)s->n, sizeof(*s->order), order_compare, s);
    for (int64_t i = 0; i < s->n; i++) {
        if (i == 0 || slice_compare(s, s->order[found - 1], s->order[i]) != 0) {
            s->order[found] = s->order[i]; /* found <= i */
            times[found++] = 0;
        }
        times[found - 1]++;
        which[s->order[i]] = found - 1;
    }
    return found;
}

/* The same in the order in which they come in the input. */
static void by_appearance(const struct slices *s, int64_t found, int64_t *which, int64_t *times,
                          int64_t *scratch)
{
    int64_t *rank = scratch, *old_times = scratch + found, next = 0;

    memcpy(old_times, times, (size_t)found * sizeof(*times));
    for (int64_t i = 0; i < s->n; i++)
        if (s->order[which[i]] == i)
            rank[which[i]] = next++;
    for (int64_t k = 0; k < found; k++)
        times[rank[k]] = old_times[k];
    for (int64_t i = 0; i < s->n; i++)
        which[i] = rank[which[i]];
    next = 0;
    for (int64_t i = 0; i < s->n; i++) /* a new `which` of its own is met first at its first */
        if (which[i] == next)
            s->order[next++] = i;
}

static int unique_write(const struct node *n, const struct slices *s, int64_t found, uint32_t axis,
                        const int64_t *which, const int64_t *times, struct tensor *const *out,
                        struct err *err)
{
    struct tensor *extra[3] = {ref_out(n, out, 1), ref_out(n, out, 2), ref_out(n, out, 3)};
    const int64_t *from[3] = {s->order, which, times}, size[3] = {found, s->n, found};

    if (out[0]->dtype != s->x->dtype || out[0]->rank <= axis || out[0]->dims[axis] < found ||
        ref_count(out[0]) != s->outer * s->inner * s->n)
        return ref_fail(n, err, -EINVAL, "the output is too small");
    for (int64_t e = 0; e < s->outer; e++)
        for (int64_t k = 0; k < found; k++)
            ref_put(out[0], (e * found + k) * s->inner, s->x, (e * s->n + s->order[k]) * s->inner,
                    s->inner);
    shrink(out[0], axis, found);
    for (unsigned i = 0; i < 3; i++) {
        if (!extra[i])
            continue;
        if (extra[i]->dtype != DT_INT64 || extra[i]->rank != 1 || extra[i]->dims[0] < size[i])
            return ref_fail(n, err, -EINVAL, "an output is too small");
        ref_copy(extra[i]->data, from[i], (size_t)size[i] * sizeof(int64_t));
        shrink(extra[i], 0, size[i]);
    }
    return 0;
}

REF_FN(ref_unique)
{
    const struct tensor *x = in[0];
    bool flat = !node_attr(n, "axis");
    uint32_t axis = 0;
    int r = flat ? 0 : ref_axis(n, node_int(n, "axis", 0), x->rank, &axis, err);

    if (r < 0)
        return r;
    struct slices s = {.x = x,
                       .n = flat ? ref_count(x) : x->dims[axis],
                       .outer = flat ? 1 : ref_span(x, 0, axis),
                       .inner = flat ? 1 : ref_span(x, axis + 1, x->rank)};
    AUTO(ref_drop) int64_t *room = ref_scratch((size_t)s.n * 5 + 1, sizeof(*room));
    if (!room)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t *which = room + s.n, *times = room + 2 * s.n;
    s.order = room;
    int64_t found = distinct(&s, which, times);
    if (!node_int(n, "sorted", 1))
        by_appearance(&s, found, which, times, room + 3 * s.n);
    return unique_write(n, &s, found, axis, which, times, out, err);
}

/* Selection by repeated passes: the k-th result is the best of those behind the one before.  Equal
 * values come in the order of their indices. */
REF_FN(ref_top_k)
{
    const struct tensor *x = in[0];
    enum kind k = ref_kind(x->dtype);
    bool largest = n->opset < 11 || node_int(n, "largest", 1);
    struct tensor *index = ref_out(n, out, 1);
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", -1), x->rank, &axis, err);

    if (r < 0)
        return r;
    int64_t size = x->dims[axis], inner = ref_span(x, axis + 1, x->rank);
    int64_t outer = ref_span(x, 0, axis), want = out[0]->rank > axis ? out[0]->dims[axis] : -1;
    if (k == KIND_BOOL || out[0]->dtype != x->dtype || want < 0 || want > size ||
        ref_count(out[0]) != outer * want * inner ||
        (index && (index->dtype != DT_INT64 || ref_count(index) != outer * want * inner)))
        return ref_fail(n, err, -EINVAL,
                        "the outputs' types or shapes are not those of the result");
    AUTO(ref_drop) bool *taken = ref_scratch((size_t)size + 1, sizeof(*taken));
    if (!taken)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (int64_t row = 0; row < outer * inner; row++) {
        int64_t from = row / inner * size * inner + row % inner;
        int64_t to = row / inner * want * inner + row % inner;
        memset(taken, 0, (size_t)size);
        for (int64_t w = 0; w < want; w++) {
            int64_t best = -1;
            for (int64_t i = 0; i < size; i++) {
                int c = taken[i] || best < 0 ? 0
                                             : compare(k, num_get(x, from + i * inner),
                                                       num_get(x, from + best * inner));
                if (!taken[i] && (best < 0 || (largest ? c > 0 : c < 0)))
                    best = i;
            }
            taken[best] = true;
            ref_put(out[0], to + w * inner, x, from + best * inner, 1);
            if (index)
                num_put(index, to + w * inner, (union num){.i = best});
        }
    }
    return 0;
}
