/* GELU as exporters write it below opset 20: x * 0.5 * (1 + erf(x / sqrt 2)), the three factors
 * multiplied in any order.  Found from the Erf, forwards.  Its approximation has
 * tanh(sqrt(2 / pi) * (x + 0.044715 x^3)) for the erf. */
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

/* x^3: a power, or products. */
static uint32_t cube_of(const struct pass *p, uint32_t value)
{
    uint32_t pow = pass_made_by(p, value, OP_Pow), mul = pass_made_by(p, value, OP_Mul);
    double k;

    if (pow != NODE_NONE) {
        const struct node *n = &p->g->nodes[pow];
        return pass_number(p, n->in[1], &k) && k == 3 ? n->in[0] : VALUE_NONE;
    }
    for (int i = 0; mul != NODE_NONE && i < 2; i++) {
        const struct node *n = &p->g->nodes[mul];
        uint32_t square = pass_made_by(p, n->in[i], OP_Mul), x = n->in[1 - i];
        if (square != NODE_NONE && p->g->nodes[square].in[0] == x && p->g->nodes[square].in[1] == x)
            return x;
    }
    return VALUE_NONE;
}

/* x of sqrt(2 / pi) * (x + 0.044715 x^3) */
static uint32_t tanh_scaled_from(const struct pass *p, uint32_t value)
{
    uint32_t outer = pass_made_by(p, value, OP_Mul);
    uint32_t sum = outer == NODE_NONE
                       ? VALUE_NONE
                       : pass_other_than_number(p, &p->g->nodes[outer], M_2_SQRTPI * M_SQRT1_2);
    uint32_t add = sum == VALUE_NONE ? NODE_NONE : pass_made_by(p, sum, OP_Add);

    for (int i = 0; add != NODE_NONE && i < 2; i++) {
        const struct node *n = &p->g->nodes[add];
        uint32_t mul = pass_made_by(p, n->in[i], OP_Mul), x = n->in[1 - i];
        uint32_t cube =
            mul == NODE_NONE ? VALUE_NONE : pass_other_than_number(p, &p->g->nodes[mul], 0.044715);
        if (cube != VALUE_NONE && cube_of(p, cube) == x)
            return x;
    }
    return VALUE_NONE;
}

static int become_gelu(struct pass *p, uint32_t id, uint32_t x, bool by_tanh)
{
    const struct attr a = {.name = "approximate", .type = ATTR_STRING, .n = 4, .s = "tanh"};

    if (pass_become(p, id, OP_Gelu, 1, &x) < 0 || (by_tanh && graph_add_attr(p->g, id, &a) < 0))
        return -ENOMEM;
    p->report->fused_gelus++;
    return 0;
}

int pass_gelu(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++) {
        const struct node *n = &p->g->nodes[id];
        if ((n->op != OP_Erf && n->op != OP_Tanh) || n->n_post)
            continue;
        bool by_tanh = n->op == OP_Tanh;
        uint32_t x = by_tanh ? tanh_scaled_from(p, n->in[0]) : scaled_from(p, n->in[0]);
        uint32_t add = next_node(p, n->out[0], OP_Add);
        if (x == VALUE_NONE || add == NODE_NONE || p->g->values[x].dtype != DT_FP32 ||
            pass_other_than_number(p, &p->g->nodes[add], 1) != n->out[0])
            continue;
        uint32_t last = last_product(p, p->g->nodes[add].out[0], x);
        if (last == NODE_NONE || !pass_same_rank(p, x, p->g->nodes[last].out[0]))
            continue;
        if (become_gelu(p, last, x, by_tanh) < 0)
            return -ENOMEM;
    }
    return 0;
}
