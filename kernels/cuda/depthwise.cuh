/* Depthwise convolution with channels last: a thread has N channels and a strip of results beside
 * each other, so that one access reads N channels, and a row of the window is read once for all of
 * the strip where its width is known here. */
#include "vector.cuh"

template <int N> struct strip {
    float of[DEPTHWISE_STRIP][N];
};

template <int N>
DEVICE void add_product(float (&sum)[N], const float (&x)[N], const float (&f)[N])
{
UNROLL
    for (int j = 0; j < N; j++)
        sum[j] += x[j] * f[j];
}

/* One row of x, from column `from` on: K weights, S columns from one result to the next. */
template <typename T, int N, int K, int S>
DEVICE void row_fixed(const depthwise_args &a, const T *x, const T *w, int from, strip<N> &sum)
{
    float f[K][N], v[N];

UNROLL
    for (int s = 0; s < K; s++)
        load(f[s], w + s * a.channels);
UNROLL
    for (int c = 0; c < (DEPTHWISE_STRIP - 1) * S + K; c++) {
        if (from + c < 0 || from + c >= a.in_w)
            continue;
        load(v, x + (int64_t)(from + c) * a.channels);
UNROLL
        for (int o = 0; o < DEPTHWISE_STRIP; o++)
            if (c - o * S >= 0 && c - o * S < K)
                add_product(sum.of[o], v, f[c - o * S]);
    }
}

template <typename T, int N>
DEVICE void row_any(const depthwise_args &a, const T *x, const T *w, int from, strip<N> &sum)
{
    float f[N], v[N];

    for (int s = 0; s < a.kernel_w; s++) {
        load(f, w + s * a.channels);
UNROLL
        for (int o = 0; o < DEPTHWISE_STRIP; o++) {
            int c = from + o * a.stride_w + s * a.dilation_w;
            if (c < 0 || c >= a.in_w)
                continue;
            load(v, x + (int64_t)c * a.channels);
            add_product(sum.of[o], v, f);
        }
    }
}

template <typename T, int N, int K, int S> DEVICE void depthwise_strip(const depthwise_args &a, uint32_t i)
{
    uint32_t groups = a.channels / N, strips = (a.out_w + DEPTHWISE_STRIP - 1) / DEPTHWISE_STRIP;
    uint32_t channel = i % groups * N, rest = i / groups;
    int ox = (int)(rest % strips) * DEPTHWISE_STRIP, oy = (int)(rest / strips % a.out_h);
    int64_t sample = rest / strips / a.out_h;
    const T *x = (const T *)a.x + sample * a.in_h * a.in_w * a.channels + channel;
    T *y = (T *)a.y + ((sample * a.out_h + oy) * a.out_w + ox) * a.channels + channel;
    strip<N> sum;

UNROLL
    for (int o = 0; o < DEPTHWISE_STRIP; o++)
UNROLL
        for (int j = 0; j < N; j++)
            sum.of[o][j] = a.bias ? a.bias[channel + j] : 0;
    for (int r = 0; r < a.kernel_h; r++) {
        int iy = oy * a.stride_h + r * a.dilation_h - a.pad_h;
        if (iy < 0 || iy >= a.in_h)
            continue;
        const T *row = x + (int64_t)iy * a.in_w * a.channels;
        const T *w = (const T *)a.w + (int64_t)r * a.kernel_w * a.channels + channel;
        if (K == 0)
            row_any<T, N>(a, row, w, ox * a.stride_w - a.pad_w, sum);
        else
            row_fixed<T, N, K ? K : 1, S>(a, row, w, ox * S - a.pad_w, sum);
    }
UNROLL
    for (int o = 0; o < DEPTHWISE_STRIP; o++) {
        activate(a.act, sum.of[o], a.alpha, a.beta);
        if (ox + o < a.out_w)
            store(y + (int64_t)o * a.channels, sum.of[o]);
    }
}

#define STRIPS(...)                                                                                \
    do {                                                                                           \
        EACH (i, a.n)                                                                              \
            depthwise_strip<__VA_ARGS__>(a, (uint32_t)i);                                          \
    } while (0)

/* A kernel for each width, as the registers of one are then not the other's. */
template <typename T, int K> DEVICE void depthwise_fixed(const depthwise_args &a)
{
    if (a.stride_w == 1)
        STRIPS(T, 8, K, 1);
    else
        STRIPS(T, 8, K, 2);
}

KERNEL(depthwise3)
{
    if (a.type == GPU_F16)
        depthwise_fixed<fp16, 3>(a);
    else
        depthwise_fixed<bf16, 3>(a);
}

KERNEL(depthwise5)
{
    if (a.type == GPU_F16)
        depthwise_fixed<fp16, 5>(a);
    else
        depthwise_fixed<bf16, 5>(a);
}

template <typename T> DEVICE void depthwise_any(const depthwise_args &a)
{
    if (a.vector == 8)
        STRIPS(T, 8, 0, 1);
    else if (a.vector == 4)
        STRIPS(T, 4, 0, 1);
    else if (a.vector == 2)
        STRIPS(T, 2, 0, 1);
    else
        STRIPS(T, 1, 0, 1);
}

KERNEL(depthwise)
{
    if (a.type == GPU_F16)
        depthwise_any<fp16>(a);
    else
        depthwise_any<bf16>(a);
}
