/* Reading and writing by index. */
#include "kit.cuh"

/* Index k; -1 and *bad where it is out of range. */
DEVICE int64_t index_at(const void *index, int type, int64_t k, int64_t limit, int32_t *bad)
{
    int64_t v = type == GPU_S32 ? ((const int32_t *)index)[k] : ((const int64_t *)index)[k];

    if (v >= -limit && v < limit)
        return v < 0 ? v + limit : v;
    *bad = 1;
    return -1;
}

KERNEL(gather_elements)
{
    EACH (i, a.n) {
        int64_t k = index_at(a.index, a.index_type, i, a.axis, a.bad);
        move(a.y, i, a.x, at(a.walk, 0, i) + (k < 0 ? 0 : k) * a.step, a.size);
    }
}

template <typename T> DEVICE void mix_one(int mix, T *y, T x)
{
    *y = mix == GPU_MIX_add   ? (T)(*y + x)
         : mix == GPU_MIX_mul ? (T)(*y * x)
         : mix == GPU_MIX_min ? (x < *y ? x : *y)
                              : (x > *y ? x : *y);
}

DEVICE void mixed(int mix, int type, int size, void *y, int64_t to, const void *x, int64_t from)
{
    if (mix == GPU_MIX_none)
        move(y, to, x, from, size);
    else if (type == GPU_F32)
        mix_one(mix, (float *)y + to, ((const float *)x)[from]);
    else if (type == GPU_S32)
        mix_one(mix, (int32_t *)y + to, ((const int32_t *)x)[from]);
    else
        mix_one(mix, (int64_t *)y + to, ((const int64_t *)x)[from]);
}

KERNEL(scatter_elements)
{
    EACH (i, a.n) {
        int64_t from, to;
        at_two(a.walk, i, &from, &to);
        for (int64_t j = 0; j < a.count; j++, from += a.index_step) {
            int64_t k = index_at(a.index, a.index_type, from, a.axis, a.bad);
            if (k >= 0)
                mixed(a.mix, a.type, a.size, a.y, to + k * a.step, a.updates, from);
        }
    }
}

/* Where the block of tuple t begins, or -1. */
DEVICE int64_t block_at(const index_nd_args &a, int64_t t)
{
    int64_t off = t / a.each * a.whole;

    for (int64_t j = 0; j < a.named; j++) {
        int64_t k = index_at(a.index, a.index_type, t * a.named + j, a.dims[j], a.bad);
        if (k < 0)
            return -1;
        off += k * a.stride[j];
    }
    return off;
}

DEVICE void scatter_nd(const index_nd_args &a, int64_t i)
{
    int64_t first = a.in_order ? 0 : i / a.block, end = a.in_order ? a.all : first + 1;

    for (int64_t t = first; t < end; t++) {
        int64_t to = block_at(a, t), in = i % a.block;
        if (to >= 0)
            mixed(a.mix, a.type, a.size, a.y, to + in, a.x, t * a.block + in);
    }
}

KERNEL(index_nd)
{
    EACH (i, a.n) {
        if (a.scatter) {
            scatter_nd(a, i);
            continue;
        }
        int64_t from = block_at(a, i / a.block);
        move(a.y, i, a.x, from < 0 ? 0 : from + i % a.block, a.size);
    }
}

DEVICE int64_t number_at(const void *x, int type, int64_t i)
{
    switch (type) {
    case GPU_F32: return (int64_t)((const float *)x)[i];
    case GPU_S32: return ((const int32_t *)x)[i];
    case GPU_S64: return ((const int64_t *)x)[i];
    case GPU_S8: return ((const int8_t *)x)[i];
    default: return ((const uint8_t *)x)[i];
    }
}

KERNEL(one_hot)
{
    EACH (i, a.n) {
        int64_t in = i % a.inner, d = i / a.inner % a.depth, o = i / a.inner / a.depth;
        int64_t k = number_at(a.index, a.index_type, o * a.inner + in);
        move(a.y, i, a.values, k + (k < 0 ? a.depth : 0) == d, a.size);
    }
}

KERNEL(trilu)
{
    const uint64_t zero = 0;

    EACH (i, a.n) {
        int64_t diagonal = i % a.cols - i / a.cols % a.rows;
        bool stays = a.upper ? diagonal >= a.k : diagonal <= a.k;
        move(a.y, i, stays ? a.x : &zero, stays ? i : 0, a.size);
    }
}

KERNEL(eye)
{
    const uint64_t zero = 0;

    EACH (i, a.n)
        move(a.y, i, i % a.cols - i / a.cols == a.k ? &a.one : &zero, 0, a.size);
}

KERNEL(reverse_sequence)
{
    EACH (i, a.n) {
        int64_t second = i / a.inner % (a.batch_first ? a.times : a.batch);
        int64_t first = i / a.inner / (a.batch_first ? a.times : a.batch);
        int64_t t = a.batch_first ? second : first, len = a.lens[a.batch_first ? first : second];
        if (len < 0 || len > a.times) {
            *a.bad = 1;
            len = 0;
        }
        int64_t turn = t < len ? (len - 1 - 2 * t) * a.inner * (a.batch_first ? 1 : a.batch) : 0;
        move(a.y, i, a.x, i + turn, a.size);
    }
}

KERNEL(tensor_scatter)
{
    EACH (i, a.n) {
        int64_t in = i % a.inner, k = i / a.inner % a.count, o = i / a.inner / a.count;
        int64_t first = a.at ? a.at[o / a.each] : 0;
        if (first < 0 || (a.circular ? first >= a.times : first > a.times - a.count))
            *a.bad = 1;
        else
            move(a.y, (o * a.times + (first + k) % a.times) * a.inner + in, a.x, i, a.size);
    }
}

/* Is x before y, which comes `later` than x if they are equal?  NaN is above all. */
template <typename T> DEVICE bool goes_before(T x, T y, bool later, bool smallest)
{
    bool nx = x != x, ny = y != y;
    int c = nx || ny ? (int)nx - (int)ny : (int)(x > y) - (int)(x < y);

    return c == 0 ? later : smallest ? c < 0 : c > 0;
}

/* A thread for each element: how many go before it is its place. */
template <typename T> DEVICE void place(const top_k_args &a, int64_t i)
{
    int64_t line = i / a.step / a.count, p = i / a.step % a.count, in = i % a.step, rank = 0;
    const T *x = (const T *)a.x + line * a.count * a.step + in, v = x[p * a.step];

    for (int64_t k = 0; k < a.count && rank < a.want; k++)
        rank += k != p && goes_before(x[k * a.step], v, k < p, a.smallest);
    if (rank >= a.want)
        return;
    int64_t to = (line * a.want + rank) * a.step + in;
    ((T *)a.y)[to] = v;
    if (a.index)
        a.index[to] = p;
}

KERNEL(top_k)
{
    EACH (i, a.n) {
        switch (a.type) {
        case GPU_F32: place<float>(a, i); break;
        case GPU_S32: place<int32_t>(a, i); break;
        case GPU_S64: place<int64_t>(a, i); break;
        case GPU_S8: place<int8_t>(a, i); break;
        default: place<uint8_t>(a, i);
        }
    }
}

DEVICE int64_t pad_source(int64_t p, int64_t size, int mode)
{
    if (p >= 0 && p < size)
        return p;
    if (mode == GPU_PAD_edge)
        return p < 0 ? 0 : size - 1;
    int64_t period = mode == GPU_PAD_wrap ? size : size > 1 ? 2 * (size - 1) : 1;
    int64_t r = (p % period + period) % period;
    return r < size ? r : period - r;
}

KERNEL(pad)
{
    EACH (i, a.n) {
        int64_t from = 0, step = 1, rest = i;
        for (int d = a.rank - 1; d >= 0; d--) {
            from += pad_source(rest % a.out[d] - a.begin[d], a.in[d], a.mode) * step;
            step *= a.in[d];
            rest /= a.out[d];
        }
        move(a.y, i, a.x, from, a.size);
    }
}
