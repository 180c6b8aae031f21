/* Demand: how much of a model is asked for, measured, and whether the running plan still suits it.
 *
 * Arrivals are counted by whoever takes them; now and then the count is sampled.  Pure (see
 * plan.h): the time of a sample is an argument, so that the daemon, a replay and a test decide
 * alike.  One `struct demand` belongs to one model; zeroed at first.
 *
 * A plan holds for a band of rates around the one that it was made for (demand_bands()).  Within
 * it nothing happens.  A rate that is surely above it, by the arrivals of half a second to sixteen,
 * asks for a new plan at once; one that has not been reached again for the model's hold time asks
 * for less, and sooner where the plan does not hold for everybody: with less there may be one that
 * does.  Whoever falls and soon rises again holds twice as long the next time, so that bursts
 * that come again are planned for and do not make plans go back and forth. */
#pragma once

#include <gpulet/plan.h>

#define DEMAND_CELL_US (USEC_PER_SEC / 8)
#define DEMAND_CELLS 128 /* sixteen seconds */

struct demand {
    usec_t from_us;           /* when the newest cell began; 0: no sample yet */
    usec_t at_us;             /* the last sample, */
    uint64_t total;           /* and the count then */
    uint32_t newest, n_cells; /* n_cells are complete, the newest is not one of them */
    float cell[DEMAND_CELLS]; /* arrivals, a ring */
    double mean_rps;          /* exponentially weighted, over some eight seconds */
    usec_t reached_us;        /* when the lower end of the band was last reached */
    usec_t rose_us;           /* 0: never rose */
    usec_t fell_us, hold_us;  /* 0: never fell; as at first */
};

/* What a model has for sure of gpu-lets that others share, whatever comes. */
struct allowance {
    double rate_rps; /* 0: nothing is planned for it, and there is no limit */
    uint32_t batch;  /* of its largest share */
};

/* Of a model: from which rate to which the plan in force suits it. */
struct demand_band {
    double planned_rps;       /* 0: planned without knowing */
    double low_rps, high_rps; /* low 0: it is not planned for less */
    double short_rps; /* asked for when there was room for planned_rps only; 0: was for all */
    bool unheld;      /* the plan does not hold for everybody: demand_hasten() */
    struct allowance sure;
};

enum demand_move { DEMAND_STAYS, DEMAND_RISES, DEMAND_FALLS };

/* `total` arrivals so far, at now_us (not before the last sample).  Those since the last sample
 * are taken to have come evenly. */
void demand_sample(struct demand *d, usec_t now_us, uint64_t total);
/* The count begins anew (another version of the model); what was seen stays. */
void demand_recount(struct demand *d, uint64_t total);

/* The rate to plan for, from what was seen up to the last sample: the mean, or what a shorter
 * window shows; 0: too little was seen to say. */
double demand_rate(const struct demand *d);
/* Variance over mean of the counts of cells: 1 Poisson, 0 paced; about the square of the
 * coefficient of variation of the gaps.  1 where too little was seen. */
double demand_burst(const struct demand *d);
/* Nothing came for as long as can be remembered. */
bool demand_silent(const struct demand *d);

/* Has the rate left the band?  *ret_rps: then what to plan for (0: not known any more). */
enum demand_move demand_judge(struct demand *d, const struct demand_band *b, double *ret_rps);
/* b->short_rps is not asked for any more, what is planned is enough: the caller sets it to 0. */
bool demand_gone(const struct demand *d, const struct demand_band *b);

/* What a model is used to: what it is asked for, at most what is planned.  That of all models is
 * taken when it has been so for all of them for sixteen seconds: a plan made between two models'
 * rises is no habit of the first one.  since_us: when a model was short last, 0: never. */
bool demand_settled(const struct demand *d, usec_t since_us);
double demand_usual(const struct demand *d, const struct demand_band *b);

/* Of what is asked for, where not all of it can be had: x up to PART_DECLARED is a part of what was
 * declared; up to PART_USUAL, all of that and a part of what the model is used to; up to
 * PART_ASKED, all of that and a part of the rest.  The same x for all models: nobody has any of a
 * step before all have the one before. */
enum { PART_DECLARED = 1, PART_USUAL = 2, PART_ASKED = 3 };
double demand_part(double declared_rps, double usual_rps, double asked_rps, double x);

/* The bands of all models under a plan made for p: while every rate is within its own, no gpu-let
 * is busy for more than DEMAND_DUTY.  ret[n_models]; declared[m] is a rate that model m is always
 * planned for. */
#define DEMAND_DUTY 0.9
void demand_bands(const struct problem *p, const struct plan *plan, const double *declared,
                  struct demand_band *ret);

/* Of a plan that does not hold for everybody: its bands are narrower, and a fall counts sooner. */
void demand_hasten(uint32_t n, struct demand_band *bands);

/* A token bucket, as the time in ns until which it is used up; odd once it is empty, until half a
 * batch is in it again.  One request at now_us: the new time, or ALLOWANCE_FRESH: it is beyond, and
 * the old time stays.  a->rate_rps > 0; burst: as demand_burst() has it. */
#define ALLOWANCE_FRESH INT64_MIN
int64_t allowance_take(int64_t used_ns, const struct allowance *a, double burst, usec_t now_us);
/* A model is loud for LOUD_US after a request beyond its allowance, and not meek for QUIET_US:
 * where few requests come, hardly more than planned, one is beyond only every few seconds.  For
 * MEEK_US after a request of one that is meek, a gpu-let that both share has somebody meek in it.
 */
#define LOUD_US USEC_PER_SEC
#define QUIET_US (8 * USEC_PER_SEC)
#define MEEK_US (2 * USEC_PER_SEC)
/* How long a request may wait for its run, alone in it, to be in time. */
static inline usec_t slack_of(usec_t slo_us, usec_t run_us)
{
    return slo_us > run_us ? slo_us - run_us : 0;
}
