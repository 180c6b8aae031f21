/* Products of one value by constant matrices, found by fuse_sides.c, as one by the matrices side by
 * side.  These are made here, go to the device and are forgotten; what the model has stays as it
 * is. */
#include "nvlib.h"

static int matrices(struct build *b, const struct sides *s, int64_t inner, struct ref *ret)
{
    struct beside part[SIDES_MOST];

    for (uint32_t i = 0; i < s->n; i++) {
        const struct constant *w = b->graph->values[b->graph->nodes[s->node[i]].in[1]].constant;
        part[i] = (struct beside){w, s->turned ? count_of(&w->t) : w->t.dims[1]};
    }
    return build_beside(b, s->turned ? 1 : inner, s->n, part, ret);
}

/* Zeros for a product that has none, where another has. */
static int biases(struct build *b, const struct sides *s, struct ref *ret)
{
    struct beside part[SIDES_MOST];
    bool any = false;

    for (uint32_t i = 0; i < s->n; i++) {
        const struct node *n = &b->graph->nodes[s->node[i]];
        bool has = n->n_in > 2 && n->in[2] != VALUE_NONE;
        part[i].c = has ? b->graph->values[n->in[2]].constant : NULL;
        part[i].each = b->graph->values[n->in[1]].constant->t.dims[s->turned ? 0 : 1];
        any |= has;
    }
    *ret = (struct ref){0};
    return any ? build_beside(b, 1, s->n, part, ret) : 0;
}

/* They are apart after all: what was made for it goes. */
static void give_back(struct exe *x, uint32_t n_weights, size_t weights_bytes)
{
    x->n_bufs--;
    while (x->n_weights > n_weights)
        weights_out(x->part, x->weights[--x->n_weights]);
    x->weights_bytes = weights_bytes;
}

static void take(struct build *b, struct sides *s, struct ref y)
{
    *s->attend = s->together;
    b->half[false][b->graph->nodes[s->first].out[0]] = y;
    for (uint32_t i = 0; i < s->n_gone; i++) {
        b->fused[s->gone[i]].gone = true;
        b->exe->n_asked += b->graph->nodes[s->gone[i]].op != OP_Reshape;
    }
}

int lower_sides(struct build *b, const struct node *n, struct product_args a, bool *ret_taken)
{
    struct sides *s = b->fused[b->node].sides;
    struct product_refs ref = {.in = half_type(b), .out = half_type(b)};
    int r = build_as(b, n->in[0], ref.in, false, &ref.a);
    uint32_t n_weights = b->exe->n_weights;
    size_t weights_bytes = b->exe->weights_bytes;

    *ret_taken = false;
    a.n = a.n / a.cols * s->cols;
    a.cols = s->cols;
    a.b_inner = s->turned ? 1 : s->cols;
    a.bias_row = 0;
    a.bias_col = a.beta = 1;
    if (r == 0)
        r = matrices(b, s, a.inner, &ref.b);
    if (r == 0)
        r = biases(b, s, &ref.bias);
    if (r == 0)
        r = build_buf(b, (size_t)a.n * dtype_size(ref.out), &ref.y);
    if (r == 0)
        r = blas_product(b, n, &a, &ref, ret_taken);
    if (r == 0 && *ret_taken)
        take(b, s, ref.y);
    else if (r == 0)
        give_back(b->exe, n_weights, weights_bytes);
    return r;
}
