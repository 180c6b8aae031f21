/* Traces: published layouts, every kind of mistake, and random traces written and read. */
#include <gpulet/replay.h>
#include "../check.h"

static int parse(struct arena *a, const char *text, struct trace *ret, struct err *e)
{
    arena_init(a);
    *e = (struct err){0};
    *ret = (struct trace){0};
    return trace_parse(text, strlen(text), a, ret, e);
}

static void offsets_in_milliseconds_and_names_are_read(void)
{
    struct arena a;
    struct trace t;
    struct err e;

    CHECK_EQ(parse(&a, "func_name,invoke_time_ms\nab,100.5\ncd,101\nab,4000\n", &t, &e), 0);
    CHECK_EQ(t.n, 3);
    CHECK_EQ(t.n_names, 2);
    if (t.n == 3 && t.n_names == 2) {
        CHECK_EQ(t.at_us[0], 0);
        CHECK_EQ(t.at_us[1], 500);
        CHECK_EQ(t.at_us[2], 3899500);
        CHECK_STR(t.name[t.name_of[0]], "ab");
        CHECK_STR(t.name[t.name_of[1]], "cd");
        CHECK_EQ(t.name_of[2], t.name_of[0]);
    }
    arena_done(&a);
}

static void a_byte_order_mark_and_both_line_ends_are_accepted(void)
{
    struct arena a;
    struct trace t;
    struct err e;

    CHECK_EQ(parse(&a, "\xef\xbb\xbfsize, time_s ,x\r\n1,0.25,y\r\n\r\n2, 1.5 ,\n3,1.5", &t, &e),
             0);
    CHECK_EQ(t.n, 3);
    CHECK(t.name_of == NULL);
    if (t.n == 3) {
        CHECK_EQ(t.at_us[1], 1250000);
        CHECK_EQ(t.at_us[2], 1250000); /* at the same time is fine */
    }
    arena_done(&a);
}

/* Over midnight, over a leap day, and 100 ns are cut off. */
static void wall_clock_times_become_offsets(void)
{
    struct arena a;
    struct trace t;
    struct err e;

    CHECK_EQ(parse(&a,
                   "TIMESTAMP,ContextTokens\n2024-02-28 23:59:59.9999999,1\n"
                   "2024-02-29T00:00:00.5Z,2\n2024-03-01 00:00:00,3\n",
                   &t, &e),
             0);
    CHECK_EQ(t.n, 3);
    if (t.n == 3) {
        CHECK_EQ(t.at_us[1], 500001);
        CHECK_EQ(t.at_us[2], 86400000001);
    }
    arena_done(&a);
}

static void quoted_names_may_hold_commas(void)
{
    struct arena a;
    struct trace t;
    struct err e;

    CHECK_EQ(parse(&a, "\"model\",offset_ms\n\"a,b\",1\n\"c\",2\n", &t, &e), 0);
    CHECK_EQ(t.n_names, 2);
    if (t.n_names == 2)
        CHECK_STR(t.name[0], "a,b");
    arena_done(&a);
}

static void a_header_alone_is_an_empty_trace(void)
{
    struct arena a;
    struct trace t;
    struct err e;

    CHECK_EQ(parse(&a, "time_s,model", &t, &e), 0);
    CHECK_EQ(t.n, 0);
    arena_done(&a);
}

/* 8,819 requests over 3,436 s, as published. */
static void the_carried_trace_is_read(void)
{
    static char text[200000];
    FILE *f = fopen("test/data/plan/azure-llm-code.csv", "rb");
    struct arena a;
    struct trace t;
    struct err e;

    CHECK(f != NULL);
    if (!f)
        return;
    text[fread(text, 1, sizeof(text) - 1, f)] = 0;
    (void)fclose(f);
    CHECK_EQ(parse(&a, text, &t, &e), 0);
    CHECK_EQ(t.n, 8819);
    if (t.n == 8819)
        CHECK_EQ(t.at_us[8818], 3435948056);
    arena_done(&a);
}

/* Each is refused with a message that has both parts. */
static const struct {
    const char *text, *where, *what;
} mistakes[] = {
    {"", "line 1", "time_s"},
    {"time,model\n1,a\n", "line 1: 'time,model'", "TIMESTAMP"},
    {"time_s,time_s\n", "line 1", "two columns 'time_s'"},
    {"model,time_s,model\n", "line 1", "two columns 'model'"},
    {"time_s\n1\nx\n", "line 3, column time_s", "'x' is not seconds"},
    {"a,time_s\n1\n", "line 2, column time_s", "''"},
    {"time_s\nnan\n", "line 2", "'nan'"},
    {"time_s\n0x10\n", "line 2", "'0x10'"},
    {"time_s\n1e\n", "line 2", "'1e'"},
    {"time_s\n-1\n", "line 2", "'-1'"},
    {"time_s\n1e11\n", "line 2", "1e10"},
    {"time_s\n1e999\n", "line 2", "1e10"},
    {"offset_ms\n5\n4\n", "line 3, column offset_ms", "'4' is not at or after"},
    {"TIMESTAMP\n2023-13-01 00:00:00\n", "line 2, column TIMESTAMP", "'2023-13-01"},
    {"TIMESTAMP\n2023-02-29 00:00:00\n", "line 2", "a time as"},
    {"TIMESTAMP\n2023-01-01 24:00:00\n", "line 2", "a time as"},
    {"TIMESTAMP\n2023-01-01 00:00:00.\n", "line 2", "a time as"},
    {"TIMESTAMP\nZ\n", "line 2", "a time as"},
    {"time_s,model\n1,\n", "line 2, column model", "''"},
    {"time_s,model\n1,a\tb\n", "line 2, column model", "a name"},
};

static void every_mistake_is_named_with_line_column_and_value(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
        struct arena a;
        struct trace t;
        struct err e;

        CHECK_EQ(parse(&a, mistakes[i].text, &t, &e), -EINVAL);
        CHECK_HAS(e.msg, mistakes[i].where);
        CHECK_HAS(e.msg, mistakes[i].what);
        arena_done(&a);
    }
}

static void more_bytes_than_the_limit_are_refused_unread(void)
{
    struct arena a;
    struct trace t;
    struct err e = {0};

    arena_init(&a);
    CHECK_EQ(trace_parse("time_s\n", ((size_t)256 << 20) + 1, &a, &t, &e), -EFBIG);
    CHECK_HAS(e.msg, "268435456");
    arena_done(&a);
}

/* ---- there and back */

static uint64_t seed = 1;

static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

#define ROWS 500

static void random_traces_survive_writing_and_reading(void)
{
    static const char *const column[] = {"time_s", "offset_ms", "invoke_time_ms"};

    for (uint32_t round = 1; round <= 200 && !check_failures; round++) {
        struct arena a;
        struct trace t;
        struct err e;
        usec_t at[ROWS], now = 0;
        uint32_t name[ROWS], n = below(ROWS), kind;
        char *text;
        size_t bytes;
        FILE *f = open_memstream(&text, &bytes);

        seed = round * UINT64_C(0x9e3779b97f4a7c15);
        kind = below(3);
        fprintf(f, "x,model,%s%s\n", column[kind], below(2) ? "\r" : "");
        for (uint32_t i = 0; i < n; i++) {
            at[i] = now += below(4) ? below(5000000) : 0;
            name[i] = below(300);
            if (kind == 0)
                fprintf(f, "0,m%u,%.6f\n", name[i], (double)at[i] / 1e6);
            else
                fprintf(f, "0,m%u,%.3f\r\n", name[i], (double)at[i] / 1e3);
        }
        (void)fclose(f);
        CHECK_EQ(parse(&a, text, &t, &e), 0);
        CHECK_EQ(t.n, n);
        for (uint32_t i = 0; i < n && !check_failures; i++) {
            char want[16];
            (void)snprintf(want, sizeof(want), "m%u", name[i]);
            CHECK_EQ(t.at_us[i], at[i] - at[0]);
            CHECK_STR(t.name[t.name_of[i]], want);
        }
        for (uint32_t i = 0; i < t.n_names; i++)
            for (uint32_t k = 0; k < i; k++)
                CHECK(!STREQ(t.name[i], t.name[k]));
        free(text);
        arena_done(&a);
    }
}

int main(void)
{
    RUN(offsets_in_milliseconds_and_names_are_read);
    RUN(a_byte_order_mark_and_both_line_ends_are_accepted);
    RUN(wall_clock_times_become_offsets);
    RUN(quoted_names_may_hold_commas);
    RUN(a_header_alone_is_an_empty_trace);
    RUN(the_carried_trace_is_read);
    RUN(every_mistake_is_named_with_line_column_and_value);
    RUN(more_bytes_than_the_limit_are_refused_unread);
    RUN(random_traces_survive_writing_and_reading);
    return check_end();
}
