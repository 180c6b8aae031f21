/* MatMul and Gemm for what the library does not take: integers, doubles, odd broadcasts.
 * Rows of the second operand are added up, so the inner loop runs along memory. */
#include "kit.h"

struct product {
    enum dtype type;
    struct walk batch; /* 0: result, 1: a, 2: b, in matrices' elements; last dimension included */
    int64_t m, k, n;
    int64_t a_row, a_col, b_row, b_col; /* strides */
    bool c;
    int64_t c_row, c_col;
    double alpha, beta;
    uint32_t n_in;
};

#define PRODUCT(D, T, U)                                                                           \
    static void product_##D(const struct product *p, const T *a, const T *b, const T *c, T *y)     \
    {                                                                                              \
        for (int64_t i = 0; i < p->m; i++, y += p->n) {                                            \
            for (int64_t j = 0; j < p->n; j++)                                                     \
                y[j] = 0;                                                                          \
            for (int64_t k = 0; k < p->k; k++) {                                                   \
                U v = (U)a[i * p->a_row + k * p->a_col];                                           \
                const T *row = b + k * p->b_row;                                                   \
                for (int64_t j = 0; j < p->n; j++)                                                 \
                    y[j] = (T)((U)y[j] + v * (U)row[j * p->b_col]);                                \
            }                                                                                      \
            if (p->alpha != 1)                                                                     \
                for (int64_t j = 0; j < p->n; j++)                                                 \
                    y[j] = (T)((double)y[j] * p->alpha);                                           \
            for (int64_t j = 0; c && j < p->n; j++) {                                              \
                T add = c[i * p->c_row + j * p->c_col];                                            \
                y[j] = (T)((U)y[j] + (p->beta == 1 ? (U)add : (U)(T)((double)add * p->beta)));     \
            }                                                                                      \
        }                                                                                          \
    }
#define PRODUCT_TYPES(X)                                                                           \
    CPU_FLOATS(X)                                                                                  \
    X(DT_INT32, int32_t, uint32_t)                                                                 \
    X(DT_UINT32, uint32_t, uint32_t)                                                               \
    X(DT_INT64, int64_t, uint64_t)                                                                 \
    X(DT_UINT64, uint64_t, uint64_t)
PRODUCT_TYPES(PRODUCT)

#define PRODUCT_CASE(D, T, U)                                                                      \
    case D:                                                                                        \
        product_##D(p, (const T *)ptr[0] + off[1] + j * w->stride[1][in],                          \
                    (const T *)ptr[1] + off[2] + j * w->stride[2][in], p->c ? ptr[2] : NULL,       \
                    (T *)ptr[p->n_in] + off[0] + j * w->stride[0][in]);                            \
        break;

static int run_product(const void *params, void *const *ptr)
{
    const struct product *p = params;
    const struct walk *w = &p->batch;
    uint32_t in = w->rank - 1;

    WALK_ROWS(w, off, {
        for (int64_t j = 0; j < w->dims[in]; j++)
            switch (p->type) {
                PRODUCT_TYPES(PRODUCT_CASE)
            default:
                return -EINVAL;
            }
    });
    return 0;
}

/* Strides over the batch dimensions of the result, in elements; 0 where t repeats. */
static void batch_strides(const struct tensor *t, uint32_t rank, const int64_t *dims, int64_t *ret)
{
    int64_t own[MAX_RANK];

    strides_rows(t->rank, t->dims, own);
    for (uint32_t i = 0; i < rank; i++) {
        bool has = t->rank > 2 && i + t->rank - 2 >= rank;
        uint32_t k = i + t->rank - 2 - rank;
        ret[i] = has && t->dims[k] == dims[i] ? own[k] : 0;
        ret[i] = dims[i] == 1 ? 0 : ret[i];
    }
}

static void product_batch(const struct tensor *a, const struct tensor *b, struct product *p)
{
    int64_t stride[OPERANDS_MAX][MAX_RANK], dims[MAX_RANK], n = p->m * p->n;
    uint32_t ra = a->rank > 2 ? a->rank - 2 : 0, rb = b->rank > 2 ? b->rank - 2 : 0;
    uint32_t rank = MAX(ra, rb);

    for (uint32_t i = 0; i < rank; i++) {
        int64_t da = i + ra >= rank ? a->dims[i + ra - rank] : 1;
        int64_t db = i + rb >= rank ? b->dims[i + rb - rank] : 1;
        dims[i] = da == 1 ? db : da;
    }
    for (uint32_t i = rank; i-- > 0;) {
        stride[0][i] = n;
        n *= dims[i];
    }
    batch_strides(a, rank, dims, stride[1]);
    batch_strides(b, rank, dims, stride[2]);
    walk_make(&p->batch, rank, dims, 3, (const int64_t(*)[MAX_RANK])stride);
}

static void product_shape(const struct node *n, const struct tensor *a, const struct tensor *b,
                          struct product *p)
{
    bool ta = n->op == OP_Gemm && node_int(n, "transA", 0);
    bool tb = n->op == OP_Gemm && node_int(n, "transB", 0);
    int64_t rows = a->rank > 1 ? a->dims[a->rank - 2] : 1, cols = a->dims[a->rank - 1];
    int64_t down = b->rank > 1 ? b->dims[b->rank - 2] : b->dims[0];
    int64_t across = b->rank > 1 ? b->dims[b->rank - 1] : 1;

    p->m = ta ? cols : rows;
    p->k = ta ? rows : cols;
    p->a_row = ta ? 1 : cols;
    p->a_col = ta ? cols : 1;
    p->n = tb ? down : across;
    p->b_row = tb ? 1 : across;
    p->b_col = tb ? across : 1;
}

int plan_product(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    const struct tensor *c = arg_in(a, 2);
    struct product p = {.type = a->in[0]->dtype, .alpha = 1, .beta = 1, .n_in = n->n_in};

#define PRODUCT_TYPE(D, T, U) || p.type == D
    if (!(false PRODUCT_TYPES(PRODUCT_TYPE)))
        return plan_type(a, p.type, err);
    if (a->in[0]->rank == 0 || a->in[1]->rank == 0)
        return plan_fail(a, -EINVAL, "an operand is a scalar", err);
    if (n->op == OP_Gemm) {
        p.alpha = (double)node_float(n, "alpha", 1);
        p.beta = (double)node_float(n, "beta", 1);
    }
    product_shape(n, a->in[0], a->in[1], &p);
    product_batch(a->in[0], a->in[1], &p);
    p.c = c != NULL;
    if (c && c->rank > 2)
        return plan_fail(a, -ENOTSUP, "a third operand of more than two dimensions", err);
    if (c) {
        int64_t cols = c->rank > 0 ? c->dims[c->rank - 1] : 1;
        p.c_col = cols == 1 ? 0 : 1;
        p.c_row = c->rank > 1 && c->dims[0] != 1 ? cols : 0;
    }
    return plan_done(a, run_product, &p, sizeof(p), ret, err);
}
