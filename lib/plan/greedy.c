/* The run-time half of the first policies: admit what is predicted to finish in time, route to
 * the earliest finish, never let a gpu-let idle while something waits.
 *
 * Several models of a gpu-let take turns, whoever waits for longest, unless that would make
 * somebody late: in turns everybody's batch has a whole cycle to grow, whereas by the earliest
 * deadline a model with a tight one runs row by row and leaves no time for the others.
 *
 * In a gpu-let that the plan has given the order `deadline` it is the first deadline instead: there
 * the planner has rehearsed that this serves more (choose.c).
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

#define PART_SLACK 4   /* requests beyond its part, so that gaps even out */
#define LOUD_PART 0.75 /* of the slack: see leaves_room() */
#define EARLY_PART 32  /* see sure_us() */

/* In a gpu-let that is not asked to keep promises what waits of other models need not go before
 * this request: only what cannot be in time whatever is done is refused, and batch_next() drops
 * what has become hopeless. */
static usec_t finish_us(const struct admit_view *v, uint32_t i)
{
    const struct let_view *l = &v->let[i];
    usec_t free_us = MAX(v->now_us, l->free_us), start_us = free_us - MIN(free_us, l->own_us);

    if (l->shared && l->order != ORDER_TURNS)
        start_us = MIN(start_us, l->lanes_us);
    return MAX(v->now_us, start_us) + l->mine_us;
}

/* By when it is sure to be done.  Each run begins a little later than predicted, since an executor
 * does not wake up to the microsecond.  Were requests accepted up to the last moment, under
 * overload one of those would always be at the head of the queue and keep the next run small
 * (take()), those behind it would wait for more runs than predicted, and so on: several per cent of
 * what is served. */
static usec_t sure_us(const struct admit_view *v, uint32_t i)
{
    usec_t done_us = finish_us(v, i);

    return done_us + (done_us - v->now_us) / EARLY_PART;
}

/* A gpu-let that other models share has had its part of the requests: more would be at the cost of
 * those others, whom the plan has promised the rest of it. */
static bool had_its_part(const struct admit_view *v, uint32_t i)
{
    double all = 0, parts = 0; /* less than 1 where a gpu-let is lost */

    if (!v->let[i].shared || v->let[i].part <= 0)
        return false;
    for (uint32_t k = 0; k < v->n_lets; k++) {
        all += v->let[k].n_routed;
        parts += v->let[k].part;
    }
    return v->let[i].n_routed > v->let[i].part / parts * all + PART_SLACK;
}

/* Others wait, or would soon, unless it is idle and has been for as long as a run takes: under load
 * idle moments are shorter, and who fills them is in the way of who comes next.  Turns do not help:
 * what a queue of long runs makes late is refused, and then nobody seems to wait. */
static bool others_pay(const struct admit_view *v, const struct let_view *l)
{
    usec_t start_us = MAX(v->now_us, l->lanes_us);

    return l->shared && (l->free_us > start_us || v->now_us < l->lanes_us + l->full_us);
}

/* Where a gpu-let has had its part and another one is late, this one takes more; but not of who is
 * loud, at the cost of others: all would be loud, and who has the shortest SLO would have less. */
static bool takes_more(const struct admit_view *v, uint32_t i)
{
    return !v->loud || !others_pay(v, &v->let[i]);
}

/* The earliest finish, of those that have not had their part or of all that take more; PLAN_NONE:
 * there is none. */
static uint32_t earliest(const struct admit_view *v, bool of_all)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t i = 0; i < v->n_lets; i++) {
        if (had_its_part(v, i) && !(of_all && takes_more(v, i)))
            continue;
        usec_t us = finish_us(v, i), best_us = best == PLAN_NONE ? 0 : finish_us(v, best);
        if (best == PLAN_NONE || us < best_us ||
            (us == best_us && v->let[i].n_queued < v->let[best].n_queued))
            best = i;
    }
    return best;
}

uint32_t greedy_route(const struct admit_view *v)
{
    uint32_t best = earliest(v, false);

    if (best != PLAN_NONE && sure_us(v, best) <= v->deadline_us)
        return best;
    best = earliest(v, true);
    assert(best != PLAN_NONE); /* they cannot all have had more than their part */
    return best;
}

struct admit_choice greedy_admit(const struct admit_view *v)
{
    if (v->n_lets == 0)
        return (struct admit_choice){.what = ADMIT_FULL, .retry_us = USEC_PER_SEC};

    uint32_t i = greedy_route(v);
    usec_t done_us = sure_us(v, i);
    bool may_hold = v->let[i].free_us <= v->now_us && v->let[i].n_queued == 0 &&
                    v->now_us + v->let[i].least_us <= v->deadline_us;
    if (v->n_queued >= v->queue_max) /* a batch's worth of room is free after its next run */
        return (struct admit_choice){.what = ADMIT_FULL, .retry_us = v->let[i].full_us};
    if (done_us > v->deadline_us && !may_hold)
        return (struct admit_choice){.what = ADMIT_LATE, .retry_us = done_us - v->deadline_us};
    return (struct admit_choice){.what = ADMIT_YES};
}

/* What waits is still so little that a request of any of its models would be in time behind it. */
static bool leaves_room(const struct admit_view *v, const struct let_view *l)
{
    usec_t all_us = MAX(l->free_us, v->now_us) - v->now_us;

    return (double)(all_us - MIN(all_us, l->own_us) + l->mine_us) <=
           LOUD_PART * (double)l->slack_us;
}

/* What is beyond a model's allowance is served while that is at nobody's cost; where all are
 * beyond, nobody is to be kept from the others, and what has room is served. */
struct admit_choice fair_admit(const struct admit_view *v)
{
    if (v->beyond && v->n_lets > 0) {
        uint32_t i = greedy_route(v);
        const struct let_view *l = &v->let[i];
        if (others_pay(v, l) && (l->meek || !leaves_room(v, l)))
            return (struct admit_choice){.what = ADMIT_BEYOND, .retry_us = l->full_us};
    }
    return greedy_admit(v);
}

static uint32_t n_seen(const struct queue_view *q)
{
    return MIN(q->n, BATCH_VIEW_MAX);
}

/* Requests from `from` on, of the first n, that cannot be done in time even if they run now. */
static uint32_t hopeless(const struct queue_view *q, uint32_t from, uint32_t n, usec_t now_us)
{
    uint32_t i = from;

    while (i < n && now_us + q->run_us[MIN(q->rows[i], q->max_batch)] > q->deadline_us[i])
        i++;
    return i - from;
}

/* How many requests from `from` on, of the first n, go into one run: rows within max_batch, and
 * nobody among them made late by those that join.  *squeezed: there would be more, but for
 * somebody's deadline. */
static uint32_t take(const struct queue_view *q, uint32_t from, uint32_t n, usec_t now_us,
                     uint32_t *rows, bool *squeezed)
{
    uint32_t i = from;
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

/* How many of the first n will have been dropped if the first `drop` are, and all that follows is
 * run as it fits. */
static uint32_t dropped_after(const struct queue_view *q, uint32_t drop, uint32_t n, usec_t now_us)
{
    uint32_t dropped = drop, rows;
    bool squeezed;

    for (uint32_t i = drop; i < n;) {
        uint32_t late = hopeless(q, i, n, now_us);
        dropped += late;
        i += late;
        if (i >= n)
            break;
        i += take(q, i, n, now_us, &rows, &squeezed);
        now_us += q->run_us[MIN(rows, q->max_batch)];
    }
    return dropped;
}

/* A run that is kept small to save the oldest makes all others wait for more runs, and once that
 * has begun it does not end: small runs only, everybody nearly late (why Nexus, SOSP'19, drops
 * early).  How many at the head to give up, so that the next run is not squeezed: only if fewer of
 * those that wait are dropped in the end, or if a full run waits behind them and more come into it
 * than are given up.  Then time is short, and who is not dropped for it is refused for it.  Nobody
 * is given up for those of a lower priority. */
static uint32_t give_up(const struct queue_view *q, usec_t now_us)
{
    uint32_t n = q->n_alike ? MIN(q->n_alike, n_seen(q)) : n_seen(q), drop = 0, rows;
    bool squeezed;
    uint32_t small = take(q, 0, n, now_us, &rows, &squeezed), whole = small;

    while (squeezed && ++drop < n)
        whole = take(q, drop, n, now_us, &rows, &squeezed);
    if (drop == 0 || (n - drop >= q->max_batch && drop + small < whole))
        return drop;
    return dropped_after(q, drop, n, now_us) < dropped_after(q, 0, n, now_us) ? drop : 0;
}

static uint32_t level(const struct queue_view *q)
{
    return q->priority > 0 ? (uint32_t)q->priority : UINT32_MAX;
}

/* Does queue a go before queue b?  By priority (1 first, 0 last), then by the order. */
static bool goes_before(const struct queue_view *a, const struct queue_view *b,
                        enum plan_order order)
{
    if (level(a) != level(b))
        return level(a) < level(b);
    return order == ORDER_DEADLINE ? a->deadline_us[0] < b->deadline_us[0]
                                   : a->since_us < b->since_us;
}

/* A run of what waits, up to a full one. */
static usec_t next_run_us(const struct queue_view *q)
{
    uint32_t n = n_seen(q), rows = 0;

    for (uint32_t i = 0; i < n && rows < q->max_batch; i++)
        rows += q->rows[i];
    return q->run_us[MIN(rows, q->max_batch)];
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
 * it, in full runs, and there is to spare a quarter of its own and a sixteenth of the time it had:
 * an executor does not wake up to the microsecond. */
static usec_t last_start_us(const struct batch_view *v, uint32_t i)
{
    const struct queue_view *q = &v->queue[i];
    usec_t need_us = q->run_us[q->max_batch] / 4;

    if (q->n && q->deadline_us[0] > q->since_us && q->deadline_us[0] != USEC_NEVER)
        need_us += (q->deadline_us[0] - q->since_us) / 16;

    for (uint32_t j = 0; j < v->n_queues; j++)
        if (v->queue[j].n || j == i)
            need_us += v->queue[j].run_us[v->queue[j].max_batch];
    if (q->n >= q->max_batch || q->deadline_us[0] == USEC_NEVER || q->deadline_us[0] < need_us)
        return 0;
    return q->deadline_us[0] - need_us;
}

static bool may_start(const struct batch_view *v, uint32_t i, enum plan_order order)
{
    const struct queue_view *q = &v->queue[i];

    return q->n && q->ready && (order != ORDER_DEFERRED || last_start_us(v, i) <= v->now_us);
}

/* Nothing to start: look again when somebody is due or, where nothing can start (an exe is being
 * compiled), late. */
static struct batch_choice wait(const struct batch_view *v, enum plan_order order)
{
    usec_t until_us = USEC_NEVER;

    for (uint32_t i = 0; i < v->n_queues; i++) {
        const struct queue_view *q = &v->queue[i];
        bool waits = order == ORDER_DEFERRED && q->ready && v->n_flying < v->max_flying;
        if (q->n)
            until_us = MIN(until_us, waits ? last_start_us(v, i) : q->deadline_us[0]);
    }
    return (struct batch_choice){.what = BATCH_WAIT, .until_us = until_us};
}

/* Queue `next` would make the first of another one late that can still be answered in time: that
 * one goes first. */
static uint32_t urgent(const struct batch_view *v, uint32_t next, enum plan_order order)
{
    usec_t done_us = v->now_us + next_run_us(&v->queue[next]);
    uint32_t best = next;

    for (uint32_t i = 0; i < v->n_queues; i++) {
        const struct queue_view *q = &v->queue[i];
        if (i == next || !may_start(v, i, order) || level(q) > level(&v->queue[next]))
            continue;
        usec_t run_us = next_run_us(q);
        if (done_us + run_us > q->deadline_us[0] && v->now_us + run_us <= q->deadline_us[0] &&
            q->deadline_us[0] < v->queue[best].deadline_us[0])
            best = i;
    }
    return best;
}

static struct batch_choice run(const struct batch_view *v, uint32_t i)
{
    bool squeezed;
    const struct queue_view *q = &v->queue[i];
    uint32_t rows, n = take(q, 0, n_seen(q), v->now_us, &rows, &squeezed);
    uint32_t drop = squeezed ? give_up(q, v->now_us) : 0;

    if (drop)
        return (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = drop};
    return (struct batch_choice){.what = BATCH_RUN, .queue = i, .take = n};
}

static struct batch_choice choose(const struct batch_view *v, enum plan_order order)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < v->n_queues; i++) {
        const struct queue_view *q = &v->queue[i];
        uint32_t late = hopeless(q, 0, n_seen(q), v->now_us);
        if (late == 1 && q->n == 1 && q->ready && may_try(v, i))
            late = 0;
        if (late)
            return (struct batch_choice){.what = BATCH_DROP, .queue = i, .take = late};
        if (may_start(v, i, order) &&
            (best == UINT32_MAX || goes_before(q, &v->queue[best], order)))
            best = i;
    }
    if (best == UINT32_MAX || v->n_flying >= v->max_flying)
        return wait(v, order);
    bool turns = v->n_queues > 1 && order != ORDER_DEADLINE;
    return run(v, turns ? urgent(v, best, order) : best);
}

struct batch_choice greedy_batch_next(const struct batch_view *v)
{
    return choose(v, ORDER_TURNS);
}

struct batch_choice patient_batch_next(const struct batch_view *v)
{
    return choose(v, ORDER_DEFERRED);
}

struct batch_choice ordered_batch_next(const struct batch_view *v)
{
    return choose(v, v->order);
}
