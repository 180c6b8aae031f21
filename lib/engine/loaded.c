/* An opened version of a model, and what it costs.
 *
 * The profile is a table over the batch buckets and the sizes that a gpu-let can have.  It starts
 * as an estimate (FLOPs and bytes over the device's rates).  Measured points are kept beside it and
 * make the table (lib/plan/surface.c).
 *
 * Free dimensions other than the batch have no value until a request brings one.  For the
 * estimate, and to find operators that the backend lacks while loading, a usual number is tried. */
#include "engine_priv.h"

#define FLOPS_PER_UNIT 5e9 /* of a device that does not say */
#define MEM_BYTES_PER_S 5e9
#define RUN_OVERHEAD_US 20.0
#define UNITS_MAX 20   /* sizes in the table: powers of two and the whole device */
#define POINTS_MAX 256 /* measured points that are kept of a model */

/* Usual numbers for a free dimension, in the order in which they are tried. */
static const int64_t guesses[] = {128, 224, 64, 32, 16, 8, 1};

bool loaded_batches(const struct loaded *l)
{
    return l->graph->batch_sym >= 0;
}

static struct shape_key key_at(const struct loaded *l, const struct shape_key *base, uint32_t rows)
{
    struct shape_key key = *base;

    if (loaded_batches(l))
        key.dim[l->graph->batch_sym] = rows;
    return key;
}

static int cost_at(const struct loaded *l, uint32_t rows, struct cost *ret, struct err *err)
{
    struct shape_key key = key_at(l, &l->warm, rows);
    struct bound *b;
    struct arena a;

    arena_init(&a);
    int r = graph_bind(l->graph, &key, &a, &b, err);
    *ret = (struct cost){0};
    for (uint32_t i = 0; r == 0 && i < l->graph->n_nodes; i++)
        if (!b->skip[i]) {
            struct cost c = node_cost(b, i);
            ret->flops += c.flops;
            ret->bytes += c.bytes;
        }
    arena_done(&a);
    return r;
}

/* The first usual number with which the shapes go together. */
static int guess_key(struct loaded *l, struct err *err)
{
    const struct graph *g = l->graph;
    struct cost c;
    int r = -EINVAL;

    for (size_t k = 0; k < ARRAY_SIZE(guesses) && r == -EINVAL; k++) {
        l->warm.n = g->n_syms;
        for (uint32_t i = 0; i < g->n_syms; i++)
            l->warm.dim[i] = (int32_t)i == g->batch_sym ? 0 : guesses[k];
        r = cost_at(l, 1, &c, err);
    }
    return r;
}

static usec_t estimate_us(const struct device_info *d, struct cost c, uint32_t units)
{
    double share = (double)units / MAX(d->units, 1);
    double flops = d->flops_per_s > 0 ? d->flops_per_s : FLOPS_PER_UNIT * d->units;
    double bytes = d->mem_bytes_per_s > 0 ? d->mem_bytes_per_s : MEM_BYTES_PER_S;
    double s = MAX(c.flops / (flops * share), c.bytes / bytes);

    return (usec_t)(s * 1e6 + RUN_OVERHEAD_US);
}

static uint32_t units_axis(const struct device_info *d, uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t u = d->granule_units; u < d->units && n < UNITS_MAX - 1; u *= 2)
        ret[n++] = u;
    ret[n++] = d->units;
    return n;
}

/* The table of estimates.  Costs are taken at the ends of the batch axis and joined by a line:
 * they grow with the rows and nothing else. */
static int estimate(struct engine *e, struct loaded *l, uint32_t max_batch, struct err *err)
{
    const struct device_info *d = &e->device[0].info;
    uint32_t n_batch = 1;
    while (UINT32_C(1) << (n_batch - 1) < max_batch)
        n_batch++;
    uint32_t *batch = ARENA_ARRAY(&l->arena, uint32_t, n_batch);
    uint32_t *units = ARENA_ARRAY(&l->arena, uint32_t, UNITS_MAX);
    struct cost one, all;
    int r = cost_at(l, 1, &one, err);

    if (r == 0)
        r = cost_at(l, max_batch, &all, err);
    if (r < 0)
        return r;
    uint32_t n_units = units ? units_axis(d, units) : 0, n = n_batch * n_units;
    l->run_us = ARENA_ARRAY(&l->arena, usec_t, n);
    l->base_us = ARENA_ARRAY(&l->arena, usec_t, n);
    if (!batch || !n_units || !l->run_us || !l->base_us)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t b = 0; b < n_batch; b++) {
        batch[b] = MIN(UINT32_C(1) << b, max_batch);
        double at = max_batch > 1 ? (batch[b] - 1.0) / (max_batch - 1.0) : 0;
        struct cost c = {.flops = one.flops + at * (all.flops - one.flops),
                         .bytes = one.bytes + at * (all.bytes - one.bytes)};
        for (uint32_t u = 0; u < n_units; u++)
            l->run_us[u * n_batch + b] = l->base_us[u * n_batch + b] = estimate_us(d, c, units[u]);
    }
    l->profile = (struct profile){.n_batch = n_batch,
                                  .n_units = n_units,
                                  .batch = batch,
                                  .units = units,
                                  .run_us = l->run_us};
    return 0;
}

/* ---- what was measured */

static struct measured_point *point_find(const struct loaded *l, uint32_t batch, uint32_t units)
{
    for (uint32_t i = 0; i < l->n_points; i++)
        if (l->point[i].batch == batch && l->point[i].units == units)
            return &l->point[i];
    return NULL;
}

usec_t loaded_known_us(const struct loaded *l, uint32_t batch, uint32_t units)
{
    const struct measured_point *p = point_find(l, batch, units);

    return p ? p->run_us : 0;
}

/* The table from the estimates and the points. */
static void table_fit(struct loaded *l)
{
    struct profile base = l->profile;

    base.run_us = l->base_us;
    surface_fill(&base, l->point, l->n_points, l->run_us);
    l->profile.measured = l->n_points > 0;
}

void loaded_measured(struct loaded *l, uint32_t batch, uint32_t units, usec_t us)
{
    struct measured_point *p = point_find(l, batch, units);

    if (!p && l->n_points == POINTS_MAX)
        return; /* more sizes than anybody cuts */
    if (!p) {
        p = &l->point[l->n_points++];
        *p = (struct measured_point){.batch = batch, .units = units};
    }
    p->run_us = MAX(us, 1);
    l->n_unsaved++;
    table_fit(l);
}

int loaded_resize(struct engine *e, struct loaded *l, uint32_t max_batch, struct err *err)
{
    const struct profile *p = &l->profile;

    if (!loaded_batches(l) || p->batch[p->n_batch - 1] == max_batch)
        return 0;
    l->points_done = false;
    int r = estimate(e, l, max_batch, err);
    if (r == 0)
        table_fit(l);
    return r;
}

/* What is late; bytes of all constants; a first guess at slots: twice the largest value each. */
static void look_at_values(struct engine *e, struct loaded *l, uint32_t max_batch)
{
    struct shape_key key = key_at(l, &l->warm, max_batch);
    struct bound *b;
    struct arena a;
    struct err err;

    arena_init(&a);
    if (graph_bind(l->graph, &key, &a, &b, &err) == 0) {
        l->n_late = b->n_late;
        for (uint32_t i = 0; i < l->graph->n_out; i++)
            l->late_out[i] = b->late_value[l->graph->out[i]];
        for (uint32_t i = 0; i < l->graph->n_values; i++) {
            const struct value *v = &l->graph->values[i];
            if (v->constant)
                l->weights_bytes += v->constant->t.bytes;
            else
                l->slot_bytes = MAX(l->slot_bytes, slots_most(e) * 2 * b->value[i].bytes);
        }
    }
    arena_done(&a);
}

static int loaded_fill(struct engine *e, struct loaded *l, const struct model_spec *spec,
                       struct err *err)
{
    int r = model_open(spec->dir, &e->cfg.model_limits, spec->precision, &l->model, err);

    if (r < 0)
        return r;
    l->graph = model_graph(l->model);
    l->n_segments = l->graph->n_segments;
    uint32_t max_batch = loaded_batches(l) ? spec->max_batch : 1;
    if ((r = guess_key(l, err)) < 0 || (r = estimate(e, l, max_batch, err)) < 0)
        return r;
    look_at_values(e, l, max_batch);
    l->point = ARENA_ARRAY(&l->arena, struct measured_point, POINTS_MAX);
    return l->point ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int loaded_open(struct engine *e, const struct model_spec *spec, struct loaded **ret,
                struct err *err)
{
    struct loaded *l = calloc(1, sizeof(*l));

    if (!l)
        return err_set(err, -ENOMEM, "out of memory");
    l->refs = 1;
    l->used_ns = ALLOWANCE_FRESH;
    memcpy(l->name, spec->name, sizeof(l->name));
    l->version = spec->version;
    l->batch_invariant = spec->batch_invariant;
    l->precision = spec->precision;
    arena_init(&l->arena);
    l->stats = stats_new();
    int r = l->stats ? loaded_fill(e, l, spec, err) : err_set(err, -ENOMEM, "out of memory");
    if (r < 0) {
        loaded_put(e, l);
        return r;
    }
    *ret = l;
    return 0;
}

void loaded_put(struct engine *e, struct loaded *l)
{
    if (!l || --l->refs > 0)
        return;
    struct job *gone = l->gone;
    struct cq *cq = l->gone_cq;

    (void)e;
    profile_text_put(l->text);
    model_free(l->model);
    stats_put(l->stats);
    arena_done(&l->arena);
    free(l);
    if (gone)
        job_done(gone, cq, 0, NULL);
}
