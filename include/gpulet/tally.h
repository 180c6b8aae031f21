/* Counts of values by fixed bounds, for Prometheus histograms.
 *
 * Any thread adds, without a lock: one relaxed atomic in a bucket and one in the sum.  A reader
 * sees each counter as it is; what is added while it reads may be in one and not in the other.
 * All of it zeroed is an empty one. */
#pragma once

#include <gpulet/base.h>
#include <stdatomic.h>

#define TALLY_BOUNDS 18

struct tally {
    _Atomic uint64_t
        n[TALLY_BOUNDS + 1]; /* by the first bound that is not below; the last: above */
    _Atomic uint64_t sum;
};

/* Ascending; durations in microseconds, ratios in thousandths. */
extern const uint64_t tally_us[TALLY_BOUNDS], tally_permille[TALLY_BOUNDS];

void tally_add(struct tally *t, const uint64_t bound[TALLY_BOUNDS], uint64_t value);
uint64_t tally_count(const struct tally *t);
void tally_copy(const struct tally *from, struct tally *ret);
