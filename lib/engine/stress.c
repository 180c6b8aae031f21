/* A neighbour made to measure what neighbours do: a graph that does nothing but stream memory (Add
 * of arrays that no cache holds), compiled by the backend like any model, in a partition of its
 * own.  While it is on, a thread runs it again and again with the backend's probe(), as submit()
 * returns late or at once, as the backend likes, and wants data of a request's.  The thread ends
 * with its last run, before stressor_off() returns. */
#include "engine_priv.h"

#include <stdlib.h>

#define LEAST_BYTES ((uint64_t)96 << 20) /* of all arrays of a step: more than caches have */
#define STEP_US 60     /* on a faster device they are larger: a step is longer than its launch */
#define MEMORY_PART 16 /* of the device's memory at most */
#define RUN_US 16000   /* a run is as many steps as that takes: there are gaps between runs */
#define STEPS_MAX 256
#define MEM_BYTES_PER_S 5e9 /* of a device that does not say */
#define ARRAYS 3            /* a step reads two and writes one */

struct stressor {
    struct engine *e;
    struct graph *graph;
    struct arena arena; /* of what is bound */
    struct part *part;
    struct exe *exe;
    struct slot *slot;
    /* while it is on */
    pthread_t thread;
    bool running;
    _Atomic bool stop;
    _Atomic uint32_t n; /* runs that are over; the last STRESS_RUNS_MAX of them: */
    uint64_t ns[STRESS_RUNS_MAX];
    int rc; /* read after the thread has ended */
};

/* ---- the graph: x0 = a + b, x1 = x0 + b, … */
static int value_add(struct graph *g, const char *name, int64_t elems, uint32_t *ret)
{
    const struct dim d = {.scale = elems, .sym = SYM_CONST};

    return graph_add_value(g, name, DT_FP32, 1, &d, ret);
}

static int steps_add(struct graph *g, int64_t elems, uint32_t n_steps)
{
    uint32_t in[2], out, node;
    int r = value_add(g, "a", elems, &in[0]);

    if (r == 0)
        r = value_add(g, "b", elems, &in[1]);
    for (uint32_t i = 0; i < 2 && r == 0; i++)
        g->in[g->n_in++] = in[i];
    for (uint32_t i = 0; i < n_steps && r == 0; i++) {
        r = value_add(g, "x", elems, &out);
        if (r == 0)
            r = graph_add_node(g, "add", OP_Add, 2, in, 1, &out, &node);
        in[0] = out;
    }
    if (r == 0)
        g->out[g->n_out++] = in[0];
    return r;
}

static int graph_make(const struct device_info *d, struct graph **ret, struct err *err)
{
    double per_s = d->mem_bytes_per_s > 0 ? d->mem_bytes_per_s : MEM_BYTES_PER_S;
    uint64_t bytes = MAX(LEAST_BYTES, (uint64_t)(per_s * STEP_US / 1e6));

    if (d->mem_bytes)
        bytes = MIN(bytes, d->mem_bytes / MEMORY_PART);
    double step_us = (double)bytes / per_s * 1e6;
    uint32_t n_steps = (uint32_t)MIN(MAX(RUN_US / MAX(step_us, 1.0), 1.0), STEPS_MAX);
    int64_t elems = (int64_t)MAX(bytes / ARRAYS / sizeof(float), UINT64_C(1));
    AUTO(graph_free) struct graph *g = graph_new(13);

    if (!g || steps_add(g, elems, n_steps) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    int r = graph_infer(g, err);
    if (r < 0)
        return r;
    graph_analyse_batch(g);
    *ret = TAKE(g);
    return 0;
}

/* ---- life; builder */
static int stressor_build(struct stressor *s, uint32_t device, const struct granules *set,
                          struct err *err)
{
    const struct backend *b = s->e->b;
    const struct shape_key none = {.n = 0};
    struct compile_args args = {.model = "(stressor)"};
    struct bound *bound = NULL;
    uint32_t units;
    int r = graph_make(&s->e->device[device].info, &s->graph, err);

    if (r == 0)
        r = graph_bind(s->graph, &none, &s->arena, &bound, err);
    args.bound = bound;
    if (r == 0)
        r = WATCHED(&s->e->watch, "part_open",
                    b->part_open(s->e->device[device].dev, set, &s->part, &units, err));
    if (r == 0)
        r = WATCHED(&s->e->watch, "compile", b->compile(s->part, &args, &s->exe, err));
    if (r == 0)
        r = WATCHED(&s->e->watch, "slot_open", b->slot_open(s->exe, &s->slot, err));
    return r;
}

int stressor_new(struct engine *e, uint32_t device, const struct granules *set,
                 struct stressor **ret, struct err *err)
{
    struct stressor *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->e = e;
    arena_init(&s->arena);
    int r = stressor_build(s, device, set, err);
    if (r < 0)
        stressor_free(s);
    else
        *ret = s;
    return r;
}

void stressor_free(struct stressor *s)
{
    if (!s)
        return;
    assert(!s->running);
    const struct backend *b = s->e->b;
    watch_enter(&s->e->watch, "release", clock_now_us() + BUILDER_BOUND_US);
    if (s->slot)
        b->slot_close(s->slot);
    if (s->exe)
        b->release(s->exe);
    if (s->part)
        b->part_close(s->part);
    watch_leave(&s->e->watch);
    graph_free(s->graph);
    arena_done(&s->arena);
    free(s);
}

/* ---- runs */
static int run_once(struct stressor *s, struct watch *w, uint64_t *ret_ns)
{
    struct exe_info info;
    struct err err;

    s->e->b->exe_info(s->exe, &info);
    return WATCHED(w, "probe",
                   s->e->b->probe(s->slot, 0, MAX(info.n_segments, 1), 1, ret_ns, &err));
}

int stressor_run(struct stressor *s, uint64_t *ret_ns)
{
    assert(!s->running);
    return run_once(s, &s->e->watch, ret_ns);
}

static void *stressor_main(void *arg)
{
    struct stressor *s = arg;

    (void)pthread_setname_np(pthread_self(), "stressor");
    while (!atomic_load(&s->stop) && s->rc == 0) {
        uint32_t n = atomic_load(&s->n);
        s->rc = run_once(s, &s->e->stress_watch, &s->ns[n % STRESS_RUNS_MAX]);
        if (s->rc == 0)
            atomic_store(&s->n, n + 1);
    }
    atomic_store(&s->stop, true);
    return NULL;
}

int stressor_on(struct stressor *s)
{
    atomic_store(&s->stop, false);
    atomic_store(&s->n, 0);
    s->rc = 0;
    int r = -pthread_create(&s->thread, NULL, stressor_main, s);
    s->running = r == 0;
    return r;
}

bool stressor_runs(const struct stressor *s, uint32_t *ret_n)
{
    *ret_n = atomic_load(&s->n);
    return !atomic_load(&s->stop);
}

int stressor_off(struct stressor *s)
{
    atomic_store(&s->stop, true);
    (void)pthread_join(s->thread, NULL);
    s->running = false;
    return s->rc;
}

uint64_t stressor_ns(const struct stressor *s, uint32_t run)
{
    assert(!s->running && run < s->n && s->n - run <= STRESS_RUNS_MAX);
    return s->ns[run % STRESS_RUNS_MAX];
}
