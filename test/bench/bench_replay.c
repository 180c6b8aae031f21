/* Events a second of the replay on one core: arrivals, starts and ends of runs, timers.
 *
 *   one    a gpu-let, Poisson at 70 %
 *   many   100 devices of 4 gpu-lets, 200 models on 2 gpu-lets each, neighbours disturb
 *   large  1,000 devices of 4 gpu-lets, 2,000 models
 * Median of 5. */
#include <gpulet/clock.h>
#include <gpulet/replay.h>
#include <stdio.h>

#define RUNS 5
#define LETS 4 /* on a device */

static const uint32_t batches[] = {1, 2, 4, 8, 16, 32}, units[] = {1};
static const usec_t run_us[] = {1300, 1600, 2200, 3400, 5800, 10600}; /* 1000 + 300 b */
static const double l2[] = {.1, .1, .2, .2, .3, .3};
static const struct profile profile = {.n_batch = 6,
                                       .n_units = 1,
                                       .batch = batches,
                                       .units = units,
                                       .run_us = run_us,
                                       .l2 = l2,
                                       .dram = l2};

static struct problem problem_make(struct arena *a, uint32_t n_devices, uint32_t n_models,
                                   double rate_rps)
{
    struct plan_type *type = ARENA_NEW(a, struct plan_type);
    struct plan_device *device = ARENA_ARRAY(a, struct plan_device, n_devices);
    struct plan_model *model = ARENA_ARRAY(a, struct plan_model, n_models);

    *type = (struct plan_type){
        .name = "t",
        .n_granules = LETS,
        .granule_units = 1,
        .predict = {.units = LETS,
                    .interference = {.kind = INTERFERE_GPULET, .c = {.1, .3, .2, .1, .95}}}};
    for (uint32_t d = 0; d < n_devices; d++)
        device[d].name = "d";
    for (uint32_t m = 0; m < n_models; m++)
        model[m] = (struct plan_model){.name = "m",
                                       .slo_us = 40000,
                                       .rate_rps = rate_rps,
                                       .arrivals = ARRIVALS_POISSON,
                                       .max_batch = 32,
                                       .profile = &profile};
    return (struct problem){.n_types = 1,
                            .n_devices = n_devices,
                            .n_models = n_models,
                            .type = type,
                            .device = device,
                            .model = model};
}

/* Gpu-let k holds model k mod n_models. */
static struct plan plan_make(struct arena *a, const struct problem *p, uint32_t n_lets)
{
    struct plan_gpulet *g = ARENA_ARRAY(a, struct plan_gpulet, n_lets);

    for (uint32_t k = 0; k < n_lets; k++) {
        g[k] = (struct plan_gpulet){.device = k / LETS % p->n_devices, .units = 1, .n_shares = 1};
        g[k].set.bits[0] = UINT64_C(1) << k % LETS;
        g[k].share = ARENA_NEW(a, struct plan_share);
        uint32_t m = k % p->n_models;
        *g[k].share = (struct plan_share){.model = m,
                                          .batch = 32,
                                          .usual = 8,
                                          .rate_rps = p->model[m].rate_rps * p->n_models / n_lets};
    }
    return (struct plan){.n_gpulets = n_lets, .gpulet = g, .n_models = p->n_models};
}

static double events_per_s(const struct replay_config *cfg, struct replay_result *ret)
{
    struct arena a;
    struct err err = {0};

    arena_init(&a);
    uint64_t t0 = clock_now_ns();
    if (replay_run(cfg, &a, ret, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    double s = (double)(clock_now_ns() - t0) / 1e9;
    ret->model = NULL; /* it was in the arena */
    arena_done(&a);
    return (double)ret->events / s;
}

static void bench(const char *name, uint32_t n_devices, uint32_t n_models, uint32_t n_lets,
                  double rate_rps, double seconds)
{
    struct arena a;
    double speed[RUNS];
    struct replay_result result = {0};

    arena_init(&a);
    struct problem p = problem_make(&a, n_devices, n_models, rate_rps);
    struct plan plan = plan_make(&a, &p, n_lets);
    struct replay_config cfg = {.problem = &p,
                                .plan = &plan,
                                .policy = policy_at(0),
                                .seed = 1,
                                .duration_us = (usec_t)(seconds * 1e6)};
    for (int i = 0; i < RUNS; i++) {
        double s = events_per_s(&cfg, &result);
        int k = i;
        for (; k > 0 && speed[k - 1] > s; k--)
            speed[k] = speed[k - 1];
        speed[k] = s;
    }
    printf("%-6s %5u devices %5u models %5u gpu-lets %10llu events %7.2f million/s\n", name,
           n_devices, n_models, n_lets, (unsigned long long)result.events, speed[RUNS / 2] / 1e6);
    arena_done(&a);
}

int main(void)
{
    bench("one", 1, 1, 1, 2000, 500);
    bench("many", 100, 200, 400, 2000, 3);
    bench("large", 1000, 2000, 4000, 2000, .3);
    return 0;
}
