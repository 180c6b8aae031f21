#pragma once

#include <gpulet/ops.h>

struct refusal {
    const char *backend;
    enum op_id op;    /* OP_NONE: only the case of this name */
    const char *name; /* NULL: all cases of the operator */
};
extern const struct refusal refusals[];
extern const size_t n_refusals;
