/* What the parts of the daemon share: one struct, made by main() before any thread and unmade
 * after the last one. */
#pragma once

#include "config.h"
#include "v2.h"
#include <pthread.h>

#define DRAIN_LINGER_US (5 * USEC_PER_SEC) /* for slow readers of the last replies */
#define ADMIN_TOKEN_MAX 256                /* bytes */

/* EX_CONFIG: systemd does not restart it.  A lost device: it does, with the sockets open. */
#define EXIT_CONFIG 78
#define EXIT_DEVICE_LOST 70

struct store;

struct gpuletd {
    struct v2 v2; /* first: both servers' ctx is a struct v2 for v2_routes */
    struct engine *engine;
    struct store *store;
    struct v2_turn data_turn, admin_turn;
    struct err no_gpu; /* why the CPU serves, where it does; set before the servers start */
    /* Set by the main thread, data when the models of the state are loaded; metrics read them. */
    struct http_server *_Atomic data, *_Atomic admin;

    /* Options that a reload changes: relaxed atomics, written by the main thread. */
    _Atomic uint64_t model_bytes;
    _Atomic int repository_api; /* enum repository_api */
    _Atomic bool metrics;       /* on the inference port too */
    /* Set by SIGTERM and by POST /v1/drain, cleared by DELETE /v1/drain. */
    _Atomic bool draining;
    /* Set once by the store when every model of the state folder has been loaded or has failed. */
    _Atomic bool restored;

    /* The admin token; replaced as a whole under its lock. */
    pthread_mutex_t token_lock;
    char token[ADMIN_TOKEN_MAX]; /* "": none */
};

static inline struct gpuletd *gpuletd_of(const struct exchange *x)
{
    return x->ctx;
}

/* The route tables.  Each port also has v2_routes: the admin port too, so that one address is
 * enough for a person. */
extern const struct route data_routes[], admin_routes[];
extern const size_t n_data_routes, n_admin_routes;

/* May this peer use the admin surface?  Loopback and the Unix socket may; others need the token;
 * Host must be local or the token given; a foreign Origin is refused.  0 or -EACCES. */
int admin_allowed(struct exchange *x, struct err *err);
/* Does the request carry the admin token? */
bool token_matches(struct exchange *x);
/* GET /metrics: Prometheus text (metrics.c). */
void metrics_get(struct exchange *x);
/* POST /v1/faults: on simulated devices (faults.c). */
void faults_post(struct exchange *x);
