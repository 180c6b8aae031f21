#include "../check.h"

#include <gpulet/queue.h>
#include <gpulet/replay.h>
#include <math.h>

/* Run times of one profile, by rows; any model of these tests uses it. */
static uint32_t batches[64], units[] = {1};
static usec_t runs[64];
static double utilisation[64];
static struct profile profile;
static struct plan_type type;
static struct plan_device device[4];
static struct plan_model model[4];
static struct plan_share share[8];
static struct plan_gpulet let[8];
static struct problem problem;
static struct plan plan;
static struct replay_config cfg;
static struct replay_result result;
static struct arena arena;

/* A run of b rows takes base + each * b us. */
static void set_up(usec_t base_us, usec_t each_us)
{
    for (uint32_t i = 0; i < 64; i++) {
        batches[i] = i + 1;
        runs[i] = base_us + each_us * (i + 1);
        utilisation[i] = 0.5;
    }
    profile = (struct profile){.n_batch = 64,
                               .n_units = 1,
                               .batch = batches,
                               .units = units,
                               .run_us = runs,
                               .l2 = utilisation,
                               .dram = utilisation};
    type = (struct plan_type){
        .name = "t", .n_granules = 4, .granule_units = 1, .predict = {.units = 4}};
    memset(let, 0, sizeof(let));
    memset(share, 0, sizeof(share));
    memset(device, 0, sizeof(device));
    for (uint32_t i = 0; i < 4; i++) {
        device[i].name = "d";
        model[i] = (struct plan_model){
            .name = "m", .arrivals = ARRIVALS_POISSON, .max_batch = 64, .profile = &profile};
    }
    problem = (struct problem){.n_types = 1,
                               .n_devices = 1,
                               .n_models = 1,
                               .type = &type,
                               .device = device,
                               .model = model};
    plan = (struct plan){.gpulet = let, .n_models = 1};
    cfg = (struct replay_config){.problem = &problem,
                                 .plan = &plan,
                                 .policy = policy_at(0),
                                 .seed = 7,
                                 .duration_us = 10 * USEC_PER_SEC};
    arena_done(&arena);
    arena_init(&arena);
}

/* One more gpu-let, with one share. */
static void add_let(uint32_t on_device, uint32_t of_model, uint32_t batch)
{
    uint32_t k = plan.n_gpulets++;

    share[k] = (struct plan_share){
        .model = of_model, .batch = batch, .rate_rps = model[of_model].rate_rps};
    let[k] =
        (struct plan_gpulet){.device = on_device, .units = 1, .n_shares = 1, .share = &share[k]};
    let[k].set.bits[0] = UINT64_C(1) << k % 4;
}

static const struct replay_model *replay(void)
{
    struct err err = {0};

    CHECK_EQ(replay_run(&cfg, &arena, &result, &err), 0);
    CHECK_STR(err.msg, "");
    for (uint32_t m = 0; m < result.n_models; m++) {
        const struct replay_model *r = &result.model[m];
        CHECK_EQ(r->offered, r->in_time + r->late + r->dropped + r->rejected + r->lost);
        CHECK_EQ(r->latency.count, r->in_time + r->late);
    }
    return &result.model[0];
}

static bool near(double a, double b, double part)
{
    if (fabs(a - b) <= part * fabs(b))
        return true;
    printf("# %g is not within %g of %g\n", a, part, b);
    return false;
}

static double mean_us(const struct hist *h)
{
    return (double)h->sum_us / (double)h->count;
}

/* ---- known answers */

/* Pollaczek-Khinchine for a constant run D: mean wait = rho D / (2 (1 - rho)). */
static void m_d_1_waits_as_long_as_pollaczek_and_khinchine_say(void)
{
    for (uint32_t i = 0; i < 3; i++) {
        double rho = 0.5 + 0.2 * i;
        set_up(1000, 0);
        model[0].rate_rps = 1000 * rho;
        cfg.queue_max = 1000000;
        cfg.duration_us = 4000 * USEC_PER_SEC;
        add_let(0, 0, 1);
        const struct replay_model *m = replay();
        CHECK(near(mean_us(&m->latency) - 1000, rho * 1000 / (2 * (1 - rho)), 0.01));
        CHECK(near(result.gpulet_busy[0], rho, 0.01));
    }
}

/* Bulk service with a cap (Bailey, 1954): runs of D whatever their size, at most c of them.  The
 * number waiting after an arrival-free instant has no closed form for this work-conserving kind, so
 * the mean is checked against its balance equations, solved here by brute force. */
static double bulk_mean_us(double lambda, uint32_t cap, double run_us, double each_us)
{
    enum { N = 400 };
    static double p[N], q[N];
    double waits = 0, requests = 0;

    memset(p, 0, sizeof(p));
    p[1] = 1;
    for (int step = 0; step < 3000; step++) {
        memset(q, 0, sizeof(q));
        waits = requests = 0;
        for (uint32_t n = 1; n < N; n++) {
            uint32_t b = n < cap ? n : cap, left = n - b;
            double us = run_us + each_us * b, m = lambda * us, a = exp(-m);
            for (uint32_t k = 0; p[n] > 1e-14 && left + k < N && k < 200; a *= m / ++k)
                q[left + k ? left + k : 1] += p[n] * a;
            /* Sojourn by Little's law: the integral of the number present over the run, those
             * in service included, and over the idle time after it (none present). */
            waits += p[n] * (n * us + lambda * us * us / 2);
            requests += p[n] * (m + (left == 0 ? exp(-m) : 0));
        }
        memcpy(p, q, sizeof(p));
    }
    return waits / requests;
}

static void batches_are_served_as_the_balance_equations_say(void)
{
    static const double rates[] = {0.002, 0.004, 0.0055};

    for (uint32_t i = 0; i < 3; i++) {
        set_up(1000, 50); /* 8 rows take 1400: at most 5714 requests/s */
        model[0].rate_rps = rates[i] * 1e6;
        cfg.queue_max = 1000000;
        cfg.duration_us = 300 * USEC_PER_SEC;
        add_let(0, 0, 8);
        const struct replay_model *m = replay();
        CHECK(near(mean_us(&m->latency), bulk_mean_us(rates[i], 8, 1000, 50), 0.01));
    }
}

/* Requests paced at 5 ms, runs of 1 ms: nobody waits. */
static void paced_requests_do_not_meet(void)
{
    set_up(1000, 0);
    model[0].rate_rps = 200;
    model[0].slo_us = 1000;
    model[0].arrivals = ARRIVALS_PACED;
    add_let(0, 0, 8);
    const struct replay_model *m = replay();
    CHECK_EQ(m->offered, 2000);
    CHECK_EQ(m->in_time, 2000);
    CHECK_EQ(m->latency.max_us, 1000);
    CHECK(near(result.gpulet_busy[0], 0.2, 0.001));
    CHECK(near(result.device_s, 10, 1e-9));
}

/* ---- arrivals */

/* A million requests: the largest standard error is that of on/off, 50,000 phases, 0.5 %. */
static void each_kind_of_arrivals_keeps_its_mean_rate(void)
{
    static const struct replay_load loads[] = {
        {.kind = REPLAY_PACED, .rate_rps = 100},
        {.kind = REPLAY_POISSON, .rate_rps = 100},
        {.kind = REPLAY_GAMMA, .rate_rps = 100, .cv = 4},
        {.kind = REPLAY_GAMMA, .rate_rps = 100, .cv = 0.3},
        {.kind = REPLAY_ONOFF, .rate_rps = 100, .on_s = 0.05, .off_s = 0.15},
        {.kind = REPLAY_DIURNAL, .rate_rps = 100, .period_s = 10, .swing = 0.8},
    };

    for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
        set_up(1, 0);
        cfg.load = &loads[i];
        cfg.duration_us = 10000 * USEC_PER_SEC;
        add_let(0, 0, 1);
        const struct replay_model *m = replay();
        CHECK(near((double)m->offered, 1e6, 0.02));
    }
}

/* G/D/1 with run D at load 0.5: burstier arrivals wait longer, more even ones shorter. */
static void burstier_arrivals_wait_longer(void)
{
    static const double cvs[] = {0.3, 1, 2, 4};
    double last = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cvs); i++) {
        struct replay_load load = {.kind = REPLAY_GAMMA, .rate_rps = 500, .cv = cvs[i]};
        set_up(1000, 0);
        cfg.load = &load;
        cfg.duration_us = 200 * USEC_PER_SEC;
        cfg.queue_max = 100000;
        add_let(0, 0, 1);
        double us = mean_us(&replay()->latency);
        CHECK(us > last * 1.05);
        if (cvs[i] == 1) /* gamma gaps of cv 1 are Poisson: M/D/1 at 0.5 */
            CHECK(near(us, 1500, 0.02));
        last = us;
    }
}

static void a_trace_is_followed_and_can_be_sped_up(void)
{
    static const usec_t at[] = {0, 1000, 1000, 5000, 9000000};
    struct replay_load load = {.kind = REPLAY_TRACE, .n_trace = 5, .trace_us = at};

    set_up(100, 0);
    cfg.load = &load;
    cfg.duration_us = 8 * USEC_PER_SEC;
    add_let(0, 0, 1);
    const struct replay_model *m = replay();
    CHECK_EQ(m->offered, 4);          /* the fifth is after the end */
    CHECK_EQ(m->latency.sum_us, 500); /* of the two at once one waits for the other */
    load.speed = 10;
    arena_done(&arena);
    CHECK_EQ(replay()->offered, 5);
}

static void a_rate_step_changes_the_rate_from_then_on(void)
{
    static const struct replay_event event[] = {
        {.at_us = 4000000, .kind = REPLAY_RATE, .model = 0, .factor = 3},
        {.at_us = 6000000, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 0},
        {.at_us = 9000000, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 1}};

    set_up(100, 0);
    model[0].rate_rps = 100;
    model[0].arrivals = ARRIVALS_PACED;
    cfg.event = event;
    cfg.n_events = 3;
    add_let(0, 0, 1);
    CHECK(near((double)replay()->offered, 4 * 100 + 2 * 300 + 0 + 1 * 100, 0.005));
}

/* ---- failures */

/* Runs of 10 ms one after the other, no SLO: at 5.005 s one is in flight. */
static void a_device_that_vanishes_loses_exactly_its_runs_in_flight(void)
{
    static const struct replay_event event[] = {
        {.at_us = 5005000, .kind = REPLAY_FAIL, .device = 0},
        {.at_us = 6000000, .kind = REPLAY_HEAL, .device = 0}};

    set_up(10000, 0);
    problem.n_devices = 2;
    model[0].rate_rps = 300; /* 1.5 of what both can run one by one: always busy */
    model[0].arrivals = ARRIVALS_PACED;
    cfg.event = event;
    cfg.n_events = 2;
    add_let(0, 0, 2);
    add_let(1, 0, 2);
    const struct replay_model *m = replay();
    CHECK(m->lost >= 1 && m->lost <= 2); /* one run of at most two rows */
    CHECK_EQ(m->in_time + m->lost, m->offered);
    CHECK(result.gpulet_busy[0] < 0.95 && result.gpulet_busy[1] > 0.95);
}

/* Alone, what waits is dropped when late, what comes meanwhile is rejected. */
static void without_another_device_requests_wait_and_are_dropped_when_late(void)
{
    static const struct replay_event event[] = {
        {.at_us = 5000000, .kind = REPLAY_FAIL, .device = 0}};

    set_up(10000, 0);
    model[0].rate_rps = 100;
    model[0].slo_us = 50000;
    model[0].arrivals = ARRIVALS_POISSON;
    cfg.event = event;
    cfg.n_events = 1;
    add_let(0, 0, 1);
    const struct replay_model *m = replay();
    CHECK(m->lost <= 1);
    CHECK(m->dropped >= 1 && m->dropped <= 10);
    CHECK(near((double)m->rejected, 500, 0.5));
    set_up(10000, 0); /* the same without an SLO: it waits for ever */
    model[0].rate_rps = 99;
    cfg.event = event;
    cfg.n_events = 1;
    add_let(0, 0, 1);
    m = replay();
    CHECK(m->lost > 1);
    CHECK_EQ(m->dropped, 0);
}

/* ---- the device */

/* f = 1.5 beside a neighbour in flight: c5 = 1.5, nothing else. */
static void neighbours_in_flight_make_runs_longer(void)
{
    for (int alone = 0; alone < 2; alone++) {
        set_up(1000, 0);
        type.predict.interference =
            (struct interference){.kind = INTERFERE_GPULET, .c = {0, 0, 0, 0, 1.5}};
        problem.n_models = plan.n_models = 2;
        for (int i = 0; i < 2; i++) {
            model[i].arrivals = ARRIVALS_PACED;
            model[i].rate_rps = i ? 10 : 2000; /* the first is always busy */
        }
        cfg.alone = alone;
        add_let(0, 0, 64);
        add_let(0, 1, 1);
        (void)replay();
        CHECK_EQ(result.model[1].latency.max_us, alone ? 1000 : 1500);
        CHECK_EQ(result.model[1].latency.sum_us / result.model[1].latency.count,
                 alone ? 1000 : 1500);
    }
}

/* Two streams: two runs of 2 ms (what the table says for two at once) side by side. */
static void streams_run_side_by_side(void)
{
    set_up(1000, 0);
    model[0].rate_rps = 900;
    model[0].arrivals = ARRIVALS_PACED;
    add_let(0, 0, 1);
    share[0].streams = 2; /* twice the work at once: 2 ms each */
    const struct replay_model *m = replay();
    CHECK_EQ(m->latency.max_us, 2000); /* the second starts 1.1 ms after the first */
    CHECK(near(result.gpulet_busy[0], 1, 0.001));
}

/* No neighbour, SLO long: what the noise adds to M/D/1 is the variance of the run (M/G/1). */
static void noise_has_the_variance_that_was_asked_for(void)
{
    set_up(1000, 0);
    model[0].rate_rps = 500;
    cfg.noise = 1;
    cfg.queue_max = 100000;
    cfg.duration_us = 4000 * USEC_PER_SEC;
    add_let(0, 0, 1);
    /* wait = lambda E[S^2] / (2 (1 - rho)) = 500e-6 x 2e6 / 1 = 1000 */
    CHECK(near(mean_us(&replay()->latency), 2000, 0.03));
}

/* ---- bookkeeping */
static void same_seed_same_bytes_other_seed_other_bytes(void)
{
    static struct replay_model first;

    for (uint64_t i = 0; i < 3; i++) {
        set_up(1000, 50);
        model[0].rate_rps = 3000;
        model[0].slo_us = 3000;
        cfg.seed = 7 + i / 2;
        cfg.noise = 0.1;
        add_let(0, 0, 8);
        const struct replay_model *m = replay();
        if (i == 0)
            first = *m;
        CHECK((memcmp(&first, m, sizeof(first)) == 0) == (i < 2));
    }
}

static void the_warm_up_is_not_counted(void)
{
    set_up(1000, 0);
    model[0].rate_rps = 100;
    model[0].arrivals = ARRIVALS_PACED;
    cfg.warmup_us = 9 * USEC_PER_SEC;
    add_let(0, 0, 1);
    CHECK_EQ(replay()->offered, 100);
    CHECK(near(result.gpulet_busy[0], 0.1, 0.01));
    CHECK(near(result.device_s, 1, 1e-9));
}

static void merged_histograms_are_that_of_all(void)
{
    static struct hist a, b, both;

    for (usec_t i = 1; i <= 1000; i++) {
        hist_add(i % 3 ? &a : &b, i * i);
        hist_add(&both, i * i);
    }
    hist_merge(&a, &b);
    CHECK(memcmp(&a, &both, sizeof(a)) == 0);
    CHECK(near((double)hist_quantile(&a, 0.99), 990 * 990, 1.0 / 32));
}

static uint32_t pick(uint32_t n)
{
    static uint64_t x = 99;

    x = x * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(x >> 33) % n;
}

/* Anything may happen; every request offered has one fate, and the same again. */
static void random_plans_under_random_events_keep_their_books(void)
{
    static struct replay_load load[4];
    static struct replay_event event[6];

    for (int k = 0; k < 300; k++) {
        usec_t each_us = pick(300);
        set_up(200 + pick(3000), each_us);
        type.predict.interference =
            (struct interference){.kind = INTERFERE_GPULET, .c = {0.1, 0.2, 0.1, 0.2, 1}};
        type.predict.link_bps = pick(2) ? 1e9 : 0;
        profile.in_bytes = 1e5;
        problem.n_devices = 1 + pick(3);
        problem.n_models = plan.n_models = 1 + pick(4);
        for (uint32_t m = 0; m < problem.n_models; m++) {
            model[m].rate_rps = 1 + pick(3000);
            model[m].slo_us = pick(4) ? 2000 + pick(50000) : 0;
            model[m].priority = (int32_t)pick(3);
            load[m] = (struct replay_load){.kind = pick(REPLAY_TRACE),
                                           .rate_rps = -1,
                                           .cv = 0.5 + pick(5),
                                           .on_s = 0.1,
                                           .off_s = 0.2,
                                           .period_s = 1,
                                           .swing = 0.9};
            model[m].arrivals = pick(ARRIVALS_TRACE + 1);
            model[m].cv = load[m].cv;
        }
        for (uint32_t j = 0, n = 1 + pick(8); j < n; j++) {
            uint32_t d = pick(problem.n_devices), m = pick(problem.n_models);
            add_let(d, m, 1 + pick(32));
            share[j].streams = pick(4);
            if (j > 0 && pick(3) == 0) { /* two models in one gpu-let */
                let[j - 1].n_shares = 2;
                plan.n_gpulets--;
                break;
            }
        }
        for (uint32_t e = 0; e < 6; e++)
            event[e] = (struct replay_event){.at_us = 300000 * e + pick(300000),
                                             .kind = pick(3),
                                             .model = pick(problem.n_models),
                                             .factor = pick(4),
                                             .device = pick(problem.n_devices)};
        cfg.load = load;
        cfg.event = event;
        cfg.n_events = pick(7);
        cfg.noise = pick(2) * 0.2;
        cfg.queue_max = 1 + pick(500);
        cfg.duration_us = 2 * USEC_PER_SEC;
        cfg.warmup_us = pick(2) * 500000;
        (void)replay(); /* checks the books */
        uint64_t events = result.events;
        for (uint32_t g = 0; g < result.n_gpulets; g++)
            CHECK(result.gpulet_busy[g] >= 0 && result.gpulet_busy[g] <= 1);
        (void)replay();
        CHECK_EQ(result.events, events);
    }
}

static void what_is_wrong_is_named(void)
{
    struct err err = {0};

    set_up(1000, 0);
    model[0].name = "resnet";
    add_let(0, 0, 1);
    share[0].batch = 0;
    CHECK_EQ(replay_run(&cfg, &arena, &result, &err), -EINVAL);
    CHECK_HAS(err.msg, "gpu-let 0: a batch of 0 for model 'resnet'");
    share[0].batch = 1;
    let[0].device = 9;
    CHECK_EQ(replay_run(&cfg, &arena, &result, &err), -EINVAL);
    CHECK_HAS(err.msg, "there is no device 9");
    let[0].device = 0;
    struct replay_load load = {.kind = REPLAY_GAMMA, .rate_rps = 1, .cv = 0};
    cfg.load = &load;
    CHECK_EQ(replay_run(&cfg, &arena, &result, &err), -EINVAL);
    CHECK_HAS(err.msg, "a cv of 0");
    cfg.load = NULL;
    cfg.warmup_us = cfg.duration_us + 1;
    CHECK_EQ(replay_run(&cfg, &arena, &result, &err), -EINVAL);
    CHECK_HAS(err.msg, "warm-up");
}

/* ---- arrivals as a list */

static void a_list_of_arrivals_is_what_a_replay_is_offered(void)
{
    static const struct replay_load loads[] = {
        {.kind = REPLAY_PACED, .rate_rps = 100},
        {.kind = REPLAY_POISSON, .rate_rps = 100},
        {.kind = REPLAY_GAMMA, .rate_rps = 100, .cv = 4},
        {.kind = REPLAY_ONOFF, .rate_rps = 100, .on_s = 1, .off_s = 1},
        {.kind = REPLAY_DIURNAL, .rate_rps = 100, .period_s = 5, .swing = 0.8},
    };
    static const struct replay_event steps[] = {
        {.at_us = 3000000, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 0},
        {.at_us = 5000000, .kind = REPLAY_RATE, .model = PLAN_NONE, .factor = 3},
    };

    for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
        usec_t *at_us = NULL;
        size_t n = 0, early = 0, pause = 0;
        struct err err = {0};
        set_up(100, 10);
        add_let(0, 0, 64);
        cfg.load = &loads[i];
        cfg.event = steps;
        cfg.n_events = 2;
        CHECK_EQ(replay_arrivals(&cfg, 0, 100000, &arena, &at_us, &n, &err), 0);
        CHECK_EQ(n, replay()->offered);
        CHECK(n > 500);
        for (size_t k = 0; k < n; k++) {
            CHECK(k == 0 || at_us[k] >= at_us[k - 1]);
            early += at_us[k] < 3000000;
            pause += at_us[k] >= 3000000 && at_us[k] < 5000000;
        }
        CHECK(early > 0);
        CHECK_EQ(pause, 0);
        CHECK_EQ(replay_arrivals(&cfg, 0, n - 1, &arena, &at_us, &n, &err), -EFBIG);
        CHECK_HAS(err.msg, "model 'm': more than");
    }
}

/* Two models share a gpu-let, one is asked for twenty times what is planned for it. */
static void a_loud_model_has_its_part_and_leaves_the_other_its_own(void)
{
    static const struct replay_load loud[] = {{.kind = REPLAY_POISSON, .rate_rps = 2000},
                                              {.kind = REPLAY_POISSON, .rate_rps = 100}};
    struct err err;

    set_up(2000, 1000);
    problem.n_models = plan.n_models = 2;
    for (uint32_t m = 0; m < 2; m++) {
        model[m].rate_rps = 100;
        model[m].slo_us = 20000;
    }
    add_let(0, 0, 4);
    share[1] = (struct plan_share){.model = 1, .batch = 4, .rate_rps = 100};
    let[0].n_shares = 2;
    let[0].order = ORDER_DEADLINE;
    cfg.load = loud;
    CHECK_EQ(policy_find("gpuletd", &cfg.policy, &err), 0);
    (void)replay();
    CHECK(result.model[1].in_time > 0.97 * result.model[1].offered);
    CHECK(result.model[0].in_time > 0.9 * 100 * 10);
}

#define FULL_RPS 888.9 /* of runs of sixteen, 2 ms and 1 ms for each */

/* Twice what full runs serve, with an SLO of so much and run times that vary by so much. */
static const struct replay_model *too_much(usec_t slo_us, double noise)
{
    enum { BATCH = 16 };
    static const struct replay_load twice = {.kind = REPLAY_POISSON, .rate_rps = 2 * FULL_RPS};
    struct err err;

    set_up(2000, 1000);
    model[0].rate_rps = FULL_RPS;
    model[0].slo_us = slo_us;
    add_let(0, 0, BATCH);
    cfg.load = &twice;
    cfg.noise = noise;
    CHECK_EQ(policy_find("gpuletd", &cfg.policy, &err), 0);
    return replay();
}

/* What fills a run makes those before it no faster: were it admitted, runs would be kept small for
 * whoever is nearly late, or it would be dropped. */
static void what_is_too_much_is_refused_and_all_runs_are_full(void)
{
    for (usec_t slo_us = 40000; slo_us <= 80000; slo_us += 1000) {
        const struct replay_model *r = too_much(slo_us, 0);
        CHECK_EQ(r->dropped + r->late, 0);
        CHECK((double)r->in_time > 0.99 * FULL_RPS * 10);
    }
}

/* Nobody is accepted at the last moment, for whom the next run would then have to be small. */
static void where_runs_take_a_hundredth_more_or_less_all_are_full(void)
{
    for (usec_t slo_us = 40000; slo_us <= 80000; slo_us += 1000) {
        const struct replay_model *r = too_much(slo_us, 0.01);
        CHECK((double)(r->dropped + r->late) < 0.001 * FULL_RPS * 10);
        CHECK((double)r->in_time > 0.99 * FULL_RPS * 10);
    }
}

/* Who is at the head when a run has taken much longer is given up, and those behind it are not. */
static void where_runs_take_a_twentieth_more_or_less_nearly_all_are_full(void)
{
    for (usec_t slo_us = 40000; slo_us <= 80000; slo_us += 1000) {
        const struct replay_model *r = too_much(slo_us, 0.05);
        CHECK((double)r->in_time > 0.97 * FULL_RPS * 10);
    }
}

/* The same two, both at four times what is planned: nobody keeps to his part, so the idle time is
 * theirs.  Who is promised nothing keeps nobody from it. */
static void where_all_ask_for_too_much_what_has_room_is_served(void)
{
    static const struct replay_load loud[] = {{.kind = REPLAY_POISSON, .rate_rps = 400},
                                              {.kind = REPLAY_POISSON, .rate_rps = 400},
                                              {.kind = REPLAY_POISSON, .rate_rps = 50}};
    struct err err;

    for (uint32_t n = 2; n <= 3; n++) {
        set_up(2000, 1000);
        problem.n_models = plan.n_models = n;
        for (uint32_t m = 0; m < n; m++) {
            model[m].rate_rps = 100;
            model[m].slo_us = 40000;
            model[m].best_effort = m == 2;
        }
        add_let(0, 0, 4);
        for (uint32_t m = 1; m < n; m++)
            share[m] = (struct plan_share){.model = m, .batch = 4, .rate_rps = m == 2 ? 0 : 100};
        let[0].n_shares = n;
        let[0].order = ORDER_DEADLINE;
        cfg.load = loud;
        cfg.warmup_us = 3 * USEC_PER_SEC;
        CHECK_EQ(policy_find("gpuletd", &cfg.policy, &err), 0);
        (void)replay();
        for (uint32_t m = 0; m < 2; m++)
            CHECK(result.model[m].in_time > 1.5 * 100 * 7);
    }
}

/* The same two, both a little above it, with room for more than that: who is within his allowance
 * for a moment, as half a batch has been saved, is no reason to refuse the other. */
static void who_asks_for_a_little_too_much_is_not_within_his_part_in_between(void)
{
    static const struct replay_load more[] = {{.kind = REPLAY_POISSON, .rate_rps = 12},
                                              {.kind = REPLAY_POISSON, .rate_rps = 12}};
    struct err err;

    set_up(20000, 10000);
    problem.n_models = plan.n_models = 2;
    for (uint32_t m = 0; m < 2; m++) {
        model[m].rate_rps = 10;
        model[m].slo_us = 400000;
    }
    add_let(0, 0, 4);
    share[1] = (struct plan_share){.model = 1, .batch = 4, .rate_rps = 10};
    let[0].n_shares = 2;
    let[0].order = ORDER_DEADLINE;
    cfg.load = more;
    cfg.duration_us = 400 * USEC_PER_SEC;
    cfg.warmup_us = 100 * USEC_PER_SEC;
    CHECK_EQ(policy_find("gpuletd", &cfg.policy, &err), 0);
    (void)replay();
    for (uint32_t m = 0; m < 2; m++)
        CHECK(result.model[m].in_time > 0.95 * result.model[m].offered);
}

int main(void)
{
    RUN(m_d_1_waits_as_long_as_pollaczek_and_khinchine_say);
    RUN(batches_are_served_as_the_balance_equations_say);
    RUN(paced_requests_do_not_meet);
    RUN(each_kind_of_arrivals_keeps_its_mean_rate);
    RUN(burstier_arrivals_wait_longer);
    RUN(a_trace_is_followed_and_can_be_sped_up);
    RUN(a_rate_step_changes_the_rate_from_then_on);
    RUN(a_device_that_vanishes_loses_exactly_its_runs_in_flight);
    RUN(without_another_device_requests_wait_and_are_dropped_when_late);
    RUN(neighbours_in_flight_make_runs_longer);
    RUN(streams_run_side_by_side);
    RUN(noise_has_the_variance_that_was_asked_for);
    RUN(same_seed_same_bytes_other_seed_other_bytes);
    RUN(the_warm_up_is_not_counted);
    RUN(merged_histograms_are_that_of_all);
    RUN(random_plans_under_random_events_keep_their_books);
    RUN(what_is_wrong_is_named);
    RUN(a_list_of_arrivals_is_what_a_replay_is_offered);
    RUN(a_loud_model_has_its_part_and_leaves_the_other_its_own);
    RUN(who_asks_for_a_little_too_much_is_not_within_his_part_in_between);
    RUN(what_is_too_much_is_refused_and_all_runs_are_full);
    RUN(where_runs_take_a_hundredth_more_or_less_all_are_full);
    RUN(where_runs_take_a_twentieth_more_or_less_nearly_all_are_full);
    RUN(where_all_ask_for_too_much_what_has_room_is_served);
    return check_end();
}
