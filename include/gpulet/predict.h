/* What a run costs: solo profiles, and what neighbours on the same device do to it.
 *
 * Pure (see plan.h).  Times are microseconds, utilisations fractions of the device's peak.
 * Sources: gpu-lets (ATC'22) section 4.2 for `INTERFERE_GPULET`; iGniter (TPDS'22) section 3 for
 * `INTERFERE_IGNITER` and the curve; ParvaGPU (SC'24) for several streams of one model. */
#pragma once

#include <gpulet/arena.h>

#define PREDICT_NEIGHBOURS_MAX 64 /* on one device, besides oneself */
#define PRESSURE_TERMS 16

/* iGniter's solo model of one model on one type of device, section 3: active time in ms
 * (k1 b^2 + k2 b + k3) / (r + k4) + k5 with r the share in per cent. */
struct igniter_curve {
    double k[5];
    double kernels;                   /* of a run */
    double sched_ms;                  /* gaps between them, alone */
    double in_bytes, out_bytes;       /* of a request */
    double watts_per_rps, watts_base; /* power above idle against requests/s of the busy model */
    double l2_per_rps, l2_base;       /* per cent */
    double cache_per_pct;             /* slowdown for each per cent of L2 that others use */
};

/* A table over streams, units and batch, all ascending.  Index of a cell:
 * (stream * n_units + unit) * n_batch + batch. */
struct profile {
    uint32_t n_batch, n_units, n_streams; /* n_streams 0: one stream, and no such dimension */
    const uint32_t *batch, *units, *streams;
    const usec_t *run_us;   /* median of a run, alone on the device; 0: does not fit or run there */
    const usec_t *upper_us; /* its 99th percentile; NULL: not known, taken as the median */
    const double *host_us;  /* [n_batch]: assembling a batch, not slowed by neighbours; or NULL */
    const double *l2, *dram, *watts; /* by cell, of a solo run: fractions, fractions, W above idle;
                                        negative: not measured; NULL: none is */
    double kernels;                  /* launched by a run; 0: not known */
    double in_bytes, out_bytes; /* copied over the link for each request; 0: none or included */
    const struct igniter_curve *curve; /* not NULL: in place of run_us, which may be NULL */
    bool measured;                     /* false: estimated from FLOPs and bytes */
};

enum interfere_kind { INTERFERE_NONE, INTERFERE_IGNITER, INTERFERE_GPULET, INTERFERE_PRESSURE };

/* INTERFERE_PRESSURE: what interference.term holds.  Those that are not there are 0. */
enum pressure_term {
    TERM_MEMORY,  /* compute waits for L2 and DRAM that others use */
    TERM_LAUNCH,  /* kernels wait for others' kernels */
    TERM_COPY,    /* copying in, which ends in DRAM, waits for DRAM that others use */
    TERM_UNKNOWN, /* part of L2 and DRAM that a load on all units is taken to use where its profile
                     does not say */
    TERM_SEEN, /* most kernels a ms of a measured run: shorter ones wait no longer; 0: no limit */
    N_TERMS,
    N_FITTED = TERM_UNKNOWN /* that slow down; the rest is what the pairs were like */
};

/* The hardware's part of an interference model: of a type of device, no model in it. */
struct interference {
    enum interfere_kind kind;
    /* INTERFERE_IGNITER */
    double max_mhz, max_watts, idle_watts, mhz_per_watt; /* the last is negative */
    double sched_ms, sched_base_ms;                      /* per kernel: times processes, plus */
    /* INTERFERE_GPULET: c1..c5 of gpu-lets section 4.2 */
    double c[5];
    /* INTERFERE_PRESSURE: fitted, by enum pressure_term */
    uint32_t n_terms;
    double term[PRESSURE_TERMS];
};

/* What predictions need to know of a type of device. */
struct predict_device {
    uint32_t units;  /* of the whole device */
    double link_bps; /* bytes/s host to device; 0: copies cost nothing */
    double dram_bps; /* 0: not known */
    struct interference interference;
};

/* Somebody on the device: one gpu-let running batches of one model. */
struct load {
    const struct profile *profile;
    uint32_t batch, units, streams; /* streams 0 means 1 */
    double duty;                    /* part of the time that it runs, 0..1; 1 for a run in flight */
};

struct estimate {
    double run_us;   /* start of the run to its answer: copies in, compute, copies out, host */
    double hold_us;  /* how long the gpu-let is taken: less than run_us where the next batch's copy
                        overlaps */
    double upper_us; /* 99th percentile of run_us */
    double slowdown; /* of the compute part beside the neighbours; >= 1 */
};

/* False when the profile says that it does not run there (ret is then zeroed).
 * Between points of the table: monotone in batch (never falls; linear) and in units (never rises;
 * linear in 1/units); above the last batch the last two points are continued; below the first
 * units the first are scaled.  Streams: the nearest number of the table that is not above, and
 * beyond that the device does no more at once than it did there.
 * The order of the others does not matter, to the last bit (INTERFERE_GPULET: up to PRESSURE_LINES
 * of them; with more, the answer may be above the worst neighbour's, never below). */
bool predict(const struct predict_device *d, const struct load *me, const struct load *other,
             uint32_t n_other, struct estimate *ret);

/* ---- the same in steps, for those that ask a million times: a load's part is looked up once,
 * what its neighbours do to it is a sum that they join and leave in O(1).
 *
 *     struct solo me;              load_solo(d, &load, &me)
 *     struct pressure p = {0};     pressure_add(d, &p, &neighbour, duty) ...
 *     pressure_of(d, &me, &p, &estimate)        p is of the others, without me
 */

/* What one load pushes on, at duty 1 (fixed point, so that sums are exact in any order). */
enum pressure_kind {
    PRESSURE_RUNS,    /* runs at once */
    PRESSURE_L2,      /* part of its peak */
    PRESSURE_DRAM,    /* part of its peak */
    PRESSURE_KERNELS, /* launches a ms */
    PRESSURE_WATTS,   /* above idle */
    PRESSURE_KINDS
};
#define PRESSURE_ONE 4294967296.0 /* fixed point: 2^32 is 1 */

struct solo {
    double in_us, out_us, host_us; /* not slowed by neighbours' computing */
    double sched_us, active_us;    /* compute, alone */
    double clock;                  /* full clock over the clock that those were measured at */
    double alone_us;               /* both, at the clock that its own power leaves */
    double tail_us;                /* 99th percentile less median */
    double kernels, cache;         /* of a run; iGniter's alpha_cache per per cent, 0: unknown */
    double disturb, disturbed;     /* INTERFERE_GPULET: what it adds to others' and to its own */
    int64_t push[PRESSURE_KINDS];
};

#define PRESSURE_LINES 16
struct pressure {
    int64_t sum[PRESSURE_KINDS];
    /* INTERFERE_GPULET knows the worst neighbour only, which is no sum. */
    uint32_t n_lines;
    bool folded; /* more than PRESSURE_LINES of them: the last is above all that it stands for */
    struct {
        double disturb, duty;
    } line[PRESSURE_LINES];
};

/* False: it does not run there. */
bool load_solo(const struct predict_device *d, const struct load *l, struct solo *ret);
/* The same as one of k that share l->units: on the k-th part of them or, where it does not run on
 * so few, on all for the k-th part of the time. */
bool load_lane(const struct predict_device *d, const struct load *l, uint32_t k, struct solo *ret);
void pressure_add(const struct predict_device *d, struct pressure *p, const struct solo *s,
                  double duty);
/* Take out what was put in with the same duty.  False (INTERFERE_GPULET with more than
 * PRESSURE_LINES neighbours): p is of no use any more, add those who are left to a new one. */
bool pressure_sub(const struct predict_device *d, struct pressure *p, const struct solo *s,
                  double duty);
void pressure_of(const struct predict_device *d, const struct solo *me, const struct pressure *p,
                 struct estimate *ret);

/* The median run, alone, one stream; at least 1.  Table profiles only (what the engine measures);
 * a year where the table says that it does not run. */
usec_t predict_run_us(const struct profile *p, uint32_t batch, uint32_t units);

/* ---- from a few measured points to a table */
struct measured_point {
    uint32_t batch, units;
    usec_t run_us;
};
/* base: estimates, a table without streams; n points, in any order, each batch and size once.
 * ret_us[base->n_units * base->n_batch], not base->run_us; as it was where n is 0. */
void surface_fill(const struct profile *base, const struct measured_point *p, uint32_t n,
                  usec_t *ret_us);

/* ---- what serving shows of one cell of a profile; zeroed at first */
#define RESIDUAL_LEAST 64 /* runs, before it says anything */
struct residual {
    uint32_t n;
    double factor; /* seen / predicted, the median */
};
void residual_add(struct residual *r, usec_t predicted_us, usec_t seen_us);
/* Within a quarter and four; 1 while too few runs were seen. */
double residual_factor(const struct residual *r);

/* ---- fitting (gpuletctl fit) */

/* One measured pair: `me` ran beside `other`. */
struct fit_pair {
    struct load me, other;
    double run_us; /* measured */
    uint32_t fold; /* which pair of models it belongs to; for leaving one out */
};
struct fit_report {
    double mean_error, p95_error; /* of |predicted - measured| / measured */
    double under_10;              /* part of the pairs under-predicted by more than 10 % */
};
/* Fit d->interference (its `kind` is set by the caller; the known hardware terms are kept) to the
 * pairs; with `leave` != UINT32_MAX pairs of that fold are not looked at.  The arena holds scratch
 * space.  INTERFERE_IGNITER has nothing to fit: its terms are the hardware's and the models' own.
 * -EINVAL: too few pairs for the terms, or a pair that cannot be (err names it). */
int fit_interference(struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                     uint32_t leave, struct arena *a, struct err *err);
/* How well d predicts the pairs of one fold, or of all (UINT32_MAX). */
void fit_evaluate(const struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                  uint32_t fold, struct arena *a, struct fit_report *ret);
/* How well d's kind of model predicts pairs of models that it has not seen: each fold in turn is
 * left out of the fit and predicted. */
int fit_cross(const struct predict_device *d, const struct fit_pair *pair, uint32_t n,
              struct arena *a, struct fit_report *ret, struct err *err);

/* ---- the same from a stressor: a load that streams memory and, by definition, uses all of it (L2
 * and DRAM 1).  A model's runs beside it say what memory pressure costs on the device; its own runs
 * beside the model say how much of the memory the model uses. */
#define BESIDE_LEAST 0.02 /* a run that is slower by less was not slowed */
struct beside_run {
    uint32_t batch, units;         /* of the model; the stressor has as many units */
    usec_t alone_us, beside_us;    /* a run of the model */
    usec_t stress_us, stressed_us; /* a run of the stressor, alone and beside the model */
};
/* The device's terms by what was measured of some models: INTERFERE_PRESSURE, or INTERFERE_NONE
 * where nobody was slowed.  units: of the whole device. */
void beside_terms(const struct beside_run *b, uint32_t n, uint32_t units, struct interference *ret);
/* The part of L2 and DRAM that the measured run used, 0..1, by those terms. */
double beside_memory(const struct interference *f, const struct beside_run *b);
/* Gives p (a table of one stream) the l2 and dram of all its cells, from runs of its model: a line
 * in the batch, and on other units the same bytes in the time that a run takes there.  -ENOMEM. */
int beside_cells(struct arena *a, const struct interference *f, const struct beside_run *b,
                 uint32_t n, struct profile *p);
