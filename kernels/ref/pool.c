/* Pooling over windows and over everything. */
#include "kit.h"
#include <math.h>

static int pool_init(struct window *w, const struct node *n, const struct tensor *x,
                     const struct tensor *y, struct err *err)
{
    uint32_t n_kernel;
    const int64_t *kernel = node_ints(n, "kernel_shape", &n_kernel);

    if (x->rank < 3 || n_kernel != x->rank - 2 || y->rank != x->rank || y->dtype != x->dtype ||
        y->dims[0] != x->dims[0] || y->dims[1] != x->dims[1])
        return ref_fail(n, err, -EINVAL, "kernel_shape, input and output do not go together");
    return window_init(w, n, x, y, kernel, err);
}

/* The index that MaxPool reports: within the whole input; storage_order 1 counts a plane's
 * dimensions from the first. */
static int64_t index_of(const struct window *w, int64_t plane, int64_t at, bool column_major)
{
    int64_t x[WINDOW_DIMS];

    if (column_major) {
        window_split(at, w->in, x);
        at = (x[2] * w->in[1] + x[1]) * w->in[0] + x[0];
    }
    return plane * window_count(w->in) + at;
}

/* The largest of one window into *ret; its place, or -1 when it lies in the padding alone. */
static int64_t max_at(const struct window *w, const double *x, const int64_t o[WINDOW_DIMS],
                      double *ret)
{
    int64_t n_k = window_count(w->kernel), best = -1, k[WINDOW_DIMS];

    *ret = -(double)INFINITY;
    for (int64_t i = 0; i < n_k; i++) {
        window_split(i, w->kernel, k);
        int64_t at = window_read(w, o, k, NULL);
        if (at >= 0 && (best < 0 || x[at] > *ret || isnan(x[at]))) {
            best = at;
            *ret = x[at];
        }
    }
    return best;
}

REF_FN(ref_max_pool)
{
    struct tensor *y = out[0], *index = ref_out(n, out, 1);
    bool column_major = node_int(n, "storage_order", 0) != 0;
    enum kind k = ref_kind(in[0]->dtype);
    struct window w;
    int r = pool_init(&w, n, in[0], y, err);

    if (r < 0)
        return r;
    if (k == KIND_BOOL || dtype_size(in[0]->dtype) > 4) /* a double must hold it */
        if (in[0]->dtype != DT_FP64)
            return ref_no_type(n, in[0]->dtype, err);
    if (index && (index->dtype != DT_INT64 || ref_count(index) != ref_count(y)))
        return ref_fail(n, err, -EINVAL, "Indices are not one INT64 for each result");
    AUTO(ref_drop) double *x = ref_doubles(in[0]);
    if (!x)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t n_x = window_count(w.in), n_y = window_count(w.out), o[WINDOW_DIMS];
    for (int64_t i = 0; i < ref_count(y); i++) {
        int64_t plane = i / n_y;
        double top;
        window_split(i % n_y, w.out, o);
        int64_t at = max_at(&w, x + plane * n_x, o, &top);
        num_put(y, i, num_cast((union num){.f = top}, KIND_FLOAT, k));
        if (index)
            num_put(index, i, (union num){.i = index_of(&w, plane, MAX(at, 0), column_major)});
    }
    return 0;
}

/* The divisor counts the padding when asked to, but never what ceil_mode adds beyond it. */
static double average_at(const struct window *w, const double *x, const int64_t o[WINDOW_DIMS],
                         bool count_pad)
{
    int64_t n_k = window_count(w->kernel), n = 0, k[WINDOW_DIMS];
    double sum = 0;
    bool inside;

    for (int64_t i = 0; i < n_k; i++) {
        window_split(i, w->kernel, k);
        int64_t at = window_read(w, o, k, &inside);
        sum += at >= 0 ? x[at] : 0;
        n += at >= 0 || (count_pad && inside);
    }
    return n ? sum / (double)n : 0;
}

REF_FN(ref_average_pool)
{
    const struct tensor *y = out[0];
    bool count_pad = node_int(n, "count_include_pad", 0) != 0;
    struct window w;
    int r = pool_init(&w, n, in[0], y, err);

    if (r < 0 || (r = ref_floats(n, in, 1, err)) < 0)
        return r;
    AUTO(ref_drop) double *x = ref_doubles(in[0]);
    if (!x)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t n_x = window_count(w.in), n_y = window_count(w.out), o[WINDOW_DIMS];
    for (int64_t i = 0; i < ref_count(y); i++) {
        window_split(i % n_y, w.out, o);
        num_put(y, i, (union num){.f = average_at(&w, x + i / n_y * n_x, o, count_pad)});
    }
    return 0;
}

REF_FN(ref_global_pool)
{
    const struct tensor *x = in[0], *y = out[0];
    bool max = n->op == OP_GlobalMaxPool;
    int r = ref_floats(n, in, 1, err);

    if (r < 0)
        return r;
    if (x->rank < 2 || y->dtype != x->dtype || ref_count(y) != x->dims[0] * x->dims[1])
        return ref_fail(n, err, -EINVAL, "input and output do not go together");
    int64_t each = ref_span(x, 2, x->rank);
    for (int64_t i = 0; i < ref_count(y); i++) {
        double acc = max ? -(double)INFINITY : 0;
        for (int64_t k = 0; k < each; k++) {
            double v = num_get(x, i * each + k).f;
            acc = !max ? acc + v : v > acc || isnan(v) ? v : acc;
        }
        num_put(y, i, (union num){.f = max ? acc : acc / (double)each});
    }
    return 0;
}
