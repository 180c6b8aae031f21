/* Quantised numbers. */
#include "kit.cuh"

DEVICE int64_t byte_at(const void *x, int type, int64_t i)
{
    if (!x)
        return 0;
    switch (type) {
    case GPU_U8: return ((const uint8_t *)x)[i];
    case GPU_S8: return ((const int8_t *)x)[i];
    case GPU_U16: return ((const uint16_t *)x)[i];
    case GPU_S16: return ((const int16_t *)x)[i];
    default: return ((const int32_t *)x)[i];
    }
}

/* v rounded, shifted by the zero point, and held within the type; NaN: the least. */
DEVICE void put_byte(void *y, int type, int64_t i, float v, int64_t zero)
{
    bool sign = type == GPU_S8 || type == GPU_S16;
    float bits = type == GPU_U8 || type == GPU_S8 ? 256.f : 65536.f;
    float low = sign ? -bits / 2 : 0, high = sign ? bits / 2 - 1 : bits - 1;
    float r = rintf(v) + (float)zero;

    r = r >= low ? (r < high ? r : high) : low;
    switch (type) {
    case GPU_U8: ((uint8_t *)y)[i] = (uint8_t)r; break;
    case GPU_S8: ((int8_t *)y)[i] = (int8_t)r; break;
    case GPU_U16: ((uint16_t *)y)[i] = (uint16_t)r; break;
    default: ((int16_t *)y)[i] = (int16_t)r;
    }
}

/* Rounded by itself: a sum of two is what two nodes say, and never a fused one. */
DEVICE float times(float x, float y)
{
#ifdef __CUDACC__
    return __fmul_rn(x, y);
#else
    return x * y;
#endif
}

DEVICE int64_t scale_of(const gpu_scales &s, int64_t i)
{
    if (s.one)
        return 0;
    int64_t d = i / s.inner % s.axis, in = i % s.inner;
    return s.block ? (i / s.inner / s.axis * s.blocks + d / s.block) * s.inner + in : d;
}

KERNEL(quantize)
{
    EACH (i, a.n) {
        int64_t k = scale_of(a.scales, i);
        if (a.back) {
            int64_t whole = byte_at(a.x, a.x_type, i) - byte_at(a.zero, a.x_type, k);
            ((float *)a.y)[i] = (float)whole * a.scale[k];
            continue;
        }
        float x = a.x_type == GPU_F32 ? ((const float *)a.x)[i] : (float)((const int32_t *)a.x)[i];
        put_byte(a.y, a.y_type, i, x / a.scale[k], byte_at(a.zero, a.y_type, k));
    }
}

KERNEL(range)
{
    EACH (i, a.n) {
        float low = 0, high = 0;
        if (!a.scale) { /* the first round: part i */
            for (int64_t k = i; k < a.count; k += a.n) {
                low = fminf(low, a.x[k]);
                high = fmaxf(high, a.x[k]);
            }
            a.ends[i] = low;
            a.ends[a.n + i] = high;
            continue;
        }
        for (int64_t k = 0; k < a.count; k++) {
            low = fminf(low, a.ends[k]);
            high = fmaxf(high, a.ends[a.count + k]);
        }
        float scale = high == low ? 1 : (high - low) / 255;
        *a.scale = scale;
        *a.zero = (uint8_t)rintf(fminf(fmaxf(-low / scale, 0), 255));
    }
}

/* The sum as the result wants it; the places of what belongs to it. */
DEVICE void put_sum(const gpu_byte_sum &s, int64_t i, int64_t sum, int64_t bias, int64_t a_scale,
                    int64_t b_scale, int64_t y_scale, int64_t y_zero)
{
    if (!s.a_scale) {
        ((int32_t *)s.y)[i] = (int32_t)sum;
        return;
    }
    sum += s.bias ? s.bias[bias] : 0;
    float scale = s.a_scale[a_scale] * s.b_scale[b_scale] / s.y_scale[y_scale];
    put_byte(s.y, s.y_type, i, (float)sum * scale, byte_at(s.y_zero, s.y_type, y_zero));
}

KERNEL(conv_bytes)
{
    const gpu_window &w = a.window;
    int64_t each = a.channels / a.groups, plane = w.in[0] * w.in[1] * w.in[2];

    EACH (i, a.n) {
        int64_t o[3], nk = window_split(w, i, o), filter = nk % a.filters;
        int64_t first = nk / a.filters * a.channels + filter / (a.filters / a.groups) * each;
        int64_t f = filter * each * w.kernel[0] * w.kernel[1] * w.kernel[2], sum = 0;
        int64_t az = byte_at(a.of.a_zero, a.of.a_type, 0);
        int64_t bz = byte_at(a.of.b_zero, a.of.b_type, a.n_b_zero > 1 ? filter : 0);
        for (int64_t c = first; c < first + each; c++)
            EACH_PLACE (w, k) {
                int64_t p = window_read(w, o, k); /* padding is the zero point: nothing */
                if (p >= 0)
                    sum += (byte_at(a.of.a, a.of.a_type, c * plane + p) - az) *
                           (byte_at(a.of.b, a.of.b_type, f) - bz);
                f++;
            }
        put_sum(a.of, i, sum, filter, 0, a.n_b_scale > 1 ? filter : 0, 0, 0);
    }
}

DEVICE int64_t line_of(int64_t n, int64_t matrix, int64_t line, int64_t lines)
{
    return n <= 1 ? 0 : n == lines ? line : matrix * lines + line;
}

KERNEL(product_bytes)
{
    EACH (i, a.n) {
        int64_t c = i % a.cols, r = i / a.cols % a.rows, z = i / a.cols / a.rows, p, q, sum = 0;
        at_two(a.walk, z, &p, &q);
        int64_t az = byte_at(a.of.a_zero, a.of.a_type, line_of(a.n_a_zero, p, r, a.rows));
        int64_t bz = byte_at(a.of.b_zero, a.of.b_type, line_of(a.n_b_zero, q, c, a.cols));
        for (int64_t k = 0; k < a.inner; k++)
            sum += (byte_at(a.of.a, a.of.a_type, (p * a.rows + r) * a.inner + k) - az) *
                   (byte_at(a.of.b, a.of.b_type, (q * a.inner + k) * a.cols + c) - bz);
        put_sum(a.of, i, sum, c, line_of(a.n_a_scale, p, r, a.rows),
                line_of(a.n_b_scale, q, c, a.cols), line_of(a.n_y_scale, z, r, a.rows),
                line_of(a.n_y_zero, z, r, a.rows));
    }
}

KERNEL(add_bytes)
{
    EACH (i, a.n) {
        const gpu_byte_sum &s = a.of;
        int64_t p, q;
        at_two(a.walk, i, &p, &q);
        int64_t u = byte_at(s.a, s.a_type, p) - byte_at(s.a_zero, s.a_type, 0);
        int64_t v = byte_at(s.b, s.b_type, q) - byte_at(s.b_zero, s.b_type, 0);
        float x = times((float)u, *s.a_scale), y = times((float)v, *s.b_scale);
        put_byte(s.y, s.y_type, i, (x + y) / *s.y_scale, byte_at(s.y_zero, s.y_type, 0));
    }
}
