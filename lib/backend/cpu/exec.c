/* Slots and runs.
 *
 * A slot is an arena and, for each step, its arguments with addresses filled in.  A run of one
 * request whose rows are the whole batch reads the request's memory and writes its reply's
 * directly: only those arguments change.  Otherwise rows are gathered into the arena before the
 * first step and scattered after the last.  An exe of groups (groups.c) does so for each group.
 * Nothing is allocated here. */
#include "cpu.h"
#include <gpulet/clock.h>
#include <gpulet/steps.h>
#include <stdatomic.h>
#include <stdio.h>

struct patch { /* the arguments that follow a port */
    uint32_t n;
    uint32_t *arg;
    size_t *offset;  /* of each, from the port's memory */
    const void *now; /* where they point */
};

struct slot {
    struct exe *exe;
    char *memory;
    struct arena arena;
    uint32_t n_args;
    uint32_t *first; /* by step: its first argument */
    void **ptr;
    dnnl_exec_arg_t *arg;
    struct patch in[MAX_IO], out[MAX_IO];
    struct late_slot late;
    dnnl_stream_t stream;
    struct err why;    /* the last run failed */
    struct crew *crew; /* of an exe that is run by groups: then all else is empty */
};

static void *ref_address(const struct slot *s, struct ref r)
{
    switch (r.kind) {
    case REF_BUF:
        return s->memory + s->exe->buf[r.buf].offset + r.offset;
    case REF_CONST:
        return (void *)r.data;
    case REF_NONE:
        break;
    }
    return NULL;
}

static int fill_step(struct slot *s, const struct step *step, uint32_t at)
{
    for (uint32_t i = 0; i < step->n_arg; i++) {
        const struct arg *a = &step->arg[i];
        s->ptr[at + i] = ref_address(s, a->ref);
        if (!step->is_prim)
            continue;
        s->arg[at + i].arg = a->name;
        if (dnnl_memory_create(&s->arg[at + i].memory, a->md, s->exe->part->dev->dn.engine,
                               s->ptr[at + i]) != dnnl_success)
            return -ENOMEM;
    }
    return 0;
}

static int fill_patch(struct slot *s, const struct port *port, struct patch *p)
{
    const struct exe *x = s->exe;

    p->arg = ARENA_ARRAY(&s->arena, uint32_t, s->n_args);
    p->offset = ARENA_ARRAY(&s->arena, size_t, s->n_args);
    if (!p->arg || !p->offset)
        return -ENOMEM;
    for (uint32_t i = 0; i < x->n_steps; i++)
        for (uint32_t k = 0; k < x->step[i].n_arg; k++) {
            struct ref r = x->step[i].arg[k].ref;
            if (r.kind != REF_BUF || r.buf != port->buf)
                continue;
            p->offset[p->n] = r.offset;
            p->arg[p->n++] = s->first[i] + k;
        }
    p->now = s->memory + x->buf[port->buf].offset;
    return 0;
}

static int slot_fill(struct slot *s)
{
    const struct exe *x = s->exe;
    int r = 0;

    s->first = ARENA_ARRAY(&s->arena, uint32_t, x->n_steps + 1);
    if (!s->first)
        return -ENOMEM;
    for (uint32_t i = 0; i < x->n_steps; i++)
        s->first[i + 1] = s->first[i] + x->step[i].n_arg;
    s->n_args = s->first[x->n_steps];
    s->ptr = ARENA_ARRAY(&s->arena, void *, s->n_args);
    s->arg = ARENA_ARRAY(&s->arena, dnnl_exec_arg_t, s->n_args);
    s->memory = pages_alloc(x->slot_bytes);
    if (x->late.bound)
        s->late.value = ARENA_ARRAY(&s->arena, struct tensor, x->late.bound->graph->n_values);
    if (!s->ptr || !s->arg || !s->memory || (x->late.bound && !s->late.value))
        return -ENOMEM;
    if (x->late.bound)
        r = late_reserve(&x->late, &s->late);
    for (uint32_t i = 0; i < x->n_steps && r == 0; i++)
        r = fill_step(s, &x->step[i], s->first[i]);
    for (uint32_t i = 0; i < x->n_in && r == 0; i++)
        r = fill_patch(s, &x->in[i], &s->in[i]);
    for (uint32_t i = 0; i < x->n_out && r == 0; i++)
        if (x->out[i].buf != BUF_NONE)
            r = fill_patch(s, &x->out[i], &s->out[i]);
    return r;
}

void cpu_slot_close(struct slot *s)
{
    if (!s)
        return;
    crew_close(s->crew);
    for (uint32_t i = 0; s->arg && i < s->n_args; i++)
        if (s->arg[i].memory)
            (void)dnnl_memory_destroy(s->arg[i].memory);
    pages_free(s->memory, s->exe->slot_bytes);
    if (s->stream)
        (void)dnnl_stream_destroy(s->stream);
    late_forget(&s->late);
    arena_done(&s->arena);
    free(s);
}
DEFINE_AUTO(struct slot, cpu_slot_close)

int cpu_slot_open(struct exe *x, struct slot **ret, struct err *err)
{
    AUTO(cpu_slot_close) struct slot *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->exe = x;
    arena_init(&s->arena);
    if (x->group) {
        int r = crew_open(x, &s->crew, err);
        if (r == 0)
            *ret = TAKE(s);
        return r;
    }
    if (slot_fill(s) < 0 || dnnl_stream_create(&s->stream, x->part->dev->dn.engine,
                                               dnnl_stream_default_flags) != dnnl_success)
        return err_set(err, -ENOMEM, "no memory for a slot of %zu bytes", x->slot_bytes);
    *ret = TAKE(s);
    return 0;
}

static void patch_to(struct slot *s, struct patch *p, const void *to)
{
    if (p->now == to)
        return;
    p->now = to;
    for (uint32_t i = 0; i < p->n; i++) {
        char *at = (char *)to + p->offset[i];
        s->ptr[p->arg[i]] = at;
        if (s->arg[p->arg[i]].memory)
            (void)dnnl_memory_set_data_handle(s->arg[p->arg[i]].memory, at);
    }
}

/* Rows beyond those of the requests are zero: an index there must not point outside. */
static void gather(const struct exe *x, uint32_t i, const struct io *io, char *to)
{
    size_t each = x->in[i].row_bytes, at = 0;

    for (uint32_t k = 0; k < io->n_parts; k++) {
        size_t n = io->part[k].rows * each;
        if (n)
            memcpy(to + at, io->part[k].in[i], n);
        at += n;
    }
    memset(to + at, 0, x->in[i].bytes - at);
}

static void scatter(const struct exe *x, uint32_t i, const struct io *io, const char *from)
{
    size_t each = x->out[i].row_bytes;

    for (uint32_t k = 0; k < io->n_parts; k++) {
        size_t n = each ? io->part[k].rows * each : x->out[i].bytes;
        if (n)
            memcpy(io->part[k].out[i], from, n);
        from += each ? n : 0;
    }
}

#define ROW_ALIGN 64 /* as the arena's buffers and a request's tensors begin */

/* A row must not be computed in another way because of where it lies. */
static bool placed_alike(const struct exe *x, const void *at)
{
    return !x->placed_alike || (uintptr_t)at % ROW_ALIGN == 0;
}

static bool is_whole(const struct exe *x, const struct io *io)
{
    return io->n_parts == 1 && io->part[0].rows == x->batch;
}

/* An input without a batch dimension is the same for all: the first request's. */
static bool direct_in(const struct exe *x, uint32_t i, const struct io *io)
{
    return x->in[i].row_bytes == 0 || (is_whole(x, io) && placed_alike(x, io->part[0].in[i]));
}

static bool direct_out(const struct exe *x, uint32_t i, const struct io *io)
{
    bool whole = is_whole(x, io) || (io->n_parts == 1 && x->out[i].row_bytes == 0);

    return !x->late_outputs && whole && placed_alike(x, io->part[0].out[i]);
}

static void *own_place(const struct slot *s, const struct port *p)
{
    return s->memory + s->exe->buf[p->buf].offset;
}

static void io_begin(struct slot *s, unsigned from, const struct io *io)
{
    const struct exe *x = s->exe;

    for (uint32_t i = 0; i < x->n_in; i++) {
        char *own = own_place(s, &x->in[i]);
        bool direct = direct_in(x, i, io);
        patch_to(s, &s->in[i], direct ? io->part[0].in[i] : own);
        if (!direct && from == 0 && s->in[i].n)
            gather(x, i, io, own);
    }
    for (uint32_t i = 0; i < x->n_out; i++)
        if (x->out[i].buf != BUF_NONE)
            patch_to(s, &s->out[i],
                     direct_out(x, i, io) ? io->part[0].out[i] : own_place(s, &x->out[i]));
}

static void io_end(struct slot *s, const struct io *io)
{
    const struct exe *x = s->exe;

    for (uint32_t i = 0; i < x->n_out && !x->late_outputs; i++)
        if (!direct_out(x, i, io))
            scatter(x, i, io, own_place(s, &x->out[i]));
}

struct pieces {
    const struct step *step;
    void *const *ptr;
    unsigned n;
    atomic_int rc;
};

static void run_piece(void *ctx, unsigned i)
{
    struct pieces *p = ctx;
    int r = p->step->call.piece(p->step->call.params, p->ptr, i, p->n);

    if (r < 0)
        p->rc = r;
}

static int run_pieces(const struct step *step, void *const *ptr, unsigned n_threads)
{
    struct pieces p = {.step = step, .ptr = ptr, .n = n_threads};

    dn_team(n_threads, run_piece, &p);
    return p.rc;
}

static int run_step(struct slot *s, uint32_t i, struct err *err)
{
    const struct step *step = &s->exe->step[i];
    uint32_t at = s->first[i];

    if (step->is_prim)
        return dnnl_primitive_execute(step->prim.p, s->stream, (int)step->n_arg, s->arg + at) ==
                       dnnl_success
                   ? 0
                   : -EIO;
    if (step->is_late)
        return late_run(&s->exe->late, &s->late, s->ptr + at, s->exe->part->dev->run_bytes, err);
    if (step->in_pieces)
        return run_pieces(step, s->ptr + at, s->exe->n_threads);
    return step->call.plain ? step->call.plain(step->call.params, s->ptr + at, err)
                            : step->call.run(step->call.params, s->ptr + at);
}

static int run_steps(struct slot *s, unsigned from, unsigned to)
{
    const struct exe *x = s->exe;
    int r = 0;

    for (uint32_t i = x->first_step[from]; i < x->first_step[to] && r == 0; i++)
        r = run_step(s, i, &s->why);
    return r;
}

int cpu_run(struct slot *s, unsigned from, unsigned to, const struct io *io)
{
    s->why = (struct err){0};
    if (s->crew)
        return from < to ? crew_run(s->crew, io, &s->why) : 0;
    if (io)
        io_begin(s, from, io);
    int r = run_steps(s, from, to);
    if (r == 0 && io && to == s->exe->n_segments)
        io_end(s, io);
    return r;
}

const struct err *cpu_slot_why(const struct slot *s)
{
    return &s->why;
}

int cpu_submit(struct slot *s, unsigned lane, unsigned from, unsigned to, const struct io *io,
               ticket *ret)
{
    struct exe *x = s->exe;
    struct part *p = x->part;
    uint64_t start = clock_now_ns();

    (void)lane; /* one core: lanes take turns */
    if (p->n_done == MAX_DONE)
        return -EAGAIN;
    if (from > to || to > x->n_segments)
        return -EINVAL;
    int rc = cpu_run(s, from, to, io);
    *ret = ++p->last;
    p->done[p->n_done++] = (struct done){.ticket = *ret,
                                         .rc = rc,
                                         .run_ns = clock_now_ns() - start,
                                         .why = rc < 0 && s->why.code ? s->why.msg : NULL};
    return 0;
}

/* The inputs anew before each run: one may use their place for something else. */
void cpu_slot_home(struct slot *s)
{
    const struct exe *x = s->exe; /* without ports when it runs by groups */

    for (uint32_t i = 0; i < x->n_in; i++)
        patch_to(s, &s->in[i], own_place(s, &x->in[i]));
    for (uint32_t i = 0; i < x->n_out; i++)
        if (x->out[i].buf != BUF_NONE) /* late ones have none */
            patch_to(s, &s->out[i], own_place(s, &x->out[i]));
    for (uint32_t i = 0; i < x->n_in; i++)
        memset(own_place(s, &x->in[i]), 0, x->in[i].bytes);
}

void cpu_outputs(const struct slot *s, struct tensor *ret)
{
    const struct exe *x = s->exe;
    const struct bound *b = x->late.bound;

    for (uint32_t i = 0; i < x->n_out; i++) {
        bool late = x->out[i].buf == BUF_NONE;
        ret[i] = late ? s->late.out[i] : b->value[b->graph->out[i]];
        if (!late)
            ret[i].data = own_place(s, &x->out[i]);
    }
}

/* An input that cannot be run, or not in the memory that a run may take, says nothing of the
 * model: a probe's is made up. */
static bool is_inputs_fault(int r)
{
    return r == -EINVAL || r == -ENOMEM;
}

/* On the builder's thread, but on the partition's cores; zeros are as good as any input. */
int cpu_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
              struct err *err)
{
    struct exe *x = s->exe;
    cpu_set_t before;
    int r = 0;

    if (from >= to || to > x->n_segments)
        return err_set(err, -EINVAL, "segments %u to %u: there are %u", from, to, x->n_segments);
    bool moved = sched_getaffinity(0, sizeof(before), &before) == 0 &&
                 sched_setaffinity(0, sizeof(x->part->cores), &x->part->cores) == 0;
    dn_threads(x->part->n_threads);
    for (unsigned i = 0; i <= n && r == 0; i++) { /* once more than asked: the first is warming */
        cpu_slot_home(s);
        r = cpu_run(s, 0, from, NULL);
        uint64_t start = clock_now_ns();
        if (r == 0)
            r = cpu_run(s, from, to, NULL);
        if (is_inputs_fault(r))
            r = 0;
        if (i > 0)
            ret_ns[i - 1] = clock_now_ns() - start;
    }
    if (moved)
        (void)sched_setaffinity(0, sizeof(before), &before);
    return r < 0 ? err_set(err, r, "%s", s->why.code ? s->why.msg : "the run failed") : 0;
}

/* ---- for tools: each step by itself */

static void layout_text(const struct arg *a, bool is_prim, bool blocked, char ret[16])
{
    struct layout l;

    if (a && is_prim)
        layout_of_md(&l, a->md);
    const char *text = !a                         ? "-"
                       : !is_prim                 ? (blocked ? "blocked" : "rows")
                       : layout_is_rows(&l)       ? "rows"
                       : l.channel_block          ? "blocked"
                       : l.kind == LAYOUT_STRIDED ? "strided"
                                                  : "packed";
    (void)snprintf(ret, 16, "%s", text);
}

static const struct arg *arg_named(const struct step *step, int name)
{
    for (uint32_t i = 0; i < step->n_arg; i++)
        if (step->arg[i].name == name)
            return &step->arg[i];
    return NULL;
}

static void step_describe(const struct step *step, struct step_info *ret)
{
    const struct arg *in = step->n_arg ? &step->arg[0] : NULL, *out = in;

    if (step->is_prim) {
        in = arg_named(step, DNNL_ARG_SRC);
        out = arg_named(step, DNNL_ARG_DST);
    }
    *ret = (struct step_info){.node = step->node,
                              .reorder = step->is_prim && step->prim.reorder,
                              .impl = step->is_prim      ? step->prim.impl
                                      : step->call.plain ? "plain loops"
                                      : step->call.name  ? step->call.name
                                                         : "own"};
    layout_text(in, step->is_prim, step->blocked, ret->in);
    layout_text(out, step->is_prim, step->blocked, ret->out);
}

static int by_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Of one group, as often as a thread runs one. */
static int steps_of_groups(struct slot *s, unsigned runs, struct step_info *ret, struct err *err)
{
    struct slot *one = crew_slot(s->crew);
    int r = cpu_steps(one, runs, ret, err);

    for (uint32_t i = 0; i < one->exe->n_steps && r == 0; i++)
        ret[i].median_ns *= s->exe->batch / (one->exe->batch * s->exe->n_threads);
    return r;
}

int cpu_steps(struct slot *s, unsigned runs, struct step_info *ret, struct err *err)
{
    struct exe *x = s->exe;
    AUTO(free) uint64_t *ns = calloc((size_t)MAX(runs, 1u) * MAX(x->n_steps, 1u), sizeof(*ns));
    struct err why = {0};
    int r = 0;

    if (s->crew)
        return steps_of_groups(s, runs, ret, err);
    if (!ns)
        return err_set(err, -ENOMEM, "out of memory");
    for (unsigned k = 0; k <= runs && r == 0; k++) { /* the first is warming */
        cpu_slot_home(s);
        for (uint32_t i = 0; i < x->n_steps && r == 0; i++) {
            uint64_t start = clock_now_ns();
            r = run_step(s, i, &why);
            if (k > 0)
                ns[(size_t)i * runs + k - 1] = clock_now_ns() - start;
        }
    }
    if (r < 0)
        return err_set(err, r, "%s", why.code ? why.msg : "the run failed");
    for (uint32_t i = 0; i < x->n_steps; i++) {
        step_describe(&x->step[i], &ret[i]);
        qsort(ns + (size_t)i * runs, runs, sizeof(*ns), by_ns);
        ret[i].median_ns = runs ? ns[(size_t)i * runs + runs / 2] : 0;
    }
    return 0;
}
