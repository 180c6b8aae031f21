/* Windows, transforms of four numbers, random numbers that are not. */
#include "ref_call.h"

static void windows_are_cosines(void)
{
    int64_t size = 4;
    float y[4];

    CHECK_EQ(RUN_OP(.op = OP_HannWindow, .in = {SCALAR(DT_INT64, &size)}, .out = {FLOATS(y, 4)}),
             0);
    CHECK_FLOATS(y, 0, 0.5f, 1, 0.5f);
    CHECK_EQ(
        RUN_OP(.op = OP_BlackmanWindow, .in = {SCALAR(DT_INT64, &size)}, .out = {FLOATS(y, 4)}), 0);
    CHECK_FLOATS(y, 0, 0.34f, 1, 0.34f);
    size = 3;
    CHECK_EQ(RUN_OP(.op = OP_HannWindow, .attr = {number("periodic", 0)},
                    .in = {SCALAR(DT_INT64, &size)}, .out = {FLOATS(y, 3)}),
             0);
    CHECK_FLOATS(y, 0, 1, 0);
}

static void a_constant_signal_has_one_frequency(void)
{
    float x[] = {1, 1, 1, 1}, y[8], back[8];

    CHECK_EQ(RUN_OP(.op = OP_DFT, .in = {FLOATS(x, 1, 4, 1)}, .out = {FLOATS(y, 1, 4, 2)}), 0);
    CHECK_FLOATS(y, 4, 0, 0, 0, 0, 0, 0, 0);
    CHECK_EQ(RUN_OP(.op = OP_DFT, .attr = {number("inverse", 1)}, .in = {FLOATS(y, 1, 4, 2)},
                    .out = {FLOATS(back, 1, 4, 2)}),
             0);
    CHECK_FLOATS(back, 1, 0, 1, 0, 1, 0, 1, 0);
}

/* One pulse at 1 turns by -90 degrees from bin to bin. */
static void half_a_spectrum_is_enough_for_real_numbers(void)
{
    float y[6], back[4];

    CHECK_EQ(RUN_OP(.op = OP_DFT, .opset = 20, .attr = {number("onesided", 1)},
                    .in = {FLOATS(F32(0, 1, 0, 0), 4, 1)}, .out = {FLOATS(y, 3, 2)}),
             0);
    CHECK_FLOATS(y, 1, 0, 0, -1, -1, 0);
    CHECK_EQ(RUN_OP(.op = OP_DFT, .opset = 20,
                    .attr = {number("onesided", 1), number("inverse", 1)}, .in = {FLOATS(y, 3, 2)},
                    .out = {FLOATS(back, 4, 1)}),
             0);
    CHECK_FLOATS(back, 0, 1, 0, 0);
}

static void a_signal_is_cut_into_frames(void)
{
    float y[12];
    int64_t step = 1, length = 2;

    CHECK_EQ(RUN_OP(.op = OP_STFT,
                    .in = {FLOATS(F32(1, 1, 3, 3), 1, 4, 1),
                           SCALAR(DT_INT64, &step),
                           {0},
                           SCALAR(DT_INT64, &length)},
                    .out = {FLOATS(y, 1, 3, 2, 2)}),
             0);
    CHECK_FLOATS(y, 2, 0, 0, 0, 4, 0, -2, 0, 6, 0, 0, 0); /* sums and differences of neighbours */
}

static void an_edge_beyond_the_spectrum_is_refused(void)
{
    int64_t bands = 2, dft = 4, rate = 8;
    float lo = 0, hi = 100, y[6];

    CHECK_EQ(RUN_OP(.op = OP_MelWeightMatrix,
                    .in = {SCALAR(DT_INT64, &bands), SCALAR(DT_INT64, &dft),
                           SCALAR(DT_INT64, &rate), SCALAR(DT_FP32, &lo), SCALAR(DT_FP32, &hi)},
                    .out = {FLOATS(y, 3, 2)}),
             -EINVAL);
}

/* ---- random numbers */
static void the_same_seed_gives_the_same_numbers(void)
{
    float a[1000], b[1000], c[1000], sum = 0;
    struct call call = {
        .op = OP_RandomUniform, .attr = {real("seed", 5)}, .out = {FLOATS(a, 1000)}};

    CHECK_EQ(run(&call), 0);
    call.out[0].data = b;
    CHECK_EQ(run(&call), 0);
    CHECK(memcmp(a, b, sizeof(a)) == 0);
    call.attr[0].f = 6;
    call.out[0].data = c;
    CHECK_EQ(run(&call), 0);
    CHECK(memcmp(a, c, sizeof(a)) != 0);
    for (size_t i = 0; i < ARRAY_SIZE(a); i++) {
        CHECK(a[i] >= 0 && a[i] < 1);
        sum += a[i];
    }
    CHECK(sum > 450 && sum < 550);
}

static void without_a_seed_the_nodes_name_decides(void)
{
    float a[4], b[4];
    struct call call = {.op = OP_RandomNormal, .out = {FLOATS(a, 4)}};

    CHECK_EQ(run(&call), 0);
    call.out[0].data = b;
    CHECK_EQ(run(&call), 0);
    CHECK(memcmp(a, b, sizeof(a)) == 0);
}

static void certain_things_happen_and_others_do_not(void)
{
    float y[4];
    int32_t pick[6];

    CHECK_EQ(RUN_OP(.op = OP_Bernoulli, .in = {FLOATS(F32(0, 1, 1, 0), 4)}, .out = {FLOATS(y, 4)}),
             0);
    CHECK_FLOATS(y, 0, 1, 1, 0);
    CHECK_EQ(RUN_OP(.op = OP_Bernoulli, .in = {FLOATS(F32(0, 1, 2, 0), 4)}, .out = {FLOATS(y, 4)}),
             -EINVAL);
    CHECK_HAS(last.msg, "a probability of 2");
    CHECK_EQ(RUN_OP(.op = OP_Multinomial, .attr = {number("sample_size", 3)},
                    .in = {FLOATS(F32(-INFINITY, 0, -INFINITY, 7, -INFINITY, -INFINITY), 2, 3)},
                    .out = {tensor_of(DT_INT32, pick, INTS(2, 3))}),
             0);
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(pick[i], i < 3 ? 1 : 0);
}

int main(void)
{
    RUN(windows_are_cosines);
    RUN(a_constant_signal_has_one_frequency);
    RUN(half_a_spectrum_is_enough_for_real_numbers);
    RUN(a_signal_is_cut_into_frames);
    RUN(an_edge_beyond_the_spectrum_is_refused);
    RUN(the_same_seed_gives_the_same_numbers);
    RUN(without_a_seed_the_nodes_name_decides);
    RUN(certain_things_happen_and_others_do_not);
    return check_end();
}
