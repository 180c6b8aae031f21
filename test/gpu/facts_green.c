/* How a device is cut into green contexts, what that takes, and whether they keep to their SMs. */
#include "facts.h"
#include "facts_driver.h"

#include <stdio.h>

#define TRIES 30
#define SWITCHES 1000
#define SMS_MAX 1024
#define SPREAD_CLOCKS 100000 /* of a block: long enough that the next one goes to another SM */
#define BLOCKS_PER_SM 8

static int sizes(struct err *err)
{
    static const struct {
        unsigned flags;
        const char *name;
    } ways[] = {{0, "smallest groups of SMs"},
                {CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING,
                 "smallest groups of SMs, co-scheduling ignored"}};
    CUdevResource group[SMS_MAX / 2], rest;
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(ways) && r == 0; i++) {
        unsigned n = ARRAY_SIZE(group);
        r = groups_open(group, &n, ways[i].flags, &rest, err);
        if (r == 0)
            fact(ways[i].name, "%u groups of %u SMs, %u left", n, n ? group[0].sm.smCount : 0,
                 rest.sm.smCount);
    }
    return r;
}

static int opening(CUdevResource *group, struct err *err)
{
    double made[TRIES], gone[TRIES], bytes[TRIES];
    size_t before, after, total;
    int r = 0;

    for (unsigned i = 0; i < TRIES && r == 0; i++) {
        struct let l;
        r = MORE(mem_info(&before, &total), err);
        uint64_t start = clock_now_ns();
        if (r == 0)
            r = let_open(&l, group, err);
        made[i] = us_since(start);
        if (r == 0)
            r = MORE(mem_info(&after, &total), err);
        bytes[i] = ((double)before - (double)after) / 1048576;
        start = clock_now_ns();
        let_close(&l);
        gone[i] = us_since(start);
    }
    if (r < 0)
        return r;
    fact_values("a green context and its stream: to make", "us", made, TRIES);
    fact_values("a green context and its stream: to destroy", "us", gone, TRIES);
    fact_values("a green context and its stream: memory", "MiB", bytes, TRIES);
    return 0;
}

static int switching(const struct let *two, struct err *err)
{
    double us[TRIES];

    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t start = clock_now_ns();
        for (unsigned k = 0; k < SWITCHES; k++) {
            int r = GPU(ctx_set_current(two[k % 2].ctx), err);
            if (r < 0)
                return r;
        }
        us[i] = us_since(start) / SWITCHES;
    }
    fact_values("a green context: to make another one current", "us", us, TRIES);
    return 0;
}

/* What the device says of itself there: grids must not go by it. */
static int attribute(const struct let *l, struct err *err)
{
    int sms = 0, r = GPU(ctx_set_current(l->ctx), err);

    if (r == 0)
        r = GPU(device_attribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0), err);
    if (r == 0)
        fact("a green context: SMs by the device's attribute, by its own", "%d, %u", sms, l->sms);
    return r;
}

/* Which SMs a kernel on a let's stream was on; how many. */
static int seen_by(const struct let *l, const struct code *c, CUdeviceptr at, uint32_t *ret,
                   struct err *err)
{
    struct place_args a = {.seen = (uint32_t *)at, .clocks = SPREAD_CLOCKS, .n_sms = SMS_MAX};
    int r = GPU(ctx_set_current(l->ctx), err);

    if (r == 0)
        r = GPU(zero_async(at, 0, SMS_MAX * sizeof(*ret), l->stream), err);
    if (r == 0)
        r = code_run(c->place, l->sms * BLOCKS_PER_SM, &a, l->stream, err);
    if (r == 0)
        r = GPU(copy_out_async(ret, at, SMS_MAX * sizeof(*ret), l->stream), err);
    return r < 0 ? r : GPU(stream_wait(l->stream), err);
}

static int places(const struct let *two, struct err *err)
{
    static uint32_t seen[2][SMS_MAX];
    unsigned count[2] = {0, 0}, both = 0;
    struct code c = {0};
    CUdeviceptr at = 0;
    int r = GPU(ctx_set_current(two[0].ctx), err);

    if (r == 0)
        r = code_open(&c, err);
    if (r == 0)
        r = GPU(mem_alloc(&at, sizeof(seen[0])), err);
    for (unsigned i = 0; i < 2 && r == 0; i++)
        r = seen_by(&two[i], &c, at, seen[i], err);
    for (unsigned i = 0; i < SMS_MAX && r == 0; i++) {
        count[0] += seen[0][i];
        count[1] += seen[1][i];
        both += seen[0][i] && seen[1][i];
    }
    if (at)
        (void)cu.mem_free(at);
    code_close(&c);
    if (r < 0)
        return r;
    fact_check(count[0] > 0 && count[0] <= two[0].sms && count[1] > 0 && count[1] <= two[1].sms,
               "a kernel in a green context keeps to its SMs", "%u of %u, %u of %u", count[0],
               two[0].sms, count[1], two[1].sms);
    fact_check(both == 0, "two green contexts have no SM in common", "%u", both);
    return 0;
}

int facts_green(struct err *err)
{
    CUdevResource group[SMS_MAX / 2], rest;
    struct let two[2] = {{0}};
    unsigned n = ARRAY_SIZE(group);
    int r = sizes(err);

    if (r == 0)
        r = groups_open(group, &n, 0, &rest, err);
    if (r == 0)
        r = opening(&group[0], err);
    for (unsigned i = 0; i < 2 && r == 0 && n >= 2; i++)
        r = let_open(&two[i], &group[i], err);
    if (r == 0 && n >= 2)
        r = switching(two, err);
    if (r == 0 && n >= 2)
        r = attribute(&two[0], err);
    if (r == 0 && n >= 2)
        r = places(two, err);
    for (unsigned i = 2; i-- > 0;)
        let_close(&two[i]);
    return r;
}
