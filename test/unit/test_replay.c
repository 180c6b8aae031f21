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
        model[i] = (struct plan_model){.name = "m",
                                       .arrivals = ARRIVALS_POISSON,
                                       .max_batch = 64,
                                       .profile = &profile};
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

static bool within(double a, double b, double part)
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
        CHECK(within(mean_us(&m->latency) - 1000, rho * 1000 / (2 * (1 - rho)), 0.01));
        CHECK(within(result.gpulet_busy[0], rho, 0.01));
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
    CHECK(within(result.gpulet_busy[0], 0.2, 0.001));
    CHECK(within(result.device_s, 10, 1e-9));
}

int main(void)
{
    RUN(m_d_1_waits_as_long_as_pollaczek_and_khinchine_say);
    RUN(paced_requests_do_not_meet);
    return check_end();
}
