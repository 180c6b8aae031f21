/* Normalisation and softmax of rows: a warp for each, a block for a long one.  Sums are in FP32, the
 * variance in a pass of its own. */
#include "warp.cuh"

/* Who shares a row: all of them get the same sum and the same maximum. */
struct warp_team {
    DEVICE int rank() { return (int)(threadIdx.x % WARP); }
    DEVICE int size() { return WARP; }
    DEVICE int64_t first() { return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP; }
    DEVICE int64_t step() { return (int64_t)gridDim.x * blockDim.x / WARP; }
    DEVICE float sum(float x) { return warp_sum(x); }
    DEVICE float max(float x) { return warp_max(x); }
};

struct block_team {
    DEVICE int rank() { return (int)threadIdx.x; }
    DEVICE int size() { return (int)blockDim.x; }
    DEVICE int64_t first() { return blockIdx.x; }
    DEVICE int64_t step() { return gridDim.x; }
    /* One number of each warp, in turn for all. */
    DEVICE float *told(float x)
    {
        SHARED float part[GPU_THREADS / WARP];
        block_wait(); /* for whoever still reads the last ones */
        if (threadIdx.x % WARP == 0)
            part[threadIdx.x / WARP] = x;
        block_wait();
        return part;
    }
    DEVICE float sum(float x)
    {
        float *part = told(warp_sum(x)), all = 0;
        for (unsigned i = 0; i < blockDim.x / WARP; i++)
            all += part[i];
        return all;
    }
    DEVICE float max(float x)
    {
        float *part = told(warp_max(x)), all = LOWEST;
        for (unsigned i = 0; i < blockDim.x / WARP; i++)
            all = fmaxf(all, part[i]);
        return all;
    }
};

/* f(i, c) for each c, the first of N columns, that is this thread's; C: so many of them at most, or
 * 0: any number, and i is 0. */
template <int N, int C, typename Team, typename F>
DEVICE void own_columns(Team team, int64_t count, F f)
{
    if constexpr (C == 0) {
        for (int64_t c = team.rank() * N; c < count; c += team.size() * N)
            f(0, c);
    } else {
        UNROLL
        for (int i = 0; i < C; i++) {
            int64_t c = (i * team.size() + team.rank()) * N;
            if (c < count)
                f(i, c);
        }
    }
}

template <int N> DEVICE void add_to(float (&x)[N], const float (&y)[N])
{
    UNROLL
    for (int j = 0; j < N; j++)
        x[j] += y[j];
}

template <typename T, int N, int C, typename Team> DEVICE void norm_rows(const norm_rows_args &a)
{
    Team team;

    for (int64_t row = team.first(); row < a.n; row += team.step()) {
        int64_t at = row * a.count;
        float v[C ? C : 1][N], scale[C ? C : 1][N], bias[C ? C : 1][N], w[N], mean = 0, squares = 0;
        auto read = [&](int i, int64_t c) {
            load(v[i], (const T *)a.x + at + c);
            if (a.add) {
                load(w, (const T *)a.add + at + c);
                add_to(v[i], w);
            }
        };
        auto params = [&](int i, int64_t c) {
            load(scale[i], a.scale + c);
            if (a.bias)
                load(bias[i], a.bias + c);
        };
        own_columns<N, C>(team, a.count, [&](int i, int64_t c) {
            read(i, c);
            if (C) /* what is kept is asked for at once: waiting is what a row takes */
                params(i, c);
            for (int j = 0; j < N; j++)
                mean += v[i][j];
        });
        mean = a.rms ? 0 : team.sum(mean) / (float)a.count;
        own_columns<N, C>(team, a.count, [&](int i, int64_t c) {
            if (C == 0)
                read(i, c);
            for (int j = 0; j < N; j++)
                squares += (v[i][j] - mean) * (v[i][j] - mean);
        });
        float inv = 1 / sqrtf(team.sum(squares) / (float)a.count + a.eps);
        own_columns<N, C>(team, a.count, [&](int i, int64_t c) {
            if (C == 0) {
                read(i, c);
                params(i, c);
            }
            if (a.sum)
                store((T *)a.sum + at + c, v[i]);
            for (int j = 0; j < N; j++)
                v[i][j] = (v[i][j] - mean) * inv * scale[i][j];
            if (a.bias)
                add_to(v[i], bias[i]);
            store((T *)a.y + at + c, v[i]);
        });
        if (team.rank() == 0 && a.ret_mean)
            a.ret_mean[row] = mean;
        if (team.rank() == 0 && a.ret_inv)
            a.ret_inv[row] = inv;
    }
}

template <typename T, int N, int C, typename Team> DEVICE void softmax_rows(const softmax_rows_args &a)
{
    Team team;

    for (int64_t row = team.first(); row < a.n; row += team.step()) {
        int64_t from = row * a.count, of_mask = a.mask ? at(a.of_mask, 0, row) : 0;
        float v[C ? C : 1][N], w[N], top = LOWEST, sum = 0;
        auto read = [&](int i, int64_t c) {
            load(v[i], (const T *)a.x + from + c);
            for (int j = 0; j < N; j++)
                v[i][j] *= a.scale;
            if (a.mask) {
                load(w, (const T *)a.mask + of_mask + c);
                for (int j = 0; j < N; j++)
                    v[i][j] = as_stored<T>(v[i][j] + w[j]);
            }
        };
        auto again = [&](int i, int64_t c) {
            if (C == 0)
                read(i, c);
        };
        own_columns<N, C>(team, a.count, [&](int i, int64_t c) {
            read(i, c);
            for (int j = 0; j < N; j++)
                top = fmaxf(top, v[i][j]);
        });
        top = team.max(top);
        own_columns<N, C>(team, a.count, [&](int i, int64_t c) {
            again(i, c);
            for (int j = 0; j < N; j++)
                sum += expf(v[i][j] - top);
        });
        sum = team.sum(sum);
        float less = top + (a.log_of ? logf(sum) : 0), by = 1 / sum;
        own_columns<N, C>(team, a.count, [&](int i, int64_t c) {
            again(i, c);
            for (int j = 0; j < N; j++)
                v[i][j] = a.log_of ? v[i][j] - less : expf(v[i][j] - top) * by;
            store((T *)a.y + from + c, v[i]);
        });
    }
}

/* f<T, N, C, team>(a): C holds a row of ROW_WARP numbers, in registers. */
#define ROWS_OF(f, T, wide, team, keep)                                                            \
    do {                                                                                           \
        if (a.vector == wide)                                                                      \
            f<T, wide, keep ? ROW_WARP / WARP / wide : 0, team>(a);                                \
        else                                                                                       \
            f<T, 1, keep ? ROW_WARP / WARP : 0, team>(a);                                          \
    } while (0)
#define ROWS(f, team, keep)                                                                        \
    do {                                                                                           \
        if (a.type == GPU_F16)                                                                     \
            ROWS_OF(f, fp16, 8, team, keep);                                                       \
        else if (a.type == GPU_BF16)                                                               \
            ROWS_OF(f, bf16, 8, team, keep);                                                       \
        else                                                                                       \
            ROWS_OF(f, float, 4, team, keep);                                                      \
    } while (0)

TEAM_KERNEL(norm_warp)
{
    ROWS(norm_rows, warp_team, true);
}

TEAM_KERNEL(norm_block)
{
    ROWS(norm_rows, block_team, false);
}

TEAM_KERNEL(softmax_warp)
{
    ROWS(softmax_rows, warp_team, true);
}

TEAM_KERNEL(softmax_block)
{
    ROWS(softmax_rows, block_team, false);
}

/* Every other lane has the same channels, and every 16th of the places. */
template <typename T, int N> DEVICE void pool_all_of(const pool_all_args &a)
{
    warp_team team;
    int64_t pairs = (a.channels / N + 1) / 2;

    for (int64_t i = team.first(); i < a.n; i += team.step()) {
        int64_t sample = i / pairs, channel = (i % pairs * 2 + team.rank() % 2) * N;
        const T *x = (const T *)a.x + sample * a.places * a.channels + channel;
        float v[N], acc[N];
        for (int j = 0; j < N; j++)
            acc[j] = a.mean ? 0 : LOWEST;
        for (int64_t p = team.rank() / 2; p < a.places && channel < a.channels; p += WARP / 2) {
            load(v, x + p * a.channels);
            for (int j = 0; j < N; j++)
                acc[j] = a.mean ? acc[j] + v[j] : v[j] > acc[j] || v[j] != v[j] ? v[j] : acc[j];
        }
        UNROLL
        for (int k = WARP / 2; k > 1; k /= 2)
            for (int j = 0; j < N; j++) {
                float other = lane_xor(acc[j], k);
                acc[j] = a.mean ? acc[j] + other : other > acc[j] || other != other ? other : acc[j];
            }
        for (int j = 0; j < N; j++)
            acc[j] = a.mean ? acc[j] / (float)a.places : acc[j];
        if (team.rank() < 2 && channel < a.channels)
            store((T *)a.y + sample * a.channels + channel, acc);
    }
}

template <typename T> DEVICE void pool_all_half(const pool_all_args &a)
{
    switch (a.vector) {
    case 8: return pool_all_of<T, 8>(a);
    case 4: return pool_all_of<T, 4>(a);
    case 2: return pool_all_of<T, 2>(a);
    default: return pool_all_of<T, 1>(a);
    }
}

TEAM_KERNEL(pool_all)
{
    if (a.type == GPU_F16)
        pool_all_half<fp16>(a);
    else
        pool_all_half<bf16>(a);
}
