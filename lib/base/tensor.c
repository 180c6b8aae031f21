/* Element types in one table; shapes with checked products. */
#include <gpulet/tensor.h>
#include <stdio.h>

static const struct {
    const char *name;
    const char *config;
    uint8_t size;
} dtypes[DT_END] = {
    [DT_FP32] = {"FP32", "TYPE_FP32", 4},       [DT_UINT8] = {"UINT8", "TYPE_UINT8", 1},
    [DT_INT8] = {"INT8", "TYPE_INT8", 1},       [DT_UINT16] = {"UINT16", "TYPE_UINT16", 2},
    [DT_INT16] = {"INT16", "TYPE_INT16", 2},    [DT_INT32] = {"INT32", "TYPE_INT32", 4},
    [DT_INT64] = {"INT64", "TYPE_INT64", 8},    [DT_STRING] = {"BYTES", "TYPE_STRING", 0},
    [DT_BOOL] = {"BOOL", "TYPE_BOOL", 1},       [DT_FP16] = {"FP16", "TYPE_FP16", 2},
    [DT_FP64] = {"FP64", "TYPE_FP64", 8},       [DT_UINT32] = {"UINT32", "TYPE_UINT32", 4},
    [DT_UINT64] = {"UINT64", "TYPE_UINT64", 8}, [DT_BF16] = {"BF16", "TYPE_BF16", 2},
};

size_t dtype_size(enum dtype t)
{
    return (unsigned)t < DT_END ? dtypes[t].size : 0;
}

const char *dtype_name(enum dtype t)
{
    return (unsigned)t < DT_END && dtypes[t].name ? dtypes[t].name : "?";
}

const char *dtype_config_name(enum dtype t)
{
    return (unsigned)t < DT_END && dtypes[t].config ? dtypes[t].config : "TYPE_INVALID";
}

enum dtype dtype_of(const char *name, size_t len)
{
    for (unsigned t = 0; t < DT_END; t++)
        if (dtypes[t].name && strlen(dtypes[t].name) == len &&
            memcmp(dtypes[t].name, name, len) == 0)
            return (enum dtype)t;
    return DT_NONE;
}

static const char *const precisions[] = {
    [PRECISION_FP32] = "fp32",
    [PRECISION_BF16] = "bf16",
    [PRECISION_INT8] = "int8",
    [PRECISION_FP16] = "fp16",
};

const char *precision_name(enum precision p)
{
    return (unsigned)p < ARRAY_SIZE(precisions) ? precisions[p] : "?";
}

int precision_of(const char *name, enum precision *ret)
{
    for (unsigned p = 0; p < ARRAY_SIZE(precisions); p++)
        if (STREQ(name, precisions[p])) {
            *ret = (enum precision)p;
            return 0;
        }
    return -EINVAL;
}

int tensor_count(const struct tensor *t, int64_t *ret)
{
    int64_t n = 1;
    bool zero = false, over = false;

    for (uint32_t i = 0; i < t->rank; i++) {
        zero |= t->dims[i] == 0;
        over |= t->dims[i] != 0 && __builtin_mul_overflow(n, t->dims[i], &n);
    }
    if (over)
        return -EOVERFLOW; /* also with a zero elsewhere: no honest shape looks so */
    *ret = zero ? 0 : n;
    return 0;
}

int tensor_shape(struct tensor *t, enum dtype dtype, uint32_t rank, const int64_t *dims)
{
    struct tensor s = {.dtype = dtype, .rank = rank, .data = t->data};
    int64_t n;

    if (rank > MAX_RANK)
        return -EOVERFLOW;
    for (uint32_t i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return -EOVERFLOW;
        s.dims[i] = dims[i];
    }
    if (tensor_count(&s, &n) < 0 ||
        __builtin_mul_overflow((size_t)n, dtype_size(dtype), &s.bytes) || s.bytes > PTRDIFF_MAX)
        return -EOVERFLOW;
    *t = s;
    return 0;
}

int tensor_text(const struct tensor *t, size_t *at, struct str *ret)
{
    const char *p = (const char *)t->data + *at;
    uint32_t n;

    if (*at > t->bytes || t->bytes - *at < sizeof(n))
        return -EINVAL;
    memcpy(&n, p, sizeof(n));
    if (t->bytes - *at - sizeof(n) < n)
        return -EINVAL;
    *ret = (struct str){.s = p + sizeof(n), .n = n};
    *at += sizeof(n) + n;
    return 0;
}

char *dims_print(uint32_t rank, const int64_t *dims, char *buf, size_t size)
{
    size_t at = 0;

    assert(size > 0);
    buf[0] = 0;
    for (uint32_t i = 0; i <= rank && at < size; i++) {
        int n = i == rank
                    ? snprintf(buf + at, size - at, rank ? "]" : "[]")
                    : snprintf(buf + at, size - at, "%s%lld", i ? "," : "[", (long long)dims[i]);
        at += n > 0 ? (size_t)n : 0;
    }
    return buf;
}
