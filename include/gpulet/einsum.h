/* The equation of an Einsum node, read against the shapes of its inputs: shape rule, reference
 * kernel, passes and backends see labels and sizes only. */
#pragma once

#include <gpulet/graph.h>

#define EINSUM_MAX_IN 8
#define EINSUM_MAX_LABELS 32

/* Every label is a loop; the first n_out are the result's dimensions in order, over the others
 * the products are summed. */
struct einsum {
    uint32_t n_in, n_out, n_labels;
    int64_t size[EINSUM_MAX_LABELS];
    uint8_t label[EINSUM_MAX_IN][MAX_RANK]; /* by input and dimension */
};

/* -EINVAL: an equation that makes no sense, or not with these shapes; -ENOTSUP: over a limit.
 * The message does not name the node. */
int einsum_read(const struct node *n, const struct tensor *const *in, struct einsum *ret,
                struct err *err);
/* Elements from one step of label l to the next in input i of that shape; 0 where it has none, or
 * where its dimension is 1 and broadcast.  A label twice in one input is its diagonal. */
int64_t einsum_stride(const struct einsum *e, uint32_t i, const struct tensor *t, uint32_t l);
