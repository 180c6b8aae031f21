/* Shape rules of layers with weights or windows: convolution, pooling, products, norms,
 * reductions. */
#include "infer.h"
#include <stdio.h>

/* ---- windows: convolution and pooling */

struct window {
    uint32_t n; /* spatial dimensions */
    int64_t kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK], pad[2 * MAX_RANK];
    bool valid, same; /* auto_pad: no padding; as much as the stride asks for */
    bool ceil;
};

int infer_window_list(struct infer *c, const char *name, uint32_t want, int64_t min, int64_t absent,
                      int64_t *ret)
{
    uint32_t n;
    const int64_t *list = node_ints(c->n, name, &n);

    if (list && n != want)
        return err_set(c->err, -EINVAL, "%s has %u numbers, not %u", name, n, want);
    for (uint32_t i = 0; i < want; i++) {
        ret[i] = list ? list[i] : absent;
        if (ret[i] < min || ret[i] > INT32_MAX)
            return err_set(c->err, -EINVAL, "%s of %lld (%lld to %d)", name, (long long)ret[i],
                           (long long)min, INT32_MAX);
    }
    return 0;
}

static int window_read(struct infer *c, uint32_t n, const int64_t *kernel, struct window *w)
{
    const char *mode = node_str(c->n, "auto_pad", "NOTSET");
    int rc;

    *w = (struct window){.n = n, .ceil = node_int(c->n, "ceil_mode", 0) != 0};
    w->valid = STREQ(mode, "VALID");
    w->same = STREQ(mode, "SAME_UPPER") || STREQ(mode, "SAME_LOWER");
    if (!w->valid && !w->same && !STREQ(mode, "NOTSET"))
        return err_set(c->err, -EINVAL, "auto_pad '%.32s'", mode);
    if ((rc = infer_window_list(c, "strides", n, 1, 1, w->stride)) < 0 ||
        (rc = infer_window_list(c, "dilations", n, 1, 1, w->dilation)) < 0 ||
        (rc = infer_window_list(c, "pads", 2 * n, 0, 0, w->pad)) < 0 ||
        (rc = infer_window_list(c, "kernel_shape", n, 1, 0, w->kernel)) == 0)
        return rc;
    if (!kernel || node_attr(c->n, "kernel_shape"))
        return rc;
    memcpy(w->kernel, kernel, n * sizeof(*kernel)); /* Conv without it: that of the weights */
    return 0;
}

static int window_out(struct infer *c, const struct window *w, const int64_t *in, int64_t *out)
{
    for (uint32_t i = 0; i < w->n; i++) {
        int64_t pad = w->valid ? 0 : w->pad[i] + w->pad[w->n + i];
        int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;

        if (w->same) {
            out[i] = (in[i] + w->stride[i] - 1) / w->stride[i];
            continue;
        }
        int64_t room = in[i] + pad - reach;
        if (room < 0)
            return err_set(c->err, -EINVAL,
                           "a window of %lld over dimension %u, which is %lld with its padding",
                           (long long)reach, i, (long long)(in[i] + pad));
        out[i] = (w->ceil ? (room + w->stride[i] - 1) / w->stride[i] : room / w->stride[i]) + 1;
        /* A last window that would start in the padding after the end does not count. */
        if (w->ceil && (out[i] - 1) * w->stride[i] >= in[i] + (w->valid ? 0 : w->pad[i]))
            out[i]--;
    }
    return 0;
}

static int need_rank(struct infer *c, uint32_t i, uint32_t min)
{
    if (c->in[i]->rank >= min)
        return 0;
    return err_set(c->err, -EINVAL, "input %u has rank %u, needed is at least %u", i,
                   c->in[i]->rank, min);
}

static int conv_check(struct infer *c, const struct tensor *x, const struct tensor *k,
                      const struct tensor *b, const struct window *w)
{
    int64_t group = node_int(c->n, "group", 1);
    char px[80], pk[80];

    if (group < 1 || group > INT32_MAX || x->dims[1] % group != 0 ||
        x->dims[1] / group != k->dims[1] || k->dims[0] % group != 0)
        return err_set(c->err, -EINVAL, "input %s and weights %s do not go together in %lld groups",
                       dims_print(x->rank, x->dims, px, sizeof(px)),
                       dims_print(k->rank, k->dims, pk, sizeof(pk)), (long long)group);
    for (uint32_t i = 0; i < w->n; i++)
        if (w->kernel[i] != k->dims[2 + i] || w->kernel[i] < 1 || w->kernel[i] > INT32_MAX)
            return err_set(c->err, -EINVAL, "kernel_shape %lld, but weights %s",
                           (long long)w->kernel[i], dims_print(k->rank, k->dims, pk, sizeof(pk)));
    if (b && (b->rank != 1 || b->dims[0] != k->dims[0]))
        return err_set(c->err, -EINVAL, "a bias of shape %s for %lld channels",
                       dims_print(b->rank, b->dims, px, sizeof(px)), (long long)k->dims[0]);
    return 0;
}

int infer_conv_dims(struct infer *c, const struct tensor *x, const struct tensor *k,
                    const struct tensor *bias, int64_t *dims)
{
    struct window w;
    int rc = need_rank(c, 0, 3);

    if (rc < 0)
        return rc;
    if (k->rank != x->rank)
        return err_set(c->err, -EINVAL, "weights of rank %u for an input of rank %u", k->rank,
                       x->rank);
    if ((rc = window_read(c, x->rank - 2, k->dims + 2, &w)) < 0 ||
        (rc = conv_check(c, x, k, bias, &w)) < 0 ||
        (rc = window_out(c, &w, x->dims + 2, dims + 2)) < 0)
        return rc;
    dims[0] = x->dims[0];
    dims[1] = k->dims[0];
    return 0;
}

int infer_conv(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t dims[MAX_RANK];
    int rc = infer_conv_dims(c, x, c->in[1], infer_in(c, 2), dims);

    return rc < 0 ? rc : infer_out(c, 0, x->dtype, x->rank, dims);
}

int infer_pool(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t dims[MAX_RANK];
    struct window w;
    int rc = need_rank(c, 0, 3);

    if (rc < 0)
        return rc;
    if (!node_attr(c->n, "kernel_shape"))
        return err_set(c->err, -EINVAL, "kernel_shape is missing");
    if ((rc = window_read(c, x->rank - 2, NULL, &w)) < 0 ||
        (rc = window_out(c, &w, x->dims + 2, dims + 2)) < 0)
        return rc;
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    rc = infer_out(c, 0, x->dtype, x->rank, dims);
    return rc < 0 ? rc : infer_out(c, 1, DT_INT64, x->rank, dims);
}

int infer_global_pool(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t dims[MAX_RANK];
    int rc = need_rank(c, 0, 2);

    for (uint32_t i = 0; i < x->rank; i++)
        dims[i] = i < 2 ? x->dims[i] : 1;
    return rc < 0 ? rc : infer_out(c, 0, x->dtype, x->rank, dims);
}

/* ---- norms */

/* Input i must be a list of one number for each channel. */
static int per_channel(struct infer *c, uint32_t i, int64_t channels)
{
    const struct tensor *t = c->in[i];
    char buf[80];

    if (t->rank == 1 && t->dims[0] == channels)
        return 0;
    return err_set(c->err, -EINVAL, "input %u has shape %s, needed is [%lld]", i,
                   dims_print(t->rank, t->dims, buf, sizeof(buf)), (long long)channels);
}

int infer_batch_norm(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t channels = x->rank > 1 ? x->dims[1] : 1;
    bool by_element = c->n->opset < 9 && !node_int(c->n, "spatial", 1);
    int rc = need_rank(c, 0, by_element ? 2 : 1);

    if (c->n->opset < 7 && !node_int(c->n, "is_test", 0)) /* there, training is the default */
        return err_set(c->err, -ENOTSUP, "is_test=0: training is not supported");
    for (uint32_t i = 1; rc == 0 && i < 5; i++)
        rc =
            by_element ? infer_shaped(c, i, x->rank - 1, x->dims + 1) : per_channel(c, i, channels);
    if (rc == 0)
        rc = infer_same(c);
    for (uint32_t i = 1; rc == 0 && i < c->n->n_out; i++)
        rc = infer_out(c, i, c->in[3]->dtype, 1, &channels);
    return rc;
}

int infer_instance_norm(struct infer *c)
{
    int rc = need_rank(c, 0, 2);

    for (uint32_t i = 1; rc == 0 && i < 3; i++)
        rc = per_channel(c, i, c->in[0]->dims[1]);
    return rc < 0 ? rc : infer_same(c);
}

int infer_layer_norm(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", -1), dims[MAX_RANK];
    int64_t stash = node_int(c->n, "stash_type", DT_FP32);
    uint32_t rank;
    int rc = infer_axis(c, &axis, x->rank);

    if (rc < 0)
        return rc;
    for (uint32_t i = 1; i < c->n->n_in; i++) { /* scale and bias stretch to the input */
        if (!c->in[i])
            continue;
        rc = infer_broadcast(c, x->rank, x->dims, c->in[i]->rank, c->in[i]->dims, &rank, dims);
        if (rc < 0)
            return rc;
        if (rank != x->rank || memcmp(dims, x->dims, rank * sizeof(*dims)) != 0)
            return err_set(c->err, -EINVAL, "input %u is larger than what it scales", i);
    }
    if (stash != DT_FP32 && stash != DT_BF16 && stash != DT_FP16 && stash != DT_FP64)
        return err_set(c->err, -EINVAL, "stash_type %lld", (long long)stash);
    for (uint32_t i = 0; i < x->rank; i++)
        dims[i] = i < axis ? x->dims[i] : 1;
    if ((rc = infer_same(c)) < 0 || (rc = infer_out(c, 1, (enum dtype)stash, x->rank, dims)) < 0)
        return rc;
    return infer_out(c, 2, (enum dtype)stash, x->rank, dims);
}

/* Softmax, LogSoftmax: the shape stays, the axis must exist. */
int infer_axis_only(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", c->n->opset < 13 ? 1 : -1);

    /* Before 13 the axis cuts the shape in two and may lie at its end. */
    if (!(c->n->opset < 13 && axis == x->rank) && x->rank > 0) {
        int rc = infer_axis(c, &axis, x->rank);
        if (rc < 0)
            return rc;
    }
    return infer_same(c);
}

/* ---- products */

int infer_gemm(struct infer *c)
{
    const struct tensor *a = c->in[0], *b = c->in[1], *add = infer_in(c, 2);
    int64_t dims[MAX_RANK], joint[MAX_RANK];
    bool ta = node_int(c->n, "transA", 0) != 0, tb = node_int(c->n, "transB", 0) != 0;
    uint32_t rank;
    char pa[80], pb[80];

    if (a->rank != 2 || b->rank != 2 || a->dims[ta ? 0 : 1] != b->dims[tb ? 1 : 0])
        return err_set(c->err, -EINVAL, "shapes %s and %s cannot be multiplied (%s%s)",
                       dims_print(a->rank, a->dims, pa, sizeof(pa)),
                       dims_print(b->rank, b->dims, pb, sizeof(pb)), ta ? "transA" : "",
                       tb ? "transB" : "");
    dims[0] = a->dims[ta ? 1 : 0];
    dims[1] = b->dims[tb ? 0 : 1];
    if (add) {
        int rc = infer_broadcast(c, 2, dims, add->rank, add->dims, &rank, joint);
        if (rc < 0)
            return rc;
        if (rank != 2 || memcmp(dims, joint, 2 * sizeof(*dims)) != 0)
            return err_set(c->err, -EINVAL, "input C %s is larger than the product %s",
                           dims_print(add->rank, add->dims, pa, sizeof(pa)),
                           dims_print(2, dims, pb, sizeof(pb)));
    }
    return infer_out(c, 0, a->dtype, 2, dims);
}

int infer_product_dims(struct infer *c, const struct tensor *a, const struct tensor *b,
                       uint32_t *ret_rank, int64_t *dims)
{
    uint32_t ra = a->rank, rb = b->rank, rank;
    char pa[80], pb[80];

    /* A vector on the left is one row, on the right one column, and neither is in the result. */
    if (ra == 0 || rb == 0 || a->dims[ra - 1] != b->dims[rb >= 2 ? rb - 2 : 0])
        return err_set(c->err, -EINVAL, "shapes %s and %s cannot be multiplied",
                       dims_print(ra, a->dims, pa, sizeof(pa)),
                       dims_print(rb, b->dims, pb, sizeof(pb)));
    int rc =
        infer_broadcast(c, ra > 2 ? ra - 2 : 0, a->dims, rb > 2 ? rb - 2 : 0, b->dims, &rank, dims);
    if (rc < 0)
        return rc;
    if (ra > 1)
        dims[rank++] = a->dims[ra - 2];
    if (rb > 1)
        dims[rank++] = b->dims[rb - 1];
    *ret_rank = rank;
    return 0;
}

int infer_matmul(struct infer *c)
{
    const struct tensor *b = c->in[1], *bias = infer_in(c, 2);
    int64_t dims[MAX_RANK + 2];
    char pa[80], pb[80];
    uint32_t rank;
    int rc = infer_product_dims(c, c->in[0], b, &rank, dims);

    if (rc < 0)
        return rc;
    if (bias && (b->rank < 2 || bias->rank != 1 || bias->dims[0] != b->dims[b->rank - 1]))
        return err_set(c->err, -EINVAL, "a bias of shape %s does not fit a second operand of %s",
                       dims_print(bias->rank, bias->dims, pa, sizeof(pa)),
                       dims_print(b->rank, b->dims, pb, sizeof(pb)));
    return infer_out(c, 0, c->in[0]->dtype, rank, dims);
}

/* ---- reductions */

int infer_reduce(struct infer *c)
{
    const struct tensor *x = c->in[0];
    uint32_t since = c->n->op == OP_ReduceSum ? 13 : 18, n, rank = 0;
    int64_t axes[MAX_RANK], dims[MAX_RANK];
    bool given, keep = node_int(c->n, "keepdims", 1) != 0, gone[MAX_RANK] = {0};
    int rc = infer_list(c, since, 1, "axes", axes, MAX_RANK, &n, &given);

    if (rc < 0)
        return rc;
    if (n == 0 && c->n->opset >= since && node_int(c->n, "noop_with_empty_axes", 0))
        return infer_same(c);
    for (uint32_t i = 0; i < n; i++) {
        if ((rc = infer_axis(c, &axes[i], x->rank)) < 0)
            return rc;
        gone[axes[i]] = true;
    }
    for (uint32_t i = 0; i < x->rank; i++) {
        bool is_gone = n == 0 || gone[i];
        if (!is_gone || keep)
            dims[rank++] = is_gone ? 1 : x->dims[i];
    }
    return infer_out(c, 0, x->dtype, rank, dims);
}

int infer_arg(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", 0), dims[MAX_RANK];
    bool keep = node_int(c->n, "keepdims", 1) != 0;
    uint32_t rank = 0;
    int rc = infer_axis(c, &axis, x->rank);

    if (rc < 0)
        return rc;
    if (x->dims[axis] == 0)
        return err_set(c->err, -EINVAL, "axis %lld has no elements", (long long)axis);
    for (uint32_t i = 0; i < x->rank; i++)
        if (i != axis || keep)
            dims[rank++] = i == axis ? 1 : x->dims[i];
    return infer_out(c, 0, DT_INT64, rank, dims);
}
