/* Measured demand: the loop from what comes to the next plan.
 *
 * Whoever takes a request counts it in its model's counters (demand_count(), no lock).  The builder
 * samples the counters eight times a second while anything comes, asks demand_judge() (pure)
 * whether the plan in force still suits what came, and if not pushes a change with the reason.
 * While nothing comes it samples once a second, and the first request wakes it.
 *
 * A new plan takes the first rates of models that nobody has planned for yet, and the newest of
 * those that left their band; rates within their band stay as they are planned, so that the planner
 * has little to change. */
#include "engine_priv.h"

#include <stdio.h>

#define SELDOM_US USEC_PER_SEC
#define KNOWN_US (2 * USEC_PER_SEC) /* from the first requests until they are planned for */
#define MARGIN 1.1                  /* first planned above what was seen, as demand_judge() does */
/* Times the planned rate: a queue that was planned for is too full beyond that, whatever part of
 * the time a gpu-let still has free. */
#define QUEUE_HIGH 1.2

void demand_count(struct engine *e, struct served *s)
{
    atomic_fetch_add_explicit(&s->stats->arrived, 1, memory_order_relaxed);
    if (atomic_load_explicit(&e->quiet, memory_order_relaxed) && atomic_exchange(&e->quiet, false))
        builder_wake(e);
}

/* Is model i with others that are promised something in a gpu-let? */
static bool shares(const struct epoch *ep, uint32_t model)
{
    for (uint32_t k = 0; k < ep->plan.n_gpulets; k++) {
        const struct plan_gpulet *g = &ep->plan.gpulet[k];
        uint32_t n = 0;
        bool there = false;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            n += !ep->problem.model[g->share[i].model].best_effort;
            there |= g->share[i].model == model;
        }
        if (there && n > 1)
            return true;
    }
    return false;
}

/* Is somebody promised less than it could be if the others asked for less? */
static bool is_unheld(const struct epoch *ep)
{
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        const struct plan_verdict *v = &ep->plan.verdict[i];
        bool hopeless = v->limit == LIMIT_SLO && !(v->least > 0);
        if (v->limit != LIMIT_NONE && !hopeless && !ep->problem.model[i].best_effort)
            return true;
    }
    return false;
}

int epoch_bands(struct epoch *ep, struct err *err)
{
    double *declared = ARENA_ARRAY(&ep->arena, double, ep->n_routes);

    ep->band = ARENA_ARRAY(&ep->arena, struct demand_band, ep->n_routes);
    if (!declared || !ep->band)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < ep->n_routes; i++)
        declared[i] = ep->route[i].served->spec.rate_rps;
    demand_bands(&ep->problem, &ep->plan, declared, ep->band);
    if (is_unheld(ep))
        demand_hasten(ep->n_routes, ep->band);
    for (uint32_t i = 0; ep->problem.rules.rule == RULE_QUEUE && i < ep->n_routes; i++)
        if (ep->band[i].planned_rps > 0)
            ep->band[i].high_rps = MIN(ep->band[i].high_rps, QUEUE_HIGH * ep->band[i].planned_rps);
    for (uint32_t i = 0; i < ep->n_routes; i++)
        ep->band[i].short_rps = route_is_short(ep, i) ? route_asked_rps(&ep->route[i]) : 0;
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        struct allowance *a = &ep->route[i].sure;
        *a = ep->band[i].sure;
        a->rate_rps = shares(ep, i) ? MIN(a->rate_rps, ep->band[i].high_rps) : 0;
    }
    return 0;
}

bool demand_beyond(const struct route *rt, usec_t now_us)
{
    int64_t was_ns, used_ns;

    if (!(rt->sure.rate_rps > 0))
        return false;
    double burst = atomic_load_explicit(&rt->l->burst, memory_order_relaxed);
    was_ns = atomic_load_explicit(&rt->l->used_ns, memory_order_relaxed);
    do {
        used_ns = allowance_take(was_ns, &rt->sure, burst, now_us);
    } while (used_ns != ALLOWANCE_FRESH &&
             !atomic_compare_exchange_weak_explicit(&rt->l->used_ns, &was_ns, used_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    if (used_ns == ALLOWANCE_FRESH)
        atomic_store_explicit(&rt->l->loud_us, now_us, memory_order_relaxed);
    return used_ns == ALLOWANCE_FRESH;
}

bool demand_loud(const struct loaded *l, usec_t now_us)
{
    return atomic_load_explicit(&l->loud_us, memory_order_relaxed) + LOUD_US > now_us;
}

bool demand_meek(const struct loaded *l, usec_t now_us)
{
    usec_t loud_us = atomic_load_explicit(&l->loud_us, memory_order_relaxed);

    return !loud_us || loud_us + QUIET_US <= now_us;
}

/* True: something came. */
static bool sample(struct loaded *l, usec_t now_us)
{
    uint64_t before = l->demand.total;

    demand_sample(&l->demand, now_us, atomic_load(&l->stats->s.arrived));
    atomic_store_explicit(&l->mean_rps, l->demand.mean_rps, memory_order_relaxed);
    atomic_store_explicit(&l->burst, demand_burst(&l->demand), memory_order_relaxed);
    return l->demand.total != before;
}

/* Who has left the band, and what is planned for now. */
static enum demand_move judge(struct engine *e, uint32_t i, char reason[REASON_MAX])
{
    struct loaded *l = e->epoch->route[i].l;
    struct demand_band *b = &e->epoch->band[i];
    double seen_rps = demand_rate(&l->demand);

    if (e->epoch->problem.model[i].best_effort)
        return DEMAND_STAYS; /* it is planned for nothing */
    if (demand_gone(&l->demand, b)) {
        l->plan_rps = b->planned_rps;
        b->short_rps = 0;
    }
    enum demand_move move = demand_judge(&l->demand, b, &l->plan_rps);

    if (move == DEMAND_RISES)
        seen_rps = l->plan_rps / MARGIN; /* of late */
    if (move != DEMAND_STAYS && !reason[0])
        (void)snprintf(reason, REASON_MAX,
                       "model '%.100s' is asked for %.1f times a second, %s the %.1f for which the "
                       "plan holds",
                       l->name, seen_rps, move == DEMAND_RISES ? "above" : "below",
                       move == DEMAND_RISES ? b->high_rps : b->low_rps);
    return move;
}

/* Is a model asked for that nothing was planned for, and was there time to see how much, and who
 * else? */
static bool unknown_is_known(struct engine *e, usec_t now_us, char reason[REASON_MAX])
{
    const struct loaded *l = NULL;

    for (uint32_t i = 0; i < e->epoch->n_routes && !l; i++)
        if (e->epoch->band[i].planned_rps == 0 && !e->epoch->problem.model[i].best_effort &&
            demand_rate(&e->epoch->route[i].l->demand) > 0)
            l = e->epoch->route[i].l;
    if (!l)
        e->unknown_us = 0;
    else if (e->unknown_us == 0)
        e->unknown_us = now_us;
    if (!l || now_us < e->unknown_us + KNOWN_US)
        return false;
    (void)snprintf(reason, REASON_MAX,
                   "model '%.100s' is asked for %.1f times a second, for which nothing was planned",
                   l->name, demand_rate(&l->demand));
    e->unknown_us = 0;
    return true;
}

/* Rates that nobody has planned with yet. */
static void rates_take(struct engine *e)
{
    for (uint32_t i = 0; i < e->epoch->n_routes; i++)
        if (e->epoch->band[i].planned_rps == 0 && e->epoch->route[i].l->plan_rps == 0 &&
            !e->epoch->problem.model[i].best_effort)
            e->epoch->route[i].l->plan_rps = MARGIN * demand_rate(&e->epoch->route[i].l->demand);
}

static bool may_replan(struct engine *e, usec_t now_us)
{
    (void)pthread_mutex_lock(&e->lock);
    bool busy = e->changes != NULL;
    (void)pthread_mutex_unlock(&e->lock);
    return !busy && !e->change && !e->pin && e->epoch->band && now_us >= e->replan_from_us;
}

void demand_step(struct engine *e)
{
    usec_t now_us = clock_now_us();
    char reason[REASON_MAX] = "", none[REASON_MAX] = "";
    bool silent = true, rises = false;

    if (now_us < e->demand_due_us && !(e->demand_quiet && !atomic_load(&e->quiet)))
        return;
    for (uint32_t i = 0; i < e->epoch->n_routes; i++) {
        if (sample(e->epoch->route[i].l, now_us))
            e->came_us = now_us;
        silent &= demand_silent(&e->epoch->route[i].l->demand);
    }
    bool may = may_replan(e, now_us);
    for (uint32_t i = 0; may && i < e->epoch->n_routes; i++)
        rises |= judge(e, i, reason) == DEMAND_RISES;
    if (may && !reason[0])
        rises |= unknown_is_known(e, now_us, reason);
    if (may)
        rates_usual(e, now_us);
    if (!e->change) /* what is pinned is known better, too */
        profile_refit(e, now_us, may ? reason : none);
    if (reason[0]) {
        rates_take(e);
        replan_push(e, reason, !rises);
    }
    e->demand_quiet = silent;
    atomic_store(&e->quiet, silent);
    e->demand_due_us = now_us + (silent ? SELDOM_US : DEMAND_CELL_US);
}

usec_t demand_wait_us(const struct engine *e)
{
    usec_t now_us = clock_now_us();

    return e->demand_due_us > now_us ? MIN(e->demand_due_us - now_us, SELDOM_US) : 0;
}
