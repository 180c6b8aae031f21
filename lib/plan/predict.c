/* A load alone: the profile's table between its points, or iGniter's curve.
 *
 * Between the table's batches we go on a straight line in the batch; between its units on one in
 * 1/units, which is exact for work that divides (a + b/units) and, on published V100 profiles,
 * eight times closer than a line in units.  Measured tables are not quite monotone: a point
 * counts as the largest of those with no more batch and no fewer units, so that a planner never
 * finds that more rows or fewer units are faster. */
#include "interfere.h"

#include <math.h>

#define RUN_NEVER_US (UINT64_C(365) * 86400 * USEC_PER_SEC)

/* Index of the table's last point that is <= x; 0 when x is below all. */
static uint32_t floor_index(const uint32_t *at, uint32_t n, uint32_t x)
{
    uint32_t i = 0;

    while (i + 1 < n && at[i + 1] <= x)
        i++;
    return i;
}

/* A place in the table: between columns i and i+1 (batch), rows j and j+1 (units). */
struct spot {
    uint32_t s, i, j, di, dj; /* di, dj: 1 where there is a next one to go to, else 0 */
    double ti, tj;            /* how far; ti is over 1 above the last batch */
    double scale;             /* of times: what lies outside the table in proportion */
};

static struct spot find_spot(const struct profile *p, uint32_t batch, uint32_t units,
                             uint32_t streams)
{
    struct spot o = {.scale = 1.0};

    if (p->n_streams)
        o.s = floor_index(p->streams, p->n_streams, streams);
    uint32_t known = p->n_streams ? MAX(p->streams[o.s], 1u) : 1;
    if (streams > known)
        o.scale *= (double)streams / known;

    if (batch > p->batch[0] && p->n_batch == 1)
        o.scale *= (double)batch / p->batch[0];
    else if (batch > p->batch[0]) {
        o.i = MIN(floor_index(p->batch, p->n_batch, batch), p->n_batch - 2);
        o.ti = (double)(batch - p->batch[o.i]) / (p->batch[o.i + 1] - p->batch[o.i]);
        o.di = o.ti > 0;
    }

    o.j = floor_index(p->units, p->n_units, units);
    uint32_t at = p->units[o.j];
    if (units < at)
        o.scale *= (double)at / MAX(units, 1u);
    else if (units > at && o.j + 1 < p->n_units) {
        uint32_t next = p->units[o.j + 1];
        o.tj = (double)(units - at) * next / ((double)units * (next - at));
        o.dj = 1;
    }
    return o;
}

static double on_line(double t, double y0, double y1)
{
    return y0 + (y1 - y0) * t;
}

/* A time from a table of times; 0 where one of the corners does not run.  Rows are taken from the
 * most units down, lo and hi being the largest seen so far up to either column; us falls neither,
 * as beyond the last batch the lines of two rows may cross. */
static double table_us(const struct profile *p, const usec_t *table, const struct spot *o)
{
    const usec_t *at = table + (size_t)o->s * p->n_units * p->n_batch;
    uint32_t i = o->i, k = o->i + o->di;
    double us = 0, above = 0;
    usec_t lo = 0, hi = 0;

    for (uint32_t r = p->n_units; r-- > o->j;) {
        const usec_t *row = at + (size_t)r * p->n_batch;
        if (r <= o->j + o->dj && (!row[i] || !row[k]))
            return 0;
        for (uint32_t c = 0; c <= i; c++)
            lo = MAX(lo, row[c]);
        hi = MAX(hi, MAX(lo, row[k]));
        above = us;
        us = MAX(us, on_line(o->ti, (double)lo, (double)hi));
    }
    return o->scale * on_line(o->tj, us, o->dj ? above : us);
}

/* A utilisation: the mean of the corners that were measured, by how near they are. */
static double table_part(const struct profile *p, const double *table, const struct spot *o)
{
    double sum = 0, weight = 0, ti = MIN(o->ti, 1.0);

    if (!table)
        return -1;
    for (uint32_t b = 0; b <= o->di; b++)
        for (uint32_t u = 0; u <= o->dj; u++) {
            double y = table[((size_t)o->s * p->n_units + o->j + u) * p->n_batch + o->i + b];
            double w = (b ? ti : 1 - ti) * (u ? o->tj : 1 - o->tj);
            if (y >= 0 && w > 0) {
                sum += w * y;
                weight += w;
            }
        }
    return weight > 0 ? sum / weight : -1;
}

static double host_us(const struct profile *p, const struct spot *o)
{
    if (!p->host_us)
        return 0;
    return MAX(on_line(o->ti, p->host_us[o->i], p->host_us[o->i + o->di]), 0);
}

static bool has_table(const struct profile *p)
{
    return p->run_us && p->n_batch && p->n_units;
}

bool table_cell(const struct profile *p, uint32_t batch, uint32_t units, uint32_t streams,
                struct cell *ret)
{
    if (!has_table(p))
        return false;
    struct spot o = find_spot(p, batch, units, streams);

    ret->run_us = table_us(p, p->run_us, &o);
    ret->upper_us = p->upper_us ? table_us(p, p->upper_us, &o) : ret->run_us;
    ret->host_us = host_us(p, &o);
    ret->l2 = table_part(p, p->l2, &o);
    ret->dram = table_part(p, p->dram, &o);
    ret->watts = table_part(p, p->watts, &o);
    return ret->run_us > 0;
}

usec_t predict_run_us(const struct profile *p, uint32_t batch, uint32_t units)
{
    if (!has_table(p))
        return RUN_NEVER_US;
    struct spot o = find_spot(p, batch, units, 1);
    double us = table_us(p, p->run_us, &o);

    if (us <= 0 || us >= (double)RUN_NEVER_US)
        return RUN_NEVER_US;
    return us < 1.0 ? 1 : (usec_t)(us + 0.5);
}

bool predict(const struct predict_device *d, const struct load *me, const struct load *other,
             uint32_t n_other, struct estimate *ret)
{
    struct pressure p = {0};
    struct solo mine, theirs;

    *ret = (struct estimate){0};
    if (!load_solo(d, me, &mine))
        return false;
    for (uint32_t i = 0; i < n_other && d->interference.kind != INTERFERE_NONE; i++)
        if (load_solo(d, &other[i], &theirs))
            pressure_add(d, &p, &theirs, other[i].duty);
    pressure_of(d, &mine, &p, ret);
    return true;
}
