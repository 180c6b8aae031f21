/* Captured graphs, on the fake driver: when they are made, what they do, and what is done without.
 */
#include "eager.h"
#include "run_rig.h"

#define WIDTH 4
#define N (ROWS * WIDTH)

static const float x[N] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12};
static float y[N];

/* y = relu(2 x + 1) * 3, two launches in each of two segments. */
static void two_segments(void)
{
    start(17);
    uint32_t v = op(OP_Mul, "", 2, input("x", "B 4"), scalar(2));
    v = op(OP_Relu, "", 1, op(OP_Add, "", 2, v, scalar(1)));
    output(op(OP_Mul, "", 2, v, scalar(3)));
    g->n_segments = 2;
    g->cut = ARENA_ARRAY(&g->arena, uint32_t, 3);
    g->cut[1] = 2;
    g->cut[2] = 4;
    bind_graph();
}

static void open_slot(const char *mode)
{
    open_device(mode);
    two_segments();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
}

static struct io *whole(void)
{
    static const void *in[] = {x};
    static void *out[] = {y};
    static struct io_part rows = {.rows = ROWS, .in = in, .out = out};
    static struct io io = {.n_parts = 1, .part = &rows};

    return &io;
}

static void run_right(void)
{
    memset(y, 0, sizeof(y));
    CHECK_EQ(done_of(slot, part, 0, 2, whole()).rc, 0);
    for (unsigned i = 0; i < N; i++)
        CHECK(y[i] == 3 * fmaxf(2 * x[i] + 1, 0));
}

static unsigned times(const char *name)
{
    unsigned n = 0;
    char line[64];

    (void)snprintf(line, sizeof(line), "%s\n", name);
    for (const char *p = fake->log; (p = strstr(p, line)); p++)
        n++;
    return n;
}

static const char *note(void)
{
    static struct exe_info info;

    be->exe_info(exe, &info);
    return info.note;
}

static void a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode(const char *mode)
{
    open_slot(mode);
    CHECK_EQ(fake->graphs, 3);
    CHECK_STR(note(), "");
    forget_calls();
    run_right();
    CHECK_EQ(times("cuGraphLaunch"), 1);
    CHECK(!called("cuLaunchKernel"));
    run_right();
    CHECK_EQ(done_of(slot, part, 0, 1, whole()).rc, 0); /* paused between segments */
    CHECK_EQ(done_of(slot, part, 1, 2, whole()).rc, 0);
    for (unsigned i = 0; i < N; i++)
        CHECK(y[i] == 3 * fmaxf(2 * x[i] + 1, 0));
    CHECK_EQ(times("cuGraphLaunch"), 4);
    CHECK(!called("cuLaunchKernel"));
    close_model();
}
static void a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode_green(void)
{
    a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode("green");
}
static void a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode_mps(void)
{
    a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode("mps");
}
static void a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode_shared(void)
{
    a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode("shared");
}

/* What test/gpu/bench compares. */
static void the_same_slot_launches_one_by_one_while_it_has_no_graphs(void)
{
    CUgraphExec none[3] = {NULL};

    open_slot("green");
    forget_calls();
    CUgraphExec *made = graphs_swap(slot, none);
    run_right();
    CHECK(!called("cuGraphLaunch"));
    CHECK_EQ(times("cuLaunchKernel"), 4);
    CHECK(graphs_swap(slot, made) == none);
    forget_calls();
    run_right();
    CHECK_EQ(times("cuGraphLaunch"), 1);
    CHECK(!called("cuLaunchKernel"));
    close_model();
}

/* All calls that a request makes, and how often. */
static void a_request_calls_these_and_nothing_else(void)
{
    static const struct {
        const char *name;
        unsigned times;
    } allowed[] = {{"cuCtxSetCurrent", 4},   {"cuEventRecord", 2},     {"cuMemsetD8Async", 1},
                   {"cuMemcpyHtoDAsync", 1}, {"cuGraphLaunch", 1},     {"cuMemcpyDtoHAsync", 2},
                   {"cuLaunchHostFunc", 1},  {"cuEventElapsedTime", 1}};
    size_t all = 0;

    open_slot("green");
    run_right();
    forget_calls();
    run_right();
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
        CHECK_EQ(times(allowed[i].name), allowed[i].times);
        all += allowed[i].times * (strlen(allowed[i].name) + 1);
    }
    CHECK_EQ(fake->used, all);
    close_model();
}

static void a_graph_is_made_after_everything_has_run_once(void)
{
    open_slot("green");
    CHECK(strstr(fake->log, "cuLaunchKernel\n") < strstr(fake->log, "cuStreamBeginCapture\n"));
    CHECK(last_call("cuGraphInstantiateWithFlags") < last_call("cuGraphUpload"));
    CHECK(last_call("cuGraphUpload") < last_call("cuStreamQuery"));
    close_model();
}

/* Each call that makes one may fail, at the first segment at the second, or at all of them. */
static void what_cannot_be_captured_is_launched_step_by_step_and_said(void)
{
    static const char *const calls[] = {"cuStreamBeginCapture", "cuStreamEndCapture",
                                        "cuGraphInstantiateWithFlags", "cuGraphUpload"};
    static const int codes[] = {2, 801, 900, 901};

    open_slot("green");
    be->slot_close(slot);
    be->release(exe);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        for (size_t k = 0; k < 3 * ARRAY_SIZE(codes); k++) {
            exe = compiled(part);
            fail(calls[i], codes[k / 3]);
            fake->fail_after = (int)k % 3;
            CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
            CHECK_EQ(fake->graphs, 0);
            CHECK_HAS(note(), "launched step by step, not as a graph: ");
            CHECK_HAS(note(), calls[i]);
            forget_calls();
            run_right();
            CHECK_EQ(times("cuLaunchKernel"), 4);
            CHECK_EQ(times("cuGraphLaunch"), 0);
            be->slot_close(slot);
            be->release(exe);
        }
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(fake->graphs, 3);
    close_model();
}

/* The four that warm are launches, too. */
static void a_launch_that_fails_while_it_is_captured_ends_the_capture(void)
{
    open_device("green");
    two_segments();
    exe = compiled(part);
    fail("cuLaunchKernel", 900);
    fake->fail_after = 5;
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(times("cuStreamBeginCapture"), times("cuStreamEndCapture"));
    CHECK_HAS(note(), "cuLaunchKernel");
    run_right();
    close_model();
}

static void an_error_that_is_sticky_is_one(void)
{
    struct slot *more;

    open_slot("green");
    fail("cuGraphUpload", 700);
    CHECK_EQ(be->slot_open(exe, &more, &err), -ENODEV);
    CHECK_HAS(err.msg, "cuGraphUpload");
    CHECK_EQ(be->fault(part), FAULT_PROCESS);
    CHECK_EQ(fake->graphs, 3);
    close_model();
}

static void one_launch_is_no_graph(void)
{
    open_device("green");
    start(17);
    output(op(OP_Relu, "", 1, input("x", "B 4")));
    bind_graph();
    exe = compiled(part);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(fake->graphs, 0);
    CHECK_STR(note(), "");
    close_model();
}

/* A first slot does without, another is not opened: its runs would take longer than the first's. */
static void a_partition_has_so_much_memory_for_graphs(void)
{
    static struct slot *more[2400];
    struct exe *first, *other;
    unsigned n = 0;
    int r = 0;

    open_slot("green");
    while (n < ARRAY_SIZE(more) && (r = be->slot_open(exe, &more[n], &err)) == 0)
        n++;
    CHECK_EQ(r, -ENOMEM);
    CHECK_HAS(err.msg, "more than 512 MiB in a partition");
    CHECK_STR(note(), "");
    CHECK_EQ(fake->graphs, 3 * (n + 1));
    first = exe;
    exe = other = compiled(part);
    CHECK_EQ(be->slot_open(other, &more[n], &err), 0);
    CHECK_HAS(note(), "more than 512 MiB in a partition");
    CHECK_EQ(fake->graphs, 3 * (n + 1));
    be->slot_close(more[n]);
    be->release(other);
    exe = first;
    while (n > 0)
        be->slot_close(more[--n]);
    CHECK_EQ(fake->graphs, 3);
    CHECK_EQ(be->slot_open(exe, &more[0], &err), 0); /* there is room again */
    CHECK_EQ(fake->graphs, 6);
    be->slot_close(more[0]);
    close_model();
}

static void what_graphs_take_is_counted(void)
{
    struct exe_info info;

    open_slot("green");
    be->exe_info(exe, &info);
    CHECK(info.slot_bytes >= 3 * (64 << 10) + 8 * (10 << 10));
    close_model();
}

int main(void)
{
    ALONE(a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode_green);
    ALONE(a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode_mps);
    ALONE(a_run_replays_one_graph_and_a_part_of_it_those_of_its_segments_in_mode_shared);
    ALONE(the_same_slot_launches_one_by_one_while_it_has_no_graphs);
    ALONE(a_request_calls_these_and_nothing_else);
    ALONE(a_graph_is_made_after_everything_has_run_once);
    ALONE(what_cannot_be_captured_is_launched_step_by_step_and_said);
    ALONE(a_launch_that_fails_while_it_is_captured_ends_the_capture);
    ALONE(an_error_that_is_sticky_is_one);
    ALONE(one_launch_is_no_graph);
    ALONE(a_partition_has_so_much_memory_for_graphs);
    ALONE(what_graphs_take_is_counted);
    return check_end();
}
