/* ModelProto to graph, straight from the mapped file.
 *
 * Order of reading: initializers (they become constants), inputs (those that are no
 * initializer), nodes (first their results, so that every name is known; Constant nodes become
 * constants), then the nodes again, each after the producers of its inputs, and the outputs.
 * Types and shapes that the file declares for outputs are noted: they tell about results that are
 * known only when the model runs.  value_info and whatever else is in the file is not looked at.
 *
 * Bodies and calls of functions recurse (onnx_body.c), to a limited depth; producers are followed
 * with an own stack. */
#include "onnx.h"
#include <stdio.h>
#include <sys/mman.h>

#define IR_MIN 3
#define IR_MAX 14
#define MAX_NODE_ATTRS 64

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

int onnx_no_memory(struct reader *r, int rc)
{
    if (rc == -E2BIG)
        return err_set(r->err, -EINVAL, "the model has too many nodes, values or arguments");
    return err_set(r->err, rc, "out of memory");
}

const char *onnx_what(const char *kind, struct pb name, char *buf, size_t size)
{
    char part[NAME_PRINT];

    (void)snprintf(buf, size, "%s '%s'", kind, pb_print(name, part, sizeof(part)));
    return buf;
}

/* "node 12 'conv1' (Conv): " in front of the message. */
static int node_wrap(struct reading *s, const struct raw_node *n)
{
    char name[NAME_PRINT], op[NAME_PRINT];

    return err_wrap(s->r->err, "node %u '%s' (%s): ", n->index,
                    pb_print(n->name, name, sizeof(name)), pb_print(n->op_name, op, sizeof(op)));
}

const char *onnx_name(struct reading *s, struct pb name, const char *kind)
{
    char buf[WHAT_PRINT];
    char *copy = NULL;

    if (pb_size(name) && memchr(name.p, 0, pb_size(name)))
        (void)err_set(s->r->err, -EINVAL, "%s: a NUL in its name",
                      onnx_what(kind, name, buf, sizeof(buf)));
    else if (!(copy = arena_strndup(&s->g->arena, (const char *)name.p, pb_size(name))))
        (void)onnx_no_memory(s->r, -ENOMEM);
    return copy;
}

int onnx_value_name(struct reading *s, struct pb name, const char *kind, uint32_t id,
                    uint32_t maker)
{
    char buf[WHAT_PRINT];
    int rc = names_add(&s->names, name, id);

    if (rc == -EEXIST)
        return err_set(s->r->err, -EINVAL, "%s: this name is taken",
                       onnx_what(kind, name, buf, sizeof(buf)));
    if (rc == 0 && id >= s->cap_maker) {
        size_t cap = MAX(s->cap_maker * 2, (size_t)id + 256);
        uint32_t *grown = realloc(s->maker, cap * sizeof(*grown));
        if (!grown)
            return onnx_no_memory(s->r, -ENOMEM);
        s->maker = grown;
        s->cap_maker = cap;
    }
    if (rc < 0)
        return onnx_no_memory(s->r, rc);
    s->maker[id] = maker;
    return 0;
}

int onnx_add_const(struct reading *s, struct pb name, const char *kind, const struct read_tensor *t)
{
    const char *copy = onnx_name(s, name, kind);
    uint32_t id;

    if (!copy)
        return s->r->err->code;
    int rc = graph_add_const(s->g, copy, &t->t, t->source, &id);
    return rc < 0 ? onnx_no_memory(s->r, rc) : onnx_value_name(s, name, kind, id, NODE_NONE);
}

static int read_initializer(struct reading *s, struct pb msg)
{
    struct pb walk = msg, name = {0};
    char what[WHAT_PRINT];
    struct read_tensor t;
    struct pb_field f;

    while (pb_next(&walk, &f) > 0) /* the name first: messages need it */
        if (f.num == 8)
            name = f.bytes;
    if (pb_size(name) == 0)
        return err_set(s->r->err, -EINVAL, "an initializer without a name");
    int rc = onnx_tensor(s->r, msg, onnx_what("initializer", name, what, sizeof(what)), &t);
    return rc < 0 ? rc : onnx_add_const(s, name, "initializer", &t);
}

/* ---- nodes */

static int node_check(struct reading *s, struct raw_node *n)
{
    char buf[NAME_PRINT];

    if (n->n_attr > MAX_NODE_ATTRS)
        return err_set(s->r->err, -EINVAL, "%u attributes (at most %d)", n->n_attr, MAX_NODE_ATTRS);
    if ((n->fn = onnx_function(s->r, n)))
        return 0;
    if (!onnx_is_default_domain(n->domain))
        return err_set(s->r->err, -ENOTSUP, "operators of domain '%s' are not supported",
                       pb_print(n->domain, buf, sizeof(buf)));
    n->op = op_find((const char *)n->op_name.p, pb_size(n->op_name));
    if (n->op == OP_NONE)
        return err_set(s->r->err, -ENOTSUP, "operator is not supported");
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
        else if (f.num == 8)
            n->overload = f.bytes;
        if (f.num <= 8 && f.wire != PB_BYTES)
            return onnx_broken(s->r, "the node");
    }
    return more < 0 ? onnx_broken(s->r, "the node") : node_check(s, n);
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
            return onnx_read_constant(s, n, f.bytes);
        const char *copy = onnx_name(s, f.bytes, "output");
        if (!copy)
            return s->r->err->code;
        int rc = graph_add_value(s->g, copy, DT_NONE, -1, NULL, &id);
        if (rc < 0)
            return onnx_no_memory(s->r, rc);
        if ((rc = onnx_value_name(s, f.bytes, "output", id, (uint32_t)(n - s->nodes))) < 0)
            return rc;
    }
    return 0;
}

static int capture(struct reading *s, struct pb name, uint32_t outer_id, uint32_t *ret)
{
    const char *copy = onnx_name(s, name, "value");
    int rc = copy ? graph_add_value(s->g, copy, DT_NONE, -1, NULL, ret) : s->r->err->code;

    if (rc < 0)
        return copy ? onnx_no_memory(s->r, rc) : rc;
    if (s->n_captured == s->cap_captured) {
        uint32_t cap = MAX(s->cap_captured * 2, 16u);
        uint32_t *inner = reallocarray(s->inner_ids, cap, sizeof(*inner));
        s->inner_ids = inner ? inner : s->inner_ids;
        uint32_t *outer = reallocarray(s->outer_ids, cap, sizeof(*outer));
        s->outer_ids = outer ? outer : s->outer_ids;
        if (!inner || !outer)
            return onnx_no_memory(s->r, -ENOMEM);
        s->cap_captured = cap;
    }
    s->inner_ids[s->n_captured] = *ret;
    s->outer_ids[s->n_captured++] = outer_id;
    return onnx_value_name(s, name, "value", *ret, NODE_NONE);
}

int onnx_resolve(struct reading *s, struct pb name, uint32_t *ret)
{
    char buf[WHAT_PRINT];
    uint32_t id;

    if (names_find(&s->names, name, ret))
        return 1;
    int rc = s->outer ? onnx_resolve(s->outer, name, &id) : 0;
    if (rc <= 0)
        return rc;
    if (id == VALUE_NONE) {
        *ret = id;
        return 1;
    }
    uint32_t maker = s->outer->maker[id];
    if (maker != NODE_NONE && s->outer->nodes[maker].state != 2)
        return err_set(s->r->err, -EINVAL, "%s of the graph around is computed later",
                       onnx_what("value", name, buf, sizeof(buf)));
    rc = capture(s, name, id, ret);
    return rc < 0 ? rc : 1;
}

/* Value ids of the node's inputs or outputs (field 1 or 2) into ids. */
static int node_ids(struct reading *s, const struct raw_node *n, uint32_t field, uint32_t *ids)
{
    char buf[WHAT_PRINT];
    struct pb walk = n->msg;
    struct pb_field f;

    while (pb_next(&walk, &f) > 0) {
        if (f.num != field)
            continue;
        int rc = 1;
        if (pb_size(f.bytes) == 0)
            *ids = VALUE_NONE;
        else
            rc = onnx_resolve(s, f.bytes, ids);
        if (rc == 0)
            return err_set(s->r->err, -EINVAL, "%s is defined nowhere",
                           onnx_what("input", f.bytes, buf, sizeof(buf)));
        if (rc < 0)
            return rc;
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
            int rc = onnx_read_attr(s, f.bytes, id);
            if (rc < 0)
                return rc;
        }
    return 0;
}

static int node_add(struct reading *s, struct raw_node *n)
{
    struct arena *a = &s->g->arena;
    uint32_t *in = ARENA_ARRAY(a, uint32_t, n->n_in), *out = ARENA_ARRAY(a, uint32_t, n->n_out);
    uint32_t n_in = n->n_in, id;
    int rc;

    if (n->op == OP_Constant)
        return 0; /* is a value since node_outputs() */
    if (n->fn)
        return onnx_inline(s, n);
    if (!in || !out)
        return onnx_no_memory(s->r, -ENOMEM);
    if ((rc = node_ids(s, n, 1, in)) < 0 || (rc = node_ids(s, n, 2, out)) < 0)
        return rc;
    while (n_in && in[n_in - 1] == VALUE_NONE)
        n_in--; /* omitted at the end: as if not there */
    const char *name = onnx_name(s, n->name, "node");
    if (!name)
        return s->r->err->code;
    rc = graph_add_node(s->g, name, n->op, n_in, in, n->n_out, out, &id);
    if (rc < 0)
        return onnx_no_memory(s->r, rc);
    s->g->nodes[id].opset = (uint32_t)s->opset;
    return node_attrs(s, n, id);
}

/* The first producer of the node's inputs that is not in the graph yet; NODE_NONE: all are. */
static uint32_t waits_for(const struct reading *s, struct raw_node *n)
{
    struct pb_field f;
    uint32_t id;

    while (pb_next(&n->left, &f) > 0)
        if (f.num == 1 && names_find(&s->names, f.bytes, &id) && id != VALUE_NONE &&
            s->maker[id] != NODE_NONE && s->nodes[s->maker[id]].state != 2)
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
            n->state = 2;
            depth--;
            continue;
        }
        n->state = 1;
        if (s->nodes[need].state == 1) {
            (void)err_set(s->r->err, -EINVAL, "needs its own result (a cycle)");
            return node_wrap(s, &s->nodes[need]);
        }
        stack[depth++] = need;
    }
    return 0;
}

int onnx_count_nodes(struct reading *s, uint32_t n)
{
    uint32_t max = s->g->limits.nodes;

    if (n > max - MIN(s->r->n_nodes, max))
        return err_set(s->r->err, -EINVAL, "the model has more than %u nodes", max);
    s->r->n_nodes += n;
    return 0;
}

int onnx_read_nodes(struct reading *s)
{
    AUTO(free) uint32_t *stack = NULL;
    struct pb walk = s->graph;
    struct pb_field f;
    uint32_t i = 0;

    if (onnx_count_nodes(s, s->n_nodes) < 0)
        return s->r->err->code;
    stack = calloc(s->n_nodes + 1, sizeof(*stack));
    s->nodes = calloc(s->n_nodes + 1, sizeof(*s->nodes));
    if (!s->nodes || !stack)
        return onnx_no_memory(s->r, -ENOMEM);
    while (pb_next(&walk, &f) > 0)
        if (f.num == s->node_field) {
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
    char what[WHAT_PRINT];
    struct graph *g = s->g;
    struct pb name = {0};
    uint32_t id = VALUE_NONE;
    bool found;
    int rc = onnx_sub(s, msg, 1, &name, &found);

    if (rc < 0)
        return rc;
    (void)onnx_what("output", name, what, sizeof(what));
    if ((rc = onnx_resolve(s, name, &id)) < 0)
        return rc;
    if (rc == 0 || id == VALUE_NONE)
        return err_set(s->r->err, -EINVAL, "%s is computed nowhere", what);
    if (g->n_out == MAX_IO)
        return err_set(s->r->err, -EINVAL, "%s: a graph may have %d outputs", what, MAX_IO);
    for (uint32_t i = 0; i < g->n_out && !s->outer; i++)
        if (g->out[i] == id)
            return err_set(s->r->err, -EINVAL, "%s is listed twice", what);
    g->out[g->n_out++] = id;
    return g->values[id].dtype ? 0 : onnx_declare(s, msg, id);
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
    return err_set(s->r->err, -ENOTSUP, "sparse initializers are not supported");
}

int onnx_read_graph(struct reading *s)
{
    struct pb walk = s->graph;
    struct pb_field f;
    int more, rc;

    while ((more = pb_next(&walk, &f)) > 0) {
        s->n_nodes += f.num == 1 && s->n_nodes < UINT32_MAX;
        if ((f.num == 1 || f.num == 5 || f.num == 11 || f.num == 12) && f.wire != PB_BYTES)
            more = -EINVAL;
        if (more < 0)
            break;
    }
    if (more < 0)
        return onnx_broken(s->r, "the graph");
    if ((rc = each(s, 15, sparse_refused)) < 0 || (rc = each(s, 5, read_initializer)) < 0 ||
        (rc = each(s, 11, onnx_read_input)) < 0 || (rc = onnx_read_nodes(s)) < 0 ||
        (rc = each(s, 12, read_output)) < 0)
        return rc;
    return s->g->n_out ? 0 : err_set(s->r->err, -EINVAL, "the graph has no outputs");
}

/* Where the file's outermost message stops making sense: most often an upload that was cut short.
 */
static int broken_head(struct reading *s, const uint8_t *at, const struct pb *left,
                       const struct pb_field *f)
{
    size_t byte = (size_t)(at - (const uint8_t *)s->r->file.base);

    if (f->wire == PB_BYTES && f->u > pb_size(*left))
        return err_set(s->r->err, -EINVAL,
                       "not an ONNX model, or cut short: field %u at byte %zu has %llu bytes, but "
                       "the file ends after %zu",
                       f->num, byte, (unsigned long long)f->u, pb_size(*left));
    return err_set(s->r->err, -EINVAL, "not an ONNX model, or cut short: broken bytes at byte %zu",
                   byte);
}

struct head {
    struct pb graph;
    uint32_t n_graphs;
    uint32_t n_opsets;
    uint64_t ir;
    int64_t opset; /* of the default domain; -1: none */
};

static int head_check(struct reader *r, const struct head *h)
{
    if (h->n_graphs != 1)
        return err_set(r->err, -EINVAL, "not an ONNX model: it needs exactly one graph");
    if (h->ir < IR_MIN || h->ir > IR_MAX)
        return err_set(r->err, h->ir ? -ENOTSUP : -EINVAL,
                       "IR version %llu is not supported (%d to %d)", (unsigned long long)h->ir,
                       IR_MIN, IR_MAX);
    if (h->opset == -1)
        return err_set(r->err, h->n_opsets ? -ENOTSUP : -EINVAL,
                       "no opset of the default domain is imported");
    return onnx_check_opset(r, h->opset);
}

static int read_head(struct reading *s, struct head *h)
{
    const uint8_t *at = s->r->file.base;
    struct pb walk = pb_of(s->r->file.base, s->r->file.bytes);
    struct pb_field f = {0};
    int more, rc;

    *h = (struct head){.opset = -1};
    while ((more = pb_next(&walk, &f)) > 0) {
        at = walk.p;
        if (f.num == 1 && f.wire == PB_VARINT) {
            h->ir = f.u;
        } else if (f.num == 7 && f.wire == PB_BYTES) {
            h->graph = f.bytes;
            h->n_graphs++;
        } else if (f.num == 8) {
            h->n_opsets++;
            if ((rc = onnx_read_opset(s->r, f.bytes, &h->opset)) < 0)
                return rc;
        }
    }
    return more < 0 ? broken_head(s, at, &walk, &f) : head_check(s->r, h);
}

/* Hand the graph and the external mappings to the caller. */
static int give(struct reader *r, struct graph **ret, struct mapping **ret_ext, uint32_t *ret_n)
{
    struct mapping *ext = NULL;
    uint32_t n = 0;

    if (r->n_ext && !(ext = calloc(r->n_ext, sizeof(*ext))))
        return onnx_no_memory(r, -ENOMEM);
    for (uint32_t i = 0; i < r->n_ext; i++)
        if (r->ext[i].map.bytes) /* nothing is mapped of an empty file */
            ext[n++] = r->ext[i].map;
    *ret_ext = ext;
    *ret_n = n;
    r->n_ext = 0;
    *ret = TAKE(r->g);
    return 0;
}

static void reader_free(struct reader *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->n_ext; i++)
        if (r->ext[i].map.bytes)
            (void)munmap((void *)r->ext[i].map.base, r->ext[i].map.bytes);
    names_done(&r->fn_names);
    free(r->fn);
    graph_free(r->g);
    free(r);
}
DEFINE_AUTO(struct reader, reader_free)

void onnx_reading_done(struct reading *s)
{
    names_done(&s->names);
    free(s->nodes);
    free(s->maker);
    free(s->inner_ids);
    free(s->outer_ids);
}

static int read_model(struct reader *r, const struct model_limits *limits)
{
    struct reading s = {.r = r, .node_field = 1};
    struct head h;
    int rc = read_head(&s, &h);

    if (rc == 0)
        rc = onnx_read_functions(r, pb_of(r->file.base, r->file.bytes));
    if (rc < 0)
        return rc;
    if (!(r->g = graph_new((uint32_t)h.opset)))
        return onnx_no_memory(r, -ENOMEM);
    r->g->limits = *limits;
    s.g = r->g;
    s.graph = h.graph;
    s.opset = h.opset;
    rc = onnx_read_graph(&s);
    onnx_reading_done(&s);
    return rc;
}

int onnx_read(const struct mapping *file, const char *dir, const struct model_limits *limits,
              struct graph **ret, struct mapping **ret_ext, uint32_t *ret_n_ext, struct err *err)
{
    AUTO(reader_free) struct reader *r = calloc(1, sizeof(*r));
    struct err own = {0};

    if (!r)
        return err_set(err, -ENOMEM, "out of memory");
    r->file = *file;
    r->dir = dir;
    r->err = err ? err : &own;
    int rc = read_model(r, limits ? limits : &model_limits_default);
    return rc < 0 ? rc : give(r, ret, ret_ext, ret_n_ext);
}
