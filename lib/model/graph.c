/* The graph: building it, and reading attributes.  Arrays of nodes and values grow by doubling
 * inside the arena; the old halves die with the graph, which is cheaper than it sounds: a model
 * of a thousand nodes wastes less than one page of its smallest weight. */
#include <gpulet/graph.h>
#include <stdio.h>

#define MAX_NODES 200000
#define MAX_VALUES 1000000
#define MAX_NODE_ARGS 65536

static const char *const op_names[OP_END] = {
#define OP(name) [OP_##name] = #name,
    OPS(OP) OPS_MADE(OP)
#undef OP
};

const char *op_name(enum op_id id)
{
    return id > OP_NONE && id < OP_END ? op_names[id] : "?";
}

static bool is_made(unsigned op)
{
#define OP(name) op == OP_##name ||
    return OPS_MADE(OP) false;
#undef OP
}

enum op_id op_find(const char *name, size_t len)
{
    for (unsigned i = OP_NONE + 1; i < OP_END; i++)
        if (!is_made(i) && strlen(op_names[i]) == len && memcmp(op_names[i], name, len) == 0)
            return (enum op_id)i;
    return OP_NONE;
}

const struct model_limits model_limits_default = {
    .nodes = MAX_NODES,
    .nesting = 16,
    .tensor_elems = UINT64_C(1) << 32,
    .tensor_bytes = UINT64_C(4) << 30,
    .live_bytes = UINT64_C(16) << 30,
    .loop_iterations = 1000000,
};

struct graph *graph_new(uint32_t opset)
{
    struct graph *g = calloc(1, sizeof(*g));

    if (g) {
        arena_init(&g->arena);
        g->opset = opset;
        g->batch_sym = -1;
        g->limits = model_limits_default;
    }
    return g;
}

void graph_free(struct graph *g)
{
    if (!g)
        return;
    while (g->nested) {
        struct graph *body = g->nested;
        g->nested = body->next;
        graph_free(body);
    }
    arena_done(&g->arena);
    free(g);
}

struct graph *graph_new_nested(struct graph *outer, uint32_t opset)
{
    struct graph *g = graph_new(opset);

    if (g) {
        g->limits = outer->limits;
        g->next = outer->nested;
        outer->nested = g;
    }
    return g;
}

/* Room for one more element in an array that lives in the arena. */
static void *array_room(struct graph *g, void *array, uint32_t n, uint32_t *cap, uint32_t max,
                        size_t each)
{
    if (n < *cap)
        return array;
    uint32_t more = n ? n * 2 : 16;
    void *grown = n < max ? arena_array(&g->arena, more, each) : NULL;
    if (grown && n)
        memcpy(grown, array, n * each);
    if (grown)
        *cap = more;
    return grown;
}

int graph_add_value(struct graph *g, const char *name, enum dtype dtype, int32_t rank,
                    const struct dim *dims, uint32_t *ret)
{
    struct value *values =
        array_room(g, g->values, g->n_values, &g->cap_values, MAX_VALUES, sizeof(*values));
    char *copy = arena_strdup(&g->arena, name);

    if (!values || !copy)
        return g->n_values >= MAX_VALUES ? -E2BIG : -ENOMEM;
    if (rank > MAX_RANK)
        return -E2BIG;
    g->values = values;
    struct value *v = &values[g->n_values];
    *v = (struct value){.name = copy, .dtype = dtype, .rank = rank, .producer = NODE_NONE};
    for (int32_t i = 0; i < rank; i++)
        v->dims[i] = dims[i];
    *ret = g->n_values++;
    return 0;
}

int graph_add_sym(struct graph *g, const char *name, int32_t *ret)
{
    for (uint32_t i = 0; i < g->n_syms; i++)
        if (STREQ(g->syms[i].name, name)) {
            *ret = (int32_t)i;
            return 0;
        }
    if (g->n_syms == MAX_SYMS)
        return -E2BIG;
    char *copy = arena_strdup(&g->arena, name);
    if (!copy)
        return -ENOMEM;
    g->syms[g->n_syms].name = copy;
    *ret = (int32_t)g->n_syms++;
    return 0;
}

void constant_seal(struct constant *c)
{
    int64_t head[2 + MAX_RANK] = {c->t.dtype, c->t.rank};

    for (uint32_t i = 0; i < c->t.rank; i++)
        head[2 + i] = c->t.dims[i];
    struct hash128 data = c->source == CONST_ARENA ? hash_bytes(c->t.data, c->t.bytes)
                                                   : hash_pages(c->t.data, c->t.bytes);
    c->hash = hash_join(hash_bytes(head, sizeof(head)), data);
}

void constant_drop(const struct constant *c)
{
    if (c->source != CONST_ARENA)
        pages_drop(c->t.data, c->t.bytes);
}

int graph_add_const(struct graph *g, const char *name, const struct tensor *t,
                    enum const_source source, uint32_t *ret)
{
    struct dim dims[MAX_RANK];
    struct constant *c = ARENA_NEW(&g->arena, struct constant);

    if (!c)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->rank; i++)
        dims[i] = (struct dim){.scale = t->dims[i], .sym = SYM_CONST};
    c->t = *t;
    c->source = source;
    constant_seal(c);
    int r = graph_add_value(g, name, t->dtype, (int32_t)t->rank, dims, ret);
    if (r == 0)
        g->values[*ret].constant = c;
    return r;
}

int graph_add_node(struct graph *g, const char *name, enum op_id op, uint32_t n_in,
                   const uint32_t *in, uint32_t n_out, const uint32_t *out, uint32_t *ret)
{
    if (n_in > MAX_NODE_ARGS || n_out > MAX_NODE_ARGS || g->n_nodes >= MAX_NODES)
        return -E2BIG;
    struct node *nodes =
        array_room(g, g->nodes, g->n_nodes, &g->cap_nodes, MAX_NODES, sizeof(*nodes));
    char *copy =
        name && *name ? arena_strdup(&g->arena, name) : arena_printf(&g->arena, "#%u", g->n_nodes);
    uint32_t *ins = arena_memdup(&g->arena, in, n_in * sizeof(*in));
    uint32_t *outs = arena_memdup(&g->arena, out, n_out * sizeof(*out));

    if (!nodes || !copy || !ins || !outs)
        return -ENOMEM;
    g->nodes = nodes;
    nodes[g->n_nodes] = (struct node){.name = copy,
                                      .op = op,
                                      .opset = g->opset,
                                      .n_in = n_in,
                                      .n_own = n_in,
                                      .n_out = n_out,
                                      .in = ins,
                                      .out = outs};
    for (uint32_t i = 0; i < n_out; i++)
        if (outs[i] != VALUE_NONE)
            g->values[outs[i]].producer = g->n_nodes;
    *ret = g->n_nodes++;
    return 0;
}

static int texts_copy(struct graph *g, const struct attr *a, struct attr *c)
{
    struct attr_text *strs = ARENA_ARRAY(&g->arena, struct attr_text, a->n);

    if (!strs)
        return -ENOMEM;
    for (uint32_t i = 0; i < a->n; i++) {
        strs[i] = a->strs[i];
        if (!(strs[i].s = arena_strndup(&g->arena, a->strs[i].s, a->strs[i].n)))
            return -ENOMEM;
    }
    c->strs = strs;
    return 0;
}

static int body_copy(struct graph *g, const struct attr *a, struct attr *c)
{
    struct body *b = arena_memdup(&g->arena, a->body, sizeof(*b));

    if (!b)
        return -ENOMEM;
    b->inner = arena_memdup(&g->arena, b->inner, b->n_captured * sizeof(*b->inner));
    b->outer = arena_memdup(&g->arena, b->outer, b->n_captured * sizeof(*b->outer));
    c->body = b;
    return b->inner && b->outer ? 0 : -ENOMEM;
}

static int attr_copy(struct graph *g, const struct attr *a, struct attr *c)
{
    *c = *a;
    c->name = arena_strdup(&g->arena, a->name);
    if (!c->name)
        return -ENOMEM;
    switch (a->type) {
    case ATTR_STRING:
        c->s = arena_strndup(&g->arena, a->s, a->n);
        return c->s ? 0 : -ENOMEM;
    case ATTR_INTS:
        c->ints = arena_memdup(&g->arena, a->ints, a->n * sizeof(*a->ints));
        return c->ints ? 0 : -ENOMEM;
    case ATTR_FLOATS:
        c->floats = arena_memdup(&g->arena, a->floats, a->n * sizeof(*a->floats));
        return c->floats ? 0 : -ENOMEM;
    case ATTR_TENSOR:
        c->t = arena_memdup(&g->arena, a->t, sizeof(*a->t)); /* the data stays where it is */
        return c->t ? 0 : -ENOMEM;
    case ATTR_STRINGS:
        return texts_copy(g, a, c);
    case ATTR_GRAPH:
        return body_copy(g, a, c);
    case ATTR_INT:
    case ATTR_FLOAT:
        break;
    }
    return 0;
}

int graph_add_attr(struct graph *g, uint32_t node, const struct attr *a)
{
    struct node *n = &g->nodes[node];
    struct attr *grown = ARENA_ARRAY(&g->arena, struct attr, n->n_attr + 1);

    if (!grown)
        return -ENOMEM;
    if (n->n_attr)
        memcpy(grown, n->attr, n->n_attr * sizeof(*grown));
    int r = attr_copy(g, a, &grown[n->n_attr]);
    if (r < 0)
        return r;
    n->attr = grown;
    n->n_attr++;
    return 0;
}

const struct attr *node_attr(const struct node *n, const char *name)
{
    for (uint32_t i = 0; i < n->n_attr; i++)
        if (STREQ(n->attr[i].name, name))
            return &n->attr[i];
    return NULL;
}

int64_t node_int(const struct node *n, const char *name, int64_t absent)
{
    const struct attr *a = node_attr(n, name);

    return a && a->type == ATTR_INT ? a->i : absent;
}

float node_float(const struct node *n, const char *name, float absent)
{
    const struct attr *a = node_attr(n, name);

    return a && a->type == ATTR_FLOAT ? a->f : absent;
}

const char *node_str(const struct node *n, const char *name, const char *absent)
{
    const struct attr *a = node_attr(n, name);

    return a && a->type == ATTR_STRING ? a->s : absent;
}

struct tensor node_second(const struct node *n, const struct tensor *first,
                          const struct tensor *second)
{
    struct tensor t = *second;
    int64_t rank = first->rank, own = second->rank;
    int64_t axis = node_int(n, "axis", n->op == OP_PRelu && own == 1 && rank > 1 ? 1 : rank - own);

    if (n->opset >= 7 || (n->op != OP_PRelu && !node_int(n, "broadcast", 0)))
        return t;
    axis += axis < 0 ? rank : 0;
    while (axis >= 0 && axis < rank - (int64_t)t.rank)
        t.dims[t.rank++] = 1;
    return t;
}

const struct attr_text *node_strs(const struct node *n, const char *name, uint32_t *ret_n)
{
    const struct attr *a = node_attr(n, name);

    *ret_n = a && a->type == ATTR_STRINGS ? a->n : 0;
    return *ret_n ? a->strs : NULL;
}

const float *node_floats(const struct node *n, const char *name, uint32_t *ret_n)
{
    const struct attr *a = node_attr(n, name);

    *ret_n = a && a->type == ATTR_FLOATS ? a->n : 0;
    return *ret_n ? a->floats : NULL;
}

const int64_t *node_ints(const struct node *n, const char *name, uint32_t *ret_n)
{
    const struct attr *a = node_attr(n, name);

    *ret_n = a && a->type == ATTR_INTS ? a->n : 0;
    return *ret_n ? a->ints : NULL;
}
