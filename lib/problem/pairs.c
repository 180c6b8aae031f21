/* Measured pairs: rows of two runs side by side, each [model, batch, units, ms]. */
#include "problem_priv.h"

struct pair_reader {
    struct reader r;
    const struct problem *p;
    json_t *models, *folds; /* name -> index */
    struct pairs *out;
    struct fit_pair *pair;
    const char **fold;
};

/* One run; *ret_us 0: it was not measured, only what ran beside it. */
static int run_read(struct pair_reader *x, const json_t *v, uint32_t *ret_model, struct load *ret,
                    double *ret_us)
{
    uint32_t model = 0, batch = 0, units = 0;
    double ms = 0;
    int rc = 0;

    if (json_array_size(v) != 4)
        return wrong(&x->r, v, "[model, batch, units, ms]");
    for (size_t i = 0; i < 4 && rc == 0; i++) {
        const json_t *part = json_array_get(v, i);
        size_t was = into_at(&x->r, i);
        if (i == 0)
            rc = names_find(&x->r, x->models, part, "a model", &model);
        else if (i == 1)
            rc = read_u32(&x->r, part, 1, MAX_BATCH, &batch);
        else if (i == 2)
            rc = read_u32(&x->r, part, 1, MAX_UNITS, &units);
        else if (!json_is_null(part))
            rc = read_real(&x->r, part, 0.001, MAX_MS, &ms);
        back(&x->r, was);
    }
    *ret_model = model;
    *ret = (struct load){.profile = rc == 0 ? &x->p->model[model].profile[x->out->type] : NULL,
                         .batch = batch,
                         .units = units,
                         .duty = 1};
    *ret_us = ms * 1000;
    return rc;
}

/* The number of an unordered pair of models, a new one if it was not seen yet. */
static int fold_of(struct pair_reader *x, uint32_t a, uint32_t b, uint32_t *ret)
{
    const char *name =
        arena_printf(x->r.a, "%s+%s", x->p->model[MIN(a, b)].name, x->p->model[MAX(a, b)].name);
    char key[32];

    (void)snprintf(key, sizeof(key), "%u+%u", MIN(a, b), MAX(a, b));
    const json_t *known = json_object_get(x->folds, key);
    *ret = known ? (uint32_t)json_integer_value(known) : x->out->n_folds;
    if (known)
        return 0;
    if (!name || json_object_set_new(x->folds, key, json_integer(x->out->n_folds)) < 0)
        return no_memory(&x->r);
    x->fold[x->out->n_folds++] = name;
    return 0;
}

static int row_read(struct pair_reader *x, const json_t *v)
{
    struct load side[2];
    uint32_t model[2], fold;
    double us[2];
    int rc = 0;

    if (json_array_size(v) != 2)
        return wrong(&x->r, v, "two runs, each [model, batch, units, ms]");
    for (size_t i = 0; i < 2 && rc == 0; i++) {
        size_t was = into_at(&x->r, i);
        rc = run_read(x, json_array_get(v, i), &model[i], &side[i], &us[i]);
        back(&x->r, was);
    }
    if (rc < 0 || (rc = fold_of(x, model[0], model[1], &fold)) < 0)
        return rc;
    for (size_t i = 0; i < 2; i++)
        if (us[i] > 0)
            x->pair[x->out->n++] = (struct fit_pair){
                .me = side[i], .other = side[1 - i], .run_us = us[i], .fold = fold};
    return 0;
}

static int rows_read(struct pair_reader *x, const json_t *v)
{
    const json_t *list = NULL;
    int rc = read_list(&x->r, v, "rows", 0, PROBLEM_MAX_PAIRS / 2, &list);
    size_t n = json_array_size(list), was = into(&x->r, "rows");

    x->pair = ARENA_ARRAY(x->r.a, struct fit_pair, n * 2);
    x->fold = ARENA_ARRAY(x->r.a, const char *, n);
    if (rc == 0 && (!x->pair || !x->fold))
        rc = no_memory(&x->r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(&x->r, i);
        rc = row_read(x, json_array_get(list, i));
        back(&x->r, list_at);
    }
    back(&x->r, was);
    x->out->pair = x->pair;
    x->out->fold = x->fold;
    return rc;
}

static int type_find(struct pair_reader *x, const json_t *v)
{
    const char *name = json_string_value(json_object_get(v, "type"));

    for (uint32_t t = 0; name && t < x->p->n_types; t++)
        if (STREQ(name, x->p->type[t].name)) {
            x->out->type = t;
            return 0;
        }
    (void)into(&x->r, "type");
    return wrong(&x->r, json_object_get(v, "type"), "the name of a type of the problem");
}

static int pairs_read(struct pair_reader *x, const json_t *top)
{
    static const struct field keys[] = {FIELD_CODE("type", REQUIRED), FIELD_CODE("rows", REQUIRED),
                                        FIELD_END};
    const json_t *v = json_object_get(top, "pairs");
    int rc = 0;

    for (uint32_t i = 0; i < x->p->n_models; i++)
        if (json_object_set_new(x->models, x->p->model[i].name, json_integer(i)) < 0)
            return no_memory(&x->r);
    (void)into(&x->r, "pairs");
    if (!v)
        return wrong(&x->r, NULL, "an object with `type` and `rows`");
    if ((rc = read_fields(&x->r, v, keys, NULL)) < 0 || (rc = type_find(x, v)) < 0)
        return rc;
    return rows_read(x, v);
}

int pairs_parse(const char *json, size_t bytes, const struct problem *p, struct arena *a,
                struct pairs *ret, struct err *err)
{
    AUTO_JSON json_t *models = json_object(), *folds = json_object(), *top = NULL;
    struct pairs out = {0};
    struct pair_reader x = {
        .r = {.a = a, .err = err}, .p = p, .models = models, .folds = folds, .out = &out};
    int rc;

    if (!models || !folds)
        return no_memory(&x.r);
    if ((rc = file_load(&x.r, json, bytes, &top)) < 0 || (rc = pairs_read(&x, top)) < 0)
        return rc;
    *ret = out;
    return 0;
}
