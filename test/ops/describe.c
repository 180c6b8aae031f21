/* Reads the descriptions of cases.h, makes values, compares results. */
#include "cases.h"
#include "kernels/ref/kit.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>

static void __attribute__((noreturn)) bad(const struct op_case *c, const char *at)
{
    printf("not ok - the description of '%s' can be read at '%s'\n", c->name, at);
    exit(1);
}

static enum dtype type_of(char letter)
{
    static const struct {
        char letter;
        enum dtype dtype;
    } types[] = {{'f', DT_FP32},  {'d', DT_FP64}, {'h', DT_FP16},  {'i', DT_INT32},
                 {'l', DT_INT64}, {'s', DT_INT8}, {'u', DT_UINT8}, {'b', DT_BOOL}};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (types[i].letter == letter)
            return types[i].dtype;
    return DT_NONE;
}

static const char *read_dims(const struct op_case *c, const char *s, struct case_input *in)
{
    if (*s++ != '[')
        bad(c, s - 1);
    while (*s != ']') {
        char *end = (char *)s + 1;
        struct dim d = {.scale = 1, .sym = 0};
        if (*s != 'N')
            d = (struct dim){.scale = strtoll(s, &end, 10), .sym = SYM_CONST};
        if (end == s || in->rank == MAX_RANK || (*end != ',' && *end != ']'))
            bad(c, s);
        in->dims[in->rank++] = d;
        s = *end == ',' ? end + 1 : end;
    }
    return s + 1;
}

static const char *read_input(const struct op_case *c, const char *s, struct case_input *in)
{
    int n = 0;

    *in = (struct case_input){.lo = -1, .hi = 1};
    if (*s == '-')
        return s + 1;
    in->constant = *s == 'c';
    s += in->constant;
    in->dtype = type_of(*s);
    if (in->dtype == DT_NONE)
        bad(c, s);
    if (ref_kind(in->dtype) != KIND_FLOAT) {
        in->lo = ref_kind(in->dtype) == KIND_INT ? -10 : 0;
        in->hi = in->dtype == DT_BOOL ? 2 : 10;
    }
    s = read_dims(c, s + 1, in);
    if (*s == '(') {
        if (sscanf(s, "(%lf,%lf)%n", &in->lo, &in->hi, &n) < 2 || n == 0)
            bad(c, s);
        s += n;
    } else if (*s == '{') {
        in->values = s + 1;
        s = strchr(s, '}');
        if (!s)
            bad(c, in->values);
        s++;
    }
    return s;
}

uint32_t case_inputs(const struct op_case *c, struct case_input ret[CASE_MAX_IN])
{
    const char *s = c->inputs;
    uint32_t n = 0;

    while (*s) {
        if (n == CASE_MAX_IN)
            bad(c, s);
        s = read_input(c, s, &ret[n++]);
        if (*s && *s++ != ' ')
            bad(c, s - 1);
    }
    return n;
}

/* ---- attributes */
static const struct attr_text *read_words(const struct op_case *c, char *s, struct attr_text *ret,
                                          uint32_t *n)
{
    for (char *end = s; *s; s = end + 1) {
        end = s + strcspn(s, ",]");
        if (*n == 16 || !*end)
            bad(c, s);
        ret[(*n)++] = (struct attr_text){s, (uint32_t)(end - s)};
        bool last = *end == ']';
        *end = 0;
        if (last)
            break;
    }
    return ret;
}

static void read_value(const struct op_case *c, char *s, struct attr *a, int64_t ints[16],
                       struct attr_text words[16], struct tensor *t)
{
    char *end = NULL;

    if (*s == '[' && isalpha(s[1])) {
        a->type = ATTR_STRINGS;
        a->strs = read_words(c, s + 1, words, &a->n);
    } else if (*s == '[') {
        a->type = ATTR_INTS;
        a->ints = ints;
        for (s++; *s != ']'; s = *end == ',' ? end + 1 : end) {
            if (a->n == 16)
                bad(c, s);
            ints[a->n++] = strtoll(s, &end, 10);
            if (end == s || (*end != ',' && *end != ']'))
                bad(c, s);
        }
    } else if (*s == 't' && (isdigit(s[1]) || s[1] == '-')) {
        a->type = ATTR_TENSOR;
        *(float *)t->data = strtof(s + 1, NULL);
        a->t = t;
    } else if (isalpha(*s)) {
        a->type = ATTR_STRING;
        a->s = s;
        a->n = (uint32_t)strlen(s);
    } else if (strchr(s, '.')) {
        a->type = ATTR_FLOAT;
        a->f = strtof(s, &end);
    } else {
        a->type = ATTR_INT;
        a->i = strtoll(s, &end, 10);
    }
}

static void add_attrs(const struct op_case *c, const char *text, struct graph *g, uint32_t node)
{
    char copy[256], *save = NULL;

    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        bad(c, text);
    for (char *s = strtok_r(copy, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
        char *is = strchr(s, '=');
        struct attr a = {.name = s};
        struct tensor t = {.dtype = DT_FP32, .bytes = sizeof(float)};
        struct attr_text words[16];
        int64_t ints[16];
        if (!is)
            bad(c, s);
        *is = 0;
        t.data = arena_alloc(&g->arena, sizeof(float));
        read_value(c, is + 1, &a, ints, words, &t);
        if (graph_add_attr(g, node, &a) < 0)
            bad(c, s);
    }
}

void case_attrs(const struct op_case *c, struct graph *g, uint32_t node)
{
    if (c->attrs)
        add_attrs(c, c->attrs, g, node);
}

/* ---- nodes in front of it */
static uint32_t constant(const struct op_case *c, const char *text, struct graph *g)
{
    struct case_input in;
    struct tensor t = {0};
    int64_t dims[MAX_RANK];
    char name[24];
    uint32_t v;

    (void)snprintf(name, sizeof(name), "before%u", g->n_values);
    if (*read_input(c, text, &in))
        bad(c, text);
    for (uint32_t d = 0; d < in.rank; d++)
        dims[d] = in.dims[d].scale;
    if (tensor_shape(&t, in.dtype, in.rank, dims) < 0 ||
        !(t.data = arena_alloc(&g->arena, t.bytes + 1)))
        bad(c, text);
    case_fill(&in, 0, &t);
    if (graph_add_const(g, name, &t, CONST_ARENA, &v) < 0)
        bad(c, text);
    return v;
}

uint32_t case_before(const struct op_case *c, struct graph *g, uint32_t v)
{
    char copy[256], name[24], *save = NULL;
    uint32_t in[2] = {v, VALUE_NONE}, node;

    if (snprintf(copy, sizeof(copy), "%s", c->before ? c->before : "") >= (int)sizeof(copy))
        bad(c, c->before);
    for (char *s = strtok_r(copy, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
        size_t len = strcspn(s, ":");
        const char *with = s[len] ? s + len + 1 : s + len;
        bool operand = with[0] == 'c' && type_of(with[1]) != DT_NONE && with[2] == '[';
        in[1] = operand ? constant(c, with, g) : VALUE_NONE;
        (void)snprintf(name, sizeof(name), "before%u", g->n_values);
        if (graph_add_value(g, name, DT_NONE, -1, NULL, &v) < 0 ||
            graph_add_node(g, name, op_find(s, len), 1 + operand, in, 1, &v, &node) < 0)
            bad(c, s);
        if (!operand)
            add_attrs(c, with, g, node);
        in[0] = v;
    }
    return in[0];
}

uint32_t case_posts(const struct op_case *c, struct post ret[MAX_POST])
{
    static const char *const names[] = {
        [POST_ADD] = "add",   [POST_RELU] = "relu",           [POST_CLIP] = "clip",
        [POST_GELU] = "gelu", [POST_TANH] = "tanh",           [POST_SIGMOID] = "sigmoid",
        [POST_SILU] = "silu", [POST_HARDSWISH] = "hardswish", [POST_GELU_TANH] = "gelutanh"};
    char copy[64], *save = NULL;
    uint32_t n = 0;

    (void)snprintf(copy, sizeof(copy), "%s", c->posts ? c->posts : "");
    for (char *s = strtok_r(copy, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
        char name[16];
        unsigned kind = 0;
        struct post p = {.value = VALUE_NONE};
        if (n == MAX_POST || sscanf(s, "%15[a-z]:%f:%f", name, &p.alpha, &p.beta) < 1)
            bad(c, s);
        while (kind < ARRAY_SIZE(names) && !STREQ(names[kind], name))
            kind++;
        if (kind == ARRAY_SIZE(names))
            bad(c, s);
        p.kind = (enum post_kind)kind;
        ret[n++] = p;
    }
    return n;
}

/* ---- values */
/* splitmix64: the same numbers on every machine. */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void case_fill_range(struct tensor *t, double lo, double hi, uint64_t seed)
{
    enum kind k = ref_kind(t->dtype);
    int64_t n = ref_count(t);

    for (int64_t i = 0; i < n; i++) {
        double v = lo + (hi - lo) * ((double)(next(&seed) >> 11) * 0x1p-53);
        num_put(t, i, num_cast((union num){.f = v}, KIND_FLOAT, k == KIND_BOOL ? KIND_UINT : k));
    }
}

void case_fill(const struct case_input *in, uint64_t seed, struct tensor *t)
{
    const char *s = in->values;
    int64_t n = ref_count(t);

    if (!s) {
        case_fill_range(t, in->lo, in->hi, seed);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        char *end;
        double v = strtod(s, &end);
        num_put(t, i, num_cast((union num){.f = v}, KIND_FLOAT, ref_kind(t->dtype)));
        if (*end == ',')
            s = end + 1; /* the last value repeats */
    }
}

double case_difference(const struct tensor *got, const struct tensor *want)
{
    enum kind k = ref_kind(want->dtype);
    double top = 0, worst = 0;
    int64_t n = ref_count(want);

    if (got->dtype != want->dtype || got->bytes != want->bytes)
        return (double)INFINITY;
    if (k != KIND_FLOAT)
        return want->bytes == 0 || memcmp(got->data, want->data, want->bytes) == 0
                   ? 0
                   : (double)INFINITY;
    for (int64_t i = 0; i < n; i++) {
        double a = num_get(got, i).f, b = num_get(want, i).f;
        if (isfinite(a) && isfinite(b)) {
            top = fmax(top, fabs(b));
            worst = fmax(worst, fabs(a - b));
        } else if (!(isnan(a) && isnan(b)) && a != b) {
            return (double)INFINITY;
        }
    }
    return worst == 0 ? 0 : worst / top;
}
