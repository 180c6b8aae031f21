/* What a person may say of a model: its name, and the numbers that PUT and PATCH take. */
#pragma once

#include <gpulet/tensor.h>

/* What a person may set of a model; `set` says which. */
struct numbers {
    enum {
        SET_SLO = 1,
        SET_RATE = 2,
        SET_BATCH = 4,
        SET_QUEUE = 8,
        SET_PRIORITY = 16,
        SET_PRECISION = 32,
        SET_INVARIANT = 64,
        SET_EFFORT = 128
    } set;
    usec_t slo_us;
    double rate_rps;
    uint32_t max_batch, queue_max;
    int32_t priority;
    enum precision precision;
    bool batch_invariant, best_effort;
};
/* One "slo_ms" = "20": -EINVAL names parameter, value and limit; -ENOENT: no such parameter. */
int numbers_set(struct numbers *n, const char *name, const char *value, struct err *err);
/* Take over those of n that are set. */
void numbers_merge(struct numbers *to, const struct numbers *n);

/* 1 to MODEL_NAME_MAX bytes of A-Z a-z 0-9 . _ -, not beginning with a dot, not "stats". */
int store_name_check(const char *name, struct err *err);
