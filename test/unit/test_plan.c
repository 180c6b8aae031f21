#include "../check.h"
#include <gpulet/policy.h>
#include <stdlib.h>

/* A batch of b on u units takes (1 + b) * 1000 / u us. */
static const uint32_t batches[] = {1, 2, 4, 8}, units[] = {1, 2, 4, 8};
static usec_t table[16];
static const struct profile profile = {
    .n_batch = 4, .n_units = 4, .batch = batches, .units = units, .run_us = table};

static struct plan_type type = {.name = "d", .n_granules = 8, .granule_units = 1};
static const struct plan_device device = {.name = "d"};
static struct plan_model model[16];
static char memory[8 << 20];
static struct arena arena;

static void set_up(uint32_t n_models)
{
    for (int u = 0; u < 4; u++)
        for (int b = 0; b < 4; b++)
            table[u * 4 + b] = (1 + batches[b]) * 1000 / units[u];
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                        "i", "j", "k", "l", "m", "n", "o", "p"};
    for (uint32_t i = 0; i < n_models; i++)
        model[i] = (struct plan_model){.name = names[i], .max_batch = 8, .profile = &profile};
    type = (struct plan_type){.name = "d", .n_granules = 8, .granule_units = 1};
    arena_init_fixed(&arena, memory, sizeof(memory));
}

static struct problem problem_of(uint32_t n_models)
{
    return (struct problem){.n_types = 1,
                            .n_devices = 1,
                            .n_models = n_models,
                            .type = &type,
                            .device = &device,
                            .model = model};
}

static struct plan make(uint32_t n_models)
{
    struct problem p = problem_of(n_models);
    struct plan plan = {0};
    struct err err = {0};

    CHECK(plan_need(&p) < sizeof(memory));
    arena_init_fixed(&arena, memory, plan_need(&p));
    CHECK_EQ(policy_equal.plan_make(&p, NULL, &arena, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(plan_check(&p, NULL, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    return plan;
}

static void prediction_is_exact_on_the_table_and_linear_between(void)
{
    set_up(1);
    CHECK_EQ(predict_run_us(&profile, 4, 2), 2500);
    CHECK_EQ(predict_run_us(&profile, 3, 1), 4000);
    CHECK_EQ(predict_run_us(&profile, 1, 3), 667); /* 2000 / 3: a line in 1/units */
}

static void prediction_continues_beyond_the_largest_batch(void)
{
    set_up(1);
    CHECK_EQ(predict_run_us(&profile, 16, 1), 17000);
}

static void two_models_get_half_of_the_granules_each(void)
{
    set_up(2);
    struct plan plan = make(2);

    CHECK_EQ(plan.n_gpulets, 2);
    CHECK_EQ(plan.gpulet[0].units, 4);
    CHECK_EQ(plan.gpulet[1].units, 4);
    CHECK_EQ(plan.gpulet[0].n_shares, 1);
    CHECK(plan.gpulet[0].share[0].model != plan.gpulet[1].share[0].model);
}

static void more_models_than_granules_share_in_time(void)
{
    set_up(16);
    struct plan plan = make(16);

    CHECK_EQ(plan.n_gpulets, 8);
    for (uint32_t k = 0; k < plan.n_gpulets; k++)
        CHECK_EQ(plan.gpulet[k].n_shares, 2);
}

static void a_device_of_single_cores_gives_one_model_all_of_them(void)
{
    set_up(1);
    type.n_granules = 4;
    type.max_granules = 1;
    struct plan plan = make(1);

    CHECK_EQ(plan.n_gpulets, 4);
    for (uint32_t k = 0; k < 4; k++)
        CHECK_EQ(plan.gpulet[k].share[0].model, 0);
}

static void the_batch_shrinks_until_the_slo_holds(void)
{
    set_up(1);
    type.n_granules = 1;
    model[0].slo_us = 10000;
    struct plan plan = make(1);

    /* Two runs of 4 take 2 x 5 ms; two of 8 would take 18. */
    CHECK_EQ(plan.gpulet[0].share[0].batch, 4);
    CHECK_EQ(plan.verdict[0].limit, LIMIT_NONE);
}

static void an_impossible_slo_is_unmet_with_the_least_that_would_hold(void)
{
    set_up(1);
    type.n_granules = 1;
    model[0].slo_us = 3000;
    struct plan plan = make(1);

    CHECK_EQ(plan.verdict[0].limit, LIMIT_SLO);
    CHECK_EQ(plan.verdict[0].least_slo_us, 4000); /* two runs of batch 1 */
}

static void a_model_without_slo_gives_way_to_one_that_has_one(void)
{
    set_up(2);
    type.n_granules = 1;
    model[1].slo_us = 7000;
    struct plan plan = make(2);

    /* 2 x 2 ms of its own and at most 3 ms of the other's: a batch of 2. */
    CHECK_EQ(plan.verdict[1].limit, LIMIT_NONE);
    CHECK_EQ(plan.verdict[0].limit, LIMIT_NONE);
}

static void a_model_that_cannot_hold_does_not_join_one_that_does(void)
{
    set_up(3);
    type.n_granules = 2;
    type.max_granules = 1;
    model[0].slo_us = 5000; /* alone 4 ms */
    model[1].slo_us = 1000; /* hopeless */
    model[2].slo_us = 1000; /* hopeless */
    struct plan plan = make(3);

    CHECK_EQ(plan.verdict[0].limit, LIMIT_NONE);
    CHECK_EQ(plan.verdict[1].limit, LIMIT_SLO);
    CHECK_EQ(plan.verdict[2].limit, LIMIT_SLO);
}

static void a_model_larger_than_the_device_is_named_and_the_others_are_served(void)
{
    set_up(2);
    type.mem_bytes = 1000;
    model[0].weights_bytes = 2000;
    model[1].weights_bytes = 900;
    struct plan plan = make(2);

    CHECK_EQ(plan.verdict[0].limit, LIMIT_MEMORY);
    CHECK_EQ(plan.verdict[1].limit, LIMIT_NONE);
}

static void a_rate_above_what_fits_is_unmet_by_rate(void)
{
    set_up(1);
    type.n_granules = 1;
    model[0].rate_rps = 1e6;
    struct plan plan = make(1);

    CHECK_EQ(plan.verdict[0].limit, LIMIT_RATE);
    CHECK(plan.verdict[0].most_rps > 888 && plan.verdict[0].most_rps < 889); /* 8 in 9 ms */
}

static void no_models_still_cut_the_device(void)
{
    set_up(0);
    struct plan plan = make(0);

    CHECK_EQ(plan.n_gpulets, 1);
    CHECK_EQ(plan.gpulet[0].units, 8);
}

static void the_checker_refuses(struct plan *plan, uint32_t n_models, const char *why)
{
    struct problem p = problem_of(n_models);
    struct err err = {0};

    CHECK_EQ(plan_check(&p, NULL, plan, &err), -EINVAL);
    CHECK_HAS(err.msg, why);
}

static void the_checker_finds_each_kind_of_wrong_plan(void)
{
    set_up(2);
    struct plan plan = make(2);

    struct plan_gpulet keep = plan.gpulet[1];
    plan.gpulet[1].set = plan.gpulet[0].set;
    the_checker_refuses(&plan, 2, "share a granule");
    plan.gpulet[1] = keep;
    plan.gpulet[1].units = 5;
    the_checker_refuses(&plan, 2, "says 5 units");
    plan.gpulet[1] = keep;
    plan.gpulet[0].share[0].batch = 9;
    the_checker_refuses(&plan, 2, "batch 9");
    plan.gpulet[0].share[0].batch = 8;
    plan.gpulet[0].n_shares = 0;
    the_checker_refuses(&plan, 2, "is in no gpu-let");
    plan.gpulet[0].n_shares = 1;
    model[plan.gpulet[0].share[0].model].slo_us = 1;
    the_checker_refuses(&plan, 2, "its SLO is 1 us");
}

static void a_change_counts_old_and_new_memory_together(void)
{
    set_up(1);
    type.n_granules = 2;
    type.max_granules = 1;
    model[0].slot_bytes = 400;
    type.mem_bytes = 1000;
    struct plan was = make(1); /* two gpu-lets of one granule */
    struct problem p = problem_of(1);
    struct plan_gpulet one = was.gpulet[0];
    struct plan now = {.n_gpulets = 1, .n_models = 1, .gpulet = &one, .verdict = was.verdict};
    struct err err = {0};

    CHECK_EQ(plan_check(&p, &was, &now, &err), 0);
    type.max_granules = 2;
    one.set.bits[0] = 3; /* another gpu-let: all three exist for a moment */
    one.units = 2;
    CHECK_EQ(plan_check(&p, &was, &now, &err), -EINVAL);
    CHECK_HAS(err.msg, "needs 1200 bytes, it has 1000");
}

static void a_diff_keeps_what_stays_and_opens_before_it_closes(void)
{
    set_up(4);
    struct plan_gpulet a[3] = {{.set.bits[0] = 1}, {.set.bits[0] = 2}, {.set.bits[0] = 4}};
    struct plan_gpulet b[3] = {{.set.bits[0] = 1}, {.set.bits[0] = 6}, {.set.bits[0] = 8}};
    struct plan was = {.n_gpulets = 3, .gpulet = a}, now = {.n_gpulets = 3, .gpulet = b};
    struct plan_step s[7];

    CHECK_EQ(plan_diff(&was, &now, false, s), 6);
    CHECK(s[0].kind == STEP_KEEP && s[0].was == 0 && s[0].now == 0);
    CHECK(s[1].kind == STEP_OPEN && s[1].now == 2);
    CHECK(s[2].kind == STEP_SWAP);
    CHECK(s[3].kind == STEP_CLOSE && s[3].was == 1);
    CHECK(s[4].kind == STEP_CLOSE && s[4].was == 2);
    CHECK(s[5].kind == STEP_OPEN && s[5].now == 1);
    CHECK_EQ(plan_diff(&was, &now, true, s), 6);
    CHECK(s[2].kind == STEP_OPEN && s[3].kind == STEP_SWAP);
}

/* ---- run time */

static const usec_t run_us[] = {0, 3000, 4000, 5000, 6000}; /* a batch of b takes 2 + b ms */

static struct batch_choice next(usec_t now_us, uint32_t n, usec_t deadline_us, bool ready)
{
    static struct queue_view q;
    struct batch_view v = {.now_us = now_us, .max_flying = 1, .n_queues = 1, .queue = &q};

    q = (struct queue_view){
        .n = n, .max_batch = 4, .run_us = run_us, .least_us = 1000, .ready = ready};
    for (uint32_t i = 0; i < n; i++) {
        q.rows[i] = 1;
        q.deadline_us[i] = deadline_us;
    }
    return policy_equal.batch_next(&v);
}

static void what_waits_runs_at_once_up_to_the_batch(void)
{
    struct batch_choice c = next(0, 7, 20000, true);

    CHECK_EQ(c.what, BATCH_RUN);
    CHECK_EQ(c.take, 4);
}

static void a_late_batch_shrinks_to_save_the_oldest(void)
{
    struct batch_choice c = next(16000, 4, 20000, true);

    CHECK_EQ(c.what, BATCH_RUN);
    CHECK_EQ(c.take, 2); /* 4 ms are left: a batch of 2 fits, 3 does not */
}

/* Its run would be one of a single request: eight that have time wait behind it. */
static void nobody_is_given_up_for_those_of_a_lower_priority(void)
{
    struct queue_view q = {.n = 9, .max_batch = 4, .run_us = run_us, .ready = true};
    struct batch_view v = {.max_flying = 1, .n_queues = 1, .queue = &q};

    for (uint32_t i = 0; i < q.n; i++) {
        q.rows[i] = 1;
        q.deadline_us[i] = i == 0 ? 3500 : 20000;
    }
    for (q.n_alike = 0; q.n_alike <= q.n; q.n_alike++) { /* 0: all */
        bool gains = q.n_alike == 0 || q.n_alike > q.max_batch;
        struct batch_choice c = policy_gpuletd.batch_next(&v);
        CHECK_EQ(c.what, gains ? BATCH_DROP : BATCH_RUN);
        CHECK_EQ(c.take, 1);
    }
}

static void the_hopeless_are_dropped(void)
{
    struct batch_choice c = next(18000, 3, 20000, true);

    CHECK_EQ(c.what, BATCH_DROP);
    CHECK_EQ(c.take, 3);
}

static void an_idle_gpulet_tries_what_is_predicted_to_be_late(void)
{
    struct let_view idle = {.mine_us = 9000, .least_us = 2000, .full_us = 9000};
    struct admit_view v = {
        .now_us = 100, .deadline_us = 5000, .queue_max = 3, .n_lets = 1, .let = &idle};

    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_YES); /* or the prediction would never change */
    v.deadline_us = 2000;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_LATE); /* the fastest run would not make it */
    CHECK_EQ(next(18000, 1, 20000, true).what, BATCH_RUN);
    CHECK_EQ(next(19500, 1, 20000, true).what, BATCH_DROP);
}

static void a_queue_without_an_exe_waits_for_its_deadline(void)
{
    struct batch_choice c = next(0, 1, 20000, false);

    CHECK_EQ(c.what, BATCH_WAIT);
    CHECK_EQ(c.until_us, 20000);
}

static void admission_refuses_full_and_late(void)
{
    struct let_view let = {.free_us = 5000, .mine_us = 1000, .full_us = 4000, .n_queued = 2};
    struct admit_view v = {
        .now_us = 0, .deadline_us = 10000, .queue_max = 3, .n_queued = 2, .n_lets = 1, .let = &let};

    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_YES);
    v.n_queued = 3;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_FULL);
    CHECK_EQ(policy_equal.admit(&v).retry_us, 4000);
    v.n_queued = 2;
    v.deadline_us = 5500;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_LATE);
    CHECK_EQ(policy_equal.admit(&v).retry_us, 500 + 6000 / 32);
}

static void a_request_is_accepted_while_there_is_a_little_time_to_spare(void)
{
    struct let_view let = {.free_us = 1000 + 24000, .mine_us = 8000, .full_us = 8000};
    struct admit_view v = {.now_us = 1000, .queue_max = 9, .n_lets = 1, .let = &let};

    v.deadline_us = 1000 + 33000; /* done after 32000 */
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_YES);
    v.deadline_us--;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_LATE);
    CHECK_EQ(policy_equal.admit(&v).retry_us, 1);
}

static void what_waits_is_counted_in_runs(void)
{
    struct let_view let = {.free_us = 8000, .own_us = 3000};
    struct admit_view v = {.queue_max = 9, .n_lets = 1, .let = &let};

    CHECK_EQ(mine_us(3, 4, 700, 1000), 700);
    CHECK_EQ(mine_us(4, 4, 1000, 1000), 1000);
    CHECK_EQ(mine_us(5, 4, 1000, 1000), 2000);
    CHECK_EQ(mine_us(8, 4, 1000, 1000), 2000);
    CHECK_EQ(mine_us(9, 4, 1000, 1000), 3000);
    let.mine_us = 4000; /* behind the 5000 of others */
    v.deadline_us = 9000 + 9000 / 32;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_YES);
    v.deadline_us--;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_LATE);
    let.shared = true; /* before them, where the first deadline goes first */
    let.order = ORDER_DEADLINE;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_YES);
    v.deadline_us = 3999;
    CHECK_EQ(policy_equal.admit(&v).what, ADMIT_LATE);
}

static void beyond_its_allowance_a_model_is_served_at_nobodys_cost(void)
{
    struct let_view let = {.free_us = 3000,
                           .lanes_us = 2000,
                           .own_us = 500,
                           .mine_us = 1000,
                           .full_us = 4000,
                           .shared = true};
    struct admit_view v = {
        .deadline_us = 10000, .queue_max = 3, .beyond = true, .n_lets = 1, .let = &let};
    const struct policy *ours;
    struct err err;

    CHECK_EQ(policy_find("gpuletd", &ours, &err), 0);
    CHECK_EQ(ours->admit(&v).what, ADMIT_BEYOND);
    CHECK_EQ(ours->admit(&v).retry_us, 4000);
    let.own_us = 1000; /* nobody else waits; who comes next would, or be refused for it */
    CHECK_EQ(ours->admit(&v).what, ADMIT_BEYOND);
    v.now_us = let.free_us = 5999; /* idle since 2000, and a run takes 4000 */
    let.own_us = 0;
    CHECK_EQ(ours->admit(&v).what, ADMIT_BEYOND);
    v.now_us = let.free_us = 6000;
    CHECK_EQ(ours->admit(&v).what, ADMIT_YES);
    v.now_us = 0;
    let.order = ORDER_TURNS;
    let.free_us = 3000;
    let.own_us = 500;
    v.beyond = false;
    CHECK_EQ(ours->admit(&v).what, ADMIT_YES);
    v.beyond = true;
    let.shared = false;
    CHECK_EQ(ours->admit(&v).what, ADMIT_YES);
}

static void where_all_are_beyond_what_leaves_room_for_anybody_is_served(void)
{
    struct let_view let = {.free_us = 3000,
                           .lanes_us = 2000,
                           .mine_us = 1000,
                           .full_us = 4000,
                           .slack_us = 5334,
                           .shared = true};
    struct admit_view v = {
        .deadline_us = 10000, .queue_max = 3, .beyond = true, .n_lets = 1, .let = &let};
    const struct policy *ours;
    struct err err;

    CHECK_EQ(policy_find("gpuletd", &ours, &err), 0);
    CHECK_EQ(ours->admit(&v).what, ADMIT_YES); /* 4000 of 5334 */
    let.meek = true;
    CHECK_EQ(ours->admit(&v).what, ADMIT_BEYOND);
    let.meek = false;
    let.free_us = 3001;
    CHECK_EQ(ours->admit(&v).what, ADMIT_BEYOND);
    let.slack_us = USEC_NEVER; /* nobody has an SLO */
    CHECK_EQ(ours->admit(&v).what, ADMIT_YES);
    v.deadline_us = 3500;
    CHECK_EQ(ours->admit(&v).what, ADMIT_LATE);
}

/* The first gpu-let is full, the second one has had its quarter of the requests, and a bit. */
static void who_is_loud_keeps_to_its_part_where_others_would_pay(void)
{
    struct let_view let[2] = {
        {.free_us = 9000, .lanes_us = 2000, .part = 0.75, .n_routed = 75, .shared = true},
        {.free_us = 2000, .lanes_us = 1000, .part = 0.25, .n_routed = 35, .shared = true}};
    struct admit_view v = {.deadline_us = 5000, .queue_max = 9, .n_lets = 2, .let = let};
    const struct policy *ours;
    struct err err;

    CHECK_EQ(policy_find("gpuletd", &ours, &err), 0);
    for (uint32_t i = 0; i < 2; i++)
        let[i].mine_us = let[i].full_us = 1000;
    CHECK_EQ(ours->route(&v),
             1); /* a burst: there is room, and it is asked for no more than planned */
    CHECK_EQ(ours->admit(&v).what, ADMIT_YES);
    v.loud = true;
    CHECK_EQ(ours->route(&v), 0);
    CHECK_EQ(ours->admit(&v).what, ADMIT_LATE);
    let[1].n_routed = 25;
    CHECK_EQ(ours->route(&v), 1);
    let[1].n_routed = 35;
    let[1].shared = false;
    CHECK_EQ(ours->route(&v), 1);
    let[1].shared = true;
    v.now_us = let[1].free_us = 2000; /* idle for as long as a run takes */
    CHECK_EQ(ours->route(&v), 1);
    v.now_us = 0;
    let[0].part = 0.25; /* half of what is planned is lost: both have had their part of the rest */
    let[0].n_routed = let[1].n_routed = 100;
    CHECK_EQ(ours->route(&v), 1);
}

static void routing_takes_the_earliest_finish(void)
{
    struct let_view let[3] = {{.free_us = 9000, .mine_us = 1000},
                              {.free_us = 0, .mine_us = 6000},
                              {.free_us = 4000, .mine_us = 1000}};
    struct admit_view v = {
        .now_us = 2000, .deadline_us = 90000, .queue_max = 3, .n_lets = 3, .let = let};

    CHECK_EQ(policy_equal.route(&v), 2);
}

/* Any problem gives a plan that passes the check, the same one each time, naming every model. */
static void random_problems_give_checked_and_equal_plans(void)
{
    static char again_memory[8 << 20];
    unsigned seed = 1;

    set_up(16);
    for (int round = 0; round < 2000; round++) {
        uint32_t n = (uint32_t)rand_r(&seed) % 17;
        type.n_granules = 1 + (uint32_t)rand_r(&seed) % 8;
        type.max_granules = (uint32_t)rand_r(&seed) % 3;
        type.mem_bytes = (uint64_t)(rand_r(&seed) % 3000);
        for (uint32_t i = 0; i < n; i++) {
            model[i].slo_us = (usec_t)(rand_r(&seed) % 4) * 3000;
            model[i].rate_rps = rand_r(&seed) % 1000 / 10.0;
            model[i].max_batch = 1 + (uint32_t)rand_r(&seed) % 16;
            model[i].priority = rand_r(&seed) % 3;
            model[i].weights_bytes = (uint64_t)(rand_r(&seed) % 500);
            model[i].slot_bytes = (uint64_t)(rand_r(&seed) % 100);
        }
        struct plan a = make(n), b = {0};
        struct problem p = problem_of(n);
        struct arena again;
        arena_init_fixed(&again, again_memory, sizeof(again_memory));
        CHECK_EQ(policy_equal.plan_make(&p, NULL, &again, &b, NULL), 0);
        CHECK_EQ(a.n_gpulets, b.n_gpulets);
        CHECK_EQ(a.n_models, n);
        for (uint32_t k = 0; k < a.n_gpulets; k++) {
            CHECK_EQ(a.gpulet[k].n_shares, b.gpulet[k].n_shares);
            for (uint32_t i = 0; i < a.gpulet[k].n_shares; i++) {
                CHECK_EQ(a.gpulet[k].share[i].model, b.gpulet[k].share[i].model);
                CHECK_EQ(a.gpulet[k].share[i].batch, b.gpulet[k].share[i].batch);
            }
        }
    }
}

int main(void)
{
    RUN(prediction_is_exact_on_the_table_and_linear_between);
    RUN(prediction_continues_beyond_the_largest_batch);
    RUN(two_models_get_half_of_the_granules_each);
    RUN(more_models_than_granules_share_in_time);
    RUN(a_device_of_single_cores_gives_one_model_all_of_them);
    RUN(the_batch_shrinks_until_the_slo_holds);
    RUN(an_impossible_slo_is_unmet_with_the_least_that_would_hold);
    RUN(a_model_without_slo_gives_way_to_one_that_has_one);
    RUN(a_model_that_cannot_hold_does_not_join_one_that_does);
    RUN(a_model_larger_than_the_device_is_named_and_the_others_are_served);
    RUN(a_rate_above_what_fits_is_unmet_by_rate);
    RUN(no_models_still_cut_the_device);
    RUN(the_checker_finds_each_kind_of_wrong_plan);
    RUN(a_change_counts_old_and_new_memory_together);
    RUN(a_diff_keeps_what_stays_and_opens_before_it_closes);
    RUN(what_waits_runs_at_once_up_to_the_batch);
    RUN(a_late_batch_shrinks_to_save_the_oldest);
    RUN(nobody_is_given_up_for_those_of_a_lower_priority);
    RUN(the_hopeless_are_dropped);
    RUN(an_idle_gpulet_tries_what_is_predicted_to_be_late);
    RUN(a_queue_without_an_exe_waits_for_its_deadline);
    RUN(admission_refuses_full_and_late);
    RUN(a_request_is_accepted_while_there_is_a_little_time_to_spare);
    RUN(what_waits_is_counted_in_runs);
    RUN(beyond_its_allowance_a_model_is_served_at_nobodys_cost);
    RUN(where_all_are_beyond_what_leaves_room_for_anybody_is_served);
    RUN(who_is_loud_keeps_to_its_part_where_others_would_pay);
    RUN(routing_takes_the_earliest_finish);
    RUN(random_problems_give_checked_and_equal_plans);
    return check_end();
}
