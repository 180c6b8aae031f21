/* Numbers of 16 bits, to and from FP32, rounded to the nearest, of two as near to the even one. For
 * kernels and for the host alike, so that both round the same; a device has instructions for it. */
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define HALF_FN static __host__ __device__ __forceinline__
#else
#define HALF_FN static inline __attribute__((unused))
#endif

HALF_FN uint32_t float_bits(float x)
{
    uint32_t b;

    memcpy(&b, &x, sizeof(b));
    return b;
}

HALF_FN float bits_float(uint32_t b)
{
    float x;

    memcpy(&x, &b, sizeof(x));
    return x;
}

/* m / 2^shift, rounded. */
HALF_FN uint32_t half_shift(uint32_t m, uint32_t shift)
{
    uint32_t q = m >> shift, rest = m & ((1u << shift) - 1), mid = 1u << (shift - 1);

    return q + (rest > mid || (rest == mid && (q & 1)));
}

HALF_FN uint16_t fp16_of(float x)
{
#ifdef __CUDA_ARCH__
    uint16_t h;

    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#else
    uint32_t b = float_bits(x), sign = b >> 16 & 0x8000, exp;

    b &= 0x7fffffff;
    exp = b >> 23;
    if (b > 0x7f800000) /* NaN */
        return (uint16_t)(sign | 0x7e00);
    if (b >= 0x477ff000) /* 65520 and more */
        return (uint16_t)(sign | 0x7c00);
    if (exp >= 113) /* 2^-14 and more; rounding may carry into the exponent, as it should */
        return (uint16_t)(sign | half_shift(b - 0x38000000, 13));
    if (exp < 102) /* less than 2^-25 */
        return (uint16_t)sign;
    return (uint16_t)(sign | half_shift((b & 0x7fffff) | 0x800000, 126 - exp));
#endif
}

/* The same of what our own kernels store: a finite number stays one, so that a mask of -1e9 masks
 * and does not make NaN of a row that is nothing but masked. */
HALF_FN uint16_t fp16_fit(float x)
{
    uint32_t b = float_bits(x) & 0x7fffffff;

    return b > 0x477fe000 && b < 0x7f800000 ? (uint16_t)(float_bits(x) >> 16 & 0x8000) | 0x7bff
                                            : fp16_of(x);
}

HALF_FN float fp16_to(uint16_t h)
{
#ifdef __CUDA_ARCH__
    float x;

    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, m = h & 0x3ff;

    if (exp == 31)
        return bits_float(sign | 0x7f800000 | m << 13);
    if (exp > 0)
        return bits_float(sign | (exp + 112) << 23 | m << 13);
    return bits_float(float_bits((float)m * 5.9604644775390625e-8f) | sign); /* 2^-24 */
#endif
}

HALF_FN uint16_t bf16_of(float x)
{
#ifdef __CUDA_ARCH__
    uint16_t h;

    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#else
    uint32_t b = float_bits(x);

    if ((b & 0x7fffffff) > 0x7f800000) /* NaN */
        return (uint16_t)(b >> 16 | 0x40);
    return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
#endif
}

HALF_FN float bf16_to(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}
