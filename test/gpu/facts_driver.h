/* The driver for the parts of test/gpu/facts: the plug-in's table, and what it does not need. */
#pragma once

#include "facts_kernels.h"

#include <gpulet/clock.h>
#include <lib/backend/cuda/gpu.h>

/* clang-format off */
#define MORE_CALLS(MORE) \
    MORE(mem_info, cuMemGetInfo, 3020) \
    MORE(host_pointer, cuMemHostGetDevicePointer, 3020) \
    MORE(copy_within, cuMemcpyDtoDAsync, 3020) \
    MORE(event_wait, cuEventSynchronize, 2000) \
    MORE(event_ask, cuEventQuery, 2000) \
    MORE(graph_create, cuGraphCreate, 10000) \
    MORE(graph_destroy, cuGraphDestroy, 10000) \
    MORE(graph_kernel, cuGraphAddKernelNode, 12000) \
    MORE(graph_kernel_is, cuGraphKernelNodeGetParams, 12000) \
    MORE(graph_open, cuGraphInstantiateWithFlags, 11040) \
    MORE(graph_upload, cuGraphUpload, 11010) \
    MORE(graph_launch, cuGraphLaunch, 10000) \
    MORE(graph_close, cuGraphExecDestroy, 10000)
/* clang-format on */
struct more_driver {
#define CALL(name, call, since) __typeof__(&call) name;
    MORE_CALLS(CALL)
#undef CALL
};
extern struct more_driver more;
#define MORE(call, err) gpu_check(more.call, #call, err)
/* Both tables, and the primary context of device 0, which is current to this thread but where a
 * let's is.  -ENOTSUP: the driver lacks one of those above. */
int facts_driver_open(struct err *err);
void facts_driver_close(void);
/* Of device 0; no context need be current, and none is then. */
int facts_free_bytes(size_t *ret, struct err *err);

/* A green context of one group, or the whole device (group NULL), with a stream. */
struct let {
    CUgreenCtx green;
    CUcontext ctx;
    CUstream stream;
    unsigned sms;
};
int let_open(struct let *l, CUdevResource *group, struct err *err);
/* The primary context is current again. */
void let_close(struct let *l);
/* All SMs of device 0 in the smallest groups; *n: room, then how many. */
int groups_open(CUdevResource *group, unsigned *n, unsigned flags, CUdevResource *rest,
                struct err *err);

/* The kernels of facts.cu. */
struct code {
    CUlibrary library;
    CUkernel place, haul;
};
int code_open(struct code *c, struct err *err);
void code_close(struct code *c);
/* So many blocks of a kernel on a let's stream, whose context is current. */
int code_run(CUkernel k, unsigned blocks, void *args, CUstream s, struct err *err);
static inline double us_since(uint64_t ns)
{
    return (double)(clock_now_ns() - ns) / 1e3;
}
