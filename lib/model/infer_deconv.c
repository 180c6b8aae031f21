/* Shape rules of what runs a window backwards or bends it: ConvTranspose, Col2Im, MaxUnpool,
 * DeformConv. */
#include "infer.h"
#include <stdio.h>

struct spread {
    uint32_t n; /* spatial dimensions */
    int64_t kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK], pad[2 * MAX_RANK];
};

static int spread_read(struct infer *c, uint32_t n, const int64_t *kernel, struct spread *s)
{
    int rc;

    s->n = n;
    if ((rc = infer_window_list(c, "strides", n, 1, 1, s->stride)) < 0 ||
        (rc = infer_window_list(c, "dilations", n, 1, 1, s->dilation)) < 0 ||
        (rc = infer_window_list(c, "pads", 2 * n, 0, 0, s->pad)) < 0 ||
        (rc = infer_window_list(c, "kernel_shape", n, 1, 1, s->kernel)) < 0)
        return rc;
    for (uint32_t i = 0; kernel && i < n; i++) {
        if (kernel[i] < 1 || kernel[i] > INT32_MAX ||
            (node_attr(c->n, "kernel_shape") && s->kernel[i] != kernel[i]))
            return err_set(c->err, -EINVAL, "a kernel of %lld, but weights of %lld",
                           (long long)s->kernel[i], (long long)kernel[i]);
        s->kernel[i] = kernel[i];
    }
    return 0;
}

static int64_t reach(const struct spread *s, uint32_t i)
{
    return (s->kernel[i] - 1) * s->dilation[i] + 1; /* both below 2^31 */
}

/* ---- ConvTranspose */

static int transpose_check(struct infer *c, const struct tensor *x, const struct tensor *k,
                           const struct tensor *bias)
{
    int64_t group = node_int(c->n, "group", 1);
    char px[80], pk[80];

    if (x->rank < 3 || k->rank != x->rank || group < 1 || group > INT32_MAX ||
        k->dims[0] != x->dims[1] || x->dims[1] % group != 0 || k->dims[1] > MAX_DIM / group)
        return err_set(c->err, -EINVAL, "input %s and weights %s do not go together in %lld groups",
                       dims_print(x->rank, x->dims, px, sizeof(px)),
                       dims_print(k->rank, k->dims, pk, sizeof(pk)), (long long)group);
    if (bias && (bias->rank != 1 || bias->dims[0] != k->dims[1] * group))
        return err_set(c->err, -EINVAL, "a bias of shape %s for %lld channels",
                       dims_print(bias->rank, bias->dims, px, sizeof(px)),
                       (long long)(k->dims[1] * group));
    return 0;
}

/* output_shape: of the spatial dimensions, or of all. */
static int shape_given(struct infer *c, uint32_t n, int64_t *out)
{
    uint32_t count;
    const int64_t *shape = node_ints(c->n, "output_shape", &count);

    if (count != n && count != n + 2)
        return err_set(c->err, -EINVAL, "output_shape has %u numbers, not %u", count, n);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = shape[count - n + i];
        if (out[i] < 0)
            return err_set(c->err, -EINVAL, "output_shape of %lld", (long long)out[i]);
    }
    return 0;
}

static int transpose_out(struct infer *c, const struct spread *s, const int64_t *in, int64_t *out)
{
    const char *mode = node_str(c->n, "auto_pad", "NOTSET");
    bool same = STREQ(mode, "SAME_UPPER") || STREQ(mode, "SAME_LOWER");
    bool none = STREQ(mode, "VALID");
    int64_t more[MAX_RANK];
    int rc = infer_window_list(c, "output_padding", s->n, 0, 0, more);

    if (rc < 0)
        return rc;
    if (!same && !none && !STREQ(mode, "NOTSET"))
        return err_set(c->err, -EINVAL, "auto_pad '%.32s'", mode);
    if (node_attr(c->n, "output_shape"))
        return shape_given(c, s->n, out);
    for (uint32_t i = 0; i < s->n; i++) {
        int64_t steps;
        if (__builtin_mul_overflow(s->stride[i], same ? in[i] : MAX(in[i] - 1, 0), &steps) ||
            steps > MAX_DIM)
            return err_set(c->err, -EINVAL, "dimension %u of %lld at a stride of %lld", i,
                           (long long)in[i], (long long)s->stride[i]);
        out[i] = steps;
        if (!same)
            out[i] += more[i] + reach(s, i) - (none ? 0 : s->pad[i] + s->pad[s->n + i]);
        if (out[i] < 0)
            return err_set(c->err, -EINVAL, "dimension %u would be %lld", i, (long long)out[i]);
    }
    return 0;
}

int infer_conv_transpose(struct infer *c)
{
    const struct tensor *x = c->in[0], *k = c->in[1];
    int64_t dims[MAX_RANK];
    struct spread s;
    int rc = transpose_check(c, x, k, infer_in(c, 2));

    if (rc < 0 || (rc = spread_read(c, x->rank - 2, k->dims + 2, &s)) < 0 ||
        (rc = transpose_out(c, &s, x->dims + 2, dims + 2)) < 0)
        return rc;
    dims[0] = x->dims[0];
    dims[1] = k->dims[1] * node_int(c->n, "group", 1);
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

/* ---- Col2Im: x [N, C * block, number of blocks] */

static int blocks_fit(struct infer *c, const struct spread *s, const int64_t *image, int64_t *block,
                      int64_t *count)
{
    *block = *count = 1;
    for (uint32_t i = 0; i < s->n; i++) {
        int64_t room = image[i] + s->pad[i] + s->pad[s->n + i] - reach(s, i);
        if (image[i] < 0 || image[i] > MAX_DIM || room < 0)
            return err_set(c->err, -EINVAL, "a block of %lld over dimension %u, which is %lld",
                           (long long)reach(s, i), i, (long long)image[i]);
        if (__builtin_mul_overflow(*block, s->kernel[i], block) ||
            __builtin_mul_overflow(*count, room / s->stride[i] + 1, count))
            return err_set(c->err, -EINVAL, "too many blocks");
    }
    return 0;
}

int infer_col2im(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t image[MAX_RANK], kernel[MAX_RANK], dims[MAX_RANK], block, count;
    uint32_t n, n_kernel;
    struct spread s;
    char buf[80];
    int rc = infer_ints(c, 1, "image_shape", image, MAX_RANK - 2, &n);

    if (rc < 0 || (rc = infer_ints(c, 2, "block_shape", kernel, MAX_RANK - 2, &n_kernel)) < 0)
        return rc;
    if (n < 1 || n_kernel != n || x->rank != 3)
        return err_set(c->err, -EINVAL, "%u numbers in image_shape, %u in block_shape, input %s", n,
                       n_kernel, dims_print(x->rank, x->dims, buf, sizeof(buf)));
    if ((rc = spread_read(c, n, kernel, &s)) < 0 ||
        (rc = blocks_fit(c, &s, image, &block, &count)) < 0)
        return rc;
    if (x->dims[1] % block != 0 || x->dims[2] != count)
        return err_set(c->err, -EINVAL, "input %s, but %lld blocks of %lld",
                       dims_print(x->rank, x->dims, buf, sizeof(buf)), (long long)count,
                       (long long)block);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1] / block;
    memcpy(dims + 2, image, n * sizeof(*dims));
    return infer_out(c, 0, x->dtype, n + 2, dims);
}

/* ---- MaxUnpool */

int infer_max_unpool(struct infer *c)
{
    const struct tensor *x = c->in[0], *index = c->in[1];
    int64_t dims[MAX_RANK], shape[MAX_RANK];
    struct spread s;
    uint32_t n;
    int rc;

    if (x->rank < 3 || index->dtype != DT_INT64 || index->rank != x->rank ||
        memcmp(index->dims, x->dims, x->rank * sizeof(*dims)) != 0)
        return err_set(c->err, -EINVAL, "indices must be INT64, one for each element");
    if (!node_attr(c->n, "kernel_shape"))
        return err_set(c->err, -EINVAL, "kernel_shape is missing");
    if ((rc = spread_read(c, x->rank - 2, NULL, &s)) < 0)
        return rc;
    memcpy(dims, x->dims, 2 * sizeof(*dims));
    for (uint32_t i = 0; i < s.n; i++) {
        if (x->dims[2 + i] > MAX_DIM / s.stride[i])
            return err_set(c->err, -EINVAL, "dimension %u of %lld at a stride of %lld", i,
                           (long long)x->dims[2 + i], (long long)s.stride[i]);
        dims[2 + i] =
            MAX(x->dims[2 + i] - 1, 0) * s.stride[i] + s.kernel[i] - s.pad[i] - s.pad[s.n + i];
        if (dims[2 + i] < 0)
            return err_set(c->err, -EINVAL, "dimension %u would be %lld", i,
                           (long long)dims[2 + i]);
    }
    if (!infer_in(c, 2))
        return infer_out(c, 0, x->dtype, x->rank, dims);
    if ((rc = infer_ints(c, 2, "output_shape", shape, MAX_RANK, &n)) < 0)
        return rc;
    for (uint32_t i = 0; i < n && n == x->rank; i++)
        if (shape[i] < (i < 2 ? dims[i] : 0) || (i < 2 && shape[i] != dims[i]))
            return err_set(c->err, -EINVAL, "output_shape of %lld for dimension %u",
                           (long long)shape[i], i);
    if (n != x->rank)
        return err_set(c->err, -EINVAL, "output_shape has %u numbers, not %u", n, x->rank);
    return infer_out(c, 0, x->dtype, x->rank, shape);
}

/* ---- DeformConv: x, weights, offset, bias, mask */

static int field_fits(struct infer *c, const struct tensor *t, const char *what, uint32_t rank,
                      const int64_t *y, int64_t groups, int64_t taps)
{
    char buf[80];
    bool fits = t->rank == rank && t->dims[0] == y[0] && groups >= 1 && t->dims[1] % groups == 0 &&
                t->dims[1] / groups == taps;

    for (uint32_t i = 2; fits && i < rank; i++)
        fits = t->dims[i] == y[i];
    return fits ? 0
                : err_set(c->err, -EINVAL, "%s of shape %s (offset_group %lld)", what,
                          dims_print(t->rank, t->dims, buf, sizeof(buf)), (long long)groups);
}

int infer_deform_conv(struct infer *c)
{
    const struct tensor *x = c->in[0], *k = c->in[1], *mask = infer_in(c, 4);
    int64_t groups = node_int(c->n, "offset_group", 1), dims[MAX_RANK], taps = 1;
    int rc = infer_conv_dims(c, x, k, infer_in(c, 3), dims);

    if (rc < 0)
        return rc;
    if (groups < 1 || groups > INT32_MAX || x->dims[1] % groups != 0)
        return err_set(c->err, -EINVAL, "offset_group %lld for %lld channels", (long long)groups,
                       (long long)x->dims[1]);
    for (uint32_t i = 2; i < k->rank; i++)
        if (__builtin_mul_overflow(taps, k->dims[i], &taps) || taps > MAX_DIM)
            return err_set(c->err, -EINVAL, "too large a kernel");
    if ((rc = field_fits(c, c->in[2], "an offset", x->rank, dims, groups, taps * (x->rank - 2))) <
            0 ||
        (mask && (rc = field_fits(c, mask, "a mask", x->rank, dims, groups, taps)) < 0))
        return rc;
    return infer_out(c, 0, x->dtype, x->rank, dims);
}
