/* A backend for tests of the engine: every output element is twice the input's, and what goes
 * wrong is what the test says.  One device of fake.granules cores; partitions may overlap.  All
 * knobs and counters are atomics: tests turn them while executors run. */
#pragma once

#include "test/unit/onnx_write.h"

#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    unsigned granules;
    /* knobs */
    _Atomic usec_t run_us, compile_us;
    _Atomic int fail_runs, lose_runs, exit_runs; /* so many of the next runs */
    _Atomic int bad_value; /* an input that begins with it cannot be run; 0: none */
    _Atomic int fail_compiles;
    _Atomic(const char *) refuse_model; /* compile() refuses it */
    _Atomic(float) half_off, half_most; /* not in fp32: results are off by so much of them, and
                                           infinite beyond that; 0: they are not */
    _Atomic bool late; /* outputs are known after a run: one has as many elements as its first is */
    _Atomic int no_memory_runs;
    _Atomic size_t slot_bytes; /* that it says of a slot; 0: 64 */
    _Atomic bool unraced;      /* what is compiled may be faster compiled anew */
    /* what is open now, and what was done */
    _Atomic int devices, parts, exes, slots, hosts;
    int holds; /* the device has the pages of request memory */
    struct host_region region;
    _Atomic int exes_unraced;
    _Atomic int exes_gone; /* times that the last one was released */
    _Atomic bool compiling;
    _Atomic uint64_t compiles, runs, opens, enters, kicks;
    _Atomic uint64_t bad_gather;       /* runs with more rows than the exe has */
    _Atomic int priority, best_effort; /* of the last run, as it was told */
    int builder_nice, thread_nice;     /* of who opens devices, of a thread that it asks for */
} fake;

struct device {
    int open;
};
struct part {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
    struct done done[MAX_LANES];
    size_t n_done;
    ticket next;
    enum part_fault fault;
    pthread_t thread; /* the executor: nobody else may submit */
};
struct exe {
    struct part *part;
    const struct bound *bound;
    uint32_t rows;
    enum precision precision;
    bool unraced;
};
#define FAKE_LATE_MAX 64
struct slot {
    struct exe *exe;
    float late[FAKE_LATE_MAX]; /* with fake.late: twice the input of the last run */
    int64_t n_late;
    _Atomic int busy;
};

static void fake_sleep(usec_t us)
{
    struct timespec t = {.tv_sec = (time_t)(us / USEC_PER_SEC),
                         .tv_nsec = (long)(us % USEC_PER_SEC) * 1000};
    if (us)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static int fake_devices(const struct backend_config *cfg, struct device_info *ret, size_t max,
                        size_t *ret_n, struct err *err)
{
    (void)cfg, (void)max, (void)err;
    ret[0] = (struct device_info){.name = "fake0",
                                  .kind = "made up",
                                  .units = fake.granules,
                                  .granule_units = 1,
                                  .n_granules = fake.granules,
                                  .mode = MODE_CORES};
    *ret_n = 1;
    return 0;
}

static int own_nice(void)
{
    return getpriority(PRIO_PROCESS, (id_t)gettid());
}

static void *fake_thread(void *ret_nice)
{
    *(int *)ret_nice = own_nice();
    return NULL;
}

static int fake_dev_open(const struct backend_config *cfg, unsigned index, struct device **ret,
                         struct err *err)
{
    static struct device dev;
    pthread_t t;

    (void)index, (void)err;
    fake.builder_nice = own_nice();
    assert(cfg->thread(cfg->thread_ctx, &t, fake_thread, &fake.thread_nice) == 0);
    (void)pthread_join(t, NULL);
    fake.devices++;
    *ret = &dev;
    return 0;
}
static void fake_dev_close(struct device *dev)
{
    (void)dev;
    fake.devices--;
}
static int fake_host_open(struct device *dev, const struct host_region *r, struct err *err)
{
    (void)dev, (void)err;
    fake.hosts++;
    fake.region = *r;
    return fake.holds;
}
static void fake_host_close(struct device *dev, const struct host_region *r)
{
    (void)dev, (void)r;
    fake.hosts--;
}

static int fake_part_open(struct device *dev, const struct granules *set, struct part **ret,
                          uint32_t *ret_units, struct err *err)
{
    struct part *p = calloc(1, sizeof(*p));
    pthread_condattr_t attr;

    (void)dev, (void)err;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->cond, &attr);
    fake.parts++;
    fake.opens++;
    *ret = p;
    *ret_units = granules_count(set);
    return 0;
}
static void fake_part_close(struct part *p)
{
    assert(p->n_done == 0 || p->fault);
    (void)pthread_cond_destroy(&p->cond);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
    fake.parts--;
}

static int fake_weights_get(struct device *dev, const struct constant *c, uint64_t layout,
                            struct weights **ret, struct err *err)
{
    (void)dev, (void)c, (void)layout, (void)err;
    *ret = NULL;
    return 0;
}
static void fake_weights_put(struct device *dev, struct weights *w)
{
    (void)dev, (void)w;
}

static int fake_compile(struct part *p, const struct compile_args *args, struct exe **ret,
                        struct err *err)
{
    const struct graph *g = args->bound->graph;
    const char *refused = fake.refuse_model;

    fake.compiling = true;
    fake_sleep(fake.compile_us);
    fake.compiling = false;
    fake.compiles++;
    if (refused && STREQ(refused, args->model))
        return err_set(err, -ENOTSUP, "node 'odd' (Tanh): not supported by the fake backend");
    if (fake.fail_compiles > 0 && fake.fail_compiles-- > 0)
        return err_set(err, -ENOMEM, "no memory for the fake backend");
    struct exe *x = calloc(1, sizeof(*x));
    x->part = p;
    x->bound = args->bound;
    x->precision = args->precision;
    x->rows = g->batch_sym >= 0 ? (uint32_t)args->bound->key.dim[g->batch_sym] : 1;
    x->unraced = fake.unraced;
    fake.exes++;
    fake.exes_unraced += x->unraced;
    *ret = x;
    return 0;
}
static void fake_exe_info(const struct exe *x, struct exe_info *ret)
{
    *ret = (struct exe_info){.n_segments = 1,
                             .unraced = x->unraced,
                             .slot_bytes = fake.slot_bytes ? fake.slot_bytes : 64,
                             .late_outputs = fake.late};
}
static void fake_release(struct exe *x)
{
    fake.exes_unraced -= x->unraced;
    fake.exes_gone += --fake.exes == 0;
    free(x);
}
static int fake_slot_open(struct exe *x, struct slot **ret, struct err *err)
{
    (void)err;
    *ret = calloc(1, sizeof(**ret));
    (*ret)->exe = x;
    fake.slots++;
    return 0;
}
static void fake_slot_close(struct slot *s)
{
    assert(!s->busy);
    free(s);
    fake.slots--;
}
static int fake_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
                      struct err *err)
{
    (void)from, (void)to, (void)err;
    assert(s->busy++ == 0);
    for (unsigned i = 0; i < n; i++)
        ret_ns[i] = fake.run_us * 1000;
    s->busy--;
    return 0;
}

static void fake_part_enter(struct part *p)
{
    p->thread = pthread_self();
    fake.enters++;
}

static float fake_rounded(const struct exe *x, float y)
{
    if (x->precision == PRECISION_FP32)
        return y;
    y += y * fake.half_off;
    return fake.half_most > 0 && (y > fake.half_most || y < -fake.half_most) ? y * 1e38f * 1e38f
                                                                             : y;
}

/* out = 2 * in, row by row, for the first input and every output. */
static void fake_answer(const struct exe *x, const struct io *io)
{
    const struct graph *g = x->bound->graph;
    uint32_t rows = 0;

    for (uint32_t i = 0; i < io->n_parts; i++) {
        const struct io_part *p = &io->part[i];
        for (uint32_t o = 0; o < g->n_out; o++) {
            const float *in = p->in[0];
            float *out = p->out[o];
            size_t n = x->bound->value[g->out[o]].bytes / x->rows / sizeof(float) * p->rows;
            for (size_t k = 0; k < n; k++)
                out[k] = fake_rounded(x, 2 * in[k]);
        }
        rows += p->rows;
    }
    if (rows > x->rows)
        fake.bad_gather++;
}

/* Every output: as many elements as the input's first one says, of which few are really there. */
static void fake_late(struct slot *s, const struct io *io)
{
    const float *in = io->part[0].in[0];
    size_t n = s->exe->bound->value[s->exe->bound->graph->in[0]].bytes / sizeof(float);

    assert(io->n_parts == 1);
    s->n_late = (int64_t)in[0];
    for (size_t k = 0; k < MIN(n, (size_t)FAKE_LATE_MAX); k++)
        s->late[k] = 2 * in[k];
}
static void fake_outputs(const struct slot *s, struct tensor *ret)
{
    for (uint32_t i = 0; i < s->exe->bound->graph->n_out; i++) {
        (void)tensor_shape(&ret[i], DT_FP32, 1, &s->n_late);
        ret[i].data = (void *)(uintptr_t)s->late;
    }
}

/* Does a request begin with the value that cannot be run? */
static bool fake_bad_input(const struct io *io)
{
    for (uint32_t i = 0; fake.bad_value && i < io->n_parts; i++)
        if (*(const float *)io->part[i].in[0] == (float)fake.bad_value)
            return true;
    return false;
}

static bool fake_count_down(_Atomic int *n)
{
    return *n > 0 && (*n)-- > 0;
}

static int fake_submit(struct slot *s, unsigned lane, unsigned from, unsigned to,
                       const struct io *io, ticket *ret)
{
    struct part *p = s->exe->part;
    struct done d = {.ticket = ++p->next, .run_ns = fake.run_us * 1000};

    (void)lane, (void)from, (void)to;
    assert(pthread_equal(p->thread, pthread_self()));
    assert(s->busy++ == 0);
    fake_sleep(fake.run_us);
    fake.runs++;
    fake.priority = io->priority;
    fake.best_effort = io->best_effort;
    if (fake_bad_input(io)) {
        d.rc = -EINVAL;
    } else if (fake_count_down(&fake.fail_runs)) {
        d.rc = -EIO;
    } else if (fake_count_down(&fake.lose_runs)) {
        d.rc = -ENODEV;
        p->fault = FAULT_PART;
    } else if (fake_count_down(&fake.exit_runs)) {
        d.rc = -ENODEV;
        p->fault = FAULT_PROCESS;
    } else if (fake_count_down(&fake.no_memory_runs)) {
        d.rc = -ENOMEM;
    } else if (fake.late) {
        fake_late(s, io);
    } else {
        fake_answer(s->exe, io);
    }
    s->busy--;
    p->done[p->n_done++] = d;
    *ret = d.ticket;
    return 0;
}

static size_t fake_wait(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    size_t n = MIN(p->n_done, max);
    struct timespec t = {.tv_sec = (time_t)(until_us / USEC_PER_SEC),
                         .tv_nsec = (long)(until_us % USEC_PER_SEC) * 1000};

    if (n) {
        memcpy(done, p->done, n * sizeof(*done));
        p->n_done = 0;
        return n;
    }
    (void)pthread_mutex_lock(&p->lock);
    while (!p->kicked) {
        int r = until_us == USEC_NEVER ? pthread_cond_wait(&p->cond, &p->lock)
                                       : pthread_cond_timedwait(&p->cond, &p->lock, &t);
        if (r == ETIMEDOUT)
            break;
    }
    p->kicked = false;
    (void)pthread_mutex_unlock(&p->lock);
    return 0;
}
static enum part_fault fake_fault(struct part *p)
{
    return p->fault;
}
static void fake_kick(struct part *p)
{
    fake.kicks++;
    (void)pthread_mutex_lock(&p->lock);
    p->kicked = true;
    (void)pthread_cond_signal(&p->cond);
    (void)pthread_mutex_unlock(&p->lock);
}

static const struct backend backend_fake = {.name = "fake",
                                            .abi = BACKEND_ABI,
                                            .devices = fake_devices,
                                            .dev_open = fake_dev_open,
                                            .dev_close = fake_dev_close,
                                            .host_open = fake_host_open,
                                            .host_close = fake_host_close,
                                            .part_open = fake_part_open,
                                            .part_close = fake_part_close,
                                            .weights_get = fake_weights_get,
                                            .weights_put = fake_weights_put,
                                            .compile = fake_compile,
                                            .exe_info = fake_exe_info,
                                            .release = fake_release,
                                            .slot_open = fake_slot_open,
                                            .slot_close = fake_slot_close,
                                            .probe = fake_probe,
                                            .part_enter = fake_part_enter,
                                            .submit = fake_submit,
                                            .wait = fake_wait,
                                            .fault = fake_fault,
                                            .outputs = fake_outputs,
                                            .kick = fake_kick};

/* ---- models on disk */
static char fake_root[] = "/tmp/gpulet-test-engine-XXXXXX";

/* DIR/model.onnx with y = op(inputs), all of one shape; returns DIR, to be freed. */
static char *fake_model(const char *name, const char *op, const char *inputs, const char *shape)
{
    struct ow g = {0};
    char *dir = NULL, *path = NULL;

    if (strstr(fake_root, "XXXXXX"))
        assert(mkdtemp(fake_root));
    assert(asprintf(&dir, "%s/%s", fake_root, name) > 0);
    assert(mkdir(dir, 0700) == 0 || errno == EEXIST);
    assert(asprintf(&path, "%s/" MODEL_FILE, dir) > 0);
    ow_plain(&g, op, "node", inputs, "y");
    for (const char *at = inputs; *at; at++) /* names have one letter; "x,x" is one input */
        if (*at != ',' && !memchr(inputs, *at, (size_t)(at - inputs)))
            ow_input(&g, (char[]){*at, 0}, DT_FP32, shape);
    ow_output(&g, "y");
    struct ow m = ow_model(&g, 17);
    FILE *f = fopen(path, "w");
    assert(f && fwrite(m.p, 1, m.n, f) == m.n && fclose(f) == 0);
    ow_done(&m);
    free(path);
    return dir;
}

static void fake_cleanup(void)
{
    char *command = NULL;

    if (!strstr(fake_root, "XXXXXX") && asprintf(&command, "rm -rf %s", fake_root) > 0)
        (void)!system(command);
    free(command);
}
