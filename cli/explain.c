/* gpuletctl explain: a plan's sizes and neighbours, found out by asking plan_truth() about plans
 * that differ in one thing: a gpu-let with one neighbour, with none, or one size smaller. */
#include "task.h"
#include <gpulet/problem.h>
#include <math.h>

/* The gpu-lets of one device as a plan of its own, so that one can be changed. */
struct scene {
    const struct task *t;
    struct plan plan;
    struct plan_gpulet let[PLAN_MAX_GRANULES];
    struct plan_verdict *verdict;
};

static void scene_add(struct scene *s, const struct plan_gpulet *g)
{
    if (s->plan.n_gpulets < ARRAY_SIZE(s->let))
        s->let[s->plan.n_gpulets++] = *g;
}

static void scene_init(struct scene *s, const struct task *t, const struct plan *plan)
{
    s->t = t;
    s->plan = *plan;
    s->plan.gpulet = s->let;
    s->plan.n_gpulets = 0;
}

/* Gpu-let k first, and then its neighbours. */
static void scene_device(struct scene *s, const struct task *t, const struct plan *plan, uint32_t k)
{
    scene_init(s, t, plan);
    scene_add(s, &plan->gpulet[k]);
    for (uint32_t j = 0; j < plan->n_gpulets; j++)
        if (j != k && plan->gpulet[j].device == plan->gpulet[k].device)
            scene_add(s, &plan->gpulet[j]);
}

/* How much `me` is slowed beside `other` and nobody else; other NULL: 1. */
static double slowed(const struct scene *s, uint32_t me, uint32_t i, uint32_t other)
{
    struct scene two;
    struct share_truth truth = {.usual.slowdown = NAN};

    scene_init(&two, s->t, &s->plan);
    scene_add(&two, &s->let[me]);
    scene_add(&two, &s->let[other]);
    (void)plan_truth_now(&s->t->p, &two.plan, 0, i, &truth);
    return truth.usual.slowdown;
}

static json_t *neighbour_one(const struct scene *s, uint32_t i, uint32_t j, uint32_t k)
{
    const struct plan_share *other = &s->let[j].share[k];
    struct share_truth truth = {0};
    json_t *o = json_object();

    (void)plan_truth_now(&s->t->p, &s->plan, j, k, &truth);
    put(o, "model", json_string(s->t->p.model[other->model].name));
    put_num(o, "units", s->let[j].units);
    put_num(o, "batch", other->batch);
    put_num(o, "duty", truth.duty);
    put_num(o, "slowed_by_this", slowed(s, j, k, 0));
    put_num(o, "slows_this", slowed(s, 0, i, j));
    return o;
}

/* A neighbour with several models presses with all of them: slows_this is then of the gpu-let. */
static json_t *neighbours(const struct scene *s, uint32_t i)
{
    json_t *list = json_array();

    for (uint32_t j = 1; j < s->plan.n_gpulets; j++)
        for (uint32_t k = 0; k < s->let[j].n_shares; k++)
            (void)json_array_append_new(list, neighbour_one(s, i, j, k));
    return list;
}

static json_t *companions(const struct scene *s, uint32_t i)
{
    json_t *list = json_array();

    for (uint32_t k = 0; k < s->let[0].n_shares; k++)
        if (k != i) {
            struct share_truth truth = {0};
            const struct plan_share *other = &s->let[0].share[k];
            (void)plan_truth_now(&s->t->p, &s->plan, 0, k, &truth);
            json_t *o = json_object();
            put(o, "model", json_string(s->t->p.model[other->model].name));
            put_num(o, "batch", other->batch);
            put_num(o, "duty", truth.duty);
            (void)json_array_append_new(list, o);
        }
    return list;
}

/* ---- one size smaller */

#define BATCHES 16 /* that are tried, evenly from 1 to the model's largest */

/* The next smaller number of granules that a gpu-let may have; 0: there is none. */
static uint32_t smaller_size(const struct plan_type *t, uint32_t granules)
{
    uint32_t best = t->n_sizes || t->n_places ? 0 : granules - 1;

    for (uint32_t i = 0; i < t->n_sizes; i++)
        if (t->size[i] < granules)
            best = MAX(best, t->size[i]);
    for (uint32_t i = 0; i < t->n_places && t->n_sizes == 0; i++)
        if (t->place[i].n < granules)
            best = MAX(best, t->place[i].n);
    return best;
}

static void shrink(struct plan_gpulet *g, const struct plan_type *t, uint32_t granules)
{
    for (uint32_t i = PLAN_MAX_GRANULES; i-- > 0 && let_granules(g) > granules;)
        g->set.bits[i / 64] &= ~(UINT64_C(1) << (i % 64));
    g->units = granules * t->granule_units;
}

struct smaller {
    uint32_t units, batch; /* units 0: there is no smaller size */
    double most_rps;       /* within the SLO, by that batch */
    bool holds;
    const char *companion; /* whose SLO or rate is what fails; NULL: its own */
};

static const char *failing_companion(const struct scene *s, uint32_t i)
{
    for (uint32_t k = 0; k < s->let[0].n_shares; k++) {
        struct share_truth truth = {0};
        if (k != i && plan_truth_now(&s->t->p, &s->plan, 0, k, &truth) == 0 && !truth.holds)
            return s->t->p.model[s->let[0].share[k].model].name;
    }
    return NULL;
}

static void batch_set(struct scene *s, uint32_t i, uint32_t batch, uint32_t usual)
{
    s->let[0].share[i].batch = batch;
    s->let[0].share[i].usual = MIN(usual, batch);
}

static bool all_hold(const struct scene *s, uint32_t i)
{
    struct share_truth truth = {0};

    return plan_truth_now(&s->t->p, &s->plan, 0, i, &truth) == 0 && truth.holds &&
           !failing_companion(s, i);
}

static void batch_try(const struct scene *s, uint32_t i, struct smaller *best)
{
    const struct plan_share *mine = &s->let[0].share[i];
    const struct plan_model *m = &s->t->p.model[mine->model];
    struct share_truth truth = {0};

    if (plan_truth(&s->t->p, &s->plan, 0, i, &truth) < 0)
        return;
    bool in_time =
        s->t->p.rules.rule != RULE_CYCLE || m->slo_us == 0 || truth.latency_us <= (double)m->slo_us;
    if (!in_time || !(truth.most_rps > best->most_rps))
        return;
    best->companion = truth.holds ? failing_companion(s, i) : NULL;
    best->batch = mine->batch;
    best->most_rps = truth.most_rps;
}

/* Would the next smaller size do, with any batch?  What it serves at most takes long to find: from
 * the largest batch down, until it falls. */
static struct smaller smaller_try(const struct scene *from, uint32_t i, struct arena *a)
{
    struct scene s = *from;
    const struct plan_type *t = let_type(&s.t->p, &s.let[0]);
    const struct plan_share *was = &from->let[0].share[i];
    uint32_t most = s.t->p.model[was->model].max_batch, step = 1 + most / BATCHES;
    uint32_t granules = smaller_size(t, let_granules(&s.let[0])), usual = was->usual;
    struct smaller best = {.units = granules * t->granule_units};

    s.plan.gpulet = s.let;
    s.let[0].share = arena_memdup(a, s.let[0].share, s.let[0].n_shares * sizeof(*was));
    if (granules == 0 || !s.let[0].share)
        return (struct smaller){0};
    shrink(&s.let[0], t, granules);
    for (uint32_t b = 1; b <= most && !best.holds; b += step) {
        batch_set(&s, i, b, usual);
        best.holds = all_hold(&s, i);
    }
    if (best.holds) {
        batch_try(&s, i, &best);
        return best;
    }
    for (uint32_t n = (most - 1) / step + 1; n-- > 0;) {
        batch_set(&s, i, 1 + n * step, usual);
        batch_try(&s, i, &best);
        if (best.most_rps > 0 && best.batch != 1 + n * step)
            break;
    }
    return best;
}

static const char *binding(const struct smaller *s)
{
    return s->units == 0     ? "units"
           : s->holds        ? "nothing"
           : s->companion    ? "companion"
           : s->most_rps > 0 ? "rate"
                             : "slo";
}

static json_t *report_smaller(const struct smaller *s)
{
    json_t *o = json_object();

    put_num(o, "units", s->units);
    put(o, "holds", json_boolean(s->holds));
    put_num(o, "batch", s->batch);
    put_num(o, "most_rps", s->most_rps);
    if (s->companion)
        put(o, "companion", json_string(s->companion));
    return o;
}

/* ---- a share, a model */

static double ms(double us)
{
    return us / 1000;
}

static json_t *explain_share(struct task *t, const struct plan *plan, uint32_t k, uint32_t i)
{
    const struct plan_gpulet *g = &plan->gpulet[k];
    struct share_truth truth = {0}, alone = {0};
    struct scene s, one;
    json_t *o = json_object();

    scene_device(&s, t, plan, k);
    scene_init(&one, t, plan);
    scene_add(&one, g);
    (void)plan_truth(&t->p, &s.plan, 0, i, &truth);
    (void)plan_truth_now(&t->p, &one.plan, 0, i, &alone);
    struct smaller small = smaller_try(&s, i, &t->a);
    put(o, "device", json_string(t->p.device[g->device].name));
    put_num(o, "units", g->units);
    put_num(o, "batch", g->share[i].batch);
    put_num(o, "usual", g->share[i].usual ? g->share[i].usual : g->share[i].batch);
    put_num(o, "rate_rps", g->share[i].rate_rps);
    put_num(o, "most_rps", truth.most_rps);
    put_num(o, "latency_ms", ms(truth.latency_us));
    put_num(o, "run_ms", ms(truth.usual.run_us));
    put_num(o, "alone_run_ms", ms(alone.usual.run_us));
    put_num(o, "slowdown", truth.usual.slowdown);
    put_num(o, "duty", truth.duty);
    put(o, "binds", json_string(binding(&small)));
    put(o, "smaller", report_smaller(&small));
    put(o, "companions", companions(&s, i));
    put(o, "neighbours", neighbours(&s, i));
    return o;
}

/* The part of its devices that a share takes: of its gpu-let as much as of the busy time. */
static double takes(const struct task *t, const struct plan *plan, uint32_t k, uint32_t i)
{
    const struct plan_gpulet *g = &plan->gpulet[k];
    double all = 0, mine = 0;

    for (uint32_t j = 0; j < g->n_shares; j++) {
        struct share_truth truth = {0};
        (void)plan_truth(&t->p, plan, k, j, &truth);
        all += truth.duty;
        mine = j == i ? truth.duty : mine;
    }
    double part = all > 0 ? mine / all : 1.0 / g->n_shares;
    return part * let_granules(g) / let_type(&t->p, g)->n_granules;
}

/* Of one model; a device of each type is as good as all of them. */
static double bound_of(const struct task *t, uint32_t model)
{
    struct plan_device device[PROBLEM_MAX_TYPES];
    struct problem one = t->p;
    struct arena a;

    one.n_models = 1;
    one.model = &t->p.model[model];
    one.n_devices = 0;
    one.device = device;
    for (uint32_t type = 0; type < t->p.n_types; type++)
        for (uint32_t d = 0; d < t->p.n_devices; d++)
            if (t->p.device[d].type == type) {
                device[one.n_devices++] = t->p.device[d];
                break;
            }
    arena_init(&a);
    double bound = plan_bound(&one, &a);
    arena_done(&a);
    return bound;
}

static json_t *explain_model(struct task *t, const struct plan *plan, uint32_t model,
                             json_t *verdict)
{
    json_t *o = json_copy(verdict), *list = json_array();
    double taken = 0;

    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            if (plan->gpulet[k].share[i].model == model) {
                (void)json_array_append_new(list, explain_share(t, plan, k, i));
                taken += takes(t, plan, k, i);
            }
    put_num(o, "devices_taken", taken);
    put_num(o, "bound", bound_of(t, model));
    put(o, "gpulets", list);
    return o;
}

/* ---- for a person */

static void print_binding(json_t *g)
{
    json_t *s = json_object_get(g, "smaller");
    const char *binds = str(g, "binds");
    double units = num(s, "units");

    if (STREQ(binds, "units"))
        printf("    size: no gpu-let can be smaller\n");
    else if (STREQ(binds, "nothing"))
        printf("    size: %.0f units would do as well (batch %.0f); nothing binds it\n", units,
               num(s, "batch"));
    else if (STREQ(binds, "companion"))
        printf("    size: with %.0f units '%s', which shares the gpu-let, would not hold\n", units,
               str(s, "companion"));
    else if (STREQ(binds, "rate"))
        printf("    size: its rate; %.0f units serve %.6g requests/s within the SLO (batch %.0f)\n",
               units, num(s, "most_rps"), num(s, "batch"));
    else
        printf("    size: its SLO; %.0f units hold it with no batch\n", units);
}

#define FELT 1.0005 /* a slowdown below this prints as none */

static void print_others(json_t *g)
{
    unsigned quiet = 0;
    json_t *o;
    size_t i;

    json_array_foreach(json_object_get(g, "companions"), i, o)
    {
        printf("    shares its gpu-let with %s (batch %.0f, %.1f %% of the time)\n",
               str(o, "model"), num(o, "batch"), 100 * num(o, "duty"));
    }
    json_array_foreach(json_object_get(g, "neighbours"), i, o)
    {
        if (num(o, "slows_this") < FELT && num(o, "slowed_by_this") < FELT)
            quiet++;
        else
            printf("    beside %s (%.0f units, batch %.0f, %.1f %% of the time): slowed %.3f times "
                   "by it, slows it %.3f times\n",
                   str(o, "model"), num(o, "units"), num(o, "batch"), 100 * num(o, "duty"),
                   num(o, "slows_this"), num(o, "slowed_by_this"));
    }
    if (quiet > 0)
        printf("    beside %u others that neither slow it nor are slowed by it\n", quiet);
}

static void print_model(json_t *m)
{
    char latency[32], batch[32];
    json_t *g;
    size_t i;

    printf("%s: ", str(m, "model"));
    if (num(m, "slo_ms") > 0)
        printf("SLO %.6g ms, ", num(m, "slo_ms"));
    printf("%.6g requests/s; takes %.3f devices, bound %.3f\n", num(m, "rate_rps"),
           num(m, "devices_taken"), num(m, "bound"));
    if (!yes(m, "met"))
        printf("  UNMET: limit: %s; needed: %s\n", str(m, "limit"), str(m, "needed"));
    json_array_foreach(json_object_get(m, "gpulets"), i, g)
    {
        printf("  %s, %.0f units, batch %s, %.6g requests/s (at most %.6g), busy %.1f %%\n",
               str(g, "device"), num(g, "units"), batch_text(g, batch), num(g, "rate_rps"),
               num(g, "most_rps"), 100 * num(g, "duty"));
        printf("    latency %s ms; a run %.2f ms, alone %.2f ms: slowed %.3f times by all\n",
               ms_text(g, "latency_ms", latency), num(g, "run_ms"), num(g, "alone_run_ms"),
               num(g, "slowdown"));
        print_binding(g);
        print_others(g);
    }
}

static void print_explanation(json_t *o)
{
    json_t *m;
    size_t i;

    json_array_foreach(json_object_get(o, "models"), i, m)
    {
        print_model(m);
    }
    putchar('\n');
    report_print_bound(o);
    putchar('\n');
    if (!yes(o, "valid"))
        printf("NOT VALID: %s\n", str(o, "error"));
}

/* ---- the verb */

static int model_find(const struct task *t, const char *name, uint32_t *ret, struct err *err)
{
    for (uint32_t m = 0; m < t->p.n_models; m++)
        if (STREQ(t->p.model[m].name, name)) {
            *ret = m;
            return 0;
        }
    return err_set(err, -ENOENT, "'%s': there is no model '%s'", t->path, name);
}

/* The report of the plan, its `models` explained, without `gpulets`. */
static json_t *explain(struct task *t, const struct answer *a, uint32_t from, uint32_t to)
{
    json_t *o = report_answer(t, a), *list = json_array();

    progress_begin("explaining");
    for (uint32_t m = from; m < to; m++) {
        json_t *verdict = json_array_get(json_object_get(o, "models"), m);
        (void)json_array_append_new(list, explain_model(t, &a->plan, m, verdict));
        progress_set(NULL, (double)(m - from) / (to - from));
    }
    progress_end();
    put(o, "models", list);
    (void)json_object_del(o, "gpulets");
    return o;
}

int verb_explain(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct task t;
    struct answer a;
    uint32_t from = 0, to;

    if (argc < 1 || argc > 2)
        return err_set(err, -EINVAL, "explain needs a FILE, and a MODEL if only that matters");
    int r = task_open(argv[0], &t, err);
    to = t.p.n_models;
    if (r == 0 && argc == 2) {
        r = model_find(&t, argv[1], &from, err);
        to = from + 1;
    }
    if (r == 0)
        r = task_answer(&t, c, &a, err);
    if (r == 0) {
        json_t *o = explain(&t, &a, from, to);
        if (c->json)
            r = print_json(o, err);
        else
            print_explanation(o);
        json_decref(o);
    }
    task_done(&t);
    return r;
}
