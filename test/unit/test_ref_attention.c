/* Attention over keys that are all alike, so that weights are halves and thirds; rotations by
 * right angles; norms and losses of small numbers. */
#include "ref_call.h"

#define TRUTHS(data, ...) tensor_of(DT_BOOL, data, INTS(__VA_ARGS__))

static struct tensor one_head(void *data, int64_t rows, int64_t width)
{
    return tensor_of(DT_FP32, data, INTS(1, 1, rows, width));
}

/* Two equal keys with the values 1 and 3, two queries. */
static int attend(struct attr attr, struct tensor mask, float *y)
{
    return RUN_OP(.op = OP_Attention, .opset = 23, .attr = {attr},
                  .in = {one_head(F32(5, 7), 2, 1), one_head(F32(0, 0), 2, 1),
                         one_head(F32(1, 3), 2, 1), mask},
                  .out = {one_head(y, 2, 1)});
}

/* The same with windows of opset 25, or with nonpad_kv_seqlen of opset 24. */
static int attend_in(struct attr one, struct attr two, const int64_t *nonpad, float *y)
{
    struct tensor keys = nonpad ? LONGS((int64_t *)(uintptr_t)nonpad, 1) : (struct tensor){0};

    return RUN_OP(.op = OP_Attention, .opset = 25, .attr = {one, two},
                  .in = {one_head(F32(5, 7), 2, 1), one_head(F32(0, 0), 2, 1),
                         one_head(F32(1, 3), 2, 1), [6] = keys},
                  .out = {one_head(y, 2, 1)});
}

static void a_window_hides_what_is_farther(void)
{
    const struct attr left = number("left_window_size", 0), right = number("right_window_size", 0);
    float y[2];

    CHECK_EQ(attend_in(left, right, NULL, y), 0);
    CHECK_FLOATS(y, 1, 3); /* each sees its own key */
    CHECK_EQ(attend_in(left, (struct attr){0}, NULL, y), 0);
    CHECK_FLOATS(y, 2, 3);
    CHECK_EQ(attend_in(right, number("left_window_size", 1), NULL, y), 0);
    CHECK_FLOATS(y, 1, 2);
    CHECK_EQ(attend_in(number("right_window_size", 1), number("is_causal", 1), NULL, y), 0);
    CHECK_FLOATS(y, 1, 2); /* causal hides what comes later all the same */
    CHECK_EQ(attend_in(number("left_window_size", INT64_MAX), (struct attr){0}, NULL, y), 0);
    CHECK_FLOATS(y, 2, 2);
}

/* The last query stands at the last key that is no padding. */
static void keys_that_are_padding_are_not_seen(void)
{
    const struct attr none = {0}, causal = number("is_causal", 1);
    float y[2];

    CHECK_EQ(attend_in(none, none, I64(1), y), 0);
    CHECK_FLOATS(y, 1, 1);
    CHECK_EQ(attend_in(causal, none, I64(2), y), 0);
    CHECK_FLOATS(y, 1, 2);
    CHECK_EQ(attend_in(causal, none, I64(1), y), 0);
    CHECK_FLOATS(y, 0, 1); /* the first query stands before all keys */
    CHECK_EQ(attend_in(none, none, I64(0), y), 0);
    CHECK_FLOATS(y, 0, 0);
    CHECK_EQ(attend_in(none, none, I64(3), y), -EINVAL);
    CHECK_HAS(last.msg, "nonpad_kv_seqlen has 3 (0 to 2)");
    CHECK_EQ(attend_in(none, none, I64(-1), y), -EINVAL);
}

static void equal_keys_share_equally(void)
{
    float y[2];

    CHECK_EQ(attend(number("is_causal", 0), (struct tensor){0}, y), 0);
    CHECK_FLOATS(y, 2, 2);
    CHECK_EQ(attend(number("is_causal", 1), (struct tensor){0}, y), 0);
    CHECK_FLOATS(y, 1, 2);
}

static void a_mask_hides_adds_and_may_be_short(void)
{
    bool second[] = {false, true}, none[] = {false, false};
    float y[2];

    CHECK_EQ(attend(number("is_causal", 0), TRUTHS(second, 2), y), 0);
    CHECK_FLOATS(y, 3, 3);
    CHECK_EQ(attend(number("is_causal", 0), TRUTHS(none, 1, 2), y), 0);
    CHECK_FLOATS(y, 0, 0); /* who sees nothing gets nothing */
    CHECK_EQ(attend(number("is_causal", 0), FLOATS(F32(0, logf(3)), 2), y), 0);
    CHECK_FLOATS(y, 2.5f, 2.5f); /* weights of 1/4 and 3/4 */
    CHECK_EQ(attend(number("is_causal", 1), TRUTHS(second, 2), y), 0);
    CHECK_FLOATS(y, 0, 3);
}

/* Both heads of the query look at the one head of keys. */
static void heads_are_shared_in_groups(void)
{
    float y[2], qk[4];

    CHECK_EQ(RUN_OP(.op = OP_Attention, .opset = 23, .attr = {real("scale", 0.5f)},
                    .in = {FLOATS(F32(1, 2), 1, 2, 1, 1), one_head(F32(0, 4), 2, 1),
                           one_head(F32(1, 1), 2, 1)},
                    .out = {FLOATS(y, 1, 2, 1, 1), [3] = FLOATS(qk, 1, 2, 1, 2)}),
             0);
    CHECK_FLOATS(y, 1, 1);
    CHECK_FLOATS(qk, 0, 2, 0, 4); /* 1 * 4 * 0.5 and 2 * 4 * 0.5 */
}

static void the_past_stands_in_front(void)
{
    float y[1], k[3], v[3];

    CHECK_EQ(RUN_OP(.op = OP_Attention, .opset = 23, .attr = {number("is_causal", 1)},
                    .in = {one_head(F32(1), 1, 1), one_head(F32(0), 1, 1), one_head(F32(6), 1, 1),
                           [4] = one_head(F32(0, 0), 2, 1), [5] = one_head(F32(1, 2), 2, 1)},
                    .out = {one_head(y, 1, 1), one_head(k, 3, 1), one_head(v, 3, 1)}),
             0);
    CHECK_FLOATS(y, 3); /* of 1, 2 and 6: the query stands behind the past */
    CHECK_FLOATS(v, 1, 2, 6);
}

/* [batch, sequence, heads * width]: heads lie beside each other. */
static void three_dimensions_hold_heads_side_by_side(void)
{
    float y[2];

    CHECK_EQ(RUN_OP(.op = OP_Attention, .opset = 23,
                    .attr = {number("q_num_heads", 2), number("kv_num_heads", 2)},
                    .in = {FLOATS(F32(1, 1), 1, 1, 2), FLOATS(F32(0, 0, 0, 0), 1, 2, 2),
                           FLOATS(F32(1, 10, 3, 30), 1, 2, 2)},
                    .out = {FLOATS(y, 1, 1, 2)}),
             0);
    CHECK_FLOATS(y, 2, 20);
}

/* By 90 degrees: (a, b) becomes (-b, a). */
static void a_rotation_turns_pairs(void)
{
    float x[] = {1, 2, 3, 4}, y[4];
    int64_t at = 1;
    struct tensor cos = FLOATS(F32(1, 1, 0, 0), 2, 2), sin = FLOATS(F32(0, 0, 1, 1), 2, 2);

    CHECK_EQ(RUN_OP(.op = OP_RotaryEmbedding, .opset = 23,
                    .in = {FLOATS(x, 1, 1, 1, 4), cos, sin, LONGS(&at, 1, 1)},
                    .out = {FLOATS(y, 1, 1, 1, 4)}),
             0);
    CHECK_FLOATS(y, -3, -4, 1, 2);
    CHECK_EQ(RUN_OP(.op = OP_RotaryEmbedding, .opset = 23, .attr = {number("interleaved", 1)},
                    .in = {FLOATS(x, 1, 1, 1, 4), cos, sin, LONGS(&at, 1, 1)},
                    .out = {FLOATS(y, 1, 1, 1, 4)}),
             0);
    CHECK_FLOATS(y, -2, 1, -4, 3);
    at = 2;
    CHECK_EQ(RUN_OP(.op = OP_RotaryEmbedding, .opset = 23,
                    .in = {FLOATS(x, 1, 1, 1, 4), cos, sin, LONGS(&at, 1, 1)},
                    .out = {FLOATS(y, 1, 1, 1, 4)}),
             -EINVAL);
    CHECK_HAS(last.msg, "position 2 of 2");
}

/* ---- norms */
static void groups_are_normalised_apart(void)
{
    float y[4];

    CHECK_EQ(RUN_OP(.op = OP_GroupNormalization, .opset = 21,
                    .attr = {number("num_groups", 2), real("epsilon", 0)},
                    .in = {FLOATS(F32(1, 3, 10, 30), 1, 4), FLOATS(F32(1, 1, 1, 5), 4),
                           FLOATS(F32(0, 0, 0, 2), 4)},
                    .out = {FLOATS(y, 1, 4)}),
             0);
    CHECK_FLOATS(y, -1, 1, -1, 7);
    CHECK_EQ(
        RUN_OP(.op = OP_GroupNormalization, .opset = 18,
               .attr = {number("num_groups", 2), real("epsilon", 0)},
               .in = {FLOATS(F32(1, 3, 10, 30), 1, 4), FLOATS(F32(1, 5), 2), FLOATS(F32(0, 2), 2)},
               .out = {FLOATS(y, 1, 4)}),
        0);
    CHECK_FLOATS(y, -1, 1, -3, 7);
}

static void vectors_are_divided_by_their_length(void)
{
    float x[] = {3, 4, 0, 0}, y[4];

    CHECK_EQ(RUN_OP(.op = OP_LpNormalization, .in = {FLOATS(x, 2, 2)}, .out = {FLOATS(y, 2, 2)}),
             0);
    CHECK_FLOATS(y, 0.6f, 0.8f, 0, 0);
    CHECK_EQ(RUN_OP(.op = OP_LpNormalization, .attr = {number("p", 1), number("axis", 0)},
                    .in = {FLOATS(x, 2, 2)}, .out = {FLOATS(y, 2, 2)}),
             0);
    CHECK_FLOATS(y, 1, 1, 0, 0);
    CHECK_EQ(RUN_OP(.op = OP_RMSNormalization, .opset = 23, .attr = {real("epsilon", 0)},
                    .in = {FLOATS(F32(1, 7), 1, 2), FLOATS(F32(5, 10), 2)},
                    .out = {FLOATS(y, 1, 2)}),
             0);
    CHECK_FLOATS(y, 1, 14); /* the mean of squares is 25 */
}

static void mean_and_variance_go_over_the_named_axes(void)
{
    float x[] = {1, 10, 3, 30}, y[4];

    CHECK_EQ(RUN_OP(.op = OP_MeanVarianceNormalization, .attr = {ints("axes", I64(0), 1)},
                    .in = {FLOATS(x, 2, 2)}, .out = {FLOATS(y, 2, 2)}),
             0);
    CHECK_FLOATS(y, -1, -1, 1, 1);
}

static void a_batch_norm_by_element_has_a_number_for_each(void)
{
    float y[2];
    struct call c = {.op = OP_BatchNormalization,
                     .opset = 7,
                     .attr = {number("spatial", 0), real("epsilon", 0)},
                     .in = {FLOATS(F32(5, 8), 1, 1, 2), FLOATS(F32(1, 2), 1, 2),
                            FLOATS(F32(0, 1), 1, 2), FLOATS(F32(1, 2), 1, 2),
                            FLOATS(F32(4, 9), 1, 2)},
                     .out = {FLOATS(y, 1, 1, 2)}};

    CHECK_EQ(run(&c), 0);
    CHECK_FLOATS(y, 2, 5);
    c.opset = 6; /* without is_test this is training */
    CHECK_EQ(run(&c), -ENOTSUP);
    CHECK_HAS(last.msg, "training");
}

/* ---- losses */
static void the_loss_picks_the_targets_number(void)
{
    float x[] = {-1, -2, -3, -5}, y[2], mean[1];
    struct tensor in = FLOATS(x, 2, 2);

    CHECK_EQ(RUN_OP(.op = OP_NegativeLogLikelihoodLoss, .attr = {word("reduction", "none")},
                    .in = {in, LONGS(I64(1, 0), 2), FLOATS(F32(1, 10), 2)}, .out = {FLOATS(y, 2)}),
             0);
    CHECK_FLOATS(y, 20, 3);
    CHECK_EQ(RUN_OP(.op = OP_NegativeLogLikelihoodLoss,
                    .in = {in, LONGS(I64(1, 0), 2), FLOATS(F32(1, 10), 2)},
                    .out = {SCALAR(DT_FP32, mean)}),
             0);
    CHECK_FLOATS(mean, 23.f / 11);
    CHECK_EQ(RUN_OP(.op = OP_NegativeLogLikelihoodLoss, .attr = {number("ignore_index", -7)},
                    .in = {in, LONGS(I64(-7, 0), 2)}, .out = {SCALAR(DT_FP32, mean)}),
             0);
    CHECK_FLOATS(mean, 3);
    CHECK_EQ(RUN_OP(.op = OP_NegativeLogLikelihoodLoss, .in = {in, LONGS(I64(0, 2), 2)},
                    .out = {SCALAR(DT_FP32, mean)}),
             -EINVAL);
    CHECK_HAS(last.msg, "target 2 of 2 classes");
}

static void equal_scores_lose_the_logarithm_of_the_classes(void)
{
    float log_prob[2], sum[1];

    CHECK_EQ(RUN_OP(.op = OP_SoftmaxCrossEntropyLoss, .attr = {word("reduction", "sum")},
                    .in = {FLOATS(F32(900, 900), 1, 2), LONGS(I64(1), 1)},
                    .out = {SCALAR(DT_FP32, sum), FLOATS(log_prob, 1, 2)}),
             0);
    CHECK_FLOATS(sum, logf(2));
    CHECK_FLOATS(log_prob, -logf(2), -logf(2));
}

int main(void)
{
    RUN(a_window_hides_what_is_farther);
    RUN(keys_that_are_padding_are_not_seen);
    RUN(equal_keys_share_equally);
    RUN(a_mask_hides_adds_and_may_be_short);
    RUN(heads_are_shared_in_groups);
    RUN(the_past_stands_in_front);
    RUN(three_dimensions_hold_heads_side_by_side);
    RUN(a_rotation_turns_pairs);
    RUN(groups_are_normalised_apart);
    RUN(vectors_are_divided_by_their_length);
    RUN(mean_and_variance_go_over_the_named_axes);
    RUN(a_batch_norm_by_element_has_a_number_for_each);
    RUN(the_loss_picks_the_targets_number);
    RUN(equal_scores_lose_the_logarithm_of_the_classes);
    return check_end();
}
