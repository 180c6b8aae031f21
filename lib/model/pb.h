/* Protocol-buffer wire format, reading only, nothing copied.
 *
 *     struct pb r = pb_of(bytes, n);
 *     struct pb_field f;
 *     int more;
 *     while ((more = pb_next(&r, &f)) > 0)
 *         switch (f.num) { ... }
 *     if (more < 0) ... broken bytes ...
 *
 * No read ever leaves the slice.  A message inside a message is a slice that the caller opens
 * only where it expects one, so foreign bytes cannot make us recurse. */
#pragma once

#include <gpulet/base.h>

struct pb { /* what is left of a message */
    const uint8_t *p, *end;
};

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

struct pb_field {
    uint32_t num;
    enum pb_wire wire;
    uint64_t u;      /* PB_VARINT, PB_FIXED64, PB_FIXED32 */
    struct pb bytes; /* PB_BYTES; empty otherwise */
};

static inline struct pb pb_of(const void *p, size_t n)
{
    return (struct pb){p, (const uint8_t *)p + n};
}
static inline size_t pb_size(struct pb s)
{
    return (size_t)(s.end - s.p);
}

static inline bool pb_is(struct pb s, const char *text)
{
    return pb_size(s) == strlen(text) && memcmp(s.p, text, pb_size(s)) == 0;
}

/* 1: *f is the next field; 0: the message is over; -EINVAL: no valid field follows. */
int pb_next(struct pb *r, struct pb_field *f);
/* The next base-128 number of a packed field; same results. */
int pb_varint(struct pb *r, uint64_t *ret);

/* A repeated number comes packed (one field of bytes) or one field each, or as any mix.
 * pb_numbers() appends those of one field to ret[*n...]; with ret NULL it only counts.
 * wire is how one element is encoded.  -EINVAL: broken, or of another wire type;
 * -E2BIG: more than max. */
int pb_numbers(const struct pb_field *f, enum pb_wire wire, uint64_t *ret, size_t max, size_t *n);
