/* What the batch rules (batch_rules.c) get from the analysis (batch.c). */
#pragma once

#include <gpulet/model.h>

#define N_BINDINGS 4

enum rows_kind {
    ROWS_NONE, /* neither shape nor content depends on the batch */
    ROWS_ON,   /* row b is [b*k, (b+1)*k) along `axis`, and depends on row b of the inputs alone */
    ROWS_SHAPE /* known at bind time, and depends on the number of rows: shape arithmetic */
};
struct rows {
    enum rows_kind kind;
    uint32_t axis;
    int64_t k; /* how many along the axis belong to one row */
};

struct batch {
    const struct graph *g;
    struct bound *bound[N_BINDINGS]; /* the same graph for each number of rows */
    struct rows *rows;               /* by value id */
    const struct node *node;         /* the one being looked at */
};

/* The concrete tensor of input i in the first binding; NULL when omitted. */
const struct tensor *batch_in(const struct batch *b, uint32_t i);
const struct tensor *batch_in_at(const struct batch *b, uint32_t binding, uint32_t i);
const struct tensor *batch_out_at(const struct batch *b, uint32_t binding, uint32_t i);
struct rows batch_rows(const struct batch *b, uint32_t i); /* ROWS_NONE when omitted */
extern const int64_t batch_numbers[N_BINDINGS];

/* Where output rows lie, given that at least one input is not ROWS_NONE.  NULL, or why rows do
 * not stay separate; sets *ret for every output. */
typedef const char *(*batch_rule)(struct batch *b, struct rows *ret);
batch_rule batch_rule_of(enum op_id op); /* NULL: the operator has none */
