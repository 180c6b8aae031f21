/* What a gpu-let's models would do together: its requests in virtual time through the function that
 * decides at run time, for plans that no formula judges.  A queue is the view that the policy gets;
 * what does not fit into it counts as lost. */
#include "plan_priv.h"
#include "random.h"

struct actor {
    struct random random;
    double next_us, gap_us, shape;
};

#define NOISE 0.05 /* of run times */

struct stage {
    struct random noise;
    struct cast *cast;
    struct actor *actor;
    struct queue_view *queue;
    uint32_t n, offered;
    double now_us, busy_us;
};

static double gap(struct actor *x, const struct cast *c)
{
    if (c->arrivals == ARRIVALS_PACED)
        return x->gap_us;
    if (x->shape > 0)
        return x->gap_us * random_gamma(&x->random, x->shape);
    return x->gap_us * random_exp(&x->random);
}

static bool stage_init(struct stage *s, uint64_t seed, struct arena *a)
{
    s->actor = ARENA_ARRAY(a, struct actor, s->n);
    s->queue = ARENA_ARRAY(a, struct queue_view, s->n);
    for (uint32_t i = 0; s->actor && s->queue && i < s->n; i++) {
        struct cast *c = &s->cast[i];
        struct actor *x = &s->actor[i];
        bool bursts = c->arrivals == ARRIVALS_CV || c->arrivals == ARRIVALS_TRACE;
        c->offered = c->in_time = 0;
        random_seed(&x->random, seed, i);
        x->gap_us = c->rate_rps > 0 ? 1e6 / c->rate_rps : 1e18;
        x->shape = bursts && c->cv > 0 ? 1 / (c->cv * c->cv) : 0;
        x->next_us = c->rate_rps > 0 ? gap(x, c) : 1e18;
        s->queue[i] = (struct queue_view){
            .max_batch = c->cap, .run_us = c->run_us, .least_us = c->run_us[1], .ready = true};
        for (uint32_t k = 0; k < BATCH_VIEW_MAX; k++)
            s->queue[i].rows[k] = 1;
    }
    return s->actor && s->queue;
}

static uint32_t next_arrival(const struct stage *s)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < s->n; i++)
        if (s->actor[i].next_us < s->actor[best].next_us)
            best = i;
    return best;
}

static void arrive(struct stage *s, uint32_t i)
{
    struct queue_view *q = &s->queue[i];
    struct cast *c = &s->cast[i];
    usec_t at_us = (usec_t)s->actor[i].next_us;

    s->offered++;
    c->offered++;
    s->actor[i].next_us += gap(&s->actor[i], c);
    if (q->n == BATCH_VIEW_MAX)
        return;
    q->since_us = q->n ? q->since_us : at_us;
    q->deadline_us[q->n++] = c->slo_us ? at_us + c->slo_us : USEC_NEVER;
}

static void leave(struct stage *s, uint32_t i, uint32_t take)
{
    struct queue_view *q = &s->queue[i];

    q->n -= take;
    memmove(q->deadline_us, q->deadline_us + take, q->n * sizeof(*q->deadline_us));
    q->since_us =
        q->n && s->cast[i].slo_us ? q->deadline_us[0] - s->cast[i].slo_us : (usec_t)s->now_us;
}

/* Runs queue i; when the run will be done. */
static double run(struct stage *s, uint32_t i, uint32_t take)
{
    struct cast *c = &s->cast[i];
    double us = (double)c->run_us[MIN(take, c->cap)] * (1 + NOISE * random_normal(&s->noise));

    for (uint32_t k = 0; k < take; k++)
        c->in_time += (usec_t)(s->now_us + us) <= s->queue[i].deadline_us[k];
    leave(s, i, take);
    s->busy_us += us;
    return s->now_us + us;
}

/* Until a run starts (when it will be done) or there is nothing to do; *until_us: look again. */
static double look(struct stage *s, enum plan_order order, double *until_us)
{
    struct batch_view v = {.now_us = (usec_t)s->now_us,
                           .busy_until_us = (usec_t)s->now_us,
                           .max_flying = 1,
                           .n_queues = s->n,
                           .queue = s->queue,
                           .order = order};

    for (;;) {
        struct batch_choice c = ordered_batch_next(&v);
        uint32_t take = c.what == BATCH_WAIT ? 0 : MIN(c.take, s->queue[c.queue].n);
        if (take == 0) {
            *until_us = c.until_us == USEC_NEVER ? 1e18 : (double)c.until_us + 1;
            return s->now_us;
        }
        if (c.what == BATCH_RUN)
            return run(s, c.queue, take);
        leave(s, c.queue, take);
    }
}

double rehearse(struct cast *cast, uint32_t n, enum plan_order order, uint32_t n_requests,
                uint64_t seed, struct arena *a)
{
    struct stage s = {.cast = cast, .n = n};
    double free_us = 0, until_us = 1e18;

    if (n == 0 || !stage_init(&s, seed, a))
        return -1;
    random_seed(&s.noise, seed, n);
    while (s.offered < n_requests) {
        uint32_t i = next_arrival(&s);
        double at_us = s.actor[i].next_us, then_us = free_us > s.now_us ? free_us : until_us;
        if (at_us >= 1e18)
            return 0; /* nobody comes */
        s.now_us = MAX(MIN(at_us, then_us), s.now_us);
        if (at_us <= s.now_us)
            arrive(&s, i);
        if (s.now_us >= free_us)
            free_us = look(&s, order, &until_us);
    }
    return s.now_us > 0 ? MIN(s.busy_us / s.now_us, 1) : 0;
}
