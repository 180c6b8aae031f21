/* A batch as groups of fewer rows, each of which one thread runs from the first step to the last.
 *
 * Activations of a whole batch leave the cache between two steps where those of a row or two do
 * not: mobilenet_v2 at batch 8 takes 0.87 of the time as four groups of two, squeezenet 0.80 as
 * eight of one.  Weights are then read once a group, which is why resnet50 and BERT run as one.
 * In a partition of several cores the threads take groups of their own and never wait for each
 * other.  Rows are independent (lib/model/batch.c), so a group needs nothing of another. */
#include "build.h"
#include <stdatomic.h>

/* A byte of weights costs this many bytes of activations: it comes from memory, they come from a
 * cache or, where they do not fit, go through it.  With the two bounds, from 11 models at groups of
 * 1, 2, 4 and 8 rows on a core with 1 MiB of L2 before 32 MiB of L3. */
#define WEIGHT_BYTE 4.5
#define FITS_BYTES (8.0 * (1 << 20))
#define SPILLS_BYTES (32.0 * (1 << 20))
/* Less than this moves too little for either to matter. */
#define MIN_ROW_BYTES (256.0 * 1024)

struct load {
    double weights; /* bytes */
    double row;     /* bytes that a row's nodes read and write */
    double live;    /* the most of them at one node */
};

static double activation(const struct bound *b, uint32_t v)
{
    bool known = v == VALUE_NONE || b->graph->values[v].constant || b->value[v].data;

    return known ? 0 : (double)b->value[v].bytes;
}

static void weigh(const struct bound *b, struct load *ret)
{
    const struct graph *g = b->graph;
    double batch = (double)b->key.dim[g->batch_sym];

    *ret = (struct load){0};
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        double bytes = 0;
        for (uint32_t k = 0; k < n->n_in && !b->skip[i]; k++)
            bytes += activation(b, n->in[k]);
        for (uint32_t k = 0; k < n->n_out && !b->skip[i]; k++)
            bytes += activation(b, n->out[k]);
        ret->row += bytes / batch;
        ret->live = MAX(ret->live, bytes / batch);
    }
    for (uint32_t v = 0; v < g->n_values; v++)
        if (g->values[v].constant)
            ret->weights += (double)g->values[v].constant->t.bytes;
}

/* Of a row, by the rows of a group and the threads that each have one in the cache. */
static double cost(const struct load *l, uint32_t rows, unsigned n_threads)
{
    double over = (l->live * rows * n_threads - FITS_BYTES) / (SPILLS_BYTES - FITS_BYTES);

    return WEIGHT_BYTE * l->weights / rows + l->row * MIN(MAX(over, 0.0), 1.0);
}

/* All that comes out has the rows; no shape waits for the run. */
static bool can_group(const struct bound *b)
{
    const struct graph *g = b->graph;

    if (g->batch_sym < 0 || b->key.dim[g->batch_sym] < 2 || b->n_late)
        return false;
    for (uint32_t i = 0; i < g->n_out; i++) {
        const struct value *v = &g->values[g->out[i]];
        if (b->late_value[g->out[i]] || v->rank == 0 || v->dims[0].sym != g->batch_sym)
            return false;
    }
    return true;
}

uint32_t groups_rows(const struct compile_args *args, unsigned n_threads)
{
    const struct bound *b = args->bound;
    struct load l;
    uint32_t best = 0;

    if (args->batch_invariant)
        return b->graph->batch_sym >= 0;
    if (!can_group(b))
        return 0;
    weigh(b, &l);
    if (l.row < MIN_ROW_BYTES)
        return 0;
    uint32_t batch = (uint32_t)b->key.dim[b->graph->batch_sym];
    for (uint32_t rows = batch / n_threads; rows > 0; rows--)
        if (batch % (rows * n_threads) == 0 &&
            (!best || cost(&l, rows, n_threads) < cost(&l, best, n_threads)))
            best = rows;
    return best < batch ? best : 0;
}

int groups_compile(struct exe *x, const struct compile_args *args, uint32_t rows, struct err *err)
{
    const struct graph *g = args->bound->graph;
    struct shape_key key = args->bound->key;
    struct compile_args one = *args;
    struct bound *bound;

    x->batch = (uint32_t)key.dim[g->batch_sym];
    key.dim[g->batch_sym] = rows;
    int r = graph_bind(g, &key, &x->arena, &bound, err);
    one.bound = bound;
    if (r == 0)
        r = compile_for(x->part, &one, 1, &x->group, err);
    if (r < 0)
        return r;
    if (args->batch_invariant) {
        x->n_threads = 1; /* for a single row there is one, too */
        x->group->placed_alike = true;
    }
    x->n_segments = 1;
    x->slot_bytes = x->n_threads * x->group->slot_bytes;
    return 0;
}

/* ---- running */

/* What one thread runs its groups in. */
struct member {
    struct slot *slot;
    struct io_part *part; /* room for as many as a group has rows */
    const void **in;
    void **out;
};

struct crew {
    const struct exe *exe;
    struct arena arena;
    struct member *member; /* by thread */
};

void crew_close(struct crew *c)
{
    if (!c)
        return;
    for (unsigned i = 0; c->member && i < c->exe->n_threads; i++)
        cpu_slot_close(c->member[i].slot);
    arena_done(&c->arena);
    free(c);
}
DEFINE_AUTO(struct crew, crew_close)

static int member_open(struct crew *c, struct member *m, struct err *err)
{
    struct exe *x = c->exe->group;

    m->part = ARENA_ARRAY(&c->arena, struct io_part, x->batch);
    m->in = ARENA_ARRAY(&c->arena, const void *, (size_t)x->batch *MAX(x->n_in, 1u));
    m->out = ARENA_ARRAY(&c->arena, void *, (size_t)x->batch *MAX(x->n_out, 1u));
    if (!m->part || !m->in || !m->out)
        return err_set(err, -ENOMEM, "out of memory");
    return cpu_slot_open(x, &m->slot, err);
}

int crew_open(const struct exe *x, struct crew **ret, struct err *err)
{
    AUTO(crew_close) struct crew *c = calloc(1, sizeof(*c));
    int r = 0;

    if (!c)
        return err_set(err, -ENOMEM, "out of memory");
    c->exe = x;
    arena_init(&c->arena);
    c->member = ARENA_ARRAY(&c->arena, struct member, x->n_threads);
    if (!c->member)
        return err_set(err, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < x->n_threads && r == 0; i++)
        r = member_open(c, &c->member[i], err);
    if (r == 0)
        *ret = TAKE(c);
    return r;
}

struct slot *crew_slot(const struct crew *c)
{
    return c->member[0].slot;
}

/* Rows [from, from + n) of what is in io, as an io of the group's. */
static struct io rows_of(const struct exe *x, struct member *m, const struct io *io, uint32_t from,
                         uint32_t n)
{
    struct io ret = {.part = m->part};

    for (uint32_t i = 0, at = 0; i < io->n_parts; at += io->part[i++].rows) {
        uint32_t first = MAX(from, at), last = MIN(from + n, at + io->part[i].rows);
        if (first >= last)
            continue;
        const void **in = m->in + (size_t)ret.n_parts * x->n_in;
        void **out = m->out + (size_t)ret.n_parts * x->n_out;
        for (uint32_t k = 0; k < x->n_in; k++)
            in[k] = (const char *)io->part[i].in[k] + (first - at) * x->in[k].row_bytes;
        for (uint32_t k = 0; k < x->n_out; k++)
            out[k] = (char *)io->part[i].out[k] + (first - at) * x->out[k].row_bytes;
        m->part[ret.n_parts++] = (struct io_part){.rows = last - first, .in = in, .out = out};
    }
    return ret;
}

struct turns {
    const struct crew *crew;
    const struct io *io; /* NULL: made-up rows, all of them */
    uint32_t rows;
    atomic_int rc, failed; /* the last to fail */
};

static void member_turns(void *ctx, unsigned i)
{
    struct turns *t = ctx;
    const struct exe *whole = t->crew->exe, *x = whole->group;
    struct member *m = &t->crew->member[i];
    int r = 0;

    if (whole->n_threads > 1)
        dn_threads(1); /* this is the team: none inside it */
    for (uint32_t from = i * x->batch; from < t->rows && r == 0;
         from += whole->n_threads * x->batch) {
        struct io io = {0};
        if (t->io)
            io = rows_of(x, m, t->io, from, MIN(x->batch, t->rows - from));
        else
            cpu_slot_home(m->slot);
        r = cpu_run(m->slot, 0, x->n_segments, t->io ? &io : NULL);
    }
    if (r < 0) {
        t->failed = (int)i;
        t->rc = r;
    }
}

int crew_run(const struct crew *c, const struct io *io, struct err *why)
{
    struct turns t = {.crew = c, .io = io};

    for (uint32_t i = 0; io && i < io->n_parts; i++)
        t.rows += io->part[i].rows;
    if (!io)
        t.rows = c->exe->batch;
    if (c->exe->n_threads == 1)
        member_turns(&t, 0);
    else
        dn_team(c->exe->n_threads, member_turns, &t);
    if (t.rc < 0)
        *why = *cpu_slot_why(c->member[t.failed].slot);
    return t.rc;
}
