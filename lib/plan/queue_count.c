/* How many requests come in a given time: Poisson, or every so-manyth of a Poisson stream.
 *
 * p[k + 1] = p[k] mean / (k + 1); we start at the mode, which no exp() can make vanish, and stop
 * where nothing is left.  Of k that come to all, k / turns come here: whose turn it is when the
 * time begins is even, so the fraction is the chance of one more. */
#include "queue_priv.h"

#include <math.h>

#define COUNT_LEAST 1e-9 /* against the mode */

/* k requests, in steps of so many, rounded up: that many of them would not be fewer. */
static void count_add(struct counts *c, uint32_t grain, uint32_t most, double k, double p)
{
    uint32_t at = (uint32_t)fmin(ceil(k / grain), most);

    while (c->hi < at)
        c->p[++c->hi] = 0;
    while (c->lo > at)
        c->p[--c->lo] = 0;
    c->p[at] += p;
}

/* k to all. */
static void turn_add(struct counts *c, uint32_t turns, uint32_t grain, uint32_t most, double k,
                     double p)
{
    double here = floor(k / turns), more = k / turns - here;

    count_add(c, grain, most, here, p * (1 - more));
    if (more > 0)
        count_add(c, grain, most, here + 1, p * more);
}

int counts_make(double mean, uint32_t turns, uint32_t grain, uint32_t most, double *scratch,
                struct arena *a, struct counts *ret)
{
    double mode = floor(mean * turns), sum = 0;
    uint32_t at = (uint32_t)fmin(ceil(floor(mode / turns) / grain), most);
    struct counts c = {.lo = at, .hi = at, .p = scratch};

    mean *= turns;
    c.p[at] = 0;
    for (double k = mode, p = 1; p > COUNT_LEAST; p *= mean / ++k) {
        turn_add(&c, turns, grain, most, k, p);
        sum += p;
    }
    for (double k = mode, p = 1; k > 0 && (p *= k / mean) > COUNT_LEAST; k--) {
        turn_add(&c, turns, grain, most, k - 1, p);
        sum += p;
    }
    for (uint32_t k = c.lo; k <= c.hi; k++)
        c.p[k] /= sum;
    c.p = arena_memdup(a, scratch + c.lo, (c.hi - c.lo + 1) * sizeof(*scratch));
    if (!c.p)
        return -ENOMEM;
    *ret = c;
    return 0;
}
