/* Mixes, entrants, and one policy on one mix. */
#include "race.h"

#include <gpulet/problem.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NOISE 0.05
#define IN_TIME 0.99
#define LOUD 20.0
#define GAMMA_CV 4.0

const char *const gaps_name[N_GAPS] = {"poisson", "cv4"};

static void die(const char *what, const char *why)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "race: %s: %s\n", what, why);
    exit(2);
}

/* ---- files */

static bool trial_set(struct trial *t, const char *key, double v)
{
    if (STREQ(key, "margin"))
        t->margin = v;
    else if (STREQ(key, "queue"))
        t->queue_max = (uint32_t)v;
    else if (STREQ(key, "run_part"))
        t->tuning.run_part = v;
    else if (STREQ(key, "delay_part"))
        t->tuning.delay_part = v;
    else if (STREQ(key, "slice_part"))
        t->tuning.slice_part = v;
    else if (STREQ(key, "instances"))
        t->tuning.instances = (uint32_t)v;
    else
        return false;
    return true;
}

static void trial_read(char *words, struct trial *ret)
{
    char *save = NULL;

    *ret = (struct trial){.margin = 1};
    for (char *w = strtok_r(words, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
        char *value = strchr(w, '=');
        if (value)
            *value++ = 0;
        if (!value || !trial_set(ret, w, strtod(value, NULL)))
            die("grid.txt", w);
    }
}

uint32_t entrants_read(const char *path, struct entrant *ret, uint32_t most)
{
    FILE *f = fopen(path, "r");
    char line[256];
    uint32_t n = 0;

    if (!f)
        die(path, "cannot be read");
    while (fgets(line, sizeof(line), f)) {
        struct err err = {0};
        const struct policy *by;
        size_t len = strcspn(line, " \n");
        bool more = line[len] == ' ';
        if (line[0] == '#' || len == 0)
            continue;
        line[len] = 0;
        if (policy_find(line, &by, &err) < 0)
            die(path, err.msg);
        if ((n == 0 || ret[n - 1].by != by) && n < most)
            ret[n++] = (struct entrant){.by = by};
        struct entrant *e = &ret[n - 1];
        if (e->by != by || e->n_trials == TRIALS_MOST)
            die(path, "too many lines");
        trial_read(more ? line + len + 1 : line + len, &e->trial[e->n_trials++]);
    }
    (void)fclose(f);
    return n;
}

void mix_read(const char *name, uint32_t n_requests, struct arena *a, struct mix *ret)
{
    char path[256];
    struct err err = {0};
    char *text = malloc(PROBLEM_MAX_BYTES);

    *ret = (struct mix){.name = name};
    (void)snprintf(path, sizeof(path), "test/race/mixes/%s.json", name);
    FILE *f = fopen(path, "rb");
    size_t n = f && text ? fread(text, 1, PROBLEM_MAX_BYTES, f) : 0;
    if (problem_parse(text, n, a, &ret->p, &err) < 0)
        die(path, err.msg);
    (void)fclose(f);
    free(text);
    double bound = plan_bound(&ret->p, a);
    for (uint32_t m = 0; m < ret->p.n_models; m++)
        ret->rate_rps += ret->p.model[m].rate_rps;
    if (!(bound > 0) || ret->p.n_models > MODELS_MOST)
        die(path, "no bound, or too many models");
    ret->bound = ret->p.n_devices / bound;
    ret->duration_us = (usec_t)(1e6 * n_requests / (ret->rate_rps * ret->bound));
}

/* ---- one policy on one mix */

void field_init(struct field *f, const struct mix *m, const struct policy *by,
                const struct trial *t, enum gaps g)
{
    *f = (struct field){.mix = m, .by = by, .trial = t, .gaps = g};
    arena_init(&f->arena);
}

void field_done(struct field *f)
{
    arena_done(&f->arena);
}

double load_scale(const struct mix *m, uint32_t step)
{
    return m->bound * pow(STEP, (double)step - (STEPS - ABOVE));
}

uint32_t load_step(const struct mix *m, double scale)
{
    double at = floor(log(scale / m->bound) / log(STEP) + 1e-9) + (STEPS - ABOVE);

    return at < 0 ? 0 : at >= STEPS ? STEPS - 1 : (uint32_t)at;
}

static void field_plan(struct field *f, uint32_t step)
{
    struct arena *a = &f->arena;
    struct problem *p = ARENA_NEW(a, struct problem);
    struct plan *plan = ARENA_NEW(a, struct plan);
    struct plan_model *model =
        arena_memdup(a, f->mix->p.model, f->mix->p.n_models * sizeof(*model));
    struct err err = {0};

    if (!p || !plan || !model)
        die(f->mix->name, "out of memory");
    *p = f->mix->p;
    p->model = model;
    p->rules.tuning = f->trial->tuning;
    for (uint32_t m = 0; m < p->n_models; m++) {
        model[m].rate_rps *= load_scale(f->mix, step) * f->trial->margin;
        model[m].arrivals = f->gaps == GAPS_GAMMA ? ARRIVALS_CV : ARRIVALS_POISSON;
        model[m].cv = f->gaps == GAPS_GAMMA ? GAMMA_CV : 0;
    }
    f->problem[step] = p;
    if (f->by->plan_make(p, NULL, a, plan, &err) == 0)
        f->plan[step] = plan;
}

static void outcome_fill(const struct field *f, const struct replay_result *r, struct outcome *ret)
{
    double s = 0.95 * (double)f->mix->duration_us / 1e6;

    *ret = (struct outcome){.n_models = r->n_models, .worst = 1, .events = (double)r->events};
    for (uint32_t m = 0; m < r->n_models; m++) {
        const struct replay_model *x = &r->model[m];
        ret->offered += (double)x->offered;
        ret->in_time += (double)x->in_time;
        ret->good_rps[m] = (double)x->in_time / s;
        ret->p99_us[m] = (double)hist_quantile(&x->latency, 0.99);
        if (x->offered)
            ret->worst = fmin(ret->worst, (double)x->in_time / (double)x->offered);
    }
}

void field_run(struct field *f, uint32_t step, double times, uint32_t loud, uint64_t seed,
               struct outcome *ret)
{
    static const struct replay_load as_planned = {.kind = REPLAY_MODEL, .rate_rps = -1};
    struct replay_load load[MODELS_MOST];
    struct replay_result r = {0};
    struct err err = {0};
    struct arena a;

    if (!f->problem[step])
        field_plan(f, step);
    *ret = (struct outcome){.n_models = f->mix->p.n_models, .offered = 1};
    if (!f->plan[step])
        return;
    for (uint32_t m = 0; m < f->mix->p.n_models; m++) {
        load[m] = as_planned;
        if (m == loud)
            load[m].rate_rps = LOUD * f->problem[step]->model[m].rate_rps;
        load[m].kind = f->gaps == GAPS_GAMMA ? REPLAY_GAMMA : REPLAY_POISSON;
        load[m].cv = GAMMA_CV;
    }
    struct replay_config cfg = {.problem = f->problem[step],
                                .plan = f->plan[step],
                                .policy = f->by,
                                .load = load,
                                .seed = seed,
                                .duration_us = f->mix->duration_us,
                                .warmup_us = f->mix->duration_us / 20,
                                .scale = times / f->trial->margin,
                                .queue_max = f->trial->queue_max,
                                .noise = NOISE};
    arena_init(&a);
    if (replay_run(&cfg, &a, &r, &err) < 0)
        die(f->by->name, err.msg);
    outcome_fill(f, &r, ret);
    arena_done(&a);
}

static bool serves(struct field *f, uint32_t step, uint64_t seed, struct outcome *ret)
{
    struct outcome o;

    field_run(f, step, 1, PLAN_NONE, seed, &o);
    if (o.in_time < IN_TIME * o.offered)
        return false;
    *ret = o;
    return true;
}

/* Ever larger steps away from where it begins, then halves. */
double field_capacity(struct field *f, uint64_t seed, uint32_t *step, struct outcome *ret)
{
    int lo = -1, hi = STEPS, at = (int)*step;

    for (int stride = 4; lo < 0 || hi == STEPS; stride *= 2) {
        at = at < 0 ? 0 : at >= STEPS ? STEPS - 1 : at;
        if (serves(f, (uint32_t)at, seed, ret))
            lo = at;
        else
            hi = at;
        if (lo == STEPS - 1 || hi == 0)
            break;
        at = lo < 0 ? hi - stride : lo + stride;
        if ((lo >= 0 && at >= hi) || (hi < STEPS && at <= lo))
            break;
    }
    while (lo + 1 < hi) {
        int mid = (lo + hi) / 2;
        if (serves(f, (uint32_t)mid, seed, ret))
            lo = mid;
        else
            hi = mid;
    }
    *step = lo < 0 ? 0 : (uint32_t)lo;
    return lo < 0 ? 0 : load_scale(f->mix, (uint32_t)lo);
}

/* ---- statistics */

double mean_of(const double *x, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / n : 0;
}

double half_width(const double *x, uint32_t n)
{
    /* 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom */
    static const double t[] = {12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                               2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                               2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                               2.060, 2.056, 2.052, 2.048, 2.045, 2.042, 2.040};
    double mean = mean_of(x, n), sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? t[MIN(n - 2, ARRAY_SIZE(t) - 1)] * sqrt(sum / (n - 1) / n) : INFINITY;
}
