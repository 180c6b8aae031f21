/* The only file that knows libmicrohttpd (MHD), but for http_refusal.c.
 *
 * One thread a server, with an MHD daemon in external epoll mode; the thread waits on its own
 * epoll set, which holds the daemon's epoll descriptor, the completion queue, and every
 * connection's socket (edge-triggered, for EPOLLRDHUP alone: while a connection is suspended MHD
 * does not watch it, so a client that vanishes would go unseen).  No other thread calls MHD.
 * Connections come from the door (http_door.c) through the completion queue.
 *
 * MHD calls on_access() for a request: once for the head, once for each piece of the body, once
 * when the body is complete, and again after a resume.  A reply is made at any of these points but
 * queued only in the last two, when MHD has read the whole request: queued earlier, it would cost
 * the client its connection.  The exceptions are deliberate: a refused body that is too long to
 * drain, or one that the client has not begun to send (Expect: 100-continue).
 *
 * Closing a connection from outside MHD is done with shutdown(): MHD then reads an end of file. */
#include "http.h"
#include "http_door.h"
#include "http_raw.h"
#include "http_refusal.h"
#include <arpa/inet.h>
#include <gpulet/clock.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTION_BYTES 32768
#define DRAIN_BYTES (UINT64_C(8) << 20)
#define IDLE_S 75
#define TURN_MS 1000        /* the loop comes round at least that often */
#define CHUNKED_FIRST 65536 /* bytes of the first slab of a body of unknown length */
#define CHUNKED_COPY (UINT64_C(1) << 20) /* up to here it grows by copying, in well under 1 ms */
#define STOP_TURN_MS 20     /* while stopping */
#define BODY_GRACE_US (30 * USEC_PER_SEC)
#define BODY_MIN_BYTES_PER_S 1024 /* after the grace: slower senders are cut off */
#define BODY_LARGE 65536          /* bytes from which on a body counts for the pool */
#define QUERY_VALUES_MAX 16       /* decoded ones */
#define EVENTS_MAX 64
#define REFUSAL_MAX 300 /* bytes */

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

static struct live *live_of(struct exchange *x)
{
    return container_of(x, struct live, x);
}

/* ---- what a handler may ask */
const char *exchange_header(struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(live_of(x)->con, MHD_HEADER_KIND, name);
}

int exchange_query(struct exchange *x, const char *name, const char **ret, struct err *err)
{
    struct live *l = live_of(x);
    const char *raw = NULL;
    char *text;

    if (MHD_lookup_connection_value_n(l->con, MHD_GET_ARGUMENT_KIND, name, strlen(name), &raw,
                                      NULL) == MHD_NO) {
        *ret = NULL;
        return 0;
    }
    if (l->n_query == QUERY_VALUES_MAX)
        return err_set(err, -E2BIG, "query: more than %d values", QUERY_VALUES_MAX);
    text = strdup(raw ? raw : "");
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    l->query[l->n_query++] = text;
    if (percent_decode(text) < 0)
        return err_set(err, -EINVAL, "query: '%s' has a bad percent escape", name);
    *ret = text;
    return 0;
}

struct each {
    void (*fn)(void *arg, const char *name);
    void *arg;
};

static enum MHD_Result each_query(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value)
{
    struct each *e = cls;

    (void)kind, (void)value;
    e->fn(e->arg, key);
    return MHD_YES;
}

void exchange_query_each(struct exchange *x, void (*fn)(void *arg, const char *name), void *arg)
{
    struct each e = {fn, arg};

    (void)MHD_get_connection_values(live_of(x)->con, MHD_GET_ARGUMENT_KIND, each_query, &e);
}

struct cq *exchange_cq(struct exchange *x)
{
    return x->http->cq;
}

void *exchange_turn(struct exchange *x)
{
    return x->http->cfg.turn;
}

/* ---- sinks */
/* Bodies take at most half of the pool: the rest is for results, else a burst of large requests
 * fills it, none of them can be answered, and all were read for nothing. */
static bool pool_has(struct pool *pool, size_t bytes)
{
    return bytes < BODY_LARGE || pool_used_bytes(pool) + bytes <= pool_max_bytes(pool) / 2;
}

static int body_slab(struct pool *pool, size_t bytes, struct slab **ret, struct err *err)
{
    if (!pool_has(pool, bytes) || slab_new(pool, bytes, ret) < 0)
        return err_set(err, -ENOMEM, "no memory for a body of %zu bytes now", bytes);
    return 0;
}

int exchange_sink_slab(struct exchange *x, size_t max, size_t align_at, struct err *err)
{
    struct live *l = live_of(x);
    bool chunked = x->declared_bytes == UINT64_MAX;
    size_t first = chunked ? MIN(max, CHUNKED_FIRST) : x->declared_bytes;

    assert(!x->slab && l->sink == SINK_NONE);
    if (!chunked && x->declared_bytes > max)
        return err_set(err, -EFBIG, "the body has %llu bytes, the limit is %zu",
                       (unsigned long long)x->declared_bytes, max);
    l->slab_pad = (64 - align_at % 64) % 64;
    if (body_slab(x->http->cfg.pool, l->slab_pad + MAX(first, 1), &x->slab, err) < 0)
        return err->code;
    l->sink = SINK_SLAB;
    l->sink_max = max;
    x->body = (char *)x->slab->data + l->slab_pad;
    return 0;
}

int exchange_sink_fd(struct exchange *x, int fd, uint64_t max, struct err *err)
{
    struct live *l = live_of(x);

    if (x->declared_bytes != UINT64_MAX && x->declared_bytes > max)
        return err_set(err, -EFBIG, "the body has %llu bytes, the limit is %llu",
                       (unsigned long long)x->declared_bytes, (unsigned long long)max);
    l->sink = SINK_FD;
    l->sink_fd = fd;
    l->sink_max = max;
    return 0;
}

/* A large body is moved once, to where there is room for the longest; a small one, and a large one
 * if there is no such place, to a slab of twice the size. */
static int body_move(struct live *l, size_t bytes, struct err *err)
{
    struct exchange *x = &l->x;
    struct pool *pool = x->http->cfg.pool;
    size_t most = l->slab_pad + (size_t)l->sink_max;
    struct slab *to;

    bytes = MIN(MAX(bytes, 2 * x->slab->bytes), most);
    if (!pool_has(pool, bytes) ||
        ((bytes <= CHUNKED_COPY || slab_new_room(pool, bytes, most, &to) < 0) &&
         slab_new(pool, bytes, &to) < 0))
        return err_set(err, -ENOMEM, "no memory for a body of %zu bytes now", bytes);
    memcpy((char *)to->data + l->slab_pad, x->body, x->body_bytes);
    slab_put(x->slab);
    x->slab = to;
    x->body = (char *)to->data + l->slab_pad;
    return 0;
}

/* Room for `need` bytes of a body whose length was not declared. */
static int body_grow(struct live *l, size_t need, struct err *err)
{
    struct slab *s = l->x.slab;
    size_t bytes = l->slab_pad + need, step = MAX(bytes - s->bytes, s->bytes / 8);
    int r = -ENOMEM;

    if (pool_has(l->x.http->cfg.pool, step))
        r = slab_grow(s, MIN(s->bytes + step, l->slab_pad + (size_t)l->sink_max));
    if (r == -ENOSPC)
        return body_move(l, bytes, err);
    return r < 0 ? err_set(err, r, "no memory for a body of %zu bytes now", bytes) : 0;
}

static int slab_append(struct live *l, const char *data, size_t n, struct err *err)
{
    struct exchange *x = &l->x;
    size_t need = x->body_bytes + n;

    if (l->slab_pad + need > x->slab->bytes && body_grow(l, need, err) < 0)
        return err->code;
    memcpy((char *)x->slab->data + l->slab_pad + x->body_bytes, data, n);
    return 0;
}

static int fd_append(int fd, const char *data, size_t n, struct err *err)
{
    while (n) {
        ssize_t done = write(fd, data, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_set(err, -errno, "the upload cannot be written: %s", strerror(errno));
        data += done;
        n -= (size_t)done;
    }
    return 0;
}

static int sink_append(struct live *l, const char *data, size_t n, struct err *err)
{
    if (n > l->sink_max - l->x.body_bytes)
        return err_set(err, -EFBIG, "the body has more than %llu bytes, the limit",
                       (unsigned long long)l->sink_max);
    if (l->sink == SINK_NONE)
        return 0;
    return l->sink == SINK_FD ? fd_append(l->sink_fd, data, n, err) : slab_append(l, data, n, err);
}

/* ---- replies */
bool exchange_replied(const struct exchange *x)
{
    return live_of((struct exchange *)(uintptr_t)x)->status != 0;
}

void exchange_set_header(struct exchange *x, const char *name, const char *value)
{
    struct live *l = live_of(x);

    assert(l->n_headers < REPLY_HEADERS_MAX);
    l->header[l->n_headers][0] = strdup(name);
    l->header[l->n_headers++][1] = strdup(value);
}

static void resume(struct live *l)
{
    if (!l->suspended)
        return;
    l->suspended = false;
    COUNT(l->x.http->stats.suspended_now, -1);
    MHD_resume_connection(l->con);
}

/* The reply is there: it waits in l until MHD may have it.  NULL: no memory for it, and the
 * connection is closed instead. */
static void reply_set(struct live *l, unsigned status, const char *type, struct MHD_Response *reply,
                      size_t bytes)
{
    assert(!l->status);
    l->status = status;
    l->reply = reply;
    l->reply_bytes = bytes;
    if (reply && type)
        (void)MHD_add_response_header(reply, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    for (uint32_t i = 0; reply && i < l->n_headers; i++)
        if (l->header[i][0] && l->header[i][1])
            (void)MHD_add_response_header(reply, l->header[i][0], l->header[i][1]);
    resume(l);
}

void exchange_reply_text(struct exchange *x, unsigned status, const char *type, char *text,
                         size_t bytes)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(
        bytes, text, text ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!r)
        free(text);
    live_of(x)->said = r ? text : NULL;
    reply_set(live_of(x), status, type, r, bytes);
}

void exchange_reply_static(struct exchange *x, unsigned status, const char *type, const char *text,
                           size_t bytes)
{
    void *data = (void *)(uintptr_t)text; /* MHD only reads it */

    live_of(x)->said = text;
    reply_set(live_of(x), status, type,
              MHD_create_response_from_buffer(bytes, data, MHD_RESPMEM_PERSISTENT), bytes);
}

void exchange_reply_iov(struct exchange *x, unsigned status, const char *type,
                        const struct iovec *iov, unsigned n, void (*sent)(void *arg), void *arg)
{
    struct MHD_IoVec *copy = calloc(MAX(n, 1u), sizeof(*copy));
    struct MHD_Response *r = NULL;
    size_t bytes = 0;

    for (unsigned i = 0; copy && i < n; i++) {
        copy[i] = (struct MHD_IoVec){iov[i].iov_base, iov[i].iov_len};
        bytes += iov[i].iov_len;
    }
    if (copy)
        r = MHD_create_response_from_iovec(copy, n, sent, arg);
    free(copy);
    if (!r)
        sent(arg);
    reply_set(live_of(x), status, type, r, bytes);
}

void exchange_suspend(struct exchange *x, bool (*gone)(struct exchange *x))
{
    struct live *l = live_of(x);

    l->waiting = true;
    l->gone = gone;
}

/* Hand the reply to MHD. */
static enum MHD_Result reply_queue(struct live *l)
{
    enum MHD_Result rc;

    if (!l->reply || l->aborted)
        return MHD_NO;
    if (atomic_load_explicit(&l->x.http->draining, memory_order_relaxed))
        (void)MHD_add_response_header(l->reply, MHD_HTTP_HEADER_CONNECTION, "close");
    rc = http_reply_queue(l->con, l->status, l->reply);
    MHD_destroy_response(l->reply); /* MHD holds its own reference until it is sent */
    l->reply = NULL;
    l->queued = rc == MHD_YES;
    return rc;
}

/* Say it past MHD: in the middle of a body it would not, and its own refusals are no JSON, or come
 * twice (0.9.75, of a bad Content-Length).  Nothing of a reply to this request was sent yet.
 * Whatever MHD still sends fails, and makes it close the connection. */
static void refuse_raw(struct peer *p, unsigned status, const char *json)
{
    const struct raw_reply r = {.status = status, .json = json, .close = true};

    if (p->cut)
        return;
    p->cut = p->lingers = true;
    if (http_raw_send(p->fd, &r))
        COUNT(p->server->stats.status[MIN(status, 599u)], 1);
    (void)shutdown(p->fd, SHUT_WR);
}

/* MHD refuses by itself. */
static void on_refused(struct MHD_Connection *con, unsigned status)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(con, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct peer *p = info ? info->socket_context : NULL;
    char text[REFUSAL_MAX];

    if (!p)
        return;
    http_refusal_text(status, p->server->cfg.connection_bytes, text, sizeof(text));
    refuse_raw(p, status, text);
}

/* ---- a request's way */
/* What the headers say of the message; MHD takes the first of each. */
struct framing {
    const char *length, *coding, *other_length;
    uint32_t n_hosts;
};

static enum MHD_Result each_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                   const char *value)
{
    struct framing *f = cls;

    (void)kind;
    value = value ? value : "";
    if (strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        if (f->length && !STREQ(f->length, value))
            f->other_length = value;
        f->length = f->length ? f->length : value;
    } else if (strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        if (!f->coding || strcasecmp(value, "chunked") != 0)
            f->coding = value;
    } else if (strcasecmp(key, MHD_HTTP_HEADER_HOST) == 0) {
        f->n_hosts++;
    }
    return MHD_YES;
}

static uint64_t declared_bytes(const struct framing *f)
{
    if (f->coding)
        return UINT64_MAX;
    return f->length ? strtoull(f->length, NULL, 10) : 0; /* MHD has checked that it is a number */
}

/* Where the message ends must not be a matter of opinion.  True: it is, and x is answered. */
static bool framing_refused(struct exchange *x, const struct framing *f)
{
    if (f->coding && strcasecmp(f->coding, "chunked") != 0)
        exchange_reply_error(x, 501, "Transfer-Encoding '%.60s' is not known here, only chunked",
                             f->coding);
    else if (f->coding && f->length)
        exchange_reply_error(x, 400, "the request has both Content-Length and Transfer-Encoding");
    else if (f->other_length)
        exchange_reply_error(x, 400, "Content-Length is given twice, as %.24s and %.24s", f->length,
                             f->other_length);
    else if (!f->coding && x->declared_bytes == UINT64_MAX)
        exchange_reply_error(x, 413, "Content-Length %.24s is beyond all limits", f->length);
    return exchange_replied(x);
}

static struct live *live_new(struct http_server *s, struct MHD_Connection *con, const char *url,
                             const char *method, const struct framing *f)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(con, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct peer *p = info ? info->socket_context : NULL;
    struct live *l = p ? calloc(1, sizeof(*l)) : NULL;

    if (!l)
        return NULL;
    l->con = con;
    l->peer = p;
    p->live = l;
    p->used = true;
    l->x = (struct exchange){.method = method,
                             .url = url,
                             .peer = p->kind,
                             .peer_uid = p->uid,
                             .arrival_us = clock_now_us(),
                             .declared_bytes = declared_bytes(f),
                             .http = s,
                             .ctx = s->cfg.ctx};
    s->n_live++;
    COUNT(s->stats.requests, 1);
    return l;
}

static void live_free(struct live *l)
{
    if (l->x.cleanup)
        l->x.cleanup(l->x.user);
    slab_put(l->x.slab);
    if (l->reply)
        MHD_destroy_response(l->reply);
    for (uint32_t i = 0; i < l->n_headers; i++) {
        free(l->header[i][0]);
        free(l->header[i][1]);
    }
    for (uint32_t i = 0; i < l->n_query; i++)
        free(l->query[i]);
    free(l->path_text);
    free(l);
}

static void live_route(struct live *l)
{
    struct exchange *x = &l->x;
    const struct http_config *cfg = &x->http->cfg;
    struct path path;
    struct err err = {0};
    char allow[80];

    l->path_text = strdup(x->url);
    if (!l->path_text || path_split(l->path_text, &path, &err) < 0) {
        exchange_reply_error(x, l->path_text ? 400 : 503, "%s",
                             l->path_text ? err.msg : "out of memory");
        return;
    }
    switch (route_find(cfg->route, cfg->n_routes, x->method, &path, &x->route, x->arg, allow,
                       sizeof(allow))) {
    case ROUTE_NO_PATH:
        exchange_reply_error(x, 404, "there is no '%.150s' here", x->url);
        break;
    case ROUTE_NO_METHOD:
        exchange_set_header(x, "Allow", allow);
        exchange_reply_error(x, 405, "method %.20s is not allowed here, only %s", x->method, allow);
        break;
    case ROUTE_YES:
        if (x->route->head)
            x->route->head(x);
    }
}

/* A body that nobody chose a sink for goes into memory, if its route wants it; else it is read
 * and thrown away, up to what we drain of any body. */
static void sink_default(struct live *l)
{
    struct exchange *x = &l->x;
    struct err err = {0};

    if (x->declared_bytes == 0 || l->sink != SINK_NONE)
        return;
    l->sink_max = x->http->cfg.drain_bytes;
    if (x->route->body_max) {
        if (exchange_sink_slab(x, x->route->body_max, 0, &err) < 0)
            exchange_reply_err(x, &err, 0);
    } else if (x->declared_bytes != UINT64_MAX && x->declared_bytes > l->sink_max) {
        exchange_reply_error(x, 413, "the body has %llu bytes, but none is wanted",
                             (unsigned long long)x->declared_bytes);
    }
}

/* Refused already: is the body short enough to read it and keep the connection?  A client that
 * asked (Expect) is told before it sends anything. */
static bool refuse_at_once(struct live *l)
{
    struct exchange *x = &l->x;

    if (x->declared_bytes == 0)
        return false;
    if (x->declared_bytes != UINT64_MAX && x->declared_bytes > x->http->cfg.drain_bytes)
        return true;
    return exchange_header(x, MHD_HTTP_HEADER_EXPECT) != NULL;
}

/* The reply goes out at once and the connection ends, in the middle of a request. */
static enum MHD_Result give_up(struct live *l)
{
    if (l->said)
        refuse_raw(l->peer, l->status, l->said);
    return MHD_NO;
}

static enum MHD_Result on_head(struct live *l, const char *version, const struct framing *f)
{
    if (framing_refused(&l->x, f))
        return give_up(l);
    if (f->n_hosts > 1 || (f->n_hosts == 0 && STREQ(version, MHD_HTTP_VERSION_1_1)))
        exchange_reply_error(&l->x, 400, "an HTTP/1.1 request has one Host header, this one has %s",
                             f->n_hosts ? "more" : "none");
    else
        live_route(l);
    if (!l->status)
        sink_default(l);
    if (!l->status || !refuse_at_once(l))
        return MHD_YES;
    l->peer->lingers = true;
    return reply_queue(l);
}

static enum MHD_Result on_data(struct live *l, const char *data, size_t n)
{
    struct err err = {0};

    COUNT(l->x.http->stats.body_bytes, n);
    if (!l->status && sink_append(l, data, n, &err) < 0)
        exchange_reply_err(&l->x, &err, 0);
    l->x.body_bytes += n;
    /* Refused: what comes is thrown away, up to a limit, and the reply waits for its end. */
    return l->status && l->x.body_bytes > l->x.http->cfg.drain_bytes ? give_up(l) : MHD_YES;
}

static enum MHD_Result on_whole(struct live *l)
{
    struct exchange *x = &l->x;

    if (!l->status && !l->whole && !l->aborted) {
        l->whole = true;
        x->route->body(x);
        assert(l->status || l->waiting); /* a handler replies or suspends */
        if (!l->status) {
            l->suspended = true;
            COUNT(x->http->stats.suspended_now, 1);
            MHD_suspend_connection(l->con);
            return MHD_YES;
        }
    }
    return reply_queue(l);
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *con, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *n, void **con_cls)
{
    struct live *l = *con_cls;

    if (!l) {
        struct framing f = {0};
        (void)MHD_get_connection_values(con, MHD_HEADER_KIND, each_header, &f);
        l = *con_cls = live_new(cls, con, url, method, &f);
        return l ? on_head(l, version, &f) : MHD_NO;
    }
    if (*n) {
        size_t taken = *n;
        *n = 0;
        return on_data(l, data, taken);
    }
    return on_whole(l);
}

static void on_completed(void *cls, struct MHD_Connection *con, void **con_cls,
                         enum MHD_RequestTerminationCode why)
{
    struct live *l = *con_cls;

    (void)cls, (void)con, (void)why;
    if (!l)
        return;
    struct http_server *s = l->x.http;
    usec_t now_us = clock_now_us();

    if (l->queued) {
        COUNT(s->stats.status[MIN(l->status, 599u)], 1);
        COUNT(s->stats.reply_bytes, l->reply_bytes);
    }
    if (s->cfg.on_done)
        s->cfg.on_done(&l->x, l->queued ? l->status : 0, now_us - l->x.arrival_us);
    l->peer->live = NULL;
    l->peer->since_us = now_us;
    s->n_live--;
    *con_cls = NULL;
    live_free(l);
}

/* ---- connections */
static enum peer_kind address_kind(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127 ? PEER_LOOPBACK : PEER_REMOTE;
    }
    if (a->sa_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
        bool local =
            IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
        return local ? PEER_LOOPBACK : PEER_REMOTE;
    }
    return PEER_REMOTE;
}

static void peer_identify(struct peer *p)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    struct ucred cred;

    p->kind = PEER_REMOTE;
    p->uid = (uid_t)-1;
    if (getsockname(p->fd, (struct sockaddr *)&a, &len) == 0 && a.ss_family == AF_UNIX) {
        len = sizeof(cred);
        if (getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
            p->kind = PEER_UNIX;
            p->uid = cred.uid;
        }
        return;
    }
    len = sizeof(a);
    if (getpeername(p->fd, (struct sockaddr *)&a, &len) == 0)
        p->kind = address_kind((struct sockaddr *)&a);
}

static struct peer *peer_open(struct http_server *s, int fd, _Atomic uint32_t *held)
{
    struct peer *p = calloc(1, sizeof(*p));
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = p};

    if (!p)
        return NULL;
    *p = (struct peer){
        .source = SOURCE_PEER, .server = s, .fd = fd, .held = held, .since_us = clock_now_us()};
    peer_identify(p);
    (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    p->next = s->peers;
    if (p->next)
        p->next->prev = p;
    s->peers = p;
    return p;
}

static void peer_close(struct peer *p)
{
    if (p->next)
        p->next->prev = p->prev;
    if (p->prev)
        p->prev->next = p->next;
    else
        p->server->peers = p->next;
    (void)epoll_ctl(p->server->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
    free(p);
}

static void on_connection(void *cls, struct MHD_Connection *con, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    struct peer *p = *context;

    (void)con;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct caller *c = s->arriving;
        p = *context = peer_open(s, c->fd, c->held);
        if (p)
            s->arriving = NULL; /* counted until it is closed */
    } else if (p) {
        door_left(&s->stats, p->held);
        if (p->lingers)
            door_linger(s->door, p->fd);
        peer_close(p);
        *context = NULL;
    }
}

/* From the door. */
static void caller_take(struct http_server *s, struct caller *c)
{
    const struct sockaddr_storage unused = {.ss_family = AF_UNSPEC};

    s->arriving = c;
    (void)MHD_add_connection(s->mhd, c->fd, (const struct sockaddr *)&unused, sizeof(unused));
    if (s->arriving) /* no memory: MHD has closed it */
        door_left(&s->stats, c->held);
    s->arriving = NULL;
    free(c);
}

/* MHD 0.9.75 takes a short read for "no more now".  If the end of file came in the same event as
 * the last bytes, it never looks again, and the connection stays until it is idle for too long.
 * This has no effect on the wire but makes another event. */
static void peer_nudge(struct peer *p)
{
    (void)shutdown(p->fd, SHUT_RD);
}

/* The client has closed its side.  One that does so while its request waits for an item is taken
 * as gone; one that did so before (it may still read) gets its answer. */
static void peer_hung_up(struct peer *p)
{
    struct live *l = p->live;

    if (!p->hung_up)
        peer_nudge(p);
    p->hung_up = true;
    if (!l || !l->suspended || l->gone_called)
        return;
    l->gone_called = true;
    COUNT(p->server->stats.vanished, 1);
    if (l->gone && l->gone(&l->x)) {
        l->aborted = true;
        resume(l);
    }
}

/* Does it send so slowly that it only holds a connection? */
static bool peer_too_slow(const struct peer *p, usec_t now_us)
{
    const struct live *l = p->live;
    usec_t took_us;

    if (!l)
        return now_us - p->since_us > p->server->cfg.idle_s * USEC_PER_SEC;
    if (l->whole || l->status)
        return false;
    took_us = now_us - l->x.arrival_us;
    return took_us > BODY_GRACE_US &&
           l->x.body_bytes < (took_us - BODY_GRACE_US) / USEC_PER_SEC * BODY_MIN_BYTES_PER_S;
}

static void peers_sweep(struct http_server *s, usec_t now_us)
{
    if (now_us - s->swept_us < USEC_PER_SEC)
        return;
    s->swept_us = now_us;
    for (struct peer *p = s->peers; p; p = p->next) {
        if (p->hung_up && !(p->live && p->live->suspended))
            peer_nudge(
                p); /* again: the event may have come before the last of the bytes was read */
        if (p->cut || !peer_too_slow(p, now_us))
            continue;
        COUNT(s->stats.too_slow, 1);
        if (p->live)
            refuse_raw(p, 408, "{\"error\":\"the body comes too slowly\"}");
        p->cut = true;
        (void)shutdown(p->fd, SHUT_RDWR);
    }
}

/* ---- the loop */
static int wait_ms(const struct http_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms, least = s->stopping ? STOP_TURN_MS : TURN_MS;

    return (int)(MHD_get_timeout(s->mhd, &ms) == MHD_YES ? MIN(least, ms) : least);
}

static void items_take(struct http_server *s)
{
    for (struct cq_item *i = cq_take(s->cq), *next; i; i = next) {
        next = i->next; /* the item may be gone after this */
        if (i->kind == ITEM_CALLER) {
            caller_take(s, (struct caller *)(void *)i);
            continue;
        }
        assert(i->kind >= 0 && i->kind < ITEM_KINDS);
        s->cfg.item[i->kind](i);
    }
}

static void turn(struct http_server *s)
{
    struct epoll_event ev[EVENTS_MAX];
    int n = epoll_wait(s->epoll_fd, ev, EVENTS_MAX, wait_ms(s));

    atomic_store_explicit(&s->stats.turn_us, clock_now_us(), memory_order_relaxed);
    /* Peers die only inside MHD_run(), so every pointer in ev is good until then. */
    for (int i = 0; i < n; i++) {
        if (*(enum source *)ev[i].data.ptr == SOURCE_PEER)
            peer_hung_up(ev[i].data.ptr);
        else if (*(enum source *)ev[i].data.ptr == SOURCE_QUEUE)
            items_take(s);
    }
    if (s->stopping) { /* look first: what came from the door before it ended is in the queue */
        uint64_t count;
        bool ended = door_ended(s->door);
        (void)!read(s->stop_fd, &count, sizeof(count)); /* no longer readable: the loop may sleep */
        items_take(s);
        s->door_ended = ended;
    }
    peers_sweep(s, clock_now_us()); /* later than any peer's time */
    (void)MHD_run(s->mhd);
    if (s->cfg.turned)
        s->cfg.turned(s->cfg.turn);
}

/* A request that is on its way or lies unread: closing the connection now would reset it, though
 * its client did nothing wrong. */
static bool peer_awaited(const struct peer *p, usec_t now_us)
{
    int unread = 0;

    if (p->live || p->cut)
        return p->live != NULL;
    if (!p->used && now_us < p->since_us + FIRST_GRACE_US)
        return true;
    return ioctl(p->fd, FIONREAD, &unread) == 0 && unread > 0;
}

static bool may_end(struct http_server *s)
{
    usec_t now_us = clock_now_us();

    if (!s->stopping || atomic_load(&s->stats.suspended_now))
        return false;
    if (now_us >= s->stop_by_us)
        return true;
    if (!s->door_ended)
        return false;
    for (struct peer *p = s->peers; p; p = p->next)
        if (peer_awaited(p, now_us))
            return false;
    return s->n_live == 0;
}

static void *server_main(void *arg)
{
    struct http_server *s = arg;

    (void)pthread_setname_np(pthread_self(), s->cfg.name);
    while (!may_end(s))
        turn(s);
    return NULL;
}

/* ---- start and stop */
static size_t url_as_sent(void *cls, struct MHD_Connection *con, char *text)
{
    (void)cls, (void)con;
    return strlen(text); /* decoded after splitting: route.c */
}

static int watch(struct http_server *s, int fd, enum source *source)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = source};

    return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int mhd_open(struct http_server *s, struct err *err)
{
    const union MHD_DaemonInfo *info;

    s->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME,
                              0, NULL, NULL, on_access, s, MHD_OPTION_NOTIFY_COMPLETED,
                              on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
                              MHD_OPTION_UNESCAPE_CALLBACK, url_as_sent, NULL,
                              MHD_OPTION_CONNECTION_LIMIT, s->cfg.connections_max * s->cfg.n_listen,
                              MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)s->cfg.connection_bytes,
                              MHD_OPTION_CONNECTION_TIMEOUT, s->cfg.idle_s, MHD_OPTION_END);
    if (!s->mhd)
        return err_set(err, -EIO, "the HTTP server of %s does not start", s->cfg.name);
    info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (watch(s, info ? info->epoll_fd : -1, &s->mhd_source) < 0)
        return err_set(err, -EIO, "epoll: %s", strerror(errno));
    return 0;
}

/* Its threads have ended, or never began. */
static void server_close(struct http_server *s)
{
    door_stop(s->door, 1);
    door_wait(s->door);
    if (s->mhd)
        MHD_stop_daemon(s->mhd);
    for (struct cq_item *i = s->cq ? cq_take(s->cq) : NULL, *next; i; i = next) {
        next = i->next; /* came too late */
        assert(i->kind == ITEM_CALLER);
        struct caller *c = (struct caller *)(void *)i;
        door_left(&s->stats, c->held);
        (void)close(c->fd);
        free(c);
    }
    door_free(s->door);
    cq_free(s->cq);
    if (s->epoll_fd >= 0)
        (void)close(s->epoll_fd);
    if (s->stop_fd >= 0)
        (void)close(s->stop_fd);
}

static void server_free(struct http_server *s)
{
    if (s)
        server_close(s);
    free(s);
}
DEFINE_AUTO(struct http_server, server_free)

static int server_open(struct http_server *s, struct err *err)
{
    struct door_config door = {.http = &s->cfg, .stats = &s->stats, .draining = &s->draining};

    s->mhd_source = SOURCE_MHD;
    s->queue_source = SOURCE_QUEUE;
    s->stop_source = SOURCE_STOP;
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll_fd < 0 || s->stop_fd < 0 || cq_new(&s->cq) < 0)
        return err_set(err, -ENOMEM, "%s: no descriptor for the event loop", s->cfg.name);
    if (watch(s, cq_fd(s->cq), &s->queue_source) < 0 || watch(s, s->stop_fd, &s->stop_source) < 0)
        return err_set(err, -EIO, "epoll: %s", strerror(errno));
    if (mhd_open(s, err) < 0)
        return err->code;
    door.to = s->cq;
    return door_open(&door, &s->door, err);
}

/* Signals are main's: an http thread takes none, SIGPIPE included. */
static int thread_start(struct http_server *s)
{
    sigset_t all, was;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &was);
    rc = pthread_create(&s->thread, NULL, server_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &was, NULL);
    return -rc;
}

int http_server_start(const struct http_config *cfg, struct http_server **ret, struct err *err)
{
    AUTO(server_free) struct http_server *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    assert(cfg->n_listen >= 1 && cfg->n_listen <= HTTP_LISTEN_MAX && cfg->connections_max);
    s->cfg = *cfg;
    s->cfg.connection_bytes = cfg->connection_bytes ? cfg->connection_bytes : CONNECTION_BYTES;
    s->cfg.drain_bytes = cfg->drain_bytes ? cfg->drain_bytes : DRAIN_BYTES;
    s->cfg.idle_s = cfg->idle_s ? cfg->idle_s : IDLE_S;
    s->epoll_fd = s->stop_fd = -1;
    if (http_refusals_take(on_refused, err) < 0 || server_open(s, err) < 0)
        return err->code;
    s->cfg.listen_fd = NULL; /* borrowed for the call only */
    s->stats.turn_us = clock_now_us();
    if (thread_start(s) < 0)
        return err_set(err, -EAGAIN, "%s: no thread", s->cfg.name);
    *ret = TAKE(s);
    return 0;
}

const struct http_stats *http_server_stats(const struct http_server *s)
{
    return &s->stats;
}

struct cq *http_server_cq(struct http_server *s)
{
    return s->cq;
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
}

void http_server_stop(struct http_server *s, usec_t linger_us)
{
    uint64_t one = 1;

    if (!s)
        return;
    s->draining = true;
    s->stop_by_us = clock_now_us() + linger_us;
    s->stopping = true;
    door_stop(s->door, s->stop_by_us);
    (void)!write(s->stop_fd, &one, sizeof(one));
    (void)pthread_join(s->thread, NULL);
    server_close(s);
}

void http_server_free(struct http_server *s)
{
    free(s);
}
