/* Errors as replies: the only place where a negative errno becomes an HTTP status. */
#include "api.h"
#include <stdarg.h>
#include <stdio.h>

static const struct {
    int code;
    unsigned http;
} status_of[] = {
    {-EINVAL, 400}, {-ENOTSUP, 400},   {-EOVERFLOW, 400}, {-E2BIG, 400},  {-EDOM, 400},
    {-EACCES, 403}, {-ENOENT, 404},    {-EEXIST, 409},    {-EBUSY, 409},  {-EFBIG, 413},
    {-EPROTO, 415}, {-ENOSYS, 501},    {-EAGAIN, 503},    {-ENOMEM, 503}, {-ETIMEDOUT, 503},
    {-ENODEV, 503}, {-ESHUTDOWN, 503}, {-ENOSPC, 507},    {-EDQUOT, 507}, {-EIO, 500},
};

unsigned api_status(int code)
{
    for (size_t i = 0; i < ARRAY_SIZE(status_of); i++)
        if (status_of[i].code == code)
            return status_of[i].http;
    return 500;
}

/* {"error":"…"}, escaped by jansson; a constant text without memory for that. */
static void reply_message(struct exchange *x, unsigned status, const char *msg)
{
    static const char no_memory[] = "{\"error\":\"out of memory\"}";
    json_t *obj = json_pack("{s:s}", "error", msg);
    char *text = obj ? json_dumps(obj, JSON_COMPACT) : NULL;

    json_decref(obj);
    if (text)
        exchange_reply_text(x, status, "application/json", text, strlen(text));
    else
        exchange_reply_static(x, 503, "application/json", no_memory, sizeof(no_memory) - 1);
}

/* Foreign bytes in a message become '?' when they are no UTF-8. */
static void message_clean(char *msg)
{
    json_t *probe = json_string(msg);

    if (!probe)
        for (char *c = msg; *c; c++)
            if (*c & 0x80)
                *c = '?';
    json_decref(probe);
}

static void reply_status(struct exchange *x, unsigned status, const char *msg, usec_t retry_us)
{
    char clean[sizeof(((struct err *)0)->msg)], seconds[24];

    (void)snprintf(clean, sizeof(clean), "%s", msg);
    message_clean(clean);
    if (status == 503) {
        usec_t s = (retry_us + USEC_PER_SEC - 1) / USEC_PER_SEC;
        (void)snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)MAX(s, 1u));
        exchange_set_header(x, "Retry-After", seconds);
    }
    if (status == 415)
        exchange_set_header(x, "Accept-Encoding", "gzip, deflate");
    reply_message(x, status, clean);
}

void exchange_reply_err(struct exchange *x, const struct err *err, usec_t retry_us)
{
    reply_status(x, api_status(err->code), err->msg, retry_us);
}

void exchange_reply_error(struct exchange *x, unsigned status, const char *fmt, ...)
{
    char msg[sizeof(((struct err *)0)->msg)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    reply_status(x, status, msg, 0);
}

/* ---- JSON bodies and jobs */
void api_reply_json(struct exchange *x, unsigned status, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

    json_decref(json);
    if (text)
        exchange_reply_text(x, status, "application/json", text, strlen(text));
    else
        exchange_reply_error(x, 503, "out of memory");
}

int api_body_object(struct exchange *x, json_t **ret, struct err *err)
{
    json_error_t at;
    json_t *json;

    if (x->body_bytes == 0) {
        *ret = json_object();
        return *ret ? 0 : err_set(err, -ENOMEM, "out of memory");
    }
    json = json_loadb(x->body, x->body_bytes, 0, &at);
    if (!json)
        return err_set(err, -EINVAL, "the body is not JSON: line %d, column %d: %s", at.line,
                       at.column, at.text);
    if (!json_is_object(json)) {
        json_decref(json);
        return err_set(err, -EINVAL, "the body is not a JSON object");
    }
    *ret = json;
    return 0;
}

struct http_job *http_job_new(struct exchange *x, void (*done)(struct exchange *x, struct job *j))
{
    struct http_job *j = calloc(1, sizeof(*j));

    if (!j) {
        exchange_reply_error(x, 503, "out of memory");
        return NULL;
    }
    j->job.item.kind = ITEM_JOB;
    j->job.cq = exchange_cq(x);
    j->x = x;
    j->done = done;
    exchange_suspend(x, NULL);
    return j;
}

void http_job_reply(struct exchange *x, struct job *job)
{
    if (job->rc == 0)
        exchange_reply_static(x, 200, NULL, "", 0);
    else
        exchange_reply_err(x, &job->err, 0);
}

void http_job_item(struct cq_item *item)
{
    struct http_job *j = (void *)((char *)item - offsetof(struct http_job, job.item));

    j->done(j->x, &j->job);
    free(j);
}
