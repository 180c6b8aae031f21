/* Arguments of what is done row by row, by a warp or a block for each (rows.cuh).
 *
 * A warp has the row in registers: ROW_WARP numbers at most.  A block reads it again for each pass.
 * vector: so many neighbours are read at once: 8 of 16 bits or 4 of F32, where that divides `count`
 * and `of_add`, else 1. */
#pragma once

#define ROW_WARP 1024

/* y = (s - mean) / sqrt(variance + eps) * scale + bias over each of n rows of `count`, where s is x,
 * or x + add; without mean where rms.  scale, bias (count) F32; add, sum, bias, ret_mean, ret_inv may
 * be NULL; sum becomes s.  type: of x, add, y and sum. */
struct norm_rows_args {
    const void *x, *add;
    const float *scale, *bias;
    void *y, *sum;
    float *ret_mean, *ret_inv;
    int64_t n, count;
    float eps;
    int32_t rms, type, vector;
};
#define norm_warp_args norm_rows_args
#define norm_block_args norm_rows_args

/* y = softmax(x * scale + mask), or its logarithm, over each of n rows of `count`.  mask may be NULL;
 * that of row r begins at stride 0 of place r of the walk.  type: of x, mask and y.  A row of
 * nothing but -inf gives NaN, as the reference does. */
struct softmax_rows_args {
    const void *x, *mask;
    void *y;
    int64_t n, count;
    float scale;
    int32_t log_of, type, vector;
    struct gpu_walk of_mask;
};
#define softmax_warp_args softmax_rows_args
#define softmax_block_args softmax_rows_args

/* Means, or maxima, over all places: x (samples, places, channels), y (samples, channels), F16 or
 * BF16.  A warp has 2 * vector channels, which may go beyond the last; n = warps. */
struct pool_all_args {
    const void *x;
    void *y;
    int64_t n, places, channels;
    int32_t mean, type, vector;
};
