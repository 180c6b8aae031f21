/* Cores and partitions of them.
 *
 * A partition is a set of cores; its executor pins itself when it enters.  More than one core
 * means that many OpenMP threads inside the library's primitives, whose team belongs to the
 * executor and inherits its mask; our own kernels are cut into pieces for the same team. */
#include "cpu.h"
#include <ctype.h>
#include <gpulet/clock.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLICE_NS 100000 /* the least that Linux gives */

struct units {
    uint32_t n;
    uint16_t core[MAX_GRANULES];
    bool shared; /* services have no core of their own */
};

/* "1-3,6" into a mask. */
static int list_parse(const char *list, cpu_set_t *ret, struct err *err)
{
    const char *s = list;

    CPU_ZERO(ret);
    for (;;) {
        char *end;
        unsigned long from = isdigit((unsigned char)*s) ? strtoul(s, &end, 10) : CPU_SETSIZE;
        unsigned long to = from;
        if (from < CPU_SETSIZE && *end == '-' && isdigit((unsigned char)end[1]))
            to = strtoul(end + 1, &end, 10);
        if (from >= CPU_SETSIZE || to >= CPU_SETSIZE || to < from || (*end && *end != ','))
            return err_set(err, -EINVAL,
                           "cpu-units '%s': not 'auto' and not a list of cores like '1-3,6'", list);
        for (unsigned long i = from; i <= to; i++)
            CPU_SET(i, ret);
        if (!*end)
            return 0;
        s = end + 1;
    }
}

static int units_find(const struct backend_config *cfg, struct units *ret, struct err *err)
{
    cpu_set_t may, want;
    bool automatic = !cfg->cpu_units[0] || STREQ(cfg->cpu_units, "auto");
    struct units u = {0};

    if (sched_getaffinity(0, sizeof(may), &may) < 0)
        return err_set(err, -ENODEV, "cannot read the affinity mask: %s", strerror(errno));
    want = may;
    if (!automatic) {
        int r = list_parse(cfg->cpu_units, &want, err);
        if (r < 0)
            return r;
    }
    bool reserve = automatic && CPU_COUNT(&may) >= 3;
    for (unsigned i = 0; i < CPU_SETSIZE && u.n < MAX_GRANULES; i++) {
        if (!CPU_ISSET(i, &want))
            continue;
        if (!CPU_ISSET(i, &may))
            return err_set(err, -EINVAL, "cpu-units '%s': core %u is not ours to use",
                           cfg->cpu_units, i);
        if (reserve)
            reserve = false; /* the first allowed core is the services' */
        else
            u.core[u.n++] = (uint16_t)i;
    }
    u.shared = (int)u.n >= CPU_COUNT(&may);
    *ret = u;
    return 0;
}

/* "model name : AMD EPYC …" of the first core. */
static void cpu_kind(char *ret, size_t size)
{
    AUTO(free) char *line = NULL;
    size_t cap = 0;
    FILE *f = fopen("/proc/cpuinfo", "re");

    (void)snprintf(ret, size, "CPU");
    while (f && getline(&line, &cap, f) > 0)
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            (void)snprintf(ret, size, "%s", strchr(line, ':') + 2);
            ret[strcspn(ret, "\n")] = 0;
            break;
        }
    if (f)
        (void)fclose(f);
}

static int cpu_devices(const struct backend_config *cfg, struct device_info *ret, size_t max,
                       size_t *ret_n, struct err *err)
{
    struct units u;
    int r = units_find(cfg, &u, err);

    if (r < 0)
        return r;
    if (max == 0)
        return err_set(err, -EINVAL, "no room for a device");
    *ret = (struct device_info){.name = "cpu0",
                                .units = u.n,
                                .granule_units = 1,
                                .n_granules = u.n,
                                .max_granules = 1, /* one thread each: adr/0006 */
                                .mode = MODE_CORES,
                                .weights_shared = true,
                                .in_turn = true};
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    ret->mem_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    cpu_kind(ret->kind, sizeof(ret->kind));
    (void)snprintf(ret->library, sizeof(ret->library), "oneDNN %d.%d.%d", dnnl_version()->major,
                   dnnl_version()->minor, dnnl_version()->patch);
    (void)snprintf(ret->why, sizeof(ret->why), "a gpu-let is a pinned core with one thread; %s",
                   u.shared ? "service threads share a core with gpu-lets"
                            : "service threads keep to the cores that are not listed");
    *ret_n = 1;
    return 0;
}

static void cpu_dev_close(struct device *dev)
{
    if (!dev)
        return;
    assert(dev->n_parts == 0);
    dn_close(&dev->dn);
    free(dev);
}
DEFINE_AUTO(struct device, cpu_dev_close)

static int cpu_dev_open(const struct backend_config *cfg, unsigned index, struct device **ret,
                        struct err *err)
{
    struct units u;
    int r =
        index ? err_set(err, -ENODEV, "there is no device %u", index) : units_find(cfg, &u, err);

    if (r < 0)
        return r;
    AUTO(cpu_dev_close) struct device *dev = calloc(1, sizeof(*dev));
    if (!dev)
        return err_set(err, -ENOMEM, "out of memory");
    dev->n_cores = u.n;
    dev->run_bytes = cfg->run_bytes ? cfg->run_bytes : RUN_BYTES;
    memcpy(dev->core, u.core, sizeof(u.core));
    r = dn_open(&dev->dn, err);
    if (r < 0)
        return r;
    *ret = TAKE(dev);
    return 0;
}

/* The device is the host: any memory will do. */
static int cpu_host_open(struct device *dev, const struct host_region *region, struct err *err)
{
    (void)dev;
    return region->base ? 0 : err_set(err, -EINVAL, "the region is not mapped");
}

static void cpu_host_close(struct device *dev, const struct host_region *region)
{
    (void)dev;
    (void)region;
}

static int set_check(const struct device *dev, const struct granules *set, struct err *err)
{
    for (unsigned i = dev->n_cores; i < MAX_GRANULES; i++)
        if (granules_has(set, i))
            return err_set(err, -EINVAL, "granule %u: the device has %u", i, dev->n_cores);
    if (granules_count(set) == 0)
        return err_set(err, -EINVAL, "a partition needs a granule");
    return 0; /* a core may be in two partitions for the moment of a change */
}

static int cpu_part_open(struct device *dev, const struct granules *set, struct part **ret,
                         uint32_t *ret_units, struct err *err)
{
    pthread_condattr_t attr;
    int r = set_check(dev, set, err);

    if (r < 0)
        return r;
    AUTO(free) struct part *p = calloc(1, sizeof(*p));
    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    p->dev = dev;
    p->set = *set;
    CPU_ZERO(&p->cores);
    for (unsigned i = 0; i < dev->n_cores; i++)
        if (granules_has(set, i))
            CPU_SET(dev->core[i], &p->cores);
    p->n_threads = granules_count(set);
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    dev->n_parts++;
    *ret_units = p->n_threads;
    *ret = TAKE(p);
    return 0;
}

static void cpu_part_close(struct part *p)
{
    if (!p)
        return;
    p->dev->n_parts--;
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

/* An executor that has something to do is let in at once where others keep its core busy, as the
 * threads of the servers do with large bodies: who asks for short slices is, and gets no more of
 * the core for it (Linux 6.12).  Where that is refused or unknown it waits for its turn.  Executors
 * that are not pinned only get in each other's way so. */
static void ask_short_slices(void)
{
    const struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t slice_ns, deadline_ns, period_ns;
    } attr = {.size = sizeof(attr),
              .policy = SCHED_OTHER,
              .nice = getpriority(PRIO_PROCESS, 0),
              .slice_ns = SLICE_NS};

    (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* Before the first parallel region, so that the team's threads inherit the mask. */
static void cpu_part_enter(struct part *p)
{
    (void)sched_setaffinity(0, sizeof(p->cores), &p->cores);
    ask_short_slices();
    dn_threads(p->n_threads);
}

static size_t take_done(struct part *p, struct done *done, size_t max)
{
    size_t n = MIN(p->n_done, max);

    memcpy(done, p->done, n * sizeof(*done));
    p->n_done -= (unsigned)n;
    memmove(p->done, p->done + n, p->n_done * sizeof(*done));
    return n;
}

/* Runs are synchronous: whatever was submitted is done, and only a kick can come from outside. */
static size_t cpu_wait(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    struct timespec until = {.tv_sec = (time_t)(until_us / USEC_PER_SEC),
                             .tv_nsec = (long)(until_us % USEC_PER_SEC) * 1000};
    int r = 0;

    if (p->n_done)
        return take_done(p, done, max);
    (void)pthread_mutex_lock(&p->lock);
    while (!p->kicked && r != ETIMEDOUT && until_us > 0) /* 0: no system call to find it is over */
        r = until_us == USEC_NEVER ? pthread_cond_wait(&p->wake, &p->lock)
                                   : pthread_cond_timedwait(&p->wake, &p->lock, &until);
    p->kicked = false;
    (void)pthread_mutex_unlock(&p->lock);
    return 0;
}

static void cpu_kick(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->kicked = true;
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_cond_signal(
        &p->wake); /* after the lock: the executor runs at once and takes it */
}

static enum part_fault cpu_fault(struct part *p)
{
    (void)p;
    return FAULT_NONE;
}

const struct backend backend_cpu = {
    .name = "cpu",
    .abi = BACKEND_ABI,
    .devices = cpu_devices,
    .dev_open = cpu_dev_open,
    .dev_close = cpu_dev_close,
    .host_open = cpu_host_open,
    .host_close = cpu_host_close,
    .part_open = cpu_part_open,
    .part_close = cpu_part_close,
    .weights_get = weights_get,
    .weights_put = weights_put,
    .compile = cpu_compile,
    .exe_info = cpu_exe_info,
    .release = cpu_release,
    .slot_open = cpu_slot_open,
    .slot_close = cpu_slot_close,
    .probe = cpu_probe,
    .part_enter = cpu_part_enter,
    .submit = cpu_submit,
    .wait = cpu_wait,
    .fault = cpu_fault,
    .outputs = cpu_outputs,
    .kick = cpu_kick,
};
