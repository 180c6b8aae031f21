/* What a model costs on its device: measured, kept, read again.
 *
 * A point is a batch and a size (units of a gpu-let).  Before a model's first plan at most
 * FIRST_POINTS of them are measured, each in a partition of its own that is closed again: the ends
 * of both axes, then what halves the largest gaps, sizes before batches; FIRST_ROWS where a device
 * has gpu-lets of one size only.
 *
 * Later, while nothing comes and with short runs only, one point after the other is added; and what
 * serving shows (struct residual) goes into the points of the seats.
 *
 * What was measured is published as a text, which the daemon keeps; a model that is loaded again
 * finds it.  Its key says for what it is good: another graph, way to compile, library, device or
 * partition mode, and it is measured anew. */
#include "engine_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define FIRST_POINTS 10
#define FIRST_ROWS 2
#define FIRST_RUN_US (USEC_PER_SEC / 5) /* without an SLO, longer runs can wait */
#define BATCH_LEVEL 2 /* runs grow with their rows nearly on a line: sizes say more */
#define IDLE_US (2 * USEC_PER_SEC)
#define REFINE_US (USEC_PER_SEC / 4) /* between two points */
#define REFINE_RUN_US                                                                              \
    (50 * USEC_PER_MSEC) /* longer runs are not made beside those that may come                    \
                          */
#define REFIT_US USEC_PER_SEC
#define REFIT_LEAST 1.03 /* a run time that is wrong by less is left as it is */
#define SLOWER 1.25      /* times what the plan counts on: there must be another */
#define PUBLISH_US (10 * USEC_PER_SEC)

/* ---- the key */
struct key_text {
    struct measured_key key;
    char graph[HASH_HEX_LEN], shape[PROBLEM_MAX_NAME], library[PROBLEM_MAX_NAME], precision[32];
};

static void key_make(const struct engine *e, const struct loaded *l, struct key_text *ret)
{
    static const char *const modes[] = {
        [MODE_CORES] = "cores", [MODE_SIM] = "sim", [MODE_MPS] = "mps",
        [MODE_GREEN] = "green", [MODE_MIG] = "mig", [MODE_SHARED] = "shared"};
    const struct device_info *d = &e->device[0].info;
    size_t n = 0;

    hash_hex(model_hash(l->model), ret->graph);
    (void)snprintf(ret->precision, sizeof(ret->precision), "%s%s", precision_name(l->precision),
                   l->batch_invariant ? ", row by row" : "");
    (void)snprintf(ret->shape, sizeof(ret->shape), "rows");
    for (uint32_t i = 0; i < l->warm.n && n + 24 < sizeof(ret->shape); i++)
        if ((int32_t)i != l->graph->batch_sym)
            n += (size_t)snprintf(ret->shape + n, sizeof(ret->shape) - n, "%s%lld", n ? "," : "",
                                  (long long)l->warm.dim[i]);
    (void)snprintf(ret->library, sizeof(ret->library), "gpuletd %s%s%s", GPULETD_VERSION,
                   d->library[0] ? ", " : "", d->library);
    ret->key = (struct measured_key){.graph = ret->graph,
                                     .precision = ret->precision,
                                     .shape = ret->shape,
                                     .backend = e->b->name,
                                     .library = ret->library,
                                     .device = d->kind,
                                     .mode = modes[d->mode]};
}

/* ---- kept from before */

/* The file's text in the arena; -ENOENT: there is none. */
static int file_read(const char *path, struct arena *a, char **ret, size_t *ret_bytes,
                     struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *text = fd < 0 ? NULL : arena_alloc(a, MEASURED_MAX_BYTES + 1);
    size_t n = 0;
    ssize_t got = 1;

    if (fd < 0)
        return err_set(err, -errno, "%s", strerror(errno));
    while (text && got > 0 && n <= MEASURED_MAX_BYTES) {
        got = read(fd, text + n, MEASURED_MAX_BYTES + 1 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    int r = !text ? -ENOMEM : got < 0 ? -errno : 0;
    (void)close(fd);
    if (r < 0)
        return err_set(err, r, "%s", strerror(-r));
    *ret = text;
    *ret_bytes = n;
    return 0;
}

static int kept_read(struct engine *e, const struct loaded *l, struct arena *a,
                     struct measured *ret, struct err *err)
{
    char *path = arena_printf(a, "%s/%s.json", e->cfg.profiles, l->name), *text = NULL;
    const char *is, *was, *differs;
    struct key_text now;
    size_t bytes = 0;

    if (!path)
        return err_set(err, -ENOMEM, "out of memory");
    int r = file_read(path, a, &text, &bytes, err);
    if (r == 0)
        r = measured_parse(text, bytes, a, ret, err);
    if (r < 0)
        return r;
    key_make(e, l, &now);
    differs = measured_differs(&ret->key, &now.key, &was, &is);
    if (differs)
        return err_set(err, -EINVAL, "it is for another %s: '%s', not '%s'", differs, was, is);
    return 0;
}

/* What is known besides points. */
static void rest_restore(struct loaded *l, const struct measured *m)
{
    l->n_beside = MIN(m->n_beside, BESIDE_MAX);
    memcpy(l->beside, m->beside, l->n_beside * sizeof(*m->beside));
    l->n_timed = m->n_segments;
    l->whole = m->whole;
    memcpy(l->segment_us, m->segment_us, l->n_timed * sizeof(*m->segment_us));
    accuracy_restore(l, &m->accuracy);
}

void profile_restore(struct engine *e, struct loaded *l)
{
    struct measured m;
    struct arena a;
    struct err err = {0};

    if (!e->cfg.profiles)
        return;
    arena_init(&a);
    int r = kept_read(e, l, &a, &m, &err);
    for (uint32_t i = 0; r == 0 && i < m.n_points; i++)
        loaded_measured(l, m.point[i].batch, m.point[i].units, m.point[i].run_us);
    if (r == 0)
        rest_restore(l, &m);
    l->n_unsaved = 0;
    l->n_kept = l->n_points;
    if (r == 0)
        event_put(e, 6, "profile", l->name, l->version, PLAN_NONE, "%u points restored",
                  l->n_points);
    else if (r != -ENOENT)
        event_put(e, 4, "profile", l->name, l->version, PLAN_NONE,
                  "what was kept is measured again: %s", err.msg);
    arena_done(&a);
}

/* ---- measuring */

/* How late halving comes to index i of n: 0 for both ends, 1 for the middle, and so on. */
static uint32_t level_of(uint32_t i, uint32_t n)
{
    uint32_t lo = 0, hi = n - 1, level = 0;

    while (i != lo && i != hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        level++;
        if (i == mid)
            break;
        *(i < mid ? &hi : &lo) = mid;
    }
    return level;
}

static bool size_exists(const struct device_info *d, uint32_t units)
{
    uint32_t n = units / d->granule_units;

    return units % d->granule_units == 0 && n >= 1 && n <= d->n_granules &&
           (d->max_granules == 0 || n <= d->max_granules);
}

/* The next point that is not measured yet and takes at most most_us, as is believed; false: there
 * is none. */
static bool point_next(const struct engine *e, const struct loaded *l, usec_t most_us,
                       struct measured_point *ret)
{
    const struct device_info *d = &e->device[0].info;
    const struct profile *p = &l->profile;
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < p->n_units * p->n_batch; i++) {
        uint32_t u = p->n_units - 1 - i / p->n_batch, b = i % p->n_batch;
        uint32_t level = level_of(u, p->n_units) + BATCH_LEVEL * level_of(b, p->n_batch);
        if (level >= best || !size_exists(d, p->units[u]) ||
            loaded_known_us(l, p->batch[b], p->units[u]) || p->run_us[u * p->n_batch + b] > most_us)
            continue;
        best = level;
        *ret = (struct measured_point){.batch = p->batch[b], .units = p->units[u]};
    }
    return best != UINT32_MAX;
}

/* hold: the trial of the last point, which this one takes the place of once it is there; else NULL.
 */
static int point_measure(struct engine *e, struct loaded *l, struct measured_point *p,
                         struct trial *hold, struct err *err)
{
    uint32_t n = p->units / e->device[0].info.granule_units;
    uint64_t ns[PROBE_RUNS], least = UINT64_MAX;
    struct granules set = {0};
    struct trial t;

    for (uint32_t i = 0; i < n; i++)
        granules_add(&set, i);
    int r = trial_open(e, l, l->precision, p->batch, &set, &t, err);
    if (r == 0)
        r = trial_run(&t, 0, t.n_segments, PROBE_RUNS, ns, err);
    for (unsigned i = 0; r == 0 && i < PROBE_RUNS; i++)
        least = MIN(least, ns[i]);
    if (hold && r == 0) {
        struct trial last = *hold;
        trial_rest(&t);
        *hold = t;
        t = last;
    }
    trial_close(&t);
    if (r == 0) {
        p->run_us = MAX(least / 1000, 1);
        loaded_measured(l, p->batch, p->units, p->run_us);
        l->n_probed++;
    }
    return r;
}

/* Where all gpu-lets are of one size only rows are to be known, by both ends. */
static uint32_t first_points(const struct engine *e, const struct loaded *l)
{
    uint32_t n = 0;

    for (uint32_t u = 0; u < l->profile.n_units; u++)
        n += size_exists(&e->device[0].info, l->profile.units[u]);
    return n > 1 ? FIRST_POINTS : FIRST_ROWS;
}

/* Runs that take longer than the SLO are not planned; one is needed to know.  Constants are
 * converted and brought to the device once: from one point to the next and until the model serves a
 * trial is there that has them. */
int profile_first(struct engine *e, struct change *c)
{
    usec_t longest_us = c->spec.slo_us ? c->spec.slo_us : FIRST_RUN_US;
    usec_t most_us = c->l->n_points ? longest_us : USEC_NEVER;
    uint32_t n = first_points(e, c->l);
    struct measured_point p;
    struct err err;

    if (!c->held)
        c->held = calloc(1, sizeof(*c->held)); /* or each point has them anew */
    if (c->n_measured >= n || c->l->n_points >= n || !point_next(e, c->l, most_us, &p) ||
        point_measure(e, c->l, &p, c->held, &err) < 0)
        return 0; /* what cannot be compiled is told by the seat that needs it */
    c->n_measured++;
    return 1;
}

/* ---- what serving shows */

/* Takes what one bucket of a seat shows, if it is enough to tell; 0: it is not. */
static usec_t seat_shows(struct seat *s, uint32_t bucket)
{
    usec_t us = 0;

    (void)pthread_mutex_lock(&s->g->lock);
    double factor = residual_factor(&s->fit[bucket]);
    if (factor > REFIT_LEAST || factor < 1 / REFIT_LEAST) {
        us = MAX((usec_t)((double)s->fit_us[bucket] * factor + 0.5), 1);
        s->fit_us[bucket] = us;
        s->fit[bucket] = (struct residual){0};
    }
    (void)pthread_mutex_unlock(&s->g->lock);
    return us;
}

static bool route_refit(const struct route *rt)
{
    bool any = false;

    for (uint32_t k = 0; k < rt->n_seats; k++)
        for (uint32_t b = 0; b < rt->seat[k]->n_buckets; b++) {
            usec_t us = seat_shows(rt->seat[k], b);
            if (us)
                loaded_measured(rt->l, bucket_rows(b, rt->seat[k]->max_batch),
                                rt->seat[k]->g->units, us);
            any |= us != 0;
        }
    return any;
}

/* Does the plan count on runs of this model that are much shorter? */
static bool plan_is_wrong(const struct engine *e, uint32_t model, usec_t *ret_us, usec_t *ret_plan)
{
    const struct plan *p = &e->epoch->plan;

    for (uint32_t k = 0; k < p->n_gpulets; k++)
        for (uint32_t i = 0; i < p->gpulet[k].n_shares; i++) {
            const struct plan_share *s = &p->gpulet[k].share[i];
            if (s->model != model)
                continue;
            *ret_us = (usec_t)(share_slowing(e->epoch, &p->gpulet[k], s) *
                               (double)predict_run_us(&e->epoch->route[model].l->profile, s->batch,
                                                      p->gpulet[k].units));
            *ret_plan = s->run_us;
            if ((double)*ret_us > SLOWER * (double)s->run_us)
                return true;
        }
    return false;
}

void profile_refit(struct engine *e, usec_t now_us, char reason[REASON_MAX])
{
    bool publish = now_us >= e->publish_due_us;
    usec_t us = 0, plan_us = 0;

    if (now_us < e->refit_due_us)
        return;
    e->refit_due_us = now_us + REFIT_US;
    for (uint32_t i = 0; i < e->epoch->n_routes; i++) {
        struct loaded *l = e->epoch->route[i].l;
        if (route_refit(&e->epoch->route[i]) && !reason[0] && plan_is_wrong(e, i, &us, &plan_us))
            (void)snprintf(reason, REASON_MAX,
                           "a run of model '%.100s' takes %.3f ms, the plan counts on %.3f",
                           l->name, (double)us / 1000, (double)plan_us / 1000);
        if (publish && l->n_unsaved) {
            profile_publish(e, l);
            e->publish_due_us = now_us + PUBLISH_US;
        }
    }
}

/* ---- more points */

static bool idle(struct engine *e, usec_t now_us)
{
    return now_us >= e->came_us + IDLE_US && now_us >= e->refine_due_us && !e->change &&
           !e->thought && atomic_load(&e->pending) == 0 && e->epoch->n_routes > 0;
}

/* False: nothing is left to be measured of this model. */
static bool points_refine(struct engine *e, struct loaded *l, usec_t most_us)
{
    struct measured_point p;
    struct err err;

    if (l->points_done)
        return false;
    if (point_next(e, l, most_us, &p) && point_measure(e, l, &p, NULL, &err) == 0)
        return true;
    l->points_done = true;
    if (l->n_unsaved)
        profile_publish(e, l);
    return false;
}

/* In this order, of all models. */
static bool (*const refines[])(struct engine *e, struct loaded *l, usec_t most_us) = {
    accuracy_refine, variants_refine, points_refine, segments_refine, neighbours_refine};

void profile_refine(struct engine *e, usec_t now_us)
{
    if (!idle(e, now_us))
        return;
    for (size_t k = 0; k < ARRAY_SIZE(refines); k++)
        for (uint32_t i = 0; i < e->epoch->n_routes; i++)
            if (refines[k](e, e->epoch->route[i].l, REFINE_RUN_US)) {
                e->refine_due_us = now_us + REFINE_US;
                e->trim = true;
                return;
            }
}

/* ---- to be read */

void profile_text_put(struct profile_text *t)
{
    if (t && atomic_fetch_sub(&t->refs, 1) == 1)
        free(t);
}

static struct profile_text *text_make(struct engine *e, struct loaded *l)
{
    struct profile_text *t = NULL;
    struct problem p;
    struct key_text k;
    struct arena a;
    char *text = NULL;

    key_make(e, l, &k);
    arena_init(&a);
    struct measured m = {.key = k.key,
                         .n_points = l->n_points,
                         .point = l->point,
                         .n_beside = l->n_beside,
                         .beside = l->beside,
                         .n_segments = l->n_timed,
                         .whole = l->whole,
                         .segment_us = l->segment_us,
                         .accuracy = l->accuracy};
    if (loaded_problem(e, l, &a, &p) == 0 && measured_print(&p, &m, &text, NULL) == 0 &&
        (t = malloc(sizeof(*t) + strlen(text) + 1))) {
        t->refs = 1;
        memcpy(t->text, text, strlen(text) + 1);
    }
    free(text);
    arena_done(&a);
    return t;
}

void profile_publish(struct engine *e, struct loaded *l)
{
    struct profile_text *t = text_make(e, l), *old;

    if (!t)
        return; /* the next time */
    (void)pthread_mutex_lock(&e->lock);
    old = l->text;
    l->text = t;
    (void)pthread_mutex_unlock(&e->lock);
    profile_text_put(old);
    if (l->n_unsaved)
        event_put(e, 6, "profile", l->name, l->version, PLAN_NONE, "%u points measured",
                  l->n_points);
    l->n_unsaved = 0;
}

int engine_profile_text(struct engine *e, const char *name, char **ret, struct err *err)
{
    struct epoch *ep = epoch_pin(e);
    const struct route *rt = epoch_find(ep, name);

    (void)pthread_mutex_lock(&e->lock);
    struct profile_text *t = rt ? rt->l->text : NULL;
    if (t)
        (void)atomic_fetch_add(&t->refs, 1);
    (void)pthread_mutex_unlock(&e->lock);
    epoch_put(e, ep);
    if (!t)
        return err_set(err, -ENOENT,
                       rt ? "nothing is measured of model '%s' yet" : "there is no model '%s'",
                       name);
    char *text = strdup(t->text);
    profile_text_put(t);
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    *ret = text;
    return 0;
}
