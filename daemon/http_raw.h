/* A reply that is written to a socket past libmicrohttpd, which cannot give it. */
#pragma once

#include <gpulet/base.h>

struct raw_reply {
    unsigned status;
    const char *json;
    bool bodiless; /* to HEAD */
    bool close;    /* says so; the caller does it */
};

/* False: the socket has no room for it, and the connection is of no use any more. */
bool http_raw_send(int fd, const struct raw_reply *r);
