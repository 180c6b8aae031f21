/* RegexFullMatch: the automaton.  A set of states goes through the string, a character at a time;
 * what can be reached without a character is followed as the set is made. */
#include "regex.h"
#include "kit.h"
#include "text.h"
#include <locale.h>
#include <wctype.h>

struct regex {
    struct regex_program p;
    locale_t loc;
    uint32_t *mark; /* by step: the turn in which it was reached last */
    uint32_t turn;
    uint32_t *now;  /* steps that wait for a character */
    uint32_t *next; /* steps that the last character leads to */
    uint32_t *todo; /* steps to follow */
    uint32_t n_now, n_next;
    uint64_t n_ranges; /* of the classes of all steps */
};

void regex_free(struct regex *re)
{
    if (!re)
        return;
    free(re->p.step);
    free(re->p.class);
    free(re->p.range);
    free(re->mark);
    if (re->loc)
        freelocale(re->loc);
    free(re);
}

/* mark, now, next: one entry a step; todo: two. */
static int sets_new(struct regex *re)
{
    size_t n = re->p.n_steps;

    re->mark = calloc(5 * n, sizeof(*re->mark));
    if (!re->mark)
        return -ENOMEM;
    re->now = re->mark + n;
    re->next = re->now + n;
    re->todo = re->next + n;
    return 0;
}

static uint64_t count_ranges(const struct regex_program *p)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->step[i].op == RE_CLASS)
            n += p->class[p->step[i].x].n;
    return n;
}

int regex_new(const char *pattern, size_t n, struct regex **ret, struct err *err)
{
    AUTO(regex_free) struct regex *re = calloc(1, sizeof(*re));

    if (!re)
        return err_set(err, -ENOMEM, "out of memory");
    int r = regex_parse(pattern, n, &re->p, err);
    if (r < 0)
        return r;
    re->loc = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
    if (!re->loc || sets_new(re) < 0)
        return err_set(err, -ENOMEM, "no memory, or no locale C.UTF-8");
    re->n_ranges = count_ranges(&re->p);
    *ret = TAKE(re);
    return 0;
}

/* ---- characters */
#define NO_CHAR UINT32_MAX /* before the first and after the last; a byte that begins none */

static bool in_ranges(const struct regex_program *p, const struct regex_class *c, uint32_t ch)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (ch >= p->range[c->first + i].from && ch <= p->range[c->first + i].to)
            return true;
    return false;
}

/* Letters that no other one's upper or lower case is, and the lower case that they fold to. */
static const struct {
    uint16_t odd, lower;
} odd_letters[] = {
    {0x00b5, 0x03bc}, {0x017f, 's'},    {0x01c5, 0x01c6}, {0x01c8, 0x01c9}, {0x01cb, 0x01cc},
    {0x01f2, 0x01f3}, {0x0345, 0x03b9}, {0x03c2, 0x03c3}, {0x03d0, 0x03b2}, {0x03d1, 0x03b8},
    {0x03d5, 0x03c6}, {0x03d6, 0x03c0}, {0x03f0, 0x03ba}, {0x03f1, 0x03c1}, {0x03f4, 0x03b8},
    {0x03f5, 0x03b5}, {0x1c80, 0x0432}, {0x1c81, 0x0434}, {0x1c82, 0x043e}, {0x1c83, 0x0441},
    {0x1c84, 0x0442}, {0x1c85, 0x0442}, {0x1c86, 0x044a}, {0x1c87, 0x0463}, {0x1c88, 0xa64b},
    {0x1e9b, 0x1e61}, {0x1e9e, 0x00df}, {0x1fbe, 0x03b9}, {0x1fd3, 0x0390}, {0x1fe3, 0x03b0},
    {0x2126, 0x03c9}, {0x212a, 'k'},    {0x212b, 0x00e5}, {0xfb05, 0xfb06},
};

/* Case does not matter: it is enough that another form of the letter is there. */
static bool in_folded(const struct regex *re, const struct regex_class *c, uint32_t ch)
{
    uint32_t upper = (uint32_t)towupper_l(ch, re->loc);
    uint32_t lower = (uint32_t)towlower_l(upper, re->loc);

    if (ch == 0x130 || ch == 0x131) /* i with and without its dot: to Turkish alone a case of i */
        return in_ranges(&re->p, c, ch);
    for (size_t i = 0; i < ARRAY_SIZE(odd_letters); i++)
        if (odd_letters[i].odd == ch) {
            lower = odd_letters[i].lower;
            upper = (uint32_t)towupper_l(lower, re->loc);
        }
    if (in_ranges(&re->p, c, ch) || in_ranges(&re->p, c, lower) || in_ranges(&re->p, c, upper))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(odd_letters); i++)
        if (odd_letters[i].lower == lower && in_ranges(&re->p, c, odd_letters[i].odd))
            return true;
    return false;
}

static bool takes(const struct regex *re, uint32_t class, uint32_t ch)
{
    const struct regex_class *c = &re->p.class[class];

    if (ch == NO_CHAR)
        return false;
    return (c->folded ? in_folded(re, c, ch) : in_ranges(&re->p, c, ch)) != c->negated;
}

static bool is_word(uint32_t ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
           ch == '_';
}

struct place {
    uint32_t before, after; /* characters */
    bool begin, end;        /* of the text */
};

static bool holds(enum regex_place kind, const struct place *at)
{
    switch (kind) {
    case PLACE_BEGIN:
        return at->begin;
    case PLACE_BEGIN_LINE:
        return at->begin || at->before == '\n';
    case PLACE_END:
        return at->end;
    case PLACE_END_LINE:
        return at->end || at->after == '\n';
    case PLACE_WORD:
        return is_word(at->before) != is_word(at->after);
    case PLACE_NOT_WORD:
        return is_word(at->before) == is_word(at->after);
    }
    return false;
}

/* ---- the set of states */
/* Adds to `now` what can be reached from `step` without a character; whether the end is among it.
 * Each step is followed once, so two entries of `todo` for each are enough. */
static bool reach(struct regex *re, uint32_t step, const struct place *at)
{
    uint32_t n = 0;
    bool end = false;

    re->todo[n++] = step;
    while (n > 0) {
        uint32_t i = re->todo[--n];
        const struct regex_step *s = &re->p.step[i];
        if (re->mark[i] == re->turn)
            continue;
        re->mark[i] = re->turn;
        if (s->op == RE_CLASS)
            re->now[re->n_now++] = i;
        if (s->op == RE_SPLIT)
            re->todo[n++] = (uint32_t)((int32_t)i + s->y);
        if (s->op == RE_SPLIT || s->op == RE_JUMP)
            re->todo[n++] = (uint32_t)((int32_t)i + s->x);
        if (s->op == RE_HERE && holds((enum regex_place)s->x, at))
            re->todo[n++] = i + 1;
        end |= s->op == RE_END;
    }
    return end;
}

/* All that `next` leads to becomes `now`. */
static bool reach_all(struct regex *re, const struct place *at)
{
    bool end = false;

    if (++re->turn == 0) { /* it has come round: old marks would look new */
        memset(re->mark, 0, re->p.n_steps * sizeof(*re->mark));
        re->turn = 1;
    }
    re->n_now = 0;
    for (uint32_t i = 0; i < re->n_next; i++)
        end |= reach(re, re->next[i], at);
    return end;
}

static void take(struct regex *re, uint32_t ch)
{
    re->n_next = 0;
    for (uint32_t i = 0; i < re->n_now; i++)
        if (takes(re, (uint32_t)re->p.step[re->now[i]].x, ch))
            re->next[re->n_next++] = re->now[i] + 1;
}

int regex_full_match(struct regex *re, const char *s, size_t n, bool *ret, struct err *err)
{
    struct place at = {.before = NO_CHAR, .after = NO_CHAR, .begin = true};

    if (n > REGEX_WORK_MAX / (re->p.n_steps + re->n_ranges))
        return err_set(
            err, -EINVAL,
            "a string of %zu bytes for a pattern of %u steps and %llu ranges (%llu in all)", n,
            re->p.n_steps, (unsigned long long)re->n_ranges, (unsigned long long)REGEX_WORK_MAX);
    re->next[0] = 0;
    re->n_next = 1;
    for (size_t i = 0, len; i < n && re->n_next > 0; i += len) {
        uint32_t ch;
        len = utf8_read(s, n, i, &ch);
        at.after = len ? ch : NO_CHAR;
        (void)reach_all(re, &at);
        take(re, at.after);
        at = (struct place){.before = at.after, .after = NO_CHAR};
        len = MAX(len, 1);
    }
    at.end = true;
    *ret = reach_all(re, &at);
    return 0;
}

/* ---- the operator */
REF_FN(ref_regex_full_match)
{
    const struct attr *pattern = node_attr(n, "pattern");
    AUTO(ref_drop) struct str *x = ref_scratch((size_t)ref_count(in[0]) + 1, sizeof(*x));
    AUTO(regex_free) struct regex *re = NULL;
    int r = x ? ref_texts(n, in[0], x, err) : ref_fail(n, err, -ENOMEM, "out of memory");

    if (r < 0)
        return r;
    if (!pattern || pattern->type != ATTR_STRING || out[0]->dtype != DT_BOOL ||
        ref_count(out[0]) != ref_count(in[0]))
        return ref_fail(n, err, -EINVAL, "no pattern, or an output that does not fit the input");
    r = regex_new(pattern->s, pattern->n, &re, err);
    for (int64_t i = 0; i < ref_count(in[0]) && r == 0; i++) {
        bool is = false;
        r = regex_full_match(re, x[i].s, x[i].n, &is, err);
        if (r == 0)
            num_put(out[0], i, (union num){.u = is});
    }
    return r < 0 ? err_wrap(err, "node '%s' (%s): ", n->name, op_name(n->op)) : 0;
}
