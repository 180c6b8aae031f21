/* Served models as the daemon sees them, and the registry of names.
 *
 * A served object holds the names, shapes and counters of a version, never its graph: an http
 * thread that sends a reply slowly holds a few kilobytes, not a model.  Objects of one version
 * (its numbers may be changed) share their counters. */
#include "engine_priv.h"

#include <stdio.h>

const char *served_state_name(enum served_state s)
{
    static const char *const names[] = {"LOADING", "READY", "UNLOADING", "UNAVAILABLE"};

    return (unsigned)s < ARRAY_SIZE(names) ? names[s] : "?";
}

struct stats_box *stats_new(void)
{
    struct stats_box *b = calloc(1, sizeof(*b));

    if (b)
        b->refs = 1;
    return b;
}

void stats_put(struct stats_box *b)
{
    if (b && atomic_fetch_sub(&b->refs, 1) == 1)
        free(b);
}

/* Inputs or outputs of the graph, for a person and for the v2 metadata.  Of late ones nothing that
 * the file says of a dimension is relied on. */
static const struct io_desc *describe(struct arena *a, const struct graph *g, const uint32_t *id,
                                      uint32_t n, const bool *late)
{
    struct io_desc *d = ARENA_ARRAY(a, struct io_desc, n);

    for (uint32_t i = 0; d && i < n; i++) {
        const struct value *v = &g->values[id[i]];
        d[i].name = arena_strdup(a, v->name);
        d[i].dtype = v->dtype;
        d[i].rank = v->rank < 0 ? 0 : (uint32_t)v->rank;
        for (uint32_t k = 0; k < d[i].rank; k++)
            d[i].dims[k] = v->dims[k].sym == SYM_CONST && !late[i] ? v->dims[k].scale : -1;
        if (late[i] && v->rank < 0) { /* not even the rank is declared */
            d[i].rank = 1;
            d[i].dims[0] = -1;
        }
        if (!d[i].name)
            return NULL;
    }
    return d;
}

int served_new(const struct model_spec *spec, struct loaded *l, struct served **ret,
               struct err *err)
{
    struct served_own *s = calloc(1, sizeof(*s));
    const struct graph *g = l->graph;
    static const bool none[MAX_IO];

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    arena_init(&s->arena);
    s->refs = 1;
    s->stats = l->stats;
    (void)atomic_fetch_add(&l->stats->refs, 1);
    s->pub = (struct served){.spec = *spec,
                             .hash = model_hash(l->model),
                             .n_in = g->n_in,
                             .n_out = g->n_out,
                             .batches = loaded_batches(l),
                             .max_batch = loaded_batches(l) ? spec->max_batch : 1,
                             .stats = &l->stats->s};
    s->pub.in = describe(&s->arena, g, g->in, g->n_in, none);
    s->pub.out = describe(&s->arena, g, g->out, g->n_out, l->late_out);
    s->pub.why_single = arena_strdup(&s->arena, loaded_batches(l) ? "" : g->why_single);
    *ret = &s->pub;
    if (s->pub.in && s->pub.out && s->pub.why_single)
        return 0;
    served_put(&s->pub);
    return err_set(err, -ENOMEM, "out of memory");
}

struct served *served_get_ref(struct served *s)
{
    struct served_own *own = (struct served_own *)s;

    (void)atomic_fetch_add_explicit(&own->refs, 1, memory_order_relaxed);
    return s;
}

void served_put(struct served *s)
{
    struct served_own *own = (struct served_own *)s;

    if (!s || atomic_fetch_sub_explicit(&own->refs, 1, memory_order_acq_rel) != 1)
        return;
    stats_put(own->stats);
    arena_done(&own->arena);
    free(own);
}

/* The link that points at the name's entry, or where it would be. */
struct entry **entry_find(struct engine *e, const char *name)
{
    struct entry **at = &e->entries;

    while (*at && strcmp((*at)->spec.name, name) < 0)
        at = &(*at)->next;
    return at;
}

static uint64_t name_hash(const char *name)
{
    return hash_bytes(name, strlen(name)).lo;
}

void entry_list(struct engine *e, struct entry *n)
{
    n->hash = name_hash(n->spec.name);
    n->same = e->by_name[n->hash % NAME_BUCKETS];
    e->by_name[n->hash % NAME_BUCKETS] = n;
}

void entry_unlist(struct engine *e, struct entry *n)
{
    struct entry **at = &e->by_name[n->hash % NAME_BUCKETS];

    while (*at != n)
        at = &(*at)->same;
    *at = n->same;
}

static int get_locked(struct engine *e, const char *name, uint32_t version, struct served **ret,
                      struct err *err)
{
    uint64_t hash = name_hash(name);
    struct entry *n = e->by_name[hash % NAME_BUCKETS];

    while (n && (n->hash != hash || !STREQ(n->spec.name, name)))
        n = n->same;
    if (!n)
        return err_set(err, -ENOENT, "there is no model '%s'", name);
    bool ready = n->served && (version == 0 || n->served->spec.version == version);
    bool known = ready || version == 0 || n->loading == version || n->spec.version == version;
    if (!known)
        return err_set(err, -ENOENT, "model '%s' has no version %u", name, version);
    if (!ready || n->state != SERVED_READY)
        return err_set(err, -EAGAIN, "model '%s' is not ready: %s%s%s", name,
                       served_state_name(ready ? n->state : SERVED_LOADING),
                       n->reason[0] ? ": " : "", n->reason);
    *ret = served_get_ref(n->served);
    return 0;
}

int served_get(struct engine *e, const char *name, uint32_t version, struct served **ret,
               struct err *err)
{
    (void)pthread_mutex_lock(&e->lock);
    int r = get_locked(e, name, version, ret, err);
    (void)pthread_mutex_unlock(&e->lock);
    return r;
}
