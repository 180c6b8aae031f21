/* What the decisions for one request cost: admit, route and batch_next of every policy, with 10 and
 * with 1,000 models, each in two gpu-lets of its own.  A decision sees the views of one model or of
 * one gpu-let, so what grows with the models is only how much lies outside the caches.
 * Median of 5 times 200,000 requests. */
#include <gpulet/clock.h>
#include <gpulet/policy.h>
#include <stdio.h>
#include <stdlib.h>

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
                                      .run_us = 300,
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

int main(void)
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
    return 0;
}
