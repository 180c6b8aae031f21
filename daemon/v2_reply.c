/* The reply of an inference: JSON, and the binary outputs straight from where the engine wrote
 * them. */
#include "v2_infer.h"
#include "tensor_json.h"
#include <stdio.h>

#define JOIN_MOST 4096      /* bytes: below it one copy costs less than a second send */
#define COMPRESS_LEAST 4096 /* bytes: below it compression costs more than it saves */

/* What lives until the reply is sent. */
struct held {
    char *json;
    struct slab *slab;
};

static void held_free(void *arg)
{
    struct held *h = arg;

    free(h->json);
    slab_put(h->slab);
    free(h);
}

/* What precedes it, and a number >= 0; a third of the reply's time in printf() otherwise. */
static void print_count(struct text *t, const char *before, int64_t n)
{
    char digits[20], *at = digits + sizeof(digits);

    for (text_puts(t, before); n > 9; n /= 10)
        *--at = (char)('0' + n % 10);
    *--at = (char)('0' + n);
    text_add(t, at, (size_t)(digits + sizeof(digits) - at));
}

static void print_shape(struct text *t, const struct tensor *out)
{
    text_puts(t, ",\"shape\":[");
    for (uint32_t i = 0; i < out->rank; i++)
        print_count(t, i ? "," : "", out->dims[i]);
    text_puts(t, "]");
}

static int print_output(const struct infer *f, const struct wanted *w, struct text *t,
                        struct err *err)
{
    const struct tensor *out = &f->r.out[w->out];
    const char *name = f->r.served->out[w->out].name;

    text_puts(t, "{\"name\":");
    if (text_string(t, name, strlen(name)) == -EILSEQ)
        return err_set(err, -EIO, "the name of output %u is no UTF-8", w->out);
    text_puts(t, ",\"datatype\":\"");
    text_puts(t, dtype_name(out->dtype));
    text_puts(t, "\"");
    print_shape(t, out);
    if (w->binary) {
        text_printf(t, ",\"parameters\":{\"binary_data_size\":%zu}", out->bytes);
    } else {
        text_puts(t, ",\"data\":");
        if (tensor_json_print(out, t, err) < 0)
            return err_wrap(err, "output '%s': ", name);
    }
    text_puts(t, "}");
    return 0;
}

int v2_reply_json(const struct infer *f, struct text *t, struct err *err)
{
    const struct model_spec *spec = &f->r.served->spec;
    json_t *id = json_object_get(f->head, "id");

    text_puts(t, "{");
    if (json_string_length(id)) {
        text_puts(t, "\"id\":");
        (void)text_string(t, json_string_value(id), json_string_length(id)); /* jansson's: UTF-8 */
        text_puts(t, ",");
    }
    text_puts(t, "\"model_name\":");
    (void)text_string(t, spec->name, strlen(spec->name));
    print_count(t, ",\"model_version\":\"", spec->version);
    text_puts(t, "\",\"outputs\":[");
    for (uint32_t i = 0; i < f->n_wanted; i++) {
        if (i)
            text_puts(t, ",");
        if (print_output(f, &f->wanted[i], t, err) < 0)
            return err->code;
    }
    text_puts(t, "]}");
    return t->failed ? err_set(err, -ENOMEM, "out of memory") : 0;
}

/* JSON alone; compressed if the client asks for it and it pays. */
static void reply_text(struct exchange *x, struct text *t)
{
    enum encoding e = encoding_accepted(exchange_header(x, "Accept-Encoding"));
    char *small;
    size_t n;

    if (e != ENCODING_IDENTITY && t->n > COMPRESS_LEAST &&
        text_deflate(e, t->p, t->n, &small, &n) == 0) {
        exchange_set_header(x, "Content-Encoding", encoding_name(e));
        exchange_reply_text(x, 200, "application/json", small, n);
        free(t->p);
    } else {
        exchange_reply_text(x, 200, "application/json", t->p, t->n);
    }
}

/* JSON and the few bytes of the outputs in one piece: MHD sends pieces one by one. */
static void reply_joined(struct exchange *x, struct text *t, const struct iovec *iov, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        text_add(t, iov[i].iov_base, iov[i].iov_len);
    if (t->failed) {
        free(t->p);
        exchange_reply_error(x, 503, "out of memory");
    } else {
        exchange_reply_text(x, 200, "application/octet-stream", t->p, t->n);
    }
}

static void reply_pieces(struct infer *f, struct text *t, const struct iovec *iov, unsigned n)
{
    struct held *h = calloc(1, sizeof(*h));

    if (!h) {
        free(t->p);
        exchange_reply_error(f->x, 503, "out of memory");
        return;
    }
    *h = (struct held){t->p, TAKE(f->r.out_slab)};
    exchange_reply_iov(f->x, 200, "application/octet-stream", iov, n, held_free, h);
}

/* JSON and the binary outputs in the order of their entries. */
static void reply_binary(struct infer *f, struct text *t)
{
    struct iovec iov[1 + MAX_IO];
    size_t bytes = t->n;
    unsigned n = 1;
    char length[24];

    iov[0] = (struct iovec){t->p, t->n};
    for (uint32_t i = 0; i < f->n_wanted; i++) {
        const struct tensor *out = &f->r.out[f->wanted[i].out];
        if (!f->wanted[i].binary || !out->bytes)
            continue;
        iov[n++] = (struct iovec){out->data, out->bytes};
        bytes += out->bytes;
    }
    (void)snprintf(length, sizeof(length), "%zu", t->n);
    exchange_set_header(f->x, "Inference-Header-Content-Length", length);
    if (bytes > JOIN_MOST) {
        reply_pieces(f, t, iov, n);
        return;
    }
    reply_joined(f->x, t, iov, n);
    slab_put(TAKE(f->r.out_slab));
}

void v2_reply(struct infer *f)
{
    struct text t = {0};
    struct err err = {0};
    bool binary = false;

    for (uint32_t i = 0; i < f->n_wanted; i++)
        binary |= f->wanted[i].binary;
    if (v2_reply_json(f, &t, &err) < 0) {
        free(t.p);
        exchange_reply_err(f->x, &err, 0);
    } else if (binary) {
        reply_binary(f, &t);
    } else {
        reply_text(f->x, &t);
        slab_put(TAKE(f->r.out_slab));
    }
}
