/* Values, buffers and steps while an exe is made. */
#include "build.h"

#define MAX_STEPS 1000000u

int build_fail(struct build *b, int code, const char *what)
{
    const struct node *n = &b->graph->nodes[b->node];

    return err_set(b->err, code, "node '%s' (%s): %s", n->name, op_name(n->op), what);
}

static int no_memory(struct build *b)
{
    return err_set(b->err, -ENOMEM, "out of memory");
}

/* Room for one more, by doubling in the arena. */
static void *more(struct arena *a, void *array, uint32_t n, uint32_t *cap, size_t each)
{
    if (n < *cap)
        return array;
    uint32_t to = n ? n * 2 : 32;
    void *grown = n < MAX_STEPS ? arena_array(a, to, each) : NULL;
    if (grown && n)
        memcpy(grown, array, n * each);
    if (grown)
        *cap = to;
    return grown;
}

int build_buf(struct build *b, size_t bytes, uint32_t *ret)
{
    struct exe *x = b->exe;
    uint32_t cap = b->cap_bufs, same = b->cap_bufs;
    struct buffer *buf = more(&b->scratch, x->buf, x->n_bufs, &cap, sizeof(*buf));
    struct buf_state *state = more(&b->scratch, b->state, x->n_bufs, &same, sizeof(*state));

    if (!buf || !state)
        return no_memory(b);
    b->cap_bufs = cap;
    x->buf = buf;
    b->state = state;
    buf[x->n_bufs] = (struct buffer){.bytes = bytes, .first = UINT32_MAX};
    state[x->n_bufs] = (struct buf_state){0};
    *ret = x->n_bufs++;
    return 0;
}

static void place(struct build *b, uint32_t v, struct ref r)
{
    if (r.kind == REF_BUF)
        b->state[r.buf].pending += b->value[v].uses;
}

void build_set_rows(struct build *b, uint32_t v, struct ref r)
{
    b->value[v].rows = r;
    place(b, v, r);
}

/* Row-major, and of the value's own type. */
static bool is_rows_of(const struct build *b, uint32_t v, const struct layout *l)
{
    return l->dtype == build_tensor(b, v)->dtype && layout_is_rows(l);
}

int build_set(struct build *b, uint32_t v, struct ref r, const struct layout *layout)
{
    if (is_rows_of(b, v, layout)) {
        build_set_rows(b, v, r);
        return 0;
    }
    struct layout *keep = arena_memdup(&b->exe->arena, layout, sizeof(*layout));
    if (!keep)
        return no_memory(b);
    b->value[v].native = r;
    b->value[v].layout = keep;
    place(b, v, r);
    return 0;
}

int build_out(struct build *b, uint32_t v, struct ref *ret)
{
    uint32_t buf;
    int r = build_buf(b, b->bound->value[v].bytes, &buf);

    if (r < 0)
        return r;
    *ret = ref_buf(buf);
    build_set_rows(b, v, *ret);
    return 0;
}

bool build_dies(const struct build *b, struct ref r)
{
    return r.kind == REF_BUF && !b->state[r.buf].frozen && b->state[r.buf].pending == 1;
}

static void touch(struct build *b, struct ref r)
{
    if (r.kind != REF_BUF)
        return;
    struct buffer *f = &b->exe->buf[r.buf];
    f->first = MIN(f->first, b->exe->n_steps);
    f->last = MAX(f->last, b->exe->n_steps);
}

static int append(struct build *b, const struct step *s, const struct arg *args)
{
    struct exe *x = b->exe;
    struct step *grown = more(&x->arena, x->step, x->n_steps, &b->cap_steps, sizeof(*grown));
    struct arg *copy = arena_memdup(&x->arena, args, s->n_arg * sizeof(*args));

    if (!grown || !copy)
        return no_memory(b);
    x->step = grown;
    for (uint32_t i = 0; i < s->n_arg; i++)
        touch(b, args[i].ref);
    grown[x->n_steps] = *s;
    grown[x->n_steps].node = b->node;
    grown[x->n_steps].arg = copy;
    x->n_steps++;
    return 0;
}

static int keep_md(struct build *b, struct arg *a)
{
    a->md = arena_memdup(&b->exe->arena, a->md, sizeof(*a->md));
    return a->md ? 0 : no_memory(b);
}

#define MAX_PRIM_ARGS 16

int build_prim(struct build *b, struct prim *p, uint32_t n, const struct arg *args)
{
    struct arg all[MAX_PRIM_ARGS + 1];
    uint32_t scratch;
    int r = 0;

    assert(n <= MAX_PRIM_ARGS);
    memcpy(all, args, n * sizeof(*args));
    if (p->scratch_bytes) {
        r = build_buf(b, p->scratch_bytes, &scratch);
        if (r == 0)
            all[n++] = (struct arg){DNNL_ARG_SCRATCHPAD, ref_buf(scratch), &p->scratch};
    }
    for (uint32_t i = 0; i < n && r == 0; i++)
        r = keep_md(b, &all[i]);
    struct step s = {.is_prim = true, .prim = *p, .n_arg = n};
    if (r == 0)
        r = append(b, &s, all);
    if (r < 0)
        prim_done(p);
    return r;
}

/* Waking a team costs about a microsecond, in which one thread moves this much. */
#define PIECES_MIN_BYTES (32u << 10)

static bool pays_in_pieces(const struct build *b, const struct cpu_call *c, uint32_t n,
                           const struct ref *refs)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < n; i++)
        if (refs[i].kind == REF_BUF)
            bytes += b->exe->buf[refs[i].buf].bytes;
    return c->piece && b->exe->n_threads > 1 && bytes >= PIECES_MIN_BYTES;
}

int build_call(struct build *b, const struct cpu_call *c, uint32_t n, const struct ref *refs)
{
    AUTO(free) struct arg *args = calloc(MAX(n, 1), sizeof(*args));

    if (!args)
        return no_memory(b);
    for (uint32_t i = 0; i < n; i++)
        args[i].ref = refs[i];
    struct step s = {.call = *c, .n_arg = n, .in_pieces = pays_in_pieces(b, c, n, refs)};
    return append(b, &s, args);
}

static int reorder(struct build *b, struct ref from, const struct layout *is, struct ref *ret,
                   const struct layout *want)
{
    struct prim p;
    uint32_t buf;
    int r = build_buf(b, want->bytes, &buf);

    if (r < 0)
        return r;
    if (dn_reorder(&b->part->dev->dn, is, want, &p) < 0)
        return build_fail(b, -ENOTSUP, "no reorder between two layouts");
    *ret = ref_buf(buf);
    const struct arg args[] = {{DNNL_ARG_FROM, from, &is->md}, {DNNL_ARG_TO, *ret, &want->md}};
    b->exe->n_reorders++;
    return build_prim(b, &p, 2, args);
}

int build_rows(struct build *b, uint32_t v, struct ref *ret)
{
    struct where *w = &b->value[v];
    int joined = build_joined(b, v);

    if (joined < 0)
        return joined;

    if (w->rows.kind == REF_NONE) {
        struct layout rows;
        struct ref made;
        assert(w->native.kind != REF_NONE);
        if (layout_rows(&rows, w->layout->rank, w->layout->dims) < 0)
            return build_fail(b, -ENOTSUP, "rank over the limit");
        layout_as(&rows, build_tensor(b, v)->dtype);
        int r = reorder(b, w->native, w->layout, &made, &rows);
        if (r < 0)
            return r;
        build_set_rows(b, v, made);
    }
    *ret = b->value[v].rows;
    return 0;
}

int build_in(struct build *b, uint32_t v, const struct layout *want, struct ref *ret)
{
    struct where *w = &b->value[v];
    struct layout rows;
    int joined = build_joined(b, v);

    if (joined < 0)
        return joined;
    if (w->native.kind != REF_NONE && layout_same(w->layout, want)) {
        *ret = w->native;
        return 0;
    }
    if (is_rows_of(b, v, want))
        return build_rows(b, v, ret);
    bool from_rows = w->rows.kind != REF_NONE;
    const struct layout *is = from_rows ? &rows : w->layout;
    if (from_rows && layout_rows(&rows, want->rank, want->dims) < 0)
        return build_fail(b, -ENOTSUP, "rank over the limit");
    if (from_rows)
        layout_as(&rows, build_tensor(b, v)->dtype);
    int r = reorder(b, from_rows ? w->rows : w->native, is, ret, want);
    if (r == 0 && b->value[v].native.kind == REF_NONE)
        r = build_set(b, v, *ret, want);
    return r;
}

int build_const(struct build *b, uint32_t v, const struct layout *from, const struct layout *to,
                struct ref *ret)
{
    const struct constant *c = b->graph->values[v].constant;
    struct exe *x = b->exe;
    struct weights **grown =
        more(&x->arena, x->weights, x->n_weights, &b->cap_weights, sizeof(struct weights *));

    if (!grown)
        return no_memory(b);
    x->weights = grown;
    int r = layout_same(from, to) ? weights_plain(b->part->dev, c, &grown[x->n_weights])
                                  : weights_pack(b->part->dev, c, from, to, &grown[x->n_weights]);
    if (r < 0)
        return build_fail(b, r, "cannot pack its constant");
    x->weights_bytes += grown[x->n_weights]->bytes ? grown[x->n_weights]->bytes : c->t.bytes;
    *ret = ref_const(grown[x->n_weights++]->data);
    return 0;
}

static void read_done(struct build *b, uint32_t v)
{
    if (v == VALUE_NONE)
        return;
    struct where *w = &b->value[v];
    w->uses--;
    for (uint32_t i = 0; i < w->n_pieces; i++)
        read_done(b, w->piece[i]);
    if (w->rows.kind == REF_BUF)
        b->state[w->rows.buf].pending--;
    if (w->native.kind == REF_BUF)
        b->state[w->native.buf].pending--;
}

void build_node_done(struct build *b)
{
    const struct node *n = &b->graph->nodes[b->node];

    for (uint32_t i = 0; i < n->n_in; i++)
        read_done(b, n->in[i]);
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD)
            read_done(b, n->post[i].value);
}
