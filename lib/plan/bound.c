/* The bound: no plan that serves everybody does with less.
 *
 * A request costs at least the granules of its gpu-let times its part of the time, at the size and
 * batch where that is least.  Under RULE_PART more can be said, of every plan that plan_check()
 * accepts.  All is in parts of a device; times are without neighbours unless it says otherwise.
 *
 * 1. One share, of rate rho, in a gpu-let of the part U of a device.  By itself it takes all of it,
 * 1 / rho a request.  In a cycle D runs of b rows have D <= b / rho and D + run(b) <= SLO: they
 * hold it for at least hold(b) / b a request, and hold(b) / (SLO - run(b)) / rho.  None of that
 * rises with rho, so a share is never cheaper than one of the whole rate (share_us()).
 *
 * 2. One model: no share is above R, what the best size serves.  The n = floor(rate / R) largest
 * serve at most n R at the least cost c there is; the others serve y >= rate - n R, and none of
 * them is above rate / (n + 1), nor above y: they cost what shares of that rate do (model_least()).
 *
 * 3. A gpu-let that is alone on its device costs the whole device.
 *
 * 4. Others have neighbours.  INTERFERE_PRESSURE slows each run by a part t0 sqrt(M) or more, M the
 * memory pressure of the other gpu-lets (less, when they run for less than all the time).  Be p_i
 * what share i takes at least, fixed parts of runs left out, v_i its pressure, counted as at most
 * p_i.  The p of others are together at most 1 - U_i, so that by Jensen's inequality (by Cauchy's,
 * when they run for less) t0 sqrt(M_i) is at least the sum of s_k = t sqrt(p_k v_k) over the shares
 * of other gpu-lets, with t = t0 / sqrt(1 - smallest U).  All s are together at most t.
 *
 * Let there be a device, Q what its shares take, and Y the gpu-lets whose share has time to spare:
 * that time may hide what neighbours cost.  1 - Y - Q = z is lost or idle.  The shares in Q lose
 * their part times the sum of s_k of others; summed the other way, share k has others lose at least
 * s_k (Q - U_k) = s_k (1 - U_k - Y - z).  So with S the sum of s_k (1 - U_k) over all shares
 *
 *     z >= S - t (Y + z),   z + t Y >= S / (1 + t),   1 >= Q + (1 - t) Y + S / (1 + t).
 *
 * That is a sum over shares: besides what it takes, each pays s (1 - U) / (1 + t), and one by
 * itself takes (1 - t) U or p, whichever is more.
 *
 * Pressure is at least rho times the least of hold(b) / b times what a run of b rows pushes: what a
 * plan says to be a usual run carries its rate, or the check refuses it.  Both are straight between
 * the points of a table (press_of()).  Where copies or hosts take a part of a run that nobody
 * slows, or pressure was not measured, nothing is counted.
 *
 * Sizes are those that the planner tries: all there are, up to SIZES_MAX.  All of it holds up to
 * the tolerances of the check, together less than 1e-5. */
#include "make_priv.h"
#include <math.h>

#define SLACK 1e-5 /* of an SLO: more than the tolerances of the check add up to */
#define STEPS 4    /* of y in model_least() */

static const struct pressure nobody;

/* ---- a size of gpu-let: times by rows, in straight lines */

/* A table's batches; of a curve all there are.  False: there are holes in it. */
static bool points_make(struct job *j, uint32_t m, uint32_t type, uint32_t units, struct line *l)
{
    const struct profile *f = &j->p->model[m].profile[type];
    uint32_t n = f->curve ? j->p->model[m].max_batch : f->n_batch;
    struct estimate e;
    bool whole = true;

    l->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rows = f->curve ? i + 1 : f->batch[i];
        if (!ask(j, m, type, units, 1, rows, &nobody, &e))
            continue;
        whole &= l->n == i;
        l->rows[l->n] = rows;
        l->hold[l->n] = e.hold_us;
        l->run[l->n++] = e.run_us;
    }
    return whole;
}

/* Beyond the last batch times are at least on the line of the last two (predict.h). */
static void line_extend(struct line *l, double to)
{
    uint32_t n = l->n;
    double rows = n > 1 ? l->rows[n - 2] : 0, hold = n > 1 ? l->hold[n - 2] : 0;
    double run = n > 1 ? l->run[n - 2] : 0;
    double x = (to - l->rows[n - 1]) / (l->rows[n - 1] - rows);

    if (x <= 0)
        return;
    l->rows[n] = to;
    l->hold[n] = l->hold[n - 1] + x * (l->hold[n - 1] - hold);
    l->run[n] = l->run[n - 1] + x * (l->run[n - 1] - run);
    l->n++;
}

static double on_line(const struct line *l, const double *y, double rows)
{
    uint32_t i = 1;

    if (rows <= l->rows[0] || l->n == 1)
        return y[0];
    while (i + 1 < l->n && l->rows[i] < rows)
        i++;
    return y[i - 1] + (y[i] - y[i - 1]) * (rows - l->rows[i - 1]) / (l->rows[i] - l->rows[i - 1]);
}

/* The rows at which each x rows + a x run(rows) comes to `limit`; infinite: nowhere. */
static double rows_where(const struct line *l, double each, double a, double limit)
{
    double before = 0;

    for (uint32_t i = 0; i < l->n; i++) {
        double y = each * l->rows[i] + a * l->run[i];
        if (y > limit && i > 0)
            return l->rows[i - 1] + (l->rows[i] - l->rows[i - 1]) * (limit - before) / (y - before);
        if (y > limit)
            return each > 0 ? fmax(0, limit - a * l->run[0]) / each : 0;
        before = y;
    }
    return INFINITY;
}

/* The most rows that the rule allows, and what a request then takes at best. */
static void line_limit(struct line *l, double limit_us, uint32_t max_batch)
{
    double most = fmin(floor(rows_where(l, 0, 1, limit_us * (1 + SLACK))), max_batch);

    l->most = l->n ? fmin(most, l->rows[l->n - 1]) : 0;
    l->each_us = l->most < 1 ? INFINITY : on_line(l, l->hold, l->most) / l->most;
    for (uint32_t i = 0; i < l->n && l->rows[i] <= l->most; i++)
        l->each_us = fmin(l->each_us, l->hold[i] / l->rows[i]);
}

/* Between two rows of a table times are on a line in 1 / units: the rows are asked once. */
static bool points_between(struct job *j, uint32_t m, uint32_t type, uint32_t units, struct line *l)
{
    const struct profile *f = &j->p->model[m].profile[type];
    uint32_t u = 0;

    while (!f->curve && u + 1 < f->n_units && f->units[u + 1] <= units)
        u++;
    if (f->curve || f->n_units > LINE_ROWS || u + 1 == f->n_units || units <= f->units[u])
        return points_make(j, m, type, units, l);
    double from = f->units[u], to = f->units[u + 1];
    double t = (units - from) * to / (units * (to - from));
    for (uint32_t x = u; x <= u + 1; x++)
        if (j->row[x].n == 0 && (!points_make(j, m, type, f->units[x], &j->row[x])))
            return points_make(j, m, type, units, l);
    const struct line *a = &j->row[u], *b = &j->row[u + 1];
    *l = *a;
    l->n = MIN(a->n, b->n);
    for (uint32_t i = 0; i < l->n; i++) {
        l->hold[i] += t * (b->hold[i] - a->hold[i]);
        l->run[i] += t * (b->run[i] - a->run[i]);
    }
    return true;
}

/* Where points are too many, a table has holes, or several streams do better than one there is only
 * what the cell says. */
static void line_make(struct job *j, uint32_t m, uint32_t type, uint32_t at, struct line *l)
{
    const struct kind *k = &j->kind[type];
    const struct profile *f = &j->p->model[m].profile[type];
    uint32_t most = j->p->model[m].max_batch;
    uint32_t n = f->curve ? most : f->n_batch;
    double rps = cell_of(j, m, type, at)->rps;

    if (n >= LINE_POINTS || f->n_streams ||
        !points_between(j, m, type, k->size[at] * k->t->granule_units, l)) {
        l->n = 0;
        l->each_us = rps > 0 ? 1e6 / rps : INFINITY;
        return;
    }
    if (l->n == n && !f->curve)
        line_extend(l, most);
    line_limit(l, run_limit_us(j, j->want[m].slo_us), most);
}

/* ---- a share */

static double dear_us(const struct line *l, double rows, double slo_us, double rate)
{
    double hold_us = on_line(l, l->hold, rows), run_us = on_line(l, l->run, rows);

    if (run_us >= slo_us)
        return INFINITY;
    return fmax(hold_us / rows, hold_us / (slo_us - run_us) / rate);
}

/* What a request takes of the gpu-let's time at least, in a share of at most `rate` a us.  Of few
 * rows each is dear, with many the cycle is too long: the least lies where one becomes the other,
 * or at a point before. */
static double share_us(const struct line *l, double slo_us, double rate, double alone)
{
    double best = fmax(l->each_us, alone / rate);

    if (l->n == 0 || rate * l->each_us >= 1)
        return l->each_us;
    double turn = ceil(rows_where(l, 1, rate, rate * slo_us) - 1e-9);
    for (double b = fmax(turn - 1, 1); b <= fmin(turn, l->most); b++)
        best = fmin(best, dear_us(l, b, slo_us, rate));
    best = fmin(best, dear_us(l, l->most, slo_us, rate));
    for (uint32_t i = 0; i < l->n && l->rows[i] <= fmin(turn, l->most); i++)
        best = fmin(best, dear_us(l, l->rows[i], slo_us, rate));
    return fmax(best, l->each_us);
}

/* ---- pressure */

/* The least of hold x push / rows between two points: both are straight, so that it is
 * a + b rows + c / rows. */
static double press_between(const double *rows, const double *hold, const double *push)
{
    double h1 = (hold[1] - hold[0]) / (rows[1] - rows[0]), h0 = hold[0] - h1 * rows[0];
    double p1 = (push[1] - push[0]) / (rows[1] - rows[0]), p0 = push[0] - p1 * rows[0];
    double least = fmin(hold[0] * push[0] / rows[0], hold[1] * push[1] / rows[1]);
    double b = h1 * p1, c = h0 * p0;

    if (b > 0 && c > b * rows[0] * rows[0] && c < b * rows[1] * rows[1])
        least = fmin(least, h0 * p1 + h1 * p0 + 2 * sqrt(b * c));
    return least;
}

/* Memory pressure x us of a request, at least: of a table whose utilisations are all there. */
static double press_of(const struct profile *f, double max_batch)
{
    struct line l = {.n = f->n_batch};
    double least = INFINITY;

    if (f->curve || !f->run_us || !f->l2 || !f->dram || f->n_streams || f->n_batch >= LINE_POINTS)
        return 0;
    for (uint32_t u = f->n_units; u-- > 0;) {
        l.n = f->n_batch;
        for (uint32_t b = 0; b < l.n; b++) { /* times: the largest of fewer rows and more units */
            uint32_t x = u * f->n_batch + b;
            if (!f->run_us[x] || f->l2[x] < 0 || f->dram[x] < 0)
                return 0;
            l.rows[b] = f->batch[b];
            l.hold[b] = fmax(fmax(l.hold[b], b ? l.hold[b - 1] : 0), (double)f->run_us[x]);
            l.run[b] = (f->l2[x] + f->dram[x]) / 2;
        }
        double last = l.run[l.n - 1];
        line_extend(&l, max_batch);
        l.run[l.n - 1] = last; /* utilisations end with the table */
        least = fmin(least, l.hold[0] * l.run[0] / l.rows[0]);
        for (uint32_t b = 0; b + 1 < l.n; b++)
            least = fmin(least, press_between(&l.rows[b], &l.hold[b], &l.run[b]));
    }
    return least;
}

/* t of point 4; 0: neighbours are not counted. */
double bound_harm(const struct problem *p, uint32_t type, const struct kind *k)
{
    const struct interference *f = &p->type[type].predict.interference;

    if (f->kind != INTERFERE_PRESSURE || p->rules.rule != RULE_PART || k->n_sizes == 0 ||
        k->size[0] == k->t->n_granules || p->type[type].predict.link_bps > 0)
        return 0;
    for (uint32_t m = 0; m < p->n_models; m++)
        if (p->model[m].profile[type].host_us)
            return 0;
    return f->term[TERM_MEMORY] / sqrt(1 - (double)k->size[0] / k->t->n_granules);
}

/* ---- a model */

/* The least price of a request of a share of at most `rate` a us, per us. */
static double rate_least(struct job *j, uint32_t m, double rate)
{
    double best = INFINITY, slo_us = j->want[m].slo_us;

    for (uint32_t t = 0; t < j->p->n_types; t++) {
        const struct kind *k = &j->kind[t];
        double price = k->price * k->t->n_granules, paid = k->harm / (1 + k->harm);
        for (uint32_t at = 0; k->has_devices && at < k->n_sizes; at++) {
            const struct line *l = &j->line[k->cell_at + at];
            double part = (double)k->size[at] / k->t->n_granules;
            double harm = paid * sqrt(part * l->each_us * j->press[t]) * (1 - part);
            if (l->each_us == INFINITY)
                continue;
            if (at + 1 == k->n_sizes)
                best = fmin(best, price * share_us(l, slo_us, rate, 1));
            if (part < 1 && price * (part * l->each_us + harm) < best)
                best = fmin(best, price * (part * share_us(l, slo_us, rate, 1 - k->harm) + harm));
        }
    }
    return best;
}

/* A model's bound by its rate, in price. */
static double model_least(struct job *j, uint32_t m, double rate, double most)
{
    double n = floor(rate / most), x = fmax(rate - n * most, 0), to = rate / (n + 1);

    if (n == 0)
        return rate * rate_least(j, m, rate);
    double least = rate_least(j, m, INFINITY), best = INFINITY, y = fmax(x, 0.01 * to);
    for (int i = 0; i < STEPS; i++) {
        double next = y * pow(to / y, 1.0 / (STEPS - i));
        best = fmin(best, (i ? y : x) * (rate_least(j, m, next) - least));
        y = next;
    }
    return rate * least + best;
}

/* The same where several streams do better than one: only that rows of a run come within the SLO.
 */
static double streams_least(struct job *j, uint32_t m)
{
    double come = ceil(j->p->model[m].rate_rps * j->want[m].slo_us / 1e6 + 1e-6), best = INFINITY;
    struct estimate e;

    for (uint32_t t = 0; t < j->p->n_types; t++)
        for (uint32_t at = 0; j->kind[t].has_devices && at < j->kind[t].n_sizes; at++) {
            const struct kind *k = &j->kind[t];
            const struct cell *c = cell_of(j, m, t, at);
            double rps = come >= c->batch ? c->rps : 0;
            for (uint32_t s = 1; come < c->batch && s <= c->streams; s++)
                if (ask(j, m, t, k->size[at] * k->t->granule_units, s, (uint32_t)come, &nobody, &e))
                    rps = fmax(rps, 1e6 * come * s / e.hold_us);
            best = rps > 0 ? fmin(best, k->price * k->size[at] / rps) : best;
        }
    return best < INFINITY ? best : 0;
}

/* Sets want.least, want.fluid. */
void bound_make(struct job *j, uint32_t m)
{
    struct want *w = &j->want[m];
    double most = 0, rate = j->p->model[m].rate_rps / 1e6;
    bool streams = false;

    w->least = w->fluid =
        w->cost * (j->p->rules.rule == RULE_QUEUE ? 1 - violations(&j->p->rules) : 1);
    if (j->p->rules.rule != RULE_PART || w->guessed)
        return;
    for (uint32_t t = 0; t < j->p->n_types; t++) {
        const struct kind *k = &j->kind[t];
        streams |= j->p->model[m].profile[t].n_streams > 0;
        for (uint32_t x = 0; x < LINE_ROWS; x++)
            j->row[x].n = 0;
        j->press[t] =
            k->harm > 0 ? press_of(&j->p->model[m].profile[t], j->p->model[m].max_batch) : 0;
        for (uint32_t at = 0; k->has_devices && at < k->n_sizes; at++) {
            struct line *l = &j->line[k->cell_at + at];
            line_make(j, m, t, at, l);
            j->press[t] = fmin(j->press[t], l->each_us * k->size[at] / k->t->n_granules);
            most = fmax(most, 1 / l->each_us);
        }
    }
    if (!(most > 0))
        return;
    w->fluid = rate_least(j, m, INFINITY) * 1e-6;
    w->least = model_least(j, m, rate, most) / rate * 1e-6;
    if (streams)
        w->least = fmax(w->least, streams_least(j, m));
}

double plan_bound(const struct problem *p, struct arena *a)
{
    struct job j;
    double bound = 0;

    if (job_init(&j, p, NULL, a) < 0)
        return 0;
    for (uint32_t m = 0; m < p->n_models; m++) {
        want_make(&j, m);
        bound += j.want[m].least * p->model[m].rate_rps;
    }
    return bound;
}
