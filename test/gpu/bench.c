/* How fast a model runs on a GPU, beside what its graph says is the least, as lines of JSON for
 * test/gpu/run.sh.
 *
 *     bench [OPTIONS] FOLDER BATCH          in turns with somebody else
 *     bench --sizes [OPTIONS] FOLDER BATCH  on gpu-lets from small to all of it
 *     bench --steps [OPTIONS] FOLDER BATCH  each node by itself
 *     bench --count [OPTIONS] FOLDER BATCH  only what the graph says; needs no device
 *     bench --kernels [OPTIONS] BATCH       each kernel of ours beside its floor
 *     bench --rates [OPTIONS]               what the device does at best, as -r takes it
 *
 *     -p PRECISION  fp16 unless said      -t MS  how long a measurement goes on: 100
 *     -m SIDE       of the matrices by which the device's rate is measured: 8192
 *     -n TIMES      of a kernel in a run of --kernels: 8
 *     -r T,G        that rate in TFLOP/s, and of copies in GB/s, instead of measuring them
 *
 * In turns: each line on stdin asks for one, which is measured and answered by a line "turn"; at
 * the end of stdin come the results.  Who asks can measure something else in between, and is then
 * compared with us at the same temperature.  A turn measures the same executable in the same slot
 * with its captured graphs, and with launches one by one (both on the device, without copies), and
 * then from submit to the return of wait, with copies to and from the host's memory.
 *
 * All free dimensions but the batch are 1; inputs are zeros.  GATE=FILE: bench_gate.c. */
#include "bench.h"
#include "eager.h"

#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define RUNS_MIN 5
#define RUNS_MAX 200
#define RUNS_OF_SEGMENT 20 /* each behind a run of all in front of it */
#define TURNS_MAX 64

const struct backend *be;
unsigned turn_ms = 100, bench_times = 8;
static enum precision precision = PRECISION_FP16;
static unsigned side = 8192;
static struct rates known; /* 0: not measured yet */
static const char *model_name;
static int64_t batch;

/* ---- what is measured */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

void sort_values(double *value, unsigned n)
{
    qsort(value, n, sizeof(*value), by_value);
}

int subject_open(struct device *dev, unsigned n_granules, const struct compile_args *args,
                 struct subject *ret, struct err *err)
{
    struct granules set = {{0}};

    *ret = (struct subject){0};
    for (unsigned i = 0; i < n_granules; i++)
        granules_add(&set, i);
    int r = be->part_open(dev, &set, &ret->part, &ret->units, err);
    if (r == 0)
        r = be->compile(ret->part, args, &ret->exe, err);
    if (r == 0)
        r = be->slot_open(ret->exe, &ret->slot, err);
    if (r == 0)
        be->exe_info(ret->exe, &ret->info);
    return r;
}

void subject_close(struct subject *s)
{
    if (s->slot)
        be->slot_close(s->slot);
    if (s->exe)
        be->release(s->exe);
    if (s->part)
        be->part_close(s->part);
    *s = (struct subject){0};
}

int graph_ready(struct graph *g, struct err *err)
{
    int r = graph_infer(g, err);

    if (r < 0)
        return r;
    graph_analyse_batch(g);
    r = graph_settle_late(g, err);
    return r < 0 ? r : graph_cut(g, err);
}

static unsigned runs_for(double us)
{
    double n = turn_ms * 1e3 / MAX(us, 1);

    return n < RUNS_MIN ? RUNS_MIN : n > RUNS_MAX ? RUNS_MAX : (unsigned)n;
}

static int probed_us(const struct subject *s, unsigned from, unsigned to, unsigned n, double *ret,
                     struct err *err)
{
    uint64_t ns[RUNS_MAX];
    double us[RUNS_MAX];
    int r = be->probe(s->slot, from, to, n, ns, err);

    for (unsigned i = 0; i < n && r == 0; i++)
        us[i] = (double)ns[i] / 1e3;
    if (r == 0) {
        sort_values(us, n);
        *ret = us[n / 2];
    }
    return r;
}

int subject_us(const struct subject *s, unsigned from, unsigned to, double *ret, struct err *err)
{
    double about_us = 0;
    int r = probed_us(s, from, to, 3, &about_us, err);

    return r < 0 ? r : probed_us(s, from, to, runs_for(about_us), ret, err);
}

static int eager_us(const struct subject *s, double *ret, struct err *err)
{
    CUgraphExec *none = calloc(s->info.n_segments + 1, sizeof(*none));

    if (!none)
        return err_set(err, -ENOMEM, "out of memory");
    CUgraphExec *made = graphs_swap(s->slot, none);
    int r = subject_us(s, 0, s->info.n_segments, ret, err);
    (void)graphs_swap(s->slot, made);
    free(none);
    return r;
}

static bool has_graphs(const struct subject *s)
{
    for (unsigned i = 0; i < s->info.n_segments; i++)
        if (s->slot->graph[i])
            return true;
    return false;
}

static int one_served(const struct subject *s, const struct io *io, double *ret_us, struct err *err)
{
    struct done done = {.rc = -EIO};
    uint64_t start = clock_now_ns();
    ticket t;
    int r = be->submit(s->slot, 0, 0, s->info.n_segments, io, &t);

    while (r == 0 && be->wait(s->part, USEC_NEVER, &done, 1) == 0)
        ;
    *ret_us = (double)(clock_now_ns() - start) / 1e3;
    return r < 0 || done.rc < 0 ? err_set(err, r < 0 ? r : done.rc, "a run failed") : 0;
}

static int served_us(const struct subject *s, const struct io *io, double *ret, struct err *err)
{
    double us[RUNS_MAX], about_us = 0;
    int r = one_served(s, io, &about_us, err);
    unsigned n = runs_for(about_us);

    for (unsigned i = 0; i < n && r == 0; i++)
        r = one_served(s, io, &us[i], err);
    if (r == 0) {
        sort_values(us, n);
        *ret = us[n / 2];
    }
    return r;
}

/* ---- the model */
struct bench {
    const char *folder;
    struct model *m;
    struct arena arena;
    struct bound *bound;
    struct work *node, all;
    struct device *dev;
    struct device_info info;
    struct rates rates;
    struct host_region region;
    const void *in[MAX_IO];
    void *out[MAX_IO];
};

static int bind_batch(const struct graph *g, struct arena *a, struct bound **ret, struct err *err)
{
    struct shape_key key = {.n = g->n_syms};

    if (batch > 1 && g->batch_sym < 0)
        return err_set(err, -ENOTSUP, "it does not batch: %s", g->why_single);
    for (uint32_t i = 0; i < key.n; i++)
        key.dim[i] = (int32_t)i == g->batch_sym ? batch : 1;
    return graph_bind(g, &key, a, ret, err);
}

static int bench_bind(struct bench *b, const char *folder, struct err *err)
{
    int r = model_open(folder, NULL, PRECISION_FP32, &b->m, err);

    b->folder = folder;
    if (r == 0)
        r = bind_batch(model_graph(b->m), &b->arena, &b->bound, err);
    if (r == 0 && !(b->node = calloc(model_graph(b->m)->n_nodes + 1, sizeof(*b->node))))
        r = err_set(err, -ENOMEM, "out of memory");
    return r < 0 ? r : graph_work(b->bound, precision, b->node, &b->all, err);
}

/* Memory for inputs and outputs, known to the device. */
static int bench_memory(struct bench *b, struct err *err)
{
    const struct graph *g = b->bound->graph;
    size_t bytes = 0;

    for (uint32_t i = 0; i < g->n_in; i++)
        bytes += align_up(b->bound->value[g->in[i]].bytes, 4096);
    for (uint32_t i = 0; i < g->n_out; i++)
        bytes += align_up(b->bound->value[g->out[i]].bytes, 4096);
    b->region = (struct host_region){.memfd = -1, .bytes = bytes};
    b->region.base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->region.base == MAP_FAILED)
        return err_set(err, -ENOMEM, "%zu bytes of inputs and outputs", bytes);
    char *at = b->region.base;
    for (uint32_t i = 0; i < g->n_in;
         i++, at += align_up(b->bound->value[g->in[i - 1]].bytes, 4096))
        b->in[i] = at;
    for (uint32_t i = 0; i < g->n_out;
         i++, at += align_up(b->bound->value[g->out[i - 1]].bytes, 4096))
        b->out[i] = at;
    return MIN(be->host_open(b->dev, &b->region, err), 0);
}

static unsigned granules_most(const struct bench *b)
{
    return b->info.max_granules ? MIN(b->info.max_granules, b->info.n_granules)
                                : b->info.n_granules;
}

static int bench_device(struct bench *b, struct err *err)
{
    struct backend_config cfg = {0};
    struct device_info info[16];
    size_t n;
    int r = backend_find("cuda", &be, err);

    if (r == 0)
        r = be->devices(&cfg, info, ARRAY_SIZE(info), &n, err);
    if (r == 0)
        r = be->dev_open(&cfg, 0, &b->dev, err);
    if (r == 0)
        b->info = info[0];
    return r;
}

static int bench_rates(struct bench *b, struct err *err)
{
    b->rates = known;
    return known.bytes_per_s > 0
               ? 0
               : rates_measure(b->dev, granules_most(b), precision, side, &b->rates, err);
}

static void bench_close(struct bench *b)
{
    if (b->region.bytes && b->region.base != MAP_FAILED)
        be->host_close(b->dev, &b->region);
    if (b->dev)
        be->dev_close(b->dev);
    free(b->node);
    arena_done(&b->arena);
    model_free(b->m);
}

/* ---- lines */
static void line_begin(const char *way)
{
    printf("{\"case\": \"%s, batch %" PRId64 ", %s\", \"ok\": true, ", model_name, batch, way);
    printf("\"model\": \"%s\", \"batch\": %" PRId64 ", \"way\": \"%s\", \"precision\": \"%s\"",
           model_name, batch, way, precision_name(precision));
}

/* Why there is no figure. */
static void line_none(const char *way, bool ok, const char *why)
{
    char clean[sizeof(((struct err *)0)->msg)];
    size_t n = 0;

    for (const char *p = why; *p && n + 1 < sizeof(clean); p++)
        if (*p != '"' && *p != '\\')
            clean[n++] = *p;
    clean[n] = 0;
    printf("{\"case\": \"%s, batch %" PRId64 ", %s\", \"ok\": %s, \"text\": \"%s\"}\n", model_name,
           batch, way, ok ? "true" : "false", clean);
}

static void line_turns(const char *way, const double *turn, unsigned n, const char *more_of_it)
{
    double sorted[TURNS_MAX];

    memcpy(sorted, turn, n * sizeof(*turn));
    sort_values(sorted, n);
    line_begin(way);
    printf(", \"value\": %.2f, \"unit\": \"us\", \"turns\": [", sorted[n / 2]);
    for (unsigned i = 0; i < n; i++)
        printf("%s%.2f", i ? ", " : "", turn[i]);
    printf("], \"text\": \"%.2f us (%.2f to %.2f, %u turns)%s%s\"}\n", sorted[n / 2], sorted[0],
           sorted[n - 1], n, *more_of_it ? "; " : "", more_of_it);
}

static void line_work(const struct bench *b)
{
    double border = graph_border_bytes(b->bound, precision);

    line_begin("roofline");
    printf(", \"matrix_gflop\": %.6g, \"other_gflop\": %.6g, \"weights_mb\": %.6g, "
           "\"moved_mb\": %.6g, \"border_mb\": %.6g",
           b->all.matrix_flops / 1e9, b->all.other_flops / 1e9, b->all.weight_bytes / 1e6,
           b->all.moved_bytes / 1e6, border / 1e6);
    if (b->dev) {
        struct work joined = b->all;
        joined.moved_bytes = border;
        printf(", \"matrix_tflops\": %.6g, \"copy_gbs\": %.6g, \"nodes_us\": %.2f, "
               "\"least_us\": %.2f",
               b->rates.matrix_flops_per_s / 1e12, b->rates.bytes_per_s / 1e9,
               nodes_floor_us(b->node, b->bound->graph->n_nodes, &b->rates),
               work_floor_us(&joined, &b->rates));
    }
    printf(", \"text\": \"%.4g GFLOP of products, %.4g MB of weights, %.4g MB moved%s%s\"}\n",
           b->all.matrix_flops / 1e9, b->all.weight_bytes / 1e6, b->all.moved_bytes / 1e6,
           b->dev ? "; " : "", b->info.library);
}

static int gate_name(const char *more, struct err *err)
{
    char name[300];

    (void)snprintf(name, sizeof(name), "%.200s, batch %" PRId64 "%s", model_name, batch, more);
    return gate_enter(name, err);
}

/* ---- in turns */
enum way { GRAPHS, EAGER, SERVED, UNFUSED, N_WAYS };
static const char *const way_names[] = {"graphs", "eager", "served", "unfused"};

static int turn(const struct bench *b, const struct subject *s, const struct subject *unfused,
                double us[N_WAYS], struct err *err)
{
    struct io_part rows = {.rows = (uint32_t)batch, .in = b->in, .out = b->out};
    struct io io = {.n_parts = 1, .part = &rows};
    int r = subject_us(s, 0, s->info.n_segments, &us[GRAPHS], err);

    if (r == 0)
        r = eager_us(s, &us[EAGER], err);
    if (r == 0)
        r = served_us(s, &io, &us[SERVED], err);
    return r < 0 || !unfused->slot
               ? r
               : subject_us(unfused, 0, unfused->info.n_segments, &us[UNFUSED], err);
}

/* A part of the model beside the floor of its nodes: which of them is far from it? */
static int line_segments(const struct bench *b, const struct subject *s, struct err *err)
{
    const struct graph *g = b->bound->graph;
    double us[64];
    unsigned n = MIN(s->info.n_segments, (unsigned)ARRAY_SIZE(us));
    int r = 0;

    for (unsigned i = 0; i < n && r == 0; i++)
        r = probed_us(s, i, i + 1, RUNS_OF_SEGMENT, &us[i], err);
    if (r < 0)
        return r;
    line_begin("segments");
    printf(", \"segments\": [");
    for (unsigned i = 0; i < n; i++) {
        uint32_t from = i < g->n_segments ? g->cut[i] : g->n_nodes;
        uint32_t to = i < g->n_segments ? g->cut[i + 1] : g->n_nodes;
        printf("%s[%.2f, %.2f]", i ? ", " : "", us[i],
               nodes_floor_us(b->node + from, to - from, &b->rates));
    }
    printf("], \"text\": \"of %u parts, each: us, and the floor of its nodes\"}\n", n);
    return 0;
}

static void lines(const struct bench *b, const struct subject *s, double us[][TURNS_MAX],
                  unsigned n, const char *why_fused)
{
    line_work(b);
    for (enum way w = 0; w < N_WAYS; w++) {
        if (w == UNFUSED && *why_fused)
            line_none(way_names[w], true, why_fused);
        else
            line_turns(way_names[w], us[w], n,
                       w == GRAPHS && !has_graphs(s) ? "no graph was made" : s->info.note);
    }
}

static int turns(const struct bench *b, const struct subject *s, const struct subject *unfused,
                 const char *why_fused, struct err *err)
{
    double us[N_WAYS][TURNS_MAX], now[N_WAYS] = {0};
    unsigned n = 0;
    char line[16];
    int r = 0;

    printf("ready\n"); /* to whoever waits for the first turn */
    fflush(stdout);
    r = gate_name("", err);
    while (r == 0 && n < TURNS_MAX && fgets(line, sizeof(line), stdin)) {
        r = turn(b, s, unfused, now, err);
        for (unsigned w = 0; w < N_WAYS && r == 0; w++)
            us[w][n] = now[w];
        n += r == 0;
        printf("turn\n");
        fflush(stdout);
    }
    if (r < 0 || n == 0)
        return r;
    lines(b, s, us, n, why_fused);
    return line_segments(b, s, err);
}

/* Not every model can do without passes: err says why not. */
static void unfused_open(const struct bench *b, struct plain *p, struct arena *a,
                         struct subject *ret, struct err *err)
{
    struct compile_args args = {.model = model_name, .precision = precision};
    struct bound *bound;
    int r = plain_open(b->folder, p, err);

    if (r == 0)
        r = bind_batch(p->graph, a, &bound, err);
    args.bound = r == 0 ? bound : NULL;
    if (r == 0 && (r = subject_open(b->dev, granules_most(b), &args, ret, err)) < 0)
        subject_close(ret);
}

static int in_turns(struct bench *b, struct err *err)
{
    struct compile_args args = {.model = model_name, .bound = b->bound, .precision = precision};
    struct subject s = {0}, unfused = {0};
    struct plain plain = {0};
    struct err why_fused = {0};
    struct arena a;
    int r = bench_memory(b, err);

    arena_init(&a);
    if (r == 0)
        r = subject_open(b->dev, granules_most(b), &args, &s, err);
    if (r == 0) {
        unfused_open(b, &plain, &a, &unfused, &why_fused);
        r = turns(b, &s, &unfused, why_fused.msg, err);
    }
    subject_close(&unfused);
    subject_close(&s);
    arena_done(&a);
    plain_close(&plain);
    return r;
}

/* ---- sizes */
#define SIZES_MAX 16

/* From one granule to all, each twice the one before. */
static int sizes_open(const struct bench *b, struct subject *s, unsigned *ret_n, struct err *err)
{
    struct compile_args args = {.model = model_name, .bound = b->bound, .precision = precision};
    unsigned all = granules_most(b), g = 1, n = 0;
    int r = 0;

    do {
        r = subject_open(b->dev, g, &args, &s[n++], err);
    } while (r == 0 && g != all && n < SIZES_MAX && (g = MIN(2 * g, all)));
    *ret_n = n;
    return r;
}

static void line_sizes(const struct subject *s, const double *us, unsigned n)
{
    unsigned best = 0;

    line_begin("by size");
    printf(", \"sizes\": [");
    for (unsigned i = 0; i < n; i++) {
        printf("%s[%u, %.2f]", i ? ", " : "", s[i].units, us[i]);
        if (us[i] * s[i].units < us[best] * s[best].units)
            best = i;
    }
    /* In a second and on an SM, of the best size over all of the device. */
    double ratio = us[n - 1] * s[n - 1].units / MAX(us[best] * s[best].units, 1e-3);
    printf("], \"value\": %.3f, \"unit\": \"x\", \"best_units\": %u, \"text\": \"rows a second and "
           "SM: on %u SMs %.2f of those on %u\"}\n",
           ratio, s[best].units, s[best].units, ratio, s[n - 1].units);
}

static int sizes(struct bench *b, struct err *err)
{
    struct subject s[SIZES_MAX];
    double us[SIZES_MAX];
    unsigned n = 0;
    int r = sizes_open(b, s, &n, err);

    if (r == 0)
        r = gate_name(", by size", err);
    for (unsigned i = 0; i < n && r == 0; i++)
        r = subject_us(&s[i], 0, s[i].info.n_segments, &us[i], err);
    if (r == 0)
        line_sizes(s, us, n);
    while (n > 0)
        subject_close(&s[--n]);
    return r;
}

/* ---- steps */
static int steps(struct bench *b, struct err *err)
{
    struct compile_args args = {.model = model_name, .bound = b->bound, .precision = precision};
    struct subject s = {0};
    int r = cut_each((struct graph *)(uintptr_t)b->bound->graph, err);

    if (r == 0)
        r = subject_open(b->dev, granules_most(b), &args, &s, err);
    if (r == 0) {
        line_begin("steps");
        r = steps_measure(&s, b->bound->graph, err);
    }
    subject_close(&s);
    return r;
}

/* ---- */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* ---- what it can be asked for */
static int line_rates(struct bench *b, struct err *err)
{
    (void)err;
    printf("%.6g,%.6g\n", b->rates.matrix_flops_per_s / 1e12, b->rates.bytes_per_s / 1e9);
    return 0;
}
static int kernels(struct bench *b, struct err *err)
{
    return kernels_measure(b->dev, granules_most(b), batch, &b->rates, err);
}
static int count(struct bench *b, struct err *err)
{
    (void)err;
    line_work(b);
    return 0;
}
static const struct what {
    const char *name; /* --NAME [OPTIONS], and so many arguments, the last of which is the batch */
    int (*run)(struct bench *b, struct err *err);
    int n_args;
    bool device, rates;
    const char *fails; /* the case that tells why there is nothing */
} whats[] = {
    {"", in_turns, 2, true, true, "graphs"},      {"--sizes", sizes, 2, true, false, "by size"},
    {"--steps", steps, 2, true, false, "steps"},  {"--count", count, 2, false, false, "graphs"},
    {"--kernels", kernels, 1, true, true, "all"}, {"--rates", line_rates, 0, true, true, "rates"}};

static const struct what *what_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(whats); i++)
        if (STREQ(whats[i].name, name))
            return &whats[i];
    return NULL;
}

static bool rates_read(const char *text)
{
    double t, g;

    if (sscanf(text, "%lf,%lf", &t, &g) != 2 || !(t > 0) || !(g > 0))
        return false;
    known = (struct rates){.matrix_flops_per_s = t * 1e12, .bytes_per_s = g * 1e9};
    return true;
}

static bool options(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "p:t:m:n:r:")) != -1)
        if (c == 'p'   ? precision_of(optarg, &precision) < 0
            : c == 't' ? (turn_ms = (unsigned)atoi(optarg)) < 1
            : c == 'm' ? (side = (unsigned)atoi(optarg)) < 1
            : c == 'n' ? (bench_times = (unsigned)atoi(optarg)) < 1 || bench_times > 32
            : c == 'r' ? !rates_read(optarg)
                       : true)
            return false;
    return true;
}

static int run(const struct what *what, const char *folder, struct bench *b, struct err *err)
{
    int r = folder ? bench_bind(b, folder, err) : 0;

    if (r == 0 && what->device)
        r = bench_device(b, err);
    if (r == 0 && what->rates)
        r = bench_rates(b, err);
    return r < 0 ? r : what->run(b, err);
}

int main(int argc, char **argv)
{
    const char *named = argc > 1 && argv[1][0] == '-' && argv[1][1] == '-' ? argv[1] : "";
    const struct what *what = what_of(named);
    struct bench b = {0};
    struct err err = {0};

    argc -= *named != 0;
    argv += *named != 0;
    if (!what || !options(argc, argv) || argc - optind != what->n_args ||
        (what->n_args > 0 && (batch = atoll(argv[argc - 1])) < 1))
        return 2;
    const char *folder = what->n_args > 1 ? argv[optind] : NULL;
    model_name = folder ? base_name(folder) : named + 2;
    arena_init(&b.arena);
    int r = run(what, folder, &b, &err);
    if (r < 0)
        line_none(what->fails, false, err.msg);
    bench_close(&b);
    return r < 0;
}
