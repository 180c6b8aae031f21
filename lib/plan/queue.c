/* How long requests wait in a gpu-let that serves batches.
 *
 * One share alone: the number waiting at the starts of runs is a Markov chain, as runs of so many
 * rows take a known time and Poisson arrivals have no memory (bulk service with a cap; Bailey,
 * 1954, with times that depend on the batch).  queue_chain.c solves it; nothing is approximated
 * but the order of arrivals within a run once more wait than fit, and the cut at those numbers
 * where nobody can be in time any more.  Nobody is dropped or refused in it, which errs on the safe
 * side where many are late.
 *
 * Anything else (several shares in time, streams, other arrivals) is walked through in virtual
 * time with the run-time functions (queue_walk.c). */
#include "queue_priv.h"

#include <math.h>

#define GRAINS_MAX 64 /* of a run: larger caps are counted in steps */
#define STATES_MAX 192

static double hold_at(const struct part *p, double rows)
{
    uint32_t lo = (uint32_t)fmin(fmax(floor(rows), 1), p->s->cap);
    uint32_t hi = MIN(lo + 1, p->s->cap);

    return p->hold_us[lo] + fmin(fmax(rows - lo, 0), 1) * (p->hold_us[hi] - p->hold_us[lo]);
}

/* ---- one share alone */

/* As many as may wait while there is hope: behind more full runs than the SLO has room for, there
 * is none. */
static uint32_t states_of(const struct part *p, uint32_t cap)
{
    double slo_us = p->s->slo_us ? (double)p->s->slo_us : INFINITY;
    double runs = floor(fmin(slo_us / hold_at(p, p->s->cap), 1e6)) + 2;

    return (uint32_t)fmin(fmax(runs * cap, 2.0 * cap + 8), MAX(STATES_MAX, 3 * cap));
}

/* Large caps are counted in steps. */
static int chain_init(struct chain *c, const struct part *p, struct arena *a)
{
    const struct queue_share *s = p->s;
    uint32_t grain = (s->cap + GRAINS_MAX - 1) / GRAINS_MAX, cap = (s->cap + grain - 1) / grain;
    double *hold_us = ARENA_ARRAY(a, double, cap + 1), *run_us = ARENA_ARRAY(a, double, cap + 1);

    *c = (struct chain){.rate = p->rate,
                        .turns = MAX(s->turns, 1u),
                        .grain = grain,
                        .cap = cap,
                        .most = states_of(p, cap),
                        .hold_us = hold_us,
                        .run_us = run_us,
                        .count = ARENA_ARRAY(a, struct counts, cap + 1)};
    if (!hold_us || !run_us || !c->count)
        return -ENOMEM;
    for (uint32_t b = 1; b <= cap; b++) {
        uint32_t rows = MIN(b * grain, s->cap);
        hold_us[b] = p->hold_us[rows];
        run_us[b] = s->run_us[rows];
    }
    return 0;
}

static int alone_predict(const struct part *p, struct arena *a, struct queue_result *ret)
{
    struct tail *t = ARENA_NEW(a, struct tail);
    struct chain c;

    if (!t)
        return -ENOMEM;
    t->slo_us = p->s->slo_us ? (double)p->s->slo_us : INFINITY;
    if (p->s->arrivals == ARRIVALS_PACED) {
        paced_measure(p, t, ret);
        return 0;
    }
    int r = chain_init(&c, p, a);
    if (r == 0)
        r = chain_solve(&c, a);
    if (r == 0)
        chain_measure(&c, t, ret);
    return r;
}

/* ---- all of them */

/* Rows of a run in a turn of everybody, each at least one; from above. */
static void usual_find(struct part *p, uint32_t n)
{
    double us = 0;

    for (uint32_t j = 0; j < n; j++)
        us += hold_at(&p[j], p[j].s->cap);
    for (int k = 0; k < 50; k++) {
        double sum = 0;
        for (uint32_t j = 0; j < n; j++) {
            p[j].usual = fmin(fmax(p[j].rate * us, 1), p[j].s->cap);
            sum += hold_at(&p[j], p[j].usual);
        }
        us = sum;
    }
}

static int part_init(struct part *p, const struct queue_share *s, struct err *err)
{
    if (s->cap == 0 || s->cap > QUEUE_BATCH_MAX)
        return err_set(err, -EINVAL, "a batch of %u rows, it must be from 1 to %d", s->cap,
                       QUEUE_BATCH_MAX);
    if (!(s->rate_rps >= 0 && s->rate_rps <= 1e9))
        return err_set(err, -EINVAL, "a rate of %g requests/s, it must be from 0 to 1e9",
                       s->rate_rps);
    if (s->turns > QUEUE_TURNS_MAX)
        return err_set(err, -EINVAL, "every %uth request, the limit is %d", s->turns,
                       QUEUE_TURNS_MAX);
    if (s->streams > QUEUE_STREAMS_MAX)
        return err_set(err, -EINVAL, "%u streams, the limit is %d", s->streams, QUEUE_STREAMS_MAX);
    *p = (struct part){
        .s = s, .hold_us = s->hold_us ? s->hold_us : s->run_us, .rate = s->rate_rps / 1e6};
    for (uint32_t b = 1; b <= s->cap; b++)
        if (!(p->hold_us[b] > 0 && s->run_us[b] > 0))
            return err_set(err, -EINVAL, "a run of %u rows takes %g us", b, p->hold_us[b]);
    return 0;
}

/* Part of the time that full runs take. */
static double full_load(const struct part *p)
{
    return p->rate / p->s->cap * p->hold_us[p->s->cap] / MAX(p->s->streams, 1u);
}

/* More comes than full runs of everybody can take. */
static void overload(const struct part *p, uint32_t n, double load, struct queue_result *ret)
{
    for (uint32_t j = 0; j < n; j++)
        ret[j] = (struct queue_result){.late = 1,
                                       .p99_us = INFINITY,
                                       .mean_us = INFINITY,
                                       .mean_batch = p[j].s->cap,
                                       .duty = p[j].rate / p[j].s->cap *
                                               hold_at(&p[j], p[j].s->cap) / load};
}

int queue_predict(const struct queue_share *share, uint32_t n, struct arena *a,
                  struct queue_result *ret, struct err *err)
{
    struct part p[QUEUE_SHARES_MAX];
    struct arena mark = *a;
    double load = 0;
    int r = 0;

    if (n > QUEUE_SHARES_MAX)
        return err_set(err, -EINVAL, "%u models in one gpu-let, the limit is %d", n,
                       QUEUE_SHARES_MAX);
    for (uint32_t j = 0; j < n; j++) {
        r = part_init(&p[j], &share[j], err);
        if (r < 0)
            return r;
        load += full_load(&p[j]);
    }
    if (load >= 1) {
        overload(p, n, load, ret);
        return 0;
    }
    usual_find(p, n);
    r = n == 1 && p->s->streams <= 1 && p->s->arrivals < ARRIVALS_CV ? alone_predict(p, a, ret)
                                                                     : walk_predict(p, n, a, ret);
    if (a->base == mark.base)
        *a = mark;
    return r < 0 ? err_set(err, r, "out of memory for a queue of %u models", n) : 0;
}

/* Between nothing and what full runs can take; late grows with the rate. */
int queue_most_rps(const struct queue_share *s, double late, struct arena *a, double *ret,
                   struct err *err)
{
    struct queue_share at = *s;
    struct queue_result result;
    struct part p;
    double lo = 0;

    at.rate_rps = 1e6;
    int r = part_init(&p, &at, err);
    if (r < 0)
        return r;
    double hi = 1e6 / full_load(&p);
    for (int i = 0; i < 20; i++) {
        at.rate_rps = (lo + hi) / 2;
        r = queue_predict(&at, 1, a, &result, err);
        if (r < 0)
            return r;
        *(result.late <= late ? &lo : &hi) = at.rate_rps;
    }
    *ret = lo;
    return 0;
}
