/* Queueing: how long a request waits in a gpu-let, predicted.
 *
 * A gpu-let serves its models in batches: when it comes free it takes what waits of one model, up
 * to the cap (policy.h: batch_next).  Latency is waiting plus the run.  Pure (see plan.h). */
#pragma once

#include <gpulet/plan.h>

#define QUEUE_SHARES_MAX 64
#define QUEUE_BATCH_MAX 1024
#define QUEUE_TURNS_MAX 64

struct queue_share {
    double rate_rps;
    enum arrivals arrivals; /* UNKNOWN is taken as POISSON */
    double cv;              /* of the gaps: ARRIVALS_CV and _TRACE */
    usec_t slo_us;          /* 0: none */
    uint32_t cap;           /* rows of a run at most, 1..QUEUE_BATCH_MAX */
    uint32_t streams;       /* runs of it at once; 0: 1 */
    uint32_t turns;         /* this is every so-manyth request of the model: routing deals them out
                               among its gpu-lets, which makes gaps more even; 0: 1, all of them */
    const double *run_us;   /* [0..cap]: start of a run to its answer, by rows; [0] unused */
    const double *hold_us;  /* [0..cap]: how long the gpu-let is taken; NULL: run_us */
};

struct queue_result {
    double late;   /* part of its requests beyond the SLO (dropped ones included) */
    double p99_us; /* latency; infinite when the queue has no end */
    double mean_us;
    double mean_batch;
    double duty; /* part of the time that it holds the gpu-let */
};

/* Bytes of a fixed arena that are enough for n shares. */
#define QUEUE_NEED(n) ((size_t)(n) * (64u << 10) + (192u << 10))

/* All shares of one gpu-let together; ret[n].  scratch from the arena is given back.
 *
 * One share alone, one run at a time: under Poisson arrivals a Markov chain, exact (with one turn)
 * but that nobody is dropped, so that `late` is too high where many are; paced: its cycle.  All
 * else: a short simulation from a fixed seed, whose `late` is its upper end (2.5 standard errors
 * above what was seen).
 * Cost: the chain under 100 us up to cap 32 and load 0.8, 300 us near saturation; paced 20 us; a
 * simulation 0.3 to 1 ms where all is clear, up to 3 ms where late is about 1 %.
 * -EINVAL: more than QUEUE_SHARES_MAX or 64 streams, a cap, rate or run time out of range. */
int queue_predict(const struct queue_share *share, uint32_t n, struct arena *a,
                  struct queue_result *ret, struct err *err);

/* The largest rate at which at most `late` of the requests of s, alone in its gpu-let, are late;
 * s->rate_rps is not looked at.  0: none.  Some twenty predictions. */
int queue_most_rps(const struct queue_share *s, double late, struct arena *a, double *ret,
                   struct err *err);
