/* What is compiled: seats, their shape keys, and a variant for each batch bucket of a key.
 *
 * A variant goes NONE -> WANTED (an executor saw requests that need it) or LATER (it would save
 * padding) -> BUILDING (the builder compiles it without any lock) -> READY or FAILED.  At most
 * KEYS_PER_MODEL_MAX keys and as many compiled variants are kept per seat, least recently used
 * goes first, never one that is in use: busy, being built, or with requests in its queue.
 *
 * Only the builder frees: whoever evicts a key under the lock moves it to g->dead_keys.  g->gen
 * counts such moves, so that an executor which looked before and acts after notices. */
#include "engine_priv.h"

#define RENEWALS_MAX 8 /* of a variant: each goes on where the one before it was cut short, */
#define RENEW_US (3 * USEC_PER_SEC) /* and after this: comparisons may have run so long */

/* ---- keys; under g->lock */
struct keyq *keyq_find(struct seat *s, const struct shape_key *key)
{
    for (struct keyq *q = s->keys; q; q = q->next)
        if (shape_key_eq(&q->key, key))
            return q;
    return NULL;
}

bool keyq_hopeless(const struct keyq *q, uint32_t rows)
{
    uint32_t own = bucket_of(rows, q->seat->max_batch);

    for (uint32_t b = own; b < q->seat->n_buckets; b++)
        if (q->v[b].state == EXE_READY)
            return false;
    return q->v[own].state == EXE_FAILED && !rc_passes(q->err.code);
}

static bool keyq_in_use(const struct keyq *q)
{
    bool in_use = q->n > 0;

    for (uint32_t b = 0; b < q->seat->n_buckets; b++)
        in_use |= q->v[b].busy || q->v[b].state == EXE_BUILDING;
    return in_use;
}

static void keyq_unlink(struct keyq *q)
{
    struct keyq **at = &q->seat->keys;

    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    q->seat->n_keys--;
    q->seat->g->gen++;
}

static bool keyq_evict(struct seat *s)
{
    struct keyq *old = NULL;

    for (struct keyq *q = s->keys; q; q = q->next)
        if (!keyq_in_use(q) && (!old || q->used < old->used))
            old = q;
    if (!old)
        return false;
    keyq_unlink(old);
    old->next = s->g->dead_keys;
    s->g->dead_keys = old;
    atomic_store(&s->g->wants, true);
    return true;
}

bool keyq_link(struct keyq *q)
{
    struct seat *s = q->seat;

    if (s->n_keys >= KEYS_PER_MODEL_MAX && !keyq_evict(s))
        return false;
    q->used = ++s->g->turn;
    q->next = s->keys;
    s->keys = q;
    s->n_keys++;
    memcpy(q->bucket_us, s->bucket_us, sizeof(q->bucket_us));
    memcpy(q->least_us, s->least_us, sizeof(q->least_us));
    return true;
}

struct keyq *keyq_new(struct seat *s, const struct shape_key *key)
{
    struct keyq *q = calloc(1, sizeof(*q));

    if (!q)
        return NULL;
    q->seat = s;
    q->key = *key;
    for (uint32_t b = 0; b < s->n_buckets; b++)
        q->v[b].rows = bucket_rows(b, s->max_batch);
    return q;
}

/* ---- compiling; builder, no lock held */
static void variant_close(struct gpulet *g, struct variant *v)
{
    const struct backend *b = g->e->b;

    watch_enter(&g->e->watch, "release", clock_now_us() + BUILDER_BOUND_US);
    for (unsigned i = 0; i < SLOTS_MAX; i++)
        if (v->slot[i])
            b->slot_close(TAKE(v->slot[i]));
    if (v->exe)
        b->release(v->exe);
    watch_leave(&g->e->watch);
    arena_done(&v->arena);
    v->exe = NULL;
    v->bound = NULL;
}

static void keyq_free(struct gpulet *g, struct keyq *q)
{
    for (uint32_t b = 0; b < q->seat->n_buckets; b++)
        variant_close(g, &q->v[b]);
    free(q);
}

/* An output row must be a whole part of the output: requests get their rows copied out. */
static int outputs_check(const struct loaded *l, const struct bound *b, uint32_t rows,
                         struct err *err)
{
    for (uint32_t i = 0; i < l->graph->n_out; i++) {
        const struct tensor *t = &b->value[l->graph->out[i]];
        if (loaded_batches(l) && (t->rank == 0 || t->dims[0] % rows != 0))
            return err_set(err, -EINVAL, "output '%s' has no batch dimension",
                           l->graph->values[l->graph->out[i]].name);
    }
    return 0;
}

/* Under g->lock: takes second slots out that no run is in. */
static uint32_t seconds_take(struct gpulet *g, struct slot **ret, uint32_t most)
{
    uint32_t n = 0;

    for (struct seat *s = g->seats; s; s = s->next)
        for (struct keyq *q = s->keys; q; q = q->next)
            for (uint32_t b = 0; b < s->n_buckets && n < most; b++) {
                struct variant *v = &q->v[b];
                if (v->state == EXE_READY && v->slot[1] && !(v->busy >> 1 & 1))
                    ret[n++] = TAKE(v->slot[1]);
            }
    return n;
}

/* There is no memory for a model's first slot: what only saves gaps gives its own back. */
static uint32_t seconds_close(struct gpulet *g)
{
    struct slot *slot[64];
    uint32_t n_all = 0, n;

    do {
        (void)pthread_mutex_lock(&g->lock);
        n = seconds_take(g, slot, ARRAY_SIZE(slot));
        (void)pthread_mutex_unlock(&g->lock);
        watch_enter(&g->e->watch, "release", clock_now_us() + BUILDER_BOUND_US);
        for (uint32_t i = 0; i < n; i++)
            g->e->b->slot_close(slot[i]);
        watch_leave(&g->e->watch);
        n_all += n;
    } while (n == ARRAY_SIZE(slot));
    return n_all;
}

/* In place of second slots, of this gpu-let's models. */
static int slot_instead(struct seat *s, struct variant *v, struct err *err)
{
    struct gpulet *g = s->g;
    struct err why = *err;
    uint32_t n = seconds_close(g);

    if (n == 0)
        return -ENOMEM;
    event(g->e, 4, "compile", s->l->name, g->id,
          "%u rows: %u second slots of this gpu-let were closed, so no run goes ahead there while "
          "another is under way: %.160s",
          v->rows, n, why.msg);
    return WATCHED(&g->e->watch, "slot_open", g->e->b->slot_open(v->exe, &v->slot[0], err));
}

/* The second is for the run that goes ahead while this model runs: without memory none does. */
static int slots_open(struct seat *s, struct variant *v, struct err *err)
{
    struct gpulet *g = s->g;
    const struct backend *b = g->e->b;
    struct err own;
    int r = WATCHED(&g->e->watch, "slot_open", b->slot_open(v->exe, &v->slot[0], err));

    if (r == -ENOMEM && g->ahead_us > 0)
        return slot_instead(s, v, err); /* a second one would be the next to go */
    if (r < 0 || g->ahead_us == 0)
        return r;
    r = WATCHED(&g->e->watch, "slot_open", b->slot_open(v->exe, &v->slot[1], &own));
    if (r == -ENOMEM)
        event(g->e, 4, "compile", s->l->name, g->id,
              "%u rows: no run goes ahead while another is under way: %.160s", v->rows, own.msg);
    else if (r < 0 && err)
        *err = own;
    return r == -ENOMEM ? 0 : r;
}

static int variant_open(struct seat *s, const struct keyq *q, struct variant *v, struct err *err)
{
    struct gpulet *g = s->g;
    struct loaded *l = s->l;
    struct shape_key key = q->key;
    struct compile_args args = {
        .model = l->name, .precision = l->precision, .batch_invariant = l->batch_invariant};

    if (loaded_batches(l))
        key.dim[l->graph->batch_sym] = v->rows;
    arena_init(&v->arena);
    int r = graph_bind(l->graph, &key, &v->arena, &v->bound, err);
    if (r == 0)
        r = outputs_check(l, v->bound, v->rows, err);
    args.bound = v->bound;
    if (r == 0)
        r = WATCHED(&g->e->watch, "compile", g->e->b->compile(g->part, &args, &v->exe, err));
    if (r == 0)
        r = slots_open(s, v, err);
    if (r == 0)
        g->e->b->exe_info(v->exe, &v->info);
    else
        variant_close(g, v);
    return r;
}

/* Takes the least recently used idle variant out, if the seat is full of them. */
static bool variant_evict(struct seat *s, struct variant *ret)
{
    struct variant *old = NULL;
    uint32_t n = 0;

    for (struct keyq *q = s->keys; q; q = q->next)
        for (uint32_t b = 0; b < s->n_buckets; b++) {
            struct variant *v = &q->v[b];
            n += v->state == EXE_READY;
            if (v->state == EXE_READY && !v->busy && (!old || v->used < old->used))
                old = v;
        }
    if (n < KEYS_PER_MODEL_MAX || !old)
        return false;
    *ret = *old;
    *old = (struct variant){.rows = ret->rows};
    return true;
}

bool rc_passes(int rc)
{
    return rc == -ENOMEM || rc == -EAGAIN || rc == -EIO || rc == -ENODEV;
}

/* Of all slots that are open here; under g->lock. */
static uint64_t slots_bytes(const struct seat *s)
{
    uint64_t bytes = 0;

    for (const struct keyq *q = s->keys; q; q = q->next)
        for (uint32_t b = 0; b < s->n_buckets; b++)
            if (q->v[b].state == EXE_READY)
                bytes += q->v[b].info.slot_bytes * (q->v[b].slot[1] ? 2 : 1);
    return bytes;
}

int seat_build(struct seat *s, struct keyq *q, uint32_t bucket, struct err *err)
{
    struct gpulet *g = s->g;
    struct variant *v = &q->v[bucket], old;
    struct err own = {0};

    (void)pthread_mutex_lock(&g->lock);
    bool there = v->state == EXE_READY;
    if (!there)
        v->state = EXE_BUILDING;
    bool evicted = !there && variant_evict(s, &old);
    (void)pthread_mutex_unlock(&g->lock);
    if (there)
        return -EALREADY;
    if (evicted)
        variant_close(g, &old);
    int r = variant_open(s, q, v, &own);

    (void)pthread_mutex_lock(&g->lock);
    if (r < 0)
        q->err = own;
    v->state = r < 0 ? EXE_FAILED : EXE_READY;
    v->used = ++g->turn;
    uint64_t bytes = slots_bytes(s);
    (void)pthread_mutex_unlock(&g->lock);
    if (r < 0) {
        event(g->e, rc_passes(r) ? 3 : 4, "compile", s->l->name, g->id, "%u rows: %s", v->rows,
              own.msg);
        if (err)
            *err = own;
    } else {
        if (v->info.note[0] && !s->l->noted)
            event(g->e, 5, "compile", s->l->name, g->id, "%u rows: %s", v->rows, v->info.note);
        s->l->noted |= v->info.note[0] != 0;
        s->l->slot_bytes = MAX(s->l->slot_bytes, bytes);
        s->l->n_plain = MAX(s->l->n_plain, v->info.n_plain);
        s->l->n_asked = v->info.n_asked;
    }
    return r;
}

/* What is known is not measured again: one run then only warms up. */
int seat_probe(struct seat *s, struct keyq *q, uint32_t bucket, struct err *err)
{
    struct gpulet *g = s->g;
    struct variant *v = &q->v[bucket];
    uint64_t ns[PROBE_RUNS] = {0}, least = UINT64_MAX;
    bool warm = shape_key_eq(&q->key, &s->l->warm);
    usec_t known_us = warm ? loaded_known_us(s->l, v->rows, g->units) : 0;
    unsigned n = known_us ? 1 : PROBE_RUNS;

    /* The slot is ours while it is marked busy. */
    (void)pthread_mutex_lock(&g->lock);
    bool mine = v->state == EXE_READY && !v->busy;
    if (mine)
        v->busy = SLOTS_ALL;
    (void)pthread_mutex_unlock(&g->lock);
    if (!mine)
        return 0;
    atomic_store(&g->probe_us, clock_now_us() + g->e->cfg.step_bound_us / 2);
    int r = WATCHED(&g->e->watch, "probe",
                    g->e->b->probe(v->slot[0], 0, MAX(v->info.n_segments, 1), n, ns, err));
    atomic_store(&g->probe_us, clock_now_us());
    for (unsigned i = 0; i < n; i++)
        least = MIN(least, ns[i]); /* the others were disturbed: the first run warms up */
    usec_t us = known_us ? known_us : MAX(least / 1000, 1);

    if (r == 0 && warm && !known_us) {
        loaded_measured(s->l, v->rows, g->units, us);
        s->l->n_probed++;
    }
    (void)pthread_mutex_lock(&g->lock);
    v->busy = 0;
    usec_t slow_us = (usec_t)((double)us * s->slow + 0.5);
    if (r == 0) {
        q->bucket_us[bucket] = slow_us;
        q->least_us[bucket] = us;
    }
    if (r == 0 && warm) {
        s->bucket_us[bucket] = slow_us;
        s->least_us[bucket] = s->fit_us[bucket] = us;
        s->fit[bucket] = (struct residual){0};
    }
    (void)pthread_mutex_unlock(&g->lock);
    gpulet_kick(g);
    return r;
}

/* ---- compiling anew; builder */
static bool should_renew(const struct seat *s, const struct variant *v, usec_t most_us)
{
    return v->state == EXE_READY && !v->busy && v->info.unraced && v->renewed < RENEWALS_MAX &&
           v->renew_us <= clock_now_us() &&
           s->bucket_us[bucket_of(v->rows, s->max_batch)] <= most_us;
}

/* Under g->lock; the key is not evicted before the lock is open. */
static struct variant *renewable(struct gpulet *g, const struct loaded *l, usec_t most_us,
                                 struct seat **ret_seat, struct keyq **ret_key)
{
    for (struct seat *s = g->seats; s; s = s->next)
        for (struct keyq *q = s->l == l ? s->keys : NULL; q; q = q->next)
            for (uint32_t b = 0; b < s->n_buckets; b++)
                if (should_renew(s, &q->v[b], most_us)) {
                    *ret_seat = s;
                    *ret_key = q;
                    return &q->v[b];
                }
    return NULL;
}

/* The old one serves until the new one is there; who has come meanwhile has it for longer. */
static void variant_renew(struct seat *s, struct keyq *q, struct variant *v)
{
    struct variant fresh = {.rows = v->rows, .state = EXE_READY, .used = v->used};
    struct err none;

    fresh.renewed = ++v->renewed;
    fresh.renew_us = v->renew_us = clock_now_us() + RENEW_US;
    if (variant_open(s, q, &fresh, &none) < 0)
        return;
    (void)pthread_mutex_lock(&s->g->lock);
    if (v->state == EXE_READY && !v->busy) {
        struct variant old = *v;
        *v = fresh;
        fresh = old;
    }
    (void)pthread_mutex_unlock(&s->g->lock);
    variant_close(s->g, &fresh);
}

bool variants_refine(struct engine *e, struct loaded *l, usec_t most_us)
{
    for (struct gpulet *g = e->gpulets; g; g = g->next) {
        struct seat *s;
        struct keyq *q;
        (void)pthread_mutex_lock(&g->lock);
        struct variant *v = g->lost ? NULL : renewable(g, l, most_us, &s, &q);
        (void)pthread_mutex_unlock(&g->lock);
        if (v) {
            variant_renew(s, q, v);
            return true;
        }
    }
    return false;
}

/* ---- seats; builder */
int seat_new(struct gpulet *g, struct loaded *l, uint32_t max_batch, struct seat **ret,
             struct err *err)
{
    struct seat *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->g = g;
    s->l = l;
    s->max_batch = s->batch = max_batch;
    s->slow = 1;
    s->n_buckets = bucket_of(max_batch, max_batch) + 1;
    for (uint32_t b = 0; b < s->n_buckets; b++)
        s->bucket_us[b] = s->least_us[b] = s->fit_us[b] =
            predict_run_us(&l->profile, bucket_rows(b, max_batch), g->units);
    l->refs++;
    g->refs++;
    (void)pthread_mutex_lock(&g->lock);
    s->next = g->seats;
    g->seats = s;
    (void)pthread_mutex_unlock(&g->lock);
    *ret = s;
    return 0;
}

static void buckets_scale(usec_t *us, uint32_t n, double by)
{
    for (uint32_t b = 0; b < n; b++)
        us[b] = MAX((usec_t)((double)us[b] * by + 0.5), 1);
}

void seat_slow(struct seat *s, double slow)
{
    double by = slow / s->slow;

    if (by != 1)
        buckets_scale(s->bucket_us, s->n_buckets, by);
    for (struct keyq *q = s->keys; q && by != 1; q = q->next)
        buckets_scale(q->bucket_us, s->n_buckets, by);
    s->slow = slow;
}

int seat_warm_key(struct seat *s, struct keyq **ret, struct err *err)
{
    struct keyq *fresh = keyq_new(s, &s->l->warm);

    (void)pthread_mutex_lock(&s->g->lock);
    struct keyq *q = keyq_find(s, &s->l->warm);
    if (!q && fresh && keyq_link(fresh))
        q = TAKE(fresh);
    (void)pthread_mutex_unlock(&s->g->lock);
    free(fresh);
    *ret = q;
    return q ? 0 : err_set(err, -ENOMEM, "no room for another shape of model '%s'", s->l->name);
}

void seat_close(struct seat *s)
{
    struct gpulet *g = s->g;
    struct engine *e = g->e;

    (void)pthread_mutex_lock(&g->lock);
    struct seat **at = &g->seats;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    struct keyq **dead = &g->dead_keys, *mine = NULL;
    while (*dead) { /* its evicted keys point at it */
        struct keyq *q = *dead;
        if (q->seat != s) {
            dead = &q->next;
            continue;
        }
        *dead = q->next;
        q->next = mine;
        mine = q;
    }
    g->gen++;
    (void)pthread_mutex_unlock(&g->lock);
    assert(s->n_queued == 0);
    for (unsigned i = 0; i < 2; i++) {
        for (struct keyq *q = i ? s->keys : mine, *next; q; q = next) {
            next = q->next;
            keyq_free(g, q);
        }
    }
    loaded_put(e, s->l);
    free(s);
    gpulet_put(e, g);
}

/* ---- on demand; builder */
static struct keyq *find_wanted(struct gpulet *g, enum variant_state want, uint32_t *ret_bucket)
{
    for (struct seat *s = g->seats; s; s = s->next)
        for (struct keyq *q = s->keys; q; q = q->next)
            for (uint32_t b = 0; b < s->n_buckets; b++)
                if (q->v[b].state == want) {
                    q->v[b].state = EXE_BUILDING; /* from here on nobody evicts the key */
                    *ret_bucket = b;
                    return q;
                }
    return NULL;
}

bool gpulet_build_one(struct gpulet *g, enum variant_state want)
{
    _Atomic bool *flag = want == EXE_WANTED ? &g->wants : &g->wants_later;
    uint32_t bucket = 0;
    struct keyq *q = NULL;

    if (!atomic_load(flag) || atomic_load(&g->state) >= GPULET_LOST)
        return false;
    atomic_store(flag, false); /* before looking: what is wanted meanwhile sets it again */
    (void)pthread_mutex_lock(&g->lock);
    struct keyq *dead = want == EXE_WANTED ? g->dead_keys : NULL;
    if (dead)
        g->dead_keys = dead->next;
    else
        q = find_wanted(g, want, &bucket);
    (void)pthread_mutex_unlock(&g->lock);
    if (dead)
        keyq_free(g, dead);
    if (q) {
        struct err err;
        (void)seat_build(q->seat, q, bucket, &err);
        gpulet_kick(g);
    }
    if (!dead && !q)
        return false;
    atomic_store(flag, true); /* there may be more */
    return true;
}

/* Takes one compiled variant out, to be compiled again. */
static bool take_compiled(struct gpulet *g, struct variant *ret)
{
    for (struct seat *s = g->seats; s; s = s->next)
        for (struct keyq *q = s->keys; q; q = q->next)
            for (uint32_t b = 0; b < s->n_buckets; b++)
                if (q->v[b].state == EXE_READY) {
                    *ret = q->v[b];
                    q->v[b] = (struct variant){.rows = ret->rows, .state = EXE_WANTED};
                    return true;
                }
    return false;
}

void gpulet_drop_exes(struct gpulet *g)
{
    bool more = true;

    while (more) {
        struct variant old;
        (void)pthread_mutex_lock(&g->lock);
        struct keyq *dead = g->dead_keys;
        if (dead)
            g->dead_keys = dead->next;
        bool taken = !dead && take_compiled(g, &old);
        (void)pthread_mutex_unlock(&g->lock);
        if (dead)
            keyq_free(g, dead);
        if (taken)
            variant_close(g, &old);
        more = dead || taken;
    }
    atomic_store(&g->wants, true);
}
