/* The repository: entries in memory under one lock, and a worker that does one task at a time. */
#include "store_disk.h"
#include "store_priv.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

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
        task_hand_back(&back, stopping.code, &stopping);
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

void store_profile(struct store *s, const char *name)
{
    push_named(s, task_profile, name, NULL, NULL);
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
    s->models_fd = s->incoming_fd = s->profiles_fd = -1;
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
    if (r >= 0)
        r = s->profiles_fd = disk_folder(root, "profiles", err);
    if (root >= 0)
        (void)close(root);
    if (r >= 0)
        r = store_read_entries(s, err);
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
        store_entry_drop(s, s->entries->name);
    if (s->models_fd >= 0)
        (void)close(s->models_fd);
    if (s->incoming_fd >= 0)
        (void)close(s->incoming_fd);
    if (s->profiles_fd >= 0)
        (void)close(s->profiles_fd);
    if (s->cq)
        cq_free(s->cq);
    (void)pthread_cond_destroy(&s->cond);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}
