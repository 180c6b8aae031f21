/* A model compiled in a partition of its own, to be measured and thrown away.  Builder.
 *
 * Where it has to answer, a thread of its own is the partition's executor: what a backend does to
 * an executor (pins it, say) must not stay with the builder. */
#include "engine_priv.h"

#define LOOK_US (USEC_PER_SEC / 10) /* a lost partition is noticed so soon */

int trial_open(struct engine *e, struct loaded *l, enum precision precision, uint32_t batch,
               const struct granules *set, struct trial *t, struct err *err)
{
    const struct backend *b = e->b;
    struct compile_args args = {
        .model = l->name, .precision = precision, .batch_invariant = l->batch_invariant};
    struct shape_key key = l->warm;
    struct bound *bound = NULL;
    struct exe_info info;
    uint32_t units;

    *t = (struct trial){.e = e};
    arena_init(&t->arena);
    if (loaded_batches(l))
        key.dim[l->graph->batch_sym] = batch;
    int r = graph_bind(l->graph, &key, &t->arena, &bound, err);
    args.bound = bound;
    if (r == 0)
        r = WATCHED(&e->watch, "part_open",
                    b->part_open(e->device[0].dev, set, &t->part, &units, err));
    if (r == 0)
        r = WATCHED(&e->watch, "compile", b->compile(t->part, &args, &t->exe, err));
    if (r == 0)
        r = WATCHED(&e->watch, "slot_open", b->slot_open(t->exe, &t->slot, err));
    if (r == 0) {
        b->exe_info(t->exe, &info);
        t->n_segments = MAX(info.n_segments, 1);
    }
    return r;
}

int trial_run(struct trial *t, uint32_t from, uint32_t to, uint32_t n, uint64_t *ret_ns,
              struct err *err)
{
    return WATCHED(&t->e->watch, "probe", t->e->b->probe(t->slot, from, to, n, ret_ns, err));
}

/* ---- answers */
struct answer {
    struct trial *t;
    const struct io *io;
    uint64_t arrived;
    int rc;
    struct err *err;
};

static int segment_run(struct answer *a, uint32_t segment)
{
    const struct backend *b = a->t->e->b;
    struct done done = {.rc = 0};
    ticket t;
    int r = b->submit(a->t->slot, 0, segment, segment + 1, a->io, &t);

    while (r == 0 && b->wait(a->t->part, clock_now_us() + LOOK_US, &done, 1) == 0)
        if (b->fault(a->t->part) != FAULT_NONE)
            r = -ENODEV;
    r = r < 0 ? r : done.rc;
    return r < 0 ? err_set(a->err, r, "%s", done.why ? done.why : strerror(-r)) : 0;
}

static void *answer_main(void *arg)
{
    struct answer *a = arg;

    (void)pthread_setname_np(pthread_self(), "trial");
    a->t->e->b->part_enter(a->t->part);
    for (uint32_t s = 0; s < a->t->n_segments && a->rc == 0; s++)
        if ((a->rc = peace(a->t->e, a->arrived)) == 0)
            a->rc = segment_run(a, s);
    return NULL;
}

int trial_answer(struct trial *t, const struct io *io, uint64_t arrived_before, struct err *err)
{
    struct answer a = {.t = t, .io = io, .arrived = arrived_before, .err = err};
    pthread_t thread;
    int r = -pthread_create(&thread, NULL, answer_main, &a);

    if (r < 0)
        return err_set(err, r, "no thread: %s", strerror(-r));
    watch_enter(&t->e->watch, "run", clock_now_us() + BUILDER_BOUND_US);
    (void)pthread_join(thread, NULL);
    watch_leave(&t->e->watch);
    return a.rc;
}

void trial_rest(struct trial *t)
{
    watch_enter(&t->e->watch, "release", clock_now_us() + BUILDER_BOUND_US);
    t->e->b->slot_close(TAKE(t->slot));
    watch_leave(&t->e->watch);
}

void trial_close(struct trial *t)
{
    if (!t->e) /* it was never opened */
        return;
    const struct backend *b = t->e->b;

    watch_enter(&t->e->watch, "release", clock_now_us() + BUILDER_BOUND_US);
    if (t->slot)
        b->slot_close(t->slot);
    if (t->exe)
        b->release(t->exe);
    if (t->part)
        b->part_close(t->part);
    watch_leave(&t->e->watch);
    arena_done(&t->arena);
}
