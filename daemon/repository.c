/* The protocol's model repository, on the store.
 *
 * Loading with files ("file:1/model.onnx": base64) is an upload like PUT /v1/models/NAME, and as
 * on the admin port needs the token or the Unix socket.  Of a configuration given with it we take
 * max_batch_size and those parameters that PUT knows (slo_ms, rate_rps, …). */
#include "store.h"
#include <gpulet/model.h>
#include <unistd.h>

static int allowed(void *store, struct exchange *x, struct err *err)
{
    struct gpuletd *d = gpuletd_of(x);

    (void)store;
    if (d->repository_api == REPOSITORY_OFF)
        return err_set(err, -EACCES, "model control is off (http.repository-api = off)");
    if (x->peer == PEER_UNIX || token_matches(x))
        return 0;
    if (d->repository_api == REPOSITORY_TOKEN)
        return err_set(err, -EACCES,
                       "model control needs the admin token (http.repository-api = token)");
    if (exchange_header(x, "Origin"))
        return err_set(err, -EACCES, "model control is not for web pages");
    if (x->peer != PEER_LOOPBACK)
        return err_set(err, -EACCES, "model control is for peers on this machine");
    return 0;
}

/* ---- index */

static const struct view_model *find(const struct engine_view *v, const char *name)
{
    for (uint32_t i = 0; i < v->n_models; i++)
        if (STREQ(v->model[i].spec.name, name))
            return &v->model[i];
    return NULL;
}

static void index_add(json_t *list, const struct store_entry *e, const struct view_model *m,
                      bool ready_only)
{
    enum served_state state = m ? m->state : SERVED_UNAVAILABLE;
    const char *reason = m && m->reason && *m->reason ? m->reason : e->error;
    char version[16];

    if (ready_only && state != SERVED_READY)
        return;
    (void)snprintf(version, sizeof(version), "%u", e->version);
    json_t *o = json_pack("{s:s, s:s}", "name", e->name, "state", served_state_name(state));
    if (e->version)
        (void)json_object_set_new(o, "version", json_string(version));
    if (*reason)
        (void)json_object_set_new(o, "reason", json_string(reason));
    (void)json_array_append_new(list, o);
}

static void index_models(void *store, struct exchange *x, bool ready_only)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;
    struct store_entry *entries;
    struct err err = {0};
    struct arena a;
    uint32_t n;

    arena_init(&a);
    if (engine_view(gpuletd_of(x)->engine, &v, &err) < 0 ||
        store_list(store, &a, &entries, &n) < 0) {
        exchange_reply_error(x, 503, "out of memory");
    } else {
        json_t *list = json_array();
        for (uint32_t i = 0; i < n; i++)
            index_add(list, &entries[i], find(v, entries[i].name), ready_only);
        api_reply_json(x, 200, list);
    }
    arena_done(&a);
}

/* ---- load */

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Decodes in place of a copy; -EINVAL: it is not base64 (RFC 4648, padded). */
static int base64_decode(const char *text, size_t n, unsigned char *ret, size_t *ret_n)
{
    size_t out = 0;

    if (n % 4)
        return -EINVAL;
    for (size_t i = 0; i < n; i += 4) {
        int v[4], pad = 0;
        for (int k = 0; k < 4; k++) {
            bool last = i + 4 == n && k >= 2 && text[i + (size_t)k] == '=';
            v[k] = last ? 0 : base64_value(text[i + (size_t)k]);
            if (v[k] < 0 || (pad && !last))
                return -EINVAL;
            pad += last;
        }
        uint32_t bits =
            (uint32_t)v[0] << 18 | (uint32_t)v[1] << 12 | (uint32_t)v[2] << 6 | (uint32_t)v[3];
        for (int k = 0; k < 3 - pad; k++)
            ret[out++] = (unsigned char)(bits >> (16 - 8 * k));
    }
    *ret_n = out;
    return 0;
}

static int write_file(int fd, const unsigned char *data, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, data, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        data += k;
        n -= (size_t)k;
    }
    return 0;
}

/* "file:1/weights.bin" -> "weights.bin"; NULL when it does not look so. */
static const char *file_name(const char *parameter)
{
    const char *slash = strchr(parameter, '/');

    return slash && slash[1] ? slash + 1 : NULL;
}

/* One file of the parameters as an upload; the model itself when its name is model.onnx. */
static int file_upload(struct store *store, const char *model, const char *parameter, json_t *value,
                       struct upload **ret, struct err *err)
{
    const char *name = file_name(parameter);
    size_t n = json_string_length(value), bytes = 0;
    struct upload *u = NULL;

    if (!name || !json_is_string(value))
        return err_set(err, -EINVAL,
                       "parameter '%.100s' must be file:VERSION/NAME with base64 text", parameter);
    AUTO(free) unsigned char *data = malloc(n / 4 * 3 + 3);
    if (!data)
        return err_set(err, -ENOMEM, "out of memory");
    if (base64_decode(json_string_value(value), n, data, &bytes) < 0)
        return err_set(err, -EINVAL, "parameter '%.100s' is not base64", parameter);
    int r = upload_new(store, model, STREQ(name, MODEL_FILE) ? NULL : name, bytes, &u, err);
    if (r == 0 && (r = write_file(u->fd, data, bytes)) < 0)
        r = err_set(err, r, "file '%s': %s", name, strerror(-r));
    if (r < 0)
        upload_free(u);
    else
        *ret = u;
    return r;
}

/* What we take of a model configuration. */
static int config_numbers(const char *text, struct numbers *n, struct err *err)
{
    json_error_t je;
    json_t *o = json_loads(text, 0, &je), *v;
    const char *name;
    char batch[32];
    int r = 0;

    if (!json_is_object(o)) {
        json_decref(o);
        return err_set(err, -EINVAL, "parameter 'config' is not a JSON object: %s", je.text);
    }
    if ((v = json_object_get(o, "max_batch_size")) && json_integer_value(v) > 0) {
        (void)snprintf(batch, sizeof(batch), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        r = numbers_set(n, "max_batch", batch, err);
    }
    json_object_foreach(json_object_get(o, "parameters"), name, v)
    {
        const char *value = json_string_value(json_object_get(v, "string_value"));
        int rc = r == 0 && value ? numbers_set(n, name, value, err) : 0;
        if (rc == -ENOENT) /* somebody else's parameter */
            *err = (struct err){0};
        else if (rc < 0)
            r = rc;
    }
    json_decref(o);
    return r;
}

static int load_files(struct store *store, struct exchange *x, const char *name, json_t *parameters,
                      struct upload **ret, struct err *err)
{
    const char *config = json_string_value(json_object_get(parameters, "config")), *key;
    struct upload *u = NULL, *files[STORE_FILES_MAX];
    struct numbers numbers = {0};
    uint32_t n = 0;
    json_t *v;
    int r = 0;

    if (x->peer != PEER_UNIX && !token_matches(x))
        return err_set(err, -EACCES, "files need the admin token or the Unix socket");
    if (!config)
        return err_set(err, -EINVAL, "parameter 'config' must come with files");
    r = config_numbers(config, &numbers, err);
    json_object_foreach(parameters, key, v)
    {
        struct upload *one = NULL;
        if (r < 0 || STREQ(key, "config"))
            continue;
        if (strncmp(key, "file:", 5) != 0 || n == STORE_FILES_MAX)
            r = err_set(err, -EINVAL,
                        "parameter '%.100s' is not known, or there are more than %d files", key,
                        STORE_FILES_MAX);
        else if ((r = file_upload(store, name, key, v, &one, err)) == 0) {
            if (one->file[0])
                files[n++] = one;
            else
                u = one;
        }
    }
    if (r == 0 && !u)
        r = err_set(err, -EINVAL, "the files must include file:VERSION/" MODEL_FILE);
    for (uint32_t i = 0; i < n; i++) {
        if (r == 0)
            store_put_file(store, files[i], NULL);
        else
            upload_free(files[i]);
    }
    if (r < 0) {
        upload_free(u);
        return r;
    }
    u->numbers = numbers;
    *ret = u;
    return 0;
}

static void load(void *store, struct exchange *x, const char *name, json_t *parameters)
{
    struct upload *u = NULL;
    struct err err = {0};

    if (json_object_size(parameters) > 0 && load_files(store, x, name, parameters, &u, &err) < 0) {
        exchange_reply_err(x, &err, 0);
        return;
    }
    struct http_job *j = http_job_new(x, http_job_reply);
    if (!j)
        upload_free(u);
    else if (u)
        store_put(store, u, true, NULL, &j->job);
    else
        store_load(store, name, &j->job);
}

static void unload(void *store, struct exchange *x, const char *name, json_t *parameters)
{
    const char *key;
    json_t *v;

    json_object_foreach(parameters, key, v)
    {
        if (!STREQ(key, "unload_dependents")) {
            exchange_reply_error(x, 400, "parameter '%.100s' is not known", key);
            return;
        }
    }
    struct http_job *j = http_job_new(x, http_job_reply);
    if (j)
        store_unload(store, name, &j->job);
}

const struct repository_ops store_repository = {
    .index = index_models,
    .load = load,
    .unload = unload,
    .allowed = allowed,
};
