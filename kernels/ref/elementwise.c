/* One function per operator on numbers; broadcasting is walk_broadcast()'s. */
#include "kit.h"
#include <math.h>

#define FLOATS (1u << KIND_FLOAT)
#define SIGNED (FLOATS | 1u << KIND_INT)
#define NUMBERS (SIGNED | 1u << KIND_UINT)
#define INTS (1u << KIND_INT | 1u << KIND_UINT)
#define BOOLS (1u << KIND_BOOL)
#define F(x) ((union num){.f = (x)})
#define U(x) ((union num){.u = (x)})

/* ---- one input */
typedef union num (*unary_fn)(enum kind k, union num x, double alpha, double beta);

#define UNARY(name, ...)                                                                           \
    static union num name(enum kind k, union num x, double alpha, double beta)                     \
    {                                                                                              \
        (void)k, (void)alpha, (void)beta;                                                          \
        return __VA_ARGS__;                                                                        \
    }
UNARY(do_abs, k == KIND_FLOAT ? F(fabs(x.f)) : k == KIND_INT && x.i < 0 ? U(0 - x.u) : x)
UNARY(do_neg, k == KIND_FLOAT ? F(-x.f) : U(0 - x.u))
UNARY(do_ceil, F(ceil(x.f)))
UNARY(do_floor, F(floor(x.f)))
UNARY(do_round, F(nearbyint(x.f))) /* ties to even, as ONNX says */
UNARY(do_sqrt, F(sqrt(x.f)))
UNARY(do_exp, F(exp(x.f)))
UNARY(do_log, F(log(x.f)))
UNARY(do_sin, F(sin(x.f)))
UNARY(do_cos, F(cos(x.f)))
UNARY(do_tanh, F(tanh(x.f)))
UNARY(do_erf, F(erf(x.f)))
UNARY(do_sigmoid, F(1 / (1 + exp(-x.f))))
UNARY(do_relu, k == KIND_FLOAT ? F(x.f < 0 ? 0 : x.f) : k == KIND_INT && x.i < 0 ? U(0) : x)
UNARY(do_leaky_relu, F(x.f < 0 ? alpha * x.f : x.f))
UNARY(do_elu, F(x.f < 0 ? alpha * expm1(x.f) : x.f))
UNARY(do_hard_sigmoid, F(fmax(0, fmin(1, alpha *x.f + beta))))
UNARY(do_hard_swish, F(x.f *fmax(0, fmin(1, x.f / 6 + 0.5))))
UNARY(do_softplus, F(x.f > 0 ? x.f + log1p(exp(-x.f)) : log1p(exp(x.f))))
UNARY(do_reciprocal, F(1 / x.f))
UNARY(do_is_nan, U(isnan(x.f)))
UNARY(do_not, U(!x.u))
UNARY(do_bit_not, U(~x.u))
UNARY(do_gelu, F(0.5 * x.f * (1 + erf(x.f * M_SQRT1_2))))
UNARY(do_gelu_tanh,
      F(0.5 * x.f * (1 + tanh(M_2_SQRTPI * M_SQRT1_2 * (x.f + 0.044715 * x.f * x.f * x.f)))))
UNARY(do_silu, F(x.f / (1 + exp(-x.f))))
UNARY(do_clip_float, F(x.f<alpha ? fmin(alpha, beta) : x.f> beta ? beta : x.f))
static union num do_sign(enum kind k, union num x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    if (k == KIND_FLOAT)
        return F(isnan(x.f) ? x.f : (x.f > 0) - (x.f < 0));
    return k == KIND_INT ? (union num){.i = (x.i > 0) - (x.i < 0)} : U(x.u != 0);
}

static const struct unary {
    enum op_id op;
    unary_fn fn;
    unsigned kinds;
    float alpha, beta; /* defaults of the attributes of that name */
} unaries[] = {
    {OP_Abs, do_abs, NUMBERS, 0, 0},
    {OP_Neg, do_neg, SIGNED, 0, 0},
    {OP_Ceil, do_ceil, FLOATS, 0, 0},
    {OP_Floor, do_floor, FLOATS, 0, 0},
    {OP_Round, do_round, FLOATS, 0, 0},
    {OP_Sqrt, do_sqrt, FLOATS, 0, 0},
    {OP_Exp, do_exp, FLOATS, 0, 0},
    {OP_Log, do_log, FLOATS, 0, 0},
    {OP_Sin, do_sin, FLOATS, 0, 0},
    {OP_Cos, do_cos, FLOATS, 0, 0},
    {OP_Tanh, do_tanh, FLOATS, 0, 0},
    {OP_Erf, do_erf, FLOATS, 0, 0},
    {OP_Sigmoid, do_sigmoid, FLOATS, 0, 0},
    {OP_Relu, do_relu, SIGNED, 0, 0},
    {OP_LeakyRelu, do_leaky_relu, FLOATS, 0.01f, 0},
    {OP_Elu, do_elu, FLOATS, 1, 0},
    {OP_HardSigmoid, do_hard_sigmoid, FLOATS, 0.2f, 0.5f},
    {OP_HardSwish, do_hard_swish, FLOATS, 0, 0},
    {OP_Softplus, do_softplus, FLOATS, 0, 0},
    {OP_Reciprocal, do_reciprocal, FLOATS, 0, 0},
    {OP_Sign, do_sign, NUMBERS, 0, 0},
    {OP_IsNaN, do_is_nan, FLOATS, 0, 0},
    {OP_Not, do_not, BOOLS, 0, 0},
    {OP_BitwiseNot, do_bit_not, INTS, 0, 0},
    {OP_Gelu, do_gelu, FLOATS, 0, 0},
};

static void map(unary_fn fn, const struct tensor *x, struct tensor *y, double alpha, double beta)
{
    enum kind k = ref_kind(x->dtype);
    int64_t n = ref_count(y);

    for (int64_t i = 0; i < n; i++)
        num_put(y, i, fn(k, num_get(x, i), alpha, beta));
}

REF_FN(ref_unary)
{
    const struct unary *row = unaries;

    while (row->op != n->op)
        row++;
    unary_fn fn = row->fn;
    if (n->op == OP_Gelu && STREQ(node_str(n, "approximate", "none"), "tanh"))
        fn = do_gelu_tanh;
    if (!(row->kinds & 1u << ref_kind(in[0]->dtype)))
        return ref_no_type(n, in[0]->dtype, err);
    if (ref_count(in[0]) != ref_count(out[0]))
        return ref_fail(n, err, -EINVAL, "input and output differ in size");
    map(fn, in[0], out[0], (double)node_float(n, "alpha", row->alpha),
        (double)node_float(n, "beta", row->beta));
    return 0;
}

/* ---- post steps */
static const unary_fn post_fns[] = {
    [POST_RELU] = do_relu, [POST_CLIP] = do_clip_float,     [POST_GELU] = do_gelu,
    [POST_TANH] = do_tanh, [POST_SIGMOID] = do_sigmoid,     [POST_HARDSWISH] = do_hard_swish,
    [POST_SILU] = do_silu, [POST_GELU_TANH] = do_gelu_tanh,
};

int ref_post(const struct node *n, const struct tensor *const *add, struct tensor *out,
             struct err *err)
{
    int64_t count = ref_count(out);

    if (ref_kind(out->dtype) != KIND_FLOAT)
        return ref_no_type(n, out->dtype, err);
    for (uint32_t p = 0; p < n->n_post; p++) {
        const struct post *post = &n->post[p];

        if (post->kind != POST_ADD) {
            map(post_fns[post->kind], out, out, (double)post->alpha, (double)post->beta);
            continue;
        }
        if (!add || !add[p] || add[p]->dtype != out->dtype || ref_count(add[p]) != count)
            return ref_fail(n, err, -EINVAL, "the added value differs in type or size");
        for (int64_t i = 0; i < count; i++)
            num_put(out, i, F(num_get(out, i).f + num_get(add[p], i).f));
    }
    return 0;
}

/* ---- two inputs, or many */
typedef union num (*binary_fn)(enum kind k, union num a, union num b);

#define BINARY(name, ...)                                                                          \
    static union num name(enum kind k, union num a, union num b)                                   \
    {                                                                                              \
        (void)k;                                                                                   \
        return __VA_ARGS__;                                                                        \
    }
#define COMPARE(name, cmp)                                                                         \
    BINARY(name, U(k == KIND_FLOAT ? a.f cmp b.f : k == KIND_INT ? a.i cmp b.i : a.u cmp b.u))
COMPARE(do_equal, ==)
COMPARE(do_greater, >)
COMPARE(do_greater_or_equal, >=)
COMPARE(do_less, <)
COMPARE(do_less_or_equal, <=)
BINARY(do_and, U(a.u &b.u))
BINARY(do_or, U(a.u | b.u))
BINARY(do_xor, U(a.u ^ b.u))
/* What is shifted out on either side is lost; the left one by num_put(). */
BINARY(do_shift_left, U(b.u < 64 ? a.u << b.u : 0))
BINARY(do_shift_right, U(b.u < 64 ? a.u >> b.u : 0))
BINARY(do_add, k == KIND_FLOAT ? F(a.f + b.f) : U(a.u + b.u))
BINARY(do_sub, k == KIND_FLOAT ? F(a.f - b.f) : U(a.u - b.u))
BINARY(do_mul, k == KIND_FLOAT ? F(a.f * b.f) : U(a.u * b.u))
BINARY(do_prelu, k == KIND_FLOAT            ? F(a.f < 0 ? a.f * b.f : a.f)
                 : k == KIND_INT && a.i < 0 ? U(a.u * b.u)
                                            : a)
/* NaN wins, as in numpy. */
BINARY(do_max, do_less(k, a, b).u || (k == KIND_FLOAT && isnan(b.f)) ? b : a)
BINARY(do_min, do_greater(k, a, b).u || (k == KIND_FLOAT && isnan(b.f)) ? b : a)

static union num do_div(enum kind k, union num a, union num b)
{
    if (k == KIND_FLOAT)
        return F(a.f / b.f);
    if (k == KIND_INT) /* INT64_MIN / -1 would trap */
        return b.i == -1 ? U(0 - a.u) : (union num){.i = a.i / b.i};
    return U(a.u / b.u);
}

/* The sign of the dividend: what fmod = 1 asks for. */
static union num do_fmod(enum kind k, union num a, union num b)
{
    if (k == KIND_FLOAT)
        return F(fmod(a.f, b.f));
    if (k == KIND_INT)
        return b.i == -1 ? U(0) : (union num){.i = a.i % b.i};
    return U(a.u % b.u);
}

/* The sign of the divisor: integers only. */
static union num do_mod(enum kind k, union num a, union num b)
{
    union num r = do_fmod(k, a, b);

    return k == KIND_INT && r.i != 0 && (r.i < 0) != (b.i < 0) ? (union num){.i = r.i + b.i} : r;
}

/* Integers only.  Overflow wraps; a negative power of an integer is truncated. */
static union num do_pow_int(enum kind k, union num a, union num b)
{
    uint64_t r = 1;

    if (k == KIND_INT && b.i < 0)
        return a.i == 1 ? a : a.i == -1 ? (union num){.i = b.i & 1 ? -1 : 1} : U(0);
    for (uint64_t e = b.u, x = a.u; e; e >>= 1, x *= x)
        r *= e & 1 ? x : 1;
    return U(r);
}
BINARY(do_pow, k == KIND_FLOAT ? F(pow(a.f, b.f)) : do_pow_int(k, a, b))

static const struct binary {
    enum op_id op;
    binary_fn fn;
    unsigned kinds;
} binaries[] = {
    {OP_Add, do_add, NUMBERS},
    {OP_Sub, do_sub, NUMBERS},
    {OP_Mul, do_mul, NUMBERS},
    {OP_Div, do_div, NUMBERS},
    {OP_Pow, do_pow, NUMBERS},
    {OP_Mod, do_mod, NUMBERS},
    {OP_PRelu, do_prelu, NUMBERS},
    {OP_Equal, do_equal, NUMBERS | BOOLS},
    {OP_Greater, do_greater, NUMBERS},
    {OP_GreaterOrEqual, do_greater_or_equal, NUMBERS},
    {OP_Less, do_less, NUMBERS},
    {OP_LessOrEqual, do_less_or_equal, NUMBERS},
    {OP_And, do_and, BOOLS},
    {OP_Or, do_or, BOOLS},
    {OP_Xor, do_xor, BOOLS},
    {OP_Max, do_max, NUMBERS},
    {OP_Min, do_min, NUMBERS},
    {OP_Sum, do_add, FLOATS},
    {OP_Mean, do_add, FLOATS},
    {OP_BitwiseAnd, do_and, INTS},
    {OP_BitwiseOr, do_or, INTS},
    {OP_BitwiseXor, do_xor, INTS},
    {OP_BitShift, do_shift_left, 1u << KIND_UINT},
};

static const struct binary *binary_of(enum op_id op)
{
    const struct binary *row = binaries;

    while (row->op != op)
        row++;
    return row;
}

/* y = fn(a, b); a may be y itself. */
static int zip(const struct node *n, binary_fn fn, const struct tensor *a, const struct tensor *b,
               const struct tensor *y, struct err *err)
{
    enum kind k = ref_kind(a->dtype), kb = ref_kind(b->dtype);
    bool divides = k != KIND_FLOAT && (n->op == OP_Div || n->op == OP_Mod);
    bool as_float = n->op == OP_Pow && kb == KIND_FLOAT && k != KIND_FLOAT;
    struct walk w;

    walk_init(&w, y);
    if (walk_broadcast(&w, 0, a) < 0 || walk_broadcast(&w, 1, b) < 0)
        return ref_fail(n, err, -EINVAL, "the inputs do not broadcast to the output");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        union num va = num_get(a, w.off[0]), vb = num_get(b, w.off[1]);
        if (divides && vb.u == 0)
            return ref_fail(n, err, -EINVAL, "division of an integer by zero");
        if (as_float) /* integer to the power of a float: rounded like a cast */
            va = num_cast(F(pow(num_cast(va, k, KIND_FLOAT).f, vb.f)), KIND_FLOAT, k);
        else
            va = fn(k, va, num_cast(vb, kb, k));
        num_put(y, i, va);
    }
    return 0;
}

REF_FN(ref_binary)
{
    const struct binary *row = binary_of(n->op);
    binary_fn fn = n->op == OP_Mod && node_int(n, "fmod", 0) ? do_fmod : row->fn;
    struct tensor second = node_second(n, in[0], in[1]);
    bool right = n->op == OP_BitShift && STREQ(node_str(n, "direction", ""), "RIGHT");

    if (!(row->kinds & 1u << ref_kind(in[0]->dtype)))
        return ref_no_type(n, in[0]->dtype, err);
    if (n->op == OP_Pow ? !(NUMBERS & 1u << ref_kind(in[1]->dtype)) : in[0]->dtype != in[1]->dtype)
        return ref_fail(n, err, -EINVAL, "the inputs have different types");
    if (fn == do_mod && ref_kind(in[0]->dtype) == KIND_FLOAT)
        return ref_fail(n, err, -EINVAL, "floats need fmod=1");
    if (n->op == OP_BitShift && !right && !STREQ(node_str(n, "direction", ""), "LEFT"))
        return ref_fail(n, err, -EINVAL, "its direction is neither LEFT nor RIGHT");
    return zip(n, right ? do_shift_right : fn, in[0], &second, out[0], err);
}

REF_FN(ref_variadic)
{
    const struct binary *row = binary_of(n->op);
    struct walk w;
    int r = 0;

    for (uint32_t i = 0; i < n->n_in; i++)
        if (!in[i] || in[i]->dtype != out[0]->dtype)
            return ref_fail(n, err, -EINVAL, "the inputs have different types");
    if (!(row->kinds & 1u << ref_kind(in[0]->dtype)))
        return ref_no_type(n, in[0]->dtype, err);
    walk_init(&w, out[0]);
    if (walk_broadcast(&w, 0, in[0]) < 0)
        return ref_fail(n, err, -EINVAL, "the inputs do not broadcast to the output");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w))
        num_put(out[0], i, num_get(in[0], w.off[0]));
    for (uint32_t i = 1; i < n->n_in && r == 0; i++)
        r = zip(n, row->fn, out[0], in[i], out[0], err);
    for (int64_t i = 0; i < w.n && r == 0 && n->op == OP_Mean; i++)
        num_put(out[0], i, F(num_get(out[0], i).f / n->n_in));
    return r;
}

/* ---- Clip: attributes before opset 11, scalar inputs since */
REF_FN(ref_clip)
{
    enum kind k = ref_kind(in[0]->dtype);
    const struct tensor *lo = n->opset >= 11 ? ref_in(n, in, 1) : NULL;
    const struct tensor *hi = n->opset >= 11 ? ref_in(n, in, 2) : NULL;
    bool attrs = n->opset < 11;
    int64_t count = ref_count(out[0]);

    if (!(NUMBERS & 1u << k) || (attrs && k != KIND_FLOAT))
        return ref_no_type(n, in[0]->dtype, err);
    if ((lo && (lo->dtype != in[0]->dtype || ref_count(lo) != 1)) ||
        (hi && (hi->dtype != in[0]->dtype || ref_count(hi) != 1)))
        return ref_fail(n, err, -EINVAL, "a bound is not one value of the input's type");
    bool has_lo = lo || (attrs && node_attr(n, "min"));
    bool has_hi = hi || (attrs && node_attr(n, "max"));
    union num vlo = lo ? num_get(lo, 0) : F((double)node_float(n, "min", 0));
    union num vhi = hi ? num_get(hi, 0) : F((double)node_float(n, "max", 0));
    if (ref_count(in[0]) != count)
        return ref_fail(n, err, -EINVAL, "input and output differ in size");
    for (int64_t i = 0; i < count; i++) {
        union num v = num_get(in[0], i);
        if (has_lo && do_less(k, v, vlo).u)
            v = vlo;
        if (has_hi && do_greater(k, v, vhi).u)
            v = vhi;
        num_put(out[0], i, v);
    }
    return 0;
}

/* ---- Dropout when serving: the input, and a mask that keeps all */
REF_FN(ref_dropout)
{
    const struct tensor *training = n->opset >= 12 ? ref_in(n, in, 2) : NULL;
    struct tensor *mask = ref_out(n, out, 1);
    int64_t count = mask ? ref_count(mask) : 0;

    if (training && ref_count(training) == 1 && num_get(training, 0).u)
        return ref_fail(n, err, -ENOTSUP, "training_mode is not supported");
    for (int64_t i = 0; i < count; i++)
        num_put(mask, i, num_cast(U(1), KIND_BOOL, ref_kind(mask->dtype)));
    return ref_same_bytes(n, in, out, err);
}
