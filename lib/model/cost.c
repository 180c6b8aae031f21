/* What one run of a node takes: floating-point operations, and bytes read and written.  Exact
 * for products and convolutions; for the rest, operations by element, weighted by how many a
 * typical implementation needs.  Of a late node nothing is known: it counts nothing.  The numbers
 * rank nodes and place cut-points: they predict no time. */
#include "infer.h"
#include <gpulet/einsum.h>

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
    case OP_BitCast:
    case OP_Cast:
    case OP_CenterCropPad:
    case OP_Concat:
    case OP_ConstantOfShape:
    case OP_DepthToSpace:
    case OP_SpaceToDepth:
    case OP_GatherElements:
    case OP_GatherND:
    case OP_ReverseSequence:
    case OP_CastLike:
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
    case OP_DequantizeLinear:
        return 2;
    case OP_DynamicQuantizeLinear:
    case OP_QLinearAdd:
    case OP_QuantizeLinear:
        return 4;
    case OP_AffineGrid:
    case OP_LRN:
    case OP_Resize:
    case OP_Softmax:
    case OP_LogSoftmax:
    case OP_LayerNormalization:
    case OP_InstanceNormalization:
    case OP_GroupNormalization:
    case OP_RMSNormalization:
    case OP_MeanVarianceNormalization:
    case OP_Upsample:
        return 8;
    case OP_Cos:
    case OP_Acos:
    case OP_Acosh:
    case OP_Asin:
    case OP_Asinh:
    case OP_Atan:
    case OP_Atanh:
    case OP_Celu:
    case OP_Cosh:
    case OP_Mish:
    case OP_ReduceLogSumExp:
    case OP_Selu:
    case OP_Sinh:
    case OP_Swish:
    case OP_Tan:
    case OP_Elu:
    case OP_Erf:
    case OP_Exp:
    case OP_Gelu:
    case OP_Log:
    case OP_Pow:
    case OP_Sigmoid:
    case OP_Sin:
    case OP_Softplus:
    case OP_GlobalLpPool:
    case OP_Tanh:
        return 10;
    case OP_GridSample:
    case OP_NonMaxSuppression:
        return 32;
    default:
        return 1;
    }
}

static double einsum_flops(const struct node *n, const struct tensor *const *in)
{
    double flops = 2;
    struct einsum e;

    if (einsum_read(n, in, &e, NULL) < 0)
        return 0;
    for (uint32_t l = 0; l < e.n_labels; l++)
        flops *= (double)e.size[l];
    return flops;
}

/* Points that RoiAlign reads for one result: as the attribute says, or as many as there are. */
static double roi_points(const struct node *n, const struct tensor *x, const struct tensor *y)
{
    double ratio = (double)node_int(n, "sampling_ratio", 0);
    double bins = y ? (double)y->dims[2] * (double)y->dims[3] : 1;

    return ratio > 0 ? ratio * ratio : MAX((double)x->dims[2] * (double)x->dims[3] / bins, 1);
}

/* Keys that a query meets: those of before, and its own. */
static double attention_keys(const struct tensor *const *in)
{
    double past = in[4] ? (double)in[4]->dims[2] : 0;

    return past + (double)in[1]->dims[in[1]->rank == 3 ? 1 : 2];
}

double node_matrix_flops(const struct node *n, const struct tensor *const in[COST_INPUTS],
                         const struct tensor *out)
{
    double n_out = elems(out);

    switch (n->op) {
    case OP_Conv:
    case OP_ConvInteger:
    case OP_DeformConv:
        return n_out * 2 * (double)in[1]->dims[1] * taps(in[1]);
    case OP_ConvTranspose:
        return elems(in[0]) * 2 * (double)in[1]->dims[1] * taps(in[1]);
    case OP_QLinearConv:
        return n_out * 2 * (double)in[3]->dims[1] * taps(in[3]);
    case OP_Gemm:
        return n_out * 2 * (double)in[0]->dims[node_int(n, "transA", 0) ? 0 : 1];
    case OP_MatMul:
    case OP_MatMulInteger:
    case OP_QLinearMatMul:
        return n_out * 2 * (double)in[0]->dims[in[0]->rank - 1];
    case OP_Einsum:
        return einsum_flops(n, in);
    case OP_RNN:
    case OP_GRU:
    case OP_LSTM: /* every row of X meets W, every state R */
        return 2 * elems(in[0]) / MAX(1.0, (double)in[0]->dims[2]) * (elems(in[1]) + elems(in[2]));
    case OP_Attention: /* each query meets the keys, then the values */
        return 2 * (elems(in[0]) + n_out) * attention_keys(in);
    default:
        return 0;
    }
}

double node_flops(const struct node *n, const struct tensor *const in[COST_INPUTS],
                  const struct tensor *out)
{
    double n_out = elems(out), matrix = node_matrix_flops(n, in, out);

    switch (n->op) {
    case OP_Conv:
    case OP_Gemm:
    case OP_MatMul:
        return matrix + (in[2] ? n_out : 0);
    case OP_DeformConv: /* each tap is read between its neighbours */
        return 5 * matrix;
    case OP_Det:
        return elems(in[0]) * (double)in[0]->dims[in[0]->rank - 1];
    case OP_TopK: /* as the reference does it */
        return elems(in[0]) * (double)MAX(1, out->dims[out->rank ? out->rank - 1 : 0]);
    case OP_AveragePool:
    case OP_MaxPool:
        return n_out * window_flops(n);
    case OP_LpPool:
        return n_out * window_flops(n) * 10;
    case OP_RoiAlign:
        return n_out * 8 * roi_points(n, in[0], out);
    default:
        return matrix > 0 ? matrix : MAX(n_out, elems(in[0])) * per_elem(n->op);
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

const struct tensor *cost_tensors(const struct bound *b, const struct node *n,
                                  const struct tensor *in[COST_INPUTS])
{
    const struct tensor *out = NULL;

    for (uint32_t i = 0; i < COST_INPUTS; i++)
        in[i] = i >= n->n_in || n->in[i] == VALUE_NONE ? NULL : &b->value[n->in[i]];
    for (uint32_t i = 0; !out && i < n->n_out; i++)
        out = n->out[i] == VALUE_NONE ? NULL : &b->value[n->out[i]];
    return out;
}

struct cost node_cost(const struct bound *b, uint32_t node)
{
    const struct node *n = &b->graph->nodes[node];
    const struct tensor *in[COST_INPUTS], *out = cost_tensors(b, n, in);

    if (b->skip[node] || b->late_node[node])
        return (struct cost){0};
    struct cost c = {.flops = node_flops(n, in, out) + elems(out) * n->n_post,
                     .bytes = io_bytes(b, n)};
    if (n->op == OP_Gather && in[0] && in[1]) /* only the rows that are asked for */
        c.bytes = 2 * (double)(out ? out->bytes : 0) + (double)in[1]->bytes;
    if (n->op == OP_Shape || n->op == OP_Size)
        c.bytes = 8;
    return c;
}
