/* The kernels' code: a fatbin that embed.S puts into the plug-in.  A kernel loaded this way belongs
 * to no context, so one load serves all partitions of all modes. */
#include "gpu.h"

#define FATBIN_MAGIC 0xba55ed50u

extern const unsigned char gpu_fatbin[];

static const char *const names[] = {
#define NAMED(name) "gpulet_" #name,
    GPU_KERNELS(NAMED)
#undef NAMED
};

int library_open(struct device *dev, struct err *err)
{
    uint32_t magic;
    int r = 0;

    memcpy(&magic, gpu_fatbin, sizeof(magic));
    assert(magic == FATBIN_MAGIC);
    r = GPU(library_load(&dev->library, gpu_fatbin, NULL, NULL, 0, NULL, NULL, 0), err);
    for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++)
        r = GPU(library_kernel(&dev->kernel[i], dev->library, names[i]), err);
    return r < 0 ? err_wrap(err, "kernels: ") : 0;
}

void library_close(struct device *dev)
{
    if (dev->library)
        (void)cu.library_unload(dev->library);
    dev->library = NULL;
}
