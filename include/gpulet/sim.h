/* The sim backend's side of a problem file, its faults at run time, and how exact it is.
 *
 * `sim-file` is a problem file (problem.h): its devices are the devices, their types' interference
 * and the models' profiles say what runs take.  The key `sim` says what only a device in real time
 * needs; docs/problem-file.md is the reference. */
#pragma once

#include <gpulet/problem.h>
#include <gpulet/tally.h>

#define SIM_MAX_FAULTS 64 /* of a file, and pending on a device */

enum sim_fault_kind {
    SIM_STALL, /* submit() does not return for a while */
    SIM_FAIL,  /* the run fails */
    SIM_HANG,  /* the run never ends */
    SIM_LOST,  /* the partition is lost, with what it runs */
    SIM_GONE,  /* the device is lost, with all its partitions */
    SIM_EXIT,  /* the process must leave */
};

/* Befalls a run of a model, counted on each device for itself, or what is on a granule of a device.
 */
struct sim_fault {
    enum sim_fault_kind kind;
    const char *model;
    uint64_t run;       /* of it: the n-th to begin, from 1 */
    const char *device; /* only there; may be NULL if there is a model */
    uint32_t granule;   /* model NULL */
    usec_t after_us;    /* from the start, or from sim_inject() */
    usec_t stall_us;    /* SIM_STALL: for so long */
};

struct sim_spec {
    usec_t ahead_us; /* as in struct device_info */
    /* Of models that have no profile. */
    usec_t launch_us;
    double flops_per_s, bytes_per_s;
    uint32_t n_echo, n_faults;
    const char *const *echo; /* models that answer with their input's bytes */
    const struct sim_fault *fault;
};

/* The key `sim` of a file that problem_parse() has read; defaults where it is absent.  As
 * problem_parse(). */
int sim_parse(const char *json, size_t bytes, const struct problem *p, struct arena *a,
              struct sim_spec *ret, struct err *err);
/* One fault: an object as in the list `faults`. */
int sim_fault_parse(const char *json, size_t bytes, struct arena *a, struct sim_fault *ret,
                    struct err *err);

/* ---- of the running backend; any thread */

/* A fault from now on: `run` and `after_us` count from this call.  -ENOENT: no such device is open;
 * -ENOSPC: SIM_MAX_FAULTS wait for their moment. */
int sim_inject(const struct sim_fault *f, struct err *err);
/* By how many us the ends of runs were told too late; runs of this process. */
const struct tally *sim_lag(void);
