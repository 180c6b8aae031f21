/* What is lost under load: runs that do not end, partitions, devices.
 *
 * A run that is far beyond its prediction is given up, if the backend can, and its partition with
 * it.  A lost partition is the builder's: it opens another one under the same executor, and what
 * waits there waits on.  A lost device takes all its gpu-lets out of service: what waits in them is
 * refused, requests go to gpu-lets on other devices, and the builder makes a plan without it.  Is
 * it the only device, the process must leave.  What was in flight is answered with 503: it may
 * well be tried again.  Executor, but where it says otherwise. */
#include "engine_priv.h"

#include <stdio.h>

/* A run may take so many times what was predicted, but no less than HANG_LEAST_US more. */
#define HANG_FACTOR 16
#define HANG_LEAST_US (USEC_PER_SEC / 4)

/* Never as long as would be a stall. */
static usec_t slack_us(const struct engine *e, usec_t run_us)
{
    usec_t us = MAX(HANG_FACTOR * MIN(run_us, USEC_PER_SEC * 3600), HANG_LEAST_US);

    return MIN(us, e->cfg.step_bound_us / 2);
}

usec_t hang_due_us(const struct engine *e, usec_t predicted_end_us, usec_t run_us)
{
    return e->b->abort ? predicted_end_us + slack_us(e, run_us) : USEC_NEVER;
}

/* The first that should have ended; a probe of the builder's goes before it. */
static const struct run *run_due(const struct gpulet *g, usec_t *ret_us)
{
    const struct run *first = NULL;

    for (unsigned i = 0; i < MAX_LANES; i++)
        if (g->run[i].used && (!first || g->run[i].due_us < first->due_us))
            first = &g->run[i];
    if (!first || first->due_us == USEC_NEVER)
        *ret_us = USEC_NEVER;
    else
        *ret_us = MAX(first->due_us, atomic_load(&g->probe_us) + HANG_LEAST_US);
    return first;
}

usec_t gpulet_due_us(const struct gpulet *g)
{
    usec_t us;

    (void)run_due(g, &us);
    return us;
}

bool hang_check(struct gpulet *g)
{
    char model[MODEL_NAME_MAX + 1];
    usec_t now_us = clock_now_us(), due_us;
    const struct run *run = run_due(g, &due_us);

    if (now_us < due_us)
        return false;
    (void)snprintf(model, sizeof(model), "%s", run->q->seat->l->name);
    event(g->e, 3, "fault", model, g->id, "a run of %u rows has not ended after %llu ms: given up",
          run->rows, (unsigned long long)((now_us - run->start_us) / USEC_PER_MSEC));
    watch_enter(&g->watch, "abort", now_us + g->e->cfg.step_bound_us);
    g->e->b->abort(g->part);
    watch_leave(&g->watch);
    return loss_check(g, model);
}

/* ---- what is left behind */
static void runs_fail(struct gpulet *g)
{
    for (unsigned i = 0; i < MAX_LANES; i++)
        if (g->run[i].used) {
            struct err err;
            (void)err_set(&err, -EAGAIN, "gpu-let %u lost its partition during the run", g->id);
            run_finish(g, &g->run[i], -EAGAIN, 0, &err);
        }
}

static void queues_refuse(struct gpulet *g)
{
    struct err err;

    struct request *first = gpulet_empty(g);
    (void)err_set(&err, -EAGAIN, "the device of gpu-let %u is lost", g->id);
    if (first)
        requests_finish(g->e, first, FATE_FAILED, -EAGAIN, &err, clock_now_us());
}

/* Any thread.  Are there others? */
static bool device_mark_lost(struct engine *e, uint32_t device)
{
    bool others = false;

    (void)pthread_mutex_lock(&e->lock);
    atomic_store(&e->device[device].lost, true);
    for (uint32_t i = 0; i < e->n_devices; i++)
        others |= !atomic_load(&e->device[i].lost);
    e->work = true;
    (void)pthread_cond_signal(&e->cond);
    (void)pthread_mutex_unlock(&e->lock);
    return others;
}

static void process_lost(struct gpulet *g, const char *model)
{
    (void)pthread_mutex_lock(&g->e->lock);
    if (g->e->lost.code == 0)
        (void)err_set(&g->e->lost, -ENODEV, "gpu-let %u lost its device%s%s%s", g->id,
                      model[0] ? " while running model '" : "", model, model[0] ? "'" : "");
    (void)pthread_mutex_unlock(&g->e->lock);
}

bool loss_check(struct gpulet *g, const char *model)
{
    static const char *const what[] = {
        [FAULT_PART] = "the partition is lost; it will be opened again",
        [FAULT_DEVICE] = "its device is lost; others go on without it",
        [FAULT_PROCESS] = "the device is lost; the process must leave"};
    enum part_fault f = g->e->b->fault(g->part);

    if (f == FAULT_NONE)
        return false;
    if (f == FAULT_DEVICE && !device_mark_lost(g->e, g->device))
        f = FAULT_PROCESS;
    event(g->e, 3, "fault", model, g->id, "%s", what[f]);
    if (f == FAULT_PROCESS)
        process_lost(g, model);
    runs_fail(g);
    g->entered = false;
    (void)pthread_mutex_lock(&g->lock);
    g->lost = true;
    g->gone = f == FAULT_DEVICE;
    (void)pthread_mutex_unlock(&g->lock);
    if (f == FAULT_DEVICE) {
        atomic_store(&g->state, GPULET_GONE);
        queues_refuse(g); /* nothing is put there any more */
    }
    if (f == FAULT_PART) {
        atomic_store(&g->state, GPULET_LOST);
        builder_wake(g->e);
    }
    return true;
}

/* ---- builder */
bool step_leave_device(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_devices; i++) {
        struct engine_device *d = &e->device[i];
        if (!atomic_load(&d->lost) || d->left)
            continue;
        d->left = true;
        event(e, 3, "fault", "", PLAN_NONE, "device '%s' is lost: planning without it",
              d->info.name);
        change_leave(e, d->info.name);
        return true;
    }
    return false;
}
