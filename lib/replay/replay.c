/* A plan under a load in virtual time.
 *
 * Who decides is the policy, with the functions that the daemon calls; what happens is told by the
 * device model: one run at a time in a gpu-let (or so many of one model as its share has streams),
 * which takes what predict() says beside the runs in flight on the device when it starts.  The
 * gpu-let is taken for hold_us, the answers are there after run_us.
 *
 * Where the policy lets several models run side by side in a gpu-let, together.c shares its units
 * among the runs in flight.
 *
 * As in the daemon the policy is asked when something arrives, ends or is due.  Not here: while all
 * lanes of a gpu-let are taken, when it could only drop what is late; that is done at the next end,
 * with the same outcome.  A device that fails loses its runs in flight.  What waits there is routed
 * to the model's other gpu-lets; without any, it waits for the device and is dropped when late.
 *
 * The answers of a run are known when it starts, and so is the next failure of its device: a run is
 * counted when it starts, as lost if it ends later than that.
 *
 * Events counted: arrivals, starts and ends of runs, timers, steps of the configuration. */
#include "replay_priv.h"

#include <math.h>

#define PROGRESS_EVERY (1u << 17)

/* ---- what waits */
static bool ring_grow(struct replay *r, struct seat *s)
{
    usec_t *bigger = ARENA_ARRAY(r->arena, usec_t, (size_t)s->size * 2);

    if (!bigger) {
        r->out_of_memory = true;
        return false;
    }
    for (uint32_t i = 0; i < s->n; i++)
        bigger[i] = s->ring[(s->first + i) & (s->size - 1)];
    s->ring = bigger;
    s->first = 0;
    s->size *= 2;
    return true;
}

void seat_push(struct replay *r, struct seat *s, usec_t arrival_us)
{
    if (s->n == s->size && !ring_grow(r, s))
        return;
    s->ring[(s->first + s->n++) & (s->size - 1)] = arrival_us;
    r->party[s->model].n_queued++;
    r->let[s->let].work_us += s->work_us;
}

usec_t seat_pop(struct replay *r, struct seat *s)
{
    usec_t arrival_us = s->ring[s->first];

    s->first = (s->first + 1) & (s->size - 1);
    s->n--;
    r->party[s->model].n_queued--;
    r->let[s->let].work_us -= s->work_us;
    return arrival_us;
}

usec_t deadline_us(const struct replay *r, uint32_t model, usec_t arrival_us)
{
    usec_t slo_us = r->party[model].slo_us;

    return slo_us ? arrival_us + slo_us : USEC_NEVER;
}

/* ---- what routing sees */

/* When the first lane comes free, as predicted; where nothing runs, since when. */
static usec_t lanes_free_us(const struct replay *r, const struct let *g)
{
    usec_t us = USEC_NEVER;

    for (uint32_t i = 0; i < g->n_lanes; i++)
        us = MIN(us, r->lane_us[g->first_lane + i]);
    return g->n_flying ? MAX(us, r->now_us) : g->idle_us;
}

/* Of what waits, what goes behind all others. */
static usec_t spare_work_us(const struct replay *r, const struct let *g)
{
    usec_t us = 0;

    for (uint32_t i = g->n_sure; i < g->n_seats; i++)
        us += r->seat[g->first_seat + i].n * r->seat[g->first_seat + i].work_us;
    return us;
}

static void let_show(struct replay *r, struct let *g)
{
    usec_t lanes_us = lanes_free_us(r, g), start_us = MAX(lanes_us, r->now_us);
    usec_t all_us = start_us + g->work_us / g->n_lanes;
    usec_t sure_us = start_us + (g->work_us - spare_work_us(r, g)) / g->n_lanes;

    for (uint32_t i = 0; i < g->n_seats; i++) {
        const struct seat *s = &r->seat[g->first_seat + i];
        if (s->slot == PLAN_NONE)
            continue;
        struct let_view *v = &r->party[s->model].view[s->slot];
        v->free_us = i < g->n_sure ? sure_us : all_us;
        v->lanes_us = lanes_us;
        v->own_us = s->n * s->work_us / g->n_lanes;
        v->mine_us =
            mine_us(s->n + 1, s->cap, s->view_us[MIN(s->n + 1, s->cap)], s->view_us[s->cap]);
        v->n_queued = s->n;
        v->meek = g->meek_us + MEEK_US > r->now_us;
        v->slack_us = g->slack_us;
    }
}

void views_show(struct replay *r, const struct party *y)
{
    for (uint32_t i = 0; i < y->n_living; i++)
        let_show(r, &r->let[r->seat[y->seat[i]].let]);
}

void seat_join(struct replay *r, uint32_t at)
{
    struct seat *s = &r->seat[at];
    struct party *y = &r->party[s->model];

    s->slot = y->n_living++;
    y->seat[s->slot] = at;
    y->view[s->slot] = (struct let_view){.least_us = MIN((usec_t)s->runs->run_us[1], s->view_us[1]),
                                         .full_us = s->view_us[s->cap],
                                         .part = s->part,
                                         .shared = r->let[s->let].n_sure > 1,
                                         .order = r->let[s->let].order};
}

void seat_leave(struct replay *r, struct seat *s)
{
    struct party *y = &r->party[s->model];
    uint32_t last = --y->n_living;

    y->view[s->slot] = y->view[last];
    y->seat[s->slot] = y->seat[last];
    r->seat[y->seat[s->slot]].slot = s->slot;
    s->slot = PLAN_NONE;
}

/* ---- runs */
static bool counts(const struct replay *r, usec_t arrival_us)
{
    return arrival_us >= r->cfg->warmup_us;
}

void answer_count(struct replay *r, uint32_t model, usec_t arrival_us, usec_t done_us, bool lost)
{
    struct replay_model *m = &r->ret->model[model];

    if (!counts(r, arrival_us))
        return;
    if (lost) {
        m->lost++;
        return;
    }
    if (done_us <= deadline_us(r, model, arrival_us))
        m->in_time++;
    else
        m->late++;
    hist_add(&m->latency, done_us - arrival_us);
}

static void answers_count(struct replay *r, struct seat *s, uint32_t take, usec_t done_us)
{
    bool lost = done_us > r->device[r->let[s->let].device].fails_us;

    while (take-- > 0)
        answer_count(r, s->model, seat_pop(r, s), done_us, lost);
}

static uint32_t lane_find(const struct replay *r, const struct let *g)
{
    uint32_t i = g->first_lane;

    while (r->lane_us[i])
        i++;
    return i;
}

static void run_start_alone(struct replay *r, struct seat *s, uint32_t take, uint32_t lane)
{
    struct let *g = &r->let[s->let];
    usec_t run_us, hold_us;

    let_pull(r, g);
    run_estimate(r, s, take, &run_us, &hold_us);
    let_push(r, g, &s->runs->solo[take]);
    answers_count(r, s, take, r->now_us + run_us);
    agenda_set(&r->agenda, event_lane(lane), r->now_us + hold_us);
}

static void run_start(struct replay *r, struct let *g, struct seat *s, uint32_t take)
{
    uint32_t lane = lane_find(r, g), at = (uint32_t)(s - r->seat);

    r->lane_seat[lane] = at;
    r->lane_us[lane] = r->now_us + s->view_us[take];
    if (g->n_flying++ == 0)
        g->busy_from_us = r->now_us;
    s->n_flying++;
    s->turn_us = g->turn == at ? s->turn_us : MAX(r->now_us, 1);
    g->turn = at;
    if (g->flight)
        together_start(r, s, take, lane);
    else
        run_start_alone(r, s, take, lane);
    r->ret->events++;
}

/* Until now, within the time that counts. */
static void busy_count(struct replay *r, struct let *g)
{
    usec_t from_us = MAX(g->busy_from_us, r->cfg->warmup_us);
    usec_t to_us = MIN(r->now_us, r->cfg->duration_us);

    g->busy_us += to_us > from_us ? to_us - from_us : 0;
}

void run_end(struct replay *r, uint32_t lane)
{
    struct seat *s = &r->seat[r->lane_seat[lane]];
    struct let *g = &r->let[s->let];

    agenda_set(&r->agenda, event_lane(lane), USEC_NEVER);
    r->lane_us[lane] = 0;
    s->n_flying--;
    if (--g->n_flying == 0) {
        busy_count(r, g);
        let_pull(r, g);
        g->idle_us = r->now_us;
    }
    if (g->flight)
        together_end(r, lane);
}

/* ---- what batch_next() sees */

/* May s start one more run?  Beside runs of its own, up to its streams, while nobody else waits. */
static bool seat_ready(const struct replay *r, const struct let *g, const struct seat *s,
                       uint32_t n_waiting)
{
    if (r->device[g->device].down)
        return false;
    return g->n_flying == 0 || g->flight ||
           (g->n_flying == s->n_flying && s->n_flying < s->streams && n_waiting == 1);
}

static void queue_show(const struct replay *r, const struct let *g, const struct seat *s,
                       struct queue_view *q)
{
    uint32_t n = MIN(s->n, BATCH_VIEW_MAX);
    usec_t slo_us = r->party[s->model].slo_us;

    q->n = s->n;
    for (uint32_t i = 0; i < n; i++)
        q->deadline_us[i] = slo_us ? s->ring[(s->first + i) & (s->size - 1)] + slo_us : USEC_NEVER;
    q->since_us = s->n ? s->ring[s->first & (s->size - 1)] : 0;
    q->max_batch = s->cap;
    q->run_us = s->view_us;
    q->least_us = MIN((usec_t)s->runs->run_us[1], s->view_us[1]);
    q->priority = r->cfg->problem->model[s->model].priority;
    q->n_flying = s->n_flying;
    q->turn_us = s->turn_us;
    q->spare_us = g->spare_us;
}

static void let_view_make(const struct replay *r, const struct let *g, struct batch_view *v)
{
    uint32_t n_waiting = 0, most = 1;

    for (uint32_t i = 0; i < g->n_seats; i++)
        n_waiting += r->seat[g->first_seat + i].n > 0;
    for (uint32_t i = 0; i < g->n_seats; i++) {
        const struct seat *s = &r->seat[g->first_seat + i];
        r->queue[i].ready = seat_ready(r, g, s, n_waiting);
        most = MAX(most, s->n_flying ? s->streams : 1);
        queue_show(r, g, s, &r->queue[i]);
    }
    *v = (struct batch_view){.now_us = r->now_us,
                             .n_flying = g->n_flying,
                             .max_flying = g->flight ? g->n_lanes : most,
                             .busy_until_us = g->n_flying ? lanes_free_us(r, g) : r->now_us,
                             .n_queues = g->n_sure,
                             .n_spare = g->n_seats - g->n_sure,
                             .queue = r->queue,
                             .tuning = r->cfg->problem->rules.tuning,
                             .order = g->order};
}

static void queue_drop(struct replay *r, struct seat *s, uint32_t take)
{
    while (take-- > 0)
        r->ret->model[s->model].dropped += counts(r, seat_pop(r, s));
}

static bool anybody_waits(const struct replay *r, const struct let *g)
{
    for (uint32_t i = 0; i < g->n_seats; i++)
        if (r->seat[g->first_seat + i].n)
            return true;
    return false;
}

/* Ask the policy until it waits or nothing more can start. */
void let_look(struct replay *r, struct let *g)
{
    usec_t timer_us = USEC_NEVER;

    while (g->n_flying < g->n_lanes && anybody_waits(r, g)) {
        struct batch_view v;
        let_view_make(r, g, &v);
        struct batch_choice c = policy_next(r->policy, &v);
        if (c.what == BATCH_WAIT || c.queue >= g->n_seats) {
            timer_us = MAX(c.until_us, r->now_us + 1);
            break;
        }
        struct seat *s = &r->seat[g->first_seat + c.queue];
        uint32_t take = MIN(MAX(c.take, 1), s->n);
        if (take == 0)
            break;
        if (c.what == BATCH_DROP)
            queue_drop(r, s, take);
        else if (r->queue[c.queue].ready)
            run_start(r, g, s, MIN(take, s->cap));
        else
            break;
    }
    agenda_set(&r->agenda, event_timer(r, (uint32_t)(g - r->let)), timer_us);
    let_show(r, g);
}

/* ---- arrivals */
static bool is_beyond(struct party *y, usec_t now_us)
{
    int64_t used_ns =
        y->sure.rate_rps > 0 ? allowance_take(y->used_ns, &y->sure, y->burst, now_us) : 0;

    if (used_ns != ALLOWANCE_FRESH)
        y->used_ns = used_ns;
    else
        y->loud_us = now_us;
    return used_ns == ALLOWANCE_FRESH;
}

static bool is_loud(const struct party *y, usec_t now_us)
{
    return y->loud_us && y->loud_us + LOUD_US > now_us;
}

static bool is_meek(const struct party *y, usec_t now_us)
{
    return !y->loud_us || y->loud_us + QUIET_US <= now_us;
}

/* Who of those that share a gpu-let is within its allowance. */
static void asked(struct replay *r, const struct party *y)
{
    if (r->cfg->problem->model[y - r->party].best_effort || !is_meek(y, r->now_us))
        return;
    for (uint32_t i = 0; i < y->n_living; i++)
        r->let[r->seat[y->seat[i]].let].meek_us = r->now_us;
}

static void arrive(struct replay *r, uint32_t model)
{
    struct party *y = &r->party[model];
    struct replay_model *m = &r->ret->model[model];

    asked(r, y);
    struct admit_view v = {.now_us = r->now_us,
                           .deadline_us = deadline_us(r, model, r->now_us),
                           .n_queued = y->n_queued,
                           .queue_max = r->queue_max,
                           .beyond = is_beyond(y, r->now_us),
                           .loud = is_loud(y, r->now_us),
                           .n_lets = y->n_living,
                           .let = y->view};
    bool counted = counts(r, r->now_us);

    m->offered += counted;
    views_show(r, y);
    if (r->policy->admit(&v).what != ADMIT_YES || y->n_living == 0) {
        m->rejected += counted;
        return;
    }
    uint32_t at = y->n_living > 1 ? r->policy->route(&v) : 0;
    at = MIN(at, y->n_living - 1);
    y->view[at].n_routed++;
    struct seat *s = &r->seat[y->seat[at]];
    struct let *g = &r->let[s->let];
    seat_push(r, s, r->now_us);
    if (g->n_flying < g->n_lanes)
        let_look(r, g);
    else
        let_show(r, g);
}

static void arrival_due(struct replay *r, uint32_t model)
{
    struct source *s = &r->source[model];
    double at_us = s->next_us;

    agenda_set(&r->agenda, event_arrival(r, model), USEC_NEVER);
    if (!isfinite(at_us) || at_us >= (double)r->cfg->duration_us)
        return;
    if (source_step(s)) {
        r->ret->events++;
        arrive(r, model);
    }
    if (s->next_us < (double)r->cfg->duration_us)
        agenda_set(&r->agenda, event_arrival(r, model), MAX((usec_t)s->next_us, r->now_us));
}

void source_reschedule(struct replay *r, uint32_t model)
{
    const struct source *s = &r->source[model];
    double end_us = (double)r->cfg->duration_us;

    agenda_set(&r->agenda, event_arrival(r, model),
               s->next_us < end_us ? MAX((usec_t)s->next_us, r->now_us) : USEC_NEVER);
    agenda_set(&r->agenda, event_switch(r, model),
               s->switch_us < end_us ? MAX((usec_t)s->switch_us, r->now_us) : USEC_NEVER);
}

/* ---- the loop */
static void due(struct replay *r, uint32_t source)
{
    if (source >= event_timer(r, 0)) {
        r->ret->events++;
        let_look(r, &r->let[source - event_timer(r, 0)]);
    } else if (source >= event_arrival(r, 0)) {
        arrival_due(r, source - event_arrival(r, 0));
    } else if (source >= event_switch(r, 0)) {
        uint32_t m = source - event_switch(r, 0);
        source_switch(&r->source[m], r->source[m].switch_us);
        source_reschedule(r, m);
        r->ret->events++;
    } else if (source > 0) {
        struct let *g = &r->let[r->seat[r->lane_seat[source - 1]].let];
        run_end(r, source - 1);
        r->ret->events++;
        let_look(r, g);
    } else {
        config_due(r);
    }
}

static void start(struct replay *r)
{
    for (uint32_t i = 0; i < r->n_seats; i++)
        seat_join(r, i);
    for (uint32_t k = 0; k < r->n_lets; k++)
        let_show(r, &r->let[k]);
    for (uint32_t m = 0; m < r->n_models; m++)
        source_reschedule(r, m);
    if (r->cfg->n_events)
        agenda_set(&r->agenda, 0, r->cfg->event[0].at_us);
}

static void progress(const struct replay *r, double part)
{
    if (r->cfg->progress)
        r->cfg->progress(r->cfg->progress_arg, part);
}

static void loop(struct replay *r)
{
    uint32_t tick = 0;

    for (;;) {
        uint32_t source = agenda_first(&r->agenda);
        usec_t at_us = r->agenda.at_us[source];
        if (at_us == USEC_NEVER || r->out_of_memory)
            return;
        r->now_us = at_us;
        due(r, source);
        if (++tick % PROGRESS_EVERY == 0)
            progress(r, MIN((double)at_us / (double)MAX(r->cfg->duration_us, 1), 1));
    }
}

/* What still waits has nowhere to run. */
static void finish(struct replay *r)
{
    double counted_us = (double)(r->cfg->duration_us - r->cfg->warmup_us);

    for (uint32_t i = 0; i < r->n_seats; i++)
        while (r->seat[i].n)
            r->ret->model[r->seat[i].model].lost += counts(r, seat_pop(r, &r->seat[i]));
    for (uint32_t k = 0; k < r->n_lets; k++)
        r->ret->gpulet_busy[k] = counted_us > 0 ? (double)r->let[k].busy_us / counted_us : 0;
    for (uint32_t d = 0; d < r->n_devices; d++)
        r->ret->device_s += r->device[d].n_lets ? counted_us / 1e6 : 0;
    progress(r, 1);
}

int replay_run(const struct replay_config *cfg, struct arena *a, struct replay_result *ret,
               struct err *err)
{
    struct replay_result result = {0};
    struct replay r = {.cfg = cfg, .policy = cfg->policy, .arena = a, .err = err, .ret = &result};
    int rc = replay_setup(&r);

    if (rc < 0)
        return rc;
    start(&r);
    loop(&r);
    if (r.out_of_memory)
        return err_set(err, -ENOMEM, "out of memory for the replay");
    finish(&r);
    *ret = result;
    return 0;
}
