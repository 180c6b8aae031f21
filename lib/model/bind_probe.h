/* Binding a graph to made-up numbers, for analyses that compare or weigh bindings. */
#pragma once

#include <gpulet/model.h>

/* Bind with `batch` for symbol `sym` (-1: none) and, for all the others, the first number out of
 * a fixed list at which the graph binds with batch 1; *other is that number, 0: not chosen yet. */
int graph_probe(const struct graph *g, int32_t sym, int64_t batch, int64_t *other, struct arena *a,
                struct bound **ret, struct err *err);
