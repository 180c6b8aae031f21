/* What is known of each model: a list by name under the store's lock, and model.json, which is
 * the truth. */
#include "store_disk.h"
#include "store_priv.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define JSON_MAX 4096

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
bool store_entry_read(struct store *s, const char *name, struct entry *ret)
{
    (void)pthread_mutex_lock(&s->lock);
    struct entry *e = entry_find(s, name);
    *ret = e ? *e : (struct entry){.loaded = true};
    (void)pthread_mutex_unlock(&s->lock);
    if (!e)
        (void)snprintf(ret->name, sizeof(ret->name), "%s", name);
    return e != NULL;
}

int store_entry_write(struct store *s, const struct entry *from)
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

void store_entry_drop(struct store *s, const char *name)
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

int store_json_write(struct store *s, const struct entry *e, struct err *err)
{
    char hash[HASH_HEX_LEN];
    AUTO(close_fd) int fd = disk_folder(s->models_fd, e->name, err);

    if (fd < 0)
        return fd;
    hash_hex(e->hash, hash);
    json_t *o =
        json_pack("{s:i, s:i, s:b, s:f, s:f, s:i, s:i, s:i, s:s, s:b, s:b, s:s}", "version",
                  (int)e->version, "pending", (int)e->pending, "loaded", (int)e->loaded, "slo_ms",
                  (double)e->numbers.slo_us / 1000.0, "rate_rps", e->numbers.rate_rps, "max_batch",
                  (int)e->numbers.max_batch, "queue", (int)e->numbers.queue_max, "priority",
                  (int)e->numbers.priority, "precision", precision_name(e->numbers.precision),
                  "batch_invariant", (int)e->numbers.batch_invariant, "best_effort",
                  (int)e->numbers.best_effort, "hash", hash);
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    int r = text ? disk_write(fd, MODEL_JSON, text, strlen(text), err)
                 : err_set(err, -ENOMEM, "out of memory");
    free(text);
    return r < 0                     ? r
           : fsync(s->models_fd) < 0 ? err_set(err, -errno, "models: %s", strerror(errno))
                                     : 0;
}

int store_json_read(struct store *s, const char *name, struct entry *ret, struct err *err)
{
    char path[MODEL_NAME_MAX + 32], text[JSON_MAX];
    int r = store_name_check(name, err);
    const char *precision = "", *hash = "";
    int version = 0, pending = 0, loaded = 1, batch = 0, queue = 0, priority = 0, invariant = 0,
        effort = 0;
    double slo_ms = 0, rate = 0;

    if (r < 0)
        return r;
    (void)snprintf(path, sizeof(path), "%.*s/%s", MODEL_NAME_MAX, name, MODEL_JSON);
    AUTO(close_fd) int fd = openat(s->models_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (n < 0)
        return err_set(err, -errno, "model '%s': %s: %s", name, MODEL_JSON, strerror(errno));
    json_t *o = json_loadb(text, (size_t)n, 0, NULL);
    if (!o || json_unpack(o, "{s:i, s:i, s:b, s:F, s:F, s:i, s:i, s:i, s:s, s?b, s?b, s:s}",
                          "version", &version, "pending", &pending, "loaded", &loaded, "slo_ms",
                          &slo_ms, "rate_rps", &rate, "max_batch", &batch, "queue", &queue,
                          "priority", &priority, "precision", &precision, "batch_invariant",
                          &invariant, "best_effort", &effort, "hash", &hash) < 0) {
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
                                    .priority = priority,
                                    .batch_invariant = invariant,
                                    .best_effort = effort};
    if (precision[0] && precision_of(precision, &ret->numbers.precision) < 0)
        r = err_set(err, -ENOTSUP, "model '%s': %s: precision '%.16s'", name, MODEL_JSON,
                    precision);
    if (sscanf(hash, "%16lx%16lx", &ret->hash.hi, &ret->hash.lo) != 2)
        ret->hash = (struct hash128){0};
    json_decref(o);
    return r;
}
