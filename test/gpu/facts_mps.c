/* Contexts with a cap of SMs, in a process that is a client of MPS. */
#include "facts.h"
#include "facts_driver.h"

#include <stdio.h>

#define TRIES 5

static int capped_open(unsigned sms, CUcontext *ret, unsigned *ret_sms, struct err *err)
{
    CUexecAffinityParam cap = {.type = CU_EXEC_AFFINITY_TYPE_SM_COUNT, .param.smCount.val = sms},
                        got = {.type = CU_EXEC_AFFINITY_TYPE_SM_COUNT};
    int r = GPU(ctx_create_capped(ret, &cap, 1, CU_CTX_SCHED_BLOCKING_SYNC, 0), err);

    if (r == 0)
        r = GPU(ctx_affinity(&got, CU_EXEC_AFFINITY_TYPE_SM_COUNT), err);
    *ret_sms = got.param.smCount.val;
    return r;
}

/* The primary context is current, before and after. */
static int costs(CUcontext primary, unsigned sms, struct err *err)
{
    double made[TRIES], gone[TRIES], bytes[TRIES];
    size_t before, after, total;
    unsigned got = 0;
    char what[80];

    for (unsigned i = 0; i < TRIES; i++) {
        CUcontext c = NULL;
        int r = MORE(mem_info(&before, &total), err);
        uint64_t start = clock_now_ns();
        if (r == 0)
            r = capped_open(sms, &c, &got, err);
        made[i] = us_since(start);
        if (r == 0)
            r = MORE(mem_info(&after, &total), err);
        (void)cu.ctx_set_current(primary);
        bytes[i] = ((double)before - (double)after) / 1048576;
        start = clock_now_ns();
        if (c)
            (void)cu.ctx_destroy(c);
        gone[i] = us_since(start);
        if (r < 0)
            return r;
    }
    (void)snprintf(what, sizeof(what), "a context with a cap of %u SMs", sms);
    fact(what, "%u SMs", got);
    (void)snprintf(what, sizeof(what), "a context with a cap of %u SMs: to make", sms);
    fact_values(what, "us", made, TRIES);
    (void)snprintf(what, sizeof(what), "a context with a cap of %u SMs: to destroy", sms);
    fact_values(what, "us", gone, TRIES);
    (void)snprintf(what, sizeof(what), "a context with a cap of %u SMs: memory", sms);
    fact_values(what, "MiB", bytes, TRIES);
    return 0;
}

int facts_mps(struct err *err)
{
    int client = 0, sms = 0;
    CUcontext primary = NULL;
    int r = GPU(device_attribute(&client, CU_DEVICE_ATTRIBUTE_MPS_ENABLED, 0), err);

    if (r == 0 && (!client || !cu.ctx_create_capped || !cu.ctx_affinity))
        r = err_set(err, -ENOTSUP, "this process is not a client of MPS");
    if (r == 0)
        r = GPU(device_attribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0), err);
    if (r == 0)
        r = GPU(primary_retain(&primary, 0), err);
    const unsigned caps[] = {1, (unsigned)sms / 4, (unsigned)sms};
    for (size_t i = 0; i < ARRAY_SIZE(caps) && r == 0; i++)
        r = costs(primary, caps[i], err);
    if (primary)
        (void)cu.primary_release(0);
    return r;
}
