/* What was measured of a model: the key that it is good for, points [batch, units, ms], and where
 * there are such the runs beside a stressor, those of its segments, and what its precision costs.
 */
#include "problem_priv.h"
#include <inttypes.h>
#include <math.h>

static const struct field key_fields[] = {
    FIELD(struct measured_key, FIELD_NAME, graph, REQUIRED),
    FIELD(struct measured_key, FIELD_NAME, precision, REQUIRED),
    FIELD(struct measured_key, FIELD_NAME, shape, REQUIRED),
    FIELD(struct measured_key, FIELD_NAME, backend, REQUIRED),
    FIELD(struct measured_key, FIELD_NAME, library, REQUIRED),
    FIELD(struct measured_key, FIELD_NAME, device, REQUIRED),
    FIELD(struct measured_key, FIELD_NAME, mode, REQUIRED),
    FIELD_END,
};

static const struct field measured_fields[] = {
    FIELD_CODE("key", REQUIRED), FIELD_CODE("points", REQUIRED), FIELD_CODE("beside"),
    FIELD_CODE("segments"),      FIELD_CODE("accuracy"),         FIELD_END,
};

static const struct field segments_fields[] = {
    FIELD(struct measured_point, FIELD_U32, batch, RANGE(1, MAX_BATCH), REQUIRED),
    FIELD(struct measured_point, FIELD_U32, units, RANGE(1, MAX_UNITS), REQUIRED),
    FIELD_CODE("ms", REQUIRED),
    FIELD_END,
};

static const struct field accuracy_fields[] = {
    FIELD(struct accuracy, FIELD_U32, rows, RANGE(1, MAX_BATCH), REQUIRED),
    FIELD(struct accuracy, FIELD_BOOL, zeros),
    FIELD_CODE("outputs", REQUIRED),
    FIELD_END,
};

/* Of a row of `outputs`, behind its kind and two counts. */
#define ACCURACY_SHARES 4
static const struct {
    size_t at;
    double least, most;
} accuracy_share[ACCURACY_SHARES] = {
    {offsetof(struct accuracy_output, max_error), 0, MAX_REAL},
    {offsetof(struct accuracy_output, rms_error), 0, MAX_REAL},
    {offsetof(struct accuracy_output, same), 0, 1},
    {offsetof(struct accuracy_output, same_top), -1, 1},
};

static double *accuracy_at(const struct accuracy_output *o, unsigned i)
{
    return (double *)((uintptr_t)o + accuracy_share[i].at);
}

/* The times of a row of `beside`, in order. */
#define BESIDE_TIMES 4
static const size_t beside_at[BESIDE_TIMES] = {
    offsetof(struct beside_run, alone_us), offsetof(struct beside_run, beside_us),
    offsetof(struct beside_run, stress_us), offsetof(struct beside_run, stressed_us)};

static usec_t *beside_time(const struct beside_run *b, unsigned i)
{
    return (usec_t *)((uintptr_t)b + beside_at[i]);
}

static void put_beside(struct writer *w, const struct beside_run *b)
{
    put_key(w, NULL);
    (void)fprintf(w->f, "[%u, %u", b->batch, b->units);
    for (unsigned i = 0; i < BESIDE_TIMES; i++) {
        (void)fputs(", ", w->f);
        put_real(w, (double)*beside_time(b, i) / 1000);
    }
    (void)fputc(']', w->f);
}

static void put_segments(struct writer *w, const struct measured *m)
{
    put_open(w, "segments", '{');
    put_fields(w, segments_fields, &m->whole);
    put_key(w, "ms");
    for (uint32_t i = 0; i < m->n_segments; i++) {
        (void)fputs(i ? ", " : "[", w->f);
        put_real(w, (double)m->segment_us[i] / 1000);
    }
    (void)fputc(']', w->f);
    put_close(w, '}');
}

static void put_accuracy(struct writer *w, const struct accuracy *a)
{
    put_open(w, "accuracy", '{');
    put_fields(w, accuracy_fields, a);
    put_open(w, "outputs", '[');
    for (uint32_t i = 0; i < a->n_out; i++) {
        const struct accuracy_output *o = &a->out[i];
        put_key(w, NULL);
        (void)fprintf(w->f, "[%u, %" PRIu64 ", %" PRIu64, (unsigned)o->kind, o->n, o->n_overflowed);
        for (unsigned k = 0; k < ACCURACY_SHARES; k++) {
            (void)fputs(", ", w->f);
            put_real(w, *accuracy_at(o, k));
        }
        (void)fputc(']', w->f);
    }
    put_close(w, ']');
    put_close(w, '}');
}

void put_measured(struct writer *w, const struct measured *m)
{
    put_open(w, "measured", '{');
    put_open(w, "key", '{');
    put_fields(w, key_fields, &m->key);
    put_close(w, '}');
    put_open(w, "points", '[');
    for (uint32_t i = 0; i < m->n_points; i++) {
        const struct measured_point *x = &m->point[i];
        put_key(w, NULL);
        (void)fprintf(w->f, "[%u, %u, ", x->batch, x->units);
        put_real(w, (double)x->run_us / 1000);
        (void)fputc(']', w->f);
    }
    put_close(w, ']');
    if (m->n_beside)
        put_open(w, "beside", '[');
    for (uint32_t i = 0; i < m->n_beside; i++)
        put_beside(w, &m->beside[i]);
    if (m->n_beside)
        put_close(w, ']');
    if (m->n_segments)
        put_segments(w, m);
    if (m->accuracy.n_out)
        put_accuracy(w, &m->accuracy);
    put_close(w, '}');
}

static int read_us(struct reader *r, const json_t *v, usec_t *ret)
{
    double ms = 0;
    int rc = read_real(r, v, 0.001, MAX_MS, &ms);

    if (rc == 0)
        *ret = (usec_t)llround(ms * 1000);
    return rc;
}

static int read_point(struct reader *r, const json_t *v, struct measured_point *ret)
{
    int rc;

    if (json_array_size(v) != 3)
        return wrong(r, v, "[batch, units, ms]");
    if ((rc = read_u32(r, json_array_get(v, 0), 1, MAX_BATCH, &ret->batch)) < 0 ||
        (rc = read_u32(r, json_array_get(v, 1), 1, MAX_UNITS, &ret->units)) < 0)
        return rc;
    return read_us(r, json_array_get(v, 2), &ret->run_us);
}

static int read_beside(struct reader *r, const json_t *v, struct beside_run *ret)
{
    int rc;

    if (json_array_size(v) != 2 + BESIDE_TIMES)
        return wrong(r, v, "[batch, units, ms alone, ms beside, and the stressor's two]");
    if ((rc = read_u32(r, json_array_get(v, 0), 1, MAX_BATCH, &ret->batch)) < 0 ||
        (rc = read_u32(r, json_array_get(v, 1), 1, MAX_UNITS, &ret->units)) < 0)
        return rc;
    for (unsigned i = 0; i < BESIDE_TIMES && rc == 0; i++)
        rc = read_us(r, json_array_get(v, 2 + i), beside_time(ret, i));
    return rc;
}

static int read_besides(struct reader *r, const json_t *v, struct measured *ret)
{
    const json_t *list = NULL;
    int rc = read_list(r, v, "beside", 0, MEASURED_MAX_BESIDE, &list);
    size_t n = json_array_size(list), was = into(r, "beside");
    struct beside_run *b = ARENA_ARRAY(r->a, struct beside_run, n + 1);

    if (rc == 0 && !b)
        rc = no_memory(r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t at = into_at(r, i);
        rc = read_beside(r, json_array_get(list, i), &b[i]);
        back(r, at);
    }
    back(r, was);
    ret->n_beside = (uint32_t)n;
    ret->beside = b;
    return rc;
}

static int read_segments(struct reader *r, const json_t *v, struct measured *ret)
{
    const json_t *o = json_object_get(v, "segments"), *list = NULL;
    size_t was = into(r, "segments");
    int rc = o ? read_fields(r, o, segments_fields, &ret->whole) : 0;

    if (o && rc == 0)
        rc = read_list(r, o, "ms", 1, MEASURED_MAX_SEGMENTS, &list);
    size_t n = json_array_size(list), in = into(r, "ms");
    usec_t *us = ARENA_ARRAY(r->a, usec_t, n + 1);
    if (rc == 0 && !us)
        rc = no_memory(r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t at = into_at(r, i);
        rc = read_us(r, json_array_get(list, i), &us[i]);
        back(r, at);
    }
    back(r, in);
    back(r, was);
    ret->n_segments = (uint32_t)n;
    ret->segment_us = us;
    return rc;
}

static int read_output(struct reader *r, const json_t *v, struct accuracy_output *ret)
{
    uint32_t kind = 0, n = 0, over = 0;
    int rc;

    if (json_array_size(v) != 3 + ACCURACY_SHARES)
        return wrong(r, v, "[kind, entries, not finite, and four numbers]");
    if ((rc = read_u32(r, json_array_get(v, 0), 0, ACCURACY_KINDS - 1, &kind)) < 0 ||
        (rc = read_u32(r, json_array_get(v, 1), 0, UINT32_MAX, &n)) < 0 ||
        (rc = read_u32(r, json_array_get(v, 2), 0, n, &over)) < 0)
        return rc;
    *ret = (struct accuracy_output){.kind = (enum accuracy_kind)kind, .n = n, .n_overflowed = over};
    for (unsigned k = 0; k < ACCURACY_SHARES && rc == 0; k++)
        rc = read_real(r, json_array_get(v, 3 + k), accuracy_share[k].least, accuracy_share[k].most,
                       accuracy_at(ret, k));
    return rc;
}

static int read_accuracy(struct reader *r, const json_t *v, struct measured *ret)
{
    const json_t *o = json_object_get(v, "accuracy"), *list = NULL;
    size_t was = into(r, "accuracy");
    int rc = o ? read_fields(r, o, accuracy_fields, &ret->accuracy) : 0;

    if (o && rc == 0)
        rc = read_list(r, o, "outputs", 1, MEASURED_MAX_OUTPUTS, &list);
    size_t n = json_array_size(list), in = into(r, "outputs");
    struct accuracy_output *out = ARENA_ARRAY(r->a, struct accuracy_output, n + 1);
    if (rc == 0 && !out)
        rc = no_memory(r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t at = into_at(r, i);
        rc = read_output(r, json_array_get(list, i), &out[i]);
        back(r, at);
    }
    back(r, in);
    back(r, was);
    ret->accuracy.n_out = (uint32_t)n;
    ret->accuracy.out = out;
    return rc;
}

static int read_points(struct reader *r, const json_t *v, struct measured *ret)
{
    const json_t *list = NULL;
    int rc = read_list(r, v, "points", 0, MEASURED_MAX_POINTS, &list);
    size_t n = json_array_size(list), was = into(r, "points");
    struct measured_point *point = ARENA_ARRAY(r->a, struct measured_point, n + 1);

    if (rc == 0 && !point)
        rc = no_memory(r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t at = into_at(r, i);
        rc = read_point(r, json_array_get(list, i), &point[i]);
        back(r, at);
    }
    back(r, was);
    ret->n_points = (uint32_t)n;
    ret->point = point;
    return rc;
}

static int read_measured(struct reader *r, const json_t *v, struct measured *ret)
{
    if (!v)
        return wrong(r, NULL, "a value");
    int rc = read_fields(r, v, measured_fields, ret);
    if (rc < 0)
        return rc;
    size_t was = into(r, "key");
    rc = read_fields(r, json_object_get(v, "key"), key_fields, &ret->key);
    back(r, was);
    if (rc < 0 || (rc = read_points(r, v, ret)) < 0 || (rc = read_besides(r, v, ret)) < 0)
        return rc;
    rc = read_segments(r, v, ret);
    return rc < 0 ? rc : read_accuracy(r, v, ret);
}

int measured_parse(const char *json, size_t bytes, struct arena *a, struct measured *ret,
                   struct err *err)
{
    struct reader r = {.a = a, .err = err};
    AUTO_JSON json_t *top = NULL;
    struct measured m = {0};
    int rc = bytes > MEASURED_MAX_BYTES
                 ? err_set(err, -EFBIG, "the file has %zu bytes, the limit is %u", bytes,
                           MEASURED_MAX_BYTES)
                 : file_load(&r, json, bytes, &top);

    if (rc < 0)
        return rc;
    (void)into(&r, "measured");
    rc = read_measured(&r, json_object_get(top, "measured"), &m);
    if (rc == 0)
        *ret = m;
    return rc;
}

const char *measured_differs(const struct measured_key *a, const struct measured_key *b,
                             const char **ret_a, const char **ret_b)
{
    for (const struct field *f = key_fields; f->key; f++) {
        *ret_a = *(const char *const *)((const char *)a + f->at);
        *ret_b = *(const char *const *)((const char *)b + f->at);
        if (!STREQ(*ret_a, *ret_b))
            return f->key;
    }
    return NULL;
}
