/* For tests of reference kernels: a node in one expression, its shape rule and its kernel run one
 * after the other, results compared with numbers written out.
 *
 *     CHECK_RUN(.op = OP_Resize, .attr = {word("mode", "nearest")}, .in = {F(x, 1, 1, 2), ...});
 *     CHECK_DIMS(0, 1, 1, 4);
 *     CHECK_VALUES(0, 1, 1, 2, 2);
 */
#pragma once

#include "ref_node.h"
#include <kernels/ref/kit.h>
#include <math.h>

#define RIG_IN 10
#define RIG_OUT 3
#define RIG_BYTES 4096

struct call {
    enum op_id op;
    uint32_t opset;           /* 0: 19 */
    struct attr attr[8];      /* without a name: the end */
    struct tensor in[RIG_IN]; /* DT_NONE: omitted */
    uint32_t n_out;           /* 0: 1 */
};

static struct tensor rig_out[RIG_OUT];
static struct err rig_err;

/* A tensor of `type` at data with the dimensions that follow. */
#define T(type, data, ...) tensor_of(DT_##type, data, INTS(__VA_ARGS__))
#define SCALAR(type, value, ctype) tensor_of(DT_##type, (const ctype[]){value}, NULL, 0)
/* A vector of the numbers that follow. */
#define FLOATS(...)                                                                                \
    tensor_of(DT_FP32, (const float[]){__VA_ARGS__},                                               \
              (const int64_t[]){sizeof((const float[]){__VA_ARGS__}) / sizeof(float)}, 1)
#define LONGS(...)                                                                                 \
    tensor_of(DT_INT64, (const int64_t[]){__VA_ARGS__},                                            \
              (const int64_t[]){sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)}, 1)

/* 0 and the results in rig_out, or what rule or kernel returned, with rig_err. */
static inline int rig_run(struct call *c)
{
    static _Alignas(16) char data[RIG_OUT][RIG_BYTES];
    const struct tensor *in[RIG_IN];
    struct tensor *out[RIG_OUT];
    struct node n = {.name = "n",
                     .op = c->op,
                     .opset = c->opset ? c->opset : 19,
                     .n_out = MAX(c->n_out, 1u),
                     .attr = c->attr};

    rig_err = (struct err){0};
    memset(rig_out, 0, sizeof(rig_out));
    while (n.n_attr < ARRAY_SIZE(c->attr) && c->attr[n.n_attr].name)
        n.n_attr++;
    for (uint32_t i = 0; i < RIG_IN; i++) {
        in[i] = c->in[i].dtype ? &c->in[i] : NULL;
        n.n_in = in[i] ? i + 1 : n.n_in;
    }
    int r = node_infer(&n, in, rig_out, &rig_err);
    for (uint32_t i = 0; i < n.n_out && r == 0; i++) {
        CHECK(rig_out[i].bytes <= RIG_BYTES);
        rig_out[i].data = data[i];
        out[i] = &rig_out[i];
    }
    return r < 0 ? r : ref_run(&n, in, NULL, out, &rig_err);
}
#define RUN_OP(...) rig_run(&(struct call){__VA_ARGS__})
#define CHECK_RUN(...)                                                                             \
    do {                                                                                           \
        if (RUN_OP(__VA_ARGS__) < 0) {                                                             \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, rig_err.msg);                              \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

static inline void rig_dims(uint32_t out, const int64_t *want, size_t rank)
{
    CHECK_EQ(rig_out[out].rank, rank);
    for (uint32_t i = 0; i < rank && i < rig_out[out].rank; i++)
        CHECK_EQ(rig_out[out].dims[i], want[i]);
}
#define CHECK_DIMS(out, ...) rig_dims(out, INTS(__VA_ARGS__))

static inline void rig_values(uint32_t out, const double *want, size_t n)
{
    const struct tensor *t = &rig_out[out];

    CHECK_EQ(ref_count(t), n);
    for (size_t i = 0; i < n && (int64_t)i < ref_count(t) && t->data; i++) {
        double v = num_cast(num_get(t, (int64_t)i), ref_kind(t->dtype), KIND_FLOAT).f;
        if (!(fabs(v - want[i]) <= 1e-5 * (1 + fabs(want[i])))) {
            printf("# element %zu is %g, not %g\n", i, v, want[i]);
            check_failures++;
        }
    }
}
#define CHECK_VALUES(out, ...)                                                                     \
    rig_values(out, (const double[]){__VA_ARGS__},                                                 \
               sizeof((const double[]){__VA_ARGS__}) / sizeof(double))
