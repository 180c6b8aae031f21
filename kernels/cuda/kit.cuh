/* What kernels share.  A kernel takes one struct of args.h:
 *
 *     KERNEL(fill) { EACH (i, a.n) ...; }
 *
 * Built for the host (test/gpu/kernels_host.h) the same text runs its blocks and threads one after
 * the other; those of a TEAM_KERNEL each until it waits for others (test/gpu/team_host.h). */
#pragma once

#include "args.h"
#include "half.h"

#ifdef __CUDACC__
#define KERNEL(name)                                                                               \
    extern "C" __global__ void __launch_bounds__(GPU_THREADS)                                      \
        gpulet_##name(const __grid_constant__ struct name##_args a)
#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
/* All of it in one access: V is as aligned as it is large. */
template <typename V> DEVICE void read_aligned(V *v, const void *x) { *v = *(const V *)x; }
template <typename V> DEVICE void write_aligned(void *y, const V *v) { *(V *)y = *v; }
/* For a kernel whose threads wait for each other, all of a warp or of a block at the same place. */
#define TEAM_KERNEL KERNEL
#define SHARED __shared__
DEVICE void block_wait() { __syncthreads(); }
/* x of the lane whose number differs in the bits of k. */
DEVICE float lane_xor(float x, int k) { return __shfl_xor_sync(0xffffffff, x, k); }
/* Off by two units of the last place; 0 where y is infinite or nearly. */
DEVICE float ratio(float x, float y) { return __fdividef(x, y); }
/* e to the x: where x is not far below 0 off by a few units of the last place. */
DEVICE float exp_of(float x) { return __expf(x); }
#else
#include "test/gpu/kernels_host.h"
#endif

/* Grid-stride: i goes through [0, n) once over all threads. */
#define EACH(i, n)                                                                                 \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n);                      \
         i += (int64_t)gridDim.x * blockDim.x)

/* Offset into operand k of place i of the walk. */
DEVICE int64_t at(const gpu_walk &w, int k, int64_t i)
{
    int64_t off = 0;

    for (int d = w.rank - 1; d >= 0; d--) {
        int64_t q = i / w.dims[d];
        off += (i - q * w.dims[d]) * w.stride[k][d];
        i = q;
    }
    return off;
}

/* Of two operands at once: the divisions are what a walk costs. */
DEVICE void at_two(const gpu_walk &w, int64_t i, int64_t *ret0, int64_t *ret1)
{
    int64_t a = 0, b = 0;

    for (int d = w.rank - 1; d >= 0; d--) {
        int64_t q = i / w.dims[d], r = i - q * w.dims[d];
        a += r * w.stride[0][d];
        b += r * w.stride[1][d];
        i = q;
    }
    *ret0 = a;
    *ret1 = b;
}

/* ---- what is stored in 16 bits: computed in FP32 */
struct fp16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};
DEVICE float number(float x) { return x; }
DEVICE float number(fp16 x) { return fp16_to(x.bits); }
DEVICE float number(bf16 x) { return bf16_to(x.bits); }
DEVICE void put(float *y, float x) { *y = x; }
DEVICE void put(fp16 *y, float x) { y->bits = fp16_fit(x); }
DEVICE void put(bf16 *y, float x) { y->bits = bf16_of(x); }

/* Rounded as if it had been written: the largest mask of FP16 then hides what it is added to. */
template <typename T> DEVICE float as_stored(float x)
{
    T y;
    put(&y, x);
    return number(y);
}

/* f<T>(...) with T as it is stored.  For loops; what is one number in and one out branches. */
#define BY_TYPE(type, f, ...)                                                                      \
    ((type) == GPU_F16    ? f<fp16>(__VA_ARGS__)                                                   \
     : (type) == GPU_BF16 ? f<bf16>(__VA_ARGS__)                                                   \
                          : f<float>(__VA_ARGS__))

DEVICE float number_as(int type, const void *x, int64_t i)
{
    return type == GPU_F16    ? number(((const fp16 *)x)[i])
           : type == GPU_BF16 ? number(((const bf16 *)x)[i])
                              : ((const float *)x)[i];
}

DEVICE void put_as(int type, void *y, int64_t i, float x)
{
    if (type == GPU_F16)
        put((fp16 *)y + i, x);
    else if (type == GPU_BF16)
        put((bf16 *)y + i, x);
    else
        ((float *)y)[i] = x;
}

DEVICE bool is_float(int type) { return type == GPU_F32 || type == GPU_F16 || type == GPU_BF16; }

DEVICE void move(void *y, int64_t to, const void *x, int64_t from, int size)
{
    if (size == 1)
        ((uint8_t *)y)[to] = ((const uint8_t *)x)[from];
    else if (size == 2)
        ((uint16_t *)y)[to] = ((const uint16_t *)x)[from];
    else if (size == 4)
        ((uint32_t *)y)[to] = ((const uint32_t *)x)[from];
    else
        ((uint64_t *)y)[to] = ((const uint64_t *)x)[from];
}
