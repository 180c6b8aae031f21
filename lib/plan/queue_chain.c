/* The Markov chain of one share alone: how many wait when a run starts.
 *
 * A run with n waiting takes b = min(n, cap) of them; while it holds the gpu-let A more come, and
 * n - b + A wait.  When nothing waits, the next that comes starts at once: state 0 is a run of one
 * that began so.  The latency of a request follows from where in a run it came, which is even, and
 * from its place in the queue. */
#include "queue_priv.h"

#include <math.h>

#define STEPS_MAX 400
#define LEAP_AFTER 6 /* steps, for the other parts to die out */
#define SETTLED 1e-6
#define STATE_LEAST 1e-9 /* cases that are rarer are not looked at */

static int all_counts(struct chain *c, struct arena *a)
{
    double *scratch = ARENA_ARRAY(a, double, c->most + 1);
    int r = scratch ? 0 : -ENOMEM;

    for (uint32_t b = 1; b <= c->cap && r == 0; b++)
        r = counts_make(c->rate * c->hold_us[b], c->turns, c->grain, c->most, scratch, a,
                        &c->count[b]);
    c->count[0] = c->count[1];
    return r;
}

/* One step of the chain from state n, which has probability p. */
static void step_from(struct chain *c, uint32_t n, double p)
{
    uint32_t b = MIN(n, c->cap), left = n - b;
    const struct counts *a = &c->count[b];
    uint32_t cases = a->hi - a->lo + 1, room = c->most - left;
    uint32_t fit = room < a->lo ? 0 : MIN(cases, room - a->lo + 1);
    double *to = &c->next[left + a->lo];

    for (uint32_t i = 0; i < fit; i++)
        to[i] += p * a->p[i];
    for (uint32_t i = fit; i < cases; i++)
        c->next[c->most] += p * a->p[i];
}

static double step(struct chain *c)
{
    double moved = 0, sum = 0;

    memset(c->next, 0, (c->most + 1) * sizeof(*c->next));
    for (uint32_t n = 0; n <= c->most; n++)
        if (c->state[n] > STATE_LEAST)
            step_from(c, n, c->state[n]);
    for (uint32_t n = 0; n <= c->most; n++)
        sum += c->next[n];
    for (uint32_t n = 0; n <= c->most; n++) {
        c->next[n] /= sum;
        moved += fabs(c->next[n] - c->state[n]);
    }
    double *was = c->state;
    c->state = c->next;
    c->next = was;
    return moved;
}

/* What waits if every run brings what its own length lets come. */
static uint32_t balance(const struct chain *c)
{
    uint32_t n = 1;

    for (int i = 0; i < 64; i++) {
        double grains = c->rate * c->hold_us[MIN(n, c->cap)] / c->grain;
        n = (uint32_t)fmin(fmax(ceil(grains), 1), c->most);
    }
    return n;
}

/* Near saturation what is missing shrinks by the same part each step: go there at once (Aitken).
 * c->next still holds the step before. */
static void leap(struct chain *c, double ratio)
{
    double far = ratio / (1 - ratio), sum = 0;

    for (uint32_t n = 0; n <= c->most; n++) {
        c->state[n] = fmax(c->state[n] + far * (c->state[n] - c->next[n]), 0);
        sum += c->state[n];
    }
    for (uint32_t n = 0; n <= c->most; n++)
        c->state[n] /= sum;
}

int chain_solve(struct chain *c, struct arena *a)
{
    double moved_was = 2, ratio_was = 2;

    c->state = ARENA_ARRAY(a, double, c->most + 1);
    c->next = ARENA_ARRAY(a, double, c->most + 1);
    if (!c->state || !c->next || all_counts(c, a) < 0)
        return -ENOMEM;
    c->state[balance(c)] = 1;
    for (int i = 1, rest = LEAP_AFTER; i <= STEPS_MAX; i++) {
        double moved = step(c), ratio = moved / moved_was;
        if (moved < SETTLED)
            break;
        if (--rest <= 0 && ratio < 0.999 && fabs(ratio - ratio_was) < 0.03 * (1 - ratio)) {
            leap(c, ratio);
            rest = LEAP_AFTER;
        }
        moved_was = moved;
        ratio_was = ratio;
    }
    return 0;
}

/* Where in a run the i-th of n arrivals ends, 0..1: in the middle i / n, but those around it spread
 * (a beta distribution); `side` says to which side of the edge we look. */
static double place(uint32_t i, uint32_t n, double side)
{
    double x = (double)i / n;

    return fmin(fmax(x + side * 0.85 * sqrt(x * (1 - x) / (n + 1)), 0), 1);
}

/* Of n requests that came in a run of `us`, `left` waiting before them, all in order: those at
 * places up to cap go with the next run, the others one full run later, and so on. */
static void run_measure(const struct chain *c, double mass, double us, uint32_t left, uint32_t n,
                        struct tail *t)
{
    uint32_t waits = left + n, first = left;
    double wait_us = 0;

    for (uint32_t from = 0; from < waits && n > 0; from += c->cap) {
        uint32_t to = MIN(from + c->cap, waits);
        if (to > first) {
            /* Behind a full run it will be joined by those that come meanwhile. */
            double run_us = wait_us + c->run_us[from ? c->cap : to - from];
            double newest_us = us * (1 - place(to - left, n, 1));
            double oldest_us = us * (1 - place(first - left, n, -1));
            tail_add(t, mass * (to - first), newest_us + run_us, oldest_us + run_us);
            first = to;
        }
        wait_us += c->hold_us[c->cap];
    }
}

static void state_measure(const struct chain *c, uint32_t n, double p, struct tail *t)
{
    uint32_t b = MIN(n, c->cap), left = n - b;
    const struct counts *a = &c->count[b];

    for (uint32_t i = a->lo; i <= a->hi; i++) {
        double mass = p * a->p[i - a->lo];
        if (mass < STATE_LEAST)
            continue;
        /* The last state stands for all above it: who makes it has no hope. */
        uint32_t over = left + i >= c->most ? left + i - c->most + 1 : 0;
        over = MIN(over, i);
        t->lost += mass * over;
        run_measure(c, mass, c->hold_us[MAX(b, 1)], left, i - over, t);
    }
}

void chain_measure(const struct chain *c, struct tail *t, struct queue_result *ret)
{
    double runs = 0, rows = 0, held_us = 0;

    tail_add(t, c->state[0], c->run_us[1], c->run_us[1]);
    for (uint32_t n = 0; n <= c->most; n++) {
        double p = c->state[n];
        if (p <= STATE_LEAST)
            continue;
        state_measure(c, n, p, t);
        runs += p;
        rows += p * MIN(MAX(n, 1), c->cap);
        held_us += p * c->hold_us[MIN(MAX(n, 1), c->cap)];
    }
    double all = t->mass + t->lost;
    ret->late = all > 0 ? fmin((t->late + t->lost) / all, 1) : 0;
    ret->p99_us = tail_quantile(t, 0.99);
    ret->mean_us = t->mass > 0 ? t->sum_us / t->mass : INFINITY;
    ret->mean_batch = runs > 0 ? rows / runs * c->grain : 0;
    ret->duty = rows > 0 ? fmin(c->rate * held_us / (rows * c->grain), 1) : 0;
}
