#include "bind_probe.h"
#include "infer.h"

/* What sequences and images have: 128 tokens; 224 for networks that halve five times; then down. */
static const int64_t probes[] = {128, 224, 64, 32, 256, 16, 8, 4, 2, 1};

static int bind_at(const struct graph *g, int32_t sym, int64_t batch, int64_t other,
                   struct arena *a, struct bound **ret, struct err *err)
{
    struct shape_key key = {.n = g->n_syms};

    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = (int32_t)i == sym ? batch : other;
    return graph_bind_shapes(g, &key, a, ret, err);
}

static int64_t choose_other(const struct graph *g, int32_t sym)
{
    if (g->n_syms == (sym >= 0 ? 1 : 0))
        return 1;
    for (size_t i = 0; i < ARRAY_SIZE(probes); i++) {
        struct arena a;
        struct bound *ignored;
        arena_init(&a);
        int r = bind_at(g, sym, 1, probes[i], &a, &ignored, NULL);
        arena_done(&a);
        if (r == 0)
            return probes[i];
    }
    return 1;
}

int graph_probe(const struct graph *g, int32_t sym, int64_t batch, int64_t *other, struct arena *a,
                struct bound **ret, struct err *err)
{
    if (*other == 0)
        *other = choose_other(g, sym);
    return bind_at(g, sym, batch, *other, a, ret, err);
}
