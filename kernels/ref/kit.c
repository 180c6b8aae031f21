/* Numbers, walks and arguments for the reference kernels (kit.h). */
#include "kit.h"
#include <math.h>

enum kind ref_kind(enum dtype t)
{
    switch (t) {
    case DT_FP32:
    case DT_FP64:
    case DT_FP16:
    case DT_BF16:
        return KIND_FLOAT;
    case DT_INT8:
    case DT_INT16:
    case DT_INT32:
    case DT_INT64:
        return KIND_INT;
    case DT_UINT8:
    case DT_UINT16:
    case DT_UINT32:
    case DT_UINT64:
        return KIND_UINT;
    case DT_BOOL:
        return KIND_BOOL;
    default:
        return KIND_NONE;
    }
}

/* The two 16-bit formats: sign, exponent, and so many bits of mantissa. */
struct small_float {
    int mantissa, e_min, e_max;
};
static const struct small_float fp16 = {10, -14, 15}, bf16 = {7, -126, 127};

static double small_unpack(uint16_t bits, const struct small_float *s)
{
    int e_all = s->e_max - s->e_min + 2, e = bits >> s->mantissa & ((1 << (15 - s->mantissa)) - 1);
    int m = bits & ((1 << s->mantissa) - 1);
    double v;

    if (e == e_all)
        v = m ? NAN : INFINITY;
    else if (e == 0)
        v = ldexp(m, s->e_min - s->mantissa);
    else
        v = ldexp(m | 1 << s->mantissa, e - 1 + s->e_min - s->mantissa);
    return bits & 0x8000 ? -v : v;
}

/* Round to nearest, ties to even.  The hidden bit and a carry both run into the exponent. */
static uint16_t small_pack(double v, const struct small_float *s)
{
    unsigned sign = signbit(v) ? 0x8000 : 0, inf = (unsigned)(s->e_max - s->e_min + 2)
                                                   << s->mantissa;
    double a = fabs(v);

    if (isnan(v))
        return (uint16_t)(sign | inf | 1u << (s->mantissa - 1));
    if (isinf(v))
        return (uint16_t)(sign | inf);
    int e = a < ldexp(1, s->e_min) ? s->e_min : ilogb(a);
    if (e > s->e_max)
        return (uint16_t)(sign | inf);
    unsigned m = (unsigned)nearbyint(ldexp(a, s->mantissa - e));
    return (uint16_t)(sign | (((unsigned)(e - s->e_min) << s->mantissa) + m));
}

/* A constant in the file of a model may lie at any address. */
#define LOAD(type)                                                                                 \
    ({                                                                                             \
        type v_;                                                                                   \
        memcpy(&v_, d + (size_t)at * sizeof(type), sizeof(type));                                  \
        v_;                                                                                        \
    })
union num num_get(const struct tensor *t, int64_t at)
{
    const char *d = t->data;

    switch (t->dtype) {
    case DT_FP32:
        return (union num){.f = (double)LOAD(float)};
    case DT_FP64:
        return (union num){.f = LOAD(double)};
    case DT_FP16:
        return (union num){.f = small_unpack(LOAD(uint16_t), &fp16)};
    case DT_BF16:
        return (union num){.f = small_unpack(LOAD(uint16_t), &bf16)};
    case DT_INT8:
        return (union num){.i = LOAD(int8_t)};
    case DT_INT16:
        return (union num){.i = LOAD(int16_t)};
    case DT_INT32:
        return (union num){.i = LOAD(int32_t)};
    case DT_INT64:
        return (union num){.i = LOAD(int64_t)};
    case DT_UINT8:
        return (union num){.u = LOAD(uint8_t)};
    case DT_UINT16:
        return (union num){.u = LOAD(uint16_t)};
    case DT_UINT32:
        return (union num){.u = LOAD(uint32_t)};
    case DT_UINT64:
        return (union num){.u = LOAD(uint64_t)};
    case DT_BOOL:
        return (union num){.u = LOAD(uint8_t) != 0};
    default:
        assert(!"a number type");
        return (union num){.u = 0};
    }
}

void num_put(const struct tensor *t, int64_t at, union num v)
{
    void *d = t->data;

    switch (t->dtype) {
    case DT_FP32:
        ((float *)d)[at] = (float)v.f;
        break;
    case DT_FP64:
        ((double *)d)[at] = v.f;
        break;
    case DT_FP16:
        ((uint16_t *)d)[at] = small_pack(v.f, &fp16);
        break;
    case DT_BF16:
        ((uint16_t *)d)[at] = small_pack(v.f, &bf16);
        break;
    case DT_INT8:
    case DT_UINT8:
        ((uint8_t *)d)[at] = (uint8_t)v.u;
        break;
    case DT_INT16:
    case DT_UINT16:
        ((uint16_t *)d)[at] = (uint16_t)v.u;
        break;
    case DT_INT32:
    case DT_UINT32:
        ((uint32_t *)d)[at] = (uint32_t)v.u;
        break;
    case DT_INT64:
    case DT_UINT64:
        ((uint64_t *)d)[at] = v.u;
        break;
    case DT_BOOL:
        ((uint8_t *)d)[at] = v.u != 0;
        break;
    default:
        assert(!"a number type");
    }
}

/* Truncated; what int64 and uint64 cannot hold is clamped (in C it would be undefined). */
static uint64_t integer_of(double v, enum kind to)
{
    if (isnan(v))
        return 0;
    if (to == KIND_UINT && v >= 0)
        return v >= 0x1p64 ? UINT64_MAX : (uint64_t)v;
    if (v >= 0x1p63)
        return INT64_MAX;
    return v < -0x1p63 ? (uint64_t)INT64_MIN : (uint64_t)(int64_t)v;
}

union num num_cast(union num v, enum kind from, enum kind to)
{
    if (to == KIND_BOOL)
        return (union num){.u = from == KIND_FLOAT ? v.f != 0 : v.u != 0};
    if (from == KIND_FLOAT)
        return to == KIND_FLOAT ? v : (union num){.u = integer_of(v.f, to)};
    if (to == KIND_FLOAT)
        return (union num){.f = from == KIND_INT ? (double)v.i : (double)v.u};
    return v;
}

static _Thread_local struct arena_cache *cache;

void ref_lend(struct arena_cache *c)
{
    cache = c;
}

void *ref_scratch(size_t n, size_t each)
{
    size_t bytes;
    void *p = __builtin_mul_overflow(n, each, &bytes) ? NULL : arena_cache_get(cache, bytes);

    return p ? memset(p, 0, bytes) : NULL;
}

void ref_drop(void *p)
{
    arena_cache_put(cache, p);
}

double *ref_doubles(const struct tensor *t)
{
    int64_t n = ref_count(t);
    enum kind k = ref_kind(t->dtype);
    double *d = ref_scratch((size_t)n + 1, sizeof(*d)); /* + 1: never an empty block */

    for (int64_t i = 0; d && i < n; i++)
        d[i] = num_cast(num_get(t, i), k, KIND_FLOAT).f;
    return d;
}

int64_t ref_span(const struct tensor *t, uint32_t from, uint32_t to)
{
    int64_t n = 1;

    for (uint32_t i = from; i < to; i++)
        n *= t->dims[i];
    return n;
}

int64_t ref_count(const struct tensor *t)
{
    return ref_span(t, 0, t->rank);
}

void dense_strides(const struct tensor *t, int64_t ret[MAX_RANK])
{
    int64_t s = 1;

    for (uint32_t i = t->rank; i-- > 0; s *= t->dims[i])
        ret[i] = s;
}

void walk_init(struct walk *w, const struct tensor *shape)
{
    *w = (struct walk){.rank = shape->rank, .n = ref_count(shape)};
    for (uint32_t i = 0; i < shape->rank; i++)
        w->dims[i] = shape->dims[i];
}

void walk_next(struct walk *w)
{
    for (uint32_t i = w->rank; i-- > 0;) {
        for (unsigned k = 0; k < WALK_MAX; k++)
            w->off[k] += w->stride[k][i];
        if (++w->at[i] < w->dims[i])
            return;
        for (unsigned k = 0; k < WALK_MAX; k++)
            w->off[k] -= w->stride[k][i] * w->dims[i];
        w->at[i] = 0;
    }
}

int walk_broadcast(struct walk *w, unsigned k, const struct tensor *t)
{
    int64_t dense[MAX_RANK];
    uint32_t lead = w->rank - t->rank;

    if (t->rank > w->rank)
        return -EINVAL;
    dense_strides(t, dense);
    for (uint32_t i = 0; i < t->rank; i++) {
        if (t->dims[i] != 1 && t->dims[i] != w->dims[lead + i])
            return -EINVAL;
        w->stride[k][lead + i] = t->dims[i] == 1 ? 0 : dense[i];
    }
    return 0;
}

int ref_fail(const struct node *n, struct err *err, int code, const char *what)
{
    return err_set(err, code, "node '%s' (%s): %s", n->name, op_name(n->op), what);
}

int ref_no_type(const struct node *n, enum dtype t, struct err *err)
{
    return err_set(err, -ENOTSUP, "node '%s' (%s): type %s is not supported", n->name,
                   op_name(n->op), dtype_name(t));
}

int ref_floats(const struct node *n, const struct tensor *const *t, uint32_t n_t, struct err *err)
{
    for (uint32_t i = 0; i < n_t; i++)
        if (t[i] && ref_kind(t[i]->dtype) != KIND_FLOAT)
            return ref_no_type(n, t[i]->dtype, err);
    return 0;
}

void ref_copy(void *to, const void *from, size_t bytes)
{
    if (bytes)
        memcpy(to, from, bytes);
}

void ref_put(const struct tensor *to, int64_t at, const struct tensor *from, int64_t from_at,
             int64_t n)
{
    size_t size = dtype_size(to->dtype);

    ref_copy((char *)to->data + (size_t)at * size,
             (const char *)from->data + (size_t)from_at * size, (size_t)n * size);
}

int ref_axis(const struct node *n, int64_t axis, uint32_t limit, uint32_t *ret, struct err *err)
{
    int64_t a = axis < 0 ? axis + limit : axis;

    if (a < 0 || a >= limit)
        return err_set(err, -EINVAL, "node '%s' (%s): axis %lld is outside of %u dimensions",
                       n->name, op_name(n->op), (long long)axis, limit);
    *ret = (uint32_t)a;
    return 0;
}

int ref_ints(const struct node *n, const struct tensor *const *in, uint32_t i, const char *attr,
             int64_t *ret, uint32_t max, uint32_t *ret_n, bool *ret_given, struct err *err)
{
    const struct tensor *t = ref_in(n, in, i);
    uint32_t n_attr;
    const int64_t *ints = node_ints(n, attr, &n_attr);
    int64_t count = t ? ref_count(t) : n_attr;

    *ret_given = t || node_attr(n, attr);
    if (t && t->dtype != DT_INT64 && t->dtype != DT_INT32)
        return ref_no_type(n, t->dtype, err);
    if (count > max)
        return err_set(err, -EINVAL, "node '%s' (%s): %lld values in '%s', at most %u", n->name,
                       op_name(n->op), (long long)count, attr, max);
    for (int64_t k = 0; k < count; k++)
        ret[k] = t ? num_get(t, k).i : ints[k];
    *ret_n = (uint32_t)count;
    return 0;
}

int ref_integer(const struct node *n, const struct tensor *t, int64_t *ret, struct err *err)
{
    if ((t->dtype != DT_INT64 && t->dtype != DT_INT32) || ref_count(t) != 1)
        return ref_fail(n, err, -EINVAL, "an input is not one INT64 or INT32");
    *ret = num_get(t, 0).i;
    return 0;
}

int ref_shaped(const struct node *n, const struct tensor *t, uint32_t rank, const int64_t *dims,
               struct err *err)
{
    char have[96], need[96];

    if (!t || (t->rank == rank && memcmp(t->dims, dims, rank * sizeof(*dims)) == 0))
        return 0;
    return err_set(err, -EINVAL, "node '%s' (%s): a tensor of shape %s, needed is %s", n->name,
                   op_name(n->op), dims_print(t->rank, t->dims, have, sizeof(have)),
                   dims_print(rank, dims, need, sizeof(need)));
}

/* ---- windows */
static void window_auto_pad(struct window *w, const char *mode)
{
    for (unsigned i = 0; i < WINDOW_DIMS; i++) {
        int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
        int64_t total = (w->out[i] - 1) * w->stride[i] + reach - w->in[i];

        if (STREQ(mode, "VALID") || total < 0)
            total = 0;
        w->pad_begin[i] = STREQ(mode, "SAME_LOWER") ? total - total / 2 : total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
    }
}

/* n numbers of an attribute to the end of a three, the rest keeps its default. */
static int window_attr(const struct node *n, const char *name, uint32_t n_dims, uint32_t part,
                       uint32_t parts, int64_t least, int64_t *ret, struct err *err)
{
    uint32_t n_ints;
    const int64_t *ints = node_ints(n, name, &n_ints);

    if (!ints)
        return 0;
    if (n_ints != n_dims * parts)
        return err_set(err, -EINVAL, "node '%s' (%s): '%s' has %u values, not %u", n->name,
                       op_name(n->op), name, n_ints, n_dims * parts);
    for (uint32_t i = 0; i < n_dims; i++) {
        int64_t v = ints[part * n_dims + i];
        if (v < least || v > INT32_MAX)
            return err_set(err, -EINVAL, "node '%s' (%s): '%s' has %lld, at least %lld", n->name,
                           op_name(n->op), name, (long long)v, (long long)least);
        ret[WINDOW_DIMS - n_dims + i] = v;
    }
    return 0;
}

int window_init(struct window *w, const struct node *n, const struct tensor *x,
                const struct tensor *y, const int64_t *kernel, struct err *err)
{
    uint32_t d = x->rank < 2 ? 0 : x->rank - 2;
    const char *mode = node_str(n, "auto_pad", "NOTSET");
    int r;

    if (d < 1 || d > WINDOW_DIMS || y->rank != x->rank)
        return err_set(err, -ENOTSUP, "node '%s' (%s): input of rank %u; 3 to 5 are supported",
                       n->name, op_name(n->op), x->rank);
    *w = (struct window){.n_dims = d};
    for (unsigned i = 0; i < WINDOW_DIMS; i++) {
        int at = (int)i - (int)(WINDOW_DIMS - d);
        w->in[i] = at < 0 ? 1 : x->dims[2 + at];
        w->out[i] = at < 0 ? 1 : y->dims[2 + at];
        w->kernel[i] = at < 0 ? 1 : kernel[at];
        w->stride[i] = w->dilation[i] = 1;
        if (w->kernel[i] < 0 || w->kernel[i] > INT32_MAX)
            return ref_fail(n, err, -EINVAL, "kernel_shape is out of range");
    }
    if ((r = window_attr(n, "strides", d, 0, 1, 1, w->stride, err)) < 0 ||
        (r = window_attr(n, "dilations", d, 0, 1, 1, w->dilation, err)) < 0)
        return r;
    if (!STREQ(mode, "NOTSET")) {
        window_auto_pad(w, mode);
        return 0;
    }
    r = window_attr(n, "pads", d, 0, 2, INT32_MIN, w->pad_begin, err);
    return r < 0 ? r : window_attr(n, "pads", d, 1, 2, INT32_MIN, w->pad_end, err);
}

int64_t window_read(const struct window *w, const int64_t o[WINDOW_DIMS],
                    const int64_t k[WINDOW_DIMS], bool *ret_inside)
{
    int64_t at = 0;
    bool in = true, inside = true;

    for (unsigned i = 0; i < WINDOW_DIMS; i++) {
        int64_t x = o[i] * w->stride[i] + k[i] * w->dilation[i] - w->pad_begin[i];
        in &= x >= 0 && x < w->in[i];
        inside &= x < w->in[i] + w->pad_end[i];
        at = at * w->in[i] + x;
    }
    if (ret_inside)
        *ret_inside = inside;
    return in ? at : -1;
}
