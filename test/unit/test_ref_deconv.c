/* Windows run backwards or bent, and pooling by norms and over regions. */
#include "ref_rig.h"

static const float two[] = {1, 2}, ones[] = {1, 1, 1, 1}, square[] = {1, 2, 3, 4};

static void each_element_spreads_its_kernel(void)
{
    static const float k[] = {1, 10, 100};

    CHECK_RUN(.op = OP_ConvTranspose, .in = {T(FP32, two, 1, 1, 2), T(FP32, k, 1, 1, 3)});
    CHECK_VALUES(0, 1, 12, 120, 200);
    CHECK_RUN(.op = OP_ConvTranspose, .attr = {ints("strides", INTS(2)), ints("pads", INTS(1, 0))},
              .in = {T(FP32, two, 1, 1, 2), T(FP32, k, 1, 1, 3), FLOATS(0.5f)});
    CHECK_VALUES(0, 10.5, 102.5, 20.5, 200.5);
    CHECK_RUN(.op = OP_ConvTranspose,
              .attr = {ints("dilations", INTS(2)), ints("output_padding", INTS(1))},
              .in = {T(FP32, two, 1, 1, 2), T(FP32, k, 1, 1, 3)});
    CHECK_VALUES(0, 1, 2, 10, 20, 100, 200, 0);
}

static void the_output_shape_decides_the_padding(void)
{
    static const float k[] = {1, 10, 100};

    CHECK_RUN(.op = OP_ConvTranspose, .attr = {ints("output_shape", INTS(3))},
              .in = {T(FP32, two, 1, 1, 2), T(FP32, k, 1, 1, 3)});
    CHECK_VALUES(0, 12, 120, 200); /* the odd one in front */
    CHECK_RUN(.op = OP_ConvTranspose,
              .attr = {ints("output_shape", INTS(3)), word("auto_pad", "SAME_UPPER")},
              .in = {T(FP32, two, 1, 1, 2), T(FP32, k, 1, 1, 3)});
    CHECK_VALUES(0, 1, 12, 120);
    CHECK_RUN(.op = OP_ConvTranspose,
              .attr = {word("auto_pad", "SAME_UPPER"), ints("strides", INTS(2))},
              .in = {T(FP32, two, 1, 1, 2), T(FP32, k, 1, 1, 3)});
    CHECK_VALUES(0, 1, 10, 102, 20); /* twice as long */
}

static void groups_do_not_see_each_other(void)
{
    static const float k[] = {10, 100};

    CHECK_RUN(.op = OP_ConvTranspose, .attr = {number("group", 2)},
              .in = {T(FP32, two, 1, 2, 1), T(FP32, k, 2, 1, 1)});
    CHECK_VALUES(0, 10, 200);
    CHECK_EQ(RUN_OP(.op = OP_ConvTranspose, .attr = {number("group", 3)},
                    .in = {T(FP32, two, 1, 2, 1), T(FP32, k, 2, 1, 1)}),
             -EINVAL);
    CHECK_HAS(rig_err.msg, "3 groups");
}

static void huge_strides_and_shapes_are_refused(void)
{
    CHECK_EQ(RUN_OP(.op = OP_ConvTranspose, .attr = {ints("strides", INTS(INT64_MAX))},
                    .in = {T(FP32, two, 1, 1, 2), T(FP32, ones, 1, 1, 2)}),
             -EINVAL);
    CHECK_EQ(RUN_OP(.op = OP_ConvTranspose, .attr = {ints("pads", INTS(9, 9))},
                    .in = {T(FP32, two, 1, 1, 2), T(FP32, ones, 1, 1, 2)}),
             -EINVAL);
    CHECK_EQ(RUN_OP(.op = OP_Col2Im,
                    .in = {T(FP32, ones, 1, 2, 2), LONGS(INT64_MAX, 2), LONGS(INT64_MAX, 1)}),
             -EINVAL);
}

/* Blocks of two over three elements: the middle one is in both. */
static void blocks_add_up_where_they_overlap(void)
{
    CHECK_RUN(.op = OP_Col2Im, .in = {T(FP32, square, 1, 2, 2), LONGS(1, 3), LONGS(1, 2)});
    CHECK_DIMS(0, 1, 1, 1, 3);
    CHECK_VALUES(0, 1, 5, 4); /* first elements 1 2, second 3 4 */
}

static void the_largest_go_back_to_where_they_came_from(void)
{
    static const int64_t at[] = {1, 2}, wrong[] = {1, 4};
    struct attr kernel = ints("kernel_shape", INTS(2));
    struct attr stride = ints("strides", INTS(2));

    CHECK_RUN(.op = OP_MaxUnpool, .attr = {kernel, stride},
              .in = {T(FP32, two, 1, 1, 2), T(INT64, at, 1, 1, 2)});
    CHECK_VALUES(0, 0, 1, 2, 0);
    CHECK_RUN(.op = OP_MaxUnpool, .attr = {kernel, stride},
              .in = {T(FP32, two, 1, 1, 2), T(INT64, at, 1, 1, 2), LONGS(1, 1, 5)});
    CHECK_VALUES(0, 0, 1, 2, 0, 0);
    CHECK_EQ(RUN_OP(.op = OP_MaxUnpool, .attr = {kernel, stride},
                    .in = {T(FP32, two, 1, 1, 2), T(INT64, wrong, 1, 1, 2)}),
             -EINVAL);
    CHECK_HAS(rig_err.msg, "index 4 of 4");
}

/* An offset of half an element along the last axis reads between two. */
static void taps_move_by_their_offsets_and_weigh_by_their_mask(void)
{
    static const float offset[] = {0, 0, 0.5f, 0.5f}, mask[] = {1, 10}, k[] = {2};

    CHECK_RUN(.op = OP_DeformConv,
              .in = {T(FP32, square, 1, 1, 1, 2), T(FP32, k, 1, 1, 1, 1),
                     T(FP32, offset, 1, 2, 1, 2), FLOATS(100), T(FP32, mask, 1, 1, 1, 2)});
    CHECK_VALUES(0, 103, 120); /* 1.5 and, half outside, 1: doubled, weighted, and 100 */
    CHECK_EQ(RUN_OP(.op = OP_DeformConv, .in = {T(FP32, square, 1, 1, 1, 2), T(FP32, k, 1, 1, 1, 1),
                                                T(FP32, offset, 1, 1, 2, 2)}),
             -EINVAL);
    CHECK_HAS(rig_err.msg, "offset");
}

static void norms_of_three_and_four_are_five_and_seven(void)
{
    static const float x[] = {3, -4, 0};

    CHECK_RUN(.op = OP_LpPool, .attr = {ints("kernel_shape", INTS(2))},
              .in = {T(FP32, x, 1, 1, 3)});
    CHECK_VALUES(0, 5, 4);
    CHECK_RUN(.op = OP_GlobalLpPool, .attr = {number("p", 1)}, .in = {T(FP32, x, 1, 1, 3)});
    CHECK_VALUES(0, 7);
    CHECK_RUN(.op = OP_GlobalLpPool, .opset = 1, .attr = {real("p", 1)},
              .in = {T(FP32, x, 1, 1, 3)});
    CHECK_VALUES(0, 7);
    CHECK_EQ(RUN_OP(.op = OP_GlobalLpPool, .attr = {number("p", 0)}, .in = {T(FP32, x, 1, 1, 3)}),
             -EINVAL);
}

/* ---- regions */

static const float image[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

static void a_region_gives_the_largest_of_each_bin(void)
{
    static const float roi[] = {0, 0, 0, 2, 1};

    CHECK_RUN(.op = OP_MaxRoiPool, .attr = {ints("pooled_shape", INTS(1, 3))},
              .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, roi, 1, 5)});
    CHECK_VALUES(0, 4, 5, 6); /* the first two rows */
}

/* Two by two elements, one sample in each of four bins, on the elements themselves. */
static void aligned_regions_average_samples_between_elements(void)
{
    static const float roi[] = {0.5f, 0.5f, 2.5f, 2.5f};
    static const int64_t first = 0, second = 1;
    struct attr size[] = {number("output_height", 2), number("output_width", 2)};

    CHECK_RUN(.op = OP_RoiAlign, .attr = {size[0], size[1]},
              .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, roi, 1, 4), T(INT64, &first, 1)});
    CHECK_VALUES(0, 3, 4, 6, 7); /* each at 0.5 or 1.5: between 1 2 4 5, and so on */
    CHECK_RUN(.op = OP_RoiAlign, .opset = 10,
              .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, roi, 1, 4), T(INT64, &first, 1)});
    CHECK_VALUES(0, 7); /* four samples at 1 and 2: 5, 6, 8, 9 */
    CHECK_EQ(RUN_OP(.op = OP_RoiAlign,
                    .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, roi, 1, 4), T(INT64, &second, 1)}),
             -EINVAL);
    CHECK_HAS(rig_err.msg, "region 0");
}

static void regions_of_nonsense_are_refused(void)
{
    static const float huge[] = {0, 0, 1e30f, 1}, nan[] = {0, NAN, 1, 1};
    static const float roi[] = {-1, 0, 0, 1, 1};
    static const int64_t first = 0;

    CHECK_EQ(RUN_OP(.op = OP_RoiAlign,
                    .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, huge, 1, 4), T(INT64, &first, 1)}),
             -EINVAL);
    CHECK_EQ(RUN_OP(.op = OP_RoiAlign,
                    .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, nan, 1, 4), T(INT64, &first, 1)}),
             -EINVAL);
    CHECK_EQ(RUN_OP(.op = OP_MaxRoiPool, .attr = {ints("pooled_shape", INTS(1, 1))},
                    .in = {T(FP32, image, 1, 1, 3, 3), T(FP32, roi, 1, 5)}),
             -EINVAL);
}

/* Boxes of 0-10, 1-11 (they overlap by 9/11) and 20-30; the second has the best score. */
static void of_boxes_that_overlap_the_best_one_stays(void)
{
    static const float boxes[] = {0, 0, 10, 10, 0, 1, 10, 11, 0, 20, 10, 30};
    static const float scores[] = {0.5f, 0.9f, 0.4f};
    struct tensor b = T(FP32, boxes, 1, 3, 4), s = T(FP32, scores, 1, 1, 3);

    CHECK_RUN(.op = OP_NonMaxSuppression, .in = {b, s, LONGS(9), FLOATS(0.5f)});
    CHECK_DIMS(0, 2, 3);
    CHECK_VALUES(0, 0, 0, 1, 0, 0, 2);
    CHECK_RUN(.op = OP_NonMaxSuppression, .in = {b, s, LONGS(9), FLOATS(0.9f), FLOATS(0.4f)});
    CHECK_VALUES(0, 0, 0, 1, 0, 0, 0); /* 0.4 is not above 0.4 */
    CHECK_RUN(.op = OP_NonMaxSuppression, .in = {b, s, LONGS(1), FLOATS(0.5f)});
    CHECK_VALUES(0, 0, 0, 1);
    CHECK_RUN(.op = OP_NonMaxSuppression, .in = {b, s});
    CHECK_DIMS(0, 0, 3); /* at most none, by default */
}

static void the_shape_of_a_suppression_needs_its_data(void)
{
    static const float scores[] = {1};

    CHECK_EQ(RUN_OP(.op = OP_NonMaxSuppression,
                    .in = {T(FP32, NULL, 1, 1, 4), T(FP32, scores, 1, 1, 1), LONGS(1)}),
             -ENODATA);
    CHECK_HAS(rig_err.msg, "boxes");
}

int main(void)
{
    RUN(each_element_spreads_its_kernel);
    RUN(the_output_shape_decides_the_padding);
    RUN(groups_do_not_see_each_other);
    RUN(huge_strides_and_shapes_are_refused);
    RUN(blocks_add_up_where_they_overlap);
    RUN(the_largest_go_back_to_where_they_came_from);
    RUN(taps_move_by_their_offsets_and_weigh_by_their_mask);
    RUN(norms_of_three_and_four_are_five_and_seven);
    RUN(a_region_gives_the_largest_of_each_bin);
    RUN(aligned_regions_average_samples_between_elements);
    RUN(regions_of_nonsense_are_refused);
    RUN(of_boxes_that_overlap_the_best_one_stays);
    RUN(the_shape_of_a_suppression_needs_its_data);
    return check_end();
}
