/* Our planner: published cases, random problems of every shape, search through small ones, growth
 * of its steps, and plans from plans. */
#include "../check.h"
#include "../plan/knee.h"
#include "../plan/random_problem.h"
#include <gpulet/policy.h>
#include <gpulet/problem.h>

#ifdef __SANITIZE_ADDRESS__
#define SEEDS 400 /* each takes ten times as long */
#else
#define SEEDS 4000
#endif
#define REPLANS (SEEDS / 2)

static struct arena arena;

static struct problem problem_read(const char *name)
{
    static char text[1 << 22];
    struct problem p = {0};
    struct err err = {0};
    char path[128];

    (void)snprintf(path, sizeof(path), "test/data/plan/%s.json", name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof(text), f) : 0;
    if (f)
        (void)fclose(f);
    CHECK_EQ(problem_parse(text, n, &arena, &p, &err), 0);
    CHECK_STR(err.msg, "");
    return p;
}

static struct plan make(const struct problem *p, const struct plan *was)
{
    struct plan plan = {0};
    struct err err = {0};

    CHECK_EQ(policy_gpuletd.plan_make(p, was, &arena, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(plan_check(p, NULL, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(plan.n_models, p->n_models);
    return plan;
}

static uint32_t unmet(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < plan->n_models; m++)
        n += plan->verdict[m].limit != LIMIT_NONE;
    return n;
}

static uint32_t devices_for(const char *name)
{
    struct problem p = problem_read(name);
    struct plan plan = make(&p, NULL);

    CHECK_EQ(unmet(&plan), 0);
    uint32_t n = plan_devices_used(&p, &plan, &arena);
    CHECK(plan.bound > 0 && plan.bound <= n);
    CHECK(plan.bound > 0.999 * plan_bound(&p, &arena));
    return n;
}

/* ---- published cases */

static void the_twelve_workloads_of_igniter_fit_on_six_devices(void)
{
    arena_init(&arena);
    CHECK(devices_for("igniter-12") <= 6); /* published: 6 */
    CHECK_EQ(devices_for("igniter-3"), 1); /* published: 1 */
    arena_done(&arena);
}

static void the_six_scenarios_of_parvagpu_fit_on_41_devices(void)
{
    uint32_t n = 0;

    arena_init(&arena);
    static const char *const names[] = {"parva-S1", "parva-S2", "parva-S3",
                                        "parva-S4", "parva-S5", "parva-S6"};
    for (uint32_t i = 0; i < ARRAY_SIZE(names); i++)
        n += devices_for(names[i]);
    CHECK(n <= 41); /* published: 47; fluid bound, rounded up for each: 39 */
    arena_done(&arena);
}

/* ---- any problem */

static bool plans_equal(const struct plan *a, const struct plan *b)
{
    if (a->n_gpulets != b->n_gpulets || a->steps != b->steps || a->bound != b->bound)
        return false;
    for (uint32_t k = 0; k < a->n_gpulets; k++) {
        const struct plan_gpulet *x = &a->gpulet[k], *y = &b->gpulet[k];
        if (x->device != y->device || memcmp(&x->set, &y->set, sizeof(x->set)) != 0 ||
            x->n_shares != y->n_shares ||
            memcmp(x->share, y->share, x->n_shares * sizeof(*x->share)) != 0)
            return false;
    }
    return memcmp(a->verdict, b->verdict, a->n_models * sizeof(*a->verdict)) == 0;
}

/* Twice the runs at once take 1.6 times as long. */
static void two_streams(struct profile *f)
{
    static const uint32_t streams[] = {1, 2};
    uint32_t n = f->n_batch * f->n_units;
    usec_t *run_us = ARENA_ARRAY(&arena, usec_t, (size_t)n * 2);
    double *l2 = ARENA_ARRAY(&arena, double, (size_t)n * 2);
    double *dram = ARENA_ARRAY(&arena, double, (size_t)n * 2);

    for (uint32_t i = 0; i < 2 * n; i++) {
        run_us[i] = f->run_us[i % n] * (i < n ? 10 : 16) / 10 + 1;
        l2[i] = f->l2[i % n];
        dram[i] = f->dram[i % n];
    }
    f->n_streams = 2;
    f->streams = streams;
    f->run_us = run_us;
    f->l2 = l2;
    f->dram = dram;
}

/* What the generator, which stays as it is, does not have: one in 25 problems under RULE_QUEUE
 * with arrivals of every kind, two in five with pressure and streams (one in fifty with both). */
static void hostile_more(uint64_t seed, struct problem *p)
{
    struct plan_model *model = (struct plan_model *)(uintptr_t)p->model;
    struct plan_type *type = (struct plan_type *)(uintptr_t)p->type;

    if (seed % 50 == 1 || seed % 50 == 2) {
        p->rules.rule = RULE_QUEUE;
        for (uint32_t m = 0; m < p->n_models; m++) {
            model[m].arrivals = (enum arrivals)((seed / 5 + m) % 5);
            model[m].cv = (double)((seed / 25 + m) % 7) / 2;
        }
    }
    if (seed % 5 != 2 && seed % 5 != 3)
        return;
    for (uint32_t t = 0; t < p->n_types; t++)
        type[t].predict.interference = (struct interference){
            .kind = INTERFERE_PRESSURE, .n_terms = 4, .term = {0.08, 0.01, 0, 0.3}};
    for (uint32_t m = 0; m < p->n_models; m++)
        for (uint32_t t = 0; t < p->n_types; t++)
            two_streams((struct profile *)(uintptr_t)&model[m].profile[t]);
}

/* No crash, no hang, no plan that fails the check, nobody missing without a word, the same plan
 * again, within the memory that plan_need() says. */
static void random_problems_give_checked_plans(void)
{
    static char fixed[64 << 20];

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct problem p;
        struct plan again = {0};
        struct arena small;
        int failed = check_failures;
        arena_init(&arena);
        random_problem(seed, RANDOM_HOSTILE, 0, 0, &arena, &p);
        hostile_more(seed, &p);
        struct plan plan = make(&p, NULL);
        size_t need = plan_need(&p);
        if (seed % 8 == 0 && need <= sizeof(fixed)) {
            arena_init_fixed(&small, fixed, need);
            CHECK_EQ(policy_gpuletd.plan_make(&p, NULL, &small, &again, NULL), 0);
            CHECK(plans_equal(&plan, &again));
        }
        arena_done(&arena);
        if (check_failures > failed) {
            printf("# seed %llu\n", (unsigned long long)seed);
            return;
        }
    }
}

/* ---- against a search through everything
 *
 * A model is left out, served for a half or a whole in one gpu-let, or for a half in each of two.
 * Which levels (0, 1/2, 1) of four models a gpu-let of each size can hold together is a table of
 * 81 x sizes, made by plan_truth(); cuts of devices and placements are then searched. */

struct search {
    const struct problem *p;
    bool fits[5][81]; /* by granules and levels */
    uint32_t n_lets, size[8], level[8];
    double best;
};

static uint32_t level_of(uint32_t code, uint32_t m)
{
    static const uint32_t pow3[] = {1, 3, 9, 27};

    return code / pow3[m] % 3;
}

static bool let_holds(const struct problem *p, uint32_t granules, uint32_t code)
{
    struct plan_share share[4];
    struct plan_gpulet g = {.set.bits[0] = (1u << granules) - 1,
                            .units = granules * p->type->granule_units,
                            .share = share};
    struct plan plan = {.n_gpulets = 1, .gpulet = &g};

    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct plan_model *q = &p->model[m];
        if (level_of(code, m) == 0)
            continue;
        uint32_t batch = q->max_batch;
        while (batch > 1 &&
               (double)predict_run_us(q->profile, batch, g.units) > 0.5 * (double)q->slo_us)
            batch--;
        share[g.n_shares++] = (struct plan_share){
            .model = m, .batch = batch, .rate_rps = q->rate_rps * level_of(code, m) / 2};
    }
    for (uint32_t i = 0; i < g.n_shares; i++) {
        struct share_truth t = {0};
        uint32_t most = share[i].batch;
        bool holds = plan_truth(p, &plan, 0, i, &t) == 0 && t.holds;
        for (uint32_t b = most; !holds && g.n_shares == 1 && b-- > 1;) {
            share[i].batch = b; /* more rows are not always more requests a second */
            holds = plan_truth(p, &plan, 0, i, &t) == 0 && t.holds;
        }
        if (!holds)
            return false;
    }
    return true;
}

static bool add_level(struct search *s, uint32_t k, uint32_t m, uint32_t level)
{
    static const uint32_t pow3[] = {1, 3, 9, 27};
    uint32_t code = s->level[k] + level * pow3[m];

    if (!s->fits[s->size[k]][code])
        return false;
    s->level[k] = code;
    return true;
}

static void place_models(struct search *s, uint32_t m, double served, double open)
{
    static const uint32_t pow3[] = {1, 3, 9, 27};

    if (served + open <= s->best * (1 + 1e-12))
        return;
    if (m == s->p->n_models) {
        s->best = served;
        return;
    }
    double rate = s->p->model[m].rate_rps;
    for (uint32_t k = 0; k < s->n_lets; k++)
        for (uint32_t level = 2; level >= 1; level--) {
            if (!add_level(s, k, m, level))
                continue;
            place_models(s, m + 1, served + rate * level / 2, open - rate);
            for (uint32_t other = k + 1; level == 1 && other < s->n_lets; other++)
                if (add_level(s, other, m, 1)) {
                    place_models(s, m + 1, served + rate, open - rate);
                    s->level[other] -= pow3[m];
                }
            s->level[k] -= level * pow3[m];
        }
    place_models(s, m + 1, served, open - rate);
}

/* All cuts of the devices: sizes fall within a device. */
static void cut_devices(struct search *s, uint32_t devices, uint32_t left, uint32_t most,
                        double rates)
{
    if (left == 0 && --devices == 0) {
        place_models(s, 0, 0, rates);
        return;
    }
    left = left ? left : s->p->type->n_granules;
    most = left == s->p->type->n_granules ? left : most;
    for (uint32_t n = MIN(left, most); n > 0; n--) {
        s->size[s->n_lets++] = n;
        cut_devices(s, devices, left - n, n, rates);
        s->n_lets--;
    }
}

static double search_all(const struct problem *p, uint32_t devices, double *ret_rates)
{
    struct search s = {.p = p};
    uint32_t codes = 1;

    *ret_rates = 0;
    for (uint32_t m = 0; m < p->n_models; m++) {
        codes *= 3;
        *ret_rates += p->model[m].rate_rps;
    }
    for (uint32_t n = 1; n <= p->type->n_granules; n++)
        for (uint32_t code = 0; code < codes; code++)
            s.fits[n][code] = let_holds(p, n, code);
    s.best = -1;
    cut_devices(&s, devices, p->type->n_granules, p->type->n_granules, *ret_rates);
    return s.best;
}

static double served(const struct problem *p, const struct plan *plan)
{
    double rate = 0;

    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++) {
            struct share_truth t = {0};
            CHECK_EQ(plan_truth(p, plan, k, i, &t), 0);
            rate += t.holds ? plan->gpulet[k].share[i].rate_rps : 0;
        }
    return rate;
}

static void small_problems_are_within_two_per_cent_of_a_full_search(void)
{
    double rate_sum = 0, device_sum = 0;
    uint32_t rate_n = 0, device_n = 0;

    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct problem p;
        double rates;
        arena_init(&arena);
        random_problem(seed, RANDOM_SMALL, 0, 0, &arena, &p);
        double best = search_all(&p, p.n_devices, &rates);
        p.rules.as_few = false;
        struct plan plan = make(&p, NULL);
        if (best > 0) {
            rate_sum += served(&p, &plan) / best;
            rate_n++;
        }
        if (best > rates * (1 - 1e-9)) { /* all of it: on how many devices? */
            uint32_t least =
                p.n_devices == 2 && search_all(&p, 1, &rates) < rates * (1 - 1e-9) ? 2 : 1;
            p.rules.as_few = true;
            plan = make(&p, NULL);
            CHECK_EQ(unmet(&plan), 0);
            device_sum += (double)plan_devices_used(&p, &plan, &arena) / least;
            device_n++;
        }
        arena_done(&arena);
    }
    printf("# served %.4f of the best over %u problems, %.4f of the devices over %u\n",
           rate_sum / rate_n, rate_n, device_sum / device_n, device_n);
    CHECK(rate_sum / rate_n >= 0.98);
    CHECK(device_sum / device_n <= 1.02);
    CHECK(device_n > 50 && rate_n - device_n > 50); /* both kinds were there */
}

/* ---- large ones */

static void large_problem(uint32_t n, bool disturb, struct problem *p)
{
    random_problem(1, RANDOM_LARGE, n, n, &arena, p);
    struct plan_type *t = arena_memdup(&arena, p->type, sizeof(*t));
    if (!disturb)
        t->predict.interference.kind = INTERFERE_NONE;
    p->type = t;
}

static double over_bound(bool disturb)
{
    struct problem p;

    arena_init(&arena);
    large_problem(1000, disturb, &p);
    struct plan plan = make(&p, NULL);
    CHECK_EQ(unmet(&plan), 0);
    double ratio = plan_devices_used(&p, &plan, &arena) / plan.bound;
    printf("# devices over bound %.4f, %llu steps\n", ratio, (unsigned long long)plan.steps);
    arena_done(&arena);
    return ratio;
}

static void a_thousand_models_are_within_three_per_cent_of_the_bound(void)
{
    CHECK(over_bound(false) <= 1.03);
}

static void a_thousand_models_that_disturb_each_other_are_within_three_per_cent(void)
{
    CHECK(over_bound(true) <= 1.03);
}

static void steps_grow_no_faster_than_the_problem(void)
{
    uint64_t before = 0;

    arena_init(&arena);
    for (uint32_t n = 500; n <= 4000; n *= 2) {
        struct problem p;
        large_problem(n, true, &p);
        uint64_t steps = make(&p, NULL).steps;
        CHECK(before == 0 || (double)steps <= 2.6 * (double)before);
        before = steps;
    }
    arena_done(&arena);
}

/* ---- from plan to plan */

static const struct plan_gpulet *same_place(const struct plan *plan, const struct plan_gpulet *g)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        if (plan->gpulet[k].device == g->device &&
            memcmp(&plan->gpulet[k].set, &g->set, sizeof(g->set)) == 0)
            return &plan->gpulet[k];
    return NULL;
}

/* Gpu-lets that are opened, closed, or have other shares. */
static uint32_t touched(const struct plan *was, const struct plan *now)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < now->n_gpulets; k++) {
        const struct plan_gpulet *g = &now->gpulet[k], *old = same_place(was, g);
        n += !old || old->n_shares != g->n_shares ||
             memcmp(old->share, g->share, g->n_shares * sizeof(*g->share)) != 0;
    }
    for (uint32_t k = 0; k < was->n_gpulets; k++)
        n += !same_place(now, &was->gpulet[k]);
    return n;
}

static void one_changed_rate_touches_two_gpulets_and_few_steps(void)
{
    enum { CHANGES = 100 };
    uint32_t few_lets = 0, few_steps = 0;
    uint64_t s = 7;
    struct problem p;

    arena_init(&arena);
    random_problem(1, RANDOM_LARGE, 1000, 1200, &arena, &p);
    struct plan_model *model = arena_memdup(&arena, p.model, p.n_models * sizeof(*model));
    p.model = model;
    struct plan was = make(&p, NULL);
    for (uint32_t i = 0; i < CHANGES; i++) {
        struct err err = {0};
        model[random_below(&s, p.n_models)].rate_rps *= random_in(&s, 2) ? 1.3 : 0.7;
        struct plan now = make(&p, &was);
        CHECK_EQ(plan_check(&p, &was, &now, &err), 0); /* the change too, with both in memory */
        CHECK_EQ(unmet(&now), 0);
        few_lets += touched(&was, &now) <= 2;
        few_steps += now.steps <= 10000; /* a full plan takes some 400,000 */
        was = now;
    }
    CHECK(few_lets >= CHANGES / 2);
    CHECK(few_steps >= CHANGES * 9 / 10);
    arena_done(&arena);
}

static void nothing_changed_changes_nothing(void)
{
    struct problem p;

    arena_init(&arena);
    random_problem(2, RANDOM_LARGE, 100, 120, &arena, &p);
    struct plan was = make(&p, NULL), now = make(&p, &was);
    CHECK_EQ(touched(&was, &now), 0);
    CHECK_EQ(memcmp(was.verdict, now.verdict, p.n_models * sizeof(*was.verdict)), 0);
    CHECK(now.bound == was.bound);
    arena_done(&arena);
}

static void a_profile_that_got_slower_is_planned_again(void)
{
    struct problem p;

    arena_init(&arena);
    random_problem(3, RANDOM_LARGE, 100, 150, &arena, &p);
    struct plan was = make(&p, NULL);
    const struct profile *f = p.model[17].profile;
    for (uint32_t i = 0; i < f->n_batch * f->n_units; i++)
        ((usec_t *)(uintptr_t)f->run_us)[i] += f->run_us[i] / 10;
    struct plan now = make(&p, &was);
    CHECK_EQ(unmet(&now), 0);
    CHECK(touched(&was, &now) > 0);
    arena_done(&arena);
}

/* A rate, an SLO, rows or nothing at all has changed, where memory may be tight.  A change that
 * cannot be made beside what runs is an error that says so: the running plan stays. */
static void hostile_problems_are_planned_again_or_say_why_not(void)
{
    uint32_t refused = 0;

    for (uint64_t seed = 1; seed <= REPLANS; seed++) {
        struct plan was = {0}, now = {0};
        struct err err = {0};
        struct problem p;
        uint64_t s = seed;

        arena_init(&arena);
        random_problem(seed, RANDOM_HOSTILE, 0, 0, &arena, &p);
        if (policy_gpuletd.plan_make(&p, NULL, &arena, &was, &err) == 0 && p.n_models) {
            struct plan_model *model = arena_memdup(&arena, p.model, p.n_models * sizeof(*model));
            struct plan_model *m = &model[random_below(&s, p.n_models)];
            p.model = model;
            m->rate_rps *= random_in(&s, 2) ? 3 : 0.2;
            m->slo_us = random_in(&s, 3) ? m->slo_us / 2 : m->slo_us;
            m->row_bytes += random_in(&s, 3) ? 50 : 0;
            int r = policy_gpuletd.plan_make(&p, &was, &arena, &now, &err);
            refused += r < 0;
            if (r == 0 && plan_check(&p, &was, &now, &err) < 0) {
                printf("# seed %u: %s\n", (unsigned)seed, err.msg);
                CHECK(false);
            }
            CHECK(r == 0 || (r == -ENOSPC && err.msg[0]));
        }
        arena_done(&arena);
    }
    printf("# %u of %u changes refused\n", refused, (unsigned)REPLANS);
    CHECK(refused < REPLANS / 20);
}

/* ---- too few devices */

static void important_models_come_first_and_the_others_are_named(void)
{
    struct problem p;

    arena_init(&arena);
    random_problem(4, RANDOM_LARGE, 40, 10, &arena, &p);
    struct plan_model *model = (struct plan_model *)(uintptr_t)p.model;
    for (uint32_t m = 0; m < p.n_models; m++)
        model[m].priority = m < 5 ? 1 : 2;
    p.rules.as_few = false;
    struct plan plan = make(&p, NULL);
    CHECK(unmet(&plan) > 0);
    for (uint32_t m = 0; m < p.n_models; m++) {
        const struct plan_verdict *v = &plan.verdict[m];
        CHECK(m >= 5 || v->limit == LIMIT_NONE);
        if (v->limit == LIMIT_NONE)
            continue;
        CHECK(v->limit == LIMIT_RATE || v->limit == LIMIT_UNITS);
        CHECK(v->need > 0 && v->least_slo_us > 0 && v->most_rps < p.model[m].rate_rps);
    }
    arena_done(&arena);
}

static void spare_capacity_is_spread_over_all_devices(void)
{
    struct problem p;

    arena_init(&arena);
    random_problem(5, RANDOM_LARGE, 4, 8, &arena, &p);
    p.rules.as_few = false;
    struct plan plan = make(&p, NULL);
    CHECK_EQ(unmet(&plan), 0);
    double least = INFINITY;
    for (uint32_t m = 0; m < p.n_models; m++)
        least = fmin(least, plan.verdict[m].most_rps / p.model[m].rate_rps);
    printf("# everybody could have %.2f times its rate; fluid %.2f\n", least, 8 / plan.bound);
    CHECK(least >= 0.6 * 8 / plan.bound);
    arena_done(&arena);
}

/* What a daemon's CPU looks like: gpu-lets of one core, run times that some noise disturbed.
 * Model 0 has an SLO, 1 a rate, 2 neither, 3 an SLO that is below any run. */
static void small_machine(uint64_t seed, struct problem *p)
{
    static const uint32_t batches[] = {1, 2, 4, 8, 16};
    struct plan_type *t = ARENA_NEW(&arena, struct plan_type);
    struct plan_device *d = ARENA_NEW(&arena, struct plan_device);
    struct plan_model *m = ARENA_ARRAY(&arena, struct plan_model, 4);
    static const char *const names[] = {"slo", "rate", "neither", "hopeless"};
    uint32_t *units = ARENA_NEW(&arena, uint32_t);

    *units = 1;
    *t = (struct plan_type){.name = "cpu",
                            .n_granules = 1 + random_below(&seed, 4),
                            .granule_units = 1,
                            .max_granules = 1};
    *d = (struct plan_device){.name = "cpu0"};
    for (uint32_t i = 0; i < 4; i++) {
        usec_t *run = ARENA_ARRAY(&arena, usec_t, 5);
        struct profile *f = ARENA_NEW(&arena, struct profile);
        double base = random_log(&seed, 20, 5000), row = random_log(&seed, 1, 500);
        for (uint32_t b = 0; b < 5; b++)
            run[b] = MAX((usec_t)(base + row * batches[b]), b ? run[b - 1] : 1);
        *f = (struct profile){
            .n_batch = 5, .n_units = 1, .batch = batches, .units = units, .run_us = run};
        m[i] = (struct plan_model){
            .name = names[i], .max_batch = i == 1 ? 16 : 1, .profile = f, .slot_bytes = 16384};
    }
    m[0].slo_us = 20000;
    m[1].rate_rps = 50;
    m[3].slo_us = 1;
    *p = (struct problem){
        .n_types = 1, .n_devices = 1, .n_models = 4, .type = t, .device = d, .model = m};
}

static bool has_place(const struct plan *plan, uint32_t m)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            if (plan->gpulet[k].share[i].model == m)
                return true;
    return false;
}

/* An upload never fails for an SLO that cannot be held, nor for the rates of the others. */
static void every_model_gets_a_place_where_there_is_memory(void)
{
    uint32_t homeless = 0;

    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct problem p;
        arena_init(&arena);
        small_machine(seed, &p);
        struct plan plan = make(&p, NULL);
        uint32_t none = 0;
        for (uint32_t m = 0; m < p.n_models; m++)
            none += !has_place(&plan, m);
        if (none && !homeless)
            printf("# seed %llu: %u models without a place\n", (unsigned long long)seed, none);
        homeless += none;
        arena_done(&arena);
    }
    CHECK_EQ(homeless, 0);
}

/* Batches of 1, 6 and 8 that take so long a row. */
static uint32_t batch_taken(bool in_turn, usec_t one_us, usec_t six_us, usec_t eight_us)
{
    static const uint32_t batch[] = {1, 6, 8}, units[] = {1};
    usec_t run_us[] = {one_us, 6 * six_us, 8 * eight_us};
    struct plan_type type = {
        .name = "cpu", .n_granules = 1, .granule_units = 1, .max_granules = 1, .in_turn = in_turn};
    struct plan_device device = {.name = "cpu0"};
    struct profile f = {
        .n_batch = 3, .n_units = 1, .batch = batch, .units = units, .run_us = run_us};
    struct plan_model model = {
        .name = "m", .max_batch = 8, .slo_us = 1000000, .rate_rps = 10, .profile = &f};
    struct problem p = {.n_types = 1,
                        .n_devices = 1,
                        .n_models = 1,
                        .type = &type,
                        .device = &device,
                        .model = &model};

    arena_init(&arena);
    struct plan plan = make(&p, NULL);
    CHECK_EQ(plan.n_gpulets, 1);
    uint32_t taken = plan.gpulet[0].share[0].batch;
    arena_done(&arena);
    return taken;
}

static void where_runs_follow_each_other_they_are_no_longer_than_they_must_be(void)
{
    CHECK_EQ(batch_taken(true, 25000, 24600, 24700), 1); /* ahead by what is noise */
    CHECK_EQ(batch_taken(true, 27000, 24600, 24500), 6);
    CHECK_EQ(batch_taken(true, 25000, 20000, 16000), 8);
    CHECK_EQ(batch_taken(false, 25000, 24600, 24700), 6); /* nobody else waits */
}

static struct plan_model knee_random(uint64_t *s)
{
    struct knee k = {.work_ms = 50 + random_below(s, 500), .units = 10 + random_below(s, 50)};

    k.slo_us = 1000 * (50 + random_below(s, 150));
    struct plan_model m = knee_model(&k, &arena);
    m.rate_rps = knee_rps(&k, 0.04 + 0.01 * random_below(s, 26));
    return m;
}

/* By the queue's rule what a newcomer does to those beside it is estimated first and counted then:
 * who is late by the count must not be said to be in time. */
static void queues_that_a_newcomer_fills_are_planned_again(void)
{
    enum { N = 4 };
    static const struct plan_type type = {
        .name = "t", .n_granules = 66, .granule_units = 2, .predict = {.units = 132}};
    static const struct plan_device device = {.name = "d"};
    uint32_t n_met = 0;

    for (uint64_t seed = 120; seed < 200; seed++) {
        struct plan_model model[N], part[N];
        struct plan was = {0};
        uint64_t s = seed;

        arena_init(&arena);
        for (uint32_t m = 0; m < N; m++)
            model[m] = knee_random(&s);
        for (uint32_t n = 1; n <= N; n++) { /* asked for one after the other */
            const struct problem p = {.n_types = 1,
                                      .n_devices = 1,
                                      .n_models = N,
                                      .type = &type,
                                      .device = &device,
                                      .model = part,
                                      .rules = {.rule = RULE_QUEUE}};
            struct plan now = {0};
            struct err err = {0};
            memcpy(part, model, sizeof(part));
            for (uint32_t m = n; m < N; m++)
                part[m].rate_rps = 0.1;
            CHECK_EQ(policy_gpuletd.plan_make(&p, n > 1 ? &was : NULL, &arena, &now, &err), 0);
            if (plan_check(&p, NULL, &now, &err) < 0) {
                printf("# seed %u, %u of them: %s\n", (unsigned)seed, n, err.msg);
                CHECK(false);
            }
            n_met += unmet(&now) == 0;
            was = now;
        }
        arena_done(&arena);
    }
    CHECK(n_met > 80 * N * 3 / 4);
}

int main(void)
{
    RUN(the_twelve_workloads_of_igniter_fit_on_six_devices);
    RUN(the_six_scenarios_of_parvagpu_fit_on_41_devices);
    RUN(small_problems_are_within_two_per_cent_of_a_full_search);
    RUN(random_problems_give_checked_plans);
    RUN(a_thousand_models_are_within_three_per_cent_of_the_bound);
    RUN(a_thousand_models_that_disturb_each_other_are_within_three_per_cent);
    RUN(steps_grow_no_faster_than_the_problem);
    RUN(nothing_changed_changes_nothing);
    RUN(one_changed_rate_touches_two_gpulets_and_few_steps);
    RUN(a_profile_that_got_slower_is_planned_again);
    RUN(hostile_problems_are_planned_again_or_say_why_not);
    RUN(queues_that_a_newcomer_fills_are_planned_again);
    RUN(every_model_gets_a_place_where_there_is_memory);
    RUN(where_runs_follow_each_other_they_are_no_longer_than_they_must_be);
    RUN(important_models_come_first_and_the_others_are_named);
    RUN(spare_capacity_is_spread_over_all_devices);
    return check_end();
}
