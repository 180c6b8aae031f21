/* The mutable state of one run. */
#pragma once

#include "exe.h"

/* In the order in which a run comes by them.  IN and THERE: its inputs begin and have come, if they
 * do on another stream.  COMPUTED: results may go, if they do on another stream. */
enum slot_event { EVENT_IN, EVENT_THERE, EVENT_BEGIN, EVENT_COMPUTED, EVENT_END, N_EVENTS };

struct slot {
    struct exe *exe;
    CUdeviceptr memory;
    char *args;         /* of all steps, with addresses */
    uint32_t *first;    /* by step: where its arguments begin */
    void **state;       /* by step: a library's */
    CUgraphExec *graph; /* by segment: its launches, captured; NULL: they are made one by one */
                        /* [n_segments]: those of the whole run, where there are several */
    size_t graph_bytes;
    int32_t *status; /* pinned: what BUF_STATUS held at the end */
    CUevent event[N_EVENTS];
    struct tail *tail; /* late.c; NULL: nothing is late */
    bool tailed;       /* it is one of those that the partition's thread is there for */
    bool ends;         /* its run has the last segment */

    struct line *line; /* of its run */
    unsigned lane;     /* the same */
    bool follows;      /* another run of the lane was under way when it was put behind it */
    bool apart;        /* inputs of its run came on another stream */
    ticket ticket;
    struct slot *next;    /* in the partition's list */
    bool probing, probed; /* under the partition's lock */
};

/* ---- late.c; builder, the partition's context is current */
int late_open(struct slot *s, struct err *err);
void late_close(struct slot *s);
/* What the host needs is copied out; any thread with the context current. */
int late_fetch(struct slot *s, CUstream stream, struct err *err);
/* The thread that runs late parts is there with the first slot of a partition that has one, and
 * goes with the last; no run of the slot is under way.  Builder; no context need be current. */
int tails_open(struct slot *s, struct err *err);
void tails_close(struct slot *s);
/* Under the partition's lock, on any thread: the device is done, the late part may run.  It then
 * joins the partition's finished runs. */
void tails_add(struct slot *s);
/* The late part, here and now; and what became of the last one: 0 or a code, and its time. */
void late_run(struct slot *s);
int late_result(const struct slot *s, uint64_t *ret_ns, const char **ret_why);

/* ---- exec.c */
CUdeviceptr slot_address(const struct slot *s, const struct ref *r);
/* Under the partition's lock: wait() returns it. */
void slot_finished(struct slot *s);
/* Step i, on a stream of the partition, whose context is current. */
int slot_launch(struct slot *s, uint32_t i, CUstream stream, struct err *err);

/* ---- copy.c; the partition's context is current */
/* What the inputs of a full run travel, if that is worth another stream; else 0.  Any thread. */
usec_t inputs_us(const struct exe *x);
/* Is there another run that it is behind? */
bool is_behind(const struct slot *s);
/* Is it worth another stream? */
bool inputs_apart(const struct slot *s, const struct io *io);
/* On the stream of inputs, and the run's stream waits for it. */
int inputs_ahead(struct slot *s, const struct io *io, struct err *err);
/* On that stream; io NULL: zeros. */
int inputs_copy(struct slot *s, const struct io *io, CUstream stream, struct err *err);
int outputs_copy(struct slot *s, const struct io *io, CUstream stream, struct err *err);
/* Behind the run; *ret: the stream that the rest has to follow on. */
int outputs_behind(struct slot *s, const struct io *io, CUstream *ret, struct err *err);

/* ---- capture.c; builder, the partition's context is current */
/* What the graphs of a slot may take, as far as is known. */
size_t graphs_bytes(const struct exe *x);
/* Runs the steps once, then captures each segment, and all of them.  What the driver does not
 * capture is launched step by step, and exe->note says why.  -ENOMEM: another slot of the exe has
 * graphs, and there is no room for more. */
int graphs_open(struct slot *s, struct err *err);
void graphs_close(struct slot *s);
