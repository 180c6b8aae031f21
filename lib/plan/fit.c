/* Fitting an interference model to measured pairs: least squares of the relative error.
 *
 *   INTERFERE_PRESSURE  its terms (interfere.h) may not be negative: all subsets of them are
 *                       solved, and the best one without a negative term is the answer
 *   INTERFERE_GPULET    c1..c5, free
 *
 * Both are linear in what is sought, so a fit is a few sums and a system of at most five
 * equations, solved here: the same bytes on every machine. */
#include "interfere.h"

#include <math.h>

#define MOST 5           /* unknowns */
#define RIDGE 1e-9       /* of the diagonal: only against terms that cannot be told apart */
#define PAIRS_PER_TERM 3 /* fewer say nothing */

/* The sums of least squares: minimise |A x - y|. */
struct normal {
    uint32_t n;
    double ata[MOST][MOST], aty[MOST], yty;
};

static void normal_add(struct normal *s, const double *row, double y)
{
    for (uint32_t i = 0; i < s->n; i++) {
        for (uint32_t j = 0; j < s->n; j++)
            s->ata[i][j] += row[i] * row[j];
        s->aty[i] += row[i] * y;
    }
    s->yty += y * y;
}

static bool in_set(uint32_t set, uint32_t i)
{
    return set >> i & 1;
}

/* Gauss with the unknowns of one set; the matrix is positive, so the diagonal will do as pivots.
 * The others are 0. */
static void normal_solve(const struct normal *s, uint32_t set, double *x)
{
    double m[MOST][MOST + 1];
    uint32_t n = s->n;

    for (uint32_t i = 0; i < n; i++) {
        bool here = in_set(set, i) && s->ata[i][i] > 0;
        for (uint32_t j = 0; j < n; j++)
            m[i][j] = here && in_set(set, j) ? s->ata[i][j] : 0;
        m[i][i] = here ? s->ata[i][i] * (1 + RIDGE) : 1;
        m[i][n] = here ? s->aty[i] : 0;
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t r = i + 1; r < n; r++) {
            double t = m[r][i] / m[i][i];
            for (uint32_t j = i; j <= n; j++)
                m[r][j] -= t * m[i][j];
        }
    for (uint32_t i = n; i-- > 0;) {
        x[i] = m[i][n];
        for (uint32_t j = i + 1; j < n; j++)
            x[i] -= m[i][j] * x[j];
        x[i] /= m[i][i];
    }
}

/* |A x - y|^2 */
static double normal_rest(const struct normal *s, const double *x)
{
    double rest = s->yty;

    for (uint32_t i = 0; i < s->n; i++) {
        rest -= 2 * x[i] * s->aty[i];
        for (uint32_t j = 0; j < s->n; j++)
            rest += x[i] * s->ata[i][j] * x[j];
    }
    return rest;
}

static void normal_solve_positive(const struct normal *s, double *ret)
{
    double least = s->yty;

    memset(ret, 0, s->n * sizeof(*ret));
    for (uint32_t set = 1; set < 1u << s->n; set++) {
        double x[MOST];
        bool ok = true;
        normal_solve(s, set, x);
        for (uint32_t i = 0; i < s->n; i++)
            ok = ok && x[i] >= 0;
        double rest = normal_rest(s, x);
        if (ok && rest < least) {
            least = rest;
            memcpy(ret, x, s->n * sizeof(*ret));
        }
    }
}

/* ---- pairs */

static bool left_out(const struct fit_pair *pair, uint32_t leave)
{
    return leave != UINT32_MAX && pair->fold == leave;
}

static int pair_solo(const struct predict_device *d, const struct fit_pair *pair, uint32_t i,
                     struct solo *me, struct pressure *p, struct err *err)
{
    const struct load *l[2] = {&pair->me, &pair->other};
    struct solo s[2];

    if (!(pair->run_us > 0) || !isfinite(pair->run_us))
        return err_set(err, -EINVAL, "pair %u: measured %g us is not above 0", i, pair->run_us);
    for (uint32_t k = 0; k < 2; k++)
        if (!load_solo(d, l[k], &s[k]))
            return err_set(err, -EINVAL,
                           "pair %u: its profile says that the %s model does not run in batches of "
                           "%u on %u units",
                           i, k ? "second" : "first", l[k]->batch, l[k]->units);
    *me = s[0];
    *p = (struct pressure){0};
    pressure_add(d, p, &s[1], pair->other.duty);
    return 0;
}

/* What our terms would have to add to the run, each beside what one of it adds. */
static int pressure_row(const struct predict_device *d, const struct fit_pair *pair, uint32_t i,
                        double *row, double *y, struct err *err)
{
    struct pressure p;
    struct slowing s;
    struct solo me;

    if (pair_solo(d, pair, i, &me, &p, err) < 0)
        return -EINVAL;
    pressure_slowing(&d->interference, &me, &p, &s);
    for (uint32_t k = 0; k < N_FITTED; k++)
        row[k] = s.each_us[k] / pair->run_us;
    *y = 1 - (me.in_us + s.compute_us + me.out_us + me.host_us) / pair->run_us;
    return 0;
}

/* gpu-lets' factor is linear in c1..c5: its value at a unit vector is what goes with that one. */
static int gpulet_row(const struct predict_device *d, const struct fit_pair *pair, uint32_t i,
                      double *row, double *y, struct err *err)
{
    struct predict_device unit = *d;
    double duty = fmin(fmax(pair->other.duty, 0), 1), compute_us = 0, rest_us = 0;

    for (uint32_t k = 0; k < MOST; k++) {
        struct pressure p;
        struct solo me;
        memset(unit.interference.c, 0, sizeof(unit.interference.c));
        unit.interference.c[k] = 1;
        if (pair_solo(&unit, pair, i, &me, &p, err) < 0)
            return -EINVAL;
        compute_us = me.sched_us + me.active_us;
        rest_us = me.in_us + me.out_us + me.host_us;
        row[k] = duty * compute_us * (me.disturbed + p.line[0].disturb) / pair->run_us;
    }
    *y = 1 - (rest_us + (1 - duty) * compute_us) / pair->run_us;
    return 0;
}

/* What a load on all units uses of L2 and DRAM, on the mean of those pairs that were measured. */
static double mean_memory(const struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                          uint32_t leave)
{
    double sum = 0, parts = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct load *l = &pair[i].other;
        struct solo s;
        if (left_out(&pair[i], leave) || !load_solo(d, l, &s))
            continue;
        double memory = (double)(s.push[PRESSURE_L2] + s.push[PRESSURE_DRAM]) / PRESSURE_ONE / 2;
        if (memory > 0) {
            sum += memory;
            parts += (double)l->units / MAX(d->units, 1u);
        }
    }
    return parts > 0 ? sum / parts : 0;
}

static double most_kernels(const struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                           uint32_t leave)
{
    double most = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct solo s;
        if (!left_out(&pair[i], leave) && load_solo(d, &pair[i].me, &s))
            most = fmax(most, (double)s.push[PRESSURE_KERNELS] / PRESSURE_ONE);
    }
    return most;
}

typedef int row_fn(const struct predict_device *d, const struct fit_pair *pair, uint32_t i,
                   double *row, double *y, struct err *err);

static int normal_fill(struct normal *s, row_fn *row_of, const struct predict_device *d,
                       const struct fit_pair *pair, uint32_t n, uint32_t leave, struct err *err)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < n; i++) {
        double row[MOST], y;
        if (left_out(&pair[i], leave))
            continue;
        if (row_of(d, &pair[i], i, row, &y, err) < 0)
            return -EINVAL;
        normal_add(s, row, y);
        used++;
    }
    if (used < PAIRS_PER_TERM * s->n)
        return err_set(err, -EINVAL, "%u measured pairs are too few for %u terms: at least %u",
                       used, s->n, PAIRS_PER_TERM * s->n);
    return 0;
}

static int fit_pressure(struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                        uint32_t leave, struct err *err)
{
    struct predict_device fitted = *d;
    struct interference *f = &fitted.interference;
    struct normal s = {.n = N_FITTED};

    f->n_terms = N_TERMS;
    memset(f->term, 0, sizeof(f->term));
    f->term[TERM_UNKNOWN] = mean_memory(&fitted, pair, n, leave);
    f->term[TERM_SEEN] = most_kernels(&fitted, pair, n, leave);
    if (normal_fill(&s, pressure_row, &fitted, pair, n, leave, err) < 0)
        return -EINVAL;
    normal_solve_positive(&s, f->term);
    d->interference = *f;
    return 0;
}

static int fit_gpulet(struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                      uint32_t leave, struct err *err)
{
    struct normal s = {.n = MOST};

    if (normal_fill(&s, gpulet_row, d, pair, n, leave, err) < 0)
        return -EINVAL;
    normal_solve(&s, UINT32_MAX, d->interference.c);
    return 0;
}

int fit_interference(struct predict_device *d, const struct fit_pair *pair, uint32_t n,
                     uint32_t leave, struct arena *a, struct err *err)
{
    (void)a;
    switch (d->interference.kind) {
    case INTERFERE_NONE:
    case INTERFERE_IGNITER:
        return 0;
    case INTERFERE_GPULET:
        return fit_gpulet(d, pair, n, leave, err);
    case INTERFERE_PRESSURE:
        return fit_pressure(d, pair, n, leave, err);
    }
    return err_set(err, -EINVAL, "there is no interference model %d", (int)d->interference.kind);
}
