/* Taking a device, and partitions of it, on the fake driver. */
#include "fake_rig.h"

#include <gpulet/clock.h>
#include <pthread.h>

static struct device *dev;

static int take(const char *mode)
{
    struct backend_config cfg = {0};

    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    return be->dev_open(&cfg, 0, &dev, &err);
}

static void start(const char *mode)
{
    struct device_info info[2];
    struct backend_config cfg = {.partition_mode = "shared"};
    size_t n;

    open_fake();
    open_plugin();
    fake->mps = STREQ(mode, "mps");
    CHECK_EQ(be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err), 0);
    CHECK_EQ(take(mode), 0);
}

static struct part *cut(unsigned from, unsigned n_granules, uint32_t *ret_units)
{
    struct granules set = granules_of(from, n_granules);
    struct part *p = NULL;

    if (be->part_open(dev, &set, &p, ret_units, &err) < 0)
        printf("# %s\n", err.msg);
    return p;
}

static void stop(void)
{
    be->dev_close(dev);
    check_clean();
}

static void green_partitions_come_from_one_split(void)
{
    uint32_t units = 0;

    start("green");
    struct part *a = cut(0, 2, &units);
    CHECK_EQ(units, 16);
    struct part *b = cut(2, 6, &units);
    CHECK_EQ(units, 48);
    be->part_close(a);
    struct part *c = cut(0, 1, &units);
    CHECK_EQ(units, 8);
    CHECK_EQ(fake->splits[0], 1);
    be->part_close(b);
    be->part_close(c);
    stop();
}

static void the_remainder_goes_with_the_last_granule(void)
{
    uint32_t units = 0;

    start("green");
    struct part *last = cut(15, 1, &units);
    CHECK_EQ(units, 12); /* 8, and 132 - 16 * 8 */
    be->part_close(last);
    struct part *all = cut(0, 16, &units);
    CHECK_EQ(units, 132);
    be->part_close(all);
    stop();
}

static void a_green_partition_may_be_opened_beside_the_one_it_replaces(void)
{
    uint32_t units = 0;

    start("green");
    struct part *was = cut(0, 4, &units), *now = cut(2, 4, &units);
    CHECK(was && now);
    CHECK_EQ(units, 32);
    be->part_close(was);
    be->part_close(now);
    stop();
}

static void streams_die_before_their_context_and_it_before_the_primary(void)
{
    uint32_t units = 0;

    start("green");
    be->part_close(cut(0, 1, &units));
    stop();
    CHECK(last_call("cuStreamDestroy") < last_call("cuGreenCtxDestroy"));
    CHECK(last_call("cuGreenCtxDestroy") < last_call("cuDevicePrimaryCtxRelease"));
}

static void what_fails_half_way_is_undone(void)
{
    static const char *const calls[] = {"cuDevResourceGenerateDesc", "cuGreenCtxCreate",
                                        "cuGreenCtxGetDevResource", "cuCtxFromGreenCtx",
                                        "cuGreenCtxStreamCreate"};
    struct granules set = granules_of(0, 1);
    struct part *p;
    uint32_t units;

    start("green");
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        fake->fail_call = calls[i];
        fake->fail_code = 2;
        fake->fail_times = 1;
        CHECK_EQ(be->part_open(dev, &set, &p, &units, &err), -ENOMEM);
        CHECK_HAS(err.msg, "a partition of 1 granules of device 'gpu0'");
        CHECK_HAS(err.msg, "no memory left");
        CHECK_EQ(fake->green + fake->streams, 0);
    }
    stop();
}

static void granules_that_do_not_exist_are_refused(void)
{
    struct granules none = {{0}}, beyond = granules_of(16, 1);
    struct part *p;
    uint32_t units;

    start("green");
    CHECK_EQ(be->part_open(dev, &none, &p, &units, &err), -EINVAL);
    CHECK_EQ(be->part_open(dev, &beyond, &p, &units, &err), -EINVAL);
    CHECK_HAS(err.msg, "granule 16: device 'gpu0' has 16");
    stop();
}

static void a_split_that_the_device_refuses_is_said(void)
{
    open_fake();
    open_plugin();
    struct backend_config cfg = {.partition_mode = "green"};
    struct device_info info;
    size_t n;

    CHECK_EQ(be->devices(&cfg, &info, 1, &n, &err), 0);
    fake->fail_call = "cuDevSmResourceSplitByCount";
    fake->fail_code = 915;
    fake->fail_times = -1;
    CHECK_EQ(take("green"), -EINVAL);
    CHECK_HAS(err.msg, "(915): so many SMs in a group cannot be had");
    check_clean();
}

/* ---- MPS */
static void caps_are_rounded_up_and_read_back(void)
{
    uint32_t units = 0;

    start("mps");
    fake->cap_step = 8; /* coarser than for the smallest */
    struct part *p = cut(0, 5, &units);
    CHECK_EQ(units, 16); /* asked: 5 granules of 2 */
    be->part_close(p);
    stop();
}

static void a_context_is_kept_for_the_next_partition_of_its_size(void)
{
    uint32_t units = 0;

    start("mps");
    be->part_close(cut(0, 10, &units));
    int made = fake->contexts_made;
    be->part_close(cut(30, 10, &units));
    CHECK_EQ(fake->contexts_made, made);
    be->part_close(cut(0, 11, &units));
    CHECK_EQ(fake->contexts_made, made + 1);
    stop();
}

static void few_contexts_wait_without_a_partition(void)
{
    struct part *p[10];
    uint32_t units = 0;

    start("mps");
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
        p[i] = cut(0, i + 2, &units);
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
        be->part_close(p[i]);
    CHECK_EQ(fake->contexts, 4 + 1); /* and the device's own */
    stop();
}

/* 132 SMs: 80 and 52 may wait, 80 and 54 may not. */
static void contexts_that_wait_have_no_more_sms_than_there_are(void)
{
    struct part *p[3];
    uint32_t units = 0;

    start("mps");
    p[0] = cut(0, 40, &units);
    p[1] = cut(0, 26, &units);
    p[2] = cut(0, 27, &units);
    be->part_close(p[0]);
    be->part_close(p[1]);
    CHECK_EQ(fake->contexts, 3 + 1);
    be->part_close(p[2]);
    CHECK_EQ(fake->contexts, 2 + 1);
    stop();
}

static void more_partitions_than_mps_has_contexts_are_refused(void)
{
    static struct part *p[48];
    struct granules set = granules_of(0, 1);
    struct part *more;
    uint32_t units = 0;

    start("mps");
    for (unsigned i = 0; i < 47; i++) /* the device has one of the 48 */
        p[i] = cut(0, 2 + i % 3, &units);
    CHECK_EQ(be->part_open(dev, &set, &more, &units, &err), -ENOSPC);
    CHECK_HAS(err.msg, "all 48 contexts that MPS has for device 'gpu0' are in use");
    be->part_close(p[0]);
    CHECK_EQ(be->part_open(dev, &set, &more, &units, &err), 0); /* an idle one made room */
    be->part_close(more);
    for (unsigned i = 1; i < 47; i++)
        be->part_close(p[i]);
    stop();
}

static void other_clients_of_mps_take_contexts_too(void)
{
    struct granules set = granules_of(0, 3);
    struct part *p;
    uint32_t units;

    start("mps");
    fake->contexts_max = 1;
    CHECK_EQ(be->part_open(dev, &set, &p, &units, &err), -ENOSPC);
    CHECK_HAS(err.msg, "(809): MPS has no connection for another context");
    stop();
}

/* ---- the whole device */
static void a_shared_device_is_one_granule_of_all_sms(void)
{
    uint32_t units = 0;

    start("shared");
    struct part *a = cut(0, 1, &units), *b = cut(0, 1, &units);
    CHECK_EQ(units, 132);
    CHECK_EQ(fake->streams, 2 * (6 * 2 + 2)); /* two for each of 6 priorities, and two more */
    be->part_close(a);
    be->part_close(b);
    stop();
}

/* ---- errors */
struct code {
    int cuda, ours;
    const char *says;
    bool process; /* has to leave */
};

static const struct code codes[] = {
    {2, -ENOMEM, "no memory left", false},
    {34, -ENODEV, "there is no driver", false},
    {35, -ENODEV, "older than the toolkit", false},
    {46, -EBUSY, "exclusive mode", false},
    {209, -ENOTSUP, "CUDA_ARCHS", false},
    {224, -ENOTSUP, "not a client of MPS", false},
    {226, -EIO, "has to restart", true},
    {700, -EIO, "an address that is not its own", true},
    {702, -EIO, "longer than the system allows", true},
    {710, -EIO, "assertion", true},
    {714, -EIO, "stack", true},
    {715, -EIO, "illegal instruction", true},
    {716, -EIO, "misaligned", true},
    {717, -EIO, "address space", true},
    {718, -EIO, "jumped nowhere", true},
    {719, -EIO, "a kernel failed", true},
    {805, -ENOTSUP, "cannot be used", false},
    {806, -EIO, "is lost", true},
    {807, -EAGAIN, "starting, recovering", false},
    {808, -ENOSPC, "another client", false},
    {809, -ENOSPC, "another context", false},
    {810, -EIO, "an operator has terminated", true},
    {811, -ENOTSUP, "starts kernels", false},
    {914, -ENOTSUP, "cannot be split", false},
    {915, -EINVAL, "cannot be had", false},
    {12345, -EIO, "(12345)", false},
};
static const struct code *code;

static void the_code_is_said_and_judged(void)
{
    struct granules set = granules_of(0, 1);
    struct part *p, *open;
    uint32_t units;

    start("green");
    open = cut(1, 1, &units);
    CHECK_EQ(be->fault(open), FAULT_NONE);
    fake->fail_call = "cuGreenCtxCreate";
    fake->fail_code = code->cuda;
    fake->fail_times = 1;
    CHECK_EQ(be->part_open(dev, &set, &p, &units, &err), code->ours);
    CHECK_HAS(err.msg, "device 'gpu0': cuGreenCtxCreate: CUDA_ERROR");
    CHECK_HAS(err.msg, code->says);
    /* After such a code no call works any more, in whichever partition. */
    CHECK_EQ(be->fault(open), code->process ? FAULT_PROCESS : FAULT_NONE);
    be->part_close(open);
    stop();
}

static void all_codes(void)
{
    char name[80];

    for (code = codes; code < codes + ARRAY_SIZE(codes); code++) {
        (void)snprintf(name, sizeof(name), "code %d is said and judged", code->cuda);
        check_alone(the_code_is_said_and_judged, name);
    }
}

/* ---- request memory, waiting */
static void request_memory_is_pinned_once_for_all_devices(void)
{
    static char memory[4096];
    struct host_region region = {.memfd = -1, .base = memory, .bytes = sizeof(memory)};
    struct backend_config cfg = {.partition_mode = "green"};
    struct device *second;

    open_fake();
    open_plugin();
    struct device_info info[2];
    size_t n;
    fake->gpus = 2;
    CHECK_EQ(be->devices(&cfg, info, 2, &n, &err), 0);
    CHECK_EQ(take("green"), 0);
    CHECK_EQ(be->dev_open(&cfg, 1, &second, &err), 0);
    CHECK_EQ(be->host_open(dev, &region, &err), 1); /* it must stay */
    CHECK_EQ(be->host_open(second, &region, &err), 1);
    be->host_close(second, &region);
    CHECK_EQ(fake->registered, 1);
    be->dev_close(second);
    be->host_close(dev, &region);
    stop();
}

static void memory_that_cannot_be_pinned_is_said(void)
{
    static char memory[4096];
    struct host_region region = {.memfd = -1, .base = memory, .bytes = sizeof(memory)};

    start("green");
    fake->fail_call = "cuMemHostRegister";
    fake->fail_code = 2;
    fake->fail_times = 1;
    CHECK_EQ(be->host_open(dev, &region, &err), -ENOMEM);
    CHECK_HAS(err.msg, "request memory of 4096 bytes cannot be pinned (LimitMEMLOCK=)");
    stop();
}

static void *kick_later(void *p)
{
    (void)usleep(20000);
    be->kick(p);
    return NULL;
}

static void a_wait_ends_at_its_time_or_at_a_kick(void)
{
    struct done done[1];
    pthread_t other;
    uint32_t units;

    start("green");
    struct part *p = cut(0, 1, &units);
    be->part_enter(p);
    CHECK_EQ(be->wait(p, clock_now_us() + 1000, done, 1), 0);
    CHECK_EQ(pthread_create(&other, NULL, kick_later, p), 0);
    CHECK_EQ(be->wait(p, USEC_NEVER, done, 1), 0);
    (void)pthread_join(other, NULL);
    be->part_close(p);
    stop();
}

int main(void)
{
    ALONE(green_partitions_come_from_one_split);
    ALONE(the_remainder_goes_with_the_last_granule);
    ALONE(a_green_partition_may_be_opened_beside_the_one_it_replaces);
    ALONE(streams_die_before_their_context_and_it_before_the_primary);
    ALONE(what_fails_half_way_is_undone);
    ALONE(granules_that_do_not_exist_are_refused);
    ALONE(a_split_that_the_device_refuses_is_said);
    ALONE(caps_are_rounded_up_and_read_back);
    ALONE(a_context_is_kept_for_the_next_partition_of_its_size);
    ALONE(few_contexts_wait_without_a_partition);
    ALONE(contexts_that_wait_have_no_more_sms_than_there_are);
    ALONE(more_partitions_than_mps_has_contexts_are_refused);
    ALONE(other_clients_of_mps_take_contexts_too);
    ALONE(a_shared_device_is_one_granule_of_all_sms);
    all_codes();
    ALONE(request_memory_is_pinned_once_for_all_devices);
    ALONE(memory_that_cannot_be_pinned_is_said);
    ALONE(a_wait_ends_at_its_time_or_at_a_kick);
    return check_end();
}
