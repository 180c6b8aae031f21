/* Broken and hostile traces: whatever the bytes, the reader gives ascending times and names that
 * are in its list, or an error with a message, within bounds (sanitizers watch).
 *
 * As a test program: small traces of every layout, changed by a seeded generator, a fixed number
 * of times.  Built with -DFUZZ_LIBFUZZER -fsanitize=fuzzer it is a libFuzzer target instead. */
#include <gpulet/replay.h>
#define FUZZ_NAME "trace"
#include "fuzz.h"

#define ROUNDS 20000

static int codes_seen[2];

static void one_input(const uint8_t *data, size_t n)
{
    struct trace t = {0};
    struct arena a;
    struct err e = {0};

    arena_init(&a);
    int rc = trace_parse((const char *)data, n, &a, &t, &e);
    codes_seen[rc < 0]++;
    assert(rc == 0 || (e.code == rc && e.msg[0] && t.n == 0));
    for (uint32_t i = 0; i < t.n; i++) {
        assert(i == 0 ? t.at_us[i] == 0 : t.at_us[i] >= t.at_us[i - 1]);
        assert(!t.name_of || t.name_of[i] < t.n_names);
    }
    for (uint32_t i = 0; i < t.n_names; i++)
        assert(t.name[i][0]);
    assert(a.total_bytes < 4096 + 64 * n);
    arena_done(&a);
}

#ifndef FUZZ_LIBFUZZER

static void change(uint8_t *p, size_t *n)
{
    static const char odd[] = {'\n', '\r', ',', '"', ' ', '-', '.', 'e', '9', 0, '\x7f', '\xef'};
    uint32_t at = any((uint32_t)*n), len = any(8);

    switch (any(8)) {
    case 0: /* a bit */
        p[at] ^= (uint8_t)(1u << any(8));
        break;
    case 1: /* what has a meaning */
        p[at] = (uint8_t)odd[any(ARRAY_SIZE(odd))];
        break;
    case 2: /* one part over another */
        len = MIN(len, (uint32_t)*n - at);
        memmove(p + any((uint32_t)*n - len + 1), p + at, len);
        break;
    case 3: /* an early end, not too often */
        if (any(4) == 0)
            *n = at + 1;
        break;
    default: /* another digit */
        if (p[at] >= '0' && p[at] <= '9')
            p[at] = (uint8_t)('0' + any(10));
    }
}

static void fuzz(const char *whole)
{
    size_t bytes = strlen(whole);

    codes_seen[0] = codes_seen[1] = 0;
    one_input((const uint8_t *)whole, bytes);
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
    CHECK(codes_seen[0] > ROUNDS / 20);
    CHECK(codes_seen[1] > ROUNDS / 20);
}

static void broken_offsets_are_read_or_refused(void)
{
    fuzz("func_name,invoke_time_ms\nda708abab3,6\n9b63c7d23d,51\nda708abab3,520.25\nx,4e3\n");
}

static void broken_quotes_and_line_ends_are_read_or_refused(void)
{
    fuzz("\xef\xbb\xbf\"time_s\" , \"model\",size\r\n0,\"a,b\",\"1\"\r\n\r\n0.5, c ,2\r\n7,\"d\",");
}

static void broken_wall_clock_times_are_read_or_refused(void)
{
    fuzz("TIMESTAMP,ContextTokens\r\n2023-11-16 18:17:03.9799600,4808\r\n"
         "2023-11-16T18:17:04Z,3180\r\n2024-02-29 00:00:00,110\r\n");
}

int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    RUN(broken_offsets_are_read_or_refused);
    RUN(broken_quotes_and_line_ends_are_read_or_refused);
    RUN(broken_wall_clock_times_are_read_or_refused);
    return check_end();
}
#endif
