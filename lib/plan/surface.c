/* From a few measured points to a table.
 *
 * Sizes at which both ends of the batch axis were measured are rows that are known: between their
 * points runs grow on a straight line, between two rows they fall with 1/units, and a gpu-let that
 * is smaller than any of them is slower in proportion (predict.c).  Where there is no such row the
 * estimates are what is known.
 *
 * All other points say by how much that is wrong where they are, and each cell is put right by what
 * the points say, the near ones most: by the fourth power of the distance in doublings. */
#include "plan_priv.h"

#include <gpulet/predict.h>
#include <math.h>

#define ROWS 24
#define BATCHES 16
#define SIZE_WEIGHT 2.0 /* a doubling in size is as far as so many along the batch */

struct known { /* the rows, as a profile */
    uint32_t units[ROWS];
    usec_t us[ROWS * BATCHES];
    struct profile p;
};

/* The points of one size that are nearest to a batch, from below and from above. */
struct ends {
    const struct measured_point *lo, *hi;
};

static struct ends ends_find(const struct measured_point *p, uint32_t n, uint32_t batch,
                             uint32_t units)
{
    struct ends e = {0};

    for (uint32_t i = 0; i < n; i++) {
        if (p[i].units != units)
            continue;
        if (p[i].batch <= batch && (!e.lo || p[i].batch > e.lo->batch))
            e.lo = &p[i];
        if (p[i].batch >= batch && (!e.hi || p[i].batch < e.hi->batch))
            e.hi = &p[i];
    }
    return e;
}

static usec_t row_us(const struct measured_point *p, uint32_t n, uint32_t batch, uint32_t units)
{
    struct ends e = ends_find(p, n, batch, units);
    double lo_us = (double)e.lo->run_us, hi_us = (double)e.hi->run_us;

    if (e.lo->batch == e.hi->batch)
        return e.lo->run_us;
    return (usec_t)(lo_us + (hi_us - lo_us) * (batch - e.lo->batch) / (e.hi->batch - e.lo->batch) +
                    0.5);
}

static bool row_is_known(const struct profile *base, const struct measured_point *p, uint32_t n,
                         uint32_t units)
{
    return ends_find(p, n, base->batch[0], units).lo &&
           ends_find(p, n, base->batch[base->n_batch - 1], units).hi;
}

/* The smallest measured size above `units`; UINT32_MAX: none is. */
static uint32_t size_next(const struct measured_point *p, uint32_t n, uint32_t units)
{
    uint32_t next = UINT32_MAX;

    for (uint32_t i = 0; i < n; i++)
        if (p[i].units > units)
            next = MIN(next, p[i].units);
    return next;
}

/* False: there is no such row. */
static bool known_find(const struct profile *base, const struct measured_point *p, uint32_t n,
                       struct known *ret)
{
    uint32_t rows = 0, n_batch = base->n_batch;

    for (uint32_t u = 0; n_batch <= BATCHES && rows < ROWS;) {
        u = size_next(p, n, u);
        if (u == UINT32_MAX)
            break;
        if (!row_is_known(base, p, n, u))
            continue;
        for (uint32_t b = 0; b < n_batch; b++)
            ret->us[rows * n_batch + b] = row_us(p, n, base->batch[b], u);
        ret->units[rows++] = u;
    }
    ret->p = (struct profile){.n_batch = n_batch,
                              .n_units = rows,
                              .batch = base->batch,
                              .units = ret->units,
                              .run_us = ret->us};
    return rows > 0;
}

/* To the fourth power, in doublings. */
static double distance4(const struct measured_point *p, uint32_t batch, uint32_t units)
{
    double b = log((double)p->batch / batch), u = SIZE_WEIGHT * log((double)p->units / units);
    double squares = (b * b + u * u) / (log(2) * log(2));

    return squares * squares;
}

/* What the points say of a cell: truth over what is known. */
static double ratio_near(const struct profile *known, const struct measured_point *p, uint32_t n,
                         uint32_t batch, uint32_t units)
{
    double sum = 0, weight = 0;

    for (uint32_t i = 0; i < n; i++) {
        double far = distance4(&p[i], batch, units);
        usec_t us = predict_run_us(known, p[i].batch, p[i].units);
        double says = log((double)MAX(p[i].run_us, 1) / (double)us);
        if (far == 0)
            return exp(says);
        sum += says / far;
        weight += 1 / far;
    }
    return exp(sum / weight);
}

void surface_fill(const struct profile *base, const struct measured_point *p, uint32_t n,
                  usec_t *ret_us)
{
    struct known rows;
    const struct profile *known = known_find(base, p, n, &rows) ? &rows.p : base;

    for (uint32_t i = 0; n && i < base->n_units * base->n_batch; i++) {
        uint32_t batch = base->batch[i % base->n_batch], units = base->units[i / base->n_batch];
        double us = (double)predict_run_us(known, batch, units);
        us *= ratio_near(known, p, n, batch, units);
        ret_us[i] = MAX((usec_t)(us + 0.5), 1);
        /* A larger batch never takes less time, whatever two noisy measurements say. */
        if (i % base->n_batch > 0)
            ret_us[i] = MAX(ret_us[i], ret_us[i - 1]);
    }
}
