/* Merging residues and sharing in time (gpu-lets section 4.3). */
#include "gpulet.h"

#include <math.h>

static void keep(const struct gplan *g, struct glet *copy)
{
    memcpy(copy, g->let, 2 * (size_t)g->p->n_devices * sizeof(*copy));
}

static void go_back(struct gplan *g, const struct glet *copy)
{
    memcpy(g->let, copy, 2 * (size_t)g->p->n_devices * sizeof(*copy));
}

/* ---- merge residue */

static bool is_residue(const struct gplan *g, uint32_t k, uint32_t model)
{
    return g->let[k].n == 1 && !g->let[k].saturated && g->let[k].share[0].model == model;
}

/* Residues of the model, together with the least that a gpu-let of one of their sizes serves. */
static uint32_t residues(const struct gplan *g, uint32_t model, double *rps, double *least_rps,
                         uint32_t *least_let)
{
    uint32_t n = 0;

    *least_rps = INFINITY;
    for (uint32_t k = 0; k < 2 * g->p->n_devices; k++) {
        double most;
        if (!is_residue(g, k, model))
            continue;
        n++;
        *rps += g->let[k].share[0].rps;
        (void)glet_saturated(g, glet_type(g, k), g->let[k].granules, model, NULL, &most);
        if (most < *least_rps) {
            *least_rps = most;
            *least_let = k;
        }
    }
    return n;
}

static uint32_t size_index(const struct gplan *g, uint32_t type, uint32_t granules)
{
    uint32_t i = 0;

    while (i + 1 < g->n_sizes[type] && g->size[type][i] < granules)
        i++;
    return i;
}

double glet_merge(struct gplan *g, uint32_t model, double left_rps)
{
    double rps = left_rps, least_rps;
    uint32_t least = 0, n = residues(g, model, &rps, &least_rps, &least);
    struct piece one;

    if (n == 0 || (n == 1 && left_rps <= GLET_EPS) || rps > least_rps)
        return left_rps;
    uint32_t type = glet_type(g, least);
    if (!glet_piece(g, type, size_index(g, type, g->let[least].granules), model, rps, &one))
        return left_rps;
    keep(g, g->merging);
    for (uint32_t k = 0; k < 2 * g->p->n_devices; k++)
        if (is_residue(g, k, model))
            glet_clear(g, k);
    if (glet_fit(g, model, &one) != PLAN_NONE)
        return rps - one.rps;
    go_back(g, g->merging);
    return left_rps;
}

/* ---- time sharing */

double glet_occupancy(const struct gplan *g, uint32_t k)
{
    const struct glet *let = &g->let[k];
    double us = 0;

    if (let->saturated)
        return 1;
    for (uint32_t i = 0; i < let->n; i++)
        us += glet_est(g, glet_type(g, k), let->granules, let->share[i].model, let->share[i].batch,
                       &g->let[k ^ 1]);
    return us / let->duty_us;
}

static bool holds_model(const struct glet *let, uint32_t model)
{
    for (uint32_t i = 0; i < let->n; i++)
        if (let->share[i].model == model)
            return true;
    return false;
}

/* The newcomer's batch and the duty cycle that it asks for; a rate too low for a batch of 1 in
 * the present cycle takes the cycle as it is.  False: none will do. */
static bool joining_batch(const struct gplan *g, uint32_t k, uint32_t model, double rps,
                          uint32_t *batch, double *duty_us)
{
    const struct glet *let = &g->let[k];
    double slo_us = pub_slo_us(g->p, model), room = 1 - glet_occupancy(g, k);
    double most = fmin(floor(let->duty_us * rps / 1e6), GLET_BATCH);
    uint32_t b = (uint32_t)fmax(1, fmin(most, g->p->model[model].max_batch));

    for (; b > 0; b--) {
        double us = glet_est(g, glet_type(g, k), let->granules, model, b, &g->let[k ^ 1]);
        *duty_us = fmin(1e6 * b / rps, let->duty_us);
        if (us + *duty_us < slo_us && us / *duty_us < room) {
            *batch = b;
            return true;
        }
    }
    return false;
}

/* Everybody's batch of one duty cycle; false when they do not fit into it or into an SLO. */
static bool rescale(struct gplan *g, uint32_t k, double duty_us)
{
    struct glet *let = &g->let[k];
    double us = 0;

    let->duty_us = duty_us;
    for (uint32_t i = 0; i < let->n; i++) {
        struct glet_share *s = &let->share[i];
        uint32_t most = MIN(g->p->model[s->model].max_batch, GLET_BATCH);
        double rows = ceil(duty_us * s->rps / 1e6 - 1e-6);
        if (rows > most)
            return false;
        s->batch = (uint32_t)fmax(1, rows);
        us += glet_est(g, glet_type(g, k), let->granules, s->model, s->batch, &g->let[k ^ 1]);
    }
    if (us > duty_us)
        return false;
    for (uint32_t i = 0; i < let->n; i++)
        if (duty_us + us > pub_slo_us(g->p, let->share[i].model))
            return false;
    return true;
}

static bool join(struct gplan *g, uint32_t k, uint32_t model, double rps)
{
    struct glet *let = &g->let[k], was[2] = {g->let[k], g->let[k ^ 1]};
    uint32_t batch;
    double duty_us;

    if (!joining_batch(g, k, model, rps, &batch, &duty_us))
        return false;
    let->share[let->n++] = (struct glet_share){model, batch, rps};
    if (rescale(g, k, duty_us) && glet_memory_holds(g, k / 2) && glet_neighbours_hold(g, k))
        return true;
    g->let[k] = was[0];
    g->let[k ^ 1] = was[1];
    return false;
}

double glet_share_time(struct gplan *g, uint32_t model, double left_rps)
{
    uint32_t most = pub_max_shares(g->p, GLET_SHARES);

    memset(g->skip, 0, 2 * (size_t)g->p->n_devices * sizeof(*g->skip));
    while (left_rps > GLET_EPS) {
        uint32_t fullest = PLAN_NONE;
        double full = -1;
        for (uint32_t k = 0; k < 2 * g->p->n_devices; k++) {
            const struct glet *let = &g->let[k];
            if (let->n == 0 || let->n >= most || g->skip[k] || let->saturated ||
                holds_model(let, model))
                continue;
            double o = glet_occupancy(g, k);
            if (o < 1 && o > full) {
                full = o;
                fullest = k;
            }
        }
        if (fullest == PLAN_NONE)
            break;
        if (join(g, fullest, model, left_rps))
            return 0;
        g->skip[fullest] = true;
    }
    return left_rps;
}
