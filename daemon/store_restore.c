/* What the store finds at start, and brings back into service. */
#include "log.h"
#include "store_disk.h"
#include "store_priv.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_ENTRIES 65536

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

int store_read_entries(struct store *s, struct err *err)
{
    struct dirent **names = NULL;
    int n = scandirat(s->models_fd, ".", &names, NULL, alphasort), r = 0;

    for (int i = 0; i < n; i++) {
        struct err own = {0};
        struct entry e;
        if (r == 0 && names[i]->d_name[0] != '.' && i < MAX_ENTRIES) {
            if (store_json_read(s, names[i]->d_name, &e, &own) == 0) {
                remove_strays(s, &e);
                r = store_entry_write(s, &e);
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
    if (store_load_wait(s, e, e->pending, &err) == 0) {
        e->version = e->pending;
        e->pending = 0;
        (void)store_json_write(s, e, NULL);
        if (was.version)
            store_remove_version(s, e->name, was.version);
        (void)store_entry_write(s, e);
        return;
    }
    log_line(LOG_ERR, &(struct log_fields){.event = "restore", .model = e->name, .gpulet = -1},
             "%s", err.msg);
    store_put_undo(s, &was, was.version != 0, e->pending);
    *e = was;
    (void)snprintf(e->error, sizeof(e->error), "%s", err.msg);
    e->loaded = was.version != 0;
    (void)store_entry_write(s, e);
}

void task_restore(struct store *s, struct task *t)
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
        (void)store_entry_read(s, list[i].name, &e);
        if (e.loaded && e.version && !e.pending) {
            store_load_begin(s, &e, e.version, &job[i]);
            waiting++;
        }
    }
    store_wait_for(s, waiting);
    for (uint32_t i = 0; i < n && job; i++) {
        (void)store_entry_read(s, list[i].name, &e);
        if (job[i].rc < 0) {
            (void)snprintf(e.error, sizeof(e.error), "%s", job[i].err.msg);
            (void)store_entry_write(s, &e);
        }
        if (e.pending) {
            restore_pending(s, &e);
            if (e.pending == 0 && e.error[0] && e.version &&
                store_load_wait(s, &e, e.version, &(struct err){0}) == 0)
                LOG(LOG_WARNING, "restore", "model '%s': version %u serves instead", e.name,
                    e.version);
        }
    }
    arena_done(&a);
    s->d->restored = true;
}
