/* Prediction: tables between their points, and the published interference models by hand. */
#include "../check.h"
#include <gpulet/predict.h>
#include <math.h>

static bool near(double a, double b, double part)
{
    bool ok = fabs(a - b) <= part * fabs(b);

    if (!ok)
        printf("# %.9g is not near %.9g\n", a, b);
    return ok;
}

/* A batch of b on u of 8 units takes 1000 + 8000 b / u us. */
static const uint32_t batches[] = {1, 2, 4}, units[] = {2, 4, 8};
static const usec_t plain_us[] = {5000, 9000, 17000, 3000, 5000, 9000, 2000, 3000, 5000};
static const struct profile plain = {
    .n_batch = 3, .n_units = 3, .batch = batches, .units = units, .run_us = plain_us};
static const struct predict_device device = {.units = 8};

static double run_us(const struct profile *p, uint32_t batch, uint32_t u)
{
    struct load me = {.profile = p, .batch = batch, .units = u, .duty = 1};
    struct estimate e;

    return predict(&device, &me, NULL, 0, &e) ? e.run_us : 0;
}

static void a_table_is_exact_at_its_points_and_for_work_that_divides_between_them(void)
{
    for (uint32_t b = 1; b <= 4; b++)
        for (uint32_t u = 2; u <= 8; u++)
            CHECK(near(run_us(&plain, b, u), 1000 + 8000.0 * b / u, 1e-12));
}

static void outside_the_table_nothing_is_free(void)
{
    CHECK(near(run_us(&plain, 8, 4), 17000, 1e-12)); /* the last two points go on: 5, 9, 17 ms */
    CHECK(near(run_us(&plain, 1, 1), 10000, 1e-12)); /* half the units, twice the time */
    CHECK(near(run_us(&plain, 1, 16), 2000, 1e-12)); /* more than all units: no faster */
    struct profile one = {
        .n_batch = 1, .n_units = 1, .batch = batches, .units = units, .run_us = plain_us};
    CHECK(near(run_us(&one, 3, 2), 15000, 1e-12));
}

static void a_hole_does_not_run_nor_does_what_lies_beside_it(void)
{
    usec_t us[9];
    memcpy(us, plain_us, sizeof(us));
    us[2] = 0; /* batch 4 on 2 units does not fit */
    struct profile p = plain;
    p.run_us = us;
    struct load me = {.profile = &p, .batch = 4, .units = 2};
    struct estimate e = {.run_us = 1};

    CHECK(!predict(&device, &me, NULL, 0, &e));
    CHECK(e.run_us == 0);
    CHECK(run_us(&p, 3, 2) == 0); /* nobody has seen it run */
    CHECK(run_us(&p, 4, 3) == 0);
    CHECK(run_us(&p, 8, 2) == 0);
    CHECK(near(run_us(&p, 2, 2), 9000, 1e-12));
    CHECK(near(run_us(&p, 4, 4), 9000, 1e-12));
    CHECK(predict_run_us(&p, 4, 2) > 86400 * USEC_PER_SEC);
}

static void nothing_runs_without_a_profile_without_rows_or_on_no_units(void)
{
    struct profile none = {0};
    struct load me = {.profile = &none, .batch = 1, .units = 1};
    struct estimate e;

    CHECK(!predict(&device, &me, NULL, 0, &e));
    CHECK(predict_run_us(&none, 1, 1) > 86400 * USEC_PER_SEC);
    CHECK(run_us(&plain, 0, 4) == 0);
    CHECK(run_us(&plain, 1, 0) == 0);
}

static void streams_are_those_of_the_table_and_beyond_it_gain_nothing(void)
{
    static const uint32_t streams[] = {1, 3};
    static const usec_t us[] = {100, 150, 190, 260};
    struct profile p = {.n_batch = 2,
                        .n_units = 1,
                        .n_streams = 2,
                        .batch = batches,
                        .units = units,
                        .streams = streams,
                        .run_us = us};
    static const double expect[] = {100, 100, 200, 190, 190 * 4 / 3.0};

    for (uint32_t n = 0; n <= 4; n++) {
        struct load me = {.profile = &p, .batch = 1, .units = 2, .streams = n};
        struct estimate e;
        CHECK(predict(&device, &me, NULL, 0, &e));
        CHECK(near(e.run_us, expect[n], 1e-12));
    }
}

static void host_copies_and_the_upper_quantile_are_counted_once(void)
{
    static const usec_t upper[] = {5500, 9900, 18700, 3300, 5500, 9900, 2200, 3300, 5500};
    static const double host[] = {100, 150, 250};
    struct profile p = plain;
    p.upper_us = upper;
    p.host_us = host;
    p.in_bytes = 2000;
    p.out_bytes = 1000;
    struct predict_device d = {.units = 8, .link_bps = 1e7}; /* 10 bytes a us */
    struct load me = {.profile = &p, .batch = 2, .units = 4};
    struct estimate e;

    CHECK(predict(&d, &me, NULL, 0, &e));
    CHECK(near(e.run_us, 5000 + 400 + 200 + 150, 1e-12));
    CHECK(near(e.hold_us, 5000 + 200 + 150, 1e-12)); /* the next batch's copy in overlaps */
    CHECK(near(e.upper_us, e.run_us + 500, 1e-12));
    CHECK(e.slowdown == 1);
}

/* ---- random tables */

static uint64_t rng = 1;

static uint32_t below(uint32_t n)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((rng >> 33) % n);
}

static void ascending(uint32_t *at, uint32_t n)
{
    at[0] = 1 + below(3);
    for (uint32_t i = 1; i < n; i++)
        at[i] = at[i - 1] + 1 + below(7);
}

static void more_rows_are_never_faster_and_more_units_never_slower_on_any_table(void)
{
    for (uint32_t round = 0; round < 300; round++) {
        uint32_t b[5], u[5];
        usec_t us[25];
        struct profile p = {.n_batch = 1 + below(5), .n_units = 1 + below(5)};
        p.batch = b, p.units = u, p.run_us = us;
        ascending(b, p.n_batch);
        ascending(u, p.n_units);
        for (uint32_t i = 0; i < 25; i++)
            us[i] = 1 + below(10000);
        for (uint32_t x = 1; x < 45; x++)
            for (uint32_t y = 1; y < 40; y++) {
                double at = run_us(&p, x, y);
                CHECK(run_us(&p, x + 1, y) >= at * (1 - 1e-12));
                CHECK(run_us(&p, x, y + 1) <= at * (1 + 1e-12));
            }
    }
}

/* ---- gpu-lets */

static void gpu_lets_factor_is_the_published_formula(void)
{
    static const double l2[] = {.2, .3, .4, .2, .3, .4, .2, .3, .4};
    static const double dram[] = {.1, .3, .5, .1, .3, .5, .1, .3, .5};
    struct profile p = plain;
    p.l2 = l2;
    p.dram = dram;
    struct predict_device d = {
        .units = 8,
        .interference = {.kind = INTERFERE_GPULET, .c = {0.1129, 0.7160, 0.3549, 0.0882, 0.8954}}};
    struct load me = {.profile = &p, .batch = 3, .units = 4, .duty = 1};
    struct load other[2] = {{.profile = &p, .batch = 1, .units = 4, .duty = 1},
                            {.profile = &p, .batch = 4, .units = 4, .duty = 1}};
    struct estimate e;
    /* half way between batches 2 and 4 I use 0.35 of L2 and 0.4 of DRAM, on half of the device;
     * of the neighbours batch 4 (0.4, 0.5) is the worse */
    double f = (0.1129 * .35 + 0.7160 * .4 + 0.3549 * .4 + 0.0882 * .5) * .5 + 0.8954;

    CHECK(predict(&d, &me, other, 2, &e));
    CHECK(near(e.slowdown, f, 1e-12));
    CHECK(near(e.run_us, 7000 * f, 1e-12));
    other[1].duty = 0.1;
    CHECK(predict(&d, &me, other + 1, 1, &e));
    CHECK(near(e.slowdown - 1, 0.1 * (f - 1), 1e-9)); /* a tenth of the time, a tenth of it */
    CHECK(predict(&d, &me, NULL, 0, &e));
    CHECK(e.slowdown == 1);
}

/* ---- iGniter on a V100, coefficients of test/data/README */

static const struct igniter_curve alexnet = {
    .k = {0.004153511274, 8.711584617, 23.73607012, 0.05552069855, 0.3460109386},
    .kernels = 20,
    .sched_ms = 0.03176827829,
    .in_bytes = 602112,
    .out_bytes = 4000,
    .watts_per_rps = 0.02389297163,
    .watts_base = 37.10814635,
    .l2_per_rps = 0.003092045922,
    .l2_base = 2.029571145,
    .cache_per_pct = 0.002376375062,
};
static const struct igniter_curve resnet50 = {
    .k = {-0.01751200553, 58.26450646, -0.01038383904, 0.3448827660, 1.909449631},
    .kernels = 80,
    .sched_ms = 0.07381620008,
    .in_bytes = 602112,
    .out_bytes = 4000,
    .watts_per_rps = 0.1623353180,
    .watts_base = 4.626864948,
    .l2_per_rps = 0.02195951344,
    .l2_base = -0.1899421443,
    .cache_per_pct = 0.002163060543,
};
static const struct igniter_curve vgg19 = {
    .k = {-0.004834680883, 158.1929699, 44.45212510, 0.1884071930, 0.9261921527},
    .kernels = 29,
    .sched_ms = 0.03924936978,
    .in_bytes = 602112,
    .out_bytes = 4000,
    .watts_per_rps = 0.5367285045,
    .watts_base = 2.081851125,
    .l2_per_rps = 0.04521753293,
    .l2_base = 2.722816381,
    .cache_per_pct = 0.002017731529,
};
static const struct predict_device v100 = {
    .units = 80,
    .link_bps = 1e10,
    .interference = {.kind = INTERFERE_IGNITER,
                     .max_mhz = 1530,
                     .max_watts = 300,
                     .idle_watts = 53.5,
                     .mhz_per_watt = -1.025413623,
                     .sched_ms = 0.004750653473,
                     .sched_base_ms = -0.009022425731},
};

static void iGniter_alone_is_its_curve_and_its_copies(void)
{
    struct profile p = {.curve = &alexnet};
    struct load me = {.profile = &p, .batch = 6, .units = 30, .duty = 1}; /* 37.5 % */
    struct estimate e;
    double active_ms =
        (0.004153511274 * 36 + 8.711584617 * 6 + 23.73607012) / 37.55552069855 + 0.3460109386;
    double gpu_us = 1000 * (active_ms + 0.03176827829);

    CHECK(predict(&v100, &me, NULL, 0, &e));
    CHECK(near(e.run_us, gpu_us + 6 * 60.2112 + 6 * 0.4, 1e-9));
    CHECK(near(e.hold_us, gpu_us + 6 * 0.4, 1e-9));
}

/* The example of the paper's repository: 200, 400 and 500 requests/s within 60, 40 and 15 ms are
 * met with 37.5, 30 and 10 % and batches of 6, 8 and 4 on one device. */
static struct profile trio[3] = {{.curve = &vgg19}, {.curve = &resnet50}, {.curve = &alexnet}};
static const double trio_slo_ms[] = {60, 40, 15}, trio_rps[] = {200, 400, 500};

static struct estimate one_of_three(const struct load load[3], uint32_t i)
{
    struct load other[2] = {load[(i + 1) % 3], load[(i + 2) % 3]};
    struct estimate e;

    CHECK(predict(&v100, &load[i], other, 2, &e));
    return e;
}

static void iGniters_example_of_three_models_meets_half_of_each_slo(void)
{
    struct load load[3] = {{.profile = &trio[0], .batch = 6, .units = 30, .duty = 1},
                           {.profile = &trio[1], .batch = 8, .units = 24, .duty = 1},
                           {.profile = &trio[2], .batch = 4, .units = 8, .duty = 1}};

    for (uint32_t i = 0; i < 3; i++) {
        struct estimate e = one_of_three(load, i);
        CHECK(e.run_us <= 500 * trio_slo_ms[i]);
        CHECK(1e6 * load[i].batch / e.hold_us >= trio_rps[i]);
        CHECK(e.slowdown > 1);
        printf("# run %.0f us of %.0f, slowdown %.3f\n", e.run_us, 500 * trio_slo_ms[i],
               e.slowdown);
    }
}

static void iGniters_terms_add_up_by_hand(void)
{
    /* Two loads that use 20 % of L2 and 60 W each, 50 kernels in 10 ms, cap at 150 W. */
    struct igniter_curve c = {.k = {0, 0, 0, 0, 10},
                              .kernels = 50,
                              .watts_base = 60,
                              .l2_base = 20,
                              .cache_per_pct = 0.002};
    struct profile p = {.curve = &c};
    struct predict_device d = {.units = 100,
                               .interference = {.kind = INTERFERE_IGNITER,
                                                .max_mhz = 1000,
                                                .max_watts = 150,
                                                .idle_watts = 50,
                                                .mhz_per_watt = -2,
                                                .sched_ms = 0.003,
                                                .sched_base_ms = -0.002}};
    struct load me = {.profile = &p, .batch = 1, .units = 50, .duty = 1};
    struct load other[2] = {me, me};
    struct estimate e;

    CHECK(predict(&d, &me, other, 1, &e));
    /* 10 ms x 1.04 + 50 x 4 us, at 1000 - 2 x 20 MHz */
    CHECK(near(e.run_us, (10400 + 200) / 0.96, 1e-9));
    CHECK(predict(&d, &me, other, 2, &e));
    CHECK(near(e.run_us, (10800 + 350) / 0.84, 1e-9));
    other[0].duty = 0.5; /* half a neighbour: half its L2, half the gap of p = 2, 140 W */
    CHECK(predict(&d, &me, other, 1, &e));
    CHECK(near(e.run_us, 10200 + 100, 1e-9));
    other[0].duty = 0;
    CHECK(predict(&d, &me, other, 1, &e));
    CHECK(near(e.run_us, 10000, 1e-12));
    d.interference.kind = INTERFERE_NONE;
    CHECK(predict(&d, &me, other, 2, &e));
    CHECK(near(e.run_us, 10000, 1e-12));
}

/* ---- sums */

static void neighbours_join_and_leave_without_a_trace(void)
{
    struct load load[3] = {{.profile = &trio[0], .batch = 6, .units = 30, .duty = 1},
                           {.profile = &trio[1], .batch = 8, .units = 24, .duty = 0.37},
                           {.profile = &trio[2], .batch = 4, .units = 8, .duty = 0.1}};
    static const enum interfere_kind kind[] = {INTERFERE_IGNITER, INTERFERE_GPULET,
                                               INTERFERE_PRESSURE};

    for (uint32_t k = 0; k < ARRAY_SIZE(kind); k++) {
        struct predict_device d = v100;
        struct solo s[3];
        struct pressure p = {0}, q = {0};
        struct estimate e, f;
        d.interference.kind = kind[k];
        for (uint32_t i = 0; i < 3; i++)
            CHECK(load_solo(&d, &load[i], &s[i]));
        for (uint32_t i = 0; i < 1000; i++) {
            pressure_add(&d, &p, &s[1], 0.37);
            CHECK(pressure_sub(&d, &p, &s[1], 0.37));
        }
        pressure_add(&d, &p, &s[2], 0.1);
        pressure_add(&d, &p, &s[1], 0.37);
        pressure_of(&d, &s[0], &p, &e);
        CHECK(predict(&d, &load[0], load + 1, 2, &f));
        CHECK(memcmp(&e, &f, sizeof(e)) == 0);
        CHECK(pressure_sub(&d, &p, &s[2], 0.1) && pressure_sub(&d, &p, &s[1], 0.37));
        pressure_of(&d, &s[0], &p, &e);
        pressure_of(&d, &s[0], &q, &f);
        CHECK(memcmp(&e, &f, sizeof(e)) == 0);
    }
}

static void many_neighbours_of_gpu_lets_are_never_less_than_the_worst(void)
{
    static const double l2[] = {.5, .5, .5, .5, .5, .5, .5, .5, .5};
    struct profile p = plain;
    p.l2 = l2;
    struct predict_device d = {.units = 8,
                               .interference = {.kind = INTERFERE_GPULET, .c = {0, 1, 0, 0, 1}}};
    struct load me = {.profile = &p, .batch = 1, .units = 1, .duty = 1}, other[40];
    struct estimate e;

    for (uint32_t i = 0; i < 40; i++)
        other[i] = (struct load){.profile = &p, .batch = 1, .units = 1, .duty = 0.1};
    other[30] = (struct load){.profile = &p, .batch = 1, .units = 4, .duty = 1};
    CHECK(predict(&d, &me, other, 40, &e));
    CHECK(near(e.slowdown, 1.25, 1e-12));

    struct pressure q = {0};
    struct solo s;
    CHECK(load_solo(&d, &other[0], &s));
    for (uint32_t i = 0; i <= PRESSURE_LINES; i++)
        pressure_add(&d, &q, &s, 1);
    CHECK(!pressure_sub(&d, &q, &s, 1)); /* it has forgotten who there was: says so */
}

/* ---- what serving shows */

static double shown(const double *times, unsigned n_times, unsigned n)
{
    struct residual r = {0};

    for (unsigned i = 0; i < n; i++)
        residual_add(&r, 1000, (usec_t)(1000 * times[i % n_times]));
    return residual_factor(&r);
}

static void a_residual_is_the_median_of_what_was_seen(void)
{
    const double same[] = {1.02, 0.98}, slow[] = {2.0}, fast[] = {0.5};
    const double disturbed[] = {1, 50, 1, 1, 1000, 1, 0.99}; /* two of seven */

    CHECK(fabs(shown(same, 2, 200) - 1) < 0.05);
    CHECK(fabs(shown(slow, 1, 200) - 2) < 0.05);
    CHECK(fabs(shown(fast, 1, 200) - 0.5) < 0.02);
    CHECK(fabs(shown(disturbed, 7, 700) - 1) < 0.1);
}

static void a_residual_says_nothing_at_first_and_is_bounded(void)
{
    const double slow[] = {1000}, fast[] = {0.001};

    CHECK(shown(slow, 1, RESIDUAL_LEAST - 1) == 1);
    CHECK(shown(slow, 1, 10000) == 4);
    CHECK(shown(fast, 1, 10000) == 0.25);
}

int main(void)
{
    RUN(a_table_is_exact_at_its_points_and_for_work_that_divides_between_them);
    RUN(outside_the_table_nothing_is_free);
    RUN(a_hole_does_not_run_nor_does_what_lies_beside_it);
    RUN(nothing_runs_without_a_profile_without_rows_or_on_no_units);
    RUN(streams_are_those_of_the_table_and_beyond_it_gain_nothing);
    RUN(host_copies_and_the_upper_quantile_are_counted_once);
    RUN(more_rows_are_never_faster_and_more_units_never_slower_on_any_table);
    RUN(gpu_lets_factor_is_the_published_formula);
    RUN(iGniter_alone_is_its_curve_and_its_copies);
    RUN(iGniters_example_of_three_models_meets_half_of_each_slo);
    RUN(iGniters_terms_add_up_by_hand);
    RUN(neighbours_join_and_leave_without_a_trace);
    RUN(many_neighbours_of_gpu_lets_are_never_less_than_the_worst);
    RUN(a_residual_is_the_median_of_what_was_seen);
    RUN(a_residual_says_nothing_at_first_and_is_bounded);
    return check_end();
}
