/* Models compiled and run in partitions, on the fake driver.  What each operator computes is for
 * ops.sh. */
#include "run_rig.h"

#include <gpulet/clock.h>
#include <pthread.h>
#include <stdatomic.h>

#define WIDTH 4
#define N (ROWS * WIDTH)

static const float x[N] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12};
static float y[N];

/* y = relu(2 x), in two segments. */
static void doubling_model(void)
{
    start(17);
    uint32_t two = op(OP_Mul, "", 2, input("x", "B 4"), scalar(2));
    output(op(OP_Relu, "", 1, two));
    g->n_segments = 2;
    g->cut = ARENA_ARRAY(&g->arena, uint32_t, 3);
    g->cut[1] = 1;
    g->cut[2] = 2;
    bind_graph();
}

static void open_model(const char *mode)
{
    open_device(mode);
    doubling_model();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
}

static int run_one(struct slot *s, struct part *p, uint32_t rows, const float *from, float *to)
{
    const void *in[] = {from};
    void *out[] = {to};
    struct io_part whole = {.rows = rows, .in = in, .out = out};

    return done_of(s, p, 0, 2, &(struct io){.n_parts = 1, .part = &whole}).rc;
}

static bool doubled(const float *from, const float *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (to[i] != (from[i] > 0 ? 2 * from[i] : 0))
            return false;
    return true;
}

static void a_run_computes_in_every_mode(const char *mode)
{
    open_model(mode);
    CHECK_EQ(run_one(slot, part, ROWS, x, y), 0);
    CHECK(doubled(x, y, N));
    close_model();
}
static void a_run_computes_in_mode_green(void)
{
    a_run_computes_in_every_mode("green");
}
static void a_run_computes_in_mode_mps(void)
{
    a_run_computes_in_every_mode("mps");
}
static void a_run_computes_in_mode_shared(void)
{
    a_run_computes_in_every_mode("shared");
}

static void rows_of_several_requests_come_back_to_each(void)
{
    float a[WIDTH], b[2 * WIDTH];
    const void *in[2][1] = {{x}, {x + WIDTH}};
    void *out[2][1] = {{a}, {b}};
    struct io_part parts[2] = {{.rows = 1, .in = in[0], .out = out[0]},
                               {.rows = 2, .in = in[1], .out = out[1]}};

    open_model("green");
    CHECK_EQ(done_of(slot, part, 0, 2, &(struct io){.n_parts = 2, .part = parts}).rc, 0);
    CHECK(doubled(x, a, WIDTH));
    CHECK(doubled(x + WIDTH, b, sizeof(b) / sizeof(*b)));
    close_model();
}

static void fewer_rows_than_the_batch_write_no_more_than_their_own(void)
{
    open_model("green");
    for (unsigned i = 0; i < N; i++)
        y[i] = 77;
    CHECK_EQ(run_one(slot, part, 1, x, y), 0);
    CHECK(doubled(x, y, WIDTH));
    CHECK(y[WIDTH] == 77);
    close_model();
}

static void a_paused_run_resumes(void)
{
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};

    open_model("green");
    CHECK_EQ(done_of(slot, part, 0, 1, &io).rc, 0);
    CHECK(y[0] == 0);
    CHECK_EQ(done_of(slot, part, 1, 2, &io).rc, 0);
    CHECK(doubled(x, y, N));
    close_model();
}

static void the_first_run_makes_nothing_in_every_mode(const char *mode)
{
    open_model(mode);
    unsigned n = threads();
    forget_calls();
    CHECK_EQ(run_one(slot, part, ROWS, x, y), 0);
    CHECK(called("cuGraphLaunch"));
    check_only_runs();
    CHECK_EQ(threads(), n);
    close_model();
}
static void the_first_run_makes_nothing_in_mode_green(void)
{
    the_first_run_makes_nothing_in_every_mode("green");
}
static void the_first_run_makes_nothing_in_mode_mps(void)
{
    the_first_run_makes_nothing_in_every_mode("mps");
}
static void the_first_run_makes_nothing_in_mode_shared(void)
{
    the_first_run_makes_nothing_in_every_mode("shared");
}

static void a_kick_ends_a_wait_while_a_run_goes_on(void)
{
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    struct done done;
    ticket t;

    open_model("green");
    fake->held = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 2, &io, &t), 0);
    CHECK_EQ(be->wait(part, clock_now_us() + 1000, &done, 1), 0);
    be->kick(part);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 0);
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1);
    CHECK_EQ(done.ticket, t);
    CHECK_EQ(done.rc, 0);
    close_model();
}

static void a_stream_that_fails_is_noticed_although_nothing_is_told(void)
{
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    struct done done;
    ticket t;

    open_model("green");
    fake->held = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 2, &io, &t), 0);
    fake->fail_call = "cuStreamQuery";
    fake->fail_code = 700;
    fake->fail_times = 1;
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 0);
    CHECK_EQ(be->fault(part), FAULT_PROCESS);
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1); /* the process would have left */
    close_model();
}

static void a_launch_that_fails_fails_its_run_alone(void)
{
    const void *in[] = {x};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    ticket t;

    open_model("green");
    for (unsigned segments = 1; segments <= 2; segments++) { /* of one launch, and all as a graph */
        fake->fail_call = segments == 1 ? "cuLaunchKernel" : "cuGraphLaunch";
        fake->fail_code = 2;
        fake->fail_times = 1;
        CHECK_EQ(be->submit(slot, 0, 0, segments, &io, &t), -EIO);
        CHECK_EQ(be->fault(part), FAULT_NONE);
        CHECK_EQ(run_one(slot, part, ROWS, x, y), 0);
    }
    fake->fail_code = 719;
    fake->fail_times = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 2, &io, &t), -ENODEV);
    CHECK_EQ(be->fault(part), FAULT_PROCESS);
    close_model();
}

static void an_index_out_of_range_is_the_inputs_fault(void)
{
    static const int64_t good[ROWS] = {0, 1, -2}, bad[ROWS] = {0, 5, 1};
    const void *in[] = {bad};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};

    open_device("green");
    start(17);
    output(op(OP_Gather, "axis=0", 2, weights("2 4"), input_of("i", DT_INT64, "B")));
    bind_graph();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    struct done d = done_of(slot, part, 0, 1, &io);
    CHECK_EQ(d.rc, -EINVAL);
    CHECK_STR(d.why, "an index is out of range");
    in[0] = good;
    CHECK_EQ(done_of(slot, part, 0, 1, &io).rc, 0);
    close_model();
}

static void an_operator_that_is_missing_is_refused_by_name(void)
{
    struct compile_args args = {.model = "test"};

    open_device("green");
    start(17);
    output(named("loses", OP_Det, "", 1, input("x", "B 4 4")));
    bind_graph();
    args.bound = bound;
    CHECK_EQ(be->compile(part, &args, &exe, &err), -ENOTSUP);
    CHECK_STR(err.msg, "node 'loses' (Det): not in the cuda backend yet");
    close_model();
}

static void another_precision_is_refused_by_name(void)
{
    struct compile_args args = {.model = "test", .precision = PRECISION_INT8};
    struct exe *other = NULL;

    open_model("green");
    args.bound = bound;
    CHECK_EQ(be->compile(part, &args, &other, &err), -ENOTSUP);
    CHECK_HAS(err.msg, "precision 'int8': the cuda backend has fp32, fp16 and bf16");
    close_model();
}

/* How many constants went to the device. */
static unsigned uploads(void)
{
    unsigned n = 0;

    for (const char *p = fake->log; (p = strstr(p, "cuMemcpyHtoDAsync\n")); p++)
        n++;
    return n;
}

static void constants_are_on_a_device_once(void)
{
    open_model("green");
    struct part *other = cut(1);
    unsigned n = uploads();
    struct exe *again = compiled(other);
    CHECK_EQ(uploads(), n);
    CHECK_EQ(fake->mappings, 1);
    be->release(again);
    be->part_close(other);
    close_model(); /* and gone with the last model */
}

static void a_constant_has_arrived_before_it_is_used(void)
{
    open_model("green");
    /* A copy whose source is not pinned is waited for, on a stream that no run is on. */
    CHECK(last_call("cuMemcpyHtoDAsync") < last_call("cuStreamSynchronize"));
    CHECK(!called("cuMemcpyHtoD"));
    close_model();
}

static void contexts_that_share_nothing_have_each_their_constants(void)
{
    struct slot *second;
    float z[N];

    open_fake();
    fake->vmm_private = 1;
    open_model("mps");
    struct part *other = cut(1);
    struct exe *again = compiled(other);
    CHECK_EQ(be->slot_open(again, &second, &err), 0);
    CHECK_EQ(fake->mappings, 2);
    CHECK_EQ(run_one(slot, part, ROWS, x, y), 0);
    CHECK_EQ(run_one(second, other, ROWS, x, z), 0);
    CHECK(doubled(x, y, N) && doubled(x, z, N));
    be->slot_close(second);
    be->release(again);
    be->part_close(other);
    close_model();
}

static void what_fails_while_a_slot_is_opened_is_undone(void)
{
    static const char *const calls[] = {"cuMemAlloc", "cuMemHostAlloc", "cuEventCreate"};
    struct slot *more;

    open_model("green");
    int allocations = fake->allocations, events = fake->events;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        fake->fail_call = calls[i];
        fake->fail_code = 2;
        fake->fail_times = 1;
        CHECK_EQ(be->slot_open(exe, &more, &err), -ENOMEM);
        CHECK_HAS(err.msg, "a slot of ");
        CHECK_EQ(fake->allocations, allocations);
        CHECK_EQ(fake->events, events);
    }
    close_model();
}

static void a_probe_times_the_segments_asked_for(void)
{
    uint64_t ns[4] = {0};

    open_model("green");
    CHECK_EQ(be->probe(slot, 0, 2, 4, ns, &err), 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK(ns[i] > 0);
    CHECK_EQ(be->probe(slot, 1, 2, 1, ns, &err), 0);
    CHECK_EQ(be->probe(slot, 1, 3, 1, ns, &err), -EINVAL);
    close_model();
}

/* ---- the builder beside the executor */
static atomic_bool serving;

static void *serve(void *arg)
{
    float z[N];

    (void)arg;
    be->part_enter(part);
    while (atomic_load(&serving)) {
        CHECK_EQ(run_one(slot, part, ROWS, x, z), 0);
        CHECK(doubled(x, z, N));
    }
    return NULL;
}

static void the_builder_works_in_a_partition_that_serves(void)
{
    struct slot *other;
    uint64_t ns[2];
    pthread_t executor;

    open_model("green");
    atomic_store(&serving, true);
    CHECK_EQ(pthread_create(&executor, NULL, serve, NULL), 0);
    for (unsigned i = 0; i < 20; i++) {
        struct exe *again = compiled(part);
        CHECK_EQ(be->slot_open(again, &other, &err), 0);
        CHECK_EQ(be->probe(other, 0, 2, 2, ns, &err), 0);
        be->slot_close(other);
        be->release(again);
        struct part *beside = cut(0); /* a re-cut */
        be->part_close(beside);
    }
    atomic_store(&serving, false);
    (void)pthread_join(executor, NULL);
    close_model(); /* no context was current to two threads */
}

int main(void)
{
    ALONE(a_run_computes_in_mode_green);
    ALONE(a_run_computes_in_mode_mps);
    ALONE(a_run_computes_in_mode_shared);
    ALONE(rows_of_several_requests_come_back_to_each);
    ALONE(fewer_rows_than_the_batch_write_no_more_than_their_own);
    ALONE(a_paused_run_resumes);
    ALONE(the_first_run_makes_nothing_in_mode_green);
    ALONE(the_first_run_makes_nothing_in_mode_mps);
    ALONE(the_first_run_makes_nothing_in_mode_shared);
    ALONE(a_kick_ends_a_wait_while_a_run_goes_on);
    ALONE(a_stream_that_fails_is_noticed_although_nothing_is_told);
    ALONE(a_launch_that_fails_fails_its_run_alone);
    ALONE(an_index_out_of_range_is_the_inputs_fault);
    ALONE(an_operator_that_is_missing_is_refused_by_name);
    ALONE(another_precision_is_refused_by_name);
    ALONE(constants_are_on_a_device_once);
    ALONE(a_constant_has_arrived_before_it_is_used);
    ALONE(contexts_that_share_nothing_have_each_their_constants);
    ALONE(what_fails_while_a_slot_is_opened_is_undone);
    ALONE(a_probe_times_the_segments_asked_for);
    ALONE(the_builder_works_in_a_partition_that_serves);
    return check_end();
}
