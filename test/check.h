/* What a test program needs.  A test is a function named as a sentence; main() lists them:
 *
 *     int main(void)
 *     {
 *         RUN(late_batch_shrinks_to_save_the_oldest);
 *         return check_end();
 *     }
 *
 * Output: one line "ok - name" or "not ok - name" a test, counted by test/run.sh. */
#pragma once

#include <gpulet/base.h>
#include <inttypes.h>
#include <stdio.h>

static int check_failures, check_total_failures;

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond);                                    \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        long long a_ = (long long)(a), b_ = (long long)(b);                                        \
        if (a_ != b_) {                                                                            \
            printf("# %s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #a, a_, b_);             \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *a_ = (a), *b_ = (b);                                                           \
        if (strcmp(a_, b_) != 0) {                                                                 \
            printf("# %s:%d: %s is '%s', not '%s'\n", __FILE__, __LINE__, #a, a_, b_);             \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

/* text contains part: for messages */
#define CHECK_HAS(text, part)                                                                      \
    do {                                                                                           \
        const char *a_ = (text), *b_ = (part);                                                     \
        if (!strstr(a_, b_)) {                                                                     \
            printf("# %s:%d: '%s' does not mention '%s'\n", __FILE__, __LINE__, a_, b_);           \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

static inline void check_run(void (*fn)(void), const char *name)
{
    check_failures = 0;
    fn();
    check_total_failures += check_failures;
    printf("%s - ", check_failures ? "not ok" : "ok");
    for (const char *c = name; *c; c++)
        putchar(*c == '_' ? ' ' : *c);
    putchar('\n');
    fflush(stdout);
}
#define RUN(fn) check_run(fn, #fn)

static inline int check_end(void)
{
    return check_total_failures ? 1 : 0;
}
