/* What the threads of a warp do together. */
#pragma once

#include "vector.cuh"

#define WARP 32
#define LOWEST (-__builtin_huge_valf())

DEVICE float warp_sum(float x)
{
    UNROLL
    for (int k = WARP / 2; k > 0; k /= 2)
        x += lane_xor(x, k);
    return x;
}

DEVICE float warp_max(float x)
{
    UNROLL
    for (int k = WARP / 2; k > 0; k /= 2)
        x = fmaxf(x, lane_xor(x, k));
    return x;
}

/* c += a * b by tensor cores, of a whole warp (attend.cuh says who has what); T: of a and b. */
#ifdef __CUDACC__
#define MMA(type)                                                                                  \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, "           \
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                            \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                           \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <typename T> DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> DEVICE void mma<fp16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    MMA("f16");
}
template <> DEVICE void mma<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    MMA("bf16");
}
#else
#include "test/gpu/mma_host.h"
#endif
