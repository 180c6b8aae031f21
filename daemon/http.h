/* HTTP: servers, and the exchange (one request and its reply).
 *
 * A server is one thread with its own listening descriptors, route table and completion queue (and
 * one at its door, which accepts connections and answers health probes: http_door.h);
 * everything that happens to its exchanges happens on that thread, so handlers need no locks and
 * must not block.  What takes time is given away with an item that comes back through the
 * server's queue, and the exchange is suspended until then:
 *
 *     head(x)    the head is there: refuse, choose a sink for the body, or do nothing
 *     body(x)    the body is there: exchange_reply_*(), or give work away and exchange_suspend()
 *     item(item) it came back: exchange_reply_*(), which also resumes
 *     cleanup()  the reply was sent or the connection broke; x is gone afterwards
 *
 * Of libmicrohttpd know only http.c, the files it shares http_priv.h with, http_refusal.c and
 * http_raw.c. */
#pragma once

#include "http_probe.h"
#include "route.h"
#include <gpulet/request.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>

/* ---- exchange */
enum peer_kind { PEER_REMOTE, PEER_LOOPBACK, PEER_UNIX };
enum sink_kind { SINK_NONE, SINK_SLAB, SINK_FD };

#define REPLY_HEADERS_MAX 4

struct exchange {
    /* the request: read only for handlers */
    const char *method;              /* "HEAD" is answered like "GET" */
    const char *url;                 /* as sent, without the query; for logs */
    const struct route *route;       /* the row that matched */
    const char *arg[ROUTE_ARGS_MAX]; /* decoded values of the row's {…}; NULL beyond */
    enum peer_kind peer;
    uid_t peer_uid;           /* PEER_UNIX: who; else (uid_t)-1 */
    usec_t arrival_us;        /* head complete */
    uint64_t declared_bytes;  /* Content-Length; UINT64_MAX when chunked; 0 without a body */
    uint64_t body_bytes;      /* received so far, as sent */
    struct http_server *http; /* exchange_cq(x) is its queue */
    void *ctx;                /* http_config.ctx */

    /* SINK_SLAB, when body(x) is called: body_bytes at body.  A handler may keep the slab by
     * taking the pointer: s = TAKE(x->slab). */
    const char *body;
    struct slab *slab;

    /* the handler's own; cleanup(user) is called once, last */
    void *user;
    void (*cleanup)(void *user);
};

/* Value of a request header or NULL; name in any case. */
const char *exchange_header(struct exchange *x, const char *name);
/* Decoded value of a query parameter, NULL when absent, "" when it has no value.  Lives as long
 * as the exchange.  -EINVAL for a bad escape. */
int exchange_query(struct exchange *x, const char *name, const char **ret, struct err *err);
/* Call fn for every query parameter; values are as sent, not decoded. */
void exchange_query_each(struct exchange *x, void (*fn)(void *arg, const char *name), void *arg);
struct cq *exchange_cq(struct exchange *x);
void *exchange_turn(struct exchange *x); /* http_config.turn */

/* ---- sinks: in head(x) only */
/* Into one slab of the server's pool, at most max bytes, placed so that byte align_at of the body
 * lies on a 64-byte boundary.  -EFBIG or -ENOMEM: reply with it. */
int exchange_sink_slab(struct exchange *x, size_t max, size_t align_at, struct err *err);
/* Written to fd (the handler's: kept open until cleanup) as it comes, at most max bytes; more is
 * answered with 413, a failed write with its errno (-ENOSPC: 507), and body(x) is not called. */
int exchange_sink_fd(struct exchange *x, int fd, uint64_t max, struct err *err);

/* ---- replies: exactly one, from head(), body(), or when an item came back */
/* Before exchange_reply_*(); both strings are copied. */
void exchange_set_header(struct exchange *x, const char *name, const char *value);
/* text is malloc'ed and taken; NULL with 0 bytes is an empty body. */
void exchange_reply_text(struct exchange *x, unsigned status, const char *type, char *text,
                         size_t bytes);
/* text lives as long as the program. */
void exchange_reply_static(struct exchange *x, unsigned status, const char *type, const char *text,
                           size_t bytes);
/* Scatter-gather.  iov is copied; what it points at lives until sent(arg), which is called once,
 * when all is sent or the connection broke. */
void exchange_reply_iov(struct exchange *x, unsigned status, const char *type,
                        const struct iovec *iov, unsigned n, void (*sent)(void *arg), void *arg);
/* Status and JSON body of an error (api_error.c), with Retry-After if it is a 503: retry_us rounded
 * up to seconds, at least 1. */
void exchange_reply_err(struct exchange *x, const struct err *err, usec_t retry_us);
/* The same for any status and message of ours. */
void exchange_reply_error(struct exchange *x, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool exchange_replied(const struct exchange *x);

/* In body(x): the reply comes later, when an item comes back.  gone(x) is called at most once, if
 * the client closes its side meanwhile: it returns true when nothing will come back for x any more
 * (the connection is closed), false when an item still will (which must reply as always).  NULL:
 * always false. */
void exchange_suspend(struct exchange *x, bool (*gone)(struct exchange *x));

/* ---- items: kind of a cq_item is an index into http_config.item */
typedef void http_item_fn(struct cq_item *item);
enum http_item {
    ITEM_REQUEST, /* struct request of an inference: v2_infer.c */
    ITEM_JOB,     /* struct http_job */
    ITEM_KINDS
};

/* ---- server */
#define HTTP_LISTEN_MAX 8

struct http_config {
    const char *name; /* of the thread: "http-data"; at most 15 bytes */
    const int *listen_fd;
    uint32_t n_listen; /* at most HTTP_LISTEN_MAX; dup'ed, the caller keeps its own */
    const struct route *route;
    size_t n_routes;
    const struct http_probe *probe; /* what is answered at the door */
    size_t n_probes;
    http_item_fn *const *item; /* ITEM_KINDS of them */
    struct pool *pool;         /* bodies */
    void *ctx;
    /* Called with `turn` before the thread sleeps: what its handlers have put off until then. */
    void (*turned)(void *turn);
    void *turn;
    uint32_t connections_max;  /* per listener; more wait in the listen queue */
    uint32_t connection_bytes; /* memory of one: bounds the head (431); 0: 32 KiB */
    uint64_t drain_bytes;      /* of a refused body; 0: 8 MiB */
    uint32_t idle_s;           /* between requests, and for a head to arrive; 0: 75 */
    /* Called after each reply was sent or broke, for access logs and metrics; may be NULL. */
    void (*on_done)(struct exchange *x, unsigned status, usec_t took_us);
};

struct http_stats { /* relaxed atomics, written by the server's threads */
    _Atomic uint64_t connections_now, connections, requests, suspended_now;
    _Atomic uint64_t body_bytes, reply_bytes;
    _Atomic uint64_t status[600]; /* replies by status */
    _Atomic uint64_t vanished;    /* clients gone while suspended */
    _Atomic uint64_t too_slow;    /* connections closed because they send too slowly */
    /* When the server's loop and its door's last came round: at least once a second. */
    _Atomic usec_t turn_us, door_us;
};

struct http_server;
int http_server_start(const struct http_config *cfg, struct http_server **ret, struct err *err);
const struct http_stats *http_server_stats(const struct http_server *s);
struct cq *http_server_cq(struct http_server *s);
/* From now on each reply says Connection: close, so that keep-alive clients leave.  The listener
 * stays open: handlers answer 503.  Any thread. */
void http_server_drain(struct http_server *s);
/* Stop listening, answer what is suspended (its items must come), give replies up to linger_us
 * to be sent and requests of connections just accepted up to a second to arrive, end the thread.
 * Not from the server's own thread. */
void http_server_stop(struct http_server *s, usec_t linger_us);
/* After http_server_stop(), when nobody asks for its stats any more. */
void http_server_free(struct http_server *s);
