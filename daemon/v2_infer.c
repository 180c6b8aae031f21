/* The exchange of an inference: admitted at the head, parsed and submitted when the body is there,
 * answered when the request comes back. */
#include "v2_infer.h"
#include <gpulet/clock.h>
#include <inttypes.h>

#define BODY_MAX (UINT64_C(64) << 20)
#define LONG_BODY (16u << 10) /* bytes that take longer to parse than an executor to wake */
#define SHORT_BODY 4096       /* bytes that came with their head, most likely */

struct infer *infer_new(void)
{
    struct infer *f = malloc(sizeof(*f));

    if (!f)
        return NULL;
    request_init(&f->r);
    memset((char *)f + sizeof(f->r), 0, offsetof(struct infer, wanted) - sizeof(f->r));
    return f;
}

void infer_free(struct infer *f)
{
    if (!f)
        return;
    struct served *s = f->r.served;

    slab_put(f->body);
    json_decref(f->head);
    request_done(&f->r);
    served_put(s);
    free(f);
}

static void infer_cleanup(void *user)
{
    infer_free(user);
}

static usec_t timeout_of(const struct infer *f)
{
    const struct served *m = f->r.served;

    if (f->timeout_us)
        return f->timeout_us;
    return m->spec.slo_us && !m->slo_unmet ? m->spec.slo_us : f->v2->timeout_us;
}

/* Inference-Header-Content-Length: a plain decimal. */
static int header_bytes(struct exchange *x, int64_t *ret, struct err *err)
{
    const char *text = exchange_header(x, "Inference-Header-Content-Length");

    *ret = HEADER_NONE;
    if (!text)
        return 0;
    if (!*text || strlen(text) > 15 || strspn(text, "0123456789") != strlen(text))
        return err_set(err, -EINVAL, "Inference-Header-Content-Length '%.40s' is no plain decimal",
                       text);
    *ret = strtoll(text, NULL, 10);
    return 0;
}

/* Has it a chance?  Asked before its body is received, to be spared of that, and decided when it is
 * submitted: for a short body, once is enough. */
static int infer_admit(const struct exchange *x, const struct infer *f, usec_t *retry_us,
                       struct err *err)
{
    if (x->declared_bytes <= SHORT_BODY)
        return 0;
    return engine_admit(f->v2->engine, f->r.served, x->arrival_us + timeout_of(f), retry_us, err);
}

static int infer_head(struct exchange *x, struct infer *f, usec_t *retry_us, struct err *err)
{
    size_t max = f->v2->body_max ? f->v2->body_max : BODY_MAX, align_at;

    if (encoding_of(exchange_header(x, "Content-Encoding"), &f->encoding, err) < 0 ||
        header_bytes(x, &f->header_bytes, err) < 0)
        return err->code;
    align_at =
        f->header_bytes > 0 && f->encoding == ENCODING_IDENTITY ? (size_t)f->header_bytes : 0;
    if (x->declared_bytes == 0)
        return err_set(err, -EINVAL, "an inference needs a body");
    if (x->declared_bytes != UINT64_MAX && x->declared_bytes > max)
        return err_set(err, -EFBIG, "the body has %" PRIu64 " bytes, the limit is %zu",
                       x->declared_bytes, max);
    if (infer_admit(x, f, retry_us, err) < 0)
        return err->code;
    return exchange_sink_slab(x, max, align_at, err);
}

void v2_infer_head(struct exchange *x)
{
    struct v2 *v2 = x->ctx;
    struct infer *f = infer_new();
    struct err err = {0};
    usec_t retry_us = 0;

    x->user = f;
    x->cleanup = infer_cleanup;
    if (!f) {
        exchange_reply_error(x, 503, "out of memory");
        return;
    }
    f->x = x;
    f->v2 = v2;
    if (*v2->draining) {
        exchange_reply_error(x, 503, "the server is stopping");
        return;
    }
    if (v2_served(x, &f->r.served) < 0)
        return;
    if (infer_head(x, f, &retry_us, &err) < 0)
        exchange_reply_err(x, &err, retry_us);
}

/* The body as it is, or inflated into a slab of its own. */
static int infer_inflate(struct exchange *x, struct infer *f, const char **body, size_t *bytes,
                         struct err *err)
{
    size_t align_at = f->header_bytes > 0 ? (size_t)f->header_bytes : 0;
    AUTO(slab_put) struct slab *sent = TAKE(x->slab);

    *body = x->body;
    *bytes = x->body_bytes;
    if (f->encoding == ENCODING_IDENTITY) {
        f->body = TAKE(sent);
        return 0;
    }
    return body_inflate(sent->pool, f->encoding, *body, *bytes,
                        f->v2->body_max ? f->v2->body_max : BODY_MAX, align_at, &f->body, body,
                        bytes, err);
}

/* A client that left: its request need not run if it has not begun. */
static bool infer_gone(struct exchange *x)
{
    struct infer *f = x->user;

    return engine_withdraw(f->v2->engine, &f->r);
}

void v2_turned(void *turn)
{
    struct v2_turn *t = turn;

    engine_wake(t->engine, &t->wakes);
}

void v2_turn_done(struct v2_turn *t)
{
    for (size_t i = 0; i < HEADS_MAX; i++)
        json_decref(t->heads.slot[i].head);
}

void v2_infer_body(struct exchange *x)
{
    struct infer *f = x->user;
    struct v2_turn *turn = exchange_turn(x);
    struct request *r = &f->r;
    struct err err = {0};
    const char *body;
    size_t bytes;
    int rc;

    f->heads = &turn->heads;
    if (x->body_bytes > LONG_BODY) /* nobody waits for it to be parsed */
        v2_turned(turn);
    if (infer_inflate(x, f, &body, &bytes, &err) < 0 ||
        v2_infer_parse(f, engine_pool(f->v2->engine), body, bytes, &err) < 0) {
        exchange_reply_err(x, &err, 0);
        return;
    }
    r->item.kind = ITEM_REQUEST;
    r->cq = exchange_cq(x);
    r->arrival_us = x->arrival_us;
    r->deadline_us = x->arrival_us + timeout_of(f);
    r->priority = r->priority ? r->priority : r->served->spec.priority;
    exchange_suspend(x, infer_gone);
    rc = engine_submit_later(f->v2->engine, r, &turn->wakes);
    if (rc < 0) {
        if (!r->err.code)
            (void)err_set(&r->err, rc, "model '%s': the request was refused", r->served->spec.name);
        exchange_reply_err(x, &r->err, r->retry_us);
    }
}

void v2_infer_item(struct cq_item *item)
{
    struct infer *f = (struct infer *)(void *)item;
    struct request *r = &f->r;

    /* Inputs are not needed any more, however slowly the reply is read. */
    slab_put(TAKE(r->in_slab));
    slab_put(TAKE(f->body));
    if (r->fate == FATE_DONE) {
        v2_reply(f);
        tally_add(&r->served->stats->reply, tally_us, clock_now_us() - r->done_us);
    } else {
        if (!r->err.code)
            (void)err_set(&r->err, r->rc ? r->rc : -EIO, "the run failed");
        exchange_reply_err(f->x, &r->err, r->retry_us);
    }
}
