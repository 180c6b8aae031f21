/* The device's time: which runs are under way, how fast each goes, when it ends.
 *
 * A run has a part that is left of it; it gets less at a speed that depends on who else runs on the
 * device at this moment (the interference model of the file, lib/plan/interfere.c).  Whenever a run
 * begins or ends, what is left of all others is brought up to date, and their ends are found anew.
 * These events are dealt with in their order and at their own times, however late somebody looks:
 * the next run of a lane begins when the one before it has ended, not when that was noticed.
 *
 * Runs of a partition in different lanes go side by side: each of k goes as fast as it would alone
 * on the k-th part of the units, under the pressure of the others (load_lane()); the replay has the
 * same rule in lib/replay/together.c.  A probe has the partition for itself.
 *
 * Whoever holds the lock brings the device up to date: executors as they submit and wait, and the
 * clock, one thread a device that sleeps until the next event.  So no executor needs to spin, and
 * a device with many partitions has one timer.
 *
 * Partitions that have granules in common, as for a moment when a plan changes, take turns on them:
 * each is slower by the part that others use of it. */
#include "device.h"

#include <sys/prctl.h>

/* Is nobody before the i-th run that it must wait for? */
static bool is_next(const struct part *p, uint32_t i)
{
    const struct work *w = &p->work[i];

    for (uint32_t k = 0; k < i; k++)
        if (p->work[k].lane == w->lane || p->work[k].probe || w->probe)
            return false;
    return true;
}

static uint64_t work_next_ns(const struct part *p, uint32_t i)
{
    const struct work *w = &p->work[i];

    if (w->begun)
        return w->hangs ? NEVER_NS : w->end_ns;
    return is_next(p, i) ? w->ready_ns : NEVER_NS;
}

uint64_t part_next_ns(const struct part *p)
{
    uint64_t ns = NEVER_NS;

    for (uint32_t i = 0; i < p->n_work; i++)
        ns = MIN(ns, work_next_ns(p, i));
    return ns;
}

static uint64_t next_ns(const struct device *dev)
{
    uint64_t ns = faults_next_ns(dev);

    for (const struct part *p = dev->parts; p; p = p->next)
        ns = MIN(ns, part_next_ns(p));
    return ns;
}

/* ---- telling */
static void tell(struct part *p, const struct work *w, uint64_t end_ns)
{
    uint64_t run_ns = w->begun ? end_ns - w->start_ns + (uint64_t)(w->exe->in_us * 1000) : 0;

    (void)pthread_mutex_lock(&p->lock);
    assert(p->n_done < RUNS_MAX);
    p->done[p->n_done++] =
        (struct sim_done){.done = {.ticket = w->ticket, .rc = w->rc, .run_ns = run_ns},
                          .end_ns = end_ns,
                          .probe = w->probe};
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_cond_broadcast(&p->cond); /* a probe may wait beside the executor */
}

void part_lose(struct part *p, enum part_fault fault)
{
    (void)pthread_mutex_lock(&p->lock);
    p->fault = MAX(p->fault, fault);
    (void)pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_work; i++) {
        p->work[i].rc = -ENODEV;
        tell(p, &p->work[i], p->dev->now_ns);
    }
    p->n_work = p->n_begun = 0;
    (void)pthread_cond_broadcast(&p->cond);
}

void device_lose(struct device *dev, enum part_fault fault)
{
    dev->gone = true;
    for (struct part *p = dev->parts; p; p = p->next)
        part_lose(p, fault);
}

/* ---- speed */
/* How it runs beside the others of its partition. */
static const struct alone *as_now(const struct part *p, const struct work *w)
{
    return &w->exe->as[p->n_begun];
}

static void pressure_all(const struct device *dev, const struct work *but, struct pressure *ret)
{
    *ret = (struct pressure){0};
    for (const struct part *p = dev->parts; p; p = p->next)
        for (const struct work *w = p->work; w < p->work + p->n_work; w++)
            if (w != but && w->begun && w->exe->presses)
                pressure_add(&dev->predict, ret, &as_now(p, w)->solo, 1);
}

/* How often others want the units of this one, on average. */
static double wanted(const struct device *dev, const struct part *me)
{
    double n = 0;

    for (const struct part *p = dev->parts; p; p = p->next) {
        struct granules both = {{0}};
        for (size_t i = 0; i < ARRAY_SIZE(both.bits); i++)
            both.bits[i] = p->set.bits[i] & me->set.bits[i];
        if (p != me && p->n_begun)
            n += granules_count(&both);
    }
    return n / MAX(granules_count(&me->set), 1u);
}

static double takes_us(const struct device *dev, const struct part *p, const struct work *w,
                       const struct pressure *all)
{
    const struct alone *x = as_now(p, w);
    struct estimate e = {.hold_us = x->hold_us};

    if (w->exe->presses && dev->predict.interference.kind != INTERFERE_NONE) {
        struct pressure others = *all;
        if (!pressure_sub(&dev->predict, &others, &x->solo, 1))
            pressure_all(dev, w, &others);
        pressure_of(&dev->predict, &x->solo, &others, &e);
    }
    return dev->overlaps ? e.hold_us * (1 + wanted(dev, p)) : e.hold_us;
}

/* The set of runs under way has changed at now_ns. */
static void ends_find(struct device *dev)
{
    struct pressure all = {0};

    if (dev->predict.interference.kind != INTERFERE_NONE)
        pressure_all(dev, NULL, &all);
    for (struct part *p = dev->parts; p; p = p->next)
        for (struct work *w = p->work; w < p->work + p->n_work; w++)
            if (w->begun) {
                w->took_us = takes_us(dev, p, w, &all);
                w->end_ns = dev->now_ns + (uint64_t)(w->left * w->took_us * 1000 + 0.5);
            }
}

/* ---- events */
static void settle(struct device *dev, uint64_t ns)
{
    double us = (double)(ns - dev->now_ns) / 1000;

    for (struct part *p = dev->parts; p; p = p->next)
        for (struct work *w = p->work; w < p->work + p->n_work; w++)
            if (w->begun && w->took_us > 0)
                w->left = MAX(w->left - us / w->took_us, 0);
    dev->now_ns = ns;
}

static void works_end(struct part *p, uint64_t ns)
{
    for (uint32_t i = 0; i < p->n_work;) {
        if (!p->work[i].begun || work_next_ns(p, i) > ns) {
            i++;
            continue;
        }
        tell(p, &p->work[i], p->work[i].end_ns);
        p->n_begun--;
        memmove(&p->work[i], &p->work[i + 1], (--p->n_work - i) * sizeof(p->work[0]));
    }
}

static void works_begin(struct part *p, uint64_t ns)
{
    for (uint32_t i = 0; i < p->n_work; i++) {
        struct work *w = &p->work[i];
        if (w->begun || work_next_ns(p, i) > ns)
            continue;
        w->begun = true;
        w->start_ns = ns;
        w->left = 1;
        p->n_begun++;
    }
}

static void happen(struct device *dev, uint64_t ns)
{
    settle(dev, ns);
    faults_befall(dev, ns);
    for (struct part *p = dev->parts; p; p = p->next) {
        works_end(p, ns);
        works_begin(p, ns);
    }
    ends_find(dev);
}

void device_advance(struct device *dev, uint64_t now_ns)
{
    uint64_t ns;

    while ((ns = next_ns(dev)) <= MAX(now_ns, dev->now_ns))
        happen(dev, MAX(ns, dev->now_ns));
    /* What ends within SPIN_US is somebody's who is about to wait for it. */
    if (ns < dev->wake_ns && ns > now_ns + SPIN_US * NS_PER_US)
        (void)pthread_cond_signal(&dev->cond);
}

void part_abort(struct part *p, uint64_t now_ns)
{
    device_advance(p->dev, now_ns);
    settle(p->dev, MAX(now_ns, p->dev->now_ns));
    part_lose(p, FAULT_PART);
    ends_find(p->dev);
    device_advance(p->dev, now_ns);
}

/* ---- the clock */
static void *clock_main(void *arg)
{
    struct device *dev = arg;

    (void)pthread_setname_np(pthread_self(), "sim-clock");
    (void)prctl(PR_SET_TIMERSLACK, 1000UL);
    (void)pthread_mutex_lock(&dev->lock);
    while (!dev->stop) {
        dev->wake_ns = 0;
        device_advance(dev, clock_now_ns());
        dev->wake_ns = next_ns(dev);
        struct timespec t = {.tv_sec = (time_t)(dev->wake_ns / 1000000000),
                             .tv_nsec = (long)(dev->wake_ns % 1000000000)};
        if (dev->wake_ns == NEVER_NS)
            (void)pthread_cond_wait(&dev->cond, &dev->lock);
        else
            (void)pthread_cond_timedwait(&dev->cond, &dev->lock, &t);
    }
    (void)pthread_mutex_unlock(&dev->lock);
    return NULL;
}

int device_start(struct device *dev, struct err *err)
{
    int r = 0;

    (void)pthread_mutex_lock(&dev->lock);
    if (!dev->started)
        r = -pthread_create(&dev->clock, NULL, clock_main, dev);
    dev->started |= r == 0;
    (void)pthread_mutex_unlock(&dev->lock);
    return r < 0 ? err_set(err, r, "no thread: %s", strerror(-r)) : 0;
}

void device_stop(struct device *dev)
{
    if (!dev->started)
        return;
    (void)pthread_mutex_lock(&dev->lock);
    dev->stop = true;
    (void)pthread_cond_signal(&dev->cond);
    (void)pthread_mutex_unlock(&dev->lock);
    (void)pthread_join(dev->clock, NULL);
}
