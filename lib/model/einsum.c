/* Equations of Einsum: "bij,bjk->bik", "ij->" (all summed), "ij,jk" (the result's labels are those
 * named once, in alphabetical order), "...ij,...jk->...ik" (the dimensions of "..." align from the
 * right and broadcast). */
#include <ctype.h>
#include <gpulet/einsum.h>

#define NO_LABEL UINT8_MAX
#define MAX_TERM 64

/* One operand's text without blanks: letters, and '.' once for an ellipsis. */
struct term {
    char text[MAX_TERM];
    uint32_t n;
};

struct equation {
    struct term in[EINSUM_MAX_IN], out;
    uint32_t n_in;
    bool explicit_out;
    uint32_t n_dots;     /* dimensions behind an ellipsis, at most */
    uint8_t letter[256]; /* label of a letter */
    uint8_t dots;        /* label of the first dimension of the ellipsis */
};

static int bad(struct err *err, const char *equation, const char *what)
{
    return err_set(err, -EINVAL, "equation '%.64s': %s", equation, what);
}

/* Read a term up to ',', "->" or the end; NULL for something else. */
static const char *read_term(const char *s, struct term *t)
{
    bool dots = false;

    for (t->n = 0; *s && *s != ',' && *s != '-'; s++) {
        if (*s == ' ')
            continue;
        bool dot = strncmp(s, "...", 3) == 0 && !dots;
        if (t->n == MAX_TERM || (!dot && !isalpha((unsigned char)*s)))
            return NULL;
        dots |= dot;
        s += dot ? 2 : 0;
        t->text[t->n++] = *s;
    }
    return s;
}

static int read_equation(const char *text, struct equation *q, struct err *err)
{
    const char *s = text;

    do {
        if (q->n_in == EINSUM_MAX_IN)
            return err_set(err, -ENOTSUP, "more than %d operands", EINSUM_MAX_IN);
        if (!(s = read_term(s + (*s == ','), &q->in[q->n_in++])))
            return bad(err, text, "a term is no list of letters");
    } while (*s == ',');
    q->explicit_out = *s == '-';
    if (!q->explicit_out)
        return 0;
    if (s[1] != '>' || !(s = read_term(s + 2, &q->out)) || *s)
        return bad(err, text, "its right side is no list of letters");
    return 0;
}

static uint32_t times_named(const struct equation *q, char letter)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < q->n_in; i++)
        for (uint32_t k = 0; k < q->in[i].n; k++)
            n += q->in[i].text[k] == letter;
    return n;
}

/* Without "->": the ellipsis, then the letters that are named once. */
static void implied_out(struct equation *q)
{
    if (times_named(q, '.'))
        q->out.text[q->out.n++] = '.';
    for (char c = 'A'; c <= 'z' && q->out.n < MAX_TERM; c++)
        if (isalpha((unsigned char)c) && times_named(q, c) == 1)
            q->out.text[q->out.n++] = c;
}

static bool has_dots(const struct term *t)
{
    return memchr(t->text, '.', t->n) != NULL;
}

/* Labels for a term's letters that have none yet. */
static int label_term(struct equation *q, const struct term *t, struct einsum *e, struct err *err)
{
    for (uint32_t k = 0; k < t->n; k++) {
        bool dot = t->text[k] == '.';
        uint8_t *label = dot ? &q->dots : &q->letter[(unsigned char)t->text[k]];
        uint32_t n = dot ? q->n_dots : 1;
        if (*label != NO_LABEL)
            continue;
        if (e->n_labels + n > EINSUM_MAX_LABELS)
            return err_set(err, -ENOTSUP, "more than %d labels", EINSUM_MAX_LABELS);
        *label = (uint8_t)e->n_labels;
        e->n_labels += n;
    }
    return 0;
}

/* Where the dimensions of an input stand in the equation, and their sizes. */
static int label_input(const struct equation *q, uint32_t i, const struct tensor *t,
                       struct einsum *e)
{
    const struct term *term = &q->in[i];
    uint32_t d = 0;

    for (uint32_t k = 0; k < term->n; k++) {
        bool dot = term->text[k] == '.';
        uint32_t n = dot ? t->rank + 1 - term->n : 1;
        uint32_t first = dot ? q->dots + q->n_dots - n : q->letter[(unsigned char)term->text[k]];
        for (uint32_t j = 0; j < n; j++, d++) {
            int64_t *size = &e->size[first + j];
            e->label[i][d] = (uint8_t)(first + j);
            if (*size == -1 || *size == 1)
                *size = t->dims[d];
            else if (t->dims[d] != *size && t->dims[d] != 1)
                return -EINVAL;
        }
    }
    return 0;
}

static int check_ranks(struct equation *q, const struct tensor *const *in, const char *text,
                       struct err *err)
{
    for (uint32_t i = 0; i < q->n_in; i++) {
        uint32_t letters = q->in[i].n - has_dots(&q->in[i]);
        if (!in[i])
            return bad(err, text, "an operand is missing");
        if (has_dots(&q->in[i]) ? in[i]->rank < letters : in[i]->rank != letters)
            return err_set(err, -EINVAL, "equation '%.64s': operand %u has rank %u", text, i,
                           in[i]->rank);
        q->n_dots = MAX(q->n_dots, in[i]->rank - letters);
    }
    return 0;
}

static int check_out(const struct equation *q, const char *text, struct err *err)
{
    for (uint32_t k = 0; k < q->out.n; k++)
        if (memchr(q->out.text, q->out.text[k], k) || !times_named(q, q->out.text[k]))
            return bad(err, text, "its right side names a label twice, or an unknown one");
    if (times_named(q, '.') && !has_dots(&q->out))
        return bad(err, text, "its right side lacks the ellipsis");
    return 0;
}

int einsum_read(const struct node *n, const struct tensor *const *in, struct einsum *ret,
                struct err *err)
{
    const char *text = node_str(n, "equation", "");
    struct equation q = {.n_in = 0, .dots = NO_LABEL};
    int r = read_equation(text, &q, err);

    *ret = (struct einsum){.n_in = q.n_in};
    memset(q.letter, NO_LABEL, sizeof(q.letter));
    memset(ret->size, -1, sizeof(ret->size));
    if (r < 0)
        return r;
    if (q.n_in != n->n_in)
        return err_set(err, -EINVAL, "equation '%.64s' has %u operands, the node %u", text, q.n_in,
                       n->n_in);
    if (!q.explicit_out)
        implied_out(&q);
    if ((r = check_ranks(&q, in, text, err)) < 0 || (r = check_out(&q, text, err)) < 0 ||
        (r = label_term(&q, &q.out, ret, err)) < 0)
        return r;
    ret->n_out = ret->n_labels;
    if (ret->n_out > MAX_RANK)
        return err_set(err, -ENOTSUP, "a result of rank %u (at most %d)", ret->n_out, MAX_RANK);
    for (uint32_t i = 0; i < q.n_in && r == 0; i++) {
        if ((r = label_term(&q, &q.in[i], ret, err)) < 0)
            return r;
        if ((r = label_input(&q, i, in[i], ret)) < 0)
            return bad(err, text, "operands differ in the size of a label");
    }
    return r;
}

int64_t einsum_stride(const struct einsum *e, uint32_t i, const struct tensor *t, uint32_t l)
{
    int64_t stride = 1, sum = 0;

    for (uint32_t d = t->rank; d-- > 0; stride *= t->dims[d])
        if (e->label[i][d] == l && !(t->dims[d] == 1 && e->size[l] != 1))
            sum += stride;
    return sum;
}
