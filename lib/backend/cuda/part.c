/* Partitions.
 *
 * What the builder does in a partition keeps its executor from submitting, as its context is
 * current to one of them at a time.  Libraries take tens of milliseconds to make a plan, and a
 * model has dozens of them: so a partition that serves has a workshop, in which the builder
 * compiles for it.  Slots are opened in the partition itself, in short steps. */
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

static void part_free(struct part *p)
{
    p->dev->n_parts--;
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_mutex_destroy(&p->use);
    free(p);
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

/* ---- the workshop */

/* Its context is p's, where that may be current to several threads. */
static int workshop_context(struct part *w, const struct part *p, struct err *err)
{
    if (p->dev->mode->one_thread)
        return p->dev->mode->part_open(w, err);
    w->ctx = p->ctx;
    w->capped = p->capped;
    w->units = p->units;
    w->levels.least = p->levels.least;
    return streams_open(w, err);
}

static void workshop_close(struct part *w)
{
    if (!w)
        return;
    handles_close(w);
    if (w->dev->mode->one_thread)
        w->dev->mode->part_close(w);
    else
        streams_close(w);
    part_free(w);
}
DEFINE_AUTO(struct part, workshop_close)

int part_workshop(struct part *p, struct part **ret, struct err *why)
{
    *ret = p->workshop ? p->workshop : p;
    if (p->workshop || !atomic_load(&p->entered))
        return 0;
    AUTO(workshop_close) struct part *w = part_new(p->dev, &p->set);
    int r = w ? workshop_context(w, p, why) : err_set(why, -ENOMEM, "out of memory");
    if (r == 0)
        r = handles_open(w, why);
    if (r == 0)
        *ret = p->workshop = TAKE(w);
    return r;
}

/* ---- opening and closing */
void gpu_part_close(struct part *p)
{
    if (!p)
        return;
    assert(!p->tails);           /* all slots are closed */
    workshop_close(p->workshop); /* before what it shares */
    handles_close(p);            /* before their context */
    p->dev->mode->part_close(p);
    part_free(p);
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
