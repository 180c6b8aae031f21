/* Strings: those that only move, those that are compared, and operators about text. */
#include "ref_call.h"

#define MAX_TEXT 256

/* A tensor of the strings in s, separated by '|', in wire form in buf. */
static struct tensor strings(char *buf, const char *s, const int64_t *dims, size_t rank)
{
    struct tensor t = tensor_of(DT_STRING, buf, dims, rank);

    for (const char *end; t.bytes < MAX_TEXT; s = end + 1) {
        end = strchrnul(s, '|');
        uint32_t n = (uint32_t)(end - s);
        memcpy(buf + t.bytes, &n, sizeof(n));
        memcpy(buf + t.bytes + sizeof(n), s, n);
        t.bytes += sizeof(n) + n;
        if (!*end)
            break;
    }
    return t;
}
#define TEXT(s, ...) strings((char[MAX_TEXT]){0}, s, INTS(__VA_ARGS__))

/* The strings of t, separated by '|'. */
static const char *shown(const struct tensor *t)
{
    static char buf[MAX_TEXT];
    size_t at = 0, n = 0;
    struct str s;

    buf[0] = 0;
    for (bool first = true; at < t->bytes && tensor_text(t, &at, &s) == 0; first = false)
        n += (size_t)snprintf(buf + n, sizeof(buf) - n, "%s%.*s", first ? "" : "|", (int)s.n, s.s);
    return buf;
}

/* The rule says how much room there is, then the kernel runs: as graph_run() does it. */
static int infer_and_run(struct call *c, const char *want)
{
    const struct tensor *in[9];
    struct tensor got[4] = {0}, *out[4] = {0};
    char buf[4][MAX_TEXT];
    struct node n = {
        .name = "n", .op = c->op, .opset = c->opset ? c->opset : 20, .attr = c->attr, .n_out = 1};

    last = (struct err){0};
    while (n.n_attr < ARRAY_SIZE(c->attr) && c->attr[n.n_attr].name)
        n.n_attr++;
    for (uint32_t i = 0; i < ARRAY_SIZE(c->in); i++) {
        in[i] = c->in[i].dtype ? &c->in[i] : NULL;
        n.n_in = in[i] ? i + 1 : n.n_in;
    }
    for (uint32_t i = 1; i < ARRAY_SIZE(c->out); i++)
        n.n_out = c->out[i].dtype ? i + 1 : n.n_out;
    int r = node_infer(&n, in, got, &last);
    for (uint32_t i = 0; i < n.n_out; i++) {
        got[i].data = c->out[i].data ? c->out[i].data : buf[i];
        out[i] = &got[i];
        CHECK(got[i].bytes <= MAX_TEXT);
    }
    r = r < 0 ? r : ref_run(&n, in, NULL, out, &last);
    if (r == 0 && want)
        CHECK_STR(shown(&got[0]), want);
    c->out[0] = got[0];
    return r;
}
#define GIVES(want, ...) infer_and_run(&(struct call){__VA_ARGS__}, want)

static void strings_move_as_numbers_do(void)
{
    struct tensor x = TEXT("a|bcd||ef", 2, 2);
    bool pick[] = {true, false};

    CHECK_EQ(GIVES("a||bcd|ef", .op = OP_Transpose, .in = {x}), 0);
    CHECK_EQ(
        GIVES("ef||ef", .op = OP_Gather, .in = {TEXT("a|bcd||ef", 4), LONGS(I64(3, 2, -1), 3)}), 0);
    CHECK_EQ(GIVES("bcd|ef", .op = OP_Slice,
                   .in = {x, LONGS(I64(1), 1), LONGS(I64(2), 1), LONGS(I64(1), 1)}),
             0);
    CHECK_EQ(GIVES("a|a|a", .op = OP_Expand, .in = {TEXT("a", 1), LONGS(I64(3), 1)}), 0);
    CHECK_EQ(GIVES("a|xy|a|xy", .op = OP_Tile, .in = {TEXT("a|xy", 2), LONGS(I64(2), 1)}), 0);
    CHECK_EQ(GIVES("a|b|c", .op = OP_Concat, .attr = {number("axis", 0)},
                   .in = {TEXT("a|b", 2), TEXT("c", 1)}),
             0);
    CHECK_EQ(GIVES("yes|no", .op = OP_Where,
                   .in = {tensor_of(DT_BOOL, pick, INTS(2)), TEXT("yes", 1), TEXT("no", 1)}),
             0);
    CHECK_EQ(GIVES("a|bcd||ef", .op = OP_Reshape, .in = {x, LONGS(I64(-1), 1)}), 0);
}

static void padding_is_an_empty_string_or_the_one_given(void)
{
    CHECK_EQ(GIVES("|a|", .op = OP_Pad, .in = {TEXT("a", 1), LONGS(I64(1, 1), 2)}), 0);
    CHECK_EQ(GIVES("a|-", .op = OP_Pad, .in = {TEXT("a", 1), LONGS(I64(0, 1), 2), TEXT("-", 1)}),
             0);
}

static void equal_strings_are_equal_wherever_they_lie(void)
{
    bool y[4];

    CHECK_EQ(GIVES(NULL, .op = OP_Equal, .in = {TEXT("ab|a||ab", 4), TEXT("ab", 1)},
                   .out = {{.data = y}}),
             0);
    CHECK(y[0] && !y[1] && !y[2] && y[3]);
}

static void strings_are_picked_scattered_and_told_apart(void)
{
    bool keep[] = {true, false, true};
    int64_t at[6];

    CHECK_EQ(GIVES("a|c", .op = OP_Compress,
                   .in = {TEXT("a|b|c", 3), tensor_of(DT_BOOL, keep, INTS(3))}),
             0);
    CHECK_EQ(GIVES("c|a", .op = OP_GatherElements, .in = {TEXT("a|b|c", 3), LONGS(I64(2, 0), 2)}),
             0);
    CHECK_EQ(GIVES("a|long|c", .op = OP_ScatterND,
                   .in = {TEXT("a|b|c", 3), LONGS(I64(1), 1, 1), TEXT("long", 1)}),
             0);
    CHECK_EQ(GIVES("", .op = OP_ScatterND, .attr = {word("reduction", "add")},
                   .in = {TEXT("a|b|c", 3), LONGS(I64(1), 1, 1), TEXT("long", 1)}),
             -ENOTSUP);
    CHECK_EQ(GIVES("|ab|b", .op = OP_Unique, .in = {TEXT("b|ab||b", 4)}), 0);
    CHECK_EQ(GIVES(NULL, .op = OP_NonZero, .in = {TEXT("x||y", 3)}, .out = {{.data = at}}), 0);
    CHECK_LONGS(at, 0, 2);
}

static void strings_that_end_beyond_their_tensor_are_refused(void)
{
    struct tensor x = TEXT("abc|d", 2);

    ((char *)x.data)[0] = 100;
    CHECK_EQ(GIVES("", .op = OP_Identity, .in = {x}), -EINVAL);
    x = TEXT("abc|d", 2);
    x.bytes--;
    CHECK_EQ(GIVES("", .op = OP_Identity, .in = {x}), -EINVAL);
}

static void what_is_not_known_yet_has_no_size(void)
{
    struct tensor x = TEXT("a", 1);

    x.data = NULL;
    CHECK_EQ(GIVES("", .op = OP_Tile, .in = {x, LONGS(I64(2), 1)}), -ENODATA);
    CHECK_HAS(last.msg, "known only when the model runs");
}

static void numbers_become_text_and_come_back(void)
{
    float y[5];
    int64_t l[2];

    CHECK_EQ(GIVES("0.1|3|-2.5e+10|NaN|-INF", .op = OP_Cast, .attr = {number("to", DT_STRING)},
                   .in = {FLOATS(F32(0.1f, 3, -2.5e10f, NAN, -INFINITY), 5)}),
             0);
    CHECK_EQ(GIVES(NULL, .op = OP_Cast, .attr = {number("to", DT_FP32)},
                   .in = {TEXT("0.1|3e1|-INF|inf|+4", 5)}, .out = {{.data = y}}),
             0);
    CHECK_FLOATS(y, 0.1f, 30);
    CHECK(y[2] < 0 && isinf(y[2]) && isinf(y[3]) && y[4] == 4);
    CHECK_EQ(GIVES(NULL, .op = OP_Cast, .attr = {number("to", DT_INT64)},
                   .in = {TEXT("-9223372036854775808|7", 2)}, .out = {{.data = l}}),
             0);
    CHECK_LONGS(l, INT64_MIN, 7);
    CHECK_EQ(GIVES(NULL, .op = OP_Cast, .attr = {number("to", DT_INT64)}, .in = {TEXT("12x", 1)},
                   .out = {{.data = l}}),
             -EINVAL);
    CHECK_HAS(last.msg, "'12x' is no number");
}

static void concatenation_broadcasts(void)
{
    CHECK_EQ(GIVES("a.com|b.com", .op = OP_StringConcat, .in = {TEXT("a|b", 2), TEXT(".com", 1)}),
             0);
}

static void splitting_counts_pieces_and_fills_up(void)
{
    int64_t z[2];

    CHECK_EQ(GIVES("a|b||c||||", .op = OP_StringSplit, .attr = {word("delimiter", ",")},
                   .in = {TEXT("a,b,,c|", 2)}, .out = {[1] = LONGS(z, 2)}),
             0);
    CHECK_LONGS(z, 4, 1);
    CHECK_EQ(GIVES("a|b c |d|", .op = OP_StringSplit, .attr = {number("maxsplit", 1)},
                   .in = {TEXT("  a  b c |d", 2)}, .out = {[1] = LONGS(z, 2)}),
             0);
    CHECK_LONGS(z, 2, 1);
}

static void patterns_match_whole_strings(void)
{
    uint8_t y[4];
    struct tensor out = tensor_of(DT_BOOL, y, INTS(2, 2));

    CHECK_EQ(RUN_OP(.op = OP_RegexFullMatch, .opset = 20, .attr = {word("pattern", "a+|[0-9]+")},
                    .in = {TEXT("aa|12||a1", 2, 2)}, .out = {out}),
             0);
    CHECK_EQ(memcmp(y, (uint8_t[]){1, 1, 0, 0}, sizeof(y)), 0);
    CHECK_EQ(RUN_OP(.op = OP_RegexFullMatch, .opset = 20, .attr = {word("pattern", "a(")},
                    .in = {TEXT("aa|12||a1", 2, 2)}, .out = {out}),
             -EINVAL);
    CHECK_HAS(last.msg, "node 'n' (RegexFullMatch): pattern: a ( without its )");
}

static void stop_words_go_and_letters_change(void)
{
    struct attr stop = words("stopwords", (const struct attr_text[]){{"monday", 6}}, 1);
    struct tensor x = TEXT("Monday|tuesday|\xc3\x84rger", 3);

    CHECK_EQ(GIVES("TUESDAY|\xc3\x84RGER", .op = OP_StringNormalizer,
                   .attr = {stop, word("case_change_action", "UPPER")}, .in = {x}),
             0);
    CHECK_EQ(
        GIVES("monday|tuesday|\xc3\xa4rger", .op = OP_StringNormalizer,
              .attr = {stop, word("case_change_action", "LOWER"), number("is_case_sensitive", 1)},
              .in = {x}),
        0);
    struct call all = {
        .op = OP_StringNormalizer, .attr = {stop}, .in = {TEXT("monday|MONDAY", 1, 2)}};
    CHECK_EQ(infer_and_run(&all, ""), 0);
    CHECK_EQ(all.out[0].dims[0], 1);
    CHECK_EQ(all.out[0].dims[1], 1);
}

/* Pool: the words a and b, the pair "a b"; pairs may have one word between them. */
static void words_and_pairs_are_counted(void)
{
    float y[3];
    struct attr pool = words("pool_strings",
                             (const struct attr_text[]){{"a", 1}, {"b", 1}, {"a", 1}, {"b", 1}}, 4);
    struct call c = {.op = OP_TfIdfVectorizer,
                     .attr = {pool, ints("ngram_counts", I64(0, 2), 2),
                              ints("ngram_indexes", I64(0, 1, 2), 3), number("min_gram_length", 1),
                              number("max_gram_length", 2), number("max_skip_count", 1),
                              word("mode", "TF")},
                     .in = {TEXT("a|b|a|c|b", 5)},
                     .out = {FLOATS(y, 3)}};

    CHECK_EQ(infer_and_run(&c, NULL), 0);
    CHECK_FLOATS(y, 2, 2, 2); /* "a b" at 0, and "a ? b" at 2 */
}

int main(void)
{
    RUN(strings_move_as_numbers_do);
    RUN(padding_is_an_empty_string_or_the_one_given);
    RUN(equal_strings_are_equal_wherever_they_lie);
    RUN(strings_are_picked_scattered_and_told_apart);
    RUN(strings_that_end_beyond_their_tensor_are_refused);
    RUN(what_is_not_known_yet_has_no_size);
    RUN(numbers_become_text_and_come_back);
    RUN(concatenation_broadcasts);
    RUN(splitting_counts_pieces_and_fills_up);
    RUN(patterns_match_whole_strings);
    RUN(stop_words_go_and_letters_change);
    RUN(words_and_pairs_are_counted);
    return check_end();
}
