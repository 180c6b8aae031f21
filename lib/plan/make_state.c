/* The planner's state: gpu-lets, devices, and taking changes back.
 *
 * A gpu-let or device is copied into the log the first time that it is touched after a save; a
 * gpu-let's shares go into a fresh array then, so that the logged copy keeps the old one.  Saves
 * nest: going back to one undoes the log down to its mark. */
#include "make_priv.h"

/* ---- share arrays, by powers of two; what is given back is used again */

static struct plan_share *shares_get(struct job *j, uint32_t class)
{
    struct spare *spare = j->spare[class];

    if (spare) {
        j->spare[class] = spare->next;
        return (struct plan_share *)(void *)spare;
    }
    struct plan_share *s = ARENA_ARRAY(j->a, struct plan_share, (size_t)1 << class);
    j->full |= !s;
    return s;
}

static void shares_put(struct job *j, struct plan_share *s, uint32_t class)
{
    struct spare *spare = (struct spare *)(void *)s;

    if (!s)
        return;
    spare->next = j->spare[class];
    j->spare[class] = spare;
}

/* ---- devices by free granules */

static uint32_t *bucket_of(struct job *j, uint32_t type, uint32_t free)
{
    return &j->bucket[(size_t)type * (PLAN_MAX_GRANULES + 1) + free];
}

static void bucket_out(struct job *j, uint32_t device)
{
    struct dev *d = &j->dev[device];

    if (d->prev != PLAN_NONE)
        j->dev[d->prev].next = d->next;
    else
        *bucket_of(j, d->type, d->free) = d->next;
    if (d->next != PLAN_NONE)
        j->dev[d->next].prev = d->prev;
}

static void bucket_in(struct job *j, uint32_t device)
{
    struct dev *d = &j->dev[device];
    uint32_t *head = bucket_of(j, d->type, d->free);

    d->prev = PLAN_NONE;
    d->next = *head;
    if (*head != PLAN_NONE)
        j->dev[*head].prev = device;
    *head = device;
}

uint32_t dev_of_free(const struct job *j, uint32_t type, uint32_t free)
{
    return j->bucket[(size_t)type * (PLAN_MAX_GRANULES + 1) + free];
}

static void dev_set_free(struct job *j, uint32_t device, uint32_t free)
{
    bucket_out(j, device);
    j->dev[device].free = free;
    bucket_in(j, device);
}

/* A gpu-let of the running plan; false: it does not fit, the plan is not of these devices. */
bool dev_import(struct job *j, uint32_t device, uint32_t let)
{
    struct dev *d = &j->dev[device];
    const struct let *l = &j->let[let];
    uint32_t n = let_granules(j, l);

    if (d->free < n)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(l->set.bits); i++) {
        if (d->used.bits[i] & l->set.bits[i])
            return false;
        d->used.bits[i] |= l->set.bits[i];
    }
    d->first = let;
    d->n_lets++;
    dev_set_free(j, device, d->free - n);
    return true;
}

/* ---- taking back */

struct save save_take(struct job *j)
{
    j->txn++;
    return (struct save){.n_undo = j->n_undo, .n_lets = j->n_lets, .free_let = j->free_let};
}

static struct undo *undo_add(struct job *j, uint32_t index, bool is_dev)
{
    if (j->n_undo == j->max_undo) {
        uint32_t more = MAX(2 * j->max_undo, 64u);
        struct undo *u = ARENA_ARRAY(j->a, struct undo, more);
        if (!u) {
            j->full = true;
            return NULL;
        }
        if (j->n_undo)
            memcpy(u, j->undo, j->n_undo * sizeof(*u));
        j->undo = u;
        j->max_undo = more;
    }
    struct undo *u = &j->undo[j->n_undo++];
    u->index = index;
    u->is_dev = is_dev;
    return u;
}

struct dev *touch_dev(struct job *j, uint32_t device)
{
    struct dev *d = &j->dev[device];

    if (d->stamp != j->txn) {
        struct undo *u = undo_add(j, device, true);
        if (u)
            u->dev = *d;
        d->stamp = j->txn;
    }
    return d;
}

struct let *touch_let(struct job *j, uint32_t let)
{
    struct let *l = &j->let[let];

    if (l->stamp == j->txn)
        return l;
    struct undo *u = undo_add(j, let, false);
    if (!u)
        return l;
    u->let = *l;
    l->stamp = j->txn;
    if (l->share) {
        struct plan_share *s = shares_get(j, l->class);
        if (s) /* else the job is `full` and comes to nothing */
            l->share = memcpy(s, l->share, l->n_shares * sizeof(*s));
        l->borrowed = false;
    }
    return l;
}

static void let_back(struct job *j, const struct undo *u)
{
    struct let *l = &j->let[u->index];

    if (l->share && l->share != u->let.share)
        shares_put(j, l->share, l->class);
    *l = u->let;
    l->stamp = 0;
}

static void dev_back(struct job *j, const struct undo *u)
{
    struct dev *d = &j->dev[u->index];

    dev_set_free(j, u->index, u->dev.free);
    uint32_t prev = d->prev, next = d->next;
    *d = u->dev;
    d->prev = prev;
    d->next = next;
    d->stamp = 0;
}

void save_back(struct job *j, const struct save *s)
{
    while (j->n_undo > s->n_undo) {
        const struct undo *u = &j->undo[--j->n_undo];
        if (u->is_dev)
            dev_back(j, u);
        else
            let_back(j, u);
    }
    j->n_lets = s->n_lets;
    j->free_let = s->free_let;
    j->txn++;
}

/* Every array in the log was replaced by a copy when it was logged. */
void save_commit(struct job *j)
{
    while (j->n_undo > 0) {
        const struct undo *u = &j->undo[--j->n_undo];
        if (!u->is_dev && u->let.share && !u->let.borrowed &&
            j->let[u->index].share != u->let.share)
            shares_put(j, u->let.share, u->let.class);
    }
    j->txn++;
}

/* ---- gpu-lets */

uint32_t let_new(struct job *j, uint32_t type, uint32_t at)
{
    uint32_t k = j->free_let;

    if (k == PLAN_NONE) {
        if (j->n_lets == j->max_lets) {
            uint32_t more = MAX(2 * j->max_lets, 64u);
            struct let *l = ARENA_ARRAY(j->a, struct let, more);
            if (!l) {
                j->full = true;
                return PLAN_NONE;
            }
            if (j->n_lets)
                memcpy(l, j->let, j->n_lets * sizeof(*l));
            j->let = l;
            j->max_lets = more;
        }
        k = j->n_lets++;
        j->let[k] = (struct let){.device = PLAN_NONE, .next = PLAN_NONE};
        j->free_let = k;
    }
    struct let *l = touch_let(j, k);
    j->free_let = l->next;
    j->last_let = k;
    *l = (struct let){.device = FLOATING,
                      .type = type,
                      .at = at,
                      .next = PLAN_NONE,
                      .was = PLAN_NONE,
                      .stamp = l->stamp};
    return k;
}

void let_free(struct job *j, uint32_t let)
{
    let_lift(j, let);
    struct let *l = touch_let(j, let);
    shares_put(j, l->share, l->class);
    l->share = NULL;
    l->n_shares = l->class = 0;
    l->device = PLAN_NONE;
    l->next = j->free_let;
    j->free_let = let;
}

static bool shares_grow(struct job *j, struct let *l)
{
    uint32_t class = l->share ? l->class + 1 : 0;

    if (l->share && l->n_shares < 1u << l->class)
        return true;
    if (class >= SHARE_CLASSES)
        return false;
    struct plan_share *s = shares_get(j, class);
    if (!s)
        return false;
    if (l->share)
        memcpy(s, l->share, l->n_shares * sizeof(*s));
    shares_put(j, l->share, l->class);
    l->share = s;
    l->class = class;
    return true;
}

/* More of a model's rate, as a new share or on top of its share there. */
bool let_add(struct job *j, uint32_t let, uint32_t model, double rate_rps)
{
    struct let *l = touch_let(j, let);
    uint32_t most =
        j->p->rules.max_shares ? MIN(j->p->rules.max_shares, LET_SHARES_MAX) : LET_SHARES_MAX;
    const struct cell *c = cell_of(j, model, l->type, l->at);

    if (j->p->rules.rule == RULE_QUEUE)
        most = MIN(most, LET_QUEUE_MAX);
    for (uint32_t i = 0; i < l->n_shares; i++)
        if (l->share[i].model == model) {
            l->share[i].rate_rps += rate_rps;
            return true;
        }
    if (c->batch == 0 || l->n_shares >= most || !shares_grow(j, l))
        return false;
    l->share[l->n_shares++] = (struct plan_share){.model = model,
                                                  .batch = c->batch,
                                                  .usual = c->batch,
                                                  .streams = c->streams,
                                                  .rate_rps = rate_rps};
    return true;
}

void let_drop(struct job *j, uint32_t let, uint32_t i)
{
    struct let *l = touch_let(j, let);

    l->n_shares--;
    memmove(&l->share[i], &l->share[i + 1], (l->n_shares - i) * sizeof(*l->share));
}

/* ---- where it stands */

static bool place_free(const struct dev *d, const struct plan_place *at)
{
    for (uint32_t i = at->first; i < at->first + at->n; i++)
        if (set_has(&d->used, i))
            return false;
    return true;
}

static uint32_t places_left(const struct plan_type *t, const struct dev *d,
                            const struct plan_place *but)
{
    uint32_t granules = 0;

    for (uint32_t i = 0; i < t->n_places; i++) {
        const struct plan_place *q = &t->place[i];
        bool apart = q->first >= but->first + but->n || but->first >= q->first + q->n;
        if (apart && place_free(d, q))
            granules += q->n * q->n; /* large ones are worth keeping */
    }
    return granules;
}

/* From the catalogue: the place that leaves most.  Else the lowest free granules. */
static bool set_choose(const struct job *j, const struct dev *d, uint32_t n,
                       struct plan_granules *ret)
{
    const struct plan_type *t = j->kind[d->type].t;
    const struct plan_place *best = NULL;
    uint32_t best_left = 0;

    *ret = (struct plan_granules){0};
    for (uint32_t i = 0; i < t->n_places; i++) {
        if (t->place[i].n != n || !place_free(d, &t->place[i]))
            continue;
        uint32_t left = places_left(t, d, &t->place[i]);
        if (!best || left > best_left) {
            best = &t->place[i];
            best_left = left;
        }
    }
    if (t->n_places) {
        for (uint32_t i = best ? best->first : 0; best && i < best->first + n; i++)
            set_add(ret, i);
        return best != NULL;
    }
    for (uint32_t i = 0; n > 0 && i < t->n_granules; i++)
        if (!set_has(&d->used, i)) {
            set_add(ret, i);
            n--;
        }
    return n == 0;
}

static void set_flip(struct plan_granules *in, const struct plan_granules *what)
{
    for (size_t i = 0; i < ARRAY_SIZE(in->bits); i++)
        in->bits[i] ^= what->bits[i];
}

bool let_put(struct job *j, uint32_t let, uint32_t device)
{
    struct let *l = touch_let(j, let);
    struct dev *d = touch_dev(j, device);
    uint32_t n = let_granules(j, l);

    if (d->type != l->type || d->free < n ||
        (j->p->rules.max_lets && d->n_lets >= j->p->rules.max_lets) ||
        !set_choose(j, d, n, &l->set))
        return false;
    set_flip(&d->used, &l->set);
    dev_set_free(j, device, d->free - n);
    l->device = device;
    l->next = d->first;
    d->first = let;
    d->n_lets++;
    if (mem_holds(j, device))
        return true;
    let_lift(j, let);
    return false;
}

void let_lift(struct job *j, uint32_t let)
{
    struct let *l = touch_let(j, let);

    if (l->device == FLOATING || l->device == PLAN_NONE)
        return;
    struct dev *d = touch_dev(j, l->device);
    if (d->first == let) {
        d->first = l->next;
    } else {
        uint32_t k = d->first;
        while (j->let[k].next != let)
            k = j->let[k].next;
        touch_let(j, k)->next = l->next;
    }
    d->n_lets--;
    d->refused = 0;
    set_flip(&d->used, &l->set);
    dev_set_free(j, l->device, d->free + let_granules(j, l));
    l->device = FLOATING;
    l->next = PLAN_NONE;
    l->was = PLAN_NONE;
    l->set = (struct plan_granules){0};
}

bool let_resize(struct job *j, uint32_t let, uint32_t at)
{
    struct let *l = touch_let(j, let);

    if (l->device == FLOATING) {
        l->at = at;
        return true;
    }
    struct dev *d = touch_dev(j, l->device);
    uint32_t n = j->kind[l->type].size[at], has = let_granules(j, l);
    struct plan_granules old = l->set, now;

    if (n > has + d->free)
        return false;
    set_flip(&d->used, &old);
    if (!set_choose(j, d, n, &now)) {
        set_flip(&d->used, &old);
        return false;
    }
    set_flip(&d->used, &now);
    dev_set_free(j, l->device, d->free + has - n);
    l->set = now;
    l->at = at;
    l->was = PLAN_NONE;
    return true;
}

void state_clear(struct job *j)
{
    for (uint32_t k = 0; k < j->n_lets; k++)
        if (j->let[k].device != PLAN_NONE)
            let_free(j, k);
    save_commit(j);
}

/* ---- memory: what the check counts, of old and new together */

static bool device_has(const struct job *j, uint32_t device, uint32_t model,
                       const struct let *until)
{
    for (uint32_t k = j->dev[device].first; k != PLAN_NONE; k = j->let[k].next) {
        if (&j->let[k] == until)
            return false;
        for (uint32_t i = 0; i < j->let[k].n_shares; i++)
            if (j->let[k].share[i].model == model)
                return true;
    }
    return false;
}

static uint64_t rows_bytes(const struct plan_model *m, const struct plan_share *s)
{
    return MAX(s->streams, 1u) * (m->slot_bytes + (uint64_t)s->batch * m->row_bytes);
}

static const struct let *let_same(const struct job *j, uint32_t device, const struct plan_gpulet *g)
{
    for (uint32_t k = j->dev[device].first; k != PLAN_NONE; k = j->let[k].next)
        if (set_eq(&j->let[k].set, &g->set))
            return &j->let[k];
    return NULL;
}

/* What the running plan has besides: all of it, unless the same share stays. */
static uint64_t was_bytes(const struct job *j, uint32_t device)
{
    uint64_t bytes = 0;

    for (uint32_t k = j->was ? j->was_first[device] : PLAN_NONE; k != PLAN_NONE;
         k = j->was_next[k]) {
        const struct plan_gpulet *g = &j->was->gpulet[k];
        const struct let *kept = let_same(j, device, g);
        bytes += kept ? 0 : j->p->type[j->dev[device].type].let_bytes;
        for (uint32_t i = 0; i < g->n_shares; i++) {
            const struct plan_share *s = &g->share[i];
            if (s->model >= j->p->n_models)
                continue;
            const struct plan_model *m = &j->p->model[s->model];
            bool same = false, stays = false;
            for (uint32_t x = 0; kept && x < kept->n_shares; x++)
                if (kept->share[x].model == s->model) {
                    stays = true;
                    same = kept->share[x].batch == s->batch &&
                           MAX(kept->share[x].streams, 1u) == MAX(s->streams, 1u);
                }
            bytes += same ? 0 : rows_bytes(m, s);
            if (m->weights_per_let ? !stays : !device_has(j, device, s->model, NULL))
                bytes += m->weights_bytes; /* twice on a device: more than the check counts */
        }
    }
    return bytes;
}

bool mem_holds(struct job *j, uint32_t device)
{
    const struct plan_type *t = j->kind[j->dev[device].type].t;
    uint64_t bytes = t->pool_bytes;

    if (t->mem_bytes == 0 || j->dev[device].n_lets == 0)
        return true;
    for (uint32_t k = j->dev[device].first; k != PLAN_NONE; k = j->let[k].next) {
        const struct let *l = &j->let[k];
        bytes += t->let_bytes;
        for (uint32_t i = 0; i < l->n_shares; i++) {
            const struct plan_model *m = &j->p->model[l->share[i].model];
            bytes += rows_bytes(m, &l->share[i]);
            if (m->weights_per_let || !device_has(j, device, l->share[i].model, l))
                bytes += m->weights_bytes;
        }
    }
    return bytes + was_bytes(j, device) <= t->mem_bytes;
}
