/* Plans: which gpu-lets a device is cut into, and which models share them.
 *
 * Everything here is pure: numbers in, decision out, the same bytes for the same input.  No clock,
 * lock, file, thread or global; memory comes from the arena in the arguments.  The planner knows
 * a model as a name, an SLO, a rate, bytes and a profile; it never sees a graph. */
#pragma once

#include <gpulet/arena.h>

#define PLAN_MAX_GRANULES 256 /* = MAX_GRANULES of backend.h; the engine asserts it */
#define PLAN_NONE UINT32_MAX

/* ---- the problem */

/* What a run costs: a table over batch and units, both ascending.  run_us[u * n_batch + b]. */
struct profile {
    uint32_t n_batch, n_units;
    const uint32_t *batch;
    const uint32_t *units;
    const usec_t *run_us; /* median of a run, alone on the device */
    bool measured;        /* false: estimated from FLOPs and bytes */
};

struct plan_device {
    const char *name;
    uint32_t n_granules, granule_units;
    uint32_t max_granules; /* of one gpu-let; 0: any number */
    uint64_t mem_bytes;    /* 0: not limited */
};

struct plan_model {
    const char *name;
    usec_t slo_us;          /* arrival to reply; 0: none, best effort */
    double rate_rps;        /* > 0 asked for; 0: not known */
    uint32_t max_batch;     /* >= 1 */
    int32_t priority;       /* 1 is served first; 0: the default, after all others */
    uint64_t weights_bytes; /* once per device */
    uint64_t slot_bytes;    /* once per gpu-let that holds it */
    const struct profile *profile;
};

struct problem {
    uint32_t n_devices, n_models;
    const struct plan_device *device;
    const struct plan_model *model;
};

/* ---- the plan */

struct plan_granules {
    uint64_t bits[PLAN_MAX_GRANULES / 64];
};

struct plan_share {
    uint32_t model;  /* index into problem.model */
    uint32_t batch;  /* requests' rows joined at most */
    double rate_rps; /* part of the model's rate that goes here */
    usec_t run_us;   /* predicted, of a full batch on this gpu-let */
};

struct plan_gpulet {
    uint32_t device; /* index into problem.device */
    struct plan_granules set;
    uint32_t units;
    uint32_t n_shares;
    struct plan_share *share;
};

/* Which limit an unmet model meets. */
enum plan_limit { LIMIT_NONE, LIMIT_SLO, LIMIT_RATE, LIMIT_MEMORY, LIMIT_UNITS };

/* One for each model, whether it is met or not. */
struct plan_verdict {
    enum plan_limit limit; /* LIMIT_NONE: SLO and rate hold */
    usec_t least_slo_us;   /* the smallest SLO that would hold on this plan; 0: none would */
    double most_rps;       /* what the plan can serve of it */
};

struct plan {
    uint32_t n_gpulets, n_models;
    struct plan_gpulet *gpulet;
    struct plan_verdict *verdict; /* n_models of them */
};

/* Interpolated between the table's points, monotone in batch; clamped at its ends for units. */
usec_t predict_run_us(const struct profile *p, uint32_t batch, uint32_t units);

/* Bytes of arena that plan_make() needs at most for this problem. */
size_t plan_need(const struct problem *p);

/* Divide the devices among the models.  Every model of the problem is in the plan's verdicts; a
 * model that no gpu-let can hold (memory) has LIMIT_MEMORY and is in none.  `was` is the running
 * plan or NULL: gpu-lets that can stay keep their granules.
 * -EINVAL: a rate, SLO, batch or profile is out of range, err names it; -ENOMEM: the arena. */
typedef int plan_make_fn(const struct problem *p, const struct plan *was, struct arena *a,
                         struct plan *ret, struct err *err);

/* Independent verification, used on EVERY plan before it runs: granules exist, are disjoint and
 * within max_granules; shares name models, batches are within max_batch; memory of each device
 * holds, counting `was` (the running plan, or NULL) beside the new one while they overlap; no
 * verdict claims an SLO that the predicted run times break (2 runs of a full batch: one in
 * flight, one of its own).  -EINVAL and the first thing that is wrong. */
int plan_check(const struct problem *p, const struct plan *was, const struct plan *plan,
               struct err *err);

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
