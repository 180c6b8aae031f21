/* Plans for loads that change, each made from the one before: what comes out can be run, and the
 * running plan is left as it is. */
#include "../check.h"
#include "../plan/knee.h"
#include "../plan/random_problem.h"

#include <gpulet/policy.h>
#include <lib/plan/plan_priv.h>

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
            memcmp(g->share, old->share, old->n_shares * sizeof(*old->share)) != 0)
            return false;
    }
    return plan->n_gpulets == was->n_gpulets &&
           memcmp(plan->verdict, was->verdict, was->n_models * sizeof(*was->verdict)) == 0;
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

int main(void)
{
    RUN(what_is_tried_is_not_written_into_the_running_plan);
    return check_end();
}
