/* Scale and shift by channel, with a floor and a ceiling: a batch norm and the activation behind
 * it, on blocked channels [N, C/k, spatial, k].  The source may be in pieces that together are the
 * channels: what a Concat would join is read where it is. */
#include "kit.h"

struct channel {
    int64_t batch, spatial, block;
    uint32_t n_pieces;
    const int64_t *blocks; /* of channels, by piece */
    int64_t n_blocks;
    const float *scale, *shift; /* by channel */
    float low, high;
    void (*plane)(int64_t n, int64_t k, const float *x, float *y, const float *scale,
                  const float *shift, float low, float high);
};

static inline __attribute__((always_inline)) void channel_rows(int64_t n, int64_t k, const float *x,
                                                               float *y, const float *scale,
                                                               const float *shift, float low,
                                                               float high)
{
    for (int64_t i = 0; i < n; i++, x += k, y += k)
        SIMD for (int64_t c = 0; c < k; c++)
        {
            float v = x[c] * scale[c] + shift[c];
            v = v < low ? low : v;
            y[c] = v > high ? high : v;
        }
}

VECTOR_WIDEST(channel_plane,
              (int64_t n, int64_t k, const float *x, float *y, const float *scale,
               const float *shift, float low, float high),
              (n, k, x, y, scale, shift, low, high))
{
    if (k == 16)
        channel_rows(n, 16, x, y, scale, shift, low, high);
    else
        channel_rows(n, 8, x, y, scale, shift, low, high);
}

static int channel_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct channel *p = params;
    int64_t plane = p->spatial * p->block, at = 0, from = piece_from(p->n_blocks, part, n_parts);
    int64_t to = piece_from(p->n_blocks, part + 1, n_parts);
    float *y = ptr[p->n_pieces];

    for (uint32_t i = 0; i < p->n_pieces; i++)
        for (int64_t b = 0; b < p->blocks[i]; b++, at++)
            for (int64_t n = 0; n < p->batch && at >= from && at < to; n++)
                p->plane(p->spatial, p->block,
                         (const float *)ptr[i] + (n * p->blocks[i] + b) * plane,
                         y + (n * p->n_blocks + at) * plane, p->scale + at * p->block,
                         p->shift + at * p->block, p->low, p->high);
    return 0;
}
PIECES(channel)

int cpu_plan_channel(const struct cpu_channel *c, struct arena *arena, struct cpu_call *ret)
{
    float *scale = ARENA_ARRAY(arena, float, 2 * (size_t)c->channels), *shift = scale + c->channels;
    struct channel p = {.batch = c->batch,
                        .spatial = c->spatial,
                        .block = c->block,
                        .n_pieces = c->n_pieces,
                        .blocks = arena_memdup(arena, c->blocks, c->n_pieces * sizeof(*c->blocks)),
                        .n_blocks = c->channels / c->block,
                        .scale = scale,
                        .shift = shift,
                        .low = c->low,
                        .high = c->high,
                        .plane = PICK_WIDEST(channel_plane)};

    if (!scale || !p.blocks)
        return -ENOMEM;
    for (int64_t i = 0; i < c->channels; i++) {
        double s = (double)c->gain[i] / sqrt((double)c->var[i] + (double)c->epsilon);
        scale[i] = (float)s;
        shift[i] = (float)((double)c->bias[i] - (double)c->mean[i] * s);
    }
    *ret = (struct cpu_call){.run = run_channel, .piece = channel_piece, .name = "channel scale"};
    ret->params = arena_memdup(arena, &p, sizeof(p));
    return ret->params ? 0 : -ENOMEM;
}

/* ---- gates */

struct gate {
    struct cpu_gate of;
    void (*plane)(int64_t n, int64_t k, const float *x, float *y, const float *gate);
};

static inline __attribute__((always_inline)) void gate_rows(int64_t n, int64_t k, const float *x,
                                                            float *y, const float *gate)
{
    for (int64_t i = 0; i < n; i++, x += k, y += k)
        SIMD for (int64_t c = 0; c < k; c++) y[c] = x[c] * gate[c];
}

VECTOR_WIDEST(gate_plane, (int64_t n, int64_t k, const float *x, float *y, const float *gate),
              (n, k, x, y, gate))
{
    if (k == 16)
        gate_rows(n, 16, x, y, gate);
    else
        gate_rows(n, 8, x, y, gate);
}

static int gate_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct gate *p = params;
    int64_t n_blocks = p->of.channels / p->of.block, plane = p->of.spatial * p->of.block;
    int64_t all = p->of.batch * n_blocks, to = piece_from(all, part + 1, n_parts);

    for (int64_t i = piece_from(all, part, n_parts); i < to; i++) {
        int64_t gate = p->of.gates == 1 ? i % n_blocks : i;
        p->plane(p->of.spatial, p->of.block, (const float *)ptr[0] + i * plane,
                 (float *)ptr[2] + i * plane, (const float *)ptr[1] + gate * p->of.block);
    }
    return 0;
}
PIECES(gate)

int cpu_plan_gate(const struct cpu_gate *g, struct arena *arena, struct cpu_call *ret)
{
    struct gate p = {.of = *g, .plane = PICK_WIDEST(gate_plane)};

    *ret = (struct cpu_call){.run = run_gate, .piece = gate_piece, .name = "channel gate"};
    ret->params = arena_memdup(arena, &p, sizeof(p));
    return ret->params ? 0 : -ENOMEM;
}
