/* External data: files inside the model's folder, mapped once each.
 *
 * The location is foreign: every component is opened on its own, relative to the folder before
 * it, and never through a symbolic link, so that no name can lead outside. */
#include "onnx.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LOCATION 1024

static int bad(struct reader *r, const char *what, const char *name, const char *why)
{
    return err_set(r->err, -EINVAL, "%s: external data '%.80s' %s", what, name, why);
}

/* Open `name` below dir; changes name.  Returns a descriptor or a negative errno. */
static int open_below(const char *dir, char *name)
{
    AUTO(close_fd) int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    char *rest = name;

    if (at < 0)
        return -errno;
    for (;;) {
        char *part = strsep(&rest, "/");
        int flags = rest ? O_PATH | O_DIRECTORY : O_RDONLY | O_NONBLOCK;

        if (STREQ(part, ".") && rest)
            continue;
        if (!*part || STREQ(part, ".") || STREQ(part, ".."))
            return -EXDEV;
        int fd = openat(at, part, flags | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (!rest)
            return fd;
        (void)close(at);
        at = fd;
    }
}

static int map_file(struct reader *r, const char *what, const char *name, struct mapping *ret)
{
    char path[MAX_LOCATION + 1];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s", name);
    AUTO(close_fd) int fd = open_below(r->dir, path);
    if (fd == -EXDEV || fd == -ELOOP || fd == -ENOTDIR)
        return bad(r, what, name, "must lie inside the model's folder, behind no link");
    if (fd == -ENOENT) /* the model is what is wrong: not "no such model" */
        return bad(r, what, name, "is not there");
    if (fd < 0)
        return err_set(r->err, -EIO, "%s: external data '%.80s': %s", what, name, strerror(-fd));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return bad(r, what, name, "is not a regular file");
    *ret = (struct mapping){.base = "", .bytes = (size_t)st.st_size, .is_file = true};
    if (st.st_size == 0)
        return 0; /* mmap refuses nothing at all */
    void *base = mmap(NULL, ret->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return err_set(r->err, -ENOMEM, "%s: external data '%.80s': %s", what, name,
                       strerror(errno));
    ret->base = base;
    return 0;
}

int onnx_ext(struct reader *r, struct pb name, const char *what, struct mapping *ret)
{
    char buf[MAX_LOCATION + 1];
    size_t n = pb_size(name);

    if (!r->dir)
        return err_set(r->err, -EINVAL, "%s: external data is not accepted here", what);
    if (n == 0 || n > MAX_LOCATION || memchr(name.p, 0, n))
        return err_set(r->err, -EINVAL,
                       "%s: the location of its external data has %zu bytes or a NUL (1 to %d)",
                       what, n, MAX_LOCATION);
    memcpy(buf, name.p, n);
    buf[n] = 0;
    for (uint32_t i = 0; i < r->n_ext; i++)
        if (STREQ(r->ext[i].name, buf)) {
            *ret = r->ext[i].map;
            return 0;
        }
    if (r->n_ext == MAX_EXT_FILES)
        return err_set(r->err, -EINVAL, "%s: more than %d files of external data", what,
                       MAX_EXT_FILES);
    struct ext_file *e = &r->ext[r->n_ext];
    e->name = arena_strdup(&r->g->arena, buf);
    if (!e->name)
        return err_set(r->err, -ENOMEM, "out of memory");
    int rc = map_file(r, what, e->name, &e->map);
    if (rc < 0)
        return rc;
    r->n_ext++;
    *ret = e->map;
    return 0;
}
