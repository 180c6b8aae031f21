/* The kernels on the host: each is a function that runs all threads of all blocks, one after the
 * other.  Indexing, tails and numbers are the device's; its speed and its races are not. */
#pragma once

#include <cmath>
#include <cstdint>

struct gpu_place {
    unsigned x;
};
static thread_local gpu_place blockIdx, threadIdx, blockDim, gridDim;

#define DEVICE static inline
/* gpulet_NAME_args_bytes: of its arguments. */
#define EXPORTED extern "C" __attribute__((visibility("default")))
#define KERNEL(name)                                                                               \
    EXPORTED const unsigned gpulet_##name##_args_bytes;                                                 \
    const unsigned gpulet_##name##_args_bytes = sizeof(struct name##_args);                             \
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
