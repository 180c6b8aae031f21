/* The late part of a run: nodes whose shapes come to be known only now.  Also for the cuda backend,
 * which has no kernels for it.
 *
 * One last step of the exe reads the row-major values that late nodes need, and graph_run() runs
 * the nodes one by one: each is planned with our kernels where they take it, and done by the
 * reference's loops where not.  Whatever they make lies in an arena that is bounded by
 * limits.late-bytes; its blocks stay with the slot when the run ends, for the next one, so that
 * runs of the same sizes take no memory.  The outputs are copied out of it, to memory that stays in
 * the same way, until the next run of the slot. */
#include "build.h"
#include <kernels/ref/ref.h>

/* ---- compile */

static bool is_output(const struct graph *g, uint32_t v)
{
    for (uint32_t i = 0; i < g->n_out; i++)
        if (g->out[i] == v)
            return true;
    return false;
}

/* Strings that come in and go out again are read, too. */
static void mark_reads(const struct bound *b, bool *read)
{
    const struct graph *g = b->graph;

    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        if (!b->late_node[i] || b->skip[i])
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != VALUE_NONE)
                read[n->in[k]] = true;
        for (uint32_t k = 0; k < n->n_post; k++)
            if (n->post[k].kind == POST_ADD)
                read[n->post[k].value] = true;
    }
    for (uint32_t i = 0; i < g->n_in; i++)
        read[g->in[i]] |= b->late_value[g->in[i]] && is_output(g, g->in[i]);
}

/* Is it there before the late part begins? */
static bool is_given(const struct bound *b, uint32_t v)
{
    return !b->graph->values[v].constant &&
           (!b->late_value[v] || b->graph->values[v].producer == NODE_NONE);
}

int late_plan(const struct bound *b, struct arena *a, struct late *ret, struct err *err)
{
    uint32_t n = b->graph->n_values;
    bool *read = ARENA_ARRAY(a, bool, n);

    *ret = (struct late){.bound = b, .in = ARENA_ARRAY(a, uint32_t, n)};
    if (!read || !ret->in)
        return err_set(err, -ENOMEM, "out of memory");
    mark_reads(b, read);
    for (uint32_t v = 0; v < n; v++)
        if (read[v] && is_given(b, v))
            ret->in[ret->n_in++] = v;
    return 0;
}

int lower_late(struct build *b)
{
    struct exe *x = b->exe;
    struct ref *refs = ARENA_ARRAY(&b->scratch, struct ref, b->graph->n_values);
    struct cpu_call none = {.run = NULL};
    int r = refs ? late_plan(b->bound, &x->arena, &x->late, b->err)
                 : err_set(b->err, -ENOMEM, "out of memory");

    for (uint32_t i = 0; r == 0 && i < x->late.n_in; i++)
        r = build_rows(b, x->late.in[i], &refs[i]);
    if (r == 0)
        r = build_call(b, &none, x->late.n_in, refs);
    if (r == 0)
        x->step[x->n_steps - 1].is_late = true;
    return r;
}

/* ---- run */

static int run_posts(const struct node *n, const struct tensor *const *add, struct tensor *y,
                     struct arena *a)
{
    int r = 0;

    for (uint32_t i = 0; i < n->n_post && r == 0; i++) {
        void *ptr[2] = {y->data, add && add[i] ? add[i]->data : NULL};
        struct cpu_call call;
        r = cpu_plan_post(&n->post[i], y, a, &call);
        if (r == 0)
            r = call.run(call.params, ptr);
    }
    return r;
}

static bool has_strings(const struct tensor *const *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (t[i] && t[i]->dtype == DT_STRING)
            return true;
    return false;
}

static void *address(const struct tensor *t)
{
    return t ? t->data : NULL;
}

/* -ENOTSUP: no fast kernel takes it. */
static int run_fast(const struct node *n, const struct tensor *const *in,
                    const struct tensor *const *add, struct tensor *const *out, struct arena *a)
{
    const struct cpu_args args = {
        .node = n, .in = in, .out = (const struct tensor *const *)out, .arena = a};
    struct cpu_call call;
    struct err ignored;

    if (has_strings(in, n->n_in) || has_strings((const struct tensor *const *)out, n->n_out))
        return -ENOTSUP;
    int r = cpu_plan(&args, &call, &ignored);
    if (r < 0 || call.plain)
        return r == -ENOMEM ? r : -ENOTSUP;
    void **ptr = ARENA_ARRAY(a, void *, n->n_in + n->n_out);
    if (!ptr)
        return -ENOMEM;
    for (uint32_t i = 0; i < n->n_in; i++)
        ptr[i] = address(in[i]);
    for (uint32_t i = 0; i < n->n_out; i++)
        ptr[n->n_in + i] = address(out[i]);
    r = call.run(call.params, ptr);
    return r < 0 || !n->n_post ? r : run_posts(n, add, out[0], a);
}

static int run_node(void *ctx, const struct node *n, const struct tensor *const *in,
                    const struct tensor *const *add, struct tensor *const *out, struct arena *a,
                    struct err *err)
{
    int r = run_fast(n, in, add, out, a);

    (void)ctx;
    if (r == -ENOTSUP)
        return ref_run(n, in, add, out, err);
    return r < 0 ? err_set(err, r, "node '%s' (%s): %s", n->name, op_name(n->op),
                           r == -ENOMEM ? "out of memory" : "a value in its input is out of range")
                 : 0;
}

/* Strings in memory are well-formed: whoever took them from outside has looked. */
static size_t strings_bytes(const struct tensor *t, const char *data)
{
    int64_t count = 0;
    size_t at = 0;

    (void)tensor_count(t, &count);
    for (int64_t i = 0; i < count; i++) {
        uint32_t n;
        memcpy(&n, data + at, sizeof(n));
        at += sizeof(n) + n;
    }
    return at;
}

static void give_inputs(const struct late *l, struct tensor *value, void *const *ptr)
{
    memset(value, 0, l->bound->graph->n_values * sizeof(*value));
    for (uint32_t i = 0; i < l->n_in; i++) {
        struct tensor *t = &value[l->in[i]];
        *t = l->bound->value[l->in[i]];
        t->data = ptr[i];
        if (t->dtype == DT_STRING)
            t->bytes = strings_bytes(t, t->data);
    }
}

static void outputs_drop(struct late_slot *s)
{
    free(s->memory);
    s->memory = NULL;
    s->room = 0;
}

/* Twice as much as is lacking, so that what grows slowly does not take memory each time. */
static int outputs_room(struct late_slot *s, size_t bytes)
{
    size_t room = bytes <= LATE_KEPT_BYTES / 2 ? MAX(2 * bytes, 64u) : bytes;

    if (s->memory && bytes <= s->room)
        return 0;
    outputs_drop(s);
    s->memory = aligned_alloc(64, room);
    s->room = s->memory ? room : 0;
    return s->memory ? 0 : -ENOMEM;
}

/* The late outputs, each at 64 bytes, in memory of their own. */
static int keep_outputs(const struct late *l, struct late_slot *s, struct err *err)
{
    const struct graph *g = l->bound->graph;
    size_t at[MAX_IO], bytes = 0;

    for (uint32_t i = 0; i < g->n_out; i++) {
        at[i] = bytes;
        if (l->bound->late_value[g->out[i]])
            bytes += align_up(s->value[g->out[i]].bytes, 64);
    }
    if (outputs_room(s, bytes) < 0)
        return err_set(err, -ENOMEM, "no memory for outputs of %zu bytes", bytes);
    for (uint32_t i = 0; i < g->n_out; i++) {
        if (!l->bound->late_value[g->out[i]])
            continue;
        s->out[i] = s->value[g->out[i]];
        s->out[i].data = s->memory + at[i];
        if (s->out[i].bytes)
            memcpy(s->out[i].data, s->value[g->out[i]].data, s->out[i].bytes);
    }
    return 0;
}

static void arena_from(struct arena *a, struct late_slot *s)
{
    s->cache.limit_bytes = LATE_KEPT_BYTES;
    arena_init(a);
    a->cache = &s->cache;
}

int late_run(const struct late *l, struct late_slot *s, void *const *ptr, size_t limit_bytes,
             struct err *err)
{
    struct arena a;
    struct graph_run run = {.graph = l->bound->graph,
                            .only = l->bound->late_node,
                            .value = s->value,
                            .arena = &a,
                            .run = run_node};

    if (s->room > LATE_KEPT_BYTES)
        outputs_drop(s);
    arena_from(&a, s);
    a.limit_bytes = limit_bytes;
    give_inputs(l, s->value, ptr);
    ref_lend(&s->cache);
    int r = graph_run(&run, err);
    ref_lend(NULL);
    if (r == 0)
        r = keep_outputs(l, s, err);
    arena_done(&a);
    return r;
}

/* Late nodes make things of the size of what they read: each of it once, where nothing else is
 * known. */
int late_reserve(const struct late *l, struct late_slot *s)
{
    struct arena a;
    bool all = true;

    arena_from(&a, s);
    for (uint32_t i = 0; i < l->n_in && all; i++) {
        size_t bytes = l->bound->value[l->in[i]].bytes;
        all = a.total_bytes > LATE_KEPT_BYTES / 2 || bytes > LATE_KEPT_BYTES ||
              arena_alloc(&a, bytes);
    }
    arena_done(&a);
    return all ? outputs_room(s, 64) : -ENOMEM;
}

void late_forget(struct late_slot *s)
{
    outputs_drop(s);
    arena_cache_done(&s->cache);
}

const struct host_late host_late = {
    .plan = late_plan, .reserve = late_reserve, .run = late_run, .forget = late_forget};
