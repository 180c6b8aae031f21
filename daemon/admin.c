/* The admin surface: models, devices, gpu-lets, plan, events, drain, metrics.
 *
 * Served on 127.0.0.1:8001 and a Unix socket.  Whoever may connect to the Unix socket (group
 * gpuletd) or comes from this machine is trusted; anybody else needs the token.  A browser on this
 * machine is not: Host must name this machine and Origin, if there is one, must be our own, so that
 * a foreign page can neither read nor change anything. */
#include "page.h"
#include "store.h"
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

/* ---- who may */

bool token_matches(struct exchange *x)
{
    struct gpuletd *d = gpuletd_of(x);
    const char *h = exchange_header(x, "Authorization");
    unsigned char differs = 0;

    if (!h || strncasecmp(h, "Bearer ", 7) != 0)
        return false;
    h += 7;
    (void)pthread_mutex_lock(&d->token_lock);
    size_t n = strlen(d->token);
    bool known = n > 0 && strlen(h) == n;
    for (size_t i = 0; known && i < n; i++) /* in constant time */
        differs |= (unsigned char)(h[i] ^ d->token[i]);
    (void)pthread_mutex_unlock(&d->token_lock);
    return known && !differs;
}

/* "localhost:8001", "127.0.0.1", "[::1]:8001": with or without a port. */
static bool host_is_local(const char *host)
{
    static const char *const local[] = {"localhost", "127.0.0.1", "[::1]"};

    for (size_t i = 0; i < ARRAY_SIZE(local); i++) {
        size_t n = strlen(local[i]);
        if (strncasecmp(host, local[i], n) == 0 && (host[n] == 0 || host[n] == ':'))
            return true;
    }
    return false;
}

int admin_allowed(struct exchange *x, struct err *err)
{
    const char *host = exchange_header(x, "Host"), *origin = exchange_header(x, "Origin");

    if (token_matches(x))
        return 0;
    if (origin && (strncmp(origin, "http://", 7) != 0 || !host || !STREQ(origin + 7, host)))
        return err_set(err, -EACCES, "origin '%s' is not this server's", origin);
    if (x->peer == PEER_UNIX)
        return 0;
    if (x->peer != PEER_LOOPBACK)
        return err_set(err, -EACCES, "the admin token is needed from another machine");
    if (host && !host_is_local(host))
        return err_set(err, -EACCES, "host '%s' is not this machine's name", host);
    return 0;
}

/* For route.head: answers and returns false when the peer may not. */
static bool let_in(struct exchange *x)
{
    struct err err = {0};

    if (admin_allowed(x, &err) == 0)
        return true;
    exchange_reply_err(x, &err, 0);
    return false;
}

static void guard(struct exchange *x)
{
    (void)let_in(x);
}

/* ---- models */

static const char *limit_name(enum plan_limit l)
{
    static const char *const names[] = {"none", "slo", "rate", "memory", "units"};

    return names[l];
}

static json_t *dims_json(const struct io_desc *io, uint32_t n)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < n; i++) {
        json_t *dims = json_array();
        for (uint32_t k = 0; k < io[i].rank; k++)
            (void)json_array_append_new(dims, json_integer(io[i].dims[k]));
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:s, s:o}", "name", io[i].name, "datatype",
                                              dtype_name(io[i].dtype), "shape", dims));
    }
    return list;
}

/* What was measured of its requests, and the rates for which the plan in force holds. */
static json_t *demand_json(const struct view_model *m)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "mean_rps", m->mean_rps, "burst", m->burst,
                     "planned_rps", m->planned_rps, "low_rps", m->low_rps, "high_rps", m->high_rps);
}

static json_t *output_json(const char *name, const struct accuracy_output *o)
{
    json_t *j = json_pack("{s:s}", "name", name);

    if (accuracy_why(o->kind)[0])
        (void)json_object_set_new(j, "why", json_string(accuracy_why(o->kind)));
    if (o->kind == ACCURACY_EQUAL)
        (void)json_object_set_new(j, "same", json_real(o->same));
    if (o->kind == ACCURACY_NUMBERS) {
        (void)json_object_set_new(j, "max_error", json_real(o->max_error));
        (void)json_object_set_new(j, "rms_error", json_real(o->rms_error));
    }
    if (o->same_top >= 0)
        (void)json_object_set_new(j, "same_top", json_real(o->same_top));
    (void)json_object_set_new(j, "entries", json_integer((json_int_t)o->n));
    (void)json_object_set_new(j, "overflowed", json_integer((json_int_t)o->n_overflowed));
    return j;
}

/* What the precision costs. */
static json_t *accuracy_json(const struct accuracy *a, const struct served *s)
{
    const char *state = a->n_out ? "compared" : a->why[0] ? "impossible" : "waiting";
    json_t *j = json_pack("{s:s, s:s}", "against", "fp32", "state", state), *list = json_array();

    for (uint32_t i = 0; i < MIN(a->n_out, s->n_out); i++)
        (void)json_array_append_new(list, output_json(s->out[i].name, &a->out[i]));
    if (a->why[0])
        (void)json_object_set_new(j, "why", json_string(a->why));
    if (a->n_out) {
        (void)json_object_set_new(j, "rows", json_integer(a->rows));
        (void)json_object_set_new(j, "inputs",
                                  json_string(a->zeros ? "random, integers 0" : "random"));
        (void)json_object_set_new(j, "seed", json_integer(ACCURACY_SEED));
        (void)json_object_set(j, "outputs", list);
    }
    json_decref(list);
    return j;
}

/* What serving adds to a model's description. */
static void add_served(json_t *o, const struct view_model *m)
{
    const struct served *s = m->served;
    const char *slo = m->spec.slo_us == 0 ? "none" : m->unmet == LIMIT_NONE ? "met" : "unmet";
    char hash[HASH_HEX_LEN];

    hash_hex(s->hash, hash);
    (void)json_object_set_new(o, "hash", json_string(hash));
    (void)json_object_set_new(o, "inputs", dims_json(s->in, s->n_in));
    (void)json_object_set_new(o, "outputs", dims_json(s->out, s->n_out));
    (void)json_object_set_new(o, "batches", json_boolean(s->batches));
    (void)json_object_set_new(o, "max_batch", json_integer(s->max_batch));
    if (!s->batches)
        (void)json_object_set_new(o, "why_single", json_string(s->why_single));
    (void)json_object_set_new(o, "slo", json_string(slo));
    if (m->unmet != LIMIT_NONE)
        (void)json_object_set_new(o, "limit", json_string(limit_name(m->unmet)));
    if (m->least_slo_us)
        (void)json_object_set_new(o, "least_slo_ms", json_real((double)m->least_slo_us / 1000.0));
    (void)json_object_set_new(o, "nodes", json_integer(m->n_nodes));
    (void)json_object_set_new(o, "segments", json_integer(m->n_segments));
    (void)json_object_set_new(o, "late_nodes", json_integer(m->n_late));
    (void)json_object_set_new(o, "plain_steps", json_integer(m->n_plain));
    if (m->spec.precision != PRECISION_FP32)
        (void)json_object_set_new(o, "precision_nodes", json_integer(m->n_asked));
    if (m->accuracy)
        (void)json_object_set_new(o, "accuracy", accuracy_json(m->accuracy, s));
    (void)json_object_set_new(o, "weights_bytes", json_integer((json_int_t)m->weights_bytes));
    (void)json_object_set_new(o, "slot_bytes", json_integer((json_int_t)m->slot_bytes));
    (void)json_object_set_new(o, "load_ms", json_real((double)m->load_us / 1000.0));
    (void)json_object_set_new(o, "demand", demand_json(m));
    (void)json_object_set_new(o, "queued", json_integer(m->n_queued));
    (void)json_object_set_new(o, "success", json_integer((json_int_t)s->stats->success));
    (void)json_object_set_new(o, "in_time", json_integer((json_int_t)s->stats->in_time));
    (void)json_object_set_new(o, "rejected", json_integer((json_int_t)s->stats->rejected));
    (void)json_object_set_new(o, "late", json_integer((json_int_t)s->stats->late));
    (void)json_object_set_new(o, "failed", json_integer((json_int_t)s->stats->fail));
}

static const struct view_model *view_find(const struct engine_view *v, const char *name)
{
    for (uint32_t i = 0; i < v->n_models; i++)
        if (STREQ(v->model[i].spec.name, name))
            return &v->model[i];
    return NULL;
}

static json_t *model_json(const struct store_entry *e, const struct engine_view *v)
{
    const struct view_model *m = view_find(v, e->name);
    json_t *o =
        json_pack("{s:s, s:i, s:s, s:f, s:f, s:i, s:s, s:b, s:b}", "name", e->name, "version",
                  (int)e->version, "state",
                  m ? served_state_name(m->state) : served_state_name(SERVED_UNAVAILABLE), "slo_ms",
                  (double)e->numbers.slo_us / 1000.0, "rate_rps", e->numbers.rate_rps, "priority",
                  (int)e->numbers.priority, "precision", precision_name(e->numbers.precision),
                  "batch_invariant", (int)e->numbers.batch_invariant, "best_effort",
                  (int)e->numbers.best_effort);
    const char *reason = m && m->reason && *m->reason ? m->reason : e->error;

    if (*reason)
        (void)json_object_set_new(o, "reason", json_string(reason));
    if (m && m->served)
        add_served(o, m);
    return o;
}

/* The repository and the engine side by side; false: x was answered. */
static bool look(struct exchange *x, struct arena *a, struct store_entry **ret, uint32_t *ret_n,
                 struct engine_view **ret_view)
{
    struct gpuletd *d = gpuletd_of(x);
    struct err err = {0};
    int r = engine_view(d->engine, ret_view, &err);

    if (r == 0 && store_list(d->store, a, ret, ret_n) == 0)
        return true;
    exchange_reply_error(x, 503, "out of memory");
    return false;
}

static void models_get(struct exchange *x)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;
    struct store_entry *list;
    struct arena a;
    uint32_t n;

    arena_init(&a);
    if (look(x, &a, &list, &n, &v)) {
        json_t *all = json_array();
        for (uint32_t i = 0; i < n; i++)
            (void)json_array_append_new(all, model_json(&list[i], v));
        api_reply_json(x, 200, json_pack("{s:o}", "models", all));
    }
    arena_done(&a);
}

static void reply_model(struct exchange *x, unsigned status, const char *name)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;
    struct store_entry *list;
    struct arena a;
    uint32_t n;

    arena_init(&a);
    if (look(x, &a, &list, &n, &v)) {
        uint32_t i = 0;
        while (i < n && !STREQ(list[i].name, name))
            i++;
        if (i < n)
            api_reply_json(x, status, model_json(&list[i], v));
        else
            exchange_reply_error(x, 404, "there is no model '%s'", name);
    }
    arena_done(&a);
}

static void model_get(struct exchange *x)
{
    reply_model(x, 200, x->arg[0]);
}

/* ---- PUT */

struct put {
    struct upload *upload; /* until it is handed over */
    bool wait;
    uint32_t version;
};

static void put_cleanup(void *user)
{
    struct put *p = user;

    upload_free(p->upload);
    free(p);
}

struct query {
    struct exchange *x;
    struct numbers *numbers;
    bool *wait;
    struct err *err;
};

static void query_one(void *arg, const char *name)
{
    struct query *q = arg;
    const char *value;

    if (q->err->code || exchange_query(q->x, name, &value, q->err) < 0)
        return;
    if (STREQ(name, "wait") && q->wait) {
        if (!STREQ(value, "0") && !STREQ(value, "1"))
            (void)err_set(q->err, -EINVAL, "wait = '%s' is not 0 or 1", value);
        *q->wait = !STREQ(value, "0");
        return;
    }
    if (numbers_set(q->numbers, name, value, q->err) == -ENOENT)
        q->err->code = -EINVAL; /* a parameter that is not there is the client's mistake */
}

static int read_query(struct exchange *x, struct numbers *n, bool *wait, struct err *err)
{
    struct query q = {.x = x, .numbers = n, .wait = wait, .err = err};

    exchange_query_each(x, query_one, &q);
    return err->code;
}

static int put_begin(struct exchange *x, const char *file, struct err *err)
{
    struct gpuletd *d = gpuletd_of(x);
    struct numbers n = {0};
    bool wait = true;
    struct upload *u;
    int r = read_query(x, &n, &wait, err);

    if (r < 0)
        return r;
    if (x->declared_bytes == 0)
        return err_set(err, -EINVAL, "the body must be the %s, it is empty",
                       file ? "file" : "ONNX model");
    if (x->declared_bytes != UINT64_MAX && x->declared_bytes > d->model_bytes)
        return err_set(err, -EFBIG, "model '%s' has %" PRIu64 " bytes, the limit is %" PRIu64,
                       x->arg[0], x->declared_bytes, (uint64_t)d->model_bytes);
    if ((r = upload_new(d->store, x->arg[0], file, x->declared_bytes, &u, err)) < 0)
        return r;
    u->numbers = n;
    struct put *p = calloc(1, sizeof(*p));
    if (!p) {
        upload_free(u);
        return err_set(err, -ENOMEM, "out of memory");
    }
    *p = (struct put){.upload = u, .wait = wait};
    x->user = p;
    x->cleanup = put_cleanup;
    return exchange_sink_fd(x, u->fd, d->model_bytes, err);
}

static void model_put_head(struct exchange *x)
{
    struct err err = {0};

    if (let_in(x) && put_begin(x, NULL, &err) < 0)
        exchange_reply_err(x, &err, USEC_PER_SEC);
}

static void file_put_head(struct exchange *x)
{
    struct err err = {0};

    if (let_in(x) && put_begin(x, x->arg[1], &err) < 0)
        exchange_reply_err(x, &err, USEC_PER_SEC);
}

static void put_done(struct exchange *x, struct job *job)
{
    struct put *p = x->user;

    if (job->rc < 0)
        exchange_reply_err(x, &job->err, USEC_PER_SEC);
    else if (p->wait)
        reply_model(x, 200, x->arg[0]);
    else
        api_reply_json(x, 202,
                       json_pack("{s:s, s:i, s:s}", "name", x->arg[0], "version", (int)p->version,
                                 "state", served_state_name(SERVED_LOADING)));
}

static void model_put(struct exchange *x)
{
    struct put *p = x->user;
    struct http_job *j = http_job_new(x, put_done);

    if (j)
        store_put(gpuletd_of(x)->store, TAKE(p->upload), p->wait, &p->version, &j->job);
}

static void file_put(struct exchange *x)
{
    struct put *p = x->user;
    struct http_job *j = http_job_new(x, http_job_reply);

    if (j)
        store_put_file(gpuletd_of(x)->store, TAKE(p->upload), &j->job);
}

/* ---- PATCH, DELETE */

static void model_done(struct exchange *x, struct job *job)
{
    if (job->rc < 0)
        exchange_reply_err(x, &job->err, USEC_PER_SEC);
    else
        reply_model(x, 200, x->arg[0]);
}

/* Numbers from the body (a JSON object) and the query. */
static int read_numbers(struct exchange *x, struct numbers *n, struct err *err)
{
    json_t *o = NULL, *v;
    const char *name;
    int r = api_body_object(x, &o, err);

    if (r == 0)
        json_object_foreach(o, name, v)
        {
            char *text = json_is_string(v)
                             ? strdup(json_string_value(v))
                             : json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
            if (r == 0)
                r = numbers_set(n, name, text ? text : "", err);
            free(text);
        }
    json_decref(o);
    if (r == -ENOENT)
        r = err->code = -EINVAL;
    return r < 0 ? r : read_query(x, n, NULL, err);
}

static void model_patch(struct exchange *x)
{
    struct numbers n = {0};
    struct err err = {0};
    int r = read_numbers(x, &n, &err);

    if (r == 0 && !n.set)
        r = err_set(&err, -EINVAL,
                    "nothing to change: give slo_ms, rate_rps, max_batch, queue, "
                    "priority, precision, batch_invariant or best_effort");
    if (r < 0) {
        exchange_reply_err(x, &err, 0);
        return;
    }
    struct http_job *j = http_job_new(x, model_done);
    if (j)
        store_change(gpuletd_of(x)->store, x->arg[0], &n, &j->job);
}

static void model_delete(struct exchange *x)
{
    struct http_job *j = http_job_new(x, http_job_reply);

    if (j)
        store_delete(gpuletd_of(x)->store, x->arg[0], &j->job);
}

/* ---- devices and gpu-lets */

static const char *mode_name(enum part_mode m)
{
    static const char *const names[] = {"cores", "sim", "mps", "green", "mig", "shared"};

    return names[m];
}

static json_t *granules_json(const struct granules *set)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < MAX_GRANULES; i++)
        if (granules_has(set, i))
            (void)json_array_append_new(list, json_integer(i));
    return list;
}

static bool view(struct exchange *x, struct engine_view **ret)
{
    struct err err = {0};

    if (engine_view(gpuletd_of(x)->engine, ret, &err) == 0)
        return true;
    exchange_reply_err(x, &err, USEC_PER_SEC);
    return false;
}

static void devices_get(struct exchange *x)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;

    if (!view(x, &v))
        return;
    json_t *list = json_array();
    for (uint32_t i = 0; i < v->n_devices; i++) {
        const struct device_info *d = &v->device[i];
        (void)json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:s, s:b, s:s, s:s}",
                      "name", d->name, "state", v->device_lost[i] ? "lost" : "ok", "kind", d->kind,
                      "units", (int)d->units, "granule_units", (int)d->granule_units, "granules",
                      (int)d->n_granules, "max_granules", (int)d->max_granules, "max_lets",
                      (int)d->max_lets, "mem_bytes", (json_int_t)d->mem_bytes, "let_bytes",
                      (json_int_t)d->let_bytes, "mode", mode_name(d->mode), "weights_shared",
                      (int)d->weights_shared, "why", d->why, "library", d->library));
    }
    const char *no_gpu = gpuletd_of(x)->no_gpu.msg;
    api_reply_json(x, 200,
                   json_pack("{s:o, s:s*, s:I, s:I}", "devices", list, "no_gpu",
                             no_gpu[0] ? no_gpu : NULL, "host_used_bytes",
                             (json_int_t)v->host_used_bytes, "host_bytes",
                             (json_int_t)v->host_bytes));
}

static json_t *gpulet_json(const struct engine_view *v, const struct view_gpulet *g)
{
    json_t *shares = json_array();

    for (uint32_t i = 0; i < g->n_shares; i++) {
        const struct view_share *s = &g->share[i];
        (void)json_array_append_new(
            shares, json_pack("{s:s, s:i, s:i, s:f, s:f, s:I, s:I}", "model", s->model, "version",
                              (int)s->version, "batch", (int)s->batch, "rate_rps", s->rate_rps,
                              "run_ms", (double)s->run_us / 1000.0, "runs", (json_int_t)s->runs,
                              "rows", (json_int_t)s->rows));
    }
    return json_pack("{s:i, s:s, s:i, s:o, s:s, s:s, s:i, s:i, s:f, s:o}", "id", (int)g->id,
                     "device", v->device[g->device].name, "units", (int)g->units, "granules",
                     granules_json(&g->set), "order", plan_order_words[g->order], "state", g->state,
                     "queued", (int)g->n_queued, "flying", (int)g->n_flying, "busy", g->busy,
                     "models", shares);
}

static json_t *gpulets_json(const struct engine_view *v)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < v->n_gpulets; i++)
        (void)json_array_append_new(list, gpulet_json(v, &v->gpulet[i]));
    return list;
}

static void gpulets_get(struct exchange *x)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;

    if (view(x, &v))
        api_reply_json(x, 200, json_pack("{s:o}", "gpulets", gpulets_json(v)));
}

/* ---- plan */

static void plan_get(struct exchange *x)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;

    if (!view(x, &v))
        return;
    json_t *unmet = json_array();
    for (uint32_t i = 0; i < v->n_models; i++)
        if (v->model[i].unmet != LIMIT_NONE)
            (void)json_array_append_new(
                unmet, json_pack("{s:s, s:s, s:f}", "model", v->model[i].spec.name, "limit",
                                 limit_name(v->model[i].unmet), "least_slo_ms",
                                 (double)v->model[i].least_slo_us / 1000.0));
    api_reply_json(x, 200,
                   json_pack("{s:I, s:s, s:b, s:s, s:o, s:o}", "epoch", (json_int_t)v->epoch,
                             "policy", v->policy, "pinned", (int)v->pinned, "error", v->plan_error,
                             "gpulets", gpulets_json(v), "unmet", unmet));
}

static json_t *plan_json(const struct problem *p, const struct plan *plan)
{
    json_t *lets = json_array(), *verdicts = json_array();

    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        struct granules set;
        json_t *shares = json_array();
        memcpy(set.bits, g->set.bits, sizeof(set.bits));
        for (uint32_t i = 0; i < g->n_shares; i++)
            (void)json_array_append_new(
                shares, json_pack("{s:s, s:i, s:f, s:f}", "model", p->model[g->share[i].model].name,
                                  "batch", (int)g->share[i].batch, "rate_rps", g->share[i].rate_rps,
                                  "run_ms", (double)g->share[i].run_us / 1000.0));
        (void)json_array_append_new(
            lets, json_pack("{s:s, s:i, s:o, s:s, s:o}", "device", p->device[g->device].name,
                            "units", (int)g->units, "granules", granules_json(&set), "order",
                            plan_order_words[g->order], "models", shares));
    }
    for (uint32_t m = 0; m < plan->n_models; m++)
        (void)json_array_append_new(
            verdicts, json_pack("{s:s, s:s, s:f, s:f}", "model", p->model[m].name, "limit",
                                limit_name(plan->verdict[m].limit), "least_slo_ms",
                                (double)plan->verdict[m].least_slo_us / 1000.0, "most_rps",
                                plan->verdict[m].most_rps));
    return json_pack("{s:o, s:o}", "gpulets", lets, "models", verdicts);
}

/* A dry run: what the policy would do now. */
static void plan_post(struct exchange *x)
{
    struct problem p;
    struct plan plan;
    struct err err = {0};
    struct arena a;

    arena_init(&a);
    if (engine_plan_dry(gpuletd_of(x)->engine, &a, &p, &plan, &err) < 0)
        exchange_reply_err(x, &err, USEC_PER_SEC);
    else
        api_reply_json(x, 200, plan_json(&p, &plan));
    arena_done(&a);
}

/* As a file that gpuletctl plans with: docs/problem-file.md. */
static void problem_get(struct exchange *x)
{
    struct err err = {0};
    char *text = NULL;

    if (engine_problem_text(gpuletd_of(x)->engine, &text, &err) < 0)
        exchange_reply_err(x, &err, USEC_PER_SEC);
    else
        exchange_reply_text(x, 200, "application/json", text, strlen(text));
}

/* Likewise, of one model alone, with what was measured. */
static void profile_get(struct exchange *x)
{
    struct err err = {0};
    char *text = NULL;

    if (engine_profile_text(gpuletd_of(x)->engine, x->arg[0], &text, &err) < 0)
        exchange_reply_err(x, &err, USEC_PER_SEC);
    else
        exchange_reply_text(x, 200, "application/json", text, strlen(text));
}

static int pin_shares(json_t *models, struct arena *a, struct pin_gpulet *ret, struct err *err)
{
    struct pin_share *share = ARENA_ARRAY(a, struct pin_share, json_array_size(models) + 1);
    json_t *o;
    size_t i;

    if (!json_is_array(models))
        return err_set(err, -EINVAL, "'models' must be an array of {\"model\": NAME}");
    json_array_foreach(models, i, o)
    {
        const char *name = json_string_value(json_object_get(o, "model"));
        json_int_t batch = json_integer_value(json_object_get(o, "batch"));
        if (!name || strlen(name) > MODEL_NAME_MAX || batch < 0 || batch > MAX_BATCH_LIMIT)
            return err_set(err, -EINVAL,
                           "'models'[%zu]: 'model' must be a name, 'batch' from 0 to %d", i,
                           MAX_BATCH_LIMIT);
        memcpy(share[i].model, name, strlen(name) + 1);
        share[i].batch = (uint32_t)batch;
    }
    ret->share = share;
    ret->n_shares = (uint32_t)json_array_size(models);
    return 0;
}

/* As the plan says it; absent: turns. */
static int pin_order(const json_t *o, enum plan_order *ret, struct err *err)
{
    const char *word = json_string_value(o);

    *ret = ORDER_TURNS;
    if (!o)
        return 0;
    for (uint32_t i = 0; word && plan_order_words[i]; i++)
        if (STREQ(plan_order_words[i], word)) {
            *ret = (enum plan_order)i;
            return 0;
        }
    return err_set(err, -EINVAL,
                   "'order' is '%.40s', not one of turns, waiting, deadline, deferred",
                   word ? word : "not a string");
}

static int pin_gpulet(json_t *o, const struct engine_view *v, struct arena *a,
                      struct pin_gpulet *ret, struct err *err)
{
    const char *device = json_string_value(json_object_get(o, "device"));
    json_t *granules = json_object_get(o, "granules"), *g;
    size_t i;

    while (device && ret->device < v->n_devices && !STREQ(v->device[ret->device].name, device))
        ret->device++;
    if (!device || ret->device == v->n_devices)
        return err_set(err, -EINVAL, "there is no device '%s'", device ? device : "");
    if (!json_is_array(granules))
        return err_set(err, -EINVAL, "'granules' must be an array of numbers");
    json_array_foreach(granules, i, g)
    {
        json_int_t n = json_integer_value(g);
        if (!json_is_integer(g) || n < 0 || n >= MAX_GRANULES)
            return err_set(err, -EINVAL, "'granules'[%zu] is not a number from 0 to %d", i,
                           MAX_GRANULES - 1);
        granules_add(&ret->set, (unsigned)n);
    }
    int r = pin_order(json_object_get(o, "order"), &ret->order, err);
    return r < 0 ? r : pin_shares(json_object_get(o, "models"), a, ret, err);
}

static int read_pin(struct exchange *x, struct arena *a, struct pin_gpulet **ret, uint32_t *ret_n,
                    struct err *err)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;
    json_t *body = NULL, *o;
    int r = engine_view(gpuletd_of(x)->engine, &v, err);
    size_t i;

    if (r == 0)
        r = api_body_object(x, &body, err);
    json_t *list = r == 0 ? json_object_get(body, "gpulets") : NULL;
    *ret_n = (uint32_t)json_array_size(list);
    *ret = ARENA_ARRAY(a, struct pin_gpulet, *ret_n + 1);
    if (r == 0 && *ret_n == 0)
        r = err_set(err, -EINVAL, "'gpulets' must be an array of at least one gpu-let");
    json_array_foreach(list, i, o)
    {
        if (r == 0 && (r = pin_gpulet(o, v, a, &(*ret)[i], err)) < 0)
            (void)err_wrap(err, "'gpulets'[%zu]: ", i);
    }
    json_decref(body);
    return r;
}

static void plan_done(struct exchange *x, struct job *job)
{
    if (job->rc < 0)
        exchange_reply_err(x, &job->err, USEC_PER_SEC);
    else
        plan_get(x);
}

static void plan_put(struct exchange *x)
{
    struct pin_gpulet *pin;
    struct err err = {0};
    struct arena a;
    uint32_t n;

    arena_init(&a);
    if (read_pin(x, &a, &pin, &n, &err) < 0) {
        exchange_reply_err(x, &err, 0);
    } else {
        struct http_job *j = http_job_new(x, plan_done);
        if (j)
            engine_plan_pin(gpuletd_of(x)->engine, n, pin, &j->job, j->job.cq);
    }
    arena_done(&a);
}

static void plan_delete(struct exchange *x)
{
    struct http_job *j = http_job_new(x, plan_done);

    if (j)
        engine_plan_pin(gpuletd_of(x)->engine, 0, NULL, &j->job, j->job.cq);
}

/* ---- the rest */

static void events_get(struct exchange *x)
{
    struct view_event *ev;
    struct err err = {0};
    struct arena a;
    const char *since = NULL;
    uint32_t n;
    uint64_t last = 0;

    arena_init(&a);
    if (exchange_query(x, "since", &since, &err) < 0) {
        exchange_reply_err(x, &err, 0);
    } else if (engine_events(gpuletd_of(x)->engine, since ? strtoull(since, NULL, 10) : 0, &a, &ev,
                             &n, &last) < 0) {
        exchange_reply_error(x, 503, "out of memory");
    } else {
        json_t *list = json_array();
        for (uint32_t i = 0; i < n; i++) {
            json_t *o = json_pack("{s:I, s:i, s:s, s:s}", "at_ms", (json_int_t)ev[i].wall_ms,
                                  "level", ev[i].level, "event", ev[i].what, "message", ev[i].msg);
            if (ev[i].model[0])
                (void)json_object_set_new(o, "model", json_string(ev[i].model));
            if (ev[i].version)
                (void)json_object_set_new(o, "version", json_integer(ev[i].version));
            if (ev[i].gpulet != PLAN_NONE)
                (void)json_object_set_new(o, "gpulet", json_integer(ev[i].gpulet));
            (void)json_array_append_new(list, o);
        }
        api_reply_json(x, 200, json_pack("{s:o, s:I}", "events", list, "last", (json_int_t)last));
    }
    arena_done(&a);
}

static void drain_reply(struct exchange *x)
{
    struct gpuletd *d = gpuletd_of(x);

    api_reply_json(x, 200,
                   json_pack("{s:b, s:I}", "draining", (int)d->draining, "pending",
                             (json_int_t)engine_pending(d->engine)));
}

static void drain_post(struct exchange *x)
{
    gpuletd_of(x)->draining = true;
    drain_reply(x);
}

static void drain_delete(struct exchange *x)
{
    gpuletd_of(x)->draining = false;
    drain_reply(x);
}

static void page_get(struct exchange *x)
{
    exchange_set_header(x, "Content-Security-Policy", "default-src 'self' 'unsafe-inline'");
    exchange_reply_static(x, 200, "text/html; charset=utf-8", page_html,
                          (size_t)(page_html_end - page_html));
}

#define BODY_MAX (1u << 20)
const struct route admin_routes[] = {
    {"GET", "/", guard, page_get, 0},
    {"GET", "/v1/models", guard, models_get, 0},
    {"GET", "/v1/models/{m}", guard, model_get, 0},
    {"PUT", "/v1/models/{m}", model_put_head, model_put, 0},
    {"PATCH", "/v1/models/{m}", guard, model_patch, BODY_MAX},
    {"DELETE", "/v1/models/{m}", guard, model_delete, 0},
    {"PUT", "/v1/models/{m}/files/{name}", file_put_head, file_put, 0},
    {"GET", "/v1/devices", guard, devices_get, 0},
    {"GET", "/v1/gpulets", guard, gpulets_get, 0},
    {"GET", "/v1/plan", guard, plan_get, 0},
    {"POST", "/v1/plan", guard, plan_post, BODY_MAX},
    {"PUT", "/v1/plan", guard, plan_put, BODY_MAX},
    {"DELETE", "/v1/plan", guard, plan_delete, 0},
    {"GET", "/v1/problem", guard, problem_get, 0},
    {"POST", "/v1/faults", guard, faults_post, BODY_MAX},
    {"GET", "/v1/profiles/{m}", guard, profile_get, 0},
    {"GET", "/v1/events", guard, events_get, 0},
    {"POST", "/v1/drain", guard, drain_post, BODY_MAX},
    {"DELETE", "/v1/drain", guard, drain_delete, 0},
    {"GET", "/metrics", guard, metrics_get, 0},
};
const size_t n_admin_routes = ARRAY_SIZE(admin_routes);

/* On the inference port: only if so configured, and then for everybody who may infer. */
static void data_metrics_head(struct exchange *x)
{
    if (!gpuletd_of(x)->metrics)
        exchange_reply_error(x, 404, "metrics are on the admin port (http.metrics = no)");
}

const struct route data_routes[] = {{"GET", "/metrics", data_metrics_head, metrics_get, 0}};
const size_t n_data_routes = ARRAY_SIZE(data_routes);
