/* precision = fp16, bf16: which nodes are computed from 16 bits, and which results stay in them.
 *
 * Convolutions and products with constant weights are, by the libraries, which sum in FP32.  A
 * result is kept in 16 bits when such a node reads it, for then it would be rounded anyway;
 * whatever else reads it gets it as FP32, converted once.  For convolutions channels lie last, as
 * the kernels for tensor cores want it: layout and type change in one pass. */
#include "nvlib.h"

#include <kernels/cuda/half.h>
#include <math.h>

#define FP16_MAX 65504.f

enum dtype half_type(const struct build *b)
{
    return b->precision == PRECISION_FP16   ? DT_FP16
           : b->precision == PRECISION_BF16 ? DT_BF16
                                            : DT_FP32;
}

int half_check(const struct part *p, const struct compile_args *args, struct err *err)
{
    const char *name = precision_name(args->precision);

    if (args->precision == PRECISION_FP32)
        return 0;
    if (args->precision != PRECISION_BF16 && args->precision != PRECISION_FP16)
        return err_set(err, -ENOTSUP, "precision '%s': the cuda backend has fp32, fp16 and bf16",
                       name);
    if (args->batch_invariant)
        return err_set(err, -ENOTSUP,
                       "precision '%s': what makes no difference by the batch is in fp32", name);
    if (!p->blas && !p->dnn)
        return err_set(err, -ENOTSUP, "precision '%s': there is neither cuBLASLt nor cuDNN", name);
    return 0;
}

/* ---- which nodes */
static bool half_node(const struct build *b, const struct node *n)
{
    if ((n->op != OP_Conv && n->op != OP_Gemm && n->op != OP_MatMul) ||
        !b->graph->values[n->in[1]].constant)
        return false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!is_f32(in_of(b, n, i)))
            return false;
    return n->op != OP_MatMul || in_of(b, n, 1)->rank >= 2;
}

static bool fits(const struct build *b, const struct constant *c)
{
    const float *x = c->t.data;
    bool good = true;

    for (size_t i = 0; half_type(b) == DT_FP16 && i < c->t.bytes / sizeof(*x) && good; i++)
        good = fabsf(x[i]) <= FP16_MAX;
    return good;
}

enum dtype half_for(const struct build *b, const struct node *n)
{
    if (half_type(b) == DT_FP32 || !half_node(b, n))
        return DT_FP32;
    for (uint32_t i = 1; i < n->n_in; i++)
        if (n->in[i] != VALUE_NONE && b->graph->values[n->in[i]].constant &&
            !fits(b, b->graph->values[n->in[i]].constant))
            return DT_FP32; /* it would be infinite */
    return half_type(b);
}

static bool reads_half(const struct build *b, const struct node *n, uint32_t v)
{
    if (!half_node(b, n))
        return false;
    if (n->n_post > 0 && n->post[0].kind == POST_ADD && n->post[0].value == v)
        return true;
    return n->in[0] == v;
}

bool half_wanted(const struct build *b, uint32_t v)
{
    for (uint32_t i = b->node + 1; i < b->graph->n_nodes; i++)
        if (!b->bound->skip[i] && reads_half(b, &b->graph->nodes[i], v))
            return true;
    return false;
}

/* ---- where a value is in 16 bits */
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
    if (last && t->rank > 2)
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

/* A constant is rounded here, once. */
static int upload(struct build *b, const struct constant *c, bool last, struct ref *ret)
{
    const struct tensor *t = &c->t;
    uint64_t how[] = {half_type(b), last};
    int64_t n = count_of(t), channels = last && t->rank > 2 ? t->dims[1] : 1;
    int64_t inner = channels > 1 ? span(t, 2, t->rank) : 1, each = channels * inner;
    const float *x = t->data;
    uint16_t *y = malloc((size_t)n * sizeof(*y) + 1);

    if (!y)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i % each, to = i - at + at % inner * channels + at / inner;
        y[to] = how[0] == DT_FP16 ? fp16_of(x[i]) : bf16_of(x[i]);
    }
    int r = build_upload(b, y, (size_t)n * sizeof(*y),
                         hash_join(c->hash, hash_bytes(how, sizeof(how))), ret);
    free(y);
    return r;
}

static int half_in(struct build *b, uint32_t v, bool last, struct ref *ret)
{
    const struct constant *c = b->graph->values[v].constant;
    struct ref *at = &b->half[last][v], x;
    int r = 0;

    if (at->kind == REF_NONE && c)
        r = upload(b, c, last, at);
    else if (at->kind == REF_NONE) {
        r = build_in(b, v, &x);
        if (r == 0)
            r = convert(b, value_of(b, v), DT_FP32, false, x, half_type(b), last, at);
    }
    *ret = *at;
    return r;
}

int half_back(struct build *b, uint32_t v, struct ref *ret)
{
    bool last = b->half[true][v].kind != REF_NONE;

    assert(b->half[last][v].kind != REF_NONE);
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
    if (type == DT_FP32)
        return build_out(b, v, ret);
    int r = build_buf(b, (size_t)count_of(value_of(b, v)) * dtype_size(type), ret);
    if (r == 0)
        b->half[last][v] = *ret;
    return r;
}
