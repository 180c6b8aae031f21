/* Cast between all number types.  Half precisions go through float. */
#include "kit.h"

struct cast {
    int64_t n;
    enum dtype from, to;
    uint32_t out;
};

static float from_half(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023;

    if (exp == 0) {
        float tiny = (float)man * 0x1p-24f;
        return sign ? -tiny : tiny;
    }
    v.u = sign | (exp == 31 ? 0x7f800000 : (exp + 112) << 23) | man << 13;
    return v.f;
}

static uint16_t to_half(float x)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = x};
    uint16_t sign = (uint16_t)(v.u >> 16 & 0x8000);
    float a = fabsf(x);

    if (x != x)
        return sign | 0x7e00;
    if (a >= 65520.0f)
        return sign | 0x7c00;
    if (a < 0x1p-14f) /* subnormal: rintf rounds to even */
        return (uint16_t)(sign | (uint16_t)rintf(a * 0x1p24f));
    uint32_t u = v.u & 0x7fffffff;
    u += 0xfff + (u >> 13 & 1); /* to the nearest, ties to even */
    return (uint16_t)(sign | ((u >> 13) - (112 << 10)));
}

static float from_bf16(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};

    return v.f;
}

static uint16_t to_bf16(float x)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = x};

    if (x != x)
        return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}

#define TO(D, T)                                                                                   \
    case D: {                                                                                      \
        T *y = y_;                                                                                 \
        for (int64_t i = 0; i < n; i++)                                                            \
            y[i] = (T)GET(i);                                                                      \
        break;                                                                                     \
    }
#define TO_ALL                                                                                     \
    switch (to) {                                                                                  \
        TO(DT_FP32, float)                                                                         \
        TO(DT_FP64, double)                                                                        \
        TO(DT_INT8, int8_t)                                                                        \
        TO(DT_UINT8, uint8_t)                                                                      \
        TO(DT_INT16, int16_t)                                                                      \
        TO(DT_UINT16, uint16_t)                                                                    \
        TO(DT_INT32, int32_t)                                                                      \
        TO(DT_UINT32, uint32_t)                                                                    \
        TO(DT_INT64, int64_t)                                                                      \
        TO(DT_UINT64, uint64_t)                                                                    \
    case DT_BOOL:                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                            \
            ((uint8_t *)y_)[i] = GET(i) != 0;                                                      \
        break;                                                                                     \
    case DT_FP16:                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                            \
            ((uint16_t *)y_)[i] = to_half((float)GET(i));                                          \
        break;                                                                                     \
    case DT_BF16:                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                            \
            ((uint16_t *)y_)[i] = to_bf16((float)GET(i));                                          \
        break;                                                                                     \
    default:                                                                                       \
        break;                                                                                     \
    }

#define CAST_FROM(D, T, U)                                                                         \
    static void cast_##D(int64_t n, const void *x_, enum dtype to, void *y_)                       \
    {                                                                                              \
        const T *x = x_;                                                                           \
        TO_ALL                                                                                     \
    }
#define GET(i) x[i]
CPU_NUMBERS(CAST_FROM)
CAST_FROM(DT_BOOL, uint8_t, uint8_t)
#undef GET
#define GET(i) from_half(x[i])
CAST_FROM(DT_FP16, uint16_t, float)
#undef GET
#define GET(i) from_bf16(x[i])
CAST_FROM(DT_BF16, uint16_t, float)
#undef GET

#define CAST_ROW(D, T, U) [D] = cast_##D,
static void (*const casts[DT_END])(int64_t, const void *, enum dtype, void *) = {
    CPU_NUMBERS(CAST_ROW)[DT_BOOL] = cast_DT_BOOL,
    [DT_FP16] = cast_DT_FP16,
    [DT_BF16] = cast_DT_BF16,
};

static int run_cast(const void *params, void *const *ptr)
{
    const struct cast *p = params;

    casts[p->from](p->n, ptr[0], p->to, ptr[p->out]);
    return 0;
}

int plan_cast(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct cast p = {.n = count_of(a->in[0]),
                     .from = a->in[0]->dtype,
                     .to = a->out[0]->dtype,
                     .out = a->node->n_in};

    if (!casts[p.from])
        return plan_type(a, p.from, err);
    if (!casts[p.to])
        return plan_type(a, p.to, err);
    return plan_done(a, run_cast, &p, sizeof(p), ret, err);
}
