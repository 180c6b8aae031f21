/* policy = deferred: deferred windows on devices that are not cut.
 *
 * A batch starts as late as every deadline allows and as early as it is full: greedy.c has the
 * rule.  Nobody is refused; what has become hopeless is dropped. */
#include "whole.h"

const struct policy policy_deferred = {
    .name = "deferred",
    .plan_make = whole_plan,
    .admit = open_admit,
    .route = fewest_route,
    .batch_next = patient_batch_next,
};
