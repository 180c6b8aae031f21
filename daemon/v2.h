/* The v2 inference protocol: health, metadata, inference, model repository, statistics. */
#pragma once

#include "api.h"

/* What the model repository does for the protocol: implemented by store.c.  Each is called on the
 * http thread and must not block: it answers x itself, at once or from a job. */
struct repository_ops {
    /* Array of {name, version, state, reason?}; ready_only from the request. */
    void (*index)(void *store, struct exchange *x, bool ready_only);
    /* parameters: the request's object or NULL; borrowed for the call.  Privileged callers (Unix
     * socket, admin token) may supply files. */
    void (*load)(void *store, struct exchange *x, const char *name, json_t *parameters);
    void (*unload)(void *store, struct exchange *x, const char *name, json_t *parameters);
    /* May this peer control models on the data port?  0, or -EACCES and why. */
    int (*allowed)(void *store, struct exchange *x, struct err *err);
};

/* http_config.ctx of a server with v2_routes begins with it. */
struct v2 {
    struct engine *engine;
    const struct repository_ops *repository; /* NULL: control answers 503, index what is loaded */
    void *store;
    _Atomic usec_t timeout_us; /* deadline of a request whose model has no SLO */
    _Atomic size_t body_max;   /* bytes of an infer body, as sent and inflated; 0: 64 MiB */
    _Atomic bool *draining;    /* readiness and inference answer 503 */
};

/* Heads parsed before, by their bytes: a client repeats all but its data. */
#define HEADS_MAX 64
#define HEAD_CACHED_MAX 512 /* bytes: at most some 200 KB a cache */
struct head_cache {
    struct cached_head {
        json_t *head; /* NULL: none */
        size_t bytes;
        char text[HEAD_CACHED_MAX];
    } slot[HEADS_MAX];
};

/* http_config.turn of such a server, and its turned(): requests that were parsed in one turn of the
 * loop wake their executors together. */
struct v2_turn {
    struct engine *engine;
    struct wakes wakes;
    struct head_cache heads;
};
void v2_turned(void *turn);
void v2_turn_done(struct v2_turn *t);

extern const struct route v2_routes[];
extern const size_t n_v2_routes; /* rows */
/* /v2/health, which a server answers at its door when it can, and else by these routes. */
extern const struct http_probe v2_probes[];
extern const size_t n_v2_probes;

void v2_infer_item(struct cq_item *item);
