/* Verification of problems and plans.  Shares no code with the planners: it recomputes every
 * figure from the problem by predict() and queue_predict(), so that a planner's mistake cannot
 * hide in its own arithmetic (check_rule.c has the rules, this file what can be counted).
 *
 * Nothing is allocated, so what would need a table goes over the plan in passes: granules, memory
 * and rules device by device, rates for CHUNK models at a time.  A plan whose gpu-lets are ordered
 * by device is checked in time proportional to its shares. */
#include "check_priv.h"
#include <math.h>

#define MAX_SLO_US (3600 * USEC_PER_SEC)
#define MAX_RATE_RPS 1e9
#define MAX_CV 100
#define MAX_PLAN_BATCH 1024
#define CHUNK 2048 /* models whose rates are added up in one pass */

static int profile_check(const struct plan_model *m, uint32_t type, struct err *err)
{
    const struct profile *p = m->profile ? &m->profile[type] : NULL;

    if (!p || p->n_batch == 0 || p->n_units == 0)
        return err_set(err, -EINVAL, "model '%s': it has no profile", m->name);
    for (uint32_t i = 0; i < p->n_batch; i++)
        if (p->batch[i] == 0 || (i > 0 && p->batch[i] <= p->batch[i - 1]))
            return err_set(err, -EINVAL, "model '%s': profile batch %u is not above the one before",
                           m->name, p->batch[i]);
    for (uint32_t i = 0; i < p->n_units; i++)
        if (p->units[i] == 0 || (i > 0 && p->units[i] <= p->units[i - 1]))
            return err_set(err, -EINVAL, "model '%s': profile units %u are not above those before",
                           m->name, p->units[i]);
    return 0;
}

static int model_check(const struct problem *p, const struct plan_model *m, struct err *err)
{
    if (m->slo_us > MAX_SLO_US)
        return err_set(err, -EINVAL, "model '%s': slo_ms is above the limit of 3600000", m->name);
    if (!(m->cv >= 0 && m->cv <= MAX_CV))
        return err_set(err, -EINVAL, "model '%s': cv must be from 0 to %d", m->name, MAX_CV);
    if (!(m->rate_rps >= 0 && m->rate_rps <= MAX_RATE_RPS))
        return err_set(err, -EINVAL, "model '%s': rate_rps must be from 0 to 1e9", m->name);
    if (m->max_batch == 0 || m->max_batch > MAX_PLAN_BATCH)
        return err_set(err, -EINVAL, "model '%s': max_batch %u must be from 1 to %d", m->name,
                       m->max_batch, MAX_PLAN_BATCH);
    for (uint32_t t = 0; t < p->n_types; t++)
        if (profile_check(m, t, err) < 0)
            return -EINVAL;
    return 0;
}

static int type_check(const struct plan_type *t, struct err *err)
{
    if (t->n_granules == 0 || t->n_granules > PLAN_MAX_GRANULES || t->granule_units == 0)
        return err_set(err, -EINVAL,
                       "device '%s': %u granules of %u units; the limits are 1..%d and 1", t->name,
                       t->n_granules, t->granule_units, PLAN_MAX_GRANULES);
    for (uint32_t i = 0; i < t->n_sizes; i++)
        if (t->size[i] == 0 || (i > 0 && t->size[i] <= t->size[i - 1]))
            return err_set(err, -EINVAL, "device '%s': size %u is not above the one before",
                           t->name, t->size[i]);
    for (uint32_t i = 0; i < t->n_places; i++)
        if (t->place[i].n == 0 || t->place[i].n > t->n_granules ||
            t->place[i].first > t->n_granules - t->place[i].n)
            return err_set(err, -EINVAL, "device '%s': place %u+%u is outside its %u granules",
                           t->name, t->place[i].first, t->place[i].n, t->n_granules);
    return 0;
}

static int rules_check(const struct plan_rules *r, struct err *err)
{
    if (!(r->slo_part >= 0 && r->slo_part <= 1))
        return err_set(err, -EINVAL, "rules: slo_part must be from 0 to 1");
    if (!(r->violations >= 0 && r->violations <= 1))
        return err_set(err, -EINVAL, "rules: violations must be from 0 to 1");
    return 0;
}

int problem_check(const struct problem *p, struct err *err)
{
    if (rules_check(&p->rules, err) < 0)
        return -EINVAL;
    for (uint32_t t = 0; t < p->n_types; t++)
        if (type_check(&p->type[t], err) < 0)
            return -EINVAL;
    for (uint32_t d = 0; d < p->n_devices; d++)
        if (p->device[d].type >= p->n_types)
            return err_set(err, -EINVAL, "device '%s': there is no type %u", p->device[d].name,
                           p->device[d].type);
    if (p->n_devices == 0)
        return err_set(err, -EINVAL, "there is no device");
    for (uint32_t m = 0; m < p->n_models; m++) {
        int r = model_check(p, &p->model[m], err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- gpu-lets and their shares, one by one */

static int size_check(const struct plan_type *d, uint32_t k, uint32_t count, struct err *err)
{
    if (d->max_granules && count > d->max_granules)
        return err_set(err, -EINVAL, "gpu-let %u: %u granules, device type '%s' allows %u in one",
                       k, count, d->name, d->max_granules);
    for (uint32_t i = 0; i < d->n_sizes; i++)
        if (d->size[i] == count)
            return 0;
    return d->n_sizes == 0
               ? 0
               : err_set(err, -EINVAL, "gpu-let %u: %u granules is no size of device type '%s'", k,
                         count, d->name);
}

static int place_check(const struct plan_type *d, uint32_t k, uint32_t first, uint32_t count,
                       uint32_t last, struct err *err)
{
    if (d->n_places == 0)
        return 0;
    for (uint32_t i = 0; i < d->n_places && last + 1 - first == count; i++)
        if (d->place[i].first == first && d->place[i].n == count)
            return 0;
    return err_set(err, -EINVAL, "gpu-let %u: %u granules from %u are no place of device type '%s'",
                   k, count, first, d->name);
}

static int gpulet_check(const struct problem *p, const struct plan_gpulet *g, uint32_t k,
                        struct err *err)
{
    uint32_t count = 0, first = 0, last = 0;

    if (g->device >= p->n_devices)
        return err_set(err, -EINVAL, "gpu-let %u: there is no device %u", k, g->device);
    const struct plan_type *d = type_of(p, g->device);
    for (uint32_t i = 0; i < PLAN_MAX_GRANULES; i++) {
        if (!set_has(&g->set, i))
            continue;
        if (i >= d->n_granules)
            return err_set(err, -EINVAL, "gpu-let %u: device '%s' has no granule %u, it has %u", k,
                           p->device[g->device].name, i, d->n_granules);
        first = count++ ? first : i;
        last = i;
    }
    if (count == 0)
        return err_set(err, -EINVAL, "gpu-let %u has no granule", k);
    if (g->units != count * d->granule_units)
        return err_set(err, -EINVAL, "gpu-let %u says %u units, its granules have %u", k, g->units,
                       count * d->granule_units);
    int r = size_check(d, k, count, err);
    return r < 0 ? r : place_check(d, k, first, count, last, err);
}

static int share_check(const struct problem *p, const struct plan_share *s, uint32_t k,
                       struct err *err)
{
    if (s->model >= p->n_models)
        return err_set(err, -EINVAL, "gpu-let %u: there is no model %u", k, s->model);
    const struct plan_model *m = &p->model[s->model];
    if (s->batch == 0 || s->batch > m->max_batch)
        return err_set(err, -EINVAL, "gpu-let %u: batch %u of model '%s', the limits are 1..%u", k,
                       s->batch, m->name, m->max_batch);
    if (s->usual > s->batch)
        return err_set(err, -EINVAL, "gpu-let %u: model '%s' usually runs %u, its batch is %u", k,
                       m->name, s->usual, s->batch);
    if (s->streams > MAX(p->rules.max_streams, 1u))
        return err_set(err, -EINVAL, "gpu-let %u: model '%s' has %u streams, the limit is %u", k,
                       m->name, s->streams, MAX(p->rules.max_streams, 1u));
    if (!(s->rate_rps >= 0 && s->rate_rps <= 2 * MAX_RATE_RPS))
        return err_set(err, -EINVAL, "gpu-let %u: the rate of model '%s' is out of range", k,
                       m->name);
    return 0;
}

static int shares_check(const struct problem *p, const struct plan_gpulet *g, uint32_t k,
                        struct err *err)
{
    if (p->rules.max_shares && g->n_shares > p->rules.max_shares)
        return err_set(err, -EINVAL, "gpu-let %u: %u models, the limit is %u", k, g->n_shares,
                       p->rules.max_shares);
    for (uint32_t i = 0; i < g->n_shares; i++) {
        if (share_check(p, &g->share[i], k, err) < 0)
            return -EINVAL;
        if (g->n_shares > 1 && g->share[i].streams > 1)
            return err_set(err, -EINVAL,
                           "gpu-let %u: model '%s' has %u streams, models that take turns have one",
                           k, p->model[g->share[i].model].name, g->share[i].streams);
        if (i > sure_shares(p, g) && !p->model[g->share[i].model].best_effort)
            return err_set(err, -EINVAL, "gpu-let %u: model '%s' is behind one of best effort", k,
                           p->model[g->share[i].model].name);
        for (uint32_t j = 0; j < i; j++)
            if (g->share[j].model == g->share[i].model)
                return err_set(err, -EINVAL, "gpu-let %u names model '%s' twice", k,
                               p->model[g->share[i].model].name);
    }
    return 0;
}

/* ---- device by device */

static bool by_device(const struct plan *plan)
{
    for (uint32_t k = 1; plan && k < plan->n_gpulets; k++)
        if (plan->gpulet[k].device < plan->gpulet[k - 1].device)
            return false;
    return true;
}

/* The gpu-lets of the walk's next device.  -E2BIG: more than there can be granules. */
static int walk_next(struct walk *w, uint32_t device)
{
    w->n = 0;
    uint32_t k = w->sorted ? w->at : 0;

    for (; w->plan && k < w->plan->n_gpulets; k++) {
        if (w->sorted && w->plan->gpulet[k].device > device)
            break;
        if (w->plan->gpulet[k].device != device)
            continue;
        if (w->n == PLAN_MAX_GRANULES)
            return -E2BIG;
        w->let[w->n++] = k;
    }
    w->at = k;
    return 0;
}

static int disjoint_check(const struct problem *p, const struct walk *w, uint32_t device,
                          struct err *err)
{
    uint32_t owner[PLAN_MAX_GRANULES];

    memset(owner, 0xff, sizeof(owner));
    if (p->rules.max_lets && w->n > p->rules.max_lets)
        return err_set(err, -EINVAL, "device '%s': %u gpu-lets, the limit is %u",
                       p->device[device].name, w->n, p->rules.max_lets);
    for (uint32_t j = 0; j < w->n; j++)
        for (uint32_t i = 0; i < type_of(p, device)->n_granules; i++) {
            if (!set_has(&walk_let(w, j)->set, i))
                continue;
            if (owner[i] != PLAN_NONE)
                return err_set(err, -EINVAL, "gpu-lets %u and %u share a granule", owner[i],
                               w->let[j]);
            owner[i] = w->let[j];
        }
    return 0;
}

static const struct plan_share *share_of(const struct plan_gpulet *g, uint32_t model)
{
    for (uint32_t i = 0; g && i < g->n_shares; i++)
        if (g->share[i].model == model)
            return &g->share[i];
    return NULL;
}

static const struct plan_gpulet *same_let(const struct walk *w, const struct plan_gpulet *g)
{
    for (uint32_t j = 0; j < w->n; j++)
        if (set_eq(&walk_let(w, j)->set, &g->set))
            return walk_let(w, j);
    return NULL;
}

static bool named_before(const struct walk *w, uint32_t until, uint32_t model)
{
    for (uint32_t j = 0; j < until; j++)
        if (share_of(walk_let(w, j), model))
            return true;
    return false;
}

static uint64_t rows_bytes(const struct plan_model *m, const struct plan_share *s)
{
    return MAX(s->streams, 1u) * (uint64_t)s->batch * m->row_bytes;
}

/* What the new plan holds on a device. */
static uint64_t now_bytes(const struct problem *p, const struct walk *now, uint64_t let_bytes)
{
    uint64_t bytes = 0;

    for (uint32_t j = 0; j < now->n; j++) {
        const struct plan_gpulet *g = walk_let(now, j);
        bytes += let_bytes;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            const struct plan_share *s = &g->share[i];
            const struct plan_model *m = &p->model[s->model];
            bytes += MAX(s->streams, 1u) * m->slot_bytes + rows_bytes(m, s);
            if (m->weights_per_let || !named_before(now, j, s->model))
                bytes += m->weights_bytes;
        }
    }
    return bytes;
}

/* What the running plan holds besides, until it has gone: a gpu-let that stays counts once, and
 * so do its slots; buffers for other batches exist twice while the new ones are made. */
static uint64_t was_bytes(const struct problem *p, const struct walk *was, const struct walk *now,
                          uint64_t let_bytes)
{
    uint64_t bytes = 0;

    for (uint32_t j = 0; j < was->n; j++) {
        const struct plan_gpulet *g = walk_let(was, j), *kept = same_let(now, g);
        bytes += kept ? 0 : let_bytes;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            const struct plan_share *s = &g->share[i], *on = share_of(kept, s->model);
            if (s->model >= p->n_models)
                continue;
            const struct plan_model *m = &p->model[s->model];
            uint32_t streams = MAX(s->streams, 1u), kept_streams = on ? MAX(on->streams, 1u) : 0;
            bytes += streams > kept_streams ? (streams - kept_streams) * m->slot_bytes : 0;
            bytes += on && on->batch == s->batch && streams == kept_streams ? 0 : rows_bytes(m, s);
            if (m->weights_per_let
                    ? !on
                    : !named_before(was, j, s->model) && !named_before(now, now->n, s->model))
                bytes += m->weights_bytes;
        }
    }
    return bytes;
}

static int memory_check(const struct problem *p, const struct walk *was, const struct walk *now,
                        uint32_t device, struct err *err)
{
    const struct plan_type *t = type_of(p, device);

    if (t->mem_bytes == 0 || now->n == 0) /* where nothing is asked for nothing is refused */
        return 0;
    uint64_t bytes =
        t->pool_bytes + now_bytes(p, now, t->let_bytes) + was_bytes(p, was, now, t->let_bytes);
    if (bytes > t->mem_bytes)
        return err_set(err, -EINVAL, "device '%s': the plan needs %llu bytes, it has %llu",
                       p->device[device].name, (unsigned long long)bytes,
                       (unsigned long long)t->mem_bytes);
    return 0;
}

bool memory_holds(const struct problem *p, const struct plan *was, const struct plan *plan,
                  uint32_t device)
{
    struct walk now = {.plan = plan}, old = {.plan = was};

    return walk_next(&now, device) == 0 && walk_next(&old, device) == 0 &&
           memory_check(p, &old, &now, device, NULL) == 0;
}

static int devices_check(const struct problem *p, const struct plan *was, const struct plan *plan,
                         void *scratch, struct err *err)
{
    struct walk now = {.plan = plan, .sorted = by_device(plan), .scratch = scratch};
    struct walk old = {.plan = was, .sorted = by_device(was)};
    int r;

    for (uint32_t d = 0; d < p->n_devices; d++) {
        if (walk_next(&now, d) < 0 || walk_next(&old, d) < 0)
            return err_set(err, -EINVAL, "device '%s': it has more than %d gpu-lets",
                           p->device[d].name, PLAN_MAX_GRANULES);
        if ((r = disjoint_check(p, &now, d, err)) < 0 ||
            (r = memory_check(p, &old, &now, d, err)) < 0 || (r = rule_check(p, &now, d, err)) < 0)
            return r;
    }
    return 0;
}

/* ---- model by model */

struct served {
    double rate_rps;
    bool placed;
};

static int served_check(const struct problem *p, const struct plan *plan, uint32_t from,
                        const struct served *s, struct err *err)
{
    for (uint32_t m = from; m < MIN(from + CHUNK, p->n_models); m++) {
        const struct plan_model *model = &p->model[m];
        if (plan->verdict[m].limit != LIMIT_NONE)
            continue;
        if (!s[m - from].placed)
            return err_set(err, -EINVAL, "model '%s' is in no gpu-let and not named as left out",
                           model->name);
        if (!model->best_effort && !within(model->rate_rps, s[m - from].rate_rps))
            return err_set(err, -EINVAL, "model '%s': %.6g requests/s are served, its rate is %.6g",
                           model->name, s[m - from].rate_rps, model->rate_rps);
    }
    return 0;
}

static int rates_check(const struct problem *p, const struct plan *plan, struct err *err)
{
    struct served s[CHUNK];
    int r = 0;

    for (uint32_t from = 0; r == 0 && from < p->n_models; from += CHUNK) {
        struct walk w = {.plan = plan, .sorted = by_device(plan)};
        memset(s, 0, sizeof(s));
        for (uint32_t d = 0; d < p->n_devices; d++) {
            (void)walk_next(&w, d); /* devices_check has seen that it can */
            for (uint32_t j = 0; j < w.n; j++)
                for (uint32_t i = 0; i < walk_let(&w, j)->n_shares; i++) {
                    uint32_t m = walk_let(&w, j)->share[i].model;
                    if (m < from || m >= from + CHUNK)
                        continue;
                    s[m - from].placed = true;
                    s[m - from].rate_rps += rule_serves(p, &w, d, j, i);
                }
        }
        r = served_check(p, plan, from, s, err);
    }
    return r;
}

int plan_check(const struct problem *p, const struct plan *was, const struct plan *plan,
               struct err *err)
{
    int r = problem_check(p, err);

    if (r < 0)
        return r;
    if (plan->n_models != p->n_models)
        return err_set(err, -EINVAL, "the plan speaks of %u models, the problem of %u",
                       plan->n_models, p->n_models);
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        if ((r = gpulet_check(p, &plan->gpulet[k], k, err)) < 0 ||
            (r = shares_check(p, &plan->gpulet[k], k, err)) < 0)
            return r;
    struct arena a;
    arena_init(&a);
    void *scratch = p->rules.rule == RULE_QUEUE ? arena_alloc(&a, QUEUE_SCRATCH) : NULL;
    r = p->rules.rule == RULE_QUEUE && !scratch ? err_set(err, -ENOMEM, "out of memory") : 0;
    r = r < 0 ? r : devices_check(p, was, plan, scratch, err);
    arena_done(&a);
    return r < 0 ? r : rates_check(p, plan, err);
}
