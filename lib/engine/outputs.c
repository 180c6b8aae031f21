/* Outputs whose shapes a run decides: the backend keeps them until the next run of the slot, so
 * they are copied into a slab of their size when the run is done. */
#include "engine_priv.h"

#include <inttypes.h>

static int no_room(struct err *err, uint64_t bytes)
{
    return err_set(err, -ENOMEM, "no memory for outputs of %" PRIu64 " bytes now", bytes);
}

int outputs_take(struct gpulet *g, const struct run *run, struct err *err)
{
    uint32_t n = run->v->bound->graph->n_out;
    struct request *r = run->first;
    size_t at[MAX_IO], bytes = 0;

    assert(run->n == 1);
    g->e->b->outputs(run->v->slot[run->slot], r->out);
    for (uint32_t i = 0; i < n; i++) {
        at[i] = bytes;
        if (__builtin_add_overflow(bytes, align_up(r->out[i].bytes, 64), &bytes))
            return no_room(err, UINT64_MAX);
    }
    if (slab_new(g->e->pool, bytes, &r->out_slab) < 0)
        return no_room(err, bytes);
    for (uint32_t i = 0; i < n; i++) {
        const void *from = r->out[i].data;
        r->out[i].data = (char *)r->out_slab->data + at[i];
        if (r->out[i].bytes)
            memcpy(r->out[i].data, from, r->out[i].bytes);
    }
    return 0;
}
