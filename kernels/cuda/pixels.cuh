/* Bytes of an image become numbers, each by the factor and the sum of its channel, in the type and the
 * layout that the network wants: memory is read and written once, in vectors. */
#include "vector.cuh"

#define RGB 3

template <int N> struct alignas(N) octets {
    uint8_t of[N];
};

DEVICE float pixel(uint8_t x, float scale, float shift) { return fmaf((float)x, scale, shift); }

/* V neighbours, of channels that lie next to each other: number j has channel j % RGB of f. */
template <typename T, int V> DEVICE void pixels_row(const pixels_args &a, uint32_t e)
{
    uint32_t c[RGB] = {e % RGB, (e + 1) % RGB, (e + 2) % RGB};
    octets<V> x;
    float v[V];

    read_aligned(&x, a.x + e);
    UNROLL
    for (int j = 0; j < V; j++)
        v[j] = pixel(x.of[j], a.scale[c[j % RGB]], a.shift[c[j % RGB]]);
    store((T *)a.y + e, v);
}

/* V neighbours, which another channel's may follow. */
template <typename T, int V> DEVICE void pixels_some(const pixels_args &a, uint32_t e)
{
    uint32_t at = e % a.inner, c = e / a.inner % a.channels;
    float scale = a.scale[c], shift = a.shift[c], v[V];
    octets<V> x;

    read_aligned(&x, a.x + e);
    UNROLL
    for (int j = 0; j < V; j++) {
        v[j] = pixel(x.of[j], scale, shift);
        if (++at < (uint32_t)a.inner)
            continue;
        at = 0;
        c = c + 1 < (uint32_t)a.channels ? c + 1 : 0;
        scale = a.scale[c];
        shift = a.shift[c];
    }
    store((T *)a.y + e, v);
}

template <typename T, int V> DEVICE void pixels_same(const pixels_args &a, uint32_t e)
{
    if (e + V > (uint32_t)a.count) {
        for (; e < (uint32_t)a.count; e++) {
            uint32_t c = e / a.inner % a.channels;
            put((T *)a.y + e, pixel(a.x[e], a.scale[c], a.shift[c]));
        }
    } else if (a.inner == 1 && a.channels == RGB) {
        pixels_row<T, V>(a, e);
    } else {
        pixels_some<T, V>(a, e);
    }
}

/* V pixels of three channels: what lies behind each other on one side has a stride on the other. */
template <typename T, int V, bool SPLIT> DEVICE void pixels_turn(const pixels_args &a, uint32_t i)
{
    uint32_t groups = a.inner / V, p = i % groups * V, plane = a.inner;
    int64_t image = (int64_t)(i / groups) * RGB * plane;
    const uint8_t *x = a.x + image;
    T *y = (T *)a.y + image;
    float v[RGB][V];

    UNROLL
    for (int k = 0; k < RGB; k++) {
        octets<V> b;
        read_aligned(&b, x + (SPLIT ? p * RGB + k * V : k * plane + p));
        UNROLL
        for (int j = k * V; j < k * V + V; j++) {
            int c = SPLIT ? j % RGB : k;
            v[c][SPLIT ? j / RGB : j - k * V] = pixel(b.of[j - k * V], a.scale[c], a.shift[c]);
        }
    }
    UNROLL
    for (int k = 0; k < RGB; k++) {
        float w[V];
        UNROLL
        for (int j = k * V; j < k * V + V; j++)
            w[j - k * V] = SPLIT ? v[k][j - k * V] : v[j % RGB][j / RGB];
        store(y + (SPLIT ? k * plane + p : p * RGB + k * V), w);
    }
}

/* A pixel, of however many channels. */
template <typename T> DEVICE void pixels_one(const pixels_args &a, uint32_t i)
{
    uint32_t p = i % a.inner, plane = a.inner, channels = a.channels;
    int64_t image = (int64_t)(i / plane) * channels * plane;

    for (uint32_t c = 0; c < channels; c++) {
        uint32_t last = p * channels + c, first = c * plane + p;
        bool split = a.turn == GPU_TURN_SPLIT;
        float y = pixel(a.x[image + (split ? last : first)], a.scale[c], a.shift[c]);
        put((T *)a.y + image + (split ? first : last), y);
    }
}

template <typename T, int V> DEVICE void pixels_as(const pixels_args &a, uint32_t i)
{
    if (a.turn == GPU_TURN_NONE)
        pixels_same<T, V>(a, i * V);
    else if (a.vector == 1)
        pixels_one<T>(a, i);
    else if (a.turn == GPU_TURN_SPLIT)
        pixels_turn<T, V, true>(a, i);
    else
        pixels_turn<T, V, false>(a, i);
}

KERNEL(pixels)
{
    EACH (i, a.n) {
        if (a.type == GPU_F16)
            pixels_as<fp16, 8>(a, (uint32_t)i);
        else if (a.type == GPU_BF16)
            pixels_as<bf16, 8>(a, (uint32_t)i);
        else
            pixels_as<float, 4>(a, (uint32_t)i);
    }
}
