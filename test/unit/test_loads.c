/* Plans for loads from nothing to far too much, each made from the one before, by every policy:
 * whatever is asked for, what comes out can be run, and the running plan is left as it is. */
#include "../check.h"
#include "../plan/knee.h"
#include "../plan/random_problem.h"

#include <gpulet/policy.h>
#include <lib/plan/plan_priv.h>
#include <lib/plan/published.h>

#ifdef __SANITIZE_ADDRESS__
#define SEEDS 4 /* each takes ten times as long */
#else
#define SEEDS 20
#endif

static struct arena arena;

/* ---- a plan as it was */

static struct plan plan_copied(const struct plan *from)
{
    struct plan p = *from;

    p.gpulet = arena_memdup(&arena, from->gpulet, p.n_gpulets * sizeof(*p.gpulet));
    p.verdict = arena_memdup(&arena, from->verdict, p.n_models * sizeof(*p.verdict));
    for (uint32_t k = 0; k < p.n_gpulets; k++)
        p.gpulet[k].share = arena_memdup(&arena, from->gpulet[k].share,
                                         p.gpulet[k].n_shares * sizeof(struct plan_share));
    return p;
}

static bool plan_is_as(const struct plan *plan, const struct plan *was)
{
    for (uint32_t k = 0; k < was->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k], *old = &was->gpulet[k];
        if (g->device != old->device || g->units != old->units || !set_eq(&g->set, &old->set) ||
            g->n_shares != old->n_shares ||
            (g->n_shares && memcmp(g->share, old->share, g->n_shares * sizeof(*g->share)) != 0))
            return false;
    }
    return plan->n_gpulets == was->n_gpulets &&
           (was->n_models == 0 ||
            memcmp(plan->verdict, was->verdict, was->n_models * sizeof(*was->verdict)) == 0);
}

static uint32_t without_a_row(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            n += plan->gpulet[k].share[i].batch == 0;
    return n;
}

/* ---- our planner */

/* The models of test/bench/under_fire.py, whose loads step, swell and change places. */
static const struct knee fire[] = {
    {60, 20, 60000}, {160, 30, 100000}, {500, 50, 200000}, {100, 24, 80000}};
static const double usual[] = {0.08, 0.06, 0.12, 0.06};
#define FIRE ARRAY_SIZE(fire)

/* Any of them from a third of its usual load to six times that, which all together is twice what
 * the device can do. */
static void fire_changes(uint64_t *s, bool all, struct plan_model *model)
{
    for (uint32_t m = 0; m < FIRE; m++)
        if (all || random_in(s, 2))
            model[m].rate_rps = knee_rps(&fire[m], usual[m] * random_log(s, 0.3, 6));
}

/* A share that no longer holds is given no rows before it is taken out; that was written into the
 * running plan where the first rate that changed had fallen. */
static void what_is_tried_is_not_written_into_the_running_plan(void)
{
    static const struct plan_type type = {
        .name = "t", .n_granules = 66, .granule_units = 2, .predict = {.units = KNEE_UNITS}};
    static const struct plan_device device = {.name = "d"};

    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct plan_model model[FIRE];
        struct problem p = {.n_types = 1,
                            .n_devices = 1,
                            .n_models = FIRE,
                            .type = &type,
                            .device = &device,
                            .model = model,
                            .rules = {.rule = RULE_QUEUE}};
        struct plan was = {0}, before = {0};
        uint64_t s = seed;

        arena_init(&arena);
        for (uint32_t m = 0; m < FIRE; m++)
            model[m] = knee_model(&fire[m], &arena);
        for (int step = 0; step < 6; step++) {
            struct plan now = {0};
            struct err err = {0};
            fire_changes(&s, step == 0, model);
            CHECK_EQ(policy_gpuletd.plan_make(&p, step ? &was : NULL, &arena, &now, &err), 0);
            CHECK_EQ(plan_check(&p, step ? &was : NULL, &now, &err), 0);
            CHECK_STR(err.msg, "");
            CHECK(plan_is_as(&was, &before));
            CHECK_EQ(without_a_row(&was), 0);
            was = now;
            before = plan_copied(&now);
        }
        arena_done(&arena);
    }
}

/* ---- everybody's */

/* As it is, or one device that can be cut freely and models that all promise something: there
 * gpuletd's plans for too much are rehearsed. */
static void problem_random(uint64_t seed, bool free, struct problem *p)
{
    random_problem(seed, RANDOM_HOSTILE, 0, 0, &arena, p);
    struct plan_model *m = (struct plan_model *)(uintptr_t)p->model;
    struct plan_type *t = (struct plan_type *)(uintptr_t)&p->type[p->device[0].type];
    p->rules.rule = (enum plan_rule)(seed % 3);
    for (uint32_t i = 0; p->rules.rule == RULE_QUEUE && i < p->n_models; i++)
        m[i].arrivals = ARRIVALS_POISSON;
    if (!free)
        return;
    p->n_devices = 1;
    p->n_models = MIN(p->n_models, 8);
    p->rules.as_few = false;
    p->rules.max_lets = p->rules.max_shares = 0;
    t->n_places = t->n_sizes = t->max_granules = 0;
    for (uint32_t i = 0; i < p->n_models; i++) {
        m[i].priority = 0;
        m[i].weights_per_let = false;
        m[i].slo_us = m[i].slo_us ? m[i].slo_us : 100000;
        m[i].rate_rps = m[i].rate_rps > 0 ? m[i].rate_rps : 10;
    }
}

/* What others believe of SLOs, queues and neighbours is not asked: where the check refutes it, or
 * cannot tell, the engine plans again without. */
static int check_can_run(const struct problem *problem, struct plan plan, struct err *err)
{
    struct problem p = *problem;
    struct plan_type *t = arena_memdup(&arena, p.type, p.n_types * sizeof(*t));

    for (uint32_t i = 0; i < p.n_types; i++)
        t[i].predict.interference = (struct interference){0};
    p.type = t;
    p.rules.rule = RULE_CYCLE;
    plan.verdict = arena_memdup(&arena, plan.verdict, p.n_models * sizeof(*plan.verdict));
    for (uint32_t m = 0; m < p.n_models; m++)
        plan.verdict[m].limit = LIMIT_UNITS;
    return plan_check(&p, NULL, &plan, err);
}

/* False: it says that it cannot plan this. */
static bool make_next(const struct policy *by, const struct problem *p, const struct plan *was,
                      struct plan *now, struct err *err)
{
    bool ours = by == &policy_ours || by == &policy_gpuletd;
    int r = by->plan_make(p, was, &arena, now, err);

    if (!ours && (r == -E2BIG || r == -ENOTSUP))
        return false;
    CHECK_EQ(r, 0);
    if (r < 0)
        return false;
    CHECK_EQ(without_a_row(now), 0);
    CHECK_EQ(ours ? plan_check(p, was, now, err) : check_can_run(p, *now, err), 0);
    CHECK_STR(err->msg, "");
    return true;
}

static void from_load_to_load(const struct policy *by, struct problem *p, uint64_t seed)
{
    static const double load[] = {1, 0.05, 30, 0, 1000, 0.3, 3};
    struct plan_model *m = (struct plan_model *)(uintptr_t)p->model;
    struct plan was = {0}, before = {0};
    double rate_rps[16];
    bool runs = false;

    for (uint32_t i = 0; i < p->n_models; i++)
        rate_rps[i] = m[i].rate_rps;
    for (uint32_t x = 0; x < ARRAY_SIZE(load); x++) {
        struct plan now = {0};
        struct err err = {0};
        int failed = check_failures;
        for (uint32_t i = 0; i < p->n_models; i++)
            m[i].rate_rps = fmin(rate_rps[i] * load[(x + seed) % ARRAY_SIZE(load)], 1e9);
        bool is = make_next(by, p, runs ? &was : NULL, &now, &err);
        CHECK(plan_is_as(&was, &before));
        if (check_failures > failed)
            printf("# %s, problem %" PRIu64 ", load %u\n", by->name, seed, x);
        if (!is)
            continue;
        was = now;
        before = plan_copied(&now);
        runs = true;
    }
    for (uint32_t i = 0; i < p->n_models; i++)
        m[i].rate_rps = rate_rps[i];
}

static void whatever_the_load_plans_of_all_policies_can_be_run(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (int free = 0; free < 2; free++) {
            struct problem p;
            arena_init(&arena);
            problem_random(seed, free, &p);
            from_load_to_load(&policy_gpuletd, &p, seed);
            for (uint32_t i = 0; policy_at(i); i++)
                from_load_to_load(policy_at(i), &p, seed);
            arena_done(&arena);
        }
}

int main(void)
{
    RUN(what_is_tried_is_not_written_into_the_running_plan);
    RUN(whatever_the_load_plans_of_all_policies_can_be_run);
    return check_end();
}
