/* What only a slot itself knows: launches one by one where it has graphs, and how many steps. */
#pragma once

#include <lib/backend/cuda/slot.h>

/* Between runs of the slot, on the thread that submits.  graph: [n_segments + 1], NULL for each
 * segment, and the last for all of them, whose launches are made one by one.  Returns what the slot
 * had, which must be back before it is closed. */
static inline CUgraphExec *graphs_swap(struct slot *s, CUgraphExec *graph)
{
    CUgraphExec *had = s->graph;

    s->graph = graph;
    return had;
}

/* Of a segment of its executable. */
static inline unsigned steps_of(const struct slot *s, unsigned segment)
{
    return s->exe->first_step[segment + 1] - s->exe->first_step[segment];
}
