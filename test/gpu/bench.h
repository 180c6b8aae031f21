/* What test/gpu/bench measures with, and its parts. */
#pragma once

#include <gpulet/backend.h>
#include <gpulet/model.h>
#include <gpulet/roofline.h>

/* A model compiled for a batch, in a partition. */
struct subject {
    struct part *part;
    uint32_t units; /* SMs really got */
    struct exe *exe;
    struct slot *slot;
    struct exe_info info;
};
extern const struct backend *be;
extern unsigned turn_ms;     /* how long one measurement goes on */
extern unsigned bench_times; /* so many of a node, at most 32 */

/* On the first n granules; a failed one is closed by subject_close(), too. */
int subject_open(struct device *dev, unsigned n_granules, const struct compile_args *args,
                 struct subject *ret, struct err *err);
void subject_close(struct subject *s);
/* Median time on the device of segments [from, to), on zeros that are there: no copies. */
int subject_us(const struct subject *s, unsigned from, unsigned to, double *ret, struct err *err);

/* Shapes, batch and segments of a graph that was read or built. */
int graph_ready(struct graph *g, struct err *err);

/* The model of a folder as its file has it: no pass has folded or fused anything. */
struct plain {
    struct mapping file, *ext;
    uint32_t n_ext;
    struct graph *graph;
};
/* A failed one is closed by plain_close(), too. */
int plain_open(const char *folder, struct plain *ret, struct err *err);
void plain_close(struct plain *p);

/* Cuts a graph behind each node, before it is compiled; then the time of each, and the end of a
 * line that was begun. */
int cut_each(struct graph *g, struct err *err);
int steps_measure(const struct subject *s, const struct graph *g, struct err *err);

/* Everything is set up: waits for its turn to measure, where many are set up at the same time. */
int gate_enter(const char *who, struct err *err);

void sort_values(double *value, unsigned n);

/* What this device does at best, on n granules: products of side x side matrices in a precision,
 * one after the other, by whatever the backend does products with; and copies of 256 MiB within its
 * memory, whose bytes are read and written. */
int rates_measure(struct device *dev, unsigned n_granules, enum precision precision, unsigned side,
                  struct rates *ret, struct err *err);

/* Nodes that our own kernels do, each alone, in fp32 and in fp16, for so many rows: a line of each,
 * beside the floor of its bytes. */
int kernels_measure(struct device *dev, unsigned n_granules, int64_t batch,
                    const struct rates *rates, struct err *err);
