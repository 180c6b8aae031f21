/* A model in fp16 or bf16 is compared with itself in FP32, while nothing comes.  The fake backend's
 * results in these are off by as much as the test says. */
#include "engine_rig.h"

#include <limits.h>

static char *dir_batch;

static int load(struct rig *r, const char *name, uint32_t version, enum precision precision)
{
    struct model_spec s = rig_spec(name, version, dir_batch);
    struct job job;

    s.precision = precision;
    return rig_load(r, &s, &job);
}

/* What is known of the model; false: it is in FP32, or not there.  The texts are static. */
static bool known(struct rig *r, const char *name, struct accuracy *ret,
                  struct accuracy_output *out)
{
    static char why[240];
    struct engine_view *v;
    struct err err;
    bool found = false;

    CHECK_EQ(engine_view(r->e, &v, &err), 0);
    for (uint32_t i = 0; i < v->n_models; i++) {
        const struct accuracy *a = v->model[i].accuracy;
        if (!a || !STREQ(v->model[i].spec.name, name))
            continue;
        found = true;
        *ret = *a;
        (void)snprintf(why, sizeof(why), "%s", a->why);
        ret->why = why;
        if (a->n_out)
            *out = a->out[0];
    }
    engine_view_free(v);
    return found;
}

/* Waits until it is compared, or cannot be. */
static void wait_known(struct rig *r, const char *name, struct accuracy *ret,
                       struct accuracy_output *out)
{
    *ret = (struct accuracy){.why = ""};
    for (unsigned ms = 0; ms < WAIT_MS && !ret->n_out && !ret->why[0]; ms += 5) {
        fake_sleep(5000);
        CHECK(known(r, name, ret, out));
    }
}

/* Events of that kind about the model; *ret_level of the last, and whether its text has `text`. */
static unsigned told(struct rig *r, const char *name, const char *text, int *ret_level)
{
    struct view_event *ev;
    struct arena a;
    uint32_t n = 0;
    uint64_t last;
    unsigned found = 0;

    arena_init(&a);
    CHECK_EQ(engine_events(r->e, 0, &a, &ev, &n, &last), 0);
    for (uint32_t i = 0; i < n; i++)
        if (STREQ(ev[i].what, "accuracy") && STREQ(ev[i].model, name)) {
            found++;
            *ret_level = ev[i].level;
            CHECK_HAS(ev[i].msg, text);
        }
    arena_done(&a);
    return found;
}

/* Until the builder has compiled for a comparison, whose runs take long then; *ret: how many
 * compiles there had been. */
static void wait_begun(uint64_t *ret)
{
    *ret = fake.compiles;
    fake.run_us = USEC_PER_SEC / 2;
    for (unsigned ms = 0; ms < WAIT_MS && fake.compiles == *ret; ms++)
        fake_sleep(1000);
    CHECK(fake.compiles > *ret);
}

static void a_model_in_bf16_is_compared_once_and_one_in_fp32_never(void)
{
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    int level = 0;

    fake.half_off = 1.f / 256;
    CHECK_EQ(load(&r, "whole", 1, PRECISION_FP32), 0);
    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    CHECK(known(&r, "half", &a, &out));
    CHECK_EQ(a.n_out, 0); /* it serves before it is compared */
    CHECK_EQ(rig_infer(&r, "whole", 1, 4), 0);
    wait_known(&r, "half", &a, &out);
    CHECK_EQ(a.n_out, 1);
    CHECK_EQ(a.rows, 8);
    CHECK(!a.zeros);
    CHECK_EQ(out.n, 8 * 4);
    CHECK_EQ(out.n_overflowed, 0);
    CHECK(out.max_error > 0.0039 && out.max_error < 0.0040); /* 1/256 = 0.00390625 */
    CHECK(out.rms_error > 0.0039 && out.rms_error < 0.0040);
    CHECK(out.same_top == 1);
    uint64_t runs = fake.runs;
    fake_sleep(USEC_PER_SEC); /* four times as long as the builder waits between two things */
    CHECK_EQ(fake.runs, runs);
    CHECK_EQ(told(&r, "half", "bf16 against fp32, 8 rows: output 'y' is off by 0.0039", &level), 1);
    CHECK_EQ(level, 6);
    CHECK_EQ(told(&r, "whole", "", &level), 0);
    CHECK(!known(&r, "whole", &a, &out));
    rig_free(&r);
}

static void numbers_that_are_too_large_are_a_warning(void)
{
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    int level = 0;

    fake.half_most = 2; /* of twice the inputs, whose deviation is 1: a third of them or so */
    CHECK_EQ(load(&r, "half", 1, PRECISION_FP16), 0);
    wait_known(&r, "half", &a, &out);
    CHECK_EQ(a.n_out, 1);
    CHECK(out.n_overflowed > 3 && out.n_overflowed < 20);
    CHECK(out.max_error == 0); /* the others are right */
    CHECK(out.same_top < 1);
    CHECK_EQ(told(&r, "half", "of 32 entries are not finite in fp16, but in fp32", &level), 1);
    CHECK_EQ(level, 4);
    rig_free(&r);
}

static void a_request_ends_it_and_it_is_begun_anew(void)
{
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    uint64_t compiles;
    int level = 0;

    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    wait_begun(&compiles);
    CHECK_EQ(rig_infer(&r, "half", 1, 4), 0);
    fake.run_us = 200;
    wait_known(&r, "half", &a, &out);
    CHECK_EQ(a.n_out, 1);
    CHECK(fake.compiles > compiles + 2); /* two for each that is not ended */
    CHECK_EQ(told(&r, "half", "bf16 against fp32", &level), 1);
    rig_free(&r);
}

static void a_model_that_is_unloaded_meanwhile_is_not_compared(void)
{
    struct rig r = rig_new(1);
    uint64_t compiles;
    int level = 0;

    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    wait_begun(&compiles);
    CHECK_EQ(rig_unload(&r, "half"), 0);
    CHECK_EQ(told(&r, "half", "", &level), 0);
    CHECK_EQ(fake.exes, 0);
    rig_free(&r);
}

static void a_new_version_is_compared_anew_and_other_numbers_are_not(void)
{
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    struct model_spec s = rig_spec("half", 1, dir_batch);
    struct job job;
    int level = 0;

    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    wait_known(&r, "half", &a, &out);
    s.precision = PRECISION_BF16;
    s.rate_rps = 3;
    CHECK_EQ(rig_load(&r, &s, &job), 0);
    CHECK(known(&r, "half", &a, &out) && a.n_out == 1);
    CHECK_EQ(load(&r, "half", 2, PRECISION_FP16), 0);
    CHECK(known(&r, "half", &a, &out) && a.n_out == 0);
    wait_known(&r, "half", &a, &out);
    CHECK_EQ(told(&r, "half", "against fp32, 8 rows", &level), 2);
    rig_free(&r);
}

/* A request cuts it off and it is not due again for an hour: then the profile's points are
 * measured, which comes after comparisons. */
static void a_comparison_that_is_cut_off_leaves_its_turn_to_what_comes_after_it(void)
{
    rig_retry_us = 3600 * USEC_PER_SEC;
    struct rig r = rig_new(4);
    struct accuracy a;
    struct accuracy_output out = {0};
    uint64_t compiles, compiled;
    int level = 0;

    rig_retry_us = USEC_PER_SEC / 10;
    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    wait_begun(&compiles);
    CHECK_EQ(rig_infer(&r, "half", 1, 4), 0);
    fake.run_us = 200;
    compiled = fake.compiles;
    for (unsigned ms = 0; ms < WAIT_MS && fake.compiles < compiled + 3; ms += 5)
        fake_sleep(5000);
    CHECK(fake.compiles >= compiled + 3); /* a comparison has two */
    CHECK(known(&r, "half", &a, &out));
    CHECK_EQ(a.n_out, 0);
    CHECK_STR(a.why, "");
    CHECK_EQ(told(&r, "half", "", &level), 0);
    rig_free(&r);
}

static void a_lack_of_memory_that_passes_is_tried_again(void)
{
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    int level = 0;

    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    fake.fail_compiles = 1;
    wait_known(&r, "half", &a, &out);
    CHECK_EQ(a.n_out, 1);
    CHECK_STR(a.why, "");
    CHECK_EQ(told(&r, "half", "fp32", &level), 2); /* that it is done later, and what was found */
    CHECK_EQ(level, 6);
    rig_free(&r);
}

static bool is_begun(const char *name)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/%s.begun", rig_profiles, name);
    return access(path, F_OK) == 0;
}

static void a_comparison_is_noted_on_disk_until_it_is_cut_off_by_an_orderly_stop(void)
{
    rig_profiles = fake_root;
    struct rig r = rig_new(1);
    uint64_t compiles;

    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    CHECK(!is_begun("half"));
    wait_begun(&compiles);
    CHECK(is_begun("half"));
    engine_free(r.e); /* rig_free() would first look whether the comparison's memory is free */
    cq_free(r.cq);
    CHECK_EQ(fake.exes, 0);
    CHECK(!is_begun("half"));
    rig_profiles = NULL;
}

static int load_as_before(struct rig *r, const char *name, uint32_t version)
{
    struct model_spec s = rig_spec(name, version, dir_batch);
    struct job job;

    s.precision = PRECISION_BF16;
    s.as_before = true;
    return rig_load(r, &s, &job);
}

/* The device is lost so that the process must leave; the engine's end stands for that. */
static void lose_process(void)
{
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};

    CHECK_EQ(load(&r, "first", 1, PRECISION_BF16), 0);
    fake.exit_runs = 1;
    wait_known(&r, "first", &a, &out);
    CHECK_EQ(a.n_out, 0);
    rig_free(&r);
    CHECK(is_begun("first"));
}

/* `second` is compared when it is the turn of comparisons, and `first`'s turn is before it. */
static void what_ended_the_process_is_not_begun_again_by_a_restart(void)
{
    rig_profiles = fake_root;
    lose_process();
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    int level = 0;

    CHECK_EQ(load_as_before(&r, "first", 1), 0);
    CHECK_EQ(load_as_before(&r, "second", 1), 0);
    wait_known(&r, "second", &a, &out);
    CHECK_EQ(a.n_out, 1);
    CHECK(known(&r, "first", &a, &out));
    CHECK_EQ(a.n_out, 0);
    CHECK_STR(a.why, "the process ended while it was compared");
    CHECK_EQ(told(&r, "first", "bf16 cannot be compared with fp32: the process ended", &level), 1);
    CHECK_EQ(level, 4);
    CHECK_EQ(rig_infer(&r, "first", 1, 4), 0);
    rig_free(&r);
    CHECK(is_begun("first")); /* for the restart after this one */
    rig_profiles = NULL;
}

static void what_ended_the_process_is_tried_again_where_a_person_loads_it(void)
{
    rig_profiles = fake_root;
    lose_process();
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};

    CHECK_EQ(load(&r, "first", 1, PRECISION_BF16), 0);
    CHECK(!is_begun("first"));
    wait_known(&r, "first", &a, &out);
    CHECK_EQ(a.n_out, 1);
    CHECK_STR(a.why, "");
    rig_free(&r);
    CHECK(!is_begun("first"));
    lose_process();
    r = rig_new(1);
    CHECK_EQ(load_as_before(&r, "first", 2), 0); /* one that was given just before the end */
    wait_known(&r, "first", &a, &out);
    CHECK_EQ(a.n_out, 1);
    rig_free(&r);
    rig_profiles = NULL;
}

/* Nothing may be made where it cannot be noted. */
static void without_a_place_for_the_note_it_is_not_begun(void)
{
    rig_profiles = "/nonexistent/profiles";
    struct rig r = rig_new(1);
    struct accuracy a;
    struct accuracy_output out = {0};
    int level = 0;

    CHECK_EQ(load(&r, "half", 1, PRECISION_BF16), 0);
    uint64_t runs = fake.runs;
    wait_known(&r, "half", &a, &out);
    CHECK_STR(a.why, "it cannot be noted that it is begun: No such file or directory");
    CHECK_EQ(told(&r, "half", "it cannot be noted", &level), 3);
    CHECK_EQ(fake.runs, runs);
    rig_free(&r);
    rig_profiles = NULL;
}

/* The first one finds no memory as often as it is tried, the other one loses the partition of its
 * run, which is not tried again. */
static void what_cannot_be_compared_says_why_and_serves_on(void)
{
    struct rig r = rig_new(2);
    struct accuracy a, b;
    struct accuracy_output out = {0};
    int level = 0;

    CHECK_EQ(load(&r, "first", 1, PRECISION_BF16), 0);
    fake.fail_compiles = 1000;
    wait_known(&r, "first", &a, &out);
    fake.fail_compiles = 0;
    CHECK_EQ(a.n_out, 0);
    CHECK_STR(a.why, "in fp32: no memory for the fake backend");
    CHECK_EQ(told(&r, "first", "in fp32: no memory", &level), 3);
    CHECK_EQ(level, 4);
    CHECK_EQ(load(&r, "second", 1, PRECISION_BF16), 0);
    fake.lose_runs = 1;
    wait_known(&r, "second", &b, &out);
    CHECK_EQ(b.n_out, 0);
    CHECK_HAS(b.why, "in fp32: No such device");
    CHECK_EQ(told(&r, "second", "bf16 cannot be compared with fp32: in fp32: No such", &level), 1);
    CHECK_EQ(rig_infer(&r, "first", 1, 4), 0);
    CHECK_EQ(rig_infer(&r, "second", 1, 4), 0); /* its own partition is there */
    rig_free(&r);
}

int main(void)
{
    dir_batch = fake_model("batch", "Tanh", "x", "batch,4");
    RUN(a_model_in_bf16_is_compared_once_and_one_in_fp32_never);
    RUN(numbers_that_are_too_large_are_a_warning);
    RUN(a_request_ends_it_and_it_is_begun_anew);
    RUN(a_model_that_is_unloaded_meanwhile_is_not_compared);
    RUN(a_new_version_is_compared_anew_and_other_numbers_are_not);
    RUN(what_cannot_be_compared_says_why_and_serves_on);
    RUN(a_comparison_that_is_cut_off_leaves_its_turn_to_what_comes_after_it);
    RUN(a_lack_of_memory_that_passes_is_tried_again);
    RUN(a_comparison_is_noted_on_disk_until_it_is_cut_off_by_an_orderly_stop);
    RUN(what_ended_the_process_is_not_begun_again_by_a_restart);
    RUN(what_ended_the_process_is_tried_again_where_a_person_loads_it);
    RUN(without_a_place_for_the_note_it_is_not_begun);
    free(dir_batch);
    fake_cleanup();
    return check_end();
}
