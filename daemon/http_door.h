/* The door of a server: a thread that accepts its connections and answers health probes, so that
 * these never wait for what keeps the server's own thread busy.
 *
 * A connection stays here while nothing came on it, or only probes.  With the first other request,
 * of which no byte has been read, it goes to the server for good: a struct caller, through the
 * server's completion queue. */
#pragma once

#include "http.h"

#define FIRST_GRACE_US USEC_PER_SEC /* a new connection's first request comes so soon */
#define ITEM_CALLER ITEM_KINDS      /* kind of caller.item: none of the handlers' */

/* A connection: the door's until it is pushed, then the server's. */
struct caller {
    struct cq_item item; /* first */
    int fd;
    _Atomic uint32_t *held; /* counts its listener's connections; NULL: not counted */
    /* the door's own */
    enum door_source { DOOR_CALLER, DOOR_LISTENER, DOOR_QUEUE } source;
    struct caller *next, *prev;
    usec_t since_us; /* accepted, or its last probe was answered */
    usec_t leave_us; /* not 0: it is shut down, and what comes until then is thrown away */
    uint64_t thrown_bytes;
    bool used; /* a probe was answered */
};

struct door_config {
    const struct http_config *http; /* borrowed; its listen_fd are dup'ed */
    struct http_stats *stats;
    struct cq *to;                /* where callers go */
    const _Atomic bool *draining; /* replies say Connection: close */
};

struct door;
int door_open(const struct door_config *cfg, struct door **ret, struct err *err);
/* A caller left: uncount it. */
void door_left(struct http_stats *stats, _Atomic uint32_t *held);
/* The connection behind fd (which stays the caller's) is about to be closed while its client may
 * still be sending: take what comes for a while, so that the last reply is not lost to a reset. */
void door_linger(struct door *d, int fd);
/* Accept no more; end when everybody who was accepted has spoken or had a second to, at the latest
 * at by_us.  Returns at once. */
void door_stop(struct door *d, usec_t by_us);
bool door_ended(const struct door *d);
/* Waits for the end; then no more callers come. */
void door_wait(struct door *d);
void door_free(struct door *d);
