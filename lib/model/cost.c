/* What one run of a node takes: floating-point operations, and bytes read and written.  Exact
 * for products and convolutions; for the rest, operations by element, weighted by how many a
 * typical implementation needs.  Of a late node nothing is known: it counts nothing.  The numbers
 * rank nodes and place cut-points: they predict no time. */
#include "infer.h"

static double elems(const struct tensor *t)
{
    double n = 1;

    for (uint32_t i = 0; t && i < t->rank; i++)
        n *= (double)t->dims[i];
    return t ? n : 0;
}

/* Product of the spatial dimensions of a Conv's weights. */
static double taps(const struct tensor *w)
{
    double n = 1;

    for (uint32_t i = 2; i < w->rank; i++)
        n *= (double)w->dims[i];
    return n;
}

static double window_flops(const struct node *n)
{
    double taps_of_window = 1;
    uint32_t count;
    const int64_t *k = node_ints(n, "kernel_shape", &count);

    for (uint32_t i = 0; i < count; i++)
        taps_of_window *= (double)k[i];
    return taps_of_window;
}

/* Operations for each element of the result, or of the input where that is larger. */
static double per_elem(enum op_id op)
{
    switch (op) {
    case OP_Cast:
    case OP_Concat:
    case OP_ConstantOfShape:
    case OP_Dropout:
    case OP_Expand:
    case OP_Flatten:
    case OP_Gather:
    case OP_Identity:
    case OP_Pad:
    case OP_Reshape:
    case OP_Shape:
    case OP_Size:
    case OP_Slice:
    case OP_Split:
    case OP_Squeeze:
    case OP_Tile:
    case OP_Transpose:
    case OP_Unsqueeze:
        return 0;
    case OP_BatchNormalization:
        return 2;
    case OP_LRN:
    case OP_Softmax:
    case OP_LogSoftmax:
    case OP_LayerNormalization:
    case OP_InstanceNormalization:
        return 8;
    case OP_Cos:
    case OP_Elu:
    case OP_Erf:
    case OP_Exp:
    case OP_Gelu:
    case OP_Log:
    case OP_Pow:
    case OP_Sigmoid:
    case OP_Sin:
    case OP_Softplus:
    case OP_Tanh:
        return 10;
    default:
        return 1;
    }
}

static double node_flops(const struct node *n, const struct tensor *const in[3],
                         const struct tensor *out)
{
    double n_out = elems(out);

    switch (n->op) {
    case OP_Conv:
        return n_out * (2 * (double)in[1]->dims[1] * taps(in[1]) + (in[2] ? 1 : 0));
    case OP_Gemm:
        return n_out *
               (2 * (double)in[0]->dims[node_int(n, "transA", 0) ? 0 : 1] + (in[2] ? 1 : 0));
    case OP_MatMul:
        return n_out * 2 * (double)in[0]->dims[in[0]->rank - 1];
    case OP_AveragePool:
    case OP_MaxPool:
        return n_out * window_flops(n);
    default:
        return MAX(n_out, elems(in[0])) * per_elem(n->op);
    }
}

static double io_bytes(const struct bound *b, const struct node *n)
{
    double bytes = 0;

    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != VALUE_NONE)
            bytes += (double)b->value[n->in[i]].bytes;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] != VALUE_NONE)
            bytes += (double)b->value[n->out[i]].bytes;
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD)
            bytes += (double)b->value[n->post[i].value].bytes;
    return bytes;
}

struct cost node_cost(const struct bound *b, uint32_t node)
{
    const struct node *n = &b->graph->nodes[node];
    const struct tensor *in[3] = {0}, *out = NULL;

    if (b->skip[node] || b->late_node[node])
        return (struct cost){0};
    for (uint32_t i = 0; i < n->n_in && i < 3; i++)
        in[i] = n->in[i] == VALUE_NONE ? NULL : &b->value[n->in[i]];
    for (uint32_t i = 0; !out && i < n->n_out; i++)
        out = n->out[i] == VALUE_NONE ? NULL : &b->value[n->out[i]];
    struct cost c = {.flops = node_flops(n, in, out) + elems(out) * n->n_post,
                     .bytes = io_bytes(b, n)};
    if (n->op == OP_Gather && in[0] && in[1]) /* only the rows that are asked for */
        c.bytes = 2 * (double)(out ? out->bytes : 0) + (double)in[1]->bytes;
    if (n->op == OP_Shape || n->op == OP_Size)
        c.bytes = 8;
    return c;
}
