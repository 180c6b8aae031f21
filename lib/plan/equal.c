/* policy = equal: every model gets an equal share of the granules.
 *
 * The devices are cut into as many equal gpu-lets as there are models (at least as many as the
 * largest partition allows, at most one per granule; fewer, and the rest is left, where sizes,
 * places, memory or their number are limited).  Then models are placed one by one, those
 * with the tightest SLO first and those without one last, each into the gpu-let with the fewest
 * models where it breaks nobody's SLO; gpu-lets that are still empty then take a second copy of
 * the models in turn.  A model whose SLO cannot hold is placed last, where it harms least.
 *
 * Latency rule: a request that just missed a batch waits for one run of everything in its gpu-let
 * and then for its own run:  bound(i) = run(i) + sum over shares j of run(j).  Batches are halved,
 * best effort first, until the SLOs hold; at batch 1 that is the smallest SLO that can hold. */
#include "published.h"

struct job {
    const struct problem *p;
    struct plan *plan;
    uint32_t *order; /* models, in the order of placement */
    uint64_t *used;  /* bytes, by device */
    bool *resident;  /* [device * n_models + model] */
};

static usec_t run_us(const struct problem *p, const struct plan_gpulet *g, uint32_t model,
                     uint32_t batch)
{
    return predict_run_us(profile_of(p, model, g->device), batch, g->units);
}

/* bound(i) for share i of g. */
static usec_t share_bound(const struct plan_gpulet *g, uint32_t i)
{
    usec_t sum = g->share[i].run_us;

    for (uint32_t j = 0; j < g->n_shares; j++)
        sum += g->share[j].run_us;
    return sum;
}

static void share_set_batch(const struct problem *p, struct plan_gpulet *g, uint32_t i,
                            uint32_t batch)
{
    g->share[i].batch = batch;
    g->share[i].run_us = run_us(p, g, g->share[i].model, batch);
}

/* Which share of g to shrink so that a broken SLO has a chance: the longest run with a batch
 * above 1, a model without an SLO before all others.  PLAN_NONE: none can. */
static uint32_t share_to_shrink(const struct problem *p, const struct plan_gpulet *g)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t i = 0; i < g->n_shares; i++) {
        if (g->share[i].batch <= 1)
            continue;
        bool free_i = p->model[g->share[i].model].slo_us == 0;
        bool free_best = best != PLAN_NONE && p->model[g->share[best].model].slo_us == 0;
        if (best == PLAN_NONE || (free_i && !free_best) ||
            (free_i == free_best && g->share[i].run_us > g->share[best].run_us))
            best = i;
    }
    return best;
}

static bool share_holds(const struct problem *p, const struct plan_gpulet *g, uint32_t i)
{
    usec_t slo_us = p->model[g->share[i].model].slo_us;

    return slo_us == 0 || share_bound(g, i) <= slo_us;
}

/* SLOs that g breaks. */
static uint32_t broken(const struct problem *p, const struct plan_gpulet *g)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->n_shares; i++)
        n += !share_holds(p, g, i);
    return n;
}

/* Largest batches at which as many SLOs hold as hold at batch 1. */
static void fit_batches(const struct problem *p, struct plan_gpulet *g)
{
    for (uint32_t i = 0; i < g->n_shares; i++)
        share_set_batch(p, g, i, 1);
    uint32_t least = broken(p, g);

    for (uint32_t i = 0; i < g->n_shares; i++)
        share_set_batch(p, g, i, p->model[g->share[i].model].max_batch);
    while (broken(p, g) > least) {
        uint32_t i = share_to_shrink(p, g);
        assert(i != PLAN_NONE); /* at batch 1 everywhere, broken() is least */
        share_set_batch(p, g, i, g->share[i].batch / 2);
    }
}

/* With the most rows that it may run: batches are chosen later. */
static uint64_t extra_bytes(const struct job *w, uint32_t device, uint32_t model)
{
    const struct plan_model *m = &w->p->model[model];
    bool has = w->resident[device * w->p->n_models + model] && !m->weights_per_let;

    return m->slot_bytes + m->max_batch * m->row_bytes + (has ? 0 : m->weights_bytes);
}

static bool has_model(const struct plan_gpulet *g, uint32_t model)
{
    for (uint32_t i = 0; i < g->n_shares; i++)
        if (g->share[i].model == model)
            return true;
    return false;
}

/* SLOs broken in g with the model added, or PLAN_NONE when it cannot be there at all. */
static uint32_t harm(const struct job *w, struct plan_gpulet *g, uint32_t model)
{
    uint64_t mem = type_of(w->p, g->device)->mem_bytes;

    if (has_model(g, model) || g->n_shares == pub_max_shares(w->p, w->p->n_models) ||
        (mem && w->used[g->device] + extra_bytes(w, g->device, model) > mem))
        return PLAN_NONE;
    g->share[g->n_shares++] = (struct plan_share){.model = model};
    fit_batches(w->p, g);
    uint32_t n = broken(w->p, g);
    g->n_shares--;
    fit_batches(w->p, g);
    return n;
}

static void place(struct job *w, struct plan_gpulet *g, uint32_t model)
{
    w->used[g->device] += extra_bytes(w, g->device, model);
    w->resident[g->device * w->p->n_models + model] = true;
    g->share[g->n_shares++] = (struct plan_share){.model = model};
    fit_batches(w->p, g);
}

/* Put the model where it breaks least: then fewest models, then first. */
static bool place_best(struct job *w, uint32_t model)
{
    struct plan_gpulet *best = NULL;
    uint32_t best_harm = PLAN_NONE;

    for (uint32_t k = 0; k < w->plan->n_gpulets; k++) {
        struct plan_gpulet *g = &w->plan->gpulet[k];
        uint32_t before = broken(w->p, g), n = harm(w, g, model);
        if (n == PLAN_NONE)
            continue;
        n -= MIN(n, before);
        if (!best || n < best_harm || (n == best_harm && g->n_shares < best->n_shares)) {
            best = g;
            best_harm = n;
        }
    }
    if (best)
        place(w, best, model);
    return best != NULL;
}

/* Could this model hold its SLO alone on the largest gpu-let? */
static bool can_hold(const struct job *w, uint32_t model)
{
    usec_t slo_us = w->p->model[model].slo_us, least_us = USEC_NEVER;

    for (uint32_t k = 0; k < w->plan->n_gpulets; k++)
        least_us = MIN(least_us, 2 * run_us(w->p, &w->plan->gpulet[k], model, 1));
    return slo_us && least_us <= slo_us;
}

/* Models in order of placement: can hold their SLO (by priority, tightest first), no SLO, the
 * rest.  Insertion sort: stable, allocates nothing, and n is small for this policy. */
static void sort_models(struct job *w)
{
    const struct plan_model *m = w->p->model;

    for (uint32_t i = 0; i < w->p->n_models; i++) {
        uint32_t class_i = can_hold(w, i) ? 0 : m[i].slo_us ? 2 : 1;
        uint32_t level_i = m[i].priority > 0 ? (uint32_t)m[i].priority : UINT32_MAX;
        uint32_t at = i;
        for (; at > 0; at--) {
            uint32_t j = w->order[at - 1];
            uint32_t class_j = can_hold(w, j) ? 0 : m[j].slo_us ? 2 : 1;
            uint32_t level_j = m[j].priority > 0 ? (uint32_t)m[j].priority : UINT32_MAX;
            if (class_j != class_i   ? class_j < class_i
                : level_j != level_i ? level_j < level_i
                                     : m[j].slo_us <= m[i].slo_us)
                break;
            w->order[at] = w->order[at - 1];
        }
        w->order[at] = i;
    }
}

/* So many as are wanted, or the most below that that the device allows; each has *size granules,
 * which is 0 where they can be cut freely. */
static uint32_t lets_allowed(const struct plan_type *t, uint32_t lets, uint32_t *size)
{
    uint32_t sizes[PLAN_MAX_GRANULES], same[PLAN_MAX_GRANULES] = {0};
    uint32_t n = pub_sizes(t, sizes);

    for (; lets > 0; lets--) {
        *size = 0;
        for (uint32_t i = 0; i < n && sizes[i] <= t->n_granules / lets; i++)
            *size = sizes[i];
        for (uint32_t i = 0; i < lets; i++)
            same[i] = *size;
        if (*size && pub_cut(t, same, lets, NULL))
            break;
    }
    return lets;
}

static uint32_t device_lets(const struct problem *p, uint32_t device, uint32_t *size)
{
    const struct plan_type *d = type_of(p, device);
    uint64_t all = 0;

    *size = 0;
    for (uint32_t i = 0; i < p->n_devices; i++)
        all += type_of(p, i)->n_granules;
    uint64_t models = ((uint64_t)p->n_models * d->n_granules + all - 1) / MAX(all, 1);
    uint32_t lets = (uint32_t)MAX(MIN(models, d->n_granules), 1);
    uint32_t least = d->max_granules ? (d->n_granules + d->max_granules - 1) / d->max_granules : 1;
    uint32_t most = pub_max_lets(p, device);
    lets = MAX(lets, least);
    if (d->n_sizes || d->n_places || most < lets)
        return lets_allowed(d, MIN(lets, most), size);
    return lets;
}

/* Gpu-lets of one size, where the device has places for them. */
static void cut_sized(const struct plan_type *t, struct plan_gpulet *g, uint32_t lets,
                      uint32_t size)
{
    uint32_t same[PLAN_MAX_GRANULES] = {0};
    struct plan_granules set[PLAN_MAX_GRANULES] = {0};

    for (uint32_t k = 0; k < lets; k++)
        same[k] = size;
    (void)pub_cut(t, same, lets, set); /* as device_lets() has asked */
    for (uint32_t k = 0; k < lets; k++) {
        g[k].set = set[k];
        g[k].units = size * t->granule_units;
    }
}

/* As equal as can be, of all granules. */
static void cut_freely(const struct plan_type *t, struct plan_gpulet *g, uint32_t lets)
{
    for (uint32_t k = 0, from = 0; k < lets; k++) {
        uint32_t to = (uint32_t)((uint64_t)t->n_granules * (k + 1) / lets);
        g[k].units = (to - from) * t->granule_units;
        for (; from < to; from++)
            set_add(&g[k].set, from);
    }
}

/* Cut each device into equal runs of granules. */
static int cut(struct job *w, struct arena *a)
{
    uint32_t at = 0;

    for (uint32_t d = 0; d < w->p->n_devices; d++) {
        const struct plan_type *t = type_of(w->p, d);
        uint32_t size, lets = device_lets(w->p, d, &size);
        struct plan_gpulet *g = &w->plan->gpulet[at];
        if (size)
            cut_sized(t, g, lets, size);
        else
            cut_freely(t, g, lets);
        w->used[d] = t->pool_bytes + lets * t->let_bytes;
        for (at += lets; g < &w->plan->gpulet[at]; g++) {
            g->device = d;
            g->share = ARENA_ARRAY(a, struct plan_share, w->p->n_models);
            if (!g->share)
                return -ENOMEM;
        }
    }
    return 0;
}

static void fill_empty(struct job *w)
{
    uint32_t next = 0;

    for (uint32_t k = 0; k < w->plan->n_gpulets; k++) {
        struct plan_gpulet *g = &w->plan->gpulet[k];
        for (uint32_t tries = 0; g->n_shares == 0 && tries < w->p->n_models; tries++) {
            uint32_t model = w->order[next++ % w->p->n_models];
            if (harm(w, g, model) != PLAN_NONE)
                place(w, g, model);
        }
    }
}

static void judge(struct job *w)
{
    for (uint32_t m = 0; m < w->p->n_models; m++) {
        const struct plan_model *model = &w->p->model[m];
        struct plan_verdict *v = &w->plan->verdict[m];
        bool holds = true, placed = false;

        for (uint32_t k = 0; k < w->plan->n_gpulets; k++) {
            struct plan_gpulet *g = &w->plan->gpulet[k];
            usec_t cycle_us = 0, others_us = 0;
            uint32_t mine = PLAN_NONE;
            for (uint32_t i = 0; i < g->n_shares; i++) {
                cycle_us += g->share[i].run_us;
                if (g->share[i].model == m)
                    mine = i;
                else
                    others_us += g->share[i].run_us;
            }
            if (mine == PLAN_NONE)
                continue;
            usec_t least_us = others_us + 2 * run_us(w->p, g, m, 1);
            /* A request may be routed to any of them: the worst one counts. */
            v->least_slo_us = MAX(v->least_slo_us, least_us);
            v->most_rps += g->share[mine].batch * 1e6 / (double)cycle_us;
            holds &= share_holds(w->p, g, mine);
            placed = true;
        }
        v->limit = !placed                                        ? LIMIT_MEMORY
                   : !holds                                       ? LIMIT_SLO
                   : model->rate_rps > v->most_rps * (1.0 + 1e-9) ? LIMIT_RATE
                                                                  : LIMIT_NONE;
    }
}

/* A model's rate is split by what each of its gpu-lets can serve. */
static void split_rates(struct job *w)
{
    for (uint32_t k = 0; k < w->plan->n_gpulets; k++) {
        struct plan_gpulet *g = &w->plan->gpulet[k];
        usec_t cycle_us = 0;
        for (uint32_t i = 0; i < g->n_shares; i++)
            cycle_us += g->share[i].run_us;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            uint32_t m = g->share[i].model;
            double most = w->plan->verdict[m].most_rps;
            double part = g->share[i].batch * 1e6 / (double)cycle_us;
            g->share[i].rate_rps = most > 0 ? w->p->model[m].rate_rps * part / most : 0;
        }
    }
}

size_t equal_need(const struct problem *p)
{
    size_t lets = 0;
    uint32_t size;

    for (uint32_t d = 0; d < p->n_devices; d++)
        lets += device_lets(p, d, &size);
    return 256 +
           lets * (sizeof(struct plan_gpulet) + p->n_models * sizeof(struct plan_share) + 32) +
           p->n_models * (sizeof(struct plan_verdict) + sizeof(uint32_t) + p->n_devices) +
           p->n_devices * sizeof(uint64_t) + 16 * 8;
}

static int plan_make_equal(const struct problem *p, const struct plan *was, struct arena *a,
                           struct plan *ret, struct err *err)
{
    struct plan plan = {.n_models = p->n_models};
    struct job w = {.p = p, .plan = &plan};
    uint32_t size;
    int r = problem_check(p, err);

    (void)was; /* the cut depends on the number of models alone: what can stay, stays */
    if (r < 0)
        return r;
    for (uint32_t d = 0; d < p->n_devices; d++)
        plan.n_gpulets += device_lets(p, d, &size);
    plan.gpulet = ARENA_ARRAY(a, struct plan_gpulet, plan.n_gpulets);
    plan.verdict = ARENA_ARRAY(a, struct plan_verdict, p->n_models);
    w.order = ARENA_ARRAY(a, uint32_t, p->n_models);
    w.used = ARENA_ARRAY(a, uint64_t, p->n_devices);
    w.resident = ARENA_ARRAY(a, bool, (size_t)p->n_devices * p->n_models);
    if (!plan.gpulet || !plan.verdict || !w.order || !w.used || !w.resident || cut(&w, a) < 0)
        return err_set(err, -ENOMEM, "plan: the arena is too small");

    if (p->n_models) {
        sort_models(&w);
        for (uint32_t i = 0; i < p->n_models; i++)
            (void)place_best(&w, w.order[i]); /* a model left out gets LIMIT_MEMORY */
        fill_empty(&w);
    }
    judge(&w);
    split_rates(&w);
    *ret = plan;
    return 0;
}

const struct policy policy_equal = {
    .name = "equal",
    .plan_make = plan_make_equal,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};
