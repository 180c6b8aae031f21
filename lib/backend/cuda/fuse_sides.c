/* Queries, keys and values that are products of one value by constant matrices, as exporters write
 * them, are one product by the matrices side by side: the attention reads each where it lies, as it
 * does the parts of a Split.  So are two of the three, as where keys and values come from another
 * network.
 *
 * Whether the library does it is known when the first of them is lowered (lower_sides.c), so what
 * it would be is noted beside what it is. */
#include "fuse.h"

#define WAY_MOST 4 /* nodes between such a product and what the attention sees of it */

_Static_assert(SIDES_MOST *(1 + WAY_MOST) == SIDES_GONE, "products, and what is behind them");

struct side {
    uint32_t node; /* the product, or NODE_NONE */
    uint32_t n_way, way[WAY_MOST];
    uint32_t x;
    int64_t cols;
    bool turned;
    float alpha, scale; /* scale: of what is on the way */
};

/* Nothing, or a constant number for each column. */
static bool has_bias(const struct build *b, const struct node *n, int64_t cols)
{
    uint32_t v = n->n_in > 2 ? n->in[2] : VALUE_NONE;
    const struct constant *c = v == VALUE_NONE ? NULL : b->graph->values[v].constant;

    return v == VALUE_NONE || (c && c->t.rank > 0 && c->t.dims[c->t.rank - 1] == cols &&
                               count_of(&c->t) == cols && node_float(n, "beta", 1) == 1);
}

static bool is_side(const struct build *b, const struct node *n, struct side *ret)
{
    bool gemm = n->op == OP_Gemm;
    const struct constant *w =
        gemm || n->op == OP_MatMul ? b->graph->values[n->in[1]].constant : NULL;

    if (!w || w->t.rank != 2 || in_of(b, n, 0)->rank < 2 || n->n_post > 0 ||
        (gemm && node_int(n, "transA", 0)) || half_for(b, n) == DT_FP32 ||
        !half_wanted(b, n->out[0]))
        return false;
    ret->x = n->in[0];
    ret->turned = gemm && node_int(n, "transB", 0);
    ret->alpha = gemm ? node_float(n, "alpha", 1) : 1;
    ret->cols = w->t.dims[ret->turned ? 0 : 1];
    return has_bias(b, n, ret->cols);
}

/* Where t lies in a matrix of `all` columns, of which it has `cols`: a row of those is whole
 * dimensions. */
static bool strides_in(const struct tensor *t, int64_t cols, int64_t all, int64_t ret[MAX_RANK])
{
    int64_t n = 1;
    bool whole = false;

    for (uint32_t i = t->rank; i-- > 0;) {
        ret[i] = n;
        n *= t->dims[i];
        if (!whole && n == cols) {
            whole = true;
            n = all;
        }
    }
    return whole;
}

/* From what the attention sees to the product, through what nobody else reads. */
static void find(const struct build *b, const struct readers *r, const struct view *w,
                 struct side *ret)
{
    int64_t own[MAX_RANK];
    uint32_t v = w->v, id, x;
    float scale;

    *ret = (struct side){.node = NODE_NONE, .scale = 1};
    for (const struct node *n; r[v].n == 1 && (n = fuse_maker(b, v, &id));) {
        if (is_side(b, n, ret)) {
            ret->node = strides_in(value_of(b, w->v), ret->cols, ret->cols, own) ? id : NODE_NONE;
            return;
        }
        if (ret->n_way == WAY_MOST)
            return;
        if (n->op == OP_Reshape && n->n_post == 0)
            v = n->in[0];
        else if (fuse_is_scaled(b, n, &x, &scale)) {
            v = x;
            ret->scale *= scale;
        } else
            return;
        ret->way[ret->n_way++] = id;
    }
}

static bool alike(const struct side *a, const struct side *c)
{
    return a->node != NODE_NONE && c->node != NODE_NONE && a->x == c->x && a->turned == c->turned &&
           a->alpha == c->alpha;
}

/* ---- what becomes of them */
static void take_side(struct sides *s, const struct side *side)
{
    s->node[s->n++] = side->node;
    s->first = MIN(s->first, side->node);
    s->cols += side->cols;
    s->turned = side->turned;
    s->gone[s->n_gone++] = side->node;
    for (uint32_t i = 0; i < side->n_way; i++)
        s->gone[s->n_gone++] = side->way[i];
}

/* What the attention reads: operand i of it, from column `from` on. */
static bool place_side(const struct build *b, struct sides *s, const struct side *side,
                       const struct view *of, uint32_t i, int64_t from)
{
    struct attend_args *a = &s->together.args;
    uint32_t *const value[] = {&s->together.q, &s->together.k, &s->together.v};
    int64_t *const begin[] = {&a->from_q, &a->from_k, &a->from_v}, own[MAX_RANK];
    struct gpu_heads *const heads[] = {&a->of_q, &a->of_k, &a->of_v};
    struct view w = *of;
    bool turned = i == 1; /* of k, columns are what is summed over */

    (void)strides_in(value_of(b, w.v), side->cols, s->cols, own);
    for (uint32_t d = 0; d < 4; d++)
        w.stride[d] = own[w.at[d]];
    w.from = from;
    *value[i] = b->graph->nodes[s->first].out[0];
    *begin[i] = from;
    a->scale *= side->scale;
    return fuse_heads(&w, turned ? 3 : 2, turned ? 2 : 3, heads[i]);
}

int fuse_sides(struct build *b, const struct readers *r, const struct view *const of[SIDES_MOST],
               struct attend *at)
{
    struct sides s = {.first = NODE_NONE, .attend = at, .together = *at};
    struct side side[SIDES_MOST];
    int64_t from = 0;
    bool fit = true;

    if (!b->part->blas)
        return 0;
    for (uint32_t i = 0; i < SIDES_MOST; i++)
        find(b, r, of[i], &side[i]);
    if (side[2].scale != 1)
        side[2].node = NODE_NONE; /* a factor of the values is not the attention's */
    const struct side *lead = &side[alike(&side[0], &side[1]) || alike(&side[0], &side[2]) ? 0 : 1];
    for (uint32_t i = 0; i < SIDES_MOST; i++)
        if (alike(lead, &side[i]))
            take_side(&s, &side[i]);
    if (s.n < 2)
        return 0;
    for (uint32_t i = 0; i < SIDES_MOST; i++)
        if (alike(lead, &side[i])) {
            fit &= place_side(b, &s, &side[i], of[i], i, from);
            from += side[i].cols;
        }
    if (!fit)
        return 0;
    b->fused[s.first].sides = arena_memdup(&b->scratch, &s, sizeof(s));
    return b->fused[s.first].sides ? 0 : err_set(b->err, -ENOMEM, "out of memory");
}
