/* What runs take: looked up once for each model, size and number of rows; the neighbours that are
 * in flight when a run starts are a sum kept for each device (predict.h). */
#include "replay_priv.h"

#include <gpulet/bucket.h>
#include <math.h>

static const struct predict_device *type_predict(const struct replay *r, uint32_t device)
{
    const struct problem *p = r->cfg->problem;

    return &p->type[p->device[device].type].predict;
}

static int table_fill(struct replay *r, struct run_table *t, const struct predict_device *d)
{
    const struct plan_model *m = &r->cfg->problem->model[t->model];
    static const struct pressure nobody;

    t->solo = ARENA_ARRAY(r->arena, struct solo, t->cap + 1);
    t->run_us = ARENA_ARRAY(r->arena, double, t->cap + 1);
    t->hold_us = ARENA_ARRAY(r->arena, double, t->cap + 1);
    if (!t->solo || !t->run_us || !t->hold_us)
        return -ENOMEM;
    for (uint32_t b = 1; b <= t->cap; b++) {
        uint32_t bucket = MAX(b, bucket_rows(bucket_of(b, m->max_batch), m->max_batch));
        struct load l = {.profile = &m->profile[t->type],
                         .batch = r->cfg->buckets ? bucket : b,
                         .units = t->units,
                         .streams = t->streams,
                         .duty = 1};
        struct estimate e;
        if (!load_lane(d, &l, t->beside, &t->solo[b]))
            return err_set(r->err, -EINVAL, "model '%s' has no run of %u rows on %u units", m->name,
                           b, t->units);
        pressure_of(d, &t->solo[b], &nobody, &e);
        t->run_us[b] = e.run_us;
        t->hold_us[b] = e.hold_us;
    }
    return 0;
}

int run_table_find(struct replay *r, const struct plan_gpulet *g, const struct plan_share *s,
                   uint32_t beside, const struct run_table **ret)
{
    uint32_t type = r->cfg->problem->device[g->device].type, streams = MAX(s->streams, 1u);
    struct run_table *t = r->tables[s->model];

    while (t && !(t->type == type && t->units == g->units && t->beside == beside &&
                  t->streams == streams && t->cap == s->batch))
        t = t->next;
    if (!t) {
        t = ARENA_NEW(r->arena, struct run_table);
        if (!t)
            return -ENOMEM;
        *t = (struct run_table){.model = s->model,
                                .type = type,
                                .units = g->units,
                                .beside = beside,
                                .streams = streams,
                                .cap = s->batch,
                                .next = r->tables[s->model]};
        r->tables[s->model] = t;
        int rc = table_fill(r, t, type_predict(r, g->device));
        if (rc < 0)
            return rc;
    }
    *ret = t;
    return 0;
}

/* ---- the neighbours in flight */
static void pressure_redo(struct replay *r, struct device *d)
{
    const struct predict_device *pd = type_predict(r, (uint32_t)(d - r->device));

    d->pressure = (struct pressure){0};
    for (uint32_t i = 0; i < d->n_lets; i++) {
        const struct let *g = &r->let[r->by_device[d->first_let + i]];
        if (g->pushed)
            pressure_add(pd, &d->pressure, g->pushed, 1);
    }
}

void let_pull(struct replay *r, struct let *g)
{
    struct device *d = &r->device[g->device];
    const struct solo *s = g->pushed;

    if (!s)
        return;
    g->pushed = NULL;
    if (!pressure_sub(type_predict(r, g->device), &d->pressure, s, 1))
        pressure_redo(r, d);
}

void let_push(struct replay *r, struct let *g, const struct solo *s)
{
    let_pull(r, g);
    if (r->cfg->alone || r->device[g->device].n_lets < 2)
        return;
    g->pushed = s;
    pressure_add(type_predict(r, g->device), &r->device[g->device].pressure, s, 1);
}

double run_noise(struct replay *r)
{
    return r->noise_sigma > 0 ? exp(r->noise_mu + r->noise_sigma * random_normal(&r->noise)) : 1;
}

/* Call it while the gpu-let itself presses on nobody. */
void run_estimate(struct replay *r, struct seat *s, uint32_t rows, usec_t *run_us, usec_t *hold_us)
{
    const struct let *g = &r->let[s->let];
    const struct device *d = &r->device[g->device];
    struct estimate e = {.run_us = s->runs->run_us[rows], .hold_us = s->runs->hold_us[rows]};

    if (!r->cfg->alone && d->n_lets > 1)
        pressure_of(type_predict(r, g->device), &s->runs->solo[rows], &d->pressure, &e);
    double f = run_noise(r);
    e.run_us *= f;
    e.hold_us *= f;
    *run_us = MAX((usec_t)(e.run_us + 0.5), 1);
    *hold_us = MIN(MAX((usec_t)(e.hold_us + 0.5), 1), *run_us);
}

/* ---- what the policies believe */
static double planned_duty(const struct plan_share *s, const struct run_table *t)
{
    uint32_t usual = s->usual && s->usual < s->batch ? s->usual : s->batch;

    return s->rate_rps * t->hold_us[usual] / (1e6 * usual * t->streams);
}

static void neighbours_add(struct replay *r, const struct let *g, struct pressure *p)
{
    const struct plan *plan = r->cfg->plan;
    const struct device *d = &r->device[g->device];

    for (uint32_t i = 0; i < d->n_lets; i++) {
        uint32_t k = r->by_device[d->first_let + i];
        for (uint32_t j = 0; &r->let[k] != g && j < r->let[k].n_seats; j++) {
            const struct seat *other = &r->seat[r->let[k].first_seat + j];
            const struct plan_share *s = &plan->gpulet[k].share[j];
            uint32_t usual = s->usual && s->usual < s->batch ? s->usual : s->batch;
            pressure_add(type_predict(r, g->device), p, &other->runs->solo[usual],
                         planned_duty(s, other->runs));
        }
    }
}

static void seat_predict(struct replay *r, struct seat *s, const struct pressure *p)
{
    for (uint32_t b = 1; b <= s->cap; b++) {
        struct estimate e = {.run_us = s->runs->run_us[b]};
        if (!r->cfg->alone)
            pressure_of(type_predict(r, r->let[s->let].device), &s->runs->solo[b], p, &e);
        s->view_us[b] = MAX((usec_t)(e.run_us + 0.5), 1);
    }
    s->work_us = MIN(s->view_us[s->cap] / s->cap, s->view_us[1]);
}

void views_predict(struct replay *r)
{
    for (uint32_t k = 0; k < r->n_lets; k++) {
        struct pressure p = {0};
        if (!r->cfg->alone)
            neighbours_add(r, &r->let[k], &p);
        for (uint32_t j = 0; j < r->let[k].n_seats; j++)
            seat_predict(r, &r->seat[r->let[k].first_seat + j], &p);
    }
}
