#include "../check.h"
#include "onnx_write.h"

/* ---- one node: operator, attributes, input shapes -> output shape */

struct attr_row {
    const char *name;
    const char *ints; /* "1,2": a list; "=3": one number; "'SAME_UPPER": a text */
};

struct row {
    const char *op;
    uint32_t opset;
    struct attr_row attr[4];
    const char *in[5]; /* shapes of FP32 inputs; ":1,2" is an INT64 list with these numbers */
    const char *want;  /* shape of the first output, or part of the message */
};

struct numbers {
    int64_t v[16];
    uint32_t n;
};

static struct numbers numbers_of(const char *s)
{
    struct numbers r = {0};

    while (*s) {
        char *end;
        r.v[r.n++] = strtoll(s, &end, 10);
        s = end + (*end == ',');
    }
    return r;
}

static void add_attr(struct graph *g, uint32_t node, const struct attr_row *row)
{
    struct attr a = {.name = row->name};
    struct numbers list = {0};

    if (row->ints[0] == '=') {
        a.type = ATTR_INT;
        a.i = strtoll(row->ints + 1, NULL, 10);
    } else if (row->ints[0] == '\'') {
        a.type = ATTR_STRING;
        a.s = row->ints + 1;
        a.n = (uint32_t)strlen(a.s);
    } else {
        list = numbers_of(row->ints);
        a.type = ATTR_INTS;
        a.n = list.n;
        a.ints = list.v;
    }
    CHECK_EQ(graph_add_attr(g, node, &a), 0);
}

static void check_row(const struct row *r)
{
    AUTO(graph_free) struct graph *g = graph_new(r->opset);
    struct tensor in[5] = {0}, out[3] = {0};
    const struct tensor *in_ptr[5] = {0};
    struct numbers data[5];
    uint32_t n_in = 0, node, ids[5] = {0}, none[1] = {VALUE_NONE};
    struct err e = {0};
    char got[256];

    for (; n_in < 5 && r->in[n_in]; n_in++) {
        struct tensor *t = &in[n_in];
        bool list = r->in[n_in][0] == ':';
        data[n_in] = numbers_of(r->in[n_in] + list);
        const int64_t n = data[n_in].n;
        CHECK_EQ(tensor_shape(t, list ? DT_INT64 : DT_FP32, list ? 1 : data[n_in].n,
                              list ? &n : data[n_in].v),
                 0);
        t->data = list ? data[n_in].v : NULL;
        in_ptr[n_in] = t;
    }
    CHECK_EQ(graph_add_node(g, "n", op_find(r->op, strlen(r->op)), n_in, ids, 1, none, &node), 0);
    for (size_t i = 0; i < 4 && r->attr[i].name; i++)
        add_attr(g, node, &r->attr[i]);
    if (node_infer(&g->nodes[node], in_ptr, out, &e) == 0)
        (void)dims_print(out[0].rank, out[0].dims, got, sizeof(got));
    else
        (void)snprintf(got, sizeof(got), "%s", e.msg);
    if (!strstr(got, r->want)) {
        printf("# %s (opset %u): %s, not %s\n", r->op, r->opset, got, r->want);
        check_failures++;
    }
}

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_row(&rows[i]);
}

static void windows_follow_strides_pads_and_dilations(void)
{
    static const struct row rows[] = {
        {"Conv",
         11,
         {{"strides", "2,2"}, {"pads", "3,3,3,3"}},
         {"1,3,224,224", "64,3,7,7"},
         "[1,64,112,112]"},
        {"Conv", 11, {{"group", "=32"}}, {"1,32,10,10", "32,1,3,3"}, "[1,32,8,8]"},
        {"Conv", 11, {{"dilations", "2,2"}}, {"1,1,10,10", "1,1,3,3"}, "[1,1,6,6]"},
        {"Conv",
         11,
         {{"auto_pad", "'SAME_UPPER"}, {"strides", "2"}},
         {"1,1,9", "1,1,3"},
         "[1,1,5]"},
        {"Conv", 11, {{"auto_pad", "'VALID"}}, {"1,1,9", "1,1,3"}, "[1,1,7]"},
        {"Conv", 11, {{0}}, {"1,4,9", "1,3,3"}, "do not go together in 1 groups"},
        {"Conv", 11, {{0}}, {"1,1,2", "1,1,3"}, "a window of 3 over dimension 0, which is 2"},
        {"MaxPool", 11, {{"kernel_shape", "3,3"}, {"strides", "2,2"}}, {"1,1,8,8"}, "[1,1,3,3]"},
        {"MaxPool",
         11,
         {{"kernel_shape", "3,3"}, {"strides", "2,2"}, {"ceil_mode", "=1"}},
         {"1,1,8,8"},
         "[1,1,4,4]"},
        {"AveragePool",
         19,
         {{"kernel_shape", "1"}, {"strides", "3"}, {"ceil_mode", "=1"}},
         {"1,1,3"},
         "[1,1,1]"},
        {"MaxPool", 11, {{"kernel_shape", "3,3"}, {"strides", "0,1"}}, {"1,1,8,8"}, "strides of 0"},
        {"GlobalAveragePool", 11, {{0}}, {"2,5,7,7"}, "[2,5,1,1]"},
    };
    check_rows(rows, ARRAY_SIZE(rows));
}

static void products_follow_numpy(void)
{
    static const struct row rows[] = {
        {"MatMul", 13, {{0}}, {"2,1,3,4", "5,4,6"}, "[2,5,3,6]"},
        {"MatMul", 13, {{0}}, {"4", "4,6"}, "[6]"},
        {"MatMul", 13, {{0}}, {"3,4", "4"}, "[3]"},
        {"MatMul", 13, {{0}}, {"4", "4"}, "[]"},
        {"MatMul", 13, {{0}}, {"3,4", "5,6"}, "shapes [3,4] and [5,6] cannot be multiplied"},
        {"Gemm", 13, {{"transB", "=1"}}, {"3,4", "6,4", "6"}, "[3,6]"},
        {"Gemm", 13, {{"transA", "=1"}}, {"4,3", "4,6", "7"}, "do not go together"},
        {"Add", 13, {{0}}, {"2,1,4", "3,1"}, "[2,3,4]"},
        {"Add", 13, {{0}}, {"2,3", "2"}, "shapes [2,3] and [2] do not go together"},
    };
    check_rows(rows, ARRAY_SIZE(rows));
}

static void numbers_come_as_attributes_or_as_inputs(void)
{
    static const struct row rows[] = {
        {"Squeeze", 11, {{"axes", "0,-1"}}, {"1,2,1"}, "[2]"},
        {"Squeeze", 13, {{0}}, {"1,2,1", ":0,-1"}, "[2]"},
        {"Squeeze", 13, {{0}}, {"1,2,1"}, "[2]"},
        {"Squeeze", 11, {{"axes", "1"}}, {"1,2,1"}, "axis 1 is 2, not 1"},
        {"Unsqueeze", 11, {{"axes", "0,3"}}, {"5,6"}, "[1,5,6,1]"},
        {"Unsqueeze", 13, {{0}}, {"5,6", ":-1"}, "[5,6,1]"},
        {"Slice", 9, {{"starts", "1"}, {"ends", "-1"}, {"axes", "1"}}, {"4,10"}, "[4,8]"},
        {"Slice", 13, {{0}}, {"4,10", ":9", ":-100", ":1", ":-3"}, "[4,4]"},
        {"Slice", 13, {{0}}, {"4,10", ":2", ":9223372036854775807", ":0"}, "[2,10]"},
        {"Slice", 13, {{0}}, {"4,10", ":2", ":9", ":0", ":0"}, "axis 0 by step 0"},
        {"Slice", 13, {{0}}, {"4,10", "1", ":9"}, "must be a list of INT64"},
        {"Split", 11, {{"axis", "=1"}, {"split", "3,7"}}, {"4,10"}, "split into 2 parts"},
        {"Split", 18, {{"axis", "=1"}, {"num_outputs", "=1"}}, {"4,10"}, "[4,10]"},
        {"Pad", 2 + 8, {{"pads", "0,1,2,3"}}, {"4,4"}, "[6,8]"},
        {"Pad", 18, {{0}}, {"4,4", ":-1,2"}, "pads has 2 numbers for 2 axes"},
        {"ReduceMean", 13, {{"axes", "-1"}, {"keepdims", "=0"}}, {"2,3,4"}, "[2,3]"},
        {"ReduceMean", 18, {{0}}, {"2,3,4", ":1"}, "[2,1,4]"},
        {"ReduceSum", 13, {{"keepdims", "=0"}}, {"2,3,4"}, "[]"},
        {"ReduceSum", 13, {{"noop_with_empty_axes", "=1"}}, {"2,3,4"}, "[2,3,4]"},
    };
    check_rows(rows, ARRAY_SIZE(rows));
}

static void shapes_are_moved_cut_and_joined(void)
{
    static const struct row rows[] = {
        {"Reshape", 13, {{0}}, {"2,3,4", ":0,-1"}, "[2,12]"},
        {"Reshape", 13, {{0}}, {"2,3,4", ":5,-1"}, "shape [2,3,4] cannot become [5,4]"},
        {"Reshape", 13, {{0}}, {"2,3,4", ":-1,-1"}, "shape has -1 at 1"},
        {"Reshape", 14, {{"allowzero", "=1"}}, {"0,3", ":3,0"}, "[3,0]"},
        {"Flatten", 13, {{0}}, {"2,3,4"}, "[2,12]"},
        {"Flatten", 13, {{"axis", "=0"}}, {"2,3,4"}, "[1,24]"},
        {"Transpose", 13, {{"perm", "2,0,1"}}, {"2,3,4"}, "[4,2,3]"},
        {"Transpose", 13, {{0}}, {"2,3,4"}, "[4,3,2]"},
        {"Transpose", 13, {{"perm", "0,0,1"}}, {"2,3,4"}, "perm has 0 twice"},
        {"Concat", 13, {{"axis", "=-1"}}, {"2,3", "2,5"}, "[2,8]"},
        {"Concat", 13, {{"axis", "=0"}}, {"2,3", "2,5"}, "cannot be joined at axis 0"},
        {"Gather", 13, {{"axis", "=1"}}, {"5,7,9", ":1,2"}, "[5,2,9]"},
        {"Gather", 13, {{"axis", "=3"}}, {"5,7,9", ":1,2"}, "axis 3 of a tensor of rank 3"},
        {"Expand", 13, {{0}}, {"3,1", ":2,1,6"}, "[2,3,6]"},
        {"Tile", 13, {{0}}, {"3,2", ":2,4"}, "[6,8]"},
        {"Tile", 13, {{0}}, {"3,2", ":2,-4"}, "repeats has -4 at 1"},
        {"ConstantOfShape", 13, {{0}}, {":2,4"}, "[2,4]"},
        {"ConstantOfShape", 13, {{0}}, {":2,2000000000000"}, "its result would have the shape"},
        {"Shape", 15, {{"start", "=1"}}, {"5,6,7"}, "[2]"},
        {"Range", 13, {{0}}, {":3", ":10", ":2"}, "[4]"},
        {"Range", 13, {{0}}, {":3", ":10", ":0"}, "3 to 10 by 0"},
        {"Add", 13, {{0}}, {"3"}, "input 1 is missing"},
    };
    check_rows(rows, ARRAY_SIZE(rows));
}

/* ---- whole graphs */

static struct ow files[32]; /* graphs point into them until the program ends */
static size_t n_files;

static struct graph *read_model(struct ow *g, int64_t opset)
{
    struct graph *ret = NULL;
    struct err e = {0};

    assert(n_files < ARRAY_SIZE(files));
    struct ow *m = &files[n_files++];
    *m = ow_model(g, opset);
    CHECK_EQ(ow_read(m, NULL, &ret, &e), 0);
    CHECK_STR(e.msg, "");
    return ret;
}

static uint32_t value_id(const struct graph *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_values; i++)
        if (STREQ(g->values[i].name, name))
            return i;
    CHECK(!"the value is there");
    return 0;
}

static void init_ints(struct ow *g, const char *name, const char *shape, const int64_t *v, size_t n)
{
    ow_init(g, name, DT_INT64, shape, v, n * sizeof(*v));
}

/* y = Reshape(x, Concat(Gather(Shape(x), 0), [-1])): how exporters write a flatten. */
static struct graph *shape_chain(void)
{
    struct ow g = {0}, n;

    ow_input(&g, "x", DT_FP32, "batch,3,side,side");
    init_ints(&g, "zero", "1", (int64_t[]){0}, 1);
    init_ints(&g, "rest", "1", (int64_t[]){-1}, 1);
    ow_plain(&g, "Shape", "shape", "x", "s");
    ow_plain(&g, "Gather", "gather", "s,zero", "b");
    n = ow_node("Concat", "concat", "b,rest", "to");
    ow_attr_int(&n, "axis", 0);
    ow_add(&g, OW_NODE, &n);
    ow_plain(&g, "Reshape", "reshape", "x,to", "flat");
    ow_plain(&g, "Relu", "relu", "flat", "y");
    ow_output(&g, "y");
    return read_model(&g, 17);
}

static void shape_arithmetic_is_evaluated_and_skipped(void)
{
    AUTO(graph_free) struct graph *g = shape_chain();
    struct shape_key key = {.n = 2, .dim = {4, 10}};
    struct bound *b = NULL;
    struct arena a;

    arena_init(&a);
    CHECK_EQ(graph_bind(g, &key, &a, &b, NULL), 0);
    if (b) {
        const struct tensor *y = &b->value[g->out[0]], *to = &b->value[value_id(g, "to")];
        CHECK_EQ(y->dims[0], 4);
        CHECK_EQ(y->dims[1], 300);
        CHECK_EQ(y->bytes, 4 * 300 * 4);
        CHECK(!y->data);
        CHECK(to->data && ((const int64_t *)to->data)[0] == 4);
        CHECK(b->skip[0] && b->skip[1] && b->skip[2] && !b->skip[3] && !b->skip[4]);
    }
    arena_done(&a);
}

static void check_dim(const struct graph *g, const char *name, uint32_t at, int64_t scale,
                      const char *sym)
{
    const struct dim *d = &g->values[value_id(g, name)].dims[at];
    const char *got = d->sym == SYM_CONST    ? "const"
                      : d->sym == SYM_VARIES ? "varies"
                                             : g->syms[d->sym].name;

    CHECK_STR(got, sym);
    CHECK_EQ(d->scale, scale);
}

static void probing_tells_constant_proportional_and_other(void)
{
    AUTO(graph_free) struct graph *g = shape_chain();

    CHECK_EQ(graph_infer(g, NULL), 0);
    check_dim(g, "s", 0, 4, "const");
    check_dim(g, "flat", 0, 1, "batch");
    check_dim(g, "flat", 1, -1, "varies"); /* 3 x side x side */
    CHECK_EQ(g->values[g->out[0]].rank, 2);
    CHECK_EQ(g->values[g->out[0]].dtype, DT_FP32);
}

/* min(n, 20) is n for small n; ceil(n / 2) is no multiple of n; Concat(x, x) is 2n. */
static void clamps_and_roundings_are_no_proportion(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct ow g = {0}, n;

    ow_input(&g, "x", DT_FP32, "4,n");
    init_ints(&g, "from", "1", (int64_t[]){0}, 1);
    init_ints(&g, "to", "1", (int64_t[]){20}, 1);
    init_ints(&g, "end", "1", (int64_t[]){INT64_MAX}, 1);
    init_ints(&g, "axis", "1", (int64_t[]){1}, 1);
    init_ints(&g, "two", "1", (int64_t[]){2}, 1);
    ow_plain(&g, "Slice", "clamp", "x,from,to,axis", "first");
    ow_plain(&g, "Slice", "half", "x,from,end,axis,two", "every");
    n = ow_node("Concat", "cat", "x,x", "twice");
    ow_attr_int(&n, "axis", 1);
    ow_add(&g, OW_NODE, &n);
    ow_output(&g, "first");
    ow_output(&g, "every");
    ow_output(&g, "twice");
    r = read_model(&g, 17);
    CHECK_EQ(graph_infer(r, NULL), 0);
    check_dim(r, "first", 0, 4, "const");
    check_dim(r, "first", 1, -1, "varies");
    check_dim(r, "every", 1, -1, "varies");
    check_dim(r, "twice", 1, 2, "n");
}

static void dependants_of_an_unproven_symbol_vary(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "batch,h");
    ow_input(&g, "w", DT_FP32, "64,5");
    ow_plain(&g, "MatMul", "mul", "x,w", "y"); /* h must be 64 */
    ow_plain(&g, "Relu", "relu", "w", "z");
    ow_output(&g, "y");
    ow_output(&g, "z");
    r = read_model(&g, 17);
    CHECK_EQ(graph_infer(r, NULL), 0);
    check_dim(r, "y", 0, -1, "varies");
    check_dim(r, "y", 1, -1, "varies");
    check_dim(r, "z", 0, 64, "const");
}

static void what_binds_with_no_number_is_the_models_error(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct err e = {0};
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "batch,3");
    ow_input(&g, "w", DT_FP32, "4,5");
    ow_plain(&g, "MatMul", "fc", "x,w", "y");
    ow_output(&g, "y");
    r = read_model(&g, 17);
    CHECK_EQ(graph_infer(r, &e), -EINVAL);
    CHECK_STR(e.msg, "node 0 'fc' (MatMul): shapes [3,3] and [4,5] cannot be multiplied");
}

/* y = Relu(Reshape(x, s)), z = Relu(x): what comes of s is late. */
static struct graph *late_model(void)
{
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "n");
    ow_input(&g, "s", DT_INT64, "2");
    ow_plain(&g, "Reshape", "r", "x,s", "wide");
    ow_plain(&g, "Relu", "a", "wide", "y");
    ow_plain(&g, "Relu", "b", "x", "z");
    ow_value(&g, OW_OUTPUT, "y", DT_FP32, "2,?");
    ow_output(&g, "z");
    return read_model(&g, 17);
}

static void a_shape_that_depends_on_data_makes_its_readers_late(void)
{
    AUTO(graph_free) struct graph *r = late_model();
    struct shape_key key = {.n = 1, .dim = {6}};
    struct err e = {0};
    struct bound *b;
    struct arena a;

    arena_init(&a);
    CHECK_EQ(graph_bind(r, &key, &a, &b, &e), 0);
    CHECK_STR(e.msg, "");
    CHECK_EQ(b->n_late, 2);
    CHECK(b->late_node[0] && b->late_node[1] && !b->late_node[2]);
    CHECK(b->late_value[r->out[0]] && !b->late_value[r->out[1]]);
    CHECK_EQ(b->value[r->out[0]].dtype, DT_NONE);
    CHECK_EQ(b->value[r->out[1]].dims[0], 6);
    CHECK_EQ(node_cost(b, 0).bytes, 0);
    arena_done(&a);
}

static void late_values_have_no_shape_until_they_are_settled(void)
{
    AUTO(graph_free) struct graph *r = late_model();
    struct err e = {0};
    const struct value *y = &r->values[r->out[0]];

    CHECK_EQ(graph_infer(r, &e), 0);
    CHECK_EQ(y->dtype, DT_NONE);
    CHECK_EQ(y->rank, -1);
    CHECK_EQ(graph_settle_late(r, &e), 0);
    CHECK_EQ(y->dtype, DT_FP32);
    CHECK_EQ(y->rank, 2);
    CHECK_EQ(y->dims[0].scale, 2);
    CHECK_EQ(y->dims[1].sym, SYM_VARIES);
    CHECK_STR(r->nodes[0].name, "b"); /* late nodes moved to the end */
    CHECK_STR(r->nodes[1].name, "r");
    CHECK_STR(r->nodes[2].name, "a");
    CHECK_EQ(r->values[r->out[1]].producer, 0);
    CHECK_EQ(y->producer, 2);
}

static void late_nodes_are_the_last_segment(void)
{
    AUTO(graph_free) struct graph *r = late_model();
    struct err e = {0};

    CHECK_EQ(graph_infer(r, &e), 0);
    CHECK_EQ(graph_settle_late(r, &e), 0);
    CHECK_EQ(graph_cut(r, &e), 0);
    CHECK_EQ(r->n_segments, 2);
    CHECK_EQ(r->cut[1], 1);
    CHECK_EQ(r->cut[2], 3);
}

/* The shape of a string tensor is that of the request; its size in bytes is not. */
static void the_shape_of_strings_is_known_and_nothing_else(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct shape_key key = {.n = 1, .dim = {6}};
    struct ow g = {0};
    struct bound *b;
    struct arena a;

    ow_input(&g, "x", DT_STRING, "n,2");
    ow_plain(&g, "Shape", "s", "x", "dims");
    ow_plain(&g, "Identity", "i", "x", "same");
    ow_output(&g, "dims");
    ow_output(&g, "same");
    r = read_model(&g, 17);
    arena_init(&a);
    CHECK_EQ(graph_bind(r, &key, &a, &b, NULL), 0);
    CHECK(b->late_value[r->in[0]] && b->value[r->in[0]].dims[0] == 6);
    CHECK(b->skip[0] && ((int64_t *)b->value[r->out[0]].data)[0] == 6);
    CHECK(b->late_node[1] && b->n_late == 1);
    arena_done(&a);
}

static void a_tensor_over_4_gib_is_refused_by_node_and_shape(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct err e = {0};
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "100000,1");
    ow_input(&g, "w", DT_FP32, "100000");
    ow_plain(&g, "Add", "outer", "x,w", "y");
    ow_output(&g, "y");
    r = read_model(&g, 17);
    CHECK_EQ(graph_infer(r, &e), -EINVAL);
    CHECK_HAS(e.msg, "node 0 'outer' (Add): shape [100000,100000] of FP32 has 40000000000 bytes");
}

/* Each step doubles what it has: without a bound this would be 2^40 numbers. */
/* x, two copies of it and their sum: at the Add three are alive, 4000 bytes each. */
static void a_run_that_needs_too_much_at_a_time_is_refused(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct shape_key key = {.n = 1, .dim = {1000}};
    struct err e = {0};
    struct ow g = {0};
    struct bound *b;
    struct arena a;

    ow_input(&g, "x", DT_FP32, "n");
    ow_plain(&g, "Relu", "r", "x", "a");
    ow_plain(&g, "Relu", "s", "x", "b");
    ow_plain(&g, "Add", "sum", "a,b", "y");
    ow_output(&g, "y");
    r = read_model(&g, 17);
    arena_init(&a);
    r->limits.live_bytes = 12000;
    CHECK_EQ(graph_bind(r, &key, &a, &b, &e), 0);
    r->limits.live_bytes = 11999;
    CHECK_EQ(graph_bind(r, &key, &a, &b, &e), -EINVAL);
    CHECK_HAS(e.msg, "a run needs 12000 bytes at a time (at most 11999), at node 's'");
    arena_done(&a);
}

static void evaluation_stops_at_its_bound(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct shape_key key = {0};
    struct bound *b = NULL;
    struct ow g = {0}, n;
    char in[32], out[32];
    struct arena a;

    init_ints(&g, "v0", "2", (int64_t[]){1, 2}, 2);
    for (int i = 0; i < 20; i++) {
        (void)snprintf(in, sizeof(in), "v%d,v%d", i, i);
        (void)snprintf(out, sizeof(out), "v%d", i + 1);
        n = ow_node("Concat", "cat", in, out);
        ow_attr_int(&n, "axis", 0);
        ow_add(&g, OW_NODE, &n);
    }
    ow_output(&g, "v20");
    r = read_model(&g, 17);
    arena_init(&a);
    CHECK_EQ(graph_bind(r, &key, &a, &b, NULL), 0);
    if (b) {
        CHECK_EQ(b->value[r->out[0]].dims[0], 2 << 20);
        CHECK(!b->value[r->out[0]].data);
        CHECK(b->value[value_id(r, "v15")].data); /* 65536 numbers */
        CHECK(!b->value[value_id(r, "v16")].data);
        CHECK(a.total_bytes < 4 * BIND_EVAL_MAX_ELEMS * sizeof(int64_t));
    }
    arena_done(&a);
}

static void a_key_must_fit_the_model(void)
{
    AUTO(graph_free) struct graph *g = shape_chain();
    struct shape_key key = {.n = 1, .dim = {4}};
    struct bound *b = NULL;
    struct err e = {0};
    struct arena a;

    arena_init(&a);
    CHECK_EQ(graph_bind(g, &key, &a, &b, &e), -EINVAL);
    CHECK_STR(e.msg, "a shape key of 1 numbers, the model has 2 free dimensions");
    key = (struct shape_key){.n = 2, .dim = {INT64_MAX, 4}};
    CHECK_EQ(graph_bind(g, &key, &a, &b, &e), -EINVAL);
    CHECK_HAS(e.msg, "input 'x': dimension 0 cannot be");
    key = (struct shape_key){.n = 2, .dim = {-1, 4}};
    CHECK_EQ(graph_bind(g, &key, &a, &b, &e), -EINVAL);
    CHECK_HAS(e.msg, "free dimension 'batch' cannot be -1");
    arena_done(&a);
}

/* x [2,3] w [3,5]: 2 x 5 sums of 3 products; 4 bytes for each of 6 + 15 + 10 numbers. */
static void a_product_costs_two_operations_a_term(void)
{
    AUTO(graph_free) struct graph *r = NULL;
    struct shape_key key = {.n = 1, .dim = {2}};
    struct bound *b = NULL;
    struct ow g = {0};
    struct arena a;

    ow_input(&g, "x", DT_FP32, "batch,3");
    ow_input(&g, "w", DT_FP32, "3,5");
    ow_plain(&g, "MatMul", "fc", "x,w", "y");
    ow_output(&g, "y");
    r = read_model(&g, 17);
    arena_init(&a);
    CHECK_EQ(graph_bind(r, &key, &a, &b, NULL), 0);
    CHECK_EQ(b ? node_cost(b, 0).flops : 0, 60);
    CHECK_EQ(b ? node_cost(b, 0).bytes : 0, 124);
    arena_done(&a);
}

static void a_batch_norm_of_old_says_that_it_is_no_training(void)
{
    static const struct row rows[] = {
        {"BatchNormalization", 6, {{"is_test", "=1"}}, {"2,3,4", "3", "3", "3", "3"}, "[2,3,4]"},
        {"BatchNormalization", 6, {{0}}, {"2,3,4", "3", "3", "3", "3"}, "training"},
        {"BatchNormalization", 7, {{0}}, {"2,3,4", "3", "3", "3", "3"}, "[2,3,4]"},
    };

    check_rows(rows, ARRAY_SIZE(rows));
}

int main(void)
{
    RUN(windows_follow_strides_pads_and_dilations);
    RUN(products_follow_numpy);
    RUN(numbers_come_as_attributes_or_as_inputs);
    RUN(shapes_are_moved_cut_and_joined);
    RUN(shape_arithmetic_is_evaluated_and_skipped);
    RUN(probing_tells_constant_proportional_and_other);
    RUN(clamps_and_roundings_are_no_proportion);
    RUN(dependants_of_an_unproven_symbol_vary);
    RUN(what_binds_with_no_number_is_the_models_error);
    RUN(a_shape_that_depends_on_data_makes_its_readers_late);
    RUN(late_values_have_no_shape_until_they_are_settled);
    RUN(late_nodes_are_the_last_segment);
    RUN(the_shape_of_strings_is_known_and_nothing_else);
    RUN(a_tensor_over_4_gib_is_refused_by_node_and_shape);
    RUN(a_run_that_needs_too_much_at_a_time_is_refused);
    RUN(evaluation_stops_at_its_bound);
    RUN(a_key_must_fit_the_model);
    RUN(a_batch_norm_of_old_says_that_it_is_no_training);
    RUN(a_product_costs_two_operations_a_term);
    for (size_t i = 0; i < n_files; i++)
        ow_done(&files[i]);
    return check_end();
}
