/* Nodes that a node behind them does with what it does itself, so that what lies between is never
 * written: a sum in front of a LayerNormalization; a factor and a mask in front of a Softmax; all
 * of attention (fuse_attention.c); all that is done to the bytes of an image (fuse_pixels.c).
 *
 * Found in the bound graph, when it is compiled: shapes are numbers there, and other backends keep
 * the nodes that their libraries want. */
#include "fuse.h"

static void read_by(struct readers *r, uint32_t v, uint32_t node)
{
    if (v == VALUE_NONE)
        return;
    r[v].first = r[v].n++ == 0 ? node : r[v].first;
}

/* Not those whose results are known: exporters ask each value for its shape. */
static struct readers *readers_of(struct build *b)
{
    const struct graph *g = b->graph;
    struct readers *r = ARENA_ARRAY(&b->scratch, struct readers, g->n_values);

    for (uint32_t i = 0; r && i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        if (b->bound->skip[i])
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            read_by(r, n->in[k], i);
        for (uint32_t k = 0; k < n->n_post; k++)
            if (n->post[k].kind == POST_ADD)
                read_by(r, n->post[k].value, i);
    }
    for (uint32_t i = 0; r && i < g->n_out; i++)
        read_by(r, g->out[i], g->n_nodes);
    return r;
}

const struct node *fuse_maker(const struct build *b, uint32_t v, uint32_t *ret_id)
{
    uint32_t id = v == VALUE_NONE ? NODE_NONE : b->graph->values[v].producer;

    if (id == NODE_NONE || b->bound->skip[id] || b->bound->late_node[id] || b->fused[id].gone ||
        b->fused[id].pixels || !is_f32(value_of(b, v)))
        return NULL;
    *ret_id = id;
    return &b->graph->nodes[id];
}

static bool same_dims(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof(*a->dims)) == 0;
}

static bool is_sum(const struct build *b, const struct node *n)
{
    return n && n->op == OP_Add && n->n_post == 0 && !node_int(n, "broadcast", 0) &&
           half_fits(b, n->in[0]) && half_fits(b, n->in[1]);
}

void fuse_take(struct build *b, struct fused *into, uint32_t id)
{
    b->fused[id].gone = true;
    into->n += b->graph->nodes[id].op != OP_Reshape; /* which is no step anyway */
}

/* ---- a sum in front of a normalisation, which is the first to read it */

/* A scale for each number of a row: what the kernel for rows does. */
static bool has_rows(const struct build *b, const struct node *n)
{
    const struct tensor *x = value_of(b, n->in[0]);
    int64_t axis = node_int(n, "axis", -1);

    axis += axis < 0 ? x->rank : 0;
    return axis >= 0 && axis < (int64_t)x->rank &&
           count_of(value_of(b, n->in[1])) == span(x, (uint32_t)axis, x->rank);
}

static void fuse_norm(struct build *b, const struct readers *r, uint32_t id)
{
    uint32_t v = b->graph->nodes[id].in[0], add;
    const struct node *n = fuse_maker(b, v, &add);
    struct fused *f = &b->fused[id];

    if (!is_sum(b, n) || !has_rows(b, &b->graph->nodes[id]) || r[v].first != id ||
        !same_dims(value_of(b, n->in[0]), value_of(b, v)) ||
        !same_dims(value_of(b, n->in[1]), value_of(b, v)))
        return;
    f->x = n->in[0];
    f->add = n->in[1];
    f->sum = r[v].n > 1 ? v : VALUE_NONE;
    fuse_take(b, f, add);
}

/* ---- softmax(x * scale + mask) */

bool fuse_is_scaled(const struct build *b, const struct node *n, uint32_t *ret_x, float *ret_scale)
{
    if (!n || (n->op != OP_Mul && n->op != OP_Div) || n->n_post > 0)
        return false;
    for (uint32_t i = 2; i-- > 0;) {
        const struct tensor *t = value_of(b, n->in[i]), *x = value_of(b, n->in[1 - i]);
        if (!t->data || count_of(t) != 1 || t->rank > x->rank || x->data ||
            (i == 0 && n->op == OP_Div))
            continue;
        *ret_x = n->in[1 - i];
        *ret_scale = n->op == OP_Div ? 1 / *(const float *)t->data : *(const float *)t->data;
        return true;
    }
    return false;
}

/* Which operand of a sum is the mask of the other: that has the sum's shape, and this whole rows.
 */
static bool is_masked(const struct build *b, const struct node *n, uint32_t *ret_x,
                      uint32_t *ret_mask)
{
    const struct tensor *y = value_of(b, n->out[0]);

    for (uint32_t k = 0; k < 4; k++) { /* a product first */
        uint32_t maker_id, x = n->in[k % 2], mask = n->in[1 - k % 2];
        const struct node *m = fuse_maker(b, x, &maker_id);
        const struct tensor *t = value_of(b, mask);
        bool product = m && (m->op == OP_MatMul || m->op == OP_Mul || m->op == OP_Div);
        if (!same_dims(value_of(b, x), y) || t->rank == 0 ||
            t->dims[t->rank - 1] != y->dims[y->rank - 1] || (k < 2 && !product))
            continue;
        *ret_x = x;
        *ret_mask = mask;
        return true;
    }
    return false;
}

static void fuse_softmax(struct build *b, const struct readers *r, uint32_t id)
{
    const struct node *n = &b->graph->nodes[id];
    const struct tensor *y = value_of(b, n->out[0]);
    struct fused *f = &b->fused[id];
    int64_t axis = node_int(n, "axis", n->opset >= 13 ? -1 : 1);
    uint32_t v = n->in[0], from, x, mask;

    if (axis != -1 && axis != (int64_t)y->rank - 1)
        return;
    n = fuse_maker(b, v, &from);
    if (is_sum(b, n) && r[v].n == 1 && is_masked(b, n, &x, &mask)) {
        f->add = mask;
        fuse_take(b, f, from);
        f->x = v = x;
        n = fuse_maker(b, v, &from);
    }
    if (n && r[v].n == 1 && fuse_is_scaled(b, n, &x, &f->scale)) {
        f->x = x;
        fuse_take(b, f, from);
    }
}

int fuse_plan(struct build *b)
{
    const struct graph *g = b->graph;
    const struct readers *r = readers_of(b);
    int ret = 0;

    b->fused = ARENA_ARRAY(&b->scratch, struct fused, g->n_nodes + 1);
    if (!r || !b->fused)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < g->n_nodes; i++)
        b->fused[i] = (struct fused){.x = g->nodes[i].n_in ? g->nodes[i].in[0] : VALUE_NONE,
                                     .add = VALUE_NONE,
                                     .sum = VALUE_NONE,
                                     .scale = 1};
    for (uint32_t i = 0; i < g->n_nodes && ret == 0; i++) {
        const struct node *n = &g->nodes[i];
        if (b->bound->skip[i] || b->bound->late_node[i])
            continue;
        if (n->op == OP_LayerNormalization || n->op == OP_RMSNormalization)
            fuse_norm(b, r, i);
        if (n->op == OP_Softmax || n->op == OP_LogSoftmax)
            fuse_softmax(b, r, i);
        if (n->op == OP_MatMul)
            ret = fuse_attention(b, r, i);
        if (n->op == OP_Cast)
            ret = fuse_pixels(b, r, i);
    }
    return ret;
}
