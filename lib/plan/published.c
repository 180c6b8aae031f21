#include "published.h"

#include <math.h>

double pub_rate(const struct problem *p, uint32_t model)
{
    return p->model[model].rate_rps > 0 ? p->model[model].rate_rps : 1.0;
}

double pub_slo_us(const struct problem *p, uint32_t model)
{
    return p->model[model].slo_us ? (double)p->model[model].slo_us : INFINITY;
}

uint32_t pub_max_shares(const struct problem *p, uint32_t own)
{
    return p->rules.max_shares ? MIN(p->rules.max_shares, own) : own;
}

uint32_t pub_max_lets(const struct problem *p, uint32_t device)
{
    const struct plan_type *t = type_of(p, device);
    uint64_t most = p->rules.max_lets ? p->rules.max_lets : UINT32_MAX;

    if (t->mem_bytes && t->pool_bytes > t->mem_bytes)
        return 0;
    if (t->mem_bytes && t->let_bytes)
        most = MIN(most, (t->mem_bytes - t->pool_bytes) / t->let_bytes);
    return (uint32_t)most;
}

static bool has_place(const struct plan_type *t, uint32_t n)
{
    for (uint32_t i = 0; i < t->n_places; i++)
        if (t->place[i].n == n)
            return true;
    return t->n_places == 0;
}

uint32_t pub_sizes(const struct plan_type *t, uint32_t ret[PLAN_MAX_GRANULES])
{
    uint32_t most = t->max_granules ? MIN(t->max_granules, t->n_granules) : t->n_granules, n = 0;

    for (uint32_t i = 0; i < (t->n_sizes ? t->n_sizes : most); i++) {
        uint32_t size = t->n_sizes ? t->size[i] : i + 1;
        if (size <= most && has_place(t, size))
            ret[n++] = size;
    }
    return n;
}

/* ---- granules */

static bool place_free(const struct plan_granules *used, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        if (set_has(used, i))
            return false;
    return true;
}

uint32_t pub_place(const struct plan_type *t, const struct plan_granules *used, uint32_t n)
{
    for (uint32_t i = 0; i < t->n_places; i++)
        if (t->place[i].n == n && place_free(used, t->place[i].first, n))
            return t->place[i].first;
    for (uint32_t first = 0; t->n_places == 0 && first + n <= t->n_granules; first++)
        if (place_free(used, first, n))
            return first;
    return PLAN_NONE;
}

static bool cut_one(const struct plan_type *t, struct plan_granules *used, uint32_t n,
                    struct plan_granules *set)
{
    uint32_t first = pub_place(t, used, n);

    for (uint32_t i = 0; first != PLAN_NONE && i < n; i++) {
        set_add(used, first + i);
        if (set)
            set_add(set, first + i);
    }
    return first != PLAN_NONE;
}

bool pub_cut(const struct plan_type *t, const uint32_t *granules, uint32_t n,
             struct plan_granules *sets)
{
    struct plan_granules used = {0};
    uint64_t sum = 0;

    for (uint32_t k = 0; k < n; k++)
        sum += granules[k];
    if (sum > t->n_granules)
        return false;
    if (t->n_places == 0 && !sets)
        return true;
    /* Without a catalogue the order given fits as well as any. */
    for (uint32_t size = t->n_places ? t->n_granules : 1; size > 0; size--)
        for (uint32_t k = 0; k < n; k++)
            if ((t->n_places == 0 || granules[k] == size) &&
                !cut_one(t, &used, granules[k], sets ? &sets[k] : NULL))
                return false;
    return true;
}

/* ---- memory */

static bool named_before(const struct pub_item *item, uint32_t i)
{
    for (uint32_t j = 0; j < i; j++)
        if (item[j].model == item[i].model)
            return true;
    return false;
}

bool pub_memory_holds(const struct problem *p, uint32_t type, const struct pub_item *item,
                      uint32_t n)
{
    const struct plan_type *t = &p->type[type];
    uint64_t bytes = t->pool_bytes;

    for (uint32_t i = 0; i < n; i++) {
        const struct plan_model *m = &p->model[item[i].model];
        uint64_t streams = MAX(item[i].streams, 1u);
        bytes += i == 0 || item[i].let != item[i - 1].let ? t->let_bytes : 0;
        bytes += streams * (m->slot_bytes + item[i].batch * m->row_bytes);
        bytes += m->weights_per_let || !named_before(item, i) ? m->weights_bytes : 0;
    }
    return t->mem_bytes == 0 || bytes <= t->mem_bytes;
}

/* ---- the plan */

int pub_begin(struct pub *b, const struct problem *p, struct arena *a, uint32_t max_lets,
              struct err *err)
{
    int r = problem_check(p, err);

    if (r < 0)
        return r;
    *b = (struct pub){.p = p, .a = a, .max_lets = max_lets, .plan.n_models = p->n_models};
    b->plan.gpulet = ARENA_ARRAY(a, struct plan_gpulet, MAX(max_lets, 1u));
    b->plan.verdict = ARENA_ARRAY(a, struct plan_verdict, MAX(p->n_models, 1u));
    b->planned_rps = ARENA_ARRAY(a, double, MAX(p->n_models, 1u));
    if (!b->plan.gpulet || !b->plan.verdict || !b->planned_rps)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    return 0;
}

struct plan_gpulet *pub_let(struct pub *b, uint32_t device, uint32_t granules, uint32_t max_shares)
{
    assert(b->plan.n_gpulets < b->max_lets);
    struct plan_gpulet *g = &b->plan.gpulet[b->plan.n_gpulets];

    g->share = ARENA_ARRAY(b->a, struct plan_share, max_shares);
    if (!g->share)
        return NULL;
    g->device = device;
    g->units = granules * type_of(b->p, device)->granule_units;
    b->plan.n_gpulets++;
    return g;
}

void pub_share(struct pub *b, struct plan_gpulet *g, const struct plan_share *s)
{
    g->share[g->n_shares++] = *s;
    b->planned_rps[s->model] += s->rate_rps;
}

void pub_verdict(struct pub *b, uint32_t model, enum plan_limit limit, usec_t least_slo_us,
                 double need)
{
    b->plan.verdict[model] = (struct plan_verdict){.limit = limit,
                                                   .least_slo_us = least_slo_us,
                                                   .most_rps = b->planned_rps[model],
                                                   .need = need};
}

static bool no_granules(const struct plan_granules *s)
{
    static const struct plan_granules none;

    return set_eq(s, &none);
}

/* One device's gpu-lets, from..to-1, unless the planner has placed them itself. */
static void place_lets(struct pub *b, uint32_t from, uint32_t to)
{
    const struct plan_type *t = type_of(b->p, b->plan.gpulet[from].device);
    uint32_t granules[PLAN_MAX_GRANULES] = {0};
    struct plan_granules set[PLAN_MAX_GRANULES] = {0};

    if (!no_granules(&b->plan.gpulet[from].set))
        return;
    for (uint32_t k = from; k < to; k++)
        granules[k - from] = b->plan.gpulet[k].units / t->granule_units;
    bool fits = pub_cut(t, granules, to - from, set);
    assert(fits); /* planners ask before they cut */
    (void)fits;
    for (uint32_t k = from; k < to; k++)
        b->plan.gpulet[k].set = set[k - from];
}

void pub_end(struct pub *b, struct plan *ret)
{
    for (uint32_t k = 0, from = 0; k < b->plan.n_gpulets; k++)
        if (k + 1 == b->plan.n_gpulets ||
            b->plan.gpulet[k + 1].device != b->plan.gpulet[from].device) {
            place_lets(b, from, k + 1);
            from = k + 1;
        }
    for (uint32_t k = 0; k < b->plan.n_gpulets; k++)
        for (uint32_t i = 0; i < b->plan.gpulet[k].n_shares; i++) {
            struct plan_share *s = &b->plan.gpulet[k].share[i];
            double planned = b->planned_rps[s->model], rate = b->p->model[s->model].rate_rps;
            /* A model that is not met by far is sent no more than it can be served. */
            rate = b->plan.verdict[s->model].limit == LIMIT_NONE ? rate : fmin(rate, planned);
            s->rate_rps = planned > 0 ? rate * s->rate_rps / planned : 0;
        }
    *ret = b->plan;
}

double pub_least_us(const struct problem *p, uint32_t model)
{
    double least_us = 0;

    for (uint32_t t = 0; t < p->n_types; t++) {
        uint32_t size[PLAN_MAX_GRANULES], n = pub_sizes(&p->type[t], size);
        struct load l = {.profile = &p->model[model].profile[t], .batch = 1, .duty = 1};
        struct estimate e;
        l.units = n ? size[n - 1] * p->type[t].granule_units : 0;
        if (n && predict(&p->type[t].predict, &l, NULL, 0, &e) &&
            (least_us <= 0 || e.run_us < least_us))
            least_us = e.run_us;
    }
    return least_us;
}

/* The largest of them all in each part: gpu-lets of the plan and of the planner's own, devices,
 * models, types.  The sizes are those of structs in other files, rounded up. */
size_t pub_need(const struct problem *p)
{
    const size_t let = sizeof(struct plan_gpulet) + 2 * sizeof(struct plan_share) + 512;
    const size_t card = (PREDICT_NEIGHBOURS_MAX + 1) * 64 + 1024;
    size_t models = (size_t)p->n_models + 1, lets = 0, sizes = 0;

    for (uint32_t d = 0; d < p->n_devices; d++)
        lets += 2 * MAX((size_t)type_of(p, d)->n_granules, 2);
    for (uint32_t t = 0; t < p->n_types; t++)
        sizes = MAX(sizes, p->type[t].n_granules);
    return 65536 + lets * let + p->n_devices * card + p->n_types * 4096 +
           models * (sizes * 48 + let + sizeof(struct plan_verdict) + 64);
}
