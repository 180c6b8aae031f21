/* RULE_QUEUE: how full a gpu-let may be, fast enough to be asked at every step of a search.
 *
 * A queue alone in its gpu-let is told by few numbers once a full run is the unit of time: the cap,
 * the part of a full run that no row adds to, the SLO, how arrivals come.  For these the largest
 * load at which few enough are late is looked for once, with the Markov chain (queue.h), and kept
 * in a table; each number is rounded to the worse side, so what the table allows holds.
 *
 * Companions in time are taken as a pause of so long after every run, and as one more of them that
 * may just have begun.  That is no bound, which is why every gpu-let of a plan is predicted in full
 * at last (make_out.c), and planned again with less load where that fails. */
#include "make_priv.h"
#include <math.h>

#define UNITS_MOST 8      /* of a run: larger batches are counted in units of several rows */
#define FIXED_STEPS 16.0  /* to 1 */
#define SLO_STEP 1.125    /* from one SLO to the next, in full runs */
#define SLO_MOST 12.0     /* in full runs: more helps no more */
#define LOAD_STEP 0.05    /* from one place in the table to the next, about */
#define LOAD_LEAST 0.02   /* as exact as loads are */
#define FULL_US 1000000.0 /* the unit of time, for whole microseconds */
#define TOGETHER 0.85     /* full runs of all may take so much of the time */
#define SPREAD 2.0        /* of the rows of a companion's run, in square roots */
#define PRESENT 0.02      /* who comes in fewer cycles is not met by one in a hundred */

static uint32_t slot_of(uint64_t key)
{
    return (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) % LOAD_SLOTS;
}

/* Does the rounded queue hold at a load of x full runs' worth? */
static bool load_holds(struct job *j, struct queue_share *q, double x)
{
    struct queue_result r;
    struct arena a;

    arena_init_fixed(&a, j->queue_scratch, QUEUE_SCRATCH);
    q->rate_rps = x * q->cap * 1e6 / FULL_US;
    j->steps += QUEUE_STEPS;
    return queue_predict(q, 1, &a, &r, NULL) == 0 && r.late <= violations(&j->p->rules);
}

/* The largest load that holds, of [lo, hi): in small steps from below, as others of the table are
 * near, then by halves. */
static double load_search(struct job *j, struct queue_share q, double fixed, double lo, double hi)
{
    double run_us[UNITS_MOST + 1];

    for (uint32_t b = 1; b <= q.cap; b++)
        run_us[b] = FULL_US * (fixed + (1 - fixed) * b / q.cap);
    q.run_us = run_us;
    for (double step = lo > 0 ? LOAD_STEP : 1; hi - lo > LOAD_LEAST; step *= 2) {
        double mid = fmin(lo + step, (lo + hi) / 2);
        *(load_holds(j, &q, mid) ? &lo : &hi) = mid;
    }
    return lo;
}

/* A burst of c requests at once, Poisson, has the spread of gaps with a coefficient of sqrt(c). */
static uint32_t clump_of(const struct plan_model *m)
{
    bool cv = m->arrivals == ARRIVALS_CV || m->arrivals == ARRIVALS_TRACE;

    return cv && m->cv > 1 ? (uint32_t)fmin(ceil(m->cv * m->cv - 1e-9), QUEUE_BATCH_MAX) : 1;
}

/* In the table: by whole numbers, all in units. */
struct load_key {
    uint32_t cap, turns, fixed, slo;
    bool paced;
};

static uint64_t key_of(const struct load_key *k)
{
    return 1 + k->cap + (k->fixed << 8) + ((uint64_t)k->turns << 16) + ((uint64_t)k->slo << 24) +
           ((uint64_t)k->paced << 32);
}

/* What is there already of `by` steps more SLO and less fixed part, or of the other way round. */
static double neighbour(const struct job *j, const struct load_key *k, int by, double none)
{
    double best = none;

    for (int i = 1; i <= 2; i++) {
        struct load_key n = *k;
        n.slo += i == 1 ? (uint32_t)by : 0;
        n.fixed -= i == 2 ? (uint32_t)by : 0;
        const struct load_slot *s = &j->load[slot_of(key_of(&n))];
        if (s->key == key_of(&n))
            best = by > 0 ? fmin(best, s->most + LOAD_LEAST) : fmax(best, s->most);
    }
    return best;
}

static double load_look(struct job *j, const struct load_key *k)
{
    uint64_t key = key_of(k);
    struct load_slot *s = &j->load[slot_of(key)];

    j->steps++;
    if (s->key != key) {
        struct queue_share q = {.arrivals = k->paced ? ARRIVALS_PACED : ARRIVALS_POISSON,
                                .slo_us = (usec_t)(FULL_US * pow(SLO_STEP, k->slo)),
                                .cap = k->cap,
                                .turns = k->turns};
        double lo = neighbour(j, k, -1, 0), hi = fmax(neighbour(j, k, 1, 1), lo);
        s->most = load_search(j, q, k->fixed / FIXED_STEPS, lo, hi);
        s->key = key;
    }
    return s->most;
}

/* Between two SLOs of the table on a line: the load bends down as the SLO grows. */
static double load_most(struct job *j, const struct plan_model *m, const struct queue_form *f)
{
    uint32_t clump = clump_of(m), unit = MAX((f->cap + UNITS_MOST - 1) / UNITS_MOST, clump);
    double at = log(fmin(f->slo, SLO_MOST)) / log(SLO_STEP) + 1e-9;

    if (!(f->slo >= 1) || !(f->fixed <= 1))
        return 0;
    struct load_key k = {.cap = MAX(f->cap / unit, 1u),
                         .fixed = (uint32_t)ceil(f->fixed * FIXED_STEPS - 1e-6),
                         .slo = (uint32_t)at,
                         .paced = m->arrivals == ARRIVALS_PACED};
    k.turns = k.paced ? 1 : MIN(MAX(f->turns * unit / clump, 1u), QUEUE_TURNS_MAX);
    double from = load_look(j, &k), x = (pow(SLO_STEP, at - k.slo) - 1) / (SLO_STEP - 1);
    k.slo++;
    return from + x * (load_look(j, &k) - from);
}

/* ---- a share */

static bool hold_at(struct job *j, const struct let *l, const struct plan_share *s, uint32_t rows,
                    const struct pressure *pr, struct estimate *ret)
{
    return ask(j, s->model, l->type, let_units(j, l), s->streams, rows, pr, ret);
}

/* Its form, with a pause after each run.  False: it does not run there. */
static bool form_of(struct job *j, const struct let *l, const struct plan_share *s, double pause_us,
                    double met_us, const struct pressure *pr, struct queue_form *ret)
{
    const struct plan_model *m = &j->p->model[s->model];
    double slo_us = j->want[s->model].slo_us;
    struct estimate full, part;

    if (!hold_at(j, l, s, s->batch, pr, &full))
        return false;
    ret->full_us = full.hold_us + pause_us;
    ret->cap = s->batch * MAX(s->streams, 1u);
    ret->fixed = 0;
    ret->turns = queue_turns(m->rate_rps * j->scale, s->rate_rps);
    for (uint32_t i = 0; i < 4 && s->batch > 1; i++) {
        uint32_t rows = MAX(s->batch * i / 4, 1u);
        double x = (double)rows / s->batch;
        if (!hold_at(j, l, s, rows, pr, &part))
            return false;
        ret->fixed = fmax(ret->fixed, ((part.hold_us + pause_us) / ret->full_us - x) / (1 - x));
    }
    /* The last pause comes after the answer; a companion may have begun just before. */
    double left_us = slo_us + pause_us - (met_us - pause_us) - (full.run_us - full.hold_us);
    ret->slo = m->slo_us && slo_us < INFINITY ? left_us / ret->full_us : SLO_MOST;
    return true;
}

double queue_cell_part(struct job *j, uint32_t m, uint32_t type, uint32_t at)
{
    static const struct pressure nobody;
    const struct cell *c = cell_of(j, m, type, at);
    struct let l = {.type = type, .at = at};
    struct plan_share s = {
        .model = m, .batch = c->batch, .streams = c->streams, .rate_rps = j->p->model[m].rate_rps};
    struct queue_form f;

    return form_of(j, &l, &s, 0, 0, &nobody, &f)
               ? load_most(j, &j->p->model[m], &f) * (1 - j->want[m].care[0])
               : 0;
}

/* ---- a gpu-let */

/* Rows of everybody's runs in a cycle: usual, the pauses that they make for the others (those that
 * come in most cycles count, the others sometimes), and the longest. */
static bool cycle_find(struct job *j, struct let *l, const struct pressure *pr, double *us)
{
    double held_us[LET_QUEUE_MAX];

    *us = 0;
    for (int turn = 0; turn < 8; turn++) {
        double sum = 0;
        for (uint32_t i = 0; i < l->n_shares; i++) {
            struct plan_share *s = &l->share[i];
            double rows = s->rate_rps * *us / (1e6 * MAX(s->streams, 1u));
            struct estimate e;
            s->usual = (uint32_t)fmin(fmax(round(rows), 1), s->batch);
            if (!hold_at(j, l, s, s->usual, pr, &e))
                return false;
            held_us[i] = e.hold_us;
            sum += held_us[i];
        }
        if (sum <= *us * (1 + 1e-2))
            return true;
        *us = sum;
    }
    return false; /* it grows without end */
}

bool queue_let_holds(struct job *j, struct let *l, const struct pressure *pr)
{
    double us, come[LET_QUEUE_MAX], mean_us[LET_QUEUE_MAX], met_us[LET_QUEUE_MAX];
    double all_mean_us = 0, all_met_us = 0, full = 0;

    if (l->n_shares > LET_QUEUE_MAX || !cycle_find(j, l, pr, &us))
        return false;
    for (uint32_t i = 0; i < l->n_shares; i++) {
        const struct plan_share *s = &l->share[i];
        double rows = fmin(ceil(s->usual + SPREAD * sqrt(s->usual)), s->batch);
        struct estimate usual, many, most;
        if (!hold_at(j, l, s, s->usual, pr, &usual) ||
            !hold_at(j, l, s, (uint32_t)rows, pr, &many) || !hold_at(j, l, s, s->batch, pr, &most))
            return false;
        full += s->rate_rps * most.hold_us / (1e6 * s->batch * MAX(s->streams, 1u));
        come[i] = 1 - exp(-s->rate_rps * us / 1e6);
        mean_us[i] = come[i] * usual.hold_us;
        met_us[i] = come[i] > PRESENT ? many.hold_us : 0;
        all_mean_us += mean_us[i];
        all_met_us += met_us[i];
    }
    if (l->n_shares > 1 && full > TOGETHER)
        return false;
    for (uint32_t i = 0; i < l->n_shares; i++) {
        struct plan_share *s = &l->share[i];
        double pause_us = all_mean_us - mean_us[i],
               others_us = fmax(all_met_us - met_us[i], pause_us);
        struct queue_form f;
        if (!form_of(j, l, s, pause_us, others_us, pr, &f))
            return false;
        double load = s->rate_rps * f.full_us / (1e6 * f.cap);
        if (!(load <= load_most(j, &j->p->model[s->model], &f) *
                          (1 - j->want[s->model].care[l->n_shares > 1])))
            return false;
        s->latency_us = 0; /* predicted when the plan is there */
    }
    return true;
}
