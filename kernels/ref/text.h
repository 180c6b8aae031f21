/* Cutting strings in pieces as StringSplit does: its shape rule counts what its kernel writes. */
#pragma once

#include <gpulet/graph.h>

/* The character of UTF-8 at s[at], at < n; returns its length, or 0 for bytes that are none: among
 * them what is written in more bytes than it takes.  Surrogates are taken, as RE2 does. */
size_t utf8_read(const char *s, size_t n, size_t at, uint32_t *ret);

#define TEXT_GROWTH                                                                                \
    2 /* bytes of UTF-8 after a change of case, at most so many times those before */

struct splitter {
    struct str rest, by; /* by: empty for white space */
    int64_t cuts;        /* that may still be made */
    bool more;
};

static inline struct splitter splitter_of(const struct node *n, struct str s)
{
    const struct attr *by = node_attr(n, "delimiter");
    struct splitter ret = {.rest = s, .cuts = node_int(n, "maxsplit", INT64_MAX), .more = true};

    if (by && by->type == ATTR_STRING)
        ret.by = (struct str){by->s, by->n};
    if (ret.cuts < 0)
        ret.cuts = INT64_MAX;
    return ret;
}

static inline bool text_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline void text_skip(struct str *s, uint32_t n)
{
    s->s += n;
    s->n -= n;
}

/* Runs of white space separate, at the ends they are dropped. */
static inline bool split_words(struct splitter *s, struct str *ret)
{
    uint32_t n = 0;

    while (s->rest.n && text_is_space(s->rest.s[0]))
        text_skip(&s->rest, 1);
    while (n < s->rest.n && (s->cuts == 0 || !text_is_space(s->rest.s[n])))
        n++;
    *ret = (struct str){s->rest.s, n};
    text_skip(&s->rest, n);
    s->cuts -= s->cuts > 0;
    return n > 0;
}

/* The next piece; false at the end. */
static inline bool split_next(struct splitter *s, struct str *ret)
{
    if (s->by.n == 0)
        return split_words(s, ret);
    if (!s->more)
        return false;
    const char *at = s->cuts ? memmem(s->rest.s, s->rest.n, s->by.s, s->by.n) : NULL;
    uint32_t n = at ? (uint32_t)(at - s->rest.s) : s->rest.n;
    *ret = (struct str){s->rest.s, n};
    s->more = at != NULL;
    text_skip(&s->rest, at ? n + s->by.n : n);
    s->cuts--;
    return true;
}
