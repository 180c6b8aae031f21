/* Tables from a few measured points. */
#include "../check.h"
#include <gpulet/predict.h>
#include <math.h>

#define N_BATCH 5
#define N_UNITS 5

static const uint32_t batches[] = {1, 2, 4, 8, 16}, units[] = {2, 4, 8, 16, 32};
static usec_t table[N_UNITS * N_BATCH];

/* A batch of b on u units takes 1000 + 8000 b / u us. */
static usec_t truth(uint32_t batch, uint32_t u)
{
    return 1000 + 8000 * batch / u;
}

/* What is believed of each cell, from these points and estimates that say nothing. */
static void fill(const struct measured_point *p, uint32_t n)
{
    static const usec_t flat[N_UNITS * N_BATCH] = {[0 ... N_UNITS * N_BATCH - 1] = 20};
    struct profile base = {
        .n_batch = N_BATCH, .n_units = N_UNITS, .batch = batches, .units = units, .run_us = flat};

    surface_fill(&base, p, n, table);
}

static usec_t cell(uint32_t batch, uint32_t u)
{
    uint32_t b = 0, k = 0;

    while (batches[b] != batch)
        b++;
    while (units[k] != u)
        k++;
    return table[k * N_BATCH + b];
}

static bool near(usec_t us, usec_t want_us, double part)
{
    bool ok = fabs((double)us - (double)want_us) <= part * (double)want_us;

    if (!ok)
        printf("# %llu is not near %llu\n", (unsigned long long)us, (unsigned long long)want_us);
    return ok;
}

static void the_four_corners_of_work_that_divides_give_the_whole_table(void)
{
    const struct measured_point p[] = {
        {1, 2, truth(1, 2)}, {16, 2, truth(16, 2)}, {1, 32, truth(1, 32)}, {16, 32, truth(16, 32)}};

    fill(p, 4);
    for (uint32_t b = 0; b < N_BATCH; b++)
        for (uint32_t u = 0; u < N_UNITS; u++)
            CHECK(near(cell(batches[b], units[u]), truth(batches[b], units[u]), 0.001));
}

static void one_row_at_a_size_does_not_say_that_sixteen_cost_as_little(void)
{
    const struct measured_point p[] = {{1, 4, truth(1, 4)},
                                       {16, 4, truth(16, 4)},
                                       {1, 32, truth(1, 32)},
                                       {16, 32, truth(16, 32)},
                                       {1, 16, truth(1, 16)}};

    fill(p, 5);
    CHECK_EQ(cell(1, 16), truth(1, 16));
    CHECK(near(cell(16, 16), truth(16, 16), 0.01));
}

static void a_smaller_gpu_let_than_any_that_was_measured_is_slower_in_proportion(void)
{
    const struct measured_point p[] = {{1, 8, 1000}, {16, 8, 16000}};

    fill(p, 2);
    CHECK(near(cell(1, 4), 2000, 0.001));
    CHECK(near(cell(16, 2), 64000, 0.001));
    CHECK(near(cell(16, 32), 16000, 0.001)); /* and a larger one no faster */
}

/* Serving shows that runs of four take twice as long. */
static void a_point_puts_right_what_is_near_it_and_leaves_what_was_measured(void)
{
    const struct measured_point p[] = {{1, 4, truth(1, 4)},
                                       {16, 4, truth(16, 4)},
                                       {1, 32, truth(1, 32)},
                                       {16, 32, truth(16, 32)},
                                       {4, 16, 2 * truth(4, 16)}};

    fill(p, 5);
    CHECK_EQ(cell(4, 16), 2 * truth(4, 16));
    CHECK(cell(8, 16) > truth(8, 16) * 3 / 2);
    CHECK_EQ(cell(1, 4), truth(1, 4));
    CHECK_EQ(cell(16, 32), truth(16, 32));
    CHECK(cell(1, 32) == truth(1, 32));
}

static void a_single_point_scales_the_estimates(void)
{
    const struct measured_point p = {4, 8, 400};

    fill(&p, 1);
    for (uint32_t i = 0; i < N_UNITS * N_BATCH; i++)
        CHECK_EQ(table[i], 400);
}

static void a_larger_batch_never_takes_less_whatever_was_measured(void)
{
    const struct measured_point p[] = {{1, 8, 3000}, {4, 8, 2000}, {16, 8, 4000}};

    fill(p, 3);
    CHECK_EQ(cell(4, 8), 3000);
    for (uint32_t i = 1; i < N_UNITS * N_BATCH; i++)
        CHECK(i % N_BATCH == 0 || table[i] >= table[i - 1]);
}

static void without_a_point_nothing_is_written(void)
{
    table[7] = 77;
    fill(NULL, 0);
    CHECK_EQ(table[7], 77);
}

int main(void)
{
    RUN(the_four_corners_of_work_that_divides_give_the_whole_table);
    RUN(one_row_at_a_size_does_not_say_that_sixteen_cost_as_little);
    RUN(a_smaller_gpu_let_than_any_that_was_measured_is_slower_in_proportion);
    RUN(a_point_puts_right_what_is_near_it_and_leaves_what_was_measured);
    RUN(a_single_point_scales_the_estimates);
    RUN(a_larger_batch_never_takes_less_whatever_was_measured);
    RUN(without_a_point_nothing_is_written);
    return check_end();
}
