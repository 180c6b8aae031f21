/* Reading JSON into structs: a path that says where we are, tables of fields, and one form for
 * every error: path, value, what was expected. */
#include "problem_priv.h"
#include <math.h>
#include <stdarg.h>

#define VALUE_SHOWN 48 /* bytes of a wrong value in a message */

/* ---- where we are */

static size_t append(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static size_t append(struct reader *r, const char *fmt, ...)
{
    size_t was = r->len, room = sizeof(r->path) - r->len;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(r->path + r->len, room, fmt, ap);
    va_end(ap);
    if (n > 0)
        r->len += MIN((size_t)n, room - 1);
    return was;
}

size_t into(struct reader *r, const char *key)
{
    return append(r, "%s%s", r->len ? "." : "", key);
}

size_t into_at(struct reader *r, size_t i)
{
    return append(r, "[%zu]", i);
}

void back(struct reader *r, size_t was)
{
    r->len = was;
    r->path[was] = 0;
}

/* ---- errors */

static void show(const json_t *v, char ret[VALUE_SHOWN + 4])
{
    if (json_is_object(v) || json_is_array(v)) {
        (void)snprintf(ret, VALUE_SHOWN, json_is_object(v) ? "an object" : "a list of %zu",
                       json_array_size(v));
        return;
    }
    size_t n = json_dumpb(v, ret, VALUE_SHOWN, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    ret[MIN(n, (size_t)VALUE_SHOWN)] = 0;
    if (n > VALUE_SHOWN)
        strcpy(ret + VALUE_SHOWN - 3, "...");
}

int wrong(struct reader *r, const json_t *value, const char *fmt, ...)
{
    char expected[160], shown[VALUE_SHOWN + 4] = "missing";
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(expected, sizeof(expected), fmt, ap);
    va_end(ap);
    if (value)
        show(value, shown);
    return err_set(r->err, -EINVAL, "%s is %s, expected %s", r->len ? r->path : "the file", shown,
                   expected);
}

int no_memory(struct reader *r)
{
    return err_set(r->err, -ENOMEM, "%s%sout of memory", r->path, r->len ? ": " : "");
}

/* ---- single values */

int read_real(struct reader *r, const json_t *v, double min, double max, double *ret)
{
    double x = json_is_number(v) ? json_number_value(v) : NAN;

    if (!(x >= min && x <= max)) /* false for what is no number */
        return wrong(r, v, "a number from %.15g to %.15g", min, max);
    *ret = x;
    return 0;
}

/* Whole numbers; 16e9 is one, too. */
static int read_whole(struct reader *r, const json_t *v, double min, double max, int64_t *ret)
{
    double x = json_is_number(v) ? json_number_value(v) : NAN;

    if (!(x >= min && x <= max) || x != floor(x))
        return wrong(r, v, "an integer from %.15g to %.15g", min, max);
    *ret = json_is_integer(v) ? json_integer_value(v) : (int64_t)x;
    return 0;
}

int read_u32(struct reader *r, const json_t *v, uint32_t min, uint32_t max, uint32_t *ret)
{
    int64_t x = 0;

    if (read_whole(r, v, min, max, &x) < 0)
        return -EINVAL;
    *ret = (uint32_t)x;
    return 0;
}

static bool name_ok(const json_t *v)
{
    const char *s = json_string_value(v);

    if (!s || !*s || json_string_length(v) > PROBLEM_MAX_NAME)
        return false;
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            return false;
    return true;
}

int read_name(struct reader *r, const json_t *v, const char **ret)
{
    if (!name_ok(v))
        return wrong(r, v, "a name of 1 to %d bytes without control characters", PROBLEM_MAX_NAME);
    *ret = arena_strdup(r->a, json_string_value(v));
    return *ret ? 0 : no_memory(r);
}

static int read_word(struct reader *r, const json_t *v, const char *const *word, uint32_t *ret)
{
    const char *s = json_string_value(v);
    char all[120] = "";

    for (uint32_t i = 0; word[i]; i++) {
        if (s && STREQ(s, word[i])) {
            *ret = i;
            return 0;
        }
        size_t n = strlen(all);
        (void)snprintf(all + n, sizeof(all) - n, "%s%s", n ? ", " : "", word[i]);
    }
    return wrong(r, v, "one of %s", all);
}

static int read_ms(struct reader *r, const json_t *v, double min, double max, usec_t *ret)
{
    double ms = 0;

    if (read_real(r, v, min, max, &ms) < 0)
        return -EINVAL;
    *ret = (usec_t)llround(ms * 1000);
    if (ms > 0 && *ret == 0)
        return wrong(r, v, "0.001 or more (a microsecond), or 0");
    return 0;
}

/* ---- objects */

static int read_bool(struct reader *r, const json_t *v, bool yes, bool *ret)
{
    if (!json_is_boolean(v))
        return wrong(r, v, "true or false");
    *ret = json_is_true(v) == yes;
    return 0;
}

/* All bits of it: a JSON number would lose some. */
static int read_key(struct reader *r, const json_t *v, uint64_t *ret)
{
    const char *s = json_string_value(v);

    if (!s || strlen(s) != 16 || strspn(s, "0123456789abcdef") != 16)
        return wrong(r, v, "16 hexadecimal digits in lower case");
    *ret = strtoull(s, NULL, 16);
    return 0;
}

static int read_field(struct reader *r, const struct field *f, const json_t *v, void *base)
{
    void *at = base ? (char *)base + f->at : NULL; /* what is only checked has no base */
    int64_t x = 0;
    int rc = 0;

    switch (f->kind) {
    case FIELD_NAME:
        return read_name(r, v, at);
    case FIELD_WORD:
        return read_word(r, v, f->word, at);
    case FIELD_REAL:
        return read_real(r, v, f->min, f->max, at);
    case FIELD_MS:
        return read_ms(r, v, f->min, f->max, at);
    case FIELD_KEY:
        return read_key(r, v, at);
    case FIELD_BOOL:
    case FIELD_NOT:
        return read_bool(r, v, f->kind == FIELD_BOOL, at);
    case FIELD_U32:
        if ((rc = read_whole(r, v, f->min, f->max, &x)) == 0)
            *(uint32_t *)at = (uint32_t)x;
        return rc;
    case FIELD_I32:
        if ((rc = read_whole(r, v, f->min, f->max, &x)) == 0)
            *(int32_t *)at = (int32_t)x;
        return rc;
    case FIELD_BYTES:
        if ((rc = read_whole(r, v, f->min, f->max, &x)) == 0)
            *(uint64_t *)at = (uint64_t)x;
        return rc;
    case FIELD_OTHER:
        break;
    }
    return 0;
}

static int keys_known(struct reader *r, const json_t *object, const struct field *f)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)object, key, v)
    {
        const struct field *known = f;
        while (known->key && !STREQ(known->key, key))
            known++;
        if (known->key)
            continue;
        size_t was = into(r, key);
        int rc = wrong(r, v, "no such key here");
        back(r, was);
        return rc;
    }
    return 0;
}

int read_fields(struct reader *r, const json_t *object, const struct field *f, void *base)
{
    if (!json_is_object(object))
        return wrong(r, object, "an object");
    if (keys_known(r, object, f) < 0)
        return -EINVAL;
    for (; f->key; f++) {
        const json_t *v = json_object_get(object, f->key);
        size_t was = into(r, f->key);
        int rc = 0;
        if (!v && f->required)
            rc = wrong(r, NULL, "a value");
        else if (v)
            rc = read_field(r, f, v, base);
        back(r, was);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- lists */

int read_list(struct reader *r, const json_t *object, const char *key, size_t min, size_t max,
              const json_t **ret)
{
    const json_t *v = json_object_get(object, key);
    size_t n = json_array_size(v), was = into(r, key);
    int rc = 0;

    if (v ? !json_is_array(v) || n < min || n > max : min > 0)
        rc = wrong(r, v, min == max ? "a list of %zu" : "a list of %zu to %zu", min, max);
    back(r, was);
    if (rc == 0)
        *ret = v;
    return rc;
}

int read_reals(struct reader *r, const json_t *object, const char *key, double min, double max,
               size_t n, double *ret)
{
    const json_t *list = NULL;
    int rc = read_list(r, object, key, n, n, &list);
    size_t was = into(r, key);

    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(r, i);
        rc = read_real(r, json_array_get(list, i), min, max, &ret[i]);
        back(r, list_at);
    }
    back(r, was);
    return rc;
}

static int ascending_at(struct reader *r, const json_t *list, size_t i, uint32_t max, uint32_t *x)
{
    const json_t *v = json_array_get(list, i);
    size_t was = into_at(r, i);
    int rc = read_u32(r, v, 1, max, &x[i]);

    if (rc == 0 && i > 0 && x[i] <= x[i - 1])
        rc = wrong(r, v, "more than the one before it, %u", x[i - 1]);
    back(r, was);
    return rc;
}

int read_ascending(struct reader *r, const json_t *object, const char *key, uint32_t max_n,
                   uint32_t max, uint32_t *ret_n, const uint32_t **ret)
{
    const json_t *list = NULL;
    int rc = read_list(r, object, key, json_object_get(object, key) ? 1 : 0, max_n, &list);
    size_t n = json_array_size(list);
    uint32_t *x = rc == 0 ? ARENA_ARRAY(r->a, uint32_t, n) : NULL;

    if (rc < 0 || n == 0)
        return rc;
    if (!x)
        return no_memory(r);
    size_t was = into(r, key);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = ascending_at(r, list, i, max, x);
    back(r, was);
    *ret_n = (uint32_t)n;
    *ret = x;
    return rc;
}

/* ---- names */

int names_add(struct reader *r, json_t *names, const char *name, uint32_t index, const json_t *v)
{
    if (json_object_get(names, name))
        return wrong(r, v, "a name that is used once");
    return json_object_set_new(names, name, json_integer(index)) < 0 ? no_memory(r) : 0;
}

int names_find(struct reader *r, const json_t *names, const json_t *v, const char *what,
               uint32_t *ret)
{
    const char *name = json_string_value(v);
    const json_t *index = name ? json_object_get(names, name) : NULL;

    if (!index)
        return wrong(r, v, "the name of %s of the problem", what);
    *ret = (uint32_t)json_integer_value(index);
    return 0;
}

/* ---- the file */

static int top_fields(struct reader *r, const json_t *top)
{
    static const struct field keys[] = {
        FIELD_CODE("version", REQUIRED),
        FIELD_CODE("measured"),
        FIELD_CODE("note"),
        FIELD_CODE("types"),
        FIELD_CODE("devices"),
        FIELD_CODE("rules"),
        FIELD_CODE("models"),
        FIELD_CODE("plan"),
        FIELD_CODE("pairs"),
        FIELD_END,
    };
    const json_t *v = json_object_get(top, "version"), *note = json_object_get(top, "note");
    uint32_t version;
    int rc = read_fields(r, top, keys, NULL);

    if (rc < 0)
        return rc;
    size_t was = into(r, "version");
    rc = read_u32(r, v, PROBLEM_VERSION, PROBLEM_VERSION, &version);
    back(r, was);
    if (rc < 0 || !note || json_is_string(note))
        return rc;
    (void)into(r, "note");
    return wrong(r, note, "a text");
}

int file_load(struct reader *r, const char *json, size_t bytes, json_t **ret)
{
    json_error_t e;

    if (bytes > PROBLEM_MAX_BYTES)
        return err_set(r->err, -EFBIG, "the file has %zu bytes, the limit is %u", bytes,
                       PROBLEM_MAX_BYTES);
    json_t *top = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!top && json_error_code(&e) == json_error_out_of_memory)
        return no_memory(r);
    if (!top)
        return err_set(r->err, -EINVAL, "line %d, column %d: %s", e.line, e.column, e.text);
    int rc = top_fields(r, top);
    if (rc < 0)
        json_decref(top);
    else
        *ret = top;
    return rc;
}
