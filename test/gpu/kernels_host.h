/* The kernels on the host: each is a function that runs all threads of all blocks, one after the
 * other.  Indexing, tails and numbers are the device's; its speed and its races are not. */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

struct gpu_place {
    unsigned x;
};
static thread_local gpu_place blockIdx, threadIdx, blockDim, gridDim;

#define DEVICE static inline
#define UNROLL
/* gpulet_NAME_args_bytes: of its arguments. */
#define EXPORTED extern "C" __attribute__((visibility("default")))
#define KERNEL(name)                                                                               \
    EXPORTED const unsigned gpulet_##name##_args_bytes;                                            \
    const unsigned gpulet_##name##_args_bytes = sizeof(struct name##_args);                        \
    static void name##_thread(const struct name##_args &a);                                        \
    EXPORTED void gpulet_##name(const void *args, unsigned blocks, unsigned threads)               \
    {                                                                                              \
        gridDim.x = blocks;                                                                        \
        blockDim.x = threads;                                                                      \
        for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)                                    \
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)                            \
                name##_thread(*(const struct name##_args *)args);                                  \
    }                                                                                              \
    static void name##_thread(const struct name##_args &a)

/* A device faults where an access is not aligned to its size. */
static inline void must_align(const void *p, size_t bytes)
{
    if ((uintptr_t)p % bytes == 0)
        return;
    fprintf(stderr, "a kernel accesses %zu bytes at %p\n", bytes, p);
    abort();
}
template <typename V> static inline void read_aligned(V *v, const void *x)
{
    must_align(x, sizeof(V));
    memcpy(v, x, sizeof(V));
}
template <typename V> static inline void write_aligned(void *y, const V *v)
{
    must_align(y, sizeof(V));
    memcpy(y, v, sizeof(V));
}
static inline float ratio(float x, float y)
{
    return x / y;
}
static inline float exp_of(float x)
{
    return expf(x);
}

#include "team_host.h"
