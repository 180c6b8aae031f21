/* The fields of a problem file: how each is called there, where it lies and what it may be.
 * docs/problem-file.md says what they mean. */
#include "problem_priv.h"

static const char *const arrival_words[] = {"unknown", "paced", "poisson", "cv", "trace", NULL};
static const char *const interfere_words[] = {"none", "igniter", "gpulet", "pressure", NULL};
static const char *const rule_words[] = {"cycle", "part", "queue", NULL};
static const char *const limit_words[] = {"none", "slo", "rate", "memory", "units", NULL};

const struct field type_fields[] = {
    FIELD(struct plan_type, FIELD_NAME, name, REQUIRED),
    FIELD_AS(struct plan_type, FIELD_U32, "granules", n_granules, RANGE(1, PLAN_MAX_GRANULES),
             REQUIRED),
    FIELD(struct plan_type, FIELD_U32, granule_units, RANGE(1, MAX_UNITS)),
    FIELD_AS(struct plan_type, FIELD_U32, "units", predict.units, RANGE(1, MAX_UNITS)),
    FIELD(struct plan_type, FIELD_U32, max_granules, RANGE(0, PLAN_MAX_GRANULES)),
    FIELD(struct plan_type, FIELD_BOOL, in_turn),
    FIELD_CODE("sizes"),
    FIELD_CODE("places"),
    FIELD(struct plan_type, FIELD_BYTES, mem_bytes, RANGE(0, MAX_BYTES)),
    FIELD(struct plan_type, FIELD_BYTES, let_bytes, RANGE(0, MAX_BYTES)),
    FIELD(struct plan_type, FIELD_BYTES, pool_bytes, RANGE(0, MAX_BYTES)),
    FIELD(struct plan_type, FIELD_REAL, price, RANGE(0, MAX_RATE)),
    FIELD_AS(struct plan_type, FIELD_REAL, "link_bps", predict.link_bps, RANGE(0, MAX_REAL)),
    FIELD_AS(struct plan_type, FIELD_REAL, "dram_bps", predict.dram_bps, RANGE(0, MAX_REAL)),
    FIELD_CODE("interference"),
    FIELD_END,
};

const struct field hardware_fields[] = {
    FIELD(struct interference, FIELD_WORD, kind, .word = interfere_words, REQUIRED),
    FIELD(struct interference, FIELD_REAL, max_mhz, RANGE(0, 1e6)),
    FIELD(struct interference, FIELD_REAL, max_watts, RANGE(0, 1e6)),
    FIELD(struct interference, FIELD_REAL, idle_watts, RANGE(0, 1e6)),
    FIELD(struct interference, FIELD_REAL, mhz_per_watt, RANGE(-1e6, 0)),
    FIELD(struct interference, FIELD_REAL, sched_ms, RANGE(-1e6, 1e6)),
    FIELD(struct interference, FIELD_REAL, sched_base_ms, RANGE(-1e6, 1e6)),
    FIELD_CODE("c"),
    FIELD_CODE("terms"),
    FIELD_END,
};

const struct field model_fields[] = {
    FIELD(struct plan_model, FIELD_NAME, name, REQUIRED),
    FIELD_AS(struct plan_model, FIELD_MS, "slo_ms", slo_us, RANGE(0, MAX_MS)),
    FIELD(struct plan_model, FIELD_REAL, rate_rps, RANGE(0, MAX_RATE)),
    FIELD(struct plan_model, FIELD_WORD, arrivals, .word = arrival_words),
    FIELD(struct plan_model, FIELD_REAL, cv, RANGE(0, 1000)),
    FIELD(struct plan_model, FIELD_U32, max_batch, RANGE(1, MAX_BATCH), REQUIRED),
    FIELD(struct plan_model, FIELD_I32, priority, RANGE(0, 1000000)),
    FIELD(struct plan_model, FIELD_BOOL, best_effort),
    FIELD(struct plan_model, FIELD_BYTES, weights_bytes, RANGE(0, MAX_BYTES)),
    FIELD(struct plan_model, FIELD_BYTES, slot_bytes, RANGE(0, MAX_BYTES)),
    FIELD(struct plan_model, FIELD_BYTES, row_bytes, RANGE(0, MAX_BYTES)),
    FIELD(struct plan_model, FIELD_BOOL, weights_per_let),
    FIELD_CODE("profile", REQUIRED),
    FIELD_END,
};

const struct field profile_fields[] = {
    FIELD_CODE("batch"),
    FIELD_CODE("units"),
    FIELD_CODE("streams"),
    FIELD_CODE("run_ms"),
    FIELD_CODE("upper_ms"),
    FIELD_CODE("host_ms"),
    FIELD_CODE("l2"),
    FIELD_CODE("dram"),
    FIELD_CODE("watts"),
    FIELD(struct profile, FIELD_REAL, kernels, RANGE(0, MAX_REAL)),
    FIELD(struct profile, FIELD_REAL, in_bytes, RANGE(0, MAX_REAL)),
    FIELD(struct profile, FIELD_REAL, out_bytes, RANGE(0, MAX_REAL)),
    FIELD_CODE("curve"),
    FIELD_AS(struct profile, FIELD_NOT, "estimated", measured),
    FIELD_END,
};

const struct field curve_fields[] = {
    FIELD_CODE("k", REQUIRED),
    FIELD(struct igniter_curve, FIELD_REAL, kernels, RANGE(0, MAX_REAL)),
    FIELD(struct igniter_curve, FIELD_REAL, sched_ms, RANGE(0, MAX_MS)),
    FIELD(struct igniter_curve, FIELD_REAL, in_bytes, RANGE(0, MAX_REAL)),
    FIELD(struct igniter_curve, FIELD_REAL, out_bytes, RANGE(0, MAX_REAL)),
    FIELD(struct igniter_curve, FIELD_REAL, watts_per_rps, RANGE(-1e6, 1e6)),
    FIELD(struct igniter_curve, FIELD_REAL, watts_base, RANGE(-1e6, 1e6)),
    FIELD(struct igniter_curve, FIELD_REAL, l2_per_rps, RANGE(-1e6, 1e6)),
    FIELD(struct igniter_curve, FIELD_REAL, l2_base, RANGE(-1e6, 1e6)),
    FIELD(struct igniter_curve, FIELD_REAL, cache_per_pct, RANGE(-1e6, 1e6)),
    FIELD_END,
};

const struct field rules_fields[] = {
    FIELD(struct plan_rules, FIELD_WORD, rule, .word = rule_words),
    FIELD(struct plan_rules, FIELD_REAL, slo_part, RANGE(0, 1)),
    FIELD(struct plan_rules, FIELD_REAL, violations, RANGE(0, 1)),
    FIELD(struct plan_rules, FIELD_U32, max_lets, RANGE(0, PLAN_MAX_GRANULES)),
    FIELD(struct plan_rules, FIELD_U32, max_shares, RANGE(0, PROBLEM_MAX_MODELS)),
    FIELD(struct plan_rules, FIELD_U32, max_streams, RANGE(0, MAX_STREAMS)),
    FIELD(struct plan_rules, FIELD_BOOL, as_few),
    FIELD(struct plan_rules, FIELD_BYTES, steps, RANGE(0, MAX_REAL)),
    FIELD_END,
};

const struct field plan_fields[] = {
    FIELD_CODE("gpulets", REQUIRED),
    FIELD_CODE("verdicts"),
    FIELD(struct plan, FIELD_REAL, bound, RANGE(0, MAX_REAL)),
    FIELD(struct plan, FIELD_BYTES, steps, RANGE(0, MAX_REAL)),
    FIELD_END,
};

const struct field gpulet_fields[] = {
    FIELD_CODE("device", REQUIRED),
    FIELD_CODE("granules", REQUIRED),
    FIELD(struct plan_gpulet, FIELD_WORD, order, .word = plan_order_words),
    FIELD_AS(struct plan_gpulet, FIELD_MS, "spare_ms", spare_us, RANGE(0, 1e12)),
    FIELD_CODE("shares"),
    FIELD_END,
};

const struct field share_fields[] = {
    FIELD_CODE("model", REQUIRED),
    FIELD(struct plan_share, FIELD_U32, batch, RANGE(1, MAX_BATCH), REQUIRED),
    FIELD(struct plan_share, FIELD_U32, usual, RANGE(0, MAX_BATCH)),
    FIELD(struct plan_share, FIELD_U32, streams, RANGE(0, MAX_STREAMS)),
    FIELD(struct plan_share, FIELD_REAL, rate_rps, RANGE(0, MAX_RATE)),
    FIELD_AS(struct plan_share, FIELD_MS, "run_ms", run_us, RANGE(0, MAX_MS)),
    FIELD_AS(struct plan_share, FIELD_MS, "latency_ms", latency_us, RANGE(0, 1e12)),
    FIELD_END,
};

const struct field verdict_fields[] = {
    FIELD_CODE("model", REQUIRED),
    FIELD(struct plan_verdict, FIELD_WORD, limit, .word = limit_words),
    FIELD_AS(struct plan_verdict, FIELD_MS, "least_slo_ms", least_slo_us, RANGE(0, 1e12)),
    FIELD(struct plan_verdict, FIELD_REAL, most_rps, RANGE(0, MAX_REAL)),
    FIELD(struct plan_verdict, FIELD_REAL, need, RANGE(0, MAX_REAL)),
    FIELD(struct plan_verdict, FIELD_REAL, least, RANGE(0, MAX_REAL)),
    FIELD(struct plan_verdict, FIELD_KEY, key),
    FIELD_END,
};
