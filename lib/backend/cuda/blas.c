/* cuBLASLt: finding it, its errors, handles. */
#include "blas.h"

#if HAS_CUBLASLT
#include <dlfcn.h>
#include <stdio.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

struct blas blas;

static struct nvlib library = {.name = "cuBLASLt"};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool fill(void *so)
{
    const char *missing = NULL;

#define CALL(name, declared)                                                                       \
    blas.name = (__typeof__(blas.name))dlsym(so, #declared);                                       \
    if (!blas.name)                                                                                \
        missing = #declared;
    BLAS_CALLS(CALL)
#undef CALL
    if (missing)
        (void)snprintf(library.why, sizeof(library.why), "it lacks %s", missing);
    return !missing;
}

/* 130100 and more digits: major, minor, patch of two digits each. */
static void open_once(void)
{
    static const char *const sonames[] = {"libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
                                          "libcublasLt.so.13", "libcublasLt.so.12", NULL};
    void *so = nvlib_dlopen(sonames, &library);

    if (!so || !fill(so) || !nvlib_fits(&library, blas.cudart_version()))
        return;
    size_t v = blas.version();
    (void)snprintf(library.version, sizeof(library.version), "%zu.%zu.%zu", v / 10000,
                   v / 100 % 100, v % 100);
}

const struct nvlib *blas_library(void)
{
    (void)pthread_once(&once, open_once);
    return &library;
}

static const struct {
    cublasStatus_t status;
    int code;
    const char *name, *text;
} table[] = {
    {CUBLAS_STATUS_NOT_INITIALIZED, -ENODEV, "NOT_INITIALIZED",
     "the library found no usable device or context"},
    {CUBLAS_STATUS_ALLOC_FAILED, -ENOMEM, "ALLOC_FAILED", "no memory left"},
    {CUBLAS_STATUS_INVALID_VALUE, -EINVAL, "INVALID_VALUE", "a value is out of range"},
    {CUBLAS_STATUS_ARCH_MISMATCH, -ENOTSUP, "ARCH_MISMATCH", "not on this architecture"},
    {CUBLAS_STATUS_MAPPING_ERROR, -EIO, "MAPPING_ERROR", "memory cannot be reached"},
    {CUBLAS_STATUS_EXECUTION_FAILED, -EIO, "EXECUTION_FAILED", "the device could not run it"},
    {CUBLAS_STATUS_INTERNAL_ERROR, -EIO, "INTERNAL_ERROR", "an error inside the library"},
    {CUBLAS_STATUS_NOT_SUPPORTED, -ENOTSUP, "NOT_SUPPORTED", "the library has nothing for it"},
    {CUBLAS_STATUS_LICENSE_ERROR, -EACCES, "LICENSE_ERROR", "the licence was not accepted"},
};

/* Our name of a call, with its arguments behind it, becomes the library's. */
static const char *call_name(const char *ours)
{
    static const struct {
        const char *ours, *name;
    } names[] = {
#define CALL(name, declared) {#name, #declared},
        BLAS_CALLS(CALL)
#undef CALL
    };
    size_t n = strcspn(ours, "(");

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strlen(names[i].ours) == n && memcmp(names[i].ours, ours, n) == 0)
            return names[i].name;
    return ours;
}

int blas_check(cublasStatus_t s, const char *call, struct err *err)
{
    if (s == CUBLAS_STATUS_SUCCESS)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (table[i].status == s)
            return err_set(err, table[i].code, "cuBLASLt: %s: CUBLAS_STATUS_%s (%d): %s",
                           call_name(call), table[i].name, (int)s, table[i].text);
    return err_set(err, -EIO, "cuBLASLt: %s: status %d", call_name(call), (int)s);
}

int blas_part_open(struct part *p, struct err *err)
{
    return blas_library()->version[0] ? BLAS(create(&p->blas), err) : 0;
}

void blas_part_close(struct part *p)
{
    if (p->blas)
        (void)blas.destroy(p->blas);
    p->blas = NULL;
}
#else
const struct nvlib *blas_library(void)
{
    static const struct nvlib none = {.name = "cuBLASLt", .why = "built without its header"};

    return &none;
}

int blas_part_open(struct part *p, struct err *err)
{
    (void)p, (void)err;
    return 0;
}

void blas_part_close(struct part *p)
{
    (void)p;
}

int blas_product(struct build *b, const struct node *n, const struct product_args *a,
                 const struct product_refs *refs, bool *ret_taken)
{
    (void)b, (void)n, (void)a, (void)refs;
    *ret_taken = false;
    return 0;
}
#endif
