/* The sim backend: what runs take, alone and beside others, and what can go wrong.
 *
 * Times are the device's own: it keeps them exactly, however late this process is.  A run of `long`
 * takes 100 ms alone, one of `short` 50; a neighbour makes either half as long again. */
#include "../graph_build.h"
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/sim.h>
#include <unistd.h>

#define MSEC_NS 1000000

static const char problem_text[] =
    "{\"version\": 1,"
    " \"types\": [{\"name\": \"four\", \"granules\": 4, \"granule_units\": 2,"
    "   \"interference\": {\"kind\": \"gpulet\", \"c\": [0, 0, 0, 0, 1.5]}},"
    "  {\"name\": \"queue\", \"granules\": 4, \"granule_units\": 2, \"in_turn\": true}],"
    " \"devices\": [{\"type\": \"four\", \"names\": [\"left\", \"right\"]},"
    "               {\"type\": \"queue\", \"names\": [\"third\"]}],"
    " \"models\": ["
    "  {\"name\": \"long\", \"max_batch\": 4, \"profile\": {\"four\":"
    "    {\"batch\": [1, 4], \"units\": [2, 4], \"run_ms\": [[100, 160], [50, 80]]}, \"queue\": "
    "null}},"
    "  {\"name\": \"short\", \"max_batch\": 4, \"profile\": {"
    "    \"four\": {\"batch\": [1], \"units\": [2], \"run_ms\": [[50]]},"
    "    \"queue\": {\"batch\": [1], \"units\": [2], \"run_ms\": [[50]]}}},"
    "  {\"name\": \"wide\", \"max_batch\": 4, \"profile\": {\"four\":"
    "    {\"batch\": [1], \"units\": [2, 4, 8], \"run_ms\": [[null], [60], [30]]}, \"queue\": "
    "null}},"
    "  {\"name\": \"none\", \"max_batch\": 4, \"profile\": {\"four\": null, \"queue\": null}}]%s}";

static const struct backend *be = &backend_sim;
static struct backend_config cfg;
static struct device *dev;
static struct arena arena;
static struct bound *bound[5]; /* by rows */
static struct err err;

static void write_file(const char *text)
{
    FILE *f = fopen(cfg.sim_file, "w");

    assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void write_problem(const char *sim)
{
    char text[4096];

    (void)snprintf(text, sizeof(text), problem_text, sim);
    write_file(text);
}

static void open_device_at(unsigned index, const char *sim)
{
    write_problem(sim);
    int r = be->dev_open(&cfg, index, &dev, &err);
    if (r < 0)
        printf("# %s\n", err.msg);
    assert(r == 0);
}

static void open_device(const char *sim)
{
    open_device_at(0, sim);
}

/* y = x, of so many rows. */
static const struct bound *identity(uint32_t rows)
{
    struct shape_key key = {.n = 1, .dim = {rows}};

    if (!bound[0]) {
        start(17);
        output(op(OP_Identity, "", 1, input("x", "B 2")));
        g->batch_sym = 0;
        CHECK_EQ(graph_infer(g, &err), 0);
        arena_init(&arena);
        bound[0] = (struct bound *)1;
    }
    if (!bound[rows])
        CHECK_EQ(graph_bind(g, &key, &arena, &bound[rows], &err), 0);
    return bound[rows];
}

/* A partition with one model in it. */
struct let {
    struct part *part;
    struct exe *exe;
    struct slot *slot;
    float x[8], y[8];
};

/* One more model in a partition. */
static struct let model_add(struct part *part, const char *model, uint32_t rows)
{
    struct compile_args args = {
        .model = model, .bound = identity(rows), .precision = PRECISION_FP32};
    struct let l = {.part = part};

    CHECK_EQ(be->compile(l.part, &args, &l.exe, &err), 0);
    CHECK_EQ(be->slot_open(l.exe, &l.slot, &err), 0);
    return l;
}

static void model_close(struct let *l)
{
    be->slot_close(l->slot);
    be->release(l->exe);
}

static struct let let_open(unsigned granule, unsigned n, const char *model, uint32_t rows)
{
    struct granules set = {{0}};
    struct part *part;
    uint32_t units;

    for (unsigned i = 0; i < n; i++)
        granules_add(&set, granule + i);
    CHECK_EQ(be->part_open(dev, &set, &part, &units, &err), 0);
    CHECK_EQ(units, 2 * n);
    be->part_enter(part);
    return model_add(part, model, rows);
}

static void let_close(struct let *l)
{
    model_close(l);
    be->part_close(l->part);
}

static int let_submit_lane(struct let *l, unsigned lane)
{
    const void *in[] = {l->x};
    void *out[] = {l->y};
    struct io_part p = {.rows = 1, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &p};
    ticket t;

    return be->submit(l->slot, lane, 0, 1, &io, &t);
}

static int let_submit(struct let *l)
{
    return let_submit_lane(l, 0);
}

/* The next end, or rc 1 if there is none within the time. */
static struct done let_wait(struct let *l, usec_t us)
{
    struct done d = {.rc = 1};

    (void)be->wait(l->part, clock_now_us() + us, &d, 1);
    return d;
}

static void let_takes(struct let *l, double ms)
{
    struct done d = let_wait(l, 10 * USEC_PER_SEC);

    CHECK_EQ(d.rc, 0);
    CHECK_EQ((d.run_ns + 500) / 1000, (uint64_t)(ms * 1000)); /* to the microsecond */
}

static void a_run_takes_what_the_profile_says(void)
{
    static const struct {
        unsigned granules;
        uint32_t rows;
        double ms;
    } at[] = {{1, 1, 100}, {2, 1, 50}, {1, 4, 160}, {1, 2, 120}, {2, 4, 80}};

    open_device("");
    for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
        struct let l = let_open(0, at[i].granules, "long", at[i].rows);
        uint64_t ns;
        CHECK_EQ(be->probe(l.slot, 0, 1, 1, &ns, &err), 0);
        CHECK_EQ((ns + 500) / 1000, (uint64_t)(at[i].ms * 1000));
        let_close(&l);
    }
    be->dev_close(dev);
}

static void a_run_is_told_when_it_has_ended_and_not_before(void)
{
    open_device("");
    struct let l = let_open(0, 1, "short", 1);
    usec_t from_us = clock_now_us();

    CHECK_EQ(let_submit(&l), 0);
    CHECK_EQ(let_wait(&l, 1000).rc, 1);
    let_takes(&l, 50);
    CHECK(clock_now_us() >= from_us + 50000);
    let_close(&l);
    be->dev_close(dev);
}

static void runs_of_a_lane_follow_each_other(void)
{
    open_device("");
    struct let l = let_open(0, 1, "short", 1);
    usec_t from_us = clock_now_us();

    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(let_submit(&l), 0);
    for (unsigned i = 0; i < 3; i++)
        let_takes(&l, 50);
    CHECK(clock_now_us() >= from_us + 150000);
    let_close(&l);
    be->dev_close(dev);
}

/* first, and 50 ms of `short` in another lane, which is beside it all the time: half as slow again.
 */
static void two_lanes_take(const char *first, uint32_t rows, double ms)
{
    open_device("");
    struct let a = let_open(0, 2, first, rows), b = model_add(a.part, "short", 1);

    CHECK_EQ(let_submit_lane(&a, 0), 0);
    CHECK_EQ(let_submit_lane(&b, 1), 0);
    let_takes(&a, 75);
    let_takes(&a, ms);
    model_close(&b);
    let_close(&a);
    be->dev_close(dev);
}

/* 80 ms alone, 160 on half of the units, 240 so disturbed: 75 of those are 25 of its 80. */
static void runs_of_two_lanes_share_the_units(void)
{
    two_lanes_take("long", 4, 130);
}

/* 60 ms alone, on half of the units it does not run: 120 in turn, 180 so disturbed. */
static void on_too_few_units_a_run_has_all_of_them_for_a_part_of_the_time(void)
{
    two_lanes_take("wide", 1, 110);
}

static void a_hung_run_leaves_the_other_lanes_their_part(void)
{
    open_device(", \"sim\": {\"faults\": [{\"kind\": \"hang\", \"model\": \"short\"}]}");
    struct let l = let_open(0, 2, "short", 1);

    CHECK_EQ(let_submit_lane(&l, 0), 0);
    CHECK_EQ(let_submit_lane(&l, 1), 0);
    let_takes(&l, 75);
    CHECK_EQ(let_wait(&l, 1000).rc, 1);
    be->abort(l.part);
    CHECK_EQ(let_wait(&l, 0).rc, -ENODEV);
    let_close(&l);
    be->dev_close(dev);
}

static void a_probe_has_the_partition_for_itself(void)
{
    open_device("");
    struct let l = let_open(0, 2, "short", 1);
    uint64_t ns;

    CHECK_EQ(let_submit_lane(&l, 1), 0);
    CHECK_EQ(be->probe(l.slot, 0, 1, 1, &ns, &err), 0);
    CHECK_EQ((ns + 500) / 1000, 50000);
    let_takes(&l, 50);
    let_close(&l);
    be->dev_close(dev);
}

static void lanes_follow_each_other_where_the_file_says_in_turn(void)
{
    open_device_at(2, "");
    struct let l = let_open(0, 2, "short", 1);

    CHECK_EQ(let_submit_lane(&l, 0), 0);
    CHECK_EQ(let_submit_lane(&l, 1), 0);
    let_takes(&l, 50);
    let_takes(&l, 50);
    let_close(&l);
    be->dev_close(dev);
}

/* Half as slow again for 75 of its milliseconds, in which it does 50 of its work. */
static void a_neighbour_slows_a_run_for_as_long_as_it_runs(void)
{
    open_device("");
    struct let a = let_open(0, 1, "long", 1), b = let_open(1, 1, "short", 1);

    CHECK_EQ(let_submit(&a), 0);
    CHECK_EQ(let_submit(&b), 0);
    let_takes(&b, 75);
    let_takes(&a, 125);
    let_close(&a);
    let_close(&b);
    be->dev_close(dev);
}

static void partitions_of_the_same_granules_take_turns(void)
{
    open_device("");
    struct let a = let_open(0, 1, "long", 1), b = let_open(0, 1, "long", 1);

    CHECK_EQ(let_submit(&a), 0);
    CHECK_EQ(let_submit(&b), 0);
    struct done first = let_wait(&a, 10 * USEC_PER_SEC), second = let_wait(&b, 10 * USEC_PER_SEC);
    CHECK_EQ(first.rc | second.rc, 0);
    CHECK(first.run_ns > 200 * MSEC_NS); /* 300 less what one was alone; half as much alone */
    CHECK_EQ((first.run_ns + 500) / 1000, (second.run_ns + 500) / 1000);
    let_close(&a);
    let_close(&b);
    be->dev_close(dev);
}

static void a_model_that_does_not_run_there_is_refused(void)
{
    struct compile_args args = {.model = "none", .bound = identity(1), .precision = PRECISION_FP32};
    struct exe *x;

    open_device("");
    struct let l = let_open(0, 1, "short", 1);
    CHECK_EQ(be->compile(l.part, &args, &x, &err), -ENOTSUP);
    CHECK_HAS(err.msg, "1 rows do not run on 2 units of device 'left'");
    let_close(&l);
    be->dev_close(dev);
}

static void a_run_that_hangs_can_be_given_up(void)
{
    open_device(
        ", \"sim\": {\"faults\": [{\"kind\": \"hang\", \"model\": \"short\", \"run\": 2}]}");
    struct let l = let_open(0, 1, "short", 1), other = let_open(1, 1, "short", 1);

    CHECK_EQ(let_submit(&l), 0);
    let_takes(&l, 50);
    CHECK_EQ(let_submit(&l), 0);
    CHECK_EQ(let_submit(&l), 0); /* behind it */
    CHECK_EQ(let_wait(&l, 200000).rc, 1);
    CHECK_EQ(be->fault(l.part), FAULT_NONE);
    be->abort(l.part);
    CHECK_EQ(be->fault(l.part), FAULT_PART);
    CHECK_EQ(let_wait(&l, 0).rc, -ENODEV);
    CHECK_EQ(let_wait(&l, 0).rc, -ENODEV);
    CHECK_EQ(let_submit(&l), -ENODEV);
    let_close(&l);
    l = let_open(0, 1, "short", 1);
    CHECK_EQ(let_submit(&l), 0);
    let_takes(&l, 50);
    CHECK_EQ(let_submit(&other), 0);
    let_takes(&other, 50);
    let_close(&other);
    let_close(&l);
    be->dev_close(dev);
}

static void a_partition_is_lost_at_its_moment_and_the_next_one_is_not(void)
{
    open_device(", \"sim\": {\"faults\": [{\"kind\": \"lost\", \"device\": \"left\", "
                "\"granule\": 1, \"after_ms\": 20}]}");
    struct let l = let_open(1, 1, "long", 1), other = let_open(2, 1, "short", 1);

    CHECK_EQ(let_submit(&l), 0);
    CHECK_EQ(let_submit(&other), 0);
    CHECK_EQ(let_wait(&l, 10 * USEC_PER_SEC).rc, -ENODEV);
    CHECK_EQ(be->fault(l.part), FAULT_PART);
    CHECK_EQ(be->fault(other.part), FAULT_NONE);
    CHECK_EQ(let_wait(&other, 10 * USEC_PER_SEC).rc, 0);
    let_close(&l);
    l = let_open(1, 1, "short", 1);
    CHECK_EQ(let_submit(&l), 0);
    let_takes(&l, 50);
    let_close(&l);
    let_close(&other);
    be->dev_close(dev);
}

static void a_device_is_lost_with_all_its_partitions_and_no_other_device(void)
{
    struct device *left, *right;

    open_device("");
    left = dev;
    CHECK_EQ(be->dev_open(&cfg, 1, &right, &err), 0);
    struct let a = let_open(0, 1, "long", 1), b = let_open(1, 1, "long", 1);
    dev = right;
    struct let c = let_open(0, 1, "short", 1);

    CHECK_EQ(let_submit(&a), 0);
    CHECK_EQ(let_submit(&c), 0);
    struct sim_fault f = {.kind = SIM_GONE, .device = "left"};
    CHECK_EQ(sim_inject(&f, &err), 0);
    CHECK_EQ(let_wait(&a, 10 * USEC_PER_SEC).rc, -ENODEV);
    CHECK_EQ(be->fault(a.part), FAULT_DEVICE);
    CHECK_EQ(be->fault(b.part), FAULT_DEVICE); /* it ran nothing, and a wait would have told */
    CHECK_EQ(let_submit(&b), -ENODEV);
    let_takes(&c, 50);
    let_close(&a);
    let_close(&b);
    struct granules set = {{1}};
    struct part *p;
    uint32_t units;
    CHECK_EQ(be->part_open(left, &set, &p, &units, &err), -ENODEV);
    CHECK_HAS(err.msg, "'left' is lost");
    let_close(&c);
    be->dev_close(left);
    be->dev_close(right);
}

static void a_wait_ends_when_the_partition_is_lost(void)
{
    open_device(", \"sim\": {\"faults\": [{\"kind\": \"gone\", \"device\": \"left\", "
                "\"after_ms\": 20}]}");
    struct let l = let_open(0, 1, "short", 1);
    usec_t from_us = clock_now_us();

    CHECK_EQ(let_wait(&l, 60 * USEC_PER_SEC).rc, 1);
    CHECK(clock_now_us() < from_us + 60 * USEC_PER_SEC);
    CHECK_EQ(be->fault(l.part), FAULT_DEVICE);
    let_close(&l);
    be->dev_close(dev);
}

static void a_failed_run_fails_alone(void)
{
    struct sim_fault f = {.kind = SIM_FAIL, .model = "short", .run = 2};

    open_device("");
    struct let l = let_open(0, 1, "short", 1);
    CHECK_EQ(sim_inject(&f, &err), 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(let_submit(&l), 0);
    CHECK_EQ(let_wait(&l, 10 * USEC_PER_SEC).rc, 0);
    CHECK_EQ(let_wait(&l, 10 * USEC_PER_SEC).rc, -EIO);
    CHECK_EQ(let_wait(&l, 10 * USEC_PER_SEC).rc, 0);
    let_close(&l);
    f = (struct sim_fault){.kind = SIM_LOST, .device = "middle"};
    CHECK_EQ(sim_inject(&f, &err), -ENOENT);
    CHECK_HAS(err.msg, "'middle'");
    f = (struct sim_fault){.kind = SIM_LOST, .device = "left", .granule = 4};
    CHECK_EQ(sim_inject(&f, &err), -EINVAL);
    CHECK_HAS(err.msg, "`granule` is 4, there are 4");
    be->dev_close(dev);
}

static void a_file_that_is_wrong_is_refused_by_path_and_value(void)
{
    static const char *const wrong[][2] = {
        {", \"sim\": {\"faults\": [{\"kind\": \"cold\", \"model\": \"a\"}]}",
         "sim.faults[0].kind is \"cold\""},
        {", \"sim\": {\"faults\": [{\"kind\": \"lost\"}]}", "either `model` or `device`"},
        {", \"sim\": {\"faults\": [{\"kind\": \"lost\", \"device\": \"up\"}]}", "sim.faults[0]"},
        {", \"sim\": {\"faults\": [{\"kind\": \"lost\", \"device\": \"left\", \"granule\": 9}]}",
         "`granule` is 9, there are 4"},
        {", \"sim\": {\"lunch_ms\": 1}", "sim.lunch_ms is 1"},
        {", \"sim\": {\"flops_per_s\": 0}", "sim.flops_per_s is 0"},
        {", \"sim\": {\"ahead_ms\": -1}", "sim.ahead_ms is -1"},
        {", \"sim\": {\"echo\": [1]}", "sim.echo[0] is 1"},
    };
    struct device_info info[3];
    size_t n;

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        write_problem(wrong[i][0]);
        CHECK_EQ(be->devices(&cfg, info, 3, &n, &err), -EINVAL);
        CHECK_HAS(err.msg, wrong[i][1]);
        CHECK_HAS(err.msg, cfg.sim_file);
    }
    write_problem("");
    CHECK_EQ(be->devices(&cfg, info, 1, &n, &err), -EINVAL);
    CHECK_HAS(err.msg, "3 devices, the limit is 1");
    CHECK_EQ(be->devices(&cfg, info, 3, &n, &err), 0);
    CHECK_EQ(n, 3);
    CHECK_STR(info[1].name, "right");
    CHECK_EQ(info[1].units, 8);
    CHECK(!info[1].in_turn && info[2].in_turn);
    CHECK_EQ(info[0].ahead_us, 0); /* where the file does not say it, one run at a time */
    write_problem(", \"sim\": {\"ahead_ms\": 0.2}");
    CHECK_EQ(be->devices(&cfg, info, 3, &n, &err), 0);
    CHECK_EQ(info[0].ahead_us, 200);
    write_file("{\"version\": 1, \"types\": [{\"name\": \"t\", \"granules\": 1}]}");
    CHECK_EQ(be->devices(&cfg, info, 2, &n, &err), -ENODEV);
    CHECK_HAS(err.msg, "nothing in `devices`");
}

int main(void)
{
    (void)snprintf(cfg.sim_file, sizeof(cfg.sim_file), "/tmp/gpulet-test-sim-XXXXXX");
    int fd = mkstemp(cfg.sim_file);
    assert(fd >= 0 && close(fd) == 0);
    RUN(a_run_takes_what_the_profile_says);
    RUN(a_run_is_told_when_it_has_ended_and_not_before);
    RUN(runs_of_a_lane_follow_each_other);
    RUN(runs_of_two_lanes_share_the_units);
    RUN(on_too_few_units_a_run_has_all_of_them_for_a_part_of_the_time);
    RUN(a_hung_run_leaves_the_other_lanes_their_part);
    RUN(a_probe_has_the_partition_for_itself);
    RUN(lanes_follow_each_other_where_the_file_says_in_turn);
    RUN(a_neighbour_slows_a_run_for_as_long_as_it_runs);
    RUN(partitions_of_the_same_granules_take_turns);
    RUN(a_model_that_does_not_run_there_is_refused);
    RUN(a_run_that_hangs_can_be_given_up);
    RUN(a_partition_is_lost_at_its_moment_and_the_next_one_is_not);
    RUN(a_device_is_lost_with_all_its_partitions_and_no_other_device);
    RUN(a_wait_ends_when_the_partition_is_lost);
    RUN(a_failed_run_fails_alone);
    RUN(a_file_that_is_wrong_is_refused_by_path_and_value);
    (void)unlink(cfg.sim_file);
    graph_free(g);
    arena_done(&arena);
    return check_end();
}
