/* policy = igniter, and its baseline ffd (iGniter, TPDS'22; sections in docs/papers.md).
 *
 * Every workload gets a gpu-let of its own.  Batch and least share come first, as if it were alone:
 *
 *   batch  the rows that come while a run of T = slo_part x SLO computes, its load overlapped:
 *          b = ceil(T R / (1 + R d_load / B)), at most max_batch
 *   share  the least at which a run of b takes at most T and keeps up with the rate.  The paper
 *          solves its curve for it; we ask predict() size by size, which is the same for its curve
 *          and works for tables
 *
 * igniter (algorithms 1 and 2): largest share first; on every device in use the newcomer is tried
 * at its least share, and whoever is then over T grows by one size until nobody is or the device
 * is full; the device whose shares grow least takes it, else a new one.
 * ffd: first fit by decreasing share; nobody is asked what he does to his neighbours.
 *
 * A workload too large for a device fills devices at 90 % of what one serves until the rest fits.
 * Served as by the release's server (Triton): a free gpu-let takes what waits, up to its batch.
 *
 * What the release does not check is checked: a new device is predicted like any other, T that no
 * share can hold is LIMIT_SLO, and who finds no device is LIMIT_UNITS or LIMIT_MEMORY. */
#include "whole.h"

#include <math.h>

#define DEDICATED_PART 0.9

struct work {
    uint32_t model, size, batch; /* size: index into those of the type */
    double rate_rps, grown;
};

struct card { /* a device */
    uint32_t n;
    struct work *work;
};

struct igniter {
    struct pub b;
    bool interference;
    uint32_t most;                                 /* works on a device */
    uint32_t *n_sizes, (*size)[PLAN_MAX_GRANULES]; /* by type */
    uint32_t n_open;
    struct card *card;
    struct work *trial, *best;
};

static double part_us(const struct igniter *g, uint32_t model)
{
    return slo_part(&g->b.p->rules) * pub_slo_us(g->b.p, model);
}

static struct load work_load(const struct igniter *g, uint32_t type, const struct work *w)
{
    const struct problem *p = g->b.p;

    return (struct load){.profile = &p->model[w->model].profile[type],
                         .batch = w->batch,
                         .units = g->size[type][w->size] * p->type[type].granule_units,
                         .duty = 1};
}

/* Does w hold its part of the SLO and its rate beside the others? */
static bool work_holds(const struct igniter *g, uint32_t type, const struct work *w,
                       const struct load *other, uint32_t n)
{
    struct load me = work_load(g, type, w);
    struct estimate e;

    return predict(&g->b.p->type[type].predict, &me, other, n, &e) &&
           within(e.run_us, part_us(g, w->model)) &&
           within(w->rate_rps * e.hold_us, 1e6 * w->batch);
}

/* ---- alone (section 4.1) */

static uint32_t batch_for(const struct igniter *g, uint32_t type, uint32_t model, double rate_rps)
{
    const struct profile *f = &g->b.p->model[model].profile[type];
    double link = g->b.p->type[type].predict.link_bps;
    double in = f->curve ? f->curve->in_bytes : f->in_bytes;
    double load_us = link > 0 ? 1e6 * in / link : 0;
    double rows = ceil(part_us(g, model) * rate_rps / (1e6 + rate_rps * load_us) - 1e-9);

    return (uint32_t)fmax(1, fmin(rows, g->b.p->model[model].max_batch));
}

/* The least share that holds alone; false: none does. */
static bool least_size(const struct igniter *g, uint32_t type, struct work *w)
{
    for (w->size = 0; w->size < g->n_sizes[type]; w->size++)
        if (work_holds(g, type, w, NULL, 0))
            return true;
    return false;
}

/* A device of its own: the largest batch within T, and what it serves.  0: not even one row. */
static double dedicated_rps(const struct igniter *g, uint32_t type, struct work *w)
{
    if (g->n_sizes[type] == 0)
        return 0;
    w->size = g->n_sizes[type] - 1;
    w->rate_rps = 0;
    for (w->batch = g->b.p->model[w->model].max_batch; w->batch > 0; w->batch--) {
        struct load l = work_load(g, type, w);
        struct estimate e;
        if (predict(&g->b.p->type[type].predict, &l, NULL, 0, &e) &&
            within(e.run_us, part_us(g, w->model)))
            return DEDICATED_PART * 1e6 * w->batch / e.hold_us;
    }
    return 0;
}

/* ---- together (section 4.2) */

static bool sizes_fit(const struct igniter *g, uint32_t device, const struct work *w, uint32_t n)
{
    const struct problem *p = g->b.p;
    uint32_t type = p->device[device].type, granules[PLAN_MAX_GRANULES];
    struct pub_item item[PLAN_MAX_GRANULES];

    for (uint32_t i = 0; i < n; i++) {
        granules[i] = g->size[type][w[i].size];
        item[i] = (struct pub_item){i, w[i].model, w[i].batch, 1};
    }
    return (!p->rules.max_lets || n <= p->rules.max_lets) &&
           pub_cut(&p->type[type], granules, n, NULL) && pub_memory_holds(p, type, item, n);
}

/* Let whoever is over T grow until nobody is.  False: the device is full first. */
static bool grow(const struct igniter *g, uint32_t device, struct work *w, uint32_t n)
{
    uint32_t type = g->b.p->device[device].type;
    bool again = g->interference;

    while (again && sizes_fit(g, device, w, n)) {
        struct load other[PLAN_MAX_GRANULES];
        bool over[PLAN_MAX_GRANULES];
        again = false;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = 0, at = 0; j < n; j++)
                if (j != i)
                    other[at++] = work_load(g, type, &w[j]);
            over[i] = !work_holds(g, type, &w[i], other, n - 1);
        }
        for (uint32_t i = 0; i < n; i++) {
            if (!over[i])
                continue;
            if (w[i].size + 1 == g->n_sizes[type])
                return false;
            w[i].size++;
            again = true;
        }
    }
    return sizes_fit(g, device, w, n);
}

static double units_of(const struct igniter *g, uint32_t device, const struct work *w, uint32_t n)
{
    uint32_t type = g->b.p->device[device].type, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += g->size[type][w[i].size];
    return (double)sum / g->b.p->type[type].n_granules;
}

/* The newcomer on this device, in g->trial; how much the shares of all together grow (itself
 * counts by what it grew over its least share); infinite: it cannot be there. */
static double try_device(struct igniter *g, uint32_t device, const struct work *w)
{
    const struct card *c = &g->card[device];
    uint32_t type = g->b.p->device[device].type;
    struct work newcomer = *w;

    newcomer.batch = batch_for(g, type, w->model, w->rate_rps);
    if (c->n == g->most || !least_size(g, type, &newcomer))
        return INFINITY;
    for (uint32_t i = 0; i < c->n; i++)
        g->trial[i] = c->work[i];
    g->trial[c->n] = newcomer;
    double before = units_of(g, device, g->trial, c->n + 1);
    if (!grow(g, device, g->trial, c->n + 1))
        return INFINITY;
    return units_of(g, device, g->trial, c->n + 1) - before;
}

static int device_open(struct igniter *g, struct err *err)
{
    struct card *c = &g->card[g->n_open];

    c->work = ARENA_ARRAY(g->b.a, struct work, g->most);
    if (!c->work)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    g->n_open++;
    return 0;
}

static void take_trial(struct igniter *g, uint32_t device, const struct work *trial)
{
    struct card *c = &g->card[device];

    c->n++;
    memcpy(c->work, trial, c->n * sizeof(*trial));
}

/* -ENOSPC: no device has room. */
static int place(struct igniter *g, const struct work *w, struct err *err)
{
    uint32_t best = PLAN_NONE;
    double least = INFINITY;
    int r = 0;

    for (uint32_t d = 0; d < g->n_open && !(best != PLAN_NONE && !g->interference); d++) {
        double grown = try_device(g, d, w);
        if (grown < least) {
            best = d;
            least = grown;
            memcpy(g->best, g->trial, (g->card[d].n + 1) * sizeof(*g->best));
        }
    }
    while (best == PLAN_NONE && g->n_open < g->b.p->n_devices) {
        if ((r = device_open(g, err)) < 0)
            return r;
        if (try_device(g, g->n_open - 1, w) < INFINITY) {
            best = g->n_open - 1;
            memcpy(g->best, g->trial, sizeof(*g->best));
        } else if (g->b.p->n_types == 1) {
            g->n_open--; /* nor would it run on the next one */
            return -ENOSPC;
        }
    }
    if (best == PLAN_NONE)
        return -ENOSPC;
    take_trial(g, best, g->best);
    return 0;
}

/* Fill devices until the rest fits on less than one.  Returns 0 with the rest in w, or -ENOSPC. */
static int fill_devices(struct igniter *g, struct work *w, struct err *err)
{
    for (;;) {
        uint32_t next = MIN(g->n_open, g->b.p->n_devices - 1), type = g->b.p->device[next].type;
        struct work whole = *w;
        w->batch = batch_for(g, type, w->model, w->rate_rps);
        if (least_size(g, type, w))
            return 0;
        double rps = dedicated_rps(g, type, &whole);
        if (rps <= 0 || g->n_open == g->b.p->n_devices || !sizes_fit(g, next, &whole, 1))
            return -ENOSPC;
        /* A rest that the formula's batch cannot serve may be less than such a device serves. */
        whole.rate_rps = fmin(rps, w->rate_rps);
        int r = device_open(g, err);
        if (r < 0)
            return r;
        g->trial[0] = whole;
        take_trial(g, g->n_open - 1, g->trial);
        w->rate_rps -= whole.rate_rps;
        if (w->rate_rps <= 0)
            return 0;
    }
}

/* ---- */

static double least_part(const struct igniter *g, const struct work *w)
{
    struct work t = *w;
    uint32_t type = g->b.p->device[0].type;

    t.batch = batch_for(g, type, t.model, t.rate_rps);
    return least_size(g, type, &t) ? g->size[type][t.size] : g->b.p->type[type].n_granules;
}

/* Largest least share first; equal ones stay in order (insertion: stable). */
static void sort_works(const struct igniter *g, struct work *w, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        w[i].grown = least_part(g, &w[i]);
    for (uint32_t i = 1; i < n; i++) {
        struct work x = w[i];
        uint32_t at = i;
        for (; at > 0 && w[at - 1].grown < x.grown; at--)
            w[at] = w[at - 1];
        w[at] = x;
    }
}

static int give_up(struct igniter *g, const struct work *w)
{
    struct work one = {.model = w->model, .batch = 1};
    double most_rps = dedicated_rps(g, 0, &one);
    double least_us = pub_least_us(g->b.p, w->model) / slo_part(&g->b.p->rules);

    one.batch = MAX(one.batch, 1u);
    struct pub_item item = {0, w->model, one.batch, 1};
    enum plan_limit limit = most_rps <= 0                            ? LIMIT_SLO
                            : !pub_memory_holds(g->b.p, 0, &item, 1) ? LIMIT_MEMORY
                                                                     : LIMIT_UNITS;
    pub_verdict(&g->b, w->model, limit, (usec_t)ceil(least_us),
                limit == LIMIT_UNITS ? w->rate_rps / most_rps : 0);
    return 0;
}

static int place_all(struct igniter *g, struct work *w, struct err *err)
{
    for (uint32_t i = 0; i < g->b.p->n_models; i++) {
        int r = fill_devices(g, &w[i], err);
        if (r == 0 && w[i].rate_rps > 0)
            r = place(g, &w[i], err);
        if (r == -ENOSPC)
            r = give_up(g, &w[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int emit(struct igniter *g, struct err *err)
{
    for (uint32_t d = 0; d < g->n_open; d++)
        for (uint32_t i = 0; i < g->card[d].n; i++) {
            const struct work *w = &g->card[d].work[i];
            uint32_t type = g->b.p->device[d].type;
            struct load l = work_load(g, type, w);
            struct estimate e;
            (void)predict(&g->b.p->type[type].predict, &l, NULL, 0, &e);
            struct plan_gpulet *let = pub_let(&g->b, d, g->size[type][w->size], 1);
            if (!let)
                return err_set(err, -ENOMEM, "plan: the arena is too small");
            pub_share(&g->b, let,
                      &(struct plan_share){.model = w->model,
                                           .batch = w->batch,
                                           .rate_rps = w->rate_rps,
                                           .run_us = (usec_t)ceil(e.run_us),
                                           .latency_us = (usec_t)ceil(e.run_us + e.hold_us)});
        }
    return 0;
}

static int set_up(struct igniter *g, struct work **w, struct err *err)
{
    const struct problem *p = g->b.p;

    g->most = MIN(PLAN_MAX_GRANULES, PREDICT_NEIGHBOURS_MAX + 1);
    g->n_sizes = ARENA_ARRAY(g->b.a, uint32_t, p->n_types);
    g->size = arena_array(g->b.a, p->n_types, sizeof(*g->size));
    g->card = ARENA_ARRAY(g->b.a, struct card, p->n_devices);
    g->trial = ARENA_ARRAY(g->b.a, struct work, PLAN_MAX_GRANULES);
    g->best = ARENA_ARRAY(g->b.a, struct work, PLAN_MAX_GRANULES);
    *w = ARENA_ARRAY(g->b.a, struct work, MAX(p->n_models, 1u));
    if (!g->n_sizes || !g->size || !g->card || !g->trial || !g->best || !*w)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    for (uint32_t t = 0; t < p->n_types; t++)
        g->n_sizes[t] = pub_sizes(&p->type[t], g->size[t]);
    for (uint32_t m = 0; m < p->n_models; m++)
        (*w)[m] = (struct work){.model = m, .rate_rps = pub_rate(p, m)};
    return 0;
}

static int make(const struct problem *p, bool interference, struct arena *a, struct plan *ret,
                struct err *err)
{
    struct igniter g = {.interference = interference};
    struct work *w;
    int r = pub_begin(&g.b, p, a, p->n_models + p->n_devices, err);

    if (r < 0 || (r = set_up(&g, &w, err)) < 0)
        return r;
    sort_works(&g, w, p->n_models);
    if ((r = place_all(&g, w, err)) < 0 || (r = emit(&g, err)) < 0)
        return r;
    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct plan_verdict v = g.b.plan.verdict[m];
        pub_verdict(&g.b, m, v.limit, v.least_slo_us, v.need);
    }
    pub_end(&g.b, ret);
    return 0;
}

static int make_igniter(const struct problem *p, const struct plan *was, struct arena *a,
                        struct plan *ret, struct err *err)
{
    (void)was; /* all is stopped and planned afresh */
    return make(p, true, a, ret, err);
}

static int make_ffd(const struct problem *p, const struct plan *was, struct arena *a,
                    struct plan *ret, struct err *err)
{
    (void)was;
    return make(p, false, a, ret, err);
}

const struct policy policy_igniter = {
    .name = "igniter",
    .plan_make = make_igniter,
    .admit = open_admit,
    .route = weighted_route,
    .batch_next = max_delay_batch_next,
};

const struct policy policy_ffd = {
    .name = "ffd",
    .plan_make = make_ffd,
    .admit = open_admit,
    .route = weighted_route,
    .batch_next = max_delay_batch_next,
};
