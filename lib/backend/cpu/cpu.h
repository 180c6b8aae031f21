/* The CPU backend from inside.
 *
 *   device.c   cores, partitions, pinning, waiting
 *   weights.c  packed constants, one copy a device
 *   build.c    what compile() keeps while it turns nodes into steps: values, buffers, reorders
 *   half.c     which nodes and values are in BF16
 *   lower.c    a node becomes oneDNN steps: convolutions, products, pooling
 *   lower_rows.c  a convolution some rows at a time
 *   lower_bytes.c  the same of products and convolutions of bytes
 *   blocked.c  a node becomes one of our kernels on blocked channels
 *   shuffle.c  blocked channels in another order
 *   lower_deconv.c  the same of transposed convolutions
 *   compile.c  walks the graph, plans the arena
 *   late.c     nodes whose shapes come to be known as the model runs
 *   exec.c     slots and runs
 *   groups.c   a batch as groups of fewer rows
 *   dnnl.c     the library's calls
 *
 * An exe is a list of steps over buffers; a slot is one arena for those buffers. */
#pragma once

#include "dnnl.h"
#include <gpulet/backend.h>
#include <gpulet/model.h>
#include <kernels/cpu/cpu.h>
#include <pthread.h>
#include <sched.h>

#define MAX_DONE (2 * MAX_LANES)
#define WEIGHT_BUCKETS 1024
#define BUF_NONE UINT32_MAX

struct weights {
    struct hash128 hash;
    uint64_t layout; /* 0: as it is in the model */
    const void *data;
    void *packed; /* NULL when used in place */
    size_t bytes; /* of packed */
    unsigned refs;
    struct weights *next;
};

struct device {
    struct dn dn;
    uint32_t n_cores;
    uint16_t core[MAX_GRANULES]; /* granule -> core */
    unsigned n_parts;
    size_t weights_bytes;
    size_t run_bytes;                      /* that the late part of a run may take */
    struct weights *table[WEIGHT_BUCKETS]; /* builder thread only */
};

struct part {
    struct device *dev;
    struct granules set;
    cpu_set_t cores;
    unsigned n_threads;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool kicked;     /* under lock */
    unsigned n_done; /* executor thread only, as the rest */
    struct done done[MAX_DONE];
    ticket last;
};

/* ---- weights.c; builder thread */
int weights_plain(struct device *dev, const struct constant *c, struct weights **ret);
int weights_pack(struct device *dev, const struct constant *c, const struct layout *from,
                 const struct layout *to, struct weights **ret);
void weights_put(struct device *dev, struct weights *w);
int weights_get(struct device *dev, const struct constant *c, uint64_t layout, struct weights **ret,
                struct err *err);

/* Page-granular zeroed memory, given back to the system when freed. */
void *pages_alloc(size_t bytes);
void pages_free(void *p, size_t bytes);

/* ---- steps */
enum ref_kind { REF_NONE, REF_BUF, REF_CONST };
struct ref {
    enum ref_kind kind;
    uint32_t buf;
    size_t offset;    /* REF_BUF: where in it the argument begins */
    const void *data; /* REF_CONST */
};

struct arg {
    int name; /* DNNL_ARG_… */
    struct ref ref;
    const dnnl_memory_desc_t *md; /* of a primitive's argument; NULL for a kernel's */
};

/* Either a primitive with its arguments, or one of our kernels, whose arguments are the node's
 * inputs and then its outputs, or all that is late, whose arguments are what late nodes read. */
struct step {
    uint32_t node;
    bool is_prim, is_late;
    bool blocked;   /* a kernel on blocked channels */
    bool in_pieces; /* a kernel that every thread of the partition takes a piece of */
    struct prim prim;
    struct cpu_call call;
    uint32_t n_arg;
    struct arg *arg;
};

/* Where a request's rows meet the arena. */
struct port {
    uint32_t buf;     /* BUF_NONE: a late output, which has no place here */
    size_t bytes;     /* whole tensor */
    size_t row_bytes; /* 0: the tensor has no batch dimension */
};

/* host_late's, in late.c.  bound NULL: there is no late part. */
int late_plan(const struct bound *b, struct arena *a, struct late *ret, struct err *err);
int late_run(const struct late *l, struct late_slot *s, void *const *ptr, size_t limit_bytes,
             struct err *err);
int late_reserve(const struct late *l, struct late_slot *s);
void late_forget(struct late_slot *s);

struct exe {
    struct part *part;
    unsigned n_threads; /* that one run takes */
    struct exe *group;  /* of fewer rows, which the batch is run by: then there are no steps here */
    struct arena arena; /* everything below */
    uint32_t n_steps, n_reorders, n_asked;
    struct step *step;
    uint32_t n_bufs;
    struct buffer *buf;
    size_t slot_bytes;
    uint32_t batch;
    bool placed_alike; /* rows are only read and written where they lie as in the arena */
    uint32_t n_in, n_out;
    struct port in[MAX_IO], out[MAX_IO];
    struct late late;
    bool late_outputs;
    uint32_t n_segments;
    uint32_t *first_step; /* [n_segments + 1] */
    uint32_t n_weights;
    struct weights **weights;
    size_t weights_bytes;
};

/* ---- compile.c */
int cpu_compile(struct part *p, const struct compile_args *args, struct exe **ret, struct err *err);
void cpu_release(struct exe *x);
void cpu_exe_info(const struct exe *x, struct exe_info *ret);
/* The rows as they are, for steps of n_threads. */
int compile_for(struct part *p, const struct compile_args *args, unsigned n_threads,
                struct exe **ret, struct err *err);

/* ---- groups.c */
/* Rows of a group that the batch had better be run by; 0: it runs as one.  One for results that
 * may not depend on the batch: the same calls on the same numbers, whatever else is in the run. */
uint32_t groups_rows(const struct compile_args *args, unsigned n_threads);
/* Make x, which has a part and an arena, such an exe. */
int groups_compile(struct exe *x, const struct compile_args *args, uint32_t rows, struct err *err);
struct crew; /* the mutable state of its runs */
int crew_open(const struct exe *x, struct crew **ret, struct err *err);
void crew_close(struct crew *c);
/* All rows of io, NULL: a batch of zeros.  Returns as cpu_run() does; why: of a failure. */
int crew_run(const struct crew *c, const struct io *io, struct err *why);
struct slot *crew_slot(const struct crew *c); /* of its first thread */

/* ---- exec.c */
int cpu_slot_open(struct exe *x, struct slot **ret, struct err *err);
void cpu_slot_close(struct slot *s);
/* Segments [from, to), now; io NULL: on what is in the arena.
 * -EINVAL: an input cannot be run; -ENOTSUP: plain loops lack a type; -EIO: the library failed. */
int cpu_run(struct slot *s, unsigned from, unsigned to, const struct io *io);
void cpu_slot_home(struct slot *s);                   /* inputs are zero and in the arena */
const struct err *cpu_slot_why(const struct slot *s); /* of the last run; code 0: nothing to say */
int cpu_submit(struct slot *s, unsigned lane, unsigned from, unsigned to, const struct io *io,
               ticket *ret);
void cpu_outputs(const struct slot *s, struct tensor *ret);
int cpu_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
              struct err *err);
