/* What a precision costs: a model's outputs in fp16 or bf16 against those in FP32.
 *
 * Once after a load, while nothing comes, as other things are measured (profile.c): the model is
 * compiled in FP32 in a partition of its own, answers inputs that are made up, and is closed; then
 * the same in its own precision.  So FP32's weights are there for a moment only.  A request that
 * comes, or work for the builder, ends it at the next segment; then it is begun anew when there is
 * peace, later each time, so that other things are measured, too.  What was found is kept with the
 * profile.  While it is under way a file says so (begun.c): a run may end the process.
 *
 * As few rows as make short runs, and no more memory than a small part of that of requests.  An
 * index that is made up may be out of range: then all integers are zero. */
#include "engine_priv.h"

#include <stdio.h>

#define ROWS_MOST 8
#define RUN_MOST_US (10 * USEC_PER_SEC) /* of one row: longer ones are not made unasked */
#define BYTES_MOST ((size_t)64 << 20)   /* of inputs, and of outputs of both */
#define POOL_PART 8                     /* of the memory of requests at most */
#define RETRY_US (30 * USEC_PER_SEC)    /* after one that was cut off; then twice as long, */
#define RETRY_MOST 16                   /* up to so many times that */
#define TRIES_MOST 3                    /* that fail by what passes */

/* One comparison under way. */
struct comparison {
    struct engine *e;
    struct loaded *l;
    uint64_t arrived;
    uint32_t rows;
    bool zeros;
    bool lost; /* the device, by a run or before it */
    struct granules set;
    struct arena arena;
    struct bound *bound;
    struct slab *slab;
    const void *in[MAX_IO];
    struct side {
        void *out[MAX_IO];         /* where a run puts them */
        struct tensor got[MAX_IO]; /* where they are, and their shapes */
        void *late;                /* memory of those that the backend keeps */
    } side[2];
};

static size_t bytes_most(const struct engine *e)
{
    return MIN(BYTES_MOST, e->cfg.host_bytes / POOL_PART);
}

/* ---- rows and memory */

/* Of tensors that are there before a run. */
static size_t value_bytes(const struct comparison *c, uint32_t value)
{
    return c->bound->late_value[value] ? 0 : align_up(c->bound->value[value].bytes, 64);
}

static size_t all_bytes(const struct comparison *c)
{
    const struct graph *g = c->l->graph;
    size_t bytes = 0;

    for (uint32_t i = 0; i < g->n_in; i++)
        bytes += value_bytes(c, g->in[i]);
    for (uint32_t i = 0; i < g->n_out; i++)
        bytes += ARRAY_SIZE(c->side) * value_bytes(c, g->out[i]);
    return bytes;
}

static int bind_rows(struct comparison *c, struct err *err)
{
    struct shape_key key = c->l->warm;

    if (loaded_batches(c->l))
        key.dim[c->l->graph->batch_sym] = c->rows;
    return graph_bind(c->l->graph, &key, &c->arena, &c->bound, err);
}

/* As many rows as are quick and small. */
static int choose_rows(struct comparison *c, usec_t most_us, struct err *err)
{
    const struct profile *p = &c->l->profile;
    uint32_t units = granules_count(&c->set) * c->e->device[0].info.granule_units;
    size_t most = bytes_most(c->e), bytes;

    c->rows = MIN(ROWS_MOST, p->batch[p->n_batch - 1]);
    while (c->rows > 1 && predict_run_us(p, c->rows, units) > most_us)
        c->rows /= 2;
    if (predict_run_us(p, c->rows, units) > RUN_MOST_US)
        return err_set(err, -EFBIG, "a run of one row takes %.0f s, the limit is %u",
                       (double)predict_run_us(p, c->rows, units) / USEC_PER_SEC,
                       (unsigned)(RUN_MOST_US / USEC_PER_SEC));
    int r = bind_rows(c, err);
    while (r == 0 && (bytes = all_bytes(c)) > most && c->rows > 1) {
        c->rows /= 2;
        r = bind_rows(c, err);
    }
    return r == 0 && bytes > most
               ? err_set(err, -EFBIG,
                         "inputs and outputs of one row have %zu bytes, the limit is %zu", bytes,
                         most)
               : r;
}

static int take_memory(struct comparison *c, struct err *err)
{
    const struct graph *g = c->l->graph;
    size_t bytes = all_bytes(c);
    int r = slab_new(c->e->pool, MAX(bytes, 64), &c->slab);

    if (r < 0)
        return err_set(err, r, "no memory for inputs and outputs of %zu bytes", bytes);
    char *at = c->slab->data;
    for (uint32_t i = 0; i < g->n_in; at += value_bytes(c, g->in[i++]))
        c->in[i] = at;
    for (unsigned s = 0; s < ARRAY_SIZE(c->side); s++)
        for (uint32_t i = 0; i < g->n_out; at += value_bytes(c, g->out[i++]))
            c->side[s].out[i] = at;
    return 0;
}

/* ---- answers */

/* Outputs whose shapes the run decided, copied: the backend's go with the slot. */
static int keep_late(struct comparison *c, struct side *s, const struct slot *slot, struct err *err)
{
    uint32_t n = c->l->graph->n_out;
    size_t bytes = 0, most = bytes_most(c->e), at = 0;

    c->e->b->outputs(slot, s->got);
    for (uint32_t i = 0; i < n; i++)
        bytes += MIN(align_up(s->got[i].bytes, 64), most + 1);
    if (bytes > most)
        return err_set(err, -EFBIG, "outputs of more than %zu bytes", most);
    s->late = malloc(bytes + 1);
    if (!s->late)
        return err_set(err, -ENOMEM, "no memory for outputs of %zu bytes", bytes);
    for (uint32_t i = 0; i < n; at += align_up(s->got[i++].bytes, 64)) {
        void *to = (char *)s->late + at;
        if (s->got[i].bytes)
            memcpy(to, s->got[i].data, s->got[i].bytes);
        s->got[i].data = to;
    }
    return 0;
}

static int keep(struct comparison *c, struct side *s, const struct trial *t, struct err *err)
{
    const struct graph *g = c->l->graph;
    struct exe_info info;

    c->e->b->exe_info(t->exe, &info);
    if (info.late_outputs)
        return keep_late(c, s, t->slot, err);
    for (uint32_t i = 0; i < g->n_out; i++) {
        s->got[i] = c->bound->value[g->out[i]];
        s->got[i].data = s->out[i];
    }
    return 0;
}

static int answer(struct comparison *c, struct side *s, enum precision precision, struct err *err)
{
    struct io_part part = {.rows = c->rows, .in = c->in, .out = s->out};
    struct io io = {.n_parts = 1, .part = &part, .best_effort = true};
    struct trial t;
    int r = peace(c->e, c->arrived);

    if (r < 0)
        return r;
    r = trial_open(c->e, c->l, precision, c->rows, &c->set, &t, err);
    if (r == 0)
        r = trial_answer(&t, &io, c->arrived, err);
    if (r == 0)
        r = keep(c, s, &t, err);
    if (r < 0 && t.part)
        c->lost |= c->e->b->fault(t.part) >= FAULT_DEVICE;
    trial_close(&t);
    return r == 0 || r == -ECANCELED ? r : err_wrap(err, "in %s: ", precision_name(precision));
}

static int make_up(struct comparison *c, struct err *err)
{
    void *to[MAX_IO];

    for (uint32_t i = 0; i < c->l->graph->n_in; i++)
        to[i] = (void *)(uintptr_t)c->in[i];
    int r = inputs_make_up(c->bound, ACCURACY_SEED, c->zeros, &c->arena, to);
    return r == -ENOTSUP ? err_set(err, r, "inputs that hold strings are not made up")
           : r < 0       ? err_set(err, r, "out of memory")
                         : 0;
}

static int both_answer(struct comparison *c, struct err *err)
{
    int r = make_up(c, err);

    if (r == 0)
        r = answer(c, &c->side[0], PRECISION_FP32, err);
    if (r == -EINVAL && !c->zeros) {
        c->zeros = true;
        return both_answer(c, err);
    }
    return r < 0 ? r : answer(c, &c->side[1], c->l->precision, err);
}

/* ---- what it says */

static void publish(struct engine *e, struct loaded *l, const struct accuracy *a)
{
    (void)pthread_mutex_lock(&e->lock);
    l->accuracy = *a;
    (void)pthread_mutex_unlock(&e->lock);
}

static void tell(struct engine *e, const struct loaded *l, const struct accuracy *a)
{
    uint32_t worst = accuracy_worst(a);
    const struct accuracy_output *o = &a->out[worst];
    const char *name = l->graph->values[l->graph->out[worst]].name,
               *is = precision_name(l->precision);
    char top[64] = "";

    if (o->same_top >= 0)
        (void)snprintf(top, sizeof(top), "; %.4g %% of rows have the same largest entry",
                       100 * o->same_top);
    if (o->n_overflowed)
        event_put(e, 4, "accuracy", l->name, l->version, PLAN_NONE,
                  "output '%.60s': %llu of %llu entries are not finite in %s, but in fp32: numbers "
                  "are too large%s",
                  name, (unsigned long long)o->n_overflowed, (unsigned long long)o->n, is, top);
    else if (accuracy_why(o->kind)[0])
        event_put(e, 5, "accuracy", l->name, l->version, PLAN_NONE,
                  "output '%.60s' cannot be compared with fp32: %s", name, accuracy_why(o->kind));
    else if (o->kind == ACCURACY_EQUAL)
        event_put(e, 6, "accuracy", l->name, l->version, PLAN_NONE,
                  "%s against fp32, %u rows: %.4g %% of output '%.60s' are equal", is, a->rows,
                  100 * o->same, name);
    else
        event_put(
            e, 6, "accuracy", l->name, l->version, PLAN_NONE,
            "%s against fp32, %u rows: output '%.60s' is off by %.2g of its largest magnitude "
            "at most, by %.2g of its size%s",
            is, a->rows, name, o->max_error, o->rms_error, top);
}

static int judge(struct comparison *c, struct accuracy *ret, struct err *err)
{
    uint32_t n = c->l->graph->n_out;
    struct accuracy_output *out = ARENA_ARRAY(&c->l->arena, struct accuracy_output, n);

    if (!out)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++)
        accuracy_of(&c->side[0].got[i], &c->side[1].got[i], &out[i]);
    *ret = (struct accuracy){.rows = c->rows, .zeros = c->zeros, .n_out = n, .out = out};
    return 0;
}

static void known(struct engine *e, struct loaded *l, const struct accuracy *a)
{
    publish(e, l, a);
    tell(e, l, a);
    l->n_unsaved++;
    profile_publish(e, l);
}

static void failed(struct engine *e, struct loaded *l, int r, const struct err *err)
{
    const char *msg = err->msg[0] ? err->msg : strerror(-r);
    const char *why = arena_strdup(&l->arena, msg);

    publish(e, l, &(struct accuracy){.why = why ? why : "out of memory"});
    event_put(e, 4, "accuracy", l->name, l->version, PLAN_NONE,
              "%s cannot be compared with fp32: %s", precision_name(l->precision), msg);
}

/* ---- when */

static bool is_compared(const struct loaded *l)
{
    return (l->precision == PRECISION_FP16 || l->precision == PRECISION_BF16) &&
           l->graph->n_out > 0;
}

static int compare(struct comparison *c, usec_t most_us, struct accuracy *ret, struct err *err)
{
    const struct device_info *d = &c->e->device[0].info;
    uint32_t n = d->max_granules ? MIN(d->max_granules, d->n_granules) : d->n_granules;

    for (uint32_t i = 0; i < n; i++)
        granules_add(&c->set, i);
    int r = choose_rows(c, most_us, err);
    if (r == 0)
        r = take_memory(c, err);
    if (r == 0)
        r = begun_mark(c->e, c->l, err);
    if (r == 0)
        r = both_answer(c, err);
    return r < 0 ? r : judge(c, ret, err);
}

static void comparison_done(struct comparison *c)
{
    for (unsigned s = 0; s < ARRAY_SIZE(c->side); s++)
        free(c->side[s].late);
    slab_put(c->slab);
    arena_done(&c->arena);
    if (!c->lost && !atomic_load(&c->e->device[0].lost)) /* else the process is about to leave */
        begun_clear(c->e, c->l);
}

static void later(struct engine *e, struct loaded *l)
{
    usec_t first_us = e->cfg.retry_us ? e->cfg.retry_us : RETRY_US, was_us = l->comparing.wait_us;

    l->comparing.wait_us = was_us ? MIN(2 * was_us, RETRY_MOST * first_us) : first_us;
    l->comparing.due_us = clock_now_us() + l->comparing.wait_us;
}

/* -ENODEV passes elsewhere, not here: these inputs may cost the next partition its life, too. */
static bool tried_again(struct loaded *l, int r)
{
    return rc_passes(r) && r != -ENODEV && ++l->comparing.n_failed < TRIES_MOST;
}

static void ended(struct engine *e, struct loaded *l, int r, const struct err *err)
{
    if (r == -ECANCELED || tried_again(l, r))
        later(e, l);
    else
        failed(e, l, r, err);
    if (r != -ECANCELED && !l->accuracy.why)
        event_put(e, 6, "accuracy", l->name, l->version, PLAN_NONE,
                  "%s is compared with fp32 later: %s", precision_name(l->precision),
                  err->msg[0] ? err->msg : strerror(-r));
}

bool accuracy_refine(struct engine *e, struct loaded *l, usec_t most_us)
{
    struct comparison c = {.e = e, .l = l};
    struct accuracy a;
    struct err err = {0};

    if (!is_compared(l) || l->accuracy.n_out || l->accuracy.why ||
        clock_now_us() < l->comparing.due_us)
        return false;
    c.arrived = arrived(e);
    arena_init(&c.arena);
    int r = compare(&c, most_us, &a, &err);
    comparison_done(&c);
    if (r == 0)
        known(e, l, &a);
    else
        ended(e, l, r, &err);
    return true;
}

void accuracy_begin(struct engine *e, struct loaded *l, bool as_before)
{
    struct err err;

    if (!begun_found(e, l))
        return;
    if (as_before && is_compared(l) && !l->accuracy.n_out)
        failed(e, l, err_set(&err, -ECANCELED, "the process ended while it was compared"), &err);
    else
        begun_clear(e, l);
}

void accuracy_restore(struct loaded *l, const struct accuracy *kept)
{
    struct accuracy a = *kept;

    if (!is_compared(l) || kept->n_out != l->graph->n_out)
        return;
    a.out = arena_memdup(&l->arena, kept->out, kept->n_out * sizeof(*kept->out));
    if (a.out)
        l->accuracy = a;
}

int accuracy_view(struct engine *e, const struct loaded *l, struct arena *a,
                  const struct accuracy **ret)
{
    struct accuracy *copy = is_compared(l) ? ARENA_ARRAY(a, struct accuracy, 1) : NULL;

    *ret = copy;
    if (!copy)
        return is_compared(l) ? -ENOMEM : 0;
    (void)pthread_mutex_lock(&e->lock);
    *copy = l->accuracy; /* what it points to does not change, but goes with l */
    (void)pthread_mutex_unlock(&e->lock);
    copy->out = arena_memdup(a, copy->out, copy->n_out * sizeof(*copy->out));
    copy->why = arena_strdup(a, copy->why ? copy->why : "");
    return copy->why && (copy->out || !copy->n_out) ? 0 : -ENOMEM;
}
