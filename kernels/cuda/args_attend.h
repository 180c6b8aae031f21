/* Arguments of attention in one kernel, in 16 bits (attend.cuh). */
#pragma once

#define ATTEND_ROWS 16 /* queries of a warp */
#define ATTEND_KEYS 64 /* of a tile */
#define ATTEND_THREADS 128 /* of a block */
#define ATTEND_EACH (ATTEND_THREADS / 32 * ATTEND_ROWS) /* queries of a block */

/* y = softmax(q * k^T * scale, masked) * v, for each sample and head; type: F16 or BF16 of q, k, v, y
 * and of a mask that is added.  Element (b, h, row, j) of each lies at its strides from element
 * `from_` on, j next to j + 1; width is a multiple of 8, as is all of that.  n: tasks, of ATTEND_EACH queries.
 * mask: NULL, or added, or BOOL: where that is not `shows`, the score is `other`.  causal: the same
 * for keys behind row + keys - rows, without a mask.
 * attend64: width <= 64; attend128: <= 128. */
struct attend_args {
    const void *q, *k, *v, *mask;
    void *y;
    int64_t n, heads, rows, keys, width, from_q, from_k, from_v;
    struct gpu_heads of_q, of_k, of_v, of_y;
    int64_t mask_stride[4];
    float scale, other;
    int32_t type, mask_type, shows, causal;
};
#define attend64_args attend_args
#define attend128_args attend_args
