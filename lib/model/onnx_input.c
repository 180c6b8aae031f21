/* Inputs of the graph: element type, dimensions, and a symbol for each dimension without a
 * number.  A dimension that the file does not name is named after the input: "image.0". */
#include "onnx.h"
#include <stdio.h>

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
        return onnx_broken(s->r, "a dimension");
    if (value < -1 || value > MAX_DIM)
        return err_set(s->r->err, -EINVAL, "dimension %u is %lld (0 to %lld)", at, (long long)value,
                       (long long)MAX_DIM);
    *ret = (struct dim){.scale = value, .sym = SYM_CONST};
    if (value >= 0)
        return 0;
    const char *name = pb_size(param) ? onnx_name(s, param, "dimension")
                                      : arena_printf(&s->g->arena, "%s.%u", input, at);
    if (!name)
        return pb_size(param) ? s->r->err->code : onnx_no_memory(s->r, -ENOMEM);
    ret->scale = 1;
    int rc = graph_add_sym(s->g, name, &ret->sym);
    if (rc == -E2BIG)
        return err_set(s->r->err, -ENOTSUP, "free dimension '%.64s': a model may have %d of them",
                       name, MAX_SYMS);
    return rc < 0 ? onnx_no_memory(s->r, rc) : 0;
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
            return err_set(s->r->err, -EINVAL, "more than %d dimensions", MAX_RANK);
        int rc = read_dim(s, f.bytes, input, (uint32_t)*rank, &dims[*rank]);
        if (rc < 0)
            return rc;
        ++*rank;
    }
    return more < 0 ? onnx_broken(s->r, "its shape") : 0;
}

int onnx_sub(struct reading *s, struct pb msg, uint32_t num, struct pb *ret, bool *found)
{
    struct pb_field f;
    int more;

    *found = false;
    while ((more = pb_next(&msg, &f)) > 0)
        if (f.num == num && f.wire == PB_BYTES) {
            *ret = f.bytes;
            *found = true;
        }
    return more < 0 ? onnx_broken(s->r, "its type") : 0;
}

static int read_type(struct reading *s, struct pb info, const char *name, uint64_t *dtype,
                     struct dim *dims, int32_t *rank)
{
    struct pb type = {0}, tensor = {0}, shape = {0}, walk;
    struct pb_field f;
    bool found;
    int rc;

    *dtype = 0;
    if ((rc = onnx_sub(s, info, 2, &type, &found)) < 0 ||
        (rc = onnx_sub(s, type, 1, &tensor, &found)) < 0)
        return rc;
    if (!found)
        return err_set(s->r->err, -ENOTSUP, "is not a tensor");
    for (walk = tensor; pb_next(&walk, &f) > 0;)
        if (f.num == 1)
            *dtype = f.u;
    if (*dtype >= DT_END || STREQ(dtype_name((enum dtype) * dtype), "?"))
        return err_set(s->r->err, -ENOTSUP, "element type %llu is not supported",
                       (unsigned long long)*dtype);
    if ((rc = onnx_sub(s, tensor, 2, &shape, &found)) < 0)
        return rc;
    if (!found)
        return err_set(s->r->err, -ENOTSUP, "has no shape, not even a rank");
    return read_shape(s, shape, name, dims, rank);
}

int onnx_read_input(struct reading *s, struct pb msg)
{
    char what[WHAT_PRINT];
    struct graph *g = s->g;
    struct pb name = {0};
    struct dim dims[MAX_RANK];
    uint64_t dtype;
    uint32_t id;
    int32_t rank = 0;
    bool found;
    int rc = onnx_sub(s, msg, 1, &name, &found);

    if (rc < 0)
        return rc;
    if (names_find(&s->names, name, &id) && g->values[id].constant)
        return 0; /* before IR 4, initializers are listed among the inputs */
    if (pb_size(name) == 0)
        return err_set(s->r->err, -EINVAL, "an input without a name");
    const char *copy = onnx_name(s, name, "input");
    if (!copy)
        return s->r->err->code;
    (void)onnx_what("input", name, what, sizeof(what));
    if (!s->outer && read_type(s, msg, copy, &dtype, dims, &rank) < 0)
        return err_wrap(s->r->err, "%s: ", what);
    if (s->outer) { /* shapes are known when the body runs */
        dtype = DT_NONE;
        rank = -1;
    }
    if (g->n_in == MAX_IO)
        return err_set(s->r->err, -EINVAL, "%s: a graph may have %d inputs", what, MAX_IO);
    if ((rc = graph_add_value(g, copy, (enum dtype)dtype, rank, dims, &id)) < 0)
        return onnx_no_memory(s->r, rc);
    g->in[g->n_in++] = id;
    return onnx_value_name(s, name, "input", id, NODE_NONE);
}

/* ---- declared results */

/* A free dimension of the inputs, or whatever it will be: nothing here makes a new one. */
static struct dim declared_dim(const struct graph *g, struct pb msg)
{
    struct pb_field f;
    struct dim d = {-1, SYM_VARIES};

    while (pb_next(&msg, &f) > 0) {
        if (f.num == 1 && f.wire == PB_VARINT && f.u <= (uint64_t)MAX_DIM)
            return (struct dim){(int64_t)f.u, SYM_CONST};
        for (uint32_t i = 0; f.num == 2 && i < g->n_syms; i++)
            if (pb_is(f.bytes, g->syms[i].name))
                d = (struct dim){1, (int32_t)i};
    }
    return d;
}

static void declare_shape(const struct graph *g, struct pb msg, struct value *v)
{
    struct pb_field f;
    int32_t rank = 0;

    while (pb_next(&msg, &f) > 0 && rank <= MAX_RANK)
        if (f.num == 1 && rank++ < MAX_RANK)
            v->dims[rank - 1] = declared_dim(g, f.bytes);
    v->rank = rank <= MAX_RANK ? rank : -1;
}

int onnx_declare(struct reading *s, struct pb msg, uint32_t value)
{
    struct value *v = &s->g->values[value];
    struct pb type = {0}, tensor = {0}, shape = {0};
    struct pb_field f;
    bool found;
    int rc;

    if ((rc = onnx_sub(s, msg, 2, &type, &found)) < 0 ||
        (rc = onnx_sub(s, type, 1, &tensor, &found)) < 0 ||
        (rc = onnx_sub(s, tensor, 2, &shape, &found)) < 0)
        return rc;
    while (pb_next(&tensor, &f) > 0)
        if (f.num == 1 && f.u < DT_END && !STREQ(dtype_name((enum dtype)f.u), "?"))
            v->dtype = (enum dtype)f.u;
    if (found)
        declare_shape(s->g, shape, v);
    return 0;
}
