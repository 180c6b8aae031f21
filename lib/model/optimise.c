/* The passes, one after the other.  Before each one, what nobody reads is dropped and readers are
 * counted anew; at the end the dropped nodes leave the array. */
#include "pass.h"

static int (*const passes[])(struct pass *p) = {
    pass_identity,  pass_fold,      pass_einsum, pass_pad,  pass_identity,
    pass_batchnorm, pass_layernorm, pass_gelu,   pass_bias, pass_post,
};

static void compact(struct graph *g)
{
    uint32_t n = 0;

    for (uint32_t id = 0; id < g->n_nodes; id++) {
        if (g->nodes[id].op == OP_NONE)
            continue;
        for (uint32_t i = 0; i < g->nodes[id].n_out; i++)
            if (g->nodes[id].out[i] != VALUE_NONE)
                g->values[g->nodes[id].out[i]].producer = n;
        g->nodes[n++] = g->nodes[id];
    }
    g->n_nodes = n;
}

/* Values that lost their producer do not name one, and constants that nobody reads go: their
 * data may die with what the passes leave behind. */
static void forget_unused(struct graph *g, const uint32_t *n_readers)
{
    for (uint32_t v = 0; v < g->n_values; v++) {
        uint32_t id = g->values[v].producer, i = 0;
        if (!n_readers[v])
            g->values[v].constant = NULL;
        if (id == NODE_NONE)
            continue;
        const struct node *n = &g->nodes[id];
        while (n->op != OP_NONE && i < n->n_out && n->out[i] != v)
            i++;
        if (n->op == OP_NONE || i == n->n_out)
            g->values[v].producer = NODE_NONE;
    }
}

/* Branches of conditions that are known take the place of their If; what comes after one may then
 * no longer be late.  Ends: each round makes the nesting less deep. */
static int choose_branches(struct pass *p)
{
    bool chose = true;
    int r = 0;

    while (r == 0 && chose) {
        if ((r = pass_count(p)) == 0 && (r = pass_identity(p)) == 0 && (r = pass_count(p)) == 0 &&
            (r = pass_fold(p)) == 0 && (r = pass_count(p)) == 0) {
            forget_unused(p->g, p->n_readers);
            compact(p->g);
            r = branches_choose(p->g, &chose);
        }
        if (r == 0 && chose && (r = graph_infer(p->g, p->err)) < 0)
            return r;
    }
    return r < 0 ? err_set(p->err, r, "out of memory while optimising %u nodes", p->g->n_nodes) : 0;
}

static size_t const_bytes(const struct graph *g, const uint32_t *n_readers)
{
    size_t bytes = 0;

    for (uint32_t v = 0; v < g->n_values; v++)
        if (g->values[v].constant && n_readers[v])
            bytes += g->values[v].constant->t.bytes;
    return bytes;
}

int graph_optimise_into(struct graph *g, struct prepared *prepared, struct model_report *report,
                        struct err *err)
{
    struct pass p = {.g = g, .prepared = prepared, .report = report, .err = err};

    report->nodes_read = g->n_nodes;
    int r = choose_branches(&p);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(passes) && r == 0; i++) {
        r = pass_count(&p);
        if (r == 0)
            r = passes[i](&p);
    }
    if (r == 0)
        r = pass_count(&p);
    if (r < 0)
        return err_set(err, r, "out of memory while optimising %u nodes", g->n_nodes);
    forget_unused(g, p.n_readers);
    compact(g);
    report->nodes_left = g->n_nodes;
    report->const_bytes = const_bytes(g, p.n_readers);
    return 0;
}

int graph_optimise(struct graph *g, struct model_report *report, struct err *err)
{
    struct prepared none = {.data = &g->arena};

    arena_init(&none.scratch);
    int r = graph_optimise_into(g, &none, report, err);
    prepared_done(&none);
    return r;
}
