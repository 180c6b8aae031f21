/* Convolution and pooling, directly: a thread for each number of the result. */
#include "vector.cuh"

/* Splits a place of the result: *ret_o its position, returns plane (all that comes before). */
DEVICE int64_t window_split(const gpu_window &w, int64_t i, int64_t ret_o[3])
{
    for (int d = 2; d >= 0; d--) {
        ret_o[d] = i % w.out[d];
        i /= w.out[d];
    }
    return i;
}

/* Where position k of the window at o reads, or -1: in the padding. */
DEVICE int64_t window_read(const gpu_window &w, const int64_t o[3], const int64_t k[3])
{
    int64_t off = 0;
    bool in = true;

    for (int d = 0; d < 3; d++) {
        int64_t x = o[d] * w.stride[d] + k[d] * w.dilation[d] - w.pad[d];
        in = in && x >= 0 && x < w.in[d];
        off = off * w.in[d] + x;
    }
    return in ? off : -1;
}

/* ceil_mode lets a window reach beyond the padding: that is no place at all. */
DEVICE bool window_inside(const gpu_window &w, const int64_t o[3], const int64_t k[3])
{
    for (int d = 0; d < 3; d++)
        if (o[d] * w.stride[d] + k[d] * w.dilation[d] - w.pad[d] >= w.in[d] + w.pad_end[d])
            return false;
    return true;
}

#define EACH_PLACE(w, k)                                                                           \
    for (int64_t k[3] = {0, 0, 0}; k[0] < (w).kernel[0]; k[0]++)                                   \
        for (k[1] = 0; k[1] < (w).kernel[1]; k[1]++)                                               \
            for (k[2] = 0; k[2] < (w).kernel[2]; k[2]++)

KERNEL(conv)
{
    const gpu_window &w = a.window;
    int64_t each = a.channels / a.groups, plane = w.in[0] * w.in[1] * w.in[2];

    EACH (i, a.n) {
        int64_t o[3], nk = window_split(w, i, o), filter = nk % a.filters;
        int64_t first = filter / (a.filters / a.groups) * each;
        const float *x = a.x + (nk / a.filters * a.channels + first) * plane;
        const float *f = a.w + filter * each * w.kernel[0] * w.kernel[1] * w.kernel[2];
        float sum = 0;
        for (int64_t c = 0; c < each; c++, x += plane)
            EACH_PLACE (w, k) {
                int64_t p = window_read(w, o, k);
                if (p >= 0)
                    sum += x[p] * *f;
                f++;
            }
        a.y[i] = sum + (a.bias ? a.bias[filter] : 0);
    }
}

template <typename T, int N> DEVICE void pool_some(const pool_args &a, int64_t i)
{
    const gpu_window &w = a.window;
    int64_t o[3], n = 0, channel = i * N % a.last, row = window_split(w, i * N / a.last, o);
    const T *x = (const T *)a.x + row * w.in[0] * w.in[1] * w.in[2] * a.last + channel;
    float acc[N], v[N];

UNROLL
    for (int j = 0; j < N; j++)
        acc[j] = a.mean ? 0 : -__builtin_huge_valf();
    EACH_PLACE (w, k) {
        int64_t p = window_read(w, o, k);
        n += p >= 0 || (a.count_pad && window_inside(w, o, k));
        if (p < 0)
            continue;
        load(v, x + p * a.last);
UNROLL
        for (int j = 0; j < N; j++)
            acc[j] = a.mean ? acc[j] + v[j] : v[j] > acc[j] || v[j] != v[j] ? v[j] : acc[j];
    }
UNROLL
    for (int j = 0; j < N; j++)
        acc[j] = !a.mean ? acc[j] : n > 0 ? acc[j] / (float)n : 0;
    store((T *)a.y + i * N, acc);
}

template <typename T> DEVICE void pool_half(const pool_args &a, int64_t i)
{
    switch (a.vector) {
    case 8: return pool_some<T, 8>(a, i);
    case 4: return pool_some<T, 4>(a, i);
    case 2: return pool_some<T, 2>(a, i);
    default: return pool_some<T, 1>(a, i);
    }
}

KERNEL(pool)
{
    EACH (i, a.n) {
        if (a.type == GPU_F16)
            pool_half<fp16>(a, i);
        else if (a.type == GPU_BF16)
            pool_half<bf16>(a, i);
        else
            pool_some<float, 1>(a, i);
    }
}
