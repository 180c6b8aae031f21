/* Constant folding: a node whose inputs are all constants becomes constants.  Shape and Size of
 * a value without free dimensions count as such, and the dimensions without that a Gather takes
 * from a Shape.  A result that is much larger than what it was made from (Expand, ConstantOfShape,
 * Tile) is left to be computed. */
#include "infer.h"
#include "pass.h"
#include <kernels/ref/ref.h>

#define FOLD_GROWTH_BYTES 65536
#define FOLD_MAX_ARGS 64
#define FOLD_MAX_FLOPS 1e10 /* of all that is folded: minutes of the reference kernels */

static bool tensor_of_shape(const struct value *v, struct tensor *t)
{
    int64_t dims[MAX_RANK];

    for (int32_t i = 0; i < v->rank; i++) {
        if (v->dims[i].sym != SYM_CONST)
            return false;
        dims[i] = v->dims[i].scale;
    }
    *t = (struct tensor){0};
    return v->rank >= 0 && tensor_shape(t, v->dtype, (uint32_t)v->rank, dims) == 0;
}

/* Not yet copied when not aligned: the result may already be prepared. */
static bool inputs_known(const struct pass *p, const struct node *n, struct tensor *in,
                         const struct tensor **ret)
{
    bool shape_only = n->op == OP_Shape || n->op == OP_Size;

    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct constant *c = pass_constant(p, n->in[i]);
        ret[i] = NULL;
        if (n->in[i] == VALUE_NONE)
            continue;
        if (c)
            in[i] = c->t;
        else if (!shape_only || !tensor_of_shape(&p->g->values[n->in[i]], &in[i]))
            return false;
        ret[i] = &in[i];
    }
    return true;
}

static struct hash128 attr_hash(const struct attr *a)
{
    struct hash128 h = hash_bytes(a->name, strlen(a->name));

    switch (a->type) {
    case ATTR_INT:
        return hash_join(h, hash_bytes(&a->i, sizeof(a->i)));
    case ATTR_FLOAT:
        return hash_join(h, hash_bytes(&a->f, sizeof(a->f)));
    case ATTR_STRING:
        return hash_join(h, hash_bytes(a->s, a->n));
    case ATTR_INTS:
        return hash_join(h, hash_bytes(a->ints, a->n * sizeof(*a->ints)));
    case ATTR_FLOATS:
        return hash_join(h, hash_bytes(a->floats, a->n * sizeof(*a->floats)));
    case ATTR_TENSOR: {
        struct constant c = {.t = *a->t};
        constant_seal(&c);
        return hash_join(h, c.hash);
    }
    case ATTR_STRINGS:
        for (uint32_t i = 0; i < a->n; i++)
            h = hash_join(h, hash_bytes(a->strs[i].s, a->strs[i].n));
        return h;
    case ATTR_GRAPH:
        break;
    }
    return h;
}

static struct hash128 node_key(const struct pass *p, const struct node *n)
{
    uint32_t head[] = {PASS_VERSION, n->op, n->opset, n->n_in, n->n_out};
    struct hash128 h = hash_bytes(head, sizeof(head));

    for (uint32_t i = 0; i < n->n_attr; i++)
        h = hash_join(h, attr_hash(&n->attr[i]));
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct constant *c = pass_constant(p, n->in[i]);
        h = hash_join(h, c ? c->hash : (struct hash128){0, i});
    }
    return h;
}

static struct hash128 output_key(struct hash128 node, uint32_t i)
{
    return hash_join(node, (struct hash128){i, 1});
}

static bool all_prepared(struct pass *p, const struct node *n, const struct constant **made)
{
    struct hash128 key = node_key(p, n);

    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] != VALUE_NONE && !(made[i] = made_find(p, output_key(key, i))))
            return false;
    return true;
}

/* Takes from the budget what the node costs, if it is there. */
static bool may_spend(struct pass *p, const struct node *n, const struct tensor *const *in,
                      const struct tensor *out)
{
    const struct tensor *first[COST_INPUTS] = {0};

    for (uint32_t i = 0; i < n->n_in && i < COST_INPUTS; i++)
        first[i] = in[i];
    double flops = node_flops(n, first, out);
    if (p->fold_flops + flops > FOLD_MAX_FLOPS)
        return false;
    p->fold_flops += flops;
    return true;
}

/* 1: folded into made[]; 0: cannot be evaluated. */
static int evaluate(struct pass *p, const struct node *n, const struct tensor **in,
                    struct tensor *out, const struct constant **made)
{
    struct tensor *outs[FOLD_MAX_ARGS];
    size_t before[FOLD_MAX_ARGS];
    struct hash128 key = node_key(p, n);
    struct err ignored = {0};

    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct constant *c = pass_constant(p, n->in[i]);
        if (c && !(in[i] = pass_aligned(p, c)))
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        outs[i] = n->out[i] == VALUE_NONE ? NULL : &out[i];
        if (outs[i] && made_new(p, outs[i]) < 0)
            return -ENOMEM;
        before[i] = out[i].bytes;
    }
    if (ref_run(n, in, NULL, outs, &ignored) < 0)
        return 0;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (pass_constant(p, n->in[i]))
            constant_drop(pass_constant(p, n->in[i]));
    for (uint32_t i = 0; i < n->n_out; i++)
        if (outs[i] && (made_shrink(p, before[i], outs[i]) < 0 ||
                        !(made[i] = made_add(p, output_key(key, i), outs[i]))))
            return -ENOMEM;
    return 1;
}

static bool grows_too_much(const struct node *n, const struct tensor *const *in,
                           const struct tensor *out, size_t *ret_bytes)
{
    size_t before = FOLD_GROWTH_BYTES, after = 0;

    for (uint32_t i = 0; i < n->n_in; i++)
        before += in[i] && in[i]->data ? in[i]->bytes : 0;
    for (uint32_t i = 0; i < n->n_out; i++)
        after += n->out[i] == VALUE_NONE ? 0 : out[i].bytes;
    *ret_bytes = after;
    return after > before;
}

static void replace_by(struct pass *p, struct node *n, const struct constant *const *made)
{
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (n->out[i] == VALUE_NONE)
            continue;
        struct value *v = &p->g->values[n->out[i]];
        v->constant = made[i];
        v->producer = NODE_NONE;
        v->dtype = made[i]->t.dtype;
        v->rank = (int32_t)made[i]->t.rank;
        for (uint32_t d = 0; d < made[i]->t.rank; d++)
            v->dims[d] = (struct dim){.scale = made[i]->t.dims[d], .sym = SYM_CONST};
    }
    n->op = OP_NONE;
    p->report->folded_constants++;
}

/* The dimensions that a Gather takes from a Shape, as its result; false when one is not fixed. */
static bool dimensions_taken(const struct pass *p, const struct node *n, struct tensor *ret,
                             int64_t taken[MAX_RANK])
{
    const struct constant *at = n->n_in == 2 ? pass_constant(p, n->in[1]) : NULL;
    uint32_t shape = at && n->op == OP_Gather ? pass_made_by(p, n->in[0], OP_Shape) : NODE_NONE;
    int64_t count, axis = node_int(n, "axis", 0);

    if (shape == NODE_NONE || p->g->nodes[shape].n_attr || (axis != 0 && axis != -1) ||
        at->t.dtype != DT_INT64 || at->t.rank > 1 || tensor_count(&at->t, &count) < 0 ||
        count > MAX_RANK)
        return false;
    const struct value *v = &p->g->values[p->g->nodes[shape].in[0]];
    for (int64_t i = 0; i < count; i++) {
        int64_t d;
        memcpy(&d, (const char *)at->t.data + i * (int64_t)sizeof(d), sizeof(d));
        d = d < 0 ? d + v->rank : d;
        if (d < 0 || d >= v->rank || v->dims[d].sym != SYM_CONST)
            return false;
        taken[i] = v->dims[d].scale;
    }
    return tensor_shape(ret, DT_INT64, at->t.rank, at->t.dims) == 0;
}

static int fold_dimensions(struct pass *p, struct node *n)
{
    int64_t taken[MAX_RANK];
    struct tensor t = {0};

    if (!dimensions_taken(p, n, &t, taken))
        return 0;
    if (made_new(p, &t) < 0)
        return -ENOMEM;
    memcpy(t.data, taken, t.bytes);
    const struct constant *made = made_add(p, node_key(p, n), &t);
    if (!made)
        return -ENOMEM;
    replace_by(p, n, &made);
    return 0;
}

static int fold_node(struct pass *p, struct node *n)
{
    struct tensor in[FOLD_MAX_ARGS], out[FOLD_MAX_ARGS] = {0};
    const struct tensor *ins[FOLD_MAX_ARGS];
    const struct constant *made[FOLD_MAX_ARGS] = {0};
    struct err ignored = {0};
    size_t bytes;
    int r = 0;

    if (n->n_in > FOLD_MAX_ARGS || n->n_out > FOLD_MAX_ARGS || n->n_post)
        return 0;
    if (!inputs_known(p, n, in, ins))
        return fold_dimensions(p, n);
    if (node_infer(n, ins, out, &ignored) < 0 || grows_too_much(n, ins, out, &bytes))
        return 0;
    if (bytes <= SMALL_CONST_BYTES || !all_prepared(p, n, made))
        r = !may_spend(p, n, ins, out) ? 0 : evaluate(p, n, ins, out, made);
    else
        r = 1;
    if (r > 0)
        replace_by(p, n, made);
    return r < 0 ? r : 0;
}

int pass_fold(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++, pass_next(p))
        if (p->g->nodes[id].op != OP_NONE && fold_node(p, &p->g->nodes[id]) < 0)
            return -ENOMEM;
    return 0;
}
