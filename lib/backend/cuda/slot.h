/* The mutable state of one run. */
#pragma once

#include "exe.h"

struct slot {
    struct exe *exe;
    CUdeviceptr memory;
    char *args;         /* of all steps, with addresses */
    uint32_t *first;    /* by step: where its arguments begin */
    void **state;       /* by step: a library's */
    CUgraphExec *graph; /* by segment: its launches, captured; NULL: they are made one by one */
    size_t graph_bytes;
    int32_t *status; /* pinned: what BUF_STATUS held at the end */
    CUevent begin, end;

    ticket ticket;
    struct slot *next;    /* in the partition's list */
    bool probing, probed; /* under the partition's lock */
};

/* ---- exec.c */
/* Step i, on a stream of the partition, whose context is current. */
int slot_launch(struct slot *s, uint32_t i, CUstream stream, struct err *err);

/* ---- capture.c; builder, the partition's context is current */
/* What the graphs of a slot may take, as far as is known. */
size_t graphs_bytes(const struct exe *x);
/* Runs the steps once, then captures each segment.  What the driver does not capture is launched
 * step by step, and exe->note says why. */
int graphs_open(struct slot *s, struct err *err);
void graphs_close(struct slot *s);
