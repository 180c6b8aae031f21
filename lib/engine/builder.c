/* The builder: one thread that does everything that takes time, in small steps.
 *
 * Its priority queue is a table of sources: each turn the first one that has something to do does
 * one step (at most one call into a backend), then the table is looked at from the top again.  So
 * a long load is interrupted by whatever is more urgent, and serving never waits for the builder.
 * It runs at nice +10.
 *
 * A thread inherits the nice value of its creator and may not lower it again, so executors, and
 * what a backend starts for runs, are started by another small thread, the spawner, which does
 * nothing else. */
#include "engine_priv.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define BUILDER_NICE 10

void builder_wake(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    e->work = true;
    (void)pthread_cond_signal(&e->cond);
    (void)pthread_mutex_unlock(&e->lock);
}

/* ---- sources of steps; true: one was done */
static bool step_retire_epoch(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    struct epoch *dead = e->dead;
    if (dead)
        e->dead = dead->next_dead;
    (void)pthread_mutex_unlock(&e->lock);
    epoch_free(e, dead);
    return dead != NULL;
}

static bool step_retire_seat(struct engine *e)
{
    struct seat *s = e->closing_seats;

    if (!s)
        return false;
    e->closing_seats = s->next_closing;
    seat_close(s);
    return true;
}

static bool step_retire_gpulet(struct engine *e)
{
    struct gpulet *g = e->closing_gpulets;

    if (!g)
        return false;
    e->closing_gpulets = g->next_closing;
    gpulet_close(g);
    return true;
}

/* A lost partition is opened again; if that fails it stays away and its requests get late. */
static bool step_reopen(struct engine *e)
{
    for (struct gpulet *g = e->gpulets; g; g = g->next) {
        struct err err;
        if (atomic_load(&g->state) != GPULET_LOST || g->reopen_at_us > clock_now_us())
            continue;
        if (gpulet_reopen(g, &err) == 0) {
            event(e, 4, "fault", "", g->id, "the partition is open again");
        } else {
            event(e, 3, "fault", "", g->id, "%s", err.msg);
            g->reopen_at_us = clock_now_us() + USEC_PER_SEC;
        }
        return true;
    }
    return false;
}

static bool build_one(struct engine *e, enum variant_state want)
{
    for (struct gpulet *g = e->gpulets; g; g = g->next)
        if (gpulet_build_one(g, want))
            return true;
    return false;
}

/* Requests wait for it: before loading, so that a load never delays another model. */
static bool step_wanted(struct engine *e)
{
    return build_one(e, EXE_WANTED);
}

static bool step_change(struct engine *e)
{
    if (!e->change) {
        (void)pthread_mutex_lock(&e->lock);
        e->change = e->changes;
        if (e->change && !(e->changes = e->change->next))
            e->changes_tail = &e->changes;
        (void)pthread_mutex_unlock(&e->lock);
    }
    if (!e->change)
        return false;
    leisure_give_up(e);
    change_run(e, e->change);
    return true;
}

static bool step_later(struct engine *e)
{
    return build_one(e, EXE_LATER);
}

static bool (*const sources[])(struct engine *) = {
    step_retire_epoch, step_retire_seat, step_retire_gpulet, step_leave_device, step_reopen,
    step_wanted,       step_change,      step_later,         step_leisure,
};

/* With nothing else to do, and nobody served, one more point is measured; then the builder sleeps
 * all the same, so that it is not busy for long. */
static bool builder_step(struct engine *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
        if (sources[i](e))
            return e->trim = true;
    profile_refine(e, clock_now_us());
    return false;
}

/* Sleeps until something comes; false: stop. */
static bool builder_wait(struct engine *e)
{
    struct timespec t;

    if (e->trim) /* what loads and compiles leave behind lies between what stays: malloc keeps it */
        (void)malloc_trim(0);
    e->trim = false;
    usec_t until_us = clock_now_us() + demand_wait_us(e);
    t.tv_sec = (time_t)(until_us / USEC_PER_SEC);
    t.tv_nsec = (long)(until_us % USEC_PER_SEC) * 1000;
    (void)pthread_mutex_lock(&e->lock);
    if (!e->work && !atomic_load(&e->stop))
        (void)pthread_cond_timedwait(&e->cond, &e->lock, &t);
    e->work = false;
    bool go_on = !atomic_load(&e->stop);
    (void)pthread_mutex_unlock(&e->lock);
    return go_on;
}

/* ---- devices */
static int devices_open(struct engine *e, struct err *err)
{
    size_t bytes;
    void *base;

    (void)pool_region(e->pool, &e->region.memfd, &base, &bytes);
    e->region.base = base;
    e->region.bytes = pool_window_bytes(e->pool);
    for (uint32_t i = 0; i < e->n_devices; i++) {
        struct engine_device *d = &e->device[i];
        int r = e->b->dev_open(&e->cfg.device, i, &d->dev, err);
        if (r < 0)
            return r;
        e->n_opened++;
        r = e->b->host_open(d->dev, &e->region, err);
        if (r < 0)
            return r;
        if (r > 0)
            pool_hold(e->pool);
        d->host = true;
    }
    return 0;
}

static void devices_close(struct engine *e)
{
    while (e->n_opened > 0) {
        struct engine_device *d = &e->device[--e->n_opened];
        if (d->host)
            e->b->host_close(d->dev, &e->region);
        e->b->dev_close(d->dev);
    }
}

/* ---- the thread */
static void builder_end(struct engine *e)
{
    struct err err;

    leisure_stop(e);
    (void)err_set(&err, -ECANCELED, "the daemon is stopping");
    for (;;) {
        struct change *c = TAKE(e->change);
        if (!c) {
            (void)pthread_mutex_lock(&e->lock);
            c = e->changes;
            if (c)
                e->changes = c->next;
            (void)pthread_mutex_unlock(&e->lock);
        }
        if (!c)
            break;
        change_fail(e, c, &err);
    }
    epoch_put(e, TAKE(e->epoch));
    while (step_retire_epoch(e) || step_retire_seat(e) || step_retire_gpulet(e))
        ;
    pin_free(e->pin);
    devices_close(e);
}

static void *builder_main(void *arg)
{
    struct engine *e = arg;
    struct err err;

    (void)pthread_setname_np(pthread_self(), "builder");
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), BUILDER_NICE);
    int r = devices_open(e, &err);
    (void)pthread_mutex_lock(&e->lock);
    e->started = true;
    e->start_rc = r;
    if (r < 0)
        e->start_err = err;
    (void)pthread_cond_broadcast(&e->start_cond);
    (void)pthread_mutex_unlock(&e->lock);
    while (r == 0 && builder_wait(e))
        do {
            demand_step(e);
        } while (!atomic_load(&e->stop) && builder_step(e));
    builder_end(e);
    return NULL;
}

/* ---- the spawner */
struct spawn {
    pthread_t *ret;
    void *(*fn)(void *);
    void *arg;
    int rc;
    bool done;
};

static void *spawner_main(void *arg)
{
    struct engine *e = arg;

    (void)pthread_setname_np(pthread_self(), "spawner");
    (void)pthread_mutex_lock(&e->spawn_lock);
    while (!e->spawn_stop) {
        struct spawn *s = e->spawn;
        if (s && !s->done) {
            s->rc = -pthread_create(s->ret, NULL, s->fn, s->arg);
            s->done = true;
            (void)pthread_cond_broadcast(&e->spawn_cond);
        }
        (void)pthread_cond_wait(&e->spawn_cond, &e->spawn_lock);
    }
    (void)pthread_mutex_unlock(&e->spawn_lock);
    return NULL;
}

int spawn_thread(void *engine, pthread_t *ret, void *(*fn)(void *), void *arg)
{
    struct engine *e = engine;
    struct spawn s = {.ret = ret, .fn = fn, .arg = arg};

    (void)pthread_mutex_lock(&e->spawn_lock);
    e->spawn = &s;
    (void)pthread_cond_broadcast(&e->spawn_cond);
    while (!s.done)
        (void)pthread_cond_wait(&e->spawn_cond, &e->spawn_lock);
    e->spawn = NULL;
    (void)pthread_mutex_unlock(&e->spawn_lock);
    return s.rc;
}

static void spawner_stop(struct engine *e)
{
    (void)pthread_mutex_lock(&e->spawn_lock);
    e->spawn_stop = true;
    (void)pthread_cond_broadcast(&e->spawn_cond);
    (void)pthread_mutex_unlock(&e->spawn_lock);
    (void)pthread_join(e->spawner, NULL);
}

/* ---- life */
int builder_start(struct engine *e, struct err *err)
{
    int r = -pthread_create(&e->spawner, NULL, spawner_main, e);

    if (r < 0)
        return err_set(err, r, "no thread: %s", strerror(-r));
    r = -pthread_create(&e->builder, NULL, builder_main, e);
    if (r < 0) {
        spawner_stop(e);
        return err_set(err, r, "no thread: %s", strerror(-r));
    }
    (void)pthread_mutex_lock(&e->lock);
    while (!e->started)
        (void)pthread_cond_wait(&e->start_cond, &e->lock);
    r = e->start_rc;
    if (r < 0 && err)
        *err = e->start_err;
    (void)pthread_mutex_unlock(&e->lock);
    if (r < 0) {
        (void)pthread_join(e->builder, NULL);
        spawner_stop(e);
    }
    return r;
}

void builder_stop(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    atomic_store(&e->stop, true);
    (void)pthread_cond_signal(&e->cond);
    (void)pthread_mutex_unlock(&e->lock);
    (void)pthread_join(e->builder, NULL);
    spawner_stop(e);
}
