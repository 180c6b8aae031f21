/* Measured demand.
 *
 * A ring of counts, an eighth of a second each, sixteen seconds in all.  A window of the last n
 * cells and of the unfinished one shows a rate of arrivals / length; what it shows *surely* is
 *
 *     (arrivals - z sqrt(D arrivals)) / length
 *
 * where D is the dispersion of the counts within the window: 1 for Poisson arrivals, more for
 * bursts.  So a step of a steady rate is sure after half a second, while a single burst, all of it
 * in one cell, is not: the window must be long enough to show that it is no accident.
 *
 * One cell or two do not show their own dispersion.  They take that of the seconds before, where
 * enough came to tell: what always came evenly and now comes three times as often has risen, and
 * what it has risen to is in them alone. */
#include "plan_priv.h"

#include <gpulet/demand.h>
#include <math.h>

#define SURE 2.5   /* standard errors for a rise */
#define LIKELY 1.0 /* for the rate that is planned for, and for a rise soon after a rise */
#define RISING_US (3 * USEC_PER_SEC / 2)
#define LEAST_ARRIVALS 8 /* in a window, to say anything */
#define MEAN_ARRIVALS 32 /* for the mean to be above the band */
#define MEAN_US (8 * USEC_PER_SEC)
#define MARGIN 1.1                               /* planned above what was seen */
#define USUAL_US (DEMAND_CELLS * DEMAND_CELL_US) /* as long as is remembered */
#define HOLD_US (16 * USEC_PER_SEC)
#define HOLD_MOST_US (600 * USEC_PER_SEC)
#define SOON 4       /* hold times from a fall to the next rise */
#define LOW_PART 0.5 /* of the planned rate: below that it is planned for less */
/* Where the plan does not hold for everybody: the same, and a part of the hold time. */
#define UNHELD_PART 0.85
#define UNHELD_HOLD 8
/* Allowed, times the planned rate, where there is no room for more.  Less would refuse what comes
 * at the planned rate now and then by chance; more is more than the gpu-let can serve. */
#define ALLOWED 1.05
#define HIGH_LEAST 1.1 /* times the planned rate: the band's upper end is never below */

static const uint32_t windows[] = {4, 8, 16, 32, 64, DEMAND_CELLS - 1}; /* cells */
static const uint32_t shorts[] = {1, 2};
#define BEFORE_CELLS 32 /* for the dispersion of short windows */

/* ---- samples */

static void cell_next(struct demand *d)
{
    double rps = d->cell[d->newest] * 1e6 / DEMAND_CELL_US;

    d->mean_rps += (rps - d->mean_rps) * ((double)DEMAND_CELL_US / MEAN_US);
    d->newest = (d->newest + 1) % DEMAND_CELLS;
    d->cell[d->newest] = 0;
    d->n_cells = MIN(d->n_cells + 1, DEMAND_CELLS - 1);
    d->from_us += DEMAND_CELL_US;
}

void demand_sample(struct demand *d, usec_t now_us, uint64_t total)
{
    double n = (double)(total - d->total);

    if (d->from_us == 0) { /* since when is not known: those before are not counted */
        d->from_us = d->at_us = d->reached_us = now_us;
        d->hold_us = HOLD_US;
        n = 0;
    }
    usec_t all_us = now_us - d->at_us, oldest_us = DEMAND_CELLS * DEMAND_CELL_US;
    if (all_us > 2 * oldest_us) { /* long ago: nothing of it is remembered */
        d->from_us += (all_us / oldest_us - 1) * oldest_us;
        n *= (double)(now_us - d->from_us) / (double)all_us;
        all_us = now_us - d->from_us;
        d->at_us = d->from_us;
    }
    while (d->at_us < now_us) {
        usec_t to_us = MIN(d->from_us + DEMAND_CELL_US, now_us);
        d->cell[d->newest] += (float)(n * (double)(to_us - d->at_us) / (double)all_us);
        d->at_us = to_us;
        if (to_us == d->from_us + DEMAND_CELL_US)
            cell_next(d);
    }
    d->total = total;
}

void demand_recount(struct demand *d, uint64_t total)
{
    d->total = total;
}

/* ---- what was seen */

struct window {
    double n, s;  /* arrivals, seconds */
    double burst; /* variance over mean of its complete cells */
};

/* i = 1: the last complete one, 2: the one before … */
static float cell_at(const struct demand *d, uint32_t i)
{
    return d->cell[(d->newest + DEMAND_CELLS - i) % DEMAND_CELLS];
}

/* n complete cells, all but the last `skip`. */
static struct window cells(const struct demand *d, uint32_t skip, uint32_t n)
{
    struct window w = {0};
    double squares = 0;

    n = MIN(n, d->n_cells - MIN(skip, d->n_cells));
    for (uint32_t i = skip + 1; i <= skip + n; i++) {
        double x = cell_at(d, i);
        w.n += x;
        squares += x * x;
    }
    w.s = n * (DEMAND_CELL_US / 1e6);
    w.burst = n > 1 && w.n > 0 ? (squares - w.n * w.n / n) / (n - 1) / (w.n / n) : 1;
    return w;
}

/* The last n complete cells, and the unfinished one. */
static struct window look(const struct demand *d, uint32_t n)
{
    struct window w = cells(d, 0, n);

    w.n += d->cell[d->newest];
    w.s += (double)(d->at_us - d->from_us) / 1e6;
    return w;
}

/* The same of a short window; with nothing in it where too little came before. */
static struct window look_short(const struct demand *d, uint32_t n)
{
    struct window before = cells(d, n, BEFORE_CELLS), w = look(d, n);

    if (before.s < BEFORE_CELLS / 2 * (DEMAND_CELL_US / 1e6) || before.n < MEAN_ARRIVALS)
        return (struct window){.s = 1};
    w.burst = before.burst;
    return w;
}

static double at_least(const struct window *w, double z)
{
    return w->n < LEAST_ARRIVALS ? 0 : (w->n - z * sqrt(fmax(w->burst, 1) * w->n)) / w->s;
}

/* The highest of all windows. */
static double shown(const struct demand *d, double z)
{
    double most = 0;

    for (size_t i = 0; i < ARRAY_SIZE(windows) && d->n_cells >= windows[0]; i++) {
        struct window w = look(d, windows[i]);
        most = fmax(most, at_least(&w, z));
    }
    return most;
}

double demand_rate(const struct demand *d)
{
    struct window all = look(d, DEMAND_CELLS - 1);
    double mean = all.n < LEAST_ARRIVALS || d->n_cells < windows[0] ? 0 : all.n / all.s;

    return fmax(mean, shown(d, LIKELY));
}

/* By how much each cell differs from the one before: a rate that has changed is no burst. */
double demand_burst(const struct demand *d)
{
    struct window all = cells(d, 0, d->n_cells);
    double squares = 0;

    if (all.n < MEAN_ARRIVALS || d->n_cells < windows[0])
        return 1;
    for (uint32_t i = 1; i < d->n_cells; i++) {
        double step = (double)cell_at(d, i) - (double)cell_at(d, i + 1);
        squares += step * step / 2;
    }
    return squares / (d->n_cells - 1) / (all.n / d->n_cells);
}

bool demand_silent(const struct demand *d)
{
    for (uint32_t i = 0; i < DEMAND_CELLS; i++)
        if (d->cell[i] > 0)
            return false;
    return true;
}

/* ---- the band */

/* What there was no room for is not asked for again until it is more. */
static double high(const struct demand_band *b)
{
    return fmax(b->high_rps, HIGH_LEAST * b->short_rps);
}

bool demand_gone(const struct demand *d, const struct demand_band *b)
{
    bool settled = d->at_us - d->rose_us >= RISING_US; /* a rise is seen before all of it is */

    return b->short_rps > 0 && settled && demand_rate(d) < b->planned_rps;
}

bool demand_settled(const struct demand *d, usec_t since_us)
{
    since_us = MAX(since_us, d->rose_us);
    return d->n_cells == DEMAND_CELLS - 1 && (!since_us || d->at_us - since_us >= USUAL_US);
}

double demand_usual(const struct demand *d, const struct demand_band *b)
{
    return fmin(MARGIN * demand_rate(d), b->planned_rps);
}

double demand_part(double declared_rps, double usual_rps, double asked_rps, double x)
{
    double first_rps = fmin(declared_rps, asked_rps);
    double kept_rps = fmax(fmin(usual_rps, asked_rps), first_rps);

    if (x < PART_DECLARED)
        return x * first_rps;
    if (x < PART_USUAL)
        return first_rps + (x - PART_DECLARED) * (kept_rps - first_rps);
    return kept_rps + (x - PART_USUAL) * (asked_rps - kept_rps);
}

/* What a short window that is surely above the band shows at most; 0: none is.  It began before the
 * rate had risen, and what is planned too low is late again a second later. */
static double jumped_to(const struct demand *d, const struct demand_band *b)
{
    double rps = 0, high_rps = high(b);

    for (size_t i = 0; i < ARRAY_SIZE(shorts); i++) {
        struct window w = look_short(d, shorts[i]);
        if (at_least(&w, SURE) > high_rps)
            rps = fmax(rps, at_least(&w, -LIKELY));
    }
    return rps;
}

/* A rise is seen before all of it is: soon after one it takes less to see that there is more. */
static bool rises(const struct demand *d, const struct demand_band *b)
{
    double z = d->rose_us && d->at_us - d->rose_us < RISING_US ? LIKELY : SURE;
    struct window all = look(d, DEMAND_CELLS - 1);
    bool mean_is_above =
        d->n_cells == DEMAND_CELLS - 1 && all.n >= MEAN_ARRIVALS && all.n / all.s > high(b);

    return mean_is_above || shown(d, z) > high(b);
}

enum demand_move demand_judge(struct demand *d, const struct demand_band *b, double *ret_rps)
{
    double rps = demand_rate(d), jump_rps = jumped_to(d, b);

    if (jump_rps > 0 || rises(d, b)) {
        rps = fmax(rps, jump_rps);
        bool soon = d->fell_us && d->at_us - d->fell_us < SOON * d->hold_us;
        d->hold_us = soon ? MIN(2 * d->hold_us, HOLD_MOST_US) : HOLD_US;
        d->reached_us = d->rose_us = d->at_us;
        *ret_rps = MARGIN * rps;
        return DEMAND_RISES;
    }
    if (rps >= b->low_rps)
        d->reached_us = d->at_us;
    if (d->at_us - d->reached_us < (b->unheld ? d->hold_us / UNHELD_HOLD : d->hold_us))
        return DEMAND_STAYS;
    d->fell_us = d->reached_us = d->at_us;
    *ret_rps = MARGIN * rps;
    return DEMAND_FALLS;
}

/* ---- bands from a plan */

/* What a gpu-let does at the planned rates. */
struct let_use {
    double duty;
    uint32_t unknown; /* shares without a rate */
};

/* Part of a gpu-let's time that a request takes. */
static double request_s(const struct plan_share *s)
{
    return (double)s->run_us / 1e6 / s->batch / MAX(s->streams, 1u);
}

static struct let_use use_of(const struct plan_gpulet *g, uint32_t n_shares)
{
    struct let_use u = {0};

    for (uint32_t i = 0; i < n_shares; i++) {
        u.duty += g->share[i].rate_rps * request_s(&g->share[i]);
        u.unknown += !(g->share[i].rate_rps > 0);
    }
    return u;
}

/* So much more of a share fits: what is free is divided among those without a rate and, as one
 * more, all the others, in proportion to what they have. */
static double share_most(const struct let_use *u, const struct plan_share *s)
{
    double part = fmax(DEMAND_DUTY - u->duty, 0) / (u->unknown + (u->duty > 0));

    if (!(request_s(s) > 0))
        return 0;
    return s->rate_rps > 0 ? s->rate_rps * (1 + part / u->duty) : part / request_s(s);
}

void demand_bands(const struct problem *p, const struct plan *plan, const double *declared,
                  struct demand_band *ret)
{
    for (uint32_t m = 0; m < p->n_models; m++)
        ret[m] =
            (struct demand_band){.planned_rps = p->model[m].best_effort ? 0 : p->model[m].rate_rps};
    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        uint32_t n_shares = sure_shares(p, g);
        struct let_use u = use_of(g, n_shares);
        bool promises = g->order == ORDER_TURNS ||
                        (g->order == ORDER_DEADLINE && p->type[p->device[g->device].type].in_turn);
        for (uint32_t i = 0; i < n_shares; i++) {
            struct demand_band *b = &ret[g->share[i].model];
            /* In any other order nothing is promised, as there is no room. */
            b->high_rps += promises ? share_most(&u, &g->share[i]) : 0;
            b->sure.batch = MAX(b->sure.batch, g->share[i].batch);
        }
    }
    for (uint32_t m = 0; m < p->n_models; m++) {
        struct demand_band *b = &ret[m];
        b->sure.rate_rps = b->planned_rps > 0 ? fmax(b->high_rps, ALLOWED * b->planned_rps) : 0;
        b->high_rps = fmax(b->high_rps, HIGH_LEAST * b->planned_rps);
        b->low_rps = b->planned_rps > declared[m] ? LOW_PART * b->planned_rps : 0;
    }
}

void demand_hasten(uint32_t n, struct demand_band *bands)
{
    for (uint32_t m = 0; m < n; m++) {
        bands[m].unheld = true;
        if (bands[m].low_rps > 0)
            bands[m].low_rps = UNHELD_PART * bands[m].planned_rps;
    }
}
