/* Between predict.c (what a load is, alone) and interfere.c (what neighbours make of it). */
#pragma once

#include <gpulet/predict.h>

/* What the profile's table says of one load; utilisations and watts are negative where they were
 * not measured. */
struct cell {
    double run_us, upper_us, host_us;
    double l2, dram, watts;
};

/* False: it does not run there. */
bool table_cell(const struct profile *p, uint32_t batch, uint32_t units, uint32_t streams,
                struct cell *ret);

/* A run under pressure: linear in its terms. */
struct slowing {
    double compute_us;        /* at the clock that the power cap leaves */
    double each_us[N_FITTED]; /* what a term of 1 adds */
};
void pressure_slowing(const struct interference *f, const struct solo *me, const struct pressure *p,
                      struct slowing *ret);
