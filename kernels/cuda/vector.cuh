/* N neighbours at once.  Of 16 bits: one access of 2 * N bytes, aligned to as many. */
#pragma once

#include "kit.cuh"

template <int N> struct alignas(2 * N) words {
    uint32_t w[N / 2];
};

template <typename T, int N> DEVICE void load(float (&ret)[N], const T *x)
{
    words<N> v;
    read_aligned(&v, x);
UNROLL
    for (int k = 0; k < N; k++)
        ret[k] = number(T{(uint16_t)(v.w[k / 2] >> k % 2 * 16)});
}

template <typename T> DEVICE void load(float (&ret)[1], const T *x) { ret[0] = number(*x); }

/* FP32, in accesses of 16 bytes. */
struct alignas(16) four {
    float of[4];
};

template <int N> DEVICE void load(float (&ret)[N], const float *x)
{
    four v;
    UNROLL
    for (int k = 0; k < N; k += 4) {
        read_aligned(&v, x + k);
        UNROLL
        for (int j = 0; j < 4; j++)
            ret[k + j] = v.of[j];
    }
}

DEVICE void load(float (&ret)[1], const float *x) { ret[0] = *x; }

template <typename T, int N> DEVICE void store(T *y, const float (&x)[N])
{
    words<N> v;
UNROLL
    for (int k = 0; k < N; k += 2) {
        T lo, hi;
        put(&lo, x[k]);
        put(&hi, x[k + 1]);
        v.w[k / 2] = lo.bits | (uint32_t)hi.bits << 16;
    }
    write_aligned(y, &v);
}

template <typename T> DEVICE void store(T *y, const float (&x)[1]) { put(y, x[0]); }

template <int N> DEVICE void store(float *y, const float (&x)[N])
{
    UNROLL
    for (int k = 0; k < N; k += 4) {
        four v = {{x[k], x[k + 1], x[k + 2], x[k + 3]}};
        write_aligned(y + k, &v);
    }
}

DEVICE void store(float *y, const float (&x)[1]) { *y = x[0]; }
