/* Better plans from a plan: pouring a rate into what room there is, emptying devices.
 *
 * Everything is tried on the state itself and taken back when it leads nowhere; the budget of
 * steps, not a clock, ends it. */
#include "make_priv.h"
#include <math.h>

#define POUR_TRIES 6

/* ---- pouring */

static bool let_join(struct job *j, uint32_t k, uint32_t m, double rate_rps)
{
    struct save s = save_take(j);

    if (j->steps++ > j->limit)
        return false;
    if (let_add(j, k, m, rate_rps) && let_settle(j, k))
        return true;
    save_back(j, &s);
    return false;
}

struct room {
    uint32_t let;
    double rps; /* of this model that would fit by utilisation */
};

/* The best few gpu-lets for a rate: those that it just fills, then those with most room. */
static uint32_t rooms_find(struct job *j, uint32_t m, double rate_rps, uint32_t avoid,
                           struct room *ret)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < j->n_lets; k++) {
        const struct let *l = &j->let[k];
        if (l->device >= FLOATING || l->device == avoid || l->used > 0.995)
            continue;
        double rps = cell_of(j, m, l->type, l->at)->rps * (1 - l->used);
        if (!(rps > 0.02 * rate_rps))
            continue;
        bool fits = rps >= rate_rps;
        uint32_t at = n;
        for (; at > 0; at--) {
            bool theirs = ret[at - 1].rps >= rate_rps;
            if (theirs != fits ? theirs : fits ? ret[at - 1].rps <= rps : ret[at - 1].rps >= rps)
                break;
            if (at < POUR_TRIES)
                ret[at] = ret[at - 1];
        }
        if (at < POUR_TRIES) {
            ret[at] = (struct room){k, rps};
            n = MIN(n + 1, (uint32_t)POUR_TRIES);
        }
    }
    j->steps += j->n_lets / 16;
    return n;
}

static double pour_into(struct job *j, uint32_t m, double rate_rps, uint32_t avoid)
{
    struct room room[POUR_TRIES];
    uint32_t n = rooms_find(j, m, rate_rps, avoid, room);

    for (uint32_t i = 0; i < n && rate_rps > 0; i++) {
        if (let_join(j, room[i].let, m, rate_rps))
            return 0;
        for (double part = 0.999; part > 0.2; part *= 0.7) {
            double rps = fmin(room[i].rps, rate_rps) * part;
            if (rps < 0.05 * rate_rps || !let_join(j, room[i].let, m, rps))
                continue;
            rate_rps -= rps;
            break;
        }
    }
    return rate_rps;
}

/* The sizes worth trying for a rate on a type: the one that just serves it, and smaller ones. */
static double pour_new(struct job *j, uint32_t m, double rate_rps, uint32_t type, bool opened,
                       uint32_t avoid)
{
    const struct kind *k = &j->kind[type];

    while (rate_rps > 0) {
        uint32_t at = size_for(j, m, type, rate_rps);
        const struct want *w = &j->want[m];
        if (w->type == type && rate_rps >= cell_of(j, m, type, w->at)->rps)
            at = w->at; /* a saturated piece */
        bool placed = false;
        for (at = MIN(at, k->n_sizes - 1); !placed; at--) {
            double rps = fmin(rate_rps, cell_of(j, m, type, at)->rps);
            if (rps > 0 || (rate_rps == 0 && cell_of(j, m, type, at)->rps > 0)) {
                struct save s = save_take(j);
                uint32_t let = let_new(j, type, at);
                placed =
                    let != PLAN_NONE && let_add(j, let, m, rps) && let_place(j, let, opened, avoid);
                if (placed)
                    rate_rps -= rps;
                else
                    save_back(j, &s);
            }
            if (at == 0)
                break;
        }
        if (!placed || j->full)
            break;
        if (rate_rps < 1e-9 * j->want[m].rate_rps)
            rate_rps = 0;
    }
    return rate_rps;
}

static double pour_types(struct job *j, uint32_t m, double rate_rps, bool opened, uint32_t avoid)
{
    if (j->want[m].type != PLAN_NONE)
        rate_rps = pour_new(j, m, rate_rps, j->want[m].type, opened, avoid);
    for (uint32_t t = 0; t < j->p->n_types && rate_rps > 0; t++)
        if (t != j->want[m].type && j->kind[t].has_devices)
            rate_rps = pour_new(j, m, rate_rps, t, opened, avoid);
    return rate_rps;
}

double pour(struct job *j, uint32_t m, double rate_rps, bool opened, uint32_t avoid)
{
    const struct want *w = &j->want[m];

    if (w->type == PLAN_NONE)
        return rate_rps;
    double rps = cell_of(j, m, w->type, w->at)->rps;
    if (rate_rps >= rps) { /* whole pieces first: they cannot share */
        double pieces = floor(rate_rps / rps) * rps;
        rate_rps += pour_new(j, m, pieces, w->type, opened, avoid) - pieces;
    }
    if (rate_rps > 0 && j->p->rules.max_shares != 1)
        rate_rps = pour_into(j, m, rate_rps, avoid);
    return rate_rps > 0 ? pour_types(j, m, rate_rps, opened, avoid) : 0;
}

/* A model that wants a place but no rate, or whose SLO cannot be held: anywhere it does no harm. */
bool pour_place(struct job *j, uint32_t m, bool opened, uint32_t avoid)
{
    for (uint32_t k = 0; k < j->n_lets; k++)
        if (j->let[k].device < FLOATING && j->let[k].device != avoid &&
            j->p->rules.max_shares != 1 && let_join(j, k, m, 0))
            return true;
    for (uint32_t t = 0; t < j->p->n_types; t++)
        for (uint32_t at = 0; at < j->kind[t].n_sizes && j->kind[t].has_devices; at++) {
            struct save s = save_take(j);
            uint32_t let = cell_of(j, m, t, at)->rps > 0 ? let_new(j, t, at) : PLAN_NONE;
            if (let != PLAN_NONE && let_add(j, let, m, 0) && let_place(j, let, opened, avoid))
                return true;
            save_back(j, &s);
        }
    return false;
}

/* ---- emptying a device */

static bool dissolve(struct job *j, uint32_t device)
{
    struct save s = save_take(j);

    while (j->dev[device].first != PLAN_NONE) {
        uint32_t k = j->dev[device].first;
        let_lift(j, k);
        if (let_place(j, k, true, device))
            continue;
        bool moved = true;
        while (moved && j->let[k].n_shares) {
            struct plan_share sh = j->let[k].share[0];
            let_drop(j, k, 0);
            moved = sh.rate_rps > 0 ? !(pour(j, sh.model, sh.rate_rps, true, device) > 0)
                                    : pour_place(j, sh.model, true, device);
        }
        if (!moved || j->full || j->n_undo > UNDO_MOST) {
            save_back(j, &s);
            return false;
        }
        let_free(j, k);
    }
    return true;
}

static double dev_load(const struct job *j, uint32_t device)
{
    double load = 0;

    for (uint32_t k = j->dev[device].first; k != PLAN_NONE; k = j->let[k].next)
        load += let_granules(j, &j->let[k]) * fmin(1, j->let[k].used);
    return load * j->kind[j->dev[device].type].price;
}

/* All gpu-lets as small as they can be, so that others find room (but where nobody shall). */
static void shrink_all(struct job *j)
{
    for (uint32_t k = 0; k < j->n_lets && !j->whole; k++)
        if (j->let[k].device < FLOATING && j->let[k].used < 0.97) {
            let_shrink(j, k);
            save_commit(j);
        }
}

/* Empty the least used devices while some can be emptied. */
void improve(struct job *j, uint32_t enough)
{
    uint64_t until = j->steps + j->budget;

    shrink_all(j);
    for (bool better = true; better && !j->full;) {
        uint32_t n = 0, failed = 0;
        better = false;
        for (uint32_t d = 0; d < j->p->n_devices; d++)
            if (j->dev[d].n_lets)
                j->victim[n++] = d;
        for (uint32_t i = 0; i < n; i++)
            j->key[i] = dev_load(j, j->victim[i]);
        job_sort(j, n);
        for (uint32_t i = 0, left = n; i < n && left > enough && failed < 8; i++) {
            if (j->steps >= until)
                return;
            bool empty = dissolve(j, j->victim[j->order[i]]);
            save_commit(j);
            failed += !empty;
            left -= empty;
            better |= empty;
        }
    }
}
