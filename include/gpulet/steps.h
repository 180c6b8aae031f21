/* What a model compiled for the cpu backend does, step by step: for tools that explain where the
 * time goes.  Only cpu has it, so it is no entry of struct backend. */
#pragma once

#include <gpulet/backend.h>

struct step_info {
    uint32_t node;        /* of the graph: whose work it is */
    bool reorder;         /* only changes a layout */
    const char *impl;     /* the library's name, or "own" */
    char in[16], out[16]; /* layouts: "rows", "strided", "nChw16c", "packed"; "-": none */
    uint64_t median_ns;
};

/* Run the exe of a slot `runs` times on zeros, each step timed by itself, on the calling thread,
 * which has entered the partition.  ret has exe_info.n_steps entries; texts live as long as the
 * exe.  Returns 0; -EIO: a step failed; -ENOMEM. */
int cpu_steps(struct slot *s, unsigned runs, struct step_info *ret, struct err *err);
