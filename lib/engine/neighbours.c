/* What neighbours do to a model's runs, and it to theirs: measured beside a stressor (stress.c), in
 * the background while nothing comes, for the ends of its batch on half of a device each.
 *
 * A pair is measured in rounds: runs of both alone, then at once.  Of each it is the median of a
 * round and the least of the rounds that counts: runs begin with gaps between them, so the fastest
 * one may have met none; and what else goes on makes a round longer, never shorter.  There are
 * ROUNDS of them, and more until another one confirms the least.  A request that comes, or work for
 * the builder, ends it at the next run; then it is begun anew when there is peace.
 *
 * lib/plan/beside.c makes terms of it. */
#include "engine_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROUNDS 3
#define ROUNDS_MOST 9
#define CONFIRMED 1.1 /* times the least */
#define RUNS_MAX 64   /* of the model in a round */
#define RUNS_LEAST 3
#define CALL_US (5 * USEC_PER_MSEC) /* short runs are made several to a call */
#define ROUND_US (2 * USEC_PER_SEC)

struct duel {
    struct trial trial; /* of the model */
    struct engine *e;
    struct loaded *l;
    struct beside_run *b;
    struct stressor *stressor;
    uint64_t arrived; /* requests until it was begun */
    usec_t second_us; /* the least round but one of the model beside the stressor */
};

/* ---- peace */
uint64_t arrived(const struct engine *e)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < e->epoch->n_routes; i++)
        n += atomic_load(&e->epoch->route[i].l->stats->s.arrived);
    return n;
}

int peace(struct engine *e, uint64_t arrived_before)
{
    (void)pthread_mutex_lock(&e->lock);
    bool work = e->work || e->changes;
    (void)pthread_mutex_unlock(&e->lock);
    if (atomic_load(&e->device[0].lost))
        return -ENODEV;
    return work || atomic_load(&e->stop) || atomic_load(&e->pending) > 0 ||
                   arrived(e) != arrived_before
               ? -ECANCELED
               : 0;
}

/* ---- runs */
static int compare_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static usec_t median_us(uint64_t *ns, uint32_t n)
{
    qsort(ns, n, sizeof(*ns), compare_ns);
    return MAX(ns[n / 2] / 1000, 1);
}

static void take_least(usec_t *us, usec_t seen_us)
{
    *us = *us ? MIN(*us, seen_us) : seen_us;
}

/* As many as go into a short call. */
static uint32_t runs_a_call(const struct duel *t)
{
    const struct beside_run *b = t->b;
    usec_t us = predict_run_us(&t->l->profile, b->batch, b->units);

    return (uint32_t)MIN(MAX(CALL_US / MAX(us, 1), 1), RUNS_MAX / 4);
}

static int model_run(struct duel *t, uint32_t n, uint64_t *ret_ns)
{
    struct err err;
    int r = peace(t->e, t->arrived);

    return r < 0 ? r : trial_run(&t->trial, 0, t->trial.n_segments, n, ret_ns, &err);
}

static int round_alone(struct duel *t)
{
    uint64_t ns[RUNS_MAX], stress_ns[RUNS_LEAST];
    uint32_t n = 0, each = runs_a_call(t);
    int r = 0;

    for (; n < RUNS_LEAST && r == 0; n += each)
        r = model_run(t, each, ns + n);
    for (uint32_t i = 0; i < RUNS_LEAST && r == 0; i++)
        if ((r = peace(t->e, t->arrived)) == 0)
            r = stressor_run(t->stressor, &stress_ns[i]);
    if (r < 0)
        return r;
    take_least(&t->b->alone_us, median_us(ns, n));
    take_least(&t->b->stress_us, median_us(stress_ns, RUNS_LEAST));
    return 0;
}

/* The stressor is on: runs of the model until there are enough of both that were never alone.
 * *ret_from, *ret_to: those of the stressor. */
static int model_runs(struct duel *t, uint64_t *ns, uint32_t *ret_n, uint32_t *ret_from,
                      uint32_t *ret_to)
{
    usec_t until_us = clock_now_us() + ROUND_US;
    uint32_t each = runs_a_call(t), at = 0, n = 0;
    bool on = true;
    int r = 0;

    while (r == 0 && (on = stressor_runs(t->stressor, ret_to)) && *ret_to == 0) {
        (void)usleep(100); /* its first run finds out what the first of a run costs */
        r = clock_now_us() < until_us ? peace(t->e, t->arrived) : -ETIMEDOUT;
    }
    *ret_from = *ret_to + 1; /* behind the one under way */
    while (r == 0 && on && (n < RUNS_LEAST || *ret_to < *ret_from + RUNS_LEAST)) {
        r = clock_now_us() < until_us ? model_run(t, each, ns + at) : -ETIMEDOUT;
        n += each;
        at = at + 2 * each > RUNS_MAX ? 0 : at + each; /* the last ones are as good as the first */
        on = stressor_runs(t->stressor, ret_to);
    }
    *ret_n = MIN(n, RUNS_MAX / each * each);
    return r < 0 ? r : on ? 0 : -EIO;
}

static int round_beside(struct duel *t)
{
    uint64_t ns[RUNS_MAX], stress_ns[STRESS_RUNS_MAX];
    uint32_t n = 0, from = 0, to = 0, n_stress = 0;
    int r = stressor_on(t->stressor);

    if (r < 0)
        return r;
    r = model_runs(t, ns, &n, &from, &to);
    int rc = stressor_off(t->stressor);
    r = r < 0 ? r : rc;
    if (r < 0)
        return r;
    uint32_t all = 0;
    (void)stressor_runs(t->stressor, &all);
    from = MAX(from, all > STRESS_RUNS_MAX ? all - STRESS_RUNS_MAX : 0);
    for (uint32_t i = from; i < to; i++)
        stress_ns[n_stress++] = stressor_ns(t->stressor, i);
    if (n_stress == 0)
        return -ETIMEDOUT;
    usec_t us = median_us(ns, n), least_us = t->b->beside_us;
    if (least_us)
        take_least(&t->second_us, MAX(us, least_us));
    take_least(&t->b->beside_us, us);
    take_least(&t->b->stressed_us, median_us(stress_ns, n_stress));
    return 0;
}

/* ---- one pair */
static int duel_open(struct duel *t, struct err *err)
{
    uint32_t n = t->b->units / t->e->device[0].info.granule_units;
    struct granules mine = {0}, other = {0};

    for (uint32_t i = 0; i < n; i++) {
        granules_add(&mine, i);
        granules_add(&other, n + i);
    }
    int r = trial_open(t->e, t->l, t->l->precision, t->b->batch, &mine, &t->trial, err);
    return r < 0 ? r : stressor_new(t->e, 0, &other, &t->stressor, err);
}

static bool confirmed(const struct duel *t)
{
    return (double)t->second_us <= CONFIRMED * (double)t->b->beside_us;
}

static int duel_run(struct engine *e, struct loaded *l, struct beside_run *b, struct err *err)
{
    struct duel t = {.e = e, .l = l, .b = b, .arrived = arrived(e)};
    int r = duel_open(&t, err);

    for (uint32_t i = 0; i < ROUNDS_MOST && (i < ROUNDS || !confirmed(&t)) && r == 0; i++) {
        r = round_alone(&t);
        if (r == 0)
            r = round_beside(&t);
    }
    stressor_free(t.stressor);
    trial_close(&t.trial);
    return r;
}

/* ---- which */
static bool is_known(const struct loaded *l, uint32_t batch, uint32_t units)
{
    for (uint32_t i = 0; i < l->n_beside; i++)
        if (l->beside[i].batch == batch && l->beside[i].units == units)
            return true;
    return false;
}

/* The ends of the batch, on half of the device.  False: nothing is left, or nobody can be beside.
 */
static bool pair_next(const struct engine *e, const struct loaded *l, usec_t most_us,
                      struct beside_run *ret)
{
    const struct device_info *d = &e->device[0].info;
    const struct profile *p = &l->profile;
    uint32_t n = d->n_granules / 2, batch[2] = {1, p->batch[p->n_batch - 1]};

    if (d->max_granules)
        n = MIN(n, d->max_granules);
    *ret = (struct beside_run){.units = n * d->granule_units};
    for (uint32_t i = 0; i < 2 && n > 0 && l->n_beside < BESIDE_MAX; i++)
        if (!is_known(l, batch[i], ret->units) &&
            predict_run_us(p, batch[i], ret->units) <= most_us) {
            ret->batch = batch[i];
            return true;
        }
    return false;
}

static void failed(struct engine *e, const struct loaded *l, const char *what, int r,
                   const struct err *err)
{
    event_put(e, 5, "profile", l->name, l->version, PLAN_NONE, "%s cannot be measured: %s", what,
              err->code ? err->msg : strerror(-r));
}

/* Does the plan in force keep its promises, with what is known now?  *ret is one that it breaks. */
static bool plan_holds(struct engine *e, struct err *ret)
{
    const struct epoch *now = e->epoch;
    struct epoch ep = {.n_devices = now->n_devices, .n_routes = now->n_routes, .route = now->route};

    arena_init(&ep.arena);
    memcpy(ep.device, now->device, sizeof(ep.device));
    int r = epoch_problem(e, &ep, ret);
    ep.problem.rules = now->problem.rules;
    if (r == 0)
        r = plan_check(&ep.problem, NULL, &now->plan, ret);
    arena_done(&ep.arena);
    return r != -EINVAL;
}

static void plan_judge(struct engine *e)
{
    char reason[REASON_MAX];
    struct err err;

    if (e->pin || plan_holds(e, &err))
        return;
    (void)snprintf(reason, sizeof(reason), "what neighbours do was measured: %.190s", err.msg);
    replan_push(e, reason, true);
}

bool neighbours_refine(struct engine *e, struct loaded *l, usec_t most_us)
{
    struct err err = {0};
    struct beside_run b;

    if (l->beside_failed || !pair_next(e, l, most_us, &b))
        return false;
    int r = duel_run(e, l, &b, &err);
    if (r == 0) {
        l->beside[l->n_beside++] = b;
        l->n_unsaved++;
        profile_publish(e, l);
        plan_judge(e);
    } else if (r != -ECANCELED) {
        l->beside_failed = true;
        failed(e, l, "what neighbours do to it", r, &err);
    }
    return true;
}

/* ---- segments: where a run could be left, and how late that is */

/* Least of PROBE_RUNS runs of each; the backend runs those before it, too. */
static int segments_run(struct engine *e, struct trial *t, usec_t *ret_us, struct err *err)
{
    uint64_t before = arrived(e);
    int r = 0;

    for (uint32_t s = 0; s < t->n_segments && r == 0; s++) {
        uint64_t ns[PROBE_RUNS], least = UINT64_MAX;
        r = peace(e, before);
        if (r == 0)
            r = trial_run(t, s, s + 1, PROBE_RUNS, ns, err);
        for (unsigned i = 0; r == 0 && i < PROBE_RUNS; i++)
            least = MIN(least, ns[i]);
        ret_us[s] = MAX(least / 1000, 1);
    }
    return r;
}

/* At batch 1, on as much of the device as a gpu-let can have. */
static int segments_measure(struct engine *e, struct loaded *l, uint32_t n_granules,
                            struct err *err)
{
    usec_t us[MEASURED_MAX_SEGMENTS];
    struct granules set = {0};
    struct trial t;

    for (uint32_t i = 0; i < n_granules; i++)
        granules_add(&set, i);
    int r = trial_open(e, l, l->precision, 1, &set, &t, err);
    uint32_t n = r == 0 && t.n_segments <= MEASURED_MAX_SEGMENTS ? t.n_segments : 0;
    if (n > 1)
        r = segments_run(e, &t, us, err);
    trial_close(&t);
    if (r < 0 || n < 2)
        return r;
    memcpy(l->segment_us, us, n * sizeof(*us));
    l->n_timed = n;
    l->n_unsaved++;
    profile_publish(e, l);
    return 0;
}

bool segments_refine(struct engine *e, struct loaded *l, usec_t most_us)
{
    const struct device_info *d = &e->device[0].info;
    uint32_t n = d->max_granules ? MIN(d->max_granules, d->n_granules) : d->n_granules;
    struct err err = {0};

    if (l->segments_done || l->n_timed || l->n_segments < 2 ||
        predict_run_us(&l->profile, 1, n * d->granule_units) > most_us)
        return false;
    l->whole = (struct measured_point){.batch = 1, .units = n * d->granule_units};
    int r = segments_measure(e, l, n, &err);
    l->segments_done = r != -ECANCELED;
    if (r < 0 && r != -ECANCELED)
        failed(e, l, "what its segments take", r, &err);
    return true;
}

/* ---- what it says */
static struct interference terms_of(const struct engine *e, const struct beside_run *b, uint32_t n)
{
    const struct device_info *d = &e->device[0].info;
    struct interference f;

    beside_terms(b, n, d->n_granules * d->granule_units, &f);
    return f;
}

struct interference loaded_interference(const struct engine *e, const struct loaded *l)
{
    return terms_of(e, l->beside, l->n_beside);
}

int epoch_interference(const struct engine *e, struct epoch *ep, struct interference *ret)
{
    struct beside_run *b =
        ARENA_ARRAY(&ep->arena, struct beside_run, (size_t)ep->n_routes * BESIDE_MAX + 1);
    uint32_t n = 0;

    if (!b)
        return -ENOMEM;
    for (uint32_t i = 0; i < ep->n_routes; i++) {
        const struct loaded *l = ep->route[i].l;
        memcpy(b + n, l->beside, l->n_beside * sizeof(*b));
        n += l->n_beside;
    }
    *ret = terms_of(e, b, n);
    return 0;
}
