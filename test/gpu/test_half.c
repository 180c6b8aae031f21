/* precision = fp16, bf16 on the fakes: what is stored in 16 bits, and what that costs.  Each
 * operator in each precision is for ops.sh. */
#include "half_rig.h"

#include <kernels/cuda/half.h>

/* ---- rounding */

/* Numbers next to each other: what lies between goes to the nearer, the middle to the even one. */
static void check_between(uint16_t a, float (*to)(uint16_t), uint16_t (*of)(float))
{
    float x = to(a), y = to((uint16_t)(a + 1)), mid = x + (y - x) / 2;
    uint16_t even = (uint16_t)(a & 1 ? a + 1 : a);

    CHECK_EQ(of(x), a);
    CHECK_EQ(of(mid), even);
    CHECK_EQ(of(nextafterf(mid, x)), a);
    CHECK_EQ(of(nextafterf(mid, y)), a + 1);
    CHECK_EQ(of(-mid), even | 0x8000);
}

static void numbers_are_rounded_to_the_nearest_and_then_even(void)
{
    for (unsigned a = 0; a < 0x7bff; a++)
        check_between((uint16_t)a, fp16_to, fp16_of);
    for (unsigned a = 0x80; a < 0x7f7f; a++)
        check_between((uint16_t)a, bf16_to, bf16_of);
    CHECK(fp16_to(0x3c00) == 1 && fp16_to(0x7bff) == 65504 && fp16_to(1) == 0x1p-24f);
    CHECK(bf16_to(0x3f80) == 1);
}

static void what_is_too_large_for_fp16_is_infinite_and_nan_stays(void)
{
    CHECK_EQ(fp16_of(65519.9f), 0x7bff);
    CHECK_EQ(fp16_of(65520), 0x7c00);
    CHECK_EQ(fp16_of(-INFINITY), 0xfc00);
    CHECK(isnan(fp16_to(fp16_of(NAN))) && isnan(bf16_to(bf16_of(NAN))));
    CHECK(isinf(fp16_to(0x7c00)) && isinf(bf16_to(bf16_of(INFINITY))));
}

/* ---- models */
static void a_chain_is_converted_at_its_ends_only(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t y = conv("a", input("x", "B 3 5 5"), weights("4 3 3 3"), POST_RELU);
    y = conv("b", y, weights("4 4 3 3"), POST_RELU);
    output(conv("c", y, weights("4 4 3 3"), 0));
    bind_graph();
    double e = error_in(PRECISION_FP16, ROWS * 4 * 25, &info);
    CHECK(e > 0 && e < 1e-2);
    CHECK_EQ(info.n_asked, 3);
    CHECK_EQ(info.n_reorders, 2);
    e = error_in(PRECISION_BF16, ROWS * 4 * 25, &info);
    CHECK(e > 1e-4 && e < 5e-2);
    CHECK_EQ(info.n_reorders, 2);
    close_gpu();
}

/* Gelu is ours, in place; Tanh has nobody behind it who reads 16 bits. */
static void an_activation_that_is_not_fused_keeps_16_bits_between_convolutions(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t y = conv("a", input("x", "B 3 5 5"), weights("4 3 3 3"), POST_GELU);
    output(conv("b", y, weights("4 4 3 3"), POST_TANH));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 4 * 25, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 2);
    CHECK_EQ(info.n_reorders, 2);
    close_gpu();
}

/* A residual that is an output as well, read by a product: in both types, both layouts. */
static void a_value_may_be_read_in_every_type(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t a = conv("a", input("x", "B 3 5 5"), weights("4 3 3 3"), POST_RELU);
    uint32_t b = conv("b", a, weights("4 4 3 3"), 0);
    g->nodes[1].post[g->nodes[1].n_post++] = (struct post){.kind = POST_ADD, .value = a};
    uint32_t flat = op(OP_Flatten, "axis=1", 1, op(OP_Add, "", 2, a, b));
    output(named("head", OP_Gemm, "", 3, flat, weights("100 7"), weights("7")));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 7, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 4);
    CHECK_EQ(info.n_reorders, 2); /* in, and to rows for the product, whose result is FP32 */
    close_gpu();
}

/* All that lies between the convolutions of a detector, with channels last: the only conversions
 * are at the ends. */
static void what_lies_between_convolutions_keeps_16_bits_and_their_layout(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t a = conv("a", input("x", "B 3 5 5"), weights("4 3 3 3"), POST_RELU);
    uint32_t pool = op(OP_MaxPool, "kernel_shape=3,3 pads=1,1,1,1 strides=1,1", 1, a);
    uint32_t gate = op(OP_Sigmoid, "", 1, op(OP_GlobalAveragePool, "", 1, pool));
    uint32_t scaled = op(OP_Mul, "", 2, gate, pool);
    uint32_t slope = op(OP_PRelu, "", 2, scaled, weights("4 1 1"));
    uint32_t both = op(OP_Concat, "axis=1", 2, slope, a);
    uint32_t norm = op(OP_BatchNormalization, "", 5, both, weights("8"), weights("8"), weights("8"),
                       weights("8"));
    output(named("b", OP_Conv, "pads=1,1,1,1", 3, norm, weights("4 8 3 3"), weights("4")));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 4 * 25, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 9);
    CHECK_EQ(info.n_reorders, 2);
    CHECK(error_in(PRECISION_BF16, ROWS * 4 * 25, &info) < 5e-2);
    close_gpu();
}

/* A transformer's block: rows all the way, and both products of two activations. */
static void a_block_of_attention_is_converted_at_its_ends_only(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t h =
        op(OP_LayerNormalization, "axis=-1", 3, input("x", "B 3 5 5"), weights("5"), weights("5"));
    uint32_t q = op(OP_MatMul, "", 2, h, weights("5 5"));
    uint32_t k = op(OP_Transpose, "perm=0,1,3,2", 1, op(OP_MatMul, "", 2, h, weights("5 5")));
    uint32_t p = op(OP_Softmax, "axis=-1", 1, op(OP_MatMul, "", 2, q, k));
    uint32_t sum = op(OP_Add, "", 2, op(OP_MatMul, "", 2, p, h), h);
    output(op(OP_MatMul, "", 2, op(OP_Gelu, "", 1, sum), weights("5 5")));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 75, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 10);
    CHECK_EQ(info.n_reorders, 1); /* the last product writes FP32 */
    close_gpu();
}

/* Scores and boxes want all their bits, and Exp is computed in FP32 anyway. */
static void what_no_product_reads_any_more_is_computed_in_fp32(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t y = op(OP_MatMul, "", 2, input("x", "B 75"), weights("75 8"));
    output(op(OP_Softmax, "axis=-1", 1, op(OP_Add, "", 2, y, weights("8"))));
    bind_graph();
    CHECK(error_in(PRECISION_BF16, ROWS * 8, &info) < 5e-2);
    CHECK_EQ(info.n_asked, 1);
    CHECK_EQ(info.n_reorders, 1);
    close_gpu();
}

static void a_network_without_products_is_16_bits_to_its_end(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t y = op(OP_Relu, "", 1, input("x", "B 3 5 5"));
    output(op(OP_AveragePool, "kernel_shape=5,5", 1, op(OP_Exp, "", 1, op(OP_Neg, "", 1, y))));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 3, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 2); /* what Exp leaves in FP32 is not rounded for a mean */
    CHECK_EQ(info.n_reorders, 2);
    close_gpu();
}

/* FP16 has no -1e9: a row that is all masked is as even as in FP32, not NaN. */
static void a_mask_too_large_for_fp16_masks(void)
{
    struct exe_info info;

    open_gpu();
    uint32_t in = input("x", "B 75");
    uint32_t mask = op(OP_Sub, "", 2, op(OP_Exp, "", 1, in), scalar(1e9f));
    uint32_t p = op(OP_Softmax, "axis=-1", 1,
                    op(OP_Add, "", 2, op(OP_MatMul, "", 2, in, weights("75 75")), mask));
    output(op(OP_MatMul, "", 2, p, weights("75 8")));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 8, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 4);
    close_gpu();
}

/* The host counts what is not zero of a product that is not rounded for it. */
static void what_the_host_reads_is_fp32(void)
{
    const float in[] = {0, 1, -1, 0, 0, 2};
    const void *ptr[] = {in};
    struct io_part whole = {.rows = 1, .in = ptr};
    struct tensor out[MAX_IO];
    struct exe_info info;

    open_gpu();
    uint32_t y = op(OP_MatMul, "", 2, op(OP_Relu, "", 1, input("x", "2 3")), weights("3 2"));
    output(op(OP_NonZero, "", 1, op(OP_Relu, "", 1, y)));
    bind_graph();
    CHECK_EQ(compile_in(PRECISION_FP16, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    be->exe_info(exe, &info);
    CHECK_EQ(info.n_asked, 2);
    CHECK_EQ(info.n_reorders, 1);
    CHECK_EQ(done_of(slot, part, 0, info.n_segments, &(struct io){.n_parts = 1, .part = &whole}).rc,
             0);
    be->outputs(slot, out);
    CHECK_EQ(out[0].dims[1], 4);
    close_model();
}

static void weights_take_half_the_memory_and_do_not_mix(void)
{
    struct exe_info fp32, half;
    struct exe *a, *b;

    open_gpu();
    output(named("only", OP_MatMul, "", 2, input("x", "B 75"), weights("75 64")));
    bind_graph();
    CHECK_EQ(compile_in(PRECISION_FP32, &a), 0);
    CHECK_EQ(compile_in(PRECISION_BF16, &b), 0);
    be->exe_info(a, &fp32);
    be->exe_info(b, &half);
    CHECK_EQ(fp32.weights_bytes, 75 * 64 * 4);
    CHECK_EQ(half.weights_bytes, 75 * 64 * 2);
    be->release(a);
    be->release(b);
    CHECK(error_in(PRECISION_BF16, ROWS * 64, &half) < 2e-2);
    close_gpu();
}

static void a_weight_too_large_for_fp16_leaves_its_node_in_fp32(void)
{
    static const float big[] = {1, 2, 70000};
    const int64_t dims[] = {3, 1};
    struct exe_info info;

    open_gpu();
    output(named("big", OP_MatMul, "", 2, input("x", "B 3"), constant_of(DT_FP32, 2, dims, big)));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS, &info) == 0);
    CHECK_EQ(info.n_asked, 0);
    CHECK(error_in(PRECISION_BF16, ROWS, &info) > 0);
    CHECK_EQ(info.n_asked, 1);
    close_gpu();
}

static void what_the_library_refuses_stays_in_fp32(void)
{
    struct exe_info info;

    open_fake();
    fake->library_refuses = 1;
    open_gpu();
    output(conv("a", input("x", "B 3 5 5"), weights("4 3 3 3"), POST_RELU));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 4 * 25, &info) == 0);
    CHECK_EQ(info.n_asked, 0);
    CHECK_EQ(info.n_plain, 1);
    close_gpu();
}

static void it_is_refused_by_name_where_it_cannot_be_had(void)
{
    struct compile_args args = {
        .model = "test", .precision = PRECISION_FP16, .batch_invariant = true};
    struct exe *made;

    open_gpu();
    output(named("a", OP_MatMul, "", 2, input("x", "B 3"), weights("3 4")));
    bind_graph();
    args.bound = bound;
    CHECK_EQ(be->compile(part, &args, &made, &err), -ENOTSUP);
    CHECK_STR(err.msg, "precision 'fp16': what makes no difference by the batch is in fp32");
    close_gpu();
}

static void without_libraries_it_is_refused_by_name(void)
{
    struct exe *made;

    open_fake();
    fake->library_cuda = 14000;
    open_gpu();
    output(named("a", OP_MatMul, "", 2, input("x", "B 3"), weights("3 4")));
    bind_graph();
    CHECK_EQ(compile_in(PRECISION_BF16, &made), -ENOTSUP);
    CHECK_STR(err.msg, "precision 'bf16': there is neither cuBLASLt nor cuDNN");
    close_gpu();
}

int main(void)
{
    ALONE(numbers_are_rounded_to_the_nearest_and_then_even);
    ALONE(what_is_too_large_for_fp16_is_infinite_and_nan_stays);
    ALONE(a_chain_is_converted_at_its_ends_only);
    ALONE(an_activation_that_is_not_fused_keeps_16_bits_between_convolutions);
    ALONE(a_value_may_be_read_in_every_type);
    ALONE(what_lies_between_convolutions_keeps_16_bits_and_their_layout);
    ALONE(a_block_of_attention_is_converted_at_its_ends_only);
    ALONE(what_no_product_reads_any_more_is_computed_in_fp32);
    ALONE(a_network_without_products_is_16_bits_to_its_end);
    ALONE(a_mask_too_large_for_fp16_masks);
    ALONE(what_the_host_reads_is_fp32);
    ALONE(weights_take_half_the_memory_and_do_not_mix);
    ALONE(a_weight_too_large_for_fp16_leaves_its_node_in_fp32);
    ALONE(what_the_library_refuses_stays_in_fp32);
    ALONE(it_is_refused_by_name_where_it_cannot_be_had);
    ALONE(without_libraries_it_is_refused_by_name);
    return check_end();
}
