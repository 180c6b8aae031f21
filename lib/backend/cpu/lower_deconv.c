/* ConvTranspose as oneDNN's deconvolution, which is the backward pass of a convolution and keeps
 * channels in blocks as those do.  What it refuses (padding behind that would be negative, weights
 * that are no constant) is left to the plain loops. */
#include "build.h"

struct deconv {
    const struct tensor *x, *w, *y;
    struct dn_conv c;
    struct layout weights; /* as they lie in the model, seen as [G, O, I, kernel] */
};

static void ints_or(const struct node *n, const char *name, uint32_t count, int64_t absent,
                    int64_t *ret)
{
    uint32_t have;
    const int64_t *v = node_ints(n, name, &have);

    for (uint32_t i = 0; i < count; i++)
        ret[i] = i < have ? v[i] : absent;
}

/* Where the shape of the result is given, the padding follows from it: the odd one in front, but
 * for SAME_UPPER. */
static bool deconv_pads(const struct node *n, struct deconv *d)
{
    const char *mode = node_str(n, "auto_pad", "NOTSET");
    bool given =
        node_attr(n, "output_shape") || STREQ(mode, "SAME_UPPER") || STREQ(mode, "SAME_LOWER");
    int64_t pads[6], more[3];

    ints_or(n, "pads", 2 * d->c.spatial, 0, pads);
    ints_or(n, "output_padding", d->c.spatial, 0, more);
    for (uint32_t i = 0; i < d->c.spatial; i++) {
        int64_t reach = (d->w->dims[2 + i] - 1) * d->c.dilate[i] + 1;
        int64_t full = (d->x->dims[2 + i] - 1) * d->c.stride[i] + reach;
        int64_t out = d->y->dims[2 + i];
        int64_t total = MAX(full + (node_attr(n, "output_shape") ? more[i] : 0) - out, 0);
        d->c.pad_lo[i] = STREQ(mode, "VALID") && !given ? 0
                         : !given                       ? pads[i]
                         : STREQ(mode, "SAME_UPPER")    ? total / 2
                                                        : total - total / 2;
        d->c.pad_hi[i] = full - d->c.pad_lo[i] - out;
        if (d->c.pad_hi[i] < 0)
            return false;
    }
    return true;
}

/* The model has [I, O/G, kernel]: only the order of strides differs. */
static int deconv_weights(const struct node *n, struct deconv *d)
{
    int64_t groups = node_int(n, "group", 1), taps = 1, dims[MAX_RANK], strides[MAX_RANK];
    int64_t in = d->w->dims[0] / groups, out = d->w->dims[1];
    uint32_t rank = 0;

    for (uint32_t i = 2; i < d->w->rank; i++)
        taps *= d->w->dims[i];
    if (groups > 1) {
        dims[rank] = groups;
        strides[rank++] = in * out * taps;
    }
    dims[rank] = out;
    strides[rank++] = taps;
    dims[rank] = in;
    strides[rank++] = out * taps;
    for (uint32_t i = 2; i < d->w->rank; i++) {
        taps /= d->w->dims[i];
        dims[rank] = d->w->dims[i];
        strides[rank++] = taps;
    }
    if (layout_strided(&d->weights, rank, dims, strides) < 0)
        return -ENOTSUP;
    return layout_any(&d->c.weights, rank, dims);
}

static int deconv_init(struct build *b, const struct node *n, struct deconv *d)
{
    *d = (struct deconv){.x = build_tensor(b, n->in[0]),
                         .w = build_tensor(b, n->in[1]),
                         .y = build_tensor(b, n->out[0])};
    if (d->x->dtype != DT_FP32 || d->x->rank < 3 || d->x->rank > 5 || d->x->bytes == 0 ||
        d->y->bytes == 0 || d->w->bytes == 0 || n->n_post || !b->graph->values[n->in[1]].constant)
        return -ENOTSUP;
    d->c.spatial = d->x->rank - 2;
    d->c.bias = n->n_in > 2 && n->in[2] != VALUE_NONE;
    d->c.bias_dim = d->y->dims[1];
    ints_or(n, "strides", d->c.spatial, 1, d->c.stride);
    ints_or(n, "dilations", d->c.spatial, 1, d->c.dilate);
    return deconv_pads(n, d) ? deconv_weights(n, d) : -ENOTSUP;
}

/* Blocked channels where they come so or there are enough of them, else as the library likes. */
static int deconv_make(struct build *b, struct deconv *d, struct prim *ret)
{
    typedef int layout_fn(struct layout * ret, uint32_t rank, const int64_t *dims);
    static layout_fn *const forms[] = {layout_blocked, layout_any, layout_rows};
    int64_t block = b->part->dev->dn.block;
    bool fits = d->x->dims[1] % block == 0 && d->y->dims[1] % block == 0;

    for (size_t i = fits ? 0 : 1; i < ARRAY_SIZE(forms); i++)
        if (forms[i](&d->c.src, d->x->rank, d->x->dims) == 0 &&
            forms[i](&d->c.dst, d->y->rank, d->y->dims) == 0 &&
            dn_deconv(&b->part->dev->dn, &d->c, ret) == 0)
            return 0;
    return -ENOTSUP;
}

int lower_deconv(struct build *b, const struct node *n)
{
    struct deconv d;
    struct layout bias_layout;
    struct ref src, weights, bias = {0};
    struct arg args[4];
    struct prim p;
    uint32_t buf, k = 0;
    int r = deconv_init(b, n, &d);

    if (r < 0 || (r = deconv_make(b, &d, &p)) < 0)
        return r;
    struct layout dst = p.dst;
    r = build_in(b, n->in[0], &p.src, &src);
    if (r == 0)
        r = build_const(b, n->in[1], &d.weights, &p.weights, &weights);
    if (r == 0 && d.c.bias)
        r = build_rows(b, n->in[2], &bias);
    if (r == 0)
        r = build_buf(b, dst.bytes, &buf);
    if (r < 0) {
        prim_done(&p);
        return r;
    }
    args[k++] = (struct arg){DNNL_ARG_SRC, src, &p.src.md};
    args[k++] = (struct arg){DNNL_ARG_WEIGHTS, weights, &p.weights.md};
    args[k++] = (struct arg){DNNL_ARG_DST, ref_buf(buf), &p.dst.md};
    if (d.c.bias && layout_rows(&bias_layout, 1, &d.c.bias_dim) == 0)
        args[k++] = (struct arg){DNNL_ARG_BIAS, bias, &bias_layout.md};
    r = build_prim(b, &p, k, args);
    return r < 0 ? r : build_set(b, n->out[0], ref_buf(buf), &dst);
}
