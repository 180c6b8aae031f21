/* policy = max-delay: dynamic batching with so many instances of each model, as Triton does, on
 * devices that are not cut.
 *
 * A batch starts on a free instance when it is full or its oldest request has waited for the
 * delay (a part of its SLO here, as the models of a mix differ).  Instances of all models run side
 * by side on all units.  With a delay of 0 it takes what is there: iGniter's server, too. */
#include "whole.h"

static usec_t due_us(const struct batch_view *v, const struct queue_view *q)
{
    uint32_t rows;

    (void)fill(q, &rows);
    if (rows >= q->max_batch || q->deadline_us[0] == USEC_NEVER)
        return q->since_us;
    return q->since_us + (usec_t)(v->tuning.delay_part * (double)(q->deadline_us[0] - q->since_us));
}

struct batch_choice max_delay_batch_next(const struct batch_view *v)
{
    struct batch_choice c;
    uint32_t best = PLAN_NONE, rows, instances = MAX(v->tuning.instances, 1u);
    usec_t best_us = 0, until_us = USEC_NEVER;

    if (drop_expired(v, &c))
        return c;
    for (uint32_t i = 0; i < v->n_queues; i++) {
        if (!can_start(v, i) || v->queue[i].n_flying >= instances)
            continue;
        usec_t us = due_us(v, &v->queue[i]);
        until_us = MIN(until_us, us);
        if (us <= v->now_us && (best == PLAN_NONE || us < best_us)) {
            best = i;
            best_us = us;
        }
    }
    if (best != PLAN_NONE)
        return (struct batch_choice){
            .what = BATCH_RUN, .queue = best, .take = fill(&v->queue[best], &rows)};
    c = wait_expiry(v);
    c.until_us = MIN(c.until_us, until_us);
    return c;
}

const struct policy policy_max_delay = {
    .name = "max-delay",
    .lanes = POLICY_LANES,
    .plan_make = whole_plan,
    .admit = open_admit,
    .route = fewest_route,
    .batch_next = max_delay_batch_next,
};
