/* What a graph must compute and move.  The numbers of single nodes are worked out beside them;
 * those of whole networks are the published ones. */
#include "../graph_build.h"

#include <gpulet/roofline.h>
#include <sys/mman.h>

static struct bound *b;
static struct arena arena;
static struct work node[2048];

/* The graph at hand, for so many rows. */
static struct work counted(int64_t batch, enum precision precision)
{
    struct shape_key key = {.n = g->n_syms, .dim = {batch}};
    struct work sum = {0};
    struct err err = {0};

    arena_done(&arena);
    arena_init(&arena);
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_bind(g, &key, &arena, &b, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK(g->n_nodes <= ARRAY_SIZE(node));
    CHECK_EQ(graph_work(b, precision, node, &sum, &err), 0);
    return sum;
}

/* y [2,6,3,3]: 5 and a pad at each end, less 2, by twos.  Each of its 108 numbers is a sum over
 * 2 channels of its group by 3 x 3. */
static void a_convolution_has_groups_strides_and_pads(void)
{
    start(17);
    uint32_t x = input("x", "B 4 5 5");
    output(op(OP_Conv, "group=2 kernel_shape=3,3 strides=2,2 pads=1,1,1,1", 3, x,
              weights("6 2 3 3"), weights("6")));
    struct work w = counted(2, PRECISION_FP32);

    CHECK_EQ(w.matrix_flops, 108 * 2 * (2 * 9));
    CHECK_EQ(w.other_flops, 108);
    CHECK_EQ(w.weight_bytes, 4 * (6 * 2 * 9 + 6));
    CHECK_EQ(w.moved_bytes, 4 * (2 * 4 * 5 * 5 + 108));
    CHECK_EQ(graph_border_bytes(b, PRECISION_FP32), 4 * (2 * 4 * 5 * 5 + 108));
}

static void a_product_has_two_operations_for_each_multiply_add(void)
{
    start(17);
    uint32_t x = input("x", "B 8");
    output(op(OP_Gemm, "", 3, x, weights("8 5"), weights("5")));
    struct work w = counted(4, PRECISION_FP32);

    CHECK_EQ(w.matrix_flops, 2 * 4 * 5 * 8);
    CHECK_EQ(w.other_flops, 4 * 5);
    CHECK_EQ(w.weight_bytes, 4 * (8 * 5 + 5));
    CHECK_EQ(w.moved_bytes, 4 * (4 * 8 + 4 * 5));
}

static void rows_take_more_operations_and_the_same_weights(void)
{
    start(17);
    uint32_t x = input("x", "B 8");
    output(op(OP_MatMul, "", 2, x, weights("8 5")));
    struct work one = counted(1, PRECISION_FP32), many = counted(32, PRECISION_FP32);

    CHECK_EQ(many.matrix_flops, 32 * one.matrix_flops);
    CHECK_EQ(many.moved_bytes, 32 * one.moved_bytes);
    CHECK_EQ(many.weight_bytes, one.weight_bytes);
}

/* Ids stay 8 bytes. */
static void half_precision_halves_what_is_fp32(void)
{
    start(17);
    uint32_t ids = input_of("ids", DT_INT64, "B 3");
    uint32_t rows = op(OP_Gather, "axis=0", 2, weights("100 8"), ids);
    output(op(OP_MatMul, "", 2, rows, weights("8 8")));

    CHECK_EQ(counted(2, PRECISION_FP32).moved_bytes, 2 * 3 * 8 + 4 * 3 * (2 * 3 * 8));
    CHECK_EQ(counted(2, PRECISION_FP16).moved_bytes, 2 * 3 * 8 + 2 * 3 * (2 * 3 * 8));
    CHECK_EQ(counted(2, PRECISION_BF16).weight_bytes, 2 * (2 * 3 * 8 + 8 * 8));
    CHECK_EQ(graph_border_bytes(b, PRECISION_FP16), 2 * 3 * 8 + 2 * (2 * 3 * 8));
}

/* Of a table of 100 rows, the six that are asked for. */
static void a_gather_reads_the_rows_that_it_takes(void)
{
    start(17);
    uint32_t ids = input_of("ids", DT_INT64, "B 3");
    output(op(OP_Gather, "axis=0", 2, weights("100 8"), ids));
    struct work w = counted(2, PRECISION_FP32);

    CHECK_EQ(w.weight_bytes, 4 * (6 * 8));
    CHECK_EQ(w.moved_bytes, 6 * 8 + 4 * (6 * 8));
    CHECK_EQ(w.matrix_flops + w.other_flops, 0);
}

/* q and k of [2,3,4] and [2,5,4] a row, v and y of [2,5,6] and [2,3,6]: 2 heads x 3 queries x 5
 * keys are sums of 4, and 2 x 3 x 6 results are sums over 5. */
static void attention_meets_keys_then_values(void)
{
    const double products = 2 * (2 * 3 * 5) * 4 + 2 * (2 * 3 * 6) * 5;

    start(23);
    uint32_t q = input("q", "B 2 3 4"), k = input("k", "B 2 5 4"), v = input("v", "B 2 5 6");
    output(op(OP_Attention, "", 3, q, k, v));
    struct work w = counted(7, PRECISION_FP32);
    CHECK_EQ(w.matrix_flops, 7 * products);
    CHECK_EQ(w.moved_bytes, 4 * 7 * (2 * 3 * 4 + 2 * 5 * 4 + 2 * 5 * 6 + 2 * 3 * 6));
    CHECK_EQ(w.weight_bytes, 0);

    start(17);
    q = input("q", "B 2 3 4"), k = input("k", "B 2 4 5"), v = input("v", "B 2 5 6");
    output(op(OP_MatMul, "", 2, op(OP_Softmax, "axis=-1", 1, op(OP_MatMul, "", 2, q, k)), v));
    w = counted(7, PRECISION_FP32);
    CHECK_EQ(w.matrix_flops, 7 * products);
    /* the scores are written, read, written and read again */
    CHECK_EQ(w.moved_bytes,
             4 * 7 * (2 * 3 * 4 + 2 * 4 * 5 + 4 * (2 * 3 * 5) + 2 * 5 * 6 + 2 * 3 * 6));
}

/* One that was there before, and five of its own. */
static void attention_meets_the_keys_of_before(void)
{
    start(23);
    uint32_t q = input("q", "B 2 3 4"), k = input("k", "B 2 5 4"), v = input("v", "B 2 5 4");
    uint32_t in[] = {q, k, v, VALUE_NONE, input("pk", "B 2 1 4"), input("pv", "B 2 1 4")};
    output(op_outs("", OP_Attention, "", 3, 6, in));

    CHECK_EQ(counted(1, PRECISION_FP32).matrix_flops, 2 * 2 * (2 * 3 * 4) * 6);
}

static void elementwise_nodes_read_and_write_once(void)
{
    start(17);
    uint32_t x = input("x", "B 10"), y = input("y", "B 10");
    uint32_t sum = op(OP_Add, "", 2, x, y);
    output(op(OP_Relu, "", 1, op(OP_Reshape, "", 2, sum, ints(2, 0, -1))));
    struct work w = counted(3, PRECISION_FP32);

    CHECK_EQ(w.matrix_flops, 0);
    CHECK_EQ(w.other_flops, 30 + 30);
    CHECK_EQ(w.moved_bytes, 4 * (3 * 30 + 2 * 30)); /* and the Reshape nothing */
    CHECK_EQ(w.weight_bytes, 0);
}

static void what_is_fused_behind_a_node_reads_the_residual_only(void)
{
    struct err err = {0};

    start(17);
    uint32_t x = input("x", "B 8");
    uint32_t sum = op(OP_Add, "", 2, op(OP_MatMul, "", 2, x, weights("8 8")), x);
    output(op(OP_Relu, "", 1, sum));
    CHECK_EQ(counted(2, PRECISION_FP32).moved_bytes, 4 * 16 * (2 + 3 + 2));
    CHECK_EQ(graph_optimise(g, &(struct model_report){0}, &err), 0);
    struct work w = counted(2, PRECISION_FP32);
    CHECK_EQ(w.moved_bytes, 4 * 16 * 3);
    CHECK_EQ(w.matrix_flops, 2 * 16 * 8);
    CHECK_EQ(w.other_flops, 2 * 16);
}

static void a_constant_counts_with_the_first_node_that_reads_it(void)
{
    start(17);
    uint32_t c = weights("8 8");
    output(op(OP_MatMul, "", 2, op(OP_MatMul, "", 2, input("x", "B 8"), c), c));
    struct work w = counted(1, PRECISION_FP32);

    CHECK_EQ(w.weight_bytes, 4 * 64);
    CHECK_EQ(node[0].weight_bytes, 4 * 64);
    CHECK_EQ(node[1].weight_bytes, 0);
    CHECK_EQ(w.matrix_flops, node[0].matrix_flops + node[1].matrix_flops);
}

static void what_is_known_before_the_run_counts_nothing(void)
{
    start(17);
    uint32_t x = input("x", "B 6");
    output(op(OP_Reshape, "", 2, x, op(OP_Shape, "", 1, x)));
    struct work w = counted(2, PRECISION_FP32);

    CHECK_EQ(w.other_flops + w.weight_bytes + w.moved_bytes, 0);
}

/* 1e6 operations at 1e9 a second are 1000 us, 3e6 bytes at 2e9 are 1500 us. */
static void the_floor_is_what_takes_longer(void)
{
    struct rates r = {.matrix_flops_per_s = 1e9, .bytes_per_s = 2e9};
    struct work n[2] = {{.matrix_flops = 1e6, .weight_bytes = 1e6, .moved_bytes = 2e6},
                        {.matrix_flops = 2e6, .other_flops = 1e12}};

    CHECK_EQ(work_floor_us(&n[0], &r), 1500);
    CHECK_EQ(work_floor_us(&n[1], &r), 2000);
    CHECK_EQ(nodes_floor_us(n, 2, &r), 3500);
}

/* ---- whole networks, as far as they have products.  The published numbers are multiply-adds of
 * convolutions and products without batch norms, biases and activations, which is what is counted
 * as matrix operations: where they are given in full they are met to the last digit; those given
 * with three or four digits are met within half of the last one. */

/* A constant of which nobody reads the numbers. */
static uint32_t shell(const char *dims)
{
    static void *zeros;
    struct dim d[MAX_RANK];
    int64_t dim[MAX_RANK];
    struct tensor t = {0};
    uint32_t v = 0;
    int32_t rank = parse_dims(dims, d);

    for (int32_t i = 0; i < rank; i++)
        dim[i] = d[i].scale;
    if (!zeros)
        zeros = mmap(NULL, (size_t)1 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
    assert(zeros != MAP_FAILED && tensor_shape(&t, DT_FP32, (uint32_t)rank, dim) == 0 &&
           t.bytes <= (size_t)1 << 30);
    t.data = zeros;
    assert(graph_add_const(g, dims, &t, CONST_ARENA, &v) == 0);
    return v;
}

static uint32_t conv(uint32_t x, int in, int out, int kernel, int stride, int group)
{
    char attrs[120], dims[60];
    int pad = kernel / 2;

    (void)snprintf(dims, sizeof(dims), "%d %d %d %d", out, in / group, kernel, kernel);
    (void)snprintf(attrs, sizeof(attrs),
                   "group=%d kernel_shape=%d,%d strides=%d,%d pads=%d,%d,%d,%d", group, kernel,
                   kernel, stride, stride, pad, pad, pad, pad);
    return op(OP_Relu, "", 1, op(OP_Conv, attrs, 2, x, shell(dims)));
}

static uint32_t product(uint32_t x, int in, int out)
{
    char dims[40];

    (void)snprintf(dims, sizeof(dims), "%d %d", in, out);
    return op(OP_MatMul, "", 2, x, shell(dims));
}

static void classes(uint32_t x, int width)
{
    output(product(op(OP_Flatten, "", 1, op(OP_GlobalAveragePool, "", 1, x)), width, 1000));
}

static double gmacs(const struct work *w)
{
    return w->matrix_flops / 2e9;
}
static bool about(double x, double published, double half_of_last)
{
    return fabs(x - published) <= half_of_last;
}

static void resnet50(void)
{
    static const int blocks[] = {3, 4, 6, 3};

    start(17);
    uint32_t x = conv(input("image", "B 3 224 224"), 3, 64, 7, 2, 1);
    x = op(OP_MaxPool, "kernel_shape=3,3 strides=2,2 pads=1,1,1,1", 1, x);
    for (int s = 0, in = 64, width = 64; s < 4; s++, width *= 2)
        for (int k = 0; k < blocks[s]; k++, in = 4 * width) {
            int stride = s > 0 && k == 0 ? 2 : 1;
            uint32_t aside = k == 0 ? conv(x, in, 4 * width, 1, stride, 1) : x;
            x = conv(conv(x, in, width, 1, 1, 1), width, width, 3, stride, 1);
            x = op(OP_Add, "", 2, conv(x, width, 4 * width, 1, 1, 1), aside);
        }
    classes(x, 2048);
}

static void mobilenet_v2(void)
{
    static const struct {
        int expand, out, n, stride;
    } rows[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    int in = 32;

    start(17);
    uint32_t x = conv(input("image", "B 3 224 224"), 3, in, 3, 2, 1);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (int k = 0; k < rows[i].n; k++, in = rows[i].out) {
            int wide = in * rows[i].expand;
            x = rows[i].expand > 1 ? conv(x, in, wide, 1, 1, 1) : x;
            x = conv(x, wide, wide, 3, k == 0 ? rows[i].stride : 1, wide);
            x = conv(x, wide, rows[i].out, 1, 1, 1);
        }
    classes(conv(x, 320, 1280, 1, 1, 1), 1280);
}

static void vgg19(void)
{
    static const int n[] = {2, 2, 4, 4, 4}, widths[] = {64, 128, 256, 512, 512};
    int in = 3;

    start(17);
    uint32_t x = input("image", "B 3 224 224");
    for (size_t s = 0; s < ARRAY_SIZE(n); s++) {
        for (int k = 0; k < n[s]; k++, in = widths[s])
            x = conv(x, in, widths[s], 3, 1, 1);
        x = op(OP_MaxPool, "kernel_shape=2,2 strides=2,2", 1, x);
    }
    x = product(op(OP_Flatten, "", 1, x), 512 * 7 * 7, 4096);
    output(product(product(x, 4096, 4096), 4096, 1000));
}

/* A layer of 768 in 12 heads. */
static uint32_t layer(uint32_t x, int tokens)
{
    uint32_t shape = ints(4, 0, tokens, 12, 64), part[3];

    for (int i = 0; i < 3; i++)
        part[i] = op(OP_Transpose, i == 1 ? "perm=0,2,3,1" : "perm=0,2,1,3", 1,
                     op(OP_Reshape, "", 2, product(x, 768, 768), shape));
    uint32_t y = op(OP_Softmax, "axis=-1", 1, op(OP_MatMul, "", 2, part[0], part[1]));
    y = op(OP_Transpose, "perm=0,2,1,3", 1, op(OP_MatMul, "", 2, y, part[2]));
    y = product(op(OP_Reshape, "", 2, y, ints(3, 0, tokens, 768)), 768, 768);
    return product(product(y, 768, 3072), 3072, 768);
}

static uint32_t layers(int words, int tokens)
{
    char table[40], ids[20];

    start(17);
    (void)snprintf(table, sizeof(table), "%d 768", words);
    (void)snprintf(ids, sizeof(ids), "B %d", tokens);
    uint32_t x = op(OP_Gather, "axis=0", 2, shell(table), input_of("input_ids", DT_INT64, ids));
    for (int i = 0; i < 12; i++)
        x = layer(x, tokens);
    return x;
}

/* Its 25.56 million weights without the batch norms and biases: 25.50. */
static void resnet50_has_4_089_184_256_multiply_adds(void)
{
    resnet50();
    struct work w = counted(1, PRECISION_FP16);
    CHECK_EQ(w.matrix_flops, 2 * INT64_C(4089184256));
    CHECK(about(w.weight_bytes / 2 / 1e6, 25.50, 0.005));
    w = counted(8, PRECISION_FP16);
    CHECK_EQ(w.matrix_flops, 8 * 2 * INT64_C(4089184256));
}

static void mobilenet_v2_has_300_774_272_multiply_adds(void)
{
    mobilenet_v2();
    struct work w = counted(1, PRECISION_FP16);
    CHECK_EQ(w.matrix_flops, 2 * INT64_C(300774272));
}

static void vgg19_has_19_63_billion_multiply_adds(void)
{
    vgg19();
    struct work w = counted(1, PRECISION_FP16);
    CHECK(about(gmacs(&w), 19.63, 0.005));
    CHECK(about(w.weight_bytes / 2 / 1e6, 143.65, 0.005));
}

/* A layer of n tokens: 12 x 768 x 768 for each, and 2 x 768 for each pair of them. */
static void bert_base_of_128_tokens_has_11_17_billion_multiply_adds(void)
{
    output(layers(30522, 128));
    struct work w = counted(1, PRECISION_FP16);
    CHECK_EQ(w.matrix_flops / 2, 12 * (128 * INT64_C(12) * 768 * 768 + 2 * 768 * 128 * 128));
    CHECK(about(gmacs(&w), 11.17, 0.005));
}

/* And 768 x 50257 for each, for what comes next. */
static void gpt2_small_of_64_tokens_has_7_98_billion_multiply_adds(void)
{
    output(product(layers(50257, 64), 768, 50257));
    struct work w = counted(1, PRECISION_FP16);
    CHECK_EQ(w.matrix_flops / 2,
             12 * (64 * INT64_C(12) * 768 * 768 + 2 * 768 * 64 * 64) + 64 * INT64_C(768) * 50257);
    CHECK(about(gmacs(&w), 7.98, 0.005));
}

int main(void)
{
    arena_init(&arena);
    RUN(a_convolution_has_groups_strides_and_pads);
    RUN(a_product_has_two_operations_for_each_multiply_add);
    RUN(rows_take_more_operations_and_the_same_weights);
    RUN(half_precision_halves_what_is_fp32);
    RUN(a_gather_reads_the_rows_that_it_takes);
    RUN(attention_meets_keys_then_values);
    RUN(attention_meets_the_keys_of_before);
    RUN(elementwise_nodes_read_and_write_once);
    RUN(what_is_fused_behind_a_node_reads_the_residual_only);
    RUN(a_constant_counts_with_the_first_node_that_reads_it);
    RUN(what_is_known_before_the_run_counts_nothing);
    RUN(the_floor_is_what_takes_longer);
    RUN(resnet50_has_4_089_184_256_multiply_adds);
    RUN(mobilenet_v2_has_300_774_272_multiply_adds);
    RUN(vgg19_has_19_63_billion_multiply_adds);
    RUN(bert_base_of_128_tokens_has_11_17_billion_multiply_adds);
    RUN(gpt2_small_of_64_tokens_has_7_98_billion_multiply_adds);
    arena_done(&arena);
    graph_free(g);
    return check_end();
}
