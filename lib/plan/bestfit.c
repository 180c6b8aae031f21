/* policy = greedy: best fit by rate, as GSLICE does it (the baseline of gpu-lets, ATC'22, section
 * 6.1).  Model by model: the smallest gpu-let that serves what is left of the rate, else the
 * largest, put where it fits best, again and again.  No sharing in time, no interference. */
#include "gpulet.h"

#include <math.h>

static bool next_piece(const struct gplan *g, uint32_t type, uint32_t model, double rps,
                       struct piece *ret)
{
    bool any = false;

    for (uint32_t i = 0; i < g->n_sizes[type]; i++) {
        double most;
        uint32_t b = glet_saturated(g, type, g->size[type][i], model, NULL, &most);
        if (b == 0)
            continue;
        *ret = (struct piece){g->size[type][i], b, true, fmin(rps, most), 1e6 * b / most};
        any = true;
        if (most >= rps)
            break;
    }
    return any;
}

static void place(struct gplan *g, uint32_t model)
{
    double rps = g->rate_rps[model];
    struct piece piece;

    for (uint32_t type = 0; type < g->p->n_types; type++)
        while (rps > GLET_EPS && next_piece(g, type, model, rps, &piece) &&
               glet_fit(g, model, &piece) != PLAN_NONE)
            rps -= piece.rps;
}

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    struct gplan g = {0};
    int r = glet_begin(&g, p, a, err);

    (void)was;
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < p->n_models; i++)
        place(&g, g.order[i]);
    return glet_end(&g, a, 1, ret, err);
}

const struct policy policy_greedy = {
    .name = "greedy",
    .plan_make = make,
    .admit = greedy_admit,
    .route = greedy_route,
    .batch_next = greedy_batch_next,
};
