/* gpu-lets (ATC'22), between its files:
 *
 *   gpulet_size.c   one model by itself: batches, knee, pieces
 *   gpulet_put.c    the gpu-lets of the devices: placing, undoing, neighbours
 *   gpulet.c        elastic partitioning, with and without interference
 *   gpulet_share.c  merging residues, sharing in time
 *   gpulet_full.c   every combination of splits
 *   bestfit.c       greedy
 *
 * A device is one gpu-let or two; sizes are those of the type, or where it may be cut freely the
 * published 20, 40, 50, 60, 80 and 100 %.  Times are in us. */
#pragma once

#include "published.h"

#define GLET_SIZES 64
#define GLET_BATCH 32
#define GLET_SHARES 3
#define GLET_BUFFER 1.1     /* on every predicted latency */
#define GLET_KNEE 1.05      /* gain in throughput that is worth a larger size */
#define GLET_TOLERANCE 1.05 /* on a residue's SLO beside a neighbour */
#define GLET_ACCEPT 0.85    /* of a rate, with interference */
#define GLET_EPS 1e-6       /* of a request/s: rounding, not slack */

struct glet_share {
    uint32_t model, batch;
    double rps; /* that it serves */
};

struct glet {
    uint32_t granules; /* 0: there is none (its neighbour has the whole device) */
    uint32_t n;        /* models; 0: free */
    bool saturated;
    double duty_us;
    struct glet_share share[GLET_SHARES];
};

/* A part of a model's rate that wants a gpu-let of its own. */
struct piece {
    uint32_t granules, batch;
    bool saturated;
    double rps, duty_us;
};

struct gplan {
    const struct problem *p;
    bool interference, fixed;               /* fixed: splits stay as they are */
    uint32_t *n_sizes, (*size)[GLET_SIZES]; /* by type */
    struct glet *let;                       /* gpu-lets 2d and 2d + 1 of device d */
    struct glet *saved, *merging;           /* copies of let[], to go back to */
    bool *skip;                             /* by gpu-let: tried */
    uint32_t *order;                        /* models, in the order of placement */
    double *rate_rps;                       /* by model, raised */
    double *had_rps;                        /* by model: what was placed of it */
};

static inline uint32_t glet_type(const struct gplan *g, uint32_t k)
{
    return g->p->device[k / 2].type;
}

/* ---- gpulet_size.c */

/* 1.1 (L f + asm), f by the gpu-let beside it (NULL: alone); infinite: it does not run there. */
double glet_est(const struct gplan *g, uint32_t type, uint32_t granules, uint32_t model,
                uint32_t batch, const struct glet *beside);
/* Largest batch with 2 est <= SLO; 0: none.  rps: what it serves. */
uint32_t glet_saturated(const struct gplan *g, uint32_t type, uint32_t granules, uint32_t model,
                        const struct glet *beside, double *rps);
/* Index of the size after which more buys little; PLAN_NONE: the SLO holds at no size. */
uint32_t glet_knee(const struct gplan *g, uint32_t type, uint32_t model);
/* The residue of rps at this size; its granules are the fewest that still do.  False: the rate is
 * too much for one residue or the SLO does not hold. */
bool glet_residue(const struct gplan *g, uint32_t type, uint32_t size, uint32_t model, double rps,
                  struct piece *ret);
/* The first piece of rps at size index `size`: saturated while the rate is above that. */
bool glet_piece(const struct gplan *g, uint32_t type, uint32_t size, uint32_t model, double rps,
                struct piece *ret);
/* The 99th percentile of a Poisson count of mean rps, or 1.1 times it above 550. */
double glet_raised(double rps);

/* ---- gpulet_put.c */

int glet_begin(struct gplan *g, const struct problem *p, struct arena *a, struct err *err);
/* Cut what is needed and put the piece into free gpu-let k.  False: size, memory or a neighbour
 * forbids it, and nothing has changed. */
bool glet_put(struct gplan *g, uint32_t k, uint32_t model, const struct piece *piece);
/* The same where it fits best; PLAN_NONE: nowhere. */
uint32_t glet_fit(struct gplan *g, uint32_t model, const struct piece *piece);
/* Take all models out; a device left empty becomes whole again. */
void glet_clear(struct gplan *g, uint32_t k);
bool glet_memory_holds(const struct gplan *g, uint32_t device);
/* Do k and the gpu-let beside it still hold their SLOs?  Saturated ones may run smaller batches
 * and serve less from now on.  Always true without interference. */
bool glet_neighbours_hold(struct gplan *g, uint32_t k);
double glet_planned(const struct gplan *g, uint32_t model);
/* The plan; a model counts as served from this part of its rate on. */
int glet_end(struct gplan *g, struct arena *a, double accept, struct plan *ret, struct err *err);

/* ---- gpulet_share.c */

/* All residues of this model and what is left over become one, if one can serve them.  Returns what
 * is still left over. */
double glet_merge(struct gplan *g, uint32_t model, double left_rps);
/* Put what is left over beside other models in a gpu-let; returns what is still left over. */
double glet_share_time(struct gplan *g, uint32_t model, double left_rps);
double glet_occupancy(const struct gplan *g, uint32_t k);

/* ---- gpulet.c */

/* Gpu-lets for so much of a model's rate; returns what is left over. */
double glet_place(struct gplan *g, uint32_t model, double rps);
/* All models in their order, and once more those that lost too much to neighbours. */
void glet_place_all(struct gplan *g);
