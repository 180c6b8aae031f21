/* What the options of simulate and bench say about the load. */
#pragma once

#include "task.h"
#include <gpulet/replay.h>

struct load_given {
    struct replay_load *load; /* [n_models]; NULL: as the problem says */
    struct replay_event *event;
    uint32_t n_events;
    usec_t duration_us;
    uint32_t n_unknown; /* rows of the trace of models that the problem does not have */
};
/* Of --arrivals, --trace, --fail, --step and --duration; memory of the task's arena. */
int load_from_options(struct task *t, const struct cli *c, struct load_given *ret, struct err *err);

#define SWEEP_MAX 1000
struct sweep {
    double from, to;
    uint32_t n;
};
int sweep_parse(const char *text, struct sweep *ret, struct err *err);
double sweep_at(const struct sweep *s, uint32_t i);
