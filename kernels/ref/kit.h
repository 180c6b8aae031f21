/* What the reference kernels share: numbers of any type, walking shapes, reading arguments.
 * Internal to kernels/ref. */
#pragma once

#include "ref.h"

/* ---- numbers: computed as double, int64 or uint64, stored in the tensor's own type */
enum kind { KIND_NONE, KIND_FLOAT, KIND_INT, KIND_UINT, KIND_BOOL };
union num {
    double f;   /* KIND_FLOAT */
    int64_t i;  /* KIND_INT */
    uint64_t u; /* KIND_UINT; KIND_BOOL: 0 or 1 */
};

/* KIND_NONE for DT_STRING and for what is no type of ours. */
enum kind ref_kind(enum dtype t);
union num num_get(const struct tensor *t, int64_t at);         /* t->data at any alignment */
void num_put(const struct tensor *t, int64_t at, union num v); /* rounds; integers wrap */
union num num_cast(union num v, enum kind from, enum kind to); /* to integer: truncates */

/* ---- memory of one call, zeroed; NULL without memory.  AUTO(ref_drop) gives it back. */
void *ref_scratch(size_t n, size_t each);
void ref_drop(void *p);
static inline __attribute__((unused)) void ref_drop_auto(void *p)
{
    ref_drop(*(void **)p);
}
/* All elements as doubles, in such memory. */
double *ref_doubles(const struct tensor *t);

/* ---- walking the elements of a shape, with an offset into up to three other tensors */
#define WALK_MAX 3
struct walk {
    uint32_t rank;
    int64_t n; /* elements in all */
    int64_t dims[MAX_RANK], at[MAX_RANK];
    int64_t stride[WALK_MAX][MAX_RANK]; /* in elements; 0 until set */
    int64_t off[WALK_MAX];
};
void walk_init(struct walk *w, const struct tensor *shape);
void walk_next(struct walk *w);
/* off[k] follows t, broadcast to the shape as ONNX says; -EINVAL when t does not fit into it. */
int walk_broadcast(struct walk *w, unsigned k, const struct tensor *t);
void dense_strides(const struct tensor *t, int64_t ret[MAX_RANK]);
int64_t ref_count(const struct tensor *t);
/* Product of the dimensions [from, to). */
int64_t ref_span(const struct tensor *t, uint32_t from, uint32_t to);

/* ---- arguments */
/* A negative axis counts from the end; -EINVAL unless 0 <= axis < limit. */
int ref_axis(const struct node *n, int64_t axis, uint32_t limit, uint32_t *ret, struct err *err);
/* Integers of input `i` where the operator has it there, else of the attribute; *ret_n at most
 * max (-EINVAL beyond).  *ret_given: whether there is either. */
int ref_ints(const struct node *n, const struct tensor *const *in, uint32_t i, const char *attr,
             int64_t *ret, uint32_t max, uint32_t *ret_n, bool *ret_given, struct err *err);
static inline const struct tensor *ref_in(const struct node *n, const struct tensor *const *in,
                                          uint32_t i)
{
    return i < n->n_in ? in[i] : NULL;
}
static inline struct tensor *ref_out(const struct node *n, struct tensor *const *out, uint32_t i)
{
    return i < n->n_out ? out[i] : NULL;
}
/* A message that starts with node and operator. */
int ref_fail(const struct node *n, struct err *err, int code, const char *what);
int ref_no_type(const struct node *n, enum dtype t, struct err *err); /* -ENOTSUP */
/* -ENOTSUP unless all are floating-point types; NULLs are skipped. */
int ref_floats(const struct node *n, const struct tensor *const *t, uint32_t n_t, struct err *err);
/* The one number of an INT64 or INT32 tensor; -EINVAL when it is anything else. */
int ref_integer(const struct node *n, const struct tensor *t, int64_t *ret, struct err *err);
/* -EINVAL unless t is NULL or has this shape. */
int ref_shaped(const struct node *n, const struct tensor *t, uint32_t rank, const int64_t *dims,
               struct err *err);
/* memcpy() that takes NULL for no bytes. */
void ref_copy(void *to, const void *from, size_t bytes);
/* to[at...] = from[from_at...], n elements of to's size. */
void ref_put(const struct tensor *to, int64_t at, const struct tensor *from, int64_t from_at,
             int64_t n);

/* ---- strings */
/* All strings of t into ret, one for each element; -EINVAL when they do not fill it exactly. */
int ref_texts(const struct node *n, const struct tensor *t, struct str *ret, struct err *err);
struct text_writer {
    char *p;
    size_t used, room;
};
/* One string made of some parts; -EOVERFLOW without room for it. */
int text_put(struct text_writer *w, const struct str *parts, size_t n_parts);
/* The message for what text_put() returned. */
int ref_texts_fit(const struct node *n, int r, struct err *err);
bool ref_takes_strings(enum op_id op);
/* Runs fn on numbers that stand for strings, if the operator only moves or compares them. */
bool ref_by_number(enum op_id op);
int ref_run_by_number(ref_fn fn, const struct node *n, const struct tensor *const *in,
                      struct tensor *const *out, struct err *err);

/* ---- windows: the geometry of convolution and pooling, one to three spatial dimensions.
 * Always three here; missing ones come first and are 1. */
#define WINDOW_DIMS 3
struct window {
    uint32_t n_dims; /* as the model has them */
    int64_t in[WINDOW_DIMS], out[WINDOW_DIMS], kernel[WINDOW_DIMS], stride[WINDOW_DIMS],
        dilation[WINDOW_DIMS], pad_begin[WINDOW_DIMS], pad_end[WINDOW_DIMS];
};
/* kernel: n_dims numbers.  x and y are [N, C, spatial...]. */
int window_init(struct window *w, const struct node *n, const struct tensor *x,
                const struct tensor *y, const int64_t *kernel, struct err *err);
static inline int64_t window_count(const int64_t d[WINDOW_DIMS])
{
    return d[0] * d[1] * d[2];
}
/* Split a linear index into three. */
static inline void window_split(int64_t at, const int64_t d[WINDOW_DIMS], int64_t ret[WINDOW_DIMS])
{
    ret[2] = at % d[2];
    ret[1] = at / d[2] % d[1];
    ret[0] = at / d[2] / d[1];
}
/* Where kernel position k of output o reads: *ret is the linear index in the input, or -1 in the
 * padding; *ret_inside (may be NULL) also counts the padding but not what ceil_mode adds. */
int64_t window_read(const struct window *w, const int64_t o[WINDOW_DIMS],
                    const int64_t k[WINDOW_DIMS], bool *ret_inside);

/* ---- products of stacks of matrices; vectors are matrices of one row or column */
struct product {
    int64_t rows, inner, cols;
    struct walk w; /* over the matrices of y: off[0] in a, off[1] in b, in matrices */
};
/* -EINVAL when the shapes do not go together. */
int product_init(struct product *p, const struct tensor *a, const struct tensor *b,
                 const struct tensor *y);

/* ---- the kernels */
#define REF_FN(name)                                                                               \
    int name(const struct node *n, const struct tensor *const *in, struct tensor *const *out,      \
             struct err *err)
REF_FN(ref_unary);
REF_FN(ref_binary);
REF_FN(ref_variadic);
REF_FN(ref_clip);
REF_FN(ref_dropout);
REF_FN(ref_shape);
REF_FN(ref_size);
REF_FN(ref_same_bytes);
REF_FN(ref_expand);
REF_FN(ref_tile);
REF_FN(ref_range);
REF_FN(ref_constant);
REF_FN(ref_constant_of_shape);
REF_FN(ref_transpose);
REF_FN(ref_concat);
REF_FN(ref_split);
REF_FN(ref_slice);
REF_FN(ref_gather);
REF_FN(ref_pad);
REF_FN(ref_where);
REF_FN(ref_trilu);
REF_FN(ref_cast);
REF_FN(ref_bit_cast);
REF_FN(ref_reduce);
REF_FN(ref_arg);
REF_FN(ref_conv);
REF_FN(ref_max_pool);
REF_FN(ref_average_pool);
REF_FN(ref_global_pool);
REF_FN(ref_gemm);
REF_FN(ref_matmul);
REF_FN(ref_batch_norm);
REF_FN(ref_layer_norm);
REF_FN(ref_instance_norm);
REF_FN(ref_lrn);
REF_FN(ref_softmax);
REF_FN(ref_attention);
REF_FN(ref_bernoulli);
REF_FN(ref_dft);
REF_FN(ref_group_norm);
REF_FN(ref_lp_norm);
REF_FN(ref_mel_weights);
REF_FN(ref_multinomial);
REF_FN(ref_mvn);
REF_FN(ref_nll_loss);
REF_FN(ref_random);
REF_FN(ref_rms_norm);
REF_FN(ref_rnn);
REF_FN(ref_rotary_embedding);
REF_FN(ref_softmax_loss);
REF_FN(ref_stft);
REF_FN(ref_window);
REF_FN(ref_function);
REF_FN(ref_gather_elements);
REF_FN(ref_gather_nd);
REF_FN(ref_scatter_elements);
REF_FN(ref_scatter_nd);
REF_FN(ref_tensor_scatter);
REF_FN(ref_one_hot);
REF_FN(ref_eye_like);
REF_FN(ref_compress);
REF_FN(ref_non_zero);
REF_FN(ref_unique);
REF_FN(ref_top_k);
REF_FN(ref_depth_to_space);
REF_FN(ref_space_to_depth);
REF_FN(ref_reverse_sequence);
REF_FN(ref_cumulate);
REF_FN(ref_hardmax);
REF_FN(ref_einsum);
REF_FN(ref_det);
REF_FN(ref_quantize);
REF_FN(ref_dequantize);
REF_FN(ref_dynamic_quantize);
REF_FN(ref_conv_integer);
REF_FN(ref_matmul_integer);
REF_FN(ref_qlinear_add);
REF_FN(ref_qlinear_conv);
REF_FN(ref_qlinear_matmul);
REF_FN(ref_resize);
REF_FN(ref_center_crop_pad);
REF_FN(ref_affine_grid);
REF_FN(ref_grid_sample);
REF_FN(ref_conv_transpose);
REF_FN(ref_deform_conv);
REF_FN(ref_col2im);
REF_FN(ref_max_unpool);
REF_FN(ref_lp_pool);
REF_FN(ref_max_roi_pool);
REF_FN(ref_roi_align);
REF_FN(ref_non_max_suppression);
REF_FN(ref_cast_text);
REF_FN(ref_regex_full_match);
REF_FN(ref_string_concat);
REF_FN(ref_string_normalizer);
REF_FN(ref_string_split);
REF_FN(ref_tfidf);
