/* From the running plan to the next: what stays, what opens, when to swap, what closes.
 *
 * Gpu-lets with the same device and granules stay.  A new one whose granules are free opens before
 * the swap; one that overlaps a retiring gpu-let can only do so where the device shares units for
 * a moment, else it is opened after that one closed. */
#include "plan_priv.h"

static uint32_t find_same(const struct plan *plan, const struct plan_gpulet *g)
{
    for (uint32_t k = 0; plan && k < plan->n_gpulets; k++)
        if (plan->gpulet[k].device == g->device && set_eq(&plan->gpulet[k].set, &g->set))
            return k;
    return PLAN_NONE;
}

/* Does g need granules of a gpu-let of `was` that does not stay? */
static bool must_wait(const struct plan *was, const struct plan *now, const struct plan_gpulet *g)
{
    for (uint32_t k = 0; was && k < was->n_gpulets; k++)
        if (was->gpulet[k].device == g->device && set_overlaps(&was->gpulet[k].set, &g->set) &&
            find_same(now, &was->gpulet[k]) == PLAN_NONE)
            return true;
    return false;
}

static uint32_t add(struct plan_step *ret, uint32_t n, enum plan_step_kind kind, uint32_t was,
                    uint32_t now)
{
    ret[n] = (struct plan_step){.kind = kind, .was = was, .now = now};
    return n + 1;
}

uint32_t plan_diff(const struct plan *was, const struct plan *now, bool overlap,
                   struct plan_step *ret)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < now->n_gpulets; k++) {
        uint32_t same = find_same(was, &now->gpulet[k]);
        if (same != PLAN_NONE)
            n = add(ret, n, STEP_KEEP, same, k);
    }
    for (uint32_t k = 0; k < now->n_gpulets; k++)
        if (find_same(was, &now->gpulet[k]) == PLAN_NONE &&
            (overlap || !must_wait(was, now, &now->gpulet[k])))
            n = add(ret, n, STEP_OPEN, PLAN_NONE, k);
    n = add(ret, n, STEP_SWAP, PLAN_NONE, PLAN_NONE);
    for (uint32_t k = 0; was && k < was->n_gpulets; k++)
        if (find_same(now, &was->gpulet[k]) == PLAN_NONE)
            n = add(ret, n, STEP_CLOSE, k, PLAN_NONE);
    for (uint32_t k = 0; k < now->n_gpulets; k++)
        if (find_same(was, &now->gpulet[k]) == PLAN_NONE && !overlap &&
            must_wait(was, now, &now->gpulet[k]))
            n = add(ret, n, STEP_OPEN, PLAN_NONE, k);
    return n;
}
