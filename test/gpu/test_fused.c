/* What our own kernels do in one step in 16 bits, on the fakes.  Their numbers by operator are for
 * ops.sh; here is what is launched, and what only a network brings about. */
#include "half_rig.h"

static size_t launches(void)
{
    size_t n = 0;

    for (const char *p = fake->log; (p = strstr(p, "cuLaunchKernel\n")); p++)
        n++;
    return n;
}

/* The bound graph in fp16, run once launch by launch; *ret: how many of them. */
static void launched(size_t n_out, size_t *ret)
{
    float *y = calloc(n_out, sizeof(*y));
    const void *in[] = {given};
    void *out[] = {y};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};
    struct exe *made = NULL;
    struct slot *s = NULL;

    fake->capture_refused = 1;
    CHECK_EQ(compile_in(PRECISION_FP16, &made), 0);
    CHECK_EQ(be->slot_open(made, &s, &err), 0);
    forget_calls();
    CHECK_EQ(done_of(s, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
    *ret = launches();
    be->slot_close(s);
    be->release(made);
    fake->capture_refused = 0;
    free(y);
}

/* A filter for each of the channels. */
static uint32_t depthwise(uint32_t in, const char *w, const char *attrs)
{
    return op(OP_Conv, attrs, 2, in, weights(w));
}

static void post_of_last(enum post_kind kind)
{
    struct node *n = &g->nodes[g->n_nodes - 1];

    n->post[n->n_post++] = (struct post){.kind = kind, .alpha = 0.5f, .beta = 6};
}

/* In, the convolution with its activation, out; the library is not asked. */
static void a_depthwise_convolution_and_its_activation_are_one_launch_of_ours(void)
{
    struct exe_info info;
    size_t n;

    open_gpu();
    uint32_t y = depthwise(input("x", "B 3 5 5"), "3 1 3 3", "group=3 pads=1,1,1,1");
    post_of_last(POST_CLIP);
    output(y);
    bind_graph();
    launched(ROWS * 75, &n);
    CHECK_EQ(n, 3);
    CHECK(!called("cudnnBackendExecute"));
    CHECK(error_in(PRECISION_FP16, ROWS * 75, &info) < 1e-2);
    CHECK_EQ(info.n_asked, 1);
    CHECK_EQ(info.n_reorders, 2);
    CHECK_EQ(info.n_plain, 0);
    close_gpu();
}

static void what_is_not_short_follows_in_place(void)
{
    struct exe_info info;
    size_t n;

    open_gpu();
    output(depthwise(input("x", "B 3 5 5"), "3 1 3 3", "group=3 pads=1,1,1,1"));
    post_of_last(POST_GELU);
    bind_graph();
    launched(ROWS * 75, &n);
    CHECK_EQ(n, 4);
    CHECK(error_in(PRECISION_FP16, ROWS * 75, &info) < 1e-2);
    close_gpu();
}

/* Two filters for each channel, and FP32, are the library's. */
static void other_convolutions_of_groups_are_the_library_s(void)
{
    size_t n;

    open_gpu();
    output(depthwise(input("x", "B 3 5 5"), "6 1 3 3", "group=3"));
    bind_graph();
    launched(ROWS * 54, &n);
    CHECK(called("cudnnBackendExecute"));
    CHECK_EQ(n, 2);
    close_gpu();
}

/* A mobile network's block, with channels last throughout, for each number of channels that are
 * read at once: 24 = 3 * 8, 12 = 3 * 4, 6 = 3 * 2, 7. */
static void a_block_of(const char *in, const char *filter, const char *out, const char *attrs)
{
    struct exe_info info;

    open_gpu();
    uint32_t y = op(OP_Conv, "", 2, input("x", "B 3 5 5"), weights(in));
    y = depthwise(y, filter, attrs);
    post_of_last(POST_RELU);
    y = op(OP_MaxPool, "kernel_shape=3,3 pads=1,1,1,1 strides=1,1", 1, y);
    y = op(OP_AveragePool, "kernel_shape=2,3 pads=1,0,0,1 strides=2,1", 1, y);
    y = op(OP_Add, "", 2, y, op(OP_GlobalAveragePool, "", 1, y));
    output(op(OP_Conv, "", 2, y, weights(out)));
    bind_graph();
    CHECK(error_in(PRECISION_FP16, ROWS * 4 * 3 * 4, &info) < 1e-2);
    CHECK_EQ(info.n_reorders, 2);
    CHECK_EQ(info.n_asked, 7);
    CHECK(error_in(PRECISION_BF16, ROWS * 4 * 3 * 4, &info) < 5e-2);
    close_gpu();
}

static void channels_are_read_8_at_once(void)
{
    a_block_of("24 3 1 1", "24 1 3 3", "4 24 1 1", "group=24 pads=1,1,1,1");
}
static void channels_are_read_4_at_once(void)
{
    a_block_of("12 3 1 1", "12 1 3 3", "4 12 1 1", "group=12 pads=1,1,1,1");
}
static void channels_are_read_2_at_once(void)
{
    a_block_of("6 3 1 1", "6 1 5 5", "4 6 1 1", "group=6 pads=2,2,2,2");
}
static void channels_are_read_one_by_one(void)
{
    a_block_of("7 3 1 1", "7 1 5 5", "4 7 1 1", "group=7 pads=2,2,2,2");
}

int main(void)
{
    ALONE(a_depthwise_convolution_and_its_activation_are_one_launch_of_ours);
    ALONE(what_is_not_short_follows_in_place);
    ALONE(other_convolutions_of_groups_are_the_library_s);
    ALONE(channels_are_read_8_at_once);
    ALONE(channels_are_read_4_at_once);
    ALONE(channels_are_read_2_at_once);
    ALONE(channels_are_read_one_by_one);
    return check_end();
}
