/* Constants on the device, by content: models and partitions that have the same one share it.
 *
 * Pages of device memory are 2 MiB and constants often few bytes, so constants lie one after the
 * other in chunks.  A chunk goes when its last constant does; what left earlier leaves a hole. */
#include "gpu.h"

#define CHUNK_BYTES ((size_t)16 << 20)
#define ALIGN 256

struct chunk {
    struct vmm vmm;
    size_t used;
    uint32_t n; /* constants in it */
    struct chunk *next;
};

struct weights {
    struct hash128 hash;
    size_t bytes;
    CUdeviceptr at;
    uint32_t refs;
    struct chunk *chunk;
    struct weights *next;
};

static struct space *space_of(struct part *p)
{
    return p->capped && !p->dev->info.weights_shared ? &p->capped->space : &p->dev->space;
}

CUdeviceptr weights_at(const struct weights *w)
{
    return w->at;
}

static int chunk_for(struct part *p, struct space *s, size_t bytes, struct chunk **ret,
                     struct err *err)
{
    for (struct chunk *c = s->chunks; c; c = c->next)
        if (c->vmm.bytes - c->used >= bytes) {
            *ret = c;
            return 0;
        }
    struct chunk *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, -ENOMEM, "out of memory");
    int r = vmm_open(p->dev->cu, MAX(bytes, CHUNK_BYTES), &c->vmm, err);
    if (r < 0) {
        free(c);
        return r;
    }
    c->next = s->chunks;
    s->chunks = c;
    *ret = c;
    return 0;
}

static void chunk_drop(struct space *s, struct chunk *c)
{
    struct chunk **at = &s->chunks;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    vmm_close(&c->vmm);
    free(c);
}

/* A new entry with room; data comes next. */
static int enter(struct part *p, struct space *s, size_t bytes, struct weights **ret,
                 struct err *err)
{
    struct weights *w = calloc(1, sizeof(*w));
    size_t room = align_up(MAX(bytes, 1), ALIGN);

    if (!w)
        return err_set(err, -ENOMEM, "out of memory");
    int r = chunk_for(p, s, room, &w->chunk, err);
    if (r < 0) {
        free(w);
        return r;
    }
    w->at = w->chunk->vmm.at + w->chunk->used;
    w->bytes = bytes;
    w->chunk->used += room;
    w->chunk->n++;
    w->refs = 1;
    w->next = s->weights;
    s->weights = w;
    *ret = w;
    return 0;
}

static void drop(struct space *s, struct weights *w)
{
    struct weights **at = &s->weights;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (--w->chunk->n == 0)
        chunk_drop(s, w->chunk);
    free(w);
}

/* On a stream, and waited for: a plain copy from memory that is not pinned may go on when its call
 * is over, and the partition's runs would not wait for it. */
static int upload(struct part *p, const struct weights *w, const void *data, struct err *err)
{
    int r = w->bytes ? GPU(copy_in_async(w->at, data, w->bytes, p->builders), err) : 0;

    return r < 0 ? r : GPU(stream_wait(p->builders), err);
}

struct weights *weights_have(struct part *p, size_t bytes, struct hash128 hash)
{
    struct weights *w = space_of(p)->weights;

    while (w && !(hash_eq(w->hash, hash) && w->bytes == bytes))
        w = w->next;
    if (w)
        w->refs++;
    return w;
}

int weights_in(struct part *p, const void *data, size_t bytes, struct hash128 hash,
               struct weights **ret, struct err *err)
{
    struct space *s = space_of(p);
    struct weights *w = *ret = weights_have(p, bytes, hash);

    if (w)
        return 0;
    int r = enter(p, s, bytes, &w, err);
    if (r == 0 && (r = upload(p, w, data, err)) < 0)
        drop(s, w);
    if (r < 0)
        return r;
    w->hash = hash;
    *ret = w;
    return 0;
}

void weights_out(struct part *p, struct weights *w)
{
    if (w && --w->refs == 0)
        drop(space_of(p), w);
}

void space_done(struct space *s)
{
    assert(!s->weights && !s->chunks);
}
