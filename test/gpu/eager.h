/* Launches one by one from a slot that has graphs: the same executable, compared with itself. */
#pragma once

#include <lib/backend/cuda/slot.h>

/* Between runs of the slot, on the thread that submits.  graph: [n_segments + 1], NULL for each segment,
 * and the last for all of them, whose launches are made one by one.  Returns what the slot had, which must be back before it is
 * closed. */
static inline CUgraphExec *graphs_swap(struct slot *s, CUgraphExec *graph)
{
    CUgraphExec *had = s->graph;

    s->graph = graph;
    return had;
}
