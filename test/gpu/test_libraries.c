/* Nodes that cuBLASLt does, on fakes that compute on the host and look whether the rules are kept.
 * What each operator computes is for ops.sh, with and without the libraries. */
#include "run_rig.h"

#include <pthread.h>
#include <stdatomic.h>

#define IN 4
#define OUT 2

static const float x[ROWS * IN] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12};
static float y[ROWS * OUT];

/* Relu(x w + bias) w2: the activation is a post step. */
static void two_products(void)
{
    start(17);
    uint32_t hidden =
        named("first", OP_Gemm, "", 3, input("x", "B 4"), weights("4 5"), weights("5"));
    output(named("second", OP_MatMul, "", 2, hidden, weights("5 2")));
    g->nodes[0].post[g->nodes[0].n_post++] = (struct post){.kind = POST_RELU};
    bind_graph();
}

static void run(struct slot *s, float *to)
{
    const void *in[] = {x};
    void *out[] = {to};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};

    CHECK_EQ(done_of(s, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
}

static void open_products(void)
{
    open_device("green");
    two_products();
    CHECK_EQ(compile(false, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
}

/* The same by our own kernels, which other tests compare with the reference. */
static bool as_plain(const float *got)
{
    float want[ROWS * OUT];
    struct exe *plain = NULL;
    struct slot *s = NULL;
    bool same = true;

    CHECK_EQ(compile(true, &plain), 0);
    CHECK_EQ(plain_steps(plain), 2);
    CHECK_EQ(be->slot_open(plain, &s, &err), 0);
    run(s, want);
    be->slot_close(s);
    be->release(plain);
    for (unsigned i = 0; i < ROWS * OUT; i++)
        same &= fabsf(got[i] - want[i]) <= 1e-5f * fabsf(want[i]);
    return same;
}

static void the_library_does_products(void)
{
    open_products();
    run(slot, y);
    CHECK(called("cublasLtMatmul"));
    CHECK(!called("cuLaunchKernel"));
    CHECK_EQ(plain_steps(exe), 0);
    CHECK(as_plain(y));
    close_model();
}

static void batch_invariant_products_are_our_own(void)
{
    open_device("green");
    two_products();
    CHECK_EQ(compile(true, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    run(slot, y);
    CHECK(!called("cublasLtMatmul"));
    CHECK_EQ(plain_steps(exe), 2);
    close_model();
}

static void a_product_that_the_library_refuses_is_our_own(void)
{
    open_fake();
    fake->library_refuses = 1;
    open_products();
    run(slot, y);
    CHECK(!called("cublasLtMatmul"));
    CHECK_EQ(plain_steps(exe), 2);
    CHECK(as_plain(y));
    close_model();
}

/* One that is made for a newer CUDA than the driver's. */
static void a_library_that_cannot_be_used_is_named_and_its_nodes_are_our_own(void)
{
    struct backend_config cfg = {0};
    struct device_info info[2];
    size_t n;

    open_fake();
    fake->library_cuda = 14000;
    open_products();
    CHECK_EQ(be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err), 0);
    CHECK_HAS(info[0].why, "products by plain kernels, no cuBLASLt: it is made for CUDA 14, ");
    CHECK_HAS(info[0].why, "convolutions by plain kernels, no cuDNN: it is made for CUDA 14, ");
    CHECK(!strstr(info[0].library, "cuBLASLt") && !strstr(info[0].library, "cuDNN"));
    CHECK(!called("cublasLtCreate") && !called("cudnnCreate"));
    CHECK_EQ(plain_steps(exe), 2);
    close_model();
}

static void a_library_that_is_used_is_named_with_its_version(void)
{
    struct backend_config cfg = {0};
    struct device_info info[2];
    size_t n;

    open_products();
    CHECK_EQ(be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err), 0);
    CHECK_STR(info[0].library, "CUDA 13.0, driver 580.65.06, cuBLASLt 13.1.0, cuDNN 9.19.0");
    CHECK(!strstr(info[0].why, "cuBLASLt") && !strstr(info[0].why, "cuDNN"));
    close_model();
}

static void a_workspace_is_memory_of_the_run(void)
{
    struct exe_info little, much;
    struct exe *other;

    open_fake();
    fake->library_offers = 1; /* which is not kept, as there is nothing to measure */
    open_products();
    fake->library_workspace = 1 << 20;
    CHECK_EQ(compile(false, &other), 0);
    be->exe_info(exe, &little);
    be->exe_info(other, &much);
    CHECK(much.slot_bytes >= little.slot_bytes + (1 << 20) - 4096);
    be->release(other);
    close_model();
}

static void the_first_run_makes_nothing(void)
{
    open_products();
    forget_calls();
    run(slot, y);
    CHECK(called("cuGraphLaunch"));
    check_only_runs();
    close_model();
}

static void no_run_is_the_first_to_use_the_handle(void)
{
    open_products();
    int used = fake->handles_used;
    CHECK(used > 0);
    run(slot, y);
    CHECK_EQ(fake->handles_used, used);
    close_model();
}

static void nor_does_it_where_it_is_launched_step_by_step(void)
{
    open_fake();
    fake->capture_refused = 1;
    open_products();
    int before = fake->descriptors;
    forget_calls();
    run(slot, y);
    CHECK_EQ(fake->descriptors, before);
    CHECK(called("cublasLtMatmul"));
    check_only_runs();
    close_model();
}

/* ---- errors */
static const struct {
    int status;
    const char *name;
} statuses[] = {
    {1, "CUBLAS_STATUS_NOT_INITIALIZED (1)"},  {3, "CUBLAS_STATUS_ALLOC_FAILED (3)"},
    {7, "CUBLAS_STATUS_INVALID_VALUE (7)"},    {8, "CUBLAS_STATUS_ARCH_MISMATCH (8)"},
    {11, "CUBLAS_STATUS_MAPPING_ERROR (11)"},  {13, "CUBLAS_STATUS_EXECUTION_FAILED (13)"},
    {14, "CUBLAS_STATUS_INTERNAL_ERROR (14)"}, {15, "CUBLAS_STATUS_NOT_SUPPORTED (15)"},
    {16, "CUBLAS_STATUS_LICENSE_ERROR (16)"},
};

static void an_error_of_a_call_names_library_call_status_and_node(void)
{
    static const char *const calls[] = {"cublasLtMatmulDescCreate",
                                        "cublasLtMatmulDescSetAttribute",
                                        "cublasLtMatrixLayoutCreate",
                                        "cublasLtMatmulPreferenceCreate",
                                        "cublasLtMatmulPreferenceSetAttribute",
                                        "cublasLtMatmulAlgoGetHeuristic"};
    char want[160];
    struct exe *made;

    open_fake();
    fake->library_offers = 1; /* so that each is asked again */
    open_products();
    int before = fake->descriptors;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        for (size_t k = 0; k < ARRAY_SIZE(statuses); k++) {
            if (i + 1 == ARRAY_SIZE(calls) && statuses[k].status == 15)
                continue; /* no error: it has no algorithm */
            fail(calls[i], statuses[k].status);
            CHECK(compile(false, &made) < 0);
            (void)snprintf(want, sizeof(want), "node 'first' (Gemm): cuBLASLt: %s: %s: ", calls[i],
                           statuses[k].name);
            CHECK_HAS(err.msg, want);
            CHECK_EQ(fake->descriptors, before);
        }
    close_model();
}

static void a_run_that_the_library_fails_says_so_when_the_model_is_warmed(void)
{
    uint64_t ns[1];

    open_fake();
    fake->capture_refused = 1; /* what is captured asks no library any more */
    open_products();
    for (size_t k = 0; k < ARRAY_SIZE(statuses); k++) {
        fail("cublasLtMatmul", statuses[k].status);
        CHECK(be->probe(slot, 0, 1, 1, ns, &err) < 0);
        CHECK_HAS(err.msg, "the run failed: node 'first' (Gemm): cuBLASLt: cublasLtMatmul: ");
        CHECK_HAS(err.msg, statuses[k].name);
    }
    CHECK_EQ(be->fault(part), FAULT_NONE);
    run(slot, y);
    CHECK(as_plain(y));
    close_model();
}

static void a_slot_that_the_library_fails_to_warm_says_for_which_node(void)
{
    struct slot *more;

    open_products();
    int allocations = fake->allocations;
    for (size_t k = 0; k < ARRAY_SIZE(statuses); k++) {
        fail("cublasLtMatmul", statuses[k].status);
        CHECK(be->slot_open(exe, &more, &err) < 0);
        CHECK_HAS(err.msg, "bytes: node 'first' (Gemm): cuBLASLt: cublasLtMatmul: ");
        CHECK_HAS(err.msg, statuses[k].name);
        CHECK_EQ(fake->allocations, allocations);
    }
    close_model();
}

static void a_partition_that_gets_no_handle_is_refused_and_leaves_nothing(void)
{
    struct granules set = granules_of(1, 1);
    struct part *more = NULL;
    uint32_t units;

    open_products();
    int streams = fake->streams, handles = fake->handles;
    fail("cublasLtCreate", 3);
    CHECK_EQ(be->part_open(dev, &set, &more, &units, &err), -ENOMEM);
    CHECK_HAS(err.msg, "a partition of 1 granules of device 'gpu0': cuBLASLt: cublasLtCreate: ");
    CHECK_EQ(fake->streams, streams);
    CHECK_EQ(fake->handles, handles);
    close_model();
}

/* ---- handles: whose and when is for the fakes to see */
static void each_partition_has_handles_of_its_own(const char *mode)
{
    open_device(mode);
    int of_one = fake->handles;
    CHECK(of_one > 0);
    struct part *other = cut(1);
    CHECK_EQ(fake->handles, 2 * of_one);
    be->part_close(other);
    CHECK_EQ(fake->handles, of_one);
    two_products();
    CHECK_EQ(compile(false, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    run(slot, y);
    close_model();
}
static void each_green_partition_has_handles_of_its_own(void)
{
    each_partition_has_handles_of_its_own("green");
}
static void each_capped_partition_has_handles_of_its_own(void)
{
    each_partition_has_handles_of_its_own("mps");
}

static atomic_bool serving;

static void *serve(void *arg)
{
    float z[ROWS * OUT];

    (void)arg;
    be->part_enter(part);
    while (atomic_load(&serving)) {
        run(slot, z);
        CHECK(memcmp(z, y, sizeof(y)) == 0);
    }
    return NULL;
}

static void the_builder_compiles_while_the_partition_serves(void)
{
    pthread_t executor;

    open_products();
    run(slot, y);
    atomic_store(&serving, true);
    CHECK_EQ(pthread_create(&executor, NULL, serve, NULL), 0);
    for (unsigned i = 0; i < 20; i++) {
        struct exe *again;
        struct slot *other;
        uint64_t ns[2];
        CHECK_EQ(compile(false, &again), 0);
        CHECK_EQ(be->slot_open(again, &other, &err), 0);
        CHECK_EQ(be->probe(other, 0, 1, 2, ns, &err), 0);
        be->slot_close(other);
        be->release(again);
        be->part_close(cut(0));
    }
    atomic_store(&serving, false);
    (void)pthread_join(executor, NULL);
    close_model();
}

int main(void)
{
    ALONE(the_library_does_products);
    ALONE(batch_invariant_products_are_our_own);
    ALONE(a_product_that_the_library_refuses_is_our_own);
    ALONE(a_library_that_cannot_be_used_is_named_and_its_nodes_are_our_own);
    ALONE(a_library_that_is_used_is_named_with_its_version);
    ALONE(a_workspace_is_memory_of_the_run);
    ALONE(the_first_run_makes_nothing);
    ALONE(no_run_is_the_first_to_use_the_handle);
    ALONE(nor_does_it_where_it_is_launched_step_by_step);
    ALONE(an_error_of_a_call_names_library_call_status_and_node);
    ALONE(a_run_that_the_library_fails_says_so_when_the_model_is_warmed);
    ALONE(a_slot_that_the_library_fails_to_warm_says_for_which_node);
    ALONE(a_partition_that_gets_no_handle_is_refused_and_leaves_nothing);
    ALONE(each_green_partition_has_handles_of_its_own);
    ALONE(each_capped_partition_has_handles_of_its_own);
    ALONE(the_builder_compiles_while_the_partition_serves);
    return check_end();
}
