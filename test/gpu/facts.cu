/* Kernels that look at the device, for test/gpu/facts.  Not in the plug-in. */
#include "kernels/cuda/kit.cuh"
#include "test/gpu/facts_kernels.h"

#ifdef __CUDACC__
DEVICE unsigned here(int64_t clocks)
{
    unsigned sm;

    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    for (int64_t from = clock64(); clock64() - from < clocks;)
        ;
    return sm;
}
#else
/* First SM and how many: what the fake driver's context has. */
EXPORTED thread_local unsigned gpulet_fake_sms[2];
thread_local unsigned gpulet_fake_sms[2];

static unsigned here(int64_t)
{
    return gpulet_fake_sms[0] + blockIdx.x % (gpulet_fake_sms[1] ? gpulet_fake_sms[1] : 1);
}
#endif

KERNEL(place)
{
    unsigned sm = here(a.clocks);

    if (a.seen && threadIdx.x == 0 && sm < a.n_sms)
        a.seen[sm] = 1;
}

struct sixteen {
    uint64_t part[2];
};

KERNEL(haul)
{
    EACH (i, a.n)
        ((sixteen *)a.y)[i] = ((const sixteen *)a.x)[i];
}
