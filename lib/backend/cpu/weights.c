/* Constants on the device: the host's own memory, so a constant whose layout suits is used where
 * it is mapped.  One that the library wants packed is packed once, for all partitions, and the
 * mapped pages it came from are given back: the model is not in memory twice. */
#include "cpu.h"
#include <sys/mman.h>

#define PAGES_MIN 65536 /* below, malloc wastes less than a mapping does */

void *pages_alloc(size_t bytes)
{
    if (bytes < PAGES_MIN) {
        void *p = aligned_alloc(64, align_up(MAX(bytes, 1), 64));
        return p ? memset(p, 0, bytes) : NULL;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void pages_free(void *p, size_t bytes)
{
    if (!p || bytes < PAGES_MIN)
        free(p);
    else
        (void)munmap(p, bytes);
}

static struct weights **bucket_of(struct device *dev, struct hash128 hash)
{
    return &dev->table[hash.lo % WEIGHT_BUCKETS];
}

static struct weights *find(struct device *dev, struct hash128 hash, uint64_t layout)
{
    for (struct weights *w = *bucket_of(dev, hash); w; w = w->next)
        if (hash_eq(w->hash, hash) && w->layout == layout)
            return w;
    return NULL;
}

static struct weights *enter(struct device *dev, const struct constant *c, uint64_t layout)
{
    struct weights *w = calloc(1, sizeof(*w));
    struct weights **bucket = bucket_of(dev, c->hash);

    if (!w)
        return NULL;
    *w = (struct weights){.hash = c->hash, .layout = layout, .refs = 1, .next = *bucket};
    *bucket = w;
    return w;
}

/* Used in place: two models with the same constant map two files, so nothing is shared and the
 * handle only remembers the address. */
int weights_plain(struct device *dev, const struct constant *c, struct weights **ret)
{
    struct weights *w = enter(dev, c, 0);

    if (!w)
        return -ENOMEM;
    w->data = c->t.data;
    *ret = w;
    return 0;
}

int weights_pack(struct device *dev, const struct constant *c, const struct layout *from,
                 const struct layout *to, struct weights **ret)
{
    uint64_t number = layout_number(from, to);
    struct weights *w = find(dev, c->hash, number);

    if (w) {
        w->refs++;
        *ret = w;
        return 0;
    }
    w = enter(dev, c, number);
    if (!w)
        return -ENOMEM;
    w->bytes = to->bytes;
    w->data = w->packed = pages_alloc(w->bytes);
    dev->weights_bytes += w->bytes;
    int r = w->packed ? dn_pack(&dev->dn, from, c->t.data, to, w->packed,
                                c->source == CONST_ARENA ? NULL : pages_drop)
                      : -ENOMEM;
    if (r < 0) {
        weights_put(dev, w);
        return r;
    }
    *ret = w;
    return 0;
}

void weights_put(struct device *dev, struct weights *w)
{
    if (!w || --w->refs > 0)
        return;
    for (struct weights **at = bucket_of(dev, w->hash); *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    pages_free(w->packed, w->bytes);
    dev->weights_bytes -= w->bytes;
    free(w);
    dn_forget(); /* a model leaves */
}

/* Packing needs to know both layouts, so the table's entry finds what is packed already. */
int weights_get(struct device *dev, const struct constant *c, uint64_t layout, struct weights **ret,
                struct err *err)
{
    struct weights *w = layout ? find(dev, c->hash, layout) : NULL;

    if (w) {
        w->refs++;
        *ret = w;
        return 0;
    }
    if (layout)
        return err_set(err, -ENOENT, "no constant is packed in layout %016llx",
                       (unsigned long long)layout);
    int r = weights_plain(dev, c, ret);
    return r < 0 ? err_set(err, r, "out of memory") : 0;
}
