/* Which algorithm does a product: the fastest of those that the library proposes for the SMs of
 * the partition, by what they take there (choice.h). */
#include "blas.h"

#if HAS_CUBLASLT
#include "choice.h"

#define TRIES WAYS_MAX /* of the library's proposals: the best is seldom further down */
#define WORKSPACE_BYTES ((size_t)32 << 20)

struct tries {
    struct blas_call *call;
    struct part *part;
    struct blas_args args;
    unsigned n;
    cublasLtMatmulAlgo_t algo[TRIES];
    size_t workspace[TRIES];
};

/* ---- what the library proposes */
static int prefer(cublasLtMatmulPreference_t pref, struct err *err)
{
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t most = WORKSPACE_BYTES; /* without it: none */
    uint32_t align = BLAS_ALIGN;
    uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* in FP32, where there are parts */
    int r =
        BLAS(pref_set(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof(most)), err);

    if (r == 0)
        r = BLAS(pref_set(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof(sums)),
                 err);
    for (size_t i = 0; i < ARRAY_SIZE(aligned) && r == 0; i++)
        r = BLAS(pref_set(pref, aligned[i], &align, sizeof(align)), err);
    return r;
}

/* The library, asked again, still says that it can do it. */
static bool add(struct tries *t, const cublasLtMatmulAlgo_t *algo)
{
    const struct blas_call *c = t->call;
    cublasLtMatmulHeuristicResult_t again;

    if (blas.algo_check(t->part->blas, c->desc, c->a, c->b, c->d, c->d, algo, &again) !=
            CUBLAS_STATUS_SUCCESS ||
        again.workspaceSize > WORKSPACE_BYTES)
        return false;
    t->algo[t->n] = *algo;
    t->workspace[t->n++] = again.workspaceSize;
    return true;
}

static int propose(struct tries *t, cublasLtMatmulPreference_t pref, struct err *err)
{
    const struct blas_call *c = t->call;
    cublasLtMatmulHeuristicResult_t found[TRIES];
    int n = 0;
    cublasStatus_t s =
        blas.heuristic(t->part->blas, c->desc, c->a, c->b, c->d, c->d, pref, TRIES, found, &n);

    if (s == CUBLAS_STATUS_NOT_SUPPORTED)
        return 0;
    if (s != CUBLAS_STATUS_SUCCESS)
        return blas_check(s, "heuristic", err);
    for (int i = 0; i < n; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS)
            (void)add(t, &found[i].algo);
    return 0;
}

static int proposals(struct tries *t, struct err *err)
{
    cublasLtMatmulPreference_t pref = NULL;
    int r = BLAS(pref_create(&pref), err);

    if (r == 0)
        r = prefer(pref, err);
    if (r == 0)
        r = propose(t, pref, err);
    if (pref)
        (void)blas.pref_destroy(pref);
    return r;
}

/* ---- the fastest */
static struct hash128 key_of(const struct product *p, uint32_t sms)
{
    const int64_t is[] = {'p',      p->in,     p->out,    p->m,      p->n,      p->k,
                          p->stack, p->a.op,   p->a.rows, p->a.cols, p->a.ld,   p->a.step,
                          p->b.op,  p->b.rows, p->b.cols, p->b.ld,   p->b.step, p->beta != 0,
                          p->bias,  p->relu,   p->gelu,   sms,       BLAS_ALIGN};

    return hash_bytes(is, sizeof(is));
}

static void take(struct tries *t, unsigned i)
{
    t->call->algo = t->algo[i];
    t->call->workspace = t->workspace[i];
}

static int run(void *arg, unsigned i, CUstream stream, struct err *err)
{
    struct tries *t = arg;

    take(t, i);
    return blas_run(&t->call->call, t->part, stream, &t->args, NULL, err);
}

static size_t bytes_of(cudaDataType type, int64_t stack, int64_t step, int64_t each)
{
    size_t n = (size_t)((stack - 1) * step + each);

    return align_up(n * (type == CUDA_R_32F ? 4 : 2), BLAS_ALIGN);
}

/* As a slot would have it, in memory that nobody reads. */
static bool place(struct build *b, struct tries *t, const struct product *p)
{
    size_t y = bytes_of(p->out, p->stack, p->m * p->n, p->m * p->n), workspace = 0;
    size_t bytes[] = {bytes_of(p->in, p->stack, p->b.step, p->b.ld * p->b.cols),
                      bytes_of(p->in, p->stack, p->a.step, p->a.ld * p->a.cols),
                      p->beta != 0 ? y : 0,
                      p->bias ? bytes_of(p->out, 1, 0, p->m) : 0,
                      y,
                      0};
    void *at[ARRAY_SIZE(bytes)];
    size_t all = 0;

    for (unsigned i = 0; i < t->n; i++)
        workspace = MAX(workspace, t->workspace[i]);
    bytes[ARRAY_SIZE(bytes) - 1] = workspace;
    for (size_t i = 0; i < ARRAY_SIZE(bytes); i++)
        all += bytes[i];
    CUdeviceptr from = contest_memory(b, all);
    for (size_t i = 0; i < ARRAY_SIZE(bytes); from += bytes[i++])
        at[i] = bytes[i] ? (void *)from : NULL;
    t->args = (struct blas_args){at[0], at[1], at[2], at[3], at[4], at[5]};
    return at[0] != NULL;
}

/* One is no contest. */
static int measure(struct build *b, struct tries *t, const struct product *p, struct hash128 key)
{
    struct ways ways = {.n = t->n, .run = run, .arg = t};
    unsigned best = 0;
    bool known = false;
    int r = 0;

    if (t->n > 1 && contest_begin(b)) {
        if (place(b, t, p))
            r = contest(b, &ways, &best, &known);
        contest_end(b);
    }
    take(t, best);
    if (known)
        choices_add(b->part->dev->choices, key, &t->algo[best], sizeof(t->algo[best]));
    return r;
}

int blas_algorithm(struct build *b, struct blas_call *c, const struct product *p, bool *ret_found)
{
    struct tries t = {.call = c, .part = b->part};
    struct hash128 key = key_of(p, b->part->units);
    cublasLtMatmulAlgo_t known;

    _Static_assert(sizeof(known) <= CHOICE_BYTES, "an algorithm is kept by value");
    bool again = choices_find(b->part->dev->choices, key, &known, sizeof(known)) && add(&t, &known);
    int r = again ? 0 : proposals(&t, b->err);
    *ret_found = r == 0 && t.n > 0;
    if (r < 0 || t.n == 0)
        return r;
    if (!again)
        return measure(b, &t, p, key);
    take(&t, 0);
    return 0;
}
#endif
