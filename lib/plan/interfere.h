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

/* INTERFERE_PRESSURE: what struct interference.term holds. */
enum pressure_term {
    TERM_MEMORY,  /* of compute: waits for L2 and DRAM that others use */
    TERM_LAUNCH,  /* of compute: kernels that wait for others' kernels */
    TERM_COPY,    /* of copying in, which ends in DRAM */
    TERM_UNKNOWN, /* part of L2 and DRAM that a load on all units is taken to use where its profile
                     does not say */
    N_TERMS,
    N_FITTED = TERM_UNKNOWN /* that slow down */
};

/* A run under pressure: linear in its terms. */
struct slowing {
    double compute_us;        /* at the clock that the power cap leaves */
    double each_us[N_FITTED]; /* what a term of 1 adds */
};
void pressure_slowing(const struct interference *f, const struct solo *me, const struct pressure *p,
                      struct slowing *ret);
