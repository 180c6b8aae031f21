/* What is it worth that the next run goes ahead?  One gpu-let of a simulated device whose queue
 * never gets empty, by turns with a device that takes the next run ahead and one that does not:
 * runs that were served over those that fit in the time.  What lies between two runs is real: to be
 * told of an end, to wake, to choose, to hand over.
 *
 *   bench_ahead [SECONDS a turn] */
#include "test/unit/engine_rig.h"

#include <gpulet/sim.h>

#define PAIRS 9
#define WAITING 16
#define AHEAD_MS 0.2

static struct rig rig_sim(double run_ms, double ahead_ms)
{
    struct engine_config cfg = {.backend = &backend_sim,
                                .policy = policy_at(0),
                                .host_bytes = 64u << 20,
                                .queue_max = 4 * WAITING,
                                .max_batch = 1,
                                .timeout_us = 10 * USEC_PER_SEC,
                                .step_bound_us = 10 * USEC_PER_SEC};
    char path[] = "/tmp/bench-ahead-XXXXXX";
    struct rig r = {0};
    struct err err = {0};
    FILE *f = fdopen(mkstemp(path), "w");

    assert(f);
    (void)fprintf(f,
                  "{\"version\": 1, \"types\": [{\"name\": \"t\", \"granules\": 1}],"
                  " \"devices\": [{\"type\": \"t\", \"count\": 1}],"
                  " \"models\": [{\"name\": \"m\", \"max_batch\": 1, \"profile\": {\"t\":"
                  " {\"batch\": [1], \"units\": [1], \"run_ms\": [[%g]]}}}],"
                  " \"sim\": {\"ahead_ms\": %g}}",
                  run_ms, ahead_ms);
    assert(fclose(f) == 0);
    (void)snprintf(cfg.device.sim_file, sizeof(cfg.device.sim_file), "%s", path);
    if (engine_new(&cfg, &r.e, &err) < 0 || cq_new(&r.cq) < 0) {
        (void)fprintf(stderr, "bench_ahead: %s\n", err.msg);
        exit(1);
    }
    (void)unlink(path);
    return r;
}

/* Of the time, the part in which the device ran. */
static double used(const char *dir, double run_ms, double ahead_ms, double seconds)
{
    static struct request q[WAITING];
    struct rig r = rig_sim(run_ms, ahead_ms);
    struct cq_item *it;
    uint64_t n = 0;

    rig_load_ok(&r, "m", 1, dir);
    usec_t from_us = clock_now_us(), until_us = from_us + (usec_t)(seconds * 1e6);
    for (unsigned i = 0; i < WAITING; i++) {
        CHECK_EQ(rig_fill(&r, &q[i], "m", 1, 4, 3), 0);
        CHECK_EQ(engine_submit(r.e, &q[i]), 0);
    }
    usec_t now_us = from_us;
    for (unsigned left = WAITING; left > 0 && (it = rig_next(&r, WAIT_MS));) {
        struct request *back = (struct request *)it;
        if (now_us < until_us) {
            now_us = clock_now_us();
            n += now_us < until_us;
        }
        rig_drop(back);
        if (now_us >= until_us || rig_fill(&r, back, "m", 1, 4, 3) < 0 ||
            engine_submit(r.e, back) < 0)
            left--;
    }
    rig_free(&r);
    return (double)n * run_ms / (seconds * 1000);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const double ms[] = {0.5, 1, 2, 5, 10};
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    char *dir = fake_model("ahead", "Add", "x,x", "1,4");

    printf("%8s %14s %14s %22s\n", "RUN ms", "USED, ahead 0", "ahead 0.2 ms",
           "RATIO (least to most)");
    for (size_t i = 0; i < ARRAY_SIZE(ms); i++) {
        double without[PAIRS], with[PAIRS], ratio[PAIRS];
        for (unsigned k = 0; k < PAIRS; k++) {
            without[k] = used(dir, ms[i], 0, seconds);
            with[k] = used(dir, ms[i], AHEAD_MS, seconds);
            ratio[k] = with[k] / without[k];
        }
        qsort(without, PAIRS, sizeof(double), by_value);
        qsort(with, PAIRS, sizeof(double), by_value);
        qsort(ratio, PAIRS, sizeof(double), by_value);
        printf("%8.1f %14.4f %14.4f %8.3f (%.3f to %.3f)\n", ms[i], without[PAIRS / 2],
               with[PAIRS / 2], ratio[PAIRS / 2], ratio[0], ratio[PAIRS - 1]);
        (void)fflush(stdout);
    }
    free(dir);
    fake_cleanup();
    return check_end();
}
