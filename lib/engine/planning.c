/* From routes to a plan: the problem as lib/plan wants it, a plan by the policy or by hand, and
 * the running plan in the new problem's numbering.  Builder; everything lies in the epoch's arena,
 * so a dry run may read it later from any thread. */
#include "engine_priv.h"

#include <math.h>

#define SLOWING_MOST 4.0 /* as much as a residual may say */

static_assert(PLAN_MAX_GRANULES == MAX_GRANULES, "plan and backend agree on granules");

static int oom(struct err *err)
{
    return err_set(err, -ENOMEM, "out of memory");
}

/* The profile of the moment, for each type of device: the builder goes on measuring, the copy does
 * not change.  By the interference of the devices it says what the model does to neighbours. */
static const struct profile *profiles_copy(struct arena *a, const struct loaded *l,
                                           const struct interference *f, uint32_t n_types)
{
    struct profile *c = ARENA_ARRAY(a, struct profile, n_types);

    if (!c || profile_copy(a, &l->profile, c) < 0 ||
        (f->kind != INTERFERE_NONE && l->n_beside &&
         beside_cells(a, f, l->beside, l->n_beside, c) < 0))
        return NULL;
    for (uint32_t t = 1; t < n_types; t++)
        c[t] = *c;
    return c;
}

/* Those that are not lost; returns how many. */
static uint32_t devices_choose(const struct engine *e, uint32_t ret[MAX_DEVICES])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->n_devices; i++)
        if (!atomic_load(&e->device[i].lost))
            ret[n++] = i;
    return n;
}

/* The epoch's number of a device; PLAN_NONE: it was lost. */
static uint32_t device_index(const struct epoch *ep, uint32_t device)
{
    for (uint32_t i = 0; i < ep->n_devices; i++)
        if (ep->device[i] == device)
            return i;
    return PLAN_NONE;
}

/* Each device is a type of its own: what the backend says of one need not hold for the next. */
static int devices_copy(struct engine *e, const uint32_t *device, uint32_t n,
                        const struct interference *f, struct arena *a, struct problem *ret)
{
    struct plan_device *d = ARENA_ARRAY(a, struct plan_device, n);
    struct plan_type *t = ARENA_ARRAY(a, struct plan_type, n);

    if (!d || !t)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        const struct device_info *info = &e->device[device[i]].info;
        uint32_t units = info->n_granules * info->granule_units;
        t[i] = (struct plan_type){.name = arena_strdup(a, info->name),
                                  .n_granules = info->n_granules,
                                  .granule_units = info->granule_units,
                                  .max_granules = info->max_granules,
                                  .in_turn = info->in_turn,
                                  .mem_bytes = info->mem_bytes,
                                  .let_bytes = info->let_bytes,
                                  .predict = {.units = units, .interference = *f}};
        d[i] = (struct plan_device){.name = t[i].name, .type = i};
        if (!t[i].name)
            return -ENOMEM;
    }
    ret->n_types = ret->n_devices = n;
    ret->type = t;
    ret->device = d;
    return 0;
}

/* One of the devices keeps a copy of the weights for each gpu-let.  A model says so, not a device:
 * what another of them would share is then counted too often, never too seldom. */
static bool copies_weights(const struct engine *e, const uint32_t *device, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!e->device[device[i]].info.weights_shared)
            return true;
    return false;
}

/* Where a device has a limit it is that of all: they are of one kind. */
static uint32_t lets_most(const struct engine *e, const uint32_t *device, uint32_t n)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t lets = e->device[device[i]].info.max_lets;
        most = most && lets ? MIN(most, lets) : MAX(most, lets);
    }
    return most;
}

/* Requests come as they like: once rates are known, queues are what makes them late.  Before that
 * the devices are divided by what a cycle takes. */
static void rules_choose(struct problem *p, struct plan_model *m)
{
    for (uint32_t i = 0; i < p->n_models; i++) {
        m[i].arrivals = ARRIVALS_POISSON;
        if (m[i].rate_rps > 0)
            p->rules.rule = RULE_QUEUE;
    }
}

int epoch_problem(struct engine *e, struct epoch *ep, struct err *err)
{
    struct plan_model *m = ARENA_ARRAY(&ep->arena, struct plan_model, ep->n_routes);
    struct problem p = {.n_models = ep->n_routes, .model = m};
    struct interference f;

    if (ep->n_devices == 0) /* once: its plan counts them */
        ep->n_devices = devices_choose(e, ep->device);
    if (!m || epoch_interference(e, ep, &f) < 0 ||
        devices_copy(e, ep->device, ep->n_devices, &f, &ep->arena, &p) < 0)
        return oom(err);
    bool copies = copies_weights(e, ep->device, ep->n_devices);
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        const struct loaded *l = ep->route[i].l;
        const struct served *s = ep->route[i].served;
        m[i] = (struct plan_model){.name = arena_strdup(&ep->arena, s->spec.name),
                                   .slo_us = s->spec.slo_us,
                                   .rate_rps = route_asked_rps(&ep->route[i]),
                                   .max_batch = s->max_batch,
                                   .priority = s->spec.priority,
                                   .best_effort = s->spec.best_effort,
                                   .weights_bytes = l->weights_bytes,
                                   .slot_bytes = l->slot_bytes,
                                   .weights_per_let = copies,
                                   .profile = profiles_copy(&ep->arena, l, &f, p.n_types)};
        if (!m[i].name || !m[i].profile)
            return oom(err);
    }
    p.rules.max_lets = lets_most(e, ep->device, ep->n_devices);
    rules_choose(&p, m);
    ep->problem = p;
    return 0;
}

int loaded_problem(struct engine *e, const struct loaded *l, struct arena *a, struct problem *ret)
{
    struct plan_model *m = ARENA_ARRAY(a, struct plan_model, 1);
    struct problem p = {.n_models = 1, .model = m};
    struct interference f = loaded_interference(e, l);
    uint32_t device[MAX_DEVICES], n = devices_choose(e, device);

    if (!m || devices_copy(e, device, n, &f, a, &p) < 0)
        return -ENOMEM;
    *m = (struct plan_model){.name = arena_strdup(a, l->name),
                             .max_batch = l->profile.batch[l->profile.n_batch - 1],
                             .weights_bytes = l->weights_bytes,
                             .slot_bytes = l->slot_bytes,
                             .weights_per_let = copies_weights(e, device, n),
                             .profile = profiles_copy(a, l, &f, p.n_types)};
    *ret = p;
    return m->name && m->profile ? 0 : -ENOMEM;
}

static uint32_t model_index(const struct problem *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_models; i++)
        if (STREQ(p->model[i].name, name))
            return i;
    return PLAN_NONE;
}

static int shares_was(struct epoch *ep, const struct epoch *old, struct plan_gpulet *g,
                      struct err *err)
{
    const struct plan_share *from = g->share;
    uint32_t n = g->n_shares;

    g->share = ARENA_ARRAY(&ep->arena, struct plan_share, n);
    g->n_shares = 0;
    if (!g->share)
        return oom(err);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t m = model_index(&ep->problem, old->problem.model[from[i].model].name);
        if (m == PLAN_NONE)
            continue;
        g->share[g->n_shares] = from[i];
        g->share[g->n_shares++].model = m;
    }
    return 0;
}

int epoch_was(struct epoch *ep, const struct epoch *old, bool judged, struct plan *ret,
              uint32_t **ret_of, struct err *err)
{
    struct plan was = {.n_models = judged ? ep->problem.n_models : 0};
    uint32_t n = old->plan.n_gpulets;

    was.gpulet = ARENA_ARRAY(&ep->arena, struct plan_gpulet, n);
    was.verdict = ARENA_ARRAY(&ep->arena, struct plan_verdict, was.n_models);
    *ret_of = ARENA_ARRAY(&ep->arena, uint32_t, n);
    if (!was.gpulet || !was.verdict || !*ret_of)
        return oom(err);
    /* Of models that are new the key stays 0. */
    for (uint32_t i = 0; judged && i < old->plan.n_models; i++) {
        uint32_t m = model_index(&ep->problem, old->problem.model[i].name);
        if (m != PLAN_NONE)
            was.verdict[m] = old->plan.verdict[i];
    }
    for (uint32_t k = 0; k < n; k++) {
        const struct plan_gpulet *from = &old->plan.gpulet[k];
        uint32_t device = device_index(ep, old->device[from->device]);
        struct plan_gpulet *g = &was.gpulet[was.n_gpulets];
        if (device == PLAN_NONE)
            continue;
        *g = *from;
        g->device = device;
        (*ret_of)[was.n_gpulets++] = k;
        if (shares_was(ep, old, g, err) < 0)
            return err->code;
    }
    *ret = was;
    return 0;
}

/* ---- plans by hand */
static int pin_share_add(struct epoch *ep, struct plan_gpulet *g, const char *name, uint32_t batch,
                         struct err *err)
{
    uint32_t m = model_index(&ep->problem, name);

    if (m == PLAN_NONE)
        return 0; /* not loaded now: its place stays empty */
    const struct plan_model *model = &ep->problem.model[m];
    struct plan_share *s = &g->share[g->n_shares++];
    s->model = m;
    s->batch = batch ? batch : model->max_batch;
    if (s->batch > model->max_batch)
        return err_set(err, -EINVAL, "model '%s': batch %u is above its max_batch %u", name,
                       s->batch, model->max_batch);
    s->run_us =
        predict_run_us(&model->profile[ep->problem.device[g->device].type], s->batch, g->units);
    return 0;
}

static bool plan_places(const struct plan *p, uint32_t model)
{
    for (uint32_t k = 0; k < p->n_gpulets; k++)
        for (uint32_t i = 0; i < p->gpulet[k].n_shares; i++)
            if (p->gpulet[k].share[i].model == model)
                return true;
    return false;
}

/* A model that was loaded after the pin goes where the fewest are. */
static void pin_place(struct epoch *ep, struct plan *p, uint32_t model)
{
    struct plan_gpulet *best = &p->gpulet[0];

    for (uint32_t k = 1; k < p->n_gpulets; k++)
        if (p->gpulet[k].n_shares < best->n_shares)
            best = &p->gpulet[k];
    (void)pin_share_add(ep, best, ep->problem.model[model].name, 0, NULL);
}

/* Beside its neighbours, now that all of them are there. */
static void pin_predict(const struct problem *pr, struct plan *p)
{
    struct share_truth t;

    for (uint32_t k = 0; k < p->n_gpulets; k++)
        for (uint32_t i = 0; i < p->gpulet[k].n_shares; i++)
            if (plan_truth_now(pr, p, k, i, &t) == 0 && t.full.run_us > 0)
                p->gpulet[k].share[i].run_us = (usec_t)ceil(t.full.run_us);
}

/* Those of best effort behind the others. */
static void pin_sort(const struct problem *pr, struct plan_gpulet *g)
{
    for (uint32_t i = 1; i < g->n_shares; i++) {
        struct plan_share s = g->share[i];
        uint32_t k = i;
        if (pr->model[s.model].best_effort)
            continue;
        for (; k > 0 && pr->model[g->share[k - 1].model].best_effort; k--)
            g->share[k] = g->share[k - 1];
        g->share[k] = s;
    }
}

/* The rule of plan_check(): one run of everything in the gpu-let, then one's own. */
static void pin_judge(struct epoch *ep, struct plan *p)
{
    for (uint32_t k = 0; k < p->n_gpulets; k++) {
        const struct plan_gpulet *g = &p->gpulet[k];
        usec_t all_us = 0;
        for (uint32_t i = 0; i < g->n_shares; i++)
            all_us += ep->problem.model[g->share[i].model].best_effort ? 0 : g->share[i].run_us;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            const struct plan_share *s = &g->share[i];
            struct plan_verdict *v = &p->verdict[s->model];
            usec_t slo_us = ep->problem.model[s->model].slo_us;
            v->least_slo_us = MAX(v->least_slo_us, all_us + s->run_us);
            v->most_rps += s->batch * 1e6 / (double)MAX(all_us, 1);
            if (slo_us && v->least_slo_us > slo_us)
                v->limit = LIMIT_SLO;
        }
    }
    for (uint32_t m = 0; m < p->n_models; m++)
        if (p->verdict[m].limit == LIMIT_NONE &&
            ep->problem.model[m].rate_rps > p->verdict[m].most_rps)
            p->verdict[m].limit = LIMIT_RATE;
}

static int pin_gpulet_add(struct epoch *ep, struct plan *p, const struct pin_gpulet *from,
                          uint32_t device, struct err *err)
{
    const struct problem *pr = &ep->problem;
    struct plan_gpulet *g = &p->gpulet[p->n_gpulets++];

    g->device = device;
    memcpy(&g->set, &from->set, sizeof(g->set));
    g->order = from->order;
    g->units = granules_count(&from->set) * pr->type[pr->device[device].type].granule_units;
    g->share = ARENA_ARRAY(&ep->arena, struct plan_share, (size_t)from->n_shares + pr->n_models);
    if (!g->share)
        return oom(err);
    for (uint32_t i = 0; i < from->n_shares; i++) {
        int r = pin_share_add(ep, g, from->share[i].model, from->share[i].batch, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What is pinned to a device that was lost is left out. */
static int plan_by_hand(struct engine *e, struct epoch *ep, const struct pin *pin, struct plan *ret,
                        struct err *err)
{
    struct arena *a = &ep->arena;
    const struct problem *pr = &ep->problem;
    struct plan p = {.n_models = pr->n_models};

    ep->problem.rules.rule = RULE_CYCLE; /* it says nothing of rates: what they do is not judged */
    p.gpulet = ARENA_ARRAY(a, struct plan_gpulet, pin->n);
    p.verdict = ARENA_ARRAY(a, struct plan_verdict, pr->n_models);
    if (!p.gpulet || !p.verdict)
        return oom(err);
    for (uint32_t k = 0; k < pin->n; k++) {
        const struct pin_gpulet *from = &pin->gpulet[k];
        uint32_t device = device_index(ep, from->device);
        if (from->device >= e->n_devices)
            return err_set(err, -EINVAL, "gpu-let %u: there is no device %u", k, from->device);
        int r = device == PLAN_NONE ? 0 : pin_gpulet_add(ep, &p, from, device, err);
        if (r < 0)
            return r;
    }
    if (p.n_gpulets == 0)
        return err_set(err, -ENODEV, "all devices with pinned gpu-lets are lost");
    for (uint32_t m = 0; m < pr->n_models; m++)
        if (!plan_places(&p, m))
            pin_place(ep, &p, m);
    for (uint32_t k = 0; k < p.n_gpulets; k++)
        pin_sort(pr, &p.gpulet[k]);
    pin_predict(pr, &p);
    pin_judge(ep, &p);
    plan_spare(pr, &p);
    *ret = p;
    return 0;
}

/* Nobody may lose its place: a model that has none refuses the change.  But for best effort. */
static int all_placed(const struct problem *pr, const struct plan *p, struct err *err)
{
    for (uint32_t m = 0; m < pr->n_models; m++) {
        const struct plan_model *model = &pr->model[m];
        if (plan_places(p, m) || model->best_effort)
            continue;
        if (p->verdict[m].limit == LIMIT_MEMORY)
            return err_set(err, -ENOMEM,
                           "no gpu-let can hold model '%s': it needs %llu bytes and %llu for each "
                           "run",
                           model->name, (unsigned long long)model->weights_bytes,
                           (unsigned long long)model->slot_bytes);
        return err_set(err, -ENOMEM,
                       "no gpu-let has time for model '%s': beside it another model's promise "
                       "would break",
                       model->name);
    }
    return 0;
}

static int plan_by_policy(struct engine *e, struct epoch *ep, const struct plan *was,
                          struct plan *ret, struct err *err)
{
    int r = policy_plan(e->cfg.policy, &ep->problem, was, &ep->arena, ret, err);

    return r < 0 ? r : plan_check(&ep->problem, was, ret, err);
}

static int plan_checked(struct engine *e, struct epoch *ep, const struct pin *pin,
                        const struct plan *was, struct plan *ret, struct err *err)
{
    if (!pin)
        return plan_by_policy(e, ep, was, ret, err);
    int r = plan_by_hand(e, ep, pin, ret, err);
    return r < 0 ? r : plan_check(&ep->problem, was, ret, err);
}

/* As if nobody disturbed anybody.  False: that is so already. */
static bool neighbours_forget(struct epoch *ep)
{
    struct plan_type *t = (struct plan_type *)(uintptr_t)ep->problem.type; /* devices_copy()'s */
    bool any = false;

    for (uint32_t i = 0; i < ep->problem.n_types; i++) {
        any |= t[i].predict.interference.kind != INTERFERE_NONE;
        t[i].predict.interference = (struct interference){0};
    }
    return any;
}

int epoch_plan(struct engine *e, struct epoch *ep, const struct pin *pin, const struct plan *was,
               const struct loaded *comes, struct plan *ret, struct err *err)
{
    struct plan p;
    int r = plan_checked(e, ep, pin, was, &p, err);

    if (r == -EINVAL && !pin && ep->problem.rules.rule == RULE_QUEUE) {
        /* The check is stricter than the planner about a queue at its limit: what a cycle takes
         * they agree on. */
        event(e, 4, "plan", "", PLAN_NONE, "planned again without queues: %s", err->msg);
        ep->problem.rules.rule = RULE_CYCLE;
        r = plan_checked(e, ep, pin, was, &p, err);
    }
    if (r == -EINVAL && neighbours_forget(ep)) { /* some policies know none */
        event(e, 4, "plan", "", PLAN_NONE, "planned again without neighbours: %s", err->msg);
        r = plan_checked(e, ep, pin, was, &p, err);
    }
    if (r == 0 && !pin && plan_is_short(e, ep, &p))
        r = plan_part(e, ep, was, comes, &p, err);
    if (r == 0)
        r = all_placed(&ep->problem, &p, err);
    if (r == 0)
        *ret = p;
    return r;
}

int epoch_think(struct engine *e, struct epoch *ep, const struct plan *was, struct err *err)
{
    int r = plan_by_policy(e, ep, was, &ep->plan, err);

    return r < 0 ? r : all_placed(&ep->problem, &ep->plan, err);
}

double share_slowing(const struct epoch *ep, const struct plan_gpulet *g,
                     const struct plan_share *s)
{
    const struct profile *f =
        &ep->problem.model[s->model].profile[ep->problem.device[g->device].type];
    double slow = (double)s->run_us / (double)predict_run_us(f, s->batch, g->units);

    return MIN(MAX(slow, 1.0), SLOWING_MOST);
}

bool plan_same_layout(const struct plan *a, const struct plan *b)
{
    if (a->n_gpulets != b->n_gpulets)
        return false;
    for (uint32_t k = 0; k < a->n_gpulets; k++) {
        const struct plan_gpulet *x = &a->gpulet[k], *y = &b->gpulet[k];
        if (x->device != y->device || memcmp(&x->set, &y->set, sizeof(x->set)) != 0 ||
            x->n_shares != y->n_shares)
            return false;
        for (uint32_t i = 0; i < x->n_shares; i++)
            if (x->share[i].model != y->share[i].model)
                return false;
    }
    return true;
}
