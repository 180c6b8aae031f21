#include "../check.h"
#include "onnx_write.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const float six[] = {1, 2, 3, 4, 5, 6};

/* y = x + w, w [2,3]. */
static struct ow add_graph(void)
{
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "batch,2,3");
    ow_init(&g, "w", DT_FP32, "2,3", six, sizeof(six));
    ow_plain(&g, "Add", "add", "x,w", "y");
    ow_output(&g, "y");
    return g;
}

/* Read the graph as a model and expect an error that mentions `part`. */
static void refuses_at(struct ow *g, int64_t opset, int code, const char *part)
{
    struct graph *ret = NULL;
    struct err e = {0};
    struct ow m = ow_model(g, opset);

    CHECK_EQ(ow_read(&m, NULL, &ret, &e), code);
    CHECK_HAS(e.msg, part);
    CHECK(!ret);
    graph_free(ret);
    ow_done(&m);
}

static void refuses(struct ow *g, int code, const char *part)
{
    refuses_at(g, 17, code, part);
}

static void a_model_becomes_a_graph(void)
{
    struct ow g = add_graph(), m = ow_model(&g, 17);
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};

    CHECK_EQ(ow_read(&m, NULL, &ret, &e), 0);
    if (ret) {
        CHECK_EQ(ret->n_in, 1);
        CHECK_EQ(ret->n_out, 1);
        CHECK_EQ(ret->n_nodes, 1);
        CHECK_EQ(ret->nodes[0].op, OP_Add);
        CHECK_EQ(ret->nodes[0].opset, 17);
        CHECK_STR(ret->nodes[0].name, "add");
        CHECK_STR(ret->syms[0].name, "batch");
        CHECK_EQ(ret->values[ret->in[0]].dims[0].sym, 0);
        CHECK_EQ(ret->values[ret->in[0]].dims[2].scale, 3);
        const struct constant *w = ret->values[ret->nodes[0].in[1]].constant;
        CHECK(w && memcmp(w->t.data, six, sizeof(six)) == 0);
        CHECK(w && (uintptr_t)w->t.data % sizeof(float) == 0);
    }
    graph_free(TAKE(ret));
    ow_done(&m);
}

static float big[4096];

static struct ow big_model(void)
{
    struct ow g = {0};

    for (size_t i = 0; i < ARRAY_SIZE(big); i++)
        big[i] = (float)i;
    ow_input(&g, "x", DT_FP32, "4096");
    ow_init(&g, "w", DT_FP32, "4096", big, sizeof(big));
    ow_plain(&g, "Add", "add", "x,w", "y");
    ow_output(&g, "y");
    return ow_model(&g, 17);
}

/* Read from `file`; its weights lie there, and are whole after their pages have been given back. */
static void read_big(const struct mapping *file, enum const_source want)
{
    AUTO(graph_free) struct graph *ret = NULL;
    struct mapping *ext = NULL;
    uint32_t n_ext = 0;

    CHECK_EQ(onnx_read(file, NULL, NULL, &ret, &ext, &n_ext, NULL), 0);
    free(ext);
    if (!ret)
        return;
    const struct constant *w = ret->values[ret->nodes[0].in[1]].constant;
    const uint8_t *at = w->t.data, *base = file->base;
    CHECK_EQ(w->source, want);
    CHECK(at > base && at + w->t.bytes <= base + file->bytes);
    CHECK(ret->arena.total_bytes < sizeof(big));
    constant_drop(w);
    CHECK_EQ(memcmp(at, big, sizeof(big)), 0);
}

static void large_weights_stay_in_the_file(void)
{
    struct ow m = big_model();
    AUTO(close_fd) int fd = memfd_create("model", MFD_CLOEXEC);
    struct mapping file = {.bytes = m.n, .is_file = true};

    CHECK_EQ(write(fd, m.p, m.n), (ssize_t)m.n);
    file.base = mmap(NULL, m.n, PROT_READ, MAP_PRIVATE, fd, 0);
    assert(file.base != MAP_FAILED);
    read_big(&file, CONST_FILE);
    (void)munmap((void *)file.base, file.bytes);
    ow_done(&m);
}

static void a_file_that_lies_in_memory_keeps_its_pages(void)
{
    struct ow m = big_model();

    read_big(&(struct mapping){.base = m.p, .bytes = m.n}, CONST_ARENA);
    ow_done(&m);
}

static void an_unknown_operator_is_named_with_its_node(void)
{
    struct ow g = add_graph();

    ow_plain(&g, "Optional", "up", "y", "z");
    refuses(&g, -ENOTSUP, "node 1 'up' (Optional): operator is not supported");
}

static void an_operator_of_another_domain_is_refused(void)
{
    struct ow g = add_graph(), n = ow_node("Relu", "r", "y", "z");

    ow_str(&n, 7, "com.example");
    ow_add(&g, OW_NODE, &n);
    refuses(&g, -ENOTSUP, "node 1 'r' (Relu): operators of domain 'com.example'");
}

/* ---- bodies and functions */

/* A graph whose one node is an If over `depth` more such graphs; the innermost is Relu(x). */
static struct ow nested_ifs(int depth)
{
    struct ow g = {0};

    if (depth == 0) {
        ow_plain(&g, "Relu", "r", "x", "y");
    } else {
        struct ow n = ow_node("If", "if", "flag", "y"), inner = nested_ifs(depth - 1);
        ow_attr_graph(&n, "then_branch", &inner);
        inner = nested_ifs(0);
        ow_attr_graph(&n, "else_branch", &inner);
        ow_add(&g, OW_NODE, &n);
    }
    ow_output(&g, "y");
    return g;
}

static void what_a_body_reads_of_its_surroundings_is_an_input_of_its_node(void)
{
    struct ow g = nested_ifs(2);
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};

    ow_input(&g, "x", DT_FP32, "n");
    ow_input(&g, "flag", DT_BOOL, "");
    struct ow m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), 0);
    CHECK_STR(e.msg, "");
    const struct node *n = ret ? &ret->nodes[0] : NULL;
    const struct attr *a = n ? node_attr(n, "then_branch") : NULL;
    if (a) {
        CHECK_EQ(n->n_own, 1);
        CHECK_EQ(n->n_in, 4); /* flag; x and flag of then_branch, x of else_branch */
        CHECK_EQ(a->type, ATTR_GRAPH);
        CHECK_EQ(a->body->n_captured, 2);
        for (uint32_t i = 0; i < 2; i++)
            CHECK_STR(a->body->g->values[a->body->inner[i]].name,
                      ret->values[n->in[a->body->outer[i]]].name);
        CHECK_EQ(a->body->g->nodes[0].op, OP_If);
        CHECK_EQ(a->body->g->n_in, 0);
    }
    ow_done(&m);
}

static void nesting_ends_at_its_limit(void)
{
    struct ow g = nested_ifs(17);

    ow_input(&g, "x", DT_FP32, "n");
    ow_input(&g, "flag", DT_BOOL, "");
    struct ow m = ow_model(&g, 17);
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), -EINVAL);
    CHECK_HAS(e.msg, "node 0 'if' (If): attribute 'then_branch': node 0 'if' (If): ");
    ow_done(&m);
    g = nested_ifs(16);
    ow_input(&g, "x", DT_FP32, "n");
    ow_input(&g, "flag", DT_BOOL, "");
    m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), 0);
    ow_done(&m);
}

/* 1 + 1 + 2 nodes, those of both branches counted. */
static void nodes_of_all_graphs_are_counted(void)
{
    struct model_limits limits = model_limits_default;
    struct ow g = nested_ifs(1);
    struct graph *ret = NULL;
    struct err e = {0};

    ow_input(&g, "x", DT_FP32, "n");
    ow_input(&g, "flag", DT_BOOL, "");
    ow_plain(&g, "Relu", "last", "y", "z");
    struct ow m = ow_model(&g, 17);
    limits.nodes = 3;
    CHECK_EQ(ow_read_within(&m, &limits, &ret, &e), -EINVAL);
    CHECK_HAS(e.msg, "the model has more than 3 nodes");
    limits.nodes = 4;
    CHECK_EQ(ow_read_within(&m, &limits, &ret, &e), 0);
    limits.nesting = 0;
    graph_free(TAKE(ret));
    CHECK_EQ(ow_read_within(&m, &limits, &ret, &e), -EINVAL);
    CHECK_HAS(e.msg, "node 0 'if' (If): attribute 'then_branch': nested deeper than 0 levels");
    ow_done(&m);
}

static void errors_inside_a_body_say_where(void)
{
    struct ow g = add_graph(), n = ow_node("If", "if", "x", "z"), body = {0};

    ow_plain(&body, "Relu", "r", "nothing", "v");
    ow_output(&body, "v");
    ow_attr_graph(&n, "then_branch", &body);
    ow_add(&g, OW_NODE, &n);
    refuses(&g, -EINVAL,
            "node 1 'if' (If): attribute 'then_branch': node 0 'r' (Relu): input 'nothing' is "
            "defined nowhere");
}

/* twice(a) = Add(a, Elu(a, alpha=@slope)), in domain "my". */
static struct ow twice_function(float slope)
{
    struct ow f = {0}, n = ow_node("Elu", "elu", "a", "e"), a = {0}, import = {0};

    ow_str(&f, 1, "twice");
    ow_str(&f, 4, "a");
    ow_str(&f, 5, "sum");
    ow_str(&a, 1, "alpha");
    ow_int(&a, 20, 1);
    ow_str(&a, 21, "slope");
    ow_add(&n, OW_ATTR, &a);
    ow_add(&f, 7, &n);
    n = ow_node("Add", "add", "a,e", "sum");
    ow_add(&f, 7, &n);
    ow_int(&import, 2, 15);
    ow_add(&f, 9, &import);
    ow_str(&f, 10, "my");
    ow_str(&a, 1, "slope");
    ow_float(&a, 2, slope);
    ow_int(&a, 20, 1);
    ow_add(&f, 11, &a);
    return f;
}

static void functions_are_read_in_place_of_their_calls(void)
{
    struct ow g = {0}, n = ow_node("twice", "t", "x", "y"), f = twice_function(0.5f), a = {0};
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};

    ow_input(&g, "x", DT_FP32, "n");
    ow_str(&n, 7, "my");
    ow_add(&g, OW_NODE, &n);
    n = ow_node("twice", "u", "y", "z");
    ow_str(&n, 7, "my");
    ow_str(&a, 1, "slope");
    ow_float(&a, 2, 0.25f);
    ow_int(&a, 20, 1);
    ow_add(&n, OW_ATTR, &a);
    ow_add(&g, OW_NODE, &n);
    ow_output(&g, "z");
    struct ow m = ow_model(&g, 17);
    ow_add(&m, 25, &f);
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), 0);
    CHECK_STR(e.msg, "");
    if (ret) {
        CHECK_EQ(ret->n_nodes, 6); /* Elu, Add, Identity for each call */
        CHECK_EQ(ret->nodes[0].op, OP_Elu);
        CHECK_EQ(ret->nodes[0].opset, 15);
        CHECK(node_float(&ret->nodes[0], "alpha", 0) == 0.5f);
        CHECK(node_float(&ret->nodes[3], "alpha", 0) == 0.25f);
        CHECK_EQ(ret->nodes[5].op, OP_Identity);
        CHECK_EQ(ret->values[ret->out[0]].producer, 5);
    }
    ow_done(&m);
}

static void a_function_that_calls_itself_is_refused(void)
{
    struct ow g = {0}, n = ow_node("twice", "t", "x", "y"), f = twice_function(1);
    struct graph *ret = NULL;
    struct err e = {0};

    ow_input(&g, "x", DT_FP32, "n");
    ow_str(&n, 7, "my");
    ow_add(&g, OW_NODE, &n);
    ow_output(&g, "y");
    n = ow_node("twice", "again", "sum", "more");
    ow_str(&n, 7, "my");
    ow_add(&f, 7, &n);
    struct ow m = ow_model(&g, 17);
    ow_add(&m, 25, &f);
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), -EINVAL);
    CHECK_HAS(e.msg, "node 2 'again' (twice): ");
    CHECK(!ret);
    ow_done(&m);
}

static void opsets_outside_1_to_26_are_refused(void)
{
    struct ow g = add_graph();

    refuses_at(&g, 0, -ENOTSUP, "opset 0 is not supported (1 to 26)");
    g = add_graph();
    refuses_at(&g, 27, -ENOTSUP, "opset 27 is not supported (1 to 26)");
}

static void a_list_of_strings_is_an_attribute(void)
{
    struct ow g = add_graph(), n = ow_node("Relu", "r", "y", "z");
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};
    uint32_t len;

    ow_attr_strs(&n, "words", "one,three,");
    ow_add(&g, OW_NODE, &n);
    ow_output(&g, "z");
    struct ow m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), 0);
    const struct attr_text *words = ret ? node_strs(&ret->nodes[1], "words", &len) : NULL;
    CHECK(words && len == 2);
    if (words) {
        CHECK_STR(words[0].s, "one");
        CHECK_STR(words[1].s, "three");
        CHECK_EQ(words[1].n, 5);
    }
    ow_done(&m);
}

static void declared_outputs_are_noted(void)
{
    struct ow g = {0};
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};

    ow_input(&g, "x", DT_FP32, "batch,3");
    ow_plain(&g, "Relu", "r", "x", "y");
    ow_plain(&g, "Relu", "s", "y", "z");
    ow_value(&g, OW_OUTPUT, "y", DT_FP16, "batch,3,other");
    ow_output(&g, "z");
    struct ow m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, &e), 0);
    const struct value *y = ret ? &ret->values[ret->out[0]] : NULL, *z = y;
    if (ret) {
        CHECK_EQ(y->dtype, DT_FP16); /* not so, but known only later */
        CHECK_EQ(y->rank, 3);
        CHECK_EQ(y->dims[0].sym, 0);
        CHECK_EQ(y->dims[1].scale, 3);
        CHECK_EQ(y->dims[2].sym, SYM_VARIES);
        CHECK_EQ(ret->n_syms, 1);
        z = &ret->values[ret->out[1]];
        CHECK_EQ(z->dtype, DT_NONE);
        CHECK_EQ(z->rank, -1);
        CHECK_EQ(graph_infer(ret, &e), 0);
        CHECK_EQ(y->dtype, DT_FP32);
        CHECK_EQ(y->rank, 2);
    }
    ow_done(&m);
}

static void data_of_the_wrong_size_is_refused(void)
{
    struct ow g = {0};

    ow_init(&g, "w", DT_FP32, "2,3", six, 12);
    refuses(&g, -EINVAL, "initializer 'w': 12 bytes of data, shape [2,3] of FP32 needs 24");
}

static void giant_and_negative_dimensions_are_refused(void)
{
    struct ow g = {0};

    ow_init(&g, "w", DT_FP32, "-5", six, 24);
    refuses(&g, -EINVAL, "initializer 'w': dimension 0 is -5");
    ow_init(&g, "w", DT_FP32, "1000000000000,1000000000000", six, 24);
    refuses(&g, -EINVAL, "initializer 'w': shape [1000000000000,1000000000000] is too large");
    ow_init(&g, "w", DT_FP32, "1,1,1,1,1,1,1,1,1", six, 4);
    refuses(&g, -EINVAL, "initializer 'w': more than 8 dimensions");
    ow_input(&g, "x", DT_FP32, "2,-7");
    refuses(&g, -EINVAL, "input 'x': dimension 1 is -7");
}

static void unknown_element_types_are_refused(void)
{
    struct ow g = {0};

    ow_input(&g, "x", 17, "1");
    refuses(&g, -ENOTSUP, "input 'x': element type 17 is not supported");
    ow_init(&g, "w", (enum dtype)14, "1", six, 8);
    refuses(&g, -ENOTSUP, "initializer 'w': element type 14 is not supported");
}

static void names_must_be_defined_and_only_once(void)
{
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "1");
    ow_plain(&g, "Add", "add", "x,nowhere", "y");
    ow_output(&g, "y");
    refuses(&g, -EINVAL, "node 0 'add' (Add): input 'nowhere' is defined nowhere");
    ow_input(&g, "x", DT_FP32, "1");
    ow_plain(&g, "Relu", "a", "x", "y");
    ow_plain(&g, "Relu", "b", "x", "y");
    refuses(&g, -EINVAL, "node 1 'b' (Relu): output 'y': this name is taken");
    ow_input(&g, "x", DT_FP32, "1");
    ow_output(&g, "y");
    refuses(&g, -EINVAL, "output 'y' is computed nowhere");
    ow_input(&g, "x", DT_FP32, "1");
    refuses(&g, -EINVAL, "no outputs");
}

static void nodes_are_put_in_execution_order(void)
{
    struct ow g = {0}, m;
    AUTO(graph_free) struct graph *ret = NULL;

    ow_plain(&g, "Relu", "third", "b", "c");
    ow_plain(&g, "Abs", "second", "a", "b");
    ow_plain(&g, "Neg", "first", "x", "a");
    ow_input(&g, "x", DT_FP32, "4");
    ow_output(&g, "c");
    m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    if (ret) {
        CHECK_STR(ret->nodes[0].name, "first");
        CHECK_STR(ret->nodes[1].name, "second");
        CHECK_STR(ret->nodes[2].name, "third");
        CHECK_EQ(ret->values[ret->out[0]].producer, 2);
    }
    graph_free(TAKE(ret));
    ow_done(&m);
}

static void a_cycle_is_refused_by_a_nodes_name(void)
{
    struct ow g = {0};

    ow_input(&g, "x", DT_FP32, "4");
    ow_plain(&g, "Add", "a", "x,c", "b");
    ow_plain(&g, "Relu", "r", "b", "c");
    ow_output(&g, "c");
    refuses(&g, -EINVAL, "needs its own result (a cycle)");
}

static void an_input_with_an_initializer_is_a_constant(void)
{
    struct ow g = add_graph(), m;
    AUTO(graph_free) struct graph *ret = NULL;

    ow_input(&g, "w", DT_FP32, "2,3");
    m = ow_model(&g, 8);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    CHECK(ret && ret->n_in == 1 && ret->values[ret->nodes[0].in[1]].constant);
    graph_free(TAKE(ret));
    ow_done(&m);
}

static void a_constant_node_becomes_a_constant(void)
{
    struct ow g = {0}, n = ow_node("Constant", "c", "", "w"), m;
    AUTO(graph_free) struct graph *ret = NULL;
    const int64_t v[] = {7, -1};

    ow_attr_ints(&n, "value_ints", v, 2);
    ow_add(&g, OW_NODE, &n);
    ow_input(&g, "x", DT_FP32, "14");
    ow_plain(&g, "Reshape", "r", "x,w", "y");
    ow_output(&g, "y");
    m = ow_model(&g, 13);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    if (ret) {
        CHECK_EQ(ret->n_nodes, 1);
        const struct constant *w = ret->values[ret->nodes[0].in[1]].constant;
        CHECK(w && w->t.dtype == DT_INT64 && w->t.rank == 1 && w->t.dims[0] == 2);
        CHECK(w && memcmp(w->t.data, v, sizeof(v)) == 0);
    }
    graph_free(TAKE(ret));
    ow_done(&m);
}

static void dimensions_without_a_name_get_one(void)
{
    struct ow g = {0}, m;
    AUTO(graph_free) struct graph *ret = NULL;

    ow_input(&g, "image", DT_FP32, "?,3,-1,n");
    ow_plain(&g, "Relu", "r", "image", "y");
    ow_output(&g, "y");
    m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    if (ret) {
        CHECK_EQ(ret->n_syms, 3);
        CHECK_STR(ret->syms[0].name, "image.0");
        CHECK_STR(ret->syms[1].name, "image.2");
        CHECK_STR(ret->syms[2].name, "n");
    }
    graph_free(TAKE(ret));
    ow_done(&m);
}

/* int32_data holds every small type; 300 is no INT8. */
static void small_types_come_in_int32_data(void)
{
    struct ow g = {0}, t = ow_tensor("w", DT_INT8, "3"), m;
    AUTO(graph_free) struct graph *ret = NULL;
    const int8_t want[] = {-1, 0, 127};

    for (size_t i = 0; i < 3; i++)
        ow_int(&t, 5, want[i]);
    ow_add(&g, OW_INIT, &t);
    ow_output(&g, "w");
    m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    const struct constant *w = ret ? ret->values[ret->out[0]].constant : NULL;
    CHECK(w && w->t.bytes == 3 && memcmp(w->t.data, want, 3) == 0);
    CHECK(w && w->source == CONST_ARENA);
    graph_free(TAKE(ret));
    ow_done(&m);

    t = ow_tensor("w", DT_INT8, "1");
    ow_int(&t, 5, 300);
    ow_add(&g, OW_INIT, &t);
    refuses(&g, -EINVAL, "initializer 'w': element 0 in int32_data is no INT8");
}

/* Packed float_data lies as raw_data does; a list of single floats is gathered. */
static void floats_come_packed_or_one_by_one(void)
{
    struct ow g = {0}, t = ow_tensor("a", DT_FP32, "2,3"), m;
    AUTO(graph_free) struct graph *ret = NULL;

    ow_bytes(&t, 4, six, sizeof(six));
    ow_add(&g, OW_INIT, &t);
    t = ow_tensor("b", DT_FP32, "6");
    ow_bytes(&t, 4, six, 8);
    for (size_t i = 2; i < 6; i++) {
        ow_varint(&t, 4 << 3 | 5);
        ow_put(&t, &six[i], sizeof(six[i]));
    }
    ow_add(&g, OW_INIT, &t);
    ow_output(&g, "a");
    ow_output(&g, "b");
    m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    for (uint32_t i = 0; ret && i < 2; i++) {
        const struct constant *c = ret->values[ret->out[i]].constant;
        CHECK(c && c->t.bytes == sizeof(six) && memcmp(c->t.data, six, sizeof(six)) == 0);
    }
    graph_free(TAKE(ret));
    ow_done(&m);

    t = ow_tensor("a", DT_FP32, "2,3");
    ow_bytes(&t, 4, six, 23);
    ow_add(&g, OW_INIT, &t);
    refuses(&g, -EINVAL, "initializer 'a': broken bytes");
    t = ow_tensor("a", DT_FP32, "2,3");
    ow_bytes(&t, 4, six, 20);
    ow_add(&g, OW_INIT, &t);
    refuses(&g, -EINVAL, "initializer 'a': 5 elements of data, shape [2,3] needs 6");
    t = ow_tensor("a", DT_INT64, "6");
    ow_bytes(&t, 4, six, 24);
    ow_add(&g, OW_INIT, &t);
    refuses(&g, -EINVAL, "initializer 'a': elements of INT64 in float_data");
}

static void strings_become_length_and_bytes(void)
{
    struct ow g = {0}, t = ow_tensor("w", DT_STRING, "2"), m;
    AUTO(graph_free) struct graph *ret = NULL;

    ow_str(&t, 6, "ab");
    ow_str(&t, 6, "");
    ow_add(&g, OW_INIT, &t);
    ow_output(&g, "w");
    m = ow_model(&g, 17);
    CHECK_EQ(ow_read(&m, NULL, &ret, NULL), 0);
    const struct constant *w = ret ? ret->values[ret->out[0]].constant : NULL;
    CHECK(w && w->t.bytes == 10 && memcmp(w->t.data, "\2\0\0\0ab\0\0\0\0", 10) == 0);
    graph_free(TAKE(ret));
    ow_done(&m);
}

static void bytes_that_are_no_model_are_refused(void)
{
    struct mapping file = {.base = "\x08\x08\x3a\xff\xff\xff\xff\x0f", .bytes = 8}, *ext;
    struct graph *ret = NULL;
    struct err e = {0};
    uint32_t n;

    CHECK_EQ(onnx_read(&file, NULL, NULL, &ret, &ext, &n, &e), -EINVAL);
    CHECK_HAS(e.msg, "not an ONNX model");
    file.bytes = 0;
    CHECK_EQ(onnx_read(&file, NULL, NULL, &ret, &ext, &n, &e), -EINVAL);
}

/* ---- external data */

static char folder[] = "/tmp/test_onnx.XXXXXX";

static void write_file(const char *name, const void *data, size_t n)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    (void)close(fd);
}

static void entry(struct ow *t, const char *key, const char *value)
{
    struct ow e = {0};

    ow_str(&e, 1, key);
    ow_str(&e, 2, value);
    ow_add(t, 13, &e);
}

/* w [2,3] lies at `offset` of `location`. */
static struct ow external_model(const char *location, const char *offset)
{
    struct ow g = {0}, t = ow_tensor("w", DT_FP32, "2,3");

    entry(&t, "location", location);
    entry(&t, "offset", offset);
    entry(&t, "length", "24");
    ow_int(&t, 14, 1);
    ow_add(&g, OW_INIT, &t);
    ow_output(&g, "w");
    return ow_model(&g, 17);
}

static void external(const char *location, const char *offset, int code, const char *part)
{
    struct ow m = external_model(location, offset);
    AUTO(graph_free) struct graph *ret = NULL;
    struct err e = {0};

    CHECK_EQ(ow_read(&m, folder, &ret, &e), code);
    CHECK_HAS(e.msg, part);
    const struct constant *w = ret ? ret->values[ret->out[0]].constant : NULL;
    CHECK(!w || memcmp(w->t.data, six, sizeof(six)) == 0);
    CHECK((w != NULL) == (code == 0));
    graph_free(TAKE(ret));
    ow_done(&m);
}

static void external_data_lies_in_the_models_folder(void)
{
    char path[128], data[8 + sizeof(six)] = {0};

    CHECK(mkdtemp(folder));
    memcpy(data + 8, six, sizeof(six));
    write_file("w.bin", data, sizeof(data));
    (void)snprintf(path, sizeof(path), "%s/sub", folder);
    CHECK_EQ(mkdir(path, 0700), 0);
    write_file("sub/w.bin", data, sizeof(data));
    (void)snprintf(path, sizeof(path), "%s/link", folder);
    CHECK_EQ(symlink("w.bin", path), 0);
    (void)snprintf(path, sizeof(path), "%s/up", folder);
    CHECK_EQ(symlink("sub", path), 0);

    external("w.bin", "8", 0, "");
    external("./sub/w.bin", "8", 0, "");
    external("w.bin", "9", -EINVAL, "has 32 bytes, needed are 24 at 9");
    external("w.bin", "18446744073709551615", -EINVAL, "needed are 24 at");
    external("w.bin", "-1", -EINVAL, "is no number");
    external("sub", "0", -EINVAL, "is not a regular file");
    external("gone.bin", "0", -EINVAL, "external data 'gone.bin'");
    const char *outside[] = {"../w.bin", "/etc/passwd",  "link",
                             "up/w.bin", "sub/../w.bin", "sub//w.bin"};
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
        external(outside[i], "0", -EINVAL, "must lie inside the model's folder");
}

/* The reader maps files, so they can go while a graph lives. */
static void remove_folder(void)
{
    const char *names[] = {"/w.bin", "/sub/w.bin", "/sub", "/link", "/up", ""};
    char path[128];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        (void)snprintf(path, sizeof(path), "%s%s", folder, names[i]);
        (void)remove(path);
    }
}

static void external_data_needs_a_folder(void)
{
    struct ow m = external_model("w.bin", "8");
    struct graph *ret = NULL;
    struct err e = {0};

    CHECK_EQ(ow_read(&m, NULL, &ret, &e), -EINVAL);
    CHECK_HAS(e.msg, "initializer 'w': external data is not accepted here");
    ow_done(&m);
}

int main(void)
{
    RUN(a_model_becomes_a_graph);
    RUN(large_weights_stay_in_the_file);
    RUN(a_file_that_lies_in_memory_keeps_its_pages);
    RUN(an_unknown_operator_is_named_with_its_node);
    RUN(an_operator_of_another_domain_is_refused);
    RUN(what_a_body_reads_of_its_surroundings_is_an_input_of_its_node);
    RUN(nesting_ends_at_its_limit);
    RUN(nodes_of_all_graphs_are_counted);
    RUN(errors_inside_a_body_say_where);
    RUN(functions_are_read_in_place_of_their_calls);
    RUN(a_function_that_calls_itself_is_refused);
    RUN(opsets_outside_1_to_26_are_refused);
    RUN(a_list_of_strings_is_an_attribute);
    RUN(declared_outputs_are_noted);
    RUN(data_of_the_wrong_size_is_refused);
    RUN(giant_and_negative_dimensions_are_refused);
    RUN(unknown_element_types_are_refused);
    RUN(names_must_be_defined_and_only_once);
    RUN(nodes_are_put_in_execution_order);
    RUN(a_cycle_is_refused_by_a_nodes_name);
    RUN(an_input_with_an_initializer_is_a_constant);
    RUN(a_constant_node_becomes_a_constant);
    RUN(dimensions_without_a_name_get_one);
    RUN(small_types_come_in_int32_data);
    RUN(floats_come_packed_or_one_by_one);
    RUN(strings_become_length_and_bytes);
    RUN(bytes_that_are_no_model_are_refused);
    RUN(external_data_lies_in_the_models_folder);
    RUN(external_data_needs_a_folder);
    remove_folder();
    return check_end();
}
