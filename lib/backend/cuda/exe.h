/* From a bound graph to launches.
 *
 * An exe is a list of steps: a kernel, its arguments, and which of its pointers are filled in when
 * a slot is opened.  A slot is one piece of device memory for the exe's buffers, and the arguments
 * with addresses. */
#pragma once

#include "gpu.h"

#include <gpulet/model.h>

enum ref_kind { REF_NONE, REF_BUF, REF_CONST };
struct ref {
    enum ref_kind kind;
    uint32_t buf;   /* REF_BUF */
    CUdeviceptr at; /* REF_CONST */
};
struct hole { /* a pointer among a kernel's arguments */
    size_t offset;
    struct ref ref;
};
/* What a library does in a step, instead of a kernel; args: its device pointers, filled in as a
 * kernel's are.  The partition's context is current. */
struct call {
    const struct node *node;
    bool by_line; /* run() uses a handle of the stream's line */
    /* What a slot needs for it, if anything. */
    int (*open)(const struct call *c, const void *args, void **ret_state, struct err *err);
    void (*close)(void *state);
    int (*run)(const struct call *c, struct part *p, CUstream stream, const void *args, void *state,
               struct err *err);
    void (*free)(struct call *c);
};
struct step {
    enum gpu_kernel kernel;
    struct call *call;        /* or NULL: the kernel */
    unsigned blocks, threads; /* of a block */
    uint32_t bytes, n_holes;  /* of args */
    const void *args;
    const struct hole *hole;
};

/* Where a request's rows meet the device. */
struct port {
    struct ref ref;
    size_t bytes;     /* whole tensor */
    size_t row_bytes; /* 0: the tensor has no batch dimension */
    size_t staged;    /* of an exe with a late part: where the host gets it, in the slot's memory */
};

struct exe {
    struct part *part;
    struct arena arena; /* everything below */
    uint32_t batch, n_steps, n_bufs, n_in, n_out, n_segments, n_weights;
    uint32_t n_asked, n_reorders;
    uint32_t n_plain; /* products and convolutions by our own kernels */
    struct step *step;
    struct buffer *buf;
    uint32_t *first_step; /* [n_segments + 1] */
    struct port in[MAX_IO], out[MAX_IO];
    struct weights **weights;
    struct late late;     /* bound NULL: there is none */
    struct port *late_in; /* by late.in; REF_NONE: the host knows it */
    size_t staged_bytes;
    size_t slot_bytes, weights_bytes, args_bytes;
    char note[160];     /* why a slot of it is slower than it could be, */
    char held_up[160];  /* and why runs waited while it was compiled; "" */
    unsigned n_graphed; /* builder: slots of it with graphs */
    bool unraced;       /* what could have been measured was not, as it was no time for that */
};
#define BUF_STATUS                                                                                 \
    0 /* of each exe: an int32_t that a kernel sets when an index is out of range                  \
       */
#define STATUS_BYTES 256

/* ---- fuse.c: what in front of a node is done in its step */
struct fused {
    bool gone;       /* it is itself done by one behind it */
    uint32_t n;      /* so many are done with it */
    uint32_t x, add; /* it reads x * scale + add for its first input; add may be VALUE_NONE */
    uint32_t sum;    /* that input, where others read it too; else VALUE_NONE */
    float scale;
    struct attend *attend; /* a product that ends an attention: all of it; or NULL */
    struct sides *sides;   /* the first of products that may be one; or NULL */
    struct pixels *pixels; /* what ends the way of an image's bytes: all of it; or NULL */
};
/* q, k, v, mask, y: values, mask may be VALUE_NONE. */
struct attend {
    uint32_t q, k, v, mask, y;
    int64_t batch;
    struct attend_args args; /* but for n, the types and the addresses */
};
/* Products of one value by constant matrices that an attention reads, which may be one product by
 * the matrices side by side. */
#define SIDES_MOST 3
#define SIDES_GONE 15
struct sides {
    uint32_t n, node[SIDES_MOST]; /* the products, by columns */
    uint32_t first;               /* to run: it is lowered as all, its result is the name of all */
    uint32_t n_gone, gone[SIDES_GONE];
    int64_t cols;           /* of all */
    bool turned;            /* the matrices have a row for each column */
    struct attend *attend;  /* it is this, while they are apart, */
    struct attend together; /* and else this, with all that is in `gone` done */
};
/* x * scale[c] + shift[c] of the bytes x, by channel, in another order of dimensions.  Those of 1
 * are left out. */
#define CHANNEL_NONE MAX_RANK
struct pixels {
    uint32_t x, rank, channel; /* channel: a dimension of x, or CHANNEL_NONE: one number for all */
    uint32_t order[MAX_RANK];  /* dimension i of the result is this one of x */
    int64_t dims[MAX_RANK];    /* of x */
    float scale[PIXEL_CHANNELS], shift[PIXEL_CHANNELS];
};
struct build;
/* How the kernel makes y, with channels last or row-major: all of *ret but the numbers and what a
 * thread does.  False: it cannot.  (fuse_pixels.c) */
bool pixels_turn(const struct pixels *p, const struct tensor *y, bool last,
                 struct pixels_args *ret);
/* Once, before lowering: b->fused. */
int fuse_plan(struct build *b);

/* ---- contest.c: what measuring keeps between two nodes */
struct trials {
    CUdeviceptr memory; /* 0: none */
    size_t bytes;
    CUevent from, to;            /* NULL: none yet */
    uint64_t since_ns, spent_ns; /* of the one under way; all before it */
    usec_t since_us;             /* of the exe's first one */
};

/* ---- build.c: what compile() keeps meanwhile */
struct build {
    struct part *part;
    const struct bound *bound;
    const struct graph *graph;
    struct exe *exe;
    struct err *err;
    struct arena scratch;
    struct ref *at;      /* by value id */
    struct ref *half[2]; /* the same in 16 bits: row-major, and with channels last */
    enum fit {
        FIT_UNKNOWN,
        FIT_YES,
        FIT_NO,
    } *
        fits;    /* by value id: half_fits() */
    bool *wants; /* by value id: a node that computes in 16 bits comes behind it */
    enum precision precision;
    struct fused *fused; /* by node id */
    uint32_t node;       /* being lowered */
    enum dtype store;    /* what it keeps FP32 values in: DT_FP32, or what half_type() says */
    bool last;           /* and those of `rank` dimensions with channels last */
    uint32_t rank;
    uint32_t n_fused;     /* of its post steps: done already */
    bool batch_invariant; /* our own kernels only: they know nothing of the batch */
    struct trials trials;
    uint32_t cap_steps, cap_bufs, cap_weights;
};
/* Where value v is; a known one is uploaded. */
int build_in(struct build *b, uint32_t v, struct ref *ret);
/* A buffer for value v. */
int build_out(struct build *b, uint32_t v, struct ref *ret);
int build_buf(struct build *b, size_t bytes, struct ref *ret);
/* Bytes in device memory, which the exe holds. */
int build_upload(struct build *b, const void *data, size_t bytes, struct hash128 hash,
                 struct ref *ret);
/* The same of what the device has already: it need not be made then. */
bool build_has(struct build *b, size_t bytes, struct hash128 hash, struct ref *ret);
/* A constant of so many zeros. */
int build_zeros(struct build *b, size_t bytes, struct ref *ret);
/* A launch over n elements; none if n is 0. */
int build_step(struct build *b, enum gpu_kernel k, const void *args, size_t bytes, int64_t n,
               uint32_t n_holes, const struct hole *holes);
/* So many blocks, if the grid can be as large: a kernel goes on where it ends. */
int build_blocks(struct build *b, enum gpu_kernel k, const void *args, size_t bytes, int64_t blocks,
                 unsigned threads, uint32_t n_holes, const struct hole *holes);
/* A warp for each of n rows, or a block where that has more than ROW_WARP numbers. */
int build_rows(struct build *b, enum gpu_kernel warp, enum gpu_kernel block, const void *args,
               size_t bytes, int64_t n, int64_t count, uint32_t n_holes, const struct hole *holes);
#define HOLE(kernel, member, r) ((struct hole){offsetof(struct kernel##_args, member), r})
#define STEP(b, kernel, args, ...)                                                                 \
    build_step(b, KERNEL_##kernel, &(args), sizeof(args), (args).n,                                \
               ARRAY_SIZE(((struct hole[]){__VA_ARGS__})), (struct hole[]){__VA_ARGS__})
#define ROWS_STEP(b, kernel, args, ...)                                                            \
    build_rows(b, KERNEL_##kernel##_warp, KERNEL_##kernel##_block, &(args), sizeof(args),          \
               (args).n, (args).count, ARRAY_SIZE(((struct hole[]){__VA_ARGS__})),                 \
               (struct hole[]){__VA_ARGS__})
/* The same by a library; the exe's from then on. */
int build_call(struct build *b, struct call *c, const void *args, size_t bytes, uint32_t n_holes,
               const struct hole *holes);
#define CALL_STEP(b, call, args, ...)                                                              \
    build_call(b, call, &(args), sizeof(args), ARRAY_SIZE(((struct hole[]){__VA_ARGS__})),         \
               (struct hole[]){__VA_ARGS__})
/* Node and operator in front of what is in b->err. */
int build_wrap(struct build *b);
/* A message that begins with node and operator. */
int build_fail(struct build *b, int code, const char *what);
int build_no_type(struct build *b, enum dtype t);
static inline const struct tensor *value_of(const struct build *b, uint32_t v)
{
    return v == VALUE_NONE ? NULL : &b->bound->value[v];
}
static inline const struct tensor *in_of(const struct build *b, const struct node *n, uint32_t i)
{
    return i < n->n_in ? value_of(b, n->in[i]) : NULL;
}
/* Input i where there is one, else REF_NONE. */
int build_optional(struct build *b, const struct node *n, uint32_t i, struct ref *ret);
/* Numbers that lowering made itself, copied to the device. */
int build_const(struct build *b, const void *data, size_t bytes, struct ref *ret);
/* The first inputs, of which any may be missing. */
int build_inputs(struct build *b, const struct node *n, uint32_t count, struct ref *ret);
int64_t count_of(const struct tensor *t);
/* So many numbers of 16 bits may be read at once where rows of n lie behind each other. */
int32_t vector_of(int64_t n);
int64_t span(const struct tensor *t, uint32_t from, uint32_t to);
void strides_of(const struct tensor *t, int64_t ret[MAX_RANK]);
/* t as read by y's elements: stride 0 where it is broadcast. */
void strides_broadcast(const struct tensor *t, const struct tensor *y, int64_t ret[MAX_RANK]);
/* The same with t's own strides given. */
void broadcast(const struct tensor *t, const int64_t own[MAX_RANK], const struct tensor *y,
               int64_t ret[MAX_RANK]);
/* Dimensions of 1 vanish, those that can be walked as one are merged. */
void walk_make(struct gpu_walk *w, uint32_t rank, const int64_t *dims, uint32_t n_operands,
               int64_t (*stride)[MAX_RANK]);
/* Integers of input i, which must be known, or of the attribute; *ret_n 0 when there is neither. */
int build_ints(struct build *b, const struct node *n, uint32_t i, const char *attr,
               int64_t ret[MAX_RANK * 2], uint32_t *ret_n);
int build_axis(struct build *b, int64_t axis, uint32_t limit, uint32_t *ret);
bool is_f32(const struct tensor *t);

/* ---- lower_late.c: what the host does at the end of a run */
/* Refuses by name what it should not do. */
int late_check(struct build *b);
int lower_late(struct build *b);
static inline bool is_late_output(const struct exe *x, uint32_t i)
{
    const struct bound *b = x->late.bound;

    return b && b->late_value[b->graph->out[i]];
}

/* ---- half.c */
/* Can this be compiled for the partition? */
int half_check(const struct part *p, const struct compile_args *args, struct err *err);
/* FP32, or what the precision asked for stores. */
enum dtype half_type(const struct build *b);
/* The type in which a convolution or product should have its operands. */
enum dtype half_for(const struct build *b, const struct node *n);
/* It stays finite in what the precision stores. */
bool half_fits(const struct build *b, uint32_t v);
/* v is read by nothing but convolutions and products that should have it in 16 bits; *ret_last:
 * with channels last. */
bool half_alone(const struct build *b, uint32_t v, bool *ret_last);
/* Once, before lowering: b->wants. */
int half_plan(struct build *b);
/* v goes on to a node that computes in 16 bits. */
bool half_wanted(const struct build *b, uint32_t v);
/* Sets b->store and b->last for the node that is lowered next. */
void half_begin(struct build *b, const struct node *n);

/* ---- store.c */
/* Is v there in 16 bits, in this layout? */
bool half_is(const struct build *b, uint32_t v, bool last);
/* The value in this type, converted if it is not there yet; VALUE_NONE: nowhere.  last: channels
 * last, which FP32 never has. */
int build_as(struct build *b, uint32_t v, enum dtype type, bool last, struct ref *ret);
int build_out_as(struct build *b, uint32_t v, enum dtype type, bool last, struct ref *ret);
/* Constant filters (channels, 1, kernel) as (kernel, channels) in 16 bits. */
int build_filters(struct build *b, uint32_t v, struct ref *ret);
/* So many rows, in each as many numbers of one constant, of the next, ..., in 16 bits. */
struct beside {
    const struct constant *c; /* NULL: zeros */
    int64_t each;             /* of a row */
};
int build_beside(struct build *b, int64_t rows, uint32_t n, const struct beside *part,
                 struct ref *ret);
/* From 16 bits to FP32. */
int half_back(struct build *b, uint32_t v, struct ref *ret);
void half_forget(struct build *b, uint32_t v);
/* Goes on with v as it is there: sets b->store and b->last. */
void half_stay(struct build *b, uint32_t v);
/* `as` becomes another name for v. */
int build_same(struct build *b, uint32_t v, uint32_t as);
/* As build_in() and build_out(), but what is FP32 as the node at hand stores it. */
int data_in(struct build *b, uint32_t v, struct ref *ret);
int data_out(struct build *b, uint32_t v, struct ref *ret);
/* The same in any layout, whose strides it tells. */
int data_any(struct build *b, uint32_t v, struct ref *ret, int64_t stride[MAX_RANK]);
/* What is there is the row-major result v. */
void data_name(struct build *b, uint32_t v, struct ref is);
enum dtype data_type(const struct build *b, const struct tensor *t);
/* The bytes of x in that type, lowest first. */
void data_bits(const struct build *b, float x, uint64_t *ret);
void data_strides(const struct build *b, const struct tensor *t, int64_t ret[MAX_RANK]);
void data_broadcast(const struct build *b, const struct tensor *t, const struct tensor *y,
                    int64_t ret[MAX_RANK]);
void data_walk(const struct build *b, struct gpu_walk *w, uint32_t rank, const int64_t *dims,
               uint32_t n_operands, int64_t (*stride)[MAX_RANK]);

/* ---- lower_*.c: one node becomes steps.  -ENOTSUP names node and operator. */
typedef int lower_fn(struct build *b, const struct node *n);
lower_fn lower_unary, lower_binary, lower_many, lower_clip, lower_where, lower_cast;
lower_fn lower_alias, lower_transpose, lower_slice, lower_expand, lower_tile, lower_concat,
    lower_split, lower_pad, lower_gather, lower_shuffle, lower_fill;
lower_fn lower_reduce, lower_arg, lower_softmax, lower_layer_norm, lower_instance_norm,
    lower_group_norm, lower_batch_norm;
lower_fn lower_gather_elements, lower_gather_nd, lower_scatter_elements, lower_scatter_nd,
    lower_tensor_scatter, lower_one_hot, lower_eye, lower_trilu, lower_reverse_sequence,
    lower_top_k;
lower_fn lower_cumulate, lower_hardmax, lower_lp_norm, lower_lrn, lower_mvn, lower_classify,
    lower_bits;
lower_fn lower_quantize, lower_dynamic_quantize, lower_conv_bytes, lower_product_bytes,
    lower_add_bytes;
lower_fn lower_rnn;
lower_fn lower_resize, lower_grid_sample, lower_roi_align, lower_deconv;
lower_fn lower_einsum, lower_attention, lower_rotary;
lower_fn lower_conv, lower_pool, lower_global_pool, lower_matmul, lower_gemm;
/* kernel: a number for each spatial dimension of x. */
int window_of(struct build *b, const struct node *n, const struct tensor *x, const struct tensor *y,
              const int64_t *kernel, struct gpu_window *w);
/* Pad in another mode than constant; begin: what comes before each dimension. */
int lower_pad_mode(struct build *b, const struct node *n, const int64_t begin[MAX_RANK]);
/* The post steps of the node, in place. */
int lower_posts(struct build *b, const struct node *n);
enum gpu_unary post_unary(const struct post *p);
/* One that activate() of the kernels knows. */
bool post_is_short(const struct post *p);

/* ---- lower_pixels.c */
lower_fn lower_pixels;

/* ---- lower_attend.c */
int lower_attend(struct build *b, const struct attend *at);

/* ---- lower_sides.c */
/* Node n, which computes a, is the first of products that may be one; *ret_taken: they are, else
 * each is for itself. */
int lower_sides(struct build *b, const struct node *n, struct product_args a, bool *ret_taken);

/* ---- lower_depthwise.c */
/* A convolution whose channels have a filter each: our own kernel does it in 16 bits.  The one
 * place where it is preferred to cuDNN. */
bool depthwise_is(const struct build *b, const struct node *n, const struct conv_args *a);
int lower_depthwise(struct build *b, const struct node *n, const struct conv_args *a,
                    enum dtype type);
