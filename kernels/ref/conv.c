/* Convolution in one to three dimensions with groups; sums in double. */
#include "kit.h"

struct conv {
    struct window w;
    int64_t groups, c_in, c_out; /* channels of one group */
    const double *x, *k, *b;     /* b may be NULL */
};

/* One output element: image and channel of y, position o. */
static double conv_at(const struct conv *c, int64_t image, int64_t channel,
                      const int64_t o[WINDOW_DIMS])
{
    int64_t n_x = window_count(c->w.in), n_k = window_count(c->w.kernel);
    int64_t first = (image * c->groups + channel / c->c_out) * c->c_in; /* channel of x */
    double sum = c->b ? c->b[channel] : 0;
    int64_t at[WINDOW_DIMS];

    for (int64_t i = 0; i < n_k; i++) {
        window_split(i, c->w.kernel, at);
        int64_t from = window_read(&c->w, o, at, NULL);
        for (int64_t ch = 0; from >= 0 && ch < c->c_in; ch++)
            sum += c->x[(first + ch) * n_x + from] * c->k[(channel * c->c_in + ch) * n_k + i];
    }
    return sum;
}

static int conv_check(const struct node *n, const struct tensor *const *in, const struct tensor *y,
                      int64_t groups, struct err *err)
{
    const struct tensor *x = in[0], *k = in[1], *b = ref_in(n, in, 2);
    const struct tensor *const all[] = {x, k, b, y};
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (x->rank < 3 || k->rank != x->rank || y->rank != x->rank || groups < 1 ||
        groups > INT32_MAX || x->dims[1] != k->dims[1] * groups || k->dims[0] % groups != 0 ||
        y->dims[0] != x->dims[0] || y->dims[1] != k->dims[0] || (b && ref_count(b) != k->dims[0]))
        return ref_fail(n, err, -EINVAL, "channels of input, weights, bias and groups disagree");
    return 0;
}

static void conv_run(const struct conv *c, const struct tensor *y)
{
    int64_t n_y = window_count(c->w.out), channels = c->groups * c->c_out;
    int64_t total = n_y ? ref_count(y) : 0, o[WINDOW_DIMS];

    for (int64_t i = 0; i < total; i++) {
        int64_t plane = i / n_y;
        window_split(i % n_y, c->w.out, o);
        num_put(y, i, (union num){.f = conv_at(c, plane / channels, plane % channels, o)});
    }
}

REF_FN(ref_conv)
{
    const struct tensor *b = ref_in(n, in, 2);
    struct conv c = {.groups = node_int(n, "group", 1)};
    int r = conv_check(n, in, out[0], c.groups, err);

    if (r < 0 || (r = window_init(&c.w, n, in[0], out[0], &in[1]->dims[2], err)) < 0)
        return r;
    c.c_in = in[1]->dims[1];
    c.c_out = in[1]->dims[0] / c.groups;
    AUTO(ref_drop) double *x = ref_doubles(in[0]), *k = ref_doubles(in[1]);
    AUTO(ref_drop) double *bias = b ? ref_doubles(b) : NULL;
    if (!x || !k || (b && !bias))
        return ref_fail(n, err, -ENOMEM, "out of memory");
    c.x = x, c.k = k, c.b = bias;
    conv_run(&c, out[0]);
    return 0;
}
