/* Events: a ring of the last EVENTS_MAX, numbered from 1.  A reader copies a few at a time under
 * the lock and does its allocation outside, so that a writer never waits for it. */
#include "engine_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define COPY_AT_ONCE 8

int events_init(struct events *ev)
{
    ev->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ev->fd < 0)
        return -errno;
    ev->ring = calloc(EVENTS_MAX, sizeof(*ev->ring));
    for (size_t i = 0; ev->ring && i < EVENTS_MAX; i++)
        ev->ring[i].gpulet = PLAN_NONE; /* takes its pages now: memory does not grow with events */
    (void)pthread_mutex_init(&ev->lock, NULL);
    return ev->ring ? 0 : -ENOMEM;
}

void events_done(struct events *ev)
{
    if (ev->fd < 0)
        return;
    (void)close(ev->fd);
    (void)pthread_mutex_destroy(&ev->lock);
    free(ev->ring);
}

static uint64_t wall_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void event_put(struct engine *e, int level, const char *what, const char *model, uint32_t version,
               uint32_t gpulet, const char *fmt, ...)
{
    struct event v = {.at_us = clock_now_us(),
                      .wall_ms = wall_ms(),
                      .level = level,
                      .what = what,
                      .version = version,
                      .gpulet = gpulet};
    va_list ap;

    (void)snprintf(v.model, sizeof(v.model), "%s", model ? model : "");
    va_start(ap, fmt);
    (void)vsnprintf(v.msg, sizeof(v.msg), fmt, ap);
    va_end(ap);
    (void)pthread_mutex_lock(&e->events.lock);
    e->events.ring[e->events.last++ % EVENTS_MAX] = v;
    (void)pthread_mutex_unlock(&e->events.lock);
    (void)eventfd_write(e->events.fd, 1);
}

/* Copies events after *since; returns how many and moves *since. */
static uint32_t events_copy(struct events *ev, uint64_t *since, struct event *ret)
{
    uint32_t n = 0;

    (void)pthread_mutex_lock(&ev->lock);
    if (ev->last > EVENTS_MAX && *since < ev->last - EVENTS_MAX)
        *since = ev->last - EVENTS_MAX;
    for (; n < COPY_AT_ONCE && *since < ev->last; n++)
        ret[n] = ev->ring[(*since)++ % EVENTS_MAX];
    (void)pthread_mutex_unlock(&ev->lock);
    return n;
}

int engine_events(struct engine *e, uint64_t since, struct arena *a, struct view_event **ret,
                  uint32_t *ret_n, uint64_t *ret_last)
{
    struct view_event *out = ARENA_ARRAY(a, struct view_event, EVENTS_MAX);
    struct event copy[COPY_AT_ONCE];
    eventfd_t drop;
    uint32_t n = 0, got;

    if (!out)
        return -ENOMEM;
    (void)eventfd_read(e->events.fd, &drop);
    while (n + COPY_AT_ONCE <= EVENTS_MAX && (got = events_copy(&e->events, &since, copy)) > 0)
        for (uint32_t i = 0; i < got; i++) {
            const struct event *v = &copy[i];
            out[n] = (struct view_event){.at_us = v->at_us,
                                         .wall_ms = v->wall_ms,
                                         .level = v->level,
                                         .what = v->what,
                                         .model = arena_strdup(a, v->model),
                                         .version = v->version,
                                         .gpulet = v->gpulet,
                                         .msg = arena_strdup(a, v->msg)};
            if (!out[n].model || !out[n].msg)
                return -ENOMEM;
            n++;
        }
    *ret = out;
    *ret_n = n;
    *ret_last = since;
    return 0;
}

int engine_events_fd(struct engine *e)
{
    return e->events.fd;
}
