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

/* fuse_attention.c: what node id, a product, ends.  -ENOMEM. */
int fuse_attention(struct build *b, const struct readers *r, uint32_t id);
