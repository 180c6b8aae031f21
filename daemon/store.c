/* The repository: entries in memory under one lock, and a worker that does one task at a time.
 *
 * A task may take long (a load compiles); it waits for the engine through the worker's own
 * completion queue.  The order of a PUT is what makes it safe:
 *
 *   1. the bytes lie in incoming/, complete and synced
 *   2. the folder is renamed to models/NAME/V, then model.json says pending = V   (durable)
 *   3. the engine loads V while the version before serves on
 *   4. model.json says version = V, the older folder is removed; or, if the load failed, pending
 *      goes back to 0 and folder V is removed: what was there before is untouched */
#include "store.h"
#include "log.h"
#include "store_disk.h"
#include <gpulet/model.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_ENTRIES 65536
#define JSON_MAX 4096
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
    int models_fd, incoming_fd;
    struct cq *cq; /* what the worker waits for from the engine */
    pthread_t worker;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t cond;
    struct entry *entries;
    struct task *first, *last;
    bool closing;
};

/* ---- entries: under s->lock */

static struct entry **entry_place(struct store *s, const char *name)
{
    struct entry **e = &s->entries;

    while (*e && strcmp((*e)->name, name) < 0)
        e = &(*e)->next;
    return e;
}

static struct entry *entry_find(struct store *s, const char *name)
{
    struct entry *e = *entry_place(s, name);

    return e && STREQ(e->name, name) ? e : NULL;
}

/* A copy of the entry, or a new one's; the worker is the only one who changes entries. */
static bool entry_read(struct store *s, const char *name, struct entry *ret)
{
    (void)pthread_mutex_lock(&s->lock);
    struct entry *e = entry_find(s, name);
    *ret = e ? *e : (struct entry){.loaded = true};
    (void)pthread_mutex_unlock(&s->lock);
    if (!e)
        (void)snprintf(ret->name, sizeof(ret->name), "%s", name);
    return e != NULL;
}

static int entry_write(struct store *s, const struct entry *from)
{
    int r = 0;

    (void)pthread_mutex_lock(&s->lock);
    struct entry **at = entry_place(s, from->name), *e = *at;
    if (!e || !STREQ(e->name, from->name)) {
        e = calloc(1, sizeof(*e));
        if (e) {
            e->next = *at;
            *at = e;
        }
    }
    if (e) {
        struct entry *next = e->next;
        *e = *from;
        e->next = next;
    } else {
        r = -ENOMEM;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

static void entry_drop(struct store *s, const char *name)
{
    (void)pthread_mutex_lock(&s->lock);
    struct entry **at = entry_place(s, name), *e = *at;
    if (e && STREQ(e->name, name)) {
        *at = e->next;
        free(e);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

int store_list(struct store *s, struct arena *a, struct store_entry **ret, uint32_t *ret_n)
{
    uint32_t n = 0;
    int r = 0;

    (void)pthread_mutex_lock(&s->lock);
    for (struct entry *e = s->entries; e; e = e->next)
        n++;
    struct store_entry *list = ARENA_ARRAY(a, struct store_entry, n + 1);
    *ret_n = 0;
    for (struct entry *e = s->entries; e && list; e = e->next) {
        struct store_entry *to = &list[(*ret_n)++];
        *to =
            (struct store_entry){.version = e->version, .loaded = e->loaded, .numbers = e->numbers};
        to->name = arena_strdup(a, e->name);
        to->error = arena_strdup(a, e->error);
        if (!to->name || !to->error)
            r = -ENOMEM;
    }
    (void)pthread_mutex_unlock(&s->lock);
    *ret = list;
    return list ? r : -ENOMEM;
}

/* ---- model.json */

static int json_write(struct store *s, const struct entry *e, struct err *err)
{
    char hash[HASH_HEX_LEN];
    AUTO(close_fd) int fd = disk_folder(s->models_fd, e->name, err);

    if (fd < 0)
        return fd;
    hash_hex(e->hash, hash);
    json_t *o =
        json_pack("{s:i, s:i, s:b, s:f, s:f, s:i, s:i, s:i, s:s, s:s}", "version", (int)e->version,
                  "pending", (int)e->pending, "loaded", (int)e->loaded, "slo_ms",
                  (double)e->numbers.slo_us / 1000.0, "rate_rps", e->numbers.rate_rps, "max_batch",
                  (int)e->numbers.max_batch, "queue", (int)e->numbers.queue_max, "priority",
                  (int)e->numbers.priority, "precision", e->numbers.precision, "hash", hash);
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    int r = text ? disk_write(fd, MODEL_JSON, text, strlen(text), err)
                 : err_set(err, -ENOMEM, "out of memory");
    free(text);
    return r < 0                     ? r
           : fsync(s->models_fd) < 0 ? err_set(err, -errno, "models: %s", strerror(errno))
                                     : 0;
}

static int json_read(struct store *s, const char *name, struct entry *ret, struct err *err)
{
    char path[MODEL_NAME_MAX + 32], text[JSON_MAX];
    int r = store_name_check(name, err);
    const char *precision = "", *hash = "";
    int version = 0, pending = 0, loaded = 1, batch = 0, queue = 0, priority = 0;
    double slo_ms = 0, rate = 0;

    if (r < 0)
        return r;
    (void)snprintf(path, sizeof(path), "%.*s/%s", MODEL_NAME_MAX, name, MODEL_JSON);
    AUTO(close_fd) int fd = openat(s->models_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (n < 0)
        return err_set(err, -errno, "model '%s': %s: %s", name, MODEL_JSON, strerror(errno));
    json_t *o = json_loadb(text, (size_t)n, 0, NULL);
    if (!o || json_unpack(o, "{s:i, s:i, s:b, s:F, s:F, s:i, s:i, s:i, s:s, s:s}", "version",
                          &version, "pending", &pending, "loaded", &loaded, "slo_ms", &slo_ms,
                          "rate_rps", &rate, "max_batch", &batch, "queue", &queue, "priority",
                          &priority, "precision", &precision, "hash", &hash) < 0) {
        json_decref(o);
        return err_set(err, -EINVAL, "model '%s': %s is damaged", name, MODEL_JSON);
    }
    *ret = (struct entry){
        .version = (uint32_t)version, .pending = (uint32_t)pending, .loaded = loaded};
    (void)snprintf(ret->name, sizeof(ret->name), "%.*s", MODEL_NAME_MAX, name);
    ret->numbers = (struct numbers){.slo_us = (usec_t)(slo_ms * 1000 + 0.5),
                                    .rate_rps = rate,
                                    .max_batch = (uint32_t)batch,
                                    .queue_max = (uint32_t)queue,
                                    .priority = priority};
    (void)snprintf(ret->numbers.precision, sizeof(ret->numbers.precision), "%s", precision);
    if (sscanf(hash, "%16lx%16lx", &ret->hash.hi, &ret->hash.lo) != 2)
        ret->hash = (struct hash128){0};
    json_decref(o);
    return 0;
}

/* ---- uploads */

int upload_new(struct store *s, const char *name, const char *file, uint64_t bytes,
               struct upload **ret, struct err *err)
{
    static _Atomic unsigned serial;
    char path[sizeof((struct upload){0}.folder) + MODEL_NAME_MAX + 4];
    int r = store_name_check(name, err);

    if (r == 0 && file && (r = store_name_check(file, err)) < 0)
        return err_wrap(err, "file: ");
    if (r == 0 && file &&
        (STREQ(file, MODEL_FILE) || STREQ(file, PREPARED_FILE) || STREQ(file, MODEL_JSON)))
        return err_set(err, -EINVAL, "file '%s': this name is taken", file);
    if (r == 0 && bytes != UINT64_MAX)
        r = disk_room(s->incoming_fd, bytes, err);
    struct upload *u = r == 0 ? calloc(1, sizeof(*u)) : NULL;
    if (!u)
        return r < 0 ? r : err_set(err, -ENOMEM, "out of memory");
    u->store = s;
    u->fd = -1;
    (void)snprintf(u->name, sizeof(u->name), "%s", name);
    (void)snprintf(u->file, sizeof(u->file), "%s", file ? file : "");
    (void)snprintf(u->folder, sizeof(u->folder), "%s@%u", name, ++serial);
    (void)snprintf(path, sizeof(path), "%s/%s", u->folder, file ? file : MODEL_FILE);
    if (mkdirat(s->incoming_fd, u->folder, 0700) < 0 ||
        (u->fd = openat(s->incoming_fd, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0) {
        r = err_set(err, -errno, "model '%s': %s", name, strerror(errno));
        upload_free(u);
        return r;
    }
    *ret = u;
    return 0;
}

void upload_free(struct upload *u)
{
    if (!u)
        return;
    if (u->fd >= 0)
        (void)close(u->fd);
    if (u->folder[0])
        disk_remove(u->store->incoming_fd, u->folder);
    free(u);
}

/* Folder in incoming/ in which external data waits for its model. */
static void files_folder(const char *name, char ret[MODEL_NAME_MAX + 16])
{
    (void)snprintf(ret, MODEL_NAME_MAX + 16, "%s@files", name);
}

/* ---- the worker's steps */

static void hand_back(struct task *t, int rc, const struct err *err)
{
    struct job *job = TAKE(t->job);

    if (!job)
        return;
    job->rc = rc;
    job->err = rc < 0 ? *err : (struct err){0};
    cq_push(job->cq, &job->item);
}

/* Wait for n jobs of the engine. */
static void wait_for(struct store *s, uint32_t n)
{
    struct pollfd p = {.fd = cq_fd(s->cq), .events = POLLIN};

    while (n > 0) {
        (void)poll(&p, 1, -1);
        for (struct cq_item *i = cq_take(s->cq); i; i = i->next)
            n--;
    }
}

static void load_begin(struct store *s, const struct entry *e, uint32_t version, struct job *job)
{
    struct model_spec spec = {.version = version,
                              .slo_us = e->numbers.slo_us,
                              .rate_rps = e->numbers.rate_rps,
                              .max_batch = e->numbers.max_batch,
                              .queue_max = e->numbers.queue_max,
                              .priority = e->numbers.priority};

    (void)snprintf(spec.name, sizeof(spec.name), "%s", e->name);
    (void)snprintf(spec.dir, sizeof(spec.dir), "%s/models/%s/%u", s->dir, e->name, version);
    memcpy(spec.precision, e->numbers.precision, sizeof(spec.precision));
    *job = (struct job){.cq = s->cq};
    engine_load(s->d->engine, &spec, job, s->cq);
}

static int load_wait(struct store *s, const struct entry *e, uint32_t version, struct err *err)
{
    struct job job;

    load_begin(s, e, version, &job);
    wait_for(s, 1);
    if (job.rc < 0)
        *err = job.err;
    return job.rc;
}

static int unload_wait(struct store *s, const char *name, struct err *err)
{
    struct job job = {.cq = s->cq};

    engine_unload(s->d->engine, name, &job, s->cq);
    wait_for(s, 1);
    if (job.rc < 0)
        *err = job.err;
    return job.rc;
}

static void remove_version(struct store *s, const char *name, uint32_t version)
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
        r = json_write(s, e, err);
    }
    return r;
}

/* Step 4 when the load failed: as it was before. */
static void put_undo(struct store *s, const struct entry *was, bool known, uint32_t pending)
{
    if (known) {
        (void)json_write(s, was, NULL);
        remove_version(s, was->name, pending);
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
        hand_back(t, 0, NULL);
    if (r == 0)
        r = load_wait(s, e, e->pending, err);
    if (r < 0) {
        put_undo(s, was, known, e->pending);
        if (!known) /* the engine remembers a name that failed; nobody has it now */
            (void)unload_wait(s, e->name, &(struct err){0});
        return r;
    }
    uint32_t older = was->version;
    e->version = e->pending;
    e->pending = 0;
    e->error[0] = 0;
    r = json_write(s, e, err); /* if this fails, pending is on disk: the next start loads it */
    if (older && older != e->version)
        remove_version(s, e->name, older);
    (void)entry_write(s, e);
    return r;
}

/* New numbers for the version that serves. */
static int change_numbers(struct store *s, struct entry *e, const struct numbers *n,
                          struct err *err)
{
    struct entry was = *e;

    numbers_merge(&e->numbers, n);
    int r = e->loaded ? load_wait(s, e, e->version, err) : 0;
    if (r == 0)
        r = json_write(s, e, err);
    if (r == 0) {
        e->error[0] = 0;
        (void)entry_write(s, e);
    } else if (was.loaded) {
        (void)load_wait(s, &was, was.version, &(struct err){0});
    }
    return r;
}

static void task_put(struct store *s, struct task *t)
{
    struct upload *u = t->upload;
    struct err err = {0};
    struct entry was, e;
    char path[MODEL_NAME_MAX + 32];
    bool known = entry_read(s, u->name, &was);
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
            (void)entry_write(s, &was);
        }
    }
    if (r < 0 && !t->job)
        log_line(LOG_ERR, &(struct log_fields){.event = "load", .model = u->name, .gpulet = -1},
                 "%s", err.msg);
    upload_free(u);
    hand_back(t, r, &err);
}

static void task_put_file(struct store *s, struct task *t)
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
    hand_back(t, r, &err);
}

static int need(struct store *s, struct task *t, struct entry *ret, struct err *err)
{
    if (entry_read(s, t->name, ret) && ret->version)
        return 0;
    return err_set(err, -ENOENT, "there is no model '%s'", t->name);
}

static void task_change(struct store *s, struct task *t)
{
    struct err err = {0};
    struct entry e;
    int r = need(s, t, &e, &err);

    if (r == 0)
        r = change_numbers(s, &e, &t->numbers, &err);
    hand_back(t, r, &err);
}

static void task_delete(struct store *s, struct task *t)
{
    struct err err = {0};
    struct entry e;
    bool known = entry_read(s, t->name, &e);
    int r = known ? 0 : err_set(&err, -ENOENT, "there is no model '%s'", t->name);

    if (r == 0) {
        (void)unload_wait(s, t->name, &(struct err){0}); /* not loaded: just as well */
        disk_remove(s->models_fd, t->name);
        (void)fsync(s->models_fd);
        entry_drop(s, t->name);
    }
    hand_back(t, r, &err);
}

/* Put in or out of service, and remember it over a restart. */
static void set_loaded(struct store *s, struct task *t, bool loaded)
{
    struct err err = {0};
    struct entry e;
    int r = need(s, t, &e, &err);

    if (r == 0) {
        r = loaded ? load_wait(s, &e, e.version, &err) : unload_wait(s, t->name, &err);
        if (!loaded && r == -ENOENT)
            r = 0;
    }
    if (r == 0) {
        e.loaded = loaded;
        (void)snprintf(e.error, sizeof(e.error), "%s", loaded ? "" : "unloaded");
        r = json_write(s, &e, &err);
        (void)entry_write(s, &e);
    }
    hand_back(t, r, &err);
}

static void task_load(struct store *s, struct task *t)
{
    set_loaded(s, t, true);
}

static void task_unload(struct store *s, struct task *t)
{
    set_loaded(s, t, false);
}

/* ---- start */

/* Remove version folders that model.json does not name. */
static void remove_strays(struct store *s, const struct entry *e)
{
    int fd = openat(s->models_fd, e->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *f;

    while (d && (f = readdir(d))) {
        uint32_t v = (uint32_t)strtoul(f->d_name, NULL, 10);
        if (f->d_name[0] == '.'
                ? STREQ(f->d_name, ".") || STREQ(f->d_name, "..")
                : STREQ(f->d_name, MODEL_JSON) || (v && (v == e->version || v == e->pending)))
            continue;
        disk_remove(fd, f->d_name);
    }
    if (d)
        (void)closedir(d);
}

static int read_entries(struct store *s, struct err *err)
{
    struct dirent **names = NULL;
    int n = scandirat(s->models_fd, ".", &names, NULL, alphasort), r = 0;

    for (int i = 0; i < n; i++) {
        struct err own = {0};
        struct entry e;
        if (r == 0 && names[i]->d_name[0] != '.' && i < MAX_ENTRIES) {
            if (json_read(s, names[i]->d_name, &e, &own) == 0) {
                remove_strays(s, &e);
                r = entry_write(s, &e);
            } else {
                LOG(LOG_ERR, "restore", "%s", own.msg);
            }
        }
        free(names[i]);
    }
    free(names);
    return r < 0   ? err_set(err, r, "out of memory")
           : n < 0 ? err_set(err, -errno, "models: %s", strerror(errno))
                   : 0;
}

/* A version that was acknowledged with ?wait=0, or whose load a crash cut short, is tried first. */
static void restore_pending(struct store *s, struct entry *e)
{
    struct err err = {0};
    struct entry was = *e;

    was.pending = 0;
    if (load_wait(s, e, e->pending, &err) == 0) {
        e->version = e->pending;
        e->pending = 0;
        (void)json_write(s, e, NULL);
        if (was.version)
            remove_version(s, e->name, was.version);
        (void)entry_write(s, e);
        return;
    }
    log_line(LOG_ERR, &(struct log_fields){.event = "restore", .model = e->name, .gpulet = -1},
             "%s", err.msg);
    put_undo(s, &was, was.version != 0, e->pending);
    *e = was;
    (void)snprintf(e->error, sizeof(e->error), "%s", err.msg);
    e->loaded = was.version != 0;
    (void)entry_write(s, e);
}

static void task_restore(struct store *s, struct task *t)
{
    struct store_entry *list;
    struct arena a;
    uint32_t n, waiting = 0;

    (void)t;
    arena_init(&a);
    if (store_list(s, &a, &list, &n) < 0)
        n = 0;
    struct job *job = ARENA_ARRAY(&a, struct job, n + 1);
    struct entry e;
    for (uint32_t i = 0; i < n && job; i++) { /* all at once: the engine knows them as loading */
        (void)entry_read(s, list[i].name, &e);
        if (e.loaded && e.version && !e.pending) {
            load_begin(s, &e, e.version, &job[i]);
            waiting++;
        }
    }
    wait_for(s, waiting);
    for (uint32_t i = 0; i < n && job; i++) {
        (void)entry_read(s, list[i].name, &e);
        if (job[i].rc < 0) {
            (void)snprintf(e.error, sizeof(e.error), "%s", job[i].err.msg);
            (void)entry_write(s, &e);
        }
        if (e.pending) {
            restore_pending(s, &e);
            if (e.pending == 0 && e.error[0] && e.version &&
                load_wait(s, &e, e.version, &(struct err){0}) == 0)
                LOG(LOG_WARNING, "restore", "model '%s': version %u serves instead", e.name,
                    e.version);
        }
    }
    arena_done(&a);
    s->d->restored = true;
}

/* ---- tasks */

static void *worker_main(void *arg)
{
    struct store *s = arg;

    (void)pthread_setname_np(pthread_self(), "store");
    for (;;) {
        (void)pthread_mutex_lock(&s->lock);
        while (!s->first && !s->closing)
            (void)pthread_cond_wait(&s->cond, &s->lock);
        struct task *t = s->first;
        if (t && !(s->first = t->next))
            s->last = NULL;
        (void)pthread_mutex_unlock(&s->lock);
        if (!t)
            return NULL;
        t->run(s, t);
        free(t);
    }
}

static void push(struct store *s, const struct task *from)
{
    static const struct err stopping = {.code = -EAGAIN, .msg = "the server is stopping"};
    struct task *t = malloc(sizeof(*t));

    (void)pthread_mutex_lock(&s->lock);
    bool take = t && !s->closing;
    if (take) {
        *t = *from;
        t->next = NULL;
        if (s->last)
            s->last->next = t;
        else
            s->first = t;
        s->last = t;
        (void)pthread_cond_signal(&s->cond);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (!take) {
        struct task back = *from;
        free(t);
        upload_free(back.upload);
        hand_back(&back, stopping.code, &stopping);
    }
}

static void push_named(struct store *s, void (*run)(struct store *, struct task *),
                       const char *name, const struct numbers *n, struct job *job)
{
    struct task t = {.run = run, .job = job};

    (void)snprintf(t.name, sizeof(t.name), "%s", name);
    if (n)
        t.numbers = *n;
    push(s, &t);
}

void store_put(struct store *s, struct upload *u, bool wait, uint32_t *ret_version, struct job *job)
{
    push(s,
         &(struct task){
             .run = task_put, .upload = u, .wait = wait, .ret_version = ret_version, .job = job});
}

void store_put_file(struct store *s, struct upload *u, struct job *job)
{
    push(s, &(struct task){.run = task_put_file, .upload = u, .job = job});
}

void store_change(struct store *s, const char *name, const struct numbers *n, struct job *job)
{
    push_named(s, task_change, name, n, job);
}

void store_delete(struct store *s, const char *name, struct job *job)
{
    push_named(s, task_delete, name, NULL, job);
}

void store_load(struct store *s, const char *name, struct job *job)
{
    push_named(s, task_load, name, NULL, job);
}

void store_unload(struct store *s, const char *name, struct job *job)
{
    push_named(s, task_unload, name, NULL, job);
}

void store_restore(struct store *s)
{
    push(s, &(struct task){.run = task_restore});
}

int store_open(struct gpuletd *d, const char *dir, struct store **ret, struct err *err)
{
    struct store *s = calloc(1, sizeof(*s));
    int r = 0, root = -1;

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->d = d;
    s->models_fd = s->incoming_fd = -1;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->cond, NULL);
    if (!(s->dir = strdup(dir)))
        r = err_set(err, -ENOMEM, "out of memory");
    if (r == 0)
        r = root = disk_folder(AT_FDCWD, dir, err);
    if (r >= 0) {
        disk_remove(root, "incoming");
        r = s->models_fd = disk_folder(root, "models", err);
    }
    if (r >= 0)
        r = s->incoming_fd = disk_folder(root, "incoming", err);
    if (root >= 0)
        (void)close(root);
    if (r >= 0)
        r = read_entries(s, err);
    if (r >= 0)
        r = cq_new(&s->cq);
    if (r >= 0 && (r = -pthread_create(&s->worker, NULL, worker_main, s)) == 0) {
        *ret = s;
        return 0;
    }
    (void)err_wrap(err, "state folder '%s': ", dir);
    store_free(s);
    return r;
}

void store_close(struct store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->closing = true;
    (void)pthread_cond_signal(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
    if (s->worker)
        (void)pthread_join(s->worker, NULL);
    s->worker = 0;
}

void store_free(struct store *s)
{
    while (s->entries)
        entry_drop(s, s->entries->name);
    if (s->models_fd >= 0)
        (void)close(s->models_fd);
    if (s->incoming_fd >= 0)
        (void)close(s->incoming_fd);
    if (s->cq)
        cq_free(s->cq);
    (void)pthread_cond_destroy(&s->cond);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}
