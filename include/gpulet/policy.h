/* The decisions at run time, as pure functions over small views.
 *
 * A policy is one file in lib/plan that fills a struct policy; `policy =` in gpuletd.conf chooses
 * it.  The engine copies what a decision needs into a view under its own lock, calls the function
 * and obeys.  Times are absolute CLOCK_MONOTONIC microseconds given by the caller. */
#pragma once

#include <gpulet/plan.h>

/* One gpu-let as a request's model sees it. */
struct let_view {
    usec_t free_us;    /* when the work it has accepted will be done, predicted */
    usec_t lanes_us;   /* when what runs now will be done, predicted; past: it is idle since */
    usec_t own_us;     /* of the work that waits there, what could share a run with this request */
    usec_t mine_us;    /* of the runs of that, up to the one with this request: mine_us() */
    usec_t least_us;   /* the fastest that a run of this request alone was */
    usec_t full_us;    /* of a run of a full batch */
    uint32_t n_queued; /* requests of this model waiting there */
    uint32_t n_routed; /* sent there so far; wraps */
    double part;       /* of the model's requests that the plan wants there; 0: it does not say */
    bool shared;       /* with other models that are asked for, */
    bool meek;         /* one of which is within its allowance (demand.h) */
    usec_t slack_us;   /* the least slack_of() of its models; USEC_NEVER: none has an SLO */
    enum plan_order order;
};

/* let_view.mine_us, of a request that makes `rows` of those that wait; together_us: of a run of all
 * of them, looked at while they fit into one.  What fills a run waits behind a full one, and others
 * join until its own begins: that is a full one, too. */
static inline usec_t mine_us(uint32_t rows, uint32_t max_batch, usec_t together_us, usec_t full_us)
{
    return rows <= max_batch ? together_us : (rows + max_batch - 1) / max_batch * full_us;
}

struct admit_view {
    usec_t now_us;
    usec_t deadline_us;
    uint32_t n_queued, queue_max; /* of the model, over all its gpu-lets */
    bool beyond;                  /* what it has for sure: demand.h; */
    bool loud;                    /* so was one of the model's in the last LOUD_US */
    uint32_t n_lets;
    const struct let_view *let;
};
enum admit_what { ADMIT_YES, ADMIT_FULL, ADMIT_LATE, ADMIT_BEYOND };
struct admit_choice {
    enum admit_what what;
    usec_t retry_us; /* not ADMIT_YES: come back in so long */
};

/* What waits in one gpu-let for one model: at most this many requests are looked at. */
#define BATCH_VIEW_MAX 128
struct queue_view {
    uint32_t n;                    /* requests waiting, joinable with the first, in order */
    uint32_t rows[BATCH_VIEW_MAX]; /* of the first MIN(n, BATCH_VIEW_MAX) */
    usec_t deadline_us[BATCH_VIEW_MAX];
    uint32_t n_alike;     /* from the first on with its priority; lower ones follow; 0: all */
    usec_t since_us;      /* when the first of them arrived */
    uint32_t max_batch;   /* rows in one run */
    const usec_t *run_us; /* [rows], 0..max_batch: predicted */
    usec_t least_us;      /* of a run of the first request alone: the fastest that it was */
    int32_t priority;
    usec_t spare_us;   /* of best effort: no run of it takes longer; else not looked at */
    bool ready;        /* an exe and a free slot are there */
    usec_t inputs_us;  /* of a run's time, what its inputs may travel while another one runs */
    uint32_t n_flying; /* runs of this model in flight in this gpu-let; 0 if ahead_us is not */
    usec_t turn_us; /* when the model's last turn here began: its first run after another model's;
                       0: it has had none */
};
struct batch_view {
    usec_t now_us;
    uint32_t n_flying, max_flying; /* runs in flight in this gpu-let */
    usec_t busy_until_us;          /* when those will be done, predicted; <= now: idle */
    usec_t ahead_us; /* so long before then the next run may be handed over (ahead.c); 0: not */
    uint32_t n_queues, n_spare;     /* those of best effort are behind the others */
    const struct queue_view *queue; /* [n_queues + n_spare] */
    struct tuning tuning;
    enum plan_order order;
};
enum batch_what { BATCH_WAIT, BATCH_RUN, BATCH_DROP };
struct batch_choice {
    enum batch_what what;
    uint32_t queue;  /* BATCH_RUN, BATCH_DROP: of which queue */
    uint32_t take;   /* BATCH_RUN: the first so many requests; BATCH_DROP: likewise, hopeless */
    usec_t until_us; /* BATCH_WAIT: look again then, or when something arrives or finishes */
};

#define POLICY_LANES 8 /* = MAX_LANES of backend.h; the engine asserts it */

struct policy {
    const char *name;
    /* Runs of several models at once in a gpu-let, on its units together, where the device can (not
     * in_turn); at most so many.  0: models of a gpu-let take turns. */
    uint32_t lanes;
    bool leisure; /* plan_make() looks at rules.leisure */
    plan_make_fn *plan_make;
    struct admit_choice (*admit)(const struct admit_view *v);
    /* Index of the gpu-let to use; n_lets >= 1. */
    uint32_t (*route)(const struct admit_view *v);
    struct batch_choice (*batch_next)(const struct batch_view *v);
};

/* The policy's plan for the models that are promised something; then models of best effort get what
 * it leaves.  Without any it is policy->plan_make().  The arena must be a growing one. */
int policy_plan(const struct policy *policy, const struct problem *p, const struct plan *was,
                struct arena *a, struct plan *ret, struct err *err);
/* What to do now: the policy's choice and, where that is to wait, what best effort may do.  While
 * one run is under way and none is behind it: what goes behind it, by what the policy would do at
 * its end. */
struct batch_choice policy_next(const struct policy *policy, const struct batch_view *v);

/* By the name that gpuletd.conf uses; -ENOENT lists the names there are. */
int policy_find(const char *name, const struct policy **ret, struct err *err);
/* The i-th policy, NULL at the end: for those that compare them all. */
const struct policy *policy_at(uint32_t i);

extern const struct policy policy_equal, policy_gpuletd;
