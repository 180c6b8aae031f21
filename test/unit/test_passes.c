/* The passes: what each does to a small graph, that results stay the same (both graphs are run
 * with the reference kernels), and where a pass must leave things alone. */
#include "../graph_build.h"

static struct model_report report;
static struct graph *before;

/* Build twice, optimise one, and compare what both compute for three rows. */
static void optimise(void (*build)(void), double tolerance)
{
    struct err err = {0};
    struct arena a;

    build();
    graph_free(before);
    before = TAKE(g);
    build();
    report = (struct model_report){0};
    CHECK_EQ(graph_infer(before, &err), 0);
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
    CHECK_STR(err.msg, "");
    struct shape_key key = {.n = g->n_syms, .dim = {3, 4, 5}};
    arena_init(&a);
    struct bound *x = run_graph(before, &key, 3, 0, &a), *y = run_graph(g, &key, 3, 0, &a);
    for (uint32_t i = 0; i < g->n_out && x && y; i++) {
        double d = difference(&x->value[before->out[i]], &y->value[g->out[i]]);
        if (!(d <= tolerance))
            printf("# output %u differs by %g\n", i, d);
        CHECK(d <= tolerance);
        CHECK_STR(g->values[g->out[i]].name, before->values[before->out[i]].name);
    }
    arena_done(&a);
}

static void check_ops(int n, ...)
{
    va_list ap;

    CHECK_EQ(g->n_nodes, n);
    CHECK_EQ(report.nodes_left, n);
    va_start(ap, n);
    for (int i = 0; i < n; i++) {
        const char *name = op_name(va_arg(ap, enum op_id));
        if (i < (int)g->n_nodes)
            CHECK_STR(op_name(g->nodes[i].op), name);
    }
    va_end(ap);
}

static void check_posts(uint32_t node, int n, ...)
{
    va_list ap;

    CHECK(node < g->n_nodes);
    CHECK_EQ(g->nodes[node].n_post, n);
    va_start(ap, n);
    for (int i = 0; i < n; i++)
        CHECK_EQ(g->nodes[node].post[i].kind, va_arg(ap, enum post_kind));
    va_end(ap);
}

static uint32_t conv(uint32_t x, const char *w)
{
    return op(OP_Conv, "pads=1,1,1,1 kernel_shape=3,3", 2, x, weights(w));
}
static uint32_t norm(uint32_t x, const char *n)
{
    return op(OP_BatchNormalization, "epsilon=0.01", 5, x, weights(n), weights(n), weights(n),
              weights(n));
}

/* ---- batch norms */

static void build_conv_norm_relu(void)
{
    start(13);
    output(op(OP_Relu, "", 1, norm(conv(input("x", "B 3 5 5"), "4 3 3 3"), "4")));
}
static void conv_norm_relu_become_one_conv(void)
{
    optimise(build_conv_norm_relu, 1e-5);
    check_ops(1, OP_Conv);
    check_posts(0, 1, POST_RELU);
    CHECK_EQ(report.folded_norms, 1);
    CHECK_EQ(report.fused_posts, 1);
    CHECK_EQ(report.nodes_read, 3);
    CHECK_EQ(g->nodes[0].n_in, 3);
    CHECK_EQ(report.const_bytes, (4 * 27 + 4) * 4);
}

static void build_conv_bias_norm(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    output(norm(op(OP_Conv, "group=2", 3, x, weights("6 2 3 3"), weights("6")), "6"));
}
static void a_conv_with_bias_and_groups_takes_the_norm(void)
{
    optimise(build_conv_bias_norm, 1e-5);
    check_ops(1, OP_Conv);
}

static void build_gemm_norm(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    x = norm(op(OP_Gemm, "transB=1", 3, x, weights("6 4"), weights("6")), "6");
    output(norm(op(OP_Gemm, "", 2, x, weights("6 5")), "5"));
}
static void gemm_takes_the_norm_in_both_layouts(void)
{
    optimise(build_gemm_norm, 1e-5);
    check_ops(2, OP_Gemm, OP_Gemm);
    CHECK_EQ(report.folded_norms, 2);
}

static void build_norms_that_stay(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    uint32_t y = norm(x, "4"), z = conv(y, "4 4 3 3");
    output(norm(z, "4"));
    output(z); /* the conv's own result is wanted, too */
}
static void norms_behind_something_else_stay(void)
{
    optimise(build_norms_that_stay, 0);
    check_ops(3, OP_BatchNormalization, OP_Conv, OP_BatchNormalization);
    CHECK_EQ(report.folded_norms, 0);
}

/* ---- post steps */

static void build_joined_norm(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    output(op(OP_Relu, "", 1, norm(op(OP_Concat, "axis=1", 2, x, x), "8")));
    output(op(OP_Sigmoid, "", 1, norm(op(OP_Concat, "axis=1", 2, x, x), "8")));
}
static void a_norm_that_stays_takes_a_relu_but_no_sigmoid(void)
{
    optimise(build_joined_norm, 1e-6);
    check_ops(5, OP_Concat, OP_BatchNormalization, OP_Concat, OP_BatchNormalization, OP_Sigmoid);
    check_posts(1, 1, POST_RELU);
}

static void build_residual_block(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    uint32_t y = op(OP_Relu, "", 1, norm(conv(x, "4 4 3 3"), "4"));
    y = norm(conv(y, "4 4 3 3"), "4");
    output(op(OP_Relu, "", 1, op(OP_Add, "", 2, y, x)));
}
static void a_residual_block_becomes_two_convs(void)
{
    optimise(build_residual_block, 1e-5);
    check_ops(2, OP_Conv, OP_Conv);
    check_posts(0, 1, POST_RELU);
    check_posts(1, 2, POST_ADD, POST_RELU);
    CHECK_EQ(g->nodes[1].post[0].value, g->in[0]);
}

static void build_two_branches(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    uint32_t main = conv(x, "4 4 3 3"), side = conv(x, "4 4 3 3");
    output(op(OP_Relu, "", 1, op(OP_Add, "", 2, main, side)));
}
static void the_later_of_two_branches_takes_the_add(void)
{
    optimise(build_two_branches, 1e-5);
    check_ops(2, OP_Conv, OP_Conv);
    check_posts(0, 0);
    check_posts(1, 2, POST_ADD, POST_RELU);
    CHECK_EQ(g->nodes[1].post[0].value, g->nodes[0].out[0]);
}

static void build_late_residual(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    uint32_t main = conv(x, "4 4 3 3"), side = op(OP_Exp, "", 1, x);
    output(op(OP_Add, "", 2, main, side));
}
static void a_residual_made_later_is_added_by_its_own_node(void)
{
    optimise(build_late_residual, 0);
    check_ops(3, OP_Conv, OP_Exp, OP_Add);
}

static void build_not_a_residual(void)
{
    start(13);
    uint32_t x = input("x", "B 4"), y = input("y", "B 1");
    output(op(OP_Add, "", 2, op(OP_Gemm, "", 2, x, weights("4 4")), y)); /* broadcast */
    uint32_t z = op(OP_Gemm, "", 2, x, weights("4 4"));
    output(op(OP_Add, "", 2, z, z));
    uint32_t v = op(OP_Gemm, "", 2, x, weights("4 4"));
    output(op(OP_Relu, "", 1, v));
    output(op(OP_Exp, "", 1, v));
}
static void broadcasts_doubles_and_shared_results_are_not_fused(void)
{
    optimise(build_not_a_residual, 0);
    CHECK_EQ(report.fused_posts, 0);
    CHECK_EQ(g->n_nodes, 7);
}

static void build_activations(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    uint32_t y[7];
    for (int i = 0; i < 7; i++)
        y[i] = op(OP_Gemm, "", 2, x, weights("4 4"));
    output(op(OP_Clip, "", 3, y[0], scalar(0), scalar(6)));
    output(op(OP_Tanh, "", 1, y[1]));
    output(op(OP_Sigmoid, "", 1, y[2]));
    output(op(OP_Mul, "", 2, y[3], op(OP_Sigmoid, "", 1, y[3])));
    output(op(OP_Mul, "", 2, op(OP_HardSigmoid, "alpha=0.16666667 beta=0.5", 1, y[4]), y[4]));
    output(op(OP_Clip, "", 2, y[5], scalar(0.25f)));
    output(op(OP_Clip, "", 2, scalar(0.5f), op(OP_ReduceMax, "keepdims=0", 1, y[6])));
}
static void every_activation_is_found(void)
{
    optimise(build_activations, 1e-6);
    CHECK_EQ(g->n_nodes, 9);
    check_posts(0, 1, POST_CLIP);
    CHECK(g->nodes[0].post[0].alpha == 0 && g->nodes[0].post[0].beta == 6);
    check_posts(1, 1, POST_TANH);
    check_posts(2, 1, POST_SIGMOID);
    check_posts(3, 1, POST_SILU);
    check_posts(4, 1, POST_HARDSWISH);
    check_posts(5, 1, POST_CLIP);
    CHECK(g->nodes[5].post[0].alpha == 0.25f);
    check_posts(6, 0); /* a bound that is computed */
}

static void build_old_clip(void)
{
    start(10);
    uint32_t x = input("x", "B 4");
    output(op(OP_Clip, "min=0.0 max=1.5", 1, op(OP_Gemm, "", 3, x, weights("4 4"), weights("4"))));
}
static void bounds_of_an_old_clip_are_attributes(void)
{
    optimise(build_old_clip, 0);
    check_ops(1, OP_Gemm);
    CHECK(g->nodes[0].post[0].beta == 1.5f);
}

/* ---- biases */

static void build_biases(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    uint32_t y = op(OP_Add, "", 2, weights("3 1 1"), conv(x, "3 4 3 3"));
    output(y);
    uint32_t z = op(OP_MatMul, "", 2, x, weights("5 6"));
    output(op(OP_Add, "", 2, z, weights("6")));
    uint32_t v = op(OP_MatMul, "", 2, x, weights("5 5"));
    output(op(OP_Add, "", 2, v, weights("5 1"))); /* along another dimension */
}
static void a_constant_vector_becomes_the_bias(void)
{
    optimise(build_biases, 1e-5);
    check_ops(4, OP_Conv, OP_MatMul, OP_MatMul, OP_Add);
    CHECK_EQ(g->nodes[0].n_in, 3);
    CHECK_EQ(g->values[g->nodes[0].in[2]].rank, 1);
    CHECK_EQ(g->nodes[1].n_in, 3);
    CHECK_EQ(g->nodes[2].n_in, 2);
}

static void build_bias_that_widens(void)
{
    start(13);
    uint32_t x = input("x", "B 5");
    output(op(OP_Add, "", 2, op(OP_MatMul, "", 2, x, weights("5 1")), weights("4")));
    output(op(OP_Add, "", 2, op(OP_MatMul, "", 2, x, weights("5")), weights("1")));
}
static void a_vector_that_widens_the_result_is_no_bias(void)
{
    optimise(build_bias_that_widens, 0);
    check_ops(4, OP_MatMul, OP_Add, OP_MatMul, OP_Add);
}

/* ---- layer norm and GELU */

static uint32_t layer_norm(uint32_t x, enum op_id square, bool input_axes, uint32_t *ret_mean)
{
    uint32_t mean =
        input_axes ? op(OP_ReduceMean, "", 2, x, ints(1, -1)) : op(OP_ReduceMean, "axes=-1,", 1, x);
    uint32_t d = op(OP_Sub, "", 2, x, mean);
    uint32_t sq = op(square, "", 2, d, square == OP_Pow ? scalar(2) : d);
    uint32_t var =
        input_axes ? op(OP_ReduceMean, "", 2, sq, ints(1, 2)) : op(OP_ReduceMean, "axes=2,", 1, sq);
    uint32_t sd = op(OP_Sqrt, "", 1, op(OP_Add, "", 2, scalar(1e-3f), var));
    uint32_t y = op(OP_Mul, "", 2, weights("8"), op(OP_Div, "", 2, d, sd));
    *ret_mean = mean;
    return op(OP_Add, "", 2, y, weights("8"));
}
static void build_layer_norms(void)
{
    uint32_t mean;
    start(13);
    uint32_t x = input("x", "B S 8");
    x = layer_norm(x, OP_Pow, false, &mean);
    output(layer_norm(x, OP_Mul, false, &mean));
}
static void layer_norms_of_both_kinds_are_found(void)
{
    optimise(build_layer_norms, 1e-5);
    check_ops(2, OP_LayerNormalization, OP_LayerNormalization);
    CHECK_EQ(report.fused_norms, 2);
    CHECK_EQ(node_int(&g->nodes[0], "axis", 0), 2);
    CHECK(node_float(&g->nodes[0], "epsilon", 0) == 1e-3f);
}
static void build_new_layer_norm(void)
{
    uint32_t mean;
    start(18);
    output(layer_norm(input("x", "B S 8"), OP_Pow, true, &mean));
}
static void axes_that_are_an_input_are_read(void)
{
    optimise(build_new_layer_norm, 1e-5);
    check_ops(1, OP_LayerNormalization);
}
static void build_shared_mean(void)
{
    uint32_t mean;
    start(13);
    output(layer_norm(input("x", "B S 8"), OP_Pow, false, &mean));
    output(mean);
}
static void a_layer_norm_whose_mean_is_wanted_stays(void)
{
    optimise(build_shared_mean, 0);
    CHECK_EQ(report.fused_norms, 0);
    CHECK_EQ(g->n_nodes, 9);
}

static uint32_t one_plus_erf(uint32_t x, bool div)
{
    uint32_t s =
        div ? op(OP_Div, "", 2, x, scalar(1.41421354f)) : op(OP_Mul, "", 2, scalar(0.70710677f), x);

    return op(OP_Add, "", 2, op(OP_Erf, "", 1, s), scalar(1));
}
static void build_gelus(void)
{
    start(13);
    uint32_t x = input("x", "B 8");
    uint32_t y = op(OP_Mul, "", 2, x, one_plus_erf(x, true));
    output(op(OP_Mul, "", 2, y, scalar(0.5f)));
    output(op(OP_Mul, "", 2, op(OP_Mul, "", 2, x, scalar(0.5f)), one_plus_erf(x, false)));
    y = op(OP_Mul, "", 2, scalar(0.5f), one_plus_erf(x, true));
    output(op(OP_Mul, "", 2, x, y));
    output(op(OP_Mul, "", 2, x, op(OP_Mul, "", 2, one_plus_erf(x, true), scalar(0.25f))));
}
static void gelu_is_found_in_all_orders(void)
{
    optimise(build_gelus, 1e-6);
    CHECK_EQ(report.fused_gelus, 3); /* the last has another factor */
    CHECK_EQ(g->n_nodes, 3 + 5);
}

static uint32_t one_plus_tanh(uint32_t x, bool power)
{
    uint32_t cube =
        power ? op(OP_Pow, "", 2, x, scalar(3)) : op(OP_Mul, "", 2, op(OP_Mul, "", 2, x, x), x);
    uint32_t sum = op(OP_Add, "", 2, x, op(OP_Mul, "", 2, cube, scalar(0.044715f)));

    sum = op(OP_Mul, "", 2, scalar(0.797884583f), sum);
    return op(OP_Add, "", 2, op(OP_Tanh, "", 1, sum), scalar(1));
}
static void build_tanh_gelus(void)
{
    start(13);
    uint32_t x = input("x", "B 8");
    output(op(OP_Mul, "", 2, op(OP_Mul, "", 2, x, scalar(0.5f)), one_plus_tanh(x, true)));
    output(op(OP_Mul, "", 2, op(OP_Mul, "", 2, scalar(0.5f), x), one_plus_tanh(x, false)));
}
static void gelu_by_tanh_is_found_with_either_cube(void)
{
    optimise(build_tanh_gelus, 1e-6);
    CHECK_EQ(report.fused_gelus, 2);
    check_ops(2, OP_Gelu, OP_Gelu);
    CHECK_STR(node_str(&g->nodes[0], "approximate", "none"), "tanh");
}
static void build_another_cube(void)
{
    start(13);
    uint32_t x = input("x", "B 8"), y = input("y", "B 8");
    output(op(OP_Mul, "", 2, op(OP_Mul, "", 2, y, scalar(0.5f)), one_plus_tanh(x, true)));
}
static void a_gate_of_another_value_is_no_gelu(void)
{
    optimise(build_another_cube, 0);
    CHECK_EQ(report.fused_gelus, 0);
}

static void build_ranks(void)
{
    const int64_t ones[] = {1, 1, 1, 1};
    float half = 0.5f;
    start(13);
    uint32_t x = input("x", "B 8"), y = op(OP_Mul, "", 2, x, one_plus_erf(x, true));
    output(op(OP_Mul, "", 2, y, constant_of(DT_FP32, 4, ones, &half))); /* [1,1,B,8] */
}
static void a_factor_that_adds_dimensions_is_no_gelu(void)
{
    optimise(build_ranks, 0);
    CHECK_EQ(report.fused_gelus, 0);
}

static void build_feed_forward(void)
{
    start(13);
    uint32_t x = input("x", "B S 8");
    uint32_t y = op(OP_Add, "", 2, weights("16"), op(OP_MatMul, "", 2, x, weights("8 16")));
    y = op(OP_Mul, "", 2, op(OP_Mul, "", 2, y, one_plus_erf(y, true)), scalar(0.5f));
    y = op(OP_Add, "", 2, op(OP_MatMul, "", 2, y, weights("16 8")), weights("8"));
    output(op(OP_Add, "", 2, y, x));
}
static void a_feed_forward_becomes_two_products(void)
{
    optimise(build_feed_forward, 1e-5);
    check_ops(2, OP_MatMul, OP_MatMul);
    check_posts(0, 1, POST_GELU);
    check_posts(1, 1, POST_ADD);
}

/* As GPT-2 has it: the product's rows become a sequence again before the activation. */
static void build_reshaped_activation(void)
{
    const int64_t dims[] = {0, 2, 4}, three = 3;

    start(13);
    uint32_t x = input("x", "B 8"), shape = constant_of(DT_INT64, 1, &three, dims);
    uint32_t y = op(OP_Reshape, "", 2, op(OP_Gemm, "", 2, x, weights("8 8")), shape);
    output(op(OP_Tanh, "", 1, y));
    y = op(OP_Reshape, "", 2, op(OP_Gemm, "", 2, x, weights("8 8")), shape);
    output(op(OP_Tanh, "", 1, y));
    output(y); /* read twice: before the activation, too */
    y = op(OP_Reshape, "", 2, op(OP_Conv, "", 2, input("z", "B 8 1 1"), weights("8 8 1 1")), shape);
    output(op(OP_Tanh, "", 1, y)); /* not behind a convolution, whose channels lie otherwise */
}
static void a_product_takes_an_activation_behind_a_reshape(void)
{
    optimise(build_reshaped_activation, 1e-5);
    check_ops(8, OP_Gemm, OP_Reshape, OP_Gemm, OP_Reshape, OP_Tanh, OP_Conv, OP_Reshape, OP_Tanh);
    check_posts(0, 1, POST_TANH);
    check_posts(2, 0);
    check_posts(5, 0);
}

/* ---- padding */

static uint32_t whole(int n, ...)
{
    int64_t v[16], dim = n;
    va_list ap;

    va_start(ap, n);
    for (int i = 0; i < n; i++)
        v[i] = va_arg(ap, int);
    va_end(ap);
    return constant_of(DT_INT64, 1, &dim, v);
}
static void build_padded(void)
{
    start(13);
    uint32_t x = input("x", "B 3 5 5"), pads = whole(8, 0, 0, 1, 2, 0, 0, 3, 0);
    output(op(OP_Conv, "pads=1,1,1,1", 2, op(OP_Pad, "", 2, x, pads), weights("4 3 3 3")));
    output(op(OP_AveragePool, "kernel_shape=3,3", 1, op(OP_Pad, "", 2, x, pads)));
}
static void padding_becomes_the_convolutions_and_the_pools_own(void)
{
    uint32_t n;

    optimise(build_padded, 1e-6);
    check_ops(2, OP_Conv, OP_AveragePool);
    const int64_t *pads = node_ints(&g->nodes[0], "pads", &n);
    CHECK_EQ(n, 4);
    CHECK_EQ(pads[0], 2);
    CHECK_EQ(pads[1], 3);
    CHECK_EQ(pads[2], 4);
    CHECK_EQ(pads[3], 1);
    CHECK_EQ(node_int(&g->nodes[1], "count_include_pad", 0), 1);
}
static void build_no_padding(void)
{
    start(13);
    uint32_t x = input("x", "B 3 5 5");
    output(op(OP_Relu, "", 1, op(OP_Pad, "mode=reflect", 2, x, whole(8, 0, 0, 0, 0, 0, 0, 0, 0))));
}
static void a_pad_of_nothing_goes(void)
{
    optimise(build_no_padding, 0);
    check_ops(1, OP_Relu);
}
/* Before opset 11 pads are an attribute, which a scalar's Pad does without. */
static void build_scalar_padding(void)
{
    start(2);
    output(op(OP_Relu, "", 1, op(OP_Pad, "", 1, input("x", ""))));
}
static void a_pad_of_a_scalar_has_no_pads_and_goes(void)
{
    optimise(build_scalar_padding, 0);
    check_ops(1, OP_Relu);
}
static void build_other_padding(void)
{
    start(13);
    uint32_t x = input("x", "B 3 5 5"), w = weights("4 3 3 3"), one = scalar(1);
    uint32_t pads = whole(8, 0, 0, 1, 1, 0, 0, 1, 1), more = whole(8, 0, 1, 0, 0, 0, 0, 0, 0);
    output(op(OP_Conv, "", 2, op(OP_Pad, "", 3, x, pads, one), w));
    output(op(OP_Conv, "", 2, op(OP_Pad, "mode=reflect", 2, x, pads), w));
    output(op(OP_MaxPool, "kernel_shape=3,3", 1, op(OP_Pad, "", 2, x, pads)));
    output(op(OP_AveragePool, "kernel_shape=3,3 pads=1,1,1,1", 1, op(OP_Pad, "", 2, x, pads)));
    output(op(OP_Conv, "", 2, op(OP_Pad, "", 2, x, more), weights("4 4 3 3")));
}
static void padding_with_something_or_before_a_maximum_stays(void)
{
    optimise(build_other_padding, 1e-6);
    CHECK_EQ(g->n_nodes, 10);
}

/* ---- constants, identities, dead code */

static void build_constants(void)
{
    start(13);
    uint32_t x = input("x", "B 2 3");
    uint32_t w = op(OP_Transpose, "perm=1,0", 1, weights("4 3"));
    w = op(OP_Mul, "", 2, w, op(OP_Sqrt, "", 1, scalar(4)));
    output(op(OP_MatMul, "", 2, x, w));
    uint32_t parts = op_outs("", OP_Split, "axis=0", 2, 1, (uint32_t[]){weights("2 3")});
    output(op(OP_Add, "", 2, x, parts));
    output(op(OP_Sub, "", 2, x, parts + 1));
}
static void nodes_of_constants_are_evaluated_once(void)
{
    optimise(build_constants, 0);
    check_ops(3, OP_MatMul, OP_Add, OP_Sub);
    CHECK_EQ(report.folded_constants, 4);
}

static void build_small_expand(void)
{
    start(13);
    uint32_t x = input("x", "B 3");
    output(op(OP_Add, "", 2, x, op(OP_Expand, "", 2, scalar(2), ints(1, 3))));
}
static void a_constant_is_not_blown_up(void)
{
    optimise(build_small_expand, 0);
    check_ops(1, OP_Add);
    start(13);
    uint32_t x = input("x", "B 300 300");
    output(op(OP_Add, "", 2, x, op(OP_Expand, "", 2, scalar(2), ints(2, 300, 300))));
    struct err err = {0};
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
    CHECK_EQ(g->n_nodes, 2);
}

static void build_static_shape(void)
{
    start(13);
    uint32_t y = op(OP_Relu, "", 1, input("x", "3 2 3"));
    uint32_t n = op(OP_Gather, "axis=0", 2, op(OP_Shape, "", 1, y), ints(1, 0));
    uint32_t in[] = {n, ints(1, -1)};
    output(op(OP_Reshape, "", 2, y, op_outs("", OP_Concat, "axis=0", 1, 2, in)));
}
static void the_shape_of_a_fixed_value_is_a_constant(void)
{
    optimise(build_static_shape, 0);
    check_ops(2, OP_Relu, OP_Reshape);
    CHECK_EQ(report.folded_constants, 3);
}

static void build_identities(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    uint32_t y = op(OP_Identity, "", 1, op(OP_Identity, "", 1, x));
    y = op(OP_Exp, "", 1, op(OP_Dropout, "", 1, y));
    output(op(OP_Identity, "", 1, y));
    output(op(OP_Relu, "", 1, y));
    output(op(OP_Identity, "", 1, x)); /* input to output: something must copy it */
    output(op(OP_Cast, "to=1", 1, op(OP_Neg, "", 1, x)));
}
static void identities_go_and_outputs_keep_their_names(void)
{
    optimise(build_identities, 0);
    check_ops(4, OP_Exp, OP_Relu, OP_Identity, OP_Neg);
}

static void build_dead(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    (void)op(OP_Exp, "", 1, op(OP_Neg, "", 1, x));
    output(op(OP_Relu, "", 1, x));
}
static void what_nobody_reads_is_dropped(void)
{
    optimise(build_dead, 0);
    check_ops(1, OP_Relu);
    CHECK_EQ(g->values[g->out[0]].producer, 0);
}

/* ---- cut-points */

static void build_tower(void)
{
    start(13);
    uint32_t x = input("x", "B 16 32 32");
    for (int i = 0; i < 64; i++)
        x = conv(x, "16 16 3 3");
    output(x);
}
static void a_tower_is_cut_into_even_segments(void)
{
    struct err err = {0};

    build_tower();
    CHECK_EQ(graph_infer(g, &err), 0);
    graph_analyse_batch(g);
    CHECK_STR(g->why_single, "");
    CHECK_EQ(graph_cut(g, &err), 0);
    CHECK_EQ(g->n_segments, 16);
    CHECK_EQ(g->cut[0], 0);
    CHECK_EQ(g->cut[16], 64);
    for (uint32_t s = 0; s < 16; s++)
        CHECK_EQ(g->cut[s + 1] - g->cut[s], 4);
}

static void a_cut_avoids_the_middle_of_a_residual_block(void)
{
    struct err err = {0};

    start(13);
    uint32_t x = input("x", "B 16 32 32");
    for (int i = 0; i < 20; i++) {
        uint32_t y = op(OP_Relu, "", 1, conv(conv(conv(x, "16 16 3 3"), "16 16 3 3"), "16 16 3 3"));
        x = op(OP_Relu, "", 1, op(OP_Add, "", 2, y, x));
    }
    output(x);
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
    CHECK_EQ(graph_cut(g, &err), 0);
    CHECK(g->n_segments > 4);
    uint32_t per_block = g->n_nodes / 20, at_seam = 0;
    for (uint32_t s = 1; s < g->n_segments; s++)
        at_seam += g->cut[s] % per_block == 0;
    CHECK(at_seam >= (g->n_segments - 1) / 2);
}

static void a_tiny_graph_is_one_segment(void)
{
    struct err err = {0};

    build_dead();
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_cut(g, &err), 0);
    CHECK_EQ(g->n_segments, 1);
    CHECK_EQ(g->cut[0], 0);
    CHECK_EQ(g->cut[1], g->n_nodes);
}

/* ---- If */

/* If(flag) { -x } else { x x }, the values captured. */
static uint32_t build_if(uint32_t flag, uint32_t x)
{
    uint32_t y = op(OP_If, "", 1, flag), in;

    start_body();
    in = plain_value("x");
    output(op(OP_Neg, "", 1, in));
    end_body(y, "then_branch", 1, &in, &x);
    start_body();
    in = plain_value("x");
    output(op(OP_Mul, "", 2, in, in));
    end_body(y, "else_branch", 1, &in, &x);
    return y;
}

/* Whether a dimension is 3 is known when the model is opened. */
static void a_known_condition_chooses_its_branch(void)
{
    struct err err = {0};

    for (int want = 3; want < 5; want++) {
        start(17);
        uint32_t x = input("x", "B 3"),
                 n = op(OP_Gather, "", 2, op(OP_Shape, "", 1, x), int_scalar(1));
        output(op(OP_Relu, "", 1, build_if(op(OP_Equal, "", 2, n, int_scalar(want)), x)));
        CHECK_EQ(graph_infer(g, &err), 0);
        CHECK_EQ(g->values[g->out[0]].rank, -1); /* late */
        CHECK_EQ(graph_optimise(g, &report, &err), 0);
        CHECK_STR(err.msg, "");
        CHECK_EQ(g->nodes[0].op, want == 3 ? OP_Neg : OP_Mul);
        CHECK_EQ(g->n_nodes, 2);
        CHECK_EQ(g->values[g->out[0]].rank, 2);
        graph_analyse_batch(g);
        CHECK_STR(g->why_single, "");
    }
}

static void a_branch_inside_a_branch_is_chosen_too(void)
{
    static const uint8_t yes = 1;
    struct err err = {0};

    start(17);
    uint32_t x = input("x", "B 3"), flag = constant_of(DT_BOOL, 0, NULL, &yes);
    uint32_t y = op(OP_If, "", 1, flag), in[2];
    start_body();
    struct graph *around = outer_graph;
    in[0] = plain_value("x");
    in[1] = plain_value("flag");
    uint32_t z = build_if(in[1], in[0]);
    output(z);
    outer_graph = around;
    end_body(y, "then_branch", 2, in, (uint32_t[]){x, flag});
    output(y);
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
    CHECK_EQ(g->n_nodes, 1);
    CHECK_EQ(g->nodes[0].op, OP_Neg);
    CHECK_EQ(g->nodes[0].in[0], x);
}

static void an_open_condition_stays(void)
{
    struct err err = {0};

    start(17);
    output(build_if(input_of("flag", DT_BOOL, ""), input("x", "B 3")));
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
    CHECK_EQ(g->n_nodes, 1);
    CHECK_EQ(g->nodes[0].op, OP_If);
    graph_analyse_batch(g);
    CHECK_EQ(graph_settle_late(g, &err), 0);
    CHECK_EQ(graph_cut(g, &err), 0);
    CHECK_EQ(g->n_segments, 1);
}

/* ---- equations */
static void products_by_equation(void)
{
    start(13);
    uint32_t x = input("x", "B 4 6"), w = weights("6 5");
    output(op(OP_Einsum, "equation=bij,jk->bik", 2, x, w));
    output(op(OP_Einsum, "equation=...ij,...jk->...ik", 2, x, input("y", "B 6 4")));
    output(op(OP_Einsum, "equation=bij,jk", 2, x, w));
}

static void an_equation_that_is_a_product_becomes_one(void)
{
    optimise(products_by_equation, 1e-6);
    check_ops(3, OP_MatMul, OP_MatMul, OP_MatMul);
}

static void other_equations(void)
{
    start(13);
    uint32_t x = input("x", "B 4 6"), y = input("y", "B 4 6");
    output(op(OP_Einsum, "equation=bij,bkj->bik", 2, x, y)); /* the second is turned */
    output(op(OP_Einsum, "equation=bij,bij->bij", 2, x, y)); /* nothing is summed */
    output(op(OP_Einsum, "equation=bij,jk->bki", 2, x, weights("6 5")));
    output(op(OP_Einsum, "equation=bij,jk->bik", 2, x, weights("1 5"))); /* j is broadcast */
}

static void other_equations_stay(void)
{
    optimise(other_equations, 0);
    check_ops(4, OP_Einsum, OP_Einsum, OP_Einsum, OP_Einsum);
}

static void a_bias_at_an_old_axis(void)
{
    start(6);
    uint32_t x = op(OP_MatMul, "", 2, input("x", "4 6"), weights("6 4"));
    output(op(OP_Add, "broadcast=1 axis=0", 2, x, weights("4")));
}

static void a_bias_that_lies_on_another_axis_is_not_taken(void)
{
    optimise(a_bias_at_an_old_axis, 0);
    check_ops(2, OP_MatMul, OP_Add);
}

int main(void)
{
    RUN(conv_norm_relu_become_one_conv);
    RUN(a_conv_with_bias_and_groups_takes_the_norm);
    RUN(gemm_takes_the_norm_in_both_layouts);
    RUN(norms_behind_something_else_stay);
    RUN(a_norm_that_stays_takes_a_relu_but_no_sigmoid);
    RUN(a_residual_block_becomes_two_convs);
    RUN(the_later_of_two_branches_takes_the_add);
    RUN(a_residual_made_later_is_added_by_its_own_node);
    RUN(broadcasts_doubles_and_shared_results_are_not_fused);
    RUN(every_activation_is_found);
    RUN(bounds_of_an_old_clip_are_attributes);
    RUN(a_constant_vector_becomes_the_bias);
    RUN(a_vector_that_widens_the_result_is_no_bias);
    RUN(layer_norms_of_both_kinds_are_found);
    RUN(axes_that_are_an_input_are_read);
    RUN(a_layer_norm_whose_mean_is_wanted_stays);
    RUN(gelu_is_found_in_all_orders);
    RUN(gelu_by_tanh_is_found_with_either_cube);
    RUN(a_gate_of_another_value_is_no_gelu);
    RUN(a_factor_that_adds_dimensions_is_no_gelu);
    RUN(a_feed_forward_becomes_two_products);
    RUN(a_product_takes_an_activation_behind_a_reshape);
    RUN(padding_becomes_the_convolutions_and_the_pools_own);
    RUN(a_pad_of_nothing_goes);
    RUN(a_pad_of_a_scalar_has_no_pads_and_goes);
    RUN(padding_with_something_or_before_a_maximum_stays);
    RUN(nodes_of_constants_are_evaluated_once);
    RUN(a_constant_is_not_blown_up);
    RUN(the_shape_of_a_fixed_value_is_a_constant);
    RUN(identities_go_and_outputs_keep_their_names);
    RUN(what_nobody_reads_is_dropped);
    RUN(a_tower_is_cut_into_even_segments);
    RUN(a_cut_avoids_the_middle_of_a_residual_block);
    RUN(a_tiny_graph_is_one_segment);
    RUN(a_known_condition_chooses_its_branch);
    RUN(a_branch_inside_a_branch_is_chosen_too);
    RUN(an_open_condition_stays);
    RUN(an_equation_that_is_a_product_becomes_one);
    RUN(other_equations_stay);
    RUN(a_bias_that_lies_on_another_axis_is_not_taken);
    graph_free(before);
    graph_free(g);
    return check_end();
}
