/* policy = static-equal, static-seven: devices that are cut once and for all, alike, filled by
 * squishy packing (timeshare.c).
 *
 *   static-equal  two halves ("SBP with even split" of gpu-lets, ATC'22)
 *   static-seven  seven equal parts, as MIG cuts at its finest
 *
 * Each part is the largest size of which so many fit; where none is small enough there are as many
 * gpu-lets of the least size as fit. */
#include "timeshare.h"

static bool fits(const struct plan_type *t, uint32_t size, uint32_t n,
                 uint32_t ret[PLAN_MAX_GRANULES])
{
    for (uint32_t k = 0; k < n; k++)
        ret[k] = size;
    return n > 0 && pub_cut(t, ret, n, NULL);
}

static uint32_t cut_alike(const struct plan_type *t, uint32_t parts,
                          uint32_t ret[PLAN_MAX_GRANULES])
{
    uint32_t size[PLAN_MAX_GRANULES], n = pub_sizes(t, size);

    for (uint32_t i = n; i-- > 0;)
        if (fits(t, size[i], parts, ret))
            return parts;
    for (uint32_t most = n ? t->n_granules / size[0] : 0; most > 0; most--)
        if (fits(t, size[0], most, ret))
            return most;
    return 0;
}

static uint32_t cut_halves(const struct plan_type *t, uint32_t ret[PLAN_MAX_GRANULES])
{
    return cut_alike(t, 2, ret);
}

static uint32_t cut_sevenths(const struct plan_type *t, uint32_t ret[PLAN_MAX_GRANULES])
{
    return cut_alike(t, 7, ret);
}

static int make_equal(const struct problem *p, const struct plan *was, struct arena *a,
                      struct plan *ret, struct err *err)
{
    (void)was;
    return squishy_make(p, cut_halves, a, ret, err);
}

static int make_seven(const struct problem *p, const struct plan *was, struct arena *a,
                      struct plan *ret, struct err *err)
{
    (void)was;
    return squishy_make(p, cut_sevenths, a, ret, err);
}

const struct policy policy_static_equal = {
    .name = "static-equal",
    .plan_make = make_equal,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};

const struct policy policy_static_seven = {
    .name = "static-seven",
    .plan_make = make_seven,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};
