/* libcuda.so.1 on host memory: see fake.h.  A device pointer is a host pointer. */
#include "fake.h"

#include <cuda.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORTED __attribute__((visibility("default")))
#define PAGE_BYTES ((size_t)2 << 20)
#define DEVICE_BYTES ((size_t)8 << 30)
#define MAPPINGS_MAX 256
#define CAPPED 1
#define ATTRIBUTE_MPS_ENABLED 133

struct CUctx_st {
    int device, units;
    bool green;
    int streams, holders; /* threads to which it is current */
};
struct CUgreenCtx_st {
    struct CUctx_st ctx;
};
struct CUstream_st {
    struct CUctx_st *ctx;
};
struct CUdevResourceDesc_st {
    int units;
};
struct mapping {
    CUdeviceptr at;
    size_t bytes;
    struct CUctx_st *ctx; /* that was current when it was made */
};

static struct fake_gpu fake = {
    .gpus = 1, .version = 13000, .sms = 132, .major = 9, .cap_step = 2, .contexts_max = 48};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUctx_st primary[FAKE_GPUS_MAX];
static struct CUdevResourceDesc_st last_desc;
static struct mapping mapping[MAPPINGS_MAX];
static _Thread_local struct CUctx_st *current;
static bool is_up;

extern EXPORTED fake_gpu_fn fake_gpu;
EXPORTED struct fake_gpu *fake_gpu(void)
{
    return &fake;
}

static void broken(const char *rule)
{
    if (fake.broken++ == 0)
        fake.rule = rule;
}

/* Under the lock: the call is written down; what it has to answer without doing anything. */
static CUresult enter(const char *name)
{
    fake.used += (size_t)snprintf(fake.log + fake.used, sizeof(fake.log) - fake.used, "%s\n", name);
    if (fake.used >= sizeof(fake.log))
        fake.used = sizeof(fake.log) - 1;
    if (fake.fail_call && strcmp(fake.fail_call, name) == 0 && fake.fail_times != 0) {
        fake.fail_times -= fake.fail_times > 0;
        return (CUresult)fake.fail_code;
    }
    return is_up || strncmp(name, "cuInit", 6) == 0 || strncmp(name, "cuGetError", 10) == 0
               ? CUDA_SUCCESS
               : CUDA_ERROR_NOT_INITIALIZED;
}

/* A call: under the lock, written down, then what it does. */
#define DO(text, ...)                                                                              \
    do {                                                                                           \
        (void)pthread_mutex_lock(&lock);                                                           \
        CUresult r_ = enter(text);                                                                 \
        if (r_ == CUDA_SUCCESS)                                                                    \
            r_ = __VA_ARGS__;                                                                      \
        (void)pthread_mutex_unlock(&lock);                                                         \
        return r_;                                                                                 \
    } while (0)

/* ---- start and devices */
static void knob(const char *env, const char *name, int *ret)
{
    const char *at = env ? strstr(env, name) : NULL;

    if (at && at[strlen(name)] == '=')
        *ret = atoi(at + strlen(name) + 1);
}

static CUresult up(void)
{
    const char *env = getenv("FAKE_GPU");

    knob(env, "gpus", &fake.gpus);
    knob(env, "sms", &fake.sms);
    knob(env, "major", &fake.major);
    knob(env, "version", &fake.version);
    knob(env, "mps", &fake.mps);
    knob(env, "mig", &fake.mig);
    if (fake.gpus < 0 || fake.gpus > FAKE_GPUS_MAX)
        abort();
    if (fake.gpus == 0)
        return CUDA_ERROR_NO_DEVICE;
    is_up = true;
    return CUDA_SUCCESS;
}

static CUresult f_init(unsigned flags)
{
    (void)flags;
    DO("cuInit", up());
}

static CUresult f_driver_version(int *ret)
{
    DO("cuDriverGetVersion", (*ret = fake.version, CUDA_SUCCESS));
}

static CUresult f_error_name(CUresult r, const char **ret)
{
    DO("cuGetErrorName",
       (*ret = r == CUDA_ERROR_NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR", CUDA_SUCCESS));
}

static CUresult f_device_count(int *ret)
{
    DO("cuDeviceGetCount", (*ret = fake.gpus, CUDA_SUCCESS));
}

static CUresult check_device(CUdevice d)
{
    return d >= 0 && d < fake.gpus ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult f_device_get(CUdevice *ret, int i)
{
    DO("cuDeviceGet", (*ret = i, check_device(i)));
}

static CUresult f_device_name(char *ret, int size, CUdevice d)
{
    DO("cuDeviceGetName", (snprintf(ret, (size_t)size, "fake GPU"), check_device(d)));
}

static CUresult f_device_uuid(CUuuid *ret, CUdevice d)
{
    DO("cuDeviceGetUuid", (memset(ret, d, sizeof(*ret)), check_device(d)));
}

static CUresult attribute(int *ret, int a)
{
    switch (a) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *ret = fake.sms;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *ret = fake.major;
        return CUDA_SUCCESS;
    case ATTRIBUTE_MPS_ENABLED:
        *ret = fake.mps;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult f_device_attribute(int *ret, CUdevice_attribute a, CUdevice d)
{
    (void)d;
    DO("cuDeviceGetAttribute", attribute(ret, (int)a));
}

static CUresult f_device_memory(size_t *ret, CUdevice d)
{
    DO("cuDeviceTotalMem", (*ret = DEVICE_BYTES, check_device(d)));
}

/* ---- contexts */
static CUresult make_current(struct CUctx_st *c)
{
    if (current)
        current->holders--;
    current = c;
    if (!c)
        return CUDA_SUCCESS;
    c->holders++;
    if (c->green && c->holders > 1)
        broken("a green context is current to one thread at a time");
    return CUDA_SUCCESS;
}

static CUresult f_ctx_set_current(CUcontext c)
{
    DO("cuCtxSetCurrent", make_current(c));
}

static CUresult f_primary_retain(CUcontext *ret, CUdevice d)
{
    DO("cuDevicePrimaryCtxRetain", (fake.primaries++, primary[d].device = d,
                                    primary[d].units = fake.sms, *ret = &primary[d], CUDA_SUCCESS));
}

static CUresult release(CUdevice d)
{
    if (primary[d].streams > 0)
        broken("streams die before their context");
    fake.primaries--;
    return CUDA_SUCCESS;
}

static CUresult f_primary_release(CUdevice d)
{
    DO("cuDevicePrimaryCtxRelease", release(d));
}

static CUresult capped(CUcontext *ret, const CUexecAffinityParam *p, int n, CUdevice d)
{
    if (!fake.mps)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    if (n != 1 || p->type != CU_EXEC_AFFINITY_TYPE_SM_COUNT || p->param.smCount.val == 0 ||
        (int)p->param.smCount.val > fake.sms)
        return CUDA_ERROR_INVALID_VALUE;
    if (fake.contexts == fake.contexts_max)
        return CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED;
    struct CUctx_st *c = calloc(1, sizeof(*c));
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    int asked = (int)p->param.smCount.val;
    c->device = d;
    c->units = (asked + fake.cap_step - 1) / fake.cap_step * fake.cap_step;
    fake.contexts++;
    fake.contexts_made++;
    *ret = c;
    return make_current(c);
}

static CUresult f_ctx_create_capped(CUcontext *ret, CUexecAffinityParam *p, int n, unsigned flags,
                                    CUdevice d)
{
    (void)flags;
    DO("cuCtxCreate", capped(ret, p, n, d));
}

static CUresult destroy(struct CUctx_st *c)
{
    if (c->streams > 0)
        broken("streams die before their context");
    if (current == c)
        (void)make_current(NULL);
    if (c->holders > 0)
        broken("a context is destroyed that is current to a thread");
    fake.contexts--;
    free(c);
    return CUDA_SUCCESS;
}

static CUresult f_ctx_destroy(CUcontext c)
{
    DO("cuCtxDestroy", destroy(c));
}

static CUresult affinity(CUexecAffinityParam *ret)
{
    if (!current)
        return CUDA_ERROR_INVALID_CONTEXT;
    ret->type = CU_EXEC_AFFINITY_TYPE_SM_COUNT;
    ret->param.smCount.val = (unsigned)current->units;
    return CUDA_SUCCESS;
}

static CUresult f_ctx_affinity(CUexecAffinityParam *ret, CUexecAffinityType t)
{
    (void)t;
    DO("cuCtxGetExecAffinity", affinity(ret));
}

static CUresult f_affinity_support(int *ret, CUexecAffinityType t, CUdevice d)
{
    (void)t, (void)d;
    DO("cuDeviceGetExecAffinitySupport", (*ret = CAPPED, CUDA_SUCCESS));
}

/* ---- SM groups and green contexts */
static CUresult whole(CUdevice d, CUdevResource *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->type = CU_DEV_RESOURCE_TYPE_SM;
    ret->sm.smCount = (unsigned)fake.sms;
    ret->_internal_padding[0] = (unsigned char)d;
    return CUDA_SUCCESS;
}

static CUresult f_device_resource(CUdevice d, CUdevResource *ret, CUdevResourceType t)
{
    (void)t;
    DO("cuDeviceGetDevResource", whole(d, ret));
}

/* The group's number lies where only a driver looks. */
static void group(const CUdevResource *from, unsigned number, unsigned units, CUdevResource *ret)
{
    *ret = *from;
    ret->sm.smCount = units;
    memcpy(ret->_internal_padding + 1, &number, sizeof(number));
}

static CUresult split(CUdevResource *ret, unsigned *n, const CUdevResource *in, CUdevResource *rest,
                      unsigned min)
{
    unsigned step = fake.major >= 9 ? 8 : 2, least = fake.major >= 9 ? 8 : fake.major == 8 ? 4 : 2;
    unsigned size = min < least ? least : (min + step - 1) / step * step;
    unsigned most = in->sm.smCount / size;

    most -= most > (unsigned)fake.groups_lost ? (unsigned)fake.groups_lost : most;
    if (!ret || *n > most)
        *n = most;
    if (!ret)
        return CUDA_SUCCESS;
    if (most == 0)
        return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    if (fake.splits[in->_internal_padding[0]]++ > 0)
        broken("a device is split once");
    for (unsigned i = 0; i < *n; i++)
        group(in, i + 1, size, &ret[i]);
    if (rest)
        group(in, *n + 1, in->sm.smCount - *n * size, rest);
    return CUDA_SUCCESS;
}

static CUresult f_sm_split(CUdevResource *ret, unsigned *n, const CUdevResource *in,
                           CUdevResource *rest, unsigned flags, unsigned min)
{
    (void)flags;
    DO("cuDevSmResourceSplitByCount", split(ret, n, in, rest, min));
}

static CUresult describe(CUdevResourceDesc *ret, const CUdevResource *groups, unsigned n)
{
    last_desc.units = 0;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < i; k++)
            if (memcmp(&groups[i], &groups[k], sizeof(*groups)) == 0)
                return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
        last_desc.units += (int)groups[i].sm.smCount;
    }
    *ret = &last_desc;
    return n > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult f_resource_desc(CUdevResourceDesc *ret, CUdevResource *groups, unsigned n)
{
    DO("cuDevResourceGenerateDesc", describe(ret, groups, n));
}

static CUresult green(CUgreenCtx *ret, CUdevResourceDesc desc, CUdevice d)
{
    struct CUgreenCtx_st *g = calloc(1, sizeof(*g));

    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (fake.primaries == 0)
        broken("a green context needs the primary one");
    g->ctx = (struct CUctx_st){.device = d, .units = desc->units, .green = true};
    fake.green++;
    *ret = g;
    return CUDA_SUCCESS;
}

static CUresult f_green_create(CUgreenCtx *ret, CUdevResourceDesc desc, CUdevice d, unsigned flags)
{
    if (flags != CU_GREEN_CTX_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    DO("cuGreenCtxCreate", green(ret, desc, d));
}

static CUresult green_end(struct CUgreenCtx_st *g)
{
    if (g->ctx.streams > 0)
        broken("streams die before their context");
    if (g->ctx.holders > 0)
        broken("a context is destroyed that is current to a thread");
    fake.green--;
    free(g);
    return CUDA_SUCCESS;
}

static CUresult f_green_destroy(CUgreenCtx g)
{
    DO("cuGreenCtxDestroy", green_end(g));
}

static CUresult f_green_resource(CUgreenCtx g, CUdevResource *ret, CUdevResourceType t)
{
    (void)t;
    DO("cuGreenCtxGetDevResource",
       (whole(g->ctx.device, ret), ret->sm.smCount = (unsigned)g->ctx.units, CUDA_SUCCESS));
}

static CUresult f_green_ctx(CUcontext *ret, CUgreenCtx g)
{
    DO("cuCtxFromGreenCtx", (*ret = &g->ctx, CUDA_SUCCESS));
}

/* ---- streams */
static CUresult stream(CUstream *ret, struct CUctx_st *c)
{
    struct CUstream_st *s = c ? calloc(1, sizeof(*s)) : NULL;

    if (!s)
        return c ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_CONTEXT;
    s->ctx = c;
    c->streams++;
    fake.streams++;
    *ret = s;
    return CUDA_SUCCESS;
}

static CUresult f_stream_create(CUstream *ret, unsigned flags)
{
    (void)flags;
    DO("cuStreamCreate", stream(ret, current));
}

static CUresult f_green_stream_create(CUstream *ret, CUgreenCtx g, unsigned flags, int priority)
{
    (void)priority;
    if (!(flags & CU_STREAM_NON_BLOCKING))
        return CUDA_ERROR_INVALID_VALUE;
    DO("cuGreenCtxStreamCreate", stream(ret, &g->ctx));
}

static CUresult stream_end(struct CUstream_st *s)
{
    s->ctx->streams--;
    fake.streams--;
    free(s);
    return CUDA_SUCCESS;
}

static CUresult f_stream_destroy(CUstream s)
{
    DO("cuStreamDestroy", stream_end(s));
}

/* ---- memory */
static CUresult f_mem_granularity(size_t *ret, const CUmemAllocationProp *p,
                                  CUmemAllocationGranularity_flags flags)
{
    (void)p, (void)flags;
    DO("cuMemGetAllocationGranularity", (*ret = PAGE_BYTES, CUDA_SUCCESS));
}

static CUresult reserve(CUdeviceptr *ret, size_t bytes)
{
    if (bytes == 0 || bytes % PAGE_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *ret = (CUdeviceptr)p;
    return p == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

static CUresult f_mem_reserve(CUdeviceptr *ret, size_t bytes, size_t align, CUdeviceptr at,
                              unsigned long long flags)
{
    (void)align, (void)at, (void)flags;
    DO("cuMemAddressReserve", reserve(ret, bytes));
}

static CUresult f_mem_unreserve(CUdeviceptr at, size_t bytes)
{
    DO("cuMemAddressFree",
       munmap((void *)at, bytes) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

static CUresult f_mem_create(CUmemGenericAllocationHandle *ret, size_t bytes,
                             const CUmemAllocationProp *p, unsigned long long flags)
{
    (void)p, (void)flags;
    DO("cuMemCreate",
       bytes > DEVICE_BYTES ? CUDA_ERROR_OUT_OF_MEMORY : (*ret = bytes, CUDA_SUCCESS));
}

static CUresult f_mem_release(CUmemGenericAllocationHandle h)
{
    (void)h;
    DO("cuMemRelease", CUDA_SUCCESS);
}

static CUresult map(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle h)
{
    if (offset != 0 || bytes != h)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < MAPPINGS_MAX; i++)
        if (!mapping[i].bytes) {
            mapping[i] = (struct mapping){.at = at, .bytes = bytes, .ctx = current};
            fake.mappings++;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult f_mem_map(CUdeviceptr at, size_t bytes, size_t offset,
                          CUmemGenericAllocationHandle h, unsigned long long flags)
{
    (void)flags;
    DO("cuMemMap", map(at, bytes, offset, h));
}

static struct mapping *mapping_of(CUdeviceptr at, size_t bytes)
{
    for (size_t i = 0; i < MAPPINGS_MAX; i++)
        if (at >= mapping[i].at && at + bytes <= mapping[i].at + mapping[i].bytes)
            return &mapping[i];
    return NULL;
}

static CUresult unmap(CUdeviceptr at, size_t bytes)
{
    struct mapping *m = mapping_of(at, bytes);

    if (!m || m->bytes != bytes)
        return CUDA_ERROR_INVALID_VALUE;
    m->bytes = 0;
    fake.mappings--;
    return CUDA_SUCCESS;
}

static CUresult f_mem_unmap(CUdeviceptr at, size_t bytes)
{
    DO("cuMemUnmap", unmap(at, bytes));
}

static CUresult f_mem_access(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *a, size_t n)
{
    (void)a, (void)n;
    DO("cuMemSetAccess", mprotect((void *)at, bytes, PROT_READ | PROT_WRITE) == 0
                             ? CUDA_SUCCESS
                             : CUDA_ERROR_INVALID_VALUE);
}

static CUresult copy(void *to, const void *from, size_t bytes, CUdeviceptr device)
{
    const struct mapping *m = mapping_of(device, bytes);

    if (!current)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!m || (fake.vmm_private && m->ctx != current))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, from, bytes);
    return CUDA_SUCCESS;
}

static CUresult f_copy_in(CUdeviceptr to, const void *from, size_t bytes)
{
    DO("cuMemcpyHtoD", copy((void *)to, from, bytes, to));
}

static CUresult f_copy_out(void *to, CUdeviceptr from, size_t bytes)
{
    DO("cuMemcpyDtoH", copy(to, (const void *)from, bytes, from));
}

static CUresult pin(void)
{
    if (!current)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (fake.registered > 0)
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    fake.registered++;
    return CUDA_SUCCESS;
}

static CUresult f_host_register(void *p, size_t bytes, unsigned flags)
{
    (void)p, (void)bytes, (void)flags;
    DO("cuMemHostRegister", pin());
}

static CUresult f_host_unregister(void *p)
{
    (void)p;
    DO("cuMemHostUnregister",
       fake.registered-- > 0 ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

/* ---- looking calls up */
static const struct {
    const char *name;
    int since;
    void *fn;
} calls[] = {
    {"cuInit", 2000, f_init},
    {"cuDriverGetVersion", 2020, f_driver_version},
    {"cuGetErrorName", 6000, f_error_name},
    {"cuDeviceGetCount", 2000, f_device_count},
    {"cuDeviceGet", 2000, f_device_get},
    {"cuDeviceGetName", 2000, f_device_name},
    {"cuDeviceGetUuid", 11040, f_device_uuid},
    {"cuDeviceGetAttribute", 2000, f_device_attribute},
    {"cuDeviceTotalMem", 3020, f_device_memory},
    {"cuDevicePrimaryCtxRetain", 7000, f_primary_retain},
    {"cuDevicePrimaryCtxRelease", 11000, f_primary_release},
    {"cuCtxSetCurrent", 4000, f_ctx_set_current},
    {"cuCtxCreate", 11040, f_ctx_create_capped},
    {"cuCtxDestroy", 4000, f_ctx_destroy},
    {"cuCtxGetExecAffinity", 11040, f_ctx_affinity},
    {"cuDeviceGetExecAffinitySupport", 11040, f_affinity_support},
    {"cuDeviceGetDevResource", 12040, f_device_resource},
    {"cuDevSmResourceSplitByCount", 12040, f_sm_split},
    {"cuDevResourceGenerateDesc", 12040, f_resource_desc},
    {"cuGreenCtxCreate", 12040, f_green_create},
    {"cuGreenCtxDestroy", 12040, f_green_destroy},
    {"cuGreenCtxGetDevResource", 12040, f_green_resource},
    {"cuCtxFromGreenCtx", 12040, f_green_ctx},
    {"cuGreenCtxStreamCreate", 12050, f_green_stream_create},
    {"cuStreamCreate", 2000, f_stream_create},
    {"cuStreamDestroy", 4000, f_stream_destroy},
    {"cuMemGetAllocationGranularity", 10020, f_mem_granularity},
    {"cuMemAddressReserve", 10020, f_mem_reserve},
    {"cuMemAddressFree", 10020, f_mem_unreserve},
    {"cuMemCreate", 10020, f_mem_create},
    {"cuMemRelease", 10020, f_mem_release},
    {"cuMemMap", 10020, f_mem_map},
    {"cuMemUnmap", 10020, f_mem_unmap},
    {"cuMemSetAccess", 10020, f_mem_access},
    {"cuMemcpyHtoD", 3020, f_copy_in},
    {"cuMemcpyDtoH", 3020, f_copy_out},
    {"cuMemHostRegister", 6050, f_host_register},
    {"cuMemHostUnregister", 4000, f_host_unregister},
};

/* As the real one: a call that is missing, or newer than the driver, is success and NULL. */
EXPORTED CUresult CUDAAPI cuGetProcAddress(const char *name, void **ret, int version,
                                           cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
    (void)flags;
    *ret = NULL;
    *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
        if (strcmp(calls[i].name, name) == 0 && calls[i].since <= fake.version &&
            calls[i].since <= version) {
            *ret = calls[i].fn;
            *status = CU_GET_PROC_ADDRESS_SUCCESS;
        }
    return CUDA_SUCCESS;
}
