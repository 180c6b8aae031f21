/* Casts to strings and from them: numbers as C writes them, with as few digits as bring the same
 * number back; NaN, INF and -INF by name. */
#include "kit.h"
#include <math.h>
#include <stdio.h>

#define NUMBER_TEXT 40

static void float_print(const struct tensor *t, int64_t at, char buf[NUMBER_TEXT])
{
    uint64_t bits = 0;
    struct tensor one = {.dtype = t->dtype, .data = &bits};
    double v = num_get(t, at).f;

    if (isnan(v) || isinf(v)) {
        (void)snprintf(buf, NUMBER_TEXT, "%s", isnan(v) ? "NaN" : v < 0 ? "-INF" : "INF");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(buf, NUMBER_TEXT, "%.*g", digits, v);
        num_put(&one, 0, (union num){.f = strtod(buf, NULL)});
        if (num_get(&one, 0).f == v)
            break;
    }
}

static void number_print(const struct tensor *t, int64_t at, char buf[NUMBER_TEXT])
{
    union num v = num_get(t, at);

    switch (ref_kind(t->dtype)) {
    case KIND_FLOAT:
        float_print(t, at, buf);
        break;
    case KIND_INT:
        (void)snprintf(buf, NUMBER_TEXT, "%lld", (long long)v.i);
        break;
    default:
        (void)snprintf(buf, NUMBER_TEXT, "%llu", (unsigned long long)v.u);
    }
}

static int to_text(const struct node *n, const struct tensor *x, struct tensor *y, struct err *err)
{
    struct text_writer w = {.p = y->data, .room = y->bytes};
    char buf[NUMBER_TEXT];
    int r = 0;

    if (ref_kind(x->dtype) == KIND_NONE)
        return ref_no_type(n, x->dtype, err);
    for (int64_t i = 0; i < ref_count(x) && r == 0; i++) {
        number_print(x, i, buf);
        r = text_put(&w, &(struct str){buf, (uint32_t)strlen(buf)}, 1);
    }
    y->bytes = w.used;
    return ref_texts_fit(n, r, err);
}

/* The whole string must be a number of this kind. */
static int number_parse(const struct str *s, enum kind kind, union num *ret)
{
    char buf[NUMBER_TEXT * 8], *end = buf;

    if (s->n == 0 || s->n >= sizeof(buf) || memchr(s->s, 0, s->n))
        return -EINVAL;
    memcpy(buf, s->s, s->n);
    buf[s->n] = 0;
    errno = 0;
    if (kind == KIND_FLOAT)
        ret->f = strtod(buf, &end);
    else if (kind == KIND_INT)
        ret->i = strtoll(buf, &end, 10);
    else
        ret->u = strtoull(buf, &end, 10);
    bool beyond = errno == ERANGE && kind != KIND_FLOAT;
    return end == buf || *end || beyond ? -EINVAL : 0;
}

static int from_text(const struct node *n, const struct tensor *x, const struct tensor *y,
                     struct err *err)
{
    enum kind kind = ref_kind(y->dtype);
    AUTO(ref_drop) struct str *s = ref_scratch((size_t)ref_count(x) + 1, sizeof(*s));
    int r = s ? ref_texts(n, x, s, err) : ref_fail(n, err, -ENOMEM, "out of memory");
    union num v;

    for (int64_t i = 0; i < ref_count(x) && r == 0; i++) {
        if (number_parse(&s[i], kind, &v) < 0)
            return err_set(err, -EINVAL, "node '%s' (%s): '%.*s' is no number of type %s", n->name,
                           op_name(n->op), (int)MIN(s[i].n, 40u), s[i].s, dtype_name(y->dtype));
        num_put(y, i, v);
    }
    return r;
}

REF_FN(ref_cast_text)
{
    if (ref_count(in[0]) != ref_count(out[0]))
        return ref_fail(n, err, -EINVAL, "input and output differ in size");
    if (in[0]->dtype != DT_STRING)
        return to_text(n, in[0], out[0], err);
    if (out[0]->dtype != DT_STRING)
        return from_text(n, in[0], out[0], err);
    if (in[0]->bytes > out[0]->bytes)
        return ref_texts_fit(n, -EOVERFLOW, err);
    ref_copy(out[0]->data, in[0]->data, in[0]->bytes);
    out[0]->bytes = in[0]->bytes;
    return 0;
}
