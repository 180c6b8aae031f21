/* Hostile models through symbolic shapes, batch analysis, the order of late nodes and cut-points:
 * they end, and what they say about a graph is consistent. */
#include "model_limits.h"

#define FUZZ_NAME "batch"

static void check_cuts(const struct graph *g)
{
    assert(g->n_segments >= 1 && g->cut[0] == 0 && g->cut[g->n_segments] == g->n_nodes);
    for (uint32_t s = 1; s <= g->n_segments; s++)
        assert(g->cut[s] > g->cut[s - 1] || g->n_nodes == 0);
}

/* A graph that batches has the rows of its inputs in all outputs. */
static void check_rows(const struct graph *g, int64_t rows, int64_t other)
{
    struct shape_key key = fuzz_key(g, other);
    struct bound *b;
    struct arena a;

    key.dim[g->batch_sym] = rows;
    arena_init(&a);
    if (graph_bind(g, &key, &a, &b, NULL) == 0) {
        assert(b->n_late == 0);
        for (uint32_t i = 0; i < g->n_out; i++)
            assert(b->value[g->out[i]].rank > 0 && b->value[g->out[i]].dims[0] == rows);
    }
    arena_done(&a);
}

static void one_input(const uint8_t *data, size_t n)
{
    AUTO(graph_free) struct graph *g = fuzz_read(data, n);
    struct err e = {0};

    if (!g)
        return;
    int rc = graph_infer(g, &e);
    assert(rc == 0 || e.msg[0]);
    if (rc < 0)
        return;
    graph_analyse_batch(g);
    assert(g->batch_sym >= 0 ? !g->why_single[0] : g->why_single[0]);
    if (graph_settle_late(g, &e) < 0 || graph_cut(g, &e) < 0)
        return;
    check_cuts(g);
    if (g->batch_sym >= 0 && g->n_syms == 1)
        for (int64_t rows = 1; rows < 4; rows++)
            check_rows(g, rows, 1);
}

#include "fuzz.h"

#ifndef FUZZ_LIBFUZZER
int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    return check_end();
}
#endif
