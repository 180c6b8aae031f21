/* Every mix of rates {0, 100, 200} of nine models on four devices (gpu-lets, ATC'22, section 6.5;
 * published: 19,682 mixes, of which time sharing takes 5,773, with an even split 17,865, gpu-lets
 * with interference 18,139 and its full search 18,659).
 *
 *     bench_mixes [RULE [ARRIVALS [EVERY [POLICY]]]]
 *         cycle | queue, paced | poisson, 1: every mix, one by name
 *
 * A policy accepts a mix when it claims to serve every model; such a plan is valid when
 * plan_check() agrees under the rule.  With poisson arrivals the gpu-lets policies raise their
 * rates as the release does (99th percentile of a second's count); with paced they plan what is
 * asked. */
#include "../problem_file.h"
#include <gpulet/policy.h>
#include <inttypes.h>
#include <time.h>

#define MODELS 9
#define MIXES 19683
#define POLICIES 32

struct tally {
    uint32_t accepted, valid, failed;
    uint64_t *ns;             /* of each plan */
    char first[240], mix[64]; /* the first plan that the checker refused */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The models of mix number `mix` that are asked for, in p. */
static void mix_set(const struct problem *all, uint32_t mix, enum arrivals arrivals,
                    struct plan_model *model, struct problem *p, char text[64])
{
    p->n_models = 0;
    for (uint32_t m = 0; m < MODELS; m++, mix /= 3) {
        text[m] = (char)('0' + mix % 3);
        if (mix % 3 == 0)
            continue;
        model[p->n_models] = all->model[m];
        model[p->n_models].arrivals = arrivals;
        model[p->n_models++].rate_rps = 100.0 * (mix % 3);
    }
    text[MODELS] = 0;
    p->model = model;
}

static bool claims_all(const struct plan *plan)
{
    for (uint32_t m = 0; m < plan->n_models; m++)
        if (plan->verdict[m].limit != LIMIT_NONE)
            return false;
    return true;
}

static void judge(const struct policy *by, const struct problem *p, struct arena *a,
                  struct tally *t, uint32_t at, const char *mix)
{
    struct plan plan = {0};
    struct err err = {0};
    uint64_t from = now_ns();
    int r = by->plan_make(p, NULL, a, &plan, &err);

    t->ns[at] = now_ns() - from;
    t->failed += r < 0;
    if (r < 0 || !claims_all(&plan))
        return;
    t->accepted++;
    if (plan_check(p, NULL, &plan, &err) == 0)
        t->valid++;
    else if (t->first[0] == 0) {
        memcpy(t->first, err.msg, sizeof(t->first));
        memcpy(t->mix, mix, sizeof(t->mix));
    }
}

static void print(const char *name, struct tally *t, uint32_t n)
{
    qsort(t->ns, n, sizeof(*t->ns), by_size);
    printf("%-14s %8" PRIu32 " %8" PRIu32 " %8" PRIu32 " %10.1f %10.1f\n", name, t->accepted,
           t->valid, t->failed, (double)t->ns[n / 2] / 1e3, (double)t->ns[n * 99 / 100] / 1e3);
    if (t->first[0])
        printf("    mix %s: %s\n", t->mix, t->first);
}

int main(int argc, char **argv)
{
    const char *rule = argc > 1 ? argv[1] : "cycle", *how = argc > 2 ? argv[2] : "paced";
    uint32_t every = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1, n = 0;
    enum arrivals arrivals = STREQ(how, "paced") ? ARRIVALS_PACED : ARRIVALS_POISSON;
    static struct tally tally[POLICIES];
    struct plan_model model[MODELS];
    struct arena file, a;

    arena_init(&file);
    struct problem all = problem_file(&file, "gpulet"), p = all;
    p.rules.rule = STREQ(rule, "queue") ? RULE_QUEUE : RULE_CYCLE;
    const size_t bytes = 64u << 20;
    void *memory = malloc(bytes);
    for (uint32_t i = 0; policy_at(i); i++)
        tally[i].ns = calloc(MIXES, sizeof(*tally[i].ns));

    for (uint32_t mix = 1; mix < MIXES; mix += MAX(every, 1u), n++) {
        char text[64];
        mix_set(&all, mix, arrivals, model, &p, text);
        for (uint32_t i = 0; policy_at(i); i++) {
            if (argc > 4 && !STREQ(argv[4], policy_at(i)->name))
                continue;
            arena_init_fixed(&a, memory, bytes);
            judge(policy_at(i), &p, &a, &tally[i], n, text);
        }
    }
    printf("%" PRIu32 " mixes, rule %s, %s arrivals; us to plan: median and 99th percentile\n", n,
           rule, how);
    printf("%-14s %8s %8s %8s %10s %10s\n", "policy", "accepted", "valid", "errors", "median",
           "p99");
    for (uint32_t i = 0; policy_at(i); i++)
        if (argc <= 4 || STREQ(argv[4], policy_at(i)->name))
            print(policy_at(i)->name, &tally[i], n);
    for (uint32_t i = 0; policy_at(i); i++)
        free(tally[i].ns);
    free(memory);
    arena_done(&file);
    return 0;
}
