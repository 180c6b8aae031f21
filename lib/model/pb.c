/* Protocol-buffer wire format: a key (field number, wire type) and a payload, again and again. */
#include "pb.h"

int pb_varint(struct pb *r, uint64_t *ret)
{
    uint64_t u = 0;

    if (r->p == r->end)
        return 0;
    for (unsigned shift = 0; shift < 64 && r->p < r->end; shift += 7) {
        uint8_t b = *r->p++;
        u |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *ret = u;
            return 1;
        }
    }
    return -EINVAL;
}

static int fixed(struct pb *r, size_t bytes, uint64_t *ret)
{
    if (pb_size(*r) < bytes)
        return -EINVAL;
    *ret = 0;
    memcpy(ret, r->p, bytes); /* little-endian, like us */
    r->p += bytes;
    return 1;
}

int pb_next(struct pb *r, struct pb_field *f)
{
    uint64_t key;
    int more = pb_varint(r, &key);

    if (more <= 0)
        return more;
    if (key >> 3 == 0 || key >> 3 > UINT32_MAX >> 3)
        return -EINVAL;
    *f = (struct pb_field){.num = (uint32_t)(key >> 3), .wire = (enum pb_wire)(key & 7)};
    switch (f->wire) {
    case PB_VARINT:
        return pb_varint(r, &f->u) == 1 ? 1 : -EINVAL;
    case PB_FIXED64:
        return fixed(r, 8, &f->u);
    case PB_FIXED32:
        return fixed(r, 4, &f->u);
    case PB_BYTES:
        if (pb_varint(r, &f->u) != 1 || f->u > pb_size(*r))
            return -EINVAL;
        f->bytes = pb_of(r->p, f->u);
        r->p += f->u;
        return 1;
    }
    return -EINVAL; /* groups: ONNX has none */
}

static int number(struct pb *r, enum pb_wire wire, uint64_t *ret)
{
    if (wire == PB_VARINT || r->p == r->end)
        return pb_varint(r, ret);
    return fixed(r, wire == PB_FIXED32 ? 4 : 8, ret);
}

/* Counting numbers of fixed size needs no look at them: weights stay untouched on the disk. */
static int count_fixed(struct pb s, size_t each, size_t max, size_t *n)
{
    if (pb_size(s) % each != 0)
        return -EINVAL;
    if (pb_size(s) / each > max - *n)
        return -E2BIG;
    *n += pb_size(s) / each;
    return 0;
}

int pb_numbers(const struct pb_field *f, enum pb_wire wire, uint64_t *ret, size_t max, size_t *n)
{
    struct pb r = f->bytes;
    uint64_t u = f->u;
    int more = 1;

    if (f->wire != wire && f->wire != PB_BYTES)
        return -EINVAL;
    if (!ret && f->wire == PB_BYTES && wire != PB_VARINT)
        return count_fixed(r, wire == PB_FIXED32 ? 4 : 8, max, n);
    while (more > 0) {
        if (f->wire == PB_BYTES)
            more = number(&r, wire, &u);
        if (more <= 0)
            break;
        if (*n >= max)
            return -E2BIG;
        if (ret)
            ret[*n] = u;
        ++*n;
        if (f->wire != PB_BYTES)
            break;
    }
    return more < 0 ? more : 0;
}
