/* Bytes of an image and all that is done to them in front of a network, on the fakes: one launch,
 * and the numbers of the reference. */
#include "run_rig.h"

#include <kernels/cuda/args.h>

#define LARGE 70000 /* of the numbers of an image, beside each other */

/* ---- a network from words:
 *
 *     cast                     to FP32
 *     add sub mul div from     with a number; from: the number less what is there
 *     add3 sub3 mul3 div3      with one for each channel
 *     full                     from here on those have all dimensions
 *     over                     a number divided by what is there
 *     planes last swap         channels to dimension 1, to the end; dimensions 1 and 2
 *     rows relu                Reshape to (batch, all)
 *     conv product             by ones, so that numbers stay as they are
 *     tap                      an output
 *
 * Which operand of a sum or a product the number is changes from node to node. */
struct chain {
    uint32_t v;
    int64_t dims[4]; /* without the batch */
    uint32_t rank;   /* with it */
    bool last;       /* where the channels are */
    bool full;
};

static uint32_t channel_at(const struct chain *c)
{
    return c->last ? c->rank - 1 : c->rank - 3;
}

/* For channel i, by the number of the constant: all differ, and none is a power of 2. */
static float number(uint32_t i, uint32_t of)
{
    static const float x[] = {123.675f, 116.28f, 103.53f, 57.12f, 58.395f, 57.375f, 91.7f, 3.3f};

    return x[(i + 3 * of) % ARRAY_SIZE(x)];
}

static uint32_t by_channel(const struct chain *c)
{
    uint32_t at = channel_at(c), rank = c->full ? c->rank : c->last ? 1 : 3, n;
    int64_t dims[4] = {1, 1, 1, 1};
    float x[8];

    n = (uint32_t)(dims[rank - (c->rank - at)] = c->dims[at - 1]);
    assert(n <= ARRAY_SIZE(x));
    for (uint32_t i = 0; i < n; i++)
        x[i] = number(i, g->n_nodes);
    return constant_of(DT_FP32, rank, dims, x);
}

static uint32_t ones(const struct chain *c, bool conv)
{
    int64_t n = conv ? c->dims[channel_at(c) - 1] : c->dims[c->rank - 2], dims[] = {n, n, 1, 1};
    float *x = calloc((size_t)(n * n), sizeof(*x));

    for (int64_t i = 0; i < n; i++)
        x[i * n + i] = 1;
    uint32_t v = constant_of(DT_FP32, conv ? 4 : 2, dims, x);
    free(x);
    return v;
}

static void turn_to(struct chain *c, bool last)
{
    int64_t h = c->dims[c->last ? 0 : 1], w = c->dims[c->last ? 1 : 2],
            channels = c->dims[c->last ? 2 : 0];

    if (last)
        memcpy(c->dims, ((int64_t[]){h, w, channels}), 3 * sizeof(h));
    else
        memcpy(c->dims, ((int64_t[]){channels, h, w}), 3 * sizeof(h));
    c->last = last;
    c->v = op(OP_Transpose, last ? "perm=0,2,3,1" : "perm=0,3,1,2", 1, c->v);
}

static void arithmetic(struct chain *c, const char *word)
{
    size_t len = strcspn(word, "3");
    enum op_id id = memcmp(word, "add", len) == 0   ? OP_Add
                    : memcmp(word, "mul", len) == 0 ? OP_Mul
                    : memcmp(word, "div", len) == 0 ? OP_Div
                                                    : OP_Sub;
    uint32_t k = word[len] ? by_channel(c) : scalar(number(0, g->n_nodes));

    bool first = STREQ(word, "from") || (g->n_nodes % 2 && (id == OP_Add || id == OP_Mul));
    c->v = first ? op(id, "", 2, k, c->v) : op(id, "", 2, c->v, k);
}

static void word_of(struct chain *c, const char *word)
{
    if (STREQ(word, "cast"))
        c->v = op(OP_Cast, "to=1", 1, c->v);
    else if (STREQ(word, "planes") || STREQ(word, "last"))
        turn_to(c, STREQ(word, "last"));
    else if (STREQ(word, "full"))
        c->full = true;
    else if (STREQ(word, "swap"))
        c->v = op(OP_Transpose, "perm=0,2,1,3", 1, c->v);
    else if (STREQ(word, "over"))
        c->v = op(OP_Div, "", 2, scalar(7), c->v);
    else if (STREQ(word, "conv"))
        c->v = op(OP_Conv, "", 2, c->v, ones(c, true));
    else if (STREQ(word, "product"))
        c->v = op(OP_MatMul, "", 2, c->v, ones(c, false));
    else if (STREQ(word, "relu"))
        c->v = op(OP_Relu, "", 1, c->v);
    else if (STREQ(word, "rows"))
        c->v = op(OP_Reshape, "", 2, c->v, ints(2, 0, -1));
    else if (STREQ(word, "tap"))
        output(c->v);
    else
        arithmetic(c, word);
}

/* Of `dims` behind the batch; false: planes come first. */
static void network(const char *dims, bool last, const char *words)
{
    struct chain c = {.last = last, .rank = 4};
    char text[200], *save = NULL;

    (void)snprintf(text, sizeof(text), "B %s", dims);
    start(13);
    c.v = input_of("x", DT_UINT8, text);
    assert(sscanf(dims, "%ld %ld %ld", &c.dims[0], &c.dims[1], &c.dims[2]) == 3);
    (void)snprintf(text, sizeof(text), "%s", words);
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
        word_of(&c, w);
    output(c.v);
}

/* ---- running it */
static uint8_t image[8 * LARGE];

static void bind_rows(int64_t rows)
{
    struct shape_key key = {.n = g->n_syms, .dim = {rows}};

    g->batch_sym = 0;
    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(&arena);
    CHECK_EQ(graph_bind(g, &key, &arena, &bound, &err), 0);
    assert(bound->value[g->in[0]].bytes <= sizeof(image));
    for (size_t i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)((uint32_t)(i + 1) * 2654435761u >> 23);
}

static size_t launches(const char *of)
{
    size_t n = 0;

    for (const char *p = of; (p = strstr(p, "cuLaunchKernel\n")); p++)
        n++;
    return n;
}

/* The first output in the precision, and how many launches it took. */
static float *answer(enum precision p, int64_t rows, size_t *ret_launches)
{
    struct compile_args args = {.model = "test", .bound = bound, .precision = p};
    const void *in[] = {image};
    void *out[2] = {0};
    struct io_part whole = {.rows = (uint32_t)rows, .in = in, .out = out};

    for (uint32_t i = 0; i < g->n_out; i++)
        out[i] = calloc(1, bound->value[g->out[i]].bytes);
    fake->capture_refused = 1;
    if (be->compile(part, &args, &exe, &err) < 0)
        printf("# %s\n", err.msg);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    forget_calls();
    CHECK_EQ(done_of(slot, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
    *ret_launches = launches(fake->log);
    be->slot_close(slot);
    be->release(exe);
    free(out[1]);
    return out[0];
}

/* The largest difference to the reference, by its largest number. */
static double off(const float *y)
{
    const struct tensor *want = &bound->value[g->out[0]];
    struct arena a;
    double worst = 0, most = 0;

    arena_init(&a);
    bound->value[g->in[0]].data = image;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (!bound->skip[i])
            run_node(bound, i, &a);
    for (size_t i = 0; i < want->bytes / sizeof(float); i++) {
        double x = (double)((const float *)want->data)[i], d = fabs((double)y[i] - x);
        worst = isnan(d) ? (double)INFINITY : fmax(worst, d);
        most = fmax(most, fabs(x));
    }
    arena_done(&a);
    return worst / most;
}

/* What each precision may be off: roundings of the number and of what is made of it. */
static double limit(enum precision p)
{
    return p == PRECISION_FP32 ? 2e-6 : p == PRECISION_FP16 ? 1.0 / 1024 : 1.0 / 128;
}

static void in_launches(const char *dims, bool last, const char *words, enum precision p,
                        int64_t rows, size_t n_launches)
{
    size_t n;

    network(dims, last, words);
    bind_rows(rows);
    float *y = answer(p, rows, &n);
    double d = off(y);
    if (strstr(words, "tap"))
        p = PRECISION_FP32; /* an output is not rounded */
    if (n != n_launches || d > limit(p))
        printf("# (%ld, %s), %s in %s: %zu launches, off by %.3g\n", (long)rows, dims, words,
               precision_name(p), n, d);
    CHECK_EQ(n, n_launches);
    CHECK(d <= limit(p));
    free(y);
    arena_done(&arena);
}

static void end(void)
{
    graph_free(g);
    be->part_close(part);
    be->dev_close(dev);
    check_clean();
}

/* ---- what becomes one launch */

#define SIZES 5
static const char *const sizes[2][SIZES] = {
    {"3 4 8", "3 5 7", "3 1 16", "3 9 1", "3 16 24"},
    {"4 8 3", "5 7 3", "1 16 3", "9 1 3", "16 24 3"},
};

/* With channels as they come, and as they leave, for one image and for 8. */
static void everywhere(bool last, const char *words)
{
    for (unsigned i = 0; i < SIZES; i++)
        for (int64_t rows = 1; rows <= 8; rows += 7)
            in_launches(sizes[last][i], last, words, PRECISION_FP32, rows, 1);
}

static void a_cast_and_its_arithmetic_are_one_launch(void)
{
    open_device("green");
    everywhere(false, "cast div");
    everywhere(false, "cast mul sub");
    everywhere(false, "cast div3");
    everywhere(false, "cast div sub3 div3");
    everywhere(false, "cast full sub3 mul3");
    everywhere(true, "cast sub3 div3");
    everywhere(true, "cast full mul3 add3");
    everywhere(true, "cast from div add");
    end();
}

static void a_transpose_to_planes_is_in_it_wherever_it_stands(void)
{
    open_device("green");
    everywhere(true, "planes cast");
    everywhere(true, "cast planes");
    everywhere(true, "planes cast div sub3 div3");
    everywhere(true, "cast planes full mul3 add3");
    everywhere(true, "cast div planes sub3 div3");
    everywhere(true, "cast sub3 planes div3 mul");
    everywhere(true, "cast div sub3 div3 planes");
    everywhere(true, "cast div planes");
    end();
}

static void so_is_one_from_planes(void)
{
    open_device("green");
    everywhere(false, "last cast full sub3 mul3");
    everywhere(false, "cast div sub3 last div3");
    everywhere(false, "cast from last");
    end();
}

/* A number for each of one, two or four is right, too; where there are five the nodes stay. */
static void images_of_other_than_three_channels_are_right(void)
{
    open_device("green");
    for (int64_t rows = 1; rows <= 8; rows += 7) {
        in_launches("5 7 1", true, "cast sub3 div3 planes", PRECISION_FP32, rows, 1);
        in_launches("4 6 2", true, "cast sub3 div3 planes", PRECISION_FP32, rows, 1);
        in_launches("4 6 4", true, "cast sub3 div3 planes", PRECISION_FP32, rows, 1);
        in_launches("4 5 6", false, "cast sub3 div3 last", PRECISION_FP32, rows, 1);
        in_launches("2 5 6", false, "cast sub3 div3", PRECISION_FP32, rows, 1);
        in_launches("4 5 5", true, "cast sub3", PRECISION_FP32, rows, 2);
        in_launches("4 5 5", true, "cast sub div", PRECISION_FP32, rows, 1);
    }
    end();
}

/* Blocks, and threads that go on where the grid ends. */
static void so_are_images_of_more_than_a_grid(void)
{
    open_device("green");
    in_launches("151 151 3", true, "cast div sub3 div3 planes", PRECISION_FP32, 8, 1);
    in_launches("152 152 3", true, "cast div sub3 div3 planes", PRECISION_FP32, 8, 1);
    in_launches("3 151 151", false, "cast div sub3 div3", PRECISION_FP32, 8, 1);
    end();
}

/* ---- the kernel by itself */
typedef void kernel_fn(const void *args, unsigned blocks, unsigned threads);

/* Of each size, whatever is left for the last thread. */
static void nothing_is_written_beyond_the_end(void)
{
    static _Alignas(16) uint8_t x[64];
    static _Alignas(16) float y[65];
    void *so = dlopen(beside("", "libkernels.so"), RTLD_NOW);
    kernel_fn *run = so ? (kernel_fn *)dlsym(so, "gpulet_pixels") : NULL;
    struct pixels_args a = {.x = x, .y = y, .inner = 5, .channels = 3, .type = GPU_F32};

    assert(run);
    for (int i = 0; i < 64; i++)
        x[i] = (uint8_t)(i + 1);
    for (int c = 0; c < 3; c++)
        a.scale[c] = (float)(c + 1);
    for (a.count = 1; a.count <= 64; a.count++) {
        y[a.count] = -1;
        a.n = (a.count + 3) / 4;
        run(&a, 1, 32);
        for (int i = 0; i < a.count; i++)
            CHECK_EQ(y[i], (i + 1) * (i / 5 % 3 + 1));
        CHECK_EQ(y[a.count], -1);
    }
}

/* ---- what reads it */

/* The convolution has channels last, and a second launch makes FP32 of its result. */
static void sixteen_bits(bool last, const char *words, size_t n_launches)
{
    for (unsigned i = 0; i < SIZES; i++)
        for (int64_t rows = 1; rows <= 8; rows += 7) {
            in_launches(sizes[last][i], last, words, PRECISION_FP16, rows, n_launches);
            in_launches(sizes[last][i], last, words, PRECISION_BF16, rows, n_launches);
        }
}

static void a_convolution_in_16_bits_has_it_as_it_wants_it(void)
{
    open_device("green");
    sixteen_bits(false, "cast div sub3 div3 conv", 2);
    sixteen_bits(false, "cast sub mul conv", 2);
    sixteen_bits(true, "cast div sub3 div3 planes conv", 2);
    sixteen_bits(true, "planes cast mul3 add3 conv", 2);
    sixteen_bits(true, "cast planes mul conv", 2);
    end();
}

static void so_has_one_that_takes_the_bytes_as_they_are(void)
{
    open_device("green");
    sixteen_bits(false, "cast conv", 2);
    sixteen_bits(true, "cast planes conv", 2);
    end();
}

static void a_product_in_16_bits_has_rows(void)
{
    open_device("green");
    sixteen_bits(false, "cast div sub3 div3 product", 1);
    sixteen_bits(true, "cast div sub3 planes product", 1);
    in_launches("4 6 4", true, "cast sub3 div3 planes product", PRECISION_FP16, 8, 1);
    in_launches("4 5 6", false, "cast sub3 div3 last product", PRECISION_BF16, 8, 1);
    end();
}

/* By our own kernel: 2 launches; in FP32 the library has it as it is. */
static void a_convolution_in_fp32_has_planes(void)
{
    open_device("green");
    in_launches("5 7 3", true, "cast div sub3 div3 planes conv", PRECISION_FP32, 8, 1);
    in_launches("3 5 7", false, "cast div sub3 div3 conv", PRECISION_FP32, 8, 1);
    end();
}

/* Relu keeps FP32, and its result is converted; as the result of the model is. */
static void what_else_reads_it_has_fp32(void)
{
    open_device("green");
    in_launches("5 7 3", true, "cast div sub3 planes relu conv", PRECISION_FP16, 8, 4);
    in_launches("5 7 3", true, "cast div sub3 planes tap conv", PRECISION_FP16, 8, 3);
    in_launches("5 7 3", true, "cast div sub3", PRECISION_FP16, 8, 1);
    end();
}

/* ---- what stays as it is */

static void a_cast_alone_is_a_cast(void)
{
    open_device("green");
    in_launches("3 5 7", false, "cast", PRECISION_FP32, 8, 1);
    in_launches("3 5 7", false, "cast relu", PRECISION_FP32, 8, 2);
    end();
}

/* The first three are one, up to what is read; the rest is another launch each. */
static void what_others_read_is_written(void)
{
    open_device("green");
    in_launches("5 7 3", true, "cast div sub3 tap div3 planes", PRECISION_FP32, 8, 3);
    in_launches("5 7 3", true, "cast tap div sub3", PRECISION_FP32, 8, 3);
    end();
}

static void what_is_no_such_number_ends_it(void)
{
    open_device("green");
    in_launches("5 7 3", true, "cast div relu sub3", PRECISION_FP32, 8, 3);
    in_launches("5 7 3", true, "cast add over", PRECISION_FP32, 8, 2);
    in_launches("5 7 3", true, "cast div swap", PRECISION_FP32, 8, 2);
    in_launches("5 7 3", true, "cast div3 swap", PRECISION_FP32, 8, 2);
    in_launches("3 5 7", false, "cast div3 swap", PRECISION_FP32, 8, 2);
    in_launches("5 7 3", true, "cast div rows", PRECISION_FP32, 8, 1);
    in_launches("5 7 3", true, "cast div rows add", PRECISION_FP32, 8, 2);
    end();
}

/* As many numbers as there are columns, once as channels: no second axis of them. */
static void numbers_along_two_dimensions_end_it(void)
{
    open_device("green");
    start(13);
    uint32_t x = input_of("x", DT_UINT8, "B 3 4 3");
    uint32_t y = op(OP_Sub, "", 2, op(OP_Cast, "to=1", 1, x), weights("3"));
    output(op(OP_Mul, "", 2, y, weights("3 1 1")));
    bind_rows(2);
    size_t n;
    float *got = answer(PRECISION_FP32, 2, &n);
    CHECK(off(got) <= limit(PRECISION_FP32));
    CHECK_EQ(n, 2);
    free(got);
    arena_done(&arena);
    end();
}

/* With 1e8 in FP32 most of a byte is lost, and the model means what it says. */
static void what_rounds_otherwise_stays_apart(void)
{
    open_device("green");
    start(13);
    uint32_t x = op(OP_Cast, "to=1", 1, input_of("x", DT_UINT8, "B 3 4 5"));
    x = op(OP_Add, "", 2, x, scalar(1e8f));
    output(op(OP_Sub, "", 2, x, scalar(1e8f)));
    bind_rows(2);
    size_t n;
    float *got = answer(PRECISION_FP32, 2, &n);
    CHECK_EQ(off(got), 0);
    CHECK_EQ(n, 2); /* Cast and sum are one */
    free(got);
    arena_done(&arena);
    end();
}

/* A number that is infinite or none is the nodes' affair. */
static void a_division_by_zero_stays_apart(void)
{
    open_device("green");
    start(13);
    uint32_t x = op(OP_Cast, "to=1", 1, input_of("x", DT_UINT8, "B 3 4 5"));
    output(op(OP_Relu, "", 1, op(OP_Div, "", 2, x, scalar(0))));
    bind_rows(2);
    size_t n;
    free(answer(PRECISION_FP32, 2, &n));
    CHECK_EQ(n, 3);
    arena_done(&arena);
    end();
}

/* A softmax takes the factor in front of it, but not from here. */
static void a_softmax_behind_it_leaves_its_factor(void)
{
    open_device("green");
    start(13);
    uint32_t x = op(OP_Cast, "to=1", 1, input_of("x", DT_UINT8, "B 3 40"));
    x = op(OP_Mul, "", 2, x, scalar(0.01f));
    output(op(OP_Softmax, "axis=-1", 1, x));
    bind_rows(2);
    size_t n;
    float *got = answer(PRECISION_FP32, 2, &n);
    CHECK(off(got) <= 1e-5);
    CHECK_EQ(n, 2);
    free(got);
    arena_done(&arena);
    end();
}

/* (height, width, channels) becomes (1, channels, height, width). */
static void a_dimension_more_is_no_launch(void)
{
    open_device("green");
    start(13);
    uint32_t x = op(OP_Cast, "to=1", 1, input_of("x", DT_UINT8, "B 7 3"));
    x = op(OP_Div, "", 2, op(OP_Sub, "", 2, x, weights("3")), weights("1 1 3"));
    x = op(OP_Unsqueeze, "", 2, x, ints(1, 0));
    output(op(OP_Transpose, "perm=0,3,1,2", 1, x));
    bind_rows(8);
    size_t n;
    float *got = answer(PRECISION_FP32, 8, &n);
    CHECK(off(got) <= limit(PRECISION_FP32));
    CHECK_EQ(n, 1);
    free(got);
    arena_done(&arena);
    end();
}

int main(void)
{
    ALONE(a_cast_and_its_arithmetic_are_one_launch);
    ALONE(a_transpose_to_planes_is_in_it_wherever_it_stands);
    ALONE(so_is_one_from_planes);
    ALONE(images_of_other_than_three_channels_are_right);
    ALONE(so_are_images_of_more_than_a_grid);
    ALONE(nothing_is_written_beyond_the_end);
    ALONE(a_convolution_in_16_bits_has_it_as_it_wants_it);
    ALONE(so_has_one_that_takes_the_bytes_as_they_are);
    ALONE(a_product_in_16_bits_has_rows);
    ALONE(a_convolution_in_fp32_has_planes);
    ALONE(what_else_reads_it_has_fp32);
    ALONE(a_cast_alone_is_a_cast);
    ALONE(what_others_read_is_written);
    ALONE(what_is_no_such_number_ends_it);
    ALONE(numbers_along_two_dimensions_end_it);
    ALONE(what_rounds_otherwise_stays_apart);
    ALONE(a_division_by_zero_stays_apart);
    ALONE(a_softmax_behind_it_leaves_its_factor);
    ALONE(a_dimension_more_is_no_launch);
    return check_end();
}
