/* Partitions. */
#include "nvlib.h"
#include <stdatomic.h>
#include <unistd.h>

#define YIELD_US 20

int part_begin(struct part *p, struct err *err)
{
    (void)atomic_fetch_add(&p->n_wait, 1);
    (void)pthread_mutex_lock(&p->use);
    (void)atomic_fetch_sub(&p->n_wait, 1);
    int r = GPU(ctx_set_current(p->ctx), err);
    if (r < 0)
        (void)pthread_mutex_unlock(&p->use);
    return r;
}

void part_end(struct part *p)
{
    (void)cu.ctx_set_current(NULL);
    (void)pthread_mutex_unlock(&p->use);
}

/* A mutex is not fair: whoever locks it at once has it again before another has woken. */
int part_yield(struct part *p, struct err *err)
{
    if (atomic_load(&p->n_wait) == 0)
        return 0;
    part_end(p);
    while (atomic_load(&p->n_wait) > 0)
        (void)usleep(YIELD_US);
    (void)pthread_mutex_lock(&p->use);
    return GPU(ctx_set_current(p->ctx), err);
}

static int set_check(const struct device *dev, const struct granules *set, struct err *err)
{
    for (unsigned i = dev->info.n_granules; i < MAX_GRANULES; i++)
        if (granules_has(set, i))
            return err_set(err, -EINVAL, "granule %u: device '%s' has %u", i, dev->info.name,
                           dev->info.n_granules);
    return granules_count(set) > 0 ? 0 : err_set(err, -EINVAL, "a partition needs a granule");
}

static struct part *part_new(struct device *dev, const struct granules *set)
{
    struct part *p = calloc(1, sizeof(*p));
    pthread_condattr_t attr;

    if (!p)
        return NULL;
    p->dev = dev;
    p->set = *set;
    p->levels.n = 1;
    (void)pthread_mutex_init(&p->use, NULL);
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    dev->n_parts++;
    return p;
}

/* Handles of the libraries, in the partition's context. */
static int handles_open(struct part *p, struct err *err)
{
    int r = part_begin(p, err);

    if (r < 0)
        return r;
    r = blas_part_open(p, err);
    if (r == 0)
        r = dnn_part_open(p, err);
    part_end(p);
    return r;
}

/* Of a lost device nothing can be given back. */
static void handles_close(struct part *p)
{
    struct err err;

    if ((!p->blas && !p->dnn) || part_begin(p, &err) < 0)
        return;
    dnn_part_close(p);
    blas_part_close(p);
    part_end(p);
}

void gpu_part_close(struct part *p)
{
    if (!p)
        return;
    assert(!p->tails); /* all slots are closed */
    handles_close(p);  /* before their context */
    p->dev->mode->part_close(p);
    p->dev->n_parts--;
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_mutex_destroy(&p->use);
    free(p);
}
DEFINE_AUTO(struct part, gpu_part_close)

int gpu_part_open(struct device *dev, const struct granules *set, struct part **ret,
                  uint32_t *ret_units, struct err *err)
{
    int r = set_check(dev, set, err);

    if (r < 0)
        return r;
    AUTO(gpu_part_close) struct part *p = part_new(dev, set);
    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    r = dev->mode->part_open(p, err);
    if (r == 0)
        r = handles_open(p, err);
    if (r < 0)
        return err_wrap(err, "a partition of %u granules of device '%s': ", granules_count(set),
                        dev->info.name);
    *ret_units = p->units;
    *ret = TAKE(p);
    return 0;
}
