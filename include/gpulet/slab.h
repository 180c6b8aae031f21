/* Host memory for requests and replies: slabs of one memfd-backed region.
 *
 * A backend registers the region's window once (host_open), out of which slabs come as long as it
 * has room; a request refers to the region by offset, so the same boundary can later lie between
 * processes.  Bodies are received into a slab, inputs are read there and outputs written there:
 * never a second copy.  Size classes with free lists; what is freed in large pieces goes back to
 * the kernel, unless it is of a window that a device holds.  Any thread; slab_new() takes one short
 * lock. */
#pragma once

#include <gpulet/base.h>

struct pool;
struct slab {
    void *data;      /* 64-byte aligned */
    size_t bytes;    /* usable; at least what was asked */
    uint64_t offset; /* of data in the pool's region */
    _Atomic uint32_t refs;
    struct pool *pool;
};

/* At most max_bytes are handed out at a time. */
int pool_new(size_t max_bytes, struct pool **ret, struct err *err);
void pool_free(struct pool *p); /* no slab is out */
int pool_region(const struct pool *p, int *ret_memfd, void **ret_base, size_t *ret_bytes);
/* The front of the region: a power of two, at most max_bytes and 512 MiB.  No slab lies across its
 * end. */
size_t pool_window_bytes(const struct pool *p);
/* From now on the window's pages stay where they are.  Before the first slab. */
void pool_hold(struct pool *p);
size_t pool_used_bytes(struct pool *p);
size_t pool_max_bytes(const struct pool *p); /* as given to pool_new() */

/* With one reference.  -ENOMEM when the pool is full: the caller answers 503. */
int slab_new(struct pool *p, size_t bytes, struct slab **ret);
/* The same, with address space for `room` bytes, so that slab_grow() need not copy; it counts as
 * `bytes`.  Only so much address space is set aside for this: -ENOMEM is no reason to give up, a
 * copy into a larger slab does it too. */
int slab_new_room(struct pool *p, size_t bytes, size_t room, struct slab **ret);
/* At least `bytes` large from now on, in place.  By its one holder.  -ENOSPC when there is no room
 * behind it, -ENOMEM when the pool is full: s is then as it was. */
int slab_grow(struct slab *s, size_t bytes);
struct slab *slab_get(struct slab *s);
void slab_put(struct slab *s); /* NULL is fine */
DEFINE_AUTO(struct slab, slab_put)
