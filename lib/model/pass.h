/* What the passes share.  A pass walks the nodes in execution order and changes them in place: a
 * node that is replaced gets op OP_NONE, and optimise.c drops it.  So node ids stay valid while
 * a pass runs; pointers into graph.values do not survive adding a constant. */
#pragma once

#include "prepared.h"

struct pass {
    struct graph *g;
    struct prepared *prepared;
    struct model_report *report;
    struct err *err;
    /* by value, from pass_count(): how often it is read (being a graph output counts as one),
     * and the first and last node that do */
    uint32_t *n_readers, *first, *last;
    uint32_t n_counted;
    double fold_flops; /* of constants evaluated so far */
};

/* Drops nodes that nobody reads, then counts readers. */
int pass_count(struct pass *p);

/* ---- reading the graph */
/* The only node that reads the value; NODE_NONE when there are more or it is a graph output. */
uint32_t pass_sole_reader(const struct pass *p, uint32_t value);
/* The value is read exactly n times, so that a pattern that reads it n times may swallow it. */
bool pass_read_times(const struct pass *p, uint32_t value, uint32_t n);
/* The node that makes the value as its first output, if it does `op`; else NODE_NONE. */
uint32_t pass_made_by(const struct pass *p, uint32_t value, enum op_id op);
const struct constant *pass_constant(const struct pass *p, uint32_t value); /* or NULL */
/* Of a two-operand node: the operand that is not `value`. */
uint32_t node_other(const struct node *n, uint32_t value);
/* A constant of one element, as a number. */
bool pass_number(const struct pass *p, uint32_t value, double *ret);
/* One operand of a commutative node is a number near `want`: the other one, else VALUE_NONE. */
uint32_t pass_other_than_number(const struct pass *p, const struct node *n, double want);
/* No constant of a pattern was [1,1,1,1] and made the result's rank larger than its input's. */
bool pass_same_rank(const struct pass *p, uint32_t in, uint32_t out);
bool dims_same(const struct value *a, const struct value *b); /* in every binding */
/* Axes of a Reduce node, from its attribute or its second input (NULL: absent). */
int axes_read(const struct node *n, const struct tensor *input, uint32_t rank, bool ret[MAX_RANK]);

/* ---- changing it */
/* Node `into` makes what node `gone` made; gone is dropped. */
void pass_absorb(struct pass *p, uint32_t into, uint32_t gone);
/* A node with other inputs and no attributes; its outputs stay. */
int pass_become(struct pass *p, uint32_t node, enum op_id op, uint32_t n_in, const uint32_t *in);
/* A new input at place i; places between are omitted inputs. */
int pass_set_input(struct pass *p, uint32_t node, uint32_t i, uint32_t value);

/* ---- constants that a pass makes.  Find by key; else new, fill t.data, add. */
const struct constant *made_find(struct pass *p, struct hash128 key);
int made_new(struct pass *p, struct tensor *t); /* t: shape is set; sets zeroed data */
/* A kernel may have made it smaller than made_new() did: where it lies must follow. */
int made_shrink(struct pass *p, size_t before_bytes, struct tensor *t);
const struct constant *made_add(struct pass *p, struct hash128 key, const struct tensor *t);
/* A value for it. */
int made_value(struct pass *p, const char *name, const struct constant *c, uint32_t *ret);
/* A constant's tensor with data aligned to its elements, copied if need be; NULL: out of memory.
 * Copies live until the pass goes on to the next node and says so. */
const struct tensor *pass_aligned(struct pass *p, const struct constant *c);
void pass_next(struct pass *p);

/* ---- the passes, in the order in which they run; 0 or -ENOMEM */
int pass_identity(struct pass *p);
int pass_fold(struct pass *p);
int pass_pad(struct pass *p);
int pass_einsum(struct pass *p);
int pass_batchnorm(struct pass *p);
int pass_layernorm(struct pass *p);
int pass_gelu(struct pass *p);
int pass_bias(struct pass *p);
int pass_post(struct pass *p);

/* pass_branch.c: replaces each If whose condition is a constant by its branch.  All nodes are in
 * use (no OP_NONE); shapes must be inferred anew when *ret. */
int branches_choose(struct graph *g, bool *ret);

/* graph_quantise() and graph_optimise() with a place for what they make. */
int graph_quantise_into(struct graph *g, struct prepared *prepared, struct model_report *report,
                        struct err *err);
int graph_optimise_into(struct graph *g, struct prepared *prepared, struct model_report *report,
                        struct err *err);
