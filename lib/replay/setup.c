/* From a plan to its gpu-lets, seats and sources, with everything looked up that a run needs. */
#include "replay_priv.h"

#include <math.h>

#define RING_FIRST 16
#define BATCH_MOST 1024
#define STREAMS_MOST 64

static int share_check(const struct replay *r, uint32_t k, const struct plan_share *s)
{
    const struct problem *p = r->cfg->problem;

    if (s->model >= p->n_models)
        return err_set(r->err, -EINVAL, "gpu-let %u: there is no model %u", k, s->model);
    if (s->batch == 0 || s->batch > BATCH_MOST)
        return err_set(r->err, -EINVAL, "gpu-let %u: a batch of %u for model '%s', 1..%d can be", k,
                       s->batch, p->model[s->model].name, BATCH_MOST);
    if (s->streams > STREAMS_MOST)
        return err_set(r->err, -EINVAL, "gpu-let %u: %u streams of model '%s', the limit is %d", k,
                       s->streams, p->model[s->model].name, STREAMS_MOST);
    return 0;
}

/* How many runs of several models go side by side there; 0: they take turns. */
static uint32_t lanes_of(const struct replay *r, const struct plan_gpulet *g)
{
    const struct problem *p = r->cfg->problem;

    return p->type[p->device[g->device].type].in_turn ? 0 : r->policy->lanes;
}

static int plan_count(struct replay *r)
{
    const struct problem *p = r->cfg->problem;
    const struct plan *plan = r->cfg->plan;

    r->n_lets = plan->n_gpulets;
    r->n_devices = p->n_devices;
    r->n_models = p->n_models;
    for (uint32_t k = 0; k < r->n_lets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        uint32_t lanes = 1;
        if (g->device >= p->n_devices)
            return err_set(r->err, -EINVAL, "gpu-let %u: there is no device %u", k, g->device);
        for (uint32_t i = 0; i < g->n_shares; i++) {
            int rc = share_check(r, k, &g->share[i]);
            if (rc < 0)
                return rc;
            lanes = MAX(lanes, g->share[i].streams);
        }
        r->n_seats += g->n_shares;
        r->n_lanes += MAX(lanes, lanes_of(r, g));
    }
    return 0;
}

static int event_check(const struct replay *r, const struct replay_event *e)
{
    if (e->kind == REPLAY_RATE && e->model != PLAN_NONE && e->model >= r->n_models)
        return err_set(r->err, -EINVAL, "an event names model %u, there are %u", e->model,
                       r->n_models);
    if (e->kind == REPLAY_RATE && !(e->factor >= 0 && isfinite(e->factor)))
        return err_set(r->err, -EINVAL, "an event multiplies rates by %g", e->factor);
    if (e->kind != REPLAY_RATE && e->device >= r->n_devices)
        return err_set(r->err, -EINVAL, "an event names device %u, there are %u", e->device,
                       r->n_devices);
    return 0;
}

static int config_check(const struct replay *r)
{
    const struct replay_config *c = r->cfg;

    if (c->warmup_us > c->duration_us)
        return err_set(r->err, -EINVAL, "the warm-up of %llu us is longer than the %llu us in all",
                       (unsigned long long)c->warmup_us, (unsigned long long)c->duration_us);
    if (!(c->noise >= 0 && c->noise <= 10))
        return err_set(r->err, -EINVAL, "a noise of %g, it must be from 0 to 10", c->noise);
    if (!(c->scale >= 0 && isfinite(c->scale)))
        return err_set(r->err, -EINVAL, "a scale of %g", c->scale);
    for (uint32_t i = 0; i < c->n_events; i++) {
        if (i > 0 && c->event[i].at_us < c->event[i - 1].at_us)
            return err_set(r->err, -EINVAL, "event %u is before event %u", i, i - 1);
        int rc = event_check(r, &c->event[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

#define ROOM(r, field, n)                                                                          \
    (((field) = arena_array((r)->arena, MAX((size_t)(n), 1), sizeof(*(field)))) == NULL)

static int make_room(struct replay *r)
{
    uint32_t shares = 1;

    for (uint32_t k = 0; k < r->n_lets; k++)
        shares = MAX(shares, r->cfg->plan->gpulet[k].n_shares);
    if (ROOM(r, r->let, r->n_lets) || ROOM(r, r->seat, r->n_seats) ||
        ROOM(r, r->device, r->n_devices) || ROOM(r, r->by_device, r->n_lets) ||
        ROOM(r, r->lane_seat, r->n_lanes) || ROOM(r, r->lane_us, r->n_lanes) ||
        ROOM(r, r->party, r->n_models) || ROOM(r, r->source, r->n_models) ||
        ROOM(r, r->tables, r->n_models) || ROOM(r, r->queue, shares) ||
        ROOM(r, r->ret->model, r->n_models) || ROOM(r, r->ret->gpulet_busy, r->n_lets))
        return -ENOMEM;
    for (uint32_t i = 0; i < shares; i++)
        for (uint32_t k = 0; k < BATCH_VIEW_MAX; k++)
            r->queue[i].rows[k] = 1;
    r->ret->n_models = r->n_models;
    r->ret->n_gpulets = r->n_lets;
    return agenda_init(&r->agenda, event_timer(r, r->n_lets), r->arena);
}

static int seat_setup(struct replay *r, uint32_t k, uint32_t i, uint32_t at)
{
    const struct plan_gpulet *g = &r->cfg->plan->gpulet[k];
    const struct plan_share *s = &g->share[i];
    struct seat *t = &r->seat[at];

    *t = (struct seat){.let = k,
                       .model = s->model,
                       .cap = s->batch,
                       .streams = MAX(s->streams, 1u),
                       .part = r->cfg->problem->model[s->model].rate_rps > 0
                                   ? s->rate_rps / r->cfg->problem->model[s->model].rate_rps
                                   : 0,
                       .size = RING_FIRST,
                       .slot = PLAN_NONE};
    if (ROOM(r, t->ring, RING_FIRST) || ROOM(r, t->view_us, s->batch + 1))
        return -ENOMEM;
    r->party[s->model].n_seats++;
    return run_table_find(r, g, s, 1, &t->runs);
}

static int lets_setup(struct replay *r)
{
    uint32_t seat = 0, lane = 0;

    for (uint32_t k = 0; k < r->n_lets; k++) {
        const struct plan_gpulet *g = &r->cfg->plan->gpulet[k];
        uint32_t lanes = 1, side = lanes_of(r, g);
        r->let[k] = (struct let){.device = g->device,
                                 .first_seat = seat,
                                 .n_seats = g->n_shares,
                                 .n_sure = sure_shares(r->cfg->problem, g),
                                 .spare_us = g->spare_us,
                                 .first_lane = lane,
                                 .turn = PLAN_NONE,
                                 .order = g->order};
        for (uint32_t i = 0; i < g->n_shares; i++, seat++) {
            int rc = seat_setup(r, k, i, seat);
            if (rc < 0)
                return rc;
            lanes = MAX(lanes, g->share[i].streams);
        }
        r->let[k].n_lanes = MAX(lanes, side);
        lane += r->let[k].n_lanes;
        int rc = side ? together_setup(r, &r->let[k], g) : 0;
        if (rc < 0)
            return rc;
        r->device[g->device].n_lets++;
    }
    return 0;
}

static void devices_setup(struct replay *r)
{
    for (uint32_t d = 1; d < r->n_devices; d++)
        r->device[d].first_let = r->device[d - 1].first_let + r->device[d - 1].n_lets;
    for (uint32_t d = 0; d < r->n_devices; d++)
        r->device[d].n_lets = 0;
    for (uint32_t k = 0; k < r->n_lets; k++) {
        struct device *d = &r->device[r->let[k].device];
        r->by_device[d->first_let + d->n_lets++] = k;
    }
    for (uint32_t d = 0; d < r->n_devices; d++) {
        r->device[d].fails_us = USEC_NEVER;
        for (uint32_t i = r->cfg->n_events; i-- > 0;)
            if (r->cfg->event[i].kind == REPLAY_FAIL && r->cfg->event[i].device == d)
                r->device[d].fails_us = r->cfg->event[i].at_us;
    }
}

/* Variance over mean of counts, as the daemon measures it. */
static double burst_of(const struct plan_model *m)
{
    return m->arrivals == ARRIVALS_CV || m->arrivals == ARRIVALS_TRACE ? m->cv * m->cv : 1;
}

static int parties_setup(struct replay *r)
{
    struct demand_band *band = ARENA_ARRAY(r->arena, struct demand_band, r->n_models);
    double *declared = ARENA_ARRAY(r->arena, double, r->n_models);

    if (!band || !declared)
        return -ENOMEM;
    demand_bands(r->cfg->problem, r->cfg->plan, declared, band);
    for (uint32_t m = 0; m < r->n_models; m++) {
        struct party *y = &r->party[m];
        int rc = source_init(&r->source[m], r->cfg, m, r->err);
        if (rc < 0)
            return rc;
        if (ROOM(r, y->view, y->n_seats) || ROOM(r, y->seat, y->n_seats))
            return -ENOMEM;
        y->slo_us = r->cfg->problem->model[m].best_effort ? 0 : r->cfg->problem->model[m].slo_us;
        y->sure = band[m].sure;
        y->burst = burst_of(&r->cfg->problem->model[m]);
        y->used_ns = ALLOWANCE_FRESH;
    }
    return 0;
}

/* policy.h */
static void slacks_setup(struct replay *r)
{
    for (uint32_t k = 0; k < r->n_lets; k++) {
        struct let *g = &r->let[k];
        g->slack_us = USEC_NEVER;
        for (uint32_t i = g->first_seat; i < g->first_seat + g->n_sure; i++) {
            usec_t slo_us = r->party[r->seat[i].model].slo_us;
            if (slo_us)
                g->slack_us = MIN(g->slack_us, slack_of(slo_us, r->seat[i].view_us[1]));
        }
    }
}

static int steps(struct replay *r)
{
    int rc = problem_check(r->cfg->problem, r->err);

    if (rc < 0 || (rc = plan_count(r)) < 0 || (rc = config_check(r)) < 0 ||
        (rc = make_room(r)) < 0 || (rc = lets_setup(r)) < 0)
        return rc;
    devices_setup(r);
    views_predict(r);
    rc = parties_setup(r);
    slacks_setup(r);
    return rc;
}

int replay_setup(struct replay *r)
{
    int rc = steps(r);

    r->queue_max = r->cfg->queue_max ? r->cfg->queue_max : 4096;
    random_seed(&r->noise, r->cfg->seed, UINT32_MAX);
    double variance = log(1 + r->cfg->noise * r->cfg->noise);
    r->noise_sigma = sqrt(variance);
    r->noise_mu = -variance / 2;
    return rc == -ENOMEM ? err_set(r->err, rc, "out of memory for the replay") : rc;
}
