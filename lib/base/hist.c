/* Histograms: values below HIST_SUB have a bucket each; above, every power of two has HIST_SUB. */
#include <gpulet/hist.h>

static unsigned bucket_of(usec_t us)
{
    if (us < HIST_SUB)
        return (unsigned)us;
    unsigned top = 63u - (unsigned)__builtin_clzll(us); /* >= 5 */
    unsigned shift = top - 5;
    unsigned b = (shift + 1) * HIST_SUB + (unsigned)(us >> shift) - HIST_SUB;
    return MIN(b, HIST_BUCKETS - 1);
}

/* The largest value that falls into bucket b. */
static usec_t bucket_bound(unsigned b)
{
    if (b < HIST_SUB)
        return b;
    unsigned shift = b / HIST_SUB - 1;
    return ((usec_t)(HIST_SUB + b % HIST_SUB + 1) << shift) - 1;
}

void hist_add(struct hist *h, usec_t us)
{
    h->bucket[bucket_of(us)]++;
    h->count++;
    h->sum_us += us;
    h->max_us = MAX(h->max_us, us);
}

void hist_merge(struct hist *h, const struct hist *other)
{
    for (unsigned b = 0; b < HIST_BUCKETS; b++)
        h->bucket[b] += other->bucket[b];
    h->count += other->count;
    h->sum_us += other->sum_us;
    h->max_us = MAX(h->max_us, other->max_us);
}

usec_t hist_quantile(const struct hist *h, double q)
{
    uint64_t need = (uint64_t)(q * (double)h->count + 0.999999);
    uint64_t seen = 0;

    if (!h->count)
        return 0;
    for (unsigned b = 0; b < HIST_BUCKETS; b++) {
        seen += h->bucket[b];
        if (seen >= MAX(need, 1))
            return MIN(bucket_bound(b), h->max_us);
    }
    return h->max_us;
}
