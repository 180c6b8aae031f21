/* Resize and Upsample: each axis for itself.
 *
 * For every position of an axis of the result a table says which input positions it is made of,
 * with which weights; positions beyond the input repeat its edge.  Coordinates are computed in
 * single precision, as the scales are given: a third as float times three is one only there. */
#include "kit.h"
#include <math.h>
#include <stdio.h>

#define MAX_TAPS (1 << 20)
#define MAX_TABLE (INT64_C(1) << 27) /* entries of one axis */

enum transform {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_CROP_AND_RESIZE,
    TF_HALF_PIXEL_FOR_NN /* opsets 11 and 12 */
};
enum nearest { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, FLOOR, CEIL, SIMPLE };
enum filter { NEAREST, LINEAR, CUBIC };

struct resize {
    enum filter filter;
    enum transform transform;
    enum nearest nearest;
    bool exclude_outside, antialias;
    double cubic_a, extrapolation;
};

struct axis {
    int64_t n_in, n_out;
    float scale, width;       /* width: n_in * scale, which need not be whole */
    float roi_begin, roi_end; /* of TF_CROP_AND_RESIZE */
    int64_t taps;
    int64_t *at;    /* [n_out][taps] */
    double *weight; /* [n_out][taps] */
    bool *outside;  /* [n_out]: the extrapolation value */
};

static void axis_done(struct axis *a)
{
    ref_drop(a->at);
    ref_drop(a->weight);
    ref_drop(a->outside);
}

/* ---- coordinates and weights */

static float coordinate(const struct resize *r, const struct axis *a, int64_t at)
{
    float x = (float)at, n = (float)a->n_in, half = (x + 0.5f) / a->scale - 0.5f;

    switch (r->transform) {
    case HALF_PIXEL:
        return half;
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
    case TF_CROP_AND_RESIZE:
        if (a->n_out <= 1)
            return 0.5f * (a->roi_begin + a->roi_end) * (n - 1);
        return a->roi_begin * (n - 1) + x * (a->roi_end - a->roi_begin) * (n - 1) / (a->width - 1);
    }
    return 0;
}

static double filter_at(const struct resize *r, double x)
{
    double d = fabs(x), a = r->cubic_a;

    if (r->filter == LINEAR)
        return d < 1 ? 1 - d : 0;
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

static double nearest_of(const struct resize *r, const struct axis *a, double x)
{
    switch (r->nearest) {
    case ROUND_PREFER_FLOOR:
        return ceil(x - 0.5);
    case ROUND_PREFER_CEIL:
        return floor(x + 0.5);
    case FLOOR:
        return floor(x);
    case CEIL:
        return ceil(x);
    case SIMPLE: /* opset 10 */
        return a->scale < 1 ? ceil(x) : floor(x);
    }
    return x;
}

static int64_t clamped(double x, int64_t n)
{
    return x < 0 ? 0 : x > (double)(n - 1) ? n - 1 : (int64_t)x;
}

/* The taps of result position `at` around coordinate x. */
static void tap_weights(const struct resize *r, struct axis *a, int64_t at, double x,
                        double stretch)
{
    int64_t *index = a->at + at * a->taps;
    double *w = a->weight + at * a->taps, base = ceil(x) - 1, sum = 0;
    int64_t first = 1 - a->taps / 2; /* relative to base, which lies in [x - 1, x) */

    for (int64_t i = 0; i < a->taps; i++) {
        double tap = base + (double)(first + i);
        bool beyond = tap < 0 || tap > (double)(a->n_in - 1);
        w[i] = r->exclude_outside && beyond ? 0 : filter_at(r, stretch * (tap - x));
        index[i] = clamped(tap, a->n_in);
        sum += w[i];
    }
    if (r->exclude_outside || r->antialias)
        for (int64_t i = 0; i < a->taps && sum != 0; i++)
            w[i] /= sum;
}

static int axis_alloc(struct axis *a)
{
    if (a->taps > MAX_TAPS || (a->n_out > 0 && a->taps > MAX_TABLE / a->n_out))
        return -EINVAL;
    size_t n = (size_t)(a->taps * a->n_out) + 1;
    a->at = ref_scratch(n, sizeof(*a->at));
    a->weight = ref_scratch(n, sizeof(*a->weight));
    a->outside = ref_scratch((size_t)a->n_out + 1, sizeof(*a->outside));
    return a->at && a->weight && a->outside ? 0 : -ENOMEM;
}

/* Downwards the antialiasing filter covers 1/scale times as many inputs. */
static int axis_fill(const struct resize *r, struct axis *a)
{
    double stretch = r->antialias ? MIN((double)a->scale, 1.0) : 1;
    double reach = r->filter == CUBIC ? 2 : 1;

    a->taps = r->filter == NEAREST ? 1 : (int64_t)MIN(2 * ceil(reach / stretch), 2.0 * MAX_TAPS);
    int rc = axis_alloc(a);
    for (int64_t i = 0; i < a->n_out && rc == 0; i++) {
        double x = (double)coordinate(r, a, i);
        if (!(fabs(x) <= 0x1p52)) /* also NaN: of a region that is none */
            return -EINVAL;
        a->outside[i] = r->transform == TF_CROP_AND_RESIZE && (x < 0 || x > (double)(a->n_in - 1));
        if (r->filter == NEAREST) {
            a->at[i] = clamped(nearest_of(r, a, x), a->n_in);
            a->weight[i] = 1;
        } else {
            tap_weights(r, a, i, x, stretch);
        }
    }
    return rc;
}

/* ---- arguments */

static int find_word(const struct node *n, const char *attr, const char *absent,
                     const char *const *words, size_t n_words, struct err *err)
{
    const char *s = node_str(n, attr, absent);

    for (size_t i = 0; i < n_words; i++)
        if (STREQ(s, words[i]))
            return (int)i;
    return err_set(err, -EINVAL, "node '%s' (%s): %s '%.32s'", n->name, op_name(n->op), attr, s);
}

static int resize_attrs(const struct node *n, struct resize *r, struct err *err)
{
    static const char *const filters[] = {"nearest", "linear", "cubic"};
    static const char *const transforms[] = {
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",  "align_corners",
        "asymmetric", "tf_crop_and_resize",   "tf_half_pixel_for_nn"};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                            "ceil"};
    bool old = n->op == OP_Upsample || n->opset < 11;
    int filter = 1, transform = ASYMMETRIC, nearest = n->op == OP_Upsample ? FLOOR : SIMPLE;

    if (!old || !STREQ(node_str(n, "mode", "nearest"), "bilinear")) /* Upsample of opset 1 */
        filter = find_word(n, "mode", "nearest", filters, old ? 2 : 3, err);
    if (filter >= 0 && !old) {
        transform = find_word(n, "coordinate_transformation_mode", "half_pixel", transforms,
                              ARRAY_SIZE(transforms), err);
        nearest = find_word(n, "nearest_mode", "round_prefer_floor", roundings,
                            ARRAY_SIZE(roundings), err);
    }
    if (filter < 0 || transform < 0 || nearest < 0)
        return -EINVAL;
    *r = (struct resize){.filter = (enum filter)filter,
                         .transform = (enum transform)transform,
                         .nearest = (enum nearest)nearest,
                         .exclude_outside = node_int(n, "exclude_outside", 0) != 0,
                         .antialias = filter != NEAREST && node_int(n, "antialias", 0) != 0,
                         .cubic_a = (double)node_float(n, "cubic_coeff_a", -0.75f),
                         .extrapolation = (double)node_float(n, "extrapolation_value", 0)};
    return 0;
}

/* Scales, sizes and regions are given for these axes only. */
static int resize_axes(const struct node *n, uint32_t rank, uint32_t ret[MAX_RANK], uint32_t *ret_n,
                       struct err *err)
{
    uint32_t n_axes;
    const int64_t *axes = node_ints(n, "axes", &n_axes);
    int rc = 0;

    *ret_n = axes ? n_axes : rank;
    if (*ret_n > rank)
        return ref_fail(n, err, -EINVAL, "more axes than dimensions");
    for (uint32_t i = 0; i < *ret_n && rc == 0; i++)
        rc = ref_axis(n, axes ? axes[i] : i, rank, &ret[i], err);
    return rc;
}

/* The numbers of Upsample of opsets 1 and 7 are attributes; NULL: there are none. */
static int scale_attrs(const struct node *n, uint32_t rank, float ret[MAX_RANK])
{
    const struct attr *a = node_attr(n, "scales");

    if (n->op != OP_Upsample || n->opset >= 9)
        return 0;
    if (n->opset < 7) {
        if (rank < 2)
            return -EINVAL;
        for (uint32_t i = 0; i < rank; i++)
            ret[i] = 1;
        ret[rank - 2] = node_float(n, "height_scale", 0);
        ret[rank - 1] = node_float(n, "width_scale", 0);
        return 1;
    }
    if (!a || a->type != ATTR_FLOATS || a->n != rank)
        return -EINVAL;
    memcpy(ret, a->floats, rank * sizeof(*ret));
    return 1;
}

static bool list_of(const struct tensor *t, uint32_t n)
{
    return t && t->rank == 1 && t->dims[0] == n;
}

static const struct tensor *given(const struct tensor *t)
{
    return t && ref_count(t) > 0 ? t : NULL; /* an empty list is as good as none */
}

/* With sizes: one scale for all axes where the aspect ratio is kept, else each its own. */
static void scales_from_sizes(const struct node *n, const struct tensor *sizes,
                              const uint32_t *axes, uint32_t n_axes, struct axis *a)
{
    const char *policy = node_str(n, "keep_aspect_ratio_policy", "stretch");
    bool larger = STREQ(policy, "not_smaller"), keep = larger || STREQ(policy, "not_larger");
    double all = 0;

    for (uint32_t i = 0; i < n_axes; i++) {
        double s = (double)num_get(sizes, i).i / (double)a[axes[i]].n_in;
        all = i == 0 ? s : larger ? MAX(all, s) : MIN(all, s);
    }
    for (uint32_t i = 0; i < n_axes; i++) {
        struct axis *x = &a[axes[i]];
        x->scale = keep ? (float)all : (float)x->n_out / (float)x->n_in;
        x->width = keep ? (float)(all * (double)x->n_in) : (float)x->n_out;
    }
}

static int scales_read(const struct node *n, const struct tensor *const *in, uint32_t rank,
                       struct axis *a, struct err *err)
{
    bool old = n->op == OP_Upsample || n->opset < 11;
    const struct tensor *scales = given(ref_in(n, in, old ? 1 : 2));
    const struct tensor *sizes = old ? NULL : given(ref_in(n, in, 3));
    const struct tensor *roi = old ? NULL : given(ref_in(n, in, 1));
    uint32_t axes[MAX_RANK], n_axes;
    float attrs[MAX_RANK];
    int rc = resize_axes(n, rank, axes, &n_axes, err), from_attr = scale_attrs(n, rank, attrs);

    if (rc < 0)
        return rc;
    if (from_attr < 0 || (from_attr == 0 && !list_of(sizes ? sizes : scales, n_axes)) ||
        (scales && ref_kind(scales->dtype) != KIND_FLOAT) ||
        (sizes && ref_kind(sizes->dtype) != KIND_INT))
        return ref_fail(n, err, -EINVAL, "needs one scale or one size for each axis");
    if (roi && (!list_of(roi, 2 * n_axes) || ref_kind(roi->dtype) != KIND_FLOAT))
        return ref_fail(n, err, -EINVAL, "roi needs two numbers for each axis");
    for (uint32_t i = 0; i < n_axes; i++) {
        struct axis *x = &a[axes[i]];
        x->scale = from_attr ? attrs[i] : sizes ? 1 : (float)num_get(scales, i).f;
        x->width = x->scale * (float)x->n_in;
        x->roi_begin = roi ? (float)num_get(roi, i).f : 0;
        x->roi_end = roi ? (float)num_get(roi, n_axes + i).f : 1;
    }
    if (sizes)
        scales_from_sizes(n, sizes, axes, n_axes, a);
    for (uint32_t i = 0; i < rank; i++)
        if (a[i].n_out > 0 && (!(a[i].scale > 0) || !isfinite(a[i].scale) || a[i].n_in < 1))
            return ref_fail(n, err, -EINVAL, "a scale is not positive, or an axis has no elements");
    return 0;
}

/* ---- the work */

static bool identity(const struct axis *a)
{
    return a->scale == 1 && a->n_in == a->n_out && a->roi_begin == 0 && a->roi_end == 1;
}

/* x is [outer, n_in, inner]; the result, on the heap, [outer, n_out, inner]. */
static double *axis_apply(const struct axis *a, const double *x, int64_t outer, int64_t inner,
                          double beyond)
{
    double *y = ref_scratch((size_t)(outer * a->n_out * inner) + 1, sizeof(*y));

    for (int64_t o = 0; y && o < outer; o++)
        for (int64_t p = 0; p < a->n_out; p++)
            for (int64_t i = 0; i < inner; i++) {
                double sum = 0;
                for (int64_t t = 0; t < a->taps; t++)
                    sum += a->weight[p * a->taps + t] *
                           x[(o * a->n_in + a->at[p * a->taps + t]) * inner + i];
                y[(o * a->n_out + p) * inner + i] = a->outside[p] ? beyond : sum;
            }
    return y;
}

/* Cubic weights overshoot: integers stop at the ends of their type. */
static union num rounded(double v, enum dtype t)
{
    static const struct {
        enum dtype t;
        double lo, hi;
    } ends[] = {{DT_INT8, INT8_MIN, INT8_MAX},
                {DT_UINT8, 0, UINT8_MAX},
                {DT_INT16, INT16_MIN, INT16_MAX},
                {DT_UINT16, 0, UINT16_MAX},
                {DT_INT32, INT32_MIN, INT32_MAX},
                {DT_UINT32, 0, UINT32_MAX},
                {DT_UINT64, 0, 0x1p64}};

    for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
        if (ends[i].t == t)
            v = v < ends[i].lo ? ends[i].lo : v > ends[i].hi ? ends[i].hi : v;
    return num_cast((union num){.f = v}, KIND_FLOAT, ref_kind(t));
}

static int interpolate(const struct resize *r, struct axis *a, const struct tensor *x,
                       const struct tensor *y)
{
    double *v = ref_doubles(x);
    int64_t outer = 1;

    for (uint32_t i = 0; i < x->rank && v; outer *= a[i++].n_out) {
        int64_t inner = ref_span(x, i + 1, x->rank);
        if (identity(&a[i]))
            continue;
        double *next = axis_apply(&a[i], v, outer, inner, r->extrapolation);
        ref_drop(v);
        v = next;
    }
    if (!v)
        return -ENOMEM;
    for (int64_t i = 0; i < ref_count(y); i++)
        num_put(y, i, rounded(v[i], y->dtype));
    ref_drop(v);
    return 0;
}

/* Elements are copied as they are, so that any type keeps all its digits. */
static void pick(const struct resize *r, const struct axis *a, const struct tensor *x,
                 const struct tensor *y)
{
    size_t each = dtype_size(x->dtype);
    int64_t stride[MAX_RANK];
    struct walk w;

    dense_strides(x, stride);
    walk_init(&w, y);
    for (int64_t e = 0; e < w.n; e++, walk_next(&w)) {
        int64_t from = 0;
        bool outside = false;
        for (uint32_t i = 0; i < y->rank; i++) {
            from += stride[i] * (identity(&a[i]) ? w.at[i] : a[i].at[w.at[i]]);
            outside |= !identity(&a[i]) && a[i].outside[w.at[i]];
        }
        if (outside)
            num_put(y, e, rounded(r->extrapolation, y->dtype));
        else
            ref_copy((char *)y->data + (size_t)e * each, (char *)x->data + (size_t)from * each,
                     each);
    }
}

static int resize_run(const struct node *n, const struct tensor *const *in, const struct tensor *y,
                      const struct resize *r, struct axis *a, struct err *err)
{
    const struct tensor *x = in[0];
    int rc = scales_read(n, in, x->rank, a, err);

    if (rc < 0 || ref_count(y) == 0)
        return rc;
    for (uint32_t i = 0; i < x->rank && rc == 0; i++)
        if (!identity(&a[i]) && (rc = axis_fill(r, &a[i])) < 0)
            return ref_fail(n, err, rc,
                            rc == -ENOMEM ? "out of memory"
                                          : "a region or scale that reaches too far");
    if (r->filter == NEAREST)
        pick(r, a, x, y);
    else
        rc = interpolate(r, a, x, y);
    return rc < 0 ? ref_fail(n, err, rc, "out of memory") : 0;
}

REF_FN(ref_resize)
{
    const struct tensor *x = in[0], *y = out[0];
    struct axis a[MAX_RANK] = {0};
    struct resize r;
    int rc = resize_attrs(n, &r, err);

    if (rc < 0)
        return rc;
    if (y->rank != x->rank || y->dtype != x->dtype)
        return ref_fail(n, err, -EINVAL, "input and output do not go together");
    if (ref_kind(x->dtype) == KIND_BOOL && r.filter != NEAREST)
        return ref_no_type(n, x->dtype, err);
    for (uint32_t i = 0; i < x->rank; i++)
        a[i] = (struct axis){.n_in = x->dims[i],
                             .n_out = y->dims[i],
                             .scale = 1,
                             .width = (float)x->dims[i],
                             .roi_end = 1};
    rc = resize_run(n, in, y, &r, a, err);
    for (uint32_t i = 0; i < x->rank; i++)
        axis_done(&a[i]);
    return rc;
}
