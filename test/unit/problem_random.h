/* Random problems and plans by seed, and whether two are the same, field by field. */
#pragma once

#include <gpulet/plan.h>
#include <stdio.h>

struct random {
    uint64_t s;
    struct arena *a;
};

static inline uint32_t below(struct random *r, uint32_t n)
{
    r->s ^= r->s << 13;
    r->s ^= r->s >> 7;
    r->s ^= r->s << 17;
    return (uint32_t)(r->s >> 32) % n;
}

/* Now and then 0, else anything of up to 17 digits below `most`. */
static inline double real(struct random *r, double most)
{
    if (below(r, 4) == 0)
        return 0;
    return most * (below(r, 1000000) + below(r, 1000000) / 1e6) / 1e6;
}

static inline uint64_t bytes(struct random *r)
{
    return below(r, 3) ? (uint64_t)below(r, UINT32_MAX) << below(r, 16) : 0;
}

static inline const char *name_of(struct random *r, const char *what, uint32_t i)
{
    static const char *const odd[] = {"", " a b", "\"", "\\", "/", "\xc3\xa9", "-0"};

    return arena_printf(r->a, "%s%u%s", what, i, odd[below(r, ARRAY_SIZE(odd))]);
}

static inline const uint32_t *ascending(struct random *r, uint32_t n, uint32_t step)
{
    uint32_t *x = ARENA_ARRAY(r->a, uint32_t, n);

    for (uint32_t i = 0; i < n; i++)
        x[i] = (i ? x[i - 1] : 0) + 1 + below(r, step);
    return x;
}

static inline const double *reals(struct random *r, size_t n, double most)
{
    double *x = ARENA_ARRAY(r->a, double, n);

    if (below(r, 2))
        return NULL;
    for (size_t i = 0; i < n; i++)
        x[i] = below(r, 5) ? real(r, most) : -1;
    return x;
}

static inline const usec_t *times(struct random *r, size_t n)
{
    usec_t *x = ARENA_ARRAY(r->a, usec_t, n);

    for (size_t i = 0; i < n; i++)
        x[i] = below(r, 5) ? 1 + below(r, UINT32_C(1) << (1 + below(r, 31))) : 0;
    return x;
}

static inline const struct igniter_curve *random_curve(struct random *r)
{
    struct igniter_curve *c = ARENA_NEW(r->a, struct igniter_curve);

    for (uint32_t i = 0; i < 5; i++)
        c->k[i] = real(r, 100) - real(r, 100);
    c->kernels = below(r, 100);
    c->sched_ms = real(r, 1);
    c->in_bytes = real(r, 1e6);
    c->watts_base = 0 - real(r, 10);
    c->cache_per_pct = real(r, 0.01);
    return c;
}

static inline void random_profile(struct random *r, struct profile *p)
{
    *p = (struct profile){.n_batch = 1 + below(r, 5),
                          .n_units = 1 + below(r, 4),
                          .n_streams = below(r, 2) ? 1 + below(r, 3) : 0,
                          .kernels = below(r, 50),
                          .in_bytes = real(r, 1e7),
                          .measured = below(r, 2)};
    size_t cells = (size_t)p->n_batch * p->n_units * MAX(p->n_streams, 1u);
    double *host = ARENA_ARRAY(r->a, double, p->n_batch);

    p->batch = ascending(r, p->n_batch, 9);
    p->units = ascending(r, p->n_units, 30);
    p->streams = p->n_streams ? ascending(r, p->n_streams, 2) : NULL;
    for (uint32_t i = 0; i < p->n_batch; i++)
        host[i] = below(r, 100000);
    p->host_us = below(r, 2) ? host : NULL;
    p->curve = below(r, 4) ? NULL : random_curve(r);
    p->run_us = p->curve && below(r, 2) ? NULL : times(r, cells);
    p->upper_us = below(r, 2) ? times(r, cells) : NULL;
    p->l2 = reals(r, cells, 1);
    p->dram = reals(r, cells, 1);
    p->watts = reals(r, cells, 300);
}

static inline void random_type(struct random *r, uint32_t i, struct plan_type *t)
{
    *t = (struct plan_type){.name = name_of(r, "type", i),
                            .n_granules = 1 + below(r, PLAN_MAX_GRANULES),
                            .granule_units = 1 + below(r, 20),
                            .mem_bytes = bytes(r),
                            .let_bytes = bytes(r),
                            .pool_bytes = bytes(r),
                            .price = real(r, 10)};
    struct plan_place *place = ARENA_ARRAY(r->a, struct plan_place, 5);
    struct interference *x = &t->predict.interference;

    t->max_granules = below(r, t->n_granules + 1);
    t->in_turn = below(r, 2);
    t->n_sizes = below(r, MIN(t->n_granules, 5u));
    t->size = ascending(r, t->n_sizes, t->n_granules / 5 + 1);
    while (t->n_sizes && t->size[t->n_sizes - 1] > t->n_granules)
        t->n_sizes--;
    t->n_places = below(r, 5);
    t->place = place;
    for (uint32_t k = 0; k < t->n_places; k++) {
        place[k].first = below(r, t->n_granules);
        place[k].n = 1 + below(r, t->n_granules - place[k].first);
    }
    t->predict.units = t->n_granules * t->granule_units + below(r, 3);
    t->predict.link_bps = real(r, 1e11);
    x->kind = (enum interfere_kind)below(r, 4);
    if (x->kind != INTERFERE_NONE) {
        x->max_mhz = 1 + below(r, 2000);
        x->max_watts = 1 + real(r, 300);
        x->mhz_per_watt = 0 - real(r, 2);
        x->sched_base_ms = 0 - real(r, 1);
    }
    for (uint32_t k = 0; k < 5 && x->kind == INTERFERE_GPULET; k++)
        x->c[k] = real(r, 1) - real(r, 1);
    x->n_terms = x->kind == INTERFERE_PRESSURE ? below(r, PRESSURE_TERMS + 1) : 0;
    for (uint32_t k = 0; k < x->n_terms; k++)
        x->term[k] = real(r, 1) - real(r, 1);
}

static inline void random_model(struct random *r, uint32_t i, const struct problem *p,
                                struct plan_model *all)
{
    struct plan_model *m = &all[i];
    struct profile *f = ARENA_ARRAY(r->a, struct profile, p->n_types);

    *m = (struct plan_model){.name = name_of(r, "model", i),
                             .slo_us = below(r, 2) ? below(r, UINT32_C(3600000000)) : 0,
                             .rate_rps = real(r, below(r, 2) ? 1e9 : 10),
                             .arrivals = (enum arrivals)below(r, 5),
                             .cv = real(r, 10),
                             .max_batch = 1 + below(r, 1024),
                             .priority = (int32_t)below(r, 4),
                             .weights_bytes = bytes(r),
                             .slot_bytes = bytes(r),
                             .row_bytes = bytes(r),
                             .weights_per_let = below(r, 2),
                             .profile = f};
    for (uint32_t t = 0; t < p->n_types; t++)
        random_profile(r, &f[t]);
    if (i > 0 && below(r, 3) == 0)
        m->profile = all[below(r, i)].profile;
}

static inline void random_problem(struct arena *a, uint64_t seed, struct problem *ret)
{
    struct random x = {seed * UINT64_C(0x9e3779b97f4a7c15), a}, *r = &x;
    struct problem p = {
        .n_types = 1 + below(r, 3), .n_devices = below(r, 9), .n_models = below(r, 6)};
    struct plan_type *t = ARENA_ARRAY(a, struct plan_type, p.n_types);
    struct plan_device *d = ARENA_ARRAY(a, struct plan_device, p.n_devices);
    struct plan_model *m = ARENA_ARRAY(a, struct plan_model, p.n_models);
    uint32_t of_type[3] = {0};

    for (uint32_t i = 0; i < p.n_types; i++)
        random_type(r, i, &t[i]);
    for (uint32_t i = 0; i < p.n_devices; i++) {
        d[i].type = below(r, p.n_types);
        d[i].name = below(r, 3) ? arena_printf(a, "%s-%u", t[d[i].type].name, of_type[d[i].type]++)
                                : name_of(r, "device", i);
    }
    p.type = t;
    p.device = d;
    p.model = m;
    for (uint32_t i = 0; i < p.n_models; i++)
        random_model(r, i, &p, m);
    p.rules = (struct plan_rules){.rule = (enum plan_rule)below(r, 3),
                                  .slo_part = real(r, 1),
                                  .violations = real(r, 1),
                                  .max_lets = below(r, 5),
                                  .max_shares = below(r, 5),
                                  .max_streams = below(r, 5),
                                  .as_few = below(r, 2),
                                  .steps = bytes(r) >> 16};
    *ret = p;
}

/* Of any granules and models: a plan file need not be a valid plan. */
static inline void random_plan(struct arena *a, uint64_t seed, const struct problem *p,
                               struct plan *ret)
{
    struct random x = {seed * UINT64_C(0x9e3779b97f4a7c15) + 1, a}, *r = &x;

    *ret = (struct plan){.n_gpulets = p->n_devices && p->n_models ? below(r, 6) : 0,
                         .n_models = p->n_models,
                         .bound = real(r, 10),
                         .steps = below(r, 1000)};
    ret->gpulet = ARENA_ARRAY(a, struct plan_gpulet, ret->n_gpulets);
    ret->verdict = ARENA_ARRAY(a, struct plan_verdict, ret->n_models);
    for (uint32_t k = 0; k < ret->n_gpulets; k++) {
        struct plan_gpulet *g = &ret->gpulet[k];
        g->device = below(r, p->n_devices);
        const struct plan_type *t = &p->type[p->device[g->device].type];
        for (uint32_t i = 0; i < t->n_granules; i++)
            if (below(r, 3)) {
                g->set.bits[i / 64] |= UINT64_C(1) << i % 64;
                g->units += t->granule_units;
            }
        g->n_shares = below(r, 4);
        g->share = ARENA_ARRAY(a, struct plan_share, g->n_shares);
        for (uint32_t i = 0; i < g->n_shares; i++)
            g->share[i] = (struct plan_share){.model = below(r, p->n_models),
                                              .batch = 1 + below(r, 1024),
                                              .usual = below(r, 9),
                                              .streams = below(r, 4),
                                              .rate_rps = real(r, 1000),
                                              .run_us = below(r, 1000000),
                                              .latency_us = below(r, UINT32_MAX)};
    }
    for (uint32_t m = 0; m < ret->n_models; m++)
        ret->verdict[m] = (struct plan_verdict){.limit = (enum plan_limit)below(r, 5),
                                                .least_slo_us = below(r, UINT32_MAX),
                                                .most_rps = real(r, 1e5),
                                                .need = real(r, 3),
                                                .least = real(r, 3),
                                                .key = bytes(r) << below(r, 17)};
}

/* ---- equality */

#define SAME(x) (a->x == b->x)
#define SAME_LIST(x, n) (!a->x == !b->x && (!a->x || memcmp(a->x, b->x, (n) * sizeof(*a->x)) == 0))

static inline bool curve_same(const struct igniter_curve *a, const struct igniter_curve *b)
{
    return (!a && !b) || (a && b && memcmp(a, b, sizeof(*a)) == 0); /* doubles alone */
}

/* Microseconds that the file has in milliseconds: but for the last bits. */
static inline bool host_same(const double *a, const double *b, uint32_t n)
{
    for (uint32_t i = 0; a && b && i < n; i++)
        if (!(a[i] - b[i] <= a[i] * 1e-14 && b[i] - a[i] <= a[i] * 1e-14))
            return false;
    return !a == !b;
}

static inline bool profile_same(const struct profile *a, const struct profile *b)
{
    size_t cells = (size_t)a->n_batch * a->n_units * MAX(a->n_streams, 1u);

    return SAME(n_batch) && SAME(n_units) && SAME(n_streams) && SAME_LIST(batch, a->n_batch) &&
           SAME_LIST(units, a->n_units) && SAME_LIST(streams, a->n_streams) &&
           SAME_LIST(run_us, cells) && SAME_LIST(upper_us, cells) &&
           host_same(a->host_us, b->host_us, a->n_batch) && SAME_LIST(l2, cells) &&
           SAME_LIST(dram, cells) && SAME_LIST(watts, cells) && SAME(kernels) && SAME(in_bytes) &&
           SAME(out_bytes) && SAME(measured) && curve_same(a->curve, b->curve);
}

static inline bool type_same(const struct plan_type *a, const struct plan_type *b)
{
    const struct interference *x = &a->predict.interference, *y = &b->predict.interference;

    return STREQ(a->name, b->name) && SAME(n_granules) && SAME(granule_units) &&
           SAME(max_granules) && SAME(n_sizes) && SAME(n_places) && SAME(mem_bytes) &&
           SAME(let_bytes) && SAME(pool_bytes) && SAME(price) && SAME(predict.units) &&
           SAME(predict.link_bps) && SAME(predict.dram_bps) &&
           (!a->n_sizes || SAME_LIST(size, a->n_sizes)) &&
           (!a->n_places || SAME_LIST(place, a->n_places)) && x->kind == y->kind &&
           x->max_mhz == y->max_mhz && x->max_watts == y->max_watts &&
           x->idle_watts == y->idle_watts && x->mhz_per_watt == y->mhz_per_watt &&
           x->sched_ms == y->sched_ms && x->sched_base_ms == y->sched_base_ms &&
           memcmp(x->c, y->c, sizeof(x->c)) == 0 && x->n_terms == y->n_terms &&
           memcmp(x->term, y->term, sizeof(x->term)) == 0;
}

static inline bool model_same(const struct plan_model *a, const struct plan_model *b,
                              uint32_t n_types)
{
    for (uint32_t t = 0; t < n_types; t++)
        if (!profile_same(&a->profile[t], &b->profile[t]))
            return false;
    return STREQ(a->name, b->name) && SAME(slo_us) && SAME(rate_rps) && SAME(arrivals) &&
           SAME(cv) && SAME(max_batch) && SAME(priority) && SAME(weights_bytes) &&
           SAME(slot_bytes) && SAME(row_bytes) && SAME(weights_per_let);
}

static inline bool rules_same(const struct plan_rules *a, const struct plan_rules *b)
{
    return SAME(rule) && SAME(slo_part) && SAME(violations) && SAME(max_lets) && SAME(max_shares) &&
           SAME(max_streams) && SAME(as_few) && SAME(steps);
}

static inline bool problem_same(const struct problem *a, const struct problem *b)
{
    if (!SAME(n_types) || !SAME(n_devices) || !SAME(n_models) || !rules_same(&a->rules, &b->rules))
        return false;
    for (uint32_t i = 0; i < a->n_types; i++)
        if (!type_same(&a->type[i], &b->type[i]))
            return false;
    for (uint32_t i = 0; i < a->n_devices; i++)
        if (!STREQ(a->device[i].name, b->device[i].name) || !SAME(device[i].type))
            return false;
    for (uint32_t i = 0; i < a->n_models; i++)
        if (!model_same(&a->model[i], &b->model[i], a->n_types))
            return false;
    return true;
}

static inline bool share_same(const struct plan_share *a, const struct plan_share *b)
{
    return SAME(model) && SAME(batch) && SAME(usual) && SAME(streams) && SAME(rate_rps) &&
           SAME(run_us) && SAME(latency_us);
}

static inline bool gpulet_same(const struct plan_gpulet *a, const struct plan_gpulet *b)
{
    if (!SAME(device) || !SAME(units) || !SAME(n_shares) ||
        memcmp(&a->set, &b->set, sizeof(a->set)) != 0)
        return false;
    for (uint32_t i = 0; i < a->n_shares; i++)
        if (!share_same(&a->share[i], &b->share[i]))
            return false;
    return true;
}

static inline bool plan_same(const struct plan *a, const struct plan *b)
{
    if (!SAME(n_gpulets) || !SAME(n_models) || !SAME(bound) || !SAME(steps))
        return false;
    for (uint32_t k = 0; k < a->n_gpulets; k++)
        if (!gpulet_same(&a->gpulet[k], &b->gpulet[k]))
            return false;
    for (uint32_t m = 0; m < a->n_models; m++)
        if (!SAME(verdict[m].limit) || !SAME(verdict[m].least_slo_us) ||
            !SAME(verdict[m].most_rps) || !SAME(verdict[m].need) || !SAME(verdict[m].least) ||
            !SAME(verdict[m].key))
            return false;
    return true;
}
