/* ModelProto to graph, straight from the mapped file.
 *
 * Order of reading: initializers (they become constants), inputs (those that are no
 * initializer), nodes (first their results, so that every name is known; Constant nodes become
 * constants), then the nodes again, each after the producers of its inputs, and the outputs.
 * Types and shapes that the file declares for outputs are noted: they tell about results that are
 * known only when the model runs.  value_info and whatever else is in the file is not looked at.
 *
 * Nothing here recurses: subgraphs are refused, producers are followed with an own stack. */
#include "onnx.h"
#include <stdio.h>
#include <sys/mman.h>

#define IR_MIN 3
#define IR_MAX 14
#define MAX_FILE_NODES 200000
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

    return err_wrap(s->r.err, "node %u '%s' (%s): ", n->index,
                    pb_print(n->name, name, sizeof(name)), pb_print(n->op_name, op, sizeof(op)));
}

const char *onnx_name(struct reading *s, struct pb name, const char *kind)
{
    char buf[WHAT_PRINT];
    char *copy = NULL;

    if (pb_size(name) && memchr(name.p, 0, pb_size(name)))
        (void)err_set(s->r.err, -EINVAL, "%s: a NUL in its name",
                      onnx_what(kind, name, buf, sizeof(buf)));
    else if (!(copy = arena_strndup(&s->r.g->arena, (const char *)name.p, pb_size(name))))
        (void)onnx_no_memory(&s->r, -ENOMEM);
    return copy;
}

int onnx_value_name(struct reading *s, struct pb name, const char *kind, uint32_t id,
                    uint32_t maker)
{
    char buf[WHAT_PRINT];
    int rc = names_add(&s->names, name, id);

    if (rc == -EEXIST)
        return err_set(s->r.err, -EINVAL, "%s: this name is taken",
                       onnx_what(kind, name, buf, sizeof(buf)));
    if (rc == 0 && id >= s->cap_maker) {
        size_t cap = MAX(s->cap_maker * 2, (size_t)id + 256);
        uint32_t *grown = realloc(s->maker, cap * sizeof(*grown));
        if (!grown)
            return onnx_no_memory(&s->r, -ENOMEM);
        s->maker = grown;
        s->cap_maker = cap;
    }
    if (rc < 0)
        return onnx_no_memory(&s->r, rc);
    s->maker[id] = maker;
    return 0;
}

int onnx_add_const(struct reading *s, struct pb name, const char *kind, const struct read_tensor *t)
{
    const char *copy = onnx_name(s, name, kind);
    uint32_t id;

    if (!copy)
        return s->r.err->code;
    int rc = graph_add_const(s->r.g, copy, &t->t, t->source, &id);
    return rc < 0 ? onnx_no_memory(&s->r, rc) : onnx_value_name(s, name, kind, id, NODE_NONE);
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
        return err_set(s->r.err, -EINVAL, "an initializer without a name");
    int rc = onnx_tensor(&s->r, msg, onnx_what("initializer", name, what, sizeof(what)), &t);
    return rc < 0 ? rc : onnx_add_const(s, name, "initializer", &t);
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
            return onnx_read_constant(s, n, f.bytes);
        const char *copy = onnx_name(s, f.bytes, "output");
        if (!copy)
            return s->r.err->code;
        int rc = graph_add_value(s->r.g, copy, DT_NONE, -1, NULL, &id);
        if (rc < 0)
            return onnx_no_memory(&s->r, rc);
        if ((rc = onnx_value_name(s, f.bytes, "output", id, (uint32_t)(n - s->nodes))) < 0)
            return rc;
    }
    return 0;
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
        if (pb_size(f.bytes) == 0)
            *ids = VALUE_NONE;
        else if (!names_find(&s->names, f.bytes, ids))
            return err_set(s->r.err, -EINVAL, "%s is defined nowhere",
                           onnx_what("input", f.bytes, buf, sizeof(buf)));
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
    struct arena *a = &s->r.g->arena;
    uint32_t *in = ARENA_ARRAY(a, uint32_t, n->n_in), *out = ARENA_ARRAY(a, uint32_t, n->n_out);
    uint32_t n_in = n->n_in, id;
    int rc;

    n->state = 2;
    if (n->op == OP_Constant)
        return 0; /* is a value since node_outputs() */
    if (!in || !out)
        return onnx_no_memory(&s->r, -ENOMEM);
    if ((rc = node_ids(s, n, 1, in)) < 0 || (rc = node_ids(s, n, 2, out)) < 0)
        return rc;
    while (n_in && in[n_in - 1] == VALUE_NONE)
        n_in--; /* omitted at the end: as if not there */
    const char *name = onnx_name(s, n->name, "node");
    if (!name)
        return s->r.err->code;
    rc = graph_add_node(s->r.g, name, n->op, n_in, in, n->n_out, out, &id);
    return rc < 0 ? onnx_no_memory(&s->r, rc) : node_attrs(s, n, id);
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
        return onnx_no_memory(&s->r, -ENOMEM);
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
    char what[WHAT_PRINT];
    struct graph *g = s->r.g;
    struct pb name = {0};
    uint32_t id;
    bool found;
    int rc = onnx_sub(s, msg, 1, &name, &found);

    if (rc < 0)
        return rc;
    (void)onnx_what("output", name, what, sizeof(what));
    if (!names_find(&s->names, name, &id))
        return err_set(s->r.err, -EINVAL, "%s is computed nowhere", what);
    if (g->n_out == MAX_IO)
        return err_set(s->r.err, -EINVAL, "%s: a model may have %d outputs", what, MAX_IO);
    for (uint32_t i = 0; i < g->n_out; i++)
        if (g->out[i] == id)
            return err_set(s->r.err, -EINVAL, "%s is listed twice", what);
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
        (rc = each(s, 11, onnx_read_input)) < 0 || (rc = read_nodes(s)) < 0 ||
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

/* Where the file's outermost message stops making sense: most often an upload that was cut short.
 */
static int broken_head(struct reading *s, const uint8_t *at, const struct pb *left,
                       const struct pb_field *f)
{
    size_t byte = (size_t)(at - (const uint8_t *)s->r.file.base);

    if (f->wire == PB_BYTES && f->u > pb_size(*left))
        return err_set(s->r.err, -EINVAL,
                       "not an ONNX model, or cut short: field %u at byte %zu has %llu bytes, but "
                       "the file ends after %zu",
                       f->num, byte, (unsigned long long)f->u, pb_size(*left));
    return err_set(s->r.err, -EINVAL, "not an ONNX model, or cut short: broken bytes at byte %zu",
                   byte);
}

static int read_head(struct reading *s)
{
    const uint8_t *at = s->r.file.base;
    struct pb walk = pb_of(s->r.file.base, s->r.file.bytes);
    struct pb_field f = {0};
    uint32_t n_graphs = 0;
    int more, rc;

    s->opset = -1;
    while ((more = pb_next(&walk, &f)) > 0) {
        at = walk.p;
        if (f.num == 1 && f.wire == PB_VARINT) {
            s->ir = f.u;
        } else if (f.num == 7 && f.wire == PB_BYTES) {
            s->graph = f.bytes;
            n_graphs++;
        } else if (f.num == 8 && (rc = read_opset(s, f.bytes)) < 0) {
            return rc;
        }
    }
    if (more < 0)
        return broken_head(s, at, &walk, &f);
    if (n_graphs != 1)
        return err_set(s->r.err, -EINVAL, "not an ONNX model: it needs exactly one graph");
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
        return onnx_no_memory(&s->r, -ENOMEM);
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
        return onnx_no_memory(&s->r, -ENOMEM);
    if ((rc = read_graph(s)) < 0)
        return rc;
    return give(s, ret, ret_ext, ret_n_ext);
}
