/* policy = edf: the earliest deadline first, with early drop, on devices that are not cut.
 *
 * What cannot be done in time even if it ran now is dropped.  The queue whose head is due first
 * runs, as many as do not make the head late. */
#include "whole.h"

uint32_t drop_hopeless(const struct queue_view *q, usec_t now_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), i = 0;

    while (i < n && q->deadline_us[i] != USEC_NEVER &&
           now_us + q->run_us[MIN(q->rows[i], q->max_batch)] > q->deadline_us[i])
        i++;
    return i;
}

static uint32_t take(const struct queue_view *q, usec_t now_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), rows = 0, i = 0;

    for (; i < n && rows + q->rows[i] <= q->max_batch; i++) {
        rows += q->rows[i];
        if (i > 0 && q->deadline_us[0] != USEC_NEVER &&
            now_us + q->run_us[rows] > q->deadline_us[0])
            break;
    }
    return MAX(i, 1);
}

static struct batch_choice batch_next(const struct batch_view *v)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t i = 0; i < v->n_queues; i++) {
        uint32_t late = drop_hopeless(&v->queue[i], v->now_us);
        if (late)
            return (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = late};
        if (can_start(v, i) &&
            (best == PLAN_NONE || v->queue[i].deadline_us[0] < v->queue[best].deadline_us[0]))
            best = i;
    }
    if (best == PLAN_NONE)
        return wait_expiry(v);
    return (struct batch_choice){
        .what = BATCH_RUN, .queue = best, .take = take(&v->queue[best], v->now_us)};
}

const struct policy policy_edf = {
    .name = "edf",
    .plan_make = whole_plan,
    .admit = open_admit,
    .route = fewest_route,
    .batch_next = batch_next,
};
