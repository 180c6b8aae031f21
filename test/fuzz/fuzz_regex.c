/* Any bytes as an expression and a text: it is refused with a message or compiled, and then it,
 * itself in a group and itself or itself say the same of the text, within bounds (sanitizers
 * watch).
 *
 * The input is the pattern, a zero byte, the text.  A pattern that ends behind \Q would take the )
 * and all that follows for text: it is put into a group with \E at its end. */
#include <kernels/ref/regex.h>
#define FUZZ_NAME "regex"
#include "fuzz.h"

#define ROUNDS 20000
#define PATTERN_MAX 500

static int codes_seen[2];

/* 1, 0, or below: refused. */
static int match(const char *pattern, size_t n, const char *text, size_t n_text)
{
    AUTO(regex_free) struct regex *re = NULL;
    struct err e = {0};
    bool is = false;
    int r = regex_new(pattern, n, &re, &e);

    if (r == 0)
        r = regex_full_match(re, text, n_text, &is, &e);
    assert(r == 0 || (r == e.code && e.msg[0]));
    return r < 0 ? r : is;
}

static void one_input(const uint8_t *data, size_t n)
{
    const char *p = (const char *)data;
    size_t len = strnlen(p, n), n_text = len < n ? n - len - 1 : 0;
    const char *text = n_text ? p + len + 1 : "";
    int is = match(p, len, text, n_text);

    codes_seen[is < 0]++;
    if (is < 0 || len > PATTERN_MAX)
        return;
    char group[PATTERN_MAX + 8], either[2 * sizeof(group)];
    (void)snprintf(group, sizeof(group), "(?:%.*s)", (int)len, p);
    int grouped = match(group, strlen(group), text, n_text);
    if (grouped < 0) {
        (void)snprintf(group, sizeof(group), "(?:%.*s\\E)", (int)len, p);
        grouped = match(group, strlen(group), text, n_text);
    }
    if (grouped < 0) /* one parenthesis too many */
        return;
    (void)snprintf(either, sizeof(either), "%s|%s", group, group);
    int r = match(either, strlen(either), text, n_text);
    assert(grouped == is);
    assert(r < 0 || r == is); /* refused: it has twice the steps */
}

#ifndef FUZZ_LIBFUZZER

/* A pattern of parts that mean something, and a text of letters from it. */
static void arbitrary_patterns_are_taken_or_refused(void)
{
    static const char *const parts[] = {"a",
                                        "b",
                                        "K",
                                        "\xc3\xa9",
                                        ".",
                                        "\\d",
                                        "\\W",
                                        "^",
                                        "$",
                                        "\\b",
                                        "[a-c]",
                                        "[^\\w]",
                                        "[[:^alpha:]]",
                                        "\\Qa*\\E",
                                        "(?i)",
                                        "(?s)",
                                        "(",
                                        "(?:",
                                        "(?m:",
                                        ")",
                                        "|",
                                        "*",
                                        "+",
                                        "?",
                                        "{2}",
                                        "{0,3}",
                                        "{1,}",
                                        "\\x41",
                                        "[",
                                        "]",
                                        "{",
                                        "\\",
                                        "\\Q",
                                        "(?P<x>",
                                        "\x80"};
    static const char letters[] = "aabbcK k1\n\xc3\xa9";

    for (int i = 0; i < ROUNDS; i++) {
        char input[200];
        size_t n = 0;
        for (uint32_t k = 1 + any(9); k > 0; k--) {
            const char *part = parts[any(any(3) ? 16 : ARRAY_SIZE(parts))];
            memcpy(input + n, part, strlen(part));
            n += strlen(part);
        }
        input[n++] = 0;
        for (uint32_t k = any(8); k > 0; k--)
            input[n++] = letters[any(sizeof(letters) - 1)];
        one_input((const uint8_t *)input, n);
    }
    CHECK(codes_seen[0] > ROUNDS / 10);
    CHECK(codes_seen[1] > ROUNDS / 10);
}

int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    RUN(arbitrary_patterns_are_taken_or_refused);
    return check_end();
}
#endif
