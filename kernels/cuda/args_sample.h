/* Arguments of kernels that read between elements (sample.cuh), and of the convolution backwards. */
#pragma once

/* y[o, p, i] = sum over t of weight[p, t] * x[o, index[p, t], i], x (outer, n_in, inner), y (outer, n_out,
 * inner); where index[p, 0] is -1: `beyond`.  Without weights an element of `size` bytes is copied. */
struct taps_args {
    const void *x;
    const int64_t *index;
    const float *weight;
    void *y;
    int64_t n, n_in, n_out, inner, taps;
    uint64_t beyond;
    int32_t size;
};

/* y (N, C, out): x (N, C, in) at grid (N, out, d), whose last number is the first dimension's.  Two or
 * three dimensions; missing ones come first and are 1. */
enum gpu_sample { GPU_SAMPLE_nearest, GPU_SAMPLE_linear, GPU_SAMPLE_cubic };
enum gpu_around { GPU_AROUND_zeros, GPU_AROUND_border, GPU_AROUND_reflection };
struct grid_sample_args {
    const float *x, *grid;
    float *y;
    int64_t n, channels, places, in[3]; /* places: of out */
    int32_t d, mode, around, corners;
};

/* y (regions, C, out) of x (images, C, in); regions (n, 4): x1, y1, x2, y2; of (n) S64: which image. */
struct roi_align_args {
    const float *x, *regions;
    const int64_t *of;
    float *y;
    int32_t *bad;
    int64_t n, images, channels, in[2], out[2], ratio;
    float scale;
    int32_t largest, half_pixel;
};

/* x (N, C, window.out), w (C, K / groups, kernel), bias (K) or NULL, y (N, K, window.in): each number of
 * the result takes what the window brings to it.  filters: K. */
struct deconv_args {
    const float *x, *w, *bias;
    float *y;
    int64_t n, channels, filters, groups;
    struct gpu_window window;
};
