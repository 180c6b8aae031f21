/* How long requests wait in a gpu-let that serves batches.
 *
 * One share alone: the number waiting at the starts of runs is a Markov chain, as runs of so many
 * rows take a known time and Poisson arrivals have no memory (bulk service with a cap; Bailey,
 * 1954, with times that depend on the batch).  queue_chain.c solves it; nothing is approximated
 * but the order of arrivals within a run once more wait than fit, and the cut at those numbers
 * where nobody can be in time any more.
 *
 * Several shares in time: between two runs of one share the others have their turns.  Each of
 * them is taken to run once if any request of it came within the whole turn, with as many rows as
 * come in that time.  That is a round robin; the daemon goes by deadlines, which delays those with
 * a long SLO more and those with a short one less, and is no worse as to who is late.
 *
 * Streams: a gpu-let with s runs at once starts one every hold / s.
 *
 * Cost: one share alone, cap 32: under 100 us; grows with the cap up to 64 and then no more (larger
 * counts go in steps).  n shares: about 2 n^2 times that. */
#include "queue_priv.h"

#include <math.h>

#define GRAINS_MAX 64 /* of a run: larger caps are counted in steps */
#define STATES_MAX 192
#define DISPERSION_MOST 400.0

/* A share with what is derived from it. */
struct part {
    const struct queue_share *s;
    const double *hold_us; /* as given */
    double rate, streams;  /* arrivals in a microsecond */
    double usual;          /* rows of a run in a usual turn of all */
};

static double hold_at(const struct part *p, double rows)
{
    uint32_t lo = (uint32_t)fmin(fmax(floor(rows), 1), p->s->cap);
    uint32_t hi = MIN(lo + 1, p->s->cap);
    double t = fmin(fmax(rows - lo, 0), 1);

    return (p->hold_us[lo] + t * (p->hold_us[hi] - p->hold_us[lo])) / p->streams;
}

/* ---- the others' turns */

/* Probability that somebody of p came within us, and rows of the run if so. */
static double turn_chance(const struct part *p, double us, double *rows)
{
    double mean = p->rate * us;
    double chance = p->s->arrivals == ARRIVALS_PACED ? fmin(mean, 1) : 1 - exp(-mean);

    *rows = chance > 0 ? fmin(fmax(mean / chance, 1), p->s->cap) : 1;
    return chance;
}

/* The mean length of a turn that begins with own_us: own_us and what the others bring into it. */
static double turn_mean(const struct part *p, uint32_t n, uint32_t me, double own_us)
{
    double us = own_us;

    for (int k = 0; k < 30; k++) {
        double sum = own_us, rows;
        for (uint32_t j = 0; j < n; j++)
            if (j != me) {
                double chance = turn_chance(&p[j], us, &rows);
                sum += chance * hold_at(&p[j], rows);
            }
        if (fabs(sum - us) < 1e-4 * us)
            break;
        us = sum;
    }
    return us;
}

static void turns_sort(struct turns *t)
{
    for (uint32_t i = 1; i < t->n; i++)
        for (uint32_t k = i; k > 0 && t->us[k] < t->us[k - 1]; k--) {
            double us = t->us[k], part = t->part[k];
            t->us[k] = t->us[k - 1];
            t->part[k] = t->part[k - 1];
            t->us[k - 1] = us;
            t->part[k - 1] = part;
        }
}

/* Two neighbouring cases become one where that changes least. */
static void turns_join(struct turns *t)
{
    uint32_t best = 0;
    double least = INFINITY;

    for (uint32_t i = 0; i + 1 < t->n; i++) {
        double cost = (t->us[i + 1] - t->us[i]) * t->part[i] * t->part[i + 1] /
                      fmax(t->part[i] + t->part[i + 1], 1e-30);
        if (cost < least) {
            least = cost;
            best = i;
        }
    }
    double part = t->part[best] + t->part[best + 1];
    t->us[best] = part > 0
                      ? (t->us[best] * t->part[best] + t->us[best + 1] * t->part[best + 1]) / part
                      : t->us[best + 1];
    t->part[best] = part;
    t->n--;
    for (uint32_t i = best + 1; i < t->n; i++) {
        t->us[i] = t->us[i + 1];
        t->part[i] = t->part[i + 1];
    }
}

static void turns_make(const struct part *p, uint32_t n, uint32_t me, double own_us,
                       struct turns *ret)
{
    double mean_us = turn_mean(p, n, me, own_us), rows;

    *ret = (struct turns){.n = 1, .us = {own_us}, .part = {1}};
    for (uint32_t j = 0; j < n; j++) {
        if (j == me)
            continue;
        double chance = turn_chance(&p[j], mean_us, &rows), us = hold_at(&p[j], rows);
        while (ret->n > TURNS_MAX / 2) {
            turns_sort(ret);
            turns_join(ret);
        }
        for (uint32_t k = ret->n; k-- > 0;) {
            ret->us[ret->n + k] = ret->us[k] + us;
            ret->part[ret->n + k] = ret->part[k] * chance;
            ret->part[k] *= 1 - chance;
        }
        ret->n *= 2;
    }
    turns_sort(ret);
}

/* A run of somebody else that is met in the middle: longer ones are met more often. */
static double met_us(const struct part *p, uint32_t n, uint32_t me)
{
    double sum = 0, weight = 0;

    for (uint32_t j = 0; j < n; j++)
        if (j != me) {
            double us = hold_at(&p[j], p[j].usual), w = p[j].rate / p[j].usual * us;
            sum += w * us;
            weight += w;
        }
    return weight > 0 ? sum / weight : 0;
}

/* ---- one share */
static double used(const struct part *p)
{
    return p->rate / p->usual * hold_at(p, p->usual);
}

static double away(const struct part *p, uint32_t n, uint32_t me)
{
    double others = 0;

    for (uint32_t j = 0; j < n; j++)
        others += j == me ? 0 : used(&p[j]);
    return fmin(others / fmax(1 - used(&p[me]), 1e-3), 1);
}

/* As many as may wait while there is hope: behind more full runs than the SLO has room for, there
 * is none. */
static uint32_t states_of(const struct part *p, uint32_t cap)
{
    double slo_us = p->s->slo_us ? (double)p->s->slo_us : INFINITY;
    double runs = floor(fmin(slo_us / hold_at(p, p->s->cap), 1e6)) + 2;

    return (uint32_t)fmin(fmax(runs * cap, 2.0 * cap + 8), MAX(STATES_MAX, 3 * cap));
}

static int chain_init(struct chain *c, const struct part *p, uint32_t n, uint32_t me,
                      struct arena *a)
{
    const struct queue_share *s = p[me].s;
    uint32_t grain = (s->cap + GRAINS_MAX - 1) / GRAINS_MAX, cap = (s->cap + grain - 1) / grain;
    bool bursty = (s->arrivals == ARRIVALS_CV || s->arrivals == ARRIVALS_TRACE) && s->cv > 1;

    *c = (struct chain){.flow = {.kind = s->arrivals,
                                 .rate = p[me].rate,
                                 .dispersion = bursty ? fmin(s->cv * s->cv, DISPERSION_MOST) : 1,
                                 .grain = grain},
                        .share = s,
                        .cap = cap,
                        .most = states_of(&p[me], cap),
                        .away = away(p, n, me),
                        .hold_us = ARENA_ARRAY(a, double, cap + 1),
                        .run_us = ARENA_ARRAY(a, double, cap + 1),
                        .turns = ARENA_ARRAY(a, struct turns, cap + 1),
                        .count = ARENA_ARRAY(a, struct counts, (cap + 1) * TURNS_MAX)};
    if (!c->hold_us || !c->run_us || !c->turns || !c->count)
        return -ENOMEM;
    for (uint32_t b = 1; b <= cap; b++) {
        uint32_t rows = MIN(b * grain, s->cap);
        c->hold_us[b] = hold_at(&p[me], rows);
        c->run_us[b] = s->run_us[rows];
        turns_make(p, n, me, c->hold_us[b], &c->turns[b]);
    }
    turns_make(p, n, me, met_us(p, n, me), &c->turns[0]);
    return 0;
}

static void tail_init(struct tail *t, const struct queue_share *s)
{
    memset(t, 0, sizeof(*t));
    t->slo_us = s->slo_us ? (double)s->slo_us : INFINITY;
}

static int share_predict(const struct part *p, uint32_t n, uint32_t me, struct tail *t,
                         struct arena *a, struct queue_result *ret)
{
    struct arena mark = *a;
    struct chain c;

    tail_init(t, p[me].s);
    if (n == 1 && p->s->arrivals == ARRIVALS_PACED) {
        paced_measure(p->s, p->hold_us, t, ret);
        return 0;
    }
    int r = chain_init(&c, p, n, me, a);
    if (r == 0)
        r = chain_solve(&c, a);
    if (r == 0)
        chain_measure(&c, t, ret);
    if (a->base == mark.base)
        *a = mark;
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
    *p = (struct part){.s = s,
                       .hold_us = s->hold_us ? s->hold_us : s->run_us,
                       .rate = s->rate_rps / 1e6,
                       .streams = MAX(s->streams, 1u)};
    for (uint32_t b = 1; b <= s->cap; b++)
        if (!(p->hold_us[b] > 0 && s->run_us[b] > 0))
            return err_set(err, -EINVAL, "a run of %u rows takes %g us", b, p->hold_us[b]);
    return 0;
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
        load += p[j].rate / share[j].cap * hold_at(&p[j], share[j].cap);
    }
    if (load >= 1) {
        overload(p, n, load, ret);
        return 0;
    }
    usual_find(p, n);
    struct tail *t = ARENA_NEW(a, struct tail);
    for (uint32_t j = 0; j < n && t && r == 0; j++)
        r = share_predict(p, n, j, t, a, &ret[j]);
    if (a->base == mark.base)
        *a = mark;
    return t && r == 0 ? 0 : err_set(err, -ENOMEM, "out of memory for a queue of %u models", n);
}
