/* Fairness under overload: what a model has before others have to be asked.
 *
 * Within their bands all are served (demand.h); so much of a burst as a Poisson stream shows now
 * and then counts as within.  What goes beyond is taken while nobody else waits (greedy.c). */
#include "plan_priv.h"

#include <gpulet/demand.h>

#define BURST 64.0 /* requests at once of a Poisson stream */

int64_t allowance_take(int64_t used_ns, double rate_rps, double burst, usec_t now_us)
{
    double gap_ns = 1e9 / rate_rps, now_ns = 1e3 * (double)now_us;
    double fresh_ns = now_ns - BURST * (burst > 1 ? burst : 1) * gap_ns;
    double used =
        used_ns == ALLOWANCE_FRESH || (double)used_ns < fresh_ns ? fresh_ns : (double)used_ns;

    return used + gap_ns <= now_ns ? (int64_t)(used + gap_ns) : ALLOWANCE_FRESH;
}
