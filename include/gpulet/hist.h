/* A histogram of durations: log-linear buckets, 32 per power of two, so that a quantile is
 * right within 1/32 at any scale.  Fixed size, no allocation; adding histograms of several
 * threads gives the histogram of all.  Not locked: one writer. */
#pragma once

#include <gpulet/base.h>

#define HIST_SUB 32
#define HIST_BUCKETS (HIST_SUB * 36) /* up to 2^40 us, twelve days */

struct hist {
    uint64_t count;
    uint64_t sum_us;
    usec_t max_us;
    uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, usec_t us);
void hist_merge(struct hist *h, const struct hist *other);
/* The least bucket bound that at least q (0..1) of the values do not exceed; 0 when empty. */
usec_t hist_quantile(const struct hist *h, double q);
