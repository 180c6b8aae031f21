/* What our own kernels do in one step in 16 bits, on the fakes.  Their numbers by operator are for
 * ops.sh; here is what is launched, and what only a network brings about. */
#include "half_rig.h"

static size_t launches(void)
{
    size_t n = 0;

    for (const char *p = fake->log; (p = strstr(p, "cuLaunchKernel\n")); p++)
        n++;
    return n;
}

/* The bound graph in fp16, run once launch by launch; *ret: how many of them. */
static void launched(size_t n_out, size_t *ret)
{
    float *y = calloc(n_out, sizeof(*y));
    const void *in[] = {given};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct exe *made = NULL;
    struct slot *s = NULL;

    fake->capture_refused = 1;
    CHECK_EQ(compile_in(PRECISION_FP16, &made), 0);
    CHECK_EQ(be->slot_open(made, &s, &err), 0);
    forget_calls();
    CHECK_EQ(done_of(s, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
    *ret = launches();
    be->slot_close(s);
    be->release(made);
    fake->capture_refused = 0;
    free(y);
}

/* A filter for each of the channels. */
static uint32_t depthwise(uint32_t in, const char *w, const char *attrs)
{
    return op(OP_Conv, attrs, 2, in, weights(w));
}

static void post_of_last(enum post_kind kind)
{
    struct node *n = &g->nodes[g->n_nodes - 1];

    n->post[n->n_post++] = (struct post){.kind = kind, .alpha = 0.5f, .beta = 6};
}

/* In, the convolution with its activation, out; the library is not asked. */
static void a_depthwise_convolution_and_its_activation_are_one_launch_of_ours(void)
{
    struct exe_info info;
    size_t n;

    open_gpu();
    uint32_t y = depthwise(input("x", "B 3 5 5"), "3 1 3 3", "group=3 pads=1,1,1,1");
    post_of_last(POST_CLIP);
    output(y);
    bind_graph();
    launched(ROWS * 75, &n);
    CHECK_EQ(n, 3);
    CHECK(!called("cudnnBackendExecute"));
    CHECK(error_in(PRECISION_FP16, ROWS * 75, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 1);
    CHECK_EQ(info.n_reorders, 2);
    CHECK_EQ(info.n_plain, 0);
    close_gpu();
}

static void what_is_not_short_follows_in_place(void)
{
    struct exe_info info;
    size_t n;

    open_gpu();
    output(depthwise(input("x", "B 3 5 5"), "3 1 3 3", "group=3 pads=1,1,1,1"));
    post_of_last(POST_GELU);
    bind_graph();
    launched(ROWS * 75, &n);
    CHECK_EQ(n, 4);
    CHECK(error_in(PRECISION_FP16, ROWS * 75, &info) < 1e-2);
    close_gpu();
}

/* Two filters for each channel, and FP32, are the library's. */
static void other_convolutions_of_groups_are_the_library_s(void)
{
    size_t n;

    open_gpu();
    output(depthwise(input("x", "B 3 5 5"), "6 1 3 3", "group=3"));
    bind_graph();
    launched(ROWS * 54, &n);
    CHECK(called("cudnnBackendExecute"));
    CHECK_EQ(n, 2);
    close_gpu();
}

/* A mobile network's block, with channels last throughout, for each number of channels that are
 * read at once: 24 = 3 * 8, 12 = 3 * 4, 6 = 3 * 2, 7. */
static void a_block_of(const char *in, const char *filter, const char *out, const char *attrs)
{
    struct exe_info info;

    open_gpu();
    uint32_t y = op(OP_Conv, "", 2, input("x", "B 3 5 5"), weights(in));
    y = depthwise(y, filter, attrs);
    post_of_last(POST_RELU);
    y = op(OP_MaxPool, "kernel_shape=3,3 pads=1,1,1,1 strides=1,1", 1, y);
    y = op(OP_AveragePool, "kernel_shape=2,3 pads=1,0,0,1 strides=2,1", 1, y);
    y = op(OP_Add, "", 2, y, op(OP_GlobalAveragePool, "", 1, y));
    output(op(OP_Conv, "", 2, y, weights(out)));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 4 * 3 * 4, &info) < 1e-2);
    CHECK_EQ(info.n_reorders, 2);
    CHECK_EQ(info.n_asked, 7);
    CHECK(error_in(PRECISION_BF16, ROWS * 4 * 3 * 4, &info) < 5e-2);
    close_gpu();
}

static void channels_are_read_8_at_once(void)
{
    a_block_of("24 3 1 1", "24 1 3 3", "4 24 1 1", "group=24 pads=1,1,1,1");
}
static void channels_are_read_4_at_once(void)
{
    a_block_of("12 3 1 1", "12 1 3 3", "4 12 1 1", "group=12 pads=1,1,1,1");
}
static void channels_are_read_2_at_once(void)
{
    a_block_of("6 3 1 1", "6 1 5 5", "4 6 1 1", "group=6 pads=2,2,2,2");
}
static void channels_are_read_one_by_one(void)
{
    a_block_of("7 3 1 1", "7 1 5 5", "4 7 1 1", "group=7 pads=2,2,2,2");
}

/* ---- rows: a sum and a normalisation, a factor, a mask and a softmax */

/* Of `width`, between two products; the sum goes on to another sum where it is read twice. */
static void norm_of_sum(const char *width, bool twice)
{
    char w[3][40];
    struct exe_info info;
    size_t n;

    open_gpu();
    (void)snprintf(w[0], sizeof(w[0]), "75 %s", width);
    (void)snprintf(w[1], sizeof(w[1]), "%s 8", width);
    (void)snprintf(w[2], sizeof(w[2]), "%s", width);
    uint32_t in = input("x", "B 75");
    uint32_t a = op(OP_MatMul, "", 2, in, weights(w[0])),
             r = op(OP_MatMul, "", 2, in, weights(w[0]));
    uint32_t sum = op(OP_Add, "", 2, a, r);
    uint32_t y = op(OP_LayerNormalization, "axis=-1", 3, sum, weights(w[2]), weights(w[2]));
    if (twice)
        y = op(OP_Add, "", 2, y, sum);
    output(op(OP_MatMul, "", 2, y, weights(w[1])));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 8, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 5 + twice);
    CHECK_EQ(info.n_reorders, 1);
    CHECK(error_in(PRECISION_BF16, ROWS * 8, &info) < 5e-2);
    launched(ROWS * 8, &n);
    CHECK_EQ(n, 2 + twice); /* the conversion, and all of it */
    close_gpu();
}

static void a_sum_and_its_normalisation_are_one_launch(void)
{
    norm_of_sum("768", false);
}
static void a_sum_that_others_read_is_written_as_well(void)
{
    norm_of_sum("96", true);
}
static void so_in_rows_of_odd_width(void)
{
    norm_of_sum("77", true);
}
static void so_in_rows_wider_than_a_warp_has_them(void)
{
    norm_of_sum("1536", true);
}
static void so_in_rows_both_wide_and_odd(void)
{
    norm_of_sum("1027", true);
}

/* Who reads the sum before its normalisation needs it earlier. */
static void a_sum_that_is_read_before_is_a_step_of_its_own(void)
{
    size_t n;

    open_gpu();
    uint32_t a = op(OP_MatMul, "", 2, input("x", "B 75"), weights("75 16"));
    uint32_t sum = op(OP_Add, "", 2, a, op(OP_Relu, "", 1, a));
    uint32_t other = op(OP_MatMul, "", 2, sum, weights("16 16"));
    uint32_t y = op(OP_LayerNormalization, "", 2, sum, weights("16"));
    output(op(OP_MatMul, "", 2, op(OP_Add, "", 2, y, other), weights("16 8")));
    bind_graph();
    launched(ROWS * 8, &n);
    CHECK_EQ(n, 5); /* in, Relu, both sums, the normalisation */
    close_gpu();
}

/* In FP32 too, and an output is written wherever it is made. */
static void a_sum_that_is_an_output_is_there_in_fp32(void)
{
    float y[2][ROWS * 75];
    const void *in[] = {given};
    void *out[] = {y[0], y[1]};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};

    open_gpu();
    uint32_t x = input("x", "B 75"),
             sum = op(OP_Add, "", 2, x, op(OP_Neg, "", 1, op(OP_Exp, "", 1, x)));
    output(op(OP_LayerNormalization, "", 2, sum, weights("75")));
    output(sum);
    bind_graph();
    CHECK_EQ(compile_in(PRECISION_FP32, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(done_of(slot, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
    for (unsigned i = 0; i < ROWS * 75; i++)
        CHECK(fabsf(y[1][i] - (given[i] - expf(given[i]))) < 1e-5f);
    for (unsigned r = 0; r < ROWS; r++) { /* what was scaled by about 0.6 has a mean of about 0 */
        float most = 0;
        for (unsigned i = 0; i < 75; i++)
            most = fmaxf(most, fabsf(y[0][r * 75 + i]));
        CHECK(most > 0.5f && most < 9);
    }
    close_model();
}

/* Scores of two heads, divided, masked for each row, each head or each place. */
static void masked_softmax(const char *mask, const char *scale, bool mask_first)
{
    struct exe_info info;
    size_t n;

    open_gpu();
    uint32_t h = input("x", "B 3 5 5");
    uint32_t q = op(OP_MatMul, "", 2, h, weights("5 8")),
             k = op(OP_MatMul, "", 2, h, weights("5 7"));
    uint32_t kt = op(OP_Transpose, "perm=0,1,3,2", 1, q);
    uint32_t s = op(OP_MatMul, "", 2, kt, k); /* B 3 8 7 */
    s = *scale == '/' ? op(OP_Div, "", 2, s, scalar(2)) : op(OP_Mul, "", 2, scalar(0.5f), s);
    uint32_t m = weights(mask);
    s = mask_first ? op(OP_Add, "", 2, m, s) : op(OP_Add, "", 2, s, m);
    output(op(OP_MatMul, "", 2, op(OP_Softmax, "axis=-1", 1, s), weights("7 4")));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 96, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 8);
    launched(ROWS * 96, &n);
    CHECK_EQ(n, 3); /* in, Transpose, Softmax */
    CHECK(error_in(PRECISION_BF16, ROWS * 96, &info) < 5e-2);
    close_gpu();
}

static void a_factor_a_mask_and_softmax_are_one_launch(void)
{
    masked_softmax("7", "/", false);
}
static void a_mask_may_differ_by_head_and_row(void)
{
    masked_softmax("3 8 7", "*", true);
}
static void a_mask_may_differ_by_head_alone(void)
{
    masked_softmax("1 3 1 7", "/", true);
}

/* One number for a whole row is no mask, and a factor that others read stays a step. */
static void what_does_not_fit_stays_apart(void)
{
    struct exe_info info;
    size_t n;

    open_gpu();
    uint32_t s = op(OP_MatMul, "", 2, input("x", "B 75"), weights("75 16"));
    uint32_t twice = op(OP_Mul, "", 2, s, scalar(2));
    uint32_t p = op(OP_Softmax, "axis=-1", 1, op(OP_Add, "", 2, twice, weights("1")));
    output(op(OP_MatMul, "", 2, op(OP_Add, "", 2, p, twice), weights("16 4")));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 4, &info) < 1e-2);
    launched(ROWS * 4, &n);
    CHECK_EQ(n, 5);
    close_gpu();
}

/* ---- what a product takes with it */

/* Two products with an activation, and perhaps a bias and a residual, between; the rows that go in
 * are about zero. */
static void two_products(enum post_kind kind, bool bias, bool residual)
{
    open_gpu();
    uint32_t in = input("x", "B 75");
    uint32_t x = op(OP_LayerNormalization, "", 2, in, weights("75"));
    uint32_t y = bias ? op(OP_MatMul, "", 3, x, weights("75 75"), weights("75"))
                      : op(OP_MatMul, "", 2, x, weights("75 75"));
    struct node *n = &g->nodes[g->n_nodes - 1];
    if (residual)
        n->post[n->n_post++] = (struct post){.kind = POST_ADD, .value = x};
    n->post[n->n_post++] = (struct post){.kind = kind};
    output(op(OP_MatMul, "", 2, y, weights("75 8")));
    bind_graph();
}

static void check_products(size_t n_launches)
{
    struct exe_info info;
    size_t n;

    CHECK(error_in(PRECISION_FP16, ROWS * 8, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 3);
    CHECK(error_in(PRECISION_BF16, ROWS * 8, &info) < 5e-2);
    launched(ROWS * 8, &n);
    CHECK_EQ(n, n_launches); /* in, the normalisation, and what is not the library's */
    close_gpu();
}

static void gelu_by_erf_is_the_library_s_where_16_bits_are_stored(void)
{
    two_products(POST_GELU, false, false);
    check_products(2);
}

static void gelu_by_tanh_is_the_library_s_too(void)
{
    two_products(POST_GELU_TANH, true, false);
    check_products(2);
}

static void a_bias_a_residual_and_gelu_are_one_product(void)
{
    two_products(POST_GELU, true, true);
    check_products(2);
}

static void an_activation_that_the_library_has_not_follows(void)
{
    two_products(POST_SIGMOID, true, true);
    check_products(3);
}

static void what_the_library_refuses_to_fuse_follows_in_place(void)
{
    open_fake();
    fake->library_refuses = 2;
    two_products(POST_GELU, true, true);
    check_products(4); /* the residual, Gelu */
}

/* The library's form is off by 4e-4, which FP32 would show, and so would scores. */
static void fp32_has_the_gelu_that_the_model_says(void)
{
    struct exe_info info;

    two_products(POST_GELU, true, false);
    CHECK_EQ(compile_in(PRECISION_FP32, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    be->exe_info(exe, &info);
    CHECK_EQ(info.n_steps, 4); /* the normalisation, two products, Gelu */
    close_model();
}

static void the_last_product_has_the_gelu_that_the_model_says(void)
{
    size_t n;

    open_gpu();
    output(op(OP_MatMul, "", 2, input("x", "B 75"), weights("75 8")));
    post_of_last(POST_GELU);
    bind_graph();
    launched(ROWS * 8, &n);
    CHECK_EQ(n, 2); /* in, Gelu */
    close_gpu();
}

/* ---- attention */
#define SEQ 70 /* more than a tile, and no multiple of anything */
#define HEADS 2

/* x of rows about zero becomes (batch, heads, rows, width), as exporters write it. */
static uint32_t heads_of(uint32_t x, int width)
{
    char w[40];

    (void)snprintf(w, sizeof(w), "75 %d", SEQ * HEADS * width);
    uint32_t y = op(OP_MatMul, "", 2, x, weights(w));
    y = op(OP_Reshape, "", 2, y, ints(4, 0, SEQ, HEADS, width));
    return op(OP_Transpose, "perm=0,2,1,3", 1, y);
}

/* Whether row sees key: the lower triangle, or all but every fifth. */
static uint32_t seen(bool causal, bool inverted)
{
    static uint8_t x[SEQ * SEQ];
    const int64_t dims[] = {1, 1, SEQ, SEQ};

    for (int i = 0; i < SEQ * SEQ; i++)
        x[i] = (causal ? i % SEQ <= i / SEQ : i % 5 != 0) != inverted;
    return constant_of(DT_BOOL, 4, dims, x);
}

enum masking { NO_MASK, ADDED, CAUSAL, CHOSEN, HIDDEN };

static uint32_t masked(uint32_t x, uint32_t scores, enum masking how)
{
    if (how == ADDED) {
        uint32_t m = op(OP_MatMul, "", 2, x, weights("75 70"));
        return op(OP_Add, "", 2, scores, op(OP_Reshape, "", 2, m, ints(4, 0, 1, 1, SEQ)));
    }
    if (how == HIDDEN)
        return op(OP_Where, "", 3, seen(false, true), scalar(-1e9f), scores);
    return how == NO_MASK ? scores
                          : op(OP_Where, "", 3, seen(how == CAUSAL, false), scores, scalar(-1e9f));
}

/* The keys of a model that keeps them are read twice. */
static void attention(int width, enum masking how, bool keys_kept)
{
    char w[40];

    open_gpu();
    uint32_t in = input("x", "B 75");
    uint32_t x = op(OP_LayerNormalization, "", 2, in, weights("75"));
    uint32_t q = heads_of(x, width), k = heads_of(x, width), v = heads_of(x, width);
    uint32_t kt = op(OP_Transpose, "perm=0,1,3,2", 1, k);
    uint32_t s = op(OP_Div, "", 2, op(OP_MatMul, "", 2, q, kt), scalar((float)width));
    uint32_t p = op(OP_Softmax, "axis=-1", 1, masked(x, s, how));
    uint32_t y = op(OP_MatMul, "", 2, p, v);
    if (keys_kept)
        y = op(OP_Add, "", 2, y, k);
    y = op(OP_Transpose, "perm=0,2,1,3", 1, y);
    y = op(OP_Reshape, "", 2, y, ints(3, 0, SEQ, HEADS * width));
    (void)snprintf(w, sizeof(w), "%d 4", HEADS * width);
    output(op(OP_MatMul, "", 2, y, weights(w)));
    bind_graph();
}

static void check_attention(unsigned n_asked, size_t n_launches)
{
    struct exe_info info;
    size_t n;

    CHECK(error_in(PRECISION_FP16, ROWS * SEQ * 4, &info) < 1e-2);
    CHECK_EQ(info.n_asked, n_asked);
    CHECK(error_in(PRECISION_BF16, ROWS * SEQ * 4, &info) < 5e-2);
    launched(ROWS * SEQ * 4, &n);
    CHECK_EQ(n, n_launches); /* in, the normalisation, attention */
    close_gpu();
}

static void attention_is_one_launch_with_what_turns_its_operands(void)
{
    attention(16, NO_MASK, false);
    check_attention(14, 3);
}

static void attention_takes_a_mask_that_is_added(void)
{
    attention(32, ADDED, false);
    check_attention(16, 3);
}

static void attention_takes_a_triangle(void)
{
    attention(16, CAUSAL, false);
    check_attention(15, 3);
}

static void attention_takes_a_mask_that_chooses(void)
{
    attention(80, CHOSEN, false);
    check_attention(15, 3);
}

static void attention_takes_a_mask_that_hides(void)
{
    attention(8, HIDDEN, false);
    check_attention(15, 3);
}

/* Queries, keys and values of one product: read where they lie. */
static void attention_of_parts(bool other)
{
    open_gpu();
    uint32_t in = input("x", "B 75");
    uint32_t x = op(OP_LayerNormalization, "", 2, in, weights("75")), of[3];
    uint32_t all = op(OP_MatMul, "", 2, x, weights("75 6720"));
    all = op(OP_Reshape, "", 2, all, ints(3, 0, SEQ, 96));
    of[0] = op_outs("", OP_Split, "axis=-1", 3, 1, &all);
    uint32_t value = of[0] + 2;
    for (uint32_t i = 3; i-- > 0;) {
        uint32_t y = op(OP_Reshape, "", 2, of[0] + i, ints(4, 0, SEQ, HEADS, 16));
        of[i] = op(OP_Transpose, i == 1 ? "perm=0,2,3,1" : "perm=0,2,1,3", 1, y);
    }
    uint32_t q = op(OP_Mul, "", 2, of[0], scalar(0.25f));
    uint32_t k = op(OP_Mul, "", 2, of[1], scalar(0.25f));
    uint32_t s = op(OP_MatMul, "", 2, q, k);
    uint32_t y = op(OP_MatMul, "", 2, op(OP_Softmax, "axis=-1", 1, s), of[2]);
    y = op(OP_Reshape, "", 2, op(OP_Transpose, "perm=0,2,1,3", 1, y), ints(3, 0, SEQ, 32));
    if (other)
        y = op(OP_Add, "", 2, y, value);
    output(op(OP_MatMul, "", 2, y, weights("32 4")));
    bind_graph();
}

static void attention_reads_parts_of_one_product_where_they_lie(void)
{
    attention_of_parts(false);
    check_attention(13, 3);
}

/* Then the parts are copied, three launches; and there is the sum. */
static void attention_leaves_a_split_that_others_read(void)
{
    attention_of_parts(true);
    check_attention(14, 7);
}

/* Turned once for who else reads them; and what comes behind is no Transpose. */
static void attention_leaves_what_others_read(void)
{
    attention(16, NO_MASK, true);
    check_attention(15, 6);
}

/* Vectors of 8 would not begin where rows do. */
static void attention_of_other_widths_stays_apart(void)
{
    attention(12, ADDED, false);
    check_attention(16, 8); /* each Transpose, softmax */
}

int main(void)
{
    ALONE(a_depthwise_convolution_and_its_activation_are_one_launch_of_ours);
    ALONE(what_is_not_short_follows_in_place);
    ALONE(other_convolutions_of_groups_are_the_library_s);
    ALONE(channels_are_read_8_at_once);
    ALONE(channels_are_read_4_at_once);
    ALONE(channels_are_read_2_at_once);
    ALONE(channels_are_read_one_by_one);
    ALONE(a_sum_and_its_normalisation_are_one_launch);
    ALONE(a_sum_that_others_read_is_written_as_well);
    ALONE(so_in_rows_of_odd_width);
    ALONE(so_in_rows_wider_than_a_warp_has_them);
    ALONE(so_in_rows_both_wide_and_odd);
    ALONE(a_sum_that_is_read_before_is_a_step_of_its_own);
    ALONE(a_sum_that_is_an_output_is_there_in_fp32);
    ALONE(a_factor_a_mask_and_softmax_are_one_launch);
    ALONE(a_mask_may_differ_by_head_and_row);
    ALONE(a_mask_may_differ_by_head_alone);
    ALONE(what_does_not_fit_stays_apart);
    ALONE(gelu_by_erf_is_the_library_s_where_16_bits_are_stored);
    ALONE(gelu_by_tanh_is_the_library_s_too);
    ALONE(a_bias_a_residual_and_gelu_are_one_product);
    ALONE(an_activation_that_the_library_has_not_follows);
    ALONE(what_the_library_refuses_to_fuse_follows_in_place);
    ALONE(fp32_has_the_gelu_that_the_model_says);
    ALONE(the_last_product_has_the_gelu_that_the_model_says);
    ALONE(attention_is_one_launch_with_what_turns_its_operands);
    ALONE(attention_takes_a_mask_that_is_added);
    ALONE(attention_takes_a_triangle);
    ALONE(attention_takes_a_mask_that_chooses);
    ALONE(attention_takes_a_mask_that_hides);
    ALONE(attention_reads_parts_of_one_product_where_they_lie);
    ALONE(attention_leaves_a_split_that_others_read);
    ALONE(attention_leaves_what_others_read);
    ALONE(attention_of_other_widths_stays_apart);
    return check_end();
}
