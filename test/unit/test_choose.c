/* Plans where not everything can be kept: made at once, from a running plan, and at leisure.
 *
 * The problems are mixes of the race at about the load that they can take.  What a plan is worth is
 * a rehearsal with arrivals that no planner has seen; as many requests of it are in time as of a
 * plan that is made from nothing, less what is allowed here. */
#include "../check.h"

#include <gpulet/problem.h>
#include <lib/plan/plan_priv.h>
#include <lib/plan/published.h>

#define MODELS 8
#define REQUESTS 30000
#define SEED 11
#define AT_ONCE 0.97
#define AT_LEISURE 0.98

/* Capacity in requests/s; more where no neighbour disturbs. */
static const struct {
    const char *name;
    double rps;
    bool disturbed;
} mixes[] = {
    {"light", 2030, true}, {"light", 3000, false}, {"equal", 1200, true}, {"skewed", 1175, true}};

static struct arena arena;
static struct plan_model model[MODELS];
static struct plan_type type;
static struct problem problem;

static void mix_read(uint32_t at)
{
    static char text[1 << 20];
    char path[64];
    struct err err;
    double all_rps = 0;

    (void)snprintf(path, sizeof(path), "test/race/mixes/%s.json", mixes[at].name);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof(text), f) : 0;
    CHECK(f && fclose(f) == 0 && n < sizeof(text));
    CHECK_EQ(problem_parse(text, n, &arena, &problem, &err), 0);
    CHECK(problem.n_models <= MODELS);
    memcpy(model, problem.model, problem.n_models * sizeof(*model));
    type = problem.type[0];
    problem.model = model;
    problem.type = &type;
    if (!mixes[at].disturbed)
        type.predict.interference = (struct interference){0};
    for (uint32_t m = 0; m < problem.n_models; m++)
        all_rps += model[m].rate_rps;
    for (uint32_t m = 0; m < problem.n_models; m++)
        model[m].rate_rps *= mixes[at].rps / all_rps;
}

static void rates_times(double x)
{
    for (uint32_t m = 0; m < problem.n_models; m++)
        model[m].rate_rps *= x;
}

static struct plan make(const struct plan *was)
{
    struct plan plan = {0};
    struct err err;

    CHECK_EQ(policy_ours.plan_make(&problem, was, &arena, &plan, &err), 0);
    CHECK_EQ(plan_check(&problem, NULL, &plan, &err), 0);
    return plan;
}

static double in_time(const struct plan *plan)
{
    struct rehearsed r[MODELS] = {0};
    double offered = 0, good = 0;

    CHECK(rehearse(&problem, plan, REQUESTS, SEED, &arena, r));
    for (uint32_t m = 0; m < problem.n_models; m++) {
        offered += r[m].offered;
        good += r[m].in_time;
    }
    return good / offered;
}

/* As the engine has it: without verdicts all is planned anew. */
static struct plan bare(const struct plan *plan)
{
    return (struct plan){.n_gpulets = plan->n_gpulets, .gpulet = plan->gpulet};
}

/* ---- at leisure */
struct clock {
    uint32_t left, asked;
};

static bool is_over(void *of)
{
    struct clock *c = of;

    c->asked++;
    if (c->left == 0)
        return true;
    c->left--;
    return false;
}

static int think(const struct plan *was, struct clock *c, struct plan *ret)
{
    struct plan_leisure leisure = {.is_over = is_over, .of = c};
    struct plan from = bare(was);
    struct err err;

    problem.rules.leisure = &leisure;
    int r = policy_ours.plan_make(&problem, &from, &arena, ret, &err);
    problem.rules.leisure = NULL;
    return r;
}

/* With at most one second thought. */
static struct plan thought_over(const struct plan *was)
{
    struct clock c = {.left = UINT32_MAX};
    struct plan plan;
    int r = think(was, &c, &plan);

    CHECK(r == 0 || r == -EALREADY);
    return r == 0 ? plan : *was;
}

static void holds_up(struct plan was, double anew)
{
    struct plan from = bare(&was), once = make(&from), then = thought_over(&once);
    double first = in_time(&once), second = in_time(&then);

    CHECK(first >= AT_ONCE * anew);
    CHECK(second >= AT_LEISURE * anew);
    CHECK(second >= 0.998 * first); /* never for the worse, but by chance */
}

static void whatever_runs_a_second_thought_finds_what_is_found_from_nothing(void)
{
    struct plan nothing = {0};

    for (uint32_t at = 0; at < ARRAY_SIZE(mixes); at++) {
        arena_init(&arena);
        mix_read(at);
        struct plan best = make(NULL);
        double anew = in_time(&best);
        holds_up(nothing, anew);
        rates_times(0.6);
        struct plan less = make(&nothing);
        rates_times(1 / 0.6);
        holds_up(less, anew);
        problem.n_models--;
        struct plan fewer = make(&nothing);
        problem.n_models++;
        holds_up(fewer, anew);
        arena_done(&arena);
    }
}

static void a_plan_that_is_made_at_once_is_no_worse_than_the_one_that_runs(void)
{
    arena_init(&arena);
    mix_read(1);
    struct plan best = make(NULL), from = bare(&best), again = make(&from);
    CHECK(in_time(&again) >= 0.995 * in_time(&best));
    arena_done(&arena);
}

static void a_plan_that_was_thought_over_is_left_alone(void)
{
    struct clock c = {.left = UINT32_MAX};
    struct plan plan = {.n_gpulets = 12345};

    arena_init(&arena);
    mix_read(2);
    struct plan best = make(NULL);
    CHECK_EQ(think(&best, &c, &plan), -EALREADY);
    CHECK_EQ(plan.n_gpulets, 12345);
    arena_done(&arena);
}

static void a_second_thought_ends_when_it_is_told_to(void)
{
    struct plan nothing = {0}, plan = {.n_gpulets = 12345};
    struct clock all = {.left = UINT32_MAX}, some = {.left = 20};

    arena_init(&arena);
    mix_read(1);
    struct plan once = make(&nothing);
    (void)think(&once, &all, &plan);
    CHECK(all.asked > 200);
    plan.n_gpulets = 12345;
    CHECK_EQ(think(&once, &some, &plan), -ECANCELED);
    CHECK_EQ(plan.n_gpulets, 12345);
    arena_done(&arena);
}

/* No rule promises this load; a rehearsal tells it from one that is too much, and from one that it
 * knows too little of. */
static void what_no_rule_promises_is_rehearsed(void)
{
    arena_init(&arena);
    mix_read(1);
    rates_times(0.7);
    static struct plan_verdict verdict[MODELS];
    bool promised = true;
    struct plan nothing = {0}, plan = make(&nothing);
    for (uint32_t m = 0; m < plan.n_models; m++)
        promised &= plan.verdict[m].limit == LIMIT_NONE;
    CHECK(!promised && plan_worst(&problem, &plan) > 0.95);
    rates_times(2);
    CHECK(plan_worst(&problem, &plan) < 0.8);
    rates_times(0.1);
    CHECK(plan_worst(&problem, &plan) > 0.995);
    problem.n_models--; /* one is left out, and nearly never asked for */
    struct plan fewer = make(&nothing);
    problem.n_models++;
    fewer.verdict = memcpy(verdict, fewer.verdict, fewer.n_models * sizeof(*verdict));
    fewer.n_models++;
    verdict[problem.n_models - 1].limit = LIMIT_RATE;
    model[problem.n_models - 1].rate_rps = 1e-3;
    CHECK_EQ(plan_worst(&problem, &fewer), 0);
    model[0].slo_us = 0;
    CHECK(plan_worst(&problem, &plan) < 0);
    arena_done(&arena);
}

/* Of a core: two cheap models with tight SLOs, and a dear one that can wait. */
static void core_of_three(bool in_turn)
{
    static const uint32_t batch[] = {1, 2, 4, 8}, units[] = {1};
    static const usec_t run_us[3][4] = {
        {10000, 20500, 36000, 76000}, {7900, 13500, 24700, 47200}, {26700, 54500, 110000, 221000}};
    static struct profile profile[3];
    static const struct plan_device core = {.name = "cpu0"};

    type = (struct plan_type){
        .name = "cpu", .n_granules = 1, .granule_units = 1, .max_granules = 1, .in_turn = in_turn};
    for (uint32_t m = 0; m < 3; m++) {
        profile[m] = (struct profile){
            .n_batch = 4, .n_units = 1, .batch = batch, .units = units, .run_us = run_us[m]};
        model[m] = (struct plan_model){.name = m == 0   ? "a"
                                               : m == 1 ? "b"
                                                        : "c",
                                       .slo_us = m == 0   ? 240000
                                                 : m == 1 ? 200000
                                                          : 360000,
                                       .rate_rps = m == 2 ? 12 : 24,
                                       .arrivals = ARRIVALS_POISSON,
                                       .max_batch = 8,
                                       .profile = &profile[m]};
    }
    problem = (struct problem){.n_types = 1,
                               .n_devices = 1,
                               .n_models = 3,
                               .type = &type,
                               .device = &core,
                               .model = model,
                               .rules = {.rule = RULE_QUEUE}};
}

/* In turns what can wait fills the time of what cannot, once more comes than planned. */
static void where_runs_follow_each_other_the_better_order_is_taken(void)
{
    const struct plan nothing = {0};

    arena_init(&arena);
    core_of_three(true);
    struct plan plan = make(&nothing);
    CHECK(plan.n_gpulets == 1 && plan.gpulet[0].n_shares == 3);
    CHECK(plan.gpulet[0].order == ORDER_DEADLINE && plan_worst(&problem, &plan) > 0.99);
    double due = plan_pressed(&problem, &plan, 1.3);
    plan.gpulet[0].order = ORDER_TURNS;
    CHECK(due > 1.005 * plan_pressed(&problem, &plan, 1.3));
    core_of_three(false);
    plan = make(&nothing);
    CHECK_EQ(plan.gpulet[0].order, ORDER_TURNS);
    model[0].slo_us = 0;
    CHECK(plan_pressed(&problem, &plan, 1.3) < 0);
    arena_done(&arena);
}

int main(void)
{
    RUN(whatever_runs_a_second_thought_finds_what_is_found_from_nothing);
    RUN(a_plan_that_is_made_at_once_is_no_worse_than_the_one_that_runs);
    RUN(a_plan_that_was_thought_over_is_left_alone);
    RUN(a_second_thought_ends_when_it_is_told_to);
    RUN(what_no_rule_promises_is_rehearsed);
    RUN(where_runs_follow_each_other_the_better_order_is_taken);
    return check_end();
}
