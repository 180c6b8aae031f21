/* Arguments of kernels that read and write by index (index.cuh).  An index counts from the end where it
 * is negative; one that is out of range sets *bad, reads the first element and writes nothing. */
#pragma once

/* y[i] = x[walk 0 of i + index[i] * step]; index dense, of S32 or S64, into `axis` elements. */
struct gather_elements_args {
    const void *x, *index;
    void *y;
    int32_t *bad;
    int64_t n, axis, step;
    int32_t size, index_type;
    struct gpu_walk walk;
};

/* How a scattered value goes into the one that is there; all but `none` need a type. */
enum gpu_mix { GPU_MIX_none, GPU_MIX_add, GPU_MIX_mul, GPU_MIX_min, GPU_MIX_max };

/* One of n lines along the axis, its `count` updates in order: of indices and updates from walk 0
 * on, `index_step` apart; of y from walk 1 on, `step` apart. */
struct scatter_elements_args {
    const void *index, *updates;
    void *y;
    int32_t *bad;
    int64_t n, count, index_step, axis, step;
    int32_t size, index_type, type, mix;
    struct gpu_walk walk;
};

/* Tuples of `named` indices name blocks of x, each inside its one of batches of `whole` elements,
 * which have `each` tuples.  Gather: y[i] is element i % block of block i / block.  Scatter: y has what x
 * had; in_order: n = block, and an element's updates follow each other. */
struct index_nd_args {
    const void *x, *index; /* scatter: the updates */
    void *y;
    int32_t *bad;
    int64_t n, block, named, each, whole, all;
    int64_t dims[GPU_RANK], stride[GPU_RANK];
    int32_t size, index_type, type, mix, scatter, in_order;
};

/* y[o, d, i] = values[index[o, i] == d]; n = outer * depth * inner. */
struct one_hot_args {
    const void *index, *values;
    void *y;
    int64_t n, depth, inner;
    int32_t size, index_type; /* any of gpu_type */
};

/* Matrices: what is not on the side of diagonal k that stays becomes zero. */
struct trilu_args {
    const void *x;
    void *y;
    int64_t n, rows, cols, k;
    int32_t upper, size;
};

/* `one` on diagonal k of a matrix, else zero. */
struct eye_args {
    void *y;
    int64_t n, cols, k;
    uint64_t one;
    int32_t size;
};

/* The first lens[b] of `times` are turned round; x (time, batch, inner), or batch first.  lens: S64. */
struct reverse_sequence_args {
    const void *x;
    const int64_t *lens;
    void *y;
    int32_t *bad;
    int64_t n, times, batch, inner;
    int32_t batch_first, size;
};

/* y[o, (at[o / each] + k) % times, i] = x[o, k, i]; n elements of x, which has `count` a line. */
struct tensor_scatter_args {
    const void *x;
    const int64_t *at; /* or NULL: 0 */
    void *y;
    int32_t *bad;
    int64_t n, count, times, inner, each;
    int32_t circular, size;
};

/* Of lines of `count` elements, `step` apart, the `want` largest or smallest in order, equal ones by
 * place; n = elements of x.  NaN is above all.  index (S64) may be NULL. */
struct top_k_args {
    const void *x;
    void *y;
    int64_t *index;
    int64_t n, count, step, want;
    int32_t smallest, type, size;
};

/* y by position: x where that is inside, else by the mode.  begin: of the padding before x. */
enum gpu_pad { GPU_PAD_edge, GPU_PAD_reflect, GPU_PAD_wrap };
struct pad_args {
    const void *x;
    void *y;
    int64_t n, out[GPU_RANK], in[GPU_RANK], begin[GPU_RANK];
    int32_t rank, mode, size;
};
