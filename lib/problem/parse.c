/* Problem files: types, devices, models and rules into a struct problem. */
#include "problem_priv.h"

/* The name that read_fields() has read, of one more type or model. */
static int name_add(struct reader *r, json_t *names, const json_t *v, const char *name, uint32_t i)
{
    size_t was = into(r, "name");
    int rc = names_add(r, names, name, i, json_object_get(v, "name"));

    back(r, was);
    return rc;
}

/* ---- device types */

static int place_read(struct reader *r, const json_t *v, uint32_t n_granules,
                      struct plan_place *ret)
{
    uint32_t first = 0, n = 0;
    struct reader quiet = {0}; /* one message for the pair, not for its halves */

    if (json_array_size(v) != 2 ||
        read_u32(&quiet, json_array_get(v, 0), 0, n_granules, &first) < 0 ||
        read_u32(&quiet, json_array_get(v, 1), 1, n_granules, &n) < 0 || first + n > n_granules)
        return wrong(r, v, "[first, number] of granules within 0..%u", n_granules - 1);
    *ret = (struct plan_place){first, n};
    return 0;
}

int read_places(struct reader *r, const json_t *object, const char *key, size_t max,
                uint32_t n_granules, uint32_t *ret_n, const struct plan_place **ret)
{
    const json_t *list = NULL;
    int rc = read_list(r, object, key, 0, max, &list);
    size_t n = json_array_size(list);
    struct plan_place *p = rc == 0 && n ? ARENA_ARRAY(r->a, struct plan_place, n) : NULL;

    if (rc < 0 || n == 0)
        return rc;
    if (!p)
        return no_memory(r);
    size_t was = into(r, key);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(r, i);
        rc = place_read(r, json_array_get(list, i), n_granules, &p[i]);
        back(r, list_at);
    }
    back(r, was);
    *ret_n = (uint32_t)n;
    *ret = p;
    return rc;
}

static int terms_read(struct reader *r, const json_t *v, struct interference *x)
{
    const json_t *list = NULL;
    int rc = read_list(r, v, "terms", 0, PRESSURE_TERMS, &list);

    x->n_terms = (uint32_t)json_array_size(list);
    return rc < 0 || !list ? rc
                           : read_reals(r, v, "terms", -MAX_REAL, MAX_REAL, x->n_terms, x->term);
}

static int interference_read(struct reader *r, const json_t *v, struct interference *x)
{
    int rc = read_fields(r, v, hardware_fields, x);

    if (rc == 0 && json_object_get(v, "c"))
        rc = read_reals(r, v, "c", -MAX_REAL, MAX_REAL, ARRAY_SIZE(x->c), x->c);
    if (rc == 0)
        rc = terms_read(r, v, x);
    if (rc < 0)
        return rc;
    if (x->kind == INTERFERE_IGNITER && (x->max_mhz <= 0 || x->max_watts <= 0))
        return wrong(r, v, "`max_mhz` and `max_watts` above 0 in it, its kind being igniter");
    if (x->kind == INTERFERE_GPULET && !json_object_get(v, "c"))
        return wrong(r, v, "`c` in it, its kind being gpulet");
    return 0;
}

static int type_units(struct reader *r, const json_t *v, struct plan_type *t)
{
    uint64_t used;

    t->granule_units = t->granule_units ? t->granule_units : 1;
    used = (uint64_t)t->n_granules * t->granule_units;
    if (used > MAX_UNITS)
        return wrong(r, v, "at most %d units in its granules", MAX_UNITS);
    t->predict.units = t->predict.units ? t->predict.units : (uint32_t)used;
    if (t->predict.units >= used)
        return 0;
    (void)into(r, "units");
    return wrong(r, json_object_get(v, "units"), "at least the %u of its granules", (unsigned)used);
}

static int type_read(struct reader *r, const json_t *v, struct plan_type *t)
{
    const json_t *x = json_object_get(v, "interference");
    int rc;

    if ((rc = read_fields(r, v, type_fields, t)) < 0 || (rc = type_units(r, v, t)) < 0 ||
        (rc = read_ascending(r, v, "sizes", PLAN_MAX_GRANULES, t->n_granules, &t->n_sizes,
                             &t->size)) < 0 ||
        (rc = read_places(r, v, "places", 4096, t->n_granules, &t->n_places, &t->place)) < 0)
        return rc;
    if (!x)
        return 0;
    size_t was = into(r, "interference");
    rc = interference_read(r, x, &t->predict.interference);
    back(r, was);
    return rc;
}

static int types_read(struct reader *r, const json_t *top, struct problem *p, json_t *names)
{
    const json_t *list = NULL;
    int rc = read_list(r, top, "types", 1, PROBLEM_MAX_TYPES, &list);
    size_t n = json_array_size(list);
    struct plan_type *t = rc == 0 ? ARENA_ARRAY(r->a, struct plan_type, n) : NULL;

    if (rc < 0)
        return rc;
    if (!t)
        return no_memory(r);
    size_t was = into(r, "types");
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        const json_t *v = json_array_get(list, i);
        size_t list_at = into_at(r, i);
        if ((rc = type_read(r, v, &t[i])) == 0)
            rc = name_add(r, names, v, t[i].name, i);
        back(r, list_at);
    }
    back(r, was);
    p->n_types = (uint32_t)n;
    p->type = t;
    return rc;
}

/* ---- devices: [{"type": "v100", "count": 4}, {"type": "a100", "names": ["left", "right"]}] */

struct devices {
    struct plan_device *d;
    uint32_t n, size;
    uint32_t of_type[PROBLEM_MAX_TYPES]; /* counted so far, for the names */
};

static int device_add(struct reader *r, struct devices *x, const char *name, uint32_t type,
                      json_t *names, const json_t *v)
{
    if (!name)
        return no_memory(r);
    if (x->n == x->size)
        return wrong(r, v, "at most %d devices in all", PROBLEM_MAX_DEVICES);
    x->d[x->n] = (struct plan_device){.name = name, .type = type};
    return names_add(r, names, name, x->n++, v);
}

static int devices_named(struct reader *r, const json_t *v, uint32_t type, struct devices *x,
                         json_t *names)
{
    const json_t *list = NULL;
    int rc = read_list(r, v, "names", 1, PROBLEM_MAX_DEVICES, &list);
    size_t was = into(r, "names");

    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        const json_t *name = json_array_get(list, i);
        const char *s = NULL;
        size_t list_at = into_at(r, i);
        if ((rc = read_name(r, name, &s)) == 0)
            rc = device_add(r, x, s, type, names, name);
        back(r, list_at);
    }
    back(r, was);
    return rc;
}

static int devices_counted(struct reader *r, const struct problem *p, const json_t *count,
                           uint32_t type, struct devices *x, json_t *names)
{
    uint32_t n = 0;
    size_t was = into(r, "count");
    int rc = read_u32(r, count, 1, PROBLEM_MAX_DEVICES, &n);

    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = device_add(r, x, arena_printf(r->a, "%s-%u", p->type[type].name, x->of_type[type]++),
                        type, names, count);
    back(r, was);
    return rc;
}

static int device_group(struct reader *r, const struct problem *p, const json_t *v,
                        const json_t *types, struct devices *x, json_t *names)
{
    static const struct field keys[] = {FIELD_CODE("type", REQUIRED), FIELD_CODE("count"),
                                        FIELD_CODE("names"), FIELD_END};
    const json_t *count = json_object_get(v, "count");
    uint32_t type = 0;
    int rc = read_fields(r, v, keys, NULL);

    if (rc < 0)
        return rc;
    size_t was = into(r, "type");
    rc = names_find(r, types, json_object_get(v, "type"), "a type", &type);
    back(r, was);
    if (rc < 0)
        return rc;
    if (!count == !json_object_get(v, "names"))
        return wrong(r, v, "either `count` or `names` in it");
    return count ? devices_counted(r, p, count, type, x, names)
                 : devices_named(r, v, type, x, names);
}

/* The most that the groups can add up to, so that as much is allocated and no more. */
static uint32_t devices_size(const json_t *list)
{
    uint64_t n = 0;
    size_t i;
    json_t *v;

    json_array_foreach(list, i, v)
    {
        json_int_t count = json_integer_value(json_object_get(v, "count"));
        n += count > 0 ? (uint64_t)MIN(count, PROBLEM_MAX_DEVICES) : 1;
        n += json_array_size(json_object_get(v, "names"));
    }
    return (uint32_t)MIN(n, (uint64_t)PROBLEM_MAX_DEVICES);
}

static int devices_read(struct reader *r, const json_t *top, struct problem *p, const json_t *types,
                        json_t *names)
{
    const json_t *list = NULL;
    int rc = read_list(r, top, "devices", 0, PROBLEM_MAX_DEVICES, &list);
    struct devices x = {.size = devices_size(list)};

    if (rc < 0)
        return rc;
    if (!(x.d = ARENA_ARRAY(r->a, struct plan_device, x.size)))
        return no_memory(r);
    size_t was = into(r, "devices");
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        size_t list_at = into_at(r, i);
        rc = device_group(r, p, json_array_get(list, i), types, &x, names);
        back(r, list_at);
    }
    back(r, was);
    p->n_devices = x.n;
    p->device = x.d;
    return rc;
}

/* ---- models */

/* {"v100": {...}, "t4": null}: every type has its profile. */
static int profiles_read(struct reader *r, const json_t *v, const struct problem *p,
                         const struct profile **ret)
{
    struct field keys[PROBLEM_MAX_TYPES + 1] = {0};
    struct profile *f;
    int rc;

    for (uint32_t t = 0; t < p->n_types; t++)
        keys[t] = (struct field)FIELD_CODE(p->type[t].name, REQUIRED);
    if ((rc = read_fields(r, v, keys, NULL)) < 0)
        return rc;
    if (!(f = ARENA_ARRAY(r->a, struct profile, p->n_types)))
        return no_memory(r);
    for (uint32_t t = 0; t < p->n_types && rc == 0; t++) {
        size_t was = into(r, p->type[t].name);
        rc = read_profile(r, json_object_get(v, p->type[t].name), &f[t]);
        back(r, was);
    }
    *ret = f;
    return rc;
}

static int model_read(struct reader *r, const json_t *v, const struct problem *p,
                      const json_t *names, struct plan_model *m)
{
    const json_t *profile = json_object_get(v, "profile");
    uint32_t like = 0;
    int rc = read_fields(r, v, model_fields, m);

    if (rc < 0)
        return rc;
    size_t was = into(r, "profile");
    if (!json_is_string(profile))
        rc = profiles_read(r, profile, p, &m->profile);
    else if ((rc = names_find(r, names, profile, "a model above, or an object by type,", &like)) ==
             0)
        m->profile = p->model[like].profile;
    back(r, was);
    return rc;
}

static int models_read(struct reader *r, const json_t *top, struct problem *p, json_t *names)
{
    const json_t *list = NULL;
    int rc = read_list(r, top, "models", 0, PROBLEM_MAX_MODELS, &list);
    size_t n = json_array_size(list);
    struct plan_model *m = rc == 0 ? ARENA_ARRAY(r->a, struct plan_model, n) : NULL;

    if (rc < 0)
        return rc;
    if (!m)
        return no_memory(r);
    p->model = m;
    size_t was = into(r, "models");
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        const json_t *v = json_array_get(list, i);
        size_t list_at = into_at(r, i);
        if ((rc = model_read(r, v, p, names, &m[i])) == 0)
            rc = name_add(r, names, v, m[i].name, i);
        back(r, list_at);
    }
    back(r, was);
    p->n_models = (uint32_t)n;
    return rc;
}

/* ---- the whole */

static int rules_read(struct reader *r, const json_t *top, struct plan_rules *rules)
{
    const json_t *v = json_object_get(top, "rules");
    size_t was = into(r, "rules");
    int rc = v ? read_fields(r, v, rules_fields, rules) : 0;

    back(r, was);
    return rc;
}

int problem_parse(const char *json, size_t bytes, struct arena *a, struct problem *ret,
                  struct err *err)
{
    AUTO_JSON json_t *types = json_object(), *devices = json_object();
    AUTO_JSON json_t *models = json_object(), *top = NULL;
    struct reader r = {.a = a, .err = err};
    struct problem p = {0};
    int rc;

    if (!types || !devices || !models)
        return no_memory(&r);
    if ((rc = file_load(&r, json, bytes, &top)) < 0 || (rc = types_read(&r, top, &p, types)) < 0 ||
        (rc = devices_read(&r, top, &p, types, devices)) < 0 ||
        (rc = rules_read(&r, top, &p.rules)) < 0 || (rc = models_read(&r, top, &p, models)) < 0)
        return rc;
    *ret = p;
    return 0;
}
