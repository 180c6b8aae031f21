/* Strings without a kernel of their own: operators that move or compare elements run on numbers
 * that stand for them.
 *
 * All strings that go in are indexed once (pointer and length; kit.h) and get numbers: by place
 * where an operator only moves them, by value where it compares them, so that equal strings have
 * equal numbers and smaller ones smaller numbers.  The operator's own kernel runs on INT64 tensors
 * of these numbers; what it puts out is looked up again.  Number 0 is the empty string: what Pad
 * fills with. */
#include "kit.h"

enum how { HOW_NONE, HOW_MOVED, HOW_COMPARED, HOW_OWN };
static const uint8_t how_of[OP_END] = {
    [OP_Cast] = HOW_OWN,
    [OP_CastLike] = HOW_OWN,
    [OP_CenterCropPad] = HOW_MOVED,
    [OP_Compress] = HOW_MOVED,
    [OP_Concat] = HOW_MOVED,
    [OP_DepthToSpace] = HOW_MOVED,
    [OP_Equal] = HOW_COMPARED,
    [OP_Expand] = HOW_MOVED,
    [OP_Flatten] = HOW_MOVED,
    [OP_Gather] = HOW_MOVED,
    [OP_GatherElements] = HOW_MOVED,
    [OP_GatherND] = HOW_MOVED,
    [OP_Identity] = HOW_MOVED,
    [OP_NonZero] = HOW_COMPARED,
    [OP_OneHot] = HOW_MOVED,
    [OP_Pad] = HOW_MOVED,
    [OP_RandomNormalLike] = HOW_OWN, /* of the input only the shape is read */
    [OP_RandomUniformLike] = HOW_OWN,
    [OP_RegexFullMatch] = HOW_OWN,
    [OP_Reshape] = HOW_MOVED,
    [OP_ReverseSequence] = HOW_MOVED,
    [OP_Scatter] = HOW_MOVED,
    [OP_ScatterElements] = HOW_MOVED,
    [OP_ScatterND] = HOW_MOVED,
    [OP_Shape] = HOW_OWN,
    [OP_Size] = HOW_OWN,
    [OP_Slice] = HOW_MOVED,
    [OP_SpaceToDepth] = HOW_MOVED,
    [OP_Split] = HOW_MOVED,
    [OP_Squeeze] = HOW_MOVED,
    [OP_StringConcat] = HOW_OWN,
    [OP_StringNormalizer] = HOW_OWN,
    [OP_StringSplit] = HOW_OWN,
    [OP_TfIdfVectorizer] = HOW_OWN,
    [OP_Tile] = HOW_MOVED,
    [OP_Transpose] = HOW_MOVED,
    [OP_Trilu] = HOW_MOVED,
    [OP_Unique] = HOW_COMPARED,
    [OP_Unsqueeze] = HOW_MOVED,
    [OP_Where] = HOW_MOVED,
};

bool ref_takes_strings(enum op_id op)
{
    return how_of[op] != HOW_NONE;
}

bool ref_by_number(enum op_id op)
{
    return how_of[op] == HOW_MOVED || how_of[op] == HOW_COMPARED;
}

int ref_texts(const struct node *n, const struct tensor *t, struct str *ret, struct err *err)
{
    size_t at = 0;

    for (int64_t i = 0; i < ref_count(t); i++)
        if (tensor_text(t, &at, &ret[i]) < 0)
            return err_set(err, -EINVAL, "node '%s' (%s): string %lld ends beyond its tensor",
                           n->name, op_name(n->op), (long long)i);
    return at == t->bytes
               ? 0
               : ref_fail(n, err, -EINVAL, "a tensor of strings is longer than they are");
}

/* ---- writing */
int text_put(struct text_writer *w, const struct str *s, size_t n_parts)
{
    uint32_t len = 0;

    for (size_t i = 0; i < n_parts; i++)
        if (__builtin_add_overflow(len, s[i].n, &len))
            return -EOVERFLOW;
    if (w->room - w->used < sizeof(len) || w->room - w->used - sizeof(len) < len)
        return -EOVERFLOW;
    memcpy(w->p + w->used, &len, sizeof(len));
    w->used += sizeof(len);
    for (size_t i = 0; i < n_parts; i++) {
        ref_copy(w->p + w->used, s[i].s, s[i].n);
        w->used += s[i].n;
    }
    return 0;
}

int ref_texts_fit(const struct node *n, int r, struct err *err)
{
    if (r == -ENOTSUP)
        return ref_no_type(n, DT_STRING, err);
    return r < 0 ? ref_fail(n, err, -EINVAL, "its strings are longer than its shape rule said") : 0;
}

/* ---- numbers for strings */
struct index {
    struct str *text; /* by number; [0] is empty */
    int64_t *number;  /* of each string that goes in, one input after the other */
    size_t n;         /* strings that go in */
};

static int compare(const void *a, const void *b, void *texts)
{
    const struct str *x = (const struct str *)texts + *(const int64_t *)a,
                     *y = (const struct str *)texts + *(const int64_t *)b;
    int c = x->n && y->n ? memcmp(x->s, y->s, MIN(x->n, y->n)) : 0;

    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* text[] becomes the sorted strings, each once, and number[] says where each one went. */
static int number_by_value(struct index *x)
{
    AUTO(ref_drop) int64_t *order = ref_scratch(x->n + 1, sizeof(*order));
    AUTO(ref_drop) struct str *sorted = ref_scratch(x->n + 1, sizeof(*sorted));
    int64_t last = 0;

    if (!order || !sorted)
        return -ENOMEM;
    for (size_t i = 0; i <= x->n; i++)
        order[i] = (int64_t)i;
    qsort_r(order, x->n + 1, sizeof(*order), compare, x->text);
    sorted[0] = x->text[order[0]];
    for (size_t i = 0; i <= x->n; i++) {
        if (i > 0 && compare(&order[i - 1], &order[i], x->text) != 0)
            sorted[++last] = x->text[order[i]];
        if (order[i] > 0)
            x->number[order[i] - 1] = last;
    }
    memcpy(x->text, sorted, (size_t)(last + 1) * sizeof(*sorted));
    return 0;
}

static int index_make(struct index *x, const struct node *n, const struct tensor *const *in,
                      struct err *err)
{
    size_t at = 0;
    int r;

    for (uint32_t i = 0; i < n->n_in; i++)
        if (in[i] && in[i]->dtype == DT_STRING)
            x->n += (size_t)ref_count(in[i]);
    x->text = calloc(x->n + 1, sizeof(*x->text));
    x->number = calloc(x->n + 1, sizeof(*x->number));
    if (!x->text || !x->number)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!in[i] || in[i]->dtype != DT_STRING)
            continue;
        if ((r = ref_texts(n, in[i], x->text + 1 + at, err)) < 0)
            return r;
        at += (size_t)ref_count(in[i]);
    }
    for (size_t i = 0; i < x->n; i++)
        x->number[i] = (int64_t)i + 1;
    if (how_of[n->op] == HOW_COMPARED && number_by_value(x) < 0)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    return 0;
}

/* ---- the run */
struct numbers {
    const struct node *n;
    ref_fn fn;
    struct index index;
    struct tensor *t; /* of inputs, then of outputs */
    const struct tensor **in;
    struct tensor **out;
};

/* The tensors that the kernel sees: strings as numbers, the rest as it is. */
static int numbers_make(struct numbers *x, const struct tensor *const *in,
                        struct tensor *const *out)
{
    const struct node *n = x->n;
    int64_t *at = x->index.number;

    for (uint32_t i = 0; i < n->n_in; i++) {
        x->in[i] = in[i];
        if (!in[i] || in[i]->dtype != DT_STRING)
            continue;
        (void)tensor_shape(&x->t[i], DT_INT64, in[i]->rank, in[i]->dims);
        x->t[i].data = at;
        at += ref_count(in[i]);
        x->in[i] = &x->t[i];
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        struct tensor *t = &x->t[n->n_in + i];
        x->out[i] = out[i];
        if (!out[i] || out[i]->dtype != DT_STRING)
            continue;
        (void)tensor_shape(t, DT_INT64, out[i]->rank, out[i]->dims);
        t->data = calloc(1, t->bytes + 1);
        if (!t->data)
            return -ENOMEM;
        x->out[i] = t;
    }
    return 0;
}

/* Looks the numbers of output i up; the kernel may have made it smaller. */
static int put_strings(const struct numbers *x, uint32_t i, struct tensor *to)
{
    const struct tensor *t = &x->t[x->n->n_in + i];
    struct text_writer w = {.p = to->data, .room = to->bytes};

    memcpy(to->dims, t->dims, sizeof(to->dims));
    for (int64_t k = 0; k < ref_count(t); k++) {
        uint64_t at = ((const uint64_t *)t->data)[k];
        if (at > x->index.n) /* an operator that computes with what should only move */
            return -ENOTSUP;
        if (text_put(&w, &x->index.text[at], 1) < 0)
            return -EOVERFLOW;
    }
    to->bytes = w.used;
    return 0;
}

static int numbers_run(struct numbers *x, const struct tensor *const *in, struct tensor *const *out,
                       struct err *err)
{
    const struct node *n = x->n;
    int r = index_make(&x->index, n, in, err);

    if (r < 0)
        return r;
    if (numbers_make(x, in, out) < 0)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    r = x->fn(n, x->in, x->out, err);
    for (uint32_t i = 0; i < n->n_out && r == 0; i++)
        if (out[i] && out[i]->dtype == DT_STRING)
            r = ref_texts_fit(n, put_strings(x, i, out[i]), err);
    return r;
}

int ref_run_by_number(ref_fn fn, const struct node *n, const struct tensor *const *in,
                      struct tensor *const *out, struct err *err)
{
    struct numbers x = {.n = n, .fn = fn};
    bool computes = !STREQ(node_str(n, "reduction", "none"), "none"); /* Scatter* that adds up */
    AUTO(ref_drop) struct tensor *t = ref_scratch(n->n_in + n->n_out + 1, sizeof(*t));
    AUTO(ref_drop) const struct tensor **numbers_in = ref_scratch(n->n_in + 1, sizeof(*numbers_in));
    AUTO(ref_drop) struct tensor **numbers_out = ref_scratch(n->n_out + 1, sizeof(*numbers_out));
    int r = -ENOMEM;

    if (computes)
        return ref_no_type(n, DT_STRING, err);
    x.t = t;
    x.in = numbers_in;
    x.out = numbers_out;
    if (t && numbers_in && numbers_out)
        r = numbers_run(&x, in, out, err);
    else
        (void)ref_fail(n, err, r, "out of memory");
    for (uint32_t i = 0; t && i < n->n_out; i++)
        free(t[n->n_in + i].data);
    free(x.index.text);
    free(x.index.number);
    return r;
}
