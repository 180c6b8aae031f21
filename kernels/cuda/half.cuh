/* Between FP32 and 16 bits, and from one layout to another on the way. */
#include "half.h"
#include "kit.cuh"

KERNEL(half)
{
    EACH (i, a.n) {
        int64_t from, to;
        at_two(a.walk, i, &from, &to);
        const uint16_t h = a.from == GPU_F32 ? 0 : ((const uint16_t *)a.x)[from];
        const float x = a.from == GPU_F32   ? ((const float *)a.x)[from]
                        : a.from == GPU_F16 ? fp16_to(h)
                                            : bf16_to(h);
        if (a.to == GPU_F32)
            ((float *)a.y)[to] = x;
        else
            ((uint16_t *)a.y)[to] = a.to == GPU_F16 ? fp16_of(x) : bf16_of(x);
    }
}
