/* The published planners, against figures from their papers and sums done by hand. */
#include "../check.h"
#include "../problem_file.h"
#include <gpulet/policy.h>

static struct arena arena;

static struct plan make(const struct problem *p, const char *policy, int expect)
{
    const struct policy *by = NULL;
    struct plan plan = {0};
    struct err err = {0};

    CHECK_EQ(policy_find(policy, &by, &err), 0);
    CHECK_EQ(by->plan_make(p, NULL, &arena, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(plan_check(p, NULL, &plan, &err), expect);
    if (expect == 0)
        CHECK_STR(err.msg, "");
    return plan;
}

static uint32_t accepted(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < plan->n_models; m++)
        n += plan->verdict[m].limit == LIMIT_NONE;
    return n;
}

/* ---- iGniter */

/* In the order of the problem: the n-th model's first gpu-let. */
static const struct plan_gpulet *let_of(const struct plan *plan, uint32_t model)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            if (plan->gpulet[k].share[i].model == model)
                return &plan->gpulet[k];
    return NULL;
}

static void igniter_plans_its_example_as_published(void)
{
    static const uint32_t units[] = {8, 24, 30}, batch[] = {4, 8, 6}; /* 10, 30, 37.5 % of 80 */
    arena_init(&arena);
    struct problem p = problem_file(&arena, "igniter-3");
    struct plan plan = make(&p, "igniter", 0);

    CHECK_EQ(accepted(&plan), 3);
    CHECK_EQ(plan_devices_used(&p, &plan, &arena), 1);
    for (uint32_t m = 0; m < 3 && let_of(&plan, m); m++) {
        CHECK_EQ(let_of(&plan, m)->units, units[m]);
        CHECK_EQ(let_of(&plan, m)->share[0].batch, batch[m]);
    }
    arena_done(&arena);
}

static void igniter_places_its_twelve_workloads_on_six_devices(void)
{
    arena_init(&arena);
    struct problem p = problem_file(&arena, "igniter-12");
    struct plan plan = make(&p, "igniter", 0);

    CHECK_EQ(accepted(&plan), 12);
    CHECK_EQ(plan_devices_used(&p, &plan, &arena), 6);
    arena_done(&arena);
}

/* ---- ParvaGPU */

static void parva_uses_as_many_devices_as_published(void)
{
    static const uint32_t published[] = {2, 3, 5, 7, 13, 17};
    char name[] = "parva-S1-mig";

    for (uint32_t i = 0; i < ARRAY_SIZE(published); i++) {
        arena_init(&arena);
        name[7] = (char)('1' + i);
        struct problem p = problem_file(&arena, name);
        struct plan plan = make(&p, "parva", 0);
        CHECK_EQ(accepted(&plan), p.n_models);
        CHECK_EQ(plan_devices_used(&p, &plan, &arena), published[i]);
        arena_done(&arena);
    }
}

int main(void)
{
    RUN(parva_uses_as_many_devices_as_published);
    RUN(igniter_plans_its_example_as_published);
    RUN(igniter_places_its_twelve_workloads_on_six_devices);
    return check_end();
}
