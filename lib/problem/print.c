/* Problem files, written.  Devices of a type in a row that are named as counting names them are a
 * `count`; a model whose profile another one above has names that one. */
#include "problem_priv.h"

void put_places(struct writer *w, const char *key, const struct plan_place *p, uint32_t n)
{
    put_key(w, key);
    for (uint32_t i = 0; i < n; i++)
        (void)fprintf(w->f, "%s[%u, %u]", i ? ", " : "[", p[i].first, p[i].n);
    (void)fputs(n ? "]" : "[]", w->f);
}

static void put_interference(struct writer *w, const struct interference *x)
{
    put_open(w, "interference", '{');
    put_fields(w, hardware_fields, x);
    if (x->kind == INTERFERE_GPULET)
        put_real_list(w, "c", x->c, ARRAY_SIZE(x->c));
    if (x->n_terms)
        put_real_list(w, "terms", x->term, x->n_terms);
    put_close(w, '}');
}

static void put_types(struct writer *w, const struct problem *p)
{
    put_open(w, "types", '[');
    for (uint32_t i = 0; i < p->n_types; i++) {
        const struct plan_type *t = &p->type[i];
        put_open(w, NULL, '{');
        put_fields(w, type_fields, t);
        put_u32_list(w, "sizes", t->size, t->n_sizes);
        if (t->n_places)
            put_places(w, "places", t->place, t->n_places);
        if (t->predict.interference.kind != INTERFERE_NONE)
            put_interference(w, &t->predict.interference);
        put_close(w, '}');
    }
    put_close(w, ']');
}

/* Is it called what the reader would call it, the k-th of its type? */
static bool is_counted(const struct problem *p, const struct plan_device *d, uint32_t k)
{
    const char *type = p->type[d->type].name;
    size_t n = strlen(type);
    char number[16];

    (void)snprintf(number, sizeof(number), "-%u", k);
    return strncmp(d->name, type, n) == 0 && STREQ(d->name + n, number);
}

static void put_names(struct writer *w, const struct plan_device *d, uint32_t n)
{
    put_open(w, "names", '[');
    for (uint32_t i = 0; i < n; i++) {
        put_key(w, NULL);
        put_text(w, d[i].name);
    }
    put_close(w, ']');
}

static void put_devices(struct writer *w, const struct problem *p)
{
    uint32_t seen[PROBLEM_MAX_TYPES] = {0}, next;

    put_open(w, "devices", '[');
    for (uint32_t i = 0; i < p->n_devices; i = next) {
        const struct plan_device *d = &p->device[i];
        uint32_t *k = &seen[d->type];
        bool counted = is_counted(p, d, *k);
        for (next = i; next < p->n_devices && p->device[next].type == d->type &&
                       is_counted(p, &p->device[next], *k) == counted;
             next++)
            *k += counted;
        put_open(w, NULL, '{');
        put_key(w, "type");
        put_text(w, p->type[d->type].name);
        if (counted) {
            put_key(w, "count");
            (void)fprintf(w->f, "%u", next - i);
        } else {
            put_names(w, d, next - i);
        }
        put_close(w, '}');
    }
    put_close(w, ']');
}

/* The first model with the same profile in memory; i itself when it is the first. */
static uint32_t profile_owner(const struct problem *p, uint32_t i)
{
    uint32_t k = 0;

    while (p->model[k].profile != p->model[i].profile)
        k++;
    return k;
}

static void put_profiles(struct writer *w, const struct problem *p, uint32_t i)
{
    uint32_t owner = profile_owner(p, i);

    if (owner != i) {
        put_key(w, "profile");
        put_text(w, p->model[owner].name);
        return;
    }
    put_open(w, "profile", '{');
    for (uint32_t t = 0; t < p->n_types; t++) {
        put_key(w, p->type[t].name);
        put_profile(w, &p->model[i].profile[t]);
    }
    put_close(w, '}');
}

static void put_models(struct writer *w, const struct problem *p)
{
    put_open(w, "models", '[');
    for (uint32_t i = 0; i < p->n_models; i++) {
        put_open(w, NULL, '{');
        put_fields(w, model_fields, &p->model[i]);
        put_profiles(w, p, i);
        put_close(w, '}');
    }
    put_close(w, ']');
}

static void put_rules(struct writer *w, const struct plan_rules *rules)
{
    put_open(w, "rules", '{');
    put_fields(w, rules_fields, rules);
    put_close(w, '}');
}

static void put_problem(struct writer *w, const struct problem *p)
{
    put_types(w, p);
    put_devices(w, p);
    put_rules(w, &p->rules);
    put_models(w, p);
}

/* p NULL: a plan alone; plan NULL: a problem alone; m or NULL: what was measured. */
static int file_print(const struct problem *p, const struct problem *names, const struct plan *plan,
                      const struct measured *m, char **ret, struct err *err)
{
    struct writer w;

    if (p && p->n_types > PROBLEM_MAX_TYPES)
        return err_set(err, -EINVAL, "%u types of device, a problem file holds at most %d",
                       p->n_types, PROBLEM_MAX_TYPES);
    if (plan && plan_in_range(names, plan, err) < 0)
        return -EINVAL;
    if (writer_open(&w, err) < 0)
        return -ENOMEM;
    put_open(&w, NULL, '{');
    put_key(&w, "version");
    (void)fprintf(w.f, "%d", PROBLEM_VERSION);
    if (p)
        put_problem(&w, p);
    if (plan)
        put_plan(&w, names, plan);
    if (m)
        put_measured(&w, m);
    put_close(&w, '}');
    return writer_close(&w, ret, err);
}

int problem_print(const struct problem *p, char **ret, struct err *err)
{
    return file_print(p, p, NULL, NULL, ret, err);
}

int plan_print(const struct problem *p, const struct plan *plan, char **ret, struct err *err)
{
    return file_print(NULL, p, plan, NULL, ret, err);
}

int problem_plan_print(const struct problem *p, const struct plan *plan, char **ret,
                       struct err *err)
{
    return file_print(p, p, plan, NULL, ret, err);
}

int measured_print(const struct problem *p, const struct measured *m, char **ret, struct err *err)
{
    return file_print(p, p, NULL, m, ret, err);
}
