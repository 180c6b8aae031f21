/* Changes: from the epoch in force to the next, one small step at a time.
 *
 *   LOAD     open -> profile -> plan -> gpu-lets -> seats (compile, probe) -> verdict -> swap
 *   UNLOAD           plan -> …                                           -> swap; the job comes
 *                    back when the last request has left and the model is freed
 *   PIN              plan (by hand) -> …                                 -> swap
 *   REPLAN           plan (what was measured, of runs or of demand, asks for another) -> … -> swap
 *                    or one that was made before, at leisure (leisure.c)
 *
 * Changes are done one after the other, in the order in which they were asked for.  Everything is
 * built beside what serves; only change_swap() is seen from outside, and a change that fails
 * before it drops what it had built and nobody notices but its job.  Builder thread. */
#include "engine_priv.h"

#include <stdio.h>

#define REPLAN_AGAIN_US (5 * USEC_PER_SEC) /* after a plan that could not be made */

void job_done(struct job *job, struct cq *cq, int rc, const struct err *err)
{
    if (!job)
        return;
    job->rc = rc;
    if (err)
        job->err = *err;
    cq_push(cq, &job->item);
}

void pin_free(struct pin *p)
{
    if (p)
        arena_done(&p->arena);
    free(p);
}

static void change_free(struct engine *e, struct change *c)
{
    if (c->held)
        trial_close(c->held);
    free(c->held);
    loaded_put(e, c->l);
    epoch_free(e, c->epoch);
    pin_free(c->pin);
    free(c->steps);
    free(c);
}

/* ---- the registry's side; each takes e->lock */
static void entry_drop(struct engine *e, struct entry **at)
{
    struct entry *n = *at;

    *at = n->next;
    entry_unlist(e, n);
    free(n);
}

static struct entry **entry_of(struct engine *e, const struct change *c)
{
    struct entry **at = entry_find(e, c->spec.name);

    return *at && STREQ((*at)->spec.name, c->spec.name) ? at : NULL;
}

/* What a name's state is when one of its jobs is over; under e->lock. */
static void entry_settle(struct entry *n)
{
    n->state = n->n_unloads ? SERVED_UNLOADING
               : n->served  ? SERVED_READY
               : n->n_jobs  ? SERVED_LOADING
                            : SERVED_UNAVAILABLE;
}

static void registry_failed(struct engine *e, const struct change *c, const struct err *err)
{
    (void)pthread_mutex_lock(&e->lock);
    struct entry **at = entry_of(e, c);
    if (c->epoch)
        (void)snprintf(e->plan_error, sizeof(e->plan_error), "%s", err->msg);
    if (at && c->kind <= CHANGE_UNLOAD) {
        (*at)->n_jobs--;
        (*at)->n_unloads -= c->kind == CHANGE_UNLOAD;
        if (c->kind == CHANGE_LOAD) {
            (*at)->loading = 0;
            (void)snprintf((*at)->reason, sizeof((*at)->reason), "%s", err->msg);
        }
        entry_settle(*at);
    }
    (void)pthread_mutex_unlock(&e->lock);
}

/* Under e->lock, with the swap: what served_get() says changes with the routes. */
static struct served *registry_swapped(struct engine *e, const struct change *c)
{
    struct entry **at = c->kind <= CHANGE_UNLOAD ? entry_of(e, c) : NULL;
    struct served *old = NULL;

    if (!at)
        return NULL;
    struct entry *n = *at;
    old = TAKE(n->served);
    n->n_jobs--;
    n->n_unloads -= c->kind == CHANGE_UNLOAD;
    n->loading = 0;
    n->reason[0] = '\0';
    if (c->kind == CHANGE_LOAD) {
        n->spec = c->spec;
        n->served = served_get_ref(epoch_find(c->epoch, c->spec.name)->served);
    }
    entry_settle(n);
    if (!n->served && n->n_jobs == 0)
        entry_drop(e, at);
    return old;
}

void change_fail(struct engine *e, struct change *c, const struct err *err)
{
    static const char *const what[] = {"load", "unload", "pin", "plan"};

    registry_failed(e, c, err);
    if (c->kind == CHANGE_REPLAN)
        e->replan_from_us = clock_now_us() + REPLAN_AGAIN_US;
    event(e, 3, what[c->kind], c->kind <= CHANGE_UNLOAD ? c->spec.name : "", PLAN_NONE, "%s",
          err->msg);
    struct job *job = c->job;
    struct cq *cq = c->cq;
    change_free(e, c);
    job_done(job, cq, err->code, err);
}

/* ---- steps: 0 done, go on with c->step; 1 stay in this step; negative: the change has failed */
static int change_profile(struct engine *e, struct change *c, struct err *err);
static int change_plan(struct engine *e, struct change *c, struct err *err);
static int change_gpulets(struct engine *e, struct change *c, struct err *err);
static int change_seats(struct engine *e, struct change *c, struct err *err);
static int change_verdict(struct engine *e, struct change *c, struct err *err);
static int change_swap(struct engine *e, struct change *c, struct err *err);

static const struct route *route_now(struct engine *e, const struct change *c)
{
    return epoch_find(e->epoch, c->spec.name); /* e->epoch changes on this thread alone */
}

/* What is compiled now serves the new numbers, too. */
static bool compiled_alike(const struct loaded *l, const struct model_spec *spec)
{
    return l->version == spec->version && l->precision == spec->precision &&
           l->batch_invariant == spec->batch_invariant;
}

/* The version counts on when it is compiled in another way. */
static void keep_stats(struct loaded *l, const struct loaded *was)
{
    if (l->version != was->version)
        return;
    stats_put(l->stats);
    l->stats = was->stats;
    (void)atomic_fetch_add(&l->stats->refs, 1);
}

static int load_open(struct engine *e, struct change *c, struct err *err)
{
    const struct route *now = route_now(e, c);
    int r = 0;

    if (now && compiled_alike(now->l, &c->spec)) {
        c->l = now->l; /* other numbers of the same version */
        c->l->refs++;
        r = loaded_resize(e, c->l, c->spec.max_batch, err);
    } else {
        watch_enter(&e->watch, "model_open", clock_now_us() + BUILDER_BOUND_US);
        r = loaded_open(e, &c->spec, &c->l, err);
        watch_leave(&e->watch);
        if (r == 0)
            profile_restore(e, c->l);
        if (r == 0)
            accuracy_begin(e, c->l, c->spec.as_before);
        if (r == 0 && now) {
            keep_stats(c->l, now->l);
            c->l->plan_rps = now->l->plan_rps;
            c->l->usual_rps = now->l->usual_rps;
        }
    }
    c->step = change_profile;
    return r < 0 ? err_wrap(err, "model '%s': ", c->spec.name) : 0;
}

static int change_profile(struct engine *e, struct change *c, struct err *err)
{
    (void)err;
    int r = profile_first(e, c);
    if (r == 0)
        c->step = change_plan;
    return r;
}

/* A model that is known but was never served has nothing to be planned away. */
static int unload_begin(struct engine *e, struct change *c, struct err *err)
{
    c->step = change_plan;
    if (route_now(e, c))
        return 0;
    (void)pthread_mutex_lock(&e->lock);
    struct entry **at = entry_of(e, c);
    bool known = at != NULL;
    if (at) {
        (*at)->n_jobs--;
        (*at)->n_unloads--;
        entry_settle(*at);
        if ((*at)->n_jobs == 0)
            entry_drop(e, at);
    }
    (void)pthread_mutex_unlock(&e->lock);
    struct job *job = c->job;
    struct cq *cq = c->cq;
    if (!known)
        (void)err_set(err, -ENOENT, "there is no model '%s'", c->spec.name);
    c->kind = CHANGE_REPLAN; /* nothing of the registry's is left to settle */
    c->job = NULL;
    job_done(job, cq, known ? 0 : -ENOENT, known ? NULL : err);
    return 1;
}

static void route_add(struct epoch *ep, struct served *s, struct loaded *l)
{
    l->refs++;
    ep->route[ep->n_routes++] = (struct route){.served = s, .l = l};
}

/* The routes of the new epoch by name: the old ones, less what goes, plus what comes. */
static int routes_fill(struct engine *e, struct change *c, struct err *err)
{
    const struct epoch *old = e->epoch;
    struct epoch *ep = c->epoch;
    struct served *s = NULL;

    ep->route = ARENA_ARRAY(&ep->arena, struct route, (size_t)old->n_routes + 1);
    if (!ep->route)
        return err_set(err, -ENOMEM, "out of memory");
    int r = c->kind == CHANGE_LOAD ? served_new(&c->spec, c->l, &s, err) : 0;
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < old->n_routes; i++) {
        const struct route *from = &old->route[i];
        int order = c->kind <= CHANGE_UNLOAD ? strcmp(from->served->spec.name, c->spec.name) : -1;
        if (s && order > 0)
            route_add(ep, TAKE(s), c->l);
        if (order != 0)
            route_add(ep, served_get_ref(from->served), from->l);
    }
    if (s)
        route_add(ep, s, c->l);
    return 0;
}

/* Why there is a new plan, and what it changes. */
static void plan_told(struct engine *e, const struct change *c)
{
    uint32_t n[STEP_CLOSE + 1] = {0};

    for (uint32_t i = 0; i < c->n_steps; i++)
        n[c->steps[i].kind]++;
    if (c->kind == CHANGE_REPLAN)
        event(e, 6, "plan", "", PLAN_NONE, "%s: %u gpu-lets stay, %u open, %u close", c->reason,
              n[STEP_KEEP], n[STEP_OPEN], n[STEP_CLOSE]);
}

static int change_plan(struct engine *e, struct change *c, struct err *err)
{
    const struct pin *pin = c->kind == CHANGE_PIN ? c->pin : e->pin;
    bool thought = c->epoch != NULL;
    struct epoch *ep = c->epoch = thought ? c->epoch : epoch_new();
    struct plan was;
    int r;

    if (!ep)
        return err_set(err, -ENOMEM, "out of memory");
    if ((r = routes_fill(e, c, err)) < 0 || (!thought && (r = epoch_problem(e, ep, err)) < 0) ||
        (r = epoch_was(ep, e->epoch, !c->whole, &was, &c->was_of, err)) < 0 ||
        (!thought && (r = epoch_plan(e, ep, pin, &was, c->l, &ep->plan, err)) < 0))
        return err_wrap(err, "plan: "), r;
    ep->gpulet = ARENA_ARRAY(&ep->arena, struct gpulet *, ep->plan.n_gpulets);
    c->steps = calloc((size_t)was.n_gpulets + ep->plan.n_gpulets + 1, sizeof(*c->steps));
    if (!ep->gpulet || !c->steps)
        return err_set(err, -ENOMEM, "out of memory");
    ep->n_gpulets = ep->plan.n_gpulets;
    c->n_steps = plan_diff(&was, &ep->plan, true, c->steps);
    c->step = change_gpulets;
    plan_told(e, c);
    return 0;
}

static int change_gpulets(struct engine *e, struct change *c, struct err *err)
{
    const struct plan_step *s = &c->steps[c->at_step++];
    struct epoch *ep = c->epoch;
    struct granules set;

    if (s->kind == STEP_KEEP) {
        ep->gpulet[s->now] = e->epoch->gpulet[c->was_of[s->was]];
        ep->gpulet[s->now]->refs++;
    } else if (s->kind == STEP_OPEN) {
        memcpy(&set, &ep->plan.gpulet[s->now].set, sizeof(set));
        uint32_t device = ep->device[ep->plan.gpulet[s->now].device];
        int r = gpulet_open(e, device, &set, &ep->gpulet[s->now], err);
        if (r < 0)
            return r;
        ep->gpulet[s->now]->refs = 1;
    } else if (s->kind == STEP_SWAP) {
        for (uint32_t k = 0; k < ep->n_gpulets; k++)
            assert(ep->gpulet[k]); /* every kind of device can share granules for a moment */
        c->step = change_seats;
        return 0;
    }
    return 1;
}

/* The seat that the epoch in force has for this model in this gpu-let. */
static struct seat *seat_now(struct engine *e, const struct gpulet *g, const struct route *rt)
{
    for (uint32_t i = 0; i < e->epoch->n_routes; i++)
        for (uint32_t k = 0; k < e->epoch->route[i].n_seats; k++) {
            struct seat *s = e->epoch->route[i].seat[k];
            if (s->g == g && s->l == rt->l && s->max_batch == rt->served->max_batch)
                return s;
        }
    return NULL;
}

static int seat_add(struct engine *e, struct epoch *ep, struct gpulet *g, struct route *rt,
                    struct err *err)
{
    struct seat *s = seat_now(e, g, rt);

    if (!rt->seat)
        rt->seat = ARENA_ARRAY(&ep->arena, struct seat *, ep->n_gpulets);
    if (!rt->seat)
        return err_set(err, -ENOMEM, "out of memory");
    int r = s ? 0 : seat_new(g, rt->l, rt->served->max_batch, &s, err);
    if (r < 0)
        return r;
    s->refs++;
    rt->seat[rt->n_seats++] = s;
    return 0;
}

/* What was measured of a model says well enough what its runs take in another gpu-let.  Only who
 * loads it waits for more: a change of plan should be in force before what asked for it is over. */
static bool measures(const struct change *c, const struct loaded *l)
{
    return !c->urgent && (c->l == l || l->n_points == 0);
}

/* The parts of a seat: made; then batches of 1, 2, 4, … and the planned one are compiled.  Where it
 * is to be measured so is the largest, and both ends are run.  1: more is to come. */
static int seat_part(struct engine *e, struct change *c, const struct plan_share *sh,
                     struct gpulet *g, struct route *rt, struct err *err)
{
    struct keyq *q;
    int r;

    if (c->at_part == 0) {
        r = seat_add(e, c->epoch, g, rt, err);
        return r < 0 ? r : 1;
    }
    struct seat *s = rt->seat[rt->n_seats - 1];
    bool probes = measures(c, rt->l);
    uint32_t at = (c->at_part - 1) / 2, planned = MIN(sh->batch, s->max_batch);
    bool beyond = at > 0 && UINT32_C(1) << (at - 1) >= planned;
    uint32_t rows = beyond ? s->max_batch : MIN(UINT32_C(1) << at, planned);
    uint32_t bucket = bucket_of(rows, s->max_batch), largest = s->n_buckets - 1;

    r = seat_warm_key(s, &q, err);
    if (r == 0 && c->at_part % 2 == 1)
        r = seat_build(s, q, bucket, err);
    else if (r == 0 && probes && (bucket == 0 || bucket == largest)) {
        c->probed = true;
        r = seat_probe(s, q, bucket, err);
    }
    if (r == -EALREADY) {
        c->at_part++; /* and measured when it was built */
        r = 0;
    }
    if (r < 0)
        return r;
    return c->at_part % 2 == 1 || rows < (probes ? s->max_batch : planned);
}

static int change_seats(struct engine *e, struct change *c, struct err *err)
{
    struct epoch *ep = c->epoch;

    while (c->at_gpulet < ep->n_gpulets && c->at_share == ep->plan.gpulet[c->at_gpulet].n_shares) {
        c->at_gpulet++;
        c->at_share = 0;
    }
    if (c->at_gpulet == ep->n_gpulets) {
        c->step = change_verdict;
        return 0;
    }
    const struct plan_share *sh = &ep->plan.gpulet[c->at_gpulet].share[c->at_share];
    uint32_t m = sh->model;
    int r = seat_part(e, c, sh, ep->gpulet[c->at_gpulet], &ep->route[m], err);
    if (r < 0)
        return err_wrap(err, "model '%s': ", ep->problem.model[m].name), r;
    c->at_part++;
    if (r == 0) {
        c->at_part = 0;
        c->at_share++;
    }
    return 1;
}

/* The least SLO that holds where little is asked: a request just misses a run, on as much of a
 * device as a model can have. */
static usec_t least_slo_us(const struct engine *e, const struct loaded *l)
{
    usec_t run_us = USEC_NEVER / 2;

    for (uint32_t i = 0; i < e->n_devices; i++) {
        const struct device_info *d = &e->device[i].info;
        uint32_t n = d->max_granules ? MIN(d->max_granules, d->n_granules) : d->n_granules;
        run_us = MIN(run_us, predict_run_us(&l->profile, 1, n * d->granule_units));
    }
    return 2 * run_us;
}

/* Where run times were measured: what does the plan promise now?  If the policy would cut otherwise
 * with what is known now, this layout serves first and another change follows. */
static int change_verdict(struct engine *e, struct change *c, struct err *err)
{
    struct epoch *ep = c->epoch;
    const struct pin *pin = c->kind == CHANGE_PIN ? c->pin : e->pin;
    struct plan p = ep->plan;
    int r = c->probed ? epoch_problem(e, ep, err) : 0;

    if (r == 0 && c->probed)
        r = epoch_plan(e, ep, pin, &ep->plan, c->l, &p, err);
    if (r < 0)
        return err_wrap(err, "plan: "), r;
    bool same = plan_same_layout(&ep->plan, &p);
    c->replan = !same && c->kind != CHANGE_REPLAN;
    if (same)
        ep->plan = p;
    for (uint32_t i = 0; i < ep->n_routes; i++)
        ep->route[i].verdict = p.verdict[i];
    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (p.verdict[i].limit == LIMIT_SLO && p.verdict[i].least_slo_us == 0)
            ep->route[i].verdict.least_slo_us = least_slo_us(e, ep->route[i].l);
    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (p.verdict[i].limit == LIMIT_NONE && route_is_short(ep, i))
            ep->route[i].verdict.limit = LIMIT_RATE;
    c->step = change_swap;
    return epoch_bands(ep, err);
}

/* Of a model's requests, by rates; 0: they are not known. */
static double part_of(const struct epoch *ep, const struct plan_share *sh)
{
    double all_rps = 0;

    for (uint32_t k = 0; k < ep->n_gpulets; k++)
        for (uint32_t i = 0; i < ep->plan.gpulet[k].n_shares; i++)
            if (ep->plan.gpulet[k].share[i].model == sh->model)
                all_rps += ep->plan.gpulet[k].share[i].rate_rps;
    return all_rps > 0 ? sh->rate_rps / all_rps : 0;
}

/* Models of a gpu-let that are promised something. */
static uint32_t n_sure(const struct epoch *ep, const struct plan_gpulet *g)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->n_shares; i++)
        n += !ep->problem.model[g->share[i].model].best_effort;
    return n;
}

/* A model whose SLO cannot be held is served as one of best effort is; but the plan that has it
 * here has counted its runs. */
static void seat_adopt(struct epoch *ep, struct seat *s, const struct plan_gpulet *g,
                       const struct plan_share *sh, usec_t *slack_us)
{
    const struct route *rt = &ep->route[sh->model];
    bool unmet = rt->served->slo_unmet;

    (void)pthread_mutex_lock(&s->g->lock);
    s->batch = MIN(sh->batch, s->max_batch);
    seat_slow(s, share_slowing(ep, g, sh));
    s->priority = rt->served->spec.priority;
    s->shared = n_sure(ep, g) > 1;
    s->g->order = g->order;
    s->part = part_of(ep, sh);
    s->n_routed = 0;
    seat_class(s, unmet || rt->served->spec.best_effort, unmet ? SPARE_ANY_US : g->spare_us);
    if (!s->best_effort && rt->served->spec.slo_us)
        *slack_us = MIN(*slack_us, slack_of(rt->served->spec.slo_us, s->bucket_us[0]));
    (void)pthread_mutex_unlock(&s->g->lock);
}

static void slack_adopt(struct gpulet *g, usec_t slack_us)
{
    (void)pthread_mutex_lock(&g->lock);
    g->slack_us = slack_us;
    (void)pthread_mutex_unlock(&g->lock);
}

/* What the plan says about seats that may be serving already. */
static void seats_adopt(struct epoch *ep)
{
    for (uint32_t k = 0; k < ep->n_gpulets; k++) {
        usec_t slack_us = USEC_NEVER;
        for (uint32_t i = 0; i < ep->plan.gpulet[k].n_shares; i++) {
            const struct plan_share *sh = &ep->plan.gpulet[k].share[i];
            const struct route *rt = &ep->route[sh->model];
            for (uint32_t n = 0; n < rt->n_seats; n++)
                if (rt->seat[n]->g == ep->gpulet[k])
                    seat_adopt(ep, rt->seat[n], &ep->plan.gpulet[k], sh, &slack_us);
        }
        slack_adopt(ep->gpulet[k], slack_us);
    }
    for (uint32_t k = 0; k < ep->n_gpulets; k++) {
        int opening = GPULET_OPENING;
        (void)atomic_compare_exchange_strong(&ep->gpulet[k]->state, &opening, GPULET_SERVING);
    }
}

/* A model whose SLO the devices cannot hold, however little is asked, is served all the same, with
 * the deadline of one without.  What is only too much to be in time is not: late answers would make
 * others late. */
static void verdicts_adopt(struct engine *e, struct epoch *ep)
{
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        struct route *rt = &ep->route[i];
        rt->served->slo_unmet = rt->served->spec.slo_us && rt->verdict.limit != LIMIT_NONE &&
                                least_slo_us(e, rt->l) > rt->served->spec.slo_us;
    }
}

/* A new version is asked for as the one before was. */
static void demand_adopt(struct engine *e, const struct change *c)
{
    const struct route *now = c->kind == CHANGE_LOAD ? route_now(e, c) : NULL;

    if (!now || now->l == c->l)
        return;
    c->l->demand = now->l->demand;
    demand_recount(&c->l->demand, atomic_load(&c->l->stats->s.arrived));
}

static int change_swap(struct engine *e, struct change *c, struct err *err)
{
    struct epoch *ep = c->epoch;
    struct loaded *leaving = c->kind == CHANGE_UNLOAD ? route_now(e, c)->l : NULL;

    (void)err;
    verdicts_adopt(e, ep);
    seats_adopt(ep);
    rates_adopt(ep, c->l);
    for (uint32_t i = 0; i < ep->n_routes; i++)
        atomic_store_explicit(&ep->route[i].served->route, i, memory_order_relaxed);
    demand_adopt(e, c);
    if (c->kind == CHANGE_PIN) {
        pin_free(e->pin);
        e->pin = TAKE(c->pin);
    }
    if (leaving) { /* the job comes back when the last reference goes */
        leaving->gone = c->job;
        leaving->gone_cq = c->cq;
        c->job = NULL;
    }
    (void)pthread_mutex_lock(&e->lock);
    struct served *gone = registry_swapped(e, c);
    ep->refs = 1;
    ep->number = e->epoch->number + 1;
    ep->since_us = clock_now_us();
    epoch_put_locked(e, e->epoch, 1);
    e->epoch = ep;
    e->plan_error[0] = '\0';
    e->pinned = e->pin != NULL;
    (void)pthread_mutex_unlock(&e->lock);
    c->epoch = NULL;
    served_put(gone);
    c->step = NULL;
    return 0;
}

/* ---- running one */
static void change_begin(struct change *c)
{
    c->since_us = clock_now_us();
    c->step = c->kind == CHANGE_LOAD     ? load_open
              : c->kind == CHANGE_UNLOAD ? unload_begin
                                         : change_plan;
}

void replan_push(struct engine *e, const char *reason, bool whole)
{
    struct change *c = calloc(1, sizeof(*c));

    if (!c)
        return; /* the layout in force serves, only less well */
    c->kind = CHANGE_REPLAN;
    c->whole = whole;
    (void)snprintf(c->reason, sizeof(c->reason), "%s", reason);
    change_push(e, c);
}

void change_think(struct engine *e, struct epoch *ep)
{
    struct change *c = calloc(1, sizeof(*c));

    assert(!e->change && ep->number == e->epoch->number);
    if (!c) {
        epoch_free(e, ep);
        return;
    }
    ep->thought_over = true;
    c->kind = CHANGE_REPLAN;
    c->epoch = ep;
    (void)snprintf(c->reason, sizeof(c->reason), "planned again at leisure, more is in time");
    e->change = c;
}

/* What is in force now, and why. */
static void swap_told(struct engine *e, const struct change *c)
{
    static const char *const why[] = {
        [CHANGE_LOAD] = "the model or its numbers are new",
        [CHANGE_UNLOAD] = "the model is unloaded",
        [CHANGE_PIN] = "pinned by hand",
    };
    const char *reason = c->kind == CHANGE_REPLAN           ? c->reason
                         : c->kind == CHANGE_PIN && !e->pin ? "given back to the policy"
                                                            : why[c->kind];

    event(e, 6, "swap", c->kind <= CHANGE_UNLOAD ? c->spec.name : "", PLAN_NONE,
          "routing table %llu is in force: %u models, %u gpu-lets; %s",
          (unsigned long long)e->epoch->number, e->epoch->n_routes, e->epoch->n_gpulets, reason);
}

static void change_end(struct engine *e, struct change *c)
{
    swap_told(e, c);
    if (c->kind == CHANGE_LOAD) {
        event_put(e, 6, "load", c->spec.name, c->spec.version, PLAN_NONE, "version %u serves",
                  c->spec.version);
        if (!c->l->load_us) /* else it has only other numbers */
            c->l->load_us = clock_now_us() - c->since_us;
        profile_publish(e, c->l);
        e->came_us = clock_now_us(); /* what comes to a new model comes soon */
    }
    if (c->replan)
        replan_push(e, "run times were measured", true);
    struct job *job = c->job;
    struct cq *cq = c->cq;
    change_free(e, c);
    job_done(job, cq, 0, NULL);
}

void change_run(struct engine *e, struct change *c)
{
    struct err err = {0};

    if (!c->step)
        change_begin(c);
    bool plain_unload = c->step == unload_begin;
    int r = c->step(e, c, &err);
    if (r < 0 || (r == 1 && plain_unload) || !c->step)
        e->change = NULL;
    if (r < 0) {
        err.code = r;
        change_fail(e, c, &err);
    } else if (r == 1 && plain_unload) {
        change_free(e, c);
    } else if (!c->step) {
        change_end(e, c);
    }
}

void change_leave(struct engine *e, const char *device)
{
    struct change *c = calloc(1, sizeof(*c));

    if (!c) {
        event(e, 3, "plan", "", PLAN_NONE, "out of memory for a plan without device '%s'", device);
        return;
    }
    c->kind = CHANGE_REPLAN;
    c->urgent = true;
    (void)snprintf(c->reason, sizeof(c->reason), "device '%s' is lost", device);
    (void)pthread_mutex_lock(&e->lock);
    c->next = e->changes;
    if (!e->changes)
        e->changes_tail = &c->next;
    e->changes = c;
    (void)pthread_mutex_unlock(&e->lock);
}

void change_push(struct engine *e, struct change *c)
{
    (void)pthread_mutex_lock(&e->lock);
    c->next = NULL;
    *e->changes_tail = c;
    e->changes_tail = &c->next;
    e->work = true;
    (void)pthread_cond_signal(&e->cond);
    (void)pthread_mutex_unlock(&e->lock);
}
