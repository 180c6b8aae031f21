/* Normalisations: a thread for each row, two passes for the moments. */
#include "kit.cuh"

template <typename T> DEVICE void norm_row(const norm_args &a, int64_t row)
{
    const T *x = (const T *)a.x + row * a.count;
    float mean = 0, squares = 0;

    for (int64_t k = 0; k < a.count && !a.rms; k++)
        mean += number(x[k]);
    mean /= (float)a.count;
    for (int64_t k = 0; k < a.count; k++)
        squares += (number(x[k]) - mean) * (number(x[k]) - mean);
    float inv = 1 / sqrtf(squares / (float)a.count + a.eps);
    if (a.ret_mean)
        a.ret_mean[row] = mean;
    if (a.ret_inv)
        a.ret_inv[row] = inv;
    for (int64_t k = 0; k < a.count; k++) {
        int64_t e = row * a.count + k, c = e / a.div % a.mod;
        put((T *)a.y + e, (number(x[k]) - mean) * inv * a.scale[c] + (a.bias ? a.bias[c] : 0));
    }
}

KERNEL(norm)
{
    EACH (row, a.n)
        BY_TYPE(a.type, norm_row, a, row);
}

KERNEL(batch_norm)
{
    EACH (i, a.n) {
        int64_t c = i / a.each % a.channels;
        float inv = 1 / sqrtf(a.variance[c] + a.eps);
        float x = number_as(a.type, a.x, i);
        put_as(a.type, a.y, i, (x - a.mean[c]) * inv * a.scale[c] + a.bias[c]);
    }
}
