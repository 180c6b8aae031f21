/* Convolutions that cuDNN does, on a fake that interprets the operation graph it is given.  What
 * the real one says to such graphs is for test_cudnn. */
#include "run_rig.h"
#include <pthread.h>
#include <unistd.h>

#define BOUND_S 20 /* else it is not let in */

#define IN (ROWS * 3 * 25)
#define OUT (ROWS * 4 * 25)

static float x[IN], residual[OUT], y[OUT];

/* Relu(conv(x) + r), the last two as post steps. */
static void residual_block(bool bias)
{
    start(17);
    uint32_t in = input("x", "B 3 5 5"), r = input("r", "B 4 5 5"), w = weights("4 3 3 3");
    output(bias ? named("layer", OP_Conv, "pads=1,1,1,1", 3, in, w, weights("4"))
                : named("layer", OP_Conv, "pads=1,1,1,1", 2, in, w));
    g->nodes[0].post[0] = (struct post){.kind = POST_ADD, .value = r};
    g->nodes[0].post[1] = (struct post){.kind = POST_RELU};
    g->nodes[0].n_post = 2;
    bind_graph();
    for (unsigned i = 0; i < IN; i++)
        x[i] = (float)(i * 7 % 11) - 5;
    for (unsigned i = 0; i < OUT; i++)
        residual[i] = (float)(i * 5 % 13) * 10 - 60; /* many results are negative */
}

static void open_block(bool bias)
{
    open_device("green");
    residual_block(bias);
    CHECK_EQ(compile(false, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
}

static void run(struct slot *s, float *to)
{
    const void *in[] = {x, residual};
    void *out[] = {to};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};

    CHECK_EQ(done_of(s, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
}

/* What the run gave is what our own kernels give, and some of it was cut off. */
static void check_as_plain(void)
{
    float want[OUT];
    struct exe *plain = NULL;
    struct slot *s = NULL;
    unsigned zeros = 0, bad = 0;

    CHECK_EQ(compile(true, &plain), 0);
    CHECK_EQ(plain_steps(plain), 1);
    CHECK_EQ(be->slot_open(plain, &s, &err), 0);
    run(s, want);
    be->slot_close(s);
    be->release(plain);
    for (unsigned i = 0; i < OUT; i++) {
        zeros += want[i] == 0;
        bad += fabsf(y[i] - want[i]) > 1e-4f;
    }
    CHECK_EQ(bad, 0);
    CHECK(zeros > 0 && zeros < OUT);
}

static void the_library_does_a_convolution_and_what_is_fused(void)
{
    open_block(true);
    run(slot, y);
    CHECK(called("cudnnBackendExecute"));
    CHECK(!called("cuLaunchKernel"));
    CHECK_EQ(plain_steps(exe), 0);
    check_as_plain();
    close_model();
}

static void a_chain_without_a_bias_gets_one_of_zeros(void)
{
    open_block(false);
    run(slot, y);
    CHECK(called("cudnnBackendExecute"));
    CHECK(!called("cuLaunchKernel"));
    check_as_plain();
    close_model();
}

static void what_the_library_cannot_fuse_is_done_behind_it(void)
{
    open_fake();
    fake->library_refuses = 2;
    open_block(true);
    run(slot, y);
    CHECK(called("cudnnBackendExecute"));
    CHECK(called("cuLaunchKernel"));
    CHECK_EQ(plain_steps(exe), 0);
    check_as_plain();
    close_model();
}

static void a_convolution_that_the_library_refuses_is_our_own(void)
{
    open_fake();
    fake->library_refuses = 1;
    open_block(true);
    run(slot, y);
    CHECK(!called("cudnnBackendExecute"));
    CHECK_EQ(plain_steps(exe), 1);
    check_as_plain();
    close_model();
}

static void the_first_run_makes_nothing(void)
{
    open_block(true);
    int before = fake->descriptors;
    forget_calls();
    run(slot, y);
    CHECK_EQ(fake->descriptors, before);
    CHECK(called("cudnnBackendExecute"));
    check_only_runs();
    close_model();
}

/* Launched step by step, on a stream of each priority. */
static void each_stream_of_runs_has_its_handle(void)
{
    const void *in[] = {x, residual};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};

    open_fake();
    fake->capture_refused = 1;
    open_device("shared");
    int handles = fake->handles;
    residual_block(true);
    CHECK_EQ(compile(false, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    for (io.priority = 0; io.priority <= 5; io.priority++) {
        io.best_effort = io.priority == 5;
        memset(y, 0, sizeof(y));
        forget_calls();
        CHECK_EQ(done_of(slot, part, 0, 1, &io).rc, 0);
        CHECK(called("cudnnBackendExecute"));
        CHECK(!called("cudnnSetStream"));
        check_as_plain();
    }
    CHECK_EQ(fake->handles, handles);
    close_model();
}

/* Of the six priorities' streams, and the builder's. */
static void no_run_is_the_first_to_use_a_handle(void)
{
    const void *in[] = {x, residual};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct exe *again;
    struct slot *other;

    open_device("shared");
    residual_block(true);
    CHECK_EQ(compile(false, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(fake->handles_used, 6 + 1);
    forget_calls();
    for (int i = 0; i < 6; i++) {
        struct io io = {.n_parts = 1, .part = &whole, .priority = i, .best_effort = i == 5};
        CHECK_EQ(done_of(slot, part, 0, 1, &io).rc, 0);
    }
    CHECK(called("cudnnBackendExecute")); /* one launch: no graph has it */
    CHECK_EQ(fake->handles_used, 6 + 1);
    CHECK_EQ(compile(false, &again), 0);
    forget_calls();
    CHECK_EQ(be->slot_open(again, &other, &err), 0);
    CHECK_EQ(count_calls("cudnnBackendExecute"), 1); /* once in a partition: the rest is done */
    be->slot_close(other);
    be->release(again);
    check_as_plain();
    close_model();
}

static struct slot *opened;

static void *open_one(void *of)
{
    static struct err why;

    CHECK_EQ(be->slot_open(of, &opened, &why), 0);
    return NULL;
}

static void runs_are_let_in_while_handles_are_used_first(void)
{
    const void *in[] = {x, residual};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &whole};
    struct exe *again;
    struct slot *second;
    struct done done[2];
    pthread_t builder;
    ticket t;

    open_device("shared");
    residual_block(true);
    CHECK_EQ(compile(true, &exe), 0); /* by our own kernels */
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    CHECK_EQ(be->slot_open(exe, &second, &err), 0);
    CHECK_EQ(compile(false, &again), 0);
    fake->held = 1;
    CHECK_EQ(be->submit(slot, 0, 0, 1, &io, &t), 0);
    CHECK_EQ(pthread_create(&builder, NULL, open_one, again), 0);
    /* The builder's, and those of the first five streams: on the last of these that run is. */
    while (__atomic_load_n(&fake->handles_used, __ATOMIC_RELAXED) < 1 + 5)
        (void)usleep(1000);
    (void)usleep(10000); /* it waits behind it now */
    (void)alarm(BOUND_S);
    CHECK_EQ(be->submit(second, 0, 0, 1, &io, &t), 0);
    (void)alarm(0);
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    for (size_t n = 0; n < 2;)
        n += be->wait(part, USEC_NEVER, done, 2);
    (void)pthread_join(builder, NULL);
    be->slot_close(opened);
    be->slot_close(second);
    be->release(again);
    close_model();
}

static void a_workspace_is_memory_of_the_run(void)
{
    struct exe_info little, much;
    struct exe *other;

    open_block(true);
    fake->library_workspace = 1 << 20;
    CHECK_EQ(compile(false, &other), 0);
    be->exe_info(exe, &little);
    be->exe_info(other, &much);
    CHECK_EQ(much.slot_bytes, little.slot_bytes + (1 << 20) - 4096);
    be->release(other);
    close_model();
}

/* ---- errors */
static const struct {
    int status, code;
    const char *name;
} statuses[] = {
    {1001, -ENODEV, "CUDNN_STATUS_NOT_INITIALIZED (1001)"},
    {2000, -EINVAL, "CUDNN_STATUS_BAD_PARAM (2000)"},
    {4000, -EIO, "CUDNN_STATUS (4000)"},
    {4003, -ENOMEM, "CUDNN_STATUS (4003)"},
    {4004, -ENOMEM, "CUDNN_STATUS (4004)"},
    {5000, -EIO, "CUDNN_STATUS (5000)"},
};
#define REFUSED 3000

static void an_error_of_a_call_names_library_call_status_and_node(void)
{
    static const char *const calls[] = {"cudnnBackendCreateDescriptor", "cudnnBackendSetAttribute",
                                        "cudnnBackendFinalize", "cudnnBackendGetAttribute"};
    char want[160];
    struct exe *made;

    open_block(true);
    int before = fake->descriptors;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        for (size_t k = 0; k < ARRAY_SIZE(statuses); k++) {
            fail(calls[i], statuses[k].status);
            CHECK_EQ(compile(false, &made), statuses[k].code);
            (void)snprintf(want, sizeof(want), "node 'layer' (Conv): cuDNN: %s: %s: %s", calls[i],
                           statuses[k].name, "as the test wants");
            CHECK_HAS(err.msg, want);
            CHECK(!strchr(err.msg, '\n'));
            CHECK_EQ(fake->descriptors, before);
        }
    close_model();
}

/* Wherever it is said: the chain is asked for without what is fused, then it is our own. */
static void a_call_that_is_refused_is_no_error(void)
{
    static const char *const calls[] = {"cudnnBackendCreateDescriptor", "cudnnBackendSetAttribute",
                                        "cudnnBackendFinalize", "cudnnBackendGetAttribute"};
    struct exe *made;

    open_block(true);
    int before = fake->descriptors;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        for (int times = 1; times >= -1; times -= 2) {
            fail(calls[i], REFUSED);
            fake->fail_times = times;
            CHECK_EQ(compile(false, &made), 0);
            fake->fail_times = 0;
            CHECK_EQ(plain_steps(made), times < 0);
            be->release(made);
            CHECK_EQ(fake->descriptors, before);
        }
    close_model();
}

static void a_slot_that_cannot_be_opened_says_for_which_node(void)
{
    struct slot *more;

    open_block(true);
    int before = fake->descriptors, allocations = fake->allocations;
    fail("cudnnBackendFinalize", 2000);
    CHECK_EQ(be->slot_open(exe, &more, &err), -EINVAL);
    CHECK_HAS(err.msg, "node 'layer' (Conv): cuDNN: cudnnBackendFinalize: CUDNN_STATUS_BAD_PARAM");
    CHECK_EQ(fake->descriptors, before);
    CHECK_EQ(fake->allocations, allocations);
    close_model();
}

static void a_run_that_the_library_fails_says_so_when_the_model_is_warmed(void)
{
    uint64_t ns[1];

    open_fake();
    fake->capture_refused = 1; /* what is captured asks no library any more */
    open_block(true);
    for (size_t k = 0; k < ARRAY_SIZE(statuses); k++) {
        fail("cudnnBackendExecute", statuses[k].status);
        CHECK_EQ(be->probe(slot, 0, 1, 1, ns, &err), statuses[k].code);
        CHECK_HAS(err.msg, "the run failed: node 'layer' (Conv): cuDNN: cudnnBackendExecute: ");
        CHECK_HAS(err.msg, statuses[k].name);
    }
    run(slot, y);
    check_as_plain();
    close_model();
}

static void a_partition_that_gets_no_handle_is_refused_and_leaves_nothing(void)
{
    static const char *const calls[] = {"cudnnCreate", "cudnnSetStream"};
    struct granules set = granules_of(1, 1);
    struct part *more = NULL;
    uint32_t units;

    open_block(true);
    int streams = fake->streams, handles = fake->handles;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        fail(calls[i], 1001);
        CHECK_EQ(be->part_open(dev, &set, &more, &units, &err), -ENODEV);
        CHECK_HAS(err.msg, "a partition of 1 granules of device 'gpu0': cuDNN: ");
        CHECK_HAS(err.msg, calls[i]);
        CHECK_EQ(fake->streams, streams);
        CHECK_EQ(fake->handles, handles);
    }
    close_model();
}

int main(void)
{
    ALONE(the_library_does_a_convolution_and_what_is_fused);
    ALONE(a_chain_without_a_bias_gets_one_of_zeros);
    ALONE(what_the_library_cannot_fuse_is_done_behind_it);
    ALONE(a_convolution_that_the_library_refuses_is_our_own);
    ALONE(the_first_run_makes_nothing);
    ALONE(each_stream_of_runs_has_its_handle);
    ALONE(no_run_is_the_first_to_use_a_handle);
    ALONE(runs_are_let_in_while_handles_are_used_first);
    ALONE(a_workspace_is_memory_of_the_run);
    ALONE(an_error_of_a_call_names_library_call_status_and_node);
    ALONE(a_call_that_is_refused_is_no_error);
    ALONE(a_slot_that_cannot_be_opened_says_for_which_node);
    ALONE(a_run_that_the_library_fails_says_so_when_the_model_is_warmed);
    ALONE(a_partition_that_gets_no_handle_is_refused_and_leaves_nothing);
    return check_end();
}
