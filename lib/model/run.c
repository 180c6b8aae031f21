/* Running nodes one by one: shapes are found from the data at hand, results are allocated, the
 * kernel is called, and what it made smaller is noted.  This is how late nodes run, and the
 * bodies inside them (run_flow.c). */
#include "run.h"
#include <gpulet/model.h>
#include <kernels/ref/ref.h>

struct running {
    const struct graph_run *r;
    const struct tensor **in; /* of the node at hand */
    struct tensor *out, **out_ptr;
    struct err *err;
};

/* "node 12 'conv1' (Conv): " in front of the message. */
static int run_wrap(struct running *s, uint32_t i)
{
    const struct node *n = &s->r->graph->nodes[i];

    return err_wrap(s->err, "node %u '%.64s' (%s): ", i, n->name, op_name(n->op));
}

void *run_alloc(struct arena *a, size_t bytes, struct err *err)
{
    void *p = arena_alloc(a, bytes);

    if (!p && a->limit_bytes)
        (void)err_set(err, -ENOMEM, "%zu bytes are needed, %zu of the run's %zu are left", bytes,
                      a->limit_bytes - MIN(a->total_bytes, a->limit_bytes), a->limit_bytes);
    else if (!p)
        (void)err_set(err, -ENOMEM, "out of memory for %zu bytes", bytes);
    return p;
}

/* Kernels get no NULL, and constants aligned to their elements. */
static int take_value(const struct graph_run *r, uint32_t id, struct err *err)
{
    static const _Alignas(16) char empty[16];
    const struct constant *c = r->graph->values[id].constant;
    struct tensor *t = &r->value[id];

    if (t->dtype == DT_NONE && c) {
        *t = c->t;
        size_t each = dtype_size(t->dtype);
        if (each && (uintptr_t)t->data % each != 0) {
            if (!(t->data = run_alloc(r->arena, t->bytes, err)))
                return -ENOMEM;
            memcpy(t->data, c->t.data, t->bytes);
        }
    }
    if (t->dtype != DT_NONE && !t->data && t->bytes == 0)
        t->data = (void *)(uintptr_t)empty;
    return 0;
}

static int take_input(struct running *s, uint32_t id, const struct tensor **ret)
{
    *ret = NULL;
    if (id == VALUE_NONE)
        return 0;
    *ret = &s->r->value[id];
    if (!(*ret)->data && take_value(s->r, id, s->err) < 0)
        return -ENOMEM;
    if ((*ret)->dtype == DT_NONE || !(*ret)->data)
        return err_set(s->err, -EINVAL, "input '%.64s' is not known", s->r->graph->values[id].name);
    return 0;
}

static int make_room(struct running *s, const struct node *n)
{
    for (uint32_t k = 0; k < n->n_out; k++) {
        struct tensor *t = &s->out[k];
        s->out_ptr[k] = n->out[k] == VALUE_NONE ? NULL : t;
        if (!s->out_ptr[k])
            continue;
        int rc = graph_check_size(s->r->graph, t, s->err);
        if (rc < 0)
            return rc;
        if (!(t->data = run_alloc(s->r->arena, t->bytes, s->err)))
            return -ENOMEM;
    }
    return 0;
}

static int call_kernel(struct running *s, const struct node *n)
{
    const struct graph_run *r = s->r;
    const struct tensor *add[MAX_POST] = {0};
    int rc = 0;

    for (uint32_t k = 0; rc == 0 && k < n->n_post; k++)
        if (n->post[k].kind == POST_ADD)
            rc = take_input(s, n->post[k].value, &add[k]);
    if (rc < 0)
        return rc;
    return r->run ? r->run(r->ctx, n, s->in, add, s->out_ptr, r->arena, s->err)
                  : ref_run(n, s->in, add, s->out_ptr, s->err);
}

static int run_plain(struct running *s, const struct node *n)
{
    int rc = node_infer(n, s->in, s->out, s->err);

    if (rc == -ENODATA) /* all data is here: what is missing has none */
        rc = s->err->code = -EINVAL;
    if (rc == 0)
        rc = make_room(s, n);
    return rc < 0 ? rc : call_kernel(s, n);
}

static int run_node(struct running *s, uint32_t i)
{
    const struct node *n = &s->r->graph->nodes[i];
    flow_fn *flow = flow_find(n->op);
    struct flow f = {.r = s->r, .n = n, .in = s->in, .out = s->out, .err = s->err};
    int rc = 0;

    for (uint32_t k = 0; rc == 0 && k < n->n_in; k++)
        rc = take_input(s, n->in[k], &s->in[k]);
    memset(s->out, 0, n->n_out * sizeof(*s->out));
    if (rc == 0)
        rc = flow ? flow(&f) : run_plain(s, n);
    if (rc < 0)
        return run_wrap(s, i);
    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != VALUE_NONE)
            s->r->value[n->out[k]] = s->out[k];
    return 0;
}

static int running_init(struct running *s)
{
    const struct graph *g = s->r->graph;
    uint32_t max_in = 0, max_out = 0;

    for (uint32_t i = 0; i < g->n_nodes; i++) {
        max_in = MAX(max_in, g->nodes[i].n_in);
        max_out = MAX(max_out, g->nodes[i].n_out);
    }
    s->in = run_alloc(s->r->arena, max_in * sizeof(*s->in), s->err);
    s->out = run_alloc(s->r->arena, max_out * sizeof(*s->out), s->err);
    s->out_ptr = run_alloc(s->r->arena, max_out * sizeof(*s->out_ptr), s->err);
    return s->in && s->out && s->out_ptr ? 0 : -ENOMEM;
}

int graph_run(const struct graph_run *r, struct err *err)
{
    struct graph_run own = *r;
    struct err ignored = {0};
    struct running s = {.r = &own, .err = err ? err : &ignored};
    uint64_t left = r->graph->limits.loop_iterations;
    int rc = running_init(&s);

    if (!own.iterations_left)
        own.iterations_left = &left;
    for (uint32_t i = 0; rc == 0 && i < r->graph->n_nodes; i++)
        if (!r->only || r->only[i])
            rc = run_node(&s, i);
    for (uint32_t i = 0; rc == 0 && i < r->graph->n_out; i++) /* an output may be a constant */
        rc = take_value(&own, r->graph->out[i], s.err);
    return rc;
}
