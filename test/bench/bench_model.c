/* Runs a model on the CPU backend:
 *
 *     bench_model [-b BATCH] [-f OTHER] [-n RUNS] [-g CORES] [-s] [-r] [-p PARTS] [-P PRECISION]
 * [-t] FOLDER [INPUT.raw...]
 *
 * FOLDER holds model.onnx.  Inputs are raw tensors in graph order (made up when missing);
 * outputs are written to FOLDER/out-I.raw.  -f gives the free dimensions other than the batch,
 * -g takes a partition of that many cores, -s runs segment by segment, -r compiles with
 * batch_invariant.  Prints what compiling made, the memory taken, and the median of RUNS timed
 * runs.
 *
 * -t takes turns with somebody else: each line of standard input is a number of runs, answered by
 * the median nanoseconds of one.  With -p PARTS that many gpu-lets, each with a thread, do that
 * many runs at the same time; the answer is then the time of all of them together by the number
 * of runs. */
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_PARTS 64
#define MAX_TURN 100000

struct run {
    int batch, other, runs, cores, n_parts;
    enum precision precision;
    bool by_segment, turns, batch_invariant;
    unsigned first_core;
    size_t idle_kib;
    struct model *model;
    struct bound *bound;
    struct arena arena;
    struct device *dev;
    struct part *part;
    struct exe *exe;
    struct slot *slot;
    void *in[MAX_IO], *out[MAX_IO];
};

static void __attribute__((noreturn)) fail(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_model: %s: %s\n", what, err->msg);
    exit(1);
}

static size_t rss_kib(const char *which)
{
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "re");

    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, which, strlen(which)) == 0)
            kib = strtoul(line + strlen(which) + 1, NULL, 10);
    if (f)
        (void)fclose(f);
    return kib;
}

static void open_model(struct run *r, const char *dir)
{
    struct err err = {0};
    struct shape_key key = {0};

    if (model_open(dir, NULL, r->precision, &r->model, &err) < 0)
        fail("model", &err);
    const struct graph *g = model_graph(r->model);
    key.n = g->n_syms;
    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = (int32_t)i == g->batch_sym ? r->batch : r->other;
    arena_init(&r->arena);
    if (graph_bind(g, &key, &r->arena, &r->bound, &err) < 0)
        fail("bind", &err);
}

static void open_device(struct run *r)
{
    struct err err = {0};
    struct backend_config cfg = {0};
    struct device_info info;
    struct granules set = {{0}};
    size_t n;
    uint32_t units;

    if (backend_cpu.devices(&cfg, &info, 1, &n, &err) < 0 ||
        (!r->dev && backend_cpu.dev_open(&cfg, 0, &r->dev, &err) < 0))
        fail("device", &err);
    if ((unsigned)(r->cores * r->n_parts) > info.n_granules) {
        err_set(&err, -EINVAL, "there are %u cores", info.n_granules);
        fail("partition", &err);
    }
    for (int i = 0; i < r->cores; i++)
        granules_add(&set, info.n_granules - 1 - r->first_core - (unsigned)i);
    if (backend_cpu.part_open(r->dev, &set, &r->part, &units, &err) < 0)
        fail("partition", &err);
}

static void compile(struct run *r, const char *dir)
{
    struct err err = {0};
    struct compile_args args = {.model = dir,
                                .bound = r->bound,
                                .precision = r->precision,
                                .batch_invariant = r->batch_invariant};
    struct exe_info info;
    usec_t start = clock_now_us();

    if (backend_cpu.compile(r->part, &args, &r->exe, &err) < 0)
        fail("compile", &err);
    usec_t end = clock_now_us();
    if (backend_cpu.slot_open(r->exe, &r->slot, &err) < 0)
        fail("slot", &err);
    backend_cpu.exe_info(r->exe, &info);
    printf("%u nodes, %u steps, %u reorders, %u segments, weights %zu KiB, slot %zu KiB, "
           "compiled in %llu ms\n",
           model_graph(r->model)->n_nodes, info.n_steps, info.n_reorders, info.n_segments,
           info.weights_bytes / 1024, info.slot_bytes / 1024,
           (unsigned long long)(end - start) / 1000);
}

static void load(void *to, size_t bytes, const char *path)
{
    FILE *f = fopen(path, "re");

    if (!f || fread(to, 1, bytes, f) != bytes) {
        (void)fprintf(stderr, "bench_model: %s: not %zu bytes\n", path, bytes);
        exit(1);
    }
    (void)fclose(f);
}

static void open_io(struct run *r, int n_files, char **files)
{
    const struct graph *g = model_graph(r->model);

    for (uint32_t i = 0; i < g->n_in; i++) {
        size_t bytes = r->bound->value[g->in[i]].bytes;
        r->in[i] = calloc(1, bytes + 1);
        if ((int)i < n_files)
            load(r->in[i], bytes, files[i]);
    }
    for (uint32_t i = 0; i < g->n_out; i++)
        r->out[i] = calloc(1, r->bound->value[g->out[i]].bytes + 1);
}

static uint64_t one_run(struct run *r)
{
    struct io_part part = {
        .rows = (uint32_t)r->batch, .in = (const void *const *)r->in, .out = r->out};
    struct io io = {.n_parts = 1, .part = &part};
    struct exe_info info;
    uint64_t ns = 0;

    backend_cpu.exe_info(r->exe, &info);
    unsigned step = r->by_segment ? 1 : info.n_segments;
    if (model_graph(r->model)->batch_sym < 0)
        part.rows = 1;
    for (unsigned s = 0; s < info.n_segments; s += step) {
        struct done done;
        ticket t;
        if (backend_cpu.submit(r->slot, 0, s, s + step, &io, &t) < 0 ||
            backend_cpu.wait(r->part, 0, &done, 1) != 1 || done.rc < 0) {
            (void)fprintf(stderr, "bench_model: the run failed\n");
            exit(1);
        }
        ns += done.run_ns;
    }
    return ns;
}

/* Time on the core: what a busy machine does not stretch. */
static uint64_t core_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void save(struct run *r, const char *dir)
{
    const struct graph *g = model_graph(r->model);
    char path[4096];

    for (uint32_t i = 0; i < g->n_out; i++) {
        (void)snprintf(path, sizeof(path), "%s/out-%u.raw", dir, i);
        FILE *f = fopen(path, "we");
        if (!f || fwrite(r->out[i], 1, r->bound->value[g->out[i]].bytes, f) == 0)
            perror(path);
        if (f)
            (void)fclose(f);
    }
}

/* n runs on every gpu-let at once: the median of one, or the time of all by their number. */
struct seat {
    struct run run;
    pthread_t thread;
    pthread_barrier_t *gate;
    unsigned turn; /* runs, before the gate opens; 0: leave */
};

static void *seat_main(void *arg)
{
    struct seat *s = arg;

    backend_cpu.part_enter(s->run.part);
    for (;;) {
        (void)pthread_barrier_wait(s->gate);
        if (!s->turn)
            return NULL;
        for (unsigned i = 0; i < s->turn; i++)
            (void)one_run(&s->run);
        (void)pthread_barrier_wait(s->gate);
    }
}

static uint64_t turn_alone(struct run *r, unsigned n)
{
    uint64_t *ns = calloc(n, sizeof(*ns)), median;

    for (unsigned i = 0; ns && i < n; i++)
        ns[i] = one_run(r);
    qsort(ns, n, sizeof(*ns), by_value);
    median = ns[n / 2];
    free(ns);
    return median;
}

/* A line in, a line out, until the end of the file. */
static void take_turns(struct run *r, uint64_t (*turn)(void *ctx, unsigned n), void *ctx)
{
    char line[64];

    printf("ready, peak %zu KiB above idle\n", rss_kib("VmHWM:") - r->idle_kib);
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        unsigned long n = strtoul(line, NULL, 10);
        if (n < 1 || n > MAX_TURN)
            return;
        printf("%llu\n", (unsigned long long)turn(ctx, (unsigned)n));
        (void)fflush(stdout);
    }
}

static uint64_t one_turn(void *ctx, unsigned n)
{
    return turn_alone(ctx, n);
}

struct crew {
    unsigned n;
    struct seat *seat;
    pthread_barrier_t gate;
};

static uint64_t crew_turn(void *ctx, unsigned n)
{
    struct crew *c = ctx;

    for (unsigned i = 0; i < c->n; i++)
        c->seat[i].turn = n;
    (void)pthread_barrier_wait(&c->gate);
    uint64_t start = clock_now_ns();
    (void)pthread_barrier_wait(&c->gate);
    return (clock_now_ns() - start) / (n * c->n);
}

/* The first gpu-let is open; the others get the same model and share its weights. */
static void crew_serve(struct run *first, const char *dir, int n_files, char **files)
{
    static struct seat seat[MAX_PARTS];
    struct crew c = {.n = (unsigned)first->n_parts, .seat = seat};

    (void)pthread_barrier_init(&c.gate, NULL, c.n + 1);
    for (unsigned i = 0; i < c.n; i++) {
        seat[i].run = *first;
        seat[i].gate = &c.gate;
        if (i > 0) {
            seat[i].run.first_core = i * (unsigned)first->cores;
            open_device(&seat[i].run);
            compile(&seat[i].run, dir);
            open_io(&seat[i].run, n_files, files);
        }
        if (pthread_create(&seat[i].thread, NULL, seat_main, &seat[i]))
            exit(1);
    }
    (void)crew_turn(&c, 1);
    take_turns(first, crew_turn, &c);
    for (unsigned i = 0; i < c.n; i++)
        seat[i].turn = 0;
    (void)pthread_barrier_wait(&c.gate);
    for (unsigned i = 0; i < c.n; i++)
        (void)pthread_join(seat[i].thread, NULL);
}

static void report(struct run *r)
{
    uint64_t *ns = calloc((size_t)r->runs, sizeof(*ns));
    uint64_t core = core_ns();

    if (!ns)
        exit(1);
    for (int i = 0; i < r->runs; i++)
        ns[i] = one_run(r);
    core = (core_ns() - core) / (uint64_t)r->runs;
    qsort(ns, (size_t)r->runs, sizeof(*ns), by_value);
    printf(
        "median %.3f ms, least %.3f ms, core %.3f ms; RSS %zu KiB more than at start, peak %zu\n",
        (double)ns[r->runs / 2] / 1e6, (double)ns[0] / 1e6, (double)core / 1e6,
        rss_kib("VmRSS:") - r->idle_kib, rss_kib("VmHWM:") - r->idle_kib);
    free(ns);
}

static void arguments(struct run *r, int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "b:f:n:g:p:P:rst")) != -1)
        switch (c) {
        case 'b':
            r->batch = atoi(optarg);
            break;
        case 'f':
            r->other = atoi(optarg);
            break;
        case 'n':
            r->runs = atoi(optarg);
            break;
        case 'g':
            r->cores = atoi(optarg);
            break;
        case 'p':
            r->n_parts = atoi(optarg);
            break;
        case 'P':
            if (precision_of(optarg, &r->precision) < 0)
                exit(2);
            break;
        case 'r':
            r->batch_invariant = true;
            break;
        case 's':
            r->by_segment = true;
            break;
        case 't':
            r->turns = true;
            break;
        default:
            exit(2);
        }
    if (optind >= argc || r->runs < 1 || r->cores < 1 || r->cores > MAX_PARTS || r->n_parts < 1 ||
        r->n_parts > MAX_PARTS || (r->n_parts > 1 && !r->turns))
        exit(2);
}

int main(int argc, char **argv)
{
    struct run r = {.batch = 1, .other = 5, .runs = 1, .cores = 1, .n_parts = 1};

    arguments(&r, argc, argv);
    r.idle_kib = rss_kib("VmRSS:");
    open_model(&r, argv[optind]);
    open_device(&r);
    compile(&r, argv[optind]);
    open_io(&r, argc - optind - 1, argv + optind + 1);
    if (r.n_parts > 1) {
        crew_serve(&r, argv[optind], argc - optind - 1, argv + optind + 1);
        return 0;
    }
    backend_cpu.part_enter(r.part);
    (void)one_run(&r);
    save(&r, argv[optind]);
    if (r.turns)
        take_turns(&r, one_turn, &r);
    else
        report(&r);
    return 0;
}
