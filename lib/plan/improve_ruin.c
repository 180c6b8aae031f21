/* Ruin and recreate: a few devices are cleared and filled again in another order, and the result
 * is kept when it is no worse (Schrimpf et al., 2000; here with the planner's own packing as the
 * way to recreate).  Small problems only: there the last device is worth a search. */
#include "make_priv.h"
#include <math.h>

#define RUIN_LETS 48
#define RUIN_DEVICES 5

static uint32_t draw(uint64_t *rng, uint32_t below)
{
    *rng = *rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*rng >> 33) * below >> 31);
}

/* What a state is worth: what score_of() says and then how uneven the free granules are, as one
 * large hole takes more than many small ones. */
struct worth {
    struct score s;
    double holes;
};

static struct worth worth_of(struct job *j)
{
    struct worth w = {.s = score_of(j)};

    for (uint32_t d = 0; d < j->p->n_devices; d++)
        if (j->dev[d].n_lets) {
            double part = (double)j->dev[d].free / j->kind[j->dev[d].type].t->n_granules;
            w.holes += part * part;
        }
    return w;
}

static bool worse(const struct worth *a, const struct worth *b, double slack)
{
    if (fabs(a->s.unserved - b->s.unserved) > 1e-9 * (a->s.unserved + b->s.unserved))
        return a->s.unserved > b->s.unserved;
    if (fabs(a->s.price - b->s.price) > 1e-9)
        return a->s.price > b->s.price;
    return a->holes < b->holes - slack;
}

static uint32_t used_devices(struct job *j)
{
    uint32_t n = 0;

    for (uint32_t d = 0; d < j->p->n_devices; d++)
        if (j->dev[d].n_lets)
            j->victim[n++] = d;
    return n;
}

static uint32_t emptiest(const struct job *j, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (j->dev[j->victim[i]].free > j->dev[j->victim[best]].free)
            best = i;
    return best;
}

/* Its smallest size without neighbours; those that it meets may make it grow again. */
static void shrink_alone(struct job *j, uint32_t k)
{
    static const struct pressure nobody;

    while (j->let[k].at > 0) {
        struct save s = save_take(j);
        if (let_resize(j, k, j->let[k].at - 1) && let_fit(j, touch_let(j, k), &nobody))
            continue;
        save_back(j, &s);
        return;
    }
}

static uint32_t lift_all(struct job *j, uint32_t device, uint32_t *let, uint32_t n)
{
    while (j->dev[device].first != PLAN_NONE && n < RUIN_LETS) {
        let[n] = j->dev[device].first;
        let_lift(j, let[n]);
        shrink_alone(j, let[n++]);
    }
    return n;
}

static void unserved_pour(struct job *j)
{
    (void)score_of(j); /* rest[] is what is left of each model's rate */
    for (uint32_t m = 0; m < j->p->n_models; m++)
        if (j->rest[m] > 1e-6 * j->want[m].rate_rps)
            (void)pour(j, m, j->rest[m], false, PLAN_NONE);
}

static void take_apart(struct job *j, uint32_t k)
{
    while (j->let[k].n_shares) {
        struct plan_share s = j->let[k].share[0];
        let_drop(j, k, 0);
        if (s.rate_rps > 0)
            (void)pour(j, s.model, s.rate_rps, false, PLAN_NONE);
        else
            (void)pour_place(j, s.model, false, PLAN_NONE);
    }
    let_free(j, k);
}

/* Largest first, but for some luck. */
static void order_lets(const struct job *j, uint32_t *let, uint32_t n, uint64_t *rng)
{
    double key[RUIN_LETS];

    for (uint32_t i = 0; i < n; i++) {
        double k = let_granules(j, &j->let[let[i]]) * (0.6 + draw(rng, 1024) / 1280.0);
        uint32_t x = let[i], at = i;
        for (; at > 0 && key[at - 1] < k; at--) {
            key[at] = key[at - 1];
            let[at] = let[at - 1];
        }
        key[at] = k;
        let[at] = x;
    }
}

static void ruin(struct job *j, uint64_t *rng)
{
    uint32_t let[RUIN_LETS], n = 0, n_used = used_devices(j);
    uint32_t victims = 1 + draw(rng, RUIN_DEVICES);

    for (uint32_t v = 0; v < victims; v++) {
        uint32_t i = v == 0 && draw(rng, 2) ? emptiest(j, n_used) : draw(rng, n_used);
        n = lift_all(j, j->victim[i], let, n);
    }
    order_lets(j, let, n, rng);
    for (uint32_t i = 0; i < n && j->n_undo < UNDO_MOST; i++)
        if (draw(rng, 6) == 0 || !let_place(j, let[i], false, PLAN_NONE))
            take_apart(j, let[i]);
    unserved_pour(j);
}

/* Until `enough` devices serve everything, or the steps are used up. */
void ruin_and_recreate(struct job *j, uint32_t enough, uint64_t until)
{
    struct worth now = worth_of(j);
    uint64_t rng = 1;

    while (j->steps < until && !j->full) {
        uint32_t n = used_devices(j);
        if (n == 0 || (n <= enough && now.s.unserved == 0))
            return;
        struct save s = save_take(j);
        j->steps += 10;
        ruin(j, &rng);
        struct worth then = worth_of(j);
        bool whole = j->n_undo < UNDO_MOST && !j->full;
        if (worse(&then, &now, draw(&rng, 1024) / 4096.0) || !whole) {
            save_back(j, &s);
            continue;
        }
        now = then;
        save_commit(j);
    }
}
