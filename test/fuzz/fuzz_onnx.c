/* Broken and hostile models: whatever the bytes, the reader and the shape rules give a graph or
 * an error with a message, within bounds (sanitizers watch) and without hanging.
 *
 * As a test program: small models, changed by a seeded generator, a fixed number of times.
 * Built with -DFUZZ_LIBFUZZER -fsanitize=fuzzer it is a libFuzzer target instead. */
#include "../unit/onnx_write.h"
#include "model_limits.h"

#define FUZZ_NAME "onnx"
#define ROUNDS 20000
#define MAX_NUMBER 16 /* what free dimensions get */

static int codes_seen[2];

static void bind_numbers(const struct graph *g, int64_t number)
{
    struct shape_key key = fuzz_key(g, number);
    struct bound *b;
    struct err e = {0};
    struct arena a;

    arena_init(&a);
    int rc = graph_bind(g, &key, &a, &b, &e);
    if (rc == 0)
        for (uint32_t i = 0; i < g->n_nodes; i++)
            assert(node_cost(b, i).flops >= 0);
    else
        assert(e.msg[0]);
    arena_done(&a);
}

static void one_input(const uint8_t *data, size_t n)
{
    AUTO(graph_free) struct graph *g = fuzz_read(data, n);
    struct err e = {0};

    codes_seen[!g]++;
    if (!g)
        return;
    bind_numbers(g, 0);
    bind_numbers(g, MAX_NUMBER);
    int rc = graph_infer(g, &e);
    assert(rc == 0 || e.msg[0]);
}

#include "fuzz.h"

#ifndef FUZZ_LIBFUZZER

/* Every kind of constant, attribute and shape rule that the reader treats in its own way. */
static struct ow seed_conv(void)
{
    static const float w[2 * 3 * 3 * 3];
    struct ow g = {0}, n = ow_node("Conv", "conv", "x,w", "c"), t = ow_tensor("b", DT_FP16, "2");

    ow_attr_ints(&n, "pads", (int64_t[]){1, 1, 1, 1}, 4);
    ow_attr_ints(&n, "strides", (int64_t[]){2, 2}, 2);
    ow_attr_str(&n, "auto_pad", "NOTSET");
    ow_input(&g, "x", DT_FP32, "batch,3,?,8");
    ow_init(&g, "w", DT_FP32, "2,3,3,3", w, sizeof(w));
    ow_int(&t, 5, 15360);
    ow_int(&t, 5, 0);
    ow_add(&g, OW_INIT, &t);
    ow_add(&g, OW_NODE, &n);
    n = ow_node("MaxPool", "pool", "c", "p");
    ow_attr_ints(&n, "kernel_shape", (int64_t[]){2, 2}, 2);
    ow_attr_int(&n, "ceil_mode", 1);
    ow_add(&g, OW_NODE, &n);
    ow_plain(&g, "Flatten", "flat", "p", "f");
    ow_plain(&g, "Softmax", "soft", "f", "y");
    ow_output(&g, "y");
    ow_output(&g, "b");
    return ow_model(&g, 13);
}

static struct ow seed_shapes(void)
{
    const int64_t numbers[] = {0, -1};
    struct ow g = {0}, n;

    ow_input(&g, "x", DT_FP32, "batch,4,n");
    ow_init(&g, "zero", DT_INT64, "1", numbers, 8);
    ow_init(&g, "rest", DT_INT64, "1", numbers + 1, 8);
    n = ow_node("Constant", "const", "", "k");
    ow_attr_ints(&n, "value_ints", (int64_t[]){2, 3}, 2);
    ow_add(&g, OW_NODE, &n);
    ow_plain(&g, "Shape", "shape", "x", "s");
    ow_plain(&g, "Gather", "gather", "s,zero", "b");
    n = ow_node("Concat", "concat", "b,rest", "to");
    ow_attr_int(&n, "axis", 0);
    ow_add(&g, OW_NODE, &n);
    ow_plain(&g, "Reshape", "reshape", "x,to", "flat");
    ow_plain(&g, "Slice", "slice", "flat,zero,k", "cut");
    ow_plain(&g, "ConstantOfShape", "fill", "k", "filled");
    ow_plain(&g, "Tile", "tile", "filled,k", "tiled");
    ow_plain(&g, "Expand", "expand", "zero,k", "wide");
    n = ow_node("Split", "split", "k", "k0,k1");
    ow_add(&g, OW_NODE, &n);
    ow_plain(&g, "Range", "range", "zero,k0,k1", "r");
    ow_plain(&g, "Pad", "pad", "zero,k", "padded");
    ow_plain(&g, "Transpose", "t", "x", "turned");
    ow_plain(&g, "MatMul", "mul", "x,turned", "y");
    ow_output(&g, "flat");
    ow_output(&g, "tiled");
    return ow_model(&g, 17);
}

/* Small changes: most of them leave a file that is read far. */
static void change(uint8_t *p, size_t *n)
{
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff};
    uint32_t at = any((uint32_t)*n), len = any(8);

    switch (any(6)) {
    case 0: /* a bit */
        p[at] ^= (uint8_t)(1u << any(8));
        break;
    case 1: /* a number at a limit */
        p[at] = odd[any(ARRAY_SIZE(odd))];
        break;
    case 2: /* a neighbour */
        p[at]++;
        break;
    case 3: /* one part over another */
        len = MIN(len, (uint32_t)*n - at);
        memmove(p + any((uint32_t)*n - len + 1), p + at, len);
        break;
    case 4: /* a long number */
        memset(p + at, 0xff, MIN(len, (uint32_t)*n - at));
        break;
    default: /* an early end, not too often */
        if (any(8) == 0)
            *n = at + 1;
    }
}

static void fuzz(struct ow (*make)(void))
{
    struct ow m = make();

    one_input(m.p, m.n);
    CHECK_EQ(codes_seen[1], 0); /* the seed itself is read */
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = m.n;
        uint8_t *p = malloc(n);
        assert(p);
        memcpy(p, m.p, n);
        for (uint32_t k = any(3) + 1; k > 0; k--)
            change(p, &n);
        one_input(p, n);
        free(p);
    }
    CHECK(codes_seen[0] > ROUNDS / 20); /* enough files get past the reader to test the rest */
    CHECK(codes_seen[1] > ROUNDS / 20);
    codes_seen[0] = codes_seen[1] = 0;
    ow_done(&m);
}

static void a_broken_convolution_model_is_read_or_refused(void)
{
    fuzz(seed_conv);
}

static void broken_shape_arithmetic_is_bound_or_refused(void)
{
    fuzz(seed_shapes);
}

int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    codes_seen[0] = codes_seen[1] = 0;
    RUN(a_broken_convolution_model_is_read_or_refused);
    RUN(broken_shape_arithmetic_is_bound_or_refused);
    return check_end();
}
#endif
