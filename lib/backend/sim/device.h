/* Inside the sim backend.
 *
 * Locks: dev->lock guards the device's time (runs, partitions, faults); p->lock what the device
 * has told a partition (done, kicked, fault) and is taken under dev->lock, never the other way
 * round; the list of open devices has one of its own, which is taken before either. */
#pragma once

#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/sim.h>
#include <pthread.h>

#define NS_PER_US UINT64_C(1000)
#define NEVER_NS UINT64_MAX
#define SIM_MARK sizeof(((struct device_info *)0)->library)
#define SPIN_US 5                /* a sleep would take longer */
#define RUNS_MAX (MAX_LANES + 1) /* of a partition: a probe besides */

struct sim_model {
    const char *name;
    const struct profile *profile;
    bool echo;
};

struct fault { /* pending */
    struct sim_fault f;
    char model[PROBLEM_MAX_NAME + 1]; /* "": not of a model */
    uint64_t runs;                    /* of the model until it befalls one; 1: the next */
    uint64_t at_ns;                   /* not before; on a granule: then */
};

struct device {
    struct arena arena;
    struct device_info info;
    struct predict_device predict;
    struct sim_spec spec;
    uint32_t n_models;
    struct sim_model *model;
    struct device *next; /* under the list's lock */

    pthread_mutex_t lock;
    pthread_cond_t cond; /* the clock thread sleeps on it */
    pthread_t clock;
    bool started, stop;
    uint64_t now_ns;  /* of the last event */
    uint64_t wake_ns; /* when the clock thread looks again; 0: it looks now */
    struct part *parts;
    bool overlaps; /* some partitions have granules in common: a plan is being changed */
    bool gone;
    uint32_t n_faults;
    struct fault fault[SIM_MAX_FAULTS];
};

/* A run on the device. */
struct work {
    ticket ticket;
    const struct exe *exe;
    uint32_t lane;
    bool probe, begun, hangs;
    int rc;
    uint64_t ready_ns;         /* its input is there */
    uint64_t start_ns, end_ns; /* end: as things are now */
    double left, took_us;      /* part of it that is still to do; a whole one as things are now */
};

struct part {
    struct device *dev;
    struct part *next; /* under dev->lock */
    struct granules set;
    uint32_t units;

    /* under dev->lock */
    struct work work[RUNS_MAX]; /* in the order in which they came */
    uint32_t n_work, n_begun;
    ticket next_ticket;
    bool hang_next, fail_next; /* of the executor's runs */

    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
    enum part_fault fault;
    struct sim_done {
        struct done done;
        uint64_t end_ns;
        bool probe;
    } done[RUNS_MAX];
    uint32_t n_done;

    uint32_t n_out; /* executor: its tickets */
};

struct exe {
    struct part *part;
    const struct bound *bound;
    const struct sim_model *model; /* NULL: not named */
    char name[PROBLEM_MAX_NAME + 1];
    size_t weights_bytes;
    uint32_t n_batch; /* rows of a full run */
    /* a run of it, alone on the device: one of [0..MAX_LANES] at once in its partition */
    bool presses; /* solo says what it does to neighbours, and they to it */
    struct alone {
        struct solo solo;
        double hold_us;
    } as[MAX_LANES + 1]; /* [0] unused */
    double in_us;
};

/* ---- file.c */
/* mark: names the file's content; what was measured on its devices is nothing for another's. */
int device_read(const struct backend_config *cfg, struct arena *a, struct problem *p,
                struct sim_spec *s, char mark[SIM_MARK], struct err *err);
int device_fill(struct device *dev, const struct problem *p, unsigned index, struct err *err);

/* ---- time.c; under dev->lock */
/* Everything up to now happens, and what comes next is watched for. */
void device_advance(struct device *dev, uint64_t now_ns);
/* When something happens to the partition next, as things are. */
uint64_t part_next_ns(const struct part *p);
/* Loses the partition, and what it runs; in faults_befall(). */
void part_lose(struct part *p, enum part_fault fault);
void device_lose(struct device *dev, enum part_fault fault);
/* The same, now. */
void part_abort(struct part *p, uint64_t now_ns);
int device_start(struct device *dev, struct err *err);
void device_stop(struct device *dev);

/* ---- fault.c */
/* Under dev->lock: when the next one on a granule is due; and let those that are due befall. */
uint64_t faults_next_ns(const struct device *dev);
void faults_befall(struct device *dev, uint64_t now_ns);
/* Under dev->lock: what befalls this run; false: nothing. */
bool faults_take(struct device *dev, const char *model, uint64_t now_ns, struct sim_fault *ret);
int fault_add(struct device *dev, const struct sim_fault *f, uint64_t now_ns, struct err *err);
void device_list(struct device *dev);
void device_unlist(struct device *dev);

/* ---- answer.c */
void answer(const struct exe *x, const struct io *io);
