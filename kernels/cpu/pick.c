/* Blocked channels picked from those of several tensors: a shuffle, a half of one, or a join of
 * tensors whose channels are no multiple of the block.
 *
 * A block of the result takes lanes of a few source blocks, the same ones for every pixel: one
 * permutation for each source. */
#include "kit.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES 16 /* the widest block */

struct source {
    uint32_t piece;
    int64_t block;       /* of the piece */
    int32_t from[LANES]; /* by lane of the result: lane of this block */
    uint32_t mask;       /* of the lanes that it gives */
};

struct pick {
    int64_t batch, spatial, block, n_blocks; /* n_blocks: of the result */
    uint32_t n_pieces;
    int64_t *blocks; /* by piece */
    uint32_t *first; /* by block of the result, and one more: its first source */
    struct source *s;
    void (*plane)(int64_t n, int64_t block, uint32_t n_sources, const struct source *s,
                  const float *const *x, float *y);
};

static void plane_base(int64_t n, int64_t block, uint32_t n_sources, const struct source *s,
                       const float *const *x, float *y)
{
    memset(y, 0, (size_t)(n * block) * sizeof(*y));
    for (uint32_t k = 0; k < n_sources; k++)
        for (int64_t lane = 0; lane < block; lane++)
            for (int64_t i = 0; i < n && s[k].mask >> lane & 1; i++)
                y[i * block + lane] = x[k][i * block + s[k].from[lane]];
}

#if defined(__x86_64__)
CPU_WIDEST static void plane_widest(int64_t n, int64_t block, uint32_t n_sources,
                                    const struct source *s, const float *const *x, float *y)
{
    __m512i from[LANES];

    assert(block == LANES);
    for (uint32_t k = 0; k < n_sources; k++)
        from[k] = _mm512_loadu_si512(s[k].from);
    for (int64_t i = 0; i < n; i++) {
        __m512 v = _mm512_setzero_ps();
        for (uint32_t k = 0; k < n_sources; k++)
            v = _mm512_mask_permutexvar_ps(v, (__mmask16)s[k].mask, from[k],
                                           _mm512_loadu_ps(x[k] + i * LANES));
        _mm512_storeu_ps(y + i * LANES, v);
    }
}
#endif

static int pick_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct pick *p = params;
    int64_t all = p->batch * p->n_blocks, to = piece_from(all, part + 1, n_parts);
    int64_t plane = p->spatial * p->block;

    for (int64_t i = piece_from(all, part, n_parts); i < to; i++) {
        int64_t image = i / p->n_blocks;
        uint32_t first = p->first[i % p->n_blocks], n = p->first[i % p->n_blocks + 1] - first;
        const float *x[LANES];
        for (uint32_t k = 0; k < n; k++) {
            const struct source *s = &p->s[first + k];
            x[k] = (const float *)ptr[s->piece] + (image * p->blocks[s->piece] + s->block) * plane;
        }
        p->plane(p->spatial, p->block, n, p->s + first, x, (float *)ptr[p->n_pieces] + i * plane);
    }
    return 0;
}
PIECES(pick)

/* The source of a channel among those of this block of the result, [first, *n) of all. */
static struct source *source_of(struct source *s, uint32_t first, uint32_t *n, uint32_t piece,
                                int64_t block)
{
    for (uint32_t i = first; i < *n; i++)
        if (s[i].piece == piece && s[i].block == block)
            return &s[i];
    s[*n] = (struct source){.piece = piece, .block = block};
    return &s[(*n)++];
}

static void sources_make(const struct cpu_pick *c, struct pick *p)
{
    uint32_t n = 0;

    for (int64_t i = 0; i < c->n; i++) {
        int64_t channel = c->from[i], lane = i % p->block;
        uint32_t piece = 0;
        while (channel >= c->channels[piece])
            channel -= c->channels[piece++];
        if (lane == 0)
            p->first[i / p->block] = n;
        struct source *s = source_of(p->s, p->first[i / p->block], &n, piece, channel / p->block);
        s->from[lane] = (int32_t)(channel % p->block);
        s->mask |= 1u << lane;
    }
    p->first[p->n_blocks] = n;
}

int cpu_plan_pick(const struct cpu_pick *c, struct arena *arena, struct cpu_call *ret)
{
    struct pick p = {.batch = c->batch,
                     .spatial = c->spatial,
                     .block = c->block,
                     .n_blocks = (c->n + c->block - 1) / c->block,
                     .n_pieces = c->n_pieces,
                     .plane = plane_base};

    p.blocks = ARENA_ARRAY(arena, int64_t, p.n_pieces);
    p.first = ARENA_ARRAY(arena, uint32_t, (size_t)p.n_blocks + 1);
    p.s = ARENA_ARRAY(arena, struct source, (size_t)c->n); /* no more than one a channel */
    if (!p.blocks || !p.first || !p.s)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->n_pieces; i++)
        p.blocks[i] = (c->channels[i] + c->block - 1) / c->block;
    sources_make(c, &p);
#if defined(__x86_64__)
    if (c->block == LANES && cpu_is_widest())
        p.plane = plane_widest;
#endif
    *ret = (struct cpu_call){.run = run_pick, .piece = pick_piece, .name = "channel pick"};
    ret->params = arena_memdup(arena, &p, sizeof(p));
    return ret->params ? 0 : -ENOMEM;
}
