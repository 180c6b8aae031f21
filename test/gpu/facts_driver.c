/* What the parts of test/gpu/facts share of the driver. */
#include "facts_driver.h"

#include <dlfcn.h>

struct more_driver more;
static CUcontext whole;
extern const unsigned char gpu_fatbin[];

typedef CUresult CUDAAPI find_fn(const char *name, void **ret, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult *status);

MORE_CALLS(CALL_IS_OF)

int facts_driver_open(struct err *err)
{
    CUdriverProcAddressQueryResult status;
    const char *missing = NULL;
    int r = driver_open(err);

    if (r < 0)
        return r;
    void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    find_fn *find = so ? (find_fn *)dlsym(so, "cuGetProcAddress_v2") : NULL;
    if (!find)
        return err_set(err, -ENODEV, "libcuda.so.1 has gone");
#define CALL(name, call, since)                                                                    \
    {                                                                                              \
        void *p = NULL;                                                                            \
        if (find(#call, &p, since, 0, &status) != CUDA_SUCCESS || !p)                              \
            missing = #call;                                                                       \
        more.name = (__typeof__(more.name))p;                                                      \
    }
    MORE_CALLS(CALL)
#undef CALL
    if (missing)
        return err_set(err, -ENOTSUP, "the driver lacks %s", missing);
    r = GPU(primary_retain(&whole, 0), err);
    return r < 0 ? r : GPU(ctx_set_current(whole), err);
}

void facts_driver_close(void)
{
    (void)cu.ctx_set_current(NULL);
    if (whole)
        (void)cu.primary_release(0);
}

int facts_free_bytes(size_t *ret, struct err *err)
{
    CUcontext ctx = NULL;
    size_t total;
    int r = GPU(primary_retain(&ctx, 0), err);

    if (r == 0)
        r = GPU(ctx_set_current(ctx), err);
    if (r == 0)
        r = MORE(mem_info(ret, &total), err);
    (void)cu.ctx_set_current(NULL);
    if (ctx)
        (void)cu.primary_release(0);
    return r;
}

static int whole_open_let(struct let *l, struct err *err)
{
    int sms = 0, r = GPU(device_attribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0), err);

    l->ctx = whole;
    l->sms = (unsigned)sms;
    return r < 0 ? r : GPU(stream_create(&l->stream, CU_STREAM_NON_BLOCKING, 0), err);
}

int let_open(struct let *l, CUdevResource *group, struct err *err)
{
    CUdevResourceDesc desc;
    CUdevResource got;

    *l = (struct let){0};
    if (!group)
        return whole_open_let(l, err);
    int r = GPU(resource_desc(&desc, group, 1), err);
    if (r == 0)
        r = GPU(green_create(&l->green, desc, 0, CU_GREEN_CTX_DEFAULT_STREAM), err);
    if (r == 0)
        r = GPU(green_resource(l->green, &got, CU_DEV_RESOURCE_TYPE_SM), err);
    if (r == 0)
        r = GPU(green_ctx(&l->ctx, l->green), err);
    if (r == 0)
        r = GPU(green_stream_create(&l->stream, l->green, CU_STREAM_NON_BLOCKING, 0), err);
    l->sms = r == 0 ? got.sm.smCount : 0;
    return r;
}

void let_close(struct let *l)
{
    (void)cu.ctx_set_current(whole);
    if (l->stream)
        (void)cu.stream_destroy(l->stream);
    if (l->green)
        (void)cu.green_destroy(l->green);
}

int groups_open(CUdevResource *group, unsigned *n, unsigned flags, CUdevResource *rest,
                struct err *err)
{
    CUdevResource all;

    if (!cu.device_resource || !cu.sm_split || !cu.green_create || !cu.green_stream_create)
        return err_set(err, -ENOTSUP, "the driver is of CUDA %d.%d, 12.5 is needed",
                       cu.version / 1000, cu.version % 1000 / 10);
    int r = GPU(device_resource(0, &all, CU_DEV_RESOURCE_TYPE_SM), err);
    return r < 0 ? r : GPU(sm_split(group, n, &all, rest, flags, 1), err);
}

int code_open(struct code *c, struct err *err)
{
    int r = GPU(library_load(&c->library, gpu_fatbin, NULL, NULL, 0, NULL, NULL, 0), err);

    if (r == 0)
        r = GPU(library_kernel(&c->place, c->library, "gpulet_place"), err);
    return r < 0 ? r : GPU(library_kernel(&c->haul, c->library, "gpulet_haul"), err);
}

void code_close(struct code *c)
{
    if (c->library)
        (void)cu.library_unload(c->library);
}

int code_run(CUkernel k, unsigned blocks, void *args, CUstream s, struct err *err)
{
    void *all[] = {args};

    return GPU(launch((CUfunction)k, blocks, 1, 1, GPU_THREADS, 1, 1, 0, s, all, NULL), err);
}
