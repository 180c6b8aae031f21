/* What one gpu-let of each size can do for each model: the numbers that all packing starts from.
 *
 * A cell is the best batch and number of streams at which a model keeps the latency rule alone in
 * a gpu-let of that size, and the requests/s that this serves.  The cheapest cell (price of its
 * granules for each request/s) is where saturated pieces go, and the fluid bound.
 *
 * On a device where neighbours disturb each other cells are made twice: alone, and then beside
 * the average of what the first round chose, spread over the granules that are left. */
#include "make_priv.h"
#include <math.h>

#define EVEN 0.97 /* of the most rows a second: what profiles are off by */

static const struct pressure nobody;

const struct solo *solo_of(struct job *j, uint32_t model, uint32_t type, uint32_t units,
                           uint32_t streams, uint32_t rows)
{
    uint32_t h = ((model * 31 + type) * 31 + units) * 31 + streams;
    struct solo_slot *s = &j->solo[(h * 37 + rows) * 2654435761u >> 22];

    if (s->of.rows != rows || s->of.model != model || s->of.units != units ||
        s->of.streams != streams || s->of.type != type) {
        struct load me = {&j->p->model[model].profile[type], rows, units, streams, 1.0};
        s->of.model = model;
        s->of.type = type;
        s->of.units = units;
        s->of.streams = streams;
        s->of.rows = rows;
        s->runs = load_solo(&j->p->type[type].predict, &me, &s->solo);
    }
    return s->runs ? &s->solo : NULL;
}

bool ask(struct job *j, uint32_t model, uint32_t type, uint32_t units, uint32_t streams,
         uint32_t rows, const struct pressure *pr, struct estimate *ret)
{
    const struct solo *solo = solo_of(j, model, type, units, streams, rows);

    j->steps++;
    if (!solo)
        return false;
    pressure_of(&j->p->type[type].predict, solo, pr, ret);
    return true;
}

/* The longest run that the rule allows a share by itself; under RULE_QUEUE the one that is planned
 * for, as half of the SLO goes to waiting, but only the SLO itself is sure for a bound. */
double run_limit_us(const struct job *j, double slo_us)
{
    if (j->p->rules.rule == RULE_PART)
        return slo_part(&j->p->rules) * slo_us;
    return j->for_bound && j->p->rules.rule == RULE_QUEUE ? slo_us : slo_us / 2;
}

/* The largest batch whose run keeps the limit; 0: none.  Runs never get shorter with more rows and
 * are close to a line in them: along it from a guess, and by halves if that takes too long. */
static uint32_t batch_within(struct job *j, uint32_t m, uint32_t type, uint32_t units, uint32_t s,
                             uint32_t guess, const struct pressure *pr)
{
    double limit_us = fmin(run_limit_us(j, j->want[m].slo_us), 1e15);
    uint32_t lo = 0, hi = j->p->model[m].max_batch + 1, mid = guess ? guess : (hi + 1) / 2;
    double at = 0, us = 0; /* the point before */

    for (int step = 0; lo + 1 < hi; step++) {
        struct estimate e = {.run_us = 2 * limit_us};
        mid = MAX(MIN(mid, hi - 1), lo + 1);
        bool runs = ask(j, m, type, units, s, mid, pr, &e);
        if (runs && within(e.run_us, limit_us))
            lo = mid;
        else
            hi = mid;
        double slope = mid != at && e.run_us != us ? (e.run_us - us) / (mid - at) : 0;
        double to = slope > 0 ? floor(mid + (limit_us - e.run_us) / slope) : 0;
        at = mid;
        us = e.run_us;
        bool along = runs && step < 4 && to > 0 && to < 1e9;
        mid = along ? (uint32_t)to : (lo + hi) / 2;
        mid = along && mid == lo ? lo + 1 : mid;
    }
    return lo;
}

static void cell_try(struct job *j, uint32_t m, uint32_t type, uint32_t units, uint32_t s,
                     uint32_t rows, const struct pressure *pr, struct cell *best)
{
    struct estimate e;

    if (!ask(j, m, type, units, s, rows, pr, &e) || !(e.hold_us > 0))
        return;
    double us = j->p->rules.rule == RULE_CYCLE ? e.run_us : e.hold_us;
    double rps = 1e6 * rows * s / us;
    if (rps > best->rps)
        *best = (struct cell){rps, rows, s, rows};
}

/* Of the table's batches that are as good as the best the smallest.  Where runs follow each other
 * everybody else waits for a long one, and which of two is ahead by a little is noise. */
static struct cell cell_shortest(struct job *j, uint32_t m, uint32_t type, uint32_t units,
                                 uint32_t s, const struct pressure *pr, const struct cell *best)
{
    const struct profile *f = &j->p->model[m].profile[type];

    for (uint32_t i = 0; i < f->n_batch && f->batch[i] < best->batch; i++) {
        struct cell c = {0};
        cell_try(j, m, type, units, s, f->batch[i], pr, &c);
        if (c.rps >= EVEN * best->rps)
            return c;
    }
    return *best;
}

/* Between two points of a table rows/run has its best at an end; a curve is looked at everywhere.
 * Beside neighbours only the batch that is best alone is tried, and the largest that holds. */
static struct cell cell_make(struct job *j, uint32_t m, uint32_t type, uint32_t units, uint32_t s,
                             uint32_t *guess, const struct pressure *pr)
{
    const struct profile *f = &j->p->model[m].profile[type];
    uint32_t most = batch_within(j, m, type, units, s, *guess, pr);
    struct cell best = {0};

    *guess = most;
    if (most == 0)
        return best;
    cell_try(j, m, type, units, s, most, pr, &best);
    if (f->curve)
        for (uint32_t b = 1; b < most; b++)
            cell_try(j, m, type, units, s, b, pr, &best);
    for (uint32_t i = f->curve ? 0 : f->n_batch; i-- > 0;) {
        if (f->batch[i] >= most)
            continue;
        cell_try(j, m, type, units, s, f->batch[i], pr, &best);
        if (f->batch[i] * 4 < best.batch)
            break; /* far below the best, and it has only fallen */
    }
    return j->p->type[type].in_turn ? cell_shortest(j, m, type, units, s, pr, &best) : best;
}

struct pressure field_beside(const struct kind *k, uint32_t granules)
{
    struct pressure pr = k->field;
    double beside = (double)(k->t->n_granules - granules);

    if (!k->crowded || beside <= 0)
        return nobody;
    for (uint32_t i = 0; i < PRESSURE_KINDS; i++)
        pr.sum[i] = (int64_t)((double)pr.sum[i] * beside);
    return pr;
}

/* The same cells beside average neighbours. */
static void cells_beside(struct job *j, uint32_t m, uint32_t type)
{
    const struct kind *k = &j->kind[type];

    for (uint32_t at = 0; at < k->n_sizes; at++) {
        struct cell *c = cell_of(j, m, type, at), now = {0};
        struct pressure pr = field_beside(k, k->size[at]);
        uint32_t units = k->size[at] * k->t->granule_units;
        if (c->batch == 0 || k->size[at] == k->t->n_granules)
            continue;
        uint32_t most = batch_within(j, m, type, units, c->streams, c->batch, &pr);
        if (most)
            cell_try(j, m, type, units, c->streams, MIN(most, c->batch), &pr, &now);
        now.most = c->most;
        *c = now;
    }
}

static void cells_of_type(struct job *j, uint32_t m, uint32_t type, bool crowd)
{
    const struct kind *k = &j->kind[type];
    uint32_t streams = MAX(j->p->rules.max_streams, 1u);
    const struct profile *f = &j->p->model[m].profile[type];

    if (crowd) {
        cells_beside(j, m, type);
        return;
    }
    if (f->n_streams)
        streams = MIN(streams, f->streams[f->n_streams - 1]);
    for (uint32_t at = 0; at < k->n_sizes; at++)
        *cell_of(j, m, type, at) = (struct cell){0};
    for (uint32_t s = 1; s <= (f->n_streams ? streams : 1); s++) {
        uint32_t guess = 0;
        for (uint32_t at = 0; at < k->n_sizes; at++) {
            struct cell c =
                cell_make(j, m, type, k->size[at] * k->t->granule_units, s, &guess, &nobody);
            if (c.rps > cell_of(j, m, type, at)->rps * (1 + 1e-9))
                *cell_of(j, m, type, at) = c;
        }
    }
}

/* ---- RULE_QUEUE: how much of that the arrivals leave */

/* At some sizes, and between them on a line. */
static void cells_queue(struct job *j, uint32_t m, uint32_t type)
{
    const struct kind *k = &j->kind[type];
    uint32_t step = k->n_sizes / 3 + 1, from = 0, to = 0;
    double part_from = 0, part_to = 0;

    for (uint32_t at = 0; at < k->n_sizes; at++) {
        struct cell *c = cell_of(j, m, type, at);
        if (c->batch == 0)
            continue;
        if (part_to == 0 || at > to) {
            bool first = part_to == 0;
            from = to;
            part_from = part_to;
            to = first ? at : MIN(at + step - 1, k->n_sizes - 1);
            part_to = queue_cell_part(j, m, type, to);
            if (first) {
                from = to;
                part_from = part_to;
            }
        }
        double x = to > from ? (double)(at - from) / (to - from) : 1;
        c->rps *= at == to ? part_to : part_from + x * (part_to - part_from);
        if (!(c->rps > 0))
            *c = (struct cell){0};
    }
}

/* ---- of a model */

/* Its cells, and the cheapest of them; false: there is none. */
static bool cells_choose(struct job *j, uint32_t m, bool crowd, bool queue)
{
    struct want *w = &j->want[m];

    w->cost = INFINITY;
    w->type = PLAN_NONE;
    for (uint32_t t = 0; t < j->p->n_types; t++) {
        const struct kind *k = &j->kind[t];
        if (!k->has_devices)
            continue;
        cells_of_type(j, m, t, crowd);
        if (queue)
            cells_queue(j, m, t);
        for (uint32_t at = 0; at < k->n_sizes; at++) {
            double rps = cell_of(j, m, t, at)->rps;
            double cost = rps > 0 ? k->price * k->size[at] / rps : INFINITY;
            if (cost < w->cost * (1 - 1e-9)) {
                w->cost = cost;
                w->type = t;
                w->at = at;
            }
        }
    }
    return w->type != PLAN_NONE;
}

static bool any_field(const struct job *j)
{
    for (uint32_t t = 0; t < j->p->n_types; t++)
        if (j->kind[t].crowded && j->kind[t].has_field)
            return true;
    return false;
}

void want_make(struct job *j, uint32_t m)
{
    const struct plan_model *model = &j->p->model[m];
    struct want *w = &j->want[m];

    if (j->cell[m] == j->no_cell) {
        struct cell *cell = ARENA_ARRAY(j->a, struct cell, j->cells);
        j->full |= !cell;
        j->cell[m] = cell ? cell : j->no_cell;
    }
    w->ready = true;
    w->guessed = !(model->rate_rps > 0);
    w->slo_us = model->slo_us ? (double)model->slo_us : INFINITY;
    bool queue = j->p->rules.rule == RULE_QUEUE, field = any_field(j);
    j->for_bound = queue;
    w->hopeless = !cells_choose(j, m, false, false);
    w->least = w->fluid = 0;
    if (!w->hopeless)
        bound_make(j, m);
    j->for_bound = false;
    if (queue && !w->hopeless)
        w->hopeless = !cells_choose(j, m, false, !field);
    if (w->hopeless) { /* no size keeps its SLO: it is served as it comes */
        w->slo_us = INFINITY;
        (void)cells_choose(j, m, false, queue && !field);
    }
    if (field && w->type != PLAN_NONE && !cells_choose(j, m, true, queue))
        (void)cells_choose(j, m, false, queue); /* only alone on a device, perhaps */
    /* Without a rate: as much of each model as an equal part of the devices' time gives. */
    double rps = w->type == PLAN_NONE ? 0 : cell_of(j, m, w->type, w->at)->rps;
    double guess_rps = j->p->rules.rule == RULE_CYCLE ? rps * 0.01 : 0;
    w->rate_rps = (w->guessed ? guess_rps : model->rate_rps) * j->scale;
}

/* ---- types */

static void sizes_add(struct kind *k, uint32_t n)
{
    uint32_t i = 0;

    while (i < k->n_sizes && k->size[i] < n)
        i++;
    if ((i < k->n_sizes && k->size[i] == n) || k->n_sizes == SIZES_MAX)
        return;
    memmove(&k->size[i + 1], &k->size[i], (k->n_sizes - i) * sizeof(*k->size));
    k->size[i] = n;
    k->n_sizes++;
}

static bool size_allowed(const struct plan_type *t, uint32_t n)
{
    bool listed = t->n_sizes == 0, placed = t->n_places == 0;

    for (uint32_t i = 0; i < t->n_sizes; i++)
        listed |= t->size[i] == n;
    for (uint32_t i = 0; i < t->n_places; i++)
        placed |= t->place[i].n == n;
    return listed && placed && n <= t->n_granules && (!t->max_granules || n <= t->max_granules);
}

/* All sizes there are, or, of very many, small ones and then some: the largest is among them. */
static void sizes_make(struct kind *k)
{
    uint32_t most = k->t->n_granules, step = 1;

    while (most > 0 && !size_allowed(k->t, most))
        most--;
    if (most)
        sizes_add(k, most);
    for (uint32_t n = 1; n < most; n += step) {
        if (size_allowed(k->t, n))
            sizes_add(k, n);
        step = most <= SIZES_MAX ? 1 : 1 + n * 6 / SIZES_MAX;
    }
}

/* The average of what all models do at their cheapest, by the granules that they take. */
static void field_make(struct job *j, uint32_t type)
{
    struct kind *k = &j->kind[type];
    double sum[PRESSURE_KINDS] = {0}, granules = 0;
    uint32_t step = j->p->n_models / 64 + 1; /* a sample of a large problem is as good */

    for (uint32_t m = 0; m < j->p->n_models; m += step) {
        want_make(j, m);
        const struct want *w = &j->want[m];
        if (w->type != type)
            continue;
        const struct cell *c = cell_of(j, m, type, w->at);
        struct load l = {&j->p->model[m].profile[type], c->batch,
                         k->size[w->at] * k->t->granule_units, c->streams, 1.0};
        struct solo s;
        struct pressure pr = {0};
        if (!load_solo(&k->t->predict, &l, &s))
            continue;
        double share = j->p->model[m].rate_rps / c->rps;
        share = share > 0 ? share : 1;
        pressure_add(&k->t->predict, &pr, &s, 1.0);
        for (uint32_t i = 0; i < PRESSURE_KINDS; i++)
            sum[i] += share * (double)pr.sum[i];
        granules += share * k->size[w->at];
        j->want[m].ready = false;
    }
    for (uint32_t i = 0; i < PRESSURE_KINDS && granules > 0; i++)
        k->field.sum[i] = (int64_t)(0.9 * sum[i] / granules);
    k->has_field = true;
}

int kinds_make(struct job *j)
{
    j->kind = ARENA_ARRAY(j->a, struct kind, j->p->n_types);
    if (!j->kind)
        return -ENOMEM;
    j->cells = 0;
    for (uint32_t t = 0; t < j->p->n_types; t++) {
        struct kind *k = &j->kind[t];
        k->t = &j->p->type[t];
        k->crowded = k->t->predict.interference.kind != INTERFERE_NONE;
        k->price = (k->t->price > 0 ? k->t->price : 1.0) / k->t->n_granules;
        sizes_make(k);
        k->harm = bound_harm(j->p, t, k);
        k->cell_at = j->cells;
        j->cells += k->n_sizes;
    }
    for (uint32_t d = 0; d < j->p->n_devices; d++)
        j->kind[j->p->device[d].type].has_devices = j->kind[j->p->device[d].type].n_sizes > 0;
    return 0;
}

/* After j->want and j->cell are there. */
void fields_make(struct job *j)
{
    for (uint32_t t = 0; t < j->p->n_types; t++)
        if (j->kind[t].crowded)
            field_make(j, t);
}
