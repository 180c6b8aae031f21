/* A model in its folder: reader, passes, prepared constants.
 *
 * model_open() maps DIR/model.onnx (and external data inside DIR), reads it into a graph, infers
 * shapes, runs the passes and analyses, and maps DIR/prepared.bin, which it writes first if it is
 * missing or was made by another pass version or from another file (temp file, fsync, rename).
 * The caller is the only writer of DIR.  Builder thread; the result is immutable.
 *
 * Errors name the file, node or tensor, the value and the limit.  -EINVAL: not a valid model;
 * -ENOTSUP: an operator, type or opset that we lack, by name; -ENOENT, -EIO, -ENOSPC, -ENOMEM. */
#pragma once

#include <gpulet/graph.h>

#define MODEL_FILE "model.onnx"
#define PREPARED_FILE "prepared.bin"
#define PASS_VERSION 5 /* a change of any pass makes older prepared.bin files be rebuilt */
#define OPSET_MIN 1
#define OPSET_MAX 26
#define PREPARED_ALIGN 256

struct model;

int model_open(const char *dir, const struct model_limits *limits, enum precision precision,
               struct model **ret, struct err *err); /* limits NULL: the default ones */
void model_free(struct model *m);                    /* unmaps; graph and constants die */
DEFINE_AUTO(struct model, model_free)

const struct graph *model_graph(const struct model *m);
struct hash128 model_hash(const struct model *m); /* file, external data and pass version */
/* Why a model is as it is, for GET /v1/models/{m}: counts of what the passes did. */
struct model_report {
    uint32_t nodes_read, nodes_left, folded_constants, folded_norms, fused_posts, fused_norms,
        fused_gelus, quantised;
    size_t const_bytes, prepared_bytes;
};
const struct model_report *model_report(const struct model *m);

/* ---- the parts, for tests and tools */
struct mapping { /* a read-only file mapping */
    const void *base;
    size_t bytes;
    bool is_file; /* false: a file that lies in memory, whose pages are not to be given back */
};
/* Parse an ONNX file that lies in memory.  Constants point into `file` (or into the external
 * files, opened relative to dir, appended to ext; NULL dir: external data is refused). */
int onnx_read(const struct mapping *file, const char *dir, const struct model_limits *limits,
              struct graph **ret, struct mapping **ret_ext, uint32_t *ret_n_ext, struct err *err);
/* Infer shapes symbolically: fills dtype, rank and dims of every value; DT_NONE and -1 where they
 * are late. */
int graph_infer(struct graph *g, struct err *err);
/* For precision int8, before the other passes: operators between DequantizeLinear and
 * QuantizeLinear become operators on bytes.  -ENOTSUP: the model has none of these. */
int graph_quantise(struct graph *g, struct model_report *report, struct err *err);
/* Passes: constants, dead code, batch norms, post steps, layer norms, GELU. */
int graph_optimise(struct graph *g, struct model_report *report, struct err *err);
/* After the passes: late nodes go behind all others, and late outputs get the types and shapes
 * that the file declares. */
int graph_settle_late(struct graph *g, struct err *err);
/* Sets batch_sym and why_single.  Never fails: what it cannot prove is not batchable. */
void graph_analyse_batch(struct graph *g);
/* Sets the cut-points: places where few bytes cross, merged into segments of about equal work. */
int graph_cut(struct graph *g, struct err *err);

/* ---- memory planning: a pure function.  Buffers whose lives overlap get disjoint places. */
struct buffer {
    size_t bytes;
    uint32_t first, last; /* steps in which it is written first, read last */
    size_t offset;        /* result, a multiple of 64 */
};
/* Sets the offsets; returns the size of the arena they need.  Greedy by size, best fit. */
size_t memory_plan(struct buffer *buf, uint32_t n, struct arena *scratch);

/* ---- inputs for a run that nobody asked for, from a seed (made_up.c); zeros: all integers are 0.
 * to[i]: memory for input i.  -ENOTSUP: one holds strings; -ENOMEM. */
int inputs_make_up(const struct bound *b, uint64_t seed, bool zeros, struct arena *scratch,
                   void *const *to);
