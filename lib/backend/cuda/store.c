/* Where a value is, and how it is stored there: in FP32, in 16 bits, in 16 bits with channels last,
 * as the kernels for tensor cores want it.  Each is made when it is first asked for; layout and
 * type change in one pass. */
#include "exe.h"

#include <kernels/cuda/half.h>

/* Of other shapes both layouts are the same. */
static bool has_last(const struct tensor *t)
{
    return t->rank > 2 && t->dims[1] != 1 && span(t, 2, t->rank) != 1;
}

bool half_is(const struct build *b, uint32_t v, bool last)
{
    return b->half[last][v].kind != REF_NONE;
}

static void strides_last(const struct tensor *t, int64_t ret[MAX_RANK])
{
    int64_t n = t->dims[1];

    ret[1] = 1;
    for (uint32_t i = t->rank - 1; i > 1; n *= t->dims[i--])
        ret[i] = n;
    ret[0] = n;
}

static void strides_as(const struct tensor *t, bool last, int64_t ret[MAX_RANK])
{
    if (last && has_last(t))
        strides_last(t, ret);
    else
        strides_of(t, ret);
}

static int convert(struct build *b, const struct tensor *t, enum dtype from, bool from_last,
                   struct ref x, enum dtype to, bool to_last, struct ref *ret)
{
    struct half_args a = {.n = count_of(t), .from = (int32_t)from, .to = (int32_t)to};
    int64_t stride[2][MAX_RANK];
    int r = build_buf(b, (size_t)a.n * dtype_size(to), ret);

    strides_as(t, from_last, stride[0]);
    strides_as(t, to_last, stride[1]);
    walk_make(&a.walk, t->rank, t->dims, 2, stride);
    b->exe->n_reorders += a.n > 0;
    return r < 0 ? r : STEP(b, half, a, HOLE(half, x, x), HOLE(half, y, *ret));
}

static uint16_t half_of(const struct build *b, float x)
{
    return half_type(b) == DT_FP16 ? fp16_of(x) : bf16_of(x);
}

/* Samples of so many channels of so many numbers, which become numbers of so many channels. */
static void round_to(const struct build *b, const float *x, int64_t n, int64_t channels,
                     int64_t inner, uint16_t *y)
{
    for (int64_t i = 0; i < n; i += channels * inner)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t k = 0; k < inner; k++)
                y[i + k * channels + c] = half_of(b, *x++);
}

/* A constant is rounded here, when the device does not have it yet. */
static int upload(struct build *b, const struct constant *c, bool last, struct ref *ret)
{
    const struct tensor *t = &c->t;
    uint64_t how[] = {half_type(b), last};
    struct hash128 hash = hash_join(c->hash, hash_bytes(how, sizeof(how)));
    int64_t n = count_of(t);
    size_t bytes = (size_t)n * sizeof(uint16_t);

    if (build_has(b, bytes, hash, ret))
        return 0;
    uint16_t *y = malloc(bytes + 1);
    if (!y)
        return err_set(b->err, -ENOMEM, "out of memory");
    round_to(b, t->data, n, last ? t->dims[1] : 1, last ? span(t, 2, t->rank) : n, y);
    int r = build_upload(b, y, bytes, hash, ret);
    free(y);
    return r;
}

/* As of one sample of so many channels, with channels last. */
int build_filters(struct build *b, uint32_t v, struct ref *ret)
{
    struct constant c = *b->graph->values[v].constant;

    assert(c.t.dims[1] == 1); /* no other way to store it has this hash */
    c.t.dims[1] = c.t.dims[0];
    c.t.dims[0] = 1;
    return upload(b, &c, true, ret);
}

int build_beside(struct build *b, int64_t rows, uint32_t n, const struct beside *part,
                 struct ref *ret)
{
    uint64_t how[] = {half_type(b), (uint64_t)rows};
    struct hash128 hash = hash_bytes(how, sizeof(how));
    int64_t width = 0, i = 0;

    for (uint32_t k = 0; k < n; k++) {
        uint64_t each = (uint64_t)part[k].each;
        hash = hash_join(hash, part[k].c ? part[k].c->hash : hash_bytes(&each, sizeof(each)));
        width += part[k].each;
    }
    size_t bytes = (size_t)(rows * width) * sizeof(uint16_t);
    if (build_has(b, bytes, hash, ret))
        return 0;
    uint16_t *y = malloc(bytes + 1);
    if (!y)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (int64_t row = 0; row < rows; row++)
        for (uint32_t k = 0; k < n; k++) {
            const float *x = part[k].c ? part[k].c->t.data : NULL;
            for (int64_t j = 0; j < part[k].each; j++)
                y[i++] = x ? half_of(b, x[row * part[k].each + j]) : 0;
        }
    int r = build_upload(b, y, bytes, hash, ret);
    free(y);
    return r;
}

static int half_in(struct build *b, uint32_t v, bool last, struct ref *ret)
{
    const struct constant *c = b->graph->values[v].constant;
    const struct tensor *t = value_of(b, v);
    struct ref x;
    int r = 0;

    last = last && has_last(t);
    struct ref *at = &b->half[last][v];
    if (at->kind == REF_NONE && c)
        r = upload(b, c, last, at);
    else if (at->kind == REF_NONE && half_is(b, v, !last))
        r = convert(b, t, half_type(b), !last, b->half[!last][v], half_type(b), last, at);
    else if (at->kind == REF_NONE) {
        r = build_in(b, v, &x);
        if (r == 0)
            r = convert(b, t, DT_FP32, false, x, half_type(b), last, at);
    }
    *ret = *at;
    return r;
}

int half_back(struct build *b, uint32_t v, struct ref *ret)
{
    bool last = half_is(b, v, true);

    assert(half_is(b, v, last));
    return convert(b, value_of(b, v), half_type(b), last, b->half[last][v], DT_FP32, false, ret);
}

void half_forget(struct build *b, uint32_t v)
{
    b->half[false][v] = b->half[true][v] = (struct ref){0};
}

int build_as(struct build *b, uint32_t v, enum dtype type, bool last, struct ref *ret)
{
    *ret = (struct ref){0};
    return v == VALUE_NONE ? 0 : type == DT_FP32 ? build_in(b, v, ret) : half_in(b, v, last, ret);
}

int build_out_as(struct build *b, uint32_t v, enum dtype type, bool last, struct ref *ret)
{
    const struct tensor *t = value_of(b, v);

    if (type == DT_FP32)
        return build_out(b, v, ret);
    int r = build_buf(b, (size_t)count_of(t) * dtype_size(type), ret);
    if (r == 0)
        b->half[last && has_last(t)][v] = *ret;
    return r;
}

/* The same numbers under another name; in 16 bits where they are nowhere else. */
int build_same(struct build *b, uint32_t v, uint32_t as)
{
    const struct tensor *x = value_of(b, v), *y = value_of(b, as);
    bool shape = x->rank == y->rank && memcmp(x->dims, y->dims, x->rank * sizeof(*x->dims)) == 0;
    struct ref ref;
    int r;

    if (b->at[v].kind == REF_NONE && (half_is(b, v, false) || half_is(b, v, true))) {
        if (shape)
            b->half[true][as] = b->half[true][v];
        r = shape && half_is(b, v, true) ? 0 : half_in(b, v, false, &ref);
    } else
        r = build_in(b, v, &ref);
    b->half[false][as] = b->half[false][v];
    b->at[as] = b->at[v];
    return r;
}

void half_stay(struct build *b, uint32_t v)
{
    bool there = b->at[v].kind == REF_NONE && half_wanted(b, v);

    b->last = there && half_is(b, v, true);
    b->store = there ? half_type(b) : DT_FP32;
}

/* ---- as the node at hand stores them */
static bool as_half(const struct build *b, const struct tensor *t)
{
    return b->store != DT_FP32 && t->dtype == DT_FP32;
}

static bool as_last(const struct build *b, const struct tensor *t)
{
    return as_half(b, t) && b->last && t->rank == b->rank;
}

int data_in(struct build *b, uint32_t v, struct ref *ret)
{
    const struct tensor *t = value_of(b, v);

    return as_half(b, t) ? half_in(b, v, as_last(b, t), ret) : build_in(b, v, ret);
}

int data_out(struct build *b, uint32_t v, struct ref *ret)
{
    const struct tensor *t = value_of(b, v);

    return as_half(b, t) ? build_out_as(b, v, b->store, as_last(b, t), ret) : build_out(b, v, ret);
}

int data_any(struct build *b, uint32_t v, struct ref *ret, int64_t stride[MAX_RANK])
{
    const struct tensor *t = value_of(b, v);
    bool last = as_half(b, t) && half_is(b, v, true) && !half_is(b, v, false);

    strides_as(t, last, stride);
    return as_half(b, t) ? half_in(b, v, last, ret) : build_in(b, v, ret);
}

void data_name(struct build *b, uint32_t v, struct ref is)
{
    if (as_half(b, value_of(b, v)))
        b->half[false][v] = is;
    else
        b->at[v] = is;
}

enum dtype data_type(const struct build *b, const struct tensor *t)
{
    return as_half(b, t) ? b->store : t->dtype;
}

void data_bits(const struct build *b, float x, uint64_t *ret)
{
    uint16_t h = half_of(b, x);

    memcpy(ret, b->store == DT_FP32 ? (void *)&x : (void *)&h, dtype_size(b->store));
}

void data_strides(const struct build *b, const struct tensor *t, int64_t ret[MAX_RANK])
{
    strides_as(t, as_last(b, t), ret);
}

void data_broadcast(const struct build *b, const struct tensor *t, const struct tensor *y,
                    int64_t ret[MAX_RANK])
{
    int64_t own[MAX_RANK];

    data_strides(b, t, own);
    broadcast(t, own, y, ret);
}

/* In the order in which the result lies. */
void data_walk(const struct build *b, struct gpu_walk *w, uint32_t rank, const int64_t *dims,
               uint32_t n_operands, int64_t (*stride)[MAX_RANK])
{
    int64_t turned[MAX_RANK], steps[3][MAX_RANK];

    if (b->store == DT_FP32 || !b->last || rank != b->rank || rank < 3) {
        walk_make(w, rank, dims, n_operands, stride);
        return;
    }
    for (uint32_t i = 0; i < rank; i++) {
        uint32_t from = i == 0 ? 0 : i == rank - 1 ? 1 : i + 1;
        turned[i] = dims[from];
        for (uint32_t k = 0; k < n_operands; k++)
            steps[k][i] = stride[k][from];
    }
    walk_make(w, rank, turned, n_operands, steps);
}
