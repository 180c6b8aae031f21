/* precision = bf16: which nodes are computed in BF16, and which results stay in it.
 *
 * Convolutions and products with constant weights are, summing in FP32; pooling passes on what it
 * gets.  A result is kept in BF16 when such a node reads it, for then it would be rounded anyway;
 * whatever else reads it gets it as FP32.  Products of two activations (attention) stay in FP32:
 * they are a few percent of the work, and their operands are strided views without a copy. */
#include "build.h"

static bool is_fp32(const struct build *b, uint32_t v)
{
    return v == VALUE_NONE || build_tensor(b, v)->dtype == DT_FP32;
}

bool half_node(const struct build *b, const struct node *n)
{
    bool conv = n->op == OP_Conv, product = n->op == OP_Gemm || n->op == OP_MatMul;

    if (b->precision != PRECISION_BF16 || (!conv && !product) ||
        !b->graph->values[n->in[1]].constant)
        return false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!is_fp32(b, n->in[i]))
            return false;
    const struct tensor *x = build_tensor(b, n->in[0]), *w = build_tensor(b, n->in[1]);
    return conv || (x->rank >= 2 && w->rank == 2 && !node_int(n, "transA", 0));
}

static bool is_pool(enum op_id op)
{
    return op == OP_MaxPool || op == OP_AveragePool || op == OP_GlobalAveragePool ||
           op == OP_GlobalMaxPool;
}

static bool reads_half(const struct build *b, const struct node *n, uint32_t v)
{
    if (half_node(b, n)) {
        for (uint32_t i = 0; i < n->n_post && n->op == OP_Conv; i++)
            if (n->post[i].kind == POST_ADD && n->post[i].value == v)
                return true;
        return n->in[0] == v;
    }
    if (n->n_in == 0 || n->n_post)
        return false;
    if (is_pool(n->op))
        return n->in[0] == v;
    for (uint32_t i = 0; i < n->n_in && n->op == OP_Concat; i++)
        if (n->in[i] == v && half_wanted(b, n->out[0]))
            return true;
    return false;
}

bool half_wanted(const struct build *b, uint32_t v)
{
    for (uint32_t i = b->node + 1; i < b->graph->n_nodes; i++)
        if (!b->bound->skip[i] && !b->bound->late_node[i] && reads_half(b, &b->graph->nodes[i], v))
            return true;
    return false;
}
