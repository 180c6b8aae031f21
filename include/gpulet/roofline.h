/* The least that a model takes of a device: operations and bytes, counted from its graph, and the
 * time for which nothing can be faster on a device of given rates.
 *
 * Pure; any thread.  A bound graph has one batch: graph_bind() says for which numbers.
 *
 * Bytes are those that cross the device's memory if every node is one kernel and no cache keeps
 * anything: each node reads its inputs and writes its results once.  Nothing crosses for what only
 * has another shape (Reshape, Flatten, ...), and nothing is counted of what is known before the run
 * or only in it (late nodes).  Numbers of FP32 have two bytes in fp16 and bf16, also at the ends of
 * the graph; all others have the size that the graph says, in int8 too, where the passes make nodes
 * on bytes.
 *
 * Source: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model
 * for multicore architectures", CACM 52(4), 2009.  Theirs is one roof for a program; ours is one
 * for each node, as a network is some nodes of each kind. */
#pragma once

#include <gpulet/graph.h>

struct work {
    double matrix_flops; /* of products, two for each multiply-add: what matrix units can do */
    double other_flops;  /* all others, as node_cost() weighs them */
    double weight_bytes; /* constants, once: with the first node that reads them; rows that a
                          * Gather takes of one count with each Gather */
    double moved_bytes;  /* other inputs, residuals, results */
};

/* Rates of a device, measured: both > 0. */
struct rates {
    double matrix_flops_per_s, bytes_per_s;
};

/* Counts.  node: [b->graph->n_nodes], the caller's; NULL: not asked for.  *ret is their sum.
 * Returns 0 or -ENOMEM. */
int graph_work(const struct bound *b, enum precision precision, struct work *node, struct work *ret,
               struct err *err);
/* Bytes of the graph's inputs and outputs: of what is moved, all that must be, however nodes are
 * joined. */
double graph_border_bytes(const struct bound *b, enum precision precision);

/* One node: as long as its products, or its bytes, take; in us.  The other operations are taken to
 * go on behind these. */
double work_floor_us(const struct work *w, const struct rates *r);
/* n nodes, one after the other. */
double nodes_floor_us(const struct work *node, uint32_t n, const struct rates *r);
