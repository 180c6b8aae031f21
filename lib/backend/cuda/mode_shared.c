/* partition-mode = shared: nothing is kept apart.
 *
 * One granule holds all SMs, so that a plan has one gpu-let a device in which models take turns:
 * where no share can be kept, none is promised (adr/0013). */
#include "gpu.h"
#include <stdio.h>

int whole_open(struct device *dev, struct err *err)
{
    return GPU(primary_retain(&dev->ctx, dev->cu), err);
}

void whole_close(struct device *dev)
{
    if (dev->ctx)
        (void)cu.primary_release(dev->cu);
}

int shared_open(struct device *dev, struct err *err)
{
    int r = whole_open(dev, err);

    return r < 0 ? r : levels_ask(dev->ctx, &dev->levels, err);
}

int shared_part_open(struct part *p, struct err *err)
{
    p->ctx = p->dev->ctx;
    p->units = p->dev->info.units;
    p->levels = p->dev->levels;
    return streams_open(p, err);
}

/* Only a context can be asked. */
static int offered(CUdevice d, struct levels *ret, struct err *err)
{
    CUcontext ctx;
    int r = GPU(primary_retain(&ctx, d), err);

    if (r < 0)
        return r;
    r = levels_ask(ctx, ret, err);
    (void)cu.primary_release(d);
    return r;
}

static int shared_probe(CUdevice d, struct device_info *ret, struct err *err)
{
    struct levels l;
    int n, r = offered(d, &l, err);

    if (r < 0)
        return r;
    ret->granule_units = ret->units;
    ret->n_granules = 1;
    ret->weights_shared = true;
    ret->in_turn = l.n == 1;
    ret->let_bytes = levels_bytes(l.n + 1); /* one to compile in */
    n = snprintf(ret->why, sizeof(ret->why), "models take turns on all %u SMs", ret->units);
    (void)snprintf(ret->why + n, sizeof(ret->why) - (size_t)n,
                   l.n > 1 ? ", runs on streams of %u priorities"
                           : ", all runs on one stream: the driver offers one priority",
                   l.n);
    return 0;
}

const struct mode mode_shared = {.name = "shared",
                                 .mode = MODE_SHARED,
                                 .probe = shared_probe,
                                 .open = shared_open,
                                 .close = whole_close,
                                 .part_open = shared_part_open,
                                 .part_close = streams_close};
