/* Lines of elements, a thread for each; and bits. */
#include "kit.cuh"

template <typename T> DEVICE void cumulate_line(const cumulate_args &a, int64_t from)
{
    const T *x = (const T *)a.x + from;
    T *y = (T *)a.y + from, all = (T)(a.product ? 1 : 0);

    for (int64_t s = 0; s < a.count; s++) {
        int64_t k = (a.reverse ? a.count - 1 - s : s) * a.step;
        T before = all, v = x[k];
        all = a.product ? (T)(all * v) : (T)(all + v);
        y[k] = a.exclusive ? before : all;
    }
}

KERNEL(cumulate)
{
    EACH (i, a.n) {
        int64_t from = i / a.step * a.step * a.count + i % a.step;
        if (a.type == GPU_F32)
            cumulate_line<float>(a, from);
        else if (a.type == GPU_S32)
            cumulate_line<uint32_t>(a, from); /* the same bits, and no overflow */
        else
            cumulate_line<uint64_t>(a, from);
    }
}

KERNEL(hardmax)
{
    EACH (i, a.n) {
        int64_t from = i / a.step * a.step * a.count + i % a.step, best = 0;
        for (int64_t k = 1; k < a.count; k++)
            if (a.x[from + k * a.step] > a.x[from + best * a.step])
                best = k;
        for (int64_t k = 0; k < a.count; k++)
            a.y[from + k * a.step] = k == best;
    }
}

KERNEL(lp_norm)
{
    EACH (i, a.n) {
        int64_t from = i / a.step * a.step * a.count + i % a.step;
        float sum = 0;
        for (int64_t k = 0; k < a.count; k++) {
            float v = a.x[from + k * a.step];
            sum += a.p == 1 ? fabsf(v) : v * v;
        }
        float norm = a.p == 1 ? sum : sqrtf(sum);
        for (int64_t k = 0; k < a.count; k++)
            a.y[from + k * a.step] = norm == 0 ? 0 : a.x[from + k * a.step] / norm;
    }
}

KERNEL(lrn)
{
    EACH (i, a.n) {
        int64_t c = i / a.each % a.channels, low = c - (a.size - 1) / 2, high = c + a.size / 2;
        float sum = 0;
        for (int64_t k = low < 0 ? 0 : low; k <= high && k < a.channels; k++) {
            float v = a.x[i + (k - c) * a.each];
            sum += v * v;
        }
        a.y[i] = a.x[i] / powf(a.bias + a.alpha / (float)a.size * sum, a.beta);
    }
}

KERNEL(mvn)
{
    EACH (i, a.n) {
        int64_t from = at(a.outer, 0, i);
        float mean = 0, squares = 0;
        for (int64_t k = 0; k < a.n_inner; k++)
            mean += a.x[from + at(a.inner, 0, k)];
        mean /= (float)a.n_inner;
        for (int64_t k = 0; k < a.n_inner; k++) {
            float v = a.x[from + at(a.inner, 0, k)] - mean;
            squares += v * v;
        }
        float sigma = sqrtf(squares / (float)a.n_inner) + 1e-9f;
        for (int64_t k = 0; k < a.n_inner; k++) {
            int64_t e = from + at(a.inner, 0, k);
            a.y[e] = (a.x[e] - mean) / sigma;
        }
    }
}

KERNEL(classify)
{
    const float top = __builtin_huge_valf();

    EACH (i, a.n) {
        float x = a.x[i];
        a.y[i] = (a.nan && x != x) || (a.above && x == top) || (a.below && x == -top);
    }
}

template <typename T> DEVICE void bits_one(const bits_args &a, int64_t i)
{
    int64_t p, q;

    at_two(a.walk, i, &p, &q);
    T x = ((const T *)a.a)[p], y = a.op == GPU_BITS_not ? 0 : ((const T *)a.b)[q], z;
    bool gone = y >= sizeof(T) * 8;
    switch (a.op) {
    case GPU_BITS_and: z = x & y; break;
    case GPU_BITS_or: z = x | y; break;
    case GPU_BITS_xor: z = x ^ y; break;
    case GPU_BITS_not: z = ~x; break;
    case GPU_BITS_left: z = gone ? 0 : (T)(x << y); break;
    default: z = gone ? 0 : (T)(x >> y);
    }
    ((T *)a.y)[i] = z;
}

KERNEL(bits)
{
    EACH (i, a.n) {
        if (a.size == 1)
            bits_one<uint8_t>(a, i);
        else if (a.size == 2)
            bits_one<uint16_t>(a, i);
        else if (a.size == 4)
            bits_one<uint32_t>(a, i);
        else
            bits_one<uint64_t>(a, i);
    }
}
