/* The table of reference kernels, and what holds for all of them: arguments are there, their
 * data is known, their types have a fixed size. */
#include "kit.h"

static const struct row {
    ref_fn fn;
    unsigned n_in; /* inputs that must be there */
} rows[OP_END] = {
#define ROW(op, kernel, least) [OP_##op] = {.fn = kernel, .n_in = least}
    ROW(Abs, ref_unary, 1),
    ROW(Acos, ref_function, 1),
    ROW(Acosh, ref_function, 1),
    ROW(Add, ref_binary, 2),
    ROW(AffineGrid, ref_affine_grid, 2),
    ROW(And, ref_binary, 2),
    ROW(ArgMax, ref_arg, 1),
    ROW(ArgMin, ref_arg, 1),
    ROW(Asin, ref_function, 1),
    ROW(Asinh, ref_function, 1),
    ROW(Atan, ref_function, 1),
    ROW(Atanh, ref_function, 1),
    ROW(Attention, ref_attention, 3),
    ROW(AveragePool, ref_average_pool, 1),
    ROW(BatchNormalization, ref_batch_norm, 5),
    ROW(Bernoulli, ref_bernoulli, 1),
    ROW(BitCast, ref_bit_cast, 1),
    ROW(BitShift, ref_binary, 2),
    ROW(BitwiseAnd, ref_binary, 2),
    ROW(BitwiseNot, ref_unary, 1),
    ROW(BitwiseOr, ref_binary, 2),
    ROW(BitwiseXor, ref_binary, 2),
    ROW(BlackmanWindow, ref_window, 1),
    ROW(Cast, ref_cast, 1),
    ROW(CastLike, ref_cast, 2),
    ROW(Ceil, ref_unary, 1),
    ROW(Celu, ref_function, 1),
    ROW(CenterCropPad, ref_center_crop_pad, 2),
    ROW(Clip, ref_clip, 1),
    ROW(Col2Im, ref_col2im, 3),
    ROW(Compress, ref_compress, 2),
    ROW(Concat, ref_concat, 1),
    ROW(Constant, ref_constant, 0),
    ROW(ConstantOfShape, ref_constant_of_shape, 1),
    ROW(Conv, ref_conv, 2),
    ROW(ConvInteger, ref_conv_integer, 2),
    ROW(ConvTranspose, ref_conv_transpose, 2),
    ROW(Cos, ref_unary, 1),
    ROW(Cosh, ref_function, 1),
    ROW(CumProd, ref_cumulate, 2),
    ROW(CumSum, ref_cumulate, 2),
    ROW(DeformConv, ref_deform_conv, 3),
    ROW(DepthToSpace, ref_depth_to_space, 1),
    ROW(DequantizeLinear, ref_dequantize, 2),
    ROW(Det, ref_det, 1),
    ROW(DFT, ref_dft, 1),
    ROW(Div, ref_binary, 2),
    ROW(Dropout, ref_dropout, 1),
    ROW(DynamicQuantizeLinear, ref_dynamic_quantize, 1),
    ROW(Einsum, ref_einsum, 1),
    ROW(Elu, ref_unary, 1),
    ROW(Equal, ref_binary, 2),
    ROW(Erf, ref_unary, 1),
    ROW(Exp, ref_unary, 1),
    ROW(Expand, ref_expand, 1),
    ROW(EyeLike, ref_eye_like, 1),
    ROW(Flatten, ref_same_bytes, 1),
    ROW(Floor, ref_unary, 1),
    ROW(Gather, ref_gather, 2),
    ROW(GatherElements, ref_gather_elements, 2),
    ROW(GatherND, ref_gather_nd, 2),
    ROW(Gelu, ref_unary, 1),
    ROW(Gemm, ref_gemm, 2),
    ROW(GlobalAveragePool, ref_global_pool, 1),
    ROW(GlobalLpPool, ref_lp_pool, 1),
    ROW(GlobalMaxPool, ref_global_pool, 1),
    ROW(Greater, ref_binary, 2),
    ROW(GreaterOrEqual, ref_binary, 2),
    ROW(GridSample, ref_grid_sample, 2),
    ROW(GroupNormalization, ref_group_norm, 3),
    ROW(GRU, ref_rnn, 3),
    ROW(HammingWindow, ref_window, 1),
    ROW(HannWindow, ref_window, 1),
    ROW(Hardmax, ref_hardmax, 1),
    ROW(HardSigmoid, ref_unary, 1),
    ROW(HardSwish, ref_unary, 1),
    ROW(Identity, ref_same_bytes, 1),
    ROW(InstanceNormalization, ref_instance_norm, 3),
    ROW(IsInf, ref_function, 1),
    ROW(IsNaN, ref_unary, 1),
    ROW(LayerNormalization, ref_layer_norm, 2),
    ROW(LeakyRelu, ref_unary, 1),
    ROW(Less, ref_binary, 2),
    ROW(LessOrEqual, ref_binary, 2),
    ROW(Log, ref_unary, 1),
    ROW(LogSoftmax, ref_softmax, 1),
    ROW(LpNormalization, ref_lp_norm, 1),
    ROW(LpPool, ref_lp_pool, 1),
    ROW(LRN, ref_lrn, 1),
    ROW(LSTM, ref_rnn, 3),
    ROW(MatMul, ref_matmul, 2),
    ROW(MatMulInteger, ref_matmul_integer, 2),
    ROW(Max, ref_variadic, 1),
    ROW(MaxPool, ref_max_pool, 1),
    ROW(MaxRoiPool, ref_max_roi_pool, 2),
    ROW(MaxUnpool, ref_max_unpool, 2),
    ROW(Mean, ref_variadic, 1),
    ROW(MeanVarianceNormalization, ref_mvn, 1),
    ROW(MelWeightMatrix, ref_mel_weights, 5),
    ROW(Min, ref_variadic, 1),
    ROW(Mish, ref_function, 1),
    ROW(Mod, ref_binary, 2),
    ROW(Mul, ref_binary, 2),
    ROW(Multinomial, ref_multinomial, 1),
    ROW(Neg, ref_unary, 1),
    ROW(NegativeLogLikelihoodLoss, ref_nll_loss, 2),
    ROW(NonMaxSuppression, ref_non_max_suppression, 2),
    ROW(NonZero, ref_non_zero, 1),
    ROW(Not, ref_unary, 1),
    ROW(OneHot, ref_one_hot, 3),
    ROW(Or, ref_binary, 2),
    ROW(Pad, ref_pad, 1),
    ROW(Pow, ref_binary, 2),
    ROW(PRelu, ref_binary, 2),
    ROW(QLinearAdd, ref_qlinear_add, 8),
    ROW(QLinearConv, ref_qlinear_conv, 8),
    ROW(QLinearMatMul, ref_qlinear_matmul, 8),
    ROW(QuantizeLinear, ref_quantize, 2),
    ROW(RandomNormal, ref_random, 0),
    ROW(RandomNormalLike, ref_random, 1),
    ROW(RandomUniform, ref_random, 0),
    ROW(RandomUniformLike, ref_random, 1),
    ROW(Range, ref_range, 3),
    ROW(Reciprocal, ref_unary, 1),
    ROW(ReduceL1, ref_reduce, 1),
    ROW(ReduceL2, ref_reduce, 1),
    ROW(ReduceLogSum, ref_reduce, 1),
    ROW(ReduceLogSumExp, ref_reduce, 1),
    ROW(ReduceMax, ref_reduce, 1),
    ROW(ReduceMean, ref_reduce, 1),
    ROW(ReduceMin, ref_reduce, 1),
    ROW(ReduceProd, ref_reduce, 1),
    ROW(ReduceSum, ref_reduce, 1),
    ROW(ReduceSumSquare, ref_reduce, 1),
    ROW(RegexFullMatch, ref_regex_full_match, 1),
    ROW(Relu, ref_unary, 1),
    ROW(Reshape, ref_same_bytes, 1),
    ROW(Resize, ref_resize, 1),
    ROW(ReverseSequence, ref_reverse_sequence, 2),
    ROW(RMSNormalization, ref_rms_norm, 2),
    ROW(RNN, ref_rnn, 3),
    ROW(RoiAlign, ref_roi_align, 3),
    ROW(RotaryEmbedding, ref_rotary_embedding, 3),
    ROW(Round, ref_unary, 1),
    ROW(Scatter, ref_scatter_elements, 3),
    ROW(ScatterElements, ref_scatter_elements, 3),
    ROW(ScatterND, ref_scatter_nd, 3),
    ROW(Selu, ref_function, 1),
    ROW(Shape, ref_shape, 1),
    ROW(Shrink, ref_function, 1),
    ROW(Sigmoid, ref_unary, 1),
    ROW(Sign, ref_unary, 1),
    ROW(Sin, ref_unary, 1),
    ROW(Sinh, ref_function, 1),
    ROW(Size, ref_size, 1),
    ROW(Slice, ref_slice, 1),
    ROW(Softmax, ref_softmax, 1),
    ROW(SoftmaxCrossEntropyLoss, ref_softmax_loss, 2),
    ROW(Softplus, ref_unary, 1),
    ROW(Softsign, ref_function, 1),
    ROW(SpaceToDepth, ref_space_to_depth, 1),
    ROW(Split, ref_split, 1),
    ROW(Sqrt, ref_unary, 1),
    ROW(Squeeze, ref_same_bytes, 1),
    ROW(STFT, ref_stft, 2),
    ROW(StringConcat, ref_string_concat, 2),
    ROW(StringNormalizer, ref_string_normalizer, 1),
    ROW(StringSplit, ref_string_split, 1),
    ROW(Sub, ref_binary, 2),
    ROW(Sum, ref_variadic, 1),
    ROW(Swish, ref_function, 1),
    ROW(Tan, ref_function, 1),
    ROW(Tanh, ref_unary, 1),
    ROW(TensorScatter, ref_tensor_scatter, 2),
    ROW(TfIdfVectorizer, ref_tfidf, 1),
    ROW(ThresholdedRelu, ref_function, 1),
    ROW(Tile, ref_tile, 1),
    ROW(TopK, ref_top_k, 1),
    ROW(Transpose, ref_transpose, 1),
    ROW(Trilu, ref_trilu, 1),
    ROW(Unique, ref_unique, 1),
    ROW(Unsqueeze, ref_same_bytes, 1),
    ROW(Upsample, ref_resize, 1),
    ROW(Where, ref_where, 3),
    ROW(Xor, ref_binary, 2),
#undef ROW
};

ref_fn ref_find(enum op_id op)
{
    return op > OP_NONE && op < OP_END ? rows[op].fn : NULL;
}

static int check_tensor(const struct node *n, const struct tensor *t, struct err *err)
{
    if (t->dtype == DT_STRING ? !ref_takes_strings(n->op) : dtype_size(t->dtype) == 0)
        return ref_no_type(n, t->dtype, err);
    if (!t->data && ref_count(t) > 0)
        return ref_fail(n, err, -EINVAL, "the data of an input or output is not known");
    return 0;
}

/* Outputs that each stand for themselves. */
static bool first_output_optional(enum op_id op)
{
    return op == OP_Split || op == OP_RNN || op == OP_GRU || op == OP_LSTM;
}

static int check_args(const struct row *row, const struct node *n, const struct tensor *const *in,
                      struct tensor *const *out, struct err *err)
{
    bool shape_only = n->op == OP_Shape || n->op == OP_Size; /* of strings, too */
    int r = 0;

    if (n->n_in < row->n_in || n->n_out < 1)
        return ref_fail(n, err, -EINVAL, "too few inputs or outputs");
    for (uint32_t i = 0; i < n->n_in && r == 0; i++) {
        if (!in[i] && i < row->n_in)
            r = ref_fail(n, err, -EINVAL, "an input is missing");
        else if (in[i] && !shape_only)
            r = check_tensor(n, in[i], err);
    }
    for (uint32_t i = 0; i < n->n_out && r == 0; i++) {
        if (!out[i] && i == 0 && !first_output_optional(n->op))
            r = ref_fail(n, err, -ENOTSUP, "an omitted first output is not supported");
        else if (out[i])
            r = check_tensor(n, out[i], err);
    }
    return r;
}

static bool has_strings(const struct node *n, const struct tensor *const *in)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (in[i] && in[i]->dtype == DT_STRING)
            return true;
    return false;
}

int ref_run(const struct node *n, const struct tensor *const *in, const struct tensor *const *add,
            struct tensor *const *out, struct err *err)
{
    ref_fn fn = ref_find(n->op);
    int r;

    if (!fn)
        return ref_fail(n, err, -ENOTSUP, "the operator has no reference kernel");
    if ((r = check_args(&rows[n->op], n, in, out, err)) < 0)
        return r;
    if (ref_by_number(n->op) && has_strings(n, in))
        return ref_run_by_number(fn, n, in, out, err);
    if ((r = fn(n, in, out, err)) < 0)
        return r;
    return n->n_post && out[0] ? ref_post(n, add, out[0], err) : 0;
}
