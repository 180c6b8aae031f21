/* Our planner's workshop: what make*.c, pack*.c and improve*.c share.
 *
 * The state is a heap of gpu-lets and a row of devices.  A gpu-let without a device floats: it is
 * planned beside average neighbours.  Whatever may lead nowhere is tried after save_take() and
 * taken back by save_back(). */
#pragma once

#include "plan_priv.h"

#define SIZES_MAX 48    /* sizes of gpu-let that are tried, of a type */
#define SHARE_CLASSES 8 /* arrays of 1, 2, 4 .. 128 shares */
#define LET_SHARES_MAX 64
#define QUEUE_STEPS 100 /* that a prediction of one share's queue counts as */
#define UNDO_MOST 4096  /* changes on trial at once, where there is a choice */
#define LARGE 256       /* models or devices: less is tried */
#define PLANS_MAX 24    /* that are written down on the way, the best so far */
#define FLOATING (PLAN_NONE - 1)

struct cell {
    double rps;              /* that one gpu-let of the size serves alone; 0: it cannot */
    uint32_t batch, streams; /* at which */
    uint32_t most;           /* batch that is best alone; batch is beside average neighbours */
};

/* Times of a model's runs in one size of gpu-let, straight between the points (bound.c). */
#define LINE_POINTS 33
#define LINE_ROWS 16 /* of a table */
struct line {
    uint32_t n;
    double rows[LINE_POINTS], hold[LINE_POINTS], run[LINE_POINTS];
    double most;    /* rows that the rule allows */
    double each_us; /* a request's part of the time, at least */
};

struct kind { /* a type of device, prepared */
    const struct plan_type *t;
    uint32_t n_sizes, size[SIZES_MAX]; /* granules, ascending */
    uint32_t cell_at;                  /* of a model's cells */
    bool has_devices;
    bool crowded, has_field; /* neighbours disturb; and by how much is known */
    double price;            /* of a granule */
    double harm;             /* what neighbours cost at least, for the bound */
    struct pressure field;   /* of average neighbours on a full device, each granule */
};

struct let {
    uint32_t device;   /* PLAN_NONE: the slot is free */
    uint32_t type, at; /* size: kind.size[at] */
    uint32_t next;     /* on its device, or of the free slots */
    uint32_t n_shares, class;
    uint32_t stamp;
    uint32_t was;  /* index in the running plan, PLAN_NONE: new or changed */
    bool borrowed; /* share[] is the running plan's: nobody has touched it */
    double used;   /* part of the time that its shares hold it */
    struct plan_granules set;
    struct plan_share *share;
};

struct dev {
    uint32_t type, free, n_lets, first;
    uint32_t prev, next; /* with as many free granules */
    uint32_t stamp;
    uint32_t refused; /* gpu-lets in a row that did not hold here */
    struct plan_granules used;
};

struct spare {
    struct spare *next;
};

struct undo {
    uint32_t index;
    bool is_dev;
    union {
        struct let let;
        struct dev dev;
    };
};

struct want {          /* of a model */
    double rate_rps;   /* planned for; a stand-in where the model's is not known */
    double slo_us;     /* infinite: none, or it cannot be held and is served as it comes */
    double cost;       /* of a request per second at its cheapest, price */
    double least;      /* no plan has it for less, at its rate: its part of the bound */
    double fluid;      /* nor at any rate */
    uint32_t type, at; /* where cost is; PLAN_NONE: nowhere */
    bool ready, hopeless;
    bool guessed;   /* its rate is not known */
    double care[2]; /* RULE_QUEUE: part of the load that is left out, alone and beside companions,
                       as more did not hold */
};

struct judged { /* of a model, while verdicts are made */
    double rate_rps, most_rps, least_slo_us;
    bool placed, fails, changed;
    bool missed[2]; /* planned to hold, and does not: alone, beside companions */
};

/* A look-up that was made: planning asks for the same few again and again. */
struct solo_slot {
    struct {
        uint32_t model, type, units, streams, rows; /* rows 0: the slot is free */
    } of;
    bool runs;
    struct solo solo;
};
#define SOLO_SLOTS 1024 /* a power of two */

/* A queue alone in its gpu-let, times in full runs. */
struct queue_form {
    uint32_t cap, turns;
    double fixed;   /* part of a full run that no row adds to */
    double slo;     /* in full runs */
    double full_us; /* of a full run */
};
struct load_slot {
    uint64_t key; /* 0: free */
    double most;
};
#define LOAD_SLOTS 4096

struct job {
    const struct problem *p;
    const struct plan *was;
    struct arena *a;
    struct kind *kind;
    uint32_t cells;       /* of a model */
    struct cell **cell;   /* of each model, from want_make() on */
    struct cell *no_cell; /* of all others */
    struct line *line;    /* scratch of bound_make(): as cells are, and */
    struct line *row;     /* [LINE_ROWS], of a table */
    double *press;        /* the same, by type */
    struct want *want;
    struct dev *dev;
    uint32_t *bucket; /* [type * (PLAN_MAX_GRANULES + 1) + free]: first device */
    struct let *let;
    uint32_t n_lets, max_lets, free_let;
    struct spare *spare[SHARE_CLASSES]; /* arrays of shares that are not in use */
    struct undo *undo;
    uint32_t n_undo, max_undo, txn;
    uint64_t steps, budget;
    uint64_t limit;                 /* of steps: nothing more is tried in this style */
    uint32_t *was_first, *was_next; /* gpu-lets of the running plan by device */
    bool full;                      /* out of memory: planning comes to nothing */
    double all_price;               /* of all devices */
    uint32_t last_let;              /* that let_new() gave */
    void *queue_scratch;            /* RULE_QUEUE */
    struct load_slot *load;         /* RULE_QUEUE: [LOAD_SLOTS], by hash */
    struct solo_slot *solo;         /* [SOLO_SLOTS], by hash */
    bool for_bound;                 /* cells are being made for the bound: nothing but their SLO */
    double *key, *rest;             /* scratch of sorts; what is left of each model's rate */
    double *worth;                  /* pack_whole.c: part of a device that the rest of it takes */
    uint32_t *order, *scratch, *victim;
    struct judged *judged;
    uint64_t *key_of; /* of models */
    double scale;     /* of all rates, to spread spare capacity */
    bool whole;       /* the style that is being tried */
};

static inline struct cell *cell_of(struct job *j, uint32_t model, uint32_t type, uint32_t at)
{
    return &j->cell[model][j->kind[type].cell_at + at];
}

static inline uint32_t let_granules(const struct job *j, const struct let *l)
{
    return j->kind[l->type].size[l->at];
}

static inline uint32_t let_units(const struct job *j, const struct let *l)
{
    return let_granules(j, l) * j->kind[l->type].t->granule_units;
}

/* ---- make_cells.c */
int kinds_make(struct job *j);
void fields_make(struct job *j); /* when want and cell are there */
double run_limit_us(const struct job *j, double slo_us);
void want_make(struct job *j, uint32_t model); /* once each */
/* NULL: it does not run there.  Good until the next call. */
const struct solo *solo_of(struct job *j, uint32_t model, uint32_t type, uint32_t units,
                           uint32_t streams, uint32_t rows);
bool ask(struct job *j, uint32_t model, uint32_t type, uint32_t units, uint32_t streams,
         uint32_t rows, const struct pressure *pr, struct estimate *ret);
/* Average neighbours of a gpu-let with so many granules. */
struct pressure field_beside(const struct kind *k, uint32_t granules);

/* ---- bound.c */
double bound_harm(const struct problem *p, uint32_t type, const struct kind *k);
void bound_make(struct job *j, uint32_t model); /* when its cells without neighbours are there */

/* ---- make_fit.c: do the shares of a gpu-let hold?  Sets batch, usual, run_us, latency_us. */
bool let_fit(struct job *j, struct let *l, const struct pressure *pr);
/* Where it stands (device or floating), its neighbours included; they may grow. */
bool let_settle(struct job *j, uint32_t let);

/* ---- make_queue.c */
bool queue_let_holds(struct job *j, struct let *l, const struct pressure *pr); /* sets usual */
/* The part of a cell's rate at which its queue still holds. */
double queue_cell_part(struct job *j, uint32_t model, uint32_t type, uint32_t at);

/* ---- make_state.c */
struct save {
    uint32_t n_undo, n_lets, free_let;
};
struct save save_take(struct job *j);
void save_back(struct job *j, const struct save *s); /* to what it was then */
void save_commit(struct job *j);                     /* no going back to any save */
struct let *touch_let(struct job *j, uint32_t let);
struct dev *touch_dev(struct job *j, uint32_t device);
uint32_t let_new(struct job *j, uint32_t type, uint32_t at); /* floating; PLAN_NONE: full */
bool let_add(struct job *j, uint32_t let, uint32_t model, double rate_rps);
void let_drop(struct job *j, uint32_t let, uint32_t i); /* a share */
void let_free(struct job *j, uint32_t let);
/* Onto a device, with granules chosen; false: no room (sizes, places, memory, max_lets). */
bool let_put(struct job *j, uint32_t let, uint32_t device);
void let_lift(struct job *j, uint32_t let);
bool let_resize(struct job *j, uint32_t let, uint32_t at);
uint32_t dev_of_free(const struct job *j, uint32_t type, uint32_t free); /* first; PLAN_NONE */
bool mem_holds(struct job *j, uint32_t device);
bool dev_import(struct job *j, uint32_t device, uint32_t let);
void state_clear(struct job *j);

/* ---- pack.c */
struct style {
    bool by_slo;  /* residues share with those of like SLO; else the largest come first */
    double part;  /* residues share gpu-lets of that part of a device; 0: each its cheapest size */
    double waste; /* how much dearer a gpu-let of one's own may be than sharing */
    bool whole;   /* whole devices, shared in time: nobody has a neighbour */
};
bool pack(struct job *j, const struct style *st);
bool pack_in_turn(struct job *j);
bool let_place(struct job *j, uint32_t let, bool opened, uint32_t avoid);
void let_shrink(struct job *j, uint32_t let);
uint32_t size_for(struct job *j, uint32_t model, uint32_t type, double rate_rps);
void job_sort(struct job *j, uint32_t n); /* order[n] by key[]: stable */
bool float_new(struct job *j, uint32_t type, uint32_t at, uint32_t model, double rate_rps);
/* pack_whole.c */
bool whole_pays(struct job *j); /* worth a try, and by what is known beforehand better */
bool whole_float(struct job *j);

/* ---- improve.c */
/* Returns what found no room.  opened: only on devices in use; none on `avoid`. */
double pour(struct job *j, uint32_t model, double rate_rps, bool opened, uint32_t avoid);
bool pour_place(struct job *j, uint32_t model, bool opened, uint32_t avoid);
void improve(struct job *j, uint32_t enough);
/* improve_ruin.c */
void ruin_and_recreate(struct job *j, uint32_t enough, uint64_t until);

/* ---- make.c */
struct score {
    double unserved, price, granules;
    uint32_t homeless; /* models without a place that could have one */
};
struct score score_of(struct job *j); /* rest[] > 0 is then what is left of a model's rate */
int job_init(struct job *j, const struct problem *p, const struct plan *was, struct arena *a);

/* ---- make_was.c: 1: done, 0: plan anew, < 0: an error */
int make_from(struct job *j, struct plan *ret);

/* ---- make_out.c */
int job_emit(struct job *j, struct plan *ret); /* gpu-lets and shares, no verdicts */
int job_judge(struct job *j, struct plan *plan);
/* Only of these models, beside those that stay: their verdicts, and the shares that are new. */
int job_judge_changed(struct job *j, struct plan *plan, const uint32_t *model, uint32_t n);
bool job_missed(struct job *j, double care); /* some did not hold: so much more care is theirs */
uint64_t problem_key(const struct problem *p);
uint64_t model_key(const struct problem *p, uint32_t model, uint64_t problem);
