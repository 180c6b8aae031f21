/* Resize and Upsample of FP32, nearest and linear: along each axis a table says which two inputs a
 * result lies between, and how far behind the first.  The last two axes are done in one pass over
 * the result; in front of them nothing may change.  All else is left to the plain loops. */
#include "kit.h"

struct step { /* of one result along one axis */
    int32_t low, high;
    float weight; /* of high */
};

struct resize {
    int64_t planes, in[2], out[2]; /* rows, columns */
    const struct step *row, *col;
    void (*mix)(const struct resize *p, const float *a, const float *b, float weight, float *y);
    bool linear;
    uint32_t n_in;
};

VECTOR(mix_rows, (const struct resize *p, const float *a, const float *b, float weight, float *y),
       (p, a, b, weight, y))
{
    const struct step *col = p->col;

    SIMD for (int64_t i = 0; i < p->out[1]; i++)
    {
        float w = col[i].weight;
        float upper = a[col[i].low] + w * (a[col[i].high] - a[col[i].low]);
        float lower = b[col[i].low] + w * (b[col[i].high] - b[col[i].low]);
        y[i] = upper + weight * (lower - upper);
    }
}

static int run_linear(const void *params, void *const *ptr)
{
    const struct resize *p = params;
    const float *x = ptr[0];
    float *y = ptr[p->n_in];

    for (int64_t n = 0; n < p->planes; n++, x += p->in[0] * p->in[1])
        for (int64_t i = 0; i < p->out[0]; i++, y += p->out[1])
            p->mix(p, x + p->row[i].low * p->in[1], x + p->row[i].high * p->in[1], p->row[i].weight,
                   y);
    return 0;
}

static int run_nearest(const void *params, void *const *ptr)
{
    const struct resize *p = params;
    const float *x = ptr[0];
    float *y = ptr[p->n_in];

    for (int64_t n = 0; n < p->planes; n++, x += p->in[0] * p->in[1])
        for (int64_t i = 0; i < p->out[0]; i++, y += p->out[1]) {
            const float *row = x + p->row[i].low * p->in[1];
            if (i > 0 && p->row[i].low == p->row[i - 1].low)
                memcpy(y, y - p->out[1], (size_t)p->out[1] * sizeof(*y));
            else
                for (int64_t j = 0; j < p->out[1]; j++)
                    y[j] = row[p->col[j].low];
        }
    return 0;
}

/* ---- planning */

struct axis {
    int64_t n_in, n_out;
    float scale, width; /* width: n_in times the scale, whole or not */
};

static bool transform(const char *mode, const struct axis *a, int64_t at, float *ret)
{
    float half = ((float)at + 0.5f) / a->scale - 0.5f;

    if (STREQ(mode, "half_pixel"))
        *ret = half;
    else if (STREQ(mode, "pytorch_half_pixel"))
        *ret = a->n_out > 1 ? half : 0;
    else if (STREQ(mode, "asymmetric"))
        *ret = (float)at / a->scale;
    else if (STREQ(mode, "align_corners"))
        *ret = a->width == 1 ? 0 : (float)at * (float)(a->n_in - 1) / (a->width - 1);
    else
        return false;
    return true;
}

static bool round_of(const char *mode, float scale, float x, float *ret)
{
    if (STREQ(mode, "round_prefer_floor"))
        *ret = ceilf(x - 0.5f);
    else if (STREQ(mode, "round_prefer_ceil"))
        *ret = floorf(x + 0.5f);
    else if (STREQ(mode, "floor") || (STREQ(mode, "simple") && scale >= 1))
        *ret = floorf(x);
    else if (STREQ(mode, "ceil") || STREQ(mode, "simple"))
        *ret = ceilf(x);
    else
        return false;
    return true;
}

struct modes {
    const char *filter, *transform, *nearest;
};

static struct step *make_steps(const struct cpu_args *a, const struct axis *axis,
                               const struct modes *m, bool linear)
{
    struct step *s = ARENA_ARRAY(a->arena, struct step, MAX(axis->n_out, 1));

    for (int64_t i = 0; s && i < axis->n_out; i++) {
        float x = (float)i, last = (float)(axis->n_in - 1);
        if (axis->scale != 1 || axis->n_in != axis->n_out) {
            if (!transform(m->transform, axis, i, &x) ||
                (!linear && !round_of(m->nearest, axis->scale, x, &x)))
                return NULL;
        }
        x = x < 0 ? 0 : x > last ? last : x;
        s[i].low = (int32_t)x;
        s[i].high = (int32_t)MIN(s[i].low + 1, axis->n_in - 1);
        s[i].weight = x - (float)s[i].low;
    }
    return s;
}

static struct modes read_modes(const struct node *n)
{
    struct modes m = {.filter = node_str(n, "mode", "nearest"),
                      .transform = "asymmetric",
                      .nearest = n->op == OP_Upsample ? "floor" : "simple"};

    if (n->op == OP_Resize && n->opset >= 11) {
        m.transform = node_str(n, "coordinate_transformation_mode", "half_pixel");
        m.nearest = node_str(n, "nearest_mode", "round_prefer_floor");
    }
    return m;
}

/* Scales as the node gives them; false where they are not known, or sizes keep an aspect. */
static bool read_scales(const struct cpu_args *a, struct axis *axis)
{
    const struct node *n = a->node;
    const struct tensor *x = a->in[0], *y = a->out[0];
    bool late = n->op == OP_Resize && n->opset >= 11;
    const struct tensor *scales = arg_in(a, late ? 2 : 1), *sizes = late ? arg_in(a, 3) : NULL;
    const struct attr *attr = n->op == OP_Upsample ? node_attr(n, "scales") : NULL;
    bool two = n->op == OP_Upsample && n->opset < 7;

    if (node_attr(n, "axes") || node_int(n, "antialias", 0) || node_int(n, "exclude_outside", 0) ||
        !STREQ(node_str(n, "keep_aspect_ratio_policy", "stretch"), "stretch"))
        return false;
    bool by_size = sizes && count_of(sizes) > 0;
    if (!by_size && !attr && !two && (!scales || !scales->data))
        return false;
    for (uint32_t i = 0; i < x->rank; i++) {
        axis[i] = (struct axis){.n_in = x->dims[i], .n_out = y->dims[i], .scale = 1};
        if (by_size)
            axis[i].scale = (float)axis[i].n_out / (float)axis[i].n_in;
        else if (two && i + 2 >= x->rank)
            axis[i].scale = node_float(n, i + 2 == x->rank ? "height_scale" : "width_scale", 1);
        else if (!two)
            axis[i].scale = attr ? attr->floats[i] : ((const float *)scales->data)[i];
        axis[i].width = by_size ? (float)axis[i].n_out : axis[i].scale * (float)axis[i].n_in;
    }
    return true;
}

int plan_resize(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *x = a->in[0];
    struct modes m = read_modes(a->node);
    struct axis axis[MAX_RANK];
    struct resize p = {.linear = STREQ(m.filter, "linear") || STREQ(m.filter, "bilinear"),
                       .mix = PICK(mix_rows),
                       .n_in = a->node->n_in};

    if (x->dtype != DT_FP32 || x->rank < 2 || x->bytes == 0 || a->out[0]->bytes == 0 ||
        (!p.linear && !STREQ(m.filter, "nearest")) || !read_scales(a, axis))
        return plan_fail(a, -ENOTSUP, "a form that plain loops do", err);
    for (uint32_t i = 0; i + 2 < x->rank; i++)
        if (axis[i].scale != 1 || axis[i].n_in != axis[i].n_out)
            return plan_fail(a, -ENOTSUP, "resizes more than the last two axes", err);
    const struct axis *rows = &axis[x->rank - 2], *cols = rows + 1;
    if (rows->n_in > INT32_MAX || cols->n_in > INT32_MAX)
        return plan_fail(a, -ENOTSUP, "an axis of more than 2^31 elements", err);
    p.planes = span(x, 0, x->rank - 2);
    p.in[0] = rows->n_in, p.in[1] = cols->n_in;
    p.out[0] = rows->n_out, p.out[1] = cols->n_out;
    p.row = make_steps(a, rows, &m, p.linear);
    p.col = make_steps(a, cols, &m, p.linear);
    if (!p.row || !p.col)
        return plan_fail(a, -ENOTSUP, "a mode that plain loops do", err);
    return plan_done(a, p.linear ? run_linear : run_nearest, &p, sizeof(p), ret, err);
}
