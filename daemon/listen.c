/* Opening sockets.  systemd's are found by name (FileDescriptorName=), never by number. */
#include "listen.h"
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3 /* of those that systemd passes */

static int add(struct listeners *l, int fd, struct err *err)
{
    if (l->n == LISTEN_MAX) {
        (void)close(fd);
        return err_set(err, -E2BIG, "more than %d listening sockets for one port", LISTEN_MAX);
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    l->fd[l->n++] = fd;
    return 0;
}

/* LISTEN_FDS and LISTEN_FDNAMES as systemd sets them for this process. */
static int take_passed(const char *name, struct listeners *ret, struct err *err)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");

    if (!pid || !fds || !names || atol(pid) != (long)getpid())
        return 0;
    for (int i = 0; i < atoi(fds) && names; i++) {
        size_t len = strcspn(names, ":");
        if (len == strlen(name) && memcmp(names, name, len) == 0) {
            int r = add(ret, FIRST_FD + i, err);
            if (r < 0)
                return r;
        }
        names = names[len] ? names + len + 1 : NULL;
    }
    return 0;
}

static int open_one(const struct addrinfo *ai, struct listeners *ret, struct err *err)
{
    int on = 1, fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);

    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int r = -errno;
        (void)close(fd);
        return err_set(err, r, "%s", strerror(-r));
    }
    return add(ret, fd, err);
}

/* "HOST:PORT" or "[IPV6]:PORT". */
static int open_address(char *text, struct listeners *ret, struct err *err)
{
    char *colon = strrchr(text, ':'), *host = text;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;

    if (!colon)
        return err_set(err, -EINVAL, "'%s' is not HOST:PORT", text);
    *colon = 0;
    if (host[0] == '[' && colon[-1] == ']') {
        host++;
        colon[-1] = 0;
    }
    int gai = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
    if (gai != 0)
        return err_set(err, -EINVAL, "address '%s' port '%s': %s", host, colon + 1,
                       gai_strerror(gai));
    int r = open_one(found, ret, err);
    freeaddrinfo(found);
    return r < 0 ? err_wrap(err, "address '%s' port '%s': ", host, colon + 1) : 0;
}

int listen_open(const char *name, const char *addresses, struct listeners *ret, struct err *err)
{
    AUTO(free) char *copy = strdup(addresses);
    char *save = NULL;
    int r = take_passed(name, ret, err);

    if (r < 0 || ret->n > 0)
        return r;
    if (!copy)
        return err_set(err, -ENOMEM, "out of memory");
    for (char *a = strtok_r(copy, " \t", &save); a && r == 0; a = strtok_r(NULL, " \t", &save))
        r = open_address(a, ret, err);
    return r;
}

int listen_unix(const char *path, struct listeners *ret, struct err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    uint32_t before = ret->n;
    int r = take_passed("unix", ret, err);

    if (r < 0 || ret->n > before || !path[0])
        return r;
    if (strlen(path) >= sizeof(sa.sun_path))
        return err_set(err, -EINVAL, "socket path '%s' has %zu bytes, the limit is %zu", path,
                       strlen(path), sizeof(sa.sun_path) - 1);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    (void)unlink(path);
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(path, 0660) < 0 ||
        listen(fd, LISTEN_BACKLOG) < 0) {
        r = -errno;
        (void)close(fd);
        return err_set(err, r, "socket '%s': %s", path, strerror(-r));
    }
    return add(ret, fd, err);
}

void listen_close(struct listeners *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        (void)close(l->fd[i]);
    l->n = 0;
}
