/* The problem file: one JSON form for devices, models, SLOs, rates and profiles, for plans and
 * for measured pairs (docs/problem-file.md is the reference).  Read into the structs of plan.h
 * and predict.h, written from them.
 *
 * A file holds a problem, a plan (key `plan`), pairs (key `pairs`), or several of these; each
 * reader looks at its own part.  Reading: everything is allocated in *a; -EINVAL names path
 * (`models[3].profile.v100.run_ms[0][12]`), value and what was expected; -EFBIG: more bytes than
 * the limit; -ENOMEM.  Printing: a malloc'ed text that the caller frees; what is printed and read
 * again prints the same bytes.  Numbers are written as the C locale does. */
#pragma once

#include <gpulet/accuracy.h>
#include <gpulet/plan.h>

#define PROBLEM_VERSION 1

/* What a file can make us allocate. */
#define PROBLEM_MAX_BYTES (64u << 20)
#define PROBLEM_MAX_TYPES 64
#define PROBLEM_MAX_DEVICES 65536
#define PROBLEM_MAX_MODELS 65536
#define PROBLEM_MAX_GPULETS 1048576
#define PROBLEM_MAX_PAIRS 1048576
#define PROBLEM_MAX_NAME 128 /* bytes */

int problem_parse(const char *json, size_t bytes, struct arena *a, struct problem *ret,
                  struct err *err);
int problem_print(const struct problem *p, char **ret, struct err *err);

/* A plan by the names of p.  It is not verified: see plan_check().  Without `verdicts` every model
 * that has a share counts as met and the others have LIMIT_UNITS. */
int plan_parse(const char *json, size_t bytes, const struct problem *p, struct arena *a,
               struct plan *ret, struct err *err);
int plan_print(const struct problem *p, const struct plan *plan, char **ret, struct err *err);
/* Both in one file: what there is to plan and what runs. */
int problem_plan_print(const struct problem *p, const struct plan *plan, char **ret,
                       struct err *err);

/* Measured pairs for fit_interference(): two runs side by side give two of them.  A fold is an
 * unordered pair of models. */
struct pairs {
    uint32_t n, n_folds;
    uint32_t type; /* of device, index into problem.type */
    const struct fit_pair *pair;
    const char *const *fold; /* [n_folds]: "alexnet+vgg19" */
};
int pairs_parse(const char *json, size_t bytes, const struct problem *p, struct arena *a,
                struct pairs *ret, struct err *err);

/* What was measured of one model, as the daemon keeps it: a problem file of that model alone, with
 * the key `measured`.  It is good for what its key says and for nothing else. */
#define MEASURED_MAX_BYTES (1u << 20)
#define MEASURED_MAX_POINTS 512
#define MEASURED_MAX_BESIDE 64
#define MEASURED_MAX_SEGMENTS 64
#define MEASURED_MAX_OUTPUTS 64
struct measured_key {
    const char *graph;     /* hash of the file, its external data and the version of the passes */
    const char *precision; /* and how it is compiled */
    const char *shape;     /* free dimensions but the batch */
    const char *backend, *library;
    const char *device, *mode; /* kind of device, how it is cut */
};
struct measured {
    struct measured_key key;
    uint32_t n_points;
    const struct measured_point *point;
    uint32_t n_beside; /* beside a stressor (predict.h) */
    const struct beside_run *beside;
    uint32_t n_segments;         /* 0: not measured */
    struct measured_point whole; /* batch and units that the segments were run with */
    const usec_t *segment_us;
    struct accuracy accuracy; /* n_out 0: not compared */
};
int measured_print(const struct problem *p, const struct measured *m, char **ret, struct err *err);
int measured_parse(const char *json, size_t bytes, struct arena *a, struct measured *ret,
                   struct err *err);
/* The name of the first field in which the keys differ, and both values; NULL: there is none. */
const char *measured_differs(const struct measured_key *a, const struct measured_key *b,
                             const char **ret_a, const char **ret_b);
