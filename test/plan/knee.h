/* Made-up models whose runs have a fixed part, rows that cost less together, and units beyond what
 * the rows can use. */
#pragma once

#include <gpulet/plan.h>
#include <math.h>

#define KNEE_UNITS 132 /* of a device */
#define KNEE_BATCH 16  /* rows at most */

static const uint32_t knee_batch[] = {1, 2, 4, 8, KNEE_BATCH},
                      knee_units[] = {2, 4, 8, 16, 32, 64, KNEE_UNITS};

struct knee {
    double work_ms, units; /* of one row on one unit; that one row can use */
    usec_t slo_us;
};

static inline usec_t knee_us(const struct knee *k, uint32_t batch, uint32_t units)
{
    double used = fmin(units, k->units * sqrt(batch));

    return (usec_t)(400 + 1000 * k->work_ms * pow(batch, 0.9) / used);
}

/* Requests/s that take such a part of a device, in runs of 4 rows on 16 units. */
static inline double knee_rps(const struct knee *k, double part)
{
    return part * KNEE_UNITS / 16 * 4e6 / (double)knee_us(k, 4, 16);
}

static inline struct plan_model knee_model(const struct knee *k, struct arena *a)
{
    uint32_t n = ARRAY_SIZE(knee_batch), n_units = ARRAY_SIZE(knee_units);
    struct profile *f = ARENA_NEW(a, struct profile);
    usec_t *us = ARENA_ARRAY(a, usec_t, (size_t)n * n_units);

    for (uint32_t u = 0; u < n_units; u++)
        for (uint32_t b = 0; b < n; b++)
            us[u * n + b] = knee_us(k, knee_batch[b], knee_units[u]);
    *f = (struct profile){
        .n_batch = n, .batch = knee_batch, .n_units = n_units, .units = knee_units, .run_us = us};
    return (struct plan_model){.name = "m",
                               .arrivals = ARRIVALS_POISSON,
                               .max_batch = KNEE_BATCH,
                               .slo_us = k->slo_us,
                               .profile = f};
}
