/* What is known about late values before a model runs: only what the file says. */
#pragma once

#include <gpulet/model.h>

/* Note what the file declares for outputs, before graph_infer() writes what it finds. */
int graph_keep_claims(struct graph *g);
