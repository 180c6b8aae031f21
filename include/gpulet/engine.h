/* The running system: devices cut into gpu-lets, models in them, requests through them.
 *
 * Threads of its own: one builder (loads, plans, opens, compiles, swaps, retires, in small steps
 * from a priority queue) and one executor per gpu-let.  The functions here may be called from any
 * thread and never block for long; what takes time is a job that comes back through a completion
 * queue.  The engine never logs: what an operator should know is an event (engine_events()).
 *
 * An epoch is an immutable routing table (model -> gpu-lets).  A request pins the epoch it was
 * routed by; a new plan opens and warms its gpu-lets beside the old ones, swaps one pointer, and
 * the retired ones finish what they queued and close.  If any step fails the old epoch serves on.
 */
#pragma once

#include <gpulet/accuracy.h>
#include <gpulet/backend.h>
#include <gpulet/hist.h>
#include <gpulet/policy.h>
#include <gpulet/request.h>
#include <gpulet/tally.h>

#define MODEL_NAME_MAX 128    /* bytes */
#define MAX_BATCH_LIMIT 1024  /* rows */
#define KEYS_PER_MODEL_MAX 32 /* compiled shape keys kept; least recently used goes first */
#define MAX_DEVICES 16

struct engine;

struct engine_config {
    const struct backend *backend;
    struct backend_config device;
    const struct policy *policy;
    size_t host_bytes; /* request memory, all together */
    struct model_limits model_limits;
    uint32_t queue_max;   /* requests waiting per model, unless its spec says otherwise */
    uint32_t max_batch;   /* likewise */
    usec_t timeout_us;    /* deadline of a request that has none */
    usec_t step_bound_us; /* a backend call longer than this is a stall (engine_health) */
    const char *profiles; /* folder with MODEL.json, as engine_profile_text() gave it: read when a
                             model is loaded, and MODEL.begun is written.  NULL: none;
                             borrowed */
    usec_t retry_us;      /* a comparison with FP32 that was cut off is begun anew after this; then
                             after twice as long, and so on.  0: the default */
};

int engine_new(const struct engine_config *cfg, struct engine **ret, struct err *err);
/* Nothing may be under way: drain first. */
void engine_free(struct engine *e);
struct pool *engine_pool(struct engine *e);

/* ---- models */
struct model_spec {
    char name[MODEL_NAME_MAX + 1];
    uint32_t version;   /* >= 1 */
    char dir[4096];     /* folder with model.onnx; unchanged while it is loaded */
    usec_t slo_us;      /* 0: none */
    double rate_rps;    /* 0: not known */
    uint32_t max_batch; /* 0: the configured default */
    uint32_t queue_max; /* 0: likewise */
    int32_t priority;   /* 0: default */
    bool best_effort;   /* promised nothing: slo_us and rate_rps do not count */
    enum precision precision;
    /* The bits of a row may not depend on how many rows share its run. */
    bool batch_invariant;
    bool as_before; /* a restart loads it, nobody asked anew */
};

struct job {
    struct cq_item item; /* comes back through the queue given with the call */
    struct cq *cq;
    int rc;
    struct err err;
};

/* Load spec->version of a model: open, plan, compile, warm, swap in; then the older version, if
 * there is one, is retired.  On failure what was there before stays.  The same version with other
 * numbers (slo, rate, …) changes those and replans.  Jobs of one model are done in order. */
void engine_load(struct engine *e, const struct model_spec *spec, struct job *job, struct cq *cq);
/* Not ready from now on; job is done when the last request has left and the memory is free.
 * job->rc is -ENOENT for a model that is not loaded. */
void engine_unload(struct engine *e, const char *name, struct job *job, struct cq *cq);

enum served_state { SERVED_LOADING, SERVED_READY, SERVED_UNLOADING, SERVED_UNAVAILABLE };
const char *served_state_name(enum served_state s); /* "READY", … */

struct io_desc {
    const char *name;
    enum dtype dtype;
    uint32_t rank;
    int64_t dims[MAX_RANK]; /* -1: free */
};

/* Counters since load; relaxed atomics, written by executors and http threads. */
struct served_stats {
    _Atomic uint64_t arrived; /* requests, whatever became of them: what demand is measured by */
    _Atomic uint64_t success, fail, rejected, late, rows, runs;
    _Atomic uint64_t in_time;             /* of success: no later than the deadline */
    _Atomic uint64_t refused[N_REFUSALS]; /* of rejected, by why */
    _Atomic uint64_t success_ns, fail_ns, queue_ns, run_ns; /* sums over requests (run: of runs) */
    _Atomic uint64_t last_ms;                               /* wall clock of the last inference */
    /* us of each request: until its run began, from there to the result; to the reply (the
     * server's to count) */
    struct tally queue, compute, reply;
    _Atomic uint64_t batch_count[MAX_BATCH_LIMIT + 1], batch_ns[MAX_BATCH_LIMIT + 1];
};

/* One version of a model in service; immutable but for stats, slo_unmet and route.  Counted. */
struct served {
    struct model_spec spec; /* with defaults filled in */
    struct hash128 hash;
    uint32_t n_in, n_out;
    const struct io_desc *in, *out;
    bool batches;           /* dimension 0 of everything is the batch: requests are joined */
    const char *why_single; /* "" when it batches */
    uint32_t max_batch;     /* 1 when it does not */
    struct served_stats *stats;
    /* The devices cannot hold the SLO at any rate: requests are served as if there were none. */
    _Atomic bool slo_unmet;
    _Atomic uint32_t route; /* the engine's: where it is in the epoch in force */
};

/* version 0: the ready one.  -ENOENT: never heard of it or of that version; -EAGAIN: not ready
 * (loading, unloading), err says which. */
int served_get(struct engine *e, const char *name, uint32_t version, struct served **ret,
               struct err *err);
void served_put(struct served *s);
DEFINE_AUTO(struct served, served_put)

/* ---- requests */
/* Before the body is read: would a request of this model be refused now?  0, or -EAGAIN with
 * *retry_us. */
int engine_admit(struct engine *e, struct served *s, usec_t deadline_us, usec_t *retry_us,
                 struct err *err);
/* 0: the engine owns r and will push &r->item to r->cq exactly once.  Else r is still the
 * caller's: -EAGAIN (full or certainly late; r->retry_us), -EINVAL (shapes do not go together,
 * r->err names the node or input), -ENOTSUP (a shape that cannot be compiled), -ENOENT (the model
 * is gone), -ENOMEM.  r->served may be replaced by a newer version with the same inputs and
 * outputs: whatever is in it afterwards is the caller's to put. */
int engine_submit(struct engine *e, struct request *r);
/* The same, but the gpu-let's executor is woken later: by engine_wake(), which the thread calls
 * before it sleeps or does anything long, or by the call that makes it WAKE_REQUESTS_MAX requests.
 * A server that finds many connections ready so wakes an executor once, for all of them. */
#define WAKE_REQUESTS_MAX 32
struct wakes {           /* of one thread; zeroed at first */
    struct epoch *epoch; /* pinned: keeps the gpu-lets there */
    uint32_t n_requests, n;
    struct gpulet *gpulet[WAKE_REQUESTS_MAX];
};
int engine_submit_later(struct engine *e, struct request *r, struct wakes *w);
void engine_wake(struct engine *e, struct wakes *w);
/* The client is gone.  True: r left its queue and is the caller's again; false: it runs or has
 * completed and will come through the queue as always. */
bool engine_withdraw(struct engine *e, struct request *r);

/* ---- watching */
/* Requests accepted and not yet completed. */
uint64_t engine_pending(struct engine *e);
/* 0, or -ETIMEDOUT and what has been inside a backend call for too long, or -ENODEV with the
 * gpu-let and model when a device is lost and the process must leave. */
int engine_health(struct engine *e, struct err *err);

struct view_share {
    const char *model;
    uint32_t version, batch;
    double rate_rps;
    usec_t run_us;
    uint64_t runs, rows;
};
struct view_gpulet {
    uint32_t id, device, units;
    struct granules set;
    enum plan_order order;
    const char *state; /* "serving", "opening", "retiring", "lost", "gone" (with its device) */
    uint32_t n_queued, n_flying;
    double busy;        /* share of the last second spent in runs, 0..1 */
    uint64_t busy_ns;   /* in all */
    struct tally ratio; /* of runs: what they took over what was predicted, in thousandths */
    uint32_t n_shares;
    struct view_share *share;
};
struct view_model {
    struct model_spec spec;
    enum served_state state;
    const char *reason;    /* of UNAVAILABLE, or the last failed load; "" */
    struct served *served; /* borrowed from the view; NULL unless ready */
    enum plan_limit unmet; /* LIMIT_NONE: the SLO holds or there is none */
    usec_t least_slo_us;
    uint64_t weights_bytes, slot_bytes;
    uint32_t n_segments, n_nodes;
    uint32_t n_late;  /* nodes that run behind all others, as their shapes come to be known */
    uint32_t n_plain; /* steps of a run that are plain loops: of them no speed is claimed */
    uint32_t n_asked; /* nodes computed in spec.precision; 0 for fp32 */
    const struct accuracy *accuracy; /* of fp16 and bf16, else NULL; n_out 0 and why "": it is yet
                                        to be compared */
    uint32_t n_kept, n_probed; /* points of its profile: known when it was opened, run since */
    usec_t load_us;            /* from opening its file to serving; 0: not yet */
    uint32_t n_queued;
    double mean_rps; /* measured: requests that came, lately */
    double burst;    /* variance over mean of their counts: 1 Poisson, 0 paced */
    double planned_rps, low_rps, high_rps; /* the plan in force: for which rate, and up to which
                                              rates it stays; planned 0: not for a known one */
};
struct view_event {
    usec_t at_us; /* monotonic */
    uint64_t wall_ms;
    int level;         /* syslog: 3 error, 4 warning, 6 info */
    const char *what;  /* "load", "plan", "swap", "retire", "fault", … */
    const char *model; /* "" when none */
    uint32_t version;  /* of the model; 0 when none */
    uint32_t gpulet;   /* PLAN_NONE when none */
    const char *msg;
};
struct engine_view {
    struct arena arena;
    uint32_t n_devices, n_gpulets, n_models, n_events;
    struct device_info *device;
    const bool *device_lost;
    struct view_gpulet *gpulet;
    struct view_model *model; /* by name */
    uint64_t epoch;           /* number of the routing table in force */
    const char *policy;
    const char *plan_error; /* why the last plan failed; "" */
    bool pinned;
    size_t host_used_bytes, host_bytes;
};
/* A consistent copy of everything an operator may ask; engine_view_free() drops it. */
int engine_view(struct engine *e, struct engine_view **ret, struct err *err);
void engine_view_free(struct engine_view *v);
DEFINE_AUTO(struct engine_view, engine_view_free)

/* Events after `since` (0: all that are kept), oldest first, into the arena; *ret_last is what to
 * pass next time.  fd becomes readable when there are new ones. */
int engine_events(struct engine *e, uint64_t since, struct arena *a, struct view_event **ret,
                  uint32_t *ret_n, uint64_t *ret_last);
int engine_events_fd(struct engine *e);
/* To be called now and then: what was refused or dropped since becomes events, no more than one a
 * second for a model. */
void engine_tell_refusals(struct engine *e);

/* ---- plans by hand */
/* What the policy would do now (dry run), or with the gpu-let list given (checked only); into the
 * arena, with the problem it was made for. */
int engine_plan_dry(struct engine *e, struct arena *a, struct problem *ret_problem,
                    struct plan *ret, struct err *err);
/* The problem as it is now and the plan that runs, as a problem file; the caller frees it. */
int engine_problem_text(struct engine *e, char **ret, struct err *err);
/* What was measured of a model, as a problem file (problem.h: measured); the caller frees it.  An
 * event `profile` tells that there is more.  -ENOENT: no such model, or nothing measured yet. */
int engine_profile_text(struct engine *e, const char *name, char **ret, struct err *err);
struct pin_share {
    char model[MODEL_NAME_MAX + 1];
    uint32_t batch; /* 0: the model's */
};
struct pin_gpulet {
    uint32_t device;
    struct granules set;
    enum plan_order order;
    uint32_t n_shares;
    const struct pin_share *share;
};
/* Use these gpu-lets until further notice; n 0: back to the policy.  The job fails with -EINVAL
 * and changes nothing if plan_check() refuses. */
void engine_plan_pin(struct engine *e, uint32_t n, const struct pin_gpulet *pin, struct job *job,
                     struct cq *cq);
