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

int whole_part_open(struct part *p, struct err *err)
{
    p->ctx = p->dev->ctx;
    p->units = p->dev->info.units;
    int r = part_begin(p, err);
    if (r < 0)
        return r;
    r = GPU(stream_create(&p->stream, CU_STREAM_NON_BLOCKING), err);
    part_end(p);
    return r;
}

void whole_part_close(struct part *p)
{
    if (p->stream)
        (void)cu.stream_destroy(p->stream);
}

static int shared_probe(CUdevice d, struct device_info *ret, struct err *err)
{
    (void)d, (void)err;
    ret->granule_units = ret->units;
    ret->n_granules = 1;
    ret->weights_shared = true;
    (void)snprintf(ret->why, sizeof(ret->why), "models take turns on all %u SMs", ret->units);
    return 0;
}

const struct mode mode_shared = {.name = "shared",
                                 .mode = MODE_SHARED,
                                 .probe = shared_probe,
                                 .open = whole_open,
                                 .close = whole_close,
                                 .part_open = whole_part_open,
                                 .part_close = whole_part_close};
