/* Arenas.  A growing arena is a chain of blocks; each new block is at least twice the last, so
 * that a model of a thousand nodes costs a handful of mallocs. */
#include <gpulet/arena.h>
#include <stdarg.h>
#include <stdio.h>

#define ARENA_ALIGN 16
#define ARENA_FIRST_BLOCK 4096
#define ARENA_MAX_BLOCK (1u << 20)

struct arena_block {
    struct arena_block *next;
    _Alignas(ARENA_ALIGN) char data[];
};

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
        free(b);
    }
    *a = (struct arena){0};
}

static bool arena_grow(struct arena *a, size_t bytes)
{
    size_t size = a->size ? MIN(a->size * 2, ARENA_MAX_BLOCK) : ARENA_FIRST_BLOCK;

    size = MAX(size, bytes);
    if (a->fixed || size > SIZE_MAX - sizeof(struct arena_block))
        return false;
    struct arena_block *b = malloc(sizeof(*b) + size);
    if (!b)
        return false;
    b->next = a->blocks;
    a->blocks = b;
    a->base = b->data;
    a->used = 0;
    a->size = size;
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
