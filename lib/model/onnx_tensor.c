/* TensorProto: where the elements of a constant lie.
 *
 * raw_data, a packed float_data or double_data, and external data stay where they are and the
 * tensor points there.  Everything else (numbers as varints, unpacked lists, strings) is
 * converted into the graph's arena.  Data in the file that is not aligned to its element is
 * copied there too if it is small; when it is large the pointer stays misaligned, the passes
 * move it to prepared.bin, and whoever reads it before uses memcpy. */
#include "onnx.h"
#include <stdio.h>

/* Field numbers. */
enum {
    T_DIMS = 1,
    T_TYPE = 2,
    T_SEGMENT = 3,
    T_FLOAT = 4,
    T_INT32 = 5,
    T_STRING = 6,
    T_INT64 = 7,
    T_NAME = 8,
    T_RAW = 9,
    T_DOUBLE = 10,
    T_UINT64 = 11,
    T_EXTERNAL = 13,
    T_LOCATION = 14,
    T_FIELDS
};

static const struct {
    const char *name;
    enum pb_wire wire;
    uint32_t dtypes; /* a bit for each type that may come in this field */
} lists[T_FIELDS] = {
    [T_FLOAT] = {"float_data", PB_FIXED32, 1u << DT_FP32},
    [T_INT32] = {"int32_data", PB_VARINT,
                 1u << DT_INT32 | 1u << DT_INT16 | 1u << DT_INT8 | 1u << DT_UINT16 |
                     1u << DT_UINT8 | 1u << DT_BOOL | 1u << DT_FP16 | 1u << DT_BF16},
    [T_INT64] = {"int64_data", PB_VARINT, 1u << DT_INT64},
    [T_DOUBLE] = {"double_data", PB_FIXED64, 1u << DT_FP64},
    [T_UINT64] = {"uint64_data", PB_VARINT, 1u << DT_UINT32 | 1u << DT_UINT64},
};

struct proto { /* what a first walk over the message finds */
    uint64_t dims[MAX_RANK], dtype, location;
    size_t rank;
    bool has_raw;
    struct pb raw, name, packed; /* packed: the only packed piece of the list */
    uint32_t list;               /* field that holds the elements, 0 for none */
    size_t n_pieces, n_elems;    /* of that list */
    struct pb ext_location, ext_offset, ext_length;
};

static int add_piece(struct reader *r, const struct pb_field *f, const char *what, struct proto *p)
{
    if (p->list && p->list != f->num)
        return err_set(r->err, -EINVAL, "%s: elements in two fields (%u and %u)", what, p->list,
                       f->num);
    p->list = f->num;
    p->packed = f->bytes;
    p->n_pieces++;
    if (f->num == T_STRING) {
        p->n_elems++;
        return f->wire == PB_BYTES ? 0 : onnx_broken(r, what);
    }
    if (pb_numbers(f, lists[f->num].wire, NULL, SIZE_MAX, &p->n_elems) < 0)
        return onnx_broken(r, what);
    return 0;
}

static int add_external(struct reader *r, struct pb entry, const char *what, struct proto *p)
{
    struct pb key = {0}, value = {0};
    struct pb_field f;
    int more;

    while ((more = pb_next(&entry, &f)) > 0) {
        if (f.num == 1)
            key = f.bytes;
        else if (f.num == 2)
            value = f.bytes;
    }
    if (more < 0)
        return onnx_broken(r, what);
    if (pb_is(key, "location"))
        p->ext_location = value;
    else if (pb_is(key, "offset"))
        p->ext_offset = value;
    else if (pb_is(key, "length"))
        p->ext_length = value;
    return 0; /* a checksum, and whatever else there may be, is not looked at */
}

static int add_field(struct reader *r, const struct pb_field *f, const char *what, struct proto *p)
{
    switch (f->num) {
    case T_DIMS: {
        int rc = pb_numbers(f, PB_VARINT, p->dims, MAX_RANK, &p->rank);
        if (rc == -E2BIG)
            return err_set(r->err, -EINVAL, "%s: more than %d dimensions", what, MAX_RANK);
        return rc < 0 ? onnx_broken(r, what) : 0;
    }
    case T_TYPE:
        p->dtype = f->u;
        return 0;
    case T_SEGMENT:
        return err_set(r->err, -ENOTSUP, "%s: segmented tensors are not supported", what);
    case T_NAME:
        p->name = f->bytes;
        return 0;
    case T_RAW:
        p->raw = f->bytes;
        p->has_raw = true;
        return f->wire == PB_BYTES ? 0 : onnx_broken(r, what);
    case T_EXTERNAL:
        return add_external(r, f->bytes, what, p);
    case T_LOCATION:
        p->location = f->u;
        return 0;
    case T_FLOAT:
    case T_INT32:
    case T_STRING:
    case T_INT64:
    case T_DOUBLE:
    case T_UINT64:
        return add_piece(r, f, what, p);
    default:
        return 0;
    }
}

static int take_shape(struct reader *r, const struct proto *p, const char *what, struct tensor *t)
{
    int64_t dims[MAX_RANK];
    char buf[128];

    if (p->dtype >= DT_END || STREQ(dtype_name((enum dtype)p->dtype), "?"))
        return err_set(r->err, p->dtype ? -ENOTSUP : -EINVAL,
                       "%s: element type %llu is not supported", what,
                       (unsigned long long)p->dtype);
    for (size_t i = 0; i < p->rank; i++) {
        dims[i] = (int64_t)p->dims[i];
        if (dims[i] < 0 || dims[i] > MAX_DIM)
            return err_set(r->err, -EINVAL, "%s: dimension %zu is %lld (0 to %lld)", what, i,
                           (long long)dims[i], (long long)MAX_DIM);
    }
    if (tensor_shape(t, (enum dtype)p->dtype, (uint32_t)p->rank, dims) < 0)
        return err_set(r->err, -EINVAL, "%s: shape %s is too large", what,
                       dims_print((uint32_t)p->rank, dims, buf, sizeof(buf)));
    return 0;
}

static int size_error(struct reader *r, const struct tensor *t, const char *what, size_t bytes)
{
    char buf[128];

    return err_set(r->err, -EINVAL, "%s: %zu bytes of data, shape %s of %s needs %zu", what, bytes,
                   dims_print(t->rank, t->dims, buf, sizeof(buf)), dtype_name(t->dtype), t->bytes);
}

/* Arena memory for a tensor that is converted, within the limit for all of them. */
static void *converted(struct reader *r, const char *what, size_t bytes)
{
    if (bytes > MAX_CONVERTED_BYTES - r->converted_bytes) {
        (void)err_set(r->err, -ENOTSUP,
                      "%s: %zu bytes that are not raw_data; a model may have %llu of them", what,
                      bytes, (unsigned long long)MAX_CONVERTED_BYTES);
        return NULL;
    }
    r->converted_bytes += bytes;
    void *p = arena_alloc(&r->g->arena, bytes);
    if (!p)
        (void)err_set(r->err, -ENOMEM, "%s: out of memory", what);
    return p;
}

/* Data that lies in a file as it is needed. */
static int point_at(struct reader *r, const struct mapping *m, const void *data, const char *what,
                    struct read_tensor *ret)
{
    struct tensor *t = &ret->t;
    size_t each = dtype_size(t->dtype);

    ret->source = m->is_file ? CONST_FILE : CONST_ARENA;
    t->data = (void *)data; /* never written: the mapping is read-only */
    bool may_stay = t->bytes > SMALL_COPY_BYTES && r->depth == 0; /* no pass looks into bodies */
    if (t->bytes && ((uintptr_t)data % each == 0 || may_stay))
        return 0;
    void *copy = converted(r, what, t->bytes);
    if (!copy)
        return r->err->code;
    if (t->bytes)
        memcpy(copy, data, t->bytes);
    t->data = copy;
    ret->source = CONST_ARENA;
    return 0;
}

/* Does a number of int32_data fit the type?  Floats come as their bits. */
static bool fits(enum dtype dtype, int64_t v)
{
    switch (dtype) {
    case DT_INT8:
        return v >= INT8_MIN && v <= INT8_MAX;
    case DT_UINT8:
        return v >= 0 && v <= UINT8_MAX;
    case DT_INT16:
        return v >= INT16_MIN && v <= INT16_MAX;
    case DT_UINT16:
    case DT_FP16:
    case DT_BF16:
        return v >= 0 && v <= UINT16_MAX;
    case DT_BOOL:
        return v == 0 || v == 1;
    case DT_INT32:
        return v >= INT32_MIN && v <= INT32_MAX;
    case DT_UINT32:
        return v >= 0 && v <= UINT32_MAX;
    default:
        return true;
    }
}

struct cursor { /* where the elements of a list go */
    uint8_t *p;
    size_t each;
    enum dtype dtype;
};

static bool put(struct cursor *c, uint64_t u)
{
    if (!fits(c->dtype, (int64_t)u))
        return false;
    memcpy(c->p, &u, c->each);
    c->p += c->each;
    return true;
}

static int convert_piece(const struct pb_field *f, struct cursor *c)
{
    enum pb_wire wire = lists[f->num].wire;
    struct pb s = f->bytes;
    uint64_t u;

    if (f->wire != PB_BYTES)
        return put(c, f->u) ? 0 : -ERANGE;
    while (pb_size(s)) {
        /* One element at a time: the first walk has proven that the piece is well formed. */
        struct pb_field one = {.num = f->num, .wire = wire};
        size_t n = 0, width = wire == PB_FIXED32 ? 4 : 8;
        if (wire == PB_VARINT) {
            if (pb_varint(&s, &u) != 1)
                return -EINVAL;
        } else {
            one.wire = PB_BYTES;
            one.bytes = pb_of(s.p, MIN(width, pb_size(s)));
            if (pb_numbers(&one, wire, &u, 1, &n) < 0)
                return -EINVAL;
            s.p += width;
        }
        if (!put(c, u))
            return -ERANGE;
    }
    return 0;
}

static int convert_list(struct reader *r, struct pb msg, const struct proto *p, const char *what,
                        struct read_tensor *ret)
{
    struct cursor c = {.each = dtype_size(ret->t.dtype), .dtype = ret->t.dtype};
    struct pb_field f;

    c.p = converted(r, what, ret->t.bytes);
    if (!c.p)
        return r->err->code;
    ret->t.data = c.p;
    ret->source = CONST_ARENA;
    while (pb_next(&msg, &f) > 0)
        if (f.num == p->list) {
            int rc = convert_piece(&f, &c);
            if (rc < 0)
                return err_set(r->err, -EINVAL, "%s: element %zu in %s is no %s", what,
                               (size_t)(c.p - (uint8_t *)ret->t.data) / c.each, lists[p->list].name,
                               dtype_name(c.dtype));
        }
    return 0;
}

/* Strings in wire form: a uint32 length and that many bytes, one after the other. */
static int convert_strings(struct reader *r, struct pb msg, const char *what,
                           struct read_tensor *ret)
{
    struct pb again = msg;
    struct pb_field f;
    size_t bytes = 0;

    while (pb_next(&msg, &f) > 0)
        if (f.num == T_STRING) {
            if (pb_size(f.bytes) > UINT32_MAX)
                return err_set(r->err, -EINVAL, "%s: a string of %zu bytes", what,
                               pb_size(f.bytes));
            bytes += sizeof(uint32_t) + pb_size(f.bytes);
        }
    uint8_t *p = converted(r, what, bytes);
    if (!p)
        return r->err->code;
    ret->t.data = p;
    ret->t.bytes = bytes;
    ret->source = CONST_ARENA;
    while (pb_next(&again, &f) > 0)
        if (f.num == T_STRING) {
            uint32_t n = (uint32_t)pb_size(f.bytes);
            memcpy(p, &n, sizeof(n));
            memcpy(p + sizeof(n), f.bytes.p, n);
            p += sizeof(n) + n;
        }
    return 0;
}

static int take_list(struct reader *r, struct pb msg, const struct proto *p, const char *what,
                     struct read_tensor *ret)
{
    struct tensor *t = &ret->t;
    int64_t n;

    if (tensor_count(t, &n) < 0 || (uint64_t)n != p->n_elems) {
        char buf[128];
        return err_set(r->err, -EINVAL, "%s: %zu elements of data, shape %s needs %lld", what,
                       p->n_elems, dims_print(t->rank, t->dims, buf, sizeof(buf)), (long long)n);
    }
    if (t->dtype == DT_STRING && (p->list == T_STRING || !p->list))
        return convert_strings(r, msg, what, ret);
    if (!p->list)
        return point_at(r, &r->file, NULL, what, ret); /* no elements at all */
    if (p->list == T_STRING || !(lists[p->list].dtypes & 1u << t->dtype))
        return err_set(r->err, -EINVAL, "%s: elements of %s in %s", what, dtype_name(t->dtype),
                       p->list == T_STRING ? "string_data" : lists[p->list].name);
    if (lists[p->list].wire != PB_VARINT && p->n_pieces == 1)
        if (p->packed.p && pb_size(p->packed) == t->bytes)
            return point_at(r, &r->file, p->packed.p, what, ret);
    return convert_list(r, msg, p, what, ret);
}

static int decimal(struct pb s, uint64_t *ret)
{
    uint64_t n = 0;

    if (pb_size(s) == 0)
        return -EINVAL;
    for (; s.p < s.end; s.p++)
        if (*s.p < '0' || *s.p > '9' || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*s.p - '0'), &n))
            return -EINVAL;
    *ret = n;
    return 0;
}

static int take_external(struct reader *r, const struct proto *p, const char *what,
                         struct read_tensor *ret)
{
    uint64_t offset = 0, length = ret->t.bytes;
    struct mapping m;
    char buf[NAME_PRINT];

    if (ret->t.dtype == DT_STRING)
        return err_set(r->err, -EINVAL, "%s: strings cannot be external data", what);
    if ((p->ext_offset.p && decimal(p->ext_offset, &offset) < 0) ||
        (p->ext_length.p && decimal(p->ext_length, &length) < 0))
        return err_set(r->err, -EINVAL, "%s: offset or length of its external data is no number",
                       what);
    if (length != ret->t.bytes)
        return size_error(r, &ret->t, what, length);
    int rc = onnx_ext(r, p->ext_location, what, &m);
    if (rc < 0)
        return rc;
    if (offset > m.bytes || length > m.bytes - offset)
        return err_set(r->err, -EINVAL,
                       "%s: external data '%s' has %zu bytes, needed are %llu at %llu", what,
                       pb_print(p->ext_location, buf, sizeof(buf)), m.bytes,
                       (unsigned long long)length, (unsigned long long)offset);
    return point_at(r, &m, (const uint8_t *)m.base + offset, what, ret);
}

int onnx_tensor(struct reader *r, struct pb msg, const char *what, struct read_tensor *ret)
{
    struct proto p = {0};
    struct pb walk = msg;
    struct pb_field f;
    int more, rc;

    *ret = (struct read_tensor){0};
    while ((more = pb_next(&walk, &f)) > 0)
        if ((rc = add_field(r, &f, what, &p)) < 0)
            return rc;
    if (more < 0)
        return onnx_broken(r, what);
    if ((rc = take_shape(r, &p, what, &ret->t)) < 0)
        return rc;
    ret->name = p.name;
    if (p.location == 1)
        return take_external(r, &p, what, ret);
    if (p.location != 0)
        return err_set(r->err, -EINVAL, "%s: data location %llu", what,
                       (unsigned long long)p.location);
    if (!p.has_raw)
        return take_list(r, msg, &p, what, ret);
    if (p.list || ret->t.dtype == DT_STRING)
        return err_set(r->err, -EINVAL, "%s: raw_data beside or instead of its own field", what);
    if (pb_size(p.raw) != ret->t.bytes)
        return size_error(r, &ret->t, what, pb_size(p.raw));
    return point_at(r, &r->file, p.raw.p, what, ret);
}
