/* A first plan: pieces, residues, devices.
 *
 * Each model's rate is cut into saturated pieces at its cheapest cell; what is left over is a
 * residue.  A residue that nearly fills some small gpu-let gets it; the others share gpu-lets in
 * time, packed like squishy bins (Nexus, SOSP'19; gpu-lets, section 4.1) but by the rule's own
 * cycle.  Each shared gpu-let then shrinks to the smallest size that still holds.  At last gpu-lets
 * go onto devices, largest first, each where the fewest granules are free (best fit decreasing),
 * with its neighbours' interference; a gpu-let that does not hold beside them may grow.  Where
 * neighbours disturb too much nobody has one: pack_whole.c. */
#include "make_priv.h"
#include <math.h>

#define SEARCH_DEVICES 64 /* up to so many, all are tried */
#define REFUSED_MOST 4
#define RING 8 /* shared gpu-lets that a residue is tried in */

/* Stable merge sort of order[n] by key[order[i]], ascending.  scratch[n]. */
static void sort_by(const double *key, uint32_t *order, uint32_t n, uint32_t *scratch)
{
    for (uint32_t run = 1; run < n; run *= 2) {
        for (uint32_t from = 0; from < n; from += 2 * run) {
            uint32_t mid = MIN(from + run, n), to = MIN(from + 2 * run, n);
            uint32_t a = from, b = mid;
            for (uint32_t i = from; i < to; i++)
                scratch[i] = b == to || (a < mid && key[order[a]] <= key[order[b]]) ? order[a++]
                                                                                    : order[b++];
        }
        memcpy(order, scratch, n * sizeof(*order));
    }
}

void job_sort(struct job *j, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        j->order[i] = i;
    sort_by(j->key, j->order, n, j->scratch);
}

/* ---- onto devices */

static bool dev_take(struct job *j, uint32_t let, uint32_t device)
{
    struct save s = save_take(j);

    if (j->steps++ > j->limit)
        return false;
    if (let_put(j, let, device) && let_settle(j, let)) {
        j->dev[device].refused = 0;
        return true;
    }
    save_back(j, &s);
    j->dev[device].refused++;
    return false;
}

/* Where its neighbours are so tight that they bear nobody, others need not try. */
static bool bears_nobody(const struct job *j, uint32_t device)
{
    return j->p->n_devices > SEARCH_DEVICES && j->dev[device].refused >= REFUSED_MOST;
}

bool let_place(struct job *j, uint32_t let, bool opened, uint32_t avoid)
{
    uint32_t type = j->let[let].type, most = j->kind[type].t->n_granules;
    uint32_t tries = j->p->n_devices <= SEARCH_DEVICES ? SEARCH_DEVICES : 24, d, next;

    for (uint32_t free = let_granules(j, &j->let[let]); free < most && tries; free++)
        for (d = dev_of_free(j, type, free); d != PLAN_NONE && tries; d = next) {
            next = j->dev[d].next;
            if (d == avoid || bears_nobody(j, d) || (opened && j->dev[d].n_lets == 0))
                continue;
            tries--;
            if (dev_take(j, let, d))
                return true;
        }
    for (d = opened ? PLAN_NONE : dev_of_free(j, type, most); d != PLAN_NONE; d = j->dev[d].next)
        if (d != avoid) /* what one empty device does not take, no other does */
            return dev_take(j, let, d);
    return false;
}

/* ---- pieces */

bool float_new(struct job *j, uint32_t type, uint32_t at, uint32_t model, double rate_rps)
{
    uint32_t k = let_new(j, type, at);

    return k != PLAN_NONE && let_add(j, k, model, rate_rps);
}

/* The smallest size that serves the rate alone; n_sizes: none. */
uint32_t size_for(struct job *j, uint32_t model, uint32_t type, double rate_rps)
{
    uint32_t at = 0;

    while (at < j->kind[type].n_sizes && cell_of(j, model, type, at)->rps * (1 + 1e-9) < rate_rps)
        at++;
    return at;
}

static double size_price(const struct job *j, uint32_t type, uint32_t at)
{
    const struct kind *k = &j->kind[type];

    return at < k->n_sizes ? k->price * k->size[at] : INFINITY;
}

/* The class (type, size) in which a residue shares. */
static uint32_t share_size(struct job *j, const struct style *st, uint32_t m)
{
    const struct want *w = &j->want[m];
    const struct kind *k = &j->kind[w->type];
    uint32_t at = w->at;

    if (st->part > 0) {
        at = 0;
        while (at + 1 < k->n_sizes && k->size[at] < st->part * k->t->n_granules)
            at++;
    }
    while (at + 1 < k->n_sizes && cell_of(j, m, w->type, at)->rps == 0)
        at++;
    return cell_of(j, m, w->type, at)->rps > 0 ? at : w->at;
}

/* What sharing would cost: in a cycle of most of its SLO a residue's batch is small, and the fixed
 * part of a run then weighs more. */
static double shared_price(struct job *j, const struct style *st, uint32_t m, double rest)
{
    static const struct pressure nobody;
    const struct want *w = &j->want[m];
    uint32_t at = share_size(j, st, m);
    const struct cell *c = cell_of(j, m, w->type, at);
    const struct kind *k = &j->kind[w->type];
    double slo_us = w->slo_us < 1e15 ? w->slo_us : 1e7;
    double rows = floor(rest * 0.7 * slo_us / (1e6 * MAX(c->streams, 1u)));
    struct estimate e;

    if (!(c->rps > 0))
        return INFINITY;
    rows = fmax(1, fmin(rows, c->batch));
    if (!ask(j, m, w->type, k->size[at] * k->t->granule_units, c->streams, (uint32_t)rows, &nobody,
             &e))
        return INFINITY;
    double duty = rest * e.hold_us / (1e6 * rows * c->streams);
    return fmin(duty, 1) * size_price(j, w->type, at);
}

/* Saturated pieces of a model, and a gpu-let of its own for the rest if that wastes little. *rest
 * is what should share. */
static bool pieces(struct job *j, const struct style *st, uint32_t m, double *rest)
{
    const struct want *w = &j->want[m];
    double rps = cell_of(j, m, w->type, w->at)->rps;
    double n = floor(w->rate_rps / rps * (1 + 1e-9));

    if (n * size_price(j, w->type, w->at) > j->all_price * 1.001)
        return false;
    *rest = fmax(0, w->rate_rps - n * rps);
    if (*rest < 1e-9 * w->rate_rps)
        *rest = 0;
    if (n >= 1 && *rest > 0) { /* one piece and the rest together */
        uint32_t at = size_for(j, m, w->type, rps + *rest);
        double apart = size_price(j, w->type, w->at) + shared_price(j, st, m, *rest);
        if (size_price(j, w->type, at) <= apart * (1 + st->waste)) {
            if (!float_new(j, w->type, at, m, rps + *rest))
                return false;
            *rest = 0;
            n--;
        }
    }
    for (; n >= 1; n--)
        if (!float_new(j, w->type, w->at, m, rps))
            return false;
    uint32_t at = size_for(j, m, w->type, *rest);
    bool alone = *rest > 0 &&
                 (j->p->rules.max_shares == 1 ||
                  size_price(j, w->type, at) <= shared_price(j, st, m, *rest) * (1 + st->waste));
    if (alone) {
        bool ok = at < j->kind[w->type].n_sizes && float_new(j, w->type, at, m, *rest);
        *rest = 0;
        return ok;
    }
    return true;
}

static bool join_ring(struct job *j, const uint32_t *ring, uint32_t n, uint32_t m, double rate_rps)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct let *l = &j->let[ring[i]];
        double rps = cell_of(j, m, l->type, l->at)->rps;
        if (!(rps > 0) || l->used + rate_rps / rps > 1 + 1e-9)
            continue;
        struct save s = save_take(j);
        if (let_add(j, ring[i], m, rate_rps) && let_settle(j, ring[i]))
            return true;
        save_back(j, &s);
    }
    return false;
}

/* Residues in order of class, then of SLO or of how much of a gpu-let they need. */
static bool residues(struct job *j, const struct style *st)
{
    uint32_t ring[RING], n_ring = 0, class = PLAN_NONE;

    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct want *w = &j->want[m];
        j->key[m] = INFINITY;
        if (!(j->rest[m] > 0) && !(w->rate_rps == 0 && w->type != PLAN_NONE))
            continue;
        uint32_t at = share_size(j, st, m);
        double slo = w->slo_us < 1e15 ? log(w->slo_us + 1) / 40 : 1;
        double need = 1 - fmin(1, j->rest[m] / cell_of(j, m, w->type, at)->rps);
        j->key[m] = (w->type * SIZES_MAX + at) * 2 + fmin(st->by_slo ? slo : need, 1);
    }
    job_sort(j, j->p->n_models);
    for (uint32_t i = 0; i < j->p->n_models && j->key[j->order[i]] < INFINITY; i++) {
        uint32_t m = j->order[i], at = share_size(j, st, m), type = j->want[m].type;
        if (class != type * SIZES_MAX + at)
            n_ring = 0;
        class = type * SIZES_MAX + at;
        save_commit(j);
        if (join_ring(j, ring, n_ring, m, j->rest[m]))
            continue;
        if (!float_new(j, type, at, m, j->rest[m]))
            return false;
        uint32_t k = j->last_let;
        while (!let_settle(j, k) && j->let[k].at + 1 < j->kind[type].n_sizes)
            touch_let(j, k)->at++; /* beside neighbours it takes more; or is poured in the end */
        n_ring = MIN(n_ring, RING - 1u);
        memmove(&ring[1], ring, n_ring * sizeof(*ring));
        ring[0] = k;
        n_ring++;
    }
    return true;
}

static uint32_t spare_granules(const struct job *j, uint32_t k)
{
    const struct let *l = &j->let[k];

    return l->device == FLOATING ? SIZES_MAX - l->at : j->dev[l->device].free;
}

/* To the smallest size at which it still holds, without growing its neighbours as much. */
void let_shrink(struct job *j, uint32_t k)
{
    while (j->let[k].at > 0) {
        struct save s = save_take(j);
        uint32_t spare = spare_granules(j, k);
        if (let_resize(j, k, j->let[k].at - 1) && let_settle(j, k) && spare_granules(j, k) > spare)
            continue;
        save_back(j, &s);
        return;
    }
}

/* Everything that floats, largest first.  What finds no device keeps floating. */
static void floats_place(struct job *j)
{
    uint32_t most = 0;

    for (uint32_t t = 0; t < j->p->n_types; t++)
        most = MAX(most, j->kind[t].t->n_granules);
    for (uint32_t n = most; n > 0; n--)
        for (uint32_t k = 0; k < j->n_lets; k++)
            if (j->let[k].device == FLOATING && let_granules(j, &j->let[k]) == n) {
                (void)let_place(j, k, false, PLAN_NONE);
                save_commit(j);
            }
}

/* What still floats is poured: into any gpu-let with room, or new ones of what sizes fit. */
static void floats_pour(struct job *j)
{
    for (uint32_t k = 0; k < j->n_lets; k++) {
        if (j->let[k].device != FLOATING)
            continue;
        while (j->let[k].n_shares) {
            uint32_t m = j->let[k].share[0].model;
            double rate = j->let[k].share[0].rate_rps;
            let_drop(j, k, 0);
            (void)pour(j, m, rate, false, PLAN_NONE);
        }
        let_free(j, k);
        save_commit(j);
    }
}

static bool all_float(struct job *j, const struct style *st)
{
    double price = 0;

    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct want *w = &j->want[m];
        j->rest[m] = 0;
        if (w->type == PLAN_NONE || w->rate_rps == 0 || w->hopeless)
            continue;
        price += w->rate_rps * w->cost;
        if (price > 1.5 * j->all_price) /* far too much: in turn, then */
            return false;
        if (!pieces(j, st, m, &j->rest[m]) || j->full)
            return false;
        save_commit(j);
    }
    return j->p->rules.max_shares == 1 || residues(j, st);
}

bool pack(struct job *j, const struct style *st)
{
    if (!(st->whole ? whole_float(j) : all_float(j, st)))
        return false;
    for (uint32_t k = 0; k < j->n_lets; k++)
        if (!st->whole && j->let[k].device == FLOATING && j->let[k].n_shares > 0 &&
            j->let[k].used < 0.97) {
            let_shrink(j, k);
            save_commit(j);
        }
    floats_place(j);
    floats_pour(j);
    return !j->full;
}

/* One model after the other, by priority and then the cheapest request first: what over-subscribed
 * devices get. */
bool pack_in_turn(struct job *j)
{
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct want *w = &j->want[m];
        int32_t level = j->p->model[m].priority;
        double rank = level > 0 ? fmin(level, 1e6) : 1e6;
        j->key[m] = w->hopeless ? 1e9 : rank + w->cost / (w->cost + 1) * 0.999;
    }
    job_sort(j, j->p->n_models);
    for (uint32_t i = 0; i < j->p->n_models && !j->full; i++) {
        if (j->want[j->order[i]].type != PLAN_NONE && !j->want[j->order[i]].hopeless)
            (void)pour(j, j->order[i], j->want[j->order[i]].rate_rps, false, PLAN_NONE);
        save_commit(j);
    }
    return !j->full;
}
