/* Between the files of the fake libcuda.so.1. */
#pragma once

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes the lock and writes the call down; CUDA_SUCCESS: it may do what it does.  fake_leave()
 * gives the lock back, in any case, and returns r. */
CUresult fake_enter(const char *name);
CUresult fake_leave(CUresult r);
/* Under the lock: a kernel's blocks, on the SMs of ctx; args: its struct. */
CUresult fake_run(CUfunction f, CUcontext ctx, unsigned blocks, unsigned threads, const void *args);
CUresult fake_on(CUstream s); /* what a call on a stream needs: that its context is current */
CUcontext fake_context(CUstream s);
/* So much data with pointers is on its way on the stream. */
void fake_does(CUstream s, const void *args, size_t bytes);
void fake_trace(const char *name, CUstream s);
void fake_broken(const char *rule);
/* So many executable graphs more that must be gone before the context. */
void fake_hold_graphs(CUcontext ctx, int n);
/* True, and the capture is spoilt, while this thread captures: nothing may be made then. */
bool fake_unsafe(void);

/* ---- fake_order.c, under the lock: streams by a place in its tables, -1 for one that has none */
#define ORDER_STREAMS 128
struct order { /* by stream: so much of it is behind us */
    uint64_t upto[ORDER_STREAMS];
};
int order_stream_new(void);
void order_stream_end(int stream);
/* The next thing on the stream touches this memory. */
void order_touch(int stream, const void *at, size_t bytes, bool writes);
/* A kernel, or what a library does: it may touch all of any memory that its arguments point into.
 */
void order_kernel(int stream, const void *args, size_t bytes);
void order_memory(const void *at, size_t bytes); /* memory that kernels may touch, */
void order_memory_end(const void *at);           /* and no longer */
void order_now(int stream, struct order *ret);
void order_after(int stream, const struct order *o); /* the stream waits for that */
void order_done(const struct order *o);              /* the host has seen that */

/* ---- fake_graph.c, under the lock */
struct CUgraph_st *fake_graph_new(CUcontext ctx);
/* What is to be done, with a copy of the data. */
void fake_graph_add(struct CUgraph_st *g, void (*fn)(const void *), const void *data, size_t bytes);
void fake_graph_free(struct CUgraph_st *g);
unsigned fake_args_bytes(CUkernel k);
/* A call by name, or NULL. */
void *fake_more(const char *name, int version);
