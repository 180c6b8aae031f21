/* All of an attention, found by fuse_attention.c, in one step. */
#include "exe.h"

static int mask_in(struct build *b, uint32_t v, enum dtype type, int32_t *ret_type, struct ref *ret)
{
    bool is_bool = v != VALUE_NONE && value_of(b, v)->dtype == DT_BOOL;

    *ret_type = (int32_t)(is_bool ? DT_BOOL : type);
    return is_bool ? build_in(b, v, ret) : build_as(b, v, type, false, ret);
}

int lower_attend(struct build *b, const struct attend *at)
{
    enum dtype type = half_type(b);
    struct attend_args a = at->args;
    struct ref q, k = {0}, v = {0}, mask = {0}, y = {0};
    int r = build_as(b, at->q, type, false, &q);

    if (r == 0)
        r = build_as(b, at->k, type, false, &k);
    if (r == 0)
        r = build_as(b, at->v, type, false, &v);
    if (r == 0)
        r = mask_in(b, at->mask, type, &a.mask_type, &mask);
    if (r == 0)
        r = build_out_as(b, at->y, type, false, &y);
    if (r < 0)
        return r;
    a.n = at->batch * a.heads * ((a.rows + ATTEND_EACH - 1) / ATTEND_EACH);
    a.type = (int32_t)type;
    b->exe->n_asked += 1 + b->fused[b->node].n;
    const struct hole holes[] = {HOLE(attend, q, q), HOLE(attend, k, k), HOLE(attend, v, v),
                                 HOLE(attend, mask, mask), HOLE(attend, y, y)};
    return build_blocks(b, a.width > 64 ? KERNEL_attend128 : KERNEL_attend64, &a, sizeof(a), a.n,
                        ATTEND_THREADS, ARRAY_SIZE(holes), holes);
}
