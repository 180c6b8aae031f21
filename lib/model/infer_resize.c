/* Shape rules of operators that sample their input elsewhere than where its elements lie: Resize,
 * Upsample, CenterCropPad, AffineGrid, GridSample. */
#include "infer.h"
#include <math.h>
#include <stdio.h>

/* The floats in input i, which must be known; an empty list is as good as none. */
static int known_floats(struct infer *c, uint32_t i, const char *what, float *ret, uint32_t max,
                        uint32_t *n)
{
    const struct tensor *t = infer_in(c, i);

    if (t->dtype != DT_FP32 || t->rank != 1 || t->dims[0] > max)
        return err_set(c->err, -EINVAL, "its %s must be a list of at most %u FP32", what, max);
    if (!t->data)
        return infer_unknown(c, what);
    *n = (uint32_t)t->dims[0];
    memcpy(ret, t->data, *n * sizeof(*ret));
    return 0;
}

static bool is_there(const struct infer *c, uint32_t i)
{
    const struct tensor *t = infer_in(c, i);

    return t && !(t->rank == 1 && t->dims[0] == 0);
}

static int resize_one(struct infer *c, const struct tensor *x, int64_t axis, float scale,
                      int64_t *dims)
{
    float size = floorf((float)x->dims[axis] * scale);

    if (!(scale > 0) || !(size <= (float)MAX_DIM))
        return err_set(c->err, -EINVAL, "a scale of %g for dimension %lld, which is %lld",
                       (double)scale, (long long)axis, (long long)x->dims[axis]);
    dims[axis] = (int64_t)size;
    return 0;
}

/* Axes that scales and sizes speak of: all, or those of the attribute. */
static int resize_axes(struct infer *c, uint32_t rank, int64_t axes[MAX_RANK], uint32_t *n)
{
    const int64_t *list = node_ints(c->n, "axes", n);
    int rc = 0;

    if (!list)
        *n = rank;
    if (*n > rank)
        return err_set(c->err, -EINVAL, "%u axes for %u dimensions", *n, rank);
    for (uint32_t i = 0; i < *n && rc == 0; i++) {
        axes[i] = list ? list[i] : i;
        rc = infer_axis(c, &axes[i], rank);
    }
    return rc;
}

static int sizes_kept(struct infer *c, const struct tensor *x, const int64_t *axes, uint32_t n,
                      const int64_t *sizes, bool larger, int64_t *dims)
{
    double scale = 0;

    for (uint32_t i = 0; i < n; i++) {
        double s = (double)sizes[i] / (double)x->dims[axes[i]];
        if (x->dims[axes[i]] == 0)
            return err_set(c->err, -EINVAL, "dimension %lld has no elements", (long long)axes[i]);
        scale = i == 0 ? s : larger ? MAX(scale, s) : MIN(scale, s);
    }
    for (uint32_t i = 0; i < n; i++) {
        double size = floor(scale * (double)x->dims[axes[i]] + 0.5);
        if (size > (double)MAX_DIM)
            return err_set(c->err, -EINVAL, "a size of %g (at most 2^40)", size);
        dims[axes[i]] = (int64_t)size;
    }
    return 0;
}

static int resize_to_sizes(struct infer *c, const struct tensor *x, const int64_t *axes, uint32_t n,
                           int64_t *dims)
{
    const char *policy = node_str(c->n, "keep_aspect_ratio_policy", "stretch");
    int64_t sizes[MAX_RANK];
    uint32_t n_sizes;
    int rc = infer_ints(c, 3, "sizes", sizes, MAX_RANK, &n_sizes);

    if (rc < 0)
        return rc;
    if (n_sizes != n)
        return err_set(c->err, -EINVAL, "%u sizes for %u axes", n_sizes, n);
    for (uint32_t i = 0; i < n; i++)
        if (sizes[i] < 0 || sizes[i] > MAX_DIM)
            return err_set(c->err, -EINVAL, "a size of %lld (0 to 2^40)", (long long)sizes[i]);
    if (STREQ(policy, "not_larger") || STREQ(policy, "not_smaller"))
        return sizes_kept(c, x, axes, n, sizes, STREQ(policy, "not_smaller"), dims);
    if (!STREQ(policy, "stretch"))
        return err_set(c->err, -EINVAL, "keep_aspect_ratio_policy '%.32s'", policy);
    for (uint32_t i = 0; i < n; i++)
        dims[axes[i]] = sizes[i];
    return 0;
}

/* Scales from where this opset has them. */
static int resize_scales(struct infer *c, uint32_t rank, uint32_t input, float *ret, uint32_t *n)
{
    const struct attr *a = node_attr(c->n, "scales");

    if (c->n->op == OP_Upsample && c->n->opset < 7) {
        if (rank < 2)
            return err_set(c->err, -EINVAL, "an input of rank %u, needed is at least 2", rank);
        for (*n = 0; *n + 2 < rank;)
            ret[(*n)++] = 1;
        ret[(*n)++] = node_float(c->n, "height_scale", 0);
        ret[(*n)++] = node_float(c->n, "width_scale", 0);
        return 0;
    }
    if (c->n->op == OP_Upsample && c->n->opset < 9) {
        if (!a || a->type != ATTR_FLOATS || a->n > MAX_RANK)
            return err_set(c->err, -EINVAL, "scales is missing or has more than %d numbers",
                           MAX_RANK);
        memcpy(ret, a->floats, a->n * sizeof(*ret));
        *n = a->n;
        return 0;
    }
    if (!is_there(c, input))
        return err_set(c->err, -EINVAL, "neither scales nor sizes are given");
    return known_floats(c, input, "scales", ret, MAX_RANK, n);
}

int infer_resize(struct infer *c)
{
    const struct tensor *x = c->in[0];
    bool old = c->n->op == OP_Upsample || c->n->opset < 11;
    int64_t axes[MAX_RANK], dims[MAX_RANK];
    uint32_t n_axes, n = 0;
    float scales[MAX_RANK];
    int rc = resize_axes(c, x->rank, axes, &n_axes);

    if (rc < 0)
        return rc;
    memcpy(dims, x->dims, x->rank * sizeof(*dims));
    if (!old && is_there(c, 3)) {
        if (is_there(c, 2))
            return err_set(c->err, -EINVAL, "both scales and sizes are given");
        rc = resize_to_sizes(c, x, axes, n_axes, dims);
        return rc < 0 ? rc : infer_out(c, 0, x->dtype, x->rank, dims);
    }
    if ((rc = resize_scales(c, x->rank, old ? 1 : 2, scales, &n)) < 0)
        return rc;
    if (n != n_axes)
        return err_set(c->err, -EINVAL, "%u scales for %u axes", n, n_axes);
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = resize_one(c, x, axes[i], scales[i], dims);
    return rc < 0 ? rc : infer_out(c, 0, x->dtype, x->rank, dims);
}

int infer_center_crop_pad(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axes[MAX_RANK], shape[MAX_RANK], dims[MAX_RANK];
    uint32_t n_axes, n = 0;
    int rc = resize_axes(c, x->rank, axes, &n_axes);

    if (rc < 0 || (rc = infer_ints(c, 1, "shape", shape, MAX_RANK, &n)) < 0)
        return rc;
    if (n != n_axes)
        return err_set(c->err, -EINVAL, "a shape of %u numbers for %u axes", n, n_axes);
    memcpy(dims, x->dims, x->rank * sizeof(*dims));
    for (uint32_t i = 0; i < n; i++) {
        if (shape[i] < 0)
            return err_set(c->err, -EINVAL, "a shape of %lld", (long long)shape[i]);
        dims[axes[i]] = shape[i];
    }
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

/* theta [N, d, d + 1] and size [N, C, spatial...] give [N, spatial..., d]. */
int infer_affine_grid(struct infer *c)
{
    const struct tensor *theta = c->in[0];
    int64_t size[MAX_RANK], dims[MAX_RANK];
    char buf[80];
    uint32_t n;
    int rc = infer_ints(c, 1, "size", size, MAX_RANK, &n);

    if (rc < 0)
        return rc;
    if ((n != 4 && n != 5) || theta->rank != 3 || theta->dims[0] != size[0] ||
        theta->dims[1] != n - 2 || theta->dims[2] != n - 1)
        return err_set(c->err, -EINVAL, "theta %s and a size of %u numbers do not go together",
                       dims_print(theta->rank, theta->dims, buf, sizeof(buf)), n);
    dims[0] = size[0];
    for (uint32_t i = 1; i + 1 < n; i++) {
        if (size[i + 1] < 1)
            return err_set(c->err, -EINVAL, "a size of %lld", (long long)size[i + 1]);
        dims[i] = size[i + 1];
    }
    dims[n - 1] = n - 2;
    return infer_out(c, 0, theta->dtype, n, dims);
}

/* x [N, C, spatial...] and a grid [N, spatial of the result..., d]. */
int infer_grid_sample(struct infer *c)
{
    const struct tensor *x = c->in[0], *grid = c->in[1];
    int64_t dims[MAX_RANK];
    char px[80], pg[80];

    if (x->rank < 3 || grid->rank != x->rank || grid->dims[0] != x->dims[0] ||
        grid->dims[grid->rank - 1] != x->rank - 2)
        return err_set(c->err, -EINVAL, "input %s and grid %s do not go together",
                       dims_print(x->rank, x->dims, px, sizeof(px)),
                       dims_print(grid->rank, grid->dims, pg, sizeof(pg)));
    memcpy(dims, x->dims, 2 * sizeof(*dims));
    memcpy(dims + 2, grid->dims + 1, (x->rank - 2) * sizeof(*dims));
    return infer_out(c, 0, x->dtype, x->rank, dims);
}
