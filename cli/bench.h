/* gpuletctl bench, from inside: what is sent, when, and what came of it. */
#pragma once

#include "cli.h"
#include <gpulet/hist.h>

struct bench_model {
    const char *name;
    usec_t slo_us; /* 0: none; every answer is in time */
    char *url;
    char *body;                    /* one request of one row; malloc'ed, as url and headers */
    size_t body_bytes, head_bytes; /* head_bytes: of its JSON part when tensors follow, else 0 */

    /* of one run */
    const usec_t *at_us; /* [n_at] from its start: when to send */
    size_t n_at, next;
    uint64_t offered, in_time, late, refused, failed, lost; /* offered is the sum of the rest */
    struct hist latency;                                    /* of answers 200, from at_us */
    char why[160];                                          /* the first failure */
};

struct bench_load {
    struct bench_model *model;
    uint32_t n_models;
    usec_t warmup_us;     /* not counted */
    uint32_t flying_most; /* more at once are lost */
    usec_t timeout_us;    /* an answer that takes longer is lost */
    struct hist lag;      /* result: from when a request was due until it was sent */
    uint32_t flying_peak; /* result */
};

/* ---- bench_load.c: sends everything when it is due, whatever has been answered.  0, -ENOMEM,
 * -EIO: nothing can be sent at all. */
int bench_load(struct bench_load *b, struct err *err);

/* ---- bench_request.c: url and body of a request for the model, from its metadata.  Tensors are
 * binary where the server says that it takes them, else JSON. */
int bench_request(const struct cli *c, struct bench_model *m, struct err *err);
