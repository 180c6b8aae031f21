/* QuantizeLinear and DequantizeLinear with one scale or one for each position of an axis, and
 * DynamicQuantizeLinear.  Scales and zero points are read when the node runs. */
#include "kit.h"

struct quant {
    int64_t outer, axis, inner; /* axis: 1 where there is one scale */
    enum dtype type;            /* of the quantised side */
    bool zero;
    uint32_t n_in;
    void (*quantise)(int64_t n, const float *x, float scale, int32_t zero, enum dtype type,
                     void *y);
    void (*dequantise)(int64_t n, const void *x, float scale, int32_t zero, enum dtype type,
                       float *y);
    void (*range)(int64_t n, const float *x, float ret[2]);
};

/* X(dtype, C type, least, greatest) */
#define QUANT_TYPES(X)                                                                             \
    X(DT_INT8, int8_t, INT8_MIN, INT8_MAX)                                                         \
    X(DT_UINT8, uint8_t, 0, UINT8_MAX)                                                             \
    X(DT_INT16, int16_t, INT16_MIN, INT16_MAX)                                                     \
    X(DT_UINT16, uint16_t, 0, UINT16_MAX)

/* Held within the type before the zero point is added: both are whole numbers. */
#define QUANTISE_CASE(D, T, LO, HI)                                                                \
    case D: {                                                                                      \
        T *to = y;                                                                                 \
        float lo = (float)(LO - zero), hi = (float)(HI - zero);                                    \
        SIMD for (int64_t i = 0; i < n; i++)                                                       \
        {                                                                                          \
            float v = rintf(x[i] / scale);                                                         \
            v = v >= lo ? v : lo; /* NaN: the least */                                             \
            v = v <= hi ? v : hi;                                                                  \
            to[i] = (T)((int32_t)v + zero);                                                        \
        }                                                                                          \
        break;                                                                                     \
    }
VECTOR(quantise, (int64_t n, const float *x, float scale, int32_t zero, enum dtype type, void *y),
       (n, x, scale, zero, type, y))
{
    switch (type) {
        QUANT_TYPES(QUANTISE_CASE)
    default:
        break;
    }
}

#define DEQUANTISE_CASE(D, T, LO, HI)                                                              \
    case D: {                                                                                      \
        const T *from = x;                                                                         \
        SIMD for (int64_t i = 0; i < n; i++) y[i] = (float)((int32_t)from[i] - zero) * scale;      \
        break;                                                                                     \
    }
VECTOR(dequantise, (int64_t n, const void *x, float scale, int32_t zero, enum dtype type, float *y),
       (n, x, scale, zero, type, y))
{
    switch (type) {
        QUANT_TYPES(DEQUANTISE_CASE)
    default:
        break;
    }
}

VECTOR(range_of, (int64_t n, const float *x, float ret[2]), (n, x, ret))
{
    float lo = 0, hi = 0;

    _Pragma("omp simd reduction(min : lo) reduction(max : hi)") for (int64_t i = 0; i < n; i++)
    {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    ret[0] = lo;
    ret[1] = hi;
}

static int32_t zero_at(const void *zero, enum dtype type, int64_t at)
{
    switch (zero ? type : DT_NONE) {
    case DT_INT8:
        return ((const int8_t *)zero)[at];
    case DT_UINT8:
        return ((const uint8_t *)zero)[at];
    case DT_INT16:
        return ((const int16_t *)zero)[at];
    case DT_UINT16:
        return ((const uint16_t *)zero)[at];
    default:
        return 0;
    }
}

static int run_quantise(const void *params, void *const *ptr)
{
    const struct quant *p = params;
    const float *x = ptr[0], *scale = ptr[1];
    const void *zero = p->zero ? ptr[2] : NULL;
    char *y = ptr[p->n_in];

    for (int64_t i = 0; i < p->outer * p->axis; i++, x += p->inner) {
        int64_t k = i % p->axis;
        p->quantise(p->inner, x, scale[k], zero_at(zero, p->type, k), p->type, y);
        y += (size_t)p->inner * dtype_size(p->type);
    }
    return 0;
}

static int run_dequantise(const void *params, void *const *ptr)
{
    const struct quant *p = params;
    const float *scale = ptr[1];
    const void *zero = p->zero ? ptr[2] : NULL;
    const char *x = ptr[0];
    float *y = ptr[p->n_in];

    for (int64_t i = 0; i < p->outer * p->axis; i++, y += p->inner) {
        int64_t k = i % p->axis;
        p->dequantise(p->inner, x, scale[k], zero_at(zero, p->type, k), p->type, y);
        x += (size_t)p->inner * dtype_size(p->type);
    }
    return 0;
}

static int run_dynamic(const void *params, void *const *ptr)
{
    const struct quant *p = params;
    float *y_scale = ptr[2], range[2];
    uint8_t *y_zero = ptr[3];

    p->range(p->inner, ptr[0], range);
    float scale = range[0] == range[1] ? 1 : (range[1] - range[0]) / 255;
    float zero = rintf(MIN(MAX(-range[0] / scale, 0), 255));
    p->quantise(p->inner, ptr[0], scale, (int32_t)zero, DT_UINT8, ptr[1]);
    if (y_scale)
        *y_scale = scale;
    if (y_zero)
        *y_zero = (uint8_t)zero;
    return 0;
}

static bool is_quantised(enum dtype t)
{
    return t == DT_INT8 || t == DT_UINT8 || t == DT_INT16 || t == DT_UINT16;
}

int plan_quant(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0], *y = a->out[0], *scale = arg_in(a, 1);
    bool to = a->node->op == OP_QuantizeLinear, dynamic = a->node->op == OP_DynamicQuantizeLinear;
    struct quant p = {.outer = 1,
                      .axis = 1,
                      .inner = count_of(x),
                      .type = to || dynamic ? y->dtype : x->dtype,
                      .zero = arg_in(a, 2) != NULL,
                      .n_in = a->node->n_in,
                      .quantise = PICK(quantise),
                      .dequantise = PICK(dequantise),
                      .range = PICK(range_of)};
    uint32_t axis;

    if (dynamic)
        return plan_done(a, run_dynamic, &p, sizeof(p), ret, err);
    if (!is_quantised(p.type) || (to ? x : y)->dtype != DT_FP32 || scale->dtype != DT_FP32 ||
        scale->rank > 1)
        return plan_fail(a, -ENOTSUP, "types, or blocks, that plain loops do", err);
    if (count_of(scale) != 1) {
        int r = arg_axis(a, node_int(a->node, "axis", 1), x->rank, &axis, err);
        if (r < 0)
            return r;
        p.outer = span(x, 0, axis);
        p.axis = x->dims[axis];
        p.inner = span(x, axis + 1, x->rank);
    }
    return plan_done(a, to ? run_quantise : run_dequantise, &p, sizeof(p), ret, err);
}
