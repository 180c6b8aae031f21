/* A request's way.
 *
 * MHD calls http_on_access() for a request: once for the head, once for each piece of the body,
 * once when the body is complete, and again after a resume.  A reply is made at any of these points
 * but queued only in the last two, when MHD has read the whole request: queued earlier, it would
 * cost the client its connection.  The exceptions are deliberate: a refused body that is too long
 * to drain, or one that the client has not begun to send (Expect: 100-continue). */
#include "http_priv.h"
#include <gpulet/clock.h>
#include <strings.h>

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
        http_refuse_raw(l->peer, l->status, l->said);
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
    return http_reply_hand(l);
}

static enum MHD_Result on_data(struct live *l, const char *data, size_t n)
{
    struct err err = {0};

    COUNT(l->x.http->stats.body_bytes, n);
    if (!l->status && http_sink_append(l, data, n, &err) < 0)
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
    return http_reply_hand(l);
}

enum MHD_Result http_on_access(void *cls, struct MHD_Connection *con, const char *url,
                               const char *method, const char *version, const char *data, size_t *n,
                               void **con_cls)
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

void http_on_completed(void *cls, struct MHD_Connection *con, void **con_cls,
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
