/* Broken and hostile problem files: whatever the bytes, the readers give a problem, a plan and
 * pairs or an error with a message, within bounds (sanitizers watch) and without allocating more
 * than the file has a right to.  What is read can be printed and read again.
 *
 * As a test program: the example of the documentation and published problems, changed by a seeded
 * generator, a fixed number of times.  Built with -DFUZZ_LIBFUZZER -fsanitize=fuzzer it is a
 * libFuzzer target instead. */
#include <gpulet/problem.h>
#define FUZZ_NAME "problem"
#include "fuzz.h"

#define ROUNDS 4000
#define MAX_SEED_BYTES 65536
#define NAMED_DEVICES_BYTES (16u << 20) /* 65,536 devices can be had for a few bytes */

static int codes_seen[2];

static void printed_is_read(const struct problem *p)
{
    struct problem again;
    struct arena a;
    struct err e = {0};
    char *text = NULL, *text2 = NULL;

    arena_init(&a);
    int rc = problem_print(p, &text, &e);
    assert(rc == 0);
    rc = problem_parse(text, strlen(text), &a, &again, &e);
    assert(rc == 0);
    rc = problem_print(&again, &text2, &e);
    assert(rc == 0 && STREQ(text, text2));
    free(text);
    free(text2);
    arena_done(&a);
}

static void plan_printed_is_read(const struct problem *p, const struct plan *plan, struct arena *a)
{
    struct plan again;
    struct err e = {0};
    char *text = NULL;

    int rc = plan_print(p, plan, &text, &e);
    assert(rc == 0);
    rc = plan_parse(text, strlen(text), p, a, &again, &e);
    assert(rc == 0 && again.n_gpulets == plan->n_gpulets);
    free(text);
}

static void one_input(const uint8_t *data, size_t n)
{
    const char *json = (const char *)data;
    struct problem p = {0};
    struct pairs pairs;
    struct plan plan;
    struct arena a;
    struct err e = {0};

    arena_init(&a);
    int rc = problem_parse(json, n, &a, &p, &e);
    codes_seen[rc < 0]++;
    assert(rc == 0 || (e.code == rc && e.msg[0] && p.n_types == 0));
    if (rc == 0) {
        printed_is_read(&p);
        rc = plan_parse(json, n, &p, &a, &plan, &e);
        assert(rc == 0 || e.msg[0]);
        if (rc == 0)
            plan_printed_is_read(&p, &plan, &a);
        e = (struct err){0};
        rc = pairs_parse(json, n, &p, &a, &pairs, &e);
        assert(rc == 0 || e.msg[0]);
    }
    struct measured measured;
    e = (struct err){0};
    rc = measured_parse(json, n, &a, &measured, &e);
    assert(rc == 0 || e.msg[0]);
    assert(a.total_bytes < NAMED_DEVICES_BYTES + 500 * n);
    arena_done(&a);
}

#ifndef FUZZ_LIBFUZZER

/* The next place from `at` on where a number stands, n if there is none. */
static size_t number_after(const uint8_t *p, size_t at, size_t n)
{
    while (at < n && !(p[at] >= '0' && p[at] <= '9'))
        at++;
    return at;
}

/* In place of the number at `at`, and of what it needs of what follows. */
static void number_put(uint8_t *p, size_t at, size_t n)
{
    static const char *const odd[] = {"0",   "1",   "-1",   "9",    "65537", "4294967296", "1e999",
                                      "1e9", "0.5", "null", "true", "[]",    "{}",         "\"g\""};
    const char *s = odd[any(ARRAY_SIZE(odd))];
    size_t len = strlen(s);

    memcpy(p + at, s, MIN(len, n - at));
    for (size_t i = at + len; i < n && p[i] >= '0' && p[i] <= '9'; i++)
        p[i] = ' ';
}

/* Small changes: most of them leave a file that is read far. */
static void change(uint8_t *p, size_t *n)
{
    uint32_t at = any((uint32_t)*n), len = any(12);
    size_t number = number_after(p, at, *n);

    switch (any(8)) {
    case 0: /* a bit */
        p[at] ^= (uint8_t)(1u << any(8));
        break;
    case 1: /* one part over another */
        len = MIN(len, (uint32_t)*n - at);
        memmove(p + any((uint32_t)*n - len + 1), p + at, len);
        break;
    case 2: /* an early end, not too often */
        if (any(8) == 0)
            *n = at + 1;
        break;
    case 3:
    case 4: /* another value */
        if (number < *n)
            number_put(p, number, *n);
        break;
    default: /* another digit */
        if (number < *n)
            p[number] = (uint8_t)('0' + any(10));
    }
}

static size_t file_read(const char *path, const char *from, uint8_t *ret)
{
    static char page[MAX_SEED_BYTES];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(page, 1, sizeof(page) - 1, f) : 0;

    if (f)
        (void)fclose(f);
    page[n] = 0;
    const char *start = from ? strstr(page, from) : page;
    const char *end = from && start ? strstr(start, "```\n\n") : page + n;
    if (!start || !end)
        return 0;
    start += from ? strlen(from) : 0;
    memcpy(ret, start, (size_t)(end - start));
    return (size_t)(end - start);
}

static void fuzz(const char *path, const char *from)
{
    static uint8_t whole[MAX_SEED_BYTES];
    size_t bytes = file_read(path, from, whole);

    CHECK(bytes > 0);
    if (bytes == 0)
        return;
    codes_seen[0] = codes_seen[1] = 0;
    one_input(whole, bytes);
    CHECK_EQ(codes_seen[1], 0); /* the seed itself is read */
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = bytes;
        uint8_t *p = malloc(n);
        assert(p);
        memcpy(p, whole, n);
        for (uint32_t k = any(3) + 1; k > 0; k--)
            change(p, &n);
        one_input(p, n);
        free(p);
    }
    CHECK(codes_seen[0] > ROUNDS / 20); /* enough files are read to test the printers */
    CHECK(codes_seen[1] > ROUNDS / 20);
}

static void the_broken_example_is_read_or_refused(void)
{
    fuzz("docs/problem-file.md", "```json\n");
}

static void broken_published_problems_are_read_or_refused(void)
{
    fuzz("test/data/plan/igniter-12.json", NULL);
    fuzz("test/data/plan/igniter-3.json", NULL);
}

/* The smallest files with every kind of brackets, by brute force. */
static void nesting_without_end_is_refused(void)
{
    static const char *const open[] = {"[", "{\"version\":", "{\"version\":1,\"types\":[[", "{"};
    static char text[200000];

    for (size_t k = 0; k < ARRAY_SIZE(open); k++) {
        size_t n = 0, len = strlen(open[k]);
        for (; n + len < sizeof(text); n += len)
            memcpy(text + n, open[k], len);
        codes_seen[1] = 0;
        one_input((const uint8_t *)text, n);
        CHECK_EQ(codes_seen[1], 1);
    }
}

int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    RUN(the_broken_example_is_read_or_refused);
    RUN(broken_published_problems_are_read_or_refused);
    RUN(nesting_without_end_is_refused);
    return check_end();
}
#endif
