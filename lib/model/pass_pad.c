/* Pad in front of Conv or AveragePool: the padding becomes theirs.  Exporters write AveragePool
 * that counts its padding this way.  A Pad of nothing becomes Identity. */
#include "pass.h"

/* begin of every dimension, then end of every dimension. */
static bool pads_of(const struct pass *p, const struct node *n, int64_t rank,
                    int64_t ret[2 * MAX_RANK])
{
    const struct constant *c = n->n_in > 1 ? pass_constant(p, n->in[1]) : NULL;
    const struct tensor *t = c ? pass_aligned((struct pass *)p, c) : NULL;
    uint32_t n_attr;
    const int64_t *pads = node_ints(n, "pads", &n_attr);

    if (n->n_in > 3 && n->in[3] != VALUE_NONE)
        return false; /* for some axes only */
    if (n->n_in > 1 && (!t || t->dtype != DT_INT64))
        return false;
    if (t) {
        pads = t->data;
        n_attr = (uint32_t)(t->bytes / sizeof(*pads));
    }
    if (rank < 0 || n_attr != 2 * (uint32_t)rank)
        return false;
    if (n_attr) /* a scalar has none */
        memcpy(ret, pads, n_attr * sizeof(*pads));
    return true;
}

static bool all_zero(const int64_t *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (v[i] != 0)
            return false;
    return true;
}

static bool pads_with_zero(const struct pass *p, const struct node *n)
{
    double value = (double)node_float(n, "value", 0);

    if (n->n_in > 2 && n->in[2] != VALUE_NONE && !pass_number(p, n->in[2], &value))
        return false;
    return value == 0 && STREQ(node_str(n, "mode", "constant"), "constant");
}

/* Images and channels untouched, nothing cut off. */
static bool spatial_only(const int64_t *pads, int64_t rank)
{
    for (int64_t i = 0; i < rank; i++)
        if (pads[i] < 0 || pads[rank + i] < 0 || (i < 2 && (pads[i] || pads[rank + i])))
            return false;
    return rank > 2;
}

/* Can the node read beyond the edge, and mean zeros by it? */
static bool takes_pads(const struct node *n)
{
    uint32_t n_pads;
    const int64_t *pads = node_ints(n, "pads", &n_pads);
    bool counted = node_int(n, "count_include_pad", 0) != 0 || all_zero(pads, n_pads);

    if (!STREQ(node_str(n, "auto_pad", "NOTSET"), "NOTSET"))
        return false;
    return n->op == OP_Conv || (n->op == OP_AveragePool && counted && !node_int(n, "ceil_mode", 0));
}

static int set_attr(struct graph *g, uint32_t id, const struct attr *a)
{
    struct node *n = &g->nodes[id];

    for (uint32_t i = 0; i < n->n_attr; i++)
        if (STREQ(n->attr[i].name, a->name))
            n->attr[i--] = n->attr[--n->n_attr];
    return graph_add_attr(g, id, a);
}

static int give_pads(struct pass *p, uint32_t id, const int64_t *more, int64_t rank)
{
    uint32_t spatial = (uint32_t)rank - 2, n_old;
    const int64_t *old = node_ints(&p->g->nodes[id], "pads", &n_old);
    int64_t sum[2 * MAX_RANK];

    for (uint32_t i = 0; i < spatial; i++) {
        sum[i] = more[2 + i] + (i < n_old ? old[i] : 0);
        sum[spatial + i] = more[rank + 2 + i] + (spatial + i < n_old ? old[spatial + i] : 0);
    }
    const struct attr pads = {.name = "pads", .type = ATTR_INTS, .n = 2 * spatial, .ints = sum};
    const struct attr count = {.name = "count_include_pad", .type = ATTR_INT, .i = 1};
    int r = set_attr(p->g, id, &pads);
    return r < 0 || p->g->nodes[id].op != OP_AveragePool ? r : set_attr(p->g, id, &count);
}

static int take_pad(struct pass *p, uint32_t id)
{
    struct node *n = &p->g->nodes[id];
    int64_t rank = p->g->values[n->in[0]].rank, pads[2 * MAX_RANK];

    if (n->n_post || !pads_of(p, n, rank, pads))
        return 0;
    if (all_zero(pads, 2 * rank))
        return pass_become(p, id, OP_Identity, 1, (uint32_t[]){n->in[0]});
    uint32_t next = pass_sole_reader(p, n->out[0]);
    if (next == NODE_NONE || p->g->nodes[next].in[0] != n->out[0] ||
        !takes_pads(&p->g->nodes[next]) || !pads_with_zero(p, n) || !spatial_only(pads, rank))
        return 0;
    if (give_pads(p, next, pads, rank) < 0)
        return -ENOMEM;
    p->g->nodes[next].in[0] = n->in[0];
    n->op = OP_NONE;
    return 0;
}

int pass_pad(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++, pass_next(p))
        if (p->g->nodes[id].op == OP_Pad && take_pad(p, id) < 0)
            return -ENOMEM;
    return 0;
}
