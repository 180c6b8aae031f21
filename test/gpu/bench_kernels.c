/* Nodes of networks that our own kernels do, in fp32 and in fp16, as networks have them: a product
 * in front of them, whose result they read, and one behind, for which they keep 16 bits.
 *
 * The node is there several times, and these are a segment of their own, between the products: its
 * time has neither the input's copy, nor the products, and a part only of what a graph's launch
 * takes.  Its floor is of the device's memory: what the caches still hold may come faster. */
#include "../graph_build.h"

#include "bench.h"
#include "eager.h"

#define TIMES_MOST 32
#define IN_MOST 3

/* ---- what a node reads */
static uint32_t in[IN_MOST], param[2];

/* Parameter i, the same for each of them. */
static uint32_t param_of(unsigned i, const char *dims)
{
    if (param[i] == VALUE_NONE)
        param[i] = weights(dims);
    return param[i];
}

static uint32_t image(const char *dims, const char *w)
{
    return op(OP_Conv, "kernel_shape=1,1", 2, input("x", dims), weights(w));
}
static uint32_t rows(const char *dims, const char *w)
{
    return op(OP_MatMul, "", 2, input("x", dims), weights(w));
}
static uint32_t indices(const char *dims, const char *w)
{
    (void)w;
    return op(OP_Add, "", 2, input_of("x", DT_INT64, dims), int_scalar(0));
}

static uint32_t bytes(const char *dims, const char *w)
{
    (void)w;
    return input_of("x", DT_UINT8, dims);
}

static uint32_t image_on(uint32_t y, const char *w)
{
    return op(OP_Conv, "kernel_shape=1,1", 2, y, weights(w));
}
static uint32_t rows_on(uint32_t y, const char *w)
{
    return op(OP_MatMul, "", 2, y, weights(w));
}

/* ---- the nodes */
static uint32_t depthwise(void)
{
    return op(OP_Conv, "group=96 kernel_shape=3,3 strides=2,2 pads=1,1,1,1", 3, in[0],
              param_of(0, "96 1 3 3"), param_of(1, "96"));
}
static uint32_t max_pool(void)
{
    return op(OP_MaxPool, "kernel_shape=3,3 strides=2,2 pads=1,1,1,1", 1, in[0]);
}
static uint32_t average(void)
{
    return op(OP_GlobalAveragePool, "", 1, in[0]);
}
static uint32_t layer_norm(void)
{
    return op(OP_LayerNormalization, "axis=-1", 3, in[0], param_of(0, "768"), param_of(1, "768"));
}
static uint32_t softmax(void)
{
    return op(OP_Softmax, "axis=-1", 1, in[0]);
}
static uint32_t attention(void)
{
    return op(OP_Attention, "", 3, in[0], in[1], in[2]);
}
/* As exporters write it. */
static uint32_t attention_of_nodes(void)
{
    uint32_t keys = op(OP_Transpose, "perm=0,1,3,2", 1, in[1]);
    uint32_t scores = op(OP_Mul, "", 2, op(OP_MatMul, "", 2, in[0], keys), scalar(0.125f));

    return op(OP_MatMul, "", 2, op(OP_Softmax, "axis=-1", 1, scores), in[2]);
}
static uint32_t gelu(void)
{
    return op(OP_Gelu, "", 1, in[0]);
}
static uint32_t add(void)
{
    return op(OP_Add, "", 2, in[0], in[1]);
}
static uint32_t transpose(void)
{
    return op(OP_Transpose, "perm=0,2,1,3", 1, in[0]);
}
static uint32_t gather(void)
{
    return op(OP_Gather, "axis=0", 2, param_of(0, "30522 768"), in[0]);
}
static uint32_t concat(void)
{
    return op(OP_Concat, "axis=1", 2, in[0], in[1]);
}

/* As exporters write what is done to a photo in front of a network. */
static uint32_t pixels(void)
{
    uint32_t x = op(OP_Div, "", 2, op(OP_Cast, "to=1", 1, in[0]), scalar(255));

    x = op(OP_Div, "", 2, op(OP_Sub, "", 2, x, param_of(0, "3")), param_of(1, "3"));
    return op(OP_Transpose, "perm=0,3,1,2", 1, x);
}

enum { FP32 = 1, FP16 = 2, BOTH = 3 }; /* where it is measured */
static const struct kernel {
    const char *name;
    uint32_t (*build)(void);
    unsigned n_in;
    uint32_t (*before)(const char *dims, const char *w);
    const char *dims, *w;
    uint32_t (*behind)(uint32_t y, const char *w);
    const char *w_behind;
    unsigned in;
} kernels[] = {
    {"depthwise convolution", depthwise, 1, image, "B 8 112 112", "96 8 1 1", image_on, "8 96 1 1",
     BOTH},
    {"max pool", max_pool, 1, image, "B 8 112 112", "64 8 1 1", image_on, "8 64 1 1", BOTH},
    {"global average pool", average, 1, image, "B 8 7 7", "2048 8 1 1", image_on, "8 2048 1 1",
     BOTH},
    {"layer norm", layer_norm, 1, rows, "B 128 8", "8 768", rows_on, "768 8", BOTH},
    {"softmax", softmax, 1, rows, "B 12 128 8", "8 128", rows_on, "128 8", BOTH},
    {"attention", attention, 3, rows, "B 12 128 8", "8 64", rows_on, "64 8", FP32},
    {"attention", attention_of_nodes, 3, rows, "B 12 128 8", "8 64", rows_on, "64 8", FP16},
    {"gelu", gelu, 1, rows, "B 128 8", "8 3072", rows_on, "3072 8", BOTH},
    {"add", add, 2, image, "B 8 56 56", "256 8 1 1", image_on, "8 256 1 1", BOTH},
    {"transpose", transpose, 1, rows, "B 128 12 8", "8 64", rows_on, "64 8", BOTH},
    {"gather", gather, 1, indices, "B 128", "", rows_on, "768 8", BOTH},
    {"concat", concat, 2, image, "B 8 28 28", "128 8 1 1", image_on, "8 256 1 1", BOTH},
    {"pixels", pixels, 1, bytes, "B 224 224 3", "", image_on, "8 3 1 1", BOTH}};

/* Segments: what is read, the nodes, what reads them.  Leaves one of the results. */
static int build(const struct kernel *k, uint32_t *ret_y, struct err *err)
{
    uint32_t y[TIMES_MOST], from, to;

    start(23);
    for (unsigned i = 0; i < ARRAY_SIZE(param); i++)
        param[i] = VALUE_NONE;
    for (unsigned i = 0; i < k->n_in; i++)
        in[i] = k->before(k->dims, k->w);
    from = g->n_nodes;
    for (unsigned i = 0; i < bench_times; i++)
        y[i] = k->build();
    to = g->n_nodes;
    for (unsigned i = 0; i < bench_times; i++)
        output(k->behind(y[i], k->w_behind));
    int r = graph_ready(g, err);
    if (r < 0)
        return r;
    memcpy(g->cut, ((const uint32_t[]){0, from, to, g->n_nodes}), 4 * sizeof(*g->cut));
    g->n_segments = 3;
    *ret_y = y[0];
    return 0;
}

/* ---- measuring */
struct alone {
    double us, floor_us;
    unsigned steps; /* of one of the nodes */
};

static double stored_bytes(const struct tensor *t, enum precision precision)
{
    return (double)t->bytes / (t->dtype == DT_FP32 && precision != PRECISION_FP32 ? 2 : 1);
}

/* The least for one: what it reads and writes, however many nodes it is. */
static int floor_of(const struct kernel *k, const struct bound *b, uint32_t y,
                    enum precision precision, const struct rates *rates, double *ret,
                    struct err *err)
{
    struct work *node = calloc(g->n_nodes, sizeof(*node)), all, one = {0};
    int r = node ? graph_work(b, precision, node, &all, err) : -ENOMEM;

    for (uint32_t i = g->cut[1]; r == 0 && i < g->cut[1] + (g->cut[2] - g->cut[1]) / bench_times;
         i++) {
        one.matrix_flops += node[i].matrix_flops;
        one.weight_bytes += node[i].weight_bytes;
    }
    one.moved_bytes = stored_bytes(&b->value[y], precision);
    for (unsigned i = 0; i < k->n_in; i++)
        one.moved_bytes += stored_bytes(&b->value[in[i]], precision);
    *ret = work_floor_us(&one, rates);
    free(node);
    return r;
}

static int measured(struct device *dev, unsigned n_granules, const struct bound *b,
                    enum precision precision, struct alone *ret, struct err *err)
{
    struct compile_args args = {.model = "kernel", .bound = b, .precision = precision};
    struct subject s;
    int r = subject_open(dev, n_granules, &args, &s, err);

    if (r == 0)
        r = subject_us(&s, 1, 2, &ret->us, err);
    if (r == 0) {
        ret->us /= bench_times;
        ret->steps = steps_of(s.slot, 1) / bench_times;
    }
    subject_close(&s);
    return r;
}

static void line(const struct kernel *k, int64_t batch, enum precision precision,
                 const struct alone *a)
{
    printf("{\"case\": \"kernels, batch %" PRId64
           ", %s, %s\", \"ok\": true, \"value\": %.2f, \"unit\": \"us\", "
           "\"floor_us\": %.2f, \"steps\": %u, \"text\": \"%.2f us, its floor is %.2f us: %.0f %%",
           batch, k->name, precision_name(precision), a->us, a->floor_us, a->steps, a->us,
           a->floor_us, 100 * a->floor_us / MAX(a->us, 1e-3));
    if (a->steps != 1)
        printf("; in %u steps", a->steps);
    printf("\"}\n");
    fflush(stdout);
}

static int one(const struct kernel *k, struct device *dev, unsigned n_granules, int64_t batch,
               enum precision precision, const struct rates *rates, struct err *err)
{
    struct shape_key key = {.n = 1, .dim = {batch}};
    struct alone alone;
    struct arena a;
    struct bound *b;
    uint32_t y;
    int r = build(k, &y, err);

    arena_init(&a);
    if (r == 0)
        r = graph_bind(g, &key, &a, &b, err);
    if (r == 0)
        r = floor_of(k, b, y, precision, rates, &alone.floor_us, err);
    if (r == 0)
        r = measured(dev, n_granules, b, precision, &alone, err);
    arena_done(&a);
    if (r < 0)
        return err_wrap(err, "%s: ", k->name);
    line(k, batch, precision, &alone);
    return 0;
}

int kernels_measure(struct device *dev, unsigned n_granules, int64_t batch,
                    const struct rates *rates, struct err *err)
{
    int r = 0;

    for (size_t i = 0; i < 2 * ARRAY_SIZE(kernels) && r == 0; i++) {
        const struct kernel *k = &kernels[i / 2];
        if (k->in & (i % 2 ? FP16 : FP32))
            r = one(k, dev, n_granules, batch, i % 2 ? PRECISION_FP16 : PRECISION_FP32, rates, err);
    }
    graph_free(g);
    return r;
}
