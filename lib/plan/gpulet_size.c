/* One model by itself (gpu-lets section 4.3; seed rules in docs/papers.md). */
#include "gpulet.h"

#include <math.h>

double glet_est(const struct gplan *g, uint32_t type, uint32_t granules, uint32_t model,
                uint32_t batch, const struct glet *beside)
{
    const struct problem *p = g->p;
    uint32_t unit = p->type[type].granule_units;
    struct load other[GLET_SHARES];
    struct load me = {.profile = &p->model[model].profile[type],
                      .batch = batch,
                      .units = granules * unit,
                      .duty = 1};
    struct estimate e;
    uint32_t n = g->interference && beside ? beside->n : 0;

    for (uint32_t i = 0; i < n; i++)
        other[i] = (struct load){.profile = &p->model[beside->share[i].model].profile[type],
                                 .batch = beside->share[i].batch,
                                 .units = beside->granules * unit,
                                 .duty = 1};
    return predict(&p->type[type].predict, &me, other, n, &e) ? GLET_BUFFER * e.run_us : INFINITY;
}

/* What the largest batch of a bisection must keep; t as predicted. */
typedef bool batch_ok_fn(double est_us, double slo_us, double rps, uint32_t batch);

static bool saturated_ok(double est_us, double slo_us, double rps, uint32_t batch)
{
    (void)rps, (void)batch;
    return within(2 * est_us, slo_us);
}

static bool residue_ok(double est_us, double slo_us, double rps, uint32_t batch)
{
    return within(est_us + 1e6 * batch / rps, slo_us);
}

/* Bisection on 1..32, latency taken to be monotone; 0: not even a batch of 1. */
static uint32_t largest_batch(const struct gplan *g, uint32_t type, uint32_t granules,
                              uint32_t model, const struct glet *beside, double rps,
                              batch_ok_fn *ok)
{
    double slo_us = pub_slo_us(g->p, model);
    uint32_t lo = 0, hi = MIN(g->p->model[model].max_batch, GLET_BATCH);

    while (lo < hi) {
        uint32_t mid = (lo + hi + 1) / 2;
        double us = glet_est(g, type, granules, model, mid, beside);
        if (us < INFINITY && ok(us, slo_us, rps, mid))
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

uint32_t glet_saturated(const struct gplan *g, uint32_t type, uint32_t granules, uint32_t model,
                        const struct glet *beside, double *rps)
{
    uint32_t b = largest_batch(g, type, granules, model, beside, 0, saturated_ok);

    *rps = b ? 1e6 * b / glet_est(g, type, granules, model, b, beside) : 0;
    return b;
}

/* Over adjacent sizes whose throughput grows by 5 %, the upper end of the steepest step.  (The
 * released loop leaves out the last step; the paper does not.) */
uint32_t glet_knee(const struct gplan *g, uint32_t type, uint32_t model)
{
    uint32_t knee = PLAN_NONE;
    double steepest = 0, before = 0;

    for (uint32_t i = 0; i < g->n_sizes[type]; i++) {
        double rps;
        (void)glet_saturated(g, type, g->size[type][i], model, NULL, &rps);
        if (i == 0 && rps > 0)
            knee = 0;
        if (i > 0 && rps > 0 && rps >= GLET_KNEE * before) {
            double slope = (rps - before) / (g->size[type][i] - g->size[type][i - 1]);
            if (slope > steepest) {
                steepest = slope;
                knee = i;
            }
        }
        before = rps;
    }
    return knee;
}

/* A rate too low to fill a batch of 1 within the SLO: the batch is closed when the cycle has
 * passed, so the duty cycle may be all that the SLO leaves. */
static bool residue_at(const struct gplan *g, uint32_t type, uint32_t granules, uint32_t model,
                       uint32_t batch, double rps, double *duty_us)
{
    double us = glet_est(g, type, granules, model, batch, NULL), slo_us = pub_slo_us(g->p, model);

    *duty_us = batch > 1 ? 1e6 * batch / rps : fmin(1e6 / rps, slo_us - us);
    return us<INFINITY && * duty_us> 0 && within(us, *duty_us) && within(us + *duty_us, slo_us);
}

bool glet_residue(const struct gplan *g, uint32_t type, uint32_t size, uint32_t model, double rps,
                  struct piece *ret)
{
    uint32_t granules = g->size[type][size];
    uint32_t b = MAX(largest_batch(g, type, granules, model, NULL, rps, residue_ok), 1u);
    double duty_us, fewer_us;

    if (!residue_at(g, type, granules, model, b, rps, &duty_us))
        return false;
    while (size > 0 && residue_at(g, type, g->size[type][size - 1], model, b, rps, &fewer_us)) {
        duty_us = fewer_us;
        size--;
    }
    *ret = (struct piece){g->size[type][size], b, false, rps, duty_us};
    return true;
}

bool glet_piece(const struct gplan *g, uint32_t type, uint32_t size, uint32_t model, double rps,
                struct piece *ret)
{
    double most;

    if (size >= g->n_sizes[type])
        return false;
    uint32_t b = glet_saturated(g, type, g->size[type][size], model, NULL, &most);
    if (b == 0)
        return false;
    if (rps <= most && glet_residue(g, type, size, model, rps, ret))
        return true;
    /* Also the rate just below `most`, which no batch of a residue serves exactly. */
    *ret = (struct piece){g->size[type][size], b, true, fmin(rps, most), 1e6 * b / most};
    return true;
}

/* Start at count 0 and so end for any rate (the release starts at 1 and hangs below 4). */
double glet_raised(double rps)
{
    double term = exp(-rps), sum = term, k = 0;

    if (rps > 550)
        return 1.1 * rps;
    while (sum < 0.99) {
        k++;
        term *= rps / k;
        sum += term;
    }
    return fmax(k, rps);
}
