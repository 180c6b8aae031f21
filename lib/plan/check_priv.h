/* Between check.c and check_rule.c; and of the check, what planners ask: memory_holds(). */
#pragma once

#include "plan_priv.h"

/* A plan, device by device, ascending. */
struct walk {
    const struct plan *plan; /* NULL: nothing runs */
    bool sorted;             /* its gpu-lets are in order of device */
    uint32_t at, n;
    uint32_t let[PLAN_MAX_GRANULES]; /* gpu-lets of this device */
    void *scratch;                   /* RULE_QUEUE: QUEUE_SCRATCH bytes */
};

static inline const struct plan_gpulet *walk_let(const struct walk *w, uint32_t j)
{
    return &w->plan->gpulet[w->let[j]];
}

/* Does the device have the memory, with what `was` (or NULL) holds until it has gone? */
bool memory_holds(const struct problem *p, const struct plan *was, const struct plan *plan,
                  uint32_t device);
/* No share on this device whose model is said to be served breaks the rule. */
int rule_check(const struct problem *p, const struct walk *w, uint32_t device, struct err *err);
/* Requests/s that share i of the device's gpu-let j serves. */
double rule_serves(const struct problem *p, const struct walk *w, uint32_t device, uint32_t j,
                   uint32_t i);
