/* The engine's front: life, jobs, and the path of a request to its gpu-let.
 *
 * engine_submit() pins the epoch in force, finds the model's route, reads the shape key off the
 * request's tensors, asks the policy (pure functions over copied figures) and pushes.  The push
 * decides: between look and push another thread may have taken the room, so -EAGAIN from it
 * routes once more and then refuses. */
#include "engine_priv.h"

#include <stdio.h>

/* ---- life */
static int engine_init(struct engine *e, const struct engine_config *cfg, struct err *err)
{
    struct device_info info[MAX_DEVICES];
    pthread_condattr_t attr;
    size_t n = 0;
    int r;

    e->cfg = *cfg;
    e->cfg.device.thread = spawn_thread;
    e->cfg.device.thread_ctx = e;
    e->b = cfg->backend;
    e->changes_tail = &e->changes;
    e->events.fd = -1;
    (void)pthread_mutex_init(&e->lock, NULL);
    (void)pthread_mutex_init(&e->spawn_lock, NULL);
    (void)pthread_cond_init(&e->spawn_cond, NULL);
    (void)pthread_cond_init(&e->start_cond, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&e->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    if (e->cfg.model_limits.nodes == 0)
        e->cfg.model_limits = model_limits_default;
    if (cfg->max_batch == 0 || cfg->max_batch > MAX_BATCH_LIMIT)
        return err_set(err, -EINVAL, "max-batch %u is not between 1 and %d", cfg->max_batch,
                       MAX_BATCH_LIMIT);
    if (e->b->abi != BACKEND_ABI)
        return err_set(err, -EINVAL, "backend '%s' has ABI %u, this program %d", e->b->name,
                       e->b->abi, BACKEND_ABI);
    if ((r = events_init(&e->events)) < 0)
        return err_set(err, r, "events: %s", strerror(-r));
    if ((r = pool_new(cfg->host_bytes, &e->pool, err)) < 0 ||
        (r = e->b->devices(&cfg->device, info, MAX_DEVICES, &n, err)) < 0)
        return r;
    e->n_devices = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        e->device[i].info = info[i];
    e->epoch = calloc(1, sizeof(*e->epoch));
    if (!e->epoch)
        return err_set(err, -ENOMEM, "out of memory");
    e->epoch->refs = 1;
    arena_init(&e->epoch->arena);
    if ((r = epoch_problem(e, e->epoch, err)) < 0)
        return r;
    return builder_start(e, err);
}

static void engine_drop(struct engine *e)
{
    while (e->entries) {
        struct entry *n = e->entries;
        e->entries = n->next;
        served_put(n->served);
        free(n);
    }
    events_done(&e->events);
    pool_free(e->pool);
    (void)pthread_cond_destroy(&e->cond);
    (void)pthread_cond_destroy(&e->start_cond);
    (void)pthread_cond_destroy(&e->spawn_cond);
    (void)pthread_mutex_destroy(&e->spawn_lock);
    (void)pthread_mutex_destroy(&e->lock);
    free(e);
}

int engine_new(const struct engine_config *cfg, struct engine **ret, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));

    if (!e)
        return err_set(err, -ENOMEM, "out of memory");
    int r = engine_init(e, cfg, err);
    if (r == 0) {
        *ret = e;
        return 0;
    }
    if (e->epoch) { /* the builder never had it: it is freed there once it has started */
        arena_done(&e->epoch->arena);
        free(e->epoch);
    }
    engine_drop(e);
    return r;
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    builder_stop(e);
    engine_drop(e);
}

struct pool *engine_pool(struct engine *e)
{
    return e->pool;
}

uint64_t engine_pending(struct engine *e)
{
    return atomic_load(&e->pending);
}

/* ---- jobs */
static int spec_check(const struct model_spec *s, struct err *err)
{
    if (!s->name[0] || s->version == 0)
        return err_set(err, -EINVAL, "a model needs a name and a version above 0");
    if (s->max_batch > MAX_BATCH_LIMIT)
        return err_set(err, -EINVAL, "model '%s': max_batch %u is above the limit of %d", s->name,
                       s->max_batch, MAX_BATCH_LIMIT);
    return 0;
}

/* One more job of a name: its entry is there from now on, even if the load fails. */
static void entry_begin(struct engine *e, const struct model_spec *spec, struct entry *fresh,
                        bool load)
{
    struct entry **at = entry_find(e, spec->name), *n = *at;

    if (!n || !STREQ(n->spec.name, spec->name)) {
        if (!load) {
            free(fresh);
            return;
        }
        fresh->spec = *spec;
        fresh->next = n;
        *at = n = TAKE(fresh);
        entry_list(e, n);
        n->state = SERVED_LOADING;
    }
    n->n_jobs++;
    n->n_unloads += !load;
    if (load)
        n->loading = spec->version;
    if (!load)
        n->state = SERVED_UNLOADING;
    else if (n->state == SERVED_UNAVAILABLE)
        n->state = SERVED_LOADING;
    free(fresh);
}

static int change_ask(struct engine *e, enum change_kind kind, const struct model_spec *spec,
                      struct job *job, struct cq *cq)
{
    struct change *c = calloc(1, sizeof(*c));
    struct entry *fresh = calloc(1, sizeof(*fresh));

    if (!c || !fresh) {
        free(c);
        free(fresh);
        return err_set(&job->err, -ENOMEM, "out of memory");
    }
    c->kind = kind;
    c->job = job;
    c->cq = cq;
    c->spec = *spec;
    if (c->spec.max_batch == 0)
        c->spec.max_batch = e->cfg.max_batch;
    if (c->spec.queue_max == 0)
        c->spec.queue_max = e->cfg.queue_max;
    if (c->spec.best_effort) {
        c->spec.slo_us = 0;
        c->spec.rate_rps = 0;
    }
    (void)pthread_mutex_lock(&e->lock);
    entry_begin(e, &c->spec, fresh, kind == CHANGE_LOAD);
    (void)pthread_mutex_unlock(&e->lock);
    change_push(e, c);
    return 0;
}

void engine_load(struct engine *e, const struct model_spec *spec, struct job *job, struct cq *cq)
{
    job->cq = cq;
    int r = spec_check(spec, &job->err);

    if (r == 0)
        r = change_ask(e, CHANGE_LOAD, spec, job, cq);
    if (r < 0)
        job_done(job, cq, r, NULL);
}

void engine_unload(struct engine *e, const char *name, struct job *job, struct cq *cq)
{
    struct model_spec spec = {.version = 1};

    job->cq = cq;
    (void)snprintf(spec.name, sizeof(spec.name), "%s", name);
    int r = change_ask(e, CHANGE_UNLOAD, &spec, job, cq);
    if (r < 0)
        job_done(job, cq, r, NULL);
}

/* ---- shape keys */
static int dim_check(const struct graph *g, const struct served *s, uint32_t input, uint32_t at,
                     int64_t got, struct shape_key *key, struct err *err)
{
    struct dim want = g->values[g->in[input]].dims[at];

    if (want.sym == SYM_CONST && want.scale == got)
        return 0;
    if (want.sym == SYM_CONST)
        return err_set(err, -EINVAL, "input '%s': dimension %u is %lld, the model has %lld",
                       s->in[input].name, at, (long long)got, (long long)want.scale);
    if (want.sym < 0)
        return 0;
    if (want.scale <= 0 || got % want.scale != 0)
        return err_set(err, -EINVAL, "input '%s': dimension %u is %lld, not a multiple of %lld",
                       s->in[input].name, at, (long long)got, (long long)want.scale);
    int64_t v = got / want.scale, *k = &key->dim[want.sym];
    if (*k >= 0 && *k != v)
        return err_set(
            err, -EINVAL, "input '%s': dimension %u is %lld, other inputs give '%s' as %lld",
            s->in[input].name, at, (long long)got, g->syms[want.sym].name, (long long)*k);
    *k = v;
    return 0;
}

/* The request's shapes as a key; rows is what the batch symbol came out as. */
static int request_key(const struct route *rt, struct request *r, struct shape_key *ret)
{
    const struct graph *g = rt->l->graph;
    const struct served *s = rt->served;
    struct shape_key key = {.n = g->n_syms};

    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = -1;
    for (uint32_t i = 0; i < g->n_in; i++) {
        const struct tensor *t = &r->in[i];
        if (t->dtype != s->in[i].dtype)
            return err_set(&r->err, -EINVAL, "input '%s': type %s, the model has %s", s->in[i].name,
                           dtype_name(t->dtype), dtype_name(s->in[i].dtype));
        if (t->rank != s->in[i].rank)
            return err_set(&r->err, -EINVAL, "input '%s': %u dimensions, the model has %u",
                           s->in[i].name, t->rank, s->in[i].rank);
        for (uint32_t k = 0; k < t->rank; k++) {
            int rc = dim_check(g, s, i, k, t->dims[k], &key, &r->err);
            if (rc < 0)
                return rc;
        }
    }
    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = MAX(key.dim[i], 0); /* a symbol that no input has left */
    r->rows = 1;
    if (g->batch_sym >= 0) {
        int64_t rows = key.dim[g->batch_sym];
        if (rows < 1 || rows > s->max_batch)
            return err_set(&r->err, -EINVAL, "the batch is %lld, model '%s' takes 1 to %u",
                           (long long)rows, s->spec.name, s->max_batch);
        r->rows = (uint32_t)rows;
        key.dim[g->batch_sym] = 0;
    }
    *ret = key;
    return 0;
}

/* ---- admission and routing */
/* The seats that can be used: those of lost partitions, which will be back, only if there are no
 * others. */
static uint32_t seats_choose(const struct route *rt, struct seat *ret[ROUTE_LETS_MAX])
{
    uint32_t n = 0;

    for (int worst = GPULET_RETIRING; n == 0 && worst <= GPULET_LOST; worst++)
        for (uint32_t i = 0; i < rt->n_seats && n < ROUTE_LETS_MAX; i++)
            if (atomic_load(&rt->seat[i]->g->state) <= worst)
                ret[n++] = rt->seat[i];
    return n;
}

static void lets_look(const struct route *rt, const struct shape_key *key, uint32_t rows,
                      usec_t deadline_us, struct seat *seat[ROUTE_LETS_MAX], struct let_view *let,
                      struct admit_view *ret)
{
    usec_t now_us = clock_now_us();
    uint32_t n = seats_choose(rt, seat);

    for (uint32_t i = 0; i < n; i++)
        gpulet_look(seat[i], key, rows, now_us, &let[i]);
    *ret = (struct admit_view){.now_us = now_us,
                               .deadline_us = deadline_us,
                               .n_queued = atomic_load(&rt->l->n_queued),
                               .queue_max = rt->served->spec.queue_max,
                               .loud = demand_loud(rt->l, now_us),
                               .n_lets = n,
                               .let = let};
}

static int admit(struct engine *e, const struct route *rt, const struct admit_view *v,
                 usec_t *retry_us, enum refusal *ret_why, struct err *err)
{
    if (v->n_lets == 0 && rt->n_seats == 0) {
        *retry_us = USEC_PER_SEC;
        *ret_why = REFUSED_LATE;
        return err_set(err, -EAGAIN,
                       "best effort: no gpu-let has time or memory for a run of it beside the "
                       "models with an SLO");
    }
    if (v->n_lets == 0) {
        *retry_us = USEC_PER_SEC;
        *ret_why = REFUSED_LOST;
        return err_set(err, -EAGAIN, "the device that serves it is lost");
    }
    struct admit_choice c = e->cfg.policy->admit(v);

    if (c.what == ADMIT_YES)
        return 0;
    *retry_us = MAX(c.retry_us, USEC_PER_MSEC);
    switch (c.what) {
    case ADMIT_FULL:
        *ret_why = REFUSED_FULL;
        return err_set(err, -EAGAIN, "the model's queue is full: %u of %u", v->n_queued,
                       v->queue_max);
    case ADMIT_BEYOND:
        *ret_why = REFUSED_BEYOND;
        return err_set(err, -EAGAIN,
                       "others wait, or would soon, and the model has had the %.0f requests/s "
                       "planned for it",
                       rt->sure.rate_rps);
    default:
        *ret_why = REFUSED_LATE;
        return err_set(err, -EAGAIN, "the deadline cannot be met: too much work waits");
    }
}

static int route_push(struct engine *e, const struct route *rt, struct request *r,
                      const struct shape_key *key, struct gpulet **ret_kick)
{
    struct let_view let[ROUTE_LETS_MAX];
    struct seat *seat[ROUTE_LETS_MAX];
    struct admit_view v;
    bool beyond = false;
    int rc = -EAGAIN;

    for (unsigned tries = 0; tries < 2 && rc == -EAGAIN; tries++) {
        lets_look(rt, key, r->rows, r->deadline_us, seat, let, &v);
        if (tries == 0) /* not as of its arrival: a slow client's head may be long ago */
            beyond = demand_beyond(rt, v.now_us);
        v.beyond = beyond;
        v.loud |= beyond;
        rc = admit(e, rt, &v, &r->retry_us, &r->refusal, &r->err);
        if (rc < 0)
            return rc;
        struct seat *s = seat[e->cfg.policy->route(&v)];
        rc = gpulet_push(s, r, key, v.queue_max, v.now_us, ret_kick);
    }
    return rc;
}

static void refused(struct served *s, enum refusal why)
{
    atomic_fetch_add_explicit(&s->stats->rejected, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->stats->refused[why], 1, memory_order_relaxed);
}

int engine_admit(struct engine *e, struct served *s, usec_t deadline_us, usec_t *retry_us,
                 struct err *err)
{
    struct epoch *ep = epoch_pin(e);
    const struct route *rt = epoch_route(ep, s);
    struct let_view let[ROUTE_LETS_MAX];
    struct seat *seat[ROUTE_LETS_MAX];
    struct admit_view v;
    enum refusal why;
    int r = 0;

    if (rt) { /* else the model is gone, which engine_submit() says better */
        lets_look(rt, NULL, 1, deadline_us, seat, let, &v);
        r = admit(e, rt, &v, retry_us, &why, err);
    }
    epoch_put(e, ep);
    if (r < 0) {
        refused(s, why);
        demand_count(e, s); /* else engine_submit() does */
    }
    return r;
}

static bool same_io(const struct io_desc *a, const struct io_desc *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!STREQ(a[i].name, b[i].name) || a[i].dtype != b[i].dtype || a[i].rank != b[i].rank ||
            memcmp(a[i].dims, b[i].dims, a[i].rank * sizeof(a[i].dims[0])) != 0)
            return false;
    return true;
}

/* While the request was being read its model may have been replaced.  If it takes the same inputs
 * the new one answers, and the reply says so. */
static int served_adopt(const struct route *rt, struct request *r)
{
    struct served *old = r->served, *now = rt->served;

    if (old == now)
        return 0;
    if (old->n_in != now->n_in || old->n_out != now->n_out ||
        !same_io(old->in, now->in, old->n_in) || !same_io(old->out, now->out, old->n_out))
        return err_set(&r->err, -ENOENT,
                       "model '%s' was replaced by version %u, which takes other inputs",
                       now->spec.name, now->spec.version);
    r->served = served_get_ref(now);
    served_put(old);
    return 0;
}

static int submit_pinned(struct engine *e, struct epoch *ep, struct request *r,
                         struct gpulet **ret_kick)
{
    const struct route *rt = epoch_route(ep, r->served);
    struct shape_key key;

    if (!rt)
        return err_set(&r->err, -ENOENT, "model '%s' is not loaded any more", r->served->spec.name);
    int rc = served_adopt(rt, r);
    if (rc == 0)
        rc = request_key(rt, r, &key);
    return rc < 0 ? rc : route_push(e, rt, r, &key, ret_kick);
}

void engine_wake(struct engine *e, struct wakes *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        gpulet_kick(w->gpulet[i]);
    if (w->epoch)
        epoch_put(e, w->epoch);
    *w = (struct wakes){0};
}

int engine_submit_later(struct engine *e, struct request *r, struct wakes *w)
{
    struct epoch *ep = epoch_pin(e);
    struct gpulet *kick = NULL;

    if (w->epoch != ep) { /* what is woken later must still be there */
        engine_wake(e, w);
        w->epoch = epoch_ref(e, ep);
    }
    if (r->arrival_us == 0)
        r->arrival_us = clock_now_us();
    if (r->deadline_us == 0)
        r->deadline_us = r->arrival_us + e->cfg.timeout_us;
    r->fate = FATE_NONE;
    atomic_store_explicit(&r->epoch, ep, memory_order_relaxed); /* the pin goes with the request */
    demand_count(e, r->served);
    (void)atomic_fetch_add(&e->pending, 1);
    int rc = submit_pinned(e, ep, r, &kick);
    if (rc < 0) {
        (void)atomic_fetch_sub(&e->pending, 1);
        r->epoch = NULL;
        r->rc = rc;
        epoch_put(e, ep);
        refused(r->served, rc == -EAGAIN ? r->refusal : REFUSED_ELSE);
        return rc;
    }
    if (kick) /* r may be gone */
        w->gpulet[w->n++] = kick;
    if (++w->n_requests == WAKE_REQUESTS_MAX)
        engine_wake(e, w);
    return 0;
}

int engine_submit(struct engine *e, struct request *r)
{
    struct wakes w = {0};
    int rc = engine_submit_later(e, r, &w);

    engine_wake(e, &w);
    return rc;
}

/* When the request completes r->epoch goes first, by its executor, and then the pin, under e->lock:
 * an epoch that is there can be pinned.  What it pins is looked at without e->lock. */
bool engine_withdraw(struct engine *e, struct request *r)
{
    (void)pthread_mutex_lock(&e->lock);
    struct epoch *ep = atomic_load_explicit(&r->epoch, memory_order_relaxed);
    if (ep)
        ep->refs++;
    (void)pthread_mutex_unlock(&e->lock);
    if (!ep)
        return false;
    bool mine = gpulet_withdraw(r->gpulet, r);
    (void)pthread_mutex_lock(&e->lock);
    if (mine) {
        epoch_put_locked(e, r->epoch, 1);
        r->epoch = NULL;
    }
    epoch_put_locked(e, ep, 1);
    (void)pthread_mutex_unlock(&e->lock);
    if (mine) {
        r->fate = FATE_WITHDRAWN;
        (void)atomic_fetch_sub(&e->pending, 1);
    }
    return mine;
}

/* ---- watching */
/* Milliseconds by which a call is overdue. */
static uint64_t overdue_ms(struct watch *w)
{
    usec_t due_us = atomic_load_explicit(&w->due_us, memory_order_acquire);
    usec_t now_us = clock_now_us();

    return due_us == 0 || due_us >= now_us ? 0 : (now_us - due_us) / USEC_PER_MSEC + 1;
}

int engine_health(struct engine *e, struct err *err)
{
    uint64_t ms = overdue_ms(&e->watch);
    int r = 0;

    if (ms)
        r = err_set(err, -ETIMEDOUT, "the builder is overdue from %s by %llu ms",
                    atomic_load(&e->watch.what), (unsigned long long)ms);
    if (r == 0 && (ms = overdue_ms(&e->stress_watch)))
        r = err_set(err, -ETIMEDOUT, "the stressor is overdue from %s by %llu ms",
                    atomic_load(&e->stress_watch.what), (unsigned long long)ms);
    (void)pthread_mutex_lock(&e->lock);
    for (struct gpulet *g = e->gpulets; g && r == 0; g = g->next)
        if ((ms = overdue_ms(&g->watch)))
            r = err_set(err, -ETIMEDOUT, "gpu-let %u is overdue from %s by %llu ms", g->id,
                        atomic_load(&g->watch.what), (unsigned long long)ms);
    if (e->lost.code < 0) {
        r = e->lost.code;
        if (err)
            *err = e->lost;
    }
    (void)pthread_mutex_unlock(&e->lock);
    return r;
}
