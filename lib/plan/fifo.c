/* policy = fifo: first come, first served, one request at a time, on devices that are not cut. */
#include "whole.h"

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    (void)was;
    return whole_make(p, 1, a, ret, err);
}

static struct batch_choice batch_next(const struct batch_view *v)
{
    struct batch_choice c;
    uint32_t i = oldest(v);

    if (drop_expired(v, &c))
        return c;
    if (i == PLAN_NONE)
        return wait_expiry(v);
    return (struct batch_choice){.what = BATCH_RUN, .queue = i, .take = 1};
}

const struct policy policy_fifo = {
    .name = "fifo",
    .plan_make = make,
    .admit = open_admit,
    .route = fewest_route,
    .batch_next = batch_next,
};
