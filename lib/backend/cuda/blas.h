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
#else
#define HAS_CUBLASLT 0
#endif
