/* What choose.c and offer.c share: plans to be (offers), and rehearsals that tell which is best. */
#pragma once

#include "whole.h"

#define MODELS 8 /* more are left to the planner */
#define GROUPS 3
#define CHOICE_BATCH 64
#define TYPICAL 4 /* rows of a usual run */
#define FINALISTS 3
#define SEED 1

/* Requests of a rehearsal: at first; of those that are looked at again; of the last, with arrivals
 * that nothing was tuned to; and of all rehearsals together.  hasty: with several gpu-lets not
 * every order is tried with every length of runs. */
struct effort {
    uint32_t sketch, closer, last, all;
    bool hasty;
};

struct group { /* a gpu-let to be */
    uint32_t n, model[MODELS], cap[MODELS], granules;
    enum plan_order order;
};
struct offer { /* a plan to be */
    uint32_t n;
    struct group group[GROUPS];
    double score; /* requests/s in time, rehearsed, less what is unfair */
};

struct choice {
    const struct problem *p;
    const struct plan *was; /* the running plan, or NULL: it stays in memory until the next runs */
    const struct plan_type *t;
    void *scratch;
    const struct effort *effort;
    uint32_t n_requests, left; /* of a rehearsal; of all that are still to be */
    uint64_t seed;
    uint32_t order[MODELS]; /* models by SLO, the tightest first */
    double cost_us[MODELS]; /* of a request in the largest gpu-let, in a usual run */
};

/* ---- offer.c */

/* Of one gpu-let. */
uint32_t granules_most(const struct plan_type *t);
/* False: a run has no prediction, or the arena is full. */
bool choice_init(struct choice *c, const struct problem *p, const struct plan *was,
                 const struct effort *e, struct arena *a);
/* The time for planning at leisure. */
bool is_over(const struct problem *p);
/* By c->n_requests of c->seed; -1: cannot be rehearsed, no effort is left, or it is given up. */
double plan_score(struct choice *c, const struct plan *plan);
/* The same by arrivals that nothing is tuned to. */
double plan_score_last(struct choice *c, const struct plan *plan);

/* Models in the order of their SLOs, cut at these places, with granules by work; scored. */
void offer_make(struct choice *c, const uint32_t *cut, uint32_t n, struct offer *o);
/* The plan as an offer, with models that are not in it beside those whose SLO is next to theirs.
 * False: it cannot be one. */
bool offer_from(const struct choice *c, const struct plan *plan, struct offer *o);
void offer_score(struct choice *c, struct offer *o);
/* Among the FINALISTS best, the best first. */
void finalist_add(struct offer *final, const struct offer *o);
/* Is it better than *best by arrivals that nothing is tuned to, and has it room beside the running
 * plan?  Then it takes its place. */
void offer_judge(struct choice *c, const struct offer *o, struct offer *best);
/* Makes it better, and judges what becomes of it: orders and batches of each gpu-let; then sizes,
 * and batches of each model. */
void offer_orders(struct choice *c, struct offer *o, struct offer *best);
void offer_details(struct choice *c, struct offer *o, struct offer *best);
/* As a plan, with the rule's verdicts. */
int offer_plan(const struct choice *c, const struct offer *o, struct arena *a, struct plan *plan,
               struct err *err);
