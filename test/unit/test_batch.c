/* Batch analysis: models whose rows stay separate, and models that only look like it.
 *
 * batches() also runs what was proven: three rows together must be the three rows alone, bit for
 * bit (the reference kernels sum each row in the same order). */
#include "../graph_build.h"

static void analyse(void)
{
    struct err err = {0};

    if (graph_infer(g, &err) < 0) {
        printf("# infer: %s\n", err.msg);
        check_failures++;
    }
    graph_analyse_batch(g);
}

static void check_rows(int64_t other)
{
    struct shape_key key = {.n = g->n_syms};
    struct arena a;

    arena_init(&a);
    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = other;
    key.dim[g->batch_sym] = 3;
    struct bound *all = run_graph(g, &key, 3, 0, &a);
    key.dim[g->batch_sym] = 1;
    for (int64_t r = 0; r < 3 && all; r++) {
        struct bound *one = run_graph(g, &key, 1, r, &a);
        for (uint32_t i = 0; i < g->n_out && one; i++) {
            const struct tensor *t = &all->value[g->out[i]], *s = &one->value[g->out[i]];
            CHECK_EQ(t->bytes, 3 * s->bytes);
            CHECK(t->bytes > 0 &&
                  memcmp((char *)t->data + (size_t)r * s->bytes, s->data, s->bytes) == 0);
        }
    }
    arena_done(&a);
}

static void batches(void)
{
    analyse();
    CHECK_STR(g->why_single, "");
    CHECK(g->batch_sym >= 0);
    if (g->batch_sym >= 0)
        check_rows(4);
}

static void is_single(const char *why)
{
    analyse();
    CHECK_EQ(g->batch_sym, -1);
    CHECK_HAS(g->why_single, why);
}

/* ---- what batches */

static void a_row_of_layers_batches(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    x = op(OP_MatMul, "", 2, x, weights("4 6"));
    x = op(OP_Add, "", 2, x, weights("6"));
    x = op(OP_Relu, "", 1, x);
    output(op(OP_Gemm, "transB=1", 3, x, weights("3 6"), weights("3")));
    output(op(OP_Softmax, "axis=-1", 1, x));
    batches();
}

static void an_image_network_batches(void)
{
    start(13);
    uint32_t x = input("x", "B 3 8 8");
    x = op(OP_Conv, "kernel_shape=3,3 pads=1,1,1,1", 2, x, weights("4 3 3 3"));
    x = op(OP_BatchNormalization, "", 5, x, weights("4"), weights("4"), weights("4"), weights("4"));
    x = op(OP_MaxPool, "kernel_shape=2,2 strides=2,2", 1, x);
    uint32_t y = op(OP_GlobalAveragePool, "", 1, x);
    output(op(OP_Flatten, "axis=1", 1, y));
    output(op(OP_ReduceMean, "axes=2,3 keepdims=0", 1, x));
    output(op(OP_Pad, "", 2, x, ints(8, 0, 0, 1, 1, 0, 0, 1, 1)));
    batches();
}

static void a_layer_norm_batches(void)
{
    start(17);
    uint32_t x = input("x", "B S 8");
    uint32_t mean = op(OP_ReduceMean, "axes=-1,", 1, x), d = op(OP_Sub, "", 2, x, mean);
    uint32_t var = op(OP_ReduceMean, "axes=-1,", 1, op(OP_Pow, "", 2, d, scalar(2)));
    output(op(OP_Div, "", 2, d, op(OP_Sqrt, "", 1, op(OP_Add, "", 2, var, scalar(1e-5f)))));
    output(op(OP_LayerNormalization, "axis=-1", 3, x, weights("8"), weights("8")));
    batches();
}

static uint32_t dim_of(uint32_t x, int64_t i)
{
    return op(OP_Gather, "axis=0", 2, op(OP_Shape, "", 1, x), int_scalar(i));
}
static uint32_t vec(uint32_t scalar_value)
{
    return op(OP_Unsqueeze, "", 2, scalar_value, ints(1, 0));
}

/* [B,S,8] -> [B,2,S,4], the target made as exporters make it. */
static uint32_t heads(uint32_t x, const char *perm)
{
    uint32_t in[] = {vec(dim_of(x, 0)), vec(dim_of(x, 1)), ints(1, 2), ints(1, 4)};
    uint32_t shape = op_outs("", OP_Concat, "axis=0", 1, 4, in);

    return op(OP_Transpose, perm, 1, op(OP_Reshape, "", 2, x, shape));
}

static void attention_as_exported_batches(void)
{
    start(13);
    uint32_t x = input("x", "B S 8");
    uint32_t q = heads(op(OP_MatMul, "", 2, x, weights("8 8")), "perm=0,2,1,3");
    uint32_t k = heads(op(OP_MatMul, "", 2, x, weights("8 8")), "perm=0,2,3,1");
    uint32_t v = heads(op(OP_MatMul, "", 2, x, weights("8 8")), "perm=0,2,1,3");
    uint32_t p = op(OP_Softmax, "axis=-1", 1, op(OP_MatMul, "", 2, q, k));
    uint32_t y = op(OP_Transpose, "perm=0,2,1,3", 1, op(OP_MatMul, "", 2, p, v));
    uint32_t in[] = {vec(dim_of(x, 0)), vec(dim_of(x, 1)), ints(1, 8)};
    output(op(OP_Reshape, "", 2, y, op_outs("", OP_Concat, "axis=0", 1, 3, in)));
    batches();
}

static void rows_may_be_merged_and_split_again(void)
{
    start(13);
    uint32_t x = input("x", "B S 4");
    uint32_t flat = op(OP_Reshape, "", 2, x, ints(2, -1, 4)); /* [B*S,4] */
    flat = op(OP_Gemm, "", 2, flat, weights("4 4"));
    uint32_t in[] = {vec(dim_of(x, 0)), vec(dim_of(x, 1)), ints(1, 4)};
    output(op(OP_Reshape, "", 2, flat, op_outs("", OP_Concat, "axis=0", 1, 3, in)));
    batches();
}

static void an_embedding_with_positions_batches(void)
{
    start(13);
    uint32_t ids = input_of("ids", DT_INT64, "B S");
    uint32_t words = op(OP_Gather, "axis=0", 2, weights("5 8"), ids);
    uint32_t pos = op(OP_Slice, "", 5, weights("1 512 8"), ints(1, 0), vec(dim_of(ids, 1)),
                      ints(1, 1), ints(1, 1));
    uint32_t cls = op(OP_Slice, "", 4, words, ints(1, 0), ints(1, 1), ints(1, 1));
    output(op(OP_Add, "", 2, words, pos));
    output(op(OP_Squeeze, "", 2, cls, ints(1, 1)));
    batches();
}

static void a_class_token_expanded_to_the_batch_batches(void)
{
    start(13);
    uint32_t x = input("x", "B 5 8");
    uint32_t in[] = {vec(dim_of(x, 0)), ints(1, 1), ints(1, 8)};
    uint32_t token =
        op(OP_Expand, "", 2, weights("1 1 8"), op_outs("", OP_Concat, "axis=0", 1, 3, in));
    output(op(OP_Concat, "axis=1", 2, token, x));
    batches();
}

static void a_mask_made_from_the_shape_batches(void)
{
    start(13);
    uint32_t x = input("x", "B S");
    uint32_t ones = op(OP_ConstantOfShape, "", 1, op(OP_Shape, "", 1, x));
    output(op(OP_Sub, "", 2, x, ones));
    batches();
}

static void a_batch_axis_moved_and_moved_back_batches(void)
{
    start(13);
    uint32_t x = op(OP_Transpose, "perm=1,0,2", 1, input("x", "B 3 4")); /* [3,B,4] */
    x = op(OP_MatMul, "", 2, x, weights("3 4 4"));
    x = op(OP_ReduceSum, "keepdims=0", 2, x, ints(1, 0)); /* over the 3 */
    output(x);
    batches();
}

static void a_residual_behind_a_product_batches(void)
{
    start(13);
    uint32_t x = input("x", "B 4"), y = op(OP_MatMul, "", 2, x, weights("4 4"));
    output(y);
    struct node *n = &g->nodes[g->values[y].producer];
    n->post[n->n_post++] = (struct post){.kind = POST_ADD, .value = x};
    batches();
}

/* ---- what does not, and says why */

static void a_mean_over_the_batch_is_single(void)
{
    start(13);
    output(named("mean", OP_ReduceMean, "axes=0, keepdims=1", 1, input("x", "B 4")));
    is_single("node 'mean' (ReduceMean) reduces over the batch");
}

static void centering_by_the_batch_mean_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(op(OP_Sub, "", 2, x, named("mean", OP_ReduceMean, "axes=-2,", 1, x)));
    is_single("node 'mean' (ReduceMean) reduces over the batch");
}

static void a_reduction_over_everything_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(op(OP_Div, "", 2, x, named("sum", OP_ReduceSum, "", 1, x)));
    is_single("node 'sum' (ReduceSum) reduces over the batch");
}

static void softmax_over_the_batch_is_single(void)
{
    start(13);
    output(named("soft", OP_Softmax, "axis=0", 1, input("x", "B 4")));
    is_single("node 'soft' (Softmax) normalises over the batch");
}

static void an_old_softmax_flattens_from_its_axis_on(void)
{
    start(11); /* axis 1 of [4,B,2] stands for axes 1 and 2 */
    uint32_t x = op(OP_Transpose, "perm=1,0,2", 1, input("x", "B 4 2"));
    output(op(OP_Transpose, "perm=1,0,2", 1, named("soft", OP_Softmax, "", 1, x)));
    is_single("node 'soft' (Softmax) normalises over the batch");
}

static void a_gram_matrix_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(named("gram", OP_MatMul, "", 2, op(OP_Transpose, "perm=1,0", 1, x), x));
    is_single("node 'gram' (MatMul) multiplies rows of the batch with each other");
}

static void similarity_of_all_pairs_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(named("pairs", OP_MatMul, "", 2, x, op(OP_Transpose, "perm=1,0", 1, x)));
    is_single("node 'pairs' (MatMul) multiplies rows of the batch with each other");
}

static void swapping_dimensions_by_reshape_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    uint32_t y = named("swap", OP_Reshape, "", 2, x, ints(2, 4, -1));
    output(op(OP_Transpose, "perm=1,0", 1, y)); /* [B,4] again, but the rows are mixed */
    is_single("node 'swap' (Reshape) mixes rows of the batch");
}

static void swapping_batch_and_sequence_by_reshape_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B S 4");
    uint32_t in[] = {vec(dim_of(x, 1)), vec(dim_of(x, 0)), ints(1, 4)};
    uint32_t y = named("swap", OP_Reshape, "", 2, x, op_outs("", OP_Concat, "axis=0", 1, 3, in));
    output(op(OP_Transpose, "perm=1,0,2", 1, y));
    is_single("node 'swap' (Reshape) mixes rows of the batch");
}

static void a_free_dimension_that_must_be_one_proves_nothing(void)
{
    start(13); /* [B,S,4] -> [1,B,4]: with S = 1 as good as any */
    uint32_t x = input("x", "B S 4");
    uint32_t in[] = {ints(1, 1), vec(dim_of(x, 0)), ints(1, 4)};
    uint32_t y = op(OP_Reshape, "", 2, x, op_outs("", OP_Concat, "axis=0", 1, 3, in));
    output(op(OP_Transpose, "perm=1,0,2", 1, y));
    is_single("its other free dimensions only go with 1");
}

static void flattening_everything_then_multiplying_is_single(void)
{
    start(13);
    uint32_t flat = op(OP_Flatten, "axis=0", 1, input("x", "B 4")); /* [1,4*B] */
    uint32_t col = op(OP_Transpose, "perm=1,0", 1, flat);
    output(named("dot", OP_MatMul, "", 2, flat, col));
    is_single("node 'dot' (MatMul)");
}

static void an_output_without_the_batch_in_front_is_single(void)
{
    start(13);
    output(op(OP_Transpose, "perm=1,0", 1, input("x", "B 4")));
    is_single("output 'Transpose.1' does not have the batch as its first dimension");
}

static void a_constant_output_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(x);
    output(op(OP_Relu, "", 1, weights("4")));
    is_single("does not have the batch as its first dimension");
}

static void a_doubled_batch_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(op(OP_Reshape, "", 2, x, ints(2, -1, 2)));
    is_single("does not have the batch as its first dimension");
}

static void concatenating_rows_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(named("cat", OP_Concat, "axis=0", 2, x, x));
    is_single("node 'cat' (Concat) joins along the batch");
}

static void the_first_row_for_everybody_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(op(OP_Sub, "", 2, x, named("first", OP_Gather, "axis=0", 2, x, ints(1, 0))));
    is_single("node 'first' (Gather) picks rows of the batch");
}

static void a_slice_of_rows_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    uint32_t y = named("cut", OP_Slice, "", 4, x, ints(1, 0), ints(1, 1), ints(1, 0));
    output(op(OP_Sub, "", 2, x, y));
    is_single("node 'cut' (Slice) takes some rows of the batch");
}

static void reversed_rows_are_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(named("flip", OP_Slice, "", 5, x, ints(1, -1), ints(1, -2147483647), ints(1, 0),
                 ints(1, -1)));
    is_single("node 'flip' (Slice) takes some rows of the batch");
}

static void a_sum_after_a_transpose_is_single(void)
{
    start(13);
    uint32_t x = op(OP_Transpose, "perm=1,0", 1, input("x", "B 4"));
    output(named("sum", OP_ReduceSum, "keepdims=0", 2, x, ints(1, 1)));
    is_single("node 'sum' (ReduceSum) reduces over the batch");
}

static void numbering_the_rows_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    uint32_t n = op(OP_Range, "", 3, int_scalar(0), dim_of(x, 0), int_scalar(1));
    uint32_t row = op(OP_Unsqueeze, "", 2, op(OP_Cast, "to=1", 1, n), ints(1, 1));
    output(named("plus", OP_Add, "", 2, x, row));
    is_single("node 'plus' (Add) computes with a number that depends on the batch");
}

static void dividing_by_the_batch_size_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(named("div", OP_Div, "", 2, x, op(OP_Cast, "to=1", 1, dim_of(x, 0))));
    is_single("node 'div' (Div) computes with a number that depends on the batch");
}

static void a_table_cut_to_the_batch_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    uint32_t rows =
        named("rows", OP_Slice, "", 4, weights("512 4"), ints(1, 0), vec(dim_of(x, 0)), ints(1, 0));
    output(named("plus", OP_Add, "", 2, x, rows));
    is_single("node 'plus' (Add) computes with a number that depends on the batch");
    start(13); /* too large to be evaluated when the graph is bound */
    x = input("x", "B 2048");
    rows = named("rows", OP_Slice, "", 4, weights("512 2048"), ints(1, 0), vec(dim_of(x, 0)),
                 ints(1, 0));
    output(op(OP_Add, "", 2, x, rows));
    is_single("node 'rows' (Slice) cuts shape arithmetic, or by a number that depends on");
}

static void a_squeeze_that_takes_a_single_row_away_is_single(void)
{
    start(13);
    output(named("squeeze", OP_Squeeze, "", 1, input("x", "B 1 4")));
    is_single("node 'squeeze' (Squeeze)");
}

static void a_batch_on_two_axes_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 1"), y = op(OP_Transpose, "perm=1,0", 1, x);
    output(named("outer", OP_Mul, "", 2, x, y));
    is_single("node 'outer' (Mul) joins two operands whose batch lies on different axes");
}

static void pads_and_tiles_of_the_batch_are_single(void)
{
    start(13);
    uint32_t x = input("x", "B 4");
    output(named("pad", OP_Pad, "", 2, x, ints(4, 1, 0, 0, 0)));
    is_single("node 'pad' (Pad) pads the batch");
    start(13);
    x = input("x", "B 4");
    output(named("tile", OP_Tile, "", 2, x, ints(2, 2, 1)));
    is_single("node 'tile' (Tile) repeats the batch");
}

static void training_mode_is_single(void)
{
    start(15);
    uint32_t x = input("x", "B 4 2 2");
    output(named("bn", OP_BatchNormalization, "training_mode=1", 5, x, weights("4"), weights("4"),
                 weights("4"), weights("4")));
    is_single("node 'bn' (BatchNormalization) normalises over the batch");
}

static void recurrent_layers_batch_along_their_rows(void)
{
    start(14);
    uint32_t x = input("x", "B 5 3");
    output(op(OP_LSTM, "layout=1", 3, x, weights("1 8 3"), weights("1 8 2")));
    output(op(OP_GRU, "layout=1 direction=reverse", 3, x, weights("1 6 3"), weights("1 6 2")));
    batches();
    start(14);
    x = op(OP_Transpose, "perm=1,0,2", 1, input("x", "B 5 3"));
    x = op(OP_RNN, "", 3, x, weights("1 2 3"), weights("1 2 2"));
    output(op(OP_Transpose, "perm=2,0,1,3", 1, x));
    batches();
}

static void a_recurrence_over_the_batch_is_single(void)
{
    start(14);
    uint32_t x = input("x", "B 5 3");
    output(named("rnn", OP_RNN, "", 3, x, weights("1 2 3"), weights("1 2 2")));
    is_single("node 'rnn' (RNN) works across the batch: it is not the axis of rows");
}

static void attention_and_its_norms_batch(void)
{
    start(23);
    uint32_t x = input("x", "B 2 4 6");
    x = op(OP_RMSNormalization, "", 2, x, weights("6"));
    x = op(OP_Attention, "is_causal=1", 4, x, x, x, weights("2 4 4"));
    x = op(OP_GroupNormalization, "num_groups=2", 3, x, weights("2"), weights("2"));
    x = op(OP_LpNormalization, "axis=1", 1, x);
    output(op(OP_MeanVarianceNormalization, "axes=2,3", 1, x));
    batches();
}

static void norms_and_losses_over_the_batch_are_single(void)
{
    start(23);
    uint32_t x = input("x", "B 2 4 6");
    output(named("mvn", OP_MeanVarianceNormalization, "", 1, x));
    is_single("node 'mvn' (MeanVarianceNormalization) normalises over the batch");
    start(23);
    output(named("lp", OP_LpNormalization, "axis=0", 1, input("x", "B 4")));
    is_single("node 'lp' (LpNormalization) normalises over the batch");
    start(23);
    x = input("x", "B 4");
    output(named("loss", OP_NegativeLogLikelihoodLoss, "", 2, x,
                 op(OP_ArgMax, "axis=1 keepdims=0", 1, x)));
    is_single("node 'loss' (NegativeLogLikelihoodLoss) reduces over the batch");
}

static void a_layer_norm_over_everything_is_single(void)
{
    start(17);
    uint32_t x = op(OP_Transpose, "perm=1,0", 1, input("x", "B 4")); /* [4,B]: over the last */
    uint32_t y = named("ln", OP_InstanceNormalization, "", 3,
                       op(OP_Unsqueeze, "", 2, x, ints(1, 0)), weights("4"), weights("4"));
    output(op(OP_Transpose, "perm=1,0", 1, op(OP_Squeeze, "", 2, y, ints(1, 0))));
    is_single("node 'ln' (InstanceNormalization) works across the batch");
}

static void inputs_must_all_carry_the_same_batch(void)
{
    start(13);
    output(op(OP_Relu, "", 1, input("x", "2 4")));
    is_single("input 'x' has a fixed first dimension");
    start(13);
    output(op(OP_Relu, "", 1, input("x", "2B 4")));
    is_single("input 'x' has a fixed first dimension");
    start(13);
    uint32_t x = input("x", "B 4"), y = input("y", "4");
    output(op(OP_Add, "", 2, x, y));
    is_single("input 'y' has a fixed first dimension");
    start(13);
    output(op(OP_Relu, "", 1, input("x", "B 4")));
    output(op(OP_Relu, "", 1, input("y", "C 4")));
    is_single("the first dimensions of inputs 'x' and 'y' differ");
    start(13);
    output(op(OP_Relu, "", 1, input("x", "B B")));
    is_single("input 'x' has dimension 'B' twice");
}

static void a_shape_that_fits_one_batch_only_is_single(void)
{
    start(13);
    output(named("plus", OP_Add, "", 2, input("x", "B 4"), weights("3 4")));
    is_single("batch of 2");
}

static void two_rows_lookups_are_single(void)
{
    start(13);
    uint32_t ids = input_of("ids", DT_INT64, "B 1");
    uint32_t x = input("x", "B 5 2");
    output(named("pick", OP_Gather, "axis=1", 2, x, ids));
    is_single("node 'pick' (Gather) looks up one row's index in another row's data");
}

static void a_shape_that_depends_on_data_does_not_batch(void)
{
    start(17);
    uint32_t x = input("x", "B 4"), s = input_of("s", DT_INT64, "B");
    output(op(OP_Relu, "", 1, named("wide", OP_Expand, "", 2, x, s)));
    is_single("node 'wide' (Expand) is known only when the model runs: its shapes depend on data");
}

static void strings_do_not_batch(void)
{
    start(17);
    output(op(OP_Identity, "", 1, input_of("words", DT_STRING, "B 4")));
    is_single("input 'words' holds strings");
}

/* ---- by index, along axes, by equation */

static void indices_into_the_own_row_or_a_table_batch(void)
{
    start(18);
    uint32_t x = input("x", "B 5 4"), at = input_of("at", DT_INT64, "B 5 4");
    output(op(OP_GatherElements, "axis=1", 2, x, at));
    output(op(OP_GatherND, "batch_dims=1", 2, x, input_of("nd", DT_INT64, "B 3 1")));
    output(op(OP_ScatterElements, "axis=2", 3, input("y", "B 5 5"), at, x));
    output(op(OP_GatherND, "", 2, weights("5 3"), input_of("rows", DT_INT64, "B 2 1")));
    output(op(OP_OneHot, "axis=1", 3, at, int_scalar(3), weights("2")));
    batches();
}

static void indices_into_other_rows_are_single(void)
{
    start(18);
    output(named("pick", OP_GatherElements, "axis=0", 2, input("x", "B 5"),
                 input_of("at", DT_INT64, "B 5")));
    is_single("node 'pick' (GatherElements) picks from other rows of the batch");
    start(18);
    output(named("put", OP_ScatterElements, "axis=0", 3, input("x", "B 5"),
                 input_of("at", DT_INT64, "B 5"), input("up", "B 5")));
    is_single("node 'put' (ScatterElements) writes into other rows of the batch");
    start(18);
    output(named("nd", OP_GatherND, "", 2, input("x", "B 5"), input_of("at", DT_INT64, "B 1")));
    is_single("node 'nd' (GatherND) picks from other rows of the batch");
}

static void sums_and_choices_within_a_row_batch(void)
{
    start(14);
    uint32_t x = input("x", "B 6 4");
    output(op(OP_CumSum, "reverse=1", 2, x, int_scalar(-1)));
    output(op(OP_TopK, "axis=1", 2, x, ints(1, 3)));
    output(op(OP_Hardmax, "axis=-1", 1, x));
    output(op(OP_ReduceLogSumExp, "axes=1,2", 1, x));
    output(op(OP_Mean, "", 2, x, weights("4")));
    output(op(OP_Det, "", 1, input("m", "B 3 3")));
    batches();
}

static void sums_and_choices_over_the_batch_are_single(void)
{
    start(14);
    output(named("sum", OP_CumSum, "", 2, input("x", "B 4"), int_scalar(0)));
    is_single("node 'sum' (CumSum) cumulates over the batch");
    start(14);
    output(named("top", OP_TopK, "axis=0", 2, input("x", "B 4"), ints(1, 1)));
    is_single("node 'top' (TopK) sorts the batch");
}

static void an_equation_batches_over_a_label_of_all_its_rows(void)
{
    start(13);
    uint32_t q = input("q", "B 5 2 3"), k = input("k", "B 4 2 3");
    output(op(OP_Einsum, "equation=bqhd,bkhd->bhqk", 2, q, k));
    output(op(OP_Einsum, "equation=bqhd,df->bfqh", 2, q, weights("3 6")));
    batches();
}

static void an_equation_that_sums_or_crosses_rows_is_single(void)
{
    start(13);
    output(named("gram", OP_Einsum, "equation=bi,ci->bc", 2, input("x", "B 4"), input("y", "B 4")));
    is_single("node 'gram' (Einsum) multiplies rows of the batch with each other");
    start(13);
    output(named("sum", OP_Einsum, "equation=bi,ij->j", 2, input("x", "B 4"), weights("4 3")));
    is_single("node 'sum' (Einsum) sums over the batch");
}

static void an_operand_at_an_axis_of_an_old_opset_batches(void)
{
    start(6);
    uint32_t x = input("x", "B 4 5");
    output(op(OP_Add, "broadcast=1 axis=1", 2, x, weights("4")));
    output(op(OP_Mul, "broadcast=1 axis=0", 2, x, input("y", "B")));
    batches();
}

/* ---- windows run backwards, sampling, bytes */

static uint32_t floats(int n, ...)
{
    int64_t len = n;
    float x[8];
    va_list ap;

    va_start(ap, n);
    for (int i = 0; i < n; i++)
        x[i] = (float)va_arg(ap, double);
    va_end(ap);
    return constant_of(DT_FP32, 1, &len, x);
}

static void an_image_network_that_grows_again_batches(void)
{
    start(13);
    uint32_t x = input("x", "B 4 5 5");
    x = op(OP_ConvTranspose, "strides=2,2", 3, x, weights("4 3 2 2"), weights("3"));
    output(op(OP_LpPool, "kernel_shape=2,2", 1, x));
    output(op(OP_GlobalLpPool, "", 1, x));
    output(op(OP_Resize, "mode=linear", 3, x, VALUE_NONE, floats(4, 1.0, 1.0, 2.0, 1.5)));
    batches();
}

/* As exporters write it: the new shape begins with that of the input. */
static void a_resize_to_sizes_made_from_the_shape_batches(void)
{
    start(13);
    uint32_t x = input("x", "B 3 5 5");
    uint32_t in[] = {vec(dim_of(x, 0)), ints(3, 3, 9, 7)};
    uint32_t sizes = op_outs("", OP_Concat, "axis=0", 1, 2, in);
    output(op(OP_Resize, "mode=nearest", 4, x, VALUE_NONE, VALUE_NONE, sizes));
    batches();
}

static void a_resize_of_the_batch_is_single(void)
{
    start(13);
    uint32_t x = input("x", "B 3 5 5");
    output(op(OP_Resize, "", 3, x, VALUE_NONE, floats(4, 2.0, 1.0, 1.0, 1.0)));
    is_single("changes the number of rows");
    start(13);
    x = input("x", "B 3 5 5"); /* 61 * 1.01 is still 61, but samples other rows */
    output(op(OP_Resize, "", 3, x, VALUE_NONE, floats(4, 1.01, 1.0, 1.0, 1.0)));
    is_single("resizes the batch");
    start(13);
    x = input("x", "B 3 5 5");
    output(op(OP_Resize, "coordinate_transformation_mode=tf_crop_and_resize", 3, x,
              floats(8, 0.5, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0), floats(4, 1.0, 1.0, 1.0, 1.0)));
    is_single("may resize the batch");
}

static void samples_at_a_grid_of_their_own_row_batch(void)
{
    start(20);
    uint32_t theta = input("theta", "B 2 3"), x = input("x", "B 3 5 5");
    uint32_t size = op(OP_Shape, "", 1, x);
    output(op(OP_GridSample, "", 2, x, op(OP_AffineGrid, "", 2, theta, size)));
    batches();
}

static void bytes_batch_unless_their_range_is_that_of_the_batch(void)
{
    const int8_t zero = 3, w[12] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12};
    const int64_t dims[] = {4, 3};

    start(13);
    uint32_t x = input("x", "B 4");
    x = op(OP_QuantizeLinear, "", 3, x, scalar(0.05f), constant_of(DT_INT8, 0, NULL, &zero));
    output(op(OP_DequantizeLinear, "", 3, x, scalar(0.05f), constant_of(DT_INT8, 0, NULL, &zero)));
    output(op(OP_MatMulInteger, "", 2, x, constant_of(DT_INT8, 2, dims, w)));
    batches();
    start(13);
    output(op(OP_DynamicQuantizeLinear, "", 1, input("x", "B 4")));
    is_single("DynamicQuantizeLinear");
}

int main(void)
{
    RUN(a_row_of_layers_batches);
    RUN(an_image_network_batches);
    RUN(a_layer_norm_batches);
    RUN(attention_as_exported_batches);
    RUN(rows_may_be_merged_and_split_again);
    RUN(an_embedding_with_positions_batches);
    RUN(a_class_token_expanded_to_the_batch_batches);
    RUN(a_mask_made_from_the_shape_batches);
    RUN(a_batch_axis_moved_and_moved_back_batches);
    RUN(a_residual_behind_a_product_batches);
    RUN(a_mean_over_the_batch_is_single);
    RUN(centering_by_the_batch_mean_is_single);
    RUN(a_reduction_over_everything_is_single);
    RUN(softmax_over_the_batch_is_single);
    RUN(an_old_softmax_flattens_from_its_axis_on);
    RUN(a_gram_matrix_is_single);
    RUN(similarity_of_all_pairs_is_single);
    RUN(swapping_dimensions_by_reshape_is_single);
    RUN(swapping_batch_and_sequence_by_reshape_is_single);
    RUN(a_free_dimension_that_must_be_one_proves_nothing);
    RUN(flattening_everything_then_multiplying_is_single);
    RUN(an_output_without_the_batch_in_front_is_single);
    RUN(a_constant_output_is_single);
    RUN(a_doubled_batch_is_single);
    RUN(concatenating_rows_is_single);
    RUN(the_first_row_for_everybody_is_single);
    RUN(a_slice_of_rows_is_single);
    RUN(reversed_rows_are_single);
    RUN(a_sum_after_a_transpose_is_single);
    RUN(numbering_the_rows_is_single);
    RUN(dividing_by_the_batch_size_is_single);
    RUN(a_table_cut_to_the_batch_is_single);
    RUN(a_squeeze_that_takes_a_single_row_away_is_single);
    RUN(a_batch_on_two_axes_is_single);
    RUN(pads_and_tiles_of_the_batch_are_single);
    RUN(training_mode_is_single);
    RUN(recurrent_layers_batch_along_their_rows);
    RUN(a_recurrence_over_the_batch_is_single);
    RUN(attention_and_its_norms_batch);
    RUN(norms_and_losses_over_the_batch_are_single);
    RUN(a_layer_norm_over_everything_is_single);
    RUN(inputs_must_all_carry_the_same_batch);
    RUN(a_shape_that_fits_one_batch_only_is_single);
    RUN(two_rows_lookups_are_single);
    RUN(a_shape_that_depends_on_data_does_not_batch);
    RUN(strings_do_not_batch);
    RUN(indices_into_the_own_row_or_a_table_batch);
    RUN(indices_into_other_rows_are_single);
    RUN(sums_and_choices_within_a_row_batch);
    RUN(sums_and_choices_over_the_batch_are_single);
    RUN(an_equation_batches_over_a_label_of_all_its_rows);
    RUN(an_equation_that_sums_or_crosses_rows_is_single);
    RUN(an_operand_at_an_axis_of_an_old_opset_batches);
    RUN(an_image_network_that_grows_again_batches);
    RUN(a_resize_to_sizes_made_from_the_shape_batches);
    RUN(a_resize_of_the_batch_is_single);
    RUN(samples_at_a_grid_of_their_own_row_batch);
    RUN(bytes_batch_unless_their_range_is_that_of_the_batch);
    graph_free(g);
    return check_end();
}
