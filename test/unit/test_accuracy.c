/* How far off outputs are, and the inputs that are made up to find out. */
#include "../graph_build.h"
#include <gpulet/accuracy.h>

static struct accuracy_output compared(enum dtype t, uint32_t rank, const int64_t *dims,
                                       const void *want, const void *got)
{
    struct tensor w = {.data = (void *)(uintptr_t)want}, g2 = {.data = (void *)(uintptr_t)got};
    struct accuracy_output ret;

    CHECK_EQ(tensor_shape(&w, t, rank, dims), 0);
    CHECK_EQ(tensor_shape(&g2, t, rank, dims), 0);
    accuracy_of(&w, &g2, &ret);
    return ret;
}

static struct accuracy_output floats(int64_t rows, int64_t columns, const float *want,
                                     const float *got)
{
    return compared(DT_FP32, 2, (int64_t[]){rows, columns}, want, got);
}

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-9;
}

/* The largest is 4; off by 0 and 1; the squares of {3, 4} are 25, that of the difference 1. */
static void errors_are_relative_to_the_largest_and_to_the_whole(void)
{
    struct accuracy_output o = floats(1, 2, (float[]){3, -4}, (float[]){3, -3});

    CHECK_EQ(o.kind, ACCURACY_NUMBERS);
    CHECK_EQ(o.n, 2);
    CHECK(near(o.max_error, 0.25));
    CHECK(near(o.rms_error, 0.2));
    CHECK_STR(accuracy_why(o.kind), "");
}

static void equal_outputs_are_off_by_nothing_zeros_too(void)
{
    struct accuracy_output o = floats(2, 2, (float[]){1, 2, 3, 4}, (float[]){1, 2, 3, 4});
    struct accuracy_output zero = floats(1, 2, (float[]){0, 0}, (float[]){0, -0.f});

    CHECK(o.kind == ACCURACY_NUMBERS && o.max_error == 0 && o.rms_error == 0 && o.same_top == 1);
    CHECK(zero.kind == ACCURACY_NUMBERS && zero.max_error == 0 && zero.rms_error == 0);
}

static void nothing_is_relative_to_zero(void)
{
    struct accuracy_output o = floats(1, 2, (float[]){0, 0}, (float[]){0, 1});

    CHECK_EQ(o.kind, ACCURACY_ZERO);
    CHECK_HAS(accuracy_why(o.kind), "zero throughout in fp32");
}

/* Of four one overflows and one is NaN; the other two are 2 and 4, the latter off by 1. */
static void what_is_not_finite_is_counted_and_is_no_error(void)
{
    struct accuracy_output o = floats(2, 2, (float[]){2, 7, 9, 4}, (float[]){2, INFINITY, NAN, 5});

    CHECK_EQ(o.kind, ACCURACY_NUMBERS);
    CHECK_EQ(o.n_overflowed, 2);
    CHECK(near(o.max_error, 0.25));
    CHECK(near(o.rms_error, sqrt(1 / 20.)));
    CHECK(o.same_top == 0); /* neither row can be told */
}

static void what_is_not_finite_in_fp32_says_nothing(void)
{
    struct accuracy_output some =
        floats(2, 2, (float[]){-INFINITY, 2, 3, NAN}, (float[]){-INFINITY, 2, 3, 8});
    struct accuracy_output all = floats(1, 2, (float[]){NAN, INFINITY}, (float[]){1, 2});

    CHECK(some.kind == ACCURACY_NUMBERS && some.max_error == 0 && some.n_overflowed == 0);
    CHECK(some.same_top == -1);
    CHECK_EQ(all.kind, ACCURACY_NOT_FINITE);
    CHECK_EQ(all.n_overflowed, 0);
}

static void where_all_is_too_large_no_error_is_claimed(void)
{
    struct accuracy_output o = floats(1, 2, (float[]){1, 2}, (float[]){INFINITY, -INFINITY});

    CHECK_EQ(o.kind, ACCURACY_OVERFLOW);
    CHECK_EQ(o.n_overflowed, 2);
    CHECK(o.max_error == 0);
    CHECK_HAS(accuracy_why(o.kind), "nothing of it is finite");
}

/* Rows: the same top; another one; the first of two equal ones counts. */
static void rows_of_scores_agree_by_their_largest_entry(void)
{
    const float want[] = {1, 3, 2, 5, 4, 0, 7, 7, 1}, got[] = {1, 4, 2, 4, 5, 0, 7, 6, 1};
    struct accuracy_output o = floats(3, 3, want, got);

    CHECK(near(o.same_top, 2 / 3.));
    CHECK(floats(3, 1, want, got).same_top == -1);
    CHECK(compared(DT_FP32, 3, (int64_t[]){1, 3, 3}, want, got).same_top == -1);
    CHECK(floats(0, 3, want, got).same_top == -1);
    CHECK(compared(DT_INT64, 2, (int64_t[]){1, 2}, (int64_t[]){1, 2}, (int64_t[]){1, 2}).same_top ==
          -1);
}

static void other_types_are_compared_by_equal_entries(void)
{
    struct accuracy_output o = compared(DT_INT64, 1, (int64_t[]){4}, (int64_t[]){1, 2, 3, 1 << 20},
                                        (int64_t[]){1, 0, 3, 1 << 20});
    struct accuracy_output none = compared(DT_BOOL, 1, (int64_t[]){0}, NULL, NULL);

    CHECK_EQ(o.kind, ACCURACY_EQUAL);
    CHECK(near(o.same, 0.75));
    CHECK(none.kind == ACCURACY_EQUAL && none.same == 1);
}

/* 1 and 2 in both; 65504 and 2^-24 are the ends of FP16. */
static void numbers_of_16_bits_are_read(void)
{
    const uint16_t fp16[] = {0x3c00, 0x4000, 0x7bff, 0x0001}, bf16[] = {0x3f80, 0x4000};
    const uint16_t fp16_off[] = {0x3c00, 0x4000, 0x0000, 0x0001}, fp16_over[] = {0x3c00, 0x7c00};
    struct accuracy_output o = compared(DT_FP16, 1, (int64_t[]){4}, fp16, fp16_off);

    CHECK(near(o.max_error, 1));
    CHECK_EQ(compared(DT_FP16, 1, (int64_t[]){2}, fp16, fp16_over).n_overflowed, 1);
    o = compared(DT_BF16, 1, (int64_t[]){2}, bf16, (uint16_t[]){0x3f80, 0x3f80});
    CHECK(near(o.max_error, 0.5));
    o = compared(DT_FP64, 1, (int64_t[]){2}, (double[]){1e300, 0}, (double[]){2e300, 0});
    CHECK(near(o.max_error, 1) && near(o.rms_error, 1));
}

static void other_shapes_and_strings_are_not_compared(void)
{
    struct tensor a = {.data = (float[]){1, 2}}, b = a, text = {.dtype = DT_STRING, .rank = 1};
    struct accuracy_output o;

    CHECK_EQ(tensor_shape(&a, DT_FP32, 2, (int64_t[]){1, 2}), 0);
    CHECK_EQ(tensor_shape(&b, DT_FP32, 2, (int64_t[]){2, 1}), 0);
    accuracy_of(&a, &b, &o);
    CHECK_EQ(o.kind, ACCURACY_SHAPES);
    CHECK(o.same_top == -1);
    accuracy_of(&text, &text, &o);
    CHECK_EQ(o.kind, ACCURACY_TEXT);
    accuracy_of(&text, &a, &o);
    CHECK_EQ(o.kind, ACCURACY_SHAPES);
}

static void the_worst_output_is_one_that_overflows_or_is_off_most(void)
{
    struct accuracy_output out[] = {{.max_error = 0.1}, {.max_error = 0.3}, {.max_error = 0.2}};
    struct accuracy a = {.n_out = ARRAY_SIZE(out), .out = out};

    CHECK_EQ(accuracy_worst(&a), 1);
    out[2].n_overflowed = 1;
    CHECK_EQ(accuracy_worst(&a), 2);
    struct accuracy_output ints[] = {{.kind = ACCURACY_EQUAL, .same = 1},
                                     {.kind = ACCURACY_EQUAL, .same = 0.5}};
    a = (struct accuracy){.n_out = ARRAY_SIZE(ints), .out = ints};
    CHECK_EQ(accuracy_worst(&a), 1);
}

/* ---- made-up inputs */

#define N 4096

static struct bound *bound_here(struct arena *a)
{
    struct shape_key key = {.n = g->n_syms};
    struct bound *b = NULL;
    struct err err;

    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_bind(g, &key, a, &b, &err), 0);
    return b;
}

static void floats_are_bell_shaped_and_the_same_for_a_seed(void)
{
    static float x[N], again[N], other[N];
    struct arena a;
    double sum = 0, squares = 0, top = 0;

    start(17);
    output(op(OP_Relu, "", 1, input("x", "4096")));
    arena_init(&a);
    struct bound *b = bound_here(&a);
    CHECK_EQ(inputs_make_up(b, 1, false, &a, (void *[]){x}), 0);
    CHECK_EQ(inputs_make_up(b, 1, true, &a, (void *[]){again}), 0);
    CHECK_EQ(inputs_make_up(b, 2, false, &a, (void *[]){other}), 0);
    for (unsigned i = 0; i < N; i++) {
        sum += (double)x[i];
        squares += (double)(x[i] * x[i]);
        top = fmax(top, fabs((double)x[i]));
    }
    CHECK(memcmp(x, again, sizeof(x)) == 0);
    CHECK(memcmp(x, other, sizeof(x)) != 0);
    CHECK(fabs(sum / N) < 0.1); /* a deviation of 1/64 */
    CHECK(fabs(squares / N - 1) < 0.1);
    CHECK(top > 2.5 && top < 3.5);
    arena_done(&a);
}

/* Most of N draws of so few values bring all of them. */
static void integers_are_rows_of_the_table_that_they_choose_from(void)
{
    static int64_t ids[N], mask[N];
    static const float table[30 * 2];
    struct arena a;
    int64_t top = 0, top_mask = 0;

    start(17);
    uint32_t id = input_of("ids", DT_INT64, "4096"), m = input_of("mask", DT_INT64, "4096");
    uint32_t moved = op(OP_Flatten, "axis=0", 1, op(OP_Identity, "", 1, id));
    output(op(OP_Gather, "axis=0", 2, constant_of(DT_FP32, 2, (int64_t[]){30, 2}, table), moved));
    output(op(OP_Identity, "", 1, m));
    arena_init(&a);
    struct bound *b = bound_here(&a);
    CHECK_EQ(inputs_make_up(b, 1, false, &a, (void *[]){ids, mask}), 0);
    for (unsigned i = 0; i < N; i++) {
        CHECK(ids[i] >= 0 && mask[i] >= 0);
        top = MAX(top, ids[i]);
        top_mask = MAX(top_mask, mask[i]);
    }
    CHECK_EQ(top, 29);
    CHECK_EQ(top_mask, 1);
    CHECK_EQ(inputs_make_up(b, 1, true, &a, (void *[]){ids, mask}), 0);
    for (unsigned i = 0; i < N; i++)
        CHECK(ids[i] == 0 && mask[i] == 0);
    arena_done(&a);
}

static void bytes_are_pixels_and_strings_are_refused(void)
{
    static uint8_t pixel[N];
    static uint16_t half[N];
    struct arena a;
    unsigned top = 0;

    start(17);
    uint32_t x = input_of("x", DT_UINT8, "4096"), h = input_of("h", DT_FP16, "4096");
    output(op(OP_Identity, "", 1, x));
    output(op(OP_Identity, "", 1, h));
    arena_init(&a);
    CHECK_EQ(inputs_make_up(bound_here(&a), 1, false, &a, (void *[]){pixel, half}), 0);
    for (unsigned i = 0; i < N; i++) {
        top = MAX(top, (unsigned)pixel[i]);
        CHECK((half[i] & 0x7fff) >= 0x3400 && (half[i] & 0x7fff) < 0x4000); /* 0.25 to 2 */
    }
    CHECK_EQ(top, 255);
    start(17);
    output(op(OP_Identity, "", 1, input_of("x", DT_STRING, "2")));
    CHECK_EQ(inputs_make_up(bound_here(&a), 1, false, &a, (void *[]){pixel}), -ENOTSUP);
    arena_done(&a);
}

int main(void)
{
    RUN(errors_are_relative_to_the_largest_and_to_the_whole);
    RUN(equal_outputs_are_off_by_nothing_zeros_too);
    RUN(nothing_is_relative_to_zero);
    RUN(what_is_not_finite_is_counted_and_is_no_error);
    RUN(what_is_not_finite_in_fp32_says_nothing);
    RUN(where_all_is_too_large_no_error_is_claimed);
    RUN(rows_of_scores_agree_by_their_largest_entry);
    RUN(other_types_are_compared_by_equal_entries);
    RUN(numbers_of_16_bits_are_read);
    RUN(other_shapes_and_strings_are_not_compared);
    RUN(the_worst_output_is_one_that_overflows_or_is_off_most);
    RUN(floats_are_bell_shaped_and_the_same_for_a_seed);
    RUN(integers_are_rows_of_the_table_that_they_choose_from);
    RUN(bytes_are_pixels_and_strings_are_refused);
    graph_free(g);
    return check_end();
}
