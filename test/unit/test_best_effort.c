/* Models of best effort: what they get of a plan, when they run, and that nobody else notices. */
#include "../check.h"

#include <gpulet/replay.h>

/* Eight granules of a unit.  A run of b rows on u units takes 2 ms / u + b ms / u, but never less
 * than 1 ms. */
static const uint32_t batches[] = {1, 2, 4, 8}, units[] = {1, 2, 4, 8};
static const usec_t runs[] = {3000, 4000, 6000, 10000, 1500, 2000, 3000, 5000,
                              1000, 1000, 1500, 2500,  1000, 1000, 1000, 1250};
static const struct profile profile = {
    .n_batch = 4, .n_units = 4, .batch = batches, .units = units, .run_us = runs};
/* Of best effort: a batch that is as long as an SLO can be had. */
static const uint32_t many[] = {1, 8, 64};
static const usec_t long_us[] = {3000, 12000, 80000, 1600, 6000, 40000,
                                 1000, 3000,  20000, 1000, 2000, 10000};
static const struct profile heavy = {
    .n_batch = 3, .n_units = 4, .batch = many, .units = units, .run_us = long_us};
static const struct plan_type type = {
    .name = "t", .n_granules = 8, .granule_units = 1, .predict = {.units = 8}};
static const struct plan_device device[] = {{.name = "d"}};
static struct plan_model model[4];
static struct problem problem;
static struct plan plan;
static struct arena arena;
static const struct policy *ours;

enum { SURE_A, EAGER, SURE_B, LAZY };

/* Two models with an SLO, and between them two of best effort. */
static void set_up(double rate_a, double rate_b)
{
    static const char *const name[] = {"a", "eager", "b", "lazy"};

    for (uint32_t i = 0; i < 4; i++)
        model[i] = (struct plan_model){.name = name[i],
                                       .arrivals = ARRIVALS_POISSON,
                                       .max_batch = i % 2 ? 64 : 8,
                                       .best_effort = i % 2,
                                       .profile = i % 2 ? &heavy : &profile};
    model[SURE_A].slo_us = 40000;
    model[SURE_A].rate_rps = rate_a;
    model[SURE_B].slo_us = 60000;
    model[SURE_B].rate_rps = rate_b;
    problem = (struct problem){.n_types = 1,
                               .n_devices = 1,
                               .n_models = 4,
                               .type = &type,
                               .device = device,
                               .model = model,
                               .rules.rule = RULE_QUEUE};
    arena_done(&arena);
    arena_init(&arena);
}

static void planned(const struct plan *was)
{
    struct err err = {0};

    CHECK_EQ(policy_plan(ours, &problem, was, &arena, &plan, &err), 0);
    CHECK_EQ(plan_check(&problem, was, &plan, &err), 0);
    CHECK_STR(err.msg, "");
}

static uint32_t n_seats(uint32_t of)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < plan.n_gpulets; k++)
        for (uint32_t i = 0; i < plan.gpulet[k].n_shares; i++)
            n += plan.gpulet[k].share[i].model == of;
    return n;
}

/* ---- the plan */

static void the_others_are_planned_for_as_if_there_were_no_best_effort(void)
{
    struct plan_model two[2];
    struct plan alone;
    struct err err = {0};

    set_up(300, 200);
    planned(NULL);
    two[0] = model[SURE_A];
    two[1] = model[SURE_B];
    struct problem less = problem;
    less.n_models = 2;
    less.model = two;
    CHECK_EQ(ours->plan_make(&less, NULL, &arena, &alone, &err), 0);
    for (uint32_t k = 0; k < alone.n_gpulets; k++) {
        const struct plan_gpulet *g = &alone.gpulet[k], *all = &plan.gpulet[k];
        CHECK_EQ(memcmp(&g->set, &all->set, sizeof(g->set)), 0);
        for (uint32_t i = 0; i < g->n_shares; i++) {
            CHECK_EQ(all->share[i].model, 2 * g->share[i].model);
            CHECK_EQ(all->share[i].batch, g->share[i].batch);
        }
    }
    CHECK_EQ(plan.verdict[SURE_A].limit, LIMIT_NONE);
    CHECK(plan.verdict[SURE_B].most_rps == alone.verdict[1].most_rps);
}

static void every_gpulet_with_time_to_spare_has_seats_of_best_effort(void)
{
    set_up(100, 100);
    planned(NULL);
    CHECK_EQ(n_seats(EAGER), plan.n_gpulets);
    CHECK_EQ(n_seats(LAZY), plan.n_gpulets);
    for (uint32_t k = 0; k < plan.n_gpulets; k++)
        for (uint32_t i = 0; i < plan.gpulet[k].n_shares; i++) {
            const struct plan_share *s = &plan.gpulet[k].share[i];
            if (model[s->model].best_effort)
                CHECK(s->run_us <= plan.gpulet[k].spare_us && s->rate_rps == 0);
        }
}

/* A gpu-let of two granules that the policy leaves: they are one gpu-let, and it is best effort's.
 */
static struct plan_share own[1];
static struct plan_gpulet half[1];
static int plan_half(const struct problem *p, const struct plan *was, struct arena *a,
                     struct plan *ret, struct err *err)
{
    (void)was, (void)err;
    own[0] = (struct plan_share){.batch = 8, .rate_rps = p->model[0].rate_rps, .run_us = 5000};
    half[0] = (struct plan_gpulet){.set.bits = {0xfc}, .units = 6, .n_shares = 1, .share = own};
    *ret = (struct plan){.n_gpulets = 1,
                         .gpulet = half,
                         .n_models = p->n_models,
                         .verdict = ARENA_ARRAY(a, struct plan_verdict, p->n_models)};
    for (uint32_t i = 1; i < p->n_models; i++)
        ret->verdict[i].limit = LIMIT_UNITS;
    return 0;
}

static void what_nobody_has_becomes_a_gpulet_of_best_effort(void)
{
    struct policy halving = *ours;
    struct err err = {0};

    halving.plan_make = plan_half;
    set_up(100, 0);
    CHECK_EQ(policy_plan(&halving, &problem, NULL, &arena, &plan, &err), 0);
    CHECK_EQ(plan_check(&problem, NULL, &plan, &err), 0);
    CHECK_EQ(plan.n_gpulets, 2);
    CHECK_EQ(plan.gpulet[1].set.bits[0], 3);
    CHECK_EQ(plan.gpulet[1].units, 2);
    CHECK_EQ(plan.gpulet[1].spare_us, SPARE_ANY_US);
    CHECK_EQ(plan.gpulet[1].n_shares, 2);
    CHECK_EQ(plan.gpulet[1].share[0].batch, 64);

    /* The next plan of the policy is not held up by it, and it is there again. */
    struct plan was = plan;
    CHECK_EQ(policy_plan(&halving, &problem, &was, &arena, &plan, &err), 0);
    CHECK_EQ(plan.n_gpulets, 2);
    CHECK_EQ(memcmp(&plan.gpulet[1].set, &was.gpulet[1].set, sizeof(was.gpulet[1].set)), 0);
}

/* On one unit a run of one row takes 3 ms.  Of an SLO of 7 ms a cycle and a run leave 1 ms. */
static void where_no_run_is_short_enough_a_model_has_no_place_and_is_named(void)
{
    static const struct plan_type one = {
        .name = "one", .n_granules = 1, .granule_units = 1, .predict = {.units = 1}};

    set_up(0, 0);
    problem.type = &one;
    problem.rules.rule = RULE_CYCLE;
    problem.n_models = 2;
    model[SURE_A].slo_us = 7000;
    planned(NULL);
    CHECK_EQ(plan.n_gpulets, 1);
    CHECK_EQ(n_seats(EAGER), 0);
    CHECK_EQ(plan.verdict[SURE_A].limit, LIMIT_NONE);
    CHECK_EQ(plan.verdict[EAGER].limit, LIMIT_UNITS);
}

static void memory_goes_to_the_others_first(void)
{
    struct plan_type small = type;

    set_up(100, 100);
    problem.type = &small;
    for (uint32_t i = 0; i < 4; i++)
        model[i].weights_bytes = 100;
    model[LAZY].priority = 1; /* goes before the eager one */
    small.mem_bytes = 300;
    planned(NULL);
    CHECK_EQ(plan.verdict[SURE_A].limit, LIMIT_NONE);
    CHECK_EQ(plan.verdict[SURE_B].limit, LIMIT_NONE);
    CHECK(n_seats(LAZY) > 0);
    CHECK_EQ(n_seats(EAGER), 0);
    CHECK_EQ(plan.verdict[EAGER].limit, LIMIT_UNITS);
}

static void the_check_refuses_a_share_behind_one_of_best_effort(void)
{
    struct err err = {0};

    set_up(100, 100);
    planned(NULL);
    struct plan_gpulet *g = &plan.gpulet[0];
    struct plan_share first = g->share[0];
    g->share[0] = g->share[g->n_shares - 1];
    g->share[g->n_shares - 1] = first;
    CHECK_EQ(plan_check(&problem, NULL, &plan, &err), -EINVAL);
    CHECK(strstr(err.msg, "behind one of best effort"));
}

static void models_of_best_effort_alone_have_the_device(void)
{
    set_up(0, 0);
    model[0] = model[EAGER];
    problem.n_models = 2;
    planned(NULL);
    CHECK_EQ(plan.n_gpulets, 1);
    CHECK_EQ(plan.gpulet[0].units, 8);
    CHECK_EQ(plan.gpulet[0].n_shares, 2);
}

/* ---- the choice */

static const usec_t run_us[] = {0, 1000, 2000, 3000, 4000};
static struct queue_view queue[2];

/* A queue of an SLO, which is empty, and one of best effort with three requests. */
static struct batch_view view(void)
{
    memset(queue, 0, sizeof(queue));
    for (uint32_t i = 0; i < 2; i++) {
        queue[i] = (struct queue_view){
            .max_batch = 4, .run_us = run_us, .least_us = 1000, .ready = true, .spare_us = 10000};
        for (uint32_t k = 0; k < 4; k++) {
            queue[i].rows[k] = 1;
            queue[i].deadline_us[k] = 100000;
        }
    }
    queue[1].n = 3;
    return (struct batch_view){
        .now_us = 10000, .max_flying = 1, .n_queues = 1, .n_spare = 1, .queue = queue};
}

static struct batch_choice chosen(const struct batch_view *v)
{
    return policy_next(ours, v);
}

static void it_runs_where_nobody_else_waits(void)
{
    struct batch_view v = view();
    struct batch_choice c = chosen(&v);

    CHECK_EQ(c.what, BATCH_RUN);
    CHECK_EQ(c.queue, 1);
    CHECK_EQ(c.take, 3);
}

static void whoever_is_promised_something_goes_first_however_long_others_wait(void)
{
    struct batch_view v = view();

    queue[0].n = 1;
    queue[0].since_us = 9999;
    queue[1].since_us = 1;
    queue[1].priority = 1;
    struct batch_choice c = chosen(&v);
    CHECK_EQ(c.what, BATCH_RUN);
    CHECK_EQ(c.queue, 0);
}

static void its_run_is_no_longer_than_the_others_can_spare(void)
{
    struct batch_view v = view();

    queue[1].spare_us = 2500;
    struct batch_choice c = chosen(&v);
    CHECK_EQ(c.what, BATCH_RUN);
    CHECK_EQ(c.take, 2); /* 2 ms; three would take 3 */
    queue[1].spare_us = 500;
    c = chosen(&v);
    CHECK_EQ(c.what, BATCH_WAIT);
    CHECK_EQ(c.until_us, 100000); /* then it is too late for it, which must be told */
}

/* A batch that waits to be filled starts at 100 - 1 - 1/4 - 90 / 16 ms at the latest: a run of best
 * effort is over before. */
static void it_is_over_before_a_batch_that_fills_must_start(void)
{
    struct batch_view v = view();
    struct batch_choice alone;

    v.order = ORDER_DEFERRED;
    queue[0].n = 1;
    queue[0].since_us = v.now_us;
    v.n_spare = 0;
    alone = chosen(&v);
    CHECK_EQ(alone.what, BATCH_WAIT);
    v.n_spare = 1;
    v.now_us = alone.until_us - 2100;
    struct batch_choice c = chosen(&v);
    CHECK_EQ(c.what, BATCH_RUN);
    CHECK_EQ(c.queue, 1);
    CHECK_EQ(c.take, 2); /* 2 ms fit, 3 do not */
    v.now_us = alone.until_us - 900;
    c = chosen(&v);
    CHECK_EQ(c.what, BATCH_WAIT);
    CHECK_EQ(c.until_us, alone.until_us);
}

static void what_waited_for_too_long_is_dropped_to_be_told(void)
{
    struct batch_view v = view();

    v.now_us = 99500;
    queue[1].deadline_us[2] = 200000;
    struct batch_choice c = chosen(&v);
    CHECK_EQ(c.what, BATCH_DROP);
    CHECK_EQ(c.queue, 1);
    CHECK_EQ(c.take, 2);
}

static void nothing_starts_beside_a_run(void)
{
    struct batch_view v = view();

    v.n_flying = 1;
    v.busy_until_us = 11000;
    CHECK_EQ(chosen(&v).what, BATCH_WAIT);
}

static void every_policy_lets_it_run_only_where_it_would_wait(void)
{
    for (uint32_t i = 0; policy_at(i); i++) {
        struct batch_view v = view();
        struct batch_choice c = policy_next(policy_at(i), &v);
        CHECK_EQ(c.what, BATCH_RUN);
        CHECK_EQ(c.queue, 1);
        queue[0].n = 4;
        queue[0].since_us = 1;
        c = policy_next(policy_at(i), &v);
        CHECK_EQ(c.what, BATCH_RUN);
        CHECK_EQ(c.queue, 0);
    }
}

/* ---- in virtual time: two models at their rates, best effort without end beside them */

struct seen {
    double in_time[2], busy, answered;
};

static struct seen replayed(double effort_rps)
{
    struct replay_load load[4] = {
        {.rate_rps = -1}, {.rate_rps = effort_rps}, {.rate_rps = -1}, {.rate_rps = 0}};
    struct replay_config cfg = {.problem = &problem,
                                .plan = &plan,
                                .policy = ours,
                                .load = load,
                                .seed = 11,
                                .duration_us = 300 * USEC_PER_SEC,
                                .queue_max = 64,
                                .noise = 0.2};
    struct replay_result r;
    struct err err = {0};
    struct seen s = {0};

    load[EAGER].kind = REPLAY_POISSON;
    CHECK_EQ(replay_run(&cfg, &arena, &r, &err), 0);
    for (uint32_t i = 0; i < 2; i++)
        s.in_time[i] = (double)r.model[2 * i].in_time / (double)MAX(r.model[2 * i].offered, 1);
    for (uint32_t k = 0; k < r.n_gpulets; k++)
        s.busy += r.gpulet_busy[k] / r.n_gpulets;
    s.answered = (double)(r.model[EAGER].in_time + r.model[EAGER].late);
    return s;
}

/* From loose SLOs and little to do, to tight ones at rates where some are late by themselves. */
static void beside_best_effort_without_end_nobody_is_late_and_little_is_idle(void)
{
    static const struct {
        usec_t slo_us[2];
        double rate_rps[2];
    } mix[] = {{{40000, 60000}, {50, 50}},    {{40000, 60000}, {1000, 600}},
               {{8000, 12000}, {50, 50}},     {{8000, 12000}, {1000, 700}},
               {{8000, 12000}, {2200, 1500}}, {{6000, 9000}, {800, 500}},
               {{6000, 9000}, {1800, 1200}},  {{5000, 7000}, {300, 200}}};

    for (size_t i = 0; i < ARRAY_SIZE(mix); i++) {
        set_up(mix[i].rate_rps[0], mix[i].rate_rps[1]);
        model[SURE_A].slo_us = mix[i].slo_us[0];
        model[SURE_B].slo_us = mix[i].slo_us[1];
        planned(NULL);
        struct seen without = replayed(0), with = replayed(20000);
        printf(
            "# SLO %2.0f, %2.0f ms, %4.0f + %4.0f requests/s: in time %.4f %.4f, then %.4f %.4f; "
            "busy %.3f, then %.3f\n",
            (double)mix[i].slo_us[0] / 1000, (double)mix[i].slo_us[1] / 1000, mix[i].rate_rps[0],
            mix[i].rate_rps[1], without.in_time[0], without.in_time[1], with.in_time[0],
            with.in_time[1], without.busy, with.busy);
        for (uint32_t m = 0; m < 2; m++) /* 0.2 points: of 15,000 requests or more */
            CHECK(with.in_time[m] >= without.in_time[m] - 0.002);
        if (n_seats(EAGER)) /* most of what was idle */
            CHECK(1 - with.busy <= 0.5 * (1 - without.busy));
    }
}

int main(void)
{
    ours = policy_at(0);
    RUN(the_others_are_planned_for_as_if_there_were_no_best_effort);
    RUN(every_gpulet_with_time_to_spare_has_seats_of_best_effort);
    RUN(what_nobody_has_becomes_a_gpulet_of_best_effort);
    RUN(where_no_run_is_short_enough_a_model_has_no_place_and_is_named);
    RUN(memory_goes_to_the_others_first);
    RUN(the_check_refuses_a_share_behind_one_of_best_effort);
    RUN(models_of_best_effort_alone_have_the_device);
    RUN(it_runs_where_nobody_else_waits);
    RUN(whoever_is_promised_something_goes_first_however_long_others_wait);
    RUN(its_run_is_no_longer_than_the_others_can_spare);
    RUN(it_is_over_before_a_batch_that_fills_must_start);
    RUN(what_waited_for_too_long_is_dropped_to_be_told);
    RUN(nothing_starts_beside_a_run);
    RUN(every_policy_lets_it_run_only_where_it_would_wait);
    RUN(beside_best_effort_without_end_nobody_is_late_and_little_is_idle);
    arena_done(&arena);
    return check_end();
}
