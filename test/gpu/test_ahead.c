/* The engine with the plug-in on the fake driver: two runs of a gpu-let under way, one behind the
 * other.  That streams touch nothing too early is a rule of the fake's. */
#include "test/unit/engine_rig.h"

#define fake gpu /* that of the engine's tests is another */
#include "fake_rig.h"

#define ROWS 4
#define COLS 2000 /* 32 KB a run: worth streams of their own */
#define RUNS 6

/* Streams of a partition, by the order in which they are opened: after that of runs. */
enum { RUN, OUT, IN };

static struct request q[RUNS];
static unsigned n_back[RUNS];

/* ---- the plug-in, watched */
static struct backend watched;
static _Atomic int submits;
static _Atomic bool looked; /* the test has read the trace, which now goes on */
/* What the builder measures while nothing comes would be in the trace, too: it waits. */
static _Atomic bool builder_waits, builder_is_there;

static int submit_seen(struct slot *s, unsigned lane, unsigned from, unsigned to,
                       const struct io *io, ticket *ret)
{
    (void)looked;
    int r = be->submit(s, lane, from, to, io, ret);

    submits++;
    return r;
}

static int part_open_seen(struct device *dev, const struct granules *set, struct part **ret,
                          uint32_t *ret_units, struct err *why)
{
    while (builder_waits) {
        builder_is_there = true;
        fake_sleep(1000);
    }
    return be->part_open(dev, set, ret, ret_units, why);
}

static struct rig open_engine(const char *mode)
{
    struct engine_config cfg = {.backend = &watched,
                                .policy = policy_at(0),
                                .host_bytes = 64u << 20,
                                .queue_max = 64,
                                .max_batch = ROWS,
                                .timeout_us = 60 * USEC_PER_SEC,
                                .step_bound_us = 60 * USEC_PER_SEC};
    char *dir = fake_model("ahead", "Add", "x,x", "batch,2000");
    struct engine_view *v = NULL;
    struct rig r = {0};

    open_fake();
    open_plugin();
    watched = *be;
    watched.submit = submit_seen;
    watched.part_open = part_open_seen;
    (void)snprintf(cfg.device.partition_mode, sizeof(cfg.device.partition_mode), "%s", mode);
    CHECK_EQ(engine_new(&cfg, &r.e, &err), 0);
    CHECK_EQ(cq_new(&r.cq), 0);
    rig_load_ok(&r, "m", 1, dir);
    builder_waits = true;
    for (unsigned i = 0; i < 1000 && !builder_is_there; i++)
        fake_sleep(1000);                    /* or it has nothing to measure */
    CHECK_EQ(engine_view(r.e, &v, &err), 0); /* under the builder's lock: it is done, too */
    engine_view_free(v);
    forget_calls();
    free(dir);
    return r;
}

static void submit(struct rig *r, unsigned from, unsigned n, int32_t priority)
{
    for (unsigned i = from; i < from + n; i++) {
        CHECK_EQ(rig_fill(r, &q[i], "m", ROWS, COLS, (float)i), 0);
        q[i].priority = priority;
        CHECK_EQ(engine_submit(r->e, &q[i]), 0);
    }
}

static void collect(struct rig *r, unsigned n)
{
    struct cq_item *it;

    looked = true;
    __atomic_store_n(&fake->held, 0, __ATOMIC_RELAXED);
    for (unsigned k = 0; k < n && (it = rig_next(r, WAIT_MS)); k++)
        for (unsigned i = 0; i < n; i++)
            n_back[i] += it == &q[i].item;
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(n_back[i], 1);
        CHECK(rig_right(&q[i]));
        rig_drop(&q[i]);
    }
}

static void end(struct rig *r)
{
    builder_waits = false;
    rig_free(r);
    check_clean();
    fake_cleanup();
}

static unsigned count(const char *call)
{
    unsigned n = 0;

    for (const char *p = fake->trace; (p = strstr(p, call)); p++)
        n++;
    return n;
}

static void until_submits(int n)
{
    for (unsigned i = 0; i < 20000 && submits < n; i++)
        fake_sleep(1000);
    fake_sleep(20000); /* would there be more? */
    CHECK_EQ(submits, n);
}

/* Two are under way; of the second all but the launches is on other streams. */
static void what_is_next_travels_while_a_run_is_under_way(void)
{
    char line[40];
    struct rig r = open_engine("green");

    fake->held = 1; /* no run ends */
    submit(&r, 0, RUNS, 0);
    until_submits(2);
    CHECK_EQ(count("cuMemcpyHtoDAsync"), 2);
    int run_on = atoi(strstr(fake->trace, "cuMemcpyHtoDAsync ") + 18);
    const char *second = strstr(strstr(fake->trace, "cuLaunchHostFunc"), "cuMemcpyHtoDAsync ");
    CHECK_EQ(atoi(second + 18), run_on + IN);
    (void)snprintf(line, sizeof(line), "cuStreamWaitEvent %d\n", run_on + IN);
    CHECK(!strstr(fake->trace, line)); /* they wait for nothing */
    (void)snprintf(line, sizeof(line), "cuMemcpyDtoHAsync %d\n", run_on + OUT);
    CHECK(strstr(second, line) != NULL);
    (void)snprintf(line, sizeof(line), "cuLaunchHostFunc %d\n", run_on + OUT);
    CHECK(strstr(second, line) != NULL);
    collect(&r, RUNS);
    end(&r);
}

/* All that the executor calls, in the time of many. */
static void nothing_is_made_while_requests_are_served(void)
{
    static const char *const may[] = {"cuCtxSetCurrent",   "cuEventRecord",     "cuStreamWaitEvent",
                                      "cuMemsetD8Async",   "cuMemcpyHtoDAsync", "cuGraphLaunch",
                                      "cuLaunchKernel",    "cuMemcpyDtoHAsync", "cuLaunchHostFunc",
                                      "cuEventElapsedTime"};
    struct rig r = open_engine("green");

    submit(&r, 0, RUNS, 0);
    collect(&r, RUNS);
    CHECK_EQ(submits, RUNS);
    for (const char *p = fake->log; *p; p += strcspn(p, "\n") + 1) {
        bool known = false;
        for (size_t i = 0; i < ARRAY_SIZE(may); i++)
            known |= strncmp(p, may[i], strcspn(p, "\n")) == 0;
        CHECK(known);
    }
    end(&r);
}

/* In `shared` they are on streams of two levels; the second still follows. */
static void an_urgent_run_goes_ahead_and_not_beside(void)
{
    struct rig r = open_engine("shared");

    fake->held = 1;
    submit(&r, 0, 1, 0);
    until_submits(1);
    const char *second = fake->trace + strlen(fake->trace);
    looked = true;
    submit(&r, 1, RUNS - 1, 1);
    until_submits(2);
    CHECK(strncmp(second, "cuStreamWaitEvent ", 18) == 0);
    int waits = atoi(second + 18), runs = atoi(strstr(second, "cuMemsetD8Async ") + 16);
    CHECK_EQ(waits, runs);
    collect(&r, RUNS);
    end(&r);
}

int main(void)
{
    ALONE(what_is_next_travels_while_a_run_is_under_way);
    ALONE(nothing_is_made_while_requests_are_served);
    ALONE(an_urgent_run_goes_ahead_and_not_beside);
    return check_end();
}
