/* Attention in one kernel.  A warp has 16 queries, and goes with its block through the keys and
 * values, tile by tile in shared memory; products by tensor cores, the softmax as it goes, in FP32:
 * what was summed up is scaled down whenever a larger score comes.
 *
 * What a lane has of a product (mma.m16n8k16 of the PTX manual; g = lane / 4, t = lane % 4):
 *     a     rows g and g + 8, columns 2t, 2t + 1 and 2t + 8, 2t + 9: {g, g + 8} of the first, then
 *           of the second pair
 *     b     the same pairs of its rows, of column g
 *     c     rows g and g + 8, columns 2t, 2t + 1
 * So the scores of two neighbours of 8 keys are, rounded, a of the second product. */
#include "warp.cuh"

template <int D> struct alignas(16) attend_tile {
    uint16_t k[ATTEND_KEYS][D + 8]; /* 8 more: rows begin in different banks */
    uint16_t v[D][ATTEND_KEYS + 8]; /* turned: pairs of keys are read */
};

/* What a lane knows of its 16 queries. */
template <int D> struct attend_state {
    uint32_t q[D / 16][4];
    float y[D / 8][4];
    float top[2], sum[2]; /* of rows g and g + 8; the sum is of this lane's columns */
};

DEVICE uint32_t pair_at(const uint16_t *x)
{
    uint32_t v;
    read_aligned(&v, x);
    return v;
}

template <typename T> DEVICE uint32_t pair_of(float lo, float hi)
{
    T a, b;
    put(&a, lo);
    put(&b, hi);
    return a.bits | (uint32_t)b.bits << 16;
}

/* A tile's keys and values, by all threads of the block: as many accesses are on their way at once as
 * registers allow, as one after the other each would take as long as all of them. */
template <int D>
DEVICE void attend_load(const attend_args &a, const uint16_t *k, const uint16_t *v, int64_t from,
                        attend_tile<D> &tile)
{
    constexpr int AT_ONCE = 4;

    for (int first = threadIdx.x; first < ATTEND_KEYS * D / 8; first += AT_ONCE * ATTEND_THREADS) {
        words<8> of_k[AT_ONCE] = {}, of_v[AT_ONCE] = {};
        UNROLL
        for (int u = 0; u < AT_ONCE; u++) {
            int i = first + u * ATTEND_THREADS;
            int key = i / 2 % ATTEND_KEYS, c = (i % 2 + i / (2 * ATTEND_KEYS) * 2) * 8;
            if (from + key < a.keys && c < a.width) {
                read_aligned(&of_k[u], k + (from + key) * a.of_k.row + c);
                read_aligned(&of_v[u], v + (from + key) * a.of_v.row + c);
            }
        }
        UNROLL
        for (int u = 0; u < AT_ONCE; u++) {
            int i = first + u * ATTEND_THREADS;
            int key = i / 2 % ATTEND_KEYS, c = (i % 2 + i / (2 * ATTEND_KEYS) * 2) * 8;
            write_aligned(&tile.k[key][c], &of_k[u]);
            UNROLL
            for (int j = 0; j < 8; j++)
                tile.v[c + j][key] = (uint16_t)(of_v[u].w[j / 2] >> j % 2 * 16);
        }
    }
}

template <int D>
DEVICE void attend_queries(const attend_args &a, const uint16_t *q, int64_t row, int t,
                           attend_state<D> &s)
{
    UNROLL
    for (int k = 0; k < D / 16; k++)
        UNROLL
        for (int i = 0; i < 4; i++) {
            int64_t r = row + i % 2 * 8, c = k * 16 + t * 2 + i / 2 * 8;
            s.q[k][i] = r < a.rows && c < a.width ? pair_at(q + r * a.of_q.row + c) : 0;
        }
}

/* Of a tile, what a lane has of 8 keys each. */
struct attend_scores {
    float of[ATTEND_KEYS / 8][4];
};

/* f(score, i, key): of the lane's row i and a key that may lie behind the last. */
template <typename F> DEVICE void attend_each(attend_scores &p, int64_t from, F f)
{
    UNROLL
    for (int j = 0; j < ATTEND_KEYS / 8; j++)
        UNROLL
        for (int i = 0; i < 4; i++)
            f(p.of[j][i], i / 2, from + j * 8 + threadIdx.x % 4 * 2 + i % 2);
}

/* Rows behind the last see what the last one sees; nobody gets their results. */
template <typename T>
DEVICE void attend_masked(const attend_args &a, attend_scores &p, int64_t of_mask, int64_t row,
                          int64_t from)
{
    float other = as_stored<T>(a.other);
    int64_t at[2], last = a.keys - 1;

    UNROLL
    for (int i = 0; i < 2; i++) {
        int64_t r = row + i * 8 < a.rows ? row + i * 8 : a.rows - 1;
        at[i] = a.causal ? r + a.keys - a.rows : of_mask + r * a.mask_stride[2];
    }
    if (a.causal)
        attend_each(p, from, [&](float &x, int i, int64_t key) { x = key > at[i] ? other : x; });
    else if (a.mask && a.mask_type == GPU_BOOL)
        attend_each(p, from, [&](float &x, int i, int64_t key) {
            const uint8_t *m = (const uint8_t *)a.mask + at[i];
            x = (m[(key < last ? key : last) * a.mask_stride[3]] != 0) == (a.shows != 0) ? x : other;
        });
    else if (a.mask)
        attend_each(p, from, [&](float &x, int i, int64_t key) {
            const T *m = (const T *)a.mask + at[i];
            x = as_stored<T>(x + number(m[(key < last ? key : last) * a.mask_stride[3]]));
        });
    if (from + ATTEND_KEYS > a.keys)
        attend_each(p, from, [&](float &x, int, int64_t key) { x = key > last ? LOWEST : x; });
}

template <typename T, int D>
DEVICE void attend_score(const attend_args &a, const attend_tile<D> &tile, const attend_state<D> &s,
                         attend_scores &p)
{
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;

    UNROLL
    for (int j = 0; j < ATTEND_KEYS / 8; j++) {
        UNROLL
        for (int i = 0; i < 4; i++)
            p.of[j][i] = 0;
        UNROLL
        for (int k = 0; k < D / 16; k++) {
            const uint16_t *b = &tile.k[j * 8 + g][k * 16 + t * 2];
            mma<T>(p.of[j], s.q[k], pair_at(b), pair_at(b + 8));
        }
        UNROLL
        for (int i = 0; i < 4; i++)
            p.of[j][i] *= a.scale;
    }
}

/* Scores become weights by the largest so far; what there is already is scaled to it. */
template <int D> DEVICE void attend_weigh(attend_scores &p, attend_state<D> &s)
{
    UNROLL
    for (int i = 0; i < 2; i++) { /* of the lane's two rows; four lanes have a row */
        float top = s.top[i], less, by;
        UNROLL
        for (int j = 0; j < ATTEND_KEYS / 8; j++)
            top = fmaxf(top, fmaxf(p.of[j][i * 2], p.of[j][i * 2 + 1]));
        top = fmaxf(top, lane_xor(top, 1));
        top = fmaxf(top, lane_xor(top, 2));
        less = top == LOWEST ? 0 : top; /* nothing seen yet: no difference of infinities */
        by = exp_of(s.top[i] - less);
        s.top[i] = top;
        s.sum[i] *= by;
        UNROLL
        for (int j = 0; j < D / 8; j++) {
            s.y[j][i * 2] *= by;
            s.y[j][i * 2 + 1] *= by;
        }
        UNROLL
        for (int j = 0; j < ATTEND_KEYS / 4; j++) {
            float &x = p.of[j / 2][i * 2 + j % 2];
            x = exp_of(x - less);
            s.sum[i] += x;
        }
    }
}

template <typename T, int D>
DEVICE void attend_add(const attend_tile<D> &tile, const attend_scores &p, attend_state<D> &s)
{
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;

    UNROLL
    for (int u = 0; u < ATTEND_KEYS / 16; u++) {
        const float(&lo)[4] = p.of[2 * u], (&hi)[4] = p.of[2 * u + 1];
        const uint32_t w[4] = {pair_of<T>(lo[0], lo[1]), pair_of<T>(lo[2], lo[3]),
                               pair_of<T>(hi[0], hi[1]), pair_of<T>(hi[2], hi[3])};
        UNROLL
        for (int j = 0; j < D / 8; j++) {
            const uint16_t *b = &tile.v[j * 8 + g][u * 16 + t * 2];
            mma<T>(s.y[j], w, pair_at(b), pair_at(b + 8));
        }
    }
}

/* A row that saw nothing but -inf is NaN, as a softmax of it is. */
template <typename T, int D>
DEVICE void attend_store(const attend_args &a, uint16_t *y, int64_t row, attend_state<D> &s)
{
    int t = threadIdx.x % 4;

    UNROLL
    for (int i = 0; i < 2; i++) {
        s.sum[i] += lane_xor(s.sum[i], 1);
        s.sum[i] += lane_xor(s.sum[i], 2);
        float by = 1 / s.sum[i];
        UNROLL
        for (int j = 0; j < D / 8; j++) {
            uint32_t v = pair_of<T>(s.y[j][i * 2] * by, s.y[j][i * 2 + 1] * by);
            if (row + i * 8 < a.rows && j * 8 < a.width)
                write_aligned(y + (row + i * 8) * a.of_y.row + j * 8 + t * 2, &v);
        }
    }
}

DEVICE int64_t head_of(const gpu_heads &of, int64_t b, int64_t h) { return b * of.batch + h * of.head; }

template <typename T, int D> DEVICE void attend_all(const attend_args &a, attend_tile<D> &tile)
{
    constexpr int64_t each = ATTEND_EACH;
    int64_t blocks = (a.rows + each - 1) / each;

    for (int64_t i = blockIdx.x; i < a.n; i += gridDim.x) {
        int64_t first = i % blocks * each, h = i / blocks % a.heads, b = i / blocks / a.heads;
        int64_t row = first + threadIdx.x / WARP * ATTEND_ROWS + threadIdx.x % WARP / 4;
        int64_t end = a.causal && first + each + a.keys - a.rows < a.keys
                          ? first + each + a.keys - a.rows
                          : a.keys;
        const uint16_t *k = (const uint16_t *)a.k + a.from_k + head_of(a.of_k, b, h);
        const uint16_t *v = (const uint16_t *)a.v + a.from_v + head_of(a.of_v, b, h);
        int64_t of_mask = b * a.mask_stride[0] + h * a.mask_stride[1];
        bool works = row - threadIdx.x % WARP / 4 < a.rows; /* all of a warp or none */
        attend_state<D> s = {};
        attend_scores p;
        s.top[0] = s.top[1] = LOWEST;
        attend_queries(a, (const uint16_t *)a.q + a.from_q + head_of(a.of_q, b, h), row, threadIdx.x % 4, s);
        for (int64_t from = 0; from < end; from += ATTEND_KEYS) {
            block_wait(); /* for whoever still reads the last tile */
            attend_load(a, k, v, from, tile);
            block_wait();
            if (!works)
                continue;
            attend_score<T>(a, tile, s, p);
            attend_masked<T>(a, p, of_mask, row, from);
            attend_weigh(p, s);
            attend_add<T>(tile, p, s);
        }
        if (works)
            attend_store<T>(a, (uint16_t *)a.y + head_of(a.of_y, b, h), row, s);
    }
}

/* One tile for both types: shared memory is counted for the whole kernel. */
template <int D> DEVICE void attend_typed(const attend_args &a)
{
    SHARED attend_tile<D> tile;

    if (a.type == GPU_F16)
        attend_all<fp16>(a, tile);
    else
        attend_all<bf16>(a, tile);
}

TEAM_KERNEL(attend64)
{
    attend_typed<64>(a);
}

TEAM_KERNEL(attend128)
{
    attend_typed<128>(a);
}
