/* Deep copies: a problem or profile that lives as long as its arena, whatever its source does. */
#include <gpulet/plan.h>

static int dup_into(struct arena *a, const void **at, size_t bytes)
{
    if (!*at)
        return 0;
    *at = arena_memdup(a, *at, bytes);
    return *at ? 0 : -ENOMEM;
}
#define DUP(a, field, n) dup_into((a), (const void **)&(field), (size_t)(n) * sizeof(*(field)))

static int name_into(struct arena *a, const char **name)
{
    if (!*name)
        return 0;
    *name = arena_strdup(a, *name);
    return *name ? 0 : -ENOMEM;
}

int profile_copy(struct arena *a, const struct profile *from, struct profile *ret)
{
    struct profile c = *from;
    size_t cells = (size_t)c.n_batch * c.n_units * MAX(c.n_streams, 1u);

    if (DUP(a, c.batch, c.n_batch) < 0 || DUP(a, c.units, c.n_units) < 0 ||
        DUP(a, c.streams, c.n_streams) < 0 || DUP(a, c.run_us, cells) < 0 ||
        DUP(a, c.upper_us, cells) < 0 || DUP(a, c.host_us, c.n_batch) < 0 ||
        DUP(a, c.l2, cells) < 0 || DUP(a, c.dram, cells) < 0 || DUP(a, c.watts, cells) < 0 ||
        DUP(a, c.curve, 1) < 0)
        return -ENOMEM;
    *ret = c;
    return 0;
}

static int type_copy(struct arena *a, struct plan_type *t)
{
    return name_into(a, &t->name) < 0 || DUP(a, t->size, t->n_sizes) < 0 ||
                   DUP(a, t->place, t->n_places) < 0
               ? -ENOMEM
               : 0;
}

static int model_copy(struct arena *a, struct plan_model *m, uint32_t n_types)
{
    struct profile *f = ARENA_ARRAY(a, struct profile, n_types);

    if (!f || name_into(a, &m->name) < 0)
        return -ENOMEM;
    for (uint32_t t = 0; t < n_types; t++)
        if (profile_copy(a, &m->profile[t], &f[t]) < 0)
            return -ENOMEM;
    m->profile = f;
    return 0;
}

int problem_copy(struct arena *a, const struct problem *from, struct problem *ret)
{
    struct plan_type *t = arena_memdup(a, from->type, from->n_types * sizeof(*t));
    struct plan_device *d = arena_memdup(a, from->device, from->n_devices * sizeof(*d));
    struct plan_model *m = arena_memdup(a, from->model, from->n_models * sizeof(*m));

    if (!t || !d || !m)
        return -ENOMEM;
    for (uint32_t i = 0; i < from->n_types; i++)
        if (type_copy(a, &t[i]) < 0)
            return -ENOMEM;
    for (uint32_t i = 0; i < from->n_devices; i++)
        if (name_into(a, &d[i].name) < 0)
            return -ENOMEM;
    for (uint32_t i = 0; i < from->n_models; i++)
        if (model_copy(a, &m[i], from->n_types) < 0)
            return -ENOMEM;
    *ret = *from;
    ret->type = t;
    ret->device = d;
    ret->model = m;
    return 0;
}
