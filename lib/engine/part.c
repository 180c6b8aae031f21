/* More is asked for than the devices have: rates of which everything holds.
 *
 * A planner that is given too much leaves somebody with nothing, and what it leaves out depends on
 * what is cheap to serve.  So where its plan does not hold for all, it is asked again for less, in
 * three steps (demand_part()), for the largest part for which everything holds.
 *
 * While a model is loaded the others keep the first two steps whole.  What it was given then is
 * what counts as declared until there was room for more.
 *
 * Where that is hardly more than what is planned now, what is planned now stays: a new plan gives
 * others another place, and what one asks for is not worth it.
 *
 * A part is what a model is sure of; beyond it it has what is at nobody's cost.  Where a rehearsal
 * says that nobody has more in time by that than by the plan for all, that one is taken: nobody is
 * to be kept from the others by it.
 *
 * Models with different priorities are left to the planner: it serves the first one first. */
#include "engine_priv.h"

#define NOW (-1.0)     /* for x: now_rps() */
#define TRIES 4        /* halvings within a step; with all there is to it, nine plans at most */
#define NEW_PART 0.004 /* of what is asked for: counts as declared where nothing was */
/* Worth a new plan: a model gets so many times as much, which is worth less where it is the only
 * one that is short; all together take so much more of the devices; or one that has so much more
 * than its part leaves it to others. */
#define WORTH_EACH 1.05
#define WORTH_ONE 1.25
#define WORTH_ALL 1.08
#define WORTH_OTHERS 1.1
/* Of a model's requests in time, where the rule cannot say that all are: by the plan for all, and
 * by one for a part, of which everybody is to be sure. */
#define SERVED 0.97
#define SURE 0.99
#define LOUD 0.98  /* of what is planned for a model, while all ask for more */
#define GAIN 0.005 /* of a model's requests: what a rehearsal can tell */
#define NEARLY (1 - 1e-9)

double route_asked_rps(const struct route *rt)
{
    return MAX(rt->served->spec.rate_rps, rt->l->plan_rps);
}

static double declared_rps(const struct route *rt)
{
    double rps = rt->served->spec.rate_rps;

    if (!(rps > 0))
        return NEW_PART * route_asked_rps(rt);
    return rt->l->room_rps > 0 ? MIN(rt->l->room_rps, rps) : rps;
}

struct search {
    struct engine *e;
    struct epoch *ep;
    const struct plan *was;
    const struct loaded *comes; /* NULL: nobody */
};

/* By the plan in force, as far as it is still asked for; 0: nothing is. */
static double now_rps(const struct search *s, uint32_t i)
{
    const struct route *rt = &s->ep->route[i];
    const struct epoch *old = s->e->epoch;
    const struct route *now = epoch_find(old, rt->served->spec.name);

    if (!now || now->l != rt->l || s->ep->n_devices != old->n_devices)
        return 0;
    return MIN(old->problem.model[now - old->route].rate_rps, route_asked_rps(rt));
}

/* x: of demand_part(), or NOW. */
static double route_rps(const struct search *s, uint32_t i, double x)
{
    const struct route *rt = &s->ep->route[i];
    bool keeps = s->comes && rt->l != s->comes;

    if (x < 0)
        return now_rps(s, i);
    return demand_part(declared_rps(rt), rt->l->usual_rps, route_asked_rps(rt),
                       keeps ? MAX(x, PART_USUAL) : x);
}

static void rates_set(const struct search *s, double x)
{
    struct plan_model *m =
        (struct plan_model *)(uintptr_t)s->ep->problem.model; /* epoch_problem()'s */

    for (uint32_t i = 0; i < s->ep->n_routes; i++)
        if (!m[i].best_effort)
            m[i].rate_rps = route_rps(s, i, x);
}

/* A model that has got none of a device's time is one whose SLO does not hold; but where that is so
 * in the plan in force too, and no size whatever would hold it, it does not hold at any rate. */
static bool is_hopeless(const struct engine *e, const struct route *rt)
{
    const struct route *now = epoch_find(e->epoch, rt->served->spec.name);

    return now && now->l == rt->l && now->verdict.limit == LIMIT_SLO && !(now->verdict.least > 0);
}

static bool promises_all(const struct engine *e, const struct epoch *ep, const struct plan *plan)
{
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        const struct plan_model *m = &ep->problem.model[i];
        enum plan_limit limit = plan->verdict[i].limit;
        if (m->best_effort || !(m->rate_rps > 0))
            continue;
        if (limit != LIMIT_NONE && !(limit == LIMIT_SLO && is_hopeless(e, &ep->route[i])))
            return false;
    }
    return true;
}

/* What no rule promises may be served all the same: gpuletd's own plan is then the one that serves
 * most, and less would only be refused. */
bool plan_is_short(const struct engine *e, const struct epoch *ep, const struct plan *plan)
{
    return !promises_all(e, ep, plan) && plan_worst(&ep->problem, plan) < SERVED;
}

static bool same_priorities(const struct problem *p)
{
    for (uint32_t i = 1; i < p->n_models; i++)
        if (p->model[i].priority != p->model[0].priority)
            return false;
    return true;
}

/* Served as of best effort is: a rehearsal knows nothing of such. */
static bool any_hopeless(const struct search *s)
{
    for (uint32_t i = 0; i < s->ep->n_routes; i++)
        if (is_hopeless(s->e, &s->ep->route[i]))
            return true;
    return false;
}

static bool holds(const struct search *s, double x)
{
    struct problem *problem = &s->ep->problem;
    struct arena a;
    struct plan p;

    arena_init(&a);
    rates_set(s, x);
    bool ok = policy_plan(s->e->cfg.policy, problem, s->was, &a, &p, NULL) == 0 &&
              (promises_all(s->e, s->ep, &p) || plan_sure(problem, &p) >= SURE) &&
              plan_check(problem, s->was, &p, NULL) == 0;
    double loud = ok && !any_hopeless(s) ? plan_loud(problem, &p) : -1;
    arena_done(&a);
    return ok && (loud < 0 || loud >= LOUD);
}

/* Devices that no plan can do without, by what a plan for all that is asked for says of each model:
 * at lower rates a request does not cost less. */
static double needs(const struct search *s, const struct plan *all, double x)
{
    double devices = 0;

    for (uint32_t i = 0; i < s->ep->n_routes; i++) {
        double asked_rps = route_asked_rps(&s->ep->route[i]);
        if (!s->ep->problem.model[i].best_effort && asked_rps > 0)
            devices += all->verdict[i].least * route_rps(s, i, x) / asked_rps;
    }
    return devices;
}

static uint32_t n_short(const struct search *s, double x)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->ep->n_routes; i++)
        n += !s->ep->problem.model[i].best_effort &&
             route_rps(s, i, x) < NEARLY * route_asked_rps(&s->ep->route[i]);
    return n;
}

/* Has everybody nearly its part by what is planned now, and nobody that of another? */
static bool now_will_do(const struct search *s, const struct plan *all, double x)
{
    double worth = n_short(s, x) > 1 ? WORTH_EACH : WORTH_ONE;

    for (uint32_t i = 0; i < s->ep->n_routes; i++) {
        double rps = route_rps(s, i, x), was_rps = now_rps(s, i);
        bool counts = !s->ep->problem.model[i].best_effort;
        if (counts && (rps > worth * was_rps || was_rps > WORTH_OTHERS * rps))
            return false;
    }
    return needs(s, all, x) <= WORTH_ALL * needs(s, all, NOW) && holds(s, NOW);
}

/* Beyond that it cannot hold. */
static double most(const struct search *s, const struct plan *all)
{
    double lo = 0, hi = PART_ASKED;

    if (needs(s, all, PART_ASKED) <= s->ep->n_devices)
        return PART_ASKED;
    for (int i = 0; i < 20; i++) {
        double mid = (lo + hi) / 2;
        if (needs(s, all, mid) <= s->ep->n_devices)
            lo = mid;
        else
            hi = mid;
    }
    return hi;
}

/* The largest of those tried that holds; 0: none does. */
static double largest(const struct search *s, double hi)
{
    double lo = 0;

    for (int end = PART_USUAL; end >= PART_DECLARED && lo == 0; end--) {
        if (end >= hi)
            continue;
        if (holds(s, end))
            lo = end;
        else
            hi = end;
    }
    for (int i = 0; i < TRIES; i++) {
        double mid = (lo + hi) / 2;
        if (holds(s, mid))
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Is anybody better off by a plan for a part, with all asking for what they do?  The problem's
 * rates are what is asked for afterwards. */
static bool gains_any(struct search *s, const struct plan *part, const struct plan *all)
{
    struct problem *p = &s->ep->problem;
    double *asked_rps = ARENA_ARRAY(&s->ep->arena, double, p->n_models);
    double *by_part = ARENA_ARRAY(&s->ep->arena, double, p->n_models);
    double *by_all = ARENA_ARRAY(&s->ep->arena, double, p->n_models);
    bool gains = false;

    if (!asked_rps || !by_part || !by_all)
        return true;
    for (uint32_t i = 0; i < p->n_models; i++)
        asked_rps[i] = route_asked_rps(&s->ep->route[i]);
    bool known = plan_served(p, part, asked_rps, by_part);
    rates_set(s, PART_ASKED);
    known = known && plan_served(p, all, asked_rps, by_all);
    for (uint32_t i = 0; known && i < p->n_models; i++)
        gains |= by_part[i] > by_all[i] + GAIN;
    return !known || gains;
}

int plan_part(struct engine *e, struct epoch *ep, const struct plan *was,
              const struct loaded *comes, struct plan *ret, struct err *err)
{
    struct search s = {.e = e, .ep = ep, .was = was, .comes = comes};
    enum plan_rule rule = ep->problem.rules.rule;

    if (!same_priorities(&ep->problem))
        return 0;
    ep->problem.rules.rule = RULE_QUEUE;
    double x = largest(&s, most(&s, ret));
    if (x > 0) {
        struct plan part;
        x = now_will_do(&s, ret, x) ? NOW : x;
        rates_set(&s, x);
        int r = policy_plan(e->cfg.policy, &ep->problem, was, &ep->arena, &part, err);
        if (r < 0)
            return r;
        if (gains_any(&s, &part, ret)) {
            rates_set(&s, x);
            *ret = part;
            return 0;
        }
    }
    ep->problem.rules.rule = rule;
    rates_set(&s, PART_ASKED);
    return 0;
}

bool route_is_short(const struct epoch *ep, uint32_t i)
{
    return !ep->problem.model[i].best_effort &&
           ep->problem.model[i].rate_rps < NEARLY * route_asked_rps(&ep->route[i]);
}

void rates_adopt(struct epoch *ep, const struct loaded *comes)
{
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        struct loaded *l = ep->route[i].l;
        double rps = MIN(ep->problem.model[i].rate_rps, ep->route[i].served->spec.rate_rps);
        l->room_rps = l == comes ? rps : MAX(rps, l->room_rps);
    }
}

void rates_usual(struct engine *e, usec_t now_us)
{
    const struct epoch *ep = e->epoch;

    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (ep->band[i].short_rps > 0)
            e->short_us = now_us;
    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (!demand_settled(&ep->route[i].l->demand, e->short_us))
            return;
    for (uint32_t i = 0; i < ep->n_routes; i++)
        ep->route[i].l->usual_rps = demand_usual(&ep->route[i].l->demand, &ep->band[i]);
}
