/* What a device's gpu-lets would do together: requests in virtual time through the functions that
 * decide at run time, for plans that no formula judges.  A run takes what it takes beside the runs
 * that are in flight when it starts; what the policy believes that it takes is beside its
 * neighbours as they run at the planned rates.  Where all come at the planned rates nobody is
 * held to an allowance.  test_rehearse holds it against the replay (lib/replay), which knows more
 * and is slower. */
#include "plan_priv.h"
#include "random.h"

#include <gpulet/demand.h>
#include <math.h>

#define NOISE 0.05  /* of run times */
#define WARM_UP 0.1 /* of the requests: not counted, as all began with nobody waiting */
#define NEVER_US 1e18
#define BENCHES 4096 /* requests that wait behind those in the policies' views; more are lost */
#define NOBODY UINT32_MAX

struct actor { /* one model's requests */
    struct random random;
    double next_us, gap_us, shape;
    struct allowance sure;
    int64_t used_ns; /* of it, */
    usec_t loud_us;  /* and the last request beyond it; 0: as all are when it begins */
    uint32_t n_seats, seat[REHEARSE_LETS], routed[REHEARSE_LETS];
};
struct bench { /* one that waits where no view reaches */
    usec_t deadline_us;
    uint32_t next;
};
struct chair { /* one model in one gpu-let */
    uint32_t let, model;
    uint32_t first, last; /* benches; first NOBODY: none */
    double part;
    struct solo *solo; /* [1..cap] */
    usec_t *run_us;    /* [1..cap], believed */
    usec_t work_us;
};
struct room {          /* a gpu-let */
    uint32_t first, n; /* chairs */
    enum plan_order order;
    const struct solo *runs; /* NULL: idle */
    double busy_us;          /* until when */
    double believed_us;
    double until_us;   /* look again */
    usec_t waiting_us; /* work */
    bool meek;         /* policy.h */
    usec_t slack_us;
};
struct visit {               /* who comes */
    double load;             /* of the planned rates */
    const double *asked_rps; /* by model; NULL: those */
    bool fair;               /* allowances count */
    uint32_t n_requests;
    uint64_t seed;
};

struct stage {
    const struct problem *p;
    const struct plan *plan;
    const struct predict_device *d;
    struct arena *a;
    struct random noise;
    struct actor *actor;
    struct chair *chair;
    struct queue_view *queue; /* by chair */
    struct bench *bench;
    uint32_t free; /* bench; NOBODY: all are taken */
    const struct visit *visit;
    struct room room[REHEARSE_LETS];
    uint32_t n_rooms, n_chairs, offered, n_warm;
    double now_us;
    usec_t warm_us;        /* what has come since then counts */
    struct rehearsed *ret; /* by model */
};

/* ---- what runs take */
static bool chair_fill(struct stage *s, struct chair *c, const struct plan_share *from,
                       uint32_t units)
{
    const struct plan_model *m = &s->p->model[from->model];

    if (from->batch == 0)
        return false; /* not even a row of it is run there */
    c->model = from->model;
    c->first = NOBODY;
    c->part = m->rate_rps > 0 ? from->rate_rps / m->rate_rps : 0;
    c->solo = ARENA_ARRAY(s->a, struct solo, from->batch + 1);
    c->run_us = ARENA_ARRAY(s->a, usec_t, from->batch + 1);
    for (uint32_t b = 1; c->solo && c->run_us && b <= from->batch; b++) {
        struct load l = {
            .profile = profile_of(s->p, from->model, 0), .batch = b, .units = units, .duty = 1};
        if (!load_solo(s->d, &l, &c->solo[b]))
            return false;
    }
    return c->solo && c->run_us;
}

/* What the gpu-lets beside room k press on at the planned rates. */
static void beside(const struct stage *s, uint32_t k, struct pressure *ret)
{
    static const struct pressure nobody;

    *ret = nobody;
    for (uint32_t i = 0; i < s->n_chairs; i++) {
        const struct chair *c = &s->chair[i];
        const struct plan_share *from = &s->plan->gpulet[c->let].share[i - s->room[c->let].first];
        uint32_t rows = share_usual(from);
        struct estimate e;
        if (c->let == k)
            continue;
        pressure_of(s->d, &c->solo[rows], &nobody, &e);
        pressure_add(s->d, ret, &c->solo[rows], from->rate_rps * e.hold_us / (1e6 * rows));
    }
}

static void beliefs_fill(struct stage *s)
{
    for (uint32_t k = 0; k < s->n_rooms; k++) {
        struct pressure p;
        beside(s, k, &p);
        for (uint32_t i = 0; i < s->room[k].n; i++) {
            struct chair *c = &s->chair[s->room[k].first + i];
            uint32_t cap = s->plan->gpulet[k].share[i].batch;
            for (uint32_t b = 1; b <= cap; b++) {
                struct estimate e;
                pressure_of(s->d, &c->solo[b], &p, &e);
                c->run_us[b] = MAX((usec_t)(e.run_us + 0.5), 1);
            }
            c->work_us = MIN(c->run_us[cap] / cap, c->run_us[1]);
        }
    }
}

/* ---- setup */
static bool chairs_setup(struct stage *s)
{
    uint32_t at = 0;

    for (uint32_t k = 0; k < s->n_rooms; k++) {
        const struct plan_gpulet *g = &s->plan->gpulet[k];
        s->room[k] = (struct room){.first = at,
                                   .n = g->n_shares,
                                   .order = g->order,
                                   .until_us = NEVER_US,
                                   .meek = true, /* a plan must hold without what others leave */
                                   .slack_us = USEC_NEVER};
        for (uint32_t i = 0; i < g->n_shares; i++, at++) {
            struct actor *x = &s->actor[g->share[i].model];
            s->chair[at].let = k;
            x->seat[x->n_seats++] = at;
            if (!chair_fill(s, &s->chair[at], &g->share[i], g->units))
                return false;
        }
    }
    beliefs_fill(s);
    return true;
}

static void queues_setup(struct stage *s)
{
    for (uint32_t i = 0; i < s->n_chairs; i++) {
        const struct chair *c = &s->chair[i];
        struct estimate e;
        static const struct pressure nobody;
        pressure_of(s->d, &c->solo[1], &nobody, &e);
        s->queue[i] = (struct queue_view){
            .max_batch = s->plan->gpulet[c->let].share[i - s->room[c->let].first].batch,
            .run_us = c->run_us,
            .least_us = MIN((usec_t)e.run_us, c->run_us[1]),
            .priority = s->p->model[c->model].priority,
            .ready = true};
        for (uint32_t k = 0; k < BATCH_VIEW_MAX; k++)
            s->queue[i].rows[k] = 1;
    }
}

static double gap(struct actor *x, enum arrivals arrivals)
{
    if (arrivals == ARRIVALS_PACED)
        return x->gap_us;
    if (x->shape > 0)
        return x->gap_us * random_gamma(&x->random, x->shape);
    return x->gap_us * random_exp(&x->random);
}

static double asked_rps(const struct stage *s, uint32_t m)
{
    const struct visit *v = s->visit;

    return v->asked_rps ? v->asked_rps[m] : v->load * s->p->model[m].rate_rps;
}

static void actors_setup(struct stage *s)
{
    for (uint32_t m = 0; m < s->p->n_models; m++) {
        const struct plan_model *from = &s->p->model[m];
        struct actor *x = &s->actor[m];
        bool bursts = from->arrivals == ARRIVALS_CV || from->arrivals == ARRIVALS_TRACE;
        random_seed(&x->random, s->visit->seed, m);
        x->gap_us = from->rate_rps > 0 ? 1e6 / asked_rps(s, m) : NEVER_US;
        x->shape = bursts && from->cv > 0 ? 1 / (from->cv * from->cv) : 0;
        x->next_us = from->rate_rps > 0 ? gap(x, from->arrivals) : NEVER_US;
        s->ret[m] = (struct rehearsed){0};
    }
}

/* All are used up, as they are soon. */
static bool allowances_setup(struct stage *s)
{
    struct demand_band *band = ARENA_ARRAY(s->a, struct demand_band, s->p->n_models);
    double *declared = ARENA_ARRAY(s->a, double, s->p->n_models);

    if (!band || !declared)
        return false;
    demand_bands(s->p, s->plan, declared, band);
    for (uint32_t m = 0; m < s->p->n_models; m++) {
        s->actor[m].sure = band[m].sure;
        s->actor[m].used_ns = 1;
    }
    return true;
}

/* Where everybody asks for more than its allowance there is no neighbour to be kept from them. */
static void rooms_judge(struct stage *s)
{
    for (uint32_t k = 0; k < s->n_rooms; k++) {
        struct room *g = &s->room[k];
        g->meek = false;
        for (uint32_t i = g->first; i < g->first + g->n; i++) {
            const struct chair *c = &s->chair[i];
            usec_t slo_us = s->p->model[c->model].slo_us;
            g->meek |= asked_rps(s, c->model) <= s->actor[c->model].sure.rate_rps;
            g->slack_us = MIN(g->slack_us, slack_of(slo_us, c->run_us[1]));
        }
    }
}

static bool stage_init(struct stage *s)
{
    for (uint32_t k = 0; k < s->n_rooms; k++)
        s->n_chairs += s->plan->gpulet[k].n_shares;
    s->actor = ARENA_ARRAY(s->a, struct actor, s->p->n_models);
    s->chair = ARENA_ARRAY(s->a, struct chair, s->n_chairs);
    s->queue = ARENA_ARRAY(s->a, struct queue_view, s->n_chairs);
    s->bench = ARENA_ARRAY(s->a, struct bench, BENCHES);
    if (!s->actor || !s->chair || !s->queue || !s->bench || !chairs_setup(s))
        return false;
    for (uint32_t i = 0; i < BENCHES; i++)
        s->bench[i].next = i + 1 < BENCHES ? i + 1 : NOBODY;
    queues_setup(s);
    if (s->visit->fair && !allowances_setup(s))
        return false;
    if (s->visit->fair && s->visit->asked_rps)
        rooms_judge(s);
    actors_setup(s);
    random_seed(&s->noise, s->visit->seed, s->p->n_models);
    return true;
}

/* ---- who waits */
static bool bench_take(struct stage *s, struct chair *c, usec_t deadline_us)
{
    uint32_t i = s->free;

    if (i == NOBODY)
        return false;
    s->free = s->bench[i].next;
    s->bench[i] = (struct bench){.deadline_us = deadline_us, .next = NOBODY};
    if (c->first == NOBODY)
        c->first = i;
    else
        s->bench[c->last].next = i;
    c->last = i;
    return true;
}

static usec_t bench_leave(struct stage *s, struct chair *c)
{
    uint32_t i = c->first;

    c->first = s->bench[i].next;
    s->bench[i].next = s->free;
    s->free = i;
    return s->bench[i].deadline_us;
}

static bool join(struct stage *s, uint32_t at, usec_t deadline_us)
{
    struct queue_view *q = &s->queue[at];

    if (q->n >= BATCH_VIEW_MAX && !bench_take(s, &s->chair[at], deadline_us))
        return false;
    if (q->n < BATCH_VIEW_MAX)
        q->deadline_us[q->n] = deadline_us;
    q->n++;
    s->room[s->chair[at].let].waiting_us += s->chair[at].work_us;
    return true;
}

/* The first of a queue; others come into view. */
static void leave(struct stage *s, uint32_t at, uint32_t take)
{
    struct queue_view *q = &s->queue[at];
    usec_t slo_us = s->p->model[s->chair[at].model].slo_us;
    uint32_t seen = MIN(q->n, BATCH_VIEW_MAX) - take;

    q->n -= take;
    memmove(q->deadline_us, q->deadline_us + take, seen * sizeof(*q->deadline_us));
    for (; seen < MIN(q->n, BATCH_VIEW_MAX); seen++)
        q->deadline_us[seen] = bench_leave(s, &s->chair[at]);
    q->since_us = q->n && slo_us ? q->deadline_us[0] - slo_us : (usec_t)s->now_us;
    s->room[s->chair[at].let].waiting_us -= take * s->chair[at].work_us;
}

/* ---- runs */
static void others_press(const struct stage *s, uint32_t k, struct pressure *ret)
{
    *ret = (struct pressure){0};
    for (uint32_t j = 0; j < s->n_rooms; j++)
        if (j != k && s->room[j].runs)
            pressure_add(s->d, ret, s->room[j].runs, 1);
}

/* Of the requests that wait in a queue, has this one come after the warm-up? */
static bool counts(const struct stage *s, uint32_t at, uint32_t i)
{
    usec_t slo_us = s->p->model[s->chair[at].model].slo_us;

    return slo_us ? s->queue[at].deadline_us[i] - slo_us >= s->warm_us : s->offered > s->n_warm;
}

static void run(struct stage *s, uint32_t at, uint32_t take)
{
    const struct chair *c = &s->chair[at];
    struct room *g = &s->room[c->let];
    struct pressure p;
    struct estimate e;

    others_press(s, c->let, &p);
    pressure_of(s->d, &c->solo[take], &p, &e);
    double noise = 1 + NOISE * random_normal(&s->noise);
    usec_t done_us = (usec_t)(s->now_us + e.run_us * noise + 0.5);
    for (uint32_t i = 0; i < take; i++)
        s->ret[c->model].in_time += counts(s, at, i) && done_us <= s->queue[at].deadline_us[i];
    leave(s, at, take);
    g->runs = &c->solo[take];
    g->busy_us = s->now_us + e.hold_us * noise;
    g->believed_us = s->now_us + (double)c->run_us[take];
}

/* Until a run starts or there is nothing to do. */
static void look(struct stage *s, uint32_t k)
{
    struct room *g = &s->room[k];
    struct batch_view v = {.now_us = (usec_t)s->now_us,
                           .busy_until_us = (usec_t)s->now_us,
                           .max_flying = 1,
                           .n_queues = g->n,
                           .queue = s->queue + g->first,
                           .order = g->order};

    while (!g->runs) {
        struct batch_choice c = ordered_batch_next(&v);
        uint32_t take =
            c.what == BATCH_WAIT ? 0 : MIN(c.take, MIN(v.queue[c.queue].n, BATCH_VIEW_MAX));
        g->until_us = c.until_us == USEC_NEVER ? NEVER_US : (double)c.until_us + 1;
        if (take == 0)
            return;
        if (c.what == BATCH_RUN)
            run(s, g->first + c.queue, MIN(take, v.queue[c.queue].max_batch));
        else
            leave(s, g->first + c.queue, take);
    }
    g->until_us = NEVER_US;
}

/* ---- arrivals */
static void let_look(const struct stage *s, const struct actor *x, uint32_t i, struct let_view *ret)
{
    const struct chair *c = &s->chair[x->seat[i]];
    const struct room *g = &s->room[c->let];
    const struct queue_view *q = &s->queue[x->seat[i]];
    usec_t now_us = (usec_t)s->now_us;
    usec_t lanes_us = g->runs ? MAX(now_us, (usec_t)g->believed_us) : (usec_t)g->busy_us;
    uint32_t rows = q->n + 1;

    *ret =
        (struct let_view){.free_us = MAX(now_us, lanes_us) + g->waiting_us,
                          .lanes_us = lanes_us,
                          .own_us = q->n * c->work_us,
                          .mine_us = mine_us(rows, q->max_batch, c->run_us[MIN(rows, q->max_batch)],
                                             c->run_us[q->max_batch]),
                          .least_us = q->least_us,
                          .full_us = c->run_us[q->max_batch],
                          .n_queued = q->n,
                          .n_routed = x->routed[i],
                          .part = c->part,
                          .shared = g->n > 1,
                          .meek = g->meek,
                          .slack_us = g->slack_us,
                          .order = g->order};
}

static void push(struct stage *s, struct actor *x, const struct admit_view *v)
{
    uint32_t i = v->n_lets > 1 ? greedy_route(v) : 0, at = x->seat[i];
    struct queue_view *q = &s->queue[at];

    x->routed[i]++;
    q->since_us = q->n ? q->since_us : v->now_us;
    if (join(s, at, v->deadline_us) && !s->room[s->chair[at].let].runs)
        look(s, s->chair[at].let);
}

static void arrive(struct stage *s, uint32_t m)
{
    const struct plan_model *from = &s->p->model[m];
    struct actor *x = &s->actor[m];
    struct let_view let[REHEARSE_LETS];
    struct admit_view v = {.now_us = (usec_t)s->now_us,
                           .deadline_us = USEC_NEVER,
                           .queue_max = UINT32_MAX,
                           .n_lets = x->n_seats,
                           .let = let};

    if (from->slo_us)
        v.deadline_us = v.now_us + from->slo_us;
    x->next_us += gap(x, from->arrivals);
    s->warm_us = s->offered++ == s->n_warm ? v.now_us : s->warm_us;
    s->ret[m].offered += s->offered > s->n_warm;
    for (uint32_t i = 0; i < x->n_seats; i++)
        let_look(s, x, i, &let[i]);
    if (s->visit->fair && x->sure.rate_rps > 0) {
        int64_t used_ns = allowance_take(x->used_ns, &x->sure, 1, v.now_us);
        v.beyond = used_ns == ALLOWANCE_FRESH;
        x->loud_us = v.beyond ? v.now_us : x->loud_us;
        v.loud = x->loud_us + LOUD_US > v.now_us;
        x->used_ns = v.beyond ? x->used_ns : used_ns;
    }
    if (fair_admit(&v).what == ADMIT_YES)
        push(s, x, &v);
}

/* The next thing that happens: an arrival (model), or something in a gpu-let (n_models + room). */
static uint32_t next(const struct stage *s, double *ret_us)
{
    uint32_t best = 0;

    *ret_us = NEVER_US;
    for (uint32_t m = 0; m < s->p->n_models; m++)
        if (s->actor[m].next_us < *ret_us) {
            *ret_us = s->actor[m].next_us;
            best = m;
        }
    for (uint32_t k = 0; k < s->n_rooms; k++) {
        double us = s->room[k].runs ? s->room[k].busy_us : s->room[k].until_us;
        if (us < *ret_us) {
            *ret_us = us;
            best = s->p->n_models + k;
        }
    }
    return best;
}

/* What waits is served, as in the middle of a long day. */
static void door_close(struct stage *s)
{
    for (uint32_t m = 0; m < s->p->n_models; m++)
        s->actor[m].next_us = NEVER_US;
}

static bool play(const struct problem *p, const struct plan *plan, const struct visit *v,
                 struct arena *a, struct rehearsed *ret)
{
    struct stage s = {.p = p,
                      .plan = plan,
                      .visit = v,
                      .d = &type_of(p, 0)->predict,
                      .a = a,
                      .n_rooms = plan->n_gpulets,
                      .n_warm = (uint32_t)(WARM_UP * v->n_requests),
                      .warm_us = USEC_NEVER,
                      .ret = ret};

    if (s.n_rooms == 0 || s.n_rooms > REHEARSE_LETS || !stage_init(&s))
        return false;
    for (;;) {
        double at_us;
        uint32_t what = next(&s, &at_us);
        if (at_us >= NEVER_US)
            return true; /* all are served, and nobody comes */
        s.now_us = MAX(at_us, s.now_us);
        if (what < p->n_models) {
            arrive(&s, what);
            if (s.offered == v->n_requests)
                door_close(&s);
            continue;
        }
        s.room[what - p->n_models].runs = NULL;
        look(&s, what - p->n_models);
    }
}

bool rehearse(const struct problem *p, const struct plan *plan, uint32_t n_requests, uint64_t seed,
              struct arena *a, struct rehearsed *ret)
{
    struct visit v = {.load = 1, .n_requests = n_requests, .seed = seed};

    return play(p, plan, &v, a, ret);
}

#define LOUD 2.0
#define WORST_REQUESTS 6000
#define SURE_REQUESTS 60000
#define WORST_SEED 7
#define FEW 20 /* requests of a model say nothing: then the rule's word counts */

static bool can_tell(const struct problem *p)
{
    for (uint32_t m = 0; m < p->n_models; m++)
        if (!(p->model[m].rate_rps > 0) || !p->model[m].slo_us || p->model[m].priority ||
            p->model[m].best_effort)
            return false;
    return p->n_devices == 1 && p->n_models > 0;
}

/* The least part that a model has of its planned rate when all ask for so many times theirs. */
static double worst(const struct problem *p, const struct plan *plan, double load,
                    uint32_t n_requests)
{
    struct visit v = {.load = load,
                      .fair = load > 1,
                      .n_requests = (uint32_t)(load * n_requests),
                      .seed = WORST_SEED};
    double least = INFINITY;
    struct arena a;

    if (!can_tell(p))
        return -1;
    arena_init(&a);
    struct rehearsed *x = ARENA_ARRAY(&a, struct rehearsed, p->n_models);
    if (!x || !play(p, plan, &v, &a, x))
        least = -1;
    for (uint32_t m = 0; m < p->n_models && least >= 0; m++)
        if (x[m].offered >= load * FEW)
            least = fmin(least, load * x[m].in_time / x[m].offered);
        else if (plan->verdict[m].limit != LIMIT_NONE)
            least = 0;
    arena_done(&a);
    return least;
}

double plan_worst(const struct problem *p, const struct plan *plan)
{
    return fmin(worst(p, plan, 1, WORST_REQUESTS), 1);
}

double plan_sure(const struct problem *p, const struct plan *plan)
{
    return fmin(worst(p, plan, 1, SURE_REQUESTS), 1);
}

double plan_loud(const struct problem *p, const struct plan *plan)
{
    return worst(p, plan, LOUD, WORST_REQUESTS);
}

bool plan_served(const struct problem *p, const struct plan *plan, const double *asked_rps,
                 double *ret)
{
    struct visit v = {
        .asked_rps = asked_rps, .fair = true, .n_requests = WORST_REQUESTS, .seed = WORST_SEED};
    struct arena a;

    if (!can_tell(p))
        return false;
    arena_init(&a);
    struct rehearsed *x = ARENA_ARRAY(&a, struct rehearsed, p->n_models);
    bool ok = x && play(p, plan, &v, &a, x);
    for (uint32_t m = 0; ok && m < p->n_models; m++)
        if (x[m].offered >= FEW)
            ret[m] = (double)x[m].in_time / x[m].offered;
        else
            ret[m] = plan->verdict[m].limit == LIMIT_NONE;
    arena_done(&a);
    return ok;
}

double plan_pressed(const struct problem *p, const struct plan *plan, double load)
{
    struct visit v = {.load = load, .n_requests = WORST_REQUESTS, .seed = WORST_SEED};
    struct arena a;
    double sum = 0;

    if (!can_tell(p))
        return -1;
    arena_init(&a);
    struct rehearsed *x = ARENA_ARRAY(&a, struct rehearsed, p->n_models);
    if (!x || !play(p, plan, &v, &a, x))
        sum = -1;
    for (uint32_t m = 0; m < p->n_models && sum >= 0; m++)
        sum += x[m].offered ? (double)x[m].in_time / x[m].offered : 1;
    arena_done(&a);
    return sum < 0 ? -1 : sum / p->n_models;
}
