/* The CUDA plug-in from inside.
 *
 *   plugin.c   the exported table
 *   driver.c   libcuda, and nvml.c NVML, opened at run time
 *   error.c    what the driver's codes mean
 *   mode.c     which of the modes a device is cut by
 *   mode_*.c   one each
 *   device.c   listing devices, taking one, request memory
 *   part.c     partitions: whose context is current where, waiting
 *   streams.c  a partition's streams, and whose run goes to which
 *   vmm.c      device memory that belongs to a device and not to a context
 *   library.c  the kernels' code
 *   weights.c  constants on the device
 *   exe.h, build.c, compile.c, lower_*.c  a bound graph becomes launches of kernels
 *   half.c     what is stored in 16 bits
 *   choice.h   which of a library's ways is taken: choice.c, contest.c
 *   late.c     what only data can tell: the end of a run, on the host
 *   slot.h     a slot; exec.c runs it, copy.c brings rows in and results out, capture.c makes
 *              graphs of its segments
 *   nvlib.h    cuBLASLt and cuDNN, which do the heavy nodes where they are there: nvlib.c; blas.c,
 *              blas_product.c, blas_algo.c; dnn.c, dnn_conv.c, dnn_plan.c, dnn_algo.c
 *
 * A context is current to one thread at a time, which holds its partition's `use` lock
 * (part_begin(), part_end()): a green context demands it, and in all modes it keeps a probe on the
 * builder from running into the executor. */
#pragma once

#include "driver.h"

#include <gpulet/backend.h>
#include <kernels/cuda/args.h>
#include <pthread.h>

/* ---- error.c; any thread */
/* 0, or our code for it, and err names the call, the driver's code and what it means. */
int gpu_check(CUresult r, const char *call, struct err *err);
#define GPU(call, err) gpu_check(cu.call, #call, err)
/* A code came after which no call of this process works any more. */
bool gpu_is_lost(void);

/* ---- mode.c and mode_*.c */
struct mode {
    const char *name;
    enum part_mode mode;
    bool one_thread; /* a context may be current to one thread only */
    /* Main thread.  Can the device be cut so?  Sets granule_units, n_granules, weights_shared,
     * let_bytes and why.  Otherwise err says why not. */
    int (*probe)(CUdevice d, struct device_info *ret, struct err *err);
    /* Builder.  Sets dev->ctx; what open() began and did not finish is close()'s, too. */
    int (*open)(struct device *dev, struct err *err);
    void (*close)(struct device *dev);
    /* Sets p->ctx and p->units and opens the streams; part_close() takes what part_open() left half
     * done. */
    int (*part_open)(struct part *p, struct err *err);
    void (*part_close)(struct part *p);
};
extern const struct mode mode_mps, mode_green, mode_mig, mode_shared;
/* The mode called `name`; "" and "auto": the first that can be had.  A mode that is named fails
 * and does not degrade.  Fills ret's mode, granules and why. */
int mode_choose(const char *name, CUdevice d, const struct mode **ret_mode, struct device_info *ret,
                struct err *err);
/* All SMs, in one granule: of `shared`, and of a MIG device. */
int whole_open(struct device *dev, struct err *err);
void whole_close(struct device *dev);
/* The same, and whose models share them by priorities: asks what the driver offers. */
int shared_open(struct device *dev, struct err *err);
int shared_part_open(struct part *p, struct err *err);
int gpu_attribute(CUdevice d, CUdevice_attribute a, int *ret, struct err *err);

/* ---- weights.c; builder */
struct chunk;  /* of device memory, for many constants */
struct space { /* constants in memory that one context, or all of a device, can read */
    struct weights *weights;
    struct chunk *chunks;
};

/* ---- mode_mps.c */
struct capped { /* a context with a cap of SMs */
    CUcontext ctx;
    uint32_t asked, units; /* SMs: the cap asked for, the cap that is */
    bool used;
    struct space space; /* where each context has its own weights */
};
#define MPS_CONTEXTS_MAX 60

/* ---- library.c */
enum gpu_kernel {
#define NAMED(name) KERNEL_##name,
    GPU_KERNELS(NAMED)
#undef NAMED
        GPU_KERNEL_END
};
/* Loads the kernels for the device; no context need be current. */
int library_open(struct device *dev, struct err *err);
void library_close(struct device *dev);

/* ---- mode_green.c */
struct split { /* of all SMs of a device */
    uint32_t n;
    CUdevResource group[MAX_GRANULES];
    CUdevResource rest; /* what is left over; smCount may be 0 */
};

/* ---- streams.c: priorities that the driver offers, the greatest first */
#define LEVELS_MAX 6
struct levels {
    unsigned n; /* at least 1 */
    int least;  /* the driver's number of the last; lower goes first */
};
/* Those of a device, in a context of it. */
int levels_ask(CUcontext ctx, struct levels *ret, struct err *err);
/* What a partition with so many takes, as far as is known. */
size_t levels_bytes(unsigned n);
/* What runs of one level are on. */
struct line {
    CUstream stream;          /* launches, and copies that are not worth another stream */
    CUstream out;             /* results: behind those of the same level alone */
    struct cudnnContext *dnn; /* or NULL; used under `use`, on stream */
    bool dnn_used;            /* builder: it was once, as the first time takes memory */
    unsigned n_out;           /* executor: tickets of its runs */
};

/* ---- device.c */
struct device {
    CUdevice cu;
    const struct mode *mode;
    struct device_info info;
    CUcontext ctx; /* for what belongs to no partition; builder */
    unsigned n_parts;
    bool pinned;      /* the request memory, by this device */
    size_t run_bytes; /* that the late part of a run may take */
    int (*thread)(void *ctx, pthread_t *ret, void *(*fn)(void *), void *arg); /* or NULL */
    void *thread_ctx;
    struct choices *choices; /* what was measured of its libraries, or NULL */
    _Atomic usec_t ran_us;   /* when an executor last submitted a run; 0: never */
    CUlibrary library;
    CUkernel kernel[GPU_KERNEL_END];
    struct space space;   /* where weights are shared by all contexts */
    struct split split;   /* green */
    struct levels levels; /* shared, mig */
    uint32_t n_capped;    /* mps: the pool */
    struct capped capped[MPS_CONTEXTS_MAX];
};
int gpu_devices(const struct backend_config *cfg, struct device_info *ret, size_t max,
                size_t *ret_n, struct err *err);
int gpu_dev_open(const struct backend_config *cfg, unsigned index, struct device **ret,
                 struct err *err);
void gpu_dev_close(struct device *dev);
int gpu_host_open(struct device *dev, const struct host_region *region, struct err *err);
void gpu_host_close(struct device *dev, const struct host_region *region);

/* ---- part.c */
struct part {
    struct device *dev;
    struct granules set;
    uint32_t units; /* SMs really got */
    CUgreenCtx green;
    struct capped *capped;
    CUcontext ctx;
    struct levels levels;
    struct line line[LEVELS_MAX]; /* by level */
    CUstream in;                  /* inputs of all runs: nothing on it waits */
    CUstream builders;            /* constants, warming and capture, which must not wait for runs */
    size_t graph_bytes;           /* builder: what captured graphs take, as far as is known */

    struct cublasLtContext *blas; /* or NULL; used under `use` */
    struct cudnnContext *dnn;     /* the same, on builders */

    pthread_mutex_t use;     /* held while ctx is current to the holder's thread */
    _Atomic unsigned n_wait; /* threads that want it */
    struct part *workshop;   /* part_workshop(), or NULL; builder */
    _Atomic bool entered;    /* it has an executor */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool kicked;           /* under lock */
    struct slot *finished; /* under lock: runs that ended and were not taken yet, oldest first */

    struct tails *tails;          /* late.c: there while a slot with a late part is; builder */
    ticket last_ticket;           /* executor */
    unsigned n_out;               /* executor: its tickets */
    struct slot *last[MAX_LANES]; /* executor: by lane, its last run while that is out */
};
int gpu_part_open(struct device *dev, const struct granules *set, struct part **ret,
                  uint32_t *ret_units, struct err *err);
void gpu_part_close(struct part *p);
int part_begin(struct part *p, struct err *err);
void part_end(struct part *p);
/* Lets others in that wait; between part_begin() and part_end(), also if it fails, by whoever takes
 * long. */
int part_yield(struct part *p, struct err *err);
/* Builder.  Where to compile for p: while p has an executor, a partition of the same SMs with
 * handles and a stream of its own, whose lock no run waits for, p's until it is closed; before
 * that p itself.  If it fails: p, too, and runs wait for what is compiled. */
int part_workshop(struct part *p, struct part **ret, struct err *why);

/* ---- streams.c: the streams of the partition's context, for the levels that are set; closed
 * before it is, half open ones too. */
int streams_open(struct part *p, struct err *err);
void streams_close(struct part *p);
/* Where such a run goes; NULL: one of no request. */
struct line *line_of(struct part *p, const struct io *io);
/* Until nothing that was begun on a line is under way; the partition's context is current. */
void line_settle(struct part *p, const struct line *line);
/* The first error of any of them; the context is current. */
int streams_look(struct part *p, struct err *err);

/* ---- vmm.c: memory of the device, which every context that may reach it sees */
struct vmm {
    CUdeviceptr at;
    size_t bytes;
    CUmemGenericAllocationHandle handle;
};
/* A context of the device is current. */
int vmm_open(CUdevice d, size_t bytes, struct vmm *ret, struct err *err);
void vmm_close(struct vmm *v);

/* ---- weights.c */
/* The constant in device memory the partition can read, uploaded if it is not there yet; counted.
 * The partition's context is current. */
int weights_in(struct part *p, const void *data, size_t bytes, struct hash128 hash,
               struct weights **ret, struct err *err);
/* NULL: it has to be uploaded. */
struct weights *weights_have(struct part *p, size_t bytes, struct hash128 hash);
void weights_out(struct part *p, struct weights *w);
CUdeviceptr weights_at(const struct weights *w);
/* All constants are given back. */
void space_done(struct space *s);

/* ---- compile.c, exec.c */
int gpu_compile(struct part *p, const struct compile_args *args, struct exe **ret, struct err *err);
void gpu_exe_info(const struct exe *x, struct exe_info *ret);
void gpu_release(struct exe *x);
int gpu_slot_open(struct exe *x, struct slot **ret, struct err *err);
void gpu_slot_close(struct slot *s);
int gpu_probe(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
              struct err *err);
int gpu_submit(struct slot *s, unsigned lane, unsigned from, unsigned to, const struct io *io,
               ticket *ret);
size_t gpu_wait(struct part *p, usec_t until_us, struct done *done, size_t max);
void gpu_kick(struct part *p);

/* ---- late.c */
/* What runs late nodes; set when the plug-in is opened. */
extern const struct host_late *gpu_late;
void gpu_outputs(const struct slot *s, struct tensor *ret);
