/* Streams of a partition, on the fake driver: what is on which, in which order, and who waits for
 * whom.  That nothing is touched too early is a rule of the fake's, which close_model() looks at.
 */
#include "run_rig.h"

/* So many numbers: two rows are less than is worth another stream, three more. */
#define WIDE 2000
#define N ((size_t)ROWS * WIDE)

/* Of the one partition of a device, by the order in which they are opened; a level has two. */
enum { RUN, OUT, IN };

static struct slot *second;
static float x[N], y[N], z[N];

static struct device_info info;

static int list(const char *mode)
{
    struct backend_config cfg = {0};
    size_t n;

    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    return be->devices(&cfg, &info, 1, &n, &err);
}

static void copy_model(const char *dims, uint32_t (*middle)(uint32_t))
{
    start(17);
    output(middle(input("x", dims)));
    bind_graph();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(be->slot_open(exe, &second, &err), 0);
    for (size_t i = 0; i < N; i++)
        x[i] = (float)(i % 1001) - 500;
}

/* relu(2 x), one graph of two launches */
static uint32_t doubling(uint32_t in)
{
    return op(OP_Relu, "", 1, op(OP_Mul, "", 2, in, scalar(2)));
}
static uint32_t shrinking(uint32_t in)
{
    return op(OP_ReduceMax, "axes=1, keepdims=1", 1, in);
}
static uint32_t growing(uint32_t in)
{
    return op(OP_Mul, "", 2, in, weights("1 2000"));
}

static void open_model(const char *mode)
{
    open_device(mode);
    copy_model("B 2000", doubling);
}

static struct io *of(uint32_t rows, float *to)
{
    static const void *in[] = {x};
    static void *out[2];
    static struct io_part part_of[2];
    static struct io io[2];
    unsigned i = to == z;

    out[i] = to;
    part_of[i] = (struct io_part){.rows = rows, .in = in, .out = &out[i]};
    io[i] = (struct io){.n_parts = 1, .part = &part_of[i]};
    return &io[i];
}

static bool doubled(const float *got, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != fmaxf(2 * x[i], 0))
            return false;
    return true;
}

static void end_model(void)
{
    be->slot_close(second);
    close_model();
}

static int run_alone(uint32_t rows)
{
    memset(y, 0x7f, sizeof(y));
    forget_calls();
    return done_of(slot, part, 0, 1, of(rows, y)).rc;
}

/* The other slot has a run of such a request that is under way until its end is taken. */
static void begin_other(int32_t priority, bool best_effort)
{
    struct io *io = of(1, z);
    ticket t;

    io->priority = priority;
    io->best_effort = best_effort;
    CHECK_EQ(be->submit(second, 1, 0, 1, io, &t), 0);
    forget_calls();
}

static void end_other(void)
{
    struct done done;

    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1);
    CHECK_EQ(done.rc, 0);
    CHECK(doubled(z, WIDE));
}

static struct done run_beside(const struct io *io)
{
    struct done done[2];
    size_t n = 0;
    ticket t;

    memset(y, 0x7f, sizeof(y));
    begin_other(io->priority, io->best_effort);
    CHECK_EQ(be->submit(slot, 0, 0, 1, io, &t), 0);
    while (n < 2)
        n += be->wait(part, USEC_NEVER, done + n, 2 - n);
    return done[done[1].ticket == t]; /* ends of two streams are told by two threads */
}

static int run(uint32_t rows)
{
    return run_beside(of(rows, y)).rc;
}

/* Whose stream the last call of that name was for. */
static int stream_of(const char *call)
{
    char line[64];
    int n = -1;

    (void)snprintf(line, sizeof(line), "%s ", call);
    for (const char *p = fake->trace; (p = strstr(p, line)); p++)
        n = atoi(p + strlen(line));
    return n;
}

/* ---- copies */
static void large_copies_are_on_streams_of_their_own_in_mode(const char *mode)
{
    open_model(mode);
    CHECK_EQ(run(ROWS), 0);
    CHECK(doubled(y, N));
    CHECK_STR(fake->trace, "cuEventRecord 2\n"
                           "cuMemcpyHtoDAsync 2\n"
                           "cuEventRecord 2\n"
                           "cuStreamWaitEvent 0\n" /* the run for its inputs */
                           "cuEventRecord 0\n"
                           "cuMemsetD8Async 0\n"
                           "cuGraphLaunch 0\n"
                           "cuEventRecord 0\n"
                           "cuStreamWaitEvent 1\n" /* the results for the run */
                           "cuMemcpyDtoHAsync 1\n"
                           "cuMemcpyDtoHAsync 1\n" /* the status */
                           "cuEventRecord 1\n"
                           "cuLaunchHostFunc 1\n");
    end_model();
}
static void large_copies_are_on_streams_of_their_own_in_mode_green(void)
{
    large_copies_are_on_streams_of_their_own_in_mode("green");
}
static void large_copies_are_on_streams_of_their_own_in_mode_mps(void)
{
    large_copies_are_on_streams_of_their_own_in_mode("mps");
}

/* There is nothing that they could overlap. */
static void large_copies_of_a_run_alone_are_on_its_stream(void)
{
    open_model("green");
    CHECK_EQ(run(ROWS), 0); /* and over */
    CHECK_EQ(run_alone(ROWS), 0);
    CHECK(doubled(y, N));
    CHECK_STR(fake->trace, "cuEventRecord 0\n"
                           "cuMemsetD8Async 0\n"
                           "cuMemcpyHtoDAsync 0\n"
                           "cuGraphLaunch 0\n"
                           "cuMemcpyDtoHAsync 0\n"
                           "cuMemcpyDtoHAsync 0\n"
                           "cuEventRecord 0\n"
                           "cuLaunchHostFunc 0\n");
    end_model();
}

static void large_copies_beside_a_run_of_another_level_are_on_the_runs_stream(void)
{
    struct done done[2];
    size_t n = 0;
    ticket t;

    open_model("shared");
    begin_other(0, true);
    CHECK_EQ(be->submit(slot, 0, 0, 1, of(ROWS, y), &t), 0);
    CHECK_EQ(stream_of("cuMemcpyHtoDAsync"), stream_of("cuGraphLaunch"));
    CHECK_EQ(stream_of("cuLaunchHostFunc"), stream_of("cuGraphLaunch"));
    while (n < 2)
        n += be->wait(part, USEC_NEVER, done + n, 2 - n);
    CHECK(doubled(y, N) && doubled(z, WIDE));
    end_model();
}

static void small_copies_are_on_the_stream_of_the_run(void)
{
    open_model("green");
    CHECK_EQ(run(2), 0);
    CHECK(doubled(y, 2 * WIDE));
    CHECK_STR(fake->trace, "cuEventRecord 0\n"
                           "cuMemsetD8Async 0\n"
                           "cuMemcpyHtoDAsync 0\n"
                           "cuMemsetD8Async 0\n" /* the row that is missing */
                           "cuGraphLaunch 0\n"
                           "cuMemcpyDtoHAsync 0\n"
                           "cuMemcpyDtoHAsync 0\n"
                           "cuEventRecord 0\n"
                           "cuStreamWaitEvent 1\n" /* the next run does not wait for the host */
                           "cuLaunchHostFunc 1\n");
    end_model();
}

static void small_results_stay_behind_their_run_though_the_inputs_are_large(void)
{
    open_device("green");
    copy_model("B 2000", shrinking);
    CHECK_EQ(run(ROWS), 0);
    CHECK(y[0] == 500 && y[ROWS - 1] == 500);
    CHECK_EQ(stream_of("cuMemcpyHtoDAsync"), IN);
    CHECK_EQ(stream_of("cuMemcpyDtoHAsync"), RUN);
    CHECK_EQ(stream_of("cuLaunchHostFunc"), OUT);
    end_model();
}

static void small_inputs_stay_before_their_run_though_the_results_are_large(void)
{
    open_device("green");
    copy_model("B 1", growing);
    CHECK_EQ(run(ROWS), 0);
    CHECK(y[0] < 0 && y[N - 1] < 0);
    CHECK_EQ(stream_of("cuMemcpyHtoDAsync"), RUN);
    CHECK_EQ(stream_of("cuMemcpyDtoHAsync"), OUT);
    CHECK_EQ(stream_of("cuLaunchHostFunc"), OUT);
    end_model();
}

static void large_inputs_of_several_requests_are_filled_up_where_they_are_copied(void)
{
    static float big[2 * WIDE];
    const void *in[2][1] = {{x}, {x + WIDE}};
    void *out[2][1] = {{y}, {big}};
    struct io_part rows[2] = {{.rows = 1, .in = in[0], .out = out[0]},
                              {.rows = 2, .in = in[1], .out = out[1]}};

    open_model("green");
    CHECK_EQ(run_beside(&(struct io){.n_parts = 2, .part = rows}).rc, 0);
    CHECK_HAS(fake->trace, "cuEventRecord 2\ncuMemcpyHtoDAsync 2\ncuMemcpyHtoDAsync 2\n"
                           "cuEventRecord 2\ncuStreamWaitEvent 0\n");
    CHECK(doubled(y, WIDE));
    CHECK(big[0] == fmaxf(2 * x[WIDE], 0) && big[2 * WIDE - 1] == fmaxf(2 * x[N - 1], 0));
    end_model();
}

static void a_graph_holds_the_run_and_no_copy(void)
{
    open_model("green");
    CHECK_HAS(fake->log, "cuStreamBeginCapture\ncuLaunchKernel\ncuLaunchKernel\n"
                         "cuStreamEndCapture\n");
    CHECK_EQ(fake->graphs, 2); /* of two slots */
    end_model();
}

/* All calls that a request makes, and how often; and those that take the end of another one. */
static void a_request_with_large_copies_makes_nothing(void)
{
    static const struct {
        const char *name;
        unsigned times;
    } allowed[] = {{"cuCtxSetCurrent", 6},   {"cuEventRecord", 5},     {"cuStreamWaitEvent", 2},
                   {"cuMemsetD8Async", 1},   {"cuMemcpyHtoDAsync", 1}, {"cuGraphLaunch", 1},
                   {"cuMemcpyDtoHAsync", 2}, {"cuLaunchHostFunc", 1},  {"cuEventElapsedTime", 3}};
    size_t all = 0;

    open_model("shared");
    CHECK_EQ(run(ROWS), 0);
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
        CHECK(called(allowed[i].name));
        all += allowed[i].times * (strlen(allowed[i].name) + 1);
    }
    CHECK_EQ(fake->used, all);
    end_model();
}

static void the_next_inputs_travel_while_a_run_is_under_way(void)
{
    struct done done[2];
    ticket t[2];

    open_model("green");
    fake->held = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 1, of(ROWS, y), &t[0]), 0);
    forget_calls();
    CHECK_EQ(be->submit(second, 1, 0, 1, of(ROWS, z), &t[1]), 0);
    CHECK_HAS(fake->trace, "cuMemcpyHtoDAsync 2\n");
    CHECK(!strstr(fake->trace, "cuStreamWaitEvent 2\n")); /* nor does it wait for anything */
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    size_t n = be->wait(part, USEC_NEVER, done, 2);
    if (n == 1)
        n += be->wait(part, USEC_NEVER, done + 1, 1);
    CHECK_EQ(n, 2);
    CHECK_EQ(done[0].rc + done[1].rc, 0);
    CHECK_EQ(done[0].ticket + done[1].ticket, t[0] + t[1]);
    CHECK(doubled(y, N) && doubled(z, N));
    end_model();
}

/* ---- a run behind another of its lane */
/* While that one, of this priority, is under way. */
static void go_ahead_of(int32_t priority, bool best_effort, ticket ret[2])
{
    struct io *io = of(ROWS, y);

    io->priority = priority;
    io->best_effort = best_effort;
    fake->held = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 1, io, &ret[0]), 0);
    forget_calls();
    CHECK_EQ(be->submit(second, 0, 0, 1, of(ROWS, z), &ret[1]), 0);
}

static void end_both(const ticket t[2])
{
    struct done done[2];
    size_t n = 0;

    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    while (n < 2)
        n += be->wait(part, USEC_NEVER, done + n, 2 - n);
    CHECK_EQ(done[0].rc + done[1].rc, 0);
    CHECK_EQ(done[0].ticket + done[1].ticket, t[0] + t[1]);
    CHECK(doubled(y, N) && doubled(z, N));
}

/* Its inputs travel at once; what it takes is counted from when it may begin. */
static void a_run_of_the_lane_waits_on_a_stream_of_another_level(void)
{
    ticket t[2];

    open_model("shared");
    go_ahead_of(0, true, t); /* on the last level, the other on that before it: streams 8 and 9 */
    CHECK_STR(fake->trace, "cuStreamWaitEvent 8\n" /* the run for the other one */
                           "cuEventRecord 12\n"
                           "cuMemcpyHtoDAsync 12\n"
                           "cuEventRecord 12\n"
                           "cuStreamWaitEvent 8\n" /* and for its inputs */
                           "cuEventRecord 8\n"
                           "cuMemsetD8Async 8\n"
                           "cuGraphLaunch 8\n"
                           "cuEventRecord 8\n"
                           "cuStreamWaitEvent 9\n"
                           "cuMemcpyDtoHAsync 9\n"
                           "cuMemcpyDtoHAsync 9\n"
                           "cuEventRecord 9\n"
                           "cuLaunchHostFunc 9\n");
    end_both(t);
    end_model();
}

static void a_run_of_the_lane_on_its_stream_waits_for_its_inputs_alone(void)
{
    ticket t[2];

    open_model("shared");
    go_ahead_of(0, false, t);
    CHECK_HAS(fake->trace, "cuMemcpyHtoDAsync 12\ncuEventRecord 12\ncuStreamWaitEvent 8\n"
                           "cuEventRecord 8\n");
    CHECK(!strstr(fake->trace, "cuStreamWaitEvent 12\n"));
    CHECK(strncmp(fake->trace, "cuStreamWaitEvent 8\n", 20) != 0);
    end_both(t);
    end_model();
}

static void what_is_over_nobody_waits_for(void)
{
    open_model("shared");
    struct io *io = of(ROWS, y);
    io->best_effort = true;
    CHECK_EQ(done_of(slot, part, 0, 1, io).rc, 0);
    forget_calls();
    CHECK_EQ(done_of(second, part, 0, 1, of(ROWS, z)).rc, 0);
    CHECK(!called("cuStreamWaitEvent"));
    end_model();
}

static void a_run_that_goes_ahead_makes_nothing(void)
{
    ticket t[2];

    open_model("shared");
    go_ahead_of(0, true, t);
    end_both(t);
    check_only_runs();
    end_model();
}

static void a_run_that_cannot_wait_for_the_one_before_it_fails_alone(void)
{
    struct done done;
    ticket t[2];

    open_model("shared");
    struct io *io = of(ROWS, y);
    io->best_effort = true;
    CHECK_EQ(be->submit(slot, 0, 0, 1, io, &t[0]), 0);
    fail("cuStreamWaitEvent", 2);
    CHECK_EQ(be->submit(second, 0, 0, 1, of(ROWS, z), &t[1]), -EIO);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1);
    CHECK_EQ(done.ticket, t[0]);
    CHECK(doubled(y, N));
    CHECK_EQ(done_of(second, part, 0, 1, of(ROWS, z)).rc, 0);
    CHECK(doubled(z, N));
    end_model();
}

static usec_t travel_us(void)
{
    struct exe_info of;

    be->exe_info(exe, &of);
    return of.inputs_us;
}

static void what_large_inputs_travel_is_said(void)
{
    open_device("green");
    start(17);
    output(doubling(input("x", "B 200000")));
    bind_graph();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK(travel_us() >= 40 && travel_us() <= 50); /* 2.4 MB, by 55 GB/s */
    close_model();
}

static void small_inputs_travel_in_front_of_their_run(void)
{
    open_device("green");
    copy_model("B 1", growing);
    CHECK_EQ(travel_us(), 0);
    end_model();
}

static void the_next_run_may_go_ahead(void)
{
    open_fake();
    open_plugin();
    CHECK_EQ(list("green"), 0);
    CHECK(info.ahead_us > 0);
}

/* Each call of a run may fail.  The run then is over before its memory is anybody else's. */
static void what_fails_in_a_run_fails_it_alone(void)
{
    static const struct {
        const char *call;
        int times; /* in a run */
    } calls[] = {{"cuEventRecord", 5},     {"cuStreamWaitEvent", 2}, {"cuMemcpyHtoDAsync", 1},
                 {"cuMemcpyDtoHAsync", 2}, {"cuGraphLaunch", 1},     {"cuMemsetD8Async", 1},
                 {"cuLaunchHostFunc", 1}};
    ticket t;

    open_model("green");
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        for (int k = 0; k < calls[i].times; k++) {
            begin_other(0, false);
            fail(calls[i].call, 2);
            fake->fail_after = k;
            CHECK_EQ(be->submit(slot, 0, 0, 1, of(ROWS, y), &t), -EIO);
            CHECK_HAS(fake->trace, "cuStreamSynchronize 2\ncuStreamSynchronize 0\n"
                                   "cuStreamSynchronize 1\n");
            CHECK_EQ(be->fault(part), FAULT_NONE);
            end_other();
            CHECK_EQ(run(ROWS), 0);
            CHECK(doubled(y, N));
        }
    end_model();
}

static void an_error_that_is_sticky_is_one(const char *call)
{
    ticket t;

    open_model("green");
    begin_other(0, false);
    fail(call, 700);
    CHECK_EQ(be->submit(slot, 0, 0, 1, of(ROWS, y), &t), -ENODEV);
    CHECK_EQ(be->fault(part), FAULT_PROCESS);
    end_other();
    end_model();
}
static void an_input_that_costs_the_device_is_said(void)
{
    an_error_that_is_sticky_is_one("cuMemcpyHtoDAsync");
}
static void a_wait_that_costs_the_device_is_said(void)
{
    an_error_that_is_sticky_is_one("cuStreamWaitEvent");
}

/* Streams are asked in this order: inputs, run, results. */
static void an_error_of_any_stream_is_noticed(void)
{
    struct done done;
    ticket t;

    open_model("green");
    fake->held = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 1, of(ROWS, y), &t), 0);
    fail("cuStreamQuery", 700);
    fake->fail_after = 2;
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 0);
    CHECK_EQ(be->fault(part), FAULT_PROCESS);
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1);
    end_model();
}

static void events_die_before_handles_and_these_before_streams_and_the_context(void)
{
    open_model("green");
    end_model();
    const char *streams = strstr(fake->log, "cuStreamDestroy\n");
    CHECK(streams != NULL);
    CHECK(last_call("cuGraphExecDestroy") < last_call("cuEventDestroy"));
    CHECK(last_call("cuEventDestroy") < last_call("cudnnDestroy"));
    CHECK(last_call("cudnnDestroy") < (size_t)(streams - fake->log));
    CHECK(last_call("cuStreamDestroy") < last_call("cuGreenCtxDestroy"));
}

/* ---- priorities */
/* The driver's priority of the stream that such a run is on. */
static int priority_of(int32_t priority, bool best_effort)
{
    struct io io = *of(ROWS, y);

    io.priority = priority;
    io.best_effort = best_effort;
    CHECK_EQ(run_beside(&io).rc, 0);
    CHECK(doubled(y, N));
    int run_on = stream_of("cuGraphLaunch"), out = stream_of("cuLaunchHostFunc");
    CHECK_EQ(fake->priority[out], fake->priority[run_on]);
    return fake->priority[run_on];
}

static void runs_are_on_streams_of_the_priorities_that_the_driver_offers(void)
{
    open_model("shared");
    CHECK_EQ(priority_of(1, false), -5);
    CHECK_EQ(priority_of(2, false), -4);
    CHECK_EQ(priority_of(3, false), -3);
    CHECK_EQ(priority_of(4, false), -2);
    CHECK_EQ(priority_of(1000, false), -2); /* before those that have none */
    CHECK_EQ(priority_of(0, false), -1);
    CHECK_EQ(priority_of(0, true), 0);
    CHECK_EQ(priority_of(1, true), 0); /* orders those of best effort among themselves */
    end_model();
}

static void a_mig_instance_has_them_too(void)
{
    open_fake();
    fake->mig = 1;
    open_model("mig");
    CHECK_EQ(priority_of(1, false), -5);
    CHECK_EQ(priority_of(0, true), 0);
    end_model();
    CHECK_EQ(list("mig"), 0);
    CHECK_HAS(info.why, "streams of 6 priorities; instance MIG-");
}

static void of_three_priorities_one_is_for_each_kind(void)
{
    open_fake();
    fake->greatest = -2;
    open_model("shared");
    CHECK_EQ(priority_of(1, false), -2);
    CHECK_EQ(priority_of(7, false), -2);
    CHECK_EQ(priority_of(0, false), -1);
    CHECK_EQ(priority_of(0, true), 0);
    end_model();
}

static void of_two_priorities_one_is_for_best_effort(void)
{
    open_fake();
    fake->greatest = -1;
    open_model("shared");
    CHECK_EQ(priority_of(1, false), -1);
    CHECK_EQ(priority_of(0, false), -1);
    CHECK_EQ(priority_of(0, true), 0);
    end_model();
}

static void of_more_priorities_the_last_six_are_used(void)
{
    open_fake();
    fake->least = 2;
    fake->greatest = -9;
    open_model("shared");
    CHECK_EQ(fake->streams, 14);
    CHECK_EQ(priority_of(1, false), -3);
    CHECK_EQ(priority_of(0, true), 2);
    end_model();
}

static void where_there_is_one_priority_there_is_one_stream_and_it_is_said(void)
{
    open_fake();
    fake->greatest = 0;
    open_model("shared");
    CHECK_EQ(fake->streams, 4);
    CHECK_EQ(priority_of(1, false), 0);
    CHECK_EQ(stream_of("cuGraphLaunch"), RUN);
    CHECK_EQ(priority_of(0, true), 0);
    CHECK_EQ(stream_of("cuGraphLaunch"), RUN);
    end_model();
    CHECK_EQ(list("shared"), 0);
    CHECK_STR(info.why, "models take turns on all 132 SMs, all runs on one stream: the driver "
                        "offers one priority");
}

static void partitions_with_sms_of_their_own_have_one_level(void)
{
    open_model("green");
    CHECK_EQ(fake->streams, 4);
    CHECK_EQ(priority_of(1, false), 0);
    CHECK_EQ(stream_of("cuGraphLaunch"), RUN);
    CHECK_EQ(priority_of(0, true), 0);
    CHECK_EQ(stream_of("cuGraphLaunch"), RUN);
    end_model();
}

static void what_streams_take_is_told_to_the_planner(void)
{
    open_fake();
    open_plugin();
    CHECK_EQ(list("shared"), 0);
    CHECK_HAS(info.why, "models take turns on all 132 SMs, runs on streams of 6 priorities");
    CHECK(!info.in_turn);
    uint64_t six = info.let_bytes;
    fake->greatest = 0;
    CHECK_EQ(list("shared"), 0);
    CHECK(info.in_turn);
    CHECK_EQ(six - info.let_bytes, 5 * ((uint64_t)16 << 20));
    check_clean(); /* nor is a context left that was made to ask */
}

/* What the urgent run gave is told while the other one, begun before it, still runs. */
static void an_urgent_run_does_not_end_behind_one_of_best_effort(void)
{
    struct done done;
    ticket slow, urgent;

    open_model("shared");
    struct io *io = of(ROWS, y);
    io->best_effort = true;
    forget_calls();
    fake->held = HELD_STREAM(2 * 5 + RUN); /* the last level's */
    CHECK_EQ(be->submit(slot, 0, 0, 1, io, &slow), 0);
    CHECK_EQ(stream_of("cuLaunchHostFunc"), 2 * 5 + RUN);
    io = of(ROWS, z);
    io->priority = 1;
    CHECK_EQ(be->submit(second, 1, 0, 1, io, &urgent), 0);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1);
    CHECK_EQ(done.ticket, urgent);
    CHECK(doubled(z, N));
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    CHECK_EQ(be->wait(part, USEC_NEVER, &done, 1), 1);
    CHECK_EQ(done.ticket, slow);
    CHECK(doubled(y, N));
    end_model();
}

static void a_run_of_a_level_that_fails_is_over_on_its_streams(void)
{
    ticket t;

    open_model("shared");
    struct io *io = of(ROWS, y);
    io->priority = 2;
    fail("cuMemcpyDtoHAsync", 2);
    forget_calls();
    CHECK_EQ(be->submit(slot, 0, 0, 1, io, &t), -EIO);
    CHECK_HAS(fake->trace, "cuStreamSynchronize 12\ncuStreamSynchronize 2\n"
                           "cuStreamSynchronize 3\n");
    CHECK_EQ(priority_of(1, false), -5);
    end_model();
}

static void a_driver_that_does_not_say_its_priorities_is_an_error(void)
{
    struct backend_config cfg = {.partition_mode = "shared"};

    open_fake();
    open_plugin();
    fail("cuCtxGetStreamPriorityRange", 201);
    CHECK_EQ(list("shared"), -EIO);
    CHECK_HAS(err.msg, "partition-mode 'shared': cuCtxGetStreamPriorityRange: ");
    check_clean();
    fail("cuDevicePrimaryCtxRetain", 46);
    CHECK_EQ(list("shared"), -EBUSY);
    CHECK_HAS(err.msg, "device is in exclusive mode");
    check_clean();
    CHECK_EQ(list("shared"), 0);
    fail("cuCtxGetStreamPriorityRange", 201); /* when it is listed again, */
    fake->fail_after = 1;                     /* and when it is taken */
    CHECK_EQ(be->dev_open(&cfg, 0, &dev, &err), -EIO);
    check_clean();
}

static void a_partition_that_gets_too_few_streams_leaves_none(void)
{
    struct granules set = granules_of(0, 1);
    struct part *p;
    uint32_t units;

    open_device("shared");
    int streams = fake->streams, handles = fake->handles;
    for (int k = 0; k < 14; k++) {
        fail("cuStreamCreateWithPriority", 2);
        fake->fail_after = k;
        CHECK_EQ(be->part_open(dev, &set, &p, &units, &err), -ENOMEM);
        CHECK_HAS(err.msg, "device 'gpu0': cuStreamCreateWithPriority: ");
        CHECK_EQ(fake->streams, streams);
        CHECK_EQ(fake->handles, handles);
    }
    be->part_close(part);
    be->dev_close(dev);
    check_clean();
}

int main(void)
{
    ALONE(large_copies_are_on_streams_of_their_own_in_mode_green);
    ALONE(large_copies_are_on_streams_of_their_own_in_mode_mps);
    ALONE(large_copies_of_a_run_alone_are_on_its_stream);
    ALONE(large_copies_beside_a_run_of_another_level_are_on_the_runs_stream);
    ALONE(small_copies_are_on_the_stream_of_the_run);
    ALONE(small_results_stay_behind_their_run_though_the_inputs_are_large);
    ALONE(small_inputs_stay_before_their_run_though_the_results_are_large);
    ALONE(large_inputs_of_several_requests_are_filled_up_where_they_are_copied);
    ALONE(a_graph_holds_the_run_and_no_copy);
    ALONE(a_request_with_large_copies_makes_nothing);
    ALONE(the_next_inputs_travel_while_a_run_is_under_way);
    ALONE(a_run_of_the_lane_waits_on_a_stream_of_another_level);
    ALONE(a_run_of_the_lane_on_its_stream_waits_for_its_inputs_alone);
    ALONE(what_is_over_nobody_waits_for);
    ALONE(a_run_that_goes_ahead_makes_nothing);
    ALONE(a_run_that_cannot_wait_for_the_one_before_it_fails_alone);
    ALONE(what_large_inputs_travel_is_said);
    ALONE(small_inputs_travel_in_front_of_their_run);
    ALONE(the_next_run_may_go_ahead);
    ALONE(what_fails_in_a_run_fails_it_alone);
    ALONE(an_input_that_costs_the_device_is_said);
    ALONE(a_wait_that_costs_the_device_is_said);
    ALONE(an_error_of_any_stream_is_noticed);
    ALONE(events_die_before_handles_and_these_before_streams_and_the_context);
    ALONE(runs_are_on_streams_of_the_priorities_that_the_driver_offers);
    ALONE(a_mig_instance_has_them_too);
    ALONE(of_three_priorities_one_is_for_each_kind);
    ALONE(of_two_priorities_one_is_for_best_effort);
    ALONE(of_more_priorities_the_last_six_are_used);
    ALONE(where_there_is_one_priority_there_is_one_stream_and_it_is_said);
    ALONE(partitions_with_sms_of_their_own_have_one_level);
    ALONE(what_streams_take_is_told_to_the_planner);
    ALONE(an_urgent_run_does_not_end_behind_one_of_best_effort);
    ALONE(a_run_of_a_level_that_fails_is_over_on_its_streams);
    ALONE(a_driver_that_does_not_say_its_priorities_is_an_error);
    ALONE(a_partition_that_gets_too_few_streams_leaves_none);
    return check_end();
}
