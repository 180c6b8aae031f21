/* --arrivals, --trace, --fail, --step, --sweep. */
#include "load.h"
#include <gpulet/problem.h>
#include <math.h>

#define DEFAULT_DURATION_US (60 * USEC_PER_SEC)
#define MAX_SECONDS 1e8
#define TRACE_MAX_BYTES (1u << 30)

/* "1:2.5:3" into at most `max` numbers; how many, -1: not numbers of 0 or more. */
static int numbers(const char *text, double *ret, int max)
{
    for (int n = 0; n < max; text++) {
        char *end;
        ret[n] = strtod(text, &end);
        if (end == text || !(ret[n] >= 0 && ret[n] <= MAX_SECONDS))
            return -1;
        n++;
        if (*end == 0)
            return n;
        if (*end != ':')
            return -1;
        text = end;
    }
    return -1;
}

/* ---- --arrivals */

static const struct {
    const char *name;
    enum replay_kind kind;
    int n; /* numbers that follow */
} arrival_kinds[] = {
    {"paced", REPLAY_PACED, 0}, {"poisson", REPLAY_POISSON, 0}, {"gamma", REPLAY_GAMMA, 1},
    {"onoff", REPLAY_ONOFF, 2}, {"diurnal", REPLAY_DIURNAL, 2},
};

static int arrivals_parse(const char *text, struct replay_load *ret, struct err *err)
{
    size_t len = strcspn(text, ":");
    double v[2] = {0};

    *ret = (struct replay_load){.rate_rps = -1};
    for (size_t i = 0; i < ARRAY_SIZE(arrival_kinds); i++) {
        const char *name = arrival_kinds[i].name;
        int n = text[len] ? numbers(text + len + 1, v, 2) : 0;
        if (strlen(name) != len || strncmp(name, text, len) != 0 || n != arrival_kinds[i].n)
            continue;
        ret->kind = arrival_kinds[i].kind;
        ret->cv = ret->on_s = ret->period_s = v[0];
        ret->off_s = ret->swing = v[1];
        return 0;
    }
    return err_set(err, -EINVAL,
                   "--arrivals '%s' is none of paced, poisson, gamma:CV, onoff:ON_S:OFF_S, "
                   "diurnal:PERIOD_S:SWING",
                   text);
}

static int loads_all(struct task *t, const struct replay_load *each, struct load_given *ret,
                     struct err *err)
{
    ret->load = ARENA_ARRAY(&t->a, struct replay_load, t->p.n_models + 1);
    if (!ret->load)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t m = 0; m < t->p.n_models; m++)
        ret->load[m] = *each;
    return 0;
}

/* ---- --trace */

static uint32_t model_named(const struct problem *p, const char *name)
{
    uint32_t m = 0;

    while (m < p->n_models && !STREQ(p->model[m].name, name))
        m++;
    return m < p->n_models ? m : PLAN_NONE;
}

/* Each model gets the rows that name it, at their own times: counted, then filled in. */
static int trace_by_name(struct task *t, const struct trace *tr, struct load_given *ret,
                         struct err *err)
{
    uint32_t *model_of = ARENA_ARRAY(&t->a, uint32_t, tr->n_names + 1);
    usec_t **at_us = ARENA_ARRAY(&t->a, usec_t *, t->p.n_models + 1);

    if (!model_of || !at_us)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < tr->n_names; i++)
        model_of[i] = model_named(&t->p, tr->name[i]);
    for (uint32_t i = 0; i < tr->n; i++)
        if (model_of[tr->name_of[i]] != PLAN_NONE)
            ret->load[model_of[tr->name_of[i]]].n_trace++;
        else
            ret->n_unknown++;
    for (uint32_t m = 0; m < t->p.n_models; m++) {
        at_us[m] = ARENA_ARRAY(&t->a, usec_t, ret->load[m].n_trace + 1);
        if (!at_us[m])
            return err_set(err, -ENOMEM, "out of memory");
        ret->load[m].trace_us = at_us[m];
    }
    for (uint32_t i = 0; i < tr->n; i++)
        if (model_of[tr->name_of[i]] != PLAN_NONE)
            *at_us[model_of[tr->name_of[i]]]++ = tr->at_us[i];
    return 0;
}

/* Every model gets all rows, sped up or slowed down to its own mean rate. */
static void trace_for_all(struct task *t, const struct trace *tr, struct load_given *ret)
{
    double trace_rps = tr->n / ((double)(tr->at_us[tr->n - 1] + 1) / 1e6);

    for (uint32_t m = 0; m < t->p.n_models; m++) {
        struct replay_load *l = &ret->load[m];
        l->trace_us = tr->at_us;
        l->n_trace = t->p.model[m].rate_rps > 0 ? tr->n : 0;
        l->speed = t->p.model[m].rate_rps / trace_rps;
    }
}

static int trace_read(struct task *t, const char *path, struct load_given *ret, struct err *err)
{
    AUTO(free) char *text = NULL;
    size_t bytes = 0;
    struct trace tr = {0};
    int r = file_read(path, TRACE_MAX_BYTES, &text, &bytes, err);

    if (r == 0)
        r = loads_all(t, &(struct replay_load){.kind = REPLAY_TRACE, .rate_rps = -1}, ret, err);
    if (r < 0)
        return r;
    r = trace_parse(text, bytes, &t->a, &tr, err);
    if (r < 0) {
        (void)err_wrap(err, "'%s': ", path);
        return r == -EINVAL ? -EBADMSG : r;
    }
    if (tr.n == 0)
        return err_set(err, -EBADMSG, "'%s': the trace has no rows", path);
    if (!tr.name_of) {
        trace_for_all(t, &tr, ret);
        return 0;
    }
    ret->duration_us = tr.at_us[tr.n - 1] + 1;
    r = trace_by_name(t, &tr, ret, err);
    if (r == 0 && ret->n_unknown == tr.n)
        return err_set(err, -EBADMSG, "'%s': none of its %u names (the first is '%s') is a model",
                       path, tr.n_names, tr.name[0]);
    return r;
}

/* ---- --fail and --step */

static int event_add(const struct task *t, const char *option, const char *text, bool fails,
                     struct load_given *ret, struct err *err)
{
    const char *at = strrchr(text, '@');
    struct replay_event e = {.kind = fails ? REPLAY_FAIL : REPLAY_RATE, .model = PLAN_NONE};
    double second = 0;
    uint32_t i = ret->n_events;
    char first[PROBLEM_MAX_NAME + 1];

    if (!at || (size_t)(at - text) > PROBLEM_MAX_NAME || numbers(at + 1, &second, 1) != 1)
        return err_set(err, -EINVAL, "--%s '%s' is not %s@SECOND", option, text,
                       fails ? "DEVICE" : "FACTOR");
    (void)snprintf(first, sizeof(first), "%.*s", (int)(at - text), text);
    while (fails && e.device < t->p.n_devices && !STREQ(t->p.device[e.device].name, first))
        e.device++;
    if (fails && e.device == t->p.n_devices)
        return err_set(err, -EINVAL, "--%s '%s': there is no device '%s'", option, text, first);
    if (!fails && numbers(first, &e.factor, 1) != 1)
        return err_set(err, -EINVAL, "--%s '%s': '%s' is not a number of 0 or more", option, text,
                       first);
    e.at_us = (usec_t)(second * 1e6);
    for (; i > 0 && ret->event[i - 1].at_us > e.at_us; i--) /* in the order of time */
        ret->event[i] = ret->event[i - 1];
    ret->event[i] = e;
    ret->n_events++;
    return 0;
}

static int events_parse(struct task *t, const struct cli *c, struct load_given *ret,
                        struct err *err)
{
    int r = 0;

    ret->event = ARENA_ARRAY(&t->a, struct replay_event, c->fails.n + c->steps.n + 1);
    if (!ret->event)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; r == 0 && i < c->steps.n; i++)
        r = event_add(t, "step", c->steps.at[i], false, ret, err);
    for (uint32_t i = 0; r == 0 && i < c->fails.n; i++)
        r = event_add(t, "fail", c->fails.at[i], true, ret, err);
    return r;
}

int load_from_options(struct task *t, const struct cli *c, struct load_given *ret, struct err *err)
{
    struct replay_load each;
    int r = 0;

    *ret = (struct load_given){.duration_us = DEFAULT_DURATION_US};
    if (c->arrivals && c->trace)
        return err_set(err, -EINVAL, "--arrivals and --trace both say how requests come");
    if (c->duration_s == 0 || c->duration_s > MAX_SECONDS)
        return err_set(err, -EINVAL, "--duration = '%g' is not a number above 0, at most %g",
                       c->duration_s, MAX_SECONDS);
    if (c->arrivals && (r = arrivals_parse(c->arrivals, &each, err)) == 0)
        r = loads_all(t, &each, ret, err);
    if (r == 0 && c->trace)
        r = trace_read(t, c->trace, ret, err);
    if (c->duration_s > 0)
        ret->duration_us = (usec_t)ceil(c->duration_s * 1e6);
    return r < 0 ? r : events_parse(t, c, ret, err);
}

/* ---- --sweep */

int sweep_parse(const char *text, struct sweep *ret, struct err *err)
{
    double v[3];

    if (numbers(text, v, 3) != 3 || !(v[0] > 0) || !(v[1] >= v[0]) || v[2] != floor(v[2]) ||
        !(v[2] >= 1 && v[2] <= SWEEP_MAX))
        return err_set(err, -EINVAL,
                       "--sweep '%s' is not FROM:TO:STEPS with 0 < FROM <= TO and 1 to %d steps",
                       text, SWEEP_MAX);
    *ret = (struct sweep){v[0], v[1], (uint32_t)v[2]};
    return 0;
}

double sweep_at(const struct sweep *s, uint32_t i)
{
    return s->n < 2 ? s->from : s->from + (s->to - s->from) * i / (s->n - 1);
}
