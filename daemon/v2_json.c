/* The request object without its tensors.
 *
 * A walk over the top-level object finds inputs[i].data and cuts it out; what is left (names,
 * shapes, parameters: little) is jansson's to read and to refuse.  The walk understands only as
 * much JSON as it needs to find the end of a value; where it is lost it stops cutting and leaves
 * the rest to jansson, which then finds the same error and words it. */
#include "v2_infer.h"

struct walk {
    const char *p, *end;
    const char *copied; /* the text up to here is in head */
    struct text head;
    struct json_cut *cut;
    bool too_deep;
};

static void blanks(struct walk *w)
{
    while (w->p < w->end && (*w->p == ' ' || *w->p == '\n' || *w->p == '\t' || *w->p == '\r'))
        w->p++;
}

/* The character c after blanks. */
static bool take(struct walk *w, char c)
{
    blanks(w);
    if (w->p == w->end || *w->p != c)
        return false;
    w->p++;
    return true;
}

/* A string; what is between its quotes. */
static bool take_string(struct walk *w, struct json_range *ret)
{
    if (!take(w, '"'))
        return false;
    ret->p = w->p;
    for (; w->p < w->end; w->p++) {
        if (*w->p == '"') {
            ret->n = (size_t)(w->p++ - ret->p);
            return true;
        }
        if (*w->p == '\\')
            w->p++;
    }
    return false;
}

/* 1: opens, 2: closes, 3: a string begins */
static const unsigned char class_of[256] = {['['] = 1, ['{'] = 1, [']'] = 2, ['}'] = 2, ['"'] = 3};

/* An array or object at p, by counting brackets outside strings. */
static bool skip_nested(struct walk *w)
{
    struct json_range string;
    int depth = 0;

    while (w->p < w->end) {
        switch (class_of[(unsigned char)*w->p]) {
        case 1:
            w->too_deep |= ++depth > JSON_DEPTH_MAX;
            if (w->too_deep)
                return false;
            w->p++;
            break;
        case 2:
            w->p++;
            if (--depth == 0)
                return true;
            break;
        case 3:
            if (!take_string(w, &string))
                return false;
            break;
        default: /* numbers, mostly */
            do
                w->p++;
            while (w->p < w->end && !class_of[(unsigned char)*w->p]);
        }
    }
    return false;
}

static bool skip_value(struct walk *w)
{
    struct json_range string;

    blanks(w);
    if (w->p == w->end)
        return false;
    if (*w->p == '[' || *w->p == '{')
        return skip_nested(w);
    if (*w->p == '"')
        return take_string(w, &string);
    while (w->p < w->end && !strchr(",]} \t\r\n", *w->p))
        w->p++;
    return true;
}

static bool named(const struct json_range *name, const char *wanted)
{
    return name->n == strlen(wanted) && memcmp(name->p, wanted, name->n) == 0;
}

/* Replace the value at p by null. */
static bool cut_value(struct walk *w, size_t input)
{
    const char *from;

    blanks(w);
    from = w->p;
    if (!skip_value(w) || input >= MAX_IO)
        return false;
    text_add(&w->head, w->copied, (size_t)(from - w->copied));
    text_puts(&w->head, "null");
    w->copied = w->p;
    w->cut->data[input] = (struct json_range){from, (size_t)(w->p - from)};
    return true;
}

static bool walk_input(struct walk *w, size_t input)
{
    struct json_range name;

    if (!take(w, '{'))
        return false;
    if (take(w, '}'))
        return true;
    do {
        if (!take_string(w, &name) || !take(w, ':'))
            return false;
        if (!(named(&name, "data") ? cut_value(w, input) : skip_value(w)))
            return false;
    } while (take(w, ','));
    return take(w, '}');
}

static bool walk_inputs(struct walk *w)
{
    size_t input = 0;

    if (!take(w, '['))
        return false;
    if (take(w, ']'))
        return true;
    do
        if (!walk_input(w, input++))
            return false;
    while (take(w, ','));
    return take(w, ']');
}

static void walk_request(struct walk *w)
{
    struct json_range name;

    if (!take(w, '{'))
        return;
    do {
        if (!take_string(w, &name) || !take(w, ':'))
            return;
        if (!(named(&name, "inputs") ? walk_inputs(w) : skip_value(w)))
            return;
    } while (take(w, ','));
}

/* Where byte `at` of the head was in the text. */
static size_t original(const struct json_cut *cut, const char *json, size_t at)
{
    for (size_t i = 0; i < MAX_IO; i++)
        if (cut->data[i].p && at > (size_t)(cut->data[i].p - json))
            at += cut->data[i].n - 4;
    return at;
}

/* A head, from the cache or read and put there; NULL and *at when it is not JSON. */
static json_t *head_read(struct head_cache *c, const struct text *t, json_error_t *at)
{
    const char *text = t->p ? t->p : "";

    if (!c || t->n > HEAD_CACHED_MAX)
        return json_loadb(text, t->n, JSON_REJECT_DUPLICATES, at);
    struct hash128 h = hash_bytes(text, t->n);
    struct cached_head *slot = &c->slot[h.lo % HEADS_MAX];
    if (slot->head && slot->bytes == t->n && memcmp(slot->text, text, t->n) == 0)
        return json_incref(slot->head);
    json_t *head = json_loadb(text, t->n, JSON_REJECT_DUPLICATES, at);
    if (head) {
        json_decref(slot->head);
        slot->head = json_incref(head);
        slot->bytes = t->n;
        memcpy(slot->text, text, t->n);
    }
    return head;
}

int json_cut(const char *json, size_t n, struct head_cache *heads, struct json_cut *ret,
             struct err *err)
{
    struct walk w = {.p = json, .end = json + n, .copied = json, .cut = ret};
    json_error_t at;
    size_t rest;

    *ret = (struct json_cut){0};
    walk_request(&w);
    rest = (size_t)(w.end - w.copied);
    if (w.too_deep) {
        free(w.head.p);
        return err_set(err, -EINVAL, "the request is nested deeper than %d levels", JSON_DEPTH_MAX);
    }
    if (rest + w.head.n > HEAD_BYTES_MAX) {
        free(w.head.p);
        return err_set(err, -EFBIG, "the request has %zu bytes besides data, the limit is %u",
                       rest + w.head.n, HEAD_BYTES_MAX);
    }
    text_add(&w.head, w.copied, rest);
    if (!w.head.failed)
        ret->head = head_read(heads, &w.head, &at);
    free(w.head.p);
    if (w.head.failed)
        return err_set(err, -ENOMEM, "out of memory");
    if (!ret->head)
        return err_set(err, -EINVAL, "the request is not JSON: byte %zu: %s",
                       original(ret, json, at.position > 0 ? (size_t)at.position : 0), at.text);
    if (!json_is_object(ret->head)) {
        json_decref(ret->head);
        ret->head = NULL;
        return err_set(err, -EINVAL, "the request is not a JSON object");
    }
    return 0;
}
