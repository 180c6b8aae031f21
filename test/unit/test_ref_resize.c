/* Resize, Upsample and their kin against numbers worked out by hand. */
#include "ref_rig.h"

static const float two[] = {1, 2}, four[] = {1, 2, 3, 4}, square[] = {1, 2, 3, 4};

static void nearest_repeats_elements(void)
{
    CHECK_RUN(.op = OP_Upsample, .opset = 9, .in = {T(FP32, square, 2, 2), FLOATS(1, 2)});
    CHECK_DIMS(0, 2, 4);
    CHECK_VALUES(0, 1, 1, 2, 2, 3, 3, 4, 4);
}

static void upsample_reads_scales_from_where_its_opset_has_them(void)
{
    struct attr scales = {
        .name = "scales", .type = ATTR_FLOATS, .n = 2, .floats = (const float[]){2, 1}};

    CHECK_RUN(.op = OP_Upsample, .opset = 7, .attr = {scales}, .in = {T(FP32, square, 2, 2)});
    CHECK_VALUES(0, 1, 2, 1, 2, 3, 4, 3, 4);
    CHECK_RUN(.op = OP_Upsample, .opset = 1,
              .attr = {real("height_scale", 1), real("width_scale", 2), word("mode", "bilinear")},
              .in = {T(FP32, two, 1, 1, 1, 2)});
    CHECK_DIMS(0, 1, 1, 1, 4);
    CHECK_VALUES(0, 1, 1.5, 2, 2); /* at 0, 0.5, 1 and, held at the edge, 1.5 */
}

static void resize_of_opset_10_rounds_up_when_it_shrinks(void)
{
    CHECK_RUN(.op = OP_Resize, .opset = 10, .in = {T(FP32, four, 4), FLOATS(0.6f)});
    CHECK_VALUES(0, 1, 3); /* 1 / 0.6 = 1.67 becomes 2 */
}

/* Twice as long: result 0..3 lies at -0.25, 0.25, 0.75, 1.25. */
static void linear_weighs_by_distance_and_holds_the_edge(void)
{
    CHECK_RUN(.op = OP_Resize, .attr = {word("mode", "linear")},
              .in = {T(FP32, two, 2), {0}, FLOATS(2)});
    CHECK_VALUES(0, 1, 1.25, 1.75, 2);
}

static void each_transformation_puts_the_samples_elsewhere(void)
{
    static const struct {
        const char *mode;
        double want[4];
    } t[] = {{"half_pixel", {1, 1.25, 1.75, 2}},
             {"half_pixel_symmetric", {1, 1.25, 1.75, 2}},
             {"pytorch_half_pixel", {1, 1.25, 1.75, 2}},
             {"align_corners", {1, 1 + 1 / 3.0, 1 + 2 / 3.0, 2}},
             {"asymmetric", {1, 1.5, 2, 2}},
             {"tf_half_pixel_for_nn", {1.25, 1.75, 2, 2}}};

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        CHECK_RUN(.op = OP_Resize,
                  .attr = {word("mode", "linear"),
                           word("coordinate_transformation_mode", t[i].mode)},
                  .in = {T(FP32, two, 2), {0}, {0}, LONGS(4)});
        rig_values(0, t[i].want, 4);
    }
}

/* 5 * 0.5 = 2.5 becomes 2: the symmetric form moves its two samples to the middle. */
static void the_symmetric_form_differs_where_the_size_is_cut(void)
{
    static const float five[] = {0, 1, 2, 3, 4};

    CHECK_RUN(.op = OP_Resize, .attr = {word("mode", "linear")},
              .in = {T(FP32, five, 5), {0}, FLOATS(0.5f)});
    CHECK_VALUES(0, 0.5, 2.5);
    CHECK_RUN(.op = OP_Resize,
              .attr = {word("mode", "linear"),
                       word("coordinate_transformation_mode", "half_pixel_symmetric")},
              .in = {T(FP32, five, 5), {0}, FLOATS(0.5f)});
    CHECK_VALUES(0, 1, 3);
}

static void rounding_to_the_nearest_has_four_ways(void)
{
    static const struct {
        const char *mode;
        double want[2];
    } t[] = {{"round_prefer_floor", {1, 3}},
             {"round_prefer_ceil", {2, 4}},
             {"floor", {1, 3}},
             {"ceil", {2, 4}}};

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) { /* at 0.5 and 2.5 */
        CHECK_RUN(.op = OP_Resize, .attr = {word("nearest_mode", t[i].mode)},
                  .in = {T(FP32, four, 4), {0}, FLOATS(0.5f)});
        rig_values(0, t[i].want, 2);
    }
}

static void a_third_as_float_is_a_third(void)
{
    static const float nine[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

    CHECK_RUN(.op = OP_Resize,
              .attr = {word("nearest_mode", "floor"),
                       word("coordinate_transformation_mode", "asymmetric")},
              .in = {T(FP32, nine, 9), {0}, FLOATS(1.0f / 3)});
    CHECK_VALUES(0, 0, 3, 6);
}

/* Halfway between, a cubic with a = -0.75 weighs -3/32, 19/32, 19/32, -3/32. */
static void cubic_reads_four_and_may_leave_out_what_is_outside(void)
{
    static const float step[] = {0, 0, 32, 32};

    CHECK_RUN(.op = OP_Resize, .attr = {word("mode", "cubic")},
              .in = {T(FP32, step, 4), {0}, FLOATS(0.5f)});
    CHECK_VALUES(0, -3, 35); /* 0 0 32 past the edge: 0 -> -3/32 * 32; 0 32 32 (32) */
    CHECK_RUN(.op = OP_Resize, .attr = {word("mode", "cubic"), number("exclude_outside", 1)},
              .in = {T(FP32, step, 4), {0}, FLOATS(0.5f)});
    CHECK_VALUES(0, -96 / 35.0, 32 * 38 / 35.0); /* the three that are left weigh 35/32 */
}

/* Half as long: the triangle is two elements wide on each side of 0.5 and 2.5. */
static void antialiasing_averages_what_shrinking_would_skip(void)
{
    CHECK_RUN(.op = OP_Resize,
              .attr = {word("mode", "linear"), number("antialias", 1),
                       number("exclude_outside", 1)},
              .in = {T(FP32, four, 4), {0}, FLOATS(0.5f)});
    /* weights 3/8 3/8 1/8 of elements 0, 1, 2; the fourth is outside */
    CHECK_VALUES(0, (3 + 6 + 3) / 7.0, (2 + 9 + 12) / 7.0);
}

static void a_region_is_cropped_and_what_is_beyond_has_its_own_value(void)
{
    CHECK_RUN(.op = OP_Resize,
              .attr = {word("mode", "linear"), real("extrapolation_value", 9),
                       word("coordinate_transformation_mode", "tf_crop_and_resize")},
              .in = {T(FP32, four, 4), FLOATS(1.0f / 3, 5.0f / 3), {0}, LONGS(3)});
    CHECK_VALUES(0, 2, 4, 9); /* from 1 to 5 in two steps: 1, 3, 5 */
}

static void axes_say_what_sizes_speak_of_and_the_aspect_can_be_kept(void)
{
    CHECK_RUN(.op = OP_Resize,
              .attr = {ints("axes", INTS(1)), word("keep_aspect_ratio_policy", "stretch")},
              .in = {T(FP32, square, 2, 2), {0}, {0}, LONGS(4)});
    CHECK_DIMS(0, 2, 4);
    CHECK_RUN(.op = OP_Resize, .attr = {word("keep_aspect_ratio_policy", "not_larger")},
              .in = {T(FP32, square, 2, 2), {0}, {0}, LONGS(4, 6)});
    CHECK_DIMS(0, 4, 4);
    CHECK_RUN(.op = OP_Resize, .attr = {word("keep_aspect_ratio_policy", "not_smaller")},
              .in = {T(FP32, square, 2, 2), {0}, {0}, LONGS(4, 6)});
    CHECK_DIMS(0, 6, 6);
}

static void integers_keep_their_digits_and_stay_within_their_type(void)
{
    static const int64_t big[] = {INT64_C(1) << 60 | 1};
    static const uint8_t edge[] = {0, 0, 255, 255};

    CHECK_RUN(.op = OP_Resize, .in = {T(INT64, big, 1), {0}, FLOATS(2)});
    CHECK(((int64_t *)rig_out[0].data)[1] == big[0]);
    CHECK_RUN(.op = OP_Resize, .attr = {word("mode", "cubic")},
              .in = {T(UINT8, edge, 4), {0}, FLOATS(0.5f)});
    CHECK_VALUES(0, 0, 255); /* -23.9 and 278.9 */
}

static void scales_and_sizes_are_checked(void)
{
    CHECK_EQ(RUN_OP(.op = OP_Resize, .in = {T(FP32, two, 2), {0}, FLOATS(-1)}), -EINVAL);
    CHECK_HAS(rig_err.msg, "scale of -1");
    CHECK_EQ(RUN_OP(.op = OP_Resize, .in = {T(FP32, two, 2), {0}, FLOATS(1e30f)}), -EINVAL);
    CHECK_EQ(RUN_OP(.op = OP_Resize, .in = {T(FP32, two, 2), {0}, FLOATS(2, 2)}), -EINVAL);
    CHECK_HAS(rig_err.msg, "2 scales for 1 axes");
    CHECK_EQ(RUN_OP(.op = OP_Resize, .in = {T(FP32, two, 2), {0}, {0}, LONGS(-4)}), -EINVAL);
    CHECK_EQ(RUN_OP(.op = OP_Resize, .in = {T(FP32, two, 2)}), -EINVAL);
    CHECK_HAS(rig_err.msg, "neither scales nor sizes");
    CHECK_EQ(RUN_OP(.op = OP_Resize, .attr = {word("mode", "sinc")},
                    .in = {T(FP32, two, 2), {0}, FLOATS(2)}),
             -EINVAL);
    CHECK_HAS(rig_err.msg, "sinc");
}

/* ---- grids and crops */

static void the_identity_is_a_grid_of_element_centres(void)
{
    static const float theta[] = {1, 0, 0, 0, 1, 0};

    CHECK_RUN(.op = OP_AffineGrid, .opset = 20, .in = {T(FP32, theta, 1, 2, 3), LONGS(1, 1, 1, 2)});
    CHECK_DIMS(0, 1, 1, 2, 2);
    CHECK_VALUES(0, -0.5, 0, 0.5, 0); /* x, y of each */
    CHECK_RUN(.op = OP_AffineGrid, .opset = 20, .attr = {number("align_corners", 1)},
              .in = {T(FP32, theta, 1, 2, 3), LONGS(1, 1, 1, 2)});
    CHECK_VALUES(0, -1, 0, 1, 0);
}

/* x of -1 is the left end: with corners aligned, element 0; else half an element before it. */
static void grids_sample_between_elements_and_beyond_them(void)
{
    static const float grid[] = {0, 0, -1, 0, 2, 0};
    struct tensor x = T(FP32, two, 1, 1, 1, 2), at = T(FP32, grid, 1, 1, 3, 2);

    CHECK_RUN(.op = OP_GridSample, .attr = {number("align_corners", 1)}, .in = {x, at});
    CHECK_VALUES(0, 1.5, 1, 1); /* at 0.5, 0 and 1.5, half of which is outside */
    CHECK_RUN(.op = OP_GridSample, .in = {x, at});
    CHECK_VALUES(0, 1.5, 0.5, 0); /* at 0.5, -0.5 and 2.5 */
    CHECK_RUN(.op = OP_GridSample, .attr = {word("padding_mode", "border")}, .in = {x, at});
    CHECK_VALUES(0, 1.5, 1, 2);
    CHECK_RUN(.op = OP_GridSample, .attr = {word("padding_mode", "reflection")}, .in = {x, at});
    CHECK_VALUES(0, 1.5, 1, 1.5); /* 2.5 comes back to 0.5 */
    CHECK_RUN(.op = OP_GridSample, .attr = {word("mode", "nearest")}, .in = {x, at});
    CHECK_VALUES(0, 1, 1, 0); /* 0.5 and -0.5 go to 0, the even one */
}

static void a_grid_of_nonsense_reads_nothing(void)
{
    static const float grid[] = {NAN, 0, INFINITY, 0, -1e38f, 0};
    struct tensor x = T(FP32, two, 1, 1, 1, 2), at = T(FP32, grid, 1, 1, 3, 2);

    CHECK_RUN(.op = OP_GridSample, .in = {x, at});
    CHECK_VALUES(0, 0, 0, 0);
    CHECK_RUN(.op = OP_GridSample,
              .attr = {word("mode", "cubic"), word("padding_mode", "reflection")}, .in = {x, at});
    CHECK_EQ(ref_count(&rig_out[0]), 3); /* somewhere inside: no fault */
    CHECK_EQ(RUN_OP(.op = OP_GridSample, .in = {x, T(FP32, grid, 1, 1, 2, 3)}), -EINVAL);
}

static void crops_and_pads_are_centred_with_the_odd_one_behind(void)
{
    CHECK_RUN(.op = OP_CenterCropPad, .in = {T(FP32, four, 4), LONGS(1)});
    CHECK_VALUES(0, 2); /* 3 too many: 1 in front, 2 behind */
    CHECK_RUN(.op = OP_CenterCropPad, .attr = {ints("axes", INTS(-1))},
              .in = {T(FP32, two, 1, 2), LONGS(5)});
    CHECK_VALUES(0, 0, 1, 2, 0, 0);
    CHECK_EQ(RUN_OP(.op = OP_CenterCropPad, .in = {T(FP32, two, 2), LONGS(-1)}), -EINVAL);
}

int main(void)
{
    RUN(nearest_repeats_elements);
    RUN(upsample_reads_scales_from_where_its_opset_has_them);
    RUN(resize_of_opset_10_rounds_up_when_it_shrinks);
    RUN(linear_weighs_by_distance_and_holds_the_edge);
    RUN(each_transformation_puts_the_samples_elsewhere);
    RUN(the_symmetric_form_differs_where_the_size_is_cut);
    RUN(rounding_to_the_nearest_has_four_ways);
    RUN(a_third_as_float_is_a_third);
    RUN(cubic_reads_four_and_may_leave_out_what_is_outside);
    RUN(antialiasing_averages_what_shrinking_would_skip);
    RUN(a_region_is_cropped_and_what_is_beyond_has_its_own_value);
    RUN(axes_say_what_sizes_speak_of_and_the_aspect_can_be_kept);
    RUN(integers_keep_their_digits_and_stay_within_their_type);
    RUN(scales_and_sizes_are_checked);
    RUN(the_identity_is_a_grid_of_element_centres);
    RUN(grids_sample_between_elements_and_beyond_them);
    RUN(a_grid_of_nonsense_reads_nothing);
    RUN(crops_and_pads_are_centred_with_the_odd_one_behind);
    return check_end();
}
