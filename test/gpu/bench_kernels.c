/* Nodes of networks that our own kernels do, each as a model of its own.
 *
 * In fp32, as a lone node has no reason to be in less.  What a graph of one launch takes besides,
 * the device's memory set to zero for its input, is in its time. */
#include "../graph_build.h"

#include "bench.h"

static void depthwise(void)
{
    output(op(OP_Conv, "group=96 kernel_shape=3,3 strides=2,2 pads=1,1,1,1", 3,
              input("x", "B 96 112 112"), weights("96 1 3 3"), weights("96")));
}
static void max_pool(void)
{
    output(
        op(OP_MaxPool, "kernel_shape=3,3 strides=2,2 pads=1,1,1,1", 1, input("x", "B 64 112 112")));
}
static void average(void)
{
    output(op(OP_GlobalAveragePool, "", 1, input("x", "B 2048 7 7")));
}
static void layer_norm(void)
{
    output(op(OP_LayerNormalization, "axis=-1", 3, input("x", "B 128 768"), weights("768"),
              weights("768")));
}
static void softmax(void)
{
    output(op(OP_Softmax, "axis=-1", 1, input("x", "B 12 128 128")));
}
static void attention(void)
{
    output(op(OP_Attention, "", 3, input("q", "B 12 128 64"), input("k", "B 12 128 64"),
              input("v", "B 12 128 64")));
}
static void gelu(void)
{
    output(op(OP_Gelu, "", 1, input("x", "B 128 3072")));
}
static void add(void)
{
    output(op(OP_Add, "", 2, input("x", "B 256 56 56"), input("y", "B 256 56 56")));
}
static void transpose(void)
{
    output(op(OP_Transpose, "perm=0,2,1,3", 1, input("x", "B 128 12 64")));
}
static void gather(void)
{
    output(op(OP_Gather, "axis=0", 2, weights("30522 768"), input_of("ids", DT_INT64, "B 128")));
}
static void concat(void)
{
    output(op(OP_Concat, "axis=1", 2, input("x", "B 128 28 28"), input("y", "B 128 28 28")));
}

static const struct kernel {
    const char *name;
    void (*build)(void);
} kernels[] = {{"depthwise convolution", depthwise},
               {"max pool", max_pool},
               {"global average pool", average},
               {"layer norm", layer_norm},
               {"softmax", softmax},
               {"attention", attention},
               {"gelu", gelu},
               {"add", add},
               {"transpose", transpose},
               {"gather", gather},
               {"concat", concat}};

static int measured(struct device *dev, unsigned n_granules, const struct bound *b, double *ret_us,
                    struct work *ret, struct err *err)
{
    struct compile_args args = {.model = "kernel", .bound = b};
    struct subject s;
    int r = graph_work(b, PRECISION_FP32, NULL, ret, err);

    if (r < 0)
        return r;
    r = subject_open(dev, n_granules, &args, &s, err);
    if (r == 0)
        r = subject_us(&s, 0, s.info.n_segments, ret_us, err);
    subject_close(&s);
    return r;
}

static int one(const struct kernel *k, struct device *dev, unsigned n_granules, int64_t batch,
               const struct rates *rates, struct err *err)
{
    struct shape_key key = {.n = 1, .dim = {batch}};
    struct arena a;
    struct bound *b;
    struct work w;
    double us;

    start(23);
    k->build();
    arena_init(&a);
    int r = graph_ready(g, err);
    if (r == 0)
        r = graph_bind(g, &key, &a, &b, err);
    if (r == 0)
        r = measured(dev, n_granules, b, &us, &w, err);
    arena_done(&a);
    if (r < 0)
        return err_wrap(err, "%s: ", k->name);
    double floor_us = work_floor_us(&w, rates);
    printf("{\"case\": \"kernels, batch %" PRId64
           ", %s\", \"ok\": true, \"value\": %.2f, \"unit\": \"us\", "
           "\"floor_us\": %.2f, \"text\": \"%.2f us, its floor is %.2f us: %.0f %%\"}\n",
           batch, k->name, us, floor_us, us, floor_us, 100 * floor_us / MAX(us, 1e-3));
    fflush(stdout);
    return 0;
}

int kernels_measure(struct device *dev, unsigned n_granules, int64_t batch,
                    const struct rates *rates, struct err *err)
{
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(kernels) && r == 0; i++)
        r = one(&kernels[i], dev, n_granules, batch, rates, err);
    graph_free(g);
    return r;
}
