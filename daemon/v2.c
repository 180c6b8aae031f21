/* The v2 protocol without inference: health, metadata, repository, statistics, and the table of
 * its routes. */
#include "v2_infer.h"
#include <inttypes.h>
#include <stdio.h>

#define INDEX_BODY_MAX 4096
#define LOAD_BODY_MAX ((size_t)64 << 20) /* files in base64 travel in it */

static struct v2 *v2_of(struct exchange *x)
{
    return x->ctx;
}

static json_t *text_u32(uint32_t n)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%u", n);
    return json_string(text);
}

/* ---- models */
/* A version is plain digits; 0 and what does not fit are versions that do not exist. */
static int version_of(const char *text, uint32_t *ret, struct err *err)
{
    unsigned long long n;

    *ret = 0;
    if (!text)
        return 0;
    if (strspn(text, "0123456789") != strlen(text) || strlen(text) > 18)
        return err_set(err, -EINVAL, "version '%.40s' is no decimal number", text);
    n = strtoull(text, NULL, 10);
    if (n == 0 || n > UINT32_MAX)
        return err_set(err, -ENOENT, "there is no version %llu", n);
    *ret = (uint32_t)n;
    return 0;
}

int v2_served(struct exchange *x, struct served **ret)
{
    struct err err = {0};
    uint32_t version;
    int rc = version_of(x->arg[1], &version, &err);

    if (rc == 0)
        rc = served_get(v2_of(x)->engine, x->arg[0], version, ret, &err);
    if (rc < 0)
        exchange_reply_err(x, &err, 0);
    return rc;
}

static json_t *dims_json(const struct io_desc *d, uint32_t from)
{
    json_t *dims = json_array();

    for (uint32_t i = from; i < d->rank; i++)
        (void)json_array_append_new(dims, json_integer(d->dims[i]));
    return dims;
}

static json_t *io_metadata(const struct io_desc *io, uint32_t n)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "name", io[i].name, "datatype",
                                                    dtype_name(io[i].dtype), "shape",
                                                    dims_json(&io[i], 0)));
    return list;
}

static void model_metadata(struct exchange *x)
{
    AUTO(served_put) struct served *m = NULL;

    if (v2_served(x, &m) < 0)
        return;
    api_reply_json(x, 200,
                   json_pack("{s:s,s:[o],s:s,s:o,s:o}", "name", m->spec.name, "versions",
                             text_u32(m->spec.version), "platform", "onnx_onnxv1", "inputs",
                             io_metadata(m->in, m->n_in), "outputs",
                             io_metadata(m->out, m->n_out)));
}

/* The batch dimension is not part of dims here. */
static json_t *io_config(const struct served *m, const struct io_desc *io, uint32_t n)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "name", io[i].name,
                                                    "data_type", dtype_config_name(io[i].dtype),
                                                    "dims", dims_json(&io[i], m->batches)));
    return list;
}

static void model_config(struct exchange *x)
{
    AUTO(served_put) struct served *m = NULL;
    json_t *config;

    if (v2_served(x, &m) < 0)
        return;
    config =
        json_pack("{s:s,s:s,s:s,s:i,s:o,s:o}", "name", m->spec.name, "platform", "onnx_onnxv1",
                  "backend", "gpuletd", "max_batch_size", m->batches ? (int)m->max_batch : 0,
                  "input", io_config(m, m->in, m->n_in), "output", io_config(m, m->out, m->n_out));
    if (config && m->batches)
        (void)json_object_set_new(config, "dynamic_batching", json_object());
    if (config) {
        (void)json_object_set_new(config, "version_policy",
                                  json_pack("{s:{s:i}}", "latest", "num_versions", 1));
        (void)json_object_set_new(config, "model_transaction_policy",
                                  json_pack("{s:b}", "decoupled", 0));
    }
    api_reply_json(x, 200, config);
}

static void model_ready(struct exchange *x)
{
    AUTO(served_put) struct served *m = NULL;

    if (v2_served(x, &m) == 0)
        api_reply_json(x, 200, json_pack("{s:s,s:b}", "name", m->spec.name, "ready", 1));
}

/* ---- the server */
static unsigned ask_live(void *ctx, const char **ret_json)
{
    (void)ctx;
    *ret_json = "{\"live\":true}";
    return 200;
}

static unsigned ask_ready(void *ctx, const char **ret_json)
{
    const struct v2 *v2 = ctx;
    bool draining = *v2->draining;

    *ret_json = draining ? "{\"error\":\"the server is stopping\"}" : "{\"ready\":true}";
    return draining ? 503 : 200;
}

const struct http_probe v2_probes[] = {{"/v2/health/live", ask_live},
                                       {"/v2/health/ready", ask_ready}};
const size_t n_v2_probes = ARRAY_SIZE(v2_probes);

static void health(struct exchange *x)
{
    for (size_t i = 0; i < n_v2_probes; i++)
        if (STREQ(x->route->pattern, v2_probes[i].path)) {
            const char *json;
            unsigned status = v2_probes[i].ask(x->ctx, &json);
            if (status == 503)
                exchange_set_header(x, "Retry-After", "1");
            exchange_reply_static(x, status, "application/json", json, strlen(json));
        }
}

static void server_metadata(struct exchange *x)
{
    api_reply_json(x, 200,
                   json_pack("{s:s,s:s,s:[s,s,s,s,s,s]}", "name", "gpuletd", "version",
                             GPULETD_VERSION, "extensions", "model_repository",
                             "model_configuration", "schedule_policy", "binary_tensor_data",
                             "parameters", "statistics"));
}

static void not_built(struct exchange *x)
{
    exchange_reply_error(x, 501, "'%.150s' belongs to an extension that gpuletd does not have",
                         x->url);
}

/* ---- statistics */
static json_t *count_ns(uint64_t count, uint64_t ns)
{
    return json_pack("{s:I,s:I}", "count", (json_int_t)count, "ns", (json_int_t)ns);
}

static json_t *inference_stats(const struct served_stats *s)
{
    return json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "success", count_ns(s->success, s->success_ns), "fail",
        count_ns(s->fail + s->late + s->rejected, s->fail_ns), "queue",
        count_ns(s->success, s->queue_ns), "compute_input", count_ns(s->success, 0),
        "compute_infer", count_ns(s->success, s->run_ns), "compute_output", count_ns(s->success, 0),
        "cache_hit", count_ns(0, 0), "cache_miss", count_ns(0, 0));
}

static json_t *batch_stats(const struct served *m)
{
    json_t *list = json_array();

    for (uint32_t b = 1; b <= MIN(m->max_batch, (uint32_t)MAX_BATCH_LIMIT); b++) {
        uint64_t n = m->stats->batch_count[b];

        if (n)
            (void)json_array_append_new(
                list, json_pack("{s:I,s:o,s:o,s:o}", "batch_size", (json_int_t)b, "compute_input",
                                count_ns(n, 0), "compute_infer", count_ns(n, m->stats->batch_ns[b]),
                                "compute_output", count_ns(n, 0)));
    }
    return list;
}

static json_t *stats_json(const struct served *m)
{
    const struct served_stats *s = m->stats;

    return json_pack("{s:s,s:o,s:I,s:I,s:I,s:o,s:{},s:o,s:[]}", "name", m->spec.name, "version",
                     text_u32(m->spec.version), "last_inference", (json_int_t)s->last_ms,
                     "inference_count", (json_int_t)s->rows, "execution_count", (json_int_t)s->runs,
                     "inference_stats", inference_stats(s), "response_stats", "batch_stats",
                     batch_stats(m), "memory_usage");
}

static void model_stats(struct exchange *x)
{
    AUTO(served_put) struct served *m = NULL;

    if (v2_served(x, &m) == 0)
        api_reply_json(x, 200, json_pack("{s:[o]}", "model_stats", stats_json(m)));
}

/* The engine's view for a handler; answers x itself when there is none. */
static struct engine_view *view_for(struct exchange *x)
{
    struct engine_view *view = NULL;
    struct err err = {0};

    if (engine_view(v2_of(x)->engine, &view, &err) < 0)
        exchange_reply_err(x, &err, 0);
    return view;
}

static void all_stats(struct exchange *x)
{
    AUTO(engine_view_free) struct engine_view *view = view_for(x);
    json_t *list;

    if (!view)
        return;
    list = json_array();
    for (uint32_t i = 0; i < view->n_models; i++)
        if (view->model[i].served)
            (void)json_array_append_new(list, stats_json(view->model[i].served));
    api_reply_json(x, 200, json_pack("{s:o}", "model_stats", list));
}

/* ---- the repository */
static int body_parameters(struct exchange *x, json_t **ret_body, json_t **ret_parameters)
{
    struct err err = {0};

    if (api_body_object(x, ret_body, &err) < 0) {
        exchange_reply_err(x, &err, 0);
        return err.code;
    }
    *ret_parameters = json_object_get(*ret_body, "parameters");
    if (!*ret_parameters || json_is_object(*ret_parameters))
        return 0;
    exchange_reply_error(x, 400, "parameters is no object");
    json_decref(*ret_body);
    return -EINVAL;
}

static void index_of_loaded(struct exchange *x, bool ready_only)
{
    AUTO(engine_view_free) struct engine_view *view = view_for(x);
    json_t *list;

    if (!view)
        return;
    list = json_array();
    for (uint32_t i = 0; i < view->n_models; i++) {
        const struct view_model *m = &view->model[i];
        json_t *entry;

        if (ready_only && m->state != SERVED_READY)
            continue;
        entry = json_pack("{s:s,s:o,s:s}", "name", m->spec.name, "version",
                          text_u32(m->spec.version), "state", served_state_name(m->state));
        if (entry && m->reason && *m->reason)
            (void)json_object_set_new(entry, "reason", json_string(m->reason));
        (void)json_array_append_new(list, entry);
    }
    api_reply_json(x, 200, list);
}

static void repository_index(struct exchange *x)
{
    struct v2 *v2 = v2_of(x);
    json_t *body, *parameters, *ready;

    if (body_parameters(x, &body, &parameters) < 0)
        return;
    ready = json_object_get(body, "ready");
    if (ready && !json_is_boolean(ready))
        exchange_reply_error(x, 400, "ready is no boolean");
    else if (v2->repository)
        v2->repository->index(v2->store, x, json_is_true(ready));
    else
        index_of_loaded(x, json_is_true(ready));
    json_decref(body);
}

/* May this peer do it?  Asked when the head is there, so that nobody else sends us files. */
static void control_head(struct exchange *x)
{
    struct v2 *v2 = v2_of(x);
    struct err err = {0};

    if (!v2->repository)
        exchange_reply_error(x, 503, "model control is off");
    else if (v2->repository->allowed(v2->store, x, &err) < 0)
        exchange_reply_err(x, &err, 0);
}

static void repository_load(struct exchange *x)
{
    struct v2 *v2 = v2_of(x);
    json_t *body, *parameters;

    if (body_parameters(x, &body, &parameters) < 0)
        return;
    v2->repository->load(v2->store, x, x->arg[0], parameters);
    json_decref(body);
}

static void repository_unload(struct exchange *x)
{
    struct v2 *v2 = v2_of(x);
    json_t *body, *parameters;

    if (body_parameters(x, &body, &parameters) < 0)
        return;
    v2->repository->unload(v2->store, x, x->arg[0], parameters);
    json_decref(body);
}

static void named_repository(struct exchange *x)
{
    exchange_reply_error(x, 501,
                         "there is one repository only: a name of it in the path ('%.100s')"
                         " is not supported",
                         x->arg[0]);
}

#define MODEL "/v2/models/{m}"
#define VERSION MODEL "/versions/{v}"

/* The first row that matches counts: a model cannot be called "stats". */
const struct route v2_routes[] = {
    {"GET", "/v2/health/live", NULL, health, 0},
    {"GET", "/v2/health/ready", NULL, health, 0},
    {"GET", "/v2", NULL, server_metadata, 0},
    {"GET", "/v2/models/stats", NULL, all_stats, 0},
    {"POST", MODEL "/infer", v2_infer_head, v2_infer_body, 0},
    {"POST", VERSION "/infer", v2_infer_head, v2_infer_body, 0},
    {"GET", MODEL "/ready", NULL, model_ready, 0},
    {"GET", VERSION "/ready", NULL, model_ready, 0},
    {"GET", MODEL, NULL, model_metadata, 0},
    {"GET", VERSION, NULL, model_metadata, 0},
    {"GET", MODEL "/config", NULL, model_config, 0},
    {"GET", VERSION "/config", NULL, model_config, 0},
    {"GET", MODEL "/stats", NULL, model_stats, 0},
    {"GET", VERSION "/stats", NULL, model_stats, 0},
    {"POST", "/v2/repository/index", NULL, repository_index, INDEX_BODY_MAX},
    {"POST", "/v2/repository/models/{m}/load", control_head, repository_load, LOAD_BODY_MAX},
    {"POST", "/v2/repository/models/{m}/unload", control_head, repository_unload, INDEX_BODY_MAX},
    {"POST", "/v2/repository/{r}/index", NULL, named_repository, 0},
    {"POST", "/v2/repository/{r}/models/{m}/load", NULL, named_repository, 0},
    {"POST", "/v2/repository/{r}/models/{m}/unload", NULL, named_repository, 0},
    {"GET", "/v2/logging", NULL, not_built, 0},
    {"POST", "/v2/logging", NULL, not_built, 0},
    {"GET", "/v2/trace/setting", NULL, not_built, 0},
    {"POST", "/v2/trace/setting", NULL, not_built, 0},
    {"GET", MODEL "/trace/setting", NULL, not_built, 0},
    {"POST", MODEL "/trace/setting", NULL, not_built, 0},
    {"GET", "/v2/systemsharedmemory/status", NULL, not_built, 0},
    {"GET", "/v2/cudasharedmemory/status", NULL, not_built, 0},
    {"POST", "/v2/systemsharedmemory/unregister", NULL, not_built, 0},
    {"POST", "/v2/cudasharedmemory/unregister", NULL, not_built, 0},
    {"GET", "/v2/systemsharedmemory/region/{r}/status", NULL, not_built, 0},
    {"GET", "/v2/cudasharedmemory/region/{r}/status", NULL, not_built, 0},
    {"POST", "/v2/systemsharedmemory/region/{r}/register", NULL, not_built, 0},
    {"POST", "/v2/cudasharedmemory/region/{r}/register", NULL, not_built, 0},
    {"POST", "/v2/systemsharedmemory/region/{r}/unregister", NULL, not_built, 0},
    {"POST", "/v2/cudasharedmemory/region/{r}/unregister", NULL, not_built, 0},
};
const size_t n_v2_routes = ARRAY_SIZE(v2_routes);

http_item_fn *const api_items[ITEM_KINDS] = {
    [ITEM_REQUEST] = v2_infer_item,
    [ITEM_JOB] = http_job_item,
};
