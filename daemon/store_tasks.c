/* What the worker does for a task.
 *
 * A task may take long (a load compiles); it waits for the engine through the worker's own
 * completion queue.  The order of a PUT is what makes it safe:
 *
 *   1. the bytes lie in incoming/, complete and synced
 *   2. the folder is renamed to models/NAME/V, then model.json says pending = V   (durable)
 *   3. the engine loads V while the version before serves on
 *   4. model.json says version = V, the older folder is removed; or, if the load failed, pending
 *      goes back to 0 and folder V is removed: what was there before is untouched */
#include "log.h"
#include "store_disk.h"
#include "store_priv.h"
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

/* Folder in incoming/ in which external data waits for its model. */
static void files_folder(const char *name, char ret[MODEL_NAME_MAX + 16])
{
    (void)snprintf(ret, MODEL_NAME_MAX + 16, "%s@files", name);
}

/* ---- the worker's steps */

void task_hand_back(struct task *t, int rc, const struct err *err)
{
    struct job *job = TAKE(t->job);

    if (!job)
        return;
    job->rc = rc;
    job->err = rc < 0 ? *err : (struct err){0};
    cq_push(job->cq, &job->item);
}

/* Wait for n jobs of the engine. */
void store_wait_for(struct store *s, uint32_t n)
{
    struct pollfd p = {.fd = cq_fd(s->cq), .events = POLLIN};

    while (n > 0) {
        (void)poll(&p, 1, -1);
        for (struct cq_item *i = cq_take(s->cq); i; i = i->next)
            n--;
    }
}

void store_load_begin(struct store *s, const struct entry *e, uint32_t version, struct job *job)
{
    struct model_spec spec = {.version = version,
                              .slo_us = e->numbers.slo_us,
                              .rate_rps = e->numbers.rate_rps,
                              .max_batch = e->numbers.max_batch,
                              .queue_max = e->numbers.queue_max,
                              .priority = e->numbers.priority,
                              .best_effort = e->numbers.best_effort,
                              .precision = e->numbers.precision,
                              .as_before = !s->d->restored};

    (void)snprintf(spec.name, sizeof(spec.name), "%s", e->name);
    (void)snprintf(spec.dir, sizeof(spec.dir), "%s/models/%s/%u", s->dir, e->name, version);
    spec.batch_invariant = e->numbers.batch_invariant;
    *job = (struct job){.cq = s->cq};
    engine_load(s->d->engine, &spec, job, s->cq);
}

int store_load_wait(struct store *s, const struct entry *e, uint32_t version, struct err *err)
{
    struct job job;

    store_load_begin(s, e, version, &job);
    store_wait_for(s, 1);
    if (job.rc < 0)
        *err = job.err;
    return job.rc;
}

static int unload_wait(struct store *s, const char *name, struct err *err)
{
    struct job job = {.cq = s->cq};

    engine_unload(s->d->engine, name, &job, s->cq);
    store_wait_for(s, 1);
    if (job.rc < 0)
        *err = job.err;
    return job.rc;
}

void store_remove_version(struct store *s, const char *name, uint32_t version)
{
    char path[MODEL_NAME_MAX + 16];

    (void)snprintf(path, sizeof(path), "%s/%u", name, version);
    disk_remove(s->models_fd, path);
}

/* Move staged external data beside the model; join their hashes into *hash. */
static int take_files(struct store *s, struct upload *u, struct hash128 *hash, struct err *err)
{
    char files[MODEL_NAME_MAX + 16];

    files_folder(u->name, files);
    int fd = openat(s->incoming_fd, files, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    AUTO(close_fd) int to = openat(s->incoming_fd, u->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent **names = NULL;
    int r = 0, n = scandirat(fd, ".", &names, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        struct hash128 h;
        const char *name = names[i]->d_name;
        if (r == 0 && name[0] != '.' && (r = disk_hash(fd, name, &h, err)) == 0 &&
            (r = disk_move(fd, name, to, name, err)) == 0)
            *hash = hash_join(*hash, hash_join(hash_bytes(name, strlen(name)), h));
        free(names[i]);
    }
    free(names);
    (void)close(fd);
    disk_remove(s->incoming_fd, files);
    return r;
}

/* Step 2: the upload's folder becomes models/NAME/V and model.json says pending. */
static int put_commit(struct store *s, struct upload *u, struct entry *e, struct err *err)
{
    char number[16];
    AUTO(close_fd) int fd = disk_folder(s->models_fd, e->name, err);

    if (fd < 0)
        return fd;
    (void)snprintf(number, sizeof(number), "%u", e->pending);
    disk_remove(fd, number);
    int r = disk_move(s->incoming_fd, u->folder, fd, number, err);
    if (r == 0) {
        u->folder[0] = 0; /* no longer the upload's */
        r = store_json_write(s, e, err);
    }
    return r;
}

/* Step 4 when the load failed: as it was before. */
void store_put_undo(struct store *s, const struct entry *was, bool known, uint32_t pending)
{
    if (known) {
        (void)store_json_write(s, was, NULL);
        store_remove_version(s, was->name, pending);
    } else {
        disk_remove(s->models_fd, was->name);
        (void)fsync(s->models_fd);
    }
}

/* Steps 2 to 4 for new bytes. */
static int put_new(struct store *s, struct task *t, const struct entry *was, bool known,
                   struct entry *e, struct err *err)
{
    e->pending = MAX(was->version, was->pending) + 1;
    e->loaded = true;
    int r = put_commit(s, t->upload, e, err);
    if (r == 0 && t->ret_version && t->job)
        *t->ret_version = e->pending;
    if (r == 0 && !t->wait)
        task_hand_back(t, 0, NULL);
    if (r == 0)
        r = store_load_wait(s, e, e->pending, err);
    if (r < 0) {
        store_put_undo(s, was, known, e->pending);
        if (!known) /* the engine remembers a name that failed; nobody has it now */
            (void)unload_wait(s, e->name, &(struct err){0});
        return r;
    }
    uint32_t older = was->version;
    e->version = e->pending;
    e->pending = 0;
    e->error[0] = 0;
    r = store_json_write(s, e,
                         err); /* if this fails, pending is on disk: the next start loads it */
    if (older && older != e->version)
        store_remove_version(s, e->name, older);
    (void)store_entry_write(s, e);
    return r;
}

/* New numbers for the version that serves. */
static int change_numbers(struct store *s, struct entry *e, const struct numbers *n,
                          struct err *err)
{
    struct entry was = *e;

    numbers_merge(&e->numbers, n);
    int r = e->loaded ? store_load_wait(s, e, e->version, err) : 0;
    if (r == 0)
        r = store_json_write(s, e, err);
    if (r == 0) {
        e->error[0] = 0;
        (void)store_entry_write(s, e);
    } else if (was.loaded) {
        (void)store_load_wait(s, &was, was.version, &(struct err){0});
    }
    return r;
}

void task_put(struct store *s, struct task *t)
{
    struct upload *u = t->upload;
    struct err err = {0};
    struct entry was, e;
    char path[MODEL_NAME_MAX + 32];
    bool known = store_entry_read(s, u->name, &was);
    struct hash128 hash = {0};
    int r =
        fsync(u->fd) < 0 ? err_set(&err, -errno, "model '%s': %s", u->name, strerror(errno)) : 0;

    (void)snprintf(path, sizeof(path), "%s/%s", u->folder, MODEL_FILE);
    if (r == 0)
        r = disk_hash(s->incoming_fd, path, &hash, &err);
    if (r == 0)
        r = take_files(s, u, &hash, &err);
    e = was;
    if (r == 0 && known && was.version && was.loaded && hash_eq(hash, was.hash)) {
        if (t->ret_version)
            *t->ret_version = was.version;
        r = u->numbers.set ? change_numbers(s, &e, &u->numbers, &err) : 0;
    } else if (r == 0) {
        numbers_merge(&e.numbers, &u->numbers);
        e.hash = hash;
        r = put_new(s, t, &was, known && was.version, &e, &err);
        if (r < 0 && !t->job && !was.version) { /* 202 was said: remember why it is not there */
            (void)snprintf(was.error, sizeof(was.error), "%s", err.msg);
            was.loaded = false;
            (void)store_entry_write(s, &was);
        }
    }
    if (r < 0 && !t->job)
        log_line(LOG_ERR, &(struct log_fields){.event = "load", .model = u->name, .gpulet = -1},
                 "%s", err.msg);
    upload_free(u);
    task_hand_back(t, r, &err);
}

void task_put_file(struct store *s, struct task *t)
{
    struct upload *u = t->upload;
    struct err err = {0};
    char files[MODEL_NAME_MAX + 16];

    files_folder(u->name, files);
    AUTO(close_fd) int to = disk_folder(s->incoming_fd, files, &err);
    AUTO(close_fd) int from = openat(s->incoming_fd, u->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = to < 0 ? to : fsync(u->fd) < 0 ? err_set(&err, -errno, "%s", strerror(errno)) : 0;
    if (r == 0)
        r = disk_move(from, u->file, to, u->file, &err);
    if (r < 0)
        (void)err_wrap(&err, "file '%s' of model '%s': ", u->file, u->name);
    upload_free(u);
    task_hand_back(t, r, &err);
}

static int need(struct store *s, struct task *t, struct entry *ret, struct err *err)
{
    if (store_entry_read(s, t->name, ret) && ret->version)
        return 0;
    return err_set(err, -ENOENT, "there is no model '%s'", t->name);
}

void task_change(struct store *s, struct task *t)
{
    struct err err = {0};
    struct entry e;
    int r = need(s, t, &e, &err);

    if (r == 0)
        r = change_numbers(s, &e, &t->numbers, &err);
    task_hand_back(t, r, &err);
}

/* ---- profiles */

/* NAME.json, and NAME.begun, which the engine writes. */
static void profile_file(const char *name, const char *end, char ret[MODEL_NAME_MAX + 8])
{
    (void)snprintf(ret, MODEL_NAME_MAX + 8, "%s.%s", name, end);
}

static void profile_remove(struct store *s, const char *name)
{
    char file[MODEL_NAME_MAX + 8];

    profile_file(name, "json", file);
    (void)unlinkat(s->profiles_fd, file, 0);
    profile_file(name, "begun", file);
    (void)unlinkat(s->profiles_fd, file, 0);
}

/* What a restart would find is what there is. */
static bool profile_is(struct store *s, const char *file, const char *text)
{
    AUTO(close_fd) int fd = openat(s->profiles_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t bytes = strlen(text);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size != bytes)
        return false;
    AUTO(free) char *is = malloc(bytes);
    return is && read(fd, is, bytes) == (ssize_t)bytes && memcmp(is, text, bytes) == 0;
}

void task_profile(struct store *s, struct task *t)
{
    char file[MODEL_NAME_MAX + 8];
    AUTO(free) char *text = NULL;
    struct err err = {0};
    struct entry e;

    profile_file(t->name, "json", file);
    if (!store_entry_read(s, t->name, &e) ||
        engine_profile_text(s->d->engine, t->name, &text, &err) < 0 || profile_is(s, file, text))
        return; /* it has gone, or nothing is new */
    if (disk_write(s->profiles_fd, file, text, strlen(text), &err) < 0)
        log_line(LOG_ERR, &(struct log_fields){.event = "profile", .model = t->name, .gpulet = -1},
                 "%s", err.msg);
}

void task_delete(struct store *s, struct task *t)
{
    struct err err = {0};
    struct entry e;
    bool known = store_entry_read(s, t->name, &e);
    int r = known ? 0 : err_set(&err, -ENOENT, "there is no model '%s'", t->name);

    if (r == 0) {
        (void)unload_wait(s, t->name, &(struct err){0}); /* not loaded: just as well */
        disk_remove(s->models_fd, t->name);
        (void)fsync(s->models_fd);
        profile_remove(s, t->name);
        store_entry_drop(s, t->name);
    }
    task_hand_back(t, r, &err);
}

/* Put in or out of service, and remember it over a restart. */
static void set_loaded(struct store *s, struct task *t, bool loaded)
{
    struct err err = {0};
    struct entry e;
    int r = need(s, t, &e, &err);

    if (r == 0) {
        r = loaded ? store_load_wait(s, &e, e.version, &err) : unload_wait(s, t->name, &err);
        if (!loaded && r == -ENOENT)
            r = 0;
    }
    if (r == 0) {
        e.loaded = loaded;
        (void)snprintf(e.error, sizeof(e.error), "%s", loaded ? "" : "unloaded");
        r = store_json_write(s, &e, &err);
        (void)store_entry_write(s, &e);
    }
    task_hand_back(t, r, &err);
}

void task_load(struct store *s, struct task *t)
{
    set_loaded(s, t, true);
}

void task_unload(struct store *s, struct task *t)
{
    set_loaded(s, t, false);
}
