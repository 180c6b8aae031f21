/* Quantised operators against numbers worked out by hand. */
#include "ref_rig.h"

#define BYTE(v) SCALAR(INT8, v, int8_t)
#define UBYTE(v) SCALAR(UINT8, v, uint8_t)
#define REAL(v) SCALAR(FP32, v, float)

static void quantising_rounds_to_even_shifts_and_saturates(void)
{
    static const float x[] = {1, 3, 5, -2, 1000, -1000};

    CHECK_RUN(.op = OP_QuantizeLinear, .in = {T(FP32, x, 6), REAL(2), UBYTE(10)});
    CHECK_VALUES(0, 10, 12, 12, 9, 255, 0); /* 0.5, 1.5 and 2.5 become 0, 2 and 2 */
    CHECK_RUN(.op = OP_QuantizeLinear, .in = {T(FP32, x, 6), REAL(2), BYTE(0)});
    CHECK_VALUES(0, 0, 2, 2, -1, 127, -128);
    CHECK_RUN(.op = OP_QuantizeLinear, .opset = 21, .attr = {number("output_dtype", DT_INT16)},
              .in = {T(FP32, x, 6), REAL(0.01f)});
    CHECK_VALUES(0, 100, 300, 500, -200, 32767, -32768);
}

static void scales_go_by_axis_or_by_block(void)
{
    static const int8_t x[] = {1, 2, 3, 4, 5, 6};
    static const float blocks[] = {1, 10, 100, 1000};

    CHECK_RUN(.op = OP_DequantizeLinear, .attr = {number("axis", 0)},
              .in = {T(INT8, x, 2, 3), FLOATS(1, 10), {0}});
    CHECK_VALUES(0, 1, 2, 3, 40, 50, 60);
    CHECK_RUN(.op = OP_DequantizeLinear, .in = {T(INT8, x, 3, 2), FLOATS(1, 10), {0}});
    CHECK_VALUES(0, 1, 20, 3, 40, 5, 60);
    CHECK_RUN(.op = OP_DequantizeLinear, .opset = 21, .attr = {number("block_size", 2)},
              .in = {T(INT8, x, 2, 3), T(FP32, blocks, 2, 2)});
    CHECK_VALUES(0, 1, 2, 30, 400, 500, 6000); /* the last block of a row has one element */
    CHECK_EQ(RUN_OP(.op = OP_DequantizeLinear, .in = {T(INT8, x, 2, 3), FLOATS(1, 10)}), -EINVAL);
    CHECK_HAS(rig_err.msg, "scale of shape [2]");
}

static void the_dynamic_range_holds_zero_exactly(void)
{
    static const float x[] = {0, 2, -3, 252};

    CHECK_RUN(.op = OP_DynamicQuantizeLinear, .in = {T(FP32, x, 4)}, .n_out = 3);
    CHECK_VALUES(0, 3, 5, 0, 255);
    CHECK_VALUES(1, 1);
    CHECK_VALUES(2, 3);
}

static void a_product_of_bytes_takes_zero_points_by_row_and_column(void)
{
    static const uint8_t a[] = {1, 2, 3, 4}, az[] = {1, 2};
    static const int8_t b[] = {1, 2, 3, 4}, bz[] = {1, 0};

    CHECK_RUN(.op = OP_MatMulInteger, .in = {T(UINT8, a, 2, 2), T(INT8, b, 2, 2)});
    CHECK_VALUES(0, 7, 10, 15, 22);
    CHECK_RUN(.op = OP_MatMulInteger,
              .in = {T(UINT8, a, 2, 2), T(INT8, b, 2, 2), T(UINT8, az, 2), T(INT8, bz, 2)});
    CHECK_VALUES(0, 2, 4, 4, 10); /* [0 1; 1 2] by [0 2; 2 4] */
    CHECK_EQ(RUN_OP(.op = OP_MatMulInteger,
                    .in = {T(UINT8, a, 1, 4), T(INT8, b, 4, 1), T(UINT8, az, 2)}),
             -EINVAL);
}

static void a_quantised_product_is_scaled_at_the_end(void)
{
    static const uint8_t a[] = {3, 5};
    static const int8_t b[] = {2, 4};

    CHECK_RUN(.op = OP_QLinearMatMul,
              .in = {T(UINT8, a, 1, 2), REAL(0.5f), UBYTE(1), T(INT8, b, 2, 1), REAL(0.5f), BYTE(0),
                     REAL(2), BYTE(-1)});
    CHECK_VALUES(0, 1); /* (2 * 2 + 4 * 4) / 8 = 2.5: 2, and -1 */
}

/* Padding is worth the zero point: it adds nothing. */
static void a_convolution_of_bytes_pads_with_the_zero_point(void)
{
    static const uint8_t x[] = {11, 12, 13};
    static const int8_t k[] = {1, 1, 1};

    CHECK_RUN(.op = OP_ConvInteger, .attr = {ints("pads", INTS(1, 1))},
              .in = {T(UINT8, x, 1, 1, 3), T(INT8, k, 1, 1, 3), UBYTE(10)});
    CHECK_VALUES(0, 3, 6, 5);
}

static void a_quantised_convolution_scales_each_channel(void)
{
    static const uint8_t x[] = {1, 2};
    static const int8_t k[] = {1, 2};
    static const int32_t bias[] = {0, 10};

    CHECK_RUN(.op = OP_QLinearConv,
              .in = {T(UINT8, x, 1, 1, 2), REAL(1), UBYTE(0), T(INT8, k, 2, 1, 1), FLOATS(1, 0.5f),
                     T(INT8, ((const int8_t[]){0, 0}), 2), REAL(1), UBYTE(100), T(INT32, bias, 2)});
    CHECK_VALUES(0, 101, 102, 106, 107); /* (1 * 2 + 10) / 2, (2 * 2 + 10) / 2 */
}

int main(void)
{
    RUN(quantising_rounds_to_even_shifts_and_saturates);
    RUN(scales_go_by_axis_or_by_block);
    RUN(the_dynamic_range_holds_zero_exactly);
    RUN(a_product_of_bytes_takes_zero_points_by_row_and_column);
    RUN(a_quantised_product_is_scaled_at_the_end);
    RUN(a_convolution_of_bytes_pads_with_the_zero_point);
    RUN(a_quantised_convolution_scales_each_channel);
    return check_end();
}
