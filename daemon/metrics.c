/* GET /metrics: Prometheus text, version 0.0.4.
 *
 * Own names begin with gpuletd_; the nv_inference_ names that dashboards know are there too, with
 * the same meaning as elsewhere. */
#include "daemon.h"
#include <gpulet/sim.h>
#include <inttypes.h>
#include <stdio.h>

typedef double value_fn(const struct view_model *m);

#define STAT(name, expr)                                                                           \
    static double name(const struct view_model *m)                                                 \
    {                                                                                              \
        const struct served_stats *s = m->served->stats;                                           \
        return (double)(expr);                                                                     \
    }
STAT(success, s->success)
STAT(rejected, s->rejected + s->late)
STAT(failed, s->fail)
STAT(rows, s->rows)
STAT(runs, s->runs)
STAT(success_us, s->success_ns / 1000)
STAT(queue_us, s->queue_ns / 1000)
STAT(run_us, s->run_ns / 1000)
STAT(in_time, s->in_time)
STAT(refused_full, s->refused[REFUSED_FULL])
STAT(refused_late, s->refused[REFUSED_LATE])
STAT(refused_beyond, s->refused[REFUSED_BEYOND])
STAT(refused_lost, s->refused[REFUSED_LOST])
STAT(refused_else, s->refused[REFUSED_ELSE])
STAT(dropped, s->late)

static double queued(const struct view_model *m)
{
    return m->n_queued;
}

static double slo_unmet(const struct view_model *m)
{
    return m->unmet != LIMIT_NONE;
}

static double mean_rps(const struct view_model *m)
{
    return m->mean_rps;
}

static double planned_rps(const struct view_model *m)
{
    return m->planned_rps;
}

static double load_s(const struct view_model *m)
{
    return (double)m->load_us / 1e6;
}

static double points_kept(const struct view_model *m)
{
    return m->n_kept;
}

static double points_measured(const struct view_model *m)
{
    return m->n_probed;
}

static double weights(const struct view_model *m)
{
    return (double)m->weights_bytes;
}

/* One row a metric; rows of one name follow each other. */
static const struct {
    const char *name, *type, *help, *label;
    value_fn *value;
} of_models[] = {
    {"nv_inference_request_success", "counter", "Requests answered.", "", success},
    {"nv_inference_request_failure", "counter", "Requests not answered, by reason.",
     ",reason=\"REJECTED\"", rejected},
    {"nv_inference_request_failure", "counter", "", ",reason=\"BACKEND\"", failed},
    {"nv_inference_count", "counter", "Rows inferred.", "", rows},
    {"nv_inference_exec_count", "counter", "Runs on the device, each of one batch.", "", runs},
    {"nv_inference_pending_request_count", "gauge", "Requests waiting.", "", queued},
    {"nv_inference_request_duration_us", "counter", "Arrival to result, summed.", "", success_us},
    {"nv_inference_queue_duration_us", "counter", "Waiting, summed.", "", queue_us},
    {"nv_inference_compute_infer_duration_us", "counter", "Running, summed over runs.", "", run_us},
    {"gpuletd_requests_in_time_total", "counter", "Requests answered within their deadline.", "",
     in_time},
    {"gpuletd_requests_refused_total", "counter", "Requests refused or dropped, by why.",
     ",why=\"full\"", refused_full},
    {"gpuletd_requests_refused_total", "counter", "", ",why=\"late\"", refused_late},
    {"gpuletd_requests_refused_total", "counter", "", ",why=\"beyond\"", refused_beyond},
    {"gpuletd_requests_refused_total", "counter", "", ",why=\"lost\"", refused_lost},
    {"gpuletd_requests_refused_total", "counter", "", ",why=\"else\"", refused_else},
    {"gpuletd_requests_refused_total", "counter", "", ",why=\"dropped\"", dropped},
    {"gpuletd_model_slo_unmet", "gauge", "1 while the plan cannot hold the model's SLO.", "",
     slo_unmet},
    {"gpuletd_model_rate_rps", "gauge", "Requests that came a second, lately.", "", mean_rps},
    {"gpuletd_model_planned_rps", "gauge", "The rate that the plan is made for; 0: not known.", "",
     planned_rps},
    {"gpuletd_model_weights_bytes", "gauge", "Weights on the device.", "", weights},
    {"gpuletd_model_load_seconds", "gauge", "From opening the model's file to serving.", "",
     load_s},
    {"gpuletd_model_profile_points_total", "counter",
     "Points of the model's profile: known when it was loaded, and run since to be measured.",
     ",from=\"kept\"", points_kept},
    {"gpuletd_model_profile_points_total", "counter", "", ",from=\"measured\"", points_measured},
};

static void head(FILE *to, const char *name, const char *type, const char *help)
{
    (void)fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A histogram of what was counted in 1/unit; labels may be "". */
static void print_tally(FILE *to, const char *name, const char *labels, const struct tally *t,
                        const uint64_t bound[TALLY_BOUNDS], double unit)
{
    const char *comma = labels[0] ? "," : "";
    uint64_t n = 0;

    for (unsigned i = 0; i < TALLY_BOUNDS; i++) {
        n += atomic_load_explicit(&t->n[i], memory_order_relaxed);
        (void)fprintf(to, "%s_bucket{%s%sle=\"%.9g\"} %" PRIu64 "\n", name, labels, comma,
                      (double)bound[i] / unit, n);
    }
    n += atomic_load_explicit(&t->n[TALLY_BOUNDS], memory_order_relaxed);
    (void)fprintf(to, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, n);
    const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    (void)fprintf(to, "%s_sum%s%s%s %.9g\n", name, open, labels, close,
                  (double)atomic_load_explicit(&t->sum, memory_order_relaxed) / unit);
    (void)fprintf(to, "%s_count%s%s%s %" PRIu64 "\n", name, open, labels, close, n);
}

static void print_models(FILE *to, const struct engine_view *v)
{
    for (size_t k = 0; k < ARRAY_SIZE(of_models); k++) {
        if (of_models[k].help[0])
            head(to, of_models[k].name, of_models[k].type, of_models[k].help);
        for (uint32_t i = 0; i < v->n_models; i++)
            if (v->model[i].served)
                (void)fprintf(to, "%s{model=\"%s\",version=\"%u\"%s} %.15g\n", of_models[k].name,
                              v->model[i].spec.name, v->model[i].spec.version, of_models[k].label,
                              of_models[k].value(&v->model[i]));
    }
}

static void print_stages(FILE *to, const struct engine_view *v)
{
    static const char name[] = "gpuletd_request_stage_seconds";

    head(to, name, "histogram",
         "Time of requests: in the queue, in the run, from the result to the reply.");
    for (uint32_t i = 0; i < v->n_models; i++) {
        const struct view_model *m = &v->model[i];
        if (!m->served)
            continue;
        const struct served_stats *s = m->served->stats;
        const struct {
            const char *name;
            const struct tally *t;
        } stage[] = {{"queue", &s->queue}, {"compute", &s->compute}, {"reply", &s->reply}};
        for (size_t k = 0; k < ARRAY_SIZE(stage); k++) {
            char labels[MODEL_NAME_MAX + 64];
            (void)snprintf(labels, sizeof(labels), "model=\"%s\",version=\"%u\",stage=\"%s\"",
                           m->spec.name, m->spec.version, stage[k].name);
            print_tally(to, name, labels, stage[k].t, tally_us, 1e6);
        }
    }
}

static void print_gpulets(FILE *to, const struct engine_view *v)
{
    head(to, "gpuletd_gpulet_units", "gauge", "Units (SMs, cores) of a gpu-let.");
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        (void)fprintf(to, "gpuletd_gpulet_units{gpulet=\"%u\",device=\"%s\",state=\"%s\"} %u\n",
                      v->gpulet[i].id, v->device[v->gpulet[i].device].name, v->gpulet[i].state,
                      v->gpulet[i].units);
    head(to, "gpuletd_gpulet_busy", "gauge", "Share of the last second spent in runs.");
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        (void)fprintf(to, "gpuletd_gpulet_busy{gpulet=\"%u\"} %.4f\n", v->gpulet[i].id,
                      v->gpulet[i].busy);
    head(to, "gpuletd_gpulet_busy_seconds_total", "counter", "Time spent in runs.");
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        (void)fprintf(to, "gpuletd_gpulet_busy_seconds_total{gpulet=\"%u\"} %.6f\n",
                      v->gpulet[i].id, (double)v->gpulet[i].busy_ns / 1e9);
    head(to, "gpuletd_gpulet_run_ratio", "histogram", "What runs took over what was predicted.");
    for (uint32_t i = 0; i < v->n_gpulets; i++) {
        char labels[32];
        (void)snprintf(labels, sizeof(labels), "gpulet=\"%u\"", v->gpulet[i].id);
        print_tally(to, "gpuletd_gpulet_run_ratio", labels, &v->gpulet[i].ratio, tally_permille,
                    1e3);
    }
    head(to, "gpuletd_gpulet_queued", "gauge", "Requests waiting in a gpu-let.");
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        (void)fprintf(to, "gpuletd_gpulet_queued{gpulet=\"%u\"} %u\n", v->gpulet[i].id,
                      v->gpulet[i].n_queued);
}

static void print_sim(FILE *to, const struct engine_view *v)
{
    if (v->n_devices == 0 || v->device[0].mode != MODE_SIM)
        return;
    head(to, "gpuletd_sim_lag_seconds", "histogram",
         "By how much the ends of simulated runs were told too late.");
    print_tally(to, "gpuletd_sim_lag_seconds", "", sim_lag(), tally_us, 1e6);
}

static void print_http(FILE *to, struct gpuletd *d)
{
    const struct {
        const char *port;
        const struct http_stats *t;
    } of[] = {{"data", d->data ? http_server_stats(d->data) : NULL},
              {"admin", d->admin ? http_server_stats(d->admin) : NULL}};

    head(to, "gpuletd_http_connections", "gauge", "Connections that are open.");
    for (size_t i = 0; i < ARRAY_SIZE(of); i++)
        if (of[i].t)
            (void)fprintf(to, "gpuletd_http_connections{port=\"%s\"} %" PRIu64 "\n", of[i].port,
                          (uint64_t)of[i].t->connections_now);
    head(to, "gpuletd_http_suspended", "gauge", "Requests that wait for a result.");
    for (size_t i = 0; i < ARRAY_SIZE(of); i++)
        if (of[i].t)
            (void)fprintf(to, "gpuletd_http_suspended{port=\"%s\"} %" PRIu64 "\n", of[i].port,
                          (uint64_t)of[i].t->suspended_now);
    head(to, "gpuletd_http_replies", "counter", "Replies, by status.");
    for (size_t i = 0; i < ARRAY_SIZE(of); i++)
        for (unsigned k = 0; of[i].t && k < ARRAY_SIZE(of[i].t->status); k++)
            if (of[i].t->status[k])
                (void)fprintf(to, "gpuletd_http_replies{port=\"%s\",status=\"%u\"} %" PRIu64 "\n",
                              of[i].port, k, (uint64_t)of[i].t->status[k]);
}

static void print_daemon(FILE *to, struct gpuletd *d, const struct engine_view *v)
{
    head(to, "gpuletd_epoch", "gauge", "Number of the routing table in force.");
    (void)fprintf(to, "gpuletd_epoch %" PRIu64 "\n", v->epoch);
    head(to, "gpuletd_plan_failed", "gauge", "1 while the last plan could not be made.");
    (void)fprintf(to, "gpuletd_plan_failed %d\n", v->plan_error[0] != 0);
    head(to, "gpuletd_pending_requests", "gauge", "Requests accepted and not yet completed.");
    (void)fprintf(to, "gpuletd_pending_requests %" PRIu64 "\n", engine_pending(d->engine));
    head(to, "gpuletd_host_memory_used_bytes", "gauge", "Request memory handed out.");
    (void)fprintf(to, "gpuletd_host_memory_used_bytes %zu\n", v->host_used_bytes);
    head(to, "gpuletd_draining", "gauge", "1 while readiness and inference answer 503.");
    (void)fprintf(to, "gpuletd_draining %d\n", (int)d->draining);
}

void metrics_get(struct exchange *x)
{
    struct gpuletd *d = gpuletd_of(x);
    AUTO(engine_view_free) struct engine_view *v = NULL;
    struct err err = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);

    if (!to || engine_view(d->engine, &v, &err) < 0) {
        if (to)
            (void)fclose(to);
        free(text);
        exchange_reply_error(x, 503, "out of memory");
        return;
    }
    print_models(to, v);
    print_stages(to, v);
    print_gpulets(to, v);
    print_sim(to, v);
    print_daemon(to, d, v);
    print_http(to, d);
    (void)fclose(to);
    exchange_reply_text(x, 200, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
}
