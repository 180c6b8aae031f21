/* What a plan really does: every figure recomputed from the problem, share by share.
 *
 * Beside its neighbours: a neighbour presses only while it runs, and how long it runs depends on
 * its own neighbours.  That circle is cut from above: first everybody is taken to run all the
 * time, which gives each share at most so much duty; with those duties the runs are predicted
 * again.  As pressure never makes a run shorter, the result is never below the fixed point.
 * Where iGniter's model was chosen presence counts, as its authors have it.
 *
 * The rules (plan.h, enum plan_rule):
 *   RULE_CYCLE  latency = one run of everything in the gpu-let, then one's own, all full.
 *   RULE_PART   run(batch) <= slo_part x SLO.  Alone in its gpu-let: latency = one hold, one run.
 *               With others: D is the least time in which a hold of each fits that takes all rows
 *               which came in D (iteration from below); latency = D + run (gpu-lets, 1.2: a residue
 *               waits for one duty cycle and then for its own run).
 *   RULE_QUEUE  queue.h. */
#include "plan_priv.h"
#include <math.h>

#define RATE_STEPS 24 /* halvings of the search for most_rps */

struct load share_load(const struct problem *p, uint32_t type, const struct plan_gpulet *g,
                       const struct plan_share *s, uint32_t rows)
{
    return (struct load){.profile = &p->model[s->model].profile[type],
                         .batch = rows,
                         .units = g->units,
                         .streams = s->streams,
                         .duty = 1.0};
}

uint32_t share_usual(const struct plan_share *s)
{
    return s->usual && s->usual < s->batch ? s->usual : s->batch;
}

/* Part of the time that a share holds its gpu-let; without a known rate under RULE_CYCLE, and of
 * best effort: always. */
static double share_duty(const struct problem *p, const struct plan_share *s, double hold_us)
{
    if (p->model[s->model].best_effort ||
        (p->rules.rule == RULE_CYCLE && !(p->model[s->model].rate_rps > 0)))
        return 1.0;
    return s->rate_rps * hold_us / (1e6 * share_usual(s) * MAX(s->streams, 1u));
}

static bool crowd_estimate(const struct crowd *c, uint32_t k, uint32_t i, uint32_t rows,
                           struct estimate *ret)
{
    struct load me = share_load(c->p, c->type, c->let[k], &c->let[k]->share[i], rows);
    uint32_t n = c->from[k + 1] - c->from[k];
    const struct load *others = c->alone ? NULL : &c->load[c->from[k + 1]];

    return predict(&c->p->type[c->type].predict, &me, others, c->alone ? 0 : c->n_loads - n, ret);
}

/* The loads twice over, so that those of everybody but gpu-let k are one run of the array. */
static void crowd_double(struct crowd *c)
{
    memcpy(&c->load[c->n_loads], c->load, c->n_loads * sizeof(*c->load));
}

static void crowd_settle(struct crowd *c)
{
    double duty[CROWD_MAX];
    uint32_t at = 0;

    crowd_double(c);
    if (counts_presence(&c->p->type[c->type]))
        return;
    for (uint32_t k = 0; k < c->n_lets; k++)
        for (uint32_t i = 0; i < c->let[k]->n_shares; i++, at++) {
            const struct plan_share *s = &c->let[k]->share[i];
            struct estimate e;
            bool runs = crowd_estimate(c, k, i, share_usual(s), &e);
            duty[at] = runs ? fmin(share_duty(c->p, s, e.hold_us), 1.0) : 1.0;
        }
    for (uint32_t j = 0; j < c->n_loads; j++)
        c->load[j].duty = duty[j];
    crowd_double(c);
}

int crowd_init(struct crowd *c, const struct problem *p, uint32_t type,
               const struct plan_gpulet *const *let, uint32_t n)
{
    c->p = p;
    c->type = type;
    c->let = let;
    c->n_lets = n;
    c->n_loads = 0;
    c->scratch = NULL;
    c->asked = 0;
    c->alone = p->type[type].predict.interference.kind == INTERFERE_NONE || n < 2;
    if (c->alone)
        return 0;
    for (uint32_t k = 0; k < n; k++) {
        c->from[k] = c->n_loads;
        for (uint32_t i = 0; i < let[k]->n_shares; i++) {
            const struct plan_share *s = &let[k]->share[i];
            if (c->n_loads == CROWD_MAX)
                return -E2BIG;
            c->load[c->n_loads++] = share_load(p, type, let[k], s, share_usual(s));
        }
    }
    c->from[n] = c->n_loads;
    crowd_settle(c);
    return 0;
}

/* ---- one gpu-let */

/* Rows that come in `us`, a stream's part of them; the tolerance is for rates that are quotients.
 */
static uint32_t rows_in(const struct plan_share *s, double rate_rps, double us)
{
    double rows = ceil(rate_rps * us / (1e6 * MAX(s->streams, 1u)) - 1e-6);

    return rows < 1 ? 1 : rows > s->batch ? s->batch + 1 : (uint32_t)rows;
}

/* The least D in which everybody's rows of D fit, with share `i` at `rate_rps`; infinite: none. */
static double cycle_us(const struct crowd *c, uint32_t k, uint32_t i, double rate_rps)
{
    const struct plan_gpulet *g = c->let[k];
    double before_us = -1, us = 0;

    while (us > before_us * (1 + 1e-9)) {
        before_us = us;
        us = 0;
        for (uint32_t j = 0; j < sure_shares(c->p, g); j++) {
            double rate = j == i ? rate_rps : g->share[j].rate_rps;
            uint32_t rows = rows_in(&g->share[j], rate, before_us);
            struct estimate e;
            if (rows > g->share[j].batch || !crowd_estimate(c, k, j, rows, &e))
                return INFINITY;
            us += e.hold_us;
        }
    }
    return us;
}

static double full_cycle_us(const struct crowd *c, uint32_t k)
{
    double us = 0;

    for (uint32_t j = 0; j < sure_shares(c->p, c->let[k]); j++) {
        struct estimate e;
        if (!crowd_estimate(c, k, j, c->let[k]->share[j].batch, &e))
            return INFINITY;
        us += e.run_us;
    }
    return us;
}

static double slo_of(const struct crowd *c, uint32_t k, uint32_t i)
{
    usec_t slo_us = c->p->model[c->let[k]->share[i].model].slo_us;

    return slo_us ? (double)slo_us : INFINITY;
}

static void truth_cycle(const struct crowd *c, uint32_t k, uint32_t i, struct share_truth *t)
{
    const struct plan_share *s = &c->let[k]->share[i];
    double all_us = full_cycle_us(c, k);

    t->latency_us = all_us + t->full.run_us;
    t->most_rps = 1e6 * s->batch * MAX(s->streams, 1u) / all_us;
    t->holds = within(t->latency_us, slo_of(c, k, i)) && within(s->rate_rps, t->most_rps);
}

static bool part_holds(const struct crowd *c, uint32_t k, uint32_t i, double rate_rps,
                       struct share_truth *t)
{
    const struct plan_share *s = &c->let[k]->share[i];
    double slo_us = slo_of(c, k, i);
    bool in_part = within(t->full.run_us, slo_part(&c->p->rules) * slo_us);

    if (sure_shares(c->p, c->let[k]) == 1) {
        t->latency_us = t->full.hold_us + t->full.run_us;
        return in_part && within(rate_rps * t->full.hold_us, 1e6 * s->batch * MAX(s->streams, 1u));
    }
    double us = cycle_us(c, k, i, rate_rps);
    struct estimate e = {.run_us = INFINITY};
    if (us < INFINITY)
        (void)crowd_estimate(c, k, i, rows_in(s, rate_rps, us), &e);
    t->latency_us = us + e.run_us;
    return in_part && us < INFINITY && within(t->latency_us, slo_us);
}

typedef bool holds_fn(const struct crowd *c, uint32_t k, uint32_t i, double rate_rps,
                      struct share_truth *t);

/* The largest rate at which share i holds while its companions keep theirs. */
static double most_rps(const struct crowd *c, uint32_t k, uint32_t i, const struct share_truth *t,
                       holds_fn *holds)
{
    const struct plan_share *s = &c->let[k]->share[i];
    double lo = 0, hi = 1e6 * s->batch * MAX(s->streams, 1u) / t->full.hold_us;
    struct share_truth scratch = *t;

    if (holds(c, k, i, hi, &scratch))
        return hi;
    if (!holds(c, k, i, 0, &scratch))
        return 0; /* its SLO fails, at any rate */
    for (int step = 0; step < RATE_STEPS; step++) {
        double mid = (lo + hi) / 2;
        if (holds(c, k, i, mid, &scratch))
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static void truth_part(const struct crowd *c, uint32_t k, uint32_t i, bool most,
                       struct share_truth *t)
{
    double rate_rps = c->let[k]->share[i].rate_rps;

    t->holds = part_holds(c, k, i, rate_rps, t);
    if (most)
        t->most_rps = most_rps(c, k, i, t, part_holds);
}

/* ---- RULE_QUEUE */

static bool queue_tables(const struct crowd *c, uint32_t k, struct arena *a, struct queue_share *q)
{
    for (uint32_t j = 0; j < sure_shares(c->p, c->let[k]); j++) {
        const struct plan_share *s = &c->let[k]->share[j];
        const struct plan_model *m = &c->p->model[s->model];
        double *run = ARENA_ARRAY(a, double, s->batch + 1);
        double *hold = ARENA_ARRAY(a, double, s->batch + 1);
        if (!run || !hold)
            return false;
        for (uint32_t b = 1; b <= s->batch; b++) {
            struct estimate e;
            if (!crowd_estimate(c, k, j, b, &e))
                return false;
            run[b] = e.run_us;
            hold[b] = e.hold_us;
        }
        q[j] = (struct queue_share){.rate_rps = s->rate_rps,
                                    .arrivals = m->arrivals,
                                    .cv = m->cv,
                                    .slo_us = m->slo_us,
                                    .cap = s->batch,
                                    .streams = s->streams,
                                    .turns = queue_turns(m->rate_rps, s->rate_rps),
                                    .run_us = run,
                                    .hold_us = hold};
    }
    return true;
}

/* How late everybody in gpu-let k is, with share i at rate_rps.  False: it cannot be predicted. */
static bool queue_let(const struct crowd *c, uint32_t k, uint32_t i, double rate_rps,
                      struct queue_result *ret)
{
    struct queue_share q[LET_QUEUE_MAX];
    uint32_t n = sure_shares(c->p, c->let[k]);
    struct arena a;

    if (!c->scratch)
        return false;
    arena_init_fixed(&a, c->scratch, QUEUE_SCRATCH);
    if (n > LET_QUEUE_MAX || !queue_tables(c, k, &a, q))
        return false;
    q[i].rate_rps = rate_rps;
    return queue_predict(q, n, &a, ret, NULL) == 0;
}

static bool queue_holds(const struct crowd *c, uint32_t k, uint32_t i, double rate_rps,
                        struct share_truth *t)
{
    struct queue_result r[LET_QUEUE_MAX];

    if (!queue_let(c, k, i, rate_rps, r))
        return false;
    t->late = r[i].late;
    t->latency_us = r[i].p99_us;
    t->duty = r[i].duty;
    bool all = true;
    for (uint32_t j = 0; j < sure_shares(c->p, c->let[k]); j++)
        all &= (j != i && !c->p->model[c->let[k]->share[j].model].slo_us) ||
               r[j].late <= violations(&c->p->rules) * (1 + 1e-9);
    return all && r[i].p99_us < INFINITY;
}

static void truth_queue(struct crowd *c, uint32_t k, uint32_t i, bool most, struct share_truth *t)
{
    const struct queue_result *r = c->answer;
    double slo_us = slo_of(c, k, i);

    t->late = 1;
    t->latency_us = INFINITY;
    if (c->asked != k + 1 && !queue_let(c, k, i, c->let[k]->share[i].rate_rps, c->answer))
        return;
    c->asked = k + 1;
    t->late = r[i].late;
    t->latency_us = r[i].p99_us;
    t->duty = r[i].duty;
    t->holds = (slo_us == INFINITY && r[i].p99_us < INFINITY) ||
               (slo_us < INFINITY && within(r[i].late, violations(&c->p->rules)));
    if (most)
        t->most_rps = most_rps(c, k, i, t, queue_holds);
}

/* It has what is left, and nothing to hold. */
static void truth_best_effort(const struct plan_share *s, struct share_truth *t)
{
    t->most_rps = 1e6 * s->batch / t->full.hold_us;
    t->holds = true;
}

void crowd_truth(struct crowd *c, uint32_t k, uint32_t i, bool most, struct share_truth *ret)
{
    const struct plan_share *s = &c->let[k]->share[i];
    struct share_truth t = {.latency_us = INFINITY};

    if (crowd_estimate(c, k, i, s->batch, &t.full) &&
        crowd_estimate(c, k, i, share_usual(s), &t.usual)) {
        t.duty = share_duty(c->p, s, t.usual.hold_us);
        if (c->p->model[s->model].best_effort)
            truth_best_effort(s, &t);
        else if (c->p->rules.rule == RULE_CYCLE)
            truth_cycle(c, k, i, &t);
        else if (c->p->rules.rule == RULE_PART)
            truth_part(c, k, i, most, &t);
        else
            truth_queue(c, k, i, most, &t);
    }
    *ret = t;
}

static int truth_of(const struct problem *p, const struct plan *plan, uint32_t k, uint32_t i,
                    bool most, struct share_truth *ret)
{
    const struct plan_gpulet *let[PLAN_MAX_GRANULES];
    struct crowd c;
    uint32_t n = 0, me = 0;

    if (k >= plan->n_gpulets || i >= plan->gpulet[k].n_shares)
        return -EINVAL;
    for (uint32_t j = 0; j < plan->n_gpulets; j++) {
        if (plan->gpulet[j].device != plan->gpulet[k].device)
            continue;
        if (n == PLAN_MAX_GRANULES)
            return -EINVAL;
        if (j == k)
            me = n;
        let[n++] = &plan->gpulet[j];
    }
    int r = crowd_init(&c, p, p->device[plan->gpulet[k].device].type, let, n);
    struct arena a;
    arena_init(&a);
    if (r == 0 && p->rules.rule == RULE_QUEUE && !(c.scratch = arena_alloc(&a, QUEUE_SCRATCH)))
        r = -ENOMEM;
    if (r == 0)
        crowd_truth(&c, me, i, most, ret);
    arena_done(&a);
    return r;
}

int plan_truth(const struct problem *p, const struct plan *plan, uint32_t k, uint32_t i,
               struct share_truth *ret)
{
    return truth_of(p, plan, k, i, true, ret);
}

int plan_truth_now(const struct problem *p, const struct plan *plan, uint32_t k, uint32_t i,
                   struct share_truth *ret)
{
    return truth_of(p, plan, k, i, false, ret);
}

uint32_t plan_devices_used(const struct problem *p, const struct plan *plan, struct arena *a)
{
    bool *used = ARENA_ARRAY(a, bool, p->n_devices);
    uint32_t n = 0;

    for (uint32_t k = 0; used && k < plan->n_gpulets; k++) {
        n += !used[plan->gpulet[k].device];
        used[plan->gpulet[k].device] = true;
    }
    return n;
}
