/* A reference kernel called in one line:
 *
 *     CHECK_EQ(RUN_OP(.op = OP_Add, .in = {FLOATS(F32(10, 20), 2, 1), FLOATS(F32(1, 2, 3), 3)},
 *                     .out = {FLOATS(y, 2, 3)}), 0);
 *     CHECK_FLOATS(y, 11, 12, 13, 21, 22, 23);
 */
#pragma once

#include "ref_node.h"
#include <kernels/ref/ref.h>
#include <math.h>

/* ---- a node and its tensors in one line */
#define F32(...)                                                                                   \
    (float[])                                                                                      \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define I64(...)                                                                                   \
    (int64_t[])                                                                                    \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

#define FLOATS(data, ...) tensor_of(DT_FP32, data, INTS(__VA_ARGS__))
#define LONGS(data, ...) tensor_of(DT_INT64, data, INTS(__VA_ARGS__))
#define SCALAR(dtype, data) tensor_of(dtype, data, NULL, 0)

struct call {
    enum op_id op;
    uint32_t opset; /* 0: 17 */
    struct attr attr[8];
    struct tensor in[9]; /* rank 0 without data: the end, or omitted */
    struct tensor out[4];
};
static struct err last;

static inline int run(struct call *c)
{
    const struct tensor *in[9];
    struct tensor *out[4];
    struct node n = {.name = "n", .op = c->op, .opset = c->opset ? c->opset : 17, .attr = c->attr};

    last = (struct err){0};
    while (n.n_attr < ARRAY_SIZE(c->attr) && c->attr[n.n_attr].name)
        n.n_attr++;
    for (uint32_t i = 0; i < ARRAY_SIZE(c->in); i++) {
        in[i] = c->in[i].dtype ? &c->in[i] : NULL;
        n.n_in = in[i] ? i + 1 : n.n_in;
    }
    for (uint32_t i = 0; i < ARRAY_SIZE(c->out); i++) {
        out[i] = c->out[i].dtype ? &c->out[i] : NULL;
        n.n_out = out[i] ? i + 1 : n.n_out;
    }
    return ref_run(&n, in, NULL, out, &last);
}
#define RUN_OP(...) run(&(struct call){__VA_ARGS__})

static inline void check_floats(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-5f * (1 + fabsf(want[i])))) {
            printf("# element %zu is %g, not %g\n", i, (double)got[i], (double)want[i]);
            check_failures++;
        }
}
static inline void check_longs(const int64_t *got, const int64_t *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(got[i], want[i]);
}
#define CHECK_FLOATS(got, ...)                                                                     \
    check_floats(got, F32(__VA_ARGS__), sizeof(F32(__VA_ARGS__)) / sizeof(float))
#define CHECK_LONGS(got, ...)                                                                      \
    check_longs(got, I64(__VA_ARGS__), sizeof(I64(__VA_ARGS__)) / sizeof(int64_t))
