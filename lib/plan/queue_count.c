/* How many requests come in a given time.
 *
 * Poisson; for other gaps the negative binomial or binomial with the variance that a renewal
 * process has over long times (cv^2 times the mean); paced: the two whole numbers around the mean.
 * All three follow p[k + 1] = p[k] (a + b / (k + 1)); we start at the mode and stop where nothing
 * is left. */
#include "queue_priv.h"

#include <math.h>

#define COUNT_LEAST 1e-9 /* against the mode */

/* One that is exactly k requests. */
static void count_add(const struct flow *f, struct counts *c, uint32_t most, uint32_t k, double p)
{
    uint32_t at = (k + f->grain - 1) / f->grain;

    at = MIN(at, most);
    while (c->hi < at)
        c->p[++c->hi] = 0;
    while (c->lo > at)
        c->p[--c->lo] = 0;
    c->p[at] += p;
}

static void counts_paced(const struct flow *f, double mean, uint32_t most, struct counts *c)
{
    double whole = fmin(floor(mean), 1e9), part = mean - floor(mean);

    count_add(f, c, most, (uint32_t)whole, 1 - part);
    if (part > 0)
        count_add(f, c, most, (uint32_t)whole + 1, part);
}

/* Variance over mean.  A count of even gaps has at least that of its end points. */
static double dispersion(const struct flow *f, double mean)
{
    double d = f->dispersion;

    return d < 1 ? fmin(d + (1 - d * d) / (6 * fmax(mean, 1e-3)), 1) : d;
}

static void counts_random(const struct flow *f, double mean, uint32_t most, struct counts *c)
{
    double d = dispersion(f, mean), a = 1 - 1 / d;
    double b = d == 1 ? mean : (mean / (d - 1) - 1) * a;
    double mode = floor(fmin(fmax(mean - (d - 1), 0), 1e8)), sum = 0;
    double p = 1, p0 = 1;

    for (double k = mode; k > 0 && p > COUNT_LEAST; k--) { /* down from the mode */
        p /= a + b / k;
        count_add(f, c, most, (uint32_t)k - 1, p);
        sum += p;
    }
    for (double k = mode; p0 > 0; k++) {
        count_add(f, c, most, (uint32_t)k, p0);
        sum += p0;
        p0 *= a + b / (k + 1);
        if (p0 < COUNT_LEAST)
            break;
    }
    for (uint32_t k = c->lo; k <= c->hi; k++)
        c->p[k] /= sum;
}

int counts_make(const struct flow *f, double mean, uint32_t most, double *scratch, struct arena *a,
                struct counts *ret)
{
    double start = fmin(floor(mean), (double)most * f->grain);
    uint32_t at = (uint32_t)fmin((start + f->grain - 1) / f->grain, most);
    struct counts c = {.lo = at, .hi = at, .p = scratch};

    c.p[at] = 0;
    if (f->kind == ARRIVALS_PACED)
        counts_paced(f, mean, most, &c);
    else
        counts_random(f, mean, most, &c);
    c.p = arena_memdup(a, scratch + c.lo, (c.hi - c.lo + 1) * sizeof(*scratch));
    if (!c.p)
        return -ENOMEM;
    *ret = c;
    return 0;
}
