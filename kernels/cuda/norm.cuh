/* Normalisations: a thread for each row, two passes for the moments. */
#include "kit.cuh"

KERNEL(norm)
{
    EACH (row, a.n) {
        const float *x = a.x + row * a.count;
        float mean = 0, squares = 0;
        for (int64_t k = 0; k < a.count && !a.rms; k++)
            mean += x[k];
        mean /= (float)a.count;
        for (int64_t k = 0; k < a.count; k++)
            squares += (x[k] - mean) * (x[k] - mean);
        float inv = 1 / sqrtf(squares / (float)a.count + a.eps);
        if (a.ret_mean)
            a.ret_mean[row] = mean;
        if (a.ret_inv)
            a.ret_inv[row] = inv;
        for (int64_t k = 0; k < a.count; k++) {
            int64_t e = row * a.count + k, c = e / a.div % a.mod;
            a.y[e] = (x[k] - mean) * inv * a.scale[c] + (a.bias ? a.bias[c] : 0);
        }
    }
}

KERNEL(batch_norm)
{
    EACH (i, a.n) {
        int64_t c = i / a.each % a.channels;
        float inv = 1 / sqrtf(a.variance[c] + a.eps);
        a.y[i] = (a.x[i] - a.mean[c]) * inv * a.scale[c] + a.bias[c];
    }
}
