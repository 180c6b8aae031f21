/* If with a condition that is known when the model is opened: the branch takes the node's place.
 * Exporters write such conditions for shapes that the model has anyway, and everything behind an
 * If would be late. */
#include "pass.h"

static const struct body *chosen(const struct graph *g, const struct node *n)
{
    const struct constant *c = n->op == OP_If && n->n_own > 0 && n->in[0] != VALUE_NONE
                                   ? g->values[n->in[0]].constant
                                   : NULL;

    if (!c || c->t.dtype != DT_BOOL || c->t.bytes != 1)
        return NULL;
    const struct attr *a =
        node_attr(n, *(const uint8_t *)c->t.data ? "then_branch" : "else_branch");
    bool fits =
        a && a->type == ATTR_GRAPH && a->body->g->n_in == 0 && a->body->g->n_out == n->n_out;
    return fits ? a->body : NULL;
}

struct splice {
    struct graph *g;
    struct node *nodes;
    uint32_t n;
};

static uint32_t *map_ids(struct graph *g, const uint32_t *ids, uint32_t n, const uint32_t *map)
{
    uint32_t *ret = ARENA_ARRAY(&g->arena, uint32_t, n);

    for (uint32_t i = 0; ret && i < n; i++)
        ret[i] = ids[i] == VALUE_NONE ? VALUE_NONE : map[ids[i]];
    return ret;
}

/* The body's values in the graph around it: what it captures is there already. */
static int map_values(struct graph *g, const struct node *n, const struct body *b, uint32_t *map)
{
    int r = 0;

    for (uint32_t i = 0; i < b->g->n_values; i++)
        map[i] = VALUE_NONE;
    for (uint32_t i = 0; i < b->n_captured; i++)
        map[b->inner[i]] = n->in[b->outer[i]];
    for (uint32_t i = 0; r == 0 && i < b->g->n_values; i++) {
        const struct value *v = &b->g->values[i];
        if (map[i] != VALUE_NONE)
            continue;
        r = graph_add_value(g, v->name, v->dtype, v->rank, v->dims, &map[i]);
        if (r == 0)
            g->values[map[i]].constant = v->constant;
    }
    return r;
}

static int add_node(struct splice *s, const struct node *from, const uint32_t *map)
{
    struct node *n = &s->nodes[s->n++];

    *n = *from;
    n->in = map_ids(s->g, from->in, from->n_in, map);
    n->out = map_ids(s->g, from->out, from->n_out, map);
    return n->in && n->out ? 0 : -ENOMEM;
}

/* The results get the names that they have outside by an Identity each. */
static int add_result(struct splice *s, const struct node *holder, uint32_t from, uint32_t k)
{
    static const uint32_t first = 0;
    const uint32_t ids[] = {from};
    struct node identity = {.name = holder->name,
                            .op = OP_Identity,
                            .opset = holder->opset,
                            .n_in = 1,
                            .n_own = 1,
                            .n_out = 1,
                            .in = (uint32_t *)&first,
                            .out = (uint32_t *)&first};
    struct node *n = &s->nodes[s->n];
    int r = add_node(s, &identity, ids);

    if (r == 0)
        n->out[0] = holder->out[k];
    return r;
}

static int splice_body(struct splice *s, const struct node *n, const struct body *b)
{
    uint32_t *map = ARENA_ARRAY(&s->g->arena, uint32_t, b->g->n_values);
    int r = map ? map_values(s->g, n, b, map) : -ENOMEM;

    for (uint32_t i = 0; r == 0 && i < b->g->n_nodes; i++)
        r = add_node(s, &b->g->nodes[i], map);
    for (uint32_t k = 0; r == 0 && k < n->n_out; k++)
        if (n->out[k] != VALUE_NONE)
            r = add_result(s, n, map[b->g->out[k]], k);
    return r;
}

int branches_choose(struct graph *g, bool *ret)
{
    struct splice s = {.g = g};
    size_t n = 0;
    int r = 0;

    *ret = false;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct body *b = chosen(g, &g->nodes[i]);
        n += b ? (size_t)b->g->n_nodes + g->nodes[i].n_out : 1;
        *ret |= b != NULL;
    }
    if (!*ret)
        return 0;
    if (!(s.nodes = ARENA_ARRAY(&g->arena, struct node, n)))
        return -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < g->n_nodes; i++) {
        const struct body *b = chosen(g, &g->nodes[i]);
        if (b)
            r = splice_body(&s, &g->nodes[i], b);
        else
            s.nodes[s.n++] = g->nodes[i];
    }
    g->nodes = s.nodes;
    g->n_nodes = g->cap_nodes = s.n;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        for (uint32_t k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] != VALUE_NONE)
                g->values[g->nodes[i].out[k]].producer = i;
    return r;
}
