/* Late nodes in a graph: they go to its end, and the outputs among their results get the types and
 * shapes that the file declares. */
#include "late.h"
#include "bind_probe.h"

int graph_keep_claims(struct graph *g)
{
    if (g->claims)
        return 0;
    g->claims = ARENA_ARRAY(&g->arena, struct claim, MAX_IO);
    if (!g->claims)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->n_out; i++) {
        const struct value *v = &g->values[g->out[i]];
        g->claims[i].dtype = v->dtype;
        g->claims[i].rank = v->rank;
        memcpy(g->claims[i].dims, v->dims, sizeof(v->dims));
    }
    return 0;
}

/* What the file declares is for people: nothing depends on its being so. */
static void state_claims(struct graph *g, const struct bound *b)
{
    for (uint32_t i = 0; i < g->n_out && g->claims; i++) {
        struct value *v = &g->values[g->out[i]];
        if (!b->late_value[g->out[i]] || v->producer == NODE_NONE)
            continue;
        v->dtype = g->claims[i].dtype;
        v->rank = g->claims[i].rank;
        memcpy(v->dims, g->claims[i].dims, sizeof(v->dims));
    }
}

/* Keeps the order among the late nodes and among the others; what is not late reads nothing late.
 */
static int order_nodes(struct graph *g, const struct bound *b, struct arena *a)
{
    struct node *sorted = ARENA_ARRAY(a, struct node, g->n_nodes);
    uint32_t n = 0;

    if (!sorted)
        return -ENOMEM;
    for (unsigned late = 0; late < 2; late++)
        for (uint32_t i = 0; i < g->n_nodes; i++)
            if (b->late_node[i] == (late == 1))
                sorted[n++] = g->nodes[i];
    for (uint32_t i = 0; i < n; i++) {
        g->nodes[i] = sorted[i];
        for (uint32_t k = 0; k < sorted[i].n_out; k++)
            if (sorted[i].out[k] != VALUE_NONE)
                g->values[sorted[i].out[k]].producer = i;
    }
    return 0;
}

int graph_settle_late(struct graph *g, struct err *err)
{
    struct arena a;
    struct bound *b;
    struct err ignored;
    int64_t other = 0;
    int r = 0;

    arena_init(&a);
    /* A graph that binds at no probe has been refused before. */
    if (graph_probe(g, g->batch_sym, 1, &other, &a, &b, &ignored) == 0 && b->n_late) {
        r = order_nodes(g, b, &a);
        if (r == 0)
            state_claims(g, b);
    }
    arena_done(&a);
    return r < 0 ? err_set(err, r, "out of memory for %u nodes", g->n_nodes) : 0;
}
