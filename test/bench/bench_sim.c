/* How exact is a simulated device?  20 gpu-lets of a 132-unit device, always busy, each with a
 * thread that submits the next run when it is told of the end of the one before.  Prints how late
 * ends are told, how much longer a cycle is for it, and what it costs of the cores.
 *
 *   bench_sim [SECONDS [GPU-LETS]] */
#include "../graph_build.h"
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/sim.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#define LETS_MAX 66

static const struct backend *be = &backend_sim;
static struct device *dev;
static struct bound *bound;
static usec_t until_us;

struct let {
    pthread_t thread;
    unsigned granule, n;
    uint64_t runs;
    usec_t from_us, to_us;
    double ran_us;
    struct err err;
};

static void write_file(const char *path, double ms)
{
    FILE *f = fopen(path, "w");

    assert(f);
    (void)fprintf(
        f,
        "{\"version\": 1, \"types\": [{\"name\": \"big\", \"granules\": 66, \"granule_units\": 2,"
        " \"interference\": {\"kind\": \"gpulet\", \"c\": [0.1, 0.1, 0.1, 0.1, 1]}}],"
        " \"devices\": [{\"type\": \"big\", \"count\": 1}], \"models\": [{\"name\": \"m\","
        " \"max_batch\": 1, \"profile\": {\"big\": {\"batch\": [1], \"units\": [2],"
        " \"run_ms\": [[%g]], \"l2\": [[0.3]], \"dram\": [[0.3]]}}}]}",
        ms);
    assert(fclose(f) == 0);
}

static void *executor(void *arg)
{
    struct let *l = arg;
    struct compile_args args = {.model = "m", .bound = bound, .precision = PRECISION_FP32};
    struct granules set = {{0}};
    float x[2] = {1, 2}, y[2];
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part part = {.rows = 1, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &part};
    struct part *p;
    struct exe *e;
    struct slot *s;
    uint32_t units;
    ticket t;

    for (unsigned i = 0; i < l->n; i++)
        granules_add(&set, l->granule + i);
    assert(be->part_open(dev, &set, &p, &units, &l->err) == 0);
    be->part_enter(p);
    assert(be->compile(p, &args, &e, &l->err) == 0 && be->slot_open(e, &s, &l->err) == 0);
    l->from_us = clock_now_us();
    while (clock_now_us() < until_us) {
        struct done d;
        assert(be->submit(s, 0, 0, 1, &io, &t) == 0);
        while (be->wait(p, USEC_NEVER, &d, 1) == 0)
            ;
        l->ran_us += (double)d.run_ns / 1000;
        l->runs++;
    }
    l->to_us = clock_now_us();
    be->slot_close(s);
    be->release(e);
    be->part_close(p);
    return NULL;
}

static double quantile_us(const struct tally *was, double q)
{
    uint64_t n = tally_count(sim_lag()) - tally_count(was), seen = 0;

    for (unsigned i = 0; i < TALLY_BOUNDS; i++)
        if ((double)(seen += sim_lag()->n[i] - was->n[i]) >= q * (double)n)
            return (double)tally_us[i];
    return 1e9;
}

static void measure(const char *path, double ms, unsigned n_lets, unsigned seconds)
{
    static struct let let[LETS_MAX];
    struct backend_config cfg = {0};
    struct rusage from, to;
    struct tally was;
    struct err err;
    double cycle_us = 0, ran_us = 0;
    uint64_t runs = 0;

    (void)snprintf(cfg.sim_file, sizeof(cfg.sim_file), "%s", path);
    write_file(path, ms);
    assert(be->dev_open(&cfg, 0, &dev, &err) == 0);
    memset(let, 0, sizeof(let));
    tally_copy(sim_lag(), &was);
    (void)getrusage(RUSAGE_SELF, &from);
    until_us = clock_now_us() + seconds * USEC_PER_SEC;
    for (unsigned i = 0; i < n_lets; i++) {
        let[i].n = 66 / n_lets;
        let[i].granule = i * let[i].n;
        assert(pthread_create(&let[i].thread, NULL, executor, &let[i]) == 0);
    }
    for (unsigned i = 0; i < n_lets; i++) {
        (void)pthread_join(let[i].thread, NULL);
        cycle_us += (double)(let[i].to_us - let[i].from_us);
        ran_us += let[i].ran_us;
        runs += let[i].runs;
    }
    (void)getrusage(RUSAGE_SELF, &to);
    double cpu_us = 1e6 * (double)(to.ru_utime.tv_sec - from.ru_utime.tv_sec + to.ru_stime.tv_sec -
                                   from.ru_stime.tv_sec) +
                    (double)(to.ru_utime.tv_usec - from.ru_utime.tv_usec + to.ru_stime.tv_usec -
                             from.ru_stime.tv_usec);
    printf("%5u %8.1f %10.3f %8llu %8.0f %8.0f %9.2f%% %8.1f%%\n", n_lets, ms,
           ran_us / (double)runs / 1000, (unsigned long long)runs, quantile_us(&was, 0.5),
           quantile_us(&was, 0.99), 100 * (cycle_us / ran_us - 1), cpu_us / seconds / 1e4);
    be->dev_close(dev);
}

int main(int argc, char **argv)
{
    static const double ms[] = {1, 2, 5, 20};
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;
    unsigned n_lets = argc > 2 ? (unsigned)atoi(argv[2]) : 20;
    struct shape_key key = {.n = 1, .dim = {1}};
    char path[] = "/tmp/gpulet-bench-sim-XXXXXX";
    struct arena arena;
    struct err err;
    int fd = mkstemp(path);

    assert(fd >= 0 && close(fd) == 0 && n_lets >= 1 && n_lets <= LETS_MAX);
    arena_init(&arena);
    start(17);
    output(op(OP_Identity, "", 1, input("x", "B 2")));
    g->batch_sym = 0;
    assert(graph_infer(g, &err) == 0 && graph_bind(g, &key, &arena, &bound, &err) == 0);
    printf("%5s %8s %10s %8s %8s %8s %10s %9s\n", "LETS", "ALONE ms", "BESIDE ms", "RUNS",
           "LAG p50", "p99 us <=", "CYCLE +", "OF A CORE");
    for (size_t i = 0; i < ARRAY_SIZE(ms); i++)
        measure(path, ms[i], n_lets, seconds);
    (void)unlink(path);
    graph_free(g);
    arena_done(&arena);
    return 0;
}
