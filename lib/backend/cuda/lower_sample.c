/* GridSample, RoiAlign, ConvTranspose. */
#include "exe.h"

#define SAMPLES_MAX 1024

int lower_grid_sample(struct build *b, const struct node *n)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", "", "bilinear", "bicubic"};
    static const char *const arounds[] = {"zeros", "border", "reflection"};
    const struct tensor *x = in_of(b, n, 0), *grid = in_of(b, n, 1), *y = value_of(b, n->out[0]);
    const char *mode = node_str(n, "mode", "linear"),
               *around = node_str(n, "padding_mode", "zeros");
    struct ref in[2], ry;
    size_t m = 0, p = 0;

    if (!is_f32(x) || !is_f32(grid))
        return build_no_type(b, is_f32(x) ? grid->dtype : x->dtype);
    while (m < ARRAY_SIZE(modes) && !STREQ(modes[m], mode))
        m++;
    while (p < ARRAY_SIZE(arounds) && !STREQ(arounds[p], around))
        p++;
    if (m == ARRAY_SIZE(modes) || p == ARRAY_SIZE(arounds))
        return build_fail(b, -EINVAL, "mode or padding_mode is not known");
    if (x->rank != 4 && x->rank != 5)
        return build_fail(b, -ENOTSUP, "an input that has not 4 or 5 dimensions");
    struct grid_sample_args a = {.n = count_of(y),
                                 .channels = x->dims[1],
                                 .places = span(y, 2, y->rank),
                                 .in = {1, 1, 1},
                                 .d = (int32_t)x->rank - 2,
                                 .mode = (int32_t)(m % 3),
                                 .around = (int32_t)p,
                                 .corners = node_int(n, "align_corners", 0) != 0};
    for (uint32_t i = 2; i < x->rank; i++)
        a.in[3 - (x->rank - i)] = x->dims[i];
    if (y->rank != x->rank || grid->rank != x->rank || grid->dims[0] != x->dims[0] ||
        count_of(grid) != y->dims[0] * a.places * a.d)
        return build_fail(b, -EINVAL, "input, grid and output do not go together");
    if (a.n > 0 && span(x, 2, x->rank) == 0)
        return build_fail(b, -EINVAL, "there is nothing to sample");
    int r = build_inputs(b, n, 2, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, grid_sample, a, HOLE(grid_sample, x, in[0]),
                        HOLE(grid_sample, grid, in[1]), HOLE(grid_sample, y, ry));
}

int lower_roi_align(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *regions = in_of(b, n, 1), *of = in_of(b, n, 2),
                        *y = value_of(b, n->out[0]);
    const char *mode = node_str(n, "mode", "avg");
    const char *coords = node_str(n, "coordinate_transformation_mode",
                                  n->opset < 16 ? "output_half_pixel" : "half_pixel");
    struct ref in[3], ry, status = {.kind = REF_BUF, .buf = BUF_STATUS};

    if (!is_f32(x) || !is_f32(regions) || of->dtype != DT_INT64)
        return build_no_type(b, !is_f32(x)         ? x->dtype
                                : !is_f32(regions) ? regions->dtype
                                                   : of->dtype);
    if (x->rank != 4 || y->rank != 4 || regions->rank != 2 || regions->dims[1] != 4 ||
        y->dims[0] != regions->dims[0] || y->dims[1] != x->dims[1] || count_of(of) != y->dims[0])
        return build_fail(b, -EINVAL, "input, regions and output do not go together");
    struct roi_align_args a = {.n = count_of(y),
                               .images = x->dims[0],
                               .channels = x->dims[1],
                               .in = {x->dims[2], x->dims[3]},
                               .out = {y->dims[2], y->dims[3]},
                               .ratio = node_int(n, "sampling_ratio", 0),
                               .scale = node_float(n, "spatial_scale", 1),
                               .largest = STREQ(mode, "max"),
                               .half_pixel = STREQ(coords, "half_pixel")};
    if ((!a.largest && !STREQ(mode, "avg")) ||
        (!a.half_pixel && !STREQ(coords, "output_half_pixel")) || a.ratio < 0 ||
        a.ratio > SAMPLES_MAX)
        return build_fail(b, -EINVAL, "mode, coordinates or sampling_ratio are not known");
    int r = build_inputs(b, n, 3, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, roi_align, a, HOLE(roi_align, x, in[0]), HOLE(roi_align, regions, in[1]),
                        HOLE(roi_align, of, in[2]), HOLE(roi_align, y, ry),
                        HOLE(roi_align, bad, status));
}

/* With output_shape the padding is whatever makes the result that large. */
static int deconv_pads(struct build *b, const struct node *n, uint32_t d, struct gpu_window *w)
{
    bool upper = STREQ(node_str(n, "auto_pad", "NOTSET"), "SAME_UPPER");
    uint32_t n_more;
    const int64_t *more = node_ints(n, "output_padding", &n_more);

    if (!node_attr(n, "output_shape"))
        return 0;
    if (more && n_more != d)
        return build_fail(b, -EINVAL, "output_padding does not fit");
    for (uint32_t i = 0; i < 3; i++) {
        int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
        int64_t total = (w->out[i] - 1) * w->stride[i] + reach - w->in[i];
        total = MAX(total + (more && i + d >= 3 ? more[i + d - 3] : 0), 0);
        w->pad[i] = upper ? total / 2 : total - total / 2;
    }
    return 0;
}

/* The result is what the window slides over. */
int lower_deconv(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *f = in_of(b, n, 1), *y = value_of(b, n->out[0]);
    struct deconv_args a = {
        .n = count_of(y), .channels = x->dims[1], .groups = node_int(n, "group", 1)};
    struct ref in[3], ry;

    for (uint32_t i = 0; i < 3; i++)
        if (!is_f32(in_of(b, n, i)))
            return build_no_type(b, in_of(b, n, i)->dtype);
    if (f->rank != x->rank || f->rank < 3 || a.groups < 1 || a.groups > INT32_MAX ||
        f->dims[0] != a.channels || a.channels % a.groups || y->dims[1] != f->dims[1] * a.groups)
        return build_fail(b, -EINVAL, "channels, weights and groups do not go together");
    a.filters = y->dims[1];
    int r = window_of(b, n, y, x, f->dims + 2, &a.window);
    if (r == 0)
        r = deconv_pads(b, n, x->rank - 2, &a.window);
    if (r == 0)
        r = build_inputs(b, n, 3, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, deconv, a, HOLE(deconv, x, in[0]), HOLE(deconv, w, in[1]),
                        HOLE(deconv, bias, in[2]), HOLE(deconv, y, ry));
}
