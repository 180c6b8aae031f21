/* LayerNormalization as exporters write it below opset 17:
 *
 *     d = Sub(x, ReduceMean(x));  v = ReduceMean(Pow(d, 2) or Mul(d, d))
 *     y = Add(Mul(Div(d, Sqrt(Add(v, eps))), gamma), beta)        the Add may be missing
 *
 * over the last axes.  Found from the Div, in both directions. */
#include "pass.h"

struct ln {
    uint32_t x, gamma, beta; /* values; beta may be VALUE_NONE */
    uint32_t last;           /* the node that makes the result */
    uint32_t axis;
    double eps;
};

/* A mean that keeps its dimensions, over the axes from *ret_axis to the last. */
static bool is_mean_of_last(const struct pass *p, uint32_t node, uint32_t *ret_axis)
{
    const struct node *n = &p->g->nodes[node];
    int32_t rank = p->g->values[n->in[0]].rank;
    const struct constant *axes = n->n_in > 1 ? pass_constant(p, n->in[1]) : NULL;
    bool set[MAX_RANK];
    uint32_t first = 0;

    if (rank < 1 || !node_int(n, "keepdims", 1) || (axes && !constant_is_aligned(axes)) ||
        (n->n_in > 1 && n->in[1] != VALUE_NONE && !axes) ||
        axes_read(n, axes ? &axes->t : NULL, (uint32_t)rank, set) < 0)
        return false;
    while (first < (uint32_t)rank && !set[first])
        first++;
    for (uint32_t i = first; i < (uint32_t)rank; i++)
        if (!set[i])
            return false;
    *ret_axis = first;
    return first < (uint32_t)rank;
}

/* d -> its square; d is then read by the square and the Div alone. */
static bool is_square(const struct pass *p, uint32_t value, uint32_t d)
{
    uint32_t pow = pass_made_by(p, value, OP_Pow), mul = pass_made_by(p, value, OP_Mul);
    double two;

    if (pow != NODE_NONE)
        return p->g->nodes[pow].in[0] == d && pass_number(p, p->g->nodes[pow].in[1], &two) &&
               two == 2 && pass_read_times(p, d, 2);
    return mul != NODE_NONE && p->g->nodes[mul].in[0] == d && p->g->nodes[mul].in[1] == d &&
           pass_read_times(p, d, 3);
}

/* Sqrt(v + eps) -> v and eps. */
static bool match_deviation(const struct pass *p, uint32_t value, uint32_t *ret_v, double *ret_eps)
{
    uint32_t sqrt = pass_made_by(p, value, OP_Sqrt);

    if (sqrt == NODE_NONE || !pass_read_times(p, value, 1))
        return false;
    uint32_t sum = p->g->nodes[sqrt].in[0], add = pass_made_by(p, sum, OP_Add);
    if (add == NODE_NONE || !pass_read_times(p, sum, 1))
        return false;
    const struct node *n = &p->g->nodes[add];
    for (int i = 0; i < 2; i++)
        if (pass_number(p, n->in[i], ret_eps)) {
            *ret_v = n->in[1 - i];
            return pass_read_times(p, *ret_v, 1);
        }
    return false;
}

static bool match_core(const struct pass *p, uint32_t div, struct ln *m)
{
    const struct node *n = &p->g->nodes[div];
    uint32_t v, axis_v;

    if (n->op != OP_Div || n->n_post)
        return false;
    uint32_t d = n->in[0], sub = pass_made_by(p, d, OP_Sub);
    if (sub == NODE_NONE || !match_deviation(p, n->in[1], &v, &m->eps))
        return false;
    m->x = p->g->nodes[sub].in[0];
    uint32_t mean_v = p->g->nodes[sub].in[1];
    uint32_t mean = pass_made_by(p, mean_v, OP_ReduceMean);
    uint32_t var = pass_made_by(p, v, OP_ReduceMean);
    if (mean == NODE_NONE || var == NODE_NONE || p->g->nodes[mean].in[0] != m->x ||
        !pass_read_times(p, mean_v, 1))
        return false;
    uint32_t square = p->g->nodes[var].in[0];
    return is_square(p, square, d) && pass_read_times(p, square, 1) &&
           is_mean_of_last(p, mean, &m->axis) && is_mean_of_last(p, var, &axis_v) &&
           axis_v == m->axis && p->g->values[m->x].dtype == DT_FP32;
}

/* A constant of exactly the normalised dimensions. */
static bool is_affine(const struct pass *p, const struct ln *m, uint32_t value)
{
    const struct constant *c = pass_constant(p, value);
    const struct value *x = &p->g->values[m->x];

    if (!c || c->t.dtype != DT_FP32 || c->t.rank != (uint32_t)x->rank - m->axis)
        return false;
    for (uint32_t i = 0; i < c->t.rank; i++)
        if (x->dims[m->axis + i].sym != SYM_CONST || x->dims[m->axis + i].scale != c->t.dims[i])
            return false;
    return true;
}

/* The one reader of `value` is `op` with an affine constant: follow it. */
static bool follow_affine(const struct pass *p, struct ln *m, uint32_t value, enum op_id op,
                          uint32_t *ret_constant)
{
    uint32_t id = pass_sole_reader(p, value);

    if (id == NODE_NONE || p->g->nodes[id].op != op || p->g->nodes[id].n_in != 2 ||
        node_attr(&p->g->nodes[id], "axis")) /* aligned as before opset 7 */
        return false;
    uint32_t other = node_other(&p->g->nodes[id], value);
    if (!is_affine(p, m, other))
        return false;
    *ret_constant = other;
    m->last = id;
    return true;
}

static int replace(struct pass *p, const struct ln *m)
{
    uint32_t in[] = {m->x, m->gamma, m->beta};
    struct attr axis = {.name = "axis", .type = ATTR_INT, .i = m->axis};
    struct attr eps = {.name = "epsilon", .type = ATTR_FLOAT, .f = (float)m->eps};

    if (pass_become(p, m->last, OP_LayerNormalization, m->beta == VALUE_NONE ? 2 : 3, in) < 0 ||
        graph_add_attr(p->g, m->last, &axis) < 0 || graph_add_attr(p->g, m->last, &eps) < 0)
        return -ENOMEM;
    p->report->fused_norms++;
    return 0;
}

int pass_layernorm(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++) {
        struct ln m = {.beta = VALUE_NONE};
        if (!match_core(p, id, &m) ||
            !follow_affine(p, &m, p->g->nodes[id].out[0], OP_Mul, &m.gamma))
            continue;
        (void)follow_affine(p, &m, p->g->nodes[m.last].out[0], OP_Add, &m.beta);
        if (pass_same_rank(p, m.x, p->g->nodes[m.last].out[0]) && replace(p, &m) < 0)
            return -ENOMEM;
    }
    return 0;
}
