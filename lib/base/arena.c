/* Arenas.  A growing arena is a chain of blocks; each new block is at least twice the last, so
 * that a model of a thousand nodes costs a handful of mallocs.
 *
 * Blocks of a cache have a power of two of bytes, and one is only used where just that size is
 * wanted.  So the sizes that somebody asks for depend on nothing but what he does, and whoever does
 * the same again finds each of them. */
#include <gpulet/arena.h>
#include <stdarg.h>
#include <stdio.h>

#define ARENA_ALIGN 16
#define ARENA_FIRST_BLOCK 4096
#define ARENA_MAX_BLOCK (1u << 20)

struct arena_block {
    struct arena_block *next;
    size_t size;
    _Alignas(ARENA_ALIGN) char data[];
};

/* ---- caches */
static size_t block_size(const struct arena_cache *c, size_t bytes)
{
    size_t size = ARENA_FIRST_BLOCK;

    assert(!c || c->limit_bytes <= SIZE_MAX / 2);
    if (!c || bytes > c->limit_bytes) /* nobody will find it there */
        return bytes;
    while (size < bytes)
        size *= 2;
    return size;
}

static struct arena_block *block_of(void *p)
{
    return (struct arena_block *)(void *)((char *)p - offsetof(struct arena_block, data));
}

static struct arena_block *cache_find(struct arena_cache *c, size_t size)
{
    for (struct arena_block **at = &c->blocks; *at; at = &(*at)->next)
        if ((*at)->size == size) {
            struct arena_block *b = *at;
            *at = b->next;
            c->bytes -= size;
            return b;
        }
    return NULL;
}

static struct arena_block *block_get(struct arena_cache *c, size_t bytes)
{
    size_t size = block_size(c, bytes);
    struct arena_block *b = c ? cache_find(c, size) : NULL;

    if (b || size > SIZE_MAX - sizeof(*b))
        return b;
    b = malloc(sizeof(*b) + size);
    if (b)
        b->size = size;
    return b;
}

/* Until the rest is within the limit. */
static void cache_trim(struct arena_cache *c)
{
    size_t kept = 0;
    struct arena_block **at = &c->blocks;

    while (*at && kept + (*at)->size <= c->limit_bytes) {
        kept += (*at)->size;
        at = &(*at)->next;
    }
    struct arena_block *rest = *at;
    *at = NULL;
    c->bytes = kept;
    while (rest) {
        struct arena_block *b = rest;
        rest = b->next;
        free(b);
    }
}

static void block_put(struct arena_cache *c, struct arena_block *b)
{
    if (!c || b->size > c->limit_bytes) {
        free(b);
        return;
    }
    b->next = c->blocks;
    c->blocks = b;
    c->bytes += b->size;
    if (c->bytes > c->limit_bytes)
        cache_trim(c);
}

void *arena_cache_get(struct arena_cache *c, size_t bytes)
{
    struct arena_block *b = block_get(c, bytes);

    return b ? b->data : NULL;
}

void arena_cache_put(struct arena_cache *c, void *p)
{
    if (p)
        block_put(c, block_of(p));
}

void arena_cache_done(struct arena_cache *c)
{
    c->limit_bytes = 0;
    cache_trim(c);
}

/* ---- arenas */

void arena_init(struct arena *a)
{
    *a = (struct arena){0};
}

void arena_init_fixed(struct arena *a, void *buf, size_t size)
{
    size_t skip = align_up((uintptr_t)buf, ARENA_ALIGN) - (uintptr_t)buf;
    *a = (struct arena){
        .base = (char *)buf + skip, .size = size > skip ? size - skip : 0, .fixed = true};
}

void arena_done(struct arena *a)
{
    while (a->blocks) {
        struct arena_block *b = a->blocks;
        a->blocks = b->next;
        block_put(a->cache, b);
    }
    *a = (struct arena){0};
}

static bool arena_grow(struct arena *a, size_t bytes)
{
    size_t size = a->size ? MIN(a->size * 2, ARENA_MAX_BLOCK) : ARENA_FIRST_BLOCK;

    size = MAX(size, bytes);
    struct arena_block *b = a->fixed ? NULL : block_get(a->cache, size);
    if (!b)
        return false;
    b->next = a->blocks;
    a->blocks = b;
    a->base = b->data;
    a->used = 0;
    a->size = b->size;
    return true;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - ARENA_ALIGN)
        return NULL;
    bytes = align_up(bytes ? bytes : 1, ARENA_ALIGN);
    if (a->limit_bytes && bytes > a->limit_bytes - MIN(a->total_bytes, a->limit_bytes))
        return NULL;
    if (bytes > a->size - a->used && !arena_grow(a, bytes))
        return NULL;
    void *p = a->base + a->used;
    a->used += bytes;
    a->total_bytes += bytes;
    return memset(p, 0, bytes);
}

void *arena_array(struct arena *a, size_t n, size_t each)
{
    size_t bytes;

    return __builtin_mul_overflow(n, each, &bytes) ? NULL : arena_alloc(a, bytes);
}

void *arena_memdup(struct arena *a, const void *p, size_t bytes)
{
    void *q = arena_alloc(a, bytes);

    if (q && bytes)
        memcpy(q, p, bytes);
    return q;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *q = n < SIZE_MAX ? arena_alloc(a, n + 1) : NULL;

    if (q && n)
        memcpy(q, s, n);
    return q;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (s)
        (void)vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}
