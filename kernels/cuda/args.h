/* The kernels' arguments: what the host fills in and the device reads.
 *
 * All pointers are device pointers, all tensors row-major and packed unless strides are given;
 * counts and strides are in elements.  A kernel masks its own tail; its grid follows the
 * partition's SMs and not the work.  What is F16 or BF16 in memory is F32 in all arithmetic.
 * Reference: kernels/ref. */
#pragma once

#include <stdint.h>

#define GPU_RANK 8
#define GPU_THREADS 256 /* of a block */

/* clang-format off */
#define GPU_KERNELS(K) \
    K(unary) K(binary) K(where) K(cast) K(copy) K(fill) K(gather) K(reduce) K(arg_reduce) K(softmax) \
    K(norm) K(batch_norm) K(conv) K(pool) K(product) K(half) \
    K(gather_elements) K(scatter_elements) K(index_nd) K(one_hot) K(trilu) K(eye) \
    K(reverse_sequence) K(tensor_scatter) K(top_k) K(pad) \
    K(cumulate) K(hardmax) K(lp_norm) K(lrn) K(mvn) K(classify) K(bits) \
    K(quantize) K(range) K(conv_bytes) K(product_bytes) K(add_bytes) \
    K(rnn) K(rnn_first) \
    K(taps) K(grid_sample) K(roi_align) K(deconv) \
    K(einsum) K(attention) K(rotary) \
    K(depthwise) K(depthwise3) K(depthwise5) \
    K(norm_warp) K(norm_block) K(softmax_warp) K(softmax_block) K(pool_all) \
    K(attend64) K(attend128) K(pixels)
/* clang-format on */

/* Numbered as enum dtype: tensor.h is not for the device's compiler. */
enum gpu_type {
    GPU_F32 = 1,
    GPU_U8 = 2,
    GPU_S8 = 3,
    GPU_U16 = 4,
    GPU_S16 = 5,
    GPU_S32 = 6,
    GPU_S64 = 7,
    GPU_BOOL = 9,
    GPU_F16 = 10,
    GPU_BF16 = 16,
};

/* How the elements of a dense result map to up to three operands. */
struct gpu_walk {
    int32_t rank;
    int64_t dims[GPU_RANK];
    int64_t stride[3][GPU_RANK];
};

/* clang-format off */
#define GPU_UNARY(U) \
    U(abs) U(neg) U(ceil) U(floor) U(round) U(sqrt) U(exp) U(log) U(sin) U(cos) U(tanh) U(erf) \
    U(sigmoid) U(relu) U(leaky_relu) U(elu) U(hard_sigmoid) U(hard_swish) U(softplus) \
    U(reciprocal) U(sign) U(gelu) U(gelu_tanh) U(silu) U(clip) U(scale) U(not) \
    U(selu) U(celu) U(softsign) U(mish) U(thresholded) U(shrink) U(swish) U(tan) U(sinh) U(cosh) \
    U(asin) U(acos) U(atan) U(asinh) U(acosh) U(atanh)
#define GPU_BINARY(B) \
    B(add) B(sub) B(mul) B(div) B(pow) B(min) B(max) B(prelu) B(mod) B(fmod) \
    B(equal) B(less) B(less_equal) B(greater) B(greater_equal) B(and) B(or) B(xor)
#define GPU_REDUCE(R) \
    R(sum) R(mean) R(max) R(min) R(prod) R(l1) R(l2) R(sum_square) R(log_sum) R(log_sum_exp)
/* clang-format on */
#define NAMED(name) GPU_U_##name,
enum gpu_unary { GPU_UNARY(NAMED) };
#undef NAMED
#define NAMED(name) GPU_B_##name,
enum gpu_binary { GPU_BINARY(NAMED) };
#undef NAMED
#define NAMED(name) GPU_R_##name,
enum gpu_reduce { GPU_REDUCE(NAMED) };
#undef NAMED

/* y = op(x), elementwise; may be the same buffer.  F32, F16, BF16; abs, neg, relu, sign: S32, S64
 * too; not: BOOL. */
struct unary_args {
    const void *x;
    void *y;
    int64_t n;
    int32_t op, type;
    float alpha, beta;
};

/* y = op(a, b), a and b by strides 0 and 1; y may be a or b where that one is not broadcast.  type
 * is the operands': F32, S32, S64, BOOL for and, or, xor, equal; F16, BF16 where y is a number. */
struct binary_args {
    const void *a, *b;
    void *y;
    int64_t n;
    int32_t op, type;
    struct gpu_walk walk;
};

/* y = c ? a : b, by strides 0, 1, 2; elements of `size` bytes. */
struct where_args {
    const void *c, *a, *b;
    void *y;
    int64_t n;
    int32_t size;
    struct gpu_walk walk;
};

/* Between any two of gpu_type.  To an integer: truncates; to BOOL: is it not zero. */
struct cast_args {
    const void *x;
    void *y;
    int64_t n;
    int32_t from, to;
};

/* y[to + stride 1] = x[from + stride 0] for each of n places of the walk; `size` bytes each. */
struct copy_args {
    const void *x;
    void *y;
    int64_t n, from, to;
    int32_t size;
    struct gpu_walk walk;
};

/* n elements of `size` bytes become the lowest bytes of `bits`. */
struct fill_args {
    void *y;
    int64_t n;
    uint64_t bits;
    int32_t size;
};

/* y[o, k, i] = x[o, index[k], i]: n = outer * n_index * inner; inner in bytes is inner * size.  A
 * negative index counts from the end; one out of range reads the first row and sets *bad. */
struct gather_args {
    const void *x, *index;
    void *y;
    int32_t *bad;
    int64_t n, axis, n_index, inner;
    int32_t size, index_type; /* S32, S64 */
};

/* y[i] over n_inner elements each.  outer: n results at stride 0 of x; inner: stride 0, too. */
struct reduce_args {
    const void *x;
    void *y;
    int64_t n, n_inner;
    int32_t op, type; /* F32, F16, BF16; sum, max, min, prod: S32, S64 */
    struct gpu_walk outer, inner;
};

/* y (S64) = which of `count` elements, `step` apart, is the largest or smallest; n results. */
struct arg_reduce_args {
    const void *x;
    void *y;
    int64_t n, count, step;
    int32_t smallest, last; /* of equals: the last */
};

/* Over `count` elements, `step` apart; n such rows.  A row of nothing but -inf gives NaN, as the
 * reference does. */
struct softmax_args {
    const void *x;
    void *y;
    int64_t n, count, step;
    int32_t log_of, type;
};

/* y = (x - mean) / sqrt(variance + eps) * scale + bias over each of n rows of `count`; without
 * mean where rms.  Element e of the whole tensor has scale[e / div % mod]; bias, ret_mean and
 * ret_inv may be NULL.  type: of x and y. */
struct norm_args {
    const void *x;
    const float *scale, *bias;
    void *y;
    float *ret_mean, *ret_inv;
    int64_t n, count, div, mod;
    float eps;
    int32_t rms, type;
};

/* y = (x - mean[c]) / sqrt(variance[c] + eps) * scale[c] + bias[c]; c = i / each % channels.  type:
 * of x and y. */
struct batch_norm_args {
    const void *x;
    const float *scale, *bias, *mean, *variance;
    void *y;
    int64_t n, each, channels;
    float eps;
    int32_t type;
};

/* One to three spatial dimensions; missing ones come first and are 1. */
struct gpu_window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
};

/* x (N, C, in), w (K, C / groups, kernel), bias (K) or NULL, y (N, K, out); n = elements of y. */
struct conv_args {
    const float *x, *w, *bias;
    float *y;
    int64_t n, channels, filters, groups;
    struct gpu_window window;
};

/* x (planes, in, last), y (planes, out, last); a thread has `vector` neighbours, which divides
 * `last` and is 1 of F32; n * vector = elements of y.  Mean: over what lies inside, or also the
 * padding where count_pad. */
struct pool_args {
    const void *x;
    void *y;
    int64_t n, last; /* channels where they lie last, else 1 */
    int32_t mean, count_pad, type, vector;
    struct gpu_window window;
};

/* y[z, r, c] = alpha * sum of a[z, r, k] * b[z, k, c] + beta * bias[r, c]; the walk is over the
 * matrices z, with strides 0 of a and 1 of b.  n = elements of y. */
struct product_args {
    const float *a, *b, *bias;
    float *y;
    int64_t n, rows, cols, inner;
    int64_t a_row, a_inner, b_inner, b_col, bias_row, bias_col;
    float alpha, beta;
    struct gpu_walk walk;
};

/* y[stride 1] = x[stride 0] for each of n places of the walk; F32, F16 or BF16.  What is too large
 * for F16 becomes its largest number. */
struct half_args {
    const void *x;
    void *y;
    int64_t n;
    int32_t from, to;
    struct gpu_walk walk;
};

#include "args_attention.h"
#include "args_attend.h"
#include "args_bytes.h"
#include "args_depthwise.h"
#include "args_index.h"
#include "args_pixels.h"
#include "args_rnn.h"
#include "args_rows.h"
#include "args_sample.h"
#include "args_scan.h"
