/* The replay part of `make race`: see test/race/README.md for what is asked. */
#pragma once

#include <gpulet/replay.h>

#define TRIALS_MOST 16
#define SEEDS_MOST 32
#define STEPS 400 /* loads from bound * STEP^-(STEPS - ABOVE) up in steps of 1 % */
#define ABOVE 20
#define STEP 1.01

/* One line of grid.txt. */
struct trial {
    double margin;
    uint32_t queue_max;
    struct tuning tuning;
};
struct entrant {
    const struct policy *by;
    uint32_t n_trials;
    struct trial trial[TRIALS_MOST];
};
/* Every policy with its trials; ends the program where the file is wrong. */
uint32_t entrants_read(const char *path, struct entrant *ret, uint32_t most);

enum gaps { GAPS_POISSON, GAPS_GAMMA, N_GAPS };
extern const char *const gaps_name[N_GAPS];

struct mix {
    const char *name;
    struct problem p; /* rates at scale 1 */
    double bound;     /* scale at which the fluid bound fills the devices */
    double rate_rps;  /* of all at scale 1 */
    usec_t duration_us;
};
void mix_read(const char *name, uint32_t n_requests, struct arena *a, struct mix *ret);

/* A policy with one of its trials on one mix: its plans by load, kept for all seeds. */
struct field {
    const struct mix *mix;
    const struct policy *by;
    const struct trial *trial;
    enum gaps gaps;
    struct arena arena;
    struct problem *problem[STEPS]; /* NULL: not planned yet */
    struct plan *plan[STEPS];       /* NULL: it has none */
};
void field_init(struct field *f, const struct mix *m, const struct policy *by,
                const struct trial *t, enum gaps g);
void field_done(struct field *f);
double load_scale(const struct mix *m, uint32_t step);
/* The step at or below a scale. */
uint32_t load_step(const struct mix *m, double scale);

struct outcome {
    uint32_t n_models;
    double offered, in_time, worst; /* worst model's part in time; 1 with nothing offered */
    double good_rps[32];            /* in time, by model */
    double p99_us[32], events;
};
#define MODELS_MOST 32
/* Planned for the load of a step, offered `times` it; model `loud` (PLAN_NONE: none) 20 times. */
void field_run(struct field *f, uint32_t step, double times, uint32_t loud, uint64_t seed,
               struct outcome *ret);
/* The scale of the largest load with 99 % in time; 0: none.  *step: where to begin, and where it
 * ended. */
double field_capacity(struct field *f, uint64_t seed, uint32_t *step, struct outcome *ret);

/* ---- statistics */
double mean_of(const double *x, uint32_t n);
/* Half the width of the 95 % interval of the mean (Student). */
double half_width(const double *x, uint32_t n);
