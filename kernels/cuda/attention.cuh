/* Einsum, Attention, RotaryEmbedding: a thread for each number, query or pair. */
#include "kit.cuh"

KERNEL(einsum)
{
    EACH (i, a.n) {
        int64_t off[3] = {0, 0, 0};
        for (int k = 0; k < a.n_in; k++)
            off[k] = at(a.outer, k, i);
        float sum = 0;
        for (int64_t j = 0; j < a.n_inner; j++) {
            float p = a.x[0][off[0] + at(a.inner, 0, j)];
            for (int k = 1; k < a.n_in; k++)
                p *= a.x[k][off[k] + at(a.inner, k, j)];
            sum += p;
        }
        a.y[i] = sum;
    }
}

#define BELOW_ALL (-__builtin_huge_valf())

DEVICE int64_t head_at(const gpu_heads &h, int64_t b, int64_t head, int64_t row)
{
    return b * h.batch + head * h.head + row * h.row;
}

/* What is added to the score of query s and key t. */
DEVICE float bias_of(const attention_args &a, int64_t b, int64_t h, int64_t s, int64_t t)
{
    int64_t keys = a.nonpad ? a.nonpad[b] : a.total;
    int64_t ahead = t - (s + (a.nonpad ? keys - a.rows : a.past));

    if (t >= keys || (a.causal && ahead > 0) || (a.right >= 0 && ahead > a.right) ||
        (a.left >= 0 && -ahead > a.left))
        return BELOW_ALL;
    if (!a.mask)
        return 0;
    if (t >= a.mask_keys)
        return BELOW_ALL;
    int64_t m = b * a.mask_stride[0] + h * a.mask_stride[1] + s * a.mask_stride[2] +
                t * a.mask_stride[3];
    if (a.mask_type == GPU_BOOL)
        return ((const uint8_t *)a.mask)[m] ? 0 : BELOW_ALL;
    return ((const float *)a.mask)[m];
}

/* Key or value t of sample b and head h: of the past, or behind it. */
DEVICE const float *joined(const float *past, const gpu_heads &of_past, const float *now,
                           const gpu_heads &of_now, int64_t n_past, int64_t b, int64_t h, int64_t t)
{
    return t < n_past ? past + head_at(of_past, b, h, t) : now + head_at(of_now, b, h, t - n_past);
}

KERNEL(attention)
{
    EACH (i, a.n) {
        int64_t s = i % a.rows, h = i / a.rows % a.heads, b = i / a.rows / a.heads, hk = h / a.group;
        const float *q = a.q + head_at(a.of_q, b, h, s);
        float *w = a.scores + i * a.total, *qk = a.qk ? a.qk + i * a.total : nullptr;
        float top = BELOW_ALL, sum = 0;
        bool any = false;
        if (a.nonpad && (a.nonpad[b] < 0 || a.nonpad[b] > a.total))
            *a.bad = 1;
        for (int64_t t = 0; t < a.total; t++) {
            const float *k = joined(a.past_k, a.of_past_k, a.k, a.of_k, a.past, b, hk, t);
            float v = 0, bias = bias_of(a, b, h, s, t);
            for (int64_t j = 0; j < a.width; j++)
                v += q[j] * k[j];
            v *= a.scale;
            if (qk && a.qk_mode == 0)
                qk[t] = v;
            v = a.softcap > 0 ? a.softcap * tanhf(v / a.softcap) : v;
            if (qk && a.qk_mode == 1)
                qk[t] = v;
            v += bias;
            if (qk && a.qk_mode == 2)
                qk[t] = v;
            any = any || bias > BELOW_ALL;
            top = fmaxf(top, v);
            w[t] = v;
        }
        for (int64_t t = 0; t < a.total; t++) {
            w[t] = any ? expf(w[t] - top) : 0;
            sum += w[t];
        }
        for (int64_t t = 0; t < a.total; t++) {
            w[t] = any ? w[t] / sum : 0;
            if (qk && a.qk_mode == 3)
                qk[t] = w[t];
        }
        float *y = a.y + head_at(a.of_y, b, h, s);
        for (int64_t j = 0; j < a.v_width; j++) {
            float all = 0;
            for (int64_t t = 0; t < a.total; t++)
                all += w[t] * joined(a.past_v, a.of_past_v, a.v, a.of_v, a.past, b, hk, t)[j];
            y[j] = all;
        }
    }
}

KERNEL(rotary)
{
    EACH (i, a.n) {
        int64_t k = i % a.half, s = i / a.half % a.rows, h = i / a.half / a.rows % a.heads;
        int64_t b = i / a.half / a.rows / a.heads, token = b * a.rows + s;
        int64_t row = a.ids ? a.ids[token] : token, from = head_at(a.of, b, h, s);
        if (row < 0 || row >= a.positions) {
            *a.bad = 1;
            continue;
        }
        int64_t one = from + (a.interleaved ? 2 * k : k), two = a.interleaved ? one + 1 : one + a.half;
        float c = a.cos[row * a.half + k], z = a.sin[row * a.half + k], u = a.x[one], v = a.x[two];
        a.y[one] = c * u - z * v;
        a.y[two] = z * u + c * v;
    }
}
