/* What the finders of fusions share. */
#pragma once

#include "exe.h"

/* Who reads a value: so many, and the first in the order of execution. */
struct readers {
    uint32_t n, first;
};

/* The node that makes v on the device, while the model runs, as a step of its own; or NULL. */
const struct node *fuse_maker(const struct build *b, uint32_t v, uint32_t *ret_id);
/* x times, or divided by, a number that is known. */
bool fuse_is_scaled(const struct build *b, const struct node *n, uint32_t *ret_x, float *ret_scale);
/* Node id is done by another, which has `into`. */
void fuse_take(struct build *b, struct fused *into, uint32_t id);

/* ---- fuse_attention.c */

/* An operand of an attention, without what only it comes through. */
#define VIEW_MOST 4 /* nodes that one operand comes through */
struct view {
    uint32_t v, n_gone, gone[VIEW_MOST + 1];
    uint32_t split; /* v is what this node splits, or NODE_NONE */
    int64_t from, stride[MAX_RANK];
    uint32_t at[MAX_RANK]; /* dimension i of the operand is this one of v */
    float scale;
};
/* What node id, a product, ends.  -ENOMEM. */
int fuse_attention(struct build *b, const struct readers *r, uint32_t id);
/* Vectors of 8 can be read wherever a row begins. */
bool fuse_heads(const struct view *w, uint32_t row, uint32_t inner, struct gpu_heads *ret);

/* fuse_pixels.c: what node id, a Cast, is a part of.  -ENOMEM. */
int fuse_pixels(struct build *b, const struct readers *r, uint32_t id);

/* fuse_sides.c: which of q, k and v are products of the same value.  -ENOMEM. */
int fuse_sides(struct build *b, const struct readers *r, const struct view *const of[SIDES_MOST],
               struct attend *at);
