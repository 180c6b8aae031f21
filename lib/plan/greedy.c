/* The run-time half of the first policies: admit what is predicted to finish in time, route to
 * the earliest finish, never let a gpu-let idle while something waits.
 *
 * greedy is work-conserving: a batch holds what waits at the moment the gpu-let comes free; it is
 * never delayed to grow.  patient starts a batch when it is full or when its oldest request has no
 * more time to spare.  Replayed on random
 * gpu-lets patient is late no more often and holds the gpu-let half as long at low load, which its
 * neighbours and the power feel; the price is the time to spare: answers come late in their SLO.
 *
 * Predictions follow what runs take, so a prediction that refuses everything would never be put
 * right.  Therefore an idle gpu-let takes a request that is predicted to be late if the fastest run
 * so far would make it, and runs it unless something else waits. */
#include "plan_priv.h"

static usec_t finish_us(const struct admit_view *v, uint32_t i)
{
    return MAX(v->now_us, v->let[i].free_us) + v->let[i].run_us;
}

uint32_t greedy_route(const struct admit_view *v)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < v->n_lets; i++) {
        usec_t us = finish_us(v, i), best_us = finish_us(v, best);
        if (us < best_us || (us == best_us && v->let[i].n_queued < v->let[best].n_queued))
            best = i;
    }
    return best;
}

struct admit_choice greedy_admit(const struct admit_view *v)
{
    if (v->n_lets == 0)
        return (struct admit_choice){.what = ADMIT_FULL, .retry_us = USEC_PER_SEC};

    uint32_t i = greedy_route(v);
    usec_t done_us = finish_us(v, i);
    bool may_hold = v->let[i].free_us <= v->now_us && v->let[i].n_queued == 0 &&
                    v->now_us + v->let[i].least_us <= v->deadline_us;
    if (v->n_queued >= v->queue_max) /* a batch's worth of room is free after its next run */
        return (struct admit_choice){.what = ADMIT_FULL, .retry_us = v->let[i].full_us};
    if (done_us > v->deadline_us && !may_hold)
        return (struct admit_choice){.what = ADMIT_LATE, .retry_us = done_us - v->deadline_us};
    return (struct admit_choice){.what = ADMIT_YES};
}

/* Requests from `from` on that cannot be done in time even if they run now. */
static uint32_t hopeless(const struct queue_view *q, uint32_t from, usec_t now_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), i = from;

    while (i < n && now_us + q->run_us[MIN(q->rows[i], q->max_batch)] > q->deadline_us[i])
        i++;
    return i - from;
}

/* How many requests from `from` on go into one run: rows within max_batch, and nobody among them
 * made late by those that join.  *squeezed: there would be more, but for somebody's deadline. */
static uint32_t take(const struct queue_view *q, uint32_t from, usec_t now_us, uint32_t *rows,
                     bool *squeezed)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), i = from;
    usec_t least_us = USEC_NEVER;

    *rows = 0;
    *squeezed = false;
    for (; i < n && *rows + q->rows[i] <= q->max_batch; i++) {
        usec_t deadline_us = MIN(least_us, q->deadline_us[i]);
        if (i > from && now_us + q->run_us[*rows + q->rows[i]] > deadline_us) {
            *squeezed = true;
            break;
        }
        least_us = deadline_us;
        *rows += q->rows[i];
    }
    return MAX(i - from, 1);
}

/* How many of those that wait will have been dropped if the first `drop` are, and all that follows
 * is run as it fits. */
static uint32_t dropped_after(const struct queue_view *q, uint32_t drop, usec_t now_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), dropped = drop, rows;
    bool squeezed;

    for (uint32_t i = drop; i < n;) {
        uint32_t late = hopeless(q, i, now_us);
        dropped += late;
        i += late;
        if (i >= n)
            break;
        i += take(q, i, now_us, &rows, &squeezed);
        now_us += q->run_us[MIN(rows, q->max_batch)];
    }
    return dropped;
}

/* A run that is kept small to save the oldest makes all others wait for more runs, and once that
 * has begun it does not end: small runs only, everybody nearly late (why Nexus, SOSP'19, drops
 * early).  How many at the head to give up, so that the next run is not squeezed: only if fewer of
 * those that wait are dropped in the end. */
static uint32_t give_up(const struct queue_view *q, usec_t now_us)
{
    uint32_t n = MIN(q->n, BATCH_VIEW_MAX), drop = 0, rows;
    bool squeezed = true;

    while (squeezed && drop < n) {
        (void)take(q, drop, now_us, &rows, &squeezed);
        drop += squeezed;
    }
    return dropped_after(q, drop, now_us) < dropped_after(q, 0, now_us) ? drop : 0;
}

/* Does queue a go before queue b?  By priority (1 first, 0 last), then the earlier deadline. */
static bool goes_before(const struct queue_view *a, const struct queue_view *b)
{
    uint32_t level_a = a->priority > 0 ? (uint32_t)a->priority : UINT32_MAX;
    uint32_t level_b = b->priority > 0 ? (uint32_t)b->priority : UINT32_MAX;

    return level_a != level_b ? level_a < level_b : a->deadline_us[0] < b->deadline_us[0];
}

/* Only this queue waits, nothing runs, and the fastest run so far would make its deadline. */
static bool may_try(const struct batch_view *v, uint32_t i)
{
    for (uint32_t j = 0; j < v->n_queues; j++)
        if (j != i && v->queue[j].n)
            return false;
    return v->n_flying == 0 && v->now_us + v->queue[i].least_us <= v->queue[i].deadline_us[0];
}

/* When queue i should start at the latest: all that waits in this gpu-let may have to run before
 * it, in full runs, and there is a quarter of its own to spare. */
static usec_t last_start_us(const struct batch_view *v, uint32_t i)
{
    const struct queue_view *q = &v->queue[i];
    usec_t need_us = q->run_us[q->max_batch] / 4;

    for (uint32_t j = 0; j < v->n_queues; j++)
        if (v->queue[j].n || j == i)
            need_us += v->queue[j].run_us[v->queue[j].max_batch];
    if (q->n >= q->max_batch || q->deadline_us[0] == USEC_NEVER || q->deadline_us[0] < need_us)
        return 0;
    return q->deadline_us[0] - need_us;
}

static bool may_start(const struct batch_view *v, uint32_t i, bool patient)
{
    const struct queue_view *q = &v->queue[i];

    return q->n && q->ready && (!patient || last_start_us(v, i) <= v->now_us);
}

/* Nothing to start: look again when somebody is due or, where nothing can start (an exe is being
 * compiled), late. */
static struct batch_choice wait(const struct batch_view *v, bool patient)
{
    usec_t until_us = USEC_NEVER;

    for (uint32_t i = 0; i < v->n_queues; i++) {
        const struct queue_view *q = &v->queue[i];
        bool waits = patient && q->ready && v->n_flying < v->max_flying;
        if (q->n)
            until_us = MIN(until_us, waits ? last_start_us(v, i) : q->deadline_us[0]);
    }
    return (struct batch_choice){.what = BATCH_WAIT, .until_us = until_us};
}

static struct batch_choice run(const struct batch_view *v, uint32_t i)
{
    bool squeezed;
    uint32_t rows, n = take(&v->queue[i], 0, v->now_us, &rows, &squeezed);
    uint32_t drop = squeezed ? give_up(&v->queue[i], v->now_us) : 0;

    if (drop)
        return (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = drop};
    return (struct batch_choice){.what = BATCH_RUN, .queue = i, .take = n};
}

static struct batch_choice choose(const struct batch_view *v, bool patient)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < v->n_queues; i++) {
        const struct queue_view *q = &v->queue[i];
        uint32_t late = q->n ? hopeless(q, 0, v->now_us) : 0;
        if (late == 1 && q->n == 1 && q->ready && may_try(v, i))
            late = 0;
        if (late)
            return (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = late};
        if (may_start(v, i, patient) && (best == UINT32_MAX || goes_before(q, &v->queue[best])))
            best = i;
    }
    return best == UINT32_MAX || v->n_flying >= v->max_flying ? wait(v, patient) : run(v, best);
}

struct batch_choice greedy_batch_next(const struct batch_view *v)
{
    return choose(v, false);
}

struct batch_choice patient_batch_next(const struct batch_view *v)
{
    return choose(v, true);
}
