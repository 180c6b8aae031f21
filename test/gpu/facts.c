/* What a GPU is and what its partitions cost, as lines of JSON for test/gpu/run.sh.
 *
 *     facts --device | MODEL-FOLDER
 *
 * --device: what the first one is, in a line of text.
 * Each mode that can be had: its devices, how long opening and closing a partition of one granule
 * takes, and how long a run of the model from submit() to the return of wait(). */
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <stdio.h>

#define TRIES 15
#define RUNS 200

static const struct backend *be;
static const char *mode;

static void fact(const char *what, const char *text)
{
    printf("{\"case\": \"%s: %s\", \"ok\": true, \"text\": \"%s\"}\n", mode, what, text);
    fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Median and extremes. */
static void times(const char *what, uint64_t *ns, unsigned n)
{
    char text[120];

    qsort(ns, n, sizeof(*ns), by_value);
    (void)snprintf(text, sizeof(text), "%.1f us (%.1f to %.1f, %u times)", (double)ns[n / 2] / 1e3,
                   (double)ns[0] / 1e3, (double)ns[n - 1] / 1e3, n);
    fact(what, text);
}

static int partitions(struct device *dev, struct err *err)
{
    uint64_t open_ns[TRIES], close_ns[TRIES];
    struct granules set = {{1}};
    uint32_t units = 0;
    struct part *p;
    char text[64];

    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t start = clock_now_ns();
        int r = be->part_open(dev, &set, &p, &units, err);
        if (r < 0)
            return r;
        open_ns[i] = clock_now_ns() - start;
        start = clock_now_ns();
        be->part_close(p);
        close_ns[i] = clock_now_ns() - start;
    }
    (void)snprintf(text, sizeof(text), "%u SMs", units);
    fact("a partition of one granule", text);
    times("opening it", open_ns, TRIES);
    times("closing it", close_ns, TRIES);
    return 0;
}

static int turns(struct part *p, struct slot *s, uint32_t n_segments, const struct io *io,
                 struct err *err)
{
    uint64_t ns[RUNS];
    struct done done = {.rc = -EIO};
    ticket t;

    for (unsigned i = 0; i < RUNS; i++) {
        uint64_t start = clock_now_ns();
        int r = be->submit(s, 0, 0, n_segments, io, &t);
        while (r == 0 && be->wait(p, USEC_NEVER, &done, 1) == 0)
            ;
        if (r < 0 || done.rc < 0)
            return err_set(err, r < 0 ? r : done.rc, "a run failed");
        ns[i] = clock_now_ns() - start;
    }
    times("a run, from submit to its end being told", ns, RUNS);
    return 0;
}

/* In pageable memory: what the copies cost here is not what they cost in a slab. */
static int runs(struct device *dev, const struct graph *g, struct err *err)
{
    struct shape_key key = {.n = g->n_syms};
    void *in[MAX_IO] = {NULL}, *out[MAX_IO] = {NULL};
    struct io_part whole = {.rows = 1, .in = (const void *const *)in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    struct granules set = {{1}};
    struct exe_info info;
    struct part *p = NULL;
    struct exe *x = NULL;
    struct slot *s = NULL;
    struct arena a;
    struct bound *b;
    uint32_t units;

    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = 1;
    arena_init(&a);
    int r = graph_bind(g, &key, &a, &b, err);
    for (uint32_t i = 0; i < g->n_in && r == 0; i++)
        if (!(in[i] = arena_alloc(&a, b->value[g->in[i]].bytes)))
            r = err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < g->n_out && r == 0; i++)
        if (!(out[i] = arena_alloc(&a, b->value[g->out[i]].bytes)))
            r = err_set(err, -ENOMEM, "out of memory");
    struct compile_args args = {.model = "facts", .bound = r == 0 ? b : NULL};
    if (r == 0)
        r = be->part_open(dev, &set, &p, &units, err);
    if (r == 0)
        r = be->compile(p, &args, &x, err);
    if (r == 0)
        r = be->slot_open(x, &s, err);
    if (r == 0) {
        be->exe_info(x, &info);
        r = turns(p, s, info.n_segments, &io, err);
    }
    if (s)
        be->slot_close(s);
    if (x)
        be->release(x);
    if (p)
        be->part_close(p);
    arena_done(&a);
    return r;
}

static int look(const struct graph *g, struct err *err)
{
    struct backend_config cfg = {0};
    struct device_info info[16];
    struct device *dev = NULL;
    char text[400];
    size_t n;

    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    int r = be->devices(&cfg, info, ARRAY_SIZE(info), &n, err);
    for (size_t i = 0; i < n && r == 0; i++) {
        (void)snprintf(text, sizeof(text), "%s, %u granules of %u SMs, %s; %s", info[i].kind,
                       info[i].n_granules, info[i].granule_units, info[i].library, info[i].why);
        fact(info[i].name, text);
    }
    if (r == 0)
        r = be->dev_open(&cfg, 0, &dev, err);
    if (r == 0)
        r = partitions(dev, err);
    if (r == 0)
        r = runs(dev, g, err);
    if (dev)
        be->dev_close(dev);
    return r;
}

static int name_device(void)
{
    static const char *const modes[] = {"cores", "sim", "mps", "green", "mig", "shared"};
    struct backend_config cfg = {0};
    struct device_info info[16];
    struct err err = {0};
    size_t n;

    if (backend_find("cuda", &be, &err) < 0 ||
        be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    printf("%s, %s, %s\n", info[0].kind, info[0].library, modes[info[0].mode]);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const modes[] = {"green", "mps", "mig", "shared"};
    struct model *m = NULL;
    struct err err = {0};
    bool bad = false;

    if (argc != 2)
        return 2;
    if (STREQ(argv[1], "--device"))
        return name_device();
    mode = "start";
    if (model_open(argv[1], NULL, PRECISION_FP32, &m, &err) < 0 ||
        backend_find("cuda", &be, &err) < 0) {
        printf("{\"case\": \"the plug-in opens\", \"ok\": false, \"text\": \"%s\"}\n", err.msg);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        mode = modes[i];
        int r = look(model_graph(m), &err);
        if (r == -ENOTSUP) { /* not on this machine: a fact, too */
            fact("cannot be had", err.msg);
        } else if (r < 0) {
            printf("{\"case\": \"%s\", \"ok\": false, \"text\": \"%s\"}\n", mode, err.msg);
            bad = true;
        }
    }
    model_free(m);
    return bad;
}
