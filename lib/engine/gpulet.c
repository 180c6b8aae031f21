/* A gpu-let: a partition, and the executor thread that alone submits to it.
 *
 * Each turn the executor takes what finished, copies what waits into views under the lock, asks
 * the policy what to do now, and does that one thing.  Between view and deed the lock is open: a
 * request may be withdrawn, a key evicted (g->gen tells) or an exe compiled; the deed looks again
 * and does less, never something else.
 *
 * A lost partition (loss.c): what was in flight fails, the executor sleeps on a condition
 * variable instead of in the backend, keeps dropping what gets late, and the builder replaces the
 * partition under it.  Kicks take part_lock, so that no kick meets a partition being closed. */
#include "engine_priv.h"

#include <stdio.h>

#define LATELY_US (2 * USEC_PER_SEC)

/* ---- predicted work; under g->lock */
static usec_t run_us(const struct seat *s, const struct keyq *q, uint32_t rows)
{
    return (q ? q->bucket_us : s->bucket_us)[bucket_of(rows, s->max_batch)];
}

static usec_t least_us(const struct seat *s, const struct keyq *q, uint32_t rows)
{
    return (q ? q->least_us : s->least_us)[bucket_of(rows, s->max_batch)];
}

/* What a request adds to the work that waits: its part of a full batch, as it will be joined. */
static usec_t work_us(const struct seat *s, const struct keyq *q, uint32_t rows)
{
    usec_t full = run_us(s, q, s->batch) * rows / s->batch;

    return MIN(full, run_us(s, q, rows));
}

/* Has another model of the gpu-let been asked for lately?  Where none has, nobody is disturbed. */
static bool has_neighbours(const struct seat *s, usec_t now_us)
{
    return s->shared && s->g->others_us + LATELY_US > now_us;
}

/* The seat is asked for. */
static void asked(struct seat *s, usec_t now_us)
{
    struct gpulet *g = s->g;

    if (s->best_effort)
        return;
    if (g->asked_seat != s) {
        g->others_us = g->asked_us;
        g->asked_seat = s;
    }
    g->asked_us = now_us;
    if (demand_meek(s->l, now_us))
        g->meek_us = now_us;
}

static void look_locked(struct seat *s, const struct keyq *q, uint32_t rows, usec_t now_us,
                        struct let_view *ret)
{
    struct gpulet *g = s->g;

    usec_t before_us = g->work_us - (s->best_effort ? 0 : g->spare_work_us);
    usec_t full_us = run_us(s, q, s->batch);
    uint32_t all = rows + (q ? q->rows : 0), batch = MAX(s->batch, rows);

    *ret = (struct let_view){.free_us = MAX(now_us, g->busy_until_us) + before_us,
                             .lanes_us = g->busy_until_us,
                             .own_us = q ? q->work_us : 0,
                             .mine_us = mine_us(all, batch, run_us(s, q, MIN(all, batch)), full_us),
                             .least_us = least_us(s, q, rows),
                             .full_us = full_us,
                             .n_queued = s->n_queued,
                             .n_routed = s->n_routed,
                             .part = s->part,
                             .shared = has_neighbours(s, now_us),
                             .meek = g->meek_us + MEEK_US > now_us,
                             .slack_us = g->slack_us,
                             .order = g->order};
}

void gpulet_look(struct seat *s, const struct shape_key *key, uint32_t rows, usec_t now_us,
                 struct let_view *ret)
{
    (void)pthread_mutex_lock(&s->g->lock);
    asked(s, now_us);
    look_locked(s, key ? keyq_find(s, key) : NULL, rows, now_us, ret);
    (void)pthread_mutex_unlock(&s->g->lock);
}

/* ---- queues; under g->lock */
/* 1 goes first; a request without a priority has its model's, and goes last without one. */
static uint32_t level(const struct seat *s, const struct request *r)
{
    int32_t priority = r->priority ? r->priority : s->priority;

    return priority > 0 ? (uint32_t)priority : UINT32_MAX;
}

/* Of what comes first, which no other request goes before. */
static int32_t urgency(const struct keyq *q)
{
    return q->head->priority ? q->head->priority : q->seat->priority;
}

static void work_add(struct keyq *q, const struct request *r)
{
    struct seat *s = q->seat;
    usec_t us = r->work_us;

    q->n++;
    q->rows += r->rows;
    q->work_us += us;
    s->work_us += us;
    s->g->work_us += us;
    s->g->spare_work_us += s->best_effort ? us : 0;
}

static void work_sub(struct keyq *q, const struct request *r)
{
    struct seat *s = q->seat;
    usec_t us = r->work_us;

    q->n--;
    q->rows -= r->rows;
    q->work_us -= us;
    s->work_us -= us;
    s->g->work_us -= us;
    s->g->spare_work_us -= s->best_effort ? us : 0;
}

void seat_class(struct seat *s, bool best_effort, usec_t spare_us)
{
    if (s->best_effort != best_effort)
        s->g->spare_work_us += best_effort ? s->work_us : -s->work_us;
    s->best_effort = best_effort;
    s->spare_us = spare_us;
}

static void waiting_add(struct seat *s)
{
    struct gpulet *g = s->g;

    s->next_waiting = NULL;
    s->at_waiting = g->waiting_tail;
    *g->waiting_tail = s;
    g->waiting_tail = &s->next_waiting;
}

static void waiting_sub(struct seat *s)
{
    *s->at_waiting = s->next_waiting;
    *(s->next_waiting ? &s->next_waiting->at_waiting : &s->g->waiting_tail) = s->at_waiting;
}

static void enqueue(struct keyq *q, struct request *r)
{
    struct seat *s = q->seat;

    r->queue = q;
    r->gpulet = s->g;
    r->work_us = work_us(s, q, r->rows);
    r->prev = q->tail;
    while (r->prev && level(s, r->prev) > level(s, r))
        r->prev = r->prev->prev;
    r->next = r->prev ? r->prev->next : q->head;
    *(r->prev ? &r->prev->next : &q->head) = r;
    *(r->next ? &r->next->prev : &q->tail) = r;
    q->used = ++s->g->turn;
    if (s->n_queued++ == 0)
        waiting_add(s);
    work_add(q, r);
    (void)atomic_fetch_add(&s->g->n_queued, 1);
}

/* Back to where it was: counts as before. */
static void enqueue_first(struct keyq *q, struct request *r)
{
    struct request *second = q->head, *tail = q->tail;

    q->head = q->tail = NULL;
    enqueue(q, r);
    if (second) {
        r->next = second;
        second->prev = r;
        q->tail = tail;
    }
    (void)atomic_fetch_add(&q->seat->l->n_queued, 1);
}

static void dequeue(struct request *r)
{
    struct keyq *q = r->queue;
    struct seat *s = q->seat;

    *(r->prev ? &r->prev->next : &q->head) = r->next;
    *(r->next ? &r->next->prev : &q->tail) = r->prev;
    r->queue = NULL;
    r->next = r->prev = NULL;
    if (--s->n_queued == 0)
        waiting_sub(s);
    work_sub(q, r);
    (void)atomic_fetch_sub(&s->g->n_queued, 1);
    (void)atomic_fetch_sub(&s->l->n_queued, 1);
}

/* Takes n requests from the head, linked by next. */
static struct request *dequeue_first(struct keyq *q, uint32_t n)
{
    struct request *first = NULL, **at = &first;

    for (; n > 0 && q->head; n--) {
        *at = q->head;
        dequeue(*at);
        at = &(*at)->next;
    }
    return first;
}

/* Everything that waits, linked by next. */
struct request *gpulet_empty(struct gpulet *g)
{
    struct request *first = NULL, **at = &first;

    (void)pthread_mutex_lock(&g->lock);
    for (struct seat *s = g->seats; s; s = s->next)
        for (struct keyq *q = s->keys; q; q = q->next) {
            *at = dequeue_first(q, q->n);
            while (*at)
                at = &(*at)->next;
        }
    (void)pthread_mutex_unlock(&g->lock);
    return first;
}

/* ---- hand-over 1; http threads */
static int refuse(struct request *r, enum refusal refusal, usec_t retry_us, const char *why)
{
    r->refusal = refusal;
    r->retry_us = MAX(retry_us, USEC_PER_MSEC);
    return err_set(&r->err, -EAGAIN, "%s", why);
}

static int push_locked(struct seat *s, struct keyq *q, struct request *r, uint32_t queue_max,
                       usec_t now_us, struct gpulet **ret_kick)
{
    struct let_view let;

    if (s->g->gone)
        return refuse(r, REFUSED_LOST, USEC_PER_SEC, "the device that serves it is lost");
    if (keyq_hopeless(q, r->rows)) {
        r->err = q->err;
        return r->err.code;
    }
    look_locked(s, q, r->rows, now_us, &let);
    struct admit_view v = {.now_us = now_us,
                           .deadline_us = r->deadline_us,
                           .queue_max = queue_max,
                           .n_lets = 1,
                           .let = &let};
    struct admit_choice c = s->g->e->cfg.policy->admit(&v);
    if (c.what == ADMIT_LATE)
        return refuse(r, REFUSED_LATE, c.retry_us,
                      "the deadline cannot be met: too much work waits");
    if (atomic_fetch_add(&s->l->n_queued, 1) >= queue_max) {
        (void)atomic_fetch_sub(&s->l->n_queued, 1);
        return refuse(r, REFUSED_FULL, let.full_us, "the model's queue is full");
    }
    enqueue(q, r);
    s->n_routed++;
    if (!s->g->kicked)
        *ret_kick = s->g;
    s->g->kicked = true;
    return 0;
}

int gpulet_push(struct seat *s, struct request *r, const struct shape_key *key, uint32_t queue_max,
                usec_t now_us, struct gpulet **ret_kick)
{
    struct gpulet *g = s->g;
    struct keyq *fresh = NULL, *q;
    int rc = -ENOENT;

    (void)pthread_mutex_lock(&g->lock);
    q = keyq_find(s, key);
    if (q)
        rc = push_locked(s, q, r, queue_max, now_us, ret_kick);
    (void)pthread_mutex_unlock(&g->lock);

    if (!q) { /* a new shape: its queue is made without the lock */
        fresh = keyq_new(s, key);
        if (!fresh)
            return err_set(&r->err, -ENOMEM, "out of memory");
        (void)pthread_mutex_lock(&g->lock);
        q = keyq_find(s, key);
        if (!q && keyq_link(fresh))
            q = TAKE(fresh);
        rc =
            q ? push_locked(s, q, r, queue_max, now_us, ret_kick)
              : refuse(r, REFUSED_FULL, s->bucket_us[0], "too many different shapes are under way");
        (void)pthread_mutex_unlock(&g->lock);
        free(fresh);
    }
    return rc;
}

bool gpulet_withdraw(struct gpulet *g, struct request *r)
{
    (void)pthread_mutex_lock(&g->lock);
    bool queued = r->queue != NULL;
    if (queued)
        dequeue(r);
    (void)pthread_mutex_unlock(&g->lock);
    return queued;
}

void gpulet_kick(struct gpulet *g)
{
    /* An idle executor has no bound on its wait; from now on it has. */
    usec_t never = USEC_NEVER;
    (void)atomic_compare_exchange_strong(&g->watch.due_us, &never,
                                         clock_now_us() + g->e->cfg.step_bound_us);
    (void)pthread_mutex_lock(&g->part_lock);
    if (g->part)
        g->e->b->kick(g->part);
    (void)pthread_mutex_unlock(&g->part_lock);
    (void)pthread_cond_signal(&g->cond);
}

/* ---- hand-over 2; executor */
static void count(struct request *r, enum request_fate fate)
{
    struct served_stats *st = r->served->stats;
    uint64_t ns = (r->done_us - r->arrival_us) * 1000;
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME_COARSE, &t); /* for whole milliseconds */
    atomic_fetch_add_explicit(fate == FATE_DONE ? &st->success : &st->fail, 1,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(fate == FATE_DONE ? &st->success_ns : &st->fail_ns, ns,
                              memory_order_relaxed);
    if (fate == FATE_LATE)
        atomic_fetch_add_explicit(&st->late, 1, memory_order_relaxed);
    if (fate == FATE_DONE && r->done_us <= r->deadline_us)
        atomic_fetch_add_explicit(&st->in_time, 1, memory_order_relaxed);
    if (fate == FATE_DONE)
        tally_add(&st->compute, tally_us, r->done_us - r->start_us);
    if (r->start_us) {
        atomic_fetch_add_explicit(&st->queue_ns, (r->start_us - r->arrival_us) * 1000,
                                  memory_order_relaxed);
        tally_add(&st->queue, tally_us, r->start_us - r->arrival_us);
    }
    atomic_store_explicit(&st->last_ms, (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000,
                          memory_order_relaxed);
}

void requests_finish(struct engine *e, struct request *first, enum request_fate fate, int rc,
                     const struct err *err, usec_t now_us)
{
    uint64_t n = 0;

    for (struct request *r = first; r; r = r->next, n++) {
        r->fate = fate;
        r->rc = rc;
        if (err)
            r->err = *err;
        r->done_us = now_us;
        count(r, fate);
    }
    /* A request comes back before the epoch that it pins may go: an unload that waits for it is
     * done after it. */
    while (first) {
        struct epoch *ep = first->epoch;
        uint32_t same = 0;
        for (; first && first->epoch == ep; same++) {
            struct request *r = first;
            first = r->next;
            r->next = NULL;
            atomic_store_explicit(&r->epoch, NULL, memory_order_relaxed);
            cq_push(r->cq, &r->item); /* r belongs to its http thread from here on */
        }
        epoch_put_many(e, ep, same);
    }
    (void)atomic_fetch_sub(&e->pending, n);
}

/* ---- runs; executor */
static void busy_add(struct gpulet *g, uint64_t ns, usec_t now_us)
{
    uint64_t second = now_us / USEC_PER_SEC;
    unsigned i = second & 1;

    if (atomic_load(&g->busy_second[i]) != second) {
        atomic_store(&g->busy_second[i], second);
        atomic_store(&g->busy_ns[i], 0);
    }
    (void)atomic_fetch_add(&g->busy_ns[i], ns);
    (void)atomic_fetch_add_explicit(&g->busy_all_ns, ns, memory_order_relaxed);
}

/* A run of so many ns has ended.  Side by side their times overlap: then it is the time since the
 * last end, or since the first of them began.  One behind the other they do, too, by what inputs
 * travelled meanwhile: no more is counted than has passed. */
static void run_busy(struct gpulet *g, uint64_t ns, usec_t now_us)
{
    uint64_t past_ns = (now_us - g->busy_from_us) * 1000;

    if (g->max_flying > 1)
        ns = past_ns;
    else if (g->ahead_us > 0)
        ns = MIN(ns, past_ns);
    busy_add(g, ns, now_us);
    g->busy_from_us = g->ahead_us > 0 ? g->busy_from_us + ns / 1000 : now_us;
}

/* Of the last complete second. */
double gpulet_busy(struct gpulet *g)
{
    uint64_t second = clock_now_us() / USEC_PER_SEC - 1;
    unsigned i = second & 1;

    if (atomic_load(&g->busy_second[i]) != second)
        return 0;
    return MIN((double)atomic_load(&g->busy_ns[i]) / 1e9, 1.0);
}

static void run_count(struct run *run, uint64_t ns)
{
    struct seat *s = run->q->seat;
    struct served_stats *st = &s->l->stats->s;
    uint32_t rows = MIN(run->rows, MAX_BATCH_LIMIT);

    atomic_fetch_add_explicit(&s->runs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->rows, run->rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->runs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->rows, run->rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->run_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->batch_count[rows], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->batch_ns[rows], ns, memory_order_relaxed);
}

/* Under g->lock.  The run is the only one from from_us on: when it will end, and must have. */
static void run_expect(struct gpulet *g, struct run *run, usec_t from_us)
{
    usec_t ahead_us = g->ahead_us > 0 ? from_us - run->handed_us : 0;
    usec_t there_us = MIN(run->v->info.inputs_us, ahead_us); /* of its time, over before */

    g->busy_until_us = from_us + run->predicted_us - MIN(there_us, run->predicted_us);
    run->due_us = hang_due_us(g->e, g->busy_until_us, run->predicted_us);
}

/* Under g->lock.  One of two runs has left: what went ahead has begun.  (The second may have left
 * first, where the host ends the other one.) */
static void runs_follow(struct gpulet *g, usec_t now_us)
{
    for (struct run *run = g->run; run < g->run + MAX_LANES; run++) {
        if (!run->used)
            continue;
        if (!run->ahead) {
            g->busy_until_us = MAX(now_us, run->start_us + run->predicted_us);
            continue;
        }
        run->ahead = false;
        run->start_us = now_us;
        for (struct request *r = run->first; r; r = r->next)
            r->start_us = now_us;
        run_expect(g, run, now_us);
    }
}

/* Since when it ran is what the executor saw, or sooner where that was late to see it. */
static void began(struct run *run, uint64_t ns, usec_t now_us)
{
    usec_t us = now_us - MIN(now_us, ns / 1000);

    if (run->handed_us == run->start_us)
        return;
    for (struct request *r = run->first; r; r = r->next)
        r->start_us = MIN(run->start_us, MAX(run->handed_us, us));
}

/* The run has left the partition: its slot is free, the prediction learns.  Its requests. */
static struct request *run_release(struct gpulet *g, struct run *run, int rc, uint64_t ns,
                                   usec_t now_us)
{
    struct request *first = run->first;
    bool learn = rc == 0 && !run->beside;

    for (struct request *r = first; r; r = r->next)
        r->run_ns = ns;
    began(run, ns, now_us);
    if (rc == 0) {
        run_count(run, ns);
        run_busy(g, ns, now_us);
        tally_add(&g->ratio, tally_permille, ns / MAX(run->predicted_us, 1u));
    }
    run->used = false;
    uint32_t flying = atomic_fetch_sub(&g->n_flying, 1) - 1;

    (void)pthread_mutex_lock(&g->lock);
    usec_t *us = &run->q->bucket_us[run->bucket];
    if (learn) /* seven parts of what was believed, one of what was seen */
        *us = MAX((7 * *us + ns / 1000 + 4) / 8, 1);
    if (learn)
        run->q->least_us[run->bucket] = MIN(run->q->least_us[run->bucket], MAX(ns / 1000, 1));
    struct seat *s = run->q->seat;
    if (learn && shape_key_eq(&run->q->key, &s->l->warm)) {
        s->bucket_us[run->bucket] = *us; /* for engine_admit(), which knows no shape */
        residual_add(&s->fit[run->bucket], (usec_t)((double)s->fit_us[run->bucket] * s->slow),
                     MAX(ns / 1000, 1)); /* the rest is not the neighbours' */
    }
    run->v->busy &= ~(1u << run->slot);
    run->q->seat->n_flying--;
    run->v->used = ++g->turn;
    if (flying == 0)
        g->busy_until_us = now_us;
    else if (g->ahead_us > 0)
        runs_follow(g, now_us);
    (void)pthread_mutex_unlock(&g->lock);
    return first;
}

void run_finish(struct gpulet *g, struct run *run, int rc, uint64_t ns, const struct err *err)
{
    usec_t now_us = clock_now_us();
    struct request *first = run_release(g, run, rc, ns, now_us);

    requests_finish(g->e, first, rc == 0 ? FATE_DONE : FATE_FAILED, rc, err, now_us);
}

/* The input of one of these requests cannot be run, or there is no memory for all their outputs.
 * Which one's, only a run of each alone can tell: they go back to the head of their queue, never to
 * be joined again. */
static void run_alone(struct gpulet *g, struct run *run, uint64_t ns)
{
    struct request *first = TAKE(run->first);
    struct epoch *ep = epoch_ref(g->e, first->epoch); /* all may be withdrawn: keeps the seat */

    for (struct request *r = first; r; r = r->next) {
        slab_put(TAKE(r->out_slab));
        r->alone = true;
    }
    (void)pthread_mutex_lock(&g->lock);
    while (first) { /* the last one first, each before those that are there */
        struct request **at = &first;
        while ((*at)->next)
            at = &(*at)->next;
        enqueue_first(run->q, TAKE(*at));
    }
    (void)pthread_mutex_unlock(&g->lock);
    /* Only now: until here the key cannot be evicted. */
    (void)run_release(g, run, -EINVAL, ns, clock_now_us());
    epoch_put(g->e, ep);
}

/* Output places of one request: one slab, each output aligned to 64 bytes. */
static int outputs_new(struct gpulet *g, const struct run *run, struct request *r)
{
    const struct bound *b = run->v->bound;
    const struct graph *graph = b->graph;
    size_t at[MAX_IO], bytes = 0;

    if (run->v->info.late_outputs)
        return 0; /* outputs_take() will know */
    for (uint32_t i = 0; i < graph->n_out; i++) {
        struct tensor *t = &r->out[i];
        *t = b->value[graph->out[i]];
        t->data = NULL;
        if (graph->batch_sym >= 0) {
            t->dims[0] = t->dims[0] / run->v->rows * r->rows;
            t->bytes = t->bytes / run->v->rows * r->rows;
        }
        at[i] = bytes;
        bytes += align_up(t->bytes, 64);
    }
    int rc = slab_new(g->e->pool, bytes, &r->out_slab);
    for (uint32_t i = 0; rc == 0 && i < graph->n_out; i++)
        r->out[i].data = (char *)r->out_slab->data + at[i];
    return rc;
}

/* Row pointers of every request into run->part; -ENOMEM. */
static int run_fill(struct gpulet *g, struct run *run)
{
    const struct graph *graph = run->v->bound->graph;
    size_t each = (size_t)graph->n_in + graph->n_out, need = each * BATCH_VIEW_MAX;
    uint32_t n = 0;

    if (run->n_ptr < need) {
        void **more = realloc(run->ptr, need * sizeof(*more));
        if (!more)
            return -ENOMEM;
        run->ptr = more;
        run->n_ptr = need;
    }
    for (struct request *r = run->first; r; r = r->next, n++) {
        void **in = run->ptr + n * each, **out = in + graph->n_in;
        int rc = outputs_new(g, run, r);
        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < graph->n_in; i++)
            in[i] = r->in[i].data;
        for (uint32_t i = 0; i < graph->n_out; i++)
            out[i] = run->v->info.late_outputs ? NULL : r->out[i].data;
        r->start_us = run->start_us;
        r->batch = run->rows;
        run->part[n] = (struct io_part){.rows = r->rows, .in = (const void *const *)in, .out = out};
    }
    run->io.n_parts = n;
    run->io.part = run->part;
    return 0;
}

/* Compiled, with a free slot.  While no run can start those that are taken will be free for the
 * next one. */
static bool can_run(const struct keyq *q, uint32_t bucket)
{
    const struct gpulet *g = q->seat->g;
    bool full = atomic_load(&g->n_flying) >= g->max_flying;

    return q->v[bucket].state == EXE_READY && (full || !q->v[bucket].busy);
}

/* The smallest such bucket that holds rows; UINT32_MAX: none. */
static uint32_t bucket_for(const struct keyq *q, uint32_t rows)
{
    for (uint32_t b = bucket_of(rows, q->seat->max_batch); b < q->seat->n_buckets; b++)
        if (can_run(q, b))
            return b;
    return UINT32_MAX;
}

/* One more run is under way. */
static void flying_add(struct gpulet *g, struct run *run, usec_t now_us)
{
    bool others = atomic_fetch_add(&g->n_flying, 1) > 0, beside = others && g->max_flying > 1;

    run->beside = false;
    for (unsigned i = 0; i < MAX_LANES && beside; i++)
        g->run[i].beside = g->run[i].used;
    if (!others)
        g->busy_from_us = now_us;
}

/* SLOTS_MAX: all are in use. */
static unsigned slot_free(const struct variant *v)
{
    unsigned i = 0;

    while (i < SLOTS_MAX && (!v->slot[i] || v->busy >> i & 1))
        i++;
    return i;
}

/* Pops requests for a run, at most `take`; false when meanwhile there are none or no exe, or no
 * slot to go ahead in. */
static bool run_pop(struct gpulet *g, struct run *run, struct keyq *q, uint32_t take, usec_t now_us)
{
    uint32_t n = 0, rows = 0, bucket = UINT32_MAX;

    for (struct request *r = q->head; r && n < take; r = r->next, n++) {
        if (n > 0 && (r->alone || q->head->alone || rows + r->rows > q->seat->batch))
            break;
        uint32_t b = bucket_for(q, rows + r->rows);
        if (b == UINT32_MAX)
            break;
        bucket = b;
        rows += r->rows;
    }
    unsigned slot = n > 0 ? slot_free(&q->v[bucket]) : SLOTS_MAX;
    if (slot == SLOTS_MAX)
        return false;
    run->used = true;
    run->ahead = g->ahead_us > 0 && atomic_load(&g->n_flying) > 0;
    run->q = q;
    run->bucket = bucket;
    run->v = &q->v[bucket];
    run->slot = slot;
    run->v->busy |= 1u << slot;
    run->n = n;
    run->rows = rows;
    run->handed_us = run->start_us = now_us;
    run->io = (struct io){.priority = urgency(q), .best_effort = q->seat->best_effort};
    run->first = dequeue_first(q, n);
    q->seat->n_flying++;
    if (g->turn_seat != q->seat)
        q->seat->turn_us = now_us;
    g->turn_seat = q->seat;
    run->predicted_us = q->bucket_us[bucket];
    run_expect(g, run, MAX(g->busy_until_us, now_us));
    if (run->ahead) /* who hangs is the one before it, until that has ended */
        run->due_us = USEC_NEVER;
    flying_add(g, run, now_us);
    return true;
}

/* False: nothing was taken. */
static bool run_start(struct gpulet *g, uint64_t gen, struct keyq *q, uint32_t take)
{
    struct run *run = g->run;
    struct err err;
    unsigned lane = 0;
    usec_t now_us = clock_now_us();

    while (run->used)
        run++, lane++;
    (void)pthread_mutex_lock(&g->lock);
    bool popped = g->gen == gen && run_pop(g, run, q, MIN(take, BATCH_VIEW_MAX), now_us);
    (void)pthread_mutex_unlock(&g->lock);
    if (!popped)
        return false;
    int rc = run_fill(g, run);
    if (rc < 0 && run->n > 1) {
        run_alone(g, run, 0);
        return true;
    }
    if (rc < 0) {
        (void)err_set(&err, rc, "no memory for the outputs of the request");
        run_finish(g, run, rc, 0, &err);
        return true;
    }
    watch_enter(&g->watch, "submit", now_us + g->e->cfg.step_bound_us);
    rc = g->e->b->submit(run->v->slot[run->slot], g->max_flying > 1 ? lane : 0, 0,
                         MAX(run->v->info.n_segments, 1), &run->io, &run->ticket);
    watch_leave(&g->watch);
    if (rc < 0) {
        char model[MODEL_NAME_MAX + 1];
        rc = rc == -ENODEV ? -EAGAIN : -EIO; /* lost: another try may be in time */
        (void)snprintf(model, sizeof(model), "%s", q->seat->l->name);
        (void)err_set(&err, rc, "model '%s': the run could not be started on gpu-let %u", model,
                      g->id);
        event(g->e, 3, "run", model, g->id, "%s", err.msg);
        run_finish(g, run, rc, 0, &err);
        (void)loss_check(g, model);
    }
    return true;
}

/* What is wrong with an input that a run ended with; NULL: it is not the input's fault. */
static const char *inputs_fault(int rc)
{
    switch (rc) {
    case -EINVAL:
        return "a value in it is out of range";
    case -ENOTSUP:
        return "it asks for what is not supported";
    case -ENOMEM:
        return "it needs more memory than a run may take";
    default:
        return NULL;
    }
}

/* True: the partition is gone. */
static bool done_take(struct gpulet *g, const struct done *d)
{
    struct run *run = g->run;
    char model[MODEL_NAME_MAX + 1];
    struct err err;

    while (run < g->run + MAX_LANES && !(run->used && run->ticket == d->ticket))
        run++;
    if (run == g->run + MAX_LANES)
        return false; /* of a run that was given up */
    if (d->rc == 0) {
        int r = run->v->info.late_outputs ? outputs_take(g, run, &err) : 0;
        run_finish(g, run, r, d->run_ns, r < 0 ? &err : NULL);
        return false;
    }
    (void)snprintf(model, sizeof(model), "%s", run->q->seat->l->name);
    if (d->rc == -EINVAL && run->n > 1) {
        run_alone(g, run, d->run_ns);
        return false;
    }
    const char *what = inputs_fault(d->rc);
    if (what) {
        (void)err_set(&err, d->rc, "model '%s' cannot run this input: %s", model,
                      d->why ? d->why : what);
        run_finish(g, run, d->rc, d->run_ns, &err);
        return false;
    }
    int rc = d->rc == -ENODEV ? -EAGAIN : -EIO; /* lost: another try may be in time */
    (void)err_set(&err, rc, "model '%s': the run failed on gpu-let %u: %s", model, g->id,
                  strerror(-d->rc));
    event(g->e, 3, "run", model, g->id, "%s", err.msg);
    run_finish(g, run, rc, d->run_ns, &err);
    return loss_check(g, model);
}

/* ---- what waits; under g->lock */
/* What runs take that begin now: in the exe that they get. */
static void table_fill(const struct keyq *q, uint32_t max_batch, usec_t *table)
{
    uint32_t b = bucket_of(max_batch, q->seat->max_batch), got = bucket_for(q, max_batch),
             k = max_batch;

    for (; k > 0; b--) {
        if (can_run(q, b))
            got = b;
        for (; k > 0 && (b == 0 || k > q->v[b - 1].rows); k--)
            table[k] = q->bucket_us[got != UINT32_MAX ? got : b];
    }
    table[0] = 0;
}

static usec_t inputs_us(const struct keyq *q, uint32_t rows)
{
    uint32_t b = bucket_for(q, rows);

    return b == UINT32_MAX ? 0 : q->v[b].info.inputs_us;
}

/* Fills one view; asks for what should be compiled.  False: its requests must fail. */
static bool queue_look(struct gpulet *g, struct keyq *q, struct queue_view *v, usec_t *table)
{
    struct seat *s = q->seat;
    uint32_t rows = 0, i = 0, most = 0, n_alike = 0;

    for (struct request *r = q->head; r && i < BATCH_VIEW_MAX; r = r->next, i++) {
        v->rows[i] = r->rows;
        v->deadline_us[i] = r->deadline_us;
        n_alike += level(s, r) == level(s, q->head);
        if (i == 0 || rows + r->rows <= s->batch)
            rows += r->rows;
    }
    for (uint32_t b = 0; b < s->n_buckets; b++)
        if (can_run(q, b))
            most = q->v[b].rows;
    bool fits = most >= q->head->rows, compiled = false;
    for (uint32_t b = bucket_of(q->head->rows, s->max_batch); b < s->n_buckets; b++)
        compiled |= q->v[b].state == EXE_READY;

    /* What would suit what waits, and if nothing holds even the first, what it waits for. */
    struct variant *want = &q->v[bucket_of(compiled ? rows : q->head->rows, s->max_batch)];
    if (want->state == EXE_NONE || (want->state == EXE_LATER && !compiled)) {
        want->state = compiled ? EXE_LATER : EXE_WANTED;
        atomic_store(compiled ? &g->wants_later : &g->wants, true);
    }
    v->n = q->n;
    v->n_alike = n_alike;
    v->since_us = q->head->arrival_us;
    v->max_batch = fits ? MAX(MIN(most, s->batch), q->head->rows) : MAX(s->batch, q->head->rows);
    v->priority = urgency(q);
    v->ready = fits && !g->lost && g->entered; /* a new partition is entered first */
    v->run_us = table;
    v->least_us = least_us(s, q, q->head->rows);
    v->n_flying = g->ahead_us > 0 ? 0 : s->n_flying;
    v->inputs_us = inputs_us(q, MIN(rows, v->max_batch));
    v->turn_us = s->turn_us;
    v->spare_us = s->spare_us;
    table_fill(q, v->max_batch, table);
    return compiled || want->state != EXE_FAILED;
}

/* What failed to compile fails those that wait for it; another try only if it may help. */
static struct request *queue_fail(struct keyq *q, struct err *err)
{
    struct seat *s = q->seat;
    struct variant *v = &q->v[bucket_of(q->head->rows, s->max_batch)];
    struct request *first = NULL, **at = &first;

    for (struct request *r = q->head, *next; r; r = next) {
        next = r->next;
        if (&q->v[bucket_of(r->rows, s->max_batch)] != v)
            continue;
        dequeue(r);
        *at = r;
        at = &r->next;
    }
    *err = q->err;
    if (rc_passes(err->code))
        v->state = EXE_NONE;
    return first;
}

/* More queues than a view holds: the first seat goes to the end, so that all get their turn. */
static void waiting_rotate(struct gpulet *g)
{
    struct seat *first = g->waiting;

    waiting_sub(first);
    waiting_add(first);
}

/* What waits of one class, into the views from n on; returns how many there are then.  *failed: the
 * requests of a compile that failed. */
static uint32_t queues_look(struct gpulet *g, bool best_effort, uint32_t n, struct request **failed,
                            struct err *err)
{
    for (struct seat *s = g->waiting; s && !*failed; s = s->next_waiting)
        for (struct keyq *q = s->best_effort == best_effort ? s->keys : NULL; q && !*failed;
             q = q->next)
            if (q->n > 0 && n < VIEW_QUEUES_MAX) {
                g->view_q[n] = q;
                if (queue_look(g, q, &g->view[n], g->view_us + n * (MAX_BATCH_LIMIT + 1)))
                    n++;
                else
                    *failed = queue_fail(q, err);
            }
    return n;
}

/* Copies what waits.  Returns requests to fail with *err, if a compile failed. */
static struct request *gpulet_view(struct gpulet *g, struct batch_view *ret, uint64_t *ret_gen,
                                   bool *ret_stop, struct err *err)
{
    struct request *failed = NULL;

    (void)pthread_mutex_lock(&g->lock);
    g->kicked = false;
    uint32_t n_sure = queues_look(g, false, 0, &failed, err);
    uint32_t n = queues_look(g, true, n_sure, &failed, err);
    if (n == VIEW_QUEUES_MAX)
        waiting_rotate(g);
    *ret_gen = g->gen;
    *ret_stop = g->stopping;
    *ret = (struct batch_view){.now_us = clock_now_us(),
                               .n_flying = atomic_load(&g->n_flying),
                               .max_flying = g->max_flying,
                               .busy_until_us = g->busy_until_us,
                               .ahead_us = g->ahead_us,
                               .n_queues = n_sure,
                               .n_spare = n - n_sure,
                               .queue = g->view,
                               .order = g->order};
    (void)pthread_mutex_unlock(&g->lock);
    return failed;
}

static void queue_drop(struct gpulet *g, uint64_t gen, struct keyq *q, uint32_t take)
{
    bool best_effort = false;
    struct err err;

    (void)pthread_mutex_lock(&g->lock);
    struct request *late = g->gen == gen ? dequeue_first(q, take) : NULL;
    if (late)
        best_effort = q->seat->best_effort;
    (void)pthread_mutex_unlock(&g->lock);
    (void)err_set(&err, -ETIMEDOUT, "%s",
                  best_effort ? "best effort: the other models left no time before its deadline"
                              : "the request's deadline could not be met");
    if (late)
        requests_finish(g->e, late, FATE_LATE, -ETIMEDOUT, &err, clock_now_us());
}

/* It could not go ahead.  Soon that other run has ended; but if it does not, who waits behind it
 * gets late. */
static usec_t wait_behind(struct gpulet *g, uint64_t gen, struct batch_view *v)
{
    v->ahead_us = 0;
    struct batch_choice c = policy_next(g->e->cfg.policy, v);

    if (c.what == BATCH_DROP)
        queue_drop(g, gen, g->view_q[c.queue], c.take);
    return c.what == BATCH_WAIT ? c.until_us : c.what == BATCH_DROP ? 0 : USEC_NEVER;
}

/* ---- the thread */
/* When the next wait() is a stall: a run may take step_bound_us, an idle wait any time. */
static usec_t wait_due_us(const struct gpulet *g, usec_t until_us)
{
    usec_t from_us = USEC_NEVER;

    for (unsigned i = 0; i < MAX_LANES; i++)
        if (g->run[i].used)
            from_us = MIN(from_us, g->run[i].start_us);
    if (from_us == USEC_NEVER && until_us != USEC_NEVER)
        from_us = MAX(until_us, clock_now_us());
    return from_us == USEC_NEVER ? USEC_NEVER : from_us + g->e->cfg.step_bound_us;
}

static void wait_backend(struct gpulet *g, usec_t until_us)
{
    struct done done[MAX_LANES];

    if (!g->entered) {
        watch_enter(&g->watch, "part_enter", clock_now_us() + g->e->cfg.step_bound_us);
        g->e->b->part_enter(g->part);
        g->entered = true;
        until_us = 0; /* nothing ran before this: look at what waits */
    }
    watch_enter(&g->watch, "wait", wait_due_us(g, until_us));
    size_t n = g->e->b->wait(g->part, MIN(until_us, gpulet_due_us(g)), done, MAX_LANES);
    watch_leave(&g->watch);
    for (size_t i = 0; i < n; i++)
        if (done_take(g, &done[i]))
            return;
    if (n == 0 && !loss_check(g, ""))
        (void)hang_check(g);
}

/* Without a partition: until the builder has brought a new one, something comes, or time is up. */
static void wait_lost(struct gpulet *g, usec_t until_us)
{
    usec_t soon_us = MIN(until_us, clock_now_us() + USEC_PER_SEC / 10);
    struct timespec t = {.tv_sec = (time_t)(soon_us / USEC_PER_SEC),
                         .tv_nsec = (long)(soon_us % USEC_PER_SEC) * 1000};

    (void)pthread_mutex_lock(&g->lock);
    if (g->lost && !g->stopping)
        (void)pthread_cond_timedwait(&g->cond, &g->lock, &t);
    (void)pthread_mutex_unlock(&g->lock);
}

/* Waits for news; g->lost is written by this thread and, while it is true, by the builder. */
static void gpulet_wait(struct gpulet *g, usec_t until_us)
{
    (void)pthread_mutex_lock(&g->lock);
    bool lost = g->lost;
    (void)pthread_mutex_unlock(&g->lock);
    if (lost)
        wait_lost(g, until_us);
    else
        wait_backend(g, until_us);
}

void *gpulet_main(void *arg)
{
    struct gpulet *g = arg;
    usec_t until_us = 0;
    bool stop = false;
    char name[16];

    (void)snprintf(name, sizeof(name), "gpulet-%u", g->id % 100000);
    (void)pthread_setname_np(pthread_self(), name);
    while (!stop || atomic_load(&g->n_flying) > 0) {
        struct batch_view view;
        struct err err;
        uint64_t gen;
        bool started = true;

        gpulet_wait(g, until_us);
        struct request *failed = gpulet_view(g, &view, &gen, &stop, &err);
        until_us = 0; /* after a deed, look again */
        if (failed) {
            requests_finish(g->e, failed, FATE_FAILED, err.code, &err, view.now_us);
            continue;
        }
        struct batch_choice c = policy_next(g->e->cfg.policy, &view);
        if (c.what == BATCH_RUN)
            started = run_start(g, gen, g->view_q[c.queue], c.take);
        else if (c.what == BATCH_DROP)
            queue_drop(g, gen, g->view_q[c.queue], c.take);
        else
            until_us = c.until_us;
        if (!started && g->ahead_us > 0 && view.n_flying > 0)
            until_us = wait_behind(g, gen, &view);
    }
    return NULL;
}

/* ---- life; builder */
static_assert(POLICY_LANES == MAX_LANES, "policy and backend agree on lanes");

/* A run that waits in the device's own queue could not grow any more while it does. */
static uint32_t lanes_of(const struct device_info *d, const struct policy *policy)
{
    return d->in_turn ? 1 : MAX(policy->lanes, 1u);
}

/* Where runs are side by side there is no end that the next one would wait for. */
static usec_t ahead_of(const struct device_info *d, const struct policy *policy)
{
    return lanes_of(d, policy) > 1 ? 0 : d->ahead_us;
}

uint32_t slots_most(const struct engine *e)
{
    bool two = false;

    for (uint32_t i = 0; i < e->n_devices; i++)
        two |= ahead_of(&e->device[i].info, e->cfg.policy) > 0;
    return two ? SLOTS_MAX : 1;
}

static void gpulet_free(struct gpulet *g)
{
    for (unsigned i = 0; i < MAX_LANES; i++)
        free(g->run[i].ptr);
    free(g->view_us);
    (void)pthread_cond_destroy(&g->cond);
    (void)pthread_mutex_destroy(&g->part_lock);
    (void)pthread_mutex_destroy(&g->lock);
    free(g);
}

static struct gpulet *gpulet_new(struct engine *e, uint32_t device, const struct granules *set)
{
    struct gpulet *g = calloc(1, sizeof(*g));
    pthread_condattr_t attr;

    if (!g)
        return NULL;
    g->e = e;
    g->id = e->next_gpulet_id++;
    g->device = device;
    g->set = *set;
    g->waiting_tail = &g->waiting;
    g->max_flying = lanes_of(&e->device[device].info, e->cfg.policy);
    g->ahead_us = ahead_of(&e->device[device].info, e->cfg.policy);
    (void)pthread_mutex_init(&g->lock, NULL);
    (void)pthread_mutex_init(&g->part_lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&g->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    g->view_us = calloc(VIEW_QUEUES_MAX, (MAX_BATCH_LIMIT + 1) * sizeof(*g->view_us));
    if (g->view_us)
        return g;
    gpulet_free(g);
    return NULL;
}

static int part_open(struct gpulet *g, struct part **ret, uint32_t *ret_units, struct err *err)
{
    struct engine *e = g->e;

    watch_enter(&e->watch, "part_open", clock_now_us() + BUILDER_BOUND_US);
    int r = e->b->part_open(e->device[g->device].dev, &g->set, ret, ret_units, err);
    watch_leave(&e->watch);
    return r;
}

static void part_close(struct gpulet *g)
{
    (void)pthread_mutex_lock(&g->part_lock);
    struct part *p = TAKE(g->part);
    (void)pthread_mutex_unlock(&g->part_lock);
    if (!p)
        return;
    watch_enter(&g->e->watch, "part_close", clock_now_us() + BUILDER_BOUND_US);
    g->e->b->part_close(p);
    watch_leave(&g->e->watch);
}

int gpulet_open(struct engine *e, uint32_t device, const struct granules *set, struct gpulet **ret,
                struct err *err)
{
    struct gpulet *g = gpulet_new(e, device, set);

    if (!g)
        return err_set(err, -ENOMEM, "out of memory");
    int r = part_open(g, &g->part, &g->units, err);
    if (r == 0 && (r = spawn_thread(e, &g->thread, gpulet_main, g)) < 0)
        (void)err_set(err, r, "no thread for gpu-let %u: %s", g->id, strerror(-r));
    if (r < 0) {
        part_close(g);
        gpulet_free(g);
        return r;
    }
    (void)pthread_mutex_lock(&e->lock);
    g->next = e->gpulets;
    e->gpulets = g;
    (void)pthread_mutex_unlock(&e->lock);
    *ret = g;
    return 0;
}

void gpulet_close(struct gpulet *g)
{
    struct engine *e = g->e;

    (void)pthread_mutex_lock(&g->lock);
    g->stopping = true;
    (void)pthread_mutex_unlock(&g->lock);
    gpulet_kick(g);
    (void)pthread_join(g->thread, NULL);
    (void)pthread_mutex_lock(&e->lock);
    struct gpulet **at = &e->gpulets;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    (void)pthread_mutex_unlock(&e->lock);
    part_close(g);
    event(e, 6, "retire", "", g->id, "closed");
    gpulet_free(g);
}

int gpulet_reopen(struct gpulet *g, struct err *err)
{
    struct part *p = NULL;
    uint32_t units;

    gpulet_drop_exes(g);
    part_close(g);
    int r = part_open(g, &p, &units, err);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&g->e->lock);
    g->units = units; /* views read it under this lock */
    (void)pthread_mutex_unlock(&g->e->lock);
    (void)pthread_mutex_lock(&g->part_lock);
    g->part = p;
    (void)pthread_mutex_unlock(&g->part_lock);
    (void)pthread_mutex_lock(&g->lock);
    g->lost = false;
    (void)pthread_cond_signal(&g->cond);
    (void)pthread_mutex_unlock(&g->lock);
    atomic_store(&g->state, GPULET_SERVING);
    atomic_store(&g->wants, true);
    return 0;
}
