/* One number in, one out: unary, binary with broadcasting, where, cast. */
#include "kit.cuh"

#define INV_SQRT2 0.70710678118654752f
#define SQRT_2_PI 0.79788456080286536f /* sqrt(2 / pi) */

DEVICE float unary_float(int op, float x, float alpha, float beta)
{
    switch (op) {
    case GPU_U_abs: return fabsf(x);
    case GPU_U_neg: return -x;
    case GPU_U_ceil: return ceilf(x);
    case GPU_U_floor: return floorf(x);
    case GPU_U_round: return rintf(x);
    case GPU_U_sqrt: return sqrtf(x);
    case GPU_U_exp: return expf(x);
    case GPU_U_log: return logf(x);
    case GPU_U_sin: return sinf(x);
    case GPU_U_cos: return cosf(x);
    case GPU_U_tanh: return tanhf(x);
    case GPU_U_erf: return erff(x);
    case GPU_U_sigmoid: return 1 / (1 + expf(-x));
    case GPU_U_relu: return x < 0 ? 0 : x;
    case GPU_U_leaky_relu: return x < 0 ? alpha * x : x;
    case GPU_U_elu: return x < 0 ? alpha * expm1f(x) : x;
    case GPU_U_hard_sigmoid: return fmaxf(0, fminf(1, alpha * x + beta));
    case GPU_U_hard_swish: return x * fmaxf(0, fminf(1, x / 6 + 0.5f));
    case GPU_U_softplus: return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
    case GPU_U_reciprocal: return 1 / x;
    case GPU_U_sign: return x != x ? x : (x > 0) - (x < 0);
    case GPU_U_gelu: return 0.5f * x * (1 + erff(x * INV_SQRT2));
    case GPU_U_gelu_tanh: return 0.5f * x * (1 + tanhf(SQRT_2_PI * (x + 0.044715f * x * x * x)));
    case GPU_U_silu: return x / (1 + expf(-x));
    case GPU_U_clip: return x < alpha ? fminf(alpha, beta) : x > beta ? beta : x;
    case GPU_U_scale: return x * alpha;
    case GPU_U_selu: return beta * (x < 0 ? alpha * expm1f(x) : x);
    case GPU_U_celu: return fmaxf(0, x) + fminf(0, alpha * expm1f(x / alpha));
    case GPU_U_softsign: return x / (1 + fabsf(x));
    case GPU_U_mish: return x * tanhf(fmaxf(x, 0) + log1pf(expf(-fabsf(x))));
    case GPU_U_thresholded: return x > alpha ? x : 0;
    case GPU_U_shrink: return x < -beta ? x + alpha : x > beta ? x - alpha : 0;
    case GPU_U_swish: return x / (1 + expf(-alpha * x));
    case GPU_U_tan: return tanf(x);
    case GPU_U_sinh: return sinhf(x);
    case GPU_U_cosh: return coshf(x);
    case GPU_U_asin: return asinf(x);
    case GPU_U_acos: return acosf(x);
    case GPU_U_atan: return atanf(x);
    case GPU_U_asinh: return asinhf(x);
    case GPU_U_acosh: return acoshf(x);
    case GPU_U_atanh: return atanhf(x);
    default: return x;
    }
}

/* Activations behind a kernel that has its results in registers and stores 16 bits; -1: none.  Those
 * of a few instructions: the others would double it, and are steps of their own. */
#define ACTIVATION(name, y)                                                                        \
    case GPU_U_##name:                                                                             \
        for (int j = 0; j < N; j++)                                                                \
            x[j] = y;                                                                              \
        break
template <int N> DEVICE void activate(int op, float (&x)[N], float alpha, float beta)
{
    switch (op) {
        ACTIVATION(relu, unary_float(GPU_U_relu, x[j], 0, 0));
        ACTIVATION(clip, unary_float(GPU_U_clip, x[j], alpha, beta));
        ACTIVATION(sigmoid, ratio(1, 1 + expf(-x[j])));
        ACTIVATION(hard_swish, unary_float(GPU_U_hard_swish, x[j], 0, 0));
        ACTIVATION(silu, ratio(x[j], 1 + expf(-x[j])));
    default: break;
    }
}

template <typename T> DEVICE T unary_int(int op, T x)
{
    switch (op) {
    case GPU_U_abs: return x < 0 ? -x : x;
    case GPU_U_neg: return -x;
    case GPU_U_relu: return x < 0 ? 0 : x;
    case GPU_U_sign: return (x > 0) - (x < 0);
    default: return x;
    }
}

KERNEL(unary)
{
    EACH (i, a.n) {
        if (is_float(a.type))
            put_as(a.type, a.y, i, unary_float(a.op, number_as(a.type, a.x, i), a.alpha, a.beta));
        else if (a.type == GPU_S32)
            ((int32_t *)a.y)[i] = unary_int(a.op, ((const int32_t *)a.x)[i]);
        else if (a.type == GPU_S64)
            ((int64_t *)a.y)[i] = unary_int(a.op, ((const int64_t *)a.x)[i]);
        else
            ((uint8_t *)a.y)[i] = !((const uint8_t *)a.x)[i];
    }
}

/* Integers: division by zero is 0 here, as a trap would be the whole process's. */
template <typename T> DEVICE T rest(T x, T y, bool of_dividend)
{
    if (y == 0)
        return 0;
    T r = y == -1 ? 0 : x % y;
    return !of_dividend && r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
DEVICE float rest(float x, float y, bool of_dividend)
{
    float r = fmodf(x, y);
    return !of_dividend && r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
DEVICE float quotient(float x, float y) { return x / y; }
template <typename T> DEVICE T quotient(T x, T y) { return y == 0 ? 0 : y == -1 ? -x : x / y; }
DEVICE float power(float x, float y) { return powf(x, y); }
template <typename T> DEVICE T power(T x, T y) { return (T)pow((double)x, (double)y); }

template <typename T> DEVICE T binary_number(int op, T x, T y)
{
    switch (op) {
    case GPU_B_add: return x + y;
    case GPU_B_sub: return x - y;
    case GPU_B_mul: return x * y;
    case GPU_B_div: return quotient(x, y);
    case GPU_B_pow: return power(x, y);
    case GPU_B_min: return x != x ? x : y < x || y != y ? y : x;
    case GPU_B_max: return x != x ? x : y > x || y != y ? y : x;
    case GPU_B_prelu: return x < 0 ? x * y : x;
    case GPU_B_mod: return rest(x, y, false);
    default: return rest(x, y, true);
    }
}

template <typename T> DEVICE bool binary_truth(int op, T x, T y)
{
    switch (op) {
    case GPU_B_equal: return x == y;
    case GPU_B_less: return x < y;
    case GPU_B_less_equal: return x <= y;
    case GPU_B_greater: return x > y;
    case GPU_B_greater_equal: return x >= y;
    case GPU_B_and: return x != 0 && y != 0;
    case GPU_B_or: return x != 0 || y != 0;
    default: return (x != 0) != (y != 0);
    }
}

template <typename T> DEVICE void binary_one(const binary_args &a, int64_t i)
{
    int64_t p, q;

    at_two(a.walk, i, &p, &q);
    T x = ((const T *)a.a)[p], y = ((const T *)a.b)[q];
    if (a.op >= GPU_B_equal)
        ((uint8_t *)a.y)[i] = binary_truth(a.op, x, y);
    else
        ((T *)a.y)[i] = binary_number(a.op, x, y);
}

DEVICE void binary_half(const binary_args &a, int64_t i)
{
    int64_t p, q;

    at_two(a.walk, i, &p, &q);
    put_as(a.type, a.y, i,
           binary_number(a.op, number_as(a.type, a.a, p), number_as(a.type, a.b, q)));
}

DEVICE void binary_bool(const binary_args &a, int64_t i)
{
    int64_t p, q;

    at_two(a.walk, i, &p, &q);
    ((uint8_t *)a.y)[i] = binary_truth(a.op, ((const uint8_t *)a.a)[p], ((const uint8_t *)a.b)[q]);
}

KERNEL(binary)
{
    EACH (i, a.n) {
        if (a.type == GPU_F32)
            binary_one<float>(a, i);
        else if (a.type == GPU_S32)
            binary_one<int32_t>(a, i);
        else if (a.type == GPU_S64)
            binary_one<int64_t>(a, i);
        else if (is_float(a.type))
            binary_half(a, i);
        else
            binary_bool(a, i);
    }
}

KERNEL(where)
{
    EACH (i, a.n) {
        bool yes = ((const uint8_t *)a.c)[at(a.walk, 0, i)] != 0;
        move(a.y, i, yes ? a.a : a.b, at(a.walk, yes ? 1 : 2, i), a.size);
    }
}

template <typename F> DEVICE void cast_to(const cast_args &a, int64_t i, F x)
{
    switch (a.to) {
    case GPU_F32: ((float *)a.y)[i] = (float)x; break;
    case GPU_U8: ((uint8_t *)a.y)[i] = (uint8_t)(int64_t)x; break;
    case GPU_S8: ((int8_t *)a.y)[i] = (int8_t)(int64_t)x; break;
    case GPU_S32: ((int32_t *)a.y)[i] = (int32_t)(int64_t)x; break;
    case GPU_S64: ((int64_t *)a.y)[i] = (int64_t)x; break;
    default: ((uint8_t *)a.y)[i] = x != 0;
    }
}

KERNEL(cast)
{
    EACH (i, a.n) {
        switch (a.from) {
        case GPU_F32: cast_to(a, i, ((const float *)a.x)[i]); break;
        case GPU_S8: cast_to(a, i, ((const int8_t *)a.x)[i]); break;
        case GPU_S32: cast_to(a, i, ((const int32_t *)a.x)[i]); break;
        case GPU_S64: cast_to(a, i, ((const int64_t *)a.x)[i]); break;
        default: cast_to(a, i, ((const uint8_t *)a.x)[i]);
        }
    }
}
