/* policy = gpuletd: the planner's plan (make.c), or one that serves more where that one cannot keep
 * what was asked for.
 *
 * While the planner meets every model its plan is taken: each promise is proven by the rule. Beyond
 * that somebody will be late whatever is done, no rule says how many, and what counts is how much
 * is served in time.  Then plans are rehearsed (rehearse.c): the planner's own, and on a device
 * that three gpu-lets can cover every way to deal its models out among up to three, neighbours by
 * SLO together, as a long run of one model is what makes a tight SLO late.  For the best few
 * orders, sizes and batches are tried (offer.c).  The one with the most requests in time is kept;
 * its verdicts are the rule's.
 *
 * Where runs of a gpu-let follow each other and everything is kept, it is rehearsed whether they
 * had better do so in turns or by the first deadline.
 *
 * There are three efforts.  Without a running plan nobody waits, and all is tried that helps.  A
 * running plan is changed at once, with what some 50 ms find: all ways to deal are looked at, the
 * running one among them, and the rest is spent on the best.  At leisure (plan_leisure) it is all
 * tried again, for something clearly better than what runs. */
#include "choose.h"

#include <math.h>

#define GAIN 1.001    /* over the planner's plan */
#define CLEARLY 1.005 /* over the running plan, to be worth a change */
#define PRESSED 1.3   /* of what is planned */
#define KEPT 0.99     /* of each model's requests */
#define HASTY 2       /* offers that are looked at closer at once, the running one not counted */

static const struct effort full = {2000, 8000, 24000, 7000000, false},
                           hasty = {600, 1500, 4000, 80000, true};

static bool suits(const struct problem *p)
{
    if (p->n_devices != 1 || p->n_models == 0 || p->n_models > MODELS || p->rules.as_few ||
        (p->rules.max_lets && p->rules.max_lets < GROUPS) || p->rules.max_shares)
        return false;
    const struct plan_type *t = type_of(p, 0);
    uint64_t bytes = t->pool_bytes + GROUPS * t->let_bytes;
    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct plan_model *x = &p->model[m];
        if (!(x->rate_rps > 0) || !x->slo_us || x->priority || x->weights_per_let)
            return false;
        bytes += x->weights_bytes + x->slot_bytes + MIN(x->max_batch, CHOICE_BATCH) * x->row_bytes;
    }
    return !t->n_places && !t->n_sizes && GROUPS * granules_most(t) >= t->n_granules &&
           (!t->mem_bytes || bytes <= t->mem_bytes);
}

/* All ways to deal the models out among two or three, as far as there are granules. */
static void offers_cut(struct choice *c, struct offer *final)
{
    uint32_t n = c->p->n_models;
    struct offer o;

    for (uint32_t i = 1; i < n && c->t->n_granules >= 2; i++) {
        offer_make(c, (const uint32_t[]){i, n}, 2, &o);
        finalist_add(final, &o);
        for (uint32_t k = i + 1; k < n && c->t->n_granules >= GROUPS; k++) {
            offer_make(c, (const uint32_t[]){i, k, n}, 3, &o);
            finalist_add(final, &o);
        }
    }
}

static bool all_met(const struct plan *plan)
{
    for (uint32_t m = 0; m < plan->n_models; m++)
        if (plan->verdict[m].limit != LIMIT_NONE)
            return false;
    return true;
}

/* All the effort there is.  The device that is not cut first: it is often the best. */
static void best_find(struct choice *c, struct offer *ret)
{
    struct offer final[FINALISTS] = {0}, whole;

    *ret = (struct offer){.score = -1};
    c->n_requests = c->effort->sketch;
    offer_make(c, (const uint32_t[]){c->p->n_models}, 1, &whole);
    offer_orders(c, &whole, ret);
    offer_details(c, &whole, ret);
    c->n_requests = c->effort->sketch;
    offers_cut(c, final);
    for (uint32_t i = 0; i < FINALISTS; i++)
        if (final[i].n) {
            offer_orders(c, &final[i], ret);
            offer_details(c, &final[i], ret);
        }
}

/* At once. */
static void best_in_haste(struct choice *c, struct offer *ret)
{
    struct offer final[FINALISTS] = {0}, o;

    *ret = (struct offer){.score = -1};
    c->n_requests = c->effort->sketch;
    offer_make(c, (const uint32_t[]){c->p->n_models}, 1, &o);
    finalist_add(final, &o);
    offers_cut(c, final);
    if (offer_from(c, c->was, &o))
        offer_judge(c, &o, ret);
    for (uint32_t i = 0; i < HASTY; i++)
        if (final[i].n)
            offer_orders(c, &final[i], ret);
    o = *ret;
    offer_score(c, &o);
    offer_details(c, &o, ret);
}

/* The planner's plan, in *ret, could not keep everything: *ret is the best that is found. */
static int choose(struct choice *c, struct arena *a, struct plan *ret, double *ret_score,
                  struct err *err)
{
    struct offer best;
    double own = plan_score_last(c, ret);

    if (c->effort->hasty)
        best_in_haste(c, &best);
    else
        best_find(c, &best);
    *ret_score = fmax(own, best.score);
    if (best.score <= (own > 0 ? GAIN * own : own))
        return 0;
    return offer_plan(c, &best, a, ret, err);
}

static void order_set(struct plan *plan, enum plan_order order)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        if (plan->gpulet[k].n_shares > 1)
            plan->gpulet[k].order = order;
}

/* Where runs follow each other and there is room: in turns, or by the first deadline, whichever
 * serves more once more is asked for than planned, and no less while it is not. */
static void order_choose(const struct problem *p, struct plan *plan)
{
    bool any = false;

    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        if (g->order != ORDER_TURNS || !p->type[p->device[g->device].type].in_turn)
            return;
        any |= g->n_shares > 1;
    }
    if (!any)
        return;
    double worst = plan_worst(p, plan), pressed = plan_pressed(p, plan, PRESSED);
    order_set(plan, ORDER_DEADLINE);
    if (pressed < 0 || plan_worst(p, plan) < fmin(worst, KEPT) ||
        plan_pressed(p, plan, PRESSED) < CLEARLY * pressed)
        order_set(plan, ORDER_TURNS);
}

static int make_at_leisure(const struct problem *p, const struct plan *was, struct arena *a,
                           struct plan *ret, struct err *err)
{
    struct plan plan;
    struct choice c;
    double now = 0, then = 0;
    int r = policy_gpuletd.plan_make(p, was, a, &plan, err);

    if (r == 0 && !all_met(&plan)) {
        if (suits(p) && choice_init(&c, p, was, &full, a)) {
            now = plan_score_last(&c, was);
            r = choose(&c, a, &plan, &then, err);
        }
        if (r == 0 && is_over(p))
            r = err_set(err, -ECANCELED, "there was no time for a better plan");
        else if (r == 0 && then <= fmax(now, CLEARLY * now))
            r = err_set(err, -EALREADY, "nothing is clearly better than the plan that runs");
    }
    if (r < 0)
        return r;
    order_choose(p, &plan);
    *ret = plan;
    return 0;
}

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    struct choice c;
    double score;

    if (was && p->rules.leisure)
        return make_at_leisure(p, was, a, ret, err);
    int r = policy_gpuletd.plan_make(p, was, a, ret, err);
    if (r == 0 && !all_met(ret) && suits(p) && choice_init(&c, p, was, was ? &hasty : &full, a))
        r = choose(&c, a, ret, &score, err);
    if (r == 0)
        order_choose(p, ret);
    return r;
}

const struct policy policy_ours = {
    .name = "gpuletd",
    .leisure = true,
    .plan_make = make,
    .admit = fair_admit,
    .route = greedy_route,
    .batch_next = ordered_batch_next,
};
