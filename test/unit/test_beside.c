/* Interference from runs beside a stressor: by hand, and back from what the model itself says. */
#include "../check.h"

#include <gpulet/predict.h>
#include <math.h>

static struct arena arena;

static bool near(double a, double b)
{
    if (fabs(a - b) > 1e-3)
        printf("# %.9g is not near %.9g\n", a, b);
    return fabs(a - b) <= 1e-3;
}

static void a_model_that_is_slowed_by_a_half_has_a_term_of_a_half(void)
{
    /* It slows the stressor by a quarter: half of the term, so a quarter of the memory. */
    const struct beside_run b = {.batch = 1,
                                 .units = 4,
                                 .alone_us = 1000,
                                 .beside_us = 1500,
                                 .stress_us = 4000,
                                 .stressed_us = 5000};
    struct interference f;

    beside_terms(&b, 1, 8, &f);
    CHECK_EQ(f.kind, INTERFERE_PRESSURE);
    CHECK_EQ(f.n_terms, N_TERMS);
    CHECK(near(f.term[TERM_MEMORY], 0.5));
    CHECK(near(beside_memory(&f, &b), 0.25));
    CHECK(near(f.term[TERM_UNKNOWN], 0.5)); /* on half of the units: twice that on all */
}

static void the_term_is_the_mean_of_the_models(void)
{
    const struct beside_run b[] = {{.batch = 1,
                                    .units = 4,
                                    .alone_us = 1000,
                                    .beside_us = 1300,
                                    .stress_us = 1,
                                    .stressed_us = 1},
                                   {.batch = 1,
                                    .units = 4,
                                    .alone_us = 1000,
                                    .beside_us = 1100,
                                    .stress_us = 1,
                                    .stressed_us = 1}};
    struct interference f;

    beside_terms(b, 2, 8, &f);
    CHECK(near(f.term[TERM_MEMORY], 0.2));
    CHECK_EQ(beside_memory(&f, &b[0]), 0);
}

static void less_than_two_per_cent_is_nothing(void)
{
    const struct beside_run b = {.batch = 1,
                                 .units = 4,
                                 .alone_us = 1000,
                                 .beside_us = 1019,
                                 .stress_us = 1000,
                                 .stressed_us = 3000};
    struct interference f;

    beside_terms(&b, 1, 8, &f);
    CHECK_EQ(f.kind, INTERFERE_NONE);
    CHECK_EQ(beside_memory(&f, &b), 0);
    beside_terms(NULL, 0, 8, &f);
    CHECK_EQ(f.kind, INTERFERE_NONE);
}

static void a_run_that_was_faster_beside_others_was_not_slowed(void)
{
    const struct beside_run b = {.batch = 1,
                                 .units = 4,
                                 .alone_us = 1000,
                                 .beside_us = 900,
                                 .stress_us = 1000,
                                 .stressed_us = 900};
    struct interference f;

    beside_terms(&b, 1, 8, &f);
    CHECK_EQ(f.kind, INTERFERE_NONE);
}

static void nobody_uses_more_than_all_of_the_memory(void)
{
    const struct beside_run b = {.batch = 1,
                                 .units = 4,
                                 .alone_us = 1000,
                                 .beside_us = 1100,
                                 .stress_us = 1000,
                                 .stressed_us = 9000};
    struct interference f;

    beside_terms(&b, 1, 8, &f);
    CHECK_EQ(beside_memory(&f, &b), 1);
    CHECK_EQ(f.term[TERM_UNKNOWN], 1);
}

/* ---- cells */
static const uint32_t batch[] = {1, 2, 4}, units[] = {2, 4, 8};
static const usec_t run_us[] = {4000, 6000, 10000, 2000, 3000, 5000, 1000, 1500, 2500};
static const struct beside_run both[] = {{.batch = 1,
                                          .units = 4,
                                          .alone_us = 2000,
                                          .beside_us = 3000,
                                          .stress_us = 1000,
                                          .stressed_us = 1200},
                                         {.batch = 4,
                                          .units = 4,
                                          .alone_us = 5000,
                                          .beside_us = 7500,
                                          .stress_us = 1000,
                                          .stressed_us = 1300}};

static void cells_follow_the_batch_and_the_time_of_a_run(void)
{
    struct profile p = {
        .n_batch = 3, .n_units = 3, .batch = batch, .units = units, .run_us = run_us};
    struct interference f;

    beside_terms(both, 2, 8, &f);
    CHECK_EQ(beside_cells(&arena, &f, both, 2, &p), 0);
    CHECK(near(p.dram[3], 0.16)); /* 4 units, batch 1: (0.2 / 0.5)^2 */
    CHECK(near(p.dram[5], 0.36)); /* batch 4 */
    CHECK(near(p.dram[4], 0.16 + 0.2 / 3));
    CHECK(near(p.dram[0], 0.08)); /* on half of the units the same bytes take twice as long */
    CHECK(near(p.dram[6], 0.32));
    CHECK(p.l2 == p.dram);
}

static void what_was_measured_is_predicted(void)
{
    static const uint32_t one = 1, four = 4;
    static const usec_t ms = 1000;
    static const double all = 1;
    struct profile p = {
        .n_batch = 3, .n_units = 3, .batch = batch, .units = units, .run_us = run_us};
    const struct profile stress = {.n_batch = 1,
                                   .n_units = 1,
                                   .batch = &one,
                                   .units = &four,
                                   .run_us = &ms,
                                   .l2 = &all,
                                   .dram = &all};
    struct predict_device d = {.units = 8};
    struct estimate e;

    beside_terms(both, 2, 8, &d.interference);
    CHECK_EQ(beside_cells(&arena, &d.interference, both, 2, &p), 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct load me = {.profile = &p, .batch = both[i].batch, .units = 4, .duty = 1};
        struct load it = {.profile = &stress, .batch = 1, .units = 4, .duty = 1};
        CHECK(predict(&d, &me, &it, 1, &e));
        CHECK(near(e.run_us / (double)both[i].beside_us, 1));
        CHECK(predict(&d, &it, &me, 1, &e));
        CHECK(near(e.run_us / (double)both[i].stressed_us, 1));
    }
}

int main(void)
{
    arena_init(&arena);
    RUN(a_model_that_is_slowed_by_a_half_has_a_term_of_a_half);
    RUN(the_term_is_the_mean_of_the_models);
    RUN(less_than_two_per_cent_is_nothing);
    RUN(a_run_that_was_faster_beside_others_was_not_slowed);
    RUN(nobody_uses_more_than_all_of_the_memory);
    RUN(cells_follow_the_batch_and_the_time_of_a_run);
    RUN(what_was_measured_is_predicted);
    arena_done(&arena);
    return check_end();
}
