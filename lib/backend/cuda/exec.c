/* Slots and runs.
 *
 * A run is, in this order: an event, the rows of the requests copied in, the launches, or the
 * graphs that were captured of them, the results copied out, an event, and a call on the host that
 * puts the slot on the partition's list and wakes who waits.  All of it is on the stream of the
 * run's level, but for large copies beside another run (copy.c): inputs are then on another stream,
 * between events of their own, and what is behind the launches on a third.  That call costs more
 * than spinning on the event would, and leaves the core to others; nothing of CUDA may be called in
 * it.  Its stream stands still until it has returned, so beside another run it is on that third
 * one, too: the run that went ahead begins at once.
 *
 * Runs of a lane follow each other, also on streams of two levels. */
#include "slot.h"

#include <gpulet/clock.h>
#include <stdatomic.h>

#define LOOK_US 100000 /* a failed stream never makes its host call: looked at so often */

CUdeviceptr slot_address(const struct slot *s, const struct ref *r)
{
    return r->kind == REF_BUF ? s->memory + s->exe->buf[r->buf].offset : r->at;
}

static CUdeviceptr status_address(const struct slot *s)
{
    return slot_address(s, &(struct ref){.kind = REF_BUF, .buf = BUF_STATUS});
}

/* ---- slots; builder */
static int slot_fill(struct slot *s)
{
    const struct exe *x = s->exe;
    uint32_t at = 0;

    s->args = calloc(1, x->args_bytes + 1);
    s->first = calloc(x->n_steps + 1, sizeof(*s->first));
    s->state = calloc(x->n_steps + 1, sizeof(*s->state));
    s->graph = calloc(x->n_segments + 1, sizeof(*s->graph));
    if (!s->args || !s->first || !s->state || !s->graph)
        return -ENOMEM;
    for (uint32_t i = 0; i < x->n_steps; i++) {
        const struct step *step = &x->step[i];
        memcpy(s->args + at, step->args, step->bytes);
        for (uint32_t k = 0; k < step->n_holes; k++) {
            CUdeviceptr p = slot_address(s, &step->hole[k].ref);
            memcpy(s->args + at + step->hole[k].offset, &p, sizeof(p));
        }
        s->first[i] = at;
        at += (uint32_t)align_up(step->bytes, 16);
    }
    return 0;
}

static int in_step(const struct exe *x, uint32_t i, int r, struct err *err)
{
    const struct node *n = x->step[i].call->node;

    return r < 0 ? err_wrap(err, "node '%s' (%s): ", n->name, op_name(n->op)) : 0;
}

static int states_open(struct slot *s, struct err *err)
{
    const struct exe *x = s->exe;
    int r = 0;

    for (uint32_t i = 0; i < x->n_steps && r == 0; i++) {
        const struct call *c = x->step[i].call;
        if (c && c->open)
            r = in_step(x, i, c->open(c, s->args + s->first[i], &s->state[i], err), err);
    }
    return r;
}

static void states_close(struct slot *s)
{
    for (uint32_t i = 0; s->state && i < s->exe->n_steps; i++)
        if (s->state[i])
            s->exe->step[i].call->close(s->state[i]);
}

static int slot_take(struct slot *s, struct err *err)
{
    int r = GPU(mem_alloc(&s->memory, s->exe->slot_bytes), err);

    if (r == 0)
        r = GPU(host_alloc((void **)&s->status, sizeof(*s->status), 0), err);
    for (unsigned i = 0; i < N_EVENTS && r == 0; i++)
        r = GPU(event_create(&s->event[i], CU_EVENT_BLOCKING_SYNC), err);
    if (r == 0 && slot_fill(s) < 0)
        r = err_set(err, -ENOMEM, "out of memory");
    if (r == 0)
        r = states_open(s, err);
    if (r == 0)
        r = late_open(s, err);
    return r < 0 ? r : graphs_open(s, err);
}

void gpu_slot_close(struct slot *s)
{
    struct err err;

    if (!s)
        return;
    tails_close(s);
    if (part_begin(s->exe->part, &err) == 0) {
        graphs_close(s); /* before what they were captured in */
        states_close(s);
        late_close(s);
        for (unsigned i = N_EVENTS; i-- > 0;)
            if (s->event[i])
                (void)cu.event_destroy(s->event[i]);
        if (s->status)
            (void)cu.host_free(s->status);
        if (s->memory)
            (void)cu.mem_free(s->memory);
        part_end(s->exe->part);
    }
    free(s->graph);
    free(s->state);
    free(s->first);
    free(s->args);
    free(s);
}
DEFINE_AUTO(struct slot, gpu_slot_close)

int gpu_slot_open(struct exe *x, struct slot **ret, struct err *err)
{
    AUTO(gpu_slot_close) struct slot *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->exe = x;
    int r = tails_open(s, err);
    if (r == 0)
        r = part_begin(x->part, err);
    if (r == 0) {
        r = slot_take(s, err);
        part_end(x->part);
    }
    if (r < 0)
        return err_wrap(err, "a slot of %zu bytes: ", x->slot_bytes);
    *ret = TAKE(s);
    return 0;
}

/* ---- one run; the partition's context is current */
int slot_launch(struct slot *s, uint32_t i, CUstream stream, struct err *err)
{
    const struct exe *x = s->exe;
    const struct step *step = &x->step[i];
    void *args[] = {s->args + s->first[i]};

    if (step->call)
        return in_step(
            x, i, step->call->run(step->call, x->part, stream, args[0], s->state[i], err), err);
    /* The driver takes a kernel of a library where it wants a function. */
    CUfunction f = (CUfunction)x->part->dev->kernel[step->kernel];

    return GPU(launch(f, step->blocks, 1, 1, step->threads, 1, 1, 0, stream, args, NULL), err);
}

/* All of the run in one, if there is such a graph. */
static bool is_whole(const struct slot *s, unsigned from, unsigned to)
{
    return from == 0 && to == s->exe->n_segments && to > 1 && s->graph[to];
}

static int segment(struct slot *s, unsigned i, struct err *err)
{
    const struct exe *x = s->exe;
    int r = 0;

    if (s->graph[i])
        return GPU(graph_launch(s->graph[i], s->line->stream), err);
    for (uint32_t k = x->first_step[i]; k < x->first_step[i + 1] && r == 0; k++)
        r = slot_launch(s, k, s->line->stream, err);
    return r;
}

void slot_finished(struct slot *s)
{
    struct slot **at = &s->exe->part->finished;

    while (*at)
        at = &(*at)->next;
    *at = s;
    (void)pthread_cond_broadcast(&s->exe->part->wake);
}

/* On a thread of the driver's. */
static void CUDA_CB ended(void *arg)
{
    struct slot *s = arg;
    struct part *p = s->exe->part;

    (void)pthread_mutex_lock(&p->lock);
    if (s->probing)
        s->probed = true;
    else if (s->tail && s->ends && *s->status == 0)
        tails_add(s);
    else
        slot_finished(s);
    (void)pthread_cond_broadcast(&p->wake);
    (void)pthread_mutex_unlock(&p->lock);
}

/* What is on the run's own stream: from its first event on. */
static int compute(struct slot *s, unsigned from, unsigned to, const struct io *io, struct err *err)
{
    CUstream stream = s->line->stream;
    int r = GPU(event_record(s->event[EVENT_BEGIN], stream), err);

    if (r == 0 && from == 0)
        r = GPU(zero_async(status_address(s), 0, sizeof(*s->status), stream), err);
    if (r == 0 && from == 0 && !s->apart)
        r = inputs_copy(s, io, stream, err);
    if (r == 0 && is_whole(s, from, to))
        return GPU(graph_launch(s->graph[to], stream), err);
    for (unsigned i = from; i < to && r == 0; i++)
        r = segment(s, i, err);
    return r;
}

/* The end, to the host.  Behind another run there will be one behind this, too. */
static int tell(struct slot *s, const struct io *io, CUstream last, struct err *err)
{
    bool apart = io && last == s->line->stream && is_behind(s);
    int r = apart ? GPU(stream_wait_event(s->line->out, s->event[EVENT_END], 0), err) : 0;

    return r < 0 ? r : GPU(launch_host(apart ? s->line->out : last, ended, s), err);
}

static int enqueue(struct slot *s, unsigned from, unsigned to, const struct io *io, struct err *err)
{
    CUstream last = s->line->stream;
    int r = 0;

    s->apart = from == 0 && inputs_apart(s, io);
    if (s->apart)
        r = inputs_ahead(s, io, err);
    if (r == 0)
        r = compute(s, from, to, io, err);
    if (r == 0 && to == s->exe->n_segments)
        r = outputs_behind(s, io, &last, err);
    if (r == 0)
        r = GPU(copy_out_async(s->status, status_address(s), sizeof(*s->status), last), err);
    if (r == 0)
        r = GPU(event_record(s->event[EVENT_END], last), err);
    return r < 0 ? r : tell(s, io, last, err);
}

/* before: the run that it follows; NULL: none, or it is over. */
static int run_begin(struct slot *s, const struct slot *before, unsigned from, unsigned to,
                     const struct io *io, struct err *err)
{
    struct part *p = s->exe->part;
    int r = part_begin(p, err);

    if (r < 0)
        return r;
    s->next = NULL;
    s->ends = to == s->exe->n_segments;
    s->line = line_of(p, io);
    s->follows = before != NULL;
    if (before && before->line != s->line)
        r = GPU(stream_wait_event(s->line->stream, before->event[EVENT_END], 0), err);
    if (r == 0)
        r = enqueue(s, from, to, io, err);
    if (r < 0) /* what was begun still touches the request */
        line_settle(p, s->line);
    part_end(p);
    return r;
}

/* Without what it waited for between its inputs, which came on another stream, and its launches. */
static int taken(struct slot *s, uint64_t *ret_ns, struct err *err)
{
    float ms = 0, before_ms = 0;
    int r = GPU(event_elapsed(&ms, s->event[EVENT_BEGIN], s->event[EVENT_END]), err);

    if (r == 0 && s->apart)
        r = GPU(event_elapsed(&before_ms, s->event[EVENT_IN], s->event[EVENT_THERE]), err);
    *ret_ns = (uint64_t)(((double)ms + (double)before_ms) * 1e6);
    return r;
}

/* 0, and what the run took; else what was wrong with it. */
static int run_end(struct slot *s, uint64_t *ret_ns, const char **ret_why, struct err *err)
{
    struct part *p = s->exe->part;
    int r = part_begin(p, err);

    *ret_ns = 0;
    if (r == 0) {
        r = taken(s, ret_ns, err);
        part_end(p);
    }
    if (r < 0)
        return gpu_is_lost() ? -ENODEV : -EIO;
    *ret_why = *s->status ? "an index is out of range" : NULL;
    if (*s->status)
        return -EINVAL;
    return s->tail && s->ends ? late_result(s, ret_ns, ret_why) : 0;
}

/* ---- the executor */
int gpu_submit(struct slot *s, unsigned lane, unsigned from, unsigned to, const struct io *io,
               ticket *ret)
{
    struct part *p = s->exe->part;
    struct err err;

    if (from > to || to > s->exe->n_segments || lane >= MAX_LANES)
        return -EINVAL;
    s->ticket = p->last_ticket + 1;
    s->lane = lane; /* on one stream, those of several lanes follow each other, too */
    if (run_begin(s, p->last[lane], from, to, io, &err) < 0)
        return gpu_is_lost() ? -ENODEV : -EIO;
    *ret = ++p->last_ticket;
    atomic_store_explicit(&p->dev->ran_us, clock_now_us(), memory_order_relaxed);
    p->n_out++;
    p->last[lane] = s;
    s->line->n_out++;
    return 0;
}

/* The run is over for the executor. */
static void left(struct part *p, struct slot *s)
{
    p->n_out--;
    s->line->n_out--;
    if (p->last[s->lane] == s)
        p->last[s->lane] = NULL;
}

static struct slot *wait_told(struct part *p, usec_t until_us)
{
    struct timespec until = {.tv_sec = (time_t)(until_us / USEC_PER_SEC),
                             .tv_nsec = (long)(until_us % USEC_PER_SEC) * 1000};
    int r = until_us == 0 ? ETIMEDOUT : 0;

    (void)pthread_mutex_lock(&p->lock);
    while (!p->finished && !p->kicked && r != ETIMEDOUT)
        r = until_us == USEC_NEVER ? pthread_cond_wait(&p->wake, &p->lock)
                                   : pthread_cond_timedwait(&p->wake, &p->lock, &until);
    p->kicked &= p->finished != NULL; /* a kick is answered by an empty hand */
    struct slot *s = p->finished;
    if (s)
        p->finished = s->next;
    (void)pthread_mutex_unlock(&p->lock);
    return s;
}

/* Asks the streams, whose error comes in no other way. */
static void look(struct part *p)
{
    struct err err;

    if (part_begin(p, &err) < 0)
        return;
    (void)streams_look(p, &err);
    part_end(p);
}

size_t gpu_wait(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    struct err err;
    size_t n = 0;

    while (n < max) {
        usec_t now_us = clock_now_us();
        bool looks = p->n_out > 0 && n == 0 && until_us > now_us + LOOK_US;
        struct slot *s = wait_told(p, n > 0 ? 0 : looks ? now_us + LOOK_US : until_us);
        if (s) {
            done[n] = (struct done){.ticket = s->ticket};
            done[n].rc = run_end(s, &done[n].run_ns, &done[n].why, &err);
            left(p, s);
            n++;
            continue;
        }
        if (!looks || clock_now_us() < now_us + LOOK_US) /* time is up, or a kick */
            break;
        look(p);
        if (gpu_is_lost())
            break;
    }
    return n;
}

void gpu_kick(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->kicked = true;
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_cond_broadcast(&p->wake);
}

/* ---- probing; builder */
static int probe_wait(struct slot *s, struct err *err)
{
    struct part *p = s->exe->part;
    bool over = false;

    while (!over && !gpu_is_lost()) {
        usec_t at = clock_now_us() + LOOK_US;
        struct timespec until = {.tv_sec = (time_t)(at / USEC_PER_SEC),
                                 .tv_nsec = (long)(at % USEC_PER_SEC) * 1000};
        (void)pthread_mutex_lock(&p->lock);
        if (!s->probed)
            (void)pthread_cond_timedwait(&p->wake, &p->lock, &until);
        over = s->probed;
        (void)pthread_mutex_unlock(&p->lock);
        if (!over && clock_now_us() >= at)
            look(p);
    }
    return over ? 0 : err_set(err, -ENODEV, "the device is lost");
}

/* Of zeros; an index that they make is no failure, nor is it if the host cannot run them. */
static int run_over(struct slot *s, uint64_t *ret_ns, struct err *err)
{
    const char *why;

    if (s->tail && s->ends && *s->status == 0)
        late_run(s);
    int r = run_end(s, ret_ns, &why, err);
    return r == -EINVAL || r == -ENOMEM ? 0 : r == -ENOTSUP ? err_set(err, r, "%s", why) : r;
}

static int probe_one(struct slot *s, unsigned from, unsigned to, uint64_t *ret_ns, struct err *err)
{
    s->probing = true;
    s->probed = false;
    int r = run_begin(s, NULL, from, to, NULL, err);
    if (r == 0 && (r = probe_wait(s, err)) == 0)
        r = run_over(s, ret_ns, err);
    s->probing = false;
    return r;
}

int gpu_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
              struct err *err)
{
    uint64_t warm_ns;
    int r = 0;

    if (from >= to || to > s->exe->n_segments)
        return err_set(err, -EINVAL, "segments %u to %u: there are %u", from, to,
                       s->exe->n_segments);
    for (unsigned i = 0; i <= n && r == 0; i++) { /* once more than asked: the first is warming */
        if (from > 0)
            r = probe_one(s, 0, from, &warm_ns, err);
        if (r == 0)
            r = probe_one(s, from, to, i ? &ret_ns[i - 1] : &warm_ns, err);
    }
    return r < 0 ? err_wrap(err, "the run failed: ") : 0;
}
