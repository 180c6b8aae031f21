#include "../check.h"

#include <gpulet/clock.h>
#include <gpulet/queue.h>
#include <gpulet/replay.h>
#include <math.h>

/* ---- random gpu-lets, predicted and replayed */

static uint64_t seed;
static double uniform(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(seed >> 11) / 9007199254740992.0;
}
static double between(double lo, double hi)
{
    return lo * pow(hi / lo, uniform()); /* evenly on a logarithmic scale */
}

#define SHARES 4
#define CAP 32

struct rig {
    uint32_t n;
    uint32_t batches[SHARES][CAP], units[1];
    usec_t runs[SHARES][CAP];
    double run_us[SHARES][CAP + 1];
    struct profile profile[SHARES];
    struct plan_model model[SHARES];
    struct plan_share share[SHARES];
    struct queue_share queue[SHARES];
    struct plan_gpulet let;
    struct plan_type type;
    struct plan_device device;
    struct problem problem;
    struct plan plan;
};

static void rig_share(struct rig *g, uint32_t i, enum arrivals arrivals, double cv)
{
    uint32_t cap = 1u << (uint32_t)(uniform() * 6);
    double base = between(300, 20000), each = base * between(0.02, 1);

    for (uint32_t b = 1; b <= CAP; b++) {
        g->batches[i][b - 1] = b;
        g->runs[i][b - 1] = (usec_t)(base + each * b);
        g->run_us[i][b] = (double)g->runs[i][b - 1];
    }
    g->profile[i] = (struct profile){.n_batch = CAP,
                                     .n_units = 1,
                                     .batch = g->batches[i],
                                     .units = g->units,
                                     .run_us = g->runs[i]};
    g->model[i] = (struct plan_model){
        .name = "m", .arrivals = arrivals, .cv = cv, .max_batch = CAP, .profile = &g->profile[i]};
    g->share[i] = (struct plan_share){.model = i, .batch = cap};
}

/* The load is what full runs need; SLOs are some runs of everybody. */
static void rig_loads(struct rig *g, double load)
{
    double part[SHARES], sum = 0, all_us = 0;

    for (uint32_t i = 0; i < g->n; i++) {
        sum += part[i] = 0.2 + uniform();
        all_us += g->run_us[i][g->share[i].batch];
    }
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t cap = g->share[i].batch;
        double own_us = g->run_us[i][cap];
        g->model[i].rate_rps = 1e6 * load * part[i] / sum * cap / own_us;
        g->share[i].rate_rps = g->model[i].rate_rps;
        g->model[i].slo_us = (usec_t)(between(0.8, 3) * (own_us + all_us));
        g->queue[i] = (struct queue_share){.rate_rps = g->model[i].rate_rps,
                                           .arrivals = g->model[i].arrivals,
                                           .cv = g->model[i].cv,
                                           .slo_us = g->model[i].slo_us,
                                           .cap = cap,
                                           .streams = g->share[i].streams,
                                           .run_us = g->run_us[i]};
    }
}

static void rig_make(struct rig *g, uint32_t n, double load, enum arrivals arrivals, double cv)
{
    memset(g, 0, sizeof(*g));
    g->n = n;
    g->units[0] = 1;
    for (uint32_t i = 0; i < n; i++)
        rig_share(g, i, arrivals, cv);
    rig_loads(g, load);
    g->type = (struct plan_type){
        .name = "t", .n_granules = 1, .granule_units = 1, .predict = {.units = 1}};
    g->device.name = "d";
    g->let = (struct plan_gpulet){.units = 1, .n_shares = n, .share = g->share};
    g->let.set.bits[0] = 1;
    g->plan = (struct plan){.n_gpulets = 1, .gpulet = &g->let, .n_models = n};
    g->problem = (struct problem){.n_types = 1,
                                  .n_devices = 1,
                                  .n_models = n,
                                  .type = &g->type,
                                  .device = &g->device,
                                  .model = g->model};
}

static void rig_replay(const struct rig *g, double requests, struct arena *a,
                       struct replay_result *ret)
{
    struct err err = {0};
    double rate = 1e9;

    for (uint32_t i = 0; i < g->n; i++)
        rate = fmin(rate, g->model[i].rate_rps);
    struct replay_config cfg = {.problem = &g->problem,
                                .plan = &g->plan,
                                .policy = policy_at(0),
                                .seed = 1,
                                .queue_max = 1000000,
                                .duration_us = (usec_t)(1e6 * requests / rate)};
    CHECK_EQ(replay_run(&cfg, a, ret, &err), 0);
    CHECK_STR(err.msg, "");
}

static double late_of(const struct replay_model *m)
{
    return m->offered ? 1 - (double)m->in_time / (double)m->offered : 0;
}

/* How predictions compare with replays. */
struct tally {
    uint32_t n, both_bad, both_good, over, under; /* under: predicted <= 1 %, replayed > 1 % */
    double worst_under, ratio_log, over_1;
    double p99_log, us;
    uint32_t n_ratio, n_p99;
};

static void tally_add(struct tally *t, const struct queue_result *q, const struct replay_model *m)
{
    double late = late_of(m), error = 3 * sqrt(0.01 / (double)m->offered);
    bool bad = late > 0.01, said = q->late > 0.01;

    t->n++;
    t->both_bad += bad && said;
    t->both_good += !bad && !said;
    t->over += !bad && said;
    if (late > 0.01 + error && !said) {
        t->under++;
        t->worst_under = fmax(t->worst_under, late);
    }
    if (late > 1e-3 && late < 0.05 && q->late > 1e-5) {
        t->ratio_log += log(q->late / late);
        t->n_ratio++;
    }
    if (late < 0.01) {
        double x = fabs(log(q->p99_us / (double)hist_quantile(&m->latency, 0.99)));
        t->p99_log += x;
        t->n_p99++;
    }
}

static void tally_print(const char *name, const struct tally *t)
{
    printf("# %-24s %4u shares: ok/ok %3u, late/late %3u, said late only %3u, MISSED %3u "
           "(worst %.1f %%); late predicted/replayed %.2fx (%u); p99 off by %.1f %%; %.0f us\n",
           name, t->n, t->both_good, t->both_bad, t->over, t->under, 100 * t->worst_under,
           t->n_ratio ? exp(t->ratio_log / t->n_ratio) : 0, t->n_ratio,
           t->n_p99 ? 100 * (exp(t->p99_log / t->n_p99) - 1) : 0, t->us / t->n);
}

static void compare(const char *name, uint32_t cases, uint32_t n_shares, enum arrivals arrivals,
                    double cv, double requests, struct tally *t)
{
    static struct rig g;
    static char memory[4 << 20];

    *t = (struct tally){0};
    for (uint32_t k = 0; k < cases; k++) {
        struct queue_result q[SHARES];
        struct replay_result r = {0};
        struct arena a, scratch;
        struct err err = {0};
        rig_make(&g, n_shares, 0.05 + 0.9 * uniform(), arrivals, cv);
        arena_init_fixed(&scratch, memory, sizeof(memory));
        uint64_t t0 = clock_now_ns();
        CHECK_EQ(queue_predict(g.queue, g.n, &scratch, q, &err), 0);
        t->us += (double)(clock_now_ns() - t0) / 1e3;
        CHECK_STR(err.msg, "");
        arena_init(&a);
        rig_replay(&g, requests, &a, &r);
        for (uint32_t i = 0; i < g.n; i++) {
            tally_add(t, &q[i], &r.model[i]);
            if (getenv("VERBOSE"))
                printf("## %u/%u cap %u load %.2f run1 %.0f runcap %.0f slo %.1f caps | late %.4f "
                       "replay %.4f (l %.4f d %.4f r %.4f)| p99 %.0f replay %.0f | mean %.0f %.0f "
                       "| duty %.3f %.3f\n",
                       k, i, g.queue[i].cap,
                       g.queue[i].rate_rps / 1e6 * g.run_us[i][g.queue[i].cap] / g.queue[i].cap,
                       g.run_us[i][1], g.run_us[i][g.queue[i].cap],
                       (double)g.queue[i].slo_us / g.run_us[i][g.queue[i].cap], q[i].late,
                       late_of(&r.model[i]), (double)r.model[i].late / r.model[i].offered,
                       (double)r.model[i].dropped / r.model[i].offered,
                       (double)r.model[i].rejected / r.model[i].offered, q[i].p99_us,
                       (double)hist_quantile(&r.model[i].latency, .99), q[i].mean_us,
                       (double)r.model[i].latency.sum_us / r.model[i].latency.count, q[i].duty,
                       r.gpulet_busy[0]);
        }
        arena_done(&a);
    }
    tally_print(name, t);
}

static void one_share_alone_is_predicted_as_replayed(void)
{
    struct tally t;

    seed = 1;
    compare("poisson, alone", 100, 1, ARRIVALS_POISSON, 0, 50000, &t);
    compare("paced, alone", 100, 1, ARRIVALS_PACED, 0, 2000, &t);
    compare("cv 2, alone", 100, 1, ARRIVALS_CV, 2, 50000, &t);
    compare("cv 4, alone", 100, 1, ARRIVALS_CV, 4, 50000, &t);
    compare("poisson, 2 shares", 100, 2, ARRIVALS_POISSON, 0, 20000, &t);
    compare("poisson, 4 shares", 50, 4, ARRIVALS_POISSON, 0, 20000, &t);
    compare("paced, 2 shares", 100, 2, ARRIVALS_PACED, 0, 20000, &t);
    compare("paced, 4 shares", 50, 4, ARRIVALS_PACED, 0, 20000, &t);
}

int main(void)
{
    RUN(one_share_alone_is_predicted_as_replayed);
    return check_end();
}
