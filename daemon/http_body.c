/* Where bodies go: into one slab, or into a file. */
#include "http_priv.h"
#include <unistd.h>

#define CHUNKED_FIRST 65536              /* bytes of the first slab of a body of unknown length */
#define CHUNKED_COPY (UINT64_C(1) << 20) /* up to here it grows by copying, in well under 1 ms */
#define BODY_LARGE 65536                 /* bytes from which on a body counts for the pool */

/* Bodies take at most half of the pool: the rest is for results, else a burst of large requests
 * fills it, none of them can be answered, and all were read for nothing. */
static bool pool_has(struct pool *pool, size_t bytes)
{
    return bytes < BODY_LARGE || pool_used_bytes(pool) + bytes <= pool_max_bytes(pool) / 2;
}

static int body_slab(struct pool *pool, size_t bytes, struct slab **ret, struct err *err)
{
    if (!pool_has(pool, bytes) || slab_new(pool, bytes, ret) < 0)
        return err_set(err, -ENOMEM, "no memory for a body of %zu bytes now", bytes);
    return 0;
}

int exchange_sink_slab(struct exchange *x, size_t max, size_t align_at, struct err *err)
{
    struct live *l = live_of(x);
    bool chunked = x->declared_bytes == UINT64_MAX;
    size_t first = chunked ? MIN(max, CHUNKED_FIRST) : x->declared_bytes;

    assert(!x->slab && l->sink == SINK_NONE);
    if (!chunked && x->declared_bytes > max)
        return err_set(err, -EFBIG, "the body has %llu bytes, the limit is %zu",
                       (unsigned long long)x->declared_bytes, max);
    l->slab_pad = (64 - align_at % 64) % 64;
    if (body_slab(x->http->cfg.pool, l->slab_pad + MAX(first, 1), &x->slab, err) < 0)
        return err->code;
    l->sink = SINK_SLAB;
    l->sink_max = max;
    x->body = (char *)x->slab->data + l->slab_pad;
    return 0;
}

int exchange_sink_fd(struct exchange *x, int fd, uint64_t max, struct err *err)
{
    struct live *l = live_of(x);

    if (x->declared_bytes != UINT64_MAX && x->declared_bytes > max)
        return err_set(err, -EFBIG, "the body has %llu bytes, the limit is %llu",
                       (unsigned long long)x->declared_bytes, (unsigned long long)max);
    l->sink = SINK_FD;
    l->sink_fd = fd;
    l->sink_max = max;
    return 0;
}

/* A large body is moved once, to where there is room for the longest; a small one, and a large one
 * if there is no such place, to a slab of twice the size. */
static int body_move(struct live *l, size_t bytes, struct err *err)
{
    struct exchange *x = &l->x;
    struct pool *pool = x->http->cfg.pool;
    size_t most = l->slab_pad + (size_t)l->sink_max;
    struct slab *to;

    bytes = MIN(MAX(bytes, 2 * x->slab->bytes), most);
    if (!pool_has(pool, bytes) ||
        ((bytes <= CHUNKED_COPY || slab_new_room(pool, bytes, most, &to) < 0) &&
         slab_new(pool, bytes, &to) < 0))
        return err_set(err, -ENOMEM, "no memory for a body of %zu bytes now", bytes);
    memcpy((char *)to->data + l->slab_pad, x->body, x->body_bytes);
    slab_put(x->slab);
    x->slab = to;
    x->body = (char *)to->data + l->slab_pad;
    return 0;
}

/* Room for `need` bytes of a body whose length was not declared. */
static int body_grow(struct live *l, size_t need, struct err *err)
{
    struct slab *s = l->x.slab;
    size_t bytes = l->slab_pad + need, step = MAX(bytes - s->bytes, s->bytes / 8);
    int r = -ENOMEM;

    if (pool_has(l->x.http->cfg.pool, step))
        r = slab_grow(s, MIN(s->bytes + step, l->slab_pad + (size_t)l->sink_max));
    if (r == -ENOSPC)
        return body_move(l, bytes, err);
    return r < 0 ? err_set(err, r, "no memory for a body of %zu bytes now", bytes) : 0;
}

static int slab_append(struct live *l, const char *data, size_t n, struct err *err)
{
    struct exchange *x = &l->x;
    size_t need = x->body_bytes + n;

    if (l->slab_pad + need > x->slab->bytes && body_grow(l, need, err) < 0)
        return err->code;
    memcpy((char *)x->slab->data + l->slab_pad + x->body_bytes, data, n);
    return 0;
}

static int fd_append(int fd, const char *data, size_t n, struct err *err)
{
    while (n) {
        ssize_t done = write(fd, data, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_set(err, -errno, "the upload cannot be written: %s", strerror(errno));
        data += done;
        n -= (size_t)done;
    }
    return 0;
}

int http_sink_append(struct live *l, const char *data, size_t n, struct err *err)
{
    if (n > l->sink_max - l->x.body_bytes)
        return err_set(err, -EFBIG, "the body has more than %llu bytes, the limit",
                       (unsigned long long)l->sink_max);
    if (l->sink == SINK_NONE)
        return 0;
    return l->sink == SINK_FD ? fd_append(l->sink_fd, data, n, err) : slab_append(l, data, n, err);
}
