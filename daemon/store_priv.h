/* What the files of the store share: store.c (its life, its uploads, the queue of tasks),
 * store_entries.c (what it knows of each model, in memory and in model.json), store_tasks.c (what
 * the worker does for a task), store_restore.c (what it finds at start). */
#pragma once

#include "store.h"
#include <gpulet/model.h>

#define MODEL_JSON "model.json"

struct entry {
    struct entry *next; /* by name */
    char name[MODEL_NAME_MAX + 1];
    uint32_t version, pending;
    bool loaded;
    struct numbers numbers;
    struct hash128 hash; /* of the serving version's files */
    char error[240];
};

struct task {
    struct task *next;
    void (*run)(struct store *s, struct task *t);
    char name[MODEL_NAME_MAX + 1];
    struct upload *upload;
    struct numbers numbers;
    bool wait;
    uint32_t *ret_version;
    struct job *job; /* NULL once it was handed back */
};

struct store {
    struct gpuletd *d;
    char *dir;
    int models_fd, incoming_fd, profiles_fd;
    struct cq *cq; /* what the worker waits for from the engine */
    pthread_t worker;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t cond;
    struct entry *entries;
    struct task *first, *last;
    bool closing;
};

/* ---- store_entries.c; any thread, but only the worker changes entries */
/* A copy of the entry, or a new one's. */
bool store_entry_read(struct store *s, const char *name, struct entry *ret);
int store_entry_write(struct store *s, const struct entry *from);
void store_entry_drop(struct store *s, const char *name);
/* Durable when it returns; err may be NULL. */
int store_json_write(struct store *s, const struct entry *e, struct err *err);
int store_json_read(struct store *s, const char *name, struct entry *ret, struct err *err);

/* ---- store_tasks.c; the worker */
void task_hand_back(struct task *t, int rc, const struct err *err); /* once; any thread */
void task_put(struct store *s, struct task *t);
void task_put_file(struct store *s, struct task *t);
void task_change(struct store *s, struct task *t);
void task_delete(struct store *s, struct task *t);
void task_load(struct store *s, struct task *t);
void task_unload(struct store *s, struct task *t);
void task_profile(struct store *s, struct task *t);
/* Ask the engine; *job comes back through s->cq. */
void store_load_begin(struct store *s, const struct entry *e, uint32_t version, struct job *job);
/* Wait for n jobs of the engine. */
void store_wait_for(struct store *s, uint32_t n);
int store_load_wait(struct store *s, const struct entry *e, uint32_t version, struct err *err);
void store_remove_version(struct store *s, const char *name, uint32_t version);
/* A version that could not be loaded goes: it is as it was before. */
void store_put_undo(struct store *s, const struct entry *was, bool known, uint32_t pending);

/* ---- store_restore.c */
/* At start: every model.json becomes an entry, what none names is removed. */
int store_read_entries(struct store *s, struct err *err);
void task_restore(struct store *s, struct task *t);
