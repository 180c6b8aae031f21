/* The only thing the engine knows of a device: one table per kind ("cpu", "sim", "cuda").
 *
 * Chosen at start.  "cuda" is a shared object opened with dlopen() that exports
 * GPULET_BACKEND_SYMBOL; an ABI number that differs is refused.  Each entry says its thread.
 * An operator that a backend lacks is refused by compile() with its name and node (-ENOTSUP);
 * there is no silent fall-back. */
#pragma once

#include <gpulet/graph.h>
#include <pthread.h>

#define BACKEND_ABI 11
#define GPULET_BACKEND_SYMBOL "gpulet_backend"

#define MAX_GRANULES 256
#define MAX_LANES 8

struct device;  /* these five belong to the backend */
struct part;    /* a partition: a gpu-let's share of a device */
struct weights; /* a constant on the device */
struct exe;     /* a model compiled for a shape key and a partition; immutable */
struct slot;    /* the mutable state of one run of an exe */

#define RUN_BYTES ((size_t)1 << 30)
#define LATE_KEPT_BYTES ((size_t)64 << 20) /* by a slot, for its late part; as much for outputs */

struct granules {
    uint64_t bits[MAX_GRANULES / 64];
};
static inline bool granules_has(const struct granules *s, unsigned i)
{
    return s->bits[i / 64] >> (i % 64) & 1;
}
static inline void granules_add(struct granules *s, unsigned i)
{
    s->bits[i / 64] |= UINT64_C(1) << (i % 64);
}
static inline unsigned granules_count(const struct granules *s)
{
    unsigned n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(s->bits); i++)
        n += (unsigned)__builtin_popcountll(s->bits[i]);
    return n;
}
static inline bool granules_overlap(const struct granules *a, const struct granules *b)
{
    for (size_t i = 0; i < ARRAY_SIZE(a->bits); i++)
        if (a->bits[i] & b->bits[i])
            return true;
    return false;
}

enum part_mode { MODE_CORES, MODE_SIM, MODE_MPS, MODE_GREEN, MODE_MIG, MODE_SHARED };

/* What the operator configured; strings may be "" for the default. */
struct backend_config {
    char partition_mode[256];
    char cpu_units[256]; /* "auto", or a list of cores: "1-3,6" */
    char sim_file[256];
    size_t run_bytes;   /* most that the late part of a run may take; 0: RUN_BYTES */
    const char *folder; /* there, where a backend may keep what it has measured; NULL: nowhere */
    /* Builder.  Starts a thread for runs: what the builder starts itself would be as nice as it is.
     * 0 or a negative errno.  NULL: whoever asks may start it. */
    int (*thread)(void *ctx, pthread_t *ret, void *(*fn)(void *), void *arg);
    void *thread_ctx;
};

struct device_info {
    char name[64];          /* "cpu0" */
    char kind[64];          /* "AMD EPYC …", "NVIDIA H200", what the sim file says */
    uint32_t units;         /* SMs, cores */
    uint32_t granule_units; /* units in one granule */
    uint32_t n_granules;
    uint32_t max_granules;               /* of one partition; 0: any number */
    uint32_t max_lets;                   /* of one plan: those of two are open at once; 0: any */
    uint64_t mem_bytes;                  /* 0: unknown */
    uint64_t let_bytes;                  /* of them, for each open partition besides its models */
    double link_bytes_per_s;             /* host to device; 0: weights are read where they are */
    double mem_bytes_per_s, flops_per_s; /* 0: unknown */
    enum part_mode mode;
    bool weights_shared; /* one copy of the weights serves all partitions */
    bool in_turn;        /* runs of a partition follow each other, whatever lane they have */
    /* So long before a run ends the next one of its lane may be submitted, and begins at that end
     * by itself: what it takes to be told of the one and to start the other.  0: submit() may be
     * synchronous, or nothing is gained. */
    usec_t ahead_us;
    char library[96]; /* what runs depend on besides us, with its version; "" */
    char why[480];    /* why this mode, what is missing; what the service threads share */
};

/* Where inputs and outputs of requests mostly lie; what lies elsewhere may be slower to copy. */
struct host_region {
    int memfd;
    void *base;
    size_t bytes;
};

/* One request's rows inside a run: in[i] and out[i] point at its first row of graph input and
 * output i.  The backend gathers and scatters in its first and last step. */
struct io_part {
    uint32_t rows; /* of the batch; 1 when the model does not batch */
    const void *const *in;
    void *const *out;
};
struct io {
    uint32_t n_parts;
    const struct io_part *part; /* borrowed until the ticket is done */
    /* Who goes first on units that runs share, where a device can tell: 1, then the next; 0 after
     * all of these, best effort last. */
    int32_t priority;
    bool best_effort;
};

typedef uint64_t ticket; /* the backend's; unique in a partition */
struct done {
    ticket ticket;
    int rc;          /* 0; -EINVAL: the input cannot be run; -ENOMEM: nor, in the memory a run may
                        take; -ENOTSUP: nor, by what we have; -EIO: this run failed; -ENODEV: see fault() */
    uint64_t run_ns; /* time on the device */
    const char *why; /* of a failed run, until the next submit to its slot; NULL: nothing to say */
};

struct exe_info {
    uint32_t n_segments;
    size_t slot_bytes, weights_bytes;
    uint32_t n_steps, n_reorders;
    uint32_t n_plain;  /* of the steps: plain loops, of which no speed is claimed */
    uint32_t n_asked;  /* nodes computed in the precision that was asked; 0 for fp32 */
    char note[160];    /* why it is slower than it could be, known once a slot is open, or why runs
                          had to wait for its compilation; "" */
    bool late_outputs; /* shapes of outputs are known only after a run: see outputs() */
    bool unraced;      /* compiled when nothing could be measured: may be faster compiled anew */
    usec_t inputs_us;  /* of a full run's time, what its inputs travel: behind another run of its
                          lane, meanwhile; where ahead_us is 0, 0 */
};

struct compile_args {
    const char *model;         /* name: sim looks its latency up by it; messages name it */
    const struct bound *bound; /* borrowed until release() */
    enum precision precision;
    bool batch_invariant; /* the bits of a row may not depend on how many rows a run has */
};

/* ---- the late part of a run, on the host: by the cpu backend (lib/backend/cpu/late.c), for itself
 * and for a device that has no kernels for it.  Values are row-major, constants the graph's. */
struct late {
    const struct bound *bound;
    uint32_t n_in, *in; /* values that are there before */
};
struct late_slot {             /* of one run at a time; zero at first */
    struct tensor *value;      /* by value id; the caller's, any contents */
    struct tensor out[MAX_IO]; /* late outputs of the last run, in memory */
    char *memory;
    size_t room;              /* bytes of it */
    struct arena_cache cache; /* what a run took, for the next */
};
struct host_late {
    /* What the late nodes of b read; in lives in the arena. */
    int (*plan)(const struct bound *b, struct arena *a, struct late *ret, struct err *err);
    /* When the slot is opened: memory that a run needs by what is known of its shapes. */
    int (*reserve)(const struct late *l, struct late_slot *s);
    /* Any thread.  ptr: of in[].  Takes memory where it needs more than any run of the slot before,
     * or more than is kept for one (LATE_KEPT_BYTES).  Codes as in struct done. */
    int (*run)(const struct late *l, struct late_slot *s, void *const *ptr, size_t limit_bytes,
               struct err *err);
    void (*forget)(struct late_slot *s);
};

/* What is lost: the partition, its device (all partitions of it say so), or the process's hold on
 * the device, so that it must leave. */
enum part_fault { FAULT_NONE, FAULT_PART, FAULT_DEVICE, FAULT_PROCESS };

struct backend {
    const char *name;
    uint32_t abi;

    /* ---- main thread, at start */
    /* List the devices; *ret_n of them, at most max.  -ENODEV: none, err says why. */
    int (*devices)(const struct backend_config *cfg, struct device_info *ret, size_t max,
                   size_t *ret_n, struct err *err);

    /* ---- builder thread */
    int (*dev_open)(const struct backend_config *cfg, unsigned index, struct device **ret,
                    struct err *err);
    void (*dev_close)(struct device *dev);
    /* 1: the device has the region's pages from now on, they must stay until host_close.  0: it
     * need not. */
    int (*host_open)(struct device *dev, const struct host_region *region, struct err *err);
    void (*host_close)(struct device *dev, const struct host_region *region);
    /* *ret_units: the units really got.  Disjointness is the planner's, and checked there.  A
     * partition may be opened on granules that a retiring one still uses (make before break). */
    int (*part_open)(struct device *dev, const struct granules *set, struct part **ret,
                     uint32_t *ret_units, struct err *err);
    /* Nothing in flight unless it is lost; all slots and exes closed. */
    void (*part_close)(struct part *p);
    /* A constant on the device, by content hash and layout (the backend's number); counted. */
    int (*weights_get)(struct device *dev, const struct constant *c, uint64_t layout,
                       struct weights **ret, struct err *err);
    void (*weights_put)(struct device *dev, struct weights *w);
    int (*compile)(struct part *p, const struct compile_args *args, struct exe **ret,
                   struct err *err);
    void (*exe_info)(const struct exe *x, struct exe_info *ret);
    void (*release)(struct exe *x);
    int (*slot_open)(struct exe *x, struct slot **ret, struct err *err);
    void (*slot_close)(struct slot *s);
    /* n timed runs of segments [from, to) on made-up input, warm; ns each into ret_ns.  From any
     * thread while nobody else uses the partition. */
    int (*probe)(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
                 struct err *err);

    /* ---- the executor that owns the partition */
    /* Called once on the executor before anything else: pins it to the partition's units. */
    void (*part_enter)(struct part *p);
    /* Run segments [from, to).  May run synchronously: the ticket is then already done and the
     * next wait() returns it.  At most MAX_LANES tickets are out.  Runs of one lane follow each
     * other, and run_ns is of each alone; those of different lanes share the partition's units,
     * unless the device is in_turn. */
    int (*submit)(struct slot *s, unsigned lane, unsigned from, unsigned to, const struct io *io,
                  ticket *ret);
    /* Returns on any finished ticket, at until_us, on a kick, or on a fault; how many are in
     * done[]. */
    size_t (*wait)(struct part *p, usec_t until_us, struct done *done, size_t max);
    enum part_fault (*fault)(struct part *p);
    /* Gives up what is in flight, as it does not end: no memory of it is touched any more, and the
     * partition is lost (FAULT_PART).  NULL: it cannot, as where submit() runs synchronously. */
    void (*abort)(struct part *p);
    /* Of an exe with late_outputs (it runs one request at a time, and its io's out pointers are
     * not used): the outputs of the run that was done last, in graph order, valid until the next
     * submit to this slot. */
    void (*outputs)(const struct slot *s, struct tensor *ret);

    /* ---- any thread */
    void (*kick)(struct part *p); /* the next or present wait() returns at once */

    /* Of a plug-in: where backend_find() puts what does late nodes for it; else NULL. */
    const struct host_late **late;
};

extern const struct backend backend_cpu, backend_sim;
extern const struct host_late host_late;
/* The table of that name; "cuda" is opened from a shared object.  -ENOENT lists the names. */
int backend_find(const char *name, const struct backend **ret, struct err *err);
/* What the operator configured: a name as above, or "auto": cuda where its plug-in finds a device,
 * else cpu.  Where it is cpu, *no_gpu (code 0 otherwise) says why not cuda.  A plug-in that is
 * there but wrong, and a partition mode that is named but cannot be had, are errors.  Main thread.
 */
int backend_choose(const char *name, const struct backend_config *cfg, const struct backend **ret,
                   struct err *no_gpu, struct err *err);
