/* What a backend is known to refuse.  What starts to work must leave this list. */
#include "refusals.h"

const struct refusal refusals[] = {
    {"cuda", OP_NONE, "MaxPool with indices, columns first"},
    {"cuda", OP_NONE, "MaxPool with indices in one dimension, ceil_mode"},
    {"cuda", OP_NONE, "MaxPool of INT8"},
    {"cuda", OP_NONE, "MaxPool of UINT8, dilated"},
    {"cuda", OP_NONE, "LayerNormalization with one scale for all"},
    {"cuda", OP_NONE, "Add of FP64"},
    {"cuda", OP_NONE, "Dropout with its mask"},
    {"cuda", OP_NONE, "Cast FP32 to FP64"},
    {"cuda", OP_NONE, "Acos of FP64"},
    {"cuda", OP_NONE, "Acosh of FP64"},
    {"cuda", OP_NONE, "Asin of FP64"},
    {"cuda", OP_NONE, "Asinh of FP64"},
    {"cuda", OP_NONE, "Atan of FP64"},
    {"cuda", OP_NONE, "Atanh of FP64"},
    {"cuda", OP_NONE, "Cosh of FP64"},
    {"cuda", OP_NONE, "Sinh of FP64"},
    {"cuda", OP_NONE, "Tan of FP64"},
    {"cuda", OP_NONE, "Mish of FP64"},
    {"cuda", OP_NONE, "Softsign of FP64"},
    {"cuda", OP_NONE, "Selu of FP64"},
    {"cuda", OP_NONE, "ReduceL1 of INT32 over axis 1"},
    {"cuda", OP_NONE, "Einsum of FP64"},
    {"cuda", OP_NONE, "RNN of FP64"},
    {"cuda", OP_NONE, "IsInf above 0 only"},
    {"cuda", OP_Det, NULL},
};
const size_t n_refusals = ARRAY_SIZE(refusals);
