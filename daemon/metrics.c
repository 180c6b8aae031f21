/* GET /metrics: Prometheus text, version 0.0.4.
 *
 * Own names begin with gpuletd_; the nv_inference_ names that dashboards know are there too, with
 * the same meaning as elsewhere. */
#include "daemon.h"
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
    {"gpuletd_model_slo_unmet", "gauge", "1 while the plan cannot hold the model's SLO.", "",
     slo_unmet},
    {"gpuletd_model_rate_rps", "gauge", "Requests that came a second, lately.", "", mean_rps},
    {"gpuletd_model_planned_rps", "gauge", "The rate that the plan is made for; 0: not known.", "",
     planned_rps},
    {"gpuletd_model_weights_bytes", "gauge", "Weights on the device.", "", weights},
};

static void head(FILE *to, const char *name, const char *type, const char *help)
{
    (void)fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_models(FILE *to, const struct engine_view *v)
{
    for (size_t k = 0; k < ARRAY_SIZE(of_models); k++) {
        if (of_models[k].help[0])
            head(to, of_models[k].name, of_models[k].type, of_models[k].help);
        for (uint32_t i = 0; i < v->n_models; i++)
            if (v->model[i].served)
                (void)fprintf(to, "%s{model=\"%s\",version=\"%u\"%s} %.0f\n", of_models[k].name,
                              v->model[i].spec.name, v->model[i].spec.version, of_models[k].label,
                              of_models[k].value(&v->model[i]));
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
    head(to, "gpuletd_gpulet_queued", "gauge", "Requests waiting in a gpu-let.");
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        (void)fprintf(to, "gpuletd_gpulet_queued{gpulet=\"%u\"} %u\n", v->gpulet[i].id,
                      v->gpulet[i].n_queued);
}

static void print_http(FILE *to, const char *port, const struct http_server *s)
{
    const struct http_stats *t = s ? http_server_stats(s) : NULL;

    if (!t)
        return;
    (void)fprintf(to, "gpuletd_http_connections{port=\"%s\"} %" PRIu64 "\n", port,
                  (uint64_t)t->connections_now);
    (void)fprintf(to, "gpuletd_http_suspended{port=\"%s\"} %" PRIu64 "\n", port,
                  (uint64_t)t->suspended_now);
    for (unsigned i = 0; i < ARRAY_SIZE(t->status); i++)
        if (t->status[i])
            (void)fprintf(to, "gpuletd_http_replies{port=\"%s\",status=\"%u\"} %" PRIu64 "\n", port,
                          i, (uint64_t)t->status[i]);
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
    print_gpulets(to, v);
    print_daemon(to, d, v);
    print_http(to, "data", d->data);
    print_http(to, "admin", d->admin);
    (void)fclose(to);
    exchange_reply_text(x, 200, "text/plain; version=0.0.4; charset=utf-8", text, bytes);
}
