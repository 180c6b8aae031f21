/* What the shape rules share; nobody else includes it. */
#pragma once

#include <gpulet/graph.h>

struct infer {
    const struct node *n;
    const struct tensor *const *in;
    struct tensor *out;
    struct err *err;
};

#define MAX_DIM (INT64_C(1) << 40) /* elements of one dimension, also where another is 0 */
#define MAX_SHAPE_NUMBERS 1024     /* entries of a Split, a Pad, a list of axes */

/* What the engine of shapes must know of an operator, beside its rule; see rules[] in infer.c. */
bool infer_by_data(enum op_id op); /* result shapes depend on data: late unless evaluated */

/* graph_bind() without a limit to live_bytes: for looking at shapes, not for running. */
int graph_bind_shapes(const struct graph *g, const struct shape_key *key, struct arena *a,
                      struct bound **ret, struct err *err);
#define COST_INPUTS 16 /* inputs of a node that its work may depend on */
/* A node's first inputs, NULL: omitted; returns its first result. */
const struct tensor *cost_tensors(const struct bound *b, const struct node *n,
                                  const struct tensor *in[COST_INPUTS]);
/* Operations of a node whose shapes are known; in[] are its first inputs, NULL: omitted. */
double node_flops(const struct node *n, const struct tensor *const in[COST_INPUTS],
                  const struct tensor *out);
/* Of these, the multiplications and additions of products: what matrix units can do. */
double node_matrix_flops(const struct node *n, const struct tensor *const in[COST_INPUTS],
                         const struct tensor *out);
/* Within the graph's limits for one value?  -EINVAL with shape and limit. */
int graph_check_size(const struct graph *g, const struct tensor *t, struct err *err);

/* Input i, NULL when it is omitted or not there at all. */
static inline const struct tensor *infer_in(const struct infer *c, uint32_t i)
{
    return i < c->n->n_in ? c->in[i] : NULL;
}

/* Set a result; too large a shape is an error.  Results the node does not have are ignored. */
int infer_out(struct infer *c, uint32_t i, enum dtype dtype, uint32_t rank, const int64_t *dims);
/* *axis in [-rank, rank) becomes one in [0, rank). */
int infer_axis(struct infer *c, int64_t *axis, uint32_t rank);
/* -EINVAL unless input i is omitted or has this shape. */
int infer_shaped(struct infer *c, uint32_t i, uint32_t rank, const int64_t *dims);
/* The broadcast shape of two. */
int infer_broadcast(struct infer *c, uint32_t rank_a, const int64_t *a, uint32_t rank_b,
                    const int64_t *b, uint32_t *ret_rank, int64_t *ret);
/* The integers in input i; `what` names it in messages. */
int infer_ints(struct infer *c, uint32_t i, const char *what, int64_t *ret, uint32_t max,
               uint32_t *n);
/* For a rule that needs the data of an input which is not known yet: -ENODATA, which no other error
 * has, makes the node late.  `what` names it in messages. */
int infer_unknown(struct infer *c, const char *what);
/* A list that was an attribute before opset `since` and is input i from then on; *n 0 and
 * *given false when it is absent. */
int infer_list(struct infer *c, uint32_t since, uint32_t i, const char *what, int64_t *ret,
               uint32_t max, uint32_t *n, bool *given);

/* A list attribute of exactly `want` numbers in [min, 2^31), or `absent` for each. */
int infer_window_list(struct infer *c, const char *name, uint32_t want, int64_t min, int64_t absent,
                      int64_t *ret);
/* The shape of a convolution (rank of x), of a product (at most MAX_RANK + 2 dimensions). */
int infer_conv_dims(struct infer *c, const struct tensor *x, const struct tensor *k,
                    const struct tensor *bias, int64_t *dims);
int infer_product_dims(struct infer *c, const struct tensor *a, const struct tensor *b,
                       uint32_t *ret_rank, int64_t *dims);

/* The bytes of results that are strings, where the operator's rule left them 0: the most that there
 * can be.  -ENODATA when the strings are not known yet. */
int infer_texts(struct infer *c);

/* One rule for each family; infer.c's table says which operator uses which. */
typedef int infer_fn(struct infer *c);
infer_fn infer_same, infer_same_as_all, infer_compare, infer_cast, infer_dropout, infer_where;
infer_fn infer_conv, infer_pool, infer_global_pool, infer_batch_norm, infer_layer_norm,
    infer_instance_norm, infer_gemm, infer_matmul, infer_reduce, infer_arg, infer_axis_only;
infer_fn infer_concat, infer_constant_of_shape, infer_expand, infer_flatten, infer_gather,
    infer_pad, infer_range, infer_reshape, infer_shape, infer_size, infer_slice, infer_split,
    infer_squeeze, infer_tile, infer_transpose, infer_trilu, infer_unsqueeze, infer_is_nan,
    infer_prelu, infer_flow;
infer_fn infer_attention, infer_dft, infer_group_norm, infer_loss, infer_lp_norm, infer_mel_weights,
    infer_multinomial, infer_mvn, infer_random, infer_random_like, infer_rms_norm, infer_rnn,
    infer_rotary_embedding, infer_stft, infer_window;
infer_fn infer_gather_elements, infer_gather_nd, infer_scatter_elements, infer_scatter_nd,
    infer_tensor_scatter, infer_one_hot, infer_eye_like, infer_compress, infer_non_zero,
    infer_unique, infer_top_k, infer_cum_sum, infer_depth_to_space, infer_space_to_depth,
    infer_reverse_sequence, infer_det, infer_einsum, infer_cast_like, infer_bit_cast;
infer_fn infer_quantize, infer_dequantize, infer_dynamic_quantize, infer_conv_integer,
    infer_matmul_integer, infer_qlinear_add, infer_qlinear_conv, infer_qlinear_matmul;
infer_fn infer_resize, infer_center_crop_pad, infer_affine_grid, infer_grid_sample;
infer_fn infer_conv_transpose, infer_deform_conv, infer_col2im, infer_max_unpool;
infer_fn infer_max_roi_pool, infer_roi_align, infer_non_max_suppression;
infer_fn infer_string_concat, infer_string_normalizer, infer_string_split, infer_tfidf,
    infer_regex_full_match;
