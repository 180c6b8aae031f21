/* Every policy on every mix in virtual time: who serves most.
 *
 *     race [--quick] [--json FILE] [--grid FILE] [--mix NAME] [--policy NAME] [--gaps poisson|cv4]
 *
 * One JSON line for each point goes to FILE, tables to the standard output.  --quick: one mix,
 * three policies, few and short replays: for test/race/quick.sh, which sees whether it all fits
 * together, not who wins.  --grid: other tuning trials than those of the race, for looking closer.
 */
#include "race.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define POLICIES_MOST 32
#define TUNING_SEED 101
#define HALF_WAY (STEPS - ABOVE - 50)

static const char *const mixes[] = {"light", "heavy",        "skewed",
                                    "equal", "memory-bound", "compute-bound"};

struct race {
    FILE *json;
    const char *only_mix, *only_policy, *only_gaps;
    uint32_t n_seeds, n_tuning, n_trials, n_requests, n_entrants;
    struct entrant entrant[POLICIES_MOST];
};

struct standing { /* of one policy on one mix */
    const struct policy *by;
    const struct trial *trial;
    double scale[SEEDS_MOST], mean, worst, events;
};
struct heat { /* one mix under one kind of arrivals */
    struct mix mix;
    enum gaps gaps;
    uint32_t n;
    struct standing of[POLICIES_MOST], *ours, *best;
};

static void point_print(const struct race *r, const struct heat *h, const struct standing *s,
                        uint32_t seed, const struct outcome *o)
{
    if (r->json)
        (void)fprintf(r->json,
                      "{\"mix\":\"%s\",\"arrivals\":\"%s\",\"policy\":\"%s\",\"seed\":%u,"
                      "\"capacity_rps\":%.2f,\"bound_rps\":%.2f,\"in_time\":%.5f,"
                      "\"worst_model\":%.5f,\"trial\":{\"margin\":%g,\"queue\":%u,"
                      "\"run_part\":%g,\"delay_part\":%g,\"slice_part\":%g,\"instances\":%u}}\n",
                      h->mix.name, gaps_name[h->gaps], s->by->name, seed,
                      s->scale[seed - 1] * h->mix.rate_rps, h->mix.bound * h->mix.rate_rps,
                      o->offered > 0 ? o->in_time / o->offered : 0, o->worst, s->trial->margin,
                      s->trial->queue_max, s->trial->tuning.run_part, s->trial->tuning.delay_part,
                      s->trial->tuning.slice_part, s->trial->tuning.instances);
}

/* Mean capacity on the tuning seeds. */
static double try(const struct race *r, const struct heat *h, const struct policy *by,
                  const struct trial *t, uint32_t *step)
{
    double sum = 0;
    struct field f;

    field_init(&f, &h->mix, by, t, h->gaps);
    for (uint32_t i = 0; i < r->n_tuning; i++) {
        struct outcome o;
        sum += field_capacity(&f, TUNING_SEED + i, step, &o);
    }
    field_done(&f);
    return sum / r->n_tuning;
}

static void stand(const struct race *r, struct heat *h, const struct entrant *e, struct standing *s)
{
    uint32_t step = HALF_WAY, best_step = HALF_WAY, n = MIN(e->n_trials, r->n_trials);
    struct field f;
    double best = -1;

    *s = (struct standing){.by = e->by, .trial = &e->trial[0], .worst = 1};
    for (uint32_t i = 0; i < n && n > 1; i++) {
        double got = try(r, h, e->by, &e->trial[i], &step);
        if (got > best) {
            best = got;
            best_step = step;
            s->trial = &e->trial[i];
        }
    }
    field_init(&f, &h->mix, e->by, s->trial, h->gaps);
    for (uint32_t i = 0; i < r->n_seeds; i++) {
        struct outcome o = {0};
        s->scale[i] = field_capacity(&f, i + 1, &best_step, &o);
        s->worst = fmin(s->worst, o.worst);
        s->events += o.events;
        point_print(r, h, s, i + 1, &o);
    }
    s->mean = mean_of(s->scale, r->n_seeds);
    field_done(&f);
}

static double ratio(const struct race *r, const struct standing *a, const struct standing *b,
                    double *ret_half)
{
    double x[SEEDS_MOST];

    for (uint32_t i = 0; i < r->n_seeds; i++)
        x[i] = b->scale[i] > 0 ? a->scale[i] / b->scale[i] : 0;
    *ret_half = half_width(x, r->n_seeds);
    return mean_of(x, r->n_seeds);
}

static struct standing *named(struct heat *h, const char *name)
{
    for (uint32_t i = 0; i < h->n; i++)
        if (STREQ(h->of[i].by->name, name))
            return &h->of[i];
    return NULL;
}

static void heat_run(struct race *r, const char *name, enum gaps gaps, struct arena *a,
                     struct heat *h)
{
    *h = (struct heat){.gaps = gaps};
    mix_read(name, r->n_requests, a, &h->mix);
    for (uint32_t i = 0; i < r->n_entrants; i++)
        stand(r, h, &r->entrant[i], &h->of[h->n++]);
    h->ours = named(h, "gpuletd");
    for (uint32_t i = 0; i < h->n; i++)
        if (&h->of[i] != h->ours && (!h->best || h->of[i].mean > h->best->mean))
            h->best = &h->of[i];
}

static void heat_print(const struct race *r, struct heat *h)
{
    double rps = h->mix.rate_rps, half = 0;

    printf("\n%s, %s: bound %.0f requests/s, %.0f s each\n", h->mix.name, gaps_name[h->gaps],
           h->mix.bound * rps, (double)h->mix.duration_us / 1e6);
    printf("  %-13s %10s %8s %8s %9s\n", "policy", "capacity", "of bound", "+-", "worst");
    for (uint32_t i = 0; i < h->n; i++) {
        const struct standing *s = &h->of[i];
        double at = s->mean / h->mix.bound, w = half_width(s->scale, r->n_seeds) / h->mix.bound;
        printf("%s %-13s %10.1f %8.3f %8.3f %9.4f\n", s == h->best ? "*" : " ", s->by->name,
               s->mean * rps, at, w, s->worst);
    }
    if (h->ours && h->best) {
        double x = ratio(r, h->ours, h->best, &half);
        printf("  ours / %s: %.3f +- %.3f; bound / %s: %.3f\n", h->best->by->name, x, half,
               h->best->by->name, h->mix.bound / h->best->mean);
    }
    (void)fflush(stdout);
}

/* ---- overload and isolation */

#define TIMES_OVER 2.0

/* Goodput over capacity, and the worst model's over its part of it. */
static void overload_run(const struct race *r, const struct heat *h, const struct standing *s,
                         double capacity, double *ret_all, double *ret_worst)
{
    uint32_t n = MIN(r->n_seeds, 5u), step = load_step(&h->mix, capacity);
    double scale = load_scale(&h->mix, step), good[MODELS_MOST] = {0}, all = 0;
    struct field f;

    field_init(&f, &h->mix, s->by, s->trial, h->gaps);
    for (uint32_t i = 0; i < n; i++) {
        struct outcome o;
        field_run(&f, step, TIMES_OVER, PLAN_NONE, i + 1, &o);
        for (uint32_t m = 0; m < o.n_models; m++)
            good[m] += o.good_rps[m] / n;
    }
    field_done(&f);
    *ret_worst = INFINITY;
    for (uint32_t m = 0; m < h->mix.p.n_models; m++) {
        all += good[m];
        *ret_worst = fmin(*ret_worst, good[m] / (scale * h->mix.p.model[m].rate_rps));
    }
    *ret_all = all / (scale * h->mix.rate_rps);
}

static void overload_print(const struct race *r, const struct heat *h)
{
    printf("%-14s", h->mix.name);
    for (uint32_t i = 0; i < 2; i++) {
        const struct standing *s = i ? h->best : h->ours;
        double all, worst;
        if (!s || !(s->mean > 0))
            continue;
        overload_run(r, h, s, s->mean, &all, &worst);
        printf("  %-13s %8.3f %12.3f", s->by->name, all, worst);
        if (r->json)
            (void)fprintf(r->json,
                          "{\"overload\":%g,\"mix\":\"%s\",\"policy\":\"%s\",\"goodput\":%.4f,"
                          "\"worst_model\":%.4f}\n",
                          TIMES_OVER, h->mix.name, s->by->name, all, worst);
    }
    printf("\n");
    (void)fflush(stdout);
}

/* The worst neighbour's p99 over that without the loud one: median over seeds, worst over pairs. */
static double isolation_run(const struct race *r, const struct heat *h, const struct standing *s,
                            uint32_t loud)
{
    uint32_t n = MIN(r->n_seeds, 9u), step = load_step(&h->mix, 0.8 * s->mean);
    double x[MODELS_MOST][SEEDS_MOST], worst = 0;
    struct field f;

    field_init(&f, &h->mix, s->by, s->trial, h->gaps);
    for (uint32_t i = 0; i < n; i++) {
        struct outcome quiet, beside;
        field_run(&f, step, 1, PLAN_NONE, i + 1, &quiet);
        field_run(&f, step, 1, loud, i + 1, &beside);
        for (uint32_t m = 0; m < quiet.n_models; m++) {
            double y = quiet.p99_us[m] > 0 ? beside.p99_us[m] / quiet.p99_us[m] : 0;
            uint32_t k = i;
            for (; k > 0 && x[m][k - 1] > y; k--)
                x[m][k] = x[m][k - 1];
            x[m][k] = y;
        }
    }
    field_done(&f);
    for (uint32_t m = 0; m < h->mix.p.n_models; m++)
        worst = m == loud ? worst : fmax(worst, x[m][n / 2]);
    return worst;
}

static void isolation_print(const struct race *r, const struct heat *h)
{
    printf("\nisolation, %s at 0.8 of the capacity, one model at 20 times its rate: worst "
           "neighbour's p99 over without\n",
           h->mix.name);
    for (uint32_t i = 0; i < 2; i++) {
        const struct standing *s = i ? h->best : h->ours;
        double worst = 0;
        if (!s || !(s->mean > 0))
            continue;
        printf("  %-13s", s->by->name);
        for (uint32_t m = 0; m < h->mix.p.n_models; m++) {
            double x = isolation_run(r, h, s, m);
            worst = fmax(worst, x);
            printf(" %s %.3f", h->mix.p.model[m].name, x);
        }
        printf("; worst %.3f\n", worst);
        if (r->json)
            (void)fprintf(r->json, "{\"isolation\":%.4f,\"mix\":\"%s\",\"policy\":\"%s\"}\n", worst,
                          h->mix.name, s->by->name);
    }
    (void)fflush(stdout);
}

/* ---- all together */

struct total {
    uint32_t n, n_timeshare, n_gpulet;
    double log_sum[SEEDS_MOST], log_timeshare, log_gpulet, least;
};

static void total_log(double *sum, uint32_t *n, const struct standing *a, const struct standing *b)
{
    if (!b || !(b->mean > 0))
        return;
    *sum += log(a->mean / b->mean);
    ++*n;
}

static void total_add(const struct race *r, struct total *t, struct heat *h)
{
    double half;

    if (!h->ours || !h->best || !(h->ours->mean > 0) || !(h->best->mean > 0))
        return;
    for (uint32_t i = 0; i < r->n_seeds; i++)
        t->log_sum[i] += log(fmax(h->ours->scale[i], 1e-9) / fmax(h->best->scale[i], 1e-9));
    t->n++;
    t->least = fmin(t->least, ratio(r, h->ours, h->best, &half));
    total_log(&t->log_timeshare, &t->n_timeshare, h->ours, named(h, "timeshare"));
    total_log(&t->log_gpulet, &t->n_gpulet, h->ours, named(h, "gpulet"));
}

static void total_print(const struct race *r, const struct total *t)
{
    double x[SEEDS_MOST];

    if (!t->n)
        return;
    for (uint32_t i = 0; i < r->n_seeds; i++)
        x[i] = t->log_sum[i] / t->n;
    double mean = mean_of(x, r->n_seeds), half = half_width(x, r->n_seeds);
    printf("\nours over the best rival, geometric mean of %u: %.3f, 95 %% from %.3f to %.3f; least "
           "%.3f\n",
           t->n, exp(mean), exp(mean - half), exp(mean + half), t->least);
    if (t->n_timeshare)
        printf("over timeshare %.3f (%u)", exp(t->log_timeshare / t->n_timeshare), t->n_timeshare);
    if (t->n_gpulet)
        printf(", over gpulet %.3f (%u)", exp(t->log_gpulet / t->n_gpulet), t->n_gpulet);
    printf("\n");
    if (r->json)
        (void)fprintf(r->json, "{\"geomean\":%.4f,\"low\":%.4f,\"high\":%.4f,\"least\":%.4f}\n",
                      exp(mean), exp(mean - half), exp(mean + half), t->least);
}

static void summary_line(const struct race *r, const struct heat *h)
{
    double half, rps = h->mix.rate_rps;

    if (!h->ours || !h->best)
        return;
    double x = ratio(r, h->ours, h->best, &half), room = h->mix.bound / h->best->mean;
    double want = room >= 1.35 ? 1.35 : 1 + (room - 1) / 2;
    printf("%-14s %-8s %8.1f %8.1f %-13s %8.1f %6.3f +- %.3f %7.3f %s\n", h->mix.name,
           gaps_name[h->gaps], h->mix.bound * rps, h->best->mean * rps, h->best->by->name,
           h->ours->mean * rps, x, half, want, x >= want ? "met" : "NOT MET");
}

static bool wanted(const char *only, const char *name)
{
    return !only || STREQ(only, name);
}

static void arguments(struct race *r, int argc, char **argv)
{
    const char *grid = "test/race/grid.txt";
    bool quick = false;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (STREQ(argv[i], "--quick")) {
            quick = true;
            continue;
        }
        if (value && STREQ(argv[i], "--mix"))
            r->only_mix = value;
        else if (value && STREQ(argv[i], "--policy"))
            r->only_policy = value;
        else if (value && STREQ(argv[i], "--grid"))
            grid = value;
        else if (value && STREQ(argv[i], "--gaps"))
            r->only_gaps = value;
        else if (!value || !STREQ(argv[i], "--json") || !(r->json = fopen(value, "w"))) {
            (void)fprintf(stderr, "race: what is %s?\n", argv[i]);
            exit(2);
        }
        i++;
    }
    r->n_seeds = quick ? 2 : 20;
    r->n_tuning = quick ? 1 : 3;
    r->n_trials = quick ? 2 : TRIALS_MOST;
    r->n_requests = quick ? 2000 : 30000;
    r->n_entrants = entrants_read(grid, r->entrant, POLICIES_MOST);
    for (uint32_t i = 0; i < r->n_entrants;) {
        const char *name = r->entrant[i].by->name;
        bool quick_one = STREQ(name, "gpuletd") || STREQ(name, "edf") || STREQ(name, "all-at-once");
        if ((quick && !quick_one) || (!wanted(r->only_policy, name) && !STREQ(name, "gpuletd")))
            r->entrant[i] = r->entrant[--r->n_entrants];
        else
            i++;
    }
    if (quick && !r->only_mix)
        r->only_mix = "light";
    if (quick && !r->only_gaps)
        r->only_gaps = "poisson";
}

int main(int argc, char **argv)
{
    static struct race r;
    static struct heat heat[ARRAY_SIZE(mixes) * N_GAPS + 1];
    struct total total = {.least = INFINITY};
    struct arena a;
    uint32_t n = 0;

    arguments(&r, argc, argv);
    arena_init(&a);
    for (uint32_t g = 0; g < N_GAPS; g++)
        for (uint32_t i = 0; i < ARRAY_SIZE(mixes); i++) {
            if (!wanted(r.only_mix, mixes[i]) || !wanted(r.only_gaps, gaps_name[g]))
                continue;
            heat_run(&r, mixes[i], g, &a, &heat[n]);
            heat_print(&r, &heat[n]);
            total_add(&r, &total, &heat[n++]);
        }
    printf("\n%-14s %-8s %8s %8s %-13s %8s %15s %7s\n", "mix", "arrivals", "bound", "rival", "",
           "ours", "ours / rival", "asked");
    for (uint32_t i = 0; i < n; i++)
        summary_line(&r, &heat[i]);
    total_print(&r, &total);

    printf("\noverload, twice the capacity that each has: goodput over it, worst model over its "
           "part\n");
    for (uint32_t i = 0; i < n; i++)
        if (heat[i].gaps == GAPS_POISSON)
            overload_print(&r, &heat[i]);
    for (uint32_t i = 0; i < n; i++)
        if (heat[i].gaps == GAPS_POISSON && STREQ(heat[i].mix.name, "equal"))
            isolation_print(&r, &heat[i]);
    if (wanted(r.only_mix, "alone") && wanted(r.only_gaps, "poisson")) {
        heat_run(&r, "alone", GAPS_POISSON, &a, &heat[n]);
        heat_print(&r, &heat[n]);
    }
    if (r.json)
        (void)fclose(r.json);
    arena_done(&a);
    return 0;
}
