/* What cuBLASLt and cuDNN have in common: being found. */
#include "nvlib.h"
#include <dlfcn.h>
#include <stdio.h>

/* Where the loader looks: LD_LIBRARY_PATH, ldconfig's list.  Never closed, as the driver is not. */
void *nvlib_dlopen(const char *const *sonames, struct nvlib *lib)
{
    void *so = NULL;

    for (size_t i = 0; sonames[i] && !so; i++) {
        so = dlopen(sonames[i], RTLD_NOW | RTLD_LOCAL);
        if (!so && i == 0)
            (void)snprintf(lib->why, sizeof(lib->why), "%s", dlerror());
    }
    return so;
}

bool nvlib_fits(struct nvlib *lib, size_t cudart)
{
    if (cudart / 1000 <= (size_t)cu.version / 1000)
        return true;
    (void)snprintf(lib->why, sizeof(lib->why), "it is made for CUDA %zu, the driver has CUDA %d",
                   cudart / 1000, cu.version / 1000);
    return false;
}
