/* Temp file, fsync, rename, fsync of the folder: the only way anything gets into the state. */
#include "store_disk.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESERVE_BYTES (16u << 20) /* kept free for model.json and the journal */

static int write_all(int fd, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        bytes -= (size_t)n;
    }
    return 0;
}

int disk_write(int dirfd, const char *name, const char *text, size_t bytes, struct err *err)
{
    char temp[300];

    (void)snprintf(temp, sizeof(temp), ".%s.tmp", name);
    int fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? -errno : write_all(fd, text, bytes);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (fd >= 0 && close(fd) < 0 && r == 0)
        r = -errno;
    if (r == 0 && renameat(dirfd, temp, dirfd, name) < 0)
        r = -errno;
    if (r == 0 && fsync(dirfd) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlinkat(dirfd, temp, 0);
        return err_set(err, r, "writing '%s': %s", name, strerror(-r));
    }
    return 0;
}

int disk_move(int from_dirfd, const char *from, int to_dirfd, const char *to, struct err *err)
{
    if (renameat(from_dirfd, from, to_dirfd, to) < 0 || fsync(to_dirfd) < 0 ||
        fsync(from_dirfd) < 0)
        return err_set(err, -errno, "moving '%s': %s", to, strerror(errno));
    return 0;
}

void disk_remove(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (!d) {
        if (fd >= 0)
            (void)close(fd);
        (void)unlinkat(dirfd, name, 0);
        return;
    }
    while ((e = readdir(d)))
        if (!STREQ(e->d_name, ".") && !STREQ(e->d_name, ".."))
            disk_remove(fd, e->d_name);
    (void)closedir(d);
    (void)unlinkat(dirfd, name, AT_REMOVEDIR);
}

int disk_folder(int dirfd, const char *name, struct err *err)
{
    if (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "making folder '%s': %s", name, strerror(errno));
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_set(err, -errno, "folder '%s': %s", name, strerror(errno)) : fd;
}

int disk_hash(int dirfd, const char *name, struct hash128 *ret, struct err *err)
{
    AUTO(close_fd) int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -errno, "reading '%s': %s", name, strerror(errno));
    if (st.st_size == 0) {
        *ret = hash_bytes("", 0);
        return 0;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_set(err, -errno, "mapping '%s': %s", name, strerror(errno));
    *ret = hash_bytes(p, (size_t)st.st_size);
    (void)munmap(p, (size_t)st.st_size);
    return 0;
}

int disk_room(int dirfd, uint64_t bytes, struct err *err)
{
    struct statvfs v;

    if (fstatvfs(dirfd, &v) < 0)
        return 0; /* the write itself will tell */
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    if (bytes > room || room - bytes < MIN(RESERVE_BYTES, (uint64_t)v.f_blocks * v.f_frsize / 64))
        return err_set(err, -ENOSPC, "the model has %llu bytes, the state folder has room for %llu",
                       (unsigned long long)bytes, (unsigned long long)room);
    return 0;
}
