/* Two runs of a gpu-let under way, one behind the other, on a simulated device that takes the next
 * run ahead.  Times are lower bounds, or the device's own: it keeps them however late we are. */
#include "test/unit/engine_rig.h"
#include <gpulet/sim.h>

#define MSEC 1000
#define RUN_US (20 * MSEC)
#define LONG_US (100 * MSEC)
#define INPUTS_US (4 * MSEC)
#define AHEAD_US (15 * MSEC)
#define LONG_AHEAD_US (90 * MSEC) /* where it must go ahead though the executor is let in late */
#define MOST 16

static char *dir;

/* ---- the sim backend, watched */
static struct {
    _Atomic int out, most_out, ahead;    /* runs handed over and not taken; ahead: behind another */
    _Atomic int slots, exes, slots_made; /* open now; ever */
    _Atomic int begun, submits;          /* calls of submit(), and those that are over */
    _Atomic unsigned lanes;              /* bits of all that were used */
    _Atomic bool no_second;              /* there is memory for one slot of each exe */
    _Atomic int most_slots;              /* there is memory for so many slots; 0: for all */
    _Atomic bool gate, at_gate;          /* submit() does not return; the executor is in it */
    _Atomic bool half;                   /* probes take half as long as runs */
    _Atomic int bad_value;               /* an input that begins with it cannot be run; 0: none */
    usec_t handed_us[4 * MOST];
    ticket bad[4 * MOST];
    /* Of one gpu-let alone: no end is told before hold_us. */
    _Atomic bool holds;
    _Atomic usec_t hold_us;
    _Atomic(struct part *) part;
    struct done held[MAX_LANES];
    size_t n_held;
    const struct exe *last; /* builder: that a slot was opened of */
} seen;
static struct backend watched;

static void info_seen(const struct exe *x, struct exe_info *ret)
{
    backend_sim.exe_info(x, ret);
    ret->slot_bytes = 64;
}

static int compile_seen(struct part *p, const struct compile_args *args, struct exe **ret,
                        struct err *err)
{
    int r = backend_sim.compile(p, args, ret, err);

    seen.exes += r == 0;
    return r;
}

static void release_seen(struct exe *x)
{
    backend_sim.release(x);
    seen.exes--;
}

static int slot_open_seen(struct exe *x, struct slot **ret, struct err *err)
{
    bool second = seen.last == x;

    seen.last = x;
    if (second && seen.no_second)
        return err_set(err, -ENOMEM, "there is no memory for a second slot");
    if (seen.most_slots && seen.slots >= seen.most_slots)
        return err_set(err, -ENOMEM, "there is no memory for another slot");
    int r = backend_sim.slot_open(x, ret, err);
    seen.slots += r == 0;
    seen.slots_made += r == 0;
    return r;
}

static void slot_close_seen(struct slot *s)
{
    backend_sim.slot_close(s);
    seen.slots--;
    seen.last = NULL;
}

static int probe_seen(struct slot *s, unsigned from, unsigned to, unsigned n, uint64_t *ret_ns,
                      struct err *err)
{
    int r = backend_sim.probe(s, from, to, n, ret_ns, err);

    for (unsigned i = 0; i < n && seen.half; i++)
        ret_ns[i] /= 2;
    return r;
}

static bool bad_input(const struct io *io)
{
    for (uint32_t i = 0; seen.bad_value && i < io->n_parts; i++)
        if (*(const float *)io->part[i].in[0] == (float)seen.bad_value)
            return true;
    return false;
}

static int submit_seen(struct slot *s, unsigned lane, unsigned from, unsigned to,
                       const struct io *io, ticket *ret)
{
    int k = seen.begun++;

    assert(k < 4 * MOST);
    seen.handed_us[k] = clock_now_us();
    int r = backend_sim.submit(s, lane, from, to, io, ret);
    if (r < 0)
        return r;
    while (seen.gate) {
        seen.at_gate = true;
        fake_sleep(200);
    }
    seen.bad[k] = bad_input(io) ? *ret : 0;
    seen.lanes |= 1u << lane;
    int out = ++seen.out;
    seen.ahead += out > 1;
    seen.most_out = MAX(seen.most_out, out);
    seen.submits++;
    return 0;
}

static int rc_of(const struct done *d)
{
    for (int k = 0; seen.bad_value && k < seen.submits; k++)
        if (seen.bad[k] == d->ticket && d->rc == 0)
            return -EINVAL;
    return d->rc;
}

/* As the backend's, but for ends that are held back. */
static size_t wait_held(struct part *p, usec_t until_us, struct done *done)
{
    seen.part = p;
    usec_t hold_us = seen.hold_us;

    if (hold_us)
        until_us = MIN(until_us, hold_us);
    else if (seen.n_held > 0)
        until_us = 0;
    seen.n_held += backend_sim.wait(p, until_us, seen.held + seen.n_held, MAX_LANES - seen.n_held);
    if (hold_us > clock_now_us()) {
        fake_sleep(MSEC); /* there may be ends that nobody is told of */
        return 0;
    }
    size_t n = seen.n_held;
    memcpy(done, seen.held, n * sizeof(*done));
    seen.n_held = 0;
    return n;
}

static size_t wait_seen(struct part *p, usec_t until_us, struct done *done, size_t max)
{
    size_t n = seen.holds ? wait_held(p, until_us, done) : backend_sim.wait(p, until_us, done, max);

    for (size_t i = 0; i < n; i++)
        done[i].rc = rc_of(&done[i]);
    seen.out -= (int)n;
    return n;
}

static void hold(usec_t us)
{
    seen.hold_us = clock_now_us() + us;
    seen.holds = true;
}

static void let_go(void)
{
    seen.hold_us = 0;
    backend_sim.kick(seen.part);
}

/* ---- */
static const char problem_text[] =
    "{\"version\": 1,"
    " \"types\": [{\"name\": \"t\", \"granules\": %u, \"max_granules\": 1, \"link_bps\": 1e9}],"
    " \"devices\": [{\"type\": \"t\", \"names\": [\"d\"]}],"
    " \"models\": [{\"name\": \"m\", \"max_batch\": 4, \"profile\": {\"t\":"
    "   {\"batch\": [1, 4], \"units\": [1], \"run_ms\": [[20, 20]]%s}}},"
    "  {\"name\": \"long\", \"max_batch\": 4, \"profile\": {\"t\":"
    "   {\"batch\": [1, 4], \"units\": [1], \"run_ms\": [[100, 100]]}}}],"
    " \"sim\": {\"echo\": [\"m\", \"long\"], \"ahead_ms\": %u}}";

static struct rig rig_of(unsigned granules, unsigned ahead_ms, bool inputs)
{
    struct engine_config cfg = {.backend = &watched,
                                .policy = policy_at(0),
                                .host_bytes = 64u << 20,
                                .queue_max = 64,
                                .max_batch = 4,
                                .timeout_us = 10 * USEC_PER_SEC,
                                .step_bound_us = 10 * USEC_PER_SEC};
    char path[] = "/tmp/gpulet-test-ahead-XXXXXX";
    struct rig r = {0};
    struct err err = {0};
    FILE *f = fdopen(mkstemp(path), "w");

    memset(&seen, 0, sizeof(seen));
    memset(&fake, 0, sizeof(fake));
    watched = backend_sim;
    watched.exe_info = info_seen;
    watched.compile = compile_seen;
    watched.release = release_seen;
    watched.slot_open = slot_open_seen;
    watched.slot_close = slot_close_seen;
    watched.probe = probe_seen;
    watched.submit = submit_seen;
    watched.wait = wait_seen;
    assert(f);
    (void)fprintf(f, problem_text, granules, inputs ? ", \"in_bytes\": 1e6" : "", ahead_ms);
    assert(fclose(f) == 0);
    (void)snprintf(cfg.device.sim_file, sizeof(cfg.device.sim_file), "%s", path);
    CHECK_EQ(engine_new(&cfg, &r.e, &err), 0);
    if (err.code)
        printf("# %s\n", err.msg);
    CHECK_EQ(cq_new(&r.cq), 0);
    (void)unlink(path);
    return r;
}

static struct rig rig_sim(unsigned ahead_ms, bool inputs)
{
    return rig_of(1, ahead_ms, inputs);
}

static void end(struct rig *r)
{
    rig_free(r);
    CHECK_EQ(seen.slots, 0);
    CHECK_EQ(seen.exes, 0);
}

static struct request q[MOST];
static unsigned n_back[MOST];

/* So many full batches, each a request. */
static void submit(struct rig *r, const char *model, unsigned from, unsigned n)
{
    for (unsigned i = from; i < from + n; i++) {
        CHECK_EQ(rig_fill(r, &q[i], model, 4, 4, (float)(i * 100 + 1)), 0);
        CHECK_EQ(engine_submit(r->e, &q[i]), 0);
        n_back[i] = 0;
    }
}

/* So many come back, each once. */
static void collect(struct rig *r, unsigned n)
{
    struct cq_item *it;

    for (unsigned k = 0; k < n && (it = rig_next(r, WAIT_MS)); k++)
        for (unsigned i = 0; i < MOST; i++)
            n_back[i] += it == &q[i].item;
}

static bool echoed(const struct request *of)
{
    return of->fate == FATE_DONE && of->out[0].bytes == of->in[0].bytes &&
           memcmp(of->out[0].data, of->in[0].data, of->in[0].bytes) == 0;
}

/* Of requests from `from` on: how many were answered rightly; each came back once. */
static unsigned right(unsigned from, unsigned n)
{
    unsigned n_right = 0;

    for (unsigned i = from; i < from + n; i++) {
        CHECK_EQ(n_back[i], 1);
        n_right += echoed(&q[i]);
    }
    return n_right;
}

static void drop(unsigned from, unsigned n)
{
    for (unsigned i = from; i < from + n; i++)
        rig_drop(&q[i]);
}

static void until_submits(int n)
{
    for (unsigned i = 0; i < 20000 && seen.submits < n; i++)
        fake_sleep(200);
    CHECK(seen.submits >= n);
}

/* The executor is kept in submit() of the first run: what comes meanwhile waits. */
static void submit_first(struct rig *r, const char *model)
{
    watched.abort = NULL; /* however long that is, no run is given up for it */
    seen.gate = true;
    submit(r, model, 0, 1);
    for (unsigned i = 0; i < 20000 && !seen.at_gate; i++)
        fake_sleep(200);
    CHECK(seen.at_gate);
}

static void both_on_one_gpulet(struct rig *r)
{
    struct pin_share both[2] = {{.model = "m"}, {.model = "long"}};
    struct pin_gpulet pin = {.n_shares = 2, .share = both};
    struct job job = {0};

    granules_add(&pin.set, 0);
    engine_plan_pin(r->e, 1, &pin, &job, r->cq);
    CHECK_EQ(rig_job(r, &job), 0);
}

static bool told_of(struct rig *r, const char *what)
{
    struct view_event *event;
    bool told = false;
    uint64_t last;
    struct arena a;
    uint32_t n;

    arena_init(&a);
    CHECK_EQ(engine_events(r->e, 0, &a, &event, &n, &last), 0);
    for (uint32_t i = 0; i < n; i++)
        told |= strstr(event[i].msg, what) != NULL;
    arena_done(&a);
    return told;
}

/* ---- without a gap */
static void full_batches_follow_each_other_without_a_gap(void)
{
    struct rig r = rig_sim(LONG_AHEAD_US / MSEC, false);

    rig_load_ok(&r, "long", 1, dir);
    submit(&r, "long", 0, 8);
    collect(&r, 8);
    CHECK_EQ(right(0, 8), 8);
    CHECK_EQ(seen.submits, 8);
    CHECK(seen.ahead >= 4); /* all but the first, where the executor is let in within 90 ms */
    CHECK_EQ(seen.most_out, 2);
    CHECK_EQ(seen.lanes, 1); /* they follow each other though the device has lanes */
    for (unsigned i = 0; i < 8; i++)
        CHECK(q[i].run_ns / 1000 >= LONG_US - 1 && q[i].run_ns / 1000 <= LONG_US + 1);
    drop(0, 8);
    end(&r);
}

static void no_run_goes_ahead_before_it_is_time(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    submit(&r, "m", 0, 8);
    collect(&r, 8);
    CHECK(seen.handed_us[1] - q[0].start_us >= RUN_US - AHEAD_US);
    for (unsigned i = 2; i < 8; i++)
        CHECK(seen.handed_us[i] - seen.handed_us[i - 2] >= 2 * RUN_US - AHEAD_US);
    CHECK_EQ(right(0, 8), 8);
    drop(0, 8);
    end(&r);
}

static void where_nothing_goes_ahead_one_run_is_under_way_and_there_is_one_slot(void)
{
    struct rig r = rig_sim(0, false);
    struct engine_view *v = NULL;
    struct err err;

    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(seen.slots, seen.exes);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK_EQ(v->model[0].slot_bytes, 3 * 64); /* batches of 1, 2 and 4 */
    engine_view_free(v);
    submit(&r, "m", 0, 4);
    collect(&r, 4);
    CHECK_EQ(right(0, 4), 4);
    CHECK_EQ(seen.ahead, 0);
    CHECK_EQ(seen.most_out, 1);
    drop(0, 4);
    end(&r);
}

static void inputs_that_travel_meanwhile_make_the_runs_shorter_and_go_sooner(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, true);

    rig_load_ok(&r, "m", 1, dir); /* 4 ms for the inputs, and a run of 20 */
    submit(&r, "m", 0, 4);
    collect(&r, 4);
    CHECK_EQ(right(0, 4), 4);
    CHECK(seen.handed_us[1] - q[0].start_us >= RUN_US - AHEAD_US);
    for (unsigned i = 0; i < 4; i++) /* what is learnt is a run alone, inputs and all */
        CHECK(q[i].run_ns / 1000 >= RUN_US + INPUTS_US - 2 &&
              q[i].run_ns / 1000 <= RUN_US + INPUTS_US + 1);
    drop(0, 4);
    end(&r);
}

/* ---- what is told of it */
static void a_run_that_went_ahead_begins_when_the_one_before_it_has_ended(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    submit(&r, "m", 0, 6);
    collect(&r, 6);
    CHECK_EQ(right(0, 6), 6);
    for (unsigned i = 1; i < 6; i++) {
        CHECK(q[i].start_us + 1 >= seen.handed_us[0] + i * RUN_US);
        CHECK(q[i].done_us - q[i].start_us + 1 >= RUN_US);
    }
    drop(0, 6);
    end(&r);
}

/* It is taken for half as long at first, and no run of it is ever alone. */
static void what_a_run_behind_another_took_is_learnt(void)
{
    struct rig r = rig_sim(LONG_AHEAD_US / MSEC, false);
    struct engine_view *v = NULL;
    struct err err;

    seen.half = true;
    rig_load_ok(&r, "long", 1, dir);
    submit(&r, "long", 0, MOST);
    collect(&r, MOST);
    CHECK_EQ(right(0, MOST), MOST);
    CHECK(seen.ahead >= MOST / 2);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK(v->gpulet[0].share[0].run_us > 3 * LONG_US / 4);
    CHECK(v->gpulet[0].share[0].run_us <= LONG_US);
    engine_view_free(v);
    drop(0, MOST);
    end(&r);
}

static void no_more_time_is_busy_than_has_passed(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, true);
    struct engine_view *v = NULL;
    struct err err;
    uint64_t busy_ns = 0;

    rig_load_ok(&r, "m", 1, dir);
    submit(&r, "m", 0, 8);
    collect(&r, 8);
    uint64_t past_ns = (clock_now_us() - q[0].start_us) * 1000;
    CHECK_EQ(right(0, 8), 8);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        busy_ns += v->gpulet[i].busy_ns;
    CHECK(busy_ns <= past_ns);
    CHECK(busy_ns + MSEC * 1000 >= (uint64_t)8 * RUN_US * 1000);
    engine_view_free(v);
    drop(0, 8);
    end(&r);
}

/* ---- slots */
static void the_second_slot_is_opened_with_the_first_and_counted(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);
    struct engine_view *v = NULL;
    struct err err;

    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(seen.slots, 2 * seen.exes);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK_EQ(v->model[0].slot_bytes, 2 * 3 * 64);
    engine_view_free(v);
    int made = seen.slots_made;
    submit(&r, "m", 0, 6);
    collect(&r, 6);
    CHECK_EQ(right(0, 6), 6);
    CHECK(seen.ahead > 0);
    CHECK_EQ(seen.slots_made, made);
    drop(0, 6);
    end(&r);
}

static void without_memory_for_a_second_slot_runs_wait_for_each_other(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    seen.no_second = true;
    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(seen.slots, seen.exes);
    submit(&r, "m", 0, 4);
    collect(&r, 4);
    CHECK_EQ(right(0, 4), 4);
    CHECK_EQ(seen.most_out, 1);
    CHECK_EQ(seen.submits, 4);
    CHECK(told_of(&r, "no memory for a second slot"));
    drop(0, 4);
    end(&r);
}

/* Batches of 1 and 2 have two, then there is no room for one of 4. */
static void a_first_slot_gets_the_memory_of_second_ones(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    seen.most_slots = 4;
    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(seen.exes, 3);
    CHECK_EQ(seen.slots, 3);
    CHECK(told_of(&r, "2 second slots of this gpu-let were closed"));
    submit(&r, "m", 0, 4);
    collect(&r, 4);
    CHECK_EQ(right(0, 4), 4);
    CHECK_EQ(seen.most_out, 1);
    drop(0, 4);
    end(&r);
}

static void without_second_slots_to_close_a_model_does_not_load(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);
    struct model_spec s = rig_spec("m", 1, dir);
    struct job job;

    seen.most_slots = 2; /* for batches of 1 and 2 */
    CHECK_EQ(rig_load(&r, &s, &job), -ENOMEM);
    CHECK_HAS(job.err.msg, "no memory for another slot");
    end(&r);
}

/* Two runs of full batches are under way in both slots; those of smaller ones are idle. */
static void a_second_slot_that_a_run_is_in_is_left_to_it(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(seen.slots, 6);
    watched.abort = NULL;
    hold(10 * USEC_PER_SEC);
    submit(&r, "m", 0, 2);
    until_submits(2);
    seen.most_slots = 7;
    rig_load_ok(&r, "long", 1, dir);
    CHECK(told_of(&r, "2 second slots of this gpu-let were closed"));
    CHECK_EQ(seen.slots, 7); /* one of each exe, and that */
    let_go();
    submit(&r, "m", 2, 4);
    collect(&r, 6);
    CHECK_EQ(right(0, 6), 6);
    drop(0, 6);
    end(&r);
}

/* ---- what goes wrong */
static void what_went_ahead_cannot_be_withdrawn_and_what_waits_can(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    watched.abort = NULL;
    hold(10 * USEC_PER_SEC);
    submit(&r, "m", 0, 4);
    until_submits(2);
    CHECK(engine_withdraw(r.e, &q[3]));
    CHECK(!engine_withdraw(r.e, &q[1]));
    let_go();
    collect(&r, 3);
    CHECK_EQ(right(0, 3), 3);
    CHECK(!rig_next(&r, 50));
    CHECK_EQ(n_back[3], 0);
    drop(0, 4);
    end(&r);
}

/* The third could be in time until an urgent one comes, both while the first takes its 100 ms. */
static void who_is_made_late_is_told_once(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    rig_load_ok(&r, "long", 1, dir);
    both_on_one_gpulet(&r);
    submit(&r, "long", 0, 1);
    until_submits(1);
    submit(&r, "m", 1, 1);
    CHECK_EQ(rig_fill(&r, &q[2], "m", 4, 4, 201), 0);
    q[2].deadline_us = seen.handed_us[0] + LONG_US + 2 * RUN_US + RUN_US / 2;
    CHECK_EQ(engine_submit(r.e, &q[2]), 0);
    CHECK_EQ(rig_fill(&r, &q[3], "m", 4, 4, 301), 0);
    q[3].priority = 1;
    CHECK_EQ(engine_submit(r.e, &q[3]), 0);
    n_back[2] = n_back[3] = 0;
    collect(&r, 4);
    CHECK_EQ(right(0, 4), 3);
    CHECK_EQ(q[2].fate, FATE_LATE);
    CHECK(!rig_next(&r, 50));
    drop(0, 4);
    end(&r);
}

/* It has no slot to go ahead in; that the run before it is far too long does not keep it. */
static void who_gets_late_behind_a_run_that_does_not_end_is_told_then(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);
    struct cq_item *it;

    seen.no_second = true;
    rig_load_ok(&r, "m", 1, dir);
    watched.abort = NULL;
    hold(10 * USEC_PER_SEC);
    submit(&r, "m", 0, 1);
    CHECK_EQ(rig_fill(&r, &q[1], "m", 4, 4, 101), 0);
    q[1].deadline_us = clock_now_us() + 20 * RUN_US;
    CHECK_EQ(engine_submit(r.e, &q[1]), 0);
    it = rig_next(&r, WAIT_MS);
    CHECK(it == &q[1].item);
    CHECK_EQ(q[1].fate, FATE_LATE);
    CHECK(clock_now_us() < seen.hold_us);
    let_go();
    collect(&r, 1);
    CHECK_EQ(right(0, 1), 1);
    CHECK_EQ(seen.most_out, 1);
    drop(0, 2);
    end(&r);
}

static void a_lost_partition_costs_the_two_runs_and_nothing_that_waits(void)
{
    const struct sim_fault f = {.kind = SIM_LOST, .model = "m", .run = 1};
    struct rig r = rig_sim(AHEAD_US / MSEC, false);
    struct err err;

    rig_load_ok(&r, "m", 1, dir);
    hold(10 * USEC_PER_SEC); /* so that two are under way for sure */
    submit_first(&r, "m");
    submit(&r, "m", 1, 4);
    CHECK_EQ(sim_inject(&f, &err), 0); /* befalls the second: with it goes the first */
    seen.gate = false;
    until_submits(2);
    seen.hold_us = 0; /* the fault wakes it */
    collect(&r, 5);
    CHECK_EQ(right(0, 5), 5 - (q[0].rc == -EAGAIN) - (q[1].rc == -EAGAIN));
    CHECK_EQ(q[1].rc, -EAGAIN);
    CHECK(!rig_next(&r, 50));
    drop(0, 5);
    submit(&r, "m", 0, 2);
    collect(&r, 2);
    CHECK_EQ(right(0, 2), 2);
    drop(0, 2);
    end(&r);
}

static void hangs(unsigned run)
{
    const struct sim_fault f = {.kind = SIM_HANG, .model = "m", .run = run};
    struct rig r = rig_sim(AHEAD_US / MSEC, false);
    struct err err;

    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(sim_inject(&f, &err), 0);
    submit(&r, "m", 0, 6);
    collect(&r, 6);
    CHECK_EQ(right(0, 6), 4);
    CHECK_EQ(q[run - 1].rc, -EAGAIN);
    CHECK_EQ(q[run].rc, -EAGAIN);
    CHECK(!rig_next(&r, 50));
    drop(0, 6);
    end(&r);
}
static void a_run_that_hangs_is_given_up_with_the_one_behind_it(void)
{
    hangs(1);
}
static void a_run_that_went_ahead_and_hangs_is_given_up(void)
{
    hangs(2);
}

/* The one in front of it takes 600 ms and may; that of 20 would be given up after 340. */
static void nobody_is_given_up_for_what_the_run_before_it_takes(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    rig_load_ok(&r, "long", 1, dir);
    both_on_one_gpulet(&r);
    hold(LONG_US + 6 * USEC_PER_SEC / 10);
    submit(&r, "long", 0, 1);
    until_submits(1);
    submit(&r, "m", 1, 2);
    until_submits(2);
    collect(&r, 3);
    CHECK_EQ(right(0, 3), 3);
    CHECK_EQ(seen.most_out, 2);
    drop(0, 3);
    end(&r);
}

/* Two requests of a run: one of them cannot be run; the next run is under way already. */
static void a_bad_input_fails_alone_though_the_next_run_went_ahead(void)
{
    struct rig r = rig_sim(AHEAD_US / MSEC, false);

    rig_load_ok(&r, "m", 1, dir);
    seen.bad_value = 777;
    submit_first(&r, "m"); /* so that the next are joined */
    for (unsigned i = 1; i < 5; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 2, 4, i == 2 ? 777 : (float)i * 10), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
        n_back[i] = 0;
    }
    seen.gate = false;
    collect(&r, 5);
    CHECK_EQ(right(0, 5), 4);
    CHECK_EQ(q[2].rc, -EINVAL);
    CHECK_EQ(seen.submits, 5); /* two joined and two alone, two joined */
    CHECK(!rig_next(&r, 50));
    drop(0, 5);
    end(&r);
}

static void nothing_is_lost_while_the_device_is_cut_anew(void)
{
    struct rig r = rig_of(2, AHEAD_US / MSEC, false), jobs = {.e = r.e};
    struct model_spec other = rig_spec("long", 1, dir);
    struct job job;

    CHECK_EQ(cq_new(&jobs.cq), 0);
    rig_load_ok(&r, "m", 1, dir);
    for (unsigned k = 0; k < 3; k++) {
        int submits = seen.submits;
        submit(&r, "m", 0, 10);
        until_submits(submits + 2);
        if (k == 1) {
            CHECK_EQ(rig_unload(&jobs, "long"), 0);
        } else {
            other.version = k + 1;
            CHECK_EQ(rig_load(&jobs, &other, &job), 0);
        }
        collect(&r, 10);
        CHECK_EQ(right(0, 10), 10);
        drop(0, 10);
    }
    submit(&r, "m", 0, 6);
    engine_unload(r.e, "m", &(struct job){0}, jobs.cq); /* what it has accepted it answers */
    collect(&r, 6);
    CHECK_EQ(right(0, 6), 6);
    CHECK(rig_next(&jobs, WAIT_MS) != NULL);
    drop(0, 6);
    jobs.left = NULL;
    cq_free(jobs.cq);
    CHECK(seen.ahead > 0);
    end(&r);
}

int main(void)
{
    dir = fake_model("ahead", "Add", "x,x", "batch,4");
    RUN(full_batches_follow_each_other_without_a_gap);
    RUN(no_run_goes_ahead_before_it_is_time);
    RUN(where_nothing_goes_ahead_one_run_is_under_way_and_there_is_one_slot);
    RUN(inputs_that_travel_meanwhile_make_the_runs_shorter_and_go_sooner);
    RUN(a_run_that_went_ahead_begins_when_the_one_before_it_has_ended);
    RUN(what_a_run_behind_another_took_is_learnt);
    RUN(no_more_time_is_busy_than_has_passed);
    RUN(the_second_slot_is_opened_with_the_first_and_counted);
    RUN(without_memory_for_a_second_slot_runs_wait_for_each_other);
    RUN(a_first_slot_gets_the_memory_of_second_ones);
    RUN(without_second_slots_to_close_a_model_does_not_load);
    RUN(a_second_slot_that_a_run_is_in_is_left_to_it);
    RUN(what_went_ahead_cannot_be_withdrawn_and_what_waits_can);
    RUN(who_is_made_late_is_told_once);
    RUN(who_gets_late_behind_a_run_that_does_not_end_is_told_then);
    RUN(a_lost_partition_costs_the_two_runs_and_nothing_that_waits);
    RUN(a_run_that_hangs_is_given_up_with_the_one_behind_it);
    RUN(a_run_that_went_ahead_and_hangs_is_given_up);
    RUN(nobody_is_given_up_for_what_the_run_before_it_takes);
    RUN(a_bad_input_fails_alone_though_the_next_run_went_ahead);
    RUN(nothing_is_lost_while_the_device_is_cut_anew);
    free(dir);
    fake_cleanup();
    return check_end();
}
