/* backend = sim: a device that a file describes, in real time and without hardware.
 *
 *   {
 *     "name": "sim0", "units": 8, "granule_units": 1, "max_granules": 0,
 *     "mem_bytes": 0, "flops_per_s": 1e12, "mem_bytes_per_s": 1e11, "launch_us": 20,
 *     "models": { "digits": { "answer": "crc32",
 *                             "latency_us": [ {"batch": 1, "units": 8, "us": 500} ] } },
 *     "faults": [ {"model": "digits", "run": 3, "kind": "stall", "us": 60000000} ]
 *   }
 *
 * A run takes what the model's table says for its batch and partition; a model that is not named
 * takes the time of its counted FLOPs and bytes over the declared rates, shared by units.  Runs
 * of one partition follow each other; partitions do not disturb each other.
 *
 * Each row's answer is computed from that row's own input bytes, so that a reply given to the
 * wrong client fails a test: "crc32" seeds every output element with the CRC of the row, "echo"
 * repeats the row's bytes.  A fault befalls the n-th run (from 1) of a model on the device:
 * "stall" keeps submit() for that long, "fail" fails the run, "lost" loses the partition, "exit"
 * says that the process must leave. */
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/plan.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <zlib.h>

#define MAX_POINTS 256
#define MAX_FAULTS 64
#define SPIN_US 5 /* a sleep would take longer */

enum answer { ANSWER_CRC32, ANSWER_ECHO };
enum fault_kind { KIND_STALL, KIND_FAIL, KIND_LOST, KIND_EXIT };

struct sim_model {
    char *name;
    enum answer answer;
    struct profile profile; /* n_batch 0: no table */
    _Atomic uint64_t runs;
};

struct sim_fault {
    char *model;
    enum fault_kind kind;
    uint64_t run;
    usec_t us;
};

struct device {
    struct arena arena;
    struct device_info info;
    usec_t launch_us;
    uint32_t n_models, n_faults;
    struct sim_model *model;
    struct sim_fault *fault;
};

struct run {
    ticket ticket;
    usec_t done_us;
    uint64_t run_ns;
    int rc;
};

struct part {
    struct device *dev;
    struct granules set;
    uint32_t units;
    ticket next; /* executor only, as are the runs and the fault */
    struct run run[MAX_LANES];
    uint32_t n_runs;
    usec_t busy_until_us;
    enum part_fault fault;

    pthread_mutex_t lock; /* guards kicked */
    pthread_cond_t cond;
    bool kicked;
};

struct exe {
    struct part *part;
    const struct bound *bound;
    struct sim_model *model; /* NULL: not named */
    const char *name;
    uint64_t run_ns;
    size_t weights_bytes;
    uint32_t n_batch; /* rows of a full run */
};

struct slot {
    struct exe *exe;
};

/* ---- the file */

static double number(json_t *o, const char *key, double absent, double least, double most,
                     struct err *err)
{
    json_t *v = json_object_get(o, key);
    double d = v ? json_number_value(v) : absent;

    if ((v && !json_is_number(v)) || d < least || d > most)
        (void)err_set(err, -EINVAL, "'%s' must be a number from %g to %g", key, least, most);
    return d;
}

/* The sorted distinct values of `key` over all points. */
static uint32_t axis(json_t *points, const char *key, uint32_t *ret)
{
    uint32_t n = 0;

    for (size_t i = 0; i < json_array_size(points); i++) {
        uint32_t v = (uint32_t)json_integer_value(json_object_get(json_array_get(points, i), key));
        uint32_t at = n;
        while (at > 0 && ret[at - 1] > v)
            at--;
        if (at > 0 && ret[at - 1] == v)
            continue;
        memmove(ret + at + 1, ret + at, (n - at) * sizeof(*ret));
        ret[at] = v;
        n++;
    }
    return n;
}

static int read_point(json_t *p, struct profile *f, usec_t *run_us, struct err *err)
{
    uint32_t batch = (uint32_t)number(p, "batch", 0, 1, 1024, err);
    uint32_t units = (uint32_t)number(p, "units", 0, 1, 65536, err);
    usec_t us = (usec_t)number(p, "us", 0, 1, 1e9, err);

    for (uint32_t u = 0; u < f->n_units; u++)
        for (uint32_t b = 0; b < f->n_batch; b++)
            if (f->units[u] == units && f->batch[b] == batch)
                run_us[u * f->n_batch + b] = us;
    return err->code;
}

static int read_profile(struct arena *a, json_t *points, struct profile *ret, struct err *err)
{
    size_t n = json_array_size(points);

    if (!json_is_array(points) || n == 0 || n > MAX_POINTS)
        return err_set(err, -EINVAL, "'latency_us' must be an array of 1 to %d points", MAX_POINTS);
    uint32_t *batch = ARENA_ARRAY(a, uint32_t, n + 1), *units = ARENA_ARRAY(a, uint32_t, n + 1);
    usec_t *run_us = ARENA_ARRAY(a, usec_t, n * n);
    if (!batch || !units || !run_us)
        return -ENOMEM;
    *ret = (struct profile){.batch = batch, .units = units, .run_us = run_us, .measured = true};
    ret->n_batch = axis(points, "batch", batch);
    ret->n_units = axis(points, "units", units);
    for (size_t i = 0; i < n; i++)
        if (read_point(json_array_get(points, i), ret, run_us, err) < 0)
            return err_wrap(err, "'latency_us' point %zu: ", i);
    for (uint32_t i = 0; i < ret->n_batch * ret->n_units; i++)
        if (run_us[i] == 0)
            return err_set(err, -EINVAL, "'latency_us' has no point for batch %u on %u units",
                           batch[i % ret->n_batch], units[i / ret->n_batch]);
    return 0;
}

static int read_model(struct device *dev, const char *name, json_t *o, struct err *err)
{
    struct sim_model *m = &dev->model[dev->n_models++];
    json_t *points = json_object_get(o, "latency_us");
    const char *answer = json_string_value(json_object_get(o, "answer"));

    m->name = arena_strdup(&dev->arena, name);
    m->answer = answer && STREQ(answer, "echo") ? ANSWER_ECHO : ANSWER_CRC32;
    if (answer && m->answer != ANSWER_ECHO && !STREQ(answer, "crc32"))
        return err_set(err, -EINVAL, "'answer' is '%s', not crc32 or echo", answer);
    return points ? read_profile(&dev->arena, points, &m->profile, err) : 0;
}

static int read_fault(struct device *dev, json_t *o, struct err *err)
{
    static const char *const kinds[] = {"stall", "fail", "lost", "exit"};
    struct sim_fault *f = &dev->fault[dev->n_faults];
    const char *model = json_string_value(json_object_get(o, "model"));
    const char *kind = json_string_value(json_object_get(o, "kind"));

    f->run = (uint64_t)number(o, "run", 0, 1, 1e15, err);
    f->us = (usec_t)number(o, "us", 0, 0, 3.6e9, err);
    f->model = arena_strdup(&dev->arena, model ? model : "");
    for (size_t i = 0; kind && i < ARRAY_SIZE(kinds); i++)
        if (STREQ(kind, kinds[i])) {
            f->kind = (enum fault_kind)i;
            dev->n_faults++;
            return err->code;
        }
    return err_set(err, -EINVAL, "'kind' is '%s', not stall, fail, lost or exit", kind ? kind : "");
}

static int read_lists(struct device *dev, json_t *o, struct err *err)
{
    json_t *models = json_object_get(o, "models"), *faults = json_object_get(o, "faults"), *v;
    const char *name;
    size_t i;

    dev->model = ARENA_ARRAY(&dev->arena, struct sim_model, json_object_size(models));
    if (!dev->model || json_array_size(faults) > MAX_FAULTS)
        return err_set(err, -EINVAL, "more than %d faults", MAX_FAULTS);
    dev->fault = ARENA_ARRAY(&dev->arena, struct sim_fault, json_array_size(faults));
    if (!dev->fault)
        return -ENOMEM;
    json_object_foreach(models, name, v)
    {
        if (read_model(dev, name, v, err) < 0)
            return err_wrap(err, "model '%s': ", name);
    }
    json_array_foreach(faults, i, v)
    {
        if (read_fault(dev, v, err) < 0)
            return err_wrap(err, "fault %zu: ", i);
    }
    return 0;
}

static int read_device(struct device *dev, json_t *o, struct err *err)
{
    struct device_info *info = &dev->info;
    const char *name = json_string_value(json_object_get(o, "name"));

    if (!json_is_object(o))
        return err_set(err, -EINVAL, "the top of the file must be an object");
    *info = (struct device_info){.mode = MODE_SIM, .weights_shared = true};
    (void)snprintf(info->name, sizeof(info->name), "%s", name ? name : "sim0");
    (void)snprintf(info->kind, sizeof(info->kind), "simulated");
    (void)snprintf(info->why, sizeof(info->why), "described by a file");
    info->units = (uint32_t)number(o, "units", 0, 1, 65536, err);
    info->granule_units = (uint32_t)number(o, "granule_units", 1, 1, 65536, err);
    info->max_granules = (uint32_t)number(o, "max_granules", 0, 0, MAX_GRANULES, err);
    info->mem_bytes = (uint64_t)number(o, "mem_bytes", 0, 0, 1e18, err);
    info->flops_per_s = number(o, "flops_per_s", 1e12, 1, 1e18, err);
    info->mem_bytes_per_s = number(o, "mem_bytes_per_s", 1e11, 1, 1e18, err);
    dev->launch_us = (usec_t)number(o, "launch_us", 20, 0, 1e9, err);
    if (err->code == 0) {
        info->n_granules = info->units / info->granule_units;
        if (info->n_granules == 0 || info->n_granules > MAX_GRANULES)
            return err_set(err, -EINVAL, "%u granules, the limits are 1 and %d", info->n_granules,
                           MAX_GRANULES);
    }
    return err->code ? err->code : read_lists(dev, o, err);
}

/* What was measured on one file's device is nothing for another's. */
static void mark(struct device_info *info, const json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);

    (void)snprintf(info->library, sizeof(info->library), "file %08lx",
                   text ? crc32(0, (const Bytef *)text, (uInt)strlen(text)) : 0);
    free(text);
}

static void sim_dev_close(struct device *dev)
{
    if (dev)
        arena_done(&dev->arena);
    free(dev);
}

static int sim_dev_open(const struct backend_config *cfg, unsigned index, struct device **ret,
                        struct err *err)
{
    json_error_t je;
    struct err own = {0};

    assert(index == 0);
    if (!cfg->sim_file[0])
        return err_set(err, -ENODEV, "the sim backend needs sim-file = in section [device]");
    json_t *o = json_load_file(cfg->sim_file, JSON_REJECT_DUPLICATES, &je);
    if (!o)
        return err_set(err, -EINVAL, "'%s': line %d: %s", cfg->sim_file, je.line, je.text);
    struct device *dev = calloc(1, sizeof(*dev));
    if (dev)
        arena_init(&dev->arena);
    int r = dev ? read_device(dev, o, &own) : -ENOMEM;
    if (r == 0)
        mark(&dev->info, o);
    json_decref(o);
    if (r < 0) {
        sim_dev_close(dev);
        return err_set(err, r, "'%s': %s", cfg->sim_file, own.msg);
    }
    *ret = dev;
    return 0;
}

static int sim_devices(const struct backend_config *cfg, struct device_info *ret, size_t max,
                       size_t *ret_n, struct err *err)
{
    struct device *dev;
    int r = sim_dev_open(cfg, 0, &dev, err);

    if (r < 0)
        return r;
    assert(max >= 1);
    ret[0] = dev->info;
    *ret_n = 1;
    sim_dev_close(dev);
    return 0;
}

static int sim_host_open(struct device *dev, const struct host_region *region, struct err *err)
{
    (void)dev, (void)region, (void)err;
    return 0; /* host memory is the device's memory */
}

static void sim_host_close(struct device *dev, const struct host_region *region)
{
    (void)dev, (void)region;
}

/* ---- partitions */

static int sim_part_open(struct device *dev, const struct granules *set, struct part **ret,
                         uint32_t *ret_units, struct err *err)
{
    pthread_condattr_t attr;

    struct part *p = calloc(1, sizeof(*p));
    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    p->dev = dev;
    p->set = *set;
    p->units = granules_count(set) * dev->info.granule_units;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    *ret = p;
    *ret_units = p->units;
    return 0;
}

static void sim_part_close(struct part *p)
{
    (void)pthread_cond_destroy(&p->cond);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

static void sim_part_enter(struct part *p)
{
    (void)p;
}

/* Weights are read where they are: a handle is the constant itself. */
static int sim_weights_get(struct device *dev, const struct constant *c, uint64_t layout,
                           struct weights **ret, struct err *err)
{
    (void)dev, (void)layout, (void)err;
    *ret = (struct weights *)(uintptr_t)c;
    return 0;
}

static void sim_weights_put(struct device *dev, struct weights *w)
{
    (void)dev, (void)w;
}

/* ---- executables */

static uint64_t model_ns(const struct exe *x)
{
    const struct device *dev = x->part->dev;
    double flops = 0, bytes = 0, share = (double)x->part->units / dev->info.units;

    if (x->model && x->model->profile.n_batch)
        return 1000 * predict_run_us(&x->model->profile, x->n_batch, x->part->units);
    for (uint32_t i = 0; i < x->bound->graph->n_nodes; i++) {
        struct cost c = node_cost(x->bound, i);
        flops += c.flops;
        bytes += c.bytes;
    }
    double s = MAX(flops / dev->info.flops_per_s / share, bytes / dev->info.mem_bytes_per_s);
    return 1000 * dev->launch_us + (uint64_t)(s * 1e9);
}

/* Its answers have the shapes that are known now, and no strings. */
static int refuse_late(const struct bound *b, struct err *err)
{
    const struct graph *g = b->graph;

    for (uint32_t i = 0; i < g->n_in + g->n_out; i++) {
        uint32_t v = i < g->n_in ? g->in[i] : g->out[i - g->n_in];
        if (b->value[v].dtype == DT_STRING)
            return err_set(err, -ENOTSUP, "tensor '%s': BYTES is not supported by the sim backend",
                           g->values[v].name);
        if (b->late_value[v])
            return err_set(err, -ENOTSUP,
                           "output '%s': a shape that depends on data is not supported by the sim "
                           "backend",
                           g->values[v].name);
    }
    return 0;
}

static int sim_compile(struct part *p, const struct compile_args *args, struct exe **ret,
                       struct err *err)
{
    const struct graph *g = args->bound->graph;
    int r = refuse_late(args->bound, err);
    if (r == 0 && args->precision != PRECISION_FP32)
        r = err_set(err, -ENOTSUP, "precision '%s': the sim backend has fp32",
                    precision_name(args->precision));
    struct exe *x = r == 0 ? calloc(1, sizeof(*x)) : NULL;

    if (!x)
        return r < 0 ? r : err_set(err, -ENOMEM, "out of memory");
    x->part = p;
    x->bound = args->bound;
    x->n_batch = g->batch_sym >= 0 ? (uint32_t)args->bound->key.dim[g->batch_sym] : 1;
    for (uint32_t i = 0; i < p->dev->n_models; i++)
        if (STREQ(p->dev->model[i].name, args->model))
            x->model = &p->dev->model[i];
    x->name = x->model ? x->model->name : "";
    for (uint32_t i = 0; i < g->n_values; i++)
        x->weights_bytes += g->values[i].constant ? g->values[i].constant->t.bytes : 0;
    x->run_ns = model_ns(x);
    *ret = x;
    return 0;
}

static void sim_exe_info(const struct exe *x, struct exe_info *ret)
{
    *ret = (struct exe_info){
        .n_segments = 1, .weights_bytes = x->weights_bytes, .n_steps = x->bound->graph->n_nodes};
}

static void sim_release(struct exe *x)
{
    free(x);
}

static int sim_slot_open(struct exe *x, struct slot **ret, struct err *err)
{
    struct slot *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->exe = x;
    *ret = s;
    return 0;
}

static void sim_slot_close(struct slot *s)
{
    free(s);
}

static int sim_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
                     struct err *err)
{
    (void)from, (void)to, (void)err;
    for (unsigned i = 0; i < n; i++)
        ret_ns[i] = s->exe->run_ns;
    return 0;
}

/* ---- answers */

static uint64_t mix(uint64_t x) /* splitmix64's finaliser: every bit of x reaches every bit */
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Element k of a row whose CRC is seed: floats are k-th multiples of 1/65536 in [0, 1). */
static void put_element(enum dtype t, void *at, uint64_t seed, size_t k)
{
    uint64_t u = mix(seed + k * UINT64_C(0x9e3779b97f4a7c15)) >> 48;
    float f = (float)u / 65536.0f;
    double d = f;

    switch (t) {
    case DT_FP32:
        memcpy(at, &f, sizeof(f));
        break;
    case DT_FP64:
        memcpy(at, &d, sizeof(d));
        break;
    case DT_BOOL:
        *(uint8_t *)at = u & 1;
        break;
    case DT_FP16:
    case DT_BF16:
        u &= 0x3bff; /* a finite number below one */
        memcpy(at, &u, 2);
        break;
    default: /* integers of any size: 0..127 */
        u &= 0x7f;
        memcpy(at, &u, dtype_size(t));
        break;
    }
}

/* One row of one request: its input bytes are in[i] + row * bytes-per-row. */
static void answer_row(const struct exe *x, const struct io_part *p, uint32_t row)
{
    const struct graph *g = x->bound->graph;
    uint32_t n = x->n_batch;
    uint64_t crc = crc32(0, NULL, 0);

    if (x->model && x->model->answer == ANSWER_ECHO) {
        size_t in = x->bound->value[g->in[0]].bytes / n;
        const char *from = (const char *)p->in[0] + in * row;
        for (uint32_t j = 0; j < g->n_out; j++) {
            size_t out = x->bound->value[g->out[j]].bytes / n;
            for (size_t at = 0; in && at < out; at += in)
                memcpy((char *)p->out[j] + out * row + at, from, MIN(in, out - at));
        }
        return;
    }
    for (uint32_t i = 0; i < g->n_in; i++) {
        size_t bytes = x->bound->value[g->in[i]].bytes / n;
        crc = crc32_z(crc, (const Bytef *)p->in[i] + bytes * row, bytes);
    }
    for (uint32_t j = 0; j < g->n_out; j++) {
        const struct tensor *t = &x->bound->value[g->out[j]];
        size_t bytes = t->bytes / n, each = dtype_size(t->dtype);
        for (size_t k = 0; k < bytes / each; k++)
            put_element(t->dtype, (char *)p->out[j] + bytes * row + k * each, crc + j, k);
    }
}

/* ---- runs */

static const struct sim_fault *fault_now(struct exe *x)
{
    uint64_t run = x->model ? ++x->model->runs : 0;

    for (uint32_t i = 0; run && i < x->part->dev->n_faults; i++)
        if (x->part->dev->fault[i].run == run && STREQ(x->part->dev->fault[i].model, x->name))
            return &x->part->dev->fault[i];
    return NULL;
}

static int sim_submit(struct slot *s, unsigned lane, unsigned from, unsigned to,
                      const struct io *io, ticket *ret)
{
    struct exe *x = s->exe;
    struct part *p = x->part;
    struct run *r = &p->run[p->n_runs];
    const struct sim_fault *f = fault_now(x);

    (void)lane, (void)from, (void)to;
    assert(p->n_runs < MAX_LANES);
    *r = (struct run){.ticket = ++p->next, .run_ns = x->run_ns};
    if (f && f->kind == KIND_STALL)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0,
                              &(struct timespec){.tv_sec = (time_t)(f->us / USEC_PER_SEC),
                                                 .tv_nsec = (long)(f->us % USEC_PER_SEC) * 1000},
                              NULL);
    if (f && f->kind == KIND_FAIL)
        r->rc = -EIO;
    if (f && (f->kind == KIND_LOST || f->kind == KIND_EXIT)) {
        p->fault = f->kind == KIND_LOST ? FAULT_PART : FAULT_PROCESS;
        r->rc = -ENODEV;
    }
    if (r->rc == 0)
        for (uint32_t i = 0; i < io->n_parts; i++)
            for (uint32_t row = 0; row < io->part[i].rows; row++)
                answer_row(x, &io->part[i], row);
    p->busy_until_us = MAX(p->busy_until_us, clock_now_us()) + x->run_ns / 1000;
    r->done_us = p->busy_until_us;
    p->n_runs++;
    *ret = r->ticket;
    return 0;
}

static size_t take_done(struct part *p, usec_t now_us, struct done *done, size_t max)
{
    size_t n = 0;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < p->n_runs; i++) {
        struct run *r = &p->run[i];
        if (r->done_us <= now_us && n < max)
            done[n++] = (struct done){.ticket = r->ticket, .rc = r->rc, .run_ns = r->run_ns};
        else
            p->run[kept++] = *r;
    }
    p->n_runs = kept;
    return n;
}

static size_t sim_wait(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    for (;;) {
        usec_t now_us = clock_now_us(), wake_us = until_us;
        size_t n = take_done(p, now_us, done, max);

        for (uint32_t i = 0; i < p->n_runs; i++)
            wake_us = MIN(wake_us, p->run[i].done_us);
        struct timespec t = {.tv_sec = (time_t)(wake_us / USEC_PER_SEC),
                             .tv_nsec = (long)(wake_us % USEC_PER_SEC) * 1000};
        bool over = n > 0 || now_us >= until_us;

        if (!over && p->n_runs && wake_us <= now_us + SPIN_US)
            continue;

        (void)pthread_mutex_lock(&p->lock);
        while (!p->kicked && !over) {
            int r = wake_us == USEC_NEVER ? pthread_cond_wait(&p->cond, &p->lock)
                                          : pthread_cond_timedwait(&p->cond, &p->lock, &t);
            if (r == ETIMEDOUT)
                break;
        }
        over |= p->kicked;
        p->kicked = false;
        (void)pthread_mutex_unlock(&p->lock);
        if (over)
            return n;
    }
}

static enum part_fault sim_fault_of(struct part *p)
{
    return p->fault;
}

static void sim_kick(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->kicked = true;
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_cond_signal(
        &p->cond); /* after the lock: the executor runs at once and takes it */
}

const struct backend backend_sim = {
    .name = "sim",
    .abi = BACKEND_ABI,
    .devices = sim_devices,
    .dev_open = sim_dev_open,
    .dev_close = sim_dev_close,
    .host_open = sim_host_open,
    .host_close = sim_host_close,
    .part_open = sim_part_open,
    .part_close = sim_part_close,
    .weights_get = sim_weights_get,
    .weights_put = sim_weights_put,
    .compile = sim_compile,
    .exe_info = sim_exe_info,
    .release = sim_release,
    .slot_open = sim_slot_open,
    .slot_close = sim_slot_close,
    .probe = sim_probe,
    .part_enter = sim_part_enter,
    .submit = sim_submit,
    .wait = sim_wait,
    .fault = sim_fault_of,
    .kick = sim_kick,
};
