/* Bodies through zlib.  The inflated size is not known before: the slab doubles as it fills. */
#include "compress.h"
#include <strings.h>
#include <zlib.h>

#define FIRST_BYTES 65536
#define REPLY_LEVEL 1 /* latency matters more than the last percent */

static const struct {
    const char *name;
    int window; /* zlib's windowBits */
} encodings[] = {
    [ENCODING_IDENTITY] = {"identity", 0},
    [ENCODING_GZIP] = {"gzip", 15 + 16},
    [ENCODING_DEFLATE] = {"deflate", 15},
};

const char *encoding_name(enum encoding e)
{
    return encodings[e].name;
}

static bool name_is(const char *s, size_t n, enum encoding e)
{
    return strlen(encodings[e].name) == n && strncasecmp(s, encodings[e].name, n) == 0;
}

int encoding_of(const char *header, enum encoding *ret, struct err *err)
{
    *ret = ENCODING_IDENTITY;
    if (!header || !*header)
        return 0;
    for (enum encoding e = ENCODING_IDENTITY; e <= ENCODING_DEFLATE; e++)
        if (name_is(header, strlen(header), e)) {
            *ret = e;
            return 0;
        }
    return err_set(err, -EPROTO, "Content-Encoding '%.40s' is not supported, only gzip and deflate",
                   header);
}

/* The q-value of one element of the header, "gzip; q=0.5"; 1 when it has none. */
static double quality(const char *item, size_t n)
{
    const char *semi = memchr(item, ';', n);
    const char *q = semi ? strcasestr(semi, "q=") : NULL;

    return q && q < item + n ? strtod(q + 2, NULL) : 1;
}

enum encoding encoding_accepted(const char *header)
{
    enum encoding best = ENCODING_IDENTITY;
    double best_q = 0;

    while (header && *header) {
        header += strspn(header, " \t,");
        size_t n = strcspn(header, ","), name = strcspn(header, ";, \t");
        double q = quality(header, n);

        for (enum encoding e = ENCODING_GZIP; e <= ENCODING_DEFLATE; e++)
            if (name_is(header, name, e) && q > best_q) {
                best = e;
                best_q = q;
            }
        header += n;
    }
    return best;
}

/* ---- inflating */
struct inflated {
    struct pool *pool;
    struct slab *slab;
    size_t pad, n, room, max;
};

static int grow(struct inflated *f, struct err *err)
{
    size_t room = MIN(f->room ? 2 * f->room : FIRST_BYTES, f->max + 1);
    struct slab *s;

    if (slab_new(f->pool, f->pad + room, &s) < 0)
        return err_set(err, -ENOMEM, "no memory for a body of %zu bytes now", room);
    if (f->slab)
        memcpy((char *)s->data + f->pad, (char *)f->slab->data + f->pad, f->n);
    slab_put(f->slab);
    f->slab = s;
    f->room = room;
    return 0;
}

/* One zlib call into the room that is left; 1 when the stream has ended. */
static int step(struct inflated *f, z_stream *z, struct err *err)
{
    int rc;

    if (f->n == f->room && grow(f, err) < 0)
        return err->code;
    z->next_out = (Bytef *)f->slab->data + f->pad + f->n;
    z->avail_out = (uInt)MIN(f->room - f->n, 1u << 30);
    rc = inflate(z, Z_NO_FLUSH);
    f->n = (size_t)(z->next_out - (Bytef *)f->slab->data) - f->pad;
    if (f->n > f->max)
        return err_set(err, -EFBIG, "the inflated body has more than %zu bytes, the limit", f->max);
    if (rc == Z_STREAM_END)
        return z->avail_in == 0 ? 1 : err_set(err, -EINVAL, "bytes follow the compressed body");
    if (rc == Z_OK && (z->avail_in || z->avail_out == 0))
        return 0;
    if (rc == Z_OK || rc == Z_BUF_ERROR)
        return err_set(err, -EINVAL, "the compressed body ends too early");
    return err_set(err, -EINVAL, "the compressed body is broken: %s", z->msg ? z->msg : "?");
}

int body_inflate(struct pool *pool, enum encoding e, const void *in, size_t n, size_t max,
                 size_t align_at, struct slab **ret, const char **ret_body, size_t *ret_bytes,
                 struct err *err)
{
    struct inflated f = {.pool = pool, .pad = (64 - align_at % 64) % 64, .max = max};
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n};
    int rc;

    if (n > UINT32_MAX)
        return err_set(err, -EFBIG, "a compressed body of %zu bytes is too long", n);
    if (inflateInit2(&z, encodings[e].window) != Z_OK)
        return err_set(err, -ENOMEM, "out of memory");
    do
        rc = step(&f, &z, err);
    while (rc == 0);
    (void)inflateEnd(&z);
    if (rc < 0) {
        slab_put(f.slab);
        return rc;
    }
    *ret = f.slab;
    *ret_body = (char *)f.slab->data + f.pad;
    *ret_bytes = f.n;
    return 0;
}

int text_deflate(enum encoding e, const void *in, size_t n, char **ret, size_t *ret_bytes)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n};
    size_t room;
    char *out;
    int rc;

    if (n > UINT32_MAX || deflateInit2(&z, REPLY_LEVEL, Z_DEFLATED, encodings[e].window, 8,
                                       Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    room = deflateBound(&z, n);
    out = malloc(room);
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)room;
    rc = out ? deflate(&z, Z_FINISH) : Z_MEM_ERROR;
    *ret_bytes = z.total_out;
    (void)deflateEnd(&z);
    if (rc != Z_STREAM_END) {
        free(out);
        return -ENOMEM;
    }
    *ret = out;
    return 0;
}
