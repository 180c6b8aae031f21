/* The next run goes ahead: it is handed over while the one before it is nearly over, and the device
 * starts it at that end by itself (adr/0027).
 *
 * What goes ahead is what the policy would start at that end, by what is known now: it is shown the
 * view of that moment, in which nothing runs.  So a batch that it would let wait then is not begun
 * sooner, and no policy knows of all this.  One run goes ahead, never two: a batch in the device's
 * queue cannot grow any more.  The time for it begins sooner where inputs travel for long.
 *
 * Best effort does not go ahead: who comes in that time would have been before it. */
#include "plan_priv.h"

/* From when on a run of this queue may go ahead. */
static usec_t opens_us(const struct batch_view *v, const struct queue_view *q)
{
    return v->busy_until_us - MIN(v->busy_until_us, v->ahead_us + q->inputs_us);
}

static usec_t first_opens_us(const struct batch_view *v)
{
    usec_t us = USEC_NEVER;

    for (uint32_t i = 0; i < v->n_queues; i++)
        if (v->queue[i].n && v->queue[i].ready)
            us = MIN(us, opens_us(v, &v->queue[i]));
    return us;
}

static struct batch_choice too_early(const struct policy *policy, const struct batch_view *v,
                                     usec_t from_us)
{
    struct batch_choice c = next_now(policy, v);

    if (c.what == BATCH_WAIT)
        c.until_us = MIN(c.until_us, from_us);
    return c;
}

static struct batch_choice next_ahead(const struct policy *policy, const struct batch_view *v)
{
    struct batch_view end = *v;
    usec_t from_us = first_opens_us(v);

    if (v->now_us < from_us)
        return too_early(policy, v, from_us);
    end.now_us = MAX(v->now_us, v->busy_until_us);
    end.n_flying = 0;
    end.n_spare = 0;
    struct batch_choice c = policy->batch_next(&end);
    if (c.what != BATCH_RUN)
        return c;
    from_us = opens_us(v, &v->queue[c.queue]); /* another one's inputs may travel for longer */
    return v->now_us < from_us ? too_early(policy, v, from_us) : c;
}

struct batch_choice policy_next(const struct policy *policy, const struct batch_view *v)
{
    bool ahead = v->ahead_us > 0 && v->max_flying == 1 && v->n_flying == 1;

    return ahead ? next_ahead(policy, v) : next_now(policy, v);
}
