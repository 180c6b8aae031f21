/* Measured demand in virtual time: arrivals as the replay makes them, sampled every 125 ms, and a
 * plan that follows at once and then holds from half of what it was made for to 1.25 times that. */
#include "../check.h"

#include <gpulet/demand.h>
#include <gpulet/replay.h>
#include <math.h>

#define MOST 2000000 /* arrivals of a test */
#define STEP_US (USEC_PER_SEC / 8)

struct sim {
    struct arena a;
    struct demand d;
    struct demand_band band;
    double room_rps; /* 0: there is room for all */
    bool unheld;     /* and all plans hold for everybody */
    usec_t *at_us;
    size_t n, next;
    unsigned rises, falls;
    usec_t first_us, last_us; /* moves */
};

static struct sim begin(const struct replay_load *load, const struct replay_event *event,
                        uint32_t n_events, unsigned seconds)
{
    static const uint32_t one = 1;
    static const usec_t run_us = 1000;
    static const struct profile profile = {
        .n_batch = 1, .n_units = 1, .batch = &one, .units = &one, .run_us = &run_us};
    static const struct plan_type type = {
        .name = "t", .n_granules = 1, .granule_units = 1, .predict.units = 1};
    static const struct plan_device device = {.name = "t-0"};
    static const struct plan_model model = {
        .name = "m", .rate_rps = 1, .max_batch = 1, .profile = &profile};
    static const struct problem problem = {.n_types = 1,
                                           .n_devices = 1,
                                           .n_models = 1,
                                           .type = &type,
                                           .device = &device,
                                           .model = &model};
    struct replay_config cfg = {.problem = &problem,
                                .load = load,
                                .event = event,
                                .n_events = n_events,
                                .seed = 7,
                                .duration_us = seconds * USEC_PER_SEC};
    struct sim s = {0};
    struct err err = {0};

    arena_init(&s.a);
    CHECK_EQ(replay_arrivals(&cfg, 0, MOST, &s.a, &s.at_us, &s.n, &err), 0);
    demand_sample(&s.d, USEC_PER_SEC, 0);
    return s;
}

static void plan_for(struct sim *s, double rps, double declared)
{
    rps = fmax(rps, declared);
    double asked_rps = s->room_rps > 0 && rps > s->room_rps ? rps : 0;
    rps = asked_rps > 0 ? s->room_rps : rps;
    s->band = (struct demand_band){.planned_rps = rps,
                                   .low_rps = rps > declared ? rps / 2 : 0,
                                   .high_rps = fmax(1.25 * rps, 5),
                                   .short_rps = asked_rps};
    if (s->unheld)
        demand_hasten(1, &s->band);
}

/* Until so many seconds after the start; the clock starts at one second. */
static void run_to(struct sim *s, double second, double declared)
{
    usec_t to_us = USEC_PER_SEC + (usec_t)(second * 1e6);
    double rps;

    while (s->d.at_us + STEP_US <= to_us) {
        usec_t now_us = s->d.at_us + STEP_US;
        while (s->next < s->n && USEC_PER_SEC + s->at_us[s->next] <= now_us)
            s->next++;
        demand_sample(&s->d, now_us, s->next);
        if (demand_gone(&s->d, &s->band))
            s->band.short_rps = 0;
        enum demand_move move = demand_judge(&s->d, &s->band, &rps);
        if (move == DEMAND_STAYS)
            continue;
        s->rises += move == DEMAND_RISES;
        s->falls += move == DEMAND_FALLS;
        s->last_us = now_us - USEC_PER_SEC;
        if (!s->first_us)
            s->first_us = s->last_us;
        plan_for(s, rps, declared);
    }
}

static void forget_moves(struct sim *s)
{
    s->rises = s->falls = 0;
    s->first_us = s->last_us = 0;
}

static const struct replay_load paced = {.kind = REPLAY_PACED, .rate_rps = 100};
static const struct replay_load poisson = {.kind = REPLAY_POISSON, .rate_rps = 100};

static void a_steady_rate_is_found_and_then_nothing_happens(void)
{
    const struct replay_load bursty = {.kind = REPLAY_GAMMA, .rate_rps = 100, .cv = 2};
    const struct replay_load *const loads[] = {&paced, &poisson, &bursty};

    for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
        struct sim s = begin(loads[i], NULL, 0, 300);
        plan_for(&s, 0, 0);
        run_to(&s, 30, 0);
        CHECK(s.rises >= 1);
        CHECK(s.band.planned_rps > 90 && s.band.planned_rps < 200);
        forget_moves(&s);
        run_to(&s, 300, 0);
        CHECK_EQ(s.falls, 0);
        CHECK(s.rises <= 1);
        arena_done(&s.a);
    }
}

static void where_a_plan_does_not_hold_for_all_a_little_less_is_planned_for_soon(void)
{
    const struct replay_load *const loads[] = {&paced, &poisson};
    const struct replay_event step = {
        .at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 0.75};

    for (size_t i = 0; i < 4; i++) {
        struct sim s = begin(loads[i % 2], &step, 1, 80);
        s.unheld = i / 2;
        plan_for(&s, 0, 0);
        run_to(&s, 60, 0);
        CHECK_EQ(s.falls > 2, false);
        forget_moves(&s);
        run_to(&s, 80, 0);
        CHECK_EQ(s.falls > 0, s.unheld);
        CHECK_EQ(s.rises, 0);
        CHECK(!s.unheld || s.first_us <= 72 * USEC_PER_SEC);
        arena_done(&s.a);
    }
}

static void a_step_is_seen_within_a_second(void)
{
    const struct replay_load *const loads[] = {&paced, &poisson};
    static const double factors[] = {2, 5};

    for (size_t i = 0; i < 4; i++) {
        const struct replay_event step = {
            .at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = factors[i / 2]};
        struct sim s = begin(loads[i % 2], &step, 1, 90);
        plan_for(&s, 0, 0);
        run_to(&s, 60, 0);
        forget_moves(&s);
        run_to(&s, 90, 0);
        CHECK(s.rises >= 1 && s.rises <= 4);
        CHECK_EQ(s.falls, 0);
        CHECK(s.first_us <= 61 * USEC_PER_SEC);
        CHECK(s.band.high_rps > 100 * factors[i / 2]);
        CHECK(s.band.planned_rps < 150 * factors[i / 2]);
        arena_done(&s.a);
    }
}

/* Three times 400 a second: 150 in an eighth, where 50 are usual. */
static void a_large_step_of_what_came_evenly_is_seen_at_once_and_for_what_it_is(void)
{
    const struct replay_load many = {.kind = REPLAY_POISSON, .rate_rps = 400};
    const struct replay_event step = {.at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 3};
    struct sim s = begin(&many, &step, 1, 61);

    plan_for(&s, 0, 0);
    run_to(&s, 60, 0);
    forget_moves(&s);
    run_to(&s, 60.375, 0);
    CHECK(s.rises >= 1);
    CHECK(s.band.planned_rps > 1100 && s.band.planned_rps < 1700);
    run_to(&s, 61, 0);
    CHECK(s.rises <= 2);
    arena_done(&s.a);
}

static void a_step_from_silence_is_seen_within_a_second(void)
{
    const struct replay_event on[] = {
        {.at_us = 1, .kind = REPLAY_RATE, .factor = 1e-6},
        {.at_us = 40 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 1}};
    struct sim s = begin(&poisson, on, 2, 60);

    plan_for(&s, 0, 0);
    run_to(&s, 40, 0);
    CHECK_EQ(s.rises + s.falls, 0);
    run_to(&s, 60, 0);
    CHECK(s.rises >= 1);
    CHECK(s.first_us <= 41 * USEC_PER_SEC);
    arena_done(&s.a);
}

static void a_rate_that_falls_is_followed_later_than_one_that_rises(void)
{
    const struct replay_event step = {
        .at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 0.2};
    struct sim s = begin(&poisson, &step, 1, 120);

    plan_for(&s, 0, 0);
    run_to(&s, 60, 0);
    forget_moves(&s);
    run_to(&s, 120, 0);
    CHECK_EQ(s.falls, 1);
    CHECK_EQ(s.rises, 0);
    CHECK(s.first_us > 65 * USEC_PER_SEC);
    CHECK(s.band.planned_rps > 20 && s.band.planned_rps < 30);
    arena_done(&s.a);
}

static void a_ramp_is_followed_in_steps(void)
{
    struct replay_event ramp[60];
    for (unsigned i = 0; i < 60; i++)
        ramp[i] = (struct replay_event){
            .at_us = (20 + i) * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 1 + i / 12.0};
    struct sim s = begin(&poisson, ramp, 60, 100);

    plan_for(&s, 0, 0);
    run_to(&s, 20, 0);
    forget_moves(&s);
    for (unsigned second = 21; second < 80; second++) {
        run_to(&s, second, 0);
        /* never behind by more than the band and what half a second of doubt is worth */
        CHECK(s.band.high_rps > 0.75 * 100 * ramp[second - 21].factor);
    }
    run_to(&s, 100, 0);
    CHECK_EQ(s.falls, 0);
    CHECK(s.rises >= 3 && s.rises <= 20);
    CHECK(s.band.planned_rps > 450 && s.band.planned_rps < 900);
    arena_done(&s.a);
}

static void a_flash_crowd_is_served_and_given_up_again(void)
{
    const struct replay_event crowd[] = {
        {.at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 5},
        {.at_us = 75 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 1}};
    struct sim s = begin(&poisson, crowd, 2, 150);

    plan_for(&s, 0, 0);
    run_to(&s, 60, 0);
    forget_moves(&s);
    run_to(&s, 75, 0);
    CHECK(s.first_us <= 61 * USEC_PER_SEC);
    CHECK(s.band.high_rps > 500);
    run_to(&s, 150, 0);
    CHECK_EQ(s.falls, 1);
    CHECK(s.band.planned_rps < 160);
    arena_done(&s.a);
}

static void silence_gives_the_share_back(void)
{
    const struct replay_event off = {
        .at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 1e-9};
    struct sim s = begin(&poisson, &off, 1, 120);

    plan_for(&s, 0, 0);
    run_to(&s, 60, 0);
    CHECK(!demand_silent(&s.d));
    run_to(&s, 120, 0);
    CHECK(s.falls >= 1 && s.falls <= 2);
    CHECK(s.band.planned_rps == 0 && demand_silent(&s.d));
    CHECK(s.d.mean_rps < 0.1);
    arena_done(&s.a);
}

static void a_declared_rate_is_a_floor(void)
{
    const struct replay_event on[] = {
        {.at_us = 60 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 8},
        {.at_us = 90 * USEC_PER_SEC, .kind = REPLAY_RATE, .factor = 0.01}};
    struct sim s = begin(&poisson, on, 2, 150);

    plan_for(&s, 0, 300);
    run_to(&s, 60, 300);
    CHECK_EQ(s.rises + s.falls, 0); /* 100 a second, declared 300 */
    run_to(&s, 90, 300);
    CHECK(s.band.planned_rps > 700);
    run_to(&s, 150, 300);
    CHECK(s.band.planned_rps == 300);
    arena_done(&s.a);
}

static void bursts_that_come_again_do_not_make_plans_go_back_and_forth(void)
{
    static const double period_s[] = {1, 4, 12, 30, 60};

    for (size_t p = 0; p < ARRAY_SIZE(period_s); p++) {
        struct replay_event event[1200];
        uint32_t n = 0;
        for (double t = 0; t < 600 && n + 2 <= ARRAY_SIZE(event); t += period_s[p]) {
            event[n++] = (struct replay_event){
                .at_us = (usec_t)(t * 1e6) + 1, .kind = REPLAY_RATE, .factor = 5};
            event[n++] = (struct replay_event){
                .at_us = (usec_t)((t + period_s[p] / 5) * 1e6), .kind = REPLAY_RATE, .factor = 0.5};
        }
        struct sim s = begin(&poisson, event, n, 600);
        plan_for(&s, 0, 0);
        run_to(&s, 300, 0);
        forget_moves(&s);
        run_to(&s, 600, 0);
        CHECK(s.rises + s.falls <= 1);
        arena_done(&s.a);
    }
}

static void single_requests_do_not_move_anything(void)
{
    const struct replay_load rare = {.kind = REPLAY_POISSON, .rate_rps = 0.05};
    struct sim s = begin(&rare, NULL, 0, 600);

    plan_for(&s, 0, 0);
    run_to(&s, 600, 0);
    CHECK_EQ(s.rises + s.falls, 0);
    arena_done(&s.a);
}

static void one_burst_at_once_is_no_rate(void)
{
    struct demand d = {0};
    struct demand_band b = {.high_rps = 50};
    double rps;

    demand_sample(&d, 1000, 0);
    for (unsigned i = 1; i < 200; i++) {
        demand_sample(&d, 1000 + i * STEP_US, i < 80 ? 0 : 40);
        CHECK_EQ(demand_judge(&d, &b, &rps), DEMAND_STAYS);
    }
}

static void a_late_sample_is_spread_over_the_time_since_the_last(void)
{
    struct demand d = {0};

    demand_sample(&d, 1000, 500); /* what was before is not looked at */
    CHECK(demand_rate(&d) == 0);
    demand_sample(&d, 1000 + 10 * USEC_PER_SEC, 500 + 1000);
    CHECK(fabs(demand_rate(&d) - 100) < 1);
    CHECK(demand_burst(&d) < 0.1);
    demand_sample(&d, 1000 + 70 * USEC_PER_SEC, 500 + 1000 + 600);
    CHECK(fabs(demand_rate(&d) - 10) < 1);
    demand_recount(&d, 0); /* another version */
    demand_sample(&d, 1000 + 80 * USEC_PER_SEC, 100);
    CHECK(fabs(demand_rate(&d) - 10) < 1);
}

static void burstiness_is_that_of_the_arrivals(void)
{
    const struct replay_load bursty = {.kind = REPLAY_GAMMA, .rate_rps = 400, .cv = 3};
    const struct replay_load p = {.kind = REPLAY_PACED, .rate_rps = 400};
    const struct replay_load q = {.kind = REPLAY_POISSON, .rate_rps = 400};
    struct sim s[3] = {begin(&p, NULL, 0, 20), begin(&q, NULL, 0, 20), begin(&bursty, NULL, 0, 20)};

    for (unsigned i = 0; i < 3; i++) {
        plan_for(&s[i], 400, 0);
        run_to(&s[i], 20, 0);
    }
    CHECK(demand_burst(&s[0].d) < 0.2);
    CHECK(demand_burst(&s[1].d) > 0.6 && demand_burst(&s[1].d) < 1.6);
    CHECK(demand_burst(&s[2].d) > 3);
    for (unsigned i = 0; i < 3; i++)
        arena_done(&s[i].a);
}

static void a_rate_that_has_changed_is_no_burst(void)
{
    const struct replay_event step = {
        .at_us = 10 * USEC_PER_SEC, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 4};
    struct sim s = begin(&poisson, &step, 1, 20);

    run_to(&s, 14, 0);
    CHECK(demand_burst(&s.d) > 0.5 && demand_burst(&s.d) < 2);
    arena_done(&s.a);
}

static void what_there_was_no_room_for_is_asked_for_once(void)
{
    const struct replay_event event[] = {
        {.at_us = 20 * USEC_PER_SEC, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 3},
        {.at_us = 40 * USEC_PER_SEC, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 1},
        {.at_us = 70 * USEC_PER_SEC, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 3}};
    struct sim s = begin(&poisson, event, ARRAY_SIZE(event), 90);

    run_to(&s, 18, 0);
    forget_moves(&s);
    s.room_rps = 150;
    run_to(&s, 40, 0);
    CHECK(s.rises >= 1 && s.rises <= 3); /* until all of it is seen */
    CHECK(s.last_us < 23 * USEC_PER_SEC);
    CHECK(s.band.short_rps > 250);
    forget_moves(&s);
    run_to(&s, 69, 0); /* it is gone: what was planned is what is asked for */
    CHECK_EQ(s.rises + s.falls, 0);
    CHECK(s.band.short_rps == 0 && s.band.planned_rps == 150);
    run_to(&s, 75, 0); /* and it is seen when it comes again */
    CHECK(s.rises >= 1 && s.first_us < 71 * USEC_PER_SEC + USEC_PER_SEC / 2);
    arena_done(&s.a);
}

static void what_is_planned_between_two_rises_is_no_habit(void)
{
    const struct replay_event event[] = {
        {.at_us = 20 * USEC_PER_SEC, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 4}};
    struct sim s = begin(&poisson, event, ARRAY_SIZE(event), 60);

    run_to(&s, 10, 0);
    CHECK(!demand_settled(&s.d, 0)); /* too early to say */
    run_to(&s, 19, 0);
    CHECK(demand_settled(&s.d, 0));
    CHECK(demand_usual(&s.d, &s.band) > 90);
    run_to(&s, 24, 0); /* it has risen, and there is a plan for all of it, */
    CHECK(s.band.planned_rps > 350);
    CHECK(!demand_settled(&s.d, 0)); /* which is not how it always was */
    run_to(&s, 45, 0);
    CHECK(demand_settled(&s.d, 0) && demand_usual(&s.d, &s.band) > 350); /* but now it is */
    CHECK(!demand_settled(&s.d, s.d.at_us - 8 * USEC_PER_SEC));          /* if nobody was short */
    s.band.planned_rps = 200;
    CHECK(demand_usual(&s.d, &s.band) == 200); /* never more than what was planned */
    arena_done(&s.a);
}

/* a declared 100 and is used to 300, b declared 50; they ask for 500 and 1,050. */
static void nobody_has_more_before_all_have_what_they_declared(void)
{
    CHECK(demand_part(100, 300, 500, 0.5) == 50 && demand_part(50, 0, 1050, 0.5) == 25);
    CHECK(demand_part(100, 300, 500, 1) == 100 && demand_part(50, 0, 1050, 1) == 50);
    CHECK(demand_part(100, 300, 500, 1.5) == 200 && demand_part(50, 0, 1050, 1.5) == 50);
    CHECK(demand_part(100, 300, 500, 2) == 300 && demand_part(50, 0, 1050, 2) == 50);
    CHECK(demand_part(100, 300, 500, 2.25) == 350 && demand_part(50, 0, 1050, 2.25) == 300);
    CHECK(demand_part(100, 300, 500, 3) == 500 && demand_part(50, 0, 1050, 3) == 1050);
    CHECK(demand_part(100, 300, 80, 1.5) == 80); /* who asks for less has that */
}

/* Two gpu-lets, runs of 10 ms of at most 4: a holds 100 requests/s of 400 in the first, which it
 * has for itself; b at 100 and c, not known, share the second. */
static void within_their_bands_no_gpulet_is_too_busy(void)
{
    struct plan_share one[] = {{.model = 0, .batch = 4, .rate_rps = 100, .run_us = 10000}};
    struct plan_share two[] = {{.model = 1, .batch = 4, .rate_rps = 100, .run_us = 10000},
                               {.model = 2, .batch = 4, .run_us = 10000}};
    struct plan_gpulet let[] = {{.n_shares = 1, .share = one}, {.n_shares = 2, .share = two}};
    const struct plan_model model[] = {
        {.name = "a", .rate_rps = 100}, {.name = "b", .rate_rps = 100}, {.name = "c"}};
    const struct problem p = {.n_models = 3, .model = model};
    const struct plan plan = {.n_gpulets = 2, .gpulet = let, .n_models = 3};
    const double declared[] = {0, 100, 0};
    struct demand_band b[3];

    demand_bands(&p, &plan, declared, b);
    CHECK(fabs(b[0].high_rps - 360) < 1e-6); /* 0.9 of 400 */
    CHECK(fabs(b[0].sure.rate_rps - 360) < 1e-6 && b[2].sure.rate_rps == 0);
    CHECK(b[0].low_rps == 50 && b[0].planned_rps == 100);
    CHECK(b[1].low_rps == 0); /* declared */
    CHECK(b[2].low_rps == 0 && b[2].planned_rps == 0);
    CHECK(fabs(b[1].high_rps - 230) < 1e-6 && fabs(b[2].high_rps - 130) < 1e-6);
    CHECK((b[1].high_rps + b[2].high_rps) * 0.010 / 4 < DEMAND_DUTY + 1e-9);

    one[0].rate_rps = 390; /* as good as full: still not to be left by noise alone */
    demand_bands(&p, &plan, declared, b);
    CHECK(b[0].high_rps >= 1.1 * 100);
}

/* Nothing is promised there, so there is no room for more. */
static void a_gpulet_that_promises_nothing_has_no_room(void)
{
    struct plan_share one[] = {{.batch = 4, .rate_rps = 100, .run_us = 10000}};
    struct plan_gpulet let[] = {{.n_shares = 1, .share = one, .order = ORDER_DEADLINE}};
    const struct plan_model model[] = {{.name = "a", .rate_rps = 100}};
    struct plan_type type = {.name = "t"};
    const struct plan_device device = {.name = "d"};
    const struct problem p = {.n_models = 1, .model = model, .type = &type, .device = &device};
    const struct plan plan = {.n_gpulets = 1, .gpulet = let, .n_models = 1};
    const double declared[] = {0};
    struct demand_band b;

    demand_bands(&p, &plan, declared, &b);
    CHECK(fabs(b.high_rps - 110) < 1e-6);
    CHECK(fabs(b.sure.rate_rps - 105) < 1e-6 && b.sure.batch == 4);
    type.in_turn = true; /* there it is an order like any other */
    demand_bands(&p, &plan, declared, &b);
    CHECK(b.high_rps > 300 && b.sure.rate_rps == b.high_rps);
}

static uint32_t allowed(uint32_t rate_rps, uint32_t asked_rps, usec_t for_us)
{
    const struct allowance a = {.rate_rps = rate_rps, .batch = 1};
    int64_t used_ns = ALLOWANCE_FRESH;
    uint32_t n = 0;

    for (usec_t at_us = 0; at_us < for_us; at_us += USEC_PER_SEC / asked_rps) {
        int64_t next_ns = allowance_take(used_ns, &a, 1, at_us);
        n += next_ns != ALLOWANCE_FRESH;
        used_ns = next_ns != ALLOWANCE_FRESH ? next_ns : used_ns;
    }
    return n;
}

static void an_allowance_is_a_rate_and_one_burst(void)
{
    const struct allowance a = {.rate_rps = 100, .batch = 1};

    CHECK_EQ(allowed(100, 100, 10 * USEC_PER_SEC), 1000); /* all of what is planned */
    uint32_t n = allowed(100, 2000, 10 * USEC_PER_SEC);
    CHECK(n >= 1000 + 60 && n <= 1000 + 70);
    CHECK(allowed(1, 1000, USEC_PER_SEC / 20) == 50); /* a burst, whatever the rate */
    int64_t used_ns = allowance_take(ALLOWANCE_FRESH, &a, 1, 5);
    CHECK(used_ns != ALLOWANCE_FRESH && used_ns < 5000);         /* what was not used is not lost */
    CHECK(allowance_take(ALLOWANCE_FRESH, &a, 16, 5) < used_ns); /* those that burst may */
}

/* 1,000 requests/s of 100, a batch of 8: after the burst they come four by four. */
static void an_allowance_that_is_used_up_comes_back_with_half_a_batch(void)
{
    const struct allowance a = {.rate_rps = 100, .batch = 8};
    int64_t used_ns = ALLOWANCE_FRESH;
    uint32_t n = 0, together = 0, others = 0;

    for (usec_t at_us = 0; at_us < 10 * USEC_PER_SEC; at_us += 1000) {
        int64_t next_ns = allowance_take(used_ns, &a, 1, at_us);
        if (next_ns == ALLOWANCE_FRESH) {
            others += together != 0 && together != 4 && n > 80;
            together = 0;
            continue;
        }
        used_ns = next_ns;
        together++;
        n++;
    }
    CHECK_EQ(others, 0);
    CHECK(n >= 1000 + 55 && n <= 1000 + 70); /* as many as one by one */
}

int main(void)
{
    RUN(a_steady_rate_is_found_and_then_nothing_happens);
    RUN(where_a_plan_does_not_hold_for_all_a_little_less_is_planned_for_soon);
    RUN(a_step_is_seen_within_a_second);
    RUN(a_large_step_of_what_came_evenly_is_seen_at_once_and_for_what_it_is);
    RUN(a_step_from_silence_is_seen_within_a_second);
    RUN(a_rate_that_falls_is_followed_later_than_one_that_rises);
    RUN(a_ramp_is_followed_in_steps);
    RUN(a_flash_crowd_is_served_and_given_up_again);
    RUN(silence_gives_the_share_back);
    RUN(a_declared_rate_is_a_floor);
    RUN(bursts_that_come_again_do_not_make_plans_go_back_and_forth);
    RUN(single_requests_do_not_move_anything);
    RUN(one_burst_at_once_is_no_rate);
    RUN(a_late_sample_is_spread_over_the_time_since_the_last);
    RUN(burstiness_is_that_of_the_arrivals);
    RUN(a_rate_that_has_changed_is_no_burst);
    RUN(what_there_was_no_room_for_is_asked_for_once);
    RUN(what_is_planned_between_two_rises_is_no_habit);
    RUN(nobody_has_more_before_all_have_what_they_declared);
    RUN(within_their_bands_no_gpulet_is_too_busy);
    RUN(a_gpulet_that_promises_nothing_has_no_room);
    RUN(an_allowance_is_a_rate_and_one_burst);
    RUN(an_allowance_that_is_used_up_comes_back_with_half_a_batch);
    return check_end();
}
