/* What graph_run() and the operators with bodies share; nobody else includes it. */
#pragma once

#include "infer.h"

/* A node with bodies, about to run. */
struct flow {
    const struct graph_run *r;
    const struct node *n;
    const struct tensor *const *in; /* as the node has them; what bodies capture among them */
    struct tensor *out;             /* [n->n_out], to be filled; data in r->arena or of an input */
    struct err *err;
};

/* run_flow.c: NULL for all other operators.  Messages do not name the node. */
typedef int flow_fn(struct flow *f);
flow_fn *flow_find(enum op_id op);

/* Memory of the run's arena, or the message that says what is wanted and what there is. */
void *run_alloc(struct arena *a, size_t bytes, struct err *err);
