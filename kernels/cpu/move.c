/* Kernels that only move elements, of any type but strings: they see bytes of 1, 2, 4 or 8. */
#include "kit.h"

/* ---- strided copies: transpose, slice, expand, split, concat */

struct copy {
    struct walk walk; /* 0: to, 1: from */
    size_t size;
    int64_t to, from; /* where they begin, in elements */
};

#define COPY_CASE(size_, T)                                                                        \
    case size_: {                                                                                  \
        T *y = (T *)to + off[0];                                                                   \
        const T *x = (const T *)from + off[1];                                                     \
        if (sx == 0)                                                                               \
            for (int64_t i = 0; i < n; i++)                                                        \
                y[i * sy] = *x;                                                                    \
        else                                                                                       \
            for (int64_t i = 0; i < n; i++)                                                        \
                y[i * sy] = x[i * sx];                                                             \
        break;                                                                                     \
    }

static void copy_row(const struct copy *c, const int64_t *off, const void *from, void *to)
{
    uint32_t in = c->walk.rank - 1;
    int64_t n = c->walk.dims[in], sy = c->walk.stride[0][in], sx = c->walk.stride[1][in];

    if (sx == 1 && sy == 1) {
        memcpy((char *)to + off[0] * (int64_t)c->size,
               (const char *)from + off[1] * (int64_t)c->size, (size_t)n * c->size);
        return;
    }
    switch (c->size) {
        COPY_CASE(1, uint8_t)
        COPY_CASE(2, uint16_t)
        COPY_CASE(4, uint32_t)
        COPY_CASE(8, uint64_t)
    default:
        break;
    }
}

static void copy_piece(const struct copy *whole, const void *from, void *to, uint32_t part,
                       uint32_t n_parts)
{
    struct copy c = *whole;
    int64_t at;

    walk_cut(&c.walk, part, n_parts, &at);
    const char *x = (const char *)from + (c.from + at * c.walk.stride[1][0]) * (int64_t)c.size;
    char *y = (char *)to + (c.to + at * c.walk.stride[0][0]) * (int64_t)c.size;
    WALK_ROWS(&c.walk, off, { copy_row(&c, off, x, y); });
}

/* dims: of what is copied. */
static void copy_make(struct copy *c, const struct tensor *t, uint32_t rank, const int64_t *dims,
                      const int64_t *to, const int64_t *from)
{
    int64_t stride[OPERANDS_MAX][MAX_RANK];

    memcpy(stride[0], to, rank * sizeof(*to));
    memcpy(stride[1], from, rank * sizeof(*from));
    walk_make(&c->walk, rank, dims, 2, (const int64_t(*)[MAX_RANK])stride);
    c->size = dtype_size(t->dtype);
}

struct one_copy {
    struct copy c;
    uint32_t out; /* index of the result in ptr */
};

static int one_copy_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct one_copy *p = params;

    copy_piece(&p->c, ptr[0], ptr[p->out], part, n_parts);
    return 0;
}
PIECES(one_copy)

static int copy_done(const struct cpu_args *a, const struct copy *c, struct cpu_call *ret,
                     struct err *err)
{
    struct one_copy p = {.c = *c, .out = a->node->n_in};

    if (!c->size)
        return plan_type(a, a->in[0]->dtype, err);
    return PLAN_PIECES(a, one_copy, &p, ret, err);
}

int plan_transpose(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *y = a->out[0];
    uint32_t n;
    const int64_t *perm = node_ints(a->node, "perm", &n);
    int64_t own[MAX_RANK], to[MAX_RANK], from[MAX_RANK];
    struct copy c = {.to = 0};

    strides_rows(x->rank, x->dims, own);
    strides_rows(y->rank, y->dims, to);
    for (uint32_t i = 0; i < y->rank; i++)
        from[i] = own[n == y->rank ? (uint32_t)perm[i] : y->rank - 1 - i];
    copy_make(&c, y, y->rank, y->dims, to, from);
    return copy_done(a, &c, ret, err);
}

int plan_expand(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *y = a->out[0];
    int64_t to[MAX_RANK], from[MAX_RANK];
    struct copy c = {.to = 0};

    strides_rows(y->rank, y->dims, to);
    strides_broadcast(a->in[0], y, from);
    copy_make(&c, y, y->rank, y->dims, to, from);
    return copy_done(a, &c, ret, err);
}

int plan_slice(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *y = a->out[0];
    int64_t starts[MAX_RANK], axes[MAX_RANK], steps[MAX_RANK], to[MAX_RANK], from[MAX_RANK];
    uint32_t n, n_axes, n_steps;
    struct copy c = {.to = 0};
    int r = arg_ints(a, 1, "starts", starts, MAX_RANK, &n, err);

    if (r == 0)
        r = arg_ints(a, 3, "axes", axes, MAX_RANK, &n_axes, err);
    if (r == 0)
        r = arg_ints(a, 4, "", steps, MAX_RANK, &n_steps, err);
    if (r < 0)
        return r;
    strides_rows(x->rank, x->dims, from);
    strides_rows(y->rank, y->dims, to);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t axis;
        r = arg_axis(a, i < n_axes ? axes[i] : (int64_t)i, x->rank, &axis, err);
        if (r < 0)
            return r;
        int64_t step = i < n_steps ? steps[i] : 1, dim = x->dims[axis];
        int64_t start = starts[i] < 0 ? starts[i] + dim : starts[i];
        start = MAX(start, 0);
        start = MIN(start, step < 0 ? dim - 1 : dim);
        if (y->dims[axis] > 0)
            c.from += start * from[axis];
        from[axis] *= step;
    }
    copy_make(&c, x, y->rank, y->dims, to, from);
    return copy_done(a, &c, ret, err);
}

/* ---- concat and split: several copies */

struct copies {
    uint32_t n;
    bool split; /* one input, many outputs; else the other way */
    uint32_t n_in;
    struct copy *c;
};

static int copies_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct copies *p = params;

    for (uint32_t i = 0; i < p->n; i++)
        if (p->split ? ptr[p->n_in + i] != NULL : ptr[i] != NULL)
            copy_piece(&p->c[i], ptr[p->split ? 0 : i], ptr[p->split ? p->n_in + i : p->n], part,
                       n_parts);
    return 0;
}
PIECES(copies)

static int plan_copies(const struct cpu_args *a, bool split, uint32_t axis, struct cpu_call *ret,
                       struct err *err)
{
    const struct tensor *whole = split ? a->in[0] : a->out[0];
    const struct tensor *const *part = split ? a->out : a->in;
    struct copies p = {.n = split ? a->node->n_out : a->node->n_in, .split = split};
    int64_t big[MAX_RANK], small[MAX_RANK], at = 0;

    p.n_in = a->node->n_in;
    p.c = ARENA_ARRAY(a->arena, struct copy, p.n);
    if (!p.c)
        return err_set(err, -ENOMEM, "out of memory");
    if (!dtype_size(whole->dtype))
        return plan_type(a, whole->dtype, err);
    strides_rows(whole->rank, whole->dims, big);
    for (uint32_t i = 0; i < p.n; i++) {
        if (!part[i])
            return plan_fail(a, -ENOTSUP, "an omitted part", err);
        strides_rows(part[i]->rank, part[i]->dims, small);
        copy_make(&p.c[i], whole, whole->rank, part[i]->dims, split ? small : big,
                  split ? big : small);
        *(split ? &p.c[i].from : &p.c[i].to) = at * big[axis];
        at += part[i]->dims[axis];
    }
    return PLAN_PIECES(a, copies, &p, ret, err);
}

int plan_concat(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", 1), a->out[0]->rank, &axis, err);

    return r < 0 ? r : plan_copies(a, false, axis, ret, err);
}

int plan_split(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", 0), a->in[0]->rank, &axis, err);

    return r < 0 ? r : plan_copies(a, true, axis, ret, err);
}

/* ---- pad and tile: for each dimension a table says where an index of the result comes from */

struct mapped {
    uint32_t rank, out;
    size_t size;
    int64_t dims[MAX_RANK];
    int64_t *map[MAX_RANK]; /* element offset in the input, or -1: the fill value */
    uint32_t fill_at;       /* index in ptr of the value, 0: none */
    uint64_t fill;
};

#define MAPPED_CASE(size_, T)                                                                      \
    case size_:                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                            \
            ((T *)y)[i] =                                                                          \
                base < 0 || map[i] < 0 ? *(const T *)fill : ((const T *)x)[base + map[i]];         \
        break;

static void mapped_row(const struct mapped *p, int64_t base, const void *x, const void *fill,
                       void *y)
{
    const int64_t *map = p->map[p->rank - 1];
    int64_t n = p->dims[p->rank - 1];

    switch (p->size) {
        MAPPED_CASE(1, uint8_t)
        MAPPED_CASE(2, uint16_t)
        MAPPED_CASE(4, uint32_t)
        MAPPED_CASE(8, uint64_t)
    default:
        break;
    }
}

static int run_mapped(const void *params, void *const *ptr)
{
    const struct mapped *p = params;
    const void *fill = p->fill_at && ptr[p->fill_at] ? ptr[p->fill_at] : &p->fill;
    int64_t at[MAX_RANK] = {0};
    char *y = ptr[p->out];

    for (uint32_t i = 0; i < p->rank; i++)
        if (p->dims[i] == 0)
            return 0;
    for (;;) {
        int64_t base = 0;
        for (uint32_t i = 0; i + 1 < p->rank && base >= 0; i++)
            base = p->map[i][at[i]] < 0 ? -1 : base + p->map[i][at[i]];
        mapped_row(p, base, ptr[0], fill, y);
        y += (size_t)p->dims[p->rank - 1] * p->size;
        uint32_t i = p->rank - 1;
        while (i > 0 && ++at[i - 1] == p->dims[i - 1])
            at[--i] = 0;
        if (i == 0)
            return 0;
    }
}

static int mapped_init(const struct cpu_args *a, struct mapped *p, struct err *err)
{
    const struct tensor *y = a->out[0];

    p->rank = MAX(y->rank, 1);
    p->out = a->node->n_in;
    p->size = dtype_size(y->dtype);
    if (!p->size)
        return plan_type(a, y->dtype, err);
    for (uint32_t i = 0; i < p->rank; i++) {
        p->dims[i] = i < y->rank ? y->dims[i] : 1;
        p->map[i] = ARENA_ARRAY(a->arena, int64_t, (size_t)MAX(p->dims[i], 1));
        if (!p->map[i])
            return err_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP, PAD_MODES };
static const char *const pad_names[] = {"constant", "reflect", "edge", "wrap"};

static int64_t pad_from(enum pad_mode mode, int64_t at, int64_t dim)
{
    if (at >= 0 && at < dim)
        return at;
    switch (mode) {
    case PAD_EDGE:
        return at < 0 ? 0 : dim - 1;
    case PAD_WRAP:
        return (at % dim + dim) % dim;
    case PAD_REFLECT: {
        int64_t period = MAX(2 * (dim - 1), 1), k = (at % period + period) % period;
        return k < dim ? k : period - k;
    }
    case PAD_CONSTANT:
    case PAD_MODES:
        break;
    }
    return -1;
}

static int pad_before(const struct cpu_args *a, int64_t *before, struct err *err)
{
    int64_t pads[2 * MAX_RANK], axes[MAX_RANK];
    uint32_t n, n_axes, rank = a->in[0]->rank;
    const char *name = node_attr(a->node, "paddings") ? "paddings" : "pads"; /* opset 1 */
    int r = arg_ints(a, 1, name, pads, 2 * MAX_RANK, &n, err);

    if (r == 0)
        r = arg_ints(a, 3, "", axes, MAX_RANK, &n_axes, err);
    for (uint32_t i = 0; i < n / 2 && r == 0; i++) {
        uint32_t axis;
        r = arg_axis(a, i < n_axes ? axes[i] : (int64_t)i, rank, &axis, err);
        if (r == 0)
            before[axis] = pads[i];
    }
    return r;
}

int plan_pad(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    const char *name = node_str(a->node, "mode", "constant");
    float value = node_float(a->node, "value", 0);
    int64_t before[MAX_RANK] = {0}, own[MAX_RANK];
    enum pad_mode mode = PAD_CONSTANT;
    struct mapped p = {.fill_at = arg_in(a, 2) ? 2 : 0};

    while (mode < PAD_MODES && !STREQ(pad_names[mode], name))
        mode++;
    if (mode == PAD_MODES)
        return err_set(err, -ENOTSUP, "node '%s' (Pad): mode '%s' is not supported", a->node->name,
                       name);
    int r = mapped_init(a, &p, err);
    if (r == 0)
        r = pad_before(a, before, err);
    if (r < 0)
        return r;
    if (x->dtype == DT_FP32)
        memcpy(&p.fill, &value, sizeof(value));
    else if (value != 0)
        return plan_type(a, x->dtype, err);
    strides_rows(x->rank, x->dims, own);
    for (uint32_t i = 0; i < x->rank; i++)
        for (int64_t k = 0; k < p.dims[i]; k++) {
            int64_t from = x->dims[i] ? pad_from(mode, k - before[i], x->dims[i]) : -1;
            p.map[i][k] = from < 0 ? -1 : from * own[i];
        }
    return plan_done(a, run_mapped, &p, sizeof(p), ret, err);
}

int plan_tile(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    int64_t own[MAX_RANK];
    struct mapped p = {.rank = 0};
    int r = mapped_init(a, &p, err);

    if (r < 0)
        return r;
    strides_rows(x->rank, x->dims, own);
    for (uint32_t i = 0; i < x->rank; i++)
        for (int64_t k = 0; k < p.dims[i]; k++)
            p.map[i][k] = k % x->dims[i] * own[i];
    return plan_done(a, run_mapped, &p, sizeof(p), ret, err);
}

/* ---- gather */

struct gather {
    int64_t outer, limit, n;
    size_t bytes; /* of what one index names */
    bool wide;    /* int64 indices */
};

static int run_gather(const void *params, void *const *ptr)
{
    const struct gather *p = params;
    const char *x = ptr[0];
    char *y = ptr[2];

    for (int64_t o = 0; o < p->outer; o++) {
        for (int64_t i = 0; i < p->n; i++) {
            int64_t at = p->wide ? ((const int64_t *)ptr[1])[i] : ((const int32_t *)ptr[1])[i];
            at = at < 0 ? at + p->limit : at;
            if (at < 0 || at >= p->limit)
                return -EINVAL;
            memcpy(y, x + (size_t)at * p->bytes, p->bytes);
            y += p->bytes;
        }
        x += (size_t)p->limit * p->bytes;
    }
    return 0;
}

int plan_gather(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *at = a->in[1];
    uint32_t axis;
    int r = arg_axis(a, node_int(a->node, "axis", 0), x->rank, &axis, err);

    if (r < 0)
        return r;
    if (!dtype_size(x->dtype))
        return plan_type(a, x->dtype, err);
    if (at->dtype != DT_INT32 && at->dtype != DT_INT64)
        return plan_type(a, at->dtype, err);
    struct gather p = {.outer = span(x, 0, axis), .limit = x->dims[axis], .n = count_of(at)};
    p.bytes = (size_t)span(x, axis + 1, x->rank) * dtype_size(x->dtype);
    p.wide = at->dtype == DT_INT64;
    return plan_done(a, run_gather, &p, sizeof(p), ret, err);
}

/* ---- triangles */

struct trilu {
    int64_t outer, rows, cols;
    size_t size;
    bool upper, has_k;
    uint32_t out;
};

static int run_trilu(const void *params, void *const *ptr)
{
    const struct trilu *p = params;
    int64_t k = p->has_k ? *(const int64_t *)ptr[1] : 0;
    size_t row = (size_t)p->cols * p->size;
    const char *x = ptr[0];
    char *y = ptr[p->out];

    k = MAX(MIN(k, p->cols), -p->rows);
    for (int64_t i = 0; i < p->outer * p->rows; i++, x += row, y += row) {
        int64_t edge = i % p->rows + k + !p->upper; /* first column of the right part */
        size_t left = (size_t)MAX(MIN(edge, p->cols), 0) * p->size;
        memcpy(y, x, row);
        if (p->upper)
            memset(y, 0, left);
        else
            memset(y + left, 0, row - left);
    }
    return 0;
}

int plan_trilu(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];

    if (x->rank < 2 || !dtype_size(x->dtype))
        return plan_type(a, x->dtype, err);
    struct trilu p = {.outer = span(x, 0, x->rank - 2),
                      .rows = x->dims[x->rank - 2],
                      .cols = x->dims[x->rank - 1],
                      .size = dtype_size(x->dtype),
                      .upper = node_int(a->node, "upper", 1) != 0,
                      .has_k = arg_in(a, 1) != NULL,
                      .out = a->node->n_in};
    return plan_done(a, run_trilu, &p, sizeof(p), ret, err);
}

/* ---- what is made of nothing */

struct fill {
    size_t bytes, size;
    uint64_t value;
    uint32_t out;
};

static int run_fill(const void *params, void *const *ptr)
{
    const struct fill *p = params;
    char *y = ptr[p->out];

    for (size_t at = 0; at < p->bytes; at += p->size)
        memcpy(y + at, &p->value, p->size);
    return 0;
}

int plan_fill(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *y = a->out[0];
    const struct attr *v = node_attr(a->node, "value");
    struct fill p = {.bytes = y->bytes, .size = dtype_size(y->dtype), .out = a->node->n_in};

    if (!p.size)
        return plan_type(a, y->dtype, err);
    if (v && v->type == ATTR_TENSOR && v->t->bytes >= p.size)
        memcpy(&p.value, v->t->data, p.size);
    return plan_done(a, run_fill, &p, sizeof(p), ret, err);
}

struct range {
    enum dtype type;
    int64_t n;
};

#define RANGE_CASE(D, T, U)                                                                        \
    case D: {                                                                                      \
        T start = *(const T *)ptr[0], delta = *(const T *)ptr[2], *y = ptr[3];                     \
        for (int64_t i = 0; i < p->n; i++)                                                         \
            y[i] = (T)((U)start + (U)i * (U)delta);                                                \
        break;                                                                                     \
    }

static int run_range(const void *params, void *const *ptr)
{
    const struct range *p = params;

    switch (p->type) {
        CPU_NUMBERS(RANGE_CASE)
    default:
        return -EINVAL;
    }
    return 0;
}

int plan_range(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct range p = {.type = a->out[0]->dtype, .n = count_of(a->out[0])};

#define RANGE_TYPE(D, T, U) || p.type == D
    if (!(false CPU_NUMBERS(RANGE_TYPE)))
        return plan_type(a, p.type, err);
    return plan_done(a, run_range, &p, sizeof(p), ret, err);
}

struct shape {
    uint32_t n;
    int64_t dims[MAX_RANK];
};

static int run_shape(const void *params, void *const *ptr)
{
    const struct shape *p = params;

    memcpy(ptr[1], p->dims, p->n * sizeof(p->dims[0]));
    return 0;
}

/* Shape and Size; nearly always known before anything runs. */
int plan_shape(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    int64_t rank = (int64_t)x->rank, from = node_int(a->node, "start", 0);
    struct shape p = {.n = 1, .dims = {count_of(x)}};

    if (a->node->op == OP_Shape) {
        from = MIN(MAX(from < 0 ? from + rank : from, 0), rank);
        p.n = (uint32_t)count_of(a->out[0]);
        for (uint32_t i = 0; i < p.n && from + i < rank; i++)
            p.dims[i] = x->dims[from + i];
    }
    return plan_done(a, run_shape, &p, sizeof(p), ret, err);
}

/* ---- plain copies */

struct plain {
    size_t bytes, mask_bytes;
    uint32_t out;
};

static int run_plain(const void *params, void *const *ptr)
{
    const struct plain *p = params;

    if (p->bytes)
        memcpy(ptr[p->out], ptr[0], p->bytes);
    if (p->mask_bytes)
        memset(ptr[p->out + 1], 1, p->mask_bytes);
    return 0;
}

int cpu_plan_copy(size_t bytes, struct arena *arena, struct cpu_call *ret)
{
    struct plain p = {.bytes = bytes, .out = 1};

    *ret = (struct cpu_call){.run = run_plain};
    ret->params = arena_memdup(arena, &p, sizeof(p));
    return ret->params ? 0 : -ENOMEM;
}

/* What renames memory, where the backend did not make it an alias; Dropout keeps everything. */
int plan_copy_first(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *mask = arg_out(a, 1);
    struct plain p = {.bytes = a->out[0]->bytes, .out = a->node->n_in};

    p.mask_bytes = mask ? mask->bytes : 0;
    if (!dtype_size(a->out[0]->dtype))
        return plan_type(a, a->out[0]->dtype, err);
    if (mask && mask->dtype != DT_BOOL)
        return plan_type(a, mask->dtype, err);
    return plan_done(a, run_plain, &p, sizeof(p), ret, err);
}
