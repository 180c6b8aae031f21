/* An inference request from its body: checked in the order of the protocol page, every message
 * with the name, the value and the limit.
 *
 * Nothing is allocated before its size is known to be backed by bytes that the client has sent.
 * Binary tensors stay where they were received: the body is placed so that its binary part is
 * aligned.  Only tensors that come as JSON, or that lie unaligned behind another one, get memory
 * of their own, all in one slab. */
#include "tensor_json.h"
#include "v2_infer.h"
#include <inttypes.h>

#define TIMEOUT_MAX_US (3600 * USEC_PER_SEC) /* a client cannot make us hold a request longer */

/* Where the bytes of a model's input come from. */
struct source {
    bool seen;
    const char *p;
    size_t n;
    bool json;   /* p is the text of an array */
    bool copied; /* needs memory of its own */
    size_t need; /* so much; at least 1 */
};

struct parse {
    struct infer *f;
    const struct served *m;
    const char *binary; /* the next binary tensor */
    size_t binary_left;
    bool has_header;
    struct source src[MAX_IO]; /* by the model's input */
    struct err *err;
};

#define FAIL(p, code, ...) err_set((p)->err, (code), __VA_ARGS__)

/* ---- shapes */
static int read_dims(struct parse *p, const char *name, json_t *shape, struct tensor *t)
{
    size_t rank = json_array_size(shape), i;
    json_t *dim;

    if (!json_is_array(shape))
        return FAIL(p, -EINVAL, "input '%s': shape is missing or no array", name);
    if (rank > MAX_RANK)
        return FAIL(p, -EINVAL, "input '%s': rank %zu, the limit is %d", name, rank, MAX_RANK);
    t->rank = (uint32_t)rank;
    json_array_foreach(shape, i, dim)
    {
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return FAIL(p, -EINVAL, "input '%s': dimension %zu is no integer >= 0", name, i);
        t->dims[i] = json_integer_value(dim);
    }
    return 0;
}

/* Rank, fixed dimensions, and the batch: the same rows in every input. */
static int check_dims(struct parse *p, const struct io_desc *d, const struct tensor *t)
{
    char got[160], want[160];
    bool same = t->rank == d->rank;

    for (uint32_t i = 0; same && i < t->rank; i++)
        same = d->dims[i] < 0 || d->dims[i] == t->dims[i];
    if (!same)
        return FAIL(p, -EINVAL, "input '%s': shape %s, but the model takes %s", d->name,
                    dims_print(t->rank, t->dims, got, sizeof(got)),
                    dims_print(d->rank, d->dims, want, sizeof(want)));
    return 0;
}

static int check_rows(struct parse *p, const struct io_desc *d, const struct tensor *t)
{
    struct request *r = &p->f->r;

    if (!p->m->batches || t->rank == 0)
        return 0;
    if (t->dims[0] < 1 || t->dims[0] > p->m->max_batch)
        return FAIL(p, -EINVAL, "input '%s': a batch of %" PRId64 ", but the model takes 1 to %u",
                    d->name, t->dims[0], p->m->max_batch);
    if (r->rows && r->rows != t->dims[0])
        return FAIL(p, -EINVAL, "input '%s': a batch of %" PRId64 ", but another input has %u",
                    d->name, t->dims[0], r->rows);
    r->rows = (uint32_t)t->dims[0];
    return 0;
}

static int check_shape(struct parse *p, const struct io_desc *d, struct tensor *t)
{
    int64_t dims[MAX_RANK];

    if (check_dims(p, d, t) < 0 || check_rows(p, d, t) < 0)
        return -EINVAL;
    memcpy(dims, t->dims, sizeof(dims));
    if (tensor_shape(t, d->dtype, t->rank, dims) < 0)
        return FAIL(p, -EINVAL, "input '%s': the product of its shape is too large", d->name);
    return 0;
}

/* ---- data */
/* BYTES in wire form: `count` lengths, each within what is left. */
static int check_strings(struct parse *p, const char *name, const char *at, size_t n, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t len;

        if (n < 4)
            return FAIL(p, -EINVAL, "input '%s': BYTES element %" PRId64 " has no length", name, i);
        memcpy(&len, at, 4);
        if (len > n - 4)
            return FAIL(p, -EINVAL,
                        "input '%s': BYTES element %" PRId64 " has %u bytes, but %zu are left",
                        name, i, len, n - 4);
        at += 4 + len;
        n -= 4 + len;
    }
    if (n)
        return FAIL(p, -EINVAL, "input '%s': %zu bytes follow the last BYTES element", name, n);
    return 0;
}

static int source_binary(struct parse *p, const struct io_desc *d, struct tensor *t,
                         struct source *s, json_t *size)
{
    json_int_t n = json_integer_value(size);
    int64_t count = 0;

    if (!json_is_integer(size) || n < 0)
        return FAIL(p, -EINVAL, "input '%s': binary_data_size is no integer >= 0", d->name);
    if (!p->has_header)
        return FAIL(p, -EINVAL,
                    "input '%s': binary_data_size without Inference-Header-Content-Length",
                    d->name);
    if (d->dtype != DT_STRING && (size_t)n != t->bytes)
        return FAIL(p, -EINVAL, "input '%s': %lld bytes of binary data, but its shape has %zu",
                    d->name, (long long)n, t->bytes);
    if ((size_t)n > p->binary_left)
        return FAIL(p, -EINVAL,
                    "input '%s': %lld bytes of binary data, but %zu are left in the body", d->name,
                    (long long)n, p->binary_left);
    *s = (struct source){.seen = true, .p = p->binary, .n = (size_t)n, .need = MAX((size_t)n, 1u)};
    s->copied = d->dtype != DT_STRING && (uintptr_t)s->p % dtype_size(d->dtype) != 0;
    p->binary += n;
    p->binary_left -= (size_t)n;
    t->bytes = (size_t)n;
    (void)tensor_count(t, &count);
    return d->dtype == DT_STRING ? check_strings(p, d->name, s->p, s->n, count) : 0;
}

static int source_json(struct parse *p, const struct io_desc *d, const struct tensor *t,
                       struct source *s, const struct json_range *range)
{
    int64_t count = 0;

    *s = (struct source){.seen = true, .p = range->p, .n = range->n, .json = true, .copied = true};
    if (!tensor_json_has(d->dtype))
        return FAIL(p, -EINVAL, "input '%s': %s has no JSON form, send it as binary data", d->name,
                    dtype_name(d->dtype));
    (void)tensor_count(t, &count);
    if (tensor_json_need(d->dtype, count, range->n, &s->need, p->err) < 0)
        return err_wrap(p->err, "input '%s': ", d->name);
    s->need = MAX(s->need, 1u);
    return 0;
}

/* Exactly one of data, binary_data_size and shared memory. */
static int read_source(struct parse *p, const struct io_desc *d, struct tensor *t, json_t *in,
                       const struct json_range *range)
{
    struct source *s = &p->src[d - p->m->in];
    json_t *params = json_object_get(in, "parameters");
    json_t *size = json_object_get(params, "binary_data_size");

    if (params && !json_is_object(params))
        return FAIL(p, -EINVAL, "input '%s': parameters is no object", d->name);
    if (json_object_get(params, "shared_memory_region"))
        return FAIL(p, -ENOSYS, "input '%s': shared memory is not supported", d->name);
    if (json_object_get(in, "data") && !range->p)
        return FAIL(p, -EINVAL, "input '%s': the name of 'data' is written with escapes", d->name);
    if (range->p && size)
        return FAIL(p, -EINVAL, "input '%s': both data and binary_data_size", d->name);
    if (size)
        return source_binary(p, d, t, s, size);
    if (range->p)
        return source_json(p, d, t, s, range);
    return FAIL(p, -EINVAL, "input '%s': neither data nor binary_data_size", d->name);
}

/* ---- inputs */
static const struct io_desc *find_io(const struct io_desc *io, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (STREQ(io[i].name, name))
            return &io[i];
    return NULL;
}

static int read_input(struct parse *p, json_t *in, const struct json_range *range)
{
    const char *name = json_string_value(json_object_get(in, "name"));
    json_t *type = json_object_get(in, "datatype");
    const struct io_desc *d = name ? find_io(p->m->in, p->m->n_in, name) : NULL;
    struct tensor *t;

    if (!json_is_object(in) || !name)
        return FAIL(p, -EINVAL, "inputs: an entry is no object with a name");
    if (!d)
        return FAIL(p, -EINVAL, "input '%.100s': the model '%s' has no such input", name,
                    p->m->spec.name);
    if (p->src[d - p->m->in].seen)
        return FAIL(p, -EINVAL, "input '%s': given twice", name);
    if (!json_is_string(type))
        return FAIL(p, -EINVAL, "input '%s': datatype is missing or no string", name);
    if (dtype_of(json_string_value(type), json_string_length(type)) != d->dtype)
        return FAIL(p, -EINVAL, "input '%s': datatype %.20s, but the model takes %s", name,
                    json_string_value(type), dtype_name(d->dtype));
    t = &p->f->r.in[d - p->m->in];
    if (read_dims(p, name, json_object_get(in, "shape"), t) < 0 || check_shape(p, d, t) < 0)
        return p->err->code;
    return read_source(p, d, t, in, range);
}

static int read_inputs(struct parse *p, const struct json_cut *cut)
{
    json_t *inputs = json_object_get(cut->head, "inputs"), *in;
    size_t i;

    if (!json_is_array(inputs))
        return FAIL(p, -EINVAL, "inputs is missing or no array");
    if (json_array_size(inputs) > p->m->n_in)
        return FAIL(p, -EINVAL, "%zu inputs, but the model '%s' has %u", json_array_size(inputs),
                    p->m->spec.name, p->m->n_in);
    json_array_foreach(inputs, i, in)
    {
        if (read_input(p, in, &cut->data[i]) < 0)
            return p->err->code;
    }
    for (uint32_t k = 0; k < p->m->n_in; k++)
        if (!p->src[k].seen)
            return FAIL(p, -EINVAL, "input '%s' is missing", p->m->in[k].name);
    return 0;
}

/* ---- parameters and outputs */
static int read_parameter(struct parse *p, const char *key, json_t *value, bool *binary)
{
    json_int_t n = json_integer_value(value);

    if (!json_is_string(value) && !json_is_number(value) && !json_is_boolean(value))
        return FAIL(p, -EINVAL, "parameter '%.60s': not a string, number or boolean", key);
    if (strncmp(key, "triton_", 7) == 0)
        return FAIL(p, -EINVAL, "parameter '%.60s': names beginning with triton_ are reserved",
                    key);
    if (STREQ(key, "binary_data_output")) {
        *binary = json_is_true(value);
        if (!json_is_boolean(value))
            return FAIL(p, -EINVAL, "parameter 'binary_data_output' is no boolean");
    } else if (STREQ(key, "timeout")) {
        if (!json_is_integer(value) || n < 0)
            return FAIL(p, -EINVAL, "parameter 'timeout' is no number of microseconds >= 0");
        p->f->timeout_us = MIN((usec_t)n, TIMEOUT_MAX_US);
    } else if (STREQ(key, "priority")) {
        if (!json_is_integer(value) || n < 0 || n > INT32_MAX)
            return FAIL(p, -EINVAL, "parameter 'priority' is no integer from 0 to %d", INT32_MAX);
        p->f->r.priority = (int32_t)n;
    }
    return 0;
}

static int read_parameters(struct parse *p, bool *binary)
{
    json_t *params = json_object_get(p->f->head, "parameters"), *id, *value;
    const char *key;

    id = json_object_get(p->f->head, "id");
    if (id && !json_is_string(id))
        return FAIL(p, -EINVAL, "id is no string");
    if (params && !json_is_object(params))
        return FAIL(p, -EINVAL, "parameters is no object");
    json_object_foreach(params, key,
                        value) if (read_parameter(p, key, value, binary) < 0) return p->err->code;
    return 0;
}

static int want(struct parse *p, uint32_t out, bool binary)
{
    const struct io_desc *d = &p->m->out[out];

    for (uint32_t i = 0; i < p->f->n_wanted; i++)
        if (p->f->wanted[i].out == out)
            return FAIL(p, -EINVAL, "output '%s': asked for twice", d->name);
    if (!binary && !tensor_json_has(d->dtype))
        return FAIL(p, -EINVAL, "output '%s': %s has no JSON form, ask for binary data", d->name,
                    dtype_name(d->dtype));
    p->f->wanted[p->f->n_wanted++] = (struct wanted){out, binary};
    return 0;
}

static int read_output(struct parse *p, json_t *out, bool binary)
{
    const char *name = json_string_value(json_object_get(out, "name"));
    const struct io_desc *d = name ? find_io(p->m->out, p->m->n_out, name) : NULL;
    json_t *params = json_object_get(out, "parameters");
    json_t *own = json_object_get(params, "binary_data");

    if (!json_is_object(out) || !name)
        return FAIL(p, -EINVAL, "outputs: an entry is no object with a name");
    if (!d)
        return FAIL(p, -EINVAL, "output '%.100s': the model '%s' has no such output", name,
                    p->m->spec.name);
    if (params && !json_is_object(params))
        return FAIL(p, -EINVAL, "output '%s': parameters is no object", name);
    if (json_object_get(params, "shared_memory_region"))
        return FAIL(p, -ENOSYS, "output '%s': shared memory is not supported", name);
    if (json_integer_value(json_object_get(params, "classification")) != 0)
        return FAIL(p, -ENOSYS, "output '%s': classification is not supported", name);
    if (own && !json_is_boolean(own))
        return FAIL(p, -EINVAL, "output '%s': binary_data is no boolean", name);
    return want(p, (uint32_t)(d - p->m->out), own ? json_is_true(own) : binary);
}

static int want_all(struct parse *p, bool binary)
{
    for (uint32_t i = 0; i < p->m->n_out; i++)
        if (want(p, i, binary) < 0)
            return p->err->code;
    return 0;
}

static int read_outputs(struct parse *p, bool binary)
{
    json_t *outputs = json_object_get(p->f->head, "outputs"), *out;
    size_t i;

    if (outputs && !json_is_array(outputs))
        return FAIL(p, -EINVAL, "outputs is no array");
    if (json_array_size(outputs) == 0)
        return want_all(p, binary);
    json_array_foreach(outputs, i, out)
    {
        if (read_output(p, out, binary) < 0)
            return p->err->code;
    }
    return 0;
}

/* ---- memory */
/* Where n bytes fit into slab s behind the body that ends there; NULL when they do not. */
static char *room_behind(const struct slab *s, const char *body_end, size_t n)
{
    size_t used = s ? align_up((size_t)(body_end - (char *)s->data), 64) : 0;

    return s && used <= s->bytes && n <= s->bytes - used ? (char *)s->data + used : NULL;
}

/* Give the tensors that need it their memory, in one slab: the body's if they are small; the
 * others lie in the body. */
static int place(struct parse *p, struct pool *pool)
{
    struct request *r = &p->f->r;
    size_t total = 0;
    char *at;

    for (uint32_t i = 0; i < p->m->n_in; i++)
        if (p->src[i].copied && __builtin_add_overflow(total, align_up(p->src[i].need, 64), &total))
            return FAIL(p, -EINVAL, "the inputs are too large");
    at = room_behind(p->f->body, p->binary + p->binary_left, total);
    if (at || total == 0) { /* total 0: nothing is copied */
        r->in_slab = TAKE(p->f->body);
    } else {
        if (slab_new(pool, total, &r->in_slab) < 0)
            return FAIL(p, -ENOMEM, "no memory for inputs of %zu bytes now", total);
        at = r->in_slab->data;
    }
    for (uint32_t i = 0; i < p->m->n_in; i++) {
        if (!p->src[i].copied) {
            r->in[i].data = (void *)(uintptr_t)p->src[i].p; /* only read from here on */
            continue;
        }
        r->in[i].data = at;
        at += align_up(p->src[i].need, 64);
    }
    return 0;
}

static int fill(struct parse *p)
{
    for (uint32_t i = 0; i < p->m->n_in; i++) {
        const struct source *s = &p->src[i];
        struct tensor *t = &p->f->r.in[i];

        if (s->json && tensor_json_read(s->p, s->n, t, p->err) < 0)
            return err_wrap(p->err, "input '%s': ", p->m->in[i].name);
        if (!s->json && s->copied)
            memcpy(t->data, s->p, s->n);
    }
    return 0;
}

/* ---- a raw body: all of it is the one input's data */
static int raw_dims(struct parse *p, const struct io_desc *d, size_t bytes, struct tensor *t)
{
    int64_t known = (int64_t)dtype_size(d->dtype);
    uint32_t free_dim = MAX_RANK;

    t->rank = d->rank;
    for (uint32_t i = 0; i < d->rank; i++) {
        t->dims[i] = d->dims[i];
        if (i == 0 && p->m->batches)
            t->dims[i] = 1;
        else if (d->dims[i] >= 0)
            known *= d->dims[i]; /* a model's own shape: it does not overflow */
        else if (free_dim != MAX_RANK)
            return FAIL(p, -EINVAL, "input '%s': a raw body, but more than one dimension is free",
                        d->name);
        else
            free_dim = i;
    }
    if (free_dim != MAX_RANK && known)
        t->dims[free_dim] = (int64_t)bytes / known;
    return 0;
}

static int read_raw(struct parse *p)
{
    const struct io_desc *d = p->m->in;
    struct tensor *t = p->f->r.in;
    struct source *s = p->src;

    if (p->m->n_in != 1)
        return FAIL(p, -EINVAL, "a raw body, but the model '%s' has %u inputs", p->m->spec.name,
                    p->m->n_in);
    *s = (struct source){
        .seen = true, .p = p->binary, .n = p->binary_left, .need = MAX(p->binary_left, 1u)};
    if (d->dtype == DT_STRING)
        return FAIL(p, -ENOSYS, "input '%s': a raw body of BYTES is not supported", d->name);
    if (raw_dims(p, d, s->n, t) < 0 || check_shape(p, d, t) < 0)
        return p->err->code;
    if (t->bytes != s->n)
        return FAIL(p, -EINVAL, "input '%s': a raw body of %zu bytes, but its shape has %zu",
                    d->name, s->n, t->bytes);
    s->copied = (uintptr_t)s->p % dtype_size(d->dtype) != 0;
    return want_all(p, true);
}

/* ---- all of it */
static int read_json(struct parse *p, const char *json, size_t n)
{
    bool binary = false;
    struct json_cut cut;

    if (json_cut(json, n, p->f->heads, &cut, p->err) < 0)
        return p->err->code;
    p->f->head = cut.head;
    if (read_inputs(p, &cut) < 0 || read_parameters(p, &binary) < 0 || read_outputs(p, binary) < 0)
        return p->err->code;
    if (p->binary_left)
        return FAIL(p, -EINVAL, "%zu bytes of the body belong to no input", p->binary_left);
    return 0;
}

int v2_infer_parse(struct infer *f, struct pool *pool, const char *body, size_t bytes,
                   struct err *err)
{
    struct parse p = {.f = f, .m = f->r.served, .err = err};
    size_t json = f->header_bytes == HEADER_NONE ? bytes : (size_t)f->header_bytes;
    int rc;

    if (json > bytes)
        return err_set(err, -EINVAL,
                       "Inference-Header-Content-Length is %zu, but the body has %zu bytes", json,
                       bytes);
    p.binary = body + json;
    p.binary_left = bytes - json;
    p.has_header = f->header_bytes != HEADER_NONE;
    rc = f->header_bytes == 0 ? read_raw(&p) : read_json(&p, body, json);
    if (rc < 0 || (rc = place(&p, pool)) < 0)
        return rc;
    f->r.rows = MAX(f->r.rows, 1u);
    return fill(&p);
}
