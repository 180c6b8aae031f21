/* policy = gpuletd: the planner's plan (make.c), or one that serves more where that one cannot keep
 * what was asked for.
 *
 * While the planner meets every model its plan is taken: each promise is proven by the rule. Beyond
 * that somebody will be late whatever is done, no rule says how many, and what counts is how much
 * is served in time.  Then plans are rehearsed (rehearse.c): the planner's own, and on a device
 * that can be cut freely every way to deal its models out among up to three gpu-lets, neighbours by
 * SLO together, as a long run of one model is what makes a tight SLO late.  For the best few, and
 * for the device that is not cut, orders, sizes and batches are tried.  The one with the most
 * requests in time is kept; its verdicts are the rule's. */
#include "whole.h"

#include <math.h>

#define MODELS 8 /* more are left to the planner */
#define GROUPS 3
#define BATCH 64
#define TYPICAL 4  /* rows of a usual run */
#define GAIN 1.003 /* over the planner's plan */
#define FINALISTS 3
#define SEED 1
#define SURELY 2e-4  /* less is chance */
#define FAIR 0.9     /* of a model's requests in time: below that it counts more */
#define UNFAIR 0.2   /* how much, of all requests */
#define PRIOR 20.0   /* requests in time that a model is taken to have had before: few say little */
#define CAP_ROUNDS 4 /* of looking for better batches */

/* Requests of a rehearsal: at first; of those that are looked at again; of the last, with arrivals
 * that nothing was tuned to; and of all rehearsals together.  A running plan is changed by the
 * second: some 50 ms, a builder's step. */
static const struct effort {
    uint32_t sketch, closer, last, all;
} efforts[] = {{2000, 8000, 24000, 7000000}, {600, 2000, 4000, 80000}};

/* Longest runs: of the model's own SLO, and of the tightest in the gpu-let. */
static const struct limit {
    double own, tightest;
} limits[] = {{0.25, 0.35}, {0.5, 0.5}, {0.5, 1},    {0.15, 1e9},
              {0.2, 1e9},   {0.3, 1e9}, {0.08, 0.25}};

struct group { /* a gpu-let to be */
    uint32_t n, model[MODELS], cap[MODELS], granules;
    enum plan_order order;
};
struct offer { /* a plan to be */
    uint32_t n;
    struct group group[GROUPS];
    double score; /* requests/s in time, rehearsed, less what is unfair */
};

struct choice {
    const struct problem *p;
    const struct plan_type *t;
    void *scratch;
    const struct effort *effort;
    uint32_t n_requests, left; /* of a rehearsal; of all that are still to be */
    uint64_t seed;
    uint32_t order[MODELS]; /* models by SLO, the tightest first */
    double cost_us[MODELS]; /* of a request on the whole device, in a usual run */
};

static bool suits(const struct problem *p)
{
    if (p->n_devices != 1 || p->n_models == 0 || p->n_models > MODELS || p->rules.as_few ||
        p->rules.max_lets || p->rules.max_shares)
        return false;
    const struct plan_type *t = type_of(p, 0);
    uint64_t bytes = t->pool_bytes + GROUPS * t->let_bytes;
    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct plan_model *x = &p->model[m];
        if (!(x->rate_rps > 0) || !x->slo_us || x->priority || x->weights_per_let)
            return false;
        bytes += x->weights_bytes + x->slot_bytes + MIN(x->max_batch, BATCH) * x->row_bytes;
    }
    return !t->n_places && !t->n_sizes && !t->max_granules &&
           (!t->mem_bytes || bytes <= t->mem_bytes);
}

static double run_alone(const struct choice *c, uint32_t model, uint32_t granules, uint32_t rows)
{
    struct load l = {.profile = profile_of(c->p, model, 0),
                     .batch = rows,
                     .units = granules * c->t->granule_units,
                     .duty = 1};
    struct estimate e;

    return predict(&c->t->predict, &l, NULL, 0, &e) ? e.run_us : INFINITY;
}

static bool choice_init(struct choice *c, const struct problem *p, const struct effort *e,
                        struct arena *a)
{
    *c = (struct choice){.p = p, .t = type_of(p, 0), .effort = e, .left = e->all};
    c->scratch = arena_alloc(a, REHEARSE_NEED);
    for (uint32_t m = 0; m < p->n_models; m++) {
        uint32_t i = m, rows = MIN(p->model[m].max_batch, 2 * TYPICAL);
        for (; i > 0 && p->model[c->order[i - 1]].slo_us > p->model[m].slo_us; i--)
            c->order[i] = c->order[i - 1];
        c->order[i] = m;
        c->cost_us[m] = run_alone(c, m, c->t->n_granules, rows) / rows;
        if (!(c->cost_us[m] < INFINITY))
            return false;
    }
    return c->scratch != NULL;
}

/* ---- how good is it? */

/* Requests/s in time; a model with less than FAIR of its own makes the plan worse than the others
 * can make up for by starving it. */
static double score(struct choice *c, const struct plan *plan)
{
    struct rehearsed x[MODELS];
    struct arena a;
    double good_rps = 0, all_rps = 0, worst = 1;

    arena_init_fixed(&a, c->scratch, REHEARSE_NEED);
    if (c->left < c->n_requests)
        return -1;
    c->left -= c->n_requests;
    if (!rehearse(c->p, plan, c->n_requests, c->seed, &a, x))
        return -1;
    for (uint32_t m = 0; m < c->p->n_models; m++) {
        double part = x[m].offered ? (double)x[m].in_time / x[m].offered : 1;
        good_rps += part * c->p->model[m].rate_rps;
        all_rps += c->p->model[m].rate_rps;
        worst = fmin(worst, (x[m].in_time + PRIOR) / (x[m].offered + PRIOR));
    }
    return good_rps + UNFAIR * all_rps * fmin(worst - FAIR, 0);
}

struct sheet { /* room for an offer as a plan */
    struct plan plan;
    struct plan_gpulet let[GROUPS];
    struct plan_share share[GROUPS][MODELS];
};

static void sheet_fill(const struct choice *c, const struct offer *o, struct sheet *s)
{
    uint32_t at = 0;

    s->plan.gpulet = s->let;
    s->plan.n_gpulets = o->n;
    for (uint32_t k = 0; k < o->n; k++) {
        const struct group *g = &o->group[k];
        s->let[k] = (struct plan_gpulet){.units = g->granules * c->t->granule_units,
                                         .order = g->order,
                                         .n_shares = g->n,
                                         .share = s->share[k]};
        for (uint32_t i = 0; i < g->granules; i++)
            set_add(&s->let[k].set, at++);
        for (uint32_t i = 0; i < g->n; i++)
            s->share[k][i] = (struct plan_share){
                .model = g->model[i],
                .batch = g->cap[i],
                .rate_rps = c->p->model[g->model[i]].rate_rps,
                .run_us = (usec_t)fmax(1, run_alone(c, g->model[i], g->granules, g->cap[i]))};
    }
}

static_assert(sizeof(struct sheet) <= CHOICE_NEED - 16, "plan_need() has room for it");

static void offer_score(struct choice *c, struct offer *o)
{
    struct sheet s = {0};

    sheet_fill(c, o, &s);
    o->score = score(c, &s.plan);
}

/* Keeps the better of what was and what is. */
static bool better(struct choice *c, struct offer *best, struct offer *o)
{
    offer_score(c, o);
    if (o->score <= best->score * (1 + SURELY))
        return false;
    *best = *o;
    return true;
}

/* ---- offers */

/* Batches whose runs are within a limit; one row it may always be. */
static void caps_set(const struct choice *c, struct group *g, const struct limit *l)
{
    double tight_us = INFINITY;

    for (uint32_t i = 0; i < g->n; i++)
        tight_us = fmin(tight_us, (double)c->p->model[g->model[i]].slo_us);
    for (uint32_t i = 0; i < g->n; i++) {
        const struct plan_model *m = &c->p->model[g->model[i]];
        double longest_us = fmin(l->own * (double)m->slo_us, l->tightest * tight_us);
        uint32_t b = MIN(m->max_batch, BATCH);
        while (b > 1 && run_alone(c, g->model[i], g->granules, b) > longest_us)
            b--;
        g->cap[i] = b;
    }
}

static double group_work(const struct choice *c, const struct group *g)
{
    double work = 0;

    for (uint32_t i = 0; i < g->n; i++)
        work += c->p->model[g->model[i]].rate_rps * c->cost_us[g->model[i]];
    return work;
}

/* Models in the order of their SLOs, cut at these places, with granules by work. */
static void offer_make(struct choice *c, const uint32_t *cut, uint32_t n, struct offer *o)
{
    uint32_t left = c->t->n_granules, at = 0;
    double rest = 0;

    *o = (struct offer){.n = n};
    for (uint32_t k = 0; k < n; k++) {
        struct group *g = &o->group[k];
        g->order = ORDER_DEADLINE;
        for (; at < cut[k]; at++)
            g->model[g->n++] = c->order[at];
        rest += group_work(c, g);
    }
    for (uint32_t k = 0; k < n; k++) {
        struct group *g = &o->group[k];
        double work = group_work(c, g);
        uint32_t size = (uint32_t)(left * work / rest + 0.5), after = n - k - 1;
        g->granules = after ? MIN(MAX(size, 1u), left - after) : left;
        left -= g->granules;
        rest -= work;
        caps_set(c, g, &limits[0]);
    }
    offer_score(c, o);
}

static void finalist_add(struct offer *final, const struct offer *o)
{
    uint32_t i = FINALISTS;

    for (; i > 0 && o->score > final[i - 1].score; i--)
        if (i < FINALISTS)
            final[i] = final[i - 1];
    if (i < FINALISTS)
        final[i] = *o;
}

static void offers_cut(struct choice *c, struct offer *final)
{
    uint32_t n = c->p->n_models;
    struct offer o;

    for (uint32_t i = 1; i < n && c->t->n_granules >= GROUPS; i++) {
        offer_make(c, (const uint32_t[]){i, n}, 2, &o);
        finalist_add(final, &o);
        for (uint32_t k = i + 1; k < n; k++) {
            offer_make(c, (const uint32_t[]){i, k, n}, 3, &o);
            finalist_add(final, &o);
        }
    }
}

/* ---- making an offer better */

/* The order and the batches that suit each gpu-let best: a quick look at all, a closer one at the
 * best of them. */
static void tune_orders(struct choice *c, struct offer *best)
{
    for (uint32_t k = 0; k < best->n; k++) {
        struct offer top[FINALISTS] = {0}, o = *best;
        c->n_requests = c->effort->sketch;
        for (uint32_t x = 0; x < ARRAY_SIZE(limits); x++)
            for (int order = ORDER_WAITING; order <= ORDER_DEFERRED; order++) {
                o.group[k].order = (enum plan_order)order;
                caps_set(c, &o.group[k], &limits[x]);
                offer_score(c, &o);
                finalist_add(top, &o);
            }
        c->n_requests = c->effort->closer;
        for (uint32_t i = 0; i < FINALISTS; i++)
            if (top[i].n)
                (void)better(c, best, &top[i]);
    }
}

/* So many granules from one group to another, while that is better. */
static void tune_sizes(struct choice *c, struct offer *best)
{
    for (uint32_t n = c->t->n_granules / 8; n > 0 && best->n > 1; n /= 2)
        for (uint32_t from = 0; from < best->n; from++)
            for (uint32_t to = 0; to < best->n; to++)
                while (from != to && best->group[from].granules > n) {
                    struct offer o = *best;
                    o.group[from].granules -= n;
                    o.group[to].granules += n;
                    if (!better(c, best, &o))
                        break;
                }
}

/* Larger and smaller batches of each model. */
static bool tune_caps(struct choice *c, struct offer *best)
{
    double before = best->score;

    for (uint32_t k = 0; k < best->n; k++)
        for (uint32_t i = 0; i < best->group[k].n; i++) {
            const struct plan_model *m = &c->p->model[best->group[k].model[i]];
            uint32_t was = best->group[k].cap[i];
            const uint32_t other[] = {was * 2, was + MAX(was / 3, 1), was - was / 3, was / 2};
            for (uint32_t x = 0; x < ARRAY_SIZE(other); x++) {
                struct offer o = *best;
                o.group[k].cap[i] = MIN(MAX(other[x], 1u), MIN(m->max_batch, BATCH));
                if (o.group[k].cap[i] != was && better(c, best, &o))
                    break;
            }
        }
    return best->score > before;
}

/* Is it the best so far for arrivals that nothing was tuned to? */
static void judge(struct choice *c, struct offer *best, const struct offer *o)
{
    struct offer x = *o;

    c->n_requests = c->effort->last;
    c->seed = SEED + 1;
    (void)better(c, best, &x);
    c->n_requests = c->effort->closer;
    c->seed = SEED;
}

/* What suits these arrivals may suit them only: each step is judged. */
static void offer_improve(struct choice *c, struct offer *o, struct offer *best)
{
    c->n_requests = c->effort->closer;
    offer_score(c, o);
    tune_orders(c, o);
    judge(c, best, o);
    tune_sizes(c, o);
    for (uint32_t i = 0; i < CAP_ROUNDS && tune_caps(c, o); i++)
        judge(c, best, o);
}

/* ---- the choice */
static int plan_from(const struct choice *c, const struct offer *o, struct arena *a,
                     struct plan *plan, struct err *err)
{
    struct sheet *s = ARENA_NEW(a, struct sheet);

    if (!s)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    sheet_fill(c, o, s);
    plan->gpulet = s->let;
    plan->n_gpulets = o->n;
    truth_judge(c->p, plan);
    return 0;
}

static bool all_met(const struct plan *plan)
{
    for (uint32_t m = 0; m < plan->n_models; m++)
        if (plan->verdict[m].limit != LIMIT_NONE)
            return false;
    return true;
}

/* The device that is not cut first: it is often the best, and effort is limited. */
static void best_find(struct choice *c, struct offer *ret)
{
    struct offer final[FINALISTS] = {0}, whole;

    *ret = (struct offer){.score = -1};
    c->seed = SEED;
    c->n_requests = c->effort->sketch;
    offer_make(c, (const uint32_t[]){c->p->n_models}, 1, &whole);
    offer_improve(c, &whole, ret);
    c->n_requests = c->effort->sketch;
    offers_cut(c, final);
    for (uint32_t i = 0; i < FINALISTS; i++)
        if (final[i].n)
            offer_improve(c, &final[i], ret);
}

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    int r = policy_gpuletd.plan_make(p, was, a, ret, err);
    struct offer best;
    struct choice c;

    if (r < 0 || all_met(ret) || !suits(p) || !choice_init(&c, p, &efforts[was != NULL], a))
        return r;
    c.n_requests = c.effort->last;
    c.seed = SEED + 1;
    double own = score(&c, ret);
    best_find(&c, &best);
    if (best.score <= (own > 0 ? GAIN * own : own))
        return 0;
    return plan_from(&c, &best, a, ret, err);
}

const struct policy policy_ours = {
    .name = "gpuletd",
    .plan_make = make,
    .admit = fair_admit,
    .route = greedy_route,
    .batch_next = ordered_batch_next,
};
