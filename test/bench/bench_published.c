/* The published cases, planned by their authors' policy and by ours, and replayed.
 *
 *     bench_published [SECONDS]     of each replay; 120
 *
 *   iGniter   12 workloads on V100s under its own rules (half of the SLO, paced): published 6
 *             devices; then the same workloads with Poisson arrivals and 1 % of violations
 *             allowed, where its plan for paced arrivals is replayed beside
 *   ParvaGPU  its six scenarios on A100s (0.45 of the SLO, paced): published 2 3 5 7 13 17
 *
 * `worst` is the workload with the most violations (late, dropped, rejected or lost, over what
 * was offered) in any of three replays, seeds 1 to 3; the first 5 s are not counted. */
#include "../problem_file.h"
#include <gpulet/replay.h>
#include <time.h>

#define SEEDS 3
#define WARMUP_S 5

static usec_t replay_s = 120;

struct outcome {
    uint32_t devices, met;
    bool valid;
    double bound, ms, worst_paced, worst_poisson;
    const char *who_paced, *who_poisson;
};

static double now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const char *what, const struct err *err)
{
    printf("# %s: %s\n", what, err->msg);
    exit(1);
}

/* The worst workload of one plan under one kind of arrivals. */
static double worst(const struct problem *p, const struct plan *plan, const struct policy *by,
                    enum replay_kind kind, const char **who)
{
    struct replay_load load[64] = {0};
    double most = -1;

    assert(p->n_models <= ARRAY_SIZE(load));
    for (uint32_t m = 0; m < p->n_models; m++)
        load[m] = (struct replay_load){.kind = kind, .rate_rps = -1};
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct replay_config cfg = {.problem = p,
                                    .plan = plan,
                                    .policy = by,
                                    .load = load,
                                    .seed = seed,
                                    .duration_us = (replay_s + WARMUP_S) * USEC_PER_SEC,
                                    .warmup_us = WARMUP_S * USEC_PER_SEC};
        struct replay_result res = {0};
        struct err err = {0};
        struct arena a;

        arena_init(&a);
        if (replay_run(&cfg, &a, &res, &err) < 0)
            die(by->name, &err);
        for (uint32_t m = 0; m < res.n_models; m++) {
            double part = 1 - (double)res.model[m].in_time / (double)MAX(res.model[m].offered, 1u);
            if (part > most) {
                most = part;
                *who = p->model[m].name;
            }
        }
        arena_done(&a);
    }
    return most;
}

static struct outcome measure(const struct problem *p, const char *policy)
{
    const struct policy *by;
    struct outcome o = {0};
    struct plan plan = {0};
    struct err err = {0};
    struct arena a;

    arena_init(&a);
    if (policy_find(policy, &by, &err) < 0)
        die(policy, &err);
    double from_ms = now_ms();
    if (by->plan_make(p, NULL, &a, &plan, &err) < 0)
        die(policy, &err);
    o.ms = now_ms() - from_ms;
    for (uint32_t m = 0; m < plan.n_models; m++)
        o.met += plan.verdict[m].limit == LIMIT_NONE;
    o.devices = plan_devices_used(p, &plan, &a);
    o.valid = plan_check(p, NULL, &plan, &err) == 0;
    o.bound = plan.bound;
    o.worst_paced = worst(p, &plan, by, REPLAY_PACED, &o.who_paced);
    o.worst_poisson = worst(p, &plan, by, REPLAY_POISSON, &o.who_poisson);
    arena_done(&a);
    return o;
}

static uint32_t row(const char *file, const char *policy)
{
    struct arena a;

    arena_init(&a);
    struct problem p = problem_file(&a, file);
    struct outcome o = measure(&p, policy);
    printf("%-20s %-9s %7u %3u/%-3u %5s %7.3f %8.2f   %7.3f %% %-12s %7.3f %% %s\n", file, policy,
           o.devices, o.met, p.n_models, o.valid ? "yes" : "NO", o.bound, o.ms, 100 * o.worst_paced,
           o.who_paced, 100 * o.worst_poisson, o.who_poisson);
    (void)fflush(stdout);
    arena_done(&a);
    return o.devices;
}

int main(int argc, char **argv)
{
    static const char *const parva[] = {"S1", "S2", "S3", "S4", "S5", "S6"};
    uint32_t ours = 0, theirs = 0;
    char file[32];

    if (argc > 1)
        replay_s = strtoul(argv[1], NULL, 10);
    printf("%-20s %-9s %7s %7s %5s %7s %8s   %-22s %s\n", "problem", "policy", "devices", "met",
           "valid", "bound", "plan ms", "worst, paced", "worst, Poisson");
    (void)row("igniter-12", "igniter");
    (void)row("igniter-12", "gpuletd");
    (void)row("igniter-12-poisson", "gpuletd");
    for (uint32_t i = 0; i < ARRAY_SIZE(parva); i++) {
        (void)snprintf(file, sizeof(file), "parva-%s-mig", parva[i]);
        theirs += row(file, "parva");
        (void)snprintf(file, sizeof(file), "parva-%s", parva[i]);
        ours += row(file, "gpuletd");
    }
    printf("ParvaGPU's scenarios together: published 47, its policy here %u, gpuletd %u\n", theirs,
           ours);
    return 0;
}
