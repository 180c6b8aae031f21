/* plan_check() and plan_truth(): each rule with numbers that can be checked in the head. */
#include "../check.h"
#include <gpulet/policy.h>
#include <math.h>

/* A batch of b on u units takes (1 + b) x 4 / u ms. */
static const uint32_t batches[] = {1, 2, 4, 8}, units[] = {1, 2, 4};
static usec_t run_us[12];
static double l2[12], dram[12];
static const struct profile profile = {.n_batch = 4,
                                       .n_units = 3,
                                       .batch = batches,
                                       .units = units,
                                       .run_us = run_us,
                                       .l2 = l2,
                                       .dram = dram};
static struct plan_type type;
static const struct plan_device device[2] = {{"d0", 0}, {"d1", 0}};
static struct plan_model model[2];
static struct plan_share share[4];
static struct plan_gpulet let[4];
static struct plan_verdict verdict[2];
static struct problem problem;
static struct plan plan;

/* Models "a" and "b", 100 ms and 10/s each, alone in halves of the first of two devices of four
 * granules, batches of 2: a run of 6 ms. */
static void set_up(void)
{
    for (uint32_t u = 0; u < 3; u++)
        for (uint32_t b = 0; b < 4; b++) {
            run_us[u * 4 + b] = (1 + batches[b]) * 4000 / units[u];
            l2[u * 4 + b] = 0.5;
            dram[u * 4 + b] = 0;
        }
    type = (struct plan_type){
        .name = "t", .n_granules = 4, .granule_units = 1, .predict = {.units = 4}};
    for (uint32_t m = 0; m < 2; m++) {
        model[m] = (struct plan_model){.name = m ? "b" : "a",
                                       .slo_us = 100000,
                                       .rate_rps = 10,
                                       .arrivals = ARRIVALS_PACED,
                                       .max_batch = 8,
                                       .profile = &profile};
        share[m] = (struct plan_share){.model = m, .batch = 2, .streams = 1, .rate_rps = 10};
        let[m] = (struct plan_gpulet){
            .set.bits[0] = m ? 12 : 3, .units = 2, .n_shares = 1, .share = &share[m]};
        verdict[m] = (struct plan_verdict){0};
    }
    problem = (struct problem){.n_types = 1,
                               .n_devices = 2,
                               .n_models = 2,
                               .type = &type,
                               .device = device,
                               .model = model,
                               .rules = {.rule = RULE_PART}};
    plan = (struct plan){.n_gpulets = 2, .n_models = 2, .gpulet = let, .verdict = verdict};
}

static void passes(void)
{
    struct err err = {0};

    CHECK_EQ(plan_check(&problem, NULL, &plan, &err), 0);
    CHECK_STR(err.msg, "");
}

static void fails(const char *why)
{
    struct err err = {0};

    CHECK_EQ(plan_check(&problem, NULL, &plan, &err), -EINVAL);
    CHECK_HAS(err.msg, why);
}

/* Both models in one gpu-let of two units. */
static void share_in_time(void)
{
    plan.n_gpulets = 1;
    let[0].n_shares = 2;
}

static struct share_truth truth(uint32_t k, uint32_t i)
{
    struct share_truth t = {0};

    CHECK_EQ(plan_truth(&problem, &plan, k, i, &t), 0);
    return t;
}

static void sizes_places_and_counts_are_those_of_the_type(void)
{
    static const uint32_t sizes[] = {1, 4};
    static const struct plan_place place[] = {{0, 2}, {1, 2}};

    set_up();
    passes();
    type.size = sizes;
    type.n_sizes = 2;
    fails("2 granules is no size");
    type.n_sizes = 0;
    type.place = place;
    type.n_places = 2;
    fails("2 granules from 2 are no place");
    type.n_places = 0;
    problem.rules.max_lets = 1;
    fails("2 gpu-lets, the limit is 1");
    problem.rules.max_lets = 0;
    share_in_time();
    problem.rules.max_shares = 1;
    fails("2 models, the limit is 1");
}

/* The queue of eight models is predicted at most. */
static void nine_models_may_share_where_nothing_is_promised(void)
{
    static struct plan_model nine[9];
    static struct plan_share each[9];
    static struct plan_verdict said[9];

    set_up();
    for (uint32_t m = 0; m < 9; m++) {
        nine[m] = model[0];
        nine[m].rate_rps = nine[m].slo_us = 0;
        each[m] = (struct plan_share){.model = m, .batch = 1, .streams = 1};
        said[m] = (struct plan_verdict){.limit = LIMIT_NONE};
    }
    problem.model = nine;
    problem.n_models = 9;
    problem.rules = (struct plan_rules){.rule = RULE_QUEUE};
    let[0] = (struct plan_gpulet){.set.bits[0] = 15, .units = 4, .n_shares = 9, .share = each};
    plan = (struct plan){.n_gpulets = 1, .n_models = 9, .gpulet = let, .verdict = said};
    passes();
    nine[8].slo_us = 100000;
    fails("its queue cannot be predicted");
    said[8].limit = LIMIT_SLO;
    passes();
    said[8].limit = LIMIT_NONE;
    let[0].n_shares = 8; /* its promise is of another gpu-let, then */
    let[1] = (struct plan_gpulet){
        .device = 1, .set.bits[0] = 15, .units = 4, .n_shares = 1, .share = &each[8]};
    plan.n_gpulets = 2;
    passes();
}

static void streams_and_usual_batches_have_limits(void)
{
    set_up();
    share[0].streams = 2;
    fails("has 2 streams, the limit is 1");
    share[0].streams = 1;
    share[0].usual = 3;
    fails("usually runs 3, its batch is 2");
    set_up();
    problem.rules.max_streams = 2;
    share[1].streams = 2;
    passes();
    plan.n_gpulets = 1;
    let[0].n_shares = 2; /* share[] is one array: both models in one gpu-let */
    fails("has 2 streams, models that take turns have one");
}

static void memory_counts_contexts_copies_slots_rows_and_the_pool(void)
{
    set_up();
    type.let_bytes = 10;
    type.pool_bytes = 1000;
    model[0].weights_bytes = 300;
    model[0].slot_bytes = 50;
    model[0].row_bytes = 7;
    share[1].model = 0; /* both gpu-lets run "a", "b" is left out */
    share[0].rate_rps = share[1].rate_rps = 5;
    verdict[1].limit = LIMIT_UNITS;
    type.mem_bytes = 1000 + 2 * 10 + 300 + 2 * (50 + 2 * 7);
    passes();
    type.mem_bytes--;
    fails("needs 1448 bytes, it has 1447");
    model[0].weights_per_let = true;
    fails("needs 1748 bytes");
}

static void a_rate_must_be_served_or_its_model_named(void)
{
    set_up();
    share[1].rate_rps = 9;
    fails("model 'b': 9 requests/s are served, its rate is 10");
    verdict[1].limit = LIMIT_RATE;
    passes();
    verdict[1].limit = LIMIT_NONE;
    plan.n_gpulets = 1;
    fails("model 'b' is in no gpu-let");
}

/* Alone: 2 rows in 6 ms are 333/s; a run may take half of the SLO. */
static void alone_a_share_holds_its_throughput_and_its_part_of_the_slo(void)
{
    set_up();
    CHECK_EQ(truth(0, 0).full.run_us, 6000);
    CHECK(truth(0, 0).most_rps > 333.3 && truth(0, 0).most_rps < 333.4);
    model[0].rate_rps = share[0].rate_rps = 334;
    CHECK(!truth(0, 0).holds);
    fails("model 'a'");
    model[0].rate_rps = share[0].rate_rps = 333;
    CHECK(truth(0, 0).holds);
    passes();
    model[0].slo_us = 11999;
    CHECK(!truth(0, 0).holds);
    fails("its SLO is 11999 us");
    problem.rules.slo_part = 0.6;
    passes();
}

/* Together at 10/s: runs of one row take 4 ms, so a cycle is 8 ms and an answer takes 12. */
static void in_time_a_cycle_and_a_run_must_fit_in_the_slo(void)
{
    set_up();
    share_in_time();
    CHECK_EQ(truth(0, 0).latency_us, 12000);
    passes();
    model[0].slo_us = 11999;
    problem.rules.slo_part = 1;
    fails("12000 us on gpu-let 0, its SLO is 11999");
    /* At 200/s two rows of each come in a cycle of 2 x 6 ms, and a third does not fit. */
    model[0].slo_us = 100000;
    for (uint32_t m = 0; m < 2; m++)
        model[m].rate_rps = share[m].rate_rps = 160;
    CHECK_EQ(truth(0, 0).latency_us, 18000);
    passes();
    for (uint32_t m = 0; m < 2; m++)
        model[m].rate_rps = share[m].rate_rps = 200;
    CHECK(!truth(0, 0).holds);
    fails("model 'a'");
}

/* Neighbours add 0.5 x their L2 (0.5) to a factor that starts at 1: a run of 6 ms takes 7.5. */
static void neighbours_count_by_the_time_that_they_run(void)
{
    set_up();
    type.predict.interference.kind = INTERFERE_GPULET;
    double *c = type.predict.interference.c;
    c[0] = c[2] = c[3] = 0;
    c[1] = 1; /* of the neighbour's L2 times its part of the device */
    c[4] = 1;
    double busy_us = truth(0, 0).full.run_us;
    CHECK(busy_us > 6000 && busy_us < 6000 * 1.25);
    share[1].rate_rps = model[1].rate_rps = 160; /* 160 x 7.5 ms / 2 rows: 0.6 of the time */
    CHECK(truth(0, 0).full.run_us > busy_us);
    CHECK(fabs(truth(0, 0).full.run_us - 6900) < 1); /* 6 x (1 + 0.6 x 0.25) */
    passes();
    model[0].slo_us = 13799; /* 2 x 6.9 ms, and a little less */
    fails("6900 us on gpu-let 0");
    problem.type = &type;
    type.predict.interference.kind = INTERFERE_NONE;
    passes();
}

static void a_usual_run_that_cannot_carry_its_rate_is_refused(void)
{
    set_up();
    type.predict.interference.kind = INTERFERE_GPULET;
    type.predict.interference.c[4] = 1; /* nobody is slowed: it is what neighbours are told */
    share[1].batch = 8;
    share[1].rate_rps = model[1].rate_rps = 300;
    passes(); /* runs of 8 take 18 ms and carry 444/s */
    share[1].usual = 2;
    passes(); /* 6 ms, 333/s */
    share[1].usual = 1;
    fails("gpu-let 1: model 'b' usually runs 1, too few for 300 requests/s"); /* 4 ms, 250/s */
    verdict[1].limit = LIMIT_RATE;
    passes();
    verdict[1].limit = LIMIT_NONE;
    type.predict.interference.kind = INTERFERE_NONE;
    passes(); /* it has no neighbour who minds */
}

static void a_plan_is_checked_in_any_order_of_its_gpulets(void)
{
    set_up();
    let[2] = let[0];
    let[2].device = 1;
    share[2] = share[0];
    share[2].rate_rps = 0;
    let[2].share = &share[2];
    struct plan_gpulet swap = let[0];
    let[0] = let[2]; /* devices 1, 0, 0 */
    let[2] = swap;
    plan.n_gpulets = 3;
    passes();
    let[2].set.bits[0] = 6;
    fails("gpu-lets 1 and 2 share a granule");
}

static void the_bound_is_the_cheapest_that_any_size_allows(void)
{
    struct arena a;

    set_up();
    arena_init(&a);
    for (uint32_t m = 0; m < 2; m++) {
        model[m].rate_rps = 90;
        model[m].slo_us = 40000;
    }
    /* Of 40 ms a cycle may take what the run leaves.  On all units 3 rows come in 33.3 ms, and
     * their run of 4 ms still fits; so it does on three quarters, in 5.3 ms: 750/s a device each
     * way. */
    CHECK(fabs(plan_bound(&problem, &a) - 180.0 / 750) < 1e-4);
    for (uint32_t m = 0; m < 2; m++)
        model[m].rate_rps = 900; /* 8 come: on two units they take 18 ms, 889/s a device */
    CHECK(fabs(plan_bound(&problem, &a) - 1800 * 0.018 * 0.5 / 8) < 1e-4);
    arena_done(&a);
}

int main(void)
{
    RUN(sizes_places_and_counts_are_those_of_the_type);
    RUN(nine_models_may_share_where_nothing_is_promised);
    RUN(streams_and_usual_batches_have_limits);
    RUN(memory_counts_contexts_copies_slots_rows_and_the_pool);
    RUN(a_rate_must_be_served_or_its_model_named);
    RUN(alone_a_share_holds_its_throughput_and_its_part_of_the_slo);
    RUN(in_time_a_cycle_and_a_run_must_fit_in_the_slo);
    RUN(neighbours_count_by_the_time_that_they_run);
    RUN(a_usual_run_that_cannot_carry_its_rate_is_refused);
    RUN(a_plan_is_checked_in_any_order_of_its_gpulets);
    RUN(the_bound_is_the_cheapest_that_any_size_allows);
    return check_end();
}
