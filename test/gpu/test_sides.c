/* Queries, keys and values that are products of one value become one product, on the fakes; what
 * comes out beside the reference kernels. */
#include "run_rig.h"

#define SEQ 20
#define MEM 12 /* rows of what another network made */
#define HEADS 2
#define WIDTH 16
#define HIDDEN (HEADS * WIDTH)
#define BATCH_MOST 8

/* Numbers about zero, the same for the same place in the graph. */
static uint32_t centred(float size, uint32_t rank, const int64_t *dims)
{
    int64_t n = dims[0] * (rank > 1 ? dims[1] : 1);
    float *x = malloc((size_t)n * sizeof(*x));

    for (int64_t i = 0; i < n; i++)
        x[i] =
            size * ((float)((uint32_t)(i + 77 * g->n_values) * 2654435761u >> 8) / 8388608.f - 1);
    uint32_t v = constant_of(DT_FP32, rank, dims, x);
    free(x);
    return v;
}
static uint32_t matrix(int64_t rows, int64_t cols)
{
    return centred(0.4f, 2, (const int64_t[]){rows, cols});
}
static uint32_t vector(int64_t n)
{
    return centred(0.7f, 1, &n);
}

static void open_graph(void)
{
    open_device("green");
    start(17);
}

/* Rows that go in are about one large, and in 16 bits. */
static uint32_t rows_of(const char *name, const char *dims, int64_t width)
{
    return op(OP_LayerNormalization, "axis=-1", 2, input(name, dims), vector(width));
}

static uint32_t product(uint32_t x, int64_t rows, int64_t cols, bool bias)
{
    return bias ? op(OP_MatMul, "", 3, x, matrix(rows, cols), vector(cols))
                : op(OP_MatMul, "", 2, x, matrix(rows, cols));
}

static bool asks; /* each value for its shape, as exporters do */

static uint32_t heads(uint32_t x, int seq, const char *perm)
{
    uint32_t shape = ints(4, -1, seq, HEADS, WIDTH);

    if (asks)
        shape = op(OP_Concat, "axis=0", 2,
                   op(OP_Slice, "", 3, op(OP_Shape, "", 1, x), ints(1, 0), ints(1, 2)),
                   ints(2, HEADS, WIDTH));
    return op(OP_Transpose, perm, 1, op(OP_Reshape, "", 2, x, shape));
}
#define QUERIES(x, seq) heads(x, seq, "perm=0,2,1,3")
#define KEYS(x, seq) heads(x, seq, "perm=0,2,3,1")

/* The rest of it, and a product behind, from what is in rows. */
static void attention(uint32_t q, uint32_t k, uint32_t v, int rows, int keys, bool masked)
{
    uint32_t s = op(OP_MatMul, "", 2, QUERIES(q, rows), KEYS(k, keys));

    s = op(OP_Div, "", 2, s, scalar(4));
    if (masked)
        s = op(OP_Add, "", 2, s, vector(keys));
    uint32_t y = op(OP_MatMul, "", 2, op(OP_Softmax, "axis=-1", 1, s), QUERIES(v, keys));
    y = op(OP_Reshape, "", 2, op(OP_Transpose, "perm=0,2,1,3", 1, y), ints(3, -1, rows, HIDDEN));
    output(op(OP_MatMul, "", 2, y, matrix(HIDDEN, 8)));
    g->batch_sym = 0;
    CHECK_EQ(graph_infer(g, &err), 0);
}

/* ---- a model at some number of rows */
static struct bound *bound_at(int64_t rows, struct arena *a)
{
    struct shape_key key = {.n = g->n_syms, .dim = {rows}};
    struct bound *b = NULL;

    CHECK_EQ(graph_bind(g, &key, a, &b, &err), 0);
    return b;
}

static struct exe *made_at(int64_t rows, enum precision p, struct arena *a)
{
    struct compile_args args = {.model = "test", .bound = bound_at(rows, a), .precision = p};
    struct exe *made = NULL;

    if (be->compile(part, &args, &made, &err) < 0)
        printf("# %s\n", err.msg);
    assert(made);
    return made;
}

static struct exe_info info_at(int64_t rows, enum precision p)
{
    struct exe_info info;
    struct arena a;

    arena_init(&a);
    struct exe *made = made_at(rows, p, &a);
    be->exe_info(made, &info);
    be->release(made);
    arena_done(&a);
    return info;
}

/* The largest error by the largest magnitude of what the reference gives. */
static double error_of(struct exe *made, int64_t rows, struct arena *a)
{
    struct shape_key key = {.n = g->n_syms, .dim = {rows}};
    const struct bound *want = run_graph(g, &key, rows, 5, a);
    const struct tensor *y = &want->value[g->out[0]];
    float *got = arena_alloc(a, y->bytes);
    const void *in[MAX_IO];
    void *out[] = {got};
    struct io_part whole = {.rows = (uint32_t)rows, .in = in, .out = out};
    struct slot *s = NULL;
    double worst = 0, most = 0;

    for (uint32_t i = 0; i < g->n_in; i++)
        in[i] = want->value[g->in[i]].data;
    CHECK_EQ(be->slot_open(made, &s, &err), 0);
    CHECK_EQ(done_of(s, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
    be->slot_close(s);
    for (size_t i = 0; i < y->bytes / sizeof(float); i++) {
        double x = (double)((const float *)y->data)[i], d = fabs((double)got[i] - x);
        worst = isnan(d) ? (double)INFINITY : fmax(worst, d);
        most = fmax(most, fabs(x));
    }
    CHECK(most > 0.05);
    return worst / most;
}

static void check_numbers(int64_t rows, enum precision p)
{
    struct arena a;

    arena_init(&a);
    struct exe *made = made_at(rows, p, &a);
    CHECK(error_of(made, rows, &a) < (p == PRECISION_FP16 ? 4e-3 : 3e-2));
    be->release(made);
    arena_done(&a);
}

static void end_graph(void)
{
    graph_free(g);
    be->part_close(part);
    be->dev_close(dev);
    check_clean();
}

/* So many products fewer than where the library has none as wide as two of them; the same numbers,
 * from the same bytes on the device.  `widest`: of the columns of one. */
static void check_fewer(unsigned fewer, int widest)
{
    static const enum precision each[] = {PRECISION_FP16, PRECISION_BF16};

    for (unsigned i = 0; i < ARRAY_SIZE(each); i++) {
        enum precision p = each[i];
        struct exe_info one = info_at(BATCH_MOST, p);
        check_numbers(1, p);
        check_numbers(BATCH_MOST, p);
        fake->library_columns = widest;
        struct exe_info apart = info_at(BATCH_MOST, p);
        check_numbers(BATCH_MOST, p);
        fake->library_columns = 0;
        CHECK_EQ(one.n_steps + fewer, apart.n_steps);
        CHECK_EQ(one.n_asked, apart.n_asked);
        CHECK_EQ(one.n_reorders, apart.n_reorders);
        CHECK_EQ(one.n_plain + apart.n_plain, 0);
    }
    end_graph();
}

/* ---- what becomes one */
static void of_one_input(bool bias_q, bool bias_k, bool bias_v, bool masked)
{
    open_graph();
    uint32_t x = rows_of("x", "B 20 32", HIDDEN);
    uint32_t q = product(x, HIDDEN, HIDDEN, bias_q), k = product(x, HIDDEN, HIDDEN, bias_k),
             v = product(x, HIDDEN, HIDDEN, bias_v);
    attention(q, k, v, SEQ, SEQ, masked);
}

static void queries_keys_and_values_of_one_input_are_one_product(void)
{
    of_one_input(true, true, true, true);
    check_fewer(2, HIDDEN);
}

static void who_asks_for_a_shape_reads_nothing(void)
{
    asks = true;
    of_one_input(true, true, true, true);
    check_fewer(2, HIDDEN);
}

static void so_they_are_without_a_bias(void)
{
    of_one_input(false, false, false, false);
    check_fewer(2, HIDDEN);
}

static void a_bias_that_one_has_not_is_zeros(void)
{
    of_one_input(true, false, true, false);
    check_fewer(2, HIDDEN);
}

static void keys_and_values_of_another_input_are_one_product(void)
{
    open_graph();
    uint32_t x = rows_of("x", "B 20 32", HIDDEN), m = rows_of("m", "B 12 24", 24);
    uint32_t q = product(x, HIDDEN, HIDDEN, true), k = product(m, 24, HIDDEN, false),
             v = product(m, 24, HIDDEN, true);
    attention(q, k, v, SEQ, MEM, true);
    check_fewer(1, HIDDEN);
}

/* All rows of a sample are columns of one. */
static void matrices_may_have_different_numbers_of_columns(void)
{
    open_graph();
    uint32_t x = rows_of("x", "B 25", 25);
    uint32_t q = product(x, 25, SEQ * HIDDEN, true), k = product(x, 25, MEM * HIDDEN, true),
             v = product(x, 25, MEM * HIDDEN, false);
    attention(q, k, v, SEQ, MEM, false);
    check_fewer(2, SEQ * HIDDEN);
}

static uint32_t gemm(const char *attrs, uint32_t x, bool bias)
{
    return bias ? op(OP_Gemm, attrs, 3, x, matrix(HIDDEN, HIDDEN), vector(HIDDEN))
                : op(OP_Gemm, attrs, 2, x, matrix(HIDDEN, HIDDEN));
}

static void of_gemms(const char *q, const char *k, const char *v, bool bias)
{
    open_graph();
    uint32_t x = op(OP_Reshape, "", 2, rows_of("x", "B 20 32", HIDDEN), ints(2, -1, HIDDEN));
    uint32_t of_q = gemm(q, x, bias), of_k = gemm(k, x, true), of_v = gemm(v, x, bias);
    attention(of_q, of_k, of_v, SEQ, SEQ, false);
}

static void gemms_may_be_turned_and_have_a_factor(void)
{
    of_gemms("transB=1 alpha=0.5", "transB=1 alpha=0.5", "transB=1 alpha=0.5", false);
    check_fewer(2, HIDDEN);
}

static void those_that_are_turned_are_no_part_of_those_that_are_not(void)
{
    of_gemms("", "transB=1", "transB=1", true);
    check_fewer(1, HIDDEN);
}

static void those_with_another_factor_stay_apart(void)
{
    of_gemms("alpha=0.5", "", "alpha=0.25", true);
    check_fewer(0, HIDDEN);
}

/* Behind the products: of queries it is the attention's, of values it is not. */
static void factors(bool of_values, unsigned fewer)
{
    open_graph();
    uint32_t x = rows_of("x", "B 20 32", HIDDEN);
    uint32_t q = product(x, HIDDEN, HIDDEN, true), k = product(x, HIDDEN, HIDDEN, true),
             v = product(x, HIDDEN, HIDDEN, true);
    q = op(OP_Mul, "", 2, q, scalar(0.6f));
    if (of_values)
        v = op(OP_Mul, "", 2, v, scalar(3));
    attention(q, k, v, SEQ, SEQ, false);
    check_fewer(fewer, HIDDEN);
}

/* Two products and the factor's step. */
static void a_factor_of_queries_is_one_of_scores(void)
{
    factors(false, 3);
}
static void values_with_a_factor_stay_apart(void)
{
    factors(true, 2);
}

/* ---- what does not */
static void a_product_that_others_read_stays_apart(void)
{
    of_one_input(true, true, true, false);
    output(op(OP_MatMul, "", 2, g->nodes[3].out[0], matrix(HIDDEN, 4)));
    CHECK_EQ(graph_infer(g, &err), 0);
    struct exe_info one = info_at(2, PRECISION_FP16);
    fake->library_columns = HIDDEN;
    CHECK_EQ(one.n_steps + 1, info_at(2, PRECISION_FP16).n_steps);
    end_graph();
}

/* 70000 meets zeros only; in BF16 it is there. */
static void what_fp16_cannot_hold_stays_apart(void)
{
    float gamma[HIDDEN] = {0}, big[HIDDEN * HIDDEN];
    const int64_t dims[] = {HIDDEN, HIDDEN};

    for (unsigned i = 1; i < HIDDEN; i++)
        gamma[i] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(big); i++)
        big[i] = i < HIDDEN ? 70000 : (float)(i * 7 % 11) / 20 - 0.25f;
    open_graph();
    uint32_t x = op(OP_LayerNormalization, "axis=-1", 2, input("x", "B 20 32"),
                    constant_of(DT_FP32, 1, dims, gamma));
    uint32_t q = product(x, HIDDEN, HIDDEN, true),
             k = op(OP_MatMul, "", 2, x, constant_of(DT_FP32, 2, dims, big)),
             v = product(x, HIDDEN, HIDDEN, true);
    attention(q, k, v, SEQ, SEQ, false);
    struct exe_info fp16 = info_at(2, PRECISION_FP16), bf16 = info_at(2, PRECISION_BF16);
    check_numbers(2, PRECISION_FP16);
    check_numbers(2, PRECISION_BF16);
    fake->library_columns = HIDDEN;
    CHECK_EQ(fp16.n_steps + 1, info_at(2, PRECISION_FP16).n_steps);
    CHECK_EQ(bf16.n_steps + 2, info_at(2, PRECISION_BF16).n_steps);
    end_graph();
}

/* ---- weights */

/* Of the layer: its scale in FP32; the others in 16 bits, once. */
#define BYTES (HIDDEN * 4 + 2 * (3 * (HIDDEN * HIDDEN + HIDDEN) + HIDDEN * 8))

static void all_batch_sizes_share_one_copy_of_the_weights(void)
{
    struct exe_info info[2];
    struct arena a;

    arena_init(&a);
    of_one_input(true, true, true, false);
    struct exe *one = made_at(1, PRECISION_FP16, &a);
    CHECK(called("cuMemcpyHtoDAsync"));
    forget_calls();
    struct exe *eight = made_at(BATCH_MOST, PRECISION_FP16, &a);
    CHECK(!called("cuMemcpyHtoDAsync"));
    be->exe_info(one, &info[0]);
    be->exe_info(eight, &info[1]);
    CHECK_EQ(info[0].weights_bytes, BYTES);
    CHECK_EQ(info[1].weights_bytes, BYTES);
    be->release(one); /* what the other has stays */
    CHECK(error_of(eight, BATCH_MOST, &a) < 4e-3);
    be->release(eight);
    arena_done(&a);
    end_graph();
}

/* Those side by side are given back, and uploaded anew when they are wanted. */
static void weights_side_by_side_go_where_they_are_refused(void)
{
    struct arena a;

    arena_init(&a);
    of_one_input(true, false, true, false);
    fake->library_columns = HIDDEN;
    struct exe *apart = made_at(1, PRECISION_FP16, &a);
    struct exe_info info;
    be->exe_info(apart, &info);
    CHECK_EQ(info.weights_bytes, BYTES - HIDDEN * 2);
    fake->library_columns = 0;
    forget_calls();
    struct exe *together = made_at(1, PRECISION_FP16, &a);
    CHECK(called("cuMemcpyHtoDAsync"));
    be->exe_info(together, &info);
    CHECK_EQ(info.weights_bytes, BYTES);
    CHECK(error_of(apart, 1, &a) < 4e-3);
    CHECK(error_of(together, 1, &a) < 4e-3);
    be->release(apart);
    be->release(together);
    arena_done(&a);
    end_graph();
}

/* The same matrices in another order, and in another type, are others. */
static void other_orders_and_types_are_other_weights(void)
{
    struct arena a;

    arena_init(&a);
    of_one_input(true, true, true, false);
    struct exe *fp16 = made_at(1, PRECISION_FP16, &a), *bf16 = made_at(1, PRECISION_BF16, &a);
    struct node *q = &g->nodes[1], *v = &g->nodes[3];
    uint32_t *was = q->in;
    q->in = v->in;
    v->in = was;
    CHECK_EQ(graph_infer(g, &err), 0);
    struct exe *turned = made_at(1, PRECISION_FP16, &a);
    CHECK(error_of(turned, 1, &a) < 4e-3);
    v->in = q->in;
    q->in = was;
    CHECK(error_of(fp16, 1, &a) < 4e-3);
    CHECK(error_of(bf16, 1, &a) < 3e-2);
    be->release(fp16);
    be->release(bf16);
    be->release(turned);
    arena_done(&a);
    end_graph();
}

int main(void)
{
    ALONE(queries_keys_and_values_of_one_input_are_one_product);
    ALONE(who_asks_for_a_shape_reads_nothing);
    ALONE(so_they_are_without_a_bias);
    ALONE(a_bias_that_one_has_not_is_zeros);
    ALONE(keys_and_values_of_another_input_are_one_product);
    ALONE(matrices_may_have_different_numbers_of_columns);
    ALONE(gemms_may_be_turned_and_have_a_factor);
    ALONE(those_that_are_turned_are_no_part_of_those_that_are_not);
    ALONE(those_with_another_factor_stay_apart);
    ALONE(a_factor_of_queries_is_one_of_scores);
    ALONE(values_with_a_factor_stay_apart);
    ALONE(a_product_that_others_read_stays_apart);
    ALONE(what_fp16_cannot_hold_stays_apart);
    ALONE(all_batch_sizes_share_one_copy_of_the_weights);
    ALONE(weights_side_by_side_go_where_they_are_refused);
    ALONE(other_orders_and_types_are_other_weights);
    return check_end();
}
