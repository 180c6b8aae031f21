/* policy = all-at-once: every model runs what waits as soon as its last run is done, side by side
 * with all others on all units: processes under MPS without limits. */
#include "whole.h"

static struct batch_choice batch_next(const struct batch_view *v)
{
    struct batch_choice c;
    uint32_t best = PLAN_NONE, rows;

    if (drop_expired(v, &c))
        return c;
    for (uint32_t i = 0; i < v->n_queues; i++)
        if (can_start(v, i) && v->queue[i].n_flying == 0 &&
            (best == PLAN_NONE || v->queue[i].since_us < v->queue[best].since_us))
            best = i;
    if (best == PLAN_NONE)
        return wait_expiry(v);
    return (struct batch_choice){
        .what = BATCH_RUN, .queue = best, .take = fill(&v->queue[best], &rows)};
}

const struct policy policy_all_at_once = {
    .name = "all-at-once",
    .lanes = POLICY_LANES,
    .plan_make = whole_plan,
    .admit = open_admit,
    .route = fewest_route,
    .batch_next = batch_next,
};
