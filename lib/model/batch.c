/* Batch analysis: proves that the rows of a batch stay separate, so that requests may be joined
 * along the first dimension and get bit for bit the rows that they would get alone, as far as
 * the operators are concerned.
 *
 * The graph is bound at a few numbers of rows.  A value is then one of three things (enum
 * rows_kind), found from its node's inputs by the operator's rule; values known at bind time are
 * looked at instead.  Whatever a rule says is checked against the bound shapes: the axis must
 * grow by k for each row in every binding, all other axes must stay.  One of the numbers is 1,
 * which brings out what treats a single row differently (Squeeze), and one is a prime that no
 * sensible model has as a dimension.  Shape arithmetic is trusted to go on as it does at these
 * numbers. */
#include "batch.h"
#include "bind_probe.h"

const int64_t batch_numbers[N_BINDINGS] = {2, 1, 3, 61};

/* ---- what rules ask */

const struct tensor *batch_in_at(const struct batch *b, uint32_t binding, uint32_t i)
{
    uint32_t v = i < b->node->n_in ? b->node->in[i] : VALUE_NONE;

    return v == VALUE_NONE ? NULL : &b->bound[binding]->value[v];
}

const struct tensor *batch_in(const struct batch *b, uint32_t i)
{
    return batch_in_at(b, 0, i);
}

const struct tensor *batch_out_at(const struct batch *b, uint32_t binding, uint32_t i)
{
    uint32_t v = i < b->node->n_out ? b->node->out[i] : VALUE_NONE;

    return v == VALUE_NONE ? NULL : &b->bound[binding]->value[v];
}

struct rows batch_rows(const struct batch *b, uint32_t i)
{
    uint32_t v = i < b->node->n_in ? b->node->in[i] : VALUE_NONE;

    return v == VALUE_NONE ? (struct rows){0} : b->rows[v];
}

/* ---- values that are known at bind time */

static bool same_shape(const struct tensor *s, const struct tensor *t)
{
    return s->rank == t->rank && s->bytes == t->bytes &&
           memcmp(s->dims, t->dims, s->rank * sizeof(s->dims[0])) == 0;
}

static bool is_known(const struct batch *b, uint32_t v)
{
    for (int i = 0; i < N_BINDINGS; i++)
        if (!b->bound[i]->value[v].data)
            return false;
    return true;
}

static bool is_same_everywhere(const struct batch *b, uint32_t v, bool content)
{
    const struct tensor *t = &b->bound[0]->value[v];

    for (int i = 1; i < N_BINDINGS; i++) {
        const struct tensor *s = &b->bound[i]->value[v];
        if (!same_shape(s, t) || (content && memcmp(s->data, t->data, t->bytes) != 0))
            return false;
    }
    return true;
}

/* The one axis that grows with the rows while all others stay; false when it is not so. */
static bool find_growing(const struct batch *b, uint32_t v, struct rows *ret)
{
    const struct tensor *t = &b->bound[0]->value[v], *one = &b->bound[1]->value[v];
    uint32_t n = 0;

    for (uint32_t d = 0; d < t->rank && t->rank == one->rank; d++)
        if (t->dims[d] != one->dims[d]) {
            *ret = (struct rows){ROWS_ON, d, one->dims[d]};
            n++;
        }
    return n == 1;
}

static bool has_rows(const struct batch *b, uint32_t v, struct rows r)
{
    const struct tensor *t = &b->bound[0]->value[v];

    if (r.kind != ROWS_ON || r.axis >= t->rank || r.k < 1)
        return false;
    for (int i = 0; i < N_BINDINGS; i++) {
        const struct tensor *s = &b->bound[i]->value[v];
        for (uint32_t d = 0; d < t->rank && s->rank == t->rank; d++)
            if (s->dims[d] != (d == r.axis ? r.k * batch_numbers[i] : t->dims[d]))
                return false;
        if (s->rank != t->rank)
            return false;
    }
    return true;
}

/* Every row of t is the one row of `one`. */
static bool repeats(const struct tensor *t, const struct tensor *one, uint32_t axis)
{
    size_t block = dtype_size(t->dtype), outer = 1;

    for (uint32_t d = 0; d < t->rank; d++) {
        if (d < axis)
            outer *= (size_t)one->dims[d];
        else
            block *= (size_t)one->dims[d];
    }
    size_t times = one->bytes ? t->bytes / one->bytes : 0;
    const char *p = t->data, *row = one->data;
    for (size_t o = 0; o < outer; o++)
        for (size_t i = 0; i < times; i++)
            if (memcmp(p + (o * times + i) * block, row + o * block, block) != 0)
                return false;
    return true;
}

static struct rows known_rows(const struct batch *b, uint32_t v)
{
    struct rows r;
    bool on = find_growing(b, v, &r) && has_rows(b, v, r);

    if (is_same_everywhere(b, v, true))
        return (struct rows){0};
    for (int i = 0; i < N_BINDINGS && on; i++)
        on = repeats(&b->bound[i]->value[v], &b->bound[1]->value[v], r.axis);
    return on && dtype_size(b->bound[0]->value[v].dtype) ? r : (struct rows){.kind = ROWS_SHAPE};
}

/* ---- one node */

static const char late[] = "is known only when the model runs: its shapes depend on data";

static bool all_none(const struct batch *b)
{
    for (uint32_t i = 0; i < b->node->n_in; i++)
        if (batch_rows(b, i).kind != ROWS_NONE)
            return false;
    for (uint32_t i = 0; i < b->node->n_post; i++)
        if (b->node->post[i].kind == POST_ADD && b->rows[b->node->post[i].value].kind != ROWS_NONE)
            return false;
    return true;
}

/* A residual lies as the result does: their shapes are equal. */
static const char *check_posts(const struct batch *b, const struct rows *out)
{
    for (uint32_t i = 0; i < b->node->n_post; i++) {
        if (b->node->post[i].kind != POST_ADD)
            continue;
        struct rows r = b->rows[b->node->post[i].value];
        if (r.kind != out->kind || (r.kind == ROWS_ON && (r.axis != out->axis || r.k != out->k)))
            return "adds a residual whose rows lie differently";
    }
    return NULL;
}

/* The bound shapes must say what the rule says. */
static const char *check_shape(const struct batch *b, uint32_t v, struct rows r)
{
    if (r.kind == ROWS_NONE ? is_same_everywhere(b, v, false) : has_rows(b, v, r))
        return NULL;
    return "makes a shape that does not grow with the batch";
}

static const char *apply_rule(struct batch *b, struct rows *out)
{
    batch_rule rule = batch_rule_of(b->node->op);

    if (all_none(b))
        return NULL; /* out is ROWS_NONE, checked by the caller */
    return rule ? rule(b, out) : "is an operator without a batch rule";
}

static bool all_known(const struct batch *b)
{
    for (uint32_t i = 0; i < b->node->n_out; i++)
        if (b->node->out[i] != VALUE_NONE && !is_known(b, b->node->out[i]))
            return false;
    return true;
}

static bool is_late(const struct batch *b)
{
    size_t id = (size_t)(b->node - b->g->nodes);

    for (int i = 0; i < N_BINDINGS; i++)
        if (b->bound[i]->late_node[id])
            return true;
    return false;
}

static const char *look_at_node(struct batch *b, struct rows *out)
{
    const struct node *n = b->node;
    bool known = all_known(b);
    const char *why = known ? NULL : is_late(b) ? late : apply_rule(b, out);

    if (!why && !known)
        why = check_posts(b, &out[0]);
    for (uint32_t i = 0; i < n->n_out && !why; i++) {
        if (n->out[i] == VALUE_NONE)
            continue;
        b->rows[n->out[i]] = known ? known_rows(b, n->out[i]) : out[i];
        if (!known)
            why = check_shape(b, n->out[i], out[i]);
    }
    return why;
}

/* ---- the whole graph */

/* The symbol that is the first dimension of every input, and no other dimension. */
static int32_t find_symbol(const struct graph *g, struct err *why)
{
    int32_t sym = -1;

    for (uint32_t i = 0; i < g->n_in; i++) {
        const struct value *v = &g->values[g->in[i]];
        if (v->rank < 1 || v->dims[0].sym < 0 || v->dims[0].scale != 1) {
            (void)err_set(why, -ENOTSUP, "input '%s' has %s", v->name,
                          v->rank < 1 ? "no dimensions" : "a fixed first dimension");
            return -1;
        }
        if (i > 0 && v->dims[0].sym != sym) {
            (void)err_set(why, -ENOTSUP, "the first dimensions of inputs '%s' and '%s' differ",
                          g->values[g->in[0]].name, v->name);
            return -1;
        }
        if (v->dtype == DT_STRING) {
            (void)err_set(why, -ENOTSUP, "input '%s' holds strings", v->name);
            return -1;
        }
        sym = v->dims[0].sym;
        for (int32_t d = 1; d < v->rank; d++)
            if (v->dims[d].sym == sym) {
                (void)err_set(why, -ENOTSUP, "input '%s' has dimension '%s' twice", v->name,
                              g->syms[sym].name);
                return -1;
            }
    }
    if (sym < 0)
        (void)err_set(why, -ENOTSUP, "the model has no inputs");
    return sym;
}

static bool bind_all(struct batch *b, int32_t sym, struct arena *a, struct err *why)
{
    int64_t other = 0;
    struct err err = {0};

    for (int i = 0; i < N_BINDINGS; i++)
        if (graph_probe(b->g, sym, batch_numbers[i], &other, a, &b->bound[i], &err) < 0) {
            (void)err_set(why, -ENOTSUP, "with a batch of %lld: %s", (long long)batch_numbers[i],
                          err.msg);
            return false;
        }
    if (b->g->n_syms > 1 && other < 2) { /* a dimension of 1 hides what a Reshape mixes */
        (void)err_set(why, -ENOTSUP, "its other free dimensions only go with 1");
        return false;
    }
    return true;
}

static bool follow_nodes(struct batch *b, struct arena *a, struct err *why)
{
    for (uint32_t id = 0; id < b->g->n_nodes; id++) {
        const struct node *n = b->node = &b->g->nodes[id];
        struct rows *out = ARENA_ARRAY(a, struct rows, n->n_out);
        const char *reason = out ? look_at_node(b, out) : "needs more memory than there is";
        if (reason) {
            (void)err_set(why, -ENOTSUP, "node '%s' (%s) %s", n->name, op_name(n->op), reason);
            return false;
        }
    }
    return true;
}

static bool check_outputs(const struct batch *b, struct err *why)
{
    for (uint32_t i = 0; i < b->g->n_out; i++) {
        struct rows r = b->rows[b->g->out[i]];
        if (r.kind != ROWS_ON || r.axis != 0 || r.k != 1) {
            (void)err_set(why, -ENOTSUP,
                          "output '%s' does not have the batch as its first dimension",
                          b->g->values[b->g->out[i]].name);
            return false;
        }
    }
    return true;
}

static bool is_separable(const struct graph *g, int32_t sym, struct arena *a, struct err *why)
{
    struct batch b = {.g = g, .rows = ARENA_ARRAY(a, struct rows, g->n_values)};

    if (!b.rows) {
        (void)err_set(why, -ENOTSUP, "out of memory");
        return false;
    }
    for (uint32_t i = 0; i < g->n_in; i++)
        b.rows[g->in[i]] = (struct rows){ROWS_ON, 0, 1};
    return bind_all(&b, sym, a, why) && follow_nodes(&b, a, why) && check_outputs(&b, why);
}

void graph_analyse_batch(struct graph *g)
{
    struct arena a;
    struct err why = {0};
    int32_t sym = find_symbol(g, &why);

    arena_init(&a);
    g->batch_sym = sym >= 0 && is_separable(g, sym, &a, &why) ? sym : -1;
    arena_done(&a);
    static_assert(sizeof(g->why_single) == sizeof(why.msg), "the message fits");
    memcpy(g->why_single, why.msg, sizeof(why.msg));
}
