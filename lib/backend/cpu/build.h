/* An exe in the making: where each value is, which buffers live how long.  Builder thread. */
#pragma once

#include "cpu.h"

/* A value may be in memory twice: row-major, and as some primitive wants it. */
struct where {
    struct ref rows;
    struct ref native; /* REF_NONE: only row-major */
    const struct layout *layout;
    /* Channels that are to be joined and are not yet, because somebody may read them where they
     * are: the native forms of these values.  Then rows and native are REF_NONE. */
    uint32_t n_pieces;
    const uint32_t *piece;
    const uint32_t *pick; /* by channel: which one of the pieces'; NULL: all in order */
    bool passed;          /* never made: its only reader has been served */
    uint32_t uses;        /* readings still to come */
};

struct buf_state {
    uint32_t pending; /* readings still to come, of all values that lie in it */
    bool frozen;      /* a graph input: the request's memory, never written */
    bool output;      /* taken by a graph output */
};

struct build {
    struct part *part;
    const char *model;
    enum precision precision;
    const struct bound *bound;
    const struct graph *graph;
    struct exe *exe;
    struct arena scratch; /* dies with the build */
    struct where *value;
    struct buf_state *state;
    uint32_t cap_steps, cap_bufs, cap_weights;
    uint32_t node; /* being lowered */
    struct err *err;
};

/* All return 0 or a negative errno, with err filled. */
int build_buf(struct build *b, size_t bytes, uint32_t *ret);
/* The value as wanted; emits a reorder when it is not there in that form. */
int build_rows(struct build *b, uint32_t v, struct ref *ret);
int build_in(struct build *b, uint32_t v, const struct layout *want, struct ref *ret);
/* Say where a result is. */
void build_set_rows(struct build *b, uint32_t v, struct ref r);
int build_set(struct build *b, uint32_t v, struct ref r, const struct layout *layout);
/* A new buffer for a row-major result. */
int build_out(struct build *b, uint32_t v, struct ref *ret);
/* May the node being lowered overwrite the value's memory, read as its only, last reader? */
bool build_dies(const struct build *b, struct ref r);
/* A constant for the device: packed to the layout, or in place when it has it. */
int build_const(struct build *b, uint32_t v, const struct layout *from, const struct layout *to,
                struct ref *ret);
/* Append a step.  Takes the primitive, also on failure; adds the scratchpad argument. */
int build_prim(struct build *b, struct prim *p, uint32_t n, const struct arg *args);
int build_call(struct build *b, const struct cpu_call *c, uint32_t n, const struct ref *refs);
/* The node's readings are done. */
void build_node_done(struct build *b);
int build_fail(struct build *b, int code, const char *what);

static inline const struct tensor *build_tensor(const struct build *b, uint32_t v)
{
    return v == VALUE_NONE ? NULL : &b->bound->value[v];
}
static inline struct ref ref_buf(uint32_t buf)
{
    return (struct ref){.kind = REF_BUF, .buf = buf};
}
static inline struct ref ref_const(const void *data)
{
    return (struct ref){.kind = REF_CONST, .buf = BUF_NONE, .data = data};
}

/* ---- lower.c: -ENOTSUP without a message when own kernels should do the node */
int lower_conv(struct build *b, const struct node *n);
int lower_product(struct build *b, const struct node *n); /* MatMul, Gemm */
int lower_pool(struct build *b, const struct node *n);
/* ---- half.c: is the node computed in BF16; does anybody behind the node at hand read the value
 * in it? */
bool half_node(const struct build *b, const struct node *n);
bool half_wanted(const struct build *b, uint32_t v);
/* ---- lower_bytes.c: QLinearConv and QLinearMatMul; QLinearAdd */
int lower_bytes(struct build *b, const struct node *n);
int lower_bytes_add(struct build *b, const struct node *n);
/* ---- blocked.c: our kernels on blocked channels; -ENOTSUP likewise */
int lower_blocked(struct build *b, const struct node *n);
int lower_blocked_concat(struct build *b, const struct node *n);
int lower_blocked_norm(struct build *b, const struct node *n);
/* So many more readings of every piece are to come. */
void build_pieces_read(struct build *b, const struct where *w, int64_t more);
/* ---- shuffle.c; -ENOTSUP likewise */
int lower_shuffle(struct build *b, const struct node *n);      /* a Reshape */
int lower_picked_slice(struct build *b, const struct node *n); /* a Slice */
/* Channels [from, from + n) of what is in pieces become value v, blocked. */
int build_picked(struct build *b, const struct where *w, uint32_t from, uint32_t n, uint32_t v);
/* Join the pieces of a value, if it is in pieces. */
int build_joined(struct build *b, uint32_t v);
/* ---- late.c: what cannot be lowered, as one last step */
int lower_late(struct build *b);
/* ---- lower_rows.c: build_prim() for a convolution, of which a batch may become several steps */
int build_conv(struct build *b, const struct dn_conv *c, struct prim *p, uint32_t n,
               struct arg *args);
/* ---- lower_deconv.c */
int lower_deconv(struct build *b, const struct node *n);
/* ---- compile.c, for the above: post steps as steps of their own on a row-major result */
int build_posts(struct build *b, const struct node *n, uint32_t from, struct ref rows);
