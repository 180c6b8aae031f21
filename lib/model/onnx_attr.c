/* Attributes of nodes, and Constant nodes, whose one attribute is their value. */
#include "onnx.h"
#include <stdio.h>

#define MAX_ATTR_ELEMS 65536

struct raw_attr {
    struct pb msg, name, s, t, g, ref;
    uint64_t type, i;
    float f;
    size_t n_ints, n_floats, n_strings;
    uint32_t seen; /* a bit for each field number below 32 */
};

enum { A_NAME = 1, A_F, A_I, A_S, A_T, A_G, A_FLOATS, A_INTS, A_STRINGS, A_TYPE = 20, A_REF };
enum { AT_FLOAT = 1, AT_INT, AT_STRING, AT_TENSOR, AT_GRAPH, AT_FLOATS, AT_INTS, AT_STRINGS };

static int attr_scan(struct reading *s, struct pb msg, struct raw_attr *a)
{
    struct pb walk = msg;
    struct pb_field f;
    int more, rc = 0;

    *a = (struct raw_attr){.msg = msg};
    while (rc == 0 && (more = pb_next(&walk, &f)) > 0) {
        uint32_t u32 = (uint32_t)f.u;
        a->seen |= f.num < 32 ? 1u << f.num : 0;
        switch (f.num) {
        case A_NAME:
            a->name = f.bytes;
            break;
        case A_F:
            memcpy(&a->f, &u32, sizeof(a->f));
            break;
        case A_I:
            a->i = f.u;
            break;
        case A_S:
            a->s = f.bytes;
            break;
        case A_T:
            a->t = f.bytes;
            break;
        case A_G:
            a->g = f.bytes;
            break;
        case A_REF:
            a->ref = f.bytes;
            break;
        case A_FLOATS:
            rc = pb_numbers(&f, PB_FIXED32, NULL, MAX_ATTR_ELEMS, &a->n_floats);
            break;
        case A_INTS:
            rc = pb_numbers(&f, PB_VARINT, NULL, MAX_ATTR_ELEMS, &a->n_ints);
            break;
        case A_STRINGS:
            a->n_strings++;
            if (f.wire != PB_BYTES)
                rc = -EINVAL;
            else if (a->n_strings > MAX_ATTR_ELEMS)
                rc = -E2BIG;
            break;
        case A_TYPE:
            a->type = f.u;
            break;
        default:
            break;
        }
    }
    if (rc == -E2BIG)
        return err_set(s->r->err, -EINVAL, "an attribute with more than %d elements",
                       MAX_ATTR_ELEMS);
    return rc < 0 || more < 0 ? onnx_broken(s->r, "an attribute") : 0;
}

/* An AttributeProto by its name, among the fields `field`. */
static bool find_attr(struct pb msg, uint32_t field, struct pb name, struct pb *ret)
{
    struct pb_field f, sub;

    while (pb_next(&msg, &f) > 0) {
        struct pb walk = f.bytes;
        while (f.num == field && pb_next(&walk, &sub) > 0)
            if (sub.num == A_NAME && pb_size(sub.bytes) == pb_size(name) &&
                memcmp(sub.bytes.p, name.p, pb_size(name)) == 0) {
                *ret = f.bytes;
                return true;
            }
    }
    return false;
}

/* Files older than IR 2 have no type; what is there tells it. */
static uint64_t attr_type(const struct raw_attr *a)
{
    static const struct {
        uint32_t field, type;
    } by_field[] = {{A_T, AT_TENSOR},      {A_G, AT_GRAPH},   {A_STRINGS, AT_STRINGS},
                    {A_FLOATS, AT_FLOATS}, {A_INTS, AT_INTS}, {A_S, AT_STRING},
                    {A_F, AT_FLOAT},       {A_I, AT_INT}};

    for (size_t i = 0; !a->type && i < ARRAY_SIZE(by_field); i++)
        if (a->seen & 1u << by_field[i].field)
            return by_field[i].type;
    return a->type;
}

/* The numbers of a list attribute as 64-bit words; n of them are known to be there. */
static uint64_t *attr_words(struct reading *s, const struct raw_attr *a, uint32_t field,
                            enum pb_wire wire, size_t n)
{
    uint64_t *words = ARENA_ARRAY(&s->g->arena, uint64_t, n);
    struct pb walk = a->msg;
    struct pb_field f;
    size_t at = 0;

    while (words && pb_next(&walk, &f) > 0)
        if (f.num == field)
            (void)pb_numbers(&f, wire, words, n, &at);
    return words;
}

static int attr_list(struct reading *s, const struct raw_attr *a, bool ints, struct attr *ret)
{
    size_t n = ints ? a->n_ints : a->n_floats;
    uint64_t *words = attr_words(s, a, ints ? A_INTS : A_FLOATS, ints ? PB_VARINT : PB_FIXED32, n);

    if (!words)
        return onnx_no_memory(s->r, -ENOMEM);
    ret->n = (uint32_t)n;
    ret->type = ints ? ATTR_INTS : ATTR_FLOATS;
    if (ints) {
        ret->ints = (const int64_t *)words;
        return 0;
    }
    float *floats = (float *)words; /* in place: word i lies behind float i */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)words[i];
        memcpy(&floats[i], &bits, sizeof(bits));
    }
    ret->floats = floats;
    return 0;
}

/* graph_add_attr() copies the text, and ends it. */
static int attr_texts(struct reading *s, const struct raw_attr *a, struct attr *ret)
{
    struct attr_text *strs = ARENA_ARRAY(&s->g->arena, struct attr_text, a->n_strings);
    struct pb walk = a->msg;
    struct pb_field f;

    if (!strs)
        return onnx_no_memory(s->r, -ENOMEM);
    while (pb_next(&walk, &f) > 0)
        if (f.num == A_STRINGS)
            strs[ret->n++] = (struct attr_text){(const char *)f.bytes.p,
                                                (uint32_t)MIN(pb_size(f.bytes), UINT32_MAX - 1)};
    ret->type = ATTR_STRINGS;
    ret->strs = strs;
    return 0;
}

static int attr_tensor(struct reading *s, const struct raw_attr *a, struct read_tensor *t)
{
    char what[WHAT_PRINT];

    return onnx_tensor(s->r, a->t, onnx_what("attribute", a->name, what, sizeof(what)), t);
}

static int attr_body(struct reading *s, const struct raw_attr *a, struct attr *ret)
{
    struct body *b = ARENA_NEW(&s->g->arena, struct body);
    char what[WHAT_PRINT];

    if (!b)
        return onnx_no_memory(s->r, -ENOMEM);
    ret->type = ATTR_GRAPH;
    ret->body = b;
    if (onnx_read_body(s, a->g, b) < 0)
        return err_wrap(s->r->err, "%s: ", onnx_what("attribute", a->name, what, sizeof(what)));
    return 0;
}

/* Follow a reference to an attribute of the call.  1: it is there; 0: the call leaves it out. */
static int attr_deref(struct reading *s, struct raw_attr *a)
{
    const struct call *call = s->call;

    for (; a->seen & 1u << A_REF; call = call->caller->call) {
        struct pb found = {0}, name = a->name;
        char what[WHAT_PRINT];
        if (!call)
            return err_set(s->r->err, -EINVAL, "%s refers to a function's, outside of one",
                           onnx_what("attribute", name, what, sizeof(what)));
        if (!find_attr(call->node, 5, a->ref, &found) && !find_attr(call->fn, 11, a->ref, &found))
            return 0;
        int rc = attr_scan(s, found, a);
        if (rc < 0)
            return rc;
        a->name = name;
        if (attr_type(a) == AT_GRAPH)
            return err_set(s->r->err, -ENOTSUP, "%s: a body handed to a function is not supported",
                           onnx_what("attribute", name, what, sizeof(what)));
    }
    return 1;
}

static int attr_convert(struct reading *s, const struct raw_attr *a, struct attr *ret)
{
    char what[WHAT_PRINT];
    struct read_tensor *t;

    switch (attr_type(a)) {
    case AT_FLOAT:
        ret->type = ATTR_FLOAT;
        ret->f = a->f;
        return 0;
    case AT_INT:
        ret->type = ATTR_INT;
        ret->i = (int64_t)a->i;
        return 0;
    case AT_STRING:
        ret->type = ATTR_STRING;
        ret->n = (uint32_t)MIN(pb_size(a->s), UINT32_MAX - 1);
        ret->s = a->s.p ? (const char *)a->s.p : "";
        return 0;
    case AT_FLOATS:
    case AT_INTS:
        return attr_list(s, a, attr_type(a) == AT_INTS, ret);
    case AT_STRINGS:
        return attr_texts(s, a, ret);
    case AT_TENSOR:
        t = ARENA_NEW(&s->g->arena, struct read_tensor);
        ret->type = ATTR_TENSOR;
        ret->t = t ? &t->t : NULL;
        return t ? attr_tensor(s, a, t) : onnx_no_memory(s->r, -ENOMEM);
    case AT_GRAPH:
        return attr_body(s, a, ret);
    default:
        return err_set(s->r->err, -ENOTSUP, "%s: type %llu is not supported",
                       onnx_what("attribute", a->name, what, sizeof(what)),
                       (unsigned long long)attr_type(a));
    }
}

/* What the body captures becomes inputs of the node; body->outer then says which. */
static int add_captured(struct reading *s, uint32_t node, struct body *b)
{
    struct node *n = &s->g->nodes[node];
    uint32_t *in = arena_array(&s->g->arena, (size_t)n->n_in + b->n_captured, sizeof(*in));
    uint32_t *outer = ARENA_ARRAY(&s->g->arena, uint32_t, b->n_captured);

    if (!in || !outer)
        return onnx_no_memory(s->r, -ENOMEM);
    if (n->n_in)
        memcpy(in, n->in, n->n_in * sizeof(*in));
    for (uint32_t i = 0; i < b->n_captured; i++) {
        in[n->n_in + i] = b->outer[i];
        outer[i] = n->n_in + i;
    }
    b->outer = outer;
    n->in = in;
    n->n_in += b->n_captured;
    return 0;
}

int onnx_read_attr(struct reading *s, struct pb msg, uint32_t node)
{
    struct attr a = {0};
    struct raw_attr raw;
    int rc = attr_scan(s, msg, &raw);

    if (rc < 0)
        return rc;
    if (!(a.name = onnx_name(s, raw.name, "attribute")))
        return s->r->err->code;
    if (node_attr(&s->g->nodes[node], a.name))
        return err_set(s->r->err, -EINVAL, "attribute '%.64s' twice", a.name);
    if ((rc = attr_deref(s, &raw)) <= 0)
        return rc;
    if ((rc = attr_convert(s, &raw, &a)) < 0)
        return rc;
    if (a.type == ATTR_GRAPH && (rc = add_captured(s, node, (struct body *)a.body)) < 0)
        return rc;
    rc = graph_add_attr(s->g, node, &a);
    return rc < 0 ? onnx_no_memory(s->r, rc) : 0;
}

/* ---- Constant nodes */

static int scalar_or_list(struct reading *s, const struct raw_attr *a, struct read_tensor *t)
{
    uint64_t type = attr_type(a);
    bool list = type == AT_INTS || type == AT_FLOATS, ints = type == AT_INTS || type == AT_INT;
    enum dtype dtype = ints ? DT_INT64 : DT_FP32;
    struct attr c = {0};
    const int64_t n = (int64_t)(ints ? a->n_ints : a->n_floats);
    int rc = attr_convert(s, a, &c);

    if (rc < 0)
        return rc;
    (void)tensor_shape(&t->t, dtype, list, &n);
    const void *data = list ? (ints ? (const void *)c.ints : (const void *)c.floats)
                            : (ints ? (const void *)&c.i : (const void *)&c.f);
    t->t.data = arena_memdup(&s->g->arena, data, t->t.bytes);
    t->source = CONST_ARENA;
    return t->t.data ? 0 : onnx_no_memory(s->r, -ENOMEM);
}

/* value_string and value_strings, in wire form. */
static int string_const(struct reading *s, const struct raw_attr *a, struct read_tensor *t)
{
    uint32_t field = attr_type(a) == AT_STRINGS ? A_STRINGS : A_S;
    struct pb walk = a->msg;
    struct pb_field f;
    int64_t n = 0;
    uint8_t *p = arena_alloc(&s->g->arena, pb_size(a->msg) * sizeof(uint32_t)); /* enough */

    if (!p)
        return onnx_no_memory(s->r, -ENOMEM);
    t->t = (struct tensor){.data = p};
    while (pb_next(&walk, &f) > 0)
        if (f.num == field && f.wire == PB_BYTES && pb_size(f.bytes) <= UINT32_MAX) {
            uint32_t len = (uint32_t)pb_size(f.bytes);
            memcpy(p, &len, sizeof(len));
            if (len)
                memcpy(p + sizeof(len), f.bytes.p, len);
            p += sizeof(len) + len;
            n++;
        }
    (void)tensor_shape(&t->t, DT_STRING, field == A_STRINGS, &n);
    t->t.bytes = (size_t)(p - (uint8_t *)t->t.data);
    t->source = CONST_ARENA;
    return 0;
}

static int constant_value(struct reading *s, const struct raw_attr *a, struct read_tensor *t)
{
    switch (attr_type(a)) {
    case AT_TENSOR:
        return attr_tensor(s, a, t);
    case AT_FLOAT:
    case AT_INT:
    case AT_FLOATS:
    case AT_INTS:
        return scalar_or_list(s, a, t);
    case AT_STRING:
    case AT_STRINGS:
        return string_const(s, a, t);
    default:
        return err_set(s->r->err, -ENOTSUP, "a value of type %llu is not supported",
                       (unsigned long long)attr_type(a));
    }
}

int onnx_read_constant(struct reading *s, const struct raw_node *n, struct pb out)
{
    struct read_tensor t = {0};
    struct raw_attr a = {0};
    struct pb walk = n->msg;
    struct pb_field f;

    if (n->n_attr != 1 || n->n_in || n->n_out != 1)
        return err_set(s->r->err, -EINVAL, "%u attributes, %u inputs, %u outputs (1, 0, 1)",
                       n->n_attr, n->n_in, n->n_out);
    while (pb_next(&walk, &f) > 0)
        if (f.num == 5) {
            int rc = attr_scan(s, f.bytes, &a);
            if (rc < 0 || (rc = attr_deref(s, &a)) < 0)
                return rc;
            if (rc == 0)
                return err_set(s->r->err, -EINVAL, "the call gives it no value");
        }
    int rc = constant_value(s, &a, &t);
    return rc < 0 ? rc : onnx_add_const(s, out, "output", &t);
}
