/* Products by cuBLASLt.
 *
 * ONNX is row-major and the library column-major: it is asked for the transposed product, so its A
 * is our second operand, its B our first, and its rows are our columns.  A bias then has a number
 * for each row of the result, which is what the library's epilogue adds.
 *
 * The algorithm is chosen when the model is compiled (blas_algo.c), and kept by value.  It may take
 * memory of the run: a buffer as any other, so it is counted, and never shared between runs. */
#include "blas.h"

#if HAS_CUBLASLT
/* ---- what can be asked for */
static cudaDataType type_of(enum dtype t)
{
    return t == DT_FP16 ? CUDA_R_16F : t == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* Element (r, c) lies at r * row + c * col.  In columns as it is, or transposed. */
static bool matrix_of(int64_t rows, int64_t cols, int64_t row, int64_t col, struct matrix *ret)
{
    if (row == 1 && col >= rows)
        *ret = (struct matrix){CUBLAS_OP_N, rows, cols, col, 0};
    else if (col == 1 && row >= cols)
        *ret = (struct matrix){CUBLAS_OP_T, cols, rows, row, 0};
    else
        return false;
    return true;
}

/* One matrix for all of a stack makes the stack's rows those of one matrix. */
static void stack_as_rows(struct product_args *a)
{
    struct gpu_walk *w = &a->walk;

    if (w->rank == 1 && w->stride[1][0] == 0 && a->a_inner == 1 &&
        w->stride[0][0] == a->rows * a->a_row && a->bias_row == 0) {
        a->rows *= w->dims[0];
        w->rank = 0;
    }
}

static bool operands(struct product_args a, struct product *ret)
{
    stack_as_rows(&a);
    if (a.n == 0 || a.inner == 0 || a.walk.rank > 1)
        return false;
    *ret = (struct product){.m = a.cols, .n = a.rows, .k = a.inner, .stack = 1, .alpha = a.alpha};
    if (!matrix_of(a.cols, a.inner, a.b_col, a.b_inner, &ret->a) ||
        !matrix_of(a.inner, a.rows, a.a_inner, a.a_row, &ret->b))
        return false;
    if (a.walk.rank == 1) {
        ret->stack = a.walk.dims[0];
        ret->b.step = a.walk.stride[0][0];
        ret->a.step = a.walk.stride[1][0];
    }
    return ret->stack <= INT32_MAX;
}

/* A vector along the columns goes with the epilogue; a whole matrix is what is added. */
static bool bias_fits(const struct product_args *a, struct ref bias, struct product *ret)
{
    bool along = a->bias_col == 1 || a->cols == 1;

    if (bias.kind == REF_NONE)
        return true;
    if (along && a->bias_row == 0 && a->beta == 1) {
        ret->bias = true;
        return true;
    }
    ret->c = bias;
    ret->beta = a->beta;
    return along && (a->bias_row == a->cols || a->rows == 1) && ret->stack == 1;
}

/* The library's Gelu is the form with tanh, of which nobody says how exact it is.  It is off the
 * one with erf by 4.1e-4 at most: where the result is stored in 16 bits that is both; FP32 gets
 * neither. */
static bool is_gelu(const struct post *p, enum dtype out)
{
    return out != DT_FP32 && (p->kind == POST_GELU || p->kind == POST_GELU_TANH);
}

/* As many post steps as the epilogue does: a residual, then Relu or Gelu. */
static int fuse(struct build *b, const struct node *n, enum dtype out, struct product *p,
                uint32_t *ret_n)
{
    uint32_t i = 0;
    int r = 0;

    if (i < n->n_post && n->post[i].kind == POST_ADD && p->c.kind == REF_NONE) {
        r = build_as(b, n->post[i++].value, out, false, &p->c);
        p->beta = 1;
    }
    if (i < n->n_post) {
        p->relu = n->post[i].kind == POST_RELU;
        p->gelu = is_gelu(&n->post[i], out);
        i += p->relu || p->gelu;
    }
    *ret_n = i;
    return r;
}

/* ---- descriptors */
static void blas_free(struct call *call)
{
    struct blas_call *c = (struct blas_call *)call;

    if (c->d)
        (void)blas.layout_destroy(c->d);
    if (c->b)
        (void)blas.layout_destroy(c->b);
    if (c->a)
        (void)blas.layout_destroy(c->a);
    if (c->desc)
        (void)blas.desc_destroy(c->desc);
    free(c);
}

static int set_desc(struct blas_call *c, cublasLtMatmulDescAttributes_t what, const void *to,
                    size_t bytes, struct err *err)
{
    return BLAS(desc_set(c->desc, what, to, bytes), err);
}

static uint32_t epilogue_of(const struct product *p)
{
    return p->relu   ? (p->bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU)
           : p->gelu ? (p->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU)
           : p->bias ? CUBLASLT_EPILOGUE_BIAS
                     : CUBLASLT_EPILOGUE_DEFAULT;
}

static int describe(struct blas_call *c, const struct product *p, uint32_t sms, struct err *err)
{
    static const void *const stand_in =
        (const void *)(uintptr_t)BLAS_ALIGN; /* as aligned as any is */
    uint32_t epilogue = epilogue_of(p);
    int32_t op_a = p->a.op, op_b = p->b.op, target = (int32_t)sms;
    int r = BLAS(desc_create(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), err);

    if (r == 0)
        r = set_desc(c, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof(op_a), err);
    if (r == 0)
        r = set_desc(c, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof(op_b), err);
    if (r == 0)
        r = set_desc(c, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue), err);
    if (r == 0)
        r = set_desc(c, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &target, sizeof(target), err);
    /* Before the heuristic: it looks at the address. */
    if (r == 0 && p->bias)
        r = set_desc(c, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &stand_in, sizeof(stand_in), err);
    return r;
}

static int layout(cublasLtMatrixLayout_t *ret, cudaDataType type, const struct matrix *m,
                  int64_t stack, struct err *err)
{
    int32_t n = (int32_t)stack;
    int r = BLAS(layout_create(ret, type, (uint64_t)m->rows, (uint64_t)m->cols, m->ld), err);

    if (r == 0 && n > 1)
        r = BLAS(layout_set(*ret, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof(n)), err);
    if (r == 0 && n > 1)
        r = BLAS(layout_set(*ret, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m->step,
                            sizeof(m->step)),
                 err);
    return r;
}

static int layouts(struct blas_call *c, const struct product *p, struct err *err)
{
    struct matrix d = {CUBLAS_OP_N, p->m, p->n, p->m, p->m * p->n};
    int r = layout(&c->a, p->in, &p->a, p->stack, err);

    if (r == 0)
        r = layout(&c->b, p->in, &p->b, p->stack, err);
    return r < 0 ? r : layout(&c->d, p->out, &d, p->stack, err);
}

/* ---- the call */
int blas_run(const struct call *call, struct part *p, CUstream stream, const void *args,
             void *state, struct err *err)
{
    const struct blas_call *c = (const struct blas_call *)call;
    const struct blas_args *x = args;
    int r = 0;

    (void)state;
    if (c->bias)
        r = BLAS(desc_set(c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias, sizeof(x->bias)),
                 err);
    if (r < 0)
        return r;
    return BLAS(matmul(p->blas, c->desc, &c->alpha, x->b, c->a, x->a, c->b, &c->beta,
                       x->c ? x->c : x->y, c->d, x->y, c->d, &c->algo, x->workspace, c->workspace,
                       stream),
                err);
}

static int emit(struct build *b, struct blas_call *c, const struct product *p,
                const struct product_refs *refs)
{
    struct blas_args args = {0};
    struct ref workspace = {0}, bias = {0};
    int r = c->workspace ? build_buf(b, c->workspace, &workspace) : 0;

    if (p->bias)
        bias = refs->bias;
    return r < 0 ? r
                 : CALL_STEP(b, &c->call, args, HOLE(blas, a, refs->a), HOLE(blas, b, refs->b),
                             HOLE(blas, c, p->c), HOLE(blas, bias, bias), HOLE(blas, y, refs->y),
                             HOLE(blas, workspace, workspace));
}

static void blas_free_auto(struct blas_call **c)
{
    if (*c)
        blas_free(&(*c)->call);
}

/* With the first n_fused post steps. */
static int attempt(struct build *b, const struct node *n, const struct product *p, uint32_t n_fused,
                   const struct product_refs *refs, bool *ret_taken)
{
    AUTO(blas_free) struct blas_call *c = calloc(1, sizeof(*c));

    if (!c)
        return err_set(b->err, -ENOMEM, "out of memory");
    c->call = (struct call){.node = n, .run = blas_run, .free = blas_free};
    c->alpha = p->alpha;
    c->beta = p->beta;
    c->bias = p->bias;
    int r = describe(c, p, b->part->units, b->err);
    if (r == 0)
        r = layouts(c, p, b->err);
    if (r == 0)
        r = blas_algorithm(b, c, p, ret_taken);
    if (r < 0)
        return build_wrap(b);
    if (!*ret_taken)
        return 0;
    b->n_fused = n_fused;
    r = emit(b, c, p, refs);
    if (r == 0)
        (void)TAKE(c); /* the exe's */
    return r;
}

int blas_product(struct build *b, const struct node *n, const struct product_args *a,
                 const struct product_refs *refs, bool *ret_taken)
{
    struct product p;
    uint32_t n_fused;

    *ret_taken = false;
    if (!b->part->blas || b->batch_invariant || !operands(*a, &p) || !bias_fits(a, refs->bias, &p))
        return 0;
    p.in = type_of(refs->in);
    p.out = type_of(refs->out);
    struct product bare = p;
    int r = fuse(b, n, refs->out, &p, &n_fused);
    if (r == 0)
        r = attempt(b, n, &p, n_fused, refs, ret_taken);
    return r < 0 || *ret_taken || n_fused == 0 ? r : attempt(b, n, &bare, 0, refs, ret_taken);
}
#endif
