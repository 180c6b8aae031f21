/* What the files of the HTTP server share: http.c (connections, the loop, start and stop),
 * http_request.c (a request's way), http_body.c (where bodies go), http_exchange.c (what handlers
 * ask and reply).  All of it is the server's thread's, but for what is atomic. */
#pragma once

#include "http.h"
#include "http_refusal.h"

#define QUERY_VALUES_MAX 16 /* decoded ones */

#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
#define COUNT(field, n) atomic_fetch_add_explicit(&(field), (n), memory_order_relaxed)

/* What an event of our epoll set is about: the first member of each thing in it. */
enum source { SOURCE_MHD, SOURCE_QUEUE, SOURCE_STOP, SOURCE_PEER };

/* One connection. */
struct peer {
    enum source source;
    struct http_server *server;
    struct peer *next, *prev;
    struct live *live; /* the request under way; NULL between requests */
    usec_t since_us;   /* accepted, or its last exchange ended */
    int fd;
    _Atomic uint32_t *held; /* door_left() */
    enum peer_kind kind;
    uid_t uid;
    bool used;    /* a request came on it */
    bool cut;     /* we shut it down */
    bool hung_up; /* the client has closed its side */
    bool lingers; /* refused while it may still be sending: door_linger() */
};

struct http_server {
    struct http_config cfg;
    struct http_stats stats;
    struct MHD_Daemon *mhd;
    struct door *door;
    struct caller *arriving; /* while MHD is told of it */
    struct peer *peers;
    uint32_t n_live;
    int epoll_fd, stop_fd;
    enum source mhd_source, queue_source, stop_source;
    struct cq *cq;
    usec_t swept_us;
    _Atomic bool draining, stopping;
    bool door_ended; /* and all that came from it was taken */
    _Atomic usec_t stop_by_us;
    pthread_t thread;
};

/* An exchange and what only this file knows of it. */
struct live {
    struct exchange x; /* first: handlers see only this */
    struct MHD_Connection *con;
    struct peer *peer;
    char *path_text;
    enum sink_kind sink;
    uint64_t sink_max;
    int sink_fd;
    size_t slab_pad;  /* bytes of the slab before the body */
    bool whole;       /* the body was read and body(x) called */
    bool waiting;     /* exchange_suspend() */
    bool suspended;   /* MHD knows it */
    bool gone_called; /* at most once */
    bool aborted;     /* close instead of a reply */
    bool queued;      /* the reply is MHD's */
    bool (*gone)(struct exchange *x);
    unsigned status;
    struct MHD_Response *reply;
    const char *said; /* the text of the reply, while it is there; NULL: something else */
    uint64_t reply_bytes;
    uint32_t n_headers, n_query;
    char *header[REPLY_HEADERS_MAX][2];
    char *query[QUERY_VALUES_MAX];
};

static inline struct live *live_of(struct exchange *x)
{
    return container_of(x, struct live, x);
}

/* ---- http_body.c */
/* The next n bytes of the body, to where they go.  -EFBIG beyond the sink's limit. */
int http_sink_append(struct live *l, const char *data, size_t n, struct err *err);

/* ---- http_exchange.c */
void http_resume(struct live *l);
/* Hand the reply to MHD, which has read the whole request.  MHD_NO: close the connection. */
enum MHD_Result http_reply_hand(struct live *l);
/* Say it past MHD, and have it close the connection. */
void http_refuse_raw(struct peer *p, unsigned status, const char *json);
void http_on_refused(struct MHD_Connection *con, unsigned status); /* MHD refuses by itself */

/* ---- http_request.c: what MHD calls */
enum MHD_Result http_on_access(void *cls, struct MHD_Connection *con, const char *url,
                               const char *method, const char *version, const char *data, size_t *n,
                               void **con_cls);
void http_on_completed(void *cls, struct MHD_Connection *con, void **con_cls,
                       enum MHD_RequestTerminationCode why);
