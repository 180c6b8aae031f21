/* Ways to do one thing race on the SMs of their partition.
 *
 * Each runs once to warm up and once between two events.  Those near the fastest are then measured
 * as they will run, as a graph, of so many launches that neither making them nor the events'
 * resolution decides; in rounds, one of each, so that whatever else the device does meanwhile meets
 * all of them; the median counts.
 *
 * While the device serves nothing is measured, as runs would wait for it and blur it, and what is
 * measured is cut short by one that comes; the exe then says that it is unraced.  What
 * an exe may take for all its contests is limited; a contest that is cut short still has a winner
 * if each way was tried. */
#include "choice.h"
#include <gpulet/clock.h>
#include <stdatomic.h>
#include <unistd.h>

#define BUDGET_NS UINT64_C(300000000) /* of an exe: little beside what loading a model takes */
#define ROUNDS 5
#define ROUND_NS 200000 /* an event tells half a microsecond: 1 % is seen */
#define LAUNCHES_MAX 16
#define NEAR 1.5      /* times the fastest's first time is worth more rounds, */
#define NEAR_NS 20000 /* and what one launch may be late by */
#define POLL_US 20
#define LATELY_US (2 * USEC_PER_SEC)
/* FP16 1.06, BF16 and FP32 0.012: zeros would switch no transistor, and run faster than data. */
#define PATTERN 0x3c

struct entrant {
    bool out;
    unsigned launches, n;          /* in a round; rounds */
    CUgraphExec graph;             /* or NULL: one by one */
    uint64_t first_ns, ns[ROUNDS]; /* of a launch */
};
struct race {
    struct build *b;
    const struct ways *ways;
    struct entrant entrant[WAYS_MAX];
    int fatal; /* b->err says what */
};

/* ---- time and memory */

/* Has a run been submitted since then, or lately? */
static bool serves(struct device *dev, usec_t since_us)
{
    usec_t ran_us = atomic_load(&dev->ran_us), now_us = clock_now_us();

    return ran_us && ran_us >= MIN(since_us, now_us - MIN(now_us, LATELY_US));
}

bool contest_begin(struct build *b)
{
    struct trials *t = &b->trials;

    t->since_ns = clock_now_ns();
    if (!t->since_us)
        t->since_us = clock_now_us();
    bool may =
        b->part->dev->choices && t->spent_ns < BUDGET_NS && !serves(b->part->dev, t->since_us);
    b->exe->unraced |= !may && b->part->dev->choices;
    return may;
}

void contest_end(struct build *b)
{
    b->trials.spent_ns += clock_now_ns() - b->trials.since_ns;
}

static bool is_late(const struct build *b)
{
    return b->trials.spent_ns + clock_now_ns() - b->trials.since_ns >= BUDGET_NS ||
           serves(b->part->dev, b->trials.since_us);
}

static void memory_free(struct build *b)
{
    if (b->trials.memory) {
        (void)cu.stream_wait(b->part->builders);
        (void)cu.mem_free(b->trials.memory);
    }
    b->trials.memory = 0;
    b->trials.bytes = 0;
}

CUdeviceptr contest_memory(struct build *b, size_t bytes)
{
    struct trials *t = &b->trials;
    CUstream stream = b->part->builders;
    struct err none;

    if (t->bytes < bytes) {
        memory_free(b);
        if (GPU(mem_alloc(&t->memory, bytes), &none) < 0)
            return t->memory = 0;
        t->bytes = bytes;
    }
    return GPU(zero_async(t->memory, PATTERN, bytes, stream), &none) == 0 ? t->memory : 0;
}

void contest_done(struct build *b)
{
    struct trials *t = &b->trials;

    memory_free(b);
    if (t->from)
        (void)cu.event_destroy(t->from);
    if (t->to)
        (void)cu.event_destroy(t->to);
    t->from = t->to = NULL;
}

/* ---- one entrant */

/* Others of the partition go on meanwhile. */
static int wait_for(struct race *c, struct err *err)
{
    struct part *p = c->b->part;
    CUresult is;

    while ((is = cu.stream_query(p->builders)) == CUDA_ERROR_NOT_READY) {
        c->fatal = part_yield(p, c->b->err);
        if (c->fatal < 0)
            return c->fatal;
        (void)usleep(POLL_US);
    }
    return gpu_check(is, "stream_query", err);
}

static int launch(struct race *c, unsigned i, unsigned n, struct err *err)
{
    CUstream stream = c->b->part->builders;
    int r = 0;

    if (c->entrant[i].graph)
        return GPU(graph_launch(c->entrant[i].graph, stream), err);
    for (unsigned k = 0; k < n && r == 0; k++)
        r = c->ways->run(c->ways->arg, i, stream, err);
    return r;
}

static int timed(struct race *c, unsigned i, unsigned n, uint64_t *ret_ns, struct err *err)
{
    const struct trials *t = &c->b->trials;
    CUstream stream = c->b->part->builders;
    float ms = 0;
    int r = c->fatal = part_yield(c->b->part, c->b->err);

    if (r == 0)
        r = GPU(event_record(t->from, stream), err);
    if (r == 0)
        r = launch(c, i, n, err);
    if (r == 0)
        r = GPU(event_record(t->to, stream), err);
    if (r == 0)
        r = wait_for(c, err);
    if (r == 0)
        r = GPU(event_elapsed(&ms, t->from, t->to), err);
    *ret_ns = (uint64_t)((double)MAX(ms, 0) * 1e6 / n);
    return r;
}

/* It is out; of the process, where nothing works any more. */
static void fail(struct race *c, unsigned i, const struct err *why)
{
    struct err none;

    c->entrant[i].out = true;
    if (c->fatal == 0 && GPU(stream_wait(c->b->part->builders), &none) < 0 && gpu_is_lost())
        c->fatal = err_set(c->b->err, none.code, "%s", none.msg);
    if (c->fatal == 0 && gpu_is_lost())
        c->fatal = err_set(c->b->err, why->code, "%s", why->msg);
}

/* False: the time was over before it was tried. */
static bool first_time(struct race *c, unsigned i)
{
    struct entrant *e = &c->entrant[i];
    struct err why;
    uint64_t warm_ns;
    int r = is_late(c->b) ? -ETIME : timed(c, i, 1, &warm_ns, &why);

    if (r == 0)
        r = is_late(c->b) ? -ETIME : timed(c, i, 1, &e->first_ns, &why);
    if (r < 0 && r != -ETIME)
        fail(c, i, &why);
    return r != -ETIME && c->fatal == 0;
}

/* As many launches as a round wants.  Without a graph it is launched one by one, as slots then do.
 */
static void prepare(struct race *c, unsigned i)
{
    struct entrant *e = &c->entrant[i];
    CUstream stream = c->b->part->builders;
    CUgraph graph = NULL;
    struct err why, ending;

    e->launches = (unsigned)MIN(MAX(ROUND_NS / MAX(e->first_ns, 1), 1), LAUNCHES_MAX);
    if (GPU(capture_begin(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), &why) < 0)
        return;
    int r = launch(c, i, e->launches, &why);
    int ended = GPU(capture_end(stream, &graph), &ending);
    CUgraphExec made = NULL;
    if (r == 0 && ended == 0 && GPU(graph_make(&made, graph, 0), &why) == 0 &&
        GPU(graph_upload(made, stream), &why) == 0)
        e->graph = TAKE(made);
    if (made)
        (void)cu.graph_exec_destroy(made);
    if (graph)
        (void)cu.graph_destroy(graph);
}

static void round_of(struct race *c, unsigned i)
{
    struct entrant *e = &c->entrant[i];
    struct err why;

    if (timed(c, i, e->launches, &e->ns[e->n], &why) < 0)
        fail(c, i, &why);
    else
        e->n++;
}

/* ---- the race */
static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t result(struct entrant *e)
{
    if (e->n == 0)
        return e->first_ns;
    qsort(e->ns, e->n, sizeof(*e->ns), by_size);
    return e->ns[e->n / 2];
}

/* The first of the fastest; n: all are out. */
static unsigned fastest(struct race *c)
{
    unsigned best = c->ways->n;

    for (unsigned i = 0; i < c->ways->n; i++)
        if (!c->entrant[i].out &&
            (best == c->ways->n || result(&c->entrant[i]) < result(&c->entrant[best])))
            best = i;
    return best;
}

/* Each is tried, or the time was over. */
static bool heats(struct race *c)
{
    unsigned n = c->ways->n, i = 0;

    while (i < n && first_time(c, i))
        i++;
    unsigned best = i == n ? fastest(c) : n;
    if (best == n)
        return false;
    uint64_t most_ns = (uint64_t)(NEAR * (double)c->entrant[best].first_ns) + NEAR_NS;
    for (i = 0; i < n; i++)
        c->entrant[i].out |= c->entrant[i].first_ns > most_ns;
    return true;
}

/* The round that the time ends in is not finished: some would have been in it, others not. */
static void rounds(struct race *c)
{
    unsigned n = c->ways->n;

    for (unsigned i = 0; i < n && !is_late(c->b); i++)
        if (!c->entrant[i].out)
            prepare(c, i);
    for (unsigned k = 0; k < ROUNDS; k++)
        for (unsigned i = 0; i < n; i++) {
            if (c->fatal < 0 || is_late(c->b))
                return;
            if (!c->entrant[i].out)
                round_of(c, i);
        }
}

static int events_open(struct trials *t, struct err *err)
{
    int r = t->from ? 0 : GPU(event_create(&t->from, CU_EVENT_DEFAULT), err);

    return r < 0 || t->to ? r : GPU(event_create(&t->to, CU_EVENT_DEFAULT), err);
}

int contest(struct build *b, const struct ways *w, unsigned *ret, bool *ret_known)
{
    struct race c = {.b = b, .ways = w};
    struct err none;

    assert(w->n > 0 && w->n <= WAYS_MAX);
    *ret = 0;
    *ret_known = false;
    if (events_open(&b->trials, &none) == 0 && heats(&c)) {
        rounds(&c);
        unsigned best = fastest(&c);
        *ret_known = c.fatal == 0 && best < w->n;
        *ret = *ret_known ? best : 0;
    }
    b->exe->unraced |= !*ret_known;
    for (unsigned i = 0; i < w->n; i++)
        if (c.entrant[i].graph)
            (void)cu.graph_exec_destroy(c.entrant[i].graph);
    return c.fatal;
}
