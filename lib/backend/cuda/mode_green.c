/* partition-mode = green: green contexts, each on SMs of its own.
 *
 * The SMs are split once, when the device is taken: groups of two split calls overlap.  A granule
 * is a group of that split, a partition a descriptor over several groups.  What the split leaves
 * over goes with the last granule.  Partitions of one split are disjoint if their granules are;
 * one may be opened on granules that another still has, and then they contend (adr/0012). */
#include "gpu.h"
#include <stdio.h>

#define CONTEXT_BYTES ((size_t)4 << 20) /* a green context and its stream (adr/0024) */

/* The smallest group that keeps all guarantees, by compute capability. */
static uint32_t group_min(int major)
{
    return major >= 9 ? 8 : major == 8 ? 4 : 2;
}

static int split_size(CUdevice d, uint32_t *ret, struct err *err)
{
    int major = 0, r = gpu_attribute(d, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major, err);

    *ret = group_min(major);
    return r;
}

static int split_count(CUdevice d, uint32_t size, uint32_t *ret, struct err *err)
{
    CUdevResource all;
    unsigned n = 0;
    int r = GPU(device_resource(d, &all, CU_DEV_RESOURCE_TYPE_SM), err);

    /* Chips differ in what can be grouped: asked, not computed. */
    if (r == 0)
        r = GPU(sm_split(NULL, &n, &all, NULL, 0, size), err);
    if (r == 0 && n == 0)
        r = err_set(err, -ENOTSUP, "no group of %u SMs can be split off", size);
    *ret = MIN(n, MAX_GRANULES);
    return r;
}

static int green_probe(CUdevice d, struct device_info *ret, struct err *err)
{
    uint32_t size = 0, n = 0;

    if (!cu.device_resource || !cu.sm_split || !cu.resource_desc || !cu.green_create ||
        !cu.green_destroy || !cu.green_resource || !cu.green_ctx || !cu.green_stream_create)
        return err_set(err, -ENOTSUP, "the driver is of CUDA %d.%d, 12.5 is needed",
                       cu.version / 1000, cu.version % 1000 / 10);
    int r = split_size(d, &size, err);
    if (r == 0)
        r = split_count(d, size, &n, err);
    if (r < 0)
        return r;
    ret->granule_units = size;
    ret->n_granules = n;
    ret->weights_shared = true;
    ret->let_bytes = 2 * (CONTEXT_BYTES + levels_bytes(1)); /* one to compile in */
    uint32_t rest = ret->units > n * size ? ret->units - n * size : 0;
    (void)snprintf(ret->why, sizeof(ret->why), "%u groups of %u SMs, %u more with the last", n,
                   size, rest);
    return 0;
}

/* The one split of this device. */
static int split_open(struct device *dev, struct err *err)
{
    struct split *s = &dev->split;
    uint32_t size = dev->info.granule_units;
    unsigned n = dev->info.n_granules;
    CUdevResource all;
    int r = GPU(device_resource(dev->cu, &all, CU_DEV_RESOURCE_TYPE_SM), err);

    if (r == 0)
        r = GPU(sm_split(s->group, &n, &all, &s->rest, 0, size), err);
    if (r == 0 && n != dev->info.n_granules)
        r = err_set(err, -EIO, "%u groups of %u SMs were announced, %u are there",
                    dev->info.n_granules, size, n);
    for (uint32_t i = 0; i < n && r == 0; i++)
        if (s->group[i].sm.smCount != size)
            r = err_set(err, -EIO, "a group of %u SMs was asked for, %u were given", size,
                        s->group[i].sm.smCount);
    s->n = n;
    return r;
}

static int green_open(struct device *dev, struct err *err)
{
    int r = whole_open(dev, err);

    return r < 0 ? r : split_open(dev, err);
}

static int green_create(struct part *p, struct err *err)
{
    const struct split *s = &p->dev->split;
    CUdevResource group[MAX_GRANULES + 1];
    CUdevResourceDesc desc;
    unsigned n = 0;

    for (uint32_t i = 0; i < s->n; i++)
        if (granules_has(&p->set, i))
            group[n++] = s->group[i];
    if (granules_has(&p->set, s->n - 1) && s->rest.sm.smCount > 0)
        group[n++] = s->rest;
    int r = GPU(resource_desc(&desc, group, n), err);
    return r < 0 ? r
                 : GPU(green_create(&p->green, desc, p->dev->cu, CU_GREEN_CTX_DEFAULT_STREAM), err);
}

static int green_part_open(struct part *p, struct err *err)
{
    CUdevResource got;
    int r = green_create(p, err);

    if (r == 0)
        r = GPU(green_resource(p->green, &got, CU_DEV_RESOURCE_TYPE_SM), err);
    if (r == 0)
        r = GPU(green_ctx(&p->ctx, p->green), err);
    if (r < 0)
        return r;
    p->units = got.sm.smCount;
    return streams_open(p, err);
}

static void green_part_close(struct part *p)
{
    streams_close(p); /* first */
    if (p->green)
        (void)cu.green_destroy(p->green);
}

const struct mode mode_green = {.name = "green",
                                .mode = MODE_GREEN,
                                .one_thread = true,
                                .probe = green_probe,
                                .open = green_open,
                                .close = whole_close,
                                .part_open = green_part_open,
                                .part_close = green_part_close};
