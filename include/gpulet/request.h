/* A request on its way through the daemon, and the queue by which it comes back.
 *
 * Plain memory and offsets: nothing in it points into the HTTP server.  One owner at a time: the
 * http thread until engine_submit() returns 0, then the engine, then again the http thread when
 * it takes the request from the completion queue. */
#pragma once

#include <gpulet/graph.h>
#include <gpulet/slab.h>

/* ---- completion queue: many producers, one consumer thread that polls fd (an eventfd) */
struct cq_item {
    struct cq_item *next;
    int kind; /* the consumer's: says what the item is embedded in */
};
struct cq;
int cq_new(struct cq **ret);
void cq_free(struct cq *q);
int cq_fd(const struct cq *q);
/* One eventfd write per non-empty transition.  Any thread. */
void cq_push(struct cq *q, struct cq_item *item);
/* Everything that is there, oldest first, NULL-terminated by next; resets fd.  Consumer only. */
struct cq_item *cq_take(struct cq *q);

/* ---- request */
enum refusal {                 /* why it was not accepted */
               REFUSED_FULL,   /* its model's queue is */
               REFUSED_LATE,   /* it could not be in time */
               REFUSED_BEYOND, /* others wait, and its model has had what is planned for it */
               REFUSED_LOST,   /* the device that serves it is lost */
               REFUSED_ELSE,   /* it is wrong, or there is no memory for it */
               N_REFUSALS
};

enum request_fate {
    FATE_NONE, /* still under way */
    FATE_DONE,
    FATE_LATE,     /* dropped: its deadline could not be met any more */
    FATE_FAILED,   /* the run failed: rc and err say how */
    FATE_WITHDRAWN /* engine_withdraw() took it out of its queue */
};

struct request {
    struct cq_item item; /* first: completion hands back this item */
    struct cq *cq;       /* where it completes; borrowed */

    /* set by the http thread before engine_submit() */
    struct served *served; /* reference held by the http thread until the reply is sent */
    uint32_t rows;         /* of the batch; 1 when the model does not batch */
    struct slab *in_slab;  /* owned by the request */
    usec_t arrival_us, deadline_us;
    int32_t priority;

    /* set by the engine before completion */
    enum request_fate fate;
    int rc; /* 0 or negative errno, and err */
    struct err err;
    usec_t retry_us;          /* of a refusal that will pass: when to come back; 0: none */
    enum refusal refusal;     /* of one that was not accepted */
    struct slab *out_slab;    /* owned by the request */
    usec_t start_us, done_us; /* of its run */
    uint64_t run_ns;
    uint32_t batch; /* rows in that run */

    /* the engine's own */
    struct request *next, *prev;
    struct epoch *_Atomic epoch; /* pinned; read while its executor takes it away */
    struct gpulet *gpulet;
    void *queue;
    struct shape_key key;
    usec_t work_us; /* reserved in the gpu-let */
    bool alone;     /* joined with others it, or one of them, could not be run */

    /* Last, because request_init() leaves them alone: 11 KB of which a request uses little. */
    struct tensor in[MAX_IO];  /* by graph input; data inside in_slab */
    struct tensor out[MAX_IO]; /* by graph output, set by the engine; data inside out_slab */
};

/* Zeroes all but the tensors: whoever fills a request sets those of its model's inputs. */
void request_init(struct request *r);
/* Puts both slabs; the request may then be filled again. */
void request_done(struct request *r);
