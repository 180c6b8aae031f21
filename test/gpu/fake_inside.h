/* Between the files of the fake libcuda.so.1. */
#pragma once

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>

/* Takes the lock and writes the call down; CUDA_SUCCESS: it may do what it does.  fake_leave()
 * gives the lock back, in any case, and returns r. */
CUresult fake_enter(const char *name);
CUresult fake_leave(CUresult r);
/* Under the lock: a kernel's blocks, on the SMs of ctx; args: its struct. */
CUresult fake_run(CUfunction f, CUcontext ctx, unsigned blocks, unsigned threads, const void *args);
CUresult fake_on(CUstream s); /* what a call on a stream needs: that its context is current */
CUcontext fake_context(CUstream s);
void fake_broken(const char *rule);
/* So many executable graphs more that must be gone before the context. */
void fake_hold_graphs(CUcontext ctx, int n);
/* True, and the capture is spoilt, while this thread captures: nothing may be made then. */
bool fake_unsafe(void);

/* ---- fake_graph.c, under the lock */
struct CUgraph_st *fake_graph_new(CUcontext ctx);
/* What is to be done, with a copy of the data. */
void fake_graph_add(struct CUgraph_st *g, void (*fn)(const void *), const void *data, size_t bytes);
void fake_graph_free(struct CUgraph_st *g);
unsigned fake_args_bytes(CUkernel k);
/* A call by name, or NULL. */
void *fake_more(const char *name, int version);
