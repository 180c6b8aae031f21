/* policy = gpuletd: the planner (make.c), and what to do with more load than it can promise to
 * serve.
 *
 * While the planner meets every model its plan is taken: each promise is proven by the rule. Beyond
 * that somebody will be late whatever is done, no rule says how many, and what counts is how much
 * is served in time.  Then plans are rehearsed (rehearse.c): the planner's own, and on a device
 * that can be cut freely every way to deal its models out among up to three gpu-lets, neighbours by
 * SLO together, as a long run of one model is what makes a tight SLO late.  For the best few the
 * sizes, the order and the batches of each gpu-let are tried.  The one with the most requests in
 * time is kept; its verdicts are the rule's. */
#include "whole.h"

#include <math.h>

#define MODELS 8 /* more are left to the planner */
#define GROUPS 3
#define BATCH 64
#define DUTY 0.85   /* of neighbours in a plan that is full */
#define TYPICAL 4   /* rows of their runs */
#define GAIN 1.01   /* over the planner's plan */
#define SKETCH 600  /* requests of a rehearsal, first look */
#define CLOSER 1500 /* of those that are looked at again */
#define FINALISTS 3
#define SEED 1

/* Longest runs: of the model's own SLO, and of the tightest in the gpu-let. */
static const struct limit {
    double own, tightest;
} limits[] = {{0.25, 0.35}, {0.5, 0.5}, {0.5, 1}, {0.15, 1e9}, {0.3, 1e9}, {0.08, 0.25}};

struct group { /* a gpu-let to be */
    uint32_t n, model[MODELS], cap[MODELS], granules;
    double rate_rps[MODELS];
    enum plan_order order;
    const struct limit *limit; /* NULL: the caps are given */
    double good_rps;           /* in time, rehearsed */
};
struct offer { /* a plan to be */
    uint32_t n;
    struct group group[MODELS];
    double good_rps;
};

struct choice {
    const struct problem *p;
    const struct plan_type *t;
    struct arena *a;
    void *scratch;
    uint32_t order[MODELS]; /* models by SLO, the tightest first */
    double cost_us[MODELS]; /* of a request on the whole device, in a usual run */
    usec_t *run_us[MODELS]; /* scratch: [BATCH + 1] each */
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

static bool solo_at(const struct choice *c, uint32_t model, uint32_t granules, uint32_t rows,
                    struct solo *ret)
{
    struct load l = {.profile = profile_of(c->p, model, 0),
                     .batch = rows,
                     .units = granules * c->t->granule_units,
                     .duty = 1};

    return load_solo(&c->t->predict, &l, ret);
}

static double run_beside(const struct choice *c, uint32_t model, uint32_t granules, uint32_t rows,
                         const struct pressure *pr)
{
    struct estimate e = {.run_us = INFINITY};
    struct solo s;

    if (solo_at(c, model, granules, rows, &s))
        pressure_of(&c->t->predict, &s, pr, &e);
    return e.run_us;
}

static bool choice_init(struct choice *c, const struct problem *p, struct arena *a)
{
    static const struct pressure nobody;

    *c = (struct choice){.p = p, .t = type_of(p, 0), .a = a};
    c->scratch = arena_alloc(a, REHEARSE_NEED(MODELS));
    for (uint32_t m = 0; m < p->n_models; m++) {
        uint32_t i = m, rows = MIN(p->model[m].max_batch, 2 * TYPICAL);
        for (; i > 0 && p->model[c->order[i - 1]].slo_us > p->model[m].slo_us; i--)
            c->order[i] = c->order[i - 1];
        c->order[i] = m;
        c->cost_us[m] = run_beside(c, m, c->t->n_granules, rows, &nobody) / rows;
        c->run_us[m] = ARENA_ARRAY(a, usec_t, BATCH + 1);
        if (!c->run_us[m] || !(c->cost_us[m] < INFINITY))
            return false;
    }
    return c->scratch != NULL;
}

static double group_work(const struct choice *c, const struct group *g)
{
    double work = 0;

    for (uint32_t i = 0; i < g->n; i++)
        work += g->rate_rps[i] * c->cost_us[g->model[i]];
    return work;
}

/* What the other groups push on average. */
static void others_press(const struct choice *c, const struct offer *o, const struct group *me,
                         struct pressure *ret)
{
    *ret = (struct pressure){0};
    for (uint32_t k = 0; k < o->n; k++) {
        const struct group *g = &o->group[k];
        double work = group_work(c, g);
        for (uint32_t i = 0; g != me && work > 0 && i < g->n; i++) {
            uint32_t rows = g->cap[i] ? MIN(g->cap[i], TYPICAL) : TYPICAL;
            double part = g->rate_rps[i] * c->cost_us[g->model[i]] / work;
            struct solo s;
            if (solo_at(c, g->model[i], g->granules, rows, &s))
                pressure_add(&c->t->predict, ret, &s, DUTY * part);
        }
    }
}

static double tightest_us(const struct choice *c, const struct group *g)
{
    double us = INFINITY;

    for (uint32_t i = 0; i < g->n; i++)
        us = fmin(us, (double)c->p->model[g->model[i]].slo_us);
    return us;
}

/* Run times of a member up to the longest run that it may have (one row it may always); its cap. */
static uint32_t runs_make(const struct choice *c, const struct group *g, uint32_t i,
                          const struct pressure *pr, double longest_us, uint32_t most)
{
    usec_t *run_us = c->run_us[g->model[i]];
    uint32_t b = 1;

    for (; b <= MIN(most, BATCH); b++) {
        double us = run_beside(c, g->model[i], g->granules, b, pr);
        if (us == INFINITY || (b > 1 && us > longest_us))
            break;
        run_us[b] = (usec_t)fmax(1, us + 0.5);
    }
    return b - 1;
}

/* Requests/s in time of a group as it is. */
static double group_try(const struct choice *c, const struct offer *o, struct group *g,
                        uint32_t n_requests)
{
    const struct limit *l = g->limit;
    double tight_us = tightest_us(c, g);
    struct cast cast[MODELS];
    struct pressure pr;
    struct arena scratch;

    g->good_rps = 0;
    others_press(c, o, g, &pr);
    for (uint32_t i = 0; i < g->n; i++) {
        const struct plan_model *m = &c->p->model[g->model[i]];
        double longest_us = l ? fmin(l->own * (double)m->slo_us, l->tightest * tight_us) : INFINITY;
        g->cap[i] = runs_make(c, g, i, &pr, longest_us, l ? m->max_batch : g->cap[i]);
        if (g->cap[i] == 0)
            return 0;
        cast[i] = (struct cast){.rate_rps = g->rate_rps[i],
                                .arrivals = m->arrivals,
                                .cv = m->cv,
                                .slo_us = m->slo_us,
                                .cap = g->cap[i],
                                .run_us = c->run_us[g->model[i]]};
    }
    arena_init_fixed(&scratch, c->scratch, REHEARSE_NEED(MODELS));
    if (rehearse(cast, g->n, g->order, n_requests, SEED, &scratch) < 0)
        return 0;
    for (uint32_t i = 0; i < g->n; i++)
        g->good_rps += cast[i].offered ? cast[i].rate_rps * cast[i].in_time / cast[i].offered
                                       : cast[i].rate_rps;
    return g->good_rps;
}

/* The order and the batches that suit a group best. */
static void group_tune(const struct choice *c, const struct offer *o, struct group *g)
{
    struct group best = {0};

    for (uint32_t x = 0; x < ARRAY_SIZE(limits); x++)
        for (int order = ORDER_WAITING; order <= ORDER_DEFERRED; order++) {
            g->order = (enum plan_order)order;
            g->limit = &limits[x];
            if (group_try(c, o, g, CLOSER) > best.good_rps)
                best = *g;
        }
    if (best.n)
        *g = best;
}

static void offer_sum(struct offer *o)
{
    o->good_rps = 0;
    for (uint32_t k = 0; k < o->n; k++)
        o->good_rps += o->group[k].good_rps;
}

/* Models in the order of their SLOs, cut at these places, with granules by work. */
static void offer_make(const struct choice *c, const uint32_t *cut, uint32_t n, struct offer *o)
{
    uint32_t left = c->t->n_granules, at = 0;
    double rest = 0;

    *o = (struct offer){.n = n};
    for (uint32_t k = 0; k < n; k++) {
        struct group *g = &o->group[k];
        g->order = ORDER_DEADLINE;
        g->limit = &limits[0];
        for (; at < cut[k]; at++) {
            g->rate_rps[g->n] = c->p->model[c->order[at]].rate_rps;
            g->model[g->n++] = c->order[at];
        }
        rest += group_work(c, g);
    }
    for (uint32_t k = 0; k < n; k++) {
        double work = group_work(c, &o->group[k]);
        uint32_t size = (uint32_t)(left * work / rest + 0.5), after = n - k - 1;
        o->group[k].granules = after ? MIN(MAX(size, 1u), left - after) : left;
        left -= o->group[k].granules;
        rest -= work;
    }
    for (uint32_t k = 0; k < n; k++)
        (void)group_try(c, o, &o->group[k], SKETCH);
    offer_sum(o);
}

static void finalist_add(struct offer *final, const struct offer *o)
{
    uint32_t i = FINALISTS;

    for (; i > 0 && o->good_rps > final[i - 1].good_rps; i--)
        if (i < FINALISTS)
            final[i] = final[i - 1];
    if (i < FINALISTS)
        final[i] = *o;
}

static void offers_all(const struct choice *c, struct offer *final)
{
    uint32_t n = c->p->n_models;
    struct offer o;

    offer_make(c, (const uint32_t[]){n}, 1, &o);
    finalist_add(final, &o);
    for (uint32_t i = 1; i < n && c->t->n_granules >= GROUPS; i++) {
        offer_make(c, (const uint32_t[]){i, n}, 2, &o);
        finalist_add(final, &o);
        for (uint32_t k = i + 1; k < n; k++) {
            offer_make(c, (const uint32_t[]){i, k, n}, 3, &o);
            finalist_add(final, &o);
        }
    }
}

/* So many granules from one group to another, if that is better. */
static bool move(const struct choice *c, struct offer *o, uint32_t from, uint32_t to, uint32_t n)
{
    struct offer was = *o;

    if (o->group[from].granules <= n)
        return false;
    o->group[from].granules -= n;
    o->group[to].granules += n;
    (void)group_try(c, o, &o->group[from], CLOSER);
    (void)group_try(c, o, &o->group[to], CLOSER);
    offer_sum(o);
    if (o->good_rps > was.good_rps)
        return true;
    *o = was;
    return false;
}

static void offer_tune(const struct choice *c, struct offer *o)
{
    for (uint32_t k = 0; k < o->n; k++)
        group_tune(c, o, &o->group[k]);
    offer_sum(o);
}

static void offer_improve(const struct choice *c, struct offer *o)
{
    offer_tune(c, o);
    for (uint32_t n = c->t->n_granules / 8; n > 0 && o->n > 1; n /= 2)
        for (uint32_t from = 0; from < o->n; from++)
            for (uint32_t to = 0; to < o->n; to++)
                while (from != to && move(c, o, from, to, n))
                    ;
    if (o->n > 1)
        offer_tune(c, o);
}

/* The planner's plan in the same eyes; a model's requests come as its shares are planned. */
static double plan_rehearse(const struct choice *c, const struct plan *plan)
{
    double planned[MODELS] = {0}, shares[MODELS] = {0};
    struct offer o = {.n = plan->n_gpulets};

    if (plan->n_gpulets > MODELS)
        return 0;
    for (uint32_t k = 0; k < o.n; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        for (uint32_t i = 0; i < g->n_shares; i++) {
            planned[g->share[i].model] += g->share[i].rate_rps;
            shares[g->share[i].model]++;
        }
    }
    for (uint32_t k = 0; k < o.n; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        o.group[k].granules = g->units / c->t->granule_units;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            uint32_t m = g->share[i].model, n = o.group[k].n++;
            double part = planned[m] > 0 ? g->share[i].rate_rps / planned[m] : 1 / shares[m];
            o.group[k].model[n] = m;
            o.group[k].cap[n] = g->share[i].batch;
            o.group[k].rate_rps[n] = part * c->p->model[m].rate_rps;
        }
    }
    for (uint32_t k = 0; k < o.n; k++)
        (void)group_try(c, &o, &o.group[k], CLOSER);
    offer_sum(&o);
    return o.good_rps;
}

static int plan_from(const struct choice *c, const struct offer *o, struct plan *plan,
                     struct err *err)
{
    static const struct pressure nobody;
    struct plan_gpulet *let = ARENA_ARRAY(c->a, struct plan_gpulet, o->n);
    uint32_t at = 0;

    for (uint32_t k = 0; let && k < o->n; k++) {
        const struct group *g = &o->group[k];
        struct plan_share *share = ARENA_ARRAY(c->a, struct plan_share, g->n);
        if (!share)
            return err_set(err, -ENOMEM, "plan: the arena is too small");
        let[k] = (struct plan_gpulet){.units = g->granules * c->t->granule_units,
                                      .order = g->order,
                                      .n_shares = g->n,
                                      .share = share};
        for (uint32_t i = 0; i < g->granules; i++)
            set_add(&let[k].set, at++);
        for (uint32_t i = 0; i < g->n; i++) {
            double us = run_beside(c, g->model[i], g->granules, g->cap[i], &nobody);
            share[i] = (struct plan_share){.model = g->model[i],
                                           .batch = g->cap[i],
                                           .rate_rps = g->rate_rps[i],
                                           .run_us = (usec_t)fmax(1, us)};
        }
    }
    if (!let)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    plan->gpulet = let;
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

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    int r = policy_gpuletd.plan_make(p, was, a, ret, err);
    struct offer final[FINALISTS] = {0}, *best = &final[0];
    struct choice c;

    if (r < 0 || all_met(ret) || !suits(p) || !choice_init(&c, p, a))
        return r;
    offers_all(&c, final);
    for (uint32_t i = 0; i < FINALISTS; i++) {
        if (final[i].n)
            offer_improve(&c, &final[i]);
        best = final[i].good_rps > best->good_rps ? &final[i] : best;
    }
    if (best->good_rps < GAIN * plan_rehearse(&c, ret))
        return 0;
    return plan_from(&c, best, ret, err);
}

const struct policy policy_ours = {
    .name = "gpuletd",
    .plan_make = make,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = ordered_batch_next,
};
