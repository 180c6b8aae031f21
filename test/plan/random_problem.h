/* Problems by seed, for tests and benches of planners: hostile ones of every shape, small ones
 * that can be searched through, and large ones like a real cluster.
 *
 *     struct problem p;
 *     random_problem(seed, RANDOM_HOSTILE, 0, 0, &arena, &p);    everything is in the arena
 *
 * The generator is fixed: results in documents name seeds.  Change it only by adding a kind. */
#pragma once

#include <gpulet/plan.h>
#include <math.h>

enum random_kind {
    RANDOM_HOSTILE, /* any field at its ends: sizes, places, memory, names, rates, SLOs, rules */
    RANDOM_SMALL,   /* 1..4 models, 1..2 devices of 2..4 granules, paced, RULE_PART, nobody disturbs
                     */
    RANDOM_LARGE,   /* n models for about as many devices, paced, RULE_PART, pressure */
};

static inline uint64_t random_next(uint64_t *s) /* splitmix64 */
{
    uint64_t x = *s += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}
static inline uint32_t random_below(uint64_t *s, uint32_t n)
{
    return n ? (uint32_t)(random_next(s) >> 33) % n : 0;
}
static inline double random_unit(uint64_t *s)
{
    return (double)(random_next(s) >> 11) / 9007199254740992.0;
}
/* Between lo and hi, evenly in the logarithm. */
static inline double random_log(uint64_t *s, double lo, double hi)
{
    return lo * pow(hi / lo, random_unit(s));
}
static inline bool random_in(uint64_t *s, uint32_t n) /* once in n */
{
    return random_below(s, n) == 0;
}

/* A run takes fixed + work x batch / units^scaling us.  With a scaling of 1 that is the form of
 * iGniter's published curves (TPDS'22, section 3); hostile problems have worse. */
struct random_shape {
    double fixed_us, work_us, scaling, l2, dram;
};

static inline struct profile random_profile(uint64_t *s, struct arena *a, uint32_t units,
                                            const struct random_shape *shape)
{
    static const uint32_t batches[] = {1, 2, 4, 8, 16, 32};
    uint32_t n_units = 0, at[16];

    for (uint32_t u = units; u > 0 && n_units<6; u = u> 2 ? u * 5 / 8 : u - 1)
        at[n_units++] = u;
    uint32_t *rows = ARENA_ARRAY(a, uint32_t, n_units);
    usec_t *run = ARENA_ARRAY(a, usec_t, (size_t)n_units * 6);
    double *l2 = ARENA_ARRAY(a, double, (size_t)n_units * 6);
    double *dram = ARENA_ARRAY(a, double, (size_t)n_units * 6);
    for (uint32_t i = 0; i < n_units; i++) {
        rows[i] = at[n_units - 1 - i];
        for (uint32_t b = 0; b < 6; b++) {
            double work = shape->work_us * batches[b] / pow(rows[i], shape->scaling);
            double us = (shape->fixed_us + work) * (0.98 + 0.04 * random_unit(s));
            run[i * 6 + b] = us < 1 ? 1 : us > 1e12 ? (usec_t)1e12 : (usec_t)us;
            l2[i * 6 + b] = shape->l2 * rows[i] / units * (work / us);
            dram[i * 6 + b] = shape->dram * rows[i] / units * (work / us);
        }
    }
    return (struct profile){.n_batch = 6,
                            .n_units = n_units,
                            .batch = arena_memdup(a, batches, sizeof(batches)),
                            .units = rows,
                            .run_us = run,
                            .l2 = l2,
                            .dram = dram,
                            .kernels = 50,
                            .measured = true};
}

static inline const uint32_t *random_sizes(uint64_t *s, struct arena *a, uint32_t granules,
                                           uint32_t *n)
{
    uint32_t *size = ARENA_ARRAY(a, uint32_t, granules);

    *n = 0;
    for (uint32_t i = 1; i <= granules; i++)
        if (random_in(s, 2))
            size[(*n)++] = i;
    return size;
}

static inline const struct plan_place *random_places(uint64_t *s, struct arena *a,
                                                     uint32_t granules, uint32_t *n)
{
    struct plan_place *place = ARENA_ARRAY(a, struct plan_place, 12);

    *n = 1 + random_below(s, 12);
    for (uint32_t i = 0; i < *n; i++) {
        place[i].n = 1 + random_below(s, granules);
        place[i].first = random_below(s, granules - place[i].n + 1);
    }
    return place;
}

static inline struct plan_type random_type(uint64_t *s, struct arena *a)
{
    static const uint32_t granules[] = {1, 2, 3, 4, 7, 8, 20, 40, 66, 256};
    struct plan_type t = {.name = "type",
                          .n_granules = granules[random_below(s, 10)],
                          .granule_units = 1 + random_below(s, 4)};

    t.predict.units = t.n_granules * t.granule_units;
    t.max_granules = random_in(s, 4) ? 1 + random_below(s, t.n_granules) : 0;
    if (random_in(s, 4))
        t.size = random_sizes(s, a, t.n_granules, &t.n_sizes);
    if (random_in(s, 5))
        t.place = random_places(s, a, t.n_granules, &t.n_places);
    t.mem_bytes = random_in(s, 3) ? random_below(s, 4000) : 0;
    t.let_bytes = random_in(s, 3) ? random_below(s, 100) : 0;
    t.pool_bytes = random_in(s, 3) ? random_below(s, 500) : 0;
    t.price = random_in(s, 2) ? random_log(s, 0.5, 8) : 0;
    if (random_in(s, 2)) {
        static const double c[5] = {0.1129, 0.7160, 0.3549, 0.0882, 0.8954};
        t.predict.interference.kind = INTERFERE_GPULET; /* seed-systems: RTX 2080 Ti */
        memcpy(t.predict.interference.c, c, sizeof(c));
    }
    return t;
}

static inline struct plan_rules random_rules(uint64_t *s)
{
    struct plan_rules r = {.rule = random_in(s, 4) ? RULE_CYCLE : RULE_PART};

    r.slo_part = random_in(s, 2) ? 0.1 + 0.8 * random_unit(s) : 0;
    r.max_lets = random_in(s, 4) ? 1 + random_below(s, 4) : 0;
    r.max_shares = random_in(s, 3) ? 1 + random_below(s, 4) : 0;
    r.max_streams = random_below(s, 3);
    r.as_few = random_in(s, 2);
    r.steps = random_in(s, 4) ? 1 + random_below(s, 5000) : 2000;
    return r;
}

static inline void random_hostile(uint64_t *s, struct arena *a, struct problem *p)
{
    static const char *const names[] = {"a", "b", "a", "", "model with a long name", "b"};
    struct plan_type *t = ARENA_ARRAY(a, struct plan_type, 3);
    struct plan_device *d = ARENA_ARRAY(a, struct plan_device, 12);
    struct plan_model *m = ARENA_ARRAY(a, struct plan_model, 12);

    *p = (struct problem){.n_types = 1 + random_below(s, 3),
                          .n_devices = 1 + random_below(s, random_in(s, 2) ? 12 : 3),
                          .n_models = random_below(s, 13)};
    p->rules = random_rules(s);
    for (uint32_t i = 0; i < p->n_types; i++)
        t[i] = random_type(s, a);
    for (uint32_t i = 0; i < p->n_devices; i++)
        d[i] = (struct plan_device){"device", random_below(s, p->n_types)};
    for (uint32_t i = 0; i < p->n_models; i++) {
        struct profile *f = ARENA_ARRAY(a, struct profile, p->n_types);
        struct random_shape shape = {.fixed_us = random_log(s, 1, 1e5),
                                     .work_us = random_log(s, 1, 1e6),
                                     .scaling = 0.2 + 0.8 * random_unit(s),
                                     .l2 = random_unit(s),
                                     .dram = random_unit(s)};
        for (uint32_t x = 0; x < p->n_types; x++)
            f[x] = random_profile(s, a, t[x].predict.units, &shape);
        m[i] = (struct plan_model){.name = names[random_below(s, 6)],
                                   .slo_us = random_in(s, 6) ? 0 : (usec_t)random_log(s, 10, 1e7),
                                   .rate_rps = random_in(s, 8) ? 0 : random_log(s, 0.01, 1e5),
                                   .arrivals = ARRIVALS_PACED,
                                   .max_batch = 1 + random_below(s, random_in(s, 2) ? 64 : 4),
                                   .priority = (int32_t)random_below(s, 4) - 1,
                                   .weights_bytes = random_in(s, 2) ? random_below(s, 1500) : 0,
                                   .slot_bytes = random_in(s, 2) ? random_below(s, 300) : 0,
                                   .row_bytes = random_in(s, 4) ? random_below(s, 20) : 0,
                                   .weights_per_let = random_in(s, 4),
                                   .profile = f};
    }
    p->type = t;
    p->device = d;
    p->model = m;
}

/* Rates and SLOs that make sense: each model takes `load` of a device, its SLO is 2.5 to 10 times
 * a run of 8 on half a device. */
static inline void random_cluster(uint64_t *s, struct arena *a, uint32_t n_models,
                                  uint32_t n_devices, uint32_t granules, uint32_t units,
                                  double load_lo, double load_hi, double scaling,
                                  uint32_t max_batch, struct problem *p)
{
    struct plan_type *t = ARENA_ARRAY(a, struct plan_type, 1);
    struct plan_device *d = ARENA_ARRAY(a, struct plan_device, n_devices);
    struct plan_model *m = ARENA_ARRAY(a, struct plan_model, n_models);

    *t = (struct plan_type){.name = "gpu",
                            .n_granules = granules,
                            .granule_units = units / granules,
                            .predict = {.units = units}};
    for (uint32_t i = 0; i < n_devices; i++)
        d[i] = (struct plan_device){"gpu", 0};
    for (uint32_t i = 0; i < n_models; i++) {
        struct random_shape shape = {.fixed_us = random_log(s, 200, 3000),
                                     .scaling = scaling,
                                     .l2 = 0.1 + 0.5 * random_unit(s),
                                     .dram = 0.1 + 0.6 * random_unit(s)};
        shape.work_us = shape.fixed_us * random_log(s, 0.5, 10) * pow(units, shape.scaling) / 4;
        struct profile *f = arena_memdup(a, &(struct profile){0}, sizeof(*f));
        *f = random_profile(s, a, units, &shape);
        double run_us = shape.fixed_us + shape.work_us * 8 / pow(units / 2.0, shape.scaling);
        double full_us = shape.fixed_us + shape.work_us * 32 / pow(units, shape.scaling);
        m[i] = (struct plan_model){.name = "model",
                                   .slo_us = (usec_t)(run_us * random_log(s, 2.5, 10)),
                                   .rate_rps = 32e6 / full_us * random_log(s, load_lo, load_hi),
                                   .arrivals = ARRIVALS_PACED,
                                   .max_batch = max_batch,
                                   .profile = f};
    }
    *p = (struct problem){.n_types = 1,
                          .n_devices = n_devices,
                          .n_models = n_models,
                          .type = t,
                          .device = d,
                          .model = m,
                          .rules = {.rule = RULE_PART, .as_few = true}};
}

static inline void random_problem(uint64_t seed, enum random_kind kind, uint32_t n_models,
                                  uint32_t n_devices, struct arena *a, struct problem *p)
{
    uint64_t s = seed * UINT64_C(0x2545f4914f6cdd1d) + kind;

    if (kind == RANDOM_HOSTILE) {
        random_hostile(&s, a, p);
    } else if (kind == RANDOM_SMALL) {
        uint32_t granules = 2 + random_below(&s, 3);
        n_models = n_models ? n_models : 1 + random_below(&s, 4);
        n_devices = n_devices ? n_devices : 1 + random_below(&s, 2);
        random_cluster(&s, a, n_models, n_devices, granules, granules * 8, 0.1, 0.7, 0.85, 32, p);
    } else {
        /* popularity is heavy-tailed: 0.01 to 5 devices each, 0.8 on average; twenty granules */
        random_cluster(&s, a, n_models, n_devices, 20, 80, 0.01, 5.0, 1, 128, p);
        struct plan_type *t = (struct plan_type *)(uintptr_t)p->type;
        t->predict.interference.kind = INTERFERE_PRESSURE;
        t->predict.interference.n_terms = 4;
        /* as fitted to the V100 pairs, rounded: see test/data */
        t->predict.interference.term[0] = 0.08;
        t->predict.interference.term[1] = 0.01;
    }
}
