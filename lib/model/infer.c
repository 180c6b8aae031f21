/* Shape inference: a table with one row for each operator (how many inputs and results, which
 * types, which rule), the helpers of all rules, and the rules that work by element.
 *
 * Rules see numbers only.  Messages do not name the node: graph_bind() does that for all. */
#include "infer.h"
#include <gpulet/einsum.h>
#include <stdio.h>

/* Sets of element types. */
#define BIT(t) (1u << (t))
#define FLOATS (BIT(DT_FP32) | BIT(DT_FP16) | BIT(DT_FP64) | BIT(DT_BF16))
#define INTS                                                                                       \
    (BIT(DT_INT8) | BIT(DT_INT16) | BIT(DT_INT32) | BIT(DT_INT64) | BIT(DT_UINT8) |                \
     BIT(DT_UINT16) | BIT(DT_UINT32) | BIT(DT_UINT64))
#define UINTS (BIT(DT_UINT8) | BIT(DT_UINT16) | BIT(DT_UINT32) | BIT(DT_UINT64))
#define NUMS (FLOATS | INTS)
#define INDICES (BIT(DT_INT32) | BIT(DT_INT64))
#define BYTES (BIT(DT_INT8) | BIT(DT_UINT8))
#define QUANTISED (BYTES | BIT(DT_INT16) | BIT(DT_UINT16))
#define BOOLS BIT(DT_BOOL)
#define ANY (NUMS | BOOLS | BIT(DT_STRING))
#define MANY 65536
/* Beside the types: */
#define BY_DATA BIT(29) /* shapes of results depend on data (NonZero) */

static const struct rule {
    infer_fn *fn;
    uint32_t min_in, max_in, max_out; /* the first min_in inputs must be there */
    uint32_t types;                   /* of input 0 */
    uint32_t same;                    /* a bit for each input that shares the type of input 0 */
} rules[OP_END] = {
    [OP_Abs] = {infer_same, 1, 1, 1, NUMS, 0},
    [OP_Acos] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Acosh] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Add] = {infer_same_as_all, 2, 2, 1, NUMS, 3},
    [OP_AffineGrid] = {infer_affine_grid, 2, 2, 1, FLOATS, 0},
    [OP_And] = {infer_compare, 2, 2, 1, BOOLS, 3},
    [OP_ArgMax] = {infer_arg, 1, 1, 1, NUMS, 0},
    [OP_ArgMin] = {infer_arg, 1, 1, 1, NUMS, 0},
    [OP_Asin] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Asinh] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Atan] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Atanh] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Attention] = {infer_attention, 3, 7, 4, FLOATS, 0x13},
    [OP_AveragePool] = {infer_pool, 1, 1, 1, FLOATS, 0},
    [OP_BatchNormalization] = {infer_batch_norm, 5, 5, 5, FLOATS, 0},
    [OP_Bernoulli] = {infer_random_like, 1, 1, 1, FLOATS, 0},
    [OP_BitCast] = {infer_bit_cast, 1, 1, 1, NUMS | BOOLS, 0},
    [OP_BitShift] = {infer_same_as_all, 2, 2, 1, UINTS, 3},
    [OP_BitwiseAnd] = {infer_same_as_all, 2, 2, 1, INTS, 3},
    [OP_BitwiseNot] = {infer_same, 1, 1, 1, INTS, 0},
    [OP_BitwiseOr] = {infer_same_as_all, 2, 2, 1, INTS, 3},
    [OP_BitwiseXor] = {infer_same_as_all, 2, 2, 1, INTS, 3},
    [OP_BlackmanWindow] = {infer_window, 1, 1, 1, INDICES, 0},
    [OP_Cast] = {infer_cast, 1, 1, 1, ANY, 0},
    [OP_CastLike] = {infer_cast_like, 2, 2, 1, ANY, 0},
    [OP_Ceil] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Celu] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_CenterCropPad] = {infer_center_crop_pad, 2, 2, 1, ANY, 0},
    [OP_Clip] = {infer_same, 1, 3, 1, NUMS, 7},
    [OP_Col2Im] = {infer_col2im, 3, 3, 1, FLOATS, 0},
    [OP_Compress] = {infer_compress, 2, 2, 1, ANY | BY_DATA, 0},
    [OP_Concat] = {infer_concat, 1, MANY, 1, ANY, ~0u},
    [OP_ConstantOfShape] = {infer_constant_of_shape, 1, 1, 1, BIT(DT_INT64), 0},
    [OP_Conv] = {infer_conv, 2, 3, 1, FLOATS, 7},
    [OP_ConvInteger] = {infer_conv_integer, 2, 4, 1, BYTES, 0},
    [OP_ConvTranspose] = {infer_conv_transpose, 2, 3, 1, FLOATS, 7},
    [OP_Cos] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Cosh] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_CumProd] = {infer_cum_sum, 2, 2, 1, NUMS, 0},
    [OP_CumSum] = {infer_cum_sum, 2, 2, 1, NUMS, 0},
    [OP_DeformConv] = {infer_deform_conv, 3, 5, 1, FLOATS, ~0u},
    [OP_DepthToSpace] = {infer_depth_to_space, 1, 1, 1, ANY, 0},
    [OP_DequantizeLinear] = {infer_dequantize, 2, 3, 1, QUANTISED | BIT(DT_INT32), 0},
    [OP_Det] = {infer_det, 1, 1, 1, FLOATS, 0},
    [OP_DFT] = {infer_dft, 1, 3, 1, FLOATS, 0},
    [OP_Div] = {infer_same_as_all, 2, 2, 1, NUMS, 3},
    [OP_Dropout] = {infer_dropout, 1, 3, 2, FLOATS, 0},
    [OP_DynamicQuantizeLinear] = {infer_dynamic_quantize, 1, 1, 3, BIT(DT_FP32), 0},
    [OP_Einsum] = {infer_einsum, 1, EINSUM_MAX_IN, 1, NUMS, ~0u},
    [OP_Elu] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Equal] = {infer_compare, 2, 2, 1, ANY, 3},
    [OP_Erf] = {infer_same, 1, 1, 1, NUMS, 0},
    [OP_Exp] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Expand] = {infer_expand, 2, 2, 1, ANY, 0},
    [OP_EyeLike] = {infer_eye_like, 1, 1, 1, NUMS | BOOLS, 0},
    [OP_Flatten] = {infer_flatten, 1, 1, 1, ANY, 0},
    [OP_Floor] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Gather] = {infer_gather, 2, 2, 1, ANY, 0},
    [OP_GatherElements] = {infer_gather_elements, 2, 2, 1, ANY, 0},
    [OP_GatherND] = {infer_gather_nd, 2, 2, 1, ANY, 0},
    [OP_Gelu] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Gemm] = {infer_gemm, 2, 3, 1, NUMS, 7},
    [OP_GlobalAveragePool] = {infer_global_pool, 1, 1, 1, FLOATS, 0},
    [OP_GlobalLpPool] = {infer_global_pool, 1, 1, 1, FLOATS, 0},
    [OP_GlobalMaxPool] = {infer_global_pool, 1, 1, 1, FLOATS, 0},
    [OP_Greater] = {infer_compare, 2, 2, 1, NUMS, 3},
    [OP_GreaterOrEqual] = {infer_compare, 2, 2, 1, NUMS, 3},
    [OP_GridSample] = {infer_grid_sample, 2, 2, 1, FLOATS, 0},
    [OP_GroupNormalization] = {infer_group_norm, 3, 3, 1, FLOATS, 7},
    [OP_GRU] = {infer_rnn, 3, 6, 2, FLOATS, 0x2f},
    [OP_HammingWindow] = {infer_window, 1, 1, 1, INDICES, 0},
    [OP_HannWindow] = {infer_window, 1, 1, 1, INDICES, 0},
    [OP_Hardmax] = {infer_axis_only, 1, 1, 1, FLOATS, 0},
    [OP_HardSigmoid] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_HardSwish] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Identity] = {infer_same, 1, 1, 1, ANY, 0},
    [OP_If] = {infer_flow, 1, MANY, MANY, BOOLS, 0},
    [OP_InstanceNormalization] = {infer_instance_norm, 3, 3, 1, FLOATS, 7},
    [OP_IsInf] = {infer_is_nan, 1, 1, 1, FLOATS, 0},
    [OP_IsNaN] = {infer_is_nan, 1, 1, 1, FLOATS, 0},
    [OP_LayerNormalization] = {infer_layer_norm, 2, 3, 3, FLOATS, 7},
    [OP_LeakyRelu] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Less] = {infer_compare, 2, 2, 1, NUMS, 3},
    [OP_LessOrEqual] = {infer_compare, 2, 2, 1, NUMS, 3},
    [OP_Log] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_LogSoftmax] = {infer_axis_only, 1, 1, 1, FLOATS, 0},
    [OP_Loop] = {infer_flow, 0, MANY, MANY, BIT(DT_INT64), 0},
    [OP_LpNormalization] = {infer_lp_norm, 1, 1, 1, FLOATS, 0},
    [OP_LpPool] = {infer_pool, 1, 1, 1, FLOATS, 0},
    [OP_LRN] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_LSTM] = {infer_rnn, 3, 8, 3, FLOATS, 0xef},
    [OP_MatMul] = {infer_matmul, 2, 3, 1, NUMS, 7},
    [OP_MatMulInteger] = {infer_matmul_integer, 2, 4, 1, BYTES, 0},
    [OP_Max] = {infer_same_as_all, 1, MANY, 1, NUMS, ~0u},
    [OP_MaxPool] = {infer_pool, 1, 1, 2, FLOATS | BIT(DT_INT8) | BIT(DT_UINT8), 0},
    [OP_MaxRoiPool] = {infer_max_roi_pool, 2, 2, 1, FLOATS, 3},
    [OP_MaxUnpool] = {infer_max_unpool, 2, 3, 1, FLOATS, 0},
    [OP_Mean] = {infer_same_as_all, 1, MANY, 1, FLOATS, ~0u},
    [OP_MeanVarianceNormalization] = {infer_mvn, 1, 1, 1, FLOATS, 0},
    [OP_MelWeightMatrix] = {infer_mel_weights, 5, 5, 1, INDICES, 7},
    [OP_Min] = {infer_same_as_all, 1, MANY, 1, NUMS, ~0u},
    [OP_Mish] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Mod] = {infer_same_as_all, 2, 2, 1, NUMS, 3},
    [OP_Mul] = {infer_same_as_all, 2, 2, 1, NUMS, 3},
    [OP_Multinomial] = {infer_multinomial, 1, 1, 1, FLOATS, 0},
    [OP_Neg] = {infer_same, 1, 1, 1, NUMS, 0},
    [OP_NegativeLogLikelihoodLoss] = {infer_loss, 2, 3, 1, FLOATS, 5},
    [OP_NonMaxSuppression] = {infer_non_max_suppression, 2, 5, 1, BIT(DT_FP32) | BY_DATA, 0},
    [OP_NonZero] = {infer_non_zero, 1, 1, 1, ANY | BY_DATA, 0},
    [OP_Not] = {infer_same, 1, 1, 1, BOOLS, 0},
    [OP_OneHot] = {infer_one_hot, 3, 3, 1, NUMS, 0},
    [OP_Or] = {infer_compare, 2, 2, 1, BOOLS, 3},
    [OP_Pad] = {infer_pad, 1, 4, 1, ANY, 5},
    [OP_Pow] = {infer_same_as_all, 2, 2, 1, NUMS, 0},
    [OP_PRelu] = {infer_prelu, 2, 2, 1, NUMS, 3},
    [OP_QLinearAdd] = {infer_qlinear_add, 8, 8, 1, BYTES, 0},
    [OP_QLinearConv] = {infer_qlinear_conv, 8, 9, 1, BYTES, 0},
    [OP_QLinearMatMul] = {infer_qlinear_matmul, 8, 9, 1, BYTES, 0},
    [OP_QuantizeLinear] = {infer_quantize, 2, 3, 1, FLOATS | BIT(DT_INT32), 0},
    [OP_RandomNormal] = {infer_random, 0, 0, 1, 0, 0},
    [OP_RandomNormalLike] = {infer_random_like, 1, 1, 1, ANY, 0},
    [OP_RandomUniform] = {infer_random, 0, 0, 1, 0, 0},
    [OP_RandomUniformLike] = {infer_random_like, 1, 1, 1, ANY, 0},
    [OP_Range] = {infer_range, 3, 3, 1, NUMS, 7},
    [OP_Reciprocal] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_ReduceL1] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceL2] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceLogSum] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceLogSumExp] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceMax] = {infer_reduce, 1, 2, 1, NUMS | BOOLS, 0},
    [OP_ReduceMean] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceMin] = {infer_reduce, 1, 2, 1, NUMS | BOOLS, 0},
    [OP_ReduceProd] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceSum] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_ReduceSumSquare] = {infer_reduce, 1, 2, 1, NUMS, 0},
    [OP_RegexFullMatch] = {infer_regex_full_match, 1, 1, 1, BIT(DT_STRING), 0},
    [OP_Relu] = {infer_same, 1, 1, 1, NUMS, 0},
    [OP_Reshape] = {infer_reshape, 1, 2, 1, ANY, 0},
    [OP_Resize] = {infer_resize, 1, 4, 1, NUMS | BOOLS, 0},
    [OP_ReverseSequence] = {infer_reverse_sequence, 2, 2, 1, ANY, 0},
    [OP_RMSNormalization] = {infer_rms_norm, 2, 2, 1, FLOATS, 0},
    [OP_RNN] = {infer_rnn, 3, 6, 2, FLOATS, 0x2f},
    [OP_RoiAlign] = {infer_roi_align, 3, 3, 1, FLOATS, 3},
    [OP_RotaryEmbedding] = {infer_rotary_embedding, 3, 4, 1, FLOATS, 7},
    [OP_Round] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Scan] = {infer_flow, 0, MANY, MANY, ANY, 0},
    [OP_Scatter] = {infer_scatter_elements, 3, 3, 1, ANY, 5},
    [OP_ScatterElements] = {infer_scatter_elements, 3, 3, 1, ANY, 5},
    [OP_ScatterND] = {infer_scatter_nd, 3, 3, 1, ANY, 5},
    [OP_Selu] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Shape] = {infer_shape, 1, 1, 1, ANY, 0},
    [OP_Shrink] = {infer_same, 1, 1, 1, NUMS, 0},
    [OP_Sigmoid] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Sign] = {infer_same, 1, 1, 1, NUMS, 0},
    [OP_Sin] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Sinh] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Size] = {infer_size, 1, 1, 1, ANY, 0},
    [OP_Slice] = {infer_slice, 1, 5, 1, ANY, 0},
    [OP_Softmax] = {infer_axis_only, 1, 1, 1, FLOATS, 0},
    [OP_SoftmaxCrossEntropyLoss] = {infer_loss, 2, 3, 2, FLOATS, 5},
    [OP_Softplus] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Softsign] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_SpaceToDepth] = {infer_space_to_depth, 1, 1, 1, ANY, 0},
    [OP_Split] = {infer_split, 1, 2, MANY, ANY, 0},
    [OP_Sqrt] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Squeeze] = {infer_squeeze, 1, 2, 1, ANY, 0},
    [OP_STFT] = {infer_stft, 2, 4, 1, FLOATS, 5},
    [OP_StringConcat] = {infer_string_concat, 2, 2, 1, BIT(DT_STRING), 3},
    [OP_StringNormalizer] = {infer_string_normalizer, 1, 1, 1, BIT(DT_STRING), 0},
    [OP_StringSplit] = {infer_string_split, 1, 1, 2, BIT(DT_STRING), 0},
    [OP_Sub] = {infer_same_as_all, 2, 2, 1, NUMS, 3},
    [OP_Sum] = {infer_same_as_all, 1, MANY, 1, NUMS, ~0u},
    [OP_Swish] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Tan] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Tanh] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_TensorScatter] = {infer_tensor_scatter, 2, 3, 1, ANY, 3},
    [OP_TfIdfVectorizer] = {infer_tfidf, 1, 1, 1, INDICES | BIT(DT_STRING), 0},
    [OP_ThresholdedRelu] = {infer_same, 1, 1, 1, FLOATS, 0},
    [OP_Tile] = {infer_tile, 2, 3, 1, ANY, 0},
    [OP_TopK] = {infer_top_k, 1, 2, 2, NUMS, 0},
    [OP_Transpose] = {infer_transpose, 1, 1, 1, ANY, 0},
    [OP_Trilu] = {infer_trilu, 1, 2, 1, ANY, 0},
    [OP_Unique] = {infer_unique, 1, 1, 4, ANY | BY_DATA, 0},
    [OP_Unsqueeze] = {infer_unsqueeze, 1, 2, 1, ANY, 0},
    [OP_Upsample] = {infer_resize, 1, 2, 1, NUMS | BOOLS, 0},
    [OP_Where] = {infer_where, 3, 3, 1, BOOLS, 0},
    [OP_Xor] = {infer_compare, 2, 2, 1, BOOLS, 3},
};

bool infer_by_data(enum op_id op)
{
    return op < OP_END && rules[op].types & BY_DATA;
}

/* ---- helpers */

int infer_out(struct infer *c, uint32_t i, enum dtype dtype, uint32_t rank, const int64_t *dims)
{
    char buf[160];

    if (i >= c->n->n_out)
        return 0;
    if (rank > MAX_RANK)
        return err_set(c->err, -ENOTSUP, "a result of rank %u (at most %d)", rank, MAX_RANK);
    bool large = false;
    for (uint32_t d = 0; d < rank; d++)
        large |= dims[d] > MAX_DIM; /* keeps the rules' sums far from overflow */
    if (large || tensor_shape(&c->out[i], dtype, rank, dims) < 0)
        return err_set(c->err, -EINVAL, "its result would have the shape %s",
                       dims_print(rank, dims, buf, sizeof(buf)));
    return 0;
}

int infer_axis(struct infer *c, int64_t *axis, uint32_t rank)
{
    int64_t r = rank;

    if (*axis < -r || *axis >= r)
        return err_set(c->err, -EINVAL, "axis %lld of a tensor of rank %u", (long long)*axis, rank);
    if (*axis < 0)
        *axis += r;
    return 0;
}

int infer_shaped(struct infer *c, uint32_t i, uint32_t rank, const int64_t *dims)
{
    const struct tensor *t = infer_in(c, i);
    char have[80], need[80];

    if (!t || (t->rank == rank && memcmp(t->dims, dims, rank * sizeof(*dims)) == 0))
        return 0;
    return err_set(c->err, -EINVAL, "input %u has shape %s, needed is %s", i,
                   dims_print(t->rank, t->dims, have, sizeof(have)),
                   dims_print(rank, dims, need, sizeof(need)));
}

int infer_broadcast(struct infer *c, uint32_t rank_a, const int64_t *a, uint32_t rank_b,
                    const int64_t *b, uint32_t *ret_rank, int64_t *ret)
{
    uint32_t rank = MAX(rank_a, rank_b);
    char pa[80], pb[80];

    for (uint32_t i = 0; i < rank; i++) { /* i counts from the last dimension */
        int64_t x = i < rank_a ? a[rank_a - 1 - i] : 1;
        int64_t y = i < rank_b ? b[rank_b - 1 - i] : 1;
        if (x != y && x != 1 && y != 1)
            return err_set(c->err, -EINVAL, "shapes %s and %s do not go together",
                           dims_print(rank_a, a, pa, sizeof(pa)),
                           dims_print(rank_b, b, pb, sizeof(pb)));
        ret[rank - 1 - i] = x == 1 ? y : x;
    }
    *ret_rank = rank;
    return 0;
}

int infer_unknown(struct infer *c, const char *what)
{
    return err_set(c->err, -ENODATA, "its %s is known only when the model runs", what);
}

int infer_ints(struct infer *c, uint32_t i, const char *what, int64_t *ret, uint32_t max,
               uint32_t *n)
{
    const struct tensor *t = infer_in(c, i);
    int64_t count = 0;

    if (!t || (t->dtype != DT_INT64 && t->dtype != DT_INT32) || t->rank > 1)
        return err_set(c->err, -EINVAL, "its %s must be a list of INT64", what);
    if (!t->data)
        return infer_unknown(c, what);
    if (tensor_count(t, &count) < 0 || count > max)
        return err_set(c->err, -EINVAL, "its %s has %lld numbers (at most %u)", what,
                       (long long)count, max);
    for (int64_t k = 0; k < count; k++)
        if (t->dtype == DT_INT64) {
            memcpy(&ret[k], (const char *)t->data + k * 8, 8);
        } else {
            int32_t v;
            memcpy(&v, (const char *)t->data + k * 4, 4);
            ret[k] = v;
        }
    *n = (uint32_t)count;
    return 0;
}

int infer_list(struct infer *c, uint32_t since, uint32_t i, const char *what, int64_t *ret,
               uint32_t max, uint32_t *n, bool *given)
{
    *n = 0;
    *given = false;
    if (c->n->opset >= since) {
        *given = infer_in(c, i) != NULL;
        return *given ? infer_ints(c, i, what, ret, max, n) : 0;
    }
    const struct attr *a = node_attr(c->n, what);
    if (!a)
        return 0;
    if (a->type != ATTR_INTS || a->n > max)
        return err_set(c->err, -EINVAL, "attribute '%s' must be a list of at most %u integers",
                       what, max);
    memcpy(ret, a->ints, a->n * sizeof(*ret));
    *n = a->n;
    *given = true;
    return 0;
}

/* ---- the entry */

static int check_args(struct infer *c, const struct rule *r)
{
    const struct node *n = c->n;

    if (n->n_in > r->max_in || n->n_out > r->max_out || n->n_out == 0)
        return err_set(c->err, -EINVAL, "%u inputs and %u outputs (at most %u and %u)", n->n_in,
                       n->n_out, r->max_in, r->max_out);
    for (uint32_t i = 0; i < r->min_in; i++)
        if (!infer_in(c, i))
            return err_set(c->err, -EINVAL, "input %u is missing", i);
    return 0;
}

static int check_types(struct infer *c, const struct rule *r)
{
    if (!infer_in(c, 0))
        return 0;
    enum dtype t = c->in[0]->dtype;
    if (!(r->types & BIT(t)))
        return err_set(c->err, -EINVAL, "its input cannot be of type %s", dtype_name(t));
    for (uint32_t i = 1; i < c->n->n_in; i++)
        if (c->in[i] && (r->same & BIT(MIN(i, 31u))) && c->in[i]->dtype != t)
            return err_set(c->err, -EINVAL, "inputs of type %s and %s", dtype_name(t),
                           dtype_name(c->in[i]->dtype));
    return 0;
}

int node_infer(const struct node *n, const struct tensor *const *in, struct tensor *out,
               struct err *err)
{
    struct infer c = {.n = n, .in = in, .out = out, .err = err};
    const struct rule *r = n->op < OP_END ? &rules[n->op] : &rules[OP_NONE];
    int rc;

    if (!r->fn)
        return err_set(err, -ENOTSUP, "operator is not supported");
    if ((rc = check_args(&c, r)) < 0 || (rc = check_types(&c, r)) < 0)
        return rc;
    rc = r->fn(&c);
    return rc < 0 ? rc : infer_texts(&c);
}

/* ---- by element */

int infer_same(struct infer *c)
{
    const struct tensor *t = c->in[0];

    return infer_out(c, 0, t->dtype, t->rank, t->dims);
}

int infer_is_nan(struct infer *c)
{
    return infer_out(c, 0, DT_BOOL, c->in[0]->rank, c->in[0]->dims);
}

static int broadcast_from(struct infer *c, uint32_t first, uint32_t *rank, int64_t *dims)
{
    *rank = 0;
    for (uint32_t i = first; i < c->n->n_in; i++) {
        int64_t so_far[MAX_RANK];
        if (!c->in[i])
            return err_set(c->err, -EINVAL, "input %u is missing", i);
        struct tensor t = i == 1 ? node_second(c->n, c->in[0], c->in[1]) : *c->in[i];
        memcpy(so_far, dims, *rank * sizeof(*dims));
        int rc = infer_broadcast(c, *rank, so_far, t.rank, t.dims, rank, dims);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int infer_same_as_all(struct infer *c)
{
    int64_t dims[MAX_RANK];
    uint32_t rank;
    int rc = broadcast_from(c, 0, &rank, dims);

    return rc < 0 ? rc : infer_out(c, 0, c->in[0]->dtype, rank, dims);
}

/* If, Loop, Scan: what comes out is what a body makes, see run_flow.c. */
int infer_flow(struct infer *c)
{
    return err_set(c->err, -ENODATA, "its results are known only when the model runs");
}

int infer_compare(struct infer *c)
{
    int64_t dims[MAX_RANK];
    uint32_t rank;
    int rc = broadcast_from(c, 0, &rank, dims);

    return rc < 0 ? rc : infer_out(c, 0, DT_BOOL, rank, dims);
}

int infer_where(struct infer *c)
{
    int64_t dims[MAX_RANK];
    uint32_t rank;
    int rc = broadcast_from(c, 0, &rank, dims);

    if (rc == 0 && c->in[1]->dtype != c->in[2]->dtype)
        return err_set(c->err, -EINVAL, "branches of type %s and %s", dtype_name(c->in[1]->dtype),
                       dtype_name(c->in[2]->dtype));
    return rc < 0 ? rc : infer_out(c, 0, c->in[1]->dtype, rank, dims);
}

/* The slope is stretched to the input, never the other way. */
int infer_prelu(struct infer *c)
{
    const struct tensor *x = c->in[0];
    struct tensor slope = node_second(c->n, x, c->in[1]);
    int64_t dims[MAX_RANK];
    uint32_t rank;
    char buf[80];
    int rc = infer_broadcast(c, x->rank, x->dims, slope.rank, slope.dims, &rank, dims);

    if (rc < 0)
        return rc;
    if (rank != x->rank || memcmp(dims, x->dims, rank * sizeof(*dims)) != 0)
        return err_set(c->err, -EINVAL, "a slope of shape %s does not fit its input",
                       dims_print(slope.rank, slope.dims, buf, sizeof(buf)));
    return infer_same(c);
}

/* Before opset 6 the type is a word. */
static int64_t cast_type(const struct node *n)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } words[] = {{"FLOAT", DT_FP32},    {"UINT8", DT_UINT8},   {"INT8", DT_INT8},
                 {"UINT16", DT_UINT16}, {"INT16", DT_INT16},   {"INT32", DT_INT32},
                 {"INT64", DT_INT64},   {"STRING", DT_STRING}, {"BOOL", DT_BOOL},
                 {"FLOAT16", DT_FP16},  {"DOUBLE", DT_FP64},   {"UINT32", DT_UINT32},
                 {"UINT64", DT_UINT64}};
    const char *word = node_str(n, "to", "");

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (STREQ(words[i].name, word))
            return words[i].dtype;
    return node_int(n, "to", 0);
}

int infer_cast(struct infer *c)
{
    int64_t to = cast_type(c->n);

    if (to <= 0 || to >= DT_END || STREQ(dtype_name((enum dtype)to), "?"))
        return err_set(c->err, -ENOTSUP, "a cast to type %lld", (long long)to);
    return infer_out(c, 0, (enum dtype)to, c->in[0]->rank, c->in[0]->dims);
}

/* The same bytes under another name. */
int infer_bit_cast(struct infer *c)
{
    int64_t to = cast_type(c->n);
    size_t size = to > 0 && to < DT_END ? dtype_size((enum dtype)to) : 0;

    if (size == 0)
        return err_set(c->err, -ENOTSUP, "a cast to type %lld", (long long)to);
    if (size != dtype_size(c->in[0]->dtype))
        return err_set(c->err, -EINVAL, "%s has not as many bits as %s", dtype_name((enum dtype)to),
                       dtype_name(c->in[0]->dtype));
    return infer_out(c, 0, (enum dtype)to, c->in[0]->rank, c->in[0]->dims);
}

int infer_cast_like(struct infer *c)
{
    return infer_out(c, 0, c->in[1]->dtype, c->in[0]->rank, c->in[0]->dims);
}

/* Inference only: a Dropout that drops would make answers random. */
int infer_dropout(struct infer *c)
{
    const struct tensor *x = c->in[0], *ratio = infer_in(c, 1), *training = infer_in(c, 2);
    bool drops = training && training->data && *(const uint8_t *)training->data;
    static const uint8_t zeros[8];
    int rc = infer_out(c, 0, x->dtype, x->rank, x->dims);

    if (training && !training->data)
        return infer_unknown(c, "training_mode");
    if (drops && !(ratio && ratio->data && ratio->bytes <= sizeof(zeros) &&
                   memcmp(ratio->data, zeros, ratio->bytes) == 0))
        return err_set(c->err, -ENOTSUP, "training_mode is not supported");
    return rc < 0 ? rc : infer_out(c, 1, c->n->opset < 10 ? x->dtype : DT_BOOL, x->rank, x->dims);
}
