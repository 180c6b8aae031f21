/* Opened with the first question, before this process makes a context, and then it stays: devices
 * are asked about while they serve, too (reload), and the driver may call into a library that has
 * been part of the process. */
#include "nvml.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#define NVML_LIBRARY "libnvidia-ml.so.1"
#define NVML_OK 0
#define MIG_ENABLED 1

typedef struct nvml_device *handle;

#define NVML_CALLS(CALL)                                                                           \
    CALL(init, "nvmlInit_v2", (void))                                                              \
    CALL(driver_version, "nvmlSystemGetDriverVersion", (char *ret, unsigned size))                 \
    CALL(count, "nvmlDeviceGetCount_v2", (unsigned *ret))                                          \
    CALL(by_index, "nvmlDeviceGetHandleByIndex_v2", (unsigned i, handle *ret))                     \
    CALL(by_uuid, "nvmlDeviceGetHandleByUUID", (const char *uuid, handle *ret))                    \
    CALL(is_mig, "nvmlDeviceIsMigDeviceHandle", (handle d, unsigned *ret))                         \
    CALL(mig_mode, "nvmlDeviceGetMigMode", (handle d, unsigned *ret_now, unsigned *ret_next))      \
    CALL(mig_max, "nvmlDeviceGetMaxMigDeviceCount", (handle d, unsigned *ret))                     \
    CALL(mig_by_index, "nvmlDeviceGetMigDeviceHandleByIndex", (handle d, unsigned i, handle *ret)) \
    CALL(uuid, "nvmlDeviceGetUUID", (handle d, char *ret, unsigned size))

struct nvml {
    void *so;
#define CALL(name, text, args) int(*name) args;
    NVML_CALLS(CALL)
#undef CALL
};

static struct nvml nvml; /* so NULL: there is none */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_once(void)
{
    struct nvml n = {.so = dlopen(NVML_LIBRARY, RTLD_NOW | RTLD_LOCAL)};
    bool whole = true;

    if (!n.so)
        return;
#define CALL(name, text, args)                                                                     \
    n.name = (__typeof__(n.name))dlsym(n.so, text);                                                \
    whole &= n.name != NULL;
    NVML_CALLS(CALL)
#undef CALL
    if (whole && n.init() == NVML_OK)
        nvml = n;
}

static bool is_there(void)
{
    (void)pthread_once(&once, open_once);
    return nvml.so != NULL;
}

void nvml_driver_version(char ret[NVML_TEXT])
{
    if (!is_there() || nvml.driver_version(ret, NVML_TEXT) != NVML_OK)
        ret[0] = 0;
}

bool nvml_is_mig(const char *uuid)
{
    unsigned yes = 0;
    handle d;

    return is_there() && nvml.by_uuid(uuid, &d) == NVML_OK && nvml.is_mig(d, &yes) == NVML_OK &&
           yes;
}

/* Indices have gaps: "not found" is no error. */
static size_t list_one(handle d, char *ret, size_t size, size_t used)
{
    unsigned now = 0, next = 0, max = 0;
    char uuid[NVML_TEXT];
    handle mig;

    if (nvml.mig_mode(d, &now, &next) != NVML_OK || now != MIG_ENABLED ||
        nvml.mig_max(d, &max) != NVML_OK)
        return used;
    for (unsigned i = 0; i < max && used < size; i++)
        if (nvml.mig_by_index(d, i, &mig) == NVML_OK &&
            nvml.uuid(mig, uuid, sizeof(uuid)) == NVML_OK)
            used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? ", " : "", uuid);
    return used;
}

void nvml_mig_list(char *ret, size_t size)
{
    unsigned count = 0;
    size_t used = 0;
    handle d;

    ret[0] = 0;
    if (is_there() && nvml.count(&count) == NVML_OK)
        for (unsigned i = 0; i < count && used < size; i++)
            if (nvml.by_index(i, &d) == NVML_OK)
                used = list_one(d, ret, size, used);
}
