/* Names and numbers of models: one table of parameters with their limits. */
#include "numbers.h"
#include <gpulet/engine.h>
#include <stdio.h>

static bool parse_double(const char *v, double least, double most, double *ret)
{
    char *end;

    errno = 0;
    double d = strtod(v, &end);
    if (errno || end == v || *end || !(d >= least && d <= most))
        return false;
    *ret = d;
    return true;
}

int numbers_set(struct numbers *n, const char *name, const char *value, struct err *err)
{
    static const struct {
        const char *name;
        double least, most;
        unsigned bit;
        bool whole;
    } table[] = {
        {"slo_ms", 0, 3600000, SET_SLO, false},
        {"rate_rps", 0, 1e9, SET_RATE, false},
        {"max_batch", 0, MAX_BATCH_LIMIT, SET_BATCH, true},
        {"queue", 0, 1000000, SET_QUEUE, true},
        {"priority", 0, 1000, SET_PRIORITY, true},
        {"batch_invariant", 0, 1, SET_INVARIANT, true},
        {"best_effort", 0, 1, SET_EFFORT, true},
    };
    double v = 0;

    if (STREQ(name, "precision")) {
        if (precision_of(value, &n->precision) < 0)
            return err_set(err, -ENOTSUP, "precision '%s' is not fp32, fp16, bf16 or int8", value);
        n->set |= SET_PRECISION;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (!STREQ(table[i].name, name))
            continue;
        if (!parse_double(value, table[i].least, table[i].most, &v) ||
            (table[i].whole && v != (double)(uint32_t)v))
            return err_set(err, -EINVAL, "%s = '%s' is not %s from %g to %g", name, value,
                           table[i].whole ? "a whole number" : "a number", table[i].least,
                           table[i].most);
        n->set |= table[i].bit;
        switch (table[i].bit) {
        case SET_SLO:
            n->slo_us = (usec_t)(v * 1000 + 0.5);
            break;
        case SET_RATE:
            n->rate_rps = v;
            break;
        case SET_BATCH:
            n->max_batch = (uint32_t)v;
            break;
        case SET_QUEUE:
            n->queue_max = (uint32_t)v;
            break;
        case SET_INVARIANT:
            n->batch_invariant = v != 0;
            break;
        case SET_EFFORT:
            n->best_effort = v != 0;
            break;
        default:
            n->priority = (int32_t)v;
            break;
        }
        return 0;
    }
    return err_set(err, -ENOENT, "there is no parameter '%s'", name);
}

void numbers_merge(struct numbers *to, const struct numbers *n)
{
    if (n->set & SET_SLO)
        to->slo_us = n->slo_us;
    if (n->set & SET_RATE)
        to->rate_rps = n->rate_rps;
    if (n->set & SET_BATCH)
        to->max_batch = n->max_batch;
    if (n->set & SET_QUEUE)
        to->queue_max = n->queue_max;
    if (n->set & SET_PRIORITY)
        to->priority = n->priority;
    if (n->set & SET_PRECISION)
        to->precision = n->precision;
    if (n->set & SET_INVARIANT)
        to->batch_invariant = n->batch_invariant;
    if (n->set & SET_EFFORT)
        to->best_effort = n->best_effort;
    to->set |= n->set;
}

int store_name_check(const char *name, struct err *err)
{
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);

    if (n == 0 || n > MODEL_NAME_MAX)
        return err_set(err, -EINVAL, "a model name has 1 to %d bytes, this one has %zu",
                       MODEL_NAME_MAX, n);
    if (name[strspn(name, ok)] || name[0] == '.')
        return err_set(err, -EINVAL,
                       "model name '%s': only letters, digits, '.', '_' and '-', and no '.' first",
                       name);
    if (STREQ(name, "stats"))
        return err_set(err, -EINVAL, "model name 'stats' is taken by the statistics path");
    return 0;
}
