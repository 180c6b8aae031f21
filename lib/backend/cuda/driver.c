/* Fills the table.  Every call is looked up through cuGetProcAddress with the version that
 * introduced its form, because plain dlsym() finds the oldest form of a name.
 *
 * libcuda is never closed: the driver keeps threads and exit handlers of its own. */
#include "driver.h"
#include "gpu.h"
#include <dlfcn.h>
#include <unistd.h>

#define DRIVER_LIBRARY "libcuda.so.1"
#define NOT_READY_TRIES 5
#define NOT_READY_US 100000 /* before the second try; doubles */

struct driver cu;

typedef CUresult CUDAAPI find_fn(const char *name, void **ret, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult *status);

/* The call may answer success and NULL. */
static void *find(find_fn *from, const char *name, int version)
{
    CUdriverProcAddressQueryResult status;
    void *p = NULL;

    return from(name, &p, version, 0, &status) == CUDA_SUCCESS ? p : NULL;
}

DRIVER_CALLS(CALL_IS_OF, CALL_IS_OF)

static int fill(find_fn *from, struct err *err)
{
    const char *missing = NULL;

#define NEED(name, call, since)                                                                    \
    cu.name = (__typeof__(cu.name))find(from, #call, since);                                       \
    if (!cu.name)                                                                                  \
        missing = #call;
#define MAY(name, call, since) cu.name = (__typeof__(cu.name))find(from, #call, since);
    DRIVER_CALLS(NEED, MAY)
#undef NEED
#undef MAY
    cu.ctx_create_capped = (capped_ctx_fn *)find(from, "cuCtxCreate", 11040);
    cu.green_stream_create = (green_stream_fn *)find(from, "cuGreenCtxStreamCreate", 12050);
    cu.event_elapsed = (elapsed_fn *)find(from, "cuEventElapsedTime", 2000);
    if (!cu.event_elapsed)
        missing = "cuEventElapsedTime";
    return missing ? err_set(err, -ENODEV, "the driver lacks %s, CUDA 12.0 has it", missing) : 0;
}

/* A server of MPS that has just been started is not ready for a moment. */
static int start(struct err *err)
{
    CUresult r = cu.init(0);
    useconds_t us = NOT_READY_US;

    for (int i = 1; i < NOT_READY_TRIES && r == CUDA_ERROR_MPS_SERVER_NOT_READY; i++, us *= 2) {
        (void)usleep(us);
        r = cu.init(0);
    }
    struct err why;
    return gpu_check(r, "cuInit", &why) == 0 ? 0 : err_set(err, -ENODEV, "%s", why.msg);
}

static int open_once(struct err *err)
{
    void *so = dlopen(DRIVER_LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!so)
        return err_set(err, -ENODEV, "no driver: %s", dlerror());
    find_fn *from = (find_fn *)dlsym(so, "cuGetProcAddress_v2");
    if (!from)
        return err_set(err, -ENODEV, "%s is of a driver before CUDA 12.0, or a toolkit's stub",
                       DRIVER_LIBRARY);
    int r = fill(from, err);
    if (r == 0)
        r = start(err);
    return r < 0 ? r : GPU(driver_version(&cu.version), err);
}

int driver_open(struct err *err)
{
    static bool is_open;
    int r = is_open ? 0 : open_once(err);

    is_open = r == 0;
    return r;
}
