/* Symbolic shapes without symbolic rules: bind with several numbers and look.
 *
 * A base key that binds is searched first: small numbers for symbols that are an input's first
 * dimension (a batch), usual image sizes and sequence lengths for the others.  Then one symbol
 * at a time gets other numbers.  A dimension that no probe changes is constant; one that only a
 * single symbol changes, always in proportion, is {scale, symbol}; any other is SYM_VARIES.
 *
 * The other numbers are both near and far, odd and even, so that a rounding or a clamp shows
 * itself.  A symbol for which no second number binds tells us nothing: every dimension that
 * could depend on it is SYM_VARIES.  A value that is late in one binding is unknown, whatever the
 * file says about it: the passes must not rely on that. */
#include "infer.h"
#include "late.h"

static const int64_t batch_bases[] = {3, 2, 1, 4, 8};
static const int64_t other_bases[] = {8, 16, 32, 64, 128, 224, 256, 384, 512, 7, 4, 2, 1};
static const int64_t batch_probes[] = {5, 16, 2, 1};
static const int64_t other_probes[] = {16, 32, 64, 96, 128, 192, 224, 256, 384, 512};
#define PROBES_WANTED 3 /* for each symbol, beside the base */

enum state { UNCHANGED, PROPORTIONAL, OTHER };

struct seen_dim { /* what the probes say about one dimension */
    int64_t base;
    int32_t sym; /* the only symbol that changed it so far, or SYM_CONST */
    enum state state;
};

struct probing {
    struct graph *g;
    struct arena arena; /* the base binding and dims */
    struct bound *base;
    struct seen_dim *dims; /* MAX_RANK for each value */
    bool *tainted;         /* values that depend on the symbol at hand */
    bool *late;            /* values that were late in one of the bindings */
    bool is_batch[MAX_SYMS];
    struct shape_key key;
    struct err *err;
};

static void find_batches(struct probing *p)
{
    for (uint32_t i = 0; i < p->g->n_in; i++) {
        const struct value *v = &p->g->values[p->g->in[i]];
        if (v->rank > 0 && v->dims[0].sym >= 0)
            p->is_batch[v->dims[0].sym] = true;
    }
}

static void set_base(struct probing *p, int64_t batch, int64_t other)
{
    p->key.n = p->g->n_syms;
    for (uint32_t i = 0; i < p->key.n; i++)
        p->key.dim[i] = p->is_batch[i] ? batch : other;
}

/* Try to bind with the key; on success *ret lives in p->arena. */
static int try_base(struct probing *p, struct err *err)
{
    arena_done(&p->arena);
    arena_init(&p->arena);
    return graph_bind(p->g, &p->key, &p->arena, &p->base, err);
}

/* The error of the first attempt is the model's: its numbers are the most usual ones. */
static int find_base(struct probing *p)
{
    uint32_t n_batch = 0;
    struct err ignored;
    bool first = true;

    for (uint32_t i = 0; i < p->g->n_syms; i++)
        n_batch += p->is_batch[i];
    size_t batches = n_batch ? ARRAY_SIZE(batch_bases) : 1;
    size_t others = n_batch < p->g->n_syms ? ARRAY_SIZE(other_bases) : 1;

    for (size_t b = 0; b < batches; b++)
        for (size_t o = 0; o < others; o++) {
            set_base(p, batch_bases[b], other_bases[o]);
            int rc = try_base(p, first ? p->err : &ignored);
            if (rc == 0) {
                *p->err = (struct err){0};
                return 0;
            }
            if (rc == -ENOMEM)
                return err_set(p->err, -ENOMEM, "out of memory");
            first = false;
        }
    return p->err->code;
}

static int start_dims(struct probing *p)
{
    p->dims = arena_array(&p->arena, p->g->n_values, MAX_RANK * sizeof(*p->dims));
    p->tainted = ARENA_ARRAY(&p->arena, bool, p->g->n_values);
    p->late = ARENA_ARRAY(&p->arena, bool, p->g->n_values);
    if (!p->dims || !p->tainted || !p->late)
        return err_set(p->err, -ENOMEM, "out of memory");
    if (p->g->n_values)
        memcpy(p->late, p->base->late_value, p->g->n_values * sizeof(*p->late));
    for (uint32_t v = 0; v < p->g->n_values; v++)
        for (uint32_t d = 0; d < p->base->value[v].rank; d++)
            p->dims[v * MAX_RANK + d] =
                (struct seen_dim){.base = p->base->value[v].dims[d], .sym = SYM_CONST};
    return 0;
}

/* Compare a binding in which symbol `sym` is `number` with the base; `again`: not for the first
 * time.  What one probe changes and another leaves (a clamp, a rounding) is in no proportion. */
static int compare(struct probing *p, const struct bound *b, int32_t sym, int64_t number,
                   bool again)
{
    int64_t base_number = p->key.dim[sym];

    for (uint32_t v = 0; v < p->g->n_values; v++) {
        p->late[v] |= b->late_value[v];
        if (p->late[v])
            continue;
        if (b->value[v].rank != p->base->value[v].rank)
            return err_set(p->err, -ENOTSUP, "value '%.64s': its rank depends on '%.64s'",
                           p->g->values[v].name, p->g->syms[sym].name);
        for (uint32_t d = 0; d < b->value[v].rank; d++) {
            struct seen_dim *s = &p->dims[v * MAX_RANK + d];
            int64_t now = b->value[v].dims[d];
            bool ours = s->state == PROPORTIONAL && s->sym == sym;
            bool in_proportion =
                s->base != 0 && s->base % base_number == 0 && now == s->base / base_number * number;
            if (now == s->base && !ours)
                continue;
            bool may = ours || (s->state == UNCHANGED && !again);
            s->state = in_proportion && may ? PROPORTIONAL : OTHER;
            s->sym = sym;
        }
    }
    return 0;
}

/* Values computed from inputs that have the symbol: nodes are in execution order. */
static void taint(struct probing *p, int32_t sym)
{
    struct graph *g = p->g;

    memset(p->tainted, 0, g->n_values * sizeof(*p->tainted));
    for (uint32_t i = 0; i < g->n_in; i++)
        for (int32_t d = 0; d < g->values[g->in[i]].rank; d++)
            if (g->values[g->in[i]].dims[d].sym == sym)
                p->tainted[g->in[i]] = true;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        bool any = false;
        for (uint32_t k = 0; k < n->n_in; k++)
            any |= n->in[k] != VALUE_NONE && p->tainted[n->in[k]];
        for (uint32_t k = 0; k < n->n_post; k++)
            any |= n->post[k].kind == POST_ADD && p->tainted[n->post[k].value];
        for (uint32_t k = 0; any && k < n->n_out; k++)
            if (n->out[k] != VALUE_NONE)
                p->tainted[n->out[k]] = true;
    }
    for (uint32_t v = 0; v < g->n_values; v++)
        for (uint32_t d = 0; p->tainted[v] && d < MAX_RANK; d++)
            p->dims[v * MAX_RANK + d].state = OTHER;
}

/* Counts in *good the numbers that bind. */
static int probe_once(struct probing *p, int32_t sym, int64_t number, uint32_t *good)
{
    struct shape_key key = p->key;
    struct arena a;
    struct bound *b;
    struct err ignored;

    key.dim[sym] = number;
    arena_init(&a);
    int rc = graph_bind_shapes(p->g, &key, &a, &b, &ignored);
    if (rc == 0)
        rc = compare(p, b, sym, number, (*good)++ > 0);
    else
        rc = rc == -ENOMEM ? err_set(p->err, rc, "out of memory") : 0;
    arena_done(&a);
    return rc;
}

static int probe_symbol(struct probing *p, int32_t sym)
{
    const int64_t *list = p->is_batch[sym] ? batch_probes : other_probes;
    size_t n = p->is_batch[sym] ? ARRAY_SIZE(batch_probes) : ARRAY_SIZE(other_probes);
    int64_t base = p->key.dim[sym];
    uint32_t good = 0;
    int rc = probe_once(p, sym, base + 1, &good); /* a neighbour shows rounding */

    for (size_t i = 0; rc == 0 && good < PROBES_WANTED && i < n; i++) {
        if (list[i] == base || list[i] == base + 1)
            continue;
        rc = probe_once(p, sym, list[i], &good);
    }
    if (rc == 0 && good == 0)
        taint(p, sym);
    return rc;
}

/* What was learnt, into the graph.  Inputs and constants say themselves what they are. */
static void write_dims(struct probing *p)
{
    for (uint32_t v = 0; v < p->g->n_values; v++) {
        struct value *val = &p->g->values[v];
        const struct tensor *t = &p->base->value[v];

        if (val->producer == NODE_NONE)
            continue;
        if (p->late[v]) {
            val->dtype = DT_NONE;
            val->rank = -1;
            continue;
        }
        val->dtype = t->dtype;
        val->rank = (int32_t)t->rank;
        for (uint32_t d = 0; d < t->rank; d++) {
            const struct seen_dim *s = &p->dims[v * MAX_RANK + d];
            if (s->state == UNCHANGED)
                val->dims[d] = (struct dim){.scale = s->base, .sym = SYM_CONST};
            else if (s->state == PROPORTIONAL)
                val->dims[d] = (struct dim){.scale = s->base / p->key.dim[s->sym], .sym = s->sym};
            else
                val->dims[d] = (struct dim){.scale = -1, .sym = SYM_VARIES};
        }
    }
}

static int infer_all(struct probing *p)
{
    int rc = find_base(p);

    if (rc == 0)
        rc = start_dims(p);
    for (uint32_t i = 0; rc == 0 && i < p->g->n_syms; i++)
        rc = probe_symbol(p, (int32_t)i);
    if (rc == 0)
        write_dims(p);
    return rc;
}

int graph_infer(struct graph *g, struct err *err)
{
    struct err own = {0};
    struct probing p = {.g = g, .err = err ? err : &own};

    arena_init(&p.arena);
    find_batches(&p);
    int rc = graph_keep_claims(g) < 0 ? err_set(p.err, -ENOMEM, "out of memory") : infer_all(&p);
    arena_done(&p.arena);
    return rc;
}
