/* Replay: a plan under a load in virtual time, driven by the run-time functions that the daemon
 * uses (policy.h) and a device model that knows neighbours.  Deterministic by seed. */
#pragma once

#include <gpulet/hist.h>
#include <gpulet/policy.h>

enum replay_kind {
    REPLAY_MODEL,
    REPLAY_PACED,
    REPLAY_POISSON,
    REPLAY_GAMMA,
    REPLAY_ONOFF,
    REPLAY_DIURNAL,
    REPLAY_TRACE
};

/* How one model's requests come.  REPLAY_MODEL: as the problem says (arrivals, cv, rate). */
struct replay_load {
    enum replay_kind kind;
    double rate_rps;        /* mean; < 0: the problem's */
    double cv;              /* REPLAY_GAMMA: of the gaps */
    double on_s, off_s;     /* REPLAY_ONOFF: mean lengths; Poisson while on, mean rate kept */
    double period_s, swing; /* REPLAY_DIURNAL: rate (1 + swing sin(2 pi t / period)) */
    uint32_t n_trace;       /* REPLAY_TRACE: offsets from the start, ascending */
    const usec_t *trace_us;
    double speed; /* REPLAY_TRACE: offsets are divided by it; 0: 1 */
};

enum replay_event_kind { REPLAY_RATE, REPLAY_FAIL, REPLAY_HEAL };
struct replay_event {
    usec_t at_us;
    enum replay_event_kind kind;
    uint32_t model;  /* REPLAY_RATE; PLAN_NONE: all */
    double factor;   /* REPLAY_RATE: of the rates at the start */
    uint32_t device; /* REPLAY_FAIL, REPLAY_HEAL: runs there are lost and it takes none */
};

struct replay_config {
    const struct problem *problem;
    const struct plan *plan;
    const struct policy *policy;
    const struct replay_load *load;   /* [n_models]; NULL: REPLAY_MODEL for all */
    const struct replay_event *event; /* ascending */
    uint32_t n_events;
    uint64_t seed;
    usec_t duration_us; /* arrivals stop then; what was accepted is served */
    usec_t warmup_us;   /* not counted */
    double scale;       /* of all rates; 0: 1 */
    uint32_t queue_max; /* of a model; 0: 4096 */
    double noise;       /* coefficient of variation of run times (log-normal); 0: none */
    bool alone;         /* no interference */
    bool buckets;       /* runs of so many rows as the daemon compiles (bucket.h) */
    /* Called now and then with the part done; NULL: never. */
    void (*progress)(void *arg, double part);
    void *progress_arg;
};

struct replay_model {
    uint64_t offered, in_time, late, dropped, rejected, lost; /* offered is the sum of the rest */
    struct hist latency; /* of answers, from the arrival; drops are not in it */
};

struct replay_result {
    uint32_t n_models, n_gpulets;
    struct replay_model *model;
    double *gpulet_busy; /* part of the time */
    uint64_t events;
    double device_s; /* devices used x seconds */
};

/* The result lies in the arena.  -EINVAL names what is wrong with plan or load. */
int replay_run(const struct replay_config *cfg, struct arena *a, struct replay_result *ret,
               struct err *err);

/* When the requests of one model come in a replay of this configuration: ascending, before
 * duration_us, in the arena.  Plan and policy are not looked at.  -EFBIG: more than `most`. */
int replay_arrivals(const struct replay_config *cfg, uint32_t model, size_t most, struct arena *a,
                    usec_t **ret, size_t *ret_n, struct err *err);

/* A trace: CSV with a header line; the column of times is found by name (`time_s`, `offset_ms`,
 * `invoke_time_ms`, `TIMESTAMP`), rows may name a model in `model` or `func_name`.  A byte-order
 * mark and both line ends are accepted.  -EINVAL names line, column and value. */
struct trace {
    uint32_t n, n_names;
    usec_t *at_us;     /* ascending, from the first */
    uint32_t *name_of; /* index into name; NULL: no such column */
    const char **name;
};
int trace_parse(const char *text, size_t bytes, struct arena *a, struct trace *ret,
                struct err *err);
