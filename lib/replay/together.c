/* Runs of several models side by side in a gpu-let that nobody has cut: each of k runs goes as fast
 * as it would alone on the k-th part of the units, under the pressure of the k - 1 others. Whenever
 * one starts or ends, what is left of the others goes on at another speed; so a run is counted when
 * it ends.  Gpu-lets beside it on the device do not count. */
#include "replay_priv.h"

#include <math.h>

#define DONE 1e-6 /* of a run: rounding to whole microseconds */

static int tables_find(struct replay *r, const struct let *g, struct seat *s, uint32_t units,
                       const struct plan_share *from)
{
    s->among = ARENA_ARRAY(r->arena, const struct run_table *, g->n_lanes + 1);
    if (!s->among)
        return -ENOMEM;
    for (uint32_t k = 1; k <= g->n_lanes; k++) {
        int rc = run_table_find(r, g->device, MAX(units / k, 1), from, &s->among[k]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int together_setup(struct replay *r, struct let *g, const struct plan_gpulet *from)
{
    g->flight = ARENA_ARRAY(r->arena, struct flight, g->n_lanes);
    if (!g->flight)
        return -ENOMEM;
    for (uint32_t i = 0; i < from->n_shares; i++) {
        int rc = tables_find(r, g, &r->seat[g->first_seat + i], from->units, &from->share[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static const struct seat *seat_of(const struct replay *r, const struct let *g, uint32_t i)
{
    return &r->seat[r->lane_seat[g->first_lane + i]];
}

static const struct solo *solo_of(const struct replay *r, const struct let *g, uint32_t i)
{
    return &seat_of(r, g, i)->among[g->n_flying]->solo[g->flight[i].n];
}

/* What all have done since the last start or end. */
static void advance(const struct replay *r, struct let *g)
{
    double us = (double)(r->now_us - g->moved_us);

    for (uint32_t i = 0; i < g->n_lanes; i++)
        if (g->flight[i].n)
            g->flight[i].left = fmax(g->flight[i].left - us / g->flight[i].run_us, 0);
    g->moved_us = r->now_us;
}

/* New speeds for those that fly. */
static void speeds_set(struct replay *r, struct let *g)
{
    const struct problem *p = r->cfg->problem;
    const struct predict_device *d = &p->type[p->device[g->device].type].predict;

    for (uint32_t i = 0; i < g->n_lanes; i++) {
        struct flight *f = &g->flight[i];
        struct pressure others = {0};
        struct estimate e;
        if (!f->n)
            continue;
        for (uint32_t k = 0; k < g->n_lanes && !r->cfg->alone; k++)
            if (k != i && g->flight[k].n)
                pressure_add(d, &others, solo_of(r, g, k), 1);
        pressure_of(d, solo_of(r, g, i), &others, &e);
        f->run_us = fmax(e.run_us * f->factor, 1);
        agenda_set(&r->agenda, event_lane(g->first_lane + i),
                   r->now_us + MAX((usec_t)(f->left * f->run_us + 0.5), 1));
    }
}

static bool room_make(struct replay *r, struct flight *f, uint32_t room)
{
    if (f->room >= room)
        return true;
    f->arrival_us = ARENA_ARRAY(r->arena, usec_t, room);
    f->room = f->arrival_us ? room : 0;
    r->out_of_memory |= !f->arrival_us;
    return f->room > 0;
}

void together_start(struct replay *r, struct seat *s, uint32_t take, uint32_t lane)
{
    struct let *g = &r->let[s->let];
    struct flight *f = &g->flight[lane - g->first_lane];

    advance(r, g);
    if (!room_make(r, f, MAX(s->cap, 64)))
        return;
    for (uint32_t i = 0; i < take; i++)
        f->arrival_us[i] = seat_pop(r, s);
    f->n = take;
    f->left = 1;
    f->factor = run_noise(r);
    speeds_set(r, g);
}

void together_end(struct replay *r, uint32_t lane)
{
    struct let *g = &r->let[r->seat[r->lane_seat[lane]].let];
    struct flight *f = &g->flight[lane - g->first_lane];

    advance(r, g);
    bool lost = f->left * f->run_us > 1 + DONE;
    for (uint32_t i = 0; i < f->n; i++)
        answer_count(r, r->seat[r->lane_seat[lane]].model, f->arrival_us[i], r->now_us, lost);
    f->n = 0;
    speeds_set(r, g);
}
