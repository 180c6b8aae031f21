/* Several shares, or one with streams: a gpu-let walked through in virtual time.
 *
 * Who is next depends on everybody's deadlines, which no short chain describes; so the decisions
 * are made by the functions of the run time itself, on arrivals from a fixed seed.  Equal input
 * gives equal output.  The part that is late is given with 2.5 of its standard errors, from the
 * differences between blocks of time, and the walk ends early where that leaves no doubt. */
#include "plan_priv.h"
#include "queue_priv.h"
#include "random.h"

#include <math.h>

#define RUNS_MOST 20000.0 /* of all shares */
#define REQUESTS_MOST 100000.0
#define BLOCKS 40
#define BLOCKS_LEAST 8 /* the first is warm-up */
#define SAMPLES_LEAST 800
#define SAFETY 2.5       /* standard errors */
#define CLEAR_GOOD 0.004 /* no doubt below and */
#define CLEAR_BAD 0.03   /* above */
/* Who comes less often is walked as if it took so much of the time; all together at most: */
#define DUTY_LEAST 0.02
#define DUTY_EXTRA 0.08
#define WAITING_LEAST 512 /* room in a queue; and 4 full runs at least */

struct walker {
    const struct queue_share *s;
    const double *hold_us;
    struct random random;
    double rate, shape, next_us;
    usec_t *view_us; /* as the policy knows them */
    usec_t work_us;
    usec_t *waiting; /* a ring of arrivals */
    uint32_t room, first, n, n_flying;
    double offered[BLOCKS], late[BLOCKS];
    double answered, sum_us, runs, rows, held_us;
    uint32_t bin[TAIL_BINS];
};

struct walk {
    uint32_t n, n_lanes, n_flying, block;
    struct walker *w;
    struct queue_view *view;
    usec_t now_us, timer_us, work_us;
    usec_t end_us[QUEUE_STREAMS_MAX], seen_us[QUEUE_STREAMS_MAX]; /* 0: free; seen: as predicted */
    uint32_t whose[QUEUE_STREAMS_MAX];
};

static double gap_us(struct walker *w)
{
    if (w->s->arrivals == ARRIVALS_PACED)
        return 1 / w->rate;
    return (w->shape != 1 ? random_gamma(&w->random, w->shape) : random_exp(&w->random)) / w->rate;
}

static usec_t deadline_us(const struct walker *w, usec_t arrival_us)
{
    return w->s->slo_us ? arrival_us + w->s->slo_us : USEC_NEVER;
}

static usec_t pop(struct walk *k, struct walker *w)
{
    usec_t arrival_us = w->waiting[w->first];

    w->first = (w->first + 1) & (w->room - 1);
    w->n--;
    k->work_us -= w->work_us;
    return arrival_us;
}

/* ---- decisions */
static void look_at(const struct walk *k, const struct walker *w, uint32_t n_waiting,
                    struct queue_view *q)
{
    q->n = w->n;
    q->since_us = w->waiting[w->first & (w->room - 1)];
    for (uint32_t i = 0; i < MIN(w->n, BATCH_VIEW_MAX); i++)
        q->deadline_us[i] = deadline_us(w, w->waiting[(w->first + i) & (w->room - 1)]);
    q->ready = k->n_flying == 0 || (k->n_flying == w->n_flying &&
                                    w->n_flying < MAX(w->s->streams, 1u) && n_waiting == 1);
}

static struct batch_choice ask(struct walk *k)
{
    uint32_t n_waiting = 0;

    for (uint32_t i = 0; i < k->n; i++)
        n_waiting += k->w[i].n > 0;
    if (n_waiting == 0)
        return (struct batch_choice){.what = BATCH_WAIT, .until_us = USEC_NEVER};
    for (uint32_t i = 0; i < k->n; i++)
        look_at(k, &k->w[i], n_waiting, &k->view[i]);
    struct batch_view v = {.now_us = k->now_us,
                           .n_flying = k->n_flying,
                           .max_flying = k->n_lanes,
                           .busy_until_us = k->now_us,
                           .n_queues = k->n,
                           .queue = k->view};
    return greedy_batch_next(&v);
}

static void answer(struct walk *k, struct walker *w, usec_t arrival_us, double run_us)
{
    double us = (double)(k->now_us - arrival_us) + run_us;

    w->late[k->block] += w->s->slo_us && us > (double)w->s->slo_us;
    if (k->block == 0)
        return;
    w->answered++;
    w->sum_us += us;
    w->bin[tail_bin(us)]++;
}

static void run_start(struct walk *k, uint32_t i, uint32_t take)
{
    struct walker *w = &k->w[i];
    uint32_t lane = 0;

    while (k->end_us[lane])
        lane++;
    k->end_us[lane] = k->now_us + MAX((usec_t)(w->hold_us[take] + 0.5), 1);
    k->seen_us[lane] = k->now_us + w->view_us[take];
    k->whose[lane] = i;
    k->n_flying++;
    w->n_flying++;
    w->runs++;
    w->rows += take;
    w->held_us += w->hold_us[take];
    for (uint32_t r = 0; r < take; r++)
        answer(k, w, pop(k, w), w->s->run_us[take]);
}

static void look(struct walk *k)
{
    k->timer_us = USEC_NEVER;
    while (k->n_flying < k->n_lanes) {
        struct batch_choice c = ask(k);
        if (c.what == BATCH_WAIT) {
            k->timer_us = MAX(c.until_us, k->now_us + 1);
            return;
        }
        struct walker *w = &k->w[c.queue];
        if (c.what == BATCH_RUN)
            run_start(k, c.queue, c.take);
        for (uint32_t r = 0; c.what == BATCH_DROP && r < c.take; r++) {
            (void)pop(k, w);
            w->late[k->block]++;
        }
    }
}

/* ---- what happens */
static void arrive(struct walk *k, struct walker *w)
{
    usec_t free_us = USEC_NEVER;
    uint32_t rows = w->n + 1;

    for (uint32_t i = 0; i < k->n_lanes; i++)
        free_us = MIN(free_us, k->end_us[i] ? k->seen_us[i] : k->now_us);
    struct let_view let = {.free_us = MAX(free_us, k->now_us) + k->work_us / k->n_lanes,
                           .own_us = w->n * w->work_us / k->n_lanes,
                           .mine_us = mine_us(rows, w->s->cap, w->view_us[MIN(rows, w->s->cap)],
                                              w->view_us[w->s->cap]),
                           .least_us = w->view_us[1],
                           .full_us = w->view_us[w->s->cap],
                           .n_queued = w->n};
    struct admit_view v = {.now_us = k->now_us,
                           .deadline_us = deadline_us(w, k->now_us),
                           .n_queued = w->n,
                           .queue_max = w->room,
                           .n_lets = 1,
                           .let = &let};
    w->offered[k->block]++;
    if (greedy_admit(&v).what != ADMIT_YES) {
        w->late[k->block]++;
        return;
    }
    w->waiting[(w->first + w->n++) & (w->room - 1)] = k->now_us;
    k->work_us += w->work_us;
    look(k);
}

static void run_end(struct walk *k, uint32_t lane)
{
    k->end_us[lane] = 0;
    k->n_flying--;
    k->w[k->whose[lane]].n_flying--;
    look(k);
}

/* One event, if there is one before to_us. */
static bool step(struct walk *k, double to_us)
{
    uint32_t first = UINT32_MAX, lane = UINT32_MAX;
    double at_us = fmin(to_us, (double)k->timer_us);

    for (uint32_t i = 0; i < k->n_lanes; i++)
        if (k->end_us[i] && (double)k->end_us[i] <= at_us) {
            at_us = (double)k->end_us[i];
            lane = i;
        }
    for (uint32_t i = 0; i < k->n; i++)
        if (k->w[i].next_us < at_us) {
            at_us = k->w[i].next_us;
            first = i;
        }
    if (at_us >= to_us)
        return false;
    k->now_us = MAX((usec_t)at_us, k->now_us);
    if (first != UINT32_MAX) {
        k->w[first].next_us += gap_us(&k->w[first]);
        arrive(k, &k->w[first]);
    } else if (lane != UINT32_MAX) {
        run_end(k, lane);
    } else {
        look(k);
    }
    return true;
}

/* ---- what comes out */

/* Late requests of those offered since the warm-up, and the standard error of that part. */
static double late_part(const struct walker *w, uint32_t blocks, double *error, double *samples)
{
    double offered = 0, late = 0, spread = 0;

    for (uint32_t b = 1; b < blocks; b++) {
        offered += w->offered[b];
        late += w->late[b];
    }
    *samples = offered;
    *error = 1;
    if (offered < 1)
        return 0;
    double part = fmin(late / offered, 1);
    for (uint32_t b = 1; b < blocks; b++) {
        double off = w->late[b] - part * w->offered[b];
        spread += off * off;
    }
    /* Of no late one among n, one in n may be late still. */
    *error = fmax(sqrt(spread * (blocks - 1) / fmax(blocks - 2, 1)), 0.5) / offered;
    return part;
}

static bool clear(const struct walk *k, uint32_t blocks)
{
    for (uint32_t i = 0; i < k->n; i++) {
        double error, samples, part = late_part(&k->w[i], blocks, &error, &samples);
        if (samples < SAMPLES_LEAST ||
            (part + 3 * error > CLEAR_GOOD && part - 3 * error < CLEAR_BAD))
            return false;
    }
    return true;
}

static double bin_quantile(const struct walker *w, double q)
{
    double need = q * w->answered, seen = 0;

    for (uint32_t b = 0; b < TAIL_BINS && w->answered > 0; b++) {
        seen += w->bin[b];
        if (seen >= need)
            return tail_edge_us(b);
    }
    return INFINITY;
}

static void result(const struct walker *w, uint32_t blocks, struct queue_result *ret)
{
    double error, samples, part = late_part(w, blocks, &error, &samples);
    double hold_us = w->runs > 0 ? w->held_us / w->rows : w->hold_us[1];

    *ret = (struct queue_result){
        .late = w->s->slo_us ? fmin(part + SAFETY * error, 1) : 0,
        .p99_us = bin_quantile(w, 0.99),
        .mean_us = w->answered > 0 ? w->sum_us / w->answered : INFINITY,
        .mean_batch = w->runs > 0 ? w->rows / w->runs : 1,
        .duty = fmin(w->s->rate_rps * hold_us / (1e6 * MAX(w->s->streams, 1u)), 1)};
}

static int walker_init(struct walker *w, const struct part *p, uint32_t i, double duty_least,
                       struct arena *a, struct queue_view *q)
{
    const struct queue_share *s = p->s;
    bool cv = (s->arrivals == ARRIVALS_CV || s->arrivals == ARRIVALS_TRACE) && s->cv > 0;

    *w = (struct walker){.s = s,
                         .hold_us = p->hold_us,
                         .rate = fmax(p->rate, duty_least / p->hold_us[1]),
                         .shape = MAX(s->turns, 1u) *
                                  (cv ? 1 / fmin(fmax(s->cv * s->cv, 1e-4), 1e4) : 1),
                         .room = WAITING_LEAST,
                         .view_us = ARENA_ARRAY(a, usec_t, s->cap + 1)};
    while (w->room < 4 * s->cap)
        w->room *= 2;
    w->waiting = ARENA_ARRAY(a, usec_t, w->room);
    if (!w->view_us || !w->waiting)
        return -ENOMEM;
    for (uint32_t b = 1; b <= s->cap; b++)
        w->view_us[b] = MAX((usec_t)(s->run_us[b] + 0.5), 1);
    w->work_us = MIN(w->view_us[s->cap] / s->cap, w->view_us[1]);
    random_seed(&w->random, 1, i);
    w->next_us = random_unit(&w->random) * gap_us(w);
    *q = (struct queue_view){.max_batch = s->cap, .run_us = w->view_us, .least_us = w->view_us[1]};
    for (uint32_t r = 0; r < BATCH_VIEW_MAX; r++)
        q->rows[r] = 1;
    return 0;
}

int walk_predict(const struct part *p, uint32_t n, struct arena *a, struct queue_result *ret)
{
    struct walk k = {.n = n,
                     .n_lanes = 1,
                     .w = ARENA_ARRAY(a, struct walker, n),
                     .view = ARENA_ARRAY(a, struct queue_view, n),
                     .timer_us = USEC_NEVER};
    double runs = 0, requests = 0;
    uint32_t blocks = 0;

    if (!k.w || !k.view)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        if (walker_init(&k.w[i], &p[i], i, fmin(DUTY_LEAST, DUTY_EXTRA / n), a, &k.view[i]) < 0)
            return -ENOMEM;
        k.n_lanes = MAX(k.n_lanes, p[i].s->streams);
        runs += k.w[i].rate / p[i].usual;
        requests += k.w[i].rate;
    }
    double block_us = fmin(RUNS_MOST / runs, REQUESTS_MOST / requests) / BLOCKS;
    while (blocks < BLOCKS && !(blocks >= BLOCKS_LEAST && clear(&k, blocks))) {
        k.block = blocks++;
        while (step(&k, blocks * block_us))
            ;
    }
    for (uint32_t i = 0; i < n; i++)
        result(&k.w[i], blocks, &ret[i]);
    return 0;
}
