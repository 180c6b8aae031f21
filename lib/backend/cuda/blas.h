/* cuBLASLt's table.  A row: our name, the declaration in cublasLt.h. */
#pragma once

#include "nvlib.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define HAS_CUBLASLT 1

/* clang-format off */
#define BLAS_CALLS(CALL) \
    CALL(create, cublasLtCreate) \
    CALL(destroy, cublasLtDestroy) \
    CALL(version, cublasLtGetVersion) \
    CALL(cudart_version, cublasLtGetCudartVersion) \
    CALL(desc_create, cublasLtMatmulDescCreate) \
    CALL(desc_destroy, cublasLtMatmulDescDestroy) \
    CALL(desc_set, cublasLtMatmulDescSetAttribute) \
    CALL(layout_create, cublasLtMatrixLayoutCreate) \
    CALL(layout_destroy, cublasLtMatrixLayoutDestroy) \
    CALL(layout_set, cublasLtMatrixLayoutSetAttribute) \
    CALL(pref_create, cublasLtMatmulPreferenceCreate) \
    CALL(pref_destroy, cublasLtMatmulPreferenceDestroy) \
    CALL(pref_set, cublasLtMatmulPreferenceSetAttribute) \
    CALL(heuristic, cublasLtMatmulAlgoGetHeuristic) \
    CALL(algo_check, cublasLtMatmulAlgoCheck) \
    CALL(matmul, cublasLtMatmul)
/* clang-format on */

struct blas {
#define CALL(name, declared) __typeof__(&declared) name;
    BLAS_CALLS(CALL)
#undef CALL
};
extern struct blas blas;

/* 0, or our code for it, and err names library, call, status and what it means. */
int blas_check(cublasStatus_t s, const char *call, struct err *err);
#define BLAS(call, err) blas_check(blas.call, #call, err)

/* ---- blas_product.c */
#define BLAS_ALIGN 256u /* of what a step reads and writes */
struct blas_args {
    const void *a, *b, *c, *bias; /* ours; c and bias may be NULL */
    void *y, *workspace;
};

/* One operand as the library sees it. */
struct matrix {
    cublasOperation_t op;
    int64_t rows, cols, ld, step; /* step: between the matrices of a stack */
};

/* What is asked for, all of it in the library's view. */
struct product {
    cudaDataType in, out;
    int64_t m, n, k, stack;
    struct matrix a, b;
    float alpha, beta;
    bool bias, relu, gelu;
    struct ref c; /* added, times beta; REF_NONE: nothing */
};

struct blas_call {
    struct call call; /* first */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d; /* d: of what is added, too */
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    float alpha, beta;
    bool bias;
};
/* One launch; args: struct blas_args. */
int blas_run(const struct call *call, struct part *p, CUstream stream, const void *args,
             void *state, struct err *err);

/* ---- blas_algo.c: sets algo and workspace of a call that is described otherwise. */
int blas_algorithm(struct build *b, struct blas_call *c, const struct product *p, bool *ret_found);
#else
#define HAS_CUBLASLT 0
#endif
