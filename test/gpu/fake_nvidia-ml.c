/* libnvidia-ml.so.1: what the fake driver's knobs say about MIG.  See fake.h. */
#include "fake.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))
#define OK 0
#define NOT_FOUND 6
#define SEEN "MIG-00000000-0000-0000-0000-000000000000" /* what device 0 of the driver is */
#define UNSEEN "MIG-11111111-2222-3333-4444-555555555555"

typedef const char *handle; /* a UUID */

static struct fake_gpu *knobs(void)
{
    void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    fake_gpu_fn *fn = so ? (fake_gpu_fn *)dlsym(so, FAKE_SYMBOL) : NULL;

    return fn ? fn() : NULL;
}

static void late_open(const char *rule)
{
    void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);

    ((const struct fake_driver *)dlsym(so, FAKE_DRIVER_SYMBOL))->broken(rule);
}

#define NVML(name, ...)                                                                            \
    extern EXPORTED int name(__VA_ARGS__);                                                         \
    EXPORTED int name(__VA_ARGS__)

NVML(nvmlInit_v2, void)
{
    if (knobs() && knobs()->contexts_ever > 0)
        late_open("NVML is opened before there is a context");
    if (knobs())
        knobs()->nvml_inits++;
    return knobs() ? OK : NOT_FOUND;
}

NVML(nvmlShutdown, void)
{
    knobs()->nvml_ends++;
    return OK;
}

NVML(nvmlSystemGetDriverVersion, char *ret, unsigned size)
{
    (void)snprintf(ret, size, "580.65.%02d", knobs()->driver);
    return OK;
}

NVML(nvmlDeviceGetCount_v2, unsigned *ret)
{
    *ret = (unsigned)knobs()->gpus;
    return OK;
}

NVML(nvmlDeviceGetHandleByIndex_v2, unsigned i, handle *ret)
{
    *ret = i == 0 ? "GPU-0" : "GPU-1";
    return OK;
}

NVML(nvmlDeviceGetHandleByUUID, const char *uuid, handle *ret)
{
    *ret = SEEN;
    return knobs()->mig && strcmp(uuid, SEEN) == 0 ? OK : NOT_FOUND;
}

NVML(nvmlDeviceIsMigDeviceHandle, handle d, unsigned *ret)
{
    *ret = strncmp(d, "MIG-", 4) == 0;
    return OK;
}

NVML(nvmlDeviceGetMigMode, handle d, unsigned *ret_now, unsigned *ret_next)
{
    *ret_now = *ret_next = strcmp(d, "GPU-0") == 0 && (knobs()->mig || knobs()->mig_elsewhere);
    return OK;
}

NVML(nvmlDeviceGetMaxMigDeviceCount, handle d, unsigned *ret)
{
    (void)d;
    *ret = 7;
    return OK;
}

/* With a gap, as real ones have. */
NVML(nvmlDeviceGetMigDeviceHandleByIndex, handle d, unsigned i, handle *ret)
{
    (void)d;
    *ret = UNSEEN;
    return i == 3 ? OK : NOT_FOUND;
}

NVML(nvmlDeviceGetUUID, handle d, char *ret, unsigned size)
{
    (void)snprintf(ret, size, "%s", d);
    return OK;
}
