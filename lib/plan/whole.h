/* Policies for devices that are not cut: a plan that they share, and what their run-time sides have
 * in common. */
#pragma once

#include "published.h"

/* Every model on every device, in gpu-lets as large as can be; batches such that a full run takes
 * tuning.run_part of the SLO, at most `most` rows. */
int whole_make(const struct problem *p, uint32_t most, struct arena *a, struct plan *ret,
               struct err *err);
/* The same as a plan_make_fn, without that limit. */
int whole_plan(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
               struct err *err);

/* Verdicts by what the rule says of the plan's shares; LIMIT_MEMORY: it is in no gpu-let. */
void truth_judge(const struct problem *p, struct plan *plan);

/* ---- serve.c */

/* Whoever comes is taken while there is room in the model's queue: no prediction. */
struct admit_choice open_admit(const struct admit_view *v);
/* To the gpu-let where the fewest of the model wait. */
uint32_t fewest_route(const struct admit_view *v);
/* In turn, each gpu-let as often as the plan wants (gpu-lets: weighted round robin). */
uint32_t weighted_route(const struct admit_view *v);

/* What is too late already is dropped by all, as nobody waits for it; true: *ret says so. */
bool drop_expired(const struct batch_view *v, struct batch_choice *ret);
/* How many requests from the head on fill a run; *rows of them together. */
uint32_t fill(const struct queue_view *q, uint32_t *rows);
/* May one more run of queue i start now, as far as the device is concerned? */
bool can_start(const struct batch_view *v, uint32_t i);
/* Until something changes, but for requests that become too late. */
struct batch_choice wait_expiry(const struct batch_view *v);
/* How many from the head on cannot be done in time even if they run now (edf.c). */
uint32_t drop_hopeless(const struct queue_view *q, usec_t now_us);
struct batch_choice max_delay_batch_next(const struct batch_view *v);
/* The queue that waits for longest and can start; PLAN_NONE: there is none. */
uint32_t oldest(const struct batch_view *v);
