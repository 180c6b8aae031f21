/* Arguments of kernels on quantised numbers (bytes.cuh).  Sums are exact integers; what is scaled is
 * scaled in F32 and rounded to the nearest, ties to even.  A zero point that is NULL is 0. */
#pragma once

/* Which scale belongs to element i: one for all; each position of an axis; each block of them. */
struct gpu_scales {
    int64_t axis, inner, block, blocks; /* block 0: none */
    int32_t one;
};

/* x is F32 or S32, y one of U8, S8, U16, S16; or (back) the other way round, from S32 too. */
struct quantize_args {
    const void *x;
    const float *scale;
    const void *zero;
    void *y;
    int64_t n;
    int32_t x_type, y_type, back;
    struct gpu_scales scales;
};

/* The least and the largest of x and 0: of part i of n in ends[i] and ends[n + i]; of these, the scale and
 * zero point of U8 where scale is given. */
struct range_args {
    const float *x;
    float *ends, *scale;
    uint8_t *zero;
    int64_t n, count;
};

/* A sum of products, of which n belong to the result; NULL scales: S32 results.  U8 and S8 in. */
struct gpu_byte_sum {
    const void *a, *b, *a_zero, *b_zero, *y_zero;
    const float *a_scale, *b_scale, *y_scale;
    const int32_t *bias;
    void *y;
    int32_t a_type, b_type, y_type;
};

/* As conv_args; b are the filters; b_zero and b_scale: one, or one for each filter. */
struct conv_bytes_args {
    struct gpu_byte_sum of;
    int64_t n, channels, filters, groups, n_b_zero, n_b_scale;
    struct gpu_window window;
};

/* y[z, r, c]; the walk counts matrices.  Of what has a line (rows of a and y, columns of b) there is
 * one number, one for each line, or one for each line of each matrix: so many are there. */
struct product_bytes_args {
    struct gpu_byte_sum of;
    int64_t n, rows, cols, inner;
    int64_t n_a_zero, n_b_zero, n_a_scale, n_b_scale, n_y_zero, n_y_scale;
    struct gpu_walk walk;
};

/* y = a + b, each with one scale and zero point. */
struct add_bytes_args {
    struct gpu_byte_sum of;
    int64_t n;
    struct gpu_walk walk;
};
