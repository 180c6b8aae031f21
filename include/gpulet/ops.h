/* The operators of the default ONNX domain that the model layer knows: one row each.
 * Adding an operator is a row here, its shape rule (lib/model/infer.c), its batch rule
 * (lib/model/batch.c), its reference kernel (kernels/ref) and a case in test/ops. */
#pragma once

#include <gpulet/base.h>

/* clang-format off */
#define OPS(OP) \
    OP(Abs) OP(Add) OP(And) OP(ArgMax) OP(ArgMin) OP(AveragePool) OP(BatchNormalization) \
    OP(Cast) OP(Ceil) OP(Clip) OP(Concat) OP(Constant) OP(ConstantOfShape) OP(Conv) OP(Cos) \
    OP(Div) OP(Dropout) OP(Elu) OP(Equal) OP(Erf) OP(Exp) OP(Expand) OP(Flatten) OP(Floor) \
    OP(Gather) OP(Gelu) OP(Gemm) OP(GlobalAveragePool) OP(GlobalMaxPool) OP(Greater) \
    OP(GreaterOrEqual) OP(HardSigmoid) OP(HardSwish) OP(Identity) OP(If) OP(InstanceNormalization) OP(IsNaN) \
    OP(LayerNormalization) OP(LeakyRelu) OP(Less) OP(LessOrEqual) OP(Log) OP(LogSoftmax) \
    OP(Loop) OP(LRN) OP(MatMul) OP(Max) OP(MaxPool) OP(Min) OP(Mod) OP(Mul) OP(Neg) OP(Not) OP(Or) \
    OP(Pad) OP(Pow) OP(PRelu) OP(Range) OP(Reciprocal) OP(ReduceMax) OP(ReduceMean) OP(ReduceMin) \
    OP(ReduceProd) OP(ReduceSum) OP(ReduceSumSquare) OP(ReduceL2) OP(Relu) OP(Reshape) OP(Round) \
    OP(Scan) OP(Shape) OP(Sigmoid) OP(Sign) OP(Sin) OP(Size) OP(Slice) OP(Softmax) OP(Softplus) OP(Split) OP(Sqrt) \
    OP(Squeeze) OP(Sub) OP(Sum) OP(Tanh) OP(Tile) OP(Transpose) OP(Trilu) OP(Unsqueeze) \
    OP(Where) OP(Xor)
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
