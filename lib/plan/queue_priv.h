/* What the files of the queueing model share (queue.c tells the whole of it). */
#pragma once

#include <gpulet/queue.h>

/* ---- queue_tail.c: how long requests take, as a sum of uniform pieces */
#define TAIL_SUB_BITS 5
#define TAIL_BINS (42 << TAIL_SUB_BITS) /* 32 for each power of two, as hist.h has */

struct tail {
    double slo_us; /* infinite: none */
    double mass, late, sum_us, lost;
    /* CDF at the edge x of a bin: sum of slope up to there times x less sum of offset, plus point
     */
    double slope[TAIL_BINS], offset[TAIL_BINS], point[TAIL_BINS];
};
/* `mass` requests take from lo to hi, evenly. */
void tail_add(struct tail *t, double mass, double lo_us, double hi_us);
double tail_quantile(const struct tail *t, double q);
uint32_t tail_bin(double us);
double tail_edge_us(uint32_t bin); /* the upper one */

/* ---- queue_count.c: how many requests come in a time */
struct counts {
    uint32_t lo, hi; /* those of 0..K that matter */
    double *p;       /* p[k - lo]; the one of K stands for K and more */
};
/* A grain: so many requests are one step of a count.  Every turns-th of a Poisson stream comes
 * here.  scratch has room for most + 1. */
int counts_make(double mean, uint32_t turns, uint32_t grain, uint32_t most, double *scratch,
                struct arena *a, struct counts *ret);

/* A share with what is derived from it. */
struct part {
    const struct queue_share *s;
    const double *hold_us;
    double rate;  /* in a microsecond */
    double usual; /* rows of a run in a usual turn of all */
};

/* ---- queue_chain.c: one share alone, one run at a time */
struct chain {
    double rate; /* in a microsecond */
    uint32_t turns, grain;
    uint32_t cap, most;             /* in grains: of a run; that may wait */
    const double *hold_us, *run_us; /* [0..cap], in grains; [0] unused */
    struct counts *count;           /* [cap + 1]: requests that come in a run of so many */
    double *state, *next;           /* [0..most] */
};
int chain_solve(struct chain *c, struct arena *a);
void chain_measure(const struct chain *c, struct tail *t, struct queue_result *ret);

/* ---- queue_paced.c: one paced share alone: there is nothing random in it. */
void paced_measure(const struct part *p, struct tail *t, struct queue_result *ret);

/* ---- queue_walk.c: anything else */
#define QUEUE_STREAMS_MAX 64
int walk_predict(const struct part *p, uint32_t n, struct arena *a, struct queue_result *ret);
