/* Einsum and Det. */
#include "kit.h"
#include <gpulet/einsum.h>
#include <math.h>

/* A counter over labels [from, to) with each input's offset; false when it is through. */
static bool step(const struct einsum *e, uint32_t from, uint32_t to,
                 int64_t (*stride)[EINSUM_MAX_LABELS], int64_t *at, int64_t *off)
{
    for (uint32_t l = to; l-- > from;) {
        for (uint32_t i = 0; i < e->n_in; i++)
            off[i] += stride[i][l];
        if (++at[l] < e->size[l])
            return true;
        for (uint32_t i = 0; i < e->n_in; i++)
            off[i] -= stride[i][l] * e->size[l];
        at[l] = 0;
    }
    return false;
}

static union num sum_of_products(const struct einsum *e, const struct tensor *const *in,
                                 enum kind k, int64_t (*stride)[EINSUM_MAX_LABELS], int64_t *off)
{
    int64_t at[EINSUM_MAX_LABELS] = {0};
    union num sum = {.u = 0};

    do {
        union num p = num_get(in[0], off[0]);
        for (uint32_t i = 1; i < e->n_in; i++) {
            union num v = num_get(in[i], off[i]);
            p = k == KIND_FLOAT ? (union num){.f = p.f * v.f} : (union num){.u = p.u * v.u};
        }
        sum = k == KIND_FLOAT ? (union num){.f = sum.f + p.f} : (union num){.u = sum.u + p.u};
    } while (step(e, e->n_out, e->n_labels, stride, at, off));
    return sum;
}

REF_FN(ref_einsum)
{
    int64_t stride[EINSUM_MAX_IN][EINSUM_MAX_LABELS], at[EINSUM_MAX_LABELS] = {0};
    int64_t off[EINSUM_MAX_IN] = {0}, count = 1;
    enum kind k = ref_kind(in[0]->dtype);
    struct einsum e;
    bool nothing = false;
    int r = einsum_read(n, in, &e, err);

    if (r < 0)
        return err_wrap(err, "node '%s' (Einsum): ", n->name);
    if (k == KIND_BOOL)
        return ref_no_type(n, in[0]->dtype, err);
    for (uint32_t l = 0; l < e.n_labels; l++) {
        count *= l < e.n_out ? e.size[l] : 1;
        nothing |= l >= e.n_out && e.size[l] == 0;
        for (uint32_t i = 0; i < e.n_in; i++)
            stride[i][l] = einsum_stride(&e, i, in[i], l);
    }
    for (uint32_t i = 0; i < e.n_in; i++)
        if (in[i]->dtype != out[0]->dtype)
            return ref_fail(n, err, -EINVAL, "the operands differ in type");
    if (ref_count(out[0]) != count)
        return ref_fail(n, err, -EINVAL, "the output's shape is not that of the equation");
    for (int64_t i = 0; i < count; i++, (void)step(&e, 0, e.n_out, stride, at, off))
        num_put(out[0], i, nothing ? (union num){.u = 0} : sum_of_products(&e, in, k, stride, off));
    return 0;
}

/* By elimination with the largest pivot of each column. */
static double determinant(double *a, int64_t n)
{
    double det = 1;

    for (int64_t c = 0; c < n; c++) {
        int64_t top = c;
        for (int64_t r = c + 1; r < n; r++)
            top = fabs(a[r * n + c]) > fabs(a[top * n + c]) ? r : top;
        for (int64_t k = c; k < n && top != c; k++) {
            double t = a[c * n + k];
            a[c * n + k] = a[top * n + k];
            a[top * n + k] = t;
        }
        det *= top == c ? a[c * n + c] : -a[c * n + c];
        if (a[c * n + c] == 0)
            return 0;
        for (int64_t r = c + 1; r < n; r++) {
            double f = a[r * n + c] / a[c * n + c];
            for (int64_t k = c; k < n; k++)
                a[r * n + k] -= f * a[c * n + k];
        }
    }
    return det;
}

REF_FN(ref_det)
{
    const struct tensor *x = in[0];
    int64_t size = x->rank >= 2 ? x->dims[x->rank - 1] : -1, count = ref_count(out[0]);
    int r = ref_floats(n, in, 1, err);

    if (r < 0)
        return r;
    if (size < 0 || x->dims[x->rank - 2] != size || out[0]->dtype != x->dtype ||
        count != ref_span(x, 0, x->rank - 2))
        return ref_fail(n, err, -EINVAL, "needs square matrices, and one result for each");
    AUTO(ref_drop) double *a = ref_doubles(x);
    if (!a)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (int64_t i = 0; i < count; i++)
        num_put(out[0], i, (union num){.f = determinant(a + i * size * size, size)});
    return 0;
}
