/* What was measured, for all of the process, and in a file for the next.
 *
 * The file's name is device, driver and libraries, so that another version never reads it.  It is
 * written whole, beside the old one and renamed; what a power cut leaves of it is told by its hash,
 * and measured again.  Nobody has to know of errors: without the file all works, only later. */
#include "choice.h"
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "gpuletd choices 1" /* another number where keys or ways mean something else */
#define CHOICES_MAX 16384u        /* 1.3 MB; more are not kept */
#define PATH_BYTES 4096
#define NAME_BYTES 224 /* with what is put behind it, a file system has 255 */
#define FILE_BYTES (PATH_BYTES + NAME_BYTES + 8)

struct choice {
    struct hash128 key;
    unsigned char way[CHOICE_BYTES];
};
struct file_head {
    char magic[24];
    struct hash128 identity, sum; /* sum: of what follows */
    uint64_t n;
};
struct choices {
    struct hash128 identity;
    char folder[PATH_BYTES], name[NAME_BYTES]; /* folder "": no file */
    struct choices *next;                      /* this and the rest under lock */
    unsigned refs;
    struct choice *choice;
    uint32_t n, cap;
    bool is_new; /* the file lacks something */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct choices *all; /* under lock */

/* ---- in memory, under the lock */
static struct choice *find(const struct choices *c, struct hash128 key)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (hash_eq(c->choice[i].key, key))
            return &c->choice[i];
    return NULL;
}

static struct choice *room(struct choices *c)
{
    uint32_t cap = c->cap ? c->cap * 2 : 64;

    if (c->n == CHOICES_MAX)
        return NULL;
    struct choice *more = c->n < c->cap ? c->choice : realloc(c->choice, cap * sizeof(*more));
    if (!more)
        return NULL;
    c->cap = c->n < c->cap ? c->cap : cap;
    c->choice = more;
    return &more[c->n++];
}

bool choices_find(struct choices *c, struct hash128 key, void *ret, size_t bytes)
{
    assert(bytes <= CHOICE_BYTES);
    if (!c)
        return false;
    (void)pthread_mutex_lock(&lock);
    const struct choice *found = find(c, key);
    if (found)
        memcpy(ret, found->way, bytes);
    (void)pthread_mutex_unlock(&lock);
    return found != NULL;
}

void choices_add(struct choices *c, struct hash128 key, const void *way, size_t bytes)
{
    assert(bytes <= CHOICE_BYTES);
    if (!c)
        return;
    (void)pthread_mutex_lock(&lock);
    struct choice *to = find(c, key);
    if (!to)
        to = room(c);
    if (to) {
        *to = (struct choice){.key = key};
        memcpy(to->way, way, bytes);
        c->is_new = true;
    }
    (void)pthread_mutex_unlock(&lock);
}

/* ---- the file */
static void path_of(const struct choices *c, const char *end, char ret[FILE_BYTES])
{
    (void)snprintf(ret, FILE_BYTES, "%s/%s%s", c->folder, c->name, end);
}

static bool read_whole(int fd, void *to, size_t bytes)
{
    for (size_t n = 0; n < bytes;) {
        ssize_t got = read(fd, (char *)to + n, bytes - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
    }
    return true;
}

static bool head_fits(const struct choices *c, const struct file_head *h, off_t size)
{
    return memcmp(h->magic, MAGIC, sizeof(MAGIC)) == 0 && hash_eq(h->identity, c->identity) &&
           h->n > 0 && h->n <= CHOICES_MAX &&
           (uint64_t)size == sizeof(*h) + h->n * sizeof(struct choice);
}

static void read_from(struct choices *c, int fd)
{
    struct file_head h;
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !read_whole(fd, &h, sizeof(h)) ||
        !head_fits(c, &h, st.st_size))
        return;
    size_t bytes = h.n * sizeof(struct choice);
    struct choice *choice = malloc(bytes);
    if (choice && read_whole(fd, choice, bytes) && hash_eq(hash_bytes(choice, bytes), h.sum)) {
        c->choice = TAKE(choice);
        c->n = c->cap = (uint32_t)h.n;
    }
    free(choice);
}

static void load(struct choices *c)
{
    char path[FILE_BYTES];

    path_of(c, "", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    read_from(c, fd);
    (void)close(fd);
}

static bool write_whole(int fd, const void *from, size_t bytes)
{
    for (size_t n = 0; n < bytes;) {
        ssize_t put = write(fd, (const char *)from + n, bytes - n);
        if (put <= 0)
            return false;
        n += (size_t)put;
    }
    return true;
}

static void write_file(const struct choices *c, const struct choice *choice, uint32_t n)
{
    char path[FILE_BYTES], fresh[FILE_BYTES];
    size_t bytes = n * sizeof(*choice);
    struct file_head h = {.identity = c->identity, .sum = hash_bytes(choice, bytes), .n = n};

    memcpy(h.magic, MAGIC, sizeof(MAGIC));
    path_of(c, "", path);
    path_of(c, ".new", fresh);
    (void)mkdir(c->folder, 0700);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    bool good = write_whole(fd, &h, sizeof(h)) && write_whole(fd, choice, bytes);
    good = close(fd) == 0 && good;
    if (!good || rename(fresh, path) < 0)
        (void)unlink(fresh);
}

void choices_save(struct choices *c)
{
    struct choice *copy = NULL;
    uint32_t n = 0;

    if (!c || !c->folder[0])
        return;
    (void)pthread_mutex_lock(&lock);
    if (c->is_new && (copy = malloc(c->n * sizeof(*copy)))) {
        n = c->n;
        memcpy(copy, c->choice, n * sizeof(*copy));
        c->is_new = false;
    }
    (void)pthread_mutex_unlock(&lock);
    if (copy)
        write_file(c, copy, n);
    free(copy);
}

/* ---- of a device */

/* As a file's: what is not a letter or a number becomes one dash. */
static void name_of(const char *identity, char ret[NAME_BYTES])
{
    size_t n = 0;

    for (const char *p = identity; *p && n + 1 < NAME_BYTES; p++)
        if (isalnum((unsigned char)*p) || *p == '.' || *p == '_')
            ret[n++] = *p;
        else if (n > 0 && ret[n - 1] != '-')
            ret[n++] = '-';
    ret[n] = 0;
}

static struct choices *choices_new(const char *folder, const char *identity)
{
    struct choices *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->refs = 1;
    c->identity = hash_bytes(identity, strlen(identity));
    name_of(identity, c->name);
    if (folder && strlen(folder) < PATH_BYTES - sizeof("/algorithms")) {
        (void)snprintf(c->folder, sizeof(c->folder), "%s/algorithms", folder);
        load(c);
    }
    return c;
}

struct choices *choices_get(const char *folder, const char *identity)
{
    struct hash128 is = hash_bytes(identity, strlen(identity));

    (void)pthread_mutex_lock(&lock);
    struct choices *c = all;
    while (c && !hash_eq(c->identity, is))
        c = c->next;
    if (c)
        c->refs++;
    (void)pthread_mutex_unlock(&lock);
    if (c)
        return c;
    c = choices_new(folder, identity);
    (void)pthread_mutex_lock(&lock);
    if (c) {
        c->next = all;
        all = c;
    }
    (void)pthread_mutex_unlock(&lock);
    return c;
}

void choices_put(struct choices *c)
{
    if (!c)
        return;
    (void)pthread_mutex_lock(&lock);
    bool last = c && --c->refs == 0;
    struct choices **at = &all;
    while (last && *at != c)
        at = &(*at)->next;
    if (last)
        *at = c->next;
    (void)pthread_mutex_unlock(&lock);
    if (last) {
        free(c->choice);
        free(c);
    }
}
