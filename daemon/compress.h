/* gzip and deflate (zlib wrapper) of bodies, in both directions. */
#pragma once

#include <gpulet/slab.h>

enum encoding { ENCODING_IDENTITY, ENCODING_GZIP, ENCODING_DEFLATE };

/* Of a Content-Encoding header (NULL: identity); -EPROTO when it is none of ours. */
int encoding_of(const char *header, enum encoding *ret, struct err *err);
/* "gzip", "deflate". */
const char *encoding_name(enum encoding e);
/* What an Accept-Encoding header (or NULL) likes best of what we have, q-values honoured. */
enum encoding encoding_accepted(const char *header);

/* Inflate into a new slab so that byte align_at lies on a 64-byte boundary; the size is bounded
 * while inflating.  -EFBIG over max; -EINVAL: broken, cut short, or bytes behind its end. */
int body_inflate(struct pool *pool, enum encoding e, const void *in, size_t n, size_t max,
                 size_t align_at, struct slab **ret, const char **ret_body, size_t *ret_bytes,
                 struct err *err);
/* Into malloc'ed memory; -ENOMEM. */
int text_deflate(enum encoding e, const void *in, size_t n, char **ret, size_t *ret_bytes);
