/* Plans to be: a device that can be cut freely, its models dealt out among a few gpu-lets.
 *
 * An offer is judged by a rehearsal (rehearse.c).  It is made better one thing after the other:
 * the orders and batches of each gpu-let, sizes, the batches of each model.  What suits the
 * arrivals that it is tuned to may suit them only, so each step is judged by others. */
#include "check_priv.h"
#include "choose.h"

#include <math.h>

#define SURELY 2e-4  /* less is chance */
#define FAIR 0.9     /* of a model's requests in time: below that it counts more */
#define UNFAIR 0.2   /* how much, of all requests */
#define PRIOR 20.0   /* requests in time that a model is taken to have had before: few say little */
#define CAP_ROUNDS 4 /* of looking for better batches */

/* Longest runs: of the model's own SLO, and of the tightest in the gpu-let. */
static const struct limit {
    double own, tightest;
} limits[] = {{0.25, 0.35}, {0.5, 0.5}, {0.5, 1},    {0.15, 1e9},
              {0.2, 1e9},   {0.3, 1e9}, {0.08, 0.25}};

static double run_alone(const struct choice *c, uint32_t model, uint32_t granules, uint32_t rows)
{
    struct load l = {.profile = profile_of(c->p, model, 0),
                     .batch = rows,
                     .units = granules * c->t->granule_units,
                     .duty = 1};
    struct estimate e;

    return predict(&c->t->predict, &l, NULL, 0, &e) ? e.run_us : INFINITY;
}

uint32_t granules_most(const struct plan_type *t)
{
    return t->max_granules ? MIN(t->max_granules, t->n_granules) : t->n_granules;
}

bool choice_init(struct choice *c, const struct problem *p, const struct plan *was,
                 const struct effort *e, struct arena *a)
{
    *c = (struct choice){.p = p, .was = was, .t = type_of(p, 0), .effort = e, .left = e->all};
    c->scratch = arena_alloc(a, REHEARSE_NEED);
    for (uint32_t m = 0; m < p->n_models; m++) {
        uint32_t i = m, rows = MIN(p->model[m].max_batch, 2 * TYPICAL);
        for (; i > 0 && p->model[c->order[i - 1]].slo_us > p->model[m].slo_us; i--)
            c->order[i] = c->order[i - 1];
        c->order[i] = m;
        c->cost_us[m] = run_alone(c, m, granules_most(c->t), rows) / rows;
        if (!(c->cost_us[m] < INFINITY))
            return false;
    }
    return c->scratch != NULL;
}

/* ---- how good is it? */

bool is_over(const struct problem *p)
{
    const struct plan_leisure *l = p->rules.leisure;

    return l && l->is_over(l->of);
}

/* Requests/s in time; a model with less than FAIR of its own makes the plan worse than the others
 * can make up for by starving it. */
double plan_score(struct choice *c, const struct plan *plan)
{
    struct rehearsed x[MODELS];
    struct arena a;
    double good_rps = 0, all_rps = 0, worst = 1;

    arena_init_fixed(&a, c->scratch, REHEARSE_NEED);
    if (c->left < c->n_requests || is_over(c->p))
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

double plan_score_last(struct choice *c, const struct plan *plan)
{
    c->n_requests = c->effort->last;
    c->seed = SEED + 1;
    double got = plan_score(c, plan);
    c->n_requests = c->effort->closer;
    c->seed = SEED;
    return got;
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

void offer_score(struct choice *c, struct offer *o)
{
    struct sheet s = {0};

    sheet_fill(c, o, &s);
    o->score = plan_score(c, &s.plan);
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

/* The largest batch whose runs are that short; one row it may always be. */
static uint32_t cap_within(const struct choice *c, const struct group *g, uint32_t model,
                           double longest_us)
{
    uint32_t b = MIN(c->p->model[model].max_batch, CHOICE_BATCH);

    while (b > 1 && run_alone(c, model, g->granules, b) > longest_us)
        b--;
    return b;
}

static void caps_set(const struct choice *c, struct group *g, const struct limit *l)
{
    double tight_us = INFINITY;

    for (uint32_t i = 0; i < g->n; i++)
        tight_us = fmin(tight_us, (double)c->p->model[g->model[i]].slo_us);
    for (uint32_t i = 0; i < g->n; i++) {
        const struct plan_model *m = &c->p->model[g->model[i]];
        g->cap[i] =
            cap_within(c, g, g->model[i], fmin(l->own * (double)m->slo_us, l->tightest * tight_us));
    }
}

static double group_work(const struct choice *c, const struct group *g)
{
    double work = 0;

    for (uint32_t i = 0; i < g->n; i++)
        work += c->p->model[g->model[i]].rate_rps * c->cost_us[g->model[i]];
    return work;
}

void offer_make(struct choice *c, const uint32_t *cut, uint32_t n, struct offer *o)
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
        g->granules = MIN(after ? MIN(MAX(size, 1u), left - after) : left, granules_most(c->t));
        left -= g->granules;
        rest -= work;
        caps_set(c, g, &limits[0]);
    }
    offer_score(c, o);
}

/* ---- from a plan */
static bool group_from(const struct choice *c, const struct plan_gpulet *from, uint32_t k,
                       struct group *g, uint32_t *of)
{
    *g = (struct group){
        .n = from->n_shares, .granules = from->units / c->t->granule_units, .order = from->order};
    for (uint32_t i = 0; i < from->n_shares; i++) {
        uint32_t m = i < MODELS ? from->share[i].model : PLAN_NONE;
        if (m >= c->p->n_models || of[m] != PLAN_NONE)
            return false;
        of[m] = k;
        g->model[i] = m;
        g->cap[i] = MIN(from->share[i].batch, MIN(c->p->model[m].max_batch, CHOICE_BATCH));
    }
    return g->n > 0 && g->granules > 0;
}

/* The gpu-let of the model that is next by SLO: the tighter one if there is one. */
static uint32_t place_new(const struct choice *c, uint32_t at, const uint32_t *of)
{
    for (uint32_t i = at; i > 0; i--)
        if (of[c->order[i - 1]] != PLAN_NONE)
            return of[c->order[i - 1]];
    for (uint32_t i = at; i < c->p->n_models; i++)
        if (of[c->order[i]] != PLAN_NONE)
            return of[c->order[i]];
    return 0;
}

bool offer_from(const struct choice *c, const struct plan *plan, struct offer *o)
{
    uint32_t of[MODELS], left = c->t->n_granules;

    *o = (struct offer){.n = plan->n_gpulets};
    if (o->n == 0 || o->n > GROUPS)
        return false;
    for (uint32_t m = 0; m < MODELS; m++)
        of[m] = PLAN_NONE;
    for (uint32_t k = 0; k < o->n; k++) {
        struct group *g = &o->group[k];
        if (!group_from(c, &plan->gpulet[k], k, g, of) || g->granules > left)
            return false;
        left -= g->granules;
    }
    struct group *last = &o->group[o->n - 1];
    last->granules = MIN(last->granules + left, granules_most(c->t));
    for (uint32_t i = 0; i < c->p->n_models; i++) {
        uint32_t m = c->order[i];
        if (of[m] != PLAN_NONE)
            continue;
        of[m] = place_new(c, i, of);
        struct group *g = &o->group[of[m]];
        g->model[g->n++] = m;
        g->cap[g->n - 1] = cap_within(c, g, m, limits[0].own * (double)c->p->model[m].slo_us);
    }
    return true;
}

/* ---- making an offer better */

void finalist_add(struct offer *final, const struct offer *o)
{
    uint32_t i = FINALISTS;

    for (; i > 0 && o->score > final[i - 1].score; i--)
        if (i < FINALISTS)
            final[i] = final[i - 1];
    if (i < FINALISTS)
        final[i] = *o;
}

/* One way to run gpu-let k. */
static void way_add(struct choice *c, struct offer *o, uint32_t k, const struct limit *l,
                    enum plan_order order, struct offer *top)
{
    o->group[k].order = order;
    caps_set(c, &o->group[k], l);
    offer_score(c, o);
    finalist_add(top, o);
}

/* In haste, where there are several: the best order first, then the best length of runs.
 *
 * Where runs follow each other it is the first deadline, which may promise something.  What is
 * deferred there starts with no time left for what nobody here knows of: on cores that is all of
 * the requests of a model whose SLO is a few milliseconds. */
static void ways_look(struct choice *c, const struct offer *from, uint32_t k, struct offer *top)
{
    uint32_t n_limits = c->effort->hasty && from->n > 1 ? 1 : ARRAY_SIZE(limits);
    int first = c->t->in_turn ? ORDER_DEADLINE : ORDER_WAITING;
    int last = c->t->in_turn ? ORDER_DEADLINE : ORDER_DEFERRED;
    struct offer o = *from;

    for (uint32_t x = 0; x < n_limits; x++)
        for (int order = first; order <= last; order++)
            way_add(c, &o, k, &limits[x], (enum plan_order)order, top);
    for (uint32_t x = n_limits; x < ARRAY_SIZE(limits); x++)
        way_add(c, &o, k, &limits[x], top[0].group[k].order, top);
}

/* The order and the batches that suit each gpu-let best: a quick look, a closer one at the best. */
static void tune_orders(struct choice *c, struct offer *best)
{
    for (uint32_t k = 0; k < best->n; k++) {
        struct offer top[FINALISTS] = {0};
        c->n_requests = c->effort->sketch;
        ways_look(c, best, k, top);
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
                while (from != to && best->group[from].granules > n &&
                       best->group[to].granules + n <= granules_most(c->t)) {
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
                o.group[k].cap[i] = MIN(MAX(other[x], 1u), MIN(m->max_batch, CHOICE_BATCH));
                if (o.group[k].cap[i] != was && better(c, best, &o))
                    break;
            }
        }
    return best->score > before;
}

/* Beside the running plan, whose memory is there until it has gone. */
static bool has_room(const struct choice *c, const struct offer *o)
{
    struct sheet s = {0};

    sheet_fill(c, o, &s);
    return memory_holds(c->p, c->was, &s.plan, 0);
}

/* Is it the best so far for arrivals that nothing was tuned to? */
void offer_judge(struct choice *c, const struct offer *o, struct offer *best)
{
    struct offer x = *o;

    if (!has_room(c, o))
        return;
    c->n_requests = c->effort->last;
    c->seed = SEED + 1;
    (void)better(c, best, &x);
    c->n_requests = c->effort->closer;
    c->seed = SEED;
}

void offer_orders(struct choice *c, struct offer *o, struct offer *best)
{
    c->n_requests = c->effort->closer;
    offer_score(c, o);
    tune_orders(c, o);
    offer_judge(c, o, best);
}

void offer_details(struct choice *c, struct offer *o, struct offer *best)
{
    tune_sizes(c, o);
    for (uint32_t i = 0; i < CAP_ROUNDS && tune_caps(c, o); i++)
        offer_judge(c, o, best);
}

int offer_plan(const struct choice *c, const struct offer *o, struct arena *a, struct plan *plan,
               struct err *err)
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
