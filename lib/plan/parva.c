/* policy = parva: ParvaGPU (SC'24).  A segment is a gpu-let of one model with a batch and so many
 * processes at once.
 *
 *   Configurator  for each size the (batch, processes) of the profile with the highest throughput
 *                 whose run takes at most slo_part x SLO (published: 0.45); the optimal segment is
 *                 the size with the highest throughput for each granule.  As many of these as the
 *                 rate fills, and one last segment: the smallest size that serves the rest.
 *   Allocator     segments by size, largest first, each at the first free place of the first
 *                 device.
 *   Optimisation  a device that is at most 4/7 full, from the last one on: its segments are
 *                 replaced by small ones (one or two granules) in the gaps of the devices before
 *                 it; if they do not all fit it stays as it was.
 *
 * It knows one type of device: that of the first one. */
#include "published.h"

#include <math.h>

#define SMALL 2 /* granules of a small segment at most */

struct triplet {
    uint32_t batch, streams;
    double rps; /* 0: none holds */
    double run_us;
};

struct segment {
    uint32_t model, size, device; /* size: index */
    struct plan_granules set;
    double need_rps;
};

struct parva {
    struct pub b;
    uint32_t type, n_sizes, size[PLAN_MAX_GRANULES];
    struct triplet *best; /* [model * n_sizes + size] */
    uint32_t n, most;
    struct segment *segment;
    struct plan_granules *used; /* by device */
};

static const struct triplet *triplet_of(const struct parva *v, uint32_t model, uint32_t size)
{
    return &v->best[model * v->n_sizes + size];
}

/* ---- configurator */

static void try_triplet(struct parva *v, uint32_t model, uint32_t size, uint32_t batch,
                        uint32_t streams)
{
    const struct problem *p = v->b.p;
    struct triplet *best = &v->best[model * v->n_sizes + size];
    struct load l = {.profile = &p->model[model].profile[v->type],
                     .batch = batch,
                     .units = v->size[size] * p->type[v->type].granule_units,
                     .streams = streams,
                     .duty = 1};
    struct estimate e;

    if (!predict(&p->type[v->type].predict, &l, NULL, 0, &e) ||
        !within(e.run_us, slo_part(&p->rules) * pub_slo_us(p, model)))
        return;
    double rps = 1e6 * batch * streams / e.hold_us;
    if (rps > best->rps)
        *best = (struct triplet){batch, streams, rps, e.run_us};
}

/* Only what was measured is tried: the batches and numbers of processes of the profile. */
static void configure(struct parva *v, uint32_t model)
{
    const struct problem *p = v->b.p;
    const struct profile *f = &p->model[model].profile[v->type];
    uint32_t most = MAX(p->rules.max_streams, 1u);

    for (uint32_t size = 0; size < v->n_sizes; size++)
        for (uint32_t i = 0; i < f->n_batch; i++)
            for (uint32_t j = 0; j < MAX(f->n_streams, 1u); j++) {
                uint32_t streams = f->n_streams ? f->streams[j] : 1;
                if (f->batch[i] <= p->model[model].max_batch && streams <= most)
                    try_triplet(v, model, size, f->batch[i], streams);
            }
}

/* The size with the most throughput for a granule, of sizes up to `granules`; PLAN_NONE: none. */
static uint32_t optimal_size(const struct parva *v, uint32_t model, uint32_t granules)
{
    uint32_t best = PLAN_NONE;
    double most = 0;

    for (uint32_t s = 0; s < v->n_sizes && v->size[s] <= granules; s++) {
        double each = triplet_of(v, model, s)->rps / v->size[s];
        if (each > most * (1 + 1e-9)) {
            most = each;
            best = s;
        }
    }
    return best;
}

static uint32_t last_size(const struct parva *v, uint32_t model, double rps, uint32_t granules)
{
    for (uint32_t s = 0; s < v->n_sizes && v->size[s] <= granules; s++)
        if (triplet_of(v, model, s)->rps >= rps)
            return s;
    return PLAN_NONE;
}

/* Segments for a rate, from sizes up to `granules`.  They stay behind v->n until they are placed;
 * returns how many, most + 1 when there is no room for more. */
static uint32_t segments_for(struct parva *v, uint32_t model, double rps, uint32_t granules)
{
    uint32_t optimal = optimal_size(v, model, granules), n = 0;

    while (optimal != PLAN_NONE && rps > 1e-6) {
        double each = triplet_of(v, model, optimal)->rps;
        uint32_t s = rps >= each ? optimal : last_size(v, model, rps, granules);
        if (v->n + n == v->most)
            return v->most + 1;
        double serves = fmin(rps, triplet_of(v, model, s)->rps);
        v->segment[v->n + n++] =
            (struct segment){.model = model, .size = s, .device = PLAN_NONE, .need_rps = serves};
        rps -= serves;
    }
    return n;
}

/* ---- allocator */

static bool room_for(const struct parva *v, uint32_t device, const struct segment *x)
{
    const struct plan_rules *r = &v->b.p->rules;
    struct pub_item item[PLAN_MAX_GRANULES + 1];
    uint32_t n = 0;

    if (r->max_lets == 0 && v->b.p->type[v->type].mem_bytes == 0 &&
        v->b.p->type[v->type].n_granules <= CROWD_MAX)
        return true;
    for (uint32_t i = 0; i < v->n; i++) {
        const struct segment *s = &v->segment[i];
        const struct triplet *t = triplet_of(v, s->model, s->size);
        if (s->device == device)
            item[n++] = (struct pub_item){i, s->model, t->batch, t->streams};
    }
    const struct triplet *t = triplet_of(v, x->model, x->size);
    item[n++] = (struct pub_item){PLAN_NONE, x->model, t->batch, t->streams};
    return (r->max_lets == 0 || n <= r->max_lets) && n <= CROWD_MAX &&
           pub_memory_holds(v->b.p, v->type, item, n);
}

/* At the first free place of the first device before `end`. */
static bool place(struct parva *v, struct segment *x, uint32_t end)
{
    const struct plan_type *t = &v->b.p->type[v->type];

    for (uint32_t d = 0; d < end; d++) {
        if (v->b.p->device[d].type != v->type)
            continue;
        uint32_t first = pub_place(t, &v->used[d], v->size[x->size]);
        if (first == PLAN_NONE || !room_for(v, d, x))
            continue;
        x->device = d;
        for (uint32_t i = first; i < first + v->size[x->size]; i++) {
            set_add(&v->used[d], i);
            set_add(&x->set, i);
        }
        return true;
    }
    return false;
}

static void take_out(struct parva *v, struct segment *x)
{
    for (uint32_t i = 0; i < ARRAY_SIZE(x->set.bits); i++)
        v->used[x->device].bits[i] &= ~x->set.bits[i];
    x->device = PLAN_NONE;
    x->set = (struct plan_granules){0};
}

static void allocate(struct parva *v)
{
    for (uint32_t s = v->n_sizes; s-- > 0;)
        for (uint32_t i = 0; i < v->n; i++)
            if (v->segment[i].size == s)
                (void)place(v, &v->segment[i], v->b.p->n_devices);
}

/* ---- optimisation */

static uint32_t granules_used(const struct parva *v, uint32_t device)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < PLAN_MAX_GRANULES; i++)
        n += set_has(&v->used[device], i);
    return n;
}

/* Small segments for what x served, before its device.  False: they are not all placed. */
static bool replace_by_small(struct parva *v, const struct segment *x, uint32_t device)
{
    uint32_t n = segments_for(v, x->model, x->need_rps, SMALL);

    if (n == 0 || n > v->most)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!place(v, &v->segment[v->n], device))
            return false;
        v->n++; /* placed one by one, so that the next sees it */
    }
    return true;
}

/* Everything on this device moves in small segments, or nothing does. */
static void empty_device(struct parva *v, uint32_t device)
{
    uint32_t before = v->n;
    bool all = true;

    for (uint32_t i = 0; i < before && all; i++)
        if (v->segment[i].device == device)
            all = replace_by_small(v, &v->segment[i], device);
    if (!all) {
        for (uint32_t i = before; i < v->n; i++)
            take_out(v, &v->segment[i]);
        v->n = before;
        return;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->segment[i].device != device)
            v->segment[n++] = v->segment[i];
    v->n = n;
    v->used[device] = (struct plan_granules){0};
}

static void optimise(struct parva *v)
{
    for (uint32_t d = v->b.p->n_devices; d-- > 0;) {
        uint32_t used = granules_used(v, d);
        if (used > 0 && 7 * used <= 4 * v->b.p->type[v->type].n_granules)
            empty_device(v, d);
    }
}

/* ---- */

static int emit(struct parva *v, struct err *err)
{
    for (uint32_t d = 0; d < v->b.p->n_devices; d++)
        for (uint32_t i = 0; i < v->n; i++) {
            const struct segment *s = &v->segment[i];
            const struct triplet *t = triplet_of(v, s->model, s->size);
            if (s->device != d)
                continue;
            struct plan_gpulet *g = pub_let(&v->b, d, v->size[s->size], 1);
            if (!g)
                return err_set(err, -ENOMEM, "plan: the arena is too small");
            g->set = s->set;
            pub_share(&v->b, g,
                      &(struct plan_share){.model = s->model,
                                           .batch = t->batch,
                                           .streams = t->streams,
                                           .rate_rps = t->rps,
                                           .run_us = (usec_t)ceil(t->run_us),
                                           .latency_us = (usec_t)ceil(2 * t->run_us)});
        }
    return 0;
}

static void judge(struct parva *v, uint32_t m)
{
    uint32_t s = optimal_size(v, m, PLAN_MAX_GRANULES);
    double rate = pub_rate(v->b.p, m), planned = v->b.planned_rps[m], need = 0;
    enum plan_limit limit = LIMIT_NONE;

    if (s == PLAN_NONE)
        limit = LIMIT_SLO;
    else if (planned < rate - 1e-6) {
        const struct triplet *t = triplet_of(v, m, s);
        struct pub_item item = {0, m, t->batch, t->streams};
        limit = pub_memory_holds(v->b.p, v->type, &item, 1) ? LIMIT_UNITS : LIMIT_MEMORY;
        need = (rate - planned) / t->rps * v->size[s] / v->b.p->type[v->type].n_granules;
    }
    pub_verdict(&v->b, m, limit, (usec_t)ceil(pub_least_us(v->b.p, m) / slo_part(&v->b.p->rules)),
                need);
}

static int set_up(struct parva *v, const struct problem *p, struct arena *a, struct err *err)
{
    v->type = p->device[0].type;
    v->n_sizes = pub_sizes(&p->type[v->type], v->size);
    for (uint32_t d = 0; d < p->n_devices; d++)
        v->most += p->device[d].type == v->type ? p->type[v->type].n_granules : 0;
    v->most *= 2; /* small segments exist beside those that they replace */
    v->best = ARENA_ARRAY(a, struct triplet, (size_t)MAX(p->n_models, 1u) * MAX(v->n_sizes, 1u));
    v->segment = ARENA_ARRAY(a, struct segment, v->most);
    v->used = ARENA_ARRAY(a, struct plan_granules, p->n_devices);
    if (!v->best || !v->segment || !v->used)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    return 0;
}

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    struct parva v = {0};
    int r = problem_check(p, err);

    (void)was;
    if (r < 0 || (r = set_up(&v, p, a, err)) < 0 || (r = pub_begin(&v.b, p, a, v.most, err)) < 0)
        return r;
    for (uint32_t m = 0; m < p->n_models; m++) {
        configure(&v, m);
        uint32_t n = segments_for(&v, m, pub_rate(p, m), PLAN_MAX_GRANULES);
        v.n += n > v.most ? 0 : n; /* more than all devices hold: refused below */
    }
    allocate(&v);
    uint32_t n = 0;
    for (uint32_t i = 0; i < v.n; i++)
        if (v.segment[i].device != PLAN_NONE)
            v.segment[n++] = v.segment[i];
    v.n = n;
    optimise(&v);
    if ((r = emit(&v, err)) < 0)
        return r;
    for (uint32_t m = 0; m < p->n_models; m++)
        judge(&v, m);
    pub_end(&v.b, ret);
    return 0;
}

const struct policy policy_parva = {
    .name = "parva",
    .plan_make = make,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};
