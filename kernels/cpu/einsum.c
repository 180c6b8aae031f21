/* Einsum of one or two FP32 operands, as nested loops over labels.  The innermost is the result's
 * last label where each operand has it at stride 0 or 1 (y += a * b, a row at a time), and else
 * the last summed one (a dot product). */
#include "kit.h"
#include <gpulet/einsum.h>

typedef void row_fn(int64_t n, const float *a, int64_t sa, const float *b, int64_t sb, float *y);

struct einsum_call {
    uint32_t n_in, n_loops; /* around the row */
    int64_t size[EINSUM_MAX_LABELS], row, bytes;
    int64_t stride[3][EINSUM_MAX_LABELS]; /* a, b, y */
    int64_t sa, sb;                       /* of the row */
    row_fn *f;
};

VECTOR(add_row, (int64_t n, const float *a, int64_t sa, const float *b, int64_t sb, float *y),
       (n, a, sa, b, sb, y))
{
    if (sa == 0 && sb == 1) {
        float k = a[0];
        SIMD for (int64_t i = 0; i < n; i++) y[i] += k * b[i];
    } else if (sa == 1 && sb == 0) {
        float k = b[0];
        SIMD for (int64_t i = 0; i < n; i++) y[i] += k * a[i];
    } else if (sa == 1 && sb == 1) {
        SIMD for (int64_t i = 0; i < n; i++) y[i] += a[i] * b[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i] += a[i * sa] * b[i * sb];
    }
}

VECTOR(dot_row, (int64_t n, const float *a, int64_t sa, const float *b, int64_t sb, float *y),
       (n, a, sa, b, sb, y))
{
    float sum = 0;

    if (sa == 1 && sb == 1) {
        SIMD_SUM(sum)
        for (int64_t i = 0; i < n; i++)
            sum += a[i] * b[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            sum += a[i * sa] * b[i * sb];
    }
    *y += sum;
}

static int run_einsum(const void *params, void *const *ptr)
{
    const struct einsum_call *p = params;
    static const float one = 1;
    const float *a = ptr[0], *b = p->n_in > 1 ? ptr[1] : &one;
    float *y = ptr[p->n_in];
    int64_t at[EINSUM_MAX_LABELS] = {0};
    uint32_t l;

    memset(y, 0, (size_t)p->bytes);
    for (l = 0; l < p->n_loops; l++)
        if (p->size[l] == 0)
            return 0;
    do {
        p->f(p->row, a, p->sa, b, p->sb, y);
        for (l = p->n_loops; l-- > 0;) {
            a += p->stride[0][l];
            b += p->stride[1][l];
            y += p->stride[2][l];
            if (++at[l] < p->size[l])
                break;
            a -= p->stride[0][l] * p->size[l];
            b -= p->stride[1][l] * p->size[l];
            y -= p->stride[2][l] * p->size[l];
            at[l] = 0;
        }
    } while (l != UINT32_MAX);
    return 0;
}

static bool is_row(const int64_t s[3])
{
    return s[0] <= 1 && s[1] <= 1 && s[2] == 1;
}

/* Label l as the row, all others as loops around it. */
static void take_row(struct einsum_call *p, const struct einsum *e, int64_t (*stride)[3],
                     uint32_t row)
{
    for (uint32_t l = 0; l < e->n_labels; l++) {
        if (l == row)
            continue;
        for (uint32_t i = 0; i < 3; i++)
            p->stride[i][p->n_loops] = stride[l][i];
        p->size[p->n_loops++] = e->size[l];
    }
    p->row = row == UINT32_MAX ? 1 : e->size[row];
    p->sa = row == UINT32_MAX ? 0 : stride[row][0];
    p->sb = row == UINT32_MAX ? 0 : stride[row][1];
}

int plan_einsum(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    int64_t stride[EINSUM_MAX_LABELS][3] = {{0}}, count = 1;
    struct einsum_call p = {.n_in = a->node->n_in, .bytes = (int64_t)a->out[0]->bytes};
    struct einsum e;
    int r = einsum_read(a->node, a->in, &e, err);

    if (r < 0)
        return r;
    if (a->in[0]->dtype != DT_FP32 || e.n_in > 2)
        return plan_type(a, a->in[0]->dtype, err);
    for (uint32_t l = e.n_labels; l-- > 0;) {
        for (uint32_t i = 0; i < e.n_in; i++)
            stride[l][i] = einsum_stride(&e, i, a->in[i], l);
        stride[l][2] = l < e.n_out ? count : 0;
        count *= l < e.n_out ? e.size[l] : 1;
    }
    bool adds = e.n_out && is_row(stride[e.n_out - 1]);
    bool dots = !adds && e.n_labels > e.n_out;
    take_row(&p, &e, stride, adds ? e.n_out - 1 : dots ? e.n_labels - 1 : UINT32_MAX);
    p.f = adds ? PICK(add_row) : PICK(dot_row);
    return plan_done(a, run_einsum, &p, sizeof(p), ret, err);
}
