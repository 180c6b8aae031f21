/* What an operator may ask: copies, made without stopping anything.
 *
 * The epoch is pinned, so its routes, seats and gpu-lets stay; counters are read as they are.
 * Gpu-lets that no epoch names any more (retiring) and those not yet named (opening) come from
 * the engine's list; the list is copied under the lock, into room made before. */
#include "engine_priv.h"

#include <gpulet/problem.h>
#include <stdio.h>

#define GPULETS_MAX (MAX_DEVICES * MAX_GRANULES * 2) /* old and new plan side by side */

/* A gpu-let outside the pinned epoch may close at any time: only what is copied here. */
struct let_copy {
    struct gpulet *g; /* to be compared, not followed */
    struct view_gpulet v;
};

static uint32_t count_locked(const struct gpulet *g)
{
    uint32_t n = 0;

    for (; g && n < GPULETS_MAX; g = g->next)
        n++;
    return n;
}

static const char *state_name(int state)
{
    static const char *const names[] = {[GPULET_OPENING] = "opening",
                                        [GPULET_SERVING] = "serving",
                                        [GPULET_RETIRING] = "retiring",
                                        [GPULET_LOST] = "lost",
                                        [GPULET_GONE] = "gone"};

    return names[state];
}

static void let_copy(struct gpulet *g, struct let_copy *ret)
{
    ret->g = g;
    ret->v = (struct view_gpulet){.id = g->id,
                                  .device = g->device,
                                  .units = g->units,
                                  .set = g->set,
                                  .state = state_name(atomic_load(&g->state)),
                                  .n_queued = atomic_load(&g->n_queued),
                                  .n_flying = atomic_load(&g->n_flying),
                                  .busy = gpulet_busy(g),
                                  .busy_ns = atomic_load(&g->busy_all_ns)};
    tally_copy(&g->ratio, &ret->v.ratio);
}

/* Shares of a gpu-let in the pinned epoch, from the seats that its routes name. */
static int shares_view(struct engine_view *v, const struct epoch *ep, const struct gpulet *g,
                       struct view_gpulet *ret)
{
    ret->share = ARENA_ARRAY(&v->arena, struct view_share, ep->n_routes);
    if (!ret->share)
        return -ENOMEM;
    for (uint32_t i = 0; i < ep->n_routes; i++)
        for (uint32_t k = 0; k < ep->route[i].n_seats; k++) {
            struct seat *s = ep->route[i].seat[k];
            if (s->g != g)
                continue;
            struct view_share *sh = &ret->share[ret->n_shares++];
            *sh = (struct view_share){.model = arena_strdup(&v->arena, s->l->name),
                                      .version = s->l->version,
                                      .runs = atomic_load(&s->runs),
                                      .rows = atomic_load(&s->rows)};
            (void)pthread_mutex_lock(&s->g->lock);
            sh->batch = s->batch;
            ret->order = g->order;
            sh->run_us = s->bucket_us[bucket_of(s->batch, s->max_batch)];
            (void)pthread_mutex_unlock(&s->g->lock);
        }
    return 0;
}

static bool in_epoch(const struct epoch *ep, const struct gpulet *g)
{
    for (uint32_t k = 0; k < ep->n_gpulets; k++)
        if (ep->gpulet[k] == g)
            return true;
    return false;
}

/* The part of each model's rate that the plan sends here. */
static void rates_view(const struct epoch *ep, const struct gpulet *g, struct view_gpulet *ret)
{
    for (uint32_t k = 0; k < ep->n_gpulets; k++)
        for (uint32_t i = 0; ep->gpulet[k] == g && i < ep->plan.gpulet[k].n_shares; i++)
            for (uint32_t n = 0; n < ret->n_shares; n++) {
                const struct plan_share *sh = &ep->plan.gpulet[k].share[i];
                if (STREQ(ret->share[n].model, ep->problem.model[sh->model].name))
                    ret->share[n].rate_rps = sh->rate_rps;
            }
}

static int gpulets_view(struct engine *e, struct engine_view *v, const struct epoch *ep)
{
    (void)pthread_mutex_lock(&e->lock);
    uint32_t room = count_locked(e->gpulets) + 8, n = 0;
    (void)pthread_mutex_unlock(&e->lock);

    struct let_copy *copy = ARENA_ARRAY(&v->arena, struct let_copy, room);
    v->gpulet = ARENA_ARRAY(&v->arena, struct view_gpulet, room);
    if (!copy || !v->gpulet)
        return -ENOMEM;
    (void)pthread_mutex_lock(&e->lock);
    for (struct gpulet *g = e->gpulets; g && n < room; g = g->next)
        let_copy(g, &copy[n++]);
    (void)pthread_mutex_unlock(&e->lock);
    for (uint32_t i = 0; i < n; i++) { /* the list has the newest first */
        struct let_copy *c = &copy[n - 1 - i];
        v->gpulet[i] = c->v;
        if (!in_epoch(ep, c->g) && STREQ(c->v.state, "serving"))
            v->gpulet[i].state = "retiring"; /* an older epoch, about to be freed, still names it */
        int r = shares_view(v, ep, c->g, &v->gpulet[i]);
        if (r < 0)
            return r;
        rates_view(ep, c->g, &v->gpulet[i]);
    }
    v->n_gpulets = n;
    return 0;
}

/* What the registry says, copied under the lock. */
static uint32_t entries_copy(struct engine *e, struct view_model *m, char (*reason)[240],
                             uint32_t room)
{
    uint32_t n = 0;

    (void)pthread_mutex_lock(&e->lock);
    for (struct entry *it = e->entries; it && n < room; it = it->next, n++) {
        m[n].spec = it->spec;
        m[n].state = it->state;
        memcpy(reason[n], it->reason, sizeof(it->reason));
        m[n].reason = reason[n];
        if (it->served)
            m[n].served = served_get_ref(it->served);
    }
    (void)pthread_mutex_unlock(&e->lock);
    return n;
}

static int models_view(struct engine *e, struct engine_view *v, const struct epoch *ep)
{
    uint32_t room = 8;

    (void)pthread_mutex_lock(&e->lock);
    for (struct entry *it = e->entries; it; it = it->next)
        room++;
    (void)pthread_mutex_unlock(&e->lock);
    v->model = ARENA_ARRAY(&v->arena, struct view_model, room);
    char(*reason)[240] = arena_array(&v->arena, room, sizeof(*reason));
    if (!v->model || !reason)
        return -ENOMEM;
    v->n_models = entries_copy(e, v->model, reason, room);
    for (uint32_t i = 0; i < v->n_models; i++) {
        struct view_model *m = &v->model[i];
        const struct route *rt = epoch_find(ep, m->spec.name);
        if (!rt)
            continue;
        uint32_t k = (uint32_t)(rt - ep->route);
        m->unmet = rt->verdict.limit;
        m->least_slo_us = rt->verdict.least_slo_us;
        m->weights_bytes = ep->problem.model[k].weights_bytes;
        m->slot_bytes = ep->problem.model[k].slot_bytes;
        m->n_segments = rt->l->n_segments;
        m->n_nodes = rt->l->graph->n_nodes;
        m->n_plain = atomic_load(&rt->l->n_plain);
        m->n_asked = atomic_load(&rt->l->n_asked);
        m->n_late = rt->l->n_late;
        m->n_kept = atomic_load(&rt->l->n_kept);
        m->n_probed = atomic_load(&rt->l->n_probed);
        m->load_us = atomic_load(&rt->l->load_us);
        m->n_queued = atomic_load(&rt->l->n_queued);
        m->mean_rps = atomic_load(&rt->l->mean_rps);
        m->burst = atomic_load(&rt->l->burst);
        if (ep->band) {
            m->planned_rps = ep->band[k].planned_rps;
            m->low_rps = ep->band[k].low_rps;
            m->high_rps = ep->band[k].high_rps;
        }
        if (accuracy_view(e, rt->l, &v->arena, &m->accuracy) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int view_fill(struct engine *e, struct engine_view *v, const struct epoch *ep)
{
    char plan_error[sizeof(e->plan_error)];
    struct device_info *d = ARENA_ARRAY(&v->arena, struct device_info, e->n_devices);
    bool *lost = ARENA_ARRAY(&v->arena, bool, e->n_devices);
    int r = d && lost ? gpulets_view(e, v, ep) : -ENOMEM;

    if (r == 0)
        r = models_view(e, v, ep);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < e->n_devices; i++) {
        d[i] = e->device[i].info;
        lost[i] = atomic_load(&e->device[i].lost);
    }
    v->n_devices = e->n_devices;
    v->device = d;
    v->device_lost = lost;
    v->epoch = ep->number;
    (void)pthread_mutex_lock(&e->lock);
    memcpy(plan_error, e->plan_error, sizeof(plan_error));
    v->pinned = e->pinned;
    (void)pthread_mutex_unlock(&e->lock);
    (void)pthread_mutex_lock(&e->events.lock);
    v->n_events = (uint32_t)MIN(e->events.last, EVENTS_MAX);
    (void)pthread_mutex_unlock(&e->events.lock);
    v->policy = e->cfg.policy->name;
    v->plan_error = arena_strdup(&v->arena, plan_error);
    v->host_used_bytes = pool_used_bytes(e->pool);
    v->host_bytes = e->cfg.host_bytes;
    return v->plan_error ? 0 : -ENOMEM;
}

int engine_view(struct engine *e, struct engine_view **ret, struct err *err)
{
    struct engine_view *v = calloc(1, sizeof(*v));

    if (!v)
        return err_set(err, -ENOMEM, "out of memory");
    arena_init(&v->arena);
    struct epoch *ep = epoch_pin(e);
    int r = view_fill(e, v, ep);
    epoch_put(e, ep);
    if (r < 0) {
        engine_view_free(v);
        return err_set(err, r, "out of memory");
    }
    *ret = v;
    return 0;
}

void engine_view_free(struct engine_view *v)
{
    if (!v)
        return;
    for (uint32_t i = 0; i < v->n_models; i++)
        served_put(v->model[i].served);
    arena_done(&v->arena);
    free(v);
}

/* ---- plans by hand, and what a plan would be */
int engine_plan_dry(struct engine *e, struct arena *a, struct problem *ret_problem,
                    struct plan *ret, struct err *err)
{
    struct epoch *ep = epoch_pin(e);
    struct problem p;
    struct plan plan;
    int r = problem_copy(a, &ep->problem, &p);

    if (r < 0)
        (void)err_set(err, r, "out of memory");
    else if ((r = policy_plan(e->cfg.policy, &p, &ep->plan, a, &plan, err)) == 0)
        r = plan_check(&p, NULL, &plan, err);
    epoch_put(e, ep);
    if (r < 0)
        return r;
    *ret_problem = p;
    *ret = plan;
    return 0;
}

int engine_problem_text(struct engine *e, char **ret, struct err *err)
{
    struct epoch *ep = epoch_pin(e);
    int r = problem_plan_print(&ep->problem, &ep->plan, ret, err);

    epoch_put(e, ep);
    return r;
}

static struct pin *pin_copy(uint32_t n, const struct pin_gpulet *from)
{
    struct pin *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    arena_init(&p->arena);
    p->n = n;
    p->gpulet = arena_memdup(&p->arena, from, n * sizeof(*from));
    for (uint32_t i = 0; p->gpulet && i < n; i++) {
        p->gpulet[i].share =
            arena_memdup(&p->arena, from[i].share, from[i].n_shares * sizeof(*from[i].share));
        if (!p->gpulet[i].share)
            p->gpulet = NULL;
    }
    if (p->gpulet)
        return p;
    pin_free(p);
    return NULL;
}

/* Every name of a pin is loaded, and every loaded model is named. */
static int pin_check(struct engine *e, uint32_t n, const struct pin_gpulet *pin, struct err *err)
{
    struct epoch *ep = epoch_pin(e);
    int r = 0;

    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < pin[i].n_shares && r == 0; k++)
            if (!epoch_find(ep, pin[i].share[k].model))
                r = err_set(err, -EINVAL, "gpu-let %u: there is no model '%s'", i,
                            pin[i].share[k].model);
    for (uint32_t m = 0; m < ep->n_routes && n > 0 && r == 0; m++) {
        bool named = false;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < pin[i].n_shares; k++)
                named |= STREQ(pin[i].share[k].model, ep->problem.model[m].name);
        if (!named)
            r = err_set(err, -EINVAL, "model '%s' would be in no gpu-let",
                        ep->problem.model[m].name);
    }
    epoch_put(e, ep);
    return r;
}

void engine_plan_pin(struct engine *e, uint32_t n, const struct pin_gpulet *pin, struct job *job,
                     struct cq *cq)
{
    struct change *c = calloc(1, sizeof(*c));
    int r = 0;

    job->cq = cq;
    if (!c || (n > 0 && !(c->pin = pin_copy(n, pin))))
        r = err_set(&job->err, -ENOMEM, "out of memory");
    else
        r = pin_check(e, n, pin, &job->err);
    if (r < 0) {
        if (c)
            pin_free(c->pin);
        free(c);
        job_done(job, cq, r, NULL);
        return;
    }
    c->kind = CHANGE_PIN;
    c->job = job;
    c->cq = cq;
    change_push(e, c);
}
