/* How many requests come in a given time: Poisson.
 *
 * p[k + 1] = p[k] mean / (k + 1); we start at the mode, which no exp() can make vanish, and stop
 * where nothing is left. */
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

int counts_make(double mean, uint32_t grain, uint32_t most, double *scratch, struct arena *a,
                struct counts *ret)
{
    double mode = floor(mean), sum = 0;
    uint32_t at = (uint32_t)fmin(ceil(mode / grain), most);
    struct counts c = {.lo = at, .hi = at, .p = scratch};

    c.p[at] = 0;
    for (double k = mode, p = 1; p > COUNT_LEAST; p *= mean / ++k) {
        count_add(&c, grain, most, k, p);
        sum += p;
    }
    for (double k = mode, p = 1; k > 0 && (p *= k / mean) > COUNT_LEAST; k--) {
        count_add(&c, grain, most, k - 1, p);
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
