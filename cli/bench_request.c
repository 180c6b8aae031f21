/* A request for a model, made from the metadata that any v2 server gives. */
#include "bench.h"
#include <gpulet/tensor.h>

#define MAX_BODY (256u << 20)

static json_t *describe(const struct cli *c, const char *path, struct reply *r, struct err *err)
{
    int rc = client_call(c, "GET", path, NULL, NULL, r, err);

    if (rc == 0 && !json_is_object(r->json))
        (void)err_set(err, -EIO, "%s%s: the answer is no JSON object", c->server, path);
    return rc == 0 && json_is_object(r->json) ? r->json : NULL;
}

static bool takes_binary(json_t *server)
{
    json_t *e;
    size_t i;

    json_array_foreach(json_object_get(server, "extensions"), i, e)
    {
        if (STREQ(json_string_value(e) ? json_string_value(e) : "", "binary_tensor_data"))
            return true;
    }
    return false;
}

/* Pixels, features: anything from 0 to 1, another in each variant.  Tokens, masks, counts: 1 is
 * valid in each. */
static void fill(enum dtype t, uint64_t n, uint32_t variant, char *to)
{
    static const uint16_t half[2] = {0x3800, 0x3f00}; /* 0.5 in FP16 and in BF16 */
    size_t each = dtype_size(t);

    for (uint64_t i = 0; i < n; i++) {
        double v = (double)((i + 7919 * (uint64_t)variant) * 40503 % 65536) / 65536;
        float f = (float)v;
        uint64_t one = 1;
        const void *from = t == DT_FP32                   ? (const void *)&f
                           : t == DT_FP64                 ? (const void *)&v
                           : t == DT_FP16 || t == DT_BF16 ? (const void *)&half[t == DT_BF16]
                                                          : (const void *)&one;
        memcpy(to + i * each, from, each);
    }
}

static int add_input(json_t *in, json_t *inputs, uint32_t variant, FILE *data, struct err *err)
{
    const char *name = json_string_value(json_object_get(in, "name"));
    const char *type = json_string_value(json_object_get(in, "datatype"));
    enum dtype t = type ? dtype_of(type, strlen(type)) : DT_NONE;
    json_t *shape = json_array(), *o = json_object(), *d;
    uint64_t n = 1;
    size_t i;

    json_array_foreach(json_object_get(in, "shape"), i, d)
    {
        json_int_t v = example_dim(json_integer_value(d), i);
        (void)json_array_append_new(shape, json_integer(v));
        if (__builtin_mul_overflow(n, (uint64_t)v, &n))
            n = UINT64_MAX;
    }
    put(o, "name", name ? json_string(name) : NULL);
    put(o, "datatype", json_string(type ? type : "?"));
    put(o, "shape", shape);
    (void)json_array_append_new(inputs, o);
    if (!name || dtype_size(t) == 0 || n > MAX_BODY / dtype_size(t))
        return err_set(err, -ENOTSUP, "input '%s' is %s of %llu elements, which is not sent",
                       name ? name : "?", type ? type : "?", (unsigned long long)n);
    json_t *parameters = json_object();
    put(parameters, "binary_data_size", json_integer((json_int_t)(n * dtype_size(t))));
    put(o, "parameters", parameters);
    AUTO(free) char *bytes = malloc(n * dtype_size(t) + 1);
    if (!bytes)
        return err_set(err, -ENOMEM, "out of memory");
    fill(t, n, variant, bytes);
    (void)fwrite(bytes, 1, n * dtype_size(t), data);
    return 0;
}

static int binary_request(json_t *metadata, struct bench_model *m, uint32_t variant,
                          struct err *err)
{
    json_t *head = json_object(), *inputs = json_array(), *parameters = json_object(), *in;
    char *data = NULL;
    size_t bytes = 0, i;
    FILE *to = open_memstream(&data, &bytes);
    int r = to ? 0 : err_set(err, -ENOMEM, "out of memory");

    put(head, "inputs", inputs);
    put(parameters, "binary_data_output", json_true());
    put(head, "parameters", parameters);
    json_array_foreach(json_object_get(metadata, "inputs"), i, in)
    {
        if (r == 0)
            r = add_input(in, inputs, variant, to, err);
    }
    if (to)
        (void)fclose(to);
    AUTO(free) char *text = r == 0 ? json_dumps(head, JSON_COMPACT) : NULL;
    char *body = text && data ? malloc(strlen(text) + bytes + 1) : NULL;
    if (body) {
        m->head_bytes = strlen(text);
        memcpy(body, text, m->head_bytes);
        memcpy(body + m->head_bytes, data, bytes);
        m->body[m->n_bodies++] = body;
        m->body_bytes = m->head_bytes + bytes;
    } else if (r == 0) {
        r = err_set(err, -ENOMEM, "out of memory");
    }
    json_decref(head);
    free(data);
    return r;
}

int bench_request(const struct cli *c, struct bench_model *m, uint32_t n_bodies, struct err *err)
{
    struct reply server = {0}, model = {0};
    const char *path = client_path("/v2/models/", m->name, "/infer");
    int r = 0;

    if (asprintf(&m->url, "%s%s", c->server, path) < 0) {
        m->url = NULL;
        return err_set(err, -ENOMEM, "out of memory");
    }
    json_t *about = describe(c, "/v2", &server, err);
    json_t *metadata =
        about ? describe(c, client_path("/v2/models/", m->name, ""), &model, err) : NULL;
    if (!about || !metadata)
        r = -EIO;
    else if (takes_binary(about))
        for (uint32_t i = 0; r == 0 && i < n_bodies; i++)
            r = binary_request(metadata, m, i, err);
    else if ((r = example_request(metadata, &m->body[0], err)) == 0)
        m->body_bytes = strlen(m->body[m->n_bodies++]);
    reply_done(&server);
    reply_done(&model);
    return r;
}
