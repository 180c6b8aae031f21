/* What the passes share: counting readers, matching, rewriting, making constants. */
#include "pass.h"
#include <math.h>

static void count_read(struct pass *p, uint32_t value, uint32_t node)
{
    if (value == VALUE_NONE)
        return;
    if (p->n_readers[value]++ == 0)
        p->last[value] = node;
    p->first[value] = node; /* nodes come in reverse */
}

static bool node_is_read(const struct pass *p, const struct node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] != VALUE_NONE && p->n_readers[n->out[i]])
            return true;
    return false;
}

/* Second outputs that nobody reads are omitted, for operators where ONNX calls them optional. */
static void drop_unread_outputs(struct pass *p, struct node *n)
{
    if (n->op != OP_MaxPool && n->op != OP_Dropout && n->op != OP_BatchNormalization &&
        n->op != OP_LayerNormalization)
        return;
    while (n->n_out > 1 &&
           (n->out[n->n_out - 1] == VALUE_NONE || !p->n_readers[n->out[n->n_out - 1]]))
        n->n_out--;
}

int pass_count(struct pass *p)
{
    struct graph *g = p->g;
    size_t bytes = (size_t)g->n_values * sizeof(uint32_t);

    if (g->n_values > p->n_counted) {
        p->n_readers = arena_alloc(&p->prepared->scratch, bytes);
        p->first = arena_alloc(&p->prepared->scratch, bytes);
        p->last = arena_alloc(&p->prepared->scratch, bytes);
        if (!p->n_readers || !p->first || !p->last)
            return -ENOMEM;
        p->n_counted = g->n_values;
    }
    memset(p->n_readers, 0, bytes);
    memset(p->first, 0xff, bytes);
    memset(p->last, 0xff, bytes);
    for (uint32_t i = 0; i < g->n_out; i++)
        count_read(p, g->out[i], NODE_NONE);
    for (uint32_t id = g->n_nodes; id-- > 0;) {
        struct node *n = &g->nodes[id];
        if (n->op == OP_NONE || !node_is_read(p, n)) {
            n->op = OP_NONE;
            continue;
        }
        drop_unread_outputs(p, n);
        for (uint32_t i = 0; i < n->n_in; i++)
            count_read(p, n->in[i], id);
        for (uint32_t i = 0; i < n->n_post; i++)
            if (n->post[i].kind == POST_ADD)
                count_read(p, n->post[i].value, id);
    }
    return 0;
}

bool pass_read_times(const struct pass *p, uint32_t value, uint32_t n)
{
    return value < p->n_counted && p->n_readers[value] == n;
}

uint32_t pass_sole_reader(const struct pass *p, uint32_t value)
{
    return pass_read_times(p, value, 1) ? p->first[value] : NODE_NONE;
}

uint32_t pass_made_by(const struct pass *p, uint32_t value, enum op_id op)
{
    uint32_t id = value == VALUE_NONE ? NODE_NONE : p->g->values[value].producer;

    if (id == NODE_NONE)
        return NODE_NONE;
    const struct node *n = &p->g->nodes[id];
    return n->op == op && n->n_post == 0 && n->out[0] == value ? id : NODE_NONE;
}

const struct constant *pass_constant(const struct pass *p, uint32_t value)
{
    return value == VALUE_NONE ? NULL : p->g->values[value].constant;
}

uint32_t node_other(const struct node *n, uint32_t value)
{
    return n->in[0] == value ? n->in[1] : n->in[0];
}

bool pass_number(const struct pass *p, uint32_t value, double *ret)
{
    const struct constant *c = pass_constant(p, value);
    union {
        float f;
        double d;
        int64_t i;
        int32_t w;
    } u;
    int64_t n;

    if (!c || !c->t.data || tensor_count(&c->t, &n) < 0 || n != 1 || c->t.bytes > sizeof(u))
        return false;
    memcpy(&u, c->t.data, c->t.bytes);
    switch (c->t.dtype) {
    case DT_FP32:
        *ret = (double)u.f;
        return true;
    case DT_FP64:
        *ret = u.d;
        return true;
    case DT_INT64:
        *ret = (double)u.i;
        return true;
    case DT_INT32:
        *ret = u.w;
        return true;
    default:
        return false;
    }
}

uint32_t pass_other_than_number(const struct pass *p, const struct node *n, double want)
{
    double x;

    for (uint32_t i = 0; i < 2 && n->n_in == 2; i++)
        if (pass_number(p, n->in[i], &x) && fabs(x - want) <= 1e-5 * fabs(want))
            return n->in[1 - i];
    return VALUE_NONE;
}

bool pass_same_rank(const struct pass *p, uint32_t in, uint32_t out)
{
    return p->g->values[in].rank >= 0 && p->g->values[in].rank == p->g->values[out].rank;
}

bool dims_same(const struct value *a, const struct value *b)
{
    if (a->rank < 0 || a->rank != b->rank || a->dtype != b->dtype)
        return false;
    for (int32_t i = 0; i < a->rank; i++)
        if (a->dims[i].sym == SYM_VARIES || a->dims[i].sym != b->dims[i].sym ||
            a->dims[i].scale != b->dims[i].scale)
            return false;
    return true;
}

static int axis_mark(int64_t axis, uint32_t rank, bool ret[MAX_RANK])
{
    if (axis < 0)
        axis += rank;
    if (axis < 0 || axis >= rank)
        return -EINVAL;
    ret[axis] = true;
    return 0;
}

int axes_read(const struct node *n, const struct tensor *input, uint32_t rank, bool ret[MAX_RANK])
{
    uint32_t n_axes;
    const int64_t *axes = node_ints(n, "axes", &n_axes);

    memset(ret, 0, MAX_RANK * sizeof(*ret));
    if (input && (!input->data || input->dtype != DT_INT64))
        return -ENOTSUP;
    if (input) {
        axes = input->data;
        n_axes = (uint32_t)(input->bytes / sizeof(*axes));
    }
    for (uint32_t i = 0; i < n_axes; i++)
        if (axis_mark(axes[i], rank, ret) < 0)
            return -EINVAL;
    if (n_axes == 0 && !node_int(n, "noop_with_empty_axes", 0))
        memset(ret, true, rank);
    return 0;
}

void pass_absorb(struct pass *p, uint32_t into, uint32_t gone)
{
    struct node *n = &p->g->nodes[into], *m = &p->g->nodes[gone];

    n->out[0] = m->out[0];
    p->g->values[n->out[0]].producer = into;
    m->op = OP_NONE;
}

int pass_become(struct pass *p, uint32_t node, enum op_id op, uint32_t n_in, const uint32_t *in)
{
    struct node *n = &p->g->nodes[node];
    uint32_t *copy = arena_memdup(&p->g->arena, in, n_in * sizeof(*in));

    if (!copy)
        return -ENOMEM;
    n->op = op;
    n->in = copy;
    n->n_in = n_in;
    n->attr = NULL;
    n->n_attr = 0;
    return 0;
}

int pass_set_input(struct pass *p, uint32_t node, uint32_t i, uint32_t value)
{
    struct node *n = &p->g->nodes[node];

    if (i >= n->n_in) {
        uint32_t *in = ARENA_ARRAY(&p->g->arena, uint32_t, i + 1);
        if (!in)
            return -ENOMEM;
        memset(in, 0xff, (i + 1) * sizeof(*in));
        memcpy(in, n->in, n->n_in * sizeof(*in));
        n->in = in;
        n->n_in = i + 1;
    }
    n->in[i] = value;
    return 0;
}

const struct constant *made_find(struct pass *p, struct hash128 key)
{
    return prepared_find(p->prepared, key, &p->g->arena);
}

/* prepared.bin takes large constants; but not strings, whose elements have no fixed size. */
static bool goes_to_file(const struct tensor *t)
{
    return t->bytes > SMALL_CONST_BYTES && dtype_size(t->dtype);
}

int made_new(struct pass *p, struct tensor *t)
{
    struct arena *a = goes_to_file(t) ? p->prepared->data : &p->g->arena;

    t->data = arena_alloc(a, t->bytes);
    return t->data ? 0 : -ENOMEM;
}

int made_shrink(struct pass *p, size_t before_bytes, struct tensor *t)
{
    if (before_bytes > SMALL_CONST_BYTES && !goes_to_file(t))
        t->data = arena_memdup(&p->g->arena, t->data, t->bytes);
    return t->data ? 0 : -ENOMEM;
}

const struct constant *made_add(struct pass *p, struct hash128 key, const struct tensor *t)
{
    struct constant *c = ARENA_NEW(&p->g->arena, struct constant);

    if (!c)
        return NULL;
    c->t = *t;
    c->source = CONST_ARENA;
    constant_seal(c);
    if (goes_to_file(t) && prepared_note(p->prepared, c, key) < 0)
        return NULL;
    return c;
}

int made_value(struct pass *p, const char *name, const struct constant *c, uint32_t *ret)
{
    struct dim dims[MAX_RANK];

    for (uint32_t i = 0; i < c->t.rank; i++)
        dims[i] = (struct dim){.scale = c->t.dims[i], .sym = SYM_CONST};
    int r = graph_add_value(p->g, name, c->t.dtype, (int32_t)c->t.rank, dims, ret);
    if (r == 0)
        p->g->values[*ret].constant = c;
    return r;
}

const struct tensor *pass_aligned(struct pass *p, const struct constant *c)
{
    if (constant_is_aligned(c))
        return &c->t;
    struct tensor *t = arena_memdup(&p->prepared->aligned, &c->t, sizeof(c->t));
    if (t)
        t->data = arena_memdup(&p->prepared->aligned, c->t.data, c->t.bytes);
    constant_drop(c);
    return t && t->data ? t : NULL;
}

void pass_next(struct pass *p)
{
    arena_done(&p->prepared->aligned);
}
