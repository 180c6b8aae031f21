/* The Markov chain of one share: how many wait when its turn comes.
 *
 * A turn with n waiting runs b = min(n, cap) of them; until the next turn (its own run and those
 * that others have in between) A more come, and n - b + A wait.  When nothing waits and nobody
 * runs, the next request starts at once.  The lateness of a request follows from where in that time
 * it came, which is even, and from its place in the queue. */
#include "queue_priv.h"

#include <math.h>

#define STEPS_MAX 400
#define SETTLED 1e-8
#define STATE_LEAST 1e-11 /* cases that are rarer are not looked at */

static struct counts *count_of(const struct chain *c, uint32_t b, uint32_t turn)
{
    return &c->count[b * TURNS_MAX + turn];
}

static int all_counts(struct chain *c, struct arena *a)
{
    double *scratch = ARENA_ARRAY(a, double, c->most + 1);
    int r = scratch ? 0 : -ENOMEM;

    for (uint32_t b = 0; b <= c->cap && r == 0; b++)
        for (uint32_t k = 0; k < c->turns[b].n && r == 0; k++)
            r = counts_make(&c->flow, c->flow.rate * c->turns[b].us[k], c->most, scratch, a,
                            count_of(c, b, k));
    return r;
}

/* One step of the chain from state n, which has probability p. */
static void step_from(struct chain *c, uint32_t n, double p)
{
    uint32_t b = MIN(n, c->cap), left = n - b;

    if (n == 0) { /* nobody runs: the next that comes is served at once */
        c->next[1] += p * (1 - c->away);
        p *= c->away;
    }
    for (uint32_t k = 0; k < c->turns[b].n; k++) {
        const struct counts *a = count_of(c, b, k);
        double part = p * c->turns[b].part[k];
        uint32_t hi = MIN(a->hi, c->most - left);
        for (uint32_t i = a->lo; i <= hi; i++)
            c->next[left + i] += part * a->p[i - a->lo];
        for (uint32_t i = MAX(hi + 1, a->lo); i <= a->hi; i++)
            c->next[c->most] += part * a->p[i - a->lo];
    }
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

/* What waits if every turn brings what its own length lets come. */
static uint32_t balance(const struct chain *c)
{
    uint32_t n = 1;

    for (int i = 0; i < 64; i++) {
        const struct turns *t = &c->turns[MIN(n, c->cap)];
        double us = 0;
        for (uint32_t k = 0; k < t->n; k++)
            us += t->us[k] * t->part[k];
        double grains = c->flow.rate * us / c->flow.grain;
        n = (uint32_t)fmin(fmax(ceil(grains), 1), c->most);
    }
    return n;
}

int chain_solve(struct chain *c, struct arena *a)
{
    c->state = ARENA_ARRAY(a, double, c->most + 1);
    c->next = ARENA_ARRAY(a, double, c->most + 1);
    if (!c->state || !c->next || all_counts(c, a) < 0)
        return -ENOMEM;
    c->state[balance(c)] = 1;
    for (int i = 0; i < STEPS_MAX; i++)
        if (step(c) < SETTLED)
            break;
    return 0;
}

/* Requests that came in a turn of `us`, `left` waiting before them, n of them, all in order:
 * those at places up to cap go with the next run, the others one full run later, and so on. */
static void turn_measure(const struct chain *c, double mass, double us, uint32_t left, uint32_t n,
                         struct tail *t)
{
    uint32_t waits = left + n, first = left;
    double wait_us = 0, full_us = c->turns[c->cap].us[0];

    if (n == 0)
        return;
    for (uint32_t j = 1; j < c->turns[c->cap].n; j++) /* its longest turn */
        full_us = fmax(full_us, c->turns[c->cap].us[j]);
    for (uint32_t from = 0; from < waits; from += c->cap) {
        uint32_t to = MIN(from + c->cap, waits);
        if (to > first) {
            /* Behind one full run at least: it will be joined by those that come meanwhile. */
            double run_us = c->run_us[from ? c->cap : to - from];
            double newest = us * (1 - (double)(to - left) / n);
            double oldest = us * (1 - (double)(first - left) / n);
            tail_add(t, mass * (to - first), wait_us + newest + run_us, wait_us + oldest + run_us);
            first = to;
        }
        wait_us += full_us;
    }
}

static void state_measure(const struct chain *c, uint32_t n, double p, struct tail *t)
{
    uint32_t b = MIN(n, c->cap), left = n - b;

    if (n == 0) {
        tail_add(t, p * (1 - c->away), c->run_us[1], c->run_us[1]);
        p *= c->away;
    }
    for (uint32_t k = 0; k < c->turns[b].n; k++) {
        const struct counts *a = count_of(c, b, k);
        double us = c->turns[b].us[k];
        for (uint32_t i = a->lo; i <= a->hi; i++) {
            double mass = p * c->turns[b].part[k] * a->p[i - a->lo];
            if (mass < STATE_LEAST)
                continue;
            uint32_t over = left + i > c->most ? left + i - c->most : 0;
            over += left + i >= c->most; /* the last state stands for all above it */
            t->lost += mass * MIN(over, i);
            turn_measure(c, mass, us, left, i - MIN(over, i), t);
        }
    }
}

void chain_measure(const struct chain *c, struct tail *t, struct queue_result *ret)
{
    double runs = 0, rows = 0, held_us = 0;

    for (uint32_t n = 0; n <= c->most; n++) {
        double p = c->state[n];
        if (p <= STATE_LEAST)
            continue;
        state_measure(c, n, p, t);
        if (n > 0) {
            runs += p;
            rows += p * MIN(n, c->cap);
            held_us += p * c->hold_us[MIN(n, c->cap)];
        }
    }
    double all = t->mass + t->lost;
    ret->late = all > 0 ? fmin((t->late + t->lost) / all, 1) : 0;
    ret->p99_us = tail_quantile(t, 0.99);
    ret->mean_us = t->mass > 0 ? t->sum_us / t->mass : INFINITY;
    ret->mean_batch = runs > 0 ? rows / runs * c->flow.grain : 0;
    ret->duty = rows > 0 ? fmin(c->flow.rate * held_us / (rows * c->flow.grain), 1) : 0;
}
