/* Precisions: what the pass for int8 makes of quantised models, and what the CPU backend keeps in
 * bf16 and in bytes.  What each operator computes is test/ops' business. */
#include "../graph_build.h"
#include <lib/backend/cpu/cpu.h>

#define CHANNELS 32
#define SIDE 6

static const struct backend *be = &backend_cpu;
static struct device *dev;
static struct part *part;
static struct err err;

static void open_device(void)
{
    struct backend_config cfg = {0};
    struct granules set = {{0}};
    uint32_t units = 0;

    CHECK_EQ(be->dev_open(&cfg, 0, &dev, &err), 0);
    granules_add(&set, 0);
    CHECK_EQ(be->part_open(dev, &set, &part, &units, &err), 0);
}

static void close_device(void)
{
    be->part_close(part);
    be->dev_close(dev);
}

static float made_up(uint32_t i)
{
    return (float)((i * 2654435761u) >> 16 & 255) / 128 - 1;
}

static struct exe *compiled(const struct bound *b, enum precision precision)
{
    struct compile_args args = {.model = "test", .bound = b, .precision = precision};
    struct exe *x = NULL;

    if (be->compile(part, &args, &x, &err) < 0)
        printf("# %s\n", err.msg);
    assert(x);
    return x;
}

static void run(struct exe *x, uint32_t rows, const void *in, void *out)
{
    struct io_part p = {.rows = rows, .in = &in, .out = &out};
    struct io io = {.n_parts = 1, .part = &p};
    struct done done = {.rc = -1};
    struct slot *s = NULL;
    ticket t;

    CHECK_EQ(be->slot_open(x, &s, &err), 0);
    CHECK_EQ(be->submit(s, 0, 0, x->n_segments, &io, &t), 0);
    CHECK_EQ(be->wait(part, 0, &done, 1), 1);
    CHECK_EQ(done.rc, 0);
    be->slot_close(s);
}

static struct bound *bound_at(int64_t batch, struct arena *arena)
{
    struct shape_key key = {.n = g->n_syms, .dim = {batch}};
    struct bound *b = NULL;

    CHECK_EQ(graph_bind(g, &key, arena, &b, &err), 0);
    return b;
}

/* ---- bf16 */

static uint32_t filter(int64_t side)
{
    int64_t dims[] = {CHANNELS, CHANNELS, side, side};
    uint32_t n = (uint32_t)(CHANNELS * CHANNELS * side * side);
    float *w = calloc(n, sizeof(*w));

    for (uint32_t i = 0; w && i < n; i++)
        w[i] = made_up(i + (uint32_t)side) / (float)(4 * side);
    uint32_t v = constant_of(DT_FP32, 4, dims, w);
    free(w);
    return v;
}

/* mean(relu(conv(conv(x)) + conv(x))) */
static void residual_block(void)
{
    start(17);
    uint32_t x = input("x", "B 32 6 6");
    uint32_t one = op(OP_Conv, "pads=1,1,1,1", 2, x, filter(3));
    uint32_t two = op(OP_Conv, "", 2, one, filter(1));
    g->nodes[1].n_post = 2;
    g->nodes[1].post[0] = (struct post){.kind = POST_ADD, .value = one};
    g->nodes[1].post[1] = (struct post){.kind = POST_RELU};
    output(op(OP_GlobalAveragePool, "", 1, two));
    g->batch_sym = 0;
    CHECK_EQ(graph_infer(g, &err), 0);
}

static bool lacks_bf16(void)
{
    if (!dev->dn.bf16)
        printf("# not run: this CPU has no bf16\n");
    return !dev->dn.bf16;
}

static void a_chain_in_bf16_has_one_reorder_at_each_end(void)
{
    struct exe_info info;
    struct arena arena;

    open_device();
    residual_block();
    arena_init(&arena);
    if (!lacks_bf16()) {
        struct exe *x = compiled(bound_at(2, &arena), PRECISION_BF16);
        be->exe_info(x, &info);
        CHECK_EQ(info.n_asked, 2);
        CHECK_EQ(info.n_reorders, 2);
        be->release(x);
    }
    arena_done(&arena);
    close_device();
}

/* Each of three roundings in a row is off by 2^-9 of what it rounds at most, and what they round
 * is no larger than the sums of the magnitudes: about 32 times what is left of them.  Their errors
 * have no common sign, so a tenth of the bound is enough. */
static void bf16_is_near_fp32_and_a_row_does_not_depend_on_its_companions(void)
{
    static float x[3 * CHANNELS * SIDE * SIDE], y[3 * CHANNELS], z[3 * CHANNELS], w[3 * CHANNELS];
    struct arena arena;

    open_device();
    residual_block();
    arena_init(&arena);
    for (uint32_t i = 0; i < ARRAY_SIZE(x); i++)
        x[i] = made_up(i + 7);
    if (!lacks_bf16()) {
        struct exe *whole = compiled(bound_at(3, &arena), PRECISION_FP32);
        struct exe *half = compiled(bound_at(3, &arena), PRECISION_BF16);
        double off = 0, top = 0;
        run(whole, 3, x, y);
        run(half, 3, x, z);
        memset(x, 0,
               2 * CHANNELS * SIDE * SIDE * sizeof(*x)); /* the last one has other companions */
        run(half, 3, x, w);
        for (uint32_t i = 0; i < ARRAY_SIZE(y); i++) {
            off = fmax(off, fabs((double)y[i] - (double)z[i]));
            top = fmax(top, fabs((double)y[i]));
        }
        CHECK(off <= 3.2 * 3 / 512 * top);
        CHECK(off > 0); /* it is another precision */
        CHECK(memcmp(z + 2 * CHANNELS, w + 2 * CHANNELS, CHANNELS * sizeof(*w)) == 0);
        be->release(whole);
        be->release(half);
    }
    arena_done(&arena);
    close_device();
}

static void weights_of_two_precisions_never_mix(void)
{
    struct arena arena;

    open_device();
    residual_block();
    arena_init(&arena);
    if (!lacks_bf16()) {
        struct exe *whole = compiled(bound_at(1, &arena), PRECISION_FP32);
        size_t bytes = dev->weights_bytes;
        struct exe *half = compiled(bound_at(1, &arena), PRECISION_BF16);
        CHECK_EQ(dev->weights_bytes, bytes + 10 * CHANNELS * CHANNELS * 2); /* 3x3 and 1x1 */
        be->release(whole);
        CHECK_EQ(dev->weights_bytes, 10 * CHANNELS * CHANNELS * 2);
        be->release(half);
    }
    arena_done(&arena);
    close_device();
}

static void without_instructions_for_bf16_it_is_refused_by_name(void)
{
    struct arena arena;
    struct exe *x = NULL;

    open_device();
    dev->dn.bf16 = false;
    residual_block();
    arena_init(&arena);
    struct compile_args args = {
        .model = "test", .bound = bound_at(1, &arena), .precision = PRECISION_BF16};
    CHECK_EQ(be->compile(part, &args, &x, &err), -ENOTSUP);
    CHECK_HAS(err.msg, "'bf16'");
    CHECK_HAS(err.msg, "AVX512_BF16");
    arena_done(&arena);
    close_device();
}

static void names_of_precisions_are_read_back(void)
{
    enum precision p;

    for (enum precision k = PRECISION_FP32; k <= PRECISION_FP16; k++) {
        CHECK_EQ(precision_of(precision_name(k), &p), 0);
        CHECK_EQ(p, k);
    }
    CHECK_EQ(precision_of("fp8", &p), -EINVAL);
}

/* ---- int8: the pass */

static uint32_t byte(int8_t zero)
{
    return constant_of(DT_INT8, 0, NULL, &zero);
}

static uint32_t bytes_of(uint32_t rank, const int64_t *dims)
{
    int64_t n = 1;

    for (uint32_t i = 0; i < rank; i++)
        n *= dims[i];
    int8_t *w = calloc((size_t)n, 1);
    for (int64_t i = 0; w && i < n; i++)
        w[i] = (int8_t)(made_up((uint32_t)i) * 100);
    uint32_t v = constant_of(DT_INT8, rank, dims, w);
    free(w);
    return v;
}

static uint32_t quantised(uint32_t v, float scale, int8_t zero)
{
    return op(OP_QuantizeLinear, "", 3, v, scalar(scale), byte(zero));
}

static uint32_t numbers(uint32_t v, float scale, int8_t zero)
{
    return op(OP_DequantizeLinear, "", 3, v, scalar(scale), byte(zero));
}

/* Weights of a convolution with a scale for each of its channels. */
static uint32_t filter_of_bytes(int64_t side)
{
    int64_t dims[] = {CHANNELS, CHANNELS, side, side}, n = CHANNELS;
    float scale[CHANNELS];
    int8_t zero[CHANNELS] = {0};

    for (uint32_t i = 0; i < CHANNELS; i++)
        scale[i] = 0.001f * (float)(i + 1);
    return op(OP_DequantizeLinear, "axis=0", 3, bytes_of(4, dims),
              constant_of(DT_FP32, 1, &n, scale), constant_of(DT_INT8, 1, &n, zero));
}

static uint32_t count(enum op_id op)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == op;
    return n;
}

static void passes(void)
{
    struct model_report report = {0};

    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_quantise(g, &report, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
}

/* Two convolutions, one with Relu, a residual, a pool, and a product, all between bytes. */
static void network(int8_t relu_zero)
{
    int64_t dims[] = {10, CHANNELS};
    start(17);
    uint32_t x = numbers(quantised(input("x", "B 32 6 6"), 0.01f, 3), 0.01f, 3);
    uint32_t one = op(OP_Relu, "", 1, op(OP_Conv, "pads=1,1,1,1", 2, x, filter_of_bytes(3)));
    one = numbers(quantised(one, 0.05f, relu_zero), 0.05f, relu_zero);
    uint32_t two = op(OP_Conv, "", 2, one, filter_of_bytes(1));
    two = numbers(quantised(two, 0.1f, 5), 0.1f, 5);
    uint32_t sum = op(OP_Relu, "", 1, op(OP_Add, "", 2, two, one));
    sum = numbers(quantised(sum, 0.06f, -128), 0.06f, -128);
    uint32_t pool = op(OP_MaxPool, "kernel_shape=6,6", 1, sum);
    pool = numbers(quantised(pool, 0.06f, -128), 0.06f, -128);
    uint32_t flat = op(OP_Flatten, "", 1, pool);
    flat = numbers(quantised(flat, 0.06f, -128), 0.06f, -128);
    uint32_t y = op(OP_Gemm, "transB=1", 2, flat, numbers(bytes_of(2, dims), 0.01f, 0));
    output(numbers(quantised(y, 0.2f, -3), 0.2f, -3));
}

static void quantised_operators_become_operators_on_bytes(void)
{
    network(-128);
    passes();
    CHECK_EQ(count(OP_QLinearConv), 2);
    CHECK_EQ(count(OP_QLinearAdd), 1);
    CHECK_EQ(count(OP_QLinearMatMul), 1);
    CHECK_EQ(count(OP_QuantizeLinear), 1); /* of the input */
    CHECK_EQ(count(OP_DequantizeLinear), 1);
    CHECK_EQ(count(OP_Relu), 0);
    CHECK_EQ(count(OP_Conv) + count(OP_Gemm) + count(OP_Add), 0);
}

/* Bytes from -128 on hold negative numbers when zero is not the least of them. */
static void an_activation_that_the_range_does_not_do_stays_with_its_operator(void)
{
    network(0);
    passes();
    CHECK_EQ(count(OP_Conv), 1);
    CHECK_EQ(count(OP_QLinearConv), 1);
    CHECK_EQ(g->nodes[0].op, OP_QuantizeLinear);
}

static void a_pool_between_different_scales_stays_as_its_nodes_say(void)
{
    start(17);
    uint32_t x = numbers(input_of("x", DT_INT8, "B 4 6 6"), 0.01f, 3);
    output(quantised(op(OP_MaxPool, "kernel_shape=6,6", 1, x), 0.02f, 3));
    passes();
    CHECK_EQ(count(OP_QuantizeLinear), 1);
    CHECK_EQ(count(OP_DequantizeLinear), 1);
}

static void a_bias_becomes_whole_numbers_in_units_of_both_scales(void)
{
    int64_t n = 3, dims[] = {2, 3};
    const int32_t q[] = {7, -2000000, 40000};
    float scale = 0.5f * 0.25f;

    start(17);
    uint32_t x = numbers(input_of("x", DT_INT8, "B 2"), 0.5f, 3);
    uint32_t w = numbers(bytes_of(2, dims), 0.25f, 0);
    uint32_t bias = op(OP_DequantizeLinear, "", 2, constant_of(DT_INT32, 1, &n, q), scalar(scale));
    output(quantised(op(OP_Gemm, "", 3, x, w, bias), 0.1f, 0));
    passes();
    CHECK_EQ(g->n_nodes, 1);
    CHECK_EQ(g->nodes[0].op, OP_QLinearMatMul);
    CHECK_EQ(g->nodes[0].n_in, 9);
    CHECK(memcmp(g->values[g->nodes[0].in[8]].constant->t.data, q, sizeof(q)) == 0);
}

static void a_model_that_is_not_quantised_is_refused_for_int8(void)
{
    struct model_report report = {0};

    start(17);
    output(op(OP_Relu, "", 1, input("x", "B 4")));
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_quantise(g, &report, &err), -ENOTSUP);
    CHECK_HAS(err.msg, "'int8'");
    CHECK_HAS(err.msg, "QuantizeLinear");
}

/* ---- int8: the backend */

/* The network as its nodes say, against bytes: a product's sum is the same, and each rounding may
 * fall to the other side once: here none of them moves the result by more than one quantum. */
static void bytes_give_what_the_nodes_say_within_a_quantum(void)
{
    struct shape_key key = {.n = 1, .dim = {3}};
    struct arena arena, ref;
    struct exe_info info;
    static float y[3 * 10], alone[10];

    arena_init(&ref);
    network(-128);
    CHECK_EQ(graph_infer(g, &err), 0);
    struct bound *said = run_graph(g, &key, 3, 0, &ref);
    const float *x = said->value[g->in[0]].data, *want = said->value[g->out[0]].data;
    struct graph *before = TAKE(g);

    open_device();
    network(-128);
    passes();
    g->batch_sym = 0;
    arena_init(&arena);
    struct exe *exe = compiled(bound_at(3, &arena), PRECISION_INT8);
    be->exe_info(exe, &info);
    CHECK_EQ(info.n_asked, 4);
    run(exe, 3, x, y);
    for (uint32_t i = 0; i < ARRAY_SIZE(y); i++)
        CHECK(fabsf(y[i] - want[i]) <= 0.2001f);
    struct exe *one = compiled(bound_at(1, &arena), PRECISION_INT8);
    run(one, 1, x + CHANNELS * SIDE * SIDE, alone);
    CHECK(memcmp(alone, y + 10, sizeof(alone)) == 0);
    be->release(one);
    be->release(exe);
    close_device();
    arena_done(&arena);
    arena_done(&ref);
    graph_free(before);
}

static void between_operators_on_bytes_nothing_is_reordered(void)
{
    struct arena arena;
    struct exe_info info;

    open_device();
    network(-128);
    passes();
    g->batch_sym = 0;
    arena_init(&arena);
    if (dev->dn.vnni) {
        struct exe *exe = compiled(bound_at(2, &arena), PRECISION_INT8);
        be->exe_info(exe, &info);
        CHECK_EQ(info.n_reorders, 1); /* the input: channels last; after the pool it is rows */
        be->release(exe);
    }
    close_device();
    arena_done(&arena);
}

static void without_vnni_our_own_kernels_sum_bytes_exactly(void)
{
    struct arena arena;
    struct exe_info info;

    open_device();
    dev->dn.vnni = false;
    network(-128);
    passes();
    g->batch_sym = 0;
    arena_init(&arena);
    struct exe *exe = compiled(bound_at(2, &arena), PRECISION_INT8);
    be->exe_info(exe, &info);
    CHECK_EQ(info.n_asked, 4);
    CHECK_EQ(info.n_reorders, 0);
    CHECK_EQ(info.n_plain, 0);
    be->release(exe);
    close_device();
    arena_done(&arena);
}

int main(void)
{
    RUN(names_of_precisions_are_read_back);
    RUN(a_chain_in_bf16_has_one_reorder_at_each_end);
    RUN(bf16_is_near_fp32_and_a_row_does_not_depend_on_its_companions);
    RUN(weights_of_two_precisions_never_mix);
    RUN(without_instructions_for_bf16_it_is_refused_by_name);
    RUN(quantised_operators_become_operators_on_bytes);
    RUN(an_activation_that_the_range_does_not_do_stays_with_its_operator);
    RUN(a_pool_between_different_scales_stays_as_its_nodes_say);
    RUN(a_bias_becomes_whole_numbers_in_units_of_both_scales);
    RUN(a_model_that_is_not_quantised_is_refused_for_int8);
    RUN(bytes_give_what_the_nodes_say_within_a_quantum);
    RUN(between_operators_on_bytes_nothing_is_reordered);
    RUN(without_vnni_our_own_kernels_sum_bytes_exactly);
    graph_free(g);
    return check_end();
}
