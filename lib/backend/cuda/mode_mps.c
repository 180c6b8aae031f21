/* partition-mode = mps: contexts with a cap of SMs, in a process that is a client of MPS.
 *
 * Granules are only counted: a cap is an upper limit, on any SMs.  A context takes long to make and
 * its cap is fixed, so contexts that a partition has left are kept for the next of their size.
 * There is a limit of contexts for each device, over all clients; a change of plan opens all new
 * gpu-lets before the first old one closes, so a plan has less than half of them. */
#include "gpu.h"
#include <stdio.h>

#define OTHERS 4   /* contexts: the device's own, and gpu-lets in which runs are measured */
#define IDLE_MAX 4 /* contexts kept without a partition; nor have they more SMs than there are */
#define VISIBLE_MARK 0x6c657467u

/* What a context takes: 65 MiB with a cap of 8 SMs, 159 of 34, 517 of 132 (adr/0024). */
#define CONTEXT_BYTES ((size_t)36 << 20)
#define CONTEXT_SM_BYTES ((size_t)3738 << 10)

/* Before driver 590 (CUDA 13.1) a device has 48 contexts, then 60. */
static uint32_t contexts_max(void)
{
    return cu.version >= 13010 ? MPS_CONTEXTS_MAX : 48;
}

static int capped_open(CUdevice d, uint32_t units, struct capped *ret, struct err *err)
{
    CUexecAffinityParam cap = {.type = CU_EXEC_AFFINITY_TYPE_SM_COUNT, .param.smCount.val = units},
                        got;
    CUcontext ctx = NULL;
    int r = GPU(ctx_create_capped(&ctx, &cap, 1, CU_CTX_SCHED_BLOCKING_SYNC, d), err);

    if (r < 0)
        return r;
    /* It is current now; the number that counts is the one read back. */
    r = GPU(ctx_affinity(&got, CU_EXEC_AFFINITY_TYPE_SM_COUNT), err);
    (void)cu.ctx_set_current(NULL);
    if (r < 0) {
        (void)cu.ctx_destroy(ctx);
        return r;
    }
    *ret = (struct capped){.ctx = ctx, .asked = units, .units = got.param.smCount.val};
    return 0;
}

static int visible_in(const struct capped *reader, const struct vmm *v, bool *ret, struct err *err)
{
    uint32_t mark = 0;
    int r = GPU(ctx_set_current(reader->ctx), err);

    if (r < 0)
        return r;
    *ret = cu.copy_out(&mark, v->at, sizeof(mark)) == CUDA_SUCCESS && mark == VISIBLE_MARK;
    return 0;
}

/* Does one context see what another has written to VMM memory?  A copy finds out; a kernel that
 * could not would cost the process its device. */
static int visible(CUdevice d, const struct capped *a, const struct capped *b, bool *ret,
                   struct err *err)
{
    uint32_t mark = VISIBLE_MARK;
    struct vmm v;
    int r = GPU(ctx_set_current(a->ctx), err);

    if (r == 0)
        r = vmm_open(d, sizeof(mark), &v, err);
    if (r < 0)
        return r;
    r = GPU(copy_in(v.at, &mark, sizeof(mark)), err);
    if (r == 0) /* a copy in may go on when its call is over, one out has ended */
        r = visible_in(a, &v, ret, err);
    if (r == 0)
        r = visible_in(b, &v, ret, err);
    (void)cu.ctx_set_current(a->ctx);
    vmm_close(&v);
    return r;
}

/* Two contexts of the smallest cap: how large that is, and what they share. */
static int try_two(CUdevice d, struct device_info *ret, struct err *err)
{
    struct capped a, b;
    int r = capped_open(d, 1, &a, err);

    if (r < 0)
        return r;
    r = capped_open(d, 1, &b, err);
    if (r == 0) {
        r = visible(d, &a, &b, &ret->weights_shared, err);
        (void)cu.ctx_set_current(NULL);
        (void)cu.ctx_destroy(b.ctx);
    }
    (void)cu.ctx_destroy(a.ctx);
    ret->granule_units = a.units;
    return r;
}

/* A plan has no gpu-lets with more than all SMs together, nor has the one that it follows, nor have
 * idle contexts: what SMs take is taken off once for each of these, and a plan need not count them.
 */
static void memory_tell(struct device_info *ret)
{
    uint64_t kept = (1 + IDLE_MAX) * CONTEXT_BYTES +
                    (ret->granule_units + 3 * (uint64_t)ret->units) * CONTEXT_SM_BYTES;

    ret->mem_bytes = ret->mem_bytes > kept ? ret->mem_bytes - kept : 1; /* 0 would be unknown */
    ret->let_bytes = CONTEXT_BYTES + levels_bytes(2);                   /* one to compile in */
}

static int mps_probe(CUdevice d, struct device_info *ret, struct err *err)
{
    int is_client = 0, has_caps = 0;
    int r = gpu_attribute(d, CU_DEVICE_ATTRIBUTE_MPS_ENABLED, &is_client, err);

    if (r < 0 || !is_client)
        return r < 0 ? r : err_set(err, -ENOTSUP, "this process is not a client of MPS");
    if (!cu.ctx_create_capped || !cu.ctx_affinity || !cu.affinity_support)
        return err_set(err, -ENOTSUP, "the driver has no contexts with a cap of SMs");
    r = GPU(affinity_support(&has_caps, CU_EXEC_AFFINITY_TYPE_SM_COUNT, d), err);
    if (r == 0 && !has_caps)
        r = err_set(err, -ENOTSUP, "the device has no contexts with a cap of SMs");
    if (r == 0)
        r = try_two(d, ret, err);
    if (r < 0)
        return r;
    if (ret->granule_units == 0 || ret->granule_units > ret->units)
        return err_set(err, -ENOTSUP, "a cap of 1 SM came out as %u of %u", ret->granule_units,
                       ret->units);
    ret->n_granules = MIN(ret->units / ret->granule_units, MAX_GRANULES);
    ret->max_lets = (contexts_max() - OTHERS) / 2;
    memory_tell(ret);
    (void)snprintf(ret->why, sizeof(ret->why), "caps in steps of %u SMs, at most %u gpu-lets; %s",
                   ret->granule_units, ret->max_lets,
                   ret->weights_shared ? "weights are shared" : "each context has its own weights");
    return 0;
}

/* ---- the pool */
static void capped_drop(struct device *dev, struct capped *c)
{
    space_done(&c->space);
    (void)cu.ctx_destroy(c->ctx);
    *c = (struct capped){0};
    dev->n_capped--;
}

static struct capped *capped_idle(struct device *dev, uint32_t asked)
{
    for (size_t i = 0; i < ARRAY_SIZE(dev->capped); i++) {
        struct capped *c = &dev->capped[i];
        if (c->ctx && !c->used && (asked == 0 || c->asked == asked))
            return c;
    }
    return NULL;
}

static int capped_make(struct device *dev, uint32_t units, struct capped **ret, struct err *err)
{
    struct capped *c = dev->capped;

    if (dev->n_capped == contexts_max()) {
        c = capped_idle(dev, 0);
        if (!c)
            return err_set(err, -ENOSPC, "all %u contexts that MPS has for device '%s' are in use",
                           dev->n_capped, dev->info.name);
        capped_drop(dev, c);
    }
    while (c->ctx)
        c++;
    int r = capped_open(dev->cu, units, c, err);
    if (r < 0)
        return r;
    dev->n_capped++;
    *ret = c;
    return 0;
}

static int capped_get(struct device *dev, uint32_t units, struct capped **ret, struct err *err)
{
    struct capped *c = capped_idle(dev, units);
    int r = c ? 0 : capped_make(dev, units, &c, err);

    if (r < 0)
        return r;
    c->used = true;
    *ret = c;
    return 0;
}

static void capped_put(struct device *dev, struct capped *c)
{
    uint32_t n_idle = 0, units = 0;

    c->used = false;
    for (size_t i = 0; i < ARRAY_SIZE(dev->capped); i++)
        if (dev->capped[i].ctx && !dev->capped[i].used) {
            n_idle++;
            units += dev->capped[i].units;
        }
    if (n_idle > IDLE_MAX || units > dev->info.units)
        capped_drop(dev, c);
}

/* ---- the mode */
static int mps_open(struct device *dev, struct err *err)
{
    struct capped *c;
    int r = capped_get(dev, dev->info.granule_units, &c, err);

    if (r == 0)
        dev->ctx = c->ctx; /* for what belongs to no partition: the smallest */
    return r;
}

static void mps_close(struct device *dev)
{
    for (size_t i = 0; i < ARRAY_SIZE(dev->capped); i++)
        if (dev->capped[i].ctx)
            capped_drop(dev, &dev->capped[i]);
}

static int mps_part_open(struct part *p, struct err *err)
{
    uint32_t units = granules_count(&p->set) * p->dev->info.granule_units;
    int r = capped_get(p->dev, units, &p->capped, err);

    if (r < 0)
        return r;
    p->ctx = p->capped->ctx;
    p->units = p->capped->units;
    return streams_open(p, err);
}

static void mps_part_close(struct part *p)
{
    streams_close(p);
    if (p->capped)
        capped_put(p->dev, p->capped);
}

const struct mode mode_mps = {.name = "mps",
                              .mode = MODE_MPS,
                              .probe = mps_probe,
                              .open = mps_open,
                              .close = mps_close,
                              .part_open = mps_part_open,
                              .part_close = mps_part_close};
