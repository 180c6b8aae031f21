/* How well a fitted model predicts: errors of single pairs, and what is said of all of them. */
#include "interfere.h"

#include <math.h>

/* Shell's sort: short, and a few thousand numbers at most. */
static void sort_up(double *v, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < n; i++) {
            double x = v[i];
            uint32_t j = i;
            for (; j >= gap && v[j - gap] > x; j -= gap)
                v[j] = v[j - gap];
            v[j] = x;
        }
}

/* Below 0: predicted too low.  A pair that is said not to run is wrong by all of it. */
static double error_of(const struct predict_device *d, const struct fit_pair *pair)
{
    struct estimate e;

    if (!predict(d, &pair->me, &pair->other, 1, &e))
        return -1;
    return (e.run_us - pair->run_us) / pair->run_us;
}

/* error[] is used up. */
static void report(double *error, uint32_t n, struct fit_report *ret)
{
    uint32_t under = 0;
    double sum = 0;

    *ret = (struct fit_report){0};
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        under += error[i] < -0.1;
        error[i] = fabs(error[i]);
        sum += error[i];
    }
    sort_up(error, n);
    ret->mean_error = sum / n;
    ret->p95_error = error[(uint32_t)ceil(0.95 * n) - 1];
    ret->under_10 = (double)under / n;
}

void fit_evaluate(const struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                  uint32_t fold, struct arena *a, struct fit_report *ret)
{
    double *error = ARENA_ARRAY(a, double, n);
    uint32_t used = 0;

    *ret = (struct fit_report){.mean_error = HUGE_VAL, .p95_error = HUGE_VAL, .under_10 = 1};
    if (!error) /* nothing is known of it */
        return;
    for (uint32_t i = 0; i < n; i++)
        if (fold == UINT32_MAX || pair[i].fold == fold)
            error[used++] = error_of(d, &pair[i]);
    report(error, used, ret);
}

static bool seen_before(const struct fit_pair *pair, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (pair[k].fold == pair[i].fold)
            return true;
    return false;
}

int fit_cross(const struct predict_device *d, const struct fit_pair *pair, uint32_t n,
              struct arena *a, struct fit_report *ret, struct err *err)
{
    double *error = ARENA_ARRAY(a, double, n);

    if (!error)
        return err_set(err, -ENOMEM, "out of memory for the errors of %u pairs", n);
    for (uint32_t i = 0; i < n; i++) {
        struct predict_device without = *d;
        if (seen_before(pair, i))
            continue;
        int rc = fit_interference(&without, pair, n, pair[i].fold, a, err);
        if (rc < 0)
            return rc;
        for (uint32_t k = i; k < n; k++)
            if (pair[k].fold == pair[i].fold)
                error[k] = error_of(&without, &pair[k]);
    }
    report(error, n, ret);
    return 0;
}
