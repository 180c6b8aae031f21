/* Health probes: requests that are answered at the door (http_door.h), by any thread. */
#pragma once

#include <gpulet/base.h>

struct http_probe {
    const char *path;
    /* The status, and a JSON body that lives as long as the program.  Any thread. */
    unsigned (*ask)(void *ctx, const char **ret_json);
};

#define PROBE_BYTES_MAX 2048 /* longer heads are for libmicrohttpd */

enum probe_found {
    PROBE_NO,   /* something else */
    PROBE_MORE, /* may become one when more of it is there */
    PROBE_YES
};

struct probe_request {
    const struct http_probe *probe;
    size_t bytes; /* its length; what follows is the next request */
    bool head;    /* HEAD */
    bool close;   /* the client wants the connection closed afterwards */
};

/* Do these bytes begin with a plain probe: GET or HEAD of one of the paths, HTTP/1.1, one Host, no
 * body, no expectation?  Whatever is odd about it makes it PROBE_NO, which is never wrong: it is
 * then read by libmicrohttpd. */
enum probe_found probe_find(const struct http_probe *probe, size_t n_probes, const char *text,
                            size_t bytes, struct probe_request *ret);
