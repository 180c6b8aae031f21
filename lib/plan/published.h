/* What the published planners (gpulet, igniter, parva, ...) share: a plan that grows gpu-let by
 * gpu-let, and what "the planner claims it holds" means.
 *
 * A published planner believes its own arithmetic: a model's verdict is LIMIT_NONE when the
 * planner's own figures serve it, however wrong they may be under the problem's rule.  plan_check()
 * is the judge, and a claim that it refutes makes the plan invalid.  The planners plan afresh: the
 * running plan is not looked at. */
#pragma once

#include "plan_priv.h"

#define PUB_SHARES 8 /* models in one gpu-let; gpu-lets allows 3, the others name no limit */

struct pub {
    const struct problem *p;
    struct arena *a;
    struct plan plan;
    uint32_t max_lets;
    double *planned_rps; /* by model: what the gpu-lets serve by the planner's arithmetic */
};

/* A rate that is not known yet is planned as one request a second. */
double pub_rate(const struct problem *p, uint32_t model);
/* Infinite where there is none. */
double pub_slo_us(const struct problem *p, uint32_t model);
uint32_t pub_max_shares(const struct problem *p, uint32_t own);

/* Gpu-lets that a device may have by the rules and, empty, by its memory. */
uint32_t pub_max_lets(const struct problem *p, uint32_t device);
/* The sizes of a gpu-let that a type of device allows, ascending; returns how many. */
uint32_t pub_sizes(const struct plan_type *t, uint32_t ret[PLAN_MAX_GRANULES]);
/* The first granule of the first free place of n granules: of the catalogue, or anywhere;
 * PLAN_NONE: there is none. */
uint32_t pub_place(const struct plan_type *t, const struct plan_granules *used, uint32_t n);
/* Can gpu-lets of these sizes lie side by side?  sets NULL: only asked.  With a catalogue the
 * largest are placed first, each at the first free place of its size. */
bool pub_cut(const struct plan_type *t, const uint32_t *granules, uint32_t n,
             struct plan_granules *sets);

/* What lies on one device, for counting memory. */
struct pub_item {
    uint32_t let, model, batch, streams; /* items of one gpu-let lie together */
};
bool pub_memory_holds(const struct problem *p, uint32_t type, const struct pub_item *item,
                      uint32_t n);

/* -EINVAL and -ENOMEM as plan_make_fn. */
int pub_begin(struct pub *b, const struct problem *p, struct arena *a, uint32_t max_lets,
              struct err *err);
/* The next gpu-let, device by device; NULL: the arena is full. */
struct plan_gpulet *pub_let(struct pub *b, uint32_t device, uint32_t granules, uint32_t max_shares);
/* rate_rps is what the planner believes that this share serves. */
void pub_share(struct pub *b, struct plan_gpulet *g, const struct plan_share *s);
void pub_verdict(struct pub *b, uint32_t model, enum plan_limit limit, usec_t least_slo_us,
                 double need);
/* Granules are given out, and the models' rates to their shares in proportion to what these
 * serve. */
void pub_end(struct pub *b, struct plan *ret);

/* Of a whole device alone: a run of a request in us (times 1; a planner's buffer is its own), 0:
 * it runs on none.  For verdicts. */
double pub_least_us(const struct problem *p, uint32_t model);

/* Bytes that any of them needs at most. */
size_t pub_need(const struct problem *p);

extern const struct policy policy_timeshare, policy_static_equal, policy_static_seven;
extern const struct policy policy_greedy, policy_gpulet, policy_gpulet_int, policy_gpulet_full;
extern const struct policy policy_igniter, policy_ffd, policy_parva;
extern const struct policy policy_fifo, policy_round_robin, policy_max_delay, policy_edf;
extern const struct policy policy_ours; /* named gpuletd: choose.c */
extern const struct policy policy_deferred, policy_all_at_once;
