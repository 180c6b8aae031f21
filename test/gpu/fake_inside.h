/* Between the files of the fake libcuda.so.1. */
#pragma once

#include <cuda.h>

/* Takes the lock and writes the call down; CUDA_SUCCESS: it may do what it does.  fake_leave()
 * gives the lock back, in any case, and returns r. */
CUresult fake_enter(const char *name);
CUresult fake_leave(CUresult r);
/* Under the lock: a kernel's blocks, on the SMs of ctx; args: its struct. */
CUresult fake_run(CUfunction f, CUcontext ctx, unsigned blocks, unsigned threads, const void *args);
CUresult fake_on(CUstream s); /* what a call on a stream needs: that its context is current */
/* fake_graph.c: a call by name, or NULL. */
void *fake_more(const char *name, int version);
