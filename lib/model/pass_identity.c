/* Identity, Dropout at inference, and Cast to the same type: readers get the input instead. */
#include "pass.h"

static bool is_identity(const struct pass *p, const struct node *n)
{
    double training;

    switch (n->op) {
    case OP_Identity:
        return true;
    case OP_Cast:
        return n->in[0] != VALUE_NONE && p->g->values[n->in[0]].dtype != DT_NONE &&
               p->g->values[n->in[0]].dtype == (enum dtype)node_int(n, "to", DT_NONE);
    case OP_Dropout:
        if (n->n_out > 1 && n->out[1] != VALUE_NONE)
            return false; /* the mask is read: pass_count() drops it otherwise */
        return n->n_in < 3 || n->in[2] == VALUE_NONE ||
               (pass_number(p, n->in[2], &training) && training == 0);
    default:
        return false;
    }
}

static bool is_output(const struct graph *g, uint32_t value)
{
    for (uint32_t i = 0; i < g->n_out; i++)
        if (g->out[i] == value)
            return true;
    return false;
}

static void replace_everywhere(struct graph *g, uint32_t from, uint32_t to)
{
    for (uint32_t id = 0; id < g->n_nodes; id++) {
        struct node *n = &g->nodes[id];
        for (uint32_t i = 0; i < n->n_in && n->op != OP_NONE; i++)
            if (n->in[i] == from)
                n->in[i] = to;
    }
}

/* A graph output keeps its name: the producer of the input writes it directly. */
static bool rename_output(struct pass *p, uint32_t in, uint32_t out)
{
    struct graph *g = p->g;
    uint32_t producer = g->values[in].producer;

    if (producer == NODE_NONE || is_output(g, in))
        return false;
    struct node *n = &g->nodes[producer];
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] == in)
            n->out[i] = out;
    g->values[out].producer = producer;
    replace_everywhere(g, in, out);
    return true;
}

/* Where each value comes from when identities are skipped: found in one sweep. */
int pass_identity(struct pass *p)
{
    struct graph *g = p->g;
    uint32_t *root = ARENA_ARRAY(&p->prepared->scratch, uint32_t, g->n_values);

    if (!root)
        return -ENOMEM;
    for (uint32_t v = 0; v < g->n_values; v++)
        root[v] = v;
    for (uint32_t id = 0; id < g->n_nodes; id++) {
        struct node *n = &g->nodes[id];
        if (n->op == OP_NONE)
            continue;
        for (uint32_t i = 0; i < n->n_in; i++)
            if (n->in[i] != VALUE_NONE)
                n->in[i] = root[n->in[i]];
        if (!is_identity(p, n))
            continue;
        if (!is_output(g, n->out[0])) {
            root[n->out[0]] = n->in[0];
            n->op = OP_NONE;
        } else if (rename_output(p, n->in[0], n->out[0])) {
            for (uint32_t v = 0; v < g->n_values; v++)
                if (root[v] == n->in[0])
                    root[v] = n->out[0];
            n->op = OP_NONE;
        }
    }
    return 0;
}
