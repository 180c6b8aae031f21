/* Arrivals: paced, Poisson, Gamma gaps, on/off, diurnal, from a trace. */
#include "replay_priv.h"

#include <math.h>

#define CV_LEAST 0.01
#define CV_MOST 100.0

static enum replay_kind kind_of(const struct plan_model *m)
{
    switch (m->arrivals) {
    case ARRIVALS_PACED:
        return REPLAY_PACED;
    case ARRIVALS_CV:
    case ARRIVALS_TRACE:
        return m->cv > 0 ? REPLAY_GAMMA : REPLAY_POISSON;
    default:
        return REPLAY_POISSON;
    }
}

/* The next gap in units of the mean (of a trace: in microseconds of the trace). */
static double unit_gap(struct source *s)
{
    const struct replay_load *l = s->load;

    switch (s->kind) {
    case REPLAY_PACED:
        return 1;
    case REPLAY_GAMMA:
        return random_gamma(&s->random, s->shape);
    case REPLAY_TRACE:
        s->at++;
        return s->at < l->n_trace ? (double)(l->trace_us[s->at] - l->trace_us[s->at - 1])
                                  : INFINITY;
    default:
        return random_exp(&s->random);
    }
}

static double first_gap(struct source *s)
{
    if (s->kind == REPLAY_PACED)
        return random_unit(&s->random); /* a phase of its own */
    if (s->kind == REPLAY_TRACE)
        return s->load->n_trace ? (double)s->load->trace_us[0] : INFINITY;
    return unit_gap(s);
}

static double rate_now(const struct source *s)
{
    double rate = s->base_rate * s->factor;

    if (s->kind == REPLAY_ONOFF)
        return s->on ? rate * (s->load->on_s + s->load->off_s) / s->load->on_s : 0;
    if (s->kind == REPLAY_DIURNAL)
        return rate * (1 + s->load->swing); /* thinned in source_step() */
    return rate;
}

static void rate_set(struct source *s, double now_us)
{
    double rate = rate_now(s);

    if (s->rate > 0)
        s->left = (s->next_us - now_us) * s->rate;
    s->rate = rate;
    s->next_us = rate > 0 ? now_us + s->left / rate : INFINITY;
}

void source_factor(struct source *s, double now_us, double factor)
{
    s->factor = factor;
    rate_set(s, now_us);
}

void source_switch(struct source *s, double now_us)
{
    s->on = !s->on;
    s->switch_us = now_us + 1e6 * (s->on ? s->load->on_s : s->load->off_s) * random_exp(&s->random);
    rate_set(s, now_us);
}

bool source_step(struct source *s)
{
    const struct replay_load *l = s->load;
    double at_us = s->next_us;

    s->next_us += unit_gap(s) / s->rate;
    if (s->kind != REPLAY_DIURNAL)
        return true;
    double here = 1 + l->swing * sin(2 * M_PI * at_us / (1e6 * l->period_s));
    return random_unit(&s->random) * (1 + l->swing) <= here;
}

static int load_check(const struct source *s, const char *name, double cv, struct err *err)
{
    const struct replay_load *l = s->load;

    if (!(s->base_rate >= 0 && s->base_rate <= 1e3))
        return err_set(err, -EINVAL, "model '%s': a load of %g requests/s, the limit is 1e9", name,
                       s->base_rate * 1e6);
    if (s->kind == REPLAY_GAMMA && !(cv >= CV_LEAST && cv <= CV_MOST))
        return err_set(err, -EINVAL, "model '%s': a cv of %g, it must be from 0.01 to 100", name,
                       cv);
    if (s->kind == REPLAY_ONOFF && !(l->on_s > 0 && l->off_s >= 0 && l->on_s + l->off_s < 1e9))
        return err_set(err, -EINVAL, "model '%s': on for %g s and off for %g s", name, l->on_s,
                       l->off_s);
    if (s->kind == REPLAY_DIURNAL && !(l->period_s > 0 && l->swing >= 0 && l->swing <= 1))
        return err_set(err, -EINVAL, "model '%s': a swing of %g in %g s; it must be from 0 to 1",
                       name, l->swing, l->period_s);
    for (uint32_t i = 1; s->kind == REPLAY_TRACE && i < l->n_trace; i++)
        if (l->trace_us[i] < l->trace_us[i - 1])
            return err_set(err, -EINVAL, "model '%s': trace entry %u is before entry %u", name, i,
                           i - 1);
    return 0;
}

int source_init(struct source *s, const struct replay_config *cfg, uint32_t model, struct err *err)
{
    static const struct replay_load as_planned = {.kind = REPLAY_MODEL, .rate_rps = -1};
    const struct plan_model *m = &cfg->problem->model[model];
    const struct replay_load *l = cfg->load ? &cfg->load[model] : &as_planned;
    double scale = cfg->scale > 0 ? cfg->scale : 1;

    *s = (struct source){.load = l, .factor = 1, .next_us = INFINITY, .switch_us = INFINITY};
    random_seed(&s->random, cfg->seed, model);
    s->kind = l->kind == REPLAY_MODEL ? kind_of(m) : l->kind;
    s->base_rate = s->kind == REPLAY_TRACE
                       ? (l->speed > 0 ? l->speed : 1) * scale
                       : (l->rate_rps < 0 ? m->rate_rps : l->rate_rps) * scale / 1e6;
    double cv = l->kind == REPLAY_MODEL ? m->cv : l->cv;
    s->shape = 1 / (cv * cv);
    int r = load_check(s, m->name, cv, err);
    if (r < 0)
        return r;
    if (s->kind == REPLAY_ONOFF) {
        s->on = random_unit(&s->random) * (l->on_s + l->off_s) <= l->on_s;
        s->switch_us = 1e6 * (s->on ? l->on_s : l->off_s) * random_exp(&s->random);
    }
    s->left = first_gap(s);
    rate_set(s, 0);
    return 0;
}
