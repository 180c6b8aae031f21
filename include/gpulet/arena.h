/* Memory that dies together.
 *
 * Either fixed (a buffer of the caller's: used by lib/plan, sized by plan_need()) or growing
 * (blocks from malloc: a model's graph).  Allocations are zeroed and 16-byte aligned.
 * One owner, one thread at a time. */
#pragma once

#include <gpulet/base.h>

struct arena_block;

/* Blocks that were given back, for the next who asks: what is done again and again in the same
 * sizes then takes nothing of malloc's.  Zero at first but for the limit; one owner, one thread at
 * a time. */
struct arena_cache {
    struct arena_block *blocks; /* the last one given back first */
    size_t bytes, limit_bytes;  /* of them; beyond the limit the oldest go */
};
/* A block by itself, any contents; NULL when malloc fails.  c may be NULL: malloc's, as it is. */
void *arena_cache_get(struct arena_cache *c, size_t bytes);
void arena_cache_put(struct arena_cache *c, void *p);
void arena_cache_done(struct arena_cache *c);

struct arena {
    char *base; /* the block being filled */
    size_t used, size;
    size_t total_bytes;         /* handed out so far */
    size_t limit_bytes;         /* of a growing arena: what would go beyond fails; 0: no limit */
    struct arena_block *blocks; /* all blocks of a growing arena; NULL for a fixed one */
    struct arena_cache *cache;  /* where a growing arena has its blocks from; NULL: malloc */
    bool fixed;
};

void arena_init(struct arena *a);                               /* growing */
void arena_init_fixed(struct arena *a, void *buf, size_t size); /* buf is borrowed until done */
void arena_done(struct arena *a); /* its blocks go where they came from */

/* NULL when a fixed arena is full or malloc fails. */
void *arena_alloc(struct arena *a, size_t bytes);
/* n elements of `each` bytes; NULL also when the product overflows. */
void *arena_array(struct arena *a, size_t n, size_t each);
void *arena_memdup(struct arena *a, const void *p, size_t bytes);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define ARENA_NEW(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_array((a), (n), sizeof(type)))
