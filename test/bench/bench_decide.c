/* What the decisions for one request cost.
 *
 * First the decisions alone: admit, route and batch_next of every policy, with 10 and with 1,000
 * models, each in two gpu-lets of its own.  A decision sees the views of one model or of one
 * gpu-let, so what grows with the models is only how much lies outside the caches.  Median of 5
 * times 200,000 requests.
 *
 * Then in an engine on a simulated device that takes no time: the CPU time from a model's name to
 * the hand-over (the thread that submits), and of the whole process for a request, with 10 and with
 * 1,000 models loaded.  Both engines are there at once and take turns; medians and quartiles.
 *
 * Last at twice what a simulated device can do, Poisson: how long a request that is refused was
 * looked at. */
#include "test/unit/engine_rig.h"

#include <gpulet/policy.h>
#include <math.h>
#include <time.h>

#define RUNS 5
#define REQUESTS 200000
#define LETS 2
#define WAITING 4

static usec_t run_us[9];

struct model {
    struct let_view let[LETS];
    struct queue_view queue;
};

static void model_fill(struct model *m)
{
    for (uint32_t k = 0; k < LETS; k++)
        m->let[k] = (struct let_view){.free_us = 1000 * k,
                                      .mine_us = 300,
                                      .least_us = 300,
                                      .full_us = 1000,
                                      .part = 1.0 / LETS};
    m->queue = (struct queue_view){
        .n = WAITING, .max_batch = 8, .run_us = run_us, .least_us = 300, .ready = true};
    for (uint32_t i = 0; i < WAITING; i++) {
        m->queue.rows[i] = 1;
        m->queue.deadline_us[i] = 20000;
    }
}

static double ns_each(const struct policy *by, struct model *m, uint32_t n)
{
    uint32_t at = 1, sum = 0;
    uint64_t t0 = clock_now_ns();

    for (uint32_t i = 0; i < REQUESTS; i++) {
        at = at * 1664525u + 1013904223u;
        struct model *x = &m[(at >> 8) % n];
        struct admit_view v = {
            .now_us = 1000, .deadline_us = 20000, .queue_max = 100, .n_lets = LETS, .let = x->let};
        struct batch_view b = {.now_us = 1000,
                               .busy_until_us = 1000,
                               .max_flying = 1,
                               .n_queues = 1,
                               .queue = &x->queue};
        sum += by->admit(&v).what == ADMIT_YES;
        x->let[by->route(&v)].n_routed++;
        sum += by->batch_next(&b).take;
    }
    double ns = (double)(clock_now_ns() - t0) / REQUESTS;
    return sum ? ns : 0;
}

static double median(const struct policy *by, struct model *m, uint32_t n)
{
    double ns[RUNS];

    for (int i = 0; i < RUNS; i++) {
        double x = ns_each(by, m, n);
        int k = i;
        for (; k > 0 && ns[k - 1] > x; k--)
            ns[k] = ns[k - 1];
        ns[k] = x;
    }
    return ns[RUNS / 2];
}

static void decisions_print(void)
{
    static const uint32_t models[] = {10, 1000};

    for (uint32_t b = 1; b < ARRAY_SIZE(run_us); b++)
        run_us[b] = 200 + 100 * b;
    printf("%-14s %14s %14s\n", "ns a request", "10 models", "1,000 models");
    for (uint32_t i = 0; policy_at(i); i++) {
        printf("%-14s", policy_at(i)->name);
        for (uint32_t k = 0; k < ARRAY_SIZE(models); k++) {
            struct model *m = calloc(models[k], sizeof(*m));
            for (uint32_t j = 0; m && j < models[k]; j++)
                model_fill(&m[j]);
            printf(" %14.1f", m ? median(policy_at(i), m, models[k]) : 0);
            free(m);
        }
        printf("\n");
    }
}

/* ---- in an engine */

#define FEW 10
#define MANY 1000
#define BLOCK WAKE_REQUESTS_MAX
#define BLOCKS 100 /* in a turn */
#define TURNS 15

static struct rig rig_sim(const char *text)
{
    struct engine_config cfg = {.backend = &backend_sim,
                                .policy = policy_at(0),
                                .host_bytes = 64u << 20,
                                .queue_max = 4096,
                                .max_batch = 1, /* as many runs, however many models */
                                .timeout_us = 10 * USEC_PER_SEC,
                                .step_bound_us = 10 * USEC_PER_SEC};
    struct rig r = {0};
    struct err err = {0};
    char path[] = "/tmp/bench-decide-XXXXXX";
    int fd = mkstemp(path);

    assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
    (void)snprintf(cfg.device.sim_file, sizeof(cfg.device.sim_file), "%s", path);
    if (engine_new(&cfg, &r.e, &err) < 0 || cq_new(&r.cq) < 0) {
        (void)fprintf(stderr, "bench_decide: %s\n", err.msg);
        exit(1);
    }
    (void)unlink(path);
    return r;
}

static void name_of(unsigned i, char ret[MODEL_NAME_MAX])
{
    (void)snprintf(ret, MODEL_NAME_MAX, "model-%04u", i);
}

static struct rig rig_full(const char *dir, unsigned n)
{
    struct rig r =
        rig_sim("{\"version\": 1, \"types\": [{\"name\": \"t\", \"granules\": 4}],"
                " \"devices\": [{\"type\": \"t\", \"count\": 1}], \"models\": [],"
                " \"sim\": {\"launch_ms\": 0, \"flops_per_s\": 1e18, \"bytes_per_s\": 1e18}}");

    for (unsigned i = 0; i < n; i++) {
        char name[MODEL_NAME_MAX];
        name_of(i, name);
        rig_load_ok(&r, name, 1, dir);
    }
    return r;
}

static double cpu_us(clockid_t id)
{
    struct timespec t;

    (void)clock_gettime(id, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

struct spent {
    double thread_us, process_us;
};

/* A block of requests for FEW models at random, so that as many wait at once whatever there are:
 * found by name, admitted, submitted, woken together. */
static double block_us(struct rig *r, unsigned n, uint32_t *seed)
{
    struct request q[BLOCK];
    char name[BLOCK][MODEL_NAME_MAX];
    struct wakes wakes = {0};
    unsigned n_in = 0;

    *seed = *seed * 1664525u + 1013904223u;
    for (unsigned i = 0; i < BLOCK; i++) {
        name_of(((*seed >> 8) + i % FEW * (n / FEW)) % n, name[i]);
        CHECK_EQ(rig_fill(r, &q[i], name[i], 1, 4, 3), 0);
    }
    double us = cpu_us(CLOCK_THREAD_CPUTIME_ID);
    for (unsigned i = 0; i < BLOCK; i++) {
        struct served *s;
        struct err err;
        usec_t retry_us;
        if (served_get(r->e, name[i], 0, &s, &err) < 0)
            continue;
        if (engine_admit(r->e, s, clock_now_us() + USEC_PER_SEC, &retry_us, &err) == 0)
            n_in += engine_submit_later(r->e, &q[i], &wakes) == 0;
        served_put(s);
    }
    engine_wake(r->e, &wakes);
    us = cpu_us(CLOCK_THREAD_CPUTIME_ID) - us;
    CHECK_EQ(n_in, BLOCK);
    while (n_in > 0 && rig_next(r, WAIT_MS))
        n_in--;
    for (unsigned i = 0; i < BLOCK; i++)
        rig_drop(&q[i]);
    return us;
}

static struct spent turn(struct rig *r, unsigned n, uint32_t *seed)
{
    double process_us = cpu_us(CLOCK_PROCESS_CPUTIME_ID);
    struct spent c = {0};

    for (unsigned i = 0; i < BLOCKS; i++)
        c.thread_us += block_us(r, n, seed) / (BLOCK * BLOCKS);
    c.process_us = (cpu_us(CLOCK_PROCESS_CPUTIME_ID) - process_us) / (BLOCK * BLOCKS);
    return c;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void spread_print(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_value);
    printf("  %6.2f (%.2f to %.2f)", v[n / 2], v[n / 4], v[n - 1 - n / 4]);
}

static void costs_print(const char *what, double few[TURNS], double many[TURNS])
{
    double ratio[TURNS];

    for (unsigned i = 0; i < TURNS; i++)
        ratio[i] = many[i] / few[i];
    printf("%-30s", what);
    spread_print(few, TURNS);
    spread_print(many, TURNS);
    spread_print(ratio, TURNS);
    printf("\n");
}

static void engine_print(const char *dir)
{
    struct rig few = rig_full(dir, FEW), many = rig_full(dir, MANY);
    double thread[2][TURNS], process[2][TURNS];
    uint32_t seed = 1;

    (void)turn(&few, FEW, &seed);
    for (unsigned i = 0; i < 3; i++) /* every model a few times */
        (void)turn(&many, MANY, &seed);
    for (unsigned i = 0; i < TURNS; i++) {
        struct spent a = turn(&few, FEW, &seed), b = turn(&many, MANY, &seed);
        thread[0][i] = a.thread_us, process[0][i] = a.process_us;
        thread[1][i] = b.thread_us, process[1][i] = b.process_us;
    }
    printf("\n%-30s  %-22s  %-22s  %s\n", "CPU us a request", "10 models", "1,000 models", "ratio");
    costs_print("name, admit, route, hand over", thread[0], thread[1]);
    costs_print("all of the process", process[0], process[1]);
    rig_free(&few);
    rig_free(&many);
}

/* ---- overload */

#define LOAD_S 5
#define RUN_MS 1
#define SLO_US 20000

struct looked {
    uint64_t n_refused, n_answered;
    struct hist ns; /* of a refusal; its "us" are ns here */
};

static void completed(struct rig *r, struct looked *l, bool wait)
{
    struct cq_item *it;

    while ((it = rig_next(r, wait ? WAIT_MS : 0))) {
        struct request *q = (struct request *)(void *)it;
        l->n_answered += q->fate == FATE_DONE;
        rig_drop(q);
        free(q);
        if (wait && engine_pending(r->e) == 0)
            return;
    }
}

static void offer(struct rig *r, struct looked *l)
{
    struct request *q = calloc(1, sizeof(*q));
    struct served *s;
    struct err err;
    usec_t retry_us;

    assert(q && rig_fill(r, q, "busy", 1, 4, 3) == 0);
    uint64_t t0 = clock_now_ns();
    q->arrival_us = clock_now_us();
    q->deadline_us = q->arrival_us + SLO_US;
    int rc = served_get(r->e, "busy", 0, &s, &err);
    if (rc == 0) {
        rc = engine_admit(r->e, s, q->deadline_us, &retry_us, &err);
        served_put(s);
    }
    if (rc == 0)
        rc = engine_submit(r->e, q);
    if (rc == 0)
        return;
    hist_add(&l->ns, clock_now_ns() - t0);
    l->n_refused++;
    rig_drop(q);
    free(q);
}

static void overload_print(const char *dir)
{
    struct rig r = rig_sim("{\"version\": 1, \"types\": [{\"name\": \"t\", \"granules\": 1}],"
                           " \"devices\": [{\"type\": \"t\", \"count\": 1}],"
                           " \"models\": [{\"name\": \"busy\", \"max_batch\": 1, \"profile\":"
                           " {\"t\": {\"batch\": [1], \"units\": [1], \"run_ms\": [[1]]}}}]}");
    struct model_spec spec = rig_spec("busy", 1, dir);
    struct looked l = {0};
    struct job job;
    unsigned short seed[3] = {1, 2, 3};

    spec.slo_us = SLO_US;
    CHECK_EQ(rig_load(&r, &spec, &job), 0);
    usec_t start_us = clock_now_us();
    double due_us = (double)start_us;
    while (due_us < (double)start_us + LOAD_S * 1e6) {
        due_us += -log(1 - erand48(seed)) * RUN_MS * 1e3 / 2;
        while ((double)clock_now_us() < due_us) {
            completed(&r, &l, false);
            if ((double)clock_now_us() + 100 < due_us)
                fake_sleep(50);
        }
        offer(&r, &l);
    }
    completed(&r, &l, true);
    printf("\nTwice what the device can do, %d s: %llu answered, %llu refused, in %.1f us (p50), "
           "%.1f (p99)\n",
           LOAD_S, (unsigned long long)l.n_answered, (unsigned long long)l.n_refused,
           (double)hist_quantile(&l.ns, 0.5) / 1e3, (double)hist_quantile(&l.ns, 0.99) / 1e3);
    rig_free(&r);
}

int main(void)
{
    decisions_print();
    char *dir = fake_model("batch", "Add", "x,x", "batch,4");
    engine_print(dir);
    overload_print(dir);
    free(dir);
    fake_cleanup();
    return 0;
}
