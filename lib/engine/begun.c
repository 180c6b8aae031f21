/* A file beside a kept profile, there while the model is compared (accuracy.c).
 *
 * A run on inputs that are made up may cost the process its life: a device that is lost for good,
 * or a call that never returns.  Then the file is still there at the next start, and the comparison
 * is not begun again.  It is a file of its own, not a part of the profile, as it must be on disk
 * before the first step: the profile is saved by another thread, later.
 *
 * It holds the version: what another one did says nothing. */
#include "engine_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The folder, open, and the file's name in it; a negative error. */
static int folder(const struct engine *e, const struct loaded *l, char ret[MODEL_NAME_MAX + 8])
{
    int fd = open(e->cfg.profiles, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)snprintf(ret, MODEL_NAME_MAX + 8, "%s.begun", l->name);
    return fd < 0 ? -errno : fd;
}

static int put_version(int dir, const char *file, uint32_t version)
{
    int fd = openat(dir, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return -errno;
    int r = dprintf(fd, "%u\n", version) < 0 || fsync(fd) < 0 || fsync(dir) < 0 ? -errno : 0;
    (void)close(fd);
    if (r < 0)
        (void)unlinkat(dir, file, 0);
    return r;
}

int begun_mark(const struct engine *e, const struct loaded *l, struct err *err)
{
    char file[MODEL_NAME_MAX + 8];

    if (!e->cfg.profiles)
        return 0;
    int dir = folder(e, l, file), r = dir < 0 ? dir : put_version(dir, file, l->version);
    if (dir >= 0)
        (void)close(dir);
    return r < 0 ? err_set(err, -EIO, "it cannot be noted that it is begun: %s", strerror(-r)) : 0;
}

bool begun_found(const struct engine *e, const struct loaded *l)
{
    char file[MODEL_NAME_MAX + 8], text[16] = "", is[16];
    int dir = e->cfg.profiles ? folder(e, l, file) : -ENOENT;

    if (dir < 0)
        return false;
    int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        (void)close(fd);
    (void)close(dir);
    (void)snprintf(is, sizeof(is), "%u\n", l->version);
    return n > 0 && STREQ(text, is);
}

void begun_clear(const struct engine *e, const struct loaded *l)
{
    char file[MODEL_NAME_MAX + 8];
    int dir = e->cfg.profiles ? folder(e, l, file) : -ENOENT;

    if (dir < 0)
        return;
    (void)unlinkat(dir, file, 0);
    (void)close(dir);
}
