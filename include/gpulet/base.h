/* Errors, ownership and arithmetic: what every other file includes.
 *
 * A function that can fail returns 0 or a negative errno.  If a person should know more it
 * takes a struct err last, fills it and returns the same code.  lib/ never logs, never exits. */
#pragma once

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t usec_t; /* microseconds; a point in time is CLOCK_MONOTONIC */
#define USEC_NEVER UINT64_MAX
#define USEC_PER_SEC UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)

struct err {
    int code;      /* negative errno, 0 while nothing failed */
    char msg[240]; /* one line, no newline, for a person */
};

/* Fill *e (which may be NULL) and return code. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Put context in front of the message; returns e->code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* AUTO(x_free) frees a local at scope end, TAKE(p) gives it away first. */
#define AUTO(fn) __attribute__((cleanup(fn##_auto)))
#define DEFINE_AUTO(type, fn)                                                                      \
    static inline __attribute__((unused)) void fn##_auto(type **p)                                 \
    {                                                                                              \
        fn(*p);                                                                                    \
    }
#define TAKE(p)                                                                                    \
    ({                                                                                             \
        __typeof__(p) take_ = (p);                                                                 \
        (p) = NULL;                                                                                \
        take_;                                                                                     \
    })

static inline __attribute__((unused)) void free_auto(void *p)
{
    free(*(void **)p);
}
static inline __attribute__((unused)) void close_fd_auto(int *fd)
{
    extern int close(int);
    if (*fd >= 0)
        (void)close(*fd);
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define STREQ(a, b) (strcmp(a, b) == 0)

/* Round up to a multiple of `to`, a power of two. */
static inline size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* Give back the whole pages inside, of a file that is mapped for reading: whoever reads them again
 * gets them again. */
void pages_drop(const void *data, size_t bytes);
#define PAGES_AT_ONCE ((size_t)4 << 20) /* bytes that a walk through a file keeps in memory */

/* 128 bits that name a content (XXH3); not a defence against somebody who wants a collision. */
struct hash128 {
    uint64_t lo, hi;
};
#define HASH_HEX_LEN 33 /* with the NUL */

struct hash128 hash_bytes(const void *data, size_t bytes);
/* The same number; of pages of a mapped file, which are given back as it goes. */
struct hash128 hash_pages(const void *data, size_t bytes);
struct hash128 hash_join(struct hash128 a, struct hash128 b); /* order matters */
void hash_hex(struct hash128 h, char ret[HASH_HEX_LEN]);
static inline bool hash_eq(struct hash128 a, struct hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}
