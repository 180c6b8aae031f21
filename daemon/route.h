/* Paths to handlers: a table of rows, matched segment by segment.
 *
 * A path is split at '/' first and percent-decoded after, so that a name may hold an escaped
 * character but never a separator: a segment that decodes to something with '/' or NUL, or to
 * "." or "..", is refused. */
#pragma once

#include <gpulet/base.h>

#define PATH_SEGMENTS_MAX 12
#define ROUTE_ARGS_MAX 3

struct exchange;

struct route {
    const char *method;  /* "GET" also answers HEAD */
    const char *pattern; /* "/v2/models/{m}/ready": {…} is one segment, kept as an argument */
    /* The head has been read.  May reply (the body is then discarded), or choose a sink; else the
     * body goes into memory up to body_max.  NULL: nothing to do. */
    void (*head)(struct exchange *x);
    /* The body is complete.  Replies, or suspends. */
    void (*body)(struct exchange *x);
    size_t body_max; /* bytes kept in memory; more is 413; 0: a body is read and ignored */
};

struct path {
    uint32_t n;
    char *seg[PATH_SEGMENTS_MAX]; /* decoded; point into the text given */
};

/* Splits and decodes in place.  -EINVAL: what is wrong with it. */
int path_split(char *text, struct path *ret, struct err *err);
/* Decode %XX in place; -EINVAL for a bad escape or an escaped NUL. */
int percent_decode(char *text);

enum route_found { ROUTE_YES, ROUTE_NO_PATH, ROUTE_NO_METHOD };
/* The row for it, and the values of its {…} in order.  ROUTE_NO_METHOD: ret_allow lists the
 * methods that the path has ("GET, HEAD, POST"). */
enum route_found route_find(const struct route *table, size_t n, const char *method,
                            const struct path *p, const struct route **ret,
                            const char *ret_arg[ROUTE_ARGS_MAX], char *ret_allow,
                            size_t allow_size);
