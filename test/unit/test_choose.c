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

struct on_cores {
    const char *name;
    usec_t slo_us, run_us[4]; /* of 1, 2, 4 and 8 rows */
    double rate_rps;
};

static void cores_have(const struct on_cores *of, uint32_t n, uint32_t n_cores, bool in_turn)
{
    static const uint32_t batch[] = {1, 2, 4, 8}, units[] = {1};
    static const struct plan_device cores = {.name = "cpu0"};
    static struct profile profile[MODELS];

    type = (struct plan_type){.name = "cpu",
                              .n_granules = n_cores,
                              .granule_units = 1,
                              .max_granules = 1,
                              .in_turn = in_turn};
    for (uint32_t m = 0; m < n; m++) {
        profile[m] = (struct profile){
            .n_batch = 4, .n_units = 1, .batch = batch, .units = units, .run_us = of[m].run_us};
        model[m] = (struct plan_model){.name = of[m].name,
                                       .slo_us = of[m].slo_us,
                                       .rate_rps = of[m].rate_rps,
                                       .arrivals = ARRIVALS_POISSON,
                                       .max_batch = 8,
                                       .profile = &profile[m]};
    }
    problem = (struct problem){.n_types = 1,
                               .n_devices = 1,
                               .n_models = n,
                               .type = &type,
                               .device = &cores,
                               .model = model,
                               .rules = {.rule = RULE_QUEUE}};
}

/* Two cheap models with tight SLOs, and a dear one that can wait. */
static const struct on_cores three[] = {
    {"a", 240000, {10000, 20500, 36000, 76000}, 24},
    {"b", 200000, {7900, 13500, 24700, 47200}, 24},
    {"c", 360000, {26700, 54500, 110000, 221000}, 12},
};

/* In turns what can wait fills the time of what cannot, once more comes than planned. */
static void where_runs_follow_each_other_the_better_order_is_taken(void)
{
    const struct plan nothing = {0};

    arena_init(&arena);
    cores_have(three, 3, 1, true);
    struct plan plan = make(&nothing);
    CHECK(plan.n_gpulets == 1 && plan.gpulet[0].n_shares == 3);
    CHECK(plan.gpulet[0].order == ORDER_DEADLINE && plan_worst(&problem, &plan) > 0.99);
    double due = plan_pressed(&problem, &plan, 1.3);
    plan.gpulet[0].order = ORDER_TURNS;
    CHECK(due > 1.005 * plan_pressed(&problem, &plan, 1.3));
    cores_have(three, 3, 1, false);
    plan = make(&nothing);
    CHECK_EQ(plan.gpulet[0].order, ORDER_TURNS);
    model[0].slo_us = 0;
    CHECK(plan_pressed(&problem, &plan, 1.3) < 0);
    arena_done(&arena);
}

/* A run of any other takes longer than the SLO of the shortest. */
static void who_cannot_wait_for_a_run_of_others_has_a_core(void)
{
    static const struct on_cores five[] = {
        {"tiny", 6000, {170, 175, 185, 220}, 10.8},
        {"a", 96000, {10100, 20300, 41300, 82700}, 11.6},
        {"b", 69600, {6900, 11600, 21200, 40400}, 16.1},
        {"c", 249800, {26300, 50000, 98700, 220000}, 11.1},
        {"d", 180200, {21800, 42400, 83600, 164700}, 11.7},
    };
    const struct plan nothing = {0};

    for (double x = 0.5; x < 1.01; x += 0.1) {
        arena_init(&arena);
        cores_have(five, 5, 2, true);
        rates_times(x);
        struct plan plan = make(&nothing);
        CHECK(plan.n_gpulets == 2 && plan_worst(&problem, &plan) > 0.99);
        for (uint32_t k = 0; k < 2; k++)
            CHECK(plan.gpulet[k].share[0].model != 0 || plan.gpulet[k].n_shares == 1);
        arena_done(&arena);
    }
}

int main(void)
{
    RUN(whatever_runs_a_second_thought_finds_what_is_found_from_nothing);
    RUN(a_plan_that_is_made_at_once_is_no_worse_than_the_one_that_runs);
    RUN(a_plan_that_was_thought_over_is_left_alone);
    RUN(a_second_thought_ends_when_it_is_told_to);
    RUN(what_no_rule_promises_is_rehearsed);
    RUN(where_runs_follow_each_other_the_better_order_is_taken);
    RUN(who_cannot_wait_for_a_run_of_others_has_a_core);
    return check_end();
}
