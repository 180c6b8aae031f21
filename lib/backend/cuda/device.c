/* Devices: listing, taking and leaving them; request memory. */
#include "choice.h"
#include "nvlib.h"
#include "nvml.h"
#include <stdio.h>

#define DRIVER_UNKNOWN "driver unknown"
/* Of an H200 (adr/0024): told of an end after 22 us; then the executor wakes, and puts two copies,
 * a graph, events and a call on streams, at 3 to 9 us each; before, it sleeps until this moment,
 * and 50 us longer, and the end may come sooner than predicted. */
#define AHEAD_US 200

/* What runs depend on, and what they have to do without. */
static void describe_library(const struct nvlib *lib, const char *nodes, struct device_info *ret)
{
    size_t n = strlen(ret->library), m = strlen(ret->why);

    if (lib->version[0])
        (void)snprintf(ret->library + n, sizeof(ret->library) - n, ", %s %s", lib->name,
                       lib->version);
    else
        (void)snprintf(ret->why + m, sizeof(ret->why) - m, "; %s by plain kernels, no %s: %s",
                       nodes, lib->name, lib->why);
}

/* What nobody has measured stays 0: the planner then has its own estimate. */
static int describe(const struct backend_config *cfg, int index, CUdevice *ret_cu,
                    const struct mode **ret_mode, struct device_info *ret, struct err *err)
{
    char driver[NVML_TEXT];
    int sms = 0, r = GPU(device_get(ret_cu, index), err);
    size_t bytes = 0;

    nvml_driver_version(driver); /* before a mode is asked, which may make a context: nvml.c */
    *ret = (struct device_info){.in_turn = true, /* one stream, but in some modes */
                                .ahead_us = AHEAD_US};
    (void)snprintf(ret->name, sizeof(ret->name), "gpu%d", index);
    if (r == 0)
        r = GPU(device_name(ret->kind, (int)sizeof(ret->kind), *ret_cu), err);
    if (r == 0)
        r = gpu_attribute(*ret_cu, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &sms, err);
    if (r == 0)
        r = GPU(device_memory(&bytes, *ret_cu), err);
    ret->units = (uint32_t)MAX(sms, 0);
    ret->mem_bytes = bytes;
    if (r == 0)
        r = mode_choose(cfg->partition_mode, *ret_cu, ret_mode, ret, err);
    if (r < 0)
        return err_wrap(err, "device '%s': ", ret->name);
    ret->units = ret->n_granules * ret->granule_units; /* what a plan can give away */
    (void)snprintf(ret->library, sizeof(ret->library), "CUDA %d.%d, %s%.32s", cu.version / 1000,
                   cu.version % 1000 / 10, driver[0] ? "driver " : DRIVER_UNKNOWN, driver);
    describe_library(blas_library(), "products", ret);
    describe_library(dnn_library(), "convolutions", ret);
    return 0;
}

int gpu_devices(const struct backend_config *cfg, struct device_info *ret, size_t max,
                size_t *ret_n, struct err *err)
{
    const struct mode *mode;
    CUdevice d;
    int n = 0, r = driver_open(err);

    if (r == 0)
        r = GPU(device_count(&n), err);
    if (r == 0 && n == 0)
        r = err_set(err, -ENODEV, "the driver sees no GPU");
    if (r == 0 && (size_t)n > max)
        r = err_set(err, -EINVAL, "%d devices, the limit is %zu", n, max);
    for (int i = 0; i < n && r == 0; i++)
        r = describe(cfg, i, &d, &mode, &ret[i], err);
    if (r < 0)
        return err_wrap(err, "backend 'cuda': ");
    *ret_n = (size_t)n;
    return 0;
}

/* Whatever a measured time depends on, but for the SMs.  Without a driver's version nothing is told
 * to the next process. */
static int choices_open(const char *folder, struct device *dev, struct err *err)
{
    char identity[sizeof(dev->info.kind) + sizeof(dev->info.library) + 32];
    bool known = !strstr(dev->info.library, DRIVER_UNKNOWN);
    int major = 0, minor = 0;
    int r = gpu_attribute(dev->cu, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major, err);

    if (r == 0)
        r = gpu_attribute(dev->cu, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor, err);
    if (r < 0)
        return r;
    (void)snprintf(identity, sizeof(identity), "%s, sm_%d%d, %s", dev->info.kind, major, minor,
                   dev->info.library);
    dev->choices = choices_get(known ? folder : NULL, identity);
    return 0;
}

void gpu_dev_close(struct device *dev)
{
    if (!dev)
        return;
    assert(dev->n_parts == 0);
    choices_put(dev->choices);
    space_done(&dev->space);
    library_close(dev);
    if (dev->mode)
        dev->mode->close(dev);
    free(dev);
}
DEFINE_AUTO(struct device, gpu_dev_close)

int gpu_dev_open(const struct backend_config *cfg, unsigned index, struct device **ret,
                 struct err *err)
{
    AUTO(gpu_dev_close) struct device *dev = calloc(1, sizeof(*dev));
    const struct mode *mode = NULL;

    if (!dev)
        return err_set(err, -ENOMEM, "out of memory");
    int r = describe(cfg, (int)index, &dev->cu, &mode, &dev->info, err);
    if (r < 0)
        return r;
    dev->mode = mode;
    dev->run_bytes = cfg->run_bytes ? cfg->run_bytes : RUN_BYTES;
    dev->thread = cfg->thread;
    dev->thread_ctx = cfg->thread_ctx;
    r = mode->open(dev, err);
    if (r == 0)
        r = library_open(dev, err);
    if (r == 0)
        r = choices_open(cfg->folder, dev, err);
    if (r < 0)
        return err_wrap(err, "device '%s': ", dev->info.name);
    *ret = TAKE(dev);
    return 0;
}

/* Pinned for every context of every device, once, so that copies do not go through a buffer of the
 * driver's. */
int gpu_host_open(struct device *dev, const struct host_region *region, struct err *err)
{
    int r = GPU(ctx_set_current(dev->ctx), err);
    CUresult got = r < 0
                       ? CUDA_SUCCESS
                       : cu.host_register(region->base, region->bytes, CU_MEMHOSTREGISTER_PORTABLE);

    dev->pinned = r == 0 && got == CUDA_SUCCESS;
    if (r == 0 && got != CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED) /* with another device */
        r = gpu_check(got, "host_register", err);
    (void)cu.ctx_set_current(NULL);
    if (r < 0)
        return err_wrap(
            err, "request memory of %zu bytes cannot be pinned (LimitMEMLOCK=): ", region->bytes);
    return 1;
}

void gpu_host_close(struct device *dev, const struct host_region *region)
{
    if (!dev->pinned)
        return;
    (void)cu.ctx_set_current(dev->ctx);
    (void)cu.host_unregister(region->base);
    (void)cu.ctx_set_current(NULL);
    dev->pinned = false;
}
