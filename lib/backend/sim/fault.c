/* Faults: those of the file and those asked for at run time wait in a list of their device until
 * their run begins or their moment has come. */
#include "device.h"

#include <stdio.h>

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct device *list; /* devices that are open */

void device_list(struct device *dev)
{
    (void)pthread_mutex_lock(&list_lock);
    dev->next = list;
    list = dev;
    (void)pthread_mutex_unlock(&list_lock);
}

void device_unlist(struct device *dev)
{
    (void)pthread_mutex_lock(&list_lock);
    struct device **at = &list;
    while (*at && *at != dev)
        at = &(*at)->next;
    if (*at)
        *at = dev->next;
    (void)pthread_mutex_unlock(&list_lock);
}

int fault_add(struct device *dev, const struct sim_fault *f, uint64_t now_ns, struct err *err)
{
    if (dev->n_faults == SIM_MAX_FAULTS)
        return err_set(err, -ENOSPC, "device '%s': %d faults wait for their moment already",
                       dev->info.name, SIM_MAX_FAULTS);
    if (!f->model && f->granule >= dev->info.n_granules)
        return err_set(err, -EINVAL, "device '%s': `granule` is %u, there are %u", dev->info.name,
                       f->granule, dev->info.n_granules);
    struct fault *to = &dev->fault[dev->n_faults++];
    *to = (struct fault){.f = *f, .runs = f->run, .at_ns = now_ns + f->after_us * NS_PER_US};
    (void)snprintf(to->model, sizeof(to->model), "%s", f->model ? f->model : "");
    to->f.model = to->f.device = NULL; /* the caller's */
    return 0;
}

static void fault_drop(struct device *dev, uint32_t i)
{
    dev->fault[i] = dev->fault[--dev->n_faults];
}

/* ---- of a model's run */
bool faults_take(struct device *dev, const char *model, uint64_t now_ns, struct sim_fault *ret)
{
    bool taken = false;

    for (uint32_t i = dev->n_faults; i-- > 0;) {
        struct fault *f = &dev->fault[i];
        if (!f->model[0] || !STREQ(f->model, model) || f->at_ns > now_ns || --f->runs > 0)
            continue;
        *ret = f->f;
        taken = true;
        fault_drop(dev, i);
    }
    return taken;
}

/* ---- at a moment */
uint64_t faults_next_ns(const struct device *dev)
{
    uint64_t ns = NEVER_NS;

    for (uint32_t i = 0; i < dev->n_faults; i++)
        if (!dev->fault[i].model[0])
            ns = MIN(ns, dev->fault[i].at_ns);
    return ns;
}

/* The first run that is under way there, if it is the executor's, else the next one. */
static void run_spoil(struct part *p, enum sim_fault_kind kind)
{
    struct work *w = p->work;

    while (w < p->work + p->n_work && !w->begun)
        w++;
    bool now = w < p->work + p->n_work && !w->probe;

    if (now && kind == SIM_HANG)
        w->hangs = true;
    else if (now)
        w->rc = -EIO;
    p->hang_next |= !now && kind == SIM_HANG;
    p->fail_next |= !now && kind == SIM_FAIL;
}

static void befall(struct device *dev, const struct sim_fault *f)
{
    if (f->kind == SIM_GONE) {
        device_lose(dev, FAULT_DEVICE);
        return;
    }
    for (struct part *p = dev->parts; p; p = p->next) {
        if (!granules_has(&p->set, f->granule))
            continue;
        if (f->kind == SIM_LOST || f->kind == SIM_EXIT)
            part_lose(p, f->kind == SIM_LOST ? FAULT_PART : FAULT_PROCESS);
        else
            run_spoil(p, f->kind);
    }
}

void faults_befall(struct device *dev, uint64_t now_ns)
{
    for (uint32_t i = dev->n_faults; i-- > 0;)
        if (!dev->fault[i].model[0] && dev->fault[i].at_ns <= now_ns) {
            struct sim_fault f = dev->fault[i].f;
            fault_drop(dev, i);
            befall(dev, &f);
        }
}

/* ---- from outside */
int sim_inject(const struct sim_fault *f, struct err *err)
{
    bool found = false;
    int r = 0;

    (void)pthread_mutex_lock(&list_lock);
    for (struct device *dev = list; dev && r == 0; dev = dev->next) {
        if (f->device && !STREQ(f->device, dev->info.name))
            continue;
        found = true;
        uint64_t now_ns = clock_now_ns();
        (void)pthread_mutex_lock(&dev->lock);
        r = fault_add(dev, f, now_ns, err);
        device_advance(dev, now_ns);
        (void)pthread_mutex_unlock(&dev->lock);
    }
    (void)pthread_mutex_unlock(&list_lock);
    if (!found)
        r = err_set(err, -ENOENT, "there is no simulated device%s%s%s", f->device ? " '" : "",
                    f->device ? f->device : "", f->device ? "'" : "");
    return r;
}
