/* Regular expressions become programs.
 *
 * Each part of an expression is a run of steps whose jumps are relative: what is repeated is
 * copied, and what an operator puts in front moves the rest.  A part is entered at its first step
 * and left behind its last. */
#include "regex.h"
#include "text.h"

#define LAST_CHAR 0x10ffff

struct flags {
    bool fold, lines, dot_all; /* i, m, s; U (ungreedy) says nothing of a whole match */
};

struct parser {
    const char *s;
    size_t n, at;
    unsigned depth;
    struct flags flags;
    struct regex_program *p;
    struct err *err;
};

static int wrong(struct parser *c, int code, const char *what)
{
    return err_set(c->err, code, "pattern: %s at byte %zu", what, c->at);
}

static bool more(const struct parser *c)
{
    return c->at < c->n;
}

static bool skip(struct parser *c, const char *word)
{
    size_t n = strlen(word);

    if (c->n - c->at < n || memcmp(c->s + c->at, word, n) != 0)
        return false;
    c->at += n;
    return true;
}

static int read_char(struct parser *c, uint32_t *ret)
{
    size_t len = utf8_read(c->s, c->n, c->at, ret);

    if (len == 0)
        return wrong(c, -EINVAL, "no UTF-8");
    c->at += len;
    return 0;
}

/* ---- the program */
static void *grown(void *array, uint32_t n, uint32_t *cap, size_t each)
{
    if (n <= *cap)
        return array;
    uint32_t to = MAX(2 * n, 64u);
    void *ret = realloc(array, to * each);
    if (ret)
        *cap = to;
    return ret;
}

/* Room for n more steps at `at`; what lies there moves behind them. */
static int insert(struct parser *c, uint32_t at, uint32_t n)
{
    struct regex_program *p = c->p;

    if (n == 0)
        return 0;
    if (n > REGEX_STEPS_MAX - p->n_steps)
        return wrong(c, -EINVAL, "over the limit of 10000 steps");
    struct regex_step *step = grown(p->step, p->n_steps + n, &p->cap_steps, sizeof(*step));
    if (!step)
        return wrong(c, -ENOMEM, "out of memory");
    p->step = step;
    memmove(step + at + n, step + at, (p->n_steps - at) * sizeof(*step));
    p->n_steps += n;
    return 0;
}

static int emit_at(struct parser *c, uint32_t at, enum regex_op op, int32_t x, int32_t y)
{
    int r = insert(c, at, 1);

    if (r == 0)
        c->p->step[at] = (struct regex_step){op, x, y};
    return r;
}

static int emit(struct parser *c, enum regex_op op, int32_t x)
{
    return emit_at(c, c->p->n_steps, op, x, 0);
}

static int add_range(struct parser *c, uint32_t from, uint32_t to)
{
    struct regex_program *p = c->p;
    struct regex_range *range = grown(p->range, p->n_ranges + 1, &p->cap_ranges, sizeof(*range));

    if (!range)
        return wrong(c, -ENOMEM, "out of memory");
    p->range = range;
    range[p->n_ranges++] = (struct regex_range){from, to};
    return 0;
}

/* A class of the ranges from `first` on, and the step that takes one of it. */
static int emit_class(struct parser *c, uint32_t first, bool negated)
{
    struct regex_program *p = c->p;
    struct regex_class *class = grown(p->class, p->n_classes + 1, &p->cap_classes, sizeof(*class));

    if (!class)
        return wrong(c, -ENOMEM, "out of memory");
    p->class = class;
    class[p->n_classes] = (struct regex_class){first, p->n_ranges - first, negated, c->flags.fold};
    return emit(c, RE_CLASS, (int32_t)p->n_classes++);
}

static int emit_char(struct parser *c, uint32_t ch)
{
    uint32_t first = c->p->n_ranges;
    int r = add_range(c, ch, ch);

    return r < 0 ? r : emit_class(c, first, false);
}

static int emit_dot(struct parser *c)
{
    uint32_t first = c->p->n_ranges;
    int r = c->flags.dot_all ? 0 : add_range(c, '\n', '\n');

    return r < 0 ? r : emit_class(c, first, true);
}

/* ---- classes with a name: ASCII alone, as in RE2 */
static const struct named {
    const char *name;
    struct regex_range range[4];
} names[] = {
    {"d", {{'0', '9'}}},
    {"s", {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}}},
    {"w", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
    {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}},
    {"alpha", {{'A', 'Z'}, {'a', 'z'}}},
    {"ascii", {{0, 0x7f}}},
    {"blank", {{'\t', '\t'}, {' ', ' '}}},
    {"cntrl", {{0, 0x1f}, {0x7f, 0x7f}}},
    {"digit", {{'0', '9'}}},
    {"graph", {{'!', '~'}}},
    {"lower", {{'a', 'z'}}},
    {"print", {{' ', '~'}}},
    {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}},
    {"space", {{'\t', '\r'}, {' ', ' '}}},
    {"upper", {{'A', 'Z'}}},
    {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
    {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}},
};

static const struct named *named(const char *s, size_t n)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strlen(names[i].name) == n && memcmp(names[i].name, s, n) == 0)
            return &names[i];
    return NULL;
}

/* Behind the last range.  Two letters beyond ASCII are other cases of s and k. */
static int add_rest(struct parser *c, uint32_t from, bool letters)
{
    static const uint32_t odd[] = {0x17f, 0x212a};
    int r = 0;

    for (size_t i = 0; letters && i < ARRAY_SIZE(odd) && r == 0; i++) {
        r = add_range(c, from, odd[i] - 1);
        from = odd[i] + 1;
    }
    return r < 0 ? r : add_range(c, from, LAST_CHAR);
}

/* Its ranges, or what lies between them; where case does not matter, what no case of them is. */
static int add_named(struct parser *c, const struct named *k, bool negated)
{
    bool letters = false, fold = c->flags.fold && negated;
    uint32_t from = 0;
    int r = 0;

    if (fold && (STREQ(k->name, "lower") || STREQ(k->name, "upper")))
        k = named("alpha", 5);
    for (size_t i = 0; i < ARRAY_SIZE(k->range) && k->range[i].to > 0 && r == 0; i++) {
        const struct regex_range *g = &k->range[i];
        if (!negated)
            r = add_range(c, g->from, g->to);
        else if (g->from > from)
            r = add_range(c, from, g->from - 1);
        from = g->to + 1;
        letters |= g->from <= 's' && g->to >= 's';
    }
    return r == 0 && negated ? add_rest(c, from, fold && letters) : r;
}

/* \d and its kind, behind the backslash; 0: something else. */
static int perl_class(struct parser *c)
{
    char letter = more(c) ? c->s[c->at] : 0, lower = (char)(letter | 0x20);

    if (lower != 'd' && lower != 's' && lower != 'w')
        return 0;
    c->at++;
    int r = add_named(c, named(&lower, 1), letter != lower);
    return r < 0 ? r : 1;
}

/* ---- escapes of one character */
static int hex_digit(char ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

/* \x7F or \x{10FFFF}, behind the x. */
static int hex_char(struct parser *c, uint32_t *ret)
{
    bool braces = skip(c, "{");
    unsigned digits = 0;

    for (*ret = 0; more(c) && hex_digit(c->s[c->at]) >= 0 && (braces || digits < 2); digits++) {
        *ret = *ret * 16 + (uint32_t)hex_digit(c->s[c->at++]);
        if (*ret > LAST_CHAR)
            return wrong(c, -EINVAL, "no character");
    }
    if (braces ? digits == 0 || !skip(c, "}") : digits != 2)
        return wrong(c, -EINVAL, "bad escape");
    return 0;
}

/* \0, \12, \123; one digit from 1 on would be a back reference. */
static int octal_char(struct parser *c, char first, uint32_t *ret)
{
    unsigned digits = 1;

    *ret = (uint32_t)(first - '0');
    for (; digits < 3 && more(c) && c->s[c->at] >= '0' && c->s[c->at] <= '7'; digits++)
        *ret = *ret * 8 + (uint32_t)(c->s[c->at++] - '0');
    return digits == 1 && first != '0' ? wrong(c, -EINVAL, "a back reference, which RE2 lacks") : 0;
}

static int escaped_char(struct parser *c, uint32_t *ret)
{
    static const char letters[] = "afnrtv", values[] = "\a\f\n\r\t\v";
    uint32_t ch;
    int r = more(c) ? read_char(c, &ch) : wrong(c, -EINVAL, "a backslash with nothing behind it");

    if (r < 0)
        return r;
    const char *at = ch && ch < 0x80 ? strchr(letters, (int)ch) : NULL;
    if (at)
        *ret = (uint8_t)values[at - letters];
    else if (ch == 'x')
        return hex_char(c, ret);
    else if (ch >= '0' && ch <= '7')
        return octal_char(c, (char)ch, ret);
    else if (ch == 'p' || ch == 'P' || ch == 'C')
        return wrong(c, -ENOTSUP, "\\p, \\P or \\C, which are not supported,");
    else if (ch >= 0x80 || hex_digit((char)ch) >= 0 || (ch >= 'A' && ch <= 'Z') ||
             (ch >= 'a' && ch <= 'z'))
        return wrong(c, -EINVAL, "bad escape");
    else
        *ret = ch;
    return 0;
}

/* ---- [...] */
/* [:alpha:], [:^alpha:]; 0: something else. */
static int posix_class(struct parser *c)
{
    const char *from = c->s + c->at;

    if (c->n - c->at < 2 || from[0] != '[' || from[1] != ':')
        return 0;
    const char *end = memmem(from + 2, c->n - c->at - 2, ":]", 2);
    if (!end)
        return 0;
    bool negated = from[2] == '^';
    const char *name = from + 2 + negated;
    const struct named *k = end - name > 1 ? named(name, (size_t)(end - name)) : NULL;
    if (!k)
        return wrong(c, -EINVAL, "no such class");
    int r = add_named(c, k, negated);
    c->at = (size_t)(end + 2 - c->s);
    return r < 0 ? r : 1;
}

static int class_char(struct parser *c, uint32_t *ret)
{
    if (!more(c))
        return wrong(c, -EINVAL, "a [ without its ]");
    return skip(c, "\\") ? escaped_char(c, ret) : read_char(c, ret);
}

static int class_range(struct parser *c)
{
    uint32_t from, to;
    int r = class_char(c, &from);

    to = from;
    if (r == 0 && c->n - c->at >= 2 && c->s[c->at] == '-' && c->s[c->at + 1] != ']') {
        c->at++;
        r = class_char(c, &to);
    }
    if (r == 0 && to < from)
        r = wrong(c, -EINVAL, "a range that ends before it begins");
    return r < 0 ? r : add_range(c, from, to);
}

/* Behind the [. */
static int parse_class(struct parser *c)
{
    uint32_t first = c->p->n_ranges;
    bool negated = skip(c, "^");

    for (bool begin = true; begin || !skip(c, "]"); begin = false) {
        int r = posix_class(c);
        if (r == 0 && c->n - c->at >= 2 && c->s[c->at] == '\\') {
            c->at++;
            r = perl_class(c);
            c->at -= r == 0;
        }
        if (r == 0)
            r = class_range(c);
        if (r < 0)
            return r;
    }
    return emit_class(c, first, negated);
}

/* ---- what a backslash begins outside of [...] */
/* Behind \Q: text until \E, of which the last character may be repeated. */
static int parse_quoted(struct parser *c, uint32_t *from)
{
    int r = 0;

    while (r == 0 && more(c) && !skip(c, "\\E")) {
        uint32_t ch;
        r = read_char(c, &ch);
        *from = c->p->n_steps;
        if (r == 0)
            r = emit_char(c, ch);
    }
    return r;
}

static int parse_escape(struct parser *c)
{
    static const struct {
        const char *word;
        enum regex_place place;
    } places[] = {{"A", PLACE_BEGIN}, {"z", PLACE_END}, {"b", PLACE_WORD}, {"B", PLACE_NOT_WORD}};
    uint32_t ch, first = c->p->n_ranges;

    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (skip(c, places[i].word))
            return emit(c, RE_HERE, (int32_t)places[i].place);
    int r = perl_class(c);
    if (r != 0)
        return r < 0 ? r : emit_class(c, first, false);
    r = escaped_char(c, &ch);
    return r < 0 ? r : emit_char(c, ch);
}

/* ---- (...) */
static int parse_either(struct parser *c);

/* Behind "(?": i, m, s, U, what follows a minus off; up to and with ':' or ')'. */
static int parse_flags(struct parser *c, bool *ret_group)
{
    bool on = true, any = true;

    for (; more(c) && c->s[c->at] != ':' && c->s[c->at] != ')'; c->at++) {
        char ch = c->s[c->at];
        if (ch == '-' && on)
            any = on = false;
        else if (ch == 'i')
            c->flags.fold = any = on;
        else if (ch == 'm')
            c->flags.lines = on;
        else if (ch == 's')
            c->flags.dot_all = on;
        else if (ch != 'U')
            return wrong(c, -EINVAL, "bad group");
        any |= ch != '-';
    }
    if (!more(c) || !any)
        return wrong(c, -EINVAL, "bad group");
    *ret_group = c->s[c->at++] == ':';
    return 0;
}

/* (?P<name>, (?<name>; 0: something else. */
static int parse_name(struct parser *c)
{
    size_t from = c->at;

    if (!skip(c, "P<") && !skip(c, "<"))
        return 0;
    size_t begin = c->at;
    while (more(c) && (hex_digit(c->s[c->at]) >= 0 || c->s[c->at] == '_' ||
                       ((c->s[c->at] | 0x20) >= 'a' && (c->s[c->at] | 0x20) <= 'z')))
        c->at++;
    if (c->at > begin && skip(c, ">"))
        return 1;
    c->at = from;
    return wrong(c, -EINVAL, "bad name of a group");
}

/* Behind the (; it may be no group, but flags for what is left of the group around. */
static int parse_group(struct parser *c, uint32_t *from)
{
    struct flags before = c->flags;
    bool group = true;
    int r = 0;

    if (++c->depth > REGEX_NEST_MAX)
        return wrong(c, -EINVAL, "over the limit of 200 nested groups");
    if (skip(c, "?")) {
        r = parse_name(c);
        if (r == 0)
            r = parse_flags(c, &group);
    }
    if (r < 0)
        return r;
    if (group) {
        *from = c->p->n_steps;
        r = parse_either(c);
        if (r == 0 && !skip(c, ")"))
            r = wrong(c, -EINVAL, "a ( without its )");
        c->flags = before;
    }
    c->depth--;
    return r;
}

/* ---- repetition of the part from `from` on */
static int append_copy(struct parser *c, uint32_t from, uint32_t n)
{
    uint32_t at = c->p->n_steps;
    int r = insert(c, at, n);

    if (r == 0 && n > 0)
        memcpy(c->p->step + at, c->p->step + from, n * sizeof(*c->p->step));
    return r;
}

static int repeat_any(struct parser *c, uint32_t from) /* x* */
{
    int32_t n = (int32_t)(c->p->n_steps - from);
    int r = emit_at(c, from, RE_SPLIT, 1, n + 2);

    return r < 0 ? r : emit(c, RE_JUMP, -(n + 1));
}

static int repeat_more(struct parser *c, uint32_t from) /* x+ */
{
    uint32_t at = c->p->n_steps;

    return emit_at(c, at, RE_SPLIT, -(int32_t)(at - from), 1);
}

#define NO_END UINT32_MAX /* {n,} */

/* Copies of it, of which those behind the first `least` may each be left out. */
static int repeat(struct parser *c, uint32_t from, uint32_t least, uint32_t most)
{
    uint32_t n = c->p->n_steps - from, copies = most == NO_END ? MAX(least, 1u) : most;
    int r = 0;

    if (copies == 0) {
        c->p->n_steps = from;
        return 0;
    }
    for (uint32_t i = 1; i < copies && r == 0; i++)
        r = append_copy(c, from, n);
    if (r == 0 && most == NO_END)
        return least == 0 ? repeat_any(c, from) : repeat_more(c, from + (copies - 1) * n);
    for (uint32_t i = copies; i > least && r == 0; i--) /* from behind: places in front stay */
        r = emit_at(c, from + (i - 1) * n, RE_SPLIT, 1, (int32_t)n + 1);
    return r;
}

/* No zero in front, as in RE2. */
static bool read_number(struct parser *c, uint32_t *ret)
{
    size_t from = c->at;

    if (c->n - from >= 2 && c->s[from] == '0' && c->s[from + 1] >= '0' && c->s[from + 1] <= '9')
        return false;
    for (*ret = 0; more(c) && c->s[c->at] >= '0' && c->s[c->at] <= '9'; c->at++)
        *ret = MIN(*ret * 10 + (uint32_t)(c->s[c->at] - '0'), REGEX_REPEAT_MAX + 1u);
    return c->at > from;
}

/* {n}, {n,}, {n,m}; anything else that begins with a brace is text. */
static bool read_counts(struct parser *c, uint32_t *least, uint32_t *most)
{
    size_t from = c->at;
    bool is = skip(c, "{") && read_number(c, least);

    *most = *least;
    if (is && skip(c, ",") && !read_number(c, most))
        *most = NO_END;
    is = is && skip(c, "}");
    if (!is)
        c->at = from;
    return is;
}

/* Is there an operator that repeats?  `?` behind it (as few as can be) says nothing here. */
static bool read_repeat(struct parser *c, uint32_t *least, uint32_t *most)
{
    *least = 0;
    *most = NO_END;
    if (skip(c, "+"))
        *least = 1;
    else if (skip(c, "?"))
        *most = 1;
    else if (!skip(c, "*") && !read_counts(c, least, most))
        return false;
    (void)skip(c, "?");
    return true;
}

static int parse_repeat(struct parser *c, uint32_t from)
{
    uint32_t least, most, again;

    if (!read_repeat(c, &least, &most))
        return 0;
    if (least > REGEX_REPEAT_MAX || (most > REGEX_REPEAT_MAX && most != NO_END) || least > most)
        return wrong(c, -EINVAL, "bad number of repetitions (0 to 1000)");
    int r = repeat(c, from, least, most);
    if (r == 0 && read_repeat(c, &again, &again))
        r = wrong(c, -EINVAL, "a repetition of a repetition");
    return r;
}

/* ---- rows of parts, and choices between rows */
#define NO_PART UINT32_MAX

/* One part.  *from: where what may be repeated behind it begins; as it was where there is nothing
 * new, as behind flags. */
static int parse_part(struct parser *c, uint32_t *from)
{
    uint32_t least, most, ch, at = c->p->n_steps;
    bool lines = c->flags.lines;

    if (read_repeat(c, &least, &most))
        return wrong(c, -EINVAL, "nothing to repeat");
    if (skip(c, "\\Q"))
        return parse_quoted(c, from);
    if (skip(c, "("))
        return parse_group(c, from);
    *from = at;
    if (skip(c, "\\"))
        return parse_escape(c);
    if (skip(c, "["))
        return parse_class(c);
    if (skip(c, "."))
        return emit_dot(c);
    if (skip(c, "^"))
        return emit(c, RE_HERE, lines ? PLACE_BEGIN_LINE : PLACE_BEGIN);
    if (skip(c, "$"))
        return emit(c, RE_HERE, lines ? PLACE_END_LINE : PLACE_END);
    int r = read_char(c, &ch);
    return r < 0 ? r : emit_char(c, ch);
}

static int parse_row(struct parser *c)
{
    uint32_t from = NO_PART;
    int r = 0;

    while (r == 0 && more(c) && c->s[c->at] != '|' && c->s[c->at] != ')') {
        r = parse_part(c, &from);
        if (r == 0 && from != NO_PART)
            r = parse_repeat(c, from);
    }
    return r;
}

static int parse_either(struct parser *c)
{
    uint32_t from = c->p->n_steps;
    int r = parse_row(c);

    while (r == 0 && skip(c, "|")) {
        int32_t n = (int32_t)(c->p->n_steps - from);
        r = emit_at(c, from, RE_SPLIT, 1, n + 2);
        uint32_t jump = c->p->n_steps;
        if (r == 0)
            r = emit(c, RE_JUMP, 0);
        if (r == 0)
            r = parse_row(c);
        if (r == 0)
            c->p->step[jump].x = (int32_t)(c->p->n_steps - jump);
    }
    return r;
}

int regex_parse(const char *pattern, size_t n, struct regex_program *ret, struct err *err)
{
    struct parser c = {.s = pattern, .n = n, .p = ret, .err = err};

    if (n > REGEX_BYTES_MAX)
        return err_set(err, -EINVAL, "a pattern of %zu bytes (%d at most)", n, REGEX_BYTES_MAX);
    int r = parse_either(&c);
    if (r == 0 && more(&c))
        r = wrong(&c, -EINVAL, "a ) without its (");
    return r < 0 ? r : emit(&c, RE_END, 0);
}
