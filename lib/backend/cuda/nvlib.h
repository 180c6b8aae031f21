/* NVIDIA's libraries that do the heavy nodes where they are there: cuBLASLt (blas.c) and cuDNN
 * (dnn.c).  Each is one table that is filled by dlopen; without it our own kernels do its nodes,
 * and /v1/devices and the log say so.
 *
 * A handle belongs to one partition, is made with its context current and is used under the
 * partition's `use` lock only. */
#pragma once

#include "exe.h"

struct nvlib {
    const char *name;
    char version[32]; /* "13.1.0"; "": it cannot be used, and */
    char why[160];    /* says why */
};

/* Opens the first of the sonames that is there.  Any thread. */
void *nvlib_dlopen(const char *const *sonames, struct nvlib *lib);
/* Its calls need a driver as new as the CUDA it was made for; the driver is open. */
bool nvlib_fits(struct nvlib *lib, size_t cudart);

/* What there is of them; opened when first asked for, once.  Any thread. */
const struct nvlib *blas_library(void);
const struct nvlib *dnn_library(void);
/* The partition's handle, if the library can be used; its context is current. */
int blas_part_open(struct part *p, struct err *err);
void blas_part_close(struct part *p);
int dnn_part_open(struct part *p, struct err *err);
void dnn_part_close(struct part *p);

/* Where the operands of a product are. */
struct product_refs {
    enum dtype in, out; /* of a and b; of bias and y */
    struct ref a, b, bias, y;
};
/* The product by cuBLASLt, with the post steps that it can do; *ret_taken: it does it, else it is
 * for our own kernel. */
int blas_product(struct build *b, const struct node *n, const struct product_args *a,
                 const struct product_refs *refs, bool *ret_taken);

struct conv_refs {
    enum dtype type; /* of all; channels last, but for FP32 */
    struct ref x, w, bias, y;
};
/* The same of a convolution, by cuDNN. */
int dnn_conv(struct build *b, const struct node *n, const struct conv_args *a,
             const struct conv_refs *refs, bool *ret_taken);
