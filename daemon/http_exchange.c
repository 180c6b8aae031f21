/* What handlers ask of an exchange, and reply. */
#include "http_priv.h"
#include "http_raw.h"
#include <stdio.h>
#include <sys/socket.h>

#define REFUSAL_MAX 300 /* bytes */

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

void http_resume(struct live *l)
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
    http_resume(l);
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
enum MHD_Result http_reply_hand(struct live *l)
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
void http_refuse_raw(struct peer *p, unsigned status, const char *json)
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
void http_on_refused(struct MHD_Connection *con, unsigned status)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(con, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct peer *p = info ? info->socket_context : NULL;
    char text[REFUSAL_MAX];

    if (!p)
        return;
    http_refusal_text(status, p->server->cfg.connection_bytes, text, sizeof(text));
    http_refuse_raw(p, status, text);
}
