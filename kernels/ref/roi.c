/* Pooling over regions of an image: MaxRoiPool and RoiAlign. */
#include "kit.h"
#include <math.h>

#define MAX_REACH 4 /* a region may be so many times as large as the image */
#define MAX_SAMPLES 1024

static int bad_region(const struct node *n, int64_t i, struct err *err)
{
    return err_set(err, -EINVAL, "node '%s' (%s): region %lld is none of the image", n->name,
                   op_name(n->op), (long long)i);
}

/* Is v a coordinate that can be computed with? */
static bool near(double v, int64_t n)
{
    return fabs(v) <= (double)MAX_REACH * (double)(n + 1);
}

/* ---- MaxRoiPool: regions are whole elements, ends included; rois [n, 5]: image, x1, y1, x2, y2 */

struct span {
    int64_t from, size; /* in elements of the input */
};

static bool roi_span(double begin, double end, double scale, int64_t n, struct span *ret)
{
    double a = round(begin * scale), b = round(end * scale);

    if (!near(a, n) || !near(b, n))
        return false;
    *ret = (struct span){(int64_t)a, MAX((int64_t)b - (int64_t)a + 1, 1)};
    return true;
}

/* Bin `at` of `n_bins`, within n elements. */
static void bin_of(const struct span *s, int64_t at, int64_t n_bins, int64_t n, int64_t *from,
                   int64_t *to)
{
    float size = (float)s->size / (float)n_bins;
    int64_t a = s->from + (int64_t)floorf((float)at * size);
    int64_t b = s->from + (int64_t)ceilf((float)(at + 1) * size);

    *from = MIN(MAX(a, 0), n);
    *to = MIN(MAX(b, 0), n);
}

static double max_of_bin(const struct tensor *x, int64_t plane, const struct span *h,
                         const struct span *w, const int64_t bin[2], const int64_t bins[2])
{
    int64_t height = x->dims[2], width = x->dims[3], y0, y1, x0, x1;
    double best = 0; /* of an empty bin */

    bin_of(h, bin[0], bins[0], height, &y0, &y1);
    bin_of(w, bin[1], bins[1], width, &x0, &x1);
    for (int64_t i = y0; i < y1; i++)
        for (int64_t j = x0; j < x1; j++) {
            double v = num_get(x, (plane * height + i) * width + j).f;
            best = (i == y0 && j == x0) || v > best ? v : best;
        }
    return best;
}

REF_FN(ref_max_roi_pool)
{
    const struct tensor *x = in[0], *rois = in[1], *y = out[0];
    const struct tensor *const all[] = {x, rois, y};
    double scale = (double)node_float(n, "spatial_scale", 1);
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 5 || y->rank != 4 ||
        y->dims[0] != rois->dims[0] || y->dims[1] != x->dims[1])
        return ref_fail(n, err, -EINVAL, "input, regions and output do not go together");
    int64_t bins[2] = {y->dims[2], y->dims[3]}, each = bins[0] * bins[1];
    for (int64_t i = 0; i < y->dims[0]; i++) {
        double image = num_get(rois, i * 5).f;
        struct span h, w;
        if (!(image >= 0 && image < (double)x->dims[0]) ||
            !roi_span(num_get(rois, i * 5 + 1).f, num_get(rois, i * 5 + 3).f, scale, x->dims[3],
                      &w) ||
            !roi_span(num_get(rois, i * 5 + 2).f, num_get(rois, i * 5 + 4).f, scale, x->dims[2],
                      &h))
            return bad_region(n, i, err);
        for (int64_t k = 0; k < y->dims[1] * each; k++) {
            int64_t bin[2] = {k % each / bins[1], k % bins[1]};
            int64_t plane = (int64_t)image * x->dims[1] + k / each;
            num_put(y, i * y->dims[1] * each + k,
                    (union num){.f = max_of_bin(x, plane, &h, &w, bin, bins)});
        }
    }
    return 0;
}

/* ---- RoiAlign: each bin is sampled at a grid of points between the elements */

struct line {
    double from, bin; /* of a region, along one axis, in elements of the input */
    int64_t samples;  /* in each bin */
};

struct align {
    bool max, half_pixel;
    double scale;
    int64_t sampling_ratio;
};

static bool line_init(const struct align *a, double begin, double end, int64_t n, int64_t bins,
                      struct line *ret)
{
    double offset = a->half_pixel ? 0.5 : 0, from = begin * a->scale - offset;
    double size = end * a->scale - offset - from;

    if (!near(from, n) || !near(size, n))
        return false;
    if (!a->half_pixel)
        size = MAX(size, 1); /* at least one element, in the old form */
    ret->from = from;
    ret->bin = size / (double)bins;
    ret->samples = a->sampling_ratio ? a->sampling_ratio : (int64_t)MAX(ceil(ret->bin), 0);
    return true;
}

/* Two neighbours of a coordinate and their weights; false: too far out, it counts as zero. */
struct pair {
    int64_t at[2];
    double weight[2];
};

static bool pair_of(const struct line *l, int64_t bin, int64_t sample, int64_t n, struct pair *p)
{
    double x =
        l->from + (double)bin * l->bin + ((double)sample + 0.5) * l->bin / (double)l->samples;

    if (x < -1 || x > (double)n || n == 0)
        return false;
    x = MIN(MAX(x, 0), (double)(n - 1));
    p->at[0] = (int64_t)x;
    p->at[1] = MIN(p->at[0] + 1, n - 1);
    p->weight[1] = x - (double)p->at[0];
    p->weight[0] = 1 - p->weight[1];
    return true;
}

/* One point: its four neighbours summed, or the largest of them. */
static double point_at(const struct align *a, const double *plane, int64_t width,
                       const struct pair *h, const struct pair *w)
{
    double v = 0;

    for (unsigned i = 0; i < 4; i++) {
        double one =
            h->weight[i / 2] * w->weight[i % 2] * plane[h->at[i / 2] * width + w->at[i % 2]];
        v = !a->max ? v + one : i == 0 || one > v ? one : v;
    }
    return v;
}

static double align_bin(const struct align *a, const double *plane, const int64_t dims[2],
                        const struct line l[2], const int64_t bin[2])
{
    int64_t count = MAX(l[0].samples * l[1].samples, 1);
    double acc = 0;
    struct pair h, w;

    for (int64_t i = 0; i < l[0].samples; i++)
        for (int64_t j = 0; j < l[1].samples; j++) {
            bool there =
                pair_of(&l[0], bin[0], i, dims[0], &h) && pair_of(&l[1], bin[1], j, dims[1], &w);
            double v = there ? point_at(a, plane, dims[1], &h, &w) : 0;
            acc = !a->max ? acc + v : (i == 0 && j == 0) || v > acc ? v : acc;
        }
    return a->max ? acc : acc / (double)count;
}

static int align_init(struct align *a, const struct node *n, struct err *err)
{
    const char *mode = node_str(n, "mode", "avg");
    const char *coords =
        node_str(n, "coordinate_transformation_mode",
                 n->opset < 16 ? "output_half_pixel" : "half_pixel"); /* named since 16 */

    *a = (struct align){.max = STREQ(mode, "max"),
                        .half_pixel = STREQ(coords, "half_pixel"),
                        .scale = (double)node_float(n, "spatial_scale", 1),
                        .sampling_ratio = node_int(n, "sampling_ratio", 0)};
    if ((!a->max && !STREQ(mode, "avg")) || (!a->half_pixel && !STREQ(coords, "output_half_pixel")))
        return err_set(err, -EINVAL, "node '%s' (%s): mode '%.32s', coordinates '%.32s'", n->name,
                       op_name(n->op), mode, coords);
    if (a->sampling_ratio < 0 || a->sampling_ratio > MAX_SAMPLES)
        return err_set(err, -EINVAL, "node '%s' (%s): sampling_ratio %lld (0 to %d)", n->name,
                       op_name(n->op), (long long)a->sampling_ratio, MAX_SAMPLES);
    return 0;
}

REF_FN(ref_roi_align)
{
    const struct tensor *x = in[0], *rois = in[1], *image = in[2], *y = out[0];
    const struct tensor *const all[] = {x, rois, y};
    struct line l[2];
    struct align a;
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0 || (r = align_init(&a, n, err)) < 0)
        return r;
    if (x->rank != 4 || y->rank != 4 || rois->rank != 2 || rois->dims[1] != 4 ||
        y->dims[0] != rois->dims[0] || y->dims[1] != x->dims[1] || image->dtype != DT_INT64 ||
        ref_count(image) != y->dims[0])
        return ref_fail(n, err, -EINVAL, "input, regions and output do not go together");
    AUTO(ref_drop) double *v = ref_doubles(x);
    if (!v)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t each = y->dims[2] * y->dims[3], n_x = x->dims[2] * x->dims[3];
    for (int64_t i = 0; i < y->dims[0]; i++) {
        int64_t of = num_get(image, i).i;
        if (of < 0 || of >= x->dims[0] ||
            !line_init(&a, num_get(rois, i * 4 + 1).f, num_get(rois, i * 4 + 3).f, x->dims[2],
                       y->dims[2], &l[0]) ||
            !line_init(&a, num_get(rois, i * 4).f, num_get(rois, i * 4 + 2).f, x->dims[3],
                       y->dims[3], &l[1]))
            return bad_region(n, i, err);
        for (int64_t k = 0; k < y->dims[1] * each; k++) {
            int64_t bin[2] = {k % each / y->dims[3], k % y->dims[3]};
            const double *plane = v + (of * x->dims[1] + k / each) * n_x;
            num_put(y, i * y->dims[1] * each + k,
                    (union num){.f = align_bin(&a, plane, x->dims + 2, l, bin)});
        }
    }
    return 0;
}
