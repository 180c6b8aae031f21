/* What a GPU is and what its partitions cost, as lines of JSON for test/gpu/run.sh.
 *
 *     facts --device | [--mps] MODEL-FOLDER
 *
 * --device: what the first one is, in a line of text.  --mps: what needs a daemon of MPS, and
 * nothing else.
 *
 * First what the driver says and takes (facts_*.c), then through the backend, in each mode that can
 * be had: its devices, how long opening and closing a partition takes, a run of the model from
 * submit() to the return of wait(), and a change of partitions. */
#include "facts.h"
#include "facts_driver.h"

#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <stdarg.h>
#include <stdio.h>

#define TRIES 15
#define RUNS 200
#define RECUTS 5

static const struct backend *be;
static const char *about;
static unsigned n_wrong; /* of fact_check() */

/* ---- lines */
void facts_about(const char *what)
{
    about = what;
}

static void line(bool ok, const char *what, const char *text, const char *more_of_it)
{
    char clean[600];
    size_t n = 0;

    for (const char *p = text; *p && n + 1 < sizeof(clean); p++)
        if (*p != '"' && *p != '\\')
            clean[n++] = *p;
    clean[n] = 0;
    printf("{\"case\": \"%s: %s\", \"ok\": %s, \"text\": \"%s\"%s}\n", about, what,
           ok ? "true" : "false", clean, more_of_it);
    fflush(stdout);
}

void fact(const char *what, const char *fmt, ...)
{
    char text[600];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    line(true, what, text, "");
}

void fact_check(bool ok, const char *what, const char *fmt, ...)
{
    char text[600];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    line(ok, what, text, "");
    n_wrong += !ok;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

void fact_values(const char *what, const char *unit, double *value, unsigned n)
{
    char text[120], more_of_it[80];

    qsort(value, n, sizeof(*value), by_value);
    if (n == 1)
        (void)snprintf(text, sizeof(text), "%.2f %s", value[0], unit);
    else
        (void)snprintf(text, sizeof(text), "%.2f %s (%.2f to %.2f, %u times)", value[n / 2], unit,
                       value[0], value[n - 1], n);
    (void)snprintf(more_of_it, sizeof(more_of_it), ", \"value\": %.4g, \"unit\": \"%s\"",
                   value[n / 2], unit);
    line(true, what, text, more_of_it);
}

int fact_end(int r, const struct err *err)
{
    if (r < 0)
        line(r == -ENOTSUP, r == -ENOTSUP ? "cannot be had" : "ends early", err->msg, "");
    return r < 0 && r != -ENOTSUP;
}

/* ---- through the backend */
/* A model in a partition. */
struct served {
    struct part *p;
    struct exe *x;
    struct slot *s;
    uint32_t n_segments;
};

static void served_close(struct served *v)
{
    if (v->s)
        be->slot_close(v->s);
    if (v->x)
        be->release(v->x);
    if (v->p)
        be->part_close(v->p);
    *v = (struct served){0};
}

/* us: of opening the partition, compiling, opening a slot */
static int served_open(struct device *dev, unsigned granule, const struct bound *b,
                       struct served *ret, double us[3], struct err *err)
{
    struct compile_args args = {.model = "facts", .bound = b};
    struct granules set = {{0}};
    struct exe_info info;
    uint32_t units;
    uint64_t start = clock_now_ns();

    *ret = (struct served){0};
    granules_add(&set, granule);
    int r = be->part_open(dev, &set, &ret->p, &units, err);
    us[0] = us_since(start);
    start = clock_now_ns();
    if (r == 0)
        r = be->compile(ret->p, &args, &ret->x, err);
    us[1] = us_since(start);
    start = clock_now_ns();
    if (r == 0)
        r = be->slot_open(ret->x, &ret->s, err);
    us[2] = us_since(start);
    if (r == 0) {
        be->exe_info(ret->x, &info);
        ret->n_segments = info.n_segments;
    }
    return r;
}

static int turn(const struct served *v, const struct io *io, double *ret_us, struct err *err)
{
    struct done done = {.rc = -EIO};
    uint64_t start = clock_now_ns();
    ticket t;
    int r = be->submit(v->s, 0, 0, v->n_segments, io, &t);

    while (r == 0 && be->wait(v->p, USEC_NEVER, &done, 1) == 0)
        ;
    *ret_us = us_since(start);
    return r < 0 || done.rc < 0 ? err_set(err, r < 0 ? r : done.rc, "a run failed") : 0;
}

/* With its streams and handles of the libraries, beside what the first one has brought. */
static int memory(struct device *dev, struct err *err)
{
    struct granules set = {{1}};
    struct part *p = NULL;
    size_t before, after;
    uint32_t units;
    int r = facts_free_bytes(&before, err);

    if (r == 0)
        r = be->part_open(dev, &set, &p, &units, err);
    if (r == 0)
        r = facts_free_bytes(&after, err);
    if (r == 0) {
        double mib = ((double)before - (double)after) / 1048576;
        fact_values("a partition of one granule: memory", "MiB", &mib, 1);
    }
    if (p)
        be->part_close(p);
    return r;
}

static int partitions(struct device *dev, struct err *err)
{
    double made[TRIES], gone[TRIES];
    struct granules set = {{1}};
    uint32_t units = 0;
    struct part *p;

    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t start = clock_now_ns();
        int r = be->part_open(dev, &set, &p, &units, err);
        if (r < 0)
            return r;
        made[i] = us_since(start);
        start = clock_now_ns();
        be->part_close(p);
        gone[i] = us_since(start);
    }
    fact("a partition of one granule", "%u SMs", units);
    fact_values("opening it", "us", made, TRIES);
    fact_values("closing it", "us", gone, TRIES);
    return 0;
}

/* Make before break: another partition is opened, its model compiled and warmed, the old one
 * closed; and what a run takes before and after. */
static int recuts(struct device *dev, unsigned n_granules, const struct bound *b,
                  const struct io *io, struct err *err)
{
    static const char *const names[] = {"a re-cut: opening the new partition",
                                        "a re-cut: compiling the model",
                                        "a re-cut: opening a slot",
                                        "a re-cut: the first run",
                                        "a re-cut: closing the old partition",
                                        "a re-cut: all of it"};
    double us[ARRAY_SIZE(names)][RECUTS], open_us[3], runs[RUNS];
    struct served now = {0}, next = {0};
    int r = served_open(dev, 0, b, &now, open_us, err);

    for (unsigned i = 0; i < RUNS && r == 0; i++)
        r = turn(&now, io, &runs[i], err);
    if (r == 0)
        fact_values("a run, from submit to its end being told", "us", runs, RUNS);
    for (unsigned i = 0; i < RECUTS && r == 0; i++) {
        uint64_t all = clock_now_ns();
        r = served_open(dev, (i + 1) % MIN(n_granules, 2), b, &next, open_us, err);
        for (unsigned k = 0; k < 3; k++)
            us[k][i] = open_us[k];
        if (r == 0)
            r = turn(&next, io, &us[3][i], err);
        uint64_t start = clock_now_ns();
        served_close(&now);
        us[4][i] = us_since(start);
        us[5][i] = us_since(all);
        now = next;
        next = (struct served){0};
    }
    for (size_t k = 0; k < ARRAY_SIZE(names) && r == 0; k++)
        fact_values(names[k], "us", us[k], RECUTS);
    served_close(&next);
    served_close(&now);
    return r;
}

/* In pageable memory: what the copies cost here is not what they cost in a slab. */
static int runs(struct device *dev, unsigned n_granules, const struct graph *g, struct err *err)
{
    struct shape_key key = {.n = g->n_syms};
    void *in[MAX_IO] = {NULL}, *out[MAX_IO] = {NULL};
    struct io_part whole = {.rows = 1, .in = (const void *const *)in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    struct arena a;
    struct bound *b;

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
    if (r == 0)
        r = recuts(dev, n_granules, b, &io, err);
    arena_done(&a);
    return r;
}

static int look(const char *mode, const struct graph *g, struct err *err)
{
    struct backend_config cfg = {0};
    struct device_info info[16];
    struct device *dev = NULL;
    size_t n;

    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    int r = be->devices(&cfg, info, ARRAY_SIZE(info), &n, err);
    for (size_t i = 0; i < n && r == 0; i++)
        fact(info[i].name, "%s, %u granules of %u SMs, %s; %s", info[i].kind, info[i].n_granules,
             info[i].granule_units, info[i].library, info[i].why);
    if (r == 0)
        r = be->dev_open(&cfg, 0, &dev, err);
    if (r == 0)
        r = partitions(dev, err);
    if (r == 0 && info[0].mode != MODE_MPS) /* there are contexts of its own */
        r = memory(dev, err);
    if (r == 0)
        r = runs(dev, info[0].n_granules, g, err);
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

/* The backend opens NVML when it is asked first, which is to be before there is a context. */
static int ask_first(struct err *err)
{
    struct backend_config cfg = {0};
    struct device_info info[16];
    size_t n;

    return be->devices(&cfg, info, ARRAY_SIZE(info), &n, err);
}

/* Through the driver alone. */
static unsigned parts(bool mps)
{
    static const struct {
        const char *about;
        int (*find)(struct err *err);
        bool mps;
    } all[] = {{"links", facts_links, false},
               {"streams", facts_streams, false},
               {"green contexts", facts_green, false},
               {"graphs", facts_graphs, false},
               {"capped contexts", facts_mps, true}};
    struct err err = {0};
    unsigned bad = 0;

    facts_about("driver");
    bad += (unsigned)fact_end(facts_driver_open(&err), &err);
    for (size_t i = 0; i < ARRAY_SIZE(all) && bad == 0; i++) {
        facts_about(all[i].about);
        if (all[i].mps == mps)
            bad += (unsigned)fact_end(all[i].find(&err), &err);
    }
    facts_driver_close();
    return bad;
}

int main(int argc, char **argv)
{
    static const char *const modes[] = {"green", "mig", "shared", "mps"};
    bool mps = argc == 3 && STREQ(argv[1], "--mps");
    const char *folder = argc == 2 ? argv[1] : mps ? argv[2] : "";
    struct model *m = NULL;
    struct err err = {0};

    if (STREQ(folder, "--device"))
        return name_device();
    facts_about("start");
    int r = model_open(folder, NULL, PRECISION_FP32, &m, &err);
    if (r == 0)
        r = backend_find("cuda", &be, &err);
    if (r == 0)
        r = ask_first(&err);
    unsigned bad = (unsigned)fact_end(r, &err) || r < 0;
    if (bad == 0)
        bad += parts(mps);
    for (size_t i = 0; i < ARRAY_SIZE(modes) && r == 0; i++) {
        if (STREQ(modes[i], "mps") != mps)
            continue;
        facts_about(modes[i]);
        bad += (unsigned)fact_end(look(modes[i], model_graph(m), &err), &err);
    }
    model_free(m);
    return bad + n_wrong > 0;
}
