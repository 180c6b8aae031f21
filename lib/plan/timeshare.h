/* Between timeshare.c (squishy packing) and static.c (what it packs into). */
#pragma once

#include "published.h"

/* The gpu-lets that a type of device is cut into for good: granules of each; 0: it cannot be. */
typedef uint32_t cut_fn(const struct plan_type *t, uint32_t ret[PLAN_MAX_GRANULES]);

int squishy_make(const struct problem *p, cut_fn *cut, struct arena *a, struct plan *ret,
                 struct err *err);
