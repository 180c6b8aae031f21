/* Which of a library's ways is taken: the fastest, measured once.  What a launch costs is a knob of
 * the fakes, which sets the clock of their events forward. */
#include "run_rig.h"

#include <lib/backend/cuda/gpu.h>

#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define IN 4
#define OUT 2

static const float x[ROWS * IN] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12};
static float y[ROWS * OUT];
static char state[] = "/tmp/test_choices.XXXXXX";

/* ---- a model of two products, on ways of which one is the fastest */
static void costs(int a, int b, int c)
{
    fake->cost_ms[0] = a;
    fake->cost_ms[1] = b;
    fake->cost_ms[2] = c;
}

static void open_costly_in(const char *mode, int a, int b, int c)
{
    open_fake();
    costs(a, b, c);
    open_device(mode);
    start(17);
    uint32_t hidden =
        named("first", OP_Gemm, "", 3, input("x", "B 4"), weights("4 5"), weights("5"));
    output(named("second", OP_MatMul, "", 2, hidden, weights("5 2")));
    bind_graph();
}

static void open_costly(int a, int b, int c)
{
    open_costly_in("green", a, b, c);
}

static void open_slot(void)
{
    CHECK_EQ(compile(false, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
}

static void run_it(float *to)
{
    const void *in[] = {x};
    void *out[] = {to};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};

    CHECK_EQ(done_of(slot, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
}

/* Both products go this way, and no other. */
static void check_way(int way)
{
    memset(fake->way_runs, 0, sizeof(fake->way_runs));
    run_it(y);
    for (int i = 0; i < FAKE_WAYS_MAX; i++)
        CHECK_EQ(fake->way_runs[i], i == way ? 2 : 0);
}

static int launches(void)
{
    int n = 0;

    for (int i = 0; i < FAKE_WAYS_MAX; i++)
        n += fake->way_runs[i];
    return n;
}

/* Of measuring alone. */
static int launches_to_compile(struct part *p)
{
    memset(fake->way_runs, 0, sizeof(fake->way_runs));
    be->release(compiled(p));
    return launches();
}

static void the_fastest_way_is_taken_and_not_the_librarys_first(void)
{
    open_costly(30, 10, 20);
    open_slot();
    check_way(1);
    close_model();
}

static void what_costs_little_is_launched_many_times_between_two_events(void)
{
    open_costly(0, 0, 0);
    CHECK(launches_to_compile(part) > 2 * 3 * (2 + 5)); /* products, ways, launches if each alone */
    CHECK(called("cuGraphLaunch"));
    open_slot();
    close_model();
}

static void a_device_that_captures_nothing_is_measured_launch_by_launch(void)
{
    open_fake();
    fake->capture_refused = 1;
    open_costly(30, 20, 10);
    CHECK(launches_to_compile(part) > 0);
    CHECK(!called("cuGraphLaunch"));
    open_slot();
    check_way(2);
    close_model();
}

/* As where there is no memory to keep it in. */
static void what_nobody_keeps_is_not_measured(void)
{
    open_costly(30, 10, 20);
    struct choices *had = dev->choices;
    dev->choices = NULL;
    CHECK_EQ(launches_to_compile(part), 0);
    open_slot();
    check_way(0); /* the library's first */
    dev->choices = had;
    close_model();
}

/* ---- once */
static void a_product_is_measured_once_for_all_partitions_of_a_size(void)
{
    open_costly(30, 10, 20);
    CHECK(launches_to_compile(part) > 0);
    costs(10, 20, 30);
    forget_calls();
    struct part *other = cut(1);
    CHECK_EQ(launches_to_compile(part), 0);
    CHECK_EQ(launches_to_compile(other), 0);
    CHECK(!called("cublasLtMatmulAlgoGetHeuristic"));
    CHECK(called("cublasLtMatmulAlgoCheck"));
    be->part_close(other);
    open_slot();
    check_way(1);
    close_model();
}

static void another_number_of_sms_has_a_choice_of_its_own(void)
{
    struct granules two = granules_of(0, 2);
    uint32_t units;

    open_costly(30, 10, 20);
    CHECK(launches_to_compile(part) > 0);
    be->part_close(part);
    costs(10, 20, 30);
    CHECK_EQ(be->part_open(dev, &two, &part, &units, &err), 0);
    CHECK(launches_to_compile(part) > 0);
    open_slot();
    check_way(0);
    close_model();
}

/* Own kernels, whatever a library would take. */
static void batch_invariant_models_measure_nothing(void)
{
    struct exe *own;

    open_costly(30, 10, 20);
    CHECK_EQ(compile(true, &own), 0);
    CHECK_EQ(launches(), 0);
    be->release(own);
    open_slot();
    close_model();
}

/* ---- what may go wrong */
static void a_way_that_fails_is_not_taken(void)
{
    open_costly(30, 10, 20);
    fake->way_fails = 1 + 1;
    open_slot();
    CHECK(fake->way_failed > 0);
    check_way(2);
    close_model();
}

static void where_all_ways_fail_the_first_is_taken_and_the_slot_says_so(void)
{
    open_costly(30, 10, 20);
    fake->library_offers = 2;
    fail("cublasLtMatmul", 13);
    fake->fail_times = -1;
    CHECK_EQ(compile(false, &exe), 0);
    CHECK(be->slot_open(exe, &slot, &err) < 0);
    CHECK_HAS(err.msg, "node 'first' (Gemm): cuBLASLt: cublasLtMatmul: ");
    be->release(exe);
    fake->fail_times = 0;
    open_slot(); /* it was not kept */
    check_way(1);
    close_model();
}

static void without_memory_to_measure_in_the_first_is_taken_and_not_kept(void)
{
    open_costly(30, 10, 20);
    fail("cuMemAlloc", 2);
    fake->fail_times = 2; /* for each product */
    CHECK_EQ(launches_to_compile(part), 0);
    CHECK(launches_to_compile(part) > 0);
    open_slot();
    check_way(1);
    close_model();
}

static void an_error_that_ends_the_process_ends_compiling(void)
{
    struct exe *made = NULL;

    open_costly(30, 10, 20);
    fail("cuStreamQuery", 700);
    fake->fail_times = -1;
    CHECK_EQ(compile(false, &made), -EIO);
    CHECK_HAS(err.msg, "a kernel used an address that is not its own");
    CHECK_EQ(be->fault(part), FAULT_PROCESS);
    CHECK_EQ(fake->events + fake->allocations, 0);
    fake->fail_times = 0;
    open_slot();
    close_model();
}

static void what_measuring_takes_is_given_back(void)
{
    open_costly(30, 10, 20);
    int events = fake->events, allocations = fake->allocations;
    struct exe *made = compiled(part);
    CHECK_EQ(fake->events, events);
    CHECK_EQ(fake->allocations, allocations);
    CHECK_EQ(fake->graphs, 0);
    be->release(made);
    open_slot();
    close_model();
}

/* The first launch takes all the time there is, so nobody knows which is the fastest. */
static void what_takes_too_long_is_not_measured_and_the_first_is_taken(void)
{
    open_costly(400, 10, 20);
    fake->cost_real = 1;
    CHECK_EQ(launches_to_compile(part), 1);
    open_slot(); /* as it is not kept, this takes the time again */
    fake->cost_real = 0;
    check_way(0);
    atomic_store(&dev->ran_us, 1); /* long ago */
    CHECK(launches_to_compile(part) > 0);
    CHECK_EQ(launches_to_compile(part), 0);
    close_model();
}

/* Six launches for the first times of a product's ways, and three more: that is all for both. */
static void the_time_is_for_all_products_of_a_model(void)
{
    open_costly(40, 40, 40);
    fake->cost_real = 1;
    CHECK(launches_to_compile(part) <= 9);
    fake->cost_real = 0;
    open_slot();
    close_model();
}

/* ---- convolutions, whose ways are plans */
static const float image[ROWS * 2 * 9];

static void open_convolution(int a, int b, int c)
{
    open_fake();
    costs(a, b, c);
    open_device("green");
    start(17);
    output(named("conv", OP_Conv, "pads=1,1,1,1", 3, input("x", "B 2 3 3"), weights("4 2 3 3"),
                 weights("4")));
    bind_graph();
}

/* The convolution goes this way, and no other. */
static void check_plan(int way)
{
    float to[ROWS * 4 * 9];
    const void *in[] = {image};
    void *out[] = {to};
    struct io_part whole = {.rows = ROWS, .in = in, .out = out};

    memset(fake->way_runs, 0, sizeof(fake->way_runs));
    CHECK_EQ(done_of(slot, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
    for (int i = 0; i < FAKE_WAYS_MAX; i++)
        CHECK_EQ(fake->way_runs[i], i == way ? 1 : 0);
}

static void the_fastest_plan_of_a_convolution_is_taken(void)
{
    open_convolution(30, 20, 10);
    int descriptors = fake->descriptors;
    CHECK(launches_to_compile(part) > 0);
    CHECK_EQ(fake->descriptors, descriptors);
    costs(10, 20, 30);
    CHECK_EQ(launches_to_compile(part), 0);
    open_slot();
    check_plan(2);
    close_model();
}

static void of_many_plans_six_are_measured(void)
{
    open_convolution(30, 20, 10);
    fake->library_offers = 8;
    for (int i = 3; i < FAKE_WAYS_MAX; i++)
        fake->cost_ms[i] = 8 - i;
    CHECK(launches_to_compile(part) > 0);
    CHECK(fake->way_runs[5] > 0);
    CHECK_EQ(fake->way_runs[6] + fake->way_runs[7], 0);
    open_slot();
    check_plan(5);
    close_model();
}

static void a_plan_that_fails_is_not_taken(void)
{
    open_convolution(30, 20, 10);
    fake->way_fails = 1 + 2;
    open_slot();
    CHECK(fake->way_failed > 0);
    check_plan(1);
    close_model();
}

static void a_convolution_without_time_has_the_librarys_first_plan(void)
{
    open_convolution(400, 10, 20);
    fake->cost_real = 1;
    CHECK_EQ(launches_to_compile(part), 1);
    open_slot();
    fake->cost_real = 0;
    check_plan(0);
    close_model();
}

/* ---- while others serve */
static atomic_bool serving;
static atomic_uint served;

static void *serve(void *arg)
{
    float z[ROWS * OUT];

    (void)arg;
    be->part_enter(part);
    while (atomic_load(&serving)) {
        run_it(z);
        CHECK(memcmp(z, y, sizeof(y)) == 0);
        (void)atomic_fetch_add(&served, 1);
    }
    return NULL;
}

/* For so many rows. */
static struct exe_info info_of_rows(uint64_t rows)
{
    struct shape_key key = {.n = 1, .dim = {rows}};
    struct arena a;
    struct bound *other = NULL;
    struct exe *made = NULL;
    struct exe_info info;

    arena_init(&a);
    CHECK_EQ(graph_bind(g, &key, &a, &other, &err), 0);
    struct compile_args args = {.model = "test", .bound = other};
    CHECK_EQ(be->compile(part, &args, &made, &err), 0);
    be->exe_info(made, &info);
    be->release(made);
    arena_done(&a);
    return info;
}

/* true: it may be faster compiled anew. */
static bool compile_rows(uint64_t rows)
{
    return info_of_rows(rows).unraced;
}

static pthread_t executor;
static void serve_begin(void)
{
    open_slot();
    run_it(y);
    atomic_store(&served, 0);
    atomic_store(&serving, true);
    CHECK_EQ(pthread_create(&executor, NULL, serve, NULL), 0);
    while (atomic_load(&served) == 0)
        (void)usleep(1000);
}

static void serve_end(void)
{
    atomic_store(&serving, false);
    (void)pthread_join(executor, NULL);
    close_model();
}

static void a_partition_serves_while_models_are_compiled_for_it(void)
{
    open_costly(0, 0, 0);
    serve_begin();
    for (uint64_t rows = ROWS + 1; rows < ROWS + 20; rows++)
        CHECK(compile_rows(rows));
    serve_end();
}

/* Each of two products takes the library long to find a way for; runs take a moment. */
static void no_run_waits_for_a_library_that_looks_for_a_way(void)
{
    open_costly(0, 0, 0);
    serve_begin();
    fake->slow_ms = 300;
    fake->slow_call = "cublasLtMatmulAlgoGetHeuristic";
    unsigned before = atomic_load(&served);
    (void)compile_rows(ROWS + 1);
    CHECK(atomic_load(&served) > before + 10);
    fake->slow_call = NULL;
    serve_end();
}

/* Compiled in the workshop, run in the partition. */
static void works_beside_an_executor(const char *mode)
{
    open_costly_in(mode, 30, 10, 20);
    be->part_enter(part);
    open_slot();
    CHECK(part->workshop);
    check_way(1);
    close_model();
}

static void what_is_compiled_beside_an_executor_runs(void)
{
    works_beside_an_executor("green");
}

static void what_is_compiled_beside_an_executor_runs_in_mode_mps(void)
{
    works_beside_an_executor("mps");
}

static void what_is_compiled_beside_an_executor_runs_in_mode_shared(void)
{
    works_beside_an_executor("shared");
}

static void no_memory_for_a_place_to_compile_in_leaves_the_partition_itself(void)
{
    open_costly(0, 0, 0);
    fail("cuGreenCtxCreate", CUDA_ERROR_OUT_OF_MEMORY);
    serve_begin();
    struct exe_info info = info_of_rows(ROWS + 1);
    CHECK_EQ(fake->fail_times, 0);
    CHECK(strstr(info.note, "runs waited while it was compiled: "));
    CHECK(strstr(info.note, "memory"));
    info = info_of_rows(ROWS + 2); /* there is some by now */
    CHECK_STR(info.note, "");
    serve_end();
}

static void what_serves_is_not_measured_on_and_a_later_exe_is(void)
{
    open_costly(30, 10, 20);
    open_slot();
    run_it(y);
    memset(fake->way_runs, 0, sizeof(fake->way_runs));
    CHECK(compile_rows(ROWS + 1));
    CHECK_EQ(launches(), 0);
    atomic_store(&dev->ran_us, 1); /* long ago */
    CHECK(!compile_rows(ROWS + 1));
    CHECK(launches() > 0);
    close_model();
}

/* ---- the file: each process is a child of one test */
static int in_child(void (*fn)(void))
{
    int status = -1;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        check_failures = 0;
        fn();
        fflush(stdout);
        exit(check_failures ? 1 : 0);
    }
    (void)waitpid(child, &status, 0);
    return status;
}

static int entry_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void state_new(void)
{
    (void)snprintf(state, sizeof(state), "/tmp/test_choices.XXXXXX");
    assert(mkdtemp(state));
    device_cfg.folder = state;
}

static void state_remove(void)
{
    (void)nftw(state, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
    device_cfg.folder = NULL;
}

/* How many files there are, and one of them. */
static size_t files(char ret[512])
{
    char pattern[64];
    glob_t found;

    (void)snprintf(pattern, sizeof(pattern), "%s/algorithms/*", state);
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    size_t n = found.gl_pathc;
    (void)snprintf(ret, 512, "%s", found.gl_pathv[0]);
    globfree(&found);
    return n;
}

static void measure_first(void)
{
    open_costly(30, 10, 20);
    CHECK(launches_to_compile(part) > 0);
    open_slot();
    check_way(1);
    close_model();
}

static void take_from_the_file(void)
{
    open_costly(10, 20, 30);
    CHECK_EQ(launches_to_compile(part), 0);
    open_slot();
    CHECK(!called("cublasLtMatmulAlgoGetHeuristic"));
    check_way(1);
    close_model();
}

static void measure_anew(void)
{
    open_costly(20, 30, 10);
    CHECK(launches_to_compile(part) > 0);
    open_slot();
    check_way(2);
    close_model();
}

static void with_another_driver(void)
{
    open_fake();
    fake->driver = 7;
    measure_anew();
}

static void on_other_gpus(void)
{
    open_fake();
    fake->major = 10;
    measure_anew();
}

static void a_second_process_takes_it_from_the_file(void)
{
    char path[512];

    state_new();
    CHECK_EQ(in_child(measure_first), 0);
    CHECK_EQ(files(path), 1);
    CHECK_HAS(path, "-sm_90-CUDA-13.0-driver-580.65.06-cuBLASLt-13.1.0-cuDNN-9.19.0");
    CHECK_EQ(in_child(take_from_the_file), 0);
    state_remove();
}

static void another_driver_or_device_reads_none_of_it(void)
{
    char path[512];

    state_new();
    CHECK_EQ(in_child(measure_first), 0);
    CHECK_EQ(in_child(with_another_driver), 0);
    CHECK_EQ(in_child(on_other_gpus), 0);
    CHECK_EQ(files(path), 3);
    CHECK_EQ(in_child(take_from_the_file), 0);
    state_remove();
}

static off_t size_of(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_size : -1;
}

static void flip(const char *path, off_t at)
{
    char c = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    CHECK_EQ(pread(fd, &c, 1, at), 1);
    c ^= 1;
    CHECK_EQ(pwrite(fd, &c, 1, at), 1);
    (void)close(fd);
}

static void a_file_that_is_cut_off_or_wrong_is_measured_anew(void)
{
    static const int cuts[] = {0, 10, 70, 100};
    char path[512];

    state_new();
    CHECK_EQ(in_child(measure_first), 0);
    CHECK_EQ(files(path), 1);
    off_t whole = size_of(path);
    for (size_t i = 0; i <= ARRAY_SIZE(cuts); i++) {
        CHECK_EQ(truncate(path, i < ARRAY_SIZE(cuts) ? cuts[i] : whole - 1), 0);
        CHECK_EQ(in_child(measure_anew), 0);
        CHECK_EQ(size_of(path), whole);
    }
    for (off_t at = 0; at < whole; at += 13) {
        flip(path, at);
        CHECK_EQ(in_child(measure_anew), 0);
        CHECK_EQ(files(path), 1);
    }
    state_remove();
}

static void without_the_files_choices(void)
{
    open_costly(20, 30, 10);
    CHECK(launches_to_compile(part) > 0);
    CHECK_EQ(launches_to_compile(part), 0);
    open_slot();
    close_model();
}

static void plan_first(void)
{
    open_convolution(30, 20, 10);
    CHECK(launches_to_compile(part) > 0);
    open_slot();
    close_model();
}

static void plan_from_the_file(void)
{
    open_convolution(10, 20, 30);
    CHECK_EQ(launches_to_compile(part), 0);
    open_slot();
    check_plan(2);
    close_model();
}

static void plan_of_another_list(void)
{
    open_fake();
    fake->ways_turned = 1;
    open_convolution(30, 10, 20);
    CHECK(launches_to_compile(part) > 0);
    open_slot();
    check_plan(1);
    close_model();
}

static void a_second_process_takes_a_plan_from_the_file(void)
{
    state_new();
    CHECK_EQ(in_child(plan_first), 0);
    CHECK_EQ(in_child(plan_from_the_file), 0);
    state_remove();
}

static void where_the_library_proposes_something_else_it_is_measured_anew(void)
{
    state_new();
    CHECK_EQ(in_child(plan_first), 0);
    CHECK_EQ(in_child(plan_of_another_list), 0);
    state_remove();
}

static void a_folder_that_cannot_be_written_leaves_it_in_memory(void)
{
    device_cfg.folder = "/proc/nowhere";
    CHECK_EQ(in_child(without_the_files_choices), 0);
    device_cfg.folder = NULL;
    CHECK_EQ(in_child(without_the_files_choices), 0);
}

int main(void)
{
    ALONE(the_fastest_way_is_taken_and_not_the_librarys_first);
    ALONE(what_costs_little_is_launched_many_times_between_two_events);
    ALONE(what_nobody_keeps_is_not_measured);
    ALONE(a_device_that_captures_nothing_is_measured_launch_by_launch);
    ALONE(a_product_is_measured_once_for_all_partitions_of_a_size);
    ALONE(another_number_of_sms_has_a_choice_of_its_own);
    ALONE(batch_invariant_models_measure_nothing);
    ALONE(a_way_that_fails_is_not_taken);
    ALONE(where_all_ways_fail_the_first_is_taken_and_the_slot_says_so);
    ALONE(without_memory_to_measure_in_the_first_is_taken_and_not_kept);
    ALONE(an_error_that_ends_the_process_ends_compiling);
    ALONE(what_measuring_takes_is_given_back);
    ALONE(what_takes_too_long_is_not_measured_and_the_first_is_taken);
    ALONE(the_time_is_for_all_products_of_a_model);
    ALONE(the_fastest_plan_of_a_convolution_is_taken);
    ALONE(of_many_plans_six_are_measured);
    ALONE(a_plan_that_fails_is_not_taken);
    ALONE(a_convolution_without_time_has_the_librarys_first_plan);
    ALONE(a_partition_serves_while_models_are_compiled_for_it);
    ALONE(no_run_waits_for_a_library_that_looks_for_a_way);
    ALONE(what_is_compiled_beside_an_executor_runs);
    ALONE(what_is_compiled_beside_an_executor_runs_in_mode_mps);
    ALONE(what_is_compiled_beside_an_executor_runs_in_mode_shared);
    ALONE(no_memory_for_a_place_to_compile_in_leaves_the_partition_itself);
    ALONE(what_serves_is_not_measured_on_and_a_later_exe_is);
    ALONE(a_second_process_takes_it_from_the_file);
    ALONE(another_driver_or_device_reads_none_of_it);
    ALONE(a_file_that_is_cut_off_or_wrong_is_measured_anew);
    ALONE(a_second_process_takes_a_plan_from_the_file);
    ALONE(where_the_library_proposes_something_else_it_is_measured_anew);
    ALONE(a_folder_that_cannot_be_written_leaves_it_in_memory);
    return check_end();
}
