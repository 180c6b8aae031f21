/* What the files of lib/plan share. */
#pragma once

#include <gpulet/policy.h>

static inline bool set_has(const struct plan_granules *s, uint32_t i)
{
    return s->bits[i / 64] >> (i % 64) & 1;
}

static inline void set_add(struct plan_granules *s, uint32_t i)
{
    s->bits[i / 64] |= UINT64_C(1) << (i % 64);
}

static inline bool set_eq(const struct plan_granules *a, const struct plan_granules *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool set_overlaps(const struct plan_granules *a, const struct plan_granules *b)
{
    for (size_t i = 0; i < ARRAY_SIZE(a->bits); i++)
        if (a->bits[i] & b->bits[i])
            return true;
    return false;
}

static inline const struct plan_type *type_of(const struct problem *p, uint32_t device)
{
    return &p->type[p->device[device].type];
}

static inline const struct profile *profile_of(const struct problem *p, uint32_t model,
                                               uint32_t device)
{
    return &p->model[model].profile[p->device[device].type];
}

/* The first thing in a problem that is out of range. */
int problem_check(const struct problem *p, struct err *err);

/* The run-time half that policies share until one differs. */
struct admit_choice greedy_admit(const struct admit_view *v);
uint32_t greedy_route(const struct admit_view *v);
struct batch_choice greedy_batch_next(const struct batch_view *v);
struct batch_choice patient_batch_next(const struct batch_view *v);
