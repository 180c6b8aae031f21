/* What the files of lib/replay share. */
#pragma once

#include <gpulet/demand.h>
#include <gpulet/replay.h>

#include <lib/plan/random.h>
#include <lib/plan/plan_priv.h> /* problem_check() */

/* ---- agenda.c: when each source of events is next due.  A tournament: its root is the source that
 * is due first, of those due at the same time the one with the least number.  A source has one
 * time; setting it again replaces it. */
struct agenda {
    uint32_t n_leaves; /* a power of two */
    uint32_t *winner;  /* [n_leaves * 2]; [1] is the root */
    usec_t *at_us;     /* [n_leaves] */
};
int agenda_init(struct agenda *g, uint32_t n_sources, struct arena *a);
void agenda_set(struct agenda *g, uint32_t source, usec_t at_us);
static inline uint32_t agenda_first(const struct agenda *g)
{
    return g->winner[1];
}

/* ---- arrive.c: when requests of a model come.
 *
 * Gaps are drawn in units of the mean gap and shrunk by the rate, so that a change of rate in the
 * middle of a gap changes what is left of it. */
struct source {
    struct random random;
    const struct replay_load *load;
    enum replay_kind kind; /* never REPLAY_MODEL */
    double base_rate;      /* arrivals (trace: microseconds of it) in a microsecond */
    double factor, rate;   /* now */
    double next_us;        /* of the next arrival; infinite when there is none */
    double left;           /* while the rate is 0: what is left of the gap */
    double shape;          /* REPLAY_GAMMA: 1 / cv^2 */
    uint32_t at;           /* REPLAY_TRACE: index of the next one */
    bool on;               /* REPLAY_ONOFF */
    double switch_us;      /* REPLAY_ONOFF: when it changes; else infinite */
};
int source_init(struct source *s, const struct replay_config *cfg, uint32_t model, struct err *err);
/* Step past the arrival at next_us.  False: there was none, by thinning. */
bool source_step(struct source *s);
void source_switch(struct source *s, double now_us);
void source_factor(struct source *s, double now_us, double factor);

/* ---- runs.c: what a run takes */
struct run_table { /* of a model on so many units of a type, as one of so many that share them */
    uint32_t model, type, units, beside, streams, cap;
    struct solo *solo;        /* [0..cap] by rows, [0] unused */
    double *run_us, *hold_us; /* likewise, alone on the device */
    struct run_table *next;
};

/* One model in one gpu-let. */
struct seat {
    uint32_t let, model, cap, streams, n_flying;
    uint32_t slot; /* in its model's list of living seats; PLAN_NONE: its device is gone */
    const struct run_table *runs;
    usec_t *view_us; /* [0..cap]: what the policy believes that a run takes */
    double part;     /* of its model's requests, by the plan */
    usec_t work_us;  /* what a waiting request adds to the work, as the daemon counts it */
    usec_t turn_us;  /* policy.h */
    const struct run_table **among; /* [0..lanes]: side by side with so many; or NULL */
    /* Waiting requests, by their arrival: a ring that doubles when it is full. */
    usec_t *ring;
    uint32_t first, n, size;
};

struct let {
    uint32_t device, first_seat, n_seats, first_lane, n_lanes, n_flying;
    uint32_t n_sure; /* of the seats, the first ones: those behind them are of best effort, */
    usec_t spare_us; /* with runs of at most so long */
    const struct solo *pushed; /* what it has in its device's pressure; NULL: it is idle */
    enum plan_order order;
    usec_t work_us, busy_from_us, busy_us, idle_us; /* idle_us: since when, while nothing runs */
    usec_t meek_us;        /* the last request of a model within its allowance; 0: none yet */
    usec_t slack_us;       /* policy.h */
    uint32_t turn;         /* seat that ran last, PLAN_NONE: none has */
    struct flight *flight; /* [n_lanes]: models run side by side; or NULL */
};

/* A run side by side with others on the same units. */
struct flight {
    uint32_t n, room;
    usec_t *arrival_us;          /* of its requests */
    double left, run_us, factor; /* part to do; of a whole run now; of this run's time */
};

struct device {
    uint32_t first_let, n_lets; /* in replay.by_device */
    bool down;
    usec_t fails_us; /* next; the policies do not know it */
    usec_t moved_us; /* until when left of its flights is right */
    struct pressure pressure;
};

/* One model's seats. */
struct party {
    struct let_view *view; /* of the living ones */
    uint32_t *seat;        /* likewise, and which seat it is */
    uint32_t n_seats, n_living, n_queued;
    usec_t slo_us;
    struct allowance sure;
    double burst;
    int64_t used_ns; /* of its allowance, */
    usec_t loud_us;  /* and the last request beyond it; 0: none yet */
};

struct replay {
    const struct replay_config *cfg;
    const struct policy *policy;
    struct arena *arena;
    struct err *err;
    struct replay_result *ret;
    usec_t now_us;
    struct agenda agenda;
    struct random noise;
    double noise_mu, noise_sigma; /* of the logarithm */
    bool out_of_memory;

    uint32_t n_lets, n_seats, n_lanes, n_devices, n_models, next_event, queue_max;
    struct let *let;
    struct seat *seat;
    struct device *device;
    uint32_t *by_device; /* gpu-lets in the order of their devices */
    uint32_t *lane_seat; /* [n_lanes]: whose run is in flight */
    usec_t *lane_us;     /* [n_lanes]: until when, as predicted; 0: free */
    struct party *party;
    struct source *source;
    struct run_table **tables; /* [n_models] */
    struct queue_view *queue;  /* scratch for one gpu-let */
};

/* Sources of events in the order in which they go at one moment. */
static inline uint32_t event_lane(uint32_t lane)
{
    return 1 + lane;
}
static inline uint32_t event_switch(const struct replay *r, uint32_t model)
{
    return 1 + r->n_lanes + model;
}
static inline uint32_t event_arrival(const struct replay *r, uint32_t model)
{
    return 1 + r->n_lanes + r->n_models + model;
}
static inline uint32_t event_timer(const struct replay *r, uint32_t let)
{
    return 1 + r->n_lanes + 2 * r->n_models + let;
}

int run_table_find(struct replay *r, const struct plan_gpulet *g, const struct plan_share *s,
                   uint32_t beside, const struct run_table **ret);
/* How much longer than predicted a run takes. */
double run_noise(struct replay *r);
/* What the policies are told of each share's runs: beside the planned duty of its neighbours. */
void views_predict(struct replay *r);
/* The run of so many rows that starts now in seat s, beside what is in flight on the device. */
void run_estimate(struct replay *r, struct seat *s, uint32_t rows, usec_t *run_us, usec_t *hold_us);
void let_push(struct replay *r, struct let *g, const struct solo *s);
void let_pull(struct replay *r, struct let *g);

/* ---- together.c: models side by side in a gpu-let */
int together_setup(struct replay *r, struct let *g, const struct plan_gpulet *from);
void together_start(struct replay *r, struct seat *s, uint32_t take, uint32_t lane);
/* The run of a lane is over, or was lost on the way. */
void together_end(struct replay *r, uint32_t lane);

/* ---- setup.c */
int replay_setup(struct replay *r);

/* ---- replay.c */
usec_t deadline_us(const struct replay *r, uint32_t model, usec_t arrival_us);
void seat_push(struct replay *r, struct seat *s, usec_t arrival_us);
usec_t seat_pop(struct replay *r, struct seat *s);
void seat_join(struct replay *r, uint32_t seat); /* its model's living ones */
void seat_leave(struct replay *r, struct seat *s);
void run_end(struct replay *r, uint32_t lane);
void answer_count(struct replay *r, uint32_t model, usec_t arrival_us, usec_t done_us, bool lost);
/* What admission and routing see of the model's gpu-lets, as it is now. */
void views_show(struct replay *r, const struct party *y);
/* Ask the policy until it waits or nothing more can start. */
void let_look(struct replay *r, struct let *g);
void source_reschedule(struct replay *r, uint32_t model);

/* ---- change.c */
void config_due(struct replay *r); /* the next event of the configuration */
