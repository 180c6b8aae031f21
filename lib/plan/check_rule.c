/* Does a plan hold its SLOs?  The rules of plan.h in the checker's own words: see truth.c for
 * those of the planners, with which tests compare. */
#include "check_priv.h"
#include <math.h>

/* Everybody on the device, gpu-let after gpu-let. */
struct stage {
    const struct problem *p;
    const struct walk *w;
    uint32_t type, n;
    struct load load[PREDICT_NEIGHBOURS_MAX + 1];
    uint32_t let_of[PREDICT_NEIGHBOURS_MAX + 1];
};

static bool ask(const struct stage *st, uint32_t j, uint32_t i, uint32_t rows, struct estimate *ret)
{
    struct load other[PREDICT_NEIGHBOURS_MAX + 1];
    const struct plan_gpulet *g = walk_let(st->w, j);
    struct load me = {.profile = &st->p->model[g->share[i].model].profile[st->type],
                      .batch = rows,
                      .units = g->units,
                      .streams = g->share[i].streams,
                      .duty = 1};
    uint32_t n = 0;

    for (uint32_t x = 0; x < st->n; x++)
        if (st->let_of[x] != j)
            other[n++] = st->load[x];
    return predict(&st->p->type[st->type].predict, &me, other, n, ret);
}

static uint32_t usual_rows(const struct plan_share *s)
{
    return s->usual ? s->usual : s->batch;
}

/* How long each neighbour runs: predicted with all the others always running, which is never too
 * little. */
static void stage_duties(struct stage *st)
{
    double duty[PREDICT_NEIGHBOURS_MAX + 1];

    if (st->p->type[st->type].predict.interference.kind == INTERFERE_IGNITER)
        return; /* its authors count who is there */
    for (uint32_t x = 0, i = 0; x < st->n; x++, i++) {
        i = x && st->let_of[x] != st->let_of[x - 1] ? 0 : i;
        const struct plan_share *s = &walk_let(st->w, st->let_of[x])->share[i];
        bool always = st->p->model[s->model].best_effort ||
                      (st->p->rules.rule == RULE_CYCLE && st->p->model[s->model].rate_rps == 0);
        struct estimate e;
        duty[x] = 1;
        if (!always && ask(st, st->let_of[x], i, usual_rows(s), &e))
            duty[x] = fmin(1, s->rate_rps / (usual_rows(s) * 1e6 / e.hold_us) /
                                  (s->streams ? s->streams : 1));
    }
    for (uint32_t x = 0; x < st->n; x++)
        st->load[x].duty = duty[x];
}

static int stage_set(struct stage *st, const struct problem *p, const struct walk *w,
                     uint32_t device)
{
    st->p = p;
    st->w = w;
    st->type = p->device[device].type;
    st->n = 0;
    if (type_of(p, device)->predict.interference.kind == INTERFERE_NONE || w->n < 2)
        return 0;
    for (uint32_t j = 0; j < w->n; j++)
        for (uint32_t i = 0; i < walk_let(w, j)->n_shares; i++) {
            const struct plan_share *s = &walk_let(w, j)->share[i];
            if (st->n > PREDICT_NEIGHBOURS_MAX)
                return -E2BIG;
            st->let_of[st->n] = j;
            st->load[st->n++] = (struct load){.profile = &p->model[s->model].profile[st->type],
                                              .batch = usual_rows(s),
                                              .units = walk_let(w, j)->units,
                                              .streams = s->streams,
                                              .duty = 1};
        }
    stage_duties(st);
    return 0;
}

/* ---- RULE_CYCLE */

static double round_us(const struct stage *st, uint32_t j)
{
    double us = 0;

    for (uint32_t i = 0; i < sure_shares(st->p, walk_let(st->w, j)); i++) {
        struct estimate e;
        if (!ask(st, j, i, walk_let(st->w, j)->share[i].batch, &e))
            return INFINITY;
        us += e.run_us;
    }
    return us;
}

/* ---- RULE_PART: rows[] grow until a cycle of them all takes no longer than they take to come */

static double grown_us(const struct stage *st, uint32_t j, uint32_t i, double *own_us)
{
    const struct plan_gpulet *g = walk_let(st->w, j);
    double us = 0, before_us = 0;

    do {
        before_us = us;
        us = 0;
        for (uint32_t x = 0; x < sure_shares(st->p, g); x++) {
            const struct plan_share *s = &g->share[x];
            double come = s->rate_rps * before_us / 1e6 / (s->streams ? s->streams : 1);
            if (come > s->batch + 1e-6 + 1e-6 * s->batch)
                return INFINITY;
            uint32_t rows = (uint32_t)fmin(s->batch, fmax(1, ceil(come - 1e-6)));
            struct estimate e;
            if (!ask(st, j, x, rows, &e))
                return INFINITY;
            us += e.hold_us;
            if (x == i)
                *own_us = e.run_us;
        }
    } while (us > before_us * (1 + 1e-9));
    return us;
}

static bool part_ok(const struct stage *st, uint32_t j, uint32_t i, double *us)
{
    const struct plan_gpulet *g = walk_let(st->w, j);
    const struct plan_share *s = &g->share[i];
    usec_t slo_us = st->p->model[s->model].slo_us;
    double part = st->p->rules.slo_part > 0 ? st->p->rules.slo_part : 0.5, own_us = 0;
    struct estimate e;

    *us = INFINITY;
    if (!ask(st, j, i, s->batch, &e))
        return false;
    *us = e.run_us;
    if (slo_us && !within(e.run_us, part * (double)slo_us))
        return false;
    if (sure_shares(st->p, g) == 1)
        return within(s->rate_rps * e.hold_us, 1e6 * s->batch * (s->streams ? s->streams : 1));
    *us = grown_us(st, j, i, &own_us) + own_us;
    return *us < INFINITY && (slo_us == 0 || within(*us, (double)slo_us));
}

/* ---- RULE_QUEUE */

static int tables(const struct stage *st, uint32_t j, struct arena *a, struct queue_share *q)
{
    const struct plan_gpulet *g = walk_let(st->w, j);

    for (uint32_t i = 0; i < sure_shares(st->p, g); i++) {
        const struct plan_share *s = &g->share[i];
        const struct plan_model *m = &st->p->model[s->model];
        double *t = ARENA_ARRAY(a, double, 2 * (size_t)s->batch + 2);
        if (!t)
            return -ENOMEM;
        for (uint32_t rows = 1; rows <= s->batch; rows++) {
            struct estimate e;
            if (!ask(st, j, i, rows, &e))
                return -EINVAL;
            t[rows] = e.run_us;
            t[s->batch + 1 + rows] = e.hold_us;
        }
        double turns = s->rate_rps > 0 ? floor(m->rate_rps / s->rate_rps + 1e-6) : 1;
        q[i] = (struct queue_share){.rate_rps = s->rate_rps,
                                    .arrivals = m->arrivals,
                                    .cv = m->cv,
                                    .slo_us = m->slo_us,
                                    .cap = s->batch,
                                    .streams = s->streams,
                                    .turns = (uint32_t)fmin(fmax(turns, 1), TURNS_MOST),
                                    .run_us = t,
                                    .hold_us = t + s->batch + 1};
    }
    return 0;
}

static int queue_check(const struct stage *st, uint32_t j, struct queue_result *ret)
{
    struct queue_share q[LET_QUEUE_MAX];
    struct arena a;

    arena_init_fixed(&a, st->w->scratch, QUEUE_SCRATCH);
    uint32_t n = sure_shares(st->p, walk_let(st->w, j));
    if (n > LET_QUEUE_MAX)
        return -E2BIG;
    int r = tables(st, j, &a, q);
    return r < 0 ? r : queue_predict(q, n, &a, ret, NULL);
}

/* ---- */

static int broken(const struct stage *st, uint32_t j, uint32_t i, double us, struct err *err)
{
    const struct plan_model *m = &st->p->model[walk_let(st->w, j)->share[i].model];

    return err_set(err, -EINVAL, "model '%s': %.0f us on gpu-let %u, its SLO is %llu us", m->name,
                   us, st->w->let[j], (unsigned long long)m->slo_us);
}

/* Neighbours are told by usual runs how much a share presses: these must carry its rate.  (Those of
 * a queue are means of many, as queue_predict() has them.) */
static int usual_check(const struct stage *st, uint32_t j, uint32_t i, struct err *err)
{
    const struct plan_share *s = &walk_let(st->w, j)->share[i];
    bool says = s->usual && s->usual < s->batch;
    struct estimate e = {0};

    if (st->n == 0 || (st->p->rules.rule != RULE_PART && !says) ||
        st->p->rules.rule == RULE_QUEUE || !ask(st, j, i, usual_rows(s), &e) ||
        within(s->rate_rps * e.hold_us, 1e6 * usual_rows(s) * (s->streams ? s->streams : 1)))
        return 0;
    return err_set(err, -EINVAL,
                   "gpu-let %u: model '%s' usually runs %u, too few for %.6g requests/s",
                   st->w->let[j], st->p->model[s->model].name, usual_rows(s), s->rate_rps);
}

/* Does the plan claim anything of a share of it?  How many may be in a queue that is predicted has
 * a limit, which is no reason to refuse a gpu-let whose models only have a place. */
static bool promises(const struct stage *st, uint32_t j)
{
    const struct plan_gpulet *g = walk_let(st->w, j);

    for (uint32_t i = 0; i < sure_shares(st->p, g); i++) {
        const struct plan_model *m = &st->p->model[g->share[i].model];
        if (st->w->plan->verdict[g->share[i].model].limit == LIMIT_NONE &&
            (m->slo_us || m->rate_rps > 0))
            return true;
    }
    return false;
}

static int let_check(const struct stage *st, uint32_t j, struct err *err)
{
    const struct plan_gpulet *g = walk_let(st->w, j);
    struct queue_result q[LET_QUEUE_MAX] = {0};
    double all_us = st->p->rules.rule == RULE_CYCLE ? round_us(st, j) : 0;
    double most_late = st->p->rules.violations > 0 ? st->p->rules.violations : 0.01;

    uint32_t n = sure_shares(st->p, g);

    if (st->p->rules.rule == RULE_QUEUE && !promises(st, j))
        return 0;
    if (st->p->rules.rule == RULE_QUEUE && queue_check(st, j, q) < 0)
        return err_set(err, -EINVAL, "gpu-let %u: its queue cannot be predicted", st->w->let[j]);
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_model *m = &st->p->model[g->share[i].model];
        struct estimate e = {0};
        double us = INFINITY;
        if (st->w->plan->verdict[g->share[i].model].limit != LIMIT_NONE)
            continue;
        if (usual_check(st, j, i, err) < 0)
            return -EINVAL;
        if (st->p->rules.rule == RULE_CYCLE) {
            us = ask(st, j, i, g->share[i].batch, &e) ? all_us + e.run_us : us;
            if (!(us < INFINITY) || (m->slo_us && !within(us, (double)m->slo_us)))
                return broken(st, j, i, us, err);
        } else if (st->p->rules.rule == RULE_PART) {
            if (!part_ok(st, j, i, &us))
                return broken(st, j, i, us, err);
        } else if (!(q[i].p99_us < INFINITY) || (m->slo_us && !within(q[i].late, most_late))) {
            return broken(st, j, i, q[i].p99_us, err);
        }
    }
    return 0;
}

int rule_check(const struct problem *p, const struct walk *w, uint32_t device, struct err *err)
{
    struct stage st;

    if (stage_set(&st, p, w, device) < 0)
        return err_set(err, -EINVAL, "device '%s': more than %d shares disturb each other",
                       p->device[device].name, PREDICT_NEIGHBOURS_MAX + 1);
    for (uint32_t j = 0; j < w->n; j++)
        if (let_check(&st, j, err) < 0)
            return -EINVAL;
    return 0;
}

/* Under RULE_CYCLE, whose rates may be unknown, what it can serve; else what it was given, which
 * rule_check() has found to hold. */
double rule_serves(const struct problem *p, const struct walk *w, uint32_t device, uint32_t j,
                   uint32_t i)
{
    const struct plan_share *s = &walk_let(w, j)->share[i];
    struct stage st;

    if (p->model[s->model].best_effort || p->rules.rule != RULE_CYCLE ||
        !(p->model[s->model].rate_rps > 0))
        return s->rate_rps;
    if (stage_set(&st, p, w, device) < 0)
        return 0;
    return s->batch * 1e6 * (s->streams ? s->streams : 1) / round_us(&st, j);
}
