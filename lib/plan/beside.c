/* Interference from runs beside a stressor of memory.
 *
 * By the model of interfere.c a run beside a neighbour with memory m takes 1 + t0 sqrt(m) times as
 * long.  The stressor has m = 1 by definition, so t0 is how much longer models take beside it, on
 * the mean of those that were measured, and turning it round a model's memory is
 * ((stressed / stress - 1) / t0)^2.  That is one term from a few pairs: fit_interference() wants
 * nine of them for its three, and two of those need counts of kernels and copies, which nobody has
 * measured here. */
#include "interfere.h"

#include <math.h>

static double slower(usec_t alone_us, usec_t beside_us)
{
    double part = alone_us ? (double)beside_us / (double)alone_us - 1 : 0;

    return part < BESIDE_LEAST ? 0 : part;
}

double beside_memory(const struct interference *f, const struct beside_run *b)
{
    double part = slower(b->stress_us, b->stressed_us), t0 = f->term[TERM_MEMORY];

    return t0 > 0 ? fmin(part * part / (t0 * t0), 1) : 0;
}

void beside_terms(const struct beside_run *b, uint32_t n, uint32_t units, struct interference *ret)
{
    double sum = 0, memory = 0, parts = 0;

    *ret = (struct interference){0};
    for (uint32_t i = 0; i < n; i++)
        sum += slower(b[i].alone_us, b[i].beside_us);
    if (sum <= 0)
        return;
    ret->kind = INTERFERE_PRESSURE;
    ret->n_terms = N_TERMS;
    ret->term[TERM_MEMORY] = sum / n;
    for (uint32_t i = 0; i < n; i++) {
        memory += beside_memory(ret, &b[i]);
        parts += (double)b[i].units / MAX(units, 1u);
    }
    ret->term[TERM_UNKNOWN] = fmin(memory / parts, 1);
}

/* What the model uses in runs of that batch on the units that it was measured on, *ret_units. */
static double memory_at(const struct interference *f, const struct beside_run *b, uint32_t n,
                        uint32_t batch, uint32_t *ret_units)
{
    const struct beside_run *lo = NULL, *hi = NULL;

    for (uint32_t i = 0; i < n; i++) {
        if (b[i].batch <= batch && (!lo || b[i].batch > lo->batch))
            lo = &b[i];
        if (b[i].batch >= batch && (!hi || b[i].batch < hi->batch))
            hi = &b[i];
    }
    lo = lo ? lo : hi;
    hi = hi ? hi : lo;
    double part = hi == lo ? 0 : (double)(batch - lo->batch) / (hi->batch - lo->batch);
    *ret_units = lo->units;
    return beside_memory(f, lo) + part * (beside_memory(f, hi) - beside_memory(f, lo));
}

int beside_cells(struct arena *a, const struct interference *f, const struct beside_run *b,
                 uint32_t n, struct profile *p)
{
    double *cell = ARENA_ARRAY(a, double, (size_t)p->n_units * p->n_batch);

    if (!cell)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->n_units * p->n_batch; i++) {
        uint32_t batch = p->batch[i % p->n_batch], units = p->units[i / p->n_batch], at = units;
        double memory = memory_at(f, b, n, batch, &at);
        double us = (double)predict_run_us(p, batch, units);
        cell[i] = fmin(memory * (double)predict_run_us(p, batch, at) / us, 1);
    }
    p->l2 = p->dram = cell;
    return 0;
}
