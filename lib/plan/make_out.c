/* From the planner's state to a plan, and its verdicts by the truth of each share. */
#include "make_priv.h"
#include <math.h>

#define MOST_MODELS 64 /* up to so many, most_rps is searched for; beyond, estimated */

static uint32_t first_granule(const struct plan_granules *s)
{
    uint32_t i = 0;

    while (i < PLAN_MAX_GRANULES && !set_has(s, i))
        i++;
    return i;
}

static int gpulet_emit(struct job *j, const struct let *l, struct plan_gpulet *ret)
{
    struct plan_share *s = arena_memdup(j->a, l->share, l->n_shares * sizeof(*s));

    if (!s)
        return -ENOMEM;
    for (uint32_t i = 0; i < l->n_shares; i++)
        s[i].rate_rps = j->want[s[i].model].guessed ? 0 : s[i].rate_rps / j->scale;
    *ret = (struct plan_gpulet){.device = l->device,
                                .set = l->set,
                                .units = let_units(j, l),
                                .n_shares = l->n_shares,
                                .share = s};
    return 0;
}

/* By device, and there by granules. */
int job_emit(struct job *j, struct plan *ret)
{
    uint32_t n = 0;

    for (uint32_t d = 0; d < j->p->n_devices; d++)
        n += j->dev[d].n_lets;
    ret->n_models = j->p->n_models;
    ret->n_gpulets = 0;
    ret->gpulet = ARENA_ARRAY(j->a, struct plan_gpulet, n);
    if (!ret->gpulet)
        return -ENOMEM;
    for (uint32_t d = 0; d < j->p->n_devices; d++) {
        uint32_t from = ret->n_gpulets;
        for (uint32_t k = j->dev[d].first; k != PLAN_NONE; k = j->let[k].next) {
            struct plan_gpulet g;
            if (gpulet_emit(j, &j->let[k], &g) < 0)
                return -ENOMEM;
            uint32_t at = ret->n_gpulets++, first = first_granule(&g.set);
            for (; at > from && first_granule(&ret->gpulet[at - 1].set) > first; at--)
                ret->gpulet[at] = ret->gpulet[at - 1];
            ret->gpulet[at] = g;
        }
    }
    return 0;
}

/* ---- verdicts */

/* What share s could serve: exactly for few models, else by how busy it is; a queue's rate is all
 * that was predicted. */
static double share_most(const struct job *j, const struct plan_gpulet *g,
                         const struct plan_share *s, const struct share_truth *t)
{
    if (t->most_rps > 0 || g->n_shares > 1 || j->p->rules.rule == RULE_QUEUE)
        return MAX(t->most_rps, s->rate_rps);
    return 1e6 * s->batch * MAX(s->streams, 1u) / t->full.hold_us;
}

/* The smallest SLO that share i of g would hold as it stands. */
static double least_slo(const struct problem *p, const struct plan_gpulet *g, uint32_t i,
                        const struct share_truth *t, uint32_t type)
{
    const struct plan_share *s = &g->share[i];
    struct load one = share_load(p, type, g, s, 1);
    struct estimate e;
    double run_us = t->full.run_us;

    if (predict(&p->type[type].predict, &one, NULL, 0, &e))
        run_us = e.run_us * fmax(t->full.slowdown, 1);
    if (p->rules.rule == RULE_CYCLE)
        return t->latency_us - 2 * (t->full.run_us - run_us);
    if (p->rules.rule == RULE_PART)
        return fmax(run_us / slo_part(&p->rules), g->n_shares > 1 ? t->latency_us : 2 * run_us);
    return t->latency_us;
}

static void share_judge(struct job *j, const struct plan_gpulet *g, uint32_t i,
                        const struct share_truth *t)
{
    struct plan_share *s = &g->share[i];
    struct judged *v = &j->judged[s->model];
    double slo_us = least_slo(j->p, g, i, t, j->p->device[g->device].type);

    s->run_us = (usec_t)(t->full.run_us + 0.5);
    s->latency_us = t->latency_us < 1e15 ? (usec_t)(t->latency_us + 0.5) : 0;
    v->placed = true;
    v->fails |= !t->holds || j->want[s->model].hopeless;
    v->missed[g->n_shares > 1] |= !t->holds && !j->want[s->model].hopeless;
    v->least_slo_us = fmax(v->least_slo_us, slo_us);
    v->rate_rps += t->holds ? s->rate_rps : 0;
    v->most_rps += share_most(j, g, s, t);
}

static int device_judge(struct job *j, struct plan *plan, uint32_t from, uint32_t n)
{
    const struct plan_gpulet *let[PLAN_MAX_GRANULES] = {0};
    struct crowd c;

    for (uint32_t x = 0; x < n; x++)
        let[x] = &plan->gpulet[from + x];
    int r = crowd_init(&c, j->p, j->p->device[plan->gpulet[from].device].type, let, n);
    bool most = j->p->n_models <= MOST_MODELS && j->p->rules.rule != RULE_QUEUE;
    c.scratch = j->queue_scratch;
    for (uint32_t x = 0; r == 0 && x < n; x++)
        for (uint32_t i = 0; i < let[x]->n_shares; i++) {
            struct share_truth t;
            crowd_truth(&c, x, i, most, &t);
            j->steps += 2;
            share_judge(j, let[x], i, &t);
        }
    return r;
}

/* Can any device hold it at all? */
static bool fits_memory(const struct problem *p, const struct plan_model *m)
{
    uint64_t bytes = m->weights_bytes + m->slot_bytes + m->row_bytes;

    for (uint32_t d = 0; d < p->n_devices; d++) {
        const struct plan_type *t = type_of(p, d);
        if (!t->mem_bytes || bytes + t->let_bytes + t->pool_bytes <= t->mem_bytes)
            return true;
    }
    return false;
}

/* Alone on the best gpu-let there is: for those that have none. */
static double least_alone(struct job *j, uint32_t m)
{
    double best_us = INFINITY;

    for (uint32_t t = 0; t < j->p->n_types; t++) {
        const struct kind *k = &j->kind[t];
        struct pressure nobody = {0};
        struct estimate e;
        for (uint32_t at = 0; at < k->n_sizes && k->has_devices; at++)
            if (ask(j, m, t, k->size[at] * k->t->granule_units, 1, 1, &nobody, &e))
                best_us = fmin(best_us, e.run_us);
    }
    return best_us / run_limit_us(j, 1.0);
}

static void verdict_set(struct job *j, uint32_t m, struct plan_verdict *v)
{
    const struct plan_model *model = &j->p->model[m];
    const struct want *w = &j->want[m];
    const struct judged *is = &j->judged[m];
    double slo_us = is->placed ? is->least_slo_us : least_alone(j, m);
    bool served = is->placed && within(model->rate_rps, is->rate_rps);

    v->limit = served && !is->fails                              ? LIMIT_NONE
               : !fits_memory(j->p, model)                       ? LIMIT_MEMORY
               : w->hopeless || (is->fails && is->rate_rps == 0) ? LIMIT_SLO
               : is->placed                                      ? LIMIT_RATE
                                                                 : LIMIT_UNITS;
    v->least_slo_us = slo_us < 1e15 ? (usec_t)ceil(slo_us) : 0;
    bool short_of = v->limit == LIMIT_RATE || v->limit == LIMIT_UNITS;
    v->most_rps = v->limit == LIMIT_NONE ? fmax(is->most_rps, model->rate_rps)
                  : short_of             ? is->rate_rps /* more would harm others */
                                         : is->most_rps;
    v->need =
        v->limit == LIMIT_RATE || v->limit == LIMIT_UNITS
            ? fmax(0, model->rate_rps - is->rate_rps) * w->cost * j->p->n_devices / j->all_price
            : 0;
    v->least = w->least < INFINITY ? w->least * model->rate_rps : 0;
    v->key = j->key_of[m];
}

static uint32_t lets_beside(const struct plan *plan, uint32_t k)
{
    uint32_t n = 1;

    while (k + n < plan->n_gpulets && plan->gpulet[k + n].device == plan->gpulet[k].device)
        n++;
    return n;
}

static void bound_sum(struct plan *plan)
{
    plan->bound = 0;
    for (uint32_t m = 0; m < plan->n_models; m++)
        plan->bound += plan->verdict[m].least;
}

int job_judge(struct job *j, struct plan *plan)
{
    int r = 0;

    memset(j->judged, 0, j->p->n_models * sizeof(*j->judged));
    for (uint32_t k = 0, n; r == 0 && k < plan->n_gpulets; k += n) {
        n = lets_beside(plan, k);
        r = device_judge(j, plan, k, n);
    }
    for (uint32_t m = 0; r == 0 && m < j->p->n_models; m++)
        verdict_set(j, m, &plan->verdict[m]);
    bound_sum(plan);
    return r;
}

bool job_missed(struct job *j, double care)
{
    bool any = false;

    for (uint32_t m = 0; m < j->p->n_models; m++)
        for (int x = 0; x < 2; x++)
            if (j->judged[m].missed[x]) {
                j->want[m].care[x] += care;
                any = true;
            }
    return any;
}

/* Does the device have a gpu-let that somebody touched, or one of a changed model? */
static bool device_changed(const struct job *j, const struct plan *plan, uint32_t k, uint32_t n)
{
    for (uint32_t let = j->dev[plan->gpulet[k].device].first; let != PLAN_NONE;
         let = j->let[let].next)
        if (!j->let[let].borrowed)
            return true;
    for (uint32_t x = k; x < k + n; x++)
        for (uint32_t i = 0; i < plan->gpulet[x].n_shares; i++)
            if (j->judged[plan->gpulet[x].share[i].model].changed)
                return true;
    return false;
}

int job_judge_changed(struct job *j, struct plan *plan, const uint32_t *model, uint32_t n_changed)
{
    int r = 0;

    memset(j->judged, 0, j->p->n_models * sizeof(*j->judged));
    for (uint32_t i = 0; i < n_changed; i++)
        j->judged[model[i]].changed = true;
    for (uint32_t k = 0, n; r == 0 && k < plan->n_gpulets; k += n) {
        n = lets_beside(plan, k);
        if (device_changed(j, plan, k, n))
            r = device_judge(j, plan, k, n);
    }
    for (uint32_t i = 0; r == 0 && i < n_changed; i++)
        verdict_set(j, model[i], &plan->verdict[model[i]]);
    bound_sum(plan);
    return r;
}

/* ---- what a model was: everything of it but name and rate */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint64_t mix_bytes(uint64_t h, const void *p, size_t bytes)
{
    for (size_t i = 0; p && i + 8 <= bytes; i += 8) {
        uint64_t x;
        memcpy(&x, (const char *)p + i, 8);
        h = mix(h, x);
    }
    if (p && bytes % 8) {
        uint64_t x = 0;
        memcpy(&x, (const char *)p + bytes / 8 * 8, bytes % 8);
        h = mix(h, x);
    }
    return h;
}

static uint64_t mix_profile(uint64_t h, const struct profile *f)
{
    size_t cells = (size_t)f->n_batch * f->n_units * MAX(f->n_streams, 1u);

    h = mix_bytes(mix(h, f->n_batch), f->batch, f->n_batch * sizeof(*f->batch));
    h = mix_bytes(mix(h, f->n_units), f->units, f->n_units * sizeof(*f->units));
    h = mix_bytes(h, f->streams, f->n_streams * sizeof(*f->streams));
    h = mix_bytes(h, f->run_us, cells * sizeof(*f->run_us));
    h = mix_bytes(h, f->host_us, f->host_us ? f->n_batch * sizeof(*f->host_us) : 0);
    h = mix_bytes(h, f->l2, f->l2 ? cells * sizeof(double) : 0);
    h = mix_bytes(h, f->dram, f->dram ? cells * sizeof(double) : 0);
    h = mix_bytes(h, f->watts, f->watts ? cells * sizeof(double) : 0);
    h = mix_bytes(h, &f->kernels, sizeof(double));
    h = mix_bytes(h, &f->in_bytes, sizeof(double));
    h = mix_bytes(h, &f->out_bytes, sizeof(double));
    return mix_bytes(h, f->curve, f->curve ? sizeof(*f->curve) : 0);
}

static uint64_t mix_type(uint64_t h, const struct plan_type *t)
{
    h = mix(mix(mix(h, t->n_granules), t->granule_units), t->max_granules);
    h = mix_bytes(h, t->size, t->n_sizes * sizeof(*t->size));
    h = mix_bytes(h, t->place, t->n_places * sizeof(*t->place));
    h = mix(mix(mix(h, t->mem_bytes), t->let_bytes), t->pool_bytes);
    h = mix_bytes(h, &t->price, sizeof(t->price));
    h = mix_bytes(h, &t->predict.link_bps, sizeof(double));
    h = mix_bytes(h, &t->predict.dram_bps, sizeof(double));
    h = mix(mix(h, t->predict.units), t->predict.interference.kind);
    h = mix_bytes(h, &t->predict.interference.max_mhz,
                  offsetof(struct interference, n_terms) - offsetof(struct interference, max_mhz));
    return mix_bytes(h, t->predict.interference.term,
                     t->predict.interference.n_terms * sizeof(double));
}

uint64_t problem_key(const struct problem *p)
{
    const struct plan_rules *r = &p->rules;
    uint64_t h = mix(mix(1, r->rule), r->as_few);

    h = mix(mix(mix(h, r->max_lets), r->max_shares), r->max_streams);
    h = mix_bytes(mix_bytes(h, &r->slo_part, sizeof(double)), &r->violations, sizeof(double));
    for (uint32_t t = 0; t < p->n_types; t++)
        h = mix_type(h, &p->type[t]);
    return h;
}

uint64_t model_key(const struct problem *p, uint32_t m, uint64_t h)
{
    const struct plan_model *q = &p->model[m];

    h = mix(mix(mix(h, q->slo_us), q->arrivals), q->max_batch);
    h = mix(mix(mix(h, q->weights_bytes), q->slot_bytes), q->row_bytes);
    h = mix(mix_bytes(h, &q->cv, sizeof(double)), (uint64_t)q->weights_per_let);
    h = mix(h, (uint64_t)(uint32_t)q->priority);
    for (uint32_t t = 0; t < p->n_types; t++)
        h = mix_profile(h, &q->profile[t]);
    return h ? h : 1;
}
