/* policy = timeshare: squishy bin packing (Nexus, SOSP'19, section 6.1) on whole devices; the
 * "SBP" that gpu-lets compares with.  static.c packs into gpu-lets that were cut beforehand.
 *
 *   1. While a model's rate is above what a gpu-let serves at the largest batch with
 *      2 est <= SLO, it takes a whole one.
 *   2. The rest is a residue: the largest batch with est + batch/rate <= SLO; the time in which
 *      that comes together is its duty cycle, est / duty its occupancy.
 *   3. Residues by occupancy, largest first, are merged: two share the smaller duty cycle with the
 *      batches that come in it, if all runs fit into the cycle, no SLO breaks and memory holds.
 *      The gpu-let that is then fullest takes it, else a new one.
 *
 * est is 1.1 times the predicted run, as for gpu-lets.  Nexus has no interference: nobody runs
 * beside anybody.  Its gpu-lets run in parallel here when they are cut statically, and it still
 * takes no notice. */
#include "timeshare.h"

#include "gpulet.h"

#include <math.h>

struct slot {
    uint32_t device, granules;
    uint32_t n; /* 0: free */
    double duty_us;
    struct glet_share share[PUB_SHARES];
};

struct residue {
    uint32_t model;
    double rps, occupancy;
};

struct squishy {
    struct gplan g; /* for its predictions; it has no gpu-lets */
    uint32_t n_slots, next;
    struct slot *slot;
    uint32_t n_residues;
    struct residue *residue;
};

static double est(const struct squishy *s, const struct slot *at, uint32_t model, uint32_t batch)
{
    return glet_est(&s->g, s->g.p->device[at->device].type, at->granules, model, batch, NULL);
}

/* With `with` in place of slot k. */
static bool memory_holds(const struct squishy *s, uint32_t k, const struct slot *with)
{
    struct pub_item item[PLAN_MAX_GRANULES];
    uint32_t n = 0;

    for (uint32_t j = 0; j < s->n_slots; j++) {
        const struct slot *at = j == k ? with : &s->slot[j];
        for (uint32_t i = 0; at->device == with->device && i < at->n; i++)
            item[n++] = (struct pub_item){j, at->share[i].model, at->share[i].batch, 1};
    }
    return pub_memory_holds(s->g.p, s->g.p->device[with->device].type, item, n);
}

/* ---- residues */

static bool residue_batch(const struct squishy *s, const struct slot *at, uint32_t model,
                          double rps, uint32_t *batch, double *duty_us)
{
    double slo_us = pub_slo_us(s->g.p, model);

    for (uint32_t b = MIN(s->g.p->model[model].max_batch, GLET_BATCH); b > 0; b--) {
        double us = est(s, at, model, b);
        *duty_us = b > 1 ? 1e6 * b / rps : fmin(1e6 / rps, slo_us - us);
        if (us < INFINITY && within(us, *duty_us) && within(us + *duty_us, slo_us)) {
            *batch = b;
            return true;
        }
    }
    return false;
}

/* The next free gpu-let, for one model. */
static bool take(struct squishy *s, uint32_t model, uint32_t batch, double rps, double duty_us)
{
    struct slot with = s->slot[s->next];

    with.n = 1;
    with.duty_us = duty_us;
    with.share[0] = (struct glet_share){model, batch, rps};
    if (!memory_holds(s, s->next, &with))
        return false;
    s->slot[s->next++] = with;
    return true;
}

/* All in the shorter of the two cycles; how full the gpu-let then is, 0: they do not fit. */
static double merged(const struct squishy *s, struct slot *at, uint32_t model, double rps)
{
    uint32_t batch;
    double duty_us, us = 0, own_us[PUB_SHARES];

    if (at->n >= pub_max_shares(s->g.p, PUB_SHARES) ||
        !residue_batch(s, at, model, rps, &batch, &duty_us))
        return 0;
    for (uint32_t i = 0; i < at->n; i++)
        if (at->share[i].model == model)
            return 0;
    at->duty_us = fmin(at->duty_us, duty_us);
    at->share[at->n++] = (struct glet_share){model, batch, rps};
    for (uint32_t i = 0; i < at->n; i++) {
        at->share[i].batch = (uint32_t)fmax(1, ceil(at->duty_us * at->share[i].rps / 1e6 - 1e-6));
        own_us[i] = est(s, at, at->share[i].model, at->share[i].batch);
        us += own_us[i];
    }
    /* Everybody has its turn once a cycle: a request waits for one cycle and its own run. */
    for (uint32_t i = 0; i < at->n; i++)
        if (!within(at->duty_us + own_us[i], pub_slo_us(s->g.p, at->share[i].model)))
            return 0;
    return within(us, at->duty_us) ? us / at->duty_us : 0;
}

static bool merge(struct squishy *s, const struct residue *r)
{
    struct slot *best = NULL, with = {0};
    double fullest = 0;

    for (uint32_t k = 0; k < s->next; k++) {
        struct slot trial = s->slot[k];
        if (trial.duty_us <= 0) /* saturated */
            continue;
        double full = merged(s, &trial, r->model, r->rps);
        if (full > fullest && memory_holds(s, k, &trial)) {
            fullest = full;
            best = &s->slot[k];
            with = trial;
        }
    }
    if (best)
        *best = with;
    return best != NULL;
}

/* ---- */

static void saturate(struct squishy *s, uint32_t model, double *rps)
{
    while (s->next < s->n_slots) {
        struct slot *at = &s->slot[s->next];
        uint32_t type = s->g.p->device[at->device].type, batch;
        double most, duty_us;
        uint32_t b = glet_saturated(&s->g, type, at->granules, model, NULL, &most);
        if (b == 0 || (*rps <= most && residue_batch(s, at, model, *rps, &batch, &duty_us)) ||
            !take(s, model, b, fmin(*rps, most), 0))
            return;
        *rps -= fmin(*rps, most);
        if (*rps <= GLET_EPS)
            return;
    }
}

/* What is left over of each model, by how much it would fill a gpu-let of its own. */
static void add_residue(struct squishy *s, uint32_t model, double rps)
{
    const struct slot *at = &s->slot[MIN(s->next, s->n_slots - 1)];
    struct residue r = {model, rps, 0};
    uint32_t batch, i = s->n_residues++;
    double duty_us;

    if (residue_batch(s, at, model, rps, &batch, &duty_us))
        r.occupancy = est(s, at, model, batch) / duty_us;
    for (; i > 0 && s->residue[i - 1].occupancy < r.occupancy; i--)
        s->residue[i] = s->residue[i - 1];
    s->residue[i] = r;
}

static void pack(struct squishy *s)
{
    for (uint32_t m = 0; m < s->g.p->n_models; m++) {
        double rps = s->g.rate_rps[m];
        saturate(s, m, &rps);
        if (rps > GLET_EPS)
            add_residue(s, m, rps);
    }
    for (uint32_t i = 0; i < s->n_residues; i++) {
        const struct residue *r = &s->residue[i];
        uint32_t batch;
        double duty_us;
        if (!merge(s, r) && s->next < s->n_slots &&
            residue_batch(s, &s->slot[s->next], r->model, r->rps, &batch, &duty_us))
            (void)take(s, r->model, batch, r->rps, duty_us);
    }
}

static int emit(struct squishy *s, struct pub *b, struct err *err)
{
    for (uint32_t k = 0; k < s->next; k++) {
        const struct slot *at = &s->slot[k];
        struct plan_gpulet *out = pub_let(b, at->device, at->granules, at->n);
        double all_us = 0;
        if (!out)
            return err_set(err, -ENOMEM, "plan: the arena is too small");
        for (uint32_t i = 0; i < at->n; i++)
            all_us += est(s, at, at->share[i].model, at->share[i].batch);
        double duty_us = fmax(at->duty_us, all_us);
        for (uint32_t i = 0; i < at->n; i++) {
            double us = est(s, at, at->share[i].model, at->share[i].batch);
            pub_share(b, out,
                      &(struct plan_share){.model = at->share[i].model,
                                           .batch = at->share[i].batch,
                                           .rate_rps = at->share[i].rps,
                                           .run_us = (usec_t)ceil(us),
                                           .latency_us = (usec_t)ceil(duty_us + us)});
        }
    }
    return 0;
}

static void judge(struct squishy *s, struct pub *b, uint32_t m)
{
    const struct slot *at = &s->slot[0];
    struct pub_item item = {0, m, 1, 1};
    uint32_t type = s->g.p->device[at->device].type;
    double most, rate = s->g.rate_rps[m];

    (void)glet_saturated(&s->g, type, at->granules, m, NULL, &most);
    enum plan_limit limit = b->planned_rps[m] >= rate - GLET_EPS        ? LIMIT_NONE
                            : most <= 0                                 ? LIMIT_SLO
                            : !pub_memory_holds(s->g.p, type, &item, 1) ? LIMIT_MEMORY
                                                                        : LIMIT_UNITS;
    double lets = fmax(1, (double)s->n_slots / s->g.p->n_devices);
    pub_verdict(b, m, limit, (usec_t)ceil(2 * est(s, at, m, 1)),
                limit == LIMIT_UNITS ? (rate - b->planned_rps[m]) / most / lets : 0);
}

static int set_up(struct squishy *s, const struct problem *p, cut_fn *cut, struct arena *a,
                  struct err *err)
{
    uint32_t cuts[PLAN_MAX_GRANULES];
    int r = glet_begin(&s->g, p, a, err);

    if (r < 0)
        return r;
    uint32_t most = p->rules.max_lets ? p->rules.max_lets : PLAN_MAX_GRANULES;
    for (uint32_t d = 0; d < p->n_devices; d++)
        s->n_slots += MIN(cut(type_of(p, d), cuts), most);
    if (s->n_slots == 0)
        return err_set(err, -ENOTSUP, "device type '%s' cannot be cut so", type_of(p, 0)->name);
    s->slot = ARENA_ARRAY(a, struct slot, s->n_slots);
    s->residue = ARENA_ARRAY(a, struct residue, MAX(p->n_models, 1u));
    if (!s->slot || !s->residue)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    for (uint32_t d = 0, at = 0; d < p->n_devices; d++)
        for (uint32_t i = 0, n = MIN(cut(type_of(p, d), cuts), most); i < n; i++)
            s->slot[at++] = (struct slot){.device = d, .granules = cuts[i]};
    return 0;
}

int squishy_make(const struct problem *p, cut_fn *cut, struct arena *a, struct plan *ret,
                 struct err *err)
{
    struct squishy s = {0};
    struct pub b;
    int r = set_up(&s, p, cut, a, err);

    if (r < 0)
        return r;
    pack(&s);
    if ((r = pub_begin(&b, p, a, s.next, err)) < 0 || (r = emit(&s, &b, err)) < 0)
        return r;
    for (uint32_t m = 0; m < p->n_models; m++)
        judge(&s, &b, m);
    pub_end(&b, ret);
    return 0;
}

/* ---- whole devices */

static uint32_t cut_whole(const struct plan_type *t, uint32_t ret[PLAN_MAX_GRANULES])
{
    uint32_t n = pub_sizes(t, ret);

    if (n)
        ret[0] = ret[n - 1]; /* the largest that there is */
    return n > 0;
}

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    (void)was;
    return squishy_make(p, cut_whole, a, ret, err);
}

const struct policy policy_timeshare = {
    .name = "timeshare",
    .plan_make = make,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};
