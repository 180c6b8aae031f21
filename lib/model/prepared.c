/* prepared.bin: a header, a table of constants in execution order, then their data, each at a
 * multiple of PREPARED_ALIGN.  Little-endian, like every tensor.
 *
 * The hash in the header covers the header before it and the table, so that a file that was cut
 * short or belongs to another model or pass version is seen without reading the data; it is then
 * ignored, and written anew.  A model that needs no such constant has no such file. */
#include "prepared.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "gpuletP1"
#define MAX_ENTRIES 1000000

struct prepared_entry {
    struct hash128 key, hash; /* what it was made from; of its content */
    uint64_t offset, bytes;
    uint32_t dtype, rank;
    int64_t dims[MAX_RANK];
};

struct header {
    char magic[8];
    uint32_t version, n;
    struct hash128 model;
    uint64_t file_bytes;
    uint64_t zero;
    struct hash128 check; /* of all before it, and the table */
};

static struct hash128 header_check(const struct header *h, const struct prepared_entry *e)
{
    return hash_join(hash_bytes(h, offsetof(struct header, check)),
                     hash_bytes(e, h->n * sizeof(*e)));
}

static bool entry_is_sound(const struct prepared_entry *e, uint64_t file_bytes)
{
    struct tensor t = {0};

    return e->rank <= MAX_RANK && dtype_size((enum dtype)e->dtype) &&
           tensor_shape(&t, (enum dtype)e->dtype, e->rank, e->dims) == 0 && t.bytes == e->bytes &&
           e->offset % PREPARED_ALIGN == 0 && e->offset <= file_bytes &&
           e->bytes <= file_bytes - e->offset;
}

static bool file_is_sound(const struct mapping *m, struct hash128 model)
{
    const struct header *h = m->base;
    const struct prepared_entry *e = (const void *)(h + 1);

    if (m->bytes < sizeof(*h) || memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0 ||
        h->version != PASS_VERSION || !hash_eq(h->model, model) || h->file_bytes != m->bytes ||
        h->n > MAX_ENTRIES || h->n > (m->bytes - sizeof(*h)) / sizeof(*e) ||
        !hash_eq(h->check, header_check(h, e)))
        return false;
    for (uint32_t i = 0; i < h->n; i++)
        if (!entry_is_sound(&e[i], m->bytes))
            return false;
    return true;
}

static void unmap(struct prepared *p)
{
    if (p->file.base)
        (void)munmap((void *)p->file.base, p->file.bytes);
    p->file = (struct mapping){0};
    p->entry = NULL;
    p->n = p->next = 0;
}

/* Leaves p->file.base NULL when there is no usable file. */
static void map(struct prepared *p, const char *path, struct hash128 model)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0)
        return;
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return;
    p->file = (struct mapping){base, (size_t)st.st_size, true};
    if (!file_is_sound(&p->file, model)) {
        unmap(p);
        return;
    }
    p->n = ((const struct header *)base)->n;
    p->entry = (const void *)((const struct header *)base + 1);
}

void prepared_open(struct prepared *p, const char *dir, struct hash128 model)
{
    AUTO(free) char *path = NULL;

    *p = (struct prepared){0};
    arena_init(&p->scratch);
    arena_init(&p->aligned);
    p->data = &p->scratch;
    if (asprintf(&path, "%s/%s", dir, PREPARED_FILE) >= 0)
        map(p, path, model);
    else
        path = NULL;
}

void prepared_done(struct prepared *p)
{
    unmap(p);
    arena_done(&p->scratch);
    arena_done(&p->aligned);
    free(p->made);
    *p = (struct prepared){0};
}

static void point_at(const struct prepared *p, const struct prepared_entry *e, struct constant *c)
{
    c->t = (struct tensor){.dtype = (enum dtype)e->dtype,
                           .rank = e->rank,
                           .bytes = e->bytes,
                           .data = (char *)p->file.base + e->offset};
    memcpy(c->t.dims, e->dims, sizeof(c->t.dims));
    c->hash = e->hash;
    c->source = CONST_PREPARED;
}

/* The passes ask in about the order in which the file was written. */
static const struct prepared_entry *find_entry(struct prepared *p, struct hash128 key)
{
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t at = (p->next + i) % p->n;
        if (hash_eq(p->entry[at].key, key)) {
            p->next = (at + 1) % p->n;
            return &p->entry[at];
        }
    }
    return NULL;
}

const struct constant *prepared_find(struct prepared *p, struct hash128 key, struct arena *a)
{
    const struct prepared_entry *e = find_entry(p, key);
    struct constant *c = e ? ARENA_NEW(a, struct constant) : NULL;

    if (c)
        point_at(p, e, c);
    return c;
}

int prepared_note(struct prepared *p, const struct constant *c, struct hash128 key)
{
    if (p->n_made == p->cap_made) {
        uint32_t cap = p->cap_made ? p->cap_made * 2 : 64;
        struct made *grown = reallocarray(p->made, cap, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        p->made = grown;
        p->cap_made = cap;
    }
    p->made[p->n_made++] = (struct made){c, key};
    return 0;
}

struct hash128 prepared_copy_key(const struct constant *c)
{
    return hash_join(hash_bytes("copy", 4), c->hash);
}

bool constant_is_aligned(const struct constant *c)
{
    size_t size = dtype_size(c->t.dtype);

    return size == 0 || (uintptr_t)c->t.data % size == 0;
}

/* ---- before the passes */

/* Whether shape inference may look at the numbers. */
static bool is_bind_time(const struct tensor *t)
{
    return t->dtype != DT_FP32 && t->dtype != DT_FP16 && t->dtype != DT_BF16 &&
           t->dtype != DT_FP64 && t->bytes <= BIND_EVAL_MAX_ELEMS * sizeof(int64_t);
}

static int align_one(struct prepared *p, struct graph *g, struct value *v)
{
    const struct constant *old = v->constant;
    bool small = old->t.bytes <= SMALL_CONST_BYTES;
    struct constant *c;

    if (!small && (v->constant = prepared_find(p, prepared_copy_key(old), &g->arena)))
        return 0;
    v->constant = old;
    c = arena_memdup(&g->arena, old, sizeof(*old));
    if (!c || !(c->t.data = arena_memdup(small ? &g->arena : p->data, old->t.data, old->t.bytes)))
        return -ENOMEM;
    c->source = CONST_ARENA;
    v->constant = c;
    return 0;
}

int prepared_align(struct prepared *p, struct graph *g)
{
    for (uint32_t i = 0; i < g->n_values; i++) {
        struct value *v = &g->values[i];
        if (!v->constant || constant_is_aligned(v->constant) ||
            (v->constant->t.bytes > SMALL_CONST_BYTES && !is_bind_time(&v->constant->t)))
            continue;
        if (align_one(p, g, v) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* ---- after the passes */

struct wanted { /* constants that belong in the file, in execution order */
    const struct constant **c;
    uint32_t n;
    bool missing; /* one of them is not there yet */
    bool *seen;   /* by value */
};

/* Made this time, found in the present file, or only moved. */
static struct hash128 key_of(const struct prepared *p, const struct constant *c)
{
    for (uint32_t i = 0; i < p->n_made; i++)
        if (p->made[i].c == c)
            return p->made[i].key;
    for (uint32_t i = 0; i < p->n && c->source == CONST_PREPARED; i++)
        if ((const char *)p->file.base + p->entry[i].offset == c->t.data)
            return p->entry[i].key;
    return prepared_copy_key(c);
}

static void want(struct wanted *w, struct prepared *p, const struct graph *g, uint32_t value)
{
    const struct constant *c = value == VALUE_NONE ? NULL : g->values[value].constant;

    if (!c || w->seen[value] || c->t.bytes <= SMALL_CONST_BYTES || !dtype_size(c->t.dtype))
        return;
    w->seen[value] = true;
    if (c->source == CONST_FILE && constant_is_aligned(c))
        return;
    if (c->source != CONST_PREPARED) {
        const struct prepared_entry *e = find_entry(p, key_of(p, c));
        if (e)
            point_at(p, e, (struct constant *)c); /* ours until the graph is handed out */
        w->missing |= !e;
    }
    w->c[w->n++] = c;
}

static int want_all(struct wanted *w, struct prepared *p, const struct graph *g)
{
    w->c = ARENA_ARRAY(&p->scratch, const struct constant *, g->n_values);
    w->seen = ARENA_ARRAY(&p->scratch, bool, g->n_values);
    if (!w->c || !w->seen)
        return -ENOMEM;
    for (uint32_t id = 0; id < g->n_nodes; id++) {
        const struct node *n = &g->nodes[id];
        for (uint32_t i = 0; i < n->n_in; i++)
            want(w, p, g, n->in[i]);
        for (uint32_t i = 0; i < n->n_post; i++)
            if (n->post[i].kind == POST_ADD)
                want(w, p, g, n->post[i].value);
    }
    for (uint32_t i = 0; i < g->n_out; i++)
        want(w, p, g, g->out[i]);
    return 0;
}

static uint64_t fill_table(const struct prepared *p, const struct wanted *w,
                           struct prepared_entry *e)
{
    uint64_t at = align_up(sizeof(struct header) + w->n * sizeof(*e), PREPARED_ALIGN);

    for (uint32_t i = 0; i < w->n; i++) {
        const struct constant *c = w->c[i];
        e[i] = (struct prepared_entry){.key = key_of(p, c),
                                       .hash = c->hash,
                                       .offset = at,
                                       .bytes = c->t.bytes,
                                       .dtype = c->t.dtype,
                                       .rank = c->t.rank};
        memcpy(e[i].dims, c->t.dims, c->t.rank * sizeof(c->t.dims[0]));
        at = align_up(at + c->t.bytes, PREPARED_ALIGN);
    }
    return at;
}

static int write_at(int fd, const void *data, size_t bytes, uint64_t at)
{
    const char *from = data;

    while (bytes > 0) {
        ssize_t n = pwrite(fd, from, bytes, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        from += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Most come from the model's file or the present prepared.bin: those pages are not kept. */
static int write_constant(int fd, const struct constant *c, uint64_t at)
{
    int r = 0;

    for (size_t done = 0; done < c->t.bytes && r == 0; done += PAGES_AT_ONCE) {
        const char *from = (const char *)c->t.data + done;
        size_t n = MIN(c->t.bytes - done, PAGES_AT_ONCE);
        r = write_at(fd, from, n, at + done);
        if (c->source != CONST_ARENA)
            pages_drop(from, n);
    }
    return r;
}

static int write_all(int fd, const struct header *h, const struct prepared_entry *e,
                     const struct wanted *w)
{
    int r = ftruncate(fd, (off_t)h->file_bytes) < 0 ? -errno : 0;

    if (r == 0)
        r = write_at(fd, h, sizeof(*h), 0);
    if (r == 0)
        r = write_at(fd, e, h->n * sizeof(*e), sizeof(*h));
    for (uint32_t i = 0; i < h->n && r == 0; i++)
        r = write_constant(fd, w->c[i], e[i].offset);
    return r == 0 && fsync(fd) < 0 ? -errno : r;
}

/* Into a temp file, then in place of the old one, so that a crash leaves one or the other. */
static int publish(const char *dir, const struct header *h, const struct prepared_entry *e,
                   const struct wanted *w)
{
    AUTO(close_fd) int folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char temp[PREPARED_TEMP_NAME];

    if (folder < 0)
        return -errno;
    AUTO(close_fd) int fd = prepared_temp(folder, temp);
    if (fd < 0)
        return fd;
    int r = write_all(fd, h, e, w);
    if (r == 0 && renameat(folder, temp, folder, PREPARED_FILE) < 0)
        r = -errno;
    if (r < 0)
        (void)unlinkat(folder, temp, 0);
    else if (fsync(folder) < 0)
        r = -errno;
    return r;
}

/* Map what was written and point the constants there. */
static int adopt(struct prepared *p, const char *path, struct hash128 model, const struct wanted *w)
{
    struct prepared fresh = {0};

    map(&fresh, path, model);
    if (!fresh.file.base || fresh.n != w->n)
        return -EIO;
    for (uint32_t i = 0; i < w->n; i++)
        point_at(&fresh, &fresh.entry[i], (struct constant *)w->c[i]);
    unmap(p);
    p->file = fresh.file;
    p->entry = fresh.entry;
    p->n = fresh.n;
    return 0;
}

static int write_and_map(struct prepared *p, const struct wanted *w, const char *dir,
                         struct hash128 model, struct err *err)
{
    struct prepared_entry *e = ARENA_ARRAY(&p->scratch, struct prepared_entry, w->n);
    AUTO(free) char *path = NULL;
    struct header h = {.magic = MAGIC, .version = PASS_VERSION, .n = w->n, .model = model};

    if (!e || asprintf(&path, "%s/%s", dir, PREPARED_FILE) < 0) {
        path = NULL;
        return err_set(err, -ENOMEM, "out of memory for %u prepared constants", w->n);
    }
    if (w->n > MAX_ENTRIES)
        return err_set(err, -E2BIG, "%u prepared constants, at most %u", w->n, MAX_ENTRIES);
    h.file_bytes = fill_table(p, w, e);
    h.check = header_check(&h, e);
    int r = publish(dir, &h, e, w);
    if (r < 0)
        return err_set(err, r, "%s (%llu bytes): %s", PREPARED_FILE,
                       (unsigned long long)h.file_bytes, strerror(-r));
    r = adopt(p, path, model, w);
    return r < 0 ? err_set(err, r, "%s: cannot be mapped after writing it", PREPARED_FILE) : 0;
}

int prepared_settle(struct prepared *p, struct graph *g, const char *dir, struct hash128 model,
                    struct err *err)
{
    struct wanted w = {0};
    int r = 0;

    if (want_all(&w, p, g) < 0)
        return err_set(err, -ENOMEM, "out of memory for the constants of %u values", g->n_values);
    if (w.missing)
        r = write_and_map(p, &w, dir, model, err);
    if (r == 0)
        arena_done(&p->scratch); /* nothing points there any more */
    return r;
}
