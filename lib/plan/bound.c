/* The fluid bound: no plan does with less.
 *
 * Each request of a model costs at least the granules of its cheapest cell (make_cells.c) times
 * their part of a second: no geometry, no neighbours, no residue. */
#include "make_priv.h"

double plan_bound(const struct problem *p, struct arena *a)
{
    struct job j;
    double bound = 0;

    if (job_init(&j, p, NULL, a) < 0)
        return 0;
    for (uint32_t m = 0; m < p->n_models; m++) {
        want_make(&j, m);
        bound += j.want[m].least * p->model[m].rate_rps;
    }
    return bound;
}
