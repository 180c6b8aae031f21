/* What is left to models of best effort: plan_model.best_effort.
 *
 * A policy never sees them.  It plans for the models that are promised something, and what it did
 * not need is handed out afterwards: granules that nobody has become gpu-lets of all best-effort
 * models, and in every other gpu-let they get a seat behind the others if one run of theirs is
 * short enough.  So they are counted in nobody's capacity, and whatever the policy plans next
 * takes its units back.
 *
 * Short enough: a run that has begun is not interrupted, so a request may find one that takes up
 * to spare_us and then waits as it would have.  Half of what the tightest promise of the gpu-let
 * has left at its predicted latency (by the rule: the worst, or the 99th percentile) makes hardly
 * anybody late who would not have been: latencies beyond it are rare, and rarer still by as much
 * again. */
#include "check_priv.h"
#include <math.h>

#define SPARE_PART 0.5 /* of what a promise has left */
#define RUN_PART 0.8   /* of that: a run may take longer than it was predicted */

/* The problem without them, and which model is which. */
struct sure {
    const struct problem *p;
    struct problem only;
    uint32_t n_rest;
    uint32_t *of;   /* [only.n_models]: number in p */
    uint32_t *to;   /* [p->n_models]: number in only */
    uint32_t *rest; /* [n_rest]: those of best effort, by priority */
    struct arena *a;
};

uint32_t sure_shares(const struct problem *p, const struct plan_gpulet *g)
{
    uint32_t n = 0;

    while (n < g->n_shares && !p->model[g->share[n].model].best_effort)
        n++;
    return n;
}

static uint32_t level(const struct plan_model *m)
{
    return m->priority > 0 ? (uint32_t)m->priority : UINT32_MAX;
}

static void rest_add(struct sure *s, uint32_t model)
{
    uint32_t i = s->n_rest++;

    for (; i > 0 && level(&s->p->model[s->rest[i - 1]]) > level(&s->p->model[model]); i--)
        s->rest[i] = s->rest[i - 1];
    s->rest[i] = model;
}

static int sure_split(struct sure *s)
{
    const struct problem *p = s->p;
    struct plan_model *m = ARENA_ARRAY(s->a, struct plan_model, p->n_models);
    uint32_t n = 0;

    s->of = ARENA_ARRAY(s->a, uint32_t, p->n_models);
    s->to = ARENA_ARRAY(s->a, uint32_t, p->n_models);
    s->rest = ARENA_ARRAY(s->a, uint32_t, p->n_models);
    if (!m || !s->of || !s->to || !s->rest)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->n_models; i++) {
        s->to[i] = n;
        if (p->model[i].best_effort) {
            rest_add(s, i);
            continue;
        }
        s->of[n] = i;
        m[n++] = p->model[i];
    }
    s->only = *p;
    s->only.n_models = n;
    s->only.model = m;
    return 0;
}

/* The running plan as the policy made it.  Gpu-lets of best effort alone have never been. */
static int was_split(const struct sure *s, const struct plan *was, struct plan *ret)
{
    *ret = *was;
    ret->n_gpulets = 0;
    ret->n_models = was->n_models == s->p->n_models ? s->only.n_models : 0;
    ret->gpulet = ARENA_ARRAY(s->a, struct plan_gpulet, was->n_gpulets);
    ret->verdict = ARENA_ARRAY(s->a, struct plan_verdict, ret->n_models);
    if (!ret->gpulet || !ret->verdict)
        return -ENOMEM;
    for (uint32_t i = 0; i < ret->n_models; i++)
        ret->verdict[i] = was->verdict[s->of[i]];
    for (uint32_t k = 0; k < was->n_gpulets; k++) {
        const struct plan_gpulet *from = &was->gpulet[k];
        struct plan_gpulet *g = &ret->gpulet[ret->n_gpulets];
        uint32_t n = sure_shares(s->p, from);
        if (n == 0 && from->n_shares > 0)
            continue;
        *g = *from;
        g->n_shares = n;
        g->share = ARENA_ARRAY(s->a, struct plan_share, n);
        if (!g->share)
            return -ENOMEM;
        for (uint32_t i = 0; i < n; i++) {
            g->share[i] = from->share[i];
            g->share[i].model = s->to[from->share[i].model];
        }
        ret->n_gpulets++;
    }
    return 0;
}

/* ---- the policy's plan in the problem's numbers, with room for more */

static uint32_t granules_free(const struct problem *p, const struct plan *plan, uint32_t device,
                              struct plan_granules *ret)
{
    uint32_t n = 0;

    *ret = (struct plan_granules){0};
    for (uint32_t i = 0; i < type_of(p, device)->n_granules; i++) {
        bool taken = false;
        for (uint32_t k = 0; k < plan->n_gpulets && !taken; k++)
            taken = plan->gpulet[k].device == device && set_has(&plan->gpulet[k].set, i);
        if (!taken) {
            set_add(ret, i);
            n++;
        }
    }
    return n;
}

static int verdicts_join(const struct sure *s, const struct plan *from, struct plan *ret)
{
    ret->n_models = s->p->n_models;
    ret->verdict = ARENA_ARRAY(s->a, struct plan_verdict, ret->n_models);
    if (!ret->verdict)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->only.n_models; i++)
        ret->verdict[s->of[i]] = from->verdict[i];
    for (uint32_t i = 0; i < s->n_rest; i++)
        ret->verdict[s->rest[i]].limit = LIMIT_UNITS; /* until it has a place */
    return 0;
}

static int let_join(const struct sure *s, const struct plan_gpulet *from, struct plan_gpulet *ret)
{
    *ret = *from;
    ret->share = ARENA_ARRAY(s->a, struct plan_share, (size_t)from->n_shares + s->n_rest);
    if (!ret->share)
        return -ENOMEM;
    for (uint32_t i = 0; i < from->n_shares; i++) {
        ret->share[i] = from->share[i];
        ret->share[i].model = s->of[from->share[i].model];
    }
    return 0;
}

/* ---- how long a run may be */

static usec_t let_spare(const struct problem *p, const struct plan *plan, uint32_t k)
{
    const struct plan_gpulet *g = &plan->gpulet[k];
    double least_us = SPARE_ANY_US;

    for (uint32_t i = 0; i < sure_shares(p, g); i++) {
        usec_t slo_us = p->model[g->share[i].model].slo_us;
        struct share_truth t = {.latency_us = INFINITY};
        /* An SLO that cannot be held is no promise. */
        if (!slo_us || plan->verdict[g->share[i].model].limit == LIMIT_SLO)
            continue;
        if (plan_truth_now(p, plan, k, i, &t) < 0)
            t.latency_us = INFINITY;
        least_us = fmin(least_us, fmax(SPARE_PART * ((double)slo_us - t.latency_us), 0));
    }
    return (usec_t)least_us;
}

void plan_spare(const struct problem *p, struct plan *plan)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        plan->gpulet[k].spare_us = let_spare(p, plan, k);
}

/* ---- handing out */

static double run_us(const struct problem *p, uint32_t model, const struct plan_gpulet *g,
                     uint32_t batch)
{
    struct load l = {.profile = profile_of(p, model, g->device),
                     .batch = batch,
                     .units = g->units,
                     .streams = 1,
                     .duty = 1};
    struct estimate e;

    return predict(&type_of(p, g->device)->predict, &l, NULL, 0, &e) ? e.run_us : INFINITY;
}

/* The most rows in a run that is short enough; 0: not even one. */
static uint32_t most_rows(const struct problem *p, uint32_t model, const struct plan_gpulet *g)
{
    double limit_us = RUN_PART * (double)g->spare_us;
    uint32_t lo = 0, hi = p->model[model].max_batch;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (run_us(p, model, g, mid) <= limit_us)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* Does everybody hold who is said to, beside runs of best effort that never end? */
static bool all_hold(const struct problem *p, const struct plan *plan, uint32_t device)
{
    if (type_of(p, device)->predict.interference.kind == INTERFERE_NONE)
        return true;
    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        for (uint32_t i = 0; g->device == device && i < sure_shares(p, g); i++) {
            struct share_truth t;
            if (plan->verdict[g->share[i].model].limit == LIMIT_NONE &&
                !(plan_truth_now(p, plan, k, i, &t) == 0 && t.holds))
                return false;
        }
    }
    return true;
}

/* A seat in that gpu-let, if there is time, memory and quiet for it. */
static bool seat_give(const struct problem *p, const struct plan *was, struct plan *plan,
                      struct plan_gpulet *g, uint32_t model)
{
    uint32_t rows = most_rows(p, model, g);

    if (rows == 0 || (p->rules.max_shares && g->n_shares >= p->rules.max_shares))
        return false;
    g->share[g->n_shares++] = (struct plan_share){
        .model = model, .batch = rows, .run_us = (usec_t)ceil(run_us(p, model, g, rows))};
    if (memory_holds(p, was, plan, g->device) && all_hold(p, plan, g->device)) {
        plan->verdict[model].limit = LIMIT_NONE;
        return true;
    }
    g->n_shares--;
    return false;
}

static bool place_free(const struct plan_granules *left, const struct plan_place *at)
{
    for (uint32_t i = at->first; i < at->first + at->n; i++)
        if (!set_has(left, i))
            return false;
    return true;
}

/* The most of what is free that one gpu-let can have: how many granules. */
static uint32_t set_choose(const struct plan_type *t, const struct plan_granules *left, uint32_t n,
                           struct plan_granules *ret)
{
    uint32_t most = t->max_granules ? MIN(n, t->max_granules) : n, size = t->n_sizes ? 0 : most;
    const struct plan_place *best = NULL;

    *ret = (struct plan_granules){0};
    for (uint32_t i = 0; i < t->n_sizes; i++)
        if (t->size[i] <= most)
            size = MAX(size, t->size[i]);
    for (uint32_t i = 0; i < t->n_places; i++)
        if (t->place[i].n <= size && place_free(left, &t->place[i]) &&
            (!best || t->place[i].n > best->n))
            best = &t->place[i];
    if (t->n_places)
        size = best ? best->n : 0;
    for (uint32_t i = best ? best->first : 0, put = 0; put < size; i++)
        if (set_has(left, i)) {
            set_add(ret, i);
            put++;
        }
    return size;
}

/* Gpu-lets of granules that nobody has. */
static int lets_give(const struct sure *s, const struct plan *was, struct plan *plan,
                     uint32_t device)
{
    const struct plan_type *t = type_of(s->p, device);
    uint32_t most = s->p->rules.max_lets ? s->p->rules.max_lets : UINT32_MAX, n_lets = 0;
    struct plan_granules left;
    uint32_t n = granules_free(s->p, plan, device, &left), size;

    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        n_lets += plan->gpulet[k].device == device;
    while (n > 0 && n_lets < most) {
        struct plan_gpulet *g = &plan->gpulet[plan->n_gpulets];
        *g = (struct plan_gpulet){.device = device, .spare_us = SPARE_ANY_US};
        size = set_choose(t, &left, n, &g->set);
        g->units = size * t->granule_units;
        g->share = ARENA_ARRAY(s->a, struct plan_share, s->n_rest);
        if (!g->share)
            return -ENOMEM;
        plan->n_gpulets++;
        for (uint32_t i = 0; size > 0 && i < s->n_rest; i++)
            (void)seat_give(s->p, was, plan, g, s->rest[i]);
        if (g->n_shares == 0) {
            plan->n_gpulets--;
            return 0;
        }
        for (size_t i = 0; i < ARRAY_SIZE(left.bits); i++)
            left.bits[i] &= ~g->set.bits[i];
        n -= size;
        n_lets++;
    }
    return 0;
}

/* Device by device, so that the plan stays in their order. */
static int give_all(const struct sure *s, const struct plan *from, const struct plan *was,
                    struct plan *ret)
{
    for (uint32_t d = 0; d < s->p->n_devices; d++) {
        uint32_t first = ret->n_gpulets;
        for (uint32_t k = 0; k < from->n_gpulets; k++)
            if (from->gpulet[k].device == d &&
                let_join(s, &from->gpulet[k], &ret->gpulet[ret->n_gpulets++]) < 0)
                return -ENOMEM;
        uint32_t end = ret->n_gpulets;
        for (uint32_t k = first; k < end; k++)
            ret->gpulet[k].spare_us = let_spare(s->p, ret, k);
        int r = lets_give(s, was, ret, d);
        if (r < 0)
            return r;
        for (uint32_t k = first; k < end; k++)
            for (uint32_t i = 0; i < s->n_rest; i++)
                (void)seat_give(s->p, was, ret, &ret->gpulet[k], s->rest[i]);
    }
    return 0;
}

static int spare_give(const struct sure *s, const struct plan *from, const struct plan *was,
                      struct plan *ret)
{
    size_t room = from->n_gpulets;
    struct plan_granules left;
    int r;

    *ret = *from;
    ret->n_gpulets = 0;
    for (uint32_t d = 0; d < s->p->n_devices; d++)
        room += granules_free(s->p, from, d, &left);
    ret->gpulet = ARENA_ARRAY(s->a, struct plan_gpulet, room + 1);
    r = ret->gpulet ? verdicts_join(s, from, ret) : -ENOMEM;
    return r < 0 ? r : give_all(s, from, was, ret);
}

int policy_plan(const struct policy *policy, const struct problem *p, const struct plan *was,
                struct arena *a, struct plan *ret, struct err *err)
{
    struct sure s = {.p = p, .a = a};
    struct plan before, plan = {0}, all;
    uint32_t n = 0;
    int r;

    for (uint32_t i = 0; i < p->n_models; i++)
        n += p->model[i].best_effort;
    if (n == 0)
        return policy->plan_make(p, was, a, ret, err);
    if (problem_check(p, err) < 0)
        return -EINVAL;
    if (sure_split(&s) < 0 || (was && was_split(&s, was, &before) < 0))
        return err_set(err, -ENOMEM, "out of memory for the plan");
    if (s.only.n_models > 0 &&
        (r = policy->plan_make(&s.only, was ? &before : NULL, a, &plan, err)) < 0)
        return r;
    if (spare_give(&s, &plan, was, &all) < 0)
        return err_set(err, -ENOMEM, "out of memory for the plan");
    *ret = all;
    return 0;
}
