/* The published planners, against figures from their papers and sums done by hand. */
#include "../check.h"
#include "../plan/random_problem.h"
#include "../problem_file.h"
#include "../../lib/plan/gpulet.h"

static struct arena arena;

static struct plan make(const struct problem *p, const char *policy, int expect)
{
    const struct policy *by = NULL;
    struct plan plan = {0};
    struct err err = {0};

    CHECK_EQ(policy_find(policy, &by, &err), 0);
    CHECK_EQ(by->plan_make(p, NULL, &arena, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(plan_check(p, NULL, &plan, &err), expect);
    if (expect == 0)
        CHECK_STR(err.msg, "");
    return plan;
}

static uint32_t accepted(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < plan->n_models; m++)
        n += plan->verdict[m].limit == LIMIT_NONE;
    return n;
}

/* ---- iGniter */

/* In the order of the problem: the n-th model's first gpu-let. */
static const struct plan_gpulet *let_of(const struct plan *plan, uint32_t model)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            if (plan->gpulet[k].share[i].model == model)
                return &plan->gpulet[k];
    return NULL;
}

static void igniter_plans_its_example_as_published(void)
{
    static const uint32_t units[] = {8, 24, 30}, batch[] = {4, 8, 6}; /* 10, 30, 37.5 % of 80 */
    arena_init(&arena);
    struct problem p = problem_file(&arena, "igniter-3");
    struct plan plan = make(&p, "igniter", 0);

    CHECK_EQ(accepted(&plan), 3);
    CHECK_EQ(plan_devices_used(&p, &plan, &arena), 1);
    for (uint32_t m = 0; m < 3 && let_of(&plan, m); m++) {
        CHECK_EQ(let_of(&plan, m)->units, units[m]);
        CHECK_EQ(let_of(&plan, m)->share[0].batch, batch[m]);
    }
    arena_done(&arena);
}

static void igniter_places_its_twelve_workloads_on_six_devices(void)
{
    arena_init(&arena);
    struct problem p = problem_file(&arena, "igniter-12");
    struct plan plan = make(&p, "igniter", 0);

    CHECK_EQ(accepted(&plan), 12);
    CHECK_EQ(plan_devices_used(&p, &plan, &arena), 6);
    arena_done(&arena);
}

/* ---- ParvaGPU */

static void parva_uses_as_many_devices_as_published(void)
{
    static const uint32_t published[] = {2, 3, 5, 7, 13, 17};
    char name[] = "parva-S1-mig";

    for (uint32_t i = 0; i < ARRAY_SIZE(published); i++) {
        arena_init(&arena);
        name[7] = (char)('1' + i);
        struct problem p = problem_file(&arena, name);
        struct plan plan = make(&p, "parva", 0);
        CHECK_EQ(accepted(&plan), p.n_models);
        CHECK_EQ(plan_devices_used(&p, &plan, &arena), published[i]);
        arena_done(&arena);
    }
}

/* ---- gpu-lets, by hand
 *
 * A run of b rows on u of 10 units takes 2 ms + b x (10 / u) ms up to 5 units, and as on 5 from
 * there on: the knee.  est is 1.1 times that. */

static const uint32_t batches[] = {1, 32}, units[] = {2, 4, 5, 6, 8, 10},
                      sizes[] = {2, 4, 5, 6, 8, 10};
static usec_t table[12];
static struct profile profile;
static struct plan_type type;
static struct plan_device device[4];
static struct plan_model model[9];

static struct problem by_hand(uint32_t n_devices, uint32_t n_models)
{
    for (uint32_t u = 0; u < 6; u++)
        for (uint32_t b = 0; b < 2; b++)
            table[2 * u + b] = 2000 + batches[b] * 10000 / MIN(units[u], 5u);
    profile = (struct profile){
        .n_batch = 2, .n_units = 6, .batch = batches, .units = units, .run_us = table};
    type = (struct plan_type){.name = "t",
                              .n_granules = 10,
                              .granule_units = 1,
                              .n_sizes = 6,
                              .size = sizes,
                              .predict = {.units = 10}};
    for (uint32_t d = 0; d < 4; d++)
        device[d] = (struct plan_device){.name = "d"};
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
    for (uint32_t m = 0; m < n_models; m++)
        model[m] = (struct plan_model){.name = names[m],
                                       .slo_us = 44000,
                                       .rate_rps = 100,
                                       .arrivals = ARRIVALS_PACED,
                                       .max_batch = 32,
                                       .profile = &profile};
    arena_init(&arena);
    return (struct problem){.n_types = 1,
                            .n_devices = n_devices,
                            .n_models = n_models,
                            .type = &type,
                            .device = device,
                            .model = model};
}

static struct gplan glets(const struct problem *p)
{
    struct gplan g = {0};
    struct err err = {0};

    CHECK_EQ(glet_begin(&g, p, &arena, &err), 0);
    return g;
}

static bool near(double a, double b)
{
    if (a > b * (1 - 1e-6) && a < b * (1 + 1e-6))
        return true;
    printf("# %.9g is not %.9g\n", a, b);
    return false;
}

/* On all units 2 x 1.1 x (2 + 2 b) <= 44: b = 9, 9 rows each 22 ms.  On two units 5 b in place of
 * 2 b: b = 3, 3 rows each 18.7 ms. */
static void a_saturated_batch_is_the_largest_of_which_two_fit_into_the_slo(void)
{
    struct problem p = by_hand(1, 1);
    struct gplan g = glets(&p);
    double rps;

    CHECK_EQ(glet_saturated(&g, 0, 10, 0, NULL, &rps), 9);
    CHECK(near(rps, 9 / 0.022));
    CHECK_EQ(glet_saturated(&g, 0, 2, 0, NULL, &rps), 3);
    CHECK(near(rps, 3 / 0.0187));
    arena_done(&arena);
}

static void an_slo_below_two_runs_saturates_nothing(void)
{
    struct problem p = by_hand(1, 1);
    model[0].slo_us = 8000; /* two runs of one row: 8.8 ms */
    struct gplan g = glets(&p);
    double rps;

    CHECK_EQ(glet_saturated(&g, 0, 10, 0, NULL, &rps), 0);
    CHECK_EQ((long long)rps, 0);
    CHECK_EQ(glet_knee(&g, 0, 0), PLAN_NONE);
    struct plan plan = make(&p, "gpulet", 0);
    CHECK_EQ(plan.verdict[0].limit, LIMIT_SLO);
    CHECK_EQ(plan.verdict[0].least_slo_us, 8800);
    arena_done(&arena);
}

/* Throughput on 2, 4, 5 units: 160, 7 / 21.45 ms = 326, 9 / 22 ms = 409; then no more.  By the
 * unit: 83 from 2 to 4, 83 from 4 to 5, exactly: 82.96 and 82.75. */
static void the_knee_is_the_upper_end_of_the_steepest_step(void)
{
    struct problem p = by_hand(1, 1);
    struct gplan g = glets(&p);
    double rps;

    CHECK_EQ(glet_saturated(&g, 0, 4, 0, NULL, &rps), 7);
    CHECK(near(rps, 7 / 0.02145));
    CHECK_EQ(glet_knee(&g, 0, 0), 1);
    arena_done(&arena);
}

/* At 100/s on 4 units: 1.1 (2 + 2.5 b) + 10 b <= 44 gives b = 3 with 40.45; on 2 units a run of 3
 * takes 18.7 ms, with 30 ms of collecting 48.7: too much, so it stays. */
static void a_residue_collects_as_many_as_the_slo_leaves_time_for(void)
{
    struct problem p = by_hand(1, 1);
    struct gplan g = glets(&p);
    struct piece piece = {0};

    CHECK(glet_residue(&g, 0, 1, 0, 100, &piece));
    CHECK_EQ(piece.batch, 3);
    CHECK_EQ(piece.granules, 4);
    CHECK(near(piece.duty_us, 30000));
    CHECK(!piece.saturated);
    /* At 10/s not even two come in time: one, which may wait until 44 - 4.95 ms have passed, and
     * on two units 44 - 7.7. */
    CHECK(glet_residue(&g, 0, 1, 0, 10, &piece));
    CHECK_EQ(piece.batch, 1);
    CHECK_EQ(piece.granules, 2);
    CHECK(near(piece.duty_us, 36300));
    arena_done(&arena);
}

/* Two residues of 100/s on 4 units; one of 4 units serves 326/s, so one will do for 200/s. */
static void residues_merge_where_one_gpulet_can_serve_them(void)
{
    struct problem p = by_hand(2, 1);
    model[0].rate_rps = 200;
    struct gplan g = glets(&p);
    struct piece piece = {0};

    CHECK(glet_residue(&g, 0, 1, 0, 100, &piece));
    CHECK(glet_fit(&g, 0, &piece) != PLAN_NONE);
    CHECK(glet_fit(&g, 0, &piece) != PLAN_NONE);
    CHECK(near(glet_planned(&g, 0), 200));
    CHECK_EQ((long long)glet_merge(&g, 0, 0), 0);
    uint32_t used = 0;
    for (uint32_t k = 0; k < 4; k++)
        used += g.let[k].n;
    CHECK_EQ(used, 1);
    CHECK(near(glet_planned(&g, 0), 200));
    arena_done(&arena);
}

/* A residue of 20/s on a whole device: b = 1, duty = 39.6 ms of which 4.4 are used.  The newcomer
 * of 100/s: floor(39.6 x 0.1) = 3 rows want 30 ms, est 8.8, but both and the cycle of 30 ms fit:
 * 30 + 8.8 + 4.4 = 43.2 of 44. */
static void a_newcomer_shares_in_time_when_the_cycle_and_all_runs_fit(void)
{
    struct problem p = by_hand(1, 2);
    struct gplan g = glets(&p);

    g.let[0] = (struct glet){
        .granules = 10, .n = 1, .duty_us = 39600, .share = {{.model = 0, .batch = 1, .rps = 20}}};
    CHECK(near(glet_occupancy(&g, 0), 4.4 / 39.6));
    CHECK_EQ((long long)glet_share_time(&g, 1, 100), 0);
    CHECK_EQ(g.let[0].n, 2);
    CHECK(near(g.let[0].duty_us, 30000));
    CHECK_EQ(g.let[0].share[0].batch, 1);
    CHECK_EQ(g.let[0].share[1].batch, 3);
    CHECK(near(glet_occupancy(&g, 0), 13.2 / 30));
    /* No third with a shorter SLO than cycle and runs; nobody joins a saturated one. */
    model[0].slo_us = 43000;
    g.let[0].n = 1;
    g.let[0].duty_us = 39600 - 1000;
    CHECK(near(glet_share_time(&g, 1, 100), 100));
    g.let[0].saturated = true;
    CHECK(near(glet_share_time(&g, 1, 100), 100));
    arena_done(&arena);
}

/* The 99th percentile of Poisson counts, and its ends. */
static void rates_are_raised_to_the_99th_percentile(void)
{
    CHECK(near(glet_raised(100), 124));
    CHECK(near(glet_raised(200), 234));
    CHECK(near(glet_raised(1000), 1100));
    CHECK(near(glet_raised(0.01), 0.01)); /* nothing comes in 99 % of the seconds */
    CHECK(near(glet_raised(0.1), 1));
}

static void a_rate_of_one_in_a_hundred_seconds_gets_its_gpulet(void)
{
    static const char *const names[] = {"gpulet",    "gpulet-int",   "gpulet-full",  "greedy",
                                        "timeshare", "static-equal", "static-seven", "ffd",
                                        "igniter",   "parva"};

    for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct problem p = by_hand(1, 2);
        model[0].rate_rps = 0.01;
        model[0].arrivals = ARRIVALS_POISSON;
        struct plan plan = make(&p, names[i], 0);
        CHECK_EQ(accepted(&plan), 2);
        arena_done(&arena);
    }
}

static void who_finds_no_room_is_named_with_what_would_do(void)
{
    static const char *const names[] = {"gpulet",    "gpulet-int",   "gpulet-full",  "greedy",
                                        "timeshare", "static-equal", "static-seven", "ffd",
                                        "igniter",   "parva"};

    for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct problem p = by_hand(1, 2);
        model[0].rate_rps = 4000; /* ten devices of 409/s */
        model[1].slo_us = 1000;
        struct plan plan = make(&p, names[i], 0);
        CHECK_EQ(plan.verdict[0].limit, LIMIT_UNITS);
        CHECK(plan.verdict[0].need > 3);
        CHECK(plan.verdict[0].most_rps < 1000);
        CHECK_EQ(plan.verdict[1].limit, LIMIT_SLO);
        CHECK(plan.verdict[1].least_slo_us > 1000);
        arena_done(&arena);
    }
}

static void a_model_larger_than_the_memory_is_named(void)
{
    static const char *const names[] = {"gpulet", "gpulet-full", "greedy", "timeshare",
                                        "ffd",    "igniter",     "parva"};

    for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct problem p = by_hand(1, 2);
        type.mem_bytes = 1000;
        model[0].weights_bytes = 1001;
        struct plan plan = make(&p, names[i], 0);
        CHECK_EQ(plan.verdict[0].limit, LIMIT_MEMORY);
        CHECK_EQ(plan.verdict[1].limit, LIMIT_NONE);
        arena_done(&arena);
    }
}

static uint32_t most_lets(const struct plan *plan)
{
    uint32_t n[4] = {0}, most = 0;

    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        n[plan->gpulet[k].device]++;
    for (uint32_t d = 0; d < ARRAY_SIZE(n); d++)
        most = MAX(most, n[d]);
    return most;
}

/* As contexts of MPS do: of 1000 bytes each takes 400, whatever is in it. */
static void no_policy_opens_more_gpulets_than_memory_has_room_for(void)
{
    uint32_t n_bound = 0;
    const struct policy *by;

    for (uint32_t i = 0; (by = policy_at(i)); i++) {
        struct problem p = by_hand(2, 6);
        struct err err = {0};
        struct plan plan = make(&p, by->name, 0);
        uint32_t before = most_lets(&plan);
        type.mem_bytes = 1000;
        type.let_bytes = 400;
        CHECK_EQ(plan_check(&p, NULL, &plan, &err), before > 2 ? -EINVAL : 0);
        if (before > 2)
            CHECK_HAS(err.msg, "bytes, it has 1000");
        n_bound += before > 2;
        plan = make(&p, by->name, 0); /* and the check says that it can be run */
        CHECK(plan.n_gpulets > 0);
        CHECK(most_lets(&plan) <= 2);
        arena_done(&arena);
    }
    CHECK(n_bound >= 5);
}

static void the_full_search_says_when_there_are_too_many_splits(void)
{
    struct problem p = by_hand(4, 1);
    static struct plan_device many[40];
    struct plan plan;
    struct err err = {0};

    for (uint32_t d = 0; d < 40; d++)
        many[d].name = "d";
    p.device = many;
    p.n_devices = 40;
    CHECK_EQ(policy_gpulet_full.plan_make(&p, NULL, &arena, &plan, &err), -E2BIG);
    CHECK_HAS(err.msg, "gpulet-full: 40 devices");
    arena_done(&arena);
}

/* Three of the nine models of the published setting at 200/s. */
static void the_full_search_serves_what_the_heuristic_serves(void)
{
    arena_init(&arena);
    struct problem all = problem_file(&arena, "gpulet"), p = all;
    struct plan_model some[3];

    for (uint32_t m = 0; m < 3; m++) {
        some[m] = all.model[m + 1];
        some[m].rate_rps = 200;
    }
    p.model = some;
    p.n_models = 3;
    struct plan a = make(&p, "gpulet-int", 0), b = make(&p, "gpulet-full", 0);
    CHECK_EQ(accepted(&a), 3);
    CHECK_EQ(accepted(&b), 3);
    arena_done(&arena);
}

/* ---- squishy packing
 *
 * On a whole device, 100/s: 1.1 (2 + 2 b) + 10 b <= 44 gives b = 3, a cycle of 30 ms, 8.8 of them
 * used.  Three such residues use 26.4 ms of it; a fourth would make it 35.2. */
static void residues_share_the_shorter_cycle_while_their_runs_fit(void)
{
    struct problem p = by_hand(2, 4);
    struct plan plan = make(&p, "timeshare", 0);

    CHECK_EQ(accepted(&plan), 4);
    CHECK_EQ(plan.n_gpulets, 2);
    CHECK_EQ(plan.gpulet[0].n_shares, 3);
    CHECK_EQ(plan.gpulet[1].n_shares, 1);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_EQ(plan.gpulet[0].share[i].batch, 3);
        CHECK_EQ(plan.gpulet[0].share[i].latency_us, 38800);
    }
    arena_done(&arena);
}

/* 500/s: one device of 9 rows every 22 ms, 409/s, and a residue. */
static void a_rate_above_a_device_saturates_it_first(void)
{
    struct problem p = by_hand(2, 1);
    model[0].rate_rps = 500;
    struct plan plan = make(&p, "timeshare", 0);

    CHECK_EQ(accepted(&plan), 1);
    CHECK_EQ(plan.n_gpulets, 2);
    CHECK_EQ(plan.gpulet[0].share[0].batch, 9);
    CHECK(near(plan.gpulet[0].share[0].rate_rps, 9 / 0.022));
    arena_done(&arena);
}

static void static_cuts_are_halves_and_sevenths_or_the_least_size(void)
{
    struct problem p = by_hand(1, 9);
    for (uint32_t m = 0; m < 9; m++)
        model[m].rate_rps = 60;
    struct plan halves = make(&p, "static-equal", 0);
    CHECK_EQ(halves.n_gpulets, 2);
    CHECK_EQ(halves.gpulet[1].units, 5);
    struct plan sevenths = make(&p, "static-seven", 0); /* two of ten units is the least */
    CHECK_EQ(sevenths.n_gpulets, 5);
    CHECK_EQ(sevenths.gpulet[4].units, 2);
    type.n_sizes = 0;
    struct plan free_cut = make(&p, "static-seven", 0);
    CHECK_EQ(free_cut.n_gpulets, 7);
    arena_done(&arena);
}

/* ---- first fit and iGniter by hand: T = 22 ms; 2 + 2 b with b = ceil(2.2) = 3 rows: on 2 units
 * 17 ms, so 2 units each: five fit on a device, and nine on two. */
static void first_fit_takes_the_least_share_that_holds(void)
{
    struct problem p = by_hand(4, 9);
    p.rules = (struct plan_rules){.rule = RULE_PART, .slo_part = 0.5, .as_few = true};
    struct plan plan = make(&p, "ffd", 0);

    CHECK_EQ(accepted(&plan), 9);
    CHECK_EQ(plan_devices_used(&p, &plan, &arena), 2);
    for (uint32_t k = 0; k < plan.n_gpulets; k++) {
        CHECK_EQ(plan.gpulet[k].units, 2);
        CHECK_EQ(plan.gpulet[k].share[0].batch, 3);
    }
    arena_done(&arena);
}

/* 1,000/s: a device serves 10 rows in 22 ms, 90 % of that is 409/s; two of them and 182/s. */
static void a_workload_above_a_device_gets_devices_of_its_own(void)
{
    struct problem p = by_hand(4, 1);
    p.rules = (struct plan_rules){.rule = RULE_PART, .slo_part = 0.5, .as_few = true};
    model[0].rate_rps = 1000;
    struct plan plan = make(&p, "igniter", 0);

    CHECK_EQ(accepted(&plan), 1);
    CHECK_EQ(plan.n_gpulets, 3);
    CHECK_EQ(plan.gpulet[0].units, 10);
    CHECK_EQ(plan.gpulet[0].share[0].batch, 10);
    CHECK(near(plan.gpulet[0].share[0].rate_rps, 0.9 * 10 / 0.022));
    arena_done(&arena);
}

/* ---- all of them */

static void every_policy_is_found_by_its_name(void)
{
    const struct policy *by;
    struct err err = {0};

    CHECK_EQ(policy_find("best", &by, &err), -ENOENT);
    for (uint32_t i = 0; policy_at(i); i++) {
        CHECK_EQ(policy_find(policy_at(i)->name, &by, NULL), 0);
        CHECK(by == policy_at(i));
        CHECK_HAS(err.msg, by->name);
    }
}

/* Also from a fixed arena of the size that plan_need() says. */
static void plans_are_the_same_each_time_and_need_no_more_memory_than_said(void)
{
    for (uint32_t i = 0; policy_at(i); i++) {
        struct problem p = by_hand(3, 9);
        struct plan a = {0}, b = {0};
        struct err err = {0};
        struct arena fixed;
        AUTO(free) void *memory = malloc(plan_need(&p));
        arena_init_fixed(&fixed, memory, plan_need(&p));
        CHECK_EQ(policy_at(i)->plan_make(&p, NULL, &fixed, &a, &err), 0);
        CHECK_STR(err.msg, "");
        CHECK_EQ(policy_at(i)->plan_make(&p, NULL, &arena, &b, &err), 0);
        CHECK_EQ(a.n_gpulets, b.n_gpulets);
        for (uint32_t k = 0; k < a.n_gpulets && k < b.n_gpulets; k++) {
            CHECK(set_eq(&a.gpulet[k].set, &b.gpulet[k].set));
            CHECK_EQ(a.gpulet[k].n_shares, b.gpulet[k].n_shares);
            for (uint32_t j = 0; j < a.gpulet[k].n_shares; j++)
                CHECK(memcmp(&a.gpulet[k].share[j], &b.gpulet[k].share[j],
                             sizeof(struct plan_share)) == 0);
        }
        arena_done(&arena);
    }
}

/* Whatever they believe of SLOs and rates: nobody crashes, hangs, forgets a model, or makes a plan
 * that the devices cannot run; the arena is as large as plan_need() says. */
#define RANDOM_PROBLEMS 1000

static void plan_random(const struct policy *by, const struct problem *p, uint64_t seed)
{
    size_t bytes = plan_need(p);
    AUTO(free) void *memory = malloc(bytes);
    struct plan plan = {0};
    struct err err = {0};
    struct arena fixed;

    arena_init_fixed(&fixed, memory, bytes);
    int r = by->plan_make(p, NULL, &fixed, &plan, &err);
    if (r == -E2BIG || r == -ENOTSUP) {
        CHECK(err.msg[0] != 0);
        return;
    }
    CHECK_EQ(r, 0);
    if (r == 0) {
        CHECK_EQ(plan.n_models, p->n_models);
        for (uint32_t m = 0; m < plan.n_models; m++)
            plan.verdict[m].limit = LIMIT_UNITS; /* what is claimed is not asked here */
        CHECK_EQ(plan_check(p, NULL, &plan, &err), 0);
    }
    if (err.msg[0])
        printf("# %s, problem %" PRIu64 ": %s\n", by->name, seed, err.msg);
}

static void plans_of_random_problems_can_be_run(void)
{
    static const char *const names[] = {"gpulet",    "gpulet-int",   "gpulet-full",  "greedy",
                                        "timeshare", "static-equal", "static-seven", "ffd",
                                        "igniter",   "parva"};

    for (uint64_t seed = 1; seed <= RANDOM_PROBLEMS; seed++) {
        struct problem p;
        arena_init(&arena);
        random_problem(seed, RANDOM_HOSTILE, 0, 0, &arena, &p);
        for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
            const struct policy *by;
            CHECK_EQ(policy_find(names[i], &by, NULL), 0);
            plan_random(by, &p, seed);
        }
        arena_done(&arena);
    }
}

int main(void)
{
    RUN(igniter_plans_its_example_as_published);
    RUN(igniter_places_its_twelve_workloads_on_six_devices);
    RUN(parva_uses_as_many_devices_as_published);
    RUN(a_saturated_batch_is_the_largest_of_which_two_fit_into_the_slo);
    RUN(an_slo_below_two_runs_saturates_nothing);
    RUN(the_knee_is_the_upper_end_of_the_steepest_step);
    RUN(a_residue_collects_as_many_as_the_slo_leaves_time_for);
    RUN(residues_merge_where_one_gpulet_can_serve_them);
    RUN(a_newcomer_shares_in_time_when_the_cycle_and_all_runs_fit);
    RUN(rates_are_raised_to_the_99th_percentile);
    RUN(a_rate_of_one_in_a_hundred_seconds_gets_its_gpulet);
    RUN(who_finds_no_room_is_named_with_what_would_do);
    RUN(a_model_larger_than_the_memory_is_named);
    RUN(no_policy_opens_more_gpulets_than_memory_has_room_for);
    RUN(the_full_search_says_when_there_are_too_many_splits);
    RUN(the_full_search_serves_what_the_heuristic_serves);
    RUN(residues_share_the_shorter_cycle_while_their_runs_fit);
    RUN(a_rate_above_a_device_saturates_it_first);
    RUN(static_cuts_are_halves_and_sevenths_or_the_least_size);
    RUN(first_fit_takes_the_least_share_that_holds);
    RUN(a_workload_above_a_device_gets_devices_of_its_own);
    RUN(every_policy_is_found_by_its_name);
    RUN(plans_are_the_same_each_time_and_need_no_more_memory_than_said);
    RUN(plans_of_random_problems_can_be_run);
    return check_end();
}
