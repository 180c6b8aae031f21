/* Reading and writing by index, selecting, rearranging and Einsum, by hand. */
#include "ref_call.h"
#include <gpulet/einsum.h>

#define BOOLS(data, n) tensor_of(DT_BOOL, data, INTS(n))

/* ---- by index */

static void gather_elements_picks_along_one_axis(void)
{
    float y[4], *x = F32(1, 2, 3, 4);
    struct call c = {.op = OP_GatherElements,
                     .attr = {number("axis", 1)},
                     .in = {FLOATS(x, 2, 2), LONGS(I64(0, 0, 1, -2), 2, 2)},
                     .out = {FLOATS(y, 2, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 1, 4, 3);
    c.in[1].data = I64(0, 0, 2, 0);
    CHECK_EQ(run(&c), -EINVAL);
    CHECK_HAS(last.msg, "index 2 is outside of a dimension of size 2");
}

static void gather_nd_reads_a_block_for_each_tuple(void)
{
    float y[4], *x = F32(0, 1, 2, 3);
    struct call c = {.op = OP_GatherND,
                     .in = {FLOATS(x, 2, 2), LONGS(I64(0, 0, 1, -1), 2, 2)},
                     .out = {FLOATS(y, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 3);
    c.attr[0] = number("batch_dims", 1); /* one index a row */
    c.in[1] = LONGS(I64(1, 0), 2, 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 2);
    c.in[1].data = I64(1, -3);
    CHECK_EQ(run(&c), -EINVAL);
    CHECK_HAS(last.msg, "-3");
}

static void scatter_elements_writes_adds_and_keeps_the_largest(void)
{
    float y[3], *x = F32(1, 2, 3), *up = F32(10, 20);
    struct call c = {.op = OP_ScatterElements,
                     .opset = 18,
                     .in = {FLOATS(x, 3), LONGS(I64(1, -1), 2), FLOATS(up, 2)},
                     .out = {FLOATS(y, 3)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 10, 20);
    c.attr[0] = word("reduction", "add");
    c.in[1].data = I64(0, 0);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 31, 2, 3);
    c.attr[0] = word("reduction", "max");
    c.in[2].data = F32(0, 5);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 5, 2, 3);
    c.attr[0] = word("reduction", "median");
    CHECK_EQ(run(&c), -ENOTSUP);
    c.attr[0] = (struct attr){0};
    c.in[1].data = I64(0, 3);
    CHECK_EQ(run(&c), -EINVAL);
}

static void scatter_nd_writes_a_block_for_each_tuple(void)
{
    float y[4], *x = F32(1, 2, 3, 4);
    struct call c = {.op = OP_ScatterND,
                     .opset = 18,
                     .in = {FLOATS(x, 2, 2), LONGS(I64(1), 1, 1), FLOATS(F32(7, 8), 1, 2)},
                     .out = {FLOATS(y, 2, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 2, 7, 8);
    c.attr[0] = word("reduction", "mul");
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 2, 21, 32);
    c.in[1].data = I64(2);
    CHECK_EQ(run(&c), -EINVAL);
    CHECK_HAS(last.msg, "index 2");
}

static void a_cache_is_written_from_each_rows_own_place(void)
{
    float y[6], *past = F32(0, 0, 0, 0, 0, 0), *new = F32(1, 2, 3, 4);
    struct call c = {.op = OP_TensorScatter,
                     .opset = 24,
                     .in = {FLOATS(past, 2, 3, 1), FLOATS(new, 2, 2, 1), LONGS(I64(1, 0), 2)},
                     .out = {FLOATS(y, 2, 3, 1)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 1, 2, 3, 4, 0);
    c.in[2].data = I64(2, 0);
    CHECK_EQ(run(&c), -EINVAL);
    c.attr[0] = word("mode", "circular");
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 2, 0, 1, 3, 4, 0);
}

static void one_hot_and_eye_like_write_ones(void)
{
    float y[6];
    struct call c = {.op = OP_OneHot,
                     .in = {LONGS(I64(2, -3), 2), LONGS(I64(3), 1), FLOATS(F32(0, 1), 2)},
                     .out = {FLOATS(y, 2, 3)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 0, 1, 1, 0, 0);
    c.in[0].data = I64(3, -4); /* outside: cold everywhere */
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 0, 0, 0, 0, 0);
    CHECK_EQ(RUN_OP(.op = OP_EyeLike, .attr = {number("k", 1)},
                    .in = {FLOATS(F32(9, 9, 9, 9, 9, 9), 2, 3)}, .out = {FLOATS(y, 2, 3)}),
             0);
    CHECK_FLOATS(y, 0, 1, 0, 0, 0, 1);
}

/* ---- a size that depends on data */

static void compress_keeps_what_is_true_and_shrinks_its_result(void)
{
    bool keep[] = {false, true};
    float y[4], *x = F32(1, 2, 3, 4);
    struct call c = {.op = OP_Compress,
                     .attr = {number("axis", 0)},
                     .in = {FLOATS(x, 2, 2), BOOLS(keep, 2)},
                     .out = {FLOATS(y, 2, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 3, 4);
    CHECK_EQ(c.out[0].dims[0], 1);
    CHECK_EQ(c.out[0].bytes, 8);
    c.attr[0] = (struct attr){0}; /* flat */
    c.out[0] = FLOATS(y, 4);
    CHECK_EQ(run(&c), 0);
    CHECK_EQ(c.out[0].dims[0], 1);
    CHECK_FLOATS(y, 2);
}

static void non_zero_lists_indices_by_dimension(void)
{
    int64_t y[8];
    struct call c = {
        .op = OP_NonZero, .in = {FLOATS(F32(0, -0.0f, 5, 6), 2, 2)}, .out = {LONGS(y, 2, 4)}};

    CHECK_EQ(run(&c), 0);
    CHECK_EQ(c.out[0].dims[1], 2);
    CHECK_LONGS(y, 1, 1, 0, 1);
}

static void unique_sorts_or_keeps_the_order_of_appearance(void)
{
    int64_t first[5], which[5], times[5];
    float y[5];
    struct call c = {.op = OP_Unique,
                     .in = {FLOATS(F32(2, 1, 1, 3, 2), 5)},
                     .out = {FLOATS(y, 5), LONGS(first, 5), LONGS(which, 5)}};
    struct tensor in_t = c.in[0], counts = LONGS(times, 5);
    const struct tensor *in[] = {&in_t};
    struct tensor *out[] = {&c.out[0], &c.out[1], &c.out[2], &counts};
    struct attr unsorted = number("sorted", 0);
    struct node n = {
        .name = "n", .op = OP_Unique, .opset = 11, .n_in = 1, .n_out = 4, .attr = &unsorted};

    CHECK_EQ(ref_run(&n, in, NULL, out, &last), 0);
    CHECK_EQ(c.out[0].dims[0], 3);
    CHECK_FLOATS(y, 1, 2, 3);
    CHECK_LONGS(first, 1, 0, 3);
    CHECK_LONGS(which, 1, 0, 0, 2, 1);
    CHECK_LONGS(times, 2, 2, 1);
    c.out[0] = FLOATS(y, 5);
    c.out[1] = LONGS(first, 5);
    counts = LONGS(times, 5);
    n.n_attr = 1;
    CHECK_EQ(ref_run(&n, in, NULL, out, &last), 0);
    CHECK_FLOATS(y, 2, 1, 3);
    CHECK_LONGS(first, 0, 1, 3);
    CHECK_LONGS(which, 0, 1, 1, 2, 0);
    CHECK_LONGS(times, 2, 2, 1);
}

static void unique_compares_whole_slices(void)
{
    float y[6];
    struct call c = {.op = OP_Unique,
                     .attr = {number("axis", 0)},
                     .in = {FLOATS(F32(3, 4, 1, 2, 3, 4), 3, 2)},
                     .out = {FLOATS(y, 3, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_EQ(c.out[0].dims[0], 2);
    CHECK_FLOATS(y, 1, 2, 3, 4);
}

static void of_equals_top_k_takes_the_first(void)
{
    float y[3];
    int64_t at[3];
    struct call c = {.op = OP_TopK,
                     .in = {FLOATS(F32(5, 7, 7, 1), 4), LONGS(I64(3), 1)},
                     .out = {FLOATS(y, 3), LONGS(at, 3)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 7, 7, 5);
    CHECK_LONGS(at, 1, 2, 0);
    c.attr[0] = number("largest", 0);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 5, 7);
    CHECK_LONGS(at, 3, 0, 1);
}

/* ---- space, time, axes */

static void blocks_of_channels_become_pixels_and_back(void)
{
    float y[8], z[8], *x = F32(0, 1, 2, 3, 4, 5, 6, 7);
    struct call c = {.op = OP_DepthToSpace,
                     .attr = {number("blocksize", 2)},
                     .in = {FLOATS(x, 1, 8, 1, 1)},
                     .out = {FLOATS(y, 1, 2, 2, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 2, 4, 6, 1, 3, 5, 7);
    CHECK_EQ(RUN_OP(.op = OP_SpaceToDepth, .attr = {number("blocksize", 2)},
                    .in = {FLOATS(y, 1, 2, 2, 2)}, .out = {FLOATS(z, 1, 8, 1, 1)}),
             0);
    CHECK_FLOATS(z, 0, 1, 2, 3, 4, 5, 6, 7);
    c.attr[1] = word("mode", "CRD");
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 1, 2, 3, 4, 5, 6, 7);
}

static void each_sequence_is_reversed_up_to_its_length(void)
{
    float y[6], *x = F32(1, 2, 3, 4, 5, 6);
    struct call c = {.op = OP_ReverseSequence,
                     .attr = {number("batch_axis", 0), number("time_axis", 1)},
                     .in = {FLOATS(x, 2, 3), LONGS(I64(2, 3), 2)},
                     .out = {FLOATS(y, 2, 3)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 2, 1, 3, 6, 5, 4);
    c.in[1].data = I64(2, 4);
    CHECK_EQ(run(&c), -EINVAL);
    CHECK_HAS(last.msg, "4 (0 to 3)");
    c.attr[0] = number("batch_axis", INT64_MAX);
    CHECK_EQ(run(&c), -EINVAL);
}

static void sums_run_forwards_backwards_and_without_the_own_element(void)
{
    float y[3];
    struct call c = {
        .op = OP_CumSum, .in = {FLOATS(F32(1, 2, 4), 3), LONGS(I64(-1), 1)}, .out = {FLOATS(y, 3)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 3, 7);
    c.attr[0] = number("exclusive", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 0, 1, 3);
    c.attr[1] = number("reverse", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 6, 4, 0);
}

static void products_run_forwards_backwards_and_without_the_own_element(void)
{
    float y[3];
    int64_t whole[3];
    struct call c = {.op = OP_CumProd,
                     .opset = 26,
                     .in = {FLOATS(F32(3, 2, 4), 3), LONGS(I64(-1), 1)},
                     .out = {FLOATS(y, 3)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 3, 6, 24);
    c.attr[0] = number("exclusive", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 1, 3, 6);
    c.attr[1] = number("reverse", 1);
    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 8, 4, 1);
    c.in[0] = LONGS(I64(3, -2, INT64_MAX), 3);
    c.out[0] = LONGS(whole, 3);
    CHECK_EQ(run(&c), 0);
    CHECK_LONGS(whole, 2, INT64_MAX, 1); /* what does not fit wraps */
}

static void hardmax_marks_the_first_of_the_largest(void)
{
    float y[4];

    CHECK_EQ(
        RUN_OP(.op = OP_Hardmax, .in = {FLOATS(F32(1, 3, 3, 2), 1, 4)}, .out = {FLOATS(y, 1, 4)}),
        0);
    CHECK_FLOATS(y, 0, 1, 0, 0);
}

static void determinants_pivot(void)
{
    float y[2];

    CHECK_EQ(RUN_OP(.op = OP_Det, .in = {FLOATS(F32(0, 2, 3, 4, 1, 2, 2, 4), 2, 2, 2)},
                    .out = {FLOATS(y, 2)}),
             0);
    CHECK_FLOATS(y, -6, 0);
}

/* ---- Einsum */

static int einsum(const char *equation, struct tensor a, struct tensor b, struct tensor y)
{
    return RUN_OP(.op = OP_Einsum, .attr = {word("equation", equation)}, .in = {a, b}, .out = {y});
}

static void an_equation_names_products_sums_and_diagonals(void)
{
    float y[4];
    struct tensor a = FLOATS(F32(1, 2, 3, 4), 2, 2), b = FLOATS(F32(1, 10), 2), none = {0};

    CHECK_EQ(einsum("ij,j->i", a, b, FLOATS(y, 2)), 0);
    CHECK_FLOATS(y, 21, 43);
    CHECK_EQ(einsum("ij, i", a, b, FLOATS(y, 2)), 0); /* what is named once: j */
    CHECK_FLOATS(y, 31, 42);
    CHECK_EQ(einsum("ii->", a, none, SCALAR(DT_FP32, y)), 0);
    CHECK_FLOATS(y, 5);
    CHECK_EQ(einsum("...i->i...", a, none, FLOATS(y, 2, 2)), 0);
    CHECK_FLOATS(y, 1, 3, 2, 4);
    CHECK_EQ(einsum("...i,...->...", a, b, FLOATS(y, 2)), 0);
    CHECK_FLOATS(y, 3, 70);
}

static void equations_that_make_no_sense_are_refused(void)
{
    float y[4];
    struct tensor a = FLOATS(F32(1, 2, 3, 4), 2, 2), b = FLOATS(F32(1, 10, 5), 3);
    static const char *const bad[] = {"ij,j->i",  "ij,k->l", "ij,kl->i", "i.j,k->i", "ij,k->ii",
                                      "ij,k,l->", "ij",      "ij,k-",    "",         "1j,k->j"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CHECK_EQ(einsum(bad[i], a, b, FLOATS(y, 2)), -EINVAL);
        CHECK_HAS(last.msg, "equation '");
    }
}

int main(void)
{
    RUN(gather_elements_picks_along_one_axis);
    RUN(gather_nd_reads_a_block_for_each_tuple);
    RUN(scatter_elements_writes_adds_and_keeps_the_largest);
    RUN(scatter_nd_writes_a_block_for_each_tuple);
    RUN(a_cache_is_written_from_each_rows_own_place);
    RUN(one_hot_and_eye_like_write_ones);
    RUN(compress_keeps_what_is_true_and_shrinks_its_result);
    RUN(non_zero_lists_indices_by_dimension);
    RUN(unique_sorts_or_keeps_the_order_of_appearance);
    RUN(unique_compares_whole_slices);
    RUN(of_equals_top_k_takes_the_first);
    RUN(blocks_of_channels_become_pixels_and_back);
    RUN(each_sequence_is_reversed_up_to_its_length);
    RUN(sums_run_forwards_backwards_and_without_the_own_element);
    RUN(products_run_forwards_backwards_and_without_the_own_element);
    RUN(hardmax_marks_the_first_of_the_largest);
    RUN(determinants_pivot);
    RUN(an_equation_names_products_sums_and_diagonals);
    RUN(equations_that_make_no_sense_are_refused);
    return check_end();
}
