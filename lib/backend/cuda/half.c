/* precision = fp16, bf16: which nodes are computed from 16 bits, and which results stay in them.
 *
 * Convolutions and products are, by the libraries, which sum in FP32.  On the way from one to the
 * next values stay in 16 bits: what the table below names loads and stores those, and computes in
 * FP32.  Everything else reads FP32, converted once.  So does what comes behind the last
 * convolution or product, as scores and boxes want all their bits; a network without any is 16 bits
 * to its end. */
#include "nvlib.h"

#include <kernels/cuda/half.h>

#define FP16_MAX 65504.f

enum dtype half_type(const struct build *b)
{
    return b->precision == PRECISION_FP16   ? DT_FP16
           : b->precision == PRECISION_BF16 ? DT_BF16
                                            : DT_FP32;
}

int half_check(const struct part *p, const struct compile_args *args, struct err *err)
{
    const char *name = precision_name(args->precision);

    if (args->precision == PRECISION_FP32)
        return 0;
    if (args->precision != PRECISION_BF16 && args->precision != PRECISION_FP16)
        return err_set(err, -ENOTSUP, "precision '%s': the cuda backend has fp32, fp16 and bf16",
                       name);
    if (args->batch_invariant)
        return err_set(err, -ENOTSUP,
                       "precision '%s': what makes no difference by the batch is in fp32", name);
    if (!p->blas && !p->dnn)
        return err_set(err, -ENOTSUP, "precision '%s': there is neither cuBLASLt nor cuDNN", name);
    return 0;
}

/* ---- what the libraries do */
static bool half_node(const struct build *b, const struct node *n)
{
    if ((n->op != OP_Conv && n->op != OP_Gemm && n->op != OP_MatMul) ||
        (n->op == OP_Conv && !b->graph->values[n->in[1]].constant))
        return false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!is_f32(in_of(b, n, i)))
            return false;
    return n->op != OP_MatMul || in_of(b, n, 1)->rank >= 2;
}

/* As bits, of which those of a larger number are larger and those of no number the largest. */
static bool all_fit(const struct constant *c)
{
    const float *x = c->t.data;
    uint32_t most = 0;

    for (size_t i = 0; i < c->t.bytes / sizeof(*x); i++) {
        uint32_t bits = float_bits(x[i]) & 0x7fffffff;
        most = MAX(most, bits);
    }
    return most <= float_bits(FP16_MAX);
}

bool half_fits(const struct build *b, uint32_t v)
{
    const struct constant *c = v == VALUE_NONE ? NULL : b->graph->values[v].constant;

    if (!c || half_type(b) != DT_FP16)
        return true;
    if (b->fits[v] == FIT_UNKNOWN) /* of a large model that is a gigabyte to read */
        b->fits[v] = all_fit(c) ? FIT_YES : FIT_NO;
    return b->fits[v] == FIT_YES;
}

enum dtype half_for(const struct build *b, const struct node *n)
{
    if (half_type(b) == DT_FP32 || !half_node(b, n))
        return DT_FP32;
    for (uint32_t i = 1; i < n->n_in; i++)
        if (!half_fits(b, n->in[i]))
            return DT_FP32; /* it would be infinite */
    return half_type(b);
}

bool half_alone(const struct build *b, uint32_t v, bool *ret_last)
{
    const struct graph *g = b->graph;
    bool any = false, last = false;

    *ret_last = false;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        bool reads = false;
        for (uint32_t k = 0; k < n->n_in; k++)
            reads |= n->in[k] == v;
        for (uint32_t k = 0; k < n->n_post; k++)
            reads |= n->post[k].kind == POST_ADD && n->post[k].value == v;
        if (!reads || b->bound->skip[i])
            continue;
        if (b->bound->late_node[i] || half_for(b, n) == DT_FP32)
            return false;
        any = true;
        last |= n->op == OP_Conv;
    }
    for (uint32_t i = 0; i < g->n_out; i++)
        any &= g->out[i] != v;
    *ret_last = any && last;
    return any;
}

/* ---- what our kernels keep */
enum {
    KEEPS = 1, /* 16 bits */
    LAST = 2,  /* and channels last, too */
    ONE = 4,   /* of the first operand; the others are parameters in FP32 */
    SAME = 8   /* another name for what is there */
};
static const uint8_t table[OP_END] = {
    [OP_Abs] = KEEPS | LAST,
    [OP_Add] = KEEPS | LAST,
    [OP_AveragePool] = KEEPS | LAST,
    [OP_BatchNormalization] = KEEPS | LAST | ONE,
    [OP_Celu] = KEEPS | LAST,
    [OP_Clip] = KEEPS | LAST | ONE,
    [OP_Concat] = KEEPS | LAST,
    [OP_DepthToSpace] = KEEPS | LAST,
    [OP_Div] = KEEPS | LAST,
    [OP_Dropout] = KEEPS | SAME,
    [OP_Elu] = KEEPS | LAST,
    [OP_Erf] = KEEPS | LAST,
    [OP_Expand] = KEEPS,
    [OP_Flatten] = KEEPS | SAME,
    [OP_Gather] = KEEPS,
    [OP_Gelu] = KEEPS | LAST,
    [OP_GlobalAveragePool] = KEEPS | LAST,
    [OP_GlobalMaxPool] = KEEPS | LAST,
    [OP_GroupNormalization] = KEEPS | ONE,
    [OP_HardSigmoid] = KEEPS | LAST,
    [OP_HardSwish] = KEEPS | LAST,
    [OP_Identity] = KEEPS | SAME,
    [OP_InstanceNormalization] = KEEPS | ONE,
    [OP_LayerNormalization] = KEEPS | ONE,
    [OP_LeakyRelu] = KEEPS | LAST,
    [OP_LogSoftmax] = KEEPS,
    [OP_Max] = KEEPS | LAST,
    [OP_MaxPool] = KEEPS | LAST,
    [OP_Mean] = KEEPS | LAST,
    [OP_Min] = KEEPS | LAST,
    [OP_Mish] = KEEPS | LAST,
    [OP_Mul] = KEEPS | LAST,
    [OP_Neg] = KEEPS | LAST,
    [OP_Pad] = KEEPS | LAST | ONE,
    [OP_PRelu] = KEEPS | LAST,
    [OP_ReduceMax] = KEEPS,
    [OP_ReduceMean] = KEEPS,
    [OP_ReduceMin] = KEEPS,
    [OP_Relu] = KEEPS | LAST,
    [OP_Reshape] = KEEPS | SAME,
    [OP_RMSNormalization] = KEEPS | ONE,
    [OP_Selu] = KEEPS | LAST,
    [OP_Shrink] = KEEPS | LAST,
    [OP_Sigmoid] = KEEPS | LAST,
    [OP_Slice] = KEEPS | LAST,
    [OP_Softmax] = KEEPS,
    [OP_Softplus] = KEEPS | LAST,
    [OP_Softsign] = KEEPS | LAST,
    [OP_SpaceToDepth] = KEEPS | LAST,
    [OP_Split] = KEEPS | LAST,
    [OP_Squeeze] = KEEPS | SAME,
    [OP_Sub] = KEEPS | LAST,
    [OP_Sum] = KEEPS | LAST,
    [OP_Swish] = KEEPS | LAST,
    [OP_Tanh] = KEEPS | LAST,
    [OP_ThresholdedRelu] = KEEPS | LAST,
    [OP_Tile] = KEEPS,
    [OP_Transpose] = KEEPS,
    [OP_Unsqueeze] = KEEPS | SAME,
    [OP_Where] = KEEPS | LAST,
};

static unsigned keeps(const struct node *n)
{
    bool other = n->op == OP_Pad && !STREQ(node_str(n, "mode", "constant"), "constant");

    return other ? 0 : table[n->op];
}

/* Operand i, if it is one of those that the node reads in 16 bits. */
static uint32_t operand(const struct build *b, const struct node *n, uint32_t i)
{
    bool data = i == 0 || !(keeps(n) & ONE);

    return data && n->in[i] != VALUE_NONE && is_f32(value_of(b, n->in[i])) ? n->in[i] : VALUE_NONE;
}

/* ---- which values go on to such a node */
static bool goes_on(const struct build *b, const struct node *n)
{
    bool any = false;

    for (uint32_t k = 0; k < n->n_out; k++)
        any |= n->out[k] != VALUE_NONE && b->wants[n->out[k]];
    return any;
}

static void want_operands(struct build *b, const struct node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (operand(b, n, i) != VALUE_NONE)
            b->wants[n->in[i]] = true;
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD)
            b->wants[n->post[i].value] = true;
}

int half_plan(struct build *b)
{
    const struct graph *g = b->graph;
    bool any = false;

    b->wants = ARENA_ARRAY(&b->scratch, bool, g->n_values);
    if (!b->wants)
        return err_set(b->err, -ENOMEM, "out of memory");
    if (half_type(b) == DT_FP32)
        return 0;
    for (uint32_t i = g->n_nodes; i-- > 0;) {
        const struct node *n = &g->nodes[i];
        if (b->bound->skip[i] || b->bound->late_node[i])
            continue;
        if (half_node(b, n) || (keeps(n) && goes_on(b, n)))
            want_operands(b, n);
        any |= half_node(b, n);
    }
    if (!any)
        memset(b->wants, true, g->n_values * sizeof(*b->wants));
    return 0;
}

bool half_wanted(const struct build *b, uint32_t v)
{
    return b->wants[v];
}

/* ---- the node at hand */

/* Under the first of its names. */
static uint32_t origin(const struct build *b, uint32_t v)
{
    const struct graph *g = b->graph;
    uint32_t p = g->values[v].producer;

    while (p != NODE_NONE && keeps(&g->nodes[p]) & SAME) {
        v = g->nodes[p].in[0];
        p = g->values[v].producer;
    }
    return v;
}

static bool is_known(const struct build *b, uint32_t v)
{
    return value_of(b, v)->data || b->graph->values[v].constant;
}

/* In 16 bits, or from outside; of what is done by a node behind it: one of its operands. */
static bool is_there(const struct build *b, uint32_t v)
{
    uint32_t p = b->graph->values[origin(b, v)].producer;
    bool any = p == NODE_NONE || half_is(b, v, false) || half_is(b, v, true);

    for (uint32_t i = 0; !any && b->fused[p].gone && i < b->graph->nodes[p].n_in; i++) {
        uint32_t in = b->graph->nodes[p].in[i];
        any = in != VALUE_NONE && !is_known(b, in) && is_there(b, in);
    }
    return any;
}

/* What FP32 has been left in is not rounded for an operator that could as well read that: one of
 * the operands is in 16 bits, or comes from outside, or all are constants. */
static bool begins(const struct build *b, const struct node *n)
{
    uint32_t n_constant = 0, n_data = 0;

    for (uint32_t i = 0; i < n->n_in; i++) {
        uint32_t v = operand(b, n, i);
        if (v == VALUE_NONE)
            continue;
        n_data++;
        if (is_known(b, v))
            n_constant++;
        else if (is_there(b, v))
            return true;
    }
    return n_data > 0 && n_constant == n_data;
}

static bool in_last(const struct build *b, const struct node *n)
{
    bool any = false;

    if (node_int(n, "broadcast", 0)) /* the old way: other dimensions are what belongs together */
        return false;
    for (uint32_t i = 0; i < n->n_in; i++) {
        uint32_t v = operand(b, n, i);
        any |= v != VALUE_NONE && value_of(b, v)->rank == b->rank && half_is(b, v, true);
    }
    return any;
}

void half_begin(struct build *b, const struct node *n)
{
    const struct tensor *y = n->n_out ? value_of(b, n->out[0]) : NULL;

    b->store = DT_FP32;
    b->last = false;
    b->rank = y ? y->rank : 0;
    if (half_type(b) == DT_FP32 || !keeps(n) || (keeps(n) & SAME) || !y || !is_f32(y) ||
        !goes_on(b, n) || !begins(b, n))
        return;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!half_fits(b, operand(b, n, i)))
            return;
    b->store = half_type(b);
    b->last = (keeps(n) & LAST) && in_last(b, n);
    b->exe->n_asked += 1 + b->fused[b->node].n;
}
