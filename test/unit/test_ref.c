/* The reference kernels against numbers worked out by hand: a few for each family. */
#include "ref_call.h"

/* ---- elementwise */
static void a_column_and_a_row_broadcast_to_a_table(void)
{
    float y[6];

    CHECK_EQ(RUN_OP(.op = OP_Add, .in = {FLOATS(F32(10, 20), 2, 1), FLOATS(F32(1, 2, 3), 3)},
                    .out = {FLOATS(y, 2, 3)}),
             0);
    CHECK_FLOATS(y, 11, 12, 13, 21, 22, 23);
}

static void shapes_that_do_not_broadcast_are_refused(void)
{
    float y[6];

    CHECK_EQ(RUN_OP(.op = OP_Add, .in = {FLOATS(F32(1, 2), 2), FLOATS(F32(1, 2, 3), 3)},
                    .out = {FLOATS(y, 3)}),
             -EINVAL);
    CHECK_HAS(last.msg, "broadcast");
}

static void integers_divide_towards_zero_and_wrap(void)
{
    int64_t y[3];
    int8_t s[1], top[] = {127}, one[] = {1};

    CHECK_EQ(RUN_OP(.op = OP_Div, .in = {LONGS(I64(7, -7, INT64_MIN), 3), LONGS(I64(2, 2, -1), 3)},
                    .out = {LONGS(y, 3)}),
             0);
    CHECK_LONGS(y, 3, -3, INT64_MIN);
    CHECK_EQ(RUN_OP(.op = OP_Add, .in = {SCALAR(DT_INT8, top), SCALAR(DT_INT8, one)},
                    .out = {SCALAR(DT_INT8, s)}),
             0);
    CHECK_EQ(s[0], -128);
}

static void division_of_an_integer_by_zero_is_an_error(void)
{
    int64_t y[1];

    CHECK_EQ(RUN_OP(.op = OP_Div, .in = {LONGS(I64(7), 1), LONGS(I64(0), 1)}, .out = {LONGS(y, 1)}),
             -EINVAL);
    CHECK_HAS(last.msg, "zero");
}

static void modulus_takes_the_sign_of_the_divisor_or_with_fmod_of_the_dividend(void)
{
    int64_t y[2];
    struct call c = {
        .op = OP_Mod, .in = {LONGS(I64(-7, 7), 2), LONGS(I64(3, -3), 2)}, .out = {LONGS(y, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_LONGS(y, 2, -2);
    c.attr[0] = number("fmod", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_LONGS(y, -1, 1);
}

static void large_integers_compare_exactly(void)
{
    uint8_t y[1];
    int64_t big = INT64_C(1) << 53;

    CHECK_EQ(RUN_OP(.op = OP_Less, .in = {LONGS(I64(big), 1), LONGS(I64(big + 1), 1)},
                    .out = {tensor_of(DT_BOOL, y, INTS(1))}),
             0);
    CHECK_EQ(y[0], 1);
}

static void clip_reads_bounds_from_attributes_then_from_inputs(void)
{
    float y[3], *x = F32(-5, 1, 9);
    float lo[] = {0}, hi[] = {6};

    CHECK_EQ(RUN_OP(.op = OP_Clip, .opset = 10, .attr = {real("min", 0), real("max", 6)},
                    .in = {FLOATS(x, 3)}, .out = {FLOATS(y, 3)}),
             0);
    CHECK_FLOATS(y, 0, 1, 6);
    CHECK_EQ(RUN_OP(.op = OP_Clip, .opset = 11, .in = {FLOATS(x, 3), {0}, SCALAR(DT_FP32, hi)},
                    .out = {FLOATS(y, 3)}),
             0);
    CHECK_FLOATS(y, -5, 1, 6);
    CHECK_EQ(RUN_OP(.op = OP_Clip, .opset = 13, .in = {FLOATS(x, 3), SCALAR(DT_FP32, lo)},
                    .out = {FLOATS(y, 3)}),
             0);
    CHECK_FLOATS(y, 0, 1, 9);
}

static void gelu_of_one_is_0_841345(void)
{
    float y[2];

    CHECK_EQ(RUN_OP(.op = OP_Gelu, .in = {FLOATS(F32(1, -1), 2)}, .out = {FLOATS(y, 2)}), 0);
    CHECK_FLOATS(y, 0.841345f, -0.158655f);
}

static void dropout_keeps_everything_and_says_so_in_its_mask(void)
{
    float y[2];
    uint8_t mask[2];

    CHECK_EQ(RUN_OP(.op = OP_Dropout, .in = {FLOATS(F32(3, 4), 2)},
                    .out = {FLOATS(y, 2), tensor_of(DT_BOOL, mask, INTS(2))}),
             0);
    CHECK_FLOATS(y, 3, 4);
    CHECK_EQ(mask[0] + mask[1], 2);
}

static void post_steps_run_in_order_after_the_operator(void)
{
    float x[] = {-3, 5}, y[2], more[] = {1, -7};
    struct tensor tx = FLOATS(x, 2), ty = FLOATS(y, 2), tm = FLOATS(more, 2);
    struct node n = {.name = "n",
                     .op = OP_Neg,
                     .opset = 17,
                     .n_in = 1,
                     .n_out = 1,
                     .n_post = 2,
                     .post = {{.kind = POST_ADD}, {.kind = POST_CLIP, .alpha = -2, .beta = 2}}};
    const struct tensor *in[] = {&tx}, *add[] = {&tm, NULL};
    struct tensor *out[] = {&ty};

    CHECK_EQ(ref_run(&n, in, add, out, &last), 0);
    CHECK_FLOATS(y, 2, -2); /* 3 + 1 and -5 - 7, clipped */
    add[0] = NULL;
    CHECK_EQ(ref_run(&n, in, add, out, &last), -EINVAL);
}

/* ---- cast */
static void a_bit_cast_keeps_the_bytes(void)
{
    int32_t y[2];
    float back[2];

    CHECK_EQ(RUN_OP(.op = OP_BitCast, .opset = 26, .attr = {number("to", DT_INT32)},
                    .in = {FLOATS(F32(1, -0.0f), 2)}, .out = {tensor_of(DT_INT32, y, INTS(2))}),
             0);
    CHECK_EQ(y[0], 0x3f800000);
    CHECK_EQ(y[1], INT32_MIN);
    CHECK_EQ(RUN_OP(.op = OP_BitCast, .opset = 26, .attr = {number("to", DT_FP32)},
                    .in = {tensor_of(DT_INT32, y, INTS(2))}, .out = {FLOATS(back, 2)}),
             0);
    CHECK(back[0] == 1 && signbit(back[1]));
}

static void casts_truncate_wrap_and_round_to_even(void)
{
    int32_t i[3];
    uint16_t half[4], brain[2];
    float back[4];

    CHECK_EQ(RUN_OP(.op = OP_Cast, .in = {FLOATS(F32(2.9f, -2.9f, NAN), 3)},
                    .out = {tensor_of(DT_INT32, i, INTS(3))}),
             0);
    CHECK_EQ(i[0], 2);
    CHECK_EQ(i[1], -2);
    CHECK_EQ(i[2], 0);
    CHECK_EQ(RUN_OP(.op = OP_Cast, .in = {FLOATS(F32(1, 65520, 0x1p-24f, 2049), 4)},
                    .out = {tensor_of(DT_FP16, half, INTS(4))}),
             0);
    CHECK_EQ(half[0], 0x3c00);
    CHECK_EQ(half[1], 0x7c00); /* rounds up to infinity */
    CHECK_EQ(half[2], 0x0001); /* the least subnormal */
    CHECK_EQ(half[3], 0x6800); /* 2049 lies between 2048 and 2050: the even one */
    CHECK_EQ(
        RUN_OP(.op = OP_Cast, .in = {tensor_of(DT_FP16, half, INTS(4))}, .out = {FLOATS(back, 4)}),
        0);
    CHECK(back[0] == 1 && isinf(back[1]) && back[2] == 0x1p-24f && back[3] == 2048);
    CHECK_EQ(RUN_OP(.op = OP_Cast, .in = {FLOATS(F32(-1, 0x1.01p0f), 2)},
                    .out = {tensor_of(DT_BF16, brain, INTS(2))}),
             0);
    CHECK_EQ(brain[0], 0xbf80);
    CHECK_EQ(brain[1], 0x3f80); /* a tie: to even */
}

/* ---- shapes and moves */
static void shape_gives_a_part_of_the_dimensions_without_looking_at_data(void)
{
    int64_t y[2];

    CHECK_EQ(RUN_OP(.op = OP_Shape, .attr = {number("start", 1), number("end", -1)},
                    .in = {FLOATS(NULL, 2, 3, 5, 7)}, .out = {LONGS(y, 2)}),
             0);
    CHECK_LONGS(y, 3, 5);
}

static void a_transpose_turns_rows_into_columns(void)
{
    float y[6];

    CHECK_EQ(RUN_OP(.op = OP_Transpose, .in = {FLOATS(F32(1, 2, 3, 4, 5, 6), 2, 3)},
                    .out = {FLOATS(y, 3, 2)}),
             0);
    CHECK_FLOATS(y, 1, 4, 2, 5, 3, 6);
}

static void concat_and_split_undo_each_other(void)
{
    float y[6], a[2], b[4];

    CHECK_EQ(RUN_OP(.op = OP_Concat, .attr = {number("axis", 1)},
                    .in = {FLOATS(F32(1, 2), 2, 1), FLOATS(F32(3, 4, 5, 6), 2, 2)},
                    .out = {FLOATS(y, 2, 3)}),
             0);
    CHECK_FLOATS(y, 1, 3, 4, 2, 5, 6);
    CHECK_EQ(RUN_OP(.op = OP_Split, .attr = {number("axis", -1)},
                    .in = {FLOATS(y, 2, 3), LONGS(I64(1, 2), 2)},
                    .out = {FLOATS(a, 2, 1), FLOATS(b, 2, 2)}),
             0);
    CHECK_FLOATS(a, 1, 2);
    CHECK_FLOATS(b, 3, 4, 5, 6);
}

static void a_part_that_nobody_reads_is_skipped(void)
{
    float b[2];

    CHECK_EQ(
        RUN_OP(.op = OP_Split, .in = {FLOATS(F32(1, 2, 3, 4, 5), 5)}, .out = {{0}, FLOATS(b, 2)}),
        0); /* of 3 and 2 */
    CHECK_FLOATS(b, 4, 5);
}

static void a_slice_goes_backwards_and_clamps_its_ends(void)
{
    float y[3], *x = F32(0, 1, 2, 3, 4);

    CHECK_EQ(RUN_OP(.op = OP_Slice,
                    .in = {FLOATS(x, 5),
                           LONGS(I64(100), 1),
                           LONGS(I64(INT64_MIN), 1),
                           {0},
                           LONGS(I64(-2), 1)},
                    .out = {FLOATS(y, 3)}),
             0);
    CHECK_FLOATS(y, 4, 2, 0);
    CHECK_EQ(RUN_OP(.op = OP_Slice, .opset = 9,
                    .attr = {ints("starts", INTS(-3)), ints("ends", INTS(INT64_MAX))},
                    .in = {FLOATS(x, 5)}, .out = {FLOATS(y, 3)}),
             0);
    CHECK_FLOATS(y, 2, 3, 4);
}

static void gather_counts_from_the_end_and_refuses_what_is_outside(void)
{
    float y[4];
    struct call c = {.op = OP_Gather,
                     .in = {FLOATS(F32(1, 2, 3, 4, 5, 6), 3, 2), LONGS(I64(2, -3), 2)},
                     .out = {FLOATS(y, 2, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 5, 6, 1, 2);
    c.in[1] = LONGS(I64(0, 3), 2);
    CHECK_EQ(run(&c), -EINVAL);
    CHECK_HAS(last.msg, "index 3 is outside of dimension 0 of size 3");
    c.in[1] = LONGS(I64(0, -4), 2);
    CHECK_EQ(run(&c), -EINVAL);
}

static void padding_fills_reflects_and_repeats(void)
{
    float y[6], *x = F32(1, 2, 3);
    struct call c = {
        .op = OP_Pad, .in = {FLOATS(x, 3), LONGS(I64(2, 1), 2)}, .out = {FLOATS(y, 6)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 0, 1, 2, 3, 0);
    c.attr[0] = word("mode", "reflect");
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 3, 2, 1, 2, 3, 2);
    c.attr[0] = word("mode", "edge");
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 1, 1, 2, 3, 3);
}

static void tile_range_and_trilu_count_right(void)
{
    float y[4], t[4];
    int64_t r[3];

    CHECK_EQ(RUN_OP(.op = OP_Tile, .in = {FLOATS(F32(1, 2), 1, 2), LONGS(I64(2, 1), 2)},
                    .out = {FLOATS(y, 2, 2)}),
             0);
    CHECK_FLOATS(y, 1, 2, 1, 2);
    CHECK_EQ(RUN_OP(.op = OP_Range,
                    .in = {SCALAR(DT_INT64, I64(10)), SCALAR(DT_INT64, I64(4)),
                           SCALAR(DT_INT64, I64(-2))},
                    .out = {LONGS(r, 3)}),
             0);
    CHECK_LONGS(r, 10, 8, 6);
    CHECK_EQ(RUN_OP(.op = OP_Trilu, .attr = {number("upper", 0)},
                    .in = {FLOATS(F32(1, 2, 3, 4), 2, 2)}, .out = {FLOATS(t, 2, 2)}),
             0);
    CHECK_FLOATS(t, 1, 0, 3, 4);
}

/* ---- reductions */
static void reductions_name_axes_by_attribute_or_by_input(void)
{
    float y[2], all[1], *x = F32(1, 2, 3, 4);
    int64_t best[2];

    CHECK_EQ(RUN_OP(.op = OP_ReduceMean, .attr = {ints("axes", INTS(-1))}, .in = {FLOATS(x, 2, 2)},
                    .out = {FLOATS(y, 2, 1)}),
             0);
    CHECK_FLOATS(y, 1.5f, 3.5f);
    CHECK_EQ(RUN_OP(.op = OP_ReduceSum, .in = {FLOATS(x, 2, 2), LONGS(I64(0), 1)},
                    .out = {FLOATS(y, 1, 2)}),
             0);
    CHECK_FLOATS(y, 4, 6);
    CHECK_EQ(RUN_OP(.op = OP_ReduceL2, .in = {FLOATS(F32(3, 4), 2)}, .out = {SCALAR(DT_FP32, all)}),
             0);
    CHECK_FLOATS(all, 5);
    CHECK_EQ(RUN_OP(.op = OP_ArgMax, .attr = {number("axis", 1)},
                    .in = {FLOATS(F32(1, 7, 7, 2, 0, 1), 2, 3)}, .out = {LONGS(best, 2, 1)}),
             0);
    CHECK_LONGS(best, 1, 0);
}

static void the_largest_of_nothing_is_minus_infinity_and_the_sum_is_zero(void)
{
    float y[2];

    CHECK_EQ(RUN_OP(.op = OP_ReduceMax, .attr = {ints("axes", INTS(1))}, .in = {FLOATS(NULL, 2, 0)},
                    .out = {FLOATS(y, 2, 1)}),
             0);
    CHECK(isinf(y[0]) && y[0] < 0);
    CHECK_EQ(RUN_OP(.op = OP_ReduceSum, .in = {FLOATS(NULL, 2, 0), LONGS(I64(1), 1)},
                    .out = {FLOATS(y, 2, 1)}),
             0);
    CHECK_FLOATS(y, 0, 0);
}

/* ---- windows */
static void a_convolution_sees_zeros_beyond_the_edge(void)
{
    float y[4];

    CHECK_EQ(RUN_OP(.op = OP_Conv, .attr = {ints("pads", INTS(0, 0, 1, 1))},
                    .in = {FLOATS(F32(1, 2, 3, 4), 1, 1, 2, 2),
                           FLOATS(F32(1, 10, 100, 1000), 1, 1, 2, 2), FLOATS(F32(0.5f), 1)},
                    .out = {FLOATS(y, 1, 1, 2, 2)}),
             0);
    CHECK_FLOATS(y, 4321.5f, 402.5f, 43.5f, 4.5f);
}

static void groups_and_dilation_pick_the_right_elements(void)
{
    float y[2], d[1];

    CHECK_EQ(RUN_OP(.op = OP_Conv, .attr = {number("group", 2)},
                    .in = {FLOATS(F32(3, 5), 1, 2, 1), FLOATS(F32(10, 100), 2, 1, 1)},
                    .out = {FLOATS(y, 1, 2, 1)}),
             0);
    CHECK_FLOATS(y, 30, 500);
    CHECK_EQ(RUN_OP(.op = OP_Conv, .attr = {ints("dilations", INTS(2))},
                    .in = {FLOATS(F32(1, 2, 3), 1, 1, 3), FLOATS(F32(10, 1), 1, 1, 2)},
                    .out = {FLOATS(d, 1, 1, 1)}),
             0);
    CHECK_FLOATS(d, 13);
}

static void same_upper_puts_the_odd_pad_behind_and_same_lower_in_front(void)
{
    float y[2];
    struct call c = {.op = OP_MaxPool,
                     .attr = {ints("kernel_shape", INTS(3)), ints("strides", INTS(2)),
                              word("auto_pad", "SAME_UPPER")},
                     .in = {FLOATS(F32(9, 1, 2, 3), 1, 1, 4)},
                     .out = {FLOATS(y, 1, 1, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 9, 3);
    c.in[0] = FLOATS(F32(1, 2, 9, 3), 1, 1, 4);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 9, 9); /* windows [1 2 9] and [9 3] */
    c.attr[2] = word("auto_pad", "SAME_LOWER");
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 2, 9); /* windows [1 2] and [2 9 3] */
}

static void the_average_counts_padding_when_asked_but_never_what_ceil_mode_adds(void)
{
    float y[2];
    struct call c = {.op = OP_AveragePool,
                     .attr = {ints("kernel_shape", INTS(2)), ints("strides", INTS(2)),
                              ints("pads", INTS(1, 0)), number("ceil_mode", 1)},
                     .in = {FLOATS(F32(4, 2), 1, 1, 2)},
                     .out = {FLOATS(y, 1, 1, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 4, 2);
    c.attr[4] = number("count_include_pad", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 2, 2);
}

static void max_pool_reports_where_the_largest_was(void)
{
    float y[1];
    int64_t at[1];
    struct call c = {.op = OP_MaxPool,
                     .attr = {ints("kernel_shape", INTS(2, 2))},
                     .in = {FLOATS(F32(1, 8, 3, 4), 1, 1, 2, 2)},
                     .out = {FLOATS(y, 1, 1, 1, 1), LONGS(at, 1, 1, 1, 1)}};

    CHECK_EQ(run(&c), 0);
    CHECK_EQ(at[0], 1);
    c.attr[1] = number("storage_order", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(at[0], 2);
}

/* ---- products */
static void gemm_transposes_scales_and_broadcasts_c(void)
{
    float y[4];

    CHECK_EQ(RUN_OP(.op = OP_Gemm,
                    .attr = {number("transB", 1), real("alpha", 2), real("beta", 10)},
                    .in = {FLOATS(F32(1, 2, 3, 4), 2, 2), FLOATS(F32(1, 0, 0, 1), 2, 2),
                           FLOATS(F32(1, 2), 2)},
                    .out = {FLOATS(y, 2, 2)}),
             0);
    CHECK_FLOATS(y, 12, 24, 16, 28);
}

static void matmul_takes_vectors_stacks_and_a_bias(void)
{
    float y[2], dot[1], *a = F32(1, 2, 3, 4);

    CHECK_EQ(RUN_OP(.op = OP_MatMul, .in = {FLOATS(a, 2, 2), FLOATS(F32(10, 1), 2)},
                    .out = {FLOATS(y, 2)}),
             0);
    CHECK_FLOATS(y, 12, 34);
    CHECK_EQ(RUN_OP(.op = OP_MatMul, .in = {FLOATS(F32(1, 2), 2), FLOATS(F32(10, 1), 2)},
                    .out = {SCALAR(DT_FP32, dot)}),
             0);
    CHECK_FLOATS(dot, 12);
    CHECK_EQ(RUN_OP(.op = OP_MatMul,
                    .in = {FLOATS(a, 2, 1, 2), FLOATS(F32(10, 1), 1, 2, 1), FLOATS(F32(100), 1)},
                    .out = {FLOATS(y, 2, 1, 1)}),
             0);
    CHECK_FLOATS(y, 112, 134);
}

/* ---- norms */
static void norms_shift_and_scale(void)
{
    float y[2], m[1], inv[1], *one = F32(1), *x = F32(1, 3);

    CHECK_EQ(RUN_OP(.op = OP_BatchNormalization, .attr = {real("epsilon", 0)},
                    .in = {FLOATS(x, 2, 1), FLOATS(F32(6), 1), FLOATS(F32(10), 1), FLOATS(one, 1),
                           FLOATS(F32(4), 1)},
                    .out = {FLOATS(y, 2, 1)}),
             0);
    CHECK_FLOATS(y, 10, 16);
    CHECK_EQ(RUN_OP(.op = OP_LayerNormalization, .attr = {real("epsilon", 0)},
                    .in = {FLOATS(x, 1, 2), FLOATS(F32(1, 2), 2), FLOATS(F32(0, 5), 2)},
                    .out = {FLOATS(y, 1, 2), FLOATS(m, 1, 1), FLOATS(inv, 1, 1)}),
             0);
    CHECK_FLOATS(y, -1, 7);
    CHECK_FLOATS(m, 2);
    CHECK_FLOATS(inv, 1);
    CHECK_EQ(RUN_OP(.op = OP_LRN,
                    .attr = {number("size", 1), real("alpha", 3), real("beta", 1), real("bias", 1)},
                    .in = {FLOATS(x, 1, 2, 1)}, .out = {FLOATS(y, 1, 2, 1)}),
             0);
    CHECK_FLOATS(y, 0.25f, 3 / 28.f);
}

static void training_outputs_of_a_batch_norm_are_refused(void)
{
    float y[1], m[1], *one = F32(1);

    CHECK_EQ(RUN_OP(.op = OP_BatchNormalization, .opset = 9,
                    .in = {FLOATS(one, 1, 1), FLOATS(one, 1), FLOATS(one, 1), FLOATS(one, 1),
                           FLOATS(one, 1)},
                    .out = {FLOATS(y, 1, 1), FLOATS(m, 1)}),
             -ENOTSUP);
    CHECK_HAS(last.msg, "training");
}

static void softmax_before_opset_13_flattens_the_rest(void)
{
    float y[4], *x = F32(0, 0, 0, 0);

    CHECK_EQ(RUN_OP(.op = OP_Softmax, .opset = 11, .in = {FLOATS(x, 1, 2, 2)},
                    .out = {FLOATS(y, 1, 2, 2)}),
             0);
    CHECK_FLOATS(y, 0.25f, 0.25f, 0.25f, 0.25f);
    CHECK_EQ(RUN_OP(.op = OP_Softmax, .in = {FLOATS(x, 1, 2, 2)}, .out = {FLOATS(y, 1, 2, 2)}), 0);
    CHECK_FLOATS(y, 0.5f, 0.5f, 0.5f, 0.5f);
}

static void softmax_before_opset_13_counts_a_negative_axis_from_the_last(void)
{
    float y[4], *x = F32(0, 0, 0, 0);

    CHECK_EQ(RUN_OP(.op = OP_Softmax, .opset = 11, .attr = {number("axis", -1)},
                    .in = {FLOATS(x, 1, 2, 2)}, .out = {FLOATS(y, 1, 2, 2)}),
             0);
    CHECK_FLOATS(y, 0.5f, 0.5f, 0.5f, 0.5f);
}

/* ---- all of them */
/* Those with bodies are run by graph_run(). */
static void every_operator_has_a_kernel(void)
{
    for (unsigned op = OP_NONE + 1; op < OP_END; op++)
        if (!ref_find((enum op_id)op) && op != OP_If && op != OP_Loop && op != OP_Scan) {
            printf("# %s has none\n", op_name((enum op_id)op));
            check_failures++;
        }
}

/* What ONNX has strings for: test_ref_text.c. */
static bool takes_strings(enum op_id op)
{
    static const enum op_id ops[] = {OP_Cast,
                                     OP_CastLike,
                                     OP_CenterCropPad,
                                     OP_Compress,
                                     OP_Concat,
                                     OP_DepthToSpace,
                                     OP_Equal,
                                     OP_Expand,
                                     OP_Flatten,
                                     OP_Gather,
                                     OP_GatherElements,
                                     OP_GatherND,
                                     OP_Identity,
                                     OP_NonZero,
                                     OP_OneHot,
                                     OP_Pad,
                                     OP_RegexFullMatch,
                                     OP_Reshape,
                                     OP_ReverseSequence,
                                     OP_Scatter,
                                     OP_ScatterElements,
                                     OP_ScatterND,
                                     OP_Shape,
                                     OP_Size,
                                     OP_Slice,
                                     OP_SpaceToDepth,
                                     OP_Split,
                                     OP_Squeeze,
                                     OP_StringConcat,
                                     OP_StringNormalizer,
                                     OP_StringSplit,
                                     OP_TfIdfVectorizer,
                                     OP_Tile,
                                     OP_Transpose,
                                     OP_Trilu,
                                     OP_Unique,
                                     OP_Unsqueeze,
                                     OP_Where,
                                     OP_RandomNormalLike,
                                     OP_RandomUniformLike};

    for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
        if (ops[i] == op)
            return true;
    return false;
}

static void strings_and_missing_data_are_refused_by_every_other_operator(void)
{
    char text[8] = {0};

    for (unsigned op = OP_NONE + 1; op < OP_END; op++) {
        struct tensor s = {.dtype = DT_STRING, .rank = 1, .dims = {1}, .bytes = 4, .data = text};
        struct tensor none = {.dtype = DT_FP32, .rank = 1, .dims = {2}, .bytes = 8};
        struct call c = {.op = (enum op_id)op, .in = {s, s, s, s, s, s, s, s}, .out = {s}};
        if (op == OP_Shape || op == OP_Size)
            continue;
        if (!takes_strings((enum op_id)op))
            CHECK_EQ(run(&c), -ENOTSUP);
        c = (struct call){.op = (enum op_id)op,
                          .in = {none, none, none, none, none, none, none, none},
                          .out = {none}};
        CHECK(run(&c) < 0);
    }
}

int main(void)
{
    RUN(a_column_and_a_row_broadcast_to_a_table);
    RUN(shapes_that_do_not_broadcast_are_refused);
    RUN(integers_divide_towards_zero_and_wrap);
    RUN(division_of_an_integer_by_zero_is_an_error);
    RUN(modulus_takes_the_sign_of_the_divisor_or_with_fmod_of_the_dividend);
    RUN(large_integers_compare_exactly);
    RUN(clip_reads_bounds_from_attributes_then_from_inputs);
    RUN(gelu_of_one_is_0_841345);
    RUN(dropout_keeps_everything_and_says_so_in_its_mask);
    RUN(post_steps_run_in_order_after_the_operator);
    RUN(a_bit_cast_keeps_the_bytes);
    RUN(casts_truncate_wrap_and_round_to_even);
    RUN(shape_gives_a_part_of_the_dimensions_without_looking_at_data);
    RUN(a_transpose_turns_rows_into_columns);
    RUN(concat_and_split_undo_each_other);
    RUN(a_part_that_nobody_reads_is_skipped);
    RUN(a_slice_goes_backwards_and_clamps_its_ends);
    RUN(gather_counts_from_the_end_and_refuses_what_is_outside);
    RUN(padding_fills_reflects_and_repeats);
    RUN(tile_range_and_trilu_count_right);
    RUN(reductions_name_axes_by_attribute_or_by_input);
    RUN(the_largest_of_nothing_is_minus_infinity_and_the_sum_is_zero);
    RUN(a_convolution_sees_zeros_beyond_the_edge);
    RUN(groups_and_dilation_pick_the_right_elements);
    RUN(same_upper_puts_the_odd_pad_behind_and_same_lower_in_front);
    RUN(the_average_counts_padding_when_asked_but_never_what_ceil_mode_adds);
    RUN(max_pool_reports_where_the_largest_was);
    RUN(gemm_transposes_scales_and_broadcasts_c);
    RUN(matmul_takes_vectors_stacks_and_a_bias);
    RUN(norms_shift_and_scale);
    RUN(training_outputs_of_a_batch_norm_are_refused);
    RUN(softmax_before_opset_13_flattens_the_rest);
    RUN(softmax_before_opset_13_counts_a_negative_axis_from_the_last);
    RUN(every_operator_has_a_kernel);
    RUN(strings_and_missing_data_are_refused_by_every_other_operator);
    return check_end();
}
