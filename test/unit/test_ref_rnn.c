/* Recurrent layers with weights so plain that states can be added up in the head. */
#include "ref_call.h"

#define RELUS(n)                                                                                   \
    words("activations", (const struct attr_text[]){{"Relu", 4}, {"Relu", 4}, {"relu", 4}}, n)
#define LENS(data, n) tensor_of(DT_INT32, data, INTS(n))

/* h = x + h before: a running sum. */
static void a_network_of_ones_adds_up_its_inputs(void)
{
    float y[3], h[1];

    CHECK_EQ(RUN_OP(.op = OP_RNN, .attr = {RELUS(1)},
                    .in = {FLOATS(F32(1, 2, 4), 3, 1, 1), FLOATS(F32(1), 1, 1, 1),
                           FLOATS(F32(1), 1, 1, 1)},
                    .out = {FLOATS(y, 3, 1, 1, 1), FLOATS(h, 1, 1, 1)}),
             0);
    CHECK_FLOATS(y, 1, 3, 7);
    CHECK_FLOATS(h, 7);
}

static void the_other_direction_starts_at_the_end(void)
{
    float y[6], h[2];

    CHECK_EQ(RUN_OP(.op = OP_RNN, .attr = {RELUS(2), word("direction", "bidirectional")},
                    .in = {FLOATS(F32(1, 2, 4), 3, 1, 1), FLOATS(F32(1, 1), 2, 1, 1),
                           FLOATS(F32(1, 1), 2, 1, 1)},
                    .out = {FLOATS(y, 3, 2, 1, 1), FLOATS(h, 2, 1, 1)}),
             0);
    CHECK_FLOATS(y, 1, 7, 3, 6, 7, 4);
    CHECK_FLOATS(h, 7, 7);
}

/* Rows of 1 and of 3 steps, from the back: the short one has zeros behind it. */
static void steps_beyond_a_rows_length_are_zero(void)
{
    float y[6], h[2];

    CHECK_EQ(RUN_OP(.op = OP_RNN,
                    .attr = {RELUS(1), word("direction", "reverse"), number("layout", 1)},
                    .in = {FLOATS(F32(1, 2, 4, 1, 2, 4), 2, 3, 1), FLOATS(F32(1), 1, 1, 1),
                           FLOATS(F32(1), 1, 1, 1), [4] = LENS(((int32_t[]){1, 3}), 2),
                           [5] = FLOATS(F32(10, 20), 2, 1, 1)},
                    .out = {FLOATS(y, 2, 3, 1, 1), FLOATS(h, 2, 1, 1)}),
             0);
    CHECK_FLOATS(y, 11, 0, 0, 27, 26, 24);
    CHECK_FLOATS(h, 11, 27);
}

static void a_length_beyond_the_steps_is_refused(void)
{
    float y[2];

    CHECK_EQ(RUN_OP(.op = OP_RNN,
                    .in = {FLOATS(F32(1, 2), 2, 1, 1), FLOATS(F32(1), 1, 1, 1),
                           FLOATS(F32(1), 1, 1, 1), [4] = LENS(((int32_t[]){3}), 1)},
                    .out = {FLOATS(y, 2, 1, 1, 1)}),
             -EINVAL);
    CHECK_HAS(last.msg, "sequence_lens has 3 at 0 (0 to 2)");
}

/* Gates are always one half: HardSigmoid with a slope of 0. */
static int gru(int64_t linear_before, float *h)
{
    return RUN_OP(.op = OP_GRU,
                  .attr = {words("activations",
                                 (const struct attr_text[]){{"HardSigmoid", 11}, {"Relu", 4}}, 2),
                           reals("activation_alpha", F32(0), 1),
                           reals("activation_beta", F32(0.5f), 1),
                           number("linear_before_reset", linear_before)},
                  .in = {FLOATS(F32(2, 2), 2, 1, 1), FLOATS(F32(0, 0, 1), 1, 3, 1),
                         FLOATS(F32(0, 0, 1), 1, 3, 1), FLOATS(F32(0, 0, 0, 0, 0, 1), 1, 6)},
                  .out = {{0}, FLOATS(h, 1, 1, 1)});
}

static void a_gru_resets_the_state_or_its_product(void)
{
    float h[1];

    CHECK_EQ(gru(0, h), 0);
    CHECK_FLOATS(h, 2.625f); /* (2+1)/2 = 1.5, then (2 + 0.75 + 1)/2 + 0.75 */
    CHECK_EQ(gru(1, h), 0);
    CHECK_FLOATS(h, 2.1875f); /* (2 + 0.5)/2 = 1.25, then (2 + (1.25 + 1)/2)/2 + 0.625 */
}

/* i = o = c = x, f = 0: the cell is x^2 and the state x^3. */
static void an_lstm_multiplies_gates(void)
{
    float y[2], h[1], c[1];

    CHECK_EQ(RUN_OP(.op = OP_LSTM, .attr = {RELUS(3)},
                    .in = {FLOATS(F32(1, 2), 2, 1, 1), FLOATS(F32(1, 1, 0, 1), 1, 4, 1),
                           FLOATS(F32(0, 0, 0, 0), 1, 4, 1)},
                    .out = {FLOATS(y, 2, 1, 1, 1), FLOATS(h, 1, 1, 1), FLOATS(c, 1, 1, 1)}),
             0);
    CHECK_FLOATS(y, 1, 8);
    CHECK_FLOATS(h, 8);
    CHECK_FLOATS(c, 4);
}

/* The cell starts at 3 and is seen by i and f before it changes (3) and by o after (15). */
static void peepholes_see_the_cell_before_and_after(void)
{
    float h[1], c[1];

    CHECK_EQ(RUN_OP(.op = OP_LSTM, .attr = {RELUS(3)},
                    .in = {FLOATS(F32(2), 1, 1, 1), FLOATS(F32(0, 0, 0, 1), 1, 4, 1),
                           FLOATS(F32(0, 0, 0, 0), 1, 4, 1), [6] = FLOATS(F32(3), 1, 1, 1),
                           [7] = FLOATS(F32(1, 1, 1), 1, 3)},
                    .out = {{0}, FLOATS(h, 1, 1, 1), FLOATS(c, 1, 1, 1)}),
             0);
    CHECK_FLOATS(c, 15);  /* f 3 * 3 + i 3 * 2 */
    CHECK_FLOATS(h, 225); /* o 15 * 15 */
}

/* i = 0.25: half of what is asked, as the clip says, of x = 1. */
static void coupled_gates_forget_what_is_let_in_and_clip_bounds_all(void)
{
    float c[1];

    CHECK_EQ(RUN_OP(.op = OP_LSTM,
                    .attr = {RELUS(3), number("input_forget", 1), real("clip", 0.25f)},
                    .in = {FLOATS(F32(1), 1, 1, 1), FLOATS(F32(1, 1, 1, 1), 1, 4, 1),
                           FLOATS(F32(0, 0, 0, 0), 1, 4, 1), [6] = FLOATS(F32(4), 1, 1, 1)},
                    .out = {{0}, {0}, FLOATS(c, 1, 1, 1)}),
             0);
    CHECK_FLOATS(c, 3.0625f); /* 0.75 * 4 + 0.25 * 0.25 */
}

static void an_activation_that_is_not_known_is_refused_by_name(void)
{
    float y[1];

    CHECK_EQ(
        RUN_OP(.op = OP_RNN,
               .attr = {words("activations", (const struct attr_text[]){{"Mish", 4}}, 1)},
               .in = {FLOATS(F32(1), 1, 1, 1), FLOATS(F32(1), 1, 1, 1), FLOATS(F32(1), 1, 1, 1)},
               .out = {FLOATS(y, 1, 1, 1, 1)}),
        -ENOTSUP);
    CHECK_HAS(last.msg, "'Mish'");
}

int main(void)
{
    RUN(a_network_of_ones_adds_up_its_inputs);
    RUN(the_other_direction_starts_at_the_end);
    RUN(steps_beyond_a_rows_length_are_zero);
    RUN(a_length_beyond_the_steps_is_refused);
    RUN(a_gru_resets_the_state_or_its_product);
    RUN(an_lstm_multiplies_gates);
    RUN(peepholes_see_the_cell_before_and_after);
    RUN(coupled_gates_forget_what_is_let_in_and_clip_bounds_all);
    RUN(an_activation_that_is_not_known_is_refused_by_name);
    return check_end();
}
