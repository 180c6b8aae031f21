/* backend = sim: devices that a problem file describes, in real time and without hardware.
 *
 *   file.c    the file: devices, models, what `sim` in it says
 *   time.c    runs under way, what they do to each other, the clock
 *   fault.c   what goes wrong, and when
 *   answer.c  what a run answers
 *
 * A run takes what the model's profile says for its batch and partition, beside those that run at
 * the same moment; a model that the file does not name takes the time of its counted FLOPs and
 * bytes over the declared rates, shared by units, and uses that part of the memory.  Runs of one
 * partition share its units, lane by lane (time.c), unless the file says `in_turn`; those of a lane
 * follow each other, a copy in goes on meanwhile.  A probe takes as long as any run of it alone. */
#include "device.h"

#include <math.h>
#include <stdio.h>
#include <sys/prctl.h>

#define PROBE_LOOKS_NS 1000000000 /* between two looks, if nothing is to be expected */

static struct tally lag;

const struct tally *sim_lag(void)
{
    return &lag;
}

struct slot {
    struct exe *exe;
};

static void condition_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;

    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(c, &attr);
    (void)pthread_condattr_destroy(&attr);
}

/* ---- devices */
static void sim_dev_close(struct device *dev)
{
    if (!dev)
        return;
    device_unlist(dev);
    device_stop(dev);
    (void)pthread_cond_destroy(&dev->cond);
    (void)pthread_mutex_destroy(&dev->lock);
    arena_done(&dev->arena);
    free(dev);
}

static int faults_of_file(struct device *dev, struct err *err)
{
    uint64_t now_ns = clock_now_ns();
    int r = 0;

    for (uint32_t i = 0; i < dev->spec.n_faults && r == 0; i++) {
        const struct sim_fault *f = &dev->spec.fault[i];
        if (!f->device || STREQ(f->device, dev->info.name))
            r = fault_add(dev, f, now_ns, err);
    }
    return r;
}

static int sim_dev_open(const struct backend_config *cfg, unsigned index, struct device **ret,
                        struct err *err)
{
    struct device *dev = calloc(1, sizeof(*dev));
    struct problem p;

    if (!dev)
        return err_set(err, -ENOMEM, "out of memory");
    arena_init(&dev->arena);
    (void)pthread_mutex_init(&dev->lock, NULL);
    condition_init(&dev->cond);
    int r = device_read(cfg, &dev->arena, &p, &dev->spec, dev->info.library, err);
    if (r == 0 && index >= p.n_devices)
        r = err_set(err, -ENODEV, "'%s': there is no device %u any more", cfg->sim_file, index);
    if (r == 0 &&
        ((r = device_fill(dev, &p, index, err)) < 0 || (r = faults_of_file(dev, err)) < 0))
        (void)err_wrap(err, "'%s': ", cfg->sim_file);
    if (r < 0) {
        sim_dev_close(dev);
        return r;
    }
    device_list(dev);
    *ret = dev;
    return 0;
}

static int sim_devices(const struct backend_config *cfg, struct device_info *ret, size_t max,
                       size_t *ret_n, struct err *err)
{
    struct problem p;
    struct sim_spec s;
    struct arena a;

    arena_init(&a);
    char mark[sizeof(ret->library)];
    int r = device_read(cfg, &a, &p, &s, mark, err);
    if (r == 0 && p.n_devices > max)
        r = err_set(err, -EINVAL, "'%s': %u devices, the limit is %zu", cfg->sim_file, p.n_devices,
                    max);
    uint32_t n = r == 0 ? p.n_devices : 0;
    arena_done(&a);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        struct device *dev;
        r = sim_dev_open(cfg, i, &dev, err);
        if (r == 0)
            ret[i] = dev->info;
        if (r == 0)
            sim_dev_close(dev);
    }
    if (r == 0)
        *ret_n = n;
    return r;
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
static bool parts_overlap(const struct device *dev)
{
    for (const struct part *p = dev->parts; p; p = p->next)
        for (const struct part *q = p->next; q; q = q->next)
            if (granules_overlap(&p->set, &q->set))
                return true;
    return false;
}

static int sim_part_open(struct device *dev, const struct granules *set, struct part **ret,
                         uint32_t *ret_units, struct err *err)
{
    struct part *p = calloc(1, sizeof(*p));

    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    p->dev = dev;
    p->set = *set;
    p->units = granules_count(set) * dev->info.granule_units;
    (void)pthread_mutex_init(&p->lock, NULL);
    condition_init(&p->cond);
    (void)pthread_mutex_lock(&dev->lock);
    bool gone = dev->gone;
    p->next = dev->parts;
    dev->parts = p;
    dev->overlaps = parts_overlap(dev);
    (void)pthread_mutex_unlock(&dev->lock);
    if (gone) {
        backend_sim.part_close(p);
        return err_set(err, -ENODEV, "device '%s' is lost", dev->info.name);
    }
    *ret = p;
    *ret_units = p->units;
    return 0;
}

static void sim_part_close(struct part *p)
{
    struct device *dev = p->dev;

    (void)pthread_mutex_lock(&dev->lock);
    struct part **at = &dev->parts;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    dev->overlaps = parts_overlap(dev);
    (void)pthread_mutex_unlock(&dev->lock);
    (void)pthread_cond_destroy(&p->cond);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

/* The clock is started here: a thread that the builder starts would be as nice as the builder. */
static void sim_part_enter(struct part *p)
{
    (void)prctl(PR_SET_TIMERSLACK, 1000UL);
    (void)device_start(p->dev, NULL);
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

/* What a model takes on so many units that the file does not name, and for what part of it the
 * memory is busy. */
static double counted_us(const struct exe *x, uint32_t units, double *ret_memory)
{
    const struct device *dev = x->part->dev;
    double flops = 0, bytes = 0, share = (double)units / dev->info.units;

    for (uint32_t i = 0; i < x->bound->graph->n_nodes; i++) {
        struct cost c = node_cost(x->bound, i);
        flops += c.flops;
        bytes += c.bytes;
    }
    double memory_s = bytes / dev->info.mem_bytes_per_s;
    double s = MAX(flops / dev->info.flops_per_s / share, memory_s);
    double us = (double)dev->spec.launch_us + floor(s * 1e9) / 1000;
    *ret_memory = us > 0 ? memory_s * 1e6 / us : 0;
    return us;
}

/* A run of it alone as one of so many in its partition, and how it presses on others. */
static int exe_time(struct exe *x, uint32_t lanes, struct err *err)
{
    const struct device *dev = x->part->dev;
    const uint32_t units = MAX(x->part->units / lanes, 1);
    struct alone *as = &x->as[lanes];
    bool named = x->model && x->model->profile;
    double memory = 0, us = named ? 0 : counted_us(x, units, &memory);
    const usec_t run_us = MAX((usec_t)(us + 0.5), 1);
    const struct profile made_up = {.n_batch = 1,
                                    .n_units = 1,
                                    .batch = &x->n_batch,
                                    .units = &units,
                                    .run_us = &run_us,
                                    .l2 = &memory,
                                    .dram = &memory};
    struct load l = {.profile = named ? x->model->profile : &made_up,
                     .batch = x->n_batch,
                     .units = x->part->units,
                     .duty = 1};
    static const struct pressure nobody;
    struct estimate e;

    if (!named && dev->predict.interference.kind == INTERFERE_NONE) {
        as->hold_us = us; /* to the nanosecond */
        return 0;
    }
    if (!load_lane(&dev->predict, &l, lanes, &as->solo))
        return err_set(err, -ENOTSUP, "%u rows do not run on %u units of device '%s'", x->n_batch,
                       x->part->units, dev->info.name);
    pressure_of(&dev->predict, &as->solo, &nobody, &e);
    as->hold_us = e.hold_us;
    if (lanes == 1)
        x->in_us = e.run_us - e.hold_us;
    x->presses = true;
    return 0;
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
    (void)snprintf(x->name, sizeof(x->name), "%s", args->model);
    for (uint32_t i = p->dev->n_models; i-- > 0;) /* the first of a name */
        if (STREQ(p->dev->model[i].name, args->model))
            x->model = &p->dev->model[i];
    for (uint32_t i = 0; i < g->n_values; i++)
        x->weights_bytes += g->values[i].constant ? g->values[i].constant->t.bytes : 0;
    for (uint32_t k = 1; k <= MAX_LANES && r == 0; k++)
        r = exe_time(x, k, err);
    if (r < 0) {
        free(x);
        return r;
    }
    *ret = x;
    return 0;
}

static void sim_exe_info(const struct exe *x, struct exe_info *ret)
{
    *ret = (struct exe_info){.n_segments = 1,
                             .weights_bytes = x->weights_bytes,
                             .n_steps = x->bound->graph->n_nodes,
                             .inputs_us = x->part->dev->info.ahead_us > 0 ? (usec_t)x->in_us : 0};
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

/* ---- runs */
static enum part_fault sim_fault_of(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    enum part_fault f = p->fault;
    (void)pthread_mutex_unlock(&p->lock);
    return f;
}

static unsigned first_granule(const struct granules *set)
{
    unsigned i = 0;

    while (i < MAX_GRANULES - 1 && !granules_has(set, i))
        i++;
    return i;
}

/* Under dev->lock; -ENODEV: the partition is lost. */
static int work_add(struct exe *x, uint32_t lane, bool probe, uint64_t now_ns,
                    const struct sim_fault *f, ticket *ret)
{
    struct part *p = x->part;

    if (sim_fault_of(p) != FAULT_NONE)
        return -ENODEV;
    assert(p->n_work < RUNS_MAX);
    struct work *w = &p->work[p->n_work++];
    *w = (struct work){.ticket = ++p->next_ticket,
                       .exe = x,
                       .lane = p->dev->info.in_turn ? 0 : lane,
                       .probe = probe,
                       .hangs = !probe && (p->hang_next || (f && f->kind == SIM_HANG)),
                       .rc = !probe && (p->fail_next || (f && f->kind == SIM_FAIL)) ? -EIO : 0,
                       .ready_ns = now_ns + (uint64_t)(x->in_us * 1000)};
    p->hang_next &= probe;
    p->fail_next &= probe;
    *ret = w->ticket;
    if (!f || f->kind < SIM_LOST)
        return 0;
    /* The list has room: this fault has just left it. */
    return fault_add(p->dev,
                     &(struct sim_fault){.kind = f->kind, .granule = first_granule(&p->set)},
                     now_ns, NULL);
}

static int sim_submit(struct slot *s, unsigned lane, unsigned from, unsigned to,
                      const struct io *io, ticket *ret)
{
    struct exe *x = s->exe;
    struct device *dev = x->part->dev;
    struct sim_fault f;

    (void)from, (void)to;
    (void)pthread_mutex_lock(&dev->lock);
    uint64_t now_ns = clock_now_ns();
    device_advance(dev, now_ns);
    bool falls = faults_take(dev, x->name, now_ns, &f);
    int r = work_add(x, lane, false, now_ns, falls ? &f : NULL, ret);
    device_advance(dev, now_ns);
    (void)pthread_mutex_unlock(&dev->lock);
    if (r < 0)
        return r;
    x->part->n_out++;
    if (falls && f.kind == SIM_STALL)
        (void)clock_nanosleep(
            CLOCK_MONOTONIC, 0,
            &(struct timespec){.tv_sec = (time_t)(f.stall_us / USEC_PER_SEC),
                               .tv_nsec = (long)(f.stall_us % USEC_PER_SEC) * 1000},
            NULL);
    answer(x, io); /* while the device is busy with it */
    return 0;
}

/* Under p->lock: what has ended and was not taken yet. */
static size_t done_take(struct part *p, bool probe, struct done *done, size_t max)
{
    uint64_t now_ns = p->n_done ? clock_now_ns() : 0;
    uint32_t kept = 0;
    size_t n = 0;

    for (uint32_t i = 0; i < p->n_done; i++) {
        struct sim_done *d = &p->done[i];
        if (d->probe != probe || n == max) {
            p->done[kept++] = *d;
            continue;
        }
        done[n++] = d->done;
        if (!probe && d->done.rc == 0)
            tally_add(&lag, tally_us, (now_ns - MIN(d->end_ns, now_ns)) / NS_PER_US);
    }
    p->n_done = kept;
    return n;
}

/* Brings the device up to date; when something happens to the partition next. */
static uint64_t update(struct part *p)
{
    struct device *dev = p->dev;

    (void)pthread_mutex_lock(&dev->lock);
    device_advance(dev, clock_now_ns());
    uint64_t ns = part_next_ns(p);
    (void)pthread_mutex_unlock(&dev->lock);
    return ns;
}

static size_t wait_told(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    struct timespec t = {.tv_sec = (time_t)(until_us / USEC_PER_SEC),
                         .tv_nsec = (long)(until_us % USEC_PER_SEC) * 1000};
    size_t n;
    int r = until_us == 0 ? ETIMEDOUT : 0;

    (void)pthread_mutex_lock(&p->lock);
    while ((n = done_take(p, false, done, max)) == 0 && !p->kicked && !p->fault && r != ETIMEDOUT)
        r = until_us == USEC_NEVER ? pthread_cond_wait(&p->cond, &p->lock)
                                   : pthread_cond_timedwait(&p->cond, &p->lock, &t);
    p->kicked = false;
    (void)pthread_mutex_unlock(&p->lock);
    return n;
}

static size_t sim_wait(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    while (p->n_out > 0 && update(p) <= clock_now_ns() + SPIN_US * NS_PER_US)
        ; /* a sleep would take longer */
    size_t n = wait_told(p, until_us, done, max);
    p->n_out -= (uint32_t)n;
    return n;
}

static void sim_kick(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->kicked = true;
    (void)pthread_mutex_unlock(&p->lock);
    /* After the lock: the executor runs at once and takes it.  All: a probe may wait, too. */
    (void)pthread_cond_broadcast(&p->cond);
}

/* What is in flight is given up; a hung run with it. */
static void sim_abort(struct part *p)
{
    struct device *dev = p->dev;

    (void)pthread_mutex_lock(&dev->lock);
    part_abort(p, clock_now_ns());
    (void)pthread_mutex_unlock(&dev->lock);
}

static int probe_one(struct exe *x, uint64_t *ret_ns)
{
    struct part *p = x->part;
    struct device *dev = p->dev;
    struct done d;
    ticket t;

    (void)pthread_mutex_lock(&dev->lock);
    uint64_t now_ns = clock_now_ns();
    int r = work_add(x, 0, true, now_ns, NULL, &t);
    device_advance(dev, now_ns);
    (void)pthread_mutex_unlock(&dev->lock);
    if (r < 0)
        return r;
    /* By itself: there may be no executor yet, and no clock. */
    for (size_t n = 0; n == 0;) {
        uint64_t ns = MIN(update(p), clock_now_ns() + PROBE_LOOKS_NS);
        struct timespec at = {.tv_sec = (time_t)(ns / 1000000000),
                              .tv_nsec = (long)(ns % 1000000000)};
        (void)pthread_mutex_lock(&p->lock);
        n = done_take(p, true, &d, 1);
        if (n == 0)
            (void)pthread_cond_timedwait(&p->cond, &p->lock, &at);
        (void)pthread_mutex_unlock(&p->lock);
    }
    *ret_ns = d.run_ns;
    return d.rc;
}

static int sim_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
                     struct err *err)
{
    (void)from, (void)to;
    for (unsigned i = 0; i < n; i++) {
        int r = probe_one(s->exe, &ret_ns[i]);
        if (r < 0)
            return err_set(err, r, "model '%s': the partition was lost while it was measured",
                           s->exe->name);
    }
    return 0;
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
    .abort = sim_abort,
    .kick = sim_kick,
};
