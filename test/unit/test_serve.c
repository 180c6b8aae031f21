/* The run-time sides of the policies that ours is compared with, as sentences. */
#include "../check.h"

#include <gpulet/replay.h>
#include <math.h>

/* A run of b rows takes 2 + b ms. */
static const usec_t run_us[] = {0, 3000, 4000, 5000, 6000};
static struct queue_view queue[3];
static struct batch_view view;

/* Queues with nothing in them; now is 100 ms. */
static void set_up(uint32_t n)
{
    memset(queue, 0, sizeof(queue));
    for (uint32_t i = 0; i < n; i++)
        queue[i] =
            (struct queue_view){.max_batch = 4, .run_us = run_us, .least_us = 3000, .ready = true};
    view = (struct batch_view){
        .now_us = 100000, .busy_until_us = 100000, .max_flying = 1, .n_queues = n, .queue = queue};
}

static void add(uint32_t i, usec_t arrival_us, usec_t deadline_us)
{
    uint32_t n = queue[i].n++;

    queue[i].since_us = n ? queue[i].since_us : arrival_us;
    queue[i].rows[n] = 1;
    queue[i].deadline_us[n] = deadline_us;
}

static struct batch_choice by(const char *name)
{
    const struct policy *p = NULL;
    struct err err = {0};

    CHECK_EQ(policy_find(name, &p, &err), 0);
    return p->batch_next(&view);
}

#define CHECK_RUN(c, q, n)                                                                         \
    do {                                                                                           \
        struct batch_choice c_ = (c);                                                              \
        CHECK_EQ(c_.what, BATCH_RUN);                                                              \
        CHECK_EQ(c_.queue, q);                                                                     \
        CHECK_EQ(c_.take, n);                                                                      \
    } while (0)

static void fifo_runs_whoever_came_first_and_one_request_only(void)
{
    set_up(2);
    add(0, 99000, 200000);
    add(1, 98000, 900000);
    add(1, 98500, 900000);
    CHECK_RUN(by("fifo"), 1, 1);
}

static void round_robin_gives_the_turn_to_who_had_it_longest_ago(void)
{
    set_up(3);
    for (uint32_t i = 0; i < 3; i++) {
        add(i, 99000, 200000);
        add(i, 99500, 200000);
    }
    queue[0].turn_us = 98000;
    queue[1].turn_us = 90000;
    queue[2].turn_us = 95000;
    CHECK_RUN(by("round-robin"), 1, 2);
    queue[1].n = 0;
    CHECK_RUN(by("round-robin"), 2, 2);
}

static void round_robin_goes_on_with_a_turn_until_its_slice_is_over(void)
{
    set_up(2);
    add(0, 99000, 199000); /* an SLO of 100 ms: a slice of 5 ms */
    add(1, 99000, 199000);
    queue[0].turn_us = 96000;
    queue[1].turn_us = 90000;
    view.tuning.slice_part = 0.05;
    CHECK_RUN(by("round-robin"), 0, 1);
    view.now_us = 101000;
    CHECK_RUN(by("round-robin"), 1, 1);
}

static void max_delay_waits_for_its_delay_unless_the_batch_is_full(void)
{
    set_up(1);
    view.tuning.delay_part = 0.1;
    add(0, 95000, 195000);
    struct batch_choice c = by("max-delay");
    CHECK_EQ(c.what, BATCH_WAIT);
    CHECK_EQ(c.until_us, 105000);
    view.now_us = 105000;
    CHECK_RUN(by("max-delay"), 0, 1);
    view.now_us = 100000;
    for (uint32_t i = 0; i < 3; i++)
        add(0, 96000, 196000);
    CHECK_RUN(by("max-delay"), 0, 4);
}

static void max_delay_runs_as_many_batches_of_a_model_as_it_has_instances(void)
{
    set_up(1);
    view.max_flying = 8;
    view.n_flying = queue[0].n_flying = 1;
    add(0, 95000, 195000);
    CHECK_EQ(by("max-delay").what, BATCH_WAIT);
    view.tuning.instances = 2;
    CHECK_RUN(by("max-delay"), 0, 1);
}

static void edf_runs_what_is_due_first_and_as_many_as_it_can_bear(void)
{
    set_up(2);
    add(0, 90000, 200000);
    for (uint32_t i = 0; i < 4; i++)
        add(1, 99000, 105000); /* 5 ms: three rows */
    CHECK_RUN(by("edf"), 1, 3);
}

static void edf_drops_early_what_would_be_late_if_it_ran_now(void)
{
    set_up(1);
    add(0, 90000, 102999);
    add(0, 90000, 103000);
    struct batch_choice c = by("edf");
    CHECK_EQ(c.what, BATCH_DROP);
    CHECK_EQ(c.take, 1);
}

static void deferred_starts_when_no_time_is_left_or_the_batch_is_full(void)
{
    set_up(1);
    add(0, 99000, 200000); /* less a full run, a quarter, and a sixteenth of 101 ms */
    struct batch_choice c = by("deferred");
    CHECK_EQ(c.what, BATCH_WAIT);
    CHECK_EQ(c.until_us, 186188);
    view.now_us = 186188;
    CHECK_RUN(by("deferred"), 0, 1);
    view.now_us = 100000;
    for (uint32_t i = 0; i < 3; i++)
        add(0, 99000, 200000);
    CHECK_RUN(by("deferred"), 0, 4);
}

static void all_at_once_runs_every_model_beside_the_others(void)
{
    set_up(2);
    view.max_flying = 8;
    view.n_flying = queue[0].n_flying = 1;
    add(0, 90000, 200000);
    add(1, 95000, 200000);
    add(1, 95000, 200000);
    CHECK_RUN(by("all-at-once"), 1, 2);
    view.n_flying = 2;
    queue[1].n_flying = 1;
    CHECK_EQ(by("all-at-once").what, BATCH_WAIT);
}

static void who_is_too_late_already_is_dropped_by_all(void)
{
    static const char *const names[] = {"fifo",     "round-robin", "max-delay", "edf",
                                        "deferred", "all-at-once", "gpulet",    "igniter"};

    for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
        set_up(1);
        add(0, 90000, 99000);
        CHECK_EQ(by(names[i]).what, BATCH_DROP);
    }
}

/* ---- at the door */

static void open_policies_refuse_nobody_but_for_a_full_queue(void)
{
    static const struct let_view busy = {.free_us = 900000, .mine_us = 3000, .full_us = 6000};
    struct admit_view v = {
        .now_us = 1000, .deadline_us = 2000, .queue_max = 4, .n_lets = 1, .let = &busy};
    const struct policy *p = NULL;

    CHECK_EQ(policy_find("fifo", &p, NULL), 0);
    CHECK_EQ(p->admit(&v).what, ADMIT_YES);
    v.n_queued = 4;
    CHECK_EQ(p->admit(&v).what, ADMIT_FULL);
    CHECK_EQ(p->admit(&v).retry_us, 6000);
}

static void gpulets_of_a_model_take_turns_by_what_is_planned(void)
{
    struct let_view let[] = {{.part = 0.75, .n_routed = 5}, {.part = 0.25, .n_routed = 1}};
    struct admit_view v = {.n_lets = 2, .let = let};
    const struct policy *p = NULL;

    CHECK_EQ(policy_find("gpulet", &p, NULL), 0);
    CHECK_EQ(p->route(&v), 0); /* 6 / 0.75 and 2 / 0.25 are equal */
    let[0].n_routed++;
    CHECK_EQ(p->route(&v), 1);
}

static void an_unknown_policy_is_refused_with_the_list(void)
{
    const struct policy *p = NULL;
    struct err err = {0};

    CHECK_EQ(policy_find("best", &p, &err), -ENOENT);
    CHECK(strstr(err.msg, "'best'") != NULL);
    for (uint32_t i = 0; policy_at(i); i++)
        CHECK(strstr(err.msg, policy_at(i)->name) != NULL);
}

/* ---- in replay: two models on four units, at a load that anybody can serve */

static const uint32_t batches[] = {1, 8}, units[] = {1, 4};
static const usec_t table[] = {4000, 18000, 2500, 6000};
static const struct profile profile = {
    .n_batch = 2, .n_units = 2, .batch = batches, .units = units, .run_us = table};
static const struct plan_type type = {
    .name = "t", .n_granules = 4, .granule_units = 1, .predict = {.units = 4}};
static const struct plan_device device = {.name = "d"};

static double in_time(const struct policy *by, struct arena *a)
{
    struct plan_model model[2];
    struct problem p = {.n_types = 1,
                        .n_devices = 1,
                        .n_models = 2,
                        .type = &type,
                        .device = &device,
                        .model = model};
    struct replay_result r = {0};
    struct plan plan = {0};
    struct err err = {0};

    for (uint32_t m = 0; m < 2; m++)
        model[m] = (struct plan_model){.name = m ? "b" : "a",
                                       .slo_us = 60000,
                                       .rate_rps = 20,
                                       .arrivals = ARRIVALS_POISSON,
                                       .max_batch = 8,
                                       .profile = &profile};
    CHECK_EQ(by->plan_make(&p, NULL, a, &plan, &err), 0);
    CHECK_EQ(plan_check(&p, NULL, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    struct replay_config cfg = {.problem = &p,
                                .plan = &plan,
                                .policy = by,
                                .seed = 1,
                                .duration_us = 60 * USEC_PER_SEC,
                                .noise = 0.05};
    CHECK_EQ(replay_run(&cfg, a, &r, &err), 0);
    double offered = 0, good = 0;
    for (uint32_t m = 0; m < r.n_models; m++) {
        const struct replay_model *x = &r.model[m];
        CHECK_EQ(x->offered, x->in_time + x->late + x->dropped + x->rejected + x->lost);
        offered += (double)x->offered;
        good += (double)x->in_time;
    }
    return good / offered;
}

static void every_policy_serves_a_light_load_in_replay(void)
{
    for (uint32_t i = 0; policy_at(i); i++) {
        struct arena a;
        arena_init(&a);
        double part = in_time(policy_at(i), &a);
        if (part < 0.99)
            printf("# %s: %g\n", policy_at(i)->name, part);
        CHECK(part >= 0.99);
        arena_done(&a);
    }
}

/* Runs of 10 ms on four units and 20 ms on two of them; the second request comes after 5 ms.  All
 * at once in one gpu-let of all, or each in its own half of a device where a neighbour makes runs
 * half as long again. */
static void pair_takes(const struct plan_type *on, bool halves_apart, usec_t first_us,
                       usec_t second_us)
{
    static const uint32_t one[] = {1}, halves[] = {1, 2, 4};
    static const usec_t us[] = {40000, 20000, 10000};
    static const struct profile linear = {
        .n_batch = 1, .n_units = 3, .batch = one, .units = halves, .run_us = us};
    static const usec_t at[2][1] = {{0}, {5000}};
    struct plan_model model[2] = {{.name = "a", .max_batch = 1, .profile = &linear},
                                  {.name = "b", .max_batch = 1, .profile = &linear}};
    struct plan_share share[] = {{.model = 0, .batch = 1}, {.model = 1, .batch = 1}};
    struct plan_gpulet whole = {.set = {{0xf}}, .units = 4, .n_shares = 2, .share = share};
    struct plan_gpulet half[] = {{.set = {{0x3}}, .units = 2, .n_shares = 1, .share = &share[0]},
                                 {.set = {{0xc}}, .units = 2, .n_shares = 1, .share = &share[1]}};
    struct problem p = {
        .n_types = 1, .n_devices = 1, .n_models = 2, .type = on, .device = &device, .model = model};
    struct plan plan = {
        .n_gpulets = halves_apart ? 2 : 1, .gpulet = halves_apart ? half : &whole, .n_models = 2};
    struct replay_load load[2] = {{.kind = REPLAY_TRACE, .n_trace = 1, .trace_us = at[0]},
                                  {.kind = REPLAY_TRACE, .n_trace = 1, .trace_us = at[1]}};
    struct replay_result r = {0};
    struct err err = {0};
    struct arena a;
    const struct policy *by = NULL;

    CHECK_EQ(policy_find("all-at-once", &by, &err), 0);
    struct replay_config cfg = {
        .problem = &p, .plan = &plan, .policy = by, .load = load, .duration_us = USEC_PER_SEC};
    arena_init(&a);
    CHECK_EQ(replay_run(&cfg, &a, &r, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(r.model[0].latency.max_us, first_us);
    CHECK_EQ(r.model[1].latency.max_us, second_us);
    arena_done(&a);
}

/* Half of each is done alone. */
static void runs_side_by_side_share_the_units(void)
{
    pair_takes(&type, false, 15000, 15000);
}

static void runs_follow_each_other_where_the_device_runs_in_turn(void)
{
    struct plan_type one_by_one = type;

    one_by_one.in_turn = true;
    pair_takes(&one_by_one, false, 10000, 15000);
}

/* 5 ms alone, 22.5 beside the other, which has then 5 ms to do alone. */
static void runs_side_by_side_feel_the_gpulets_beside_theirs(void)
{
    struct plan_type disturbed = type;

    disturbed.predict.interference =
        (struct interference){.kind = INTERFERE_GPULET, .c = {0, 0, 0, 0, 1.5}};
    pair_takes(&disturbed, true, 27500, 27500);
}

int main(void)
{
    RUN(fifo_runs_whoever_came_first_and_one_request_only);
    RUN(round_robin_gives_the_turn_to_who_had_it_longest_ago);
    RUN(round_robin_goes_on_with_a_turn_until_its_slice_is_over);
    RUN(max_delay_waits_for_its_delay_unless_the_batch_is_full);
    RUN(max_delay_runs_as_many_batches_of_a_model_as_it_has_instances);
    RUN(edf_runs_what_is_due_first_and_as_many_as_it_can_bear);
    RUN(edf_drops_early_what_would_be_late_if_it_ran_now);
    RUN(deferred_starts_when_no_time_is_left_or_the_batch_is_full);
    RUN(all_at_once_runs_every_model_beside_the_others);
    RUN(who_is_too_late_already_is_dropped_by_all);
    RUN(open_policies_refuse_nobody_but_for_a_full_queue);
    RUN(gpulets_of_a_model_take_turns_by_what_is_planned);
    RUN(an_unknown_policy_is_refused_with_the_list);
    RUN(every_policy_serves_a_light_load_in_replay);
    RUN(runs_side_by_side_share_the_units);
    RUN(runs_follow_each_other_where_the_device_runs_in_turn);
    RUN(runs_side_by_side_feel_the_gpulets_beside_theirs);
    return check_end();
}
