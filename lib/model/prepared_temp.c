/* The file in which prepared.bin is written before it takes its place.
 *
 * Several processes may prepare one folder at a time (a daemon and gpuletctl), so each has a name
 * of its own, and a lock on its file while it writes.  A file without one was left by a crash. */
#include "prepared.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMP_FILE PREPARED_FILE ".tmp"
#define TRIES 100

static void remove_if_left(int folder, const char *name)
{
    AUTO(close_fd) int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        (void)unlinkat(folder, name, 0);
}

static void remove_left(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;

    if (!d) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    while ((e = readdir(d)))
        if (strncmp(e->d_name, TEMP_FILE, strlen(TEMP_FILE)) == 0)
            remove_if_left(folder, e->d_name);
    (void)closedir(d);
}

/* Locked, and nobody took it for left before it was.  Where files cannot be locked nobody does. */
static bool is_ours(int fd)
{
    struct stat st;

    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno != EWOULDBLOCK;
    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

int prepared_temp(int folder, char ret_name[PREPARED_TEMP_NAME])
{
    static _Atomic unsigned last;

    remove_left(folder);
    for (unsigned i = 0; i < TRIES; i++) {
        (void)snprintf(ret_name, PREPARED_TEMP_NAME, TEMP_FILE "-%d-%u", (int)getpid(),
                       atomic_fetch_add(&last, 1));
        int fd =
            openat(folder, ret_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd < 0 && errno != EEXIST)
            return -errno;
        if (fd >= 0 && is_ours(fd))
            return fd;
        if (fd >= 0)
            (void)close(fd);
    }
    return -EBUSY;
}
