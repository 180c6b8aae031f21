/* Plans: which gpu-lets a device is cut into, and which models share them.
 *
 * Everything here is pure: numbers in, decision out, the same bytes for the same input.  No clock,
 * lock, file, thread or global; memory comes from the arena in the arguments.  The planner knows
 * a model as a name, an SLO, a rate, bytes and a profile; it never sees a graph.
 * Zero in a field of the problem is always the plain default. */
#pragma once

#include <gpulet/predict.h>

#define PLAN_MAX_GRANULES 256 /* = MAX_GRANULES of backend.h; the engine asserts it */
#define PLAN_NONE UINT32_MAX

/* ---- the problem */

/* Where a gpu-let may lie, on devices that cannot be cut freely (MIG). */
struct plan_place {
    uint32_t first, n; /* granules */
};

struct plan_type { /* of device */
    const char *name;
    uint32_t n_granules, granule_units;
    uint32_t max_granules; /* of one gpu-let; 0: any number */
    bool in_turn;          /* runs of a gpu-let follow each other, whatever the policy would like */
    uint32_t n_sizes;      /* granules that a gpu-let may have, ascending; 0: any */
    const uint32_t *size;
    uint32_t n_places; /* catalogue; 0: any free granules will do */
    const struct plan_place *place;
    uint64_t mem_bytes;  /* 0: not limited */
    uint64_t let_bytes;  /* each open gpu-let costs that (its context, its libraries) */
    uint64_t pool_bytes; /* of mem_bytes, kept for requests in flight */
    double price;        /* of a device for an hour; 0: all types cost the same */
    struct predict_device predict;
};

struct plan_device {
    const char *name;
    uint32_t type; /* index into problem.type */
};

/* How requests arrive.  Burstiness is the coefficient of variation of the gaps. */
enum arrivals { ARRIVALS_UNKNOWN, ARRIVALS_PACED, ARRIVALS_POISSON, ARRIVALS_CV, ARRIVALS_TRACE };

struct plan_model {
    const char *name;
    usec_t slo_us;   /* arrival to reply; 0: none */
    double rate_rps; /* > 0 asked for; 0: not known */
    enum arrivals arrivals;
    double cv;                     /* ARRIVALS_CV, and of ARRIVALS_TRACE what was measured */
    uint32_t max_batch;            /* >= 1 */
    int32_t priority;              /* 1 is served first; 0: the default, after all others */
    bool best_effort;              /* nothing is promised, whatever slo_us and rate_rps say: served
                                      where others leave time, counted nowhere (policy_plan()) */
    uint64_t weights_bytes;        /* once per device; or once per gpu-let with weights_per_let */
    uint64_t slot_bytes;           /* once per gpu-let (and stream) that holds it */
    uint64_t row_bytes;            /* besides, for each row of the share's batch */
    bool weights_per_let;          /* a copy for each gpu-let (processes that share nothing) */
    const struct profile *profile; /* [problem.n_types] */
};

/* When is an SLO held? */
enum plan_rule {
    /* A request that just missed a batch waits for one run of everything in its gpu-let, then for
     * its own run.  Needs no rate. */
    RULE_CYCLE,
    /* A run takes at most slo_part of the SLO, and with several models in a gpu-let one cycle of
     * all of them and then the run fit in the SLO (iGniter: 0.5, ParvaGPU: 0.45). */
    RULE_PART,
    /* At most `violations` of the requests are late, by the queueing model (queue.h) under the
     * model's arrivals. */
    RULE_QUEUE,
};

/* Of the policies that ours is compared with, for tuning them; 0: each one's own default. */
struct tuning {
    double run_part;    /* on devices that are not cut: a full run takes so much of the SLO */
    double delay_part;  /* max-delay: a request waits so much of its SLO for others to join */
    double slice_part;  /* round-robin: a turn lasts so much of the SLO */
    uint32_t instances; /* max-delay: runs of a model at once in a gpu-let */
};

/* For something clearly better than the running plan there is time until is_over(of).  It is asked
 * before each rehearsal of a plan: every few milliseconds. */
struct plan_leisure {
    bool (*is_over)(void *of);
    void *of;
};

struct plan_rules {
    enum plan_rule rule;
    double slo_part;      /* RULE_PART; 0: 0.5 */
    double violations;    /* RULE_QUEUE; 0: 0.01 */
    uint32_t max_lets;    /* on one device; 0: no limit */
    uint32_t max_shares;  /* models in one gpu-let; 0: no limit; 1: no sharing in time */
    uint32_t max_streams; /* of one share; 0: 1 */
    bool as_few;          /* use as few devices (or as little money) as will do; else all are free
                             to use and the SLOs and rates are what counts */
    uint64_t steps;       /* of improvement; 0: the planner's own budget */
    struct tuning tuning;
    const struct plan_leisure *leisure; /* NULL: plan at once.  Else of policies that say so */
};

struct problem {
    uint32_t n_types, n_devices, n_models;
    const struct plan_type *type;
    const struct plan_device *device;
    const struct plan_model *model;
    struct plan_rules rules;
};

/* Deep copies into the arena; -ENOMEM when it is full. */
int profile_copy(struct arena *a, const struct profile *from, struct profile *ret);
int problem_copy(struct arena *a, const struct problem *from, struct problem *ret);

/* ---- the plan */

struct plan_granules {
    uint64_t bits[PLAN_MAX_GRANULES / 64];
};

struct plan_share {
    uint32_t model;    /* index into problem.model */
    uint32_t batch;    /* rows joined at most (the cap that drains bursts) */
    uint32_t usual;    /* rows that a run has at the planned rate; 0: as batch */
    uint32_t streams;  /* runs of it at once; 0: 1; more only where it has the gpu-let for itself */
    double rate_rps;   /* part of the model's rate that goes here */
    usec_t run_us;     /* predicted, of a full batch on this gpu-let, beside its neighbours */
    usec_t latency_us; /* predicted, arrival to reply, worst or 99th percentile by the rule; 0:
                          not predicted */
};

/* Which of the models of a gpu-let runs next. */
enum plan_order {
    ORDER_TURNS,    /* who waits for longest, unless somebody else would be late; a request is
                       admitted if it would be in time behind all that waits */
    ORDER_WAITING,  /* the same; admitted if it would be in time behind its own model's: this and
                       the others promise nothing, what becomes hopeless is dropped */
    ORDER_DEADLINE, /* whose first request is due first; where runs follow each other (in_turn) the
                       plan may promise as much as in turns */
    ORDER_DEFERRED  /* as turns, but a batch starts only when it is full or has no time left */
};
extern const char *const plan_order_words[]; /* by order; NULL at the end */

struct plan_gpulet {
    uint32_t device; /* index into problem.device */
    struct plan_granules set;
    uint32_t units;
    enum plan_order order; /* gpuletd looks at it, the others have their own */
    usec_t spare_us;       /* the longest run of best effort that makes nobody late here */
    uint32_t n_shares;
    struct plan_share *share; /* those of best effort are the last ones */
};

/* Which limit an unmet model meets. */
enum plan_limit { LIMIT_NONE, LIMIT_SLO, LIMIT_RATE, LIMIT_MEMORY, LIMIT_UNITS };

/* One for each model, whether it is met or not. */
struct plan_verdict {
    enum plan_limit limit; /* LIMIT_NONE: SLO and rate hold */
    usec_t least_slo_us;   /* the smallest SLO that would hold on this plan; 0: none would */
    double most_rps;       /* what the plan can serve of it */
    double need;           /* LIMIT_RATE, LIMIT_UNITS: devices more that would do, a fraction */
    double least;          /* its part of the plan's bound */
    uint64_t key;          /* what the model was when this was planned (all but its rate), so that
                              the next plan looks again only at what has changed; 0: not known */
};

struct plan {
    uint32_t n_gpulets, n_models;
    struct plan_gpulet *gpulet;   /* best in order of device: plan_check() is then linear */
    struct plan_verdict *verdict; /* n_models of them */
    double bound;   /* no plan uses fewer devices (dearest first: less money); 0: not computed */
    uint64_t steps; /* elementary operations that planning took */
};

/* Bytes of a fixed arena that any policy's plan_make() needs at most for this problem (growing
 * arenas do as well). */
size_t plan_need(const struct problem *p);

/* Divide the devices among the models.  Every model of the problem is in the plan's verdicts; a
 * model that no gpu-let can hold (memory) has LIMIT_MEMORY and is in none.  `was` is the running
 * plan or NULL: gpu-lets that can stay keep their granules.
 * -EINVAL: a rate, SLO, batch or profile is out of range, err names it; -ENOMEM: the arena.
 * With rules.leisure (`was` is there, the arena is a growing one): a plan that is clearly better;
 * -EALREADY: none was found; -ECANCELED: it was over before. */
typedef int plan_make_fn(const struct problem *p, const struct plan *was, struct arena *a,
                         struct plan *ret, struct err *err);

/* Independent verification, used on EVERY plan before it runs: granules exist, are disjoint and
 * within max_granules, sizes, catalogue and max_lets; shares name models, batches are within
 * max_batch; memory of each device holds, counting `was` (the running plan, or NULL) beside the
 * new one while they overlap; no verdict claims an SLO or a rate that the rule breaks, with
 * interference.  -EINVAL and the first thing that is wrong. */
int plan_check(const struct problem *p, const struct plan *was, const struct plan *plan,
               struct err *err);

/* No plan that plan_check() accepts, and that leaves nobody out, has fewer devices: every model at
 * the least that its requests cost by its latency rule, its rate, a realisable size and, under
 * RULE_PART, what neighbours take from each other (lib/plan/bound.c has the proof).  No geometry.
 * In devices of the first type (as_few: of the cheapest mix).  Models that cannot be served at all
 * are left out. */
double plan_bound(const struct problem *p, struct arena *a);

/* ---- what both planners and people ask of a plan */

/* The devices that have a gpu-let. */
uint32_t plan_devices_used(const struct problem *p, const struct plan *plan, struct arena *a);

/* Share i of gpu-let k in its place: with its neighbours on the device and its companions in the
 * gpu-let.  Everything is recomputed from the problem; nothing is read from the plan's
 * predictions. */
struct share_truth {
    struct estimate full, usual; /* of a run of `batch` and of `usual` rows */
    double duty;                 /* part of the time that it holds the gpu-let at its rate */
    double latency_us;           /* by the rule */
    double late;                 /* RULE_QUEUE: part of its requests beyond the SLO */
    double most_rps;             /* by itself, beside what the others use at their rates */
    bool holds;                  /* SLO and rate */
};
int plan_truth(const struct problem *p, const struct plan *plan, uint32_t k, uint32_t i,
               struct share_truth *ret);
/* The same at its rate only: most_rps, which takes twenty times as long, is not looked for. */
int plan_truth_now(const struct problem *p, const struct plan *plan, uint32_t k, uint32_t i,
                   struct share_truth *ret);

/* What no rule can tell: of the model that has the fewest, the part of its requests that are in
 * time when some thousands are sent through the plan in virtual time, by gpuletd's run-time
 * functions. 0: a model that is promised nothing has too few of them to tell. -1: not known, as
 * there are several devices, or a model without rate or SLO, with a priority or of best effort. */
double plan_worst(const struct problem *p, const struct plan *plan);
/* The same of ten times as many, in ten times the time (some 4 ms): late ones come in crowds, and a
 * few thousand requests of a model of which 98 % are in time may show from 91 to 99. */
double plan_sure(const struct problem *p, const struct plan *plan);
/* The same when all models ask for twice what is planned: of the model that has the fewest, those
 * in time over what is planned; more than 1 where allowances and idle moments give it more. */
double plan_loud(const struct problem *p, const struct plan *plan);
/* Of each model the part in time when all ask for these rates, whatever is planned for them, and
 * have nothing saved of their allowances. false: not known, as above. */
bool plan_served(const struct problem *p, const struct plan *plan, const double *asked_rps,
                 double *ret);

/* Sets spare_us of all gpu-lets: of plans that are not made by policy_plan(). */
#define SPARE_ANY_US ((usec_t)3600 * USEC_PER_SEC) /* nothing is promised there */
void plan_spare(const struct problem *p, struct plan *plan);

/* ---- changing from one plan to another */
enum plan_step_kind { STEP_KEEP, STEP_OPEN, STEP_SWAP, STEP_CLOSE };
struct plan_step {
    enum plan_step_kind kind;
    uint32_t was, now; /* gpu-let indices in the old and new plan; PLAN_NONE where there is none */
};
/* The steps in order: keeps, opens of gpu-lets whose granules are free (or shareable: see
 * `overlap`), the swap, closes.  overlap: gpu-lets may be opened on granules that a retiring
 * one still uses, as on a CPU (make before break).  ret has room for
 * was->n_gpulets + now->n_gpulets + 1 steps; returns how many. */
uint32_t plan_diff(const struct plan *was, const struct plan *now, bool overlap,
                   struct plan_step *ret);
