/* The CPU backend's own kernels: what oneDNN lacks, or does badly, on row-major tensors.
 *
 * A kernel is planned once, when a model is compiled: attributes are read, shapes and strides are
 * worked out into params.  Running it only touches memory: no checks, no allocation.
 * They are compared with kernels/ref in test/ops and share no code with it, but for plain.c, which
 * runs the reference where no fast kernel is. */
#pragma once

#include <gpulet/graph.h>

/* ptr: the node's inputs, then its outputs; NULL where one is omitted.  Returns 0, or -EINVAL for
 * data out of range (an index).  Any thread. */
struct cpu_call {
    int (*run)(const void *params, void *const *ptr);
    const void *params;
    const char *name; /* of the kernel, for profiles; may be NULL */
    /* The `part`th of n_parts pieces of the work: all of them, in any order and at the same time,
     * do what run does.  NULL: it is not cut. */
    int (*piece)(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts);
    /* The reference's loops: the same as run, with a message; NULL for a fast kernel.  They check
     * types as they run, and take memory. */
    int (*plain)(const void *params, void *const *ptr, struct err *err);
};

struct cpu_args {
    const struct node *node;         /* what it points to outlives the calls */
    const struct tensor *const *in;  /* n_in; NULL: omitted.  data != NULL: known now */
    const struct tensor *const *out; /* n_out; NULL: omitted */
    struct arena *arena;             /* where params go; outlives the calls */
};

/* Where no fast kernel takes the node's types or attributes, the call is plain.
 * -ENOTSUP names node and operator; -EINVAL an attribute that makes no sense. */
int cpu_plan(const struct cpu_args *a, struct cpu_call *ret, struct err *err);
/* A post step in place on y.  ptr[0]: the tensor; ptr[1]: POST_ADD's operand. */
int cpu_plan_post(const struct post *p, const struct tensor *y, struct arena *arena,
                  struct cpu_call *ret);
/* ptr[0] to ptr[1]. */
int cpu_plan_copy(size_t bytes, struct arena *arena, struct cpu_call *ret);

/* A batch norm with constant parameters over blocked channels that may lie in pieces:
 * y = min(max((x - mean) * gain / sqrt(var + epsilon) + bias, low), high)
 *   ptr[0..n_pieces)  [batch, blocks[i], spatial, block], together all channels
 *   ptr[n_pieces]     [batch, channels / block, spatial, block]; not one of the sources, or the
 *                     only one */
struct cpu_channel {
    int64_t batch, spatial, block, channels; /* block: 8 or 16, and channels a multiple */
    uint32_t n_pieces;
    const int64_t *blocks; /* by piece */
    const float *gain, *bias, *mean, *var;
    float epsilon, low, high;
};
int cpu_plan_channel(const struct cpu_channel *c, struct arena *arena, struct cpu_call *ret);

/* Channels picked from those of several tensors.
 *   ptr[0..n_pieces)  [batch, ceil(channels[i] / block), spatial, block]
 *   ptr[n_pieces]     [batch, ceil(n / block), spatial, block], none of them: channel c is number
 *                     from[c] of all their channels, one tensor after the other; behind n zero */
struct cpu_pick {
    int64_t batch, spatial, block; /* block: 8 or 16 */
    uint32_t n_pieces;
    const int64_t *channels; /* by piece */
    int64_t n;
    const uint32_t *from;
};
int cpu_plan_pick(const struct cpu_pick *c, struct arena *arena, struct cpu_call *ret);

/* y = x * gate, by channel: squeeze and excite on blocked channels.
 *   ptr[0]  x [batch, channels / block, spatial, block]
 *   ptr[1]  gate [gates, channels]; gates: batch, or 1 for all
 *   ptr[2]  y as x; may be x */
struct cpu_gate {
    int64_t batch, gates, spatial, block, channels; /* as of cpu_channel */
};
int cpu_plan_gate(const struct cpu_gate *g, struct arena *arena, struct cpu_call *ret);
