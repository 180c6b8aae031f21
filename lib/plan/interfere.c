/* What a load asks of the device that is not its own (its pressure), and how much longer a run
 * takes under the pressure of others.
 *
 *   INTERFERE_IGNITER   iGniter (TPDS'22) section 3: kernels wait in turn for the scheduler, L2
 *                       that others use slows what is active, power above the cap lowers the clock
 *   INTERFERE_GPULET    gpu-lets (ATC'22) section 4.2: linear in both sides' utilisations
 *   INTERFERE_PRESSURE  ours, below
 *
 * Duty counts: a neighbour that runs for a part of the time is that part of a neighbour.  The
 * published models know presence only; with duty 1 everywhere they are as published.  iGniter's
 * number of processes p becomes 1 + the sum of duties, and its extra gap per kernel, which is 0 at
 * p = 1 and on a line from p = 2, goes straight between these.  gpu-lets' factor f becomes
 * 1 + duty (f - 1), and the worst neighbour counts.
 *
 * Ours: with memory = (L2 + DRAM) / 2 and kernels (launches a ms) summed over the others,
 *
 *   compute = alone x clock x (1 + t0 sqrt(memory) + t1 k^1.5 sqrt(kernels)),  k = my launches/ms
 *   copy in = alone x (1 + t2 DRAM)
 *
 * clock is iGniter's: power above the cap lowers it, by the hardware's own terms.  The square
 * roots are what 750 measured pairs ask for: the first bit of pressure costs the most (more of it
 * finds me waiting already), and several small neighbours are one large one.  A model of short
 * kernels loses more than one of long ones, as every launch may have to wait; sqrt(k) of the
 * waiting stops at the shortest kernels that were measured.  Terms are fitted (fit.c) and never
 * negative, so that more pressure is never faster. */
#include "interfere.h"

#include <math.h>

#define PRESSURE_MOST 1e6 /* of one load and kind: sums of thousands stay within 64 bits */
#define CLOCK_LEAST 0.1   /* of full clock: the fitted line must not reach 0 */

/* fmax() and fmin() are calls, here the hottest of a planner: nothing is NaN. */
static inline double larger(double a, double b)
{
    return a > b ? a : b;
}

static inline double smaller(double a, double b)
{
    return a < b ? a : b;
}

static int64_t fixed(double x)
{
    return (int64_t)round(smaller(larger(x, -PRESSURE_MOST), PRESSURE_MOST) * PRESSURE_ONE);
}

static double amount(const struct pressure *p, enum pressure_kind k)
{
    return (double)p->sum[k] / PRESSURE_ONE;
}

static double mine(const struct solo *s, enum pressure_kind k)
{
    return (double)s->push[k] / PRESSURE_ONE;
}

/* Full clock over the clock that the power cap leaves. */
static double clock_stretch(const struct interference *f, double watts)
{
    double over = f->idle_watts + watts - f->max_watts;

    if (over <= 0 || f->max_watts <= 0 || f->max_mhz <= 0)
        return 1;
    return 1 / larger(1 + f->mhz_per_watt * over / f->max_mhz, CLOCK_LEAST);
}

static bool knows_clock(const struct interference *f)
{
    return f->kind == INTERFERE_IGNITER || f->kind == INTERFERE_PRESSURE;
}

/* ---- alone */

/* iGniter's curve gives utilisation and power as lines over the rate of an always busy model.  It
 * knows one stream: several take turns. */
static bool curve_solo(const struct predict_device *d, const struct load *l, uint32_t streams,
                       struct solo *ret, struct cell *c)
{
    const struct igniter_curve *v = l->profile->curve;
    double b = l->batch, share_pct = 100.0 * l->units / MAX(d->units, 1u);
    double ms = (v->k[0] * b * b + v->k[1] * b + v->k[2]) / (share_pct + v->k[3]) + v->k[4];

    if (!(ms > 0))
        return false;
    double rps = 1000.0 * b / ms;
    *c = (struct cell){.run_us = 1000.0 * ms * streams,
                       .upper_us = 1000.0 * ms * streams,
                       .l2 = larger(v->l2_per_rps * rps + v->l2_base, 0) / 100.0,
                       .dram = -1,
                       .watts = larger(v->watts_per_rps * rps + v->watts_base, 0)};
    ret->sched_us = 1000.0 * v->sched_ms;
    ret->cache = v->cache_per_pct;
    ret->kernels = v->kernels;
    return true;
}

/* Who was not measured is taken as what the fit has seen of others, in proportion to its units. */
static double part_or(double part, double other, double unknown)
{
    return part >= 0 ? part : other >= 0 ? other : unknown;
}

static void push_solo(const struct predict_device *d, struct solo *s, const struct cell *c,
                      const struct load *l, uint32_t streams)
{
    const struct interference *f = &d->interference;
    double busy_ms = (s->sched_us + s->active_us) / 1000, unknown = 0;

    if (f->kind == INTERFERE_PRESSURE)
        unknown = f->term[TERM_UNKNOWN] * smaller((double)l->units / MAX(d->units, 1u), 1);

    s->push[PRESSURE_RUNS] = fixed(streams);
    s->push[PRESSURE_L2] = fixed(part_or(c->l2, c->dram, unknown));
    s->push[PRESSURE_DRAM] = fixed(part_or(c->dram, c->l2, unknown));
    s->push[PRESSURE_KERNELS] = fixed(streams * s->kernels / busy_ms);
    s->push[PRESSURE_WATTS] = fixed(larger(c->watts, 0));
}

/* gpu-lets section 4.2, 1 me and 2 the other:
 * f = c1 L2_1 p_1 + c2 L2_2 p_2 + c3 M_1 p_1 + c4 M_2 p_2 + c5. */
static void gpulet_solo(const struct predict_device *d, const struct cell *c, uint32_t units,
                        struct solo *s)
{
    const double *w = d->interference.c;
    double part = (double)units / MAX(d->units, 1u), l2 = larger(c->l2, 0),
           dram = larger(c->dram, 0);

    s->disturbed = (w[0] * l2 + w[2] * dram) * part + w[4];
    s->disturb = (w[1] * l2 + w[3] * dram) * part;
}

bool load_solo(const struct predict_device *d, const struct load *l, struct solo *ret)
{
    const struct profile *p = l->profile;
    const struct igniter_curve *v = p->curve;
    uint32_t streams = MAX(l->streams, 1u);
    struct cell c;

    *ret = (struct solo){.kernels = p->kernels};
    if (!l->batch || !l->units)
        return false;
    if (v ? !curve_solo(d, l, streams, ret, &c) : !table_cell(p, l->batch, l->units, streams, &c))
        return false;
    if (d->link_bps > 0) {
        ret->in_us = 1e6 * l->batch * (v ? v->in_bytes : p->in_bytes) / d->link_bps;
        ret->out_us = 1e6 * l->batch * (v ? v->out_bytes : p->out_bytes) / d->link_bps;
    }
    ret->host_us = c.host_us;
    ret->active_us = c.run_us;
    ret->tail_us = larger(c.upper_us - c.run_us, 0);
    double own =
        knows_clock(&d->interference) ? clock_stretch(&d->interference, larger(c.watts, 0)) : 1;
    ret->clock = v ? 1 : own; /* a table was measured as it is, a curve is fitted at full clock */
    ret->alone_us = (ret->sched_us + ret->active_us) * (own / ret->clock);
    push_solo(d, ret, &c, l, streams);
    gpulet_solo(d, &c, l->units, ret);
    return true;
}

bool load_lane(const struct predict_device *d, const struct load *l, uint32_t k, struct solo *ret)
{
    struct load part = *l;

    part.units = MAX(l->units / k, 1);
    if (load_solo(d, &part, ret))
        return true;
    if (!load_solo(d, l, ret))
        return false;
    ret->sched_us *= k;
    ret->active_us *= k;
    ret->alone_us *= k;
    ret->tail_us *= k;
    for (int i = 0; i < PRESSURE_KINDS; i++)
        ret->push[i] /= i == PRESSURE_RUNS ? 1 : (int64_t)k;
    ret->disturb /= k;
    return true;
}

/* ---- the others */

/* Where there is no room for one more, the last line is raised above both. */
static void line_add(struct pressure *p, double disturb, double duty)
{
    if (p->n_lines == PRESSURE_LINES) {
        p->folded = true;
        p->line[PRESSURE_LINES - 1].disturb = larger(p->line[PRESSURE_LINES - 1].disturb, disturb);
        p->line[PRESSURE_LINES - 1].duty = larger(p->line[PRESSURE_LINES - 1].duty, duty);
        return;
    }
    p->line[p->n_lines].disturb = disturb;
    p->line[p->n_lines++].duty = duty;
}

static bool line_sub(struct pressure *p, double disturb, double duty)
{
    for (uint32_t i = 0; i < p->n_lines && !p->folded; i++)
        if (p->line[i].disturb == disturb && p->line[i].duty == duty) {
            p->line[i] = p->line[--p->n_lines];
            return true;
        }
    return false;
}

static double duty_within(double duty)
{
    return smaller(larger(duty, 0), 1);
}

static void sum_add(struct pressure *p, const struct solo *s, double duty, int64_t sign)
{
    for (uint32_t k = 0; k < PRESSURE_KINDS; k++)
        p->sum[k] += sign * (int64_t)((double)s->push[k] * duty);
}

void pressure_add(const struct predict_device *d, struct pressure *p, const struct solo *s,
                  double duty)
{
    duty = duty_within(duty);
    if (d->interference.kind == INTERFERE_GPULET)
        line_add(p, s->disturb, duty);
    else
        sum_add(p, s, duty, 1);
}

bool pressure_sub(const struct predict_device *d, struct pressure *p, const struct solo *s,
                  double duty)
{
    duty = duty_within(duty);
    if (d->interference.kind == INTERFERE_GPULET)
        return line_sub(p, s->disturb, duty);
    sum_add(p, s, duty, -1);
    return true;
}

/* ---- together */

/* What compute takes under p, in us. */
typedef double under_fn(const struct interference *f, const struct solo *me,
                        const struct pressure *p);

static double none_under(const struct interference *f, const struct solo *me,
                         const struct pressure *p)
{
    (void)f, (void)p;
    return me->alone_us;
}

static double igniter_under(const struct interference *f, const struct solo *me,
                            const struct pressure *p)
{
    double others = amount(p, PRESSURE_RUNS), l2_pct = 100 * amount(p, PRESSURE_L2);
    double watts = amount(p, PRESSURE_WATTS) + mine(me, PRESSURE_WATTS);
    double n = 1 + larger(others, 1); /* processes: the line starts at 2 */
    double gap_ms = larger(f->sched_ms * n + f->sched_base_ms, 0) * smaller(others, 1);

    return (me->sched_us + 1000 * gap_ms * me->kernels + me->active_us * (1 + me->cache * l2_pct)) *
           (clock_stretch(f, watts) / me->clock);
}

static double gpulet_under(const struct interference *f, const struct solo *me,
                           const struct pressure *p)
{
    double worst = 0;

    (void)f;
    for (uint32_t i = 0; i < p->n_lines; i++)
        worst = larger(worst, p->line[i].duty * (me->disturbed + p->line[i].disturb - 1));
    return me->alone_us * (1 + worst);
}

void pressure_slowing(const struct interference *f, const struct solo *me, const struct pressure *p,
                      struct slowing *ret)
{
    double watts = amount(p, PRESSURE_WATTS) + mine(me, PRESSURE_WATTS);
    double us = (me->sched_us + me->active_us) * (clock_stretch(f, watts) / me->clock);
    double k = 1000 * me->kernels / (me->sched_us + me->active_us);
    /* Of all the time somebody runs for a part only: that part of what its full pressure does. */
    double busy = smaller(larger(amount(p, PRESSURE_RUNS), 0), 1);
    double l2 = amount(p, PRESSURE_L2), dram = amount(p, PRESSURE_DRAM);
    double kernels = amount(p, PRESSURE_KERNELS), seen = f->term[TERM_SEEN];

    ret->compute_us = us;
    ret->each_us[TERM_MEMORY] = us * sqrt(busy * larger(l2 + dram, 0) / 2);
    ret->each_us[TERM_LAUNCH] =
        us * k * sqrt((seen > 0 ? smaller(k, seen) : k) * busy * larger(kernels, 0));
    ret->each_us[TERM_COPY] = me->in_us * larger(dram, 0);
}

static double pressure_under(const struct interference *f, const struct solo *me,
                             const struct pressure *p)
{
    struct slowing s;

    pressure_slowing(f, me, p, &s);
    return s.compute_us + f->term[TERM_MEMORY] * s.each_us[TERM_MEMORY] +
           f->term[TERM_LAUNCH] * s.each_us[TERM_LAUNCH];
}

static double copy_in_us(const struct interference *f, const struct solo *me,
                         const struct pressure *p)
{
    if (f->kind != INTERFERE_PRESSURE)
        return me->in_us;
    return me->in_us * (1 + f->term[TERM_COPY] * larger(amount(p, PRESSURE_DRAM), 0));
}

static under_fn *const under[] = {
    [INTERFERE_NONE] = none_under,
    [INTERFERE_IGNITER] = igniter_under,
    [INTERFERE_GPULET] = gpulet_under,
    [INTERFERE_PRESSURE] = pressure_under,
};

void pressure_of(const struct predict_device *d, const struct solo *me, const struct pressure *p,
                 struct estimate *ret)
{
    const struct interference *f = &d->interference;
    double us = larger(under[f->kind](f, me, p), me->alone_us);
    double in_us = copy_in_us(f, me, p);

    ret->slowdown = us / me->alone_us;
    ret->hold_us = us + me->out_us + me->host_us;
    ret->run_us = ret->hold_us + in_us;
    ret->upper_us = ret->run_us + me->tail_us * ret->slowdown;
}
