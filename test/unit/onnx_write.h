/* Writing ONNX files for tests: as little as the tests need.
 *
 *     struct ow g = {0}, n = ow_node("Conv", "conv1", "x,w", "y");
 *     ow_attr_int(&n, "group", 1);
 *     ow_add(&g, OW_NODE, &n);
 *     ow_input(&g, "x", DT_FP32, "batch,3,?,224");
 *     ow_init(&g, "w", DT_FP32, "8,3,1,1", data, sizeof(data));
 *     ow_output(&g, "y");
 *     struct ow m = ow_model(&g, 17);
 *     ... m.p, m.n ...
 *     ow_done(&m);
 *
 * A shape is text: numbers, names of free dimensions, "?" for a dimension without either. */
#pragma once

#include <ctype.h>
#include <gpulet/model.h>

enum { OW_NODE = 1, OW_INIT = 5, OW_INPUT = 11, OW_OUTPUT = 12, OW_ATTR = 5 };

struct ow {
    uint8_t *p;
    size_t n, cap;
};

static inline void ow_done(struct ow *w)
{
    free(w->p);
    *w = (struct ow){0};
}

static inline void ow_put(struct ow *w, const void *data, size_t n)
{
    if (w->n + n > w->cap) {
        w->cap = (w->n + n) * 2;
        w->p = realloc(w->p, w->cap);
        assert(w->p);
    }
    if (n)
        memcpy(w->p + w->n, data, n);
    w->n += n;
}

static inline void ow_varint(struct ow *w, uint64_t u)
{
    do {
        uint8_t b = (uint8_t)(u & 0x7f) | (u > 0x7f ? 0x80 : 0);
        ow_put(w, &b, 1);
        u >>= 7;
    } while (u);
}

static inline void ow_int(struct ow *w, uint32_t field, int64_t v)
{
    ow_varint(w, field << 3);
    ow_varint(w, (uint64_t)v);
}

static inline void ow_float(struct ow *w, uint32_t field, float v)
{
    ow_varint(w, field << 3 | 5);
    ow_put(w, &v, sizeof(v));
}

static inline void ow_bytes(struct ow *w, uint32_t field, const void *data, size_t n)
{
    ow_varint(w, field << 3 | 2);
    ow_varint(w, n);
    ow_put(w, data, n);
}

static inline void ow_str(struct ow *w, uint32_t field, const char *s)
{
    ow_bytes(w, field, s, strlen(s));
}

/* Append a message and free it. */
static inline void ow_add(struct ow *w, uint32_t field, struct ow *sub)
{
    ow_bytes(w, field, sub->p, sub->n);
    ow_done(sub);
}

/* Call fn for each part of "a,b,c"; "" has none. */
static inline void ow_split(const char *list, void (*fn)(void *, const char *), void *arg)
{
    while (*list) {
        char part[128];
        size_t n = strcspn(list, ",");
        assert(n < sizeof(part));
        memcpy(part, list, n);
        part[n] = 0;
        fn(arg, part);
        list += n + (list[n] == ',');
    }
}

static inline void ow_part_in(void *w, const char *s)
{
    ow_str(w, 1, s);
}
static inline void ow_part_out(void *w, const char *s)
{
    ow_str(w, 2, s);
}
static inline void ow_part_number(void *w, const char *s)
{
    ow_int(w, 1, strtoll(s, NULL, 10));
}
static inline void ow_part_dim(void *w, const char *s)
{
    struct ow dim = {0};

    if (isdigit((unsigned char)*s) || *s == '-')
        ow_int(&dim, 1, strtoll(s, NULL, 10));
    else if (*s != '?')
        ow_str(&dim, 2, s);
    ow_add(w, 1, &dim);
}

static inline struct ow ow_node(const char *op, const char *name, const char *in, const char *out)
{
    struct ow w = {0};

    ow_split(in, ow_part_in, &w);
    ow_split(out, ow_part_out, &w);
    ow_str(&w, 3, name);
    ow_str(&w, 4, op);
    return w;
}

static inline void ow_attr_int(struct ow *node, const char *name, int64_t v)
{
    struct ow a = {0};

    ow_str(&a, 1, name);
    ow_int(&a, 3, v);
    ow_int(&a, 20, 2);
    ow_add(node, OW_ATTR, &a);
}

static inline void ow_attr_str(struct ow *node, const char *name, const char *s)
{
    struct ow a = {0};

    ow_str(&a, 1, name);
    ow_str(&a, 4, s);
    ow_int(&a, 20, 3);
    ow_add(node, OW_ATTR, &a);
}

static inline void ow_part_text(void *w, const char *s)
{
    ow_str(w, 9, s);
}
static inline void ow_attr_graph(struct ow *node, const char *name, struct ow *graph)
{
    struct ow a = {0};

    ow_str(&a, 1, name);
    ow_add(&a, 6, graph);
    ow_int(&a, 20, 5);
    ow_add(node, OW_ATTR, &a);
}
/* A list of strings: "a,b,c". */
static inline void ow_attr_strs(struct ow *node, const char *name, const char *list)
{
    struct ow a = {0};

    ow_str(&a, 1, name);
    ow_split(list, ow_part_text, &a);
    ow_int(&a, 20, 8);
    ow_add(node, OW_ATTR, &a);
}

/* Unpacked, as older exporters write it. */
static inline void ow_attr_ints(struct ow *node, const char *name, const int64_t *v, size_t n)
{
    struct ow a = {0};

    ow_str(&a, 1, name);
    for (size_t i = 0; i < n; i++)
        ow_int(&a, 8, v[i]);
    ow_int(&a, 20, 7);
    ow_add(node, OW_ATTR, &a);
}

/* A TensorProto without data. */
static inline struct ow ow_tensor(const char *name, enum dtype dtype, const char *shape)
{
    struct ow t = {0};

    ow_split(shape, ow_part_number, &t);
    ow_int(&t, 2, dtype);
    ow_str(&t, 8, name);
    return t;
}

static inline void ow_init(struct ow *graph, const char *name, enum dtype dtype, const char *shape,
                           const void *raw, size_t bytes)
{
    struct ow t = ow_tensor(name, dtype, shape);

    ow_bytes(&t, 9, raw, bytes);
    ow_add(graph, OW_INIT, &t);
}

/* A ValueInfoProto with type and shape into field `field` of the graph. */
static inline void ow_value(struct ow *graph, uint32_t field, const char *name, int64_t dtype,
                            const char *shape)
{
    struct ow info = {0}, type = {0}, tensor = {0}, dims = {0};

    ow_split(shape, ow_part_dim, &dims);
    ow_int(&tensor, 1, dtype);
    ow_add(&tensor, 2, &dims);
    ow_add(&type, 1, &tensor);
    ow_str(&info, 1, name);
    ow_add(&info, 2, &type);
    ow_add(graph, field, &info);
}

static inline void ow_input(struct ow *graph, const char *name, int64_t dtype, const char *shape)
{
    ow_value(graph, OW_INPUT, name, dtype, shape);
}

static inline void ow_output(struct ow *graph, const char *name)
{
    struct ow info = {0};

    ow_str(&info, 1, name);
    ow_add(graph, OW_OUTPUT, &info);
}

/* A node without attributes, into the graph. */
static inline void ow_plain(struct ow *graph, const char *op, const char *name, const char *in,
                            const char *out)
{
    struct ow n = ow_node(op, name, in, out);

    ow_add(graph, OW_NODE, &n);
}

static inline struct ow ow_model(struct ow *graph, int64_t opset)
{
    struct ow m = {0}, import = {0};

    ow_int(&m, 1, 8);
    ow_add(&m, 7, graph);
    ow_int(&import, 2, opset);
    ow_add(&m, 8, &import);
    return m;
}

/* Read the model and free its bytes' buffer in ow_done(m) after the graph. */
static inline int ow_read_from(const struct ow *m, const char *dir,
                               const struct model_limits *limits, struct graph **ret, struct err *e)
{
    struct mapping file = {.base = m->p, .bytes = m->n}, *ext = NULL;
    uint32_t n_ext = 0;
    int rc = onnx_read(&file, dir, limits, ret, &ext, &n_ext, e);

    free(ext); /* a test's few pages stay mapped until it ends */
    return rc;
}

static inline int ow_read(const struct ow *m, const char *dir, struct graph **ret, struct err *e)
{
    return ow_read_from(m, dir, NULL, ret, e);
}

static inline int ow_read_within(const struct ow *m, const struct model_limits *limits,
                                 struct graph **ret, struct err *e)
{
    return ow_read_from(m, NULL, limits, ret, e);
}
