/* What the fakes of the libraries share.  Statuses are numbers: each library has its own. */
#pragma once

#include "fake.h"

#include <dlfcn.h>
#include <kernels/cuda/half.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

static inline const struct fake_driver *driver(void)
{
    static const struct fake_driver *found;
    void *so = found ? NULL : dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);

    if (so)
        found = (const struct fake_driver *)dlsym(so, FAKE_DRIVER_SYMBOL);
    if (!found)
        abort();
    return found;
}

/* A handle: of a context, and of one thread at a time.  What users count is not atomic, so that a
 * sanitizer sees two threads in it. */
struct fake_handle {
    void *context, *stream;
    int users, used;
};

static inline struct fake_handle *handle_new(void)
{
    struct fake_handle *h = driver()->context() ? calloc(1, sizeof(*h)) : NULL;

    if (!h)
        return NULL;
    h->context = driver()->context();
    driver()->hold(h->context, 1);
    (void)__atomic_fetch_add(&driver()->gpu->handles, 1, __ATOMIC_RELAXED);
    return h;
}

static inline void handle_free(struct fake_handle *h)
{
    driver()->hold(h->context, -1);
    (void)__atomic_fetch_sub(&driver()->gpu->handles, 1, __ATOMIC_RELAXED);
    free(h);
}

/* Between enter and leave it is in use. */
static inline void handle_enter(struct fake_handle *h)
{
    if (h->users++ > 0)
        driver()->broken("a handle is used by one thread at a time");
    if (driver()->context() != h->context)
        driver()->broken("a handle is used with its own context current");
}

/* The same, for work: the first time a library takes what it needs. */
static inline void handle_work(struct fake_handle *h)
{
    handle_enter(h);
    if (!h->used++)
        (void)__atomic_fetch_add(&driver()->gpu->handles_used, 1, __ATOMIC_RELAXED);
}

static inline void handle_leave(struct fake_handle *h)
{
    h->users--;
}

static inline void *descriptor_new(size_t bytes)
{
    void *p = calloc(1, bytes);

    if (p)
        (void)__atomic_fetch_add(&driver()->gpu->descriptors, 1, __ATOMIC_RELAXED);
    return p;
}

static inline void descriptor_free(void *p)
{
    if (p)
        (void)__atomic_fetch_sub(&driver()->gpu->descriptors, 1, __ATOMIC_RELAXED);
    free(p);
}

/* A way is launched: does it fail? */
static inline bool way_fails(int way)
{
    if (driver()->gpu->way_fails != way + 1)
        return false;
    (void)__atomic_fetch_add(&driver()->gpu->way_failed, 1, __ATOMIC_RELAXED);
    return true;
}

/* It is run, in its turn on its stream: under the driver's lock. */
static inline void way_run(int way)
{
    struct fake_gpu *g = driver()->gpu;

    g->way_runs[way]++;
    g->clock_ahead_ns += (unsigned long long)g->cost_ms[way] * 1000000u;
    if (g->cost_real)
        (void)usleep((useconds_t)g->cost_ms[way] * 1000);
}

/* A library may write anything there: whatever else lay there is gone. */
static inline void scribble(void *workspace, size_t bytes)
{
    if (bytes)
        memset(workspace, 0x5a, bytes);
}

/* Elements of 4 bytes are FP32, of 2 either FP16 or BF16. */
enum fake_type { FAKE_F32, FAKE_F16, FAKE_BF16 };

static inline float fake_load(const void *p, enum fake_type t, int64_t i)
{
    return t == FAKE_F32   ? ((const float *)p)[i]
           : t == FAKE_F16 ? fp16_to(((const uint16_t *)p)[i])
                           : bf16_to(((const uint16_t *)p)[i]);
}

static inline void fake_store(void *p, enum fake_type t, int64_t i, float x)
{
    if (t == FAKE_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = t == FAKE_F16 ? fp16_of(x) : bf16_of(x);
}
