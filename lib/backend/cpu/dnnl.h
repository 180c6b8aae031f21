/* What the CPU backend uses of oneDNN, behind a face that does not change with its API version.
 *
 * A layout says how a tensor lies in memory.  A prim is a primitive that was accepted, with the
 * layouts it wants.  Everything is created on the builder thread and read by executors. */
#pragma once

#include <gpulet/tensor.h>
#include <oneapi/dnnl/dnnl.h>

#define DN_MAX_RANK 6 /* of what oneDNN is asked to do: grouped weights of a 3-D convolution */

enum layout_kind {
    LAYOUT_STRIDED, /* element [i,j] at i*strides[0] + j*strides[1]; row-major is one of these */
    LAYOUT_NATIVE,  /* the library's: blocked channels, packed weights */
};

struct layout {
    enum layout_kind kind;
    enum dtype dtype;
    uint32_t rank;
    int64_t dims[MAX_RANK];
    int64_t strides[MAX_RANK]; /* LAYOUT_STRIDED */
    uint32_t channel_block;    /* made by layout_blocked(): the block; else 0 */
    size_t bytes;
    dnnl_memory_desc_t md;
};

/* Of FP32, until layout_as().  Row-major, and by strides; -EINVAL when the library refuses. */
int layout_rows(struct layout *ret, uint32_t rank, const int64_t *dims);
int layout_strided(struct layout *ret, uint32_t rank, const int64_t *dims, const int64_t *strides);
/* Channels (dimension 1) in blocks of dn_block(): nCw, nChw, nCdhw. */
int layout_blocked(struct layout *ret, uint32_t rank, const int64_t *dims);
/* Any layout: for asking what a primitive would like best. */
int layout_any(struct layout *ret, uint32_t rank, const int64_t *dims);
/* The first n of dimension 0, lying as all of them do: of blocked channels and the like the others
 * follow as often as there are. */
int layout_rows_of(struct layout *ret, const struct layout *all, int64_t n);
/* The same of another type: FP32, BF16, INT32, INT8 or UINT8. */
void layout_as(struct layout *l, enum dtype t);
/* A layout as a primitive reports it. */
void layout_of_md(struct layout *ret, const dnnl_memory_desc_t *md);
bool layout_same(const struct layout *a, const struct layout *b);
/* Is it, byte for byte, the row-major form of its type?  Blocked channels are when all else is 1.
 */
bool layout_is_rows(const struct layout *l);
/* Does it hold elements that belong to no index?  They must stay zero. */
bool layout_padded(const struct layout *l);
uint64_t layout_number(const struct layout *from, const struct layout *to); /* key of a packing */

struct dn { /* the library for one device */
    dnnl_engine_t engine;
    dnnl_stream_t stream; /* of the builder: packing */
    uint32_t block;       /* channels that lie together: 8 with AVX2, 16 with AVX-512 */
    bool winograd;
    bool bf16; /* products of BF16 have instructions of their own */
    bool vnni; /* sums of products of bytes are exact */
};
int dn_open(struct dn *ret, struct err *err);
void dn_close(struct dn *d);
/* The library keeps every primitive that was made, with its code, for whoever asks for the same
 * again; this lets go of those that nobody uses. */
void dn_forget(void);
/* Threads that primitives made and run by the calling thread use from now on. */
void dn_threads(unsigned n);
/* fn(ctx, 0..n-1) on the calling thread and its team, the one that the primitives use. */
void dn_team(unsigned n, void (*fn)(void *ctx, unsigned i), void *ctx);

enum dn_post_kind { DN_ELTWISE, DN_SUM, DN_ADD };
struct dn_post {
    enum dn_post_kind kind;
    int alg; /* DN_ELTWISE: the library's number, from dn_eltwise() */
    float alpha, beta;
    const struct layout *operand; /* DN_ADD */
};
#define DN_MAX_POST 8

/* Of what is computed in bytes: result = scale * (sum + bias) + dst_zero, rounded and held within
 * the type; zero points are taken off the source.  The bias is then INT32. */
struct dn_scaling {
    uint32_t n; /* 1, or one for each channel */
    const float *scale;
    int32_t src_zero, dst_zero;
};

struct prim {
    dnnl_primitive_t p;
    struct layout src, weights, dst;
    size_t scratch_bytes;
    dnnl_memory_desc_t scratch;
    char impl[48];
    bool reorder;
};
void prim_done(struct prim *p);

/* How a convolution is computed.  Winograd's forms exist for 3x3 at stride 1 with AVX-512 only:
 * on tiles of 2x2 results, which the library has for few pixels, or of 4x4. */
enum dn_conv_alg { DN_DIRECT, DN_WINO_2X3, DN_WINO_4X3 };
struct dn_conv {
    uint32_t spatial;                /* 1, 2 or 3 */
    struct layout src, dst, weights; /* may be layout_any() */
    int64_t stride[3], dilate[3], pad_lo[3], pad_hi[3];
    bool bias;
    enum dn_conv_alg alg;
    int64_t bias_dim;
    const struct dn_scaling *scaling; /* NULL: not of bytes */
    uint32_t n_post;
    struct dn_post post[DN_MAX_POST];
};
/* -ENOTSUP: nothing but the library's reference loops could do it. */
int dn_conv(struct dn *d, const struct dn_conv *c, struct prim *ret);

/* A transposed convolution: `weights` and `bias_dim` as of dn_conv, [O, I, ...]; no post steps. */
int dn_deconv(struct dn *d, const struct dn_conv *c, struct prim *ret);

struct dn_pool {
    bool max, count_pads;
    uint32_t spatial;
    struct layout src;
    int64_t dst_dims[MAX_RANK];
    int64_t kernel[3], stride[3], dilate[3], pad_lo[3], pad_hi[3];
};
int dn_pool(struct dn *d, const struct dn_pool *p, struct prim *ret);

struct dn_matmul {
    struct layout src, weights, dst;
    const struct layout *bias; /* NULL: none */
    const struct dn_scaling *scaling;
    uint32_t n_post;
    struct dn_post post[DN_MAX_POST];
};
int dn_matmul(struct dn *d, const struct dn_matmul *m, struct prim *ret);

int dn_reorder(struct dn *d, const struct layout *from, const struct layout *to, struct prim *ret);
/* Reorder once, on the builder: piece by piece where the layouts allow it.  done, which may be
 * NULL, is told what of the source has been read. */
int dn_pack(struct dn *d, const struct layout *from, const void *src, const struct layout *to,
            void *dst, void (*done)(const void *data, size_t bytes));
/* The library's number of an activation, and its parameters; -1 when it has none. */
enum dn_fn {
    DN_RELU,
    DN_CLIP,
    DN_GELU,
    DN_TANH,
    DN_SIGMOID,
    DN_HARDSWISH,
    DN_SILU,
    DN_GELU_TANH,
    DN_LINEAR
};
int dn_eltwise(enum dn_fn fn);
