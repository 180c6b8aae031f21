/* Everything at once: threads that submit and withdraw, others that load, reload, unload, repin
 * and look, on a backend that loses partitions now and then.  Every accepted request comes back
 * once, with its own rows or a reason, and nothing is left. */
#include "test/unit/engine_rig.h"

enum { SUBMITTERS = 3, IN_FLIGHT = 16, RUN_MS = 4000 };

static struct rig rig;
static char *dir_batch, *dir_two, *dir_free;
static _Atomic bool stop;
static _Atomic uint64_t n_right, n_wrong, n_refused, n_failed, n_late, n_withdrawn, n_lost;
static _Atomic uint64_t n_loads, n_unloads, n_pins, n_views, n_always_failed;

static uint32_t next_random(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

static void completed(struct request *q)
{
    if (q->fate == FATE_DONE)
        (void)(rig_right(q) ? n_right++ : n_wrong++);
    else if (q->fate == FATE_LATE)
        n_late++;
    else if (q->fate == FATE_FAILED)
        n_failed++;
    else
        n_wrong++;
    rig_drop(q);
}

/* The next completion of this thread's own queue. */
static struct request *take(struct rig *mine, int ms)
{
    return (struct request *)rig_next(mine, ms);
}

static void *submitter(void *arg)
{
    static const char *const models[] = {"always", "comes", "free"};
    uint32_t seed = (uint32_t)(uintptr_t)arg * 2654435761u + 1;
    struct rig mine = {.e = rig.e};
    struct request *flying[IN_FLIGHT] = {0};
    struct wakes wakes = {0};
    unsigned n = 0;

    CHECK_EQ(cq_new(&mine.cq), 0);
    while (!stop || n > 0) {
        struct request *q;
        if (!stop && n < IN_FLIGHT) {
            uint32_t x = next_random(&seed);
            const char *model = models[x % 3];
            q = calloc(1, sizeof(*q));
            int rc = rig_fill(&mine, q, model, 1 + x / 3 % 4,
                              STREQ(model, "free") ? 2 + x / 16 % 50 : 4, (float)(x % 1000));
            if (rc == 0 && x % 5 == 0)
                q->deadline_us = clock_now_us() + 2000;
            if (rc == 0)
                rc = x % 2 ? engine_submit(mine.e, q) : engine_submit_later(mine.e, q, &wakes);
            if (rc == 0) {
                for (unsigned i = 0; i < IN_FLIGHT; i++)
                    if (!flying[i]) {
                        flying[i] = q;
                        n++;
                        break;
                    }
            } else {
                if (STREQ(model, "always") && rc != -EAGAIN)
                    n_always_failed++;
                n_refused++;
                rig_drop(q);
                free(q);
                fake_sleep(200);
            }
            if (rc == 0 && x % 7 == 0 && engine_withdraw(mine.e, q)) {
                n_withdrawn++;
                rig_drop(q);
            } else {
                q = NULL;
            }
        } else {
            engine_wake(mine.e, &wakes);
            q = take(&mine, WAIT_MS);
            if (!q) {
                n_lost += n;
                break;
            }
            completed(q);
        }
        for (unsigned i = 0; q && i < IN_FLIGHT; i++)
            if (flying[i] == q) {
                flying[i] = NULL;
                free(q);
                n--;
                break;
            }
    }
    engine_wake(mine.e, &wakes);
    cq_free(mine.cq);
    return NULL;
}

static void job_wait(struct rig *mine, struct job *job)
{
    CHECK(rig_next(mine, WAIT_MS) == &job->item);
}

static void *loader(void *arg)
{
    const char *name = arg;
    uint32_t seed = 77, version = 1;
    struct rig mine = {.e = rig.e};

    CHECK_EQ(cq_new(&mine.cq), 0);
    while (!stop) {
        struct job job = {0};
        uint32_t x = next_random(&seed);
        if (x % 4 == 0) {
            engine_unload(mine.e, name, &job, mine.cq);
            n_unloads++;
        } else {
            struct model_spec s = rig_spec(name, version += x % 2, dir_batch);
            s.best_effort = x / 2 % 2;
            s.max_batch = 1 + x % 8;
            engine_load(mine.e, &s, &job, mine.cq);
            n_loads++;
        }
        job_wait(&mine, &job);
        fake_sleep(x % 3000);
    }
    cq_free(mine.cq);
    return NULL;
}

static void *pinner(void *arg)
{
    struct rig mine = {.e = rig.e};
    uint32_t seed = 5;

    (void)arg;
    CHECK_EQ(cq_new(&mine.cq), 0);
    while (!stop) {
        struct pin_share share[4] = {{.model = "always"}, {.model = "free"}, {.model = "comes"}};
        uint32_t x = next_random(&seed);
        struct pin_gpulet pin = {.n_shares = 2 + x % 2, .share = share};
        struct job job = {0};
        granules_add(&pin.set, x % 2);
        if (x % 3)
            granules_add(&pin.set, 1 - x % 2);
        engine_plan_pin(mine.e, x % 5 != 0, &pin, &job, mine.cq);
        job_wait(&mine, &job);
        n_pins += job.rc == 0;
        fake_sleep(20000);
    }
    cq_free(mine.cq);
    return NULL;
}

static void *watcher(void *arg)
{
    uint64_t last = 0;

    (void)arg;
    while (!stop) {
        struct engine_view *v;
        struct view_event *ev;
        struct arena a;
        struct err err;
        uint32_t n;
        if (engine_view(rig.e, &v, &err) == 0)
            engine_view_free(v);
        CHECK_EQ(engine_health(rig.e, &err), 0);
        arena_init(&a);
        CHECK_EQ(engine_events(rig.e, last, &a, &ev, &n, &last), 0);
        arena_done(&a);
        n_views++;
        fake.lose_runs = n_views % 100 == 50; /* now and then a partition goes */
        fake_sleep(5000);
    }
    return NULL;
}

static void everything_at_once_loses_no_request_and_leaves_nothing(void)
{
    pthread_t t[SUBMITTERS + 3];
    unsigned n = 0;

    rig = rig_new(2);
    rig_load_ok(&rig, "always", 1, dir_two);
    rig_load_ok(&rig, "free", 1, dir_free);
    for (uintptr_t i = 0; i < SUBMITTERS; i++)
        CHECK_EQ(pthread_create(&t[n++], NULL, submitter, (void *)(i + 1)), 0);
    CHECK_EQ(pthread_create(&t[n++], NULL, loader, (void *)(uintptr_t) "comes"), 0);
    CHECK_EQ(pthread_create(&t[n++], NULL, pinner, NULL), 0);
    CHECK_EQ(pthread_create(&t[n++], NULL, watcher, NULL), 0);
    fake_sleep(RUN_MS * USEC_PER_MSEC);
    stop = true;
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(t[i], NULL);
    printf("# right %" PRIu64 " late %" PRIu64 " failed %" PRIu64 " refused %" PRIu64
           " withdrawn %" PRIu64 " loads %" PRIu64 " unloads %" PRIu64 " pins %" PRIu64 "\n",
           n_right, n_late, n_failed, n_refused, n_withdrawn, n_loads, n_unloads, n_pins);
    CHECK_EQ(n_wrong, 0);
    CHECK_EQ(n_lost, 0);
    CHECK_EQ(n_always_failed, 0); /* a model that stays is never refused for another's sake */
    CHECK(n_right > 100);
    CHECK(n_loads > 5);
    rig_free(&rig);
}

int main(void)
{
    dir_batch = fake_model("batch", "Add", "x,x", "batch,4");
    dir_two = fake_model("two", "Add", "x,z", "batch,4");
    dir_free = fake_model("free", "Add", "x,x", "batch,cols");
    RUN(everything_at_once_loses_no_request_and_leaves_nothing);
    fake_cleanup();
    free(dir_batch);
    free(dir_two);
    free(dir_free);
    return check_end();
}
