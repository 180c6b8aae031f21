/* Verification of problems and plans.  Shares no code with the planners: it recomputes every
 * figure from the problem, so that a planner's mistake cannot hide in its own arithmetic. */
#include "plan_priv.h"

#define MAX_SLO_US (3600 * USEC_PER_SEC)
#define MAX_RATE_RPS 1e9
#define MAX_PLAN_BATCH 1024

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

int problem_check(const struct problem *p, struct err *err)
{
    for (uint32_t t = 0; t < p->n_types; t++)
        if (p->type[t].n_granules == 0 || p->type[t].n_granules > PLAN_MAX_GRANULES ||
            p->type[t].granule_units == 0)
            return err_set(err, -EINVAL,
                           "device '%s': %u granules of %u units; the limits are 1..%d and 1",
                           p->type[t].name, p->type[t].n_granules, p->type[t].granule_units,
                           PLAN_MAX_GRANULES);
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

static int gpulet_check(const struct problem *p, const struct plan *plan, uint32_t k,
                        struct err *err)
{
    const struct plan_gpulet *g = &plan->gpulet[k];
    uint32_t count = 0;

    if (g->device >= p->n_devices)
        return err_set(err, -EINVAL, "gpu-let %u: there is no device %u", k, g->device);
    const char *name = p->device[g->device].name;
    const struct plan_type *d = type_of(p, g->device);
    for (uint32_t i = 0; i < PLAN_MAX_GRANULES; i++) {
        if (!set_has(&g->set, i))
            continue;
        count++;
        if (i >= d->n_granules)
            return err_set(err, -EINVAL, "gpu-let %u: device '%s' has no granule %u, it has %u", k,
                           name, i, d->n_granules);
    }
    if (count == 0)
        return err_set(err, -EINVAL, "gpu-let %u has no granule", k);
    if (d->max_granules && count > d->max_granules)
        return err_set(err, -EINVAL, "gpu-let %u: %u granules, device '%s' allows %u in one", k,
                       count, name, d->max_granules);
    if (g->units != count * d->granule_units)
        return err_set(err, -EINVAL, "gpu-let %u says %u units, its granules have %u", k, g->units,
                       count * d->granule_units);
    for (uint32_t j = 0; j < k; j++)
        if (plan->gpulet[j].device == g->device && set_overlaps(&plan->gpulet[j].set, &g->set))
            return err_set(err, -EINVAL, "gpu-lets %u and %u share a granule", j, k);
    return 0;
}

static int shares_check(const struct problem *p, const struct plan_gpulet *g, uint32_t k,
                        struct err *err)
{
    for (uint32_t i = 0; i < g->n_shares; i++) {
        const struct plan_share *s = &g->share[i];
        if (s->model >= p->n_models)
            return err_set(err, -EINVAL, "gpu-let %u: there is no model %u", k, s->model);
        const struct plan_model *m = &p->model[s->model];
        if (s->batch == 0 || s->batch > m->max_batch)
            return err_set(err, -EINVAL, "gpu-let %u: batch %u of model '%s', the limits are 1..%u",
                           k, s->batch, m->name, m->max_batch);
        for (uint32_t j = 0; j < i; j++)
            if (g->share[j].model == s->model)
                return err_set(err, -EINVAL, "gpu-let %u names model '%s' twice", k, m->name);
    }
    return 0;
}

static bool holds_model(const struct plan_gpulet *g, uint32_t model)
{
    for (uint32_t i = 0; i < g->n_shares; i++)
        if (g->share[i].model == model)
            return true;
    return false;
}

static bool same_gpulet(const struct plan *was, const struct plan_gpulet *g, uint32_t model)
{
    for (uint32_t k = 0; was && k < was->n_gpulets; k++)
        if (was->gpulet[k].device == g->device && set_eq(&was->gpulet[k].set, &g->set) &&
            holds_model(&was->gpulet[k], model))
            return true;
    return false;
}

/* Bytes on a device while old and new gpu-lets overlap: weights once, a slot for every gpu-let
 * that holds the model, those that are in both plans once. */
static int memory_check(const struct problem *p, const struct plan *was, const struct plan *plan,
                        uint32_t d, struct err *err)
{
    uint64_t bytes = 0;

    for (uint32_t m = 0; m < p->n_models; m++) {
        bool resident = false;
        for (uint32_t k = 0; k < plan->n_gpulets; k++)
            if (plan->gpulet[k].device == d && holds_model(&plan->gpulet[k], m)) {
                resident = true;
                bytes += p->model[m].slot_bytes;
            }
        for (uint32_t k = 0; was && k < was->n_gpulets; k++)
            if (was->gpulet[k].device == d && holds_model(&was->gpulet[k], m)) {
                resident = true;
                bytes += same_gpulet(plan, &was->gpulet[k], m) ? 0 : p->model[m].slot_bytes;
            }
        bytes += resident ? p->model[m].weights_bytes : 0;
    }
    if (type_of(p, d)->mem_bytes && bytes > type_of(p, d)->mem_bytes)
        return err_set(err, -EINVAL, "device '%s': the plan needs %llu bytes, it has %llu",
                       p->device[d].name, (unsigned long long)bytes,
                       (unsigned long long)type_of(p, d)->mem_bytes);
    return 0;
}

/* A verdict that claims the SLO is recomputed: own run after one run of everything there. */
static int verdict_check(const struct problem *p, const struct plan *plan, uint32_t m,
                         struct err *err)
{
    const struct plan_model *model = &p->model[m];
    bool placed = false;

    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        usec_t bound_us = 0;
        if (!holds_model(g, m))
            continue;
        placed = true;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            const struct plan_share *s = &g->share[i];
            usec_t us = predict_run_us(profile_of(p, s->model, g->device), s->batch, g->units);
            bound_us += s->model == m ? 2 * us : us;
        }
        if (plan->verdict[m].limit == LIMIT_NONE && model->slo_us && bound_us > model->slo_us)
            return err_set(err, -EINVAL, "model '%s': %llu us on gpu-let %u, its SLO is %llu us",
                           model->name, (unsigned long long)bound_us, k,
                           (unsigned long long)model->slo_us);
    }
    if (!placed && plan->verdict[m].limit == LIMIT_NONE)
        return err_set(err, -EINVAL, "model '%s' is in no gpu-let and not named as left out",
                       model->name);
    return 0;
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
        if ((r = gpulet_check(p, plan, k, err)) < 0 ||
            (r = shares_check(p, &plan->gpulet[k], k, err)) < 0)
            return r;
    for (uint32_t d = 0; d < p->n_devices; d++)
        if ((r = memory_check(p, was, plan, d, err)) < 0)
            return r;
    for (uint32_t m = 0; m < p->n_models; m++)
        if ((r = verdict_check(p, plan, m, err)) < 0)
            return r;
    return 0;
}
