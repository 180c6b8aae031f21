/* Nested graphs, and functions of the model.
 *
 * A body is read into a graph of its own.  A name that it does not define is looked for in the
 * graphs around it; what is found there becomes a value without a producer in each graph on the
 * way, and an input of each node that holds one of them.
 *
 * A function is read in place of each node that calls it: its names are its own, its nodes go to
 * the caller's graph.  Its inputs are the caller's values; its results get the caller's names by
 * an Identity each, which a pass takes out.  An attribute that refers to one of the call's is
 * looked up when it is read. */
#include "onnx.h"

#define FIELDS_PER_NODE 64 /* of a function: reading so many counts as a node */

static int enter(struct reader *r, const struct graph *g)
{
    if (r->depth >= g->limits.nesting)
        return err_set(r->err, -EINVAL, "nested deeper than %u levels", g->limits.nesting);
    r->depth++;
    return 0;
}

int onnx_read_body(struct reading *s, struct pb msg, struct body *ret)
{
    struct reading b = {
        .r = s->r, .outer = s, .call = s->call, .graph = msg, .node_field = 1, .opset = s->opset};
    int rc = enter(s->r, s->g);

    if (rc < 0)
        return rc;
    if (!(b.g = graph_new_nested(s->g, (uint32_t)s->opset)))
        return onnx_no_memory(s->r, -ENOMEM);
    rc = onnx_read_graph(&b);
    s->r->depth--;
    if (rc == 0) {
        *ret = (struct body){.g = b.g, .n_captured = b.n_captured};
        ret->inner = arena_memdup(&b.g->arena, b.inner_ids, b.n_captured * sizeof(uint32_t));
        ret->outer = arena_memdup(&b.g->arena, b.outer_ids, b.n_captured * sizeof(uint32_t));
        if (!ret->inner || !ret->outer)
            rc = onnx_no_memory(s->r, -ENOMEM);
    }
    onnx_reading_done(&b);
    return rc;
}

/* ---- opsets */

bool onnx_is_default_domain(struct pb domain)
{
    return pb_size(domain) == 0 || pb_is(domain, "ai.onnx");
}

int onnx_read_opset(struct reader *r, struct pb msg, int64_t *opset)
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
        return onnx_broken(r, "the opset");
    if (onnx_is_default_domain(domain)) /* operators of others are refused by name, where used */
        *opset = (int64_t)MIN(version, (uint64_t)INT64_MAX);
    return 0;
}

int onnx_check_opset(struct reader *r, int64_t opset)
{
    if (opset >= OPSET_MIN && opset <= OPSET_MAX)
        return 0;
    return err_set(r->err, -ENOTSUP, "opset %lld is not supported (%d to %d)", (long long)opset,
                   OPSET_MIN, OPSET_MAX);
}

/* ---- functions */

/* Fields of a FunctionProto. */
enum {
    FN_NAME = 1,
    FN_IN = 4,
    FN_OUT = 5,
    FN_NODE = 7,
    FN_OPSET = 9,
    FN_DOMAIN = 10,
    FN_DEFAULT = 11,
    FN_OVERLOAD = 13
};

static int function_scan(struct reader *r, struct pb msg, struct raw_function *fn)
{
    struct pb walk = msg;
    struct pb_field f;
    int more;

    *fn = (struct raw_function){.msg = msg, .next = NODE_NONE};
    while ((more = pb_next(&walk, &f)) > 0) {
        fn->n_fields += fn->n_fields < UINT32_MAX;
        if (f.num == FN_NAME)
            fn->name = f.bytes;
        else if (f.num == FN_DOMAIN)
            fn->domain = f.bytes;
        else if (f.num == FN_OVERLOAD)
            fn->overload = f.bytes;
        if ((f.num == FN_IN || f.num == FN_OUT || f.num == FN_NODE || f.num == FN_DEFAULT) &&
            f.wire != PB_BYTES)
            more = -EINVAL;
        if (more < 0)
            break;
    }
    return more < 0 || pb_size(fn->name) == 0 ? onnx_broken(r, "a function") : 0;
}

int onnx_read_functions(struct reader *r, struct pb model)
{
    struct pb walk = model;
    struct pb_field f;
    uint32_t n = 0, same;
    int rc = 0;

    while (pb_next(&walk, &f) > 0)
        n += f.num == 25 && f.wire == PB_BYTES;
    if (n && !(r->fn = calloc(n, sizeof(*r->fn))))
        return onnx_no_memory(r, -ENOMEM);
    while (rc == 0 && pb_next(&model, &f) > 0) {
        if (f.num != 25 || f.wire != PB_BYTES)
            continue;
        struct raw_function *fn = &r->fn[r->n_fn];
        if ((rc = function_scan(r, f.bytes, fn)) < 0)
            return rc;
        if (names_find(&r->fn_names, fn->name, &same)) {
            fn->next = r->fn[same].next;
            r->fn[same].next = r->n_fn;
        } else if ((rc = names_add(&r->fn_names, fn->name, r->n_fn)) < 0) {
            return onnx_no_memory(r, rc);
        }
        r->n_fn++;
    }
    return rc;
}

static bool pb_same(struct pb a, struct pb b)
{
    return pb_size(a) == pb_size(b) && (pb_size(a) == 0 || memcmp(a.p, b.p, pb_size(a)) == 0);
}

const struct raw_function *onnx_function(const struct reader *r, const struct raw_node *n)
{
    uint32_t i;

    if (!names_find(&r->fn_names, n->op_name, &i))
        return NULL;
    for (; i != NODE_NONE; i = r->fn[i].next) {
        const struct raw_function *fn = &r->fn[i];
        if (pb_same(fn->overload, n->overload) &&
            (pb_same(fn->domain, n->domain) ||
             (onnx_is_default_domain(fn->domain) && onnx_is_default_domain(n->domain))))
            return fn;
    }
    return NULL;
}

/* ---- a call */

/* The next field `num`; an empty one when there is none any more. */
static struct pb next_name(struct pb *walk, uint32_t num)
{
    struct pb_field f;

    while (pb_next(walk, &f) > 0)
        if (f.num == num)
            return f.bytes;
    return (struct pb){0};
}

static int take_inputs(struct reading *s, struct reading *fn, struct pb node)
{
    struct pb walk = fn->graph;
    struct pb_field f;
    char buf[WHAT_PRINT];

    while (pb_next(&walk, &f) > 0) {
        if (f.num != FN_IN)
            continue;
        struct pb given = next_name(&node, 1);
        uint32_t id = VALUE_NONE;
        int rc = pb_size(given) ? onnx_resolve(s, given, &id) : 1;
        if (rc == 0)
            return err_set(s->r->err, -EINVAL, "%s is defined nowhere",
                           onnx_what("input", given, buf, sizeof(buf)));
        if (rc < 0)
            return rc;
        if (id != VALUE_NONE)
            rc = onnx_value_name(fn, f.bytes, "input", id, NODE_NONE);
        else if ((rc = names_add(&fn->names, f.bytes, VALUE_NONE)) < 0)
            rc = rc == -EEXIST ? onnx_broken(s->r, "a function") : onnx_no_memory(s->r, rc);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int give_outputs(struct reading *s, struct reading *fn, struct pb node)
{
    struct pb walk = fn->graph;
    struct pb_field f;
    char buf[WHAT_PRINT];

    while (pb_next(&walk, &f) > 0) {
        if (f.num != FN_OUT)
            continue;
        struct pb wanted = next_name(&node, 2);
        uint32_t from = VALUE_NONE, to, id;
        if (pb_size(wanted) == 0)
            continue;
        if (!names_find(&s->names, wanted, &to) || !names_find(&fn->names, f.bytes, &from) ||
            from == VALUE_NONE)
            return err_set(s->r->err, -EINVAL, "%s of the function is computed nowhere",
                           onnx_what("output", f.bytes, buf, sizeof(buf)));
        int rc = graph_add_node(s->g, NULL, OP_Identity, 1, &from, 1, &to, &id);
        if (rc < 0)
            return onnx_no_memory(s->r, rc);
        s->g->nodes[id].opset = (uint32_t)s->opset;
    }
    if (pb_size(next_name(&node, 2)))
        return err_set(s->r->err, -EINVAL, "more outputs than the function has");
    return 0;
}

static int prepare(struct reading *fn)
{
    struct pb walk = fn->graph;
    struct pb_field f;
    int rc = 0;

    while (rc == 0 && pb_next(&walk, &f) > 0) {
        fn->n_nodes += f.num == FN_NODE && fn->n_nodes < UINT32_MAX;
        if (f.num == FN_OPSET)
            rc = onnx_read_opset(fn->r, f.bytes, &fn->opset);
    }
    return rc < 0 ? rc : onnx_check_opset(fn->r, fn->opset);
}

int onnx_inline(struct reading *s, const struct raw_node *n)
{
    struct call call = {.caller = s, .node = n->msg, .fn = n->fn->msg};
    struct reading fn = {.r = s->r,
                         .g = s->g,
                         .call = &call,
                         .graph = n->fn->msg,
                         .node_field = FN_NODE,
                         .opset = s->opset};
    int rc = enter(s->r, s->g);

    if (rc == 0) /* a call walks over the whole function */
        rc = onnx_count_nodes(s, n->fn->n_fields / FIELDS_PER_NODE);
    if (rc == 0)
        rc = prepare(&fn);
    if (rc == 0)
        rc = take_inputs(s, &fn, n->msg);
    if (rc == 0)
        rc = onnx_read_nodes(&fn);
    if (rc == 0)
        rc = give_outputs(s, &fn, n->msg);
    s->r->depth--;
    onnx_reading_done(&fn);
    return rc;
}
