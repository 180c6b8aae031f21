/* backend = cuda: the table that gpulet-cuda.so exports. */
#include "gpu.h"
#include <stdatomic.h>

/* Constants are found by content whatever their layout: there is one layout. */
static int gpu_weights_get(struct device *dev, const struct constant *c, uint64_t layout,
                           struct weights **ret, struct err *err)
{
    (void)dev, (void)c, (void)layout, (void)ret;
    return err_set(err, -ENOTSUP, "a constant of the cuda backend is its model's");
}

static void gpu_weights_put(struct device *dev, struct weights *w)
{
    (void)dev, (void)w;
}

static void gpu_part_enter(struct part *p)
{
    atomic_store(&p->entered, true); /* a context is made current for each call: part_begin() */
}

static enum part_fault gpu_fault(struct part *p)
{
    (void)p;
    return gpu_is_lost() ? FAULT_PROCESS : FAULT_NONE;
}

const struct host_late *gpu_late;

__attribute__((visibility("default"))) extern const struct backend gpulet_backend;
const struct backend gpulet_backend = {
    .name = "cuda",
    .abi = BACKEND_ABI,
    .devices = gpu_devices,
    .dev_open = gpu_dev_open,
    .dev_close = gpu_dev_close,
    .host_open = gpu_host_open,
    .host_close = gpu_host_close,
    .part_open = gpu_part_open,
    .part_close = gpu_part_close,
    .weights_get = gpu_weights_get,
    .weights_put = gpu_weights_put,
    .compile = gpu_compile,
    .exe_info = gpu_exe_info,
    .release = gpu_release,
    .slot_open = gpu_slot_open,
    .slot_close = gpu_slot_close,
    .probe = gpu_probe,
    .part_enter = gpu_part_enter,
    .submit = gpu_submit,
    .wait = gpu_wait,
    .fault = gpu_fault,
    .outputs = gpu_outputs,
    .kick = gpu_kick,
    .late = &gpu_late,
};
