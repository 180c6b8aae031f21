/* Reading: one pass over the text.  A decimal is taken apart into a mantissa of at most 19 digits
 * and a power of ten.  Where that is exact in one floating-point operation, that is the answer
 * (Clinger, "How to read floating point numbers accurately", 1990); where one operation of wider
 * precision leaves no doubt about the rounding, likewise; what remains in doubt goes to strtof()
 * or strtod().
 *
 * The text ends with ']', so loops over digits and blanks need no bounds check. */
#include "tensor_json.h"
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- reading: the text */
struct scan {
    const char *p, *end;
    int64_t n, count; /* elements so far, and wanted */
    enum dtype dtype;
    struct err *err;
};

#define INLINE static inline __attribute__((always_inline))

INLINE bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

INLINE void skip_blanks(struct scan *s)
{
    while (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')
        s->p++;
}

/* What stands at p, for a message: up to a separator, at most 40 bytes. */
static int fail(struct scan *s, const char *at, const char *expected)
{
    size_t n = 0;

    while (at + n < s->end && n < 40 && !strchr(",] \n\t\r", at[n]))
        n++;
    return err_set(s->err, -EINVAL, "data: element %lld: '%.*s' is not %s", (long long)s->n,
                   (int)MAX(n, 1u), at, expected);
}

static int fail_range(struct scan *s, const char *at)
{
    return err_set(s->err, -EINVAL, "data: element %lld: %.*s is out of range for %s",
                   (long long)s->n, (int)MIN(strcspn(at, ",] \n\t\r"), 40u), at,
                   dtype_name(s->dtype));
}

/* ---- reading: numbers */
struct decimal {
    const char *at;    /* where it begins */
    uint64_t mantissa; /* the first 19 significant digits */
    int32_t exp10;     /* value = mantissa x 10^exp10 */
    bool negative;
    bool inexact; /* more digits than that, or a far exponent: only strtod() knows */
    bool integer; /* neither fraction nor exponent */
};

/* Eight digits at once; false if they are not eight digits. */
INLINE bool eight_digits(const char *p, uint64_t *value)
{
    uint64_t v;

    memcpy(&v, p, 8);
    if (((v & UINT64_C(0xf0f0f0f0f0f0f0f0)) |
         (((v + UINT64_C(0x0606060606060606)) & UINT64_C(0xf0f0f0f0f0f0f0f0)) >> 4)) !=
        UINT64_C(0x3333333333333333))
        return false;
    v = (v & UINT64_C(0x0f0f0f0f0f0f0f0f)) * 2561 >> 8;
    v = (v & UINT64_C(0x00ff00ff00ff00ff)) * 6553601 >> 16;
    *value = (v & UINT64_C(0x0000ffff0000ffff)) * UINT64_C(42949672960001) >> 32;
    return true;
}

/* A run of digits into the mantissa; returns how many.  (The lanes above are little-endian, as
 * the wire is.) */
INLINE size_t digits(struct scan *s, uint64_t *mantissa)
{
    const char *first = s->p;
    uint64_t eight, m = *mantissa;

    while (s->end - s->p >= 8 && eight_digits(s->p, &eight)) {
        m = m * 100000000 + eight;
        s->p += 8;
    }
    for (; is_digit(*s->p); s->p++)
        m = m * 10 + (uint64_t)(*s->p - '0');
    *mantissa = m;
    return (size_t)(s->p - first);
}

static int read_exponent(struct scan *s, struct decimal *d)
{
    int64_t e = 0;
    bool negative;

    s->p++;
    negative = *s->p == '-';
    if (*s->p == '-' || *s->p == '+')
        s->p++;
    if (!is_digit(*s->p))
        return fail(s, d->at, "a number");
    for (; is_digit(*s->p); s->p++)
        if (e < 100000)
            e = e * 10 + (*s->p - '0');
    d->exp10 += (int32_t)(negative ? -e : e);
    d->integer = false;
    return 0;
}

/* How many of the digits [from, from+n), a point among them, are zeros at the front. */
static size_t leading_zeros(const char *from, size_t n)
{
    size_t zeros = 0;

    for (size_t i = 0; i < n && (from[i] == '0' || from[i] == '.'); i++)
        zeros += from[i] == '0';
    return zeros;
}

/* A number by JSON's grammar. */
INLINE int read_decimal(struct scan *s, struct decimal *d)
{
    size_t n_whole, n_fraction = 0;
    const char *first;

    *d = (struct decimal){.at = s->p, .negative = *s->p == '-', .integer = true};
    s->p += d->negative;
    first = s->p;
    n_whole = digits(s, &d->mantissa);
    if (n_whole == 0 || (n_whole > 1 && *first == '0'))
        return fail(s, d->at, "a number");
    if (*s->p == '.') {
        s->p++;
        n_fraction = digits(s, &d->mantissa);
        if (n_fraction == 0)
            return fail(s, d->at, "a number");
        d->integer = false;
        d->exp10 = -(int32_t)MIN(n_fraction, 1000000u);
    }
    /* The mantissa may have run over: then its value is not used. */
    if (n_whole + n_fraction > 19 &&
        n_whole + n_fraction - leading_zeros(first, n_whole + n_fraction + 1) > 19)
        d->inexact = true;
    if ((*s->p | 0x20) == 'e')
        return read_exponent(s, d);
    return 0;
}

static const double pow10_double[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define EXACT_DOUBLE 22 /* 10^22 is the last power of ten that a double holds exactly */

/* FP32.  m x 10^e in double is off by less than 2 of its last bits (one rounding of m, one of the
 * operation).  Rounded to float that is right unless the double lies that close to the middle
 * between two floats: bits below the float's are then near 2^28.  Subnormal floats have fewer
 * bits, so they take the slow way. */
INLINE bool float_quick(const struct decimal *d, float *ret)
{
    double v;
    uint64_t bits;

    if (d->inexact || d->exp10 < -EXACT_DOUBLE || d->exp10 > EXACT_DOUBLE)
        return false;
    v = d->exp10 < 0 ? (double)d->mantissa / pow10_double[-d->exp10]
                     : (double)d->mantissa * pow10_double[d->exp10];
    memcpy(&bits, &v, sizeof(bits));
    if ((uint64_t)((bits & 0x1fffffff) - 0x0ffffffc) <= 8 || v > (double)FLT_MAX ||
        (v < (double)FLT_MIN && d->mantissa))
        return false;
    *ret = (float)v;
    return true;
}

INLINE int read_float(struct scan *s, float *out)
{
    struct decimal d;
    float v;

    if (read_decimal(s, &d) < 0)
        return -EINVAL;
    if (float_quick(&d, &v)) {
        *out = d.negative ? -v : v;
        return 0;
    }
    *out = strtof(d.at, NULL);
    return isinf(*out) ? fail_range(s, d.at) : 0;
}

#if LDBL_MANT_DIG == 64 /* x87 */
#define EXACT_LONG_DOUBLE 27
static const long double pow10_long_double[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
                                                1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
                                                1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
                                                1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};

/* Mantissa and power are exact, the result is rounded to 64 bits: off by half of the last of its
 * 11 bits more than a double has.  In doubt only in the middle between two doubles. */
static bool double_wide(const struct decimal *d, double *ret)
{
    long double v;
    uint64_t low;

    if (d->exp10 < -EXACT_LONG_DOUBLE || d->exp10 > EXACT_LONG_DOUBLE || !d->mantissa)
        return false;
    v = d->exp10 < 0 ? (long double)d->mantissa / pow10_long_double[-d->exp10]
                     : (long double)d->mantissa * pow10_long_double[d->exp10];
    memcpy(&low, &v, sizeof(low));
    low &= 0x7ff;
    if (low >= 0x3fe && low <= 0x402)
        return false;
    *ret = (double)v; /* at least 10^-27: no subnormal, no overflow */
    return true;
}
#else
static bool double_wide(const struct decimal *d, double *ret)
{
    (void)d, (void)ret;
    return false;
}
#endif

INLINE bool double_quick(const struct decimal *d, double *ret)
{
    if (d->inexact)
        return false;
    if (d->mantissa > UINT64_C(1) << 53 || d->exp10 < -EXACT_DOUBLE || d->exp10 > EXACT_DOUBLE)
        return double_wide(d, ret);
    *ret = d->exp10 < 0 ? (double)d->mantissa / pow10_double[-d->exp10]
                        : (double)d->mantissa * pow10_double[d->exp10];
    return true;
}

INLINE int read_double(struct scan *s, double *out)
{
    struct decimal d;
    double v;

    if (read_decimal(s, &d) < 0)
        return -EINVAL;
    if (double_quick(&d, &v)) {
        *out = d.negative ? -v : v;
        return 0;
    }
    *out = strtod(d.at, NULL);
    return isinf(*out) ? fail_range(s, d.at) : 0;
}

/* Magnitude of an integer of any length; -ERANGE when it is no uint64. */
static int long_magnitude(const char *p, uint64_t *ret)
{
    uint64_t v = 0;

    for (; is_digit(*p); p++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return -ERANGE;
    *ret = v;
    return 0;
}

/* An integer in [-low, high]. */
INLINE int read_integer(struct scan *s, uint64_t low, uint64_t high, int64_t *ret)
{
    struct decimal d;
    uint64_t v;

    if (read_decimal(s, &d) < 0)
        return -EINVAL;
    if (!d.integer)
        return fail(s, d.at, "an integer");
    v = d.mantissa;
    if (d.inexact && long_magnitude(d.at + d.negative, &v) < 0)
        return fail_range(s, d.at);
    if (v > (d.negative ? low : high))
        return fail_range(s, d.at);
    *ret = (int64_t)(d.negative ? 0 - v : v);
    return 0;
}

/* ---- reading: strings */
static int hex4(const char *p, uint32_t *ret)
{
    *ret = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t digit = is_digit(c)            ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            return -EINVAL;
        *ret = *ret * 16 + digit;
    }
    return 0;
}

static char *utf8_put(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* Bytes of the UTF-8 sequence at p, 0 when it is none (too long, surrogate, beyond 10FFFF). */
static size_t utf8_length(const unsigned char *p, size_t room)
{
    size_t n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

    if (n == 0 || n > room)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
        (*p == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* \uXXXX at p (behind the 'u'), with its second half if it is a surrogate. */
static int read_unicode(struct scan *s, char **to)
{
    uint32_t c, low;

    if (s->end - s->p < 5 || hex4(s->p, &c) < 0)
        return -EINVAL;
    s->p += 4;
    if (c >= 0xdc00 && c < 0xe000)
        return -EINVAL;
    if (c >= 0xd800 && c < 0xdc00) {
        if (s->end - s->p < 7 || s->p[0] != '\\' || s->p[1] != 'u' || hex4(s->p + 2, &low) < 0 ||
            low < 0xdc00 || low > 0xdfff)
            return -EINVAL;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        s->p += 6;
    }
    *to = utf8_put(*to, c);
    return 0;
}

static int read_escape(struct scan *s, char **to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    char c = s->p[1];
    const char *at = c ? strchr(from, c) : NULL;

    s->p += 2;
    if (c == 'u')
        return read_unicode(s, to);
    if (!at)
        return -EINVAL;
    *(*to)++ = into[at - from];
    return 0;
}

/* A string as an element in wire form; *out moves on. */
static int read_string(struct scan *s, char **out)
{
    const char *at = s->p;
    char *to = *out + 4;
    uint32_t bytes;

    if (*s->p++ != '"')
        return fail(s, at, "a string");
    while (s->p < s->end && *s->p != '"') {
        size_t n = utf8_length((const unsigned char *)s->p, (size_t)(s->end - s->p));

        if (*s->p == '\\') {
            if (read_escape(s, &to) < 0)
                return fail(s, at, "a string with valid escapes");
        } else if (n == 0 || (unsigned char)*s->p < ' ') {
            return fail(s, at, "a string of valid UTF-8 without control characters");
        } else {
            memcpy(to, s->p, n);
            to += n;
            s->p += n;
        }
    }
    if (s->p >= s->end)
        return fail(s, at, "a string with an end");
    s->p++;
    bytes = (uint32_t)(to - *out - 4); /* bodies are far below 4 GiB */
    memcpy(*out, &bytes, 4);
    *out = to;
    return 0;
}

INLINE int read_bool(struct scan *s, uint8_t *out)
{
    size_t room = (size_t)(s->end - s->p);

    if (room > 4 && memcmp(s->p, "true", 4) == 0) {
        *out = 1;
        s->p += 4;
    } else if (room > 5 && memcmp(s->p, "false", 5) == 0) {
        *out = 0;
        s->p += 5;
    } else {
        return fail(s, s->p, "true or false");
    }
    return 0;
}

/* ---- reading: arrays */
/* One element to *to, which moves on. */
INLINE int read_element(struct scan *s, enum dtype dtype, char **to)
{
#define ELEMENT(type, call)                                                                        \
    {                                                                                              \
        type v = 0;                                                                                \
        if ((call) < 0)                                                                            \
            return -EINVAL;                                                                        \
        memcpy(*to, &v, sizeof(v));                                                                \
        *to += sizeof(v);                                                                          \
        return 0;                                                                                  \
    }
#define INTEGER(type, low, high)                                                                   \
    {                                                                                              \
        int64_t i = 0;                                                                             \
        type v;                                                                                    \
        if (read_integer(s, low, high, &i) < 0)                                                    \
            return -EINVAL;                                                                        \
        v = (type)i;                                                                               \
        memcpy(*to, &v, sizeof(v));                                                                \
        *to += sizeof(v);                                                                          \
        return 0;                                                                                  \
    }
    switch (dtype) {
    case DT_FP32:
        ELEMENT(float, read_float(s, &v));
    case DT_FP64:
        ELEMENT(double, read_double(s, &v));
    case DT_BOOL:
        ELEMENT(uint8_t, read_bool(s, &v));
    case DT_UINT8:
        INTEGER(uint8_t, 0, UINT8_MAX);
    case DT_UINT16:
        INTEGER(uint16_t, 0, UINT16_MAX);
    case DT_UINT32:
        INTEGER(uint32_t, 0, UINT32_MAX);
    case DT_UINT64:
        INTEGER(uint64_t, 0, UINT64_MAX);
    case DT_INT8:
        INTEGER(int8_t, 128, INT8_MAX);
    case DT_INT16:
        INTEGER(int16_t, 32768, INT16_MAX);
    case DT_INT32:
        INTEGER(int32_t, UINT64_C(1) << 31, INT32_MAX);
    case DT_INT64:
        INTEGER(int64_t, UINT64_C(1) << 63, INT64_MAX);
    case DT_STRING:
        return read_string(s, to);
    default:
        return -ENOTSUP;
    }
}

static int too_many(struct scan *s)
{
    return err_set(s->err, -EINVAL, "data: more than %lld elements, which the shape has",
                   (long long)s->count);
}

/* The array at p, '[' first. */
INLINE int read_array(struct scan *s, enum dtype dtype, uint32_t max_depth, char **to)
{
    uint32_t depth = 0;

    for (;;) {
        skip_blanks(s);
        if (*s->p == '[') {
            if (++depth > max_depth)
                return err_set(s->err, -EINVAL, "data: nested deeper than the shape's rank, %u",
                               max_depth);
            s->p++;
            skip_blanks(s);
            if (*s->p != ']')
                continue; /* an element, or an inner array, must follow */
        } else {
            if (s->n == s->count)
                return too_many(s);
            if (read_element(s, dtype, to) < 0)
                return -EINVAL;
            s->n++;
            skip_blanks(s);
        }
        while (*s->p == ']') {
            s->p++;
            if (--depth == 0)
                return 0;
            if (s->p == s->end)
                return err_set(s->err, -EINVAL, "data: a ']' is missing");
            skip_blanks(s);
        }
        if (*s->p != ',')
            return fail(s, s->p, "',' or ']'");
        s->p++;
    }
}

/* One loop for each type, so that none asks for its type at every element. */
static int read_typed(struct scan *s, uint32_t max_depth, char **to)
{
#define CASE(t)                                                                                    \
    case t:                                                                                        \
        return read_array(s, t, max_depth, to)
    switch (s->dtype) {
        CASE(DT_FP32);
        CASE(DT_FP64);
        CASE(DT_BOOL);
        CASE(DT_UINT8);
        CASE(DT_UINT16);
        CASE(DT_UINT32);
        CASE(DT_UINT64);
        CASE(DT_INT8);
        CASE(DT_INT16);
        CASE(DT_INT32);
        CASE(DT_INT64);
        CASE(DT_STRING);
    default:
        return err_set(s->err, -ENOTSUP, "data: %s has no JSON form, send it as binary data",
                       dtype_name(s->dtype));
    }
#undef CASE
}

bool tensor_json_has(enum dtype dtype)
{
    return dtype_size(dtype) ? dtype != DT_FP16 && dtype != DT_BF16 : dtype == DT_STRING;
}

int tensor_json_need(enum dtype dtype, int64_t count, size_t json_bytes, size_t *ret,
                     struct err *err)
{
    size_t each = dtype == DT_STRING ? 4 : dtype_size(dtype);
    size_t least = dtype == DT_STRING ? 3 : 2; /* bytes of text: `"",` and `0,` */

    /* "[" + count x "0," with the last comma a "]" */
    if (count > 0 && (uint64_t)count > json_bytes / least)
        return err_set(err, -EINVAL, "data: fewer than %lld elements, which the shape has",
                       (long long)count);
    if (__builtin_mul_overflow((size_t)count, each, ret))
        return err_set(err, -EOVERFLOW, "data: %lld elements are too many", (long long)count);
    if (dtype == DT_STRING)
        *ret += json_bytes;
    return 0;
}

int tensor_json_read(const char *json, size_t json_bytes, struct tensor *t, struct err *err)
{
    struct scan s = {.p = json, .end = json + json_bytes, .dtype = t->dtype, .err = err};
    char *to = t->data;

    if (json_bytes < 2 || json[0] != '[' || json[json_bytes - 1] != ']')
        return err_set(err, -EINVAL, "data: not an array");
    if (tensor_count(t, &s.count) < 0)
        return err_set(err, -EOVERFLOW, "data: the shape has too many elements");
    if (read_typed(&s, MAX(t->rank, 1u), &to) < 0)
        return err && err->code ? err->code : -EINVAL;
    if (s.p != s.end)
        return fail(&s, s.p, "the end of the array");
    if (s.n != s.count)
        return err_set(err, -EINVAL, "data: %lld elements, but the shape has %lld", (long long)s.n,
                       (long long)s.count);
    t->bytes = (size_t)(to - (char *)t->data);
    return 0;
}

/* ---- printing: text */
static char *text_room(struct text *t, size_t n)
{
    if (!t->failed && t->cap - t->n < n) {
        size_t cap = MAX(t->cap * 2, t->n + n + 256);
        char *p = realloc(t->p, cap);

        if (p) {
            t->p = p;
            t->cap = cap;
        } else {
            t->failed = true;
        }
    }
    return t->failed ? NULL : t->p + t->n;
}

void text_add(struct text *t, const char *s, size_t n)
{
    char *to = n ? text_room(t, n) : NULL; /* of nothing there may be no memory */

    if (to) {
        memcpy(to, s, n);
        t->n += n;
    }
}

void text_puts(struct text *t, const char *s)
{
    text_add(t, s, strlen(s));
}

void text_printf(struct text *t, const char *fmt, ...)
{
    char buf[512];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof(buf)); /* for short pieces only */
    text_add(t, buf, (size_t)n);
}

int text_string(struct text *t, const char *s, size_t n)
{
    text_add(t, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length((const unsigned char *)s + i, n - i);

        if (len == 0)
            return -EILSEQ;
        if (s[i] == '"' || s[i] == '\\')
            text_add(t, "\\", 1);
        if ((unsigned char)s[i] < ' ')
            text_printf(t, "\\u%04x", (unsigned)s[i]);
        else
            text_add(t, s + i, len);
        i += len;
    }
    text_add(t, "\"", 1);
    return t->failed ? -ENOMEM : 0;
}

/* ---- printing: numbers, each into at most NUMBER_MAX bytes; all return the end */
#define NUMBER_MAX 32

static char *print_uint(char *to, uint64_t v)
{
    char digit[20];
    size_t n = 0;

    do
        digit[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n)
        *to++ = digit[--n];
    return to;
}

static char *print_int(char *to, int64_t v)
{
    if (v < 0)
        *to++ = '-';
    return print_uint(to, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* mantissa x 10^exp10, without the mantissa's trailing zeros, in plain or exponent form. */
static char *print_decimal(char *to, uint64_t mantissa, int exp10)
{
    char digit[24];
    int n, point;

    while (mantissa && mantissa % 10 == 0) {
        mantissa /= 10;
        exp10++;
    }
    n = (int)(print_uint(digit, mantissa) - digit);
    point = n + exp10; /* digits before the decimal point */
    if (point > 17 || point < -4) {
        *to++ = digit[0];
        *to++ = '.';
        if (n == 1)
            *to++ = '0';
        memcpy(to, digit + 1, (size_t)(n - 1));
        to += n - 1;
        *to++ = 'e';
        return print_int(to, point - 1);
    }
    if (point <= 0) {
        memcpy(to, "0.00000", (size_t)(2 - point));
        to += 2 - point;
        memcpy(to, digit, (size_t)n);
        return to + n;
    }
    for (int i = 0; i < MAX(n, point); i++) {
        if (i == point)
            *to++ = '.';
        *to++ = i < n ? digit[i] : '0';
    }
    if (n <= point) {
        *to++ = '.';
        *to++ = '0';
    }
    return to;
}

static int floor_log10(double v)
{
    int e = (int)floor(log10(v));

    return e;
}

/* v x 10^e for any e that occurs (one or two roundings). */
static double scale10(double v, int e)
{
    for (; e > EXACT_DOUBLE; e -= EXACT_DOUBLE)
        v *= pow10_double[EXACT_DOUBLE];
    for (; e < -EXACT_DOUBLE; e += EXACT_DOUBLE)
        v /= pow10_double[EXACT_DOUBLE];
    return e < 0 ? v / pow10_double[-e] : v * pow10_double[e];
}

static bool float_reads_back(uint64_t mantissa, int exp10, float v)
{
    const struct decimal d = {.mantissa = mantissa, .exp10 = exp10};
    float back;

    return float_quick(&d, &back) && back == v;
}

/* 7 or 8 digits if they read back, else 9, which always do: nine digits are closer together than
 * floats by a factor of at least five, so an error in the last bits of the product is harmless. */
static char *print_float(char *to, float f)
{
    double v = fabs((double)f), rounded;
    uint64_t nine, eight, seven;
    int e;

    if (signbit(f))
        *to++ = '-';
    if (v < 16777216 && v == (rounded = (double)(uint64_t)v))
        return print_decimal(to, (uint64_t)rounded, 0);
    e = floor_log10(v) - 8;
    nine = (uint64_t)(scale10(v, -e) + 0.5);
    seven = (nine + 50) / 100;
    eight = (nine + 5) / 10;
    if (float_reads_back(seven, e + 2, (float)v))
        return print_decimal(to, seven, e + 2);
    if (float_reads_back(eight, e + 1, (float)v))
        return print_decimal(to, eight, e + 1);
    return print_decimal(to, nine, e);
}

static char *print_double_slowly(char *to, double v)
{
    int n = snprintf(to, NUMBER_MAX, "%.17g", v);

    return to + n;
}

#if LDBL_MANT_DIG == 64
/* The shortest of 15, 16 and 17 digits that reads back, found in 64-bit precision. */
static char *print_double_wide(char *to, double v)
{
    int e = floor_log10(v);

    for (int n = 15; n <= 17; n++) {
        int exp10 = e - n + 1;
        double back;

        if (exp10 < -EXACT_LONG_DOUBLE || exp10 > EXACT_LONG_DOUBLE)
            break;
        struct decimal d = {.exp10 = exp10};
        long double scaled = exp10 < 0 ? (long double)v * pow10_long_double[-exp10]
                                       : (long double)v / pow10_long_double[exp10];
        d.mantissa = (uint64_t)(scaled + 0.5L);
        if (double_quick(&d, &back) && back == v)
            return print_decimal(to, d.mantissa, exp10);
    }
    return print_double_slowly(to, v);
}
#else
#define print_double_wide print_double_slowly
#endif

static char *print_double(char *to, double f)
{
    double v = fabs(f);

    if (signbit(f))
        *to++ = '-';
    if (v < 9007199254740992.0 && v == (double)(uint64_t)v)
        return print_decimal(to, (uint64_t)v, 0);
    return print_double_wide(to, v);
}

/* ---- printing: tensors */
static int not_finite(int64_t i, double v, struct err *err)
{
    return err_set(err, -EDOM, "element %lld is %s, which JSON cannot hold: ask for binary data",
                   (long long)i,
                   isnan(v) ? "NaN"
                   : v < 0  ? "-infinity"
                            : "infinity");
}

/* Element i of a tensor of fixed-size elements. */
static int print_element(const struct tensor *t, int64_t i, char **to, struct err *err)
{
#define AT(type) (((const type *)t->data)[i])
    switch (t->dtype) {
    case DT_FP32:
        if (!isfinite(AT(float)))
            return not_finite(i, (double)AT(float), err);
        *to = print_float(*to, AT(float));
        return 0;
    case DT_FP64:
        if (!isfinite(AT(double)))
            return not_finite(i, AT(double), err);
        *to = print_double(*to, AT(double));
        return 0;
    case DT_BOOL:
        *to = stpcpy(*to, AT(uint8_t) ? "true" : "false");
        return 0;
#define CASE(t, type, print)                                                                       \
    case t:                                                                                        \
        *to = print(*to, AT(type));                                                                \
        return 0
        CASE(DT_UINT8, uint8_t, print_uint);
        CASE(DT_UINT16, uint16_t, print_uint);
        CASE(DT_UINT32, uint32_t, print_uint);
        CASE(DT_UINT64, uint64_t, print_uint);
        CASE(DT_INT8, int8_t, print_int);
        CASE(DT_INT16, int16_t, print_int);
        CASE(DT_INT32, int32_t, print_int);
        CASE(DT_INT64, int64_t, print_int);
#undef CASE
    default:
        return err_set(err, -ENOTSUP, "%s has no JSON form: ask for binary data",
                       dtype_name(t->dtype));
    }
}

static int print_strings(const struct tensor *t, int64_t count, struct text *out, struct err *err)
{
    const char *p = t->data, *end = p + t->bytes;

    for (int64_t i = 0; i < count; i++) {
        uint32_t n;

        if (end - p < 4 || (memcpy(&n, p, 4), (size_t)(end - p) - 4 < n))
            return err_set(err, -EIO, "element %lld runs over the tensor's end", (long long)i);
        if (i)
            text_add(out, ",", 1);
        if (text_string(out, p + 4, n) == -EILSEQ)
            return err_set(err, -EDOM,
                           "element %lld is no UTF-8, which JSON cannot hold: ask for binary data",
                           (long long)i);
        p += 4 + n;
    }
    return 0;
}

static int print_numbers(const struct tensor *t, int64_t count, struct text *out, struct err *err)
{
    for (int64_t i = 0; i < count; i++) {
        char *first = text_room(out, NUMBER_MAX + 1), *to = first;

        if (!to)
            return -ENOMEM;
        if (i)
            *to++ = ',';
        if (print_element(t, i, &to, err) < 0)
            return err->code;
        out->n += (size_t)(to - first);
    }
    return 0;
}

int tensor_json_print(const struct tensor *t, struct text *out, struct err *err)
{
    struct err own;
    int64_t count;
    int rc;

    err = err ? err : &own;
    if (tensor_count(t, &count) < 0)
        return err_set(err, -EOVERFLOW, "the shape has too many elements");
    text_add(out, "[", 1);
    rc = t->dtype == DT_STRING ? print_strings(t, count, out, err)
                               : print_numbers(t, count, out, err);
    text_add(out, "]", 1);
    if (out->failed)
        return err_set(err, -ENOMEM, "out of memory");
    return rc;
}
