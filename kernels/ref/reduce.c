/* Reductions: each input element is added to the accumulator of its output element, in a double
 * for floats and in 64 bits for integers. */
#include "kit.h"
#include <math.h>

/* The axes as a bit mask: attribute, or input (ReduceSum since opset 13, the others since 18). */
static int reduce_axes(const struct node *n, const struct tensor *const *in, uint32_t *ret,
                       struct err *err)
{
    uint32_t since = n->op == OP_ReduceSum ? 13 : 18, rank = in[0]->rank, n_axes, d;
    int64_t axes[MAX_RANK];
    bool given;
    int r = ref_ints(n, in, n->opset >= since ? 1 : UINT32_MAX, "axes", axes, MAX_RANK, &n_axes,
                     &given, err);

    if (r < 0)
        return r;
    *ret = n_axes == 0 && !node_int(n, "noop_with_empty_axes", 0) ? (1u << rank) - 1 : 0;
    for (uint32_t i = 0; i < n_axes && r == 0; i++)
        if ((r = ref_axis(n, axes[i], rank, &d, err)) == 0)
            *ret |= 1u << d;
    return r;
}

/* off[0] of a walk over x becomes the output element; -EINVAL when y has another count. */
static int reduce_walk(struct walk *w, const struct tensor *x, uint32_t axes,
                       const struct tensor *y)
{
    int64_t count = 1;

    walk_init(w, x);
    for (uint32_t d = x->rank; d-- > 0;)
        if (!(axes & 1u << d)) {
            w->stride[0][d] = count;
            count *= x->dims[d];
        }
    return count == ref_count(y) ? 0 : -EINVAL;
}

/* What an accumulator starts with. */
static union num reduce_start(enum op_id op, enum dtype t, enum kind k)
{
    bool max = op == OP_ReduceMax;

    if (op != OP_ReduceMax && op != OP_ReduceMin) {
        uint64_t one = op == OP_ReduceProd;
        return k == KIND_FLOAT ? (union num){.f = (double)one} : (union num){.u = one};
    }
    if (k == KIND_FLOAT)
        return (union num){.f = max ? -(double)INFINITY : (double)INFINITY};
    if (k == KIND_INT) {
        int64_t top = INT64_MAX >> (64 - 8 * dtype_size(t));
        return (union num){.i = max ? -top - 1 : top};
    }
    return (union num){.u = max ? 0 : k == KIND_BOOL ? 1 : UINT64_MAX};
}

static union num reduce_add(enum op_id op, enum kind k, union num a, union num v)
{
    bool f = k == KIND_FLOAT;

    switch (op) {
    case OP_ReduceMax:
        return (f ? v.f > a.f || isnan(v.f) : k == KIND_INT ? v.i > a.i : v.u > a.u) ? v : a;
    case OP_ReduceMin:
        return (f ? v.f < a.f || isnan(v.f) : k == KIND_INT ? v.i < a.i : v.u < a.u) ? v : a;
    case OP_ReduceProd:
        return f ? (union num){.f = a.f * v.f} : (union num){.u = a.u * v.u};
    case OP_ReduceL1:
        if (k == KIND_INT && v.i < 0)
            return (union num){.u = a.u - v.u};
        return f ? (union num){.f = a.f + fabs(v.f)} : (union num){.u = a.u + v.u};
    case OP_ReduceSumSquare:
    case OP_ReduceL2:
        return f ? (union num){.f = a.f + v.f * v.f} : (union num){.u = a.u + v.u * v.u};
    default:
        return f ? (union num){.f = a.f + v.f} : (union num){.u = a.u + v.u};
    }
}

/* each: elements behind one accumulator. */
static union num reduce_end(enum op_id op, enum kind k, union num a, int64_t each)
{
    if (op == OP_ReduceMean && k == KIND_FLOAT)
        return (union num){.f = a.f / (double)each};
    if (op == OP_ReduceMean && each > 0)
        return k == KIND_INT ? (union num){.i = a.i / each}
                             : (union num){.u = a.u / (uint64_t)each};
    if (op == OP_ReduceLogSum)
        return num_cast((union num){.f = log(num_cast(a, k, KIND_FLOAT).f)}, KIND_FLOAT, k);
    if (op == OP_ReduceL2)
        return num_cast((union num){.f = sqrt(num_cast(a, k, KIND_FLOAT).f)}, KIND_FLOAT, k);
    return a;
}

/* log(sum(exp(x))) with the largest x taken out first, so that no power overflows. */
static int log_sum_exp(const struct node *n, struct walk *w, const struct tensor *x,
                       const struct tensor *y, struct err *err)
{
    enum kind k = ref_kind(x->dtype);
    int64_t count = ref_count(y);
    AUTO(ref_drop)
    double *v = ref_doubles(x), *top = ref_scratch((size_t)count * 2 + 1, sizeof(*top));
    struct walk again = *w;

    if (!v || !top)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (int64_t i = 0; i < count; i++)
        top[i] = -(double)INFINITY;
    for (int64_t i = 0; i < w->n; i++, walk_next(w))
        top[w->off[0]] = v[i] > top[w->off[0]] || isnan(v[i]) ? v[i] : top[w->off[0]];
    for (int64_t i = 0; i < again.n; i++, walk_next(&again)) {
        double most = top[again.off[0]];
        top[count + again.off[0]] += isinf(most) ? v[i] == most : exp(v[i] - most);
    }
    for (int64_t i = 0; i < count; i++)
        num_put(y, i, num_cast((union num){.f = log(top[count + i]) + top[i]}, KIND_FLOAT, k));
    return 0;
}

REF_FN(ref_reduce)
{
    enum kind k = ref_kind(in[0]->dtype);
    int64_t count = ref_count(out[0]);
    uint32_t axes;
    struct walk w;
    int r = reduce_axes(n, in, &axes, err);

    if (r < 0)
        return r;
    if (in[0]->dtype != out[0]->dtype || reduce_walk(&w, in[0], axes, out[0]) < 0)
        return ref_fail(n, err, -EINVAL, "the output's type or shape is not that of the result");
    if (k == KIND_BOOL && n->op != OP_ReduceMax && n->op != OP_ReduceMin)
        return ref_no_type(n, in[0]->dtype, err);
    if (n->op == OP_ReduceLogSumExp)
        return log_sum_exp(n, &w, in[0], out[0], err);
    AUTO(ref_drop) union num *acc = ref_scratch((size_t)count + 1, sizeof(*acc));
    if (!acc)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (int64_t i = 0; i < count; i++)
        acc[i] = reduce_start(n->op, in[0]->dtype, k);
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        acc[w.off[0]] = reduce_add(n->op, k, acc[w.off[0]], num_get(in[0], i));
    for (int64_t i = 0; i < count; i++)
        num_put(out[0], i, reduce_end(n->op, k, acc[i], w.n / count));
    return 0;
}

/* a is better than b for ArgMax (or ArgMin). */
static bool better(enum kind k, bool max, union num a, union num b)
{
    if (k == KIND_FLOAT)
        return max ? a.f > b.f : a.f < b.f;
    if (k == KIND_INT)
        return max ? a.i > b.i : a.i < b.i;
    return max ? a.u > b.u : a.u < b.u;
}

REF_FN(ref_arg)
{
    enum kind k = ref_kind(in[0]->dtype);
    bool max = n->op == OP_ArgMax, last = n->opset >= 12 && node_int(n, "select_last_index", 0);
    uint32_t axis;
    int r = ref_axis(n, node_int(n, "axis", 0), in[0]->rank, &axis, err);

    if (r < 0)
        return r;
    if (k == KIND_BOOL)
        return ref_no_type(n, in[0]->dtype, err);
    int64_t size = in[0]->dims[axis], inner = ref_span(in[0], axis + 1, in[0]->rank);
    int64_t count = ref_span(in[0], 0, axis) * inner;
    if (out[0]->dtype != DT_INT64 || ref_count(out[0]) != count || (size == 0 && count > 0))
        return ref_fail(n, err, -EINVAL, "the output is not one INT64 for each result");
    for (int64_t i = 0; i < count; i++) {
        int64_t base = i / inner * size * inner + i % inner, best = 0;
        union num top = num_get(in[0], base);
        for (int64_t s = 1; s < size; s++) {
            union num v = num_get(in[0], base + s * inner);
            if (better(k, max, v, top) || (last && !better(k, max, top, v))) {
                best = s;
                top = v;
            }
        }
        num_put(out[0], i, (union num){.i = best});
    }
    return 0;
}
