/* libcuda.so.1 on host memory: see fake.h.  A device pointer is a host pointer.
 *
 * Copies and kernels are done when they are asked for, by the caller's thread; the calls on the
 * host come later, from another one. */
#include "fake.h"
#include "fake_inside.h"

#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define PAGE_BYTES ((size_t)2 << 20)
#define DEVICE_BYTES ((size_t)8 << 30)
#define MAPPINGS_MAX 256
#define CAPPED 1
#define ALIGNMENT 256 /* of what is allocated */
#define CALLS_MAX 16
#define ARGS_MAX 1024
#define HELD_US 1000
#define ATTRIBUTE_MPS_ENABLED 133

struct CUctx_st {
    int device, units, first; /* of its SMs */
    bool green;
    int streams, handles, graphs; /* alive in it */
    int holders;                  /* threads to which it is current */
};
struct CUgreenCtx_st {
    struct CUctx_st ctx;
};
struct CUstream_st {
    struct CUctx_st *ctx;
    int number, place; /* in fake.priority; in fake_order.c */
    CUgraph capture;   /* or NULL; this and the next two under the driver's lock */
    pthread_t capturer;
    bool spoilt;
    pthread_t caller; /* of host functions */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool stop; /* under lock, as the rest */
    unsigned n_calls;
    struct host_call {
        CUhostFn fn;
        void *arg;
        struct order before;
    } call[CALLS_MAX];
};
struct CUevent_st {
    struct CUctx_st *ctx;
    uint64_t ns; /* 0: not recorded */
    struct order before;
};
typedef void host_kernel(const void *args, unsigned blocks, unsigned threads);
struct CUdevResourceDesc_st {
    int units, first;
};
struct mapping {
    CUdeviceptr at;
    size_t bytes;
    struct CUctx_st *ctx; /* that was current when it was made */
};

static struct fake_gpu fake = {.gpus = 1,
                               .version = 13000,
                               .driver = 6,
                               .sms = 132,
                               .major = 9,
                               .cap_step = 2,
                               .greatest = -5,
                               .contexts_max = 48,
                               .library_cuda = 13000,
                               .library_offers = 3,
                               .library_workspace = 4096};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUctx_st primary[FAKE_GPUS_MAX];
static struct CUdevResourceDesc_st last_desc;
static struct mapping mapping[MAPPINGS_MAX];
static _Thread_local struct CUctx_st *current;
static _Thread_local struct CUstream_st *capturing; /* by this thread */
static bool is_up;
static const char *dies_at;

extern EXPORTED fake_gpu_fn fake_gpu;
EXPORTED struct fake_gpu *fake_gpu(void)
{
    return &fake;
}

static void broken(const char *rule)
{
    if (fake.broken++ == 0)
        fake.rule = rule;
    const char *strict = getenv("FAKE_GPU_STRICT");
    if (strict && strstr(rule, strict)) {
        (void)fprintf(stderr, "fake GPU: not so: %s\n", rule);
        abort();
    }
}

/* Under the lock: the call is written down; what it has to answer without doing anything. */
static CUresult enter(const char *name)
{
    if (dies_at && strcmp(dies_at, name) == 0)
        (void)raise(SIGSEGV);
    fake.used += (size_t)snprintf(fake.log + fake.used, sizeof(fake.log) - fake.used, "%s\n", name);
    if (fake.used >= sizeof(fake.log))
        fake.used = sizeof(fake.log) - 1;
    if (fake.fail_call && strcmp(fake.fail_call, name) == 0 && fake.fail_times != 0 &&
        fake.fail_after-- <= 0) {
        fake.fail_times -= fake.fail_times > 0;
        return (CUresult)fake.fail_code;
    }
    return is_up || strncmp(name, "cuInit", 6) == 0 || strncmp(name, "cuGetError", 10) == 0
               ? CUDA_SUCCESS
               : CUDA_ERROR_NOT_INITIALIZED;
}

static void slow(const char *name)
{
    const char *slow_call = fake.slow_call;

    if (slow_call && strcmp(slow_call, name) == 0)
        (void)usleep((useconds_t)fake.slow_ms * 1000);
}

CUresult fake_enter(const char *name)
{
    slow(name);
    (void)pthread_mutex_lock(&lock);
    return enter(name);
}

CUresult fake_leave(CUresult r)
{
    (void)pthread_mutex_unlock(&lock);
    return r;
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

void fake_broken(const char *rule)
{
    broken(rule);
}

bool fake_unsafe(void)
{
    if (!capturing)
        return false;
    capturing->spoilt = true;
    broken("nothing is made, and nothing waited for, while a stream captures");
    return true;
}

void fake_hold_graphs(CUcontext ctx, int n)
{
    fake.graphs += n;
    if (ctx)
        ctx->graphs += n;
}

/* What dies with a context, or before it. */
static void check_empty(const struct CUctx_st *c)
{
    if (c->streams > 0)
        broken("streams die before their context");
    if (c->handles > 0)
        broken("handles of libraries die before their context");
    if (c->graphs > 0)
        broken("graphs die before their context");
}

/* ---- start and devices */
static void knob(const char *env, const char *name, int *ret)
{
    const char *at = env ? strstr(env, name) : NULL;

    if (at && at[strlen(name)] == '=')
        *ret = atoi(at + strlen(name) + 1);
}

/* A file stands for the control daemon's socket. */
static bool mps_answers(void)
{
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/control", dir ? dir : "");
    return dir && access(path, F_OK) == 0;
}

static CUresult up(void)
{
    const char *env = getenv("FAKE_GPU");

    dies_at = getenv("FAKE_GPU_DIE");
    knob(env, "gpus", &fake.gpus);
    knob(env, "sms", &fake.sms);
    knob(env, "major", &fake.major);
    knob(env, "groups_lost", &fake.groups_lost);
    knob(env, "mps", &fake.mps);
    knob(env, "mig", &fake.mig);
    knob(env, "vmm_private", &fake.vmm_private);
    knob(env, "greatest", &fake.greatest);
    if (getenv("FAKE_GPU_FAIL")) {
        fake.fail_call = getenv("FAKE_GPU_FAIL");
        fake.fail_code = CUDA_ERROR_OUT_OF_MEMORY;
        fake.fail_times = 1;
        knob(env, "fail_code", &fake.fail_code);
    }
    knob(env, "capture_refused", &fake.capture_refused);
    knob(env, "library_cuda", &fake.library_cuda);
    knob(env, "library_refuses", &fake.library_refuses);
    knob(env, "library_columns", &fake.library_columns);
    if (fake.gpus < 0 || fake.gpus > FAKE_GPUS_MAX)
        abort();
    fake.mps |= mps_answers();
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
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *ret = 0;
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
    DO("cuDevicePrimaryCtxRetain", (fake.primaries++, fake.contexts_ever++, primary[d].device = d,
                                    primary[d].units = fake.sms, *ret = &primary[d], CUDA_SUCCESS));
}

static CUresult release(CUdevice d)
{
    check_empty(&primary[d]);
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
    fake.contexts_ever++;
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
    check_empty(c);
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
    unsigned number = 0;

    last_desc.units = 0;
    memcpy(&number, groups[0]._internal_padding + 1, sizeof(number));
    last_desc.first = number > 0 ? (int)((number - 1) * groups[0].sm.smCount) : 0;
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
    g->ctx =
        (struct CUctx_st){.device = d, .units = desc->units, .first = desc->first, .green = true};
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
    check_empty(&g->ctx);
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
static bool is_held(const struct CUstream_st *s)
{
    int held = __atomic_load_n(&fake.held, __ATOMIC_RELAXED);

    return held == 1 || held == HELD_STREAM(s->number);
}

static void *stream_main(void *arg)
{
    struct CUstream_st *s = arg;

    (void)pthread_mutex_lock(&s->lock);
    while (!s->stop || s->n_calls > 0) {
        if (s->n_calls == 0) {
            (void)pthread_cond_wait(&s->cond, &s->lock);
            continue;
        }
        struct host_call c = s->call[0];
        (void)pthread_mutex_unlock(&s->lock);
        while (is_held(s))
            (void)usleep(HELD_US);
        (void)pthread_mutex_lock(&lock);
        order_done(&c.before);
        (void)pthread_mutex_unlock(&lock);
        c.fn(c.arg);
        (void)pthread_mutex_lock(&s->lock);
        s->n_calls--;
        memmove(s->call, s->call + 1, s->n_calls * sizeof(c));
        (void)pthread_cond_broadcast(&s->cond);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

static CUresult stream(CUstream *ret, struct CUctx_st *c, unsigned flags, int priority)
{
    if (!(flags & CU_STREAM_NON_BLOCKING))
        return CUDA_ERROR_INVALID_VALUE;

    struct CUstream_st *s = c ? calloc(1, sizeof(*s)) : NULL;

    if (!s)
        return c ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_CONTEXT;
    s->ctx = c;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->cond, NULL);
    if (pthread_create(&s->caller, NULL, stream_main, s) != 0)
        abort();
    s->number = fake.streams_made++;
    s->place = order_stream_new();
    if (s->number < FAKE_STREAMS_MAX)
        fake.priority[s->number] = priority;
    c->streams++;
    fake.streams++;
    *ret = s;
    return CUDA_SUCCESS;
}

static CUresult priority_range(int *ret_least, int *ret_greatest)
{
    *ret_least = fake.least;
    *ret_greatest = fake.greatest;
    return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult f_priority_range(int *ret_least, int *ret_greatest)
{
    DO("cuCtxGetStreamPriorityRange", priority_range(ret_least, ret_greatest));
}

static CUresult f_stream_create(CUstream *ret, unsigned flags, int priority)
{
    DO("cuStreamCreateWithPriority", stream(ret, current, flags, priority));
}

static CUresult f_green_stream_create(CUstream *ret, CUgreenCtx g, unsigned flags, int priority)
{
    DO("cuGreenCtxStreamCreate", stream(ret, &g->ctx, flags, priority));
}

static CUresult stream_end(struct CUstream_st *s)
{
    s->ctx->streams--;
    fake.streams--;
    order_stream_end(s->place);
    return CUDA_SUCCESS;
}

static CUresult stream_unlist(struct CUstream_st *s)
{
    DO("cuStreamDestroy", stream_end(s));
}

static CUresult f_stream_destroy(CUstream s)
{
    CUresult r = stream_unlist(s);

    (void)pthread_mutex_lock(&s->lock);
    s->stop = true;
    (void)pthread_cond_broadcast(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->caller, NULL);
    free(s);
    return r;
}

static CUresult stream_state(struct CUstream_st *s)
{
    if (s->capture && fake_unsafe())
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    (void)pthread_mutex_lock(&s->lock);
    unsigned n = s->n_calls;
    (void)pthread_mutex_unlock(&s->lock);
    return n > 0 ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

/* Success is the end of all that was put on it, as if it had been waited for. */
static CUresult stream_asked(struct CUstream_st *s)
{
    CUresult is = stream_state(s);
    struct order all;

    if (is == CUDA_SUCCESS) {
        order_now(s->place, &all);
        order_done(&all);
    }
    return is;
}

static CUresult f_stream_query(CUstream s)
{
    DO("cuStreamQuery", stream_asked(s));
}

static CUresult stream_waits(struct CUstream_st *s)
{
    struct order all;

    fake_trace("cuStreamSynchronize", s);
    if (s->capture && fake_unsafe())
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    order_now(s->place, &all);
    order_done(&all);
    return CUDA_SUCCESS;
}

static CUresult f_stream_wait(CUstream s)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->n_calls > 0)
        (void)pthread_cond_wait(&s->cond, &s->lock);
    (void)pthread_mutex_unlock(&s->lock);
    DO("cuStreamSynchronize", stream_waits(s));
}

static CUresult call_host(struct CUstream_st *s, CUhostFn fn, void *arg)
{
    fake_trace("cuLaunchHostFunc", s);
    (void)pthread_mutex_lock(&s->lock);
    if (s->n_calls == CALLS_MAX)
        abort();
    struct host_call *c = &s->call[s->n_calls++];
    *c = (struct host_call){.fn = fn, .arg = arg};
    order_now(s->place, &c->before);
    (void)pthread_cond_broadcast(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
    return CUDA_SUCCESS;
}

static CUresult f_launch_host(CUstream s, CUhostFn fn, void *arg)
{
    DO("cuLaunchHostFunc", call_host(s, fn, arg));
}

/* What a call on a stream needs: that its context is current. */
static CUresult on(const struct CUstream_st *s)
{
    return s->ctx == current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult fake_on(CUstream s)
{
    return on(s);
}

CUcontext fake_context(CUstream s)
{
    return s->ctx;
}

void fake_does(CUstream s, const void *args, size_t bytes)
{
    order_kernel(s->place, args, bytes);
}

void fake_trace(const char *name, CUstream s)
{
    if (fake.traced < sizeof(fake.trace) - 64)
        fake.traced += (size_t)snprintf(fake.trace + fake.traced, 64, "%s %d\n", name, s->number);
}

/* Done now, or written down if the stream captures. */
static CUresult act(struct CUstream_st *s, void (*fn)(const void *data), const void *data,
                    size_t bytes)
{
    CUresult r = on(s);

    if (r == CUDA_SUCCESS && !s->capture) {
        order_kernel(s->place, data, bytes);
        fn(data);
    } else if (r == CUDA_SUCCESS) {
        if (!pthread_equal(s->capturer, pthread_self()))
            broken("what one thread captures another does not add to");
        fake_graph_add(s->capture, fn, data, bytes);
    }
    return r;
}

/* ---- capture */
static CUresult capture_begin(struct CUstream_st *s, CUstreamCaptureMode mode)
{
    if (on(s) != CUDA_SUCCESS)
        return on(s);
    if (fake.capture_refused || s->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        broken("a capture does not forbid what other threads do");
    s->capture = fake_graph_new(s->ctx);
    if (!s->capture)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->capturer = pthread_self();
    s->spoilt = false;
    capturing = s;
    return CUDA_SUCCESS;
}

static CUresult f_capture_begin(CUstream s, CUstreamCaptureMode mode)
{
    DO("cuStreamBeginCapture", capture_begin(s, mode));
}

/* Ends it also where it fails. */
static CUresult f_capture_end(CUstream s, CUgraph *ret)
{
    (void)pthread_mutex_lock(&lock);
    CUresult r = enter("cuStreamEndCapture");
    *ret = s->capture;
    s->capture = NULL;
    capturing = NULL;
    if (r == CUDA_SUCCESS && s->spoilt)
        r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (r != CUDA_SUCCESS) {
        fake_graph_free(*ret);
        *ret = NULL;
    }
    (void)pthread_mutex_unlock(&lock);
    return r;
}

/* ---- events */
static CUresult event(CUevent *ret)
{
    struct CUevent_st *e = current ? calloc(1, sizeof(*e)) : NULL;

    if (!e)
        return current ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_CONTEXT;
    e->ctx = current;
    fake.events++;
    *ret = e;
    return CUDA_SUCCESS;
}

static CUresult f_event_create(CUevent *ret, unsigned flags)
{
    (void)flags;
    DO("cuEventCreate", event(ret));
}

static CUresult f_event_destroy(CUevent e)
{
    DO("cuEventDestroy", (free(e), fake.events--, CUDA_SUCCESS));
}

static CUresult event_record(struct CUevent_st *e, struct CUstream_st *s)
{
    struct timespec t;

    fake_trace("cuEventRecord", s);
    if (e->ctx != s->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    e->ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec + fake.clock_ahead_ns;
    order_now(s->place, &e->before);
    return CUDA_SUCCESS;
}

static CUresult stream_after(struct CUstream_st *s, const struct CUevent_st *e)
{
    fake_trace("cuStreamWaitEvent", s);
    if (e->ctx != s->ctx || on(s) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_HANDLE;
    if (e->ns == 0)
        broken("an event is recorded before a stream waits for it");
    order_after(s->place, &e->before);
    return CUDA_SUCCESS;
}

static CUresult f_stream_wait_event(CUstream s, CUevent e, unsigned flags)
{
    (void)flags;
    DO("cuStreamWaitEvent", stream_after(s, e));
}

static CUresult f_event_record(CUevent e, CUstream s)
{
    DO("cuEventRecord", event_record(e, s));
}

static CUresult f_event_elapsed(float *ret_ms, CUevent from, CUevent to)
{
    DO("cuEventElapsedTime", (*ret_ms = (float)(to->ns - from->ns) / 1e6f, CUDA_SUCCESS));
}

/* ---- kernels: those of the host */
static void *kernels; /* under the lock: libkernels.so */

static void *host_kernels(void)
{
    char path[512];
    Dl_info here;

    if (!dladdr((void *)fake_gpu, &here))
        return NULL;
    (void)snprintf(path, sizeof(path), "%s", here.dli_fname);
    char *end = strrchr(path, '/');
    (void)snprintf(end ? end + 1 : path, 32, "libkernels.so");
    return kernels = dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static CUresult f_library_load(CUlibrary *ret, const void *code, CUjit_option *o, void **v,
                               unsigned n, CUlibraryOption *lo, void **lv, unsigned ln)
{
    (void)code, (void)o, (void)v, (void)n, (void)lo, (void)lv, (void)ln;
    DO("cuLibraryLoadData", (*ret = host_kernels()) ? CUDA_SUCCESS : CUDA_ERROR_NO_BINARY_FOR_GPU);
}

static CUresult f_library_unload(CUlibrary l)
{
    DO("cuLibraryUnload", dlclose(l) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

static CUresult f_library_kernel(CUkernel *ret, CUlibrary l, const char *name)
{
    DO("cuLibraryGetKernel", (*ret = dlsym(l, name)) ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND);
}

CUresult fake_run(CUfunction f, CUcontext ctx, unsigned blocks, unsigned threads, const void *args)
{
    unsigned *sms = dlsym(kernels, "gpulet_fake_sms");

    if (blocks == 0 || threads == 0 || threads > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    if (sms) { /* for a kernel that asks where it is */
        sms[0] = (unsigned)ctx->first;
        sms[1] = (unsigned)ctx->units;
    }
    ((host_kernel *)f)(args, blocks, threads);
    return CUDA_SUCCESS;
}

struct launch { /* with its arguments, as they are when it is made */
    CUfunction kernel;
    CUcontext ctx;
    unsigned blocks, threads;
    _Alignas(16) char args[ARGS_MAX];
};

static void launch_run(const void *data)
{
    const struct launch *l = data;

    (void)fake_run(l->kernel, l->ctx, l->blocks, l->threads, l->args);
}

static CUresult run(CUfunction f, unsigned blocks, unsigned threads, struct CUstream_st *s,
                    void **args)
{
    struct launch l = {f, s->ctx, blocks, threads, {0}};
    unsigned bytes = fake_args_bytes((CUkernel)f);

    fake_trace("cuLaunchKernel", s);
    if (!s->capture && on(s) == CUDA_SUCCESS) {
        order_kernel(s->place, args[0], bytes);
        return fake_run(f, s->ctx, blocks, threads, args[0]);
    }
    if (!s->capture)
        return on(s);
    if (bytes == 0 || bytes > ARGS_MAX || blocks == 0 || threads == 0 || threads > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(l.args, args[0], bytes);
    return act(s, launch_run, &l, sizeof(l));
}

static CUresult f_launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                         unsigned by, unsigned bz, unsigned shared, CUstream s, void **args,
                         void **extra)
{
    (void)shared, (void)extra;
    if (gy != 1 || gz != 1 || by != 1 || bz != 1)
        return CUDA_ERROR_INVALID_VALUE;
    DO("cuLaunchKernel", run(f, gx, bx, s, args));
}

/* ---- for the fakes of libraries */
static int lib_enter(const char *name)
{
    slow(name);
    (void)pthread_mutex_lock(&lock);
    int r = (int)enter(name);
    (void)pthread_mutex_unlock(&lock);
    return r;
}

static void lib_broken(const char *rule)
{
    (void)pthread_mutex_lock(&lock);
    broken(rule);
    (void)pthread_mutex_unlock(&lock);
}

static void *lib_context(void)
{
    return current;
}

static void lib_hold(void *context, int n)
{
    (void)pthread_mutex_lock(&lock);
    ((struct CUctx_st *)context)->handles += n;
    (void)pthread_mutex_unlock(&lock);
}

static int lib_run(void *stream, void (*fn)(const void *data), const void *data, size_t bytes)
{
    (void)pthread_mutex_lock(&lock);
    CUresult r = act(stream, fn, data, bytes);
    (void)pthread_mutex_unlock(&lock);
    return r == CUDA_SUCCESS ? 0 : -1;
}

extern EXPORTED const struct fake_driver fake_driver;
EXPORTED const struct fake_driver fake_driver = {.gpu = &fake,
                                                 .enter = lib_enter,
                                                 .broken = lib_broken,
                                                 .context = lib_context,
                                                 .hold = lib_hold,
                                                 .run = lib_run};

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

static CUresult allocate(void **ret, size_t bytes)
{
    if (!current || fake_unsafe())
        return current ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_ERROR_INVALID_CONTEXT;
    *ret = bytes > 0 && bytes <= DEVICE_BYTES
               ? aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)
               : NULL;
    if (!*ret)
        return bytes > 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    memset(*ret, 0xa5, bytes);
    order_memory(*ret, bytes);
    fake.allocations++;
    return CUDA_SUCCESS;
}

static CUresult f_mem_alloc(CUdeviceptr *ret, size_t bytes)
{
    DO("cuMemAlloc", allocate((void **)ret, bytes));
}

static CUresult f_mem_free(CUdeviceptr p)
{
    DO("cuMemFree",
       (order_memory_end((void *)p), free((void *)p), fake.allocations--, CUDA_SUCCESS));
}

static CUresult f_host_alloc(void **ret, size_t bytes, unsigned flags)
{
    (void)flags;
    DO("cuMemHostAlloc", allocate(ret, bytes));
}

static CUresult f_host_free(void *p)
{
    DO("cuMemFreeHost", (order_memory_end(p), free(p), fake.allocations--, CUDA_SUCCESS));
}

/* Of what is not pinned, which is what all that comes here may be: not while it captures. */
static CUresult copy_async(void *to, const void *from, size_t bytes, const struct CUstream_st *s)
{
    CUresult r = s->capture && fake_unsafe() ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : on(s);

    if (r != CUDA_SUCCESS)
        return r;
    order_touch(s->place, from, bytes, false);
    order_touch(s->place, to, bytes, true);
    memcpy(to, from, bytes);
    return CUDA_SUCCESS;
}

static CUresult zero_async(void *to, unsigned char value, size_t bytes, const struct CUstream_st *s)
{
    if (on(s) != CUDA_SUCCESS)
        return on(s);
    order_touch(s->place, to, bytes, true);
    memset(to, value, bytes);
    return CUDA_SUCCESS;
}

static CUresult f_copy_in_async(CUdeviceptr to, const void *from, size_t bytes, CUstream s)
{
    DO("cuMemcpyHtoDAsync",
       (fake_trace("cuMemcpyHtoDAsync", s), copy_async((void *)to, from, bytes, s)));
}

static CUresult f_copy_out_async(void *to, CUdeviceptr from, size_t bytes, CUstream s)
{
    DO("cuMemcpyDtoHAsync",
       (fake_trace("cuMemcpyDtoHAsync", s), copy_async(to, (const void *)from, bytes, s)));
}

static CUresult f_zero_async(CUdeviceptr p, unsigned char value, size_t bytes, CUstream s)
{
    DO("cuMemsetD8Async",
       (fake_trace("cuMemsetD8Async", s), zero_async((void *)p, value, bytes, s)));
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
    {"cuCtxGetStreamPriorityRange", 5050, f_priority_range},
    {"cuStreamCreateWithPriority", 5050, f_stream_create},
    {"cuStreamWaitEvent", 3020, f_stream_wait_event},
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
    {"cuStreamQuery", 2000, f_stream_query},
    {"cuStreamSynchronize", 2000, f_stream_wait},
    {"cuStreamBeginCapture", 10010, f_capture_begin},
    {"cuStreamEndCapture", 10000, f_capture_end},
    {"cuEventCreate", 2000, f_event_create},
    {"cuEventDestroy", 4000, f_event_destroy},
    {"cuEventRecord", 2000, f_event_record},
    {"cuEventElapsedTime", 2000, f_event_elapsed},
    {"cuLibraryLoadData", 12000, f_library_load},
    {"cuLibraryUnload", 12000, f_library_unload},
    {"cuLibraryGetKernel", 12000, f_library_kernel},
    {"cuLaunchKernel", 4000, f_launch},
    {"cuLaunchHostFunc", 10000, f_launch_host},
    {"cuMemAlloc", 3020, f_mem_alloc},
    {"cuMemFree", 3020, f_mem_free},
    {"cuMemHostAlloc", 2020, f_host_alloc},
    {"cuMemFreeHost", 2000, f_host_free},
    {"cuMemcpyHtoDAsync", 3020, f_copy_in_async},
    {"cuMemcpyDtoHAsync", 3020, f_copy_out_async},
    {"cuMemsetD8Async", 3020, f_zero_async},
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
    knob(getenv("FAKE_GPU"), "version", &fake.version); /* asked before cuInit() */
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
        if (strcmp(calls[i].name, name) == 0 && calls[i].since <= fake.version &&
            calls[i].since <= version) {
            *ret = calls[i].fn;
            *status = CU_GET_PROC_ADDRESS_SUCCESS;
        }
    if (!*ret && (*ret = fake_more(name, version)))
        *status = CU_GET_PROC_ADDRESS_SUCCESS;
    return CUDA_SUCCESS;
}
