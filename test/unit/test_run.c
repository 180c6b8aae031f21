/* Running a graph node by node: what is late, and If, Loop and Scan. */
#include "../graph_build.h"

static struct tensor values[256];
static struct arena arena;
static struct err err;

static void set(uint32_t v, enum dtype dtype, uint32_t rank, const int64_t *dims, const void *data)
{
    assert(tensor_shape(&values[v], dtype, rank, dims) == 0);
    values[v].data = arena_memdup(&arena, data, values[v].bytes);
}

static void set_floats(uint32_t v, int64_t n, const float *data)
{
    set(v, DT_FP32, 1, &n, data);
}

static void fresh(uint32_t opset)
{
    arena_done(&arena);
    arena_init(&arena);
    memset(values, 0, sizeof(values));
    err = (struct err){0};
    start(opset);
}

static int run(void)
{
    struct graph_run r = {.graph = g, .value = values, .arena = &arena};

    assert(g->n_values <= ARRAY_SIZE(values));
    err = (struct err){0};
    return graph_run(&r, &err);
}

static void gives(uint32_t v, const char *dims, const float *want)
{
    const struct tensor *t = &values[v];
    char buf[80];

    CHECK_STR(err.msg, "");
    CHECK_STR(dims_print(t->rank, t->dims, buf, sizeof(buf)), dims);
    CHECK(t->dtype == DT_FP32 && t->data &&
          (t->bytes == 0 || memcmp(t->data, want, t->bytes) == 0));
}

/* ---- late nodes */

static void shapes_come_from_data_while_it_runs(void)
{
    fresh(17);
    uint32_t x = input("x", "N"), s = input_of("s", DT_INT64, "2");
    uint32_t y = op(OP_Relu, "", 1, op(OP_Reshape, "", 2, x, s));

    set_floats(x, 6, (float[]){1, -2, 3, -4, 5, -6});
    set(s, DT_INT64, 1, (int64_t[]){2}, (int64_t[]){2, -1});
    CHECK_EQ(run(), 0);
    gives(y, "[2,3]", (float[]){1, 0, 3, 0, 5, 0});
}

static void an_error_names_the_node(void)
{
    fresh(17);
    uint32_t x = input("x", "N"), s = input_of("s", DT_INT64, "1");
    (void)named("wide", OP_Reshape, "", 2, x, s);

    set_floats(x, 2, (float[]){1, 2});
    set(s, DT_INT64, 1, (int64_t[]){1}, (int64_t[]){3});
    CHECK_EQ(run(), -EINVAL);
    CHECK_STR(err.msg, "node 0 'wide' (Reshape): shape [2] cannot become [3]");
}

static void a_run_stays_within_its_arena(void)
{
    fresh(17);
    uint32_t s = input_of("s", DT_INT64, "1");
    (void)named("fill", OP_ConstantOfShape, "", 1, s);

    set(s, DT_INT64, 1, (int64_t[]){1}, (int64_t[]){1000000});
    arena.limit_bytes = 100000;
    CHECK_EQ(run(), -ENOMEM);
    CHECK_HAS(err.msg, "node 0 'fill' (ConstantOfShape): 4000000 bytes are needed, ");
    g->limits.tensor_elems = 999999;
    CHECK_EQ(run(), -EINVAL);
    CHECK_HAS(err.msg, "shape [1000000] has more than 999999 elements");
    g->limits.tensor_bytes = 3999999;
    CHECK_EQ(run(), -EINVAL);
    CHECK_HAS(err.msg, "shape [1000000] of FP32 has 4000000 bytes (at most 3999999)");
}

static int kernel_calls;

static int counting_kernel(void *ctx, const struct node *n, const struct tensor *const *in,
                           const struct tensor *const *add, struct tensor *const *out,
                           struct arena *a, struct err *e)
{
    (void)ctx;
    (void)a;
    kernel_calls++;
    int rc = ref_run(n, in, add, out, e);
    out[0]->dims[0]--; /* smaller than its rule said */
    out[0]->bytes -= sizeof(float);
    return rc;
}

static void a_kernel_may_make_its_result_smaller(void)
{
    fresh(17);
    uint32_t x = input("x", "N"), y = op(OP_Neg, "", 1, op(OP_Relu, "", 1, x));
    struct graph_run r = {.graph = g, .value = values, .arena = &arena, .run = counting_kernel};

    set_floats(x, 4, (float[]){1, 2, 3, 4});
    CHECK_EQ(graph_run(&r, &err), 0);
    CHECK_EQ(kernel_calls, 2);
    gives(y, "[2]", (float[]){-1, -2});
}

static void only_the_nodes_that_are_asked_for_run(void)
{
    fresh(17);
    uint32_t x = input("x", "N"), h = op(OP_Relu, "", 1, x), y = op(OP_Neg, "", 1, h);
    struct graph_run r = {
        .graph = g, .value = values, .arena = &arena, .only = (bool[]){false, true}};

    set_floats(h, 1, (float[]){7});
    CHECK_EQ(graph_run(&r, &err), 0);
    gives(y, "[1]", (float[]){-7});
    CHECK_EQ(values[x].dtype, DT_NONE);
}

/* ---- If */

static void a_condition_chooses_the_branch(void)
{
    fresh(17);
    uint32_t flag = input_of("flag", DT_BOOL, ""), x = input("x", "N");
    uint32_t y = op(OP_If, "", 1, flag), in;

    start_body();
    in = plain_value("x");
    output(op(OP_Neg, "", 1, in));
    end_body(y, "then_branch", 1, &in, &x);
    start_body();
    in = plain_value("x");
    output(in); /* the value itself */
    end_body(y, "else_branch", 1, &in, &x);
    set_floats(x, 2, (float[]){1, 2});
    for (uint8_t yes = 0; yes < 2; yes++) {
        set(flag, DT_BOOL, 0, NULL, &yes);
        CHECK_EQ(run(), 0);
        gives(y, "[2]", yes ? (float[]){-1, -2} : (float[]){1, 2});
    }
    set(flag, DT_BOOL, 1, (int64_t[]){2}, "\1\1");
    CHECK_EQ(run(), -EINVAL);
    CHECK_HAS(err.msg, "(If): its condition is not one BOOL");
}

/* ---- Loop */

/* sum = sum + x * i while sum < bound; gives sum, and each sum.  x is captured. */
static uint32_t summing_loop(uint32_t trip, uint32_t flag, uint32_t sum, uint32_t x, float bound)
{
    uint32_t out = op_outs("loop", OP_Loop, "", 2, 3, (uint32_t[]){trip, flag, sum}), in;

    start_body();
    uint32_t i = body_input("i");
    (void)body_input("cond");
    uint32_t s = body_input("sum");
    in = plain_value("x");
    uint32_t next = op(OP_Add, "", 2, s, op(OP_Mul, "", 2, in, op(OP_Cast, "to=1", 1, i)));
    output(op(OP_Less, "", 2, next, scalar(bound)));
    output(next);
    output(next);
    g->values[next].dtype = DT_FP32; /* as the file declares it */
    g->values[next].rank = 0;
    end_body(out, "body", 1, &in, &x);
    return out;
}

static uint32_t build_loop(bool counts, float bound, int64_t n)
{
    fresh(17);
    uint32_t trip = counts ? input_of("n", DT_INT64, "") : VALUE_NONE, sum = input("sum", "");
    uint32_t x = input("x", "");
    uint32_t out = summing_loop(trip, VALUE_NONE, sum, x, bound);

    if (counts)
        set(trip, DT_INT64, 0, NULL, &n);
    set(sum, DT_FP32, 0, NULL, (float[]){10});
    set(x, DT_FP32, 0, NULL, (float[]){2});
    return out;
}

static void a_loop_runs_as_often_as_its_count_says(void)
{
    uint32_t sum = build_loop(true, 1e9f, 4);

    CHECK_EQ(run(), 0);
    gives(sum, "[]", (float[]){22}); /* 10 + 2 (0 + 1 + 2 + 3) */
    gives(sum + 1, "[4]", (float[]){10, 12, 16, 22});
}

static void a_loop_ends_when_its_condition_does(void)
{
    uint32_t sum = build_loop(false, 15, 0);

    CHECK_EQ(run(), 0);
    gives(sum, "[]", (float[]){16});
    gives(sum + 1, "[3]", (float[]){10, 12, 16});
}

static void a_loop_that_never_runs_gives_what_it_was_given(void)
{
    uint32_t sum = build_loop(true, 1e9f, 0);

    CHECK_EQ(run(), 0);
    gives(sum, "[]", (float[]){10});
    gives(sum + 1, "[0]", NULL);
}

static void a_loop_without_end_is_ended(void)
{
    (void)build_loop(false, INFINITY, 0);
    g->limits.loop_iterations = 1000;
    CHECK_EQ(run(), -EINVAL);
    CHECK_HAS(err.msg, "node 0 'loop' (Loop): more than 1000 iterations in one run");
}

/* 100000 times a body that needs hundreds of bytes, in 1 MB: 0.4 MB of it are the joined sums. */
static void memory_does_not_grow_with_the_iterations(void)
{
    uint32_t sum = build_loop(true, INFINITY, 100000);

    arena.limit_bytes = arena.total_bytes + (1u << 20);
    CHECK_EQ(run(), 0);
    CHECK_EQ(values[sum + 1].dims[0], 100000);
    sum = build_loop(true, INFINITY, 1000000);
    arena.limit_bytes = arena.total_bytes + (1u << 20);
    CHECK_EQ(run(), -ENOMEM);
    CHECK_HAS(err.msg, "of the run's ");
}

/* The body gives back one of its inputs as the other: nothing may lie where it dies. */
static void carried_values_may_change_places(void)
{
    fresh(17);
    uint32_t n = input_of("n", DT_INT64, ""), a = input("a", "N"), b = input("b", "N");
    uint32_t out = op_outs("loop", OP_Loop, "", 2, 4, (uint32_t[]){n, VALUE_NONE, a, b});

    start_body();
    (void)body_input("i");
    uint32_t c = body_input("cond"), x = body_input("x"), y = body_input("y");
    output(c);
    output(y);
    output(x);
    end_body(out, "body", 0, NULL, NULL);
    set(n, DT_INT64, 0, NULL, (int64_t[]){3});
    set_floats(a, 1, (float[]){1});
    set_floats(b, 2, (float[]){2, 3});
    CHECK_EQ(run(), 0);
    gives(out, "[2]", (float[]){2, 3});
    gives(out + 1, "[1]", (float[]){1});
}

/* ---- Scan */

/* sum = sum + x, one part of x after the other; gives the last sum, and all. */
static uint32_t summing_scan(uint32_t n_in, const uint32_t *in, const char *attrs)
{
    uint32_t out = op_outs("scan", OP_Scan, attrs, 2, n_in, in);

    start_body();
    uint32_t s = body_input("sum"), x = body_input("x"), next = op(OP_Add, "", 2, s, x);
    output(next);
    output(op(OP_Identity, "", 1, next));
    end_body(out, "body", 0, NULL, NULL);
    return out;
}

static uint32_t build_scan(const char *attrs)
{
    fresh(17);
    uint32_t sum = input("sum", "2"), x = input("x", "3 2");
    uint32_t out = summing_scan(2, (uint32_t[]){sum, x}, attrs);

    set_floats(sum, 2, (float[]){0, 0});
    set(x, DT_FP32, 2, (int64_t[]){3, 2}, (float[]){1, 2, 3, 4, 5, 6});
    return out;
}

static void a_scan_goes_along_the_first_axis(void)
{
    uint32_t out = build_scan("num_scan_inputs=1");

    CHECK_EQ(run(), 0);
    gives(out, "[2]", (float[]){9, 12});
    gives(out + 1, "[3,2]", (float[]){1, 2, 4, 6, 9, 12});
}

static void a_scan_goes_back_and_along_other_axes(void)
{
    uint32_t out = build_scan("num_scan_inputs=1 scan_input_directions=1, scan_output_axes=-1, "
                              "scan_output_directions=1,");

    CHECK_EQ(run(), 0);
    gives(out, "[2]", (float[]){9, 12});
    gives(out + 1, "[2,3]", (float[]){9, 8, 5, 12, 10, 6}); /* sums 5 6, 8 10, 9 12 */
    out = build_scan("num_scan_inputs=1 scan_input_axes=1,");
    set_floats(g->in[0], 3, (float[]){0, 0, 0});
    CHECK_EQ(run(), 0);
    gives(out, "[3]", (float[]){3, 7, 11});
}

static void a_scan_of_opset_8_has_a_batch_and_lengths(void)
{
    fresh(8);
    uint32_t len = input_of("len", DT_INT64, "2"), sum = input("sum", "2 1"),
             x = input("x", "2 3 1");
    uint32_t out = summing_scan(3, (uint32_t[]){len, sum, x}, "num_scan_inputs=1");

    set(len, DT_INT64, 1, (int64_t[]){2}, (int64_t[]){3, 2});
    set(sum, DT_FP32, 2, (int64_t[]){2, 1}, (float[]){0, 10});
    set(x, DT_FP32, 3, (int64_t[]){2, 3, 1}, (float[]){1, 2, 3, 4, 5, 6});
    CHECK_EQ(run(), 0);
    gives(out, "[2,1]", (float[]){6, 19});
    gives(out + 1, "[2,3,1]", (float[]){1, 3, 6, 14, 19, 0});
}

static void sequences_must_be_of_one_length(void)
{
    fresh(17);
    uint32_t x = input("x", "3"), y = input("y", "2");
    uint32_t out = op_outs("scan", OP_Scan, "num_scan_inputs=2", 1, 2, (uint32_t[]){x, y});

    start_body();
    output(op(OP_Add, "", 2, body_input("x"), body_input("y")));
    end_body(out, "body", 0, NULL, NULL);
    set_floats(x, 3, (float[]){1, 2, 3});
    set_floats(y, 2, (float[]){1, 2});
    CHECK_EQ(run(), -EINVAL);
    CHECK_HAS(err.msg, "(Scan): sequences of 3 and of 2 parts");
}

int main(void)
{
    arena_init(&arena);
    RUN(shapes_come_from_data_while_it_runs);
    RUN(an_error_names_the_node);
    RUN(a_run_stays_within_its_arena);
    RUN(a_kernel_may_make_its_result_smaller);
    RUN(only_the_nodes_that_are_asked_for_run);
    RUN(a_condition_chooses_the_branch);
    RUN(a_loop_runs_as_often_as_its_count_says);
    RUN(a_loop_ends_when_its_condition_does);
    RUN(a_loop_that_never_runs_gives_what_it_was_given);
    RUN(a_loop_without_end_is_ended);
    RUN(memory_does_not_grow_with_the_iterations);
    RUN(carried_values_may_change_places);
    RUN(a_scan_goes_along_the_first_axis);
    RUN(a_scan_goes_back_and_along_other_axes);
    RUN(a_scan_of_opset_8_has_a_batch_and_lengths);
    RUN(sequences_must_be_of_one_length);
    arena_done(&arena);
    graph_free(g);
    return check_end();
}
