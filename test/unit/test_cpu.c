/* The CPU backend: cores and partitions, waiting, rows of several requests, segments, weights.
 * What each operator computes is test/ops' business. */
#include "../count_malloc.h"
#include "../graph_build.h"
#include <gpulet/clock.h>
#include <lib/backend/cpu/cpu.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define CHANNELS 16
#define SIDE 6
#define IMAGE (CHANNELS * SIDE * SIDE)
#define BATCH 4

static const struct backend *be = &backend_cpu;
static struct device *dev;
static struct part *part;
static struct err err;

static void open_device(void)
{
    struct backend_config cfg = {0};
    struct granules set = {{0}};
    uint32_t units = 0;

    CHECK_EQ(be->dev_open(&cfg, 0, &dev, &err), 0);
    granules_add(&set, 0);
    CHECK_EQ(be->part_open(dev, &set, &part, &units, &err), 0);
    CHECK_EQ(units, 1);
}

static void close_device(void)
{
    be->part_close(part);
    be->dev_close(dev);
}

static float made_up(uint32_t i)
{
    return (float)((i * 2654435761u) >> 16 & 255) / 128 - 1;
}

static uint32_t filter(int64_t out, int64_t in, int64_t side)
{
    int64_t dims[] = {out, in, side, side};
    uint32_t n = (uint32_t)(out * in * side * side);
    float *w = calloc(n, sizeof(*w));

    for (uint32_t i = 0; w && i < n; i++)
        w[i] = made_up(i) / 16;
    uint32_t v = constant_of(DT_FP32, 4, dims, w);
    free(w);
    return v;
}

/* Two convolutions and a residual, in two segments: y = relu(conv(conv(x)) + conv(x)). */
static struct bound *two_convolutions(int64_t batch, struct arena *arena)
{
    struct shape_key key = {.n = 1, .dim = {batch}};
    struct bound *b = NULL;

    start(17);
    uint32_t x = input("x", "B 16 6 6");
    uint32_t one = op(OP_Conv, "pads=1,1,1,1", 2, x, filter(CHANNELS, CHANNELS, 3));
    uint32_t two = op(OP_Conv, "pads=1,1,1,1", 2, one, filter(CHANNELS, CHANNELS, 3));
    output(two);
    g->nodes[1].n_post = 2;
    g->nodes[1].post[0] = (struct post){.kind = POST_ADD, .value = one};
    g->nodes[1].post[1] = (struct post){.kind = POST_RELU};
    g->batch_sym = 0;
    g->n_segments = 2;
    g->cut = ARENA_ARRAY(&g->arena, uint32_t, 3);
    g->cut[1] = 1;
    g->cut[2] = 2;
    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(arena);
    CHECK_EQ(graph_bind(g, &key, arena, &b, &err), 0);
    return b;
}

static struct exe *compiled_as(const struct bound *b, bool batch_invariant)
{
    struct compile_args args = {.model = "test", .bound = b};
    struct exe *x = NULL;

    args.batch_invariant = batch_invariant;

    CHECK_EQ(be->compile(part, &args, &x, &err), 0);
    if (!x)
        printf("# %s\n", err.msg);
    assert(x);
    return x;
}

static struct exe *compiled(const struct bound *b)
{
    return compiled_as(b, false);
}

static int run_rows(struct slot *s, unsigned from, unsigned to, uint32_t n,
                    const struct io_part *parts)
{
    struct io io = {.n_parts = n, .part = parts};
    struct done done = {.rc = -1};
    ticket t = 0;

    CHECK_EQ(be->submit(s, 0, from, to, &io, &t), 0);
    CHECK_EQ(be->wait(part, 0, &done, 1), 1);
    CHECK_EQ(done.ticket, t);
    return done.rc;
}

static int run_one(struct slot *s, unsigned from, unsigned to, uint32_t rows, const float *x,
                   float *y)
{
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part p = {.rows = rows, .in = in, .out = out};

    return run_rows(s, from, to, 1, &p);
}

/* A model opened with its slot; x holds BATCH images. */
struct opened {
    struct arena arena;
    struct exe *exe;
    struct slot *slot;
    float x[BATCH * IMAGE], y[BATCH * IMAGE], again[BATCH * IMAGE];
};

static struct opened *open_model(void)
{
    struct opened *o = calloc(1, sizeof(*o));

    assert(o);
    open_device();
    o->exe = compiled(two_convolutions(BATCH, &o->arena));
    CHECK_EQ(be->slot_open(o->exe, &o->slot, &err), 0);
    for (uint32_t i = 0; i < BATCH * IMAGE; i++)
        o->x[i] = made_up(i + 7);
    CHECK_EQ(run_one(o->slot, 0, 2, BATCH, o->x, o->y), 0);
    return o;
}

static void close_model(struct opened *o)
{
    be->slot_close(o->slot);
    be->release(o->exe);
    arena_done(&o->arena);
    free(o);
    close_device();
}

static void one_device_lists_its_cores(void)
{
    struct backend_config cfg = {.cpu_units = "auto"};
    struct device_info info;
    cpu_set_t may;
    size_t n = 0;

    CHECK_EQ(sched_getaffinity(0, sizeof(may), &may), 0);
    CHECK_EQ(be->devices(&cfg, &info, 1, &n, &err), 0);
    CHECK_EQ(n, 1);
    CHECK_STR(info.name, "cpu0");
    CHECK_EQ(info.n_granules, CPU_COUNT(&may) >= 3 ? CPU_COUNT(&may) - 1 : CPU_COUNT(&may));
    CHECK_HAS(info.why, "service threads");
    CHECK(info.weights_shared);
}

static void units_that_make_no_sense_are_refused_by_name(void)
{
    struct backend_config cfg = {.cpu_units = "1-"};
    struct device_info info;
    size_t n;

    CHECK_EQ(be->devices(&cfg, &info, 1, &n, &err), -EINVAL);
    CHECK_HAS(err.msg, "'1-'");
    (void)strcpy(cfg.cpu_units, "1000");
    CHECK_EQ(be->devices(&cfg, &info, 1, &n, &err), -EINVAL);
    CHECK_HAS(err.msg, "core 1000");
}

static void a_core_may_be_in_two_partitions_but_must_exist(void)
{
    struct granules same = {{1}}, beyond = {{0}};
    struct part *other = NULL;
    uint32_t units;

    open_device();
    CHECK_EQ(be->part_open(dev, &same, &other, &units, &err), 0); /* make before break */
    be->part_close(other);
    granules_add(&beyond, MAX_GRANULES - 1);
    CHECK_EQ(be->part_open(dev, &beyond, &other, &units, &err), -EINVAL);
    close_device();
}

static void *kick_soon(void *p)
{
    (void)usleep(20000);
    be->kick(p);
    return NULL;
}

static void a_wait_ends_at_its_time_or_at_a_kick(void)
{
    struct done done;
    pthread_t thread;

    open_device();
    usec_t start_us = clock_now_us();
    CHECK_EQ(be->wait(part, start_us + 10000, &done, 1), 0);
    CHECK(clock_now_us() >= start_us + 10000);

    be->kick(part); /* before the wait: it is not lost */
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 0);

    CHECK_EQ(pthread_create(&thread, NULL, kick_soon, part), 0);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 0);
    (void)pthread_join(thread, NULL);
    close_device();
}

static void the_executor_is_pinned_when_it_enters(void)
{
    cpu_set_t before, after;

    CHECK_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    open_device();
    be->part_enter(part);
    CHECK_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
    CHECK_EQ(CPU_COUNT(&after), 1);
    CHECK_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
    close_device();
}

static void rows_of_several_requests_come_back_to_each(void)
{
    struct opened *o = open_model();
    const void *in[3][1] = {{o->x}, {o->x + IMAGE}, {o->x + 2 * IMAGE}};
    void *out[3][1] = {{o->again}, {o->again + IMAGE}, {o->again + 2 * IMAGE}};
    struct io_part p[3] = {{1, in[0], out[0]}, {1, in[1], out[1]}, {2, in[2], out[2]}};

    CHECK_EQ(run_rows(o->slot, 0, 2, 3, p), 0);
    CHECK(memcmp(o->y, o->again, sizeof(o->y)) == 0);
    close_model(o);
}

static void fewer_rows_than_the_batch_write_no_more_than_their_own(void)
{
    struct opened *o = open_model();

    memset(o->again, 0x55, sizeof(o->again));
    CHECK_EQ(run_one(o->slot, 0, 2, 3, o->x, o->again), 0);
    CHECK(memcmp(o->y, o->again, 3 * IMAGE * sizeof(float)) == 0);
    for (uint32_t i = 3 * IMAGE; i < BATCH * IMAGE; i++)
        CHECK(memcmp(&o->again[i], "\x55\x55\x55\x55", 4) == 0);
    close_model(o);
}

/* The same rows beside others, and twice: not one bit differs. */
static void a_row_does_not_depend_on_its_companions(void)
{
    struct opened *o = open_model();
    static float other[BATCH * IMAGE];

    for (uint32_t i = 0; i < BATCH * IMAGE; i++)
        other[i] = i / IMAGE == 1 ? o->x[i] : 1e3f * made_up(i + 99);
    CHECK_EQ(run_one(o->slot, 0, 2, BATCH, other, o->again), 0);
    CHECK_EQ(memcmp(o->y + IMAGE, o->again + IMAGE, IMAGE * sizeof(float)), 0);
    CHECK(memcmp(o->y, o->again, IMAGE * sizeof(float)) != 0);
    CHECK_EQ(run_one(o->slot, 0, 2, BATCH, o->x, o->again), 0);
    CHECK_EQ(memcmp(o->y, o->again, sizeof(o->y)), 0);
    close_model(o);
}

/* Of an exe for one row and of one for BATCH: not one bit differs, wherever the row lies. */
static void with_batch_invariant_a_row_is_computed_as_if_it_were_alone(void)
{
    struct arena arena, alone_arena;
    struct slot *s = NULL, *alone = NULL;
    static float x[BATCH * IMAGE + 1], y[BATCH * IMAGE + 1], one[BATCH * IMAGE];
    const void *in[3][1] = {{x}, {x + IMAGE}, {x + 3 * IMAGE + 1}};
    void *out[3][1] = {{y}, {y + IMAGE}, {y + 3 * IMAGE + 1}};
    struct io_part p[3] = {{1, in[0], out[0]}, {2, in[1], out[1]}, {1, in[2], out[2]}};
    struct exe_info all_info, info;

    open_device();
    struct exe *all = compiled_as(two_convolutions(BATCH, &arena), true);
    struct graph *first = TAKE(g);
    struct exe *single = compiled(two_convolutions(1, &alone_arena));
    be->exe_info(all, &all_info);
    be->exe_info(single, &info);
    CHECK_EQ(all_info.n_segments, 1);
    CHECK_EQ(all_info.slot_bytes, info.slot_bytes);
    CHECK_EQ(be->slot_open(all, &s, &err), 0);
    CHECK_EQ(be->slot_open(single, &alone, &err), 0);
    for (uint32_t i = 0; i < BATCH * IMAGE + 1; i++)
        x[i] = made_up(i + 7);
    CHECK_EQ(run_rows(s, 0, 1, 3, p), 0);
    for (uint32_t i = 0; i < BATCH; i++)
        CHECK_EQ(run_one(alone, 0, 2, 1, x + i * IMAGE + (i == 3), one + i * IMAGE), 0);
    CHECK_EQ(memcmp(y, one, 3 * IMAGE * sizeof(*y)), 0);
    CHECK_EQ(memcmp(y + 3 * IMAGE + 1, one + 3 * IMAGE, IMAGE * sizeof(*y)), 0);
    CHECK_EQ(y[3 * IMAGE], 0); /* between two requests' memory */
    be->slot_close(s);
    be->slot_close(alone);
    be->release(all);
    be->release(single);
    arena_done(&arena);
    arena_done(&alone_arena);
    graph_free(first);
    close_device();
}

static void a_paused_run_resumes_bit_equal(void)
{
    struct opened *o = open_model();
    struct slot *other = NULL;
    float zero[BATCH * IMAGE] = {0};

    CHECK_EQ(be->slot_open(o->exe, &other, &err), 0);
    CHECK_EQ(run_one(o->slot, 0, 1, BATCH, o->x, o->again), 0);
    float *ignored = calloc(BATCH * IMAGE, sizeof(float));
    CHECK_EQ(run_one(other, 0, 2, BATCH, zero, ignored), 0); /* another query in between */
    CHECK_EQ(run_one(o->slot, 1, 2, BATCH, o->x, o->again), 0);
    CHECK(memcmp(o->y, o->again, sizeof(o->y)) == 0);
    free(ignored);
    be->slot_close(other);
    close_model(o);
}

static void weights_are_packed_once_for_all(void)
{
    struct opened *o = open_model();
    struct arena arena;
    size_t bytes = dev->weights_bytes;
    const struct graph *first = TAKE(g); /* of the model that is open */

    CHECK_EQ(bytes, CHANNELS * CHANNELS * 9 * 4); /* equal content: both convolutions share it */
    struct exe *second = compiled(two_convolutions(1, &arena));
    CHECK_EQ(dev->weights_bytes, bytes);
    be->release(second);
    arena_done(&arena);
    CHECK_EQ(dev->weights_bytes, bytes);
    struct device *d = dev;
    be->slot_close(TAKE(o->slot));
    be->release(TAKE(o->exe));
    CHECK_EQ(d->weights_bytes, 0);
    arena_done(&o->arena);
    free(o);
    graph_free((struct graph *)first);
    close_device();
}

/* ---- packing in slices */

static const char *read_until;
static size_t n_reads;

static void was_read(const void *data, size_t bytes)
{
    CHECK(data == read_until);
    read_until = (const char *)data + bytes;
    n_reads++;
}

/* Weights [2051, 1030] as a product wants them, and back. */
static void pack_and_unpack(int64_t stride0, int64_t stride1)
{
    int64_t x_dims[] = {4, 2051}, w_dims[] = {2051, 1030}, y_dims[] = {4, 1030};
    int64_t strides[] = {stride0, stride1};
    size_t n = 2051u * 1030;
    float *w = calloc(n, sizeof(*w)), *back = calloc(n, sizeof(*w));
    struct dn_matmul m = {0};
    struct layout from;
    struct prim p;

    CHECK_EQ(layout_rows(&m.src, 2, x_dims), 0);
    CHECK_EQ(layout_any(&m.weights, 2, w_dims), 0);
    CHECK_EQ(layout_rows(&m.dst, 2, y_dims), 0);
    CHECK_EQ(layout_strided(&from, 2, w_dims, strides), 0);
    CHECK_EQ(dn_matmul(&dev->dn, &m, &p), 0);
    void *packed = calloc(1, p.weights.bytes);
    for (size_t i = 0; i < n; i++)
        w[i] = made_up((uint32_t)i);
    read_until = (const char *)w;
    n_reads = 0;
    CHECK_EQ(dn_pack(&dev->dn, &from, w, &p.weights, packed, was_read), 0);
    CHECK(read_until == (const char *)(w + n));
    CHECK(n_reads > 1);
    CHECK_EQ(dn_pack(&dev->dn, &p.weights, packed, &from, back, NULL), 0);
    CHECK_EQ(memcmp(w, back, n * sizeof(*w)), 0);
    prim_done(&p);
    free(packed);
    free(w);
    free(back);
}

static void constants_are_packed_in_slices(void)
{
    open_device();
    pack_and_unpack(1030, 1);
    pack_and_unpack(1, 2051);
    close_device();
}

/* ---- rows of a convolution in parts */

#define WIDE 112
#define DEEP 128
#define PIXELS ((size_t)DEEP * WIDE * WIDE)

/* Convolves rows of 6 MiB, as many at once as the shape says; info of how. */
static void convolve(const char *shape, uint32_t rows, const float *x, float *y,
                     struct exe_info *info)
{
    struct shape_key key = {0};
    struct bound *b = NULL;
    struct slot *slot = NULL;
    struct arena arena;

    start(17);
    output(op(OP_Conv, "pads=1,1,1,1", 2, input("x", shape), filter(DEEP, DEEP, 3)));
    g->nodes[0].n_post = 1;
    g->nodes[0].post[0] = (struct post){.kind = POST_RELU};
    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(&arena);
    CHECK_EQ(graph_bind(g, &key, &arena, &b, &err), 0);
    struct exe *exe = compiled(b);
    be->exe_info(exe, info);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    for (uint32_t i = 0; i < rows; i++)
        CHECK_EQ(run_one(slot, 0, 1, 1, x + i * PIXELS, y + i * PIXELS), 0);
    be->slot_close(slot);
    be->release(exe);
    arena_done(&arena);
}

static size_t non_zero(const float *y, size_t n)
{
    size_t ret = 0;

    for (size_t i = 0; i < n; i++)
        ret += y[i] != 0;
    return ret;
}

static void a_batch_of_large_images_is_convolved_in_parts_that_share_memory(void)
{
    float *x = calloc(4 * PIXELS, sizeof(*x)), *y = calloc(4 * PIXELS, sizeof(*x));
    float *alone = calloc(4 * PIXELS, sizeof(*x));
    struct exe_info all, one;

    for (uint32_t i = 0; i < 4 * PIXELS; i++)
        x[i] = made_up(i + 7 + i / 128);
    open_device();
    convolve("4 128 112 112", 1, x, y, &all);
    convolve("1 128 112 112", 4, x, alone, &one);
    CHECK_EQ(all.n_steps, dev->dn.block == 16 ? one.n_steps + 1 : one.n_steps);
    CHECK(all.slot_bytes < 5 * 4 * PIXELS * sizeof(*x)); /* rows, blocks, and 100 MiB */
    CHECK_EQ(memcmp(y, alone, 4 * PIXELS * sizeof(*y)), 0);
    CHECK(non_zero(y, PIXELS) > PIXELS / 8 && non_zero(y, PIXELS) < PIXELS);
    close_device();
    free(x);
    free(y);
    free(alone);
}

static void blocked_layout_lasts_from_convolution_to_convolution(void)
{
    struct opened *o = open_model();
    struct exe_info info;

    be->exe_info(o->exe, &info);
    CHECK_EQ(info.n_segments, 2);
    CHECK_EQ(info.n_reorders, 2); /* in and out, none between */
    CHECK_EQ(info.n_steps, 4);    /* the residual and Relu are inside the second convolution */
    close_model(o);
}

/* A block of DenseNet: convolutions whose results are joined again and again, each joint normed
 * and clipped at zero; at the end a pool reads the joint itself. */
static struct bound *dense_block(struct arena *arena)
{
    struct shape_key key = {.n = 1, .dim = {2}};
    struct bound *b = NULL;
    float stat[3 * CHANNELS];
    int64_t dims[] = {2 * CHANNELS}, wide[] = {3 * CHANNELS};

    for (uint32_t i = 0; i < ARRAY_SIZE(stat); i++)
        stat[i] = made_up(i + 3) + 2;
    start(17);
    uint32_t x = input("x", "B 16 6 6");
    uint32_t one = op(OP_Conv, "pads=1,1,1,1", 2, x, filter(CHANNELS, CHANNELS, 3));
    uint32_t two = op(OP_Conv, "", 2, one, filter(CHANNELS, CHANNELS, 1));
    uint32_t s = constant_of(DT_FP32, 1, dims, stat);
    uint32_t t = op(OP_BatchNormalization, "", 5, op(OP_Concat, "axis=1", 2, one, two), s, s, s, s);
    uint32_t three =
        op(OP_Conv, "pads=1,1,1,1", 2, op(OP_Relu, "", 1, t), filter(CHANNELS, 2 * CHANNELS, 3));
    uint32_t all = op(OP_Concat, "axis=1", 3, one, two, three);
    s = constant_of(DT_FP32, 1, wide, stat);
    t = op(OP_BatchNormalization, "", 5, all, s, s, s, s);
    output(op(OP_GlobalAveragePool, "", 1, t));
    output(op(OP_MaxPool, "kernel_shape=2,2", 1, all));
    struct model_report report = {0};
    CHECK_EQ(graph_infer(g, &err), 0);
    CHECK_EQ(graph_optimise(g, &report, &err), 0);
    g->batch_sym = 0;
    arena_init(arena);
    CHECK_EQ(graph_bind(g, &key, arena, &b, &err), 0);
    return b;
}

static void near(const float *is, const struct tensor *want)
{
    CHECK(want->data != NULL);
    for (size_t i = 0; want->data && i < want->bytes / sizeof(float); i++)
        CHECK(fabsf(is[i] - ((const float *)want->data)[i]) < 1e-3f);
}

static void joined_channels_are_read_where_they_are(void)
{
    static float y[2 * 3 * CHANNELS], z[2 * 3 * CHANNELS * 25];
    const struct shape_key key = {.n = 1, .dim = {2}};
    struct arena arena, other;
    struct slot *s = NULL;
    uint32_t joins = 0;

    open_device();
    struct exe *exe = compiled(dense_block(&arena));
    for (uint32_t i = 0; i < exe->n_steps; i++)
        joins += !exe->step[i].is_prim && exe->step[i].call.name &&
                 STREQ(exe->step[i].call.name, "join");
    CHECK_EQ(joins, 1); /* for the pool: the two norms read the pieces */
    arena_init(&other);
    struct bound *ref = run_graph(g, &key, 2, 0, &other);
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    const void *in[] = {ref->value[g->in[0]].data};
    void *out[] = {y, z};
    struct io_part p = {.rows = 2, .in = in, .out = out};
    CHECK_EQ(run_rows(s, 0, exe->n_segments, 1, &p), 0);
    near(y, &ref->value[g->out[0]]);
    near(z, &ref->value[g->out[1]]);
    be->slot_close(s);
    be->release(exe);
    close_device();
    arena_done(&other);
    arena_done(&arena);
}

/* [x, y] with channels in turn, as [B, 2, 20, ...] turned. */
static uint32_t shuffled(uint32_t x, uint32_t y)
{
    const int64_t five = 5, four = 4, to[] = {0, 2, 20, 6, 6}, back[] = {0, 40, 6, 6};
    uint32_t all = op(OP_Concat, "axis=1", 2, x, y);
    uint32_t groups = op(OP_Reshape, "", 2, all, constant_of(DT_INT64, 1, &five, to));
    uint32_t turned = op(OP_Transpose, "perm=0,2,1,3,4", 1, groups);

    return op(OP_Reshape, "", 2, turned, constant_of(DT_INT64, 1, &four, back));
}

static uint32_t half(uint32_t x, int64_t from)
{
    const int64_t one = 1, to = from + 20, axis = 1;

    return op(OP_Slice, "", 4, x, constant_of(DT_INT64, 1, &one, &from),
              constant_of(DT_INT64, 1, &one, &to), constant_of(DT_INT64, 1, &one, &axis));
}

/* Two units of a ShuffleNet whose halves of 20 channels fill no whole blocks. */
static struct bound *shuffle_units(struct arena *arena)
{
    struct shape_key key = {.n = 1, .dim = {2}};
    struct bound *b = NULL;
    float stat[40];
    const int64_t dims[] = {40};

    for (uint32_t i = 0; i < ARRAY_SIZE(stat); i++)
        stat[i] = made_up(i + 3) + 2;
    start(17);
    uint32_t x = input("x", "B 24 6 6"), s = constant_of(DT_FP32, 1, dims, stat);
    uint32_t one = op(OP_Conv, "", 2, x, filter(20, 24, 1));
    uint32_t two = op(OP_Conv, "", 2, x, filter(20, 24, 1));
    uint32_t first = shuffled(one, two);
    uint32_t three = op(OP_Conv, "", 2, half(first, 20), filter(20, 20, 1));
    uint32_t last = shuffled(half(first, 0), three);
    output(op(OP_Conv, "", 2, last, filter(16, 40, 1)));
    output(op(OP_BatchNormalization, "", 5, shuffled(one, three), s, s, s, s));
    g->batch_sym = 0;
    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(arena);
    CHECK_EQ(graph_bind(g, &key, arena, &b, &err), 0);
    return b;
}

static void channels_are_shuffled_in_blocks(void)
{
    static float y[2 * 16 * 36], z[2 * 40 * 36];
    const struct shape_key key = {.n = 1, .dim = {2}};
    struct arena arena, other;
    struct slot *s = NULL;
    uint32_t picks = 0, transposes = 0;

    open_device();
    struct exe *exe = compiled(shuffle_units(&arena));
    for (uint32_t i = 0; i < exe->n_steps; i++) {
        picks += exe->step[i].call.name && STREQ(exe->step[i].call.name, "channel pick");
        transposes += g->nodes[exe->step[i].node].op == OP_Transpose;
    }
    CHECK_EQ(picks, 4); /* two halves, and what the last convolution and the norm read */
    CHECK_EQ(transposes, 0);
    CHECK_EQ(exe->n_reorders, 3); /* in, out, and for the norm, whose channels fill no blocks */
    arena_init(&other);
    struct bound *ref = run_graph(g, &key, 2, 0, &other);
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    const void *in[] = {ref->value[g->in[0]].data};
    void *out[] = {y, z};
    struct io_part p = {.rows = 2, .in = in, .out = out};
    CHECK_EQ(run_rows(s, 0, exe->n_segments, 1, &p), 0);
    near(y, &ref->value[g->out[0]]);
    near(z, &ref->value[g->out[1]]);
    be->slot_close(s);
    be->release(exe);
    close_device();
    arena_done(&other);
    arena_done(&arena);
}

static void running_keeps_no_memory(void)
{
    struct opened *o = open_model();
    size_t before = mallinfo2().uordblks;

    for (int i = 0; i < 100; i++)
        CHECK_EQ(run_one(o->slot, 0, 2, BATCH, o->x, o->again), 0);
    CHECK_EQ(mallinfo2().uordblks, before);
    close_model(o);
}

static void a_probe_times_the_segments_asked_for(void)
{
    struct opened *o = open_model();
    uint64_t ns[3] = {0};

    CHECK_EQ(be->probe(o->slot, 1, 2, 3, ns, &err), 0);
    for (int i = 0; i < 3; i++)
        CHECK(ns[i] > 0);
    CHECK_EQ(be->probe(o->slot, 1, 3, 3, ns, &err), -EINVAL);
    CHECK_EQ(run_one(o->slot, 0, 2, BATCH, o->x, o->again), 0);
    CHECK(memcmp(o->y, o->again, sizeof(o->y)) == 0); /* and leaves nothing behind */
    close_model(o);
}

/* ---- groups of rows */

#define LARGE_SIDE 256
#define LARGE (CHANNELS * LARGE_SIDE * LARGE_SIDE)
static float large_x[BATCH * LARGE], large_y[BATCH * LARGE], large_again[BATCH * LARGE];

/* A row of 4 MiB, which a batch of four would not find in the cache again. */
static struct bound *large_rows(int64_t batch, struct arena *arena)
{
    struct shape_key key = {.n = 1, .dim = {batch}};
    struct bound *b = NULL;

    start(17);
    uint32_t x = input("x", "B 16 256 256");
    output(op(OP_Conv, "pads=1,1,1,1", 2, x, filter(CHANNELS, CHANNELS, 3)));
    g->batch_sym = 0;
    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(arena);
    CHECK_EQ(graph_bind(g, &key, arena, &b, &err), 0);
    return b;
}

static void open_cores(unsigned n)
{
    struct backend_config cfg = {0};
    struct granules set = {{0}};
    uint32_t units = 0;

    CHECK_EQ(be->dev_open(&cfg, 0, &dev, &err), 0);
    for (unsigned i = 0; i < n; i++)
        granules_add(&set, i);
    CHECK_EQ(be->part_open(dev, &set, &part, &units, &err), 0);
    CHECK_EQ(units, n);
}

static unsigned cores_here(void)
{
    struct backend_config cfg = {0};
    struct device_info info = {.n_granules = 0};
    size_t n = 0;

    CHECK_EQ(be->devices(&cfg, &info, 1, &n, &err), 0);
    return info.n_granules;
}

/* large_y: what each row of large_x gives alone. */
static void rows_alone(void)
{
    struct arena arena;
    struct slot *s = NULL;

    for (uint32_t i = 0; i < BATCH * LARGE; i++)
        large_x[i] = made_up(i + 5);
    open_cores(1);
    struct exe *exe = compiled(large_rows(1, &arena));
    CHECK(exe->group == NULL);
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    for (uint32_t i = 0; i < BATCH; i++)
        CHECK_EQ(run_one(s, 0, 1, 1, large_x + i * LARGE, large_y + i * LARGE), 0);
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
}

/* Two requests, the second of so many rows. */
static void check_two_requests(struct slot *s, uint32_t second)
{
    const void *in[2][1] = {{large_x}, {large_x + LARGE}};
    void *out[2][1] = {{large_again}, {large_again + LARGE}};
    struct io_part p[2] = {{1, in[0], out[0]}, {second, in[1], out[1]}};

    memset(large_again, 0x55, sizeof(large_again));
    CHECK_EQ(run_rows(s, 0, 1, 2, p), 0);
    CHECK(memcmp(large_again, large_y, (1 + second) * LARGE * sizeof(float)) == 0);
    for (uint32_t i = (1 + second) * LARGE; i < BATCH * LARGE; i++)
        CHECK(memcmp(&large_again[i], "\x55\x55\x55\x55", 4) == 0);
}

static void large_rows_run_in_groups_and_give_what_they_give_alone(void)
{
    rows_alone();
    for (unsigned cores = 1; cores <= MIN(cores_here(), 2u); cores++) {
        struct arena arena;
        struct slot *s = NULL;
        struct exe_info info;
        uint64_t ns[2] = {0};

        open_cores(cores);
        struct exe *exe = compiled(large_rows(BATCH, &arena));
        CHECK(exe->group != NULL);
        be->exe_info(exe, &info);
        CHECK_EQ(exe->group->batch, 1);
        CHECK(info.slot_bytes < BATCH * LARGE * sizeof(float) * 2);
        CHECK_EQ(be->slot_open(exe, &s, &err), 0);
        memset(large_again, 0, sizeof(large_again));
        CHECK_EQ(run_one(s, 0, 1, BATCH, large_x, large_again), 0);
        CHECK(memcmp(large_again, large_y, sizeof(large_y)) == 0);
        check_two_requests(s, 1);
        check_two_requests(s, 2);
        check_two_requests(s, 3);
        CHECK_EQ(be->probe(s, 0, 1, 2, ns, &err), 0);
        CHECK(ns[0] > 0 && ns[1] > 0);
        be->slot_close(s);
        be->release(exe);
        CHECK_EQ(dev->weights_bytes, 0);
        arena_done(&arena);
        close_device();
    }
}

/* ---- pieces of our kernels */

/* The graph that was built, without free dimensions. */
static struct bound *bound_now(struct arena *arena)
{
    struct shape_key key = {.n = 0};
    struct bound *b = NULL;

    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(arena);
    CHECK_EQ(graph_bind(g, &key, arena, &b, &err), 0);
    return b;
}

#define COLS 403 /* of 61 rows: the pieces are not alike */

/* Each kernel that is cut. */
static struct bound *kernels_in_pieces(struct arena *arena)
{
    static float number[COLS];
    const int64_t cols[] = {COLS}, channels[] = {6 * CHANNELS};

    for (uint32_t i = 0; i < COLS; i++)
        number[i] = made_up(i) + 2;
    start(17);
    uint32_t x = input("x", "61 403"), image = input("image", "1 48 20 20");
    uint32_t c = constant_of(DT_FP32, 1, cols, number),
             s = constant_of(DT_FP32, 1, channels, number);
    output(op(OP_Sigmoid, "", 1, x));
    output(op(OP_Softmax, "axis=1", 1, x));
    output(op(OP_LayerNormalization, "axis=-1", 3, x, c, c));
    output(op(OP_Mul, "", 2, x, c));
    output(op(OP_Transpose, "perm=1,0", 1, x));
    output(op(OP_Concat, "axis=1", 2, x, x));
    uint32_t one = op(OP_Conv, "", 2, image, filter(3 * CHANNELS, 3 * CHANNELS, 1));
    uint32_t two = op(OP_Mul, "", 2, one, op(OP_GlobalAveragePool, "", 1, one));
    uint32_t all = op(OP_Concat, "axis=1", 2, one, two);
    output(op(OP_BatchNormalization, "", 5, all, s, s, s, s));
    output(op(OP_MaxPool, "kernel_shape=2,2", 1, all));
    return bound_now(arena);
}

/* On so many cores, with the inputs of ref; out: by output, the caller's to free. */
static void run_all(unsigned cores, uint32_t n_pieces, const struct bound *ref, float **out)
{
    const void *in[MAX_IO];
    struct arena arena;
    struct slot *s = NULL;
    struct io_part p = {.rows = 1, .in = in, .out = (void *const *)out};
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->n_in; i++)
        in[i] = ref->value[g->in[i]].data;
    for (uint32_t i = 0; i < g->n_out; i++)
        out[i] = calloc(1, ref->value[g->out[i]].bytes);
    const struct graph *inputs = TAKE(g); /* of the reference */
    open_cores(cores);
    struct exe *exe = compiled(kernels_in_pieces(&arena));
    for (uint32_t i = 0; i < exe->n_steps; i++)
        n += exe->step[i].in_pieces;
    CHECK_EQ(n, n_pieces);
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    CHECK_EQ(run_rows(s, 0, 1, 1, &p), 0);
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
    graph_free(g);
    g = (struct graph *)inputs;
}

static void kernels_in_pieces_give_what_they_give_as_one(void)
{
    float *one[MAX_IO] = {0}, *two[MAX_IO] = {0};
    const struct shape_key key = {.n = 0};
    struct arena arena, other;

    (void)kernels_in_pieces(&arena);
    arena_init(&other);
    struct bound *ref = run_graph(g, &key, 1, 0, &other);
    run_all(1, 0, ref, one);
    for (uint32_t i = 0; i < g->n_out; i++)
        near(one[i], &ref->value[g->out[i]]);
    if (cores_here() > 1)
        run_all(2, 9, ref, two);
    for (uint32_t i = 0; i < g->n_out; i++) {
        CHECK(!two[i] || memcmp(one[i], two[i], ref->value[g->out[i]].bytes) == 0);
        free(one[i]);
        free(two[i]);
    }
    arena_done(&other);
    arena_done(&arena);
}

static void a_type_without_a_fast_kernel_runs_in_plain_loops_and_is_counted(void)
{
    const double x[] = {0, 0, 0, 1, 1, 1};
    double y[6] = {0};
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part p = {.rows = 1, .in = in, .out = out};
    struct arena arena;
    struct exe_info info;
    struct slot *s = NULL;

    open_device();
    start(17);
    output(op(OP_Softmax, "axis=1", 1, input_of("x", DT_FP64, "2 3")));
    struct exe *exe = compiled(bound_now(&arena));
    be->exe_info(exe, &info);
    CHECK_EQ(info.n_plain, 1);
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    CHECK_EQ(run_rows(s, 0, 1, 1, &p), 0);
    for (int i = 0; i < 6; i++)
        CHECK(fabs(y[i] - 1.0 / 3) < 1e-12);
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
}

static void post_steps_of_a_half_precision_result_are_plain_too(void)
{
    const uint16_t x[] = {0xc000, 0x3c00}, add[] = {0x3c00, 0x3c00}; /* -2, 1 and 1, 1 */
    uint16_t y[2] = {0};
    const void *in[] = {x, add};
    void *out[] = {y};
    struct io_part p = {.rows = 1, .in = in, .out = out};
    struct arena arena;
    struct exe_info info;
    struct slot *s = NULL;

    open_device();
    start(17);
    uint32_t v = input_of("x", DT_FP16, "2"), w = input_of("add", DT_FP16, "2");
    output(op(OP_Abs, "", 1, v));
    g->nodes[0].n_post = 2;
    g->nodes[0].post[0] = (struct post){.kind = POST_ADD, .value = w};
    g->nodes[0].post[1] = (struct post){.kind = POST_CLIP, .alpha = 0, .beta = 2.5f};
    struct exe *exe = compiled(bound_now(&arena));
    be->exe_info(exe, &info);
    CHECK_EQ(info.n_plain, 3);
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    CHECK_EQ(run_rows(s, 0, 1, 1, &p), 0);
    CHECK_EQ(y[0], 0x4100); /* min(|-2| + 1, 2.5) */
    CHECK_EQ(y[1], 0x4000); /* |1| + 1 */
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
}

/* The filter of 1x1 that leaves every channel as it is. */
static uint32_t same_channels(void)
{
    int64_t dims[] = {CHANNELS, CHANNELS, 1, 1};
    float w[CHANNELS * CHANNELS] = {0};

    for (int i = 0; i < CHANNELS; i++)
        w[i * CHANNELS + i] = 1;
    return constant_of(DT_FP32, 4, dims, w);
}

/* The pool's result lies in blocks, its post step is done on rows: the second Conv wants blocks,
 * and the post step's numbers. */
static void post_steps_behind_a_primitive_reach_readers_of_its_layout(void)
{
    float x[IMAGE], y[IMAGE] = {0};
    struct arena arena;
    struct slot *s = NULL;

    open_device();
    start(17);
    uint32_t v = op(OP_Conv, "", 2, input("x", "1 16 6 6"), same_channels());
    v = op(OP_MaxPool, "kernel_shape=1,1", 1, v);
    output(op(OP_Conv, "", 2, v, same_channels()));
    g->nodes[1].n_post = 1;
    g->nodes[1].post[0] = (struct post){.kind = POST_CLIP, .alpha = -0.5f, .beta = 0.25f};
    struct exe *exe = compiled(bound_now(&arena));
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    for (uint32_t i = 0; i < IMAGE; i++)
        x[i] = made_up(i + 7);
    CHECK_EQ(run_one(s, 0, 1, 1, x, y), 0);
    for (uint32_t i = 0; i < IMAGE; i++)
        CHECK(y[i] == MIN(MAX(x[i], -0.5f), 0.25f));
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
}

static void a_type_that_plain_loops_lack_too_is_refused_with_the_node(void)
{
    struct arena arena;
    struct slot *s = NULL;
    uint64_t ns;

    open_device();
    start(17);
    output(op(OP_Erf, "", 1, input_of("x", DT_INT16, "2 3")));
    struct exe *exe = compiled(bound_now(&arena));
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    CHECK_EQ(be->probe(s, 0, 1, 1, &ns, &err), -ENOTSUP);
    CHECK_HAS(err.msg, "(Erf): type INT16 is not supported");
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
}

static void an_index_out_of_range_is_the_inputs_fault(void)
{
    const float x[] = {1, 2, 3};
    const int64_t at[] = {1, 3};
    float y[2];
    const void *in[] = {x, at};
    void *out[] = {y};
    struct io_part p = {.rows = 1, .in = in, .out = out};
    struct arena arena;
    struct slot *s = NULL;

    open_device();
    start(17);
    uint32_t v = input("x", "3");
    output(op(OP_Gather, "", 2, v, input_of("at", DT_INT64, "2")));
    struct exe *exe = compiled(bound_now(&arena));
    CHECK_EQ(be->slot_open(exe, &s, &err), 0);
    CHECK_EQ(run_rows(s, 0, 1, 1, &p), -EINVAL);
    be->slot_close(s);
    be->release(exe);
    arena_done(&arena);
    close_device();
}

/* ---- what is known only when a model runs */

struct late_run {
    struct arena arena;
    struct exe *exe;
    struct slot *slot;
    struct tensor out[MAX_IO];
};

static void late_open(struct late_run *l)
{
    struct exe_info info;

    *l = (struct late_run){.exe = NULL};
    l->exe = compiled(bound_now(&l->arena));
    be->exe_info(l->exe, &info);
    CHECK(info.late_outputs);
    CHECK_EQ(be->slot_open(l->exe, &l->slot, &err), 0);
}

static void late_close(struct late_run *l)
{
    be->slot_close(l->slot);
    be->release(l->exe);
    arena_done(&l->arena);
}

static int late_infer(struct late_run *l, const void *x)
{
    const void *in[] = {x};
    void *out[MAX_IO] = {NULL};
    struct io_part p = {.rows = 1, .in = in, .out = out};
    struct exe_info info;

    be->exe_info(l->exe, &info);
    int r = run_rows(l->slot, 0, info.n_segments, 1, &p);
    if (r == 0)
        be->outputs(l->slot, l->out);
    return r;
}

/* Relu runs before, NonZero late: of y = Relu(x) the places that are not zero, and y itself. */
static void late_non_zero(void)
{
    start(17);
    uint32_t y = op(OP_Relu, "", 1, input("x", "2 3"));
    output(op(OP_NonZero, "", 1, y));
    output(y);
}

static void outputs_whose_shape_depends_on_data_follow_each_run(void)
{
    const float two[] = {0, 1, -1, 0, 0, 2}, none[] = {-1, -1, 0, 0, -5, -1};
    struct late_run l;

    open_device();
    late_non_zero();
    late_open(&l);
    CHECK_EQ(late_infer(&l, two), 0);
    CHECK_EQ(l.out[0].rank, 2);
    CHECK_EQ(l.out[0].dims[0], 2);
    CHECK_EQ(l.out[0].dims[1], 2);
    CHECK(memcmp(l.out[0].data, ((const int64_t[]){0, 1, 1, 2}), 4 * sizeof(int64_t)) == 0);
    CHECK_EQ(l.out[1].bytes, sizeof(two));
    CHECK(((const float *)l.out[1].data)[5] == 2);
    CHECK_EQ(late_infer(&l, none), 0);
    CHECK_EQ(l.out[0].dims[1], 0);
    CHECK_EQ(l.out[0].bytes, 0);
    late_close(&l);
    close_device();
}

static void strings_go_in_and_out(void)
{
    static const char words[] = "\2\0\0\0ab\0\0\0\0\3\0\0\0xyz";
    struct late_run l;

    open_device();
    start(17);
    output(input_of("x", DT_STRING, "3"));
    late_open(&l);
    CHECK_EQ(late_infer(&l, words), 0);
    CHECK_EQ(l.out[0].dtype, DT_STRING);
    CHECK_EQ(l.out[0].dims[0], 3);
    CHECK_EQ(l.out[0].bytes, sizeof(words) - 1);
    CHECK(memcmp(l.out[0].data, words, sizeof(words) - 1) == 0);
    late_close(&l);
    close_device();
}

/* x repeated as often as it says: a request for more than a run may take. */
static void a_run_beyond_its_memory_fails_alone(void)
{
    const int64_t few[] = {2, 3}, many[] = {1 << 20, 64};
    struct late_run l;

    open_device();
    dev->run_bytes = 1 << 20;
    start(17);
    output(op(OP_ConstantOfShape, "", 1, input_of("x", DT_INT64, "2")));
    late_open(&l);
    CHECK_EQ(late_infer(&l, few), 0);
    CHECK_EQ(l.out[0].bytes, 6 * sizeof(float));
    CHECK_EQ(late_infer(&l, many), -ENOMEM);
    CHECK_EQ(late_infer(&l, few), 0);
    late_close(&l);
    close_device();
}

/* The late part alone, as a slot runs it. */
struct late_part {
    struct arena arena;
    struct late late;
    struct late_slot slot;
};

static void part_open(struct late_part *p)
{
    const struct bound *b = bound_now(&p->arena);

    CHECK_EQ(host_late.plan(b, &p->arena, &p->late, &err), 0);
    p->slot =
        (struct late_slot){.value = ARENA_ARRAY(&p->arena, struct tensor, b->graph->n_values)};
    CHECK_EQ(host_late.reserve(&p->late, &p->slot), 0);
}

static void part_close(struct late_part *p)
{
    host_late.forget(&p->slot);
    CHECK_EQ(p->slot.cache.bytes, 0);
    arena_done(&p->arena);
}

/* How often it asked for memory. */
static unsigned taken(struct late_part *p, void *const *ptr, size_t limit_bytes)
{
    unsigned before = n_mallocs;

    CHECK_EQ(host_late.run(&p->late, &p->slot, ptr, limit_bytes, &err), 0);
    return n_mallocs - before;
}

static void a_late_part_takes_no_memory_that_was_there_when_its_slot_was_opened(void)
{
    float x[] = {0, 1, -1, 0, 0, 2};
    struct late_part p;

    late_non_zero();
    part_open(&p);
    CHECK_EQ(taken(&p, (void *[]){x}, RUN_BYTES), 0);
    CHECK_EQ(p.slot.out[0].dims[1], 3); /* before Relu, here */
    part_close(&p);
}

/* 1000 boxes in a row and their scores: the host chooses among them, picks, and sums in a loop that
 * piles up its results.  Which those are depends on the data, the sizes do not. */
#define BOXES 1000
static void boxes_graph(void)
{
    start(17);
    uint32_t b = input("boxes", "1 1000 4"), s = input("scores", "1 1 1000");
    uint32_t most = constant_of(DT_INT64, 0, NULL, (const int64_t[]){BOXES});
    uint32_t found = op(OP_NonMaxSuppression, "", 4, b, s, most, scalar(0.5f));
    uint32_t n = op(OP_Size, "", 1, found), sum = scalar(0);
    uint32_t loop = op_outs("loop", OP_Loop, "", 2, 3, (uint32_t[]){n, VALUE_NONE, sum});
    start_body();
    (void)body_input("i");
    uint32_t go = body_input("go"), more = op(OP_Add, "", 2, body_input("sum"), scalar(1));
    output(op(OP_Identity, "", 1, go));
    output(more);
    output(more);
    g->values[more].dtype = DT_FP32;
    g->values[more].rank = 0;
    end_body(loop, "body", 0, NULL, NULL);
    output(found);
    output(loop + 1);
}

static void a_late_part_takes_no_memory_for_what_a_run_before_it_needed(void)
{
    static float boxes[BOXES * 4], scores[BOXES];
    void *ptr[] = {boxes, scores};
    struct late_part p;

    for (unsigned i = 0; i < BOXES; i++) {
        boxes[i * 4] = boxes[i * 4 + 1] = (float)i * 2;
        boxes[i * 4 + 2] = boxes[i * 4 + 3] = (float)i * 2 + 1;
        scores[i] = 1;
    }
    boxes_graph();
    part_open(&p);
    unsigned first = taken(&p, ptr, RUN_BYTES);
    CHECK(first > 0 || !COUNTS_MALLOC);
    CHECK_EQ(p.slot.out[0].dims[0], BOXES);
    CHECK_EQ(p.slot.out[1].dims[0], 3 * BOXES);
    CHECK_EQ(taken(&p, ptr, RUN_BYTES), 0);
    scores[7] = 0.25f; /* chosen last: in the same sizes */
    CHECK_EQ(taken(&p, ptr, RUN_BYTES), 0);
    CHECK_EQ(((const int64_t *)(const void *)p.slot.out[0].data)[3 * BOXES - 1], 7);
    part_close(&p);
}

/* Ones, 20 million of them: 80 MB. */
static void what_is_more_than_a_slot_keeps_is_given_back(void)
{
    int64_t large[] = {20000, 1000}, small[] = {2, 3};
    struct late_part p;

    start(17);
    output(op(OP_ConstantOfShape, "", 1, input_of("x", DT_INT64, "2")));
    part_open(&p);
    (void)taken(&p, (void *[]){large}, RUN_BYTES);
    CHECK(p.slot.cache.bytes <= LATE_KEPT_BYTES);
    CHECK(p.slot.room >= sizeof(float) * 20000 * 1000); /* until the next run */
    (void)taken(&p, (void *[]){small}, RUN_BYTES);
    CHECK_EQ(p.slot.room, 128);
    part_close(&p);
}

/* Zeros are an index out of range here: of no rows there is no first. */
static void a_probe_whose_late_part_cannot_run_zeros_is_no_failure(void)
{
    const float x[] = {0, 3};
    uint64_t ns[2] = {0};
    struct late_run l;
    int64_t first = 0;

    open_device();
    start(17);
    uint32_t at = op(OP_NonZero, "", 1, input("x", "2"));
    uint32_t flat =
        op(OP_Squeeze, "", 2, at, constant_of(DT_INT64, 1, (const int64_t[]){1}, &first));
    output(op(OP_Gather, "axis=0", 2, flat, constant_of(DT_INT64, 0, NULL, &first)));
    late_open(&l);
    CHECK_EQ(be->probe(l.slot, 0, 1, 2, ns, &err), 0);
    CHECK_EQ(late_infer(&l, x), 0);
    CHECK_EQ(*(const int64_t *)l.out[0].data, 1);
    CHECK_EQ(late_infer(&l, (const float[]){0, 0}), -EINVAL);
    late_close(&l);
    close_device();
}

static void late_runs_keep_no_memory(void)
{
    const float x[] = {0, 1, -1, 0, 0, 2};
    struct late_run l;

    open_device();
    late_non_zero();
    late_open(&l);
    CHECK_EQ(late_infer(&l, x), 0);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < 100; i++)
        CHECK_EQ(late_infer(&l, x), 0);
    CHECK_EQ(mallinfo2().uordblks, before);
    late_close(&l);
    close_device();
}

static void backends_are_found_by_name_or_refused_by_it(void)
{
    const struct backend *found = NULL;

    CHECK_EQ(backend_find("cpu", &found, &err), 0);
    CHECK(found == &backend_cpu);
    CHECK_EQ(backend_find("tpu", &found, &err), -ENOENT);
    CHECK_HAS(err.msg, "'tpu'");
    CHECK_EQ(setenv("GPULET_PLUGIN_DIR", "/nonexistent", 1), 0);
    CHECK_EQ(backend_find("cuda", &found, &err), -ENOENT);
    CHECK_HAS(err.msg, "'cuda'");
    CHECK_HAS(err.msg, "/nonexistent/gpulet-cuda.so");
}

int main(void)
{
    RUN(one_device_lists_its_cores);
    RUN(units_that_make_no_sense_are_refused_by_name);
    RUN(a_core_may_be_in_two_partitions_but_must_exist);
    RUN(a_wait_ends_at_its_time_or_at_a_kick);
    RUN(the_executor_is_pinned_when_it_enters);
    RUN(rows_of_several_requests_come_back_to_each);
    RUN(fewer_rows_than_the_batch_write_no_more_than_their_own);
    RUN(a_row_does_not_depend_on_its_companions);
    RUN(with_batch_invariant_a_row_is_computed_as_if_it_were_alone);
    RUN(a_paused_run_resumes_bit_equal);
    RUN(weights_are_packed_once_for_all);
    RUN(constants_are_packed_in_slices);
    RUN(a_batch_of_large_images_is_convolved_in_parts_that_share_memory);
    RUN(blocked_layout_lasts_from_convolution_to_convolution);
    RUN(joined_channels_are_read_where_they_are);
    RUN(channels_are_shuffled_in_blocks);
    RUN(running_keeps_no_memory);
    RUN(a_probe_times_the_segments_asked_for);
    RUN(large_rows_run_in_groups_and_give_what_they_give_alone);
    RUN(kernels_in_pieces_give_what_they_give_as_one);
    RUN(a_type_without_a_fast_kernel_runs_in_plain_loops_and_is_counted);
    RUN(post_steps_of_a_half_precision_result_are_plain_too);
    RUN(post_steps_behind_a_primitive_reach_readers_of_its_layout);
    RUN(a_type_that_plain_loops_lack_too_is_refused_with_the_node);
    RUN(an_index_out_of_range_is_the_inputs_fault);
    RUN(outputs_whose_shape_depends_on_data_follow_each_run);
    RUN(strings_go_in_and_out);
    RUN(a_run_beyond_its_memory_fails_alone);
    RUN(a_late_part_takes_no_memory_that_was_there_when_its_slot_was_opened);
    RUN(a_late_part_takes_no_memory_for_what_a_run_before_it_needed);
    RUN(what_is_more_than_a_slot_keeps_is_given_back);
    RUN(a_probe_whose_late_part_cannot_run_zeros_is_no_failure);
    RUN(late_runs_keep_no_memory);
    RUN(backends_are_found_by_name_or_refused_by_it);
    graph_free(g);
    return check_end();
}
