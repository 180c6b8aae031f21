/* Products of rows with rows: what recurrent layers and attention have in common.
 * Internal to kernels/cpu. */
#pragma once

#include "kit.h"

#define DOT_COLS 4

/* y[2][4] = products of two rows of n with four, each in one order whatever stands beside it: a
 * result does not depend on its neighbours.  The rows b are ldb apart. */
typedef void dot_fn(int64_t n, const float *a0, const float *a1, const float *b, int64_t ldb,
                    float *y);
#define DOT_SUMS reduction(+ : s00, s01, s02, s03, s10, s11, s12, s13)
#define SIMD_DOT _Pragma(SIMD_STR(omp simd DOT_SUMS))
VECTOR(dot_block,
       (int64_t n, const float *a0, const float *a1, const float *b, int64_t ldb, float *y),
       (n, a0, a1, b, ldb, y))
{
    const float *b0 = b, *b1 = b + ldb, *b2 = b + 2 * ldb, *b3 = b + 3 * ldb;
    float s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;

    SIMD_DOT
    for (int64_t i = 0; i < n; i++) {
        s00 += a0[i] * b0[i];
        s01 += a0[i] * b1[i];
        s02 += a0[i] * b2[i];
        s03 += a0[i] * b3[i];
        s10 += a1[i] * b0[i];
        s11 += a1[i] * b1[i];
        s12 += a1[i] * b2[i];
        s13 += a1[i] * b3[i];
    }
    y[0] = s00, y[1] = s01, y[2] = s02, y[3] = s03;
    y[4] = s10, y[5] = s11, y[6] = s12, y[7] = s13;
}

/* y (m, n) = a (m, k) b^T (n, k); rows lda, ldb and ldy apart. */
static inline void dot_rows(dot_fn *dot, int64_t m, int64_t n, int64_t k, const float *a,
                            int64_t lda, const float *b, int64_t ldb, float *y, int64_t ldy)
{
    for (int64_t j = 0; j < n; j += DOT_COLS) {
        int64_t cols = MIN(DOT_COLS, n - j);
        for (int64_t i = 0; i < m; i += 2) {
            float part[2 * DOT_COLS];
            int64_t rows = MIN(2, m - i);
            const float *a0 = a + i * lda, *a1 = rows == 2 ? a0 + lda : a0;
            if (cols == DOT_COLS)
                dot(k, a0, a1, b + j * ldb, ldb, part);
            for (int64_t c = 0; cols < DOT_COLS && c < cols; c++) { /* the same row four times */
                float one[2 * DOT_COLS];
                dot(k, a0, a1, b + (j + c) * ldb, 0, one);
                part[c] = one[0];
                part[DOT_COLS + c] = one[DOT_COLS];
            }
            for (int64_t r = 0; r < rows; r++)
                memcpy(y + (i + r) * ldy + j, part + r * DOT_COLS, (size_t)cols * sizeof(*y));
        }
    }
}
