/* The distribution of latencies: a sum of uniform pieces, exact at the edges of logarithmic bins.
 */
#include "queue_priv.h"

#include <math.h>

uint32_t tail_bin(double us)
{
    uint64_t bits;

    if (us < 1)
        return 0;
    memcpy(&bits, &us, sizeof(bits));
    uint64_t bin = (bits >> (52 - TAIL_SUB_BITS)) - (UINT64_C(1023) << TAIL_SUB_BITS);
    return (uint32_t)MIN(bin, TAIL_BINS - 1);
}

double tail_edge_us(uint32_t bin)
{
    uint64_t bits = ((uint64_t)bin + 1 + (UINT64_C(1023) << TAIL_SUB_BITS)) << (52 - TAIL_SUB_BITS);
    double us;

    memcpy(&us, &bits, sizeof(us));
    return us;
}

void tail_add(struct tail *t, double mass, double lo_us, double hi_us)
{
    t->mass += mass;
    t->sum_us += mass * (lo_us + hi_us) / 2;
    if (hi_us - lo_us < 1e-3) { /* a point */
        t->late += hi_us > t->slo_us ? mass : 0;
        t->point[tail_bin(hi_us)] += mass;
        return;
    }
    double slope = mass / (hi_us - lo_us);
    if (hi_us > t->slo_us)
        t->late += slope * (hi_us - fmax(lo_us, t->slo_us));
    uint32_t lo = tail_bin(lo_us), hi = tail_bin(hi_us);
    t->slope[lo] += slope;
    t->offset[lo] += slope * lo_us;
    t->slope[hi] -= slope;
    t->offset[hi] -= slope * hi_us;
}

/* Requests that never run count as infinitely late. */
double tail_quantile(const struct tail *t, double q)
{
    double need = q * (t->mass + t->lost), slope = 0, offset = 0, points = 0, below = 0, from = 0;

    if (!(t->mass > 0) || need > t->mass)
        return INFINITY;
    for (uint32_t b = 0; b < TAIL_BINS; b++) {
        double to = tail_edge_us(b);
        slope += t->slope[b];
        offset += t->offset[b];
        points += t->point[b];
        double cdf = slope * to - offset + points;
        if (cdf >= need - 1e-9 * t->mass)
            return cdf > below ? from + (to - from) * fmin((need - below) / (cdf - below), 1) : to;
        below = cdf;
        from = to;
    }
    return INFINITY;
}
