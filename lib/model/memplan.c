/* Where each activation lies.  Largest first, each into the smallest gap that holds it among the
 * buffers alive at the same time, else behind them: within a few percent of the peak of live
 * bytes on chains and residual networks. */
#include <gpulet/model.h>

#define BUFFER_ALIGN 64

static size_t padded(const struct buffer *b)
{
    return align_up(b->bytes, BUFFER_ALIGN);
}

static bool meet(const struct buffer *a, const struct buffer *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Sizes descend, then age and place in the list decide: equal input, equal plan. */
static bool goes_before(const struct buffer *buf, uint32_t a, uint32_t b)
{
    if (buf[a].bytes != buf[b].bytes)
        return buf[a].bytes > buf[b].bytes;
    return buf[a].first != buf[b].first ? buf[a].first < buf[b].first : a < b;
}

/* Merge sort: qsort() breaks ties freely and may allocate. */
static void sort_by_size(const struct buffer *buf, uint32_t *id, uint32_t *tmp, uint32_t n)
{
    if (n < 2)
        return;
    uint32_t half = n / 2, a = 0, b = half;
    sort_by_size(buf, id, tmp, half);
    sort_by_size(buf, id + half, tmp, n - half);
    for (uint32_t i = 0; i < n; i++)
        tmp[i] = b == n || (a < half && goes_before(buf, id[a], id[b])) ? id[a++] : id[b++];
    memcpy(id, tmp, n * sizeof(*id));
}

/* placed[] is ordered by offset. */
static size_t best_gap(const struct buffer *buf, const uint32_t *placed, uint32_t n_placed,
                       const struct buffer *b)
{
    size_t need = padded(b), end = 0, best = SIZE_MAX, best_size = SIZE_MAX;

    for (uint32_t i = 0; i < n_placed; i++) {
        const struct buffer *other = &buf[placed[i]];
        if (!meet(b, other))
            continue;
        if (other->offset > end && other->offset - end >= need && other->offset - end < best_size) {
            best = end;
            best_size = other->offset - end;
        }
        end = MAX(end, other->offset + padded(other));
    }
    return best == SIZE_MAX ? end : best;
}

static void insert(const struct buffer *buf, uint32_t *placed, uint32_t n_placed, uint32_t id)
{
    uint32_t at = n_placed;

    for (; at > 0 && buf[placed[at - 1]].offset > buf[id].offset; at--)
        placed[at] = placed[at - 1];
    placed[at] = id;
}

static size_t one_after_the_other(struct buffer *buf, uint32_t n)
{
    size_t end = 0;

    for (uint32_t i = 0; i < n; i++) {
        buf[i].offset = end;
        end += padded(&buf[i]);
    }
    return end;
}

size_t memory_plan(struct buffer *buf, uint32_t n, struct arena *scratch)
{
    uint32_t *id = ARENA_ARRAY(scratch, uint32_t, n), *placed = ARENA_ARRAY(scratch, uint32_t, n);
    size_t total = 0;

    if (!id || !placed)
        return one_after_the_other(buf, n); /* correct, only large */
    for (uint32_t i = 0; i < n; i++)
        id[i] = i;
    sort_by_size(buf, id, placed, n);
    for (uint32_t i = 0; i < n; i++) {
        struct buffer *b = &buf[id[i]];
        b->offset = best_gap(buf, placed, i, b);
        insert(buf, placed, i, id[i]);
        total = MAX(total, b->offset + padded(b));
    }
    return total;
}
