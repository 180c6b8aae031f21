/* The operators of the default ONNX domain that the model layer knows: one row each.
 * Adding an operator is a row here, its shape rule (lib/model/infer.c), its batch rule
 * (lib/model/batch.c), its reference kernel (kernels/ref) and a case in test/ops. */
#pragma once

#include <gpulet/base.h>

/* clang-format off */
#define OPS(OP) \
    OP(Abs) OP(Acos) OP(Acosh) OP(Add) OP(AffineGrid) OP(And) OP(ArgMax) OP(ArgMin) OP(Asin) \
    OP(Asinh) OP(Atan) OP(Atanh) OP(Attention) OP(AveragePool) \
    OP(BatchNormalization) OP(Bernoulli) OP(BitCast) OP(BitShift) OP(BitwiseAnd) OP(BitwiseNot) \
    OP(BitwiseOr) OP(BitwiseXor) OP(BlackmanWindow) \
    OP(Cast) OP(CastLike) OP(Ceil) OP(Celu) OP(CenterCropPad) OP(Clip) OP(Col2Im) OP(Compress) \
    OP(Concat) OP(Constant) OP(ConstantOfShape) OP(Conv) OP(ConvInteger) OP(ConvTranspose) OP(Cos) \
    OP(Cosh) OP(CumProd) OP(CumSum) \
    OP(DeformConv) OP(DepthToSpace) OP(DequantizeLinear) OP(Det) OP(DFT) OP(Div) OP(Dropout) \
    OP(DynamicQuantizeLinear) \
    OP(Einsum) OP(Elu) OP(Equal) OP(Erf) OP(Exp) OP(Expand) OP(EyeLike) \
    OP(Flatten) OP(Floor) \
    OP(Gather) OP(GatherElements) OP(GatherND) OP(Gelu) OP(Gemm) OP(GlobalAveragePool) \
    OP(GlobalLpPool) OP(GlobalMaxPool) OP(Greater) OP(GreaterOrEqual) OP(GridSample) \
    OP(GroupNormalization) OP(GRU) \
    OP(HammingWindow) OP(HannWindow) OP(Hardmax) OP(HardSigmoid) OP(HardSwish) \
    OP(Identity) OP(If) OP(InstanceNormalization) OP(IsInf) OP(IsNaN) \
    OP(LayerNormalization) OP(LeakyRelu) OP(Less) OP(LessOrEqual) OP(Log) OP(LogSoftmax) OP(Loop) \
    OP(LpNormalization) OP(LpPool) OP(LRN) OP(LSTM) \
    OP(MatMul) OP(MatMulInteger) OP(Max) OP(MaxPool) OP(MaxRoiPool) OP(MaxUnpool) OP(Mean) \
    OP(MeanVarianceNormalization) OP(MelWeightMatrix) OP(Min) OP(Mish) OP(Mod) OP(Mul) \
    OP(Multinomial) \
    OP(Neg) OP(NegativeLogLikelihoodLoss) OP(NonMaxSuppression) OP(NonZero) OP(Not) \
    OP(OneHot) OP(Or) \
    OP(Pad) OP(Pow) OP(PRelu) \
    OP(QLinearConv) OP(QLinearMatMul) OP(QuantizeLinear) \
    OP(RandomNormal) OP(RandomNormalLike) OP(RandomUniform) OP(RandomUniformLike) OP(Range) \
    OP(Reciprocal) OP(ReduceL1) OP(ReduceL2) OP(ReduceLogSum) OP(ReduceLogSumExp) OP(ReduceMax) \
    OP(ReduceMean) OP(ReduceMin) OP(ReduceProd) OP(ReduceSum) OP(ReduceSumSquare) \
    OP(RegexFullMatch) OP(Relu) OP(Reshape) OP(Resize) OP(ReverseSequence) OP(RMSNormalization) OP(RNN) OP(RoiAlign) \
    OP(RotaryEmbedding) OP(Round) \
    OP(Scan) OP(Scatter) OP(ScatterElements) OP(ScatterND) OP(Selu) OP(Shape) OP(Shrink) \
    OP(Sigmoid) OP(Sign) OP(Sin) OP(Sinh) OP(Size) OP(Slice) OP(Softmax) \
    OP(SoftmaxCrossEntropyLoss) OP(Softplus) OP(Softsign) OP(SpaceToDepth) OP(Split) OP(Sqrt) \
    OP(Squeeze) OP(STFT) OP(StringConcat) OP(StringNormalizer) OP(StringSplit) OP(Sub) OP(Sum) \
    OP(Swish) \
    OP(Tan) OP(Tanh) OP(TensorScatter) OP(TfIdfVectorizer) OP(ThresholdedRelu) OP(Tile) OP(TopK) \
    OP(Transpose) OP(Trilu) \
    OP(Unique) OP(Unsqueeze) OP(Upsample) \
    OP(Where) \
    OP(Xor)
/* What passes make and no file has. */
#define OPS_MADE(MADE) MADE(QLinearAdd)
/* clang-format on */

enum op_id {
    OP_NONE,
#define OP(name) OP_##name,
    OPS(OP) OPS_MADE(OP)
#undef OP
        OP_END
};

const char *op_name(enum op_id id);
/* OP_NONE when no operator of ONNX that we know has the name. */
enum op_id op_find(const char *name, size_t len);
