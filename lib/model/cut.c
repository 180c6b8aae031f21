/* Cut-points.  The graph is bound at batch 1; a boundary between two nodes costs the activation
 * bytes that are alive across it.  Work is divided evenly, and each ideal boundary then moves, by
 * up to a third of a segment, to where the fewest bytes cross.  Late nodes, at the end of the
 * graph, are one last segment. */
#include "bind_probe.h"

#define MAX_SEGMENTS 16
/* Bytes and operations on one scale: a device moves a byte in about the time of this many
 * floating-point operations.  Only ratios matter here. */
#define FLOPS_PER_BYTE 10.0
/* A segment with less work than this is not worth a decision. */
#define MIN_SEGMENT_FLOPS 2e7

struct cuts {
    double *work;   /* by boundary: of all nodes before it */
    uint64_t *live; /* by boundary: bytes that cross it */
    uint32_t n;     /* nodes that are not late */
};

static void weigh(const struct bound *b, struct cuts *c)
{
    c->work[0] = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        struct cost cost = b->skip[i] ? (struct cost){0} : node_cost(b, i);
        c->work[i + 1] = c->work[i] + cost.flops + FLOPS_PER_BYTE * cost.bytes;
    }
}

static void note_read(uint32_t *last, uint32_t value, uint32_t node)
{
    if (value != VALUE_NONE)
        last[value] = node;
}

/* Values made by node i and read last by node j cross the boundaries i+1 ... j. */
static int measure_live(const struct graph *g, const struct bound *b, struct cuts *c,
                        struct arena *a)
{
    uint32_t *last = ARENA_ARRAY(a, uint32_t, g->n_values);

    if (!last)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        for (uint32_t k = 0; k < g->nodes[i].n_in; k++)
            note_read(last, g->nodes[i].in[k], i);
        for (uint32_t k = 0; k < g->nodes[i].n_post; k++)
            if (g->nodes[i].post[k].kind == POST_ADD)
                note_read(last, g->nodes[i].post[k].value, i);
    }
    for (uint32_t v = 0; v < g->n_values; v++) {
        uint32_t from = g->values[v].producer;
        if (from == NODE_NONE || from >= c->n || b->value[v].data || last[v] <= from)
            continue;
        c->live[from + 1] += b->value[v].bytes; /* a difference, summed below */
        c->live[MIN(last[v], c->n) + 1] -= b->value[v].bytes;
    }
    for (uint32_t i = 1; i <= c->n; i++)
        c->live[i] += c->live[i - 1];
    return 0;
}

/* The boundary in (from, n) where fewest bytes cross, among those whose work is within `slack`
 * of `ideal`; the nearest of equals.  0 when there is none. */
static uint32_t best_boundary(const struct cuts *c, uint32_t from, double ideal, double slack)
{
    uint32_t best = 0;
    double best_off = 0;

    for (uint32_t i = from + 1; i < c->n; i++) {
        double off = c->work[i] > ideal ? c->work[i] - ideal : ideal - c->work[i];
        if (off > slack)
            continue;
        if (!best || c->live[i] < c->live[best] ||
            (c->live[i] == c->live[best] && off < best_off)) {
            best = i;
            best_off = off;
        }
    }
    return best;
}

static void choose(struct graph *g, const struct cuts *c)
{
    double total = c->work[c->n], want = total / MIN_SEGMENT_FLOPS;
    uint32_t n = want >= MAX_SEGMENTS ? MAX_SEGMENTS : (uint32_t)MAX(want, 1.0), from = 0;

    g->n_segments = 0;
    for (uint32_t s = 1; s < n; s++) {
        uint32_t at = best_boundary(c, from, total * s / n, total / n / 3);
        if (at)
            g->cut[++g->n_segments] = from = at;
    }
    if (c->n > 0)
        g->cut[++g->n_segments] = c->n;
    if (c->n < g->n_nodes || c->n == 0)
        g->cut[++g->n_segments] = g->n_nodes;
}

/* Nodes before the first that is late: behind graph_settle_late(), all that are not. */
static uint32_t count_static(const struct graph *g, const struct bound *b)
{
    uint32_t n = 0;

    while (n < g->n_nodes && !b->late_node[n])
        n++;
    return n;
}

int graph_cut(struct graph *g, struct err *err)
{
    struct arena a;
    struct bound *b;
    struct cuts c = {0};
    struct err ignored = {0};
    int64_t other = 0;
    int r = -ENOMEM;

    arena_init(&a);
    g->cut = ARENA_ARRAY(&g->arena, uint32_t, MAX_SEGMENTS + 2);
    c.work = ARENA_ARRAY(&a, double, g->n_nodes + 1);
    c.live = ARENA_ARRAY(&a, uint64_t, g->n_nodes + 2);
    if (g->cut && c.work && c.live) {
        r = 0;
        g->n_segments = 1;
        g->cut[1] = g->n_nodes;
        /* A graph that binds at no probe is one segment. */
        if (graph_probe(g, g->batch_sym, 1, &other, &a, &b, &ignored) == 0) {
            c.n = count_static(g, b);
            weigh(b, &c);
            r = measure_live(g, b, &c, &a);
            if (r == 0)
                choose(g, &c);
        }
    }
    arena_done(&a);
    return r < 0 ? err_set(err, r, "out of memory for cut-points of %u nodes", g->n_nodes) : 0;
}
