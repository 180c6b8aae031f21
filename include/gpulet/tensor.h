/* Element types and dense tensors: what the model, the kernels, the backends and the wire share.
 *
 * A tensor is row-major and packed, little-endian.  A tensor of DT_STRING holds its elements in
 * wire form: a uint32 length and that many bytes, one after the other. */
#pragma once

#include <gpulet/base.h>

#define MAX_RANK 8

/* Numbered as in the ONNX file format. */
enum dtype {
    DT_NONE = 0,
    DT_FP32 = 1,
    DT_UINT8 = 2,
    DT_INT8 = 3,
    DT_UINT16 = 4,
    DT_INT16 = 5,
    DT_INT32 = 6,
    DT_INT64 = 7,
    DT_STRING = 8,
    DT_BOOL = 9,
    DT_FP16 = 10,
    DT_FP64 = 11,
    DT_UINT32 = 12,
    DT_UINT64 = 13,
    DT_BF16 = 16,
    DT_END
};

/* Bytes of one element; 0 for DT_STRING and for what is no type of ours. */
size_t dtype_size(enum dtype t);
/* "FP32", "BYTES", …: the v2 protocol's name; "?" for what is no type of ours. */
const char *dtype_name(enum dtype t);
/* "TYPE_FP32", "TYPE_STRING", …: the name in a v2 model configuration. */
const char *dtype_config_name(enum dtype t);
/* The type of a v2 name, DT_NONE when there is none. */
enum dtype dtype_of(const char *name, size_t len);

/* In what a model's products and convolutions are computed; the default is what the file says. */
enum precision { PRECISION_FP32, PRECISION_BF16, PRECISION_INT8, PRECISION_FP16 };
/* "fp32", "bf16", "int8", "fp16". */
const char *precision_name(enum precision p);
/* -EINVAL: no such name. */
int precision_of(const char *name, enum precision *ret);

struct tensor {
    enum dtype dtype;
    uint32_t rank;
    int64_t dims[MAX_RANK]; /* all >= 0 */
    size_t bytes;           /* of data */
    void *data;             /* NULL while only the shape is known */
};

/* Product of the dimensions into *ret; -EOVERFLOW when it does not fit int64. */
int tensor_count(const struct tensor *t, int64_t *ret);
/* Set dtype, rank and dims, and bytes from them; -EOVERFLOW.  data is left alone. */
int tensor_shape(struct tensor *t, enum dtype dtype, uint32_t rank, const int64_t *dims);
/* The string at byte *at of a DT_STRING tensor, and *at behind it; -EINVAL when it would end beyond
 * the data.  *ret points into the tensor. */
struct str {
    const char *s; /* no NUL behind it */
    uint32_t n;
};
int tensor_text(const struct tensor *t, size_t *at, struct str *ret);
/* "[2,3,224]" into buf; returns buf. */
char *dims_print(uint32_t rank, const int64_t *dims, char *buf, size_t size);
