/* The arrivals of one model as a list, for a load on something real. */
#include "replay_priv.h"

#define FIRST_ROOM 1024

struct times {
    usec_t *at_us;
    size_t n, room, most;
    struct arena *arena;
};

static int times_add(struct times *t, usec_t at_us)
{
    if (t->n == t->most)
        return -EFBIG;
    if (t->n == t->room) {
        size_t room = t->room ? t->room * 2 : FIRST_ROOM;
        usec_t *more = ARENA_ARRAY(t->arena, usec_t, room);
        if (!more)
            return -ENOMEM;
        if (t->n)
            memcpy(more, t->at_us, t->n * sizeof(*more));
        t->at_us = more;
        t->room = room;
    }
    t->at_us[t->n++] = at_us;
    return 0;
}

static usec_t moment(double us, usec_t now_us, usec_t end_us)
{
    return us < (double)end_us ? MAX((usec_t)us, now_us) : USEC_NEVER;
}

/* What is due at the same moment goes in the order in which a replay takes it: rates, then
 * switches, then arrivals. */
static int walk(const struct replay_config *cfg, uint32_t model, struct source *s, struct times *t)
{
    uint32_t event = 0;
    usec_t now_us = 0;

    for (;;) {
        usec_t arrival_us = moment(s->next_us, now_us, cfg->duration_us);
        usec_t switch_us = moment(s->switch_us, now_us, cfg->duration_us);
        usec_t event_us = event < cfg->n_events ? cfg->event[event].at_us : USEC_NEVER;
        now_us = MIN(MIN(arrival_us, switch_us), event_us);
        if (now_us >= cfg->duration_us)
            return 0;
        if (now_us == event_us) {
            const struct replay_event *e = &cfg->event[event++];
            if (e->kind == REPLAY_RATE && (e->model == PLAN_NONE || e->model == model))
                source_factor(s, (double)now_us, e->factor);
        } else if (now_us == switch_us) {
            source_switch(s, s->switch_us);
        } else if (source_step(s)) {
            int r = times_add(t, now_us);
            if (r < 0)
                return r;
        }
    }
}

int replay_arrivals(const struct replay_config *cfg, uint32_t model, size_t most, struct arena *a,
                    usec_t **ret, size_t *ret_n, struct err *err)
{
    struct times t = {.most = most, .arena = a};
    struct source s;
    int r = source_init(&s, cfg, model, err);

    if (r < 0)
        return r;
    r = walk(cfg, model, &s, &t);
    if (r == -EFBIG)
        return err_set(err, r, "model '%s': more than %zu requests",
                       cfg->problem->model[model].name, most);
    if (r < 0)
        return err_set(err, r, "out of memory");
    *ret = t.at_us;
    *ret_n = t.n;
    return 0;
}
