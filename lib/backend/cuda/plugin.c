/* backend = cuda: the table that gpulet-cuda.so exports.
 *
 * Devices are found and cut.  There are no operators yet: compile() refuses each model by its first
 * node, so that nothing behind an exe is ever called and stays empty in the table. */
#include "gpu.h"
#include <gpulet/clock.h>

static int gpu_compile(struct part *p, const struct compile_args *args, struct exe **ret,
                       struct err *err)
{
    const struct graph *g = args->bound->graph;

    (void)p, (void)ret;
    if (g->n_nodes == 0)
        return err_set(err, -ENOTSUP, "the cuda backend does not run models yet");
    return err_set(err, -ENOTSUP, "node '%s' (%s): not in the cuda backend yet", g->nodes[0].name,
                   op_name(g->nodes[0].op));
}

static void gpu_part_enter(struct part *p)
{
    (void)p; /* a context is made current for each call: part_begin() */
}

static size_t gpu_wait(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    struct timespec until = {.tv_sec = (time_t)(until_us / USEC_PER_SEC),
                             .tv_nsec = (long)(until_us % USEC_PER_SEC) * 1000};
    int r = until_us == 0 ? ETIMEDOUT : 0;

    (void)done, (void)max;
    (void)pthread_mutex_lock(&p->lock);
    while (!p->kicked && r != ETIMEDOUT)
        r = until_us == USEC_NEVER ? pthread_cond_wait(&p->wake, &p->lock)
                                   : pthread_cond_timedwait(&p->wake, &p->lock, &until);
    p->kicked = false;
    (void)pthread_mutex_unlock(&p->lock);
    return 0;
}

static void gpu_kick(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->kicked = true;
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_cond_signal(&p->wake);
}

static enum part_fault gpu_fault(struct part *p)
{
    (void)p;
    return gpu_is_lost() ? FAULT_PROCESS : FAULT_NONE;
}

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
    .compile = gpu_compile,
    .part_enter = gpu_part_enter,
    .wait = gpu_wait,
    .fault = gpu_fault,
    .kick = gpu_kick,
};
