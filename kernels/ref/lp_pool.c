/* Pooling by norms: LpPool over windows, GlobalLpPool over everything. */
#include "kit.h"
#include <math.h>

/* The exponent is a float in opset 1. */
static int exponent(const struct node *n, double *ret, struct err *err)
{
    const struct attr *a = node_attr(n, "p");

    *ret = !a ? 2 : a->type == ATTR_FLOAT ? (double)a->f : (double)node_int(n, "p", 2);
    return *ret > 0 ? 0 : ref_fail(n, err, -EINVAL, "p is not positive");
}

static double norm_at(const struct window *w, const double *x, const int64_t o[WINDOW_DIMS],
                      double p)
{
    int64_t n_k = window_count(w->kernel), k[WINDOW_DIMS];
    double sum = 0;

    for (int64_t i = 0; i < n_k; i++) {
        window_split(i, w->kernel, k);
        int64_t at = window_read(w, o, k, NULL);
        sum += at >= 0 ? pow(fabs(x[at]), p) : 0;
    }
    return pow(sum, 1 / p);
}

static int global_lp(const struct node *n, const struct tensor *x, const struct tensor *y, double p,
                     struct err *err)
{
    int64_t each = x->rank < 2 ? 0 : ref_span(x, 2, x->rank);

    if (x->rank < 2 || ref_count(y) != x->dims[0] * x->dims[1])
        return ref_fail(n, err, -EINVAL, "input and output do not go together");
    for (int64_t i = 0; i < ref_count(y); i++) {
        double sum = 0;
        for (int64_t k = 0; k < each; k++)
            sum += pow(fabs(num_get(x, i * each + k).f), p);
        num_put(y, i, (union num){.f = pow(sum, 1 / p)});
    }
    return 0;
}

REF_FN(ref_lp_pool)
{
    const struct tensor *x = in[0], *y = out[0];
    const struct tensor *const all[] = {x, y};
    uint32_t n_kernel;
    const int64_t *kernel = node_ints(n, "kernel_shape", &n_kernel);
    int64_t o[WINDOW_DIMS];
    struct window w;
    double p;
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0 || (r = exponent(n, &p, err)) < 0)
        return r;
    if (n->op == OP_GlobalLpPool)
        return global_lp(n, x, y, p, err);
    if (x->rank < 3 || n_kernel != x->rank - 2 || y->rank != x->rank || y->dims[0] != x->dims[0] ||
        y->dims[1] != x->dims[1])
        return ref_fail(n, err, -EINVAL, "kernel_shape, input and output do not go together");
    if ((r = window_init(&w, n, x, y, kernel, err)) < 0)
        return r;
    AUTO(ref_drop) double *v = ref_doubles(x);
    if (!v)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t n_x = window_count(w.in), n_y = window_count(w.out);
    for (int64_t i = 0; i < ref_count(y); i++) {
        window_split(i % n_y, w.out, o);
        num_put(y, i, (union num){.f = norm_at(&w, v + i / n_y * n_x, o, p)});
    }
    return 0;
}
