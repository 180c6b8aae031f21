/* A driver without a GPU, for tests: libcuda.so.1, libnvidia-ml.so.1, libcublasLt.so.13 and
 * libcudnn.so.9 on host memory.
 *
 * It keeps the rules that the documentation states and counts who breaks one: a green context is
 * current to one thread at a time, streams die before their context, all SM groups come from one
 * split, and what two streams touch is ordered by an event or by the host (fake_order.c).  It knows
 * nothing of how fast or how exact a GPU is.
 *
 * A test sets the knobs before the plug-in is asked anything; a process that is only started with
 * the library in its LD_LIBRARY_PATH sets them with FAKE_GPU, such as "gpus=2 sms=108 major=8";
 * FAKE_GPU_FAIL names a call that fails once, with fail_code, FAKE_GPU_DIE one that ends the
 * process by SIGSEGV.  FAKE_GPU_STRICT is a word of the rules that, once broken, end it, too, by
 * SIGABRT. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define FAKE_LOG_BYTES 65536
#define FAKE_GPUS_MAX 2
#define FAKE_STREAMS_MAX 64
#define HELD_STREAM(n) (2 + (n))
#define FAKE_WAYS_MAX 8

struct fake_gpu {
    /* knobs */
    int gpus;                      /* 0 to FAKE_GPUS_MAX */
    int version;                   /* of CUDA, as the driver says it: 13000 */
    int driver;                    /* the last of its own version's numbers: 6 */
    int sms, major;                /* of each device; its compute capability */
    int groups_lost;               /* groups of SMs fewer than sms allows: chips differ */
    int mps;                       /* this process is a client of MPS */
    int cap_step;                  /* SM caps are rounded up to a multiple of it */
    int contexts_max;              /* that MPS has for a device */
    int held;                      /* runs do not end: 1 none, HELD_STREAM(n) those on stream n */
    int least, greatest;           /* priorities of streams, 0 and -5 */
    int vmm_private;               /* another context does not see VMM memory */
    int mig;                       /* device 0 is a MIG instance */
    int mig_elsewhere;             /* NVML knows an instance that this process does not see */
    const char *fail_call;         /* this call fails, */
    int fail_code, fail_times;     /* with this code, so many times; -1: always */
    const char *_Atomic slow_call; /* this call takes */
    int slow_ms;                   /* so long, set before it, and others go on meanwhile */
    int capture_refused;           /* a stream does not begin to capture */
    int fail_after;                /* but lets so many pass before */
    int library_workspace;         /* bytes that whatever they offer wants: 4096 */
    int library_cuda;              /* the CUDA that the libraries are made for: 13000 */
    int library_refuses; /* they know no way to do: 1 anything, 2 what is fused behind a bias, or an
                            activation behind a product */
    int library_columns; /* of the widest product that they do; 0: any */
    int library_offers;  /* so many good ways, at most FAKE_WAYS_MAX: 3 */
    int cost_ms[FAKE_WAYS_MAX]; /* a launch of that way sets the clock of events forward, */
    int cost_real;              /* and takes so long */
    int ways_turned;            /* cuDNN proposes them beginning with this one */
    int way_fails;              /* launches of way n - 1 do; 0: none */
    /* what was done */
    int way_runs[FAKE_WAYS_MAX];       /* launches that were run, by way, */
    int way_failed;                    /* and those that failed */
    unsigned long long clock_ahead_ns; /* of events */
    int nvml_inits, nvml_ends;
    int splits[FAKE_GPUS_MAX];
    int contexts, green, streams, mappings, registered, primaries; /* alive now */
    int events, allocations;                                       /* the same */
    int handles, descriptors;                                      /* the same, of libraries */
    int handles_used; /* so often one for the first time */
    int graphs;       /* the same, executable ones */
    int contexts_made;
    int contexts_ever; /* primary and green ones, too */
    int broken;        /* rules, and the first: */
    const char *rule;
    size_t used;
    char log[FAKE_LOG_BYTES];       /* names of the calls, each with a newline */
    int streams_made;               /* they are numbered as they are made */
    int priority[FAKE_STREAMS_MAX]; /* of those */
    size_t traced;
    char trace[FAKE_LOG_BYTES]; /* what was put on streams: call, a blank, the stream's number */
};

/* Exported by the library. */
#define FAKE_SYMBOL "fake_gpu"
typedef struct fake_gpu *fake_gpu_fn(void);

/* What the fakes of the libraries need of it; exported, too. */
#define FAKE_DRIVER_SYMBOL "fake_driver"
struct fake_driver {
    struct fake_gpu *gpu;
    /* The call is written down; 0, or the status that it has to answer. */
    int (*enter)(const char *name);
    void (*broken)(const char *rule);
    void *(*context)(void); /* current to the caller, or NULL */
    /* So many handles more that must be gone before it. */
    void (*hold)(void *context, int n);
    /* On the stream, in its turn: fn, with a copy of the data.  -1: not in this context. */
    int (*run)(void *stream, void (*fn)(const void *data), const void *data, size_t bytes);
};
