/* Numbers for the free dimensions: concrete shapes for every value, shape arithmetic evaluated,
 * and what a node costs.
 *
 * A node is evaluated here, with the reference kernels, when all its inputs are known (constants,
 * or results of such nodes) or it asks for a shape only.  That is bounded three times: by the
 * size of one result, by the bytes and by the operations of one bind.  What is over a bound is
 * left to run on the device, as is an operator or type that the reference kernels lack.
 *
 * A node is late when it reads a late value, when its rule asks for data that nobody knows yet,
 * which a rule of a node with bodies always does, and when the size of a result depends on data and
 * it was not evaluated. */
#include "infer.h"
#include <gpulet/model.h>
#include <kernels/ref/ref.h>

#define EVAL_MAX_BYTES (UINT64_C(64) << 20) /* results evaluated by one bind */
#define EVAL_MAX_FLOPS 1e8

struct binding {
    struct bound *b;
    struct arena *a;
    struct err *err;
    size_t eval_bytes;
    double eval_flops;
    const struct tensor **in; /* of the node at hand */
    struct tensor *out, **out_ptr;
};

static const struct tensor *value_of(const struct bound *b, uint32_t id)
{
    return id == VALUE_NONE ? NULL : &b->value[id];
}

/* "node 12 'conv1' (Conv): " in front of the message. */
static int node_wrap(struct binding *s, uint32_t i, int rc)
{
    const struct node *n = &s->b->graph->nodes[i];

    (void)err_wrap(s->err, "node %u '%.64s' (%s): ", i, n->name, op_name(n->op));
    return rc;
}

int graph_check_size(const struct graph *g, const struct tensor *t, struct err *err)
{
    const struct model_limits *max = &g->limits;
    char buf[160];
    int64_t n;

    (void)dims_print(t->rank, t->dims, buf, sizeof(buf));
    if (t->bytes > max->tensor_bytes)
        return err_set(err, -EINVAL, "shape %s of %s has %zu bytes (at most %llu)", buf,
                       dtype_name(t->dtype), t->bytes, (unsigned long long)max->tensor_bytes);
    if (tensor_count(t, &n) < 0 || (uint64_t)n > max->tensor_elems)
        return err_set(err, -EINVAL, "shape %s has more than %llu elements", buf,
                       (unsigned long long)max->tensor_elems);
    return 0;
}

/* Strings have a shape, but only a run tells their size. */
static int bind_input(struct binding *s, uint32_t id)
{
    const struct value *v = &s->b->graph->values[id];
    int64_t dims[MAX_RANK];

    for (int32_t i = 0; i < v->rank; i++) {
        int64_t times = v->dims[i].sym >= 0 ? s->b->key.dim[v->dims[i].sym] : 1;
        if (v->dims[i].sym == SYM_VARIES ||
            __builtin_mul_overflow(times, v->dims[i].scale, &dims[i]) || dims[i] < 0 ||
            dims[i] > MAX_DIM)
            return err_set(s->err, -EINVAL, "input '%.64s': dimension %d cannot be %lld", v->name,
                           i, (long long)times);
    }
    if (v->rank < 0 || tensor_shape(&s->b->value[id], v->dtype, (uint32_t)v->rank, dims) < 0)
        return err_set(s->err, -EINVAL, "input '%.64s': its shape is unknown or too large",
                       v->name);
    if (graph_check_size(s->b->graph, &s->b->value[id], s->err) < 0) {
        (void)err_wrap(s->err, "input '%.64s': ", v->name);
        return -EINVAL;
    }
    s->b->late_value[id] = v->dtype == DT_STRING;
    return 0;
}

/* ---- what is late */

static bool reads_shape_only(const struct node *n)
{
    return n->op == OP_Shape || n->op == OP_Size;
}

static bool reads_late(const struct bound *b, const struct node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != VALUE_NONE && b->late_value[n->in[i]] &&
            !(reads_shape_only(n) && b->value[n->in[i]].dtype))
            return true;
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD && b->late_value[n->post[i].value])
            return true;
    return false;
}

static void bind_late(struct bound *b, uint32_t i)
{
    const struct node *n = &b->graph->nodes[i];

    b->late_node[i] = true;
    b->n_late++;
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != VALUE_NONE) {
            b->late_value[n->out[k]] = true;
            b->value[n->out[k]] = (struct tensor){0};
        }
}

/* The rule gave no more than an upper bound, unless the node was evaluated. */
static bool sizes_depend_on_data(const struct binding *s, const struct node *n)
{
    if (infer_by_data(n->op))
        return true;
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != VALUE_NONE && s->out[k].dtype == DT_STRING)
            return true;
    return false;
}

/* ---- shape arithmetic */

static bool is_known(const struct tensor *t)
{
    size_t each = t && t->dtype != DT_STRING ? dtype_size(t->dtype) : 1;

    /* Reference kernels need aligned data; large constants may lie in the file without. */
    return !t || (t->data && each && (uintptr_t)t->data % each == 0);
}

static bool all_known(const struct binding *s, const struct node *n)
{
    if (reads_shape_only(n))
        return true;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!is_known(s->in[i]))
            return false;
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD && !is_known(value_of(s->b, n->post[i].value)))
            return false;
    return true;
}

/* Are the results small enough, and is there budget left?  Takes from the budget. */
static bool may_evaluate(struct binding *s, uint32_t i)
{
    const struct node *n = &s->b->graph->nodes[i];
    size_t bytes = 0;

    if (!all_known(s, n))
        return false;
    for (uint32_t k = 0; k < n->n_out; k++) {
        int64_t count;
        if (s->out[k].dtype == DT_NONE || tensor_count(&s->out[k], &count) < 0 ||
            count > BIND_EVAL_MAX_ELEMS || s->out[k].bytes > BIND_EVAL_MAX_ELEMS * sizeof(int64_t))
            return false;
        bytes += s->out[k].bytes;
    }
    double flops = node_cost(s->b, i).flops;
    if (s->eval_bytes + bytes > EVAL_MAX_BYTES || s->eval_flops + flops > EVAL_MAX_FLOPS)
        return false;
    s->eval_bytes += bytes;
    s->eval_flops += flops;
    return true;
}

static int evaluate(struct binding *s, uint32_t i)
{
    const struct node *n = &s->b->graph->nodes[i];
    const struct tensor *add[MAX_POST] = {0};

    for (uint32_t k = 0; k < n->n_out; k++) {
        s->out[k].data = arena_alloc(s->a, s->out[k].bytes);
        s->out_ptr[k] = n->out[k] == VALUE_NONE ? NULL : &s->out[k];
        if (!s->out[k].data)
            return err_set(s->err, -ENOMEM, "out of memory");
    }
    for (uint32_t k = 0; k < n->n_post; k++)
        if (n->post[k].kind == POST_ADD)
            add[k] = value_of(s->b, n->post[k].value);
    int rc = ref_run(n, s->in, add, s->out_ptr, s->err);
    if (rc == -ENOTSUP) { /* the device may know it */
        for (uint32_t k = 0; k < n->n_out; k++)
            s->out[k].data = NULL;
        return 0;
    }
    if (rc == 0)
        s->b->skip[i] = true;
    return rc;
}

/* ---- binding */

static int bind_node(struct binding *s, uint32_t i)
{
    const struct node *n = &s->b->graph->nodes[i];
    struct err err = {0};
    int rc = -ENODATA;

    for (uint32_t k = 0; k < n->n_in; k++)
        s->in[k] = value_of(s->b, n->in[k]);
    memset(s->out, 0, n->n_out * sizeof(*s->out));
    if (!reads_late(s->b, n))
        rc = node_infer(n, s->in, s->out, &err);
    if (rc == -ENODATA) {
        bind_late(s->b, i);
        return 0;
    }
    if (rc < 0) {
        *s->err = err;
        return node_wrap(s, i, rc);
    }
    for (uint32_t k = 0; k < n->n_out; k++) {
        if ((rc = graph_check_size(s->b->graph, &s->out[k], s->err)) < 0)
            return node_wrap(s, i, rc);
        if (n->out[k] != VALUE_NONE) /* node_cost() looks there */
            s->b->value[n->out[k]] = s->out[k];
    }
    if (may_evaluate(s, i) && (rc = evaluate(s, i)) < 0)
        return node_wrap(s, i, rc);
    if (!s->b->skip[i] && sizes_depend_on_data(s, n))
        bind_late(s->b, i);
    for (uint32_t k = 0; s->b->skip[i] && k < n->n_out; k++)
        if (n->out[k] != VALUE_NONE)
            s->b->value[n->out[k]] = s->out[k]; /* the kernel may have made it smaller */
    return 0;
}

static int bind_all(struct binding *s)
{
    const struct graph *g = s->b->graph;
    int rc = 0;

    for (uint32_t i = 0; i < g->n_values; i++)
        if (g->values[i].constant)
            s->b->value[i] = g->values[i].constant->t;
    for (uint32_t i = 0; rc == 0 && i < g->n_in; i++)
        rc = bind_input(s, g->in[i]);
    for (uint32_t i = 0; rc == 0 && i < g->n_nodes; i++)
        rc = bind_node(s, i);
    return rc;
}

static int binding_init(struct binding *s, const struct graph *g, const struct shape_key *key)
{
    uint32_t max_in = 0, max_out = 0;

    for (uint32_t i = 0; i < g->n_nodes; i++) {
        max_in = MAX(max_in, g->nodes[i].n_in);
        max_out = MAX(max_out, g->nodes[i].n_out);
    }
    s->in = ARENA_ARRAY(s->a, const struct tensor *, max_in);
    s->out = ARENA_ARRAY(s->a, struct tensor, max_out);
    s->out_ptr = ARENA_ARRAY(s->a, struct tensor *, max_out);
    s->b = ARENA_NEW(s->a, struct bound);
    if (!s->in || !s->out || !s->out_ptr || !s->b)
        return -ENOMEM;
    s->b->graph = g;
    s->b->key = *key;
    s->b->value = ARENA_ARRAY(s->a, struct tensor, g->n_values);
    s->b->skip = ARENA_ARRAY(s->a, bool, g->n_nodes);
    s->b->late_node = ARENA_ARRAY(s->a, bool, g->n_nodes);
    s->b->late_value = ARENA_ARRAY(s->a, bool, g->n_values);
    return s->b->value && s->b->skip && s->b->late_node && s->b->late_value ? 0 : -ENOMEM;
}

int graph_bind_shapes(const struct graph *g, const struct shape_key *key, struct arena *a,
                      struct bound **ret, struct err *err)
{
    struct err own = {0};
    struct binding s = {.a = a, .err = err ? err : &own};

    if (key->n != g->n_syms)
        return err_set(err, -EINVAL, "a shape key of %u numbers, the model has %u free dimensions",
                       key->n, g->n_syms);
    for (uint32_t i = 0; i < key->n; i++)
        if (key->dim[i] < 0)
            return err_set(err, -EINVAL, "free dimension '%.64s' cannot be %lld", g->syms[i].name,
                           (long long)key->dim[i]);
    if (binding_init(&s, g, key) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    int rc = bind_all(&s);
    if (rc == 0)
        *ret = s.b;
    return rc;
}

/* ---- memory: what is made by one node and read by others is alive between them */

static void note_read(uint32_t *last, uint32_t value, uint32_t node)
{
    if (value != VALUE_NONE)
        last[value] = node;
}

/* By value: the last node that reads it; outputs are read behind all nodes. */
static void find_last(const struct graph *g, uint32_t *last)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        for (uint32_t k = 0; k < g->nodes[i].n_in; k++)
            note_read(last, g->nodes[i].in[k], i);
        for (uint32_t k = 0; k < g->nodes[i].n_post; k++)
            if (g->nodes[i].post[k].kind == POST_ADD)
                note_read(last, g->nodes[i].post[k].value, i);
    }
    for (uint32_t i = 0; i < g->n_out; i++)
        last[g->out[i]] = g->n_nodes;
}

/* Are the values that are alive at once within the limit? */
static int check_live(struct binding *s)
{
    const struct graph *g = s->b->graph;
    uint32_t *last = ARENA_ARRAY(s->a, uint32_t, g->n_values);
    int64_t *change = ARENA_ARRAY(s->a, int64_t, (size_t)g->n_nodes + 2), live = 0, most = 0;
    uint32_t at = 0;

    if (!last || !change)
        return err_set(s->err, -ENOMEM, "out of memory");
    find_last(g, last);
    for (uint32_t v = 0; v < g->n_values; v++) {
        const struct tensor *t = &s->b->value[v];
        uint32_t from = g->values[v].producer == NODE_NONE ? 0 : g->values[v].producer;
        if (t->data || from > last[v])
            continue;
        change[from] += (int64_t)t->bytes; /* at most tensor_bytes for each of a million */
        change[last[v] + 1] -= (int64_t)t->bytes;
    }
    for (uint32_t i = 0; i <= g->n_nodes; i++) {
        live += change[i];
        at = live > most ? i : at;
        most = MAX(most, live);
    }
    if ((uint64_t)most <= g->limits.live_bytes)
        return 0;
    const struct node *n = g->n_nodes ? &g->nodes[MIN(at, g->n_nodes - 1)] : NULL;
    return err_set(s->err, -EINVAL,
                   "a run needs %lld bytes at a time (at most %llu), at node '%.64s'",
                   (long long)most, (unsigned long long)g->limits.live_bytes, n ? n->name : "");
}

int graph_bind(const struct graph *g, const struct shape_key *key, struct arena *a,
               struct bound **ret, struct err *err)
{
    struct bound *b;
    struct err own = {0};
    int rc = graph_bind_shapes(g, key, a, &b, err);
    struct binding s = {.a = a, .err = err ? err : &own, .b = rc == 0 ? b : NULL};

    if (rc == 0)
        rc = check_live(&s);
    if (rc == 0)
        *ret = b;
    return rc;
}
