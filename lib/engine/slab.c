/* The slab pool: a buddy allocator over one memfd mapping.
 *
 * The mapping is sparse and at least twice max_bytes, so that rounding to powers of two never
 * costs a caller anything but address space: the limit counts what was asked for, in blocks of
 * BLOCK_MIN.  A slab that may grow is a block that is larger than its slab; the mapping is twice as
 * large once more, and such blocks may take that half.  One head per block lies in an array beside
 * the region (also sparse): an allocation needs no malloc, and freeing merges buddies in at most
 * MAX_ORDERS steps under the lock.
 *
 * The front of the region is its window, which a device may hold: an area of its own, whose blocks
 * do not merge with others.  What a device will not read, slabs that may grow, lies behind it.
 *
 * Memory that was written once stays with the kernel until it is punched out.  Each free block
 * knows how many of its bytes may be dirty; when all free blocks together hold more than
 * CACHE_BYTES, a large freed block is taken out of the lists again, punched without the lock and
 * put back clean.  What is in use often stays hot, because the lists are last in, first out.  A
 * window that is held is never punched: the device has the pages, and would go on with those. */
#include <gpulet/slab.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_SHIFT 10 /* 1 KiB: a small tensor's slab */
#define BLOCK_MIN (UINT64_C(1) << BLOCK_SHIFT)
#define MAX_ORDERS 33               /* up to 4 TiB */
#define CACHE_BYTES (8u << 20)      /* dirty free memory kept for the next request */
#define PUNCH_MIN_BYTES (64u << 10) /* smaller holes are not worth the call */
#define WINDOW_BYTES ((size_t)512 << 20)
#define NO_BLOCK UINT32_MAX

struct block {
    struct slab slab;    /* while in use */
    size_t dirty;        /* while free: bytes that may hold pages */
    uint32_t next, prev; /* in the free list of its order; NO_BLOCK ends it */
    uint8_t order;
    bool free; /* is the head of a free block */
    bool room; /* in use, and counted in pool.room */
};

enum area {
    AREA_WINDOW,
    AREA_BEHIND,
    N_AREAS,
};

struct pool {
    int memfd;
    char *base;
    size_t bytes, max_bytes;
    struct block *block;
    size_t blocks_bytes;
    uint32_t top;    /* order of the whole region */
    uint32_t window; /* and of its window */
    bool held;       /* by a device, for good; set while no slab is out */
    pthread_mutex_t lock;
    /* under lock */
    size_t used, dirty;
    size_t room; /* bytes of the blocks of slabs that may grow */
    uint32_t list[N_AREAS][MAX_ORDERS];
};

static size_t order_bytes(uint32_t order)
{
    return BLOCK_MIN << order;
}

static uint32_t order_for(size_t bytes)
{
    uint32_t o = 0;

    while (o < MAX_ORDERS && order_bytes(o) < bytes)
        o++;
    return o;
}

static enum area area_of(const struct pool *p, uint32_t i)
{
    return i < UINT32_C(1) << p->window ? AREA_WINDOW : AREA_BEHIND;
}

/* ---- free lists; under lock */
static void list_add(struct pool *p, uint32_t i, uint32_t order, size_t dirty)
{
    struct block *b = &p->block[i];
    uint32_t *list = &p->list[area_of(p, i)][order];

    b->order = (uint8_t)order;
    b->free = true;
    b->dirty = dirty;
    b->prev = NO_BLOCK;
    b->next = *list;
    if (b->next != NO_BLOCK)
        p->block[b->next].prev = i;
    *list = i;
    p->dirty += dirty;
}

static void list_del(struct pool *p, uint32_t i)
{
    struct block *b = &p->block[i];

    if (b->prev != NO_BLOCK)
        p->block[b->prev].next = b->next;
    else
        p->list[area_of(p, i)][b->order] = b->next;
    if (b->next != NO_BLOCK)
        p->block[b->next].prev = b->prev;
    b->free = false;
    p->dirty -= b->dirty;
}

/* A block of that order, split off the smallest that the area has; NO_BLOCK when it has none. */
static uint32_t block_take(struct pool *p, enum area area, uint32_t order)
{
    uint32_t have = order;

    while (have <= p->top && p->list[area][have] == NO_BLOCK)
        have++;
    if (have > p->top)
        return NO_BLOCK;
    uint32_t i = p->list[area][have];
    size_t dirty = p->block[i].dirty;

    list_del(p, i);
    while (have > order) { /* hand out the front, which is more likely to be the dirty part */
        have--;
        size_t front = MIN(dirty, order_bytes(have));
        list_add(p, i + (UINT32_C(1) << have), have, dirty - front);
        dirty = front;
    }
    p->block[i].order = (uint8_t)order;
    return i;
}

/* Merges with free buddies; returns the block that results, in no list. */
static uint32_t block_merge(struct pool *p, uint32_t i, uint32_t *order, size_t *dirty)
{
    while (*order < p->top) {
        uint32_t buddy = i ^ (UINT32_C(1) << *order);
        if (!p->block[buddy].free || p->block[buddy].order != *order ||
            area_of(p, buddy) != area_of(p, i))
            break;
        *dirty += p->block[buddy].dirty;
        list_del(p, buddy);
        i = MIN(i, buddy);
        ++*order;
    }
    return i;
}

/* ---- life */
static int pool_map(struct pool *p)
{
    size_t n = p->bytes >> BLOCK_SHIFT;

    p->memfd = memfd_create("gpulet-requests", MFD_CLOEXEC);
    if (p->memfd < 0 || ftruncate(p->memfd, (off_t)p->bytes) < 0)
        return -errno;
    void *m = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->memfd, 0);
    if (m == MAP_FAILED)
        return -errno;
    p->base = m;
    m = mmap(NULL, n * sizeof(struct block), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        return -errno;
    p->block = m;
    p->blocks_bytes = n * sizeof(struct block);
    return 0;
}

int pool_new(size_t max_bytes, struct pool **ret, struct err *err)
{
    size_t most = order_bytes(MAX_ORDERS - 1) / 4;

    if (max_bytes < BLOCK_MIN || max_bytes > most)
        return err_set(err, -EINVAL, "request memory: %zu bytes is not between %zu and %zu",
                       max_bytes, (size_t)BLOCK_MIN, most);
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    p->memfd = -1;
    p->max_bytes = max_bytes;
    p->top = order_for(4 * max_bytes);
    p->bytes = order_bytes(p->top);
    (void)pthread_mutex_init(&p->lock, NULL);
    p->window = order_for(MIN(max_bytes, WINDOW_BYTES) / 2 + 1); /* a power of two, no larger */
    for (uint32_t o = 0; o < MAX_ORDERS; o++)
        p->list[AREA_WINDOW][o] = p->list[AREA_BEHIND][o] = NO_BLOCK;
    int r = pool_map(p);
    if (r < 0) {
        pool_free(p);
        return err_set(err, r, "request memory of %zu bytes: %s", max_bytes, strerror(-r));
    }
    list_add(p, 0, p->window, 0);
    for (uint32_t o = p->window; o < p->top; o++)
        list_add(p, UINT32_C(1) << o, o, 0);
    *ret = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    assert(p->used == 0);
    if (p->block)
        (void)munmap(p->block, p->blocks_bytes);
    if (p->base)
        (void)munmap(p->base, p->bytes);
    if (p->memfd >= 0)
        (void)close(p->memfd);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

int pool_region(const struct pool *p, int *ret_memfd, void **ret_base, size_t *ret_bytes)
{
    *ret_memfd = p->memfd;
    *ret_base = p->base;
    *ret_bytes = p->bytes;
    return 0;
}

size_t pool_window_bytes(const struct pool *p)
{
    return order_bytes(p->window);
}

void pool_hold(struct pool *p)
{
    assert(p->used == 0);
    p->held = true;
}

size_t pool_used_bytes(struct pool *p)
{
    (void)pthread_mutex_lock(&p->lock);
    size_t used = p->used;
    (void)pthread_mutex_unlock(&p->lock);
    return used;
}

size_t pool_max_bytes(const struct pool *p)
{
    return p->max_bytes;
}

/* ---- slabs */
/* Does it fit under the limit?  Under lock. */
static bool may_use(const struct pool *p, size_t bytes)
{
    return bytes <= p->max_bytes - MIN(p->used, p->max_bytes);
}

static int take_slab(struct pool *p, size_t bytes, uint32_t order, bool room, struct slab **ret)
{
    uint32_t i = NO_BLOCK;

    (void)pthread_mutex_lock(&p->lock);
    if (may_use(p, bytes) && (!room || p->room + order_bytes(order) <= p->bytes / 2))
        i = block_take(p, room ? AREA_BEHIND : AREA_WINDOW, order);
    if (i == NO_BLOCK && !room && may_use(p, bytes))
        i = block_take(p, AREA_BEHIND, order);
    if (i != NO_BLOCK) {
        p->used += bytes;
        p->room += room ? order_bytes(order) : 0;
        p->block[i].room = room;
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (i == NO_BLOCK)
        return -ENOMEM;

    uint64_t offset = (uint64_t)i << BLOCK_SHIFT;
    struct slab *s = &p->block[i].slab;
    s->data = p->base + offset;
    s->bytes = bytes;
    s->offset = offset;
    s->pool = p;
    atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
    *ret = s;
    return 0;
}

int slab_new(struct pool *p, size_t bytes, struct slab **ret)
{
    if (bytes > p->max_bytes)
        return -ENOMEM;
    bytes = align_up(MAX(bytes, 1), BLOCK_MIN);
    return take_slab(p, bytes, order_for(bytes), false, ret);
}

int slab_new_room(struct pool *p, size_t bytes, size_t room, struct slab **ret)
{
    if (bytes > p->max_bytes)
        return -ENOMEM;
    bytes = align_up(MAX(bytes, 1), BLOCK_MIN);
    room = MAX(bytes, MIN(room, p->max_bytes)); /* it cannot grow beyond the pool */
    return take_slab(p, bytes, order_for(room), true, ret);
}

int slab_grow(struct slab *s, size_t bytes)
{
    struct pool *p = s->pool;
    size_t room = order_bytes(p->block[s->offset >> BLOCK_SHIFT].order), more;
    int r = -ENOMEM;

    if (bytes > room)
        return -ENOSPC;
    if (bytes <= s->bytes)
        return 0;
    more = align_up(bytes, BLOCK_MIN) - s->bytes;
    (void)pthread_mutex_lock(&p->lock);
    if (may_use(p, more)) {
        p->used += more;
        s->bytes += more;
        r = 0;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return r;
}

struct slab *slab_get(struct slab *s)
{
    (void)atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

/* Put a block back.  True when it should be punched first: it is then in no list, *i and *order
 * say which it is, and the caller comes again with dirty 0. */
static bool block_put(struct pool *p, uint32_t *i, uint32_t *order, size_t dirty)
{
    bool punched = dirty == 0;

    *i = block_merge(p, *i, order, &dirty);
    if (!punched && order_bytes(*order) >= PUNCH_MIN_BYTES && p->dirty + dirty > CACHE_BYTES)
        return true;
    list_add(p, *i, *order, MIN(dirty, order_bytes(*order)));
    return false;
}

void slab_put(struct slab *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    struct pool *p = s->pool;
    uint32_t i = (uint32_t)(s->offset >> BLOCK_SHIFT), order = p->block[i].order;
    size_t bytes = s->bytes, dirty = p->held && area_of(p, i) == AREA_WINDOW ? 0 : bytes;

    (void)pthread_mutex_lock(&p->lock);
    p->used -= bytes;
    if (p->block[i].room)
        p->room -= order_bytes(order);
    bool punch = block_put(p, &i, &order, dirty);
    (void)pthread_mutex_unlock(&p->lock);
    if (!punch)
        return;
    /* Nobody else sees the block: it is in no list and not marked free. */
    int r = fallocate(p->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)((uint64_t)i << BLOCK_SHIFT), (off_t)order_bytes(order));
    (void)r; /* it stays resident then, no worse than not trying */
    (void)pthread_mutex_lock(&p->lock);
    (void)block_put(p, &i, &order, 0);
    (void)pthread_mutex_unlock(&p->lock);
}
