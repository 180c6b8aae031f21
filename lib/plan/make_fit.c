/* Do the shares of a gpu-let hold where it stands?  The rules of plan.h (truth.c tells them), with
 * the batches chosen on the way. */
#include "make_priv.h"
#include <math.h>

static const struct pressure nobody;

static bool ask_share(struct job *j, const struct let *l, const struct plan_share *s, uint32_t rows,
                      const struct pressure *pr, struct estimate *ret)
{
    return ask(j, s->model, l->type, let_units(j, l), s->streams, rows, pr, ret);
}

static double slo_us(const struct job *j, const struct plan_share *s)
{
    return j->want[s->model].slo_us;
}

/* The cell's batch, or the largest below it whose run keeps the limit beside these neighbours.  0:
 * none does; such a gpu-let does not hold, and whoever asked takes it back or tries it elsewhere.
 */
static bool batch_set(struct job *j, const struct let *l, struct plan_share *s, double limit_us,
                      const struct pressure *pr, struct estimate *ret)
{
    const struct cell *c = cell_of(j, s->model, l->type, l->at);
    uint32_t lo = 0, hi = (j->p->n_models > LARGE ? c->batch : c->most) + 1, mid = hi - 1;
    struct estimate e;

    while (mid > lo) {
        if (ask_share(j, l, s, mid, pr, &e) && e.run_us <= limit_us) {
            lo = mid;
            *ret = e;
        } else {
            hi = mid;
        }
        mid = (lo + hi) / 2;
    }
    s->batch = lo;
    if (lo > 0)
        s->run_us = (usec_t)(ret->run_us + 0.5);
    return lo > 0;
}

/* ---- RULE_PART */

static uint32_t rows_of(const struct plan_share *s, double us)
{
    double rows = ceil(s->rate_rps * us / (1e6 * s->streams) - 1e-7);

    return rows < 1 ? 1 : rows > s->batch ? s->batch + 1 : (uint32_t)rows;
}

/* The least cycle in which everybody's rows fit; usual is what it takes of each. */
static double cycle_us(struct job *j, struct let *l, const struct pressure *pr, double limit_us)
{
    double before_us = -1, us = 0;

    while (us > before_us * (1 + 1e-9)) {
        before_us = us;
        us = 0;
        for (uint32_t i = 0; i < l->n_shares; i++) {
            struct plan_share *s = &l->share[i];
            struct estimate e;
            s->usual = rows_of(s, before_us);
            if (s->usual > s->batch || !ask_share(j, l, s, s->usual, pr, &e))
                return INFINITY;
            us += e.hold_us;
            s->latency_us = (usec_t)(e.run_us + 1);
        }
        if (us > limit_us)
            return INFINITY;
    }
    return us;
}

static bool fit_alone(struct job *j, struct let *l, const struct pressure *pr)
{
    struct plan_share *s = &l->share[0];
    struct estimate e;

    if (!batch_set(j, l, s, slo_part(&j->p->rules) * slo_us(j, s), pr, &e))
        return false;
    double busy = s->rate_rps * e.hold_us / (1e6 * s->batch * s->streams);
    if (busy > 1 + 1e-9)
        return false;
    s->usual = s->batch;
    if (busy < 1 - 1e-9 && cycle_us(j, l, pr, INFINITY) == INFINITY)
        s->usual = s->batch;
    s->latency_us = (usec_t)(e.hold_us + e.run_us + 1);
    return true;
}

static bool fit_part(struct job *j, struct let *l, const struct pressure *pr)
{
    double limit_us = INFINITY;
    struct estimate e;

    if (l->n_shares == 1)
        return fit_alone(j, l, pr);
    for (uint32_t i = 0; i < l->n_shares; i++) {
        struct plan_share *s = &l->share[i];
        if (!batch_set(j, l, s, slo_part(&j->p->rules) * slo_us(j, s), pr, &e))
            return false;
        limit_us = fmin(limit_us, slo_us(j, s));
    }
    double us = cycle_us(j, l, pr, limit_us);
    if (us == INFINITY)
        return false;
    for (uint32_t i = 0; i < l->n_shares; i++) {
        struct plan_share *s = &l->share[i];
        if (us + (double)s->latency_us > slo_us(j, s))
            return false;
        s->latency_us += (usec_t)(us + 1);
    }
    return true;
}

/* ---- RULE_CYCLE */

/* Whose batch to lower when a latency does not hold: the longest run, no SLO first. */
static struct plan_share *to_lower(struct job *j, struct let *l)
{
    struct plan_share *best = NULL;

    for (uint32_t i = 0; i < l->n_shares; i++) {
        struct plan_share *s = &l->share[i];
        bool mine = slo_us(j, s) == INFINITY;
        bool theirs = best && slo_us(j, best) == INFINITY;
        if (s->batch > 1 &&
            (!best || (mine && !theirs) || (mine == theirs && s->run_us > best->run_us)))
            best = s;
    }
    return best;
}

static bool cycle_holds(struct job *j, struct let *l, const struct pressure *pr, bool *slo)
{
    double all_us = 0;
    struct estimate e;

    for (uint32_t i = 0; i < l->n_shares; i++) {
        if (!ask_share(j, l, &l->share[i], l->share[i].batch, pr, &e))
            return *slo = true, false;
        l->share[i].run_us = (usec_t)(e.run_us + 1);
        all_us += e.run_us + 0.5;
    }
    bool rates = true;
    *slo = true;
    for (uint32_t i = 0; i < l->n_shares; i++) {
        struct plan_share *s = &l->share[i];
        double most = 1e6 * s->batch * s->streams / all_us;
        s->latency_us = (usec_t)(all_us + (double)s->run_us);
        s->usual = s->batch;
        *slo &= (double)s->latency_us <= slo_us(j, s);
        rates &= s->rate_rps <= most * (1 + 1e-9);
    }
    return *slo && rates;
}

static bool fit_cycle(struct job *j, struct let *l, const struct pressure *pr)
{
    bool slo;

    for (uint32_t i = 0; i < l->n_shares; i++)
        l->share[i].batch = cell_of(j, l->share[i].model, l->type, l->at)->batch;
    while (!cycle_holds(j, l, pr, &slo)) {
        struct plan_share *s = slo ? NULL : to_lower(j, l);
        if (!s)
            return false;
        s->batch -= (s->batch + 7) / 8;
    }
    return true;
}

/* ---- RULE_QUEUE */

/* A cap that drains bursts and still leaves time to wait: from long runs to short ones. */
static bool fit_queue(struct job *j, struct let *l, const struct pressure *pr)
{
    static const double part[] = {0.5, 0.33, 0.2};
    struct estimate e;

    for (uint32_t x = 0; x < ARRAY_SIZE(part); x++) {
        bool all = true;
        for (uint32_t i = 0; i < l->n_shares && all; i++)
            all = batch_set(j, l, &l->share[i], part[x] * slo_us(j, &l->share[i]), pr, &e);
        if (all && queue_let_holds(j, l, pr))
            return true;
    }
    return false;
}

/* How full it is: by what its cells could serve.  (Not by the part of the time that it runs: with
 * room to spare batches are small, and it may run all the time.)  False: too full. */
static bool used_set(struct job *j, struct let *l)
{
    l->used = 0;
    for (uint32_t i = 0; i < l->n_shares; i++)
        l->used += l->share[i].rate_rps / cell_of(j, l->share[i].model, l->type, l->at)->rps;
    return l->used <= 1.25; /* cells are of average neighbours; here there may be fewer */
}

bool let_fit(struct job *j, struct let *l, const struct pressure *pr)
{
    for (uint32_t i = 0; i < l->n_shares; i++) {
        if (!j->want[l->share[i].model].ready)
            want_make(j, l->share[i].model);
        const struct cell *c = cell_of(j, l->share[i].model, l->type, l->at);
        if (c->batch == 0)
            return false;
        /* Several streams are worth their wait where nobody else waits (plan_check()). */
        l->share[i].streams = l->n_shares == 1 ? c->streams : 1;
    }
    if (l->n_shares == 0)
        return true;
    if (!used_set(j, l))
        return false;
    return j->p->rules.rule == RULE_PART    ? fit_part(j, l, pr)
           : j->p->rules.rule == RULE_CYCLE ? fit_cycle(j, l, pr)
                                            : fit_queue(j, l, pr);
}

/* ---- beside neighbours, as in truth.c: who presses how much, taken from above */

#define GROWN_MOST 12 /* sizes by which gpu-lets grow to make room for one */

struct beside {
    uint32_t n, n_lets, let[PLAN_MAX_GRANULES];
    uint32_t let_of[CROWD_MAX];
    struct solo solo[CROWD_MAX];
    double duty[CROWD_MAX];
    struct pressure all;
};

static void pressure_all(const struct job *j, uint32_t type, struct beside *b)
{
    b->all = nobody;
    for (uint32_t x = 0; x < b->n; x++)
        pressure_add(&j->p->type[type].predict, &b->all, &b->solo[x], b->duty[x]);
}

/* Of everybody but one gpu-let: taken out of the sum, or added up where that cannot be done. */
static void pressure_beside(struct job *j, uint32_t type, const struct beside *b, uint32_t let,
                            struct pressure *ret)
{
    const struct predict_device *d = &j->p->type[type].predict;
    bool is = true;

    *ret = b->all;
    for (uint32_t x = 0; x < b->n && is; x++)
        if (b->let_of[x] == let)
            is = pressure_sub(d, ret, &b->solo[x], b->duty[x]);
    if (is)
        return;
    *ret = nobody;
    j->steps += b->n / 4;
    for (uint32_t x = 0; x < b->n; x++)
        if (b->let_of[x] != let)
            pressure_add(d, ret, &b->solo[x], b->duty[x]);
}

static double duty_of(const struct job *j, const struct plan_type *t, const struct plan_share *s,
                      double hold_us)
{
    if (counts_presence(t) ||
        (j->p->rules.rule == RULE_CYCLE && !(j->p->model[s->model].rate_rps > 0)))
        return 1;
    return fmin(1, s->rate_rps * hold_us / (1e6 * s->usual * s->streams));
}

static bool beside_make(struct job *j, const struct dev *d, struct beside *b)
{
    struct pressure pr;
    double duty[CROWD_MAX];

    b->n = b->n_lets = 0;
    for (uint32_t k = d->first; k != PLAN_NONE; k = j->let[k].next) {
        const struct let *l = &j->let[k];
        b->let[b->n_lets++] = k;
        for (uint32_t i = 0; i < l->n_shares; i++) {
            if (l->share[i].usual == 0)
                touch_let(j, k)->share[i].usual =
                    MAX(cell_of(j, l->share[i].model, l->type, l->at)->batch, 1u);
            const struct plan_share *s = &l->share[i];
            const struct solo *solo =
                b->n < CROWD_MAX
                    ? solo_of(j, s->model, d->type, let_units(j, l), s->streams, s->usual)
                    : NULL;
            if (!solo)
                return false;
            b->solo[b->n] = *solo;
            b->duty[b->n] = 1;
            b->let_of[b->n++] = k;
        }
    }
    j->steps += b->n;
    pressure_all(j, d->type, b);
    for (uint32_t x = 0, i = 0; x < b->n; x++) {
        struct estimate e;
        i = x && b->let_of[x] == b->let_of[x - 1] ? i + 1 : 0;
        if (i == 0)
            pressure_beside(j, d->type, b, b->let_of[x], &pr);
        pressure_of(&j->p->type[d->type].predict, &b->solo[x], &pr, &e);
        duty[x] = duty_of(j, &j->p->type[d->type], &j->let[b->let_of[x]].share[i], e.hold_us);
    }
    memcpy(b->duty, duty, b->n * sizeof(*duty));
    pressure_all(j, d->type, b);
    return true;
}

static uint64_t usual_sum(const struct job *j, const struct beside *b)
{
    uint64_t sum = 0;

    for (uint32_t n = 0; n < b->n_lets; n++)
        for (uint32_t i = 0; i < j->let[b->let[n]].n_shares; i++)
            sum = sum * 31 + j->let[b->let[n]].share[i].usual;
    return sum;
}

/* All gpu-lets of a device.  More pressure gives longer cycles, these larger usual batches, these
 * another pressure: done when they no longer change.  *bad: the first that does not hold. */
static bool dev_fit(struct job *j, uint32_t device, uint32_t *bad)
{
    struct beside b;
    struct pressure pr;

    *bad = PLAN_NONE;
    for (int round = 0; round < 6; round++) {
        if (!beside_make(j, &j->dev[device], &b))
            return false;
        uint64_t before = usual_sum(j, &b);
        for (uint32_t n = 0; n < b.n_lets; n++) {
            pressure_beside(j, j->dev[device].type, &b, b.let[n], &pr);
            if (!let_fit(j, touch_let(j, b.let[n]), &pr)) {
                *bad = b.let[n];
                return false;
            }
        }
        if (usual_sum(j, &b) == before)
            return true;
    }
    return false;
}

static bool quiet(const struct job *j, uint32_t device)
{
    const struct dev *d = &j->dev[device];

    return !j->kind[d->type].crowded || d->n_lets < 2;
}

/* What does not hold grows while there is room (iGniter, section 4: one unit at a time). */
static bool dev_grow(struct job *j, uint32_t device)
{
    uint32_t bad;

    for (int grown = 0; !dev_fit(j, device, &bad); grown++) {
        if (bad == PLAN_NONE || grown == GROWN_MOST ||
            j->let[bad].at + 1 >= j->kind[j->let[bad].type].n_sizes ||
            !let_resize(j, bad, j->let[bad].at + 1))
            return false;
    }
    return true;
}

/* Memory is looked at last: batches, and with them buffers, were chosen just now. */
bool let_settle(struct job *j, uint32_t let)
{
    struct let *l = touch_let(j, let);
    uint32_t device = l->device;

    if (device == FLOATING) {
        struct pressure pr = field_beside(&j->kind[l->type], let_granules(j, l));
        return let_fit(j, l, &pr);
    }
    bool holds = quiet(j, device) ? let_fit(j, l, &nobody) : dev_grow(j, device);
    return holds && mem_holds(j, device);
}
