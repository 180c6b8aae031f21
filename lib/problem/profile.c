/* A profile: its axes, and tables over them.  A table is nested as the profile's dimensions are,
 * [stream][units][batch], without the stream level where there are no streams. */
#include "problem_priv.h"
#include <math.h>

/* ---- tables */

struct dims {
    uint32_t n[3], depth;
};

static struct dims dims_of(const struct profile *p)
{
    return p->n_streams ? (struct dims){{p->n_streams, p->n_units, p->n_batch}, 3}
                        : (struct dims){{p->n_units, p->n_batch}, 2};
}

static size_t cells_of(const struct profile *p)
{
    return (size_t)MAX(p->n_streams, 1u) * p->n_units * p->n_batch;
}

enum cell { CELL_MS, CELL_FRACTION, CELL_WATTS };

/* null: a run that does not fit or run there, or what was not measured. */
static int read_cell(struct reader *r, const json_t *v, enum cell kind, void *table, size_t i)
{
    double x = 0;

    if (kind != CELL_MS) {
        ((double *)table)[i] = -1;
        return json_is_null(v)
                   ? 0
                   : read_real(r, v, 0, kind == CELL_WATTS ? 1e6 : 100, &((double *)table)[i]);
    }
    if (json_is_null(v))
        return 0;
    if (!json_is_number(v) || json_number_value(v) < 0.001 || json_number_value(v) > MAX_MS)
        return wrong(r, v, "a number from 0.001 to %.15g, or null where it does not run", MAX_MS);
    x = json_number_value(v);
    ((usec_t *)table)[i] = (usec_t)llround(x * 1000);
    return 0;
}

/* Without a table only the shape is looked at: a table is allocated once the file has all of it. */
static int read_level(struct reader *r, const json_t *v, const struct dims *d, uint32_t level,
                      enum cell kind, void *table, size_t *next)
{
    static const char *const axis[] = {"streams", "units", "batch"};
    int rc = 0;

    if (level == d->depth)
        return table ? read_cell(r, v, kind, table, (*next)++) : 0;
    if (!json_is_array(v) || json_array_size(v) != d->n[level])
        return wrong(r, v, "a list of %u, one for each of `%s`", d->n[level],
                     axis[3 - d->depth + level]);
    for (size_t i = 0; i < d->n[level] && rc == 0; i++) {
        size_t was = into_at(r, i);
        rc = read_level(r, json_array_get(v, i), d, level + 1, kind, table, next);
        back(r, was);
    }
    return rc;
}

/* *ret stays NULL when the profile does not have it. */
static int read_table(struct reader *r, const json_t *profile, const char *key,
                      const struct profile *p, enum cell kind, const void **ret)
{
    const json_t *v = json_object_get(profile, key);
    struct dims d = dims_of(p);
    size_t next = 0, was = into(r, key);
    int rc = 0;

    if (v && cells_of(p) == 0)
        rc = wrong(r, v, "`batch` and `units` beside it");
    else if (v && (rc = read_level(r, v, &d, 0, kind, NULL, &next)) == 0) {
        void *table = arena_array(r->a, cells_of(p), 8);
        rc = table ? read_level(r, v, &d, 0, kind, table, &next) : no_memory(r);
        *ret = table;
    }
    back(r, was);
    return rc;
}

/* ---- the rest of a profile */

static int read_host(struct reader *r, const json_t *v, struct profile *p)
{
    double *us = json_object_get(v, "host_ms") ? ARENA_ARRAY(r->a, double, p->n_batch) : NULL;

    if (!json_object_get(v, "host_ms"))
        return 0;
    if (!us)
        return no_memory(r);
    int rc = read_reals(r, v, "host_ms", 0, MAX_MS, p->n_batch, us);
    for (uint32_t i = 0; i < p->n_batch && rc == 0; i++)
        us[i] *= 1000;
    p->host_us = us;
    return rc;
}

static int read_curve(struct reader *r, const json_t *v, struct profile *p)
{
    const json_t *curve = json_object_get(v, "curve");
    struct igniter_curve *c = curve ? ARENA_NEW(r->a, struct igniter_curve) : NULL;
    int rc;

    if (!curve)
        return 0;
    if (!c)
        return no_memory(r);
    size_t was = into(r, "curve");
    if ((rc = read_fields(r, curve, curve_fields, c)) == 0)
        rc = read_reals(r, curve, "k", -MAX_REAL, MAX_REAL, 5, c->k);
    back(r, was);
    p->curve = c;
    return rc;
}

static int read_tables(struct reader *r, const json_t *v, struct profile *p)
{
    const struct {
        const char *key;
        enum cell kind;
        const void **at;
    } table[] = {
        {"run_ms", CELL_MS, (const void **)&p->run_us},
        {"upper_ms", CELL_MS, (const void **)&p->upper_us},
        {"l2", CELL_FRACTION, (const void **)&p->l2},
        {"dram", CELL_FRACTION, (const void **)&p->dram},
        {"watts", CELL_WATTS, (const void **)&p->watts},
    };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_SIZE(table) && rc == 0; i++)
        rc = read_table(r, v, table[i].key, p, table[i].kind, table[i].at);
    return rc;
}

/* null: it does not run on that type of device; kept as a table of one cell that says so. */
static int read_nowhere(struct reader *r, struct profile *p)
{
    static const uint32_t one = 1;
    static const usec_t no_run = 0;

    p->n_batch = p->n_units = 1;
    p->batch = arena_memdup(r->a, &one, sizeof(one));
    p->units = arena_memdup(r->a, &one, sizeof(one));
    p->run_us = arena_memdup(r->a, &no_run, sizeof(no_run));
    p->measured = true;
    return p->batch && p->units && p->run_us ? 0 : no_memory(r);
}

static bool is_nowhere(const struct profile *p)
{
    return p->n_batch == 1 && p->n_units == 1 && p->n_streams == 0 && p->batch[0] == 1 &&
           p->units[0] == 1 && p->run_us && p->run_us[0] == 0 && !p->curve;
}

int read_profile(struct reader *r, const json_t *v, struct profile *ret)
{
    struct profile p = {.measured = true};
    int rc;

    if (json_is_null(v))
        return read_nowhere(r, ret);
    if ((rc = read_fields(r, v, profile_fields, &p)) < 0 ||
        (rc = read_ascending(r, v, "batch", MAX_BATCH, MAX_BATCH, &p.n_batch, &p.batch)) < 0 ||
        (rc = read_ascending(r, v, "units", MAX_BATCH, MAX_UNITS, &p.n_units, &p.units)) < 0 ||
        (rc = read_ascending(r, v, "streams", MAX_STREAMS, MAX_STREAMS, &p.n_streams, &p.streams)) <
            0 ||
        (rc = read_host(r, v, &p)) < 0 || (rc = read_curve(r, v, &p)) < 0 ||
        (rc = read_tables(r, v, &p)) < 0)
        return rc;
    if (!p.run_us && !p.curve)
        return wrong(r, v, "`run_ms` (with `batch` and `units`) or `curve` in it");
    *ret = p;
    return 0;
}

/* ---- printing */

static void put_row(struct writer *w, const void *table, size_t at, uint32_t n, bool is_ms)
{
    put_key(w, NULL);
    for (uint32_t i = 0; i < n; i++) {
        double x = is_ms ? (double)((const usec_t *)table)[at + i] / 1000
                         : ((const double *)table)[at + i];
        (void)fputs(i ? ", " : "[", w->f);
        if (is_ms ? x <= 0 : x < 0)
            (void)fputs("null", w->f);
        else
            put_real(w, x);
    }
    (void)fputc(']', w->f);
}

static void put_table(struct writer *w, const char *key, const struct profile *p, const void *table,
                      bool is_ms)
{
    if (!table)
        return;
    put_open(w, key, '[');
    for (uint32_t s = 0; s < MAX(p->n_streams, 1u); s++) {
        if (p->n_streams)
            put_open(w, NULL, '[');
        for (uint32_t u = 0; u < p->n_units; u++)
            put_row(w, table, ((size_t)s * p->n_units + u) * p->n_batch, p->n_batch, is_ms);
        if (p->n_streams)
            put_close(w, ']');
    }
    put_close(w, ']');
}

static void put_host(struct writer *w, const struct profile *p)
{
    put_key(w, "host_ms");
    for (uint32_t i = 0; i < p->n_batch; i++) {
        /* 15 digits: through the factor and back the 16th and 17th are noise. */
        (void)fprintf(w->f, "%s%.15g", i ? ", " : "[", p->host_us[i] / 1000);
    }
    (void)fputc(']', w->f);
}

void put_profile(struct writer *w, const struct profile *p)
{
    if (is_nowhere(p)) {
        (void)fputs("null", w->f);
        return;
    }
    (void)fputc('{', w->f);
    w->depth++;
    w->first = true;
    put_u32_list(w, "batch", p->batch, p->n_batch);
    put_u32_list(w, "units", p->units, p->n_units);
    put_u32_list(w, "streams", p->streams, p->n_streams);
    put_table(w, "run_ms", p, p->run_us, true);
    put_table(w, "upper_ms", p, p->upper_us, true);
    if (p->host_us && p->n_batch)
        put_host(w, p);
    put_table(w, "l2", p, p->l2, false);
    put_table(w, "dram", p, p->dram, false);
    put_table(w, "watts", p, p->watts, false);
    put_fields(w, profile_fields, p);
    if (p->curve) {
        put_open(w, "curve", '{');
        put_real_list(w, "k", p->curve->k, 5);
        put_fields(w, curve_fields, p->curve);
        put_close(w, '}');
    }
    put_close(w, '}');
}
