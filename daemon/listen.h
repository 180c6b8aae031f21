/* Listening sockets: handed over by systemd by name, or opened from the configuration. */
#pragma once

#include <gpulet/base.h>

#define LISTEN_MAX 8
#define LISTEN_BACKLOG 4096

struct listeners {
    int fd[LISTEN_MAX];
    uint32_t n;
};

/* All sockets that systemd passed under this name are taken; when there is none, every address of
 * the list ("127.0.0.1:8000 [::1]:8000", "" for none) is opened. */
int listen_open(const char *name, const char *addresses, struct listeners *ret, struct err *err);
/* The Unix socket: systemd's "unix", else path (0660; a stale one is replaced), added to ret. */
int listen_unix(const char *path, struct listeners *ret, struct err *err);
void listen_close(struct listeners *l);
