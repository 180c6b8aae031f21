/* Arguments of the depthwise convolution (depthwise.cuh). */
#pragma once

#define DEPTHWISE_STRIP 4 /* results of a thread, beside each other */

/* x (batch, in_h, in_w, channels), w (kernel_h, kernel_w, channels), y (batch, out_h, out_w,
 * channels) in `type`: F16 or BF16; bias (channels) F32 or NULL.  A thread has `vector` channels,
 * which divides them, of a strip of results; n: threads.  act: a gpu_unary, of those that
 * activate() knows, or -1.
 * depthwise3, depthwise5: as wide as that, stride_w 1 or 2, dilation_w 1, vector 8. */
struct depthwise_args {
    const void *x, *w;
    const float *bias;
    void *y;
    int64_t n; /* less than 2^31 */
    int32_t channels, in_h, in_w, out_h, out_w, kernel_h, kernel_w;
    int32_t stride_h, stride_w, dilation_h, dilation_w, pad_h, pad_w;
    int32_t vector, type, act;
    float alpha, beta;
};
#define depthwise3_args depthwise_args
#define depthwise5_args depthwise_args
