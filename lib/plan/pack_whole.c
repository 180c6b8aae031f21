/* Whole devices: the quietest gpu-let is one that has no neighbour.
 *
 * Where neighbours disturb each other (short runs wait for others' kernels most of all) it can cost
 * less to give a model all of a device, and to share what is left over in time: companions in a
 * gpu-let take turns and do not disturb each other.  What time costs instead: the fixed part of a
 * run is then paid on all granules, once a cycle.  So a cycle should be as long as it may be.
 *
 * A cycle and then one's own run fit in one's SLO, and a share that needs the part x of the cycle
 * runs for x of it: alone it could bear a cycle of SLO / (1 + x).  Residues are sorted by that, and
 * each device is filled from one stretch of the order, so that everybody's cycle is nearly the one
 * that it could bear: the largest that fits first (a small model with a short SLO beside a large
 * one with a longer SLO), the last gap from a longer stretch. */
#include "make_priv.h"
#include <math.h>

#define NEAR 10    /* residues from which a device is filled, and */
#define FAR 128    /* those for its last gap */
#define FAILS 12   /* that did not hold after all: it is full */
#define OVER 0.03  /* needs are estimates: so much over full is worth a try */
#define ALONE 0.93 /* who needs that much has the device alone */
#define APART 1.05 /* what geometry adds to prices of gpu-lets that have neighbours */

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

/* Part of the longest cycle that all of its shares can bear. */
static double fill_of(struct job *j, const struct let *l)
{
    double us = INFINITY, most_us = INFINITY, fill = 0, run_us;

    for (uint32_t i = 0; i < l->n_shares; i++)
        us = fmin(us, 0.7 * j->want[l->share[i].model].slo_us);
    for (uint32_t i = 0; i < l->n_shares && us < INFINITY; i++) {
        uint32_t m = l->share[i].model;
        (void)part_of(j, m, l->share[i].rate_rps, us, &run_us);
        most_us = fmin(most_us, j->want[m].slo_us - run_us);
    }
    most_us = fmax(most_us, 1);
    for (uint32_t i = 0; i < l->n_shares && most_us < INFINITY; i++)
        fill += part_of(j, l->share[i].model, l->share[i].rate_rps, most_us, &run_us);
    return fill;
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
 * they could bear, key[] the part of it that they need. */
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
        j->key[m] = fmin(w->slo_us, 1e15) / (1 + left / rps);
        n++;
    }
    job_sort(j, j->p->n_models);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t m = j->order[i];
        double run_us;
        j->key[m] = part_of(j, m, j->rest[m], j->key[m], &run_us);
    }
    *ret = n;
    return true;
}

/* Of the next `most` residues behind `from` that are left: the largest that fits into gpu-let k
 * and was not tried there.  victim[] is who tried a residue last. */
static uint32_t next_find(const struct job *j, uint32_t k, uint32_t from, uint32_t n, uint32_t most,
                          double room)
{
    uint32_t best = PLAN_NONE;
    double need = 0;

    for (uint32_t i = from, seen = 0; i < n && seen < most; i++) {
        uint32_t m = j->order[i];
        if (j->rest[m] == 0)
            continue;
        seen++;
        if (j->victim[m] == k || j->want[m].type != j->let[k].type || j->key[m] > room ||
            j->key[m] <= need)
            continue;
        best = m;
        need = j->key[m];
    }
    return best;
}

static void fill_up(struct job *j, uint32_t k, uint32_t from, uint32_t n)
{
    uint32_t most = NEAR, fails = 0;
    double fill = fill_of(j, &j->let[k]);

    while (fails < FAILS && !j->full) {
        uint32_t m = next_find(j, k, from, n, most, 1 + OVER - fill);
        if (m == PLAN_NONE && most == FAR)
            return;
        if (m == PLAN_NONE) {
            most = FAR;
            continue;
        }
        struct save s = save_take(j);
        j->victim[m] = k;
        if (let_add(j, k, m, j->rest[m]) && let_settle(j, k)) {
            j->rest[m] = 0;
            fill = fill_of(j, &j->let[k]);
            save_commit(j);
        } else {
            save_back(j, &s);
            fails++;
        }
    }
}

bool whole_float(struct job *j)
{
    uint32_t n = 0;

    if (!pieces(j, &n))
        return false;
    for (uint32_t m = 0; m < j->p->n_models; m++)
        j->victim[m] = PLAN_NONE;
    save_commit(j);
    for (uint32_t i = 0; i < n && !j->full; i++) {
        uint32_t m = j->order[i], type = j->want[m].type;
        if (j->rest[m] == 0)
            continue;
        if (!float_new(j, type, whole_at(&j->kind[type]), m, j->rest[m]))
            return false;
        uint32_t k = j->last_let;
        (void)let_settle(j, k); /* what does not hold is poured in the end */
        j->rest[m] = 0;
        if (j->key[m] < ALONE)
            fill_up(j, k, i + 1, n);
        save_commit(j);
    }
    return !j->full;
}
