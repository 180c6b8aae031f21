/* Problem files: the example of the documentation, every kind of mistake, and random problems
 * that are printed and read again. */
#include <gpulet/problem.h>
#include "../check.h"
#include "problem_random.h"

static char *file_text(const char *path, size_t *ret_bytes)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(PROBLEM_MAX_BYTES);

    if (!f || !text) {
        printf("# %s: cannot be read\n", path);
        exit(1);
    }
    *ret_bytes = fread(text, 1, PROBLEM_MAX_BYTES - 1, f);
    text[*ret_bytes] = 0;
    (void)fclose(f);
    return text;
}

/* The first ```json block of the page. */
static char *example(size_t *ret_bytes)
{
    char *page = file_text("docs/problem-file.md", ret_bytes);
    char *from = strstr(page, "```json\n");
    char *to = from ? strstr(from + 8, "```") : NULL;

    CHECK(to != NULL);
    *ret_bytes = to ? (size_t)(to - from - 8) : 0;
    memmove(page, to ? from + 8 : page, *ret_bytes);
    page[*ret_bytes] = 0;
    return page;
}

static void reprint(const struct problem *p)
{
    struct arena a;
    struct problem q = {0};
    struct err e = {0};
    AUTO(free) char *text = NULL, *text2 = NULL;

    arena_init(&a);
    CHECK_EQ(problem_print(p, &text, &e), 0);
    CHECK_EQ(problem_parse(text, strlen(text), &a, &q, &e), 0);
    CHECK_STR(e.msg, "");
    CHECK(problem_same(p, &q));
    CHECK_EQ(problem_print(&q, &text2, &e), 0);
    CHECK(STREQ(text, text2));
    arena_done(&a);
}

/* ---- the documentation */

static void the_example_of_the_page_is_what_it_says(void)
{
    size_t n;
    AUTO(free) char *text = example(&n);
    struct arena a;
    struct problem p = {0};
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(problem_parse(text, n, &a, &p, &e), 0);
    CHECK_STR(e.msg, "");
    CHECK_EQ(p.n_types, 2);
    CHECK_EQ(p.n_devices, 4);
    CHECK_EQ(p.n_models, 3);
    if (p.n_models == 3) {
        const struct profile *v100 = &p.model[0].profile[0], *a100 = &p.model[0].profile[1];
        CHECK_EQ(p.type[0].predict.units, 80);
        CHECK_EQ(p.type[0].mem_bytes, 16000000000);
        CHECK_EQ(p.type[1].predict.units, 108);
        CHECK_EQ(p.type[1].n_sizes, 5);
        CHECK_EQ(p.type[1].place[7].n, 2);
        CHECK_STR(p.device[1].name, "v100-1");
        CHECK_STR(p.device[3].name, "right");
        CHECK_EQ(p.rules.rule, RULE_QUEUE);
        CHECK_EQ(p.model[0].slo_us, 20000);
        CHECK_EQ(p.model[0].arrivals, ARRIVALS_POISSON);
        CHECK_EQ(v100->run_us[1 * 3 + 2], 8700); /* 40 units, batch 32 */
        CHECK(v100->dram[2 * 3 + 2] < 0);        /* null */
        CHECK(v100->host_us[1] > 99.99 && v100->host_us[1] < 100.01);
        CHECK_EQ(a100->run_us[(1 * 2 + 1) * 2 + 1], 1900); /* 2 streams, 98 units, batch 8 */
        CHECK_EQ(a100->run_us[(1 * 2 + 0) * 2 + 1], 0);    /* null */
        CHECK(p.model[1].profile == p.model[0].profile);
        CHECK(p.model[2].profile[0].curve && p.model[2].profile[0].curve->k[1] == 158.193);
        CHECK_EQ(p.model[2].profile[1].run_us[0], 0); /* does not run there */
    }
    arena_done(&a);
}

static void the_example_has_a_plan_and_pairs(void)
{
    size_t n;
    AUTO(free) char *text = example(&n);
    struct arena a;
    struct problem p = {0};
    struct plan plan = {0};
    struct pairs pairs = {0};
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(problem_parse(text, n, &a, &p, &e), 0);
    CHECK_EQ(plan_parse(text, n, &p, &a, &plan, &e), 0);
    CHECK_EQ(pairs_parse(text, n, &p, &a, &pairs, &e), 0);
    CHECK_STR(e.msg, "");
    CHECK_EQ(plan.n_gpulets, 2);
    CHECK_EQ(pairs.n, 2);
    if (plan.n_gpulets == 2 && pairs.n == 2) {
        CHECK_EQ(plan.gpulet[0].units, 30);
        CHECK_EQ(plan.gpulet[1].set.bits[0], UINT64_C(0x87ffff8000)); /* 15..34 and 39 */
        CHECK_EQ(plan.gpulet[1].units, 42);
        CHECK_EQ(plan.verdict[0].limit, LIMIT_NONE);
        CHECK_EQ(plan.verdict[1].limit, LIMIT_UNITS); /* in no gpu-let */
        CHECK_STR(pairs.fold[0], "alexnet+vgg19");
        CHECK(pairs.pair[1].run_us == 12500 && pairs.pair[1].other.batch == 8);
        CHECK(pairs.pair[0].me.profile == &p.model[0].profile[0]);
    }
    arena_done(&a);
}

/* ---- published problems (test/data/README says where they are from) */

struct published {
    struct arena a;
    struct problem p;
    char *text;
    size_t n;
};

static bool published_open(struct published *x, const char *name)
{
    struct err e = {0};
    char path[80];

    (void)snprintf(path, sizeof(path), "test/data/plan/%s.json", name);
    *x = (struct published){.text = file_text(path, &x->n)};
    x->n = strlen(x->text);
    arena_init(&x->a);
    CHECK_EQ(problem_parse(x->text, x->n, &x->a, &x->p, &e), 0);
    CHECK_STR(e.msg, "");
    return e.code == 0;
}

static void published_close(struct published *x)
{
    arena_done(&x->a);
    free(x->text);
}

static void every_published_problem_can_be_read_and_printed(void)
{
    static const struct {
        const char *name;
        uint32_t devices, models;
    } file[] = {
        {"igniter-12", 20, 12},   {"igniter-12-poisson", 20, 12},
        {"igniter-3", 20, 3},     {"igniter-pairs", 0, 4},
        {"gpulet", 4, 14},        {"parva-S1", 40, 6},
        {"parva-S1-mig", 40, 6},  {"parva-S2", 40, 11},
        {"parva-S2-mig", 40, 11}, {"parva-S3", 40, 11},
        {"parva-S3-mig", 40, 11}, {"parva-S4", 40, 11},
        {"parva-S4-mig", 40, 11}, {"parva-S5", 40, 11},
        {"parva-S5-mig", 40, 11}, {"parva-S6", 40, 11},
        {"parva-S6-mig", 40, 11},
    };
    for (size_t i = 0; i < ARRAY_SIZE(file); i++) {
        struct published x;
        if (published_open(&x, file[i].name)) {
            CHECK_EQ(x.p.n_devices, file[i].devices);
            CHECK_EQ(x.p.n_models, file[i].models);
            reprint(&x.p);
        }
        published_close(&x);
    }
}

/* SLO and rate of the third of iGniter's workloads, and what its curve says at batch 1 on 10 %. */
static void igniter_states_its_rules_and_its_curve(void)
{
    struct published x;

    if (published_open(&x, "igniter-12")) {
        const struct plan_model *m = &x.p.model[2];
        const struct igniter_curve *c = m->profile[0].curve;
        CHECK_EQ(x.p.rules.rule, RULE_PART);
        CHECK(x.p.rules.slo_part == 0.5 && x.p.rules.as_few);
        CHECK_EQ(x.p.type[0].n_granules, 40); /* 2.5 % each */
        CHECK_EQ(m->slo_us, 20000);
        CHECK_EQ(m->rate_rps, 800);
        CHECK_EQ(m->arrivals, ARRIVALS_PACED);
        CHECK(m->profile == x.p.model[0].profile);
        double active_ms = (c->k[0] + c->k[1] + c->k[2]) / (10 + c->k[3]) + c->k[4];
        CHECK(active_ms > 3.5 && active_ms < 3.7); /* measured: 3.68 ms with copies and gaps */
    }
    published_close(&x);
}

static void pairs_are_1500_latencies_in_six_folds_and_slower_than_alone(void)
{
    struct published x;
    struct pairs pairs = {0};
    struct err e = {0};
    double sum = 0;

    if (published_open(&x, "igniter-pairs")) {
        double bytes_ms = x.p.type[0].predict.link_bps / 1000;
        CHECK_EQ(pairs_parse(x.text, x.n, &x.p, &x.a, &pairs, &e), 0);
        CHECK_EQ(pairs.n, 1500);
        CHECK_EQ(pairs.n_folds, 6);
        for (uint32_t i = 0; i < pairs.n; i++) {
            const struct load *me = &pairs.pair[i].me;
            const struct profile *f = me->profile;
            uint32_t u = 0;
            while (f->units[u] != me->units)
                u++;
            double solo_us = (double)f->run_us[u * f->n_batch + me->batch - 1] +
                             1000 * me->batch * (f->in_bytes + f->out_bytes) / bytes_ms;
            sum += pairs.pair[i].run_us / solo_us - 1;
        }
        CHECK(sum / pairs.n > 0.0965 && sum / pairs.n < 0.0975); /* 9.7 % on average */
    }
    published_close(&x);
}

/* By hand from its table: BERT, instance 1, batch 1, one process: 74.408/s, so 13.439 ms. */
static void parvagpu_has_streams_and_the_places_of_mig(void)
{
    struct published x;

    if (published_open(&x, "parva-S1-mig")) {
        const struct profile *f = x.p.model[0].profile;
        CHECK_STR(x.p.model[0].name, "bert");
        CHECK_EQ(f->run_us[0], 13439);
        CHECK_EQ(f->n_streams, 5);
        CHECK_EQ(x.p.rules.max_streams, 3);
        CHECK_EQ(x.p.rules.max_shares, 1);
        CHECK_EQ(x.p.type[0].n_sizes, 5);
        CHECK_EQ(x.p.type[0].n_places, 13);
    }
    published_close(&x);
}

/* GoogLeNet at 20 %, batch 1: 9.791 ms; assembling one row costs 0.242238 ms times 1.9. */
static void gpulets_have_assembly_costs_and_utilisation(void)
{
    struct published x;

    if (published_open(&x, "gpulet")) {
        const struct profile *f = x.p.model[1].profile;
        CHECK_STR(x.p.model[1].name, "googlenet");
        CHECK_EQ(f->run_us[0], 9791);
        CHECK(f->host_us[0] > 459.9 && f->host_us[0] < 460.1);
        CHECK(f->l2[0] > 0 && f->l2[0] < 1);
        CHECK(f->dram[f->n_batch] == f->dram[0]); /* the same for every share */
        CHECK(x.p.model[13].profile == x.p.model[0].profile);
    }
    published_close(&x);
}

/* ---- mistakes */

#define TYPES "\"version\":1,\"types\":[{\"name\":\"g\",\"granules\":4}]"
#define MODEL(field) "{" TYPES ",\"models\":[{\"name\":\"m\",\"max_batch\":1," field "}]}"
#define PROFILE(fields) MODEL("\"profile\":{\"g\":{" fields "}}")
#define AXES "\"batch\":[1,2],\"units\":[1,4],"
#define TYPE(fields) "{\"version\":1,\"types\":[{\"name\":\"g\",\"granules\":4," fields "}]}"

/* Each is refused with a message that has all of these words. */
static const struct {
    const char *text, *path, *value, *expected;
} mistakes[] = {
    {"", "line 1", "", ""},
    {"[]", "the file", "a list", "an object"},
    {"{", "line 1", "", ""},
    {"{} {}", "line 1", "", ""},
    {"{\"version\":2,\"types\":[]}", "version", "2", "1"},
    {"{\"types\":[]}", "version", "missing", ""},
    {"{\"version\":1,\"version\":1}", "line 1", "version", "duplicate"},
    {"{\"version\":1}", "types", "missing", "1 to 64"},
    {"{\"version\":1,\"types\":[]}", "types", "list of 0", "1 to 64"},
    {"{\"version\":1,\"types\":{}}", "types", "an object", "a list"},
    {"{" TYPES ",\"notes\":1}", "notes", "1", "no such key"},
    {"{" TYPES ",\"note\":1}", "note", "1", "a text"},
    {TYPE("\"granuls\":4"), "types[0].granuls", "4", "no such key"},
    {TYPE("\"units\":3"), "types[0].units", "3", "at least the 4"},
    {TYPE("\"granule_units\":0"), "types[0].granule_units", "0", "1 to 65536"},
    {TYPE("\"granule_units\":20000"), "types[0]", "an object", "at most 65536 units"},
    {TYPE("\"mem_bytes\":-1"), "types[0].mem_bytes", "-1", "0 to"},
    {TYPE("\"mem_bytes\":0.5"), "types[0].mem_bytes", "0.5", "an integer"},
    {TYPE("\"price\":NaN"), "line 1", "NaN", ""},
    {TYPE("\"price\":1e999"), "line 1", "1e999", "overflow"},
    {TYPE("\"price\":\"1\""), "types[0].price", "\"1\"", "a number"},
    {TYPE("\"sizes\":[]"), "types[0].sizes", "list of 0", "1 to 256"},
    {TYPE("\"sizes\":[2,2]"), "types[0].sizes[1]", "2", "more than the one before"},
    {TYPE("\"sizes\":[5]"), "types[0].sizes[0]", "5", "1 to 4"},
    {TYPE("\"places\":[[0,4],[1,4]]"), "types[0].places[1]", "list of 2", "within 0..3"},
    {TYPE("\"places\":[[4294967295,2]]"), "types[0].places[0]", "", "within 0..3"},
    {TYPE("\"interference\":{}"), "types[0].interference.kind", "missing", ""},
    {TYPE("\"interference\":{\"kind\":\"gpu\"}"), "types[0].interference.kind", "\"gpu\"",
     "none, igniter, gpulet, pressure"},
    {TYPE("\"interference\":{\"kind\":\"gpulet\"}"), "types[0].interference", "", "`c`"},
    {TYPE("\"interference\":{\"kind\":\"gpulet\",\"c\":[1,2,3,4]}"), "types[0].interference.c",
     "list of 4", "list of 5"},
    {TYPE("\"interference\":{\"kind\":\"igniter\"}"), "types[0].interference", "", "max_mhz"},
    {"{\"version\":1,\"types\":[{\"name\":\"g\",\"granules\":257}]}", "types[0].granules", "257",
     "1 to 256"},
    {"{\"version\":1,\"types\":[{\"name\":\"\",\"granules\":1}]}", "types[0].name", "\"\"",
     "1 to 128 bytes"},
    {"{\"version\":1,\"types\":[{\"name\":\"a\\nb\",\"granules\":1}]}", "types[0].name", "",
     "control"},
    {"{\"version\":1,\"types\":[{\"name\":\"g\",\"granules\":1},{\"name\":\"g\",\"granules\":1}]}",
     "types[1].name", "\"g\"", "used once"},
    {"{" TYPES ",\"devices\":[{\"type\":\"h\",\"count\":1}]}", "devices[0].type", "\"h\"",
     "a type"},
    {"{" TYPES ",\"devices\":[{\"type\":\"g\"}]}", "devices[0]", "", "`count` or `names`"},
    {"{" TYPES ",\"devices\":[{\"type\":\"g\",\"count\":65537}]}", "devices[0].count", "65537",
     "65536"},
    {"{" TYPES ",\"devices\":[{\"type\":\"g\",\"count\":65536},{\"type\":\"g\",\"count\":1}]}",
     "devices[1].count", "1", "at most 65536"},
    {"{" TYPES ",\"devices\":[{\"type\":\"g\",\"names\":[\"a\",\"a\"]}]}", "devices[0].names[1]",
     "\"a\"", "used once"},
    {"{" TYPES ",\"rules\":{\"rule\":\"best\"}}", "rules.rule", "\"best\"", "cycle, part, queue"},
    {"{" TYPES ",\"rules\":{\"slo_part\":1.5}}", "rules.slo_part", "1.5", "0 to 1"},
    {"{" TYPES ",\"rules\":{\"as_few\":1}}", "rules.as_few", "1", "true or false"},
    {MODEL("\"slo_ms\":-5"), "models[0].slo_ms", "-5", "0 to 3600000"},
    {MODEL("\"slo_ms\":0.0001"), "models[0].slo_ms", "0.0001", "microsecond"},
    {MODEL("\"rate_rps\":1e300"), "models[0].rate_rps", "1e300", "1000000000"},
    {MODEL("\"priority\":-1"), "models[0].priority", "-1", "0 to"},
    {MODEL("\"arrivals\":null"), "models[0].arrivals", "null", "poisson"},
    {MODEL("\"rate_rps\":1"), "models[0].profile", "missing", ""},
    {MODEL("\"profile\":\"n\""), "models[0].profile", "\"n\"", "a model above"},
    {MODEL("\"profile\":{}"), "models[0].profile.g", "missing", ""},
    {MODEL("\"profile\":{\"g\":null,\"h\":null}"), "models[0].profile.h", "null", "no such key"},
    {PROFILE("\"kernels\":3"), "models[0].profile.g", "an object", "`run_ms`"},
    {PROFILE("\"run_ms\":[]"), "models[0].profile.g.run_ms", "list of 0", "`batch`"},
    {PROFILE("\"batch\":[2,1],\"units\":[1]"), "models[0].profile.g.batch[1]", "1", "more than"},
    {PROFILE(AXES "\"run_ms\":[[1,2]]"), "models[0].profile.g.run_ms", "list of 1",
     "list of 2, one for each of `units`"},
    {PROFILE(AXES "\"run_ms\":[[1,2],[3]]"), "models[0].profile.g.run_ms[1]", "list of 1",
     "list of 2, one for each of `batch`"},
    {PROFILE(AXES "\"run_ms\":[[1,2],[3,-4]]"), "models[0].profile.g.run_ms[1][1]", "-4",
     "0.001 to 3600000, or null"},
    {PROFILE(AXES "\"run_ms\":[[1,2],[0,4]]"), "models[0].profile.g.run_ms[1][0]", "0", "0.001"},
    {PROFILE(AXES "\"run_ms\":[[1,2],[3,4]],\"l2\":[[1,2],[3,\"x\"]]"),
     "models[0].profile.g.l2[1][1]", "\"x\"", "a number"},
    {PROFILE(AXES "\"run_ms\":[[1,2],[3,4]],\"host_ms\":[1]"), "models[0].profile.g.host_ms",
     "list of 1", "list of 2"},
    {PROFILE("\"streams\":[1,2]," AXES "\"run_ms\":[[1,2],[3,4]]"),
     "models[0].profile.g.run_ms[0][0]", "1", "one for each of `batch`"},
    {PROFILE("\"curve\":{}"), "models[0].profile.g.curve.k", "missing", ""},
    {PROFILE("\"curve\":{\"k\":[1,2,3,4,null]}"), "models[0].profile.g.curve.k[4]", "null",
     "a number"},
};

static void every_mistake_is_named_with_path_value_and_what_was_expected(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
        struct arena a;
        struct problem p;
        struct err e = {0};

        arena_init(&a);
        if (problem_parse(mistakes[i].text, strlen(mistakes[i].text), &a, &p, &e) != -EINVAL)
            printf("# accepted: %s\n", mistakes[i].text), check_failures++;
        CHECK_HAS(e.msg, mistakes[i].path);
        CHECK_HAS(e.msg, mistakes[i].value);
        CHECK_HAS(e.msg, mistakes[i].expected);
        arena_done(&a);
    }
}

#define HEAD                                                                                       \
    TYPES ",\"devices\":[{\"type\":\"g\",\"count\":1}],\"models\":[{\"name\":\"m\","               \
          "\"max_batch\":4,\"profile\":{\"g\":null}}],"
#define PLAN(text) "{" HEAD "\"plan\":{\"gpulets\":[" text "]}}"
#define PAIRS(text) "{" HEAD "\"pairs\":{\"type\":\"g\",\"rows\":[" text "]}}"

static const struct {
    const char *text, *path, *expected;
} plan_mistakes[] =
    {
        {"{" HEAD "\"rules\":{}}", "plan is missing", "gpulets"},
        {"{" HEAD "\"plan\":{}}", "plan.gpulets", ""},
        {PLAN("{\"device\":\"x\",\"granules\":[]}"), "plan.gpulets[0].device is \"x\"", "a device"},
        {PLAN("{\"device\":\"g-0\",\"granules\":[[3,2]]}"), "plan.gpulets[0].granules[0]",
         "within 0..3"},
        {PLAN("{\"device\":\"g-0\",\"granules\":[[0,1]],\"shares\":[{\"model\":\"x\",\"batch\":1}]"
              "}"),
         "plan.gpulets[0].shares[0].model is \"x\"", "a model"},
        {PLAN("{\"device\":\"g-0\",\"granules\":[[0,1]],\"shares\":[{\"model\":\"m\",\"batch\":0}]"
              "}"),
         "plan.gpulets[0].shares[0].batch is 0", "1 to 1024"},
        {"{" HEAD "\"plan\":{\"gpulets\":[],\"verdicts\":[{\"model\":\"m\",\"limit\":\"luck\"}]}}",
         "plan.verdicts[0].limit is \"luck\"", "none, slo, rate, memory, units"},
        {"{" HEAD "\"plan\":{\"gpulets\":[],\"verdicts\":[{\"model\":\"m\",\"key\":\"12G\"}]}}",
         "plan.verdicts[0].key is \"12G\"", "16 hexadecimal digits"},
        {"{" HEAD "\"plan\":{\"gpulets\":[],\"verdicts\":[{\"model\":\"m\"},{\"model\":\"m\"}]}}",
         "plan.verdicts[1].model is \"m\"", "used once"},
},
  pair_mistakes[] = {
      {"{" HEAD "\"rules\":{}}", "pairs is missing", "rows"},
      {"{" HEAD "\"pairs\":{\"type\":\"h\",\"rows\":[]}}", "pairs.type is \"h\"", "a type"},
      {PAIRS("[[\"m\",1,1,1]]"), "pairs.rows[0]", "two runs"},
      {PAIRS("[[\"m\",1,1,1],[\"m\",1,1]]"), "pairs.rows[0][1]", "[model, batch, units, ms]"},
      {PAIRS("[[\"m\",1,1,1],[\"n\",1,1,1]]"), "pairs.rows[0][1][0] is \"n\"", "a model"},
      {PAIRS("[[\"m\",1,1,1],[\"m\",1,1,-1]]"), "pairs.rows[0][1][3] is -1", "0.001"},
};

static void mistakes_of_plans_and_pairs_are_named_too(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(plan_mistakes) + ARRAY_SIZE(pair_mistakes); i++) {
        bool is_plan = i < ARRAY_SIZE(plan_mistakes);
        size_t k = is_plan ? i : i - ARRAY_SIZE(plan_mistakes);
        const char *text = is_plan ? plan_mistakes[k].text : pair_mistakes[k].text;
        struct arena a;
        struct problem p;
        struct plan plan;
        struct pairs pairs;
        struct err e = {0};

        arena_init(&a);
        CHECK_EQ(problem_parse(text, strlen(text), &a, &p, &e), 0);
        CHECK_EQ(is_plan ? plan_parse(text, strlen(text), &p, &a, &plan, &e)
                         : pairs_parse(text, strlen(text), &p, &a, &pairs, &e),
                 -EINVAL);
        CHECK_HAS(e.msg, is_plan ? plan_mistakes[k].path : pair_mistakes[k].path);
        CHECK_HAS(e.msg, is_plan ? plan_mistakes[k].expected : pair_mistakes[k].expected);
        arena_done(&a);
    }
}

/* Clang's sanitizer sees what a key without a place is put into. */
static void keys_that_are_only_checked_need_no_place(void)
{
    static const char text[] = "{" HEAD "\"note\":\"of no field\"}";
    struct arena a;
    struct problem p;
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(problem_parse(text, strlen(text), &a, &p, &e), 0);
    CHECK_STR(e.msg, "");
    CHECK_EQ(p.n_models, 1);
    arena_done(&a);
}

static void a_file_of_too_many_bytes_is_not_even_read(void)
{
    struct arena a;
    struct problem p;
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(problem_parse("{}", (size_t)PROBLEM_MAX_BYTES + 1, &a, &p, &e), -EFBIG);
    CHECK_HAS(e.msg, "67108864");
    arena_done(&a);
}

static void a_full_arena_is_out_of_memory_and_nothing_worse(void)
{
    size_t n;
    AUTO(free) char *text = example(&n);
    static char buf[16384];

    for (size_t size = 0; size < sizeof(buf); size += 16) {
        struct arena a;
        struct problem p;
        struct plan plan;
        struct pairs pairs;
        struct err e = {0};
        arena_init_fixed(&a, buf, size);
        int rc = problem_parse(text, n, &a, &p, &e);
        if (rc == 0)
            rc = plan_parse(text, n, &p, &a, &plan, &e);
        if (rc == 0)
            rc = pairs_parse(text, n, &p, &a, &pairs, &e);
        CHECK(rc == 0 || (rc == -ENOMEM && strstr(e.msg, "out of memory")));
        CHECK(rc == 0 || size < sizeof(buf) / 2);
    }
}

/* ---- there and back */

static void reprint_plan(const struct problem *p, const struct plan *plan)
{
    struct arena a;
    struct plan again = {0};
    struct err e = {0};
    AUTO(free) char *text = NULL, *text2 = NULL;

    arena_init(&a);
    CHECK_EQ(plan_print(p, plan, &text, &e), 0);
    CHECK_EQ(plan_parse(text, strlen(text), p, &a, &again, &e), 0);
    CHECK_STR(e.msg, "");
    CHECK(plan_same(plan, &again));
    CHECK_EQ(plan_print(p, &again, &text2, &e), 0);
    CHECK(STREQ(text, text2));
    arena_done(&a);
}

static void a_problem_and_its_plan_fit_in_one_file(void)
{
    size_t n;
    AUTO(free) char *text = example(&n), *both = NULL;
    struct arena a;
    struct problem p = {0}, q = {0};
    struct plan plan = {0}, again = {0};
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(problem_parse(text, n, &a, &p, &e), 0);
    CHECK_EQ(plan_parse(text, n, &p, &a, &plan, &e), 0);
    CHECK_EQ(problem_plan_print(&p, &plan, &both, &e), 0);
    CHECK_EQ(problem_parse(both, strlen(both), &a, &q, &e), 0);
    CHECK_EQ(plan_parse(both, strlen(both), &q, &a, &again, &e), 0);
    CHECK(problem_same(&p, &q) && plan_same(&plan, &again));
    plan.gpulet[0].device = 9; /* of another problem */
    free(both);
    both = NULL;
    CHECK_EQ(problem_plan_print(&p, &plan, &both, &e), -EINVAL);
    CHECK_HAS(e.msg, "gpu-let 0");
    arena_done(&a);
}

static void random_problems_and_plans_survive_printing_and_reading(void)
{
    for (uint32_t seed = 1; seed <= 2000 && !check_failures; seed++) {
        struct arena a;
        struct problem p;
        struct plan plan;

        arena_init(&a);
        random_problem(&a, seed, &p);
        random_plan(&a, seed, &p, &plan);
        reprint(&p);
        reprint_plan(&p, &plan);
        if (check_failures)
            printf("# seed %u\n", seed);
        arena_done(&a);
    }
}

static void the_example_prints_the_same_after_a_second_reading(void)
{
    size_t n;
    AUTO(free) char *text = example(&n);
    struct arena a;
    struct problem p = {0};
    struct plan plan = {0};
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(problem_parse(text, n, &a, &p, &e), 0);
    CHECK_EQ(plan_parse(text, n, &p, &a, &plan, &e), 0);
    if (!e.code) {
        reprint(&p);
        reprint_plan(&p, &plan);
    }
    arena_done(&a);
}

int main(void)
{
    RUN(the_example_of_the_page_is_what_it_says);
    RUN(the_example_has_a_plan_and_pairs);
    RUN(every_published_problem_can_be_read_and_printed);
    RUN(igniter_states_its_rules_and_its_curve);
    RUN(pairs_are_1500_latencies_in_six_folds_and_slower_than_alone);
    RUN(parvagpu_has_streams_and_the_places_of_mig);
    RUN(gpulets_have_assembly_costs_and_utilisation);
    RUN(every_mistake_is_named_with_path_value_and_what_was_expected);
    RUN(mistakes_of_plans_and_pairs_are_named_too);
    RUN(keys_that_are_only_checked_need_no_place);
    RUN(a_file_of_too_many_bytes_is_not_even_read);
    RUN(a_full_arena_is_out_of_memory_and_nothing_worse);
    RUN(a_problem_and_its_plan_fit_in_one_file);
    RUN(random_problems_and_plans_survive_printing_and_reading);
    RUN(the_example_prints_the_same_after_a_second_reading);
    return check_end();
}
