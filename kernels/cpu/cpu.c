/* Which kernel plans which operator, and what planning has in common. */
#include "kit.h"
#include <kernels/ref/ref.h>
#include <stdio.h>

/* One row an operator; what is not here is refused by name.  plan_plain: the reference's loops, of
 * which no speed is claimed. */
static plan_fn *const table[OP_END] = {
    [OP_Abs] = plan_unary,
    [OP_Acos] = plan_unary,
    [OP_Acosh] = plan_unary,
    [OP_Add] = plan_binary,
    [OP_AffineGrid] = plan_plain,
    [OP_And] = plan_binary,
    [OP_ArgMax] = plan_arg,
    [OP_ArgMin] = plan_arg,
    [OP_Asin] = plan_unary,
    [OP_Asinh] = plan_unary,
    [OP_Atan] = plan_unary,
    [OP_Atanh] = plan_unary,
    [OP_Attention] = plan_attention,
    [OP_AveragePool] = plan_pool,
    [OP_BatchNormalization] = plan_batch_norm,
    [OP_Bernoulli] = plan_plain,
    [OP_BitCast] = plan_copy_first,
    [OP_BitShift] = plan_binary,
    [OP_BitwiseAnd] = plan_binary,
    [OP_BitwiseNot] = plan_unary,
    [OP_BitwiseOr] = plan_binary,
    [OP_BitwiseXor] = plan_binary,
    [OP_BlackmanWindow] = plan_plain,
    [OP_Cast] = plan_cast,
    [OP_CastLike] = plan_cast,
    [OP_Ceil] = plan_unary,
    [OP_Celu] = plan_unary,
    [OP_CenterCropPad] = plan_plain,
    [OP_Clip] = plan_unary,
    [OP_Col2Im] = plan_plain,
    [OP_Compress] = plan_plain,
    [OP_Concat] = plan_concat,
    [OP_ConstantOfShape] = plan_fill,
    [OP_Conv] = plan_plain, /* what the library refuses */
    [OP_ConvInteger] = plan_qconv,
    [OP_ConvTranspose] = plan_plain,
    [OP_Cos] = plan_unary,
    [OP_Cosh] = plan_unary,
    [OP_CumProd] = plan_plain,
    [OP_CumSum] = plan_cum_sum,
    [OP_DeformConv] = plan_plain,
    [OP_DepthToSpace] = plan_depth_to_space,
    [OP_DequantizeLinear] = plan_quant,
    [OP_Det] = plan_plain,
    [OP_DFT] = plan_plain,
    [OP_Div] = plan_binary,
    [OP_Dropout] = plan_copy_first,
    [OP_DynamicQuantizeLinear] = plan_quant,
    [OP_Einsum] = plan_einsum,
    [OP_Elu] = plan_unary,
    [OP_Equal] = plan_binary,
    [OP_Erf] = plan_unary,
    [OP_Exp] = plan_unary,
    [OP_Expand] = plan_expand,
    [OP_EyeLike] = plan_plain,
    [OP_Flatten] = plan_copy_first,
    [OP_Floor] = plan_unary,
    [OP_Gather] = plan_gather,
    [OP_GatherElements] = plan_gather_elements,
    [OP_GatherND] = plan_gather_nd,
    [OP_Gelu] = plan_unary,
    [OP_Gemm] = plan_product,
    [OP_GlobalAveragePool] = plan_pool,
    [OP_GlobalLpPool] = plan_plain,
    [OP_GlobalMaxPool] = plan_pool,
    [OP_Greater] = plan_binary,
    [OP_GreaterOrEqual] = plan_binary,
    [OP_GridSample] = plan_grid_sample,
    [OP_GroupNormalization] = plan_group_norm,
    [OP_GRU] = plan_rnn,
    [OP_HammingWindow] = plan_plain,
    [OP_HannWindow] = plan_plain,
    [OP_Hardmax] = plan_plain,
    [OP_HardSigmoid] = plan_unary,
    [OP_HardSwish] = plan_unary,
    [OP_Identity] = plan_copy_first,
    [OP_InstanceNormalization] = plan_instance_norm,
    [OP_IsInf] = plan_unary,
    [OP_IsNaN] = plan_unary,
    [OP_LayerNormalization] = plan_layer_norm,
    [OP_LeakyRelu] = plan_unary,
    [OP_Less] = plan_binary,
    [OP_LessOrEqual] = plan_binary,
    [OP_Log] = plan_unary,
    [OP_LogSoftmax] = plan_softmax,
    [OP_LpNormalization] = plan_lp_norm,
    [OP_LpPool] = plan_plain,
    [OP_LRN] = plan_lrn,
    [OP_LSTM] = plan_rnn,
    [OP_MatMul] = plan_product,
    [OP_MatMulInteger] = plan_qproduct,
    [OP_Max] = plan_binary,
    [OP_MaxPool] = plan_pool,
    [OP_MaxRoiPool] = plan_plain,
    [OP_MaxUnpool] = plan_plain,
    [OP_Mean] = plan_binary,
    [OP_MeanVarianceNormalization] = plan_mvn,
    [OP_MelWeightMatrix] = plan_plain,
    [OP_Min] = plan_binary,
    [OP_Mish] = plan_unary,
    [OP_Mod] = plan_binary,
    [OP_Mul] = plan_binary,
    [OP_Multinomial] = plan_plain,
    [OP_Neg] = plan_unary,
    [OP_NegativeLogLikelihoodLoss] = plan_plain,
    [OP_NonMaxSuppression] = plan_plain,
    [OP_NonZero] = plan_plain,
    [OP_Not] = plan_unary,
    [OP_OneHot] = plan_one_hot,
    [OP_Or] = plan_binary,
    [OP_Pad] = plan_pad,
    [OP_Pow] = plan_binary,
    [OP_PRelu] = plan_binary,
    [OP_QLinearAdd] = plan_qadd,
    [OP_QLinearConv] = plan_qconv,
    [OP_QLinearMatMul] = plan_qproduct,
    [OP_QuantizeLinear] = plan_quant,
    [OP_RandomNormal] = plan_plain,
    [OP_RandomNormalLike] = plan_plain,
    [OP_RandomUniform] = plan_plain,
    [OP_RandomUniformLike] = plan_plain,
    [OP_Range] = plan_range,
    [OP_Reciprocal] = plan_unary,
    [OP_ReduceL1] = plan_reduce,
    [OP_ReduceL2] = plan_reduce,
    [OP_ReduceLogSum] = plan_reduce,
    [OP_ReduceLogSumExp] = plan_reduce,
    [OP_ReduceMax] = plan_reduce,
    [OP_ReduceMean] = plan_reduce,
    [OP_ReduceMin] = plan_reduce,
    [OP_ReduceProd] = plan_reduce,
    [OP_ReduceSum] = plan_reduce,
    [OP_ReduceSumSquare] = plan_reduce,
    [OP_RegexFullMatch] = plan_plain,
    [OP_Relu] = plan_unary,
    [OP_Reshape] = plan_copy_first,
    [OP_Resize] = plan_resize,
    [OP_ReverseSequence] = plan_plain,
    [OP_RMSNormalization] = plan_rms_norm,
    [OP_RNN] = plan_rnn,
    [OP_RoiAlign] = plan_roi_align,
    [OP_RotaryEmbedding] = plan_rotary,
    [OP_Round] = plan_unary,
    [OP_Scatter] = plan_scatter_elements,
    [OP_ScatterElements] = plan_scatter_elements,
    [OP_ScatterND] = plan_scatter_nd,
    [OP_Selu] = plan_unary,
    [OP_Shape] = plan_shape,
    [OP_Shrink] = plan_unary,
    [OP_Sigmoid] = plan_unary,
    [OP_Sign] = plan_unary,
    [OP_Sin] = plan_unary,
    [OP_Sinh] = plan_unary,
    [OP_Size] = plan_shape,
    [OP_Slice] = plan_slice,
    [OP_Softmax] = plan_softmax,
    [OP_SoftmaxCrossEntropyLoss] = plan_plain,
    [OP_Softplus] = plan_unary,
    [OP_Softsign] = plan_unary,
    [OP_SpaceToDepth] = plan_space_to_depth,
    [OP_Split] = plan_split,
    [OP_Sqrt] = plan_unary,
    [OP_Squeeze] = plan_copy_first,
    [OP_STFT] = plan_plain,
    [OP_StringConcat] = plan_plain,
    [OP_StringNormalizer] = plan_plain,
    [OP_StringSplit] = plan_plain,
    [OP_Sub] = plan_binary,
    [OP_Sum] = plan_binary,
    [OP_Swish] = plan_unary,
    [OP_Tan] = plan_unary,
    [OP_Tanh] = plan_unary,
    [OP_TensorScatter] = plan_plain,
    [OP_TfIdfVectorizer] = plan_plain,
    [OP_ThresholdedRelu] = plan_unary,
    [OP_Tile] = plan_tile,
    [OP_TopK] = plan_top_k,
    [OP_Transpose] = plan_transpose,
    [OP_Trilu] = plan_trilu,
    [OP_Unique] = plan_plain,
    [OP_Unsqueeze] = plan_copy_first,
    [OP_Upsample] = plan_resize,
    [OP_Where] = plan_where,
    [OP_Xor] = plan_binary,
};

int cpu_plan(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    struct err why = {0};

    if (n->op >= OP_END || !table[n->op])
        return err_set(err, -ENOTSUP, "node '%s' (%s): not supported by the cpu backend", n->name,
                       op_name(n->op));
    *ret = (struct cpu_call){0};
    int r = table[n->op](a, ret, &why);
    if (r == -ENOTSUP && ref_find(n->op))
        return plan_plain(a, ret, err);
    return r < 0 ? err_set(err, r, "%s", why.msg) : 0;
}

int plan_fail(const struct cpu_args *a, int code, const char *what, struct err *err)
{
    return err_set(err, code, "node '%s' (%s): %s", a->node->name, op_name(a->node->op), what);
}

int plan_type(const struct cpu_args *a, enum dtype t, struct err *err)
{
    return err_set(err, -ENOTSUP, "node '%s' (%s): type %s is not supported by the cpu backend",
                   a->node->name, op_name(a->node->op), dtype_name(t));
}

int plan_done(const struct cpu_args *a, int (*run)(const void *, void *const *), const void *params,
              size_t bytes, struct cpu_call *ret, struct err *err)
{
    ret->run = run;
    ret->params = arena_memdup(a->arena, params, bytes);
    return ret->params ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int arg_ints(const struct cpu_args *a, uint32_t i, const char *attr, int64_t *ret, uint32_t max,
             uint32_t *ret_n, struct err *err)
{
    const struct tensor *t = arg_in(a, i);
    uint32_t n;
    const int64_t *ints = node_ints(a->node, attr, &n);

    *ret_n = 0;
    if (!t && !ints)
        return 0;
    if (t && !t->data)
        return plan_fail(a, -ENOTSUP, "an argument that is computed while the model runs", err);
    if (t)
        n = (uint32_t)MIN(count_of(t), (int64_t)max + 1);
    if (n > max)
        return plan_fail(a, -EINVAL, "more numbers than dimensions", err);
    for (uint32_t k = 0; k < n; k++)
        ret[k] = !t                     ? ints[k]
                 : t->dtype == DT_INT32 ? ((const int32_t *)t->data)[k]
                                        : ((const int64_t *)t->data)[k];
    *ret_n = n;
    return 0;
}

int arg_axis(const struct cpu_args *a, int64_t axis, uint32_t rank, uint32_t *ret, struct err *err)
{
    int64_t at = axis < 0 ? axis + (int64_t)rank : axis;

    if (at < 0 || at >= (int64_t)rank)
        return err_set(err, -EINVAL, "node '%s' (%s): axis %lld of rank %u", a->node->name,
                       op_name(a->node->op), (long long)axis, rank);
    *ret = (uint32_t)at;
    return 0;
}

/* ---- shapes */

int64_t span(const struct tensor *t, uint32_t from, uint32_t to)
{
    int64_t n = 1;

    for (uint32_t i = from; i < to; i++)
        n *= t->dims[i];
    return n;
}

void strides_rows(uint32_t rank, const int64_t *dims, int64_t *ret)
{
    int64_t n = 1;

    for (uint32_t i = rank; i-- > 0;) {
        ret[i] = n;
        n *= dims[i];
    }
}

void strides_broadcast(const struct tensor *t, const struct tensor *y, int64_t *ret)
{
    int64_t own[MAX_RANK];

    assert(t->rank <= y->rank);
    strides_rows(t->rank, t->dims, own);
    for (uint32_t i = 0; i < y->rank; i++) {
        uint32_t k = i + t->rank - y->rank; /* wraps for what t lacks */
        bool has = i + t->rank >= y->rank;
        ret[i] = has && t->dims[k] != 1 ? own[k] : 0;
    }
}

static bool mergeable(const struct walk *w, const int64_t (*stride)[MAX_RANK], uint32_t outer,
                      uint32_t inner, const int64_t *dims)
{
    for (uint32_t k = 0; k < w->n_operands; k++)
        if (w->stride[k][outer] != stride[k][inner] * dims[inner])
            return false;
    return true;
}

void walk_make(struct walk *w, uint32_t rank, const int64_t *dims, uint32_t n_operands,
               const int64_t (*stride)[MAX_RANK])
{
    *w = (struct walk){.n_operands = n_operands};
    for (uint32_t i = 0; i < rank; i++) {
        if (dims[i] == 1)
            continue;
        if (w->rank > 0 && mergeable(w, stride, w->rank - 1, i, dims))
            w->dims[w->rank - 1] *= dims[i];
        else
            w->dims[w->rank++] = dims[i];
        for (uint32_t k = 0; k < n_operands; k++)
            w->stride[k][w->rank - 1] = stride[k][i];
    }
    if (w->rank == 0)
        w->dims[w->rank++] = 1;
}

void walk_cut(struct walk *w, uint32_t part, uint32_t n_parts, int64_t *ret_from)
{
    *ret_from = piece_from(w->dims[0], part, n_parts);
    w->dims[0] = piece_from(w->dims[0], part + 1, n_parts) - *ret_from;
}

bool walk_step(const struct walk *w, int64_t *at, int64_t *off)
{
    for (uint32_t i = w->rank - 1; i-- > 0;) {
        for (uint32_t k = 0; k < w->n_operands; k++)
            off[k] += w->stride[k][i];
        if (++at[i] < w->dims[i])
            return true;
        for (uint32_t k = 0; k < w->n_operands; k++)
            off[k] -= w->stride[k][i] * w->dims[i];
        at[i] = 0;
    }
    return false;
}
