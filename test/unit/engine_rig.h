/* What tests of the engine share: an engine on the fake backend, and calls that wait. */
#pragma once

#include "test/check.h"
#include "test/unit/fake_backend.h"

#include <gpulet/engine.h>
#include <poll.h>

#define WAIT_MS 20000

/* Of engines from now on: where profiles are kept, and when a comparison is begun anew. */
static const char *rig_profiles;
static usec_t rig_retry_us = USEC_PER_SEC / 10;

struct rig {
    struct engine *e;
    struct cq *cq;
    struct cq_item *left; /* taken and not given out yet */
};

static inline struct rig rig_with(const struct backend *backend, const struct policy *policy)
{
    struct rig r = {0};
    struct err err = {0};
    struct engine_config cfg = {.backend = backend,
                                .policy = policy,
                                .host_bytes = 64u << 20,
                                .queue_max = 64,
                                .max_batch = 8,
                                .timeout_us = 10 * USEC_PER_SEC,
                                .step_bound_us = 10 * USEC_PER_SEC,
                                .profiles = rig_profiles,
                                .retry_us = rig_retry_us};

    CHECK_EQ(engine_new(&cfg, &r.e, &err), 0);
    if (err.code)
        printf("# %s\n", err.msg);
    CHECK_EQ(cq_new(&r.cq), 0);
    return r;
}

static inline struct rig rig_on(const struct backend *backend)
{
    return rig_with(backend, &policy_equal);
}

static inline struct rig rig_new(unsigned granules)
{
    memset(&fake, 0, sizeof(fake));
    fake.granules = granules;
    fake.run_us = 200;
    return rig_on(&backend_fake);
}

/* Everything that was opened is closed again. */
static inline void rig_free(struct rig *r)
{
    for (unsigned i = 0; i < 1000 && engine_pending(r->e) > 0; i++)
        fake_sleep(1000); /* a request is counted until just after it has come back */
    CHECK_EQ(engine_pending(r->e), 0);
    CHECK_EQ(pool_used_bytes(engine_pool(r->e)), 0);
    engine_free(r->e);
    CHECK(!r->left);
    cq_free(r->cq);
    CHECK_EQ(fake.slots, 0);
    CHECK_EQ(fake.exes, 0);
    CHECK_EQ(fake.parts, 0);
    CHECK_EQ(fake.hosts, 0);
    CHECK_EQ(fake.devices, 0);
    CHECK_EQ(fake.bad_gather, 0);
}

/* The next completed item; NULL after WAIT_MS. */
static inline struct cq_item *rig_next(struct rig *r, int ms)
{
    struct pollfd p = {.fd = cq_fd(r->cq), .events = POLLIN};

    if (!r->left && poll(&p, 1, ms) == 1)
        r->left = cq_take(r->cq);
    struct cq_item *it = r->left;
    if (it)
        r->left = it->next;
    return it;
}

static inline struct model_spec rig_spec(const char *name, uint32_t version, const char *dir)
{
    struct model_spec s = {.version = version};

    (void)snprintf(s.name, sizeof(s.name), "%s", name);
    (void)snprintf(s.dir, sizeof(s.dir), "%s", dir);
    return s;
}

/* The job that was begun must be the next thing to come back. */
static inline int rig_job(struct rig *r, struct job *job)
{
    struct cq_item *it = rig_next(r, WAIT_MS);

    CHECK(it == &job->item);
    return it == &job->item ? job->rc : -ETIMEDOUT;
}

static inline int rig_load(struct rig *r, const struct model_spec *s, struct job *job)
{
    *job = (struct job){0};
    engine_load(r->e, s, job, r->cq);
    return rig_job(r, job);
}

static inline int rig_unload(struct rig *r, const char *name)
{
    struct job job = {0};

    engine_unload(r->e, name, &job, r->cq);
    return rig_job(r, &job);
}

static inline void rig_load_ok(struct rig *r, const char *name, uint32_t version, const char *dir)
{
    struct model_spec s = rig_spec(name, version, dir);
    struct job job;

    CHECK_EQ(rig_load(r, &s, &job), 0);
    if (job.rc)
        printf("# %s\n", job.err.msg);
}

/* A request of rows x cols floats for every input, element k of it is first + k. */
static inline int rig_fill(struct rig *r, struct request *q, const char *model, int64_t rows,
                           int64_t cols, float first)
{
    struct err err;
    int64_t dims[2] = {rows, cols};

    memset(q, 0, sizeof(*q));
    q->cq = r->cq;
    int rc = served_get(r->e, model, 0, &q->served, &err);
    if (rc < 0)
        return rc;
    size_t n = (size_t)(rows * cols);
    rc = slab_new(engine_pool(r->e), n * sizeof(float), &q->in_slab);
    if (rc < 0)
        return rc;
    for (size_t k = 0; k < n; k++)
        ((float *)q->in_slab->data)[k] = first + (float)k;
    for (uint32_t i = 0; i < q->served->n_in; i++) {
        (void)tensor_shape(&q->in[i], DT_FP32, 2, dims);
        q->in[i].data = q->in_slab->data;
    }
    return 0;
}

static inline bool rig_right(const struct request *q)
{
    const float *in = q->in[0].data, *out = q->out[0].data;

    if (q->fate != FATE_DONE || q->out[0].bytes != q->in[0].bytes || (uintptr_t)out % 64)
        return false;
    for (size_t k = 0; k < q->in[0].bytes / sizeof(float); k++)
        if (out[k] != 2 * in[k])
            return false;
    return true;
}

static inline void rig_drop(struct request *q)
{
    served_put(q->served);
    request_done(q);
}

/* One request, there and back: 0 and right, or the error it met. */
static inline int rig_infer(struct rig *r, const char *model, int64_t rows, int64_t cols)
{
    struct request q;
    int rc = rig_fill(r, &q, model, rows, cols, 3);

    if (rc == 0)
        rc = engine_submit(r->e, &q);
    if (rc == 0) {
        CHECK(rig_next(r, WAIT_MS) == &q.item);
        rc = q.rc;
        CHECK(rc < 0 || rig_right(&q));
    }
    rig_drop(&q);
    return rc;
}
