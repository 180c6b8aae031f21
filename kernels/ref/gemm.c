/* Matrix products, summed in double; of integers in 64 bits. */
#include "kit.h"

/* y[i,j] = alpha * sum a[i,k] b[k,j] + beta * c: a and b as given, strides say the rest. */
REF_FN(ref_gemm)
{
    const struct tensor *a = in[0], *b = in[1], *c = ref_in(n, in, 2), *y = out[0];
    const struct tensor *const all[] = {a, b, c, y};
    bool ta = node_int(n, "transA", 0) != 0, tb = node_int(n, "transB", 0) != 0;
    double alpha = (double)node_float(n, "alpha", 1), beta = (double)node_float(n, "beta", 1);
    struct walk w;
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (a->rank != 2 || b->rank != 2 || y->rank != 2 || a->dims[!ta] != b->dims[tb] ||
        y->dims[0] != a->dims[ta] || y->dims[1] != b->dims[!tb])
        return ref_fail(n, err, -EINVAL, "the matrices do not go together");
    walk_init(&w, y);
    if (c && walk_broadcast(&w, 0, c) < 0)
        return ref_fail(n, err, -EINVAL, "C does not broadcast to the output");
    AUTO(ref_drop) double *va = ref_doubles(a), *vb = ref_doubles(b);
    if (!va || !vb)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    int64_t rows = y->dims[0], inner = a->dims[!ta], cols = y->dims[1];
    for (int64_t e = 0; e < w.n; e++, walk_next(&w)) {
        int64_t i = w.at[0], j = w.at[1];
        double sum = 0;
        for (int64_t k = 0; k < inner; k++)
            sum += va[ta ? k * rows + i : i * inner + k] * vb[tb ? j * inner + k : k * cols + j];
        num_put(y, e, (union num){.f = alpha * sum + (c ? beta * num_get(c, w.off[0]).f : 0)});
    }
    return 0;
}

/* ---- MatMul: vectors become matrices, leading dimensions broadcast, and a third input (made by
 * the passes) is a bias over the last dimension of the result */
/* t without its last two dimensions; those that a vector lacks are not there anyway. */
static struct tensor stack_of(const struct tensor *t)
{
    struct tensor s = *t;

    s.rank = t->rank > 2 ? t->rank - 2 : 0;
    return s;
}

int product_init(struct product *p, const struct tensor *a, const struct tensor *b,
                 const struct tensor *y)
{
    struct tensor sa = stack_of(a), sb = stack_of(b), sy = {.rank = MAX(sa.rank, sb.rank)};

    if (a->rank < 1 || b->rank < 1)
        return -EINVAL;
    p->rows = a->rank == 1 ? 1 : a->dims[a->rank - 2];
    p->inner = a->dims[a->rank - 1];
    p->cols = b->rank == 1 ? 1 : b->dims[b->rank - 1];
    if (p->inner != b->dims[b->rank == 1 ? 0 : b->rank - 2] ||
        y->rank != sy.rank + (a->rank > 1) + (b->rank > 1))
        return -EINVAL;
    memcpy(sy.dims, y->dims, sy.rank * sizeof(sy.dims[0]));
    walk_init(&p->w, &sy);
    if (walk_broadcast(&p->w, 0, &sa) < 0 || walk_broadcast(&p->w, 1, &sb) < 0)
        return -EINVAL;
    return p->w.n * p->rows * p->cols == ref_count(y) ? 0 : -EINVAL;
}

static void product_float(struct product *p, const double *a, const double *b, const double *bias,
                          const struct tensor *y)
{
    int64_t at = 0;

    for (int64_t m = 0; m < p->w.n; m++, walk_next(&p->w)) {
        const double *ma = a + p->w.off[0] * p->rows * p->inner;
        const double *mb = b + p->w.off[1] * p->inner * p->cols;
        for (int64_t i = 0; i < p->rows; i++)
            for (int64_t j = 0; j < p->cols; j++) {
                double sum = bias ? bias[j] : 0;
                for (int64_t k = 0; k < p->inner; k++)
                    sum += ma[i * p->inner + k] * mb[k * p->cols + j];
                num_put(y, at++, (union num){.f = sum});
            }
    }
}

static void product_int(struct product *p, const struct tensor *a, const struct tensor *b,
                        const struct tensor *bias, const struct tensor *y)
{
    int64_t at = 0;

    for (int64_t m = 0; m < p->w.n; m++, walk_next(&p->w)) {
        int64_t ma = p->w.off[0] * p->rows * p->inner, mb = p->w.off[1] * p->inner * p->cols;
        for (int64_t i = 0; i < p->rows; i++)
            for (int64_t j = 0; j < p->cols; j++) {
                uint64_t sum = bias ? num_get(bias, j).u : 0;
                for (int64_t k = 0; k < p->inner; k++)
                    sum += num_get(a, ma + i * p->inner + k).u * num_get(b, mb + k * p->cols + j).u;
                num_put(y, at++, (union num){.u = sum});
            }
    }
}

REF_FN(ref_matmul)
{
    const struct tensor *a = in[0], *b = in[1], *bias = ref_in(n, in, 2);
    enum kind k = ref_kind(a->dtype);
    struct product p;

    if (k == KIND_BOOL)
        return ref_no_type(n, a->dtype, err);
    if (b->dtype != a->dtype || out[0]->dtype != a->dtype || (bias && bias->dtype != a->dtype))
        return ref_fail(n, err, -EINVAL, "the types differ");
    if (product_init(&p, a, b, out[0]) < 0 || (bias && ref_count(bias) != p.cols))
        return ref_fail(n, err, -EINVAL, "the matrices do not go together");
    if (k != KIND_FLOAT) {
        product_int(&p, a, b, bias, out[0]);
        return 0;
    }
    AUTO(ref_drop) double *va = ref_doubles(a), *vb = ref_doubles(b);
    AUTO(ref_drop) double *vc = bias ? ref_doubles(bias) : NULL;
    if (!va || !vb || (bias && !vc))
        return ref_fail(n, err, -ENOMEM, "out of memory");
    product_float(&p, va, vb, vc, out[0]);
    return 0;
}
