/* Runs of several models side by side in a gpu-let that nobody has cut: each of k runs goes as fast
 * as it would alone on the k-th part of the units, under the pressure of all others on the device.
 * Whenever one starts or ends, what is left of the others goes on at another speed; so a run is
 * counted when it ends.  The sim backend has the same rule in lib/backend/sim/time.c. */
#include "replay_priv.h"

#include <math.h>

#define DONE 1e-6 /* of a run: rounding to whole microseconds */

int together_setup(struct replay *r, struct let *g, const struct plan_gpulet *from)
{
    g->flight = ARENA_ARRAY(r->arena, struct flight, g->n_lanes);
    if (!g->flight)
        return -ENOMEM;
    for (uint32_t i = 0; i < from->n_shares; i++) {
        struct seat *s = &r->seat[g->first_seat + i];
        s->among = ARENA_ARRAY(r->arena, const struct run_table *, g->n_lanes + 1);
        if (!s->among)
            return -ENOMEM;
        for (uint32_t k = 1; k <= g->n_lanes; k++) {
            int rc = run_table_find(r, from, &from->share[i], k, &s->among[k]);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static const struct solo *solo_of(const struct replay *r, const struct let *g, uint32_t i)
{
    const struct seat *s = &r->seat[r->lane_seat[g->first_lane + i]];

    return &s->among[g->n_flying]->solo[g->flight[i].n];
}

/* ---- those that fly on a device */
typedef void flight_fn(struct replay *r, struct let *g, uint32_t i, void *arg);

static void flights(struct replay *r, struct device *d, flight_fn *fn, void *arg)
{
    for (uint32_t k = 0; k < d->n_lets; k++) {
        struct let *g = &r->let[r->by_device[d->first_let + k]];
        for (uint32_t i = 0; i < g->n_lanes; i++)
            if (g->flight[i].n)
                fn(r, g, i, arg);
    }
}

static void flight_advance(struct replay *r, struct let *g, uint32_t i, void *us)
{
    struct flight *f = &g->flight[i];

    (void)r;
    f->left = fmax(f->left - *(double *)us / f->run_us, 0);
}

/* What all have done since the last start or end. */
static void advance(struct replay *r, struct device *d)
{
    double us = (double)(r->now_us - d->moved_us);

    flights(r, d, flight_advance, &us);
    d->moved_us = r->now_us;
}

struct others {
    const struct predict_device *d;
    const struct flight *but;
    struct pressure all;
};

static void flight_press(struct replay *r, struct let *g, uint32_t i, void *arg)
{
    struct others *o = arg;

    if (&g->flight[i] != o->but)
        pressure_add(o->d, &o->all, solo_of(r, g, i), 1);
}

static void flight_speed(struct replay *r, struct let *g, uint32_t i, void *arg)
{
    struct others *o = arg, mine = {.d = o->d, .all = o->all, .but = &g->flight[i]};
    struct flight *f = &g->flight[i];
    struct estimate e;

    if (!r->cfg->alone && !pressure_sub(o->d, &mine.all, solo_of(r, g, i), 1)) {
        mine.all = (struct pressure){0};
        flights(r, &r->device[g->device], flight_press, &mine);
    }
    pressure_of(o->d, solo_of(r, g, i), &mine.all, &e);
    f->run_us = fmax(e.run_us * f->factor, 1);
    agenda_set(&r->agenda, event_lane(g->first_lane + i),
               r->now_us + MAX((usec_t)(f->left * f->run_us + 0.5), 1));
}

static void speeds_set(struct replay *r, struct device *d)
{
    const struct problem *p = r->cfg->problem;
    struct others o = {.d = &p->type[p->device[d - r->device].type].predict};

    if (!r->cfg->alone)
        flights(r, d, flight_press, &o);
    flights(r, d, flight_speed, &o);
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

    advance(r, &r->device[g->device]);
    if (!room_make(r, f, MAX(s->cap, 64)))
        return;
    for (uint32_t i = 0; i < take; i++)
        f->arrival_us[i] = seat_pop(r, s);
    f->n = take;
    f->left = 1;
    f->factor = run_noise(r);
    speeds_set(r, &r->device[g->device]);
}

void together_end(struct replay *r, uint32_t lane)
{
    struct let *g = &r->let[r->seat[r->lane_seat[lane]].let];
    struct flight *f = &g->flight[lane - g->first_lane];

    advance(r, &r->device[g->device]);
    bool lost = f->left * f->run_us > 1 + DONE;
    for (uint32_t i = 0; i < f->n; i++)
        answer_count(r, r->seat[r->lane_seat[lane]].model, f->arrival_us[i], r->now_us, lost);
    f->n = 0;
    speeds_set(r, &r->device[g->device]);
}
