/* Arguments of kernels over lines of elements, and of those on bits (scan.cuh).  A line is `count`
 * elements, `step` apart; line i begins at i / step * step * count + i % step. */
#pragma once

/* Running sums or products, of F32, S32, S64. */
struct cumulate_args {
    const void *x;
    void *y;
    int64_t n, count, step; /* n lines */
    int32_t exclusive, reverse, product, type;
};

/* 1 for the first of the largest, else 0. */
struct hardmax_args {
    const float *x;
    float *y;
    int64_t n, count, step;
};

/* x over the sum of magnitudes (p = 1) or its length (p = 2); a line of zeros stays. */
struct lp_norm_args {
    const float *x;
    float *y;
    int64_t n, count, step;
    int32_t p;
};

/* x / (bias + alpha / size * sum of squares of `size` channels around) ^ beta; n elements. */
struct lrn_args {
    const float *x;
    float *y;
    int64_t n, each, channels, size;
    float alpha, beta, bias;
};

/* (x - mean) / (deviation + 1e-9) of each of n groups: outer is where they begin, inner what is in one. */
struct mvn_args {
    const float *x;
    float *y;
    int64_t n, n_inner;
    struct gpu_walk outer, inner;
};

/* y (BOOL): is x one of what is asked for. */
struct classify_args {
    const float *x;
    uint8_t *y;
    int64_t n;
    int32_t nan, above, below; /* NaN, infinity, -infinity */
};

/* On integers of `size` bytes without a sign; not: of a alone. */
enum gpu_bits { GPU_BITS_and, GPU_BITS_or, GPU_BITS_xor, GPU_BITS_not, GPU_BITS_left, GPU_BITS_right };
struct bits_args {
    const void *a, *b;
    void *y;
    int64_t n;
    int32_t op, size;
    struct gpu_walk walk;
};
