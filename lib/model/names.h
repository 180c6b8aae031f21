/* Names of values, as they lie in the file, to value ids: open addressing, grown by doubling. */
#pragma once

#include "pb.h"

struct name_slot {
    struct pb name; /* name.p NULL: free */
    uint32_t id;
};

struct names {
    struct name_slot *slots;
    size_t n, cap; /* cap: 0 or a power of two */
};

static inline void names_done(struct names *t)
{
    free(t->slots);
}
DEFINE_AUTO(struct names, names_done)

/* The slot of the name, or the free one where it would go; cap is not 0. */
static inline struct name_slot *names_slot(const struct names *t, struct pb name)
{
    size_t n = pb_size(name);
    size_t i = hash_bytes(name.p, n).lo;

    for (;; i++) {
        struct name_slot *s = &t->slots[i & (t->cap - 1)];
        if (!s->name.p || (pb_size(s->name) == n && memcmp(s->name.p, name.p, n) == 0))
            return s;
    }
}

static inline bool names_find(const struct names *t, struct pb name, uint32_t *ret)
{
    const struct name_slot *s = t->cap ? names_slot(t, name) : NULL;

    if (!s || !s->name.p)
        return false;
    *ret = s->id;
    return true;
}

static inline int names_grow(struct names *t)
{
    struct names bigger = {.n = t->n, .cap = t->cap ? t->cap * 2 : 256};

    bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < t->cap; i++)
        if (t->slots[i].name.p)
            *names_slot(&bigger, t->slots[i].name) = t->slots[i];
    free(t->slots);
    *t = bigger;
    return 0;
}

/* -EEXIST when the name is there already. */
static inline int names_add(struct names *t, struct pb name, uint32_t id)
{
    if (t->n * 2 >= t->cap && names_grow(t) < 0)
        return -ENOMEM;
    struct name_slot *s = names_slot(t, name);
    if (s->name.p)
        return -EEXIST;
    *s = (struct name_slot){.name = name, .id = id};
    t->n++;
    return 0;
}
