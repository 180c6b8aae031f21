/* Traces: a CSV of arrivals.  Columns are found by name, so that published traces are read as
 * they are; the times become offsets from the first one. */
#include <gpulet/replay.h>
#include <math.h>
#include <stdio.h>

#define TRACE_MAX_BYTES (256u << 20)
#define TRACE_MAX_ROWS (1u << 24)
#define TRACE_MAX_NAMES 65536
#define TRACE_MAX_NAME 128   /* bytes */
#define TRACE_MAX_COLUMNS 64 /* of a header */
#define TRACE_MAX_TIME_S 1e10
#define TRACE_VALUE_SHOWN 40

struct text {
    const char *s;
    size_t n;
};

/* ---- lines and fields */

struct lines {
    const char *at, *end;
    uint32_t line; /* of what was returned last; the first is 1 */
};

/* False at the end.  Lines end in LF or CRLF, the last may end in nothing. */
static bool next_line(struct lines *l, struct text *ret)
{
    if (l->at == l->end)
        return false;
    const char *lf = memchr(l->at, '\n', (size_t)(l->end - l->at));
    const char *end = lf ? lf : l->end;

    *ret = (struct text){l->at, (size_t)(end - l->at)};
    if (ret->n && ret->s[ret->n - 1] == '\r')
        ret->n--;
    l->at = lf ? lf + 1 : l->end;
    l->line++;
    return true;
}

static struct text trimmed(struct text f)
{
    while (f.n && (f.s[0] == ' ' || f.s[0] == '\t'))
        f.s++, f.n--;
    while (f.n && (f.s[f.n - 1] == ' ' || f.s[f.n - 1] == '\t'))
        f.n--;
    return f;
}

/* The k-th field of a line; a field in double quotes may hold commas, but no quotes. */
static bool field_at(struct text line, uint32_t k, struct text *ret)
{
    const char *at = line.s, *end = line.s + line.n;

    for (uint32_t i = 0;; i++) {
        bool quoted = at < end && *at == '"';
        const char *from = at + quoted;
        const char *to = memchr(from, quoted ? '"' : ',', (size_t)(end - from));
        to = to ? to : end;
        at = quoted && to < end ? to + 1 : to;
        if (i == k) {
            *ret = trimmed((struct text){from, (size_t)(to - from)});
            return true;
        }
        at = at < end ? memchr(at, ',', (size_t)(end - at)) : NULL;
        if (!at)
            return false;
        at++;
    }
}

/* ---- times */

static bool digits(const char *s, size_t n, uint32_t *ret)
{
    uint32_t x = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        x = x * 10 + (uint32_t)(s[i] - '0');
    }
    *ret = x;
    return true;
}

/* Seconds times `unit_us`; plain decimals, with or without an exponent. */
static bool time_number(struct text f, double unit_us, usec_t *ret)
{
    char s[48], *end;

    if (f.n == 0 || f.n >= sizeof(s))
        return false;
    for (size_t i = 0; i < f.n; i++)
        if (!strchr("0123456789.eE+-", f.s[i]) || !f.s[i])
            return false;
    memcpy(s, f.s, f.n);
    s[f.n] = 0;
    double us = strtod(s, &end) * unit_us;
    if (*end || end == s || !(us >= 0 && us <= TRACE_MAX_TIME_S * 1e6))
        return false;
    *ret = (usec_t)llround(us);
    return true;
}

/* Days since 1970-01-01 in the Gregorian calendar. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month > 2 ? year : year - 1; /* years begin in March: the leap day is last */
    int64_t m = month > 2 ? month - 3 : month + 9;

    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static bool date_ok(uint32_t year, uint32_t month, uint32_t day)
{
    static const uint32_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return year >= 1970 && month >= 1 && month <= 12 && day >= 1 &&
           day <= days[month - 1] + (month == 2 && leap);
}

/* "2023-11-16 18:17:03.9799600": no zone, or Z. */
static bool time_stamp(struct text f, double unit_us, usec_t *ret)
{
    uint32_t year, month, day, hour, minute, second, us = 0;
    const char *s = f.s;

    (void)unit_us;
    if (f.n > 0 && s[f.n - 1] == 'Z')
        f.n--;
    if (f.n < 19 || s[4] != '-' || s[7] != '-' || (s[10] != ' ' && s[10] != 'T') || s[13] != ':' ||
        s[16] != ':' || !digits(s, 4, &year) || !digits(s + 5, 2, &month) ||
        !digits(s + 8, 2, &day) || !digits(s + 11, 2, &hour) || !digits(s + 14, 2, &minute) ||
        !digits(s + 17, 2, &second))
        return false;
    if (f.n > 19 && (s[19] != '.' || f.n == 20 || f.n > 29))
        return false;
    for (size_t i = 20, digit = 100000; i < f.n; i++, digit /= 10) {
        uint32_t x;
        if (!digits(s + i, 1, &x))
            return false;
        us += x * (uint32_t)digit;
    }
    if (!date_ok(year, month, day) || hour > 23 || minute > 59 || second > 59)
        return false;
    *ret = ((uint64_t)days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second) *
               USEC_PER_SEC +
           us;
    return true;
}

static const struct time_column {
    const char *name;
    double unit_us;
    bool (*read)(struct text f, double unit_us, usec_t *ret);
    const char *expected;
} time_columns[] = {
    {"time_s", 1e6, time_number, "seconds from 0 to 1e10"},
    {"offset_ms", 1e3, time_number, "milliseconds from 0 to 1e13"},
    {"invoke_time_ms", 1e3, time_number, "milliseconds from 0 to 1e13"},
    {"TIMESTAMP", 0, time_stamp, "a time as 2023-11-16 18:17:03.97996"},
};
static const char *const name_columns[] = {"model", "func_name"};

/* ---- reading */

struct reading {
    struct trace out;
    struct arena *a;
    struct err *err;
    struct lines lines;
    const struct time_column *time;
    uint32_t time_at, name_at; /* columns; name_at PLAN_NONE: there is none */
    const char *name_column;
    uint32_t *slot; /* hash table: index of a name + 1 */
    uint32_t n_slots;
    usec_t first_us;
};

static int wrong_field(struct reading *x, const char *column, struct text f, const char *expected)
{
    int shown = (int)MIN(f.n, (size_t)TRACE_VALUE_SHOWN);

    return err_set(x->err, -EINVAL, "line %u, column %s: '%.*s' is not %s", x->lines.line, column,
                   shown, f.s, expected);
}

static int no_memory(struct reading *x)
{
    return err_set(x->err, -ENOMEM, "out of memory");
}

/* The column with that name, PLAN_NONE if there is none; -EINVAL when there are two. */
static int column_find(struct reading *x, struct text header, const char *name, uint32_t *ret)
{
    struct text f;

    *ret = PLAN_NONE;
    for (uint32_t i = 0; i < TRACE_MAX_COLUMNS && field_at(header, i, &f); i++) {
        if (f.n != strlen(name) || memcmp(f.s, name, f.n) != 0)
            continue;
        if (*ret != PLAN_NONE)
            return err_set(x->err, -EINVAL, "line 1: there are two columns '%s'", name);
        *ret = i;
    }
    return 0;
}

static int header_read(struct reading *x)
{
    struct text header = {"", 0};
    int rc = 0;

    if ((size_t)(x->lines.end - x->lines.at) >= 3 && memcmp(x->lines.at, "\xef\xbb\xbf", 3) == 0)
        x->lines.at += 3;
    (void)next_line(&x->lines, &header);
    x->time_at = x->name_at = PLAN_NONE;
    for (size_t i = 0; i < ARRAY_SIZE(time_columns) && x->time_at == PLAN_NONE && rc == 0; i++) {
        x->time = &time_columns[i];
        rc = column_find(x, header, x->time->name, &x->time_at);
    }
    for (size_t i = 0; i < ARRAY_SIZE(name_columns) && x->name_at == PLAN_NONE && rc == 0; i++) {
        x->name_column = name_columns[i];
        rc = column_find(x, header, x->name_column, &x->name_at);
    }
    if (rc == 0 && x->time_at == PLAN_NONE)
        return err_set(x->err, -EINVAL,
                       "line 1: '%.*s' names no column time_s, offset_ms, invoke_time_ms or "
                       "TIMESTAMP",
                       (int)MIN(header.n, (size_t)TRACE_VALUE_SHOWN), header.s);
    return rc;
}

static int time_read(struct reading *x, struct text line)
{
    usec_t at = 0;
    struct text f = {"", 0};
    uint32_t n = x->out.n;

    if (!field_at(line, x->time_at, &f) || !x->time->read(f, x->time->unit_us, &at))
        return wrong_field(x, x->time->name, f, x->time->expected);
    if (n == 0)
        x->first_us = at;
    if (at < x->first_us || (n > 0 && at - x->first_us < x->out.at_us[n - 1]))
        return wrong_field(x, x->time->name, f, "at or after the time of the line before");
    x->out.at_us[n] = at - x->first_us;
    return 0;
}

static bool name_ok(struct text f)
{
    for (size_t i = 0; i < f.n; i++)
        if ((unsigned char)f.s[i] < ' ' || f.s[i] == 0x7f)
            return false;
    return f.n >= 1 && f.n <= TRACE_MAX_NAME;
}

/* Where the name is, or where it would be put. */
static uint32_t *slot_of(struct reading *x, struct text f)
{
    for (uint64_t i = hash_bytes(f.s, f.n).lo;; i++) {
        uint32_t *slot = &x->slot[i & (x->n_slots - 1)];
        const char *there = *slot ? x->out.name[*slot - 1] : NULL;
        if (!there || (strlen(there) == f.n && memcmp(there, f.s, f.n) == 0))
            return slot;
    }
}

static int name_read(struct reading *x, struct text line)
{
    struct text f = {"", 0};

    if (!field_at(line, x->name_at, &f) || !name_ok(f))
        return wrong_field(x, x->name_column, f, "a name of 1 to 128 bytes");
    uint32_t *slot = slot_of(x, f);
    if (!*slot && x->out.n_names == TRACE_MAX_NAMES)
        return wrong_field(x, x->name_column, f, "one of the first 65536 names");
    if (!*slot) {
        const char *name = arena_strndup(x->a, f.s, f.n);
        if (!name)
            return no_memory(x);
        x->out.name[x->out.n_names] = name;
        *slot = ++x->out.n_names;
    }
    x->out.name_of[x->out.n] = *slot - 1;
    return 0;
}

/* Room for all rows, and for the names that so many rows can have. */
static int room_make(struct reading *x)
{
    struct lines l = x->lines;
    struct text line;
    uint32_t n = 0, n_names;

    while (next_line(&l, &line))
        if (line.n && n++ == TRACE_MAX_ROWS)
            return err_set(x->err, -EFBIG, "the trace has more than %u rows", TRACE_MAX_ROWS);
    if (!(x->out.at_us = ARENA_ARRAY(x->a, usec_t, n)))
        return no_memory(x);
    if (x->name_at == PLAN_NONE)
        return 0;
    n_names = MIN(n, (uint32_t)TRACE_MAX_NAMES);
    for (x->n_slots = 4; x->n_slots < 2 * n_names;)
        x->n_slots *= 2;
    x->out.name_of = ARENA_ARRAY(x->a, uint32_t, n);
    x->out.name = ARENA_ARRAY(x->a, const char *, n_names);
    x->slot = ARENA_ARRAY(x->a, uint32_t, x->n_slots);
    return x->out.name_of && x->out.name && x->slot ? 0 : no_memory(x);
}

int trace_parse(const char *text, size_t bytes, struct arena *a, struct trace *ret, struct err *err)
{
    struct reading x = {.a = a, .err = err, .lines = {text, text + bytes, 0}};
    struct text line;
    int rc;

    if (bytes > TRACE_MAX_BYTES)
        return err_set(err, -EFBIG, "the trace has %zu bytes, the limit is %u", bytes,
                       TRACE_MAX_BYTES);
    if ((rc = header_read(&x)) < 0 || (rc = room_make(&x)) < 0)
        return rc;
    while (next_line(&x.lines, &line)) {
        if (line.n == 0)
            continue;
        if ((rc = time_read(&x, line)) < 0 ||
            (x.name_at != PLAN_NONE && (rc = name_read(&x, line)) < 0))
            return rc;
        x.out.n++;
    }
    *ret = x.out;
    return 0;
}
