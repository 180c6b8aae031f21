/* How long planning takes as problems grow: `bench_plan_scale [LARGEST]`.  Times are printed, never
 * asserted (test_make asserts the steps). */
#include "../plan/random_problem.h"
#include <gpulet/policy.h>
#include <stdio.h>
#include <time.h>

#define REPEATS 7
#define CHANGES 101

static double now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double median(double *x, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k > 0 && x[k] < x[k - 1]; k--) {
            double t = x[k];
            x[k] = x[k - 1];
            x[k - 1] = t;
        }
    return x[n / 2];
}

static double make(const struct problem *p, const struct plan *was, struct arena *a,
                   struct plan *ret)
{
    struct err err = {0};
    double from = now_ms();

    if (policy_gpuletd.plan_make(p, was, a, ret, &err) < 0) {
        (void)fprintf(stderr, "bench_plan_scale: %s\n", err.msg);
        exit(1);
    }
    return now_ms() - from;
}

static double check(const struct problem *p, const struct plan *plan)
{
    struct err err = {0};
    double from = now_ms();

    if (plan_check(p, NULL, plan, &err) < 0) {
        (void)fprintf(stderr, "bench_plan_scale: %s\n", err.msg);
        exit(1);
    }
    return now_ms() - from;
}

/* One model's rate goes up or down by three tenths, again and again. */
static double change(const struct problem *p, struct plan *plan, struct arena *a)
{
    struct plan_model *model = (struct plan_model *)(uintptr_t)p->model;
    double ms[CHANGES];
    uint64_t s = 7;

    for (uint32_t i = 0; i < CHANGES; i++) {
        struct plan now = {0};
        model[random_below(&s, p->n_models)].rate_rps *= random_in(&s, 2) ? 1.3 : 0.7;
        ms[i] = make(p, plan, a, &now);
        *plan = now;
    }
    return median(ms, CHANGES);
}

static void row(uint32_t n, bool disturb)
{
    double full[REPEATS], checked[REPEATS];
    struct problem p;
    struct plan plan = {0};
    struct arena a;

    arena_init(&a);
    random_problem(1, RANDOM_LARGE, n, n + n / 5, &a, &p);
    if (!disturb)
        ((struct plan_type *)(uintptr_t)p.type)->predict.interference.kind = INTERFERE_NONE;
    for (uint32_t i = 0; i < REPEATS; i++) {
        struct arena fresh;
        struct plan again = {0};
        arena_init(&fresh);
        full[i] = make(&p, NULL, &fresh, &again);
        checked[i] = check(&p, &again);
        arena_done(&fresh);
    }
    (void)make(&p, NULL, &a, &plan);
    uint32_t used = plan_devices_used(&p, &plan, &a);
    double bound = plan.bound;
    unsigned long long steps = plan.steps;
    printf("%6u %-8s %6u %8.1f %6.3f %9llu %9.2f %9.2f %9.3f\n", n, disturb ? "pressure" : "none",
           used, bound, used / bound, steps, median(full, REPEATS), median(checked, REPEATS),
           change(&p, &plan, &a));
    arena_done(&a);
}

int main(int argc, char **argv)
{
    uint32_t largest = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 10000;

    printf("%6s %-8s %6s %8s %6s %9s %9s %9s %9s\n", "models", "disturb", "used", "bound", "ratio",
           "steps", "plan ms", "check ms", "change ms");
    for (uint32_t n = 10; n <= largest; n *= 10) {
        row(n, false);
        row(n, true);
    }
    return 0;
}
