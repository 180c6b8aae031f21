/* What only data can tell, on the fake driver: the device's part, then the host's, without waiting
 * for each other. */
#include "run_rig.h"

#include <pthread.h>

static struct tensor out[MAX_IO];

/* Two rows of boxes: the second is the first moved by a tenth, the third lies apart. */
static const float boxes[] = {0, 0, 1, 1, 0, 0.1f, 1, 1.1f, 3, 3, 4, 4};

static int infer_on(struct slot *s, const struct exe *of, const void *const *in,
                    struct done *ret_done)
{
    struct io_part whole = {.rows = 1, .in = in};
    struct exe_info info;

    be->exe_info(of, &info);
    *ret_done = done_of(s, part, 0, info.n_segments, &(struct io){.n_parts = 1, .part = &whole});
    if (ret_done->rc == 0)
        be->outputs(s, out);
    return ret_done->rc;
}

static int infer(const void *x)
{
    struct done done;

    return infer_on(slot, exe, &x, &done);
}

static void open_late(void)
{
    bind_graph();
    CHECK(bound->n_late > 0);
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
}

/* y = Relu(x) on the device; where it is not zero is found behind that, and y is an output, too. */
static void non_zero_graph(void)
{
    start(17);
    uint32_t y = op(OP_Relu, "", 1, input("x", "2 3"));
    output(op(OP_NonZero, "", 1, y));
    output(y);
}

static void non_zero(void)
{
    open_device("green");
    non_zero_graph();
    open_late();
}

static void outputs_whose_shape_depends_on_data_follow_each_run(void)
{
    const float two[] = {0, 1, -1, 0, 0, 2}, none[] = {-1, -1, 0, 0, -5, -1};
    struct exe_info info;

    non_zero();
    be->exe_info(exe, &info);
    CHECK(info.late_outputs);
    CHECK_EQ(infer(two), 0);
    CHECK_EQ(out[0].rank, 2);
    CHECK_EQ(out[0].dims[1], 2);
    CHECK(memcmp(out[0].data, ((const int64_t[]){0, 1, 1, 2}), 4 * sizeof(int64_t)) == 0);
    CHECK_EQ(out[1].bytes, sizeof(two));
    CHECK(((const float *)out[1].data)[5] == 2 && ((const float *)out[1].data)[2] == 0);
    CHECK_EQ(infer(none), 0);
    CHECK_EQ(out[0].dims[1], 0);
    CHECK_EQ(infer(two), 0);
    CHECK_EQ(out[0].dims[1], 2);
    close_model();
}

/* A head: boxes from the device, chosen among on the host, by NMS and then by index. */
static void boxes_are_chosen_by_what_the_device_made_of_them(void)
{
    const float scores[] = {0.5f, 0.9f, 0.7f, 0.1f, 0.1f, 0.1f};
    const void *in[] = {boxes, scores};
    struct done done;

    open_device("green");
    start(17);
    uint32_t b = input("boxes", "1 3 4"), s = input("scores", "1 2 3");
    uint32_t moved = op(OP_Add, "", 2, b, scalar(1));
    uint32_t picked =
        op(OP_NonMaxSuppression, "", 5, moved, s, int_scalar(3), scalar(0.5f), scalar(0.2f));
    uint32_t which = op(OP_Gather, "axis=1", 2, picked, ints(1, 2));
    output(op(OP_Gather, "axis=0", 2, op(OP_Squeeze, "", 2, moved, ints(1, 0)),
              op(OP_Squeeze, "", 2, which, ints(1, 1))));
    output(picked);
    open_late();
    CHECK_EQ(infer_on(slot, exe, in, &done), 0);
    CHECK_EQ(out[1].dims[0], 2);
    CHECK(memcmp(out[1].data, ((const int64_t[]){0, 0, 1, 0, 0, 2}), 6 * sizeof(int64_t)) == 0);
    CHECK_EQ(out[0].dims[0], 2);
    CHECK(((const float *)out[0].data)[0] == 1 && ((const float *)out[0].data)[4] == 4);
    CHECK(done.run_ns > 0);
    close_model();
}

/* 3000 boxes that do not touch: the host compares each with all before it. */
#define MANY 3000
static uint32_t many_boxes(void)
{
    static float all[MANY * 4], score[MANY];
    const int64_t dims[] = {1, MANY, 4}, one[] = {1, 1, MANY};

    for (unsigned i = 0; i < MANY; i++) {
        all[i * 4] = all[i * 4 + 1] = (float)i * 2;
        all[i * 4 + 2] = all[i * 4 + 3] = (float)i * 2 + 1;
        score[i] = 1;
    }
    return op(OP_NonMaxSuppression, "", 4, constant_of(DT_FP32, 3, dims, all),
              op(OP_Mul, "", 2, input("x", "1"), constant_of(DT_FP32, 3, one, score)),
              int_scalar(MANY), scalar(0.5f));
}

/* The device is free while the host is at work, and so is the executor. */
static void a_run_of_another_model_ends_before_the_late_part_of_an_earlier_one(void)
{
    const float x[] = {1, -2, 3};
    float y[3];
    const void *in[] = {x};
    void *to[] = {y};
    struct io_part whole = {.rows = 1, .in = in, .out = to};
    struct io io = {.n_parts = 1, .part = &whole};
    struct exe_info info, quick_info;
    struct done done[2] = {0};
    ticket first, second;

    open_device("green");
    start(17);
    output(op(OP_Relu, "", 1, input("x", "3")));
    bind_graph();
    struct graph *quick_graph = g;
    struct arena quick_arena = arena;
    struct exe *quick = compiled(part);
    struct slot *quick_slot;
    CHECK_EQ(be->slot_open(quick, &quick_slot, &err), 0);
    g = NULL;
    start(17);
    output(many_boxes());
    open_late();
    be->exe_info(exe, &info);
    be->exe_info(quick, &quick_info);
    CHECK_EQ(be->submit(slot, 0, 0, info.n_segments, &io, &first), 0);
    CHECK_EQ(be->submit(quick_slot, 1, 0, quick_info.n_segments, &io, &second), 0);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done[0], 1), 1);
    CHECK_EQ(done[0].ticket, second);
    CHECK(y[1] == 0 && y[2] == 3);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done[1], 1), 1);
    CHECK_EQ(done[1].ticket, first);
    CHECK_EQ(done[1].rc, 0);
    be->outputs(slot, out);
    CHECK_EQ(out[0].dims[0], MANY);
    be->slot_close(quick_slot);
    be->release(quick);
    arena_done(&quick_arena);
    graph_free(quick_graph);
    close_model();
}

/* Two runs of one model, one behind the other: each has its own outputs, in memory of its slot. */
static void a_run_behind_another_has_outputs_of_its_own(void)
{
    const float x[2][6] = {{0, 1, -1, 0, 0, 2}, {1, 2, 3, 4, 5, 6}};
    const void *in[2][1] = {{x[0]}, {x[1]}};
    struct io_part whole[2] = {{.rows = 1, .in = in[0]}, {.rows = 1, .in = in[1]}};
    struct slot *both[2];
    struct exe_info info;
    struct done done[2];
    ticket t[2];
    size_t n = 0;

    non_zero();
    both[0] = slot;
    CHECK_EQ(be->slot_open(exe, &both[1], &err), 0);
    be->exe_info(exe, &info);
    for (unsigned i = 0; i < 2; i++)
        CHECK_EQ(be->submit(both[i], 0, 0, info.n_segments,
                            &(struct io){.n_parts = 1, .part = &whole[i]}, &t[i]),
                 0);
    while (n < 2)
        n += be->wait(part, USEC_NEVER, done + n, 2 - n);
    CHECK_EQ(done[0].ticket + done[1].ticket, t[0] + t[1]);
    CHECK_EQ(done[0].rc + done[1].rc, 0);
    for (unsigned i = 0; i < 2; i++) {
        be->outputs(both[i], out);
        CHECK_EQ(out[0].dims[1], i == 0 ? 2 : 6);
        CHECK(memcmp((const float *)out[1].data + 3, x[i] + 3, 3 * sizeof(float)) == 0);
    }
    be->slot_close(both[1]);
    close_model();
}

/* Zeros are an index out of range here: of no rows there is no first. */
static void what_the_host_cannot_run_fails_alone_and_says_why(void)
{
    const float one[] = {0, 3}, none[] = {0, 0};
    const void *in[] = {none};
    uint64_t ns[2];
    struct done done;

    open_device("green");
    start(17);
    uint32_t at = op(OP_NonZero, "", 1, input("x", "2"));
    output(named("first", OP_Gather, "axis=0", 2, op(OP_Squeeze, "", 2, at, ints(1, 0)),
                 int_scalar(0)));
    open_late();
    CHECK_EQ(be->probe(slot, 0, 1, 2, ns, &err), 0);
    CHECK_EQ(infer(one), 0);
    CHECK_EQ(*(const int64_t *)out[0].data, 1);
    CHECK_EQ(infer_on(slot, exe, in, &done), -EINVAL);
    CHECK(done.why && strstr(done.why, "'first' (Gather)"));
    CHECK_EQ(infer(one), 0);
    close_model();
}

static void a_run_beyond_its_memory_fails_alone(void)
{
    const int64_t few[] = {2, 3}, many[] = {1 << 20, 1 << 10};

    open_device("green");
    start(17);
    output(op(OP_ConstantOfShape, "", 1, input_of("x", DT_INT64, "2")));
    open_late();
    CHECK_EQ(infer(few), 0);
    CHECK_EQ(out[0].bytes, 6 * sizeof(float));
    CHECK_EQ(infer(many), -ENOMEM);
    CHECK_EQ(infer(few), 0);
    close_model();
}

/* What fails on the device has no late part. */
static void an_index_out_of_range_on_the_device_ends_the_run(void)
{
    const int64_t in[] = {1, 0}, outside[] = {1, 7};

    open_device("green");
    start(17);
    uint32_t y = op(OP_Gather, "axis=0", 2, weights("4 3"), input_of("x", DT_INT64, "2"));
    output(op(OP_NonZero, "", 1, y));
    open_late();
    CHECK_EQ(infer(in), 0);
    CHECK_EQ(out[0].dims[1], 6);
    CHECK_EQ(infer(outside), -EINVAL);
    CHECK_EQ(infer(in), 0);
    close_model();
}

static void heavy_work_on_the_host_is_refused_by_name(void)
{
    struct exe *made;

    open_device("green");
    start(17);
    uint32_t x = input("x", "2 3");
    uint32_t at = op(OP_Cast, "to=1", 1, op(OP_NonZero, "", 1, x));
    output(named("heavy", OP_MatMul, "", 2, op(OP_Transpose, "", 1, at), weights("2 2")));
    bind_graph();
    CHECK_EQ(compile(false, &made), -ENOTSUP);
    CHECK(strstr(err.msg, "node 'heavy' (MatMul): behind what depends on data"));
    arena_done(&arena);
    graph_free(g);
    be->part_close(part);
    be->dev_close(dev);
    check_clean();
}

/* ---- the thread */
static const float some[] = {0, 1, -1, 0, 0, 2};

/* One that was waited for may be listed a moment longer. */
static bool threads_come_to(unsigned n)
{
    for (unsigned i = 0; i < 10000 && threads() != n; i++)
        (void)usleep(1000);
    return threads() == n;
}

static void the_first_run_makes_nothing(void)
{
    open_device("green");
    unsigned before = threads();
    non_zero_graph();
    open_late();
    CHECK_EQ(threads(), before + 1);
    forget_calls();
    CHECK_EQ(infer(some), 0);
    check_only_runs();
    CHECK_EQ(threads(), before + 1);
    CHECK_EQ(out[0].dims[1], 2);
    close_model();
}

static void a_thread_is_there_as_long_as_any_slot_that_may_need_it(void)
{
    const void *in = some;
    struct slot *second;
    struct done done;

    open_device("green");
    unsigned before = threads();
    non_zero_graph();
    open_late();
    CHECK_EQ(be->slot_open(exe, &second, &err), 0);
    CHECK_EQ(threads(), before + 1); /* one for both */
    be->slot_close(slot);
    CHECK_EQ(threads(), before + 1);
    CHECK_EQ(infer_on(second, exe, &in, &done), 0);
    be->slot_close(second);
    CHECK(threads_come_to(before));
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(threads(), before + 1);
    CHECK_EQ(infer(some), 0);
    close_model();
}

static void a_model_with_nothing_late_has_none(void)
{
    open_device("green");
    unsigned before = threads();
    start(17);
    output(op(OP_Relu, "", 1, input("x", "2 3")));
    bind_graph();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(threads(), before);
    close_model();
}

/* As the engine's spawner, which is not as nice as who opens slots. */
static int spawned, no_threads;
static int spawn(void *ctx, pthread_t *ret, void *(*fn)(void *), void *arg)
{
    CHECK(ctx == &spawned);
    if (no_threads)
        return -EAGAIN;
    spawned++;
    return -pthread_create(ret, NULL, fn, arg);
}

static void it_is_started_as_the_engine_says(void)
{
    device_cfg.thread = spawn;
    device_cfg.thread_ctx = &spawned;
    non_zero();
    CHECK_EQ(spawned, 1);
    CHECK_EQ(infer(some), 0);
    CHECK_EQ(spawned, 1);
    close_model();
}

static void where_there_is_no_thread_no_slot_is_opened(void)
{
    struct slot *more;

    device_cfg.thread = spawn;
    device_cfg.thread_ctx = &spawned;
    non_zero();
    be->slot_close(slot);
    int allocations = fake->allocations, events = fake->events;
    no_threads = 1;
    CHECK_EQ(be->slot_open(exe, &more, &err), -EAGAIN);
    CHECK_HAS(err.msg, "a slot of ");
    CHECK_HAS(err.msg, ": no thread for what the host does at the end: ");
    CHECK_EQ(fake->allocations, allocations);
    CHECK_EQ(fake->events, events);
    no_threads = 0;
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(infer(some), 0);
    close_model();
}

static void what_fails_while_a_slot_is_opened_ends_the_thread(void)
{
    struct slot *more;

    open_device("green");
    unsigned before = threads();
    non_zero_graph();
    open_late();
    be->slot_close(slot);
    CHECK(threads_come_to(before));
    for (int i = 0; i < 2; i++) { /* of the slot, and of what late nodes read */
        fail("cuMemHostAlloc", 2);
        fake->fail_after = i;
        CHECK_EQ(be->slot_open(exe, &more, &err), -ENOMEM);
        CHECK(threads_come_to(before));
    }
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(infer(some), 0);
    close_model();
}

int main(void)
{
    ALONE(outputs_whose_shape_depends_on_data_follow_each_run);
    ALONE(boxes_are_chosen_by_what_the_device_made_of_them);
    ALONE(a_run_of_another_model_ends_before_the_late_part_of_an_earlier_one);
    ALONE(a_run_behind_another_has_outputs_of_its_own);
    ALONE(what_the_host_cannot_run_fails_alone_and_says_why);
    ALONE(a_run_beyond_its_memory_fails_alone);
    ALONE(an_index_out_of_range_on_the_device_ends_the_run);
    ALONE(heavy_work_on_the_host_is_refused_by_name);
    ALONE(the_first_run_makes_nothing);
    ALONE(a_thread_is_there_as_long_as_any_slot_that_may_need_it);
    ALONE(a_model_with_nothing_late_has_none);
    ALONE(it_is_started_as_the_engine_says);
    ALONE(where_there_is_no_thread_no_slot_is_opened);
    ALONE(what_fails_while_a_slot_is_opened_ends_the_thread);
    return check_end();
}
