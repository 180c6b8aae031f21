/* The operators of the default ONNX domain that the model layer knows: one row each.
 * Adding an operator is a row here, its shape rule (lib/model/infer.c), its batch rule
 * (lib/model/batch.c), its reference kernel (kernels/ref) and a case in test/ops. */
#pragma once

#include <gpulet/base.h>

/* clang-format off */
#define OPS(OP) \
    OP(Abs) OP(Add) OP(AffineGrid) OP(And) OP(ArgMax) OP(ArgMin) OP(AveragePool) \
    OP(BatchNormalization) OP(Cast) OP(Ceil) OP(CenterCropPad) OP(Clip) OP(Col2Im) OP(Concat) \
    OP(Constant) OP(ConstantOfShape) OP(Conv) OP(ConvInteger) OP(ConvTranspose) OP(Cos) \
    OP(DeformConv) OP(DequantizeLinear) OP(Div) OP(Dropout) OP(DynamicQuantizeLinear) OP(Elu) \
    OP(Equal) OP(Erf) OP(Exp) OP(Expand) OP(Flatten) OP(Floor) OP(Gather) OP(Gelu) OP(Gemm) \
    OP(GlobalAveragePool) OP(GlobalLpPool) OP(GlobalMaxPool) OP(Greater) OP(GreaterOrEqual) \
    OP(GridSample) OP(HardSigmoid) OP(HardSwish) OP(Identity) OP(InstanceNormalization) OP(IsNaN) \
    OP(LayerNormalization) OP(LeakyRelu) OP(Less) OP(LessOrEqual) OP(Log) OP(LogSoftmax) \
    OP(LpPool) OP(LRN) OP(MatMul) OP(MatMulInteger) OP(Max) OP(MaxPool) OP(MaxRoiPool) \
    OP(MaxUnpool) OP(Min) OP(Mod) OP(Mul) OP(Neg) OP(NonMaxSuppression) OP(Not) OP(Or) OP(Pad) \
    OP(Pow) OP(PRelu) OP(QLinearConv) OP(QLinearMatMul) OP(QuantizeLinear) OP(Range) \
    OP(Reciprocal) OP(ReduceL2) OP(ReduceMax) OP(ReduceMean) OP(ReduceMin) OP(ReduceProd) \
    OP(ReduceSum) OP(ReduceSumSquare) OP(Relu) OP(Reshape) OP(Resize) OP(RoiAlign) OP(Round) \
    OP(Shape) OP(Sigmoid) OP(Sign) OP(Sin) OP(Size) OP(Slice) OP(Softmax) OP(Softplus) OP(Split) \
    OP(Sqrt) OP(Squeeze) OP(Sub) OP(Sum) OP(Tanh) OP(Tile) OP(Transpose) OP(Trilu) OP(Unsqueeze) \
    OP(Upsample) OP(Where) OP(Xor)
/* clang-format on */

enum op_id {
    OP_NONE,
#define OP(name) OP_##name,
    OPS(OP)
#undef OP
        OP_END
};

const char *op_name(enum op_id id);
/* OP_NONE when the name is not in the table. */
enum op_id op_find(const char *name, size_t len);
