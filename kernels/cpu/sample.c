/* Sampling images between their elements: GridSample (bilinear, two dimensions, zeros or border
 * around) and RoiAlign (average), in FP32.  Where a point lies is worked out once for all channels.
 * Other forms are left to the plain loops. */
#include "kit.h"

/* Up to four neighbours of a point: offsets into a plane, and weights (0: outside). */
struct point {
    int64_t at[4];
    float weight[4];
};

/* ---- GridSample */

struct grid_sample {
    int64_t images, channels, in[2], points;
    bool corners, border;
};

static float in_elements(const struct grid_sample *p, float v, int64_t n)
{
    float x = p->corners ? (v + 1) / 2 * (float)(n - 1) : ((v + 1) * (float)n - 1) / 2;
    float last = (float)(n - 1);

    if (p->border)
        return x >= 0 ? MIN(x, last) : 0;
    return x >= -2 ? MIN(x, last + 2) : -2; /* so far out nothing is read */
}

static void point_of(const struct grid_sample *p, const float *grid, struct point *ret)
{
    float x = in_elements(p, grid[0], p->in[1]), y = in_elements(p, grid[1], p->in[0]);
    int64_t left = (int64_t)floorf(x), top = (int64_t)floorf(y);
    float right = x - (float)left, down = y - (float)top;

    for (int i = 0; i < 4; i++) {
        int64_t c = left + i % 2, r = top + i / 2;
        bool inside = c >= 0 && c < p->in[1] && r >= 0 && r < p->in[0];
        ret->at[i] = inside ? r * p->in[1] + c : 0;
        ret->weight[i] = inside ? (i % 2 ? right : 1 - right) * (i / 2 ? down : 1 - down) : 0;
    }
}

static float read_point(const float *plane, const struct point *pt)
{
    return plane[pt->at[0]] * pt->weight[0] + plane[pt->at[1]] * pt->weight[1] +
           plane[pt->at[2]] * pt->weight[2] + plane[pt->at[3]] * pt->weight[3];
}

static int run_grid_sample(const void *params, void *const *ptr)
{
    const struct grid_sample *p = params;
    const float *grid = ptr[1];
    int64_t each = p->in[0] * p->in[1];

    for (int64_t n = 0; n < p->images; n++) {
        const float *x = (const float *)ptr[0] + n * p->channels * each;
        float *y = (float *)ptr[2] + n * p->channels * p->points;
        for (int64_t i = 0; i < p->points; i++, grid += 2) {
            struct point pt;
            point_of(p, grid, &pt);
            for (int64_t c = 0; c < p->channels; c++)
                y[c * p->points + i] = read_point(x + c * each, &pt);
        }
    }
    return 0;
}

int plan_grid_sample(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *grid = a->in[1], *y = a->out[0];
    const char *mode = node_str(a->node, "mode", "linear");
    const char *pad = node_str(a->node, "padding_mode", "zeros");
    struct grid_sample p = {.corners = node_int(a->node, "align_corners", 0) != 0,
                            .border = STREQ(pad, "border")};

    if (x->dtype != DT_FP32 || grid->dtype != DT_FP32 || x->rank != 4 || x->bytes == 0 ||
        (!STREQ(mode, "linear") && !STREQ(mode, "bilinear")) || (!p.border && !STREQ(pad, "zeros")))
        return plan_fail(a, -ENOTSUP, "a form that plain loops do", err);
    p.images = x->dims[0];
    p.channels = x->dims[1];
    p.in[0] = x->dims[2];
    p.in[1] = x->dims[3];
    p.points = span(y, 2, 4);
    return plan_done(a, run_grid_sample, &p, sizeof(p), ret, err);
}

/* ---- RoiAlign */

#define MAX_REACH 4      /* a region may be so many times as large as the image */
#define MAX_SAMPLES 1024 /* as sampling_ratio, along one axis */

struct roi_align {
    int64_t images, channels, in[2], out[2], rois, ratio;
    bool half_pixel;
    float scale;
};

struct line { /* one axis of a region, in elements of the image */
    float from, bin;
    int64_t samples; /* in each bin */
};

static bool line_of(const struct roi_align *p, float begin, float end, uint32_t axis,
                    struct line *ret)
{
    float offset = p->half_pixel ? 0.5f : 0, limit = MAX_REACH * (float)(p->in[axis] + 1);
    float from = begin * p->scale - offset, size = end * p->scale - offset - from;

    if (!(fabsf(from) <= limit) || !(fabsf(size) <= limit))
        return false;
    ret->from = from;
    ret->bin = (p->half_pixel ? size : MAX(size, 1)) / (float)p->out[axis];
    ret->samples = p->ratio ? p->ratio : (int64_t)MAX(ceilf(ret->bin), 0);
    return true;
}

static bool neighbours(const struct line *l, int64_t bin, int64_t sample, int64_t n, int64_t at[2],
                       float weight[2])
{
    float x = l->from + (float)bin * l->bin + ((float)sample + 0.5f) * l->bin / (float)l->samples;

    if (x < -1 || x > (float)n)
        return false;
    x = MIN(MAX(x, 0), (float)(n - 1));
    at[0] = (int64_t)x;
    at[1] = MIN(at[0] + 1, n - 1);
    weight[1] = x - (float)at[0];
    weight[0] = 1 - weight[1];
    return true;
}

/* Adds one bin's samples of all channels to y, whose channels lie `apart`. */
static void align_bin(const struct roi_align *p, const float *x, const struct line l[2],
                      const int64_t bin[2], float *y, int64_t apart)
{
    int64_t each = p->in[0] * p->in[1], row[2], col[2];
    float count = (float)MAX(l[0].samples * l[1].samples, 1), down[2], right[2];

    for (int64_t c = 0; c < p->channels; c++)
        y[c * apart] = 0;
    for (int64_t i = 0; i < l[0].samples; i++) {
        if (!neighbours(&l[0], bin[0], i, p->in[0], row, down))
            continue;
        for (int64_t j = 0; j < l[1].samples; j++) {
            if (!neighbours(&l[1], bin[1], j, p->in[1], col, right))
                continue;
            struct point pt;
            for (int k = 0; k < 4; k++) {
                pt.at[k] = row[k / 2] * p->in[1] + col[k % 2];
                pt.weight[k] = down[k / 2] * right[k % 2];
            }
            for (int64_t c = 0; c < p->channels; c++)
                y[c * apart] += read_point(x + c * each, &pt);
        }
    }
    for (int64_t c = 0; c < p->channels; c++)
        y[c * apart] /= count;
}

static int run_roi_align(const void *params, void *const *ptr)
{
    const struct roi_align *p = params;
    const float *roi = ptr[1];
    const int64_t *image = ptr[2];
    int64_t bins = p->out[0] * p->out[1];
    float *y = ptr[3];

    for (int64_t i = 0; i < p->rois; i++, roi += 4, y += p->channels * bins) {
        struct line l[2];
        if (image[i] < 0 || image[i] >= p->images || !line_of(p, roi[1], roi[3], 0, &l[0]) ||
            !line_of(p, roi[0], roi[2], 1, &l[1]))
            return -EINVAL;
        const float *x = (const float *)ptr[0] + image[i] * p->channels * p->in[0] * p->in[1];
        for (int64_t k = 0; k < bins; k++) {
            int64_t bin[2] = {k / p->out[1], k % p->out[1]};
            align_bin(p, x, l, bin, y + k, bins);
        }
    }
    return 0;
}

int plan_roi_align(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *y = a->out[0];
    const char *coords = node_str(a->node, "coordinate_transformation_mode",
                                  a->node->opset < 16 ? "output_half_pixel" : "half_pixel");
    struct roi_align p = {.images = x->dims[0],
                          .channels = x->dims[1],
                          .in = {x->dims[2], x->dims[3]},
                          .out = {y->dims[2], y->dims[3]},
                          .rois = y->dims[0],
                          .ratio = node_int(a->node, "sampling_ratio", 0),
                          .half_pixel = STREQ(coords, "half_pixel"),
                          .scale = node_float(a->node, "spatial_scale", 1)};

    if (p.ratio < 0 || p.ratio > MAX_SAMPLES)
        return plan_fail(a, -EINVAL, "sampling_ratio is out of range (0 to 1024)", err);
    if (x->dtype != DT_FP32 || x->bytes == 0 || !STREQ(node_str(a->node, "mode", "avg"), "avg") ||
        (!p.half_pixel && !STREQ(coords, "output_half_pixel")))
        return plan_fail(a, -ENOTSUP, "a form that plain loops do", err);
    return plan_done(a, run_roi_align, &p, sizeof(p), ret, err);
}
