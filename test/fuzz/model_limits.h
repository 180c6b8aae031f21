/* Limits under which a fuzzer gets through many models a second, and kernels that do not take
 * long whatever the shapes. */
#pragma once

#include "../check.h"
#include <gpulet/model.h>
#include <kernels/ref/ref.h>

#define FUZZ_RUN_BYTES (16u << 20)
#define FUZZ_MAX_WORK 4e6 /* elements of a node's result times those of its largest input */

static const struct model_limits fuzz_limits = {
    .nodes = 200,
    .nesting = 6,
    .tensor_elems = 16384,
    .tensor_bytes = 1 << 17,
    .live_bytes = 8 << 20,
    .loop_iterations = 200,
};

/* NULL: refused, with a message. */
static inline struct graph *fuzz_read(const uint8_t *data, size_t n)
{
    struct mapping file = {.base = data, .bytes = n}, *ext = NULL;
    struct graph *g = NULL;
    struct err e = {0};
    uint32_t n_ext = 0;
    int rc = onnx_read(&file, NULL, &fuzz_limits, &g, &ext, &n_ext, &e);

    assert(rc == 0 ? g != NULL : g == NULL && e.code == rc && e.msg[0]);
    free(ext);
    return g;
}

static inline double fuzz_elems(const struct tensor *t)
{
    double n = 1;

    for (uint32_t i = 0; t && i < t->rank; i++)
        n *= (double)t->dims[i];
    return n;
}

/* The reference kernels, when the node is cheap. */
static inline int fuzz_kernel(void *ctx, const struct node *n, const struct tensor *const *in,
                              const struct tensor *const *add, struct tensor *const *out,
                              struct arena *a, struct err *err)
{
    double most_in = 1, most_out = 1;

    (void)ctx;
    (void)a;
    for (uint32_t i = 0; i < n->n_in; i++)
        most_in = MAX(most_in, fuzz_elems(in[i]));
    for (uint32_t i = 0; i < n->n_out; i++)
        most_out = MAX(most_out, fuzz_elems(out[i]));
    if (most_in * most_out > FUZZ_MAX_WORK)
        return err_set(err, -ENOTSUP, "takes long");
    return ref_run(n, in, add, out, err);
}

static inline struct shape_key fuzz_key(const struct graph *g, int64_t number)
{
    struct shape_key key = {.n = g->n_syms};

    for (uint32_t i = 0; i < key.n; i++)
        key.dim[i] = number;
    return key;
}
