/* Where does a process die on a GPU, if it dies?  Steps from nothing to a model, each a little more
 * than the one before; run.sh gives each a process of its own.
 *
 *     ladder --list | NAME
 *
 * Says "#   " and what it is about to do, line by line, so that one that dies has said how far it
 * came; then "ok - NAME", "not ok - NAME", or "none - NAME" where this machine has not what it is
 * about. */
#include "../graph_build.h"
#include "eager.h"
#include "facts_driver.h"

#include <gpulet/backend.h>
#include <lib/backend/cuda/nvml.h>
#include <stdio.h>

#define SIDE 64
#define NO_GRAPHS ((size_t)1 << 40) /* as if others had all that graphs may take */

static struct err err;

static void about_to(const char *what)
{
    printf("#   %s\n", what);
    fflush(stdout);
}

/* ---- the driver alone */
static int driver_there(void)
{
    char version[NVML_TEXT];
    int n = 0;

    about_to("cuInit");
    int r = driver_open(&err);
    if (r == 0)
        r = GPU(device_count(&n), &err);
    if (r == 0 && n == 0)
        r = err_set(&err, -ENODEV, "the driver sees no GPU");
    if (r < 0)
        return r;
    about_to("NVML");
    nvml_driver_version(version); /* before a context, as the plug-in does */
    return 0;
}

static int nvml_beside_a_context(void)
{
    char version[NVML_TEXT];
    int r = driver_there();

    about_to("a context");
    if (r == 0)
        r = facts_driver_open(&err);
    about_to("NVML beside it");
    nvml_driver_version(version);
    about_to(version[0] ? version : "there is no NVML");
    facts_driver_close();
    about_to("NVML behind it");
    nvml_driver_version(version);
    return r;
}

/* A kernel of ours, captured by hand. */
static int capture(const struct code *c, CUstream s, CUgraph *ret)
{
    struct place_args nothing = {0};

    about_to("begin to capture");
    int r = GPU(capture_begin(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), &err);
    for (unsigned i = 0; i < 2 && r == 0; i++)
        r = code_run(c->place, 1, &nothing, s, &err);
    about_to("end it");
    return r < 0 ? r : GPU(capture_end(s, ret), &err);
}

static int replay(const struct code *c, CUstream s, CUgraph *graph, CUgraphExec *exec)
{
    int r = capture(c, s, graph);

    about_to("instantiate");
    if (r == 0)
        r = GPU(graph_make(exec, *graph, 0), &err);
    about_to("upload");
    if (r == 0)
        r = GPU(graph_upload(*exec, s), &err);
    if (r == 0)
        r = GPU(stream_wait(s), &err);
    about_to("launch");
    if (r == 0)
        r = GPU(graph_launch(*exec, s), &err);
    return r < 0 ? r : GPU(stream_wait(s), &err);
}

static int captured_by_hand(void)
{
    struct code c = {0};
    struct let l = {0};
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    int r = driver_there();

    about_to("a context, a stream, a kernel");
    if (r == 0)
        r = facts_driver_open(&err);
    if (r == 0)
        r = let_open(&l, NULL, &err);
    if (r == 0)
        r = code_open(&c, &err);
    if (r == 0)
        r = replay(&c, l.stream, &graph, &exec);
    about_to("end");
    if (exec)
        (void)cu.graph_exec_destroy(exec);
    if (graph)
        (void)cu.graph_destroy(graph);
    code_close(&c);
    let_close(&l);
    facts_driver_close();
    return r;
}

/* ---- through the plug-in: small models */
static void ours_one(void)
{
    output(op(OP_Transpose, "perm=1,0", 1, input("x", "64 64")));
}

static void ours_two(void)
{
    output(
        op(OP_CumSum, "", 2, op(OP_Transpose, "perm=1,0", 1, input("x", "64 64")), int_scalar(0)));
}

static void product(void)
{
    uint32_t y = op(OP_MatMul, "", 2, input("x", "64 64"), weights("64 64"));

    output(op(OP_Transpose, "perm=1,0", 1, y));
}

static void convolution(void)
{
    uint32_t x = op(OP_Reshape, "", 2, input("x", "64 64"), ints(4, 1, 8, 16, 32));

    output(
        op(OP_CumSum, "", 2, op(OP_Conv, "pads=1,1,1,1", 2, x, weights("8 8 3 3")), int_scalar(3)));
}

/* Of two launches each. */
static void segments(void)
{
    uint32_t x = input("x", "64 64");

    for (unsigned i = 0; i < 4; i++)
        x = i % 2 ? op(OP_CumSum, "", 2, x, int_scalar(0)) : op(OP_Transpose, "perm=1,0", 1, x);
    output(x);
    g->n_segments = 2;
    g->cut = ARENA_ARRAY(&g->arena, uint32_t, 3);
    assert(g->cut);
    g->cut[1] = 2;
    g->cut[2] = 4;
}

/* How a step has its model. */
struct how {
    void (*graph)(void);
    unsigned launches, graphs; /* at least; just so many */
    bool library, unmeasured;  /* one launch is a library's; with its favourite algorithm */
    bool entered;              /* the partition has an executor: it is compiled beside it */
};
struct
try {
    const struct backend *be;
    const struct how *how;
    struct device *dev;
    struct part *part;
    struct arena arena;
    struct bound *bound;
    struct exe *exe;
    struct slot *slot;
    float x[SIDE * SIDE], y[SIDE * SIDE];
};

static int device_open(struct try *t)
{
    struct backend_config cfg = {0};
    struct device_info info[16];
    size_t n;

    about_to("the plug-in");
    int r = backend_find("cuda", &t->be, &err);
    about_to("its devices");
    if (r == 0)
        r = t->be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err);
    about_to("device 0");
    return r < 0 ? r : t->be->dev_open(&cfg, 0, &t->dev, &err);
}

static int part_open(struct try *t)
{
    struct granules set = {{0}};
    uint32_t units;
    int r = device_open(t);

    granules_add(&set, 0);
    about_to("a partition");
    return r < 0 ? r : t->be->part_open(t->dev, &set, &t->part, &units, &err);
}

static int model_make(struct try *t)
{
    struct shape_key key = {0};

    start(17);
    t->how->graph();
    g->batch_sym = -1;
    int r = graph_infer(g, &err);
    return r < 0 ? r : graph_bind(g, &key, &t->arena, &t->bound, &err);
}

static unsigned launches(const struct exe *x, bool library)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < x->n_steps; i++)
        n += !library || x->step[i].call;
    return n;
}

/* Is it what the step is about? */
static int compiled_so(const struct try *t)
{
    const struct how *how = t->how;

    if (how->library && launches(t->exe, true) == 0)
        return err_set(&err, -ENOTSUP, "the library is not there, or refuses it");
    return launches(t->exe, false) >= how->launches
               ? 0
               : err_set(&err, -EIO, "it is %u launches, not %u", launches(t->exe, false),
                         how->launches);
}

static int slot_open(struct try *t)
{
    struct compile_args args = {.model = "ladder", .bound = t->bound};
    struct choices *had = t->dev->choices;

    if (t->how->entered)
        t->be->part_enter(t->part);
    about_to(t->how->unmeasured ? "compile, the library's favourite" : "compile");
    if (t->how->unmeasured)
        t->dev->choices = NULL;
    int r = t->be->compile(t->part, &args, &t->exe, &err);
    t->dev->choices = had;
    if (r == 0)
        r = compiled_so(t);
    if (r == 0 && t->how->entered && !t->part->workshop)
        r = err_set(&err, -EIO, "there is no place to compile in");
    if (r < 0)
        return r;
    about_to(t->how->graphs ? "a slot, with graphs" : "a slot, without a graph");
    t->part->graph_bytes += t->how->graphs ? 0 : NO_GRAPHS;
    r = t->be->slot_open(t->exe, &t->slot, &err);
    t->part->graph_bytes -= t->how->graphs ? 0 : NO_GRAPHS;
    return r;
}

static unsigned graphs_of(const struct try *t)
{
    const struct exe *x = t->exe;
    unsigned n = 0;

    for (unsigned i = 0; i < x->n_segments + (x->n_segments > 1); i++)
        n += t->slot->graph[i] != NULL;
    return n;
}

static int run(struct try *t)
{
    const void *in[] = {t->x};
    void *out[] = {t->y};
    struct io_part whole = {.rows = 1, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    struct done done = {.rc = -EIO};
    ticket out_of = 0;

    if (graphs_of(t) != t->how->graphs)
        return err_set(&err, -EIO, "it has %u graphs, not %u: %s", graphs_of(t), t->how->graphs,
                       t->exe->note);
    about_to("run");
    int r = t->be->submit(t->slot, 0, 0, t->exe->n_segments, &io, &out_of);
    about_to("wait for it");
    if (r == 0 && t->be->wait(t->part, USEC_NEVER, &done, 1) == 1)
        r = done.rc;
    return r < 0 ? err_set(&err, r, "the run failed: %s", done.why ? done.why : "no reason given")
                 : 0;
}

/* What the reference says. */
static int right(struct try *t)
{
    struct tensor *value = ARENA_ARRAY(&t->arena, struct tensor, g->n_values);
    struct graph_run all = {.graph = g, .value = value, .arena = &t->arena};
    float off = 0, most = 0;

    assert(value);
    value[g->in[0]] = t->bound->value[g->in[0]];
    value[g->in[0]].data = t->x;
    int r = graph_run(&all, &err);
    const float *want = r == 0 ? value[g->out[0]].data : NULL;
    for (unsigned i = 0; want && i < SIDE * SIDE; i++) {
        off = fmaxf(off, fabsf(want[i] - t->y[i]));
        most = fmaxf(most, fabsf(want[i]));
    }
    if (r == 0 && !(off <= 1e-4f * most))
        r = err_set(&err, -EIO, "off by %g of %g", (double)off, (double)most);
    return r;
}

static void try_close(struct try *t)
{
    about_to("end");
    if (t->slot)
        t->be->slot_close(t->slot);
    if (t->exe)
        t->be->release(t->exe);
    if (t->part)
        t->be->part_close(t->part);
    if (t->dev)
        t->be->dev_close(t->dev);
    arena_done(&t->arena);
    graph_free(g);
}

static int model(const struct how *how)
{
    static struct try t;

    t.how = how;
    arena_init(&t.arena);
    for (unsigned i = 0; i < SIDE * SIDE; i++)
        t.x[i] = (float)(i * 7 % 11) - 5;
    int r = part_open(&t);
    if (r == 0 && how->graph) {
        r = model_make(&t);
        if (r == 0)
            r = slot_open(&t);
        if (r == 0)
            r = run(&t);
        if (r == 0)
            r = right(&t);
    }
    try_close(&t);
    return r;
}

/* ---- the steps */
static const struct {
    const char *name;
    int (*alone)(void); /* NULL: how */
    struct how how;
} all[] = {
    {"the driver", driver_there, {0}},
    {"NVML beside a context", nvml_beside_a_context, {0}},
    {"two launches captured by hand", captured_by_hand, {0}},
    {"a partition", NULL, {0}},
    {"one launch", NULL, {ours_one, 1, 0, false, false, false}},
    {"two launches without a graph", NULL, {ours_two, 2, 0, false, false, false}},
    {"two launches as a graph", NULL, {ours_two, 2, 1, false, false, false}},
    {"a product, unmeasured, without a graph", NULL, {product, 2, 0, true, true, false}},
    {"a product, unmeasured, in a graph", NULL, {product, 2, 1, true, true, false}},
    {"a product, measured, in a graph", NULL, {product, 2, 1, true, false, false}},
    {"a convolution, unmeasured, without a graph", NULL, {convolution, 2, 0, true, true, false}},
    {"a convolution, unmeasured, in a graph", NULL, {convolution, 2, 1, true, true, false}},
    {"a convolution, measured, in a graph", NULL, {convolution, 2, 1, true, false, false}},
    {"two segments, and a graph of both", NULL, {segments, 4, 3, false, false, false}},
    {"a product, compiled beside an executor", NULL, {product, 2, 1, true, false, true}},
    {"a convolution, compiled beside an executor", NULL, {convolution, 2, 1, true, false, true}},
};

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (STREQ(argv[1], "--list"))
            puts(all[i].name);
        if (!STREQ(argv[1], all[i].name))
            continue;
        int r = all[i].alone ? all[i].alone() : model(&all[i].how);
        if (r < 0)
            printf("#   %s\n", err.msg);
        printf("%s - %s\n", r == 0 ? "ok" : r == -ENOTSUP ? "none" : "not ok", all[i].name);
        return r < 0 && r != -ENOTSUP;
    }
    return STREQ(argv[1], "--list") ? 0 : 2;
}
