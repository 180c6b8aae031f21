/* Regular expressions in RE2's syntax, for a match of a whole string.
 *
 * Whether all of a string matches does not depend on which way of matching comes first, so an
 * expression becomes a nondeterministic automaton, and all its states go through the string
 * together: the work is at most (characters) x (steps of the program and ranges of their classes),
 * whatever the expression.
 *
 * Refused by name: \C, \p and \P (classes by Unicode's tables), names of groups beyond ASCII; what
 * RE2 refuses as well is not its syntax: \1, (?=...), possessive repetition. */
#pragma once

#include <gpulet/base.h>

#define REGEX_BYTES_MAX 65536              /* of a pattern */
#define REGEX_STEPS_MAX 10000              /* of a program */
#define REGEX_REPEAT_MAX 1000              /* in {n,m}, as in RE2 */
#define REGEX_NEST_MAX 200                 /* parentheses */
#define REGEX_WORK_MAX (UINT64_C(1) << 30) /* (steps + ranges) x bytes of one string */

struct regex;

/* -EINVAL: not RE2's syntax, or over a limit; -ENOTSUP: a part that we lack; -ENOMEM.  err names
 * what and at which byte. */
int regex_new(const char *pattern, size_t n, struct regex **ret, struct err *err);
void regex_free(struct regex *re);
DEFINE_AUTO(struct regex, regex_free)
/* Does all of the string match?  -EINVAL: over REGEX_WORK_MAX.  Not from two threads at once. */
int regex_full_match(struct regex *re, const char *s, size_t n, bool *ret, struct err *err);

/* ---- between regex.c and regex_parse.c */
enum regex_op {
    RE_CLASS, /* a character that is in class `x` */
    RE_SPLIT, /* goes on at +x and at +y */
    RE_JUMP,  /* goes on at +x */
    RE_HERE,  /* goes on if the place is of kind `x` (enum regex_place) */
    RE_END,
};
enum regex_place {
    PLACE_BEGIN, /* of the text, of a line */
    PLACE_BEGIN_LINE,
    PLACE_END,
    PLACE_END_LINE,
    PLACE_WORD, /* between a word's character and another */
    PLACE_NOT_WORD
};
struct regex_step {
    enum regex_op op;
    int32_t x, y;
};
struct regex_range {
    uint32_t from, to; /* inclusive */
};
struct regex_class {
    uint32_t first, n; /* ranges */
    bool negated, folded;
};

/* What the parser makes; arrays on the heap. */
struct regex_program {
    struct regex_step *step;
    struct regex_class *class;
    struct regex_range *range;
    uint32_t n_steps, n_classes, n_ranges;
    uint32_t cap_steps, cap_classes, cap_ranges;
};
int regex_parse(const char *pattern, size_t n, struct regex_program *ret, struct err *err);
