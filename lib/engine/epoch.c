/* Epochs: routing tables in force, and the counts that keep what they name alive.
 *
 * e->epoch holds one reference, each accepted request another.  The last one out puts the epoch
 * on e->dead; the builder frees it there and drops its references to seats and gpu-lets, which
 * close when no epoch and no change refers to them.  As the requests of a seat all pin an epoch
 * that names it, a seat that nobody refers to has no request, waiting or running. */
#include "engine_priv.h"

struct epoch *epoch_pin(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    struct epoch *ep = e->epoch;
    ep->refs++;
    (void)pthread_mutex_unlock(&e->lock);
    return ep;
}

struct epoch *epoch_ref(struct engine *e, struct epoch *ep)
{
    (void)pthread_mutex_lock(&e->lock);
    ep->refs++;
    (void)pthread_mutex_unlock(&e->lock);
    return ep;
}

void epoch_put_locked(struct engine *e, struct epoch *ep, uint32_t n)
{
    ep->refs -= n;
    if (ep->refs > 0)
        return;
    ep->next_dead = e->dead;
    e->dead = ep;
    e->work = true;
    (void)pthread_cond_signal(&e->cond);
}

void epoch_put_many(struct engine *e, struct epoch *ep, uint32_t n)
{
    (void)pthread_mutex_lock(&e->lock);
    epoch_put_locked(e, ep, n);
    (void)pthread_mutex_unlock(&e->lock);
}

void epoch_put(struct engine *e, struct epoch *ep)
{
    epoch_put_many(e, ep, 1);
}

const struct route *epoch_find(const struct epoch *ep, const char *name)
{
    uint32_t from = 0, to = ep->n_routes;

    while (from < to) {
        uint32_t mid = from + (to - from) / 2;
        int c = strcmp(ep->problem.model[mid].name, name);
        if (c == 0)
            return &ep->route[mid];
        if (c < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return NULL;
}

const struct route *epoch_route(const struct epoch *ep, const struct served *s)
{
    uint32_t i = atomic_load_explicit(&s->route, memory_order_relaxed);

    return i < ep->n_routes && ep->route[i].served == s ? &ep->route[i]
                                                        : epoch_find(ep, s->spec.name);
}

void seat_put(struct engine *e, struct seat *s)
{
    if (--s->refs > 0)
        return;
    s->next_closing = e->closing_seats;
    e->closing_seats = s;
}

void gpulet_put(struct engine *e, struct gpulet *g)
{
    if (--g->refs > 0)
        return;
    atomic_store(&g->state, GPULET_RETIRING);
    g->next_closing = e->closing_gpulets;
    e->closing_gpulets = g;
}

struct epoch *epoch_new(void)
{
    struct epoch *ep = calloc(1, sizeof(*ep));

    if (ep)
        arena_init(&ep->arena);
    return ep;
}

void epoch_free(struct engine *e, struct epoch *ep)
{
    if (!ep)
        return;
    for (uint32_t i = 0; ep->route && i < ep->n_routes; i++) {
        for (uint32_t k = 0; k < ep->route[i].n_seats; k++)
            seat_put(e, ep->route[i].seat[k]);
        served_put(ep->route[i].served);
        loaded_put(e, ep->route[i].l);
    }
    for (uint32_t i = 0; ep->gpulet && i < ep->n_gpulets; i++)
        if (ep->gpulet[i])
            gpulet_put(e, ep->gpulet[i]);
    arena_done(&ep->arena);
    free(ep);
}
