/* Expressions in RE2's syntax, and whether all of a string matches.  What is expected was compared
 * with RE2 itself. */
#include "../check.h"
#include <kernels/ref/regex.h>

static struct err err;

/* 1, 0, or what regex_new() says. */
static int matches(const char *pattern, const char *text)
{
    AUTO(regex_free) struct regex *re = NULL;
    bool is = false;
    int r = regex_new(pattern, strlen(pattern), &re, &err);

    if (r == 0)
        r = regex_full_match(re, text, strlen(text), &is, &err);
    if (r < 0)
        printf("# '%s': %s\n", pattern, err.msg);
    return r < 0 ? r : is;
}
#define IS(pattern, text) CHECK_EQ(matches(pattern, text), 1)
#define IS_NOT(pattern, text) CHECK_EQ(matches(pattern, text), 0)

static void all_of_the_text_must_match(void)
{
    IS("", "");
    IS("abc", "abc");
    IS_NOT("abc", "abcd");
    IS_NOT("bc", "abc");
    IS("a|abc|ab", "ab");
    IS_NOT("a|abc|ab", "b");
    IS("(www.[\\w.-]+.com)", "www.google.com");
    IS_NOT("(www.[\\w.-]+.com)", "www.google.com/en");
}

static void parts_are_repeated(void)
{
    IS("a*", "");
    IS("a*", "aaa");
    IS_NOT("a+", "");
    IS("(ab)+?c??", "ababc");
    IS("a{2}", "aa");
    IS_NOT("a{2}", "aaa");
    IS("a{2,}", "aaaa");
    IS("(a|b){1,3}", "aba");
    IS_NOT("(a|b){1,3}", "abab");
    IS("xa{0}y", "xy");
    IS("(a*)*(|b){1000}", "aab");
    IS("a{,2}", "a{,2}"); /* no repetition: text */
    IS("a{01}b{1,02}", "a{01}b{1,02}");
    IS("\\Qa*b\\E+", "a*bbb");
    IS("a(?i)*", "aa"); /* flags are nothing to repeat, what is in front of them is */
}

static void a_quote_left_open_takes_all_that_follows(void)
{
    IS("a\\Qb)|(?:c", "ab)|(?:c");
    IS("a\\Q\\", "a\\");
    IS("(?:a\\Qb)\\E)", "ab)");
    IS("(?:(.*\\\\E:)*\\Q)|(?:(.*\\\\E:)*\\Q)", ")|(?:(.*\\:)"); /* one group, not two */
}

static void classes_are_of_ascii_and_of_ranges(void)
{
    IS("[a-c]+", "abc");
    IS("[^a-c]", "\n");
    IS("[]a^-]+", "]a^-");
    IS_NOT("[[:alpha:]]", "1");
    IS("[[:^alpha:]\\d]+", "1-");
    IS("\\w\\W\\s\\S\\d\\D", "a- b1c");
    IS_NOT("\\s", "\v"); /* as Perl's was */
    IS("[[:space:]]", "\v");
    IS_NOT("\\w", "\u00e9");
    IS("[\u00e0-\u00ff]", "\u00e9");
    IS("\\x41\\x{e9}\\101\\t\\.", "A\u00e9A\t.");
}

static void a_dot_is_one_character_but_no_end_of_line(void)
{
    IS("..", "\u00e9\U0001f600");
    IS_NOT(".", "\n");
    IS("(?s).", "\n");
    IS_NOT("(?s).*", "\x80");           /* a byte that is no character */
    IS_NOT("a|.", "\xc1\xa1");          /* an a in two bytes */
    IS_NOT("[^b]", "\xf7\xbf\xbf\xbf"); /* beyond U+10FFFF */
}

static void places_are_of_the_text_or_of_a_line(void)
{
    IS("^a$", "a");
    IS_NOT("a$", "a\n");
    IS_NOT("a$\n", "a\n");
    IS("(?m)a$\n^b", "a\nb");
    IS("\\Aa\\z", "a");
    IS("a\\b \\bb", "a b");
    IS_NOT("a\\bb", "ab");
    IS("a\\Bb", "ab");
}

static void case_may_not_matter(void)
{
    IS("(?i)abc\u00c4", "aBC\u00e4");
    IS("a(?i:b)c", "aBc");
    IS_NOT("a(?i:b)c", "aBC");
    IS("(?i)k\u03c3", "\u212a\u03c2"); /* the Kelvin sign; a sigma at the end of a word */
    IS("(?i)\u0390\ufb05", "\u1fd3\ufb06");
    IS_NOT("(?i)[^s]", "\u017f");
    IS_NOT("(?i)i|I", "\u0131"); /* Turkish letters are no case of i */
    IS_NOT("(?i)i|I", "\u0130");
    IS("(?i)\u0131\u0130", "\u0131\u0130");
    IS_NOT("(?i)\\W", "s");
    IS("((?i)a|b)c", "Bc");
    IS_NOT("((?i)a|b)c", "BC");
}

static void refused(const char *pattern, int code, const char *what)
{
    struct regex *re = NULL;

    CHECK_EQ(regex_new(pattern, strlen(pattern), &re, &err), code);
    CHECK(re == NULL);
    CHECK_HAS(err.msg, what);
}

static void what_is_no_syntax_is_refused_with_its_place(void)
{
    refused("(a", -EINVAL, "a ( without its ) at byte 2");
    refused("a)", -EINVAL, "a ) without its ( at byte 1");
    refused("[a", -EINVAL, "a [ without its ]");
    refused("*a", -EINVAL, "nothing to repeat");
    refused("a|*", -EINVAL, "nothing to repeat");
    refused("a**", -EINVAL, "a repetition of a repetition");
    refused("a{2,1}", -EINVAL, "bad number of repetitions");
    refused("a{1001}", -EINVAL, "0 to 1000");
    refused("[b-a]", -EINVAL, "a range that ends before it begins");
    refused("[[:foo:]]", -EINVAL, "no such class");
    refused("[[:]:]]", -EINVAL, "no such class"); /* its name is "]" */
    refused("(a)\\1", -EINVAL, "back reference");
    refused("(?=a)", -EINVAL, "bad group");
    refused("(?<!a)", -EINVAL, "bad name of a group");
    refused("\\y", -EINVAL, "bad escape");
    refused("a\\", -EINVAL, "nothing behind it");
    refused("\x80", -EINVAL, "no UTF-8");
    refused("\xc1\xa1", -EINVAL, "no UTF-8");
    refused("\\pL", -ENOTSUP, "\\p");
    refused("\\C", -ENOTSUP, "\\C");
}

static void work_is_bounded(void)
{
    char deep[2 * REGEX_NEST_MAX + 3] = {0}, *text = calloc(1, 200000);
    bool is;

    refused("((((a{10}){10}){10}){10}){10}", -EINVAL, "over the limit of 10000 steps");
    memset(deep, '(', REGEX_NEST_MAX + 1);
    memset(deep + REGEX_NEST_MAX + 1, ')', REGEX_NEST_MAX + 1);
    refused(deep, -EINVAL, "over the limit of 200 nested groups");
    IS("(a*)*(a*)*(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"); /* no exponential work */
    AUTO(regex_free) struct regex *re = NULL;
    assert(text);
    CHECK_EQ(regex_new("(a{1000}){9}", 12, &re, &err), 0);
    CHECK_EQ(regex_full_match(re, text, 200000, &is, &err), -EINVAL);
    CHECK_HAS(err.msg, "a string of 200000 bytes for a pattern of 9001 steps");
    free(text);
}

/* A step is as much work as its class has ranges. */
static void wide_classes_count_as_work(void)
{
    static char pattern[REGEX_BYTES_MAX + 1], text[2000];
    AUTO(regex_free) struct regex *re = NULL;
    bool is;

    memset(pattern, 'b', REGEX_BYTES_MAX);
    memcpy(pattern, "(?:[", 4);
    memcpy(pattern + REGEX_BYTES_MAX - 8, "]?){100}", 8);
    CHECK_EQ(regex_new(pattern, REGEX_BYTES_MAX, &re, &err), 0);
    CHECK_EQ(regex_full_match(re, text, sizeof(text), &is, &err), -EINVAL);
    CHECK_HAS(err.msg, "a string of 2000 bytes for a pattern of 201 steps and 6552400 ranges");
    CHECK_EQ(regex_new(pattern, sizeof(pattern), &(struct regex *){NULL}, &err), -EINVAL);
    CHECK_HAS(err.msg, "a pattern of 65537 bytes (65536 at most)");
}

int main(void)
{
    RUN(all_of_the_text_must_match);
    RUN(parts_are_repeated);
    RUN(a_quote_left_open_takes_all_that_follows);
    RUN(classes_are_of_ascii_and_of_ranges);
    RUN(a_dot_is_one_character_but_no_end_of_line);
    RUN(places_are_of_the_text_or_of_a_line);
    RUN(case_may_not_matter);
    RUN(what_is_no_syntax_is_refused_with_its_place);
    RUN(work_is_bounded);
    RUN(wide_classes_count_as_work);
    return check_end();
}
