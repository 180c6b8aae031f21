/* libcublasLt.so.13 on the host: column-major products as the descriptors say.  See fake.h.
 *
 * What an algorithm was chosen for is in it, and looked at again when it is used. */
#include "fake_lib.h"

#include <cublasLt.h>
#include <math.h>

#define VERSION 130100
#define PREFERRED_ALIGN 256
#define MAGIC 0x616c676fu
#define WORKSPACE_BYTES ((uint64_t)driver()->gpu->library_workspace)
#define BIAS_ALIGN 16

struct desc {
    cublasComputeType_t compute;
    int32_t op_a, op_b, sms;
    uint32_t epilogue;
    const void *bias;
};
struct layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld, step;
    int32_t batch;
};
struct preference {
    uint64_t workspace;
    uint32_t align, sums;
};
struct algo { /* what lies in a cublasLtMatmulAlgo_t */
    uint32_t magic, align;
    uint64_t workspace, shape;
    int way;
};
_Static_assert(sizeof(struct algo) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm has room");

#define ENTER(name)                                                                                \
    do {                                                                                           \
        int s_ = driver()->enter(name);                                                            \
        if (s_)                                                                                    \
            return (cublasStatus_t)s_;                                                             \
    } while (0)

EXPORTED size_t cublasLtGetVersion(void)
{
    return VERSION;
}

EXPORTED size_t cublasLtGetCudartVersion(void)
{
    return (size_t)driver()->gpu->library_cuda;
}

EXPORTED cublasStatus_t cublasLtCreate(cublasLtHandle_t *ret)
{
    ENTER("cublasLtCreate");
    *ret = (cublasLtHandle_t)handle_new();
    return *ret ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

EXPORTED cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    ENTER("cublasLtDestroy");
    handle_free((struct fake_handle *)h);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptors */
EXPORTED cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret, cublasComputeType_t t,
                                                 cudaDataType_t scale)
{
    ENTER("cublasLtMatmulDescCreate");
    struct desc *d = descriptor_new(sizeof(*d));
    if (!d)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *d = (struct desc){.compute = t, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    *ret = (cublasLtMatmulDesc_t)d;
    return t == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                          : CUBLAS_STATUS_INVALID_VALUE;
}

EXPORTED cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    descriptor_free(d);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t take(void *to, size_t size, const void *from, size_t bytes)
{
    if (size != bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
#define TAKE_INTO(member) take(&(member), sizeof(member), from, bytes)

EXPORTED cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                       cublasLtMatmulDescAttributes_t what,
                                                       const void *from, size_t bytes)
{
    struct desc *d = (struct desc *)desc;

    ENTER("cublasLtMatmulDescSetAttribute");
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return TAKE_INTO(d->op_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return TAKE_INTO(d->op_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return TAKE_INTO(d->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return TAKE_INTO(d->bias);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
        return TAKE_INTO(d->sms);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

EXPORTED cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret, cudaDataType type,
                                                   uint64_t rows, uint64_t cols, int64_t ld)
{
    ENTER("cublasLtMatrixLayoutCreate");
    struct layout *l = descriptor_new(sizeof(*l));
    if (!l)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *l = (struct layout){.type = type, .rows = rows, .cols = cols, .ld = ld, .batch = 1};
    *ret = (cublasLtMatrixLayout_t)l;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    descriptor_free(l);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                         cublasLtMatrixLayoutAttribute_t what,
                                                         const void *from, size_t bytes)
{
    struct layout *l = (struct layout *)layout;

    ENTER("cublasLtMatrixLayoutSetAttribute");
    switch (what) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return TAKE_INTO(l->batch);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return TAKE_INTO(l->step);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

EXPORTED cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret)
{
    ENTER("cublasLtMatmulPreferenceCreate");
    struct preference *p = descriptor_new(sizeof(*p));
    if (!p)
        return CUBLAS_STATUS_ALLOC_FAILED;
    p->align = PREFERRED_ALIGN;
    *ret = (cublasLtMatmulPreference_t)p;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    descriptor_free(p);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what,
    const void *from, size_t bytes)
{
    struct preference *p = (struct preference *)preference;
    uint32_t align = 0;

    ENTER("cublasLtMatmulPreferenceSetAttribute");
    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return TAKE_INTO(p->workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return TAKE_INTO(p->sums);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        if (TAKE_INTO(align) != CUBLAS_STATUS_SUCCESS)
            return CUBLAS_STATUS_INVALID_VALUE;
        p->align = align < p->align ? align : p->align;
        return CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

/* ---- what a product is */
struct job {
    uint64_t m, n, k;
    struct layout a, b, c, d;
    struct desc desc;
    float alpha, beta;
    const void *pa, *pb, *pc;
    void *pd, *workspace;
    size_t workspace_bytes;
    int way;
};

static bool stored(const struct layout *l, int32_t op, uint64_t rows, uint64_t cols)
{
    return l->rows == (op == CUBLAS_OP_N ? rows : cols) &&
           l->cols == (op == CUBLAS_OP_N ? cols : rows) && l->ld >= (int64_t)l->rows;
}

static bool job_make(const struct desc *desc, const struct layout *a, const struct layout *b,
                     const struct layout *c, const struct layout *d, struct job *ret)
{
    uint64_t k = desc->op_a == CUBLAS_OP_N ? a->cols : a->rows;

    *ret = (struct job){
        .m = d->rows, .n = d->cols, .k = k, .a = *a, .b = *b, .c = *c, .d = *d, .desc = *desc};
    return stored(a, desc->op_a, ret->m, k) && stored(b, desc->op_b, k, ret->n) &&
           stored(c, CUBLAS_OP_N, ret->m, ret->n) && stored(d, CUBLAS_OP_N, ret->m, ret->n) &&
           a->batch == d->batch && b->batch == d->batch && c->batch == d->batch &&
           b->type == a->type && c->type == d->type &&
           (d->type == CUDA_R_32F || d->type == a->type) &&
           (a->type == CUDA_R_32F || a->type == CUDA_R_16F || a->type == CUDA_R_16BF);
}

/* A number that differs where what is asked for does. */
static uint64_t job_shape(const struct job *j)
{
    uint64_t h = 1469598103934665603u;
    const uint64_t parts[] = {j->m,
                              j->n,
                              j->k,
                              (uint64_t)j->a.ld,
                              (uint64_t)j->b.ld,
                              (uint64_t)j->d.ld,
                              (uint64_t)j->a.step,
                              (uint64_t)j->b.step,
                              (uint64_t)j->d.batch,
                              j->desc.epilogue,
                              (uint64_t)(j->a.type * 100 + j->d.type),
                              (uint64_t)(j->desc.op_a * 8 + j->desc.op_b)};

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        h = (h ^ parts[i]) * 1099511628211u;
    return h;
}

static bool has_bias(const struct desc *d)
{
    return d->epilogue == CUBLASLT_EPILOGUE_BIAS || d->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS ||
           d->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
}

static bool has_relu(const struct desc *d)
{
    return d->epilogue == CUBLASLT_EPILOGUE_RELU || d->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
}

static bool has_gelu(const struct desc *d)
{
    return d->epilogue == CUBLASLT_EPILOGUE_GELU || d->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
}

/* What the library has no way for. */
static bool refused(const struct desc *d, const struct job *j)
{
    const struct fake_gpu *gpu = driver()->gpu;

    return (gpu->library_columns && j->m > (uint64_t)gpu->library_columns) ||
           gpu->library_refuses == 1 || (gpu->library_refuses == 2 && (has_relu(d) || has_gelu(d)));
}

/* Gelu is the form with tanh. */
static float activated(const struct desc *d, float x)
{
    if (has_gelu(d))
        return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    return has_relu(d) && x < 0 ? 0 : x;
}

EXPORTED cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t h, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t pref, int n, cublasLtMatmulHeuristicResult_t *ret, int *ret_n)
{
    const struct preference *p = (const struct preference *)pref;
    const struct desc *is = (const struct desc *)desc;
    struct job j;

    ENTER("cublasLtMatmulAlgoGetHeuristic");
    handle_enter((struct fake_handle *)h);
    handle_leave((struct fake_handle *)h);
    *ret_n = 0;
    if (!job_make(is, (struct layout *)a, (struct layout *)b, (struct layout *)c,
                  (struct layout *)d, &j) ||
        n < 2)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (has_bias(is) && (!is->bias || (uintptr_t)is->bias % BIAS_ALIGN))
        driver()->broken("the bias is set before the heuristic is asked");
    if (is->sms <= 0)
        driver()->broken("the heuristic is told the partition's SMs");
    if (refused(is, &j))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p->sums != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        driver()->broken("sums of parts are in FP32");
    memset(ret, 0, (size_t)n * sizeof(*ret));
    ret[0].state = CUBLAS_STATUS_NOT_SUPPORTED; /* the first is none */
    *ret_n = driver()->gpu->library_offers < n ? 1 + driver()->gpu->library_offers : n;
    for (int i = 1; i < *ret_n; i++) {
        const struct algo good = {MAGIC, p->align,
                                  p->workspace < WORKSPACE_BYTES ? p->workspace : WORKSPACE_BYTES,
                                  job_shape(&j), i - 1};
        memcpy(&ret[i].algo, &good, sizeof(good));
        ret[i].workspaceSize = good.workspace;
    }
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                                cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                const cublasLtMatmulAlgo_t *algo,
                                                cublasLtMatmulHeuristicResult_t *ret)
{
    struct algo is;
    struct job j;

    ENTER("cublasLtMatmulAlgoCheck");
    handle_enter((struct fake_handle *)h);
    handle_leave((struct fake_handle *)h);
    memcpy(&is, algo, sizeof(is));
    if (!job_make((struct desc *)desc, (struct layout *)a, (struct layout *)b, (struct layout *)c,
                  (struct layout *)d, &j) ||
        is.magic != MAGIC || is.shape != job_shape(&j) || refused((struct desc *)desc, &j))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    ret->workspaceSize = is.workspace;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product */
static enum fake_type type_of(const struct layout *l)
{
    return l->type == CUDA_R_16F ? FAKE_F16 : l->type == CUDA_R_16BF ? FAKE_BF16 : FAKE_F32;
}

static float element(const void *p, const struct layout *l, int64_t z, uint64_t row, uint64_t col)
{
    return fake_load(p, type_of(l), z * l->step + (int64_t)row + (int64_t)col * l->ld);
}

static float sum_of(const struct job *j, int64_t z, uint64_t row, uint64_t col)
{
    float sum = 0;

    for (uint64_t k = 0; k < j->k; k++)
        sum += (j->desc.op_a == CUBLAS_OP_N ? element(j->pa, &j->a, z, row, k)
                                            : element(j->pa, &j->a, z, k, row)) *
               (j->desc.op_b == CUBLAS_OP_N ? element(j->pb, &j->b, z, k, col)
                                            : element(j->pb, &j->b, z, col, k));
    return sum;
}

static void job_run(const void *data)
{
    const struct job *j = data;

    way_run(j->way);
    scribble(j->workspace, j->workspace_bytes);
    for (int64_t z = 0; z < j->d.batch; z++)
        for (uint64_t col = 0; col < j->n; col++)
            for (uint64_t row = 0; row < j->m; row++) {
                float x = j->alpha * sum_of(j, z, row, col);
                if (j->beta != 0)
                    x += j->beta * element(j->pc, &j->c, z, row, col);
                if (has_bias(&j->desc))
                    x += fake_load(j->desc.bias, type_of(&j->d), (int64_t)row);
                fake_store(j->pd, type_of(&j->d),
                           z * j->d.step + (int64_t)row + (int64_t)col * j->d.ld,
                           activated(&j->desc, x));
            }
}

static void check_call(const struct job *j, const struct algo *algo, size_t bytes)
{
    const uintptr_t all = (uintptr_t)j->pa | (uintptr_t)j->pb | (uintptr_t)j->pc | (uintptr_t)j->pd;

    if (algo->magic != MAGIC || algo->shape != job_shape(j))
        driver()->broken("an algorithm is used for what it was chosen for");
    else if (all % algo->align)
        driver()->broken("operands are as aligned as the algorithm was promised");
    if (has_bias(&j->desc) && (!j->desc.bias || (uintptr_t)j->desc.bias % BIAS_ALIGN))
        driver()->broken("a bias is there, and aligned");
    if (bytes < algo->workspace || (bytes && !j->workspace) || (uintptr_t)j->workspace % 256)
        driver()->broken("an algorithm has the workspace that it asked for");
}

EXPORTED cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                       const void *alpha, const void *pa, cublasLtMatrixLayout_t a,
                                       const void *pb, cublasLtMatrixLayout_t b, const void *beta,
                                       const void *pc, cublasLtMatrixLayout_t c, void *pd,
                                       cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                                       void *workspace, size_t bytes, cudaStream_t stream)
{
    struct algo is;
    struct job j;

    ENTER("cublasLtMatmul");
    if (!job_make((struct desc *)desc, (struct layout *)a, (struct layout *)b, (struct layout *)c,
                  (struct layout *)d, &j))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&is, algo, sizeof(is));
    j.alpha = *(const float *)alpha;
    j.beta = *(const float *)beta;
    j.pa = pa;
    j.pb = pb;
    j.pc = pc;
    j.pd = pd;
    j.workspace = workspace;
    j.workspace_bytes = bytes;
    j.way = is.way;
    check_call(&j, &is, bytes);
    if (way_fails(j.way))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    handle_work((struct fake_handle *)h);
    int r = driver()->run(stream, job_run, &j, sizeof(j));
    handle_leave((struct fake_handle *)h);
    return r == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
