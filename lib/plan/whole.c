/* The plan of fifo, round-robin, max-delay, edf, deferred and all-at-once: nothing is cut.
 *
 * Each device is one gpu-let, or as few as its largest size allows, and every model is in each of
 * them as memory permits.  A full run takes a part of the SLO; how large a part is what there is to
 * tune.  Who is met is what the rule says of the plan (truth.c), as if models took turns. */
#include "whole.h"

#include <math.h>

#define RUN_PART 0.25

struct whole {
    struct pub b;
    uint32_t most;                   /* rows */
    uint32_t *n_of;                  /* [n_models]: gpu-lets that hold it */
    uint32_t *size, *n_lets, n_cuts; /* [n_devices]: granules of each, how many */
};

/* The largest size, as often as it fits. */
static uint32_t cut(const struct plan_type *t, uint32_t most, uint32_t *size)
{
    uint32_t sizes[PLAN_MAX_GRANULES], same[PLAN_MAX_GRANULES], n = pub_sizes(t, sizes);

    if (n == 0)
        return 0;
    *size = sizes[n - 1];
    uint32_t lets = MIN(t->n_granules / *size, most);
    for (uint32_t i = 0; i < lets; i++)
        same[i] = *size;
    while (lets > 0 && !pub_cut(t, same, lets, NULL))
        lets--;
    return lets;
}

static uint32_t batch_of(const struct whole *w, uint32_t model, uint32_t device, double *run_us)
{
    const struct problem *p = w->b.p;
    const struct plan_type *t = type_of(p, device);
    double part = p->rules.tuning.run_part > 0 ? p->rules.tuning.run_part : RUN_PART;
    struct load l = {.profile = profile_of(p, model, device),
                     .units = w->size[device] * t->granule_units,
                     .duty = 1};
    struct estimate e;

    for (l.batch = MIN(p->model[model].max_batch, w->most); l.batch > 0; l.batch--)
        if (predict(&t->predict, &l, NULL, 0, &e) &&
            (l.batch == 1 || e.run_us <= part * pub_slo_us(p, model))) {
            *run_us = e.run_us;
            return l.batch;
        }
    return 0;
}

/* Bytes more on the device for the model in one more gpu-let; the first there brings weights. */
static uint64_t bytes_of(const struct plan_model *m, uint32_t batch, bool first)
{
    return m->slot_bytes + batch * m->row_bytes +
           (first || m->weights_per_let ? m->weights_bytes : 0);
}

/* Every gpu-let of the device with all the models that memory holds, as they are listed: a device
 * holds a model in all its gpu-lets or in none. */
static int device_fill(struct whole *w, uint32_t d, struct err *err)
{
    const struct problem *p = w->b.p;
    const struct plan_type *t = type_of(p, d);
    uint32_t n = w->n_lets[d], shares = pub_max_shares(p, MAX(p->n_models, 1u));
    uint64_t used = t->pool_bytes + n * t->let_bytes;
    struct plan_gpulet *first = NULL;

    for (uint32_t i = 0; i < n; i++) {
        struct plan_gpulet *g = pub_let(&w->b, d, w->size[d], shares);
        if (!g)
            return err_set(err, -ENOMEM, "plan: the arena is too small");
        first = i ? first : g;
    }
    for (uint32_t m = 0; m < p->n_models && n; m++) {
        double run_us = 0;
        uint32_t batch = batch_of(w, m, d, &run_us);
        uint64_t bytes = batch ? bytes_of(&p->model[m], batch, true) +
                                     (n - 1) * bytes_of(&p->model[m], batch, false)
                               : 0;
        if (batch == 0 || first->n_shares == shares ||
            (t->mem_bytes && used + bytes > t->mem_bytes))
            continue;
        used += bytes;
        w->n_of[m] += n;
        for (uint32_t i = 0; i < n; i++)
            pub_share(&w->b, &first[i],
                      &(struct plan_share){.model = m,
                                           .batch = batch,
                                           .rate_rps = p->model[m].rate_rps,
                                           .run_us = (usec_t)fmax(1, ceil(run_us))});
    }
    return 0;
}

/* Rates were given to each share whole. */
static void rates_split(struct whole *w)
{
    for (uint32_t k = 0; k < w->b.plan.n_gpulets; k++)
        for (uint32_t i = 0; i < w->b.plan.gpulet[k].n_shares; i++) {
            struct plan_share *s = &w->b.plan.gpulet[k].share[i];
            s->rate_rps /= w->n_of[s->model];
        }
}

static double cycle_us(const struct plan_gpulet *g)
{
    double us = 0;

    for (uint32_t i = 0; i < g->n_shares; i++)
        us += (double)g->share[i].run_us;
    return us;
}

void truth_judge(const struct problem *p, struct plan *plan)
{
    for (uint32_t m = 0; m < p->n_models; m++) {
        plan->verdict[m].limit = LIMIT_MEMORY;
        plan->verdict[m].least_slo_us = 0;
        plan->verdict[m].most_rps = 0;
    }
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            plan->verdict[plan->gpulet[k].share[i].model].limit = LIMIT_NONE;
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++) {
            struct plan_share *s = &plan->gpulet[k].share[i];
            struct plan_verdict *v = &plan->verdict[s->model];
            struct share_truth t = {0};
            bool known = plan_truth_now(p, plan, k, i, &t) == 0;
            v->most_rps += s->batch * 1e6 / cycle_us(&plan->gpulet[k]);
            s->latency_us = known && t.latency_us < 1e12 ? (usec_t)ceil(t.latency_us) : 0;
            v->least_slo_us = MAX(v->least_slo_us, s->latency_us);
            if (known && t.holds)
                continue;
            bool slow = (double)v->least_slo_us > pub_slo_us(p, s->model);
            v->limit = slow ? LIMIT_SLO : LIMIT_RATE;
        }
}

int whole_make(const struct problem *p, uint32_t most, struct arena *a, struct plan *ret,
               struct err *err)
{
    struct whole w = {.most = most};
    uint32_t lets = 0;

    w.n_of = ARENA_ARRAY(a, uint32_t, MAX(p->n_models, 1u));
    w.size = ARENA_ARRAY(a, uint32_t, MAX(p->n_devices, 1u));
    w.n_lets = ARENA_ARRAY(a, uint32_t, MAX(p->n_devices, 1u));
    if (!w.n_of || !w.size || !w.n_lets)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    for (uint32_t d = 0; d < p->n_devices; d++)
        lets += w.n_lets[d] = cut(type_of(p, d), pub_max_lets(p, d), &w.size[d]);
    int r = pub_begin(&w.b, p, a, lets, err);
    for (uint32_t d = 0; d < p->n_devices && r == 0; d++)
        r = device_fill(&w, d, err);
    if (r < 0)
        return r;
    rates_split(&w);
    for (uint32_t m = 0; m < p->n_models; m++)
        w.b.planned_rps[m] = p->model[m].rate_rps;
    pub_end(&w.b, ret);
    truth_judge(p, ret);
    return 0;
}

int whole_plan(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
               struct err *err)
{
    (void)was; /* the same whatever ran before */
    return whole_make(p, UINT32_MAX, a, ret, err);
}
