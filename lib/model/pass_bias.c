/* Add of a constant vector behind Conv, Gemm or MatMul that has no bias yet: it becomes the third
 * input. */
#include "pass.h"

/* The dimension along which a bias of this node lies; -1: it can take none. */
static int32_t bias_axis(const struct pass *p, const struct node *n)
{
    /* Of a recurrent layer the first result may be omitted. */
    int32_t rank = n->out[0] == VALUE_NONE ? -1 : p->g->values[n->out[0]].rank;

    if (n->n_post || (n->n_in > 2 && n->in[2] != VALUE_NONE) || rank < 1 ||
        p->g->values[n->out[0]].dtype != DT_FP32)
        return -1;
    switch (n->op) {
    case OP_Conv:
        return rank > 1 ? 1 : -1;
    case OP_Gemm:
        return node_float(n, "beta", 1) == 1 ? rank - 1 : -1;
    case OP_MatMul:
        return p->g->values[n->in[1]].rank >= 2 ? rank - 1 : -1;
    default:
        return -1;
    }
}

/* A constant that differs along that axis only, and as long as the result there. */
static bool is_bias(const struct value *result, int32_t axis, const struct constant *c)
{
    int32_t at = axis - (result->rank - (int32_t)(c ? c->t.rank : 0));

    if (!c || c->t.dtype != DT_FP32 || at < 0 || (int32_t)c->t.rank > result->rank ||
        result->dims[axis].sym != SYM_CONST || c->t.dims[at] != result->dims[axis].scale)
        return false;
    for (int32_t i = 0; i < (int32_t)c->t.rank; i++)
        if (i != at && c->t.dims[i] != 1)
            return false;
    return true;
}

/* The same data as a vector; the value itself when it is one. */
static int as_vector(struct pass *p, uint32_t value, uint32_t *ret)
{
    const struct constant *c = p->g->values[value].constant;
    struct tensor t = c->t;
    int64_t n;

    *ret = value;
    if (t.rank == 1)
        return 0;
    if (tensor_count(&t, &n) < 0 || tensor_shape(&t, t.dtype, 1, &n) < 0)
        return -ENOMEM;
    const char *name = arena_printf(&p->g->arena, "%s.vector", p->g->values[value].name);
    return name ? graph_add_const(p->g, name, &t, c->source, ret) : -ENOMEM;
}

static int take_bias(struct pass *p, uint32_t id, int32_t axis)
{
    const struct node *n = &p->g->nodes[id];
    uint32_t add = pass_sole_reader(p, n->out[0]), vector;

    if (add == NODE_NONE || p->g->nodes[add].op != OP_Add || p->g->nodes[add].n_post ||
        node_attr(&p->g->nodes[add], "axis")) /* aligned as before opset 7 */
        return 0;
    uint32_t other = node_other(&p->g->nodes[add], n->out[0]);
    if (!is_bias(&p->g->values[n->out[0]], axis, pass_constant(p, other)))
        return 0;
    if (as_vector(p, other, &vector) < 0 || pass_set_input(p, id, 2, vector) < 0)
        return -ENOMEM;
    pass_absorb(p, id, add);
    p->report->fused_posts++;
    return 0;
}

int pass_bias(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++) {
        int32_t axis = p->g->nodes[id].op == OP_NONE ? -1 : bias_axis(p, &p->g->nodes[id]);
        if (axis >= 0 && take_bias(p, id, axis) < 0)
            return -ENOMEM;
    }
    return 0;
}
