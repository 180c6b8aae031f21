/* Shape rules of operators about text, and how many bytes strings take at most. */
#include "infer.h"
#include <kernels/ref/regex.h>
#include <kernels/ref/text.h>

#define NUMBER_TEXT_BYTES 40 /* of a number as text, with its length */

/* Strings of input i: their bytes and the longest.  They must be known. */
struct known {
    size_t bytes, longest;
};

static int strings_of(struct infer *c, uint32_t i, struct known *ret)
{
    const struct tensor *t = c->in[i];
    int64_t count;
    size_t at = 0;

    if (tensor_count(t, &count) < 0)
        return err_set(c->err, -EINVAL, "input %u has too many elements", i);
    if (!t->data && count > 0)
        return infer_unknown(c, "strings");
    *ret = (struct known){.bytes = t->bytes};
    for (int64_t k = 0; k < count; k++) {
        struct str s;
        if (tensor_text(t, &at, &s) < 0)
            return err_set(c->err, -EINVAL, "string %lld of input %u ends beyond it", (long long)k,
                           i);
        ret->longest = MAX(ret->longest, s.n);
    }
    return 0;
}

/* Set the bytes of result i: count strings of at most `longest`, in all at most `most`. */
static int text_bytes(struct infer *c, uint32_t i, size_t longest, size_t most)
{
    int64_t count;
    size_t bytes;

    if (i >= c->n->n_out)
        return 0;
    if (tensor_count(&c->out[i], &count) < 0 ||
        __builtin_mul_overflow((size_t)count, longest + sizeof(uint32_t), &bytes) ||
        bytes > PTRDIFF_MAX)
        return err_set(c->err, -EINVAL, "its strings would be too long");
    c->out[i].bytes = MIN(bytes, most);
    return 0;
}

/* Whether an element of the input can come out more than once. */
static bool repeats(enum op_id op)
{
    switch (op) {
    case OP_Identity:
    case OP_Reshape:
    case OP_Flatten:
    case OP_Squeeze:
    case OP_Unsqueeze:
    case OP_Transpose:
    case OP_Concat:
    case OP_Split:
    case OP_Slice:
    case OP_Cast:
    case OP_CastLike:
    case OP_Compress:
    case OP_DepthToSpace:
    case OP_SpaceToDepth:
    case OP_ReverseSequence:
    case OP_Unique:
        return false;
    default:
        return true;
    }
}

/* Results that are strings, after the operator's own rule. */
int infer_texts(struct infer *c)
{
    bool any = false;
    struct known sum = {0}, one;
    uint32_t from = 0;

    for (uint32_t i = 0; i < c->n->n_out; i++)
        any |= c->out[i].dtype == DT_STRING && c->out[i].bytes == 0;
    if (!any)
        return 0;
    for (uint32_t i = 0; i < c->n->n_in; i++) {
        if (!c->in[i] || c->in[i]->dtype != DT_STRING)
            continue;
        if (c->n->op == OP_CastLike && i > 0)
            continue; /* names a type; its strings go nowhere */
        int rc = strings_of(c, i, &one);
        if (rc < 0)
            return rc;
        from++;
        sum.bytes += one.bytes;
        sum.longest = MAX(sum.longest, one.longest);
    }
    for (uint32_t i = 0; i < c->n->n_out; i++) {
        if (c->out[i].dtype != DT_STRING || c->out[i].bytes > 0)
            continue;
        bool moved = from > 0 && !repeats(c->n->op);
        int rc =
            text_bytes(c, i, from ? sum.longest : NUMBER_TEXT_BYTES, moved ? sum.bytes : SIZE_MAX);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int infer_string_concat(struct infer *c)
{
    const struct tensor *a = c->in[0], *b = c->in[1];
    struct known ka, kb;
    int64_t dims[MAX_RANK];
    uint32_t rank;
    int rc = infer_broadcast(c, a->rank, a->dims, b->rank, b->dims, &rank, dims);

    if (rc < 0 || (rc = strings_of(c, 0, &ka)) < 0 || (rc = strings_of(c, 1, &kb)) < 0 ||
        (rc = infer_out(c, 0, DT_STRING, rank, dims)) < 0)
        return rc;
    if (ka.longest + kb.longest > UINT32_MAX)
        return err_set(c->err, -EINVAL, "a string of %zu bytes", ka.longest + kb.longest);
    return text_bytes(c, 0, ka.longest + kb.longest, SIZE_MAX);
}

/* As many as stay, at least one: an empty string. */
int infer_string_normalizer(struct infer *c)
{
    const struct tensor *x = c->in[0];
    const char *change = node_str(c->n, "case_change_action", "NONE");
    struct known k;
    int64_t dims[2] = {1, 1};

    if (x->rank < 1 || x->rank > 2 || (x->rank == 2 && x->dims[0] != 1))
        return err_set(c->err, -EINVAL, "the input is neither [C] nor [1,C]");
    if (!STREQ(change, "LOWER") && !STREQ(change, "UPPER") && !STREQ(change, "NONE"))
        return err_set(c->err, -EINVAL, "case_change_action '%.32s'", change);
    int rc = strings_of(c, 0, &k);
    if (rc < 0)
        return rc;
    dims[x->rank - 1] = MAX(x->dims[x->rank - 1], 1);
    if ((rc = infer_out(c, 0, DT_STRING, x->rank, dims)) < 0)
        return rc;
    c->out[0].bytes = TEXT_GROWTH * k.bytes + sizeof(uint32_t);
    return 0;
}

int infer_string_split(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t dims[MAX_RANK + 1], most = 0, count, all;
    size_t at = 0, text = 0;
    struct known k;
    int rc = strings_of(c, 0, &k);

    if (rc < 0)
        return rc;
    (void)tensor_count(x, &count);
    for (int64_t i = 0; i < count; i++) {
        struct str s, piece;
        int64_t pieces = 0;
        (void)tensor_text(x, &at, &s);
        for (struct splitter cut = splitter_of(c->n, s); split_next(&cut, &piece); pieces++)
            text += piece.n;
        most = MAX(most, pieces);
    }
    memcpy(dims, x->dims, sizeof(x->dims));
    dims[x->rank] = most;
    if ((rc = infer_out(c, 0, DT_STRING, x->rank + 1, dims)) < 0 ||
        (rc = infer_out(c, 1, DT_INT64, x->rank, x->dims)) < 0)
        return rc;
    (void)tensor_count(&c->out[0], &all);
    if (__builtin_mul_overflow((size_t)all, sizeof(uint32_t), &at) ||
        __builtin_add_overflow(at, text, &at))
        return err_set(c->err, -EINVAL, "its strings would be too long");
    c->out[0].bytes = at;
    return 0;
}

int infer_tfidf(struct infer *c)
{
    const struct tensor *x = c->in[0];
    uint32_t n;
    const int64_t *indexes = node_ints(c->n, "ngram_indexes", &n);
    int64_t width = 0;

    if (!indexes || x->rank > 2)
        return err_set(c->err, -EINVAL, "ngram_indexes are missing, or the input has rank %u",
                       x->rank);
    for (uint32_t i = 0; i < n; i++) {
        if (indexes[i] < 0 || indexes[i] >= MAX_DIM)
            return err_set(c->err, -EINVAL, "ngram_indexes has %lld", (long long)indexes[i]);
        width = MAX(width, indexes[i] + 1);
    }
    return infer_out(c, 0, DT_FP32, x->rank == 2 ? 2 : 1,
                     x->rank == 2 ? (int64_t[]){x->dims[0], width} : &width);
}

/* A pattern that cannot be read is the model's fault, not a string's. */
int infer_regex_full_match(struct infer *c)
{
    const struct attr *pattern = node_attr(c->n, "pattern");
    AUTO(regex_free) struct regex *re = NULL;

    if (!pattern || pattern->type != ATTR_STRING)
        return err_set(c->err, -EINVAL, "there is no pattern");
    int r = regex_new(pattern->s, pattern->n, &re, c->err);
    return r < 0 ? r : infer_out(c, 0, DT_BOOL, c->in[0]->rank, c->in[0]->dims);
}
