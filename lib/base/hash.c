/* Content hashes; the one place that includes xxhash. */
#include <gpulet/base.h>
#include <stdio.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct hash128 hash_bytes(const void *data, size_t bytes)
{
    XXH128_hash_t h = XXH3_128bits(data, bytes);

    return (struct hash128){.lo = h.low64, .hi = h.high64};
}

struct hash128 hash_pages(const void *data, size_t bytes)
{
    const char *from = data;
    XXH3_state_t state;

    (void)XXH3_128bits_reset(&state);
    while (bytes > 0) {
        size_t n = MIN(bytes, PAGES_AT_ONCE);
        (void)XXH3_128bits_update(&state, from, n);
        pages_drop(from, n);
        from += n;
        bytes -= n;
    }
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    return (struct hash128){.lo = h.low64, .hi = h.high64};
}

struct hash128 hash_join(struct hash128 a, struct hash128 b)
{
    struct hash128 both[2] = {a, b};

    return hash_bytes(both, sizeof(both));
}

void hash_hex(struct hash128 h, char ret[HASH_HEX_LEN])
{
    (void)snprintf(ret, HASH_HEX_LEN, "%016llx%016llx", (unsigned long long)h.hi,
                   (unsigned long long)h.lo);
}
