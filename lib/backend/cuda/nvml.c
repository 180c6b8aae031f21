/* Opened for each question, and closed: it is asked at the start only. */
#include "nvml.h"
#include <dlfcn.h>
#include <stdio.h>

#define NVML_LIBRARY "libnvidia-ml.so.1"
#define NVML_OK 0
#define MIG_ENABLED 1

typedef struct nvml_device *handle;

#define NVML_CALLS(CALL)                                                                           \
    CALL(init, "nvmlInit_v2", (void))                                                              \
    CALL(shutdown, "nvmlShutdown", (void))                                                         \
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

static void nvml_close(struct nvml *n)
{
    (void)n->shutdown();
    (void)dlclose(n->so);
}

static bool nvml_open(struct nvml *n)
{
    bool whole = true;

    n->so = dlopen(NVML_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!n->so)
        return false;
#define CALL(name, text, args)                                                                     \
    n->name = (__typeof__(n->name))dlsym(n->so, text);                                             \
    whole &= n->name != NULL;
    NVML_CALLS(CALL)
#undef CALL
    if (whole && n->init() == NVML_OK)
        return true;
    (void)dlclose(n->so);
    return false;
}

void nvml_driver_version(char ret[NVML_TEXT])
{
    struct nvml n;

    ret[0] = 0;
    if (!nvml_open(&n))
        return;
    if (n.driver_version(ret, NVML_TEXT) != NVML_OK)
        ret[0] = 0;
    nvml_close(&n);
}

bool nvml_is_mig(const char *uuid)
{
    unsigned yes = 0;
    struct nvml n;
    handle d;

    if (!nvml_open(&n))
        return false;
    bool found = n.by_uuid(uuid, &d) == NVML_OK && n.is_mig(d, &yes) == NVML_OK;
    nvml_close(&n);
    return found && yes;
}

/* Indices have gaps: "not found" is no error. */
static size_t list_one(const struct nvml *n, handle d, char *ret, size_t size, size_t used)
{
    unsigned now = 0, next = 0, max = 0;
    char uuid[NVML_TEXT];
    handle mig;

    if (n->mig_mode(d, &now, &next) != NVML_OK || now != MIG_ENABLED ||
        n->mig_max(d, &max) != NVML_OK)
        return used;
    for (unsigned i = 0; i < max && used < size; i++)
        if (n->mig_by_index(d, i, &mig) == NVML_OK && n->uuid(mig, uuid, sizeof(uuid)) == NVML_OK)
            used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? ", " : "", uuid);
    return used;
}

void nvml_mig_list(char *ret, size_t size)
{
    unsigned count = 0;
    size_t used = 0;
    struct nvml n;
    handle d;

    ret[0] = 0;
    if (!nvml_open(&n))
        return;
    if (n.count(&count) == NVML_OK)
        for (unsigned i = 0; i < count && used < size; i++)
            if (n.by_index(i, &d) == NVML_OK)
                used = list_one(&n, d, ret, size, used);
    nvml_close(&n);
}
