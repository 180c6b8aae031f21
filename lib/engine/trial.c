/* A model compiled in a partition of its own, to be measured and thrown away.  Builder. */
#include "engine_priv.h"

int trial_open(struct engine *e, struct loaded *l, uint32_t batch, const struct granules *set,
               struct trial *t, struct err *err)
{
    const struct backend *b = e->b;
    struct compile_args args = {
        .model = l->name, .precision = l->precision, .batch_invariant = l->batch_invariant};
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

void trial_close(struct trial *t)
{
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
