/* Prediction from a profile: bilinear between the table's points, clamped at its ends in units.
 * Beyond the largest batch the last two points are continued, so that a cap above the profiled
 * batches never looks free; the result never falls as the batch grows. */
#include <gpulet/plan.h>

/* Index of the table's last point that is <= x; 0 when x is below all. */
static uint32_t floor_index(const uint32_t *at, uint32_t n, uint32_t x)
{
    uint32_t i = 0;

    while (i + 1 < n && at[i + 1] <= x)
        i++;
    return i;
}

static double on_line(double x, double x0, double y0, double x1, double y1)
{
    return x1 > x0 ? y0 + (y1 - y0) * (x - x0) / (x1 - x0) : y0;
}

static double at_batch(const struct profile *p, uint32_t u, uint32_t batch)
{
    const usec_t *row = p->run_us + (size_t)u * p->n_batch;

    if (p->n_batch == 1)
        return (double)row[0] * (batch > p->batch[0] ? (double)batch / p->batch[0] : 1.0);
    if (batch <= p->batch[0])
        return (double)row[0];
    uint32_t i = MIN(floor_index(p->batch, p->n_batch, batch), p->n_batch - 2);
    double us = on_line(batch, p->batch[i], (double)row[i], p->batch[i + 1], (double)row[i + 1]);
    return MAX(us, (double)row[i]);
}

usec_t predict_run_us(const struct profile *p, uint32_t batch, uint32_t units)
{
    uint32_t u = floor_index(p->units, p->n_units, units);
    double us = at_batch(p, u, batch);

    if (units > p->units[u] && u + 1 < p->n_units)
        us = on_line(units, p->units[u], us, p->units[u + 1], at_batch(p, u + 1, batch));
    return us < 1.0 ? 1 : (usec_t)(us + 0.5);
}

/* The table without neighbours; interference is added in its own file. */
bool predict(const struct predict_device *d, const struct load *me, const struct load *other,
             uint32_t n_other, struct estimate *ret)
{
    (void)d, (void)other, (void)n_other;
    double us = (double)predict_run_us(me->profile, me->batch, me->units);

    *ret = (struct estimate){.run_us = us, .hold_us = us, .upper_us = us, .slowdown = 1.0};
    return true;
}
