/* Inside the engine: who owns what, and under which lock.
 *
 *   engine  -> devices, pool, registry of models, the epoch in force, the builder thread
 *   epoch   -> routes (a model and its seats), gpu-lets; counted; immutable
 *   gpulet  -> a partition, its executor thread, its seats
 *   seat    -> one model in one gpu-let: its queues and what is compiled for it
 *   keyq    -> requests of one seat that may be joined (equal shape keys but for the batch), and
 *              one variant (exe and slot) for each batch bucket
 *   loaded  -> one opened version of a model, on all gpu-lets
 *
 * Epochs are counted by requests (under e->lock); gpu-lets, seats and loaded models are counted
 * by epochs and by the change that is being built, on the builder thread alone.  So a request
 * that pins its epoch keeps everything that it can reach.
 *
 * Locks: e->lock (registry, epoch counts, jobs), g->lock (queues, variants, predictions),
 * g->part_lock (the partition's life, for kicks), the events' lock.  No thread holds two; under
 * one there is no allocation but a served object's and no backend call but kick(). */
#pragma once

#include <gpulet/bucket.h>
#include <gpulet/clock.h>
#include <gpulet/demand.h>
#include <gpulet/engine.h>
#include <gpulet/model.h>
#include <gpulet/problem.h>

#include <pthread.h>
#include <stdatomic.h>

#define ROUTE_LETS_MAX 64  /* gpu-lets looked at for one request */
#define VIEW_QUEUES_MAX 64 /* queues that batch_next() sees at once */
#define EVENTS_MAX 1024
#define BUILDER_BOUND_US (300 * USEC_PER_SEC) /* a large model compiles for a while */
#define PROBE_RUNS 3
#define BESIDE_MAX 8 /* runs beside a stressor that are kept of a model */

/* ---- watching for stalls */
struct watch {
    _Atomic usec_t due_us; /* 0: not inside a call; else when it should be back */
    _Atomic(const char *) what;
};
static inline void watch_enter(struct watch *w, const char *what, usec_t due_us)
{
    atomic_store_explicit(&w->what, what, memory_order_relaxed);
    atomic_store_explicit(&w->due_us, due_us, memory_order_release);
}
static inline void watch_leave(struct watch *w)
{
    atomic_store_explicit(&w->due_us, 0, memory_order_release);
}

#define WATCHED(w, what, expr)                                                                     \
    ({                                                                                             \
        watch_enter((w), what, clock_now_us() + BUILDER_BOUND_US);                                 \
        __typeof__(expr) watched_ = (expr);                                                        \
        watch_leave(w);                                                                            \
        watched_;                                                                                  \
    })

/* ---- served.c */
struct stats_box { /* outlives the served objects of one version that share it */
    _Atomic uint32_t refs;
    struct served_stats s;
};
struct served_own {
    struct served pub; /* first */
    _Atomic uint32_t refs;
    struct arena arena;
    struct stats_box *stats;
};

struct loaded { /* builder, but for what is atomic and what never changes */
    char name[MODEL_NAME_MAX + 1];
    uint32_t version;
    bool batch_invariant;
    enum precision precision;
    uint32_t refs;
    struct model *model;
    const struct graph *graph;
    struct stats_box *stats;
    struct shape_key warm; /* the key that is compiled at load; batch dimension 0 */
    struct arena arena;    /* of the profile */
    struct profile profile;
    usec_t *run_us;               /* the profile's table */
    usec_t *base_us;              /* the estimates */
    struct measured_point *point; /* what was measured */
    uint32_t n_points, n_unsaved; /* unsaved: measured since profile_publish() */
    bool points_done;             /* nothing is left to be measured */
    uint32_t n_beside;
    struct beside_run beside[BESIDE_MAX];
    uint32_t n_timed; /* segments that were measured */
    struct measured_point whole;
    usec_t segment_us[MEASURED_MAX_SEGMENTS];
    bool beside_failed, segments_done; /* not tried again */
    struct accuracy accuracy;          /* under e->lock; its texts and outputs in the arena */
    struct {
        usec_t due_us, wait_us; /* not tried before; between this time and the next */
        unsigned n_failed;      /* by what passes */
    } comparing;
    _Atomic uint32_t n_kept;   /* points that were known when it was opened, */
    _Atomic uint32_t n_probed; /* and those that were run since, to be measured */
    _Atomic usec_t load_us;    /* from opening the file to the swap; 0: not yet */
    struct profile_text *text; /* under e->lock */
    uint64_t weights_bytes, slot_bytes;
    uint32_t n_segments;
    bool noted;                /* builder: the backend's note was made an event */
    _Atomic uint32_t n_plain;  /* most plain steps of what was compiled */
    _Atomic uint32_t n_asked;  /* nodes in the asked precision, of what was compiled last */
    uint32_t n_late;           /* nodes that run late */
    bool late_out[MAX_IO];     /* outputs whose shapes a run decides */
    _Atomic uint32_t n_queued; /* requests waiting, over all gpu-lets */
    _Atomic int64_t used_ns;   /* of its allowance (demand.h), */
    _Atomic usec_t loud_us;    /* and the last request beyond it; 0: none yet */
    struct demand demand;
    double plan_rps;  /* measured, to be planned for; 0: not known */
    double usual_rps; /* of demand_usual() */
    double room_rps;  /* of the declared rate: what there was room for since it was loaded */
    _Atomic double mean_rps, burst; /* of demand, for views */
    struct job *gone;               /* an unload that waits for this to be freed */
    struct cq *gone_cq;
};

int served_new(const struct model_spec *spec, struct loaded *l, struct served **ret,
               struct err *err);
struct served *served_get_ref(struct served *s);
struct stats_box *stats_new(void);
void stats_put(struct stats_box *b);
/* loaded.c */
int loaded_open(struct engine *e, const struct model_spec *spec, struct loaded **ret,
                struct err *err);
void loaded_put(struct engine *e, struct loaded *l);
/* A run of `batch` rows at the warm key took us: the profile follows. */
void loaded_measured(struct loaded *l, uint32_t batch, uint32_t units, usec_t us);
/* What such a run took when it was measured; 0: it was not. */
usec_t loaded_known_us(const struct loaded *l, uint32_t batch, uint32_t units);
bool loaded_batches(const struct loaded *l);
/* The table again, for another largest batch. */
int loaded_resize(struct engine *e, struct loaded *l, uint32_t max_batch, struct err *err);

/* ---- exe.c: what is compiled */
enum variant_state {
    EXE_NONE,
    EXE_LATER,    /* would help, nobody waits for it */
    EXE_WANTED,   /* requests wait for it */
    EXE_BUILDING, /* the builder works on it without the lock */
    EXE_READY,
    EXE_FAILED /* keyq->err says why */
};
/* A run's, and one's that goes ahead of its end. */
#define SLOTS_MAX 2
#define SLOTS_ALL ((1u << SLOTS_MAX) - 1)
struct variant {
    enum variant_state state; /* under g->lock, as are busy and used */
    unsigned busy;            /* by slot: a run uses it */
    uint64_t used;            /* turn of its last use */
    uint32_t rows;
    uint32_t renewed; /* builder: times that it was compiled anew, */
    usec_t renew_us;  /* and from when on it may be */
    /* set by the builder before READY, constant until it is taken out again */
    struct exe *exe;
    struct slot *slot[SLOTS_MAX]; /* the second where g->ahead_us says so and there was memory; it
                                     goes, under g->lock, where a first one needs it */
    struct bound *bound;
    struct arena arena;
    struct exe_info info;
};
struct keyq { /* under g->lock */
    struct keyq *next;
    struct seat *seat;
    struct shape_key key; /* batch dimension 0 */
    struct request *head, *tail;
    uint32_t n, rows;
    usec_t work_us; /* of seat.work_us */
    uint64_t used;
    usec_t bucket_us[BUCKETS_MAX]; /* predicted, follows what runs take */
    usec_t least_us[BUCKETS_MAX];  /* the fastest run seen, or the estimate if that is less */
    struct variant v[BUCKETS_MAX];
    struct err err;
};
struct seat {
    struct seat *next;                       /* under g->lock */
    struct seat *next_waiting, **at_waiting; /* in g->waiting, while something waits here */
    struct gpulet *g;
    struct loaded *l;
    uint32_t refs;      /* builder */
    uint32_t max_batch; /* constant */
    uint32_t n_buckets;
    struct seat *next_closing; /* builder */
    /* under g->lock */
    uint32_t batch; /* rows joined at most, by the plan in force */
    int32_t priority;
    double part; /* of the model's requests, by the plan; 0: it does not say */
    bool shared; /* the gpu-let serves other models too */
    bool best_effort;
    usec_t spare_us; /* of best effort: its runs here are no longer */
    usec_t work_us;  /* of g->work_us, what waits of it */
    uint32_t n_routed;
    uint32_t n_queued, n_keys;
    uint32_t n_flying; /* its runs */
    double slow;       /* a run takes so many times what it takes alone, by the plan */
    usec_t turn_us;    /* when its last turn began (policy.h) */
    struct keyq *keys;
    usec_t bucket_us[BUCKETS_MAX]; /* what a new key starts with */
    usec_t least_us[BUCKETS_MAX];
    usec_t fit_us[BUCKETS_MAX]; /* of the warm key, alone, by the profile when last looked at, */
    struct residual fit[BUCKETS_MAX]; /* and what serving shows of it */
    _Atomic uint64_t runs, rows;
};

int seat_new(struct gpulet *g, struct loaded *l, uint32_t max_batch, struct seat **ret,
             struct err *err);
/* What the plan says of neighbours: what is predicted follows. */
void seat_slow(struct seat *s, double slow); /* under g->lock */
bool rc_passes(int rc);                      /* an error that another try may not have */
/* Builder: compile the warm key's bucket and open its slot; -EALREADY when it is there. */
int seat_build(struct seat *s, struct keyq *q, uint32_t bucket, struct err *err);
int seat_probe(struct seat *s, struct keyq *q, uint32_t bucket, struct err *err);
int seat_warm_key(struct seat *s, struct keyq **ret, struct err *err);
/* Builder, nobody is served: compiles one of the model's variants anew that may be faster then.
 * False: there is none. */
bool variants_refine(struct engine *e, struct loaded *l, usec_t most_us);
/* Builder, nothing refers to the seat any more: takes it out of its gpu-let and frees it. */
void seat_close(struct seat *s);
struct keyq *keyq_new(struct seat *s, const struct shape_key *key);
/* under g->lock */
struct keyq *keyq_find(struct seat *s, const struct shape_key *key);
/* Nothing that holds so many rows is compiled, and it cannot be: q->err says why. */
bool keyq_hopeless(const struct keyq *q, uint32_t rows);
/* Links q; false when the seat holds KEYS_PER_MODEL_MAX keys that are all in use.  The key that
 * had to go is moved to g->dead_keys. */
bool keyq_link(struct keyq *q);
/* Builder: close what was evicted, or compile one variant of that state.  True: something done. */
bool gpulet_build_one(struct gpulet *g, enum variant_state want);
/* Builder, executor parked: closes every exe of the gpu-let and marks them wanted again. */
void gpulet_drop_exes(struct gpulet *g);

/* ---- gpulet.c */
enum gpulet_state {
    GPULET_OPENING,
    GPULET_SERVING,
    GPULET_RETIRING,
    GPULET_LOST, /* its partition: the builder opens another */
    GPULET_GONE  /* with its device */
};

struct run { /* executor only */
    bool used;
    bool
        beside; /* others of its gpu-let ran meanwhile: how long it took says nothing of it alone */
    bool ahead; /* the device will start it when the run before it ends */
    unsigned slot;
    ticket ticket;
    struct keyq *q;
    struct variant *v;
    uint32_t bucket, n, rows;
    struct request *first;
    usec_t handed_us, start_us; /* to the device; it begins there: the same, unless it went ahead */
    usec_t predicted_us;
    usec_t due_us; /* it hangs if it has not ended by then */
    struct io io;
    struct io_part part[BATCH_VIEW_MAX];
    void **ptr; /* in and out pointers of all parts */
    size_t n_ptr;
};

struct gpulet {
    struct engine *e;
    struct gpulet *next; /* e->gpulets, under e->lock */
    uint32_t id, device, units;
    struct granules set;
    uint32_t refs; /* builder */
    struct gpulet *next_closing;
    usec_t reopen_at_us; /* builder: a lost partition is not tried before */
    uint32_t max_flying;
    usec_t ahead_us; /* > 0: one more run may go ahead, so long before the end of the other */
    pthread_t thread;
    struct watch watch;
    _Atomic uint32_t n_flying, n_queued; /* for views */
    _Atomic uint64_t busy_ns[2];         /* run time in the even and odd seconds, for views */
    _Atomic uint64_t busy_second[2];
    _Atomic uint64_t busy_all_ns;
    struct tally ratio;       /* of runs: taken over predicted */
    _Atomic int state;        /* enum gpulet_state */
    _Atomic bool wants;       /* there is something for gpulet_build_one() */
    _Atomic bool wants_later; /* likewise, but nobody waits */
    _Atomic usec_t probe_us;  /* the builder measured here until then, or will have */

    pthread_mutex_t part_lock;
    struct part *part; /* under part_lock: kicks; else builder and executor */

    pthread_mutex_t lock;
    pthread_cond_t cond; /* only while the partition is lost */
    struct seat *seats;
    struct seat *waiting, **waiting_tail; /* those with requests: a turn looks at no others */
    enum plan_order order;                /* by the plan in force */
    const struct seat *turn_seat;         /* that ran last: to be compared, not followed */
    const struct seat *asked_seat;        /* that was asked for last: the same */
    usec_t asked_us, others_us;           /* when; when another one was last */
    usec_t meek_us;                       /* when one that is within its allowance was last */
    usec_t slack_us;                      /* policy.h */
    struct keyq *dead_keys;
    uint64_t gen;  /* changes whenever a keyq goes: what the executor remembers is then stale */
    uint64_t turn; /* clock of the least-recently-used order */
    usec_t work_us, spare_work_us; /* what waits, and of that what is of best effort */
    usec_t busy_until_us;
    bool kicked; /* for a request that the executor has not looked at yet */
    bool stopping;
    bool lost; /* the executor sets it, the builder takes it back */
    bool gone; /* for good: nothing may be put here any more */

    /* executor only */
    bool entered;
    usec_t busy_from_us; /* where there may be several runs: what is not counted yet */
    struct run run[MAX_LANES];
    struct queue_view view[VIEW_QUEUES_MAX];
    struct keyq *view_q[VIEW_QUEUES_MAX];
    usec_t *view_us; /* VIEW_QUEUES_MAX tables of MAX_BATCH_LIMIT + 1 */
};

int gpulet_open(struct engine *e, uint32_t device, const struct granules *set, struct gpulet **ret,
                struct err *err);
void gpulet_close(struct gpulet *g); /* builder; nobody refers to it */
void *gpulet_main(void *g);          /* the executor thread */
void gpulet_kick(struct gpulet *g);
/* Slots that a variant has, on any of the devices. */
uint32_t slots_most(const struct engine *e);
/* Under g->lock. */
void seat_class(struct seat *s, bool best_effort, usec_t spare_us);
void gpulet_look(struct seat *s, const struct shape_key *key, uint32_t rows, usec_t now_us,
                 struct let_view *ret);
/* The decisive check and hand-over 1.  *ret_kick is the gpu-let if its executor must be kicked for
 * this request; one that has not looked since its last kick need not.  0, -EAGAIN with r->retry_us,
 * -ENOMEM, or why the shape cannot be compiled. */
int gpulet_push(struct seat *s, struct request *r, const struct shape_key *key, uint32_t queue_max,
                usec_t now_us, struct gpulet **ret_kick);
bool gpulet_withdraw(struct gpulet *g, struct request *r);
/* Builder: after a fault, executor parked: new partition, then everything is compiled again. */
int gpulet_reopen(struct gpulet *g, struct err *err);
/* Executor: the run is over, with its requests. */
void run_finish(struct gpulet *g, struct run *run, int rc, uint64_t ns, const struct err *err);
struct request *gpulet_empty(struct gpulet *g); /* takes all that waits, linked by next */
/* loss.c; executor. */
usec_t hang_due_us(const struct engine *e, usec_t predicted_end_us, usec_t run_us);
usec_t gpulet_due_us(const struct gpulet *g); /* the first of its runs; USEC_NEVER: none */
bool hang_check(struct gpulet *g);            /* as loss_check(), for a run that does not end */
/* Is the partition gone, or more?  True: g->part is the builder's until g->lost is false again. */
bool loss_check(struct gpulet *g, const char *model);
bool step_leave_device(struct engine *e); /* builder: a source of steps */
/* outputs.c; executor: the outputs of a run with late ones, into a slab of the request.  -ENOMEM:
 * there is no room. */
int outputs_take(struct gpulet *g, const struct run *run, struct err *err);
/* Complete requests linked by next: hand-over 2, once each. */
void requests_finish(struct engine *e, struct request *first, enum request_fate fate, int rc,
                     const struct err *err, usec_t now_us);
double gpulet_busy(struct gpulet *g);

/* ---- epoch.c */
struct route {
    struct served *served;
    struct loaded *l;
    struct plan_verdict verdict;
    uint32_t n_seats;
    struct seat **seat;
    struct allowance sure; /* where it shares a gpu-let; else without a limit */
};
struct epoch {
    uint32_t refs; /* e->lock */
    struct epoch *next_dead;
    uint64_t number;
    usec_t since_us;    /* in force; builder */
    bool thought_over;  /* or about to be (leisure.c); builder */
    uint32_t n_devices; /* of the problem: those that were not lost when it was first made */
    uint32_t device[MAX_DEVICES]; /* e->device[] of each */
    struct arena arena;
    struct problem problem; /* what the plan was made for; by name */
    struct plan plan;
    struct demand_band *band; /* by route: rates for which the plan holds */
    uint32_t n_routes, n_gpulets;
    struct route *route; /* in the order of problem.model */
    struct gpulet **gpulet;
};
struct epoch *epoch_pin(struct engine *e);
struct epoch *epoch_ref(struct engine *e, struct epoch *ep);
void epoch_put(struct engine *e, struct epoch *ep);
void epoch_put_locked(struct engine *e, struct epoch *ep, uint32_t n); /* n references */
void epoch_put_many(struct engine *e, struct epoch *ep, uint32_t n);
const struct route *epoch_find(const struct epoch *ep, const char *name);
/* The same for a served model, without a search if ep is the epoch in force. */
const struct route *epoch_route(const struct epoch *ep, const struct served *s);
struct epoch *epoch_new(void);                       /* nothing is in it; NULL: no memory */
void epoch_free(struct engine *e, struct epoch *ep); /* builder */
void seat_put(struct engine *e, struct seat *s);     /* builder */
void gpulet_put(struct engine *e, struct gpulet *g); /* builder */

/* ---- registry (served.c): what is known by name; under e->lock */
struct told { /* refusals.c */
    const struct served_stats *of;
    uint64_t refused[N_REFUSALS], late;
    usec_t at_us;
};
struct entry {
    struct entry *next; /* by name */
    struct entry *same; /* in one of e->by_name */
    uint64_t hash;      /* of the name */
    struct model_spec spec;
    enum served_state state;
    char reason[240];
    struct served *served; /* the ready one, or NULL */
    uint32_t loading;      /* version on its way, 0: none */
    uint32_t n_jobs;       /* loads and unloads asked for and not done */
    uint32_t n_unloads;    /* of these */
    struct told told;      /* refusals that were made an event */
};
struct entry **entry_find(struct engine *e, const char *name);
#define NAME_BUCKETS 4096
void entry_list(struct engine *e, struct entry *n); /* so that it is found by served_get() */
void entry_unlist(struct engine *e, struct entry *n);

/* ---- builder.c, change.c */
#define REASON_MAX 240
enum change_kind { CHANGE_LOAD, CHANGE_UNLOAD, CHANGE_PIN, CHANGE_REPLAN };
struct pin {
    uint32_t n;
    struct pin_gpulet *gpulet;
    struct arena arena;
};
struct change {
    struct change *next; /* e->changes, under e->lock */
    enum change_kind kind;
    struct job *job; /* may be NULL */
    struct cq *cq;
    struct model_spec spec; /* LOAD, with defaults filled in; name alone for UNLOAD */
    struct pin *pin;        /* PIN: what is asked; NULL: back to the policy */

    /* builder: how far it is */
    int (*step)(struct engine *e, struct change *c, struct err *err);
    usec_t since_us;     /* its first step */
    struct loaded *l;    /* LOAD: the new or kept version; a reference */
    struct epoch *epoch; /* being built; its routes and gpu-lets hold references */
    struct plan_step *steps;
    uint32_t *was_of; /* gpu-let of the old epoch by that in the plan that steps begin with */
    bool urgent;      /* a device is lost: what is known must do */
    uint32_t n_steps, at_step;
    uint32_t at_gpulet, at_share, at_part;
    uint32_t n_measured;     /* points, for the first plan */
    struct trial *held;      /* of the last one: keeps the constants on the device; or NULL */
    bool probed;             /* there are new numbers since the plan was made */
    bool replan;             /* they ask for another layout */
    bool whole;              /* REPLAN: see replan_push() */
    char reason[REASON_MAX]; /* REPLAN: why; "" otherwise */
};
void change_push(struct engine *e, struct change *c); /* any thread */
void change_run(struct engine *e, struct change *c);  /* one step; frees it at the end */
void change_fail(struct engine *e, struct change *c, const struct err *err);
void pin_free(struct pin *p);
void change_leave(struct engine *e, const char *device); /* plan without it, before all else */
/* Plan again, because of what the reason says; whole: not from the running plan, which changes less
 * but leaves what comes free unused. */
void replan_push(struct engine *e, const char *reason, bool whole);
/* The builder has nothing to do: this epoch, with its problem and plan, is the next.  Takes it. */
void change_think(struct engine *e, struct epoch *ep);
/* leisure.c; builder */
bool step_leisure(struct engine *e); /* a source of steps, the last */
void leisure_give_up(struct engine *e);
void leisure_stop(struct engine *e);
/* demand.c; builder: samples what came, and asks for a new plan where the one in force does not
 * suit it. */
void demand_step(struct engine *e);
usec_t demand_wait_us(const struct engine *e); /* until demand_step() should be called again */
int epoch_bands(struct epoch *ep, struct err *err);
/* Counts a request against its model's allowance; true: it is beyond.  Http threads. */
bool demand_beyond(const struct route *rt, usec_t now_us);
/* Any thread.  Was one of its requests beyond what it has for sure, in the last LOUD_US? */
bool demand_loud(const struct loaded *l, usec_t now_us);
/* Any thread.  Was none of them, in the last QUIET_US? */
bool demand_meek(const struct loaded *l, usec_t now_us);
/* Any thread: a request came, whatever becomes of it. */
void demand_count(struct engine *e, struct served *s);
/* profile.c; builder, but for engine_profile_text() */
struct profile_text { /* immutable, counted */
    _Atomic uint32_t refs;
    char text[];
};
/* What is kept of the model from before, if it is of this model, this device, these libraries. */
void profile_restore(struct engine *e, struct loaded *l);
/* One more point for the first plan: 1; 0: there are enough. */
int profile_first(struct engine *e, struct change *c);
/* Make what was measured readable, and tell. */
void profile_publish(struct engine *e, struct loaded *l);
void profile_text_put(struct profile_text *t);
/* Now and then: what serving shows goes into the profiles.  *reason is set where the plan in force
 * counts on runs that are much shorter. */
void profile_refit(struct engine *e, usec_t now_us, char reason[REASON_MAX]);
/* One more point while nothing comes. */
void profile_refine(struct engine *e, usec_t now_us);
/* trial.c; builder: a model compiled to be measured, on the first device.  trial_close() also after
 * a trial_open() that failed. */
struct trial {
    struct engine *e;
    struct part *part;
    struct exe *exe;
    struct slot *slot;
    uint32_t n_segments;
    struct arena arena;
};
int trial_open(struct engine *e, struct loaded *l, enum precision precision, uint32_t batch,
               const struct granules *set, struct trial *t, struct err *err);
int trial_run(struct trial *t, uint32_t from, uint32_t to, uint32_t n, uint64_t *ret_ns,
              struct err *err);
/* One run of it for io, a segment after the other as long as there is peace. */
int trial_answer(struct trial *t, const struct io *io, uint64_t arrived_before, struct err *err);
/* It is not run any more, but what it has on the device stays. */
void trial_rest(struct trial *t);
void trial_close(struct trial *t);
/* stress.c; builder, but for its own thread */
#define STRESS_RUNS_MAX 256
struct stressor;
int stressor_new(struct engine *e, uint32_t device, const struct granules *set,
                 struct stressor **ret, struct err *err);
void stressor_free(struct stressor *s);                 /* it is off */
int stressor_run(struct stressor *s, uint64_t *ret_ns); /* once, while it is off */
/* From on() to off() it runs; runs(): how many are over, false when one failed (off() says how). */
int stressor_on(struct stressor *s);
bool stressor_runs(const struct stressor *s, uint32_t *ret_n);
int stressor_off(struct stressor *s);
/* After off(): what a run took; the last STRESS_RUNS_MAX are known. */
uint64_t stressor_ns(const struct stressor *s, uint32_t run);
/* neighbours.c; builder, and a trial's thread.  Requests that have come so far; then: 0, or
 * -ECANCELED: more have, or the builder has something to do; -ENODEV: the device is lost. */
uint64_t arrived(const struct engine *e);
int peace(struct engine *e, uint64_t arrived_before);
/* accuracy.c; builder: the model's outputs against those in FP32, once, while nothing comes.
 * False: there is nothing (left) to compare. */
bool accuracy_refine(struct engine *e, struct loaded *l, usec_t most_us);
void accuracy_restore(struct loaded *l, const struct accuracy *kept); /* it is in no epoch yet */
/* Likewise, after that.  as_before: by a restart.  The process may have ended while it was
 * compared; then it is not tried again. */
void accuracy_begin(struct engine *e, struct loaded *l, bool as_before);
/* begun.c; builder: a file says that the comparison of this version is under way.  mark(): it is on
 * disk now. */
int begun_mark(const struct engine *e, const struct loaded *l, struct err *err);
bool begun_found(const struct engine *e, const struct loaded *l);
void begun_clear(const struct engine *e, const struct loaded *l);
/* Any thread, l pinned: a copy in the arena; *ret NULL: of such a model there is none. */
int accuracy_view(struct engine *e, const struct loaded *l, struct arena *a,
                  const struct accuracy **ret);
/* neighbours.c; builder: one more pair, or the segments, by runs of at most most_us.  False:
 * nothing is left to be measured. */
bool neighbours_refine(struct engine *e, struct loaded *l, usec_t most_us);
bool segments_refine(struct engine *e, struct loaded *l, usec_t most_us);
/* What the device does to neighbours, by what was measured of this model, or of all of ep. */
struct interference loaded_interference(const struct engine *e, const struct loaded *l);
int epoch_interference(const struct engine *e, struct epoch *ep, struct interference *ret);
/* planning.c: the problem of one model alone */
int loaded_problem(struct engine *e, const struct loaded *l, struct arena *a, struct problem *ret);
/* planning.c: for an epoch whose routes are set */
int epoch_problem(struct engine *e, struct epoch *ep, struct err *err);
int epoch_plan(struct engine *e, struct epoch *ep, const struct pin *pin, const struct plan *was,
               const struct loaded *comes, struct plan *ret, struct err *err); /* see plan_part() */
/* Any thread: as a policy does at leisure, for an epoch with a problem. */
int epoch_think(struct engine *e, struct epoch *ep, const struct plan *was, struct err *err);
/* part.c; builder: what is planned for where not all of what is asked for can be.  ret: the plan
 * for what is asked for, and if there is one that holds the plan for the largest part that does, to
 * which ep->problem's rates are set.  comes: takes nothing from the others; NULL: nobody. */
int plan_part(struct engine *e, struct epoch *ep, const struct plan *was,
              const struct loaded *comes, struct plan *ret, struct err *err);
/* Is a model planned less than its rate, though its SLO holds at a lower one? */
bool plan_is_short(const struct engine *e, const struct epoch *ep, const struct plan *plan);
double route_asked_rps(const struct route *rt);
bool route_is_short(const struct epoch *ep, uint32_t i); /* planned for less than asked for */
void rates_adopt(struct epoch *ep, const struct loaded *comes); /* ep is in force */
void rates_usual(struct engine *e, usec_t now_us); /* after samples, while a plan can be made */
/* The running plan by the new epoch's numbers of models and devices: what is on lost devices is
 * left out.  ret_of[i]: gpu-let of the old epoch that ret->gpulet[i] is.  judged: with its
 * verdicts, without which a policy plans anew and keeps only what it can. */
int epoch_was(struct epoch *ep, const struct epoch *old, bool judged, struct plan *ret,
              uint32_t **ret_of, struct err *err);
bool plan_same_layout(const struct plan *a, const struct plan *b);
/* How many times as long a run of the share takes beside its neighbours, by ep's plan. */
double share_slowing(const struct epoch *ep, const struct plan_gpulet *g,
                     const struct plan_share *s);
void job_done(struct job *job, struct cq *cq, int rc, const struct err *err);
void builder_wake(struct engine *e);
int builder_start(struct engine *e, struct err *err);
void builder_stop(struct engine *e);
/* Not as nice as the builder, which asks; e is an engine: struct backend_config has it, too. */
int spawn_thread(void *e, pthread_t *ret, void *(*fn)(void *), void *arg);

/* ---- events.c */
struct event {
    usec_t at_us;
    uint64_t wall_ms;
    int level;
    const char *what;
    char model[MODEL_NAME_MAX + 1];
    uint32_t version, gpulet;
    char msg[240];
};
struct events {
    pthread_mutex_t lock;
    int fd;
    uint64_t last; /* number of the newest, from 1 */
    struct event *ring;
};
int events_init(struct events *ev);
void events_done(struct events *ev);
/* model "", version 0, gpulet PLAN_NONE: it is about none. */
void event_put(struct engine *e, int level, const char *what, const char *model, uint32_t version,
               uint32_t gpulet, const char *fmt, ...) __attribute__((format(printf, 7, 8)));
#define event(e, level, what, model, gpulet, ...)                                                  \
    event_put((e), (level), (what), (model), 0, (gpulet), __VA_ARGS__)

/* ---- the engine */
struct engine_device {
    struct device *dev;
    struct device_info info;
    bool host;         /* the pool is registered with it */
    _Atomic bool lost; /* executors set it */
    bool left;         /* builder: a plan without it is on its way */
};
struct engine {
    struct engine_config cfg;
    const struct backend *b;
    struct pool *pool;
    struct host_region region;
    uint32_t n_devices, n_opened;
    struct engine_device device[MAX_DEVICES];
    struct events events;
    struct watch watch; /* of the builder */
    struct watch stress_watch;
    _Atomic uint64_t pending;
    _Atomic bool quiet; /* nothing comes: the builder samples seldom, the next request wakes it */

    pthread_mutex_t lock;
    pthread_cond_t cond; /* the builder sleeps on it */
    bool work;           /* since the builder looked */
    _Atomic bool stop;
    struct epoch *epoch;
    struct epoch *dead;
    struct entry *entries;
    struct entry *by_name[NAME_BUCKETS]; /* what requests look names up in */
    struct gpulet *gpulets;              /* written by the builder */
    struct change *changes, **changes_tail;
    char plan_error[240];
    bool pinned;
    struct err lost; /* code -ENODEV: the process must leave */

    /* builder only */
    pthread_t builder;
    struct seat *closing_seats;
    struct gpulet *closing_gpulets;
    bool trim;               /* something was done since memory was last given back */
    struct change *change;   /* under way */
    struct thought *thought; /* likewise */
    struct pin *pin;         /* in force */
    uint32_t next_gpulet_id;
    usec_t demand_due_us; /* the next sample */
    bool demand_quiet;    /* as `quiet` was set last */
    usec_t came_us;       /* the last sample with a request */
    usec_t short_us;      /* a model was short of its rate; 0: never */
    usec_t unknown_us;    /* since when a model is asked for that was not planned for; 0: none is */
    usec_t refit_due_us, refine_due_us, publish_due_us;
    usec_t replan_from_us; /* no plan is asked for before: the last one failed */

    /* the spawner, see builder.c */
    pthread_t spawner;
    pthread_mutex_t spawn_lock;
    pthread_cond_t spawn_cond;
    struct spawn *spawn; /* to be started */
    bool spawn_stop;
    pthread_cond_t start_cond;
    int start_rc; /* of the builder's start, under lock */
    bool started;
    struct err start_err;
};
