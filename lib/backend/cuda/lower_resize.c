/* Resize and Upsample: each axis for itself, by a table of which positions a result is made of,
 * with which weights.  The tables are constants.  Coordinates are computed in single precision, as
 * the scales are given: a third as float times three is one only there. */
#include "exe.h"
#include <math.h>

#define TAPS_MAX 4096
#define TABLE_MAX (1 << 24) /* entries of one axis */

enum transform {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_HALF_PIXEL_FOR_NN
};
enum nearest { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL, SIMPLE };
enum filter { NEAREST, LINEAR, CUBIC };

struct resize {
    enum filter filter;
    enum transform transform;
    enum nearest nearest;
    bool exclude_outside, antialias;
    float cubic_a;
};

struct axis {
    int64_t n_in, n_out, taps;
    float scale, width; /* width: n_in * scale, which need not be whole */
    int64_t *index;     /* [n_out][taps] */
    float *weight;
};

static float coordinate(const struct resize *r, const struct axis *a, int64_t at)
{
    float x = (float)at, n = (float)a->n_in, half = (x + 0.5f) / a->scale - 0.5f;

    switch (r->transform) {
    case HALF_PIXEL_SYMMETRIC:
        return n / 2 * (1 - (float)a->n_out / a->width) + half;
    case PYTORCH_HALF_PIXEL:
        return a->n_out > 1 ? half : 0;
    case ALIGN_CORNERS:
        return a->width == 1 ? 0 : x * (n - 1) / (a->width - 1);
    case ASYMMETRIC:
        return x / a->scale;
    case TF_HALF_PIXEL_FOR_NN:
        return (x + 0.5f) / a->scale;
    default:
        return half;
    }
}

static double filter_at(const struct resize *r, double x)
{
    double d = fabs(x), a = (double)r->cubic_a;

    if (r->filter == LINEAR)
        return d < 1 ? 1 - d : 0;
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

static double rounded(const struct resize *r, const struct axis *a, double x)
{
    switch (r->nearest) {
    case ROUND_PREFER_FLOOR:
        return ceil(x - 0.5);
    case ROUND_PREFER_CEIL:
        return floor(x + 0.5);
    case CEIL:
        return ceil(x);
    case SIMPLE: /* opset 10 */
        return a->scale < 1 ? ceil(x) : floor(x);
    default:
        return floor(x);
    }
}

static int64_t clamped(double x, int64_t n)
{
    return x < 0 ? 0 : x > (double)(n - 1) ? n - 1 : (int64_t)x;
}

/* The taps of result `at` around x; downwards the antialiasing filter covers 1 / stretch as many.
 */
static void taps_fill(const struct resize *r, struct axis *a, int64_t at, double x, double stretch)
{
    double base = ceil(x) - 1, sum = 0;
    int64_t first = 1 - a->taps / 2; /* relative to base, which lies in [x - 1, x) */

    for (int64_t i = 0; i < a->taps; i++) {
        double tap = base + (double)(first + i);
        bool beyond = tap < 0 || tap > (double)(a->n_in - 1);
        double w = r->exclude_outside && beyond ? 0 : filter_at(r, stretch * (tap - x));
        a->weight[at * a->taps + i] = (float)w;
        a->index[at * a->taps + i] = clamped(tap, a->n_in);
        sum += w;
    }
    for (int64_t i = 0; (r->exclude_outside || r->antialias) && i < a->taps && sum != 0; i++)
        a->weight[at * a->taps + i] = (float)((double)a->weight[at * a->taps + i] / sum);
}

static int axis_fill(struct build *b, const struct resize *r, struct axis *a)
{
    double stretch = r->antialias ? MIN((double)a->scale, 1.0) : 1;
    double taps = r->filter == NEAREST ? 1 : 2 * ceil((r->filter == CUBIC ? 2 : 1) / stretch);

    if (!(taps <= TAPS_MAX) || a->n_out > TABLE_MAX / (int64_t)taps)
        return build_fail(b, -ENOTSUP, "a scale that reaches too far");
    a->taps = (int64_t)taps;
    a->index = ARENA_ARRAY(&b->scratch, int64_t, (size_t)(a->taps * a->n_out) + 1);
    a->weight = ARENA_ARRAY(&b->scratch, float, (size_t)(a->taps * a->n_out) + 1);
    if (!a->index || !a->weight)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (int64_t i = 0; i < a->n_out; i++) {
        double x = (double)coordinate(r, a, i);
        if (!(fabs(x) <= 0x1p52))
            return build_fail(b, -EINVAL, "a scale that reaches too far");
        if (r->filter == NEAREST)
            a->index[i] = clamped(rounded(r, a, x), a->n_in);
        else
            taps_fill(r, a, i, x, stretch);
    }
    return 0;
}

/* ---- arguments */
static int word(struct build *b, const char *s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (STREQ(s, words[i]))
            return (int)i;
    return build_fail(b, -ENOTSUP, "a mode that is not in the cuda backend");
}

static int attrs_read(struct build *b, const struct node *n, struct resize *ret)
{
    static const char *const filters[] = {"nearest", "linear", "cubic"};
    static const char *const transforms[] = {"half_pixel",         "half_pixel_symmetric",
                                             "pytorch_half_pixel", "align_corners",
                                             "asymmetric",         "tf_half_pixel_for_nn"};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                            "ceil"};
    bool old = n->op == OP_Upsample || n->opset < 11;
    const char *mode = node_str(n, "mode", "nearest");
    int filter = old && STREQ(mode, "bilinear") ? LINEAR : word(b, mode, filters, old ? 2 : 3);
    int transform = ASYMMETRIC, nearest = n->op == OP_Upsample ? FLOOR : SIMPLE;

    if (filter >= 0 && !old) {
        transform = word(b, node_str(n, "coordinate_transformation_mode", "half_pixel"), transforms,
                         ARRAY_SIZE(transforms));
        nearest = word(b, node_str(n, "nearest_mode", "round_prefer_floor"), roundings,
                       ARRAY_SIZE(roundings));
    }
    if (filter < 0 || transform < 0 || nearest < 0)
        return -ENOTSUP;
    *ret = (struct resize){.filter = (enum filter)filter,
                           .transform = (enum transform)transform,
                           .nearest = (enum nearest)nearest,
                           .exclude_outside = node_int(n, "exclude_outside", 0) != 0,
                           .antialias = filter != NEAREST && node_int(n, "antialias", 0) != 0,
                           .cubic_a = node_float(n, "cubic_coeff_a", -0.75f)};
    return 0;
}

/* An input that has numbers, and known ones; NULL: there is none. */
static int given(struct build *b, const struct node *n, uint32_t i, enum dtype type,
                 const struct tensor **ret)
{
    const struct tensor *t = in_of(b, n, i);

    *ret = t && count_of(t) > 0 ? t : NULL;
    if (*ret && t->dtype != type)
        return build_no_type(b, t->dtype);
    return *ret && !t->data
               ? build_fail(b, -ENOTSUP, "an argument that is computed while the model runs")
               : 0;
}

/* Scales of Upsample of opsets 1 and 7 are attributes; *ret_n 0: there are none. */
static void scale_attrs(const struct node *n, uint32_t rank, float ret[MAX_RANK], uint32_t *ret_n)
{
    const float *all = n->op == OP_Upsample && n->opset >= 7 && n->opset < 9
                           ? node_floats(n, "scales", ret_n)
                           : NULL;

    *ret_n = all && *ret_n == rank ? rank : 0;
    if (*ret_n)
        memcpy(ret, all, rank * sizeof(*ret));
    if (n->op != OP_Upsample || n->opset >= 7 || rank < 2)
        return;
    for (uint32_t i = 0; i < rank; i++)
        ret[i] = 1;
    ret[rank - 2] = node_float(n, "height_scale", 0);
    ret[rank - 1] = node_float(n, "width_scale", 0);
    *ret_n = rank;
}

/* One scale for all axes where the aspect ratio is kept, else each its own. */
static void from_sizes(const struct node *n, const int64_t *sizes, const uint32_t *axes,
                       uint32_t n_axes, struct axis *a)
{
    const char *policy = node_str(n, "keep_aspect_ratio_policy", "stretch");
    bool larger = STREQ(policy, "not_smaller"), keep = larger || STREQ(policy, "not_larger");
    double all = 0;

    for (uint32_t i = 0; i < n_axes; i++) {
        double s = (double)sizes[i] / (double)a[axes[i]].n_in;
        all = i == 0 ? s : larger ? MAX(all, s) : MIN(all, s);
    }
    for (uint32_t i = 0; i < n_axes; i++) {
        struct axis *x = &a[axes[i]];
        x->scale = keep ? (float)all : (float)x->n_out / (float)x->n_in;
        x->width = keep ? (float)(all * (double)x->n_in) : (float)x->n_out;
    }
}

static int scales_read(struct build *b, const struct node *n, uint32_t rank, struct axis *a)
{
    bool old = n->op == OP_Upsample || n->opset < 11;
    const struct tensor *scales, *sizes = NULL;
    uint32_t axes[MAX_RANK], n_axes, n_attrs;
    const int64_t *named = node_ints(n, "axes", &n_axes);
    float attrs[MAX_RANK];
    int r = given(b, n, old ? 1 : 2, DT_FP32, &scales);

    if (r == 0 && !old)
        r = given(b, n, 3, DT_INT64, &sizes);
    n_axes = named ? n_axes : rank;
    scale_attrs(n, rank, attrs, &n_attrs);
    if (r == 0 && (n_axes > rank || (!n_attrs && (!(sizes ? sizes : scales) ||
                                                  count_of(sizes ? sizes : scales) != n_axes))))
        r = build_fail(b, -EINVAL, "needs one scale or one size for each axis");
    for (uint32_t i = 0; i < n_axes && r == 0; i++)
        r = build_axis(b, named ? named[i] : (int64_t)i, rank, &axes[i]);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < n_axes; i++) {
        struct axis *x = &a[axes[i]];
        x->scale = n_attrs ? attrs[i] : sizes ? 1 : ((const float *)scales->data)[i];
        x->width = x->scale * (float)x->n_in;
    }
    if (sizes)
        from_sizes(n, sizes->data, axes, n_axes, a);
    for (uint32_t i = 0; i < rank; i++)
        if (a[i].n_out > 0 && (!(a[i].scale > 0) || !isfinite(a[i].scale) || a[i].n_in < 1))
            return build_fail(b, -EINVAL, "a scale is not positive, or an axis has no elements");
    return 0;
}

/* ---- steps */
/* x (outer, n_in, inner) becomes *ret (outer, n_out, inner), the node's result if it is the last.
 */
static int axis_step(struct build *b, const struct node *n, const struct axis *a, bool weighs,
                     int64_t outer, int64_t inner, bool last, struct ref *at)
{
    int32_t size = (int32_t)dtype_size(in_of(b, n, 0)->dtype);
    size_t entries = (size_t)(a->taps * a->n_out);
    struct taps_args args = {.n = outer * a->n_out * inner,
                             .n_in = a->n_in,
                             .n_out = a->n_out,
                             .inner = inner,
                             .taps = a->taps,
                             .size = size};
    struct ref index, weight = {0}, y = {0};
    int r = build_const(b, a->index, entries * sizeof(*a->index), &index);

    if (r == 0 && weighs)
        r = build_const(b, a->weight, entries * sizeof(*a->weight), &weight);
    if (r == 0)
        r = last ? build_out(b, n->out[0], &y) : build_buf(b, (size_t)(args.n * size), &y);
    if (r == 0)
        r = STEP(b, taps, args, HOLE(taps, x, *at), HOLE(taps, index, index),
                 HOLE(taps, weight, weight), HOLE(taps, y, y));
    *at = y;
    return r;
}

static bool stays(const struct axis *a)
{
    return a->scale == 1 && a->n_in == a->n_out;
}

int lower_resize(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    struct axis a[MAX_RANK] = {{0}};
    uint32_t last; /* axis that changes; the very last where none does */
    struct resize how;
    struct ref at;
    int64_t outer = 1;
    int r = attrs_read(b, n, &how);

    if (r < 0)
        return r;
    if (how.filter == NEAREST ? !dtype_size(x->dtype) : !is_f32(x))
        return build_no_type(b, x->dtype);
    if (x->rank == 0 || y->rank != x->rank)
        return build_fail(b, -EINVAL, "input and output do not go together");
    for (uint32_t i = 0; i < x->rank; i++)
        a[i] = (struct axis){
            .n_in = x->dims[i], .n_out = y->dims[i], .scale = 1, .width = (float)x->dims[i]};
    r = scales_read(b, n, x->rank, a);
    for (last = x->rank - 1; last > 0 && stays(&a[last]);)
        last--;
    if (r == 0)
        r = build_in(b, n->in[0], &at);
    for (uint32_t i = 0; i < x->rank && r == 0; outer *= a[i++].n_out) {
        if (stays(&a[i]) && i != last)
            continue;
        if (stays(&a[i])) /* whatever the coordinates: each where it is */
            how = (struct resize){.transform = ASYMMETRIC, .nearest = FLOOR, .filter = how.filter};
        r = axis_fill(b, &how, &a[i]);
        if (r == 0)
            r = axis_step(b, n, &a[i], how.filter != NEAREST, outer, span(x, i + 1, x->rank),
                          i == last, &at);
    }
    return r;
}
