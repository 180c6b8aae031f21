/* Functions of one number, bits, and the forms of operators before opset 7, by hand. */
#include "ref_call.h"

static void one(enum op_id op, const char *attr, float a, float x, float want)
{
    float y[1], in[1] = {x};

    CHECK_EQ(RUN_OP(.op = op, .opset = 24, .attr = {real(attr, a)}, .in = {FLOATS(in, 1)},
                    .out = {FLOATS(y, 1)}),
             0);
    if (!(fabsf(y[0] - want) <= 1e-5f)) {
        printf("# %s of %g is %g, not %g\n", op_name(op), (double)x, (double)y[0], (double)want);
        check_failures++;
    }
}

static void inverse_functions_undo_theirs(void)
{
    one(OP_Acos, NULL, 0, 1, 0);
    one(OP_Asin, NULL, 0, 1, 1.570796f);
    one(OP_Atan, NULL, 0, 1, 0.785398f);
    one(OP_Tan, NULL, 0, 0.785398f, 1);
    one(OP_Acosh, NULL, 0, 1, 0);
    one(OP_Cosh, NULL, 0, 0, 1);
    one(OP_Sinh, NULL, 0, 0.881374f, 1);
    one(OP_Asinh, NULL, 0, 1, 0.881374f);
    one(OP_Atanh, NULL, 0, 0.5f, 0.549306f);
}

static void activations_bend_where_they_should(void)
{
    one(OP_Celu, "alpha", 2, 3, 3);
    one(OP_Celu, "alpha", 2, -2, -1.264241f); /* 2 (1/e - 1) */
    one(OP_Selu, "gamma", 2, 3, 6);
    one(OP_Selu, "alpha", 1, -1, -0.664166f); /* 1.0507 (1/e - 1) */
    one(OP_ThresholdedRelu, "alpha", 2, 2, 0);
    one(OP_ThresholdedRelu, "alpha", 2, 2.5f, 2.5f);
    one(OP_Softsign, NULL, 0, -3, -0.75f);
    one(OP_Swish, "alpha", 0, 3, 1.5f);
    one(OP_Mish, NULL, 0, 0, 0);
    one(OP_Mish, NULL, 0, 50, 50);
    one(OP_Shrink, "lambd", 1, 1, 0);
    one(OP_Shrink, "bias", 0.25f, 2, 1.75f);
    one(OP_Shrink, "bias", 0.25f, -2, -1.75f);
}

static void infinities_are_told_apart_by_sign(void)
{
    bool y[4];
    struct call c = {.op = OP_IsInf,
                     .in = {FLOATS(F32(INFINITY, -INFINITY, 3, NAN), 4)},
                     .out = {tensor_of(DT_BOOL, y, INTS(4))}};

    CHECK_EQ(run(&c), 0);
    CHECK(y[0] && y[1] && !y[2] && !y[3]);
    c.attr[0] = number("detect_negative", 0);
    CHECK_EQ(run(&c), 0);
    CHECK(y[0] && !y[1]);
}

static void bits_are_combined_and_shifted(void)
{
    uint8_t y[2], a[] = {12, 200}, b[] = {10, 1};
    struct tensor ta = tensor_of(DT_UINT8, a, INTS(2)), tb = tensor_of(DT_UINT8, b, INTS(2)),
                  ty = tensor_of(DT_UINT8, y, INTS(2));
    struct call c = {.op = OP_BitwiseAnd, .in = {ta, tb}, .out = {ty}};

    CHECK_EQ(run(&c), 0);
    CHECK_EQ(y[0], 8);
    c.op = OP_BitwiseXor;
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(y[0], 6);
    c.op = OP_BitwiseOr;
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(y[0], 14);
    c.op = OP_BitShift;
    c.attr[0] = word("direction", "LEFT");
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(y[0], 0);   /* 12 << 10 in 8 bits */
    CHECK_EQ(y[1], 144); /* 400 - 256 */
    c.attr[0] = word("direction", "RIGHT");
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(y[1], 100);
    c.attr[0] = word("direction", "UP");
    CHECK_EQ(run(&c), -EINVAL);
    c = (struct call){.op = OP_BitwiseNot, .in = {ta}, .out = {ty}};
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(y[0], 243);
}

static void a_mean_of_tensors_broadcasts(void)
{
    float y[2];

    CHECK_EQ(RUN_OP(.op = OP_Mean,
                    .in = {FLOATS(F32(1, 2), 2), FLOATS(F32(5), 1), FLOATS(F32(3, 5), 2)},
                    .out = {FLOATS(y, 2)}),
             0);
    CHECK_FLOATS(y, 3, 4);
}

static void reductions_of_magnitudes_and_logarithms(void)
{
    float y[1], *x = F32(-1, 2, -4);
    struct call c = {.op = OP_ReduceL1, .in = {FLOATS(x, 3)}, .out = {FLOATS(y, 1)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 7);
    c.op = OP_ReduceLogSumExp;
    c.in[0].data = F32(1000, 1000, -INFINITY);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1000.693147f); /* 1000 + log(2) */
    c.op = OP_ReduceLogSum;
    c.in[0].data = F32(0.25f, 0.25f, 0.5f);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0);
}

/* ---- before opset 7 */

static struct err why;

/* The shape of the node's result; its first dimension, or a negative errno. */
static int64_t shape_of(enum op_id op, uint32_t opset, struct attr *attr, uint32_t n_attr,
                        struct tensor *a, struct tensor *b, struct tensor *ret)
{
    const struct tensor *in[] = {a, b};
    struct node n = {.name = "n",
                     .op = op,
                     .opset = opset,
                     .attr = attr,
                     .n_attr = n_attr,
                     .n_in = b ? 2 : 1,
                     .n_out = 1};

    why = (struct err){0};
    int r = node_infer(&n, in, ret, &why);
    return r < 0 ? r : ret->rank ? ret->dims[0] : 0;
}

static void an_axis_says_where_the_second_operand_begins(void)
{
    float y[4];
    struct tensor shape, a = FLOATS(F32(1, 2, 3, 4), 2, 2), b = FLOATS(F32(10, 20), 2);
    struct call c = {.op = OP_Add,
                     .opset = 6,
                     .in = {a, b},
                     .out = {FLOATS(y, 2, 2)},
                     .attr = {number("broadcast", 1), number("axis", 0)}};

    CHECK_EQ(shape_of(OP_Add, 6, c.attr, 2, &a, &b, &shape), 2);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 11, 12, 23, 24);
    c.attr[1] = number("axis", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 11, 22, 13, 24);
    c.opset = 7; /* no such attribute any more */
    c.attr[1] = number("axis", 0);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 11, 22, 13, 24);
}

static void an_axis_out_of_range_is_refused(void)
{
    struct tensor shape, a = FLOATS(F32(1, 2, 3, 4, 5, 6), 2, 3), b = FLOATS(F32(10, 20), 2);
    struct attr attr[] = {number("broadcast", 1), number("axis", 7)};

    CHECK_EQ(shape_of(OP_Add, 6, attr, 2, &a, &b, &shape), -EINVAL);
    CHECK_HAS(why.msg, "do not go together");
    attr[1] = number("axis", INT64_MAX); /* no overflow on the way */
    CHECK_EQ(shape_of(OP_Add, 6, attr, 2, &a, &b, &shape), -EINVAL);
}

static void a_slope_for_each_channel_lies_on_the_second_axis(void)
{
    float y[4], *x = F32(-1, -2, -3, -4);

    CHECK_EQ(RUN_OP(.op = OP_PRelu, .opset = 6, .in = {FLOATS(x, 1, 2, 2), FLOATS(F32(1, 10), 2)},
                    .out = {FLOATS(y, 1, 2, 2)}),
             0);
    CHECK_FLOATS(y, -1, -2, -30, -40);
    CHECK_EQ(RUN_OP(.op = OP_PRelu, .opset = 7, .in = {FLOATS(x, 1, 2, 2), FLOATS(F32(1, 10), 2)},
                    .out = {FLOATS(y, 1, 2, 2)}),
             0);
    CHECK_FLOATS(y, -1, -20, -3, -40);
}

static void shapes_and_pads_were_attributes(void)
{
    struct tensor shape, x = FLOATS(F32(1, 2, 3, 4, 5, 6), 2, 3);
    const int64_t three[] = {3, -1}, around[] = {1, 0, 0, 2};
    struct attr attr = ints("shape", three, 2);

    CHECK_EQ(shape_of(OP_Reshape, 1, &attr, 1, &x, NULL, &shape), 3);
    CHECK_EQ(shape.dims[1], 2);
    CHECK_EQ(shape_of(OP_Reshape, 5, &attr, 1, &x, NULL, &shape), -EINVAL);
    attr = ints("paddings", around, 4);
    CHECK_EQ(shape_of(OP_Pad, 1, &attr, 1, &x, NULL, &shape), 3);
    CHECK_EQ(shape.dims[1], 5);
}

static void a_cast_named_its_type(void)
{
    struct tensor shape, x = FLOATS(F32(1.5f), 1);
    struct attr attr = word("to", "INT32");

    CHECK_EQ(shape_of(OP_Cast, 1, &attr, 1, &x, NULL, &shape), 1);
    CHECK_EQ(shape.dtype, DT_INT32);
    attr = word("to", "INT33");
    CHECK_EQ(shape_of(OP_Cast, 1, &attr, 1, &x, NULL, &shape), -ENOTSUP);
}

static void softmax_counts_a_negative_axis_from_the_end_in_old_opsets_too(void)
{
    float y[4];

    CHECK_EQ(RUN_OP(.op = OP_Softmax, .opset = 6, .attr = {number("axis", -1)},
                    .in = {FLOATS(F32(0, 0, 0, 0), 2, 2)}, .out = {FLOATS(y, 2, 2)}),
             0);
    CHECK_FLOATS(y, 0.5f, 0.5f, 0.5f, 0.5f);
}

int main(void)
{
    RUN(inverse_functions_undo_theirs);
    RUN(activations_bend_where_they_should);
    RUN(infinities_are_told_apart_by_sign);
    RUN(bits_are_combined_and_shifted);
    RUN(a_mean_of_tensors_broadcasts);
    RUN(reductions_of_magnitudes_and_logarithms);
    RUN(an_axis_says_where_the_second_operand_begins);
    RUN(an_axis_out_of_range_is_refused);
    RUN(a_slope_for_each_channel_lies_on_the_second_axis);
    RUN(shapes_and_pads_were_attributes);
    RUN(a_cast_named_its_type);
    RUN(softmax_counts_a_negative_axis_from_the_end_in_old_opsets_too);
    return check_end();
}
