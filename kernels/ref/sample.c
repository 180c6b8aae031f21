/* Reading between the elements: GridSample, the grids of AffineGrid; and CenterCropPad. */
#include "kit.h"
#include <math.h>

/* ---- AffineGrid: theta [N, d, d + 1] and a size [N, C, spatial...] to [N, spatial..., d] */

static double grid_step(int64_t at, int64_t n, bool corners)
{
    if (corners)
        return n > 1 ? 2 * (double)at / (double)(n - 1) - 1 : 0;
    return (2 * (double)at + 1) / (double)n - 1;
}

REF_FN(ref_affine_grid)
{
    const struct tensor *theta = in[0], *y = out[0];
    bool corners = node_int(n, "align_corners", 0) != 0;
    uint32_t d = y->rank < 2 ? 0 : y->rank - 2;
    const struct tensor *const all[] = {theta, y};
    struct walk w;
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (d < 2 || y->dims[y->rank - 1] != d || theta->rank != 3 || theta->dims[0] != y->dims[0] ||
        theta->dims[1] != d || theta->dims[2] != d + 1)
        return ref_fail(n, err, -EINVAL, "theta and size do not go together");
    walk_init(&w, y);
    for (int64_t e = 0; e < w.n; e++, walk_next(&w)) {
        int64_t row = (w.at[0] * d + w.at[d + 1]) * (d + 1);
        double sum = num_get(theta, row + d).f;
        for (uint32_t i = 0; i < d; i++) /* x is the last spatial dimension, and comes first */
            sum += num_get(theta, row + i).f * grid_step(w.at[d - i], y->dims[d - i], corners);
        num_put(y, e, (union num){.f = sum});
    }
    return 0;
}

/* ---- GridSample */

enum sample_mode { SAMPLE_NEAREST, SAMPLE_LINEAR, SAMPLE_CUBIC };
enum sample_pad { PAD_ZEROS, PAD_BORDER, PAD_REFLECTION };
#define MAX_TAPS 4
#define FAR 0x1p40 /* coordinates end there */

struct sampler {
    enum sample_mode mode;
    enum sample_pad pad;
    bool corners;
    uint32_t d;
    const struct tensor *x;
};

/* What one axis contributes: input positions, -1 for zero, and weights. */
struct taps {
    unsigned n;
    int64_t at[MAX_TAPS];
    double weight[MAX_TAPS];
};

static double reflect(double x, double lo, double hi)
{
    double range = hi - lo, beyond = x < lo ? lo - x : x - hi;

    if (x >= lo && x <= hi)
        return x;
    if (range <= 0)
        return lo;
    double times = floor(beyond / range), rest = beyond - times * range;
    bool even = fmod(times, 2) == 0;
    return (x < lo) == even ? lo + rest : hi - rest;
}

static int64_t tap_position(const struct sampler *s, double at, int64_t n, double lo, double hi)
{
    if (s->pad == PAD_BORDER)
        at = at < 0 ? 0 : at > (double)(n - 1) ? (double)(n - 1) : at;
    else if (s->pad == PAD_REFLECTION)
        at = trunc(reflect(at, lo, hi));
    return at >= 0 && at < (double)n ? (int64_t)at : -1;
}

static double cubic(double d)
{
    const double a = -0.75;

    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}

/* A coordinate in [-1, 1], counted in elements. */
static double in_elements(const struct sampler *s, double v, int64_t n)
{
    double x = s->corners ? (v + 1) / 2 * (double)(n - 1) : ((v + 1) * (double)n - 1) / 2;

    if (isnan(x))
        return -1;
    return x < -FAR ? -FAR : x > FAR ? FAR : x;
}

static void axis_taps(const struct sampler *s, double v, int64_t n, struct taps *t)
{
    double lo = s->corners ? 0 : -0.5, hi = s->corners ? (double)(n - 1) : (double)n - 0.5;
    double x = in_elements(s, v, n);

    if (s->mode == SAMPLE_NEAREST)
        x = nearbyint(x);
    if ((x < lo || x > hi) && s->pad == PAD_BORDER)
        x = x < lo ? 0 : (double)(n - 1);
    else if ((x < lo || x > hi) && s->pad == PAD_REFLECTION)
        x = reflect(x, lo, hi);
    double low = floor(x);
    if (s->mode == SAMPLE_NEAREST) {
        t->n = 1;
        t->at[0] = tap_position(s, trunc(x), n, lo, hi);
        t->weight[0] = 1;
        return;
    }
    t->n = s->mode == SAMPLE_LINEAR ? 2 : 4;
    for (unsigned i = 0; i < t->n; i++) {
        double at = low + i - (s->mode == SAMPLE_CUBIC);
        t->at[i] = tap_position(s, at, n, lo, hi);
        t->weight[i] = s->mode == SAMPLE_LINEAR ? 1 - fabs(x - at) : cubic(fabs(x - at));
    }
}

/* Sum over the taps of axis `axis` and those behind it. */
static double sample_at(const struct sampler *s, const double *x, const struct taps *t,
                        uint32_t axis, int64_t offset)
{
    double sum = 0;

    if (axis == s->d)
        return x[offset];
    for (unsigned i = 0; i < t[axis].n; i++)
        if (t[axis].at[i] >= 0)
            sum += t[axis].weight[i] *
                   sample_at(s, x, t, axis + 1, offset * s->x->dims[2 + axis] + t[axis].at[i]);
    return sum;
}

static int sampler_init(struct sampler *s, const struct node *n, struct err *err)
{
    static const struct {
        const char *name;
        enum sample_mode mode;
    } modes[] = {{"nearest", SAMPLE_NEAREST},
                 {"linear", SAMPLE_LINEAR},
                 {"bilinear", SAMPLE_LINEAR},
                 {"cubic", SAMPLE_CUBIC},
                 {"bicubic", SAMPLE_CUBIC}};
    static const char *const pads[] = {
        [PAD_ZEROS] = "zeros", [PAD_BORDER] = "border", [PAD_REFLECTION] = "reflection"};
    const char *mode = node_str(n, "mode", "linear"), *pad = node_str(n, "padding_mode", "zeros");
    size_t m = 0, p = 0;

    while (m < ARRAY_SIZE(modes) && !STREQ(modes[m].name, mode))
        m++;
    while (p < ARRAY_SIZE(pads) && !STREQ(pads[p], pad))
        p++;
    if (m == ARRAY_SIZE(modes) || p == ARRAY_SIZE(pads))
        return err_set(err, -EINVAL, "node '%s' (%s): mode '%.32s', padding_mode '%.32s'", n->name,
                       op_name(n->op), mode, pad);
    s->mode = modes[m].mode;
    s->pad = (enum sample_pad)p;
    s->corners = node_int(n, "align_corners", 0) != 0;
    return 0;
}

REF_FN(ref_grid_sample)
{
    const struct tensor *x = in[0], *grid = in[1], *y = out[0];
    const struct tensor *const all[] = {x, grid, y};
    struct sampler s = {.x = x, .d = x->rank < 3 ? 0 : x->rank - 2};
    struct taps t[MAX_RANK];
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0 || (r = sampler_init(&s, n, err)) < 0)
        return r;
    if (s.d == 0 || y->rank != x->rank || grid->rank != x->rank || y->dims[0] != x->dims[0] ||
        y->dims[1] != x->dims[1] || grid->dims[0] != x->dims[0] ||
        ref_count(grid) != y->dims[0] * ref_span(y, 2, y->rank) * s.d)
        return ref_fail(n, err, -EINVAL, "input, grid and output do not go together");
    AUTO(ref_drop) double *v = ref_doubles(x);
    if (!v)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t n_x = ref_span(x, 2, x->rank), n_y = ref_span(y, 2, y->rank), channels = x->dims[1];
    for (int64_t i = 0; i < ref_count(y); i++) {
        int64_t at = (i / n_y / channels * n_y + i % n_y) * s.d;
        for (uint32_t d = 0; d < s.d; d++) /* a grid point names the last axis first */
            axis_taps(&s, num_get(grid, at + s.d - 1 - d).f, x->dims[2 + d], &t[d]);
        num_put(y, i, (union num){.f = sample_at(&s, v + i / n_y * n_x, t, 0, 0)});
    }
    return 0;
}

/* ---- CenterCropPad: each axis is cut or padded with zeros, evenly, the odd one behind */

REF_FN(ref_center_crop_pad)
{
    const struct tensor *x = in[0], *y = out[0];
    int64_t stride[MAX_RANK], first[MAX_RANK];
    size_t each = dtype_size(x->dtype);
    struct walk w;

    if (y->rank != x->rank || y->dtype != x->dtype)
        return ref_fail(n, err, -EINVAL, "input and output do not go together");
    dense_strides(x, stride);
    for (uint32_t i = 0; i < x->rank; i++) /* division truncates: both ways towards the front */
        first[i] = (x->dims[i] - y->dims[i]) / 2;
    walk_init(&w, y);
    for (int64_t e = 0; e < w.n; e++, walk_next(&w)) {
        int64_t from = 0;
        bool inside = true;
        for (uint32_t i = 0; i < x->rank; i++) {
            int64_t at = w.at[i] + first[i];
            inside &= at >= 0 && at < x->dims[i];
            from += at * stride[i];
        }
        if (inside)
            ref_copy((char *)y->data + (size_t)e * each, (char *)x->data + (size_t)from * each,
                     each);
        else
            memset((char *)y->data + (size_t)e * each, 0, each);
    }
    return 0;
}
