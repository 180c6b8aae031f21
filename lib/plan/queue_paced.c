/* One paced share alone: its runs fall into a cycle, which is walked through. */
#include "queue_priv.h"

#include <math.h>

#define SETTLE 64 /* runs before and */
#define WALK 192  /* runs that are measured */

void paced_measure(const struct part *p, struct tail *t, struct queue_result *ret)
{
    const struct queue_share *s = p->s;
    const double *hold_us = p->hold_us;
    double gap_us = 1e6 / fmax(s->rate_rps, 1e-6), free_us = 0, next = 0, rows = 0, held_us = 0;

    for (uint32_t i = 0; i < SETTLE + WALK; i++) {
        double start_us = fmax(free_us, next * gap_us); /* requests 0, 1, .. come at i * gap */
        double waits = floor(start_us / gap_us + 1e-9) + 1 - next;
        double take = fmin(fmax(waits, 1), s->cap);
        double done_us = start_us + s->run_us[(uint32_t)take];
        free_us = start_us + hold_us[(uint32_t)take];
        if (i >= SETTLE) {
            for (double k = 0; k < take; k++)
                tail_add(t, 1, done_us - (next + k) * gap_us - 1e-6,
                         done_us - (next + k) * gap_us - 1e-6);
            rows += take;
            held_us += hold_us[(uint32_t)take];
        }
        next += take;
    }
    ret->late = t->late / t->mass;
    ret->p99_us = tail_quantile(t, 0.99);
    ret->mean_us = t->sum_us / t->mass;
    ret->mean_batch = rows / WALK;
    ret->duty = fmin(held_us / (rows * gap_us), 1);
}
