/* gpuletctl bench, from inside: what is sent, when, and what came of it. */
#pragma once

#include "cli.h"
#include <gpulet/hist.h>
#include <stdio.h>

#define BENCH_INPUTS 16 /* different ones, to tell an answer from another's */

struct bench_model {
    const char *name;
    usec_t slo_us; /* 0: none; every answer is in time */
    char *url;
    char *body[BENCH_INPUTS];      /* requests of one row each; malloc'ed, as url and answers */
    uint32_t n_bodies;             /* they take turns */
    size_t body_bytes, head_bytes; /* head_bytes: of its JSON part when tensors follow, else 0 */
    char *answer[BENCH_INPUTS];    /* to each, as given alone; NULL: whatever comes is right */
    size_t answer_bytes[BENCH_INPUTS];

    /* of one run */
    const usec_t *at_us; /* [n_at] from its start: when to send */
    size_t n_at, next;
    /* offered is the sum of the rest */
    uint64_t offered, in_time, late, refused, failed, wrong, lost;
    struct hist latency; /* of answers 200, from at_us */
    char why[160];       /* the first failure */
};

struct bench_load {
    struct bench_model *model;
    uint32_t n_models;
    usec_t warmup_us;     /* not counted */
    uint32_t flying_most; /* more at once are lost */
    usec_t awake_us;      /* before a request is due: no timer is relied on for these */
    usec_t timeout_us;    /* an answer that takes longer is lost */
    FILE *log;            /* a line for each request that counts; NULL: none */
    struct hist lag;      /* result: from when a request was due until it was sent */
    uint32_t flying_peak; /* result */
};

/* ---- bench_load.c: sends everything when it is due, whatever has been answered.  0, -ENOMEM,
 * -EIO: nothing can be sent at all. */
int bench_load(struct bench_load *b, struct err *err);
/* Asks each model with each of its inputs, one after the other, and keeps the answers. */
int bench_alone(struct bench_load *b, struct err *err);

/* ---- bench_request.c: url and bodies of requests for the model, from its metadata: n_bodies of
 * them where tensors are binary, as the server says that it takes them, else one in JSON. */
int bench_request(const struct cli *c, struct bench_model *m, uint32_t n_bodies, struct err *err);
