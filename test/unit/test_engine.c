/* The engine on a backend that does what a test says. */
#include "test/unit/engine_rig.h"
#include <gpulet/problem.h>

static char *dir_batch, *dir_fixed, *dir_two, *dir_free;

static void a_loaded_model_answers_and_an_unloaded_one_is_gone(void)
{
    struct rig r = rig_new(2);
    struct served *s;
    struct err err;

    CHECK_EQ(served_get(r.e, "m", 0, &s, &err), -ENOENT);
    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    CHECK_EQ(rig_infer(&r, "m", 5, 4), 0);
    CHECK_EQ(rig_infer(&r, "m", 8, 4), 0);
    CHECK_EQ(rig_unload(&r, "m"), 0);
    CHECK_EQ(served_get(r.e, "m", 0, &s, &err), -ENOENT);
    CHECK_EQ(rig_unload(&r, "m"), -ENOENT);
    CHECK_EQ(fake.exes, 0);
    rig_free(&r);
}

static void slots_of_all_batches_that_are_compiled_count(void)
{
    struct rig r = rig_new(1);
    struct engine_view *v;
    struct err err;

    fake.slot_bytes = 100000;
    rig_load_ok(&r, "m", 1, dir_batch);
    for (uint32_t rows = 1; rows <= 8; rows *= 2)
        CHECK_EQ(rig_infer(&r, "m", rows, 4), 0);
    for (unsigned i = 0; i < 200 && fake.slots < 4; i++)
        fake_sleep(5000);               /* what would only help is compiled later */
    rig_load_ok(&r, "n", 1, dir_batch); /* another plan */
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK_STR(v->model[0].spec.name, "m");
    CHECK_EQ(v->model[0].slot_bytes, 4 * 100000);
    engine_view_free(v);
    rig_free(&r);
}

static void every_request_gets_its_own_rows_when_they_are_joined(void)
{
    enum { N = 40 };
    static struct request q[N];
    struct rig r = rig_new(1);
    unsigned right = 0;

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 5000;
    uint64_t before = fake.runs;
    for (unsigned i = 0; i < N; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1 + i % 3, 4, (float)i * 100), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
    }
    CHECK(engine_pending(r.e) > 0);
    for (unsigned i = 0; i < N; i++) {
        struct request *done = (struct request *)rig_next(&r, WAIT_MS);
        CHECK(done && done->batch <= 8);
        right += done && rig_right(done);
    }
    CHECK_EQ(right, N);
    uint64_t rows = N / 3 * 6 + 1; /* 1 + 2 + 3, and one left over */
    CHECK_EQ(q[0].served->stats->rows, rows);
    CHECK_EQ(q[0].served->stats->success, N);
    CHECK(fake.runs - before < N / 2);
    for (unsigned i = 0; i < N; i++)
        rig_drop(&q[i]);
    rig_free(&r);
}

static void requests_submitted_for_later_wake_their_executor_once(void)
{
    enum { N = 11 };
    static struct request q[N];
    struct rig r = rig_new(1);
    struct wakes w = {0};

    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0); /* warm, and asleep again soon */
    fake_sleep(20000);
    uint64_t kicks = fake.kicks, runs = fake.runs;
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, (float)i), 0);
        CHECK_EQ(engine_submit_later(r.e, &q[i], &w), 0);
    }
    CHECK_EQ(fake.kicks - kicks, 0);
    engine_wake(r.e, &w);
    CHECK_EQ(fake.kicks - kicks, 1);
    for (unsigned i = 0; i < 5; i++)
        CHECK(rig_next(&r, WAIT_MS) != NULL);
    CHECK_EQ(fake.runs - runs, 1); /* all five together */
    fake_sleep(20000);
    kicks = fake.kicks;
    for (unsigned i = 5; i < N; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, (float)i), 0);
        CHECK_EQ(engine_submit_later(r.e, &q[i], &w), 0);
    }
    engine_wake(r.e, &w);
    CHECK_EQ(fake.kicks - kicks, 1);
    for (unsigned i = 5; i < N; i++)
        CHECK(rig_next(&r, WAIT_MS) != NULL);
    for (unsigned i = 0; i < N; i++) {
        CHECK(rig_right(&q[i]));
        rig_drop(&q[i]);
    }
    rig_free(&r);
}

static void nobody_waits_for_more_than_a_few_requests_to_be_woken(void)
{
    static struct request q[WAKE_REQUESTS_MAX];
    struct rig r = rig_new(1);
    struct wakes w = {0};

    rig_load_ok(&r, "m", 1, dir_batch);
    for (unsigned i = 0; i < WAKE_REQUESTS_MAX; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, (float)i), 0);
        CHECK_EQ(engine_submit_later(r.e, &q[i], &w), 0);
    }
    CHECK_EQ(w.n_requests, 0); /* the last one woke them */
    CHECK(w.epoch == NULL);
    for (unsigned i = 0; i < WAKE_REQUESTS_MAX; i++)
        CHECK(rig_next(&r, WAIT_MS) != NULL);
    for (unsigned i = 0; i < WAKE_REQUESTS_MAX; i++)
        rig_drop(&q[i]);
    rig_free(&r);
}

static void a_full_queue_refuses_at_once_and_says_when_to_come_back(void)
{
    static struct request q[8];
    struct rig r = rig_new(1);
    struct model_spec s = rig_spec("m", 1, dir_batch);
    struct job job;
    int refused = 0;

    s.queue_max = 2;
    s.max_batch = 1;
    CHECK_EQ(rig_load(&r, &s, &job), 0);
    fake.run_us = 50000;
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, 1), 0);
        int rc = engine_submit(r.e, &q[i]);
        if (rc == -EAGAIN) {
            CHECK(q[i].retry_us >= 1000);
            CHECK_HAS(q[i].err.msg, "queue is full");
            rig_drop(&q[i]);
            refused++;
        }
    }
    CHECK(refused >= 5); /* at most one runs and two wait */
    for (int i = refused; i < 8; i++) {
        struct request *done = (struct request *)rig_next(&r, WAIT_MS);
        CHECK(done && rig_right(done));
        rig_drop(done);
    }
    rig_free(&r);
}

static void beyond_its_allowance_a_model_waits_for_the_others(void)
{
    enum { N = 200 };
    static struct request other[2], q[N];
    const char *name[] = {"a", "b"};
    const struct policy *ours;
    struct err err;
    unsigned refused = 0;
    struct job job;

    memset(&fake, 0, sizeof(fake));
    fake.granules = 1;
    fake.run_us = 200;
    CHECK_EQ(policy_find("gpuletd", &ours, &err), 0);
    struct rig r = rig_with(&backend_fake, ours);
    for (unsigned i = 0; i < 2; i++) {
        struct model_spec s = rig_spec(name[i], 1, dir_batch);
        s.rate_rps = 1;
        s.slo_us = USEC_PER_SEC;
        s.queue_max = 2 * N;
        CHECK_EQ(rig_load(&r, &s, &job), 0);
    }
    fake.run_us = 100000;
    for (unsigned i = 0; i < 2; i++) { /* one runs, one waits */
        CHECK_EQ(rig_fill(&r, &other[i], "b", 1, 4, 1), 0);
        CHECK_EQ(engine_submit(r.e, &other[i]), 0);
        fake_sleep(10000);
    }
    fake.run_us = 200;
    for (unsigned i = 0; i < N; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "a", 1, 4, 1), 0);
        if (engine_submit(r.e, &q[i]) == 0)
            continue;
        CHECK_EQ(q[i].refusal, REFUSED_BEYOND);
        CHECK_HAS(q[i].err.msg, "others wait");
        refused++;
        rig_drop(&q[i]);
    }
    CHECK(refused > 0 && refused <= N - 64);
    for (unsigned i = refused; i < N + 2; i++) {
        struct request *done = (struct request *)rig_next(&r, WAIT_MS);
        CHECK(done && done->fate == FATE_DONE);
        rig_drop(done);
    }
    rig_free(&r);
}

/* n requests of both, alternating; how many were refused as beyond: all, and of the last ones. */
static unsigned ask_both(struct rig *r, struct request *q, unsigned n, unsigned last,
                         unsigned *ret_last)
{
    const char *name[] = {"a", "b"};
    unsigned refused = 0, taken = 0;

    *ret_last = 0;
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(rig_fill(r, &q[i], name[i % 2], 1, 4, 1), 0);
        if (engine_submit(r->e, &q[i]) == 0) {
            taken++;
        } else {
            CHECK_EQ(q[i].refusal, REFUSED_BEYOND);
            refused++;
            *ret_last += i >= n - last;
            rig_drop(&q[i]);
        }
        fake_sleep(4000);
    }
    for (unsigned i = 0; i < taken; i++) {
        struct request *done = (struct request *)rig_next(r, WAIT_MS);
        CHECK(done && done->fate == FATE_DONE);
        rig_drop(done);
    }
    return refused;
}

/* Of six that take turns two are asked for, more than their turns are, for so long that neither
 * counts as meek. */
static void where_all_are_beyond_nobody_waits_for_the_others(void)
{
    enum { N = 900, LAST = 50, MODELS = 6 };
    static struct request q[N];
    struct pin_share share[MODELS];
    struct pin_gpulet pin = {.n_shares = MODELS, .share = share};
    const struct policy *ours;
    unsigned refused_last;
    struct job job;
    struct err err;

    memset(&fake, 0, sizeof(fake));
    fake.granules = 1;
    fake.run_us = 3000;
    CHECK_EQ(policy_find("gpuletd", &ours, &err), 0);
    struct rig r = rig_with(&backend_fake, ours);
    for (unsigned i = 0; i < MODELS; i++) {
        const char name[] = {(char)('a' + i), 0};
        struct model_spec s = rig_spec(name, 1, dir_batch);
        s.rate_rps = 1;
        s.slo_us = USEC_PER_SEC;
        s.queue_max = 2 * N;
        CHECK_EQ(rig_load(&r, &s, &job), 0);
        share[i] = (struct pin_share){.batch = 1};
        memcpy(share[i].model, name, sizeof(name));
    }
    job = (struct job){0};
    granules_add(&pin.set, 0);
    engine_plan_pin(r.e, 1, &pin, &job, r.cq); /* else it would follow what is asked */
    CHECK_EQ(rig_job(&r, &job), 0);
    CHECK(ask_both(&r, q, N, LAST, &refused_last) > 0);
    CHECK_EQ(refused_last, 0);
    rig_free(&r);
}

static void a_request_that_gets_late_in_its_queue_is_dropped(void)
{
    struct request first, late;
    struct rig r = rig_new(1);

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 100000; /* the engine believes 200 us: admission lets it in */
    CHECK_EQ(rig_fill(&r, &first, "m", 8, 4, 1), 0);
    CHECK_EQ(engine_submit(r.e, &first), 0);
    fake_sleep(10000);
    CHECK_EQ(rig_fill(&r, &late, "m", 8, 4, 1), 0);
    late.deadline_us = clock_now_us() + 20000;
    CHECK_EQ(engine_submit(r.e, &late), 0);
    CHECK(rig_next(&r, WAIT_MS) == &first.item);
    CHECK(rig_next(&r, WAIT_MS) == &late.item);
    CHECK_EQ(first.fate, FATE_DONE);
    CHECK_EQ(late.fate, FATE_LATE);
    CHECK_EQ(late.rc, -ETIMEDOUT);
    CHECK_EQ(late.served->stats->late, 1);
    rig_drop(&first);
    rig_drop(&late);
    rig_free(&r);
}

static void what_is_certainly_late_is_refused_before_it_waits(void)
{
    struct request first, q;
    struct rig r = rig_new(1);

    fake.run_us = 50000;
    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK_EQ(rig_fill(&r, &first, "m", 1, 4, 1), 0);
    CHECK_EQ(engine_submit(r.e, &first), 0); /* an idle gpu-let would take the next one too */
    CHECK_EQ(rig_fill(&r, &q, "m", 1, 4, 1), 0);
    q.deadline_us = clock_now_us() + 5000;
    CHECK_EQ(engine_submit(r.e, &q), -EAGAIN);
    CHECK(q.retry_us > 0);
    usec_t retry_us;
    CHECK_EQ(engine_admit(r.e, q.served, clock_now_us() + 5000, &retry_us, &q.err), -EAGAIN);
    CHECK_EQ(engine_admit(r.e, q.served, clock_now_us() + USEC_PER_SEC, &retry_us, &q.err), 0);
    CHECK(rig_next(&r, WAIT_MS) == &first.item);
    rig_drop(&first);
    rig_drop(&q);
    rig_free(&r);
}

static void a_prediction_that_rose_is_put_right_by_a_run(void)
{
    struct request q;
    struct rig r = rig_new(1);

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 60000; /* something disturbs a few runs */
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    fake.run_us = 200;
    CHECK_EQ(rig_fill(&r, &q, "m", 1, 4, 1), 0);
    q.deadline_us = clock_now_us() + 15000; /* below what is now predicted */
    CHECK_EQ(engine_submit(r.e, &q), 0);
    CHECK(rig_next(&r, WAIT_MS) == &q.item);
    CHECK(rig_right(&q));
    rig_drop(&q);
    rig_free(&r);
}

static void shapes_that_do_not_go_together_name_input_and_dimension(void)
{
    struct request q;
    struct rig r = rig_new(1);
    int64_t dims[2] = {3, 4};

    rig_load_ok(&r, "two", 1, dir_two);
    CHECK_EQ(rig_fill(&r, &q, "two", 2, 4, 1), 0);
    (void)tensor_shape(&q.in[1], DT_FP32, 2, dims);
    CHECK_EQ(engine_submit(r.e, &q), -EINVAL);
    CHECK_HAS(q.err.msg, "input 'z': dimension 0 is 3");
    rig_drop(&q);
    CHECK_EQ(rig_infer(&r, "two", 2, 5), -EINVAL);
    CHECK_EQ(rig_infer(&r, "two", 9, 4), -EINVAL);
    CHECK_EQ(rig_infer(&r, "two", 0, 4), -EINVAL);
    CHECK_EQ(rig_infer(&r, "two", 2, 4), 0);
    rig_free(&r);
}

static void a_fixed_batch_is_served_as_it_is(void)
{
    struct rig r = rig_new(1);
    struct served *s;
    struct err err;

    rig_load_ok(&r, "fixed", 1, dir_fixed);
    CHECK_EQ(served_get(r.e, "fixed", 1, &s, &err), 0);
    CHECK(!s->batches);
    CHECK_EQ(s->max_batch, 1);
    CHECK(s->why_single[0] != '\0');
    served_put(s);
    CHECK_EQ(rig_infer(&r, "fixed", 2, 4), 0);
    CHECK_EQ(rig_infer(&r, "fixed", 1, 4), -EINVAL);
    rig_free(&r);
}

static void a_new_shape_is_compiled_while_its_request_waits(void)
{
    struct rig r = rig_new(1);

    rig_load_ok(&r, "free", 1, dir_free);
    uint64_t before = fake.compiles;
    CHECK_EQ(rig_infer(&r, "free", 1, 7), 0);
    CHECK_EQ(fake.compiles, before + 1);
    CHECK_EQ(rig_infer(&r, "free", 1, 7), 0);
    CHECK_EQ(fake.compiles, before + 1); /* kept */
    CHECK_EQ(rig_infer(&r, "free", 1, 9), 0);
    CHECK_EQ(fake.compiles, before + 2);
    rig_free(&r);
}

static void requests_of_different_shapes_never_share_a_run(void)
{
    static struct request q[12];
    struct rig r = rig_new(1);
    unsigned right = 0;

    rig_load_ok(&r, "free", 1, dir_free);
    fake.run_us = 3000;
    for (unsigned i = 0; i < 12; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "free", 1, 5 + i % 2, (float)i), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
    }
    for (unsigned i = 0; i < 12; i++) {
        struct request *done = (struct request *)rig_next(&r, WAIT_MS);
        right += done && rig_right(done) && done->batch <= 6;
    }
    CHECK_EQ(right, 12);
    for (unsigned i = 0; i < 12; i++)
        rig_drop(&q[i]);
    rig_free(&r);
}

/* A request's own priority goes before its model's. */
static void a_run_tells_the_device_how_urgent_it_is(void)
{
    struct rig r = rig_new(1);
    struct model_spec first = rig_spec("first", 1, dir_batch),
                      rest = rig_spec("rest", 1, dir_batch);
    struct request q;
    struct job job;

    first.priority = 3;
    rest.best_effort = true;
    rig_load_ok(&r, "plain", 1, dir_batch);
    CHECK_EQ(rig_load(&r, &first, &job), 0);
    CHECK_EQ(rig_load(&r, &rest, &job), 0);
    CHECK_EQ(rig_infer(&r, "plain", 1, 4), 0);
    CHECK(fake.priority == 0 && !fake.best_effort);
    CHECK_EQ(rig_infer(&r, "first", 1, 4), 0);
    CHECK(fake.priority == 3 && !fake.best_effort);
    CHECK_EQ(rig_infer(&r, "rest", 1, 4), 0);
    CHECK(fake.best_effort);
    CHECK_EQ(rig_fill(&r, &q, "first", 1, 4, 1), 0);
    q.priority = 1;
    CHECK_EQ(engine_submit(r.e, &q), 0);
    CHECK(rig_next(&r, WAIT_MS) == &q.item);
    CHECK_EQ(fake.priority, 1);
    rig_drop(&q);
    rig_free(&r);
}

static bool engine_is_best_effort(struct rig *r, const char *name)
{
    struct served *s;
    struct err err;

    CHECK_EQ(served_get(r->e, name, 0, &s, &err), 0);
    bool is = s->spec.best_effort;
    served_put(s);
    return is;
}

/* A request that must be answered within a sixth of what waits of the other model. */
static int submit_soon(struct rig *r, struct request *q)
{
    CHECK_EQ(rig_fill(r, q, "soon", 1, 4, 1), 0);
    q->deadline_us = clock_now_us() + 200000;
    return engine_submit(r->e, q);
}

static void requests_that_wait_change_their_class_with_their_model(void)
{
    static struct request q[60], soon[3];
    struct rig r = rig_new(1);
    struct model_spec rest = rig_spec("rest", 1, dir_batch);
    struct job job;
    unsigned right = 0, n = 0;

    rig_load_ok(&r, "soon", 1, dir_batch);
    rest.max_batch = 1;
    CHECK_EQ(rig_load(&r, &rest, &job), 0);
    fake.run_us = 20000;
    CHECK_EQ(rig_infer(&r, "rest", 1, 4), 0); /* the predictions learn */
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(rig_infer(&r, "rest", 1, 4), 0);
    for (unsigned i = 0; i < 60; i++) { /* 1.2 s */
        CHECK_EQ(rig_fill(&r, &q[i], "rest", 1, 4, (float)i), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
    }
    CHECK_EQ(submit_soon(&r, &soon[0]), -EAGAIN);

    struct job change[2] = {{.cq = r.cq}, {.cq = r.cq}};
    struct cq_item *it = NULL;
    rest.best_effort = true;
    engine_load(r.e, &rest, &change[0], r.cq);
    while (!engine_is_best_effort(&r, "rest"))
        fake_sleep(1000);
    CHECK_EQ(submit_soon(&r, &soon[1]), 0);
    for (; it != &soon[1].item && n < 60 + 2; n++) { /* before it waits behind the others again */
        it = rig_next(&r, WAIT_MS);
        if (it != &change[0].item)
            right += it && rig_right((struct request *)(void *)it);
    }
    rest.best_effort = false;
    engine_load(r.e, &rest, &change[1], r.cq);
    while (engine_is_best_effort(&r, "rest"))
        fake_sleep(1000);
    CHECK_EQ(submit_soon(&r, &soon[2]), -EAGAIN);
    for (; n < 60 + 1 + 2; n++) {
        it = rig_next(&r, WAIT_MS);
        if (it != &change[0].item && it != &change[1].item)
            right += it && rig_right((struct request *)(void *)it);
    }
    CHECK_EQ(right, 61);
    rig_drop(&soon[2]);
    CHECK_EQ(submit_soon(&r, &soon[2]), 0); /* nothing is left of what was counted */
    CHECK(rig_next(&r, WAIT_MS) == &soon[2].item);
    for (unsigned i = 0; i < 60; i++)
        rig_drop(&q[i]);
    for (unsigned i = 0; i < 3; i++)
        rig_drop(&soon[i]);
    rig_free(&r);
}

static void compiled_shapes_are_limited_and_the_oldest_goes(void)
{
    struct rig r = rig_new(1);

    rig_load_ok(&r, "free", 1, dir_free);
    for (int64_t cols = 1; cols <= KEYS_PER_MODEL_MAX + 10; cols++)
        CHECK_EQ(rig_infer(&r, "free", 1, cols), 0);
    CHECK(fake.exes <= KEYS_PER_MODEL_MAX);
    uint64_t before = fake.compiles;
    CHECK_EQ(rig_infer(&r, "free", 1, KEYS_PER_MODEL_MAX + 10), 0);
    CHECK_EQ(fake.compiles, before);
    CHECK_EQ(rig_infer(&r, "free", 1, 1), 0); /* evicted: compiled again */
    CHECK_EQ(fake.compiles, before + 1);
    rig_free(&r);
}

static void a_load_that_fails_leaves_what_was_there(void)
{
    struct rig r = rig_new(2);
    struct model_spec bad = rig_spec("m", 2, "/nowhere"), odd = rig_spec("odd", 1, dir_batch);
    struct engine_view *v;
    struct served *s;
    struct job job;
    struct err err;

    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK(rig_load(&r, &bad, &job) < 0);
    CHECK_HAS(job.err.msg, "model 'm'");
    CHECK_EQ(rig_infer(&r, "m", 2, 4), 0);
    fake.refuse_model = "odd";
    CHECK_EQ(rig_load(&r, &odd, &job), -ENOTSUP);
    CHECK_HAS(job.err.msg, "Tanh");
    CHECK_EQ(served_get(r.e, "odd", 0, &s, &err), -EAGAIN);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK_EQ(v->n_models, 2);
    CHECK_EQ(v->model[0].state, SERVED_READY);
    CHECK(v->model[0].reason[0] != '\0');
    CHECK_EQ(v->model[1].state, SERVED_UNAVAILABLE);
    CHECK_HAS(v->model[1].reason, "Tanh");
    CHECK_HAS(v->plan_error, "Tanh");
    CHECK_EQ(v->epoch, 1);
    engine_view_free(v);
    CHECK_EQ(rig_infer(&r, "m", 2, 4), 0);
    fake.refuse_model = NULL;
    rig_load_ok(&r, "odd", 1, dir_batch);
    CHECK_EQ(rig_infer(&r, "odd", 2, 4), 0);
    rig_free(&r);
}

static void a_new_version_takes_over_and_the_old_one_goes(void)
{
    struct rig r = rig_new(1);
    struct request q;
    struct err err;
    struct served *s;

    rig_load_ok(&r, "m", 1, dir_batch);
    int exes = fake.exes;
    CHECK_EQ(rig_fill(&r, &q, "m", 1, 4, 1), 0); /* holds version 1 while it is replaced */
    rig_load_ok(&r, "m", 2, dir_batch);
    CHECK_EQ(engine_submit(r.e, &q), 0);
    CHECK(rig_next(&r, WAIT_MS) == &q.item);
    CHECK(rig_right(&q));
    CHECK_EQ(q.served->spec.version, 2); /* and the reply says so */
    rig_drop(&q);
    CHECK_EQ(served_get(r.e, "m", 1, &s, &err), -ENOENT);
    for (unsigned i = 0; i < 200 && fake.exes > exes; i++)
        fake_sleep(5000);
    CHECK_EQ(fake.exes, exes);
    rig_free(&r);
}

static void other_numbers_change_without_compiling(void)
{
    struct rig r = rig_new(1);
    struct model_spec s = rig_spec("m", 1, dir_batch);
    struct engine_view *v;
    struct job job;
    struct err err;

    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    uint64_t compiles = fake.compiles, opens = fake.opens;
    s.slo_us = 1; /* cannot hold */
    CHECK_EQ(rig_load(&r, &s, &job), 0);
    CHECK_EQ(fake.compiles, compiles);
    CHECK_EQ(fake.opens, opens);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK_EQ(v->model[0].unmet, LIMIT_SLO);
    CHECK_EQ(v->model[0].least_slo_us, 400); /* two runs of 200 us */
    CHECK_EQ(v->model[0].served->stats->success, 1);
    engine_view_free(v);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    rig_free(&r);
}

static void loading_one_model_does_not_delay_another(void)
{
    struct rig r = rig_new(1);
    struct model_spec s = rig_spec("slow", 1, dir_batch);
    struct job job = {0};
    struct cq *jobs;
    usec_t worst = 0;
    unsigned n = 0;

    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK_EQ(cq_new(&jobs), 0);
    fake.compile_us = 300000;
    engine_load(r.e, &s, &job, jobs);
    struct pollfd p = {.fd = cq_fd(jobs), .events = POLLIN};
    while (poll(&p, 1, 0) == 0) {
        usec_t from = clock_now_us();
        CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
        worst = MAX(worst, clock_now_us() - from);
        n++;
    }
    CHECK(cq_take(jobs) == &job.item);
    CHECK_EQ(job.rc, 0);
    CHECK(n > 20);
    CHECK(worst < 200000);
    cq_free(jobs);
    rig_free(&r);
}

static void unloading_waits_for_the_last_request_and_frees_all(void)
{
    struct rig r = rig_new(1);
    struct request q;
    struct job job = {0};
    struct served *s;
    struct err err;

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 100000;
    CHECK_EQ(rig_fill(&r, &q, "m", 1, 4, 1), 0);
    CHECK_EQ(engine_submit(r.e, &q), 0);
    engine_unload(r.e, "m", &job, r.cq);
    CHECK(served_get(r.e, "m", 0, &s, &err) < 0);
    CHECK(rig_next(&r, WAIT_MS) == &q.item);
    CHECK(rig_right(&q));
    CHECK_EQ(rig_job(&r, &job), 0);
    CHECK_EQ(fake.exes, 0);
    rig_drop(&q);
    rig_free(&r);
}

static void a_withdrawn_request_belongs_to_its_thread_again(void)
{
    struct request first, q;
    struct rig r = rig_new(1);

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 50000;
    CHECK_EQ(rig_fill(&r, &first, "m", 8, 4, 1), 0);
    CHECK_EQ(engine_submit(r.e, &first), 0);
    fake_sleep(10000);
    CHECK_EQ(rig_fill(&r, &q, "m", 8, 4, 1), 0);
    CHECK_EQ(engine_submit(r.e, &q), 0);
    CHECK_EQ(engine_pending(r.e), 2);
    CHECK(engine_withdraw(r.e, &q));
    CHECK_EQ(q.fate, FATE_WITHDRAWN);
    CHECK(!engine_withdraw(r.e, &first)); /* it runs */
    CHECK(rig_next(&r, WAIT_MS) == &first.item);
    CHECK(!engine_withdraw(r.e, &first)); /* it has completed */
    CHECK(!rig_next(&r, 50));
    rig_drop(&first);
    rig_drop(&q);
    rig_free(&r);
}

static void a_failed_run_fails_its_requests_and_nothing_else(void)
{
    struct rig r = rig_new(1);
    struct err err;

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.fail_runs = 1;
    CHECK_EQ(rig_infer(&r, "m", 1, 4), -EIO);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    CHECK_EQ(engine_health(r.e, &err), 0);
    rig_free(&r);
}

static void a_bad_input_fails_alone_and_not_those_it_was_joined_with(void)
{
    struct request q[5];
    struct rig r = rig_new(1);

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 30000; /* the first runs, the other four wait and are joined */
    fake.bad_value = 700;
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, i == 2 ? 700 : 10 * i), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
        fake_sleep(i == 0 ? 10000 : 0);
    }
    for (unsigned i = 0; i < 5; i++)
        CHECK(rig_next(&r, WAIT_MS) == &q[i].item); /* and in their order */
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(q[i].rc, i == 2 ? -EINVAL : 0);
        CHECK(i == 2 || rig_right(&q[i]));
        rig_drop(&q[i]);
    }
    CHECK_EQ(fake.runs, 6); /* one, four together, each of the four */
    rig_free(&r);
}

/* With fake.late the input's first element says how many elements the output has. */
static int late_infer(struct rig *r, struct request *q, float n)
{
    CHECK_EQ(rig_fill(r, q, "m", 2, 4, n), 0);
    int rc = engine_submit(r->e, q);
    if (rc == 0)
        CHECK(rig_next(r, WAIT_MS) == &q->item);
    return rc < 0 ? rc : q->rc;
}

static void outputs_have_the_shape_that_the_run_decided(void)
{
    static const int64_t sizes[] = {3, 0, 8, 1};
    struct rig r = rig_new(1);
    struct request q;

    fake.late = true;
    rig_load_ok(&r, "m", 1, dir_fixed);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        CHECK_EQ(late_infer(&r, &q, (float)sizes[i]), 0);
        CHECK_EQ(q.out[0].rank, 1);
        CHECK_EQ(q.out[0].dims[0], sizes[i]);
        CHECK_EQ(q.out[0].bytes, (size_t)sizes[i] * sizeof(float));
        for (int64_t k = 0; k < sizes[i]; k++)
            CHECK_EQ(((const float *)q.out[0].data)[k], 2 * (sizes[i] + k));
        rig_drop(&q);
    }
    rig_free(&r);
}

static void outputs_that_find_no_room_fail_their_request_and_nothing_else(void)
{
    struct rig r = rig_new(1);
    struct request q;

    fake.late = true;
    rig_load_ok(&r, "m", 1, dir_fixed);
    CHECK_EQ(late_infer(&r, &q, 1e8f), -ENOMEM); /* 400 MB; the pool has 64 */
    CHECK_HAS(q.err.msg, "outputs of 400000000 bytes");
    rig_drop(&q);
    CHECK_EQ(late_infer(&r, &q, 5), 0);
    rig_drop(&q);
    rig_free(&r);
}

static void a_run_beyond_its_memory_fails_its_request_and_nothing_else(void)
{
    struct rig r = rig_new(1);
    struct request q;

    rig_load_ok(&r, "m", 1, dir_fixed);
    fake.no_memory_runs = 1;
    CHECK_EQ(late_infer(&r, &q, 5), -ENOMEM);
    CHECK_HAS(q.err.msg, "'m'");
    rig_drop(&q);
    CHECK_EQ(rig_infer(&r, "m", 2, 4), 0);
    rig_free(&r);
}

static void outputs_that_have_no_room_together_are_made_one_by_one(void)
{
    struct request q[5];
    struct rig r = rig_new(1);
    struct pool *pool = engine_pool(r.e);
    struct slab *others;

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.run_us = 30000; /* the first runs, the other four wait and are joined */
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, 10 * i), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
        fake_sleep(i == 0 ? 10000 : 0);
    }
    /* Room for three outputs of at most 1 KiB. */
    CHECK_EQ(slab_new(pool, pool_max_bytes(pool) - pool_used_bytes(pool) - 3 * 1024, &others), 0);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(rig_next(&r, WAIT_MS) == &q[i].item);
        CHECK_EQ(q[i].rc, i == 4 ? -ENOMEM : 0);
        CHECK(i == 4 || rig_right(&q[i]));
    }
    CHECK_EQ(fake.runs, 4);
    CHECK_HAS(q[4].err.msg, "no memory for the outputs");
    slab_put(others);
    for (unsigned i = 0; i < 5; i++)
        rig_drop(&q[i]);
    rig_free(&r);
}

static void a_lost_partition_is_opened_again_and_what_waited_is_served(void)
{
    struct request q[2];
    struct rig r = rig_new(1);
    struct err err;

    rig_load_ok(&r, "m", 1, dir_batch);
    uint32_t opens = fake.opens; /* the points' before the first plan, too */
    fake.run_us = 30000;
    fake.lose_runs = 1;
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 8, 4, 1), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
    }
    CHECK(rig_next(&r, WAIT_MS) == &q[0].item);
    CHECK_EQ(q[0].rc, -EAGAIN); /* another try may be in time */
    CHECK(rig_next(&r, WAIT_MS) == &q[1].item);
    CHECK(rig_right(&q[1]));
    CHECK_EQ(engine_health(r.e, &err), 0);
    CHECK_EQ(fake.opens, opens + 1);
    CHECK_EQ(fake.enters, 2);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    rig_drop(&q[0]);
    rig_drop(&q[1]);
    rig_free(&r);
}

static void a_lost_device_is_told_to_the_watchdog(void)
{
    struct rig r = rig_new(1);
    struct err err = {0};

    rig_load_ok(&r, "m", 1, dir_batch);
    fake.exit_runs = 1;
    CHECK_EQ(rig_infer(&r, "m", 1, 4), -EAGAIN);
    for (unsigned i = 0; i < 200 && engine_health(r.e, &err) == 0; i++)
        fake_sleep(5000);
    CHECK_EQ(engine_health(r.e, &err), -ENODEV);
    CHECK_HAS(err.msg, "model 'm'");
    rig_free(&r);
}

static void a_stalled_run_is_told_to_the_watchdog(void)
{
    struct request q;
    struct engine *e;
    struct rig r = rig_new(1);
    struct err err = {0};
    struct engine_config cfg = {.backend = &backend_fake,
                                .policy = &policy_equal,
                                .host_bytes = 1u << 20,
                                .queue_max = 8,
                                .max_batch = 1,
                                .timeout_us = 10 * USEC_PER_SEC,
                                .step_bound_us = 100000};

    e = r.e;
    CHECK_EQ(engine_new(&cfg, &r.e, &err), 0);
    rig_load_ok(&r, "m", 1, dir_batch);
    fake_sleep(200000);
    CHECK_EQ(engine_health(r.e, &err), 0); /* idle for long is no stall */
    fake.run_us = 400000;
    CHECK_EQ(rig_fill(&r, &q, "m", 1, 4, 1), 0);
    CHECK_EQ(engine_submit(r.e, &q), 0);
    fake_sleep(250000);
    CHECK_EQ(engine_health(r.e, &err), -ETIMEDOUT);
    CHECK_HAS(err.msg, "submit");
    CHECK(rig_next(&r, WAIT_MS) == &q.item);
    fake_sleep(10000);
    CHECK_EQ(engine_health(r.e, &err), 0);
    rig_drop(&q);
    engine_free(e);
    rig_free(&r);
}

/* As policy_equal, but that model 'b' gets no place, for the reason that the test says. */
static enum plan_limit left_out;
static int plan_without_b(const struct problem *p, const struct plan *was, struct arena *a,
                          struct plan *ret, struct err *err)
{
    int r = policy_equal.plan_make(p, was, a, ret, err);

    for (uint32_t m = 0; r == 0 && m < p->n_models; m++) {
        if (!STREQ(p->model[m].name, "b"))
            continue;
        ret->verdict[m].limit = left_out;
        for (uint32_t k = 0; k < ret->n_gpulets; k++) {
            struct plan_gpulet *g = &ret->gpulet[k];
            uint32_t n = 0;
            for (uint32_t i = 0; i < g->n_shares; i++)
                if (g->share[i].model != m)
                    g->share[n++] = g->share[i];
            g->n_shares = n;
        }
    }
    return r;
}

static void a_model_without_a_place_is_refused_by_what_binds(void)
{
    struct model_spec b = rig_spec("b", 1, dir_batch);
    struct policy policy = policy_equal;
    struct rig r = rig_new(1);
    struct job job;
    struct engine *e = r.e;
    struct err err = {0};
    struct engine_config cfg = {.backend = &backend_fake,
                                .policy = &policy,
                                .host_bytes = 1u << 20,
                                .queue_max = 8,
                                .max_batch = 1,
                                .timeout_us = 10 * USEC_PER_SEC,
                                .step_bound_us = USEC_PER_SEC};

    policy.plan_make = plan_without_b;
    CHECK_EQ(engine_new(&cfg, &r.e, &err), 0);
    rig_load_ok(&r, "a", 1, dir_batch);
    left_out = LIMIT_MEMORY;
    CHECK_EQ(rig_load(&r, &b, &job), -ENOMEM);
    CHECK_HAS(job.err.msg, "no gpu-let can hold model 'b': it needs");
    left_out = LIMIT_UNITS;
    CHECK_EQ(rig_load(&r, &b, &job), -ENOMEM);
    CHECK_HAS(job.err.msg, "no gpu-let has time for model 'b': beside it another model's promise");
    CHECK_EQ(rig_infer(&r, "a", 1, 4), 0);
    engine_free(e);
    rig_free(&r);
}

static void models_share_the_granules_and_the_plan_can_be_pinned(void)
{
    struct rig r = rig_new(2);
    struct pin_share share[2] = {{.model = "a"}, {.model = "b", .batch = 2}};
    struct pin_gpulet pin = {.n_shares = 2, .share = share};
    struct engine_view *v;
    struct job job = {0};
    struct err err;

    rig_load_ok(&r, "a", 1, dir_batch);
    rig_load_ok(&r, "b", 1, dir_batch);
    for (unsigned i = 0; i < 200 && fake.parts > 2; i++)
        fake_sleep(5000); /* the one that held both granules retires */
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK_EQ(v->n_gpulets, 2);
    CHECK_EQ(granules_count(&v->gpulet[0].set), 1);
    CHECK_EQ(v->gpulet[0].n_shares, 1);
    CHECK_STR(v->gpulet[0].state, "serving");
    engine_view_free(v);

    granules_add(&pin.set, 0);
    granules_add(&pin.set, 1);
    engine_plan_pin(r.e, 1, &pin, &job, r.cq);
    CHECK_EQ(rig_job(&r, &job), 0);
    CHECK_EQ(engine_view(r.e, &v, &err), 0);
    CHECK(v->pinned);
    engine_view_free(v);
    CHECK_EQ(rig_infer(&r, "a", 8, 4), 0);
    CHECK_EQ(rig_infer(&r, "b", 8, 4), 0);

    granules_add(&pin.set, 2); /* there are two */
    job = (struct job){0};
    engine_plan_pin(r.e, 1, &pin, &job, r.cq);
    CHECK_EQ(rig_job(&r, &job), -EINVAL);
    CHECK_HAS(job.err.msg, "granule 2");
    pin.n_shares = 1;
    job = (struct job){0};
    engine_plan_pin(r.e, 1, &pin, &job, r.cq);
    CHECK_EQ(rig_job(&r, &job), -EINVAL);
    CHECK_HAS(job.err.msg, "model 'b' would be in no gpu-let");
    job = (struct job){0};
    engine_plan_pin(r.e, 0, NULL, &job, r.cq);
    CHECK_EQ(rig_job(&r, &job), 0);
    CHECK_EQ(rig_infer(&r, "b", 8, 4), 0);
    rig_free(&r);
}

static void a_dry_run_says_what_the_policy_would_do(void)
{
    struct rig r = rig_new(2);
    struct problem p;
    struct plan plan;
    struct arena a;
    struct err err;

    rig_load_ok(&r, "a", 1, dir_batch);
    arena_init(&a);
    CHECK_EQ(engine_plan_dry(r.e, &a, &p, &plan, &err), 0);
    rig_free(&r); /* the copy outlives the engine */
    CHECK_EQ(p.n_models, 1);
    CHECK_STR(p.model[0].name, "a");
    CHECK(p.model[0].profile->measured);
    CHECK_EQ(plan.n_gpulets, 1);
    CHECK_EQ(plan.gpulet[0].units, 2);
    arena_done(&a);
}

static void the_running_problem_and_plan_can_be_read_as_a_file(void)
{
    struct rig r = rig_new(2);
    AUTO(free) char *text = NULL;
    struct problem p = {0};
    struct plan plan = {0};
    struct arena a;
    struct err err = {0};

    rig_load_ok(&r, "a", 1, dir_batch);
    arena_init(&a);
    CHECK_EQ(engine_problem_text(r.e, &text, &err), 0);
    rig_free(&r);
    CHECK_EQ(problem_parse(text, strlen(text), &a, &p, &err), 0);
    CHECK_EQ(plan_parse(text, strlen(text), &p, &a, &plan, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(p.n_models, 1);
    if (p.n_models == 1 && plan.n_gpulets == 1) {
        CHECK_STR(p.model[0].name, "a");
        CHECK(p.model[0].profile->run_us[0] > 0);
        CHECK_EQ(plan.gpulet[0].units, 2);
        CHECK_EQ(plan.gpulet[0].share[0].model, 0);
        CHECK_EQ(plan_check(&p, NULL, &plan, &err), 0);
    }
    CHECK_EQ(plan.n_gpulets, 1);
    arena_done(&a);
}

static void events_are_numbered_and_read_once(void)
{
    struct rig r = rig_new(1);
    struct view_event *ev;
    struct arena a;
    uint32_t n = 0;
    uint64_t last = 0, again = 0;
    bool loaded = false;

    rig_load_ok(&r, "m", 1, dir_batch);
    arena_init(&a);
    CHECK_EQ(engine_events(r.e, 0, &a, &ev, &n, &last), 0);
    for (uint32_t i = 0; i < n; i++)
        loaded |= STREQ(ev[i].what, "load") && STREQ(ev[i].model, "m") && ev[i].version == 1;
    CHECK(loaded);
    CHECK_EQ(engine_events(r.e, last, &a, &ev, &n, &again), 0);
    CHECK_EQ(n, 0);
    CHECK_EQ(again, last);
    arena_done(&a);
    rig_free(&r);
}

static void two_hundred_loads_and_unloads_leave_nothing(void)
{
    struct rig r = rig_new(2);

    rig_load_ok(&r, "stays", 1, dir_batch);
    for (unsigned i = 0; i < 200; i++) {
        rig_load_ok(&r, "m", 1, dir_two);
        CHECK_EQ(rig_infer(&r, i % 2 ? "m" : "stays", 2, 4), 0);
        CHECK_EQ(rig_unload(&r, "m"), 0);
        if (check_failures)
            break;
    }
    rig_free(&r);
}

static void what_a_backend_starts_for_runs_is_not_as_nice_as_the_builder(void)
{
    struct rig r = rig_new(1);

    CHECK_EQ(fake.thread_nice, own_nice());
    CHECK(fake.builder_nice > own_nice() || own_nice() >= 10);
    rig_free(&r);
}

static void stopping_with_models_loaded_closes_everything(void)
{
    struct rig r = rig_new(4);
    struct model_spec s = rig_spec("late", 1, dir_batch);
    struct job job = {0};

    rig_load_ok(&r, "a", 1, dir_batch);
    rig_load_ok(&r, "b", 1, dir_two);
    rig_load_ok(&r, "c", 1, dir_free);
    fake.compile_us = 20000;
    engine_load(r.e, &s, &job, r.cq); /* under way when the engine goes */
    engine_free(r.e);
    struct cq_item *it = rig_next(&r, 0);
    CHECK(it == &job.item);
    CHECK(job.rc == -ECANCELED || job.rc == 0);
    cq_free(r.cq);
    CHECK_EQ(fake.slots + fake.exes + fake.parts + fake.devices, 0);
}

static void models_come_and_go_on_real_cores(void)
{
    enum { N = 20 };
    static struct request q[N];
    struct rig r = rig_on(&backend_cpu);
    unsigned right = 0;

    memset(&fake, 0, sizeof(fake));
    rig_load_ok(&r, "a", 1, dir_batch);
    rig_load_ok(&r, "b", 1, dir_two);
    rig_load_ok(&r, "c", 1, dir_free);
    rig_load_ok(&r, "fixed", 1, dir_fixed);
    for (unsigned i = 0; i < N; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], i % 2 ? "a" : "b", 1 + i % 4, 4, (float)i * 10), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
    }
    for (unsigned i = 0; i < N; i++) {
        struct request *done = (struct request *)rig_next(&r, WAIT_MS);
        right += done && rig_right(done);
    }
    CHECK_EQ(right, N);
    for (unsigned i = 0; i < N; i++)
        rig_drop(&q[i]);
    CHECK_EQ(rig_infer(&r, "fixed", 2, 4), 0);
    for (int64_t cols = 1; cols < 10; cols++)
        CHECK_EQ(rig_infer(&r, "c", 3, cols), 0);
    CHECK_EQ(rig_unload(&r, "b"), 0);
    CHECK_EQ(rig_infer(&r, "a", 8, 4), 0);
    rig_free(&r);
}

static void from_its_first_point_until_it_serves_what_a_model_has_on_the_device_stays(void)
{
    struct rig r = rig_new(4);

    rig_load_ok(&r, "m", 1, dir_batch);
    CHECK(fake.compiles > 2);
    CHECK_EQ(fake.exes_gone, 0);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    rig_free(&r);
}

/* ---- request memory */
static void freed(struct engine *e, uint64_t bytes, bool stays)
{
    struct slab *s;

    CHECK_EQ(slab_new(engine_pool(e), bytes, &s), 0);
    memset(s->data, 7, s->bytes);
    const char *data = s->data;
    CHECK(data >= (char *)fake.region.base &&
          data + bytes <= (char *)fake.region.base + fake.region.bytes);
    slab_put(s);
    CHECK_EQ(data[bytes - 1], stays ? 7 : 0);
}

/* What it read would be the old pages, what it wrote nobody would see. */
static void request_memory_that_a_device_holds_stays_where_it_is(void)
{
    for (int holds = 0; holds < 2; holds++) {
        memset(&fake, 0, sizeof(fake));
        fake.granules = 1;
        fake.holds = holds;
        struct rig r = rig_on(&backend_fake);
        freed(r.e, UINT64_C(20) << 20, holds);
        rig_free(&r);
    }
}

int main(void)
{
    dir_batch = fake_model("batch", "Add", "x,x", "batch,4");
    dir_fixed = fake_model("fixed", "Add", "x,x", "2,4");
    dir_two = fake_model("two", "Add", "x,z", "batch,4");
    dir_free = fake_model("free", "Add", "x,x", "batch,cols");
    RUN(a_loaded_model_answers_and_an_unloaded_one_is_gone);
    RUN(slots_of_all_batches_that_are_compiled_count);
    RUN(every_request_gets_its_own_rows_when_they_are_joined);
    RUN(requests_submitted_for_later_wake_their_executor_once);
    RUN(nobody_waits_for_more_than_a_few_requests_to_be_woken);
    RUN(a_full_queue_refuses_at_once_and_says_when_to_come_back);
    RUN(beyond_its_allowance_a_model_waits_for_the_others);
    RUN(where_all_are_beyond_nobody_waits_for_the_others);
    RUN(a_request_that_gets_late_in_its_queue_is_dropped);
    RUN(what_is_certainly_late_is_refused_before_it_waits);
    RUN(a_prediction_that_rose_is_put_right_by_a_run);
    RUN(shapes_that_do_not_go_together_name_input_and_dimension);
    RUN(a_fixed_batch_is_served_as_it_is);
    RUN(a_new_shape_is_compiled_while_its_request_waits);
    RUN(requests_of_different_shapes_never_share_a_run);
    RUN(a_run_tells_the_device_how_urgent_it_is);
    RUN(requests_that_wait_change_their_class_with_their_model);
    RUN(compiled_shapes_are_limited_and_the_oldest_goes);
    RUN(a_load_that_fails_leaves_what_was_there);
    RUN(a_new_version_takes_over_and_the_old_one_goes);
    RUN(other_numbers_change_without_compiling);
    RUN(loading_one_model_does_not_delay_another);
    RUN(unloading_waits_for_the_last_request_and_frees_all);
    RUN(a_withdrawn_request_belongs_to_its_thread_again);
    RUN(a_failed_run_fails_its_requests_and_nothing_else);
    RUN(a_bad_input_fails_alone_and_not_those_it_was_joined_with);
    RUN(outputs_have_the_shape_that_the_run_decided);
    RUN(outputs_that_find_no_room_fail_their_request_and_nothing_else);
    RUN(a_run_beyond_its_memory_fails_its_request_and_nothing_else);
    RUN(outputs_that_have_no_room_together_are_made_one_by_one);
    RUN(a_lost_partition_is_opened_again_and_what_waited_is_served);
    RUN(a_lost_device_is_told_to_the_watchdog);
    RUN(a_stalled_run_is_told_to_the_watchdog);
    RUN(a_model_without_a_place_is_refused_by_what_binds);
    RUN(models_share_the_granules_and_the_plan_can_be_pinned);
    RUN(a_dry_run_says_what_the_policy_would_do);
    RUN(the_running_problem_and_plan_can_be_read_as_a_file);
    RUN(events_are_numbered_and_read_once);
    RUN(two_hundred_loads_and_unloads_leave_nothing);
    RUN(what_a_backend_starts_for_runs_is_not_as_nice_as_the_builder);
    RUN(stopping_with_models_loaded_closes_everything);
    RUN(models_come_and_go_on_real_cores);
    RUN(from_its_first_point_until_it_serves_what_a_model_has_on_the_device_stays);
    RUN(request_memory_that_a_device_holds_stays_where_it_is);
    fake_cleanup();
    free(dir_batch);
    free(dir_fixed);
    free(dir_two);
    free(dir_free);
    return check_end();
}
