/* Operator cases: each is one node, described in a line.
 *
 * inputs   separated by blanks, each TYPE[DIMS], optionally followed by (LO,HI), the range of its
 *          made-up values, or by {V,V,...}, the values themselves.  "c" in front: a constant of
 *          the graph.  "-": omitted.  A dimension N is the batch: the case then runs with N = 1
 *          and N = 3, and with N = 3 as two requests of one and two rows in one run.
 *          Types: f FP32, d FP64, h FP16, i INT32, l INT64, s INT8, u UINT8, b BOOL.
 * attrs    name=[1,2] integers, name=1 an integer, name=1.0 a float, name=word a string,
 *          name=[word,word] strings;
 *          a tensor of one float: name=t1.0
 * posts    post steps: add relu clip:0:6 gelu tanh sigmoid hardswish silu; add's operand is one
 *          more input of the output's shape.
 * before   nodes that the first input goes through, Op:ATTRIBUTE or Op:INPUT each, where an input
 * is a constant, the second operand. tol      of the output's largest magnitude; 0 means CASE_TOL.
 */
#pragma once

#include <gpulet/graph.h>

#define CASE_TOL 1e-5
#define CASE_MAX_IN 9
#define CASE_MAX_OUT 4

struct op_case {
    const char *name;
    enum op_id op;
    uint32_t opset;
    const char *inputs;
    const char *attrs;
    const char *posts;
    uint32_t n_out; /* 0 means 1 */
    double tol;
    const char *before;
    bool fails; /* the values are out of range: the run ends with an error, and nothing else */
};

extern const struct op_case op_cases[];
extern const size_t n_op_cases;

struct case_input {
    enum dtype dtype; /* DT_NONE: omitted */
    bool constant;
    uint32_t rank;
    struct dim dims[MAX_RANK]; /* sym 0 is the batch */
    double lo, hi;
    const char *values; /* "1,2}...", or NULL */
};

/* The inputs; returns how many.  A description that cannot be read ends the program. */
uint32_t case_inputs(const struct op_case *c, struct case_input ret[CASE_MAX_IN]);
/* Adds the nodes in front; returns what comes out of them, or v where there are none. */
uint32_t case_before(const struct op_case *c, struct graph *g, uint32_t v);
/* Adds the attributes to node `node`; the post steps: returns how many. */
void case_attrs(const struct op_case *c, struct graph *g, uint32_t node);
uint32_t case_posts(const struct op_case *c, struct post ret[MAX_POST]);
/* Values into t, which has a shape and data: those described, or made up from the seed. */
void case_fill(const struct case_input *in, uint64_t seed, struct tensor *t);
/* The same for the operand of POST_ADD. */
void case_fill_range(struct tensor *t, double lo, double hi, uint64_t seed);
/* Largest difference relative to the largest magnitude of `want`; INFINITY when one of them is
 * not finite and they differ, or when types or sizes differ.  Integers: 0 or INFINITY. */
double case_difference(const struct tensor *got, const struct tensor *want);
