/* What goes ahead: the next run, handed over while the one before it is nearly over. */
#include "../check.h"

#include <gpulet/policy.h>
#include <stdlib.h>

#define NOW 100000
#define AHEAD 200

/* A run of b rows takes 2 + b ms. */
static const usec_t run_us[] = {0, 3000, 4000, 5000, 6000};
static struct queue_view queue[4];
static struct batch_view view;

/* Queues with nothing in them; a run will be over so many us from now. */
static void set_up(uint32_t n, usec_t left_us)
{
    memset(queue, 0, sizeof(queue));
    for (uint32_t i = 0; i < n; i++)
        queue[i] =
            (struct queue_view){.max_batch = 4, .run_us = run_us, .least_us = 3000, .ready = true};
    view = (struct batch_view){.now_us = NOW,
                               .n_flying = 1,
                               .max_flying = 1,
                               .busy_until_us = NOW + left_us,
                               .ahead_us = AHEAD,
                               .n_queues = n,
                               .queue = queue};
}

static void add(uint32_t i, usec_t deadline_us)
{
    uint32_t n = queue[i].n++;

    queue[i].since_us = n ? queue[i].since_us : NOW - 1000 + i;
    queue[i].rows[n] = 1;
    queue[i].deadline_us[n] = deadline_us;
}

static const struct policy *policy_of(const char *name)
{
    const struct policy *p = NULL;
    struct err err = {0};

    CHECK_EQ(policy_find(name, &p, &err), 0);
    return p;
}

static struct batch_choice by(const char *name)
{
    return policy_next(policy_of(name), &view);
}

#define CHECK_RUN(c, q, n)                                                                         \
    do {                                                                                           \
        struct batch_choice c_ = (c);                                                              \
        CHECK_EQ(c_.what, BATCH_RUN);                                                              \
        CHECK_EQ(c_.queue, q);                                                                     \
        CHECK_EQ(c_.take, n);                                                                      \
    } while (0)
#define CHECK_WAIT(c, us)                                                                          \
    do {                                                                                           \
        struct batch_choice c_ = (c);                                                              \
        CHECK_EQ(c_.what, BATCH_WAIT);                                                             \
        CHECK_EQ(c_.until_us, us);                                                                 \
    } while (0)

static void where_the_device_does_not_take_it_nothing_goes_ahead(void)
{
    set_up(1, 0);
    view.ahead_us = 0;
    add(0, NOW + 50000);
    CHECK_WAIT(by("gpuletd"), NOW + 50000);
    CHECK_WAIT(by("fifo"), NOW + 50000);
}

static void until_it_is_time_the_gpulet_waits_for_that_moment(void)
{
    set_up(1, AHEAD + 1);
    add(0, NOW + 50000);
    CHECK_WAIT(by("gpuletd"), NOW + 1);
    view.now_us++;
    CHECK_RUN(by("gpuletd"), 0, 1);
    set_up(1, AHEAD + 1);
    CHECK_WAIT(by("gpuletd"), USEC_NEVER); /* for nobody there is no such moment */
    add(0, NOW + 50000);
    queue[0].ready = false;
    CHECK_WAIT(by("gpuletd"), NOW + 50000);
}

static void a_deadline_before_that_moment_is_looked_at_first(void)
{
    set_up(1, 1000);
    add(0, NOW + 500);
    CHECK_WAIT(by("fifo"), NOW + 500);
}

static void one_run_goes_ahead_and_no_more(void)
{
    set_up(1, 0);
    view.n_flying = 2;
    add(0, NOW + 50000);
    CHECK_WAIT(by("gpuletd"), NOW + 50000);
}

static void where_runs_are_side_by_side_nothing_changes(void)
{
    set_up(1, AHEAD + 1000);
    view.max_flying = 8;
    add(0, NOW + 50000);
    CHECK_RUN(by("all-at-once"), 0, 1);
}

static void inputs_that_travel_for_long_go_sooner(void)
{
    set_up(2, AHEAD + 300);
    add(0, NOW + 50000);
    CHECK_WAIT(by("gpuletd"), NOW + 300);
    queue[0].inputs_us = 300;
    CHECK_RUN(by("gpuletd"), 0, 1);
}

/* The moment of the first is not the other's, who is before it. */
static void who_has_no_long_inputs_is_not_chosen_sooner_for_them(void)
{
    set_up(2, AHEAD + 300);
    add(0, NOW + 50000);
    add(1, NOW + 50000);
    queue[1].inputs_us = 300;
    CHECK_WAIT(by("gpuletd"), NOW + 300);
    queue[0].since_us = NOW; /* now he is behind */
    CHECK_RUN(by("gpuletd"), 1, 1);
}

/* The batch has a deferred window: alone, its last moment is run, a quarter, and a sixteenth. */
static void a_batch_that_would_wait_at_the_end_does_not_go_ahead(void)
{
    set_up(1, 100);
    add(0, NOW + 80000);
    usec_t last_us = NOW + 80000 - 6000 - 6000 / 4 - 81000 / 16;
    CHECK_WAIT(by("deferred"), last_us);
    view.busy_until_us = last_us - 1;
    view.now_us = last_us - 1 - AHEAD;
    CHECK_WAIT(by("deferred"), last_us);
    view.busy_until_us++;
    view.now_us++;
    CHECK_RUN(by("deferred"), 0, 1);
}

static void a_full_batch_does_not_wait_for_its_window(void)
{
    set_up(1, 100);
    for (unsigned i = 0; i < 5; i++)
        add(0, NOW + 80000);
    CHECK_RUN(by("deferred"), 0, 4);
}

/* From the end on it takes 3 ms. */
static void what_cannot_be_in_time_behind_the_run_is_dropped(void)
{
    set_up(1, 100);
    add(0, NOW + 100 + 3000);
    CHECK_RUN(by("gpuletd"), 0, 1);
    add(0, NOW + 100 + 3000);
    queue[0].deadline_us[0]--;
    struct batch_choice c = by("gpuletd");
    CHECK_EQ(c.what, BATCH_DROP);
    CHECK_EQ(c.take, 1);
}

static void behind_a_run_that_is_late_it_counts_from_now(void)
{
    set_up(1, 0);
    view.busy_until_us = NOW - 700;
    add(0, NOW + 3000);
    CHECK_RUN(by("gpuletd"), 0, 1);
    queue[0].deadline_us[0] = NOW + 2999;
    queue[0].least_us = 3000;
    CHECK_EQ(by("gpuletd").what, BATCH_DROP);
}

static void best_effort_does_not_go_ahead(void)
{
    set_up(2, 0);
    view.n_queues = 1;
    view.n_spare = 1;
    queue[1].spare_us = 10000;
    add(1, NOW + 50000);
    CHECK_EQ(by("gpuletd").what, BATCH_WAIT);
    add(0, NOW + 50000);
    CHECK_RUN(by("gpuletd"), 0, 1);
    view.n_flying = 0;
    queue[0].n = 0;
    CHECK_RUN(by("gpuletd"), 1, 1);
}

/* Every policy, with what waits made up: what it would do at the end if nothing came until then. */
static void random_queues(unsigned *seed)
{
    set_up(3, (usec_t)rand_r(seed) % (AHEAD + 1));
    view.order = rand_r(seed) % 3;
    view.tuning.instances = 1;
    view.tuning.delay_part = 0.25;
    view.tuning.slice_part = 0.25;
    for (uint32_t i = 0; i < 3; i++) {
        queue[i].priority = rand_r(seed) % 3;
        queue[i].turn_us = NOW - (usec_t)rand_r(seed) % 20000;
        for (unsigned n = (unsigned)rand_r(seed) % 6; n > 0; n--)
            add(i, NOW + (usec_t)rand_r(seed) % 30000);
    }
}

static void every_policy_chooses_what_it_would_at_the_end(void)
{
    unsigned seed = 7, n_runs = 0, n_waits = 0;

    for (unsigned k = 0; k < 2000; k++) {
        const struct policy *p;
        random_queues(&seed);
        struct batch_view end = view;
        end.now_us = view.busy_until_us;
        end.n_flying = 0;
        for (uint32_t i = 0; (p = policy_at(i)); i++) {
            struct batch_choice a = policy_next(p, &view), b = p->batch_next(&end);
            CHECK_EQ(a.what, b.what);
            CHECK_EQ(a.queue, b.queue);
            CHECK_EQ(a.take, b.take);
            CHECK_EQ(a.until_us, b.until_us);
            n_runs += a.what == BATCH_RUN;
            n_waits += a.what == BATCH_WAIT && a.until_us != USEC_NEVER;
        }
    }
    CHECK(n_runs > 1000 && n_waits > 100);
}

/* Nobody looks again and again for nothing: who waits does so for a moment that is to come. */
static void a_wait_is_for_a_moment_to_come(void)
{
    unsigned seed = 8;

    for (unsigned k = 0; k < 2000; k++) {
        const struct policy *p;
        random_queues(&seed);
        view.busy_until_us = NOW - 300 + (usec_t)rand_r(&seed) % 1000;
        for (uint32_t i = 0; (p = policy_at(i)); i++) {
            struct batch_choice c = policy_next(p, &view);
            CHECK(c.what != BATCH_WAIT || c.until_us > view.now_us);
        }
    }
}

int main(void)
{
    RUN(where_the_device_does_not_take_it_nothing_goes_ahead);
    RUN(until_it_is_time_the_gpulet_waits_for_that_moment);
    RUN(a_deadline_before_that_moment_is_looked_at_first);
    RUN(one_run_goes_ahead_and_no_more);
    RUN(where_runs_are_side_by_side_nothing_changes);
    RUN(inputs_that_travel_for_long_go_sooner);
    RUN(who_has_no_long_inputs_is_not_chosen_sooner_for_them);
    RUN(a_batch_that_would_wait_at_the_end_does_not_go_ahead);
    RUN(a_full_batch_does_not_wait_for_its_window);
    RUN(what_cannot_be_in_time_behind_the_run_is_dropped);
    RUN(behind_a_run_that_is_late_it_counts_from_now);
    RUN(best_effort_does_not_go_ahead);
    RUN(every_policy_chooses_what_it_would_at_the_end);
    RUN(a_wait_is_for_a_moment_to_come);
    return check_end();
}
