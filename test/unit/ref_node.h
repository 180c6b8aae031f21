/* What the tests of reference kernels share: tensors and attributes in one expression. */
#pragma once

#include "../check.h"
#include <gpulet/graph.h>

/* A list of numbers and how many there are: dimensions. */
#define INTS(...)                                                                                  \
    (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

static inline struct tensor tensor_of(enum dtype dtype, const void *data, const int64_t *dims,
                                      size_t rank)
{
    struct tensor t = {.data = (void *)(uintptr_t)data};

    CHECK_EQ(tensor_shape(&t, dtype, (uint32_t)rank, dims), 0);
    return t;
}

static inline struct attr ints(const char *name, const int64_t *v, size_t n)
{
    return (struct attr){.name = name, .type = ATTR_INTS, .n = (uint32_t)n, .ints = v};
}
static inline struct attr number(const char *name, int64_t v)
{
    return (struct attr){.name = name, .type = ATTR_INT, .i = v};
}
static inline struct attr real(const char *name, float v)
{
    return (struct attr){.name = name, .type = ATTR_FLOAT, .f = v};
}
static inline struct attr word(const char *name, const char *v)
{
    return (struct attr){.name = name, .type = ATTR_STRING, .s = v, .n = (uint32_t)strlen(v)};
}
static inline struct attr reals(const char *name, const float *v, size_t n)
{
    return (struct attr){.name = name, .type = ATTR_FLOATS, .n = (uint32_t)n, .floats = v};
}
static inline struct attr words(const char *name, const struct attr_text *v, size_t n)
{
    return (struct attr){.name = name, .type = ATTR_STRINGS, .n = (uint32_t)n, .strs = v};
}
