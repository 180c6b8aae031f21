/* Fairness under overload: what a model has before others have to be asked.
 *
 * What is planned for it is served (demand.h); so much of a burst as a Poisson stream shows now and
 * then counts as planned.  What goes beyond is taken where it is at nobody's cost (greedy.c).
 *
 * Who has used up all of it comes back with half a batch.  One request at a time, as soon as it is
 * saved, would be as many requests; but each would run alone, at the price of a run. */
#include "plan_priv.h"

#include <gpulet/demand.h>

#define BURST 64.0 /* requests at once of a Poisson stream */

int64_t allowance_take(int64_t used_ns, const struct allowance *a, double burst, usec_t now_us)
{
    double gap_ns = 1e9 / a->rate_rps, now_ns = 1e3 * (double)now_us;
    double fresh_ns = now_ns - BURST * (burst > 1 ? burst : 1) * gap_ns;
    double used =
        used_ns == ALLOWANCE_FRESH || (double)used_ns < fresh_ns ? fresh_ns : (double)used_ns;
    bool was_empty = used_ns != ALLOWANCE_FRESH && (used_ns & 1);
    double need = was_empty && a->batch > 2 ? a->batch / 2.0 : 1;

    if (used + need * gap_ns > now_ns)
        return ALLOWANCE_FRESH;
    bool is_empty = used + 2 * gap_ns > now_ns;
    return ((int64_t)(used + gap_ns) & ~INT64_C(1)) | is_empty;
}
