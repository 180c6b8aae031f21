/* Operators about text: StringConcat, StringSplit, StringNormalizer, TfIdfVectorizer. */
#include "text.h"
#include "kit.h"
#include <locale.h>
#include <wctype.h>

/* All elements of an input; the caller frees. */
static struct str *texts_of(const struct node *n, const struct tensor *t, int *r, struct err *err)
{
    struct str *ret = ref_scratch((size_t)ref_count(t) + 1, sizeof(*ret));

    *r = ret ? ref_texts(n, t, ret, err) : ref_fail(n, err, -ENOMEM, "out of memory");
    return ret;
}

REF_FN(ref_string_concat)
{
    struct text_writer w = {.p = out[0]->data, .room = out[0]->bytes};
    int r, r2;
    AUTO(ref_drop) struct str *a = texts_of(n, in[0], &r, err), *b = texts_of(n, in[1], &r2, err);
    struct walk walk;

    if (r < 0 || r2 < 0)
        return MIN(r, r2);
    walk_init(&walk, out[0]);
    if (walk_broadcast(&walk, 0, in[0]) < 0 || walk_broadcast(&walk, 1, in[1]) < 0)
        return ref_fail(n, err, -EINVAL, "the inputs do not broadcast to the output");
    for (int64_t i = 0; i < walk.n && r == 0; i++, walk_next(&walk))
        r = text_put(&w, (struct str[]){a[walk.off[0]], b[walk.off[1]]}, 2);
    out[0]->bytes = w.used;
    return ref_texts_fit(n, r, err);
}

/* Y (..., most pieces) filled up with empty strings, Z (...) how many there are. */
REF_FN(ref_string_split)
{
    struct tensor *y = out[0], *z = ref_out(n, out, 1);
    struct text_writer w = {.p = y->data, .room = y->bytes};
    int64_t count = ref_count(in[0]), most = y->rank ? y->dims[y->rank - 1] : 0;
    int r;
    AUTO(ref_drop) struct str *x = texts_of(n, in[0], &r, err);

    if (r < 0)
        return r;
    if (y->rank != in[0]->rank + 1 || (z && ref_count(z) != count))
        return ref_fail(n, err, -EINVAL, "the outputs do not fit the input");
    for (int64_t i = 0; i < count && r == 0; i++) {
        struct splitter s = splitter_of(n, x[i]);
        struct str piece, none = {"", 0};
        int64_t pieces = 0;
        for (; r == 0 && split_next(&s, &piece); pieces++)
            r = pieces < most ? text_put(&w, &piece, 1) : -EOVERFLOW;
        if (z)
            num_put(z, i, (union num){.i = pieces});
        for (int64_t k = pieces; k < most && r == 0; k++)
            r = text_put(&w, &none, 1);
    }
    y->bytes = w.used;
    return ref_texts_fit(n, r, err);
}

/* ---- StringNormalizer: letters as Unicode has them, whatever the attribute `locale` names */
enum letters { AS_IS, LOWER, UPPER };

size_t utf8_read(const char *s, size_t n, size_t at, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* below: in too many bytes */
    const uint8_t *p = (const uint8_t *)s + at;
    size_t len = p[0] < 0x80       ? 1
                 : p[0] >> 5 == 6  ? 2
                 : p[0] >> 4 == 14 ? 3
                 : p[0] >> 3 == 30 ? 4
                                   : 0;

    *ret = len == 1 ? p[0] : 0;
    if (len < 2 || len > n - at)
        return len == 1;
    *ret = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        *ret = *ret << 6 | (p[i] & 0x3f);
    }
    return *ret < least[len] || *ret > 0x10ffff ? 0 : len;
}

static uint32_t utf8_write(uint32_t c, char *p)
{
    uint32_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    for (uint32_t i = n; n > 1 && i-- > 1; c >>= 6)
        p[i] = (char)(0x80 | (c & 0x3f));
    p[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xff) | c);
    return n;
}

/* Into p, which has room for TEXT_GROWTH times the bytes. */
static struct str changed(const struct str *s, enum letters to, locale_t loc, char *p)
{
    struct str ret = {p, 0};

    if (to == AS_IS)
        return *s;
    for (uint32_t i = 0, len; i < s->n; i += len) {
        uint32_t c;
        len = (uint32_t)utf8_read(s->s, s->n, i, &c);
        if (len == 0) { /* no character: stays as it is */
            p[ret.n++] = s->s[i];
            len = 1;
        } else {
            ret.n += utf8_write((uint32_t)(to == LOWER ? towlower_l(c, loc) : towupper_l(c, loc)),
                                p + ret.n);
        }
    }
    return ret;
}

static bool same(const struct str *a, const struct str *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->s, b->s, a->n) == 0);
}

struct normalizer {
    const struct attr *stop; /* NULL: none */
    bool exact;
    enum letters letters;
    locale_t loc;
    char *one, *two; /* room for one string, and for a stop word */
};

static bool is_stopped(const struct normalizer *z, const struct str *s)
{
    struct str a = z->exact ? *s : changed(s, LOWER, z->loc, z->one);

    for (uint32_t i = 0; z->stop && i < z->stop->n; i++) {
        struct str word = {z->stop->strs[i].s, z->stop->strs[i].n};
        struct str b = z->exact ? word : changed(&word, LOWER, z->loc, z->two);
        if (same(&a, &b))
            return true;
    }
    return false;
}

/* What stays, or one empty string. */
static int normalize(const struct normalizer *z, const struct str *x, int64_t n, struct tensor *y)
{
    struct text_writer w = {.p = y->data, .room = y->bytes};
    struct str none = {"", 0};
    int64_t kept = 0;
    int r = 0;

    for (int64_t i = 0; i < n && r == 0; i++) {
        if (is_stopped(z, &x[i]))
            continue;
        struct str s = changed(&x[i], z->letters, z->loc, z->one);
        r = text_put(&w, &s, 1);
        kept++;
    }
    if (kept == 0 && r == 0)
        r = text_put(&w, &none, 1);
    y->dims[y->rank - 1] = MAX(kept, 1);
    y->bytes = w.used;
    return r;
}

REF_FN(ref_string_normalizer)
{
    const char *change = node_str(n, "case_change_action", "NONE");
    struct normalizer z = {.stop = node_attr(n, "stopwords"),
                           .exact = node_int(n, "is_case_sensitive", 0) != 0,
                           .letters = STREQ(change, "LOWER")   ? LOWER
                                      : STREQ(change, "UPPER") ? UPPER
                                                               : AS_IS};
    uint32_t longest = 0, word = 0;
    int r;
    AUTO(ref_drop) struct str *x = texts_of(n, in[0], &r, err);

    if (r < 0)
        return r;
    if (z.stop && z.stop->type != ATTR_STRINGS)
        z.stop = NULL;
    for (int64_t i = 0; i < ref_count(in[0]); i++)
        longest = MAX(longest, x[i].n);
    for (uint32_t i = 0; z.stop && i < z.stop->n; i++)
        word = MAX(word, z.stop->strs[i].n);
    AUTO(ref_drop) char *one = ref_scratch(1, TEXT_GROWTH * (size_t)longest + 1);
    AUTO(ref_drop) char *two = ref_scratch(1, TEXT_GROWTH * (size_t)word + 1);
    z.one = one;
    z.two = two;
    z.loc = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (!one || !two || !z.loc) {
        if (z.loc)
            freelocale(z.loc);
        return ref_fail(n, err, -ENOMEM, "out of memory");
    }
    r = normalize(&z, x, ref_count(in[0]), out[0]);
    freelocale(z.loc);
    return ref_texts_fit(n, r, err);
}

/* ---- TfIdfVectorizer */
struct grams {
    const struct node *n;
    const int64_t *counts, *indexes, *ints; /* attributes */
    const struct attr *strs, *weights;
    uint32_t n_counts, n_indexes, n_ints;
    const struct str *text; /* of the input, when that is strings */
    const struct tensor *x;
    double *found; /* by index of the output, for one row */
    int64_t width;
};

static bool item_is(const struct grams *g, int64_t at, int64_t pool)
{
    if (!g->strs)
        return num_get(g->x, at).i == g->ints[pool];
    struct str word = {g->strs->strs[pool].s, g->strs->strs[pool].n};
    return same(&g->text[at], &word);
}

static int64_t pool_size(const struct grams *g)
{
    return g->strs ? g->strs->n : g->n_ints;
}

/* Counts the n-grams of `length` items, `skip` apart, in one row of the input. */
static void count_grams(const struct grams *g, int64_t from, int64_t items, int64_t length,
                        int64_t skip)
{
    int64_t first = g->counts[length - 1];
    int64_t last = length < g->n_counts ? g->counts[length] : pool_size(g), gram = 0;

    for (int64_t l = 1; l < length; l++) /* n-grams in front of these */
        gram += (g->counts[l] - g->counts[l - 1]) / l;
    for (int64_t p = first; p + length <= last; p += length, gram++)
        for (int64_t at = 0; at + (length - 1) * skip < items; at++) {
            bool all = true;
            for (int64_t k = 0; k < length && all; k++)
                all = item_is(g, from + at + k * skip, p + k);
            if (all)
                g->found[g->indexes[gram]]++;
        }
}

static void put_row(const struct grams *g, const struct tensor *y, int64_t row)
{
    const char *mode = node_str(g->n, "mode", "TF");

    for (int64_t i = 0; i < g->width; i++) {
        double v = g->found[i], w = 1;
        for (uint32_t k = 0; g->weights && k < g->n_indexes; k++)
            w = g->indexes[k] == i ? (double)g->weights->floats[k] : w;
        if (STREQ(mode, "IDF"))
            v = v > 0 ? w : 0;
        else if (STREQ(mode, "TFIDF"))
            v *= w;
        num_put(y, row * g->width + i, (union num){.f = v});
    }
}

static int grams_read(struct grams *g, struct err *err)
{
    const struct node *n = g->n;
    uint32_t grams = 0;

    g->counts = node_ints(n, "ngram_counts", &g->n_counts);
    g->indexes = node_ints(n, "ngram_indexes", &g->n_indexes);
    g->ints = node_ints(n, "pool_int64s", &g->n_ints);
    g->strs = node_attr(n, "pool_strings");
    g->weights = node_attr(n, "weights");
    if ((g->strs && g->strs->type != ATTR_STRINGS) || (!g->strs && !g->ints) ||
        !g->strs != (g->x->dtype != DT_STRING) || !g->counts || !g->indexes)
        return ref_fail(n, err, -EINVAL,
                        "its pool, counts or indexes are missing or of another type");
    if (g->weights && (g->weights->type != ATTR_FLOATS || g->weights->n != g->n_indexes))
        return ref_fail(n, err, -EINVAL, "weights are not one for each index");
    for (uint32_t l = 0; l < g->n_counts; l++) {
        int64_t from = g->counts[l], to = l + 1 < g->n_counts ? g->counts[l + 1] : pool_size(g);
        if (from < 0 || from > to || to > pool_size(g) || (to - from) % (l + 1) != 0)
            return ref_fail(n, err, -EINVAL, "ngram_counts do not fit the pool");
        grams += (uint32_t)((to - from) / (l + 1));
    }
    for (uint32_t i = 0; i < g->n_indexes; i++)
        if (g->indexes[i] < 0 || g->indexes[i] >= g->width)
            return ref_fail(n, err, -EINVAL, "ngram_indexes are out of range");
    return grams <= g->n_indexes
               ? 0
               : ref_fail(n, err, -EINVAL, "ngram_indexes are fewer than the pool's n-grams");
}

REF_FN(ref_tfidf)
{
    const struct tensor *x = in[0], *y = out[0];
    struct grams g = {.n = n, .x = x, .width = y->rank ? y->dims[y->rank - 1] : 0};
    int64_t least = node_int(n, "min_gram_length", 1), most = node_int(n, "max_gram_length", 1);
    int64_t skips = node_int(n, "max_skip_count", 0);
    int64_t items = x->rank ? x->dims[x->rank - 1] : 1, rows = x->rank > 1 ? x->dims[0] : 1;
    int r = grams_read(&g, err);

    if (r < 0)
        return r;
    if (least < 1 || most < least || most > g.n_counts || skips < 0 || skips > INT32_MAX ||
        ref_count(y) != rows * g.width)
        return ref_fail(n, err, -EINVAL, "lengths or skips are out of range");
    AUTO(ref_drop) struct str *text = g.strs ? texts_of(n, x, &r, err) : NULL;
    AUTO(ref_drop) double *found = ref_scratch((size_t)g.width + 1, sizeof(*found));
    if (r < 0 || !found)
        return r < 0 ? r : ref_fail(n, err, -ENOMEM, "out of memory");
    g.text = text;
    g.found = found;
    for (int64_t row = 0; row < rows; row++) {
        memset(found, 0, (size_t)g.width * sizeof(*found));
        for (int64_t length = least; length <= most; length++)
            for (int64_t skip = 1; skip <= (length == 1 ? 1 : MIN(skips, items) + 1); skip++)
                count_grams(&g, row * items, items, length, skip);
        put_row(&g, y, row);
    }
    return 0;
}
