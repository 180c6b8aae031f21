/* A model as a device-neutral graph.
 *
 * Built by the ONNX reader (onnx.h) or by hand with the functions below, changed by the passes
 * (model.h), immutable afterwards and read by any thread.  Everything hangs off the graph's
 * arena and dies with it; constants point into mapped files that outlive it (struct model).
 *
 * Shapes have two forms.  In the graph a dimension may be symbolic: a multiple of a named free
 * dimension of the inputs, one of which may be the batch.  For a *shape key* (a number for each
 * free dimension) graph_bind() gives every value its concrete shape, and evaluates whatever
 * depends on shapes alone (Shape -> Gather -> Concat -> Reshape), so that backends see numbers
 * only and never run shape arithmetic.
 *
 * What cannot be known before the model runs is *late*: shapes that depend on data (NonZero),
 * strings, whose size does, nested graphs (If, Loop, Scan), and whatever reads one of these.  Late
 * nodes are run after all others, one by one, by graph_run(). */
#pragma once

#include <gpulet/arena.h>
#include <gpulet/ops.h>
#include <gpulet/tensor.h>

#define MAX_SYMS 16           /* free dimensions of a model's inputs */
#define MAX_IO 64             /* inputs, and outputs, of a model */
#define MAX_POST 4            /* steps fused behind one node */
#define VALUE_NONE UINT32_MAX /* an omitted optional input or output */
#define NODE_NONE UINT32_MAX
#define BIND_EVAL_MAX_ELEMS 65536 /* larger results are not evaluated at bind time */

/* scale x symbol; a plain number has sym SYM_CONST and the number in scale. */
struct dim {
    int64_t scale;
    int32_t sym; /* index into graph.syms, or one of: */
};
#define SYM_CONST (-1)
#define SYM_VARIES (-2) /* depends on the free dimensions in another way; scale is -1 */

enum attr_type {
    ATTR_INT,
    ATTR_FLOAT,
    ATTR_STRING,
    ATTR_INTS,
    ATTR_FLOATS,
    ATTR_STRINGS,
    ATTR_TENSOR,
    ATTR_GRAPH
};

struct attr_text {
    const char *s; /* NUL-terminated */
    uint32_t n;    /* its length */
};

/* A nested graph: a branch of an If, the body of a Loop or a Scan.  Values of outer graphs that
 * it reads are inputs of the node that holds it, behind those in the file.  So whoever counts
 * readers or drops dead nodes need not look inside.  g->in are the inputs that it declares; no
 * shape in it is known before it runs. */
struct body {
    struct graph *g; /* of the list g->nested of the outer one, which frees it */
    uint32_t n_captured;
    const uint32_t *inner; /* [n_captured] values of g without a producer, */
    const uint32_t *outer; /* [n_captured] and which inputs of the node they are */
};

struct attr {
    const char *name;
    enum attr_type type;
    uint32_t n; /* ATTR_INTS, ATTR_FLOATS, ATTR_STRINGS; length of ATTR_STRING */
    union {
        int64_t i;
        float f;
        const char *s; /* NUL-terminated */
        const int64_t *ints;
        const float *floats;
        const struct tensor *t;
        const struct attr_text *strs;
        const struct body *body;
    };
};

enum const_source {
    CONST_ARENA,    /* in memory: small ones in the graph's arena */
    CONST_FILE,     /* in the mapped model file or its external data */
    CONST_PREPARED, /* in the mapped prepared.bin */
};

struct constant {
    struct tensor t;     /* data is read-only, and aligned to its element size but for large
                          * CONST_FILE ones, until graph_optimise() moves them */
    struct hash128 hash; /* of dtype, dims and bytes; set by constant_seal() */
    enum const_source source;
};

/* A step that a backend does on a node's result before storing it, in this order. */
enum post_kind {
    POST_ADD,  /* + value (same shape as the result: a residual) */
    POST_RELU, /* max(x, 0) */
    POST_CLIP, /* min(max(x, alpha), beta) */
    POST_GELU, /* exact, with erf */
    POST_TANH,
    POST_SIGMOID,
    POST_HARDSWISH,
    POST_SILU, /* x * sigmoid(x) */
    POST_GELU_TANH,
};
struct post {
    enum post_kind kind;
    float alpha, beta;
    uint32_t value; /* POST_ADD */
};

/* One node.  As in ONNX, but for what the passes make, whatever the model's opset:
 *   MatMul with a third input: a bias, 1-D, as long as the result's last dimension, added before
 *   the post steps (the second operand has then rank 2 or more);
 *   LayerNormalization (axis, epsilon) and Gelu below opsets 17 and 20;
 *   QLinearMatMul with a ninth input: a bias, 1-D INT32 as long as the result's last dimension, in
 *   units of a_scale * b_scale;
 *   QLinearAdd(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero), one scale each: what was
 *   DequantizeLinear of both, Add with broadcasting, QuantizeLinear;
 *   an output that nobody reads may be VALUE_NONE. */
struct node {
    const char *name; /* never NULL; "#12" when the file gives none */
    enum op_id op;
    uint32_t opset; /* of the default domain, as the model imports it */
    uint32_t n_in, n_out, n_attr, n_post;
    uint32_t n_own; /* inputs as the file has them; behind them what its bodies capture */
    uint32_t *in;   /* value ids or VALUE_NONE */
    uint32_t *out;  /* value ids or VALUE_NONE */
    struct attr *attr;
    struct post post[MAX_POST];
};

struct value {
    const char *name;
    enum dtype dtype;
    int32_t rank; /* -1 until shapes are inferred; of a late value too, but for an output, which
                   * graph_settle_late() gives what the file declares */
    struct dim dims[MAX_RANK];
    const struct constant *constant; /* NULL unless the value is one */
    uint32_t producer;               /* node, or NODE_NONE for inputs and constants */
};

struct sym {
    const char *name; /* "batch", "height", or made up: "image.0" */
};

struct claim { /* what a file declares for an output */
    enum dtype dtype;
    int32_t rank;
    struct dim dims[MAX_RANK];
};

/* What a model may ask for, whoever wrote it; what is over is refused before it is allocated. */
struct model_limits {
    uint32_t nodes;        /* with those of bodies and of functions, as often as they are used */
    uint32_t nesting;      /* bodies in bodies, functions in functions */
    uint64_t tensor_elems; /* of one value */
    uint64_t tensor_bytes; /* of one value */
    uint64_t live_bytes;   /* of all values that are alive at once: a bind is refused; of a run of
                            * late nodes, the limit of its arena */
    uint64_t loop_iterations; /* of all loops in one run */
};
extern const struct model_limits model_limits_default;

struct graph {
    struct arena arena;
    struct graph *nested; /* graphs of bodies, a list by `next`: die with this one */
    struct graph *next;
    struct model_limits limits; /* from graph_new(): the default */
    uint32_t opset;
    uint32_t n_nodes, cap_nodes;
    struct node *nodes; /* in execution order */
    uint32_t n_values, cap_values;
    struct value *values;
    uint32_t n_in, n_out;
    uint32_t in[MAX_IO], out[MAX_IO]; /* value ids; constants are not inputs */
    uint32_t n_syms;
    struct sym syms[MAX_SYMS];
    struct claim *claims; /* [MAX_IO], by output; NULL until graph_infer() */

    /* set by graph_analyse_batch() */
    int32_t batch_sym;    /* the symbol along which requests may be joined, or -1 */
    char why_single[240]; /* "" when batchable; else which node prevents it and why */

    /* set by graph_cut(): segment s is nodes [cut[s], cut[s+1]) */
    uint32_t n_segments;
    uint32_t *cut;
};

/* ---- building: used by the reader, the passes and tests; -ENOMEM, -E2BIG over a limit */
struct graph *graph_new(uint32_t opset);
void graph_free(struct graph *g);
DEFINE_AUTO(struct graph, graph_free)
/* The graph of a body: freed with `outer`, whose limits it takes. */
struct graph *graph_new_nested(struct graph *outer, uint32_t opset);
/* Strings and arrays are copied into the arena.  *ret is the new id. */
int graph_add_value(struct graph *g, const char *name, enum dtype dtype, int32_t rank,
                    const struct dim *dims, uint32_t *ret);
int graph_add_sym(struct graph *g, const char *name, int32_t *ret); /* the same name: the same id */
int graph_add_const(struct graph *g, const char *name, const struct tensor *t,
                    enum const_source source, uint32_t *ret); /* t->data is kept, not copied */
int graph_add_node(struct graph *g, const char *name, enum op_id op, uint32_t n_in,
                   const uint32_t *in, uint32_t n_out, const uint32_t *out, uint32_t *ret);
int graph_add_attr(struct graph *g, uint32_t node, const struct attr *a); /* payload is copied */
void constant_seal(struct constant *c);                                   /* computes the hash */
/* Give back the mapped pages of a constant; whoever still reads it gets them again. */
void constant_drop(const struct constant *c);

/* ---- reading */
const struct attr *node_attr(const struct node *n, const char *name); /* NULL when absent */
int64_t node_int(const struct node *n, const char *name, int64_t absent);
float node_float(const struct node *n, const char *name, float absent);
const char *node_str(const struct node *n, const char *name, const char *absent);
/* A list attribute; *ret_n 0 and NULL when absent or empty. */
const int64_t *node_ints(const struct node *n, const char *name, uint32_t *ret_n);
const float *node_floats(const struct node *n, const char *name, uint32_t *ret_n);
const struct attr_text *node_strs(const struct node *n, const char *name, uint32_t *ret_n);

/* The second operand as broadcasting reads it since opset 7: shapes align at the last dimension.
 * Before, attribute `axis` says at which dimension of the first it begins (PRelu: at the second),
 * so it gets ones at its end.  An axis out of range leaves it as it is. */
struct tensor node_second(const struct node *n, const struct tensor *first,
                          const struct tensor *second);

/* ---- shape keys */
struct shape_key {
    uint32_t n;            /* graph.n_syms */
    int64_t dim[MAX_SYMS]; /* >= 0 */
};
static inline bool shape_key_eq(const struct shape_key *a, const struct shape_key *b)
{
    return a->n == b->n && memcmp(a->dim, b->dim, a->n * sizeof(a->dim[0])) == 0;
}

/* A graph with numbers for all free dimensions.  Lives in the arena it was bound in. */
struct bound {
    const struct graph *graph;
    struct shape_key key;
    struct tensor *value; /* by value id.  data != NULL: known now (constant or shape arithmetic) */
    bool *skip;           /* by node: every result is known, nothing is left to run */
    bool *late_value;     /* by value id: shape, or size of strings, is known only in a run; of
                           * inputs that are strings value[] has the shape but not bytes */
    bool *late_node;      /* by node: reads or makes such a value, or has bodies */
    uint32_t n_late;      /* nodes that are late */
};

/* ---- running nodes one by one, on tensors in memory, shapes as they come to be known */

/* Run one node: in[] and out[] as for a reference kernel (kernels/ref/ref.h). */
typedef int node_fn(void *ctx, const struct node *n, const struct tensor *const *in,
                    const struct tensor *const *add, struct tensor *const *out, struct arena *a,
                    struct err *err);
struct graph_run {
    const struct graph *graph;
    const bool *only;     /* by node; NULL: all */
    struct tensor *value; /* by value id, the caller's; dtype DT_NONE: not known yet.  Inputs (and
                           * whatever nodes not in `only` make) are set before; constants are read
                           * from the graph */
    struct arena *arena;  /* results live there; its limit bounds the run */
    node_fn *run;         /* NULL: the reference kernels */
    void *ctx;
    uint64_t *iterations_left; /* of all loops of the run; NULL: as the graph's limits say */
};
/* -EINVAL: an input cannot be run (names the node); -ENOMEM: over the arena's limit, or of
 * memory; -ENOTSUP.  Results that an operator makes smaller than its rule said are so in value[].
 */
int graph_run(const struct graph_run *r, struct err *err);

/* -EINVAL names the node whose shapes do not go together. */
int graph_bind(const struct graph *g, const struct shape_key *key, struct arena *a,
               struct bound **ret, struct err *err);
/* Work of one node once: floating-point operations, and bytes read and written. */
struct cost {
    double flops, bytes;
};
struct cost node_cost(const struct bound *b, uint32_t node);
/* Output shapes of one node from its inputs' shapes (and their data where known): infer.c.
 * in[i] is NULL for an omitted input.  Sets dtype, rank, dims and bytes of out[i].  -ENODATA: they
 * depend on data of an input that is not known yet (in[i]->data is NULL). */
int node_infer(const struct node *n, const struct tensor *const *in, struct tensor *out,
               struct err *err);
