/* gpuletctl bench: load on a running server, any that speaks the v2 protocol. */
#include "bench.h"
#include "load.h"
#include <math.h>

#define DEFAULT_TO "http://127.0.0.1:8000"
#define DEFAULT_SECONDS 10.0
#define DEFAULT_WARMUP 1.0
#define DEFAULT_IN_FLIGHT 1000
#define MAX_IN_FLIGHT 60000
#define MAX_AWAKE_US 1000
#define MAX_MODELS 256
#define MAX_REQUESTS 20000000 /* of one model in one run */
#define TIMEOUT_LEAST_US (5 * USEC_PER_SEC)
#define TIMEOUT_SLOS 10     /* an answer that takes longer than so many SLOs is lost */
#define LAG_PART 0.01       /* of the SLO: a 99th percentile of lag above it makes the run void */
#define GOOD_SHARE 0.99     /* --search: of every model's requests */
#define SEARCH_RATIO 1.03   /* it ends when the rate is known so well */
#define SEARCH_DOUBLINGS 20 /* from the rates given, up or down */

struct bench {
    const struct cli *c; /* with the server of --to */
    struct cli to;
    struct task t; /* the models as a problem without devices: what load.h takes */
    struct plan_model *plan_model;
    struct bench_load load;
    struct load_given given;
    uint64_t seed;
    usec_t least_slo_us; /* 0: no model has one */
};

/* ---- the command line */

/* MODEL=RPS or MODEL=RPS@SLO_MS */
static int parse_model(const struct cli *c, const char *text, struct bench_model *m,
                       struct plan_model *p, struct err *err)
{
    const char *eq = strrchr(text, '=');
    char *end = NULL;
    double slo_ms = c->slo_ms > 0 ? c->slo_ms : 0;

    if (!eq || eq == text || !(m->name = strndup(text, (size_t)(eq - text))))
        return err_set(err, -EINVAL, "'%s' is not MODEL=RPS or MODEL=RPS@SLO_MS", text);
    double rps = strtod(eq + 1, &end);
    bool ok = end != eq + 1 && rps > 0 && rps <= 1e6;
    if (ok && *end == '@') {
        const char *slo = end + 1;
        slo_ms = strtod(slo, &end);
        ok = end != slo && slo_ms > 0 && slo_ms <= 1e9;
    }
    if (!ok || *end)
        return err_set(err, -EINVAL,
                       "'%s': after '=' come requests/s above 0, at most 1e6, and perhaps '@' and "
                       "milliseconds",
                       text);
    m->slo_us = (usec_t)(slo_ms * 1000 + 0.5);
    *p = (struct plan_model){
        .name = m->name, .rate_rps = rps, .slo_us = m->slo_us, .arrivals = ARRIVALS_POISSON};
    return 0;
}

static int parse(struct bench *b, int argc, char **argv, struct err *err)
{
    if (argc < 1 || argc > MAX_MODELS)
        return err_set(err, -EINVAL, "bench needs 1 to %d times MODEL=RPS[@SLO_MS]", MAX_MODELS);
    if (b->c->in_flight == 0 || b->c->in_flight > MAX_IN_FLIGHT)
        return err_set(err, -EINVAL, "--in-flight = '%ld' is not a number from 1 to %d",
                       b->c->in_flight, MAX_IN_FLIGHT);
    if (b->c->awake_us > MAX_AWAKE_US)
        return err_set(err, -EINVAL, "--awake = '%ld' is not a number from 0 to %d", b->c->awake_us,
                       MAX_AWAKE_US);
    if (b->c->fails.n)
        return err_set(err, -EINVAL, "--fail is of simulate: bench does not break what it loads");
    if (b->c->svg && !b->c->search)
        return err_set(err, -EINVAL, "bench --svg draws the curve of --search");
    if (strncmp(b->to.server, "http://", 7) != 0 && strncmp(b->to.server, "https://", 8) != 0)
        return err_set(err, -EINVAL, "--to '%s' is not http://HOST:PORT", b->to.server);
    b->load.model = calloc((size_t)argc, sizeof(*b->load.model));
    b->plan_model = calloc((size_t)argc, sizeof(*b->plan_model));
    if (!b->load.model || !b->plan_model)
        return err_set(err, -ENOMEM, "out of memory");
    for (int i = 0; i < argc; i++) {
        struct bench_model *m = &b->load.model[b->load.n_models++];
        int r = parse_model(b->c, argv[i], m, &b->plan_model[i], err);
        if (r < 0)
            return r;
        for (int k = 0; k < i; k++)
            if (STREQ(b->load.model[k].name, m->name))
                return err_set(err, -EINVAL, "model '%s' is named twice", m->name);
        if (m->slo_us)
            b->least_slo_us = b->least_slo_us ? MIN(b->least_slo_us, m->slo_us) : m->slo_us;
    }
    if (b->c->search && !b->least_slo_us)
        return err_set(err, -EINVAL, "--search needs an SLO: --slo-ms, or @MS behind a rate");
    return 0;
}

static int set_up(struct bench *b, int argc, char **argv, struct err *err)
{
    struct cli of_load = *b->c;
    usec_t longest_us = 0;
    int r = parse(b, argc, argv, err);

    if (r < 0)
        return r;
    b->t.p.n_models = b->load.n_models;
    b->t.p.model = b->plan_model;
    if (of_load.duration_s < 0 && !of_load.trace)
        of_load.duration_s = DEFAULT_SECONDS;
    if ((r = load_from_options(&b->t, &of_load, &b->given, err)) < 0)
        return r;
    b->seed = b->c->seed < 0 ? 1 : (uint64_t)b->c->seed;
    b->load.flying_most = (uint32_t)(b->c->in_flight < 0 ? DEFAULT_IN_FLIGHT : b->c->in_flight);
    b->load.awake_us = (usec_t)MAX(b->c->awake_us, 0L);
    b->load.warmup_us = (usec_t)(1e6 * (b->c->warmup_s < 0 ? DEFAULT_WARMUP : b->c->warmup_s));
    if (b->load.warmup_us >= b->given.duration_us)
        return err_set(err, -EINVAL, "a warm-up of %g s leaves nothing of %g s",
                       (double)b->load.warmup_us / 1e6, (double)b->given.duration_us / 1e6);
    for (uint32_t i = 0; r == 0 && i < b->load.n_models; i++) {
        longest_us = MAX(longest_us, b->load.model[i].slo_us);
        r = bench_request(&b->to, &b->load.model[i], b->c->check ? BENCH_INPUTS : 1, err);
    }
    if (r == 0 && b->c->check)
        r = bench_alone(&b->load, err);
    if (r == 0 && b->c->log && !(b->load.log = fopen(b->c->log, "we")))
        r = err_set(err, -errno, "'%s': %s", b->c->log, strerror(errno));
    if (b->load.log)
        (void)fputs("due_s,model,result,took_ms\n", b->load.log);
    b->load.timeout_us = MAX(TIMEOUT_LEAST_US, TIMEOUT_SLOS * longest_us);
    return r;
}

/* ---- one run */

static double seconds(const struct bench *b)
{
    return (double)(b->given.duration_us - b->load.warmup_us) / 1e6;
}

static double in_time_share(const struct bench_model *m)
{
    return m->offered ? (double)m->in_time / (double)m->offered : 1;
}

static double worst_share(const struct bench *b)
{
    double worst = 1;

    for (uint32_t i = 0; i < b->load.n_models; i++)
        worst = fmin(worst, in_time_share(&b->load.model[i]));
    return worst;
}

/* The generator itself was too slow for what it measures. */
static bool is_void(const struct bench *b)
{
    return b->least_slo_us &&
           (double)hist_quantile(&b->load.lag, 0.99) > LAG_PART * (double)b->least_slo_us;
}

static int run(struct bench *b, double scale, struct err *err)
{
    struct replay_config cfg = {.problem = &b->t.p,
                                .load = b->given.load,
                                .event = b->given.event,
                                .n_events = b->given.n_events,
                                .seed = b->seed,
                                .duration_us = b->given.duration_us,
                                .scale = scale};
    struct arena a;
    int r = 0;

    arena_init(&a);
    for (uint32_t i = 0; r == 0 && i < b->load.n_models; i++) {
        struct bench_model *m = &b->load.model[i];
        usec_t *at_us = NULL;
        r = replay_arrivals(&cfg, i, MAX_REQUESTS, &a, &at_us, &m->n_at, err);
        m->at_us = at_us;
    }
    if (r == 0)
        r = bench_load(&b->load, err);
    arena_done(&a);
    return r;
}

/* ---- as JSON, and as a table */

static json_t *report_model(const struct bench *b, const struct bench_model *m)
{
    json_t *o = json_object();

    put(o, "model", json_string(m->name));
    put_num(o, "offered", (double)m->offered);
    put_num(o, "offered_rps", (double)m->offered / seconds(b));
    put_num(o, "in_time", (double)m->in_time);
    put_num(o, "in_time_share", in_time_share(m));
    put_num(o, "late", (double)m->late);
    put_num(o, "refused", (double)m->refused);
    put_num(o, "failed", (double)m->failed);
    put_num(o, "wrong", (double)m->wrong);
    put_num(o, "lost", (double)m->lost);
    put(o, "why", m->why[0] ? json_string(m->why) : NULL);
    put_num(o, "p50_ms", (double)hist_quantile(&m->latency, 0.5) / 1000);
    put_num(o, "p99_ms", (double)hist_quantile(&m->latency, 0.99) / 1000);
    put_num(o, "p999_ms", (double)hist_quantile(&m->latency, 0.999) / 1000);
    put_num(o, "slo_ms", (double)m->slo_us / 1000);
    return o;
}

static json_t *report(const struct bench *b, double scale)
{
    json_t *o = json_object(), *models = json_array();
    double offered = 0, in_time = 0;

    for (uint32_t i = 0; i < b->load.n_models; i++) {
        offered += (double)b->load.model[i].offered;
        in_time += (double)b->load.model[i].in_time;
        (void)json_array_append_new(models, report_model(b, &b->load.model[i]));
    }
    put_num(o, "scale", scale);
    put_num(o, "offered", offered);
    put_num(o, "offered_rps", offered / seconds(b));
    put_num(o, "in_time_share", offered > 0 ? in_time / offered : 1);
    put_num(o, "worst_share", worst_share(b));
    put_num(o, "goodput_rps", in_time / seconds(b));
    put_num(o, "in_flight_peak", b->load.flying_peak);
    put_num(o, "lag_p99_ms", (double)hist_quantile(&b->load.lag, 0.99) / 1000);
    put(o, "void", json_boolean(is_void(b)));
    put(o, "models", models);
    return o;
}

static void print_run(json_t *o)
{
    json_t *m;
    size_t i;

    printf("%-20s %10s %9s %9s %9s %9s %9s %8s %8s %8s %8s %8s\n", "MODEL", "OFFERED", "IN TIME",
           "P50 ms", "P99 ms", "P99.9 ms", "SLO ms", "LATE", "REFUSED", "FAILED", "WRONG", "LOST");
    json_array_foreach(json_object_get(o, "models"), i, m)
    {
        printf("%-20s %10.0f %8.3f%% %9.3f %9.3f %9.3f %9.5g %8.0f %8.0f %8.0f %8.0f %8.0f",
               str(m, "model"), num(m, "offered"), 100 * num(m, "in_time_share"), num(m, "p50_ms"),
               num(m, "p99_ms"), num(m, "p999_ms"), num(m, "slo_ms"), num(m, "late"),
               num(m, "refused"), num(m, "failed"), num(m, "wrong"), num(m, "lost"));
        printf("%s%s\n", str(m, "why")[0] ? "  " : "", str(m, "why"));
    }
    printf(
        "\n%.6g requests/s offered, %.6g/s in time; at most %.0f at once; sent up to %.3f ms late "
        "(99th percentile)\n",
        num(o, "offered_rps"), num(o, "goodput_rps"), num(o, "in_flight_peak"),
        num(o, "lag_p99_ms"));
}

/* Said on stderr, and by the exit status. */
static int verdict(bool is_void_run)
{
    if (!is_void_run)
        return 0;
    (void)fprintf(stderr,
                  "gpuletctl: void: this machine sent requests later than %g %% of the SLO\n",
                  100 * LAG_PART);
    return STATUS_UNMET;
}

static int bench_one(struct bench *b, struct err *err)
{
    double scale = b->c->rate_scale < 0 ? 1 : b->c->rate_scale;

    progress_begin("sending");
    int r = run(b, scale, err);
    progress_end();
    if (r < 0)
        return r;
    json_t *o = report(b, scale);
    if (b->c->json)
        r = print_json(o, err);
    else
        print_run(o);
    json_decref(o);
    return r < 0 ? r : verdict(is_void(b));
}

/* ---- --search: the largest rates with every model in time */

struct search {
    json_t *steps;    /* reports, in the order of trying */
    double good, bad; /* multiples of the rates given; 0: none yet */
    bool is_void;
};

static int search_try(struct bench *b, struct search *s, double scale, struct err *err)
{
    progress_begin("searching");
    int r = run(b, scale, err);
    progress_end();
    if (r < 0)
        return r;
    json_t *o = report(b, scale);
    (void)json_array_append_new(s->steps, o);
    if (!b->c->json)
        printf("%8.4g %12.6g %9.3f%% %9.3f%% %12.6g %10.3f\n", scale, num(o, "offered_rps"),
               100 * num(o, "in_time_share"), 100 * num(o, "worst_share"), num(o, "goodput_rps"),
               num(o, "lag_p99_ms"));
    (void)fflush(stdout);
    s->is_void = is_void(b);
    if (worst_share(b) >= GOOD_SHARE && !s->is_void)
        s->good = fmax(s->good, scale);
    else
        s->bad = s->bad > 0 ? fmin(s->bad, scale) : scale;
    return 0;
}

static int search_run(struct bench *b, struct search *s, struct err *err)
{
    double scale = b->c->rate_scale > 0 ? b->c->rate_scale : 1;
    int r = 0;

    for (int i = 0; r == 0 && i < SEARCH_DOUBLINGS && !(s->good > 0 && s->bad > 0); i++) {
        r = search_try(b, s, scale, err);
        scale *= s->bad > 0 ? 0.5 : 2;
    }
    while (r == 0 && s->good > 0 && s->bad > s->good * SEARCH_RATIO)
        r = search_try(b, s, sqrt(s->good * s->bad), err);
    return r;
}

static int by_scale(const void *a, const void *b)
{
    double x = num(*(json_t *const *)a, "scale"), y = num(*(json_t *const *)b, "scale");

    return (x > y) - (x < y);
}

static int draw(const struct bench *b, const struct search *s, struct err *err)
{
    uint32_t n = (uint32_t)json_array_size(s->steps);
    AUTO(free) json_t **step = calloc(n + 1, sizeof(*step));
    AUTO(free) double *x = calloc(3 * (size_t)n + 1, sizeof(*x));

    if (!step || !x)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++)
        step[i] = json_array_get(s->steps, i);
    qsort(step, n, sizeof(json_t *), by_scale);
    for (uint32_t i = 0; i < n; i++) {
        x[i] = num(step[i], "scale");
        x[n + i] = num(step[i], "in_time_share");
        x[2 * n + i] = num(step[i], "worst_share");
    }
    const struct curve curves[] = {{"all requests", n, x, x + n},
                                   {"the worst model", n, x, x + 2 * (size_t)n}};
    return draw_curves("Answered in time over load", curves, ARRAY_SIZE(curves), b->c->svg, err);
}

static int bench_search(struct bench *b, struct err *err)
{
    struct search s = {.steps = json_array()};
    double rate_rps = 0;

    for (uint32_t i = 0; i < b->load.n_models; i++)
        rate_rps += b->plan_model[i].rate_rps;
    if (!b->c->json)
        printf("%8s %12s %10s %10s %12s %10s\n", "LOAD", "OFFERED/S", "IN TIME", "WORST",
               "GOODPUT/S", "LAG99 ms");
    int r = search_run(b, &s, err);
    bool ended_void = s.is_void && !(s.good > 0);
    json_t *all = json_object();
    put_num(all, "capacity_scale", s.good);
    put_num(all, "capacity_rps", s.good * rate_rps);
    put_num(all, "good_share", GOOD_SHARE);
    put(all, "steps", json_incref(s.steps));
    if (r == 0 && b->c->json)
        r = print_json(all, err);
    else if (r == 0)
        printf(
            "\n%.4g times the rates given, %.6g requests/s in all, with every model at least %g %% "
            "in time\n",
            s.good, s.good * rate_rps, 100 * GOOD_SHARE);
    if (r == 0 && b->c->svg)
        r = draw(b, &s, err);
    json_decref(all);
    json_decref(s.steps);
    return r < 0 ? r : verdict(ended_void);
}

static void bench_done(struct bench *b)
{
    for (uint32_t i = 0; i < b->load.n_models; i++) {
        free((char *)(uintptr_t)b->load.model[i].name);
        free(b->load.model[i].url);
        for (uint32_t k = 0; k < BENCH_INPUTS; k++) {
            free(b->load.model[i].body[k]);
            free(b->load.model[i].answer[k]);
        }
    }
    if (b->load.log)
        (void)fclose(b->load.log);
    free(b->load.model);
    free(b->plan_model);
    arena_done(&b->t.a);
}

int verb_bench(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct bench b = {.c = c, .to = *c};

    b.to.server = c->to ? c->to : DEFAULT_TO;
    b.to.token = NULL;
    arena_init(&b.t.a);
    int r = set_up(&b, argc, argv, err);
    if (r == 0)
        r = c->search ? bench_search(&b, err) : bench_one(&b, err);
    bench_done(&b);
    return r;
}
