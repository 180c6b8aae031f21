/* Whole devices: the quietest gpu-let is one that has no neighbour.
 *
 * Where neighbours disturb each other (short runs wait for others' kernels most of all) it can cost
 * less to give a model all of a device, and to share what is left over in time: companions in a
 * gpu-let take turns and do not disturb each other.  What time costs instead: the fixed part of a
 * run is then paid on all granules, once a cycle.  So a cycle should be as long as it may be.
 *
 * A cycle and then one's own run fit in one's SLO.  So each residue has a cycle in which it needs
 * the least part of a device, which is its worth: the longest that it can bear, and one in which
 * whole rows come.  Residues are sorted by that cycle.  The first that is left opens a device and
 * sets the cycle there; who joins it is a knapsack: of the next residues, each with what it needs
 * in this cycle, those that are worth the most together. */
#include "make_priv.h"
#include <math.h>

#define WINDOW 24      /* residues that a device is filled from */
#define FAR 128        /* looked at for that */
#define NODES 200      /* of the search for the best of them */
#define SHORT 0.999999 /* of a cycle: rounding adds no row */
#define APART 1.05     /* what geometry adds to prices of gpu-lets that have neighbours */

static uint32_t whole_at(const struct kind *k)
{
    return k->n_sizes - 1;
}

static double rows_in(double rate_rps, double us, uint32_t most)
{
    return fmin(fmax(ceil(rate_rps * us / 1e6), 1), most);
}

/* Part of a cycle of `us` that a share holds a whole device. */
static double part_of(struct job *j, uint32_t m, double rate_rps, double us, double *run_us)
{
    static const struct pressure nobody;
    uint32_t type = j->want[m].type;
    const struct kind *k = &j->kind[type];
    const struct cell *c = cell_of(j, m, type, whole_at(k));
    struct estimate e;
    double rows = rows_in(rate_rps, us, c->batch);

    if (!ask(j, m, type, k->size[whole_at(k)] * k->t->granule_units, 1, (uint32_t)rows, &nobody,
             &e))
        return 1;
    *run_us = e.run_us;
    return e.hold_us / us;
}

/* The cycle in which a share needs the least part of a device, which is *ret: as long as it can
 * bear, as its run follows, and with whole rows. */
static double cycle_best(struct job *j, uint32_t m, double rate_rps, double *ret)
{
    const struct want *w = &j->want[m];
    const struct cell *c = cell_of(j, m, w->type, whole_at(&j->kind[w->type]));
    double slo_us = fmin(w->slo_us, 1e15), best_us = 1, run_us = 0;
    double rows = floor(rate_rps * slo_us / 1e6 / (1 + rate_rps / c->rps));

    *ret = INFINITY;
    for (double b = fmin(fmax(rows - 1, 1), c->batch); b <= fmin(rows + 2, c->batch); b++) {
        double us = 1e6 * b / rate_rps, hold_us = us * part_of(j, m, rate_rps, us * SHORT, &run_us);
        us = fmin(us, slo_us - run_us);
        if (us > 0 && hold_us / us < *ret) {
            *ret = hold_us / us;
            best_us = us;
        }
    }
    return best_us * SHORT;
}

/* What a residue needs of a cycle of `us`; infinite: it cannot bear it. */
static double need_of(struct job *j, uint32_t m, double us)
{
    const struct want *w = &j->want[m];
    const struct cell *c = cell_of(j, m, w->type, whole_at(&j->kind[w->type]));
    double run_us = INFINITY, need = part_of(j, m, j->rest[m], us, &run_us);

    return us + run_us > w->slo_us || j->rest[m] * us / 1e6 > c->batch ? INFINITY : need;
}

/* ---- is it worth a try? */

static double whole_cost(struct job *j, uint32_t m)
{
    const struct want *w = &j->want[m];
    const struct kind *k = &j->kind[w->type];
    double rps = cell_of(j, m, w->type, whole_at(k))->rps, run_us;

    if (!(rps > 0))
        return INFINITY;
    double pieces = floor(w->rate_rps / rps * (1 + 1e-9)), rest = w->rate_rps - pieces * rps;
    double us = fmin(w->slo_us, 1e9) / (1 + rest / rps);
    double part = rest > 1e-9 * w->rate_rps ? part_of(j, m, rest, us, &run_us) : 0;
    return (pieces + fmin(part, 1)) * k->price * k->size[whole_at(k)];
}

bool whole_pays(struct job *j)
{
    double whole = 0, apart = 0;

    if (j->p->rules.rule != RULE_PART || j->p->rules.max_shares == 1)
        return false;
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct want *w = &j->want[m];
        if (w->type == PLAN_NONE || w->hopeless || !(w->rate_rps > 0))
            continue;
        if (!j->kind[w->type].crowded)
            return false;
        apart += APART * w->cost * w->rate_rps;
        whole += whole_cost(j, m);
    }
    return whole > 0 && whole < apart;
}

/* ---- pieces and residues */

/* Saturated devices; rest[] is what should share, order[] those that have some by the cycle that
 * they can bear, which is key[]. */
static bool pieces(struct job *j, uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct want *w = &j->want[m];
        j->key[m] = INFINITY;
        j->rest[m] = 0;
        if (w->type == PLAN_NONE || w->hopeless || !(w->rate_rps > 0))
            continue;
        const struct kind *k = &j->kind[w->type];
        double rps = cell_of(j, m, w->type, whole_at(k))->rps, left = w->rate_rps;
        if (!(rps > 0) || left / rps > 2.0 * j->p->n_devices)
            return false;
        for (; left >= rps * (1 - 1e-9); left -= rps)
            if (!float_new(j, w->type, whole_at(k), m, fmin(rps, left)))
                return false;
        if (!(left > 1e-9 * w->rate_rps))
            continue;
        j->rest[m] = left;
        j->key[m] = cycle_best(j, m, left, &j->worth[m]);
        n++;
    }
    job_sort(j, j->p->n_models);
    *ret = n;
    return true;
}

/* ---- who shares a device: a knapsack */

struct knapsack {
    uint32_t n, nodes, model[WINDOW];
    double need[WINDOW], worth[WINDOW];
    double best;
    uint32_t taken; /* of the best, by bits */
};

/* In the order of worth for need. */
static void knapsack_add(struct knapsack *k, uint32_t m, double need, double worth)
{
    uint32_t at = k->n++;

    for (; at > 0 && k->worth[at - 1] * need < worth * k->need[at - 1]; at--) {
        k->model[at] = k->model[at - 1];
        k->need[at] = k->need[at - 1];
        k->worth[at] = k->worth[at - 1];
    }
    k->model[at] = m;
    k->need[at] = need;
    k->worth[at] = worth;
}

/* Depth first; no further than what is left of the room could make it better. */
static void knapsack_try(struct knapsack *k, uint32_t i, double room, double worth, uint32_t taken)
{
    if (worth > k->best) {
        k->best = worth;
        k->taken = taken;
    }
    for (; i < k->n && worth + room * k->worth[i] / k->need[i] > k->best; i++)
        if (k->need[i] <= room && k->nodes++ < NODES)
            knapsack_try(k, i + 1, room - k->need[i], worth + k->worth[i], taken | 1u << i);
}

/* Into gpu-let `let` of a first residue: others, from order[from] on. */
static void fill_up(struct job *j, uint32_t let, uint32_t first, uint32_t from, uint32_t n)
{
    double us = j->key[first], room = 1 - need_of(j, first, us);
    struct knapsack k = {0};

    for (uint32_t i = from, seen = 0; i < n && k.n < WINDOW && seen < FAR; i++) {
        uint32_t m = j->order[i];
        if (j->rest[m] == 0 || j->want[m].type != j->let[let].type)
            continue;
        seen++;
        double need = need_of(j, m, us);
        if (need <= room)
            knapsack_add(&k, m, need, j->worth[m]);
    }
    knapsack_try(&k, 0, room, 0, 0);
    for (uint32_t i = 0; i < k.n; i++) {
        if (!(k.taken >> i & 1))
            continue;
        struct save s = save_take(j);
        if (let_add(j, let, k.model[i], j->rest[k.model[i]]) && let_settle(j, let)) {
            j->rest[k.model[i]] = 0;
            save_commit(j);
        } else {
            save_back(j, &s);
        }
    }
}

bool whole_float(struct job *j)
{
    uint32_t n = 0;

    if (!pieces(j, &n))
        return false;
    save_commit(j);
    for (uint32_t i = 0; i < n && !j->full; i++) {
        uint32_t m = j->order[i], type = j->want[m].type;
        if (j->rest[m] == 0)
            continue;
        if (!float_new(j, type, whole_at(&j->kind[type]), m, j->rest[m]))
            return false;
        uint32_t let = j->last_let;
        (void)let_settle(j, let); /* what does not hold is poured in the end */
        save_commit(j);
        fill_up(j, let, m, i + 1, n);
        j->rest[m] = 0;
    }
    return !j->full;
}
