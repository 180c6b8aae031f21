/* ModelProto to graph, straight from the mapped file.
 *
 * Order of reading: initializers (they become constants), inputs (those that are no
 * initializer), nodes (first their results, so that every name is known; Constant nodes become
 * constants), then the nodes again, each after the producers of its inputs, and the outputs.
 * value_info and whatever else is in the file is not looked at: shapes are inferred.
 *
 * Nothing here recurses: subgraphs are refused, producers are followed with an own stack. */
#include "onnx.h"
#include "names.h"
#include <stdio.h>
#include <sys/mman.h>

#define IR_MIN 3
#define IR_MAX 13
#define MAX_FILE_NODES 200000
#define MAX_NODE_ATTRS 64
#define MAX_ATTR_NUMBERS 65536

struct raw_node {        /* a NodeProto that waits for its producers */
    struct pb msg, left; /* left: fields not yet looked at by waits_for() */
    struct pb name, op_name, domain;
    enum op_id op;
    uint32_t index; /* in the file, for messages */
    uint32_t n_in, n_out, n_attr;
    uint8_t state; /* 0 waiting, 1 its producers are being visited, 2 in the graph */
};

struct reading {
    struct reader r;
    struct names names;
    struct pb graph;
    uint64_t ir;
    int64_t opset;
    struct raw_node *nodes;
    uint32_t n_nodes;
    uint32_t *maker; /* value id -> raw node, NODE_NONE for the others */
    size_t cap_maker;
};

const char *pb_print(struct pb s, char *buf, size_t size)
{
    size_t n = MIN(pb_size(s), size - 1);

    if (n)
        memcpy(buf, s.p, n);
    buf[n] = 0;
    return buf;
}

int onnx_broken(struct reader *r, const char *what)
{
    return err_set(r->err, -EINVAL, "%s: broken bytes", what);
}

static int no_memory(struct reader *r, int rc)
{
    if (rc == -E2BIG)
        return err_set(r->err, -EINVAL, "the model has too many nodes, values or arguments");
    return err_set(r->err, rc, "out of memory");
}

/* "initializer 'w'" into buf. */
static const char *what_name(const char *kind, struct pb name, char *buf, size_t size)
{
    char part[NAME_PRINT];

    (void)snprintf(buf, size, "%s '%s'", kind, pb_print(name, part, sizeof(part)));
    return buf;
}

/* "node 12 'conv1' (Conv): " in front of the message. */
static int node_wrap(struct reading *s, const struct raw_node *n)
{
    char name[NAME_PRINT], op[NAME_PRINT];

    return err_wrap(s->r.err, "node %u '%s' (%s): ", n->index,
                    pb_print(n->name, name, sizeof(name)), pb_print(n->op_name, op, sizeof(op)));
}

/* A C string of a name in the file; names with a NUL inside are refused. */
static const char *name_copy(struct reading *s, struct pb name, const char *kind)
{
    char buf[NAME_PRINT + 32];
    char *copy = NULL;

    if (pb_size(name) && memchr(name.p, 0, pb_size(name)))
        (void)err_set(s->r.err, -EINVAL, "%s: a NUL in its name",
                      what_name(kind, name, buf, sizeof(buf)));
    else if (!(copy = arena_strndup(&s->r.g->arena, (const char *)name.p, pb_size(name))))
        (void)no_memory(&s->r, -ENOMEM);
    return copy;
}

/* Make the name known.  `maker` is the raw node that computes the value, or NODE_NONE. */
static int value_name(struct reading *s, struct pb name, const char *kind, uint32_t id,
                      uint32_t maker)
{
    char buf[NAME_PRINT + 32];
    int rc = names_add(&s->names, name, id);

    if (rc == -EEXIST)
        return err_set(s->r.err, -EINVAL, "%s: this name is taken",
                       what_name(kind, name, buf, sizeof(buf)));
    if (rc == 0 && id >= s->cap_maker) {
        size_t cap = MAX(s->cap_maker * 2, (size_t)id + 256);
        uint32_t *grown = realloc(s->maker, cap * sizeof(*grown));
        if (!grown)
            return no_memory(&s->r, -ENOMEM);
        s->maker = grown;
        s->cap_maker = cap;
    }
    if (rc < 0)
        return no_memory(&s->r, rc);
    s->maker[id] = maker;
    return 0;
}

static int add_const(struct reading *s, struct pb name, const char *kind,
                     const struct read_tensor *t)
{
    const char *copy = name_copy(s, name, kind);
    uint32_t id;

    if (!copy)
        return s->r.err->code;
    int rc = graph_add_const(s->r.g, copy, &t->t, t->source, &id);
    return rc < 0 ? no_memory(&s->r, rc) : value_name(s, name, kind, id, NODE_NONE);
}

static int read_initializer(struct reading *s, struct pb msg)
{
    struct pb walk = msg, name = {0};
    char what[NAME_PRINT + 32];
    struct read_tensor t;
    struct pb_field f;

    while (pb_next(&walk, &f) > 0) /* the name first: messages need it */
        if (f.num == 8)
            name = f.bytes;
    if (pb_size(name) == 0)
        return err_set(s->r.err, -EINVAL, "an initializer without a name");
    int rc = onnx_tensor(&s->r, msg, what_name("initializer", name, what, sizeof(what)), &t);
    return rc < 0 ? rc : add_const(s, name, "initializer", &t);
}

/* ---- inputs */

static int read_dim(struct reading *s, struct pb msg, const char *input, uint32_t at,
                    struct dim *ret)
{
    struct pb param = {0};
    struct pb_field f;
    int64_t value = -1;
    int more;

    while ((more = pb_next(&msg, &f)) > 0) {
        if (f.num == 1 && f.wire == PB_VARINT)
            value = (int64_t)f.u;
        else if (f.num == 2)
            param = f.bytes;
    }
    if (more < 0)
        return onnx_broken(&s->r, "a dimension");
    if (value < -1 || value > MAX_DIM)
        return err_set(s->r.err, -EINVAL, "dimension %u is %lld (0 to %lld)", at, (long long)value,
                       (long long)MAX_DIM);
    *ret = (struct dim){.scale = value, .sym = SYM_CONST};
    if (value >= 0)
        return 0;
    const char *name = pb_size(param) ? name_copy(s, param, "dimension")
                                      : arena_printf(&s->r.g->arena, "%s.%u", input, at);
    if (!name)
        return pb_size(param) ? s->r.err->code : no_memory(&s->r, -ENOMEM);
    ret->scale = 1;
    int rc = graph_add_sym(s->r.g, name, &ret->sym);
    if (rc == -E2BIG)
        return err_set(s->r.err, -ENOTSUP, "free dimension '%.64s': a model may have %d of them",
                       name, MAX_SYMS);
    return rc < 0 ? no_memory(&s->r, rc) : 0;
}

static int read_shape(struct reading *s, struct pb msg, const char *input, struct dim *dims,
                      int32_t *rank)
{
    struct pb_field f;
    int more;

    *rank = 0;
    while ((more = pb_next(&msg, &f)) > 0) {
        if (f.num != 1)
            continue;
        if (*rank == MAX_RANK)
            return err_set(s->r.err, -EINVAL, "more than %d dimensions", MAX_RANK);
        int rc = read_dim(s, f.bytes, input, (uint32_t)*rank, &dims[*rank]);
        if (rc < 0)
            return rc;
        ++*rank;
    }
    return more < 0 ? onnx_broken(&s->r, "its shape") : 0;
}

/* The bytes of field `num` in a message: the last one counts; *found says whether there is one. */
static int sub_message(struct reading *s, struct pb msg, uint32_t num, struct pb *ret, bool *found)
{
    struct pb_field f;
    int more;

    *found = false;
    while ((more = pb_next(&msg, &f)) > 0)
        if (f.num == num && f.wire == PB_BYTES) {
            *ret = f.bytes;
            *found = true;
        }
    return more < 0 ? onnx_broken(&s->r, "its type") : 0;
}

static int read_type(struct reading *s, struct pb info, const char *name, uint64_t *dtype,
                     struct dim *dims, int32_t *rank)
{
    struct pb type = {0}, tensor = {0}, shape = {0}, walk;
    struct pb_field f;
    bool found;
    int rc;

    *dtype = 0;
    if ((rc = sub_message(s, info, 2, &type, &found)) < 0 ||
        (rc = sub_message(s, type, 1, &tensor, &found)) < 0)
        return rc;
    if (!found)
        return err_set(s->r.err, -ENOTSUP, "is not a tensor");
    for (walk = tensor; pb_next(&walk, &f) > 0;)
        if (f.num == 1)
            *dtype = f.u;
    if (*dtype >= DT_END || STREQ(dtype_name((enum dtype) * dtype), "?"))
        return err_set(s->r.err, -ENOTSUP, "element type %llu is not supported",
                       (unsigned long long)*dtype);
    if ((rc = sub_message(s, tensor, 2, &shape, &found)) < 0)
        return rc;
    if (!found)
        return err_set(s->r.err, -ENOTSUP, "has no shape, not even a rank");
    return read_shape(s, shape, name, dims, rank);
}

static int read_input(struct reading *s, struct pb msg)
{
    char what[NAME_PRINT + 32];
    struct graph *g = s->r.g;
    struct pb name = {0};
    struct dim dims[MAX_RANK];
    uint64_t dtype;
    uint32_t id;
    int32_t rank;
    bool found;
    int rc = sub_message(s, msg, 1, &name, &found);

    if (rc < 0)
        return rc;
    if (names_find(&s->names, name, &id) && g->values[id].constant)
        return 0; /* before IR 4, initializers are listed among the inputs */
    if (pb_size(name) == 0)
        return err_set(s->r.err, -EINVAL, "an input without a name");
    const char *copy = name_copy(s, name, "input");
    if (!copy)
        return s->r.err->code;
    (void)what_name("input", name, what, sizeof(what));
    if (read_type(s, msg, copy, &dtype, dims, &rank) < 0)
        return err_wrap(s->r.err, "%s: ", what);
    if (g->n_in == MAX_IO)
        return err_set(s->r.err, -EINVAL, "%s: a model may have %d inputs", what, MAX_IO);
    if ((rc = graph_add_value(g, copy, (enum dtype)dtype, rank, dims, &id)) < 0)
        return no_memory(&s->r, rc);
    g->in[g->n_in++] = id;
    return value_name(s, name, "input", id, NODE_NONE);
}

/* ---- attributes */

struct raw_attr {
    struct pb msg, name, s, t;
    uint64_t type, i;
    float f;
    size_t n_ints, n_floats;
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
        case A_FLOATS:
            rc = pb_numbers(&f, PB_FIXED32, NULL, MAX_ATTR_NUMBERS, &a->n_floats);
            break;
        case A_INTS:
            rc = pb_numbers(&f, PB_VARINT, NULL, MAX_ATTR_NUMBERS, &a->n_ints);
            break;
        case A_TYPE:
            a->type = f.u;
            break;
        default:
            break;
        }
    }
    if (rc == -E2BIG)
        return err_set(s->r.err, -EINVAL, "an attribute with more than %d numbers",
                       MAX_ATTR_NUMBERS);
    return rc < 0 || more < 0 ? onnx_broken(&s->r, "an attribute") : 0;
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
    uint64_t *words = ARENA_ARRAY(&s->r.g->arena, uint64_t, n);
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
        return no_memory(&s->r, -ENOMEM);
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

static int attr_tensor(struct reading *s, const struct raw_attr *a, struct read_tensor *t)
{
    char what[NAME_PRINT + 32];

    return onnx_tensor(&s->r, a->t, what_name("attribute", a->name, what, sizeof(what)), t);
}

static int attr_convert(struct reading *s, const struct raw_attr *a, struct attr *ret)
{
    char what[NAME_PRINT + 32];
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
    case AT_TENSOR:
        t = ARENA_NEW(&s->r.g->arena, struct read_tensor);
        ret->type = ATTR_TENSOR;
        ret->t = t ? &t->t : NULL;
        return t ? attr_tensor(s, a, t) : no_memory(&s->r, -ENOMEM);
    case AT_GRAPH:
        return err_set(s->r.err, -ENOTSUP, "%s: subgraphs are not supported",
                       what_name("attribute", a->name, what, sizeof(what)));
    default:
        return err_set(s->r.err, -ENOTSUP, "%s: type %llu is not supported",
                       what_name("attribute", a->name, what, sizeof(what)),
                       (unsigned long long)attr_type(a));
    }
}

static int read_attr(struct reading *s, struct pb msg, uint32_t node)
{
    struct attr a = {0};
    struct raw_attr raw;
    int rc = attr_scan(s, msg, &raw);

    if (rc < 0)
        return rc;
    if (!(a.name = name_copy(s, raw.name, "attribute")))
        return s->r.err->code;
    if (node_attr(&s->r.g->nodes[node], a.name))
        return err_set(s->r.err, -EINVAL, "attribute '%.64s' twice", a.name);
    if (raw.seen & 1u << A_REF)
        return err_set(s->r.err, -ENOTSUP, "attribute '%.64s' refers to a function's", a.name);
    if ((rc = attr_convert(s, &raw, &a)) < 0)
        return rc;
    rc = graph_add_attr(s->r.g, node, &a);
    return rc < 0 ? no_memory(&s->r, rc) : 0;
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
    t->t.data = arena_memdup(&s->r.g->arena, data, t->t.bytes);
    t->source = CONST_ARENA;
    return t->t.data ? 0 : no_memory(&s->r, -ENOMEM);
}

/* value_string and value_strings, in wire form. */
static int string_const(struct reading *s, const struct raw_attr *a, struct read_tensor *t)
{
    uint32_t field = attr_type(a) == AT_STRINGS ? A_STRINGS : A_S;
    struct pb walk = a->msg;
    struct pb_field f;
    int64_t n = 0;
    uint8_t *p = arena_alloc(&s->r.g->arena, pb_size(a->msg) * sizeof(uint32_t)); /* enough */

    if (!p)
        return no_memory(&s->r, -ENOMEM);
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
        return err_set(s->r.err, -ENOTSUP, "a value of type %llu is not supported",
                       (unsigned long long)attr_type(a));
    }
}

static int read_constant_node(struct reading *s, const struct raw_node *n, struct pb out)
{
    struct read_tensor t = {0};
    struct raw_attr a = {0};
    struct pb walk = n->msg;
    struct pb_field f;

    if (n->n_attr != 1 || n->n_in || n->n_out != 1)
        return err_set(s->r.err, -EINVAL, "%u attributes, %u inputs, %u outputs (1, 0, 1)",
                       n->n_attr, n->n_in, n->n_out);
    while (pb_next(&walk, &f) > 0)
        if (f.num == 5) {
            int rc = attr_scan(s, f.bytes, &a);
            if (rc < 0)
                return rc;
        }
    int rc = constant_value(s, &a, &t);
    return rc < 0 ? rc : add_const(s, out, "output", &t);
}

/* ---- nodes */

static int node_check(struct reading *s, struct raw_node *n)
{
    static const struct pb ai_onnx = {(const uint8_t *)"ai.onnx", (const uint8_t *)"ai.onnx" + 7};
    size_t len = pb_size(n->domain);
    char buf[NAME_PRINT];

    if (len && (len != 7 || memcmp(n->domain.p, ai_onnx.p, 7) != 0))
        return err_set(s->r.err, -ENOTSUP, "operators of domain '%s' are not supported",
                       pb_print(n->domain, buf, sizeof(buf)));
    n->op = op_find((const char *)n->op_name.p, pb_size(n->op_name));
    if (n->op == OP_NONE)
        return err_set(s->r.err, -ENOTSUP, "operator is not supported");
    if (n->n_attr > MAX_NODE_ATTRS)
        return err_set(s->r.err, -EINVAL, "%u attributes (at most %d)", n->n_attr, MAX_NODE_ATTRS);
    return 0;
}

static int node_scan(struct reading *s, struct pb msg, struct raw_node *n)
{
    struct pb_field f;
    int more;

    n->msg = n->left = msg;
    while ((more = pb_next(&msg, &f)) > 0) {
        n->n_in += f.num == 1;
        n->n_out += f.num == 2;
        n->n_attr += f.num == 5;
        if (f.num == 3)
            n->name = f.bytes;
        else if (f.num == 4)
            n->op_name = f.bytes;
        else if (f.num == 7)
            n->domain = f.bytes;
        if (f.num <= 7 && f.wire != PB_BYTES)
            return onnx_broken(&s->r, "the node");
    }
    return more < 0 ? onnx_broken(&s->r, "the node") : node_check(s, n);
}

/* Name the results of a node, so that nodes may refer to them in any order. */
static int node_outputs(struct reading *s, const struct raw_node *n)
{
    struct pb walk = n->msg;
    struct pb_field f;
    uint32_t id;

    while (pb_next(&walk, &f) > 0) {
        if (f.num != 2 || pb_size(f.bytes) == 0)
            continue;
        if (n->op == OP_Constant)
            return read_constant_node(s, n, f.bytes);
        const char *copy = name_copy(s, f.bytes, "output");
        if (!copy)
            return s->r.err->code;
        int rc = graph_add_value(s->r.g, copy, DT_NONE, -1, NULL, &id);
        if (rc < 0)
            return no_memory(&s->r, rc);
        if ((rc = value_name(s, f.bytes, "output", id, (uint32_t)(n - s->nodes))) < 0)
            return rc;
    }
    return 0;
}

/* Value ids of the node's inputs or outputs (field 1 or 2) into ids. */
static int node_ids(struct reading *s, const struct raw_node *n, uint32_t field, uint32_t *ids)
{
    char buf[NAME_PRINT + 32];
    struct pb walk = n->msg;
    struct pb_field f;

    while (pb_next(&walk, &f) > 0) {
        if (f.num != field)
            continue;
        if (pb_size(f.bytes) == 0)
            *ids = VALUE_NONE;
        else if (!names_find(&s->names, f.bytes, ids))
            return err_set(s->r.err, -EINVAL, "%s is defined nowhere",
                           what_name("input", f.bytes, buf, sizeof(buf)));
        ids++;
    }
    return 0;
}

static int node_attrs(struct reading *s, const struct raw_node *n, uint32_t id)
{
    struct pb walk = n->msg;
    struct pb_field f;

    while (pb_next(&walk, &f) > 0)
        if (f.num == 5) {
            int rc = read_attr(s, f.bytes, id);
            if (rc < 0)
                return rc;
        }
    return 0;
}

static int node_add(struct reading *s, struct raw_node *n)
{
    struct arena *a = &s->r.g->arena;
    uint32_t *in = ARENA_ARRAY(a, uint32_t, n->n_in), *out = ARENA_ARRAY(a, uint32_t, n->n_out);
    uint32_t n_in = n->n_in, id;
    int rc;

    n->state = 2;
    if (n->op == OP_Constant)
        return 0; /* is a value since node_outputs() */
    if (!in || !out)
        return no_memory(&s->r, -ENOMEM);
    if ((rc = node_ids(s, n, 1, in)) < 0 || (rc = node_ids(s, n, 2, out)) < 0)
        return rc;
    while (n_in && in[n_in - 1] == VALUE_NONE)
        n_in--; /* omitted at the end: as if not there */
    const char *name = name_copy(s, n->name, "node");
    if (!name)
        return s->r.err->code;
    rc = graph_add_node(s->r.g, name, n->op, n_in, in, n->n_out, out, &id);
    return rc < 0 ? no_memory(&s->r, rc) : node_attrs(s, n, id);
}

/* The first producer of the node's inputs that is not in the graph yet; NODE_NONE: all are. */
static uint32_t waits_for(const struct reading *s, struct raw_node *n)
{
    struct pb_field f;
    uint32_t id;

    while (pb_next(&n->left, &f) > 0)
        if (f.num == 1 && names_find(&s->names, f.bytes, &id) && s->maker[id] != NODE_NONE &&
            s->nodes[s->maker[id]].state != 2)
            return s->maker[id];
    return NODE_NONE;
}

/* Add node i after everything it needs.  In a well ordered file the stack stays at one. */
static int node_visit(struct reading *s, uint32_t i, uint32_t *stack)
{
    uint32_t depth = 0;

    stack[depth++] = i;
    while (depth > 0) {
        struct raw_node *n = &s->nodes[stack[depth - 1]];
        uint32_t need = n->state == 2 ? NODE_NONE : waits_for(s, n);

        if (need == NODE_NONE) {
            if (n->state != 2 && node_add(s, n) < 0)
                return node_wrap(s, n);
            depth--;
            continue;
        }
        n->state = 1;
        if (s->nodes[need].state == 1) {
            (void)err_set(s->r.err, -EINVAL, "needs its own result (a cycle)");
            return node_wrap(s, &s->nodes[need]);
        }
        stack[depth++] = need;
    }
    return 0;
}

static int read_nodes(struct reading *s)
{
    AUTO(free) uint32_t *stack = calloc(s->n_nodes + 1, sizeof(*stack));
    struct pb walk = s->graph;
    struct pb_field f;
    uint32_t i = 0;

    s->nodes = calloc(s->n_nodes + 1, sizeof(*s->nodes));
    if (!s->nodes || !stack)
        return no_memory(&s->r, -ENOMEM);
    while (pb_next(&walk, &f) > 0)
        if (f.num == 1) {
            struct raw_node *n = &s->nodes[i];
            n->index = i++;
            if (node_scan(s, f.bytes, n) < 0 || node_outputs(s, n) < 0)
                return node_wrap(s, n);
        }
    for (i = 0; i < s->n_nodes; i++) {
        int rc = node_visit(s, i, stack);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the model */

static int read_output(struct reading *s, struct pb msg)
{
    char what[NAME_PRINT + 32];
    struct graph *g = s->r.g;
    struct pb name = {0};
    uint32_t id;
    bool found;
    int rc = sub_message(s, msg, 1, &name, &found);

    if (rc < 0)
        return rc;
    (void)what_name("output", name, what, sizeof(what));
    if (!names_find(&s->names, name, &id))
        return err_set(s->r.err, -EINVAL, "%s is computed nowhere", what);
    if (g->n_out == MAX_IO)
        return err_set(s->r.err, -EINVAL, "%s: a model may have %d outputs", what, MAX_IO);
    for (uint32_t i = 0; i < g->n_out; i++)
        if (g->out[i] == id)
            return err_set(s->r.err, -EINVAL, "%s is listed twice", what);
    g->out[g->n_out++] = id;
    return 0;
}

/* Call fn for each field `num` of the graph. */
static int each(struct reading *s, uint32_t num, int (*fn)(struct reading *, struct pb))
{
    struct pb walk = s->graph;
    struct pb_field f;

    while (pb_next(&walk, &f) > 0)
        if (f.num == num) {
            int rc = fn(s, f.bytes);
            if (rc < 0)
                return rc;
        }
    return 0;
}

static int sparse_refused(struct reading *s, struct pb msg)
{
    (void)msg;
    return err_set(s->r.err, -ENOTSUP, "sparse initializers are not supported");
}

static int read_graph(struct reading *s)
{
    struct pb walk = s->graph;
    struct pb_field f;
    int more, rc;

    while ((more = pb_next(&walk, &f)) > 0) {
        s->n_nodes += f.num == 1 && s->n_nodes <= MAX_FILE_NODES;
        if ((f.num == 1 || f.num == 5 || f.num == 11 || f.num == 12) && f.wire != PB_BYTES)
            more = -EINVAL;
        if (more < 0)
            break;
    }
    if (more < 0)
        return onnx_broken(&s->r, "the graph");
    if (s->n_nodes > MAX_FILE_NODES)
        return err_set(s->r.err, -EINVAL, "the graph has %u nodes (at most %d)", s->n_nodes,
                       MAX_FILE_NODES);
    if ((rc = each(s, 15, sparse_refused)) < 0 || (rc = each(s, 5, read_initializer)) < 0 ||
        (rc = each(s, 11, read_input)) < 0 || (rc = read_nodes(s)) < 0 ||
        (rc = each(s, 12, read_output)) < 0)
        return rc;
    return s->r.g->n_out ? 0 : err_set(s->r.err, -EINVAL, "the graph has no outputs");
}

static int read_opset(struct reading *s, struct pb msg)
{
    struct pb domain = {0};
    struct pb_field f;
    uint64_t version = 0;
    int more;

    while ((more = pb_next(&msg, &f)) > 0) {
        if (f.num == 1)
            domain = f.bytes;
        else if (f.num == 2)
            version = f.u;
    }
    if (more < 0)
        return onnx_broken(&s->r, "the opset");
    if (pb_size(domain) && (pb_size(domain) != 7 || memcmp(domain.p, "ai.onnx", 7) != 0))
        return 0; /* its operators are refused by name, where one is used */
    s->opset = (int64_t)MIN(version, (uint64_t)INT64_MAX);
    return 0;
}

static int read_head(struct reading *s)
{
    struct pb walk = pb_of(s->r.file.base, s->r.file.bytes);
    struct pb_field f;
    uint32_t n_graphs = 0;
    int more, rc;

    s->opset = -1;
    while ((more = pb_next(&walk, &f)) > 0) {
        if (f.num == 1 && f.wire == PB_VARINT) {
            s->ir = f.u;
        } else if (f.num == 7 && f.wire == PB_BYTES) {
            s->graph = f.bytes;
            n_graphs++;
        } else if (f.num == 8 && (rc = read_opset(s, f.bytes)) < 0) {
            return rc;
        }
    }
    if (more < 0 || n_graphs != 1)
        return err_set(s->r.err, -EINVAL, "not an ONNX model: %s",
                       more < 0 ? "broken bytes" : "it needs exactly one graph");
    if (s->ir < IR_MIN || s->ir > IR_MAX)
        return err_set(s->r.err, s->ir ? -ENOTSUP : -EINVAL,
                       "IR version %llu is not supported (%d to %d)", (unsigned long long)s->ir,
                       IR_MIN, IR_MAX);
    if (s->opset == -1)
        return err_set(s->r.err, -EINVAL, "no opset of the default domain is imported");
    if (s->opset < OPSET_MIN || s->opset > OPSET_MAX)
        return err_set(s->r.err, -ENOTSUP, "opset %lld is not supported (%d to %d)",
                       (long long)s->opset, OPSET_MIN, OPSET_MAX);
    return 0;
}

/* Hand the graph and the external mappings to the caller. */
static int give(struct reading *s, struct graph **ret, struct mapping **ret_ext, uint32_t *ret_n)
{
    struct mapping *ext = NULL;
    uint32_t n = 0;

    if (s->r.n_ext && !(ext = calloc(s->r.n_ext, sizeof(*ext))))
        return no_memory(&s->r, -ENOMEM);
    for (uint32_t i = 0; i < s->r.n_ext; i++)
        if (s->r.ext[i].map.bytes) /* nothing is mapped of an empty file */
            ext[n++] = s->r.ext[i].map;
    *ret_ext = ext;
    *ret_n = n;
    s->r.n_ext = 0;
    *ret = TAKE(s->r.g);
    return 0;
}

static void reading_done(struct reading *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->r.n_ext; i++)
        if (s->r.ext[i].map.bytes)
            (void)munmap((void *)s->r.ext[i].map.base, s->r.ext[i].map.bytes);
    names_done(&s->names);
    free(s->nodes);
    free(s->maker);
    graph_free(s->r.g);
    free(s);
}
DEFINE_AUTO(struct reading, reading_done)

int onnx_read(const struct mapping *file, const char *dir, struct graph **ret,
              struct mapping **ret_ext, uint32_t *ret_n_ext, struct err *err)
{
    AUTO(reading_done) struct reading *s = calloc(1, sizeof(*s));
    struct err own;
    int rc;

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    s->r.file = *file;
    s->r.dir = dir;
    s->r.err = err ? err : &own;
    if ((rc = read_head(s)) < 0)
        return rc;
    if (!(s->r.g = graph_new((uint32_t)s->opset)))
        return no_memory(&s->r, -ENOMEM);
    if ((rc = read_graph(s)) < 0)
        return rc;
    return give(s, ret, ret_ext, ret_n_ext);
}
