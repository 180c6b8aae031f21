/* policy = gpulet-full: gpu-lets over every combination of splits (ATC'22, section 6.6: the
 * "ideal" scheduler).  The splits stay fixed, gpulet-int fills them, the first combination that
 * serves everybody wins.
 *
 * Published as 4^N; devices of one type may change places, so that only C(N + 3, 3) of them differ
 * and those are tried.  Still too many for more than a few devices: LAYOUTS_MAX is the limit.  When
 * none serves everybody, the one that serves most models is returned. */
#include "gpulet.h"
#include "whole.h"

#include <math.h>

#define LAYOUTS_MAX 4096

struct splits {
    uint32_t n, size[GLET_SIZES]; /* of the larger part; the last one is the whole device */
};

static struct splits splits_of(const struct gplan *g, uint32_t type)
{
    const struct plan_type *t = &g->p->type[type];
    struct splits s = {0};

    for (uint32_t i = g->n_sizes[type]; i-- > 0;) {
        uint32_t size = g->size[type][i], rest = t->n_granules - size;
        bool ok = rest == 0;
        for (uint32_t j = 0; j < g->n_sizes[type] && rest <= size && g->p->rules.max_lets != 1; j++)
            ok |= g->size[type][j] == rest && pub_cut(t, (uint32_t[]){size, rest}, 2, NULL);
        if (ok)
            s.size[s.n++] = size;
    }
    return s;
}

static void lay_out(struct gplan *g, const struct splits *s, const uint32_t *pick)
{
    memset(g->let, 0, 2 * (size_t)g->p->n_devices * sizeof(*g->let));
    for (uint32_t d = 0; d < g->p->n_devices; d++) {
        uint32_t type = g->p->device[d].type;
        g->let[2 * d].granules = s[type].size[pick[d]];
        g->let[2 * d + 1].granules = g->p->type[type].n_granules - s[type].size[pick[d]];
    }
}

/* The next combination; of devices of one type that follow each other, picks never fall. */
static bool next_pick(const struct gplan *g, const struct splits *s, uint32_t *pick)
{
    uint32_t d = g->p->n_devices;

    while (d > 0 && pick[d - 1] + 1 >= s[g->p->device[d - 1].type].n)
        d--;
    if (d == 0)
        return false;
    pick[d - 1]++;
    for (; d < g->p->n_devices; d++)
        pick[d] = g->p->device[d].type == g->p->device[d - 1].type ? pick[d - 1] : 0;
    return true;
}

static uint32_t served(const struct gplan *g)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < g->p->n_models; m++)
        n += glet_planned(g, m) >= GLET_ACCEPT * g->rate_rps[m] - GLET_EPS;
    return n;
}

/* How many combinations there are, up to the limit. */
static uint32_t count_layouts(const struct gplan *g, const struct splits *s, uint32_t *pick)
{
    uint32_t n = 1;

    while (n <= LAYOUTS_MAX && next_pick(g, s, pick))
        n++;
    memset(pick, 0, g->p->n_devices * sizeof(*pick));
    return n;
}

static int search(struct gplan *g, const struct splits *s, struct arena *a, struct err *err)
{
    uint32_t *pick = ARENA_ARRAY(a, uint32_t, g->p->n_devices), best = 0, n = 0;
    size_t bytes = 2 * (size_t)g->p->n_devices * sizeof(*g->let);
    struct glet *kept = arena_alloc(a, bytes);

    if (!pick || !kept)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    if (count_layouts(g, s, pick) > LAYOUTS_MAX)
        return err_set(err, -E2BIG,
                       "gpulet-full: %u devices have more than %d combinations of "
                       "splits, the limit",
                       g->p->n_devices, LAYOUTS_MAX);
    do {
        lay_out(g, s, pick);
        glet_place_all(g);
        n = served(g);
        if (n > best || best == 0) {
            best = n;
            memcpy(kept, g->let, bytes);
        }
    } while (n < g->p->n_models && next_pick(g, s, pick));
    memcpy(g->let, kept, bytes);
    return 0;
}

static int make(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                struct err *err)
{
    struct gplan g = {.interference = true, .fixed = true};
    int r = glet_begin(&g, p, a, err);

    (void)was;
    if (r < 0)
        return r;
    struct splits *s = ARENA_ARRAY(a, struct splits, p->n_types);
    if (!s)
        return err_set(err, -ENOMEM, "plan: the arena is too small");
    for (uint32_t t = 0; t < p->n_types; t++) {
        s[t] = splits_of(&g, t);
        if (s[t].n == 0)
            return err_set(err, -ENOTSUP,
                           "gpulet-full: device type '%s' cannot be cut into one "
                           "gpu-let or two",
                           p->type[t].name);
    }
    if ((r = search(&g, s, a, err)) < 0)
        return r;
    return glet_end(&g, a, GLET_ACCEPT, ret, err);
}

const struct policy policy_gpulet_full = {
    .name = "gpulet-full",
    .plan_make = make,
    .admit = open_admit,
    .route = weighted_route,
    .batch_next = greedy_batch_next,
};
