/* Post steps: Conv, Gemm and MatMul take a residual Add and an activation that follow, a
 * BatchNormalization that stayed (behind a Concat) a Relu or Clip.
 *
 * An activation may stand behind a Reshape, as GPT-2's feed-forward has it.
 * At most one Add and then one activation, as enum post_kind orders them.  Of the two nodes whose
 * results an Add joins, the later one takes it: the other result is there by then. */
#include "pass.h"
#include <float.h>
#include <math.h>

static bool takes_posts(const struct pass *p, const struct node *n)
{
    return (n->op == OP_Conv || n->op == OP_Gemm || n->op == OP_MatMul ||
            n->op == OP_BatchNormalization) &&
           p->g->values[n->out[0]].dtype == DT_FP32;
}

static bool takes_post(const struct node *n, enum post_kind kind)
{
    return n->op != OP_BatchNormalization || kind == POST_RELU || kind == POST_CLIP;
}

/* A bound of Clip: input i from opset 11 on, an attribute before. */
static bool clip_bound(const struct pass *p, const struct node *n, uint32_t i, const char *name,
                       float absent, float *ret)
{
    double x;

    if (i >= n->n_in || n->in[i] == VALUE_NONE) {
        *ret = node_float(n, name, absent);
        return true;
    }
    bool known = pass_number(p, n->in[i], &x);
    *ret = known ? (float)x : 0;
    return known;
}

/* A node of one input that is an activation. */
static bool is_activation(const struct pass *p, const struct node *n, struct post *ret)
{
    *ret = (struct post){.value = VALUE_NONE};
    switch (n->op) {
    case OP_Relu:
        ret->kind = POST_RELU;
        return true;
    case OP_Clip:
        ret->kind = POST_CLIP;
        return clip_bound(p, n, 1, "min", -FLT_MAX, &ret->alpha) &&
               clip_bound(p, n, 2, "max", FLT_MAX, &ret->beta);
    case OP_Gelu:
        ret->kind = STREQ(node_str(n, "approximate", "none"), "tanh") ? POST_GELU_TANH : POST_GELU;
        return true;
    case OP_Tanh:
        ret->kind = POST_TANH;
        return true;
    case OP_Sigmoid:
        ret->kind = POST_SIGMOID;
        return true;
    case OP_HardSwish:
        ret->kind = POST_HARDSWISH;
        return true;
    default:
        return false;
    }
}

/* x read by a gate and by Mul(x, gate(x)), nobody else: SiLU, or hard swish. */
static bool is_gated(const struct pass *p, uint32_t x, uint32_t *ret_gate, uint32_t *ret_mul,
                     struct post *ret)
{
    if (!pass_read_times(p, x, 2) || p->first[x] == NODE_NONE || p->last[x] == NODE_NONE)
        return false;
    *ret_gate = p->first[x];
    *ret_mul = p->last[x];
    const struct node *gate = &p->g->nodes[*ret_gate], *mul = &p->g->nodes[*ret_mul];
    bool hard = gate->op == OP_HardSigmoid &&
                fabsf(node_float(gate, "alpha", 0.2f) - 1.f / 6) < 1e-6f &&
                node_float(gate, "beta", 0.5f) == 0.5f;
    *ret = (struct post){.kind = hard ? POST_HARDSWISH : POST_SILU, .value = VALUE_NONE};
    return (hard || gate->op == OP_Sigmoid) && mul->op == OP_Mul && !gate->n_post && !mul->n_post &&
           pass_sole_reader(p, gate->out[0]) == *ret_mul && node_other(mul, x) == gate->out[0];
}

/* Add(x, residual) where the residual is there before node `id` runs. */
static bool is_residual(const struct pass *p, uint32_t id, const struct node *add, uint32_t x,
                        struct post *ret)
{
    const struct graph *g = p->g;

    if (add->op != OP_Add || add->n_post)
        return false;
    uint32_t other = node_other(add, x);
    if (other == x || !dims_same(&g->values[x], &g->values[other]) ||
        !dims_same(&g->values[x], &g->values[add->out[0]]))
        return false;
    uint32_t producer = g->values[other].producer;
    *ret = (struct post){.kind = POST_ADD, .value = other};
    return producer == NODE_NONE || producer < id;
}

static void append(struct pass *p, uint32_t id, const struct post *step, uint32_t gone)
{
    struct node *n = &p->g->nodes[id];

    n->post[n->n_post++] = *step;
    pass_absorb(p, id, gone);
    p->report->fused_posts++;
}

/* An activation behind a Reshape of a product is the product's: elements keep their order. */
static bool take_behind_reshape(struct pass *p, uint32_t id, uint32_t reshape)
{
    const struct node *n = &p->g->nodes[id], *m = &p->g->nodes[reshape];
    uint32_t next = m->op == OP_Reshape ? pass_sole_reader(p, m->out[0]) : NODE_NONE;
    struct post step;

    if ((n->op != OP_Gemm && n->op != OP_MatMul) || next == NODE_NONE || m->in[0] != n->out[0])
        return false;
    const struct node *activation = &p->g->nodes[next];
    if (activation->n_post || activation->in[0] != m->out[0] ||
        !is_activation(p, activation, &step))
        return false;
    struct node *into = &p->g->nodes[id];
    into->post[into->n_post++] = step;
    pass_absorb(p, reshape, next);
    p->report->fused_posts++;
    return true;
}

/* Take one step; false when none follows. */
static bool take_step(struct pass *p, uint32_t id)
{
    const struct node *n = &p->g->nodes[id];
    uint32_t x = n->out[0], next = pass_sole_reader(p, x), gate, mul;
    bool activated = n->n_post && n->post[n->n_post - 1].kind != POST_ADD;
    struct post step;

    if (activated || n->n_post == MAX_POST)
        return false;
    if (next == NODE_NONE) {
        if (!is_gated(p, x, &gate, &mul, &step) || !takes_post(n, step.kind))
            return false;
        p->g->nodes[gate].op = OP_NONE;
        append(p, id, &step, mul);
        return true;
    }
    const struct node *m = &p->g->nodes[next];
    if (take_behind_reshape(p, id, next))
        return true;
    if (m->n_post ||
        (!is_activation(p, m, &step) && (n->n_post || !is_residual(p, id, m, x, &step))))
        return false;
    if ((m->in[0] != x && step.kind != POST_ADD) || !takes_post(n, step.kind))
        return false; /* x is a bound of the Clip, or it is none of the node's */
    append(p, id, &step, next);
    return true;
}

int pass_post(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++)
        while (takes_posts(p, &p->g->nodes[id]) && take_step(p, id))
            ;
    return 0;
}
