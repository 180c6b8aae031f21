/* The largest rate that each policy serves on four devices with at most 1 % of violations: five
 * sets of models at equal rates and two applications (gpu-lets, ATC'22, section 6.2).
 *
 *     bench_scenarios [RULE [ARRIVALS [SCENARIO [POLICY]]]]
 *         cycle | queue, paced | poisson, 0: all of them, one by name
 *
 * A rate counts when the policy claims to serve every model, plan_check() agrees under the rule,
 * and the replay of 60 s of Poisson arrivals (seed 1, first 5 s not counted) has at most 1 % of
 * all requests late, dropped, rejected or lost.  Rates go down in steps of 5 % from where nothing
 * is served, as a policy may fail at a rate and serve a higher one; the step is then halved six
 * times.  The gpu-lets policies raise rates as their release does.
 *
 * Figures are requests/s over all models; of an application its own requests/s, each of which asks
 * every model once, with the SLO for each model that the release gives it; a request of `traffic`
 * asks its models one after the other, which the replay does not know: each stands for itself. */
#include "../problem_file.h"
#include <gpulet/replay.h>
#include <math.h>

#define MOST 8 /* models of a scenario */
#define RATE_MOST 2000.0
#define RATE_LEAST 2.0
#define STEP 1.05

struct scenario {
    const char *name;
    bool application;
    struct {
        const char *model;
        usec_t slo_us; /* 0: the model's own */
    } of[MOST];
};

static const struct scenario scenarios[] = {
    {"game",
     true,
     {{"lenet1", 95000},
      {"lenet2", 95000},
      {"lenet3", 95000},
      {"lenet4", 95000},
      {"lenet5", 95000},
      {"lenet6", 95000},
      {"resnet50", 95000}}},
    {"traffic", true, {{"ssd-mobilenetv1", 69000}, {"googlenet", 67000}, {"vgg16", 67000}}},
    {"scen1", false, {{"mobilenet_v2", 0}, {"bert", 0}, {"mnasnet1_0", 0}, {"googlenet", 0}}},
    {"scen2", false, {{"densenet161", 0}, {"vgg16", 0}}},
    {"scen3", false, {{"mobilenet_v2", 0}, {"resnet50", 0}, {"vgg16", 0}}},
    {"scen4", false, {{"ssd-mobilenetv1", 0}, {"mnasnet1_0", 0}, {"densenet161", 0}}},
    {"scen5", false, {{"lenet1", 0}, {"ssd-mobilenetv1", 0}, {"mnasnet1_0", 0}, {"vgg16", 0}}},
};

struct run {
    struct problem p;
    struct plan_model model[MOST];
    const struct policy *by;
    enum arrivals planned_for; /* what planners are told; replayed is Poisson */
    uint32_t refuted;          /* plans that were claimed and failed the check */
    void *memory;
};
#define MEMORY (256u << 20)

static const struct plan_model *named(const struct problem *all, const char *name)
{
    for (uint32_t m = 0; m < all->n_models; m++)
        if (STREQ(all->model[m].name, name))
            return &all->model[m];
    printf("# there is no model %s\n", name);
    exit(1);
}

static void scenario_set(struct run *r, const struct problem *all, const struct scenario *s)
{
    r->p.n_models = 0;
    r->p.model = r->model;
    for (; r->p.n_models < MOST && s->of[r->p.n_models].model; r->p.n_models++) {
        struct plan_model *m = &r->model[r->p.n_models];
        *m = *named(all, s->of[r->p.n_models].model);
        m->arrivals = r->planned_for;
        if (s->of[r->p.n_models].slo_us)
            m->slo_us = s->of[r->p.n_models].slo_us;
    }
}

static bool claims_all(const struct plan *plan)
{
    for (uint32_t m = 0; m < plan->n_models; m++)
        if (plan->verdict[m].limit != LIMIT_NONE)
            return false;
    return true;
}

/* Part of all requests that were not answered in time. */
static double violated(const struct run *r, const struct plan *plan, struct arena *a)
{
    struct replay_load load[MOST];
    struct replay_config cfg = {.problem = &r->p,
                                .plan = plan,
                                .load = load,
                                .policy = r->by,
                                .seed = 1,
                                .duration_us = 65 * USEC_PER_SEC,
                                .warmup_us = 5 * USEC_PER_SEC};
    struct replay_result res = {0};
    struct err err = {0};
    double offered = 0, in_time = 0;

    for (uint32_t m = 0; m < r->p.n_models; m++)
        load[m] = (struct replay_load){.kind = REPLAY_POISSON, .rate_rps = -1};
    if (replay_run(&cfg, a, &res, &err) < 0) {
        printf("# %s: %s\n", r->by->name, err.msg);
        exit(1);
    }
    for (uint32_t m = 0; m < res.n_models; m++) {
        offered += (double)res.model[m].offered;
        in_time += (double)res.model[m].in_time;
    }
    return offered > 0 ? 1 - in_time / offered : 0;
}

static bool serves(struct run *r, double rate_rps)
{
    struct plan plan = {0};
    struct err err = {0};
    struct arena a;
    bool ok = false;

    for (uint32_t m = 0; m < r->p.n_models; m++)
        r->model[m].rate_rps = rate_rps;
    arena_init_fixed(&a, r->memory, MEMORY);
    if (r->by->plan_make(&r->p, NULL, &a, &plan, &err) < 0 || !claims_all(&plan))
        return false;
    if (plan_check(&r->p, NULL, &plan, &err) < 0)
        r->refuted++;
    else {
        struct arena heap;
        arena_init(&heap);
        ok = violated(r, &plan, &heap) <= 0.01;
        arena_done(&heap);
    }
    return ok;
}

static double largest_rate(struct run *r)
{
    double rate = RATE_MOST, step = STEP;

    while (rate > RATE_LEAST && !serves(r, rate))
        rate /= STEP;
    if (rate <= RATE_LEAST)
        return 0;
    for (uint32_t i = 0; i < 6; i++) {
        step = sqrt(step);
        if (serves(r, rate * step))
            rate *= step;
    }
    return rate;
}

int main(int argc, char **argv)
{
    const char *rule = argc > 1 ? argv[1] : "cycle";
    const char *how = argc > 2 ? argv[2] : "paced";
    uint32_t only = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    struct arena file;
    struct run r = {.memory = malloc(MEMORY)};

    arena_init(&file);
    struct problem all = problem_file(&file, "gpulet");
    r.p = all;
    r.p.rules.rule = STREQ(rule, "queue") ? RULE_QUEUE : RULE_CYCLE;
    r.planned_for = STREQ(how, "paced") ? ARRIVALS_PACED : ARRIVALS_POISSON;
    printf(
        "largest rate with at most 1 %% of violations, rule %s, planned for %s arrivals; refuted: "
        "plans that the check refused\n%-14s",
        rule, how, "policy");
    for (uint32_t s = 0; s < ARRAY_SIZE(scenarios); s++)
        printf(" %7s", scenarios[s].name);
    printf(" %7s %8s\n", "mean", "refuted");
    for (uint32_t i = 0; policy_at(i); i++) {
        double logs = 0;
        r.by = policy_at(i);
        if (argc > 4 && !STREQ(argv[4], r.by->name))
            continue;
        r.refuted = 0;
        printf("%-14s", r.by->name);
        for (uint32_t s = 0; s < ARRAY_SIZE(scenarios); s++) {
            if (only && only != s + 1)
                continue;
            scenario_set(&r, &all, &scenarios[s]);
            double rate = largest_rate(&r);
            rate *= scenarios[s].application ? 1 : r.p.n_models;
            logs += log(rate);
            printf(" %7.0f", rate);
            (void)fflush(stdout);
        }
        printf(" %7.0f %8u\n", exp(logs / (only ? 1 : ARRAY_SIZE(scenarios))), r.refuted);
    }
    free(r.memory);
    arena_done(&file);
    return 0;
}
