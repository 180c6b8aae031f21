/* Second thoughts: with a policy that says what is found at leisure, or never ends. */
#include "engine_rig.h"

#include <gpulet/policy.h>

static char *dir_batch;

/* At once: nothing holds.  At leisure: as the test says; nothing holds either. */
static enum { FINDS, FINDS_NOTHING, NEVER_ENDS } mood;
static _Atomic unsigned thoughts, ended;
static const struct policy *whole;

static int think(const struct problem *p, const struct plan *was, struct arena *a, struct plan *ret,
                 struct err *err)
{
    const struct plan_leisure *l = p->rules.leisure;

    (void)atomic_fetch_add(&thoughts, 1);
    while (mood == NEVER_ENDS && !l->is_over(l->of))
        fake_sleep(1000);
    (void)atomic_fetch_add(&ended, 1);
    if (mood != FINDS)
        return err_set(err, mood == NEVER_ENDS ? -ECANCELED : -EALREADY, "as the test wants it");
    return whole->plan_make(p, was, a, ret, err);
}

static int plan_make(const struct problem *p, const struct plan *was, struct arena *a,
                     struct plan *ret, struct err *err)
{
    int r =
        p->rules.leisure ? think(p, was, a, ret, err) : policy_equal.plan_make(p, was, a, ret, err);

    for (uint32_t m = 0; r == 0 && m < p->n_models; m++)
        ret->verdict[m].limit = LIMIT_RATE;
    return r;
}

/* Two models, each in a gpu-let of its own; whole, they share one. */
static struct rig rig_begin(void)
{
    static struct policy policy;
    struct err err;

    memset(&fake, 0, sizeof(fake));
    fake.granules = 2;
    fake.run_us = 200;
    atomic_store(&thoughts, 0);
    atomic_store(&ended, 0);
    policy = policy_equal;
    policy.leisure = true;
    policy.plan_make = plan_make;
    CHECK_EQ(policy_find("fifo", &whole, &err), 0);
    struct rig r = rig_with(&backend_fake, &policy);
    rig_load_ok(&r, "a", 1, dir_batch);
    rig_load_ok(&r, "b", 1, dir_batch);
    return r;
}

static bool told(struct rig *r, const char *what, const char *why)
{
    struct view_event *ev;
    struct arena a;
    uint32_t n = 0;
    uint64_t last;
    bool found = false;

    arena_init(&a);
    CHECK_EQ(engine_events(r->e, 0, &a, &ev, &n, &last), 0);
    for (uint32_t i = 0; i < n; i++)
        found |= STREQ(ev[i].what, what) && strstr(ev[i].msg, why);
    arena_done(&a);
    return found;
}

/* Asks for both models until *count is that much, or for so long. */
static void ask_until(struct rig *r, _Atomic unsigned *count, unsigned n, usec_t most_us)
{
    for (usec_t us = 0; atomic_load(count) < n && us < most_us; us += 5000) {
        CHECK_EQ(rig_infer(r, "a", 1, 4), 0);
        CHECK_EQ(rig_infer(r, "b", 1, 4), 0);
        fake_sleep(5000);
    }
}

/* The same without asking, by which demand would be known and another problem made. */
static void wait_until(_Atomic unsigned *count, unsigned n, usec_t most_us)
{
    for (usec_t us = 0; atomic_load(count) < n && us < most_us; us += 5000)
        fake_sleep(5000);
}

static uint32_t n_serving(struct rig *r)
{
    struct engine_view *v;
    struct err err;
    uint32_t n = 0;

    CHECK_EQ(engine_view(r->e, &v, &err), 0);
    for (uint32_t i = 0; i < v->n_gpulets; i++)
        n += STREQ(v->gpulet[i].state, "serving");
    engine_view_free(v);
    return n;
}

static void what_is_found_at_leisure_comes_into_force_while_all_are_served(void)
{
    mood = FINDS;
    struct rig r = rig_begin();

    CHECK_EQ(n_serving(&r), 2);
    ask_until(&r, &ended, 1, 20 * USEC_PER_SEC);
    for (unsigned i = 0; i < 2000 && !told(&r, "swap", "at leisure"); i++)
        ask_until(&r, &ended, UINT32_MAX, 5000);
    CHECK(told(&r, "plan", "at leisure"));
    CHECK(told(&r, "swap", "at leisure"));
    CHECK_EQ(n_serving(&r), 1);
    CHECK_EQ(rig_infer(&r, "a", 1, 4), 0);
    rig_free(&r);
}

static void a_problem_is_thought_over_once(void)
{
    for (unsigned i = 0; i < 2; i++) {
        mood = i ? FINDS_NOTHING : FINDS;
        struct rig r = rig_begin();
        wait_until(&ended, 1, 20 * USEC_PER_SEC);
        wait_until(&ended, 2, 3 * USEC_PER_SEC);
        CHECK_EQ(ended, 1);
        rig_free(&r);
    }
}

static void a_change_ends_a_second_thought_and_is_thought_over_itself(void)
{
    mood = NEVER_ENDS;
    struct rig r = rig_begin();

    ask_until(&r, &thoughts, 1, 20 * USEC_PER_SEC);
    CHECK_EQ(ended, 0);
    rig_load_ok(&r, "c", 1, dir_batch);
    ask_until(&r, &thoughts, 2, 20 * USEC_PER_SEC);
    CHECK_EQ(thoughts, 2);
    CHECK_EQ(ended, 1);
    rig_free(&r);
}

static void a_plan_by_hand_is_not_thought_over(void)
{
    struct pin_share share[2] = {{.model = "a"}, {.model = "b"}};
    struct pin_gpulet pin = {.n_shares = 2, .share = share};
    struct job job = {0};

    mood = FINDS_NOTHING;
    struct rig r = rig_begin();
    granules_add(&pin.set, 0);
    engine_plan_pin(r.e, 1, &pin, &job, r.cq);
    CHECK_EQ(rig_job(&r, &job), 0);
    unsigned before = thoughts;
    ask_until(&r, &thoughts, before + 1, 3 * USEC_PER_SEC);
    CHECK_EQ(thoughts, before);
    rig_free(&r);
}

static void stopping_ends_a_second_thought(void)
{
    mood = NEVER_ENDS;
    struct rig r = rig_begin();

    ask_until(&r, &thoughts, 1, 20 * USEC_PER_SEC);
    CHECK_EQ(ended, 0);
    rig_free(&r); /* comes back */
    CHECK_EQ(ended, 1);
}

int main(void)
{
    dir_batch = fake_model("batch", "Add", "x,x", "batch,4");
    RUN(what_is_found_at_leisure_comes_into_force_while_all_are_served);
    RUN(a_problem_is_thought_over_once);
    RUN(a_change_ends_a_second_thought_and_is_thought_over_itself);
    RUN(a_plan_by_hand_is_not_thought_over);
    RUN(stopping_ends_a_second_thought);
    fake_cleanup();
    return check_end();
}
