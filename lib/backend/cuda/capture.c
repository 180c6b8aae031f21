/* Captured graphs: a segment's launches become one, and so do those of the whole run: one graph
 * behind the other costs the device some microseconds each time, which most runs can do without.
 *
 * Made when a slot is opened, so that no run makes one.  Everything is run once before, as what a
 * library or the driver does at first use cannot be captured.  A graph runs in the context that it
 * was captured in and with the addresses of its slot: it is the slot's and dies before it.
 *
 * Nobody says what a graph takes; what others have seen is counted, and limited.  A second slot for
 * which there is no room is not opened: runs of an exe would take one time and another in turns. */
#include "slot.h"
#include <stdio.h>
#include <unistd.h>

#define POLL_US 20
#define GRAPH_BYTES ((size_t)64 << 10)
#define NODE_BYTES ((size_t)10 << 10)
#define PART_BYTES_MAX ((size_t)512 << 20)
#define TOO_MUCH "more than %zu MiB in a partition"

/* Graph i is that of segment i, the last one that of all of them. */
static unsigned graphs(const struct exe *x)
{
    return x->n_segments + (x->n_segments > 1);
}
static uint32_t begin_of(const struct exe *x, unsigned i)
{
    return i < x->n_segments ? x->first_step[i] : 0;
}
static uint32_t end_of(const struct exe *x, unsigned i)
{
    return i < x->n_segments ? x->first_step[i + 1] : x->n_steps;
}

/* Few are one launch, of which a graph would save 3 us (adr/0024). */
static uint32_t worth(const struct exe *x, unsigned i)
{
    uint32_t n = end_of(x, i) - begin_of(x, i);

    return n > 1 ? n : 0;
}

size_t graphs_bytes(const struct exe *x)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < graphs(x); i++)
        bytes += worth(x, i) ? GRAPH_BYTES + worth(x, i) * NODE_BYTES : 0;
    return bytes;
}

/* Others of the partition go on meanwhile. */
static int settled(struct part *p, CUstream stream, struct err *err)
{
    CUresult is;
    int r = 0;

    while (r == 0 && (is = cu.stream_query(stream)) == CUDA_ERROR_NOT_READY) {
        (void)usleep(POLL_US);
        r = part_yield(p, err);
    }
    return r < 0 ? r : gpu_check(is, "stream_query", err);
}

/* Of zeros, which are good for any index.  What a library or the driver does at first use takes its
 * time: others are let in behind each step. */
static int warm(struct slot *s, struct err *err)
{
    struct part *p = s->exe->part;
    int r = GPU(zero_async(s->memory, 0, s->exe->slot_bytes, p->builders), err);

    for (uint32_t i = 0; i < s->exe->n_steps && r == 0; i++) {
        r = slot_launch(s, i, p->builders, err);
        if (r == 0)
            r = part_yield(p, err);
    }
    int waited = settled(p, p->builders, r < 0 ? &(struct err){0} : err);
    return r < 0 ? r : waited;
}

/* What a library does when a handle is used for the first time is done here, and not in a run: each
 * line's does a step of the slot's, if it never did any.  On streams of runs, behind which it waits
 * for its turn: once in a partition. */
static int lines_warm(struct slot *s, struct err *err)
{
    const struct exe *x = s->exe;
    struct part *p = x->part;
    uint32_t k = 0;
    int r = 0;

    while (k < x->n_steps && !(x->step[k].call && x->step[k].call->by_line))
        k++;
    for (unsigned i = 0; k < x->n_steps && i < p->levels.n && r == 0; i++) {
        if (p->line[i].dnn_used)
            continue;
        r = slot_launch(s, k, p->line[i].stream, err);
        int waited = settled(p, p->line[i].stream, r < 0 ? &(struct err){0} : err);
        r = r < 0 ? r : waited;
        p->line[i].dnn_used = r == 0;
    }
    return r;
}

static int launches(struct slot *s, unsigned i, struct err *err)
{
    const struct exe *x = s->exe;
    int r = 0;

    for (uint32_t k = begin_of(x, i); k < end_of(x, i) && r == 0; k++)
        r = slot_launch(s, k, x->part->builders, err);
    return r;
}

/* A capture that was begun is ended whatever comes. */
static int capture(struct slot *s, unsigned i, CUgraph *ret, struct err *err)
{
    CUstream stream = s->exe->part->builders;
    struct err ending;
    int r = GPU(capture_begin(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), err);

    if (r < 0)
        return r;
    r = launches(s, i, err);
    int ended = GPU(capture_end(stream, ret), &ending);
    if (r == 0 && ended < 0)
        *err = ending;
    return r < 0 ? r : ended;
}

static int graph_open(struct slot *s, unsigned i, struct err *err)
{
    CUgraph graph = NULL;
    int r = capture(s, i, &graph, err);

    if (r == 0)
        r = GPU(graph_make(&s->graph[i], graph, 0), err);
    if (r == 0) /* else its first launch would do it */
        r = GPU(graph_upload(s->graph[i], s->exe->part->builders), err);
    if (graph)
        (void)cu.graph_destroy(graph);
    return r;
}

static void drop(struct slot *s)
{
    for (unsigned i = 0; s->graph && i < graphs(s->exe); i++) {
        if (s->graph[i])
            (void)cu.graph_exec_destroy(s->graph[i]);
        s->graph[i] = NULL;
    }
}

static int open_all(struct slot *s, struct err *err)
{
    int r = 0;

    for (unsigned i = 0; i < graphs(s->exe) && r == 0; i++)
        r = worth(s->exe, i) ? graph_open(s, i, err) : 0;
    return r < 0 ? r : settled(s->exe->part, s->exe->part->builders, err);
}

int graphs_open(struct slot *s, struct err *err)
{
    struct exe *x = s->exe;
    struct err why = {0};
    size_t bytes = graphs_bytes(x);
    bool fits = x->part->graph_bytes + bytes <= PART_BYTES_MAX;

    if (!fits && x->n_graphed > 0)
        return err_set(err, -ENOMEM, "its graphs would be " TOO_MUCH, PART_BYTES_MAX >> 20);
    int r = warm(s, err);
    if (r == 0)
        r = lines_warm(s, err);
    if (r < 0 || bytes == 0)
        return r;
    r = fits ? open_all(s, &why) : err_set(&why, -ENOSPC, TOO_MUCH, PART_BYTES_MAX >> 20);
    if (r == 0) {
        s->graph_bytes = bytes;
        x->part->graph_bytes += bytes;
        x->n_graphed++;
        return 0;
    }
    drop(s);
    (void)snprintf(x->note, sizeof(x->note), "launched step by step, not as a graph: %.110s",
                   why.msg);
    return gpu_is_lost() ? err_set(err, -ENODEV, "%s", why.msg) : 0;
}

void graphs_close(struct slot *s)
{
    drop(s);
    s->exe->part->graph_bytes -= s->graph_bytes;
    s->exe->n_graphed -= s->graph_bytes > 0;
    s->graph_bytes = 0;
}
