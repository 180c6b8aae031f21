/* From a running plan: what has changed is planned, the rest stays where it is.
 *
 * A model has changed when its key has (SLO, profile, memory, rules, devices: model_key()) or its
 * rate, or when it was not met.  A rate that falls is taken from the smallest of its shares; one
 * that rises is poured like what is left over in a new plan.  Gpu-lets that nobody touches keep the
 * running plan's shares, byte for byte, and are not looked at.  If somebody cannot be served this
 * way the whole is planned anew. */
#include "make_priv.h"
#include <math.h>

static uint32_t size_at(const struct kind *k, uint32_t n)
{
    uint32_t lo = 0, hi = k->n_sizes;

    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (k->size[mid] < n)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < k->n_sizes && k->size[lo] == n ? lo : PLAN_NONE;
}

static uint32_t class_of(uint32_t n)
{
    uint32_t class = 0;

    while (1u << class < n)
        class ++;
    return class;
}

static double used_of(const struct plan_gpulet *g)
{
    double used = 0;

    for (uint32_t i = 0; i < g->n_shares; i++)
        used += g->share[i].rate_rps * (double)g->share[i].run_us /
                (1e6 * g->share[i].batch * MAX(g->share[i].streams, 1u));
    return used;
}

/* Its shares are borrowed until something touches them. */
static bool let_import(struct job *j, uint32_t k)
{
    const struct plan_gpulet *g = &j->was->gpulet[k];
    struct let *l = &j->let[k];

    if (g->device >= j->p->n_devices || g->n_shares > LET_SHARES_MAX)
        return false;
    const struct kind *kind = &j->kind[j->p->device[g->device].type];
    uint32_t at = size_at(kind, g->units / kind->t->granule_units);
    if (at == PLAN_NONE)
        return false;
    *l = (struct let){.device = g->device,
                      .type = j->p->device[g->device].type,
                      .at = at,
                      .next = j->dev[g->device].first,
                      .n_shares = g->n_shares,
                      .class = class_of(g->n_shares),
                      .was = k,
                      .used = used_of(g),
                      .set = g->set,
                      .share = g->share,
                      .borrowed = true};
    for (uint32_t i = 0; i < g->n_shares; i++) {
        if (g->share[i].model >= j->p->n_models || g->share[i].streams == 0)
            return false; /* not one of ours */
        j->rest[g->share[i].model] += g->share[i].rate_rps;
        j->judged[g->share[i].model].placed = true;
    }
    return dev_import(j, g->device, k);
}

static bool import(struct job *j)
{
    uint32_t n = j->was->n_gpulets;

    j->let = ARENA_ARRAY(j->a, struct let, n + 64);
    if (!j->let)
        return false;
    j->max_lets = n + 64;
    j->n_lets = n;
    for (uint32_t k = 0; k < n; k++)
        if (!let_import(j, k))
            return false;
    return true;
}

/* ---- one model */

static uint32_t share_in(const struct let *l, uint32_t m)
{
    for (uint32_t i = 0; i < l->n_shares; i++)
        if (l->share[i].model == m)
            return i;
    return PLAN_NONE;
}

static bool falls(struct job *j, uint32_t m, double less_rps)
{
    while (less_rps > 1e-9 * j->want[m].rate_rps) {
        uint32_t least = PLAN_NONE, at = 0;
        for (uint32_t k = 0; k < j->n_lets; k++) {
            uint32_t i = j->let[k].device < FLOATING ? share_in(&j->let[k], m) : PLAN_NONE;
            if (i == PLAN_NONE || (least != PLAN_NONE &&
                                   j->let[k].share[i].rate_rps >= j->let[least].share[at].rate_rps))
                continue;
            least = k;
            at = i;
        }
        if (least == PLAN_NONE)
            return false;
        double has = j->let[least].share[at].rate_rps;
        if (has > less_rps || !(j->want[m].rate_rps > 0)) {
            touch_let(j, least)->share[at].rate_rps = fmax(0, has - less_rps);
            return let_settle(j, least);
        }
        let_drop(j, least, at);
        if (j->let[least].n_shares == 0)
            let_free(j, least);
        else if (!let_settle(j, least))
            return false;
        less_rps -= has;
    }
    return true;
}

/* Its shares as it is now; where one no longer holds it is taken out.  Returns what that leaves. */
static double holds_again(struct job *j, uint32_t m)
{
    double lost = 0;

    for (uint32_t k = 0; k < j->n_lets; k++) {
        uint32_t i = j->let[k].device < FLOATING ? share_in(&j->let[k], m) : PLAN_NONE;
        if (i == PLAN_NONE)
            continue;
        struct save s = save_take(j);
        if (let_settle(j, k))
            continue;
        save_back(j, &s);
        lost += j->let[k].share[i].rate_rps;
        let_drop(j, k, i);
        if (j->let[k].n_shares == 0)
            let_free(j, k);
    }
    return lost;
}

static bool model_change(struct job *j, uint32_t m, bool other)
{
    want_make(j, m);
    const struct want *w = &j->want[m];
    double has = j->rest[m];

    if (other && j->judged[m].placed)
        has -= holds_again(j, m);
    if (!j->judged[m].placed && w->rate_rps == 0)
        return w->type == PLAN_NONE || pour_place(j, m, false, PLAN_NONE);
    if (has > w->rate_rps)
        return falls(j, m, has - w->rate_rps);
    double more = w->rate_rps - has;
    return !(more > 1e-9 * w->rate_rps) ||
           !(pour(j, m, more, false, PLAN_NONE) > 1e-6 * w->rate_rps);
}

/* Who has changed: j->order[n]. */
static uint32_t changes_find(struct job *j)
{
    uint64_t key = problem_key(j->p);
    uint32_t n = 0;

    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct plan_verdict *v = &j->was->verdict[m];
        double rate = j->p->model[m].rate_rps;
        j->key_of[m] = model_key(j->p, m, key);
        bool same = v->key == j->key_of[m] && v->limit == LIMIT_NONE && j->judged[m].placed &&
                    fabs(j->rest[m] - rate) <= 1e-9 * rate;
        if (!same)
            j->order[n++] = m;
    }
    return n;
}

/* By the queue's rule what a change does is estimated, and counted when it is judged: is anybody
 * late by that who was not before, or was not there? */
static bool somebody_fails(const struct job *j)
{
    for (uint32_t m = 0; m < j->p->n_models; m++) {
        const struct plan_verdict *was = &j->was->verdict[m];
        if (j->judged[m].fails && (was->limit == LIMIT_NONE || was->key != j->key_of[m]))
            return true;
    }
    return false;
}

int make_from(struct job *j, struct plan *ret)
{
    if (j->was->n_models != j->p->n_models || !j->was->verdict || !import(j))
        return 0;
    uint32_t n = changes_find(j);
    if (n > j->p->n_models / 4 + 4)
        return 0;        /* most of it is new */
    bool others = false; /* more than rates */
    j->limit = j->steps + 1000 * (uint64_t)n + 4 * j->budget;
    for (uint32_t i = 0; i < n && !j->full; i++) {
        uint32_t m = j->order[i];
        bool other = j->was->verdict[m].key != j->key_of[m];
        others |= other;
        if (!model_change(j, m, other))
            return 0;
        save_commit(j);
    }
    for (uint32_t d = 0; others && d < j->p->n_devices; d++)
        if (!mem_holds(j, d))
            return 0; /* a model grew, and those beside it have no room any more */
    int r = j->full ? -ENOMEM : job_emit(j, ret);
    if (r < 0)
        return r;
    memcpy(ret->verdict, j->was->verdict, j->p->n_models * sizeof(*ret->verdict));
    r = job_judge_changed(j, ret, j->order, n);
    return r < 0 ? r : !somebody_fails(j);
}
