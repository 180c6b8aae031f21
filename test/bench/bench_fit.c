/* How well interference is predicted for pairs of models that were never measured together:
 * iGniter's 750 V100 settings (1,500 latencies), each unordered pair of models left out of the fit
 * in turn.  Inputs are solo profiles and hardware terms; no model has a name here.
 *
 * iGniter's model is given twice: as published (its fitted curve alone, too), and its slowdown on
 * the measured solo latency, which judges the interference part by itself. */
#include "../v100.h"
#include <gpulet/clock.h>
#include <math.h>

static struct v100 v;
static struct arena arena;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* A way of predicting: fitted without one fold, the prediction of pair i. */
struct model {
    const char *name;
    void (*fit)(uint32_t without);
    double (*run_us)(const struct fit_pair *p);
};

static struct predict_device fitted;

static double predicted(const struct fit_pair *p)
{
    struct estimate e;

    v100_must(predict(&fitted, &p->me, &p->other, 1, &e), "a pair does not run");
    return e.run_us;
}

static double alone(const struct fit_pair *p)
{
    struct predict_device d = v.device;
    struct estimate e;

    d.interference.kind = INTERFERE_NONE;
    v100_must(predict(&d, &p->me, NULL, 0, &e), "a model does not run");
    return e.run_us;
}

static double constant;

/* The factor with the least mean error on those that are not left out. */
static void constant_fit(uint32_t without)
{
    double least = HUGE_VAL, best = 1;

    for (double f = 1; f < 1.3; f += 0.001) {
        double sum = 0;
        for (uint32_t i = 0; i < V100_PAIRS; i++)
            if (v.pair[i].fold != without)
                sum += fabs(f * alone(&v.pair[i]) / v.pair[i].run_us - 1);
        if (sum < least) {
            least = sum;
            best = f;
        }
    }
    constant = best;
}

static double constant_us(const struct fit_pair *p)
{
    return constant * alone(p);
}

static void fit_kind(enum interfere_kind kind, uint32_t without)
{
    struct err err;

    fitted = v.device;
    fitted.interference.kind = kind;
    v100_must(fit_interference(&fitted, v.pair, V100_PAIRS, without, &arena, &err) == 0, "no fit");
}

static void gpulet_fit(uint32_t without)
{
    fit_kind(INTERFERE_GPULET, without);
}

static void igniter_fit(uint32_t without)
{
    fit_kind(INTERFERE_IGNITER, without);
}

static void pressure_fit(uint32_t without)
{
    fit_kind(INTERFERE_PRESSURE, without);
}

static struct load curved(const struct load *l)
{
    struct load c = *l;

    c.profile = &v.curved[l->profile - v.table];
    return c;
}

static struct estimate igniter_says(const struct fit_pair *p)
{
    struct load me = curved(&p->me), other = curved(&p->other);
    struct estimate e;

    v100_must(predict(&fitted, &me, &other, 1, &e), "iGniter's curve");
    return e;
}

static double igniter_us(const struct fit_pair *p)
{
    return igniter_says(p).run_us;
}

static double igniter_slowdown_us(const struct fit_pair *p)
{
    double b = p->me.batch;
    double copies_us = 1e6 * b * (p->me.profile->in_bytes + p->me.profile->out_bytes);

    copies_us /= V100_LINK_BPS;
    return copies_us + (alone(p) - copies_us) * igniter_says(p).slowdown;
}

static const struct model model[] = {
    {"best constant", constant_fit, constant_us},
    {"gpu-lets, linear", gpulet_fit, predicted},
    {"iGniter as published", igniter_fit, igniter_us},
    {"iGniter on measured solo", igniter_fit, igniter_slowdown_us},
    {"gpuletd, pressure", pressure_fit, predicted},
};

static double mean_of(const double *error, uint32_t fold)
{
    double sum = 0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < V100_PAIRS; i++)
        if (fold == UINT32_MAX || v.pair[i].fold == fold) {
            sum += fabs(error[i]);
            n++;
        }
    return 100 * sum / n;
}

static void row(const struct model *m)
{
    static double error[V100_PAIRS], size[V100_PAIRS];
    uint32_t under = 0;

    for (uint32_t f = 0; f < V100_FOLDS; f++) {
        m->fit(f);
        for (uint32_t i = 0; i < V100_PAIRS; i++)
            if (v.pair[i].fold == f)
                error[i] = m->run_us(&v.pair[i]) / v.pair[i].run_us - 1;
    }
    for (uint32_t i = 0; i < V100_PAIRS; i++) {
        under += error[i] < -0.1;
        size[i] = fabs(error[i]);
    }
    qsort(size, V100_PAIRS, sizeof(*size), by_value);
    printf("| %s | %.2f | %.2f | %.2f |", m->name, mean_of(error, UINT32_MAX),
           100 * size[V100_PAIRS * 95 / 100 - 1], 100.0 * under / V100_PAIRS);
    for (uint32_t f = 0; f < V100_FOLDS; f++)
        printf(" %.2f |", mean_of(error, f));
    printf("\n");
}

/* Terms fitted to all pairs, and how much of the error is of unseen pairs and how much of the
 * model's shape. */
static void shape(void)
{
    struct fit_report r;

    pressure_fit(UINT32_MAX);
    fit_evaluate(&fitted, v.pair, V100_PAIRS, UINT32_MAX, &arena, &r);
    printf("\nFitted to all pairs: mean %.2f %%, p95 %.2f %%; terms", 100 * r.mean_error,
           100 * r.p95_error);
    for (uint32_t k = 0; k < fitted.interference.n_terms; k++)
        printf(" %.4g", fitted.interference.term[k]);
    printf("\n");
}

static void speed(void)
{
    struct pressure p = {0};
    struct solo me, other;
    struct estimate e;
    double sum = 0;
    enum { N = 200000 };

    pressure_fit(UINT32_MAX);
    uint64_t t0 = clock_now_ns();
    for (uint32_t i = 0; i < N; i++) {
        const struct fit_pair *q = &v.pair[i % V100_PAIRS];
        v100_must(predict(&fitted, &q->me, &q->other, 1, &e), "a pair does not run");
        sum += e.run_us;
    }
    uint64_t t1 = clock_now_ns();
    v100_must(load_solo(&fitted, &v.pair[0].me, &me) &&
                  load_solo(&fitted, &v.pair[0].other, &other),
              "a pair does not run");
    uint64_t t2 = clock_now_ns();
    for (uint32_t i = 0; i < N; i++) {
        pressure_add(&fitted, &p, &other, 1.0 / (1 + i % 100));
        pressure_of(&fitted, &me, &p, &e);
        sum += e.run_us;
        v100_must(pressure_sub(&fitted, &p, &other, 1.0 / (1 + i % 100)), "not there");
    }
    uint64_t t3 = clock_now_ns();
    printf(
        "\npredict() beside one neighbour: %.0f ns; a neighbour joins, is priced, leaves: %.0f ns"
        " (%g)\n",
        (double)(t1 - t0) / N, (double)(t3 - t2) / N, sum > 0 ? 1.0 : 0.0);
}

int main(void)
{
    arena_init(&arena);
    v100_load(&v);
    printf("Prediction on V100 pairs, each pair of models left out in turn; errors in %%\n\n");
    printf("| model | mean | p95 | under by > 10 %% |");
    for (uint32_t f = 0; f < V100_FOLDS; f++)
        printf(" %s |", v.fold_name[f]);
    printf("\n|---|---|---|---|");
    for (uint32_t f = 0; f < V100_FOLDS; f++)
        printf("---|");
    printf("\n");
    for (size_t i = 0; i < sizeof(model) / sizeof(model[0]); i++)
        row(&model[i]);
    shape();
    speed();
    arena_done(&arena);
    return 0;
}
