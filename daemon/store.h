/* The model repository on disk, and what is loaded from it.
 *
 *     DIR/models/NAME/model.json          which version serves, and its numbers
 *     DIR/models/NAME/VERSION/model.onnx  and external data beside it
 *     DIR/profiles/NAME.json              what was measured of it (problem.h: measured)
 *     DIR/incoming/                       uploads under way; emptied at start
 *     DIR/algorithms/                     the backend's (lib/backend/cuda/choice.c)
 *
 * Every write is temp file, fsync, rename, fsync of the folder: what was acknowledged is there
 * after a power cut, what was not leaves nothing.  model.json is the truth: a version folder that
 * it does not name is removed at start.  Slow work (fsync, hashing, loading, removing) is done by
 * the store's worker thread, one task after the other; nothing here blocks an http thread. */
#pragma once

#include "daemon.h"
#include "numbers.h"

#define STORE_FILES_MAX 1024 /* external data files of one model */

/* Opens DIR and starts the worker.  -EACCES, -ENOSPC, … */
int store_open(struct gpuletd *d, const char *dir, struct store **ret, struct err *err);
/* Load every model that was in service; sets d->restored when all have answered. */
void store_restore(struct store *s);
/* Finishes what is under way; tasks that come later are refused (-EAGAIN). */
void store_close(struct store *s);
/* After store_close(), when no http thread can call any more. */
void store_free(struct store *s);

/* ---- an upload: made on an http thread, filled through fd, then handed over or dropped */
struct upload {
    struct store *store;
    char name[MODEL_NAME_MAX + 1];
    char file[MODEL_NAME_MAX + 1];    /* "" for the model itself, else the external file's name */
    char folder[MODEL_NAME_MAX + 16]; /* in incoming/ */
    int fd;
    struct numbers numbers;
};
/* file NULL: the model; else its external data under that name.  -ENOSPC, -EINVAL. */
int upload_new(struct store *s, const char *name, const char *file, uint64_t bytes,
               struct upload **ret, struct err *err);
void upload_free(struct upload *u); /* removes what was written, unless it was handed over */

/* Each hands job back through job->cq; rc and err say how it went. */
/* Takes u.  Durable and, unless !wait, serving: new bytes are the next version, the same bytes
 * only change the numbers.  *ret_version (kept until the job is back) is the version. */
void store_put(struct store *s, struct upload *u, bool wait, uint32_t *ret_version,
               struct job *job);
/* Takes u.  The file is staged for the next store_put() of that model. */
void store_put_file(struct store *s, struct upload *u, struct job *job);
void store_change(struct store *s, const char *name, const struct numbers *n, struct job *job);
void store_delete(struct store *s, const char *name, struct job *job);
void store_load(struct store *s, const char *name, struct job *job);
void store_unload(struct store *s, const char *name, struct job *job);
/* Keep what was measured of the model by now. */
void store_profile(struct store *s, const char *name);

/* What is in the repository, for listings; in *a. */
struct store_entry {
    const char *name;
    uint32_t version; /* 0: none has been loaded yet */
    bool loaded;      /* should be in service */
    struct numbers numbers;
    const char *error; /* why it is not in service; "" */
};
int store_list(struct store *s, struct arena *a, struct store_entry **ret, uint32_t *ret_n);

extern const struct repository_ops store_repository;
