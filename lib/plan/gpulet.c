/* policy = gpulet, gpulet-int: elastic partitioning (gpu-lets, ATC'22, section 4.3).
 *
 * Models by rate times SLO.  Each is cut into pieces at the knee of its throughput; the pieces go
 * where they fit best, all of them or none; else gpu-lets that are free are taken as they are, the
 * largest first; residues are merged; what is left shares gpu-lets in time.
 *
 * gpulet-int looks at the gpu-let beside each, by the published factor, keeps its published
 * tolerances and so accepts a model from 85 % of its raised rate on.  Neither has the release's
 * slack of 15 requests/s, below which it serves nothing.
 *
 * At run time gpu-lets of a model take turns by what is planned for each, nobody is refused, and
 * what cannot be done in time any more is dropped (the release's eager way).  Its batches wait for
 * their duty cycle; here they start as soon as the gpu-let is free, which is no later. */
#include "gpulet.h"
#include "whole.h"

#include <math.h>

/* The model in pieces of this type, added up in granules per device; infinite: its SLO fails. */
static double share_of_type(const struct gplan *g, uint32_t type, uint32_t model, double rps)
{
    uint32_t knee = glet_knee(g, type, model);
    double most, sum = 0;
    struct piece piece;

    if (knee == PLAN_NONE)
        return INFINITY;
    (void)glet_saturated(g, type, g->size[type][knee], model, NULL, &most);
    double whole = ceil(rps / most) - 1;
    if (whole > 0) {
        sum += whole * g->size[type][knee];
        rps -= whole * most;
    }
    if (glet_piece(g, type, knee, model, rps, &piece))
        sum += piece.granules;
    return sum / g->p->type[type].n_granules;
}

static uint32_t best_type(const struct gplan *g, uint32_t model, double rps)
{
    uint32_t best = 0;

    for (uint32_t t = 1; t < g->p->n_types; t++)
        if (share_of_type(g, t, model, rps) < share_of_type(g, best, model, rps))
            best = t;
    return best;
}

/* All pieces by best fit, which come largest first; false and nothing changed: one has no place. */
static bool place_pieces(struct gplan *g, uint32_t model, double rps)
{
    uint32_t type = g->p->n_types > 1 ? best_type(g, model, rps) : 0;
    uint32_t knee = glet_knee(g, type, model);
    size_t bytes = 2 * (size_t)g->p->n_devices * sizeof(*g->let);
    struct piece piece;

    memcpy(g->saved, g->let, bytes);
    while (knee != PLAN_NONE && rps > GLET_EPS) {
        if (!glet_piece(g, type, knee, model, rps, &piece) ||
            glet_fit(g, model, &piece) == PLAN_NONE)
            break;
        rps -= piece.rps;
    }
    if (rps <= GLET_EPS)
        return true;
    memcpy(g->let, g->saved, bytes);
    return false;
}

static uint32_t largest_free(const struct gplan *g)
{
    uint32_t best = PLAN_NONE;

    for (uint32_t k = 0; k < 2 * g->p->n_devices; k++)
        if (g->let[k].granules && g->let[k].n == 0 && !g->skip[k] &&
            (best == PLAN_NONE || g->let[k].granules > g->let[best].granules))
            best = k;
    return best;
}

/* Walk the free gpu-lets from the largest down, each with the piece that suits its own size (a
 * whole device is cut at the knee). */
static double readjust(struct gplan *g, uint32_t model, double rps)
{
    memset(g->skip, 0, 2 * (size_t)g->p->n_devices * sizeof(*g->skip));
    while (rps > GLET_EPS) {
        uint32_t k = largest_free(g), type, size = 0;
        struct piece piece;
        if (k == PLAN_NONE)
            break;
        type = glet_type(g, k);
        while (size + 1 < g->n_sizes[type] && g->size[type][size + 1] <= g->let[k].granules)
            size++;
        if (!g->fixed && g->let[k].granules == g->p->type[type].n_granules)
            size = MIN(glet_knee(g, type, model), size);
        if (glet_piece(g, type, size, model, rps, &piece) && glet_put(g, k, model, &piece))
            rps -= piece.rps;
        else
            g->skip[k] = true;
    }
    return rps;
}

double glet_place(struct gplan *g, uint32_t model, double rps)
{
    double left_rps = place_pieces(g, model, rps) ? 0 : readjust(g, model, rps);

    left_rps = glet_merge(g, model, left_rps);
    return glet_share_time(g, model, left_rps);
}

/* What a placement has cost others (and the newcomer) beside whom it lies is added to what is
 * still to be placed of them: of the first i models in the order. */
static void place_lost(struct gplan *g, uint32_t i)
{
    for (uint32_t j = 0; j < i; j++) {
        uint32_t m = g->order[j];
        double lost = g->had_rps[m] - glet_planned(g, m);
        if (lost > GLET_EPS)
            (void)glet_place(g, m, lost);
        g->had_rps[m] = fmin(g->had_rps[m], glet_planned(g, m));
    }
}

void glet_place_all(struct gplan *g)
{
    for (uint32_t i = 0; i < g->p->n_models; i++) {
        uint32_t m = g->order[i];
        g->had_rps[m] = g->rate_rps[m] - glet_place(g, m, g->rate_rps[m]);
        if (g->interference)
            place_lost(g, i + 1);
    }
    for (uint32_t i = 0; g->interference && i < g->p->n_models; i++) {
        uint32_t m = g->order[i];
        double planned = glet_planned(g, m);
        if (planned < GLET_ACCEPT * g->rate_rps[m])
            (void)glet_place(g, m, g->rate_rps[m] - planned);
    }
}

static int make(const struct problem *p, bool interference, struct arena *a, struct plan *ret,
                struct err *err)
{
    struct gplan g = {.interference = interference};
    int r = glet_begin(&g, p, a, err);

    if (r < 0)
        return r;
    glet_place_all(&g);
    return glet_end(&g, a, interference ? GLET_ACCEPT : 1, ret, err);
}

static int make_gpulet(const struct problem *p, const struct plan *was, struct arena *a,
                       struct plan *ret, struct err *err)
{
    (void)was;
    return make(p, false, a, ret, err);
}

static int make_gpulet_int(const struct problem *p, const struct plan *was, struct arena *a,
                           struct plan *ret, struct err *err)
{
    (void)was;
    return make(p, true, a, ret, err);
}

const struct policy policy_gpulet = {
    .name = "gpulet",
    .plan_make = make_gpulet,
    .admit = open_admit,
    .route = weighted_route,
    .batch_next = greedy_batch_next,
};

const struct policy policy_gpulet_int = {
    .name = "gpulet-int",
    .plan_make = make_gpulet_int,
    .admit = open_admit,
    .route = weighted_route,
    .batch_next = greedy_batch_next,
};
