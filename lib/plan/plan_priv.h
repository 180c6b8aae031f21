/* What the files of lib/plan share. */
#pragma once

#include <gpulet/policy.h>
#include <gpulet/queue.h>

static inline bool set_has(const struct plan_granules *s, uint32_t i)
{
    return s->bits[i / 64] >> (i % 64) & 1;
}

static inline void set_add(struct plan_granules *s, uint32_t i)
{
    s->bits[i / 64] |= UINT64_C(1) << (i % 64);
}

static inline bool set_eq(const struct plan_granules *a, const struct plan_granules *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool set_overlaps(const struct plan_granules *a, const struct plan_granules *b)
{
    for (size_t i = 0; i < ARRAY_SIZE(a->bits); i++)
        if (a->bits[i] & b->bits[i])
            return true;
    return false;
}

static inline const struct plan_type *type_of(const struct problem *p, uint32_t device)
{
    return &p->type[p->device[device].type];
}

static inline const struct profile *profile_of(const struct problem *p, uint32_t model,
                                               uint32_t device)
{
    return &p->model[model].profile[p->device[device].type];
}

/* a <= b but for rounding. */
static inline bool within(double a, double b)
{
    return a <= b + 1e-6 * (b < 0 ? -b : b);
}

static inline double slo_part(const struct plan_rules *r)
{
    return r->slo_part > 0 ? r->slo_part : 0.5;
}

static inline double violations(const struct plan_rules *r)
{
    return r->violations > 0 ? r->violations : 0.01;
}

/* How many shares of a gpu-let are not of best effort: the first ones. */
uint32_t sure_shares(const struct problem *p, const struct plan_gpulet *g);

/* What to do now, as if nothing could go ahead (best_effort.c). */
struct batch_choice next_now(const struct policy *policy, const struct batch_view *v);

/* iGniter knows who is there, not for how much of the time. */
static inline bool counts_presence(const struct plan_type *t)
{
    return t->predict.interference.kind == INTERFERE_IGNITER;
}

/* Routing deals a model's requests out among its gpu-lets: one that gets a third of them gets every
 * third.  (At least: it looks at queues, too.) */
#define TURNS_MOST 8
static inline uint32_t queue_turns(double model_rps, double share_rps)
{
    double turns = share_rps > 0 ? model_rps / share_rps + 1e-6 : 1;

    return turns < 1 ? 1 : turns > TURNS_MOST ? TURNS_MOST : (uint32_t)turns;
}

/* Shares in one gpu-let whose queue is predicted, RULE_QUEUE: its scratch space is on the stack. */
#define LET_QUEUE_MAX 8

#define QUEUE_SCRATCH (QUEUE_NEED(LET_QUEUE_MAX) + (256u << 10)) /* with tables of run times */

/* ---- truth.c: the gpu-lets of one device together */

#define CROWD_MAX (PREDICT_NEIGHBOURS_MAX + 1) /* shares on a device that knows interference */

struct crowd {
    const struct problem *p;
    uint32_t type;
    const struct plan_gpulet *const *let;
    uint32_t n_lets, n_loads;
    bool alone; /* no neighbour counts */
    uint32_t from[PLAN_MAX_GRANULES + 1];
    struct load load[2 * CROWD_MAX];
    /* RULE_QUEUE: QUEUE_SCRATCH bytes that queues are predicted in, set before crowd_truth(), and
     * what the shares of gpu-let asked - 1 were told together. */
    void *scratch;
    uint32_t asked;
    struct queue_result answer[LET_QUEUE_MAX];
};

struct load share_load(const struct problem *p, uint32_t type, const struct plan_gpulet *g,
                       const struct plan_share *s, uint32_t rows);
uint32_t share_usual(const struct plan_share *s);
/* let[] is kept while the crowd is used.  -E2BIG: more than CROWD_MAX shares disturb each other. */
int crowd_init(struct crowd *c, const struct problem *p, uint32_t type,
               const struct plan_gpulet *const *let, uint32_t n);
/* Share i of gpu-let k of the crowd.  most: search for most_rps too, which takes longer. */
void crowd_truth(struct crowd *c, uint32_t k, uint32_t i, bool most, struct share_truth *ret);

/* What their planners need of an arena; plan_need() is the most of them. */
size_t equal_need(const struct problem *p);

/* The first thing in a problem that is out of range. */
int problem_check(const struct problem *p, struct err *err);

/* The run-time half that policies share until one differs. */
struct admit_choice greedy_admit(const struct admit_view *v);
/* The same, and fair: gpuletd's. */
struct admit_choice fair_admit(const struct admit_view *v);
uint32_t greedy_route(const struct admit_view *v);
struct batch_choice greedy_batch_next(const struct batch_view *v);
struct batch_choice patient_batch_next(const struct batch_view *v);
/* By the gpu-let's order: gpuletd's. */
struct batch_choice ordered_batch_next(const struct batch_view *v);

/* ---- rehearse.c: a device's gpu-lets in virtual time */
#define REHEARSE_LETS 16
#define REHEARSE_NEED ((size_t)576 << 10) /* a plan that needs more is not rehearsed */
#define CHOICE_NEED 4096                  /* the plan that choose.c makes */
struct rehearsed {                        /* of a model */
    uint32_t offered, in_time;
};
/* So many requests of all models together through gpuletd's run-time functions on a plan of device
 * 0, all of whose shares are one stream.  False: a run has no prediction, a share not a row,
 * there are more gpu-lets than REHEARSE_LETS, or the arena is full.  Equal seeds give equal
 * arrivals whatever the plan. What it takes of the arena is not given back. */
bool rehearse(const struct problem *p, const struct plan *plan, uint32_t n_requests, uint64_t seed,
              struct arena *a, struct rehearsed *ret);
/* Of each model the part in time, the mean of all, when all ask for so many times what is planned
 * and nobody is held to an allowance; -1: as plan_worst(). */
double plan_pressed(const struct problem *p, const struct plan *plan, double load);
