/* Products of matrices. */
#include "nvlib.h"

static int by_library(struct build *b, const struct node *n, const struct product_args *a,
                      struct product_refs *ref, bool *ret_taken)
{
    uint32_t bias = n->n_in > 2 ? n->in[2] : VALUE_NONE;
    int r = build_as(b, n->in[0], ref->in, false, &ref->a);

    if (r == 0)
        r = build_as(b, n->in[1], ref->in, false, &ref->b);
    if (r == 0)
        r = build_as(b, bias, ref->out, false, &ref->bias);
    if (r == 0)
        r = build_out_as(b, n->out[0], ref->out, false, &ref->y);
    return r < 0 ? r : blas_product(b, n, a, ref, ret_taken);
}

static int product_step(struct build *b, const struct node *n, struct product_args a)
{
    struct product_refs ref = {.in = half_for(b, n), .out = DT_FP32};
    bool taken = false;
    int r = 0;

    for (uint32_t i = 0; i < n->n_in && i < 3; i++)
        if (!is_f32(in_of(b, n, i)))
            return build_no_type(b, in_of(b, n, i)->dtype);
    if (b->fused[b->node].sides)
        r = lower_sides(b, n, a, &taken);
    if (r < 0 || taken)
        return r;
    if (ref.in != DT_FP32) {
        ref.out = half_wanted(b, n->out[0]) ? ref.in : DT_FP32;
        r = by_library(b, n, &a, &ref, &taken);
        b->exe->n_asked += taken;
        if (!taken)
            half_forget(b, n->out[0]);
        ref.in = ref.out = DT_FP32;
    }
    if (r == 0 && !taken)
        r = by_library(b, n, &a, &ref, &taken);
    if (r < 0 || taken)
        return r;
    b->exe->n_plain += a.n > 0;
    return STEP(b, product, a, HOLE(product, a, ref.a), HOLE(product, b, ref.b),
                HOLE(product, bias, ref.bias), HOLE(product, y, ref.y));
}

/* A vector is a matrix of one row, or of one column. */
static struct tensor as_matrix(const struct tensor *t, bool column)
{
    struct tensor m = *t;

    if (t->rank == 1) {
        m.rank = 2;
        m.dims[0] = column ? t->dims[0] : 1;
        m.dims[1] = column ? 1 : t->dims[0];
    }
    return m;
}

/* The stacks of matrices, broadcast against each other, in elements. */
static void stacks(const struct tensor *ta, const struct tensor *tb, struct gpu_walk *w)
{
    struct tensor a = *ta, c = *tb, y = {0};
    int64_t stride[2][MAX_RANK];

    a.rank -= 2;
    c.rank -= 2;
    y.rank = MAX(a.rank, c.rank);
    for (uint32_t i = 0; i < y.rank; i++) {
        int64_t da = i + a.rank >= y.rank ? a.dims[i + a.rank - y.rank] : 1;
        int64_t dc = i + c.rank >= y.rank ? c.dims[i + c.rank - y.rank] : 1;
        y.dims[i] = da == 1 ? dc : da;
    }
    strides_broadcast(&a, &y, stride[0]);
    strides_broadcast(&c, &y, stride[1]);
    for (uint32_t i = 0; i < y.rank; i++) {
        stride[0][i] *= span(ta, a.rank, ta->rank);
        stride[1][i] *= span(tb, c.rank, tb->rank);
    }
    walk_make(w, y.rank, y.dims, 2, stride);
}

int lower_matmul(struct build *b, const struct node *n)
{
    if (b->fused[b->node].attend)
        return lower_attend(b, b->fused[b->node].attend);
    struct tensor ta = as_matrix(in_of(b, n, 0), false), tb = as_matrix(in_of(b, n, 1), true);
    int64_t inner = ta.dims[ta.rank - 1], cols = tb.dims[tb.rank - 1];
    struct product_args a = {.n = count_of(value_of(b, n->out[0])),
                             .rows = ta.dims[ta.rank - 2],
                             .cols = cols,
                             .inner = inner,
                             .a_row = inner,
                             .a_inner = 1,
                             .b_inner = cols,
                             .b_col = 1,
                             .bias_col = 1,
                             .alpha = 1,
                             .beta = 1};

    stacks(&ta, &tb, &a.walk);
    return product_step(b, n, a);
}

int lower_gemm(struct build *b, const struct node *n)
{
    const struct tensor *ta = in_of(b, n, 0), *y = value_of(b, n->out[0]), *c = in_of(b, n, 2);
    bool at = node_int(n, "transA", 0) != 0, bt = node_int(n, "transB", 0) != 0;
    int64_t bias[MAX_RANK] = {0};
    struct product_args a = {.n = count_of(y),
                             .rows = y->dims[0],
                             .cols = y->dims[1],
                             .inner = ta->dims[at ? 0 : 1],
                             .alpha = node_float(n, "alpha", 1),
                             .beta = node_float(n, "beta", 1)};

    a.a_row = at ? 1 : a.inner;
    a.a_inner = at ? a.rows : 1;
    a.b_inner = bt ? 1 : a.cols;
    a.b_col = bt ? a.inner : 1;
    if (c && c->rank > 2)
        return build_fail(b, -EINVAL, "C has more than two dimensions");
    if (c)
        strides_broadcast(c, y, bias);
    a.bias_row = bias[0];
    a.bias_col = bias[1];
    return product_step(b, n, a);
}
