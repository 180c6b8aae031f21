/* The model repository on disk, and what is loaded from it.
 *
 *     DIR/models/NAME/model.json          which version serves, and its numbers
 *     DIR/models/NAME/VERSION/model.onnx  and external data beside it
 *     DIR/incoming/                       uploads under way; emptied at start
 *
 * Every write is temp file, fsync, rename, fsync of the folder: what was acknowledged is there
 * after a power cut, what was not leaves nothing.  model.json is the truth: a version folder that
 * it does not name is removed at start.  Slow work (fsync, hashing, removing) is done on the
 * store's own worker thread, in order per model; nothing here blocks an http thread for long. */
#pragma once

#include "daemon.h"

/* Opens DIR and starts the worker.  -EACCES, -ENOSPC, … */
int store_open(struct gpuletd *d, const char *dir, struct store **ret, struct err *err);
/* Load every model that was in service; sets d->restored when all have answered. */
void store_restore(struct store *s);
/* Finishes what is under way. */
void store_close(struct store *s);

extern const struct repository_ops store_repository;
