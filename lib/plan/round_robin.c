/* policy = round-robin: models take turns on devices that are not cut.
 *
 * A turn lasts for slice_part of the SLO of what waits (0: one run), in runs of what is there; who
 * has nothing is passed over.  The next turn is that of the model whose last one lies furthest
 * back. */
#include "whole.h"

/* Whose turn it is: the one that began last. */
static uint32_t holder(const struct batch_view *v)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t i = 0; i < v->n_queues; i++)
        if (v->queue[i].turn_us &&
            (best == PLAN_NONE || v->queue[i].turn_us > v->queue[best].turn_us))
            best = i;
    return best;
}

static bool turn_goes_on(const struct batch_view *v, uint32_t i)
{
    const struct queue_view *q = &v->queue[i];

    if (!can_start(v, i) || q->deadline_us[0] == USEC_NEVER)
        return false;
    double slice_us = v->tuning.slice_part * (double)(q->deadline_us[0] - q->since_us);
    return (double)(v->now_us - q->turn_us) < slice_us;
}

static uint32_t next_turn(const struct batch_view *v)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t i = 0; i < v->n_queues; i++)
        if (can_start(v, i) && (best == PLAN_NONE || v->queue[i].turn_us < v->queue[best].turn_us))
            best = i;
    return best;
}

static struct batch_choice batch_next(const struct batch_view *v)
{
    struct batch_choice c;
    uint32_t i = holder(v), rows;

    if (drop_expired(v, &c))
        return c;
    if (i == PLAN_NONE || !turn_goes_on(v, i))
        i = next_turn(v);
    if (i == PLAN_NONE)
        return wait_expiry(v);
    return (struct batch_choice){.what = BATCH_RUN, .queue = i, .take = fill(&v->queue[i], &rows)};
}

const struct policy policy_round_robin = {
    .name = "round-robin",
    .plan_make = whole_plan,
    .admit = open_admit,
    .route = fewest_route,
    .batch_next = batch_next,
};
