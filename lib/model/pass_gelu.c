/* GELU as exporters write it below opset 20: x * 0.5 * (1 + erf(x / sqrt 2)), the three factors
 * multiplied in any order.  Found from the Erf, forwards. */
#include "pass.h"
#include <math.h>

/* x / sqrt 2, or x * (1 / sqrt 2) */
static uint32_t scaled_from(const struct pass *p, uint32_t value)
{
    uint32_t div = pass_made_by(p, value, OP_Div), mul = pass_made_by(p, value, OP_Mul);
    double k;

    if (!pass_read_times(p, value, 1))
        return VALUE_NONE;
    if (div != NODE_NONE) {
        const struct node *n = &p->g->nodes[div];
        return pass_number(p, n->in[1], &k) && fabs(k - M_SQRT2) < 1e-5 ? n->in[0] : VALUE_NONE;
    }
    return mul == NODE_NONE ? VALUE_NONE : pass_other_than_number(p, &p->g->nodes[mul], M_SQRT1_2);
}

static bool is_half_of(const struct pass *p, uint32_t value, uint32_t x)
{
    uint32_t mul = pass_made_by(p, value, OP_Mul);

    return mul != NODE_NONE && pass_read_times(p, value, 1) &&
           pass_other_than_number(p, &p->g->nodes[mul], 0.5) == x;
}

/* The only reader of a value, if it does op. */
static uint32_t next_node(const struct pass *p, uint32_t value, enum op_id op)
{
    uint32_t id = pass_sole_reader(p, value);

    return id != NODE_NONE && p->g->nodes[id].op == op && p->g->nodes[id].n_in == 2 ? id
                                                                                    : NODE_NONE;
}

/* From 1 + erf: the node that makes x * 0.5 * it. */
static uint32_t last_product(const struct pass *p, uint32_t one_erf, uint32_t x)
{
    uint32_t mul = next_node(p, one_erf, OP_Mul);

    if (mul == NODE_NONE)
        return NODE_NONE;
    const struct node *n = &p->g->nodes[mul];
    uint32_t other = node_other(n, one_erf);
    if (is_half_of(p, other, x))
        return mul;
    uint32_t next = next_node(p, n->out[0], OP_Mul);
    if (next == NODE_NONE)
        return NODE_NONE;
    const struct node *m = &p->g->nodes[next];
    if (other == x && pass_other_than_number(p, m, 0.5) == n->out[0])
        return next;
    if (pass_other_than_number(p, n, 0.5) == one_erf && node_other(m, n->out[0]) == x)
        return next;
    return NODE_NONE;
}

int pass_gelu(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++) {
        const struct node *erf = &p->g->nodes[id];
        if (erf->op != OP_Erf || erf->n_post)
            continue;
        uint32_t x = scaled_from(p, erf->in[0]), add = next_node(p, erf->out[0], OP_Add);
        if (x == VALUE_NONE || add == NODE_NONE || p->g->values[x].dtype != DT_FP32 ||
            pass_other_than_number(p, &p->g->nodes[add], 1) != erf->out[0])
            continue;
        uint32_t last = last_product(p, p->g->nodes[add].out[0], x);
        if (last == NODE_NONE || !pass_same_rank(p, x, p->g->nodes[last].out[0]))
            continue;
        if (pass_become(p, last, OP_Gelu, 1, &x) < 0)
            return -ENOMEM;
        p->report->fused_gelus++;
    }
    return 0;
}
