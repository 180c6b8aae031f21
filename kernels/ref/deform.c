/* Deformable convolution: each tap of the window is moved by an offset of its own, read between
 * its neighbours, and weighted by a mask. */
#include "kit.h"
#include <math.h>

struct deform {
    struct window w;
    int64_t groups, offset_groups, c_in, c_out; /* channels of one group */
    const double *x, *k, *offset, *mask, *b;    /* mask, b: may be NULL */
};

/* The plane at a fractional position: its neighbours, those outside being zero. */
static double read_between(const struct window *w, const double *plane, const double *x)
{
    double sum = 0;

    for (unsigned corner = 0; corner < 1u << WINDOW_DIMS; corner++) {
        double weight = 1;
        int64_t at = 0;
        for (unsigned i = 0; i < WINDOW_DIMS && weight != 0; i++) {
            double low = floor(x[i]), to = low + (corner >> i & 1);
            weight *= corner >> i & 1 ? x[i] - low : 1 - (x[i] - low);
            if (!(to >= 0) || to >= (double)w->in[i])
                weight = 0;
            else
                at = at * w->in[i] + (int64_t)to;
        }
        if (weight != 0)
            sum += weight * plane[at];
    }
    return sum;
}

/* Tap k of result o as input channel `channel` sees it. */
static double tap_at(const struct deform *d, int64_t image, int64_t channel, int64_t o, int64_t k)
{
    int64_t n_x = window_count(d->w.in), n_y = window_count(d->w.out),
            n_k = window_count(d->w.kernel), channels = d->c_in * d->groups;
    int64_t group = image * d->offset_groups + channel / (channels / d->offset_groups);
    int64_t at[WINDOW_DIMS], tap[WINDOW_DIMS];
    double x[WINDOW_DIMS];

    window_split(o, d->w.out, at);
    window_split(k, d->w.kernel, tap);
    for (unsigned i = 0; i < WINDOW_DIMS; i++) {
        int64_t axis = (int64_t)i - (WINDOW_DIMS - d->w.n_dims);
        x[i] = (double)(at[i] * d->w.stride[i] + tap[i] * d->w.dilation[i] - d->w.pad_begin[i]);
        if (axis >= 0)
            x[i] += d->offset[((group * n_k + k) * d->w.n_dims + axis) * n_y + o];
    }
    double v = read_between(&d->w, d->x + (image * channels + channel) * n_x, x);
    return d->mask ? v * d->mask[(group * n_k + k) * n_y + o] : v;
}

static double deform_at(const struct deform *d, int64_t image, int64_t channel, int64_t o)
{
    int64_t n_k = window_count(d->w.kernel), first = channel / d->c_out * d->c_in;
    double sum = d->b ? d->b[channel] : 0;

    for (int64_t c = 0; c < d->c_in; c++)
        for (int64_t k = 0; k < n_k; k++)
            sum += tap_at(d, image, first + c, o, k) * d->k[(channel * d->c_in + c) * n_k + k];
    return sum;
}

static int deform_check(const struct deform *d, const struct node *n,
                        const struct tensor *const *in, const struct tensor *y, struct err *err)
{
    const struct tensor *x = in[0], *k = in[1], *b = ref_in(n, in, 3), *mask = ref_in(n, in, 4);
    int64_t taps = d->offset_groups * window_count(d->w.kernel), n_y = window_count(d->w.out);

    if (d->groups < 1 || d->groups > INT32_MAX || d->offset_groups < 1 ||
        d->offset_groups > INT32_MAX || x->dims[1] != k->dims[1] * d->groups ||
        k->dims[0] % d->groups != 0 || x->dims[1] % d->offset_groups != 0 ||
        y->dims[0] != x->dims[0] || y->dims[1] != k->dims[0] || (b && ref_count(b) != k->dims[0]) ||
        ref_count(in[2]) != x->dims[0] * taps * d->w.n_dims * n_y ||
        (mask && ref_count(mask) != x->dims[0] * taps * n_y))
        return ref_fail(n, err, -EINVAL, "input, weights, offset and mask do not go together");
    return 0;
}

REF_FN(ref_deform_conv)
{
    const struct tensor *b = ref_in(n, in, 3), *mask = ref_in(n, in, 4), *y = out[0];
    struct deform d = {.groups = node_int(n, "group", 1),
                       .offset_groups = node_int(n, "offset_group", 1)};
    int r = ref_floats(n, in, n->n_in, err);

    if (r < 0)
        return r;
    if (in[1]->rank != in[0]->rank)
        return ref_fail(n, err, -EINVAL, "input and weights do not go together");
    if ((r = window_init(&d.w, n, in[0], y, &in[1]->dims[2], err)) < 0 ||
        (r = deform_check(&d, n, in, y, err)) < 0)
        return r;
    AUTO(ref_drop)
    double *x = ref_doubles(in[0]), *k = ref_doubles(in[1]), *off = ref_doubles(in[2]);
    AUTO(ref_drop)
    double *bias = b ? ref_doubles(b) : NULL, *masks = mask ? ref_doubles(mask) : NULL;
    if (!x || !k || !off || (b && !bias) || (mask && !masks))
        return ref_fail(n, err, -ENOMEM, "out of memory");
    d.x = x, d.k = k, d.offset = off, d.b = bias, d.mask = masks;
    d.c_in = in[1]->dims[1];
    d.c_out = in[1]->dims[0] / d.groups;
    int64_t n_y = window_count(d.w.out);
    for (int64_t i = 0; n_y > 0 && i < ref_count(y); i++)
        num_put(
            y, i,
            (union num){.f = deform_at(&d, i / n_y / y->dims[1], i / n_y % y->dims[1], i % n_y)});
    return 0;
}
