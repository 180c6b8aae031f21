/* QLinearAdd: two tensors of bytes become numbers, are added, and the sum a byte again.
 *
 * A signed byte with its highest bit turned is an unsigned one that is 128 larger; so one loop does
 * for all types, with zero points that are 128 larger, too. */
#include "kit.h"

struct bytes { /* how a tensor of bytes is read */
    float scale;
    int32_t zero;
    uint8_t turn;
};

struct qadd {
    struct walk w; /* y, a, b */
    enum dtype type[3];
    void (*add)(int64_t n, const struct bytes *f, uint8_t *y, const uint8_t *a, int64_t step_a,
                const uint8_t *b, int64_t step_b);
};

#define NUMBER(k, byte) ((float)((int32_t)((byte) ^ turn##k) - f[k].zero) * scale##k)
/* As QuantizeLinear: held within the type before the zero point is added. */
#define PUT_SUM(sum)                                                                               \
    {                                                                                              \
        float v = rintf((sum) / scale0);                                                           \
        v = v >= lo ? v : lo;                                                                      \
        v = v <= hi ? v : hi;                                                                      \
        y[i] = (uint8_t)((int32_t)v + f[0].zero) ^ turn0;                                          \
    }
VECTOR(add_bytes,
       (int64_t n, const struct bytes *f, uint8_t *restrict y, const uint8_t *a, int64_t step_a,
        const uint8_t *b, int64_t step_b),
       (n, f, y, a, step_a, b, step_b))
{
    float scale0 = f[0].scale, scale1 = f[1].scale, scale2 = f[2].scale;
    float lo = (float)-f[0].zero, hi = (float)(UINT8_MAX - f[0].zero);
    uint8_t turn0 = f[0].turn, turn1 = f[1].turn, turn2 = f[2].turn;

    if (step_a && step_b) {
        SIMD for (int64_t i = 0; i < n; i++) PUT_SUM(NUMBER(1, a[i]) + NUMBER(2, b[i]))
    } else if (step_a) {
        float same = NUMBER(2, *b);
        SIMD for (int64_t i = 0; i < n; i++) PUT_SUM(NUMBER(1, a[i]) + same)
    } else {
        float same = NUMBER(1, *a);
        SIMD for (int64_t i = 0; i < n; i++) PUT_SUM(same + NUMBER(2, b[i * step_b]))
    }
}

static struct bytes bytes_of(enum dtype t, const float *scale, const void *zero)
{
    bool is_signed = t == DT_INT8;

    return (struct bytes){.scale = *scale,
                          .zero = is_signed ? *(const int8_t *)zero + 128 : *(const uint8_t *)zero,
                          .turn = is_signed ? 128 : 0};
}

/* Inputs: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero; then y. */
static int run_qadd(const void *params, void *const *ptr)
{
    const struct qadd *p = params;
    const struct bytes f[] = {bytes_of(p->type[0], ptr[6], ptr[7]),
                              bytes_of(p->type[1], ptr[1], ptr[2]),
                              bytes_of(p->type[2], ptr[4], ptr[5])};
    const uint8_t *a = ptr[0], *b = ptr[3];
    uint32_t last = p->w.rank - 1;
    uint8_t *y = ptr[8];

    WALK_ROWS(&p->w, off,
              p->add(p->w.dims[last], f, y + off[0], a + off[1], p->w.stride[1][last], b + off[2],
                     p->w.stride[2][last]));
    return 0;
}

int plan_qadd(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *y = a->out[0], *x[] = {a->in[0], a->in[3]};
    struct qadd p = {.type = {y->dtype, x[0]->dtype, x[1]->dtype}, .add = PICK(add_bytes)};
    int64_t stride[3][MAX_RANK];

    for (uint32_t i = 1; i < 8; i++)
        if (count_of(a->in[i]) != 1 && i != 3)
            return plan_fail(a, -ENOTSUP, "scales that plain loops do", err);
    if (a->in[1]->dtype != DT_FP32 || a->in[4]->dtype != DT_FP32 || a->in[6]->dtype != DT_FP32)
        return plan_fail(a, -ENOTSUP, "scales that plain loops do", err);
    strides_rows(y->rank, y->dims, stride[0]);
    strides_broadcast(x[0], y, stride[1]);
    strides_broadcast(x[1], y, stride[2]);
    walk_make(&p.w, y->rank, y->dims, 3, (const int64_t(*)[MAX_RANK])stride);
    return plan_done(a, run_qadd, &p, sizeof(p), ret, err);
}
