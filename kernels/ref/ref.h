/* Reference kernels: plain loops, one file per operator family, never tuned.
 *
 * They define what every other kernel must compute (test/ops) and evaluate constants and shape
 * arithmetic in lib/model.  Depends on graph.h's types only.
 *
 * in[i] is NULL for an omitted input.  out[i] has dtype, rank, dims and bytes set (node_infer())
 * and data allocated by the caller, or is NULL for an omitted output; inputs and outputs never
 * overlap.  Any thread; no state.
 *
 * Shapes that depend on data: the rule in node_infer(), which then sees the inputs' data, gives
 * either the exact shape or the largest possible one; in the latter case the kernel lowers dims
 * and bytes of its out[i] to what it wrote.  The same holds for the bytes of strings, which lie in
 * wire form (gpulet/tensor.h). */
#pragma once

#include <gpulet/graph.h>

typedef int (*ref_fn)(const struct node *n, const struct tensor *const *in,
                      struct tensor *const *out, struct err *err);

/* What kernels need on the way is from there, on the calling thread, until it is NULL again:
 * malloc. */
void ref_lend(struct arena_cache *c);

/* NULL when there is none. */
ref_fn ref_find(enum op_id op);
/* The node's operator and then its post steps; add[i] is the operand of post step i when that is
 * POST_ADD, else NULL.  -ENOTSUP names operator and type; -EINVAL an index out of range. */
int ref_run(const struct node *n, const struct tensor *const *in, const struct tensor *const *add,
            struct tensor *const *out, struct err *err);
/* The post steps alone, in order, in place. */
int ref_post(const struct node *n, const struct tensor *const *add, struct tensor *out,
             struct err *err);
