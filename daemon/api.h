/* What every handler shares: errors as replies, JSON replies, jobs of an exchange. */
#pragma once

#include "http.h"
#include <gpulet/engine.h>
#include <jansson.h>

/* The HTTP status of a negative errno: the only place where one becomes the other. */
unsigned api_status(int code);

/* Takes the reference to json. */
void api_reply_json(struct exchange *x, unsigned status, json_t *json);
/* Parse x's body as a JSON object; an empty body is {}.  -EINVAL says where it is wrong. */
int api_body_object(struct exchange *x, json_t **ret, struct err *err);

/* A job that an exchange waits for:
 *     struct http_job *j = http_job_new(x, done);
 *     engine_load(e, &spec, &j->job, j->job.cq);    // or the store's own worker
 * suspends x; done(x, job) runs on x's thread and replies (or starts another: job.err and rc are
 * kept until it returns).  NULL: out of memory, and x has been answered. */
struct http_job {
    struct job job;
    struct exchange *x;
    void (*done)(struct exchange *x, struct job *job);
};
struct http_job *http_job_new(struct exchange *x, void (*done)(struct exchange *x, struct job *j));
/* Reply with 200 and an empty body, or the job's error. */
void http_job_reply(struct exchange *x, struct job *job);

void http_job_item(struct cq_item *item);

/* For http_config.item (v2.c). */
extern http_item_fn *const api_items[ITEM_KINDS];
