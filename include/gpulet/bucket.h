/* Batch buckets: the numbers of rows for which a model is compiled.  A run of fewer is one of the
 * next bucket: 1 to 8, 10, 12, 14, 16, 20, …, four to each doubling, and max: what is between two
 * of them runs at most a quarter longer than it must. */
#pragma once

#include <gpulet/base.h>

#define BUCKETS_MAX 37 /* a max_batch that is none of the others included */

static inline uint32_t bucket_rows(uint32_t bucket, uint32_t max_batch)
{
    if (bucket < 8)
        return MIN(bucket + 1, max_batch);
    return bucket >= BUCKETS_MAX - 1 ? max_batch
                                     : MIN((10 + bucket % 4 * 2) << (bucket - 8) / 4, max_batch);
}

static inline uint32_t bucket_of(uint32_t rows, uint32_t max_batch)
{
    uint32_t b = 0;

    while (bucket_rows(b, max_batch) < MIN(rows, max_batch))
        b++;
    return b;
}
