/* policy = gpuletd: our own planner.
 *
 *   make_cells.c  what one gpu-let of each size does for each model
 *   bound.c       what no plan can go below
 *   make_fit.c    whether the shares of a gpu-let hold, beside their neighbours
 *   make_queue.c  the same where requests queue, by a table of loads
 *   make_state.c  gpu-lets on devices, and taking changes back
 *   pack.c        a first plan: saturated pieces, shared residues, best fit decreasing
 *   pack_whole.c  another: whole devices, shared in time
 *   improve.c     pouring rates into what room there is, emptying devices
 *   make_was.c    from a running plan: only what has changed
 *   make_out.c    the plan, its verdicts
 *
 * Several styles of packing are tried and the best result is kept: which residues share, how large
 * the gpu-lets that they share are.  A style that meets the bound ends the search.  Devices that
 * are there to be used (as_few false) are planned for rates that are all larger by one factor, the
 * largest at which everything holds: that is where spare capacity helps most. */
#include "make_priv.h"
#include <math.h>

static const struct style styles[] = {
    {.by_slo = true, .part = 0, .waste = 0.05},
    {.by_slo = true, .part = 1, .waste = 0.02},
    {.by_slo = false, .part = 0, .waste = 0.1},
    {.by_slo = true, .part = 0.5, .waste = 0.05},
    {.by_slo = true, .part = 0, .waste = 10},
    {.by_slo = false, .part = 1, .waste = 0.3},
    {.by_slo = true, .part = 0.25, .waste = 0},
    {.by_slo = false, .part = 0.5, .waste = 0.2},
    {.whole = true},
};
#define STYLE_WHOLE (ARRAY_SIZE(styles) - 1)
#define STYLE_STEPS 4  /* times the usual budget: a style may not take more */
#define QUEUE_MORE 20  /* times that under RULE_QUEUE, where a look at a queue is many steps */
#define SPREAD_STEPS 4 /* halvings of the search for the factor */
#define SPREAD_MOST 64.0
#define ROOM_TRIES 4 /* to make room by planning for less of what is not known */
#define ROOM_SHRINK 0.25

/* RULE_QUEUE: so much less load where a queue did not hold, from try to try; at last no sharing. */
static const double queue_care[] = {0.05, 0.15, 1};

static bool alloc(struct job *j)
{
    const struct problem *p = j->p;
    size_t larger = MAX(p->n_models, p->n_devices) + (size_t)1;

    j->want = ARENA_ARRAY(j->a, struct want, p->n_models);
    j->cell = ARENA_ARRAY(j->a, struct cell *, p->n_models);
    j->no_cell = ARENA_ARRAY(j->a, struct cell, j->cells);
    for (uint32_t i = 0; j->cell && i < p->n_models; i++)
        j->cell[i] = j->no_cell;
    j->dev = ARENA_ARRAY(j->a, struct dev, p->n_devices);
    j->bucket = ARENA_ARRAY(j->a, uint32_t, (size_t)p->n_types * (PLAN_MAX_GRANULES + 1));
    j->key = ARENA_ARRAY(j->a, double, larger);
    j->rest = ARENA_ARRAY(j->a, double, p->n_models);
    j->worth = ARENA_ARRAY(j->a, double, p->n_models);
    j->order = ARENA_ARRAY(j->a, uint32_t, larger);
    j->scratch = ARENA_ARRAY(j->a, uint32_t, larger);
    j->victim = ARENA_ARRAY(j->a, uint32_t, larger);
    j->judged = ARENA_ARRAY(j->a, struct judged, p->n_models);
    j->key_of = ARENA_ARRAY(j->a, uint64_t, p->n_models);
    j->queue_scratch = p->rules.rule == RULE_QUEUE ? arena_alloc(j->a, QUEUE_SCRATCH) : NULL;
    j->load = p->rules.rule == RULE_QUEUE ? ARENA_ARRAY(j->a, struct load_slot, LOAD_SLOTS) : NULL;
    j->line = ARENA_ARRAY(j->a, struct line, j->cells);
    j->row = ARENA_ARRAY(j->a, struct line, LINE_ROWS);
    j->press = ARENA_ARRAY(j->a, double, p->n_types);
    j->solo = ARENA_ARRAY(j->a, struct solo_slot, SOLO_SLOTS);
    return j->solo && j->line && j->row && j->press &&
           ((j->queue_scratch && j->load) || p->rules.rule != RULE_QUEUE) && j->want && j->cell &&
           j->no_cell && j->dev && j->bucket && j->key && j->rest && j->worth && j->order &&
           j->scratch && j->victim && j->judged && j->key_of;
}

static void devices_init(struct job *j)
{
    for (uint32_t i = 0; i < j->p->n_types * (PLAN_MAX_GRANULES + 1); i++)
        j->bucket[i] = PLAN_NONE;
    for (uint32_t d = j->p->n_devices; d-- > 0;) { /* the first device ends up in front */
        const struct kind *k = &j->kind[j->p->device[d].type];
        uint32_t *head =
            &j->bucket[j->p->device[d].type * (PLAN_MAX_GRANULES + 1) + k->t->n_granules];
        j->dev[d] = (struct dev){.type = j->p->device[d].type,
                                 .free = k->t->n_granules,
                                 .first = PLAN_NONE,
                                 .prev = PLAN_NONE,
                                 .next = *head};
        if (*head != PLAN_NONE)
            j->dev[*head].prev = d;
        *head = d;
        j->all_price += k->price * k->t->n_granules;
    }
}

static bool was_index(struct job *j)
{
    if (!j->was)
        return true;
    j->was_first = ARENA_ARRAY(j->a, uint32_t, j->p->n_devices);
    j->was_next = ARENA_ARRAY(j->a, uint32_t, j->was->n_gpulets);
    if (!j->was_first || !j->was_next)
        return false;
    for (uint32_t d = 0; d < j->p->n_devices; d++)
        j->was_first[d] = PLAN_NONE;
    for (uint32_t k = j->was->n_gpulets; k-- > 0;) {
        uint32_t d = j->was->gpulet[k].device;
        if (d >= j->p->n_devices)
            continue;
        j->was_next[k] = j->was_first[d];
        j->was_first[d] = k;
    }
    return true;
}

int job_init(struct job *j, const struct problem *p, const struct plan *was, struct arena *a)
{
    uint32_t n = p->n_models;

    /* No gpu-let or device has been touched: their stamps are 0. */
    *j = (struct job){.p = p, .was = was, .a = a, .free_let = PLAN_NONE, .txn = 1, .scale = 1};
    j->budget = p->rules.steps ? p->rules.steps : 20000 + 60 * (uint64_t)n;
    if (kinds_make(j) < 0 || !alloc(j) || !was_index(j))
        return -ENOMEM;
    devices_init(j);
    return 0;
}

static void wants_make(struct job *j)
{
    uint64_t key = problem_key(j->p);

    fields_make(j);
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        if (!j->want[m].ready)
            want_make(j, m);
        j->key_of[m] = model_key(j->p, m, key);
    }
}

/* ---- which of two plans is better */

/* j->scratch[m]: whether model m has a place. */
static void who_has_a_place(struct job *j)
{
    memset(j->scratch, 0, j->p->n_models * sizeof(*j->scratch));
    for (uint32_t k = 0; k < j->n_lets; k++)
        for (uint32_t i = 0; j->let[k].device < FLOATING && i < j->let[k].n_shares; i++)
            j->scratch[j->let[k].share[i].model] = 1;
}

struct score score_of(struct job *j)
{
    struct score s = {0};

    who_has_a_place(j);
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        j->rest[m] = j->want[m].hopeless ? 0 : j->want[m].rate_rps;
        s.homeless += j->want[m].type != PLAN_NONE && !j->scratch[m];
    }
    for (uint32_t k = 0; k < j->n_lets; k++) {
        const struct let *l = &j->let[k];
        if (l->device >= FLOATING)
            continue;
        s.granules += j->kind[l->type].price * let_granules(j, l);
        for (uint32_t i = 0; i < l->n_shares; i++)
            j->rest[l->share[i].model] -= l->share[i].rate_rps;
    }
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        int32_t level = j->p->model[m].priority;
        double weight = pow(1e-3, level > 0 ? fmin(level - 1, 4) : 4);
        if (j->rest[m] > 1e-6 * j->want[m].rate_rps)
            s.unserved += j->rest[m] * weight;
    }
    for (uint32_t d = 0; d < j->p->n_devices; d++)
        if (j->dev[d].n_lets)
            s.price += j->kind[j->dev[d].type].price * j->kind[j->dev[d].type].t->n_granules;
    return s;
}

static bool better(const struct score *a, const struct score *b)
{
    if (fabs(a->unserved - b->unserved) > 1e-9 * (a->unserved + b->unserved))
        return a->unserved < b->unserved;
    if (a->homeless != b->homeless)
        return a->homeless < b->homeless;
    return a->price != b->price ? a->price < b->price : a->granules < b->granules - 1e-12;
}

/* ---- styles */

/* Models whose SLO cannot be held, or that have no rate and found no place, come last. */
static void leftovers(struct job *j)
{
    who_has_a_place(j);
    for (uint32_t m = 0; m < j->p->n_models; m++)
        j->rest[m] = j->scratch[m];
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct want *w = &j->want[m];
        if (j->rest[m] > 0 || w->type == PLAN_NONE)
            continue;
        if (w->rate_rps > 0 && pour(j, m, w->rate_rps, false, PLAN_NONE) < w->rate_rps)
            ;
        else
            (void)pour_place(j, m, false, PLAN_NONE);
        save_commit(j);
    }
}

static uint32_t enough(struct job *j)
{
    double bound = 0;

    for (uint32_t m = 0; m < j->p->n_models; m++)
        if (j->want[m].rate_rps > 0 && j->want[m].least < INFINITY)
            bound += j->want[m].least * j->want[m].rate_rps;
    return (uint32_t)fmin(ceil(bound * j->p->n_devices / j->all_price - 1e-9), j->p->n_devices);
}

/* Style x; beyond the styles: in turn. */
static bool try_style(struct job *j, uint32_t x)
{
    bool ok;

    state_clear(j);
    j->whole = x == STYLE_WHOLE;
    uint64_t most = STYLE_STEPS * MAX(j->budget, 2000 + 20 * (uint64_t)j->p->n_models);
    j->limit = j->steps + most * (j->p->rules.rule == RULE_QUEUE ? QUEUE_MORE : 1);
    ok = x < ARRAY_SIZE(styles) ? pack(j, &styles[x]) : pack_in_turn(j);
    if (ok)
        leftovers(j);
    if (ok && j->p->rules.as_few)
        improve(j, enough(j));
    return ok && !j->full;
}

static int keep(struct job *j, const struct score *s, struct score *best, struct plan *ret)
{
    struct plan p;

    if (ret->gpulet && !better(s, best))
        return 0;
    int r = job_emit(j, &p);
    if (r < 0)
        return r;
    *best = *s;
    *ret = p;
    return 1;
}

/* As good as the bound allows? */
static bool done(struct job *j, const struct score *s, uint32_t least)
{
    return s->unserved == 0 && s->homeless == 0 &&
           (!j->p->rules.as_few || s->price * j->p->n_devices <= (least + 1e-9) * j->all_price);
}

static int best_style(struct job *j, struct plan *ret, uint32_t *ret_style, struct score *best)
{
    bool large = MAX(j->p->n_models, j->p->n_devices) > LARGE, whole = whole_pays(j);
    uint32_t n = large ? 1 : STYLE_WHOLE + whole, least = enough(j);
    int r = 0;

    *best = (struct score){.unserved = INFINITY};
    for (uint32_t i = 0; i <= n && r >= 0; i++) {
        if (i == n && best->unserved == 0)
            break; /* in turn is for devices that are too few */
        uint32_t x = i == n ? ARRAY_SIZE(styles) : !whole ? i : i == 0 ? STYLE_WHOLE : i - 1;
        bool ok = try_style(j, x);
        if (!ok && j->full)
            return -ENOMEM;
        struct score s = score_of(j);
        r = keep(j, &s, best, ret);
        if (r > 0)
            *ret_style = x;
        if (done(j, best, least) || (j->steps > 4 * j->budget && best->unserved == 0))
            return MIN(r, 0);
    }
    if (r < 0 || large || (!j->p->rules.as_few && best->unserved == 0))
        return MIN(r, 0);
    (void)try_style(j, *ret_style);
    ruin_and_recreate(j, least, j->steps + 2 * j->budget);
    struct score s = score_of(j);
    r = j->full ? -ENOMEM : keep(j, &s, best, ret);
    return MIN(r, 0);
}

/* ---- spare capacity */

/* `homeless`: of the plan without spare capacity; nobody loses its place for it. */
static bool spread_try(struct job *j, uint32_t style, double scale, uint32_t homeless)
{
    for (uint32_t m = 0; m < j->p->n_models; m++)
        j->want[m].rate_rps *= scale / j->scale;
    j->scale = scale;
    if (!try_style(j, style))
        return false;
    struct score s = score_of(j);
    return s.unserved == 0 && s.homeless <= homeless;
}

static int spread(struct job *j, uint32_t style, uint32_t homeless, struct plan *ret)
{
    double lo = 1, hi = SPREAD_MOST, bound = 0;

    for (uint32_t m = 0; m < j->p->n_models; m++)
        if (j->want[m].fluid < INFINITY)
            bound += j->want[m].fluid * j->want[m].rate_rps;
    if (!(bound > 0))
        return 0;
    hi = fmin(hi, j->all_price / bound);
    for (int step = 0; step < SPREAD_STEPS && hi > lo * 1.01; step++) {
        double mid = step == 0 ? hi * 0.9 : sqrt(lo * hi);
        mid = fmax(mid, lo * 1.001);
        if (j->steps > 8 * j->budget)
            break;
        if (spread_try(j, style, mid, homeless)) {
            int r = job_emit(j, ret);
            if (r < 0)
                return r;
            lo = mid;
        } else if (j->full) {
            return -ENOMEM;
        } else {
            hi = mid;
        }
    }
    for (uint32_t m = 0; m < j->p->n_models; m++)
        j->want[m].rate_rps /= j->scale;
    j->scale = 1;
    return 0;
}

/* ---- */

static bool no_rates(const struct problem *p)
{
    for (uint32_t m = 0; m < p->n_models; m++)
        if (p->model[m].rate_rps > 0)
            return false;
    for (uint32_t t = 0; t < p->n_types; t++)
        if (p->type[t].n_places || p->type[t].n_sizes || p->type[t].predict.interference.kind)
            return false;
    return p->rules.rule == RULE_CYCLE && !p->rules.as_few && !p->rules.max_shares &&
           (!p->rules.max_lets || p->rules.max_lets >= p->n_models);
}

static bool all_rates(const struct problem *p)
{
    for (uint32_t m = 0; m < p->n_models; m++)
        if (!(p->model[m].rate_rps > 0))
            return false;
    return true;
}

/* Stand-ins for rates that are not known must not take a place from anybody: they become smaller
 * until all that can be placed are. */
static int make_room(struct job *j, uint32_t *style, struct score *score, struct plan *ret)
{
    bool guessed = false;
    int r = 0;

    for (uint32_t m = 0; m < j->p->n_models; m++)
        guessed |= j->want[m].guessed;
    for (int i = 0; guessed && r == 0 && score->homeless && i < ROOM_TRIES; i++) {
        struct plan p = {0};
        struct score s;
        uint32_t x = 0;
        for (uint32_t m = 0; m < j->p->n_models; m++)
            if (j->want[m].guessed)
                j->want[m].rate_rps *= ROOM_SHRINK;
        r = best_style(j, &p, &x, &s);
        if (r == 0 && s.homeless < score->homeless) {
            *ret = p;
            *score = s;
            *style = x;
        }
    }
    return r;
}

static int make_new(struct job *j, struct plan *ret)
{
    uint32_t style = 0;
    struct score score;

    wants_make(j);
    int r = best_style(j, ret, &style, &score);
    if (r == 0)
        r = make_room(j, &style, &score, ret);
    if (r == 0 && !j->p->rules.as_few && score.unserved == 0)
        r = spread(j, style, score.homeless, ret);
    return r;
}

static uint32_t unmet(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < plan->n_models; m++)
        n += plan->verdict[m].limit != LIMIT_NONE;
    return n;
}

/* RULE_QUEUE: again and again with more care where a queue was too full after all; the plan that
 * meets most models is kept. */
static int make_careful(struct job *j, struct plan *ret)
{
    struct plan_verdict *kept = arena_memdup(j->a, ret->verdict, j->p->n_models * sizeof(*kept));
    struct plan plan = *ret;
    int r = kept ? 0 : -ENOMEM;

    ret->verdict = kept;
    for (uint32_t i = 0; r == 0 && i < ARRAY_SIZE(queue_care); i++) {
        struct plan_verdict *verdict = plan.verdict;
        if (!job_missed(j, queue_care[i]))
            return 0;
        for (uint32_t m = 0; m < j->p->n_models; m++)
            j->want[m].ready = false;
        plan = (struct plan){0};
        r = make_new(j, &plan);
        plan.verdict = verdict;
        r = r < 0 ? r : job_judge(j, &plan);
        if (r == 0 && unmet(&plan) < unmet(ret)) {
            memcpy(kept, verdict, plan.n_models * sizeof(*kept));
            *ret = plan;
            ret->verdict = kept;
        }
    }
    return r;
}

static int make_any(const struct problem *p, const struct plan *was, struct arena *a,
                    struct plan *ret)
{
    struct plan plan = {.verdict = ARENA_ARRAY(a, struct plan_verdict, p->n_models)};
    struct plan_verdict *verdict = plan.verdict;
    struct job j;
    uint64_t steps = 0;
    int r = 0;

    if (!verdict || job_init(&j, p, was, a) < 0)
        return -ENOMEM;
    if (was && (p->rules.rule != RULE_CYCLE || all_rates(p))) {
        r = make_from(&j, &plan);
        steps = j.steps;
        if (r == 0 && job_init(&j, p, was, a) < 0)
            return -ENOMEM;
    }
    if (r == 0) {
        plan = (struct plan){0};
        r = make_new(&j, &plan);
        plan.verdict = verdict;
        r = r < 0 ? r : job_judge(&j, &plan);
        if (r == 0 && p->rules.rule == RULE_QUEUE && p->n_models)
            r = make_careful(&j, &plan);
    }
    plan.steps = j.steps + (r == 0 ? steps : 0);
    if (r >= 0)
        *ret = plan;
    return MIN(r, 0);
}

static int plan_make_gpuletd(const struct problem *p, const struct plan *was, struct arena *a,
                             struct plan *ret, struct err *err)
{
    int r = problem_check(p, err);

    if (r < 0)
        return r;
    /* Nothing to weigh one model against another: equal parts, if they are right here. */
    struct plan equal = {0};
    if (no_rates(p) && policy_equal.plan_make(p, was, a, &equal, NULL) == 0 &&
        plan_check(p, was, &equal, NULL) == 0) {
        *ret = equal;
        return 0;
    }
    r = make_any(p, was, a, ret);
    return r < 0 ? err_set(err, r, "plan: the arena is too small") : 0;
}

const struct policy policy_gpuletd = {
    .name = "gpuletd",
    .plan_make = plan_make_gpuletd,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};
