/* Products of matrices: a thread for each number of the result. */
#include "kit.cuh"

KERNEL(product)
{
    EACH (i, a.n) {
        int64_t c = i % a.cols, r = i / a.cols % a.rows, z = i / a.cols / a.rows, p, q;
        at_two(a.walk, z, &p, &q);
        const float *x = a.a + p + r * a.a_row, *y = a.b + q + c * a.b_col;
        float sum = 0;
        for (int64_t k = 0; k < a.inner; k++)
            sum += x[k * a.a_inner] * y[k * a.b_inner];
        sum *= a.alpha;
        a.y[i] = a.bias ? sum + a.beta * a.bias[r * a.bias_row + c * a.bias_col] : sum;
    }
}
