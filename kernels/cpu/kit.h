/* What the CPU kernels share.  Internal to kernels/cpu. */
#pragma once

#include "cpu.h"
#include <math.h>

/* ---- one source, two instruction sets
 *
 * VECTOR(static void f, (int n, float *x), (n, x)) { … } defines the pair f_wide and f_base, the
 * former for AVX2 with FMA.  PICK(f) is the one for this machine, chosen when a node is planned. */
#if defined(__x86_64__)
#define CPU_WIDE __attribute__((target("avx2,fma")))
static inline bool cpu_is_wide(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
#define CPU_WIDE
static inline bool cpu_is_wide(void)
{
    return false;
}
#endif
#define VECTOR(name, params, args)                                                                 \
    static inline __attribute__((always_inline)) void name##_body params;                          \
    CPU_WIDE static void name##_wide params                                                        \
    {                                                                                              \
        name##_body args;                                                                          \
    }                                                                                              \
    static void name##_base params                                                                 \
    {                                                                                              \
        name##_body args;                                                                          \
    }                                                                                              \
    static inline __attribute__((always_inline)) void name##_body params
#define PICK(name) (cpu_is_wide() ? name##_wide : name##_base)
/* A third for AVX-512: VECTOR_WIDEST, PICK_WIDEST.  For loops whose time is not that of memory. */
#if defined(__x86_64__)
#define CPU_WIDEST __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")))
static inline bool cpu_is_widest(void)
{
    return cpu_is_wide() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}
#else
#define CPU_WIDEST
static inline bool cpu_is_widest(void)
{
    return false;
}
#endif
#define VECTOR_WIDEST(name, params, args)                                                          \
    static inline __attribute__((always_inline)) void name##_body params;                          \
    CPU_WIDEST static void name##_widest params                                                    \
    {                                                                                              \
        name##_body args;                                                                          \
    }                                                                                              \
    VECTOR(name, params, args)
#define PICK_WIDEST(name) (cpu_is_widest() ? name##_widest : PICK(name))
#define SIMD _Pragma("omp simd")
#define SIMD_SUM(v) _Pragma(SIMD_STR(omp simd reduction(+ : v)))
#define SIMD_MAX(v) _Pragma(SIMD_STR(omp simd reduction(max : v)))
#define SIMD_STR(x) #x

/* One text for signed and unsigned types compares what is never below zero with zero. */
#pragma GCC diagnostic ignored "-Wtype-limits"
#ifdef __clang__ /* loops that call the C library stay scalar, and it warns of each */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

/* ---- types: X(dtype, C type, type to compute in: integers wrap) */
#define CPU_INTS(X)                                                                                \
    X(DT_INT8, int8_t, uint32_t)                                                                   \
    X(DT_UINT8, uint8_t, uint32_t)                                                                 \
    X(DT_INT16, int16_t, uint32_t)                                                                 \
    X(DT_UINT16, uint16_t, uint32_t)                                                               \
    X(DT_INT32, int32_t, uint32_t)                                                                 \
    X(DT_UINT32, uint32_t, uint32_t)                                                               \
    X(DT_INT64, int64_t, uint64_t)                                                                 \
    X(DT_UINT64, uint64_t, uint64_t)
#define CPU_FLOATS(X)                                                                              \
    X(DT_FP32, float, float)                                                                       \
    X(DT_FP64, double, double)
#define CPU_NUMBERS(X) CPU_FLOATS(X) CPU_INTS(X)

/* ---- shapes */
#define OPERANDS_MAX 4
/* Several operands walked in the order of a shape, dimensions merged where all allow it.
 * Strides are in elements; 0: broadcast. */
struct walk {
    uint32_t rank; /* >= 1; the last dimension is the inner loop */
    uint32_t n_operands;
    int64_t dims[MAX_RANK];
    int64_t stride[OPERANDS_MAX][MAX_RANK];
};
/* stride: by operand, one for each dimension. */
void walk_make(struct walk *w, uint32_t rank, const int64_t *dims, uint32_t n_operands,
               const int64_t (*stride)[MAX_RANK]);
/* Calls fn for every inner row, with element offsets of the operands. */
#define WALK_ROWS(w, off, body)                                                                    \
    do {                                                                                           \
        int64_t at_##off[MAX_RANK] = {0}, off[OPERANDS_MAX] = {0};                                 \
        if (walk_empty(w))                                                                         \
            break;                                                                                 \
        do {                                                                                       \
            body;                                                                                  \
        } while (walk_step(w, at_##off, off));                                                     \
    } while (0)
bool walk_step(const struct walk *w, int64_t *at, int64_t *off);
static inline bool walk_empty(const struct walk *w)
{
    for (uint32_t i = 0; i < w->rank; i++)
        if (w->dims[i] == 0)
            return true;
    return false;
}
/* Where the `part`th of n_parts pieces of n begins; part n_parts: where the last one ends. */
static inline int64_t piece_from(int64_t n, uint32_t part, uint32_t n_parts)
{
    return n / n_parts * part + n % n_parts * part / n_parts;
}
/* Cut the walk to a piece of its first dimension; ret_from: where in it that begins. */
void walk_cut(struct walk *w, uint32_t part, uint32_t n_parts, int64_t *ret_from);
void strides_rows(uint32_t rank, const int64_t *dims, int64_t *ret);
/* Strides of t read as if it had the shape of y. */
void strides_broadcast(const struct tensor *t, const struct tensor *y, int64_t *ret);
int64_t span(const struct tensor *t, uint32_t from, uint32_t to);
static inline int64_t count_of(const struct tensor *t)
{
    return span(t, 0, t->rank);
}

/* ---- arguments of a node being planned */
static inline const struct tensor *arg_in(const struct cpu_args *a, uint32_t i)
{
    return i < a->node->n_in ? a->in[i] : NULL;
}
static inline const struct tensor *arg_out(const struct cpu_args *a, uint32_t i)
{
    return i < a->node->n_out ? a->out[i] : NULL;
}
/* Integers of input i, else of the attribute.  *ret_n 0 when neither is there.
 * -ENOTSUP when the input is computed while the model runs. */
int arg_ints(const struct cpu_args *a, uint32_t i, const char *attr, int64_t *ret, uint32_t max,
             uint32_t *ret_n, struct err *err);
int arg_axis(const struct cpu_args *a, int64_t axis, uint32_t rank, uint32_t *ret, struct err *err);
int plan_type(const struct cpu_args *a, enum dtype t, struct err *err); /* -ENOTSUP */
int plan_fail(const struct cpu_args *a, int code, const char *what, struct err *err);
int plan_done(const struct cpu_args *a, int (*run)(const void *, void *const *), const void *params,
              size_t bytes, struct cpu_call *ret, struct err *err);
/* The same of a kernel that can be cut: PIECES(f) makes run_f of f_piece. */
#define PIECES(f)                                                                                  \
    static int run_##f(const void *params, void *const *ptr)                                       \
    {                                                                                              \
        return f##_piece(params, ptr, 0, 1);                                                       \
    }
#define PLAN_PIECES(a, f, p, ret, err)                                                             \
    ((ret)->piece = f##_piece, plan_done(a, run_##f, p, sizeof(*(p)), ret, err))

typedef int plan_fn(const struct cpu_args *a, struct cpu_call *ret, struct err *err);
plan_fn plan_unary, plan_binary, plan_where, plan_cast, plan_concat, plan_split, plan_slice,
    plan_pad, plan_transpose, plan_expand, plan_tile, plan_gather, plan_trilu, plan_fill,
    plan_range, plan_shape, plan_reduce, plan_arg, plan_softmax, plan_layer_norm, plan_batch_norm,
    plan_instance_norm, plan_lrn, plan_pool, plan_product, plan_copy_first;
plan_fn plan_attention, plan_group_norm, plan_lp_norm, plan_mvn, plan_rms_norm, plan_rnn,
    plan_rotary;
plan_fn plan_gather_elements, plan_gather_nd, plan_scatter_elements, plan_scatter_nd, plan_one_hot,
    plan_cum_sum, plan_top_k, plan_depth_to_space, plan_space_to_depth, plan_einsum;
/* The explicit row of an operator of which no speed is claimed. */
plan_fn plan_plain, plan_resize, plan_quant, plan_qadd, plan_qproduct, plan_qconv, plan_grid_sample,
    plan_roi_align;
int plan_plain_post(const struct post *step, const struct tensor *y, struct arena *arena,
                    struct cpu_call *ret);

/* ---- elementary functions that vectorise: relative error below 3e-7 where the result is normal */
static inline __attribute__((always_inline)) float pow2_of(int32_t n)
{
    union {
        int32_t i;
        float f;
    } u = {.i = (n + 127) << 23};

    return u.f;
}

/* Cephes' expf: 2^n times a polynomial on the rest. */
static inline __attribute__((always_inline)) float fast_exp(float x)
{
    float c = x < -104 ? -104 : x > 89 ? 89 : x;
    float z = c * 1.44269504088896341f + 256.5f; /* floor by truncation */
    int32_t n = (int32_t)z - 256;
    float r = c - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    int32_t half = n >> 1;
    p = p * pow2_of(half) * pow2_of(n - half);
    return x != x ? x : p;
}

/* Near 0 the series: there e^x - 1 would lose what matters. */
static inline __attribute__((always_inline)) float fast_expm1(float x)
{
    float p = 1.0f / 5040;

    p = p * x + 1.0f / 720;
    p = p * x + 1.0f / 120;
    p = p * x + 1.0f / 24;
    p = p * x + 1.0f / 6;
    p = p * x + 0.5f;
    p = (p * x + 1) * x;
    return fabsf(x) < 0.35f ? p : fast_exp(x) - 1;
}

static inline __attribute__((always_inline)) float fast_sigmoid(float x)
{
    return 1 / (1 + fast_exp(-x));
}

static inline __attribute__((always_inline)) float fast_tanh(float x)
{
    float a = x < 0 ? -x : x, s = x * x;
    float big = 1 - 2 / (fast_exp(2 * (a > 20 ? 20 : a)) + 1);
    float p = -5.70498872745e-3f;

    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    p = p * s * x + x;
    big = x < 0 ? -big : big;
    return x != x ? x : a < 0.625f ? p : big;
}

/* Below 1 the series, above Abramowitz and Stegun 7.1.26. */
static inline __attribute__((always_inline)) float fast_erf(float x)
{
    float a = x < 0 ? -x : x, s = x * x;
    float p = 1.0f / 6894720; /* 1/(9! 19) */

    p = -p * s + 1.0f / 685440;
    p = p * s - 1.0f / 75600;
    p = p * s + 1.0f / 9360;
    p = p * s - 1.0f / 1320;
    p = p * s + 1.0f / 216;
    p = p * s - 1.0f / 42;
    p = p * s + 1.0f / 10;
    p = p * s - 1.0f / 3;
    p = (p * s + 1) * x * 1.12837916709551257f;
    float t = 1 / (1 + 0.3275911f * a);
    float q = 1.061405429f;
    q = q * t - 1.453152027f;
    q = q * t + 1.421413741f;
    q = q * t - 0.284496736f;
    q = q * t + 0.254829592f;
    float big = 1 - q * t * fast_exp(-(a > 9 ? 81 : s));
    big = x < 0 ? -big : big;
    return x != x ? x : a < 1 ? p : big;
}

static inline __attribute__((always_inline)) float fast_gelu(float x)
{
    return 0.5f * x * (1 + fast_erf(x * 0.70710678118654752f));
}
