/* More is asked for than the devices have: rates of which everything holds.
 *
 * A planner that is given too much leaves somebody with nothing, and what it leaves out depends on
 * what is cheap to serve.  So where its plan does not hold for all, it is asked again for less:
 * each model keeps what was planned for it when there was last room for all (or less, if it asks
 * for less), and of what it asks for beyond that all have the same part, the largest for which
 * everything holds.  Is there not even room for the first, all get less in proportion.  Who falls
 * back to what was usual finds it planned for.
 *
 * Models with different priorities are left to the planner: it serves the first one first. */
#include "engine_priv.h"

#define TRIES 6         /* halvings */
#define NEW_PART 0.0625 /* of what is asked for: kept where nothing was planned before */
#define NEARLY (1 - 1e-9)

double route_asked_rps(const struct route *rt)
{
    return MAX(rt->served->spec.rate_rps, rt->l->plan_rps);
}

/* x in 0 to 1: of what it keeps; 1 to 2: all of that, and a part of the rest. */
static double part_rps(const struct route *rt, double x)
{
    double asked_rps = route_asked_rps(rt);
    double kept_rps = MAX(MIN(rt->l->held_rps, asked_rps), NEW_PART * asked_rps);

    return x < 1 ? x * kept_rps : kept_rps + (x - 1) * (asked_rps - kept_rps);
}

static void rates_set(struct epoch *ep, double x)
{
    struct plan_model *m =
        (struct plan_model *)(uintptr_t)ep->problem.model; /* epoch_problem()'s */

    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (!m[i].best_effort)
            m[i].rate_rps = part_rps(&ep->route[i], x);
}

/* A model that has got none of a device's time is one whose SLO does not hold; but where that is so
 * in the plan in force, it does not hold at any rate. */
static bool is_hopeless(const struct engine *e, const struct route *rt)
{
    const struct route *now = epoch_find(e->epoch, rt->served->spec.name);

    return now && now->l == rt->l && now->verdict.limit == LIMIT_SLO;
}

bool plan_is_short(const struct engine *e, const struct epoch *ep, const struct plan *plan)
{
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        const struct plan_model *m = &ep->problem.model[i];
        enum plan_limit limit = plan->verdict[i].limit;
        if (m->best_effort || !(m->rate_rps > 0))
            continue;
        if (limit != LIMIT_NONE && !(limit == LIMIT_SLO && is_hopeless(e, &ep->route[i])))
            return true;
    }
    return false;
}

static bool same_priorities(const struct problem *p)
{
    for (uint32_t i = 1; i < p->n_models; i++)
        if (p->model[i].priority != p->model[0].priority)
            return false;
    return true;
}

static bool holds(struct engine *e, struct epoch *ep, const struct plan *was, double x)
{
    struct arena a;
    struct plan p;

    arena_init(&a);
    rates_set(ep, x);
    bool ok = policy_plan(e->cfg.policy, &ep->problem, was, &a, &p, NULL) == 0 &&
              !plan_is_short(e, ep, &p) && plan_check(&ep->problem, was, &p, NULL) == 0;
    arena_done(&a);
    return ok;
}

int plan_part(struct engine *e, struct epoch *ep, const struct plan *was, double least,
              struct plan *ret, struct err *err)
{
    enum plan_rule rule = ep->problem.rules.rule;
    double lo = 0, hi = 2;

    if (!same_priorities(&ep->problem))
        return 0;
    ep->problem.rules.rule = RULE_QUEUE;
    for (int i = 0; i < TRIES && hi > least; i++) {
        double mid = (lo + hi) / 2;
        if (holds(e, ep, was, mid))
            lo = mid;
        else
            hi = mid;
    }
    if (lo >= least && lo > 0) {
        rates_set(ep, lo);
        return policy_plan(e->cfg.policy, &ep->problem, was, &ep->arena, ret, err);
    }
    ep->problem.rules.rule = rule;
    rates_set(ep, 2);
    return 0;
}

bool route_is_short(const struct epoch *ep, uint32_t i)
{
    return !ep->problem.model[i].best_effort &&
           ep->problem.model[i].rate_rps < NEARLY * route_asked_rps(&ep->route[i]);
}

void rates_held(struct epoch *ep)
{
    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (route_is_short(ep, i) || ep->route[i].verdict.limit == LIMIT_RATE ||
            ep->route[i].verdict.limit == LIMIT_UNITS)
            return;
    for (uint32_t i = 0; i < ep->n_routes; i++)
        ep->route[i].l->held_rps = ep->problem.model[i].rate_rps;
}
