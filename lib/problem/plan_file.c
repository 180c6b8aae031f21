/* Plans, read and written by the names of their problem. */
#include "problem_priv.h"

/* ---- reading */

struct plan_reader {
    struct reader r;
    const struct problem *p;
    json_t *devices, *models; /* name -> index */
};

static int index_names(struct plan_reader *x)
{
    for (uint32_t i = 0; i < x->p->n_devices; i++)
        if (json_object_set_new(x->devices, x->p->device[i].name, json_integer(i)) < 0)
            return no_memory(&x->r);
    for (uint32_t i = 0; i < x->p->n_models; i++)
        if (json_object_set_new(x->models, x->p->model[i].name, json_integer(i)) < 0)
            return no_memory(&x->r);
    return 0;
}

static int find_key(struct plan_reader *x, const json_t *v, const char *key, const json_t *names,
                    const char *what, uint32_t *ret)
{
    size_t was = into(&x->r, key);
    int rc = names_find(&x->r, names, json_object_get(v, key), what, ret);

    back(&x->r, was);
    return rc;
}

static int share_read(struct plan_reader *x, const json_t *v, struct plan_share *s)
{
    int rc = read_fields(&x->r, v, share_fields, s);

    return rc < 0 ? rc : find_key(x, v, "model", x->models, "a model", &s->model);
}

static int shares_read(struct plan_reader *x, const json_t *v, struct plan_gpulet *g)
{
    const json_t *list = NULL;
    int rc = read_list(&x->r, v, "shares", 0, PROBLEM_MAX_MODELS, &list);
    size_t n = json_array_size(list), was = into(&x->r, "shares");

    if (rc == 0 && !(g->share = ARENA_ARRAY(x->r.a, struct plan_share, n)))
        rc = no_memory(&x->r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(&x->r, i);
        rc = share_read(x, json_array_get(list, i), &g->share[i]);
        back(&x->r, list_at);
    }
    back(&x->r, was);
    g->n_shares = (uint32_t)n;
    return rc;
}

/* Its granules, by ranges; a granule that is named twice counts once. */
static int granules_read(struct plan_reader *x, const json_t *v, struct plan_gpulet *g)
{
    const struct plan_type *t = &x->p->type[x->p->device[g->device].type];
    const struct plan_place *place = NULL;
    uint32_t n = 0, count = 0;
    int rc = read_places(&x->r, v, "granules", PLAN_MAX_GRANULES, t->n_granules, &n, &place);

    for (uint32_t i = 0; i < n && rc == 0; i++)
        for (uint32_t k = place[i].first; k < place[i].first + place[i].n; k++)
            g->set.bits[k / 64] |= UINT64_C(1) << k % 64;
    for (uint32_t i = 0; i < ARRAY_SIZE(g->set.bits); i++)
        count += (uint32_t)__builtin_popcountll(g->set.bits[i]);
    g->units = count * t->granule_units;
    return rc;
}

static int gpulet_read(struct plan_reader *x, const json_t *v, struct plan_gpulet *g)
{
    int rc = read_fields(&x->r, v, gpulet_fields, g);

    if (rc < 0 || (rc = find_key(x, v, "device", x->devices, "a device", &g->device)) < 0 ||
        (rc = granules_read(x, v, g)) < 0)
        return rc;
    return shares_read(x, v, g);
}

static int gpulets_read(struct plan_reader *x, const json_t *v, struct plan *plan)
{
    const json_t *list = NULL;
    int rc = read_list(&x->r, v, "gpulets", 0, PROBLEM_MAX_GPULETS, &list);
    size_t n = json_array_size(list), was = into(&x->r, "gpulets");

    if (rc == 0 && !(plan->gpulet = ARENA_ARRAY(x->r.a, struct plan_gpulet, n)))
        rc = no_memory(&x->r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(&x->r, i);
        rc = gpulet_read(x, json_array_get(list, i), &plan->gpulet[i]);
        back(&x->r, list_at);
    }
    back(&x->r, was);
    plan->n_gpulets = (uint32_t)n;
    return rc;
}

/* What holds of models that the file has no verdict on. */
static void verdicts_assume(struct plan *plan)
{
    for (uint32_t m = 0; m < plan->n_models; m++)
        plan->verdict[m].limit = LIMIT_UNITS;
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        for (uint32_t i = 0; i < plan->gpulet[k].n_shares; i++)
            plan->verdict[plan->gpulet[k].share[i].model].limit = LIMIT_NONE;
}

static int verdict_read(struct plan_reader *x, const json_t *v, json_t *seen, struct plan *plan)
{
    struct plan_verdict read = {0};
    const json_t *name = json_object_get(v, "model");
    uint32_t m = 0;
    int rc = read_fields(&x->r, v, verdict_fields, &read);

    if (rc < 0 || (rc = find_key(x, v, "model", x->models, "a model", &m)) < 0)
        return rc;
    size_t was = into(&x->r, "model");
    if ((rc = names_add(&x->r, seen, json_string_value(name), m, name)) < 0)
        return rc;
    back(&x->r, was);
    plan->verdict[m] = read;
    return 0;
}

static int verdicts_read(struct plan_reader *x, const json_t *v, struct plan *plan)
{
    AUTO_JSON json_t *seen = json_object();
    const json_t *list = NULL;
    int rc = read_list(&x->r, v, "verdicts", 0, PROBLEM_MAX_MODELS, &list);
    size_t was = into(&x->r, "verdicts");

    plan->n_models = x->p->n_models;
    plan->verdict = ARENA_ARRAY(x->r.a, struct plan_verdict, plan->n_models);
    if (rc == 0 && (!plan->verdict || !seen))
        rc = no_memory(&x->r);
    if (rc == 0)
        verdicts_assume(plan);
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        size_t list_at = into_at(&x->r, i);
        rc = verdict_read(x, json_array_get(list, i), seen, plan);
        back(&x->r, list_at);
    }
    back(&x->r, was);
    return rc;
}

static int plan_read(struct plan_reader *x, const json_t *top, struct plan *plan)
{
    const json_t *v = json_object_get(top, "plan");
    int rc = index_names(x);

    (void)into(&x->r, "plan");
    if (rc == 0 && !v)
        rc = wrong(&x->r, NULL, "an object with `gpulets`");
    if (rc < 0 || (rc = read_fields(&x->r, v, plan_fields, plan)) < 0 ||
        (rc = gpulets_read(x, v, plan)) < 0)
        return rc;
    return verdicts_read(x, v, plan);
}

int plan_parse(const char *json, size_t bytes, const struct problem *p, struct arena *a,
               struct plan *ret, struct err *err)
{
    AUTO_JSON json_t *devices = json_object(), *models = json_object(), *top = NULL;
    struct plan_reader x = {{.a = a, .err = err}, p, devices, models};
    struct plan plan = {0};
    int rc;

    if (!devices || !models)
        return no_memory(&x.r);
    if ((rc = file_load(&x.r, json, bytes, &top)) < 0 || (rc = plan_read(&x, top, &plan)) < 0)
        return rc;
    *ret = plan;
    return 0;
}

/* ---- printing */

static bool has_granule(const struct plan_gpulet *g, uint32_t i)
{
    return i < PLAN_MAX_GRANULES && g->set.bits[i / 64] >> i % 64 & 1;
}

static void put_granules(struct writer *w, const struct plan_gpulet *g)
{
    struct plan_place place[PLAN_MAX_GRANULES / 2];
    uint32_t n = 0;

    for (uint32_t i = 0; i < PLAN_MAX_GRANULES; i++) {
        uint32_t first = i;
        while (has_granule(g, i))
            i++;
        if (i > first)
            place[n++] = (struct plan_place){first, i - first};
    }
    put_places(w, "granules", place, n);
}

static void put_named(struct writer *w, const char *key, const char *name)
{
    put_key(w, key);
    put_text(w, name);
}

static void put_gpulet(struct writer *w, const struct problem *p, const struct plan_gpulet *g)
{
    put_open(w, NULL, '{');
    put_named(w, "device", p->device[g->device].name);
    put_granules(w, g);
    put_fields(w, gpulet_fields, g);
    put_open(w, "shares", '[');
    for (uint32_t i = 0; i < g->n_shares; i++) {
        put_open(w, NULL, '{');
        put_named(w, "model", p->model[g->share[i].model].name);
        put_fields(w, share_fields, &g->share[i]);
        put_close(w, '}');
    }
    put_close(w, ']');
    put_close(w, '}');
}

int plan_in_range(const struct problem *p, const struct plan *plan, struct err *err)
{
    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        bool bad = g->device >= p->n_devices;
        for (uint32_t i = 0; i < g->n_shares; i++)
            bad |= g->share[i].model >= p->n_models;
        if (bad)
            return err_set(err, -EINVAL, "gpu-let %u is of another problem", k);
    }
    return 0;
}

static void put_verdicts(struct writer *w, const struct problem *p, const struct plan *plan)
{
    put_open(w, "verdicts", '[');
    for (uint32_t m = 0; plan->verdict && m < MIN(plan->n_models, p->n_models); m++) {
        put_open(w, NULL, '{');
        put_named(w, "model", p->model[m].name);
        put_fields(w, verdict_fields, &plan->verdict[m]);
        put_close(w, '}');
    }
    put_close(w, ']');
}

void put_plan(struct writer *w, const struct problem *p, const struct plan *plan)
{
    put_open(w, "plan", '{');
    put_fields(w, plan_fields, plan);
    put_open(w, "gpulets", '[');
    for (uint32_t k = 0; k < plan->n_gpulets; k++)
        put_gpulet(w, p, &plan->gpulet[k]);
    put_close(w, ']');
    put_verdicts(w, p, plan);
    put_close(w, '}');
}
