/* The gpu-lets of the devices: one or two on each. */
#include "gpulet.h"

#include <math.h>

/* ---- sizes */

static const uint32_t published_pct[] = {20, 40, 50, 60, 80, 100};

static uint32_t sizes_of(const struct plan_type *t, uint32_t *ret)
{
    uint32_t all[PLAN_MAX_GRANULES], n_all = pub_sizes(t, all), n = 0;

    if (t->n_sizes) {
        for (uint32_t i = n_all > GLET_SIZES ? n_all - GLET_SIZES : 0; i < n_all; i++)
            ret[n++] = all[i];
        return n;
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(published_pct); i++) {
        uint32_t size = MAX((t->n_granules * published_pct[i] + 50) / 100, 1u);
        for (uint32_t j = 0; j < n_all; j++)
            if (all[j] == size && (n == 0 || size > ret[n - 1]))
                ret[n++] = size;
    }
    return n;
}

static bool is_size(const struct gplan *g, uint32_t type, uint32_t granules)
{
    for (uint32_t i = 0; i < g->n_sizes[type]; i++)
        if (g->size[type][i] == granules)
            return true;
    return false;
}

/* The least size that a whole device can be cut into so that the rest is one too; 0: it cannot be
 * cut so, and a device that is no gpu-let by itself serves nobody. */
static uint32_t cut_size(const struct gplan *g, uint32_t type, uint32_t granules)
{
    const struct plan_type *t = &g->p->type[type];

    for (uint32_t i = 0; i < g->n_sizes[type]; i++) {
        uint32_t two[] = {g->size[type][i], t->n_granules - g->size[type][i]};
        if (two[0] < granules)
            continue;
        if (two[1] == 0)
            return two[0];
        if (g->p->rules.max_lets != 1 && is_size(g, type, two[1]) && pub_cut(t, two, 2, NULL))
            return two[0];
    }
    return 0;
}

/* ---- in and out */

static bool is_whole(const struct gplan *g, uint32_t k)
{
    return g->let[k].granules == g->p->type[glet_type(g, k)].n_granules;
}

bool glet_memory_holds(const struct gplan *g, uint32_t device)
{
    struct pub_item item[2 * GLET_SHARES];
    uint32_t n = 0;

    for (uint32_t k = 2 * device; k < 2 * device + 2; k++)
        for (uint32_t i = 0; i < g->let[k].n; i++)
            item[n++] = (struct pub_item){k, g->let[k].share[i].model, g->let[k].share[i].batch, 1};
    return pub_memory_holds(g->p, g->p->device[device].type, item, n);
}

/* A saturated gpu-let runs smaller batches until two of them fit into the SLO. */
static bool saturated_holds(struct gplan *g, uint32_t k)
{
    struct glet_share *s = &g->let[k].share[0];
    double most, slo_us = pub_slo_us(g->p, s->model);

    for (; s->batch > 0; s->batch--) {
        double us =
            glet_est(g, glet_type(g, k), g->let[k].granules, s->model, s->batch, &g->let[k ^ 1]);
        most = 1e6 * s->batch / us;
        if (within(2 * us, slo_us)) {
            s->rps = fmin(s->rps, most);
            g->let[k].duty_us = us;
            return true;
        }
    }
    return false;
}

static bool residue_holds(const struct gplan *g, uint32_t k)
{
    const struct glet *let = &g->let[k];
    double us = let->duty_us;

    for (uint32_t i = 0; i < let->n; i++)
        us += glet_est(g, glet_type(g, k), let->granules, let->share[i].model, let->share[i].batch,
                       &g->let[k ^ 1]);
    for (uint32_t i = 0; i < let->n; i++)
        if (!within(us, GLET_TOLERANCE * pub_slo_us(g->p, let->share[i].model)))
            return false;
    return true;
}

bool glet_neighbours_hold(struct gplan *g, uint32_t k)
{
    if (!g->interference || g->let[k ^ 1].n == 0)
        return true;
    for (uint32_t i = 0; i < 2; i++, k ^= 1)
        if (!(g->let[k].saturated ? saturated_holds(g, k) : residue_holds(g, k)))
            return false;
    return true;
}

bool glet_put(struct gplan *g, uint32_t k, uint32_t model, const struct piece *piece)
{
    struct glet *let = &g->let[k], was[2] = {g->let[k], g->let[k ^ 1]};
    uint32_t type = glet_type(g, k), size = let->granules;

    if (!g->fixed && is_whole(g, k))
        size = cut_size(g, type, piece->granules);
    if (let->n > 0 || let->granules < piece->granules || size == 0)
        return false;
    g->let[k ^ 1].granules += let->granules - size;
    *let = (struct glet){.granules = size,
                         .n = 1,
                         .saturated = piece->saturated,
                         .duty_us = piece->duty_us,
                         .share = {{model, piece->batch, piece->rps}}};
    if (glet_memory_holds(g, k / 2) && glet_neighbours_hold(g, k))
        return true;
    g->let[k] = was[0];
    g->let[k ^ 1] = was[1];
    return false;
}

/* Whole devices are preferred, the last one first; otherwise the least that is too much. */
static double fit_cost(const struct gplan *g, uint32_t k, const struct piece *piece)
{
    if (!g->fixed && is_whole(g, k))
        return -(double)k;
    return 1.0 + g->let[k].granules - piece->granules;
}

uint32_t glet_fit(struct gplan *g, uint32_t model, const struct piece *piece)
{
    memset(g->skip, 0, 2 * (size_t)g->p->n_devices * sizeof(*g->skip));
    for (;;) {
        uint32_t best = PLAN_NONE;
        for (uint32_t k = 0; k < 2 * g->p->n_devices; k++) {
            const struct glet *let = &g->let[k];
            if (let->n || g->skip[k] || let->granules < piece->granules)
                continue;
            if (best == PLAN_NONE || fit_cost(g, k, piece) < fit_cost(g, best, piece))
                best = k;
        }
        if (best == PLAN_NONE || glet_put(g, best, model, piece))
            return best;
        g->skip[best] = true;
    }
}

void glet_clear(struct gplan *g, uint32_t k)
{
    struct glet *let = &g->let[k], *beside = &g->let[k ^ 1];

    *let = (struct glet){.granules = let->granules};
    if (!g->fixed && beside->n == 0 && beside->granules > 0) {
        let->granules += beside->granules;
        *beside = (struct glet){0};
    }
}

double glet_planned(const struct gplan *g, uint32_t model)
{
    double rps = 0;

    for (uint32_t k = 0; k < 2 * g->p->n_devices; k++)
        for (uint32_t i = 0; i < g->let[k].n; i++)
            rps += g->let[k].share[i].model == model ? g->let[k].share[i].rps : 0;
    return rps;
}

/* ---- begin and end */

/* By rate times SLO ascending; of equal ones the larger id first. */
static void order_models(struct gplan *g)
{
    for (uint32_t i = 0; i < g->p->n_models; i++) {
        double x = g->rate_rps[i] * pub_slo_us(g->p, i);
        uint32_t at = i;
        for (; at > 0; at--) {
            uint32_t j = g->order[at - 1];
            if (g->rate_rps[j] * pub_slo_us(g->p, j) < x)
                break;
            g->order[at] = j;
        }
        g->order[at] = i;
    }
}

int glet_begin(struct gplan *g, const struct problem *p, struct arena *a, struct err *err)
{
    size_t lets = 2 * (size_t)p->n_devices, models = MAX(p->n_models, 1u);
    int r = problem_check(p, err);

    if (r < 0)
        return r;
    g->p = p;
    g->n_sizes = ARENA_ARRAY(a, uint32_t, p->n_types);
    g->size = arena_array(a, p->n_types, sizeof(*g->size));
    g->let = ARENA_ARRAY(a, struct glet, lets);
    g->saved = ARENA_ARRAY(a, struct glet, lets);
    g->merging = ARENA_ARRAY(a, struct glet, lets);
    g->skip = ARENA_ARRAY(a, bool, lets);
    g->order = ARENA_ARRAY(a, uint32_t, models);
    g->rate_rps = ARENA_ARRAY(a, double, models);
    g->had_rps = ARENA_ARRAY(a, double, models);
    if (!g->n_sizes || !g->size || !g->let || !g->saved || !g->merging || !g->skip || !g->order ||
        !g->rate_rps || !g->had_rps)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    for (uint32_t t = 0; t < p->n_types; t++)
        g->n_sizes[t] = sizes_of(&p->type[t], g->size[t]);
    for (uint32_t d = 0; d < p->n_devices; d++)
        g->let[2 * d].granules = type_of(p, d)->n_granules;
    for (uint32_t m = 0; m < p->n_models; m++)
        g->rate_rps[m] =
            p->model[m].arrivals == ARRIVALS_PACED ? pub_rate(p, m) : glet_raised(pub_rate(p, m));
    order_models(g);
    return 0;
}

static int emit_let(struct gplan *g, struct pub *b, uint32_t k, struct err *err)
{
    const struct glet *let = &g->let[k];
    struct plan_gpulet *out = pub_let(b, k / 2, let->granules, let->n);
    double all_us = 0, us[GLET_SHARES];

    if (!out)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    for (uint32_t i = 0; i < let->n; i++) {
        us[i] = glet_est(g, glet_type(g, k), let->granules, let->share[i].model,
                         let->share[i].batch, &g->let[k ^ 1]);
        all_us += us[i];
    }
    for (uint32_t i = 0; i < let->n; i++)
        pub_share(b, out,
                  &(struct plan_share){.model = let->share[i].model,
                                       .batch = let->share[i].batch,
                                       .rate_rps = let->share[i].rps,
                                       .run_us = (usec_t)ceil(us[i]),
                                       .latency_us = (usec_t)ceil(let->duty_us + all_us)});
    return 0;
}

/* What the model could have on a device of its own, of the first type. */
static void judge(struct gplan *g, struct pub *b, uint32_t m, double accept)
{
    struct pub_item item = {0, m, 1, 1};
    double planned = glet_planned(g, m), most = 0;

    for (uint32_t i = 0; i < g->n_sizes[0]; i++) {
        double rps;
        (void)glet_saturated(g, 0, g->size[0][i], m, NULL, &rps);
        most = fmax(most, rps);
    }
    bool served = planned > 0 && planned >= accept * g->rate_rps[m] - GLET_EPS;
    enum plan_limit limit = served                                 ? LIMIT_NONE
                            : most <= 0                            ? LIMIT_SLO
                            : !pub_memory_holds(g->p, 0, &item, 1) ? LIMIT_MEMORY
                                                                   : LIMIT_UNITS;
    pub_verdict(b, m, limit, (usec_t)ceil(2 * GLET_BUFFER * pub_least_us(g->p, m)),
                limit == LIMIT_UNITS ? (g->rate_rps[m] - planned) / most : 0);
}

int glet_end(struct gplan *g, struct arena *a, double accept, struct plan *ret, struct err *err)
{
    struct pub b;
    int r = pub_begin(&b, g->p, a, 2 * g->p->n_devices, err);

    for (uint32_t k = 0; r == 0 && k < 2 * g->p->n_devices; k++)
        if (g->let[k].n)
            r = emit_let(g, &b, k, err);
    if (r < 0)
        return r;
    for (uint32_t m = 0; m < g->p->n_models; m++)
        judge(g, &b, m, accept);
    pub_end(&b, ret);
    return 0;
}
