/* What changes while the replay runs: rates, and devices that fail and heal. */
#include "replay_priv.h"

static void let_reroute(struct replay *r, struct let *g)
{
    for (uint32_t i = 0; i < g->n_seats; i++) {
        struct seat *s = &r->seat[g->first_seat + i];
        struct party *y = &r->party[s->model];
        while (s->n && y->n_living) {
            usec_t arrival_us = seat_pop(r, s);
            views_show(r, y);
            struct admit_view v = {.now_us = r->now_us,
                                   .deadline_us = deadline_us(r, s->model, arrival_us),
                                   .n_queued = y->n_queued,
                                   .queue_max = r->queue_max,
                                   .n_lets = y->n_living,
                                   .let = y->view};
            struct seat *to = &r->seat[y->seat[MIN(r->policy->route(&v), y->n_living - 1)]];
            seat_push(r, to, arrival_us);
            let_look(r, &r->let[to->let]);
        }
    }
}

static void device_fail(struct replay *r, uint32_t device, uint32_t event)
{
    struct device *d = &r->device[device];

    if (!d->down)
        for (uint32_t i = 0; i < d->n_lets; i++) {
            struct let *g = &r->let[r->by_device[d->first_let + i]];
            for (uint32_t k = 0; k < g->n_seats; k++)
                seat_leave(r, &r->seat[g->first_seat + k]);
            for (uint32_t k = 0; k < g->n_lanes; k++)
                if (r->lane_us[g->first_lane + k])
                    run_end(r, g->first_lane + k);
        }
    d->down = true;
    d->fails_us = USEC_NEVER;
    for (uint32_t i = r->cfg->n_events; i-- > event + 1;)
        if (r->cfg->event[i].kind == REPLAY_FAIL && r->cfg->event[i].device == device)
            d->fails_us = r->cfg->event[i].at_us;
    for (uint32_t i = 0; i < d->n_lets; i++) {
        struct let *g = &r->let[r->by_device[d->first_let + i]];
        let_reroute(r, g);
        let_look(r, g);
    }
}

static void device_heal(struct replay *r, uint32_t device)
{
    struct device *d = &r->device[device];

    for (uint32_t i = 0; d->down && i < d->n_lets; i++) {
        const struct let *g = &r->let[r->by_device[d->first_let + i]];
        for (uint32_t k = 0; k < g->n_seats; k++)
            seat_join(r, g->first_seat + k);
    }
    d->down = false;
    for (uint32_t i = 0; i < d->n_lets; i++)
        let_look(r, &r->let[r->by_device[d->first_let + i]]);
}

static void rate_step(struct replay *r, const struct replay_event *e)
{
    for (uint32_t m = 0; m < r->n_models; m++)
        if (e->model == PLAN_NONE || e->model == m) {
            source_factor(&r->source[m], (double)r->now_us, e->factor);
            source_reschedule(r, m);
        }
}

void config_due(struct replay *r)
{
    uint32_t i = r->next_event++;
    const struct replay_event *e = &r->cfg->event[i];

    if (e->kind == REPLAY_RATE)
        rate_step(r, e);
    else if (e->kind == REPLAY_FAIL)
        device_fail(r, e->device, i);
    else
        device_heal(r, e->device);
    agenda_set(&r->agenda, 0,
               r->next_event < r->cfg->n_events ? r->cfg->event[r->next_event].at_us : USEC_NEVER);
    r->ret->events++;
}
