/* Building a small graph by hand, and running one with the reference kernels.
 *
 *     uint32_t x = input("x", "B 4");
 *     output(op(OP_Softmax, "axis=1", 1, x));
 *
 * The graph being built is `g`; start() makes a new one. */
#pragma once

#include "check.h"
#include <gpulet/model.h>
#include <kernels/ref/ref.h>
#include <math.h>
#include <stdarg.h>

static struct graph *g;

static inline void start(uint32_t opset)
{
    graph_free(g);
    g = graph_new(opset);
}

/* "B 4 2B": numbers, symbols, multiples of symbols. */
static inline int32_t parse_dims(const char *s, struct dim *ret)
{
    int32_t rank = 0;

    while (*s) {
        char *end;
        int64_t n = strtoll(s, &end, 10);
        bool digits = end != s;
        s = end;
        ret[rank] = (struct dim){digits ? n : 1, SYM_CONST};
        if (*s && *s != ' ') {
            char name[32];
            size_t len = strcspn(s, " ");
            (void)snprintf(name, sizeof(name), "%.*s", (int)len, s);
            assert(graph_add_sym(g, name, &ret[rank].sym) == 0);
            s += len;
        }
        rank++;
        while (*s == ' ')
            s++;
    }
    return rank;
}

static inline uint32_t input_of(const char *name, enum dtype dtype, const char *dims)
{
    struct dim d[MAX_RANK];
    uint32_t v = 0;
    int32_t rank = parse_dims(dims, d);

    assert(graph_add_value(g, name, dtype, rank, d, &v) == 0);
    g->in[g->n_in++] = v;
    return v;
}

static inline uint32_t input(const char *name, const char *dims)
{
    return input_of(name, DT_FP32, dims);
}

static inline void output(uint32_t v)
{
    g->out[g->n_out++] = v;
}

static inline uint32_t constant_of(enum dtype dtype, uint32_t rank, const int64_t *dims,
                                   const void *data)
{
    struct tensor t = {0};
    char name[32];
    uint32_t v = 0;

    (void)snprintf(name, sizeof(name), "c%u", g->n_values);
    assert(tensor_shape(&t, dtype, rank, dims) == 0);
    t.data = arena_memdup(&g->arena, data, t.bytes);
    assert(graph_add_const(g, name, &t, CONST_ARENA, &v) == 0);
    return v;
}

/* Pseudo-random numbers in [0.1, 1.1), the same for the same shape and place in the graph. */
static inline uint32_t weights(const char *dims)
{
    struct dim d[MAX_RANK];
    int64_t n = 1, dim[MAX_RANK];
    int32_t rank = parse_dims(dims, d);

    for (int32_t i = 0; i < rank; i++)
        n *= dim[i] = d[i].scale;
    float *x = malloc((size_t)n * sizeof(*x) + 1);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.1f + (float)((uint32_t)(i + 7 * g->n_values) * 2654435761u >> 8) / 16777216.f;
    uint32_t v = constant_of(DT_FP32, (uint32_t)rank, dim, x);
    free(x);
    return v;
}

static inline uint32_t scalar(float x)
{
    return constant_of(DT_FP32, 0, NULL, &x);
}

static inline uint32_t ints(int n, ...)
{
    int64_t x[16], len = n;
    va_list ap;

    va_start(ap, n);
    for (int i = 0; i < n; i++)
        x[i] = va_arg(ap, int);
    va_end(ap);
    return constant_of(DT_INT64, 1, &len, x);
}

static inline uint32_t int_scalar(int64_t x)
{
    return constant_of(DT_INT64, 0, NULL, &x);
}

/* "axis=1", "perm=1,0", "axes=2," (a list of one), "epsilon=0.1", "mode=text" */
static inline void add_attr(uint32_t node, const char *name, const char *text)
{
    struct attr a = {.name = name};
    int64_t list[16];
    char *end;

    (void)strtod(text, &end);
    if (strchr(text, ',') && (*text == '-' || (*text >= '0' && *text <= '9'))) {
        a.type = ATTR_INTS;
        a.ints = list;
        for (const char *s = text; *s; s = *end ? end + 1 : end)
            list[a.n++] = strtoll(s, &end, 10);
    } else if (*end) {
        a.type = ATTR_STRING;
        a.s = text;
        a.n = (uint32_t)strlen(text);
    } else if (strchr(text, '.')) {
        a.type = ATTR_FLOAT;
        a.f = strtof(text, NULL);
    } else {
        a.type = ATTR_INT;
        a.i = strtoll(text, NULL, 10);
    }
    assert(graph_add_attr(g, node, &a) == 0);
}

static inline uint32_t op_outs(const char *name, enum op_id id, const char *attrs, uint32_t n_out,
                               uint32_t n_in, const uint32_t *in)
{
    uint32_t out[8], node = 0;
    char text[200], *save = NULL;

    for (uint32_t i = 0; i < n_out; i++) {
        char value[40];
        (void)snprintf(value, sizeof(value), "%s.%u", name && *name ? name : op_name(id),
                       g->n_values);
        assert(graph_add_value(g, value, DT_NONE, -1, NULL, &out[i]) == 0);
    }
    assert(graph_add_node(g, name, id, n_in, in, n_out, out, &node) == 0);
    (void)snprintf(text, sizeof(text), "%s", attrs);
    for (char *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
        char *eq = strchr(t, '=');
        *eq = 0;
        add_attr(node, t, eq + 1);
    }
    return out[0]; /* the others follow it */
}

static inline uint32_t named(const char *name, enum op_id id, const char *attrs, int n, ...)
{
    uint32_t in[8];
    va_list ap;

    va_start(ap, n);
    for (int i = 0; i < n; i++)
        in[i] = va_arg(ap, uint32_t);
    va_end(ap);
    return op_outs(name, id, attrs, 1, (uint32_t)n, in);
}
#define op(id, attrs, n, ...) named("", id, attrs, n, __VA_ARGS__)

/* ---- bodies */

/* A graph inside the one at hand; end_body() gives it to a node. */
static struct graph *outer_graph;

static inline void start_body(void)
{
    outer_graph = g;
    g = graph_new_nested(outer_graph, outer_graph->opset);
}

/* inner: values of the body; captured: what they are outside. */
static inline void end_body(uint32_t value, const char *name, uint32_t n, const uint32_t *inner,
                            const uint32_t *captured)
{
    uint32_t outer[8], in[16], node = outer_graph->values[value].producer;
    struct body b = {.g = g, .n_captured = n, .inner = inner, .outer = outer};
    struct attr a = {.name = name, .type = ATTR_GRAPH, .body = &b};

    g = outer_graph;
    struct node *holder = &g->nodes[node];
    memcpy(in, holder->in, holder->n_in * sizeof(*in));
    for (uint32_t i = 0; i < n; i++) {
        outer[i] = holder->n_in;
        in[holder->n_in++] = captured[i];
    }
    holder->in = arena_memdup(&g->arena, in, holder->n_in * sizeof(*in));
    assert(graph_add_attr(g, node, &a) == 0);
}

static inline uint32_t plain_value(const char *name)
{
    uint32_t v = 0;

    assert(graph_add_value(g, name, DT_NONE, -1, NULL, &v) == 0);
    return v;
}

static inline uint32_t body_input(const char *name)
{
    uint32_t v = plain_value(name);

    g->in[g->n_in++] = v;
    return v;
}

/* ---- running */

static inline void run_node(struct bound *b, uint32_t id, struct arena *a)
{
    const struct node *n = &b->graph->nodes[id];
    const struct tensor *in[16] = {0}, *add[MAX_POST] = {0};
    struct tensor *out[16] = {0};
    struct err err = {0};

    for (uint32_t i = 0; i < n->n_in; i++)
        in[i] = n->in[i] == VALUE_NONE ? NULL : &b->value[n->in[i]];
    for (uint32_t i = 0; i < n->n_post; i++)
        add[i] = n->post[i].kind == POST_ADD ? &b->value[n->post[i].value] : NULL;
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (n->out[i] == VALUE_NONE)
            continue;
        out[i] = &b->value[n->out[i]];
        out[i]->data = arena_alloc(a, out[i]->bytes);
    }
    if (ref_run(n, in, add, out, &err) < 0) {
        printf("# node '%s' (%s): %s\n", n->name, op_name(n->op), err.msg);
        check_failures++;
    }
}

/* Fill graph input i with rows first, first + 1, ...: each row's numbers depend on its number. */
static inline void fill_rows(struct tensor *t, int64_t rows, int64_t first)
{
    size_t each = rows ? t->bytes / dtype_size(t->dtype) / (size_t)rows : 0;

    for (int64_t r = 0; r < rows; r++)
        for (size_t i = 0; i < each; i++) {
            uint32_t x = (uint32_t)((first + r) * 977 + (int64_t)i) * 2654435761u >> 8;
            size_t at = (size_t)r * each + i;
            if (t->dtype == DT_FP32)
                ((float *)t->data)[at] = (float)x / 8388608.f - 1;
            else if (t->dtype == DT_INT64)
                ((int64_t *)t->data)[at] = x % 5;
        }
}

/* Evaluate at a shape key; the result lives in a.  NULL when it cannot be bound. */
static inline struct bound *run_graph(const struct graph *graph, const struct shape_key *key,
                                      int64_t rows, int64_t first, struct arena *a)
{
    struct bound *b = NULL;
    struct err err = {0};

    if (graph_bind(graph, key, a, &b, &err) < 0) {
        printf("# bind: %s\n", err.msg);
        check_failures++;
        return NULL;
    }
    for (uint32_t i = 0; i < graph->n_in; i++) {
        struct tensor *t = &b->value[graph->in[i]];
        t->data = arena_alloc(a, t->bytes);
        fill_rows(t, rows, first);
    }
    for (uint32_t id = 0; id < graph->n_nodes; id++)
        if (!b->skip[id])
            run_node(b, id, a);
    return b;
}

/* The largest difference, relative to 1 or the number itself. */
static inline double difference(const struct tensor *a, const struct tensor *b)
{
    double worst = 0;

    if (a->dtype != b->dtype || a->bytes != b->bytes || a->rank != b->rank)
        return INFINITY;
    if (a->dtype != DT_FP32)
        return memcmp(a->data, b->data, a->bytes) ? INFINITY : 0;
    for (size_t i = 0; i < a->bytes / sizeof(float); i++) {
        double x = (double)((const float *)a->data)[i], y = (double)((const float *)b->data)[i];
        double d = fabs(x - y) / MAX(1.0, fabs(x));
        worst = isnan(d) ? INFINITY : MAX(worst, d);
    }
    return worst;
}
