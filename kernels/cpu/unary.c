/* Element-wise kernels of one tensor. */
#include "kit.h"

struct unary {
    int64_t n, size_in, size_out; /* elements, bytes of one */
    float alpha, beta;
    double alpha64, beta64;
    void (*f)(int64_t n, const void *x, void *y, const struct unary *p);
};

/* e^|x| as a square, so that it overflows no earlier than the result. */
static inline __attribute__((always_inline)) float fast_cosh(float x)
{
    float h = fast_exp(0.5f * fabsf(x));

    return 0.5f * h * h + 0.5f / h / h;
}

static inline __attribute__((always_inline)) float fast_sinh(float x)
{
    float a = fabsf(x), h = fast_exp(0.5f * a), t = fast_expm1(a);
    float small = 0.5f * (t + t / (t + 1));
    float y = a < 1 ? small : 0.5f * h * h - 0.5f / h / h;

    return x < 0 ? -y : x != x ? x : y;
}

/* x tanh(log(1 + e^x)): with e = e^x, tanh is (e^2 + 2e) / (e^2 + 2e + 2), and 1 from 20 on. */
static inline __attribute__((always_inline)) float fast_mish(float x)
{
    float e = fast_exp(x > 20 ? 20 : x), n = e * (e + 2);

    return x * (n / (n + 2));
}

#define LOOP(name, T, R, expr)                                                                     \
    VECTOR(name, (int64_t n, const void *x_, void *y_, const struct unary *p), (n, x_, y_, p))     \
    {                                                                                              \
        const T *xs = x_;                                                                          \
        R *ys = y_;                                                                                \
        (void)p;                                                                                   \
        SIMD for (int64_t i = 0; i < n; i++)                                                       \
        {                                                                                          \
            T x = xs[i];                                                                           \
            ys[i] = (R)(expr);                                                                     \
        }                                                                                          \
    }

LOOP(abs32, float, float, fabsf(x))
LOOP(ceil32, float, float, ceilf(x))
LOOP(floor32, float, float, floorf(x))
LOOP(round32, float, float, rintf(x))
LOOP(neg32, float, float, -x)
LOOP(sign32, float, float, x > 0 ? 1.0f : x < 0 ? -1.0f : x)
LOOP(recip32, float, float, 1 / x)
LOOP(sqrt32, float, float, sqrtf(x))
LOOP(relu32, float, float, x < 0 ? 0 : x)
LOOP(leaky32, float, float, x < 0 ? x * p->alpha : x)
LOOP(clip32, float, float, x<p->alpha ? p->alpha : x> p->beta ? p->beta : x)
LOOP(exp32, float, float, fast_exp(x))
LOOP(sigmoid32, float, float, fast_sigmoid(x))
LOOP(tanh32, float, float, fast_tanh(x))
LOOP(erf32, float, float, fast_erf(x))
LOOP(gelu32, float, float, fast_gelu(x))
/* (1 + tanh u) / 2 is the sigmoid of 2u. */
LOOP(gelu_tanh32, float, float, x *fast_sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x)))
LOOP(silu32, float, float, x *fast_sigmoid(x))
LOOP(hard_sigmoid32, float, float, fminf(1, fmaxf(0, x * p->alpha + p->beta)))
LOOP(hard_swish32, float, float, x *fminf(1, fmaxf(0, x *(1.0f / 6) + 0.5f)))
LOOP(elu32, float, float, x < 0 ? p->alpha * expm1f(x) : x)
LOOP(softplus32, float, float, x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x)))
LOOP(log32, float, float, logf(x))
LOOP(sin32, float, float, sinf(x))
LOOP(cos32, float, float, cosf(x))
LOOP(isnan32, float, uint8_t, x != x)
LOOP(acos32, float, float, acosf(x))
LOOP(acosh32, float, float, acoshf(x))
LOOP(asin32, float, float, asinf(x))
LOOP(asinh32, float, float, asinhf(x))
LOOP(atan32, float, float, atanf(x))
LOOP(atanh32, float, float, atanhf(x))
LOOP(tan32, float, float, tanf(x))
LOOP(celu32, float, float, x < 0 ? p->alpha * fast_expm1(x / p->alpha) : x)
LOOP(cosh32, float, float, fast_cosh(x))
LOOP(isinf32, float, uint8_t, (x == INFINITY && p->beta != 0) | (x == -INFINITY && p->alpha != 0))
LOOP(mish32, float, float, fast_mish(x))
LOOP(selu32, float, float, p->beta *(x > 0 ? x : p->alpha * fast_expm1(x)))
LOOP(shrink32, float, float, x<-p->beta ? x + p->alpha : x> p->beta ? x - p->alpha : x != x ? x : 0)
LOOP(sinh32, float, float, fast_sinh(x))
LOOP(softsign32, float, float, x / (1 + fabsf(x)))
LOOP(swish32, float, float, x *fast_sigmoid(p->alpha *x))
LOOP(thresholded32, float, float, x > p->alpha || x != x ? x : 0)

LOOP(abs64, double, double, fabs(x))
LOOP(ceil64, double, double, ceil(x))
LOOP(floor64, double, double, floor(x))
LOOP(round64, double, double, rint(x))
LOOP(neg64, double, double, -x)
LOOP(sign64, double, double, x > 0 ? 1.0 : x < 0 ? -1.0 : x)
LOOP(recip64, double, double, 1 / x)
LOOP(sqrt64, double, double, sqrt(x))
LOOP(relu64, double, double, x < 0 ? 0 : x)
LOOP(leaky64, double, double, x < 0 ? x * (double)p->alpha : x)
LOOP(clip64, double, double, x<p->alpha64 ? p->alpha64 : x> p->beta64 ? p->beta64 : x)
LOOP(exp64, double, double, exp(x))
LOOP(sigmoid64, double, double, 1 / (1 + exp(-x)))
LOOP(tanh64, double, double, tanh(x))
LOOP(erf64, double, double, erf(x))
LOOP(gelu64, double, double, 0.5 * x * (1 + erf(x * 0.70710678118654752)))
LOOP(gelu_tanh64, double, double,
     0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))))
LOOP(hard_sigmoid64, double, double, fmin(1, fmax(0, x *(double)p->alpha + (double)p->beta)))
LOOP(hard_swish64, double, double, x *fmin(1, fmax(0, x *(1.0 / 6) + 0.5)))
LOOP(elu64, double, double, x < 0 ? (double)p->alpha * expm1(x) : x)
LOOP(softplus64, double, double, x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)))
LOOP(log64, double, double, log(x))
LOOP(sin64, double, double, sin(x))
LOOP(cos64, double, double, cos(x))
LOOP(isnan64, double, uint8_t, x != x)
LOOP(acos64, double, double, acos(x))
LOOP(acosh64, double, double, acosh(x))
LOOP(asin64, double, double, asin(x))
LOOP(asinh64, double, double, asinh(x))
LOOP(atan64, double, double, atan(x))
LOOP(atanh64, double, double, atanh(x))
LOOP(tan64, double, double, tan(x))
LOOP(celu64, double, double, x < 0 ? p->alpha64 * expm1(x / p->alpha64) : x)
LOOP(cosh64, double, double, cosh(x))
LOOP(isinf64, double, uint8_t,
     (x == (double)INFINITY && p->beta != 0) | (x == -(double)INFINITY && p->alpha != 0))
LOOP(mish64, double, double, x *tanh(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x))))
LOOP(selu64, double, double, p->beta64 *(x > 0 ? x : p->alpha64 * expm1(x)))
LOOP(shrink64, double, double,
     x<-p->beta64 ? x + p->alpha64 : x> p->beta64 ? x - p->alpha64
     : x != x                                     ? x
                                                  : 0)
LOOP(sinh64, double, double, sinh(x))
LOOP(softsign64, double, double, x / (1 + fabs(x)))
LOOP(swish64, double, double, x / (1 + exp(-p->alpha64 * x)))
LOOP(thresholded64, double, double, x > p->alpha64 || x != x ? x : 0)

LOOP(not8, uint8_t, uint8_t, !x)

#define INT_LOOPS(D, T, U)                                                                         \
    LOOP(abs_##D, T, T, x < (T)1 ? (U)0 - (U)x : (U)x)                                             \
    LOOP(neg_##D, T, T, (U)0 - (U)x)                                                               \
    LOOP(sign_##D, T, T, x > 0 ? 1 : x != 0 ? -1 : 0)                                              \
    LOOP(relu_##D, T, T, x < (T)1 ? 0 : x)                                                         \
    LOOP(not_##D, T, T, ~x)
CPU_INTS(INT_LOOPS)

typedef void (*unary_fn)(int64_t, const void *, void *, const struct unary *);

#define BOTH(op, f)                                                                                \
    {OP_##op, DT_FP32, {f##32_base, f##32_wide}},                                                  \
    {                                                                                              \
        OP_##op, DT_FP64,                                                                          \
        {                                                                                          \
            f##64_base, f##64_wide                                                                 \
        }                                                                                          \
    }
#define INT_ROWS(D, T, U)                                                                          \
    {OP_Abs, D, {abs_##D##_base, abs_##D##_wide}}, {OP_Neg, D, {neg_##D##_base, neg_##D##_wide}},  \
        {OP_Sign, D, {sign_##D##_base, sign_##D##_wide}},                                          \
        {OP_Relu, D, {relu_##D##_base, relu_##D##_wide}},                                          \
        {OP_BitwiseNot, D, {not_##D##_base, not_##D##_wide}},
static const struct {
    enum op_id op;
    enum dtype type;
    unary_fn f[2]; /* base, wide */
} rows[] = {BOTH(Abs, abs),
            BOTH(Ceil, ceil),
            BOTH(Floor, floor),
            BOTH(Round, round),
            BOTH(Neg, neg),
            BOTH(Sign, sign),
            BOTH(Reciprocal, recip),
            BOTH(Sqrt, sqrt),
            BOTH(Relu, relu),
            BOTH(LeakyRelu, leaky),
            BOTH(Clip, clip),
            BOTH(Exp, exp),
            BOTH(Sigmoid, sigmoid),
            BOTH(Tanh, tanh),
            BOTH(Erf, erf),
            BOTH(Gelu, gelu),
            BOTH(HardSigmoid, hard_sigmoid),
            BOTH(HardSwish, hard_swish),
            BOTH(Elu, elu),
            BOTH(Softplus, softplus),
            BOTH(Log, log),
            BOTH(Sin, sin),
            BOTH(Cos, cos),
            BOTH(IsNaN, isnan),
            BOTH(Acos, acos),
            BOTH(Acosh, acosh),
            BOTH(Asin, asin),
            BOTH(Asinh, asinh),
            BOTH(Atan, atan),
            BOTH(Atanh, atanh),
            BOTH(Celu, celu),
            BOTH(Cosh, cosh),
            BOTH(IsInf, isinf),
            BOTH(Mish, mish),
            BOTH(Selu, selu),
            BOTH(Shrink, shrink),
            BOTH(Sinh, sinh),
            BOTH(Softsign, softsign),
            BOTH(Swish, swish),
            BOTH(Tan, tan),
            BOTH(ThresholdedRelu, thresholded),
            {OP_Not, DT_BOOL, {not8_base, not8_wide}},
            CPU_INTS(INT_ROWS)};

static int unary_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    const struct unary *p = params;
    int64_t from = piece_from(p->n, part, n_parts);

    p->f(piece_from(p->n, part + 1, n_parts) - from, (const char *)ptr[0] + from * p->size_in,
         (char *)ptr[1] + from * p->size_out, p);
    return 0;
}
PIECES(unary)

/* Clip's limits may be inputs, and may be computed while the model runs. */
struct clip {
    struct unary u;
    enum dtype type;
    uint32_t n_in;
};

#define CLIP_CASE(D, T, U)                                                                         \
    case D: {                                                                                      \
        const T *x = ptr[0], *lo = c->n_in > 1 ? ptr[1] : NULL, *hi = c->n_in > 2 ? ptr[2] : NULL; \
        T *y = ptr[c->n_in];                                                                       \
        for (int64_t i = 0; i < c->u.n; i++) {                                                     \
            T v = x[i];                                                                            \
            v = lo && v < *lo ? *lo : v;                                                           \
            y[i] = hi && v > *hi ? *hi : v;                                                        \
        }                                                                                          \
        break;                                                                                     \
    }

static int run_clip(const void *params, void *const *ptr)
{
    const struct clip *c = params;

    switch (c->type) {
        CPU_NUMBERS(CLIP_CASE)
    default:
        return -EINVAL;
    }
    return 0;
}

static int plan_clip(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct clip c = {.u.n = count_of(a->in[0]), .type = a->in[0]->dtype, .n_in = a->node->n_in};

#define CLIP_TYPE(D, T, U) || c.type == D
    if (!(false CPU_NUMBERS(CLIP_TYPE)))
        return plan_type(a, c.type, err);
    return plan_done(a, run_clip, &c, sizeof(c), ret, err);
}

/* Selu's constants had four digits before opset 6. */
static void constants(const struct node *n, struct unary *p)
{
    bool old = n->opset < 6;

    switch (n->op) {
    case OP_LeakyRelu:
        p->alpha = node_float(n, "alpha", 0.01f);
        break;
    case OP_HardSigmoid:
        p->alpha = node_float(n, "alpha", 0.2f);
        p->beta = node_float(n, "beta", 0.5f);
        break;
    case OP_Elu:
    case OP_Celu:
    case OP_Swish:
    case OP_ThresholdedRelu:
        p->alpha = node_float(n, "alpha", 1);
        break;
    case OP_Selu:
        p->alpha = node_float(n, "alpha", old ? 1.6732f : 1.67326319217681884765625f);
        p->beta = node_float(n, "gamma", old ? 1.0507f : 1.05070102214813232421875f);
        break;
    case OP_Shrink:
        p->alpha = node_float(n, "bias", 0);
        p->beta = node_float(n, "lambd", 0.5f);
        break;
    case OP_IsInf:
        p->alpha = (float)node_int(n, "detect_negative", 1);
        p->beta = (float)node_int(n, "detect_positive", 1);
        break;
    default:
        p->alpha = node_float(n, "min", -INFINITY);
        p->beta = node_float(n, "max", INFINITY);
        break;
    }
    p->alpha64 = (double)p->alpha;
    p->beta64 = (double)p->beta;
}

/* Clip with limits known now, as the float kernels want them. */
static bool clip_known(const struct cpu_args *a, struct unary *p)
{
    const struct tensor *lo = arg_in(a, 1), *hi = arg_in(a, 2);

    if (a->in[0]->dtype != DT_FP32 || (lo && !lo->data) || (hi && !hi->data))
        return false;
    if (lo)
        p->alpha = *(const float *)lo->data;
    if (hi)
        p->beta = *(const float *)hi->data;
    return p->alpha <= p->beta;
}

static int run_unary_behind(const void *params, void *const *ptr)
{
    const struct clip *c = params;

    c->u.f(c->u.n, ptr[0], ptr[c->n_in], &c->u);
    return 0;
}

int plan_unary(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    struct clip c = {.u.n = count_of(a->in[0]),
                     .u.size_in = (int64_t)dtype_size(a->in[0]->dtype),
                     .u.size_out = (int64_t)dtype_size(a->out[0]->dtype),
                     .n_in = n->n_in};

    constants(n, &c.u);
    if (n->op == OP_Clip && n->n_in > 1 && !clip_known(a, &c.u))
        return plan_clip(a, ret, err);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].op == n->op && rows[i].type == a->in[0]->dtype)
            c.u.f = rows[i].f[cpu_is_wide()];
    if (!c.u.f)
        return n->op == OP_Clip ? plan_clip(a, ret, err) : plan_type(a, a->in[0]->dtype, err);
    if (n->op == OP_Gelu && STREQ(node_str(n, "approximate", "none"), "tanh"))
        c.u.f = a->in[0]->dtype == DT_FP32 ? PICK(gelu_tanh32) : PICK(gelu_tanh64);
    if (n->n_in == 1)
        return PLAN_PIECES(a, unary, &c.u, ret, err);
    return plan_done(a, run_unary_behind, &c, sizeof(c), ret, err);
}

/* ---- post steps */

VECTOR(add_to, (int64_t n, float *y, const float *x), (n, y, x))
{
    SIMD for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static int run_post(const void *params, void *const *ptr)
{
    const struct unary *p = params;

    p->f(p->n, ptr[0], ptr[0], p);
    return 0;
}

static int run_post_add(const void *params, void *const *ptr)
{
    int64_t n = *(const int64_t *)params;

    if (cpu_is_wide())
        add_to_wide(n, ptr[0], ptr[1]);
    else
        add_to_base(n, ptr[0], ptr[1]);
    return 0;
}

int cpu_plan_post(const struct post *p, const struct tensor *y, struct arena *arena,
                  struct cpu_call *ret)
{
    int64_t n = count_of(y);
    struct unary u = {.n = n, .alpha = p->alpha, .beta = p->beta};

    if (y->dtype != DT_FP32)
        return plan_plain_post(p, y, arena, ret);
    *ret = (struct cpu_call){.run = run_post};
    switch (p->kind) {
    case POST_ADD:
        *ret = (struct cpu_call){.run = run_post_add};
        ret->params = arena_memdup(arena, &n, sizeof(n));
        return ret->params ? 0 : -ENOMEM;
    case POST_RELU:
        u.f = PICK(relu32);
        break;
    case POST_CLIP:
        u.f = PICK(clip32);
        break;
    case POST_GELU:
        u.f = PICK(gelu32);
        break;
    case POST_TANH:
        u.f = PICK(tanh32);
        break;
    case POST_SIGMOID:
        u.f = PICK(sigmoid32);
        break;
    case POST_HARDSWISH:
        u.f = PICK(hard_swish32);
        break;
    case POST_SILU:
        u.f = PICK(silu32);
        break;
    case POST_GELU_TANH:
        u.f = PICK(gelu_tanh32);
        break;
    }
    ret->params = arena_memdup(arena, &u, sizeof(u));
    return ret->params ? 0 : -ENOMEM;
}
