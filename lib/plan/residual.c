/* What serving shows of a predicted run time.
 *
 * The median of seen / predicted, followed by steps: up when a run took longer than is believed,
 * down when it took less.  How much longer does not matter, so that a run that was disturbed counts
 * like any other; and what may be believed is bounded.  First steps are long, later ones a
 * hundredth. */
#include "plan_priv.h"

#define FIRST_STEP 0.25
#define LAST_STEP 0.01
#define MOST 4.0 /* and 1 / MOST at least */

void residual_add(struct residual *r, usec_t predicted_us, usec_t seen_us)
{
    double step = FIRST_STEP / (1 + r->n / 4.0), factor = r->n ? r->factor : 1;

    step = 1 + MAX(step, LAST_STEP);
    factor *= (double)seen_us > (double)predicted_us * factor ? step : 1 / step;
    r->factor = MIN(MAX(factor, 1 / MOST), MOST);
    r->n++;
}

double residual_factor(const struct residual *r)
{
    return r->n < RESIDUAL_LEAST ? 1 : r->factor;
}
