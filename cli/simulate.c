/* gpuletctl simulate: a plan under load in virtual time. */
#include "load.h"
#include <math.h>

struct simulation {
    struct task t;
    struct answer answer;
    const struct policy *policy;
    struct load_given given;
    struct replay_config cfg;
    uint32_t n_runs, runs_done; /* for the bar */
};

static void on_progress(void *arg, double part)
{
    struct simulation *s = arg;

    progress_set(NULL, (s->runs_done + part) / s->n_runs);
}

static int run(struct simulation *s, double scale, struct arena *a, struct replay_result *ret,
               struct err *err)
{
    s->cfg.scale = scale;
    int r = replay_run(&s->cfg, a, ret, err);
    s->runs_done++;
    return r == -EINVAL ? -EBADMSG : r;
}

/* ---- one run as JSON */

static double share(double part, double of)
{
    return of > 0 ? part / of : 1;
}

static json_t *report_model(const struct plan_model *m, const struct replay_model *r)
{
    json_t *o = json_object();

    put(o, "model", json_string(m->name));
    put_num(o, "offered", (double)r->offered);
    put_num(o, "in_time", (double)r->in_time);
    put_num(o, "in_time_share", share((double)r->in_time, (double)r->offered));
    put_num(o, "late", (double)r->late);
    put_num(o, "dropped", (double)r->dropped);
    put_num(o, "rejected", (double)r->rejected);
    put_num(o, "lost", (double)r->lost);
    put_num(o, "p50_ms", (double)hist_quantile(&r->latency, 0.5) / 1000);
    put_num(o, "p99_ms", (double)hist_quantile(&r->latency, 0.99) / 1000);
    put_num(o, "p999_ms", (double)hist_quantile(&r->latency, 0.999) / 1000);
    put_num(o, "slo_ms", (double)m->slo_us / 1000);
    return o;
}

/* Busy time of the gpu-lets, by their units, of all units of the devices in use. */
static double utilisation(const struct simulation *s, const struct replay_result *r)
{
    double busy = 0, all = 0;
    uint32_t *seen = calloc(s->t.p.n_devices + 1, sizeof(*seen));

    for (uint32_t k = 0; seen && k < r->n_gpulets; k++) {
        const struct plan_gpulet *g = &s->answer.plan.gpulet[k];
        const struct plan_type *t = let_type(&s->t.p, g);
        busy += r->gpulet_busy[k] * g->units;
        all += seen[g->device]++ ? 0 : (double)t->n_granules * t->granule_units;
    }
    free(seen);
    return all > 0 ? busy / all : 0;
}

static json_t *report_run(const struct simulation *s, double scale, const struct replay_result *r)
{
    json_t *o = json_object(), *models = json_array();
    double offered = 0, in_time = 0, worst = 1;
    const char *worst_model = NULL;

    for (uint32_t m = 0; m < r->n_models; m++) {
        const struct replay_model *x = &r->model[m];
        double part = share((double)x->in_time, (double)x->offered);
        if (part < worst || !worst_model)
            worst_model = s->t.p.model[m].name;
        worst = fmin(worst, part);
        offered += (double)x->offered;
        in_time += (double)x->in_time;
        (void)json_array_append_new(models, report_model(&s->t.p.model[m], x));
    }
    put_num(o, "scale", scale);
    put_num(o, "offered", offered);
    put_num(o, "in_time_share", share(in_time, offered));
    put_num(o, "worst_share", worst);
    put(o, "worst_model", worst_model ? json_string(worst_model) : json_null());
    put_num(o, "goodput_rps", in_time / ((double)s->cfg.duration_us / 1e6));
    put_num(o, "utilisation", utilisation(s, r));
    put_num(o, "device_s", r->device_s);
    put_num(o, "events", (double)r->events);
    put(o, "models", models);
    return o;
}

static int run_report(struct simulation *s, double scale, json_t **ret, struct err *err)
{
    struct replay_result result;
    struct arena a;

    arena_init(&a);
    int r = run(s, scale, &a, &result, err);
    if (r == 0)
        *ret = report_run(s, scale, &result);
    arena_done(&a);
    return r;
}

/* ---- tables */

static void print_run(json_t *o)
{
    json_t *m;
    size_t i;

    printf("%-20s %10s %9s %9s %9s %9s %9s %8s %8s %8s\n", "MODEL", "OFFERED", "IN TIME", "P50 ms",
           "P99 ms", "P99.9 ms", "SLO ms", "LATE", "DROPPED", "REJECTED");
    json_array_foreach(json_object_get(o, "models"), i, m)
    {
        printf("%-20s %10.0f %8.3f%% %9.2f %9.2f %9.2f %9.5g %8.0f %8.0f %8.0f", str(m, "model"),
               num(m, "offered"), 100 * num(m, "in_time_share"), num(m, "p50_ms"), num(m, "p99_ms"),
               num(m, "p999_ms"), num(m, "slo_ms"), num(m, "late"), num(m, "dropped"),
               num(m, "rejected"));
        if (num(m, "lost") > 0)
            printf("  %.0f lost with a device", num(m, "lost"));
        putchar('\n');
    }
    printf("\n%.0f requests, %.3f %% in time, %.6g/s in time; utilisation %.1f %%, %.6g "
           "device-seconds, %.0f events\n",
           num(o, "offered"), 100 * num(o, "in_time_share"), num(o, "goodput_rps"),
           100 * num(o, "utilisation"), num(o, "device_s"), num(o, "events"));
}

static void print_sweep(json_t *list)
{
    json_t *o;
    size_t i;

    printf("%8s %10s %10s %10s  %-20s %12s %12s\n", "LOAD", "OFFERED", "IN TIME", "WORST", "MODEL",
           "GOODPUT/S", "UTILISATION");
    json_array_foreach(list, i, o)
    {
        printf("%8.4g %10.0f %9.3f%% %9.3f%%  %-20s %12.6g %11.1f%%\n", num(o, "scale"),
               num(o, "offered"), 100 * num(o, "in_time_share"), 100 * num(o, "worst_share"),
               str(o, "worst_model"), num(o, "goodput_rps"), 100 * num(o, "utilisation"));
    }
}

/* ---- the sweep */

static int sweep_run(struct simulation *s, const struct sweep *sweep, json_t *list, struct err *err)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < sweep->n; i++) {
        json_t *o = NULL;
        r = run_report(s, sweep_at(sweep, i), &o, err);
        if (r == 0)
            (void)json_array_append_new(list, o);
    }
    return r;
}

/* The in-time share of each step; key: of all requests, or of the worst model. */
static struct curve sweep_curve(struct arena *a, json_t *list, const char *key, const char *name)
{
    uint32_t n = (uint32_t)json_array_size(list);
    double *xy = ARENA_ARRAY(a, double, 2 * (size_t)n + 1);

    for (uint32_t i = 0; xy && i < n; i++) {
        xy[i] = num(json_array_get(list, i), "scale");
        xy[n + i] = num(json_array_get(list, i), key);
    }
    return (struct curve){.name = name, .n = xy ? n : 0, .x = xy, .y = xy + n};
}

/* ---- planning and setting up */

static int set_up(struct simulation *s, const struct cli *c, struct err *err)
{
    int r = load_from_options(&s->t, c, &s->given, err);

    s->cfg = (struct replay_config){
        .buckets = true,
        .problem = &s->t.p,
        .plan = &s->answer.plan,
        .load = s->given.load,
        .event = s->given.event,
        .n_events = s->given.n_events,
        .seed = c->seed < 0 ? 1 : (uint64_t)c->seed,
        .duration_us = s->given.duration_us,
        .progress = on_progress,
        .progress_arg = s,
    };
    if (r == 0 && s->given.n_unknown > 0)
        (void)fprintf(stderr, "gpuletctl: %u rows of '%s' name no model of the problem\n",
                      s->given.n_unknown, c->trace);
    return r;
}

/* With --plan the policy only decides at run time, without it also plans. */
static int choose(struct simulation *s, const struct cli *c, struct err *err)
{
    int r = task_policy(c, &s->policy, err);

    if (r == 0)
        r = task_answer(&s->t, c, &s->answer, err);
    s->cfg.policy = s->policy;
    if (r == 0 && !s->answer.valid)
        (void)fprintf(stderr, "gpuletctl: plan of %s: it does not pass plan_check: %s\n",
                      s->answer.policy, s->answer.why);
    return r;
}

static json_t *report_head(struct simulation *s)
{
    json_t *o = json_object();

    put(o, "policy", json_string(s->policy->name));
    put(o, "plan", json_string(s->answer.policy));
    put(o, "valid", json_boolean(s->answer.valid));
    put_num(o, "devices_used", plan_devices_used(&s->t.p, &s->answer.plan, &s->t.a));
    put_num(o, "seed", (double)s->cfg.seed);
    put_num(o, "duration_s", (double)s->cfg.duration_us / 1e6);
    return o;
}

static int simulate_one(struct simulation *s, const struct cli *c, struct err *err)
{
    json_t *all, *o = NULL;
    int r = choose(s, c, err);

    if (r < 0)
        return r;
    s->n_runs = 1;
    progress_begin("simulating");
    r = run_report(s, c->rate_scale < 0 ? 1 : c->rate_scale, &o, err);
    progress_end();
    if (r < 0)
        return r;
    all = report_head(s);
    (void)json_object_update(all, o);
    if (c->json)
        r = print_json(all, err);
    else
        print_run(all);
    json_decref(o);
    json_decref(all);
    return r;
}

static int sweep_one(struct simulation *s, const struct sweep *sweep, json_t **ret, struct err *err)
{
    json_t *list = json_array();

    *ret = report_head(s);
    s->n_runs = sweep->n;
    s->runs_done = 0;
    progress_begin("simulating");
    int r = sweep_run(s, sweep, list, err);
    progress_end();
    put(*ret, "sweep", list);
    return r;
}

static int draw_one(struct simulation *s, json_t *swept, const char *path, struct err *err)
{
    json_t *list = json_object_get(swept, "sweep");
    const struct curve curves[] = {
        sweep_curve(&s->t.a, list, "in_time_share", "all requests"),
        sweep_curve(&s->t.a, list, "worst_share", "the worst model"),
    };
    char title[128];

    (void)snprintf(title, sizeof(title), "Answered in time over load, policy %s", s->policy->name);
    return draw_curves(title, curves, ARRAY_SIZE(curves), path, err);
}

static int simulate_sweep(struct simulation *s, const struct cli *c, const struct sweep *sweep,
                          struct err *err)
{
    json_t *swept = NULL;
    int r = choose(s, c, err);

    if (r == 0)
        r = sweep_one(s, sweep, &swept, err);
    if (r == 0 && c->json)
        r = print_json(swept, err);
    else if (r == 0)
        print_sweep(json_object_get(swept, "sweep"));
    if (r == 0 && c->svg)
        r = draw_one(s, swept, c->svg, err);
    json_decref(swept);
    return r;
}

/* ---- --policy all: each policy's own plan under the same loads */

static int sweep_policy(struct simulation *s, const struct cli *c, const struct policy *policy,
                        const struct sweep *sweep, json_t *list)
{
    struct cli with = *c;
    struct err err = {0};
    json_t *o = NULL;

    with.policy = policy->name;
    int r = choose(s, &with, &err);
    if (r == 0)
        r = sweep_one(s, sweep, &o, &err);
    if (r < 0) {
        json_decref(o);
        o = json_object();
        put(o, "policy", json_string(policy->name));
        put(o, "error", json_string(err.msg));
    }
    (void)json_array_append_new(list, o);
    return r;
}

static int sweep_all(struct simulation *s, const struct cli *c, const struct sweep *sweep,
                     struct err *err)
{
    json_t *all = json_object(), *list = json_array(), *o;
    const struct policy *policy;
    struct curve curves[32];
    uint32_t n = 0;
    size_t i;
    int r = 0;

    for (uint32_t k = 0; (policy = policy_at(k)); k++)
        (void)sweep_policy(s, c, policy, sweep, list);
    json_array_foreach(list, i, o)
    {
        json_t *steps = json_object_get(o, "sweep");
        if (steps && n < ARRAY_SIZE(curves))
            curves[n++] = sweep_curve(&s->t.a, steps, "in_time_share", str(o, "policy"));
        if (!c->json)
            printf("\npolicy %s, %.0f devices %s\n", str(o, "policy"), num(o, "devices_used"),
                   str(o, "error"));
        if (!c->json && steps)
            print_sweep(steps);
    }
    put(all, "policies", list);
    if (c->json)
        r = print_json(all, err);
    if (r == 0 && c->svg)
        r = draw_curves("Answered in time over load", curves, n, c->svg, err);
    json_decref(all);
    return r;
}

static int check_options(const struct cli *c, int argc, struct sweep *sweep, struct err *err)
{
    bool all = c->policy && STREQ(c->policy, "all");

    if (argc != 1)
        return err_set(err, -EINVAL, "simulate needs a problem FILE");
    if (c->svg && !c->sweep)
        return err_set(err, -EINVAL, "simulate --svg draws the curve of --sweep");
    if (c->sweep && c->rate_scale >= 0)
        return err_set(err, -EINVAL, "--sweep and --rate-scale both set the load");
    if (all && (!c->sweep || c->plan))
        return err_set(err, -EINVAL, "simulate --policy all needs --sweep, and no --plan");
    return c->sweep ? sweep_parse(c->sweep, sweep, err) : 0;
}

int verb_simulate(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct simulation s = {0};
    struct sweep sweep = {0};
    int r = check_options(c, argc, &sweep, err);

    if (r < 0)
        return r;
    r = task_open(argv[0], &s.t, err);
    if (r == 0)
        r = set_up(&s, c, err);
    if (r == 0)
        r = !c->sweep                              ? simulate_one(&s, c, err)
            : c->policy && STREQ(c->policy, "all") ? sweep_all(&s, c, &sweep, err)
                                                   : simulate_sweep(&s, c, &sweep, err);
    task_done(&s.t);
    return r;
}
