/* What the run-time sides of simple policies have in common. */
#include "whole.h"

struct admit_choice open_admit(const struct admit_view *v)
{
    if (v->n_lets == 0)
        return (struct admit_choice){.what = ADMIT_FULL, .retry_us = USEC_PER_SEC};
    if (v->n_queued >= v->queue_max)
        return (struct admit_choice){.what = ADMIT_FULL, .retry_us = v->let[0].full_us};
    return (struct admit_choice){.what = ADMIT_YES};
}

uint32_t fewest_route(const struct admit_view *v)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < v->n_lets; i++)
        if (v->let[i].n_queued < v->let[best].n_queued ||
            (v->let[i].n_queued == v->let[best].n_queued &&
             v->let[i].free_us < v->let[best].free_us))
            best = i;
    return best;
}

uint32_t weighted_route(const struct admit_view *v)
{
    uint32_t best = 0;
    double least = 0;

    for (uint32_t i = 0; i < v->n_lets; i++) {
        double part = v->let[i].part > 0 ? v->let[i].part : 1.0 / v->n_lets;
        double turns = (v->let[i].n_routed + 1.0) / part;
        if (i == 0 || turns < least) {
            best = i;
            least = turns;
        }
    }
    return best;
}

bool drop_expired(const struct batch_view *v, struct batch_choice *ret)
{
    for (uint32_t i = 0; i < v->n_queues; i++) {
        const struct queue_view *q = &v->queue[i];
        uint32_t n = MIN(q->n, BATCH_VIEW_MAX), late = 0;
        while (late < n && q->deadline_us[late] <= v->now_us)
            late++;
        if (late) {
            *ret = (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = late};
            return true;
        }
    }
    return false;
}

uint32_t fill(const struct queue_view *q, uint32_t *rows)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), i = 0;

    for (*rows = 0; i < n && *rows + q->rows[i] <= q->max_batch; i++)
        *rows += q->rows[i];
    return MAX(i, 1);
}

bool can_start(const struct batch_view *v, uint32_t i)
{
    return v->n_flying < v->max_flying && v->queue[i].n && v->queue[i].ready;
}

struct batch_choice wait_expiry(const struct batch_view *v)
{
    usec_t until_us = USEC_NEVER;

    for (uint32_t i = 0; i < v->n_queues; i++)
        if (v->queue[i].n)
            until_us = MIN(until_us, v->queue[i].deadline_us[0]);
    return (struct batch_choice){.what = BATCH_WAIT, .until_us = until_us};
}

uint32_t oldest(const struct batch_view *v)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t i = 0; i < v->n_queues; i++)
        if (can_start(v, i) &&
            (best == PLAN_NONE || v->queue[i].since_us < v->queue[best].since_us))
            best = i;
    return best;
}
