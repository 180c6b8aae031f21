/* When requests of best effort run: where the policy would wait, and no longer than until then.
 *
 * The policy decides over the queues of models that are promised something as if there were no
 * others.  Only when it has nothing to do does a run of best effort start: one that is over before
 * the policy wants to look again, if anybody waits, and that takes no longer than a request which
 * comes in the next moment could wait (plan_gpulet.spare_us).  Among themselves they go by
 * priority, then by who waits for longest. */
#include "plan_priv.h"

static uint32_t level(const struct queue_view *q)
{
    return q->priority > 0 ? (uint32_t)q->priority : UINT32_MAX;
}

static bool goes_before(const struct queue_view *a, const struct queue_view *b)
{
    return level(a) != level(b) ? level(a) < level(b) : a->since_us < b->since_us;
}

static bool anybody_waits(const struct batch_view *v)
{
    for (uint32_t i = 0; i < v->n_queues; i++)
        if (v->queue[i].n)
            return true;
    return false;
}

/* How many at the head cannot be in time any more. */
static uint32_t hopeless(const struct queue_view *q, usec_t now_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), i = 0;

    while (i < n && now_us + q->run_us[MIN(q->rows[i], q->max_batch)] > q->deadline_us[i])
        i++;
    return i;
}

/* How many at the head fit in a run of at most so long; 0: not even the first. */
static uint32_t fits(const struct queue_view *q, usec_t limit_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), rows = 0, i = 0;

    for (; i < n && rows + q->rows[i] <= q->max_batch; i++) {
        if (q->run_us[rows + q->rows[i]] > limit_us)
            break;
        rows += q->rows[i];
    }
    return i;
}

static struct batch_choice best_effort(const struct batch_view *v, usec_t until_us)
{
    usec_t most_us = anybody_waits(v) ? until_us - MIN(until_us, v->now_us) : USEC_NEVER;
    uint32_t best = UINT32_MAX;

    for (uint32_t i = v->n_queues; i < v->n_queues + v->n_spare; i++) {
        const struct queue_view *q = &v->queue[i];
        if (q->n == 0)
            continue;
        uint32_t late = hopeless(q, v->now_us);
        if (late)
            return (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = late};
        until_us = MIN(until_us, q->deadline_us[0]);
        if (q->ready && fits(q, MIN(q->spare_us, most_us)) &&
            (best == UINT32_MAX || goes_before(q, &v->queue[best])))
            best = i;
    }
    if (best == UINT32_MAX || v->n_flying >= v->max_flying)
        return (struct batch_choice){.what = BATCH_WAIT, .until_us = until_us};
    return (struct batch_choice){.what = BATCH_RUN,
                                 .queue = best,
                                 .take =
                                     fits(&v->queue[best], MIN(v->queue[best].spare_us, most_us))};
}

struct batch_choice next_now(const struct policy *policy, const struct batch_view *v)
{
    struct batch_choice c = policy->batch_next(v);

    return c.what == BATCH_WAIT && v->n_spare ? best_effort(v, c.until_us) : c;
}
